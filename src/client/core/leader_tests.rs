//! Stories of a client among several coordinators, of which one leads (rule C5).

use std::time::Duration;

use super::resume_tests::{account, asks, welcome};
use super::tests::{Story, ask, at, grant, granted, lost, queued};
use super::*;
use crate::client::lease::Belief;
use crate::types::{GoodbyeCode, RejectionCode, ServerAddress, Standing, Wait};
use crate::wire::{SealedTicket, ServerMessage};

const GRACE: Standing = Standing::Reopened { grace: Duration::from_millis(10_250) };
/// When the first keep-alive is overdue: a quarter and a sixteenth of the ttl.
const OVERDUE: u64 = 3_125;

/// What one says that does not lead.
fn not_leader(hint: &str) -> ServerMessage {
    ServerMessage::Goodbye {
        code: GoodbyeCode::NotLeader,
        rejection: RejectionCode::NONE,
        message: hint.to_owned(),
    }
}

impl Story {
    /// A client of so many servers that holds request 1 with token 7, in epoch 3.
    fn of_servers(servers: usize) -> Self {
        let reconnect = Reconnect { attempt_max: Duration::from_secs(5), seed: 7, servers };
        let core = Core::new(Introduction::default(), Some(reconnect), at(0));
        let mut story = Self { core, now: at(0) };
        story.hear(welcome(3, 1, Standing::Opened));
        story.ask(ask());
        story.hear(grant(1, 7));
        story.sent();
        story.told();
        story
    }

    /// Where the connection that is wanted goes first.
    fn goes_to(&self) -> Option<&str> {
        self.core.hint(self.core.connection()).map(ServerAddress::as_str)
    }

    fn second_goes_to(&self) -> Option<&str> {
        self.core.hint(self.core.second_connection()).map(ServerAddress::as_str)
    }

    /// The connection that is wanted is made, and ends with that.
    fn connects_and_hears(&mut self, message: ServerMessage) {
        self.connects();
        self.hear(message);
    }
}

#[test]
fn a_leader_that_hands_over_is_left_for_the_next_one_at_once_and_nobody_notices() {
    let mut story = Story::of_servers(2);
    story.ask(ask());
    story.hear(queued(2, 1));
    let watch = story.core.look(Look::Watch { name: "printer".to_owned() });
    story.sent();
    story.told();
    story.wait_until(1_000);
    story.hear(not_leader("b:5625"));
    assert_eq!((story.goes_to(), story.now), (Some("b:5625"), at(1_000)));
    story.connects();
    assert_eq!(story.now, at(1_000), "there is no pause");
    story.hear(welcome(4, 2, Standing::Resumed));
    let watches = ClientMessage::Watch { query_id: watch, name: "printer".to_owned() };
    let Some((last, said)) = story.sent().split_last().map(|(l, s)| (l.clone(), s.to_vec())) else {
        panic!()
    };
    assert_eq!(last, watches);
    // What is held is reclaimed, for nobody knows what the next one knows.
    assert!(matches!(said[0], ClientMessage::Reclaim(_)));
    let ticket = Some(SealedTicket::from_halves(3, 2));
    assert_eq!(said[1..], [asks(2, Wait::Forever, ticket), account(2, &[(1, 7)], &[2])]);
    story.hear(grant(1, 7));
    assert_eq!(story.standing(), Belief::Sure);
    assert!(!story.told().iter().any(|effect| matches!(effect, Effect::Lost { .. })));
}

#[test]
fn a_next_leader_that_knows_nothing_is_told_what_is_held_and_who_waits_where() {
    let mut story = Story::of_servers(2);
    story.ask(ask());
    story.hear(queued(2, 1));
    story.sent();
    story.cut();
    story.connects_and_hears(not_leader("c:5625"));
    story.connects_and_hears(welcome(4, 3, GRACE));
    let said = story.sent();
    assert!(matches!(said[0], ClientMessage::Reclaim(_)));
    let ticket = Some(SealedTicket::from_halves(3, 2));
    assert_eq!(said[1..], [asks(2, Wait::Forever, ticket)]);
}

#[test]
fn two_that_name_each_other_are_left_alone_for_longer_and_longer() {
    let mut story = Story::of_servers(2);
    story.cut();
    let mut tried = Vec::new();
    let end = at(9_000);
    while story.now < end {
        let name = if tried.len() % 2 == 0 { "b:5625" } else { "a:5625" };
        story.connects_and_hears(not_leader(name));
        tried.push(story.now);
        assert!(tried.len() < 500, "without a pause, at {:?}", story.now);
        // A hint is heeded after the pause, too.
        story.core.tick(story.now);
    }
    let at_once = tried.chunk_by(|one, other| one == other).map(<[_]>::len).collect::<Vec<_>>();
    let most = usize::try_from(leader::HINTS_AT_ONCE_MAX).unwrap() + 1;
    assert!(at_once.iter().skip(1).all(|count| *count <= most), "{at_once:?}");
    // The first attempt of all is free.
    assert!(at_once[0] <= 2 * most, "{at_once:?}");
    assert!(tried.len() <= most * 25, "{} attempts in 9 s", tried.len());
}

/// What is said by one that is no coordinator of our version.
fn strangers_say() -> [ServerMessage; 3] {
    let goodbye = |code| {
        let (rejection, message) = (RejectionCode::NONE, "older".to_owned());
        ServerMessage::Goodbye { code, rejection, message }
    };
    let others = [GoodbyeCode::UnsupportedVersion, GoodbyeCode::ProtocolError].map(goodbye);
    let [version, protocol] = others;
    [version, protocol, grant(1, 7)]
}

#[test]
fn of_several_servers_one_that_is_no_coordinator_is_passed_over_and_the_session_goes_on() {
    for said in strangers_say() {
        let mut story = Story::of_servers(2);
        story.cut();
        story.connects_and_hears(said);
        story.connects_and_hears(welcome(3, 3, Standing::Resumed));
        assert!(story.core.is_open(), "{:?}", story.core.end());
        let lost = |it: &Effect| matches!(it, Effect::Lost { .. });
        assert!(!story.told().iter().any(lost));
    }
    let mut story = Story::of_servers(2);
    story.cut();
    story.connects();
    story.core.protocol_broken("it speaks HTTP", story.now);
    assert!(story.core.end().is_none());
}

#[test]
fn when_all_servers_in_a_row_are_no_coordinators_that_is_the_end() {
    for said in strangers_say() {
        let mut story = Story::of_servers(1);
        story.cut();
        story.connects_and_hears(said.clone());
        assert!(story.core.end().is_some(), "there is no other");
        let mut story = Story::of_servers(3);
        story.cut();
        story.connects_and_hears(said.clone());
        story.connects_and_hears(said.clone());
        // One that is away may be back, and leads then.
        story.connects();
        story.core.connection_lost(story.now);
        for _ in 0..3 {
            assert!(story.core.end().is_none());
            story.connects_and_hears(said.clone());
        }
        assert!(story.core.end().is_some(), "it hears the same for ever");
        assert_eq!(story.told(), [lost(1, LostReason::Disconnected)]);
    }
}

#[test]
fn a_hint_is_for_the_next_attempt_and_for_no_other() {
    let mut story = Story::of_servers(3);
    story.hear(not_leader("elsewhere.internal:7"));
    assert_eq!(story.goes_to(), Some("elsewhere.internal:7"));
    story.core.connection_lost(story.now);
    story.connects();
    assert_eq!(story.goes_to(), None, "it could not be reached");
    story.hear(not_leader("elsewhere.internal:7"));
    story.connects_and_hears(welcome(4, 3, Standing::Resumed));
    story.cut();
    story.connects();
    assert_eq!(story.goes_to(), None, "the connection to it ended");
}

#[test]
fn a_hint_that_was_heard_before_a_welcome_is_out_of_date() {
    let mut story = Story::of_servers(2);
    story.wait_until(OVERDUE);
    story.core.second_connected(story.now);
    // The first is left for nobody else: the second may be the session's by now.
    story.hear(not_leader("old:1"));
    story.hear(welcome(4, 2, Standing::Resumed));
    assert!(story.core.is_open());
    story.cut();
    story.connects();
    assert_eq!(story.goes_to(), None);
}

#[test]
fn what_is_no_address_is_no_hint() {
    for text in ["", "no address", "b", "\u{1b}]0;b:1", &"x".repeat(10_000), &"b:1,".repeat(99)] {
        let mut story = Story::of_servers(2);
        story.cut();
        story.connects_and_hears(not_leader(text));
        assert_eq!(story.core.connection(), None, "there is a pause, as after any failure");
        story.connects();
        assert_eq!(story.goes_to(), None);
        assert_eq!(story.told(), []);
    }
}

#[test]
fn a_hint_that_is_followed_is_no_failure_to_those_who_would_not_wait() {
    let mut story = Story::of_servers(2);
    story.hear(not_leader("b:1"));
    let request = story.ask(Ask { wait: Wait::Never, ..ask() });
    let look = story.core.look(Look::At(crate::wire::Query::Server));
    story.connects_and_hears(not_leader("c:1"));
    assert_eq!(story.told(), []);
    // Nobody leads, as far as that one knows: now there is no telling for how long.
    story.connects_and_hears(not_leader(""));
    let refusal = Refusal::Away;
    let request = RequestId::new(request);
    let refused = Effect::Refused { request, refusal: refusal.clone() };
    assert_eq!(story.told(), [refused, Effect::Unseen { look, refusal }]);
}

#[test]
fn a_leader_that_was_deposed_is_not_believed_whatever_it_says() {
    // Rule C5.
    let mut story = Story::of_servers(2);
    story.cut();
    story.connects_and_hears(welcome(4, 2, Standing::Resumed));
    story.hear(grant(1, 7));
    story.sent();
    story.told();
    story.wait_until(1_000);
    story.cut();
    story.connects_and_hears(welcome(3, 3, GRACE));
    assert!(!story.core.is_open());
    assert_eq!((story.sent(), story.told()), (vec![], vec![]), "it is not even spoken to");
    // A grant of its own has no meaning.
    story.hear(grant(1, 9));
    story.connects_and_hears(welcome(4, 4, Standing::Resumed));
    assert_eq!(story.sent(), [account(1, &[(1, 7)], &[])]);
    assert_eq!(story.told_else(), []);
    assert_eq!(*story.core.trouble(), End::Deposed { epoch: Epoch(3) });
}

#[test]
fn belief_ends_by_its_own_clock_while_nobody_leads() {
    let mut story = Story::of_servers(2);
    story.hear(not_leader(""));
    while story.now < at(9_750) {
        story.connects_and_hears(not_leader(""));
        let next = story.core.next_deadline().unwrap();
        story.now = next.min(at(9_750));
        story.core.tick(story.now);
    }
    let lost = Effect::Lost { request: RequestId(1), reason: LostReason::Expired };
    assert!(story.told().contains(&lost));
}

#[test]
fn one_coordinator_that_was_restored_from_an_old_copy_is_believed() {
    // It moves past what its clients have seen (rule F3).
    let mut story = Story::of_servers(1);
    story.comes_back(4, 2, Standing::Resumed);
    story.comes_back(2, 3, GRACE);
    assert!(story.core.is_open());
}

#[test]
fn of_one_address_behind_which_there_are_several_no_deposed_leader_is_believed_either() {
    let mut story = Story::of_servers(1);
    story.cut();
    story.connects_and_hears(not_leader(""));
    story.connects_and_hears(welcome(4, 3, Standing::Resumed));
    story.cut();
    story.connects_and_hears(welcome(3, 4, Standing::Resumed));
    assert!(!story.core.is_open());
}

#[test]
fn a_second_connection_goes_where_the_leader_is_said_to_be() {
    let mut story = Story::of_servers(2);
    story.wait_until(OVERDUE);
    assert_eq!(story.second_goes_to(), None);
    story.core.second_connected(story.now);
    story.core.receive_second(not_leader("c:5625"), story.now);
    assert_eq!(story.second_goes_to(), Some("c:5625"));
    story.core.second_connected(story.now);
    story.core.receive_second(welcome(4, 3, Standing::Resumed), story.now);
    assert!(story.core.is_open());
    story.hear(grant(1, 7));
    assert!(!story.told().contains(&granted(1, 7)), "it was held all the time");
}

#[test]
fn a_deposed_leader_over_a_second_connection_costs_the_first_nothing() {
    let mut story = Story::of_servers(2);
    story.wait_until(OVERDUE);
    story.core.second_connected(story.now);
    story.core.receive_second(welcome(2, 2, Standing::Resumed), story.now);
    assert!(story.core.is_open());
    story.hear(ServerMessage::KeptAlive { sequence: 1 });
    assert_eq!(story.core.lease().unwrap().believed_until(), at(2_500 + 9_750));
    assert_eq!(story.told(), []);
}

#[test]
fn second_connections_that_are_sent_to_and_fro_pause_as_others_do() {
    let mut story = Story::of_servers(2);
    story.wait_until(OVERDUE);
    let mut tried = 0;
    while story.core.is_open() {
        if story.core.second_connection().is_some() {
            tried += 1;
            assert!(tried < 60, "{tried} attempts");
            story.core.second_connected(story.now);
            story.core.receive_second(not_leader("b:5625"), story.now);
        } else {
            story.now = story.core.next_deadline().unwrap();
            story.core.tick(story.now);
        }
    }
}

#[test]
fn of_several_servers_two_may_hang_before_a_command_is_stopped() {
    let mut story = Story::of_servers(3);
    story.wait_until(OVERDUE);
    let (mut hung, stopped) = (0, at(6_400));
    while story.now < stopped && story.core.is_open() {
        if story.core.second_connected(story.now).is_some() {
            hung += 1;
        }
        story.now = story.core.next_deadline().unwrap();
        story.core.tick(story.now);
    }
    assert!(hung >= 3, "{hung} were asked");
}
