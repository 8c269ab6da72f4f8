//! How long steps take, learned from those that were made, and what fits into the time that one may take.
//!
//! Steps are sorted by their number of tokens into classes of doubling size, because a small step costs what reading the
//! model costs and a large one what computing costs, and no straight line fits both. Each class remembers a running mean;
//! between two classes the time is interpolated. All of it is learned while running, so a busy neighbour, a longer
//! context or fewer threads are seen within a few steps.
//!
//! Steps that only guesses make larger would never be made again after a time in which they were slow. So what one step says
//! about the machine counts for all of less than a tile, also for those that are not made.

use std::time::Duration;

/// 1, 2-3, 4-7, 8-15, ... tokens. A tile begins a class, because it is faster than what is a little smaller.
const N_CLASSES: usize = 16;
/// Weight of the newest step in its class.
const NEWEST: f64 = 0.25;
/// One step that a neighbour held up says little about the next.
const MOST_SLOWER: f64 = 4.0;
/// Prompts get at least this share of the time while answers run, however slow a step is.
const PROMPT_SHARE: f64 = 0.25;
/// While no answer runs, a step may take so many times the target: nobody waits for a token, and large steps are cheaper.
const ALONE: f64 = 8.0;
/// Kernels work on so many tokens at a time, and an odd rest costs as much as a whole one.
const TILE: usize = 64;
/// A full tile may take so many times the target, if a token in it takes at most so much of the time.
const TILE_OVER: f64 = 1.5;
const TILE_GAIN: f64 = 0.9;
/// Tokens of a prompt in a step while nothing is known.
const FIRST_PROMPT: usize = 32;

#[derive(Debug, Clone, Copy, Default)]
struct Class {
    n_tokens: f64,
    seconds: f64,
    is_known: bool,
}

/// Times of steps by their size.
#[derive(Debug)]
pub(crate) struct Pace {
    target: f64,
    classes: [Class; N_CLASSES],
}

impl Pace {
    pub(crate) fn new(target: Duration) -> Self {
        Self { target: target.as_secs_f64(), classes: [Class::default(); N_CLASSES] }
    }

    /// Learns from a step.
    pub(crate) fn observe(&mut self, n_tokens: usize, took: Duration) {
        if n_tokens < TILE {
            self.follow(n_tokens, took.as_secs_f64());
        }
        let Some(class) = self.classes.get_mut(class_of(n_tokens)) else { return };
        let (n_tokens, seconds) = (float(n_tokens), took.as_secs_f64());
        if !class.is_known {
            *class = Class { n_tokens, seconds, is_known: true };
            return;
        }
        let seconds = seconds.min(class.seconds * MOST_SLOWER);
        class.n_tokens += NEWEST * (n_tokens - class.n_tokens);
        class.seconds += NEWEST * (seconds - class.seconds);
    }

    /// Lets the other small classes become slower or faster as this one does.
    fn follow(&mut self, n_tokens: usize, seconds: f64) {
        let at = class_of(n_tokens);
        let Some(expected) = self.predict(n_tokens).filter(|_| self.classes[at].is_known) else {
            return;
        };
        let change = 1.0 + NEWEST * ((seconds / expected).min(MOST_SLOWER) - 1.0);
        for (other, class) in self.classes[..class_of(TILE)].iter_mut().enumerate() {
            if other != at {
                class.seconds *= change;
            }
        }
    }

    /// Seconds that a step of so many tokens will take; `None` while nothing is known.
    pub(crate) fn predict(&self, n_tokens: usize) -> Option<f64> {
        let wanted = float(n_tokens);
        let known = || self.classes.iter().filter(|class| class.is_known);
        let below = known().rfind(|class| class.n_tokens <= wanted);
        let above = known().find(|class| class.n_tokens > wanted);
        match (below, above) {
            (Some(below), Some(above)) => {
                let part = (wanted - below.n_tokens) / (above.n_tokens - below.n_tokens);
                Some(below.seconds + part * (above.seconds - below.seconds))
            }
            // Outside of what is known it costs per token what it cost there.
            (Some(known), None) | (None, Some(known)) => {
                Some(known.seconds * wanted / known.n_tokens)
            }
            (None, None) => None,
        }
    }

    /// As [`predict`](Self::predict), where no larger step speaks for one of so many tokens.
    pub(crate) fn predict_small(&self, n_tokens: usize) -> Option<f64> {
        let is_known = self.classes[..=class_of(n_tokens).min(N_CLASSES - 1)]
            .iter()
            .any(|class| class.is_known);
        self.predict(n_tokens).filter(|_| is_known)
    }

    /// How many tokens of prompts go into a step beside `n_answers` tokens of answers, at most `most`, after `spent` was
    /// taken for other things since the last one.
    pub(crate) fn prompt_tokens(&self, n_answers: usize, most: usize, spent: Duration) -> usize {
        let Some(answers) = self.predict(n_answers.max(1)) else { return most.min(FIRST_PROMPT) };
        let seconds = if n_answers == 0 {
            self.target * ALONE
        } else {
            (self.target - spent.as_secs_f64()).max(answers / (1.0 - PROMPT_SHARE))
        };
        let fits = |n: usize| self.predict(n_answers + n).is_none_or(|time| time <= seconds);
        // Times rise with sizes, but for noise: the first size that does not fit ends the search.
        let (mut low, mut high) = (1, most.max(1));
        while low < high {
            let middle = (low + high).div_ceil(2);
            if fits(middle) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        let rest = (n_answers + low) % TILE;
        if low > rest { low - rest } else { self.whole_tile(n_answers, low, seconds).min(most) }
    }

    /// A tile that is not full is computed slowly: a full one may take somewhat longer than the target, if that pays.
    fn whole_tile(&self, n_answers: usize, n_tokens: usize, seconds: f64) -> usize {
        let (part, whole) = (n_answers + n_tokens, TILE);
        let pays = || {
            let (part_time, whole_time) = (self.predict(part)?, self.predict(whole)?);
            let is_faster = whole_time / float(whole) < TILE_GAIN * part_time / float(part);
            Some(is_faster && whole_time < TILE_OVER * seconds)
        };
        if part < whole && n_answers < whole && pays() == Some(true) {
            whole - n_answers
        } else {
            n_tokens
        }
    }
}

fn class_of(n_tokens: usize) -> usize {
    n_tokens.max(1).ilog2() as usize
}

#[allow(clippy::cast_precision_loss)] // Numbers of tokens are small.
fn float(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn machine(fixed_ms: f64, per_token_ms: f64) -> impl Fn(usize) -> Duration {
        move |n| Duration::from_secs_f64((fixed_ms + per_token_ms * float(n)) / 1000.0)
    }

    #[test]
    fn a_step_beside_answers_stays_inside_the_target() {
        let mut pace = Pace::new(Duration::from_millis(100));
        let time = machine(7.0, 2.0);
        let mut n_tokens = 0;
        for _ in 0..30 {
            n_tokens = pace.prompt_tokens(3, 512, Duration::ZERO);
            pace.observe(3 + n_tokens, time(3 + n_tokens));
            pace.observe(3, time(3));
        }
        let took = time(3 + n_tokens);
        assert!((80..=100).contains(&took.as_millis()), "{n_tokens} tokens took {took:?}");
        // With what came before it.
        let spent = Duration::from_millis(25);
        let took = time(3 + pace.prompt_tokens(3, 512, spent));
        assert!((50..=75).contains(&took.as_millis()), "a step took {took:?} after {spent:?}");
    }

    #[test]
    fn prompts_advance_beside_answers_that_are_slower_than_the_target() {
        let mut pace = Pace::new(Duration::from_millis(100));
        let time = machine(400.0, 10.0);
        for n in [1, 2, 4, 8, 16, 32, 64] {
            pace.observe(n, time(n));
        }
        let n_tokens = pace.prompt_tokens(4, 512, Duration::ZERO);
        let (with, without) = (time(4 + n_tokens), time(4));
        let share = 1.0 - without.as_secs_f64() / with.as_secs_f64();
        assert!((0.2..0.3).contains(&share), "{n_tokens} tokens, {share} of the time");
    }

    #[test]
    fn a_machine_that_becomes_slow_is_noticed_within_a_few_steps() {
        let mut pace = Pace::new(Duration::from_millis(100));
        let (fast, slow) = (machine(7.0, 2.0), machine(70.0, 20.0));
        for _ in 0..20 {
            let n_tokens = pace.prompt_tokens(1, 512, Duration::ZERO);
            pace.observe(1 + n_tokens, fast(1 + n_tokens));
        }
        for step in 0.. {
            let n_tokens = pace.prompt_tokens(1, 512, Duration::ZERO);
            if slow(1 + n_tokens) <= Duration::from_millis(150) {
                break;
            }
            assert!(step < 20, "still {n_tokens} tokens");
            pace.observe(1 + n_tokens, slow(1 + n_tokens));
        }
    }

    #[test]
    fn a_time_in_which_the_machine_was_slow_is_forgotten_for_steps_that_are_not_made() {
        let mut pace = Pace::new(Duration::from_millis(100));
        let (fast, slow) = (machine(7.0, 0.5), machine(28.0, 2.0));
        let sizes = [1, 2, 5, 9, 17];
        let near = |pace: &Pace, time: &dyn Fn(usize) -> Duration, n| {
            (0.85..1.15).contains(&(pace.predict(n).unwrap() / time(n).as_secs_f64()))
        };
        for (time, made) in [(&fast, &sizes[..]), (&slow, &sizes), (&fast, &[1]), (&slow, &[2])] {
            for step in 0..100 {
                let n = made[step % made.len()];
                pace.observe(n, time(n));
            }
            for n in sizes {
                assert!(near(&pace, time, n), "{n}: {:?}, not {:?}", pace.predict(n), time(n));
            }
        }
        // What differs from step to step does not add up.
        for step in 0..10_000_u32 {
            let n = if step % 3 == 0 { 3 } else { 2 };
            pace.observe(n, slow(n).mul_f64(0.9 + 0.05 * f64::from(step % 5)));
        }
        for n in sizes {
            assert!(near(&pace, &slow, n), "{n}: {:?}, not {:?}", pace.predict(n), slow(n));
        }
    }

    proptest! {
        #[test]
        fn there_is_always_one_token_and_never_more_than_fit(
            steps in prop::collection::vec((1_usize..600, 0_u64..1_000_000), 0..40),
            n_answers in 0_usize..64,
            most in 1_usize..600,
        ) {
            let mut pace = Pace::new(Duration::from_millis(100));
            for (n_tokens, micros) in steps {
                pace.observe(n_tokens, Duration::from_micros(micros));
            }
            let n_tokens = pace.prompt_tokens(n_answers, most, Duration::ZERO);
            prop_assert!((1..=most).contains(&n_tokens));
        }
    }
}
