//! The production actors, the wire, and the public client on a simulated network, under virtual time.
//!
//! The one idea: *a run is a function of one number*. One thread, time that moves on only when every
//! task waits, and one source of randomness, so that the number of a failure brings it back, byte for
//! byte.
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
//! | `fleet`, `contender` | clients, and what their tasks do with them |
//! | `faults` | what goes wrong, and when |
//! | `places` | who came before whom, over runs of the coordinator |
//! | `diary`, `trace` | what is written down: for the judge, and for the comparison of two runs |
//!
//! What must come of it is judged by `crate::history`, from what clients saw; besides, nobody loses a
//! lock before its own clock says so, nobody hears an error that makes no sense, everybody is served
//! once there is peace, and when all are gone nothing is left.
//!
//! What is never here: a rule about locks, a real clock, a real thread.

#![allow(clippy::print_stdout, reason = "a simulation says how far it came")]

mod contender;
mod diary;
mod disk;
mod faults;
mod fleet;
mod machine;
mod network;
mod places;
mod process;
mod run;
mod stream;
mod trace;

use std::env;
use std::time::{Duration, Instant};

use self::run::{Verdict, simulate};
use self::trace::Lines;
use crate::fuzz::{count_panics, number, panics};

/// Runs of a normal test run, each of about a virtual minute.
const RUNS: u64 = 100;
/// The first seed, unless told otherwise.
const FIRST_SEED: u64 = 1;
/// Seeds that are run twice.
const TWICE: usize = 5;

/// Says how to come back to where a panic was.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            println!(
                "\nsimulated_network failed with seed {seed}. To replay it, with all that happens:\n"
            );
            println!(
                "    SIMULATE_TRACE=1 SIMULATE_SEED={seed} SIMULATE_RUNS=1 cargo test --all-features \
                 --lib simulated_network_keeps -- --nocapture\n"
            );
        }
    }
}

/// One run, which must have been right.
fn judged(seed: u64, lines: Lines) -> Verdict {
    let _replay = Replay(seed);
    let before = panics();
    let verdict = simulate(seed, lines);
    assert_eq!(panics(), before, "something panicked, see above");
    assert!(verdict.violations.is_empty(), "violations:\n  {}", verdict.violations.join("\n  "));
    verdict
}

#[test]
fn simulated_network_keeps_every_promise() {
    count_panics();
    let first = number("SIMULATE_SEED").unwrap_or(FIRST_SEED);
    let minutes = number("SIMULATE_MINUTES").map(|minutes| Duration::from_secs(60 * minutes));
    let runs = number("SIMULATE_RUNS").unwrap_or(if minutes.is_some() { u64::MAX } else { RUNS });
    let lines =
        if env::var_os("SIMULATE_TRACE").is_some() { Lines::Printed } else { Lines::Digested };
    let began = Instant::now();
    let mut total = Verdict::default();
    for seed in (first..).take(usize::try_from(runs).unwrap_or(usize::MAX)) {
        if minutes.is_some_and(|minutes| began.elapsed() >= minutes) {
            break;
        }
        total.add(judged(seed, lines));
    }
    println!(
        "simulated_network, seeds from {first} on, {:.1} s:\n{total}",
        began.elapsed().as_secs_f64()
    );
}

#[test]
fn simulated_network_is_a_function_of_its_seed() {
    count_panics();
    for seed in (FIRST_SEED..).take(TWICE) {
        let (one, other) = (judged(seed, Lines::Kept), judged(seed, Lines::Kept));
        let pairs = one.lines.iter().zip(&other.lines);
        for (number, (one, other)) in pairs.enumerate() {
            assert_eq!(one, other, "seed {seed}: line {number} is another when run again");
        }
        assert_eq!(one.lines.len(), other.lines.len(), "seed {seed}: one run is longer");
        assert_eq!(one.digest, other.digest);
    }
}
