//! A real embedding model, all-MiniLM-L6-v2, compared with another implementation of it.
//!
//! `minilm.json` holds, of each text, the tokens that Hugging Face's `tokenizers` 0.23 makes of it with the model's
//! own tokenizer.json, and 10,000 times the embedding: a forward pass of BERT written in NumPy over model.safetensors in
//! 64-bit floats, the mean over all tokens, normalised.

use super::start_with;
use hearth_protocol::{
    Client, Embed, EmbedInput, EmbedParams, ErrorKind, Tokenize, TokenizeParams,
};
use hearth_tests::{TestDaemon, chat, embed, http, refused, repository};
use serde_json::{Value, json};

const MODEL: &str = "all-minilm";

struct Known {
    text: String,
    tokens: Vec<i32>,
    embedding: Vec<f32>,
}

fn known() -> Vec<Known> {
    let json = std::fs::read(repository().join("tests/real/minilm.json")).unwrap();
    let entries: Vec<Value> = serde_json::from_slice(&json).unwrap();
    entries
        .into_iter()
        .map(|mut entry| Known {
            text: entry["text"].as_str().unwrap().into(),
            tokens: serde_json::from_value(entry["tokens"].take()).unwrap(),
            embedding: serde_json::from_value(entry["embedding"].take()).unwrap(),
        })
        .collect()
}

fn start() -> TestDaemon {
    start_with("HEARTH_TEST_MINILM", MODEL)
}

#[track_caller]
fn embeddings(client: &mut Client, input: EmbedInput) -> Vec<Vec<f32>> {
    client.call::<Embed>(&embed(MODEL, input)).unwrap().embeddings
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn its_tokens_are_those_of_its_own_tokenizer() {
    let daemon = start();
    let mut client = daemon.client();
    for known in known() {
        let params = TokenizeParams {
            model: MODEL.into(),
            text: known.text.clone(),
            add_special: true,
            parse_special: false,
            pieces: false,
        };
        assert_eq!(
            client.call::<Tokenize>(&params).unwrap().tokens,
            known.tokens,
            "{}",
            known.text
        );
    }
}

#[test]
fn its_embeddings_are_those_of_another_implementation() {
    let daemon = start();
    let mut client = daemon.client();
    let known = known();
    let texts = known.iter().map(|known| known.text.clone()).collect();
    let together = embeddings(&mut client, EmbedInput::Many(texts));
    assert_eq!(together.len(), known.len());
    for (known, found) in known.iter().zip(together) {
        assert_eq!(found.len(), known.embedding.len());
        let near = cosine(&found, &known.embedding);
        assert!(near > 0.999, "{near} for {}", known.text);
        let length = found.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!((length - 1.0).abs() < 1e-4, "{length}");
        let alone = embeddings(&mut client, EmbedInput::One(known.text.clone()));
        assert!(cosine(&alone[0], &found) > 0.9999, "{}", known.text);
    }
}

#[test]
fn a_text_longer_than_it_can_see_is_refused_with_the_numbers() {
    let daemon = start();
    let input = EmbedInput::One("word ".repeat(511));
    let params = embed(MODEL, input);
    let error = refused(daemon.client().call::<Embed>(&params), ErrorKind::ContextOverflow);
    assert!(error.message.contains("513") && error.message.contains("512"), "{error:?}");
    let longest = embeddings(&mut daemon.client(), EmbedInput::One("word ".repeat(510)));
    assert_eq!(longest[0].len(), 384);
    // What is left of it is the beginning, with the tokens that the model expects around it.
    let params = EmbedParams { truncate: true, ..params };
    let cut = daemon.client().call::<Embed>(&params).unwrap();
    assert!(cosine(&cut.embeddings[0], &longest[0]) > 0.9999);
    assert_eq!(cut.usage.prompt_tokens, 512);
}

#[test]
fn a_question_to_it_is_refused_and_names_what_it_is_for() {
    let daemon = start();
    let params = chat(MODEL, "Hello?");
    let asked = daemon.client().call::<hearth_protocol::ChatSend>(&params);
    let error = refused(asked, ErrorKind::Unsupported);
    assert!(error.hint().is_some_and(|hint| hint.contains("`embed`")), "{error:?}");
    // In the words that clients of Ollama look for.
    let messages = json!([{ "role": "user", "content": "Hello?" }]);
    for (path, what) in [("/api/chat", "chat"), ("/api/generate", "generate")] {
        let body = json!({ "model": MODEL, "prompt": "Hello?", "messages": messages }).to_string();
        let reply = http(&daemon.socket(), "POST", path, &body);
        let said = format!("\"{MODEL}\" does not support {what}");
        assert_eq!((reply.status, reply.body), (400, json!({ "error": said })));
    }
}
