//! What only Ollama does, or does otherwise than one would think, and where Hearth differs on purpose. Each test is named for
//! one of these.

use crate::ollama::{ask, done, failed, lines, start};
use crate::templates::REASONS;
use hearth_tests::{TestDaemon, WebMessage, WebReply, WebRequest, eventually, web_ask};
use serde_json::{Value, json};

fn chat(more: Value) -> Value {
    let messages = json!([{ "role": "user", "content": "hi" }]);
    let mut body = json!({ "model": "m", "messages": messages, "options": { "temperature": 0 } });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn keep_alive_is_seconds_as_a_number_a_duration_of_gos_as_a_text_and_for_ever_below_zero() {
    let daemon = start();
    daemon.model("m", &[]);
    for (keep_alive, seconds) in [
        (Value::Null, Some(300.0)),
        (json!(1200), Some(1200.0)),
        (json!("10m"), Some(600.0)),
        (json!("1h30m"), Some(5400.0)),
        (json!("90000ms"), Some(90.0)),
        (json!(-1), None),
        (json!("-5m"), None),
        (json!("24h"), Some(86_400.0)),
    ] {
        done(&daemon, "/api/generate", json!({ "model": "m", "keep_alive": keep_alive }));
        let Some(seconds) = seconds else {
            daemon.await_idle();
            assert_eq!(daemon.loaded()[0].expires_s, None, "{keep_alive}");
            continue;
        };
        let left = eventually("the load to end", || daemon.loaded()[0].expires_s);
        assert!(left <= seconds && left > seconds / 2.0, "{keep_alive}: {left}");
    }
    for wrong in [json!("soon"), json!(true), json!({}), json!("5 minutes")] {
        let error = failed(&daemon, "/api/chat", &chat(json!({ "keep_alive": wrong })), 400);
        assert!(error.starts_with("keep_alive must be"), "{error}");
    }
}

/// The prompt of a chat.
fn rendered(daemon: &TestDaemon, messages: Value) -> String {
    let body = chat(json!({ "messages": messages, "_debug_render_only": true }));
    let prompt = done(daemon, "/api/chat", body)["_debug_info"]["rendered_template"].clone();
    let prompt = prompt.as_str().unwrap().to_owned();
    prompt.strip_prefix("<|bos|>").unwrap_or(&prompt).to_owned()
}

#[test]
fn system_messages_are_collated_and_templates_without_messages_are_rendered_turn_by_turn() {
    let said = |role: &str, content: &str| json!({ "role": role, "content": content });
    let messages = json!([
        said("SYSTEM", "one"),
        said("user", "a"),
        said("Assistant", "b"),
        said("system", "two"),
        said("User", "c"),
    ]);
    for (template, prompt) in [
        (
            r#"{{ .System }}|{{ range .Messages }}{{ if ne .Role "system" }}{{ .Content }};{{ end }}{{ end }}"#,
            "one\n\ntwo|a;b;c;",
        ),
        // `{{ .Response }}` is thought behind the last word of a template that has none.
        ("[{{ .System }}]{{ .Prompt }}>", "[one]a>b[two]c>"),
        ("[{{ .System }}]{{ .Prompt }}>{{ .Response }}!", "[one]a>b![two]c>"),
    ] {
        let daemon = start();
        daemon.model("m", &[]);
        daemon.add_layers("m", &[("template", template)]);
        assert_eq!(rendered(&daemon, messages.clone()), prompt, "{template}");
    }
}

#[test]
fn prompt_eval_count_counts_what_was_cached_too() {
    let daemon = start();
    daemon.model("m", &[("script", "Yes.".into())]);
    let [first, again] = [(); 2].map(|()| done(&daemon, "/api/chat", chat(json!({}))));
    assert_eq!(first["prompt_eval_count"], again["prompt_eval_count"]);
    // Ollama does not tell how much.
    assert!(first.get("cached_count").is_none(), "{first}");
    let count = first["prompt_eval_count"].as_u64().unwrap();
    assert_eq!(again["cached_count"], count - 1);
}

#[test]
fn no_option_loads_a_model_anew_although_ollama_does_for_num_ctx_and_shift() {
    let daemon = start();
    daemon.model("m", &[("script", "Yes.".into())]);
    done(&daemon, "/api/chat", chat(json!({})));
    let pid = daemon.worker_pid();
    for more in [
        json!({ "options": { "num_ctx": 512 } }),
        json!({ "options": { "num_batch": 32, "num_thread": 1, "num_gpu": 0, "use_mmap": false } }),
        json!({ "shift": false }),
    ] {
        done(&daemon, "/api/chat", chat(more));
        assert_eq!(daemon.worker_pid(), pid);
    }
}

#[test]
fn an_over_long_text_is_cut_unless_truncate_is_false() {
    let daemon = start();
    let context = ("context_length", 64_u64.into());
    daemon.model("m", &[context, ("can_embed", true.into())]);
    let long = "x".repeat(200);
    for (path, more) in [
        ("/api/generate", json!({ "prompt": long, "raw": true, "options": { "num_predict": 2 } })),
        ("/api/embed", json!({ "input": long })),
    ] {
        let mut body = json!({ "model": "m" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let cut = done(&daemon, path, body.clone());
        assert!(cut["prompt_eval_count"].as_u64().is_some_and(|count| count <= 64), "{cut}");
        body["truncate"] = false.into();
        let error = failed(&daemon, path, &body, 400);
        assert!(error.starts_with("the input length exceeds the context length"), "{error}");
    }
}

#[test]
fn a_stop_may_be_one_text_and_a_whole_number_may_be_written_as_any() {
    let daemon = start();
    daemon.model("m", &[("script", "one two three".into())]);
    let options = json!({ "stop": " two", "num_predict": 50.0, "seed": null, "temperature": 0 });
    let said = done(&daemon, "/api/chat", chat(json!({ "options": options })));
    assert_eq!(said["message"]["content"], "one");
}

#[test]
fn a_format_holds_for_the_answer_and_not_for_the_thoughts_before_it() {
    let daemon = start();
    daemon.model("m", &[("script", "<think>\nWhere?\n</think>\n\nThere.".into())]);
    daemon.add_layers("m", &[("template", REASONS)]);
    let schema = json!({ "type": "object", "properties": { "b": { "type": "boolean" } }, "required": ["b"] });
    let said = done(&daemon, "/api/chat", chat(json!({ "format": schema, "think": true })));
    assert_eq!(said["message"]["thinking"], "Where?");
    let answer: Value = serde_json::from_str(said["message"]["content"].as_str().unwrap()).unwrap();
    assert!(answer["b"].is_boolean(), "{answer}");
}

#[test]
fn a_call_without_arguments_is_one_and_a_failed_call_is_text_where_ollama_loses_both() {
    let daemon = start();
    let tool = |name: &str| json!({ "type": "function", "function": { "name": name, "parameters": { "type": "object", "properties": {} } } });
    let tools = json!([tool("now")]);
    let script = r#"<tool>{"name": "now", "arguments": {}}</tool>"#;
    daemon.model("m", &[("script", script.into())]);
    let body = chat(json!({ "tools": tools, "think": false }));
    let said = done(&daemon, "/api/chat", body.clone());
    let call = &said["message"]["tool_calls"][0];
    assert_eq!(call["function"], json!({ "index": 0, "name": "now", "arguments": {} }));
    // Not `call_` and eight of these: Mistral's templates take nine alone.
    let id = call["id"].as_str().unwrap();
    assert!(id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
    // A cut call.
    let mut cut = body;
    cut["options"] = json!({ "temperature": 0, "num_predict": 20 });
    let told: String = lines(&daemon, "/api/chat", &cut)
        .iter()
        .map(|line| line["message"]["content"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(told, script[..20]);
}

#[test]
fn tools_are_offered_to_models_whose_template_has_no_place_for_them_where_ollama_answers_400() {
    let daemon = start();
    daemon.model("m", &[("script", "Yes.".into())]);
    daemon.add_layers("m", &[("template", "{{ .Prompt }}")]);
    let tools = json!([{ "type": "function", "function": { "name": "t", "parameters": { "type": "object" } } }]);
    let plain = done(&daemon, "/api/chat", chat(json!({})));
    let offered = done(&daemon, "/api/chat", chat(json!({ "tools": tools })));
    let count = |said: &Value| said["prompt_eval_count"].as_u64().unwrap();
    assert!(count(&offered) > count(&plain), "{offered}");
}

#[test]
fn what_is_the_clouds_is_refused_and_a_model_of_ones_own_may_be_called_so() {
    let daemon = start();
    daemon.model("m", &[("script", "Yes.".into())]);
    for model in ["m:cloud", "gpt-oss:120b-cloud"] {
        for path in ["/api/chat", "/api/generate", "/api/show"] {
            let mut body = chat(json!({ "model": model, "prompt": "hi" }));
            let error = failed(&daemon, path, &body, 403);
            assert!(error.starts_with("Hearth has no cloud"), "{error}");
            body["model"] = "cloud".into();
            failed(&daemon, path, &body, 404);
        }
    }
    daemon.ctl(["cp", "m", "own:cloud"]).ok();
    done(&daemon, "/api/chat", chat(json!({ "model": "own:cloud" })));
    for (method, path) in [
        ("POST", "/api/me"),
        ("POST", "/api/signout"),
        ("DELETE", "/api/user/keys/x"),
        ("POST", "/api/experimental/web_search"),
        ("POST", "/api/experimental/web_fetch"),
        ("GET", "/api/experimental/model-recommendations"),
    ] {
        assert_eq!(ask(&daemon, method, path, "{}").status, 403, "{path}");
    }
}

#[test]
fn what_go_exposes_of_itself_is_not_here() {
    let daemon = start();
    for path in ["/debug/pprof/", "/debug/pprof/profile", "/debug/vars"] {
        assert_eq!(ask(&daemon, "GET", path, "").status, 404, "{path}");
    }
}

fn with(daemon: &TestDaemon, method: &str, path: &str, header: (&str, &str)) -> WebReply {
    let headers = [(header.0.to_owned(), header.1.to_owned())].into();
    let message = WebMessage { headers, body: b"{}".to_vec() };
    web_ask(&daemon.http(), &WebRequest { method: method.into(), path: path.into(), message })
}

#[test]
fn options_are_told_without_an_origin_too() {
    let daemon = start();
    for path in ["/", "/api/chat", "/v1/models", "/rpc", "/nothing"] {
        let reply = ask(&daemon, "OPTIONS", path, "");
        assert_eq!((reply.status, reply.message.body.len()), (204, 0), "{path}");
        assert!(reply.message.headers["access-control-allow-methods"].contains("POST"));
        assert!(!reply.message.headers.contains_key("access-control-allow-origin"));
    }
}

#[test]
fn a_compressed_body_is_refused_in_each_dialect_although_ollama_reads_zstd() {
    let daemon = start();
    for path in ["/api/chat", "/v1/responses", "/v1/messages"] {
        let reply = with(&daemon, "POST", path, ("content-encoding", "zstd"));
        let said = String::from_utf8(reply.message.body).unwrap();
        assert!(reply.status == 415 && said.contains("Content-Encoding"), "{path}: {said}");
        assert_ne!(with(&daemon, "POST", path, ("content-encoding", "identity")).status, 415);
    }
}
