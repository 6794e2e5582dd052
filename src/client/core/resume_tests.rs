//! Stories of a client whose connections end, and of what it finds when it comes back.

use std::time::Duration;

use super::tests::{Story, ask, at, grant, granted, id, lost, queued, rejected, released};
use super::*;
use crate::types::{
    Epoch, FencingToken, Generation, OwnerId, RejectionCode, RequestId, Secret, SessionId,
};
use crate::wire::{self, Attach, Held, PROTOCOL, SealedTicket, ServerMessage, Standing, Wait};

fn reconnect() -> Reconnect {
    Reconnect { attempt_max: Duration::from_secs(5), seed: 7, servers: 1 }
}

pub(super) fn welcome(epoch: u64, generation: u64, standing: Standing) -> ServerMessage {
    welcome_to(42, epoch, generation, standing)
}

pub(super) fn welcome_to(
    session: u128,
    epoch: u64,
    generation: u64,
    standing: Standing,
) -> ServerMessage {
    ServerMessage::Welcome {
        protocol: PROTOCOL,
        server: "test".to_owned(),
        epoch: Epoch::new(epoch),
        session: SessionId::new(session),
        secret: Secret::new(session + 1),
        generation: Generation::new(generation),
        ttl_ms: 10_000,
        standing,
    }
}

fn away(request: u64) -> Effect {
    Effect::Refused { request: id(request), refusal: Refusal::Away }
}

pub(super) fn waiting_at_most(ms: u64) -> Ask {
    Ask { wait: Wait::millis(ms), ..ask() }
}

fn trying() -> Ask {
    Ask { wait: Wait::Never, ..ask() }
}

pub(super) fn account(to: u64, held: &[(u64, u64)], waiting: &[u64]) -> ClientMessage {
    let held = held
        .iter()
        .map(|&(request, token)| Held {
            request: RequestId::new(request),
            token: FencingToken::new(token),
        })
        .collect();
    ClientMessage::Account(wire::Account {
        from: RequestId(1),
        to: RequestId::new(to),
        held,
        waiting: waiting.iter().copied().map(RequestId).collect(),
    })
}

pub(super) fn asks(request: u64, wait: Wait, ticket: Option<SealedTicket>) -> ClientMessage {
    let Ask { progress, lock_delay_ms, note, claims, .. } = ask();
    ClientMessage::Request(wire::Request {
        converts: None,
        request: RequestId::new(request),
        owner: OwnerId(0),
        wait,
        progress,
        lock_delay_ms,
        note,
        ticket,
        claims,
    })
}

impl Story {
    /// A client that comes back, welcomed at 0.
    pub(super) fn returning() -> Self {
        Self::of(Introduction::default())
    }

    pub(super) fn of(introduction: Introduction) -> Self {
        let mut story =
            Self { core: Core::new(introduction, Some(reconnect()), at(0)), now: at(0) };
        story.sent();
        story.hear(welcome(3, 1, Standing::Opened));
        story.told();
        story
    }

    /// One that holds request 1 with token 7.
    pub(super) fn returning_holder() -> Self {
        let mut story = Self::returning();
        story.ask(ask());
        story.hear(grant(1, 7));
        assert_eq!(story.told(), [granted(1, 7)]);
        story.sent();
        story
    }

    pub(super) fn ask(&mut self, ask: Ask) -> u64 {
        self.core.request(ask, self.now).number()
    }

    /// The connection is cut.
    pub(super) fn cut(&mut self) {
        self.core.connection_lost(self.now);
        assert!(!self.core.is_open());
        assert_eq!(self.sent(), []);
    }

    /// The next connection is made when it is wanted; gives the Hello.
    pub(super) fn connects(&mut self) -> ClientMessage {
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
    pub(super) fn comes_back(
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
    pub(super) fn told_else(&mut self) -> Vec<Effect> {
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
    let ClientMessage::Hello(wire::Hello { attach, ttl_ms, epoch_seen, token_seen, .. }) =
        story.connects()
    else {
        panic!()
    };
    assert_eq!(
        attach,
        Attach::Resume {
            session: SessionId(42),
            secret: Secret::new(43),
            generation: Generation(2)
        }
    );
    // The server's default may be another in its next run.
    assert_eq!((ttl_ms, epoch_seen, token_seen), (10_000, Epoch(3), FencingToken(7)));
}

#[test]
fn each_hello_has_a_higher_generation_so_that_a_delayed_one_is_known() {
    let mut story = Story::returning_holder();
    story.cut();
    for expected in 2..6 {
        let ClientMessage::Hello(wire::Hello { attach: Attach::Resume { generation, .. }, .. }) =
            story.connects()
        else {
            panic!()
        };
        assert_eq!(generation, Generation::new(expected));
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
    let ticket = Some(SealedTicket::from_halves(3, 4));
    let expected = [
        asks(2, Wait::Forever, None),
        ClientMessage::Release { request: RequestId(3), token: FencingToken(8) },
        asks(4, Wait::Forever, ticket),
        // Without 5: what is cancelled is not listed, and freed by that.
        account(5, &[(1, 7)], &[2, 4]),
    ];
    assert_eq!(story.comes_back(3, 2, Standing::Resumed), expected);
    // Every answer that may be one twice.
    for _ in 0..2 {
        story.hear(grant(2, 9));
        story.hear(ServerMessage::Released { request: RequestId(3) });
        story.hear(rejected(4, RejectionCode::Draining));
        story.hear(ServerMessage::Cancelled { request: RequestId(5) });
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
        story.hear(ServerMessage::Released { request: RequestId::new(request) });
    }
    story.told();
    story.sent();
    let mut next = RequestId(1);
    let mut listed = 0;
    for part in story.comes_back(3, 2, Standing::Resumed) {
        let ClientMessage::Account(wire::Account { from, to, held, .. }) = part else { panic!() };
        assert_eq!(from, next);
        assert!(held.len() <= 2_000 && held.iter().all(|h| (from..=to).contains(&h.request)));
        listed += held.len();
        next = to.next();
    }
    assert_eq!((next, listed), (RequestId(5_001), 4_997));
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
        ClientMessage::Release { request: RequestId(1), token: FencingToken(7) },
        asks(2, Wait::Forever, None),
        asks(3, Wait::millis(4_000), None),
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
    story.hear(ServerMessage::Lost { request: RequestId(1), token: FencingToken(7), reason });
    // This one was granted and taken away without our ever hearing of it.
    story.hear(ServerMessage::Lost { request: RequestId(2), token: FencingToken(8), reason });
    let refusal = Refusal::Lost(reason);
    assert_eq!(story.told_else(), [lost(1, reason), Effect::Refused { request: id(2), refusal }]);
}

#[test]
fn a_connection_without_a_word_is_replaced_while_the_lease_lasts() {
    let mut story = Story::returning_holder();
    story.wait_until(6_666);
    assert!(story.core.is_open());
    story.wait_until(6_667);
    assert!(!story.core.is_open());
    story.connects();
    // Nor is the Hello answered. There is time for another attempt.
    story.wait_until(9_000);
    story.connects();
    story.hear(welcome(3, 3, Standing::Resumed));
    assert_eq!(story.told_else(), []);
    assert!(story.now < at(9_100));
}

#[test]
fn an_attempt_that_takes_too_long_is_given_up_for_another() {
    let mut story = Story::returning();
    story.cut();
    let first = story.core.connection().unwrap();
    story.wait_until(1_666);
    assert_eq!(story.core.connection(), Some(first));
    story.wait_until(1_667 + 50);
    assert_eq!(story.core.connection(), Some(first + 1));
    let pauses = story.core.next_deadline().unwrap();
    assert!(pauses > at(1_667 + 3_333) && pauses < at(1_717 + 3_334));
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
