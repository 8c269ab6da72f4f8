//! Models of a few random weights, the same each time, for what no trained model is at hand. What they say is nonsense.

use hearth_tests::{GgufText, Tensor};

/// Names with columns and rows.
pub(crate) type Shapes = Vec<(String, usize, usize)>;

/// A token with its type: 1 is plain, 2 unknown, 3 control, 6 a byte.
pub(crate) type Token = (String, u32);

/// The shape of them all.
const SHAPE: [(&str, u32); 6] = [
    ("embedding_length", 64),
    ("feed_forward_length", 64),
    ("attention.head_count", 2),
    ("attention.head_count_kv", 2),
    ("attention.key_length", 32),
    ("attention.value_length", 32),
];

/// Small numbers, and such as are near one for what scales.
pub(crate) fn tensors(shapes: Shapes) -> Vec<Tensor> {
    let mut state = 1_u32;
    let mut number = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from(u16::try_from(state >> 16).unwrap()) / 32768.0 - 1.0
    };
    let tensor = |(name, columns, rows): (String, usize, usize)| {
        let is_norm = name.contains("norm") || name.contains("ln");
        let value = |_| if is_norm { 1.0 + 0.1 * number() } else { 0.3 * number() };
        let values = (0..columns * rows).map(value).collect();
        Tensor { name, columns, values }
    };
    shapes.into_iter().map(tensor).collect()
}

/// The three control tokens that every model has.
pub(crate) fn control() -> Vec<Token> {
    [("<unk>", 2), ("<s>", 3), ("</s>", 3)].map(|(token, kind)| (token.into(), kind)).into()
}

/// These, and every byte.
pub(crate) fn bytes() -> Vec<Token> {
    let bytes = (0..256).map(|byte| (format!("<0x{byte:02X}>"), 6));
    control().into_iter().chain(bytes).collect()
}

/// A text model's file up to its own pairs, of which `n_more` follow.
pub(crate) fn header(
    architecture: &str,
    numbers: &[(&str, u32)],
    vocabulary: &[Token],
    tensors: &[Tensor],
    n_more: usize,
) -> GgufText {
    let n_pairs = SHAPE.len() + numbers.len() + 6 + n_more;
    let mut text = GgufText::header(tensors.len() as u64, n_pairs as u64)
        .text_pair("general.architecture", architecture)
        .f32_pair(&format!("{architecture}.attention.layer_norm_rms_epsilon"), 1e-5)
        .text_pair("tokenizer.ggml.model", "llama");
    for (key, value) in SHAPE.iter().chain(numbers) {
        text = text.text(&format!("{architecture}.{key}")).u32(4).u32(*value);
    }
    // Arrays of strings, of floats and of whole numbers.
    let n_vocab = vocabulary.len() as u64;
    text = text.text("tokenizer.ggml.tokens").u32(9).u32(8).u64(n_vocab);
    text = vocabulary.iter().fold(text, |text, (token, _)| text.text(token));
    text = text.text("tokenizer.ggml.scores").u32(9).u32(6).u64(n_vocab);
    text = vocabulary.iter().fold(text, |text, _| text.u32(0));
    text = text.text("tokenizer.ggml.token_type").u32(9).u32(5).u64(n_vocab);
    vocabulary.iter().fold(text, |text, (_, kind)| text.u32(*kind))
}
