//! Two users of one daemon. These need root, to become somebody else; whoever runs them without it sees them fail.

use hearth_tests::{Ran, TestDaemon, ctl_path, eventually_is, http, run};
use serde_json::json;

const NOBODY: &str = "65534";

/// A daemon whose socket everybody may open.
fn start() -> TestDaemon {
    let daemon = TestDaemon::builder().config("socket_mode = \"0666\"").start();
    // The folder that the test made is only its own user's.
    run(daemon.command("chmod").arg("0755").arg(daemon.dir()), "").ok();
    daemon
}

/// `ctl`, as another user.
fn ctl_as_nobody(daemon: &TestDaemon, args: &[&str]) -> Ran {
    // The build folder may be closed to others, so the program is copied to where it is not.
    let program = daemon.dir().join("ctl");
    if !program.exists() {
        std::fs::copy(ctl_path(), &program).unwrap();
    }
    let mut command = daemon.command("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(program).args(args);
    run(&mut command, "")
}

#[test]
fn anybody_may_chat_and_only_admins_may_import_and_unload() {
    let daemon = start();
    daemon.model("shared", &[]);
    ctl_as_nobody(&daemon, &["run", "shared", "hello"]).ok();
    for args in [["stop", "shared"], ["import", "/etc/hostname"]] {
        let refused = ctl_as_nobody(&daemon, &args);
        assert_eq!(refused.code, Some(1), "{args:?}: {refused:?}");
        assert!(refused.stderr.contains("uid 65534 may not call"), "{args:?}: {refused:?}");
        assert!(
            refused.stderr.contains("hint: ") && refused.stderr.contains("hearth-admin"),
            "{refused:?}"
        );
    }
    assert_eq!(daemon.loaded().len(), 1);
}

#[test]
fn nobody_cancels_another_users_request() {
    let daemon = start();
    daemon.endless("endless");
    let raw = daemon.raw();
    let params = json!({ "model": "endless", "prompt": "once", "request": "mine" });
    raw.send_call(1, "generate", &params);
    eventually_is("the request to run", || daemon.status().active_requests == 1);
    let refused = ctl_as_nobody(&daemon, &["rpc", "cancel", r#"{"request":"mine"}"#]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("no request of yours named `mine`"), "{refused:?}");
    assert_eq!(daemon.status().active_requests, 1);
}

#[test]
fn what_one_user_computed_is_not_reused_for_another() {
    let daemon = start();
    daemon.model("shared", &[]);
    let params = json!({ "model": "shared", "prompt": "a secret of some length", "options": { "max_tokens": 2 } });
    let params = params.to_string();
    let cached = |ran: Ran| ran.json()["usage"]["cached_tokens"].as_u64().unwrap();
    assert_eq!(cached(daemon.ctl(["rpc", "generate", &params])), 0);
    assert!(cached(daemon.ctl(["rpc", "generate", &params])) > 0);
    assert_eq!(cached(ctl_as_nobody(&daemon, &["rpc", "generate", &params])), 0);
    assert!(cached(ctl_as_nobody(&daemon, &["rpc", "generate", &params])) > 0);
}

#[test]
fn a_session_is_not_there_for_another_user() {
    let daemon = start();
    daemon.model("shared", &[("script", "Yes.".into())]);
    let create = r#"{"model":"shared","name":"diary"}"#;
    let id = daemon.ctl(["rpc", "session.create", create]).json()["id"].clone();
    assert!(ctl_as_nobody(&daemon, &["rpc", "session.list"]).json()["sessions"] == json!([]));
    let body = json!({ "model": "shared", "input": "hi" }).to_string();
    let response = http(&daemon.socket(), "POST", "/v1/responses", &body).body["id"].clone();
    for name in [&id, &json!("diary")] {
        let params = json!({ "session": name }).to_string();
        let turn = json!({ "session": name, "messages": [{ "role": "user", "content": "hi" }] });
        for (method, params) in [
            ("session.show", params.as_str()),
            ("session.delete", &params),
            ("chat.send", &turn.to_string()),
        ] {
            let refused = ctl_as_nobody(&daemon, &["rpc", method, params]);
            assert_eq!(refused.code, Some(1), "{method}: {refused:?}");
            assert!(refused.stderr.contains("there is no session"), "{method}: {refused:?}");
        }
    }
    let mut curl = daemon.command("setpriv");
    curl.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "curl", "-sS"]);
    curl.arg("--unix-socket").arg(daemon.socket());
    curl.arg(format!("http://localhost/v1/responses/{}", response.as_str().unwrap()));
    assert_eq!(run(&mut curl, "").json()["error"]["code"], "session_not_found");
    // A name is each user's own.
    let own = ctl_as_nobody(&daemon, &["rpc", "session.create", create]).json();
    assert_ne!(own["id"], id);
}
