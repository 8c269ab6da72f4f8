//! OpenAI's API where Ollama has quirks or gaps: every field of its answers, defaults that go before a model's own, and what it
//! does not take and Hearth does.

use crate::openai::{answered, events};
use hearth_tests::{TestDaemon, http};
use serde_json::{Value, json};
use std::fs::File;
use std::time::{Duration, SystemTime};

/// There, be it null.
#[track_caller]
fn has(answer: &Value, fields: &str) {
    let object = answer.as_object().unwrap_or_else(|| panic!("{answer}"));
    for field in fields.split(' ') {
        assert!(object.contains_key(field), "`{field}`: {answer}");
    }
}

fn chat(more: Value) -> Value {
    let messages = json!([{ "role": "user", "content": "hi" }]);
    let mut body = json!({ "model": "m", "messages": messages, "temperature": 0 });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn every_answer_has_every_field() {
    let daemon = TestDaemon::start();
    daemon.model("m", &[("script", "Yes.".into())]);
    let more =
        json!({ "logprobs": true, "top_logprobs": 1, "stream_options": { "include_usage": true } });
    let whole = answered(&daemon, "/v1/chat/completions", &chat(more.clone()));
    has(&whole, "id object created model system_fingerprint choices usage");
    has(&whole["choices"][0], "index message finish_reason logprobs");
    has(&whole["choices"][0]["message"], "role content");
    let place = &whole["choices"][0]["logprobs"]["content"][0];
    has(place, "token logprob bytes top_logprobs");
    has(&place["top_logprobs"][0], "token logprob bytes");
    has(&whole["usage"], "prompt_tokens completion_tokens total_tokens");
    let text =
        json!({ "model": "m", "prompt": "hi", "temperature": 0, "logprobs": 1, "max_tokens": 2 });
    let completion = answered(&daemon, "/v1/completions", &text);
    has(&completion, "id object created model system_fingerprint choices usage");
    has(&completion["choices"][0], "text index finish_reason logprobs");
    for (path, body, fields) in [
        ("/v1/chat/completions", chat(more), "index delta finish_reason"),
        ("/v1/completions", text, "index text finish_reason"),
    ] {
        for chunk in events(&daemon, path, &body) {
            has(&chunk, "id object created model system_fingerprint choices");
            chunk["choices"].as_array().unwrap().iter().for_each(|choice| has(choice, fields));
        }
    }
    let embedded = answered(&daemon, "/v1/embeddings", &json!({ "model": "m", "input": "hi" }));
    has(&embedded, "object data model usage");
    has(&embedded["data"][0], "object embedding index");
    has(&embedded["usage"], "prompt_tokens total_tokens");
    let models = http(&daemon.socket(), "GET", "/v1/models", "").body;
    has(&models["data"][0], "id object created owned_by");
    let response = answered(&daemon, "/v1/responses", &json!({ "model": "m", "input": "hi" }));
    has(
        &response,
        "id object created_at completed_at status incomplete_details model previous_response_id instructions output error \
         tools tool_choice truncation parallel_tool_calls text top_p presence_penalty frequency_penalty top_logprobs \
         temperature reasoning usage max_output_tokens max_tool_calls store background service_tier metadata \
         safety_identifier prompt_cache_key",
    );
    has(
        &response["usage"],
        "input_tokens output_tokens total_tokens input_tokens_details output_tokens_details",
    );
    let error = http(&daemon.socket(), "POST", "/v1/chat/completions", "{}").body;
    has(&error["error"], "message type param code");
}

#[test]
fn temperature_and_top_p_are_1_where_they_are_missing_whatever_the_model_says() {
    let daemon = TestDaemon::start();
    daemon.model("m", &[("eos_one_in", 0_u64.into())]);
    daemon.add_layers("m", &[("params", r#"{"temperature": 0, "top_p": 0.01}"#)]);
    let ask = |more: Value| {
        let mut body = json!({ "model": "m", "prompt": "x", "max_tokens": 20, "seed": 3 });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        answered(&daemon, "/v1/completions", &body)["choices"][0]["text"].clone()
    };
    assert_eq!(ask(json!({})), ask(json!({ "temperature": 1.0, "top_p": 1.0 })));
    assert_ne!(ask(json!({})), ask(json!({ "temperature": 0 })));
    assert_eq!(ask(json!({ "temperature": null, "top_p": null })), ask(json!({})));
}

#[test]
fn every_reasoning_effort_is_taken_in_both_places() {
    let daemon = TestDaemon::start();
    daemon.model("m", &[("script", "<think>hm</think>Yes.".into())]);
    for effort in ["none", "minimal", "low", "medium", "high", "xhigh", "ultra", "max"] {
        for more in
            [json!({ "reasoning_effort": effort }), json!({ "reasoning": { "effort": effort } })]
        {
            let message =
                &answered(&daemon, "/v1/chat/completions", &chat(more))["choices"][0]["message"];
            let thought = message["reasoning"].as_str();
            assert_eq!(thought, (effort != "none").then_some("hm"), "{effort}: {message}");
        }
        let body = json!({ "model": "m", "input": "hi", "temperature": 0, "reasoning": { "effort": effort } });
        let response = answered(&daemon, "/v1/responses", &body);
        let first = if effort == "none" { "message" } else { "reasoning" };
        assert_eq!(response["output"][0]["type"], first, "{effort}");
    }
}

#[test]
fn a_model_was_created_when_it_was_modified() {
    let daemon = TestDaemon::start();
    daemon.model("m", &[]);
    let manifest = daemon.dir().join("models/manifests/registry.ollama.ai/library/m/latest");
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    File::open(manifest).unwrap().set_modified(modified).unwrap();
    let models = http(&daemon.socket(), "GET", "/v1/models", "").body;
    assert_eq!(models["data"][0]["created"], 1_700_000_000);
}

#[test]
fn fields_that_mean_nothing_here_are_ignored_as_by_ollama() {
    let daemon = TestDaemon::start();
    daemon.model("m", &[("script", "Yes.".into())]);
    let more = json!({
        "user": "somebody", "store": true, "metadata": { "a": "b" }, "service_tier": "auto", "keep_alive": 5, "num_ctx": 512,
        "top_k": 1, "min_p": 0.1, "stream_options": null, "response_format": null, "tools": null, "stop": null,
    });
    let reply = answered(&daemon, "/v1/chat/completions", &chat(more));
    assert_eq!(reply["choices"][0]["message"]["content"], "Yes.");
}
