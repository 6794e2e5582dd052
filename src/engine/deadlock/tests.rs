//! The cost of deadlock detection. The stories show its answers.

use super::*;
use crate::engine::seed::Seed;
use crate::engine::{
    Attach, CYCLE_TOLD_MAX, Command, Durable, Effect, Event, Past, Request, RequestEvent, Snapshot,
    Start,
};
use crate::types::{
    Claim, Claims, ConnectionId, Epoch, Identity, Limits, LockName, Mode, OwnerId, RequestId,
    SessionId, Timestamp, Ttl,
};

type Table = LockTable;

const NOW: Timestamp = Timestamp::from_micros(1);

/// One session with many owners.
struct Crowd {
    table: Table,
    requests: u64,
    effects: Vec<Effect>,
}

impl Crowd {
    fn new() -> Self {
        let tokens_below = FencingToken::new(1 << 20);
        let (epoch, ttl_max) = (Epoch::new(1), Some(Ttl::default()));
        let durable = Durable { epoch, tokens_below, ttl_max, settled: epoch };
        let past = Past { snapshot: Some(Snapshot::default()), ..Past::default() };
        let first_token = FencingToken::new(1);
        let start = Start { durable, first_token, plausible: durable, past };
        let limits = Limits { claims_per_session_max: usize::MAX, ..Limits::default() };
        let table = Table::new(limits, start, Seed::default(), NOW);
        let mut crowd = Self { table, requests: 0, effects: Vec::new() };
        crowd.handle(&Event::Attach {
            connection: ConnectionId::new(1),
            peer: None,
            attach: Attach::Open {
                session: SessionId::new(1),
                ttl: Ttl::default(),
                linger: None,
                identity: Identity::default(),
            },
            epoch_seen: Epoch::new(0),
            token_seen: FencingToken::new(0),
        });
        crowd
    }

    fn handle(&mut self, event: &Event) {
        self.effects.clear();
        // Not through the invariants, which look at everything after every event.
        self.table.step(event, NOW, &mut self.effects);
    }

    fn request(&mut self, owner: u64, names: &[&str], mode: Mode) -> RequestId {
        self.requests += 1;
        let id = RequestId::new(self.requests);
        let claim = |name: &&str| Claim { name: LockName::new(*name).unwrap(), mode };
        let request = Request {
            owner: OwnerId::new(owner),
            ..Request::new(id, Claims::new(names.iter().map(claim)).unwrap())
        };
        let (connection, command) = (ConnectionId::new(1), Command::Request(request));
        self.handle(&Event::Command { connection, command });
        id
    }

    /// The cycle, if the latest request was rejected for one.
    fn cycle(&self) -> Option<&[CycleLink]> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Tell {
                event: RequestEvent::Rejected(Rejection::Deadlock { cycle }), ..
            } => Some(&cycle[..]),
            _ => None,
        })
    }

    /// How many claims were looked at for the question about a request, asked once more.
    fn steps(&self, request: RequestId) -> usize {
        let session = self.table.sessions.find(SessionId::new(1)).unwrap();
        let key = self.table.requests.find(session, request).unwrap();
        let mut inquiry = Inquiry::new(&self.table);
        assert!(!inquiry.run(inquiry.who(key)));
        STEPS_MAX - inquiry.steps_left
    }
}

#[test]
fn strangers_in_a_queue_cost_the_question_nothing() {
    let mut crowd = Crowd::new();
    crowd.request(1, &["mine"], Mode::Exclusive);
    crowd.request(0, &["theirs"], Mode::Exclusive);
    crowd.request(0, &["pool"], Mode::Permits { take: 2, of: 2 });
    for _ in 0..20_000 {
        crowd.request(0, &["mine"], Mode::Exclusive);
        crowd.request(0, &["theirs"], Mode::Shared);
        crowd.request(0, &["pool"], Mode::Permits { take: 1, of: 2 });
    }
    let request = crowd.request(1, &["theirs"], Mode::Exclusive);
    assert!(crowd.steps(request) < 20, "{} steps", crowd.steps(request));
    let request = crowd.request(1, &["pool"], Mode::Permits { take: 1, of: 2 });
    assert!(crowd.steps(request) < 20, "{} steps", crowd.steps(request));
}

#[test]
fn the_cost_grows_with_those_who_depend_on_the_owner() {
    let mut crowd = Crowd::new();
    crowd.request(1, &["mine"], Mode::Exclusive);
    crowd.request(0, &["theirs"], Mode::Exclusive);
    crowd.request(0, &["elsewhere"], Mode::Exclusive);
    for owner in 2..1_002 {
        // Those that have nothing else are passed by.
        crowd.request(owner, &["mine"], Mode::Exclusive);
    }
    let request = crowd.request(1, &["theirs"], Mode::Exclusive);
    let passed = crowd.steps(request);
    assert!((1_000..1_100).contains(&passed), "{passed} steps");
    for owner in 2..1_002 {
        crowd.request(owner, &["other"], Mode::Shared);
    }
    let request = crowd.request(1, &["elsewhere"], Mode::Exclusive);
    let steps = crowd.steps(request);
    assert!((1_000..6_000).contains(&steps), "{steps} steps");
}

/// Owner n holds the lock n and waits for the lock n + 1.
fn chain(crowd: &mut Crowd, len: u64) {
    let names: Vec<String> = (0..=len).map(|n| format!("lock-{n}")).collect();
    for n in 1..=len {
        crowd.request(n, &[&names[usize::try_from(n).unwrap() - 1]], Mode::Exclusive);
    }
    // From the end: so nobody waits for the one who asks, and the answer costs nothing.
    for n in (1..len).rev() {
        crowd.request(n, &[&names[usize::try_from(n).unwrap()]], Mode::Exclusive);
        assert!(crowd.cycle().is_none());
    }
}

#[test]
fn a_circle_of_a_thousand_is_found_and_its_beginning_is_told() {
    let mut crowd = Crowd::new();
    chain(&mut crowd, 1_000);
    crowd.request(1_000, &["lock-0"], Mode::Exclusive);
    let cycle = crowd.cycle().expect("a circle");
    assert_eq!(cycle.len(), CYCLE_TOLD_MAX);
    assert_eq!((cycle[0].owner, cycle[0].lock.as_str()), (OwnerId::new(1_000), "lock-0"));
    assert_eq!((cycle[1].owner, cycle[1].lock.as_str()), (OwnerId::new(1), "lock-1"));
}

#[test]
fn a_circle_larger_than_the_bound_is_waited_in() {
    let mut crowd = Crowd::new();
    // Each link costs two steps at least: one for what is held, one for what is waited for.
    let len = STEPS_MAX as u64 / 2 + 1;
    chain(&mut crowd, len);
    crowd.request(len, &["lock-0"], Mode::Exclusive);
    assert!(crowd.cycle().is_none());
    assert_eq!(crowd.table.counts().waiting as u64, len);
}

#[test]
fn a_circle_within_a_crowd_larger_than_the_bound_is_waited_in() {
    // All of the crowd are found to depend on the first within the bound, but not that they go on.
    let crowd_of = |len: u64| {
        let mut crowd = Crowd::new();
        crowd.request(1, &["mine"], Mode::Exclusive);
        crowd.request(2, &["theirs"], Mode::Exclusive);
        crowd.request(2, &["mine"], Mode::Exclusive);
        for owner in 3..3 + len {
            crowd.request(owner, &[&format!("lock-{owner}")], Mode::Exclusive);
            crowd.request(owner, &["mine"], Mode::Exclusive);
        }
        crowd.request(1, &["theirs"], Mode::Exclusive);
        crowd
    };
    assert_eq!(crowd_of(100).cycle().map(<[_]>::len), Some(2));
    assert!(crowd_of(STEPS_MAX as u64 * 7 / 24).cycle().is_none());
}

#[test]
fn a_request_without_an_owner_is_never_asked_about() {
    let mut crowd = Crowd::new();
    crowd.request(0, &["a", "b"], Mode::Exclusive);
    let request = crowd.request(0, &["b", "c"], Mode::Exclusive);
    let session = crowd.table.sessions.find(SessionId::new(1)).unwrap();
    let key = crowd.table.requests.find(session, request).unwrap();
    assert!(crowd.table.is_alone(key));
}
