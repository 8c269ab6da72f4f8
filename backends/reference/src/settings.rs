//! What a model file can ask for: each field is a metadata key `hearth-reference.<name>`.
//!
//! Unknown keys are refused, so that a misspelt one does not make a test pass for the wrong reason.

use crate::gguf::Value;
use hearth_abi::{PluginError, Pooling, Result, Status};

/// Prefix of the metadata keys, and the value of `general.architecture`.
pub(crate) const ARCHITECTURE: &str = "hearth-reference";

/// How a model behaves. Counts of decodes are per context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Longest text in tokens that the model says it was trained on.
    pub context_length: u32,
    /// Length of an embedding.
    pub embedding_length: u32,
    /// Layers it says it has.
    pub block_count: u32,
    /// Unused tokens at the end of the vocabulary.
    pub extra_tokens: u32,
    /// Another seed gives another model.
    pub seed: u64,
    /// About one token in so many ends the text; 0: none ever.
    pub eos_one_in: u64,
    /// When not empty, what every answer of a chat says, before `<|end|>`.
    pub script: String,
    /// Seven of eight tokens repeat the one that stood so many places before, at most 16; 0: none do.
    pub echo_period: u32,
    /// Bytes it says its weights have.
    pub size_bytes: u64,
    /// `seq_remove` can cut the end off a sequence. False is like recurrent or sliding-window memory.
    pub roll_back: bool,
    /// `seq_shift` works.
    pub can_shift: bool,
    /// `seq_copy` works for part of a sequence, and so does saving; as `roll_back` unless the file says so.
    pub copy_part: bool,
    /// `seq_save` and `seq_load` work.
    pub can_save: bool,
    /// Contexts with logits can be made.
    pub can_generate: bool,
    /// Contexts with embeddings can be made.
    pub can_embed: bool,
    /// Texts begin with BOS.
    pub add_bos: bool,
    /// What `HEARTH_POOLING_MODEL` means here: `mean`, `cls`, `last` or `none`.
    pub pooling: Pooling,
    /// It ranks texts: an embedding is the share of a text's bytes that are in the question.
    pub ranks: bool,
    /// Time that each token of a batch takes.
    pub slow_us_per_token: u64,
    /// Time that each decode takes besides.
    pub slow_us_per_decode: u64,
    /// Time that opening takes, with progress every 5 ms.
    pub open_ms: u64,
    /// Opening answers FAILED.
    pub fail_open: bool,
    /// Opening aborts the process.
    pub crash_open: bool,
    /// Time that quantizing takes, with progress every 5 ms.
    pub quantize_ms: u64,
    /// Quantizing aborts the process when the output is half written.
    pub crash_quantize: bool,
    /// After so many decodes the next answers FAILED.
    pub fail_decode_after: Option<u64>,
    /// After so many decodes one answers OUT_OF_MEMORY, and the next goes on.
    pub no_memory_at: Option<u64>,
    /// After so many decodes the next aborts the process.
    pub crash_after: Option<u64>,
    /// After so many decodes the next blocks until it is aborted.
    pub hang_after: Option<u64>,
    /// The blocked decode does not hear `decode_abort`.
    pub hang_hard: bool,
    /// Removed ends of a sequence go on to influence it: a plugin that breaks the contract.
    pub kv_lie: bool,
    /// Tokens in a row that it can guess of itself; 0: none.
    pub mtp: u32,
    /// One guess in so many is wrong; 0: none are.
    pub mtp_wrong_one_in: u64,
    /// Only in adapters: what they change the output by.
    pub lora_seed: Option<u64>,
    /// Only in projectors: what they see things by.
    pub projector_seed: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            context_length: 4096,
            embedding_length: 32,
            block_count: 1,
            extra_tokens: 0,
            seed: 0,
            eos_one_in: 64,
            script: String::new(),
            echo_period: 0,
            size_bytes: 4096,
            roll_back: true,
            can_shift: true,
            copy_part: true,
            can_save: true,
            can_generate: true,
            can_embed: true,
            add_bos: true,
            pooling: Pooling::Mean,
            ranks: false,
            slow_us_per_token: 0,
            slow_us_per_decode: 0,
            open_ms: 0,
            fail_open: false,
            crash_open: false,
            quantize_ms: 0,
            crash_quantize: false,
            fail_decode_after: None,
            no_memory_at: None,
            crash_after: None,
            hang_after: None,
            hang_hard: false,
            kv_lie: false,
            mtp: 0,
            mtp_wrong_one_in: 0,
            lora_seed: None,
            projector_seed: None,
        }
    }
}

/// Longest `echo_period`.
const MAX_ECHO_PERIOD: u32 = 16;

impl Settings {
    /// Reads pairs as [`write_model`](crate::write_model) takes them. Keys of other prefixes are passed over.
    pub fn from_pairs(pairs: &[(&str, Value)]) -> Result<Self> {
        let mut settings = Self::default();
        let mut copy_part = None;
        for (key, value) in pairs {
            let name = match key.split_once('.') {
                None => *key,
                Some((ARCHITECTURE, name)) => name,
                Some(_) => continue,
            };
            let wrong = |what: &str| {
                PluginError::new(Status::BadModel, format!("`{ARCHITECTURE}.{name}` is not {what}"))
            };
            let flag = || value.as_bool().ok_or_else(|| wrong("a truth value"));
            let number = || value.as_u64().ok_or_else(|| wrong("a whole number"));
            let small = || {
                number().and_then(|n| u32::try_from(n).map_err(|_| wrong("a number below 2^32")))
            };
            let text = || value.as_str().ok_or_else(|| wrong("a string"));
            match name {
                "context_length" => settings.context_length = small()?,
                "embedding_length" => settings.embedding_length = small()?.clamp(1, 65_536),
                "block_count" => settings.block_count = small()?,
                "extra_tokens" => settings.extra_tokens = small()?.min(1 << 20),
                "seed" => settings.seed = number()?,
                "eos_one_in" => settings.eos_one_in = number()?,
                "script" => text()?.clone_into(&mut settings.script),
                "echo_period" => settings.echo_period = small()?.min(MAX_ECHO_PERIOD),
                "size_bytes" => settings.size_bytes = number()?,
                "roll_back" => settings.roll_back = flag()?,
                "can_shift" => settings.can_shift = flag()?,
                "copy_part" => copy_part = Some(flag()?),
                "can_save" => settings.can_save = flag()?,
                "can_generate" => settings.can_generate = flag()?,
                "ranks" => settings.ranks = flag()?,
                "can_embed" => settings.can_embed = flag()?,
                "add_bos" => settings.add_bos = flag()?,
                "pooling" => {
                    settings.pooling = match text()? {
                        "mean" => Pooling::Mean,
                        "cls" => Pooling::Cls,
                        "last" => Pooling::Last,
                        "none" => Pooling::None,
                        _ => return Err(wrong("a kind of pooling")),
                    }
                }
                "slow_us_per_token" => settings.slow_us_per_token = number()?,
                "slow_us_per_decode" => settings.slow_us_per_decode = number()?,
                "open_ms" => settings.open_ms = number()?,
                "fail_open" => settings.fail_open = flag()?,
                "crash_open" => settings.crash_open = flag()?,
                "quantize_ms" => settings.quantize_ms = number()?,
                "crash_quantize" => settings.crash_quantize = flag()?,
                "fail_decode_after" => settings.fail_decode_after = Some(number()?),
                "no_memory_at" => settings.no_memory_at = Some(number()?),
                "crash_after" => settings.crash_after = Some(number()?),
                "hang_after" => settings.hang_after = Some(number()?),
                "hang_hard" => settings.hang_hard = flag()?,
                "kv_lie" => settings.kv_lie = flag()?,
                "mtp" => settings.mtp = small()?,
                "mtp_wrong_one_in" => settings.mtp_wrong_one_in = number()?,
                "lora_seed" => settings.lora_seed = Some(number()?),
                "projector_seed" => settings.projector_seed = Some(number()?),
                _ => return Err(wrong("a setting of this plugin")),
            }
        }
        settings.copy_part = copy_part.unwrap_or(settings.roll_back);
        Ok(settings)
    }
}
