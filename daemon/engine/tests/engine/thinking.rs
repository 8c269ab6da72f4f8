//! Constraints of answers whose models think, or only seem to.

use crate::support::{self, Collected, model};
use hearth_engine::{
    Constraint, Engine, EngineConfig, FinishReason, Guide, Request, Rule, Sampling, Triggers,
};
use hearth_reference::vocab;
use proptest::prelude::*;

const PARTS: [&str; 12] =
    ["<", "<t", "<think>", "</think>", "</", "<tool>", "ool>", "xyz", "!", "a", " ", "\n"];

#[derive(Debug, Clone, Copy)]
enum Kind {
    Guided,
    Plugin,
    Lazy,
}

/// The text behind the thoughts.
fn answer(text: &str) -> &str {
    match text.trim_start().strip_prefix("<think>") {
        Some(begun) => begun.split_once("</think>").map_or("", |(_, answer)| answer),
        None => text,
    }
}

/// Begin and end of an answer: what thoughts may begin with too, and what they cannot.
const RULES: [(&str, &str); 2] = [("<tool>", "!"), ("xy", "z")];

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_held_to_their_rule_from_their_first_byte(
        script in prop::collection::vec(prop::sample::select(&PARTS[..]), 1..12),
        kind in prop::sample::select(vec![Kind::Guided, Kind::Plugin, Kind::Lazy]),
        (begin, end) in prop::sample::select(&RULES[..]),
        max_tokens in prop::option::of(0_u32..8),
        (hurry, speculate) in any::<(bool, bool)>(),
        temperature in prop_oneof![Just(0.0_f32), Just(3.0)],
    ) {
        let script = script.concat();
        let model = model(&[("script", script.as_str().into())]);
        let grammar = || model.grammar(&format!("root ::= \"{begin}\" [xyz]{{3}} \"{end}\""), "root").unwrap();
        let constraint = match kind {
            Kind::Guided => {
                let rule = format!("{begin}[xyz]{{3}}{end}");
                Guide::new(&model).unwrap().compile(Rule::Regex(&rule)).unwrap()
            }
            Kind::Plugin => Constraint::of_plugin(grammar(), None),
            Kind::Lazy => {
                let triggers = Triggers::new(&[begin.into()], &[]).unwrap();
                Constraint::of_plugin(grammar(), Some(triggers))
            }
        };
        let request = Request {
            constraint: Some(constraint),
            thinking: Some(support::thinking(max_tokens)),
            sampling: Sampling { temperature, seed: script.len() as u64, ..Sampling::default() },
            ..support::request(0, 0, vocab::tokenize(b"<|user|>a<|end|><|assistant|>", true), 3000)
        };
        let config = EngineConfig { speculate, ..EngineConfig::default() };
        let mut engine = Engine::new(&model, config).unwrap();
        let mut sink = Collected::default();
        engine.submit(request, &mut sink);
        for _ in 0..5 {
            engine.step(&mut sink).unwrap();
            engine.verify_invariants();
        }
        if hurry {
            engine.end_thinking(0);
        }
        support::run(&mut engine, &mut sink);
        let text = &sink.text[&0];
        let answer = answer(text);
        let held = match kind {
            Kind::Lazy => answer.find(begin).map(|at| &answer[at..]),
            Kind::Guided | Kind::Plugin => Some(answer),
        };
        if sink.finish(0).reason == FinishReason::End {
            let fits = held.is_none_or(|text| {
                let inner = text.strip_prefix(begin).and_then(|text| text.strip_suffix(end));
                inner.is_some_and(|text| text.len() == 3 && text.bytes().all(|c| b"xyz".contains(&c)))
            });
            prop_assert!(fits, "{script:?}: {text:?}");
        }
    }
}
