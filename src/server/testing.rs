//! The common parts of the actors' tests: a bench with a Coordinator on it, and time that passes
//! only when nothing else is left to do.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use actix::{Actor, Addr, Context, Handler, Recipient};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep};

use crate::clock::{Clock, Until};
use crate::engine::{Durable, Past, Start};
use crate::server::barrier::Barrier;
use crate::server::config::StaleState;
use crate::server::coordinator::Coordinator;
use crate::server::counters::Counters;
use crate::server::desk::seal::Sealer;
use crate::server::desk::turn::{Deliver, Handled, Submit, Window};
use crate::server::desk::{Before, Setting, hello as names};
use crate::server::durable::StateKey;
use crate::server::durable::chronicle::Chronicle;
use crate::server::durable::persist::{Order, commit_all};
use crate::server::durable::start;
use crate::server::durable::store::{Change, MemoryStore, StateStore, StoreError, Stored};
use crate::server::gate::{Gate, Link};
use crate::server::inbox::{Arrival, Arrivals, Inbox};
use crate::server::lease::Lease;
use crate::server::ledger::{Account, Ledger, UNREAD_BYTES_MAX};
use crate::server::messages::{Connect, Disconnect};
use crate::server::net::pace::Paces;
use crate::server::net::session::Shared;
use crate::types::{ConnectionId, Epoch, FencingToken, Limits, RequestId, TTL_MAX, Timestamp, Ttl};
use crate::wire::{self, Attach, ClientMessage, Mode, RawClaim, SealedTicket, ServerMessage, Wait};

/// tokio's time as a clock, so that it can be paused; and put forward, as if nothing had run.
#[derive(Clone)]
pub(super) struct TokioClock {
    origin: Instant,
    stood_still_ms: Arc<AtomicU64>,
    /// A lease that ends while the time is read.
    ends_next: Arc<Mutex<Option<Until>>>,
}

impl TokioClock {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), stood_still_ms: Arc::default(), ends_next: Arc::default() }
    }

    /// The next time that it is read, the process stands still right before that, until the lease is over.
    pub(super) fn end_when_read(&self, lease: &Until) {
        *self.ends_next.lock().unwrap() = Some(lease.clone());
    }

    pub(super) fn stand_still(&self, length: Duration) {
        let ms = u64::try_from(length.as_millis()).unwrap();
        self.stood_still_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        if let Some(lease) = self.ends_next.lock().unwrap().take() {
            lease.move_to(Timestamp::default());
        }
        let still = Duration::from_millis(self.stood_still_ms.load(Ordering::SeqCst));
        Timestamp::default().after(self.origin.elapsed() + still)
    }
}

/// A store in memory whose disk can be taken away.
#[derive(Default)]
pub(super) struct FlakyStore {
    memory: MemoryStore,
    fails: AtomicBool,
}

impl FlakyStore {
    pub(super) fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }
}

impl StateStore for FlakyStore {
    fn load(&self) -> Result<Stored, StoreError> {
        self.memory.load()
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(StoreError::Other("no space left".into()));
        }
        self.memory.commit(changes)
    }
}

/// Runs a test where actors can be started.
pub(super) async fn local<F: Future>(test: F) -> F::Output {
    LocalSet::new().run_until(test).await
}

/// Lets everything happen that happens by itself. Time is paused, so it moves on only when every
/// task waits for something.
pub(super) async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

/// A start with `tokens` reserved, from 1 on, and without a grace period.
pub(super) fn start_with(tokens: u64) -> Start {
    let year = 1 << 45;
    let ttl_max = Ttl::new(TTL_MAX).ok();
    let durable = |epoch, below| Durable {
        epoch: Epoch::new(epoch),
        tokens_below: FencingToken::new(below),
        ttl_max,
        settled: Epoch::new(epoch),
    };
    Start {
        durable: durable(7, 1 + tokens),
        first_token: FencingToken(1),
        plausible: durable(year, year),
        past: Past { snapshot: Some(crate::engine::Snapshot::default()), ..Past::default() },
    }
}

/// A Coordinator, and what it talks to.
pub(super) struct Bench {
    pub(super) coordinator: Addr<Coordinator>,
    inbox: Inbox,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: TokioClock,
    connections: u64,
}

impl Bench {
    /// As after a start with an empty table.
    pub(super) fn new() -> Self {
        Self::with_unread_max(UNREAD_BYTES_MAX)
    }

    /// As that, and with room for so many unread bytes of all connections together.
    pub(super) fn with_unread_max(bytes: usize) -> Self {
        let (sender, orders) = unbounded_channel();
        let key = StateKey::new(7);
        let counters = Counters::new(bytes);
        let bench = Self::assemble(start_with(1 << 20), key, Gate::new(sender), counters);
        bench.commit_to(&Arc::new(MemoryStore::default()), orders);
        bench
    }

    /// One of several: it decides until a moment that is moved by the test.
    pub(super) fn within_a_lease() -> (Self, Until) {
        let (sender, orders) = unbounded_channel();
        let (until, key) = (Until::default(), StateKey::new(7));
        until.move_to(Timestamp::from_micros(u64::MAX - 1));
        let lease = Some(until.clone().into());
        let gate = Gate::new(sender);
        let start = start_with(1 << 20);
        let bench = Self::assemble_within(lease, start, key, gate, Counters::default());
        bench.commit_to(&Arc::new(MemoryStore::default()), orders);
        (bench, until)
    }

    /// As after a start with so many tokens; nothing becomes durable by itself.
    pub(super) fn by_hand(tokens: u64) -> (Self, UnboundedReceiver<Order>) {
        let (sender, orders) = unbounded_channel();
        let key = StateKey::new(7);
        let gate = Gate::new(sender);
        (Self::assemble(start_with(tokens), key, gate, Counters::default()), orders)
    }

    /// A run on this store, whatever the run before has left there.
    pub(super) fn run<S: StateStore + 'static>(store: &Arc<S>) -> Self {
        let (start, key) = start::begin(&**store, StaleState::Refuse, SystemTime::now()).unwrap();
        let (sender, orders) = unbounded_channel();
        let bench = Self::assemble(start, key, Gate::new(sender), Counters::default());
        bench.commit_to(store, orders);
        bench
    }

    /// A run of epoch 7 with an empty table that is written down.
    pub(super) fn behind<S: StateStore + 'static>(chronicle: Chronicle, store: &Arc<S>) -> Self {
        let (sender, orders) = unbounded_channel();
        let gate = Gate::behind(Some(chronicle), sender);
        let key = StateKey::new(7);
        let bench = Self::assemble(start_with(1 << 20), key, gate, Counters::default());
        bench.commit_to(store, orders);
        bench
    }

    fn commit_to<S: StateStore + 'static>(&self, store: &Arc<S>, orders: UnboundedReceiver<Order>) {
        let (coordinator, counters) = (self.coordinator.downgrade(), Arc::clone(&self.counters));
        spawn_local(commit_all(Arc::clone(store), orders, coordinator.recipient(), counters));
    }

    fn assemble(start: Start, key: StateKey, gate: Gate, counters: Counters) -> Self {
        Self::assemble_within(None, start, key, gate, counters)
    }

    fn assemble_within(
        lease: Option<Lease>,
        start: Start,
        key: StateKey,
        gate: Gate,
        counters: Counters,
    ) -> Self {
        let counters = Arc::new(counters);
        let clock = TokioClock::new();
        let setting = Setting {
            limits: Limits::default(),
            start,
            before: Before::Nothing,
            sealer: Sealer::new(key),
            draw: names::drawing(),
            wall: SystemTime::now,
            looks_per_second: crate::server::config::LOOKS_PER_SECOND,
            access: Arc::new(crate::access::Access::open()),
            audit: crate::server::audit::Audit::default(),
            counters: Arc::clone(&counters),
        };
        let boxed = Box::new(clock.clone());
        let arrivals = Arrivals::default();
        let barrier = Barrier::default();
        let coordinator = Coordinator::new(setting, arrivals.clone(), boxed, gate, barrier);
        let coordinator = coordinator.within(lease).start();
        let inbox = Inbox::new(arrivals, coordinator.clone().recipient());
        Self { coordinator, inbox, counters, clock, connections: 0 }
    }

    /// What sessions are given.
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::new(Shared {
            coordinator: self.coordinator.clone(),
            inbox: self.inbox.clone(),
            counters: Arc::clone(&self.counters),
            address: SocketAddr::from(([127, 0, 0, 1], 5625)),
            handshake_timeout: Duration::from_secs(5),
            asks_who: false,
            latest: Arc::default(),
            #[cfg(feature = "redis-api")]
            redis: None,
            idle_timeout: Duration::from_secs(60),
            paces: Paces::new(None),
        })
    }

    /// The same for sessions of the Redis dialect, which are held to this pace.
    #[cfg(feature = "redis-api")]
    pub(super) fn shared_of_redis(&self, paces: Paces) -> Arc<Shared> {
        let common = crate::redis::Common {
            scripts: Arc::default(),
            flushing: crate::redis::Flushing::Refused,
        };
        let shared = Arc::into_inner(self.shared()).map(|shared| Shared {
            redis: Some(common),
            paces,
            ..shared
        });
        Arc::new(shared.expect("nobody else has it"))
    }

    pub(super) fn next_connection(&mut self) -> ConnectionId {
        self.connections += 1;
        ConnectionId::new(self.connections)
    }

    /// A connection that says nothing yet.
    pub(super) fn connect(&mut self) -> FakeSession {
        let connection = self.next_connection();
        let (session, batches) = collector();
        let account = self.counters.ledger.open();
        let share = account.share();
        let link = Link { session, share };
        self.inbox.put(Arrival::Connect(Connect { connection, peer: None, link }));
        FakeSession { inbox: self.inbox.clone(), connection, batches, _account: account }
    }

    /// A connection with a session, whose Welcome has come and is taken away.
    pub(super) async fn open(&mut self) -> FakeSession {
        let session = self.connect();
        session.submit(vec![hello(Attach::New)]);
        settle().await;
        let messages = session.take();
        assert!(matches!(messages[..], [ServerMessage::Welcome { .. }]), "{messages:?}");
        session
    }
}

/// Stands where a Session would, and keeps what it is given.
pub(super) struct FakeSession {
    inbox: Inbox,
    pub(super) connection: ConnectionId,
    batches: Rc<RefCell<Vec<Deliver>>>,
    /// Counts what it was given, all of it; dropped, nothing is sent here any more.
    _account: Account,
}

struct Collector(Rc<RefCell<Vec<Deliver>>>);

/// Where deliveries go, and what has come there.
pub(super) fn collector() -> (Recipient<Deliver>, Rc<RefCell<Vec<Deliver>>>) {
    let batches = Rc::<RefCell<Vec<Deliver>>>::default();
    (Collector(Rc::clone(&batches)).start().recipient(), batches)
}

impl Actor for Collector {
    type Context = Context<Self>;
}

impl Handler<Deliver> for Collector {
    type Result = ();
    fn handle(&mut self, deliver: Deliver, _: &mut Context<Self>) {
        self.0.borrow_mut().push(deliver);
    }
}

impl FakeSession {
    pub(super) fn submit(&self, messages: Vec<ClientMessage>) {
        self.submit_with(messages, Window::Open);
    }

    pub(super) fn submit_with(&self, messages: Vec<ClientMessage>, window: Window) {
        let (connection, unheard) = (self.connection, Arc::new(Ledger::default()).open().submit(0));
        self.inbox.put(Arrival::Submit(Submit { connection, messages, window, unheard }));
    }

    pub(super) fn disconnect(&self) {
        self.inbox.put(Arrival::Disconnect(Disconnect { connection: self.connection }));
    }

    /// What was delivered since the last look.
    pub(super) fn take_deliveries(&self) -> Vec<Deliver> {
        self.batches.take()
    }

    /// The batches that have come since the last look, with their events.
    pub(super) fn take_batches(&self) -> Vec<(Vec<ServerMessage>, Handled)> {
        let whole = |mut deliver: Deliver| {
            // The session tells of those, when there is room again.
            deliver.missed = 0;
            let handled = deliver.handled;
            (deliver.whole(), handled)
        };
        self.take_deliveries().into_iter().map(whole).collect()
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

pub(super) fn hello(attach: Attach) -> ClientMessage {
    ClientMessage::Hello(wire::Hello::new(attach, "ann@build7:8123"))
}

pub(super) fn request(request: u64, name: &str) -> ClientMessage {
    waiting_request(request, name, Wait::Forever)
}

pub(super) fn try_request(request: u64, name: &str) -> ClientMessage {
    waiting_request(request, name, Wait::Never)
}

pub(super) fn waiting_request(request: u64, name: &str, wait: Wait) -> ClientMessage {
    ClientMessage::Request(wire::Request {
        wait,
        note: "deploy v2.3".into(),
        ..wire::Request::new(
            RequestId::new(request),
            [RawClaim { name: name.into(), mode: Mode::Exclusive }],
        )
    })
}

/// Something that is not answered.
pub(super) fn account_of_nothing() -> ClientMessage {
    ClientMessage::Account(wire::Account {
        from: RequestId(0),
        to: RequestId(0),
        held: vec![],
        waiting: vec![],
    })
}

pub(super) fn release(request: u64, token: u64) -> ClientMessage {
    ClientMessage::Release { request: RequestId::new(request), token: FencingToken::new(token) }
}
