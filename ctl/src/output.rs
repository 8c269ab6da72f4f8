//! Everything `ctl` prints goes through here.
//!
//! Answers and tables go to stdout, all else to stderr. Colour only where the stream is a terminal, `NO_COLOR` is unset and
//! `TERM` names a terminal that is not `dumb`; a dumb one gets no escape sequence at all. Text that a model or a file's author
//! wrote never reaches a terminal with control characters in it: an escape sequence could rewrite the screen or the clipboard.

use crate::error::CtlError;
use serde_json::Value;
use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};

#[derive(Debug)]
pub(crate) struct Out {
    json: bool,
    stdout_is_terminal: bool,
    stderr_is_terminal: bool,
    is_dumb: bool,
    colour: bool,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            json,
            stdout_is_terminal: io::stdout().is_terminal(),
            stderr_is_terminal: io::stderr().is_terminal(),
            is_dumb,
            colour: !set("NO_COLOR") && !is_dumb,
        }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    pub(crate) fn stdout_is_terminal(&self) -> bool {
        self.stdout_is_terminal
    }

    /// Whether stderr can show a line that is erased later.
    pub(crate) fn can_show_status(&self) -> bool {
        self.stderr_is_terminal && !self.is_dumb
    }

    /// Whether the terminal knows no escape sequences.
    pub(crate) fn is_dumb(&self) -> bool {
        self.is_dumb
    }

    pub(crate) fn colour_on_stdout(&self) -> bool {
        self.colour && self.stdout_is_terminal
    }

    /// Writes to stdout and flushes, so that each piece of an answer is seen when it comes.
    pub(crate) fn write(&self, text: &str) -> Result<(), CtlError> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(CtlError::Output)
    }

    /// A model's text as stdout gets it: a terminal gets no control characters.
    pub(crate) fn shown<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.stdout_is_terminal { printable(text) } else { Cow::Borrowed(text) }
    }

    pub(crate) fn line(&self, text: &str) -> Result<(), CtlError> {
        self.write(&format!("{text}\n"))
    }

    /// A reply as it came: indented on a terminal, one line elsewhere.
    pub(crate) fn json(&self, value: &Value) -> Result<(), CtlError> {
        if self.stdout_is_terminal {
            self.line(&format!("{value:#}"))
        } else {
            self.json_line(value)
        }
    }

    pub(crate) fn json_line(&self, value: &Value) -> Result<(), CtlError> {
        self.line(&value.to_string())
    }

    /// Columns as wide as their widest cell, two spaces between them, none after the last.
    pub(crate) fn table<const N: usize>(
        &self,
        header: [&str; N],
        rows: &[[String; N]],
    ) -> Result<(), CtlError> {
        let mut lines = vec![header.map(String::from)];
        lines
            .extend(rows.iter().map(|row| row.each_ref().map(|cell| printable(cell).into_owned())));
        let widths: [usize; N] = std::array::from_fn(|column| {
            lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
        });
        let mut text = String::new();
        for line in &lines {
            let padded: Vec<String> =
                line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            text.push_str(padded.join("  ").trim_end());
            text.push('\n');
        }
        self.write(&text)
    }

    /// A name and a value on each line; values of several lines are indented under each other.
    pub(crate) fn facts(&self, facts: &[(&str, String)]) -> Result<(), CtlError> {
        let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for (name, value) in facts {
            let value = printable(value).replace('\n', &format!("\n{:width$}  ", ""));
            text.push_str(format!("{name:width$}  {value}").trim_end());
            text.push('\n');
        }
        self.write(&text)
    }

    /// `LABEL: TEXT` on stderr. Nothing can be done when stderr is gone.
    pub(crate) fn complain(&self, label: &str, text: &str) {
        let text = printable(text);
        let mut stderr = io::stderr().lock();
        let colour = if label == "error" { "31" } else { "36" };
        let _ = if self.colour && self.stderr_is_terminal {
            writeln!(stderr, "\x1b[1;{colour}m{label}:\x1b[0m {text}")
        } else {
            writeln!(stderr, "{label}: {text}")
        };
    }

    /// A line on stderr that is not part of the answer.
    pub(crate) fn note(&self, text: &str) {
        let text = printable(text);
        let mut stderr = io::stderr().lock();
        let _ = if self.colour && self.stderr_is_terminal {
            writeln!(stderr, "\x1b[2m{text}\x1b[0m")
        } else {
            writeln!(stderr, "{text}")
        };
    }
}

/// The text with control characters made visible, but for tabs and the end of a line.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let visible = |c: char| match c {
        c if !harmful(c) => c,
        '\x7f' => '\u{2421}',
        // Unicode has a picture for each of the first 32 control characters.
        c if c < ' ' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'),
        _ => '\u{fffd}',
    };
    Cow::Owned(text.replace("\r\n", "\n").chars().map(visible).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_become_visible() {
        assert_eq!(printable("a\tb\n"), "a\tb\n");
        assert_eq!(printable("a\r\nb"), "a\nb");
        assert_eq!(printable("\x1b]52;c;eA==\x07\u{9b}2J\x7f"), "␛]52;c;eA==␇\u{fffd}2J␡");
    }
}
