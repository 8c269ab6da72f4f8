//! Whether two models mean the same by a token.

use hearth_abi::PluginError;
use hearth_abi::host::Model;
use hearth_abi::raw::Token;

/// llama.cpp's bounds: models of one family pad their vocabularies differently, and name their first tokens as they like.
const MAX_SIZE_DIFFERENCE: u32 = 128;
const FIRST_COMPARED: Token = 5;

/// How many tokens both models know, or how they differ.
pub(super) fn common(model: &Model, draft: &Model) -> Result<Result<usize, String>, PluginError> {
    let (info, other) = (model.info(), draft.info());
    if info.n_vocab.abs_diff(other.n_vocab) > MAX_SIZE_DIFFERENCE {
        return Ok(Err(format!("it has {} tokens, not {}", other.n_vocab, info.n_vocab)));
    }
    let begins = |add_bos: bool, bos: Option<Token>| bos.filter(|_| add_bos);
    if begins(info.add_bos, info.bos_token) != begins(other.add_bos, other.bos_token) {
        return Ok(Err("its texts begin with another token".into()));
    }
    let n_common = info.n_vocab.min(other.n_vocab);
    for token in FIRST_COMPARED..Token::try_from(n_common).unwrap_or(Token::MAX) {
        let (piece, its) = (model.token_piece(token, true)?, draft.token_piece(token, true)?);
        if piece != its {
            let [piece, its] =
                [piece, its].map(|piece| String::from_utf8_lossy(&piece).into_owned());
            return Ok(Err(format!("its token {token} is `{its}`, not `{piece}`")));
        }
    }
    Ok(Ok(n_common as usize))
}
