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
mod create;
mod digest;
mod disk;
mod error;
mod import;
#[cfg(test)]
mod invariants;
mod lock;
mod look;
mod manifest;
mod name;
mod nearest;
mod new_blob;
mod origin;
mod partial;
mod reweigh;
mod space;
mod step;
mod store;
mod stores;
mod verify;

pub use adopt::Piece;
pub use blob::{Blob, BlobDir};
pub use catalog::Problem;
pub use config::ModelConfig;
pub use create::Recipe;
pub use digest::Digest;
pub use disk::read_file;
pub use error::StoreError;
pub use hearth_gguf::{Gguf, GgufError, GgufSummary, GgufValue, KvShape, TensorGroup, quote};
pub use import::{
    ImportMode, ImportProgress, ImportStage, Imported, Placed, file_kind, import, place,
};
pub use manifest::{Layer, LayerKind, MANIFEST_MEDIA_TYPE, Manifest};
pub use name::{DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG, ModelName, Scheme};
pub use new_blob::NewBlob;
pub use partial::{Partial, PartialKey};
pub use reweigh::Staged;
pub use space::{Amount, Deleted, ModelUsage, Pruned, Removed, Usage};
pub use store::{
    ModelEntry, ModelList, PresetMessage, ResolvedModel, ShownModel, Store, gguf_summary,
};
pub use stores::{AllModels, Stores};
pub use verify::{Fault, Verified};
