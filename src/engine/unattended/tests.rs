//! Holds that no connection keeps.

use std::time::Duration;

use super::*;
use crate::engine::seed::Seed;
use crate::engine::{Attach, Command, Durable, Event, Past, Request, Run, Snapshot, Start};
use crate::types::*;

const SECOND: Duration = Duration::from_secs(1);

struct World {
    table: LockTable,
    now: Timestamp,
    latest: u128,
}

fn durable() -> Durable {
    let (epoch, tokens_below) = (Epoch::new(1), FencingToken::new(1 << 40));
    Durable { epoch, tokens_below, ttl_max: Some(Ttl::default()), settled: epoch }
}

fn request(wait: Wait) -> Request {
    let name = LockName::new("printer").unwrap();
    Request {
        wait,
        ..Request::new(
            RequestId::new(1),
            Claims::new([Claim { name, mode: Mode::Exclusive }]).unwrap(),
        )
    }
}

impl World {
    fn new() -> Self {
        Self::with(Snapshot::default(), Limits::default())
    }

    fn with(snapshot: Snapshot, limits: Limits) -> Self {
        let first = if snapshot.request_count() == 0 { 100 } else { 1 << 30 };
        let past = Past { snapshot: Some(snapshot), ..Past::default() };
        let (durable, first_token) = (durable(), FencingToken::new(first));
        let start = Start { durable, first_token, plausible: durable, past };
        let now = Timestamp::from_micros(1_000_000_000);
        Self { table: LockTable::new(limits, start, Seed::default(), now), now, latest: 0 }
    }

    fn handle(&mut self, event: &Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.table.handle(event, self.now, &mut effects);
        effects
    }

    /// Time passes, told twice a second, so that nobody takes it for a stall.
    fn pass(&mut self, length: Duration) -> Vec<Effect> {
        let (until, mut effects) = (self.now.after(length), Vec::new());
        while self.now < until {
            self.now = self.now.after(SECOND / 2).min(until);
            effects.extend(self.handle(&Event::Tick { heard: self.now }));
        }
        effects
    }

    fn ask(&mut self, mark: &[u8], term: Option<Duration>, wait: Wait) -> (SessionId, Vec<Effect>) {
        self.latest += 1;
        let session = SessionId::new(self.latest);
        let hold = Hold {
            session,
            peer: Some("10.0.0.7:51234".parse().unwrap()),
            identity: Identity::default(),
            mark: Mark::new(mark).unwrap(),
            term,
            request: request(wait),
        };
        (session, self.handle(&Event::Hold(Box::new(hold))))
    }

    /// One that is granted at once.
    fn hold(&mut self, mark: &[u8], term: Option<Duration>) -> SessionId {
        let (session, effects) = self.ask(mark, term, Wait::Never);
        assert!(is_granted(session, &effects), "{effects:?}");
        session
    }

    fn prolong(&mut self, session: SessionId, term: Option<Duration>) {
        let prolong = Prolong { session, term: Some(term), mark: None };
        self.handle(&Event::Prolong(Box::new(prolong)));
    }

    fn ends_in(&self, session: SessionId) -> Option<Duration> {
        Some(self.table.unattended(session)?.ends?.since(self.now))
    }

    fn token(&self) -> Option<FencingToken> {
        self.table.lock("printer")?.holders().next().map(|holder| holder.token)
    }

    fn attach(&mut self, connection: u64) -> Vec<Effect> {
        let session = SessionId::new(u128::from(connection) << 64);
        let (ttl, linger, identity) = (Ttl::default(), None, Identity::default());
        self.handle(&Event::Attach {
            connection: ConnectionId::new(connection),
            peer: None,
            attach: Attach::Open { session, ttl, linger, identity },
            epoch_seen: Epoch::default(),
            token_seen: FencingToken::default(),
        })
    }

    fn say(&mut self, connection: u64, command: Command) -> Vec<Effect> {
        let connection = ConnectionId::new(connection);
        self.handle(&Event::Command { connection, command })
    }
}

fn news(of: SessionId, effects: &[Effect]) -> Vec<&RequestEvent> {
    let news = |effect| match effect {
        &Effect::Tell { session, ref event, .. } if session == of => Some(event),
        _ => None,
    };
    effects.iter().filter_map(news).collect()
}

fn is_granted(of: SessionId, effects: &[Effect]) -> bool {
    matches!(news(of, effects)[..], [.., RequestEvent::Granted { .. }])
}

fn has_left(of: SessionId, effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Left { session } if *session == of))
}

#[test]
fn an_unattended_hold_lasts_until_its_moment_and_not_longer() {
    let mut world = World::new();
    let session = world.hold(b"mine", Some(30 * SECOND));
    assert_eq!(world.ends_in(session), Some(30 * SECOND));
    let effects = world.pass(Duration::from_micros(29_999_999));
    assert!(!has_left(session, &effects) && world.token().is_some());
    let effects = world.pass(Duration::from_micros(1));
    assert!(has_left(session, &effects) && world.token().is_none());
    // Nothing is put on record, for nobody could show anything after a crash.
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Record { .. })));
    assert_eq!((world.table.counts().sessions, world.table.counts().expired), (0, 1));
}

#[test]
fn a_try_that_is_refused_leaves_nothing_behind() {
    let mut world = World::new();
    let first = world.hold(b"mine", Some(SECOND));
    let before = world.table.places();
    let (second, effects) = world.ask(b"mine", Some(SECOND), Wait::Never);
    assert!(matches!(news(second, &effects)[..], [RequestEvent::Rejected(Rejection::Busy { .. })]));
    assert!(has_left(second, &effects));
    assert_eq!(world.table.counts().sessions, 1);
    assert!(world.table.unattended(first).is_some() && world.table.unattended(second).is_none());
    for _ in 0..100 {
        world.ask(b"mine", Some(SECOND), Wait::Never);
    }
    assert_eq!(world.table.counts().sessions, 1);
    let grown =
        world.table.places().iter().zip(&before).filter(|(now, then)| *now > &(*then + 4)).count();
    assert_eq!(grown, 0, "{before:?} {:?}", world.table.places());
}

#[test]
fn a_hold_without_an_end_lasts_until_it_is_given_back() {
    let mut world = World::new();
    let session = world.hold(b"mine", None);
    assert_eq!(world.table.unattended(session).unwrap().ends, None);
    world.pass(100 * SECOND);
    assert!(world.token().is_some());
    let effects = world.handle(&Event::Drop { session });
    assert!(has_left(session, &effects) && world.token().is_none());
    assert_eq!(world.table.tally().releases, 1);
}

#[test]
fn an_end_is_put_off_or_comes_earlier_or_never() {
    let mut world = World::new();
    let session = world.hold(b"mine", Some(10 * SECOND));
    world.pass(5 * SECOND);
    world.prolong(session, Some(10 * SECOND));
    assert_eq!(world.ends_in(session), Some(10 * SECOND));
    world.pass(9 * SECOND);
    assert!(world.token().is_some());
    world.prolong(session, None);
    world.pass(60 * SECOND);
    assert!(world.token().is_some());
    world.prolong(session, Some(2 * SECOND));
    world.prolong(session, Some(SECOND));
    let effects = world.pass(SECOND);
    assert!(has_left(session, &effects));
}

#[test]
fn a_hold_is_known_by_another_mark_without_a_new_token() {
    let mut world = World::new();
    let (session, before) = (world.hold(b"mine", Some(10 * SECOND)), world.token());
    let prolong = Prolong { session, term: None, mark: Mark::new(b"later") };
    world.handle(&Event::Prolong(Box::new(prolong)));
    assert_eq!(world.table.unattended(session).unwrap().mark, &Mark::new(b"later").unwrap());
    assert_eq!((world.token(), world.ends_in(session)), (before, Some(10 * SECOND)));
}

#[test]
fn the_time_of_one_who_waited_begins_with_the_grant() {
    let mut world = World::new();
    let first = world.hold(b"first", Some(20 * SECOND));
    let (second, effects) = world.ask(b"second", Some(6 * SECOND), Wait::Forever);
    assert!(matches!(news(second, &effects)[..], [RequestEvent::Queued { .. }]));
    let effects = world.pass(20 * SECOND);
    assert!(has_left(first, &effects) && is_granted(second, &effects));
    assert_eq!(world.ends_in(second), Some(6 * SECOND));
    let effects = world.pass(Duration::from_micros(5_999_999));
    assert!(!has_left(second, &effects) && world.token().is_some());
    let effects = world.pass(Duration::from_micros(1));
    assert!(has_left(second, &effects));
}

#[test]
fn one_who_waits_no_longer_is_told_and_leaves() {
    let mut world = World::new();
    let first = world.hold(b"first", None);
    let (second, _) = world.ask(b"second", Some(SECOND), Wait::AtMost(3 * SECOND));
    let effects = world.pass(3 * SECOND);
    let told = news(second, &effects);
    assert!(matches!(told[..], [RequestEvent::Rejected(Rejection::TimedOut { .. })]), "{told:?}");
    assert!(has_left(second, &effects));
    let (third, _) = world.ask(b"third", Some(SECOND), Wait::Forever);
    assert!(has_left(third, &world.handle(&Event::Drop { session: third })));
    let (fourth, _) = world.ask(b"fourth", Some(SECOND), Wait::Forever);
    let effects = world.handle(&Event::Withdraw { session: fourth, request: RequestId::new(1) });
    assert!(has_left(fourth, &effects));
    let (fifth, _) = world.ask(b"fifth", Some(SECOND), Wait::Forever);
    let effects = world.handle(&Event::Drain);
    assert!(has_left(fifth, &effects) && !has_left(first, &effects));
    assert_eq!(world.table.counts().sessions, 1);
}

#[test]
fn attended_and_unattended_exclude_each_other_and_stand_in_one_line() {
    let mut world = World::new();
    world.attach(1);
    let session = world.hold(b"mine", Some(9 * SECOND));
    world.say(1, Command::Request(request(Wait::Forever)));
    let (late, effects) = world.ask(b"late", Some(SECOND), Wait::Never);
    assert!(matches!(news(late, &effects)[..], [RequestEvent::Rejected(_)]));
    let (third, _) = world.ask(b"third", Some(SECOND), Wait::Forever);
    let effects = world.handle(&Event::Drop { session });
    let granted = Some(ConnectionId::new(1));
    assert!(effects.iter().any(|effect| matches!(
        effect,
        Effect::Tell { connection, event: RequestEvent::Granted { .. }, .. } if *connection == granted
    )));
    assert!(!is_granted(third, &effects));
    let effects = world.say(1, Command::Goodbye);
    assert!(is_granted(third, &effects));
    world.attach(2);
    let effects = world.say(2, Command::Request(request(Wait::Never)));
    assert!(effects.iter().any(|effect| matches!(
        effect,
        Effect::Tell { event: RequestEvent::Rejected(Rejection::Busy { .. }), .. }
    )));
}

#[test]
fn an_operator_takes_an_unattended_hold_away() {
    let mut world = World::new();
    let session = world.hold(b"mine", None);
    let (connection, query_id, token) = (ConnectionId::new(9), 4, world.token().unwrap());
    let name = LockName::new("printer").unwrap();
    world.handle(&Event::Revoke { connection, query_id, name, token });
    let effects = world.handle(&Event::Recorded { count: 1 });
    assert!(has_left(session, &effects) && world.token().is_none());
}

#[test]
fn there_are_as_many_sessions_as_may_be_whoever_attends_them() {
    let limits = Limits { sessions_max: 2, sessions_per_address_max: Some(2), ..Limits::default() };
    let mut world = World::with(Snapshot::default(), limits);
    world.attach(1);
    let session = world.hold(b"mine", None);
    let (third, effects) = world.ask(b"third", None, Wait::Forever);
    let no = |effects: &[Effect], of| match news(of, effects)[..] {
        [RequestEvent::Rejected(rejection)] => rejection.code(),
        ref other => panic!("{other:?}"),
    };
    assert_eq!(no(&effects, third), RejectionCode::TooManySessions);
    world.handle(&Event::Drop { session });
    let limits = Limits { sessions_per_address_max: Some(0), ..limits };
    let mut world = World::with(Snapshot::default(), limits);
    let (session, effects) = world.ask(b"mine", None, Wait::Never);
    assert_eq!(no(&effects, session), RejectionCode::TooManySessions);
}

#[test]
fn a_run_that_goes_on_keeps_holds_and_their_ends_and_gives_up_waits() {
    let mut world = World::new();
    let first = world.hold(b"first", Some(30 * SECOND));
    let (second, _) = world.ask(b"second", Some(SECOND), Wait::Forever);
    world.pass(10 * SECOND);
    let (durable, limits) = (durable(), Limits::default());
    let first_token = FencingToken::new(1 << 30);
    let run = Run { durable, first_token, plausible: durable, limits };
    let effects = world.handle(&Event::Began(run));
    assert!(has_left(second, &effects) && !has_left(first, &effects));
    assert_eq!(world.ends_in(first), Some(20 * SECOND));
    assert!(has_left(first, &world.pass(20 * SECOND)));
}

#[test]
fn a_snapshot_keeps_holds_and_what_is_left_of_their_time() {
    let mut world = World::new();
    let first = world.hold(b"first", Some(30 * SECOND));
    world.ask(b"second", Some(SECOND), Wait::Forever);
    world.pass(10 * SECOND);
    let token = world.token();
    let mut next = World::with(world.table.snapshot(), Limits::default());
    assert_eq!(next.table.counts().sessions, 1, "whoever waited is gone with the process");
    assert_eq!((next.token(), next.ends_in(first)), (token, Some(20 * SECOND)));
    assert_eq!(next.table.unattended(first).unwrap().mark, &Mark::new(b"first").unwrap());
    assert!(has_left(first, &next.pass(20 * SECOND)));
    // What ends never is not made to end by that.
    let endless = World::new().hold_and_save(None);
    let mut next = World::with(endless, Limits::default());
    next.pass(100 * SECOND);
    assert!(next.token().is_some());
}

impl World {
    fn hold_and_save(mut self, term: Option<Duration>) -> Snapshot {
        self.hold(b"mine", term);
        self.table.snapshot()
    }
}

#[test]
fn nobody_is_granted_anything_unattended_in_a_grace_period() {
    let mut world = World::new();
    let past = Past::default();
    let durable = durable();
    let start = Start { durable, first_token: FencingToken::new(7), plausible: durable, past };
    world.table = LockTable::new(Limits::default(), start, Seed::default(), world.now);
    let (session, effects) = world.ask(b"mine", None, Wait::Never);
    assert!(matches!(
        news(session, &effects)[..],
        [RequestEvent::Rejected(Rejection::Grace { .. })]
    ));
    let (waiting, _) = world.ask(b"mine", Some(5 * SECOND), Wait::Forever);
    let effects = world.pass(11 * SECOND);
    assert!(is_granted(waiting, &effects));
}

#[test]
fn only_unattended_sessions_are_prolonged_or_dropped() {
    let mut world = World::new();
    world.attach(1);
    world.say(1, Command::Request(request(Wait::Never)));
    let session = SessionId::new(1 << 64);
    let before = world.table.sessions(0).next().unwrap().1.lease_ends;
    world.prolong(session, Some(SECOND));
    world.handle(&Event::Drop { session });
    world.prolong(SessionId::new(77), Some(SECOND));
    world.handle(&Event::Drop { session: SessionId::new(77) });
    assert_eq!(world.table.sessions(0).next().unwrap().1.lease_ends, before);
    assert!(world.token().is_some());
}
