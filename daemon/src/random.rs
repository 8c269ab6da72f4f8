//! Numbers and names that differ each time. They are no secrets.

use std::hash::{BuildHasher, RandomState};

pub(crate) fn number() -> u64 {
    // The hasher's keys are random and differ each time.
    RandomState::new().hash_one(0)
}

/// Such as `resp_0123456789abcdef`.
pub(crate) fn name(prefix: &str) -> String {
    format!("{prefix}{:016x}", number())
}
