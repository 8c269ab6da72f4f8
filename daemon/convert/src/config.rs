//! The model's `config.json`, with what its architecture takes for fields that are not there.

use serde_json::Value;

use crate::error::ConvertError;
use crate::folder::{Folder, Object};

const FILE: &str = "config.json";

/// What a field is if `config.json` leaves it out. It often does: transformers writes what differs
/// from its own defaults.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Otherwise {
    Count(u64),
    Float(f64),
    /// As another field, also where the field is null.
    Same(&'static str),
    /// One field divided by another, also where the field is null.
    Quotient(&'static str, &'static str),
}

#[derive(Debug)]
pub(crate) struct Config {
    folder: Folder,
    /// With the fields of a nested text model at the top, and with defaults.
    fields: Object,
    /// As it is written.
    written: Object,
}

impl Config {
    pub(crate) fn read(folder: &Folder) -> Result<Self, ConvertError> {
        let written = folder
            .object(FILE)?
            .ok_or_else(|| ConvertError::Missing { path: folder.path(FILE) })?;
        let mut fields = written.clone();
        if let Some(Value::Object(text)) = written.get("text_config") {
            fields.extend(text.clone());
        }
        Ok(Self { folder: folder.clone(), fields, written })
    }

    /// The class that transformers loads the model with.
    pub(crate) fn class(&self) -> Result<&str, ConvertError> {
        // With a nested text model's class, if that says one, already at the top.
        self.fields
            .get("architectures")
            .and_then(|classes| classes.get(0)?.as_str())
            .ok_or_else(|| self.invalid("it names no architecture"))
    }

    pub(crate) fn fill_in(
        &mut self,
        defaults: &[(&'static str, Otherwise)],
    ) -> Result<(), ConvertError> {
        for &(key, otherwise) in defaults {
            let known = self.fields.get(key);
            let value = match otherwise {
                _ if known.is_some_and(|value| !value.is_null()) => continue,
                Otherwise::Count(_) | Otherwise::Float(_) if known.is_some() => continue,
                Otherwise::Count(count) => Value::from(count),
                Otherwise::Float(number) => Value::from(number),
                Otherwise::Same(other) => match self.fields.get(other) {
                    Some(value) => value.clone(),
                    None => continue,
                },
                Otherwise::Quotient(whole, parts) => {
                    match (self.count(&[whole])?, self.count(&[parts])?) {
                        (Some(whole), Some(parts)) if parts > 0 => Value::from(whole / parts),
                        _ => continue,
                    }
                }
            };
            self.fields.insert(key.to_owned(), value);
        }
        Ok(())
    }

    pub(crate) fn written(&self) -> &Object {
        &self.written
    }

    /// The first of the fields that is there, unless it is null.
    pub(crate) fn first(&self, keys: &[&str]) -> Option<&Value> {
        keys.iter().find_map(|&key| self.fields.get(key)).filter(|value| !value.is_null())
    }

    pub(crate) fn object(&self, key: &str) -> Option<&Object> {
        self.fields.get(key)?.as_object()
    }

    pub(crate) fn count(&self, keys: &[&str]) -> Result<Option<u64>, ConvertError> {
        let Some(value) = self.first(keys) else { return Ok(None) };
        value.as_u64().map(Some).ok_or_else(|| {
            self.invalid(format!("{keys:?} is not a whole number that GGUF can hold"))
        })
    }

    pub(crate) fn need(&self, keys: &[&str]) -> Result<u64, ConvertError> {
        self.count(keys)?.ok_or_else(|| self.invalid(format!("it says nothing of {keys:?}")))
    }

    pub(crate) fn float(&self, keys: &[&str]) -> Result<Option<f64>, ConvertError> {
        let Some(value) = self.first(keys) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.invalid(format!("{keys:?} is not a number")))
    }

    pub(crate) fn invalid(&self, reason: impl Into<String>) -> ConvertError {
        ConvertError::invalid(&self.folder.path(FILE), reason)
    }
}
