//! How often the same is asked again.

use crate::error::PullError;
use std::time::Duration;
use tokio::time::sleep;

/// In a row, without any progress, of what carries a blob.
pub(crate) const MAX_ATTEMPTS: u32 = 6;
/// For a manifest, which takes no part of a minute.
const MAX_ASKS: u32 = 4;

pub(crate) struct Patience {
    n_left: u32,
    wait: Duration,
}

impl Patience {
    pub(crate) fn new(wait: Duration) -> Self {
        Self { n_left: MAX_ASKS - 1, wait }
    }

    /// Waits before the next attempt, or gives the error back if there is to be none.
    pub(crate) async fn wait(&mut self, error: PullError) -> Result<(), PullError> {
        if self.n_left == 0 || !error.is_transient() {
            return Err(error);
        }
        self.n_left -= 1;
        sleep(error.retry_after().unwrap_or(self.wait)).await;
        self.wait *= 2;
        Ok(())
    }
}
