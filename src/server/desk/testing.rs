//! A bench for the tests of the desk: a desk, connections that keep what they
//! are given, and time that passes when a test says so.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem;
#[cfg(feature = "redis-api")]
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::turn::{Deliver, Delivery, Handled, Submit, Turn, Way, Window};
use super::{Before, Contention, Desk, Figures, Setting, hello as names, seal::Sealer};
#[cfg(feature = "access")]
use super::{Errand, Unentitled, Who};
use crate::access::{Access, Proof};
use crate::journal::Machine;
use crate::server::counters::Counters;
use crate::server::durable::persist::summary;
use crate::server::durable::replay::{Replay, checkpoint};
use crate::server::durable::{Change, StateKey};
use crate::server::ledger::Ledger;
use crate::server::testing::{hello, request, start_with};
use crate::types::{ConnectionId, Limits, RequestId, Timestamp};
use crate::wire::{Attach, ClientMessage, SealedTicket, ServerMessage};

/// A desk, and what is round it.
#[derive(Clone)]
pub(super) struct Bench(Rc<RefCell<Round>>);

/// What carries turns out, in a test.
struct Round {
    desk: Desk,
    now: Timestamp,
    /// When the timer goes off.
    rings: Option<Timestamp>,
    /// Whether the next turn is to come.
    goes_on: bool,
    /// What is to be told that everything is heard.
    listens: Option<Timestamp>,
    /// What is not durable yet.
    orders: Vec<Change>,
    /// Whether what is ordered becomes durable by itself.
    commits: bool,
    /// Whether nothing is held any more, as was to be told.
    is_drained: bool,
    /// What came for each connection.
    batches: BTreeMap<Way, Vec<Deliver>>,
    /// What all of it was counted as.
    bytes: usize,
    connections: usize,
    /// A checkpoint, and what was written down since.
    journal: [Vec<u8>; 2],
}

impl Bench {
    /// As after a start with an empty table.
    pub(super) fn new() -> Self {
        Self::with(1 << 20, true)
    }

    /// As after a start with so many tokens; nothing becomes durable by itself.
    pub(super) fn by_hand(tokens: u64) -> Self {
        Self::with(tokens, false)
    }

    /// As after a start with an empty table, where not everybody may do everything.
    pub(super) fn ruled(access: Access) -> Self {
        Self::by(access, 1 << 20, true)
    }

    fn with(tokens: u64, commits: bool) -> Self {
        Self::by(Access::open(), tokens, commits)
    }

    fn by(access: Access, tokens: u64, commits: bool) -> Self {
        Self::after(Before::Nothing, access, tokens, commits)
    }

    /// From now on it is written down who does what.
    pub(super) fn audit(&self, audit: crate::server::audit::Audit) {
        self.0.borrow_mut().desk.audit = audit;
    }

    /// As after a crash and a start with other rules.
    pub(super) fn restarted(&self, access: Access) -> Self {
        let image = image_of(&self.0.borrow().desk);
        let table = Replay::from(Some(&mut &image[..])).unwrap().into_table();
        let next = Self::after(Before::Crashed(Box::new(table)), access, 1 << 20, true);
        next.turn(Desk::begin);
        next
    }

    fn after(before: Before, access: Access, tokens: u64, commits: bool) -> Self {
        // A clock never goes back, over a crash either.
        let now = match &before {
            Before::Crashed(table) => table.now(),
            Before::Saved(_) | Before::Nothing => Timestamp::default(),
        };
        let setting = Setting {
            limits: Limits::default(),
            start: start_with(tokens),
            before,
            sealer: Sealer::new(StateKey::new(7)),
            draw: names::drawing(),
            wall: SystemTime::now,
            looks_per_second: crate::server::config::LOOKS_PER_SECOND,
            access: Arc::new(access),
            audit: crate::server::audit::Audit::default(),
            counters: Arc::new(Counters::default()),
        };
        let desk = Desk::new(setting, now);
        let rings = desk.next_deadline();
        Self(Rc::new(RefCell::new(Round {
            desk,
            now,
            rings,
            goes_on: false,
            listens: None,
            orders: Vec::new(),
            commits,
            is_drained: false,
            batches: BTreeMap::new(),
            bytes: 0,
            connections: 0,
            journal: Default::default(),
        })))
    }

    /// Has the desk do something, and carries out what comes of it.
    pub(super) fn turn(&self, act: impl FnOnce(&mut Desk, Timestamp) -> &mut Turn) {
        let round = &mut *self.0.borrow_mut();
        let mut turn = mem::take(act(&mut round.desk, round.now));
        turn.lines.log();
        let Turn { orders, deliveries, goes_on, listens, rings, is_drained, record, .. } = turn;
        round.journal[1].extend(record.parts().flatten());
        round.orders.extend(orders);
        for Delivery { way, deliver, more: _ } in deliveries {
            round.bytes += deliver.bytes;
            round.batches.entry(way).or_default().push(deliver);
        }
        round.goes_on |= goes_on;
        round.listens = listens.or(round.listens);
        round.rings = rings.or(round.rings);
        round.is_drained |= is_drained;
    }

    /// From here on nothing is written down, as when the disk is full.
    pub(super) fn end_journal(&self) {
        self.0.borrow_mut().desk.record(false);
    }

    /// From here on all events are written down.
    pub(super) fn begin_journal(&self) {
        let round = &mut *self.0.borrow_mut();
        round.desk.record(true);
        round.journal = [image_of(&round.desk), Vec::new()];
    }

    /// The table as it is, and as a replay of all that was written down makes it.
    pub(super) fn lived_and_replayed(&self) -> [Vec<u8>; 2] {
        let round = &*self.0.borrow();
        let [checkpoint, records] = &round.journal;
        let mut replay = Replay::from(Some(&mut &checkpoint[..])).unwrap();
        replay.apply(1, records).unwrap();
        let mut replayed = Vec::new();
        replay.checkpoint(&mut replayed).unwrap();
        [image_of(&round.desk), replayed]
    }

    /// The sockets are looked at once. Says whether anything came of it.
    pub(super) fn look(&self) -> bool {
        if mem::take(&mut self.0.borrow_mut().goes_on) {
            self.turn(Desk::go_on);
            return true;
        }
        let listens = self.0.borrow_mut().listens.take();
        if let Some(at) = listens {
            self.turn(|desk, now| desk.tick(at, now));
            return true;
        }
        let commits = self.0.borrow().commits;
        let orders = if commits { self.take_orders() } else { Vec::new() };
        if !orders.is_empty() {
            self.turn(|desk, now| desk.committed(&summary(&orders), now));
            return true;
        }
        false
    }

    /// Lets everything happen that happens by itself.
    pub(super) fn settle(&self) {
        while self.look() {}
    }

    /// Time passes.
    pub(super) fn pass(&self, length: Duration) {
        self.settle();
        let until = self.0.borrow().now.after(length);
        loop {
            let rings = self.0.borrow_mut().rings.take_if(|rings| *rings <= until);
            let Some(rings) = rings else { break };
            let now = self.0.borrow().now.max(rings);
            self.0.borrow_mut().now = now;
            self.turn(Desk::ring);
            self.settle();
        }
        self.0.borrow_mut().now = until;
    }

    /// Time passes, and no timer goes off.
    pub(super) fn stall(&self, length: Duration) {
        let mut round = self.0.borrow_mut();
        round.now = round.now.after(length);
    }

    /// What is to be made durable.
    pub(super) fn take_orders(&self) -> Vec<Change> {
        mem::take(&mut self.0.borrow_mut().orders)
    }

    /// Whether it was told that nothing is held any more.
    pub(super) fn is_drained(&self) -> bool {
        self.0.borrow().is_drained
    }

    /// What everything that was delivered was counted as.
    pub(super) fn bytes(&self) -> usize {
        self.0.borrow().bytes
    }

    /// A connection that says nothing yet.
    pub(super) fn connect(&self) -> Client {
        self.connected(|desk, connection, way| desk.connect(connection, way, None))
    }

    /// The same of the Redis dialect, from there.
    #[cfg(feature = "redis-api")]
    pub(super) fn connect_redis(&self, peer: Option<SocketAddr>) -> Client {
        self.connected(|desk, connection, way| desk.connect_redis(connection, way, peer))
    }

    fn connected(&self, connect: impl FnOnce(&mut Desk, ConnectionId, Way) -> &mut Turn) -> Client {
        self.0.borrow_mut().connections += 1;
        let number = self.0.borrow().connections;
        let (connection, way) = (ConnectionId::new(number as u64), Way(number));
        self.turn(|desk, _| connect(desk, connection, way));
        Client { bench: self.clone(), connection, way }
    }

    /// A connection that looks on, whose Welcome has come and is taken away.
    pub(super) fn observe(&self) -> Client {
        let observer = self.connect();
        observer.submit(vec![hello(Attach::Observer)]);
        self.settle();
        assert!(matches!(observer.take()[..], [ServerMessage::Welcome { .. }]));
        observer
    }

    /// Whether there is work left of a change of the rules.
    #[cfg(feature = "access")]
    pub(super) fn is_changing(&self) -> bool {
        self.0.borrow().desk.rights.is_changing()
    }

    /// Whether somebody that shows this may have something done.
    #[cfg(feature = "access")]
    pub(super) fn entitle(&self, proof: Proof, errand: Errand) -> Result<Who, Unentitled> {
        let mut round = self.0.borrow_mut();
        let now = round.now;
        round.desk.entitle((proof, None), errand, now)
    }

    /// What is counted so far.
    pub(super) fn figures(&self) -> Figures {
        let round = self.0.borrow();
        round.desk.figures(round.now)
    }

    /// How many connections were refused, for they proved nobody.
    pub(super) fn unproven(&self) -> u64 {
        self.0.borrow().desk.counters.unproven.total()
    }

    /// How often it was told that no rule allows it, for each verb.
    pub(super) fn denials(&self) -> Vec<(&'static str, u64)> {
        self.0.borrow().desk.counters.denials().collect()
    }

    /// What the first page of contended locks shows.
    pub(super) fn contention(&self) -> Contention {
        let round = self.0.borrow();
        round.desk.contention(0, round.now)
    }

    /// A connection with a session, whose Welcome has come and is taken away.
    pub(super) fn open(&self) -> Client {
        let session = self.connect();
        session.submit(vec![hello(Attach::New)]);
        self.settle();
        let messages = session.take();
        assert!(matches!(messages[..], [ServerMessage::Welcome { .. }]), "{messages:?}");
        session
    }

    /// A session that holds a lock with its request 1, one that waits for it with its own, and the
    /// token. Both have heard so.
    pub(super) fn open_two_for(&self, lock: &str) -> (Client, Client, u64) {
        let (holder, waiter) = (self.open(), self.open());
        holder.submit(vec![request(1, lock)]);
        waiter.submit(vec![request(1, lock)]);
        self.settle();
        let token = holder.take_grant(1);
        waiter.take_queued(1);
        (holder, waiter, token)
    }
}

/// All that a desk has decided.
fn image_of(desk: &Desk) -> Vec<u8> {
    let mut image = Vec::new();
    checkpoint(desk.table().unwrap(), &mut image).unwrap();
    image
}

/// Stands where a session would, and keeps what it is given.
pub(super) struct Client {
    bench: Bench,
    connection: ConnectionId,
    way: Way,
}

impl Client {
    /// Its number.
    #[cfg(feature = "redis-api")]
    pub(super) fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// Shows what may prove who it is.
    pub(super) fn prove(&self, proof: Proof) {
        self.bench.turn(|desk, _| {
            desk.hear_proof(self.connection, Box::new(proof));
            desk.turn()
        });
    }

    pub(super) fn submit(&self, messages: Vec<ClientMessage>) {
        self.submit_with(messages, Window::Open);
    }

    pub(super) fn submit_with(&self, messages: Vec<ClientMessage>, window: Window) {
        let (connection, unheard) = (self.connection, Arc::new(Ledger::default()).open().submit(0));
        let submit = Submit { connection, messages, window, unheard };
        self.bench.turn(|desk, now| desk.submit(submit, now));
    }

    /// The same, in a turn that may do nothing else.
    pub(super) fn submit_alone(&self, messages: Vec<ClientMessage>) {
        self.bench.0.borrow_mut().desk.leave_one_step();
        self.submit(messages);
    }

    pub(super) fn disconnect(&self) {
        self.bench.turn(|desk, now| desk.disconnect(self.connection, now));
    }

    /// What was delivered since the last look.
    pub(super) fn take_deliveries(&self) -> Vec<Deliver> {
        self.bench.0.borrow_mut().batches.remove(&self.way).unwrap_or_default()
    }

    /// The batches that have come since the last look, with their events.
    pub(super) fn take_batches(&self) -> Vec<(Vec<ServerMessage>, Handled)> {
        let whole = |deliver: Deliver| (deliver.handled, deliver.whole());
        let batches = self.take_deliveries().into_iter().map(whole);
        batches.map(|(handled, messages)| (messages, handled)).collect()
    }

    /// What has come since the last look, whatever the batches.
    pub(super) fn take(&self) -> Vec<ServerMessage> {
        self.take_batches().into_iter().flat_map(|(messages, _)| messages).collect()
    }

    /// Takes the one message that has come, which says that `request` waits.
    pub(super) fn take_queued(&self, request: u64) -> (u64, SealedTicket) {
        match self.take()[..] {
            [ServerMessage::Queued { request: queued, position, ticket }]
                if queued == RequestId::new(request) =>
            {
                (position, ticket)
            }
            ref other => panic!("{request} does not wait: {other:?}"),
        }
    }

    /// The token of the one message that has come, which is a grant of `request`.
    pub(super) fn take_grant(&self, request: u64) -> u64 {
        match self.take()[..] {
            [ServerMessage::Grant { request: granted, token, seal: _ }]
                if granted == RequestId::new(request) =>
            {
                token.number()
            }
            ref other => panic!("not a grant of {request}: {other:?}"),
        }
    }
}
