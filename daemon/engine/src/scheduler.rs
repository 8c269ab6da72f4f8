//! Which tokens the next step computes.
//!
//! Every running answer gets its one token; then prompts are filled in, in the order given, as far as the step's budget
//! goes.
//!
//! Where answers of several users run, a step is shared by user: with k users it takes at most k times what the answers of
//! the user who has fewest would take alone, and of a user who has more, each time others sit out. So fifteen answers of one
//! slow another's one as much as a few do. To give every user as many tokens would waste what computing together gains.

/// What the scheduler knows of one running sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pending {
    /// Index in the list of running sequences.
    pub(crate) idx: usize,
    /// Tokens not yet in memory, at least one. One: an answer that goes on.
    pub(crate) n_pending: usize,
    /// Of these, as many as may be computed now.
    pub(crate) n_most: usize,
}

/// How many tokens of one sequence go into the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) idx: usize,
    pub(crate) n_tokens: usize,
    /// They are all it has pending, so a token is sampled after them.
    pub(crate) completes: bool,
    /// Guessed tokens behind them.
    pub(crate) n_drafted: usize,
}

/// How many answers of each user go into one step, of users that have so many. `seconds` tells how long a step of so many
/// takes, if that is known.
pub(crate) fn most_of_each(
    n_answers: impl Iterator<Item = usize> + Clone,
    seconds: impl Fn(usize) -> Option<f64>,
) -> usize {
    let (n_users, fewest) = (n_answers.clone().count(), n_answers.clone().min().unwrap_or(0));
    let most = n_answers.clone().max().unwrap_or(0);
    let Some(alone) = seconds(fewest) else { return most };
    let fair = alone * f64::from(u32::try_from(n_users).unwrap_or(u32::MAX));
    let fits = |each: &usize| {
        let n_tokens = n_answers.clone().map(|n| n.min(*each)).sum();
        seconds(n_tokens).is_none_or(|seconds| seconds <= fair)
    };
    (fewest + 1..=most).take_while(fits).last().unwrap_or(fewest)
}

/// Fills `shares` for one step of at most `n_batch` tokens. `prompt_budget` tells how many tokens of prompts go beside so
/// many answers.
pub(crate) fn plan(
    n_batch: usize,
    prompt_budget: impl FnOnce(usize, usize) -> usize,
    pending: &[Pending],
    shares: &mut Vec<Share>,
) {
    shares.clear();
    let answers = pending.iter().filter(|sequence| sequence.n_pending == 1).take(n_batch);
    shares.extend(answers.map(|sequence| Share {
        idx: sequence.idx,
        n_tokens: 1,
        completes: true,
        n_drafted: 0,
    }));
    let left = n_batch - shares.len();
    let prompts = || pending.iter().filter(|sequence| sequence.n_pending > 1);
    if left == 0 || prompts().next().is_none() {
        return;
    }
    let mut budget = prompt_budget(shares.len(), left).min(left);
    for sequence in prompts() {
        if budget == 0 {
            break;
        }
        let n_tokens = sequence.n_most.min(budget);
        if n_tokens > 0 {
            budget -= n_tokens;
            let completes = n_tokens == sequence.n_pending;
            shares.push(Share { idx: sequence.idx, n_tokens, completes, n_drafted: 0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_answer_is_not_slowed_by_anothers_many() {
        let float = |n: usize| f64::from(u32::try_from(n).unwrap());
        let most = |n_answers: &[usize], fixed: f64| {
            most_of_each(n_answers.iter().copied(), |n| Some(fixed + float(n)))
        };
        // Each answer costs as much as the step itself: one and two more take twice as long as the one.
        assert_eq!(most(&[1, 15], 1.0), 2);
        assert_eq!(most(&[1, 15, 15], 1.0), 2);
        // Nothing to gain from fewer.
        assert_eq!(most(&[1, 15], 100.0), 15);
        assert_eq!(most(&[15], 0.0), 15);
        assert_eq!(most(&[7, 8], 0.0), 7);
        assert_eq!(most(&[5, 5, 5], 0.0), 5);
        assert_eq!(most_of_each([1, 9].into_iter(), |_| None), 9);
    }

    proptest! {
        #[test]
        fn every_answer_advances_and_the_budget_holds(
            lens in prop::collection::vec(1_usize..2000, 1..20),
            n_batch in 32_usize..600,
            n_budget in 1_usize..200,
        ) {
            let pending: Vec<_> = lens.iter().enumerate().map(|(idx, n)| Pending { idx, n_pending: *n, n_most: *n }).collect();
            let mut shares = Vec::new();
            plan(n_batch, |_, _| n_budget, &pending, &mut shares);
            let total: usize = shares.iter().map(|share| share.n_tokens).sum();
            let n_answers = lens.iter().filter(|n| **n == 1).count();
            prop_assert!(total >= 1 && total <= n_batch && total <= n_answers + n_budget);
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
            // Prompts are served in order: only the last one served may be cut.
            let prompts: Vec<_> = shares.iter().filter(|share| lens[share.idx] > 1).collect();
            prop_assert!(prompts.windows(2).all(|pair| pair[0].idx < pair[1].idx && pair[0].completes));
        }
    }
}
