//! The state that all connections of a measurement share.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::checks::Checks;
use super::crowd::Crowd;
use super::pace::Pace;
use super::plan::{Extent, Plan, Rhythm};

/// How far a measurement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Everything goes on, and nothing is measured.
    WarmUp,
    /// What is done now counts.
    Measuring,
    /// What is on its way is finished, and nothing is begun.
    Over,
}

impl Phase {
    const ALL: [Self; 3] = [Self::WarmUp, Self::Measuring, Self::Over];
}

/// The state that all connections of a measurement share.
#[derive(Debug)]
pub(crate) struct Run {
    /// What is to be done.
    pub(crate) plan: Plan,
    /// Whether the server keeps its promises.
    pub(crate) checks: Checks,
    /// Who wants the lock, if it is one that is handed over.
    pub(crate) crowd: Option<Crowd>,
    /// When pairs begin, in the open loop.
    pub(crate) pace: Option<Pace>,
    /// How far it is: an index of [`Phase::ALL`].
    phase: AtomicU8,
    /// Moments count from here.
    origin: Instant,
    /// When the connections were let go.
    started: OnceLock<Instant>,
    /// The next number in the open loop.
    tickets: AtomicU64,
    /// How many pairs were begun of those that count by their number.
    begun: AtomicU64,
    /// How many pairs that count are done.
    done: AtomicU64,
    /// All pairs are done that were to be.
    all_done: Notify,
    /// The measurement is over.
    over: Notify,
}

impl Run {
    /// A measurement that has not begun.
    pub(crate) fn new(plan: Plan) -> Self {
        let pace = match plan.rhythm {
            Rhythm::Rate(per_second) => Some(Pace::new(per_second)),
            Rhythm::Steps | Rhythm::Batches(_) => None,
        };
        Self {
            checks: Checks::new(plan.lock_count(), plan.mode),
            crowd: plan.is_handed_over().then(|| Crowd::new(plan.connections)),
            pace,
            phase: AtomicU8::new(0),
            origin: Instant::now(),
            started: OnceLock::new(),
            tickets: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
            all_done: Notify::new(),
            over: Notify::new(),
            plan,
        }
    }

    /// Nanoseconds since the origin: a moment that all threads agree on.
    pub(crate) fn now(&self) -> u64 {
        self.nanos_of(Instant::now())
    }

    /// A moment as nanoseconds since the origin.
    pub(crate) fn nanos_of(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.origin);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// How far it is.
    pub(crate) fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Relaxed))]
    }

    /// The connections are let go.
    pub(crate) fn start(&self) {
        let _already = self.started.set(Instant::now());
    }

    /// What is done from now on counts.
    pub(crate) fn begin_measuring(&self) {
        self.phase.store(1, Ordering::Relaxed);
    }

    /// Nothing is begun from now on.
    pub(crate) fn end(&self) {
        self.phase.store(2, Ordering::Relaxed);
        if let Some(crowd) = &self.crowd {
            crowd.end();
        }
        self.over.notify_waiters();
    }

    /// Waits for the end.
    pub(crate) async fn ended(&self) {
        let mut over = std::pin::pin!(self.over.notified());
        over.as_mut().enable();
        if self.phase() != Phase::Over {
            over.await;
        }
    }

    /// The next pair's moment in the open loop.
    pub(crate) fn next_moment(&self, pace: Pace) -> Instant {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let started = self.started.get().copied().unwrap_or(self.origin);
        started.checked_add(pace.moment(ticket)).unwrap_or(started + Duration::from_secs(1 << 30))
    }

    /// Whether a connection may begin a turn, for all its slots; in which phase it does.
    pub(crate) fn begin(&self) -> Option<Phase> {
        let phase = self.phase();
        match (phase, self.plan.extent) {
            (Phase::Over, _) => None,
            (Phase::WarmUp, _) | (Phase::Measuring, Extent::For(_)) => Some(phase),
            (Phase::Measuring, Extent::Pairs(pairs)) => {
                let begun = self.begun.fetch_add(self.plan.slots() as u64, Ordering::Relaxed);
                (begun < pairs).then_some(phase)
            }
        }
    }

    /// Whether what was begun in the phase `begun` and is done now counts. By time, all that is
    /// done while measuring counts; by number, all that was begun while measuring.
    pub(crate) fn counts(&self, begun: Phase) -> bool {
        match self.plan.extent {
            Extent::For(_) => self.phase() == Phase::Measuring,
            Extent::Pairs(_) => begun == Phase::Measuring,
        }
    }

    /// A pair that counts is done.
    pub(crate) fn pair_done(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Extent::Pairs(pairs) = self.plan.extent
            && done == pairs.next_multiple_of(self.plan.slots() as u64)
        {
            self.all_done.notify_one();
        }
    }

    /// How many pairs that count are done.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until as many pairs are done as were to be.
    pub(crate) async fn all_done(&self) {
        self.all_done.notified().await;
    }
}
