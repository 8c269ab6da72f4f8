//! The metadata of the file to be, in the order in which keys were first set.

use hearth_gguf::Value;

use crate::error::ConvertError;

#[derive(Debug)]
pub(crate) struct Metadata {
    architecture: &'static str,
    pairs: Vec<(String, Value)>,
}

impl Metadata {
    pub(crate) fn new(architecture: &'static str) -> Self {
        let mut metadata = Self { architecture, pairs: Vec::new() };
        metadata.text("general.architecture", architecture);
        metadata
    }

    /// Sets a key, in its old place if it had one.
    pub(crate) fn set(&mut self, key: &str, value: Value) {
        match self.pairs.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value,
            None => self.pairs.push((key.to_owned(), value)),
        }
    }

    /// Sets a text, unless it is empty.
    pub(crate) fn text(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.set(key, Value::Text(text.to_owned()));
        }
    }

    /// Sets a key of the architecture: `name` without the prefix.
    pub(crate) fn set_own(&mut self, name: &str, value: Value) {
        self.set(&format!("{}.{name}", self.architecture), value);
    }

    pub(crate) fn count(&mut self, name: &str, count: u64) -> Result<(), ConvertError> {
        let count = u32::try_from(count).map_err(|_| ConvertError::Unsupported {
            what: format!("a model whose {name} is {count}"),
        })?;
        self.set_own(name, Value::U32(count));
        Ok(())
    }

    /// GGUF holds single precision.
    pub(crate) fn float(&mut self, name: &str, number: f64) {
        self.set_own(name, Value::F32(single(number)));
    }

    pub(crate) fn has_own(&self, name: &str) -> bool {
        let key = format!("{}.{name}", self.architecture);
        self.pairs.iter().any(|(known, _)| *known == key)
    }

    /// How many texts a key lists.
    pub(crate) fn n_texts(&self, key: &str) -> u64 {
        self.pairs.iter().find(|(known, _)| known == key).map_or(0, |(_, value)| match value {
            Value::Texts(texts) => texts.len() as u64,
            _ => 0,
        })
    }

    pub(crate) fn pairs(&self) -> &[(String, Value)] {
        &self.pairs
    }
}

/// The nearest single.
#[expect(clippy::cast_possible_truncation, reason = "rounding is what is wanted")]
pub(crate) fn single(number: f64) -> f32 {
    number as f32
}
