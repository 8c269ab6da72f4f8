//! The beginning that chats of one model have in common, whoever writes them: what its template puts before the first
//! message, such as a system prompt of the model's own. Only that may be shared between users.

use hearth_abi::host::Model;
use hearth_abi::raw::Token;
use serde_json::{Value, json};

/// Learned at the first chat, with and without thinking.
#[derive(Default)]
pub(super) struct PublicPrefix {
    tokens: [Option<Vec<Token>>; 2],
}

impl PublicPrefix {
    /// How many tokens of a chat's prompt are public.
    pub(super) fn of(&mut self, model: &Model, thinking: bool, prompt: &[Token]) -> u32 {
        let public = self.tokens[usize::from(thinking)].get_or_insert_with(|| {
            // What two different conversations begin with.
            let [one, other] = ["a", "z"].map(|text| rendered(model, thinking, text));
            let n = common(&one, &other);
            one[..n].to_vec()
        });
        u32::try_from(common(public, prompt)).unwrap_or(0)
    }
}

/// A template that refuses has no public beginning.
fn rendered(model: &Model, thinking: bool, text: &str) -> Vec<Token> {
    let request =
        json!({ "messages": [{ "role": "user", "content": text }], "thinking": thinking });
    let answer = model.chat_render(&request.to_string()).unwrap_or_default();
    let prompt = serde_json::from_str::<Value>(&answer).unwrap_or_default();
    prompt["prompt"]
        .as_str()
        .and_then(|prompt| model.tokenize(prompt, false, true).ok())
        .unwrap_or_default()
}

fn common(one: &[Token], other: &[Token]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}
