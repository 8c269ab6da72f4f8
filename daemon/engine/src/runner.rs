//! Computing the batches of answers.

use crate::cache::{pos_of, seq_of};
use hearth_abi::host::{Batch, Context};
use hearth_abi::raw::Token;
use hearth_abi::{BatchEntry, PluginError};

/// The context and its reusable batch.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) context: Context,
    batch: Batch,
}

impl Runner {
    pub(crate) fn new(context: Context) -> Self {
        let batch = Batch::with_capacity(context.info().n_batch as usize);
        Self { context, batch }
    }

    pub(crate) fn begin(&mut self) {
        self.batch.clear();
    }

    /// Adds tokens to a slot, where `position` comes next. Answers the index of the last one, whose logits are read if
    /// `output` is set.
    pub(crate) fn add(
        &mut self,
        slot: usize,
        position: usize,
        tokens: &[Token],
        output: bool,
    ) -> usize {
        let mut last = 0;
        for (offset, token) in tokens.iter().enumerate() {
            last = self.batch.push(BatchEntry {
                token: *token,
                position: pos_of(position + offset),
                sequence: seq_of(slot),
                output: output && offset + 1 == tokens.len(),
            });
        }
        last
    }

    /// Adds guessed tokens, each with an output.
    pub(crate) fn add_draft(&mut self, slot: usize, position: usize, tokens: &[Token]) {
        for (offset, token) in tokens.iter().enumerate() {
            self.add(slot, position + offset, &[*token], true);
        }
    }

    /// Tokens in the batch.
    pub(crate) fn len(&self) -> usize {
        self.batch.len()
    }

    pub(crate) fn run(&mut self) -> Result<(), PluginError> {
        self.context.decode(&self.batch)
    }
}
