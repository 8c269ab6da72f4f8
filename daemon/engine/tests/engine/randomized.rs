//! Random lists of operations.
//!
//! After every step the engine's invariants hold, and each answer is the one that the prompt alone determines, whatever
//! ran beside it, was reused, copied, saved, preempted, guessed, shifted or cancelled.
//! Constrained ones, too.

use crate::support::{Collected, Illustrated, model, projector, run, shifted_answer, whole_answer};
use hearth_abi::host::Model;
use hearth_abi::raw::Token;
use hearth_engine::{
    Constraint, Engine, EngineConfig, Failure, Finish, FinishReason, Request, Triggers,
};
use hearth_reference::{Settings, Value};
use proptest::prelude::*;
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
        /// Stands between the two.
        image: Option<u8>,
        own: Vec<Token>,
        max_tokens: u32,
        shift: Option<Shift>,
        /// The answer is constrained from some point on.
        is_lazy: bool,
    },
    /// A prompt that continues an earlier request's prompt and answer.
    Continue {
        earlier: usize,
        image: Option<u8>,
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

/// A context with little room behind the prompt, which moves on.
#[derive(Debug, Clone, Copy)]
struct Shift {
    keep: u32,
    room: u32,
}

/// What was submitted, by its id.
#[derive(Debug, Clone)]
struct Asked {
    owner: u32,
    prompt: Illustrated,
    max_tokens: u32,
    shift: Option<Shift>,
    is_lazy: bool,
}

impl Asked {
    fn context(&self, shift: Shift) -> u32 {
        u32::try_from(self.prompt.seen.len()).unwrap() + shift.room
    }

    fn request(&self, model: &Arc<Model>, id: usize, n_public: u32) -> Request {
        let request = self.prompt.request(id as u64, self.owner, self.max_tokens);
        let max_context = self.shift.map(|shift| self.context(shift));
        let shift = self.shift.map(|shift| shift.keep);
        let constraint = self.is_lazy.then(|| constraint(model));
        Request { n_public, max_context, shift, constraint, ..request }
    }

    /// The text that it determines, and whether the model ends it.
    fn answer(&self, model: &Arc<Model>, settings: &Settings, max_context: u32) -> (String, bool) {
        match self.shift {
            None if self.is_lazy => constrained_answer(model, &self.prompt, self.max_tokens),
            None => whole_answer(settings, &self.prompt.seen, self.max_tokens),
            Some(shift) => {
                let n_ctx = self.context(shift).min(max_context);
                shifted_answer(settings, &self.prompt.seen, self.max_tokens, n_ctx, shift.keep)
            }
        }
    }
}

fn operation() -> impl Strategy<Value = Operation> {
    let own = || prop::collection::vec(97_i32..123, 1..40);
    let image = || prop::option::of(prop_oneof![0_u8..3, 200_u8..202]);
    let shift =
        prop::option::of((0_u32..40, 1_u32..20).prop_map(|(keep, room)| Shift { keep, room }));
    prop_oneof![
        4 => (0_u32..3, 0_usize..120, 0_u32..120, image(), own(), 1_u32..40, shift, any::<bool>())
            .prop_map(|(owner, shared, n_public, image, own, max_tokens, shift, is_lazy)| {
                let n_public = n_public.min(u32::try_from(shared).unwrap_or(0));
                let max_tokens = if shift.is_some() { 4 * max_tokens } else { max_tokens };
                let is_lazy = is_lazy && shift.is_none();
                Operation::Submit { owner, shared, n_public, image, own, max_tokens, shift, is_lazy }
            }),
        3 => (any::<usize>(), image(), own(), 1_u32..40)
            .prop_map(|(earlier, image, own, max_tokens)| Operation::Continue { earlier, image, own, max_tokens }),
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
fn constrained_answer(model: &Arc<Model>, prompt: &Illustrated, max_tokens: u32) -> (String, bool) {
    let config = EngineConfig { speculate: false, ..EngineConfig::default() };
    let mut engine = Engine::new(model, config).unwrap();
    let mut sink = Collected::default();
    let request = prompt.request(0, 0, max_tokens);
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
    let projector = projector(&model);
    let illustrate = |prompt: Illustrated, image: Option<u8>| match image {
        Some(which) => prompt.image(&projector, which),
        None => prompt,
    };
    let mut engine = Engine::new(&model, config).unwrap();
    let mut sink = Collected::default();
    let mut all_asked: Vec<Asked> = Vec::new();
    let common: Vec<Token> = (0..120).map(|i| 97 + (i * 7) % 26).collect();
    for operation in operations {
        match operation.clone() {
            Operation::Submit {
                owner,
                shared,
                n_public,
                image,
                own,
                max_tokens,
                shift,
                is_lazy,
            } => {
                let prompt = Illustrated::default().text(&common[..shared]);
                let prompt = illustrate(prompt, image).text(&own);
                let asked = Asked { owner, prompt, max_tokens, shift, is_lazy };
                engine.submit(asked.request(&model, all_asked.len(), n_public), &mut sink);
                all_asked.push(asked);
            }
            Operation::Continue { earlier, image, own, max_tokens } if !all_asked.is_empty() => {
                let at = earlier % all_asked.len();
                let text = sink.text.get(&(at as u64)).cloned().unwrap_or_default();
                let answer: Vec<Token> = text.bytes().map(Token::from).collect();
                let prompt = all_asked[at].prompt.clone().text(&answer);
                let prompt = illustrate(prompt, image).text(&own);
                let asked =
                    Asked { prompt, max_tokens, shift: None, is_lazy: false, ..all_asked[at] };
                engine.submit(asked.request(&model, all_asked.len(), 0), &mut sink);
                all_asked.push(asked);
            }
            Operation::Cancel { which } if !all_asked.is_empty() => {
                engine.cancel((which % all_asked.len()) as u64, &mut sink);
            }
            Operation::Tidy => drop(engine.tidy().unwrap()),
            Operation::Steps { n } => (0..n).for_each(|_| {
                engine.step(&mut sink).unwrap();
                engine.verify_invariants();
            }),
            _ => {}
        }
        engine.verify_invariants();
    }
    run(&mut engine, &mut sink);
    for (id, asked) in all_asked.iter().enumerate() {
        let id = id as u64;
        let (all, ends) = asked.answer(&model, &plain, engine.max_tokens());
        let got = sink.text.get(&id).cloned().unwrap_or_default();
        match &sink.ended[&id] {
            Ok(Finish { reason: FinishReason::End, .. }) => {
                assert!(ends && got == all, "request {id}: {got:?}, not {all:?}");
            }
            Ok(Finish { reason: FinishReason::MaxTokens, .. }) => {
                assert_eq!(got, all, "request {id}");
            }
            Ok(Finish { reason: FinishReason::ContextFull, .. })
                if asked.shift.is_none() || !engine.can_shift() =>
            {
                assert!(all.starts_with(&got), "request {id}: {got:?}, not {all:?}");
            }
            Err(Failure::Cancelled | Failure::ContextOverflow { .. }) => {
                assert!(all.starts_with(&got), "request {id}: {got:?}, not {all:?}");
            }
            end => panic!("request {id}: {end:?}"),
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
