//! What stands between two texts, by models whose template has no place for a `suffix`: their vocabulary has tokens that mark
//! where the text before begins, where the text after begins, and where what is between is to be written.

use super::prepare::refused;
use hearth_abi::host::Model;
use hearth_abi::raw::Token;
use hearth_protocol::RpcError;

/// Where a file names its three marks, now and formerly.
const KEYS: [[&str; 3]; 2] = [
    [
        "tokenizer.ggml.fim_pre_token_id",
        "tokenizer.ggml.fim_suf_token_id",
        "tokenizer.ggml.fim_mid_token_id",
    ],
    [
        "tokenizer.ggml.prefix_token_id",
        "tokenizer.ggml.suffix_token_id",
        "tokenizer.ggml.middle_token_id",
    ],
];

/// Most files name none. Then it is by their texts that the marks are known, to llama.cpp too: those of Qwen, StarCoder and
/// Granite, DeepSeek, CodeLlama, and GLM.
const TEXTS: [[&str; 3]; 6] = [
    ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
    ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
    ["<fim-prefix>", "<fim-suffix>", "<fim-middle>"],
    ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
    ["▁<PRE>", "▁<SUF>", "▁<MID>"],
    ["<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"],
];

/// Whether a file with these keys names its marks.
pub(crate) fn names_marks(has: impl Fn(&str) -> bool) -> bool {
    KEYS.iter().any(|keys| keys.iter().all(|key| has(key)))
}

/// `None` for a model that has no such marks.
pub(super) fn prompt(
    model: &Model,
    before: &str,
    after: &str,
) -> Result<Option<Vec<Token>>, RpcError> {
    let Some([pre, suf, mid]) = marks(model)? else { return Ok(None) };
    // What begins every text.
    let mut prompt = model.tokenize("", true, false).map_err(refused)?;
    for (mark, text) in [(pre, before), (suf, after)] {
        prompt.push(mark);
        prompt.extend(model.tokenize(text, false, false).map_err(refused)?);
    }
    prompt.push(mid);
    Ok(Some(prompt))
}

fn marks(model: &Model) -> Result<Option<[Token; 3]>, RpcError> {
    let metadata = model.meta().map_err(refused)?;
    let is_token =
        |token: &Token| u32::try_from(*token).is_ok_and(|token| token < model.info().n_vocab);
    let named = |key: &str| {
        let (_, number) = metadata.iter().find(|(known, _)| known == key)?;
        number.parse().ok().filter(is_token)
    };
    let spelled = |text: &str| match model.tokenize(text, false, true).as_deref() {
        Ok([token]) => Some(*token),
        _ => None,
    };
    let named = KEYS.iter().find_map(|keys| all(keys.map(named)));
    Ok(named.or_else(|| TEXTS.iter().find_map(|texts| all(texts.map(spelled)))))
}

fn all([pre, suf, mid]: [Option<Token>; 3]) -> Option<[Token; 3]> {
    Some([pre?, suf?, mid?])
}
