//! Ollama's own API, as its clients speak it: what `/api/generate` and `/api/chat` answer, and how they fail.

use crate::templates::{REASONS, TEMPLATE, answer};
use hearth_reference::Value as Setting;
use hearth_tests::{TestDaemon, WebMessage, WebReply, WebRequest, eventually_is, http, web_ask};
use serde_json::{Value, json};

pub(crate) const TCP: &str = "[http]\nlisten = [\"127.0.0.1:0\"]";

/// A daemon that also listens on TCP.
pub(crate) fn start() -> TestDaemon {
    TestDaemon::builder().config(TCP).start()
}

#[track_caller]
pub(crate) fn ask(daemon: &TestDaemon, method: &str, path: &str, body: &str) -> WebReply {
    let message = WebMessage { body: body.into(), ..WebMessage::default() };
    let request = WebRequest { method: method.into(), path: path.into(), message };
    web_ask(&daemon.http(), &request)
}

/// What is answered as one value, with its status.
#[track_caller]
pub(crate) fn post(daemon: &TestDaemon, path: &str, body: &Value) -> (u16, Value) {
    let reply = ask(daemon, "POST", path, &body.to_string());
    assert_eq!(reply.message.headers["content-type"], "application/json; charset=utf-8");
    (reply.status, serde_json::from_slice(&reply.message.body).unwrap())
}

/// The same, which must succeed.
#[track_caller]
pub(crate) fn done(daemon: &TestDaemon, path: &str, mut body: Value) -> Value {
    body["stream"] = false.into();
    let (status, reply) = post(daemon, path, &body);
    assert_eq!(status, 200, "{reply}");
    reply
}

/// The same, which must not; the text of the error.
#[track_caller]
pub(crate) fn failed(daemon: &TestDaemon, path: &str, body: &Value, status: u16) -> String {
    let (found, reply) = post(daemon, path, body);
    assert_eq!(found, status, "{reply}");
    assert_eq!(reply.as_object().unwrap().len(), 1, "{reply}");
    reply["error"].as_str().unwrap().to_owned()
}

/// What is answered line by line.
#[track_caller]
pub(crate) fn lines(daemon: &TestDaemon, path: &str, body: &Value) -> Vec<Value> {
    let reply = ask(daemon, "POST", path, &body.to_string());
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.message.body));
    assert_eq!(reply.message.headers["content-type"], "application/x-ndjson");
    let text = String::from_utf8(reply.message.body).unwrap();
    assert!(text.ends_with('\n'), "{text:?}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Both ways to ask for text, with where the answer's text stands.
const BOTH: [(&str, &str); 2] = [("/api/generate", "/response"), ("/api/chat", "/message/content")];

/// A request to either, greedy.
fn asking(path: &str, model: &str, text: &str) -> Value {
    let options = json!({ "temperature": 0 });
    match path {
        "/api/generate" => json!({ "model": model, "prompt": text, "options": options }),
        _ => {
            json!({ "model": model, "messages": [{ "role": "user", "content": text }], "options": options })
        }
    }
}

fn text_of(line: &Value, field: &str) -> String {
    line.pointer(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn endless(daemon: &TestDaemon, name: &str, more: &[(&str, Setting)]) {
    let settings = [&[("context_length", 128.into()), ("eos_one_in", 0.into())], more].concat();
    daemon.model(name, &settings);
}

#[test]
fn an_answer_streams_unless_told_not_to_and_its_last_line_has_the_figures() {
    let daemon = start();
    daemon.model("m", &[("script", "It is the sea.".into())]);
    for (path, field) in BOTH {
        let lines = lines(&daemon, path, &asking(path, "m", "hi"));
        let (last, others) = lines.split_last().unwrap();
        assert!(!others.is_empty(), "{lines:?}");
        for line in others {
            assert_eq!((&line["model"], &line["done"]), (&json!("m"), &json!(false)));
            assert!(line["created_at"].as_str().unwrap().ends_with('Z'));
            assert!(line.get("done_reason").is_none() && line.get("total_duration").is_none());
        }
        let text: String = others.iter().map(|line| text_of(line, field)).collect();
        assert_eq!(text, "It is the sea.");
        assert_eq!((&last["done"], &last["done_reason"]), (&json!(true), &json!("stop")));
        assert_eq!(text_of(last, field), "");

        let whole = done(&daemon, path, asking(path, "m", "hi"));
        assert_eq!(text_of(&whole, field), text);
        for last in [last, &whole] {
            let number =
                |name: &str| last[name].as_u64().unwrap_or_else(|| panic!("{name}: {last}"));
            let parts = ["load_duration", "prompt_eval_duration", "eval_duration"].map(number);
            assert!(number("total_duration") > parts[1] + parts[2], "{last}");
            assert!(number("prompt_eval_count") > 1 && number("eval_count") >= 14, "{last}");
        }
        // On the Unix socket it is the same.
        let mut body = asking(path, "m", "hi");
        body["stream"] = false.into();
        let reply = http(&daemon.socket(), "POST", path, &body.to_string());
        assert_eq!((reply.status, text_of(&reply.body, field)), (200, text));
    }
}

#[test]
fn a_request_without_a_question_loads_and_with_keep_alive_0_unloads() {
    let daemon = start();
    daemon.model("m", &[]);
    for (path, empty) in [
        ("/api/generate", json!({ "model": "m" })),
        ("/api/chat", json!({ "model": "m", "messages": [] })),
    ] {
        let unload = json!({ "model": "m", "keep_alive": 0 });
        let said = post(&daemon, path, &empty).1;
        assert_eq!((&said["done"], &said["done_reason"]), (&json!(true), &json!("load")));
        assert_eq!(daemon.loaded().len(), 1);
        for _ in 0..2 {
            let said = post(&daemon, path, &unload).1;
            assert_eq!(said["done_reason"], "unload", "{said}");
            eventually_is("the model to go", || daemon.loaded().is_empty());
        }
        let n_workers = daemon.log().matches("Model loaded").count();
        post(&daemon, path, &unload);
        assert_eq!(daemon.log().matches("Model loaded").count(), n_workers);
        assert!(text_of(&said, "/response").is_empty());
        let none = failed(&daemon, path, &json!({ "model": "none", "keep_alive": 0 }), 404);
        assert!(none.starts_with("model 'none' not found"), "{none}");
    }
    let said = post(&daemon, "/api/chat", &json!({ "model": "m" })).1;
    assert_eq!(said["message"], json!({ "role": "assistant", "content": "" }));
}

#[test]
fn raw_text_stands_as_it_is_and_goes_with_nothing_that_would_change_it() {
    let daemon = start();
    daemon.model("m", &[("seed", 7.into())]);
    daemon.add_layers("m", &[("template", TEMPLATE)]);
    let mut raw = asking("/api/generate", "m", "<|user|>hello");
    raw["raw"] = true.into();
    for (field, value) in
        [("system", json!("s")), ("template", json!("t")), ("context", json!([1, 2]))]
    {
        let mut body = raw.clone();
        body[field] = value;
        let error = failed(&daemon, "/api/generate", &body, 400);
        assert_eq!(error, "raw mode does not support template, system, or context");
    }
    raw["options"]["num_predict"] = 20.into();
    let said = done(&daemon, "/api/generate", raw);
    let bos_less = hearth_reference::vocab::tokenize(b"<|user|>hello", true);
    let settings = hearth_reference::Settings::from_pairs(&[("seed", 7.into())]).unwrap();
    let expected = hearth_reference::expected(&settings, &bos_less, 20);
    let expected: String =
        expected.iter().filter_map(|token| u8::try_from(*token).ok()).map(char::from).collect();
    assert_eq!(text_of(&said, "/response"), expected);
    assert!(said.get("context").is_none());
}

#[test]
fn a_format_is_json_or_a_schema_and_an_empty_one_is_none() {
    let daemon = start();
    daemon.model("m", &[("seed", 7.into())]);
    let schema = json!({
        "type": "object", "required": ["b", "a"],
        "properties": { "b": { "enum": [1, 2] }, "a": { "type": "boolean" } },
    });
    for (path, field) in BOTH {
        let mut body = asking(path, "m", "hi");
        body["format"] = schema.clone();
        let text = text_of(&done(&daemon, path, body.clone()), field);
        let value: Value = serde_json::from_str(&text).unwrap();
        // In the schema's order, where Ollama sorts.
        assert!(value["a"].is_boolean() && text.find("\"b\"") < text.find("\"a\""), "{text}");

        body["format"] = "json".into();
        body["options"]["num_predict"] = 1.into();
        assert_eq!(text_of(&done(&daemon, path, body.clone()), field), "{");
        body["format"] = "".into();
        let plain = done(&daemon, path, body.clone());
        body["format"] = Value::Null;
        assert_eq!(text_of(&plain, field), text_of(&done(&daemon, path, body.clone()), field));
        body["format"] = "yaml".into();
        let error = failed(&daemon, path, &body, 400);
        assert!(error.starts_with("invalid format: \"yaml\"; expected \"json\""), "{error}");
    }
}

#[test]
fn whether_to_think_is_a_truth_or_a_level_and_only_of_models_that_can() {
    let daemon = start();
    let script = "<think>\nWhere?\n</think>\n\nThere.";
    for (name, template) in [("thinks", REASONS), ("plain", TEMPLATE)] {
        daemon.model(name, &[("script", script.into())]);
        daemon.add_layers(name, &[("template", template)]);
    }
    for (path, field) in BOTH {
        let thoughts = field.replace("response", "thinking").replace("content", "thinking");
        for think in
            [Value::Null, true.into(), "low".into(), "medium".into(), "high".into(), "max".into()]
        {
            let mut body = asking(path, "thinks", "hi");
            body["think"] = think;
            let streamed = lines(&daemon, path, &body);
            let told: String = streamed.iter().map(|line| text_of(line, &thoughts)).collect();
            assert_eq!(told, "Where?");
            let said = done(&daemon, path, body);
            assert_eq!(text_of(&said, field), "There.");
            assert_eq!(text_of(&said, &thoughts), "Where?");
        }
        let mut body = asking(path, "plain", "hi");
        body["think"] = false.into();
        assert_eq!(text_of(&done(&daemon, path, body.clone()), field), script);
        body["think"] = true.into();
        let error = failed(&daemon, path, &body, 400);
        assert_eq!(error, "\"plain\" does not support thinking");
        body["think"] = "much".into();
        let error = failed(&daemon, path, &body, 400);
        assert!(error.starts_with("invalid think value: \"much\""), "{error}");
    }
}

#[test]
fn options_nobody_knows_are_ignored_and_wrong_types_are_the_clients_mistake() {
    let daemon = start();
    daemon.model("m", &[("script", "one two three four".into())]);
    for (path, field) in BOTH {
        let mut body = asking(path, "m", "hi");
        body["options"] = json!({
            "num_ctx": 256, "num_batch": 64, "num_gpu": -1, "main_gpu": 0, "use_mmap": true,
            "num_thread": 2, "num_keep": 4, "seed": -1, "num_predict": -1, "top_k": 40, "top_p": 0.9,
            "min_p": 0, "typical_p": 1, "repeat_last_n": -1, "temperature": 0, "repeat_penalty": 1,
            "presence_penalty": 0, "frequency_penalty": 0, "stop": ["three"], "numa": false,
            "penalize_newline": true, "mirostat": 0, "mirostat_tau": 5, "mirostat_eta": 0.1,
            "nonsense": [1],
        });
        assert_eq!(text_of(&done(&daemon, path, body.clone()), field), "one two ");
        // Ollama answers 500.
        body["options"] = json!({ "num_ctx": "big" });
        let error = failed(&daemon, path, &body, 400);
        assert_eq!(error, "option \"num_ctx\" must be of type integer");
    }
}

#[test]
fn logprobs_come_with_each_piece_and_at_most_20_others() {
    let daemon = start();
    daemon.model("m", &[("script", "abc".into())]);
    for (path, field) in BOTH {
        let mut body = asking(path, "m", "hi");
        body["logprobs"] = true.into();
        body["top_logprobs"] = 2.into();
        let told: Vec<Value> = lines(&daemon, path, &body)
            .iter()
            .flat_map(|line| line["logprobs"].as_array().cloned().unwrap_or_default())
            .collect();
        assert_eq!(told.len(), 3);
        assert_eq!((&told[0]["token"], &told[0]["bytes"]), (&json!("a"), &json!([97])));
        assert!(told[0]["logprob"].as_f64().unwrap() <= 0.0);
        assert_eq!(told[0]["top_logprobs"].as_array().unwrap().len(), 2);
        let whole = done(&daemon, path, body.clone());
        assert_eq!(
            (whole["logprobs"].as_array().unwrap(), &*text_of(&whole, field)),
            (&told, "abc")
        );
        for top in [-1, 21] {
            body["top_logprobs"] = top.into();
            let error = failed(&daemon, path, &body, 400);
            assert_eq!(error, "top_logprobs must be between 0 and 20");
        }
    }
}

#[test]
fn a_context_sent_back_continues_the_conversation() {
    let daemon = start();
    daemon.model("m", &[("seed", 7.into())]);
    daemon.add_layers("m", &[("template", TEMPLATE)]);
    let mut first = asking("/api/generate", "m", "first");
    first["options"]["num_predict"] = 30.into();
    first["system"] = "Be brief.".into();
    let streamed = lines(&daemon, "/api/generate", &first);
    let said = done(&daemon, "/api/generate", first);
    assert_eq!(streamed.last().unwrap()["context"], said["context"]);

    let mut second = asking("/api/generate", "m", "second");
    second["context"] = said["context"].clone();
    let continued = text_of(&done(&daemon, "/api/generate", second.clone()), "/response");
    let reply = text_of(&said, "/response");
    let prompt = format!(
        "<|user|>system: Be brief.<|end|><|user|>user: first<|end|><|user|>assistant: {reply}<|end|>\
         <|user|>user: second<|end|><|assistant|>"
    );
    assert_eq!(continued, answer(&[("seed", 7.into())], &prompt));

    second["system"] = "Be long.".into();
    let continued = text_of(&done(&daemon, "/api/generate", second.clone()), "/response");
    let prompt = prompt.replace("brief", "long");
    assert_eq!(continued, answer(&[("seed", 7.into())], &prompt));

    second["context"] = json!([32_000, 1, 2]);
    let error = failed(&daemon, "/api/generate", &second, 400);
    assert!(error.contains("not from an answer of this daemon's"), "{error}");
}

#[test]
fn a_template_of_the_requests_own_goes_before_the_models() {
    let daemon = start();
    daemon.model("m", &[("seed", 7.into())]);
    daemon.add_layers("m", &[("template", TEMPLATE)]);
    let mut body = asking("/api/generate", "m", "hello");
    let with_the_models = text_of(&done(&daemon, "/api/generate", body.clone()), "/response");
    body["template"] = "{{ .System }}!<|user|>{{ .Prompt }}<|assistant|>".into();
    body["system"] = "Go".into();
    let said = done(&daemon, "/api/generate", body.clone());
    let expected = answer(&[("seed", 7.into())], "Go!<|user|>hello<|assistant|>");
    assert_eq!(text_of(&said, "/response"), expected);
    // For that request alone.
    let again = done(&daemon, "/api/generate", asking("/api/generate", "m", "hello"));
    assert_eq!(text_of(&again, "/response"), with_the_models);
    body["template"] = "{{ .Prompt".into();
    let error = failed(&daemon, "/api/generate", &body, 400);
    assert!(error.starts_with("the request's `template` cannot be read"), "{error}");
}

#[test]
fn tool_calls_have_ids_an_order_and_arguments_that_are_an_object() {
    let daemon = start();
    let script =
        r#"Let me see. <tool>{"name": "weather", "arguments": {"city": "Oslo", "at": 2}}</tool>"#;
    daemon.model("m", &[("script", script.into())]);
    let mut body = asking("/api/chat", "m", "How is Oslo?");
    body["tools"] = json!([{ "type": "function", "function": {
        "name": "weather", "description": "Of a city",
        "parameters": { "type": "object", "properties": { "city": { "type": "string" }, "at": { "type": "integer" } } },
    } }]);
    let streamed: Vec<Value> = lines(&daemon, "/api/chat", &body)
        .iter()
        .flat_map(|line| line["message"]["tool_calls"].as_array().cloned().unwrap_or_default())
        .collect();
    let said = done(&daemon, "/api/chat", body);
    assert_eq!(said["done_reason"], "stop");
    for calls in [&streamed, said["message"]["tool_calls"].as_array().unwrap()] {
        assert_eq!(calls.len(), 1);
        assert!(calls[0]["id"].as_str().unwrap().len() > 4);
        let function =
            json!({ "index": 0, "name": "weather", "arguments": { "city": "Oslo", "at": 2 } });
        assert_eq!(calls[0]["function"].to_string(), function.to_string());
    }
}

#[test]
fn a_full_context_is_shifted_where_it_can_be_and_ends_the_answer_where_not() {
    let daemon = start();
    endless(&daemon, "soft", &[]);
    endless(&daemon, "rigid", &[("can_shift", false.into())]);
    for (path, _) in BOTH {
        let mut body = asking(path, "soft", "hi");
        body["options"]["num_predict"] = 300.into();
        let said = done(&daemon, path, body.clone());
        assert_eq!((&said["eval_count"], &said["done_reason"]), (&json!(300), &json!("length")));
        // Ollama does it in silence.
        assert!(said["shifted_count"].as_u64().unwrap() > 0, "{said}");
        for (model, shift) in [("soft", false), ("rigid", true)] {
            body["model"] = model.into();
            body["shift"] = shift.into();
            let said = done(&daemon, path, body.clone());
            assert_eq!(said["done_reason"], "length");
            assert!(said["eval_count"].as_u64().unwrap() < 128, "{said}");
        }
    }
}

#[test]
fn a_chat_that_is_too_long_loses_its_oldest_turns_and_says_so() {
    let daemon = start();
    endless(&daemon, "m", &[]);
    let turn = |n| json!([{ "role": "user", "content": format!("question {n}") }, { "role": "assistant", "content": "answer" }]);
    let mut messages: Vec<Value> =
        (0..9).flat_map(|n| turn(n).as_array().unwrap().clone()).collect();
    messages.push(json!({ "role": "user", "content": "and now?" }));
    let mut body = json!({ "model": "m", "messages": messages, "options": { "num_predict": 4 } });
    let said = done(&daemon, "/api/chat", body.clone());
    assert!(said["dropped_messages"].as_u64().unwrap() >= 2, "{said}");
    body["truncate"] = false.into();
    let error = failed(&daemon, "/api/chat", &body, 400);
    assert!(error.starts_with("the input length exceeds the context length"), "{error}");
    assert!(error.contains("128"), "{error}");
}

#[test]
fn a_suffix_goes_where_the_template_has_a_place_for_it() {
    let daemon = start();
    daemon.model("m", &[("seed", 7.into())]);
    let template =
        "{{ if .Suffix }}<pre>{{ .Prompt }}<suf>{{ .Suffix }}<mid>{{ else }}{{ .Prompt }}{{ end }}";
    daemon.add_layers("m", &[("template", template)]);
    let mut body = asking("/api/generate", "m", "before");
    body["suffix"] = "after".into();
    let said = text_of(&done(&daemon, "/api/generate", body.clone()), "/response");
    assert_eq!(said, answer(&[("seed", 7.into())], "<pre>before<suf>after<mid>"));
    let body = json!({ "model": "m", "prompt": "before", "suffix": "after", "temperature": 0 });
    let completed = done(&daemon, "/v1/completions", body);
    assert!(text_of(&completed, "/choices/0/text").starts_with(&said[..said.len().min(15)]));
}

#[test]
fn debug_render_only_shows_the_prompt_and_answers_nothing() {
    let daemon = start();
    daemon.model("m", &[("crash_after", 0.into())]);
    daemon.add_layers("m", &[("template", TEMPLATE), ("system", "Be brief.")]);
    let prompt = "<|user|>system: Be brief.<|end|><|user|>user: hi<|end|><|assistant|>";
    for (path, field) in BOTH {
        let mut body = asking(path, "m", "hi");
        body["_debug_render_only"] = true.into();
        let shown = done(&daemon, path, body);
        let rendered = text_of(&shown, "/_debug_info/rendered_template");
        assert!(rendered.ends_with(prompt), "{rendered}");
        assert_eq!((&shown["done"], text_of(&shown, field)), (&json!(false), String::new()));
    }
    let mut body = asking("/api/chat", "m", "hi");
    body["_debug_render_only"] = true.into();
    let shown = done(&daemon, "/v1/chat/completions", body.clone());
    let rendered = text_of(&shown, "/_debug_info/rendered_template");
    assert!(rendered.ends_with(prompt) && shown["choices"] == json!([]), "{shown}");
    // llama-server's way to ask for the same.
    assert_eq!(done(&daemon, "/apply-template", body), json!({ "prompt": rendered }));
    let raw =
        json!({ "model": "m", "prompt": "as it is", "raw": true, "_debug_render_only": true });
    let shown = done(&daemon, "/api/generate", raw);
    assert_eq!(text_of(&shown, "/_debug_info/rendered_template"), "as it is");
}

#[test]
fn mistakes_have_the_statuses_and_words_that_clients_look_for() {
    let daemon = start();
    daemon.model("m", &[]);
    for path in
        ["/api/generate", "/api/chat", "/api/embed", "/api/embeddings", "/api/show", "/api/pull"]
    {
        let reply = ask(&daemon, "POST", path, "");
        let body: Value = serde_json::from_slice(&reply.message.body).unwrap();
        assert_eq!(
            (reply.status, body),
            (400, json!({ "error": "missing request body" })),
            "{path}"
        );
        assert_eq!(failed(&daemon, path, &json!({}), 400), "model is required", "{path}");
        assert_eq!(ask(&daemon, "POST", path, "{").status, 400);
        assert_eq!(ask(&daemon, "GET", path, "").status, 405);
        assert_eq!(ask(&daemon, "PUT", path, "{}").status, 405);
        if path != "/api/pull" {
            let body = json!({ "model": "x", "prompt": "a", "input": "a", "messages": [{ "role": "user", "content": "a" }] });
            let error = failed(&daemon, path, &body, 404);
            assert!(error.starts_with("model 'x' not found"), "{path}: {error}");
        }
    }
    let role = json!({ "model": "m", "messages": [{ "role": "robot", "content": "" }] });
    assert!(failed(&daemon, "/api/chat", &role, 400).contains("`robot`"));
    let image = json!({ "model": "m", "prompt": "what is this?", "images": ["aGVsbG8="] });
    let error = failed(&daemon, "/api/generate", &image, 400);
    assert!(error.contains("image input"), "{error}");
    let infill = json!({ "model": "m", "prompt": "a", "suffix": "b" });
    assert_eq!(failed(&daemon, "/api/generate", &infill, 400), "\"m\" does not support insert");
    assert_eq!(ask(&daemon, "GET", "/api/nothing", "").status, 404);
    for (method, path) in [
        ("POST", "/api/me"),
        ("POST", "/api/signout"),
        ("DELETE", "/api/user/keys/x"),
        ("POST", "/api/experimental/web_search"),
    ] {
        let reply = ask(&daemon, method, path, "{}");
        let text = String::from_utf8(reply.message.body).unwrap();
        assert!(reply.status == 403 && text.contains("no cloud"), "{path}: {text}");
    }
}

#[test]
fn an_error_in_the_middle_of_a_stream_is_its_last_line() {
    let daemon = start();
    endless(&daemon, "failing", &[("fail_decode_after", 3.into())]);
    for (path, field) in BOTH {
        let lines = lines(&daemon, path, &asking(path, "failing", "hi"));
        assert!(!text_of(&lines[0], field).is_empty(), "{lines:?}");
        let last = lines.last().unwrap();
        assert!(last["error"].is_string() && last.get("done").is_none(), "{last}");
        // Before the first piece it is the whole answer.
        daemon.model("broken", &[("fail_open", true.into())]);
        failed(&daemon, path, &asking(path, "broken", "hi"), 500);
    }
}
