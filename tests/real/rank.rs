//! A reranker in llama.cpp: Qwen3's architecture with a head of two classes. The weights are random, so scores mean nothing;
//! but they are probabilities, belong to the pair, and do not depend on what else is asked.

use crate::start_with;
use hearth_protocol::{ErrorKind, ImportMode, ModelParams, ModelShow, Rerank, RerankParams};
use hearth_tests::{GgufText, Tensor, TestDaemon, env_path, refused};

const WIDTH: usize = 64;
const HEAD: usize = 32;
/// Three control tokens, and every byte.
const N_VOCAB: usize = 3 + 256;

fn file(template: Option<&str>) -> Vec<u8> {
    let tensors = tensors();
    let numbers = [
        ("block_count", 1),
        ("context_length", 256),
        ("embedding_length", 64),
        ("feed_forward_length", 64),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 2),
        ("attention.key_length", 32),
        ("attention.value_length", 32),
        ("pooling_type", 4),
    ];
    let n_pairs = numbers.len() + 7 + usize::from(template.is_some());
    let mut text = GgufText::header(tensors.len() as u64, n_pairs as u64)
        .text_pair("general.architecture", "qwen3")
        .f32_pair("qwen3.attention.layer_norm_rms_epsilon", 1e-5)
        .text_pair("tokenizer.ggml.model", "llama");
    for (key, value) in numbers {
        text = text.text(&format!("qwen3.{key}")).u32(4).u32(value);
    }
    if let Some(template) = template {
        text = text.text_pair("tokenizer.chat_template.rerank", template);
    }
    // Arrays of strings, of floats and of whole numbers.
    text = text.text("qwen3.classifier.output_labels").u32(9).u32(8).u64(2).text("yes").text("no");
    text = text.text("tokenizer.ggml.tokens").u32(9).u32(8).u64(N_VOCAB as u64);
    text = text.text("<unk>").text("<s>").text("</s>");
    text = (0..256).fold(text, |text, byte| text.text(&format!("<0x{byte:02X}>")));
    text = text.text("tokenizer.ggml.scores").u32(9).u32(6).u64(N_VOCAB as u64);
    text = (0..N_VOCAB).fold(text, |text, _| text.u32(0));
    text = text.text("tokenizer.ggml.token_type").u32(9).u32(5).u64(N_VOCAB as u64);
    text = [2, 3, 3].into_iter().chain([6; 256]).fold(text, GgufText::u32);
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
    let mut state = 1_u32;
    let mut number = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from(u16::try_from(state >> 16).unwrap()) / 32768.0 - 1.0
    };
    shapes
        .map(|(name, columns, rows)| {
            let is_norm = name.contains("norm");
            let values = (0..columns * rows)
                .map(|_| if is_norm { 1.0 + 0.1 * number() } else { 0.3 * number() })
                .collect();
            Tensor { name: format!("{name}.weight"), columns, values }
        })
        .into()
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
