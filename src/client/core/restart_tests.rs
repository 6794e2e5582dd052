//! Stories of a client that comes back to a coordinator which has restarted, or does not know it.

use std::time::Duration;

use super::resume_tests::{account, asks, waiting_at_most, welcome, welcome_to};
use super::tests::{Story, ask, at, goodbye, grant, granted, id, lost, queued, rejected, released};
use super::*;
use crate::types::{FencingToken, Generation, RejectionCode, RequestId, Seal, Secret, SessionId};
use crate::wire::{self, Attach, Extra, SealedTicket, ServerMessage, Standing, Wait};

const GRACE: Standing = Standing::Reopened { grace: Duration::from_millis(10_250) };

fn refused(code: RejectionCode) -> ServerMessage {
    let (rejection, message) = (code.number(), String::new());
    ServerMessage::Goodbye {
        code: GoodbyeCode::Refused,
        rejection: RejectionCode::from_number(rejection),
        message,
    }
}

fn doubted(request: u64, until: u64) -> Effect {
    Effect::Doubted { request: id(request), until: at(until) }
}

fn reclaim(request: u64, token: u64) -> ClientMessage {
    let Ask { lock_delay_ms, note, claims, .. } = ask();
    let seal = Seal::new(u128::from(token) << 64);
    ClientMessage::Reclaim(wire::Reclaim {
        lock_delay_ms,
        note,
        ..wire::Reclaim::new(RequestId::new(request), FencingToken::new(token), seal, claims)
    })
}

#[test]
fn after_an_orderly_restart_nothing_is_lost() {
    let mut story = Story::returning_holder();
    story.ask(ask());
    story.sent();
    story.hear(goodbye(GoodbyeCode::Draining));
    assert_eq!(story.told(), []);
    story.connects();
    story.hear(welcome(4, 2, Standing::Resumed));
    // It may be a crash, of which the news was lost. Reclaiming is right in any case.
    let expected = [reclaim(1, 7), asks(2, Wait::Forever, None), account(2, &[(1, 7)], &[2])];
    assert_eq!(story.sent(), expected);
    story.hear(grant(1, 7));
    let confirmed = Effect::Confirmed { request: id(1) };
    assert_eq!(story.told_else(), [doubted(1, 9_750), confirmed]);
}

#[test]
fn a_reclaim_says_what_is_left_of_the_time_for_which_the_locks_are_to_be_kept() {
    let mut story = Story::returning();
    story.ask(Ask { at_least_ms: 60_000, ..ask() });
    story.ask(Ask { at_least_ms: 1, ..ask() });
    let sent = story.sent();
    let is_first = |extras: &[Extra]| extras == [Extra::AtLeast { ms: 60_000 }];
    assert!(
        matches!(&sent[0], ClientMessage::RequestWith { extras, .. } if is_first(extras)),
        "{sent:?}"
    );
    story.hear(grant(1, 7));
    story.hear(grant(2, 8));
    let granted_at = story.now;
    story.wait_until(500);
    story.sent();
    for (epoch, generation) in [(4, 2), (5, 3)] {
        story.hear(goodbye(GoodbyeCode::Draining));
        story.connects();
        story.hear(welcome(epoch, generation, Standing::Resumed));
        let past = u64::try_from(story.now.since(granted_at).as_millis()).unwrap();
        assert!(past > 1);
        let sent = story.sent();
        let ClientMessage::ReclaimWith { reclaim: first, extras } = &sent[0] else {
            panic!("{sent:?}")
        };
        assert_eq!(
            (first.request, &extras[..]),
            (RequestId(1), &[Extra::AtLeast { ms: 60_000 - past }][..])
        );
        assert_eq!(sent[1], reclaim(2, 8), "nothing is left of that");
        // Granted it was when it was, not when that is confirmed.
        story.hear(grant(1, 7));
        story.hear(grant(2, 8));
    }
}

#[test]
fn after_a_crash_holds_are_reclaimed_and_requests_repeated_with_their_tickets() {
    let mut story = Story::returning_holder();
    story.ask(ask());
    story.hear(queued(2, 1));
    story.ask(ask());
    story.hear(grant(3, 8));
    story.ask(waiting_at_most(1_500));
    story.ask(ask());
    story.core.cancel(id(5));
    story.told();
    story.sent();
    story.now = at(1_000);
    let ticket = Some(SealedTicket::from_halves(3, 2));
    let expected = [
        reclaim(1, 7),
        asks(2, Wait::Forever, ticket),
        reclaim(3, 8),
        asks(4, Wait::millis(500), None),
    ];
    assert_eq!(story.comes_back(4, 2, GRACE), expected);
    assert_eq!(story.told_else(), [doubted(1, 9_750), doubted(3, 9_750)]);
    story.hear(grant(1, 7));
    story.hear(grant(3, 8));
    let confirmed = |request| Effect::Confirmed { request: id(request) };
    assert_eq!(story.told(), [confirmed(1), confirmed(3)]);
    // From here on they follow the lease, which counts from the latest Hello.
    story.hear(ServerMessage::Queued {
        request: RequestId(2),
        position: 1,
        ticket: SealedTicket::from_halves(3, 2),
    });
    story.told();
    story.wait_until(10_749);
    assert!(!story.told().contains(&lost(1, LostReason::Expired)));
}

#[test]
fn a_keep_alive_of_the_new_run_does_not_prolong_what_it_has_not_confirmed() {
    let mut story = Story::returning_holder();
    story.now = at(9_000);
    story.comes_back(4, 2, GRACE);
    assert_eq!(story.told_else(), [doubted(1, 9_750)]);
    assert_eq!(story.core.lease().unwrap().believed_until(), at(18_750));
    story.wait_until(9_749);
    assert_eq!(story.told(), []);
    story.wait_until(9_750);
    assert_eq!(story.told(), [lost(1, LostReason::Expired)]);
    // The answer comes too late, and the lock does not stay with nobody.
    assert_eq!(
        story.sent(),
        [ClientMessage::Release { request: RequestId(1), token: FencingToken(7) }]
    );
    story.hear(grant(1, 7));
    story.hear(ServerMessage::Released { request: RequestId(1) });
    assert_eq!(story.told(), []);
    assert!(story.core.requests.is_empty() && story.core.doubts.is_empty());
}

#[test]
fn what_is_not_believed_in_any_more_is_not_reclaimed() {
    let mut story = Story::returning_holder();
    story.cut();
    story.connects();
    // The process stood still, and no tick came.
    story.now = at(9_750);
    story.hear(welcome(4, 2, GRACE));
    assert_eq!(story.sent(), []);
    assert_eq!(story.told_else(), [lost(1, LostReason::Expired)]);
}

#[test]
fn a_reclaim_that_is_refused_is_a_loss_with_its_reason() {
    for code in [RejectionCode::NoGrace, RejectionCode::SealMismatch, RejectionCode::Unavailable] {
        let mut story = Story::returning_holder();
        story.comes_back(4, 2, GRACE);
        story.hear(rejected(1, code));
        assert_eq!(story.told_else()[1..], [lost(1, LostReason::NotReclaimed)]);
    }
    let mut story = Story::returning_holder();
    story.comes_back(4, 2, GRACE);
    let reason = LostReason::Conflict;
    story.hear(ServerMessage::Lost { request: RequestId(1), token: FencingToken(7), reason });
    assert_eq!(story.told_else()[1..], [lost(1, reason)]);
}

#[test]
fn a_release_during_the_reclaim_hears_what_became_of_it() {
    let answers = [
        (grant(1, 7), ServerMessage::Released { request: RequestId(1) }, Ok(())),
        (
            rejected(1, RejectionCode::NoGrace),
            rejected(1, RejectionCode::NotHolder),
            Err(Refusal::Lost(LostReason::NotReclaimed)),
        ),
    ];
    for (first, second, outcome) in answers {
        let mut story = Story::returning_holder();
        story.comes_back(4, 2, GRACE);
        story.told();
        story.core.release(id(1), story.now);
        assert_eq!(
            story.sent(),
            [ClientMessage::Release { request: RequestId(1), token: FencingToken(7) }]
        );
        story.hear(first);
        assert_eq!(story.told(), []);
        story.hear(second);
        assert_eq!(story.told(), [released(1, outcome)]);
    }
}

#[test]
fn what_was_given_back_before_a_crash_is_given_back() {
    let mut story = Story::returning_holder();
    story.core.release(id(1), story.now);
    story.ask(ask());
    story.core.cancel(id(2));
    story.sent();
    assert_eq!(story.comes_back(4, 2, GRACE), []);
    assert_eq!(story.told_else(), [released(1, Ok(()))]);
    assert!(story.core.requests.is_empty());
}

#[test]
fn a_reclaim_whose_answer_was_lost_is_repeated_and_nothing_belongs_to_nobody() {
    let mut story = Story::returning_holder();
    story.comes_back(4, 2, GRACE);
    story.told();
    // The same run, which may have got the reclaim or not.
    assert_eq!(
        story.comes_back(4, 3, Standing::Resumed),
        [reclaim(1, 7), account(1, &[(1, 7)], &[])]
    );
    story.hear(grant(1, 7));
    assert_eq!(story.told_else(), [Effect::Confirmed { request: id(1) }]);
    // And one that is lost meanwhile is not listed, and freed by that.
    let mut story = Story::returning_holder();
    story.comes_back(4, 2, GRACE);
    story.cut();
    story.wait_until(9_750);
    story.connects();
    story.hear(welcome(4, 3, Standing::Resumed));
    assert_eq!(story.sent(), [account(1, &[], &[])]);
}

#[test]
fn a_second_crash_does_not_prolong_what_the_first_left_in_doubt() {
    let mut story = Story::returning_holder();
    story.ask(ask());
    story.hear(grant(2, 8));
    story.now = at(5_000);
    story.comes_back(4, 2, GRACE);
    story.hear(grant(2, 8));
    story.told();
    assert_eq!(story.comes_back(5, 3, GRACE), [reclaim(1, 7), reclaim(2, 8)]);
    assert_eq!(story.told_else(), [doubted(2, 14_750)]);
    story.wait_until(9_750);
    assert_eq!(story.told_else(), [lost(1, LostReason::Expired)]);
}

#[test]
fn a_session_that_ended_loses_its_holds_and_keeps_its_requests() {
    let mut story = Story::returning_holder();
    story.ask(ask());
    story.hear(queued(2, 1));
    story.ask(ask());
    story.hear(grant(3, 8));
    story.core.release(id(3), story.now);
    story.told();
    story.cut();
    story.connects();
    story.hear(refused(RejectionCode::UnknownSession));
    assert_eq!(story.told(), [lost(1, LostReason::Expired), released(3, Ok(()))]);
    // Another session, at once: the server is there.
    let hello = story.connects();
    assert!(matches!(
        hello,
        ClientMessage::Hello(wire::Hello { attach: Attach::New, token_seen: FencingToken(8), .. })
    ));
    story.hear(welcome_to(50, 3, 1, Standing::Opened));
    // A new place in line, and no account of what this session never had.
    assert_eq!(story.sent(), [asks(2, Wait::Forever, None)]);
    story.told();
    story.hear(grant(2, 9));
    assert_eq!(story.told(), [granted(2, 9)]);
    // Grants of the session that is over are nobody's.
    story.hear(grant(1, 7));
    assert_eq!((story.told(), story.core.end()), (vec![], None));
    story.cut();
    let hello = story.connects();
    let resume = Attach::Resume {
        session: SessionId(50),
        secret: Secret::new(51),
        generation: Generation(2),
    };
    assert!(matches!(hello, ClientMessage::Hello(wire::Hello { attach, .. }) if attach == resume));
}

#[test]
fn a_session_that_expired_before_our_eyes_is_followed_by_another() {
    let mut story = Story::returning_holder();
    story.hear(goodbye(GoodbyeCode::SessionExpired));
    assert_eq!(story.told(), [lost(1, LostReason::Expired)]);
    assert!(matches!(
        story.connects(),
        ClientMessage::Hello(wire::Hello { attach: Attach::New, .. })
    ));
}

#[test]
fn a_stale_generation_is_raised_until_it_is_not() {
    let mut story = Story::returning_holder();
    story.cut();
    story.connects();
    story.hear(refused(RejectionCode::StaleGeneration));
    let ClientMessage::Hello(wire::Hello { attach: Attach::Resume { generation, .. }, .. }) =
        story.connects()
    else {
        panic!()
    };
    assert!(generation > Generation(16));
    assert_eq!(story.told(), []);
}

#[test]
fn what_cannot_get_better_is_the_end_and_the_rest_is_tried_again() {
    let ends = [
        (goodbye(GoodbyeCode::Superseded), LostReason::Disconnected),
        (goodbye(GoodbyeCode::ProtocolError), LostReason::Disconnected),
        (goodbye(GoodbyeCode::UnsupportedVersion), LostReason::Disconnected),
        (refused(RejectionCode::ImplausibleToken), LostReason::Refused),
        (refused(RejectionCode::InvalidTtl), LostReason::Refused),
    ];
    for (end, reason) in ends {
        let mut story = Story::returning_holder();
        story.cut();
        story.connects();
        story.hear(end);
        assert!(story.core.end().is_some());
        assert_eq!(story.told(), [lost(1, reason)]);
        assert_eq!(story.core.connection(), None);
    }
    let again = [
        goodbye(GoodbyeCode::Draining),
        goodbye(GoodbyeCode::TooManyConnections),
        goodbye(GoodbyeCode::SlowReader),
        goodbye(GoodbyeCode::HandshakeTimeout),
        refused(RejectionCode::Draining),
        refused(RejectionCode::TooManySessions),
    ];
    for goodbye in again {
        let mut story = Story::returning_holder();
        story.cut();
        story.connects();
        story.hear(goodbye);
        assert_eq!((story.told(), story.core.end()), (vec![], None));
        assert!(story.core.next_deadline().unwrap() <= at(10_000 / 6));
    }
}
