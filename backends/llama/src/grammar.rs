//! `hearth.grammar/1`: GBNF through llama.cpp's grammar sampler.

use crate::model::LlamaModel;
use crate::shim::{
    c_string, captured, error, guarded, hearth_shim_grammar_accept, hearth_shim_grammar_apply,
    hearth_shim_grammar_new, invalid,
};
use hearth_abi::author::{Grammar, GrammarModel};
use hearth_abi::raw::Token;
use hearth_abi::{Result, Status};
use llama_cpp_sys_2 as sys;
use std::ptr::NonNull;
use std::sync::Arc;

/// llama.cpp's parser recurses at each parenthesis, on a stack of limited depth.
const MAX_NESTING: usize = 256;

/// A grammar and how far the text has come in it.
#[derive(Debug)]
pub struct LlamaGrammar {
    raw: NonNull<sys::llama_sampler>,
    candidates: Vec<sys::llama_token_data>,
    model: Arc<LlamaModel>,
}

// SAFETY: a sampler is bound to no thread; `&mut self` keeps calls apart.
unsafe impl Send for LlamaGrammar {}

impl Drop for LlamaGrammar {
    fn drop(&mut self) {
        // SAFETY: created once, and the model, whose vocabulary it points to, is still held.
        unsafe { sys::llama_sampler_free(self.raw.as_ptr()) }
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
        Ok(LlamaGrammar { raw, candidates: Vec::new(), model: Arc::clone(self) })
    }
}

impl LlamaGrammar {
    /// Sets the logits of `candidates` that may not come next to minus infinity.
    fn apply(&mut self) -> Result<()> {
        let mut array = sys::llama_token_data_array {
            data: self.candidates.as_mut_ptr(),
            size: self.candidates.len(),
            selected: -1,
            sorted: false,
        };
        let raw = self.raw.as_ptr();
        // SAFETY: a live sampler; the array's tokens are in the vocabulary; a grammar sampler changes logits in place.
        guarded(|message| unsafe { hearth_shim_grammar_apply(raw, &raw mut array, message) })
            .map_err(|why| error(Status::Failed, format!("cannot apply the grammar: {why}")))
    }
}

impl Grammar for LlamaGrammar {
    fn mask(&mut self, tokens: &[Token], logits: &mut [f32]) -> Result<()> {
        self.candidates.clear();
        for (token, logit) in tokens.iter().zip(logits.iter()) {
            self.model.vocab().check(*token)?;
            // What is excluded already need not be looked at, which makes a filtered list cheap.
            if *logit != f32::NEG_INFINITY {
                self.candidates.push(sys::llama_token_data { id: *token, logit: *logit, p: 0.0 });
            }
        }
        self.apply()?;
        let mut masked = self.candidates.iter();
        for logit in logits.iter_mut().filter(|logit| **logit != f32::NEG_INFINITY) {
            *logit = masked.next().map_or(f32::NEG_INFINITY, |candidate| candidate.logit);
        }
        Ok(())
    }

    fn accept(&mut self, token: Token) -> Result<()> {
        self.model.vocab().check(token)?;
        // llama.cpp aborts on an end token and throws on others that do not fit, so the token is tried first.
        self.candidates.clear();
        self.candidates.push(sys::llama_token_data { id: token, logit: 0.0, p: 0.0 });
        self.apply()?;
        if self.candidates[0].logit == f32::NEG_INFINITY {
            return Err(invalid(format!("the grammar does not allow token {token} here")));
        }
        let raw = self.raw.as_ptr();
        // SAFETY: a live sampler, and the token is one that the grammar allows.
        guarded(|message| unsafe { hearth_shim_grammar_accept(raw, token, message) })
            .map_err(|why| error(Status::Failed, format!("cannot go on in the grammar: {why}")))
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
