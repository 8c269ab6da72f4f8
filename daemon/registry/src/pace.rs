//! Over how many connections one blob is fetched: as many as bring more.
//!
//! It begins with one, which on a fast network is all there is to gain. Where each connection gets a share of its own, two
//! bring twice as much; so the number is doubled while that raises the rate clearly. Where it does not, it is taken back,
//! and tried again after a while, since networks change. The bytes themselves say when to decide: nothing waits for it.

use std::time::{Duration, Instant};

/// A new connection is greeted first, and slow in its beginning.
const WARM_UP: Duration = Duration::from_millis(500);
/// What a rate is measured over, at least.
const SPAN: Duration = Duration::from_millis(500);
/// Between a rate that more connections did not raise and the next attempt.
const REST: Duration = Duration::from_secs(10);
/// How much more is clearly more.
const GAIN: f64 = 1.25;

#[derive(Debug)]
pub(crate) struct Pace {
    n_connections: usize,
    max: usize,
    /// The number before it was doubled, and the bytes that it brought in a second.
    before: Option<(usize, f64)>,
    /// What comes earlier is not counted.
    since: Instant,
    n_bytes: f64,
}

impl Pace {
    pub(crate) fn new(max: usize, now: Instant) -> Self {
        Self { n_connections: 1, max, before: None, since: now + WARM_UP, n_bytes: 0.0 }
    }

    pub(crate) fn n_connections(&self) -> usize {
        self.n_connections
    }

    /// Counts bytes that came. Says whether the number of connections is another now.
    pub(crate) fn came(&mut self, n_bytes: usize, now: Instant) -> bool {
        let Some(span) = now.checked_duration_since(self.since) else { return false };
        self.n_bytes += n_bytes as f64;
        if span < SPAN {
            return false;
        }
        let rate = self.n_bytes / span.as_secs_f64();
        self.n_bytes = 0.0;
        let n_connections = self.n_connections;
        match self.before.take() {
            Some((n_before, before)) if rate < before * GAIN => self.n_connections = n_before,
            _ if n_connections < self.max => {
                self.before = Some((n_connections, rate));
                self.n_connections = self.max.min(n_connections * 2);
            }
            _ => {}
        }
        self.since = now + if self.before.is_some() { WARM_UP } else { REST };
        self.n_connections != n_connections
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of connections, each with the second it began in, on a network that brings so many bytes in a second.
    fn numbers(max: usize, seconds: u64, rate: impl Fn(f64, usize) -> f64) -> Vec<(f64, usize)> {
        const TICK: Duration = Duration::from_millis(10);
        let start = Instant::now();
        let mut pace = Pace::new(max, start);
        let mut numbers = vec![(0.0, 1)];
        for tick in 1..seconds * 100 {
            let now = TICK * u32::try_from(tick).unwrap();
            let n_bytes = rate(now.as_secs_f64(), pace.n_connections()) * TICK.as_secs_f64();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "some megabytes"
            )]
            if pace.came(n_bytes as usize, start + now) {
                numbers.push((now.as_secs_f64(), pace.n_connections()));
            }
        }
        numbers
    }

    #[test]
    fn connections_that_bring_their_own_are_added_up_to_the_maximum() {
        let shared = |_, n| n as f64 * 10e6;
        assert_eq!(numbers(8, 60, shared), [(0.0, 1), (1.0, 2), (2.0, 4), (3.0, 8)]);
        assert_eq!(numbers(5, 60, shared), [(0.0, 1), (1.0, 2), (2.0, 4), (3.0, 5)]);
        assert_eq!(numbers(1, 60, shared), [(0.0, 1)]);
    }

    #[test]
    fn one_that_brings_nothing_goes_again_and_is_tried_again_later() {
        let found = numbers(8, 14, |_, _| 10e6);
        assert_eq!(found, [(0.0, 1), (1.0, 2), (2.0, 1), (12.5, 2), (13.5, 1)]);
        // A little more is not worth it.
        let found = numbers(8, 10, |_, n| 10e6 + n as f64 * 1e6);
        assert_eq!(found, [(0.0, 1), (1.0, 2), (2.0, 1)]);
    }

    #[test]
    fn the_number_stays_where_more_do_not_help() {
        let found = numbers(16, 10, |_, n| n.min(4) as f64 * 1e6);
        assert_eq!(found, [(0.0, 1), (1.0, 2), (2.0, 4), (3.0, 8), (4.0, 4)]);
    }

    #[test]
    fn a_network_that_changes_is_found_out() {
        let rate = |at: f64, n: usize| if at < 5.0 { 10e6 } else { n as f64 * 1e6 };
        let found = numbers(4, 20, rate);
        assert_eq!(found, [(0.0, 1), (1.0, 2), (2.0, 1), (12.5, 2), (13.5, 4)]);
    }

    #[test]
    fn a_slow_beginning_does_not_count() {
        let start = Instant::now();
        let mut pace = Pace::new(8, start);
        assert!(!pace.came(1 << 30, start + WARM_UP / 2));
        assert!(pace.came(1000, start + WARM_UP + SPAN));
        // Had the first second counted, twice the rate since would not look like more.
        assert!(pace.came(2000, start + (WARM_UP + SPAN) * 2));
        assert_eq!(pace.n_connections(), 4);
    }
}
