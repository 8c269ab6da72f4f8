//! What a model's weights are for and how each kind is stored: `attention Q4_K and Q6_K, norms F32`.

use super::{Gguf, TensorInfo, TensorType};

/// The tensors of one class and one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorGroup {
    /// One of `embedding`, `output`, `attention`, `feed-forward`, `experts`, `other`, and `vectors`: norms and biases.
    pub class: &'static str,
    pub tensor_type: TensorType,
    pub n_tensors: u64,
    pub n_elements: u64,
    pub n_bytes: u64,
}

/// In the order in which they are shown.
const CLASSES: [&str; 7] =
    ["embedding", "output", "attention", "feed-forward", "experts", "other", "vectors"];

impl Gguf {
    /// By class, and within a class the type with most bytes first.
    pub fn groups(&self) -> Vec<TensorGroup> {
        let mut groups: Vec<TensorGroup> = Vec::new();
        for tensor in &self.tensors {
            let (class, tensor_type) = (class_of(tensor), tensor.tensor_type);
            // Seven classes of a few types each, however many tensors there are.
            let known = groups
                .iter()
                .position(|group| group.class == class && group.tensor_type == tensor_type);
            let at = known.unwrap_or_else(|| {
                let (n_tensors, n_elements, n_bytes) = (0, 0, 0);
                groups.push(TensorGroup { class, tensor_type, n_tensors, n_elements, n_bytes });
                groups.len() - 1
            });
            let group = &mut groups[at];
            group.n_tensors += 1;
            group.n_elements = group.n_elements.saturating_add(tensor.n_elements);
            group.n_bytes = group.n_bytes.saturating_add(tensor.n_bytes);
        }
        let rank = |group: &TensorGroup| CLASSES.iter().position(|class| *class == group.class);
        groups.sort_by_key(|group| (rank(group), std::cmp::Reverse(group.n_bytes)));
        groups
    }
}

/// By the names that llama.cpp gives tensors.
fn class_of(tensor: &TensorInfo) -> &'static str {
    let name = tensor.name.as_str();
    if tensor.dims.len() < 2 {
        "vectors"
    } else if name.contains("token_embd") {
        "embedding"
    } else if name == "output.weight" {
        "output"
    } else if name.contains("_exps.") {
        "experts"
    } else if name.contains("attn_") {
        "attention"
    } else if name.contains("ffn_") {
        "feed-forward"
    } else {
        "other"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Writer;
    use std::io::Cursor;

    #[test]
    fn weights_are_grouped_by_what_they_are_for() {
        let (q4_k, q6_k) = (12, 14);
        let bytes = Writer::new()
            .text("general.architecture", "llama")
            .tensor("blk.0.attn_norm.weight", &[256], 0, 1024)
            .tensor("blk.0.ffn_up_exps.weight", &[256, 1, 2], q4_k, 288)
            .tensor("blk.0.attn_q.weight", &[256, 2], q4_k, 288)
            .tensor("blk.0.attn_v.weight", &[256, 1], q6_k, 210)
            .tensor("blk.1.attn_v.weight", &[256, 2], q6_k, 420)
            .tensor("token_embd.weight", &[256, 1], q6_k, 210)
            .bytes();
        let groups = Gguf::read(&mut Cursor::new(bytes)).unwrap().groups();
        let shown: Vec<_> = groups
            .iter()
            .map(|group| (group.class, group.tensor_type.name, group.n_tensors, group.n_elements))
            .collect();
        let expected = [
            ("embedding", "Q6_K", 1, 256),
            ("attention", "Q6_K", 2, 768),
            ("attention", "Q4_K", 1, 512),
            ("experts", "Q4_K", 1, 512),
            ("vectors", "F32", 1, 256),
        ];
        assert_eq!(shown, expected);
    }
}
