//! What the fuzzers have in common: a corpus, mutations that know what a frame is, and a loop that
//! says how a failure is replayed.
//!
//! The one idea: *an execution is a function of the corpus and one number*. The number seeds the
//! only source of randomness, so that the number of a failure is all that has to be written down.
//!
//! | fuzzer | drives |
//! |---|---|
//! | `wire::tests::fuzz` | the codecs of both ends, with frames |
//! | `server::fuzz` | Sessions and a Coordinator, with conversations |
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

/// How long a fuzzer goes on.
#[derive(Clone, Copy, Debug)]
enum Until {
    /// So many executions.
    Executions(u64),
    /// So long.
    Elapsed(Duration),
}

/// The number that the environment has under `name`.
pub(crate) fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Executes `one` for seed after seed: `executions` times, or as `FUZZ_EXECUTIONS` or `FUZZ_MINUTES`
/// say, from `FUZZ_SEED` on. An execution that takes more than `bytes_max` bytes of memory at its
/// worst has failed, and so has one in which anything panicked.
pub(crate) fn fuzz(name: &str, executions: u64, bytes_max: u64, mut one: impl FnMut(Random)) {
    count_panics();
    let until = match (number("FUZZ_EXECUTIONS"), number("FUZZ_MINUTES")) {
        (Some(executions), _) => Until::Executions(executions),
        (None, Some(minutes)) => Until::Elapsed(Duration::from_secs(60 * minutes)),
        (None, None) => Until::Executions(executions),
    };
    let first = number("FUZZ_SEED").unwrap_or(FIRST_SEED);
    let began = Instant::now();
    let (mut done, mut worst, mut worst_seed) = (0, 0, first);
    while match until {
        Until::Executions(executions) => done < executions,
        Until::Elapsed(length) => began.elapsed() < length,
    } {
        let seed = first.wrapping_add(done);
        let replay = Replay { name, seed };
        let before = panics();
        let taken = measure(|| one(Random::new(seed))).bytes_max;
        assert_eq!(panics(), before, "something panicked, see above");
        assert!(taken <= bytes_max, "{taken} bytes of memory were taken, {bytes_max} are allowed");
        if taken > worst {
            (worst, worst_seed) = (taken, seed);
        }
        drop(replay);
        done += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{name}: {done} executions in {seconds:.1} s, seeds {first} to {}; at most {worst} bytes \
         of memory (seed {worst_seed})",
        first.wrapping_add(done.saturating_sub(1)),
    );
}

/// Says how to come back to where a panic was.
struct Replay<'a> {
    /// The test.
    name: &'a str,
    /// The number that the execution is a function of.
    seed: u64,
}

impl Drop for Replay<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { name, seed } = self;
            println!("\n{name} failed with seed {seed}. To replay it:\n");
            println!(
                "    FUZZ_SEED={seed} FUZZ_EXECUTIONS=1 cargo test --all-features --lib {name} -- --nocapture\n"
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
