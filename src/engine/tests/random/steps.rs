//! The steps of an arbitrary history: drawn at random, and shrunk when something fails (property
//! testing).

use std::time::Duration;

use proptest::prelude::*;

use super::{LOCKS, SESSIONS};
use crate::engine::*;
use crate::types::*;

/// What a run leaves to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// An orderly stop: everything, but for moments.
    Snapshot,
    /// A crash: nothing.
    Nothing,
    /// A crash: all that it was told.
    Journal,
}

/// Something that happens to a session, or to all.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Open {
        session: u64,
        ttl: u64,
        linger: Option<u64>,
    },
    Resume {
        session: u64,
    },
    Cut {
        session: u64,
    },
    Goodbye {
        session: u64,
    },
    KeepAlive {
        session: u64,
    },
    Request {
        session: u64,
        owner: u64,
        claims: Vec<(usize, Mode)>,
        wait: Wait,
        delay: u64,
        keep: u64,
        progress: Progress,
        supersede: Supersede,
    },
    /// A request of some time ago is to be converted.
    Convert {
        session: u64,
        back: u64,
        mode: Mode,
        wait: Wait,
    },
    /// What a client knows of, which may be all or nothing.
    Account {
        session: u64,
        knows: bool,
    },
    Repeat {
        session: u64,
        back: u64,
    },
    Release {
        session: u64,
        back: u64,
    },
    Cancel {
        session: u64,
        back: u64,
    },
    /// A request of some time ago is not allowed any more.
    Withdraw {
        session: u64,
        back: u64,
    },
    /// What waits is looked through from now on, or was.
    Withhold {
        begins: bool,
    },
    Revoke {
        lock: usize,
        token: u64,
    },
    Wait {
        ms: u64,
    },
    /// Time passes, and nobody looks.
    Stall {
        ms: u64,
    },
    Disk {
        works: bool,
    },
    Restart {
        left: Left,
    },
    Reclaim {
        session: u64,
        back: u64,
    },
    /// Somebody asks who keeps no connection.
    Hold {
        lock: usize,
        term: Option<u64>,
        wait: Wait,
    },
    /// What was asked for like that some time ago is to end at another moment.
    Prolong {
        back: u64,
        term: Option<u64>,
    },
    /// The same is given back.
    Drop {
        back: u64,
    },
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let session = 0..SESSIONS;
    let mode = prop_oneof![
        3 => Just(Mode::Exclusive),
        2 => Just(Mode::Shared),
        2 => (1..3u32, 3..5u32).prop_map(|(take, of)| Mode::Permits { take, of }),
    ];
    let wait = prop_oneof![
        3 => Just(Wait::Forever),
        1 => (0..5_000u64).prop_map(|ms| Wait::AtMost(Duration::from_millis(ms))),
        1 => Just(Wait::Never),
    ];
    let owner = prop_oneof![2 => Just(0u64), 3 => 1..3u64];
    let claims = prop::collection::hash_map(0..LOCKS, mode.clone(), 1..3)
        .prop_map(|claims| claims.into_iter().collect::<Vec<_>>());
    let progress = prop_oneof![Just(Progress::Told), Just(Progress::Untold)];
    let delay = prop_oneof![4 => Just(0u64), 1 => 1..3_000u64];
    let supersede = prop_oneof![3 => Just(Supersede::Nobody), 1 => Just(Supersede::Older)];
    let back = 0..4u64;
    let term = prop::option::weighted(0.8, 1..9_000u64);
    let unattended_wait = wait.clone();
    prop_oneof![
        4 => (session.clone(), 2..20u64, prop::option::of(0..4_000u64))
            .prop_map(|(session, ttl, linger)| Step::Open { session, ttl, linger }),
        2 => session.clone().prop_map(|session| Step::Resume { session }),
        1 => session.clone().prop_map(|session| Step::Cut { session }),
        1 => session.clone().prop_map(|session| Step::Goodbye { session }),
        4 => session.clone().prop_map(|session| Step::KeepAlive { session }),
        12 => (
            session.clone(), owner, claims, wait.clone(), delay.clone(), delay, progress, supersede
        ).prop_map(
            |(session, owner, claims, wait, delay, keep, progress, supersede)| Step::Request {
                session, owner, claims, wait, delay, keep, progress, supersede
            }
        ),
        4 => (session.clone(), back.clone(), mode.clone(), wait).prop_map(
            |(session, back, mode, wait)| Step::Convert { session, back, mode, wait }
        ),
        1 => (session.clone(), any::<bool>())
            .prop_map(|(session, knows)| Step::Account { session, knows }),
        1 => (session.clone(), back.clone())
            .prop_map(|(session, back)| Step::Repeat { session, back }),
        8 => (session.clone(), back.clone())
            .prop_map(|(session, back)| Step::Release { session, back }),
        2 => (session.clone(), back.clone())
            .prop_map(|(session, back)| Step::Cancel { session, back }),
        2 => (session, back).prop_map(|(session, back)| Step::Withdraw { session, back }),
        2 => any::<bool>().prop_map(|begins| Step::Withhold { begins }),
        1 => (0..LOCKS, 0..60u64).prop_map(|(lock, token)| Step::Revoke { lock, token }),
        3 => (0..4_000u64).prop_map(|ms| Step::Wait { ms }),
        1 => (0..9_000u64).prop_map(|ms| Step::Stall { ms }),
        1 => any::<bool>().prop_map(|works| Step::Disk { works }),
        2 => prop_oneof![
                1 => Just(Left::Snapshot),
                1 => Just(Left::Nothing),
                2 => Just(Left::Journal),
            ]
            .prop_map(|left| Step::Restart { left }),
        3 => (0..SESSIONS, 0..4u64).prop_map(|(session, back)| Step::Reclaim { session, back }),
        6 => (0..LOCKS, term.clone(), unattended_wait)
            .prop_map(|(lock, term, wait)| Step::Hold { lock, term, wait }),
        2 => (0..4u64, term).prop_map(|(back, term)| Step::Prolong { back, term }),
        2 => (0..4u64).prop_map(|back| Step::Drop { back }),
    ]
}
