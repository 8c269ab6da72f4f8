//! The harness: a real `hearthd` in a folder of its own, the real `ctl` beside it, and clients to talk to both.
//!
//! The suites are `e2e/` (with the reference plugin), `real/` (llama.cpp and real models), `systemd/` and `docs/`. Nothing here
//! sleeps to wait for something: [`eventually`] polls a condition up to a deadline that only a fault reaches, so a loaded
//! machine makes a test slower and never red.
//!
//! A daemon ends with its [`TestDaemon`], and also when the test process is killed: see `guard`.

mod chats;
mod daemon;
mod faults;
mod gguf;
mod guard;
mod http;
mod process;
mod programs;
mod raw;
mod registry;
mod terminal;
mod tokens;
mod wait;
mod web;
mod websocket;

pub use chats::{Told, chat, embed, error_of, follow, follow_generate, generate, message, refused};
pub use daemon::{Builder, TestDaemon};
pub use faults::{Fault, FaultProxy, Passed};
pub use gguf::{GgufText, Tensor, reference_model};
pub use guard::Guard;
pub use http::{HttpEvents, HttpReply, http};
pub use process::{Held, Ran, is_alive, peak_rss_bytes, run, signal_process};
pub use programs::{ctl_path, env_path, hearthd_path, reference_plugins, repository};
pub use raw::Raw;
pub use registry::{Registry, TokenAuth, digest};
pub use terminal::{ARROW_UP, CTRL_C, CTRL_D, ENTER, Terminal};
pub use tokens::{TokenServer, openssl};
pub use wait::{DEADLINE, eventually, eventually_is};
pub use web::{WebMessage, WebReply, WebRequest, WebServer, web_ask};
pub use websocket::WebSocket;
