//! Tool calls, reasoning, and answers that have to fit a grammar.

use hearth_protocol::{
    CancelMethod, CancelParams, ChatEndThinking, ChatReply, ChatSend, EndThinkingParams, ErrorKind,
    Event, FinishReason, Format, Generate, Role, Tool, ToolCall, ToolCallDelta, ToolChoice,
};
use hearth_tests::{
    TestDaemon, Told, chat, error_of, follow, follow_generate, generate, message, refused,
};
use serde_json::{Value, json};

const CALL: &str = r#"Let me see. <tool>{"name": "weather", "arguments": {"city": "Oslo"}}</tool>"#;

fn weather() -> Tool {
    Tool {
        name: "weather".into(),
        description: "The weather in a city".into(),
        parameters: json!({ "type": "object", "properties": { "city": { "type": "string" } } }),
    }
}

/// The calls that were told, each once its pieces made it up.
fn calls(told: &Told<ChatReply>) -> Vec<ToolCall> {
    let mut pieces: Vec<ToolCall> = Vec::new();
    let mut calls = Vec::new();
    for event in &told.events {
        match event {
            Event::ToolCallDelta {
                delta: ToolCallDelta { index, id, name, arguments }, ..
            } => {
                let index = *index as usize;
                if index == pieces.len() {
                    let (id, name) = (id.clone(), name.clone());
                    pieces.push(ToolCall { id, name, arguments: String::new() });
                }
                assert_eq!((&pieces[index].id, &pieces[index].name), (id, name));
                pieces[index].arguments += arguments;
            }
            Event::ToolCall { call, .. } => {
                assert_eq!(pieces[calls.len()], *call);
                let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
                assert!(arguments.is_object() && !call.id.is_empty());
                calls.push(call.clone());
            }
            _ => {}
        }
    }
    assert_eq!(told.reply().message.tool_calls, calls);
    calls
}

#[test]
fn a_tool_call_is_told_in_pieces_and_is_no_text() {
    let daemon = TestDaemon::start();
    daemon.model("tools", &[("script", CALL.into())]);
    let mut params = chat("tools", "How is Oslo?");
    params.tools = vec![weather()];
    let told = follow(&mut daemon.client(), &params);
    assert_eq!(told.text, "Let me see. ");
    let calls = calls(&told);
    assert_eq!(calls.len(), 1);
    assert_eq!(
        (calls[0].name.as_str(), calls[0].arguments.as_str()),
        ("weather", r#"{"city": "Oslo"}"#)
    );
    let reply = told.reply();
    assert_eq!(reply.finish, FinishReason::ToolCalls);

    // The tool's answer goes back, and the chat goes on.
    params.messages.push(reply.message);
    let mut answer = message(Role::Tool, "rain");
    answer.tool_call_id = Some(calls[0].id.clone());
    params.messages.push(answer);
    follow(&mut daemon.client(), &params).reply();
}

#[test]
fn without_tools_a_call_is_text() {
    let daemon = TestDaemon::start();
    daemon.model("tools", &[("script", CALL.into())]);
    let told = follow(&mut daemon.client(), &chat("tools", "How is Oslo?"));
    assert_eq!(told.text, CALL);
    assert_eq!(told.reply().finish, FinishReason::End);
}

#[test]
fn a_required_call_is_made_whatever_the_model_wants() {
    let daemon = TestDaemon::start();
    daemon.model("talks", &[("script", "<think>hm</think>I would rather talk.".into())]);
    let mut params = chat("talks", "How is Oslo?");
    params.think = None;
    params.tools = vec![weather(), Tool { name: "time".into(), ..weather() }];
    params.options.max_tokens = Some(2000);
    for choice in [ToolChoice::Required, ToolChoice::Tool("time".into())] {
        params.tool_choice = choice.clone();
        let told = follow(&mut daemon.client(), &params);
        let calls = calls(&told);
        assert_eq!((told.text.as_str(), told.reasoning.as_str(), calls.len()), ("", "hm", 1));
        assert!(choice == ToolChoice::Required || calls[0].name == "time", "{calls:?}");
        assert!(["weather", "time"].contains(&calls[0].name.as_str()), "{calls:?}");
    }
    params.tool_choice = ToolChoice::Tool("oven".into());
    refused(daemon.client().call::<ChatSend>(&params), ErrorKind::InvalidParams);
    params.tools.clear();
    params.tool_choice = ToolChoice::Required;
    refused(daemon.client().call::<ChatSend>(&params), ErrorKind::InvalidParams);
}

#[test]
fn a_call_that_is_begun_is_held_to_its_form() {
    let daemon = TestDaemon::start();
    daemon.model("tools", &[("script", "Let me see. <tool>I would rather talk.".into())]);
    let mut params = chat("tools", "How is Oslo?");
    params.tools = vec![weather()];
    params.options.max_tokens = Some(2000);
    let told = follow(&mut daemon.client(), &params);
    assert_eq!(told.text, "Let me see. ");
    assert_eq!(calls(&told).len(), 1);
}

#[test]
fn several_calls_come_in_order() {
    const BOTH: &str = concat!(
        r#"<tool>{"name": "weather", "arguments": {"city": "Oslo"}}</tool>"#,
        r#"<tool>{"name": "weather", "arguments": {"city": "Bergen"}}</tool>"#
    );
    let daemon = TestDaemon::start();
    daemon.model("tools", &[("script", BOTH.into())]);
    let mut params = chat("tools", "How are Oslo and Bergen?");
    params.tools = vec![weather()];
    params.parallel_tool_calls = Some(true);
    let both = calls(&follow(&mut daemon.client(), &params));
    let cities: Vec<_> = both.iter().map(|call| call.arguments.as_str()).collect();
    assert_eq!(cities, [r#"{"city": "Oslo"}"#, r#"{"city": "Bergen"}"#]);
    assert_ne!(both[0].id, both[1].id);
    params.parallel_tool_calls = Some(false);
    assert_eq!(calls(&follow(&mut daemon.client(), &params)).len(), 1);
}

#[test]
fn no_tool_is_offered_where_none_may_be_called() {
    let daemon = TestDaemon::start();
    daemon.model("tools", &[("script", CALL.into())]);
    let mut params = chat("tools", "How is Oslo?");
    let plain = follow(&mut daemon.client(), &params).reply();
    params.tools = vec![weather()];
    params.tool_choice = ToolChoice::None;
    let told = follow(&mut daemon.client(), &params);
    assert_eq!(told.reply().usage.prompt_tokens, plain.usage.prompt_tokens);
    assert_eq!((told.text.as_str(), calls(&told)), (CALL, Vec::new()));
}

#[test]
fn a_call_cut_off_by_a_limit_is_text_and_not_lost() {
    let daemon = TestDaemon::start();
    daemon.model("tools", &[("script", CALL.into())]);
    let mut params = chat("tools", "How is Oslo?");
    params.tools = vec![weather()];
    for n in [30, 62] {
        params.options.max_tokens = Some(n);
        let told = follow(&mut daemon.client(), &params);
        assert_eq!(told.text, CALL[..n as usize]);
        assert_eq!(told.reply().message.content, CALL[..n as usize]);
        assert_eq!(calls(&told), Vec::new());
        assert_eq!(told.reply().finish, FinishReason::MaxTokens);
    }
}

#[test]
fn tools_that_cannot_be_held_to_are_refused() {
    let daemon = TestDaemon::start();
    daemon.model("tools", &[("script", CALL.into())]);
    let mut params = chat("tools", "How is Oslo?");
    let pattern = "(".repeat(200) + &")".repeat(200);
    let parameters = json!({ "properties": { "a": { "type": "string", "pattern": pattern } } });
    params.tools = vec![Tool { parameters, ..weather() }];
    let error = refused(daemon.client().call::<ChatSend>(&params), ErrorKind::InvalidParams);
    assert!(error.message.contains("`weather`"), "{error:?}");
}

#[test]
fn what_a_model_thinks_is_told_apart_from_what_it_answers() {
    let daemon = TestDaemon::start();
    daemon.model("thinks", &[("script", "<think>hm, well</think>Yes.".into())]);
    let mut params = chat("thinks", "Is it?");
    params.think = Some(true);
    let told = follow(&mut daemon.client(), &params);
    assert_eq!(told.reasoning, "hm, well");
    assert_eq!(told.text, "Yes.");
    assert_eq!(told.reply().message.reasoning.as_deref(), Some("hm, well"));
    assert_eq!(told.reply().message.content, "Yes.");
}

#[test]
fn thoughts_that_had_their_tokens_are_cut_short() {
    let daemon = TestDaemon::start();
    // The script goes on by its own count, behind what closes the thoughts.
    daemon.model("thinks", &[("script", "<think>hm, well, on and on and on</think>Yes.".into())]);
    let mut params = chat("thinks", "Is it?");
    params.think = Some(true);
    params.think_tokens = Some(8);
    let told = follow(&mut daemon.client(), &params);
    assert_eq!(told.reasoning.trim_end(), "hm, well");
    assert_eq!(told.reply().message.content.trim_start(), "on and on</think>Yes.");
}

#[test]
fn a_model_that_thinks_can_be_told_to_answer() {
    let daemon = TestDaemon::start();
    let thoughts = "hm, well, ".repeat(200);
    let script = format!("<think>{thoughts}</think>Yes.");
    let settings = [("script", script.as_str().into()), ("slow_us_per_decode", 2000.into())];
    daemon.model("thinks", &settings);
    let mut params = chat("thinks", "Is it?");
    params.think = Some(true);
    params.request = Some("mine".into());
    let mut client = daemon.client();
    let mut stream = client.stream::<ChatSend>(&params).unwrap();
    while !matches!(stream.next_event().unwrap(), Some(Event::Reasoning { .. })) {}
    let hurry = |request: &str| {
        let params = EndThinkingParams { request: request.into() };
        daemon.client().call::<ChatEndThinking>(&params)
    };
    let held = daemon.hold_worker();
    hurry("mine").unwrap();
    drop(held);
    // The script goes on by its own count, behind what closes the thoughts.
    while !matches!(stream.next_event().unwrap(), Some(Event::Delta { .. })) {}
    // It answers already.
    let held = daemon.hold_worker();
    hurry("mine").unwrap();
    drop(held);
    let last = std::iter::from_fn(|| stream.next_event().unwrap()).last();
    let Some(Event::Done { reply }) = last else { panic!("{last:?}") };
    let reasoning = reply.message.reasoning.unwrap();
    assert!(thoughts.starts_with(reasoning.trim_end()) && reasoning.len() < thoughts.len());
    assert!(reply.message.content.ends_with("</think>Yes."));
    refused(hurry("mine"), ErrorKind::RequestNotFound);
}

#[test]
fn a_grammar_is_kept_to() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[]);
    let mut params = generate("tiny", "How much? ");
    params.format = Some(Format::Gbnf(r#"root ::= "EUR " [0-9] [0-9]? "," [0-9] [0-9]"#.into()));
    let text = daemon.client().call::<Generate>(&params).unwrap().text;
    let (euros, cents) = text.strip_prefix("EUR ").unwrap().split_once(',').unwrap();
    assert!((1..=2).contains(&euros.len()) && cents.len() == 2, "{text}");
    assert!((euros.to_string() + cents).bytes().all(|byte| byte.is_ascii_digit()), "{text}");
}

#[test]
fn a_grammar_that_is_none_is_refused() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[]);
    let mut params = generate("tiny", "x");
    for grammar in ["", "root = [", "root ::= missing", "other ::= \"a\""] {
        params.format = Some(Format::Gbnf(grammar.into()));
        let error = error_of(daemon.client().call::<Generate>(&params));
        assert_eq!(error.kind(), Some(ErrorKind::InvalidParams), "{grammar}: {error:?}");
    }
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 12 },
            "age": { "type": "integer", "minimum": 0, "maximum": 120 },
            "colour": { "enum": ["black", "white"] },
        },
        "required": ["name", "age", "colour"],
        "additionalProperties": false,
    })
}

#[track_caller]
fn fits_the_schema(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(value.as_object().unwrap().keys().collect::<Vec<_>>(), ["name", "age", "colour"]);
    assert!(value["name"].as_str().is_some_and(|name| name.chars().count() <= 12), "{text}");
    assert!(value["age"].as_f64().is_some_and(|age| (0.0..=120.0).contains(&age)), "{text}");
    assert!(value["colour"] == "black" || value["colour"] == "white", "{text}");
}

#[test]
fn a_schema_is_held_to_with_its_keys_in_order() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[]);
    let mut params = generate("tiny", "Describe a cat: ");
    params.format = Some(Format::JsonSchema(schema()));
    for seed in 0..5 {
        params.options.temperature = Some(2.0);
        params.options.seed = Some(seed);
        let told = follow_generate(&mut daemon.client(), &params);
        fits_the_schema(&told.text);
        assert_eq!(told.reply().finish, FinishReason::End);
    }
    // And in a chat, whatever the model would rather say, also if it would think first.
    daemon.model("talks", &[("script", "<think>hm</think>I would rather talk.".into())]);
    let mut params = chat("talks", "Describe a cat.");
    params.format = Some(Format::JsonSchema(schema()));
    params.think = None;
    let told = follow(&mut daemon.client(), &params);
    fits_the_schema(&told.text);
    fits_the_schema(&told.reply().message.content);
}

#[test]
fn json_regex_and_lark_are_held_to() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[]);
    let mut params = generate("tiny", "x");
    params.options.max_tokens = Some(400);
    let mut text = |format| {
        params.format = Some(format);
        daemon.client().call::<Generate>(&params).unwrap().text
    };
    let object = text(Format::Json);
    assert!(object.starts_with('{'), "{object}");
    let number = text(Format::Regex(r"\+?[0-9]{2}-[0-9]{3}".into()));
    assert_eq!(number.trim_start_matches('+').len(), 6, "{number}");
    let list = text(Format::Lark("start: item (\", \" item)~2\nitem: \"one\" | \"two\"".into()));
    assert_eq!(list.split(", ").filter(|item| ["one", "two"].contains(item)).count(), 3, "{list}");
}

#[test]
fn streams_of_many_formats_at_once_are_each_as_if_alone() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[]);
    let text = |n: u64| {
        let mut params = generate("tiny", "x");
        params.options.temperature = Some(1.5);
        params.options.seed = Some(n);
        params.format = match n % 4 {
            0 => Some(Format::JsonSchema(schema())),
            1 => Some(Format::Regex("([a-z]{1,6} ){3}end".into())),
            2 => Some(Format::Gbnf(r#"root ::= ("yes" | "no") "!""#.into())),
            _ => None,
        };
        follow_generate(&mut daemon.client(), &params).text
    };
    let alone: Vec<String> = (0..12).map(text).collect();
    let together: Vec<String> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..12).map(|n| scope.spawn(move || text(n))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(together, alone);
}

#[test]
fn requests_that_wait_for_the_vocabulary_are_answered_or_cancelled_and_hold_up_nobody() {
    let daemon = TestDaemon::start();
    daemon.model("large", &[("extra_tokens", 100_000.into()), ("eos_one_in", 0.into())]);
    let mut params = generate("large", "x");
    params.options.max_tokens = Some(8);
    let plain = daemon.client().call::<Generate>(&params).unwrap().text;

    // Never ends by itself, so that it is cancelled wherever it is.
    let mut endless = params.clone();
    endless.options.max_tokens = None;
    endless.format = Some(Format::Regex("[a-z]+".into()));
    endless.request = Some("endless".into());
    let mut short = params.clone();
    short.format = Some(Format::Regex("[0-9]{4}".into()));
    std::thread::scope(|scope| {
        let cancelled = scope.spawn(|| {
            let mut client = daemon.client();
            let mut stream = client.stream::<Generate>(&endless).unwrap();
            assert!(matches!(stream.next_event().unwrap(), Some(Event::Accepted { .. })));
            let params = CancelParams { request: "endless".into() };
            assert!(daemon.client().call::<CancelMethod>(&params).unwrap().cancelled);
            std::iter::from_fn(|| stream.next_event().unwrap()).last()
        });
        let constrained = scope.spawn(|| daemon.client().call::<Generate>(&short).unwrap().text);
        assert_eq!(daemon.client().call::<Generate>(&params).unwrap().text, plain);
        assert!(constrained.join().unwrap().bytes().all(|byte| byte.is_ascii_digit()));
        let Some(Event::Error { error }) = cancelled.join().unwrap() else { panic!("no error") };
        assert_eq!(error.kind(), Some(ErrorKind::Cancelled), "{error:?}");
    });
    daemon.await_idle();
}

#[test]
fn a_format_that_cannot_be_held_to_is_refused_with_the_reason() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[]);
    let mut params = generate("tiny", "x");
    for (format, why) in [
        (Format::JsonSchema(json!({ "type": "nonsense" })), "nonsense"),
        (Format::JsonSchema(json!({ "not": { "type": "string" } })), "not"),
        (Format::JsonSchema(json!(7)), "schema"),
        (Format::Regex("(".into()), "regex"),
        (Format::Lark("start: missing".into()), "missing"),
    ] {
        params.format = Some(format.clone());
        let error = refused(daemon.client().call::<Generate>(&params), ErrorKind::InvalidParams);
        assert!(error.message.contains(why), "{format:?}: {error:?}");
    }
    let mut params = chat("tiny", "x");
    params.tools = vec![weather()];
    params.tool_choice = ToolChoice::Required;
    params.format = Some(Format::Json);
    refused(daemon.client().call::<ChatSend>(&params), ErrorKind::InvalidParams);
}

#[test]
fn hostile_schemas_neither_stall_nor_end_a_worker() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[]);
    let nested = |depth: usize| {
        let (open, close) = (r#"{"type":"array","items":"#, "}");
        let text = open.repeat(depth) + "{}" + &close.repeat(depth);
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let names: Vec<String> = (0..5000).map(|n| format!("value {n}")).collect();
    let mut params = generate("tiny", "x");
    params.options.max_tokens = Some(20);
    let before = daemon.client().call::<Generate>(&params).unwrap().text;
    let worker = daemon.loaded()[0].pid;
    for schema in [
        nested(60),
        nested(120),
        json!({ "enum": names }),
        json!({ "$ref": "#" }),
        json!({ "type": "object", "properties": { "a": { "$ref": "#" } }, "required": ["a"] }),
        json!({ "type": "string", "pattern": "(".repeat(5000) }),
        json!({ "type": "string", "minLength": 1_000_000_000 }),
        json!({ "type": "string", "pattern": "(((a{99}){99}){99}){99}" }),
    ] {
        params.format = Some(Format::JsonSchema(schema));
        // An answer or a refusal; what counts is that there is one.
        if let Err(error) = daemon.client().call::<Generate>(&params) {
            let error = error_of::<()>(Err(error));
            assert_eq!(error.kind(), Some(ErrorKind::InvalidParams), "{error:?}");
        }
    }
    params.format = None;
    assert_eq!(daemon.client().call::<Generate>(&params).unwrap().text, before);
    assert_eq!(daemon.loaded()[0].pid, worker, "the worker is another");
}
