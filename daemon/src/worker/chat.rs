//! From a conversation to a prompt: what the model's manifest says goes before it, what does not fit is left out.

use super::fit::{Dropped, Fit};
use super::images::{Pictures, Sight};
use super::prepare::refused;
use super::preset::Preset;
use super::render::{Rendered, Renderer};
use super::tools::Offer;
use hearth_abi::host::Model;
use hearth_abi::raw::Token;
use hearth_engine::Thinking;
use hearth_protocol::{ChatParams, Message, Role, RpcError};
use std::rc::Rc;

/// A chat, with what all chats with the model begin with.
pub(super) struct Conversation<'a> {
    renderer: Rc<Renderer>,
    messages: Vec<Message>,
    pub(super) offer: Offer<'a>,
    pub(super) think: Option<bool>,
    pub(super) pictures: Pictures,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(
        renderer: Rc<Renderer>,
        preset: &Preset,
        sight: &Sight,
        params: &'a ChatParams,
    ) -> Result<Self, RpcError> {
        let mut messages = preset.begin(&params.messages);
        Ok(Self {
            pictures: sight.take(&mut messages)?,
            messages,
            offer: Offer::new(params)?,
            think: renderer.think(params.think),
            renderer,
        })
    }

    /// What the model reads.
    pub(super) fn prompt(&self, fit: &Fit) -> Result<(Rendered, Vec<Token>, Dropped), RpcError> {
        fit.cut_chat(&self.messages, |messages| self.render(messages))
    }

    /// How many tokens of the prompt come before the first message that is not the system's.
    pub(super) fn n_system(&self, prompt: &[Token]) -> usize {
        let nothing = Message::text(Role::User, "");
        let is_system = |message: &&Message| message.role == Role::System;
        let messages: Vec<&Message> =
            self.messages.iter().take_while(is_system).chain([&nothing]).collect();
        // A template that refuses this has nothing to keep.
        let (_, tokens) = self.render(&messages).unwrap_or_default();
        tokens.iter().zip(prompt).take_while(|(one, other)| one == other).count()
    }

    fn render(&self, messages: &[&Message]) -> Result<(Rendered, Vec<Token>), RpcError> {
        self.renderer.chat(messages, &self.pictures, &self.offer, self.think)
    }
}

pub(super) fn thinking(
    model: &Model,
    rendered: &Rendered,
    max_tokens: Option<u32>,
    is_constrained: bool,
) -> Result<Option<Thinking>, RpcError> {
    let Some((start, ends)) = rendered.thoughts.clone().filter(|(_, ends)| !ends.is_empty()) else {
        return Ok(None);
    };
    let closing = model.tokenize(&format!("\n{}", ends[0]), false, true).map_err(refused)?;
    Ok(Some(Thinking { start, ends, closing, max_tokens, is_constrained }))
}

pub(super) fn single_token(model: &Model, text: &str) -> Option<Token> {
    match model.tokenize(text, false, true).as_deref() {
        Ok([token]) => Some(*token),
        _ => None,
    }
}
