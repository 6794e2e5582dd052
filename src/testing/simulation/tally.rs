//! The totals of runs, in words and numbers.

use std::collections::BTreeMap;
use std::fmt;

use super::world::Outcome;
use crate::testing::fuzz::Done;

/// Virtual microseconds in an hour.
const HOUR_MICROS: f64 = 3.6e9;

/// Counts of things, by what they are called in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// What went wrong.
    faults: BTreeMap<&'static str, u64>,
    /// What came of it.
    results: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub(super) fn count(&mut self, what: &'static str) {
        *self.results.entry(what).or_default() += 1;
    }

    pub(super) fn add_to(&mut self, what: &'static str, count: u64) {
        *self.results.entry(what).or_default() += count;
    }

    pub(super) fn count_fault(&mut self, what: &'static str) {
        *self.faults.entry(what).or_default() += 1;
    }

    /// How often this came of it.
    pub(super) fn of(&self, what: &str) -> u64 {
        self.results.get(what).copied().unwrap_or(0)
    }

    /// How often anything went wrong.
    pub(super) fn faults(&self) -> u64 {
        self.faults.values().sum()
    }

    fn add(&mut self, other: &Self) {
        for (what, count) in &other.faults {
            *self.faults.entry(what).or_default() += count;
        }
        for (what, count) in &other.results {
            *self.results.entry(what).or_default() += count;
        }
    }
}

/// What many runs came to.
#[derive(Debug, Default)]
pub(super) struct Sum {
    /// Counts of things.
    pub(super) tally: Tally,
    /// Events.
    events: u64,
    /// Virtual microseconds.
    length: u64,
}

impl Sum {
    pub(super) fn add(&mut self, outcome: &Outcome) {
        self.tally.add(&outcome.tally);
        self.events += outcome.events;
        self.length += outcome.length;
    }

    /// The table that a long run ends with.
    pub(super) fn table(&self, done: &Done) -> impl fmt::Display {
        let seconds = done.elapsed.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "for people, who look at three digits")]
        let (hours, rate) = (self.length as f64 / HOUR_MICROS, self.events as f64 / seconds);
        let mut rows = vec![
            ("runs".to_owned(), format!("{}, seeds {} to {}", done.runs, done.first, done.last)),
            ("virtual hours".to_owned(), format!("{hours:.1}")),
            ("real seconds".to_owned(), format!("{seconds:.1}")),
            ("events".to_owned(), format!("{}, {rate:.0} a second", self.events)),
            ("faults".to_owned(), self.tally.faults().to_string()),
        ];
        let indented = |(what, count): (&&str, &u64)| (format!("  {what}"), count.to_string());
        rows.extend(self.tally.faults.iter().map(indented));
        let plain = |(what, count): (&&str, &u64)| (what.to_string(), count.to_string());
        rows.extend(self.tally.results.iter().map(plain));
        // The first violation would have ended it.
        rows.push(("violations".to_owned(), "0".to_owned()));
        let line = |(what, value): (String, String)| format!("{what:<36}{value}\n");
        rows.into_iter().map(line).collect::<String>()
    }
}
