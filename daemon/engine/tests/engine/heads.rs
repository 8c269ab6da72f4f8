//! Guesses of a model's own layers change the number of steps and nothing else.

use crate::support::{Collected, model_with, request, text};
use hearth_abi::Status;
use hearth_engine::{DraftError, Engine, EngineConfig, Request, Sampling};
use hearth_reference::Value;
use proptest::prelude::*;

/// A step of it takes two milliseconds, and guesses next to nothing.
fn engine(own: &[(&str, Value)], guesses: bool) -> Engine {
    let pairs = [("eos_one_in", 0_u64.into()), ("slow_us_per_decode", 2000_u64.into())];
    let pairs = [&pairs, own].concat();
    let mut engine = Engine::new(&model_with(&pairs, true), EngineConfig::default()).unwrap();
    if guesses {
        engine.draft_with_own_layers().unwrap();
    }
    engine
}

/// Answers of 100 tokens each, and how many steps they took. Every other one is cancelled after some steps, if one is said.
fn answers(
    engine: &mut Engine,
    n: u64,
    temperature: f32,
    cancel_at: Option<u32>,
) -> (Collected, u32) {
    let mut sink = Collected::default();
    for id in 0..n {
        let sampling =
            Sampling { temperature, top_k: 0, top_p: 1.0, seed: id, ..Sampling::default() };
        let request = request(id, 0, text(usize::try_from(id).unwrap(), 60), 100);
        engine.submit(Request { sampling, ..request }, &mut sink);
    }
    let mut n_steps = 0;
    while !engine.is_idle() {
        if cancel_at == Some(n_steps) {
            (0..n).step_by(2).for_each(|id| engine.cancel(id, &mut sink));
        }
        engine.step(&mut sink).unwrap();
        engine.verify_invariants();
        n_steps += 1;
    }
    (sink, n_steps)
}

#[test]
fn right_guesses_save_most_steps() {
    for n in [1, 4] {
        let (plain, n_plain) = answers(&mut engine(&[], false), n, 0.0, None);
        let (guessed, n_guessed) =
            answers(&mut engine(&[("mtp", 3_u64.into())], true), n, 0.0, None);
        assert_eq!(plain.text, guessed.text);
        assert!(n_guessed < n_plain / 2, "{n_guessed} steps, {n_plain} without guesses");
    }
}

#[test]
fn what_cannot_guess_is_refused_with_a_reason() {
    let refusal = |own: &[(&str, Value)], with_mtp| {
        let model = model_with(own, with_mtp);
        let mut engine = Engine::new(&model, EngineConfig::default()).unwrap();
        engine.draft_with_own_layers().unwrap_err()
    };
    let unsupported =
        |error| matches!(error, DraftError::Plugin(error) if error.status == Status::Unsupported);
    assert!(unsupported(refusal(&[], true)));
    assert!(unsupported(refusal(&[("mtp", 1_u64.into())], false)));
    let fixed = [("mtp", 1_u64.into()), ("roll_back", false.into())];
    assert_eq!(refusal(&fixed, true), DraftError::Memory("the model's"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn guesses_right_or_wrong_change_no_answer(
        n in 1_u64..6,
        n_most in 1_u64..5,
        wrong_one_in in 0_u64..4,
        temperature in prop_oneof![Just(0.0_f32), Just(0.7)],
        cancel_at in prop::option::of(1_u32..30),
    ) {
        let own = [("mtp", n_most.into()), ("mtp_wrong_one_in", wrong_one_in.into())];
        let (plain, _) = answers(&mut engine(&[], false), n, temperature, None);
        let (guessed, _) = answers(&mut engine(&own, true), n, temperature, cancel_at);
        for id in 0..n {
            let told = guessed.text.get(&id).map_or("", String::as_str);
            match &guessed.ended[&id] {
                Ok(_) => prop_assert_eq!(told, &plain.text[&id]),
                Err(_) => prop_assert!(plain.text[&id].starts_with(told)),
            }
        }
    }
}
