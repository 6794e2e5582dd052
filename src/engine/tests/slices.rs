//! The consequences of one event are bounded, whatever is stored: counted in looks at things of the
//! table, not in time.

use std::ops::Range;

use super::*;
use crate::engine::arena::LOOKS;

/// Looks at the table for each step that is counted: a step is a claim to grant, to take out or to
/// think about, with its lock, its request and its session.
const LOOKS_PER_STEP: u64 = 24;

/// One connection with one session for each number.
struct Crowd {
    table: Table,
    now: Timestamp,
    /// The latest request of all sessions.
    latest: u64,
    /// The most looks that one event took.
    dearest: u64,
}

impl Crowd {
    fn new() -> Self {
        let limits = Limits { claims_per_session_max: usize::MAX, ..Limits::default() };
        let (start, now) = (start(TOKEN_BLOCK), Timestamp::default());
        let table = Table::new(limits, start, Seed::default(), now);
        Self { table, now, latest: 0, dearest: 0 }
    }

    /// After a crash in which sessions may come back.
    fn in_grace() -> Self {
        let limits = Limits { claims_per_session_max: usize::MAX, ..Limits::default() };
        let ttl_max = Some(Ttl::new(Duration::from_secs(60)).unwrap());
        let mut start = start(TOKEN_BLOCK);
        (start.past.snapshot, start.durable.ttl_max) = (None, ttl_max);
        start.first_token = FencingToken::new(1_000);
        let table = Table::new(limits, start, Seed::default(), Timestamp::default());
        Self { table, now: Timestamp::default(), latest: 0, dearest: 0 }
    }

    fn handle(&mut self, event: &Event) -> Vec<Effect> {
        let (mut effects, before) = (Vec::new(), LOOKS.get());
        self.table.step(event, self.now, &mut effects);
        self.dearest = self.dearest.max(LOOKS.get() - before);
        effects
    }

    fn open(&mut self, sessions: Range<u64>) {
        for number in sessions {
            self.handle(&Event::Attach {
                connection: ConnectionId::new(number),
                peer: None,
                attach: Attach::Open {
                    session: SessionId::new(number.into()),
                    ttl: Ttl::new(Duration::from_secs(60)).unwrap(),
                    linger: None,
                    identity: Identity::default(),
                },
                epoch_seen: Epoch::default(),
                token_seen: FencingToken::default(),
            });
        }
    }

    fn say(&mut self, session: u64, command: Command) -> Vec<Effect> {
        self.handle(&Event::Command { connection: ConnectionId::new(session), command })
    }

    fn request(&mut self, session: u64, owner: u64, name: &str, mode: Mode) -> Vec<Effect> {
        self.latest += 1;
        self.say(
            session,
            Command::Request(Request {
                owner: OwnerId::new(owner),
                ..Request::new(RequestId::new(self.latest), claim(name, mode).unwrap())
            }),
        )
    }

    /// Time passes, and no faster than the table wants to hear of it (rule T3).
    fn pass(&mut self, length: Duration) {
        let end = self.now.after(length);
        while self.now < end {
            self.now = self.now.after(HEARTBEAT).min(end);
            self.handle(&Event::Tick { heard: self.now });
        }
    }

    /// Ticks for as long as something is due now; says how often.
    fn tick_through(&mut self) -> usize {
        let mut ticks = 0;
        while self.table.next_deadline().is_some_and(|at| at <= self.now) {
            self.handle(&Event::Tick { heard: self.now });
            ticks += 1;
            assert!(ticks < 10_000, "there is no end to it");
        }
        ticks
    }
}

fn grants(effects: &[Effect]) -> usize {
    let is_grant =
        |it: &&Effect| matches!(it, Effect::Tell { event: RequestEvent::Granted { .. }, .. });
    effects.iter().filter(is_grant).count()
}

#[test]
fn a_release_that_lets_thousands_in_lets_them_in_a_slice_at_a_time() {
    const READERS: u64 = 30_000;
    let mut crowd = Crowd::new();
    crowd.open(1..4);
    crowd.request(1, 0, "config", Mode::Exclusive);
    for _ in 0..READERS {
        crowd.request(2, 0, "config", Mode::Shared);
    }
    crowd.dearest = 0;
    let token = FencingToken::new(1);
    let told = crowd.say(1, Command::Release { request: RequestId::new(1), token });
    assert!((100..5_000).contains(&grants(&told)), "{} at once", grants(&told));
    assert!(crowd.dearest < SLICE_STEPS_MAX * LOOKS_PER_STEP, "{} looks", crowd.dearest);
    // Whoever comes meanwhile stands behind those that were there.
    let told = crowd.request(3, 0, "config", Mode::Shared);
    assert!(
        told.iter().any(|it| matches!(it, Effect::Tell { event: RequestEvent::Queued { .. }, .. }))
    );
    assert!(crowd.tick_through() > 3);
    assert_eq!(crowd.table.counts().held as u64, READERS + 1);
    assert!(crowd.dearest < SLICE_STEPS_MAX * LOOKS_PER_STEP, "{} looks", crowd.dearest);
    crowd.table.assert_invariants();
}

#[test]
fn thousands_of_leases_that_end_together_end_a_slice_at_a_time_and_the_dead_are_granted_nothing() {
    const SESSIONS: u64 = 20_000;
    let mut crowd = Crowd::new();
    crowd.open(1..SESSIONS + 1);
    crowd.request(SESSIONS, 0, "last", Mode::Exclusive);
    for session in 1..SESSIONS {
        crowd.request(session, 0, "last", Mode::Exclusive);
    }
    crowd.open(SESSIONS + 1..SESSIONS + 2);
    crowd.pass(Duration::from_secs(59));
    crowd.say(SESSIONS + 1, Command::KeepAlive { sequence: 1 });
    crowd.request(SESSIONS + 1, 0, "last", Mode::Exclusive);
    crowd.pass(Duration::from_millis(900));
    crowd.now = crowd.now.after(Duration::from_millis(100));
    crowd.dearest = 0;
    let mut ticks = 0;
    while crowd.table.next_deadline().is_some_and(|at| at <= crowd.now) {
        let told = crowd.handle(&Event::Tick { heard: crowd.now });
        assert_eq!(grants(&told), 0, "the holder's end is not on record, and all others are dead");
        ticks += 1;
    }
    assert!(ticks > 3, "{ticks}");
    assert!(crowd.dearest < SLICE_STEPS_MAX * LOOKS_PER_STEP, "{} looks", crowd.dearest);
    let told = crowd.handle(&Event::Recorded { count: 1 });
    assert_eq!(grants(&told), 1);
    assert_eq!(crowd.table.counts().sessions, 1);
}

#[test]
fn the_end_of_a_grace_period_is_spread_over_ticks_and_everybody_is_asked_about() {
    const OWNERS: u64 = 5_000;
    let mut crowd = Crowd::in_grace();
    crowd.open(1..3);
    // Each owner waits for two locks: nobody may be granted anything yet.
    for owner in 1..=OWNERS {
        crowd.request(1, owner, &format!("a{owner}"), Mode::Exclusive);
        crowd.request(1, owner, "all", Mode::Shared);
    }
    for _ in 0..62 {
        crowd.pass(Duration::from_secs(1));
        if crowd.table.grace_left().is_none() {
            break;
        }
        for session in 1..3 {
            crowd.say(session, Command::KeepAlive { sequence: 1 });
        }
        crowd.dearest = 0;
    }
    let ticks = crowd.tick_through();
    assert!(ticks >= 3, "{ticks}");
    let bound = (SLICE_STEPS_MAX + STEPS_MAX as u64) * LOOKS_PER_STEP;
    assert!(crowd.dearest < bound, "{} looks", crowd.dearest);
    assert_eq!(crowd.table.counts().held as u64, 2 * OWNERS);
    assert_eq!(crowd.table.grace_left(), None);
    crowd.table.assert_invariants();
}

#[test]
fn a_question_among_thousands_of_entangled_waiters_is_bounded_whatever_was_looked_at() {
    const FILL: u64 = 20_000;
    const PAIRS: u64 = 1_500;
    let pool = Mode::Permits { take: 1, of: 2 };
    let mut crowd = Crowd::new();
    crowd.open(1..5);
    crowd.request(1, 0, "queue", Mode::Exclusive);
    crowd.request(1, 0, "pool", pool);
    for owner in 1..=FILL {
        crowd.request(2, owner, "queue", Mode::Exclusive);
    }
    crowd.request(3, 1, "pool", pool);
    for owner in 1..=PAIRS {
        crowd.request(4, owner, "queue", Mode::Exclusive);
        crowd.request(4, owner, "pool", pool);
        crowd.request(4, 0, "queue", Mode::Exclusive);
    }
    crowd.dearest = 0;
    crowd.request(3, 1, "queue", Mode::Exclusive);
    let bound = (STEPS_MAX as u64 + 64) * LOOKS_PER_STEP;
    assert!(crowd.dearest < bound, "{} looks", crowd.dearest);
}

#[test]
fn a_way_back_among_many_who_wait_and_many_who_hold_is_looked_for_within_the_bound() {
    const HOLDERS: u64 = 2_000;
    const WAITERS: u64 = 2_000;
    let mut crowd = Crowd::new();
    crowd.open(1..3);
    // A stranger is the next in line, so everybody behind it waits for all who hold the lock.
    for owner in 1..=HOLDERS {
        crowd.request(1, owner, "shared", Mode::Shared);
        crowd.request(1, owner, "mine", Mode::Shared);
    }
    crowd.request(2, 0, "shared", Mode::Exclusive);
    for owner in 1..=WAITERS {
        crowd.request(2, owner, &format!("own{owner}"), Mode::Exclusive);
        crowd.request(2, owner, "shared", Mode::Exclusive);
    }
    crowd.dearest = 0;
    for owner in 1..=10 {
        crowd.request(1, owner, &format!("own{owner}"), Mode::Exclusive);
    }
    let bound = (STEPS_MAX as u64 + 64) * LOOKS_PER_STEP;
    assert!(crowd.dearest < bound, "{} looks", crowd.dearest);
}

#[test]
fn a_lease_ends_only_once_everything_is_told_that_was_said_in_time() {
    let mut crowd = Crowd::new();
    crowd.open(1..3);
    crowd.request(1, 0, "printer", Mode::Exclusive);
    crowd.request(2, 0, "printer", Mode::Exclusive);
    let ends = crowd.now.after(Duration::from_secs(60));
    crowd.pass(Duration::from_millis(59_500));
    crowd.now = ends.after(Duration::from_millis(400));
    // What was said by then is told late: it is not known yet whether there is more.
    let heard = ends.before(Duration::from_millis(1));
    assert!(crowd.handle(&Event::Tick { heard }).is_empty());
    let told = crowd.say(1, Command::KeepAlive { sequence: 7 });
    assert!(matches!(told[..], [Effect::KeptAlive { sequence: 7, .. }]), "{told:?}");
    let told = crowd.handle(&Event::Tick { heard: ends });
    assert!(
        matches!(told[..], [Effect::Ended { reason: EndReason::Expired, held: 0, waiting: 1, .. }]),
        "{told:?}"
    );
    assert_eq!(crowd.table.counts().held, 1);
}

#[test]
fn what_is_to_be_told_later_renews_a_lease_as_if_it_were_told() {
    let mut crowd = Crowd::new();
    crowd.open(1..2);
    crowd.pass(Duration::from_secs(59));
    crowd.handle(&Event::Heard { connection: ConnectionId::new(1) });
    // One that nobody knows says nothing.
    crowd.handle(&Event::Heard { connection: ConnectionId::new(2) });
    crowd.pass(Duration::from_millis(59_500));
    assert_eq!(crowd.table.counts().sessions, 1);
    crowd.pass(Duration::from_secs(1));
    assert_eq!(crowd.table.counts().sessions, 0);
}

#[test]
fn who_is_dead_and_not_yet_ended_is_not_granted_what_the_living_give_back() {
    const SESSIONS: u64 = 20_000;
    let (holder, heir) = (SESSIONS + 1, SESSIONS + 2);
    let mut crowd = Crowd::new();
    crowd.open(1..holder + 1);
    crowd.request(holder, 0, "turn", Mode::Exclusive);
    crowd.request(SESSIONS, 0, "turn", Mode::Exclusive);
    crowd.pass(Duration::from_millis(59_900));
    crowd.say(holder, Command::KeepAlive { sequence: 1 });
    crowd.open(heir..heir + 1);
    crowd.request(heir, 0, "turn", Mode::Exclusive);
    crowd.now = crowd.now.after(Duration::from_millis(100));
    crowd.handle(&Event::Tick { heard: crowd.now });
    let next_in_line = crowd.table.sessions.find(SessionId::new(SESSIONS.into()));
    assert!(next_in_line.is_some(), "all have ended in one slice");
    let (request, token) = (RequestId::new(1), FencingToken::new(1));
    let told = crowd.say(holder, Command::Release { request, token });
    assert_eq!(grants(&told), 0, "granted to the dead");
    crowd.tick_through();
    let counts = crowd.table.counts();
    assert_eq!((counts.sessions, counts.held, counts.grants), (2, 1, 2));
}

impl Crowd {
    fn cut(&mut self, session: u64) -> Vec<Effect> {
        self.handle(&Event::Disconnect { connection: ConnectionId::new(session) })
    }

    fn resume(&mut self, session: u64, generation: u64) -> Vec<Effect> {
        self.handle(&Event::Attach {
            connection: ConnectionId::new(session),
            peer: None,
            attach: Attach::Resume {
                session: SessionId::new(session.into()),
                proved_in: Epoch::new(1),
                generation: Generation::new(generation),
                ttl: Ttl::new(Duration::from_secs(60)).unwrap(),
                linger: None,
                identity: Identity::default(),
            },
            epoch_seen: Epoch::default(),
            token_seen: FencingToken::default(),
        })
    }
}

#[test]
fn a_hundred_thousand_who_are_away_are_passed_without_a_walk() {
    const AWAY: u64 = 100_000;
    let mut crowd = Crowd::new();
    crowd.open(1..5);
    crowd.request(1, 0, "a", Mode::Exclusive);
    for half in [2, 4] {
        (0..AWAY / 2).for_each(|_| drop(crowd.request(half, 0, "a", Mode::Exclusive)));
        crowd.request(3, 0, "a", Mode::Exclusive);
    }
    crowd.cut(2);
    crowd.cut(4);
    crowd.tick_through();
    crowd.dearest = 0;
    let release = |request, token| Command::Release {
        request: RequestId::new(request),
        token: FencingToken::new(token),
    };
    assert_eq!(grants(&crowd.say(1, release(1, 1))), 1);
    assert_eq!(grants(&crowd.say(3, release(AWAY / 2 + 2, 2))), 1);
    assert_eq!(grants(&crowd.say(3, release(AWAY + 3, 3))), 0);
    assert_eq!(grants(&crowd.request(3, 0, "a", Mode::Exclusive)), 1);
    assert!(crowd.dearest < 500, "{} looks", crowd.dearest);
}

#[test]
fn who_waits_for_thousands_goes_and_comes_a_slice_at_a_time_and_is_granted_nothing_meanwhile() {
    const WAITS: u64 = 30_000;
    let mut crowd = Crowd::new();
    crowd.open(1..4);
    for lock in 0..WAITS {
        crowd.request(1, 0, &format!("lock{lock}"), Mode::Exclusive);
        crowd.request(2, 0, &format!("lock{lock}"), Mode::Exclusive);
        crowd.request(3, 0, &format!("lock{lock}"), Mode::Exclusive);
    }
    crowd.dearest = 0;
    crowd.cut(2);
    assert!(crowd.table.next_deadline().is_some_and(|at| at <= crowd.now), "it is put off");
    // The last is not yet noted as gone, and is not granted for that; it is passed a little later.
    let (last, token) = (RequestId::new(3 * WAITS - 2), FencingToken::new(WAITS));
    let told = crowd.say(1, Command::Release { request: last, token });
    assert_eq!(grants(&told), 0);
    assert!(crowd.tick_through() > 3, "all that in so few slices");
    assert_eq!(crowd.table.counts().grants, WAITS + 1);
    // It comes and goes again meanwhile: what counts is where it is in the end.
    crowd.resume(2, 2);
    crowd.cut(2);
    crowd.resume(2, 3);
    crowd.tick_through();
    let (first, token) = (RequestId::new(1), FencingToken::new(1));
    let told = crowd.say(1, Command::Release { request: first, token });
    let second = SessionId::new(2);
    let is_its = |it: &&Effect| matches!(it, Effect::Tell { session, event: RequestEvent::Granted { .. }, .. } if *session == second);
    assert_eq!(told.iter().filter(is_its).count(), 1);
    assert!(crowd.dearest < SLICE_STEPS_MAX * LOOKS_PER_STEP, "{} looks", crowd.dearest);
    crowd.table.assert_each_is_well();
}
