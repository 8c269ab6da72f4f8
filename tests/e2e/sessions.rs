//! Conversations that the daemon keeps: what is in them, who finds them, and what is left of them after the worst.

use crate::terminal::slow_words;
use hearth_protocol::{
    ChatCount, ChatParams, ChatReply, ChatSend, Client, Empty, ErrorKind, Event, Message, Options,
    Role, SessionCreate, SessionCreateParams, SessionDelete, SessionDetails, SessionListMethod,
    SessionParams, SessionRename, SessionRenameParams, SessionShow, SessionSummary,
};
use hearth_tests::{
    CTRL_C, CTRL_D, Terminal, TestDaemon, chat, ctl_path, follow, message, refused,
};
use std::fs;

fn create(client: &mut Client, name: Option<&str>, system: Option<&str>) -> SessionSummary {
    let params = SessionCreateParams {
        name: name.map(String::from),
        model: "tiny".into(),
        system: system.map(String::from),
        options: Options { temperature: Some(0.0), ..Options::default() },
    };
    client.call::<SessionCreate>(&params).unwrap()
}

fn called(session: &str) -> SessionParams {
    SessionParams { session: session.into() }
}

#[track_caller]
fn show(client: &mut Client, session: &str) -> SessionDetails {
    client.call::<SessionShow>(&called(session)).unwrap()
}

/// One more question in a session, to its model.
fn turn(session: &str, text: &str) -> ChatParams {
    ChatParams { session: Some(session.into()), ..chat("", text) }
}

#[track_caller]
fn say(client: &mut Client, session: &str, text: &str) -> ChatReply {
    client.call::<ChatSend>(&turn(session, text)).unwrap()
}

fn texts(said: &[Message]) -> Vec<(Role, &str)> {
    said.iter().map(|message| (message.role, message.content.as_str())).collect()
}

#[test]
fn a_session_goes_on_from_turn_to_turn() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "an answer".into())]);
    let mut client = daemon.client();
    let session = create(&mut client, Some("work"), Some("Be brief."));
    assert_eq!((session.name.as_deref(), session.messages), (Some("work"), 0));
    assert_eq!(session.model, "tiny:latest");
    let first = say(&mut client, "work", "one question");
    let second = say(&mut client, &session.id, "and another");
    assert!(second.usage.cached_tokens >= first.usage.prompt_tokens, "{second:?}");
    let details = show(&mut client, "work");
    let (user, assistant) = (Role::User, Role::Assistant);
    assert_eq!(
        texts(&details.said),
        [
            (user, "one question"),
            (assistant, "an answer"),
            (user, "and another"),
            (assistant, "an answer")
        ]
    );
    assert_eq!((details.summary.messages, details.system.as_deref()), (4, Some("Be brief.")));

    // The model was asked the very same as one who is told all of it by a client.
    let mut whole = chat("tiny", "");
    whole.messages = vec![message(Role::System, "Be brief.")];
    whole.messages.extend_from_slice(&details.said[..3]);
    let counted = client.call::<ChatCount>(&whole).unwrap();
    assert_eq!(counted.prompt_tokens, second.usage.prompt_tokens);
    let counted = client.call::<ChatCount>(&turn("work", "third")).unwrap();
    assert!(counted.prompt_tokens > second.usage.prompt_tokens);
    assert_eq!(show(&mut client, "work").summary.messages, 4, "a count adds nothing");
}

#[test]
fn sessions_are_listed_renamed_and_deleted() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "Yes.".into())]);
    let mut client = daemon.client();
    let (one, two) = (create(&mut client, Some("one"), None), create(&mut client, None, None));
    let ids = |client: &mut Client| -> Vec<String> {
        let list = client.call::<SessionListMethod>(&Empty {}).unwrap();
        list.sessions.into_iter().map(|session| session.id).collect()
    };
    assert_eq!(ids(&mut client), [two.id.as_str(), &one.id]);
    let taken = SessionCreateParams {
        name: Some("one".into()),
        model: "tiny".into(),
        system: None,
        options: Options::default(),
    };
    refused(client.call::<SessionCreate>(&taken), ErrorKind::InvalidParams);
    let rename = SessionRenameParams { session: two.id.clone(), name: "zwei".into() };
    assert_eq!(client.call::<SessionRename>(&rename).unwrap().name.as_deref(), Some("zwei"));
    say(&mut client, "zwei", "hi");
    assert_eq!(client.call::<SessionDelete>(&called("one")).unwrap().id, one.id);
    assert_eq!(ids(&mut client), [two.id]);
    for gone in [one.id.as_str(), "one", "never"] {
        let error = refused(client.call::<SessionShow>(&called(gone)), ErrorKind::SessionNotFound);
        assert!(error.message.contains(gone), "{error:?}");
        refused(client.call::<ChatSend>(&turn(gone, "hi")), ErrorKind::SessionNotFound);
    }
}

#[test]
fn what_a_turn_says_goes_before_what_the_session_says() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("eos_one_in", 0.into())]);
    daemon.model("other", &[("script", "other".into())]);
    let mut client = daemon.client();
    let options = Options { max_tokens: Some(3), seed: Some(1), ..Options::default() };
    let params =
        SessionCreateParams { name: Some("s".into()), model: "tiny".into(), system: None, options };
    client.call::<SessionCreate>(&params).unwrap();
    assert_eq!(say(&mut client, "s", "hi").usage.completion_tokens, 3);
    let mut longer = turn("s", "hi");
    longer.options.max_tokens = Some(5);
    assert_eq!(client.call::<ChatSend>(&longer).unwrap().usage.completion_tokens, 5);
    let elsewhere = ChatParams { model: "other".into(), ..turn("s", "hi") };
    assert_eq!(client.call::<ChatSend>(&elsewhere).unwrap().message.content, "oth");
    assert_eq!(show(&mut client, "s").summary.model, "other");
    let mut several = turn("s", "hi");
    several.options.candidates = Some(2);
    let reply = client.call::<ChatSend>(&several).unwrap();
    let details = show(&mut client, "s");
    assert_eq!((details.summary.messages, reply.others.len()), (8, 1));
    assert_eq!(details.said.last(), Some(&reply.message));
    let nothing = ChatParams { messages: Vec::new(), ..turn("s", "") };
    hearth_tests::error_of(client.call::<ChatSend>(&nothing));
    hearth_tests::error_of(client.call::<ChatSend>(&chat("", "no model")));
}

#[test]
fn a_turn_that_is_cancelled_or_fails_leaves_the_session_as_it_was() {
    let daemon = TestDaemon::start();
    daemon.endless("tiny");
    daemon.model("crashes", &[("crash_after", 2.into()), ("eos_one_in", 0.into())]);
    let mut client = daemon.client();
    create(&mut client, Some("s"), None);
    let mut first = turn("s", "kept");
    first.options.max_tokens = Some(2);
    client.call::<ChatSend>(&first).unwrap();
    let before = show(&mut client, "s");

    let mut talking = daemon.client();
    let mut stream = talking.stream::<ChatSend>(&turn("s", "cancelled")).unwrap();
    while !matches!(stream.next_event().unwrap(), Some(Event::Delta { .. })) {}
    // As long as one turn goes on there is no other, and the session stays.
    refused(client.call::<ChatSend>(&first), ErrorKind::InUse);
    refused(client.call::<SessionDelete>(&called("s")), ErrorKind::InUse);
    assert_eq!(show(&mut client, "s"), before);
    drop(talking);
    daemon.await_idle();
    assert_eq!(show(&mut client, "s"), before);

    let told = follow(&mut client, &ChatParams { model: "crashes".into(), ..turn("s", "lost") });
    assert_eq!(told.error().kind(), Some(ErrorKind::WorkerDied));
    assert_eq!(show(&mut client, "s"), before);
    client.call::<ChatSend>(&first).unwrap();
    assert_eq!(show(&mut client, "s").summary.messages, 4);
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let mut daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "an answer".into())]);
    create(&mut daemon.client(), Some("s"), None);
    for n in 0..6 {
        let question = format!("question {n}");
        if n % 2 == 0 {
            say(&mut daemon.client(), "s", &question);
        } else {
            follow(&mut daemon.client(), &turn("s", &question)).reply();
        }
        daemon.kill();
        daemon.restart();
        let details = show(&mut daemon.client(), "s");
        let questions: Vec<_> =
            details.said.iter().step_by(2).map(|said| said.content.clone()).collect();
        let expected: Vec<_> = (0..=n).map(|n| format!("question {n}")).collect();
        assert_eq!(questions, expected);
        assert!(details.said.iter().skip(1).step_by(2).all(|said| said.content == "an answer"));
    }
    daemon.stop_cleanly();
}

#[test]
fn a_database_that_cannot_be_read_costs_sessions_and_nothing_else() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "Yes.".into())]);
    let mut client = daemon.client();
    let state = daemon.dir().join("state");
    fs::create_dir_all(&state).unwrap();
    fs::write(state.join("state.db"), "this is no database\n".repeat(100)).unwrap();
    let error = refused(client.call::<SessionListMethod>(&Empty {}), ErrorKind::Io);
    assert!(error.message.contains("state.db"), "{error:?}");
    assert!(error.hint().unwrap().contains("move it away"), "{error:?}");
    refused(client.call::<ChatSend>(&turn("s", "hi")), ErrorKind::Io);
    assert_eq!(client.call::<ChatSend>(&chat("tiny", "hi")).unwrap().message.content, "Yes.");
    fs::remove_file(state.join("state.db")).unwrap();
    create(&mut client, Some("s"), None);
    say(&mut client, "s", "hi");
}

#[test]
fn nothing_of_a_session_is_logged() {
    const SECRET: &str = "xyzzy-plugh-4711";
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "the answer is frobnicate".into())]);
    let mut client = daemon.client();
    create(&mut client, Some("s"), Some(SECRET));
    say(&mut client, "s", SECRET);
    show(&mut client, "s");
    // A message that another version wrote is told of without what it says.
    let path = daemon.dir().join("state/state.db");
    let sql = format!("UPDATE message SET body = '{{\"{SECRET}\": 1}}' WHERE id = 1");
    let sqlite = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute(sys.argv[2]); db.commit()";
    let mut python = daemon.command("python3");
    hearth_tests::run(python.args(["-c", sqlite]).arg(&path).arg(sql), "").ok();
    let error = refused(client.call::<SessionShow>(&called("s")), ErrorKind::Io);
    assert!(!error.message.contains(SECRET), "{error:?}");
    let log = daemon.log();
    assert!(!log.contains(SECRET) && !log.contains("frobnicate"), "{log}");
}

#[test]
fn ctl_begins_a_session_and_goes_on_with_it() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "Yes.".into())]);
    daemon.model("other", &[("script", "No.".into())]);
    let ask = |args: &[&str], question: &str| {
        let args = ["chat", "--session", "work", "--temperature", "0"]
            .into_iter()
            .chain(args.iter().copied());
        daemon.ctl_with_stdin(args, question)
    };
    let which = ask(&[], "one?");
    assert_eq!((which.code, which.stdout.as_str()), (Some(2), ""), "{which:?}");
    assert_eq!(ask(&["tiny", "--system", "Be brief."], "one?").ok(), "Yes.\n");
    assert_eq!(ask(&[], "two?").ok(), "Yes.\n");
    assert_eq!(ask(&["other"], "three?").ok(), "No.\n");
    let said = show(&mut daemon.client(), "work");
    let (user, assistant) = (Role::User, Role::Assistant);
    assert_eq!(
        texts(&said.said),
        [
            (user, "one?"),
            (assistant, "Yes."),
            (user, "two?"),
            (assistant, "Yes."),
            (user, "three?"),
            (assistant, "No.")
        ]
    );
    assert_eq!((said.system.as_deref(), said.summary.model.as_str()), (Some("Be brief."), "other"));
    let shown = daemon.ctl(["session", "show", "work"]).ok();
    assert!(shown.ends_with("you  three?\nmodel  No.\n"), "{shown}");
    let refused = ask(&["--system", "Be long."], "four?");
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert_eq!(daemon.ctl(["session", "rm", "work"]).ok(), "`work` is removed, with 6 messages\n");
    let gone = daemon.ctl(["session", "show", "work"]);
    assert!(gone.code == Some(1) && gone.stderr.contains("hint: `ctl session ls`"), "{gone:?}");
}

#[test]
fn a_chat_at_a_terminal_goes_on_where_the_last_one_ended() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "Yes.".into())]);
    slow_words(&daemon, "slow", "");
    let talk = || {
        let mut command = daemon.command(ctl_path());
        command
            .args(["chat", "tiny", "--session", "work", "--temperature", "0"])
            .env("TERM", "xterm-256color");
        let terminal = Terminal::start(&mut command, 100);
        terminal.await_prompt(">>> ");
        terminal
    };
    let ask = |terminal: &Terminal, line: &str, expected: &str| {
        terminal.enter(line);
        terminal.await_text(expected);
        terminal.await_prompt(">>> ");
    };
    let first = talk();
    ask(&first, "/history", "nothing was said yet\n>>>");
    ask(&first, "one?", "Yes.\n>>>");
    drop(first);
    let mut second = talk();
    let rows = second.rows();
    assert!(rows.iter().any(|row| row.contains("session `work`, 2 messages so far")), "{rows:?}");
    ask(&second, "/history", "you  one?\nmodel  Yes.\n>>>");
    ask(&second, "/clear", "error: a session keeps");
    ask(&second, "/model slow", "slow:latest; the conversation goes on");
    second.enter("two?");
    second.await_text("w3 ");
    second.press(CTRL_C);
    second.await_text("[stopped; the session is as it was before");
    second.await_prompt(">>> ");
    ask(&second, "/model tiny", "tiny:latest; the conversation goes on");
    ask(&second, "/retry", "Yes.\n>>>");
    // What the screen showed before looks the same.
    ask(&second, "/history", "you  two?\nmodel  Yes.\n>>>");
    second.press(CTRL_D);
    assert!(second.await_end().success());
    let said = show(&mut daemon.client(), "work").said;
    let questions: Vec<_> = said.iter().step_by(2).map(|said| said.content.as_str()).collect();
    assert_eq!(questions, ["one?", "two?"]);
}
