//! `hearth.mtp/1`: what the model will say, or by its file's wish now and then something else.

use crate::context::ReferenceContext;
use hearth_abi::Result;
use hearth_abi::author::MtpContext;
use hearth_abi::raw::{Seq, Token};

impl MtpContext for ReferenceContext {
    fn begin(&mut self) -> Result<u32> {
        self.begin_guessing()
    }

    fn draft(
        &mut self,
        sequences: &[Seq],
        tokens: &[Token],
        n_guesses: usize,
        guesses: &mut [Token],
    ) -> Result<()> {
        let rows = guesses.chunks_mut(n_guesses);
        sequences
            .iter()
            .zip(tokens)
            .zip(rows)
            .try_for_each(|((seq, token), row)| self.guess(*seq, *token, row))
    }
}
