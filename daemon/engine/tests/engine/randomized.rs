//! Random lists of operations.
//!
//! After every step the engine's invariants hold, and each answer is the one that the prompt alone determines, whatever
//! ran beside it, was reused, copied, saved, preempted, guessed or cancelled. Constrained ones, too.

use crate::support::{Collected, model, request, run, whole_answer};
use hearth_abi::host::Model;
use hearth_abi::raw::Token;
use hearth_engine::{Constraint, Engine, EngineConfig, Failure, FinishReason, Request, Triggers};
use hearth_reference::{Settings, Value};
use proptest::prelude::*;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone)]
enum Operation {
    /// A prompt that begins with the first `shared` tokens of a common text, then differs.
    Submit {
        owner: u32,
        shared: usize,
        /// Of these, how many are the same for everybody.
        n_public: u32,
        own: Vec<Token>,
        max_tokens: u32,
        /// The answer is constrained from some point on.
        is_lazy: bool,
    },
    /// A prompt that continues an earlier request's prompt and answer.
    Continue {
        earlier: usize,
        own: Vec<Token>,
        max_tokens: u32,
    },
    Cancel {
        which: usize,
    },
    Tidy,
    Steps {
        n: usize,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    let own = || prop::collection::vec(97_i32..123, 1..40);
    prop_oneof![
        4 => (0_u32..3, 0_usize..120, 0_u32..120, own(), 1_u32..40, any::<bool>())
            .prop_map(|(owner, shared, n_public, own, max_tokens, is_lazy)| {
                let n_public = n_public.min(u32::try_from(shared).unwrap_or(0));
                Operation::Submit { owner, shared, n_public, own, max_tokens, is_lazy }
            }),
        3 => (any::<usize>(), own(), 1_u32..40)
            .prop_map(|(earlier, own, max_tokens)| Operation::Continue { earlier, own, max_tokens }),
        1 => any::<usize>().prop_map(|which| Operation::Cancel { which }),
        1 => Just(Operation::Tidy),
        4 => (1_usize..12).prop_map(|n| Operation::Steps { n }),
    ]
}

/// Where an `e` stands, two letters follow, an exclamation mark, and the end.
fn constraint(model: &Arc<Model>) -> Constraint {
    let grammar = model.grammar(r#"root ::= "e" [a-z]{2} "!""#, "root").unwrap();
    let triggers = Triggers::new(&["e".into()], &[]).unwrap();
    Constraint::of_plugin(grammar, Some(triggers))
}

/// What [`constraint`] makes of the text that the prompt determines, by an engine that does nothing else and guesses
/// nothing, and whether it ends.
fn constrained_answer(model: &Arc<Model>, prompt: &[Token], max_tokens: u32) -> (String, bool) {
    let config = EngineConfig { speculate: false, ..EngineConfig::default() };
    let mut engine = Engine::new(model, config).unwrap();
    let mut sink = Collected::default();
    let request = request(0, 0, prompt.to_vec(), max_tokens);
    engine.submit(Request { constraint: Some(constraint(model)), ..request }, &mut sink);
    run(&mut engine, &mut sink);
    let text = sink.text.remove(&0).unwrap_or_default();
    let begun = text.find('e').map_or("", |at| &text[at..]);
    let fits = |(at, c): (usize, char)| match at {
        0 => c == 'e',
        1 | 2 => c.is_ascii_lowercase(),
        at => at == 3 && c == '!',
    };
    assert!(begun.chars().enumerate().all(fits), "{text:?}");
    (text, sink.finish(0).reason == FinishReason::End)
}

fn check(settings: &[(&str, Value)], config: EngineConfig, operations: &[Operation]) {
    let model = model(settings);
    let plain = Settings::from_pairs(settings).unwrap();
    let mut engine = Engine::new(&model, config).unwrap();
    let mut sink = Collected::default();
    let mut prompts: Vec<(u32, Vec<Token>, u32)> = Vec::new();
    let mut lazy = HashSet::new();
    let common: Vec<Token> = (0..120).map(|i| 97 + (i * 7) % 26).collect();
    for operation in operations {
        match operation {
            Operation::Submit { owner, shared, n_public, own, max_tokens, is_lazy } => {
                let prompt = [&common[..*shared], own].concat();
                prompts.push((*owner, prompt.clone(), *max_tokens));
                let id = prompts.len() as u64 - 1;
                let mut request = request(id, *owner, prompt, *max_tokens);
                if *is_lazy {
                    lazy.insert(id);
                    request.constraint = Some(constraint(&model));
                }
                engine.submit(Request { n_public: *n_public, ..request }, &mut sink);
            }
            Operation::Continue { earlier, own, max_tokens } if !prompts.is_empty() => {
                let at = earlier % prompts.len();
                let (owner, mut prompt, _) = prompts[at].clone();
                prompt.extend(
                    sink.text
                        .get(&(at as u64))
                        .into_iter()
                        .flat_map(|text| text.bytes())
                        .map(Token::from),
                );
                prompt.extend(own);
                prompts.push((owner, prompt.clone(), *max_tokens));
                engine.submit(
                    request(prompts.len() as u64 - 1, owner, prompt, *max_tokens),
                    &mut sink,
                );
            }
            Operation::Cancel { which } if !prompts.is_empty() => {
                engine.cancel((which % prompts.len()) as u64, &mut sink);
            }
            Operation::Tidy => drop(engine.tidy().unwrap()),
            Operation::Steps { n } => (0..*n).for_each(|_| {
                engine.step(&mut sink).unwrap();
                engine.verify_invariants();
            }),
            _ => {}
        }
        engine.verify_invariants();
    }
    run(&mut engine, &mut sink);
    for (id, (_, prompt, max_tokens)) in prompts.iter().enumerate() {
        let id = id as u64;
        let (all, ends) = if lazy.contains(&id) {
            constrained_answer(&model, prompt, *max_tokens)
        } else {
            whole_answer(&plain, prompt, *max_tokens)
        };
        let got = sink.text.get(&id).cloned().unwrap_or_default();
        match &sink.ended[&id] {
            Ok(finish) => match finish.reason {
                FinishReason::End => {
                    assert!(ends && got == all, "request {id}: {got:?}, not {all:?}")
                }
                FinishReason::MaxTokens => assert_eq!(got, all, "request {id}"),
                FinishReason::ContextFull => {
                    assert!(all.starts_with(&got), "request {id}: {got:?}, not {all:?}")
                }
                FinishReason::Stop => panic!("nobody gave a stop text"),
            },
            Err(Failure::Cancelled | Failure::ContextOverflow { .. }) => {
                assert!(all.starts_with(&got), "request {id}: {got:?}, not {all:?}");
            }
            Err(failure) => panic!("request {id}: {failure}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn answers_depend_on_nothing_but_their_prompts(
        operations in prop::collection::vec(operation(), 1..40),
        n_ctx in 160_u32..600,
        n_batch in 8_u32..64,
        n_parallel in 1_u32..5,
        n_kept in 0_u32..4,
        archive_bytes in prop_oneof![Just(0_usize), Just(1 << 12), Just(1 << 20)],
        target_ms in prop_oneof![Just(0_u64), Just(100)],
        (speculate, roll_back, copy_part, can_save) in any::<(bool, bool, bool, bool)>(),
        echo_period in prop_oneof![Just(0_u64), 3_u64..9],
    ) {
        let step_target = Duration::from_millis(target_ms);
        let config = EngineConfig { n_ctx, n_batch, n_parallel, n_kept, archive_bytes, step_target, speculate, ..EngineConfig::default() };
        let settings = [
            ("roll_back", roll_back.into()),
            ("copy_part", copy_part.into()),
            ("can_save", can_save.into()),
            ("echo_period", echo_period.into()),
        ];
        check(&settings, config, &operations);
    }
}
