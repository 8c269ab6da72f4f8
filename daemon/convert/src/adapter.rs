//! LoRA adapters, as the PEFT library saves them.
//!
//! An adapter's tensors are named after those they change in a model, whose `config.json` or GGUF
//! file says the architecture. Of what happens to those, only rows changing places reaches an adapter: those of
//! its second factor.

use std::collections::HashMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use hearth_gguf::{Value, quote};

use crate::arch::{self, Change, Source};
use crate::config::Config;
use crate::error::ConvertError;
use crate::folder::Folder;
use crate::metadata::{Metadata, single};
use crate::plan::{PlannedTensor, Transform, map_name, plan_tensor, twins};
use crate::safetensors::{StoredTensor, file_tensors};
use crate::{ConvertProgress, Options, QUANTIZATION_VERSION, general, stream};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// The two factors of a change of one tensor.
#[derive(Default)]
struct Pair {
    a: Option<StoredTensor>,
    b: Option<StoredTensor>,
}

/// Converts the adapter in `folder`, for the model whose folder or GGUF file is `base`; of that only
/// `config.json` or the header is read. Else as `convert`.
pub fn convert_adapter<W: Write>(
    folder: &Path,
    base: &Path,
    options: &Options,
    out: W,
    progress: &mut dyn FnMut(ConvertProgress) -> ControlFlow<()>,
) -> Result<W, ConvertError> {
    let folder = Folder::open(folder)?;
    let (architecture, source) = if base.is_file() {
        let (name, config) = Config::of_gguf(&folder, base)?;
        (arch::named(&name)?, Source { folder: folder.clone(), config })
    } else {
        let base = Folder::open(base)?;
        let mut config = Config::read(&base)?;
        let architecture = arch::find(config.class()?)?;
        config.fill_in(architecture.defaults)?;
        (architecture, Source { folder: base, config })
    };

    let settings = folder
        .object(CONFIG)?
        .ok_or_else(|| ConvertError::Missing { path: folder.path(CONFIG) })?;
    let invalid = |reason: &str| ConvertError::invalid(&folder.path(CONFIG), reason);
    let alpha = settings
        .get("lora_alpha")
        .and_then(serde_json::Value::as_f64)
        .ok_or_else(|| invalid("it has no `lora_alpha`"))?;
    // A GGUF file has one alpha for all tensors, which is divided by the rank.
    let patterns = settings.get("alpha_pattern").and_then(serde_json::Value::as_object);
    for (field, is_used) in [
        ("use_rslora", settings.get("use_rslora") == Some(&true.into())),
        ("alpha_pattern", patterns.is_some_and(|patterns| !patterns.is_empty())),
    ] {
        if is_used {
            return Err(ConvertError::unsupported("an adapter with", field));
        }
    }

    let damaged = |reason: String| ConvertError::invalid(&folder.path(WEIGHTS), reason);
    let mut tensors: Vec<PlannedTensor> = Vec::new();
    for (name, Pair { a, b }) in pairs(&folder)? {
        let (Some(a), Some(b)) = (a, b) else {
            return Err(damaged(format!("half of the change of `{}` is missing", quote(&name))));
        };
        let (&[rank, _], &[_, b_rank]) = (&a.shape[..], &b.shape[..]) else {
            return Err(a.invalid("is not a matrix"));
        };
        if rank != b_rank {
            return Err(a.invalid("does not fit its other half"));
        }
        let Some(mapped) = map_name(architecture, &source, &name)? else { continue };
        let transform = match mapped.change {
            Change::Same => Transform::Same,
            Change::Interleave(_) => mapped.change.transform(&b, &source)?,
            Change::AddOne => return Err(a.invalid("changes what is no matrix")),
        };
        if mapped.name == "token_embd.weight" {
            return Err(ConvertError::unsupported("an adapter that changes", &mapped.name));
        }
        let name = mapped.name;
        let output_type = options.output_type;
        tensors.push(plan_tensor(format!("{name}.lora_a"), a, Transform::Same, output_type)?);
        tensors.push(plan_tensor(format!("{name}.lora_b"), b, transform, output_type)?);
    }
    if let Some(name) = twins(&tensors) {
        return Err(damaged(format!("two of its tensors become `{name}`")));
    }

    let mut metadata = Metadata::new(architecture.name);
    metadata.text("general.type", "adapter");
    metadata.text("adapter.type", "lora");
    general::write(&folder, &options.name, None, &mut metadata)?;
    metadata.set("adapter.lora.alpha", Value::F32(single(alpha)));
    metadata.set("general.quantization_version", Value::U32(QUANTIZATION_VERSION));
    stream::write(&metadata, &tensors, out, progress)
}

/// The pairs by the name of the tensor they change, in the order of their data.
fn pairs(folder: &Folder) -> Result<Vec<(String, Pair)>, ConvertError> {
    let mut tensors = file_tensors(folder, WEIGHTS)?;
    tensors.sort_by_key(|tensor| tensor.begin);
    let mut pairs: Vec<(String, Pair)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for tensor in tensors {
        let name = tensor.name.replace("base_model.model.", "");
        let (name, is_a) = if name.contains(".lora_A.weight") {
            (name.replace(".lora_A.weight", ".weight"), true)
        } else if name.contains(".lora_B.weight") {
            (name.replace(".lora_B.weight", ".weight"), false)
        } else {
            return Err(ConvertError::unsupported("in an adapter the tensor", &tensor.name));
        };
        let place = *places.entry(name.clone()).or_insert_with(|| {
            pairs.push((name, Pair::default()));
            pairs.len() - 1
        });
        let pair = &mut pairs[place].1;
        let half = if is_a { &mut pair.a } else { &mut pair.b };
        if half.is_some() {
            return Err(tensor.invalid("is there under another name too"));
        }
        *half = Some(tensor);
    }
    Ok(pairs)
}
