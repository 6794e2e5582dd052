//! Stories of a client, with a time that only the story moves.

use std::time::Duration;

use super::*;
use crate::client::lease::{Belief, LeaseCell};
use crate::types::{
    Epoch, FencingToken, Generation, LostReason, OwnerId, RejectionCode, RequestId, Seal, Secret,
    SessionId,
};
use crate::wire::{self, Attach, PROTOCOL, SealedTicket, ServerMessage, Wait};

const TTL_MS: u32 = 10_000;

pub(super) fn at(millis: u64) -> Timestamp {
    Timestamp::from_micros(millis * 1_000)
}

pub(super) fn id(request: u64) -> RequestId {
    RequestId::new(request)
}

pub(super) fn ask() -> Ask {
    let claims =
        [crate::wire::RawClaim { name: "printer".into(), mode: crate::wire::Mode::Exclusive }]
            .into();

    Ask {
        owner: OwnerId(0),
        converts: None,
        wait: Wait::Forever,
        progress: false,
        lock_delay_ms: 0,
        at_least_ms: 0,
        supersedes: false,
        note: String::new(),
        claims,
    }
}

/// A core, and the hands of its driver.
pub(super) struct Story {
    pub(super) core: Core,
    pub(super) now: Timestamp,
}

impl Story {
    /// A client that said Hello at 0 and has not heard anything.
    fn greeting() -> Self {
        let mut story = Self { core: Core::new(Introduction::default(), None, at(0)), now: at(0) };
        assert!(matches!(
            story.sent()[..],
            [ClientMessage::Hello(wire::Hello { attach: Attach::New, .. })]
        ));
        story
    }

    /// A client that was welcomed at 0.
    pub(super) fn open() -> Self {
        let mut story = Self::greeting();
        story.hear(welcome());
        assert!(matches!(story.told()[..], [Effect::Welcomed(_)]));
        story
    }

    /// A client that holds request 1 with token 7, at 0.
    fn holding() -> Self {
        let mut story = Self::open();
        assert_eq!(story.core.request(ask(), story.now), id(1));
        story.hear(grant(1, 7));
        assert_eq!(story.told(), [granted(1, 7)]);
        story.sent();
        story
    }

    pub(super) fn hear(&mut self, message: ServerMessage) {
        self.core.receive(message, self.now);
    }

    /// Lets time pass up to `millis`, waking at each deadline as a driver does.
    pub(super) fn wait_until(&mut self, millis: u64) {
        while let Some(deadline) = self.core.next_deadline()
            && deadline <= at(millis)
        {
            assert!(deadline >= self.now, "a deadline that stays is a driver that spins");
            self.now = deadline;
            self.core.tick(deadline);
            assert!(self.core.next_deadline() != Some(deadline));
        }
        self.now = at(millis);
    }

    pub(super) fn sent(&mut self) -> Vec<ClientMessage> {
        self.core.drain_messages().collect()
    }

    pub(super) fn told(&mut self) -> Vec<Effect> {
        self.core.take_effects()
    }

    pub(super) fn standing(&self) -> Belief {
        let cell = LeaseCell::default();
        cell.publish(self.core.lease().unwrap());
        cell.standing(self.now)
    }
}

fn welcome() -> ServerMessage {
    ServerMessage::Welcome {
        protocol: PROTOCOL,
        server: "test".to_owned(),
        epoch: Epoch(3),
        session: SessionId(42),
        secret: Secret::new(43),
        generation: Generation(1),
        ttl_ms: TTL_MS,
        standing: wire::Standing::Opened,
    }
}

pub(super) fn grant(request: u64, token: u64) -> ServerMessage {
    ServerMessage::Grant {
        request: RequestId::new(request),
        token: FencingToken::new(token),
        seal: Seal::new(u128::from(token) << 64),
    }
}

/// The third run's arrival of the request's own number.
pub(super) fn queued(request: u64, position: u64) -> ServerMessage {
    let ticket = SealedTicket::from_halves(3, request);
    ServerMessage::Queued { request: RequestId::new(request), position, ticket }
}

pub(super) fn rejected(request: u64, code: RejectionCode) -> ServerMessage {
    let (code, message) = (code.number(), String::new());
    ServerMessage::Rejected {
        cycle: crate::types::Cycle::default(),
        request: RequestId::new(request),
        code: RejectionCode::from_number(code),
        message,
        lock: None,
    }
}

pub(super) fn goodbye(code: GoodbyeCode) -> ServerMessage {
    ServerMessage::Goodbye { code, rejection: RejectionCode::NONE, message: String::new() }
}

pub(super) fn granted(request: u64, token: u64) -> Effect {
    Effect::Granted { request: id(request), token: FencingToken::new(token) }
}

pub(super) fn lost(request: u64, reason: LostReason) -> Effect {
    Effect::Lost { request: id(request), reason }
}

pub(super) fn released(request: u64, outcome: Result<(), Refusal>) -> Effect {
    Effect::Released { request: id(request), outcome }
}

fn refused_by_end(request: u64) -> Effect {
    Effect::Refused { request: id(request), refusal: Refusal::Ended }
}

#[test]
fn a_first_request_may_travel_with_the_hello() {
    let mut story = Story::greeting();
    assert_eq!(story.core.request(ask(), story.now), id(1));
    assert!(matches!(
        story.sent()[..],
        [ClientMessage::Request(wire::Request { request: RequestId(1), .. })]
    ));
    story.hear(welcome());
    story.hear(grant(1, 7));
    assert_eq!(story.told()[1..], [granted(1, 7)]);
}

#[test]
fn request_ids_start_at_1_and_only_rise() {
    let mut story = Story::open();
    assert_eq!(story.core.request(ask(), story.now), id(1));
    story.core.cancel(id(1));
    story.hear(ServerMessage::Cancelled { request: RequestId(1) });
    assert_eq!(story.core.request(ask(), story.now), id(2));
}

#[test]
fn a_client_that_holds_and_waits_prints_none_of_its_proofs() {
    const PROOF: u128 = 0x1234_5678_9abc_def1_0fed_cba9_8765_4321;
    let mut story = Story::greeting();
    let ServerMessage::Welcome {
        protocol,
        server,
        epoch,
        session,
        generation,
        ttl_ms,
        standing,
        ..
    } = welcome()
    else {
        panic!("no welcome");
    };
    let secret = Secret::new(PROOF);
    story.hear(ServerMessage::Welcome {
        protocol,
        server,
        epoch,
        session,
        secret,
        generation,
        ttl_ms,
        standing,
    });
    let held = story.core.request(ask(), story.now).number();
    let waiting = story.core.request(ask(), story.now).number();
    story.hear(ServerMessage::Grant {
        request: RequestId::new(held),
        token: FencingToken(7),
        seal: Seal::new(PROOF),
    });
    let ticket = SealedTicket::from_halves(0x1234_5678_9abc_def1, 0x0fed_cba9_8765_4321);
    story.hear(ServerMessage::Queued { request: RequestId::new(waiting), position: 1, ticket });
    let told = story.told();
    let shown = format!("{:?} {told:?}", story.core);
    assert!(
        shown.contains("Secret(…)") && shown.contains("Seal(…)") && shown.contains("Ticket(…)")
    );
    let (first, second) = ticket.halves();
    for proof in [PROOF, first.into(), second.into()] {
        assert!(!shown.contains(&proof.to_string()), "{shown}");
        assert!(!shown.contains(&format!("{proof:x}")), "{shown}");
    }
}

#[test]
fn belief_counts_from_sending_the_hello_not_from_hearing_the_welcome() {
    let mut story = Story::greeting();
    story.now = at(3_000);
    story.hear(welcome());
    assert_eq!(story.core.lease().unwrap().believed_until(), at(9_750));
}

#[test]
fn a_keep_alive_is_sent_every_quarter_of_the_ttl_whether_answered_or_not() {
    let mut story = Story::open();
    let mut sequences = Vec::new();
    for quarter in 1..=4 {
        story.wait_until(quarter * 2_500 - 1);
        assert!(story.sent().is_empty());
        story.wait_until(quarter * 2_500);
        sequences.extend(story.sent());
    }
    let expected = (1..=4).map(|sequence| ClientMessage::KeepAlive { sequence });
    assert_eq!(sequences, expected.collect::<Vec<_>>());
}

#[test]
fn one_unanswered_keep_alive_is_no_loss() {
    let mut story = Story::holding();
    story.wait_until(5_000);
    story.hear(ServerMessage::KeptAlive { sequence: 2 });
    story.wait_until(14_749);
    assert_eq!(story.told(), []);
    assert_eq!(story.standing(), Belief::Doubtful);
}

#[test]
fn a_late_answer_prolongs_belief_from_when_its_keep_alive_was_sent() {
    let mut story = Story::holding();
    story.wait_until(9_000);
    assert_eq!(story.standing(), Belief::Doubtful);
    story.hear(ServerMessage::KeptAlive { sequence: 1 });
    assert_eq!(story.standing(), Belief::Sure);
    assert_eq!(story.core.lease().unwrap().believed_until(), at(2_500 + 9_750));
}

#[test]
fn a_hold_is_lost_by_the_clients_own_clock_before_the_server_could_expire_it() {
    let mut story = Story::holding();
    story.wait_until(9_749);
    assert_eq!(story.told(), []);
    story.wait_until(9_750);
    assert_eq!(story.told(), [lost(1, LostReason::Expired)]);
    // Should the server keep the session after all, the lock does not stay with nobody.
    assert!(
        story
            .sent()
            .contains(&ClientMessage::Release { request: RequestId(1), token: FencingToken(7) })
    );
}

#[test]
fn an_answer_read_after_the_lease_lapsed_does_not_revive_a_hold() {
    let mut story = Story::holding();
    story.wait_until(2_500);
    // The process stood still: no tick came, and the answer is what is handled first.
    story.now = at(9_750);
    story.hear(ServerMessage::KeptAlive { sequence: 1 });
    assert_eq!(story.told(), [lost(1, LostReason::Expired)]);
    story.hear(ServerMessage::Released { request: RequestId(1) });
    assert_eq!(story.told(), []);
    assert!(story.core.requests.is_empty());
}

#[test]
fn waiters_outlast_a_lapse_of_the_lease_if_the_server_does() {
    let mut story = Story::open();
    story.core.request(ask(), story.now);
    story.wait_until(12_000);
    assert_eq!(story.told(), []);
    story.hear(ServerMessage::KeptAlive { sequence: 4 });
    story.hear(grant(1, 7));
    assert_eq!(story.told(), [granted(1, 7)]);
}

#[test]
fn a_lease_that_came_back_can_lapse_again() {
    let mut story = Story::holding();
    story.core.request(ask(), story.now);
    story.wait_until(12_000);
    assert_eq!(story.told(), [lost(1, LostReason::Expired)]);
    story.hear(ServerMessage::KeptAlive { sequence: 4 });
    story.hear(grant(2, 8));
    assert_eq!(story.told(), [granted(2, 8)]);
    story.wait_until(10_000 + 9_750);
    assert_eq!(story.told(), [lost(2, LostReason::Expired)]);
}

#[test]
fn a_grant_read_while_the_lease_is_in_doubt_waits_for_the_next_answer() {
    let mut story = Story::open();
    story.core.request(ask(), story.now);
    story.wait_until(12_000);
    story.hear(grant(1, 7));
    // This one was sent too long ago to prove anything now.
    story.hear(ServerMessage::KeptAlive { sequence: 0 });
    assert_eq!(story.told(), []);
    story.hear(ServerMessage::KeptAlive { sequence: 4 });
    assert_eq!(story.told(), [granted(1, 7)]);
}

#[test]
fn a_grant_in_doubt_is_never_told_if_the_session_turns_out_to_be_over() {
    let mut story = Story::open();
    story.core.request(ask(), story.now);
    story.wait_until(12_000);
    story.hear(grant(1, 7));
    story.hear(goodbye(GoodbyeCode::SessionExpired));
    assert_eq!(story.told(), [refused_by_end(1)]);
}

#[test]
fn a_silent_server_is_given_up_after_two_ttls() {
    let mut story = Story::open();
    story.core.request(ask(), story.now);
    story.wait_until(19_999);
    assert_eq!(story.told(), []);
    story.wait_until(20_000);
    assert_eq!(story.told(), [refused_by_end(1)]);
    assert_eq!(story.core.end(), Some(&End::Silent(Duration::from_secs(20))));
    assert_eq!(story.core.next_deadline(), None);
}

#[test]
fn belief_ends_when_the_release_is_sent() {
    let mut story = Story::holding();
    story.core.release(id(1), story.now);
    assert_eq!(
        story.sent(),
        [ClientMessage::Release { request: RequestId(1), token: FencingToken(7) }]
    );
    // Nothing is held any more that could be lost.
    story.wait_until(9_750);
    assert_eq!(story.told(), []);
    story.hear(ServerMessage::Released { request: RequestId(1) });
    assert_eq!(story.told(), [released(1, Ok(()))]);
}

#[test]
fn a_release_that_crosses_the_loss_is_answered_with_the_loss() {
    for answer in
        [ServerMessage::Released { request: RequestId(1) }, rejected(1, RejectionCode::NotHolder)]
    {
        let mut story = Story::holding();
        story.core.release(id(1), story.now);
        let reason = LostReason::Revoked;
        story.hear(ServerMessage::Lost { request: RequestId(1), token: FencingToken(7), reason });
        assert_eq!(story.told(), []);
        story.hear(answer);
        assert_eq!(story.told(), [released(1, Err(Refusal::Lost(reason)))]);
    }
}

#[test]
fn every_release_is_answered_even_of_what_is_lost_or_over() {
    let mut story = Story::holding();
    story.wait_until(9_750);
    story.told();
    story.core.release(id(1), story.now);
    assert_eq!(story.told(), [released(1, Err(Refusal::Lost(LostReason::Expired)))]);
    story.core.connection_lost(story.now);
    story.core.release(id(1), story.now);
    assert_eq!(story.told(), [released(1, Err(Refusal::Ended))]);
}

#[test]
fn a_grant_that_crosses_a_cancel_never_surfaces() {
    let mut story = Story::open();
    story.core.request(ask(), story.now);
    story.core.cancel(id(1));
    assert!(story.sent().contains(&ClientMessage::Cancel { request: RequestId(1) }));
    story.hear(grant(1, 7));
    story.hear(ServerMessage::Cancelled { request: RequestId(1) });
    assert_eq!(story.told(), []);
    assert!(story.core.requests.is_empty());
}

#[test]
fn a_cancel_takes_back_what_was_granted_already() {
    let mut story = Story::holding();
    story.core.cancel(id(1));
    story.core.cancel(id(1));
    assert_eq!(story.sent(), [ClientMessage::Cancel { request: RequestId(1) }]);
    story.wait_until(9_750);
    story.hear(ServerMessage::Cancelled { request: RequestId(1) });
    assert_eq!(story.told(), []);
}

#[test]
fn a_rejection_or_a_loss_that_crosses_a_cancel_means_nothing() {
    let mut story = Story::open();
    story.core.request(ask(), story.now);
    story.core.request(ask(), story.now);
    story.core.cancel(id(1));
    story.core.cancel(id(2));
    story.hear(rejected(1, RejectionCode::TimedOut));
    story.hear(grant(2, 7));
    story.hear(ServerMessage::Lost {
        request: RequestId(2),
        token: FencingToken(7),
        reason: LostReason::from_number(2),
    });
    story.hear(ServerMessage::Cancelled { request: RequestId(1) });
    story.hear(ServerMessage::Cancelled { request: RequestId(2) });
    assert_eq!(story.told(), []);
    assert_eq!(story.core.end(), None);
}

#[test]
fn a_no_ends_the_request() {
    let mut story = Story::open();
    story.core.request(ask(), story.now);
    story.hear(rejected(1, RejectionCode::Busy));
    let told = story.told();
    assert!(matches!(
        &told[..],
        [Effect::Refused { refusal: Refusal::Rejected(rejection), .. }]
            if rejection.code == RejectionCode::Busy
    ));
    assert!(story.core.requests.is_empty());
}

#[test]
fn places_in_line_are_told_until_the_answer() {
    let mut story = Story::open();
    story.core.request(ask(), story.now);
    story.hear(queued(1, 2));
    assert_eq!(story.told(), [Effect::Queued { request: id(1), position: 2 }]);
    story.core.cancel(id(1));
    story.hear(queued(1, 1));
    assert_eq!(story.told(), []);
}

#[test]
fn a_loss_told_by_the_server_is_final() {
    let mut story = Story::holding();
    let reason = LostReason::Revoked;
    story.hear(ServerMessage::Lost { request: RequestId(1), token: FencingToken(7), reason });
    assert_eq!(story.told(), [lost(1, reason)]);
    story.wait_until(9_750);
    assert_eq!(story.told(), []);
}

#[test]
fn a_lost_connection_loses_every_hold_and_fails_every_request() {
    let mut story = Story::holding();
    story.core.request(ask(), story.now);
    story.core.connection_lost(story.now);
    assert_eq!(story.told(), [lost(1, LostReason::Disconnected), refused_by_end(2)]);
    assert_eq!(story.core.request(ask(), story.now), id(3));
    assert_eq!(story.told(), [refused_by_end(3)]);
}

#[test]
fn each_goodbye_of_the_server_loses_holds_for_its_reason() {
    for (code, reason) in [
        (GoodbyeCode::Draining, LostReason::Stopped),
        (GoodbyeCode::SessionExpired, LostReason::Expired),
        (GoodbyeCode::Refused, LostReason::Refused),
        (GoodbyeCode::Superseded, LostReason::Disconnected),
        (GoodbyeCode::SlowReader, LostReason::Disconnected),
    ] {
        let mut story = Story::holding();
        story.hear(goodbye(code));
        assert_eq!(story.told(), [lost(1, reason)]);
        assert!(matches!(story.core.end(), Some(End::Dismissed { code: c, .. }) if *c == code));
        assert_eq!(story.sent(), []);
    }
}

#[test]
fn our_goodbye_ends_belief_when_it_is_sent() {
    let mut story = Story::holding();
    story.core.request(ask(), story.now);
    story.core.goodbye();
    assert_eq!(story.sent().last(), Some(&ClientMessage::Goodbye));
    assert_eq!(story.told(), [lost(1, LostReason::Disconnected), refused_by_end(2)]);
}

#[test]
fn an_answer_to_what_was_never_asked_breaks_the_protocol() {
    let never_asked = [
        grant(2, 8),
        grant(1, 8),
        ServerMessage::Released { request: RequestId(1) },
        ServerMessage::Cancelled { request: RequestId(1) },
        ServerMessage::Lost {
            request: RequestId(1),
            token: FencingToken(8),
            reason: LostReason::from_number(1),
        },
        ServerMessage::Lost {
            request: RequestId(2),
            token: FencingToken(8),
            reason: LostReason::from_number(1),
        },
        rejected(1, RejectionCode::Busy),
        rejected(9, RejectionCode::Busy),
        ServerMessage::KeptAlive { sequence: 1 },
        ServerMessage::Revoked { query_id: 1 },
        welcome(),
    ];
    for message in never_asked {
        let mut story = Story::holding();
        story.hear(message.clone());
        assert!(matches!(story.core.end(), Some(End::Broken(_))), "{message:?}");
        assert_eq!(story.told(), [lost(1, LostReason::Disconnected)]);
        assert_eq!(story.sent(), [ClientMessage::Goodbye]);
    }
}

#[test]
fn nothing_but_a_welcome_or_a_goodbye_may_come_first() {
    let mut story = Story::greeting();
    story.hear(grant(1, 7));
    assert!(matches!(story.core.end(), Some(End::Broken(_))));
    let mut story = Story::greeting();
    story.hear(goodbye(GoodbyeCode::TooManyConnections));
    assert!(matches!(story.core.end(), Some(End::Dismissed { .. })));
}

#[test]
fn a_repeated_grant_of_the_same_token_changes_nothing() {
    let mut story = Story::holding();
    story.hear(grant(1, 7));
    assert_eq!(story.told(), []);
    assert_eq!(story.core.end(), None);
}

#[test]
fn the_oldest_of_too_many_unanswered_keep_alives_is_forgotten() {
    let mut story = Story::open();
    // The server answers something, never a keep-alive.
    story.core.request(ask(), story.now);
    for quarter in 1..100 {
        story.wait_until(quarter * 2_500);
        story.hear(queued(1, 1));
    }
    let Phase::Open(open) = &story.core.phase else { panic!("still open") };
    assert_eq!(open.unanswered.len(), KEEP_ALIVES_UNANSWERED_MAX);
}
