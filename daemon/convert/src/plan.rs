//! Which tensors the file will have, where their data comes from and what happens to it.

use hearth_gguf::{TensorInfo, TensorType, quote};

use crate::arch::{Architecture, Change, ComputedTensor, LAYERS, Source, Tensor};
use crate::error::ConvertError;
use crate::metadata::Metadata;
use crate::output::OutputType;
use crate::safetensors::{StoredTensor, model_tensors};

#[derive(Debug)]
pub(crate) struct PlannedTensor {
    pub(crate) info: TensorInfo,
    pub(crate) data: Data,
}

#[derive(Debug)]
pub(crate) enum Data {
    Computed(Vec<f32>),
    Stored(StoredTensor, Transform),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transform {
    Same,
    AddOne,
    /// Rows of each of so many heads: from one half and the other in turn.
    Interleave(u64),
}

/// What a tensor becomes.
#[derive(Debug)]
pub(crate) struct Mapped {
    pub(crate) name: String,
    pub(crate) change: Change,
}

pub(crate) fn model(
    architecture: &Architecture,
    source: &Source,
    computed: Vec<ComputedTensor>,
    output_type: OutputType,
) -> Result<Vec<PlannedTensor>, ConvertError> {
    let mut planned = Vec::new();
    for ComputedTensor { name, values } in computed {
        let dims = vec![values.len() as u64];
        let info = TensorInfo::new(name.to_owned(), dims, TensorType::F32)?;
        planned.push(PlannedTensor { info, data: Data::Computed(values) });
    }
    for stored in model_tensors(&source.folder)? {
        if let Some(mapped) = map_name(architecture, source, &stored.name)? {
            let transform = mapped.change.transform(&stored, source)?;
            planned.push(plan_tensor(mapped.name, stored, transform, output_type)?);
        }
    }
    if let Some(name) = twins(&planned) {
        return Err(source.config.invalid(format!("two tensors of its model become `{name}`")));
    }
    Ok(planned)
}

/// A name that two tensors would have.
pub(crate) fn twins(planned: &[PlannedTensor]) -> Option<&str> {
    let mut names: Vec<&str> = planned.iter().map(|tensor| tensor.info.name.as_str()).collect();
    names.sort_unstable();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

/// llama.cpp loads no model that has another number of tokens than of embeddings.
pub(crate) fn check_vocabulary(
    tensors: &[PlannedTensor],
    metadata: &Metadata,
    source: &Source,
) -> Result<(), ConvertError> {
    let embeddings = tensors.iter().find(|tensor| tensor.info.name == "token_embd.weight");
    let n_embeddings = embeddings.and_then(|tensor| tensor.info.dims.get(1).copied()).unwrap_or(0);
    let n_tokens = metadata.n_texts("tokenizer.ggml.tokens");
    if n_embeddings != n_tokens {
        let reason = format!("there are {n_embeddings} embeddings for {n_tokens} tokens");
        return Err(source.config.invalid(reason));
    }
    Ok(())
}

pub(crate) fn plan_tensor(
    name: String,
    stored: StoredTensor,
    transform: Transform,
    output_type: OutputType,
) -> Result<PlannedTensor, ConvertError> {
    // A type that is not converted is to be known before anything is written.
    stored.dtype()?;
    let mut dims = stored.shape.clone();
    dims.reverse();
    let tensor_type = tensor_type(&name, &dims, output_type);
    let info = TensorInfo::new(name, dims, tensor_type)?;
    Ok(PlannedTensor { info, data: Data::Stored(stored, transform) })
}

/// Vectors, norms and what is added to embeddings keep single precision. Rows that are not whole
/// blocks cannot be quantized.
fn tensor_type(name: &str, dims: &[u64], output_type: OutputType) -> TensorType {
    let is_matrix =
        name.ends_with(".weight") || name.ends_with(".lora_a") || name.ends_with(".lora_b");
    let is_precise = dims.len() <= 1
        || name.ends_with("_norm.weight")
        || ["position_embd.weight", "token_types.weight"].contains(&name);
    let wanted = output_type.tensor_type();
    if is_precise || !is_matrix {
        TensorType::F32
    } else if !dims[0].is_multiple_of(wanted.block_elements) {
        TensorType::F16
    } else {
        wanted
    }
}

/// `None` for tensors that are left out.
pub(crate) fn map_name(
    architecture: &Architecture,
    source: &Source,
    stored: &str,
) -> Result<Option<Mapped>, ConvertError> {
    const IMAGES_AND_SOUND: &[&str] =
        &["vision_", "vision.", "visual.", "audio_", "audio.", "projector.", "patch_embed"];
    const BUFFERS: &[&str] = &[".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq"];
    let mut name = stored.replace("language_model.", "");
    for prefix in architecture.prefixes {
        if let Some(rest) = name.strip_prefix(prefix) {
            name = rest.to_owned();
        }
    }
    if IMAGES_AND_SOUND.iter().any(|part| name.contains(part))
        || BUFFERS.iter().any(|end| name.ends_with(end))
        || architecture.skipped.iter().any(|start| name.starts_with(start))
    {
        return Ok(None);
    }
    let unknown = || ConvertError::Unsupported {
        what: format!("tensor `{}` in a {} model", quote(stored), architecture.name),
    };
    let (stem, suffix) = match name.rsplit_once('.').ok_or_else(unknown)? {
        (stem, "weight" | "gamma") => (stem, "weight"),
        (stem, "bias" | "beta") => (stem, "bias"),
        _ => return Err(unknown()),
    };
    let n_layers = source.config.need(LAYERS)?;
    // Models without a head name their parts without `model.`
    let with_model = format!("model.{stem}");
    [stem, &with_model]
        .iter()
        .find_map(|stem| {
            architecture.tensors.iter().find_map(|tensor| {
                let to = tensor.rename(stem, n_layers)?;
                Some(Mapped { name: format!("{to}.{suffix}"), change: tensor.change })
            })
        })
        .map(Some)
        .ok_or_else(unknown)
}

impl Tensor {
    fn rename(&self, stem: &str, n_layers: u64) -> Option<String> {
        let Some((before, after)) = self.from.split_once("{}") else {
            return (stem == self.from).then(|| self.to.to_owned());
        };
        let layer = stem.strip_prefix(before)?.strip_suffix(after)?;
        let is_plain = layer.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = layer.parse().ok().filter(|_| is_plain)?;
        (number < n_layers).then(|| self.to.replace("{}", &number.to_string()))
    }
}

impl Change {
    pub(crate) fn transform(
        self,
        stored: &StoredTensor,
        source: &Source,
    ) -> Result<Transform, ConvertError> {
        Ok(match self {
            Self::Same => Transform::Same,
            Self::AddOne => Transform::AddOne,
            Self::Interleave(fields) => {
                let n_heads = source.config.need(fields)?;
                let n_rows = stored.shape.first().copied().unwrap_or(1);
                if n_heads == 0 || n_rows % n_heads != 0 || (n_rows / n_heads) % 2 != 0 {
                    return Err(stored.invalid(&format!("cannot be of {n_heads} heads")));
                }
                Transform::Interleave(n_heads)
            }
        })
    }
}
