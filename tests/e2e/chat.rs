//! Conversations: streaming, stopping, seeds, limits, many at once, and what is reused of the last turn.

use hearth_protocol::{
    CancelMethod, CancelParams, ChatSend, Client, Detokenize, DetokenizeParams, Embed, EmbedInput,
    ErrorKind, Event, FinishReason, Generate, KeepAlive, LoadParams, ModelLoad, Role, Tokenize,
    TokenizeParams,
};
use hearth_tests::{
    DEADLINE, TestDaemon, chat, embed, error_of, eventually_is, follow, follow_generate, generate,
    message, refused,
};
use serde_json::json;
use std::thread;

#[track_caller]
fn cancel(client: &mut Client, request: &str) {
    let params = CancelParams { request: request.into() };
    assert!(client.call::<CancelMethod>(&params).unwrap().cancelled);
}

#[test]
fn the_answer_is_what_the_model_computes() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("seed", 7.into())]);
    let settings = hearth_reference::Settings::from_pairs(&[("seed", 7.into())]).unwrap();
    let prompt = hearth_reference::vocab::tokenize("once upon a time".as_bytes(), false);
    let prompt: Vec<_> = [hearth_reference::vocab::BOS].into_iter().chain(prompt).collect();
    let expected = hearth_reference::expected(&settings, &prompt, 4000);
    let text: String =
        expected.iter().filter_map(|token| u8::try_from(*token).ok()).map(char::from).collect();
    let reply = daemon.client().call::<Generate>(&generate("tiny", "once upon a time")).unwrap();
    assert_eq!(reply.text, text);
    assert_eq!(reply.finish, FinishReason::End);
    assert_eq!(reply.usage.prompt_tokens as usize, prompt.len());
    assert_eq!(reply.usage.completion_tokens as usize, expected.len());
}

#[test]
fn a_chat_ends_where_the_model_ends_it() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "Grüße, 世界 🎉!".into())]);
    let told = follow(&mut daemon.client(), &chat("tiny", "hi"));
    assert_eq!(told.text, "Grüße, 世界 🎉!");
    assert_eq!(told.reply().finish, FinishReason::End);
    assert_eq!(told.reply().message.role, Role::Assistant);
}

#[test]
fn max_tokens_ends_an_answer_with_its_reason() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("eos_one_in", 0.into())]);
    let mut params = generate("tiny", "once");
    for n in [1, 7, 100] {
        params.options.max_tokens = Some(n);
        let reply = daemon.client().call::<Generate>(&params).unwrap();
        assert_eq!(reply.finish, FinishReason::MaxTokens);
        assert_eq!(reply.usage.completion_tokens, n);
        assert_eq!(reply.text.len(), n as usize);
    }
}

#[test]
fn a_stop_text_ends_the_answer_before_it_also_across_tokens() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "alpha beta STOPPER gamma".into())]);
    let mut params = chat("tiny", "hi");
    // A token is one byte here, so every stop text goes across tokens.
    params.options.stop = vec!["STOP".into(), "gamma".into()];
    let told = follow(&mut daemon.client(), &params);
    assert_eq!(told.text, "alpha beta ");
    assert_eq!(told.reply().message.content, "alpha beta ");
    assert_eq!(told.reply().stop.as_deref(), Some("STOP"));
    assert_eq!(told.reply().finish, FinishReason::Stop);

    params.options.stop = vec!["STOPPED".into()];
    let told = follow(&mut daemon.client(), &params);
    assert_eq!(told.text, "alpha beta STOPPER gamma", "what only began like a stop text is text");
    assert_eq!(told.reply().finish, FinishReason::End);

    params.options.stop = vec!["gamma!".into()];
    let told = follow(&mut daemon.client(), &params);
    assert_eq!(told.text, "alpha beta STOPPER gamma", "the end was kept back");
}

#[test]
fn a_seed_gives_the_same_text_and_another_one_another() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("eos_one_in", 0.into())]);
    let text = |seed: Option<u64>| {
        let mut params = generate("tiny", "once");
        params.options.temperature = Some(1.5);
        params.options.max_tokens = Some(60);
        params.options.seed = seed;
        daemon.client().call::<Generate>(&params).unwrap().text
    };
    assert_eq!(text(Some(1)), text(Some(1)));
    assert_ne!(text(Some(1)), text(Some(2)));
    assert_ne!(text(None), text(None));
}

#[test]
fn a_prompt_over_the_context_is_an_error_with_both_numbers() {
    let daemon = TestDaemon::start();
    daemon.model("small", &[("context_length", 128.into())]);
    let error = refused(
        daemon.client().call::<Generate>(&generate("small", &"x".repeat(500))),
        ErrorKind::ContextOverflow,
    );
    assert!(error.message.contains("501") && error.message.contains("128"), "{error:?}");
    assert!(error.hint().unwrap().contains("engine.context"), "{error:?}");
    let told = follow_generate(&mut daemon.client(), &generate("small", &"x".repeat(500)));
    assert_eq!(told.error(), error);
}

#[test]
fn an_answer_that_fills_the_context_says_so() {
    let daemon = TestDaemon::start();
    daemon.model("small", &[("context_length", 128.into()), ("eos_one_in", 0.into())]);
    let reply = daemon.client().call::<Generate>(&generate("small", "once")).unwrap();
    assert_eq!(reply.finish, FinishReason::ContextFull);
    assert!(reply.usage.prompt_tokens + reply.usage.completion_tokens <= 128 + 1);
}

#[test]
fn eight_chats_at_once_all_finish_with_what_each_says_alone() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[]);
    let prompts: Vec<String> = (0..8).map(|n| format!("tell me about the number {n}")).collect();
    let alone: Vec<String> = prompts
        .iter()
        .map(|prompt| follow(&mut daemon.client(), &chat("tiny", prompt)).text)
        .collect();
    daemon.ctl(["stop", "tiny"]).ok();
    let together: Vec<String> = thread::scope(|scope| {
        let chats: Vec<_> = prompts
            .iter()
            .map(|prompt| scope.spawn(|| follow(&mut daemon.client(), &chat("tiny", prompt)).text))
            .collect();
        chats.into_iter().map(|chat| chat.join().unwrap()).collect()
    });
    assert_eq!(together, alone);
    assert!(alone.iter().all(|text| !text.is_empty()));
}

#[test]
fn forty_requests_through_a_tight_memory_all_finish_as_if_alone() {
    let daemon =
        TestDaemon::builder().config("[engine]\ncontext = 512\nparallel = 4\nbatch = 64").start();
    daemon.model("tiny", &[("eos_one_in", 40.into())]);
    let text = |n: usize| {
        let mut params = generate("tiny", &format!("{n} ").repeat(n + 1));
        params.options.max_tokens = Some(150);
        follow_generate(&mut daemon.client(), &params).text
    };
    let alone: Vec<String> = (0..40).map(text).collect();
    let together: Vec<String> = thread::scope(|scope| {
        let all: Vec<_> = (0..40).map(|n| scope.spawn(move || text(n))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(together, alone);
}

#[test]
fn the_second_turn_reuses_the_first() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "an answer".into())]);
    let mut params = chat("tiny", "a question of some length");
    let first = follow(&mut daemon.client(), &params).reply();
    assert_eq!(first.usage.cached_tokens, 0);
    params.messages.push(first.message);
    params.messages.push(message(Role::User, "and another"));
    let second = follow(&mut daemon.client(), &params).reply();
    assert!(
        second.usage.cached_tokens >= first.usage.prompt_tokens,
        "{:?} after {:?}",
        second.usage,
        first.usage
    );
    assert_eq!(second.message.content, "an answer");
}

#[test]
fn memory_that_cannot_be_cut_back_is_reused_honestly() {
    let daemon = TestDaemon::start();
    daemon.model("recurrent", &[("roll_back", false.into()), ("script", "an answer".into())]);
    let mut params = chat("recurrent", "a question of some length");
    let first = follow(&mut daemon.client(), &params).reply();
    params.messages.push(first.message);
    params.messages.push(message(Role::User, "and another"));
    assert_eq!(follow(&mut daemon.client(), &params).text, "an answer");
    params.messages[0].content = "something else".into();
    let other = follow(&mut daemon.client(), &params);
    assert_eq!(other.text, "an answer");
}

#[test]
fn cancel_ends_a_running_request_by_its_name() {
    let daemon = TestDaemon::start();
    daemon.endless("endless");
    let mut client = daemon.client();
    let mut params = generate("endless", "once");
    params.request = Some("my request".into());
    let mut stream = client.stream::<Generate>(&params).unwrap();
    while !matches!(stream.next_event().unwrap(), Some(Event::Delta { .. })) {}
    cancel(&mut daemon.client(), "my request");
    let last = std::iter::from_fn(|| stream.next_event().unwrap()).last().unwrap();
    let Event::Error { error } = last else { panic!("{last:?}") };
    assert_eq!(error.kind(), Some(ErrorKind::Cancelled));
    daemon.await_idle();

    let again = CancelParams { request: "my request".into() };
    refused(daemon.client().call::<CancelMethod>(&again), ErrorKind::RequestNotFound);
}

#[test]
fn cancel_ends_a_request_by_the_name_the_daemon_gave_it() {
    let daemon = TestDaemon::start();
    daemon.endless("endless");
    let mut client = daemon.client();
    let mut stream = client.stream::<Generate>(&generate("endless", "once")).unwrap();
    let Some(Event::Accepted { request }) = stream.next_event().unwrap() else { panic!() };
    cancel(&mut daemon.client(), &request);
    let last = std::iter::from_fn(|| stream.next_event().unwrap()).last().unwrap();
    assert!(matches!(last, Event::Error { .. }), "{last:?}");
}

#[test]
fn cancel_ends_a_plain_call_too() {
    let daemon = TestDaemon::start();
    daemon.endless("endless");
    let mut raw = daemon.raw();
    raw.send_call(1, "generate", &json!({ "model": "endless", "prompt": "a", "request": "mine" }));
    eventually_is("the call to run", || daemon.status().active_requests == 1);
    cancel(&mut daemon.client(), "mine");
    assert_eq!(raw.recv()["error"]["data"]["kind"], "cancelled");
}

#[test]
fn cancel_ends_a_request_whose_model_is_still_being_loaded() {
    let daemon = TestDaemon::start();
    daemon.model("late", &[("open_ms", 600_000.into())]);
    let mut client = daemon.client();
    let mut params = generate("late", "once");
    params.request = Some("early".into());
    let mut stream = client.stream::<Generate>(&params).unwrap();
    while !matches!(stream.next_event().unwrap(), Some(Event::Loading { .. })) {}
    cancel(&mut daemon.client(), "early");
    let last = std::iter::from_fn(|| stream.next_event().unwrap()).last().unwrap();
    assert!(matches!(last, Event::Error { .. }), "{last:?}");
    eventually_is("the load to be ended", || daemon.loaded().is_empty());
}

#[test]
fn cancel_ends_a_request_that_waits_in_the_queue() {
    let daemon = TestDaemon::builder().config("[engine]\nparallel = 1").start();
    daemon.endless("endless");
    let mut first = daemon.client();
    let mut running = first.stream::<Generate>(&generate("endless", "first")).unwrap();
    while !matches!(running.next_event().unwrap(), Some(Event::Delta { .. })) {}
    let mut second = daemon.client();
    let mut params = generate("endless", "second");
    params.request = Some("waiting".into());
    let mut waiting = second.stream::<Generate>(&params).unwrap();
    while !matches!(waiting.next_event().unwrap(), Some(Event::Queued { .. })) {}
    cancel(&mut daemon.client(), "waiting");
    let last = std::iter::from_fn(|| waiting.next_event().unwrap()).last().unwrap();
    assert!(matches!(last, Event::Error { .. }), "{last:?}");
    // The one that runs is not touched.
    while !matches!(running.next_event().unwrap(), Some(Event::Delta { .. })) {}
}

#[test]
fn a_cancel_in_the_middle_of_a_long_prompt_frees_the_place() {
    let daemon = TestDaemon::builder().config("[engine]\nbatch = 32\nparallel = 1").start();
    // The long prompt alone takes 900 steps, longer than anything here waits.
    let settings = [("context_length", 32_768.into()), ("slow_us_per_decode", 400_000.into())];
    daemon.model("slow", &settings);
    let mut client = daemon.client();
    let mut params = generate("slow", &"long ".repeat(6000));
    params.request = Some("long".into());
    let mut stream = client.stream::<Generate>(&params).unwrap();
    while !matches!(stream.next_event().unwrap(), Some(Event::Prefill { .. })) {}
    cancel(&mut daemon.client(), "long");
    let mut short = generate("slow", "short");
    short.options.max_tokens = Some(2);
    let reply = daemon.client().call::<Generate>(&short).unwrap();
    assert!(u128::from(reply.timings.queue_us) < DEADLINE.as_micros(), "{:?}", reply.timings);
}

#[test]
fn a_name_is_free_again_when_its_request_has_ended() {
    let daemon = TestDaemon::start();
    daemon.endless("endless");
    let mut params = generate("endless", "once");
    params.request = Some("twice".into());
    let mut client = daemon.client();
    let mut stream = client.stream::<Generate>(&params).unwrap();
    stream.next_event().unwrap();
    let error = refused(daemon.client().call::<Generate>(&params), ErrorKind::InvalidParams);
    assert!(error.message.contains("`twice`"), "{error:?}");
    cancel(&mut daemon.client(), "twice");
    std::iter::from_fn(|| stream.next_event().unwrap()).last();
    params.options.max_tokens = Some(1);
    daemon.client().call::<Generate>(&params).unwrap();
}

#[test]
fn a_model_that_is_not_there_is_an_error_with_the_nearest_name() {
    let daemon = TestDaemon::start();
    daemon.model("smollm2", &[]);
    let error =
        refused(daemon.client().call::<ChatSend>(&chat("smolm2", "hi")), ErrorKind::ModelNotFound);
    assert!(error.hint().unwrap().contains("smollm2"), "{error:?}");
    let error =
        refused(daemon.client().call::<ChatSend>(&chat("zephyr", "hi")), ErrorKind::ModelNotFound);
    assert!(error.hint().unwrap().contains("`ctl ls`"), "{error:?}");
}

#[test]
fn texts_become_tokens_and_texts_again() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[]);
    let mut client = daemon.client();
    for text in ["plain", "Grüße 世界", "👩‍👩‍👧 family", "", "\u{0}\n\t"] {
        let params = TokenizeParams {
            model: "tiny".into(),
            text: text.into(),
            add_special: false,
            parse_special: false,
            pieces: false,
        };
        let tokens = client.call::<Tokenize>(&params).unwrap().tokens;
        assert_eq!(tokens.len(), text.len());
        let params = DetokenizeParams { model: "tiny".into(), tokens, special: false };
        assert_eq!(client.call::<Detokenize>(&params).unwrap().text, text);
    }
}

#[test]
fn embeddings_have_length_one_and_like_texts_are_alike() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[]);
    let texts = ["the cat sat on the mat", "the cat sat on the rat", "XYZ 123 QQQ"];
    let params = embed("tiny", EmbedInput::Many(texts.map(String::from).to_vec()));
    let reply = daemon.client().call::<Embed>(&params).unwrap();
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    let [a, b, c] = reply.embeddings.as_slice() else { panic!() };
    assert!((dot(a, a) - 1.0).abs() < 1e-4);
    assert!(dot(a, b) > dot(a, c));
    assert!(reply.usage.prompt_tokens > 0);
}

#[test]
fn models_that_only_embed_say_so() {
    let daemon = TestDaemon::start();
    daemon.model("embedder", &[("can_generate", false.into())]);
    let error = error_of(daemon.client().call::<ChatSend>(&chat("embedder", "hi")));
    assert_eq!(error.kind(), Some(ErrorKind::Unsupported), "{error:?}");
}

#[test]
fn keep_alive_of_a_request_is_kept() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[]);
    let load = |keep_alive| {
        let params = LoadParams {
            model: "tiny".into(),
            draft: None,
            keep_alive: Some(KeepAlive(keep_alive)),
            request: None,
        };
        daemon.client().call::<ModelLoad>(&params).unwrap().model.expires_s
    };
    assert!(load(5000.0).is_some_and(|left| (4000.0..=5000.0).contains(&left)));
    assert_eq!(load(-1.0), None);
    let mut params = generate("tiny", "a");
    params.keep_alive = Some(KeepAlive(0.0));
    daemon.client().call::<Generate>(&params).unwrap();
    eventually_is("the model to be unloaded", || daemon.loaded().is_empty());
}
