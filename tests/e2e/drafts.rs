//! A smaller model that guesses ahead for another, in the same worker.

use hearth_protocol::{
    ClientError, ErrorKind, Generate, GenerateReply, LoadParams, Loaded, ModelLoad,
};
use hearth_tests::{TestDaemon, generate, refused};

fn load(daemon: &TestDaemon, model: &str, draft: Option<&str>) -> Result<Loaded, ClientError> {
    let (model, draft) = (model.into(), draft.map(Into::into));
    daemon.client().call::<ModelLoad>(&LoadParams { model, draft, keep_alive: None, request: None })
}

/// Two models that say the same, of which one takes a hundredth of the time, and one that says something else.
fn daemon(config: &str) -> TestDaemon {
    let daemon = TestDaemon::builder().config(config).start();
    let endless = ("eos_one_in", 0_u64.into());
    daemon.model("big", &[endless.clone(), ("slow_us_per_decode", 10_000_u64.into())]);
    daemon.model("small", std::slice::from_ref(&endless));
    daemon.model("alien", &[endless, ("extra_tokens", 500_u64.into())]);
    daemon
}

fn answer(daemon: &TestDaemon) -> GenerateReply {
    let mut params = generate("big", "once upon a time");
    params.options.max_tokens = Some(200);
    daemon.client().call::<Generate>(&params).unwrap()
}

#[test]
fn a_draft_named_at_the_load_guesses_and_changes_nothing() {
    let daemon = daemon("");
    let loaded = load(&daemon, "big", None).unwrap();
    assert_eq!(loaded.model.draft, None);
    let plain = answer(&daemon);
    assert_eq!(daemon.ctl(["stop", "big"]).code, Some(0));

    let ran = daemon.ctl(["load", "big", "--draft", "small"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(daemon.loaded()[0].draft.as_deref(), Some("small:latest"));
    let drafted = answer(&daemon);
    assert_eq!(drafted.text, plain.text);
    assert!(drafted.usage.guessed_tokens > 100, "{:?}", drafted.usage);
}

#[test]
fn a_draft_named_in_the_configuration_comes_with_every_load() {
    let daemon = daemon("[model.big]\ndraft = \"small\"");
    assert!(answer(&daemon).usage.guessed_tokens > 100);
    assert_eq!(daemon.loaded()[0].draft.as_deref(), Some("small:latest"));
    assert_eq!(load(&daemon, "small", None).unwrap().model.draft, None);
}

#[test]
fn a_draft_that_does_not_fit_is_an_error_that_says_why() {
    let daemon = daemon("");
    let error = refused(load(&daemon, "big", Some("alien")), ErrorKind::LoadFailed);
    assert!(error.message.contains("`alien:latest`"), "{error:?}");
    assert!(error.message.contains("vocabulary"), "{error:?}");
    let error = refused(load(&daemon, "big", Some("nobody")), ErrorKind::ModelNotFound);
    assert!(error.message.contains("nobody"), "{error:?}");

    // What is loaded stays as it is.
    load(&daemon, "big", Some("small")).unwrap();
    load(&daemon, "big", Some("small:latest")).unwrap();
    let error = refused(load(&daemon, "big", Some("alien")), ErrorKind::Unsupported);
    assert!(error.message.contains("`small:latest`"), "{error:?}");
    assert!(answer(&daemon).usage.guessed_tokens > 0);
}

#[test]
fn a_draft_is_refused_where_guessing_is_off() {
    let daemon = daemon("[engine]\nspeculate = false\n[model.big]\ndraft = \"small\"");
    refused(load(&daemon, "big", Some("small")), ErrorKind::Unsupported);
    assert_eq!(answer(&daemon).usage.guessed_tokens, 0);
}

#[test]
fn layers_of_the_models_own_guess_where_the_configuration_says_so() {
    let daemon =
        TestDaemon::builder().config("[model.big]\nmtp = true\n[model.small]\nmtp = true").start();
    let own = [("eos_one_in", 0_u64.into()), ("slow_us_per_decode", 10_000_u64.into())];
    daemon.model("plain", &own);
    daemon.model(
        "big",
        &[&own[..], &[("mtp", 3_u64.into()), ("mtp_wrong_one_in", 3_u64.into())]].concat(),
    );
    daemon.model("small", &[]);
    let guessed = answer(&daemon);
    let mut params = generate("plain", "once upon a time");
    params.options.max_tokens = Some(200);
    let plain = daemon.client().call::<Generate>(&params).unwrap();
    assert_eq!(guessed.text, plain.text);
    assert!(guessed.usage.guessed_tokens > plain.usage.guessed_tokens + 50, "{:?}", guessed.usage);
    let error = refused(load(&daemon, "small", None), ErrorKind::LoadFailed);
    assert!(error.message.contains("nothing to guess ahead with"), "{error:?}");
}
