//! `rerank`, and `/v1/rerank` with its other names.

use hearth_protocol::{Embed, EmbedInput, ErrorKind, Rerank, RerankParams};
use hearth_tests::{TestDaemon, embed, http, refused};
use serde_json::{Value, json};

const TEXTS: [&str; 3] = ["xyz", "abc", "abx"];

fn start() -> TestDaemon {
    let daemon = TestDaemon::start();
    daemon.model("ranks", &[("ranks", true.into()), ("can_generate", false.into())]);
    daemon.model("writes", &[]);
    daemon
}

fn params(model: &str) -> RerankParams {
    let documents = TEXTS.map(String::from).into();
    RerankParams { model: model.into(), query: "abc".into(), documents, keep_alive: None }
}

#[test]
fn each_text_gets_a_score_in_the_order_they_came_in() {
    let daemon = start();
    let reply = daemon.client().call::<Rerank>(&params("ranks")).unwrap();
    // The reference model says how much of a text is in the question.
    let [none, all, some] = reply.scores[..] else { panic!("{reply:?}") };
    assert_eq!((none, all), (0.0, 1.0));
    assert!((some - 2.0 / 3.0).abs() < 1e-6, "{reply:?}");
    // Each with the question, and what stands around both.
    assert_eq!(reply.usage.prompt_tokens, 3 * (1 + 3 + 1 + 3 + 1));
}

#[test]
fn a_model_that_ranks_does_nothing_else_and_no_other_ranks() {
    let daemon = start();
    let error = refused(daemon.client().call::<Rerank>(&params("writes")), ErrorKind::Unsupported);
    assert!(error.message.contains("ranks no texts"), "{error:?}");
    assert!(error.hint().is_some_and(|hint| hint.contains("reranker")), "{error:?}");
    let params = embed("ranks", EmbedInput::One("a".into()));
    let error = refused(daemon.client().call::<Embed>(&params), ErrorKind::Unsupported);
    assert!(error.hint().is_some_and(|hint| hint.contains("`rerank`")), "{error:?}");
}

#[test]
fn over_http_the_best_come_first_and_as_many_as_wanted() {
    let daemon = start();
    let ask = |path: &str, more: Value| {
        let mut body = json!({ "model": "ranks", "query": "abc", "documents": TEXTS });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        http(&daemon.socket(), "POST", path, &body.to_string())
    };
    for path in ["/v1/rerank", "/v1/reranking", "/rerank"] {
        let reply = ask(path, json!({})).body;
        assert_eq!((&reply["object"], &reply["model"]), (&json!("list"), &json!("ranks")));
        let order: Vec<_> =
            reply["results"].as_array().unwrap().iter().map(|place| &place["index"]).collect();
        assert_eq!(order, [1, 2, 0], "{reply}");
        assert_eq!(reply["results"][0]["relevance_score"], 1.0);
        assert_eq!(reply["usage"]["prompt_tokens"], reply["usage"]["total_tokens"]);
        let error = ask(path, json!({ "model": "writes" }));
        assert_eq!((error.status, &error.body["error"]["code"]), (400, &json!("unsupported")));
    }
    let objects = json!({ "documents": [{ "text": "x" }, { "text": "b" }], "top_n": 1, "return_documents": true });
    let best = json!([{ "index": 1, "relevance_score": 1.0, "document": { "text": "b" } }]);
    assert_eq!(ask("/v1/rerank", objects).body["results"], best);
    for wrong in [
        json!({ "documents": [] }),
        json!({ "query": null }),
        json!({ "documents": [1] }),
        json!({ "model": "" }),
    ] {
        let reply = ask("/v1/rerank", wrong);
        assert_eq!(
            (reply.status, &reply.body["error"]["type"]),
            (400, &json!("invalid_request_error"))
        );
    }
    let reply = ask("/v1/rerank", json!({ "documents": ["x".repeat(5000)] }));
    assert_eq!(
        (reply.status, &reply.body["error"]["code"]),
        (400, &json!("context_length_exceeded"))
    );
}
