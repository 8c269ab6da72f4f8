//! The model's `config.json`, with what its architecture takes for fields that are not there.

use std::fs::File;
use std::path::Path;

use hearth_gguf::Gguf;
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

    /// What the shapes of tensors depend on, from the header of a converted model, and its architecture's name.
    pub(crate) fn of_gguf(folder: &Folder, path: &Path) -> Result<(String, Self), ConvertError> {
        let mut file = File::open(path).map_err(|error| ConvertError::read(path, error))?;
        let invalid = |reason: String| ConvertError::invalid(path, reason);
        let gguf = Gguf::read(&mut file).map_err(|error| invalid(error.to_string()))?;
        let name = gguf.text("general.architecture").unwrap_or_default().to_owned();
        let mut fields = Object::new();
        for (field, key) in [
            ("num_hidden_layers", "block_count"),
            ("num_attention_heads", "attention.head_count"),
            ("num_key_value_heads", "attention.head_count_kv"),
        ] {
            let key = format!("{name}.{key}");
            // Without a number of its own for keys and values, each head has both.
            let key = match key.strip_suffix("_kv") {
                Some(all) if gguf.get(&key).is_none() => all.to_owned(),
                _ => key,
            };
            let count = gguf.number(&key);
            let count = count.ok_or_else(|| invalid(format!("it says nothing of `{key}`")))?;
            fields.insert(field.to_owned(), count.into());
        }
        Ok((name, Self { folder: folder.clone(), written: fields.clone(), fields }))
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
