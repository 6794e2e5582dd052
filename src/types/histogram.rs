//! How often something took how long: counts by bounds that never change.
//!
//! Noting a length costs a look into a table by its highest bit, and one comparison. Bounds are at
//! least twice as far apart, so no two of them have the same highest bit.

use std::fmt;
use std::time::Duration;

/// How many bounds there are. What is longer than the last is counted, too.
pub const HISTOGRAM_BOUNDS: usize = 24;

/// The bounds, in microseconds: 50 µs, then 1, 2.5, 5 of each power of ten to 1,000 s, then an hour. Each
/// belongs to what is below it.
const BOUNDS_MICROS: [u64; HISTOGRAM_BOUNDS] = [
    50,
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    3_600_000_000,
];

/// For so many significant bits: the first bound that is not less than the least number that has them,
/// and the bound itself.
const BY_BITS: [(u8, u64); 65] = {
    let mut by_bits = [(0, 0); 65];
    let mut bits = 0;
    while bits < by_bits.len() {
        let least = if bits == 0 { 0 } else { 1 << (bits - 1) };
        let mut first = 0;
        while (first as usize) < HISTOGRAM_BOUNDS && BOUNDS_MICROS[first as usize] < least {
            first += 1;
        }
        // Nothing is longer than what has no bound.
        let bound = if (first as usize) < HISTOGRAM_BOUNDS {
            BOUNDS_MICROS[first as usize]
        } else {
            u64::MAX
        };
        by_bits[bits] = (first, bound);
        bits += 1;
    }
    by_bits
};

/// How often something took how long.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    /// How many were within each bound and past the one before; at last, how many were past all.
    counts: [u64; HISTOGRAM_BOUNDS + 1],
    /// How long all were together, in microseconds.
    sum_micros: u64,
}

impl Histogram {
    /// Nothing yet.
    pub const EMPTY: Self = Self { counts: [0; HISTOGRAM_BOUNDS + 1], sum_micros: 0 };

    /// Something took so many microseconds.
    #[inline]
    pub fn note(&mut self, micros: u64) {
        if let Some(count) = self.counts.get_mut(bucket(micros)) {
            *count += 1;
        }
        self.sum_micros = self.sum_micros.wrapping_add(micros);
    }

    /// Something took so long.
    pub fn note_length(&mut self, length: Duration) {
        self.note(u64::try_from(length.as_micros()).unwrap_or(u64::MAX));
    }

    /// What was noted with so many microseconds was not over.
    pub fn take_back(&mut self, micros: u64) {
        if let Some(count) = self.counts.get_mut(bucket(micros)) {
            *count = count.saturating_sub(1);
        }
        self.sum_micros = self.sum_micros.wrapping_sub(micros);
    }

    /// How many were noted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long all were together.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_micros)
    }

    /// Each bound, and how many were within it and past the one before; at last, without a bound, how
    /// many were past all.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bounds = BOUNDS_MICROS.into_iter().map(|micros| Some(Duration::from_micros(micros)));
        bounds.chain([None]).zip(self.counts)
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Histogram({} in {:?})", self.count(), self.sum())
    }
}

/// Which count so many microseconds belong to.
#[inline]
fn bucket(micros: u64) -> usize {
    let (first, bound) = BY_BITS[64 - micros.leading_zeros() as usize];
    usize::from(first) + usize::from(micros > bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What [`bucket`] is to say.
    fn searched(micros: u64) -> usize {
        BOUNDS_MICROS.iter().position(|bound| micros <= *bound).unwrap_or(HISTOGRAM_BOUNDS)
    }

    #[test]
    fn a_length_counts_as_within_the_first_bound_that_it_is_not_past() {
        let powers = (0..64).map(|bits| 1_u64 << bits);
        let around = |at: u64| [at.saturating_sub(1), at, at.saturating_add(1)];
        for micros in BOUNDS_MICROS.into_iter().chain(powers).chain([0, u64::MAX]).flat_map(around)
        {
            assert_eq!(bucket(micros), searched(micros), "{micros} µs");
        }
    }

    #[test]
    fn what_was_noted_is_counted_once_and_its_length_added() {
        let mut histogram = Histogram::default();
        for micros in [0, 50, 51, 3_600_000_001] {
            histogram.note(micros);
        }
        let counts: Vec<u64> = histogram.buckets().map(|(_, count)| count).collect();
        assert_eq!((counts[0], counts[1], counts[HISTOGRAM_BOUNDS]), (2, 1, 1));
        assert_eq!((histogram.count(), histogram.sum().as_micros()), (4, 3_600_000_102));
        histogram.take_back(51);
        assert_eq!((histogram.count(), histogram.sum().as_micros()), (3, 3_600_000_051));
    }
}
