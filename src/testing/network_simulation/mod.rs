//! The production actors, the wire, and the public client on a simulated network, under virtual time.
//!
//! The one idea: *a run is a function of one number*. Deterministic simulation testing: one thread,
//! time that moves on only when every task waits, and one source of randomness. So the seed of a
//! failure brings it back, byte for byte.
//!
//! ```text
//!   client process (LocalSet, own clock)          coordinator process (LocalSet, own clock)
//!   ┌──────────────────────────────┐               ┌────────────────────────────────┐
//!   │ contenders ─▶ Client, driver │ ═══ streams ══▶ Bound: Sessions, Coordinator,  │
//!   └──────────────────────────────┘  delay, dark, │ commit task ──▶ disk            │
//!      ×3 to 6                        cut, split   └────────────────────────────────┘
//! ```
//!
//! | file | is about |
//! |---|---|
//! | `process` | tasks that stand still together and die together; clocks that are wrong |
//! | `stream`, `network` | bytes under way, and who gets through to whom |
//! | `disk`, `machine` | where the coordinator runs, crashes, stops and starts again |
//! | `members` | a cluster, in every second run: who leads, who says so, and who was deposed |
//! | `fleet`, `contender` | clients, and what their tasks do with them |
//! | `strangers` | clients of the Redis dialect, beside the others |
//! | `adversary` | a client that means harm, in every second run |
//! | `faults` | what goes wrong, and when |
//! | `places` | who came before whom, over runs of the coordinator |
//! | `diary`, `trace` | what is written down: for the judge, and for the comparison of two runs |
//!
//! `crate::testing::history` judges the clients' observations. Besides, nobody loses a lock before
//! its own clock says so, and nobody hears an absurd error. Everybody is served once the faults are
//! over, and when all are gone nothing is left.
//!
//! Never here: a rule about locks, a real clock, a real thread.

#![allow(clippy::print_stdout, reason = "a simulation says how far it came")]

mod adversary;
mod contender;
mod diary;
mod disk;
mod faults;
mod fleet;
mod machine;
mod members;
mod network;
mod places;
mod process;
mod run;
mod strangers;
mod stream;
mod trace;

use std::env;

use self::run::{Verdict, simulate};
use self::trace::Lines;
use crate::testing::fuzz::{Campaign, count_panics, panics};

/// Runs of a normal test run, each of about a virtual minute.
const RUNS: u64 = 100;
/// Runs that are made twice.
const RUNS_TWICE: u64 = 5;

/// One run, which must have been right.
fn judged(seed: u64, lines: Lines) -> Verdict {
    let before = panics();
    let verdict = simulate(seed, lines);
    assert_eq!(panics(), before, "something panicked, see above");
    assert!(verdict.violations.is_empty(), "violations:\n  {}", verdict.violations.join("\n  "));
    verdict
}

#[test]
fn simulated_network_keeps_every_promise() {
    count_panics();
    let name = "simulated_network_keeps_every_promise";
    let campaign = Campaign { name, prefix: "SIMULATE", runs: "RUNS" };
    // A run that is replayed is there to be read.
    let is_replay = env::var("SIMULATE_RUNS").is_ok_and(|runs| runs == "1");
    let mut total = Verdict::default();
    let done = campaign.run(RUNS, |seed| {
        total.add(judged(seed, if is_replay { Lines::Printed } else { Lines::Digested }));
    });
    let seconds = done.elapsed.as_secs_f64();
    println!("{name}: seeds {} to {} in {seconds:.1} s\n{total}", done.first, done.last);
    if done.runs < RUNS {
        return;
    }
    // Otherwise nothing was tried.
    let at_least = |what: &str, least: u64| {
        let count = total.count(what);
        assert!(count > least, "{what}: {count} in {} runs", done.runs);
    };
    at_least("granted", done.runs * 50);
    at_least("writes accepted", done.runs * 20);
    at_least("faults", done.runs * 30);
    for what in ["lost", "upgraded", "downgraded", "dropped", "given up", "coordinator crashes"] {
        at_least(what, done.runs);
    }
    for what in ["places kept over a crash", "coordinator runs by replay"] {
        at_least(what, done.runs);
    }
    at_least("messages of the adversary", done.runs * 50);
    at_least("hints of members that do not lead", done.runs);
    for what in ["leader changes", "welcomes of deposed leaders"] {
        at_least(what, done.runs / 4);
    }
    #[cfg(feature = "redis-api")]
    for what in ["redis: granted", "redis: granted in line", "redis: extended", "redis: released"] {
        at_least(what, done.runs / 2);
    }
}

#[test]
fn simulated_network_is_a_function_of_its_seed() {
    count_panics();
    for seed in 1..=RUNS_TWICE {
        let (one, other) = (judged(seed, Lines::Kept), judged(seed, Lines::Kept));
        let pairs = one.lines.iter().zip(&other.lines);
        for (number, (one, other)) in pairs.enumerate() {
            assert_eq!(one, other, "seed {seed}: line {number} is another when run again");
        }
        assert_eq!(one.lines.len(), other.lines.len(), "seed {seed}: one run is longer");
        assert_eq!(one.digest, other.digest);
    }
}
