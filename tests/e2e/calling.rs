//! Tool calls as they are asked for, whatever a model would rather write before, between and behind them.

use hearth_protocol::{ChatParams, ChatReply, FinishReason, Tool, ToolChoice};
use hearth_tests::{TestDaemon, Told, chat, follow};
use serde_json::{Value, json};

const SCRIPTS: [&str; 9] = [
    "I would rather talk.",
    "< I would rather talk.",
    "<t",
    "<tool>{\"name\": \"turn\", \"arguments\": {\"angle\": 04636}}</tool>",
    r#"<tool>{"name": "turn", "arguments": {"angle": 7}}</tool><tool>{"name": "turn", "arguments": {"angle": 8}}</tool>"#,
    "\n<tool>",
    "<think>hm</think>I would rather talk.",
    r#"<think>hm <tool>no</tool> well</think> <tool>{"name": "turn", "arguments": {}}</tool>"#,
    "<think>hm, without an end <",
];

fn turn() -> Tool {
    Tool {
        name: "turn".into(),
        description: "Turns something".into(),
        parameters: json!({
            "type": "object",
            "properties": {
                "angle": { "type": "integer" },
                "way": { "enum": ["left", "right"] },
                "fast": { "type": "boolean" },
            },
            "required": ["angle", "way"],
        }),
    }
}

/// Each way to think or not, on each script.
fn each(daemon: &TestDaemon, change: impl Fn(&mut ChatParams), check: impl Fn(&Told<ChatReply>)) {
    for (at, script) in SCRIPTS.iter().enumerate() {
        let model = format!("model{at}");
        daemon.model(&model, &[("script", (*script).into())]);
        for (think, think_tokens) in
            [(None, None), (Some(true), None), (Some(true), Some(3)), (Some(false), None)]
        {
            let mut params = chat(&model, "Turn it.");
            params.tools = vec![turn(), Tool { name: "tilt".into(), ..turn() }];
            (params.think, params.think_tokens) = (think, think_tokens);
            params.options.max_tokens = Some(2000);
            change(&mut params);
            check(&follow(&mut daemon.client(), &params));
        }
    }
}

#[track_caller]
fn fits_its_schema(arguments: &str) {
    let value: Value = serde_json::from_str(arguments).unwrap();
    assert!(value["angle"].is_i64(), "{arguments}");
    assert!(value["way"] == "left" || value["way"] == "right", "{arguments}");
    assert!(value.get("fast").is_none_or(Value::is_boolean), "{arguments}");
    let known = |key: &String| ["angle", "way", "fast"].contains(&key.as_str());
    assert!(value.as_object().unwrap().keys().all(known), "{arguments}");
}

#[test]
fn a_required_call_is_one_and_nothing_else_whatever_is_thought() {
    let daemon = TestDaemon::start();
    for parallel in [None, Some(false)] {
        let change = |params: &mut ChatParams| {
            params.tool_choice = ToolChoice::Required;
            params.parallel_tool_calls = parallel;
        };
        each(&daemon, change, |told| {
            let message = told.reply().message;
            assert_eq!((told.text.as_str(), message.tool_calls.len()), ("", 1), "{message:?}");
            assert_eq!(told.reply().finish, FinishReason::ToolCalls);
            fits_its_schema(&message.tool_calls[0].arguments);
        });
    }
}

#[test]
fn at_most_one_call_is_made_where_calls_may_not_be_parallel() {
    let daemon = TestDaemon::start();
    let change = |params: &mut ChatParams| params.parallel_tool_calls = Some(false);
    each(&daemon, change, |told| {
        let message = told.reply().message;
        assert_eq!(told.text, message.content);
        assert!(!told.text.contains("</tool>") && message.tool_calls.len() <= 1, "{message:?}");
        message.tool_calls.iter().for_each(|call| fits_its_schema(&call.arguments));
    });
}
