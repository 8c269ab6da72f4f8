//! The real daemon and the real `ctl`, with the reference plugin: exact answers, in milliseconds.

#![cfg(test)]

mod backends;
mod bench;
mod candidates;
mod chat;
mod constrained;
mod context;
mod create;
mod ctl;
mod drafts;
mod dying;
mod files;
mod formats;
mod hostile;
mod memory;
mod mistakes;
mod ollama;
mod ollama_models;
mod overload;
mod privacy;
mod pull;
mod pull_faults;
mod pull_shards;
mod push;
mod push_ollama;
mod repair;
mod requests;
mod sampling;
mod service;
mod space;
mod stopping;
mod stuck;
mod templates;
mod terminal;
mod transfers;
mod users;
mod websocket;
mod wire;
