//! Many runs, one after the other; and that each can be had again.

use std::env;

use super::referee::Trace;
use super::tally::Sum;
use super::world::{Outcome, World};
use crate::testing::fuzz::Campaign;

/// Runs of a normal test.
const RUNS: u64 = 300;
/// Runs that are made twice.
const RUNS_TWICE: u64 = 20;

fn run(seed: u64, trace: Trace) -> Outcome {
    World::new(seed, trace).run()
}

#[test]
fn simulated_rules_hold_whatever_happens() {
    let name = "simulated_rules_hold_whatever_happens";
    let campaign = Campaign { name, prefix: "SIMULATE", runs: "RUNS" };
    // A run that is replayed is there to be read.
    let is_replay = env::var("SIMULATE_RUNS").is_ok_and(|runs| runs == "1");
    let mut sum = Sum::default();
    let done = campaign.run(RUNS, |seed| {
        sum.add(&run(seed, if is_replay { Trace::Printed } else { Trace::Off }));
    });
    print!("{}", sum.table(&done));
    if done.runs < RUNS {
        return;
    }
    // Otherwise nothing was tried.
    let at_least = |what: &str, least: u64| {
        let count = sum.tally.of(what);
        assert!(count > least, "{what}: {count} in {} runs", done.runs);
    };
    assert!(sum.tally.faults() > done.runs * 20);
    at_least("granted", done.runs * 40);
    for what in ["resumed", "shared", "cancelled", "timed out"] {
        at_least(what, done.runs * 5);
    }
    for what in ["upgraded", "downgraded", "lost", "deadlocks", "unsent"] {
        at_least(what, done.runs);
    }
    at_least("replaced by a second connection", done.runs);
    for what in ["reclaimed", "conversions given up", "revoked", "restarts in order"] {
        at_least(what, done.runs / 10);
    }
    at_least("restarts by replay", done.runs);
    for what in ["restarts with a grace period", "checkpoints", "journals given up"] {
        at_least(what, done.runs / 4);
    }
    at_least("journals begun anew", done.runs / 10);
    at_least("rules looked through in several turns", done.runs / 10);
    at_least("forbidden", done.runs);
    at_least("redis: forbidden", done.runs / 4);
    for what in ["redis: granted", "redis: granted in line", "redis: extended", "redis: released"] {
        at_least(what, done.runs);
    }
}

#[test]
fn simulated_rules_replay_byte_for_byte() {
    let traced = |seed| run(seed, Trace::Kept(String::new())).trace.unwrap();
    for seed in 1..=RUNS_TWICE {
        assert!(traced(seed) == traced(seed), "seed {seed} had another history the second time");
    }
    assert_ne!(traced(1), traced(2));
}
