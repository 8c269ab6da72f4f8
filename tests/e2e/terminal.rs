//! `ctl chat` at a terminal.

use hearth_tests::{ARROW_UP, CTRL_C, CTRL_D, ENTER, Terminal, TestDaemon, ctl_path};

const PROMPT: &str = ">>> ";
const CTRL_Z: &str = "\x1a";
const ANSWER: &str = "Words of one line, then\nwords of another.";

fn start() -> TestDaemon {
    let daemon = TestDaemon::start();
    daemon.model("short", &[("script", ANSWER.into())]);
    daemon
}

fn chat_with(daemon: &TestDaemon, model: &str, term: &str, env: &[(&str, &str)]) -> Terminal {
    let mut command = daemon.command(ctl_path());
    command.args(["chat", model, "--temperature", "0"]).env("TERM", term).envs(env.iter().copied());
    Terminal::start(&mut command, 80)
}

fn chat(daemon: &TestDaemon, model: &str) -> Terminal {
    chat_with(daemon, model, "xterm-256color", &[])
}

/// A model that says this and then numbered words, for longer than any test waits.
pub(crate) fn slow_words(daemon: &TestDaemon, name: &str, first: &str) {
    let words: Vec<String> = (0..3000).map(|n| format!("w{n}")).collect();
    let script = format!("{first}{}", words.join(" "));
    let settings = [
        ("script", script.as_str().into()),
        ("context_length", 32_768.into()),
        ("slow_us_per_decode", 50_000.into()),
    ];
    daemon.model(name, &settings);
}

/// Enters a line, and waits for what must come of it and for the prompt below.
#[track_caller]
fn ask(terminal: &Terminal, line: &str, expected: &str) {
    terminal.enter(line);
    terminal.await_text(expected);
    terminal.await_prompt(PROMPT);
}

#[track_caller]
fn leave(mut terminal: Terminal) {
    terminal.press(CTRL_D);
    let status = terminal.await_end();
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn a_line_gets_its_answer_and_ctrl_d_leaves() {
    let daemon = start();
    let terminal = chat(&daemon, "short");
    terminal.await_prompt(PROMPT);
    assert!(terminal.rows()[0].contains("short:latest"), "{:?}", terminal.rows());
    ask(&terminal, "hello", "words of another.\n>>>");
    let rows = terminal.rows();
    assert_eq!(
        rows[1..],
        [">>> hello", "Words of one line, then", "words of another.", ">>>"],
        "{rows:?}"
    );
    leave(terminal);
}

#[test]
fn ctrl_c_stops_an_answer_and_the_next_question_is_answered() {
    let daemon = start();
    slow_words(&daemon, "slow", "");
    let terminal = chat(&daemon, "slow");
    terminal.await_prompt(PROMPT);
    terminal.enter("tell");
    terminal.await_text("w0 w1 w2 ");
    terminal.press(CTRL_C);
    terminal.await_text("[stopped]");
    terminal.await_prompt(PROMPT);
    assert!(!terminal.text().contains("w2999"));
    daemon.await_idle();
    ask(&terminal, "/model short", "short:latest; the conversation goes on");
    ask(&terminal, "and now?", "words of another.");
    // What came before Ctrl-C is part of the conversation.
    ask(&terminal, "/history", "model  Words of one line");
    let text = terminal.text();
    let shown = text.rsplit(">>> /history").next().unwrap();
    assert!(shown.contains("model  w0 w1 w2 ") && shown.contains("you  and now?"), "{text}");
    leave(terminal);
}

#[test]
fn ctrl_c_lets_a_model_that_thinks_answer_and_then_stops_the_answer() {
    let daemon = start();
    slow_words(&daemon, "thinks", "<think>");
    let terminal = chat_with(&daemon, "thinks", "xterm-256color", &[("NO_COLOR", "1")]);
    terminal.await_prompt(PROMPT);
    terminal.enter("tell");
    terminal.await_text("[thinking]\nw0 w1 w2 ");
    terminal.press(CTRL_C);
    terminal.await_text("[answer]\n");
    terminal.press(CTRL_C);
    terminal.await_text("[stopped]");
    terminal.await_prompt(PROMPT);
    leave(terminal);
}

#[test]
fn ctrl_c_at_the_prompt_clears_the_line_and_stays() {
    let daemon = start();
    let terminal = chat(&daemon, "short");
    terminal.await_prompt(PROMPT);
    terminal.press("half a line");
    terminal.await_prompt(">>> half a line");
    terminal.press(CTRL_C);
    terminal.await_prompt(PROMPT);
    ask(&terminal, "hello", "words of another.");
    leave(terminal);
}

#[test]
fn ctrl_z_at_the_prompt_goes_to_the_shell_and_its_fg_comes_back_to_the_line() {
    let daemon = start();
    let mut command = daemon.command("bash");
    let script = r#"set -m; "$0" chat short --temperature 0; echo away; read -r; fg >/dev/null"#;
    command.arg("-c").arg(script).arg(ctl_path()).env("TERM", "xterm-256color");
    let terminal = Terminal::start(&mut command, 80);
    terminal.await_prompt(PROMPT);
    terminal.press("hel");
    terminal.await_prompt(">>> hel");
    terminal.press(CTRL_Z);
    terminal.await_text("away");
    terminal.press(ENTER);
    terminal.await_prompt(">>> hel");
    ask(&terminal, "lo", "words of another.\n>>>");
    leave(terminal);
}

#[test]
fn the_arrow_brings_back_lines_of_this_chat_and_of_the_last_one() {
    let daemon = start();
    let terminal = chat(&daemon, "short");
    terminal.await_prompt(PROMPT);
    for line in ["first", "second"] {
        ask(&terminal, line, &format!("{line}\n{ANSWER}\n>>>"));
    }
    terminal.press(ARROW_UP);
    terminal.await_prompt(">>> second");
    terminal.press(ARROW_UP);
    terminal.await_prompt(">>> first");
    terminal.press(ENTER);
    terminal.await_text(&format!(">>> second\n{ANSWER}\n>>> first\n{ANSWER}\n>>>"));
    terminal.await_prompt(PROMPT);
    leave(terminal);

    let terminal = chat(&daemon, "short");
    terminal.await_prompt(PROMPT);
    terminal.press(ARROW_UP);
    terminal.await_prompt(">>> first");
    terminal.press(CTRL_C);
    terminal.await_prompt(PROMPT);
    leave(terminal);
}

#[test]
fn slash_commands_change_the_chat_and_a_wrong_one_explains_itself() {
    let daemon = start();
    let terminal = chat(&daemon, "short");
    terminal.await_prompt(PROMPT);
    ask(&terminal, "/help", "Ctrl-C stops an answer");
    ask(&terminal, "/hepl", "error: there is no command `/hepl`");
    ask(&terminal, "/set max_tokens 5", ">>> /set max_tokens 5\n>>>");
    ask(&terminal, "hello", "[cut after 5 tokens, the limit set]");
    terminal.press("/he");
    terminal.await_prompt(">>> /he");
    terminal.press("\t");
    terminal.await_prompt(">>> /help");
    terminal.press(CTRL_C);
    terminal.await_prompt(PROMPT);
    let mut terminal = terminal;
    terminal.enter("/bye");
    assert_eq!(terminal.await_end().code(), Some(0));
}

#[test]
fn quoted_text_has_several_lines() {
    let daemon = start();
    let terminal = chat(&daemon, "short");
    terminal.await_prompt(PROMPT);
    terminal.enter("\"\"\"one");
    terminal.await_prompt("... ");
    ask(&terminal, "two\"\"\"", "words of another.");
    ask(&terminal, "/history", "you  one\n     two\n");
    leave(terminal);
}

#[test]
fn colour_is_shown_unless_no_color_is_set() {
    let daemon = start();
    for (env, expected) in [(&[][..], true), (&[("NO_COLOR", "1")][..], false)] {
        let terminal = chat_with(&daemon, "short", "xterm-256color", env);
        terminal.await_prompt(PROMPT);
        ask(&terminal, "hello", "words of another.");
        ask(&terminal, "/nothing", "hint: /help");
        assert_eq!(terminal.is_coloured(), expected, "{env:?}");
        leave(terminal);
    }
}

#[test]
fn a_dumb_terminal_gets_no_escape_sequence() {
    let daemon = start();
    slow_words(&daemon, "slow", "");
    let terminal = chat_with(&daemon, "short", "dumb", &[]);
    terminal.await_prompt(PROMPT);
    ask(&terminal, "hello", &format!(">>> hello\n{ANSWER}\n>>>"));
    ask(&terminal, "/model slow", "slow:latest; the conversation goes on");
    terminal.enter("\"\"\"tell");
    terminal.await_prompt("... ");
    terminal.enter("more\"\"\"");
    terminal.await_text("w0 w1 w2 ");
    terminal.press(CTRL_C);
    terminal.await_text("[stopped]");
    terminal.await_prompt(PROMPT);
    // At the prompt the kernel forgets the line and shows no new prompt.
    terminal.press("half a line");
    terminal.await_prompt(">>> half a line");
    terminal.press(CTRL_C);
    terminal.await_prompt(">>> half a line^C");
    ask(&terminal, "/model", "^C/model\nslow:latest\n>>>");
    let bytes = terminal.bytes();
    assert!(!bytes.contains(&0x1b), "{:?}", String::from_utf8_lossy(&bytes));
    leave(terminal);
}

#[test]
fn an_answers_lines_end_between_words() {
    let daemon = start();
    daemon.model("prose", &[("script", "the quick brown fox jumps over the lazy dog".into())]);
    let mut command = daemon.command(ctl_path());
    command.args(["run", "prose", "hello", "--temperature", "0"]).env("TERM", "xterm");
    let mut terminal = Terminal::start(&mut command, 20);
    assert_eq!(terminal.await_end().code(), Some(0));
    terminal.await_text("dog");
    assert_eq!(terminal.rows(), ["the quick brown fox", "jumps over the lazy", "dog"]);
}
