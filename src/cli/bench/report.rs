//! The outcome of a measurement, for people.

use std::fmt::Write;

use coordinator::types::Mode;

use super::load::{Connections, Extent, Latency, Locks, Outcome, Plan, Rhythm};
use crate::cli::text::table::Table;
use crate::cli::text::words;

/// A line about the workload, a table of latencies, and a line each about the rest.
pub(crate) fn table(outcome: &Outcome) -> String {
    let mut text = format!("{}\n\n", workload(&outcome.plan));
    let mut table = Table::new(&["LATENCY", "P50", "P90", "P99", "P99.9", "MAX"]);
    let hand_over = outcome.hand_over.iter().map(|latency| ("hand-over", latency));
    let all = [("acquire", &outcome.acquire), ("release", &outcome.release)];
    for (name, latency) in all.into_iter().chain(hand_over) {
        let Latency { p50, p90, p99, p999, max, .. } = *latency;
        let [p50, p90, p99, p999, max] = [p50, p90, p99, p999, max].map(time);
        table.row([name.to_owned(), p50, p90, p99, p999, max]);
    }
    text.push_str(&table.render());
    let seconds = outcome.course.elapsed.as_secs_f64();
    let _infallible = write!(
        text,
        "\n{} pairs in {seconds:.2} s: {:.0} a second\n",
        outcome.pairs,
        outcome.pairs_per_second()
    );
    if let Rhythm::Rate(rate) = outcome.plan.rhythm {
        let _infallible = writeln!(text, "target rate: {rate} pairs a second");
    }
    if let Some(cpu) = outcome.server_cpu_per_pair() {
        let _infallible = writeln!(text, "{:.2} µs of CPU per pair in the server", cpu / 1e3);
    }
    if let Some(cpu) = outcome.own_cpu_per_pair() {
        let _infallible = writeln!(text, "{:.2} µs of CPU per pair in this program", cpu / 1e3);
    }
    let _infallible = writeln!(
        text,
        "{} grants checked: never too many holders, tokens always rising",
        outcome.grants_checked
    );
    if !outcome.course.is_complete {
        text.push_str("interrupted: these are the figures so far\n");
    }
    text
}

/// What was done, in a line.
fn workload(plan: &Plan) -> String {
    let connections = words::count(plan.connections as u64, "connection");
    let locks = match plan.locks {
        Locks::Own => "locks of their own",
        Locks::Same => "one lock for all",
    };
    let mode = match plan.mode {
        Mode::Exclusive => "exclusive".to_owned(),
        Mode::Shared => "shared".to_owned(),
        Mode::Permits { take, of } => format!("{take} of {of} permits"),
    };
    let rhythm = match plan.rhythm {
        Rhythm::Steps => "closed loop".to_owned(),
        Rhythm::Batches(depth) => format!("{depth} pairs per write"),
        Rhythm::Rate(rate) => format!("open loop, {rate} pairs a second"),
    };
    let keep = match plan.keep {
        Connections::Kept => "",
        Connections::PerIteration => ", a connection per pair",
    };
    let extent = match plan.extent {
        Extent::For(duration) => words::setting(duration),
        Extent::Pairs(pairs) => words::count(pairs, "pair"),
    };
    format!("{connections}, {locks}, {mode}, {rhythm}{keep}, {extent}")
}

/// Nanoseconds with three digits and a unit.
fn time(nanos: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs")];
    let Some((size, unit)) = UNITS.into_iter().find(|(size, _)| nanos >= *size) else {
        return format!("{nanos} ns");
    };
    let hundredths = nanos / (size / 100);
    match hundredths {
        0..1_000 => format!("{}.{:02} {unit}", hundredths / 100, hundredths % 100),
        1_000..10_000 => format!("{}.{} {unit}", hundredths / 100, hundredths % 100 / 10),
        _ => format!("{} {unit}", hundredths / 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        assert_eq!(time(0), "0 ns");
        assert_eq!(time(999), "999 ns");
        assert_eq!(time(1_000), "1.00 µs");
        assert_eq!(time(12_345), "12.3 µs");
        assert_eq!(time(999_999), "999 µs");
        assert_eq!(time(4_560_000), "4.56 ms");
        assert_eq!(time(61_000_000_000), "61.0 s");
    }
}
