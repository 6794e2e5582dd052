//! The journal in words: what a crash would cost, and what the last one has.

use std::time::Duration;

use coordinator::wire::{JournalDistance, JournalStart, JournalStatus};

use crate::cli::text::visible;
use crate::cli::text::words;

/// A line about it, with the newline.
pub(crate) fn line(status: &JournalStatus) -> String {
    let survives = match status.distance {
        JournalDistance::Off => None,
        JournalDistance::Process => Some("a crash of the process"),
        JournalDistance::Machine => Some("a power cut"),
        _ => Some("a fault unknown to this version"),
    };
    let how = match survives {
        None => "journal: off, a crash would be followed by a grace period".to_owned(),
        Some(_) if status.off_ms > 0 => format!(
            "journal: not written for {}, a crash would be followed by a grace period",
            words::millis(status.off_ms)
        ),
        Some(survives) => {
            format!("journal: {}, {survives} loses nothing", bytes(status.bytes))
        }
    };
    format!("{how}; {}\n", start(&status.start))
}

/// How the run began.
fn start(start: &JournalStart) -> String {
    match start {
        JournalStart::New => "started without earlier state".to_owned(),
        JournalStart::Saved => "started after an orderly stop".to_owned(),
        JournalStart::Replayed { events, took_us } => format!(
            "started after a crash: replayed {} in {}, nothing was lost",
            words::count(*events, "event"),
            words::length(Duration::from_micros(*took_us)),
        ),
        JournalStart::Lost { why, grace_ms } => format!(
            "started after a crash with a grace period of {}: {}",
            words::millis(*grace_ms),
            visible::escaped(why),
        ),
        _ => "started in a way unknown to this version".to_owned(),
    }
}

/// So many bytes, as people say it.
fn bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => words::count(bytes, "byte"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(distance: JournalDistance, off_ms: u64, start: JournalStart) -> String {
        line(&JournalStatus { distance, bytes: 1_300_000, off_ms, start })
    }

    #[test]
    fn a_line_says_what_a_crash_would_cost_and_what_the_last_one_has() {
        let replayed = JournalStart::Replayed { events: 48_211, took_us: 9_300 };
        assert_eq!(
            line_of(JournalDistance::Process, 0, replayed),
            "journal: 1.2 MiB, a crash of the process loses nothing; started after a crash: \
            replayed \
             48211 events in 9ms, nothing was lost\n"
        );
        assert_eq!(
            line_of(JournalDistance::Machine, 0, JournalStart::Saved),
            "journal: 1.2 MiB, a power cut loses nothing; started after an orderly stop\n"
        );
        let why = "the machine was restarted".to_owned();
        let lost = JournalStart::Lost { why, grace_ms: 10_250 };
        assert_eq!(
            line_of(JournalDistance::Process, 4_000, lost),
            "journal: not written for 4s, a crash would be followed by a grace period; started \
            after a crash with a grace period of 10s: the machine was restarted\n"
        );
        assert_eq!(
            line_of(JournalDistance::Off, 0, JournalStart::New),
            "journal: off, a crash would be followed by a grace period; started without earlier \
            state\n"
        );
    }
}
