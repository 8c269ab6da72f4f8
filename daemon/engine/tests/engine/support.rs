//! Models, requests and a sink that checks what it takes.

use hearth_abi::OpenParams;
use hearth_abi::host::{Model, Plugin, Projector};
use hearth_abi::raw::Token;
use hearth_abi::{ImagePiece, Pixels};
use hearth_engine::{
    Engine, Event, Failure, Finish, Logprobs, Request, Sampling, Sink, Span, Thinking,
};
use hearth_reference::{Settings, Value, expected, seen, vocab, write_model, write_projector};
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
        spans: Vec::new(),
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

/// Takes steps until nothing is left to do. Answers how many.
pub(crate) fn run(engine: &mut Engine, sink: &mut Collected) -> u32 {
    let mut n_steps = 0;
    while !engine.is_idle() {
        engine.step(sink).unwrap();
        engine.verify_invariants();
        n_steps += 1;
    }
    n_steps
}

/// Thoughts between `<think>` and `</think>`, before the answer.
pub(crate) fn thinking(max_tokens: Option<u32>) -> Thinking {
    Thinking {
        start: "<think>".into(),
        ends: vec!["</think>".into()],
        closing: vocab::tokenize(b"</think>", false),
        max_tokens,
        is_constrained: false,
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
            let is_seen = |at: &usize| context.get(*at).is_some_and(|token| *token < 0);
            // An image leaves as a whole.
            let is_cut = |at: &usize| *at > 0 && is_seen(at) && is_seen(&(at - 1));
            let start = (0..=keep).rev().find(|at| !is_cut(at)).unwrap();
            let end = keep + (context.len() - keep) / 2;
            let end = (end..).find(|at| !is_cut(at)).unwrap();
            context.drain(start..end);
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

const PROJECTOR: u64 = 5;

pub(crate) fn projector(model: &Arc<Model>) -> Arc<Projector> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("projector.gguf");
    write_projector(&path, PROJECTOR).unwrap();
    model.projector(&path, 0).unwrap()
}

/// A prompt with images: as the engine takes it, and as it lies in the reference's memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Illustrated {
    pub(crate) prompt: Vec<Token>,
    pub(crate) seen: Vec<Token>,
    pub(crate) spans: Vec<Span>,
}

impl Illustrated {
    pub(crate) fn text(mut self, tokens: &[Token]) -> Self {
        self.prompt.extend(tokens);
        self.seen.extend(tokens);
        self
    }

    /// One of 256 images, of which the last half is wide.
    pub(crate) fn image(mut self, projector: &Arc<Projector>, which: u8) -> Self {
        let (width, height) = if which < 128 { (2, 2) } else { (5, 2) };
        let rgb = vec![which; 3 * width * height];
        let size = [width, height].map(|side| u32::try_from(side).unwrap());
        let pixels = Pixels::new(&rgb, size[0], size[1]).unwrap();
        let image = Arc::new(projector.image(pixels).unwrap());
        self.seen.extend(seen(PROJECTOR, pixels));
        let mut next = which.wrapping_mul(97);
        let hash = std::array::from_fn(|_| {
            next = next.wrapping_add(1);
            next
        });
        for (index, piece) in image.pieces().iter().enumerate() {
            match piece {
                ImagePiece::Tokens(tokens) => self.prompt.extend(tokens),
                ImagePiece::Span(_) => {
                    let span = Span::new(&image, index, &hash).unwrap();
                    self.prompt.extend(span.tokens());
                    self.spans.push(span);
                }
            }
        }
        assert_eq!(self.prompt.len(), self.seen.len());
        self
    }

    pub(crate) fn request(&self, id: u64, owner: u32, max_tokens: u32) -> Request {
        let request = request(id, owner, self.prompt.clone(), max_tokens);
        Request { spans: self.spans.clone(), ..request }
    }
}
