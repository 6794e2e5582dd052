//! The nemesis: whatever can happen to the real program happens, at random, while many clients work;
//! and what they saw is judged afterwards by the [history checker](crate::history).
//!
//! ```text
//!   client process 1 ─ sessions ─┬────────────────▶ coordinator serve
//!   client process 2 ─ sessions ─┤                    ▲  kill -9, stop, SIGSTOP,
//!         ⋮      ▲               └──▶ proxy ──────────┘  another time of day
//!         │      └ SIGSTOP, kill -9,     └ cut, dark, one way dark
//!         │        another time of day
//!         ▼                                        floods, slow readers
//!   histories, one file each  ──▶ checker ──▶ violations: 0
//! ```
//!
//! A client process is this very program, run again for one test that is none
//! ([`worker::a_client_process_of_the_nemesis`]). All write down what they do and are told with the
//! time of the one clock that all processes of a machine share. What is written of a hold is only
//! what is sure: it was believed in from after its grant was heard until the last time that
//! `is_held` said so. So what the checker finds is never an accident of scheduling.
//!
//! The seed decides which faults come when, and what clients ask for. It does not decide who runs
//! when: the same seed is a run of the same kind, not the same run.
//!
//! [`failovers`] does the same to a cluster: its leaders die, stop, and are asked to stop. [`partitions`] does it to
//! the links of a cluster, and to its etcd.
//!
//! `scripts/nemesis --minutes N` makes long runs, with `--worlds N` of several coordinators side by
//! side. `NEMESIS_SECONDS`, `NEMESIS_SEED`, `NEMESIS_WORLDS`, `NEMESIS_PROCESSES` and
//! `NEMESIS_DIRECTORY`, where histories are kept, make a run another.

#![allow(clippy::print_stdout, reason = "a long run ends in a table")]

mod failovers;
mod faults;
mod judge;
mod partitions;
mod record;
mod worker;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use self::faults::Nemesis;
use self::judge::Verdict;
use self::record::{Window, now_us};
use crate::random::Random;
use crate::support::{Home, Server, eventually, run};

/// How long clients are disturbed in the normal run.
const SECONDS: u64 = 20;
/// Client processes in the normal run.
const PROCESSES: u64 = 3;
/// Coordinators in the normal run, each with clients of its own.
const WORLDS: u64 = 1;
/// The seed of the normal run; each further coordinator has the next.
const SEED: u64 = 1;
/// Between two looks at whether everything stood still.
const HEARTBEAT: Duration = Duration::from_millis(50);
fn number(name: &str, usual: u64) -> u64 {
    env::var(name).map_or(usual, |text| text.parse().unwrap())
}

/// Calls `beat` with the time that has passed since the last call, again and again, until told to end.
fn at_each_heartbeat(over: Arc<AtomicBool>, mut beat: impl FnMut(Window) + Send + 'static) {
    thread::spawn(move || {
        let mut last = now_us();
        while !over.load(Ordering::SeqCst) {
            thread::sleep(HEARTBEAT);
            let now = now_us();
            beat(Window { from: last, until: now });
            last = now;
        }
    });
}

/// A coordinator, its clients, and what is done to them for so long.
fn world(directory: &Path, processes: u64, seed: u64, length: Duration) -> Verdict {
    let server = Server::start_under_a_wall_clock();
    fs::create_dir_all(directory).unwrap();
    let (stalls, over) = (Arc::<Mutex<Vec<Window>>>::default(), Arc::<AtomicBool>::default());
    let kept = Arc::clone(&stalls);
    at_each_heartbeat(Arc::clone(&over), move |beat| {
        if beat.is_stall() {
            kept.lock().unwrap().push(beat);
        }
    });

    let began = Instant::now();
    let mut nemesis = Nemesis::new(server, directory.to_owned(), processes, Random::new(seed));
    while began.elapsed() < length {
        nemesis.strike();
    }
    let (server, deeds) = nemesis.relent();
    over.store(true, Ordering::SeqCst);
    let stalls = stalls.lock().unwrap().clone();
    let mut verdict = judge::judge(directory, &deeds, &stalls);
    for violation in &mut verdict.violations {
        *violation = format!("{}: {violation}", directory.display());
    }
    // Also the locks of those who were killed are free when their leases are over.
    eventually("nothing is held and nobody waits", || {
        let status = run(server.client(&["status", "--json"]));
        let status: serde_json::Value = serde_json::from_str(&status.out).ok()?;
        let status = &status["server"];
        (status["held"] == 0 && status["waiting"] == 0 && status["sessions"] == 0).then_some(())
    });
    verdict
}

#[test]
fn the_nemesis_breaks_no_promise() {
    let seed = number("NEMESIS_SEED", SEED);
    let length = Duration::from_secs(number("NEMESIS_SECONDS", SECONDS));
    let worlds = number("NEMESIS_WORLDS", WORLDS);
    let processes = number("NEMESIS_PROCESSES", PROCESSES);
    let home = Home::new();
    let directory =
        env::var_os("NEMESIS_DIRECTORY").map_or_else(|| home.path("nemesis"), PathBuf::from);

    let began = Instant::now();
    let mut verdict = Verdict::default();
    thread::scope(|scope| {
        let run = |at| {
            let directory = directory.join(format!("world-{at}"));
            scope.spawn(move || world(&directory, processes, seed + at, length))
        };
        let worlds: Vec<_> = (0..worlds).map(run).collect();
        for world in worlds {
            verdict.add(world.join().unwrap());
        }
    });
    println!(
        "\nnemesis, {worlds} worlds from seed {seed} on, {} s\n{verdict}",
        began.elapsed().as_secs()
    );
    assert!(
        verdict.violations.is_empty(),
        "{} violations; a run of the same kind: scripts/nemesis --seed {seed}",
        verdict.violations.len()
    );
}
