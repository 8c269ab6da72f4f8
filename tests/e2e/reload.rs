//! Reading the configuration again: what changes at once, what waits for a restart, and what is refused.

use hearth_protocol::{DaemonReload, Empty, ErrorKind, Generate, Reloaded};
use hearth_tests::{TestDaemon, error_of, eventually_is, generate, run};
use rustix::process::Signal;
use std::process::Command;

fn configure(daemon: &TestDaemon, text: &str) {
    std::fs::write(daemon.dir().join("hearth.toml"), text).unwrap();
}

#[track_caller]
fn reload(daemon: &TestDaemon) -> Reloaded {
    daemon.client().call::<DaemonReload>(&Empty {}).unwrap()
}

#[test]
fn what_can_change_does_and_what_cannot_is_named() {
    let daemon = TestDaemon::start();
    daemon.model("quick", &[("script", "a".into())]);
    configure(&daemon, "more_models = []\nkeep_alive = \"0s\"\nmax_connections = 7\n");
    assert_eq!(reload(&daemon).needs_restart, ["max_connections"]);
    daemon.client().call::<Generate>(&generate("quick", "once")).unwrap();
    eventually_is("the end of a model that is kept for no time", || daemon.loaded().is_empty());
    let said = daemon.ctl(["reload"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains("`max_connections` changed"), "{said:?}");
    assert_eq!(said.stdout, "the configuration was read again\n");
}

#[test]
fn a_configuration_that_cannot_be_used_changes_nothing() {
    let daemon = TestDaemon::start();
    for (text, wanted) in [
        ("keep_alife = 3\n", "did you mean `keep_alive`"),
        ("log = \"loud\"\n", "`log` is `loud`"),
        ("more_models = []\n[http]\nkeys = \"/nowhere\"\n", "cannot read the keys"),
    ] {
        configure(&daemon, text);
        let error = error_of(daemon.client().call::<DaemonReload>(&Empty {}));
        assert_eq!(error.kind(), Some(ErrorKind::BadConfiguration), "{error:?}");
        assert!(error.message.contains(wanted), "{error:?}");
        let said = daemon.ctl(["reload"]);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.stderr.contains(wanted), "{said:?}");
    }
    daemon.signal(Signal::HUP);
    eventually_is("the refusal", || {
        daemon.log().matches("The configuration stays as it was").count() == 7
    });
    daemon.stop_cleanly();
}

#[test]
fn sighup_takes_a_new_key_and_lets_go_of_an_old_one() {
    use std::os::unix::fs::PermissionsExt;
    let builder = TestDaemon::builder();
    let keys = builder.dir().join("keys");
    let write = |line: &str| {
        std::fs::write(&keys, line).unwrap();
        std::fs::set_permissions(&keys, PermissionsExt::from_mode(0o600)).unwrap();
    };
    write("12345 the-first-of-the-keys\n");
    let config = format!("[http]\nlisten = [\"127.0.0.1:0\"]\nkeys = {keys:?}\n");
    let daemon = builder.config(&config).start();
    let address = daemon.http();
    // A name that is none of this machine's is let in with a key alone.
    let is_let_in = |key: &str| {
        let mut curl = Command::new("curl");
        let (host, key) = ("Host: elsewhere.example", format!("Authorization: Bearer {key}"));
        curl.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", host, "-H", &key]);
        run(curl.arg(format!("http://{address}/api/version")), "").ok() == "200"
    };
    assert!(is_let_in("the-first-of-the-keys"));
    assert!(!is_let_in("the-second-of-the-keys"));
    write("12345 the-second-of-the-keys\n");
    daemon.signal(Signal::HUP);
    eventually_is("the new key", || is_let_in("the-second-of-the-keys"));
    assert!(!is_let_in("the-first-of-the-keys"));
}

#[test]
fn the_level_of_the_log_changes_and_backends_are_looked_for_again() {
    let daemon = TestDaemon::builder().config("log = \"warn\"").start();
    eventually_is("the backend", || daemon.status().backend.is_some());
    assert!(!daemon.log().contains("Backend chosen"), "{}", daemon.log());
    configure(&daemon, "more_models = []\nlog = \"info\"\n");
    assert!(reload(&daemon).needs_restart.is_empty());
    eventually_is("the second probe in the log", || daemon.log().contains("Backend chosen"));
}
