//! Ollama's own API, field by field as its clients know them: what every answer has, and what every request may have.

use crate::ollama::{ask, done, lines, start};
use hearth_tests::TestDaemon;
use serde_json::{Map, Value, json};

/// What is there although it may be empty.
#[track_caller]
fn has(answer: &Value, fields: &str) {
    for field in fields.split(' ') {
        let pointer = format!("/{}", field.replace('.', "/"));
        assert!(answer.pointer(&pointer).is_some_and(|it| !it.is_null()), "`{field}`: {answer}");
    }
}

#[track_caller]
fn get(daemon: &TestDaemon, path: &str) -> Value {
    serde_json::from_slice(&ask(daemon, "GET", path, "").message.body).unwrap()
}

const METRICS: &str = "done_reason total_duration load_duration prompt_eval_count \
    prompt_eval_duration eval_count eval_duration";

const DETAILS: &str = "details.parent_model details.format details.family details.families \
    details.parameter_size details.quantization_level";

#[test]
fn every_answer_has_the_fields_that_are_never_left_out() {
    let daemon = start();
    daemon.model("m", &[("script", "Yes.".into())]);
    let layers = [
        ("template", "{{ .Prompt }}"),
        ("system", "Be brief."),
        ("license", "as you like"),
        ("params", r#"{"stop": ["<a>"]}"#),
        ("messages", r#"[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]"#),
    ];
    daemon.add_layers("m", &layers);
    let hi = json!([{ "role": "user", "content": "hi" }]);
    let more = json!({ "logprobs": true, "top_logprobs": 1, "options": { "temperature": 0 } });
    let with = |mut body: Value| {
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let generate = with(json!({ "model": "m", "prompt": "hi" }));
    let chat = with(json!({ "model": "m", "messages": hi }));
    for (path, body, said) in [
        ("/api/generate", generate, "response"),
        ("/api/chat", chat, "message.role message.content"),
    ] {
        let streamed = lines(&daemon, path, &body);
        let (last, first) = (streamed.last().unwrap(), &streamed[0]);
        let whole = done(&daemon, path, body);
        for line in [first, last, &whole] {
            has(line, "model created_at done");
            has(line, said);
        }
        for line in [last, &whole] {
            has(line, METRICS);
        }
        for line in [first, &whole] {
            has(line, "logprobs.0.token logprobs.0.logprob logprobs.0.bytes");
            has(line, "logprobs.0.top_logprobs.0.token logprobs.0.top_logprobs.0.logprob");
        }
    }
    let embed = done(&daemon, "/api/embed", json!({ "model": "m", "input": "hi" }));
    has(&embed, "model embeddings total_duration load_duration prompt_eval_count");
    has(&done(&daemon, "/api/embeddings", json!({ "model": "m", "prompt": "hi" })), "embedding");

    let shown = done(&daemon, "/api/show", json!({ "model": "m" }));
    has(&shown, "license modelfile parameters template system model_info capabilities modified_at");
    has(&shown, "messages.0.role messages.0.content");
    let (listed, loaded) = (get(&daemon, "/api/tags"), get(&daemon, "/api/ps"));
    has(&listed, "models.0.name models.0.model models.0.modified_at models.0.size");
    has(&listed, "models.0.digest models.0.capabilities");
    has(&loaded, "models.0.name models.0.model models.0.size models.0.digest");
    has(&loaded, "models.0.expires_at models.0.size_vram models.0.context_length");
    for model in [&shown, &listed["models"][0], &loaded["models"][0]] {
        has(model, DETAILS);
    }
    assert_eq!(shown["capabilities"], listed["models"][0]["capabilities"]);
    has(&get(&daemon, "/api/version"), "version");
    has(&get(&daemon, "/api/status"), "cloud.disabled cloud.source");
}

/// Whole requests: all fields that the reference has, and one that it has not.
fn requests() -> Vec<(&'static str, Value)> {
    let options = json!({ "num_predict": 2 });
    let message = json!({
        "role": "assistant", "content": "hi", "thinking": "hm", "images": null, "tool_name": "t", "tool_call_id": "1",
        "tool_calls": [{ "id": "1", "function": { "index": 0, "name": "t", "arguments": { "a": 1 } } }],
    });
    let tool = json!({ "type": "function", "items": null, "function": {
        "name": "t", "description": "does it", "parameters": {
            "type": "object", "$defs": {}, "items": null, "required": ["a"],
            "properties": { "a": { "anyOf": [{ "type": "integer" }], "type": ["integer", "string"], "description": "b", "enum": [1] } },
        },
    } });
    vec![
        (
            "/api/generate",
            json!({
                "model": "m", "prompt": "hi", "suffix": "", "system": "s", "template": "{{ .Prompt }}", "context": [],
                "stream": false, "raw": false, "format": "", "keep_alive": "5m", "images": [], "options": options,
                "think": false, "truncate": true, "shift": true, "_debug_render_only": false, "logprobs": true,
                "top_logprobs": 1, "unknown": 1,
            }),
        ),
        (
            "/api/chat",
            json!({
                "model": "m", "messages": [{ "role": "user", "content": "a" }, message, { "role": "tool", "content": "b" }],
                "stream": false, "format": null, "keep_alive": 300, "tools": [tool], "options": options, "think": false,
                "truncate": true, "shift": true, "_debug_render_only": false, "logprobs": false, "top_logprobs": 0,
                "unknown": 1,
            }),
        ),
        (
            "/api/embed",
            json!({ "model": "m", "input": "a", "keep_alive": 300, "truncate": true, "dimensions": 0, "options": {}, "unknown": 1 }),
        ),
        (
            "/api/embeddings",
            json!({ "model": "m", "prompt": "a", "keep_alive": 300, "options": {}, "unknown": 1 }),
        ),
        (
            "/api/show",
            json!({ "model": "m", "system": "", "template": "", "verbose": false, "options": {}, "name": "", "unknown": 1 }),
        ),
        (
            "/api/create",
            json!({
                "model": "n", "stream": false, "quantize": "", "from": "m", "files": {}, "adapters": {}, "template": "",
                "license": ["a"], "system": "s", "parameters": { "seed": 1 }, "messages": [], "renderer": "", "parser": "",
                "requires": "", "info": {}, "name": "", "quantization": "", "draft_quantize": "", "draft_files": {},
                "remote_host": "", "unknown": 1,
            }),
        ),
        ("/api/copy", json!({ "source": "m", "destination": "o", "unknown": 1 })),
    ]
}

#[test]
fn every_field_of_a_request_is_taken_and_null_stands_for_none() {
    let daemon = start();
    daemon.model("m", &[("script", "Yes.".into())]);
    for (path, body) in requests() {
        let status = |body: &Value| ask(&daemon, "POST", path, &body.to_string());
        let whole = status(&body);
        let said = String::from_utf8_lossy(&whole.message.body);
        assert_eq!(whole.status, 200, "{path}: {said}");
        let fields: &Map<String, Value> = body.as_object().unwrap();
        let needed = ["model", "stream", "source", "destination", "from"];
        for field in fields.keys().filter(|field| !needed.contains(&field.as_str())) {
            let mut body = body.clone();
            body[field] = Value::Null;
            let reply = status(&body);
            let said = String::from_utf8_lossy(&reply.message.body);
            assert_eq!(reply.status, 200, "{path}, {field}: {said}");
        }
    }
}

#[test]
fn a_model_is_found_by_every_form_of_its_name_and_by_the_field_of_old_clients() {
    let daemon = start();
    daemon.model("m", &[]);
    for name in ["m", "M", "m:latest", "library/m", "registry.ollama.ai/library/m:LATEST"] {
        for field in ["model", "name"] {
            let shown = done(&daemon, "/api/show", json!({ field: name }));
            assert_eq!(shown["details"]["format"], "gguf", "{field}: {name}");
        }
    }
    done(&daemon, "/api/create", json!({ "name": "n", "from": "m" }));
    assert_eq!(ask(&daemon, "DELETE", "/api/delete", r#"{"name":"n"}"#).status, 200);
}
