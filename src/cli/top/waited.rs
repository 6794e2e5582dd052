//! For how long grants were waited for lately: the difference of what the coordinator had counted some seconds
//! ago and has counted now. It counts by bounds, so a percentile is a bound, too.

use std::collections::VecDeque;
use std::time::Duration;

use coordinator::wire::WaitedStatus;

use crate::cli::show::waits::Lines;
use crate::cli::text::words;

/// So far back goes what is lately.
const LATELY_MS: u64 = 10_000;
/// As many looks are kept, whatever a coordinator says of its time.
const LOOKS_MAX: usize = 64;

/// What is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// The last seconds.
    Lately,
    /// All of the run: whoever looks once knows of nothing before.
    Run,
}

/// What was counted, look by look, of one run.
#[derive(Debug, Default)]
pub(super) struct Waited {
    /// At which uptime, in milliseconds, and what. But for the first, none is older than what is lately.
    looks: VecDeque<(u64, WaitedStatus)>,
}

impl Waited {
    /// Takes what a look has shown.
    pub(super) fn see(&mut self, at_ms: u64, status: WaitedStatus) {
        let goes_on = |(before_ms, before): &(u64, WaitedStatus)| {
            *before_ms <= at_ms && between(before, &status).is_some()
        };
        if !self.looks.back().is_some_and(goes_on) {
            self.looks.clear();
        }
        self.looks.push_back((at_ms, status));
        let is_old = |(then, _): &(u64, WaitedStatus)| at_ms - then >= LATELY_MS;
        while self.looks.get(1).is_some_and(is_old) || self.looks.len() > LOOKS_MAX {
            self.looks.pop_front();
        }
    }

    /// What is known, in words; none: nothing yet.
    pub(super) fn words(&self, span: Span, lines: Lines) -> Option<String> {
        let (_, last) = self.looks.back()?;
        let (counts, before) = match span {
            Span::Run => (last.counts.clone(), "since start: "),
            Span::Lately if self.looks.len() < 2 => return None,
            Span::Lately => (between(&self.looks.front()?.1, last)?, ""),
        };
        let shown = |percent| match percentile(&last.bounds_us, &counts, percent) {
            None => if lines == Lines::Ascii { "-" } else { "–" }.to_owned(),
            Some(wait) => wait.words(lines),
        };
        Some(format!("{before}p50 wait {}  p99 wait {}", shown(50), shown(99)))
    }
}

/// How many were counted between two looks at the same run; none: they are not of the same.
fn between(before: &WaitedStatus, after: &WaitedStatus) -> Option<Vec<u64>> {
    if before.epoch != after.epoch || before.bounds_us != after.bounds_us {
        return None;
    }
    if before.counts.len() != after.counts.len() {
        return None;
    }
    let pairs = after.counts.iter().zip(&before.counts);
    pairs.map(|(after, before)| after.checked_sub(*before)).collect()
}

/// How long something took, as far as bounds tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    /// So many microseconds at most.
    Within(u64),
    /// More than so many.
    Past(u64),
}

/// Within what so many of a hundred were; none: nothing was counted.
fn percentile(bounds_us: &[u64], counts: &[u64], percent: u128) -> Option<Length> {
    let all: u128 = counts.iter().map(|count| u128::from(*count)).sum();
    let wanted = (all * percent).div_ceil(100).max(1);
    let mut sum = 0;
    let at = counts.iter().position(|count| {
        sum += u128::from(*count);
        sum >= wanted
    })?;
    Some(match bounds_us.get(at) {
        Some(bound) => Length::Within(*bound),
        None => Length::Past(bounds_us.last().copied().unwrap_or(0)),
    })
}

impl Length {
    fn words(self, lines: Lines) -> String {
        let is_ascii = lines == Lines::Ascii;
        let (sign, us) = match self {
            Self::Within(us) => (if is_ascii { "<=" } else { "≤" }, us),
            Self::Past(us) => (">", us),
        };
        let in_units = |size: u64, unit: &str| {
            let (whole, tenths) = (us / size, us % size * 10 / size);
            if tenths == 0 { format!("{whole}{unit}") } else { format!("{whole}.{tenths}{unit}") }
        };
        let length = match us {
            ..1_000 => in_units(1, if is_ascii { "us" } else { "µs" }),
            1_000..1_000_000 => in_units(1_000, "ms"),
            1_000_000..60_000_000 => in_units(1_000_000, "s"),
            _ => words::length(Duration::from_micros(us)),
        };
        format!("{sign} {length}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coordinator::types::Epoch;

    fn status(epoch: u64, counts: [u64; 4]) -> WaitedStatus {
        let bounds_us = vec![50, 2_500_000, 3_600_000_000];
        WaitedStatus { epoch: Epoch::new(epoch), bounds_us, counts: counts.to_vec() }
    }

    fn lately(waited: &Waited) -> Option<String> {
        waited.words(Span::Lately, Lines::Unicode)
    }

    #[test]
    fn percentiles_are_of_what_was_granted_lately() {
        let mut waited = Waited::default();
        waited.see(1_000, status(18, [900, 0, 0, 100]));
        assert_eq!(lately(&waited), None, "one look has no before");
        waited.see(2_000, status(18, [990, 9, 1, 100]));
        assert_eq!(lately(&waited).unwrap(), "p50 wait ≤ 50µs  p99 wait ≤ 2.5s");
        waited.see(3_000, status(18, [990, 109, 1, 110]));
        assert_eq!(lately(&waited).unwrap(), "p50 wait ≤ 2.5s  p99 wait > 1h");
        // What was counted first is ten seconds old, and then the next.
        waited.see(12_000, status(18, [991, 109, 1, 110]));
        assert_eq!(lately(&waited).unwrap(), "p50 wait ≤ 2.5s  p99 wait > 1h");
        waited.see(13_000, status(18, [991, 109, 1, 110]));
        assert_eq!(lately(&waited).unwrap(), "p50 wait ≤ 50µs  p99 wait ≤ 50µs");
    }

    #[test]
    fn where_nobody_was_granted_there_is_no_percentile() {
        let mut waited = Waited::default();
        waited.see(1_000, status(18, [7, 0, 0, 0]));
        waited.see(2_000, status(18, [7, 0, 0, 0]));
        assert_eq!(lately(&waited).unwrap(), "p50 wait –  p99 wait –");
        let ascii = waited.words(Span::Lately, Lines::Ascii).unwrap();
        assert_eq!(ascii, "p50 wait -  p99 wait -");
    }

    #[test]
    fn two_runs_are_never_compared() {
        let mut waited = Waited::default();
        waited.see(9_000, status(18, [7, 0, 0, 0]));
        waited.see(9_500, status(19, [9, 0, 0, 0]));
        assert_eq!(lately(&waited), None);
        waited.see(9_400, status(19, [9, 0, 0, 0]));
        assert_eq!(lately(&waited), None, "its time goes back");
        waited.see(9_900, status(19, [8, 0, 0, 0]));
        assert_eq!(lately(&waited), None, "its counts go back");
    }

    #[test]
    fn so_many_looks_are_kept_whatever_a_coordinator_says() {
        let mut waited = Waited::default();
        for _ in 0..2 * LOOKS_MAX {
            waited.see(1_000, status(18, [7, 0, 0, 0]));
        }
        assert_eq!(waited.looks.len(), LOOKS_MAX);
        waited.see(1_000, WaitedStatus::default());
        assert_eq!(waited.words(Span::Run, Lines::Unicode).unwrap().matches('–').count(), 2);
    }

    #[test]
    fn whoever_looks_once_is_told_of_all_since_the_start_and_that_it_is_that() {
        let mut waited = Waited::default();
        waited.see(1_000, status(18, [50, 49, 1, 0]));
        let shown = waited.words(Span::Run, Lines::Ascii).unwrap();
        assert_eq!(shown, "since start: p50 wait <= 50us  p99 wait <= 2.5s");
    }
}
