//! Reading a line, with editing, history and Tab, through reedline; on a dumb terminal a plain line, as the kernel edits it.
//!
//! The history file holds what the person wrote, so only they may read it. Where it cannot be used the chat goes on
//! without one.

use super::slash;
use crate::error::CtlError;
use crate::output::Out;
use reedline::{
    Color, ColumnarMenu, Completer, CompletionResult, Emacs, FileBackedHistory, KeyCode,
    KeyModifiers, MenuBuilder as _, Prompt, PromptEditMode, PromptHistorySearch, Reedline,
    ReedlineEvent, ReedlineMenu, Signal, Span, Suggestion, ValidationResult, Validator,
    default_emacs_keybindings,
};
use rustix::process::Signal as Stop;
use std::borrow::Cow;
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

const HISTORY_LINES: usize = 2000;
const QUOTES: &str = "\"\"\"";
const MENU: &str = "commands";
const PROMPT: &str = ">>> ";
const PROMPT_WITHIN_QUOTES: &str = "... ";

pub(super) enum Editor {
    Full(Box<Reedline>),
    Plain,
}

#[derive(Debug)]
pub(super) enum Input {
    Text(String),
    /// An empty line, or one that Ctrl-C cleared.
    Nothing,
    Leave,
}

impl Editor {
    pub(super) fn new(out: &Out) -> Self {
        if out.is_dumb() {
            return Self::Plain;
        }
        let mut keys = default_emacs_keybindings();
        let tab = ReedlineEvent::UntilFound(vec![
            ReedlineEvent::Menu(MENU.into()),
            ReedlineEvent::MenuNext,
        ]);
        keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, tab);
        // In a raw terminal it is a key like others.
        let suspend = ReedlineEvent::ExecuteHostCommand(String::new());
        keys.add_binding(KeyModifiers::CONTROL, KeyCode::Char('z'), suspend);
        let mut reedline = Reedline::create()
            .with_ansi_colors(out.colour_on_stdout())
            .use_bracketed_paste(true)
            .with_validator(Box::new(Quotes))
            .with_completer(Box::new(SlashNames))
            .with_quick_completions(true)
            .with_partial_completions(true)
            .with_menu(ReedlineMenu::EngineCompleter(Box::new(
                ColumnarMenu::default().with_name(MENU).with_marker(PROMPT),
            )))
            .with_edit_mode(Box::new(Emacs::new(keys)));
        match history() {
            Ok(Some(history)) => reedline = reedline.with_history(Box::new(history)),
            Ok(None) => {}
            Err(error) => out.complain("warning", &format!("no history in this chat: {error}")),
        }
        Self::Full(Box::new(reedline))
    }

    pub(super) fn read(&mut self, out: &Out) -> Result<Input, CtlError> {
        let input = match self {
            Self::Full(reedline) => edited(reedline),
            Self::Plain => plain(out)?,
        };
        let input = input.map_err(|error| {
            CtlError::failed(
                format!("cannot read from the terminal: {error}"),
                "`ctl run MODEL PROMPT` needs no terminal",
            )
        })?;
        Ok(match input {
            Input::Text(text) if text.trim().is_empty() => Input::Nothing,
            input => input,
        })
    }
}

fn edited(reedline: &mut Reedline) -> io::Result<Input> {
    Ok(match reedline.read_line(&Arrows)? {
        Signal::Success(text) => {
            // Now, so that a chat that is killed loses no history. A full disk must not end the chat.
            let _ = reedline.sync_history();
            Input::Text(text)
        }
        Signal::CtrlD => Input::Leave,
        // Ctrl-Z: to all of this job, as from the kernel where a terminal is not raw. Then the line goes on where it was.
        Signal::HostCommand(_) => {
            rustix::process::kill_current_process_group(Stop::TSTP)?;
            edited(reedline)?
        }
        _ => Input::Nothing,
    })
}

/// The outer error is that of writing the prompt.
fn plain(out: &Out) -> Result<io::Result<Input>, CtlError> {
    let mut text = String::new();
    out.write(PROMPT)?;
    loop {
        match io::stdin().read_line(&mut text) {
            Ok(0) => {
                out.write("\n")?;
                return Ok(Ok(Input::Leave));
            }
            Ok(_) if is_open(&text) => out.write(PROMPT_WITHIN_QUOTES)?,
            Ok(_) => return Ok(Ok(Input::Text(text.trim_end_matches('\n').to_owned()))),
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// A text without the triple quotes around it.
pub(super) fn unquote(text: &str) -> &str {
    let inner = text.trim().strip_prefix(QUOTES).and_then(|rest| rest.strip_suffix(QUOTES));
    inner.map_or(text, |inner| inner.trim_matches('\n'))
}

/// `$XDG_STATE_HOME/hearth/chat_history`; nothing if the person does not want one or has no home.
fn history_path() -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if var("HEARTH_NO_HISTORY").is_some_and(|value| value != "0") {
        return None;
    }
    let state = var("XDG_STATE_HOME")
        .map(PathBuf::from)
        // The specification says to ignore a relative path.
        .filter(|path| path.is_absolute())
        .or_else(|| Some(PathBuf::from(var("HOME")?).join(".local/state")))?;
    Some(state.join("hearth/chat_history"))
}

fn history() -> io::Result<Option<FileBackedHistory>> {
    let Some(path) = history_path() else { return Ok(None) };
    let about =
        |error: &dyn std::fmt::Display| io::Error::other(format!("`{}`: {error}", path.display()));
    make_private(&path).map_err(|error| about(&error))?;
    FileBackedHistory::with_file(HISTORY_LINES, path.clone())
        .map(Some)
        .map_err(|error| about(&error))
}

/// Makes the file, or takes it back from the group and others.
fn make_private(path: &Path) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// Enter goes on to the next line while triple quotes are open.
struct Quotes;

impl Validator for Quotes {
    fn validate(&self, text: &str) -> ValidationResult {
        if is_open(text) { ValidationResult::Incomplete } else { ValidationResult::Complete }
    }
}

/// Only quotes at the start of a text, or of a slash command's text, open anything: others may be part of a program.
fn is_open(text: &str) -> bool {
    let text = text.trim();
    let start = if text.starts_with('/') { text.find(QUOTES) } else { Some(0) };
    let quoted = start.and_then(|start| text[start..].strip_prefix(QUOTES));
    quoted.is_some_and(|rest| !rest.ends_with(QUOTES))
}

struct SlashNames;

impl Completer for SlashNames {
    fn complete(&mut self, line: &str, cursor: usize) -> CompletionResult {
        let written = line.get(..cursor).unwrap_or(line);
        let suggestions: Vec<Suggestion> = slash::NAMES
            .iter()
            .filter(|name| written.starts_with('/') && name.starts_with(written))
            .map(|name| Suggestion {
                value: (*name).into(),
                span: Span::new(0, cursor),
                append_whitespace: matches!(*name, "/model" | "/set system" | "/system"),
                ..Suggestion::default()
            })
            .collect();
        CompletionResult::fresh(suggestions)
    }
}

struct Arrows;

impl Prompt for Arrows {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        "".into()
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        "".into()
    }

    fn render_prompt_indicator(&self, _: PromptEditMode) -> Cow<'_, str> {
        PROMPT.into()
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        PROMPT_WITHIN_QUOTES.into()
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        format!("(history: {}) ", search.term).into()
    }

    fn get_indicator_color(&self) -> Color {
        Color::LightGreen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triple_quotes() {
        for open in
            ["\"\"\"", "\"\"\"a\nb", "/system \"\"\"a", "/set system \"\"\"a\n", " \"\"\"a \"\" "]
        {
            assert!(is_open(open), "{open:?}");
        }
        for complete in
            ["", "a", "a \"\"\"", "/help", "\"\"\"a\nb\"\"\"", "\"\"\"a\"\"\" ", "\"\"\"\"\"\""]
        {
            assert!(!is_open(complete), "{complete:?}");
        }
        assert_eq!(unquote("\"\"\"\na\n b\n\"\"\""), "a\n b");
        assert_eq!(unquote("say \"\"\"a\"\"\""), "say \"\"\"a\"\"\"");
        assert_eq!(unquote("\"\"\""), "\"\"\"");
    }

    #[test]
    fn the_history_file_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/hearth/chat_history");
        make_private(&path).unwrap();
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        make_private(&path).unwrap();
        assert_eq!(mode(), 0o600);
    }
}
