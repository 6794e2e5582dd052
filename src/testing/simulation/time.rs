//! Virtual time: what happens next, and what each machine's clock shows then.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::testing::fuzz::Random;
use crate::types::Timestamp;

/// A part in a million.
const MILLION: u64 = 1_000_000;
/// How far a clock's rate may be off, in parts in a million (rule T1).
const RATE_ERROR_PPM: u64 = 10_000;

/// What is to happen, by when; what is to happen at the same time happens in the order in which it was
/// put in.
pub(super) struct Heap<Event> {
    /// True time, in microseconds. Never goes back.
    now: u64,
    /// How much was ever put in.
    count: u64,
    /// The earliest first.
    rows: BinaryHeap<Reverse<Row<Event>>>,
}

/// Something to happen.
struct Row<Event> {
    /// When, and the how-manieth it was to be put in.
    key: (u64, u64),
    /// What.
    event: Event,
}

impl<Event> Ord for Row<Event> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl<Event> PartialOrd for Row<Event> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<Event> PartialEq for Row<Event> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<Event> Eq for Row<Event> {}

impl<Event> Heap<Event> {
    pub(super) fn new() -> Self {
        Self { now: 0, count: 0, rows: BinaryHeap::new() }
    }

    /// True time.
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// Has something happen at `at`, or at once if that is over.
    pub(super) fn push(&mut self, at: u64, event: Event) {
        self.count += 1;
        let key = (at.max(self.now), self.count);
        self.rows.push(Reverse(Row { key, event }));
    }

    /// What happens next; it is then that time.
    pub(super) fn pop(&mut self) -> Option<Event> {
        let Reverse(Row { key: (at, _), event }) = self.rows.pop()?;
        self.now = at;
        Some(event)
    }
}

/// A clock with an origin and a rate of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct SkewedClock {
    /// What it showed when true time began.
    origin: u64,
    /// By how much it goes on in a million microseconds.
    rate: u64,
}

impl SkewedClock {
    /// As wrong as may be, in one direction or the other, or by something between.
    pub(super) fn any(dice: &mut Random) -> Self {
        let off = match dice.below(3) {
            0 => 0,
            1 => 2 * RATE_ERROR_PPM,
            _ => dice.next() % (2 * RATE_ERROR_PPM),
        };
        Self { origin: (1 << 30) + (dice.next() >> 24), rate: MILLION - RATE_ERROR_PPM + off }
    }

    pub(super) fn at(self, true_now: u64) -> Timestamp {
        Timestamp::from_micros(self.origin + true_now * self.rate / MILLION)
    }

    /// It stands still for so many true microseconds, which no clock may that is used for leases.
    pub(super) fn stand_still(&mut self, length: u64) {
        self.origin -= length * self.rate / MILLION;
    }

    /// The first true moment at which it shows `local` or more.
    pub(super) fn moment(self, local: Timestamp) -> u64 {
        let passed = u128::from(local.as_micros().saturating_sub(self.origin));
        let moment = (passed * u128::from(MILLION)).div_ceil(u128::from(self.rate));
        u64::try_from(moment).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_first_happens_first_at_the_same_time() {
        let mut heap = Heap::new();
        for (at, event) in [(7, 'c'), (5, 'a'), (7, 'd'), (5, 'b')] {
            heap.push(at, event);
        }
        let order: Vec<(char, u64)> =
            std::iter::from_fn(|| heap.pop().map(|event| (event, heap.now()))).collect();
        assert_eq!(order, [('a', 5), ('b', 5), ('c', 7), ('d', 7)]);
    }

    #[test]
    fn a_moment_is_the_first_at_which_the_clock_shows_it() {
        let mut dice = Random::new(1);
        for _ in 0..1_000 {
            let clock = SkewedClock::any(&mut dice);
            let shown = clock.at(dice.next() >> 40);
            let moment = clock.moment(shown);
            assert_eq!(clock.at(moment), shown);
            assert!(moment == 0 || clock.at(moment - 1) < shown, "{clock:?}");
        }
    }
}
