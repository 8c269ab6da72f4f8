//! Names and space on disk: `model.copy`, `model.delete`, `store.usage`, `prune`, `verify`.

use crate::ModelProblem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameters of `model.copy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CopyParams {
    /// Name of a model in the store.
    pub from: String,
    /// The name it gets too; an existing model of that name is replaced.
    pub to: String,
    /// The caller's own name for this request, for `cancel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// Result of `model.copy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Copied {
    /// Short form of the new name.
    pub name: String,
    /// SHA-256 of the manifest, in hex; that of the other name.
    pub id: String,
}

/// Result of `model.delete`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deleted {
    /// Short form of the name.
    pub name: String,
    /// Bytes of the files that no other model has, which were removed with it.
    pub freed_bytes: u64,
    /// The folder with the model that the name means now; absent when it means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncovers: Option<String>,
    /// Why files were left that perhaps nobody needs; absent when none were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<ModelProblem>,
}

/// Result of `store.usage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoreUsage {
    /// Each folder that models are in.
    pub stores: Vec<FolderUsage>,
}

/// What one folder holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FolderUsage {
    /// The folder.
    pub path: String,
    /// Nothing is ever written to it.
    #[serde(default)]
    pub read_only: bool,
    /// Those that take most alone first.
    pub models: Vec<ModelUsage>,
    /// All of it, with what models share counted once.
    pub total: Amount,
    /// What no model has.
    pub unreferenced: Amount,
    /// What imports and downloads left, or are at work on.
    pub unfinished: Amount,
    /// Entries that cannot be read.
    pub problems: Vec<ModelProblem>,
}

/// Space that one model needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelUsage {
    /// Short form of the name.
    pub name: String,
    /// Bytes of everything the manifest names.
    pub size_bytes: u64,
    /// Of files that no other model has: what deleting it gives back.
    pub own_bytes: u64,
    /// Of files that other models have too.
    pub shared_bytes: u64,
    /// Of files elsewhere that it is linked to.
    pub linked_bytes: u64,
}

/// Files, and the space they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Amount {
    /// How many.
    pub files: u64,
    /// All together.
    pub bytes: u64,
}

/// Parameters of `store.prune`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PruneParams {
    /// Only says what it would remove.
    #[serde(default)]
    pub dry_run: bool,
}

/// Result of `store.prune`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pruned {
    /// What was removed, or would be.
    pub removed: Vec<PrunedFile>,
    /// Its bytes together.
    pub freed_bytes: u64,
    /// What nobody needs but is new or in use, and stays: files of no model for an hour, unfinished ones for a day.
    pub spared: Amount,
    /// Why only unfinished files were removed; absent when that is not so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<ModelProblem>,
}

/// A file that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PrunedFile {
    /// Where it was.
    pub path: String,
    /// What it took.
    pub size_bytes: u64,
    /// False for what a model had once.
    pub unfinished: bool,
}

/// Parameters of `store.verify`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyParams {
    /// Names of models in the store; all of them if there are none.
    #[serde(default)]
    pub models: Vec<String>,
    /// Whether what is missing or damaged is fetched again from where its model came.
    #[serde(default)]
    pub repair: bool,
    /// The caller's own name for this request, for `cancel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// Result of `store.verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verified {
    /// How many models were looked at.
    pub models: u64,
    /// How many files they have; one that several have counts once.
    pub files: u64,
    /// What was read of them.
    pub bytes: u64,
    /// How many files were fetched again and are right now.
    #[serde(default)]
    pub repaired: u64,
    /// Everything wrong; empty if the models are what was stored. What was repaired is not among it.
    pub faults: Vec<VerifyFault>,
}

/// Something wrong with a model. What several models have is wrong in each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerifyFault {
    /// Short form of the name; absent where the entry's name cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The file.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
    /// What to do next; absent when nobody can know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
