//! The daemon's body, as a library that `main` calls.
//!
//! `listen` takes connections, `rpc` answers methods, `http` puts other programs' dialects before them, `supervisor` keeps worker processes, and `worker` is what such a
//! process runs. The daemon itself loads no native inference code: only `worker`, `probe` and `plugin_check` do, each in
//! a process of its own.

mod chat_template;
pub mod cli;
pub mod config;
mod daemonize;
mod http;
mod listen;
mod logging;
mod manager;
pub mod plugin_check;
pub mod probe;
pub mod quantize;
mod random;
mod rpc;
mod sandbox;
pub mod service;
mod settings;
mod supervisor;
pub mod worker;
