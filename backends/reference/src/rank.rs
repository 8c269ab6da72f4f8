//! `hearth.rank/1`: how much of a text is in a question.

use crate::model::{ReferenceModel, error};
use crate::text::Entry;
use crate::vocab::{self, BOS, END};
use hearth_abi::author::RankModel;
use hearth_abi::raw::Token;
use hearth_abi::{Result, Status};

impl RankModel for ReferenceModel {
    fn tokenize_pair(&self, query: &str, text: &str) -> Result<Vec<Token>> {
        if !self.settings.ranks {
            return Err(error(Status::Unsupported, "the model ranks no texts"));
        }
        let [query, text] = [query, text].map(|text| vocab::tokenize(text.as_bytes(), false));
        Ok([&[BOS][..], &query, &[END], &text, &[END]].concat())
    }
}

/// The share of the second text's tokens that are in the first.
#[allow(clippy::cast_precision_loss)] // A share of millions of tokens may be off by a rounding.
pub(crate) fn score(entries: &[Entry]) -> f32 {
    let mut texts = entries.split(|entry| entry.token == END);
    let (query, text) = (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
    let is_known = |entry: &&Entry| query.iter().any(|other| other.token == entry.token);
    let n_known = text.iter().filter(is_known).count();
    n_known as f32 / text.len().max(1) as f32
}
