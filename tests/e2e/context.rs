//! What does not fit the context: left out where the caller asked for that, with numbers, and an error otherwise.

use hearth_protocol::{ErrorKind, FinishReason, Generate, GenerateParams, Message, Role};
use hearth_tests::{TestDaemon, chat, follow, generate, message, refused};

const CONTEXT: u32 = 128;

fn start() -> TestDaemon {
    let daemon = TestDaemon::start();
    daemon
        .model("small", &[("context_length", u64::from(CONTEXT).into()), ("eos_one_in", 0.into())]);
    daemon
}

/// A system message of 7 tokens, six turns of 24, and a question of 13: with the answer's own control token 165.
fn conversation() -> Vec<Message> {
    let turn = |n| {
        let question = message(Role::User, &format!("question {n:02}"));
        [question, message(Role::Assistant, &format!("answer {n:02}"))]
    };
    let question = message(Role::User, "question 06");
    let system = message(Role::System, "brief");
    [system].into_iter().chain((0..6).flat_map(turn)).chain([question]).collect()
}

#[test]
fn a_chat_loses_its_oldest_turns_where_that_was_asked_for() {
    let daemon = start();
    let mut client = daemon.client();
    let mut params = chat("small", "");
    params.messages = conversation();
    params.options.max_tokens = Some(8);
    let told = follow(&mut client, &params);
    assert_eq!(told.error().kind(), Some(ErrorKind::ContextOverflow));

    params.options.truncate = Some(true);
    let reply = follow(&mut client, &params).reply();
    let usage = reply.usage;
    // 45 tokens too many are two blocks of 32, and three turns have them.
    assert_eq!((usage.dropped_messages, usage.dropped_tokens), (6, 72));
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (93, 8));

    // The answer is that to what was left.
    let mut left = params.clone();
    left.messages.drain(1..7);
    let same = follow(&mut client, &left).reply();
    assert_eq!(same.message, reply.message);
    assert_eq!((same.usage.dropped_messages, same.usage.prompt_tokens), (0, 93));

    // The next turn leaves out the same ones, so that its beginning is found.
    params.messages.extend([reply.message, message(Role::User, "ok")]);
    let next = follow(&mut client, &params).reply().usage;
    assert_eq!(next.dropped_tokens, 72);
    assert!(next.cached_tokens >= 93, "{next:?}");
}

#[test]
fn a_last_question_that_does_not_fit_is_an_error_all_the_same() {
    let daemon = start();
    let mut params = chat("small", &"x".repeat(500));
    params.messages.splice(0..0, conversation());
    params.options.truncate = Some(true);
    let told = follow(&mut daemon.client(), &params);
    let error = told.error();
    assert_eq!(error.kind(), Some(ErrorKind::ContextOverflow));
    assert!(error.message.contains("510 tokens"), "{}", error.message);
}

fn call(daemon: &TestDaemon, params: &GenerateParams) -> hearth_protocol::GenerateReply {
    daemon.client().call::<Generate>(params).unwrap()
}

#[test]
fn a_text_loses_tokens_behind_its_start() {
    let daemon = start();
    let prompt: String = ('a'..='y').cycle().take(200).collect();
    let mut params = generate("small", &prompt);
    params.options.max_tokens = Some(8);
    params.options.truncate = Some(true);
    let reply = call(&daemon, &params);
    // 201 tokens and room for 8 are 81 too many: three blocks of 32.
    assert_eq!((reply.usage.dropped_tokens, reply.usage.prompt_tokens), (96, 105));
    let left = format!("{}{}", &prompt[..3], &prompt[3 + 96..]);
    params.prompt = left;
    params.options.truncate = None;
    assert_eq!(call(&daemon, &params).text, reply.text);
}

#[test]
fn an_answer_goes_on_where_its_context_is_full() {
    let daemon = start();
    let mut params = generate("small", "once upon a time");
    params.options.max_tokens = Some(300);
    let full = call(&daemon, &params);
    assert_eq!((full.finish, full.usage.completion_tokens), (FinishReason::ContextFull, 128 - 17));
    assert_eq!(full.usage.shifted_tokens, 0);

    params.options.shift = Some(true);
    let shifted = call(&daemon, &params);
    assert_eq!((shifted.finish, shifted.usage.completion_tokens), (FinishReason::MaxTokens, 300));
    assert!(shifted.text.starts_with(&full.text));
    // Each time half of what stands behind the first four: 62 of 124.
    assert_eq!(shifted.usage.shifted_tokens, 62 * ((300 - 111) / 62 + 1));

    // A model that never ends by itself is ended.
    params.options.max_tokens = None;
    assert_eq!(call(&daemon, &params).usage.completion_tokens, 10 * CONTEXT);

    // The system message stays.
    let mut params = chat("small", "hello");
    params.messages.insert(0, message(Role::System, &"brief ".repeat(9)));
    params.options.shift = Some(true);
    params.options.max_tokens = Some(100);
    let usage = follow(&mut daemon.client(), &params).reply().usage;
    // 56 tokens, and the next message's control token.
    assert_eq!(usage.shifted_tokens, 2 * ((128 - 57) / 2));
}

#[test]
fn a_memory_that_cannot_be_shifted_is_full_once() {
    let daemon = start();
    let length = u64::from(CONTEXT).into();
    let rigid = [("context_length", length), ("eos_one_in", 0.into()), ("can_shift", false.into())];
    daemon.model("rigid", &rigid);
    let mut params = generate("rigid", "once upon a time");
    params.options.shift = Some(true);
    let reply = call(&daemon, &params);
    assert_eq!((reply.finish, reply.usage.shifted_tokens), (FinishReason::ContextFull, 0));
}

#[test]
fn what_cannot_be_kept_is_refused_at_once() {
    let daemon = start();
    let mut params = generate("small", "once");
    params.options.keep = Some(64);
    let error = refused(daemon.client().call::<Generate>(&params), ErrorKind::InvalidParams);
    assert!(error.message.contains("from 0 to 63"), "{}", error.message);
}
