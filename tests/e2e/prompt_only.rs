//! Requests for no tokens: the prompt is computed, nothing is answered, and the next request finds the prompt in memory. Only to
//! Ollama no tokens are no limit.

use crate::openai;
use hearth_tests::{HttpEvents, TestDaemon, http};
use serde_json::{Value, json};

const TEXT: &str = "What is it that the river says to the stones, all night long?";

fn start() -> TestDaemon {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "Nothing.".into())]);
    daemon
}

/// A request for a chat or a text, with more.
fn asking(more: Value) -> Value {
    let mut body = json!({ "model": "tiny", "messages": [{ "role": "user", "content": TEXT }], "temperature": 0 });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// The values at these places.
fn told<const N: usize>(reply: &Value, places: [&str; N]) -> [Value; N] {
    places.map(|place| reply.pointer(place).unwrap_or_else(|| panic!("{place} in {reply}")).clone())
}

#[test]
fn in_hearths_own() {
    let daemon = start();
    let mut params =
        json!({ "model": "tiny", "prompt": TEXT, "options": { "max_tokens": 0, "candidates": 2 } });
    let mut ask = |method: &str| {
        let reply = daemon.raw().call(method, &params)["result"].clone();
        params["options"]["max_tokens"] = 4.into();
        reply
    };
    let none = ask("generate");
    assert_eq!(
        told(&none, ["/text", "/finish", "/usage/completion_tokens"]),
        [json!(""), json!("max_tokens"), json!(0)]
    );
    assert_eq!(
        told(&none, ["/others/0/text", "/others/0/finish"]),
        [json!(""), json!("max_tokens")]
    );
    let (read, found) =
        (&none["usage"]["prompt_tokens"], &ask("generate")["usage"]["cached_tokens"]);
    assert_eq!(found.as_u64().unwrap() + 1, read.as_u64().unwrap());
}

#[test]
fn in_openais() {
    let daemon = start();
    let usage = ["/usage/completion_tokens", "/choices/0/finish_reason"];
    for limit in ["max_tokens", "max_completion_tokens"] {
        let none = openai::answered(&daemon, "/v1/chat/completions", &asking(json!({ limit: 0 })));
        assert_eq!(told(&none, usage), [json!(0), json!("length")]);
        assert_eq!(none["choices"][0]["message"]["content"], "");
    }
    let counted = asking(json!({ "max_tokens": 0, "stream_options": { "include_usage": true } }));
    let chunks = openai::events(&daemon, "/v1/chat/completions", &counted);
    let ends: Vec<_> =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["finish_reason"].as_str()).collect();
    assert_eq!(
        (ends, &chunks.last().unwrap()["usage"]["completion_tokens"]),
        (vec!["length"], &json!(0))
    );
    // As tests of models ask for the probabilities of a text.
    let scored = asking(json!({ "prompt": TEXT, "max_tokens": 0, "echo": true, "logprobs": 1 }));
    let scored = openai::answered(&daemon, "/v1/completions", &scored);
    assert_eq!(told(&scored, usage), [json!(0), json!("length")]);
    assert_eq!(scored["choices"][0]["text"], TEXT);
    let pieces = scored["choices"][0]["logprobs"]["tokens"].as_array().unwrap();
    let pieces: String = pieces.iter().map(|piece| piece.as_str().unwrap()).collect();
    assert!(pieces.ends_with(TEXT), "{pieces}");
    let none = asking(json!({ "input": TEXT, "max_output_tokens": 0 }));
    let none = openai::answered(&daemon, "/v1/responses", &none);
    assert_eq!(
        told(&none, ["/status", "/incomplete_details/reason", "/usage/output_tokens", "/output"]),
        [json!("incomplete"), json!("max_output_tokens"), json!(0), json!([])]
    );
}

#[test]
fn in_anthropics() {
    let daemon = start();
    let post = |body: Value| http(&daemon.socket(), "POST", "/v1/messages", &body.to_string()).body;
    let ends =
        ["/stop_reason", "/content", "/usage/output_tokens", "/usage/cache_read_input_tokens"];
    assert_eq!(
        told(&post(asking(json!({ "max_tokens": 0 }))), ends),
        [json!("max_tokens"), json!([]), json!(0), json!(0)]
    );
    let streamed = asking(json!({ "max_tokens": 0, "stream": true })).to_string();
    let events: Vec<_> =
        HttpEvents::ask(&daemon.socket(), "POST", "/v1/messages", &streamed).collect();
    let names: Vec<_> =
        events.iter().map(|(name, _)| name.as_str()).filter(|name| *name != "ping").collect();
    assert_eq!(names, ["message_start", "message_delta", "message_stop"]);
    let usage = post(asking(json!({ "max_tokens": 9 })))["usage"].clone();
    assert_eq!(usage["input_tokens"], 1, "{usage}");
}

#[test]
fn in_ollamas() {
    let daemon = start();
    for (path, at) in [("/api/chat", "/message/content"), ("/api/generate", "/response")] {
        for limit in [0, -1] {
            let options = json!({ "num_predict": limit, "temperature": 0 });
            let body = asking(json!({ "prompt": TEXT, "options": options, "stream": false }));
            let reply = openai::answered(&daemon, path, &body);
            assert_eq!(told(&reply, [at, "/done_reason"]), [json!("Nothing."), json!("stop")]);
        }
    }
}
