//! Tool calls of models whose templates know no tools.

use super::{MODEL, limited, start, start_with};
use hearth_protocol::{
    ChatParams, ChatReply, Event, FinishReason, Message, Role, Tool, ToolCall, ToolChoice,
};
use hearth_tests::{TestDaemon, Told, follow};
use serde_json::{Value, json};

pub(super) fn tools() -> Vec<Tool> {
    let parameters = json!({
        "type": "object",
        "properties": {
            "unit": { "enum": ["celsius", "fahrenheit"] },
            "city": { "type": "string", "maxLength": 30 },
            "days": { "type": "integer", "minimum": 1, "maximum": 7 },
        },
        "required": ["unit", "city", "days"],
    });
    let tool = |name: &str, description: &str, parameters| Tool {
        name: name.into(),
        description: description.into(),
        parameters,
    };
    vec![
        tool("get_weather", "Tells the weather in a city.", parameters),
        tool("get_time", "Tells what time it is.", Value::Null),
    ]
}

fn asking(model: &str, text: &str, choice: ToolChoice) -> ChatParams {
    let mut params = limited(text, 200);
    params.model = model.into();
    params.tools = tools();
    params.tool_choice = choice;
    params
}

/// The one call that was told, in more than one piece.
#[track_caller]
pub(super) fn one_call(told: &Told<ChatReply>) -> (ToolCall, Value) {
    let reply = told.reply();
    assert_eq!(reply.finish, FinishReason::ToolCalls, "{:?}", told.text);
    assert_eq!((told.text.as_str(), reply.message.tool_calls.len()), ("", 1));
    let call = reply.message.tool_calls[0].clone();
    let pieces: Vec<_> = told
        .events
        .iter()
        .filter_map(|event| match event {
            Event::ToolCallDelta { delta, .. } => Some(delta),
            _ => None,
        })
        .collect();
    assert!(pieces.iter().all(|piece| piece.id == call.id && piece.name == call.name));
    let text: String = pieces.iter().map(|piece| piece.arguments.as_str()).collect();
    assert_eq!(text, call.arguments);
    assert!(pieces.len() > 1, "{text} came at once");
    let arguments = serde_json::from_str(&text).unwrap();
    (call, arguments)
}

fn a_required_call_fits_its_schema(daemon: &TestDaemon, model: &str) {
    let mut client = daemon.client();
    for temperature in [0.0, 1.5] {
        let choice = ToolChoice::Tool("get_weather".into());
        let mut params = asking(model, "What is the weather in Paris?", choice);
        params.options.temperature = Some(temperature);
        params.options.seed = Some(3);
        let (call, arguments) = one_call(&follow(&mut client, &params));
        assert_eq!(call.name, "get_weather");
        let arguments = arguments.as_object().unwrap();
        assert_eq!(arguments.keys().collect::<Vec<_>>(), ["unit", "city", "days"]);
        assert!(["celsius", "fahrenheit"].contains(&arguments["unit"].as_str().unwrap()));
        assert!(arguments["city"].as_str().is_some_and(|city| city.chars().count() <= 30));
        assert!(arguments["days"].as_u64().is_some_and(|days| (1..=7).contains(&days)));
    }
    let params = asking(model, "Tell me a story.", ToolChoice::Required);
    let (call, _) = one_call(&follow(&mut client, &params));
    assert!(tools().iter().any(|tool| tool.name == call.name), "{call:?}");
    let params = asking(model, "Tell me a story.", ToolChoice::Tool("get_time".into()));
    assert_eq!(one_call(&follow(&mut client, &params)).1, json!({}));
}

#[test]
fn a_model_of_135_million_weights_makes_the_call_that_is_required() {
    a_required_call_fits_its_schema(&start(), MODEL);
}

#[test]
fn a_base_model_with_a_large_vocabulary_makes_the_call_that_is_required() {
    let model = "gemma3:270m";
    a_required_call_fits_its_schema(&start_with("HEARTH_TEST_GEMMA3", model), model);
}

#[test]
fn a_call_and_its_result_are_part_of_the_conversation() {
    let daemon = start();
    let mut client = daemon.client();
    let mut params =
        asking(MODEL, "What is the weather in Paris?", ToolChoice::Tool("get_weather".into()));
    let reply = follow(&mut client, &params).reply();
    let mut result = Message::text(Role::Tool, "It rains frogs.");
    result.tool_call_id = Some(reply.message.tool_calls[0].id.clone());
    params.messages.extend([reply.message, result]);
    params.tool_choice = ToolChoice::Auto;
    let told = follow(&mut client, &params).reply();
    assert!(!told.message.content.is_empty() || !told.message.tool_calls.is_empty());
    // The other conversation has no result, and the model reads another prompt.
    params.messages.truncate(1);
    let without = follow(&mut client, &params).reply();
    assert!(without.usage.prompt_tokens + 20 < told.usage.prompt_tokens);
}

#[test]
fn a_call_that_is_cut_off_is_text() {
    let daemon = start();
    let mut params = asking(MODEL, "What is the weather?", ToolChoice::Tool("get_weather".into()));
    params.options.max_tokens = Some(24);
    let told = follow(&mut daemon.client(), &params);
    let reply = told.reply();
    assert_eq!(reply.finish, FinishReason::MaxTokens);
    assert!(reply.message.tool_calls.is_empty());
    assert!(told.text.contains("get_weather"), "{:?}", told.text);
    assert_eq!(told.text, reply.message.content);
}

#[test]
fn an_answer_that_ends_like_the_start_of_a_call_is_whole() {
    let daemon = start();
    let mut params = asking(MODEL, "Compare one and two.", ToolChoice::Auto);
    params.options.max_tokens = Some(12);
    let whole = follow(&mut daemon.client(), &params).reply().message.content;
    // The token that is forced on the model is the start of what a call begins with.
    let tokens = hearth_protocol::TokenizeParams {
        model: MODEL.into(),
        text: "<".into(),
        add_special: false,
        parse_special: false,
        pieces: false,
    };
    let sign = daemon.client().call::<hearth_protocol::Tokenize>(&tokens).unwrap().tokens[0];
    params.options.logit_bias = [(sign, 100.0)].into();
    params.options.max_tokens = Some(1);
    let told = follow(&mut daemon.client(), &params);
    assert_eq!((told.text.as_str(), told.reply().message.content.as_str()), ("<", "<"));
    assert!(!whole.is_empty());
}
