//! Prompts with images: reuse, gaps, and what cannot be read.

use crate::support::{Collected, Illustrated, model, projector, request, run, text, whole_answer};
use hearth_abi::host::{Model, Projector};
use hearth_abi::raw::Token;
use hearth_engine::{Engine, EngineConfig, Event, Failure, Sink};
use hearth_reference::{Settings, Value};
use std::sync::Arc;

const ENDLESS: [(&str, Value); 1] = [("eos_one_in", Value::Uint(0))];

fn start() -> (Arc<Model>, Arc<Projector>, Engine, Collected) {
    let model = model(&ENDLESS);
    let projector = projector(&model);
    let engine = Engine::new(&model, EngineConfig::default()).unwrap();
    (model, projector, engine, Collected::default())
}

fn answer(prompt: &Illustrated, max_tokens: u32) -> String {
    whole_answer(&Settings::from_pairs(&ENDLESS).unwrap(), &prompt.seen, max_tokens).0
}

#[test]
fn an_answer_depends_on_the_image() {
    let (_model, projector, mut engine, mut sink) = start();
    let prompt = |which| {
        let prompt = Illustrated::default().text(&text(0, 20)).image(&projector, which);
        prompt.text(&text(1, 5))
    };
    for which in [1_u8, 2, 200] {
        engine.submit(prompt(which).request(which.into(), 0, 20), &mut sink);
    }
    run(&mut engine, &mut sink);
    for which in [1_u8, 2, 200] {
        assert_eq!(sink.text[&which.into()], answer(&prompt(which), 20), "image {which}");
    }
    assert_ne!(sink.text[&1], sink.text[&2]);
}

#[test]
fn the_next_turn_computes_no_image_again_and_another_image_is_not_taken_for_it() {
    let (_model, projector, mut engine, mut sink) = start();
    let begun = Illustrated::default().text(&text(0, 20));
    let first = begun.clone().image(&projector, 1).text(&text(1, 5));
    engine.submit(first.request(1, 0, 10), &mut sink);
    run(&mut engine, &mut sink);
    let said: Vec<Token> = sink.text[&1].bytes().map(Token::from).collect();
    let n_first = u32::try_from(first.prompt.len() + said.len()).unwrap();
    let second = first.text(&said).text(&text(2, 5));
    engine.submit(second.request(2, 0, 10), &mut sink);
    run(&mut engine, &mut sink);
    // All that was computed: the last token of an answer never is.
    assert_eq!(sink.finish(2).n_cached, n_first - 1);
    assert_eq!(sink.text[&2], answer(&second, 10));
    // The text before it and `[`, which begins every image.
    let other = begun.image(&projector, 2).text(&text(1, 5));
    engine.submit(other.request(3, 0, 10), &mut sink);
    run(&mut engine, &mut sink);
    assert_eq!(sink.finish(3).n_cached, 21);
    assert_eq!(sink.text[&3], answer(&other, 10));
}

/// Tokens of one request between two events of another.
#[derive(Default)]
struct Steps {
    inner: Collected,
    /// Texts of request 1 since the step began.
    n_texts: usize,
}

impl Sink for Steps {
    fn event(&mut self, id: u64, event: Event<'_>) {
        self.n_texts += usize::from(id == 1 && matches!(event, Event::Text(_)));
        self.inner.event(id, event);
    }
}

#[test]
fn a_running_answer_gets_a_token_between_any_two_pieces_of_work() {
    let (_model, projector, mut engine, _) = start();
    let mut sink = Steps::default();
    engine.submit(request(1, 0, text(0, 20), 100), &mut sink);
    engine.step(&mut sink).unwrap();
    let prompt = Illustrated::default().image(&projector, 200).image(&projector, 3);
    engine.submit(prompt.text(&text(1, 5)).request(2, 1, 3), &mut sink);
    // Three spans, each encoded and appended.
    while !sink.inner.ended.contains_key(&2) {
        sink.n_texts = 0;
        engine.step(&mut sink).unwrap();
        engine.verify_invariants();
        assert!(sink.n_texts >= 1, "a step without a token");
    }
    assert!(sink.inner.text[&1].len() > 6);
}

#[test]
fn a_prompt_needs_text_behind_its_last_image() {
    let (_model, projector, mut engine, mut sink) = start();
    let mut request = Illustrated::default().image(&projector, 1).request(1, 0, 3);
    // The `]` behind it.
    request.prompt.pop();
    engine.submit(request, &mut sink);
    assert_eq!(sink.ended[&1], Err(Failure::EndsWithImage));
}
