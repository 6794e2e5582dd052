//! The flags of `coordinator bench`, and the plan that they make.
#![allow(clippy::doc_markdown, reason = "these comments are the help that users read")]

use std::num::NonZeroU32;
use std::time::Duration;

use clap::value_parser;
use coordinator::types::Mode;

use super::load::{Connections, Extent, Locks, Plan, Priority, Rhythm};
use crate::cli::settings::values;
use crate::cli::text::errors::Failure;

/// Most pairs in one write: no more than a server remembers the answers of.
const DEPTH_MAX: u32 = 256;

/// `bench`.
#[derive(clap::Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch that is there or not")]
pub(crate) struct BenchArgs {
    /// Number of concurrent connections.
    #[arg(short = 'c', long, value_name = "N", default_value_t = 8)]
    #[arg(value_parser = value_parser!(u32).range(1..=60_000))]
    pub(crate) connections: u32,
    /// Number of client threads.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = value_parser!(u16).range(1..=64))]
    pub(crate) threads: u16,
    /// Pipeline this many release/request pairs per write. Without it, each request and each
    /// release waits for the previous answer.
    #[arg(long, value_name = "D")]
    #[arg(value_parser = value_parser!(u32).range(1..=i64::from(DEPTH_MAX)))]
    #[arg(conflicts_with_all = ["same_lock", "connection_per_iteration"])]
    pub(crate) depth: Option<u32>,
    /// Make all connections contend for one lock, and measure its hand-over. Without it, each
    /// connection has locks of its own.
    #[arg(long)]
    pub(crate) same_lock: bool,
    /// Lock mode: exclusive, shared, or K/N for K of N permits.
    #[arg(long, value_name = "MODE", default_value = "exclusive", value_parser = mode)]
    pub(crate) mode: Mode,
    /// How long to measure (10s, 1m; a plain number is seconds) [default: 5s].
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "pairs")]
    pub(crate) duration: Option<Duration>,
    /// Number of request/release pairs to measure, instead of a duration.
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..=1 << 53))]
    pub(crate) pairs: Option<u64>,
    /// Open and close a connection for each pair.
    #[arg(long)]
    pub(crate) connection_per_iteration: bool,
    /// Start this many pairs per second in total (open loop), whether or not earlier ones are
    /// answered. Latency counts from the intended start, which avoids coordinated omission.
    #[arg(long, value_name = "R", value_parser = rate, conflicts_with = "depth")]
    pub(crate) rate: Option<f64>,
    /// How long to run before measuring.
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = duration)]
    pub(crate) warmup: Duration,
    /// Process id of the server on this machine, to measure its CPU time.
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// Print JSON; docs/performance.md describes it.
    #[arg(long)]
    pub(crate) json: bool,
    /// Show no progress bar.
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,
}

impl BenchArgs {
    /// What is to be done.
    pub(crate) fn plan(&self) -> Result<Plan, Failure> {
        let rhythm = match (self.depth.and_then(NonZeroU32::new), self.rate) {
            (Some(depth), _) => Rhythm::Batches(depth),
            (None, Some(rate)) => Rhythm::Rate(rate),
            (None, None) => Rhythm::Steps,
        };
        let duration = self.duration.unwrap_or(Duration::from_secs(5));
        if duration.is_zero() {
            return Err(Failure::usage("--duration 0 measures nothing"));
        }
        Ok(Plan {
            connections: usize::try_from(self.connections).unwrap_or(usize::MAX),
            threads: usize::from(self.threads),
            locks: if self.same_lock { Locks::Same } else { Locks::Own },
            mode: self.mode,
            rhythm,
            keep: if self.connection_per_iteration {
                Connections::PerIteration
            } else {
                Connections::Kept
            },
            priority: Priority::Usual,
            warmup: self.warmup,
            extent: self.pairs.map_or(Extent::For(duration), Extent::Pairs),
            prefix: format!("bench/{:07}", std::process::id()),
        })
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    values::duration(text).ok_or_else(|| "expected 10s, 5m or 1h30m".to_owned())
}

fn mode(text: &str) -> Result<Mode, String> {
    let wrong = || "expected exclusive, shared, or K/N for K of N permits (2/5)".to_owned();
    match text {
        "exclusive" => Ok(Mode::Exclusive),
        "shared" => Ok(Mode::Shared),
        _ => {
            let (take, of) = text.split_once('/').ok_or_else(wrong)?;
            let (take, of) = take.parse().ok().zip(of.parse().ok()).ok_or_else(wrong)?;
            Mode::permits(take, of).map_err(|error| error.to_string())
        }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e9).contains(&rate) => Ok(rate),
        Ok(_) | Err(_) => {
            Err("expected a number of pairs per second, such as 20000 or 0.5".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    fn read(line: &str) -> Result<BenchArgs, clap::Error> {
        let grammar = BenchArgs::augment_args(clap::Command::new("bench"));
        let words = std::iter::once("bench").chain(line.split_whitespace());
        BenchArgs::from_arg_matches(&grammar.try_get_matches_from(words)?)
    }

    fn plan(line: &str) -> Plan {
        read(line).unwrap().plan().unwrap()
    }

    #[test]
    fn nothing_said_is_a_closed_loop_of_own_locks_for_five_seconds() {
        let plan = plan("");
        assert_eq!((plan.connections, plan.threads, plan.slots()), (8, 1, 1));
        assert_eq!(
            (plan.locks, plan.mode, plan.rhythm),
            (Locks::Own, Mode::Exclusive, Rhythm::Steps)
        );
        assert_eq!(
            (plan.keep, plan.extent),
            (Connections::Kept, Extent::For(Duration::from_secs(5)))
        );
    }

    #[test]
    fn modes_are_words_or_shares_of_permits() {
        assert_eq!(plan("--mode shared").mode, Mode::Shared);
        assert_eq!(plan("--mode 2/5").mode, Mode::Permits { take: 2, of: 5 });
        for wrong in ["--mode 6/5", "--mode 0/5", "--mode 5", "--mode both"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_go_together_is_refused() {
        for wrong in [
            "--depth 2 --same-lock",
            "--depth 2 --rate 10",
            "--depth 2 --connection-per-iteration",
            "--pairs 5 --duration 5",
            "--depth 0",
            "--depth 257",
            "--connections 0",
            "--pairs 0",
            "--rate 0",
            "--rate NaN",
            "--rate soon",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(plan("--depth 256").slots(), 256);
        assert!(read("--duration 0").unwrap().plan().is_err());
    }

    #[test]
    fn every_slot_has_a_lock_of_its_own_unless_all_want_the_same() {
        let own = plan("--connections 3 --depth 4");
        let locks: std::collections::BTreeSet<usize> = (0..3)
            .flat_map(|it| (0..4).map(move |slot| (it, slot)))
            .map(|(c, s)| own.lock(c, s))
            .collect();
        assert_eq!((locks.len(), own.lock_count()), (12, 12));
        let same = plan("--connections 3 --same-lock");
        assert_eq!((same.lock(2, 0), same.lock_count()), (0, 1));
        assert_eq!(same.lock_name(0).len(), own.lock_name(11).len());
    }
}
