//! What is computed once, and for whom.

use crate::support::{Collected, model, request, run, text};
use hearth_engine::{Engine, EngineConfig, Request};
use hearth_reference::Value;
use std::time::Duration;

fn engine(pairs: &[(&str, Value)], config: EngineConfig) -> Engine {
    let pairs = [pairs, &[("eos_one_in", 0_u64.into())]].concat();
    Engine::new(&model(&pairs), config).unwrap()
}

#[test]
fn the_second_turn_computes_only_what_is_new() {
    for roll_back in [true, false] {
        let mut engine = engine(&[("roll_back", roll_back.into())], EngineConfig::default());
        let mut sink = Collected::default();
        let first = text(0, 100);
        engine.submit(request(1, 0, first.clone(), 10), &mut sink);
        run(&mut engine, &mut sink);
        let mut second = first;
        second.extend(sink.text[&1].bytes().map(i32::from));
        second.extend([120; 5]);
        engine.submit(request(2, 0, second, 10), &mut sink);
        run(&mut engine, &mut sink);
        let finish = sink.finish(2);
        // The last token of an answer is chosen and never computed.
        assert_eq!((finish.n_prompt, finish.n_cached), (115, 109), "roll_back = {roll_back}");
    }
}

#[test]
fn a_turn_after_another_answer_than_was_given_finds_the_prompt_before_it() {
    // As with a reasoning model, whose thoughts are left out of the next prompt.
    for roll_back in [true, false] {
        let mut engine = engine(&[("roll_back", roll_back.into())], EngineConfig::default());
        let mut sink = Collected::default();
        engine.submit(request(1, 0, text(0, 100), 10), &mut sink);
        run(&mut engine, &mut sink);
        let second = [text(0, 100), text(9, 30)].concat();
        engine.submit(request(2, 0, second, 10), &mut sink);
        run(&mut engine, &mut sink);
        let n_cached = sink.finish(2).n_cached;
        assert!((99..=100).contains(&n_cached), "{n_cached}, roll_back = {roll_back}");
        // And the same prompt again.
        engine.submit(request(3, 0, text(0, 100), 10), &mut sink);
        run(&mut engine, &mut sink);
        assert_eq!(sink.finish(3).n_cached, 99, "roll_back = {roll_back}");
        assert_eq!(sink.text[&3], sink.text[&1]);
    }
}

#[test]
fn a_prefix_of_prompts_that_arrive_together_is_computed_once() {
    for roll_back in [true, false] {
        let pairs = [("roll_back", roll_back.into())];
        let config = EngineConfig { n_batch: 64, ..EngineConfig::default() };
        let mut engine = engine(&pairs, config);
        let mut sink = Collected::default();
        for id in 0..6 {
            let prompt = [text(0, 300), text(id + 1, 20)].concat();
            engine.submit(request(id as u64, 0, prompt, 5), &mut sink);
        }
        run(&mut engine, &mut sink);
        let cached: Vec<u32> = (0..6).map(|id| sink.finish(id).n_cached).collect();
        assert_eq!(cached[0], 0);
        let shared = cached[1..].iter().all(|n| (300..=304).contains(n));
        assert!(shared, "{cached:?}, roll_back = {roll_back}");
    }
}

#[test]
fn one_prompt_for_several_answers_is_computed_once() {
    for roll_back in [true, false] {
        let mut engine = engine(&[("roll_back", roll_back.into())], EngineConfig::default());
        let mut sink = Collected::default();
        for id in 0..4 {
            engine.submit(request(id, 0, text(0, 200), 20), &mut sink);
        }
        run(&mut engine, &mut sink);
        let cached: Vec<u32> = (0..4).map(|id| sink.finish(id).n_cached).collect();
        assert_eq!(cached, [0, 199, 199, 199], "roll_back = {roll_back}");
    }
}

#[test]
fn a_prompt_shared_with_a_running_answer_is_not_computed_again() {
    let mut engine = engine(&[], EngineConfig::default());
    let mut sink = Collected::default();
    engine.submit(request(1, 0, text(0, 200), 500), &mut sink);
    while !sink.text.contains_key(&1) {
        engine.step(&mut sink).unwrap();
    }
    engine.submit(request(2, 0, [text(0, 200), vec![100]].concat(), 5), &mut sink);
    run(&mut engine, &mut sink);
    assert_eq!(sink.finish(2).n_cached, 200);
}

#[test]
fn shared_cells_are_counted_once() {
    // Room for one prefix and eight answers; eight prefixes would be 2,400.
    let config = EngineConfig { n_ctx: 600, ..EngineConfig::default() };
    let mut engine = engine(&[], config);
    let mut sink = Collected::default();
    for id in 0..8 {
        let prompt = [text(0, 300), text(id + 1, 10)].concat();
        engine.submit(request(id as u64, 0, prompt, 10), &mut sink);
    }
    while sink.text.len() < 8 {
        engine.step(&mut sink).unwrap();
        engine.verify_invariants();
    }
    assert!(sink.ended.is_empty(), "they did not run at the same time");
    run(&mut engine, &mut sink);
}

#[test]
fn a_prompt_asked_again_takes_the_place_of_its_first_answer() {
    // Room for the prompt and one answer, and not for two.
    let mut engine = engine(&[], EngineConfig { n_ctx: 160, ..EngineConfig::default() });
    let mut sink = Collected::default();
    for id in 0..3 {
        engine.submit(request(id, 0, text(0, 100), 40), &mut sink);
        run(&mut engine, &mut sink);
        assert_eq!(sink.finish(id).n_cached, if id == 0 { 0 } else { 99 });
        assert_eq!(sink.text[&id], sink.text[&0]);
    }
}

#[test]
fn the_time_an_answer_takes_does_not_tell_what_others_wrote() {
    // All that may be public of the prompts is their first 50 tokens.
    let asked = |written_by_another: bool| {
        let mut engine = engine(&[], EngineConfig::default());
        let mut sink = Collected::default();
        let other =
            if written_by_another { text(0, 300) } else { [text(0, 50), text(3, 250)].concat() };
        let first = Request { n_public: 50, ..request(1, 1, other, 10) };
        engine.submit(first, &mut sink);
        run(&mut engine, &mut sink);
        engine.tidy().unwrap();
        let mut computed = Vec::new();
        // Guessing the other's text token by token shows nothing either.
        for (id, len) in (2..).zip([60, 100, 200, 299, 300]) {
            let guess = Request { n_public: 50, ..request(id, 2, text(0, len), 1) };
            engine.submit(guess, &mut sink);
            let n_steps = run(&mut engine, &mut sink);
            computed.push((sink.finish(id).n_cached, n_steps));
        }
        computed
    };
    let (written, not_written) = (asked(true), asked(false));
    assert_eq!(written, not_written);
    assert_eq!(written[0].0, 50, "the public beginning is shared");
}

#[test]
fn nothing_of_another_owner_is_reused_without_a_public_prefix() {
    let mut engine = engine(&[], EngineConfig::default());
    let mut sink = Collected::default();
    for owner in 0..2 {
        engine.submit(request(owner, u32::try_from(owner).unwrap(), text(0, 100), 10), &mut sink);
        run(&mut engine, &mut sink);
        while engine.tidy().unwrap() {}
    }
    assert_eq!(sink.finish(1).n_cached, 0);
}

#[test]
fn what_left_the_kv_memory_comes_back_from_main_memory() {
    for (archive_bytes, cached) in [(1 << 20, 109), (0, 0)] {
        let config = EngineConfig {
            n_ctx: 300,
            n_kept: 0,
            n_parallel: 1,
            archive_bytes,
            ..EngineConfig::default()
        };
        let mut engine = engine(&[], config);
        let mut sink = Collected::default();
        engine.submit(request(1, 0, text(0, 100), 10), &mut sink);
        run(&mut engine, &mut sink);
        // Takes the only slot.
        engine.submit(request(2, 0, text(3, 250), 10), &mut sink);
        run(&mut engine, &mut sink);
        let answer: Vec<i32> = sink.text[&1].bytes().map(i32::from).collect();
        engine.submit(request(3, 0, [text(0, 100), answer, text(1, 5)].concat(), 10), &mut sink);
        run(&mut engine, &mut sink);
        assert_eq!(sink.finish(3).n_cached, cached, "{archive_bytes} bytes");
    }
}

#[test]
fn a_quiet_time_is_used_to_save_and_then_ends() {
    let mut engine = engine(&[], EngineConfig::default());
    let mut sink = Collected::default();
    for id in 0..3 {
        engine.submit(request(id as u64, 0, text(id, 100), 10), &mut sink);
    }
    run(&mut engine, &mut sink);
    assert_eq!(engine.held().saved_bytes, 0);
    let n_saved = std::iter::from_fn(|| engine.tidy().unwrap().then_some(())).count();
    assert_eq!(n_saved, 3);
    // 109 entries of 16 bytes, and what frames them.
    assert!((3 * 109 * 16..3 * 109 * 16 + 100).contains(&engine.held().saved_bytes));
    assert!(!engine.tidy().unwrap());
}

#[test]
fn a_talk_that_goes_on_is_saved_piece_by_piece_and_what_talks_share_is_saved_once() {
    let config = EngineConfig { n_ctx: 4096, n_kept: 4, ..EngineConfig::default() };
    let mut engine = engine(&[], config);
    let mut sink = Collected::default();
    let entries = |engine: &Engine| engine.held().saved_bytes / 16;
    let mut turn = |engine: &mut Engine, id: u64, prompt: &[i32]| {
        engine.submit(request(id, 0, prompt.to_vec(), 10), &mut sink);
        run(engine, &mut sink);
        while engine.tidy().unwrap() {
            engine.verify_invariants();
        }
        // The last token of an answer is in nobody's memory.
        [prompt, &sink.text[&id].bytes().map(i32::from).collect::<Vec<_>>()].concat()
    };
    let talk = turn(&mut engine, 1, &text(0, 100));
    assert_eq!(entries(&engine), 109 + FRAME);
    let next = [talk.clone(), text(1, 90)].concat();
    let further = turn(&mut engine, 2, &next);
    assert_eq!(further.len(), 210);
    assert_eq!(entries(&engine), 209 + 2 * FRAME, "of the second turn the news are saved");
    // The same question was asked in another way.
    let other = [talk, text(2, 50)].concat();
    turn(&mut engine, 3, &other);
    assert_eq!(entries(&engine), 209 + 60 + 3 * FRAME, "what both share is there once");
    // All of it comes back once it has given way to one that takes nearly all cells.
    engine.submit(request(4, 0, text(3, 4000), 10), &mut sink);
    run(&mut engine, &mut sink);
    for (id, prompt) in [(5, [further, text(4, 5)].concat()), (6, other)] {
        let n_prompt = u32::try_from(prompt.len()).unwrap();
        engine.submit(request(id, 0, prompt, 1), &mut sink);
        run(&mut engine, &mut sink);
        assert_eq!(sink.finish(id).n_cached, if id == 5 { 209 } else { n_prompt - 1 });
    }
}

#[test]
fn a_beginning_in_common_costs_no_talk_its_memory() {
    // Fewer tokens than are worth a copy, and more; while slots are free, and when one has to be emptied.
    for (n_common, n_kept) in [(3, 4), (20, 4), (3, 1), (20, 1)] {
        let mut engine =
            engine(&[], EngineConfig { n_parallel: 1, n_kept, ..EngineConfig::default() });
        let mut sink = Collected::default();
        let prompt = |n: usize| [text(9, n_common), text(n, 100)].concat();
        for (id, n) in [(1, 1), (2, 2), (3, 1)] {
            engine.submit(request(id, 0, prompt(n), 10), &mut sink);
            run(&mut engine, &mut sink);
        }
        let n_cached = usize::try_from(sink.finish(3).n_cached).unwrap();
        assert_eq!(n_cached, n_common + 99, "{n_common} tokens, {n_kept} kept");
    }
}

#[test]
fn talks_are_saved_before_they_have_to_go() {
    let eos = [("eos_one_in", 0_u64.into())];
    // While there are places for more there is no hurry.
    for (n_kept, is_saved) in [(1, true), (2, false)] {
        let config = EngineConfig { n_parallel: 1, n_kept, ..EngineConfig::default() };
        let mut engine = engine(&eos, config);
        let mut sink = Collected::default();
        engine.submit(request(1, 0, text(1, 300), 10), &mut sink);
        run(&mut engine, &mut sink);
        engine.submit(request(2, 0, text(2, 20), 1000), &mut sink);
        for _ in 0..20 {
            engine.step(&mut sink).unwrap();
            engine.verify_invariants();
        }
        assert_eq!(engine.held().saved_bytes >= 300 * 16, is_saved, "{n_kept} kept");
        assert!(engine.held().n_tokens > 300, "it is still there");
    }
}

/// What frames a saved piece is as long as this many entries.
const FRAME: u64 = 1;

#[test]
fn running_answers_wait_for_one_piece_to_be_restored_at_a_time() {
    // Without any time the least is done in each step.
    let step_target = Duration::ZERO;
    let config = EngineConfig { n_parallel: 4, n_kept: 0, step_target, ..EngineConfig::default() };
    let mut engine = Engine::new(&model(&[("eos_one_in", 0_u64.into())]), config).unwrap();
    let mut sink = Collected::default();
    // With three tokens of the answer: three pieces.
    let prompt = |id: u64| text(usize::try_from(id).unwrap(), 93);
    (0..3).for_each(|id| engine.submit(request(id, 1, prompt(id), 4), &mut sink));
    run(&mut engine, &mut sink);
    while engine.tidy().unwrap() {}
    // While this one runs, the others' memory is not used for so long that it is given up.
    engine.submit(request(9, 1, prompt(9), 1000), &mut sink);
    (0..100).for_each(|_| engine.step(&mut sink).unwrap());
    assert!(engine.held().n_tokens < 300, "{:?}", engine.held());
    (10..13).for_each(|id| engine.submit(request(id, 1, prompt(id - 10), 4), &mut sink));
    for n in 1..=9 {
        engine.step(&mut sink).unwrap();
        engine.verify_invariants();
        assert_eq!((10..13).filter(|id| sink.prefilled.contains_key(id)).count(), n / 3);
    }
    run(&mut engine, &mut sink);
    assert!((10..13).all(|id| sink.finish(id).n_cached == 92));
}
