//! What a sequence continues with: the "model" itself, a pure function of the sequence's content.
//!
//! A rolling hash over position, token and adapter salt of every cell picks one token; greedy decoding gives
//! pronounceable nonsense that ends now and then. The other tokens get lower logits from the same hash, so that
//! sampling has something to choose from.

use crate::images::{is_seen, positions};
use crate::settings::Settings;
use crate::vocab::{ASSISTANT, END, EOS, N_BASE, is_end};
use hearth_abi::raw::{Pos, Token};

const CONSONANTS: &[u8] = b"bdfgklmnprstvz";
const VOWELS: &[u8] = b"aeiou";

/// What one KV cell says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) pos: Pos,
    pub(crate) token: Token,
    /// Of the adapters that were attached when it was computed; 0 without.
    pub(crate) salt: u64,
}

/// The finaliser of SplitMix64.
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// From 0.0 up to 1.0, by the upper bits.
#[allow(clippy::cast_precision_loss)] // 24 bits fit a f32 exactly.
pub(crate) fn unit(hash: u64) -> f32 {
    (hash >> 40) as f32 / (1_u64 << 24) as f32
}

/// Longest `echo_period`.
const MAX_ECHO: usize = 16;

/// All that the next token depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    hash: u64,
    last: Option<Token>,
    /// The last tokens, by number modulo the length.
    recent: [Token; MAX_ECHO],
    n_tokens: usize,
    /// Tokens after the last ASSISTANT, if there is one.
    answered: Option<usize>,
}

impl View {
    pub(crate) fn new(seed: u64, entries: impl Iterator<Item = Entry>) -> Self {
        let mut view = Self {
            hash: mix(seed),
            last: None,
            recent: [0; MAX_ECHO],
            n_tokens: 0,
            answered: None,
        };
        for entry in entries {
            let place = (u64::from(entry.pos.cast_unsigned()) << 32)
                | u64::from(entry.token.cast_unsigned());
            view.hash = mix(view.hash ^ mix(place) ^ entry.salt);
            view.last = Some(entry.token);
            if is_seen(entry.token) {
                continue;
            }
            view.recent[view.n_tokens % MAX_ECHO] = entry.token;
            view.n_tokens += 1;
            view.answered = match view.answered {
                _ if entry.token == ASSISTANT => Some(0),
                answered => answered.map(|n| n + 1),
            };
        }
        view
    }

    fn pick(&self, from: &[u8]) -> Token {
        let index = (self.hash >> 8) % from.len() as u64;
        Token::from(from[usize::try_from(index).unwrap_or(0)])
    }

    /// What greedy decoding chooses.
    pub(crate) fn favourite(&self, settings: &Settings) -> Token {
        let end = if self.answered.is_some() { END } else { EOS };
        if let Some(answered) = self.answered.filter(|_| !settings.script.is_empty()) {
            return settings.script.as_bytes().get(answered).map_or(end, |byte| Token::from(*byte));
        }
        let last = self.last.and_then(|token| u8::try_from(token).ok());
        let ends = settings.eos_one_in > 0 && self.hash.is_multiple_of(settings.eos_one_in);
        let period = settings.echo_period as usize;
        match last {
            Some(_) if ends => end,
            _ if (1..=self.n_tokens).contains(&period) && !(self.hash >> 20).is_multiple_of(8) => {
                self.recent[(self.n_tokens - period) % MAX_ECHO]
            }
            Some(last) if CONSONANTS.contains(&last) => self.pick(VOWELS),
            Some(last) if VOWELS.contains(&last) && self.hash >> 61 < 3 => Token::from(b' '),
            _ => self.pick(CONSONANTS),
        }
    }

    pub(crate) fn write_logits(&self, settings: &Settings, logits: &mut [f32]) {
        let favourite = self.favourite(settings);
        for (token, logit) in (0..).zip(logits.iter_mut()) {
            let noise = 4.0 * unit(mix(self.hash ^ mix(token)));
            *logit = match token {
                token if token == u64::from(favourite.cast_unsigned()) => 8.0,
                0x20 | 0x61..=0x7a => noise,
                0x21..=0x7e => noise - 6.0,
                0..256 => noise - 12.0,
                _ => noise - 20.0,
            };
        }
    }
}

/// What greedy decoding of a model with these settings gives after `prompt`: up to `n` tokens, the last an end
/// token if one comes. For an image stands what [`seen`](crate::seen) tells. Adapters are not considered.
pub fn expected(settings: &Settings, prompt: &[Token], n: usize) -> Vec<Token> {
    let mut tokens = prompt.to_vec();
    while tokens.len() < prompt.len() + n {
        let entries = positions(&tokens).zip(&tokens);
        let entries = entries.map(|(pos, token)| Entry { pos, token: *token, salt: 0 });
        let next = View::new(settings.seed, entries).favourite(settings);
        tokens.push(next);
        if is_end(next) {
            break;
        }
    }
    tokens.split_off(prompt.len())
}

/// The embedding of one entry: mostly its byte, a little its predecessor and its place, so that like texts have like
/// embeddings and misplaced tokens show.
pub(crate) fn embed(seed: u64, before: Option<Entry>, entry: Entry, embedding: &mut [f32]) {
    let token = u64::from(entry.token.cast_unsigned());
    let place = u64::from(entry.pos.cast_unsigned());
    let pair = before.map_or(0, |before| u64::from(before.token.cast_unsigned()) + 1);
    for (index, value) in (0_u64..).zip(embedding.iter_mut()) {
        let noise =
            |what: u64| 2.0 * unit(mix(seed ^ mix(entry.salt ^ mix(what ^ (index << 48))))) - 1.0;
        *value += noise(token)
            + 0.3 * noise(token | ((pair + 1) << 12))
            + 0.05 * noise((place << 24) | (1 << 23));
    }
}

/// Number of tokens of a model with these settings.
pub(crate) fn n_vocab(settings: &Settings) -> u32 {
    N_BASE + settings.extra_tokens
}
