//! The common parts of the fuzzers: a corpus, mutations that know what a frame is, and a loop that
//! prints how to replay a failure. Simulations share the loop.
//!
//! The one idea: *an execution is a function of the corpus and one number*. The number seeds the
//! only source of randomness, so that the number of a failure is all that has to be written down.
//!
//! | fuzzer | drives |
//! |---|---|
//! | `wire::tests::fuzz` | the codecs of both ends, with frames |
//! | `server::tests::fuzz` | Sessions and a Coordinator, with conversations |
//!
//! `cargo test fuzz` executes each some 1,000 or 10,000 times, the same ones each time; `scripts/fuzz`
//! goes on for as long as it is told, each time with others. `docs/testing.md` says more.

#![allow(clippy::print_stdout, reason = "a fuzzer says how far it came")]

mod corpus;
mod mutate;
mod random;

use std::cell::Cell;
use std::env;
use std::panic;
use std::sync::Once;
use std::time::{Duration, Instant};

use allocation_counter::measure;

pub(crate) use self::corpus::{Corpus, assert_in_corpus};
pub(crate) use self::mutate::mutated;
pub(crate) use self::random::Random;

/// The first seed, unless told otherwise: what is executed in the normal run is always the same.
const FIRST_SEED: u64 = 1;

thread_local! {
    /// How often this thread has panicked. tokio keeps the panic of a task to itself.
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// Runs of something, each a function of one number, its seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Campaign {
    /// The test, for the command that replays.
    pub(crate) name: &'static str,
    /// What the variables begin with that say which seeds.
    pub(crate) prefix: &'static str,
    /// How a run is called in the variable that says how many.
    pub(crate) runs: &'static str,
}

/// What a campaign came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    /// Runs.
    pub(crate) runs: u64,
    /// The first seed.
    pub(crate) first: u64,
    /// The last.
    pub(crate) last: u64,
    /// How long it took.
    pub(crate) elapsed: Duration,
}

/// How long a campaign goes on.
#[derive(Clone, Copy, Debug)]
enum Until {
    /// So many runs.
    Runs(u64),
    /// So long.
    Elapsed(Duration),
}

impl Campaign {
    /// The number that the environment has for this campaign under `name`.
    fn number(self, name: &str) -> Option<u64> {
        let name = format!("{}_{name}", self.prefix);
        let text = env::var(&name).ok()?;
        Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
    }

    /// Runs `one` for seed after seed: `runs` times, or as the environment says.
    pub(crate) fn run(self, runs: u64, mut one: impl FnMut(u64)) -> Done {
        let until = match (self.number(self.runs), self.number("MINUTES")) {
            (Some(runs), _) => Until::Runs(runs),
            (None, Some(minutes)) => Until::Elapsed(Duration::from_secs(60 * minutes)),
            (None, None) => Until::Runs(runs),
        };
        let first = self.number("SEED").unwrap_or(FIRST_SEED);
        let (began, mut done) = (Instant::now(), 0);
        while match until {
            Until::Runs(runs) => done < runs,
            Until::Elapsed(length) => began.elapsed() < length,
        } {
            let replay = Replay { campaign: self, seed: first.wrapping_add(done) };
            one(replay.seed);
            drop(replay);
            done += 1;
        }
        let last = first.wrapping_add(done.saturating_sub(1));
        Done { runs: done, first, last, elapsed: began.elapsed() }
    }
}

/// Executes `one` for seed after seed: `executions` times, or as `FUZZ_EXECUTIONS` or `FUZZ_MINUTES`
/// say, from `FUZZ_SEED` on. An execution that takes more than `bytes_max` bytes of memory at its
/// worst has failed, and so has one in which anything panicked.
pub(crate) fn fuzz(
    name: &'static str,
    executions: u64,
    bytes_max: u64,
    mut one: impl FnMut(Random),
) {
    count_panics();
    let campaign = Campaign { name, prefix: "FUZZ", runs: "EXECUTIONS" };
    let (mut worst, mut worst_seed) = (0, 0);
    let Done { runs, first, last, elapsed } = campaign.run(executions, |seed| {
        let before = panics();
        let taken = measure(|| one(Random::new(seed))).bytes_max;
        assert_eq!(panics(), before, "something panicked, see above");
        assert!(taken <= bytes_max, "{taken} bytes of memory were taken, {bytes_max} are allowed");
        if taken > worst {
            (worst, worst_seed) = (taken, seed);
        }
    });
    let seconds = elapsed.as_secs_f64();
    println!(
        "{name}: {runs} executions in {seconds:.1} s, seeds {first} to {last}; at most {worst} \
         bytes of memory (seed {worst_seed})"
    );
}

/// Says how to come back to where a panic was.
struct Replay {
    /// Of what it is a run.
    campaign: Campaign,
    /// The number that the run is a function of.
    seed: u64,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { campaign: Campaign { name, prefix, runs }, seed } = self;
            println!("\n{name} failed with seed {seed}. To replay it:\n");
            println!(
                "    {prefix}_SEED={seed} {prefix}_{runs}=1 cargo test --all-features --lib {name} -- --nocapture\n"
            );
        }
    }
}

/// How often this thread has panicked, from when [`count_panics`] was called first.
pub(crate) fn panics() -> u64 {
    PANICS.get()
}

/// Has panics counted.
pub(crate) fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            usual(info);
        }));
    });
}
