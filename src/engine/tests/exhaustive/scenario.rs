//! The scenarios of the walk: clients, their requests, and the number of faults.

use std::time::Duration;

use super::moves::Move;
use crate::engine::Supersede;
use crate::types::{Claim, Claims, LockName, Mode};

/// The lease of every session: the shortest there is.
pub(super) const TTL: Duration = Duration::from_secs(2);
/// Time passes in such steps: two of them are a lease, three a grace period.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// There are no more locks than this.
pub(super) const LOCKS_MAX: usize = 2;

/// Something to ask for.
#[derive(Debug)]
pub(super) struct Shape {
    /// For people, and for conversions.
    pub(super) name: &'static str,
    /// The locks, by number, and how they are wanted.
    pub(super) claims: &'static [(usize, Mode)],
    /// Who asks, within the session.
    pub(super) owner: u64,
    /// The shape that it converts.
    pub(super) converts: Option<&'static str>,
    /// Pause after a loss.
    pub(super) delay: Duration,
    /// From the grant on it is kept for so long; from a reclaim on, too, which is longer than it has to be.
    pub(super) at_least: Duration,
    /// Whom it ends.
    pub(super) supersede: Supersede,
}

impl Shape {
    const fn of(name: &'static str, claims: &'static [(usize, Mode)]) -> Self {
        let (delay, at_least) = (Duration::ZERO, Duration::ZERO);
        let supersede = Supersede::Nobody;
        Self { name, claims, owner: 0, converts: None, delay, at_least, supersede }
    }

    /// Newest first, one pending.
    const fn newest(self) -> Self {
        Self { supersede: Supersede::Older, ..self }
    }

    const fn by(self, owner: u64) -> Self {
        Self { owner, ..self }
    }

    const fn converting(self, other: &'static str) -> Self {
        Self { converts: Some(other), ..self }
    }

    /// How it claims a lock, if it does.
    pub(super) fn mode(&self, lock: usize) -> Option<Mode> {
        self.claims.iter().find(|(of, _)| *of == lock).map(|(_, mode)| *mode)
    }
}

/// The claims of a shape, for the engine.
pub(super) fn claims(shape: &Shape) -> Claims {
    let claim = |(lock, mode): &(usize, Mode)| Claim { name: name(*lock), mode: *mode };
    Claims::new(shape.claims.iter().map(claim)).unwrap()
}

/// What a lock is called.
pub(super) fn name(lock: usize) -> LockName {
    LockName::new(["a", "b"][lock]).unwrap()
}

/// How much of everything may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    /// Steps of time.
    pub(super) ticks: u8,
    /// Keep-alives.
    pub(super) keep_alives: u8,
    /// Connections that break.
    pub(super) breaks: u8,
    /// Connections on which what the client says comes late.
    pub(super) slow: u8,
    /// Crashes of the coordinator.
    pub(super) crashes: u8,
    /// Crashes after which the next run goes on with a replay of all that was told.
    pub(super) replays: u8,
    /// Orderly restarts.
    pub(super) stops: u8,
    /// Locks taken away by an operator.
    pub(super) revokes: u8,
    /// Requests that are not allowed any more while they wait.
    pub(super) withdrawals: u8,
    /// Goodbyes.
    pub(super) goodbyes: u8,
}

/// A walk.
#[derive(Debug)]
pub(super) struct Scenario {
    /// For people.
    pub(super) name: &'static str,
    /// How many clients there are.
    pub(super) clients: usize,
    /// So many times each of them asks.
    pub(super) asks: u64,
    /// What for.
    pub(super) shapes: &'static [Shape],
    /// Whether words arrive and records are on disk at once, so that no state is about that.
    pub(super) is_instant: bool,
    /// What may go wrong.
    pub(super) budget: Budget,
    /// What has happened already when the walk begins: all have a session, and this.
    pub(super) before: &'static [Move],
}

const NOTHING: Budget = Budget {
    ticks: 0,
    keep_alives: 0,
    breaks: 0,
    slow: 0,
    crashes: 0,
    replays: 0,
    stops: 0,
    revokes: 0,
    withdrawals: 0,
    goodbyes: 0,
};

const EXCLUSIVE: Mode = Mode::Exclusive;
const SHARED: Mode = Mode::Shared;

/// Of a semaphore of another size.
const OF_TWO: Mode = Mode::Permits { take: 1, of: 2 };

const fn permits(take: u32) -> Mode {
    Mode::Permits { take, of: 3 }
}

/// One holds, and another waits.
const HOLDER_AND_WAITER: &[Move] =
    &[Move::Ask(0, 0), Move::Deliver(0), Move::Ask(1, 0), Move::Deliver(1)];

/// Every walk.
pub(super) static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "queues: three clients, two locks, shared and exclusive, one and both",
        clients: 3,
        asks: 2,
        shapes: &[
            Shape::of("a", &[(0, EXCLUSIVE)]),
            Shape::of("a shared", &[(0, SHARED)]),
            Shape::of("b", &[(1, EXCLUSIVE)]),
            Shape::of("both", &[(0, SHARED), (1, EXCLUSIVE)]),
        ],
        is_instant: true,
        budget: Budget { revokes: 1, withdrawals: 1, goodbyes: 1, ..NOTHING },
        before: &[],
    },
    Scenario {
        name: "owners: two clients, permits of two sizes and a plain lock, conversions, deadlocks",
        clients: 2,
        asks: 4,
        shapes: &[
            Shape::of("one", &[(0, permits(1))]).by(1),
            Shape::of("two", &[(0, permits(2))]).by(1),
            Shape::of("more", &[(0, permits(3))]).by(1).converting("one"),
            Shape::of("less", &[(0, permits(1))]).by(1).converting("two"),
            Shape::of("b", &[(1, EXCLUSIVE)]).by(1),
            Shape::of("b shared", &[(1, SHARED)]).by(2),
            Shape::of("both", &[(1, EXCLUSIVE), (0, permits(2))]).by(2),
            Shape::of("another size", &[(0, OF_TWO)]).by(2),
        ],
        is_instant: true,
        budget: Budget { revokes: 1, ..NOTHING },
        before: &[],
    },
    Scenario {
        name: "leases: two clients, one lock, time, broken and slow connections",
        clients: 2,
        asks: 2,
        shapes: &[Shape::of("a", &[(0, EXCLUSIVE)])],
        is_instant: false,
        budget: Budget {
            ticks: 4,
            keep_alives: 2,
            breaks: 2,
            slow: 1,
            revokes: 1,
            withdrawals: 1,
            ..NOTHING
        },
        before: HOLDER_AND_WAITER,
    },
    Scenario {
        name: "crashes: two clients, one lock, time, broken connections, reclaims",
        clients: 2,
        asks: 2,
        shapes: &[Shape::of("a", &[(0, EXCLUSIVE)])],
        is_instant: false,
        budget: Budget { ticks: 6, keep_alives: 1, breaks: 1, crashes: 2, ..NOTHING },
        before: HOLDER_AND_WAITER,
    },
    Scenario {
        name: "restarts: two clients, shared and exclusive, an orderly stop and a crash",
        clients: 2,
        asks: 2,
        shapes: &[
            Shape::of("a", &[(0, EXCLUSIVE)]),
            Shape { delay: TICK, at_least: TICK, ..Shape::of("a shared", &[(0, SHARED)]) },
            Shape::of("upgrade", &[(0, EXCLUSIVE)]).converting("a shared"),
        ],
        is_instant: false,
        budget: Budget { ticks: 4, breaks: 1, crashes: 1, stops: 1, ..NOTHING },
        before: HOLDER_AND_WAITER,
    },
    Scenario {
        name: "the newest: three clients, two locks, older waiters are superseded, a crash",
        clients: 3,
        asks: 2,
        shapes: &[
            Shape::of("a", &[(0, EXCLUSIVE)]).newest(),
            Shape::of("both", &[(0, EXCLUSIVE), (1, EXCLUSIVE)]).newest(),
            Shape::of("b", &[(1, EXCLUSIVE)]),
        ],
        is_instant: true,
        budget: Budget { breaks: 1, crashes: 1, ..NOTHING },
        before: HOLDER_AND_WAITER,
    },
    Scenario {
        name: "replays: two clients, one lock, time, revocations, crashes with a journal and without",
        clients: 2,
        asks: 2,
        shapes: &[Shape::of("a", &[(0, EXCLUSIVE)])],
        is_instant: false,
        budget: Budget { ticks: 4, revokes: 1, crashes: 1, replays: 2, ..NOTHING },
        before: HOLDER_AND_WAITER,
    },
];
