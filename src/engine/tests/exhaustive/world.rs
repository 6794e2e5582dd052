//! The production table, a disk, clients, and everything that can happen next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;

use super::client::{Client, Line, Stand, Word};
use super::moves::Move;
use super::scenario::{Budget, LOCKS_MAX, Scenario, TICK, TTL, name};
use crate::engine::image::tests::{image, read};
use crate::engine::request::State;
use crate::engine::seed::Seed;
use crate::engine::tests::reference::fit;
use crate::engine::{
    Attach, Command, Durable, Effect, Event, Forfeit, HEARTBEAT, LockTable, Past, RequestEvent,
    Run, Snapshot, Start,
};
use crate::types::{
    ConnectionId, Epoch, FencingToken, Generation, Identity, Limits, Mode, RequestId, SessionId,
    Timestamp, Ttl,
};

pub(super) type Table = LockTable;

/// Numbers reserved ahead: more than any walk grants.
const RESERVED: u64 = 1 << 24;
/// Everything.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) scenario: &'static Scenario,
    pub(super) table: Table,
    pub(super) now: Timestamp,
    pub(super) clients: Vec<Client>,
    /// What is said and has not come.
    pub(super) late: VecDeque<(ConnectionId, Event)>,
    /// What is durable.
    pub(super) durable: Durable,
    /// What is on record.
    pub(super) recorded: Vec<(u64, Forfeit)>,
    /// What is to be.
    pub(super) unrecorded: VecDeque<(u64, Forfeit)>,
    /// The first token of this run.
    pub(super) first_token: FencingToken,
    pub(super) left: Budget,
    /// Connections so far.
    connections: u64,
    /// Sessions so far.
    sessions: u64,
    /// Whose each token is.
    tokens: BTreeMap<FencingToken, SessionId>,
    /// Tokens of what was taken away by an operator, whose holders may not yet have heard of it: only
    /// the token protects from them (rule R11).
    pub(super) revoked: BTreeSet<FencingToken>,
}

impl World {
    pub(super) fn new(scenario: &'static Scenario) -> Self {
        let ttl_max = Some(Ttl::new(TTL).unwrap());
        let (epoch, tokens_below) = (Epoch::new(1), FencingToken::new(RESERVED));
        let durable = Durable { epoch, tokens_below, ttl_max, settled: epoch };
        let now = Timestamp::from_micros(1_000_000_000);
        let first_token = FencingToken::new(1);
        let past = Past { snapshot: Some(Snapshot::default()), ..Past::default() };
        let mut world = Self {
            scenario,
            table: begin(durable, first_token, past, now),
            now,
            clients: vec![Client::new(); scenario.clients],
            late: VecDeque::new(),
            durable,
            recorded: Vec::new(),
            unrecorded: VecDeque::new(),
            first_token,
            left: scenario.budget,
            connections: 0,
            sessions: 0,
            tokens: BTreeMap::new(),
            revoked: BTreeSet::new(),
        };
        // Nothing of interest happens before all are there.
        for which in 0..scenario.clients {
            world.open(which);
            world.deliver(which);
        }
        scenario.before.iter().for_each(|step| world.make(*step));
        world
    }

    /// Whether nobody will ever read what is on disk.
    pub(super) fn is_last_run(&self) -> bool {
        self.left.crashes == 0 && self.left.stops == 0 && self.left.replays == 0
    }

    /// Makes one of the moves that can be made. Panics if what comes of it cannot be.
    pub(super) fn make(&mut self, step: Move) {
        match step {
            Move::Open(which) => self.open(which.into()),
            Move::Ask(which, shape) => {
                let shape = &self.scenario.shapes[usize::from(shape)];
                let said = self.clients[usize::from(which)].ask(shape);
                self.say(which.into(), said);
            }
            Move::Release(which, place) => {
                let said = self.clients[usize::from(which)].release(place.into(), true);
                self.say(which.into(), said);
            }
            Move::Cancel(which, place) => {
                let said = self.clients[usize::from(which)].cancel(place.into());
                self.say(which.into(), said);
            }
            Move::KeepAlive(which) => {
                self.left.keep_alives -= 1;
                let sequence = self.now.as_micros();
                self.say(which.into(), [Command::KeepAlive { sequence }]);
            }
            Move::Goodbye(which) => {
                self.left.goodbyes -= 1;
                self.say(which.into(), [Command::Goodbye]);
                let client = &mut self.clients[usize::from(which)];
                *client = Client { next: client.next, ..Client::new() };
            }
            Move::Deliver(which) => self.deliver(which.into()),
            Move::Break(which) => {
                self.left.breaks -= 1;
                self.cut(which.into());
            }
            Move::Slow(which) => {
                self.left.slow -= 1;
                self.clients[usize::from(which)].line = Line::Slow;
            }
            Move::Disconnect(which) => {
                if let Some(connection) = self.clients[usize::from(which)].connection {
                    self.handle(&Event::Disconnect { connection });
                }
            }
            Move::Resume(which) => self.resume(which.into(), Line::Good),
            Move::ResumeSlow(which) => {
                self.left.slow -= 1;
                self.resume(which.into(), Line::Slow);
            }
            Move::LateComes => {
                if let Some((_, event)) = self.late.pop_front() {
                    self.handle(&event);
                }
            }
            Move::Tick => self.tick(),
            Move::Revoke(lock) => self.revoke(lock.into()),
            Move::Withdraw(which, place) => {
                self.left.withdrawals -= 1;
                let client = &self.clients[usize::from(which)];
                let request = client.asks[usize::from(place)].id;
                if let Some((session, _)) = client.session {
                    self.handle(&Event::Withdraw { session, request });
                }
            }
            Move::Recorded => self.record(),
            Move::Crash => {
                self.left.crashes -= 1;
                self.unrecorded.clear();
                self.restart(None);
            }
            Move::Replay => {
                self.left.replays -= 1;
                self.replay();
            }
            Move::Stop => {
                self.left.stops -= 1;
                self.handle(&Event::Tick { heard: self.now });
                self.recorded.extend(self.unrecorded.drain(..));
                let snapshot = self.table.snapshot();
                self.restart(Some(snapshot));
            }
        }
        if self.scenario.is_instant {
            self.come_to_rest();
        }
        self.check();
    }

    fn come_to_rest(&mut self) {
        loop {
            if !self.unrecorded.is_empty() {
                self.record();
            } else if let Some(which) = self.clients.iter().position(|c| !c.down.is_empty()) {
                self.deliver(which);
            } else {
                return;
            }
        }
    }

    fn open(&mut self, which: usize) {
        self.sessions += 1;
        let session = SessionId::new(self.sessions.into());
        let attach = Attach::Open {
            session,
            ttl: Ttl::new(TTL).unwrap(),
            linger: None,
            identity: Identity::default(),
        };
        self.clients[which].session = Some((session, Generation::new(1)));
        self.connect(which, Line::Good, attach);
    }

    fn resume(&mut self, which: usize, line: Line) {
        let client = &mut self.clients[which];
        client.leave(self.now);
        let Some((session, generation)) = &mut client.session else { return };
        *generation = generation.next();
        let attach = Attach::Resume {
            session: *session,
            proved_in: client.epoch,
            generation: *generation,
            ttl: Ttl::new(TTL).unwrap(),
            linger: None,
            identity: Identity::default(),
        };
        self.connect(which, line, attach);
    }

    fn connect(&mut self, which: usize, line: Line, attach: Attach) {
        self.connections += 1;
        let connection = ConnectionId::new(self.connections);
        let client = &mut self.clients[which];
        (client.connection, client.line, client.hello) = (Some(connection), line, self.now);
        let (epoch_seen, token_seen) = (Epoch::default(), FencingToken::default());
        let event = Event::Attach { connection, peer: None, attach, epoch_seen, token_seen };
        self.send(line, connection, event);
    }

    /// A client says something, if it has something to say.
    fn say(&mut self, which: usize, said: impl IntoIterator<Item = Command>) {
        for command in said {
            let Client { connection, line, .. } = self.clients[which];
            let Some(connection) = connection else { return };
            self.send(line, connection, Event::Command { connection, command });
        }
    }

    fn send(&mut self, line: Line, connection: ConnectionId, event: Event) {
        match line {
            Line::Good => self.handle(&event),
            Line::Slow => self.late.push_back((connection, event)),
            Line::Dead => {}
        }
    }

    fn deliver(&mut self, which: usize) {
        if let Some(word) = self.clients[which].down.pop_front() {
            let said = self.clients[which].hear(word, self.now);
            self.say(which, said);
        }
    }

    fn cut(&mut self, which: usize) {
        let client = &mut self.clients[which];
        client.line = Line::Dead;
        client.down.clear();
    }

    fn tick(&mut self) {
        self.left.ticks -= 1;
        let end = self.now.after(TICK);
        while self.now < end {
            self.now = self.now.after(HEARTBEAT);
            for which in 0..self.clients.len() {
                let said = self.clients[which].lapse(self.now);
                self.say(which, said);
            }
            self.handle(&Event::Tick { heard: self.now });
        }
    }

    fn revoke(&mut self, lock: usize) {
        self.left.revokes -= 1;
        let name = name(lock);
        let holder = self.table.lock(name.as_str()).and_then(|view| view.holders().next());
        let Some(token) = holder.map(|holder| holder.token) else { return };
        self.revoked.insert(token);
        let connection = ConnectionId::new(0);
        self.handle(&Event::Revoke { connection, query_id: 0, name, token });
    }

    fn record(&mut self) {
        self.recorded.extend(self.unrecorded.pop_front());
        self.handle(&Event::Recorded { count: 1 });
    }

    /// The next run goes on with what a replay makes of all that was told (rule J4). Nobody knows what
    /// of the orders to the disk was done, so they come once more (rule J8).
    fn replay(&mut self) {
        self.lose_lines();
        let pending = mem::take(&mut self.unrecorded);
        let image = image(&self.table);
        self.table = read(&image);
        assert!(image == self::image(&self.table), "the image of an image is another");
        let run = self.next_run();
        let (plausible, limits) = (self.durable, self.table.limits);
        let (durable, first_token) = (self.durable, run);
        self.handle(&Event::Began(Run { durable, first_token, plausible, limits }));
        assert_eq!(self.unrecorded, pending, "what may not be on record");
    }

    fn lose_lines(&mut self) {
        for which in 0..self.clients.len() {
            self.cut(which);
        }
        self.late.clear();
    }

    /// Makes an epoch and tokens of its own durable for the next run; gives the first of them.
    fn next_run(&mut self) -> FencingToken {
        let first = self.durable.tokens_below;
        self.durable.epoch = Epoch::new(self.durable.epoch.number() + 1);
        self.durable.tokens_below = FencingToken::new(first.number() + RESERVED);
        first
    }

    /// The next run begins.
    fn restart(&mut self, snapshot: Option<Snapshot>) {
        self.lose_lines();
        self.first_token = self.next_run();
        let next_record = self.recorded.last().map_or(0, |(number, _)| number + 1);
        let forfeits = self.recorded.iter().map(|(_, forfeit)| *forfeit).collect();
        let past = Past { snapshot, forfeits, next_record };
        self.table = begin(self.durable, self.first_token, past, self.now);
    }

    fn handle(&mut self, event: &Event) {
        let mut effects = Vec::new();
        self.table.step(event, self.now, &mut effects);
        for effect in effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Welcome { connection, standing, .. } => {
                let epoch = self.table.epoch();
                self.tell(connection, |client| Word::Welcome {
                    said: client.hello,
                    epoch,
                    standing,
                });
            }
            Effect::Refused { connection, rejection } => {
                self.tell(connection, |_| Word::Refused(rejection));
            }
            Effect::KeptAlive { connection, sequence } => {
                self.tell(connection, |_| Word::KeptAlive(Timestamp::from_micros(sequence)));
            }
            Effect::Tell { connection, session, request, event } => {
                if let RequestEvent::Granted { token } = event {
                    self.granted(session, token);
                }
                if let Some(connection) = connection {
                    let run = self.table.epoch();
                    self.tell(connection, |_| Word::News(request, event, run));
                }
            }
            Effect::Ended { connection: Some(connection), .. } => {
                self.tell(connection, |_| Word::Ended);
            }
            Effect::Persist(durable) => {
                self.durable = durable;
                self.handle(&Event::Persisted(durable));
            }
            Effect::Record { number, forfeit } => self.unrecorded.push_back((number, forfeit)),
            Effect::ForgetRecords { below } => self.recorded.retain(|(n, _)| *n >= below),
            Effect::Left { .. }
            | Effect::Ended { connection: None, .. }
            | Effect::Superseded { .. }
            | Effect::Revoked { .. }
            | Effect::NotRevoked { .. }
            | Effect::HoldersChanged { .. }
            | Effect::Happened { .. } => {}
        }
    }

    /// A word goes to whoever has this connection, if it carries anything.
    fn tell(&mut self, connection: ConnectionId, word: impl FnOnce(&Client) -> Word) {
        let is_meant = |client: &&mut Client| client.connection == Some(connection);
        let client = self.clients.iter_mut().find(is_meant);
        if let Some(client) = client.filter(|client| client.line != Line::Dead) {
            let word = word(client);
            client.down.push_back(word);
        }
    }

    /// A token is greater than all before, unless its session has it already.
    fn granted(&mut self, session: SessionId, token: FencingToken) {
        let latest = self.tokens.last_key_value().map(|(latest, _)| *latest);
        match self.tokens.get(&token) {
            Some(owner) => assert_eq!(*owner, session, "token {token} is granted to another"),
            None => assert!(latest.is_none_or(|latest| token > latest), "{token} is not greater"),
        }
        self.tokens.insert(token, session);
    }

    fn check(&self) {
        for lock in 0..LOCKS_MAX {
            let beliefs =
                self.clients.iter().flat_map(|client| client.beliefs(&self.revoked, self.now));
            let modes: Vec<Mode> =
                beliefs.filter(|(of, _)| *of == lock).map(|(_, mode)| mode).collect();
            assert!(fit(&modes), "they believe to hold {} as {modes:?}", name(lock));
        }
        for (which, client) in self.clients.iter().enumerate() {
            self.check_agreement(which, client);
        }
    }

    /// When nothing is on its way, both sides see the same.
    fn check_agreement(&self, which: usize, client: &Client) {
        let Client { connection: Some(connection), line: Line::Good, is_welcome: true, .. } =
            *client
        else {
            return;
        };
        if !client.down.is_empty() {
            return;
        }
        let session = self.table.sessions.of_connection(connection);
        let Some(session) = session else {
            panic!("client {which} thinks that it is there, and is not");
        };
        let live = self.table.sessions[session].requests.iter(&self.table.requests.arena);
        let of_table: Vec<(RequestId, Option<FencingToken>)> = live
            .map(|key| match self.table.requests[key].state {
                State::Held { token } => (self.table.requests[key].id, Some(token)),
                State::Waiting { .. } => (self.table.requests[key].id, None),
            })
            .collect();
        let mut of_client: Vec<(RequestId, Option<FencingToken>)> = client
            .asks
            .iter()
            .map(|ask| match ask.stand {
                Stand::Waiting | Stand::Cancelling => (ask.id, None),
                Stand::Unconfirmed(token, _)
                | Stand::Held { token, .. }
                | Stand::Releasing { token, .. } => (ask.id, Some(token)),
            })
            .collect();
        of_client.sort_unstable();
        let mut sorted = of_table;
        sorted.sort_unstable();
        assert_eq!(sorted, of_client, "what the table has, and client {which}");
    }
}

fn begin(durable: Durable, first_token: FencingToken, past: Past, now: Timestamp) -> Table {
    let (epoch, tokens_below) = (Epoch::new(1 << 20), FencingToken::new(1 << 40));
    let plausible = Durable { epoch, tokens_below, ..Durable::default() };
    let start = Start { durable, first_token, plausible, past };
    Table::new(Limits::default(), start, Seed::default(), now)
}
