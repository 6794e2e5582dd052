//! Stories of holds that become others, and of what may come between.

use std::time::Duration;

use super::resume_tests::{account, asks, welcome_to};
use super::tests::{Story, ask, at, goodbye, grant, granted, id, lost, queued, rejected, released};
use super::*;
use crate::types::{FencingToken, LostReason, OwnerId, RejectionCode, RequestId, Seal};
use crate::wire::{self, ServerMessage, Standing, Wait};

const GRACE: Standing = Standing::Reopened { grace: Duration::from_millis(10_250) };

/// What converts request 1.
fn conversion(wait: Wait) -> Ask {
    Ask { converts: Some(RequestId(1)), wait, ..ask() }
}

/// How request 2 is said to convert request 1.
fn converts_1(wait: Wait) -> ClientMessage {
    match asks(2, wait, None) {
        ClientMessage::Request(wire::Request {
            request,
            owner,
            wait,
            progress,
            lock_delay_ms,
            note,
            ticket,
            claims,
            ..
        }) => {
            let converts = Some(RequestId(1));
            ClientMessage::Request(wire::Request {
                request,
                owner,
                converts,
                wait,
                progress,
                lock_delay_ms,
                note,
                ticket,
                claims,
            })
        }
        other => panic!("{other:?}"),
    }
}

fn reclaims_1() -> ClientMessage {
    let Ask { owner, lock_delay_ms, note, claims, .. } = ask();
    let (token, seal) = (7, Seal::new(7 << 64));
    ClientMessage::Reclaim(wire::Reclaim {
        owner,
        lock_delay_ms,
        note,
        ..wire::Reclaim::new(RequestId(1), FencingToken::new(token), seal, claims)
    })
}

fn replaced(request: u64) -> Effect {
    Effect::Replaced { request: id(request) }
}

fn refused(request: u64, reason: LostReason) -> Effect {
    Effect::Refused { request: id(request), refusal: Refusal::Lost(reason) }
}

/// The server's word that request 1 is not held.
fn lost_1(reason: LostReason) -> ServerMessage {
    ServerMessage::Lost { request: RequestId(1), token: FencingToken(7), reason }
}

impl Story {
    /// One that holds request 1 with token 7, and has asked to have it converted, by request 2.
    fn converting(wait: Wait) -> Self {
        let mut story = Self::returning_holder();
        assert_eq!(story.ask(conversion(wait)), 2);
        assert_eq!(story.sent(), [converts_1(wait)]);
        story
    }

    fn holds_only(&self, request: u64) {
        let held = self.core.requests.iter().map(|(number, r)| (*number, &r.state));
        let held: Vec<_> = held.collect();
        assert!(
            matches!(held[..], [(number, State::Held { .. })] if number == RequestId::new(request)),
            "{held:?}"
        );
        assert!(self.core.conversions.is_empty());
    }

    fn holds_nothing(&self) {
        assert!(self.core.requests.is_empty() && self.core.conversions.is_empty());
        assert_eq!(self.core.end(), None);
    }
}

#[test]
fn a_conversion_takes_the_place_of_what_it_converts() {
    let mut story = Story::converting(Wait::Forever);
    story.hear(queued(2, 1));
    story.told();
    story.hear(grant(2, 9));
    assert_eq!(story.told(), [replaced(1), granted(2, 9)]);
    story.holds_only(2);
    story.core.release(id(2), story.now);
    assert_eq!(
        story.sent(),
        [ClientMessage::Release { request: RequestId(2), token: FencingToken(9) }]
    );
    story.hear(ServerMessage::Released { request: RequestId(2) });
    story.holds_nothing();
}

#[test]
fn a_conversion_may_keep_the_token() {
    let mut story = Story::converting(Wait::Forever);
    story.hear(grant(2, 7));
    assert_eq!(story.told(), [replaced(1), granted(2, 7)]);
    // And what came of it can be converted again.
    story.ask(Ask { converts: Some(RequestId(2)), ..ask() });
    story.hear(grant(3, 10));
    assert_eq!(story.told(), [replaced(2), granted(3, 10)]);
    story.holds_only(3);
}

#[test]
fn a_conversion_that_is_refused_leaves_what_is_held() {
    for code in [RejectionCode::Busy, RejectionCode::TimedOut, RejectionCode::Deadlock] {
        let mut story = Story::converting(Wait::Forever);
        story.hear(rejected(2, code));
        let told = story.told();
        assert!(matches!(&told[..], [Effect::Refused { .. }]), "{told:?}");
        story.holds_only(1);
        // It may be tried again.
        story.ask(conversion(Wait::Forever));
        story.hear(grant(3, 9));
        assert_eq!(story.told(), [replaced(1), granted(3, 9)]);
    }
}

#[test]
fn only_what_is_held_can_be_converted_and_only_once_at_a_time() {
    let mut story = Story::converting(Wait::Forever);
    story.ask(conversion(Wait::Forever));
    story.ask(Ask { converts: Some(RequestId(77)), ..ask() });
    assert_eq!(story.told(), [refused(3, LostReason::Expired), refused(4, LostReason::Expired)]);
    assert_eq!(story.sent(), []);
    story.hear(grant(2, 9));
    story.told();
    story.ask(conversion(Wait::Forever));
    assert_eq!(story.told(), [refused(5, LostReason::Expired)]);
    story.holds_only(2);
}

#[test]
fn a_loss_gives_up_the_conversion_whatever_became_of_it() {
    let crossings = [
        vec![rejected(2, RejectionCode::NotHolder)],
        vec![grant(2, 9)],
        vec![
            grant(2, 9),
            ServerMessage::Lost {
                request: RequestId(2),
                token: FencingToken(9),
                reason: LostReason::from_number(1),
            },
        ],
    ];
    for crossing in crossings {
        let mut story = Story::converting(Wait::Forever);
        story.hear(lost_1(LostReason::Revoked));
        let reason = LostReason::Revoked;
        assert_eq!(story.told(), [lost(1, reason), refused(2, reason)]);
        assert_eq!(story.sent(), [ClientMessage::Cancel { request: RequestId(2) }]);
        for message in crossing {
            story.hear(message);
        }
        story.hear(ServerMessage::Cancelled { request: RequestId(2) });
        assert_eq!(story.told(), []);
        story.holds_nothing();
    }
}

#[test]
fn a_lapse_of_the_lease_ends_both() {
    let mut story = Story::converting(Wait::Forever);
    story.wait_until(6_666);
    story.hear(queued(2, 1));
    story.told();
    story.sent();
    story.wait_until(9_750);
    let reason = LostReason::Expired;
    assert_eq!(story.told(), [lost(1, reason), refused(2, reason)]);
    let sent = story.sent();
    assert!(
        sent.contains(&ClientMessage::Release { request: RequestId(1), token: FencingToken(7) })
    );
    assert!(sent.contains(&ClientMessage::Cancel { request: RequestId(2) }));
    // It had been granted before the server read that.
    story.hear(grant(2, 9));
    story.hear(ServerMessage::Released { request: RequestId(1) });
    story.hear(ServerMessage::Cancelled { request: RequestId(2) });
    assert_eq!(story.told(), []);
    story.holds_nothing();
}

#[test]
fn giving_up_both_leaves_nothing_whatever_crosses() {
    for crossing in [None, Some(grant(2, 9)), Some(rejected(2, RejectionCode::Busy))] {
        let mut story = Story::converting(Wait::Forever);
        story.core.cancel(id(2));
        story.core.release(id(1), story.now);
        let expected = [
            ClientMessage::Cancel { request: RequestId(2) },
            ClientMessage::Release { request: RequestId(1), token: FencingToken(7) },
        ];
        assert_eq!(story.sent(), expected);
        if let Some(message) = crossing {
            story.hear(message);
        }
        story.hear(ServerMessage::Cancelled { request: RequestId(2) });
        story.hear(ServerMessage::Released { request: RequestId(1) });
        assert_eq!(story.told(), [released(1, Ok(()))]);
        story.holds_nothing();
    }
}

#[test]
fn a_conversion_given_up_when_it_was_granted_already_frees_everything() {
    let mut story = Story::converting(Wait::Forever);
    story.hear(grant(2, 9));
    story.told();
    // Whoever waited for it was gone before it looked.
    story.core.cancel(id(2));
    story.core.release(id(1), story.now);
    assert_eq!(story.sent(), [ClientMessage::Cancel { request: RequestId(2) }]);
    story.hear(ServerMessage::Cancelled { request: RequestId(2) });
    story.holds_nothing();
}

#[test]
fn over_the_next_connection_both_are_told_and_the_answer_decides() {
    // It waits still.
    let mut story = Story::converting(Wait::Forever);
    let expected = [converts_1(Wait::Forever), account(2, &[(1, 7)], &[2])];
    assert_eq!(story.comes_back(3, 2, Standing::Resumed), expected);
    story.hear(grant(2, 9));
    assert_eq!(story.told_else(), [replaced(1), granted(2, 9)]);
    story.holds_only(2);
    // It had been granted, and the account lists what is over.
    let mut story = Story::converting(Wait::Forever);
    story.comes_back(3, 2, Standing::Resumed);
    story.hear(grant(2, 9));
    story.hear(lost_1(LostReason::NotReclaimed));
    assert_eq!(story.told_else(), [replaced(1), granted(2, 9)]);
    story.holds_only(2);
    // It had been refused.
    let mut story = Story::converting(Wait::Forever);
    story.comes_back(3, 2, Standing::Resumed);
    story.hear(rejected(2, RejectionCode::Deadlock));
    assert!(matches!(story.told_else()[..], [Effect::Refused { .. }]));
    story.holds_only(1);
}

#[test]
fn a_conversion_granted_and_lost_unheard_takes_what_it_converted_along() {
    let mut story = Story::converting(Wait::Forever);
    story.comes_back(3, 2, Standing::Resumed);
    let reason = LostReason::Revoked;
    story.hear(ServerMessage::Lost { request: RequestId(2), token: FencingToken(9), reason });
    story.hear(lost_1(LostReason::NotReclaimed));
    assert_eq!(story.told_else(), [refused(2, reason), lost(1, reason)]);
    story.holds_nothing();
}

#[test]
fn after_an_orderly_restart_a_conversion_that_was_granted_unheard_is_what_is_held() {
    let mut story = Story::converting(Wait::Forever);
    let expected = [reclaims_1(), converts_1(Wait::Forever), account(2, &[(1, 7)], &[2])];
    assert_eq!(story.comes_back(4, 2, Standing::Resumed), expected);
    let doubted = Effect::Doubted { request: id(1), until: at(9_750) };
    assert_eq!(story.told_else(), [doubted]);
    story.hear(ServerMessage::Released { request: RequestId(1) });
    assert_eq!(story.told(), []);
    story.hear(grant(2, 9));
    let confirmed = Effect::Confirmed { request: id(1) };
    assert_eq!(story.told(), [confirmed, replaced(1), granted(2, 9)]);
    story.hear(lost_1(LostReason::NotReclaimed));
    assert_eq!(story.told(), []);
    story.holds_only(2);
    assert!(story.core.doubts.is_empty());
}

#[test]
fn after_an_orderly_restart_what_was_converted_unheard_can_be_given_up() {
    let mut story = Story::converting(Wait::Forever);
    story.comes_back(4, 2, Standing::Resumed);
    story.core.cancel(id(2));
    story.core.cancel(id(1));
    // The answer to the reclaim has crossed the cancel, as the grant has.
    story.hear(ServerMessage::Released { request: RequestId(1) });
    story.hear(grant(2, 9));
    story.hear(ServerMessage::Cancelled { request: RequestId(2) });
    story.hear(ServerMessage::Cancelled { request: RequestId(1) });
    story.holds_nothing();
}

#[test]
fn after_a_crash_the_hold_is_reclaimed_and_then_converted() {
    let mut story = Story::converting(Wait::Forever);
    let expected = [reclaims_1(), converts_1(Wait::Forever)];
    assert_eq!(story.comes_back(4, 2, GRACE), expected);
    story.told();
    story.hear(grant(1, 7));
    assert_eq!(story.told(), [Effect::Confirmed { request: id(1) }]);
    story.hear(grant(2, 9));
    assert_eq!(story.told(), [replaced(1), granted(2, 9)]);
    // What it has become is what is reclaimed after the next.
    let sent = story.comes_back(5, 3, GRACE);
    assert!(
        matches!(
            sent[..],
            [ClientMessage::Reclaim(wire::Reclaim {
                request: RequestId(2),
                token: FencingToken(9),
                ..
            })]
        ),
        "{sent:?}"
    );
}

#[test]
fn after_a_crash_a_hold_that_is_not_reclaimed_is_not_converted() {
    let mut story = Story::converting(Wait::Forever);
    story.comes_back(4, 2, GRACE);
    story.told();
    story.hear(rejected(1, RejectionCode::NoGrace));
    let reason = LostReason::NotReclaimed;
    assert_eq!(story.told(), [lost(1, reason), refused(2, reason)]);
    assert_eq!(story.sent(), [ClientMessage::Cancel { request: RequestId(2) }]);
    story.hear(rejected(2, RejectionCode::NotHolder));
    story.hear(ServerMessage::Cancelled { request: RequestId(2) });
    story.holds_nothing();
}

#[test]
fn without_a_connection_nobody_can_know_whether_a_hold_was_converted() {
    // It may have been granted: then the account would free what we still believed in.
    for wait in [Wait::Never, Wait::millis(1_000)] {
        let mut story = Story::converting(wait);
        story.cut();
        // The first attempt fails, and the timeout passes.
        story.core.connection_lost(story.now);
        story.wait_until(2_000);
        assert_eq!(story.told(), []);
        story.connects();
        story.hear(super::resume_tests::welcome(3, 3, Standing::Resumed));
        let again = match wait {
            Wait::AtMost(_) => Wait::millis(1),
            other => other,
        };
        assert_eq!(story.sent(), [converts_1(again), account(2, &[(1, 7)], &[2])]);
        story.hear(rejected(2, RejectionCode::TimedOut));
        assert!(matches!(story.told_else()[..], [Effect::Refused { .. }]));
        story.holds_only(1);
    }
}

#[test]
fn a_crash_says_nothing_of_a_conversion_whose_time_is_over() {
    // It may have been granted in time, and have let in others, who come back as well: then what is
    // held is no more than what it asked for.
    let mut story = Story::converting(Wait::millis(1_000));
    story.cut();
    story.core.connection_lost(story.now);
    story.wait_until(2_000);
    story.connects();
    story.hear(super::resume_tests::welcome(3, 3, GRACE));
    assert_eq!(story.sent(), [reclaims_1(), converts_1(Wait::millis(1))]);
    story.hear(grant(1, 7));
    story.hear(grant(2, 7));
    assert_eq!(story.told_else().last(), Some(&granted(2, 7)));
    story.holds_only(2);
}

#[test]
fn without_a_connection_a_conversion_ends_with_the_lease() {
    let mut story = Story::converting(Wait::millis(1_000));
    story.cut();
    story.wait_until(9_750);
    let reason = LostReason::Expired;
    assert_eq!(story.told(), [lost(1, reason), refused(2, reason)]);
    story.holds_nothing();
    story.connects();
    story.hear(super::resume_tests::welcome(3, 2, Standing::Resumed));
    assert_eq!(story.sent(), [account(2, &[], &[])]);
}

#[test]
fn a_try_to_convert_that_was_never_sent_fails_when_the_server_cannot_be_reached() {
    let mut story = Story::returning_holder();
    story.cut();
    story.core.connection_lost(story.now);
    story.ask(conversion(Wait::Never));
    assert_eq!(story.told(), [Effect::Refused { request: id(2), refusal: Refusal::Away }]);
    story.holds_only(1);
}

#[test]
fn a_session_that_ends_ends_both_and_converts_nothing_in_the_next() {
    let mut story = Story::converting(Wait::Forever);
    story.hear(goodbye(GoodbyeCode::SessionExpired));
    let reason = LostReason::Expired;
    assert_eq!(story.told(), [lost(1, reason), refused(2, reason)]);
    story.connects();
    story.hear(welcome_to(50, 3, 1, Standing::Opened));
    assert_eq!(story.sent(), []);
    story.holds_nothing();
}

#[test]
fn a_client_at_its_end_tells_both() {
    let mut story = Story::converting(Wait::Forever);
    story.core.goodbye();
    let ended = Effect::Refused { request: id(2), refusal: Refusal::Ended };
    assert_eq!(story.told(), [lost(1, LostReason::Disconnected), ended]);
}

#[test]
fn an_owner_is_told_again_with_what_it_asks_and_holds() {
    let owner_of = |message: &ClientMessage| match message {
        ClientMessage::Request(wire::Request { owner, .. })
        | ClientMessage::Reclaim(wire::Reclaim { owner, .. }) => *owner,
        other => panic!("{other:?}"),
    };
    let mut story = Story::returning();
    story.ask(Ask { owner: OwnerId(4), ..ask() });
    story.ask(Ask { owner: OwnerId(5), ..ask() });
    story.hear(grant(1, 7));
    assert_eq!(story.sent().iter().map(owner_of).collect::<Vec<_>>(), [OwnerId(4), OwnerId(5)]);
    let sent = story.comes_back(4, 2, GRACE);
    assert_eq!(sent.iter().map(owner_of).collect::<Vec<_>>(), [OwnerId(4), OwnerId(5)]);
}
