//! `hearth.grammar/1`: GBNF through llama.cpp's grammars.

use crate::model::LlamaModel;
use crate::shim::{
    GrammarHandle, c_string, captured, error, guarded, hearth_shim_grammar_accept,
    hearth_shim_grammar_accept_text, hearth_shim_grammar_apply, hearth_shim_grammar_free,
    hearth_shim_grammar_new, hearth_shim_grammar_walk, invalid,
};
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

/// A grammar and how far the text has come in it.
#[derive(Debug)]
pub struct LlamaGrammar {
    raw: NonNull<GrammarHandle>,
    candidates: Vec<sys::llama_token_data>,
    /// Of each token of the vocabulary.
    may_come: Vec<bool>,
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
        self.tree();
        let (candidates, may_come) = (Vec::new(), Vec::new());
        Ok(LlamaGrammar { raw, candidates, may_come, model: Arc::clone(self) })
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
    /// Finds out which tokens of the whole vocabulary may come next.
    fn ask_all(&mut self) -> Result<()> {
        let model = Arc::clone(&self.model);
        let tree = model.tree();
        self.may_come.clear();
        self.may_come.resize(model.vocab().n_tokens() as usize, false);
        let mut walked = false;
        // SAFETY: a live grammar; branches and text are the tree's own, which names no tokens but the vocabulary's, and there is
        // a place for each of these; the out-parameter is ours.
        guarded(|message| unsafe {
            hearth_shim_grammar_walk(
                self.raw.as_ptr(),
                tree.branches.as_ptr(),
                tree.branches.len(),
                tree.text.as_ptr(),
                self.may_come.as_mut_ptr(),
                &raw mut walked,
                message,
            )
        })
        .map_err(|why| error(Status::Failed, format!("cannot walk the grammar: {why}")))?;
        self.candidates.clear();
        if walked {
            self.candidates.extend(tree.others.iter().map(|token| candidate(*token, 0.0)));
        } else {
            let all = 0..model.vocab().n_tokens().cast_signed();
            self.candidates.extend(all.map(|token| candidate(token, 0.0)));
        }
        self.apply()?;
        for asked in &self.candidates {
            self.may_come[index(asked.id)] = asked.logit != f32::NEG_INFINITY;
        }
        Ok(())
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
            self.ask_all()?;
            for (token, logit) in tokens.iter().zip(logits) {
                if !self.may_come[index(*token)] {
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
