//! Random lists of operations on the reference plugin, whose text depends on every token of its memory.
//!
//! After every step the engine's invariants hold, and each answer is the one that the prompt alone determines, whatever
//! ran beside it, was reused, copied, preempted or cancelled.

use hearth_abi::OpenParams;
use hearth_abi::host::{Model, Plugin};
use hearth_abi::raw::Token;
use hearth_engine::{Engine, EngineConfig, Event, Failure, FinishReason, Request, Sampling, Sink};
use hearth_reference::{Settings, Value, expected, vocab, write_model};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

static PLUGIN: LazyLock<Arc<Plugin>> = LazyLock::new(|| {
    Plugin::from_entry(
        hearth_reference::plugin(),
        Box::new(|level, text| panic!("{level:?}: {text}")),
    )
    .unwrap()
});

fn model(pairs: &[(&str, Value)]) -> Arc<Model> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    write_model(&path, pairs).unwrap();
    Model::open(&PLUGIN, &OpenParams::new(path), &mut |_| true).unwrap()
}

#[derive(Debug, Default)]
struct Collected {
    text: HashMap<u64, String>,
    ended: HashMap<u64, Result<hearth_engine::Finish, Failure>>,
    /// Prompt tokens in memory, as told last.
    prefilled: HashMap<u64, u32>,
}

impl Sink for Collected {
    fn event(&mut self, id: u64, event: Event<'_>) {
        assert!(!self.ended.contains_key(&id), "{event:?} after the end of {id}");
        match event {
            Event::Text(text) => {
                assert!(!text.is_empty());
                self.text.entry(id).or_default().push_str(text);
            }
            Event::Done(finish) => drop(self.ended.insert(id, Ok(finish))),
            Event::Failed(failure) => drop(self.ended.insert(id, Err(failure))),
            Event::Prefill { done, total } => {
                assert!(done <= total);
                self.prefilled.insert(id, done);
            }
            Event::Queued { place } => assert!(place >= 1),
            Event::Logprobs(logprobs) => panic!("nobody asked for {logprobs:?}"),
        }
    }
}

fn request(id: u64, owner: u32, prompt: Vec<Token>, max_tokens: u32) -> Request {
    Request {
        id,
        owner,
        prompt,
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        stops: Vec::new(),
        max_tokens: Some(max_tokens),
        constraint: None,
        spelled: Vec::new(),
    }
}

fn run(engine: &mut Engine, sink: &mut Collected) {
    while !engine.is_idle() {
        engine.step(sink).unwrap();
        engine.verify_invariants();
    }
}

#[derive(Debug, Clone)]
enum Operation {
    /// A prompt that begins with the first `shared` tokens of a common text, then differs.
    Submit {
        owner: u32,
        shared: usize,
        own: Vec<Token>,
        max_tokens: u32,
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
    Steps {
        n: usize,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    let own = || prop::collection::vec(97_i32..123, 1..40);
    prop_oneof![
        4 => (0_u32..2, 0_usize..120, own(), 1_u32..40)
            .prop_map(|(owner, shared, own, max_tokens)| Operation::Submit { owner, shared, own, max_tokens }),
        3 => (any::<usize>(), own(), 1_u32..40)
            .prop_map(|(earlier, own, max_tokens)| Operation::Continue { earlier, own, max_tokens }),
        1 => any::<usize>().prop_map(|which| Operation::Cancel { which }),
        4 => (1_usize..12).prop_map(|n| Operation::Steps { n }),
    ]
}

fn check(settings: &[(&str, Value)], config: EngineConfig, operations: &[Operation]) {
    let model = model(settings);
    let plain = Settings { eos_one_in: 64, ..Settings::default() };
    let mut engine = Engine::new(&model, config).unwrap();
    let mut sink = Collected::default();
    let mut prompts: Vec<(u32, Vec<Token>, u32)> = Vec::new();
    let common: Vec<Token> = (0..120).map(|i| 97 + (i * 7) % 26).collect();
    for operation in operations {
        match operation {
            Operation::Submit { owner, shared, own, max_tokens } => {
                let prompt = [&common[..*shared], own].concat();
                prompts.push((*owner, prompt.clone(), *max_tokens));
                engine.submit(
                    request(prompts.len() as u64 - 1, *owner, prompt, *max_tokens),
                    &mut sink,
                );
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
        let (all, ends) = whole_answer(&plain, prompt, *max_tokens);
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

/// The text that the prompt determines, and whether the model ends it.
fn whole_answer(settings: &Settings, prompt: &[Token], max_tokens: u32) -> (String, bool) {
    let mut tokens = expected(settings, prompt, max_tokens as usize);
    let ends = tokens.last().is_some_and(|token| vocab::is_end(*token));
    if ends {
        tokens.pop();
    }
    (tokens.iter().filter_map(|token| u8::try_from(*token).ok()).map(char::from).collect(), ends)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn answers_depend_on_nothing_but_their_prompts(
        operations in prop::collection::vec(operation(), 1..40),
        n_ctx in 160_u32..600,
        n_batch in 8_u32..64,
        n_prefill_beside in 1_u32..32,
        n_parallel in 1_u32..5,
        n_kept in 0_u32..4,
        roll_back: bool,
    ) {
        let config = EngineConfig { n_ctx, n_batch, n_prefill_beside, n_parallel, n_kept, ..EngineConfig::default() };
        check(&[("roll_back", roll_back.into())], config, &operations);
    }
}

#[test]
fn the_second_turn_computes_only_what_is_new() {
    for roll_back in [true, false] {
        let model = model(&[("roll_back", roll_back.into()), ("eos_one_in", 0_u64.into())]);
        let mut engine = Engine::new(&model, EngineConfig::default()).unwrap();
        let mut sink = Collected::default();
        let first: Vec<Token> = (0..100).map(|i| 97 + i % 26).collect();
        engine.submit(request(1, 0, first.clone(), 10), &mut sink);
        run(&mut engine, &mut sink);
        let mut second = first;
        second.extend(sink.text[&1].bytes().map(Token::from));
        second.extend([120; 5]);
        engine.submit(request(2, 0, second.clone(), 10), &mut sink);
        run(&mut engine, &mut sink);
        let finish = sink.ended[&2].clone().unwrap();
        // The last token of an answer is chosen and never computed.
        assert_eq!((finish.n_prompt, finish.n_cached), (115, 109), "roll_back = {roll_back}");

        engine.submit(request(3, 1, second, 10), &mut sink);
        run(&mut engine, &mut sink);
        assert_eq!(
            sink.ended[&3].clone().unwrap().n_cached,
            0,
            "another owner's memory was reused"
        );
    }
}

#[test]
fn a_prompt_shared_with_a_running_answer_is_not_computed_again() {
    let model = model(&[("eos_one_in", 0_u64.into())]);
    let mut engine = Engine::new(&model, EngineConfig::default()).unwrap();
    let mut sink = Collected::default();
    let common: Vec<Token> = (0..200).map(|i| 97 + i % 26).collect();
    engine.submit(request(1, 0, common.clone(), 50), &mut sink);
    engine.step(&mut sink).unwrap();
    engine.submit(request(2, 0, [common.as_slice(), &[100]].concat(), 5), &mut sink);
    run(&mut engine, &mut sink);
    assert_eq!(sink.ended[&2].clone().unwrap().n_cached, 200);
}

#[test]
fn a_prompt_asked_again_takes_the_place_of_its_first_answer() {
    let model = model(&[("eos_one_in", 0_u64.into())]);
    // Room for the prompt and one answer, and not for two.
    let config = EngineConfig { n_ctx: 160, ..EngineConfig::default() };
    let mut engine = Engine::new(&model, config).unwrap();
    let mut sink = Collected::default();
    let prompt: Vec<Token> = (0..100).map(|i| 97 + i % 26).collect();
    for id in 0..3 {
        engine.submit(request(id, 0, prompt.clone(), 40), &mut sink);
        run(&mut engine, &mut sink);
        let cached = sink.ended[&id].clone().unwrap().n_cached;
        assert_eq!(cached, if id == 0 { 0 } else { 99 });
        assert_eq!(sink.text[&id], sink.text[&0]);
    }
}

#[test]
fn a_long_prompt_does_not_stall_a_running_answer() {
    let model = model(&[("eos_one_in", 0_u64.into())]);
    let config = EngineConfig { n_batch: 64, n_prefill_beside: 16, ..EngineConfig::default() };
    let mut engine = Engine::new(&model, config).unwrap();
    let mut sink = Collected::default();
    engine.submit(request(1, 0, vec![97; 4], 100), &mut sink);
    engine.step(&mut sink).unwrap();
    engine.submit(request(2, 0, vec![98; 640], 1), &mut sink);
    for step in 0..40 {
        let before = sink.text.get(&1).map_or(0, String::len);
        engine.step(&mut sink).unwrap();
        assert_eq!(sink.text[&1].len(), before + 1, "no token in step {step}");
        assert_eq!(sink.prefilled[&2], 16 * (step + 1));
    }
    assert!(sink.ended[&2].is_ok());
}

#[test]
fn what_cannot_fit_or_wait_is_refused_with_numbers() {
    let model = model(&[]);
    let config =
        EngineConfig { n_ctx: 100, n_parallel: 1, max_waiting: 1, ..EngineConfig::default() };
    let mut engine = Engine::new(&model, config).unwrap();
    let n_ctx = engine.context().info().n_ctx_seq;
    let mut sink = Collected::default();
    engine.submit(request(1, 0, vec![97; n_ctx as usize], 5), &mut sink);
    assert_eq!(sink.ended[&1], Err(Failure::ContextOverflow { n_prompt: n_ctx, n_ctx }));
    engine.submit(request(2, 0, vec![97; 5], 5), &mut sink);
    engine.submit(request(3, 0, vec![97; 5], 5), &mut sink);
    assert_eq!(sink.ended[&3], Err(Failure::Overloaded { n_waiting: 1 }));
    engine.submit(request(4, 0, vec![], 5), &mut sink);
    assert_eq!(sink.ended[&4], Err(Failure::EmptyPrompt));
}
