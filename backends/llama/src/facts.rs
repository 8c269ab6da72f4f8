//! What a model's file and llama.cpp say about a model, gathered once.

use crate::memory;
use crate::shim::hearth_shim_position_rows;
use crate::vocab::Vocab;
use hearth_abi::ModelInfo;
use llama_cpp_sys_2 as sys;
use std::ffi::{CStr, CString, c_char};
use std::ptr::NonNull;

/// Architectures that llama.cpp runs without memory: encoders, and models that write a text all at once.
const WITHOUT_MEMORY: &[&str] = &[
    "bert",
    "clef",
    "dream",
    "eurobert",
    "gemma-embedding",
    "jina-bert-v2",
    "jina-bert-v3",
    "llada",
    "llada-moe",
    "modern-bert",
    "neo-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "rnd1",
    "wavtokenizer-dec",
];

/// What contexts need to know of their model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traits {
    pub(crate) vocab_only: bool,
    /// Run by llama_encode alone.
    pub(crate) encoder: bool,
    pub(crate) without_memory: bool,
    /// Keeps a running state, or something else of which llama.cpp cannot give older versions.
    pub(crate) state: bool,
    /// 0: no sliding window.
    pub(crate) n_swa: i32,
    /// `pooling_type` of the file, if it says one.
    pub(crate) pooling: Option<i32>,
    /// Positions end here because each has weights of its own; 0: they do not end.
    pub(crate) position_limit: u32,
    /// Numbers that the keys and values of one token take, if that is known for sure; else 0.
    pub(crate) kv_per_token: u64,
    /// Tells this model's saved sequences from another's.
    pub(crate) mark: u64,
}

impl Traits {
    /// It says of texts how good they are, and has no embeddings.
    pub(crate) fn ranks(&self) -> bool {
        self.pooling == Some(sys::LLAMA_POOLING_TYPE_RANK)
    }
}

/// # Safety
/// The model is loaded.
pub(crate) unsafe fn read_meta(raw: *const sys::llama_model) -> Vec<(CString, CString)> {
    // SAFETY: the model is loaded.
    let count = unsafe { sys::llama_model_meta_count(raw) };
    let mut meta: Vec<_> = (0..count)
        .map(|index| {
            // SAFETY: the index is below the count; the buffer has the size given.
            unsafe {
                (
                    read_text(|buffer, size| {
                        sys::llama_model_meta_key_by_index(raw, index, buffer, size)
                    }),
                    read_text(|buffer, size| {
                        sys::llama_model_meta_val_str_by_index(raw, index, buffer, size)
                    }),
                )
            }
        })
        .collect();
    // llama.cpp keeps them in a hash map, so their order in the file is lost.
    meta.sort();
    meta
}

/// Calls something of `snprintf`'s manners.
fn read_text(body: impl Fn(*mut c_char, usize) -> i32) -> CString {
    let mut buffer = vec![0_u8; 256];
    for _ in 0..2 {
        let needed =
            usize::try_from(body(buffer.as_mut_ptr().cast::<c_char>(), buffer.len())).unwrap_or(0);
        if needed < buffer.len() {
            break;
        }
        buffer.resize(needed + 1, 0);
    }
    CStr::from_bytes_until_nul(&buffer).map(CStr::to_owned).unwrap_or_default()
}

/// The file's metadata by key. Keys after the first dot are the architecture's.
struct Facts<'a> {
    meta: &'a [(CString, CString)],
    architecture: String,
}

impl<'a> Facts<'a> {
    fn new(meta: &'a [(CString, CString)]) -> Self {
        let mut facts = Self { meta, architecture: String::new() };
        facts.architecture = facts.value("general.architecture").unwrap_or_default();
        facts
    }

    fn value(&self, key: &str) -> Option<String> {
        let entry = self.meta.iter().find(|(name, _)| name.to_bytes() == key.as_bytes())?;
        Some(entry.1.to_string_lossy().into_owned())
    }

    /// `<architecture>.<key>` as a number; `None` also for an array, one number per layer.
    fn number<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.value(&format!("{}.{key}", self.architecture))?.parse().ok()
    }

    /// What llama.cpp says, or the file where llama.cpp read the vocabulary only.
    fn count(&self, from_engine: i32, key: &str) -> u32 {
        u32::try_from(from_engine).ok().filter(|n| *n > 0).or_else(|| self.number(key)).unwrap_or(0)
    }

    /// Numbers of a token's keys and values in plain attention over all layers, else 0.
    fn kv_per_token(&self) -> u64 {
        let n_head: Option<u64> = self.number("attention.head_count");
        let n_head_kv = self.number("attention.head_count_kv").or(n_head);
        let of_head = || self.number::<u64>("embedding_length")?.checked_div(n_head?);
        let key_len = self.number("attention.key_length").or_else(of_head);
        let value_len = self.number("attention.value_length").or_else(of_head);
        let is_compressed = self.number::<u64>("attention.kv_lora_rank").is_some();
        match (self.number::<u64>("block_count"), n_head_kv, key_len, value_len) {
            (Some(n_layer), Some(n_head_kv), Some(key_len), Some(value_len)) if !is_compressed => {
                n_layer
                    .saturating_mul(n_head_kv)
                    .saturating_mul(u64::saturating_add(key_len, value_len))
            }
            _ => 0,
        }
    }
}

/// The facts of a loaded model.
pub(crate) fn read_facts(
    raw: NonNull<sys::llama_model>,
    vocab: &Vocab,
    meta: &[(CString, CString)],
    vocab_only: bool,
) -> (ModelInfo, Traits) {
    let facts = Facts::new(meta);
    let pooling: Option<i32> = facts.number("pooling_type");
    let raw = raw.as_ptr().cast_const();
    // SAFETY: the model is loaded; all of these only read it.
    unsafe {
        let (has_encoder, has_decoder) =
            (sys::llama_model_has_encoder(raw), sys::llama_model_has_decoder(raw));
        let without_memory = WITHOUT_MEMORY.contains(&facts.architecture.as_str());
        let is_rank = pooling == Some(sys::LLAMA_POOLING_TYPE_RANK);
        let is_for_embeddings = pooling.is_some_and(|kind| kind > sys::LLAMA_POOLING_TYPE_NONE);
        let n_params = sys::llama_model_n_params(raw);
        let engines_words = read_text(|buffer, size| sys::llama_model_desc(raw, buffer, size));
        let info = ModelInfo {
            can_generate: !vocab_only
                && has_decoder
                && !has_encoder
                && !without_memory
                && !is_for_embeddings
                && !sys::llama_model_is_diffusion(raw),
            can_embed: !(vocab_only || (has_encoder && has_decoder)),
            has_chat_template: !sys::llama_model_chat_template(raw, std::ptr::null()).is_null(),
            n_vocab: vocab.n_tokens(),
            n_ctx_train: facts.count(sys::llama_model_n_ctx_train(raw), "context_length"),
            n_embd: match is_rank {
                // Of several classes the first is the score.
                true => 1,
                false => facts.count(sys::llama_model_n_embd_out(raw), "embedding_length"),
            },
            n_layer: facts.count(sys::llama_model_n_layer(raw), "block_count"),
            n_params,
            size_bytes: sys::llama_model_size(raw),
            bos_token: vocab.bos(),
            eos_token: vocab.eos(),
            add_bos: vocab.adds_bos(),
            description: describe(&facts.architecture, n_params, &engines_words.to_string_lossy()),
            architecture: facts.architecture.clone(),
        };
        let mark = format!(
            "{} {} {} {} {} {}",
            info.architecture,
            info.n_params,
            info.size_bytes,
            info.n_layer,
            info.n_embd,
            info.n_vocab
        );
        // deepseek4's compressed cache has a window that llama.cpp does not tell of.
        let state = sys::llama_model_is_recurrent(raw)
            || sys::llama_model_is_hybrid(raw)
            || info.architecture == "deepseek4";
        let n_swa = sys::llama_model_n_swa(raw);
        let is_plain = !state && !without_memory && n_swa == 0;
        let traits = Traits {
            vocab_only,
            encoder: has_encoder && !has_decoder,
            without_memory,
            state,
            n_swa,
            pooling,
            position_limit: u32::try_from(hearth_shim_position_rows(raw)).unwrap_or(0),
            kv_per_token: if is_plain { facts.kv_per_token() } else { 0 },
            mark: memory::checksum(mark.as_bytes()),
        };
        (info, traits)
    }
}

/// `llama 135M Q4_1`: llama.cpp's words, with the size counted where it guesses one from the number of layers.
fn describe(architecture: &str, n_params: u64, engines_words: &str) -> String {
    let size = match n_params {
        0..1_000_000 => format!("{}K", (n_params + 500) / 1_000),
        1_000_000..1_000_000_000 => format!("{}M", (n_params + 500_000) / 1_000_000),
        1_000_000_000..100_000_000_000 => {
            format!("{}.{}B", n_params / 1_000_000_000, n_params % 1_000_000_000 / 100_000_000)
        }
        _ => format!("{}B", n_params / 1_000_000_000),
    };
    let format = engines_words.splitn(3, ' ').nth(2).unwrap_or_default();
    format!("{architecture} {size} {format}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_tell_the_true_size() {
        assert_eq!(describe("llama", 134_515_008, "llama 256M Q4_1"), "llama 135M Q4_1");
        assert_eq!(
            describe("gemma3", 268_098_176, "gemma3 270M Q4_K - Medium"),
            "gemma3 268M Q4_K - Medium"
        );
        assert_eq!(describe("qwen3", 8_190_735_360, "qwen3 8B Q8_0"), "qwen3 8.1B Q8_0");
        assert_eq!(describe("llama", 134_515_008, ""), "llama 135M");
    }

    #[test]
    fn plain_attention_is_counted_and_nothing_else() {
        let meta = |pairs: &[(&str, &str)]| -> Vec<(CString, CString)> {
            pairs
                .iter()
                .map(|(key, value)| (CString::new(*key).unwrap(), CString::new(*value).unwrap()))
                .collect()
        };
        let mut pairs = vec![
            ("general.architecture", "llama"),
            ("llama.block_count", "30"),
            ("llama.embedding_length", "576"),
            ("llama.attention.head_count", "9"),
            ("llama.attention.head_count_kv", "3"),
        ];
        assert_eq!(Facts::new(&meta(&pairs)).kv_per_token(), 30 * 3 * 128);
        pairs.push(("llama.attention.kv_lora_rank", "512"));
        assert_eq!(Facts::new(&meta(&pairs)).kv_per_token(), 0);
        assert_eq!(Facts::new(&meta(&pairs[..2])).kv_per_token(), 0);
        assert_eq!(Facts::new(&[]).kv_per_token(), 0);
    }

    #[test]
    fn long_values_are_read_whole() {
        let long = "x".repeat(1000);
        let text = read_text(|buffer, size| {
            let n = long.len().min(size - 1);
            // SAFETY: n is below the buffer's size, which is zeroed behind it.
            unsafe { std::ptr::copy_nonoverlapping(long.as_ptr(), buffer.cast::<u8>(), n) };
            1000
        });
        assert_eq!(text.to_bytes(), long.as_bytes());
    }
}
