//! The real daemon and the real `ctl`, with the reference plugin: exact answers, in milliseconds.

#![cfg(test)]

mod backends;
mod bench;
mod candidates;
mod chat;
mod constrained;
mod context;
mod ctl;
mod drafts;
mod dying;
mod files;
mod hostile;
mod mistakes;
mod overload;
mod privacy;
mod pull;
mod pull_faults;
mod quantize;
mod requests;
mod sampling;
mod service;
mod show;
mod space;
mod stopping;
mod stuck;
mod templates;
mod terminal;
mod users;
mod websocket;
mod wire;
