//! Tool calls, reasoning, and answers that have to fit a grammar.

use hearth_protocol::{ErrorKind, Event, FinishReason, Format, Generate, Role, Tool, ToolChoice};
use hearth_tests::{TestDaemon, chat, error_of, follow, generate, message};
use serde_json::{Value, json};

const CALL: &str = r#"Let me see. <tool>{"name": "weather", "arguments": {"city": "Oslo"}}</tool>"#;

fn weather() -> Tool {
    Tool {
        name: "weather".into(),
        description: "The weather in a city".into(),
        parameters: json!({ "type": "object", "properties": { "city": { "type": "string" } } }),
    }
}

#[test]
fn a_tool_call_is_an_event_and_no_text() {
    let daemon = TestDaemon::start();
    daemon.model("tools", &[("script", CALL.into())]);
    let mut params = chat("tools", "How is Oslo?");
    params.tools = vec![weather()];
    let told = follow(&mut daemon.client(), &params);
    assert_eq!(told.text, "Let me see. ");
    let calls: Vec<_> = told
        .events
        .iter()
        .filter_map(|event| match event {
            Event::ToolCall { call } => Some(call.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].name, "weather");
    let arguments: Value = serde_json::from_str(&calls[0].arguments).unwrap();
    assert_eq!(arguments, json!({ "city": "Oslo" }));
    assert!(!calls[0].id.is_empty());
    let reply = told.reply();
    assert_eq!(reply.finish, FinishReason::ToolCalls);
    assert_eq!(reply.message.tool_calls, calls);

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
    daemon.model("tools", &[("script", "I would rather talk.".into())]);
    let mut params = chat("tools", "How is Oslo?");
    params.tools = vec![weather()];
    params.tool_choice = ToolChoice::Required;
    params.options.max_tokens = Some(40);
    let told = follow(&mut daemon.client(), &params);
    // The grammar of this plugin forces the brackets, and the script cannot write its own text.
    assert!(!told.text.starts_with("I would"), "{}", told.text);
}

#[test]
fn a_call_cut_off_by_a_limit_is_text_and_not_lost() {
    let daemon = TestDaemon::start();
    daemon.model("tools", &[("script", CALL.into())]);
    let mut params = chat("tools", "How is Oslo?");
    params.tools = vec![weather()];
    params.options.max_tokens = Some(30);
    let told = follow(&mut daemon.client(), &params);
    assert_eq!(told.text, CALL[..30]);
    assert_eq!(told.reply().message.content, CALL[..30]);
    assert_eq!(told.reply().finish, FinishReason::MaxTokens);
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

#[test]
fn a_schema_that_the_backend_cannot_hold_to_is_refused_and_not_ignored() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[]);
    let mut params = generate("tiny", "x");
    params.format = Some(Format::JsonSchema(json!({ "type": "object" })));
    let error = error_of(daemon.client().call::<Generate>(&params));
    assert_eq!(error.kind(), Some(ErrorKind::Unsupported), "{error:?}");
}
