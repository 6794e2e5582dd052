//! The steps of a history, and the making of arbitrary ones.

use std::time::Duration;

use proptest::prelude::*;

use crate::engine::{Progress, Supersede};
use crate::types::{Claim, Claims, LockName, Mode, Wait};

/// So many sessions there are at a time.
pub(super) const SESSIONS: usize = 6;
/// So many locks there are.
pub(super) const LOCKS: usize = 4;

/// A claim: the number of a lock, and of a mode.
pub(super) type Wanted = Vec<(usize, Mode)>;

/// Something that one of the sessions does, or all of them suffer. Requests are meant by how many of
/// their session came after them.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Request {
        session: usize,
        owner: u64,
        wanted: Wanted,
        wait: Wait,
        progress: Progress,
        supersede: Supersede,
    },
    /// A request of some time ago is to be converted: its claims, in these modes.
    Convert {
        session: usize,
        back: u64,
        modes: [Mode; LOCKS],
        wait: Wait,
        fault: Fault,
    },
    Repeat {
        session: usize,
        back: u64,
        fault: Fault,
    },
    Release {
        session: usize,
        back: u64,
        fault: Fault,
    },
    /// `back` 0: before it came.
    Cancel {
        session: usize,
        back: u64,
    },
    /// It is not allowed any more, if it waits.
    Withdraw {
        session: usize,
        back: u64,
    },
    /// Of the holders of a lock, that one.
    Revoke {
        lock: usize,
        holder: usize,
    },
    Goodbye {
        session: usize,
    },
    /// A connection breaks; or there is another, if it broke.
    CutOrResume {
        session: usize,
    },
    Pass {
        ms: u64,
    },
}

/// Whether what is said is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Right,
    /// Another owner, token or mode.
    Wrong,
    /// A claim too many.
    TooMuch,
}

/// Two plain locks, a semaphore of three, seldom of four, and one lock that is used as everything. A mode is chosen
/// by a number.
fn mode(lock: usize, choice: u32) -> Mode {
    match (lock, choice % 8) {
        (2, 7) => Mode::Permits { take: 2, of: 4 },
        (2, choice) => Mode::Permits { take: choice % 3 + 1, of: 3 },
        (3, 6) => Mode::Permits { take: 1, of: 2 },
        (3, 7) => Mode::Permits { take: 2, of: 3 },
        (_, 0..4) => Mode::Exclusive,
        (_, _) => Mode::Shared,
    }
}

/// A mode for each lock, all by one number: many small choices would cost more than what they lead to.
fn modes() -> impl Strategy<Value = [Mode; LOCKS]> {
    let digit = |choices: u32, lock| mode(lock, choices >> (3 * lock));
    any::<u16>().prop_map(move |choices| [0, 1, 2, 3].map(|lock| digit(choices.into(), lock)))
}

/// One lock or two, seldom more, in any order.
fn wanted() -> impl Strategy<Value = Wanted> {
    const ROWS: [&[usize]; 18] = [
        &[0],
        &[1],
        &[2],
        &[3],
        &[0],
        &[1],
        &[2],
        &[0, 1],
        &[1, 0],
        &[0, 2],
        &[2, 1],
        &[3, 1],
        &[0, 3],
        &[1, 2],
        &[3, 2],
        &[2, 0, 1],
        &[1, 3, 0],
        &[0, 1, 2, 3],
    ];
    let locks = (0..ROWS.len()).prop_map(|choice| ROWS[choice]);
    (locks, modes()).prop_map(|(locks, modes)| locks.iter().map(|l| (*l, modes[*l])).collect())
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let session = 0..SESSIONS;
    let owner = prop_oneof![2 => Just(0u64), 5 => 1..=3u64];
    let wait = prop_oneof![
        6 => Just(Wait::Forever),
        1 => (1..3_000u64).prop_map(|ms| Wait::AtMost(Duration::from_millis(ms))),
        1 => Just(Wait::Never),
    ];
    let fault = prop_oneof![
        12 => Just(Fault::Right),
        1 => Just(Fault::Wrong),
        1 => Just(Fault::TooMuch),
    ];
    let progress = prop_oneof![Just(Progress::Told), Just(Progress::Untold)];
    let supersede = prop_oneof![4 => Just(Supersede::Nobody), 1 => Just(Supersede::Older)];
    let back = 0..5u64;
    prop_oneof![
        24 => (session.clone(), owner, wanted(), wait.clone(), progress, supersede).prop_map(
            |(session, owner, wanted, wait, progress, supersede)| Step::Request {
                session, owner, wanted, wait, progress, supersede
            }
        ),
        8 => (session.clone(), back.clone(), modes(), wait, fault.clone()).prop_map(
            |(session, back, modes, wait, fault)| Step::Convert {
                session, back, modes, wait, fault
            }
        ),
        2 => (session.clone(), back.clone(), fault.clone())
            .prop_map(|(session, back, fault)| Step::Repeat { session, back, fault }),
        8 => (session.clone(), back.clone(), fault)
            .prop_map(|(session, back, fault)| Step::Release { session, back, fault }),
        3 => (session.clone(), back.clone())
            .prop_map(|(session, back)| Step::Cancel { session, back }),
        2 => (session.clone(), back)
            .prop_map(|(session, back)| Step::Withdraw { session, back }),
        1 => (0..LOCKS, 0..3usize).prop_map(|(lock, holder)| Step::Revoke { lock, holder }),
        1 => session.clone().prop_map(|session| Step::Goodbye { session }),
        3 => session.prop_map(|session| Step::CutOrResume { session }),
        2 => (1..2_000u64).prop_map(|ms| Step::Pass { ms }),
    ]
}

pub(super) fn name(lock: usize) -> LockName {
    LockName::new(["a", "b", "c", "d"][lock]).unwrap()
}

pub(super) fn claims(wanted: &Wanted) -> Claims {
    let claim = |(lock, mode): &(usize, Mode)| Claim { name: name(*lock), mode: *mode };
    Claims::new(wanted.iter().map(claim)).unwrap()
}
