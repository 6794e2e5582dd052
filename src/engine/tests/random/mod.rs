//! Arbitrary histories: whatever happens in whatever order, the invariants hold after each event,
//! and what is told is consistent.

mod steps;
mod unattended;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use proptest::prelude::*;

use self::steps::{Left, Step, step};
use super::*;
use crate::engine::image::tests::Twin;
use crate::types::Held;
use crate::types::*;

type Table = LockTable;

const SESSIONS: u64 = 5;
const LOCKS: usize = 4;

/// What the clients were told, and whether it makes sense.
struct World {
    table: Table,
    /// What a replay of all that was told makes of it, if anybody looks at that.
    twin: Option<Twin>,
    now: Timestamp,
    connections: u64,
    /// The engine's id of each of our sessions, its connection and generation.
    sessions: HashMap<u64, (SessionId, ConnectionId, u64)>,
    next_session: u128,
    /// The requests of each session, by id less one, as they were first made.
    requests: HashMap<SessionId, Vec<Request>>,
    tokens: HashMap<(SessionId, RequestId), FencingToken>,
    finished: HashSet<(SessionId, RequestId)>,
    /// What was held when the coordinator last crashed.
    held_before: HashMap<(SessionId, RequestId), FencingToken>,
    /// The run that last sealed each grant.
    seals: HashMap<(SessionId, RequestId), Epoch>,
    /// The run that last welcomed each session.
    secrets: HashMap<SessionId, Epoch>,
    ended: HashSet<SessionId>,
    /// When what is held was granted.
    granted: HashMap<(SessionId, RequestId), Timestamp>,
    /// Requests that their client has said not to know of.
    unknown: HashSet<(SessionId, RequestId)>,
    /// Until when locks are nobody else's, and after the hold with which token.
    kept: HashMap<LockName, (Timestamp, FencingToken)>,
    /// Sessions that nobody attends, in the order in which they were asked for.
    unattended: Vec<SessionId>,
    /// For how long each of them is to hold, if not until it is given back.
    terms: HashMap<SessionId, Duration>,
    /// Until when each is to hold at least that does; none: until it is given back.
    until: HashMap<SessionId, Option<Timestamp>>,
    /// Whether holds may be over before they were to.
    takes_away: bool,
    last_token: FencingToken,
    disk_works: bool,
    unsaved: Vec<Durable>,
    unrecorded: Vec<(u64, Forfeit)>,
    /// What is on disk.
    durable: Durable,
    recorded: Vec<(u64, Forfeit)>,
}

/// What clients may have seen at most.
fn plausible() -> Durable {
    let (epoch, tokens_below) = (Epoch::new(1 << 20), FencingToken::new(1 << 40));
    Durable { epoch, tokens_below, ..Durable::default() }
}

fn begin(durable: Durable, first_token: FencingToken, past: Past, now: Timestamp) -> Table {
    let start = Start { durable, first_token, plausible: plausible(), past };
    Table::new(Limits::default(), start, Seed::default(), now)
}

impl World {
    fn new() -> Self {
        let (epoch, ttl_max) = (Epoch::new(1), Some(Ttl::default()));
        let tokens_below = FencingToken::new(20);
        let durable = Durable { epoch, tokens_below, ttl_max, settled: epoch };
        let now = Timestamp::default();
        let past = Past { snapshot: Some(Snapshot::default()), ..Past::default() };
        let table = begin(durable, FencingToken::new(1), past, now);
        Self {
            twin: Some(Twin::of(&table)),
            table,
            now,
            connections: 0,
            sessions: HashMap::new(),
            next_session: 0,
            requests: HashMap::new(),
            tokens: HashMap::new(),
            finished: HashSet::new(),
            held_before: HashMap::new(),
            seals: HashMap::new(),
            secrets: HashMap::new(),
            ended: HashSet::new(),
            granted: HashMap::new(),
            unknown: HashSet::new(),
            kept: HashMap::new(),
            unattended: Vec::new(),
            terms: HashMap::new(),
            until: HashMap::new(),
            takes_away: false,
            last_token: FencingToken::default(),
            disk_works: false,
            unsaved: Vec::new(),
            unrecorded: Vec::new(),
            durable,
            recorded: Vec::new(),
        }
    }

    /// The next run goes on where a replay of what the one before was told has got to (rule J4).
    fn replay(&mut self) {
        let Some(twin) = &self.twin else { return };
        self.table = twin.table();
        // What was ordered and not confirmed is asked for again (rule J8).
        let pending = std::mem::take(&mut self.unrecorded);
        self.unsaved.clear();
        let (first_token, plausible) = (self.durable.tokens_below, plausible());
        self.durable.epoch = Epoch::new(self.durable.epoch.number() + 1);
        self.durable.tokens_below = FencingToken::new(first_token.number() + 20);
        let durable = self.durable;
        let works = std::mem::replace(&mut self.disk_works, false);
        let limits = self.table.limits;
        self.handle(&Event::Began(Run { durable, first_token, plausible, limits }));
        assert_eq!(self.unrecorded[..pending.len()], pending, "what may not be on record");
        self.disk_works = works;
    }

    /// The next run begins: after a crash, or an orderly stop.
    fn restart(&mut self, orderly: bool) {
        let snapshot = orderly.then(|| self.table.snapshot());
        if !orderly {
            // What the clients know of requests is of use only if they still hold.
            self.tokens.retain(|key, _| !self.finished.contains(key));
            self.held_before = std::mem::take(&mut self.tokens);
            self.finished.clear();
            self.ended.clear();
            self.granted.clear();
            self.kept.clear();
        }
        let forfeits = self.recorded.iter().map(|(_, forfeit)| *forfeit).collect();
        let next_record = self.recorded.last().map_or(0, |(number, _)| number + 1);
        let past = Past { snapshot, forfeits, next_record };
        self.unsaved.clear();
        self.unrecorded.clear();
        let first = self.durable.tokens_below;
        self.durable.epoch = Epoch::new(self.durable.epoch.number() + 1);
        self.durable.tokens_below = FencingToken::new(first.number() + 20);
        self.table = begin(self.durable, first, past, self.now);
        self.twin = Some(Twin::of(&self.table));
    }

    fn handle(&mut self, event: &Event) {
        let mut effects = Vec::new();
        self.table.handle(event, self.now, &mut effects);
        if let Some(twin) = &mut self.twin {
            twin.follow(event, self.now, &self.table, &effects);
        }
        for effect in effects {
            self.check(effect);
        }
        if self.disk_works {
            for durable in std::mem::take(&mut self.unsaved) {
                self.durable = durable;
                self.handle(&Event::Persisted(durable));
            }
            let count = self.unrecorded.len();
            if count > 0 {
                self.recorded.append(&mut self.unrecorded);
                // A lock may be taken away by that.
                self.takes_away = true;
                self.handle(&Event::Recorded { count });
                self.takes_away = false;
            }
        }
    }

    fn check(&mut self, effect: Effect) {
        match effect {
            Effect::Tell { session, request, event, .. } => {
                let key = (session, request);
                match event {
                    RequestEvent::Granted { token } => {
                        assert!(!self.ended.contains(&session), "granted to a dead session");
                        assert!(!self.finished.contains(&key), "granted after its end");
                        self.seals.insert(key, self.table.epoch());
                        let converted = self.converted_token(key);
                        let began = self.began(key, converted == Some(token));
                        if let Some(known) = self.tokens.insert(key, token) {
                            assert_eq!(known, token, "granted twice");
                        } else if self.held_before.get(&key) == Some(&token) {
                            // Reclaimed, with the token it had.
                        } else if converted == Some(token) {
                            // Less than before, under the same token.
                        } else {
                            assert!(token > self.last_token, "a token that is not greater");
                            self.last_token = token;
                            self.check_kept(key);
                        }
                        self.granted.entry(key).or_insert(began);
                        if let Some(term) = self.terms.get(&session) {
                            self.until.insert(session, Some(self.now.after(*term)));
                        }
                    }
                    RequestEvent::Requested => panic!("told that it came"),
                    RequestEvent::Queued { .. } => assert!(!self.tokens.contains_key(&key)),
                    RequestEvent::Rejected(Rejection::NotHolder { .. }) => {}
                    RequestEvent::Released { .. } if self.finished.insert(key) => self.keep(key),
                    RequestEvent::Released { .. }
                    | RequestEvent::Cancelled
                    | RequestEvent::Lost { .. }
                    | RequestEvent::Rejected(_) => {
                        self.granted.remove(&key);
                        self.finished.insert(key);
                    }
                }
            }
            Effect::Ended { session, .. } => {
                assert!(self.ended.insert(session));
                let held: Vec<_> =
                    self.granted.keys().filter(|key| key.0 == session).copied().collect();
                for key in held {
                    self.keep(key);
                }
            }
            Effect::Left { session } => {
                self.ended.insert(session);
                self.granted.retain(|key, _| key.0 != session);
                let until = self.until.remove(&session).flatten();
                assert!(
                    self.takes_away || until.is_none_or(|until| until <= self.now),
                    "too early"
                );
            }
            Effect::Revoked { token, .. } => self.kept.retain(|_, (_, of)| *of != token),
            Effect::Persist(durable) => self.unsaved.push(durable),
            Effect::Record { number, forfeit } => self.unrecorded.push((number, forfeit)),
            Effect::ForgetRecords { below } => self.recorded.retain(|(n, _)| *n >= below),
            Effect::Welcome { session, .. } => {
                self.secrets.insert(session, self.table.epoch());
            }
            Effect::Refused { .. }
            | Effect::Superseded { .. }
            | Effect::KeptAlive { .. }
            | Effect::HoldersChanged { .. }
            | Effect::Happened { .. }
            | Effect::NotRevoked { .. } => {}
        }
    }

    /// Since when a request that is granted has its locks; what it converts has them no more.
    fn began(&mut self, key: (SessionId, RequestId), is_less: bool) -> Timestamp {
        let converts = self.request(key).and_then(|request| request.converts);
        let before = converts.and_then(|converts| self.granted.remove(&(key.0, converts)));
        before.filter(|_| is_less).unwrap_or(self.now)
    }

    /// A hold is over, and its locks are kept for as long as it asked for.
    fn keep(&mut self, key: (SessionId, RequestId)) {
        let is_unknown = self.unknown.contains(&key);
        let Some(began) = self.granted.remove(&key).filter(|_| !is_unknown) else { return };
        let Some(request) = self.request(key).cloned() else { return };
        let (until, token) = (began.after(request.wants().at_least), self.tokens[&key]);
        for claim in request.claims.as_slice().iter().filter(|_| until > self.now) {
            let kept = self.kept.entry(claim.name.clone()).or_default();
            *kept = (*kept).max((until, token));
        }
    }

    /// Nobody is granted what is kept.
    fn check_kept(&self, key: (SessionId, RequestId)) {
        for claim in self.request(key).iter().flat_map(|request| request.claims.as_slice()) {
            let kept = self.kept.get(&claim.name).filter(|(until, _)| *until > self.now);
            assert_eq!(kept, None, "{:?} is granted while it is kept", claim.name);
        }
    }

    /// The token of the request that this one converts.
    fn converted_token(&self, key: (SessionId, RequestId)) -> Option<FencingToken> {
        let converts = self.request(key)?.converts?;
        self.tokens.get(&(key.0, converts)).copied()
    }

    /// What was asked for.
    fn request(&self, (session, request): (SessionId, RequestId)) -> Option<&Request> {
        let index = usize::try_from(request.number() - 1).ok()?;
        self.requests.get(&session)?.get(index)
    }

    fn attach(&mut self, attach: Attach) -> ConnectionId {
        self.connections += 1;
        let connection = ConnectionId::new(self.connections);
        let (epoch_seen, token_seen) = (Epoch::default(), FencingToken::default());
        self.handle(&Event::Attach { connection, peer: None, attach, epoch_seen, token_seen });
        connection
    }

    fn say(&mut self, session: u64, command: Command) {
        if let Some((_, connection, _)) = self.sessions.get(&session) {
            self.handle(&Event::Command { connection: *connection, command });
        }
    }

    /// The session's request of some time ago.
    fn back(&self, session: u64, back: u64) -> Option<Request> {
        let (id, _, _) = self.sessions.get(&session)?;
        self.requests.get(id)?.iter().rev().nth(usize::try_from(back).ok()?).cloned()
    }

    fn convert(&mut self, session: u64, back: u64, mode: Mode, wait: Wait) {
        let Some(converted) = self.back(session, back) else { return };
        let all = self.requests.entry(self.sessions[&session].0).or_default();
        let claims = converted.claims.as_slice().iter();
        let claims = claims.map(|claim| Claim { name: claim.name.clone(), mode });
        let request = Request {
            id: RequestId::new(all.len() as u64 + 1),
            converts: Some(converted.id),
            wait,
            claims: Claims::new(claims).unwrap(),
            ..converted
        };
        all.push(request.clone());
        self.say(session, Command::Request(request));
    }

    fn withdraw(&mut self, session: u64, back: u64) {
        let Some(Request { id: request, .. }) = self.back(session, back) else { return };
        let session = self.sessions[&session].0;
        self.handle(&Event::Withdraw { session, request });
    }

    fn account(&mut self, session: u64, knows: bool) {
        let Some((id, _, _)) = self.sessions.get(&session) else { return };
        // What nobody knows of may never have been used, and is not kept.
        let made = self.requests.entry(*id).or_default().iter().map(|made| (*id, made.id));
        self.unknown.extend(made.filter(|key| !knows || !self.tokens.contains_key(key)));
        let held = self.tokens.iter().filter(|((of, _), _)| knows && of == id);
        let (from, to) = (RequestId::new(0), RequestId::new(u64::MAX));
        let held =
            held.map(|((_, request), token)| Held { request: *request, token: *token }).collect();
        let account = Account { from, to, held, waiting: Vec::new() };
        self.say(session, Command::Account(account));
    }

    fn reclaim(&mut self, session: u64, back: u64) {
        let Some(request) = self.back(session, back) else { return };
        let at_least = request.wants().at_least;
        let Request { id, owner, claims, lock_delay, note, .. } = request;
        let key = (self.sessions[&session].0, id);
        let held = self.held_before.get(&key);
        let Some(token) = held.copied() else { return };
        let sealed_in = self.seals[&key];
        let reclaim = Reclaim { id, token, sealed_in, owner, lock_delay, at_least, note, claims };
        self.say(session, Command::Reclaim(reclaim));
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Hold { .. } | Step::Prolong { .. } | Step::Drop { .. } => self.unattended(&step),
            Step::Open { session, ttl, linger } => {
                self.next_session += 1;
                let id = SessionId::new(self.next_session);
                let connection = self.attach(Attach::Open {
                    session: id,
                    ttl: Ttl::new(Duration::from_secs(ttl)).unwrap(),
                    linger: linger.map(Duration::from_millis),
                    identity: Identity::default(),
                });
                self.sessions.insert(session, (id, connection, 1));
            }
            Step::Resume { session } => {
                let Some((id, _, generation)) = self.sessions.get(&session).copied() else {
                    return;
                };
                let connection = self.attach(Attach::Resume {
                    session: id,
                    proved_in: self.secrets.get(&id).copied().unwrap_or_default(),
                    generation: Generation::new(generation + 1),
                    ttl: Ttl::default(),
                    linger: None,
                    identity: Identity::default(),
                });
                self.sessions.insert(session, (id, connection, generation + 1));
            }
            Step::Cut { session } => {
                if let Some((_, connection, _)) = self.sessions.get(&session) {
                    self.handle(&Event::Disconnect { connection: *connection });
                }
            }
            Step::Goodbye { session } => self.say(session, Command::Goodbye),
            Step::KeepAlive { session } => self.say(session, Command::KeepAlive { sequence: 0 }),
            Step::Request { session, owner, claims, wait, delay, keep, progress, supersede } => {
                let Some((id, _, _)) = self.sessions.get(&session) else { return };
                let made = self.requests.entry(*id).or_default();
                let claims = claims.into_iter().map(|(lock, mode)| Claim {
                    name: LockName::new(format!("lock{lock}")).unwrap(),
                    mode,
                });
                let request = Request {
                    owner: OwnerId::new(owner),
                    wait,
                    progress,
                    lock_delay: Duration::from_millis(delay),
                    extras: Extras { at_least: Duration::from_millis(keep), supersede }.of_few(),
                    ..Request::new(
                        RequestId::new(made.len() as u64 + 1),
                        Claims::new(claims).unwrap(),
                    )
                };
                made.push(request.clone());
                self.say(session, Command::Request(request));
            }
            Step::Convert { session, back, mode, wait } => self.convert(session, back, mode, wait),
            Step::Account { session, knows } => self.account(session, knows),
            Step::Repeat { session, back } => {
                if let Some(request) = self.back(session, back) {
                    self.say(session, Command::Request(request));
                }
            }
            Step::Release { session, back } => {
                let Some(Request { id: request, .. }) = self.back(session, back) else { return };
                let owner = self.sessions[&session].0;
                let token = self.tokens.get(&(owner, request)).copied().unwrap_or_default();
                self.say(session, Command::Release { request, token });
            }
            Step::Cancel { session, back } => {
                if let Some(Request { id: request, .. }) = self.back(session, back) {
                    self.say(session, Command::Cancel { request });
                }
            }
            Step::Withdraw { session, back } => self.withdraw(session, back),
            Step::Withhold { begins: true } => self.handle(&Event::Withhold),
            Step::Withhold { begins: false } => self.handle(&Event::Proceed),
            Step::Revoke { lock, token } => self.handle(&Event::Revoke {
                connection: ConnectionId::new(u64::MAX),
                query_id: 0,
                name: LockName::new(format!("lock{lock}")).unwrap(),
                token: FencingToken::new(token),
            }),
            Step::Wait { ms } => {
                let end = self.now.after(Duration::from_millis(ms));
                while let Some(deadline) = self.table.next_deadline().filter(|at| *at <= end) {
                    self.now = self.now.max(deadline);
                    self.handle(&Event::Tick { heard: self.now });
                }
                self.now = end;
            }
            Step::Stall { ms } => self.now = self.now.after(Duration::from_millis(ms)),
            Step::Restart { left: Left::Journal } => self.replay(),
            Step::Restart { left } => self.restart(left == Left::Snapshot),
            Step::Reclaim { session, back } => self.reclaim(session, back),
            Step::Disk { works } => {
                self.disk_works = works;
                self.handle(&Event::Tick { heard: self.now });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_invariants_hold(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        // In the end, when the disk works and all sessions have ended, nothing is left.
        world.take(Step::Disk { works: true });
        world.take(Step::Withhold { begins: false });
        for session in world.unattended.clone() {
            world.drop_hold(session);
        }
        world.take(Step::Wait { ms: 100_000 });
        let counts = world.table.counts();
        prop_assert_eq!((counts.sessions, counts.locks, counts.held, counts.waiting), (0, 0, 0, 0));
        prop_assert_eq!(world.table.next_deadline(), None);
    }
}

/// 100 clients queue in a known order; every third leaves meanwhile, in one way or another.
#[test]
fn a_hundred_are_granted_in_the_order_in_which_they_came() {
    let mut world = World::new();
    world.disk_works = true;
    let wait = Wait::Forever;
    for session in 0..100 {
        world.take(Step::Open { session, ttl: 20, linger: Some(0) });
        let claims = vec![(0, Mode::Exclusive)];
        world.take(Step::Request {
            session,
            owner: 0,
            claims,
            wait,
            delay: 0,
            keep: 0,
            progress: Progress::Untold,
            supersede: Supersede::Nobody,
        });
    }
    let leaves = |session: u64| session % 3 == 2;
    for session in (0..100).filter(|session| leaves(*session)) {
        world.take(match session % 4 {
            0 => Step::Goodbye { session },
            1 => Step::Cut { session },
            _ => Step::Cancel { session, back: 0 },
        });
    }
    for session in (0..100).filter(|session| !leaves(*session)) {
        let (id, ..) = world.sessions[&session];
        let granted: Vec<_> =
            world.tokens.keys().filter(|k| !world.finished.contains(*k)).collect();
        assert_eq!(granted, [&(id, RequestId::new(1))]);
        world.take(Step::Release { session, back: 0 });
    }
    assert_eq!(world.table.counts().locks, 0);
}

#[test]
fn a_name_that_was_used_leaves_nothing_behind() {
    let mut world = World::new();
    world.twin = None;
    world.disk_works = true;
    world.take(Step::Open { session: 0, ttl: 20, linger: None });
    let connection = world.sessions[&0].1;
    let mut effects = Vec::new();
    for n in 1..=20_000u64 {
        let claim = Claim { name: LockName::new(format!("name-{n}")).unwrap(), mode: Mode::Shared };
        let id = RequestId::new(n);
        let request = Request { wait: Wait::Never, ..Request::new(id, claim) };
        world.handle(&Event::Command { connection, command: Command::Request(request) });
        let token = world.tokens[&(world.sessions[&0].0, id)];
        let command = Command::Release { request: id, token };
        let event = Event::Command { connection, command };
        world.table.handle(&event, world.now, &mut effects);
        effects.clear();
    }
    assert_eq!(world.table.counts().locks, 0);
    assert_eq!(world.table.locks(0).count(), 0);
    let places = world.table.places();
    assert!(places.iter().all(|places| *places <= 8), "{places:?}");
}
