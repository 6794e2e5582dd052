//! Histories in which the engine once did not do what the reference did, one of each kind.

use super::super::steps::{Fault, LOCKS, Step};
use super::Pair;
use crate::engine::{Progress, Rejection, RequestEvent, Supersede};
use crate::types::{Mode, RejectionCode, Wait};

fn play(steps: impl IntoIterator<Item = Step>) -> Pair {
    let mut pair = Pair::new();
    for step in steps {
        pair.take(step);
    }
    pair
}

fn request(session: usize, owner: u64, wanted: &[(usize, Mode)]) -> Step {
    let (wait, progress, supersede) = (Wait::Forever, Progress::Untold, Supersede::Nobody);
    Step::Request { session, owner, wanted: wanted.to_vec(), wait, progress, supersede }
}

fn convert(session: usize, back: u64, mode: Mode) -> Step {
    let (wait, fault) = (Wait::Forever, Fault::Right);
    Step::Convert { session, back, modes: [mode; LOCKS], wait, fault }
}

fn permits(take: u32) -> Mode {
    Mode::Permits { take, of: 3 }
}

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const D: usize = 3;

/// How the latest request of a session was refused, if it was.
fn refusal(pair: &Pair, session: usize) -> Option<RejectionCode> {
    let name = (pair.players[session].id, pair.model.latest(pair.players[session].id));
    match pair.model.find_over(name)?.answer {
        RequestEvent::Rejected(Rejection::AsBefore(code)) => Some(code),
        _ => None,
    }
}

#[test]
fn a_conversion_that_goes_before_its_own_owner_is_a_deadlock() {
    let pair = play([
        request(1, 1, &[(A, Mode::Shared)]),
        request(2, 0, &[(B, Mode::Exclusive)]),
        request(1, 1, &[(A, Mode::Shared), (B, Mode::Exclusive)]),
        convert(1, 1, Mode::Exclusive),
    ]);
    assert_eq!(refusal(&pair, 1), Some(RejectionCode::Deadlock));
}

#[test]
fn a_conversion_that_goes_before_those_it_waits_for_is_a_deadlock() {
    let pair = play([
        request(1, 1, &[(A, Mode::Shared)]),
        request(2, 1, &[(B, Mode::Exclusive)]),
        request(3, 0, &[(D, Mode::Exclusive)]),
        request(2, 1, &[(A, Mode::Shared), (D, Mode::Exclusive)]),
        request(1, 1, &[(B, Mode::Exclusive)]),
        convert(1, 1, Mode::Exclusive),
    ]);
    assert_eq!(refusal(&pair, 1), Some(RejectionCode::Deadlock));
}

#[test]
fn whoever_waits_keeps_from_itself_what_its_owner_holds() {
    let pair = play([
        request(2, 1, &[(C, permits(1))]),
        request(1, 0, &[(A, Mode::Exclusive)]),
        request(4, 2, &[(C, permits(2))]),
        request(4, 2, &[(A, Mode::Exclusive), (C, permits(1))]),
        request(2, 1, &[(C, permits(1))]),
    ]);
    assert_eq!(refusal(&pair, 2), Some(RejectionCode::Deadlock));
}

#[test]
fn whoever_waits_for_either_of_two_waits_for_ever_if_both_wait_for_it() {
    let pair = play([
        request(1, 1, &[(C, permits(1))]),
        request(2, 1, &[(C, permits(1))]),
        request(3, 0, &[(D, Mode::Exclusive)]),
        request(4, 0, &[(C, permits(2)), (D, Mode::Exclusive)]),
        request(2, 1, &[(D, Mode::Exclusive)]),
        request(1, 1, &[(D, Mode::Exclusive)]),
    ]);
    assert_eq!(refusal(&pair, 1), Some(RejectionCode::Deadlock));
}

#[test]
fn less_of_what_is_held_is_granted_at_once_whoever_waits_for_more() {
    let pair = play([
        request(1, 0, &[(C, permits(1))]),
        request(2, 0, &[(C, permits(1))]),
        convert(1, 0, permits(3)),
        convert(2, 0, permits(1)),
    ]);
    assert_eq!(refusal(&pair, 2), None);
}

#[test]
fn what_is_in_the_way_of_a_conversion_is_not_what_it_converts() {
    let pair = play([
        request(1, 2, &[(C, permits(1)), (D, Mode::Exclusive)]),
        request(1, 2, &[(C, permits(1))]),
        convert(1, 0, permits(3)),
    ]);
    assert_eq!(refusal(&pair, 1), Some(RejectionCode::AlreadyHeld));
}

#[test]
fn a_conversion_hears_that_it_is_next_when_it_comes() {
    play([
        request(1, 0, &[(C, permits(1))]),
        request(2, 0, &[(C, permits(1))]),
        request(3, 0, &[(C, permits(3))]),
        request(4, 0, &[(C, permits(3))]),
        Step::Cancel { session: 3, back: 1 },
        convert(1, 0, permits(3)),
    ]);
}
