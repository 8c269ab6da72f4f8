//! Model names: `[scheme://][host/][namespace/]model[:tag]`.
//!
//! The grammar is Ollama's. A `ModelName` always has all four parts, each checked, so that its path
//! stays below the manifest folder: no part is empty, begins with a dot or holds a separator. Names
//! that differ only in the case of letters are equal, and hash and sort alike; the spelling is kept.
//! A scheme says how to reach a registry and is no part of the name: `FromStr` drops it.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{StoreError, quote};

pub const DEFAULT_HOST: &str = "registry.ollama.ai";
pub const DEFAULT_NAMESPACE: &str = "library";
pub const DEFAULT_TAG: &str = "latest";

const MAX_HOST_LEN: usize = 350;
const MAX_PART_LEN: usize = 80;

#[derive(Debug, Clone)]
pub struct ModelName {
    host: String,
    namespace: String,
    model: String,
    tag: String,
}

/// How a registry is spoken to, where the user wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Host,
    Namespace,
    Model,
    Tag,
}

impl ModelName {
    pub fn from_parts(
        host: &str,
        namespace: &str,
        model: &str,
        tag: &str,
    ) -> Result<Self, StoreError> {
        let checked = || {
            Part::Host.check(host)?;
            Part::Namespace.check(namespace)?;
            Part::Model.check(model)?;
            Part::Tag.check(tag)
        };
        checked().map_err(|reason| StoreError::BadName {
            name: quote(&format!("{host}/{namespace}/{model}:{tag}")),
            reason,
        })?;
        Ok(Self {
            host: host.to_owned(),
            namespace: namespace.to_owned(),
            model: model.to_owned(),
            tag: tag.to_owned(),
        })
    }

    /// Reads a name together with the scheme that may precede its host.
    pub fn parse_with_scheme(text: &str) -> Result<(Option<Scheme>, Self), StoreError> {
        parse(text).map_err(|reason| StoreError::BadName { name: quote(text), reason })
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn model(&self) -> &str {
        &self.model
    }

    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// All four parts, whatever the defaults.
    pub fn full(&self) -> String {
        format!("{}/{}/{}:{}", self.host, self.namespace, self.model, self.tag)
    }

    /// Where the manifest lies, relative to the manifest folder.
    pub fn path(&self) -> PathBuf {
        [&self.host, &self.namespace, &self.model, &self.tag].iter().collect()
    }

    /// This name, with the leading parts it shares with any of `existing` spelled as there: a folder
    /// that differs only in case is never added beside one that is there.
    pub(crate) fn spelled_like<'n>(&self, existing: impl IntoIterator<Item = &'n Self>) -> Self {
        let mut spelled = self.clone();
        let mut n_shared_best = 0;
        for other in existing {
            let n_shared =
                self.parts().iter().zip(other.parts()).take_while(|(a, b)| same(a, b)).count();
            if n_shared > n_shared_best {
                n_shared_best = n_shared;
                spelled = self.clone();
                let parts = [
                    &mut spelled.host,
                    &mut spelled.namespace,
                    &mut spelled.model,
                    &mut spelled.tag,
                ];
                for (part, there) in parts.into_iter().zip(other.parts()).take(n_shared) {
                    there.clone_into(part);
                }
            }
        }
        spelled
    }

    fn parts(&self) -> [&str; 4] {
        [&self.host, &self.namespace, &self.model, &self.tag]
    }
}

/// The shortest form that reads back as the same name. The tag is always shown.
impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !same(&self.host, DEFAULT_HOST) {
            write!(f, "{}/{}/", self.host, self.namespace)?;
        } else if !same(&self.namespace, DEFAULT_NAMESPACE) {
            write!(f, "{}/", self.namespace)?;
        }
        write!(f, "{}:{}", self.model, self.tag)
    }
}

impl FromStr for ModelName {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        Self::parse_with_scheme(text).map(|(_, name)| name)
    }
}

impl PartialEq for ModelName {
    fn eq(&self, other: &Self) -> bool {
        self.parts().iter().zip(other.parts()).all(|(a, b)| same(a, b))
    }
}

impl Eq for ModelName {}

impl Hash for ModelName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for part in self.parts() {
            for byte in part.bytes() {
                state.write_u8(byte.to_ascii_lowercase());
            }
            state.write_u8(b'/');
        }
    }
}

impl PartialOrd for ModelName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ModelName {
    fn cmp(&self, other: &Self) -> Ordering {
        let lower = |part: &str| part.to_ascii_lowercase();
        self.parts().map(lower).cmp(&other.parts().map(lower))
    }
}

impl Part {
    fn check(self, text: &str) -> Result<(), String> {
        let max = if self == Self::Host { MAX_HOST_LEN } else { MAX_PART_LEN };
        if text.is_empty() {
            return Err(format!("the {self} is empty"));
        }
        if text.len() > max {
            return Err(format!("the {self} has {} bytes and may have {max}", text.len()));
        }
        for (idx, c) in text.char_indices() {
            let allowed = match c {
                '_' => true,
                '-' => idx > 0,
                '.' => idx > 0 && self != Self::Namespace,
                ':' => idx > 0 && self == Self::Host,
                _ => c.is_ascii_alphanumeric(),
            };
            if !allowed && idx == 0 {
                return Err(format!("the {self} begins with `{}`", c.escape_debug()));
            }
            if !allowed {
                return Err(format!("the {self} contains `{}`", c.escape_debug()));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Namespace => "namespace",
            Self::Model => "model",
            Self::Tag => "tag",
        })
    }
}

fn parse(text: &str) -> Result<(Option<Scheme>, ModelName), String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    // A colon left of the last slash belongs to a host's port or to a scheme.
    let slash = text.rfind('/');
    let (rest, tag) = match text.rfind(':') {
        Some(colon) if slash.is_none_or(|slash| colon > slash) => {
            (&text[..colon], &text[colon + 1..])
        }
        _ => (text, DEFAULT_TAG),
    };
    let (rest, model) = cut_last(rest);
    let (rest, namespace) = rest.map_or((None, DEFAULT_NAMESPACE), cut_last);
    let (scheme, host) = rest.map_or(Ok((None, DEFAULT_HOST)), cut_scheme)?;

    Part::Host.check(host)?;
    Part::Namespace.check(namespace)?;
    Part::Model.check(model)?;
    Part::Tag.check(tag)?;
    let name = ModelName {
        host: host.to_owned(),
        namespace: namespace.to_owned(),
        model: model.to_owned(),
        tag: tag.to_owned(),
    };
    Ok((scheme, name))
}

fn cut_last(text: &str) -> (Option<&str>, &str) {
    text.rsplit_once('/').map_or((None, text), |(before, after)| (Some(before), after))
}

fn cut_scheme(text: &str) -> Result<(Option<Scheme>, &str), String> {
    match text.split_once("://") {
        None => Ok((None, text)),
        Some((scheme, host)) if scheme.eq_ignore_ascii_case("https") => {
            Ok((Some(Scheme::Https), host))
        }
        Some((scheme, host)) if scheme.eq_ignore_ascii_case("http") => {
            Ok((Some(Scheme::Http), host))
        }
        Some((scheme, _)) => {
            Err(format!("the scheme `{}` is neither `https` nor `http`", quote(scheme)))
        }
    }
}

fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> ModelName {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_cut_as_ollama_cuts_them() {
        for (text, full, short) in [
            ("smollm", "registry.ollama.ai/library/smollm:latest", "smollm:latest"),
            ("smollm:135m", "registry.ollama.ai/library/smollm:135m", "smollm:135m"),
            ("me/m", "registry.ollama.ai/me/m:latest", "me/m:latest"),
            ("registry.ollama.ai/library/m:t", "registry.ollama.ai/library/m:t", "m:t"),
            ("Registry.Ollama.AI/Library/m", "Registry.Ollama.AI/Library/m:latest", "m:latest"),
            ("hf.co/user/repo:Q4_K_M", "hf.co/user/repo:Q4_K_M", "hf.co/user/repo:Q4_K_M"),
            ("localhost:5000/ns/m", "localhost:5000/ns/m:latest", "localhost:5000/ns/m:latest"),
            ("localhost:5000/ns/m:1.5-b", "localhost:5000/ns/m:1.5-b", "localhost:5000/ns/m:1.5-b"),
            ("https://example.com/ns/m:t", "example.com/ns/m:t", "example.com/ns/m:t"),
            (
                "example.com/library/m",
                "example.com/library/m:latest",
                "example.com/library/m:latest",
            ),
            ("_m:_t", "registry.ollama.ai/library/_m:_t", "_m:_t"),
            ("qwen2.5..x", "registry.ollama.ai/library/qwen2.5..x:latest", "qwen2.5..x:latest"),
        ] {
            let name = name(text);
            assert_eq!(name.full(), full, "{text}");
            assert_eq!(name.to_string(), short, "{text}");
        }
    }

    #[test]
    fn bad_names_say_which_part_is_wrong() {
        for (text, reason) in [
            ("", "it is empty"),
            (":tag", "the model is empty"),
            ("m:", "the tag is empty"),
            ("/m", "the namespace is empty"),
            ("ns/", "the model is empty"),
            ("//m", "the host is empty"),
            ("h//m", "the namespace is empty"),
            ("a/b/c/d", "the host contains `/`"),
            ("..", "the model begins with `.`"),
            ("../m", "the namespace begins with `.`"),
            ("../../m", "the host begins with `.`"),
            ("m:..", "the tag begins with `.`"),
            (".hidden", "the model begins with `.`"),
            ("-m", "the model begins with `-`"),
            ("n.s/m", "the namespace contains `.`"),
            ("a/b:c/d", "the namespace contains `:`"),
            ("m:a:b", "the model contains `:`"),
            ("m n", "the model contains ` `"),
            ("m\\n", "the model contains `\\\\`"),
            ("m\n", "the model contains `\\n`"),
            ("m\0", "the model contains `\\0`"),
            ("modèle", "the model contains `è`"),
            ("https://m", "the namespace is empty"),
            ("https://ns/m", "the host contains `/`"),
            ("ftp://h/ns/m", "the scheme `ftp` is neither `https` nor `http`"),
            (":5000/ns/m", "the host begins with `:`"),
        ] {
            let error = text.parse::<ModelName>().unwrap_err();
            assert_eq!(error.kind(), "bad_name");
            assert!(error.hint().is_some());
            let StoreError::BadName { reason: actual, .. } = error else { unreachable!() };
            assert_eq!(actual, reason, "{text:?}");
        }
    }

    #[test]
    fn lengths_are_limited() {
        let long = |n: usize| "x".repeat(n);
        assert!(long(80).parse::<ModelName>().is_ok());
        assert!(long(81).parse::<ModelName>().is_err());
        assert!(format!("m:{}", long(80)).parse::<ModelName>().is_ok());
        assert!(format!("m:{}", long(81)).parse::<ModelName>().is_err());
        assert!(format!("{}/n/m", long(350)).parse::<ModelName>().is_ok());
        let error = format!("{}/n/m", long(351)).parse::<ModelName>().unwrap_err();
        assert!(error.to_string().ends_with("the host has 351 bytes and may have 350"), "{error}");
        assert!(error.to_string().len() < 200);
    }

    #[test]
    fn the_scheme_is_told_apart_from_the_name() {
        let (scheme, parsed) = ModelName::parse_with_scheme("http://h:80/ns/m").unwrap();
        assert_eq!(scheme, Some(Scheme::Http));
        assert_eq!(parsed, name("h:80/ns/m"));
        assert_eq!(ModelName::parse_with_scheme("m").unwrap().0, None);
    }

    #[test]
    fn case_does_not_matter_to_equality_hash_or_order() {
        let (a, b) = (name("HF.co/User/Repo:Q4"), name("hf.co/user/repo:q4"));
        assert_eq!(a, b);
        assert_eq!(a.cmp(&b), Ordering::Equal);
        assert_eq!(HashSet::from([a, b]).len(), 1);
        assert_ne!(name("m:a"), name("m:b"));
    }

    #[test]
    fn the_spelling_that_is_there_wins() {
        let existing = [name("Me/Foo:A"), name("hf.co/X/Y:Z")];
        let spelled = |text| name(text).spelled_like(&existing).full();
        assert_eq!(spelled("me/foo:a"), "registry.ollama.ai/Me/Foo:A");
        assert_eq!(spelled("ME/FOO:b"), "registry.ollama.ai/Me/Foo:b");
        assert_eq!(spelled("HF.CO/x/other"), "hf.co/X/other:latest");
        assert_eq!(spelled("foo:a"), "registry.ollama.ai/library/foo:a");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            if let Ok(name) = text.parse::<ModelName>() {
                check_round_trip(&name);
            }
        }

        #[test]
        fn text_made_of_name_characters_is_read_or_refused(text in "[aB0_:/.-]{0,24}") {
            if let Ok(name) = text.parse::<ModelName>() {
                check_round_trip(&name);
            }
        }

        #[test]
        fn every_valid_name_reads_back(
            host in "[a-zA-Z0-9_][a-zA-Z0-9_.:-]{0,20}",
            namespace in "([a-zA-Z0-9_][a-zA-Z0-9_-]{0,20}|library)",
            model in "[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,20}",
            tag in "[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,20}",
            default_host in any::<bool>(),
        ) {
            let host = if default_host { DEFAULT_HOST } else { &host };
            check_round_trip(&ModelName::from_parts(host, &namespace, &model, &tag).unwrap());
        }
    }

    fn check_round_trip(name: &ModelName) {
        assert_eq!(&name.to_string().parse::<ModelName>().unwrap(), name);
        assert_eq!(name.full().parse::<ModelName>().unwrap().full(), name.full());
        let path = name.path();
        assert_eq!(path.components().count(), 4);
        assert!(path.components().all(|component| matches!(component, Component::Normal(part)
            if !part.to_string_lossy().starts_with('.'))));
    }
}
