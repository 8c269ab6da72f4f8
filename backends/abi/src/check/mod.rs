//! The conformance check: tries a plugin against the contract, one scenario per rule of the header.
//!
//! [`SCENARIOS`] is the table. A scenario passes, fails with a reason, or is not applicable with a reason; none is
//! skipped in silence. Numbers that must agree are judged with a yardstick measured on the model itself (how far logits
//! of different texts lie apart), because engines compute a little differently for every shape of batch.
//!
//! A plugin under test may crash or hang: callers run this in a process of its own with a deadline.

mod bench;
mod decoding;
mod entry;
mod files;
mod images;
mod memory;
mod powers;
mod quantize;
mod sequences;
mod vocabulary;

use crate::host::Plugin;
use bench::{Bench, Stop};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// What became of one scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The plugin keeps the rule.
    Passed,
    /// It does not, and how that showed.
    Failed(String),
    /// The rule does not concern this plugin or model, and why.
    NotApplicable(String),
}

/// One scenario's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// The rule of the contract that it tries.
    pub rule: &'static str,
    /// See [`Verdict`].
    pub verdict: Verdict,
}

/// A scenario: its name, the rule it tries, and how.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Stable, `[a-z-]+`.
    pub name: &'static str,
    /// One line.
    pub rule: &'static str,
    /// It breaks the contract on purpose, so HOST_MISBEHAVING in the log is no fault of the plugin's.
    provokes: bool,
    run: fn(&mut Bench) -> Result<(), Stop>,
}

const fn fair(
    name: &'static str,
    rule: &'static str,
    run: fn(&mut Bench) -> Result<(), Stop>,
) -> Scenario {
    Scenario { name, rule, provokes: false, run }
}

const fn foul(
    name: &'static str,
    rule: &'static str,
    run: fn(&mut Bench) -> Result<(), Stop>,
) -> Scenario {
    Scenario { name, rule, provokes: true, run }
}

const LOAD: &str = "load";
const LOAD_RULE: &str =
    "the file exports a whole entry of this major version without null pointers, and init succeeds";

/// All scenarios but the first, `load`, in the order they run. If that one fails, there is nothing to try them on.
pub const SCENARIOS: &[Scenario] = &[
    fair("entry", "name is [a-z0-9-]+, version and description are one line each", entry::entry),
    fair(
        "devices",
        "every device has an id of its own and a name, and no devices have a reason",
        entry::devices,
    ),
    foul(
        "device-range",
        "device_get refuses an index that device_count did not announce",
        entry::device_range,
    ),
    fair(
        "extensions",
        "an unknown extension is null, a known one is whole and always the same",
        entry::extensions,
    ),
    fair(
        "open-missing-file",
        "a file that does not exist answers NOT_FOUND and leaves the model null",
        files::missing,
    ),
    fair(
        "open-foreign-file",
        "an empty, foreign or damaged file answers BAD_MODEL",
        files::foreign,
    ),
    fair("open-progress", "progress goes from 0.0 to 1.0 and never down", files::progress),
    fair(
        "open-cancel",
        "progress answering false makes model_open answer CANCELLED",
        files::cancel,
    ),
    fair(
        "open-vocabulary",
        "with vocab_only, tokenize works and context_create answers UNSUPPORTED",
        files::vocabulary,
    ),
    fair(
        "model-info",
        "facts about a model are present and agree with each other",
        vocabulary::info,
    ),
    fair(
        "struct-size",
        "nobody writes beyond the struct_size that was set",
        entry::struct_size_kept,
    ),
    fair(
        "metadata",
        "every metadata entry has a key of its own and a value, and they stay",
        vocabulary::metadata,
    ),
    foul(
        "metadata-range",
        "model_meta refuses an index that model_meta_count did not announce",
        vocabulary::metadata_range,
    ),
    fair(
        "tokenize-round-trip",
        "detokenize gives the text back that tokenize took, byte for byte",
        vocabulary::round_trip,
    ),
    fair(
        "tokenize-special",
        "add_special begins with BOS; control tokens are read only with parse_special",
        vocabulary::special,
    ),
    fair(
        "buffer-too-small",
        "a short buffer answers BUFFER_TOO_SMALL with the exact number, and is not overrun",
        vocabulary::short_buffers,
    ),
    fair(
        "token-pieces",
        "pieces of a text's tokens, put together, are the text",
        vocabulary::pieces,
    ),
    foul(
        "token-range",
        "a number that is no token is refused and ends nothing",
        vocabulary::token_range,
    ),
    fair(
        "context-info",
        "a context is at least as large as asked for, and its numbers agree",
        decoding::context_info,
    ),
    foul("set-threads", "set_threads refuses 0 and takes 1", decoding::set_threads),
    fair(
        "decode-repeatable",
        "the same tokens give the same logits, in any context and sequence",
        decoding::repeatable,
    ),
    fair(
        "decode-formats",
        "the text is the same in KV memory of every format, with flash attention and without, or UNSUPPORTED",
        decoding::formats,
    ),
    fair(
        "decode-in-parts",
        "a prompt in parts gives the logits of the whole prompt",
        decoding::in_parts,
    ),
    fair(
        "decode-outputs",
        "each marked entry of a batch has the logits of its own place",
        decoding::outputs,
    ),
    foul(
        "logits-range",
        "logits of an entry that was not marked or does not exist are refused",
        decoding::logits_range,
    ),
    fair(
        "decode-mixed-batch",
        "sequences in one batch do not influence each other",
        decoding::mixed_batch,
    ),
    foul(
        "decode-refused",
        "a batch that breaks a rule answers INVALID_ARGUMENT and changes nothing",
        decoding::refused,
    ),
    fair(
        "decode-abort",
        "decode_abort makes a decode answer CANCELLED or OK, and none after it suffers",
        decoding::abort,
    ),
    fair("kv-full", "a batch without room answers NO_KV_SPACE and changes nothing", memory::full),
    fair(
        "seq-remove-all",
        "removing all of a sequence always works and gives its cells back",
        memory::remove_all,
    ),
    fair(
        "seq-roll-back",
        "the end of a sequence is removed without a trace, or UNSUPPORTED changes nothing",
        memory::roll_back,
    ),
    fair(
        "seq-copy",
        "a copied sequence goes on as its source, and each is independent of the other",
        sequences::copy,
    ),
    fair(
        "seq-copy-part",
        "a copied start is that of the source, or UNSUPPORTED",
        sequences::copy_part,
    ),
    fair(
        "seq-shift",
        "shifted positions move and the next one follows them, or UNSUPPORTED",
        sequences::shift,
    ),
    fair(
        "seq-shift-shared",
        "what two sequences share is not shifted, and what is a sequence's own moves alone",
        sequences::shift_shared,
    ),
    fair(
        "seq-save",
        "a saved sequence goes on elsewhere with the same logits, or UNSUPPORTED",
        sequences::save,
    ),
    foul(
        "seq-load-damaged",
        "damaged state answers INVALID_ARGUMENT and leaves the sequence empty",
        sequences::load_damaged,
    ),
    fair(
        "part-save",
        "a sequence saved in parts comes back part by part, or UNSUPPORTED",
        sequences::save_parts,
    ),
    foul(
        "part-load-misfit",
        "a part that is damaged or belongs elsewhere answers INVALID_ARGUMENT and changes nothing",
        sequences::load_misfits,
    ),
    fair(
        "embeddings",
        "embeddings are finite, repeatable, and differ between texts",
        powers::embeddings,
    ),
    foul(
        "embeddings-or-logits",
        "a context yields embeddings or logits and refuses the other",
        powers::either,
    ),
    fair(
        "chat-render",
        "render answers the JSON object of the header, with the user's text in the prompt",
        powers::chat_render,
    ),
    foul("chat-refuse", "a request that is not JSON answers INVALID_ARGUMENT", powers::chat_refuse),
    fair(
        "chat-parse",
        "parse answers the JSON object of the header and loses no text",
        powers::chat_parse,
    ),
    foul(
        "grammar",
        "mask leaves what may come next, accept and accept_text refuse the rest",
        powers::grammar,
    ),
    fair(
        "adapters",
        "a file that is no adapter is refused, and attaching none works",
        powers::adapters,
    ),
    fair("projector", "a file that is no projector is refused", images::projector),
    fair(
        "images",
        "the same image is the same in any sequence, another one is not, and text goes on behind it",
        images::images,
    ),
    foul(
        "images-refused",
        "a span in a wrong place or with embeddings of another length changes nothing",
        images::refused,
    ),
    fair(
        "quantize",
        "every type has a name, what is refused has its status, and what is written is a model",
        quantize::quantize,
    ),
    fair(
        "quantize-cancel",
        "progress answering false makes quantize answer CANCELLED",
        quantize::cancel,
    ),
    fair("log-lines", "log lines have no newline and are not empty", entry::log_lines),
];

/// Tries every scenario. Those that need a model, or a projector that goes with it, are not applicable without one.
pub fn run(
    plugin_file: &Path,
    model: Option<&Path>,
    projector: Option<&Path>,
    report: &mut dyn FnMut(Outcome),
) {
    let log = bench::Log::default();
    match Plugin::load(plugin_file, log.sink()) {
        Ok(plugin) => {
            report(Outcome { scenario: LOAD, rule: LOAD_RULE, verdict: Verdict::Passed });
            let mut bench = Bench::new(plugin, model, projector, log);
            for scenario in SCENARIOS {
                report(Outcome {
                    scenario: scenario.name,
                    rule: scenario.rule,
                    verdict: scenario.try_on(&mut bench),
                });
            }
        }
        Err(error) => {
            report(Outcome {
                scenario: LOAD,
                rule: LOAD_RULE,
                verdict: Verdict::Failed(error.to_string()),
            });
        }
    }
}

impl Scenario {
    fn try_on(&self, bench: &mut Bench) -> Verdict {
        bench.log.forget_accusations();
        let result = catch_unwind(AssertUnwindSafe(|| (self.run)(bench)));
        match result {
            Err(_) => {
                Verdict::Failed("the plugin's answers made the check itself panic".to_owned())
            }
            Ok(Err(Stop::Failed(reason))) => Verdict::Failed(reason),
            Ok(Err(Stop::NotApplicable(reason))) => Verdict::NotApplicable(reason),
            Ok(Ok(())) => match bench.log.accusation().filter(|_| !self.provokes) {
                Some(line) => {
                    Verdict::Failed(format!("the plugin blames the host wrongly: {line}"))
                }
                None => Verdict::Passed,
            },
        }
    }
}
