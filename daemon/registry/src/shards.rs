//! Models that come as several files: `x-00001-of-00003.gguf` and its like.
//!
//! Hugging Face's registry has no manifest for them, so its list of files is asked. The list gives each file's digest.

use crate::manifest;
use hearth_store::Digest;
use reqwest::Url;
use serde::Deserialize;
use std::collections::BTreeMap;

/// More than any model has.
const MAX_PARTS: usize = 1000;
/// What Hugging Face takes where no quantization is asked for.
const DEFAULT_QUANT: &str = "q4_k_m";

/// One file of a model, and where in a repository it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) path: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

#[derive(Deserialize)]
struct Listed {
    path: String,
    #[serde(default)]
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// What a file's name says: what it is without its number, which it is, and of how many.
fn parts_of(path: &str) -> Option<(&str, usize, usize)> {
    let stem = path.strip_suffix(".gguf")?;
    let (rest, n_parts) = stem.rsplit_once("-of-")?;
    let (rest, number) = rest.rsplit_once('-')?;
    let parse = |text: &str| text.parse().ok().filter(|_| text.len() == 5);
    let (number, n_parts): (usize, usize) = (parse(number)?, parse(n_parts)?);
    let is_one = n_parts > 1 && n_parts <= MAX_PARTS && (1..=n_parts).contains(&number);
    is_one.then_some((rest, number, n_parts))
}

/// A file's name without what says that it is a part.
pub(crate) fn whole_name(file_name: &str) -> &str {
    parts_of(file_name).map_or(file_name, |(rest, ..)| rest)
}

/// The URLs of all parts, if this is one of several.
pub(crate) fn urls(url: &Url) -> Vec<Url> {
    let Some((rest, _, n_parts)) = parts_of(url.path()) else { return vec![url.clone()] };
    let parts = (1..=n_parts).map(|number| {
        let mut part = url.clone();
        part.set_path(&format!("{rest}-{number:05}-of-{n_parts:05}.gguf"));
        part
    });
    parts.collect()
}

/// The parts of the model that a tag means, out of a repository's list of files; none if it has no such.
pub(crate) fn find(list: &[u8], tag: &str) -> Result<Vec<Shard>, String> {
    let listed: Vec<Listed> = serde_json::from_slice(list)
        .map_err(|error| format!("a list of files that is none: {error}"))?;
    let mut models: BTreeMap<(&str, usize), BTreeMap<usize, Shard>> = BTreeMap::new();
    for Listed { path, lfs } in &listed {
        if let (Some((rest, number, n_parts)), Some(lfs)) = (parts_of(path), lfs) {
            let digest =
                format!("sha256:{}", lfs.oid).parse().map_err(|error| format!("{error}"))?;
            let shard = Shard { path: path.clone(), digest, size: lfs.size };
            models.entry((rest, n_parts)).or_default().insert(number, shard);
        }
    }
    models.retain(|(_, n_parts), shards| shards.len() == *n_parts);
    let named = |quant: &str| models.keys().find(|(rest, _)| is_of(rest, quant)).copied();
    let found = match tag {
        hearth_store::DEFAULT_TAG => named(DEFAULT_QUANT).or(models.keys().next().copied()),
        quant => named(quant),
    };
    Ok(found
        .and_then(|key| models.remove(&key))
        .into_iter()
        .flat_map(BTreeMap::into_values)
        .collect())
}

/// Whether a file such as `Q4_K_M/Big-Q4_K_M` is of this quantization.
fn is_of(rest: &str, quant: &str) -> bool {
    let (rest, quant) = (rest.to_ascii_lowercase(), quant.to_ascii_lowercase());
    let name = rest.rsplit('/').next().unwrap_or_default();
    let before = name.strip_suffix(&quant);
    before.is_some_and(|before| before.is_empty() || before.ends_with(['-', '.']))
}

/// Where the list of files is, and where a file is.
pub(crate) fn list_path(repository: &str) -> String {
    format!("/api/models/{repository}/tree/main")
}

pub(crate) fn file_path(repository: &str, shard: &Shard) -> String {
    format!("/{repository}/resolve/main/{}", shard.path)
}

/// What is read of such a list.
pub(crate) const MAX_LIST_BYTES: usize = manifest::MAX_BYTES;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn paths(tag: &str) -> Vec<String> {
        let file = |path: &str| {
            let oid = Digest::of(path.as_bytes()).hex();
            json!({ "type": "file", "path": path, "size": 7, "lfs": { "oid": oid, "size": 7 } })
        };
        let list = json!([
            { "type": "directory", "path": "Q8_0" },
            { "type": "file", "path": "x-00001-of-00002.gguf", "size": 1 },
            file("README.md"),
            file("Q8_0/Big-Q8_0-00002-of-00002.gguf"),
            file("Q8_0/Big-Q8_0-00001-of-00002.gguf"),
            file("Big-IQ4_XS-00001-of-00003.gguf"),
            file("Big-Q4_K_M-00001-of-00002.gguf"),
            file("Big-Q4_K_M-00002-of-00002.gguf"),
        ]);
        let shards = find(list.to_string().as_bytes(), tag).unwrap();
        shards.into_iter().map(|shard| shard.path).collect()
    }

    #[test]
    fn a_tag_finds_all_parts_in_order() {
        let big = ["Big-Q4_K_M-00001-of-00002.gguf", "Big-Q4_K_M-00002-of-00002.gguf"];
        assert_eq!(paths("q4_k_m"), big);
        assert_eq!(paths("latest"), big);
        assert_eq!(paths("Q8_0")[0], "Q8_0/Big-Q8_0-00001-of-00002.gguf");
        // Not all of its parts are there; no such; only the end of a word.
        for tag in ["IQ4_XS", "Q2_K", "K_M", "8_0"] {
            assert!(paths(tag).is_empty(), "{tag}");
        }
        assert!(find(b"{}", "latest").is_err());
    }

    #[test]
    fn a_url_of_one_part_is_of_all() {
        let url = |text| Url::parse(text).unwrap();
        let parts = urls(&url("https://h/a/x-00002-of-00003.gguf?t=1"));
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[0], url("https://h/a/x-00001-of-00003.gguf?t=1"));
        for one in
            ["https://h/x.gguf", "https://h/x-1-of-2.gguf", "https://h/x-00003-of-00002.gguf"]
        {
            assert_eq!(urls(&url(one)), [url(one)]);
        }
        assert_eq!(whole_name("x-q4-00001-of-00002.gguf"), "x-q4");
    }
}
