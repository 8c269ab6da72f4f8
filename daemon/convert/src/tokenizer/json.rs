//! `tokenizer.json`, the one file of the tokenizers library.

use std::collections::HashMap;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
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
    pub(super) merges: Vec<Merge>,
    #[serde(default)]
    pub(super) byte_fallback: bool,
    #[serde(default)]
    pub(super) ignore_merges: bool,
}

/// Tokens with their ids. Other kinds of models have lists here, which are not read.
#[derive(Debug, Default)]
pub(super) struct Vocab(pub(super) Vec<(String, u64)>);

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Merge {
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

impl Merge {
    /// Both sides with a space between them, so that a space within one is spelled otherwise.
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Pair(left, right) => {
                format!("{} {}", left.replace(' ', "\u{120}"), right.replace(' ', "\u{120}"))
            }
        }
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
                let mut tokens = Vec::new();
                while let Some(token) = map.next_entry()? {
                    tokens.push(token);
                }
                Ok(Vocab(tokens))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vocab, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Vocab::default())
            }
        }

        deserializer.deserialize_any(Tokens)
    }
}

impl TokenizerJson {
    pub(super) fn read(folder: &Folder) -> Result<Option<Self>, ConvertError> {
        folder.json(FILE, MAX_BYTES)
    }

    pub(super) fn need(folder: &Folder) -> Result<Self, ConvertError> {
        Self::read(folder)?.ok_or_else(|| ConvertError::Missing { path: folder.path(FILE) })
    }

    /// For each token that merging makes, the first merge that does.
    pub(super) fn ranks(&self) -> HashMap<String, usize> {
        let mut ranks = HashMap::new();
        for (rank, merge) in self.model.merges.iter().enumerate() {
            let token = match merge {
                Merge::Text(text) => text.replacen(' ', "", 1),
                Merge::Pair(left, right) => format!("{left}{right}"),
            };
            ranks.entry(token).or_insert(rank);
        }
        ranks
    }

    /// Every token of the model's vocabulary in its place, also those that have none.
    pub(super) fn tokens(&self, source: &Source) -> Result<Vec<Token>, ConvertError> {
        let invalid = |reason: String| ConvertError::invalid(&source.folder.path(FILE), reason);
        let known = self.model.vocab.0.iter().map(|(_, id)| *id);
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
        for (text, id) in &self.model.vocab.0 {
            let token = &mut tokens[place(*id)];
            *token = Token { text: text.clone(), kind: Kind::Normal, ..*token };
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
