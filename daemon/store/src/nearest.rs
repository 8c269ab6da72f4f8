//! The existing name a person most likely meant.

use crate::name::{DEFAULT_TAG, ModelName};

/// The nearest of `existing`, if it is near enough to be a likely slip: a third of the letters may
/// differ. A tag that was left out costs nothing, so `llama3` finds `llama3:8b`.
pub(crate) fn nearest<'n>(
    wanted: &ModelName,
    existing: impl IntoIterator<Item = &'n ModelName>,
) -> Option<&'n ModelName> {
    let max = (wanted.model().len() / 3).max(2);
    existing
        .into_iter()
        .map(|name| (distance_between(wanted, name), name))
        .filter(|&(distance, _)| distance <= max)
        .min()
        .map(|(_, name)| name)
}

fn distance_between(wanted: &ModelName, name: &ModelName) -> usize {
    let tag = if wanted.tag().eq_ignore_ascii_case(DEFAULT_TAG) {
        0
    } else {
        edit_distance(wanted.tag(), name.tag())
    };
    // A name in another namespace or on another host is as far as the part is different, which is
    // far unless that is the slip.
    let parts = [
        (wanted.host(), name.host()),
        (wanted.namespace(), name.namespace()),
        (wanted.model(), name.model()),
    ];
    parts.iter().fold(tag, |sum, (a, b)| sum + edit_distance(a, b))
}

fn edit_distance(a: &str, b: &str) -> usize {
    strsim::levenshtein(&a.to_ascii_lowercase(), &b.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let existing: Vec<ModelName> = ["llama3:8b", "smollm:135m", "me/qwen3:latest"]
            .iter()
            .map(|name| name.parse().unwrap())
            .collect();
        for (wanted, found) in [
            ("lama3:8b", Some("llama3:8b")),
            ("llama3", Some("llama3:8b")),
            ("SMOLM", Some("smollm:135m")),
            ("smollm:153m", Some("smollm:135m")),
            ("me/qwen2", Some("me/qwen3:latest")),
            ("phi", None),
            ("you/else", None),
        ] {
            let wanted = wanted.parse().unwrap();
            let actual = nearest(&wanted, &existing).map(ToString::to_string);
            assert_eq!(actual.as_deref(), found, "{wanted}");
        }
    }
}
