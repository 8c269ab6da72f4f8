//! `hearth.grammar/1`: GBNF through llama.cpp's grammars.

use crate::model::LlamaModel;
use crate::shim::{
    GrammarHandle, c_string, captured, error, guarded, hearth_shim_grammar_accept,
    hearth_shim_grammar_accept_text, hearth_shim_grammar_apply, hearth_shim_grammar_free,
    hearth_shim_grammar_new, hearth_shim_grammar_state, invalid,
};
use crate::vocab::Vocab;
use hearth_abi::author::{Grammar, GrammarModel};
use hearth_abi::raw::Token;
use hearth_abi::{Result, Status};
use llama_cpp_sys_2 as sys;
use std::ptr::NonNull;
use std::sync::Arc;

/// llama.cpp's parser recurses at each parenthesis, on a stack of limited depth.
const MAX_NESTING: usize = 256;

/// Fewer tokens are asked about one by one.
const FEW: usize = 512;

/// A vocabulary as a tree: each token stands below the longest one that it begins with. A token can only come where that one
/// can, so most are ruled out unasked. In the middle of a key 49,152 tokens take 0.1 ms, and took 10 ms without (2026-11).
#[derive(Debug)]
pub(crate) struct Prefixes {
    /// The tokens of each depth, each with the one above it.
    levels: Vec<Vec<(Token, Option<Token>)>>,
}

impl Prefixes {
    pub(crate) fn new(vocab: &Vocab) -> Self {
        let mut levels = vec![Vec::new()];
        let mut pieces = Vec::new();
        for token in 0..vocab.n_tokens().cast_signed() {
            let piece = vocab.piece(token, true).unwrap_or_default();
            if piece.is_empty() || vocab.is_end(token) {
                // Whether an end may come says nothing about its text.
                levels[0].push((token, None));
            } else {
                // Its first bytes as one number, which decides most comparisons without a look at the piece.
                let mut start = [0; 8];
                start.iter_mut().zip(&piece).for_each(|(byte, first)| *byte = *first);
                pieces.push((u64::from_be_bytes(start), piece, token));
            }
        }
        pieces.sort_unstable();
        let mut above: Vec<(&[u8], Token)> = Vec::new();
        for (_, piece, token) in &pieces {
            while above.last().is_some_and(|(prefix, _)| !piece.starts_with(prefix)) {
                above.pop();
            }
            if levels.len() == above.len() {
                levels.push(Vec::new());
            }
            levels[above.len()].push((*token, above.last().map(|(_, token)| *token)));
            above.push((piece, *token));
        }
        // llama.cpp's pieces lie in memory in the order of tokens.
        levels.iter_mut().for_each(|level| level.sort_unstable());
        Self { levels }
    }
}

/// Masks that are kept. A string allows after each letter what it did before, and so a text comes back to few places.
const MASKS: usize = 8;

/// Words of a state that is recognized. Larger ones are asked about anew each time.
const LARGEST_STATE: usize = 1024;

/// What may come next in one state of a grammar.
#[derive(Debug)]
struct Mask {
    /// Empty: unknown.
    state: Vec<u64>,
    /// Of each token.
    may_come: Vec<bool>,
}

/// A grammar and how far the text has come in it.
#[derive(Debug)]
pub struct LlamaGrammar {
    raw: NonNull<GrammarHandle>,
    candidates: Vec<sys::llama_token_data>,
    /// The one used last first.
    masks: Vec<Mask>,
    model: Arc<LlamaModel>,
}

// SAFETY: a grammar is bound to no thread; `&mut self` keeps calls apart.
unsafe impl Send for LlamaGrammar {}

impl Drop for LlamaGrammar {
    fn drop(&mut self) {
        // SAFETY: created once, and the model, whose vocabulary it points to, is still held.
        unsafe { hearth_shim_grammar_free(self.raw.as_ptr()) }
    }
}

/// The deepest nesting that parentheses could reach, counted without regard to quotes.
fn nesting(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut deepest = 0;
    for byte in text.bytes() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

impl GrammarModel for LlamaModel {
    type Grammar = LlamaGrammar;

    fn grammar(self: &Arc<Self>, text: &str, root: &str) -> Result<LlamaGrammar> {
        if nesting(text) > MAX_NESTING {
            return Err(invalid(format!("the grammar nests more than {MAX_NESTING} parentheses")));
        }
        let text = c_string(text, "the grammar")?;
        let root = c_string(root, "the name of the start rule")?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the vocabulary lives as long as the model; both texts are NUL-terminated; the out-parameter is ours.
        let created = captured(|message| unsafe {
            hearth_shim_grammar_new(
                self.vocab().raw(),
                text.as_ptr(),
                root.as_ptr(),
                &raw mut raw,
                message,
            )
        });
        let raw = NonNull::new(raw).filter(|_| created.is_ok()).ok_or_else(|| {
            let why = created.why();
            invalid(format!("cannot read the grammar: {}", why.trim()))
        })?;
        // Read here and not at the first mask, for which a stream would wait.
        self.prefixes();
        let (candidates, masks) = (Vec::new(), Vec::new());
        Ok(LlamaGrammar { raw, candidates, masks, model: Arc::clone(self) })
    }
}

/// Of a token that is in the vocabulary.
fn index(token: Token) -> usize {
    token.unsigned_abs() as usize
}

fn candidate(id: Token, logit: f32) -> sys::llama_token_data {
    sys::llama_token_data { id, logit, p: 0.0 }
}

impl LlamaGrammar {
    /// Which tokens of the whole vocabulary may come next.
    fn may_come(&mut self) -> Result<&[bool]> {
        let state = self.state()?;
        let known = self.masks.iter().position(|mask| !state.is_empty() && mask.state == state);
        let mask = match known {
            Some(at) => self.masks.remove(at),
            None => Mask { may_come: self.ask_all()?, state },
        };
        self.masks.truncate(MASKS - 1);
        self.masks.insert(0, mask);
        Ok(&self.masks[0].may_come)
    }

    fn state(&self) -> Result<Vec<u64>> {
        let (mut state, mut n) = (vec![0; LARGEST_STATE], 0);
        // SAFETY: a live grammar; the words have the capacity given; the out-parameter is ours.
        guarded(|message| unsafe {
            let words = state.as_mut_ptr();
            hearth_shim_grammar_state(self.raw.as_ptr(), words, LARGEST_STATE, &raw mut n, message)
        })
        .map_err(|why| error(Status::Failed, format!("cannot read the grammar's state: {why}")))?;
        state.truncate(n);
        Ok(state)
    }

    fn ask_all(&mut self) -> Result<Vec<bool>> {
        let model = Arc::clone(&self.model);
        let mut may_come = vec![false; model.vocab().n_tokens() as usize];
        for level in &model.prefixes().levels {
            let is_open = |above: &Option<Token>| above.is_none_or(|above| may_come[index(above)]);
            self.candidates.clear();
            let open = level.iter().filter(|(_, above)| is_open(above));
            self.candidates.extend(open.map(|(token, _)| candidate(*token, 0.0)));
            if self.candidates.is_empty() {
                break;
            }
            self.apply()?;
            for asked in &self.candidates {
                may_come[index(asked.id)] = asked.logit != f32::NEG_INFINITY;
            }
        }
        Ok(may_come)
    }

    /// Sets the logits of `candidates` that may not come next to minus infinity.
    fn apply(&mut self) -> Result<()> {
        let mut array = sys::llama_token_data_array {
            data: self.candidates.as_mut_ptr(),
            size: self.candidates.len(),
            selected: -1,
            sorted: false,
        };
        let raw = self.raw.as_ptr();
        // SAFETY: a live grammar; the array's tokens are in the vocabulary; their logits are changed in place.
        guarded(|message| unsafe { hearth_shim_grammar_apply(raw, &raw mut array, message) })
            .map_err(|why| error(Status::Failed, format!("cannot apply the grammar: {why}")))
    }
}

impl Grammar for LlamaGrammar {
    fn mask(&mut self, tokens: &[Token], logits: &mut [f32]) -> Result<()> {
        if let Some(token) = tokens.iter().find(|token| !self.model.vocab().has(**token)) {
            return self.model.vocab().check(*token);
        }
        if tokens.len() > FEW {
            let may_come = self.may_come()?;
            for (token, logit) in tokens.iter().zip(logits) {
                if !may_come[index(*token)] {
                    *logit = f32::NEG_INFINITY;
                }
            }
            return Ok(());
        }
        self.candidates.clear();
        let asked =
            tokens.iter().zip(logits.iter()).map(|(token, logit)| candidate(*token, *logit));
        self.candidates.extend(asked);
        self.apply()?;
        for (logit, asked) in logits.iter_mut().zip(&self.candidates) {
            *logit = asked.logit;
        }
        Ok(())
    }

    fn accept(&mut self, token: Token) -> Result<()> {
        self.model.vocab().check(token)?;
        // llama.cpp aborts on an end token and throws on others that do not fit, so the token is tried first.
        self.candidates.clear();
        self.candidates.push(candidate(token, 0.0));
        self.apply()?;
        if self.candidates[0].logit == f32::NEG_INFINITY {
            return Err(invalid(format!("the grammar does not allow token {token} here")));
        }
        let raw = self.raw.as_ptr();
        // SAFETY: a live grammar, and the token is one that the grammar allows.
        guarded(|message| unsafe { hearth_shim_grammar_accept(raw, token, message) })
            .map_err(|why| error(Status::Failed, format!("cannot go on in the grammar: {why}")))
    }

    fn accept_text(&mut self, text: &[u8]) -> Result<()> {
        // The other grammar's states may look like this one's.
        self.masks.clear();
        let mut raw = self.raw.as_ptr();
        // SAFETY: a live grammar, which the shim frees when it answers another; the text has the length given.
        let taken = guarded(|message| unsafe {
            let (text, len) = (text.as_ptr().cast(), text.len());
            hearth_shim_grammar_accept_text(&raw mut raw, text, len, message)
        });
        self.raw = NonNull::new(raw).unwrap_or(self.raw);
        // The shim's words would quote the text.
        taken.map_err(|_| invalid("the grammar does not allow this text here"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_the_deepest_point() {
        assert_eq!(nesting("root ::= \"a\""), 0);
        assert_eq!(nesting("(()(()))()"), 3);
        assert_eq!(nesting(")))("), 1);
    }
}
