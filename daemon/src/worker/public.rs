//! The beginning that chats of one model have in common, whoever writes them: what its template and its manifest put before
//! the first message, such as a system prompt of the model's own. Only that may be shared between users.

use super::images::Pictures;
use super::preset::Preset;
use super::render::Renderer;
use super::tools::Offer;
use hearth_abi::raw::Token;
use hearth_protocol::{Message, Role};

/// Learned at the first chat, for each answer to whether to think: none, no and yes.
#[derive(Default)]
pub(super) struct PublicPrefix {
    tokens: [Option<Vec<Token>>; 3],
}

impl PublicPrefix {
    /// How many tokens of a chat's prompt are public.
    pub(super) fn of(
        &mut self,
        renderer: &Renderer,
        preset: &Preset,
        think: Option<bool>,
        prompt: &[Token],
    ) -> u32 {
        let idx = think.map_or(0, |think| 1 + usize::from(think));
        let public = self.tokens[idx].get_or_insert_with(|| {
            // What two different conversations begin with.
            let [one, other] = ["a", "z"].map(|text| {
                let messages = preset.begin(&[Message::text(Role::User, text)]);
                let messages: Vec<&Message> = messages.iter().collect();
                // A template that refuses has no public beginning.
                let (_, tokens) = renderer
                    .chat(&messages, &Pictures::default(), &Offer::default(), think)
                    .unwrap_or_default();
                tokens
            });
            let n = common(&one, &other);
            one[..n].to_vec()
        });
        u32::try_from(common(public, prompt)).unwrap_or(0)
    }
}

fn common(one: &[Token], other: &[Token]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}
