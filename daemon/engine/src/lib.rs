//! The serving loop: schedule → run → sample → emit.
//!
//! Six nouns. A [`sequence`](sequence::Sequence) is one request's tokens; the scheduler fills a batch from the running
//! ones; the cache says which tokens lie in which place of the KV memory and whose they are; the runner
//! computes a batch; the sampler picks tokens, and a [`Constraint`] says which may come; the config sizes it all.
//! [`Engine::step`] is the loop's body.
//!
//! The engine is single-threaded, but for the masks of constraints, and knows no process, socket, wire format or chat
//! template. It depends on the plugin behind `hearth_abi::host`, and on llguidance.
//!
//! **Invariant.** [`Engine::verify_invariants`] holds between any two calls.

mod cache;
mod config;
mod constraint;
mod embedder;
mod engine;
mod guess;
mod images;
mod ledger;
mod pace;
mod runner;
mod sampler;
mod scheduler;
mod scorer;
mod sequence;
mod single;
mod text;
mod thoughts;
mod threads;

pub use config::EngineConfig;
pub use constraint::{
    Constraint, ConstraintError, Guide, Guided, PluginGrammar, Rule, Triggers, check,
};
pub use embedder::Embedder;
pub use engine::{Engine, Fatal, Held, Sink};
pub use guess::DraftError;
pub use images::{Span, outside_spans};
pub use sampler::{Breakers, Dry, Logprobs, Mirostat, MirostatVersion, Sampler, Sampling};
pub use scorer::{Scorer, Scoring};
pub use sequence::{Event, Failure, Finish, FinishReason, Request};
pub use thoughts::Thinking;
