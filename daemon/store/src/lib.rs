//! Models on disk, in Ollama's layout: names, manifests, blobs, import.
//!
//! A store is a folder that an Ollama installation can share: content-addressed blobs and manifests
//! kept verbatim. Every write is temp, sync, rename, sync of the folder, so a crash at any instant
//! leaves a store that loads. All code here is synchronous and may wait for the disk; an async
//! caller runs it on a blocking thread. There is no cache: each call sees the disk as it is.
//!
//! The types are plain and derive no serde; the JSON of manifests and configs stays in its modules.

mod adopt;
mod blob;
mod catalog;
mod config;
mod digest;
mod disk;
mod error;
mod import;
mod lock;
mod manifest;
mod modelfile;
mod name;
mod nearest;
mod partial;
mod reweigh;
mod space;
mod step;
mod store;
mod verify;

pub use adopt::Piece;
pub use blob::BlobDir;
pub use catalog::Problem;
pub use config::ModelConfig;
pub use digest::Digest;
pub use error::StoreError;
pub use hearth_gguf::{GgufError, GgufSummary, GgufValue, KvShape, TensorGroup, quote};
pub use import::{ImportMode, ImportProgress, ImportStage, Imported, Placed, import};
pub use manifest::{Layer, LayerKind, Manifest};
pub use modelfile::{BadModelfile, Instruction, Modelfile, Unwritable};
pub use name::{DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG, ModelName, Scheme};
pub use partial::{Partial, PartialKey};
pub use reweigh::Staged;
pub use space::{Amount, Deleted, ModelUsage, Pruned, Removed, Usage};
pub use store::{
    ModelEntry, ModelList, PresetMessage, ResolvedModel, ShownModel, Store, gguf_summary,
};
pub use verify::{Fault, Verified};
