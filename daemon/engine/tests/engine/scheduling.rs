//! What a step computes, and what is refused.

use crate::support::{Collected, model, request, run, text};
use hearth_engine::{Engine, EngineConfig, Failure, FinishReason, Request};
use std::collections::HashMap;
use std::time::Duration;

#[test]
fn a_long_prompt_does_not_stall_a_running_answer() {
    for target in [Duration::ZERO, Duration::from_millis(100)] {
        let model = model(&[("eos_one_in", 0_u64.into())]);
        let config = EngineConfig {
            n_batch: 64,
            step_target: target,
            speculate: false,
            ..EngineConfig::default()
        };
        let mut engine = Engine::new(&model, config).unwrap();
        let mut sink = Collected::default();
        engine.submit(request(1, 0, text(0, 4), 2000), &mut sink);
        while !sink.text.contains_key(&1) {
            engine.step(&mut sink).unwrap();
        }
        engine.submit(request(2, 0, text(1, 640), 1), &mut sink);
        let mut done = 0;
        while !sink.ended.contains_key(&2) {
            let before = sink.text[&1].len();
            engine.step(&mut sink).unwrap();
            assert_eq!(sink.text[&1].len(), before + 1, "a step without a token");
            // Its last token counts as the first of an answer.
            assert!(
                sink.prefilled[&2] > done || done >= 639,
                "a step without a piece of the prompt"
            );
            done = sink.prefilled[&2];
        }
    }
}

#[test]
fn steps_that_do_not_adapt_depend_on_the_prompt_alone() {
    let config = EngineConfig {
        n_batch: 64,
        n_parallel: 1,
        speculate: false,
        adapts: false,
        ..EngineConfig::default()
    };
    let mut engine = Engine::new(&model(&[("eos_one_in", 0_u64.into())]), config).unwrap();
    let mut sink = Collected::default();
    for id in 0..3 {
        // The same prompt, a longer one that begins with it, and it again.
        let prompt = text(0, if id == 1 { 250 } else { 200 });
        engine.submit(request(id, u32::try_from(id).unwrap() % 2, prompt, 5), &mut sink);
    }
    let mut steps: HashMap<u64, Vec<u32>> = HashMap::new();
    while !engine.is_idle() {
        engine.step(&mut sink).unwrap();
        engine.verify_invariants();
        for (id, done) in &sink.prefilled {
            let steps = steps.entry(*id).or_default();
            if steps.last() != Some(done) {
                steps.push(*done);
            }
        }
    }
    for id in 0..3 {
        let last = if id == 1 { 250 } else { 200 };
        assert_eq!(steps[&id], [64, 128, 192, last]);
        assert_eq!(sink.finish(id).n_cached, 0);
    }
    assert_eq!(sink.text[&0], sink.text[&2]);
}

#[test]
fn what_cannot_fit_is_refused_with_numbers() {
    let config = EngineConfig { n_ctx: 100, ..EngineConfig::default() };
    let mut engine = Engine::new(&model(&[]), config).unwrap();
    let n_ctx = engine.max_tokens();
    let mut sink = Collected::default();
    engine.submit(request(1, 0, vec![97; n_ctx as usize], 5), &mut sink);
    assert_eq!(sink.ended[&1], Err(Failure::ContextOverflow { n_prompt: n_ctx, n_ctx }));
    engine.submit(request(4, 0, vec![], 5), &mut sink);
    assert_eq!(sink.ended[&4], Err(Failure::EmptyPrompt));
}

#[test]
fn a_request_may_ask_for_less_context_than_there_is() {
    let mut engine =
        Engine::new(&model(&[("eos_one_in", 0_u64.into())]), EngineConfig::default()).unwrap();
    let mut sink = Collected::default();
    let small = |id, n| Request { max_context: Some(50), ..request(id, 0, text(0, n), 500) };
    engine.submit(small(1, 40), &mut sink);
    engine.submit(small(2, 50), &mut sink);
    run(&mut engine, &mut sink);
    let finish = sink.finish(1);
    assert_eq!((finish.reason, finish.n_generated), (FinishReason::ContextFull, 10));
    assert_eq!(sink.ended[&2], Err(Failure::ContextOverflow { n_prompt: 50, n_ctx: 50 }));
}

#[test]
fn the_models_own_limit_holds_where_there_is_more_memory() {
    let model = model(&[("context_length", 64_u64.into()), ("eos_one_in", 0_u64.into())]);
    let mut engine = Engine::new(&model, EngineConfig::default()).unwrap();
    let mut sink = Collected::default();
    engine.submit(request(1, 0, text(0, 40), 500), &mut sink);
    run(&mut engine, &mut sink);
    let finish = sink.finish(1);
    assert_eq!((finish.reason, finish.n_generated), (FinishReason::ContextFull, 24));
}

#[test]
fn a_request_for_no_tokens_computes_its_prompt_for_the_next() {
    let mut engine = Engine::new(&model(&[]), EngineConfig::default()).unwrap();
    let mut sink = Collected::default();
    for (id, max_tokens) in [(1, 0), (2, 3)] {
        engine.submit(request(id, 0, text(0, 40), max_tokens), &mut sink);
        run(&mut engine, &mut sink);
    }
    let (first, second) = (sink.finish(1), sink.finish(2));
    assert_eq!((first.reason, first.n_generated), (FinishReason::MaxTokens, 0));
    assert!(!sink.text.contains_key(&1) && sink.prefilled[&1] == 40);
    assert_eq!((first.n_cached, second.n_cached), (0, 39));
}
