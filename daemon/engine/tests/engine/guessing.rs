//! Guessed tokens change the number of steps and nothing else.

use crate::support::{Collected, model, request, run, text};
use hearth_engine::{Engine, EngineConfig, Finish, Request, Sampling};
use hearth_reference::Value;

fn answer(pairs: &[(&str, Value)], speculate: bool, sampling: &Sampling) -> (String, Finish, u32) {
    let pairs = [pairs, &[("eos_one_in", 0_u64.into())]].concat();
    let config = EngineConfig { speculate, ..EngineConfig::default() };
    let mut engine = Engine::new(&model(&pairs), config).unwrap();
    let mut sink = Collected::default();
    let request = Request { sampling: sampling.clone(), ..request(1, 0, text(0, 60), 300) };
    engine.submit(request, &mut sink);
    let n_steps = run(&mut engine, &mut sink);
    (sink.text[&1].clone(), sink.finish(1), n_steps)
}

#[test]
fn an_answer_that_repeats_itself_takes_fewer_steps_and_is_the_same() {
    // A step takes a millisecond whatever is in it, so guessing pays.
    let repeats = [("echo_period", 7_u64.into()), ("slow_us_per_decode", 1000_u64.into())];
    let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
    // Of a sharp distribution the likeliest is chosen most of the time.
    let random = Sampling { temperature: 0.5, seed: 4, ..Sampling::default() };
    for sampling in [greedy, random] {
        let (text, plain, n_plain) = answer(&repeats, false, &sampling);
        let (same, guessed, n_guessed) = answer(&repeats, true, &sampling);
        assert_eq!(text, same);
        assert_eq!((plain.n_drafted, plain.n_generated), (0, guessed.n_generated));
        assert!(guessed.n_accepted > 0 && guessed.n_accepted <= guessed.n_drafted);
        assert_eq!(n_plain, n_guessed + guessed.n_accepted);
        assert!(n_guessed < n_plain * 3 / 4, "{n_guessed} steps, {n_plain} without guesses");
    }
}

#[test]
fn nothing_is_guessed_where_memory_cannot_be_cut_back() {
    let pairs = [("echo_period", 7_u64.into()), ("roll_back", false.into())];
    let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
    assert_eq!(answer(&pairs, true, &greedy).1.n_drafted, 0);
}
