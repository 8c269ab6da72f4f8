//! Prompts against what Ollama's rules make of them in Go, and answers.

use super::*;
use hearth_protocol::ToolCall;
use serde_json::Value as Json;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/chat_template/go")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(folder().join(file)).unwrap()
}

fn template(name: &str) -> ChatTemplate {
    ChatTemplate::parse(&read(&format!("{name}.gotmpl"))).unwrap()
}

fn from_field<T: serde::de::DeserializeOwned + Default>(chat: &Json, field: &str) -> T {
    chat.get(field).map_or_else(T::default, |json| serde_json::from_value(json.clone()).unwrap())
}

#[test]
fn every_chat_is_rendered_as_by_ollama() {
    let chats: Json = serde_json::from_str(&read("chats.json")).unwrap();
    let expected: Json = serde_json::from_str(&read("expected.json")).unwrap();
    let expected = expected.as_array().unwrap();
    let n_templates = folder().read_dir().unwrap().filter(|file| {
        file.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "gotmpl")
    });
    assert_eq!(expected.len(), n_templates.count() * chats.as_object().unwrap().len());
    for case in expected {
        let (name, key) = (case["template"].as_str().unwrap(), case["chat"].as_str().unwrap());
        let chat = &chats[key];
        let messages: Vec<Message> = from_field(chat, "messages");
        let tools: Vec<Tool> = from_field(chat, "tools");
        let think = chat.get("think").and_then(Json::as_bool);
        let messages: Vec<&Message> = messages.iter().collect();
        let tools: Vec<&Tool> = tools.iter().collect();
        let prompt =
            template(name).render(&Chat { messages: &messages, tools: &tools, think }).unwrap();
        assert_eq!(prompt, case["prompt"].as_str().unwrap(), "{name}, {key}");
    }
}

#[test]
fn abilities_are_read_off_the_template() {
    let abilities = |name: &str| template(name).abilities();
    let none = Abilities { tools: false, insert: false, thinking: false };
    assert_eq!(abilities("chatml"), none);
    assert_eq!(abilities("llama3"), Abilities { tools: true, ..none });
    assert_eq!(abilities("qwen"), Abilities { tools: true, thinking: true, ..none });
    assert_eq!(abilities("deepseek"), Abilities { thinking: true, ..none });
    assert_eq!(abilities("infill"), Abilities { insert: true, ..none });
}

#[test]
fn a_text_is_filled_in_between_two() {
    let between = |name: &str| template(name).render_between("fn a() {", "}").unwrap();
    assert_eq!(between("infill"), "<PRE> fn a() { <SUF>} <MID>");
    assert_eq!(between("infill-messages"), "[fn a() {^}]");
}

#[test]
fn what_is_wrong_with_a_template_has_its_line() {
    for (source, message) in [
        ("a\n{{ if }}", "line 2: missing value for if"),
        ("{{ .Messages | nope }}", "line 1: function \"nope\" not defined"),
        ("{{ range .Messages }}", "line 1: unexpected EOF"),
    ] {
        assert_eq!(ChatTemplate::parse(source).unwrap_err().to_string(), message);
    }
    let template = ChatTemplate::parse("{{ range .Messages }}\n{{ .Nope }}{{ end }}").unwrap();
    let message = Message::text(Role::User, "hi");
    let error =
        template.render(&Chat { messages: &[&message], tools: &[], think: None }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 2: can't evaluate field Nope in type template.templateMessage"
    );
}

#[test]
fn dates_are_of_today_and_yesterday() {
    let template = ChatTemplate::parse(
        "{{ currentDate }} {{ yesterdayDate \"x\" }} {{ range .Messages }}{{ end }}",
    )
    .unwrap();
    let render = || template.render(&Chat { messages: &[], tools: &[], think: None }).unwrap();
    let day = || Zoned::now().date();
    let (before, rendered, after) = (day(), render(), day());
    let expected = |today: Date| format!("{today} {} ", today.yesterday().unwrap());
    assert!([expected(before), expected(after)].contains(&rendered), "{rendered}");
    assert!(
        ChatTemplate::parse("{{ currentDate 1 }}{{ .Response }}")
            .unwrap()
            .render(&Chat { messages: &[], tools: &[], think: None })
            .is_err()
    );
}

#[test]
fn arguments_keep_large_numbers_and_stay_as_they_are_where_they_are_no_object() {
    let call = |arguments: &str| {
        let mut message = Message::text(Role::Assistant, "");
        message.tool_calls =
            vec![ToolCall { id: String::new(), name: "f".into(), arguments: arguments.into() }];
        let template = ChatTemplate::parse(
            "{{ range .Messages }}{{ range .ToolCalls }}{{ .Function.Arguments }}{{ end }}{{ end }}",
        );
        template.unwrap().render(&Chat { messages: &[&message], tools: &[], think: None }).unwrap()
    };
    assert_eq!(
        call(r#"{"id": 1234567890123456789, "n": 2.0}"#),
        r#"{"id":1234567890123456789,"n":2}"#
    );
    assert_eq!(call("{broken"), "{broken");
}

fn tool(name: &str) -> Tool {
    Tool { name: name.into(), description: String::new(), parameters: Json::Null }
}

/// Reads an answer as it grows, byte by byte, and at its end. What was said is never taken back.
#[track_caller]
fn grown(reader: &Reader, answer: &str) -> Parsed {
    let whole = reader.read(answer, false);
    let mut last = Parsed::default();
    for end in (0..answer.len()).filter(|end| answer.is_char_boundary(*end)) {
        let parsed = reader.read(&answer[..end], true);
        assert!(parsed.content.starts_with(&last.content), "{:?}", &answer[..end]);
        assert!(parsed.reasoning.starts_with(&last.reasoning), "{:?}", &answer[..end]);
        assert!(parsed.tool_calls.is_empty());
        last = parsed;
    }
    assert!(
        whole.content.starts_with(&last.content),
        "{:?}, then {:?}",
        last.content,
        whole.content
    );
    assert!(whole.reasoning.starts_with(&last.reasoning));
    whole
}

#[test]
fn thoughts_are_set_apart() {
    let reader = template("qwen").reader("<|im_start|>assistant\n", &[], true);
    assert_eq!(reader.think_tags(), Some(("<think>", "</think>")));
    for (answer, reasoning, content) in [
        ("<think>\nHm.\n</think>\n\nFour.", "Hm.", "Four."),
        ("  <think></think>Four.", "", "Four."),
        ("<think>cut off", "cut off", ""),
        ("<thin", "", "<thin"),
        ("Four. <think>no</think>", "", "Four. <think>no</think>"),
        ("<think>a < b </thinking> c</think>d", "a < b </thinking> c", "d"),
    ] {
        let parsed = grown(&reader, answer);
        assert_eq!(
            (parsed.reasoning.as_str(), parsed.content.as_str()),
            (reasoning, content),
            "{answer}"
        );
    }
    let begun = template("qwen").reader("<|im_start|>assistant\n<think>\n", &[], true);
    assert_eq!(begun.think_tags(), Some(("", "</think>")));
    let parsed = grown(&begun, "Hm.</think>Four.");
    assert_eq!((parsed.reasoning.as_str(), parsed.content.as_str()), ("Hm.", "Four."));

    let told_not_to = template("qwen").reader("", &[], false);
    assert!(told_not_to.is_plain());
    assert_eq!(grown(&told_not_to, "<think>x</think>y").content, "<think>x</think>y");
}

#[test]
fn calls_are_found_in_every_familys_form() {
    let tools = [tool("get_weather"), tool("get")];
    for (name, answer, content, calls) in [
        (
            "qwen",
            "Let me see.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"b\": 1, \"a\": \"}\"}}\n</tool_call>\n<tool_call>\n{\"name\":\"get\",\"arguments\":{}}\n</tool_call>",
            "Let me see.",
            vec![("get_weather", r#"{"b":1,"a":"}"}"#), ("get", "{}")],
        ),
        (
            "mistral",
            "[TOOL_CALLS] [{\"name\": \"get\", \"arguments\": {\"x\": [1]}}, {\"name\": \"get_weather\", \"arguments\": {}}]",
            "",
            vec![("get", r#"{"x":[1]}"#), ("get_weather", "{}")],
        ),
        (
            "llama3",
            "{\"name\": \"get\", \"parameters\": {\"q\": \"{\"}}",
            "",
            vec![("get", r#"{"q":"{"}"#)],
        ),
        (
            "command-r",
            "Action: ```json\n[\n    {\n        \"tool_name\": \"get\",\n        \"parameters\": {}\n    }\n]```",
            "",
            vec![("get", "{}")],
        ),
        (
            "llama3",
            "{\"type\": \"function\", \"function\": {\"name\": \"get\", \"arguments\": \"{\\\"a\\\": 1}\"}}",
            "",
            vec![("get", r#"{"a": 1}"#)],
        ),
        (
            "mistral",
            "[TOOL_CALLS]get_weather[ARGS]{\"place\": \"Köln\"}",
            "",
            vec![("get_weather", r#"{"place":"Köln"}"#)],
        ),
        // No calls, and no text lost.
        (
            "llama3",
            "{\"name\": \"unknown\", \"parameters\": {}}",
            "{\"name\": \"unknown\", \"parameters\": {}}",
            vec![],
        ),
        (
            "llama3",
            "fn main() {\n    let a = {1};\n}\n",
            "fn main() {\n    let a = {1};\n}\n",
            vec![],
        ),
        ("qwen", "<tool_call>\nget {broken", "<tool_call>\nget {broken", vec![]),
        ("qwen", "a <tool", "a <tool", vec![]),
        ("mistral", "[1, 2]", "[1, 2]", vec![]),
    ] {
        let reader = template(name).reader("", &tools.each_ref(), false);
        let parsed = grown(&reader, answer);
        assert_eq!(parsed.content, content, "{name}: {answer}");
        let found: Vec<_> = parsed
            .tool_calls
            .iter()
            .map(|call| (call.name.as_str(), call.arguments.as_str()))
            .collect();
        assert_eq!(found, calls, "{name}: {answer}");
    }
}
