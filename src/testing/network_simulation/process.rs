//! A process: tasks that live together, stand still together, and die together; and the clock of its
//! machine.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::testing::fuzz::Random;
use crate::types::Timestamp;

/// How much faster or slower than true time a clock may run, in millionths (rule T1).
const RATE_ERROR_PPM_MAX: i64 = 10_000;
const MILLION: i128 = 1_000_000;

/// A clock that runs too fast or too slow, and began anywhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct SkewedClock {
    /// True time when it was looked at first.
    origin: Instant,
    /// What it showed then, in microseconds.
    showed: u64,
    /// By how much it is too fast.
    ppm: i64,
}

impl SkewedClock {
    /// One of any rate that is allowed, often the worst.
    pub(super) fn any(random: &mut Random) -> Self {
        let ppm = match random.below(4) {
            0 => RATE_ERROR_PPM_MAX,
            1 => -RATE_ERROR_PPM_MAX,
            _ => {
                let range = usize::try_from(2 * RATE_ERROR_PPM_MAX + 1).unwrap();
                i64::try_from(random.below(range)).unwrap() - RATE_ERROR_PPM_MAX
            }
        };
        Self { origin: Instant::now(), showed: 1 + random.next() % (1 << 40), ppm }
    }

    /// What it shows so many microseconds of true time after it was looked at first.
    fn at(&self, elapsed_us: u128) -> u64 {
        let elapsed = i128::try_from(elapsed_us).unwrap();
        self.showed + u64::try_from(elapsed * (MILLION + i128::from(self.ppm)) / MILLION).unwrap()
    }

    /// How long it is, in true time, until it has gone on by `length`.
    pub(super) fn true_length(&self, length: Duration) -> Duration {
        let us = i128::try_from(length.as_micros()).unwrap();
        Duration::from_micros(
            u64::try_from(us * MILLION / (MILLION + i128::from(self.ppm))).unwrap(),
        )
    }

    /// What it shows at `moment`.
    pub(super) fn shows_at(&self, moment: Instant) -> u64 {
        self.at(moment.saturating_duration_since(self.origin).as_micros())
    }
}

impl Clock for SkewedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.at(self.origin.elapsed().as_micros()))
    }
}

/// Whether a process runs.
#[derive(Default)]
struct State {
    /// Nothing in it is polled.
    is_frozen: Cell<bool>,
    /// Has it polled.
    waker: RefCell<Option<Waker>>,
}

/// Makes a process stand still.
pub(super) struct Freezer(Rc<State>);

impl Freezer {
    /// From now on nothing happens in it.
    pub(super) fn freeze(&self) {
        self.0.is_frozen.set(true);
    }

    /// It goes on.
    pub(super) fn thaw(&self) {
        self.0.is_frozen.set(false);
        if let Some(waker) = self.0.waker.take() {
            waker.wake();
        }
    }
}

/// A program and all that it spawns with `spawn_local`, actors included.
pub(super) struct Process {
    /// Shared with the task.
    state: Rc<State>,
    /// Holds the program, and all that it spawned.
    task: JoinHandle<()>,
}

impl Process {
    /// Starts `program`. When it ends, everything that it spawned dies.
    pub(super) fn start(program: impl Future<Output = ()> + 'static) -> Self {
        let state = Rc::<State>::default();
        let seen = Rc::clone(&state);
        let task = spawn_local(async move {
            let tasks = LocalSet::new();
            let mut running = pin!(tasks.run_until(program));
            std::future::poll_fn(|context| {
                seen.waker.replace(Some(context.waker().clone()));
                // Whoever stands still does not hear its timers either: it finds that they rang.
                if seen.is_frozen.get() { Poll::Pending } else { running.as_mut().poll(context) }
            })
            .await;
        });
        Self { state, task }
    }

    /// Whether its program has not ended.
    pub(super) fn is_alive(&self) -> bool {
        !self.task.is_finished()
    }

    /// What makes it stand still.
    pub(super) fn freezer(&self) -> Freezer {
        Freezer(Rc::clone(&self.state))
    }

    /// Waits for its end.
    pub(super) async fn ended(&mut self) {
        if let Err(failed) = (&mut self.task).await
            && failed.is_panic()
        {
            std::panic::resume_unwind(failed.into_panic());
        }
    }

    /// Has it die here and now. What it still tries to say must have been silenced before.
    pub(super) async fn kill(self) {
        self.task.abort();
        let _was_aborted = self.task.await;
    }
}
