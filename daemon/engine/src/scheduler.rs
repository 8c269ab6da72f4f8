//! Which tokens the next step computes.
//!
//! Every running answer gets its one token; then prompts are filled in, oldest first, as far as the step's budget goes.
//! While answers run, prompts get at most `n_prefill_beside` tokens of a step, so that a long prompt stalls nobody.

use crate::config::EngineConfig;

/// What the scheduler knows of one running sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pending {
    /// Index in the list of running sequences, which is oldest first.
    pub(crate) idx: usize,
    /// Tokens not yet in memory, at least one.
    pub(crate) n_pending: usize,
}

/// How many tokens of one sequence go into the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) idx: usize,
    pub(crate) n_tokens: usize,
    /// They are all it has pending, so a token is sampled after them.
    pub(crate) completes: bool,
}

/// Fills `shares` for one step.
pub(crate) fn plan(config: &EngineConfig, pending: &[Pending], shares: &mut Vec<Share>) {
    shares.clear();
    let n_batch = config.n_batch as usize;
    let single = pending.iter().filter(|sequence| sequence.n_pending == 1).take(n_batch);
    shares.extend(single.map(|sequence| Share { idx: sequence.idx, n_tokens: 1, completes: true }));
    let mut budget = n_batch - shares.len();
    if !shares.is_empty() {
        budget = budget.min(config.n_prefill_beside as usize);
    }
    for sequence in pending.iter().filter(|sequence| sequence.n_pending > 1) {
        if budget == 0 {
            break;
        }
        let n_tokens = sequence.n_pending.min(budget);
        budget -= n_tokens;
        shares.push(Share {
            idx: sequence.idx,
            n_tokens,
            completes: n_tokens == sequence.n_pending,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_answer_advances_and_the_budget_holds(
            lens in prop::collection::vec(1_usize..2000, 1..20),
            n_batch in 32_u32..600,
            n_prefill_beside in 1_u32..200,
        ) {
            let config = EngineConfig { n_batch, n_prefill_beside, ..EngineConfig::default() };
            let pending: Vec<_> = lens.iter().enumerate().map(|(idx, n)| Pending { idx, n_pending: *n }).collect();
            let mut shares = Vec::new();
            plan(&config, &pending, &mut shares);
            let total: usize = shares.iter().map(|share| share.n_tokens).sum();
            prop_assert!(total >= 1 && total <= n_batch as usize);
            for (idx, n) in lens.iter().enumerate() {
                let share = shares.iter().find(|share| share.idx == idx);
                if *n == 1 {
                    prop_assert!(share.is_some_and(|share| share.completes));
                }
                if let Some(share) = share {
                    prop_assert!(share.n_tokens >= 1 && share.n_tokens <= *n);
                    prop_assert_eq!(share.completes, share.n_tokens == *n);
                }
            }
            // Prompts are served oldest first: only the last one served may be cut.
            let prompts: Vec<_> = shares.iter().filter(|share| lens[share.idx] > 1).collect();
            prop_assert!(prompts.windows(2).all(|pair| pair[0].idx < pair[1].idx && pair[0].completes));
        }
    }
}
