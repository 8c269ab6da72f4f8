//! Which of llama.cpp's ways to cut text before merging (`tokenizer.ggml.pre`) a tokenizer means.
//!
//! llama.cpp's converter knows a model by a hash over the tokens of one text, and so only the
//! vocabularies it was told of. But what a name stands for is in the tokenizer itself: the rules it
//! cuts by. They are compared here, so that a model with a vocabulary of its own is known, too.

use serde_json::Value;

use super::json::TokenizerJson;
use crate::error::ConvertError;

struct Rules {
    /// The first name that has these rules, of those that llama.cpp treats alike.
    name: &'static str,
    steps: &'static [Step<'static>],
    /// Words that are tokens are not merged anew.
    ignore_merges: Option<bool>,
}

#[derive(Debug, PartialEq, Eq)]
enum Step<'r> {
    /// Matches become pieces.
    Split(&'r str),
    /// Each digit becomes a piece.
    Digits,
    /// GPT-2's own pattern.
    Gpt2,
}

const CL100K: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const KNOWN: &[Rules] = &[
    Rules { name: "llama-bpe", steps: &[Step::Split(CL100K)], ignore_merges: Some(true) },
    Rules { name: "dbrx", steps: &[Step::Split(CL100K)], ignore_merges: Some(false) },
    Rules { name: "qwen2", steps: &[Step::Split(QWEN)], ignore_merges: Some(false) },
    Rules { name: "gpt-4o", steps: &[Step::Split(O200K)], ignore_merges: None },
    Rules { name: "tekken", steps: &[Step::Split(TEKKEN)], ignore_merges: None },
    Rules { name: "smollm", steps: &[Step::Digits, Step::Gpt2], ignore_merges: Some(false) },
    Rules { name: "gpt-2", steps: &[Step::Gpt2], ignore_merges: Some(false) },
];

pub(super) fn detect(tokenizer: &TokenizerJson) -> Result<&'static str, ConvertError> {
    let found = tokenizer.pre_tokenizer.as_ref().and_then(steps);
    let ignore_merges = tokenizer.model.ignore_merges;
    KNOWN
        .iter()
        .find(|rules| {
            found.as_deref() == Some(rules.steps)
                && rules.ignore_merges.is_none_or(|ignore| ignore == ignore_merges)
        })
        .map(|rules| rules.name)
        .ok_or_else(|| ConvertError::Unsupported {
            what: "the way its tokenizer cuts text before merging".to_owned(),
        })
}

/// `None` for rules that nothing here stands for.
fn steps(pre_tokenizer: &Value) -> Option<Vec<Step<'_>>> {
    let is = |key: &str, value: bool| pre_tokenizer.get(key) == Some(&Value::Bool(value));
    match pre_tokenizer.get("type")?.as_str()? {
        "Sequence" => {
            let parts = pre_tokenizer.get("pretokenizers")?.as_array()?;
            let steps: Option<Vec<_>> = parts.iter().map(steps).collect();
            Some(steps?.into_iter().flatten().collect())
        }
        "Split" => {
            let behavior = pre_tokenizer.get("behavior")?.as_str()?;
            // To remove what does not match is the same for patterns that match all text.
            if !(behavior == "Isolated" && is("invert", false)
                || behavior == "Removed" && is("invert", true))
            {
                return None;
            }
            Some(vec![Step::Split(pre_tokenizer.get("pattern")?.get("Regex")?.as_str()?)])
        }
        "Digits" if is("individual_digits", true) => Some(vec![Step::Digits]),
        "ByteLevel" if is("add_prefix_space", false) => {
            // Older files do not say it, and mean true.
            Some(if is("use_regex", false) { vec![] } else { vec![Step::Gpt2] })
        }
        _ => None,
    }
}
