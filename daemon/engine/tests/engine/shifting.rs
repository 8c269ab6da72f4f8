//! Answers that go on where their context is full.

use crate::support::{Collected, model, request, run, shifted_answer, text};
use hearth_abi::raw::Token;
use hearth_engine::{Engine, EngineConfig, FinishReason, Request};
use hearth_reference::{Settings, Value};

const ENDLESS: [(&str, Value); 1] = [("eos_one_in", Value::Uint(0))];
const CONTEXT: u32 = 64;
const KEEP: u32 = 10;

fn shifting(id: u64, owner: u32, prompt: Vec<Token>, max_tokens: u32) -> Request {
    let request = request(id, owner, prompt, max_tokens);
    Request { max_context: Some(CONTEXT), shift: Some(KEEP), ..request }
}

fn settings() -> Settings {
    Settings::from_pairs(&ENDLESS).unwrap()
}

#[test]
fn an_answer_goes_on_with_what_is_left_of_the_context() {
    let mut engine = Engine::new(&model(&ENDLESS), EngineConfig::default()).unwrap();
    let mut sink = Collected::default();
    engine.submit(shifting(1, 0, text(0, 40), 200), &mut sink);
    run(&mut engine, &mut sink);
    let (all, _) = shifted_answer(&settings(), &text(0, 40), 200, CONTEXT, KEEP);
    assert_eq!(sink.text[&1], all);
    let finish = sink.finish(1);
    assert_eq!((finish.n_prompt, finish.n_generated), (40, 200));
    // 24 tokens fill it, then every 27 free 27 more: (64 - 10) / 2.
    assert_eq!(finish.n_shifted, 27 * ((200 - 24) / 27 + 1));
}

#[test]
fn where_the_memory_cannot_be_shifted_a_full_context_ends_the_answer() {
    for lack in ["can_shift", "roll_back"] {
        let model = model(&[ENDLESS[0].clone(), (lack, false.into())]);
        let mut engine = Engine::new(&model, EngineConfig::default()).unwrap();
        let mut sink = Collected::default();
        engine.submit(shifting(1, 0, text(0, 40), 200), &mut sink);
        run(&mut engine, &mut sink);
        let finish = sink.finish(1);
        assert_eq!((finish.reason, finish.n_shifted), (FinishReason::ContextFull, 0), "{lack}");
    }
}

#[test]
fn what_was_computed_with_tokens_that_left_is_nobodys_prefix() {
    let mut engine = Engine::new(&model(&ENDLESS), EngineConfig::default()).unwrap();
    let mut sink = Collected::default();
    engine.submit(shifting(1, 0, text(0, 40), 50), &mut sink);
    run(&mut engine, &mut sink);
    // 24 tokens of the answer, and the context is full; 27 behind the kept ones leave it.
    let answer: Vec<Token> = sink.text[&1].bytes().map(Token::from).collect();
    let whole = [text(0, 40), answer].concat();
    let left = [&whole[..10], &whole[37..]].concat();
    engine.submit(request(2, 0, left.clone(), 1), &mut sink);
    run(&mut engine, &mut sink);
    assert_eq!(sink.finish(2).n_cached, KEEP);
    while engine.tidy().unwrap() {}
    // The second one's honest copy of the same tokens may be found.
    engine.submit(request(3, 0, left, 1), &mut sink);
    run(&mut engine, &mut sink);
    assert_eq!(sink.finish(3).n_cached, 63 - 1);
}

#[test]
fn what_was_shifted_is_not_saved() {
    let mut engine = Engine::new(&model(&ENDLESS), EngineConfig::default()).unwrap();
    let mut sink = Collected::default();
    engine.submit(shifting(1, 0, text(0, 40), 50), &mut sink);
    run(&mut engine, &mut sink);
    assert!(!engine.tidy().unwrap());
    assert_eq!(engine.held().saved_bytes, 0);
}

#[test]
fn answers_that_share_their_prompt_are_shifted_apart() {
    let mut engine = Engine::new(&model(&ENDLESS), EngineConfig::default()).unwrap();
    let mut sink = Collected::default();
    for id in 0..3 {
        engine.submit(shifting(id, 0, text(0, 50), 150), &mut sink);
    }
    run(&mut engine, &mut sink);
    let (all, _) = shifted_answer(&settings(), &text(0, 50), 150, CONTEXT, KEEP);
    for id in 0..3 {
        assert_eq!(sink.text[&id], all);
        assert_eq!(sink.finish(id).n_shifted, 27 * ((150 - 14) / 27 + 1));
    }
}
