//! `tokenizer.json`, the one file of the tokenizers library.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{Kind, Token, added, check_count};
use crate::arch::Source;
use crate::error::ConvertError;
use crate::folder::{Folder, Object};

const FILE: &str = "tokenizer.json";
/// The largest known, of 262,144 tokens, has 33 MB.
const MAX_BYTES: u64 = 128 << 20;

#[derive(Debug, Deserialize)]
pub(super) struct TokenizerJson {
    pub(super) model: Model,
    #[serde(default)]
    pub(super) added_tokens: Vec<AddedToken>,
    pub(super) normalizer: Option<Value>,
    pub(super) pre_tokenizer: Option<Value>,
    pub(super) post_processor: Option<Value>,
    pub(super) decoder: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Model {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    #[serde(default)]
    pub(super) vocab: Vocab,
    #[serde(default)]
    pub(super) merges: Merges,
    #[serde(default)]
    pub(super) byte_fallback: bool,
    #[serde(default)]
    pub(super) ignore_merges: bool,
}

/// Tokens with their ids. Other kinds of models have lists here, which are not read.
#[derive(Debug, Default)]
pub(super) struct Vocab {
    texts: Texts,
    ids: Vec<u64>,
}

/// Pairs of pieces. Half a million are usual.
#[derive(Debug, Default)]
pub(super) struct Merges {
    /// The left side of the first, its right side, and so on.
    sides: Texts,
}

/// Many short texts, one behind the other: each by itself would take several times its length.
#[derive(Debug, Default)]
struct Texts {
    text: String,
    ends: Vec<usize>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Text(String),
    Pair(String, String),
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct AddedToken {
    pub(super) id: u64,
    pub(super) content: String,
    #[serde(default)]
    pub(super) special: bool,
}

impl Texts {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len());
    }

    /// What lies between the ends of two texts, of which the first may be before all.
    fn between(&self, idx: usize, last: usize) -> &str {
        let start = idx.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[last]]
    }
}

impl Vocab {
    fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        let text = |(idx, id): (usize, &u64)| (self.texts.between(idx, idx), *id);
        self.ids.iter().enumerate().map(text)
    }
}

impl Merges {
    fn push(&mut self, merge: &Merge) -> Result<(), &'static str> {
        let (left, right) = match merge {
            Merge::Text(text) => text.split_once(' ').ok_or("a merge without a space")?,
            Merge::Pair(left, right) => (left.as_str(), right.as_str()),
        };
        self.sides.push(left);
        self.sides.push(right);
        Ok(())
    }

    /// Both sides with a space between them, so that a space within one is spelled otherwise.
    pub(super) fn texts(&self) -> Vec<String> {
        let side = |idx| self.sides.between(idx, idx).replace(' ', "\u{120}");
        let lefts = (0..self.sides.ends.len()).step_by(2);
        lefts.map(|left| format!("{} {}", side(left), side(left + 1))).collect()
    }

    /// For each token that merging makes, the first merge that does.
    pub(super) fn ranks(&self) -> HashMap<&str, usize> {
        let mut ranks = HashMap::new();
        for rank in 0..self.sides.ends.len() / 2 {
            let token = self.sides.between(rank * 2, rank * 2 + 1);
            ranks.entry(token).or_insert(rank);
        }
        ranks
    }
}

impl<'de> Deserialize<'de> for Vocab {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tokens;

        impl<'de> Visitor<'de> for Tokens {
            type Value = Vocab;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("tokens")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab, A::Error> {
                let mut vocab = Vocab::default();
                while let Some((text, id)) = map.next_entry::<String, _>()? {
                    vocab.texts.push(&text);
                    vocab.ids.push(id);
                }
                Ok(vocab)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vocab, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Vocab::default())
            }
        }

        deserializer.deserialize_any(Tokens)
    }
}

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Merges;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("merges")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merges, A::Error> {
                let mut merges = Merges::default();
                while let Some(merge) = list.next_element()? {
                    merges.push(&merge).map_err(A::Error::custom)?;
                }
                Ok(merges)
            }
        }

        deserializer.deserialize_seq(Pairs)
    }
}

impl TokenizerJson {
    pub(super) fn read(folder: &Folder) -> Result<Option<Self>, ConvertError> {
        folder.json(FILE, MAX_BYTES)
    }

    pub(super) fn need(folder: &Folder) -> Result<Self, ConvertError> {
        Self::read(folder)?.ok_or_else(|| ConvertError::Missing { path: folder.path(FILE) })
    }

    /// Every token of the model's vocabulary in its place, also those that have none.
    pub(super) fn tokens(&self, source: &Source) -> Result<Vec<Token>, ConvertError> {
        let invalid = |reason: String| ConvertError::invalid(&source.folder.path(FILE), reason);
        let known = self.model.vocab.iter().map(|(_, id)| id);
        let n_known = known.chain(self.added_tokens.iter().map(|token| token.id)).max();
        let n_known = n_known.map_or(0, |last| last.saturating_add(1));
        let n_tokens = source.config.count(&["vocab_size"])?.unwrap_or(n_known);
        if n_known > n_tokens {
            return Err(invalid(format!(
                "it has a token {}, and the model only {n_tokens}",
                n_known - 1
            )));
        }
        let mut tokens: Vec<Token> = (0..check_count(n_tokens)?).map(Token::unused).collect();
        let place = |id: u64| usize::try_from(id).unwrap_or(usize::MAX);
        for (text, id) in self.model.vocab.iter() {
            let token = &mut tokens[place(id)];
            *token = Token { text: text.to_owned(), kind: Kind::Normal, ..*token };
        }
        let config = source.folder.object("tokenizer_config.json")?.unwrap_or_default();
        for token in self.added_tokens(&config) {
            let (kind, text) = added(&token.content, token.special);
            let place = &mut tokens[place(token.id)];
            *place = Token { text, kind, ..*place };
        }
        Ok(tokens)
    }

    /// The added tokens; what `tokenizer_config.json` says of one stands above what is said here.
    fn added_tokens(&self, config: &Object) -> Vec<AddedToken> {
        let decoder = config.get("added_tokens_decoder").and_then(Value::as_object);
        let flags: HashMap<&str, bool> = decoder
            .into_iter()
            .flat_map(|decoder| decoder.values())
            .filter_map(|entry| {
                Some((entry.get("content")?.as_str()?, entry.get("special")?.as_bool()?))
            })
            .collect();
        let mut tokens = self.added_tokens.clone();
        for token in &mut tokens {
            token.special = flags.get(token.content.as_str()).copied().unwrap_or(token.special);
        }
        tokens
    }
}
