//! What OpenAI's API and llama-server's have for plain texts: completions, and tokens.

use crate::openai::{answered, events, post, refused};
use hearth_tests::TestDaemon;
use serde_json::{Value, json};

#[test]
fn completions_of_several_prompts_are_numbered_in_order() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("eos_one_in", 0.into())]);
    let ask = |more: Value| {
        let mut body = json!({ "model": "tiny", "max_tokens": 8, "temperature": 0, "echo": true });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let text =
        |reply: &Value, index: usize| reply["choices"][index]["text"].as_str().unwrap().to_owned();
    let path = "/v1/completions";
    let both = answered(&daemon, path, &ask(json!({ "prompt": ["abc", "xyz"], "n": 2 })));
    assert_eq!(
        (&both["object"], &both["usage"]["completion_tokens"]),
        (&json!("text_completion"), &json!(32))
    );
    let mut streamed = vec![String::new(); 4];
    let more =
        json!({ "prompt": ["abc", "xyz"], "n": 2, "stream_options": { "include_usage": true } });
    let mut chunks = events(&daemon, path, &ask(more));
    assert_eq!(chunks.pop().unwrap()["usage"]["completion_tokens"], 32);
    for choice in chunks.iter().map(|chunk| &chunk["choices"][0]) {
        let index = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
        streamed[index] += choice["text"].as_str().unwrap();
    }
    assert_eq!(
        chunks.iter().filter(|chunk| chunk["choices"][0]["finish_reason"] == "length").count(),
        4
    );
    for (index, prompt) in ["abc", "abc", "xyz", "xyz"].into_iter().enumerate() {
        let alone = text(&answered(&daemon, path, &ask(json!({ "prompt": prompt }))), 0);
        assert!(alone.starts_with(prompt), "{alone:?}");
        assert_eq!((&text(&both, index), &streamed[index]), (&alone, &alone));
        assert_eq!(both["choices"][index]["index"], index);
    }
}

#[test]
fn a_prompt_of_tokens_is_the_text_that_they_are() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("eos_one_in", 0.into())]);
    let text = json!({ "model": "tiny", "content": "some text", "add_special": true });
    let tokens = answered(&daemon, "/tokenize", &text)["tokens"].clone();
    let ask = |prompt: Value| {
        let body = json!({ "model": "tiny", "max_tokens": 8, "temperature": 0, "prompt": prompt });
        let reply = answered(&daemon, "/v1/completions", &body);
        (reply["choices"][0]["text"].clone(), reply["usage"]["prompt_tokens"].clone())
    };
    assert_eq!(ask(tokens.clone()), ask(json!("some text")));
    assert_eq!(ask(json!([tokens])), ask(json!("some text")));
    let plain = answered(&daemon, "/tokenize", &json!({ "model": "tiny", "content": "ab" }));
    assert_eq!(plain["tokens"], json!([97, 98]));
    let back = answered(&daemon, "/detokenize", &json!({ "model": "tiny", "tokens": [97, 98] }));
    assert_eq!(back, json!({ "content": "ab" }));
    refused(post(&daemon, "/detokenize", &json!({ "tokens": [1] })), 400, "invalid_request_error");
}

#[test]
fn tokenize_tells_pieces_and_takes_texts_and_tokens() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[]);
    let tokens = |body: Value| answered(&daemon, "/tokenize", &body)["tokens"].clone();
    let piece = |id: i32, piece: Value| json!({ "id": id, "piece": piece });
    // A token of this model's is a byte: half a character is no text.
    let pieces = tokens(json!({ "model": "tiny", "content": "aé", "with_pieces": true }));
    let expected = [piece(97, "a".into()), piece(195, json!([195])), piece(169, json!([169]))];
    assert_eq!(pieces, json!(expected));
    let mixed = json!({ "model": "tiny", "content": ["a", 98, "c"], "add_special": true });
    let whole = json!({ "model": "tiny", "content": "abc", "add_special": true });
    assert_eq!(tokens(mixed), tokens(whole));
    let control = |parse_special| {
        let body = json!({ "model": "tiny", "content": "<|end|>", "parse_special": parse_special });
        tokens(body).as_array().unwrap().len()
    };
    assert_eq!((control(Value::Null), control(true.into()), control(false.into())), (1, 1, 7));
    assert_eq!(tokens(json!({ "model": "tiny" })), json!([]));
    refused(
        post(&daemon, "/tokenize", &json!({ "model": "tiny", "content": {} })),
        400,
        "invalid_request_error",
    );
}

#[test]
fn completions_tell_chances_as_they_always_did() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("eos_one_in", 0.into())]);
    let body =
        json!({ "model": "tiny", "prompt": "x", "max_tokens": 6, "temperature": 0, "logprobs": 2 });
    let choice = answered(&daemon, "/v1/completions", &body)["choices"][0].clone();
    let logprobs = &choice["logprobs"];
    let tokens: Vec<&str> = logprobs["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token.as_str().unwrap())
        .collect();
    assert_eq!(tokens.len(), 6);
    assert_eq!(logprobs["text_offset"][0], 0);
    assert_eq!(logprobs["text_offset"][1], tokens[0].chars().count());
    for (at, token) in tokens.iter().enumerate() {
        let top = &logprobs["top_logprobs"][at];
        assert_eq!(top[token], logprobs["token_logprobs"][at], "greedily the likeliest is chosen");
        assert!((1..=2).contains(&top.as_object().unwrap().len()), "{top}");
    }
}

#[test]
fn an_echo_tells_the_chances_of_the_prompt_too() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("eos_one_in", 0.into())]);
    daemon.model("bare", &[("eos_one_in", 0.into()), ("add_bos", false.into())]);
    let path = "/v1/completions";
    for model in ["tiny", "bare"] {
        let body = json!({ "model": model, "prompt": "once", "max_tokens": 3, "temperature": 0, "logprobs": 2, "echo": true });
        let choice = answered(&daemon, path, &body)["choices"][0].clone();
        let told = &choice["logprobs"];
        let list = |name: &str| told[name].as_array().unwrap().clone();
        assert_eq!(list("tokens")[..4], ["o", "n", "c", "e"]);
        assert_eq!(list("text_offset")[..5], [0, 1, 2, 3, 4]);
        assert_eq!(list("tokens").len(), 4 + 3);
        // Nothing stands before the first letter where no token begins every text.
        assert_eq!(list("token_logprobs")[0].is_null(), model == "bare");
        assert_eq!(list("top_logprobs")[0].is_null(), model == "bare");
        // What the model thinks of a prompt's letter is what it thinks of it as an answer.
        let alone = json!({ "model": model, "prompt": "on", "max_tokens": 1, "logprobs": 2, "logit_bias": { "99": 100 } });
        let alone = answered(&daemon, path, &alone)["choices"][0]["logprobs"].clone();
        assert_eq!(alone["tokens"][0], "c");
        assert_eq!(alone["token_logprobs"][0], list("token_logprobs")[2]);
        let mut streamed = json!({ "tokens": [], "token_logprobs": [], "top_logprobs": [] });
        let mut text = String::new();
        for event in events(&daemon, path, &body) {
            text += event["choices"][0]["text"].as_str().unwrap();
            for (name, list) in streamed.as_object_mut().unwrap() {
                let piece = event["choices"][0]["logprobs"][name].as_array().cloned();
                list.as_array_mut().unwrap().extend(piece.unwrap_or_default());
            }
        }
        assert_eq!(text, choice["text"].as_str().unwrap());
        for (name, streamed) in streamed.as_object().unwrap() {
            assert_eq!(*streamed, told[name], "{name}");
        }
    }
    // Longer than one piece of what is computed at once.
    let long = json!({ "model": "tiny", "prompt": "abc".repeat(100), "max_tokens": 1, "logprobs": 0, "echo": true });
    let told = answered(&daemon, path, &long)["choices"][0]["logprobs"].clone();
    assert_eq!(told["tokens"].as_array().unwrap().len(), 301);
    let over = json!({ "model": "tiny", "prompt": "x".repeat(5000), "max_tokens": 1, "logprobs": 0, "echo": true });
    refused(post(&daemon, path, &over), 400, "invalid_request_error");
}
