//! Special tokens, where they are added by themselves, the chat template, and what normalizes text.
//!
//! `tokenizer_config.json` names tokens, `tokenizer.json` says what surrounds a text, `config.json`
//! has ids; llama.cpp's converter weighs them as is done here.

use hearth_gguf::Value;
use serde_json::Value as Json;

use super::json::TokenizerJson;
use crate::arch::Source;
use crate::error::ConvertError;
use crate::folder::{Folder, Object};
use crate::metadata::Metadata;

/// What transformers calls them and what GGUF does.
const ROLES: [(&str, &str); 9] = [
    ("bos", "bos"),
    ("eos", "eos"),
    ("unk", "unknown"),
    ("sep", "seperator"),
    ("pad", "padding"),
    ("cls", ""),
    ("mask", "mask"),
    ("eot", "eot"),
    ("eom", "eom"),
];
const N_USUAL_ROLES: usize = 7;
/// Models have one template, or two or three for different uses.
const MAX_TEMPLATES: usize = 64;

struct Special<'s> {
    tokenizer: Option<&'s TokenizerJson>,
    config: Option<Object>,
    n_roles: usize,
    /// Which of `bos`, `eos` and `sep` are added to a text.
    added: Vec<(&'static str, bool)>,
}

/// `n_tokens` bounds the ids.
pub(super) fn write(
    source: &Source,
    tokenizer: Option<&TokenizerJson>,
    n_tokens: Option<usize>,
    metadata: &mut Metadata,
) -> Result<(), ConvertError> {
    let config = source.folder.object("tokenizer_config.json")?;
    let mut special = Special { tokenizer, config, n_roles: N_USUAL_ROLES, added: Vec::new() };
    special.read_post_processor();
    special.read_flags();
    let is_id = |id: &u32| n_tokens.is_none_or(|n_tokens| (*id as usize) < n_tokens);
    let found = |id: Option<u64>| id.and_then(|id| u32::try_from(id).ok()).filter(is_id);

    let roles = &ROLES[..special.n_roles];
    let written = source.config.written();
    let nested = written.get("text_config").and_then(Json::as_object);
    let by_name: Vec<_> = roles.iter().map(|(role, _)| found(special.id_by_name(role))).collect();
    let by_id = roles.iter().map(|(role, _)| {
        let key = format!("{role}_token_id");
        let id = written.get(&key).filter(|id| !id.is_null());
        found(id.or_else(|| nested?.get(&key)).and_then(Json::as_u64))
    });
    // First all that have a name, then those with a number only.
    let numbered = by_name.iter().zip(by_id).map(|(name, id)| id.filter(|_| name.is_none()));
    let numbered: Vec<_> = numbered.collect();
    for ids in [&by_name, &numbered] {
        for ((_, name), id) in roles.iter().zip(ids) {
            if let (Some(id), false) = (*id, name.is_empty()) {
                metadata.set(&format!("tokenizer.ggml.{name}_token_id"), Value::U32(id));
            }
        }
    }
    for (role, is_added) in &special.added {
        metadata.set(&format!("tokenizer.ggml.add_{role}_token"), Value::Bool(*is_added));
    }
    if let Some(config) = &special.config {
        write_templates(&source.folder, config, metadata)?;
    }
    if let Some(normalizer) = tokenizer.and_then(|tokenizer| tokenizer.normalizer.as_ref()) {
        let flags = normalization(normalizer);
        for (name, flag) in ["lowercase", "strip_accents"].into_iter().zip(flags) {
            if let Some(flag) = flag {
                metadata.set(&format!("tokenizer.ggml.normalizer.{name}"), Value::Bool(flag));
            }
        }
    }
    Ok(())
}

impl Special<'_> {
    fn named(&self, role: &str) -> Option<String> {
        let entry = self.config.as_ref()?.get(&format!("{role}_token"))?;
        let text = entry.as_str().or_else(|| entry.get("content")?.as_str())?;
        Some(text.to_owned()).filter(|text| !text.is_empty())
    }

    fn name(&mut self, role: &str, token: Option<&str>) {
        if let (Some(config), Some(token)) = (&mut self.config, token) {
            config.insert(format!("{role}_token"), Json::from(token));
        }
    }

    fn set_added(&mut self, role: &'static str, is_added: bool) {
        match self.added.iter_mut().find(|(known, _)| *known == role) {
            Some((_, flag)) => *flag = is_added,
            None => self.added.push((role, is_added)),
        }
    }

    fn id_by_name(&self, role: &str) -> Option<u64> {
        let name = self.named(role)?;
        let tokens = &self.tokenizer?.added_tokens;
        tokens.iter().find(|token| token.content == name).map(|token| token.id)
    }

    /// What `tokenizer_config.json` says outright counts where `tokenizer.json` is silent.
    fn read_flags(&mut self) {
        for (role, _) in &ROLES[..self.n_roles] {
            let key = format!("add_{role}_token");
            let flag = self.config.as_ref().and_then(|config| config.get(&key)?.as_bool());
            let is_known = self.added.iter().any(|(known, _)| known == role);
            if let (Some(flag), "bos" | "eos" | "sep", false) = (flag, *role, is_known) {
                self.added.push((role, flag));
            }
        }
    }

    fn read_post_processor(&mut self) {
        let Some(tokenizer) = self.tokenizer else { return };
        // BERT's names for the ends of a text.
        for (role, other) in [("bos", "cls"), ("eos", "sep")] {
            if self.named(role).is_none() {
                let other = self.named(other);
                self.name(role, other.as_deref());
            }
        }
        let Some(whole) = &tokenizer.post_processor else { return };
        let parts = whole.get("processors").and_then(Json::as_array);
        for processor in parts.map_or(std::slice::from_ref(whole), Vec::as_slice) {
            match processor.get("type").and_then(Json::as_str) {
                Some("ByteLevel") => {
                    for role in ["bos", "eos"] {
                        if !self.added.iter().any(|(known, _)| *known == role) {
                            self.added.push((role, false));
                        }
                    }
                }
                Some("RobertaProcessing") => {
                    for role in ["bos", "eos", "sep"] {
                        self.set_added(role, true);
                    }
                    for (role, other) in [("cls", "bos"), ("sep", "eos")] {
                        if self.named(role).is_none() {
                            let own = processor.get(role).and_then(|own| own.get(0)?.as_str());
                            let token = own.map(str::to_owned).or_else(|| self.named(other));
                            self.name(role, token.as_deref());
                        }
                    }
                }
                Some("TemplateProcessing") => self.read_template(processor),
                _ => {}
            }
        }
    }

    /// A text alone, then two texts: which special tokens stand around and between.
    fn read_template(&mut self, processor: &Json) {
        let items =
            |key: &str| processor.get(key).and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
        let single = items("single");
        let (mut first, mut last) = (None, None);
        if let [begin, .., end] = single {
            first = special_id(begin);
            last = special_id(end);
        }
        let has_config = self.config.is_some();
        if let Some(first) = first {
            if has_config
                && ![self.named("bos"), self.named("cls")].contains(&Some(first.to_owned()))
            {
                for role in ["bos", "cls"] {
                    if self.named(role).is_none() {
                        self.name(role, Some(first));
                    }
                }
            }
            let known = [self.named("bos"), self.named("cls")].contains(&Some(first.to_owned()));
            self.set_added("bos", known || !has_config);
        }
        if let Some(last) = last {
            let eos = self.named("eos");
            if has_config && eos.as_deref() != Some(last) {
                // The token that ends a text is another than the one that ends an answer.
                if self.n_roles < ROLES.len() {
                    let role = ROLES[self.n_roles].0;
                    self.n_roles += 1;
                    self.name(role, eos.as_deref());
                }
                self.name("eos", Some(last));
            }
            self.set_added("eos", true);
        }
        self.read_pair(items("pair"), first, last);
    }

    fn read_pair(&mut self, pair: &[Json], first: Option<&str>, last: Option<&str>) {
        let mut middle = pair;
        if let (Some(first), [begin, rest @ ..]) = (first, middle)
            && special_id(begin) == Some(first)
        {
            middle = rest;
        }
        if let (Some(last), [rest @ .., end]) = (last, middle)
            && special_id(end) == Some(last)
        {
            middle = rest;
        }
        let [begin, middle @ .., end] = middle else { return };
        if sequence_id(begin) != Some("A") || sequence_id(end) != Some("B") || middle.is_empty() {
            return;
        }
        let (sep, eos) = (self.named("sep"), self.named("eos"));
        let ends_text = |item: &Json| {
            special_id(item)
                .is_some_and(|id| [&sep, &eos].into_iter().flatten().any(|end| end == id))
        };
        let is_added =
            ends_text(&middle[0]) && last.is_none() || middle.len() == 2 && ends_text(&middle[1]);
        self.set_added("sep", is_added);
        if is_added && sep.is_none() {
            self.name("sep", eos.as_deref());
        }
    }
}

fn special_id(item: &Json) -> Option<&str> {
    item.get("SpecialToken")?.get("id")?.as_str().filter(|id| !id.is_empty())
}

fn sequence_id(item: &Json) -> Option<&str> {
    item.get("Sequence")?.get("id")?.as_str()
}

fn write_templates(
    folder: &Folder,
    config: &Object,
    metadata: &mut Metadata,
) -> Result<(), ConvertError> {
    const KEY: &str = "tokenizer.chat_template";
    let template = match config.get("chat_template") {
        Some(template) => Some(template.clone()),
        None => match folder.text("chat_template.jinja")? {
            Some(text) => Some(Json::from(text)),
            None => folder
                .object("chat_template.json")?
                .and_then(|mut object| object.remove("chat_template")),
        },
    };
    match template {
        Some(Json::String(text)) => metadata.text(KEY, &text),
        Some(Json::Array(choices)) => {
            let mut names = Vec::new();
            let mut default = None;
            for choice in choices.iter().take(MAX_TEMPLATES) {
                let text = |key: &str| choice.get(key).and_then(Json::as_str);
                let (Some(name), Some(template)) = (text("name"), text("template")) else {
                    continue;
                };
                let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
                let name: String = name.chars().map(plain).collect();
                if name == "default" {
                    default = Some(template);
                } else if !name.is_empty() {
                    metadata.text(&format!("{KEY}.{name}"), template);
                    names.push(name);
                }
            }
            if !names.is_empty() {
                metadata.set("tokenizer.chat_templates", Value::Texts(names));
            }
            metadata.text(KEY, default.unwrap_or_default());
        }
        _ => {}
    }
    Ok(())
}

/// Whether text is lowercased and loses its accents, where that is said.
fn normalization(normalizer: &Json) -> [Option<bool>; 2] {
    let flag = |key: &str| normalizer.get(key).and_then(Json::as_bool);
    match normalizer.get("type").and_then(Json::as_str) {
        Some("Lowercase") => [Some(true), None],
        Some("StripAccents") => [None, Some(true)],
        Some("BertNormalizer") => [flag("lowercase"), flag("strip_accents")],
        Some("Sequence") => {
            let parts = normalizer.get("normalizers").and_then(Json::as_array);
            parts
                .into_iter()
                .flatten()
                .map(normalization)
                .fold([None, None], |known, found| [found[0].or(known[0]), found[1].or(known[1])])
        }
        _ => [None, None],
    }
}
