//! How many threads compute, chosen while running.
//!
//! An engine's threads meet at a barrier after every operation. Beside a busy neighbour one of them is always late, and all
//! wait: a thread fewer is then faster than all of them. So when steps become slow, a thread fewer is tried for a few
//! steps and kept if it is faster; and when a processor is idle again, or after a while, one more is tried. Only steps
//! that continue the same number of answers are compared.

use std::time::{Duration, Instant};

/// A step is slow that takes so much longer than the fastest did lately.
const SLOW: f64 = 1.5;
/// So many slow steps in a row are no accident.
const SLOW_STEPS: u32 = 4;
/// Steps of a trial. The first is not counted: threads are started or ended in it.
const TRIAL_STEPS: u32 = 6;
/// A trial has to win by this factor.
const WIN: f64 = 0.93;
/// Steps before a trial that was lost is repeated, doubled each time up to the second.
const PATIENCE: (u32, u32) = (64, 1024);
/// Steps between two looks at the idle processors.
const LOOK: u32 = 16;
/// Processors that must be idle before one more thread is tried at once.
const IDLE: f64 = 0.6;
/// How fast the fastest step is forgotten.
const FORGET: f64 = 1.002;

/// Larger steps are computed, not read: they say nothing about answers.
const MOST_TOKENS: usize = 16;

#[derive(Debug)]
pub(crate) struct Threads {
    most: u32,
    now: u32,
    /// Tokens of the steps that are compared.
    n_tokens: usize,
    /// Seconds of the fastest step with so many tokens lately, whatever the number of threads.
    fastest: f64,
    /// Running mean with `now` threads.
    mean: f64,
    n_slow: u32,
    trial: Option<Trial>,
    /// Steps until a thread fewer or more may be tried again.
    wait: u32,
    patience: u32,
    idle: IdleProcessors,
}

#[derive(Debug)]
struct Trial {
    n_threads: u32,
    n_steps: u32,
    seconds: f64,
}

impl Threads {
    /// Begins with as many as the plugin chose.
    pub(crate) fn new(most: u32) -> Self {
        Self {
            most: most.max(1),
            now: most.max(1),
            n_tokens: 0,
            fastest: f64::INFINITY,
            mean: 0.0,
            n_slow: 0,
            trial: None,
            wait: 0,
            patience: PATIENCE.0,
            idle: IdleProcessors::default(),
        }
    }

    /// Learns from a step. Answers how many threads to compute with from now on, if that changes.
    pub(crate) fn observe(&mut self, n_tokens: usize, took: Duration) -> Option<u32> {
        if self.most == 1 || n_tokens > MOST_TOKENS {
            return None;
        }
        let before = self.in_use();
        self.learn(n_tokens, took.as_secs_f64());
        (self.in_use() != before).then(|| self.in_use())
    }

    /// How many compute now.
    pub(crate) fn in_use(&self) -> u32 {
        self.trial.as_ref().map_or(self.now, |trial| trial.n_threads)
    }

    fn learn(&mut self, n_tokens: usize, seconds: f64) {
        if n_tokens != self.n_tokens {
            // Another number of answers: nothing is comparable any more.
            self.n_tokens = n_tokens;
            self.fastest = f64::INFINITY;
            self.mean = seconds;
            self.n_slow = 0;
            self.trial = None;
            return;
        }
        self.fastest = (self.fastest * FORGET).min(seconds);
        if self.trial.is_some() {
            return self.go_on_trying(seconds);
        }
        self.mean += (seconds - self.mean) / 4.0;
        self.n_slow = if seconds > self.fastest * SLOW { self.n_slow + 1 } else { 0 };
        self.wait = self.wait.saturating_sub(1);
        let is_free = self.now < self.most && self.idle.look().is_some_and(|idle| idle > IDLE);
        if is_free || (self.now < self.most && self.wait == 0) {
            self.begin(self.now + 1);
        } else if self.now > 1 && self.wait == 0 && self.n_slow >= SLOW_STEPS {
            self.begin(self.now - 1);
        }
    }

    fn begin(&mut self, n_threads: u32) {
        self.trial = Some(Trial { n_threads, n_steps: 0, seconds: 0.0 });
    }

    fn go_on_trying(&mut self, seconds: f64) {
        let Some(trial) = &mut self.trial else { return };
        trial.n_steps += 1;
        if trial.n_steps > 1 {
            trial.seconds += seconds;
        }
        let n_counted = f64::from(trial.n_steps - 1);
        // One that is far behind is not tried to the end.
        let is_lost = trial.seconds > self.mean * f64::from(TRIAL_STEPS - 1);
        if trial.n_steps < TRIAL_STEPS && !is_lost {
            return;
        }
        let (n_threads, mean) = (trial.n_threads, trial.seconds / n_counted);
        self.trial = None;
        self.n_slow = 0;
        if mean < self.mean * WIN {
            self.now = n_threads;
            self.mean = mean;
            self.patience = PATIENCE.0;
        } else {
            self.patience = (self.patience * 2).min(PATIENCE.1);
        }
        self.wait = self.patience;
    }
}

/// How many processors had nothing to do since the last look.
#[derive(Debug, Default)]
struct IdleProcessors {
    n_asked: u32,
    last: Option<(Instant, f64)>,
}

impl IdleProcessors {
    fn look(&mut self) -> Option<f64> {
        self.n_asked += 1;
        if !self.n_asked.is_multiple_of(LOOK) {
            return None;
        }
        let now = (Instant::now(), idle_seconds()?);
        let (then, idle) = self.last.replace(now)?;
        let elapsed = now.0.duration_since(then).as_secs_f64();
        // The kernel counts in hundredths.
        (0.1..10.0).contains(&elapsed).then(|| (now.1 - idle) / elapsed)
    }
}

/// Seconds that all processors together have been idle since the machine started, as Linux tells.
fn idle_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine whose step takes so many milliseconds with so many threads.
    fn run(threads: &mut Threads, n_steps: usize, time: impl Fn(u32) -> u64) -> Duration {
        let mut total = Duration::ZERO;
        for _ in 0..n_steps {
            let took = Duration::from_millis(time(threads.in_use()));
            total += took;
            threads.observe(1, took);
        }
        total
    }

    fn quiet(n_threads: u32) -> u64 {
        if n_threads == 2 { 12 } else { 19 }
    }

    fn busy(n_threads: u32) -> u64 {
        if n_threads == 2 { 70 } else { 20 }
    }

    #[test]
    fn a_quiet_machine_computes_with_all() {
        let mut threads = Threads::new(2);
        assert_eq!(run(&mut threads, 2000, quiet), Duration::from_millis(12 * 2000));
    }

    #[test]
    fn beside_a_busy_neighbour_a_thread_fewer_computes_and_later_all_again() {
        let mut threads = Threads::new(2);
        run(&mut threads, 100, quiet);
        run(&mut threads, 40, busy);
        assert_eq!(threads.now, 1);
        // Trying again what is worse costs little.
        let took = run(&mut threads, 2000, busy);
        assert!(took < Duration::from_millis(2000 * 22), "{took:?}");
        run(&mut threads, 1100, quiet);
        assert_eq!(threads.now, 2);
    }

    #[test]
    fn a_thread_fewer_is_not_kept_where_it_is_no_faster() {
        let mut threads = Threads::new(2);
        run(&mut threads, 100, quiet);
        // All became slower: another model on the same memory, say.
        let slower = |n_threads| quiet(n_threads) * 3;
        let took = run(&mut threads, 3000, slower);
        assert_eq!(threads.now, 2);
        assert!(took < Duration::from_millis(3000 * 36 * 51 / 50), "{took:?}");
    }

    #[test]
    fn one_thread_is_left_alone() {
        let mut threads = Threads::new(1);
        run(&mut threads, 500, busy);
        assert_eq!(threads.in_use(), 1);
    }
}
