//! Several answers to one request: the engine computes each as a request of its own, under a number of its own.

use super::sampling::number;
use hearth_engine::{Constraint, Request, Sampling};
use hearth_protocol::{Options, RpcError};

const MOST: u32 = 16;

/// How many answers are wanted.
pub(super) fn wanted(options: &Options) -> Result<u32, RpcError> {
    number("candidates", options.candidates.unwrap_or(1), 1, MOST)
}

/// The engine's number for an answer.
pub(super) fn engine_id(id: u64, candidate: u32) -> u64 {
    id * u64::from(MOST) + u64::from(candidate)
}

/// The engine's numbers for all that a request may have.
pub(super) fn engine_ids(id: u64) -> impl Iterator<Item = u64> {
    (0..MOST).map(move |candidate| engine_id(id, candidate))
}

/// The request and the answer that the engine's number is for.
pub(super) fn split(engine_id: u64) -> (u64, u32) {
    let candidate = u32::try_from(engine_id % u64::from(MOST)).unwrap_or(0);
    (engine_id / u64::from(MOST), candidate)
}

/// The request as often as answers are wanted, each with a constraint and a seed of its own.
pub(super) fn requests(
    first: Request,
    n_wanted: u32,
    constraint: impl Fn() -> Result<Option<Constraint>, RpcError>,
) -> Result<Vec<Request>, RpcError> {
    let mut requests = Vec::new();
    for candidate in 1..n_wanted {
        let seed = first.sampling.seed.wrapping_add(candidate.into());
        requests.push(Request {
            id: first.id + u64::from(candidate),
            prompt: first.prompt.clone(),
            spans: first.spans.clone(),
            sampling: Sampling { seed, ..first.sampling.clone() },
            stops: first.stops.clone(),
            thinking: first.thinking.clone(),
            spelled: first.spelled.clone(),
            constraint: constraint()?,
            ..first
        });
    }
    requests.insert(0, Request { constraint: constraint()?, ..first });
    Ok(requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_has_a_number_that_leads_back() {
        for id in [0, 1, u64::from(u32::MAX)] {
            for (candidate, engine_id) in (0..).zip(engine_ids(id)) {
                assert_eq!(split(engine_id), (id, candidate));
            }
        }
    }
}
