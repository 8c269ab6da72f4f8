//! Which tokens may be chosen: top-n-sigma, top-k, typical, top-p, min-p, XTC.
//!
//! The candidates are gathered in one pass over the logits, and no more of them than can matter; from then on all work is
//! on that list. It is never sorted as a whole: a cut by probability halves the part that the cut lies in until few are
//! left. Equal logits are ordered by token number.

use super::vector::{self, exp};
use super::{Sampling, token_of};
use hearth_abi::raw::Token;
use std::cmp::Ordering;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) logit: f32,
    pub(super) token: Token,
}

impl Candidate {
    /// Likeliest first, then the smaller number. No logit here is NaN.
    pub(super) fn before(&self, other: &Self) -> Ordering {
        let by_logit = other.logit.partial_cmp(&self.logit).unwrap_or(Ordering::Equal);
        by_logit.then(self.token.cmp(&other.token))
    }

    fn weight(&self, best: f32) -> f64 {
        f64::from(exp(self.logit - best))
    }
}

/// How logits are compared before candidates are gathered: vector code, and nearly all groups end there.
const GROUP: usize = 32;

/// Fills the list with what all the rules leave of a distribution whose largest logit is `best`. False when no rule
/// takes anything away: then the list is empty and all may be chosen.
pub(super) fn truncate(
    sampling: &Sampling,
    logits: &[f32],
    best: f32,
    xtc: bool,
    list: &mut Vec<Candidate>,
) -> bool {
    list.clear();
    let (n, min_keep) = (logits.len(), sampling.min_keep.max(1) as usize);
    let top_k = Some(sampling.top_k as usize).filter(|k| (1..n).contains(k));
    let (typical, top_p) = (sampling.typical_p < 1.0, sampling.top_p < 1.0);
    let min_p = (sampling.min_p > 0.0).then(|| sampling.min_p.ln());
    let floor = sigma_floor(sampling.top_n_sigma, logits, best);
    let open = floor == f32::NEG_INFINITY && !typical && !top_p && min_p.is_none() && !xtc;
    if open && top_k.is_none() {
        return false;
    }

    if let Some(k) = top_k {
        likeliest(logits, k, list);
        list.retain(|candidate| candidate.logit >= floor);
    }
    if typical {
        keep_typical(sampling.typical_p, min_keep, logits, best, floor, top_k.is_some(), list);
    }
    let gathered = top_k.is_some() || typical;
    if top_p {
        keep_top_p(sampling.top_p, min_keep, logits, best, floor, gathered, list);
    }
    if !gathered && !top_p {
        let low = min_p.map_or(floor, |ratio| floor.max(best + ratio));
        between(logits, low, f32::INFINITY, list);
        if min_p.is_some() && list.len() < min_keep {
            likeliest(logits, min_keep, list);
            list.retain(|candidate| candidate.logit >= floor);
        }
    }
    if let Some(ratio) = min_p {
        keep_min_p(ratio, min_keep, list);
    }
    if xtc {
        exclude_top_choices(sampling.xtc_threshold, min_keep, list);
    }
    true
}

/// The largest logit less so many standard deviations of all.
fn sigma_floor(n: f32, logits: &[f32], best: f32) -> f32 {
    if n <= 0.0 {
        return f32::NEG_INFINITY;
    }
    let (_, _, deviation) = vector::spread(logits);
    #[allow(clippy::cast_possible_truncation)] // A deviation of f32 is one.
    let floor = (f64::from(best) - f64::from(n) * deviation) as f32;
    floor
}

/// The `k` likeliest, in no order.
pub(super) fn likeliest(logits: &[f32], k: usize, list: &mut Vec<Candidate>) {
    // The list is cut back to `k` when it has grown to `room`, and the last of those is the new floor.
    let room = k.max(32) * 4;
    let mut floor = f32::NEG_INFINITY;
    list.clear();
    for (group_idx, group) in logits.chunks(GROUP).enumerate() {
        if !group.iter().fold(false, |any, logit| any | (*logit > floor)) {
            continue;
        }
        for (offset, logit) in group.iter().enumerate() {
            if *logit > floor {
                let token = token_of(group_idx * GROUP + offset);
                list.push(Candidate { logit: *logit, token });
            }
        }
        if list.len() >= room {
            floor = keep_likeliest(k, list).unwrap_or(floor);
        }
    }
    keep_likeliest(k, list);
}

/// Answers the logit of the last one kept, if any was dropped.
fn keep_likeliest(k: usize, list: &mut Vec<Candidate>) -> Option<f32> {
    if list.len() <= k {
        return None;
    }
    let (_, last, _) = list.select_nth_unstable_by(k - 1, Candidate::before);
    let floor = last.logit;
    list.truncate(k);
    Some(floor)
}

/// All from `low` to `high` but those that are minus infinity, by token number.
pub(super) fn between(logits: &[f32], low: f32, high: f32, list: &mut Vec<Candidate>) {
    let low = low.max(f32::MIN);
    list.clear();
    for (group_idx, group) in logits.chunks(GROUP).enumerate() {
        if !group.iter().fold(false, |any, logit| any | (*logit >= low)) {
            continue;
        }
        for (offset, logit) in group.iter().enumerate() {
            if *logit >= low && *logit <= high {
                let token = token_of(group_idx * GROUP + offset);
                list.push(Candidate { logit: *logit, token });
            }
        }
    }
}

fn total(list: &[Candidate], best: f32) -> f64 {
    list.iter().map(|candidate| candidate.weight(best)).sum()
}

/// Those whose surprise is nearest to the expected one, until they hold more than `p`.
fn keep_typical(
    p: f32,
    min_keep: usize,
    logits: &[f32],
    best: f32,
    floor: f32,
    gathered: bool,
    list: &mut Vec<Candidate>,
) {
    let (mass, entropy) = if gathered {
        let mass = total(list, best);
        let weighted: f64 = list
            .iter()
            .map(|candidate| candidate.weight(best) * f64::from(candidate.logit - best))
            .sum();
        (mass, mass.ln() - weighted / mass)
    } else {
        vector::mass_and_entropy(logits, best, floor)
    };
    // The logit whose surprise is the entropy.
    #[allow(clippy::cast_possible_truncation)] // Compared with f32.
    let centre = (f64::from(best) + mass.ln() - entropy) as f32;
    let wanted = f64::from(p) * mass;
    if !gathered {
        for width in [1.0, 2.0, 4.0, 8.0, 16.0, f32::INFINITY] {
            between(logits, floor.max(centre - width), centre + width, list);
            if list.len() >= min_keep && total(list, best) > wanted {
                break;
            }
        }
    }
    let distance = |candidate: &Candidate| (candidate.logit - centre).abs();
    let order = |a: &Candidate, b: &Candidate| {
        let by_distance = distance(a).partial_cmp(&distance(b)).unwrap_or(Ordering::Equal);
        by_distance.then(a.before(b))
    };
    keep_mass(list, min_keep, best, order, |held| held > wanted);
}

/// The likeliest, until they hold `p`.
fn keep_top_p(
    p: f32,
    min_keep: usize,
    logits: &[f32],
    best: f32,
    floor: f32,
    gathered: bool,
    list: &mut Vec<Candidate>,
) {
    let p = f64::from(p);
    if gathered {
        let wanted = p * total(list, best);
        return keep_mass(list, min_keep, best, Candidate::before, |held| held >= wanted);
    }
    let mass = vector::mass(logits, best, 1.0, floor);
    let (least, most) = (p * mass * (1.0 - vector::ERROR), p * mass * (1.0 + vector::ERROR));
    for width in [4.0, 8.0, 16.0, f32::INFINITY] {
        between(logits, floor.max(best - width), f32::INFINITY, list);
        if list.len() >= min_keep && total(list, best) >= most {
            break;
        }
    }
    // The vector sum is not exact. Where that could move the cut, which is rare, all is added up again.
    keep_mass(list, min_keep, best, Candidate::before, |held| held >= most);
    let last = list.iter().copied().max_by(Candidate::before);
    let without_last = total(list, best) - last.map_or(0.0, |last| last.weight(best));
    if without_last >= least {
        let above = logits.iter().filter(|logit| **logit >= floor);
        let wanted = p * above.map(|logit| f64::from(exp(*logit - best))).sum::<f64>();
        keep_mass(list, min_keep, best, Candidate::before, |held| held >= wanted);
    }
}

/// Those at least so likely, relative to the likeliest.
fn keep_min_p(ln_ratio: f32, min_keep: usize, list: &mut Vec<Candidate>) {
    let floor = largest(list) + ln_ratio;
    let n_kept = list.iter().filter(|candidate| candidate.logit >= floor).count();
    keep_likeliest(n_kept.max(min_keep), list);
}

/// Takes away all but the least likely of those that reach the threshold.
fn exclude_top_choices(threshold: f32, min_keep: usize, list: &mut Vec<Candidate>) {
    let best = largest(list);
    let wanted = f64::from(threshold) * total(list, best);
    let n_excluded =
        list.iter().filter(|candidate| candidate.weight(best) >= wanted).count().saturating_sub(1);
    if n_excluded > 0 && list.len() - n_excluded >= min_keep {
        list.select_nth_unstable_by(n_excluded, Candidate::before);
        list.drain(..n_excluded);
    }
}

pub(super) fn largest(list: &[Candidate]) -> f32 {
    list.iter().fold(f32::NEG_INFINITY, |best, candidate| best.max(candidate.logit))
}

/// Keeps the first in an order, at least `min_keep`, until what they weigh is `enough`.
fn keep_mass(
    list: &mut Vec<Candidate>,
    min_keep: usize,
    best: f32,
    order: impl Fn(&Candidate, &Candidate) -> Ordering + Copy,
    enough: impl Fn(f64) -> bool,
) {
    const FEW: usize = 32;
    // All before `from` is kept and weighs `held`; nothing from `to` on is.
    let (mut from, mut to, mut held) = (0, list.len(), 0.0);
    while to - from > FEW {
        let middle = from + (to - from) / 2;
        list[from..to].select_nth_unstable_by(middle - from, order);
        let with_half = held + total(&list[from..middle], best);
        if middle >= min_keep && enough(with_half) {
            to = middle;
        } else {
            (from, held) = (middle, with_half);
        }
    }
    list[from..to].sort_unstable_by(order);
    for (idx, candidate) in list.iter().enumerate().take(to).skip(from) {
        held += candidate.weight(best);
        if idx + 1 >= min_keep && enough(held) {
            to = idx + 1;
            break;
        }
    }
    list.truncate(to);
}
