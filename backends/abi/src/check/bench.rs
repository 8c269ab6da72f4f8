//! What the scenarios share: the plugin, the model, texts to work with, and ways to say what is wrong.

use crate::host::{Batch, Context, Model, Plugin};
use crate::raw::{self, Pos, Seq, Token};
use crate::types::{BatchEntry, ContextConfig, LogLevel, OpenParams, PluginError, Result, Status};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

/// Why a scenario ends before its end.
#[derive(Debug)]
pub(super) enum Stop {
    Failed(String),
    NotApplicable(String),
}

pub(super) type Step<T = ()> = std::result::Result<T, Stop>;

pub(super) fn failed<T>(reason: impl Into<String>) -> Step<T> {
    Err(Stop::Failed(reason.into()))
}

pub(super) fn not_applicable<T>(reason: impl Into<String>) -> Step<T> {
    Err(Stop::NotApplicable(reason.into()))
}

/// Fails the scenario unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($reason:tt)+) => {
        let holds: bool = $condition;
        if !holds {
            return $crate::check::bench::failed(format!($($reason)+));
        }
    };
}
pub(super) use ensure;

/// A call that the contract says must succeed.
pub(super) fn must<T>(what: &str, result: Result<T>) -> Step<T> {
    result.map_err(|error| {
        Stop::Failed(format!("{what} answered {}: {}", name(error.status), error.message))
    })
}

/// A call that the contract says must answer one of these statuses, with a message fit for a person.
pub(super) fn must_fail<T>(what: &str, result: Result<T>, statuses: &[Status]) -> Step {
    let wanted = statuses.iter().map(|status| name(*status)).collect::<Vec<_>>().join(" or ");
    let Err(error) = result else { return failed(format!("{what} answered OK, not {wanted}")) };
    ensure!(
        statuses.contains(&error.status),
        "{what} answered {}, not {wanted}: {}",
        name(error.status),
        error.message
    );
    let text = &error.message;
    let mut letters = text.chars();
    let is_sentence = letters.next().is_some_and(char::is_uppercase)
        && letters.next().is_some_and(char::is_lowercase);
    ensure!(!text.trim().is_empty(), "{what} answered {wanted} without a message");
    ensure!(
        !text.contains('\n') && !text.ends_with('.'),
        "the message of {what} is not one phrase: `{text}`"
    );
    ensure!(!is_sentence, "the message of {what} begins with a capital: `{text}`");
    ensure!(
        !text.contains(char::REPLACEMENT_CHARACTER),
        "the message of {what} is not UTF-8: `{text}`"
    );
    Ok(())
}

/// The header's name of a status.
pub(super) fn name(status: Status) -> &'static str {
    match status {
        Status::InvalidArgument => "INVALID_ARGUMENT",
        Status::Unsupported => "UNSUPPORTED",
        Status::BufferTooSmall => "BUFFER_TOO_SMALL",
        Status::NotFound => "NOT_FOUND",
        Status::BadModel => "BAD_MODEL",
        Status::OutOfMemory => "OUT_OF_MEMORY",
        Status::NoKvSpace => "NO_KV_SPACE",
        Status::Cancelled => "CANCELLED",
        Status::Failed => "FAILED",
    }
}

/// Every line the plugin logs.
#[derive(Debug, Default, Clone)]
pub(super) struct Log {
    lines: Arc<Mutex<Vec<(LogLevel, String)>>>,
}

impl Log {
    pub(super) fn sink(&self) -> crate::host::LogSink {
        let log = self.clone();
        Box::new(move |level, text| log.with(|lines| lines.push((level, text.to_owned()))))
    }

    fn with<T>(&self, body: impl FnOnce(&mut Vec<(LogLevel, String)>) -> T) -> T {
        body(&mut self.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn forget_accusations(&self) {
        self.with(|lines| lines.retain(|(level, _)| *level != LogLevel::HostMisbehaving));
    }

    pub(super) fn accusation(&self) -> Option<String> {
        self.with(|lines| {
            lines
                .iter()
                .find(|(level, _)| *level == LogLevel::HostMisbehaving)
                .map(|(_, text)| text.clone())
        })
    }

    pub(super) fn texts(&self) -> Vec<String> {
        self.with(|lines| lines.iter().map(|(_, text)| text.clone()).collect())
    }
}

/// Two long texts with nothing in common, and a third to go on with.
const TEXT_A: &str = "The old lighthouse keeper counted the ships each evening, and wrote their names in a green book.";
const TEXT_B: &str = "Prime numbers: 2, 3, 5, 7, 11, 13, 17, 19. Every even number above two might be a sum of two primes!";
const TEXT_C: &str = " Then the music stopped; nobody in the hall knew why, until a small dog walked across the stage.";

pub(super) struct Bench {
    pub(super) plugin: Arc<Plugin>,
    pub(super) model_path: Option<PathBuf>,
    pub(super) projector_path: Option<PathBuf>,
    pub(super) log: Log,
    model: Option<Arc<Model>>,
    yardstick: Option<f32>,
    known: Rc<RefCell<HashMap<Vec<Token>, Vec<f32>>>>,
}

impl Bench {
    pub(super) fn new(
        plugin: Arc<Plugin>,
        model: Option<&Path>,
        projector: Option<&Path>,
        log: Log,
    ) -> Self {
        Self {
            plugin,
            model_path: model.map(Path::to_path_buf),
            projector_path: projector.map(Path::to_path_buf),
            log,
            model: None,
            yardstick: None,
            known: Rc::default(),
        }
    }

    pub(super) fn model_path(&self) -> Step<&Path> {
        self.model_path
            .as_deref()
            .ok_or_else(|| Stop::NotApplicable("no model was given".to_owned()))
    }

    /// The model, opened at the first use.
    pub(super) fn model(&mut self) -> Step<Arc<Model>> {
        if let Some(model) = &self.model {
            return Ok(Arc::clone(model));
        }
        let params = OpenParams::new(self.model_path()?);
        let model = must("model_open", Model::open(&self.plugin, &params, &mut |_| true))?;
        self.model = Some(Arc::clone(&model));
        Ok(model)
    }

    /// The model, if it writes text.
    pub(super) fn writer(&mut self) -> Step<Writer> {
        let model = self.model()?;
        if !model.info().can_generate {
            return not_applicable("this model does not generate");
        }
        let tokens = |text: &str| must("tokenize", model.tokenize(text, true, false));
        let (a, b) = (tokens(TEXT_A)?, tokens(TEXT_B)?);
        let c = must("tokenize", model.tokenize(TEXT_C, false, false))?;
        ensure!(
            a.len() >= 12 && b.len() >= 12 && c.len() >= 12,
            "a text of 90 letters gave less than 12 tokens"
        );
        let known = Rc::clone(&self.known);
        let mut writer = Writer { model, a: cut(a), b: cut(b), c: cut(c), yardstick: 0.0, known };
        writer.yardstick = match self.yardstick {
            Some(yardstick) => yardstick,
            None => writer.measure()?,
        };
        self.yardstick = Some(writer.yardstick);
        Ok(writer)
    }
}

/// Long enough to tell texts apart, short enough for a slow model.
fn cut(mut tokens: Vec<Token>) -> Vec<Token> {
    tokens.truncate(24);
    tokens
}

/// A generating model with three texts of 12 to 24 tokens: `a` and `b` begin a sequence, `c` goes on.
pub(super) struct Writer {
    pub(super) model: Arc<Model>,
    pub(super) a: Vec<Token>,
    pub(super) b: Vec<Token>,
    pub(super) c: Vec<Token>,
    /// How far logits after different texts lie apart.
    yardstick: f32,
    /// What `logits_after` has computed.
    known: Rc<RefCell<HashMap<Vec<Token>, Vec<f32>>>>,
}

/// Small, but larger than anything a scenario puts in.
pub(super) fn config() -> ContextConfig {
    ContextConfig {
        n_batch: 128,
        n_ubatch: 64,
        n_seq_max: 4,
        // One thread is slower on a quiet machine, and many times faster on a busy one.
        n_threads: 1,
        n_threads_batch: 1,
        ..ContextConfig::single(256)
    }
}

impl Writer {
    fn measure(&self) -> Step<f32> {
        let (a, b) = (self.logits_after(&[&self.a])?, self.logits_after(&[&self.b])?);
        let distance = rms(&a, &b);
        ensure!(
            distance.is_finite() && distance > 0.0,
            "different texts give the same logits, or none that are numbers"
        );
        Ok(distance)
    }

    pub(super) fn context(&self) -> Step<Context> {
        must("context_create", self.model.context(&config()))
    }

    /// The logits after these parts as one prompt, in a context of its own: what all others are compared with.
    pub(super) fn logits_after(&self, parts: &[&[Token]]) -> Step<Vec<f32>> {
        let prompt = parts.concat();
        if let Some(logits) = self.known.borrow().get(&prompt) {
            return Ok(logits.clone());
        }
        let logits = feed(&mut self.context()?, 0, 0, &prompt)?;
        self.known.borrow_mut().insert(prompt, logits.clone());
        Ok(logits)
    }

    /// Fails unless the two agree up to what a change of the batch's shape may do to an engine's numbers.
    pub(super) fn same(&self, what: &str, found: &[f32], wanted: &[f32]) -> Step {
        self.within(what, found, wanted, 0.08)
    }

    /// As `same`, for batches of equal shape.
    pub(super) fn exactly_same(&self, what: &str, found: &[f32], wanted: &[f32]) -> Step {
        self.within(what, found, wanted, 0.01)
    }

    /// As `same`, for memory that rounds what it keeps to few bits.
    pub(super) fn alike(&self, what: &str, found: &[f32], wanted: &[f32]) -> Step {
        self.within(what, found, wanted, 0.4)
    }

    fn within(&self, what: &str, found: &[f32], wanted: &[f32], part: f32) -> Step {
        let distance = rms(found, wanted);
        ensure!(
            distance <= part * self.yardstick,
            "{what}: the logits are {distance:.4} from what they should be; those of another text are {:.4}",
            self.yardstick
        );
        Ok(())
    }
}

/// Root of the mean square of the differences; not a number if one of them is not.
pub(super) fn rms(a: &[f32], b: &[f32]) -> f32 {
    let squares: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    // A vocabulary's size is exact, and 24 bits are plenty.
    let rms = (squares / a.len() as f64).sqrt() as f32;
    if a.len() == b.len() { rms } else { f32::NAN }
}

pub(super) fn position(index: usize) -> Pos {
    Pos::try_from(index).unwrap_or(Pos::MAX)
}

/// Adds tokens that begin at position `from`; those with an index in `outputs` are marked.
pub(super) fn push(
    batch: &mut Batch,
    seq: Seq,
    from: usize,
    tokens: &[Token],
    outputs: Range<usize>,
) {
    for (index, token) in tokens.iter().enumerate() {
        let output = outputs.contains(&index);
        batch.push(BatchEntry {
            token: *token,
            position: position(from + index),
            sequence: seq,
            output,
        });
    }
}

/// A batch of one sequence with its last entry marked.
pub(super) fn batch(seq: Seq, from: usize, tokens: &[Token]) -> Batch {
    let mut batch = Batch::default();
    push(&mut batch, seq, from, tokens, tokens.len() - 1..tokens.len());
    batch
}

/// Decodes tokens that begin at position `from`, and answers the last one's logits.
pub(super) fn feed(
    context: &mut Context,
    seq: Seq,
    from: usize,
    tokens: &[Token],
) -> Step<Vec<f32>> {
    must("decode", context.decode(&batch(seq, from, tokens)))?;
    Ok(must("logits", context.logits(tokens.len() - 1))?.to_vec())
}

/// A fresh error struct, for calls that the safe handles do not offer.
pub(super) fn call(body: impl FnOnce(*mut raw::Error) -> raw::RawStatus) -> Result<()> {
    crate::host::call(body)
}

/// A folder for files that are no models, removed at the end.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new() -> Step<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("hearth-check-{}-{number}", std::process::id()));
        match std::fs::create_dir(&path) {
            Ok(()) => Ok(Self(path)),
            Err(error) => not_applicable(format!("cannot create `{}`: {error}", path.display())),
        }
    }

    pub(super) fn file(&self, name: &str, content: &[u8]) -> Step<PathBuf> {
        let path = self.0.join(name);
        match std::fs::write(&path, content) {
            Ok(()) => Ok(path),
            Err(error) => not_applicable(format!("cannot write `{}`: {error}", path.display())),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Why a size that came from the model does not fit what an error struct or counter holds.
pub(super) fn refused(reason: &str) -> PluginError {
    PluginError::new(Status::Failed, reason)
}
