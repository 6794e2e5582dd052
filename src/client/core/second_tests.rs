//! Stories of a client whose connection does not answer, and of the second one that it tries.

use std::time::Duration;

use super::resume_tests::{account, asks, welcome, welcome_to};
use super::tests::{Story, ask, at, goodbye, grant, granted, id};
use super::*;
use crate::client::lease::Belief;
use crate::types::{GoodbyeCode, RejectionCode, RequestId, Secret, SessionId};
use crate::wire::{self, Attach, ServerMessage, Wait};

/// When the first keep-alive is overdue: a quarter and a sixteenth of the ttl.
const OVERDUE: u64 = 3_125;

fn resumed(generation: u64) -> ServerMessage {
    welcome(3, generation, wire::Standing::Resumed)
}

fn refused(code: RejectionCode) -> ServerMessage {
    let (code, rejection) = (GoodbyeCode::Refused.number(), code.number());
    ServerMessage::Goodbye {
        code: GoodbyeCode::from_number(code),
        rejection: RejectionCode::from_number(rejection),
        message: String::new(),
    }
}

impl Story {
    fn hear_second(&mut self, message: ServerMessage) {
        self.core.receive_second(message, self.now);
    }

    /// The second connection is made; gives the generation that it resumes the session with.
    fn second_connects(&mut self) -> u64 {
        assert!(self.core.second_connection().is_some());
        match self.core.second_connected(self.now) {
            Some(ClientMessage::Hello(wire::Hello {
                attach: Attach::Resume { session: SessionId(42), secret, generation },
                ..
            })) if secret == Secret::new(43) => generation.number(),
            other => panic!("{other:?}"),
        }
    }

    /// A holder whose first keep-alive is overdue, and who wants a second connection.
    fn overdue() -> Self {
        let mut story = Self::returning_holder();
        story.wait_until(OVERDUE - 1);
        assert_eq!(story.core.second_connection(), None);
        story.wait_until(OVERDUE);
        assert!(story.core.second_connection().is_some());
        assert_eq!(story.sent(), [ClientMessage::KeepAlive { sequence: 1 }]);
        story
    }

    fn answer(&mut self, sequence: u64) {
        self.hear(ServerMessage::KeptAlive { sequence });
    }
}

#[test]
fn a_connection_that_is_forgotten_on_the_way_costs_a_holder_nothing() {
    let mut story = Story::overdue();
    let first = story.core.connection();
    let second = story.core.second_connection();
    assert_eq!(story.second_connects(), 2);
    assert_eq!(story.standing(), Belief::Sure, "nobody is told before there is a reason");
    story.wait_until(3_200);
    story.hear_second(resumed(2));
    assert_eq!(story.core.connection(), second);
    assert_ne!(story.core.connection(), first);
    assert_eq!(story.core.second_connection(), None);
    assert_eq!(story.sent(), [account(1, &[(1, 7)], &[])]);
    assert_eq!(story.told_else(), []);
    // The lease counts from the Hello.
    assert_eq!(story.core.lease().unwrap().believed_until(), at(OVERDUE + 9_750));
}

#[test]
fn one_attempt_may_hang_and_the_next_still_comes_before_a_command_is_stopped() {
    let mut story = Story::overdue();
    story.wait_until(OVERDUE + 1_667);
    assert_eq!(story.core.second_connection(), None, "it hangs");
    story.wait_until(OVERDUE + 1_717);
    story.second_connects();
    story.hear_second(resumed(2));
    assert!(story.core.is_open() && story.now < at(6_400));
    assert_eq!(story.told_else(), []);
}

#[test]
fn what_is_unanswered_on_the_first_is_said_again_on_the_second() {
    let mut story = Story::overdue();
    story.ask(ask());
    story.second_connects();
    story.ask(ask());
    story.core.cancel(id(2));
    // In hope only.
    let asked = [asks(2, Wait::Forever, None), asks(3, Wait::Forever, None)];
    let cancelled = ClientMessage::Cancel { request: RequestId(2) };
    assert_eq!(story.sent(), [&asked[..], &[cancelled]].concat());
    story.hear_second(resumed(2));
    let again = [asks(3, Wait::Forever, None), account(3, &[(1, 7)], &[3])];
    assert_eq!(story.sent(), again);
    story.hear(grant(3, 8));
    assert_eq!(story.told_else(), [granted(3, 8)]);
}

#[test]
fn an_answer_on_the_first_ends_the_attempt_at_a_second() {
    let mut story = Story::overdue();
    story.answer(1);
    assert_eq!(story.core.second_connection(), None);
    assert!(story.core.second_connected(story.now).is_none());
    assert_eq!(story.core.lease().unwrap().believed_until(), at(2_500 + 9_750));
}

#[test]
fn the_first_is_heard_until_the_second_is_welcome() {
    let mut story = Story::overdue();
    story.ask(ask());
    story.second_connects();
    story.wait_until(3_500);
    story.answer(1);
    assert_eq!(story.core.lease().unwrap().believed_until(), at(2_500 + 9_750));
    story.hear(grant(2, 8));
    assert_eq!(story.told_else(), [granted(2, 8)]);
    story.wait_until(5_000);
    story.answer(2);
    story.hear_second(resumed(2));
    // The first proved more than the second's Hello did.
    assert_eq!(story.core.lease().unwrap().believed_until(), at(5_000 + 9_750));
}

#[test]
fn a_server_that_stands_still_is_asked_for_one_connection_more_until_the_first_is_given_up() {
    let mut story = Story::overdue();
    let second = story.core.second_connection();
    story.second_connects();
    story.wait_until(6_600);
    assert_eq!(story.core.second_connection(), second);
    // Given up after two thirds of the ttl; the second is the one that is waited for.
    story.wait_until(6_700);
    assert_eq!(story.core.connection(), second);
    assert_eq!(story.core.second_connection(), None);
    story.hear(resumed(2));
    assert!(story.core.is_open());
    assert_eq!(story.told_else(), []);
}

#[test]
fn a_slow_server_is_given_longer_and_one_stall_is_forgotten() {
    let mut story = Story::overdue();
    story.wait_until(3_500);
    story.answer(1);
    // It took 1 s: the next may take two.
    story.wait_until(5_000 + 1_999);
    assert_eq!(story.core.second_connection(), None);
    story.wait_until(5_000 + 2_000);
    assert!(story.core.second_connection().is_some());
    story.answer(2);
    for sequence in 3..16 {
        let sent = story.core.next_deadline().unwrap();
        story.now = sent;
        story.core.tick(sent);
        story.answer(sequence);
    }
    let sent = story.core.next_deadline().unwrap();
    story.now = sent;
    story.core.tick(sent);
    let Phase::Open(open) = &story.core.phase else { panic!() };
    assert_eq!(story.core.open_deadline(open), sent.after(Duration::from_millis(625)));
}

#[test]
fn a_second_that_is_refused_costs_the_first_nothing() {
    let mut story = Story::overdue();
    story.second_connects();
    story.hear_second(goodbye(GoodbyeCode::TooManyConnections));
    assert!(story.core.is_open());
    story.answer(1);
    assert_eq!(story.told_else(), []);
    assert_eq!(story.core.second_connection(), None);
    // Something else answers in the server's place.
    story.wait_until(6_250);
    story.second_connects();
    story.hear_second(grant(1, 7));
    assert!(story.core.is_open() && story.core.end().is_none());
}

#[test]
fn attempts_that_fail_at_once_are_not_made_without_a_pause() {
    let mut story = Story::overdue();
    let mut attempts = 0;
    while story.core.is_open() {
        if story.core.second_connection().is_some() {
            attempts += 1;
            story.core.second_lost(story.now);
        }
        story.now = story.core.next_deadline().unwrap();
        story.core.tick(story.now);
    }
    assert!((3..16).contains(&attempts), "{attempts} attempts");
}

#[test]
fn a_second_that_lost_its_hello_supersedes_the_first_and_another_follows() {
    let mut story = Story::overdue();
    story.second_connects();
    story.core.second_lost(story.now);
    story.answer(1);
    assert_eq!(story.core.second_connection(), None);
    // The Hello has come after all.
    story.hear(goodbye(GoodbyeCode::Superseded));
    assert_eq!(story.core.end(), None);
    story.connects();
    story.hear(resumed(3));
    assert_eq!(story.sent(), [account(1, &[(1, 7)], &[])]);
    assert_eq!(story.told_else(), []);
    // By somebody else it is superseded for good.
    story.hear(goodbye(GoodbyeCode::Superseded));
    assert!(story.core.end().is_some());
}

#[test]
fn a_first_that_is_superseded_by_the_second_waits_for_its_welcome() {
    let mut story = Story::overdue();
    let second = story.core.second_connection();
    story.second_connects();
    story.hear(goodbye(GoodbyeCode::Superseded));
    assert_eq!(story.core.connection(), second);
    story.hear(resumed(2));
    assert!(story.core.is_open());
    assert_eq!(story.told_else(), []);
}

#[test]
fn a_first_that_ends_leaves_the_second_to_go_on() {
    for has_greeted in [false, true] {
        let mut story = Story::overdue();
        let second = story.core.second_connection();
        if has_greeted {
            story.second_connects();
        }
        story.core.connection_lost(story.now);
        assert_eq!(story.core.connection(), second);
        if !has_greeted {
            story.core.connected(story.now);
        }
        story.hear(resumed(2));
        assert!(story.core.is_open());
    }
}

#[test]
fn a_session_that_is_over_is_heard_of_over_the_second() {
    let mut story = Story::overdue();
    story.second_connects();
    story.hear_second(refused(RejectionCode::UnknownSession));
    let lost = Effect::Lost { request: id(1), reason: LostReason::Expired };
    assert_eq!(story.told_else(), [lost]);
    story.connects();
    story.hear(welcome_to(77, 3, 1, wire::Standing::Opened));
    assert!(story.core.is_open());
}

#[test]
fn a_client_with_a_linger_keeps_a_second_that_was_greeted_until_it_is_welcome() {
    let overdue = || {
        let introduction = Introduction { linger_ms: Some(0), ..Introduction::default() };
        let mut story = Story::of(introduction);
        story.ask(ask());
        story.hear(grant(1, 7));
        story.told();
        story.wait_until(OVERDUE);
        story.second_connects();
        story
    };
    // Giving it up could be the end of the session.
    let mut story = overdue();
    story.wait_until(9_000);
    assert!(story.core.second_connection().is_some());
    story.hear_second(resumed(2));
    assert_eq!(story.told_else(), []);
    // If it ends by itself, that can be it.
    let mut story = overdue();
    story.core.second_lost(story.now);
    let lost = Effect::Lost { request: id(1), reason: LostReason::Expired };
    assert_eq!(story.told_else(), [lost]);
}

#[test]
fn who_stood_still_asks_before_the_connection_is_given_up() {
    let mut story = Story::returning_holder();
    // Nothing was unanswered, and nothing was asked for nine seconds.
    story.now = at(9_000);
    story.core.tick(story.now);
    assert!(story.core.is_open());
    assert_eq!(story.sent(), [ClientMessage::KeepAlive { sequence: 1 }]);
    story.answer(1);
    assert_eq!(story.core.lease().unwrap().believed_until(), at(9_000 + 9_750));
    assert_eq!(story.told_else(), []);
}
