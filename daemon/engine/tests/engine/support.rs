//! Models, requests and a sink that checks what it takes.

use hearth_abi::OpenParams;
use hearth_abi::host::{Model, Plugin};
use hearth_abi::raw::Token;
use hearth_engine::{Engine, Event, Failure, Finish, Logprobs, Request, Sampling, Sink};
use hearth_reference::{Settings, Value, expected, vocab, write_model};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

static PLUGIN: LazyLock<Arc<Plugin>> = LazyLock::new(|| {
    Plugin::from_entry(
        hearth_reference::plugin(),
        Box::new(|level, text| panic!("{level:?}: {text}")),
    )
    .unwrap()
});

pub(crate) fn model(pairs: &[(&str, Value)]) -> Arc<Model> {
    model_with(pairs, false)
}

/// With the layers that guess ahead, or without.
pub(crate) fn model_with(pairs: &[(&str, Value)], with_mtp: bool) -> Arc<Model> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    write_model(&path, pairs).unwrap();
    let params = OpenParams { with_mtp, ..OpenParams::new(path) };
    Model::open(&PLUGIN, &params, &mut |_| true).unwrap()
}

#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) text: HashMap<u64, String>,
    pub(crate) ended: HashMap<u64, Result<Finish, Failure>>,
    /// Prompt tokens in memory, as told last.
    pub(crate) prefilled: HashMap<u64, u32>,
    pub(crate) logprobs: Vec<(u64, Logprobs)>,
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
            Event::Prefill { done, cached, total } => {
                assert!(cached < done && done <= total);
                self.prefilled.insert(id, done);
            }
            Event::Logprobs(logprobs) => self.logprobs.push((id, logprobs)),
            Event::Queued { place, .. } => assert!(place >= 1),
        }
    }
}

pub(crate) fn request(id: u64, owner: u32, prompt: Vec<Token>, max_tokens: u32) -> Request {
    Request {
        id,
        owner,
        prompt,
        n_public: 0,
        max_context: None,
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        stops: Vec::new(),
        max_tokens: Some(max_tokens),
        shift: None,
        constraint: None,
        thinking: None,
        spelled: Vec::new(),
    }
}

impl Collected {
    /// How a request ended, which it did with an answer.
    pub(crate) fn finish(&self, id: u64) -> Finish {
        self.ended[&id].clone().unwrap()
    }
}

/// A text of so many different tokens; another one for each `salt`.
pub(crate) fn text(salt: usize, len: usize) -> Vec<Token> {
    (0..len)
        .map(|at| 97 + Token::try_from((at * 7 + at / 26 + salt * 5 + salt) % 26).unwrap())
        .collect()
}

pub(crate) fn run(engine: &mut Engine, sink: &mut Collected) {
    while !engine.is_idle() {
        engine.step(sink).unwrap();
        engine.verify_invariants();
    }
}

/// The text that the prompt determines, and whether the model ends it.
pub(crate) fn whole_answer(
    settings: &Settings,
    prompt: &[Token],
    max_tokens: u32,
) -> (String, bool) {
    in_words(expected(settings, prompt, max_tokens as usize))
}

/// The same where half of what stands behind the first `keep` tokens leaves a context that is full.
pub(crate) fn shifted_answer(
    settings: &Settings,
    prompt: &[Token],
    max_tokens: u32,
    n_ctx: u32,
    keep: u32,
) -> (String, bool) {
    let keep = keep.min((n_ctx - 1) / 2) as usize;
    let (mut context, mut answer) = (prompt.to_vec(), Vec::new());
    while answer.len() < max_tokens as usize
        && !answer.last().is_some_and(|last| vocab::is_end(*last))
    {
        let next = expected(settings, &context, 1);
        answer.extend(&next);
        context.extend(next);
        if context.len() == n_ctx as usize {
            context.drain(keep..keep + (context.len() - keep) / 2);
        }
    }
    in_words(answer)
}

fn in_words(mut tokens: Vec<Token>) -> (String, bool) {
    let ends = tokens.last().is_some_and(|token| vocab::is_end(*token));
    if ends {
        tokens.pop();
    }
    (tokens.iter().filter_map(|token| u8::try_from(*token).ok()).map(char::from).collect(), ends)
}
