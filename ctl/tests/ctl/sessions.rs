//! What `ctl session` prints, word for word.

use crate::support::FakeDaemon;
use crate::tables::days_ago;
use serde_json::{Value, json};

fn session(name: Option<&str>, messages: u32) -> Value {
    json!({
        "id": "sess_00112233445566ff", "name": name, "model": "smollm2", "messages": messages,
        "created_s": days_ago(40), "updated_s": days_ago(3)
    })
}

#[test]
fn session_ls() {
    let reply = json!({ "sessions": [session(Some("work"), 12), session(None, 1)] });
    let daemon = FakeDaemon::replying("session.list", reply.clone());
    let table = "\
NAME  ID                     MODEL    MESSAGES  USED
work  sess_00112233445566ff  smollm2  12        3 days ago
      sess_00112233445566ff  smollm2  1         3 days ago
";
    for args in [&["session"][..], &["sessions"], &["session", "ls"]] {
        daemon.ctl(args).is(0, table, "");
    }
    daemon.ctl(&["session", "--json"]).is(0, &format!("{reply}\n"), "");
    let daemon = FakeDaemon::replying("session.list", json!({ "sessions": [] }));
    daemon.ctl(&["session"]).is(0, "", "no sessions\nhint: `ctl chat --session NAME` begins one\n");
}

#[test]
fn session_show() {
    let mut reply = session(Some("work"), 3);
    reply["system"] = "Be brief.".into();
    reply["options"] = json!({});
    reply["conversation"] = json!([
        { "role": "user", "content": "one\ntwo" },
        { "role": "assistant", "content": "", "tool_calls": [{ "id": "1", "name": "f", "arguments": "{}" }] },
        { "role": "tool", "content": "x", "tool_call_id": "1" },
    ]);
    let daemon = FakeDaemon::replying("session.show", reply.clone());
    daemon.ctl(&["session", "show", "work"]).is(
        0,
        "\
name     work
id       sess_00112233445566ff
model    smollm2
created  5 weeks ago
used     3 days ago
system   Be brief.
you  one
     two
model  [calls `f` with {}]
tool  x
",
        "",
    );
    daemon.ctl(&["session", "show", "work", "--json"]).is(0, &format!("{reply}\n"), "");
    assert_eq!(daemon.calls()[0].1, json!({ "session": "work" }));
}

#[test]
fn session_rename_and_rm() {
    let daemon = FakeDaemon::start(|call| call.reply(&session(Some("a"), 1)));
    let words = "`work` is called `a` from now on\n";
    daemon.ctl(&["session", "rename", "work", "a"]).is(0, words, "");
    let words = "`a` is removed, with 1 message\n`b` is removed, with 1 message\n";
    daemon.ctl(&["session", "rm", "a", "b"]).is(0, words, "");
    let calls: Vec<_> = daemon.calls().into_iter().map(|(method, _)| method).collect();
    assert_eq!(calls, ["session.rename", "session.delete", "session.delete"]);
}
