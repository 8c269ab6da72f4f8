//! Leaving out what is oldest in a prompt that leaves too little room for its answer, where the caller asked for that.
//!
//! It goes by blocks of a quarter of the context: a conversation that grows loses nothing more until the next block is due,
//! so its prompts begin alike, and the engine finds that beginning in its memory.

use super::sampling::number;
use hearth_abi::raw::Token;
use hearth_engine::outside_spans;
use hearth_protocol::{Message, Options, Role, RpcError};

/// Where `keep` says nothing: the first tokens, on which models put much of their attention whatever they are.
const KEEP: usize = 4;

/// What was left out of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Dropped {
    pub(super) n_messages: usize,
    pub(super) n_tokens: usize,
}

/// What a request wants of its context.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fit {
    n_ctx: usize,
    /// For the answer.
    room: usize,
    truncate: bool,
    shift: bool,
    keep: Option<usize>,
}

impl Fit {
    /// `n_ctx`: the most that a request can have.
    pub(super) fn new(options: &Options, n_ctx: u32) -> Result<Self, RpcError> {
        let n_ctx = n_ctx.min(options.context.unwrap_or(u32::MAX));
        let most = n_ctx.saturating_sub(1) / 2;
        let keep = options.keep.map(|keep| number("keep", keep, 0, most)).transpose()?;
        let room = options.max_tokens.unwrap_or(u32::MAX).min(n_ctx / 4).max(1);
        Ok(Self {
            n_ctx: n_ctx as usize,
            room: room as usize,
            truncate: options.truncate.unwrap_or(false),
            shift: options.shift.unwrap_or(false),
            keep: keep.map(|keep| keep as usize),
        })
    }

    /// How many tokens at the start stay. `n_first` tells how many say what the rest is about.
    fn keep(&self, n_first: impl FnOnce() -> usize) -> usize {
        self.keep.unwrap_or_else(|| n_first().max(KEEP).min(self.n_ctx.saturating_sub(1) / 2))
    }

    /// The same, where the context is to be shifted.
    pub(super) fn shift(&self, n_first: impl FnOnce() -> usize) -> Option<u32> {
        self.shift.then(|| u32::try_from(self.keep(n_first)).unwrap_or(u32::MAX))
    }

    /// Most tokens of the answer, where the caller says nothing: one that is shifted might never end.
    pub(super) fn most_tokens(&self) -> Option<u32> {
        self.shift.then(|| u32::try_from(self.n_ctx.saturating_mul(10)).unwrap_or(u32::MAX))
    }

    /// How many tokens of a prompt have to go.
    fn excess(&self, n_tokens: usize) -> usize {
        let excess = (n_tokens + self.room).saturating_sub(self.n_ctx);
        if self.truncate { excess.next_multiple_of((self.n_ctx / 4).max(1)) } else { 0 }
    }

    /// Leaves out tokens of a plain text, and images as a whole.
    pub(super) fn cut(&self, tokens: &mut Vec<Token>) -> Dropped {
        let keep = self.keep(|| 0);
        let n_tokens = self.excess(tokens.len()).min(tokens.len().saturating_sub(keep));
        if n_tokens == 0 {
            return Dropped::default();
        }
        let out = outside_spans(tokens, keep..keep + n_tokens);
        Dropped { n_messages: 0, n_tokens: tokens.drain(out).count() }
    }

    /// Leaves out turns of a chat: a message of the user's and what follows it, up to the next. System messages and the last
    /// turn stay, though they may not fit. `render` makes a prompt of what is left.
    pub(super) fn cut_chat<R>(
        &self,
        messages: &[Message],
        render: impl Fn(&[&Message]) -> Result<(R, Vec<Token>), RpcError>,
    ) -> Result<(R, Vec<Token>, Dropped), RpcError> {
        let all: Vec<&Message> = messages.iter().collect();
        let (rendered, tokens) = render(&all)?;
        let (n_whole, n_out) = (tokens.len(), self.excess(tokens.len()));
        let starts = if n_out == 0 { Vec::new() } else { later_turns(messages) };
        let mut best = (rendered, tokens, all.len());
        // The first turn to stay, of which there is one at least.
        let (mut low, mut high) = (0, starts.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let left = since(messages, starts[middle]);
            let (rendered, tokens) = render(&left)?;
            if tokens.len() + n_out <= n_whole || middle + 1 == starts.len() {
                best = (rendered, tokens, left.len());
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        let (rendered, tokens, n_left) = best;
        let n_messages = messages.len() - n_left;
        let n_tokens = n_whole.saturating_sub(tokens.len());
        Ok((rendered, tokens, Dropped { n_messages, n_tokens }))
    }
}

/// Where the turns after the first begin.
fn later_turns(messages: &[Message]) -> Vec<usize> {
    let spoken = (0..messages.len()).filter(|at| messages[*at].role != Role::System);
    spoken.skip(1).filter(|at| messages[*at].role == Role::User).collect()
}

/// The messages from `start` on, and all system messages.
fn since(messages: &[Message], start: usize) -> Vec<&Message> {
    let stays = |(at, message): &(usize, &Message)| *at >= start || message.role == Role::System;
    messages.iter().enumerate().filter(stays).map(|(_, message)| message).collect()
}

/// Leaves out the end of a text that is too long. `nothing`: the tokens of no text, of which those at the end stay.
pub(super) fn cut_end(tokens: &mut Vec<Token>, nothing: &[Token], n_ctx: usize) {
    let pairs = tokens.iter().rev().zip(nothing.iter().rev());
    let n_end = pairs.take_while(|(a, b)| a == b).count();
    if tokens.len() > n_ctx && n_end < n_ctx {
        tokens.drain(n_ctx - n_end..tokens.len() - n_end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(n_ctx: u32, max_tokens: u32) -> Fit {
        let options =
            Options { truncate: Some(true), max_tokens: Some(max_tokens), ..Options::default() };
        Fit::new(&options, n_ctx).unwrap()
    }

    /// So many turns of 10 tokens each after a system message of 5, where a token is a byte.
    fn talk(n_turns: usize) -> Vec<Message> {
        let turn = |at| {
            let question = Message::text(Role::User, format!("q{at:03}"));
            [question, Message::text(Role::Assistant, "answer")]
        };
        let system = Message::text(Role::System, "brief");
        [system].into_iter().chain((0..n_turns).flat_map(turn)).collect()
    }

    fn cut(fit: Fit, messages: &[Message]) -> (String, Dropped) {
        let render = |messages: &[&Message]| {
            let text: String = messages.iter().map(|message| message.content.as_str()).collect();
            let tokens = text.bytes().map(Token::from).collect();
            Ok((text, tokens))
        };
        let (text, tokens, dropped) = fit.cut_chat(messages, render).unwrap();
        assert_eq!(text.len(), tokens.len());
        (text, dropped)
    }

    #[test]
    fn a_text_loses_blocks_behind_its_start() {
        let whole: Vec<Token> = (0..200).collect();
        for n_tokens in 1..200 {
            let mut tokens = whole[..n_tokens].to_vec();
            let dropped = fit(100, 10).cut(&mut tokens);
            assert_eq!(dropped.n_tokens, (n_tokens + 10).saturating_sub(100).next_multiple_of(25));
            let left =
                [&whole[..4.min(n_tokens)], &whole[(4 + dropped.n_tokens).min(n_tokens)..n_tokens]];
            assert_eq!(tokens, left.concat());
            assert!(tokens.len() + 10 <= 100 && (dropped.n_tokens == 0 || tokens.len() > 50));
        }
    }

    #[test]
    fn a_chat_loses_whole_turns_and_no_more_until_the_next_block() {
        let mut starts = Vec::new();
        for n_turns in 1..60 {
            let (text, dropped) = cut(fit(200, 20), &talk(n_turns));
            assert!(text.len() + 20 <= 200 && text.starts_with("briefq"));
            assert!(text.ends_with(&format!("q{:03}answer", n_turns - 1)));
            assert_eq!(dropped.n_tokens, 5 + 10 * n_turns - text.len());
            assert_eq!(dropped.n_messages, dropped.n_tokens / 5);
            starts.push(dropped.n_tokens);
        }
        starts.dedup();
        assert_eq!(starts, (0..).map(|n| n * 50).take(starts.len()).collect::<Vec<_>>());
    }

    #[test]
    fn the_last_turn_stays_though_it_may_not_fit() {
        let mut messages = talk(3);
        messages.push(Message::text(Role::User, "x".repeat(300)));
        let (text, dropped) = cut(fit(200, 20), &messages);
        assert_eq!((text.len(), dropped.n_messages), (305, 6));
        let (text, dropped) = cut(fit(200, 20), &messages[7..]);
        assert_eq!((text.len(), dropped), (300, Dropped::default()));
    }

    #[test]
    fn nothing_is_left_out_unasked() {
        let plain = Fit::new(&Options::default(), 100).unwrap();
        assert_eq!(plain.cut(&mut vec![1; 500]), Dropped::default());
        assert_eq!(cut(plain, &talk(100)).1, Dropped::default());
    }

    #[test]
    fn what_stays_is_less_than_half() {
        let keep = |keep| Options { keep: Some(keep), ..Options::default() };
        assert!(Fit::new(&keep(49), 100).is_ok());
        assert!(Fit::new(&keep(50), 100).is_err());
        assert_eq!(Fit::new(&Options::default(), 100).unwrap().keep(|| 70), 49);
    }
}
