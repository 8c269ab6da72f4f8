//! The file's text, and what is wrong with it in words for a person.

use super::FileConfig;
use crate::nearest::nearest;
use anyhow::Context as _;
use std::path::Path;

/// What serde calls a value that it expected, and what a person does.
const WORDS: [(&str, &str); 8] = [
    ("u32", "a whole number from 0"),
    ("u64", "a whole number from 0"),
    ("usize", "a whole number from 0"),
    ("a boolean", "`true` or `false`"),
    ("a string", "a text in quotes"),
    ("path string", "a path in quotes"),
    ("a sequence", "a list in brackets"),
    ("a map", "a table"),
];

pub(super) fn read(path: &Path) -> anyhow::Result<FileConfig> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    parse(&text).with_context(|| unusable(path))
}

pub(super) fn unusable(path: &Path) -> String {
    format!("cannot use the configuration `{}`", path.display())
}

pub(super) fn parse(text: &str) -> anyhow::Result<FileConfig> {
    toml::from_str(text).map_err(|error| {
        let message = plain(error.message());
        let place = error.span().map(|span| text[..span.start].matches('\n').count());
        let place = place.map(|n| format!("line {}, `{}`: ", n + 1, line(text, n)));
        let place = place.unwrap_or_default();
        match meant(&message) {
            Some(name) => anyhow::anyhow!("{place}{message}\nhint: did you mean `{name}`?"),
            None => anyhow::anyhow!("{place}{message}"),
        }
    })
}

fn line(text: &str, n: usize) -> &str {
    text.lines().nth(n).unwrap_or_default().trim()
}

fn plain(message: &str) -> String {
    let Some((found, expected)) = message.rsplit_once(", expected ") else {
        return message.to_owned();
    };
    let known = WORDS.iter().find(|(word, _)| *word == expected).map(|(_, plain)| *plain);
    let is_table = expected.starts_with("struct ");
    let expected = known.unwrap_or(if is_table { "a table" } else { expected });
    format!("{found}, expected {expected}")
}

/// The known key that an unknown one was probably meant to be, out of serde's message.
fn meant(message: &str) -> Option<String> {
    let mut quoted = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    nearest(unknown, quoted).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn what_is_wrong_is_told_with_its_line_in_plain_words() {
        for (text, message) in [
            (
                "backend = \"auto\"\n[engine]\n contxt = 4096\n",
                "line 3, `contxt = 4096`: unknown field `contxt`, ",
            ),
            (
                "[engine]\nthreads = \"2\"\n",
                "line 2, `threads = \"2\"`: invalid type: string \"2\", expected a whole number from 0",
            ),
            (
                "drain_seconds = -1\n",
                "line 1, `drain_seconds = -1`: invalid value: integer `-1`, expected a whole number from 0",
            ),
            ("engine = 2", "line 1, `engine = 2`: invalid type: integer `2`, expected a table"),
            (
                "more_models = \"/m\"",
                "line 1, `more_models = \"/m\"`: invalid type: string \"/m\", expected a list in brackets",
            ),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn the_nearest_key_is_named_if_it_is_near() {
        let error = parse("[engine]\ncontxt = 4096\n").unwrap_err().to_string();
        assert!(error.ends_with("hint: did you mean `context`?"), "{error}");
        let error = parse("bogus = 1\n").unwrap_err().to_string();
        assert!(!error.contains("hint:"), "{error}");
    }
}
