//! Waiting for a condition, with a deadline for what never comes.

use std::time::{Duration, Instant};

/// Far beyond what anything here takes, also on a machine that does thirty other things. What a test holds to be endless takes
/// longer than this.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// What `condition` answers once it answers something.
#[track_caller]
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < end, "waited {} s in vain for: {what}", DEADLINE.as_secs());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub fn eventually_is(what: &str, mut condition: impl FnMut() -> bool) {
    eventually(what, || condition().then_some(()));
}
