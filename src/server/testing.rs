//! What the tests of the actors have in common: a bench with a Coordinator on it, and time that
//! passes only when nothing else is left to do.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use super::coordinator::Coordinator;
use super::counters::Counters;
use super::messages::{Connect, Deliver, Disconnect, Handled, Submit, Window};
use super::session::Shared;
use crate::clock::Clock;
use crate::engine::{Durable, Start};
use crate::types::{ConnectionId, Epoch, FencingToken, Limits, Timestamp};
use crate::wire::{Attach, Claim, ClientMessage, Mode, PROTOCOL, ServerMessage, Wait};

/// tokio's time as a clock, so that it can be paused.
pub(super) struct TokioClock(Instant);

impl TokioClock {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::default().after(self.0.elapsed())
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

/// A start with `tokens` reserved, from 1 on.
pub(super) fn start(tokens: u64) -> Start {
    let year = 1 << 45;
    Start {
        durable: Durable { epoch: Epoch::new(7), tokens_below: FencingToken::new(1 + tokens) },
        first_token: FencingToken::new(1),
        plausible: Durable { epoch: Epoch::new(year), tokens_below: FencingToken::new(year) },
    }
}

/// A Coordinator, and what it talks to.
pub(super) struct Bench {
    pub(super) coordinator: Addr<Coordinator>,
    pub(super) counters: Rc<Counters>,
    pub(super) orders: UnboundedReceiver<Durable>,
    connections: u64,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with_tokens(1 << 20)
    }

    pub(super) fn with_tokens(tokens: u64) -> Self {
        let counters = Rc::new(Counters::default());
        let (sender, orders) = unbounded_channel();
        let clock = Box::new(TokioClock::new());
        let limits = Limits::default();
        let coordinator =
            Coordinator::new(limits, start(tokens), clock, sender, Rc::clone(&counters)).start();
        Self { coordinator, counters, orders, connections: 0 }
    }

    /// What sessions are given.
    pub(super) fn shared(&self) -> Rc<Shared> {
        Rc::new(Shared {
            coordinator: self.coordinator.clone(),
            counters: Rc::clone(&self.counters),
            address: SocketAddr::from(([127, 0, 0, 1], 5625)),
            handshake_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
        })
    }

    pub(super) fn next_connection(&mut self) -> ConnectionId {
        self.connections += 1;
        ConnectionId::new(self.connections)
    }

    /// A connection that says nothing yet.
    pub(super) fn connect(&mut self) -> FakeSession {
        let connection = self.next_connection();
        let batches = Rc::<RefCell<Vec<Deliver>>>::default();
        let session = Collector(Rc::clone(&batches)).start().recipient();
        self.coordinator.do_send(Connect { connection, peer: None, session });
        FakeSession { coordinator: self.coordinator.clone(), connection, batches }
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
    coordinator: Addr<Coordinator>,
    pub(super) connection: ConnectionId,
    batches: Rc<RefCell<Vec<Deliver>>>,
}

struct Collector(Rc<RefCell<Vec<Deliver>>>);

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
        self.coordinator.do_send(Submit { connection: self.connection, messages, window });
    }

    pub(super) fn disconnect(&self) {
        self.coordinator.do_send(Disconnect { connection: self.connection });
    }

    /// The batches that have come since the last look.
    pub(super) fn take_batches(&self) -> Vec<(Vec<ServerMessage>, Handled)> {
        let batches = self.batches.take();
        batches.into_iter().map(|deliver| (deliver.messages, deliver.handled)).collect()
    }

    /// What has come since the last look, whatever the batches.
    pub(super) fn take(&self) -> Vec<ServerMessage> {
        self.take_batches().into_iter().flat_map(|(messages, _)| messages).collect()
    }

    /// The token of the one message that has come, which is a grant of `request`.
    pub(super) fn take_grant(&self, request: u64) -> u64 {
        match self.take()[..] {
            [ServerMessage::Grant { request: granted, token }] if granted == request => token,
            ref other => panic!("not a grant of {request}: {other:?}"),
        }
    }
}

pub(super) fn hello(attach: Attach) -> ClientMessage {
    ClientMessage::Hello {
        protocol: PROTOCOL,
        attach,
        ttl_ms: 0,
        linger_ms: None,
        identity: "ann@build7:8123".into(),
        epoch_seen: 0,
        token_seen: 0,
    }
}

pub(super) fn request(request: u64, name: &str) -> ClientMessage {
    waiting_request(request, name, Wait::Forever)
}

pub(super) fn try_request(request: u64, name: &str) -> ClientMessage {
    waiting_request(request, name, Wait::Never)
}

pub(super) fn waiting_request(request: u64, name: &str, wait: Wait) -> ClientMessage {
    ClientMessage::Request {
        request,
        owner: 0,
        wait,
        progress: false,
        lock_delay_ms: 0,
        note: "deploy v2.3".into(),
        claims: vec![Claim { name: name.into(), mode: Mode::Exclusive }],
    }
}

pub(super) fn release(request: u64, token: u64) -> ClientMessage {
    ClientMessage::Release { request, token }
}
