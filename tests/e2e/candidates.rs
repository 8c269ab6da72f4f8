//! Several answers to one request, and answers that depend on nothing else.

use hearth_protocol::{
    CancelMethod, CancelParams, ErrorKind, Event, Generate, GenerateParams, GenerateReply,
};
use hearth_tests::{TestDaemon, chat, eventually, follow, follow_generate, generate, refused};
use std::collections::HashMap;

fn start(config: &str) -> TestDaemon {
    let daemon = TestDaemon::builder().config(config).start();
    daemon.model("tiny", &[("eos_one_in", 0.into())]);
    daemon
}

fn wild(prompt: &str, seed: u64, candidates: Option<u32>) -> GenerateParams {
    let mut params = generate("tiny", prompt);
    params.options.temperature = Some(1.5);
    params.options.max_tokens = Some(40);
    params.options.seed = Some(seed);
    params.options.candidates = candidates;
    params
}

fn brief(prompt: &str) -> GenerateParams {
    let mut params = wild(prompt, 1, None);
    params.options.max_tokens = Some(3);
    params
}

fn call(daemon: &TestDaemon, params: &GenerateParams) -> GenerateReply {
    daemon.client().call::<Generate>(params).unwrap()
}

#[test]
fn each_answer_is_the_one_its_seed_gives_and_the_prompt_is_computed_once() {
    let daemon = start("");
    let prompt = "a prompt of some length ".repeat(10);
    let told = follow_generate(&mut daemon.client(), &wild(&prompt, 5, Some(3)));
    let reply = told.reply();
    let texts: Vec<&String> =
        [&reply.text].into_iter().chain(reply.others.iter().map(|other| &other.text)).collect();
    let mut streamed: HashMap<u32, String> = HashMap::new();
    for event in &told.events {
        if let Event::Delta { candidate, text, .. } = event {
            streamed.entry(*candidate).or_default().push_str(text);
        }
    }
    let usage = reply.usage;
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (241, 120));
    assert_eq!(usage.cached_tokens, 0, "the prompt was not new");
    assert_eq!(texts.len(), 3);
    for (candidate, text) in (0..).zip(texts) {
        assert_eq!(streamed[&candidate], *text);
        let alone = call(&daemon, &wild(&prompt, 5 + u64::from(candidate), None));
        assert_eq!(alone.text, *text);
        assert!(alone.others.is_empty());
    }
}

#[test]
fn a_chat_says_of_each_piece_which_answer_it_belongs_to() {
    let daemon = TestDaemon::start();
    daemon.model("thinks", &[("script", "<think>hm</think>Yes.".into())]);
    let mut params = chat("thinks", "Is it?");
    params.think = Some(true);
    params.options.candidates = Some(2);
    let told = follow(&mut daemon.client(), &params);
    assert_eq!((told.reasoning.as_str(), told.text.as_str()), ("hm", "Yes."));
    let reply = told.reply();
    assert_eq!(reply.others.len(), 1);
    assert_eq!(reply.others[0].message, reply.message);
    assert_eq!(reply.others[0].finish, reply.finish);
    let of_the_other =
        told.events.iter().any(|event| matches!(event, Event::Reasoning { candidate: 1, .. }));
    assert!(of_the_other, "{:?}", told.events);
}

#[test]
fn there_are_no_more_than_a_few() {
    let daemon = start("");
    for n in [0, 17] {
        let params = wild("once", 1, Some(n));
        let error = refused(daemon.client().call::<Generate>(&params), ErrorKind::InvalidParams);
        assert!(error.message.contains("from 1 to 16"), "{}", error.message);
    }
}

#[test]
fn a_cancel_ends_all_of_them() {
    let daemon = TestDaemon::builder().config("[engine]\nparallel = 1").start();
    daemon.endless("tiny");
    let mut client = daemon.client();
    let mut params = wild("once", 1, Some(4));
    params.options.max_tokens = None;
    params.request = Some("four".into());
    let mut stream = client.stream::<Generate>(&params).unwrap();
    while !matches!(stream.next_event().unwrap(), Some(Event::Delta { .. })) {}
    let params = CancelParams { request: "four".into() };
    daemon.client().call::<CancelMethod>(&params).unwrap();
    daemon.await_idle();
    // The only place is free.
    let told = follow_generate(&mut daemon.client(), &brief("twice"));
    assert_eq!(told.reply().usage.completion_tokens, 3);
    let waited = told.events.iter().any(|event| matches!(event, Event::Queued { .. }));
    assert!(!waited, "{:?}", told.events);
}

#[test]
fn one_that_fails_takes_the_others_with_it() {
    let daemon = TestDaemon::builder().config("[engine]\nparallel = 1\nqueue = 2").start();
    daemon.endless("tiny");
    let mut params = wild("once", 1, Some(4));
    params.options.max_tokens = None;
    refused(daemon.client().call::<Generate>(&params), ErrorKind::Overloaded);
    // The answer comes a moment before the others are ended.
    let told = eventually("room for another", || {
        let told = follow_generate(&mut daemon.client(), &brief("twice"));
        let is_refused = |event: &Event<GenerateReply>| match event {
            Event::Error { error } => error.kind() == Some(ErrorKind::Overloaded),
            _ => false,
        };
        (!told.events.iter().any(is_refused)).then_some(told)
    });
    assert_eq!(told.reply().usage.completion_tokens, 3);
    let waited = told.events.iter().any(|event| matches!(event, Event::Queued { .. }));
    assert!(!waited, "{:?}", told.events);
}

#[test]
fn an_answer_by_itself_takes_nothing_from_others_and_is_the_same() {
    let daemon = start("");
    let prompt = "a prompt of some length ".repeat(10);
    let usual = call(&daemon, &wild(&prompt, 5, None));
    assert!(call(&daemon, &wild(&prompt, 5, None)).usage.cached_tokens > 0);
    let mut params = wild(&prompt, 5, Some(2));
    params.options.deterministic = Some(true);
    for _ in 0..2 {
        let reply = call(&daemon, &params);
        assert_eq!(reply.text, usual.text);
        assert_eq!(reply.others.len(), 1);
        assert_eq!((reply.usage.cached_tokens, reply.usage.guessed_tokens), (0, 0));
    }
}
