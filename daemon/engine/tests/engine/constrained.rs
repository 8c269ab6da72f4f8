//! Answers of the reference plugin's random text under constraints, through the engine.

use crate::support::{self, Collected, model};
use hearth_abi::host::Model;
use hearth_engine::{
    Constraint, Engine, EngineConfig, Failure, Finish, FinishReason, Guide, Request, Rule,
    Sampling, Thinking, Triggers,
};
use hearth_reference::vocab;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

static MODEL: LazyLock<Arc<Model>> = LazyLock::new(|| model(&[]));

static GUIDE: LazyLock<Guide> = LazyLock::new(|| Guide::new(&MODEL).unwrap());

fn request(id: u64, constraint: Option<Constraint>, sampling: Sampling) -> Request {
    let prompt = vocab::tokenize(format!("prompt {id}: ").as_bytes(), false);
    Request { sampling, constraint, ..support::request(id, 0, prompt, 1500) }
}

fn run(requests: Vec<Request>) -> Collected {
    counted(&MODEL, requests, true).0
}

/// Answers, and how many steps they took.
fn counted(model: &Arc<Model>, requests: Vec<Request>, speculate: bool) -> (Collected, u32) {
    let config =
        EngineConfig { n_ctx: 16_384, n_parallel: 4, speculate, ..EngineConfig::default() };
    let mut engine = Engine::new(model, config).unwrap();
    let mut sink = Collected::default();
    requests.into_iter().for_each(|request| engine.submit(request, &mut sink));
    let n_steps = support::run(&mut engine, &mut sink);
    (sink, n_steps)
}

/// A schema whose texts are all of bounded length, and whether a value fits it.
type Schema = (Value, fn(&Value) -> bool);

fn keys(value: &Value, wanted: &[&str]) -> bool {
    value.as_object().is_some_and(|object| object.keys().eq(wanted))
}

fn schemas() -> Vec<Schema> {
    vec![
        (
            json!({
                "type": "object",
                "properties": {
                    "zeta": { "type": "string", "maxLength": 10 },
                    "alpha": { "type": "integer", "minimum": -5, "maximum": 1000 },
                    "nested": {
                        "type": "object",
                        "properties": { "y": { "type": "boolean" }, "x": { "type": "null" } },
                        "required": ["y", "x"],
                        "additionalProperties": false,
                    },
                },
                "required": ["zeta", "alpha", "nested"],
                "additionalProperties": false,
            }),
            |value| {
                keys(value, &["zeta", "alpha", "nested"])
                    && value["zeta"].as_str().is_some_and(|text| text.chars().count() <= 10)
                    && value["alpha"]
                        .as_f64()
                        .is_some_and(|n| (-5.0..=1000.0).contains(&n) && n.fract() == 0.0)
                    && keys(&value["nested"], &["y", "x"])
                    && value["nested"]["y"].is_boolean()
            },
        ),
        (
            json!({
                "type": "array",
                "items": { "enum": ["red", "green", 7, null, { "a": [1] }] },
                "minItems": 2,
                "maxItems": 6,
            }),
            |value| {
                let allowed =
                    [json!("red"), json!("green"), json!(7), Value::Null, json!({ "a": [1] })];
                value.as_array().is_some_and(|items| {
                    (2..=6).contains(&items.len())
                        && items.iter().all(|item| allowed.contains(item))
                })
            },
        ),
        (
            json!({
                "$defs": { "leaf": { "type": "string", "pattern": "^[a-c]{2,4}$" } },
                "anyOf": [
                    { "$ref": "#/$defs/leaf" },
                    { "type": "array", "items": { "$ref": "#/$defs/leaf" }, "maxItems": 3 },
                ],
            }),
            |value| {
                let leaf = |value: &Value| {
                    value.as_str().is_some_and(|text| {
                        (2..=4).contains(&text.len())
                            && text.bytes().all(|c| (b'a'..=b'c').contains(&c))
                    })
                };
                leaf(value)
                    || value
                        .as_array()
                        .is_some_and(|items| items.len() <= 3 && items.iter().all(leaf))
            },
        ),
        (json!({ "type": "string", "format": "date" }), |value| {
            value.as_str().is_some_and(|text| {
                let parts: Vec<usize> = text.split('-').map(str::len).collect();
                parts == [4, 2, 2] && text.replace('-', "").bytes().all(|c| c.is_ascii_digit())
            })
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn constrained_answers_fit_their_schemas(
        seed: u64,
        temperature in 0.0_f32..4.0,
        top_k in prop_oneof![Just(0_u32), 1_u32..50],
        repeat_penalty in 0.9_f32..1.3,
    ) {
        let sampling = Sampling { temperature, top_k, repeat_penalty, seed, ..Sampling::default() };
        let schemas = schemas();
        let requests = (0..).zip(&schemas).map(|(id, (schema, _))| {
            request(id, Some(GUIDE.compile(Rule::JsonSchema(schema)).unwrap()), sampling.clone())
        });
        let seen = run(requests.collect());
        for (id, (_, fits)) in (0..).zip(&schemas) {
            let text = &seen.text[&id];
            prop_assert!(matches!(seen.ended[&id], Ok(Finish { reason: FinishReason::End, .. })), "{text}");
            let value: Value = serde_json::from_str(text).unwrap();
            prop_assert!(fits(&value), "{text}");
        }
    }

    #[test]
    fn constrained_answers_fit_grammars_of_every_kind(seed: u64) {
        let sampling = Sampling { temperature: 2.0, seed, ..Sampling::default() };
        let requests = || {
            let gbnf = MODEL.grammar("root ::= [0-9]{3} (\"-\" [x-z]+ \"!\")?", "root").unwrap();
            vec![
                request(0, Some(GUIDE.compile(Rule::Regex("[0-9]{3}(-[x-z]{1,20}!)?")).unwrap()), sampling.clone()),
                request(1, Some(GUIDE.compile(Rule::Lark("start: /[0-9]{3}/ tail?\ntail: \"-\" /[x-z]{1,20}/ \"!\"")).unwrap()), sampling.clone()),
                request(2, Some(Constraint::of_plugin(gbnf, None)), sampling.clone()),
            ]
        };
        let seen = run(requests());
        let (plain, _) = counted(&MODEL, requests(), false);
        prop_assert_eq!(&seen.text, &plain.text, "guesses changed an answer");
        for (id, text) in seen.text {
            let (digits, tail) = text.split_at(3);
            prop_assert!(digits.bytes().all(|c| c.is_ascii_digit()), "{text}");
            let letters = tail.strip_prefix('-').and_then(|tail| tail.strip_suffix('!'));
            let good = tail.is_empty()
                || letters.is_some_and(|l| !l.is_empty() && l.bytes().all(|c| (b'x'..=b'z').contains(&c)));
            prop_assert!(good || matches!(seen.ended[&id], Ok(Finish { reason: FinishReason::MaxTokens, .. })), "{text}");
        }
    }
}

#[test]
fn any_json_object_parses() {
    for seed in 0..6 {
        let sampling =
            Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed, ..Sampling::default() };
        let seen = run(vec![request(0, Some(GUIDE.compile(Rule::Json).unwrap()), sampling)]);
        let text = &seen.text[&0];
        assert!(text.starts_with('{'), "{text}");
        if matches!(seen.ended[&0], Ok(Finish { reason: FinishReason::End, .. })) {
            assert!(serde_json::from_str::<Value>(text).unwrap().is_object(), "{text}");
        }
    }
}

#[test]
fn a_constraint_that_cannot_be_followed_fails_its_request_and_no_other() {
    let rule = GUIDE.compile(Rule::Regex("[0-9]+")).unwrap();
    let forbidden = (0..10).map(|digit| (i32::from(b'0') + digit, f32::NEG_INFINITY)).collect();
    let stuck = Sampling { logit_bias: forbidden, ..Sampling::default() };
    let seen = run(vec![
        request(0, Some(rule), stuck),
        request(1, None, Sampling { temperature: 0.0, ..Sampling::default() }),
    ]);
    assert!(matches!(seen.ended[&0], Err(Failure::Constraint(_))), "{:?}", seen.ended[&0]);
    assert!(seen.ended[&1].is_ok() && !seen.text[&1].is_empty());
}

#[test]
fn a_lazy_constraint_holds_from_its_trigger_on() {
    for (script, begins, length) in [
        ("so [12 and more", "so [12", "so [123]".len()),
        // In the thoughts it means nothing.
        ("<think>[no]</think>[7", "<think>[no]</think>[7", "<think>[no]</think>[712]".len()),
        ("none at all", "none at all", "none at all".len()),
    ] {
        let model = model(&[("script", script.into())]);
        let grammar = model.grammar(r#"root ::= "[" [0-9]{3} "]""#, "root").unwrap();
        let triggers = Triggers::new(&["[".into()], &[]).unwrap();
        let thinking = Thinking { closing: Vec::new(), ..support::thinking(None) };
        let request = Request {
            constraint: Some(Constraint::of_plugin(grammar, Some(triggers))),
            thinking: Some(thinking),
            ..support::request(0, 0, vocab::tokenize(b"<|user|>a<|end|><|assistant|>", true), 200)
        };
        let mut engine = Engine::new(&model, EngineConfig::default()).unwrap();
        let mut sink = Collected::default();
        engine.submit(request, &mut sink);
        support::run(&mut engine, &mut sink);
        let text = &sink.text[&0];
        assert!(text.starts_with(begins) && text.len() == length, "{script}: {text}");
        assert!(
            !text[begins.len()..].contains(|c: char| !c.is_ascii_digit() && c != ']'),
            "{text}"
        );
        assert_eq!(sink.finish(0).reason, FinishReason::End);
    }
}

#[test]
fn a_rule_holds_after_the_thoughts_and_they_can_be_cut_short() {
    for (script, max_tokens) in [
        ("<think>so, well</think>never mind", None),
        ("<think>so, well, without an end, and on and on", Some(5)),
        ("no thoughts", None),
        // It wants to end inside its thoughts.
        ("<think>so", None),
    ] {
        let model = model(&[("script", script.into())]);
        let constraint = Guide::new(&model).unwrap().compile(Rule::Regex("[xyz]{5}")).unwrap();
        let prompt = vocab::tokenize(b"<|user|>a<|end|><|assistant|>", true);
        let request = Request {
            constraint: Some(constraint),
            thinking: Some(support::thinking(max_tokens)),
            ..support::request(0, 0, prompt, 200)
        };
        let mut engine = Engine::new(&model, EngineConfig::default()).unwrap();
        let mut sink = Collected::default();
        engine.submit(request, &mut sink);
        support::run(&mut engine, &mut sink);
        let text = &sink.text[&0];
        let (thoughts, answer) = text.split_once("</think>").unwrap_or(("", text));
        assert!(
            answer.len() == 5 && answer.bytes().all(|c| b"xyz".contains(&c)),
            "{script}: {text}"
        );
        match max_tokens {
            Some(max) => assert_eq!(thoughts.len(), "<think>".len() + max as usize, "{text}"),
            None if script.starts_with("<think>") => {
                assert_eq!(thoughts, script.split("</think>").next().unwrap());
            }
            None => assert_eq!(thoughts, ""),
        }
    }
}

/// A step takes a millisecond whatever is in it, so guessing pays.
static SLOW: LazyLock<Arc<Model>> =
    LazyLock::new(|| model(&[("slow_us_per_decode", 1000_u64.into())]));

#[test]
fn keys_that_a_schema_fixes_cost_one_step_and_change_nothing() {
    let keys = ["the_name_of_a_thing", "what_it_is_made_of", "the_place_where_it_stands"];
    let flags = keys.map(|key| (key.to_string(), json!({ "type": "boolean" })));
    let schema = json!({
        "type": "object",
        "properties": serde_json::Map::from_iter(flags),
        "required": keys,
        // Without blanks all but the values is forced.
        "x-guidance": { "whitespace_flexible": false },
    });
    for temperature in [0.0, 1.5] {
        let ask = |speculate: bool, logprobs: Option<u32>| {
            let sampling = Sampling { temperature, seed: 3, logprobs, ..Sampling::default() };
            let rule = GUIDE.compile(Rule::JsonSchema(&schema)).unwrap();
            counted(&SLOW, vec![request(0, Some(rule), sampling)], speculate)
        };
        let (plain, n_plain) = ask(false, None);
        let (guessed, n_guessed) = ask(true, None);
        assert_eq!(plain.text, guessed.text);
        let (end, guessed) = (plain.finish(0), guessed.finish(0));
        assert_eq!((end.n_generated, end.reason), (guessed.n_generated, guessed.reason));
        // The end costs no step, and where it comes behind a guess no other token does.
        let n_other = end.n_generated - guessed.n_accepted - n_guessed;
        assert!(n_plain == end.n_generated - 1 && n_other <= 1, "{n_other}");
        assert!(n_guessed < 25 && n_plain > 80, "{n_guessed} steps, {n_plain} without guesses");

        // All but the end have probabilities, the same ones.
        let (told, _) = ask(true, Some(2));
        assert_eq!(told.text, plain.text);
        assert_eq!(told.logprobs.len(), end.n_generated as usize - 1);
        assert_eq!(told.logprobs, ask(false, Some(2)).0.logprobs);
    }
}
