//! The real daemon and the real `ctl`, with the reference plugin: exact answers, in milliseconds.

#![cfg(test)]

mod anthropic;
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
mod export;
mod files;
mod formats;
mod hostile;
mod images;
mod memory;
mod mistakes;
mod ollama;
mod ollama_models;
mod openai;
mod overload;
mod privacy;
mod pull;
mod pull_faults;
mod pull_shards;
mod push;
mod push_ollama;
mod quantize;
mod repair;
mod requests;
mod sampling;
mod service;
mod show;
mod space;
mod stopping;
mod stores;
mod stuck;
mod templates;
mod terminal;
mod transfers;
mod users;
mod websocket;
mod wire;
