//! Medians and ranges.

use crate::server::count;

/// Lowest, median and highest of some figures.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

/// `None` without figures.
pub(crate) fn spread(figures: impl IntoIterator<Item = f64>) -> Option<Spread> {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    let (low, high) = (*figures.first()?, *figures.last()?);
    let half = figures.len() / 2;
    let median = if figures.len() % 2 == 1 {
        figures[half]
    } else {
        f64::midpoint(figures[half - 1], figures[half])
    };
    Some(Spread { low, median, high })
}

/// The median of durations, in milliseconds.
pub(crate) fn median_ms(times: impl IntoIterator<Item = std::time::Duration>) -> f64 {
    spread(times.into_iter().map(|time| time.as_secs_f64() * 1000.0))
        .map_or(f64::NAN, |spread| spread.median)
}

/// Things per second.
pub(crate) fn rate(n: u64, time: std::time::Duration) -> f64 {
    count(n) / time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        assert_eq!(
            spread([3.0, 1.0, 2.0]).map(|s| (s.low, s.median, s.high)),
            Some((1.0, 2.0, 3.0))
        );
        assert_eq!(spread([4.0, 1.0]).map(|s| s.median), Some(2.5));
        assert!(spread([]).is_none());
    }
}
