//! The engine and the reference are told the same, and must say the same.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::steps::{Fault, LOCKS, SESSIONS, Step, claims, name, step};
use super::{Holder, Model, Name};
use crate::engine::seed::Seed;
use crate::engine::{
    Attach, Command, Durable, Effect, Event, Extras, Forfeit, LockTable, LockView, Past, Progress,
    Rejection, Request, RequestEvent, Snapshot, Start,
};
use crate::types::{
    Claim, Claims, ConnectionId, Epoch, FencingToken, Generation, Identity, Limits, LockName, Mode,
    OwnerId, RequestId, SessionId, TTL_MAX_DEFAULT, Ticket, Timestamp, Ttl, Wait,
};

mod histories;

type Table = LockTable;

const STEPS_MAX: usize = 40;
/// So many histories are compared if `PROPTEST_CASES` does not say another number.
const HISTORIES: u32 = 2_000;

/// Who plays a session's part at the moment.
#[derive(Clone, Copy, Debug)]
struct Player {
    id: SessionId,
    connection: ConnectionId,
}

/// The engine and the reference, side by side.
struct Pair {
    table: Table,
    model: Model,
    now: Timestamp,
    players: [Player; SESSIONS],
    /// How many sessions there were.
    opened: u64,
    /// What was asked for, to ask again.
    asked: HashMap<Name, Request>,
    /// What is to be said about requests, by the reference, in this order.
    expected: VecDeque<(Name, RequestEvent)>,
    /// The request at hand, if it is one.
    at_hand: Option<(SessionId, Request)>,
    /// The reference as it was before the request at hand, to judge a cycle by.
    before: Model,
    /// The last known places of those who wait and are told.
    places: HashMap<Name, u32>,
}

impl Pair {
    fn new() -> Self {
        let tokens_below = FencingToken::new(1 << 30);
        let ttl_max = Some(Ttl::new(TTL_MAX_DEFAULT).unwrap());
        let epoch = Epoch::new(1);
        let durable = Durable { epoch, tokens_below, ttl_max, settled: epoch };
        let past = Past { snapshot: Some(Snapshot::default()), ..Past::default() };
        let first_token = FencingToken::new(1);
        let start = Start { durable, first_token, plausible: durable, past };
        let now = Timestamp::from_micros(1);
        let mut table = Table::new(Limits::default(), start, Seed::default(), now);
        (0..LOCKS).for_each(|lock| table.watch(name(lock)));
        let nobody = Player { id: SessionId::new(0), connection: ConnectionId::new(0) };
        let mut pair = Self {
            table,
            model: Model::new(first_token, now),
            now,
            players: [nobody; SESSIONS],
            opened: 0,
            asked: HashMap::new(),
            expected: VecDeque::new(),
            at_hand: None,
            before: Model::new(first_token, now),
            places: HashMap::new(),
        };
        (0..SESSIONS).for_each(|session| pair.open(session));
        pair
    }

    fn open(&mut self, session: usize) {
        self.opened += 1;
        let id = SessionId::new(self.opened.into());
        let connection = ConnectionId::new(self.opened);
        self.players[session] = Player { id, connection };
        self.handle(Event::Attach {
            connection,
            peer: None,
            attach: Attach::Open {
                session: id,
                ttl: Ttl::new(TTL_MAX_DEFAULT).unwrap(),
                linger: None,
                identity: Identity::default(),
            },
            epoch_seen: Epoch::default(),
            token_seen: FencingToken::default(),
        });
    }

    /// A session's connection breaks, or it has another.
    fn cut_or_resume(&mut self, session: usize) {
        let Player { id, connection, .. } = self.players[session];
        if !self.model.is_away(id) {
            self.model.cut(id);
            self.handle(Event::Disconnect { connection });
            return;
        }
        self.opened += 1;
        let connection = ConnectionId::new(self.opened);
        self.players[session].connection = connection;
        self.model.resume(id);
        self.handle(Event::Attach {
            connection,
            peer: None,
            attach: Attach::Resume {
                session: id,
                proved_in: Epoch::new(1),
                generation: Generation::new(self.opened),
                ttl: Ttl::new(TTL_MAX_DEFAULT).unwrap(),
                linger: None,
                identity: Identity::default(),
            },
            epoch_seen: Epoch::default(),
            token_seen: FencingToken::default(),
        });
    }

    fn take(&mut self, step: Step) {
        let speaks = match &step {
            Step::Request { session, .. }
            | Step::Convert { session, .. }
            | Step::Repeat { session, .. }
            | Step::Release { session, .. }
            | Step::Cancel { session, .. }
            | Step::Goodbye { session } => Some(*session),
            Step::Withdraw { .. }
            | Step::Revoke { .. }
            | Step::CutOrResume { .. }
            | Step::Pass { .. } => None,
        };
        if let Some(session) = speaks.filter(|s| self.model.is_away(self.players[*s].id)) {
            self.cut_or_resume(session);
        }
        match step {
            Step::CutOrResume { session } => self.cut_or_resume(session),
            Step::Request { session, owner, wanted, wait, progress, supersede } => {
                let request = Request { wait, progress, ..asked(owner, claims(&wanted)) };
                self.ask(session, request.with(Extras { supersede, ..Extras::default() }));
            }
            Step::Convert { session, back, modes, wait, fault } => {
                self.convert(session, back, &modes, wait, fault);
            }
            Step::Repeat { session, back, fault } => self.repeat(session, back, fault),
            Step::Release { session, back, fault } => {
                let request = self.back(session, back);
                let wrong = FencingToken::new(u64::from(fault == Fault::Wrong));
                let token = self.token(session, request).unwrap_or_default();
                let token = FencingToken::new(token.number() + wrong.number());
                self.expected
                    .extend(self.model.release((self.players[session].id, request), token));
                self.say(session, Command::Release { request, token });
            }
            Step::Cancel { session, back } => {
                let latest = self.model.latest(self.players[session].id).number();
                let request = RequestId::new((latest + 1).saturating_sub(back).max(1));
                self.expected.extend(self.model.cancel((self.players[session].id, request)));
                self.say(session, Command::Cancel { request });
            }
            Step::Withdraw { session, back } => {
                let session = self.players[session].id;
                let latest = self.model.latest(session).number();
                let request = RequestId::new((latest + 1).saturating_sub(back).max(1));
                self.expected.extend(self.model.withdraw((session, request)));
                self.handle(Event::Withdraw { session, request });
            }
            Step::Revoke { lock, holder } => self.revoke(lock, holder),
            Step::Goodbye { session } => {
                self.model.goodbye(self.players[session].id);
                self.say(session, Command::Goodbye);
                self.open(session);
            }
            Step::Pass { ms } => {
                let length = Duration::from_millis(ms);
                self.now = self.now.after(length);
                self.model.pass(length);
                self.handle(Event::Tick { heard: self.now });
            }
        }
        assert_eq!(self.expected, [], "was not said");
        self.compare();
    }

    /// A request of some time ago, or none.
    fn back(&self, session: usize, back: u64) -> RequestId {
        let latest = self.model.latest(self.players[session].id).number();
        RequestId::new(latest.saturating_sub(back))
    }

    /// The token with which a request was ever granted.
    fn token(&self, session: usize, request: RequestId) -> Option<FencingToken> {
        let name = (self.players[session].id, request);
        let released = self.model.find_over(name).and_then(|over| over.released);
        self.model.token(name).or(released)
    }

    /// Asks under the next id.
    fn ask(&mut self, session: usize, request: Request) {
        let player = self.players[session].id;
        let id = RequestId::new(self.model.latest(player).number() + 1);
        let request = Request { id, ..request };
        self.asked.insert((player, request.id), request.clone());
        self.request(session, request);
    }

    fn request(&mut self, session: usize, request: Request) {
        let player = self.players[session].id;
        self.before = self.model.clone();
        self.at_hand = Some((player, request.clone()));
        self.expected.extend(self.model.request(player, request.clone()));
        self.say(session, Command::Request(request));
        self.at_hand = None;
    }

    fn convert(
        &mut self,
        session: usize,
        back: u64,
        modes: &[Mode; LOCKS],
        wait: Wait,
        fault: Fault,
    ) {
        let converts = self.back(session, back);
        let Some(held) = self.asked.get(&(self.players[session].id, converts)) else { return };
        let (owner, progress) = (held.owner.number(), held.progress);
        let mode = |lock: &LockName| {
            let lock = (0..LOCKS).find(|number| name(*number) == *lock).unwrap();
            modes[lock]
        };
        let same = held.claims.as_slice().iter();
        let mut claims: Vec<Claim> =
            same.map(|claim| Claim { name: claim.name.clone(), mode: mode(&claim.name) }).collect();
        if fault == Fault::TooMuch
            && let Some(other) = (0..LOCKS).find(|l| claims.iter().all(|c| c.name != name(*l)))
        {
            claims.push(Claim { name: name(other), mode: modes[other] });
        }
        let owner = owner + u64::from(fault == Fault::Wrong);
        let (converts, claims) = (Some(converts), Claims::new(claims).unwrap());
        self.ask(session, Request { converts, wait, progress, ..asked(owner, claims) });
    }

    fn repeat(&mut self, session: usize, back: u64, fault: Fault) {
        let id = self.back(session, back);
        let Some(request) = self.asked.get(&(self.players[session].id, id)) else { return };
        let mut request = request.clone();
        let mut claims = request.claims.as_slice().to_vec();
        match fault {
            Fault::Right => {}
            Fault::Wrong if claims[0].mode == Mode::Shared => claims[0].mode = Mode::Exclusive,
            Fault::Wrong => claims[0].mode = Mode::Shared,
            Fault::TooMuch => {
                claims.push(Claim { name: LockName::new("e").unwrap(), mode: Mode::Exclusive });
            }
        }
        request.claims = Claims::new(claims).unwrap();
        self.request(session, request);
    }

    fn revoke(&mut self, lock: usize, holder: usize) {
        let holders = self.model.holders(&name(lock));
        let token = holders.get(holder).map_or(FencingToken::new(1 << 40), |holder| holder.2);
        let told = self.model.revoke(&name(lock), token);
        let is_revoked = told.is_some();
        self.expected.extend(told.into_iter().flatten());
        let (connection, query_id) = (ConnectionId::new(0), 7);
        let effects = self.handle(Event::Revoke { connection, query_id, name: name(lock), token });
        let said = effects.iter().any(|effect| matches!(effect, Effect::Revoked { .. }));
        assert_eq!(said, is_revoked, "whether {token} was taken away");
    }

    fn say(&mut self, session: usize, command: Command) {
        let Player { connection, .. } = self.players[session];
        self.handle(Event::Command { connection, command });
    }

    /// Tells the engine, with a disk that works at once, and judges what it says.
    fn handle(&mut self, event: Event) -> Vec<Effect> {
        let mut all = Vec::new();
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let before: Vec<_> = (0..LOCKS).map(|lock| self.holders(lock)).collect();
            let mut effects = Vec::new();
            self.table.handle(&event, self.now, &mut effects);
            let changed = (0..LOCKS).filter(|lock| self.holders(*lock) != before[*lock]);
            let changed: BTreeSet<LockName> = changed.map(name).collect();
            let mut heard = BTreeSet::new();
            for effect in &effects {
                match effect {
                    Effect::Tell { session, request, event, .. } => {
                        self.judge((*session, *request), event.clone());
                    }
                    Effect::HoldersChanged { lock } => assert!(heard.insert(lock.clone())),
                    Effect::Persist(durable) => events.push_back(Event::Persisted(*durable)),
                    Effect::Record { forfeit, .. } => {
                        assert!(matches!(forfeit, Forfeit::Grant(_)), "nobody's lease ends here");
                        events.push_back(Event::Recorded { count: 1 });
                    }
                    Effect::Welcome { .. }
                    | Effect::Refused { .. }
                    | Effect::Superseded { .. }
                    | Effect::KeptAlive { .. }
                    | Effect::Ended { .. }
                    | Effect::Left { .. }
                    | Effect::Revoked { .. }
                    | Effect::NotRevoked { .. }
                    | Effect::ForgetRecords { .. }
                    | Effect::Happened { .. } => {}
                }
            }
            assert_eq!(heard, changed, "whose holders changed");
            all.extend(effects);
        }
        all
    }

    /// The engine says this of a request. Is it so?
    fn judge(&mut self, name: Name, news: RequestEvent) {
        // Where it came into a queue is not for clients to know.
        let news = match news {
            RequestEvent::Queued { position, .. } => {
                RequestEvent::Queued { position, ticket: Ticket::default() }
            }
            other => other,
        };
        let is_expected = match (self.expected.front(), &news) {
            (Some((of, expected)), _) if (of, expected) == (&name, &news) => true,
            // Who did not ask for its place hears of it when it comes, and then nothing certain.
            (Some((of, RequestEvent::Queued { .. })), RequestEvent::Queued { .. })
                if self.asked[&name].progress == Progress::Untold
                    && self.before.find(name).is_some() =>
            {
                *of == name
            }
            (
                Some((of, RequestEvent::Rejected(Rejection::Deadlock { .. }))),
                RequestEvent::Rejected(Rejection::Deadlock { cycle }),
            ) => {
                let (session, request) = self.at_hand.as_ref().unwrap();
                let judged = self.before.check_cycle(*session, request, cycle);
                judged.unwrap_or_else(|wrong| panic!("{wrong}, in {cycle:#?}"));
                *of == name
            }
            _ => false,
        };
        if let RequestEvent::Queued { position, .. } = news {
            self.places.insert(name, position);
        }
        match news {
            _ if is_expected => {
                self.expected.pop_front();
            }
            RequestEvent::Granted { token } => self.model.granted(name, token),
            RequestEvent::Rejected(Rejection::TimedOut { .. }) => {
                assert_eq!(news, self.model.timed_out(name));
            }
            RequestEvent::Queued { .. } if self.asked[&name].progress == Progress::Told => {}
            _ => panic!("{name:?} hears {news:?} instead of {:?}", self.expected.front()),
        }
    }

    /// Who holds a lock, by token, as the engine sees it.
    fn holders(&self, lock: usize) -> Vec<Holder> {
        let view = self.table.lock(name(lock).as_str());
        let holders = view.iter().flat_map(LockView::holders);
        let mut holders: Vec<Holder> = holders
            .map(|holder| ((holder.session, holder.request), holder.mode, holder.token))
            .collect();
        holders.sort_by_key(|(_, _, token)| *token);
        holders
    }

    /// Both see the same, and nothing is left to be done.
    fn compare(&self) {
        self.model.settled();
        for lock in 0..LOCKS {
            let lock_name = name(lock);
            assert_eq!(self.holders(lock), self.model.holders(&lock_name), "who holds {lock_name}");
            let view = self.table.lock(lock_name.as_str());
            let waiters = view.iter().flat_map(LockView::waiters);
            let waiters: Vec<_> = waiters
                .map(|waiter| ((waiter.session, waiter.request), waiter.owner, waiter.mode))
                .collect();
            assert_eq!(waiters, self.model.waiters(&lock_name), "who waits for {lock_name}");
            for (waiter, ..) in waiters {
                if self.asked[&waiter].progress == Progress::Told {
                    let known = self.places.get(&waiter).copied();
                    assert_eq!(known, self.model.place(waiter), "the place of {waiter:?}");
                }
            }
        }
    }
}

/// What an owner asks for, and nothing else about it.
fn asked(owner: u64, claims: Claims) -> Request {
    Request { owner: OwnerId::new(owner), ..Request::new(RequestId::default(), claims) }
}

fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => config,
        None => ProptestConfig { cases: HISTORIES, ..config },
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_engine_does_what_the_reference_does(
        steps in prop::collection::vec(step(), 1..STEPS_MAX),
    ) {
        let mut pair = Pair::new();
        for step in steps {
            pair.take(step);
        }
    }
}
