//! Repeat, presence and frequency penalties.

use super::{Sampling, logit_of};
use hearth_abi::raw::Token;
use std::collections::{HashMap, VecDeque};

/// Counts of the recent tokens.
#[derive(Debug, Clone)]
pub(super) struct Penalties {
    repeat: f32,
    presence: f32,
    frequency: f32,
    last_n: usize,
    recent: VecDeque<Token>,
    counts: HashMap<Token, u32>,
}

impl Penalties {
    /// `None` if nothing is penalized.
    #[allow(clippy::float_cmp)] // Exactly these values mean off.
    pub(super) fn new(sampling: &Sampling, prompt: &[Token]) -> Option<Self> {
        let Sampling { repeat_penalty: repeat, presence_penalty, frequency_penalty, .. } =
            *sampling;
        let last_n = sampling.repeat_last_n as usize;
        let is_off = repeat == 1.0 && presence_penalty == 0.0 && frequency_penalty == 0.0;
        if is_off || last_n == 0 {
            return None;
        }
        let mut penalties = Self {
            repeat,
            presence: presence_penalty,
            frequency: frequency_penalty,
            last_n,
            recent: VecDeque::new(),
            counts: HashMap::new(),
        };
        let first = prompt.len().saturating_sub(last_n);
        prompt[first..].iter().for_each(|token| penalties.accept(*token));
        Some(penalties)
    }

    pub(super) fn apply(&self, logits: &mut [f32]) {
        for (token, count) in &self.counts {
            let Some(logit) = logit_of(logits, *token) else { continue };
            if *logit > 0.0 {
                *logit /= self.repeat;
            } else {
                *logit *= self.repeat;
            }
            #[allow(clippy::cast_precision_loss)] // At most repeat_last_n.
            let count = *count as f32;
            *logit -= self.presence + self.frequency * count;
        }
    }

    pub(super) fn accept(&mut self, token: Token) {
        if self.recent.len() == self.last_n
            && let Some(old) = self.recent.pop_front()
            && let Some(count) = self.counts.get_mut(&old)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&old);
            }
        }
        self.recent.push_back(token);
        *self.counts.entry(token).or_insert(0) += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn penalties_change_recent_tokens_only_and_forget_old_ones() {
        let sampling = Sampling {
            repeat_penalty: 2.0,
            presence_penalty: 0.5,
            frequency_penalty: 0.25,
            repeat_last_n: 3,
            ..Sampling::default()
        };
        let penalties = Penalties::new(&sampling, &[0, 1, 1, 2]).unwrap();
        let mut logits = [4.0, 4.0, -4.0, 4.0];
        penalties.apply(&mut logits);
        assert_eq!(logits, [4.0, 2.0 - 0.5 - 0.5, -8.0 - 0.5 - 0.25, 4.0]);
    }

    proptest! {
        #[test]
        fn as_counted_anew_each_time(
            tokens in prop::collection::vec(0_i32..6, 0..40),
            n_prompt in 0_usize..40,
            last_n in 0_u32..12,
            repeat in 0.5_f32..2.0,
            presence in -1.0_f32..1.0,
            frequency in -1.0_f32..1.0,
        ) {
            let sampling = Sampling {
                repeat_penalty: repeat,
                presence_penalty: presence,
                frequency_penalty: frequency,
                repeat_last_n: last_n,
                ..Sampling::default()
            };
            let (prompt, answer) = tokens.split_at(n_prompt.min(tokens.len()));
            let mut penalties = Penalties::new(&sampling, prompt);
            for token in answer {
                penalties.iter_mut().for_each(|penalties| penalties.accept(*token));
            }
            let logits = [2.0_f32, -1.0, 0.0, 3.5, -0.5, 1.0];
            let mut seen = logits;
            penalties.iter().for_each(|penalties| penalties.apply(&mut seen));

            let recent = &tokens[tokens.len().saturating_sub(last_n as usize)..];
            for (token, (logit, seen)) in (0..).zip(logits.iter().zip(seen)) {
                let count = u16::try_from(recent.iter().filter(|recent| **recent == token).count()).unwrap();
                let mut wanted = *logit;
                if count > 0 {
                    wanted = if wanted > 0.0 { wanted / repeat } else { wanted * repeat };
                    wanted -= presence + frequency * f32::from(count);
                }
                prop_assert_eq!(seen, wanted);
            }
        }
    }
}
