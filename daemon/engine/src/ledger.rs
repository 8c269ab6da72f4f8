//! Who got how much: fairness between the owners of requests.
//!
//! Each owner with living requests has an account of the tokens computed for it; the one with the least comes next. Who
//! comes new begins with the least that anybody has, so nobody saves up by being away and nobody pays for the past.

use std::collections::HashMap;
use std::time::Duration;

#[derive(Debug, Clone, Copy, Default)]
struct Account {
    n_tokens: u64,
    n_living: usize,
}

/// Accounts of all owners with living requests.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    accounts: HashMap<u32, Account>,
    /// How long a request lately took from its place to its end.
    service: Option<Duration>,
}

impl Ledger {
    pub(crate) fn enter(&mut self, owner: u32) {
        let least = self.accounts.values().map(|account| account.n_tokens).min().unwrap_or(0);
        let account =
            self.accounts.entry(owner).or_insert(Account { n_tokens: least, n_living: 0 });
        account.n_living += 1;
    }

    pub(crate) fn leave(&mut self, owner: u32) {
        if let Some(account) = self.accounts.get_mut(&owner) {
            account.n_living -= 1;
            if account.n_living == 0 {
                self.accounts.remove(&owner);
            }
        }
    }

    pub(crate) fn charge(&mut self, owner: u32, n_tokens: usize) {
        if let Some(account) = self.accounts.get_mut(&owner) {
            account.n_tokens += n_tokens as u64;
        }
    }

    /// Less comes first.
    pub(crate) fn got(&self, owner: u32) -> u64 {
        self.accounts.get(&owner).map_or(0, |account| account.n_tokens)
    }

    /// Learns how long a request took.
    pub(crate) fn served(&mut self, took: Duration) {
        self.service = Some(match self.service {
            Some(service) => (service * 3 + took) / 4,
            None => took,
        });
    }

    /// How long the one at `place` will wait about, with so many served at once.
    pub(crate) fn estimate(&self, place: u32, n_parallel: u32) -> Option<Duration> {
        self.service.map(|service| service * place / n_parallel.max(1))
    }

    pub(crate) fn verify_invariants(&self, living: impl Iterator<Item = u32>) {
        let mut n_living: HashMap<u32, usize> = HashMap::new();
        living.for_each(|owner| *n_living.entry(owner).or_default() += 1);
        assert_eq!(n_living.len(), self.accounts.len(), "an account has nobody");
        for (owner, account) in &self.accounts {
            assert_eq!(n_living.get(owner), Some(&account.n_living), "requests of {owner}");
        }
    }
}
