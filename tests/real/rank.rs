//! A reranker in llama.cpp: Qwen3's architecture with a head of two classes. The weights are random, so scores mean nothing;
//! but they are probabilities, belong to the pair, and do not depend on what else is asked.

use crate::{start_with, tiny};
use hearth_protocol::{ErrorKind, ImportMode, ModelParams, ModelShow, Rerank, RerankParams};
use hearth_tests::{Tensor, TestDaemon, env_path, refused};

const WIDTH: usize = 64;
const HEAD: usize = 32;
/// Three control tokens, and every byte.
const N_VOCAB: usize = 3 + 256;

fn file(template: Option<&str>) -> Vec<u8> {
    let tensors = tensors();
    let numbers = [("block_count", 1), ("context_length", 256), ("pooling_type", 4)];
    let n_more = 1 + usize::from(template.is_some());
    let mut text = tiny::header("qwen3", &numbers, &tiny::bytes(), &tensors, n_more);
    if let Some(template) = template {
        text = text.text_pair("tokenizer.chat_template.rerank", template);
    }
    // An array of strings.
    text = text.text("qwen3.classifier.output_labels").u32(9).u32(8).u64(2).text("yes").text("no");
    text.tensors(&tensors).0
}

fn tensors() -> Vec<Tensor> {
    let shapes = [
        ("token_embd", WIDTH, N_VOCAB),
        ("output_norm", WIDTH, 1),
        ("cls.output", WIDTH, 2),
        ("blk.0.attn_norm", WIDTH, 1),
        ("blk.0.attn_q", WIDTH, WIDTH),
        ("blk.0.attn_k", WIDTH, WIDTH),
        ("blk.0.attn_v", WIDTH, WIDTH),
        ("blk.0.attn_output", WIDTH, WIDTH),
        ("blk.0.attn_q_norm", HEAD, 1),
        ("blk.0.attn_k_norm", HEAD, 1),
        ("blk.0.ffn_norm", WIDTH, 1),
        ("blk.0.ffn_gate", WIDTH, WIDTH),
        ("blk.0.ffn_up", WIDTH, WIDTH),
        ("blk.0.ffn_down", WIDTH, WIDTH),
    ];
    let shapes = shapes.map(|(name, columns, rows)| (format!("{name}.weight"), columns, rows));
    tiny::tensors(shapes.into())
}

fn scores(daemon: &TestDaemon, model: &str, query: &str, documents: &[&str]) -> (Vec<f32>, u32) {
    let documents = documents.iter().map(ToString::to_string).collect();
    let (model, query) = (model.into(), query.into());
    let params = RerankParams { model, query, documents, keep_alive: None };
    let reply = daemon.client().call::<Rerank>(&params).unwrap();
    (reply.scores, reply.usage.prompt_tokens)
}

#[test]
fn a_pair_has_a_score_of_its_own_with_a_template_and_without() {
    let daemon = TestDaemon::builder_with(env_path("HEARTH_TEST_BACKENDS")).start();
    for (name, template) in [("plain", None), ("templated", Some("Q:{query} D:{document}"))] {
        let path = daemon.dir().join(name);
        std::fs::write(&path, file(template)).unwrap();
        daemon.import(&path, name, ImportMode::Copy);
        let shown = daemon.client().call::<ModelShow>(&ModelParams { model: name.into() }).unwrap();
        assert_eq!(shown.capabilities, ["rerank"]);

        let texts = ["rain", "the sea is wide", "sun"];
        let (together, n_tokens) = scores(&daemon, name, "weather", &texts);
        assert!(together.iter().all(|score| (0.0..=1.0).contains(score)), "{together:?}");
        assert!(together[0] != together[1] && together[1] != together[2], "{together:?}");
        for (text, score) in texts.iter().zip(&together) {
            let (alone, _) = scores(&daemon, name, "weather", &[text]);
            assert!((alone[0] - score).abs() < 1e-4, "{alone:?} {score}");
        }
        let (others, _) = scores(&daemon, name, "ocean", &texts);
        assert_ne!(others, together);
        // Both texts are there each time, and what stands around them.
        let n_bytes: usize = texts.iter().map(|text| text.len() + "weather".len()).sum();
        let n_around = template.map_or(1, |template| template.len() - "{query}{document}".len());
        assert!(n_tokens as usize >= n_bytes + 3 * n_around, "{n_tokens}");
        // What a question says is no place for a text.
        let (tricky, _) = scores(&daemon, name, "{document}", &["a", "b"]);
        assert_ne!(tricky[0], tricky[1]);
    }
}

#[test]
fn a_model_of_embeddings_ranks_no_texts() {
    let daemon = start_with("HEARTH_TEST_MINILM", "all-minilm");
    let params = RerankParams {
        model: "all-minilm".into(),
        query: "weather".into(),
        documents: vec!["rain".into()],
        keep_alive: None,
    };
    let error = refused(daemon.client().call::<Rerank>(&params), ErrorKind::Unsupported);
    assert!(error.hint().is_some_and(|hint| hint.contains("reranker")), "{error:?}");
}
