//! Models with layers of Ollama's: templates in Go's language, system prompts, messages and options.

use hearth_protocol::{
    ChatParams, ChatSend, ErrorKind, Event, FinishReason, Generate, ModelParams, ModelShow, Role,
    Tool, ToolChoice,
};
use hearth_reference::{Settings, Value, vocab};
use hearth_tests::{TestDaemon, chat, error_of, follow, generate, message, refused};
use serde_json::json;

/// Messages with their roles spelled out, and an answer to come.
pub(crate) const TEMPLATE: &str =
    "{{ range .Messages }}<|user|>{{ .Role }}: {{ .Content }}<|end|>{{ end }}<|assistant|>";

pub(crate) const REASONS: &str = "{{- range .Tools }}<|system|>{{ .Function }}<|end|>{{ end }}
{{- range .Messages }}{{ if eq .Role \"assistant\" }}<|assistant|>
{{- if and $.Think .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}
{{- if .ToolCalls }}<tool_call>
{{ range .ToolCalls }}{\"name\": \"{{ .Function.Name }}\", \"arguments\": {{ .Function.Arguments }}}{{ end }}
</tool_call>{{ end }}<|end|>
{{- else }}<|user|>{{ .Content }}<|end|>{{ end }}{{ end }}<|assistant|>";

/// What a model of these settings answers to this prompt.
pub(crate) fn answer(settings: &[(&str, Value)], prompt: &str) -> String {
    let settings = Settings::from_pairs(settings).unwrap();
    let prompt: Vec<_> =
        [vocab::BOS].into_iter().chain(vocab::tokenize(prompt.as_bytes(), true)).collect();
    let answer = hearth_reference::expected(&settings, &prompt, 4000);
    answer.iter().filter_map(|token| u8::try_from(*token).ok()).map(char::from).collect()
}

fn weather() -> Tool {
    Tool {
        name: "weather".into(),
        description: "Of a city".into(),
        parameters: json!({ "type": "object", "properties": { "city": { "type": "string" } } }),
    }
}

#[test]
fn a_chat_is_rendered_by_the_manifests_template_and_begins_as_it_says() {
    let daemon = TestDaemon::start();
    let seed = [("seed", 7.into())];
    daemon.model("tiny", &seed);
    daemon.add_layers(
        "tiny",
        &[
            ("template", TEMPLATE),
            ("system", "Be brief."),
            ("messages", r#"[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]"#),
        ],
    );
    let ask =
        |params: &ChatParams| daemon.client().call::<ChatSend>(params).unwrap().message.content;
    let preset = "<|user|>user: a<|end|><|user|>assistant: b<|end|>";
    let hi = "<|user|>user: hi<|end|><|assistant|>";
    let prompt = format!("<|user|>system: Be brief.<|end|>{preset}{hi}");
    assert_eq!(ask(&chat("tiny", "hi")), answer(&seed, &prompt));

    let mut params = chat("tiny", "hi");
    params.messages.insert(0, message(Role::System, "Be long."));
    let prompt = format!("{preset}<|user|>system: Be long.<|end|>{hi}");
    assert_eq!(ask(&params), answer(&seed, &prompt));
}

#[test]
fn the_token_that_begins_a_text_comes_once() {
    let daemon = TestDaemon::start();
    for (name, template) in
        [("with", "<|bos|><|user|>{{ .Prompt }}"), ("without", "<|user|>{{ .Prompt }}")]
    {
        daemon.model(name, &[("seed", 7.into())]);
        daemon.add_layers(name, &[("template", template)]);
        let reply = daemon.client().call::<ChatSend>(&chat(name, "hello")).unwrap();
        assert_eq!(reply.message.content, answer(&[("seed", 7.into())], "<|user|>hello"), "{name}");
    }
}

#[test]
fn the_models_options_hold_where_the_caller_has_none() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "alpha beta gamma delta".into())]);
    daemon.add_layers("tiny", &[("params", r#"{"stop": ["gamma"], "num_ctx": 4096, "seed": -1}"#)]);
    let told = follow(&mut daemon.client(), &chat("tiny", "hi"));
    assert_eq!((told.text.as_str(), told.reply().finish), ("alpha beta ", FinishReason::Stop));
    let mut params = chat("tiny", "hi");
    params.options.stop = vec!["delta".into()];
    assert_eq!(follow(&mut daemon.client(), &params).text, "alpha beta gamma ");
}

#[test]
fn thoughts_and_calls_are_read_by_the_templates_tags() {
    let daemon = TestDaemon::start();
    let call =
        "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>";
    let script = format!("<think>\nWhere is it?\n</think>\n\nLet me see.\n{call}");
    daemon.model("reasons", &[("script", script.as_str().into())]);
    daemon.add_layers("reasons", &[("template", REASONS)]);
    let mut params = chat("reasons", "How is Oslo?");
    params.tools = vec![weather()];
    params.think = None;
    let told = follow(&mut daemon.client(), &params);
    assert_eq!((told.reasoning.as_str(), told.text.as_str()), ("Where is it?", "Let me see."));
    let reply = told.reply();
    assert_eq!(reply.finish, FinishReason::ToolCalls);
    assert_eq!(reply.message.reasoning.as_deref(), Some("Where is it?"));
    assert_eq!(reply.message.content, "Let me see.");
    let [call] = reply.message.tool_calls.as_slice() else {
        panic!("{:?}", reply.message.tool_calls)
    };
    assert_eq!((call.name.as_str(), call.arguments.as_str()), ("weather", r#"{"city":"Oslo"}"#));
    assert!(
        told.events
            .iter()
            .any(|event| matches!(event, Event::ToolCall { call: told, .. } if told == call))
    );

    // Without tools the same answer is text, and so are thoughts of which nobody wants to know.
    params.tools.clear();
    params.think = Some(false);
    assert_eq!(follow(&mut daemon.client(), &params).text, script);
}

#[test]
fn where_the_template_cannot_offer_tools_or_require_a_call_the_plugin_does() {
    let daemon = TestDaemon::start();
    let asked = |model: &str, choice: ToolChoice| {
        let mut params = chat(model, "hi");
        (params.tools, params.tool_choice) = (vec![weather()], choice);
        params.options.max_tokens = Some(2000);
        daemon.client().call::<ChatSend>(&params).unwrap().message
    };
    let call = r#"Well. <tool>{"name": "weather", "arguments": {"city": "Oslo"}}</tool>"#;
    daemon.model("plain", &[("script", call.into())]);
    daemon.add_layers("plain", &[("template", TEMPLATE)]);
    let told = asked("plain", ToolChoice::Auto);
    assert_eq!((told.content.as_str(), told.tool_calls.len()), ("Well. ", 1));
    assert_eq!(asked("plain", ToolChoice::None).content, call);

    daemon.model("talks", &[("script", "I would rather talk.".into())]);
    daemon.add_layers("talks", &[("template", REASONS)]);
    assert_eq!(asked("talks", ToolChoice::Auto).content, "I would rather talk.");
    for choice in [ToolChoice::Required, ToolChoice::Tool("weather".into())] {
        let told = asked("talks", choice);
        assert_eq!((told.content.as_str(), told.tool_calls.len()), ("", 1));
    }
}

#[test]
fn a_broken_template_costs_chats_and_nothing_else() {
    let daemon = TestDaemon::start();
    for (name, template, message) in [
        ("unread", "a\n{{ range .Messages }", "line 2: unexpected"),
        (
            "failing",
            "{{ range .Messages }}\n\n{{ .Nope }}{{ end }}",
            "line 3: can't evaluate field Nope",
        ),
    ] {
        daemon.model(name, &[("seed", 7.into())]);
        daemon.add_layers(name, &[("template", template)]);
        let error =
            refused(daemon.client().call::<ChatSend>(&chat(name, "secret")), ErrorKind::BadModel);
        assert!(error.message.contains(message), "{error:?}");
        daemon.client().call::<Generate>(&generate(name, "once")).unwrap();
    }
    assert!(!daemon.log().contains("secret"));
}

#[test]
fn text_is_filled_in_where_the_template_has_a_place_for_it() {
    let daemon = TestDaemon::start();
    let seed = [("seed", 7.into())];
    daemon.model("infill", &seed);
    daemon.add_layers(
        "infill",
        &[("template", "<|user|>{{ .Prompt }}<|tool|>{{ .Suffix }}<|assistant|>")],
    );
    let mut params = generate("infill", "fn a() {");
    params.suffix = Some("}".into());
    let reply = daemon.client().call::<Generate>(&params).unwrap();
    assert_eq!(reply.text, answer(&seed, "<|user|>fn a() {<|tool|>}<|assistant|>"));

    params.raw = true;
    refused(daemon.client().call::<Generate>(&params), ErrorKind::InvalidParams);
    daemon.model("tiny", &[]);
    params = generate("tiny", "a");
    params.suffix = Some("b".into());
    refused(daemon.client().call::<Generate>(&params), ErrorKind::Unsupported);
}

#[test]
fn show_tells_what_the_layers_say() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[]);
    let show = || {
        let params = ModelParams { model: "tiny".into() };
        daemon.client().call::<ModelShow>(&params).unwrap()
    };
    assert_eq!((show().template, show().capabilities), (None, vec!["completion".to_string()]));
    let params = r#"{"stop":["<|end|>"],"temperature":0.2}"#;
    daemon.add_layers("tiny", &[("template", REASONS), ("params", params)]);
    let shown = show();
    assert_eq!(shown.template.as_deref(), Some(REASONS));
    assert_eq!(shown.capabilities, ["completion", "tools", "thinking"]);
    let options = [("stop", r#"["<|end|>"]"#), ("temperature", "0.2")];
    assert_eq!(shown.options, options.map(|(name, value)| (name.to_string(), value.to_string())));
    assert!(
        error_of(daemon.client().call::<ModelShow>(&ModelParams { model: "none".into() }))
            .hint()
            .is_some()
    );
}
