//! A smaller model's guesses change the number of steps and nothing else.

use crate::support::{Collected, model, request, run, text};
use hearth_abi::host::Model;
use hearth_abi::raw::Token;
use hearth_engine::{
    DraftError, Engine, EngineConfig, Failure, Finish, FinishReason, Guide, Request, Rule, Sampling,
};
use hearth_reference::Value;
use proptest::prelude::*;
use std::sync::{Arc, LazyLock};

/// A step of it takes two milliseconds, so that guessing pays where the draft is right.
fn slow_model() -> Arc<Model> {
    model(&[("eos_one_in", 0_u64.into()), ("slow_us_per_decode", 2000_u64.into())])
}

fn draft(pairs: &[(&str, Value)]) -> Arc<Model> {
    model(&[&[("eos_one_in", 0_u64.into())], pairs].concat())
}

/// Answers of 300 tokens each, and how many steps they took.
fn answers(draft: Option<&Arc<Model>>, n: u64, temperature: f32) -> (Collected, u32) {
    let mut engine = Engine::new(&slow_model(), EngineConfig::default()).unwrap();
    if let Some(draft) = draft {
        engine.draft_with(draft).unwrap();
    }
    let mut sink = Collected::default();
    for id in 0..n {
        let sampling =
            Sampling { temperature, top_k: 0, top_p: 1.0, seed: id, ..Sampling::default() };
        let request = request(id, 0, text(usize::try_from(id).unwrap(), 60), 300);
        engine.submit(Request { sampling, ..request }, &mut sink);
    }
    let n_steps = run(&mut engine, &mut sink);
    (sink, n_steps)
}

fn total(sink: &Collected, of: impl Fn(&Finish) -> u32) -> u32 {
    sink.ended.values().map(|end| of(end.as_ref().unwrap())).sum()
}

#[test]
fn a_draft_that_is_right_saves_most_steps() {
    for n in [1, 4] {
        let (plain, n_plain) = answers(None, n, 0.0);
        let (drafted, n_drafted) = answers(Some(&draft(&[])), n, 0.0);
        assert_eq!(plain.text, drafted.text);
        let n_accepted = total(&drafted, |finish| finish.n_accepted);
        assert!(n_accepted > total(&drafted, |finish| finish.n_generated) / 2, "{n_accepted}");
        assert!(n_drafted < n_plain / 2, "{n_drafted} steps, {n_plain} without a draft");
    }
}

/// So random that neither a draft nor a lookup is right.
const HOT: f32 = 4.0;

#[test]
fn a_draft_that_is_wrong_is_asked_less_and_less() {
    let wrong = draft(&[("slow_us_per_decode", 1200_u64.into())]);
    let (plain, _) = answers(None, 1, HOT);
    let (drafted, _) = answers(Some(&wrong), 1, HOT);
    assert_eq!(plain.text, drafted.text);
    assert!(drafted.finish(0).n_drafted < 60, "{:?}", drafted.finish(0));
}

#[test]
fn a_draft_that_is_no_faster_than_the_model_is_not_asked() {
    let slow = draft(&[("slow_us_per_decode", 6000_u64.into())]);
    let (plain, _) = answers(None, 1, HOT);
    let (drafted, _) = answers(Some(&slow), 1, HOT);
    assert_eq!(plain.text, drafted.text);
    // What the lookup guesses of random text.
    assert!(drafted.finish(0).n_drafted < 10, "{:?}", drafted.finish(0));
}

#[test]
fn answers_go_on_without_a_draft_that_fails() {
    let failing = draft(&[("fail_decode_after", 20_u64.into())]);
    let (plain, _) = answers(None, 2, 0.0);
    let (drafted, _) = answers(Some(&failing), 2, 0.0);
    assert_eq!(plain.text, drafted.text);
    assert!(total(&drafted, |finish| finish.n_accepted) > 0);
}

#[test]
fn a_draft_goes_when_memory_is_short() {
    let short = draft(&[("no_memory_at", 30_u64.into())]);
    for (has_draft, ends) in [(false, false), (true, true)] {
        let mut engine = Engine::new(&short, EngineConfig::default()).unwrap();
        if has_draft {
            engine.draft_with(&draft(&[])).unwrap();
        }
        let mut sink = Collected::default();
        engine.submit(request(0, 0, text(0, 20), 300), &mut sink);
        let mut steps = std::iter::from_fn(|| (!engine.is_idle()).then(|| engine.step(&mut sink)));
        assert_eq!(steps.all(|step| step.is_ok()), ends);
        assert_eq!(sink.ended.contains_key(&0), ends);
    }
}

#[test]
fn what_cannot_draft_is_refused_with_a_reason() {
    let plain = model(&[]);
    let refusal = |model: &Arc<Model>, draft: &[(&str, Value)]| {
        let mut engine = Engine::new(model, EngineConfig::default()).unwrap();
        engine.draft_with(&self::model(draft)).unwrap_err()
    };
    let too_large = refusal(&plain, &[("extra_tokens", 129_u64.into())]);
    assert!(matches!(&too_large, DraftError::Vocabulary(how) if how.contains("tokens, not")));
    let begins = refusal(&plain, &[("add_bos", false.into())]);
    assert!(matches!(begins, DraftError::Vocabulary(_)), "{begins}");
    let fixed = [("roll_back", false.into())];
    assert_eq!(refusal(&plain, &fixed), DraftError::Memory("its"));
    assert_eq!(refusal(&model(&fixed), &[]), DraftError::Memory("the model's"));
}

/// One request of the random list.
#[derive(Debug, Clone)]
struct Asked {
    owner: u32,
    shared: usize,
    own: Vec<Token>,
    max_tokens: u32,
    temperature: f32,
    /// It answers with words from this list only.
    is_constrained: bool,
    /// Steps until the next one, and whether this one is cancelled then.
    n_steps: usize,
    is_cancelled: bool,
}

fn asked() -> impl Strategy<Value = Asked> {
    let own = prop::collection::vec(97_i32..123, 1..30);
    let temperature = prop_oneof![Just(0.0_f32), Just(0.7)];
    let ends = prop_oneof![4 => Just(false), 1 => Just(true)];
    let size = (0_usize..60, own, 8_u32..80);
    (0_u32..2, size, temperature, any::<bool>(), 0_usize..40, ends).prop_map(
        |(owner, (shared, own, max_tokens), temperature, is_constrained, n_steps, is_cancelled)| {
            Asked {
                owner,
                shared,
                own,
                max_tokens,
                temperature,
                is_constrained,
                n_steps,
                is_cancelled,
            }
        },
    )
}

static GUIDE: LazyLock<Guide> = LazyLock::new(|| Guide::new(&model(&[])).unwrap());

impl Asked {
    fn request(&self, id: u64) -> Request {
        let prompt = [&text(0, 60)[..self.shared], &self.own].concat();
        let rule = Rule::Regex("([b-z]{2,5} ?(and then )?)+");
        Request {
            sampling: Sampling { temperature: self.temperature, seed: id, ..Sampling::default() },
            constraint: self.is_constrained.then(|| GUIDE.compile(rule).unwrap()),
            ..request(id, self.owner, prompt, self.max_tokens)
        }
    }

    /// What it is answered if nothing runs beside it, and nothing is guessed.
    fn answer(&self, model: &Arc<Model>, id: u64) -> (String, FinishReason) {
        let config = EngineConfig { speculate: false, ..EngineConfig::default() };
        let mut engine = Engine::new(model, config).unwrap();
        let mut sink = Collected::default();
        engine.submit(self.request(id), &mut sink);
        run(&mut engine, &mut sink);
        (sink.text.remove(&id).unwrap_or_default(), sink.finish(id).reason)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn answers_are_the_same_with_a_draft(
        all in prop::collection::vec(asked(), 1..8),
        n_ctx in 160_u32..400,
        n_batch in 8_u32..64,
        n_parallel in 1_u32..5,
        draft_seed in 0_u64..3,
        echo_period in prop_oneof![Just(0_u64), 3_u64..9],
        n_extra in 0_u64..100,
    ) {
        let echo = ("echo_period", echo_period.into());
        let plain = model(std::slice::from_ref(&echo));
        let slow = model(&[echo.clone(), ("slow_us_per_decode", 300_u64.into())]);
        let draft = model(&[echo, ("seed", draft_seed.into()), ("extra_tokens", n_extra.into())]);
        let config = EngineConfig { n_ctx, n_batch, n_parallel, n_kept: 2, ..EngineConfig::default() };
        let mut engine = Engine::new(&slow, config).unwrap();
        engine.draft_with(&draft).unwrap();
        let mut sink = Collected::default();
        for (id, asked) in (0..).zip(&all) {
            engine.submit(asked.request(id), &mut sink);
            for _ in 0..asked.n_steps {
                engine.step(&mut sink).unwrap();
                engine.verify_invariants();
            }
            if asked.is_cancelled {
                engine.cancel(id, &mut sink);
            }
        }
        run(&mut engine, &mut sink);
        for (id, asked) in (0..).zip(&all) {
            let (whole, reason) = asked.answer(&plain, id);
            let got = sink.text.get(&id).cloned().unwrap_or_default();
            match &sink.ended[&id] {
                Ok(Finish { reason: FinishReason::ContextFull, .. }) | Err(Failure::Cancelled) => {
                    prop_assert!(whole.starts_with(&got), "{id}: {got:?}, not {whole:?}");
                }
                Ok(finish) => prop_assert_eq!((got, finish.reason), (whole, reason), "{}", id),
                Err(failure) => panic!("request {id}: {failure}"),
            }
        }
    }
}
