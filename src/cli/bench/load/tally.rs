//! The measurements, counted in histograms.

use hdrhistogram::Histogram;

/// Nanoseconds above this count as this: an hour.
const LATENCY_MAX: u64 = 3_600_000_000_000;
/// Figures of a histogram that are right: three, so within a thousandth.
const DIGITS: u8 = 3;

/// What the connections of a thread have measured.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// From asking to the grant, in nanoseconds.
    pub(crate) acquire: Histogram<u64>,
    /// From releasing to the answer.
    pub(crate) release: Histogram<u64>,
    /// From one connection's release to another's grant.
    pub(crate) hand_over: Histogram<u64>,
    /// Requests that were granted and released.
    pub(crate) pairs: u64,
}

impl Tally {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self { acquire: empty(), release: empty(), hand_over: empty(), pairs: 0 }
    }

    /// Takes what another has measured into account.
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { acquire, release, hand_over, pairs } = other;
        // All have the same bounds, so nothing is refused.
        let _ = self.acquire.add(acquire);
        let _ = self.release.add(release);
        let _ = self.hand_over.add(hand_over);
        self.pairs += pairs;
    }
}

fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX, DIGITS)
        .unwrap_or_else(|_| unreachable!("these bounds are valid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up() {
        let (mut one, mut other) = (Tally::new(), Tally::new());
        one.acquire.saturating_record(1_000);
        one.pairs = 1;
        other.acquire.saturating_record(3_000_000);
        other.hand_over.saturating_record(5);
        other.pairs = 2;
        one.add(&other);
        assert_eq!((one.acquire.len(), one.hand_over.len(), one.pairs), (2, 1, 3));
        assert!((3_000_000..=3_003_000).contains(&one.acquire.max()));
    }

    #[test]
    fn what_takes_longer_than_an_hour_took_an_hour() {
        let mut tally = Tally::new();
        tally.release.saturating_record(u64::MAX);
        assert_eq!(tally.release.len(), 1);
        assert!(tally.release.max() >= LATENCY_MAX);
    }
}
