//! A limit of bytes per second over all connections.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

#[derive(Debug)]
pub(crate) struct Limiter {
    bytes_per_second: Option<NonZeroU64>,
    /// When all that was taken so far will have been paid for.
    paid: Mutex<Instant>,
}

impl Limiter {
    pub(crate) fn new(bytes_per_second: Option<NonZeroU64>) -> Self {
        Self { bytes_per_second, paid: Mutex::new(Instant::now()) }
    }

    /// Waits until bytes that have come are within the limit. Meanwhile nobody reads, which slows the sender.
    pub(crate) async fn take(&self, n_bytes: usize) {
        let Some(rate) = self.bytes_per_second else { return };
        let cost = Duration::from_secs_f64(n_bytes as f64 / rate.get() as f64);
        let paid = {
            let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
            *paid = (*paid).max(Instant::now()) + cost;
            *paid
        };
        sleep_until(paid).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn takers_share_the_rate() {
        let limiter = Arc::new(Limiter::new(NonZeroU64::new(1000)));
        let start = Instant::now();
        let takers: Vec<_> = (0..4)
            .map(|_| {
                let limiter = Arc::clone(&limiter);
                tokio::spawn(async move {
                    for _ in 0..5 {
                        limiter.take(100).await;
                    }
                })
            })
            .collect();
        for taker in takers {
            taker.await.unwrap();
        }
        assert_eq!(start.elapsed().as_millis(), 2000);
    }
}
