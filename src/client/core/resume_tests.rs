//! Stories of a client whose connections end, and of what it finds when it comes back.

use std::time::Duration;

use super::tests::{Story, ask, at, goodbye, grant, granted, id, lost, queued, rejected, released};
use super::*;
use crate::client::lease;
use crate::types::RejectionCode;
use crate::wire::{Attach, Held, PROTOCOL, ServerMessage, Standing, Ticket, Wait};

const GRACE: Standing = Standing::Reopened { grace_ms: 10_250 };

fn reconnect() -> Option<Reconnect> {
    Some(Reconnect { attempt_max: Duration::from_secs(5), seed: 7 })
}

fn welcome(epoch: u64, generation: u64, standing: Standing) -> ServerMessage {
    welcome_to(42, epoch, generation, standing)
}

fn welcome_to(session: u128, epoch: u64, generation: u64, standing: Standing) -> ServerMessage {
    ServerMessage::Welcome {
        protocol: PROTOCOL,
        server: "test".to_owned(),
        epoch,
        session,
        secret: session + 1,
        generation,
        ttl_ms: 10_000,
        standing,
    }
}

fn refused(code: RejectionCode) -> ServerMessage {
    let (rejection, message) = (code.number(), String::new());
    ServerMessage::Goodbye { code: GoodbyeCode::Refused.number(), rejection, message }
}

fn away(request: u64) -> Effect {
    Effect::Refused { request: id(request), refusal: Refusal::Away }
}

fn waiting_at_most(ms: u64) -> Ask {
    Ask { wait: Wait::Timeout { ms }, ..ask() }
}

fn trying() -> Ask {
    Ask { wait: Wait::Never, ..ask() }
}

fn doubted(request: u64, until: u64) -> Effect {
    Effect::Doubted { request: id(request), until: at(until) }
}

fn account(to: u64, held: &[(u64, u64)], waiting: &[u64]) -> ClientMessage {
    let held = held.iter().map(|&(request, token)| Held { request, token }).collect();
    ClientMessage::Account { from: 1, to, held, waiting: waiting.to_vec() }
}

fn reclaim(request: u64, token: u64) -> ClientMessage {
    let Ask { lock_delay_ms, note, claims, .. } = ask();
    let seal = u128::from(token) << 64;
    ClientMessage::Reclaim { request, token, seal, lock_delay_ms, note, claims }
}

fn asks(request: u64, wait: Wait, ticket: Option<Ticket>) -> ClientMessage {
    let Ask { progress, lock_delay_ms, note, claims, .. } = ask();
    ClientMessage::Request {
        request,
        owner: 0,
        wait,
        progress,
        lock_delay_ms,
        note,
        ticket,
        claims,
    }
}

impl Story {
    /// A client that comes back, welcomed at 0.
    fn returning() -> Self {
        Self::of(Introduction::default())
    }

    fn of(introduction: Introduction) -> Self {
        let mut story = Self { core: Core::new(introduction, reconnect(), at(0)), now: at(0) };
        story.sent();
        story.hear(welcome(3, 1, Standing::Opened));
        story.told();
        story
    }

    /// One that holds request 1 with token 7.
    fn returning_holder() -> Self {
        let mut story = Self::returning();
        story.ask(ask());
        story.hear(grant(1, 7));
        assert_eq!(story.told(), [granted(1, 7)]);
        story.sent();
        story
    }

    fn ask(&mut self, ask: Ask) -> u64 {
        self.core.request(ask, self.now).number()
    }

    /// The connection is cut.
    fn cut(&mut self) {
        self.core.connection_lost(self.now);
        assert!(!self.core.is_open());
        assert_eq!(self.sent(), []);
    }

    /// The next connection is made when it is wanted; gives the Hello.
    fn connects(&mut self) -> ClientMessage {
        while self.core.connection().is_none() {
            self.now = self.core.next_deadline().expect("it comes back");
            self.core.tick(self.now);
        }
        let connection = self.core.connection();
        self.core.connected(self.now);
        assert_eq!(self.core.connection(), connection);
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "nothing before the Welcome");
        sent.remove(0)
    }

    /// The connection is cut, and the next is welcomed like this; gives what is said over it.
    fn comes_back(
        &mut self,
        epoch: u64,
        generation: u64,
        standing: Standing,
    ) -> Vec<ClientMessage> {
        self.cut();
        self.connects();
        self.hear(welcome(epoch, generation, standing));
        assert!(self.core.is_open());
        self.sent()
    }

    /// What was told, but for the Welcome.
    fn told_else(&mut self) -> Vec<Effect> {
        let mut told = self.told();
        told.retain(|effect| !matches!(effect, Effect::Welcomed(_)));
        told
    }
}

#[test]
fn a_holder_that_comes_back_in_time_notices_nothing() {
    let mut story = Story::returning_holder();
    story.wait_until(2_000);
    assert_eq!(story.comes_back(3, 2, Standing::Resumed), [account(1, &[(1, 7)], &[])]);
    assert_eq!(story.told_else(), []);
    assert_eq!(story.core.lease().unwrap().believed_until(), at(2_000 + 9_750));
}

#[test]
fn the_hello_resumes_with_the_secret_and_tells_the_latest_epoch_and_token() {
    let mut story = Story::returning_holder();
    story.cut();
    let ClientMessage::Hello { attach, ttl_ms, epoch_seen, token_seen, .. } = story.connects()
    else {
        panic!()
    };
    assert_eq!(attach, Attach::Resume { session: 42, secret: 43, generation: 2 });
    // The server's default may be another in its next run.
    assert_eq!((ttl_ms, epoch_seen, token_seen), (10_000, 3, 7));
}

#[test]
fn each_hello_has_a_higher_generation_so_that_a_delayed_one_is_known() {
    let mut story = Story::returning_holder();
    story.cut();
    for expected in 2..6 {
        let ClientMessage::Hello { attach: Attach::Resume { generation, .. }, .. } =
            story.connects()
        else {
            panic!()
        };
        assert_eq!(generation, expected);
        story.cut();
    }
    story.connects();
    story.hear(welcome(3, 6, Standing::Resumed));
    assert_eq!(story.told_else(), []);
}

#[test]
fn what_is_unanswered_is_repeated_in_order_and_then_accounted_for() {
    let mut story = Story::returning_holder();
    for _ in 2..=5 {
        story.ask(ask());
    }
    story.hear(grant(3, 8));
    story.hear(queued(4, 1));
    story.core.release(id(3), story.now);
    story.core.cancel(id(5));
    story.told();
    story.sent();
    let ticket = Some(Ticket { epoch: 3, arrival: 4 });
    let expected = [
        asks(2, Wait::Forever, None),
        ClientMessage::Release { request: 3, token: 8 },
        asks(4, Wait::Forever, ticket),
        // Without 5: what is cancelled is not listed, and freed by that.
        account(5, &[(1, 7)], &[2, 4]),
    ];
    assert_eq!(story.comes_back(3, 2, Standing::Resumed), expected);
    // Every answer that may be one twice.
    for _ in 0..2 {
        story.hear(grant(2, 9));
        story.hear(ServerMessage::Released { request: 3 });
        story.hear(rejected(4, RejectionCode::Draining));
        story.hear(ServerMessage::Cancelled { request: 5 });
    }
    let told = story.told_else();
    assert_eq!(told[..2], [granted(2, 9), released(3, Ok(()))]);
    assert!(matches!(told[2..], [Effect::Refused { .. }]));
    assert_eq!(story.core.end(), None);
}

#[test]
fn a_long_account_comes_in_parts_that_cover_every_id() {
    let mut story = Story::returning();
    for request in 1..=5_000 {
        story.ask(ask());
        story.hear(grant(request, request));
    }
    for request in [1, 2_500, 5_000] {
        story.core.release(id(request), story.now);
        story.hear(ServerMessage::Released { request });
    }
    story.told();
    story.sent();
    let mut next = 1;
    let mut listed = 0;
    for part in story.comes_back(3, 2, Standing::Resumed) {
        let ClientMessage::Account { from, to, held, .. } = part else { panic!() };
        assert_eq!(from, next);
        assert!(held.len() <= 2_000 && held.iter().all(|h| (from..=to).contains(&h.request)));
        listed += held.len();
        next = to + 1;
    }
    assert_eq!((next, listed), (5_001, 4_997));
}

#[test]
fn a_grant_whose_request_was_given_up_meanwhile_is_ignored_and_freed_by_the_account() {
    let mut story = Story::returning();
    story.ask(ask());
    story.cut();
    story.core.cancel(id(1));
    story.connects();
    story.hear(welcome(3, 2, Standing::Resumed));
    assert_eq!(story.sent(), [account(1, &[], &[])]);
    story.hear(grant(1, 7));
    assert_eq!(story.told_else(), []);
    assert_eq!(story.core.end(), None);
}

#[test]
fn what_is_asked_while_away_is_kept_and_said_later() {
    let mut story = Story::returning_holder();
    story.cut();
    story.ask(ask());
    story.ask(waiting_at_most(5_000));
    story.ask(ask());
    story.core.cancel(id(4));
    story.core.release(id(1), story.now);
    assert_eq!(story.sent(), []);
    story.connects();
    story.now = at(1_000);
    story.hear(welcome(3, 2, Standing::Resumed));
    let expected = [
        ClientMessage::Release { request: 1, token: 7 },
        asks(2, Wait::Forever, None),
        asks(3, Wait::Timeout { ms: 4_000 }, None),
        account(4, &[], &[2, 3]),
    ];
    assert_eq!(story.sent(), expected);
}

#[test]
fn a_timeout_goes_on_while_away_and_ends_the_wait_there() {
    let mut story = Story::returning();
    story.ask(waiting_at_most(3_000));
    story.ask(ask());
    story.now = at(1_000);
    story.cut();
    story.connects();
    story.cut();
    story.wait_until(2_999);
    assert_eq!(story.told(), []);
    story.wait_until(3_000);
    assert_eq!(story.told(), [away(1)]);
    assert_eq!(story.core.trouble(), &End::Disconnected);
}

#[test]
fn a_try_survives_a_connection_that_is_made_again_at_once() {
    let mut story = Story::returning();
    story.ask(trying());
    let expected = [asks(1, Wait::Never, None), account(1, &[], &[1])];
    story.sent();
    assert_eq!(story.comes_back(3, 2, Standing::Resumed), expected);
    assert_eq!(story.told_else(), []);
}

#[test]
fn a_try_fails_when_the_server_cannot_be_reached() {
    let mut story = Story::returning();
    story.ask(trying());
    story.ask(ask());
    story.cut();
    // The first attempt.
    story.core.connection_lost(story.now);
    assert_eq!(story.told(), [away(1)]);
    story.ask(trying());
    assert_eq!(story.told(), [away(3)]);
}

#[test]
fn a_hold_is_lost_by_our_own_clock_while_away_and_given_back_by_the_account() {
    let mut story = Story::returning_holder();
    story.now = at(4_000);
    story.cut();
    story.connects();
    story.wait_until(7_000);
    assert_eq!(story.told(), []);
    story.wait_until(9_750);
    assert_eq!(story.told(), [lost(1, LostReason::Expired)]);
    story.connects();
    // The server stood still, and so it kept the session.
    story.hear(welcome(3, 3, Standing::Resumed));
    assert_eq!(story.sent(), [account(1, &[], &[])]);
    story.hear(grant(1, 7));
    assert_eq!(story.told_else(), [], "nothing revives what was lost");
}

#[test]
fn a_release_is_not_waited_for_longer_than_the_lease() {
    let mut story = Story::returning_holder();
    story.core.release(id(1), story.now);
    story.cut();
    story.wait_until(9_750);
    assert_eq!(story.told(), [released(1, Err(Refusal::Away))]);
}

#[test]
fn a_release_repeated_and_forgotten_was_done() {
    let mut story = Story::returning_holder();
    story.core.release(id(1), story.now);
    story.sent();
    story.comes_back(3, 2, Standing::Resumed);
    story.hear(rejected(1, RejectionCode::NotHolder));
    assert_eq!(story.told_else(), [released(1, Ok(()))]);
}

#[test]
fn a_request_repeated_and_forgotten_has_timed_out_or_may_be_made_again() {
    let mut story = Story::returning();
    story.ask(ask());
    story.ask(waiting_at_most(1_000));
    story.comes_back(3, 2, Standing::Resumed);
    story.now = at(1_000);
    story.hear(rejected(1, RejectionCode::RequestForgotten));
    story.hear(rejected(2, RejectionCode::RequestForgotten));
    let told = story.told_else();
    assert_eq!(told[0], Effect::Refused { request: id(1), refusal: Refusal::Forgotten });
    assert!(matches!(&told[1], Effect::Refused { refusal: Refusal::Rejected(rejection), .. }
        if rejection.code == RejectionCode::TimedOut));
}

#[test]
fn a_lock_taken_away_while_we_were_away_is_lost_when_we_are_back() {
    let mut story = Story::returning_holder();
    story.ask(ask());
    story.comes_back(3, 2, Standing::Resumed);
    let reason = LostReason::Revoked;
    story.hear(ServerMessage::Lost { request: 1, token: 7, reason: reason.number() });
    // This one was granted and taken away without our ever hearing of it.
    story.hear(ServerMessage::Lost { request: 2, token: 8, reason: reason.number() });
    let refusal = Refusal::Lost(reason);
    assert_eq!(story.told_else(), [lost(1, reason), Effect::Refused { request: id(2), refusal }]);
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
    let ticket = Some(Ticket { epoch: 3, arrival: 2 });
    let expected = [
        reclaim(1, 7),
        asks(2, Wait::Forever, ticket),
        reclaim(3, 8),
        asks(4, Wait::Timeout { ms: 500 }, None),
    ];
    assert_eq!(story.comes_back(4, 2, GRACE), expected);
    assert_eq!(story.told_else(), [doubted(1, 9_750), doubted(3, 9_750)]);
    story.hear(grant(1, 7));
    story.hear(grant(3, 8));
    let confirmed = |request| Effect::Confirmed { request: id(request) };
    assert_eq!(story.told(), [confirmed(1), confirmed(3)]);
    // From here on they follow the lease, which counts from the latest Hello.
    story.hear(ServerMessage::Queued {
        request: 2,
        position: 1,
        ticket: Ticket { epoch: 3, arrival: 2 },
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
    assert_eq!(story.sent(), [ClientMessage::Release { request: 1, token: 7 }]);
    story.hear(grant(1, 7));
    story.hear(ServerMessage::Released { request: 1 });
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
    story.hear(ServerMessage::Lost { request: 1, token: 7, reason: reason.number() });
    assert_eq!(story.told_else()[1..], [lost(1, reason)]);
}

#[test]
fn a_release_during_the_reclaim_hears_what_became_of_it() {
    let answers = [
        (grant(1, 7), ServerMessage::Released { request: 1 }, Ok(())),
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
        assert_eq!(story.sent(), [ClientMessage::Release { request: 1, token: 7 }]);
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
    assert!(matches!(hello, ClientMessage::Hello { attach: Attach::New, token_seen: 8, .. }));
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
    let resume = Attach::Resume { session: 50, secret: 51, generation: 2 };
    assert!(matches!(hello, ClientMessage::Hello { attach, .. } if attach == resume));
}

#[test]
fn a_session_that_expired_before_our_eyes_is_followed_by_another() {
    let mut story = Story::returning_holder();
    story.hear(goodbye(GoodbyeCode::SessionExpired));
    assert_eq!(story.told(), [lost(1, LostReason::Expired)]);
    assert!(matches!(story.connects(), ClientMessage::Hello { attach: Attach::New, .. }));
}

#[test]
fn a_stale_generation_is_raised_until_it_is_not() {
    let mut story = Story::returning_holder();
    story.cut();
    story.connects();
    story.hear(refused(RejectionCode::StaleGeneration));
    let ClientMessage::Hello { attach: Attach::Resume { generation, .. }, .. } = story.connects()
    else {
        panic!()
    };
    assert!(generation > 16);
    assert_eq!(story.told(), []);
}

#[test]
fn what_cannot_get_better_is_the_end_and_the_rest_is_tried_again() {
    let ends = [
        goodbye(GoodbyeCode::Superseded),
        goodbye(GoodbyeCode::ProtocolError),
        goodbye(GoodbyeCode::UnsupportedVersion),
        refused(RejectionCode::ImplausibleToken),
        refused(RejectionCode::InvalidTtl),
    ];
    for end in ends {
        let mut story = Story::returning_holder();
        story.cut();
        story.connects();
        story.hear(end);
        assert!(story.core.end().is_some());
        assert_eq!(story.told(), [lost(1, LostReason::Disconnected)]);
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

#[test]
fn a_connection_without_a_word_is_replaced_while_the_lease_lasts() {
    let mut story = Story::returning_holder();
    story.wait_until(6_666);
    assert!(story.core.is_open());
    story.wait_until(6_667);
    assert!(!story.core.is_open());
    story.sent();
    story.connects();
    // Nor does it answer the Hello: the next attempt comes in time, too.
    story.wait_until(9_700);
    assert_eq!(story.told(), []);
    story.core.connection().map(|_| story.core.connected(story.now));
    story.sent();
    story.hear(welcome(3, 2, Standing::Resumed));
    assert_eq!(story.told_else(), []);
}

#[test]
fn attempts_that_take_too_long_are_given_up_for_others() {
    let mut story = Story::returning();
    story.cut();
    let mut connections = vec![story.core.connection()];
    story.now = at(3_333);
    story.wait_until(20_000);
    while connections.len() < 4 {
        let next = story.core.next_deadline().unwrap();
        story.now = next;
        story.core.tick(next);
        if story.core.connection().is_some() && !connections.contains(&story.core.connection()) {
            connections.push(story.core.connection());
        }
    }
    assert!(story.core.end().is_none());
}

#[test]
fn a_connection_that_is_welcomed_and_cut_is_not_made_again_without_a_pause() {
    let mut story = Story::returning();
    story.comes_back(3, 2, Standing::Resumed);
    story.core.connection_lost(story.now);
    assert_eq!(story.core.connection(), None);
    // Until it has proved itself.
    story.connects();
    story.hear(welcome(3, 3, Standing::Resumed));
    story.wait_until(2_600);
    story.hear(ServerMessage::KeptAlive { sequence: 1 });
    story.core.connection_lost(story.now);
    assert!(story.core.connection().is_some());
}

#[test]
fn a_client_without_linger_loses_its_holds_with_its_connection() {
    let mut story = Story::of(Introduction { linger_ms: Some(0), ..Introduction::default() });
    story.ask(ask());
    story.hear(grant(1, 7));
    story.told();
    story.cut();
    assert_eq!(story.told(), [lost(1, LostReason::Expired)]);
    // A short one, and it comes back in time.
    let mut story = Story::of(Introduction { linger_ms: Some(2_000), ..Introduction::default() });
    story.ask(ask());
    story.hear(grant(1, 7));
    story.told();
    story.sent();
    assert_eq!(story.comes_back(3, 2, Standing::Resumed), [account(1, &[(1, 7)], &[])]);
    assert_eq!(story.told_else(), []);
    assert_eq!(story.core.lease().unwrap().believed_until(), at(9_750));
}

#[test]
fn a_grant_in_doubt_is_asked_for_again() {
    let mut story = Story::returning();
    story.ask(ask());
    story.now = at(9_800);
    story.core.receive(grant(1, 7), story.now);
    assert_eq!(story.told(), []);
    story.sent();
    assert_eq!(
        story.comes_back(3, 2, Standing::Resumed),
        [asks(1, Wait::Forever, None), account(1, &[], &[1])]
    );
    story.hear(grant(1, 7));
    assert_eq!(story.told_else(), [granted(1, 7)]);
}

#[test]
fn a_goodbye_while_away_is_the_end_and_says_nothing() {
    let mut story = Story::returning_holder();
    story.cut();
    story.core.goodbye();
    assert_eq!(story.sent(), []);
    assert_eq!(story.told(), [lost(1, LostReason::Disconnected)]);
    assert_eq!((story.core.connection(), story.core.next_deadline()), (None, None));
}

#[test]
fn holders_know_while_there_is_no_connection() {
    let mut story = Story::returning_holder();
    assert_eq!(story.standing(), lease::Standing::Sure);
    story.cut();
    assert_eq!(story.standing(), lease::Standing::Doubtful);
    story.connects();
    story.hear(welcome(3, 2, Standing::Resumed));
    assert_eq!(story.standing(), lease::Standing::Sure);
}

#[test]
fn the_welcome_of_another_session_is_not_believed() {
    for welcome in [
        welcome_to(41, 3, 2, Standing::Resumed),
        ServerMessage::KeptAlive { sequence: 0 },
        grant(1, 7),
    ] {
        let mut story = Story::returning_holder();
        story.cut();
        story.connects();
        story.hear(welcome);
        assert!(matches!(story.core.end(), Some(End::Broken(_))));
    }
}

#[test]
fn no_more_is_kept_for_a_server_that_cannot_be_reached_than_it_would_take() {
    let mut story = Story::returning();
    story.cut();
    for _ in 0..REQUESTS_AWAY_MAX {
        story.ask(ask());
    }
    assert_eq!(story.told(), []);
    let one_more = story.ask(ask());
    assert_eq!(story.told(), [away(one_more)]);
}
