//! A lock table without anything around it, filled as wanted, and the events that make pairs on it.
//!
//! Events are made before they are measured: a token is one more than the one before, so the
//! release of a request can be made before its grant is known.
#![allow(dead_code, unreachable_pub, reason = "each bench uses a part of it")]

use std::collections::VecDeque;
use std::time::Duration;

use coordinator::engine::{
    Attach, Command, Durable, Effect, Event, LockTable, Past, Request, Seed, Snapshot, Start,
};
use coordinator::types::{
    Claim, ConnectionId, Epoch, FencingToken, Identity, Limits, LockName, Mode, RequestId,
    SessionId, Timestamp, Ttl, Wait,
};

/// How many pairs are made at a time: few enough that their events stay in a near cache.
pub const CHUNK: u64 = 64;
/// Tokens below this are said to be on disk: more than any bench grants.
const TOKENS_BELOW: u64 = 1 << 50;
/// Passes from one event to the next.
const MICROS_PER_EVENT: u64 = 1;

/// A table, and what its clients know.
pub struct World {
    /// The table. Its hasher has no seed, so that every run is the same.
    pub table: LockTable,
    /// What the table wants done.
    pub effects: Vec<Effect>,
    /// The moment that it is, in microseconds.
    now: u64,
    /// The latest token granted.
    last_token: u64,
    /// The latest request id of each session; session *n* is that of connection *n*.
    latest: Vec<u64>,
    /// Who holds the lock that is handed over, and who waits for it, in order.
    queue: VecDeque<(usize, u64)>,
}

impl World {
    /// A table with this many sessions.
    pub fn new(sessions: usize) -> Self {
        let ttl = Ttl::new(Duration::from_secs(3600)).expect("an hour is allowed");
        let durable = Durable {
            epoch: Epoch(1),
            tokens_below: FencingToken::new(TOKENS_BELOW),
            ttl_max: Some(ttl),
            settled: Epoch(1),
        };
        let past = Past { snapshot: Some(Snapshot::default()), ..Past::default() };
        let first_token = FencingToken(1);
        let start = Start { durable, first_token, plausible: durable, past };
        let limits = Limits {
            sessions_max: 4_000_000,
            claims_per_session_max: 4_000_000,
            waiters_per_lock_max: 4_000_000,
            ttl_max: ttl,
            ..Limits::default()
        };
        let origin = Timestamp::from_micros(0);
        let mut world = Self {
            table: LockTable::new(limits, start, Seed::default(), origin),
            effects: Vec::new(),
            now: 0,
            last_token: 0,
            latest: vec![0; sessions],
            queue: VecDeque::new(),
        };
        for session in 0..sessions {
            world.handle(&Event::Attach {
                connection: connection(session),
                peer: None,
                attach: Attach::Open {
                    session: SessionId::new(session as u128 + 1),
                    ttl,
                    linger: None,
                    identity: Identity::default(),
                },
                epoch_seen: Epoch(0),
                token_seen: FencingToken(0),
            });
        }
        assert_eq!(world.table.counts().sessions, sessions);
        world
    }

    /// Lets one event happen, and forgets what is to be done about it.
    pub fn handle(&mut self, event: &Event) {
        self.now += MICROS_PER_EVENT;
        self.table.handle(event, Timestamp::from_micros(self.now), &mut self.effects);
        self.effects.clear();
    }

    /// The same, but `look` sees each thing that is to be done.
    pub fn handle_and(&mut self, event: &Event, mut look: impl FnMut(&Effect)) {
        self.now += MICROS_PER_EVENT;
        self.table.handle(event, Timestamp::from_micros(self.now), &mut self.effects);
        for effect in self.effects.drain(..) {
            look(&effect);
        }
    }

    /// Has session 0 hold this many locks, of names of their own.
    pub fn hold(&mut self, locks: usize) {
        for lock in 0..locks {
            let event = self.request(0, &format!("held-{lock:07}"), Wait::Forever);
            self.last_token += 1;
            self.handle(&event);
        }
        assert_eq!(self.table.counts().held, locks);
    }

    /// Has one session hold a lock, and this many requests wait for it, each for so long as `wait`
    /// says. They are of different sessions as far as there are such.
    pub fn queue_up(&mut self, waiters: usize, wait: Wait) {
        for number in 0..=waiters {
            let session = number % self.latest.len();
            let event = self.request(session, "queue", wait);
            self.queue.push_back((session, self.latest[session]));
            self.handle(&event);
        }
        self.last_token += 1;
        assert_eq!(self.table.counts().waiting, waiters);
    }

    /// The events of this many pairs of session 0, each on a lock of its own.
    pub fn pairs(&mut self, pairs: u64) -> Vec<Event> {
        let mut events = Vec::new();
        for pair in 0..pairs {
            let name = format!("bench-{:013}", pair % CHUNK);
            events.push(self.request(0, &name, Wait::Forever));
            self.last_token += 1;
            events.push(release(0, self.latest[0], self.last_token));
        }
        events
    }

    /// The events of this many hand-overs in the queue: the holder releases, and queues up again.
    pub fn hand_overs(&mut self, hand_overs: u64) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..hand_overs {
            let (session, request) = self.queue.pop_front().expect("there is a queue");
            events.push(release(session, request, self.last_token));
            self.last_token += 1;
            events.push(self.request(session, "queue", Wait::Forever));
            self.queue.push_back((session, self.latest[session]));
        }
        events
    }

    /// The id and the token that session 0's next pair will have.
    pub fn foresee_pair(&mut self) -> (u64, u64) {
        self.latest[0] += 1;
        self.last_token += 1;
        (self.latest[0], self.last_token)
    }

    /// That everything went as its events foresaw.
    pub fn check(&self) {
        assert_eq!(
            self.table.counts().grants,
            self.last_token,
            "a request was not granted in turn"
        );
    }

    fn request(&mut self, session: usize, name: &str, wait: Wait) -> Event {
        self.latest[session] += 1;
        let name = LockName::new(name).expect("a name");
        let request = Request {
            wait,
            ..Request::new(
                RequestId::new(self.latest[session]),
                Claim { name, mode: Mode::Exclusive },
            )
        };
        Event::Command { connection: connection(session), command: Command::Request(request) }
    }
}

fn release(session: usize, request: u64, token: u64) -> Event {
    let (request, token) = (RequestId::new(request), FencingToken::new(token));
    Event::Command { connection: connection(session), command: Command::Release { request, token } }
}

/// The connection of a session.
pub fn connection(session: usize) -> ConnectionId {
    ConnectionId::new(session as u64 + 1)
}
