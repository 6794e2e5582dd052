//! A Session: the actor of one TCP connection.
//!
//! ```text
//!             ┌──────────────────────────────────────────────┐
//!   socket ──▶│ batch ─▶ (Hello? of protocol 1?) ────────────│──Submit──▶ Coordinator
//!             │                                              │
//!   socket ◀──│ outbox ◀─ encoded ◀──────────────────────────│◀─Deliver── Coordinator
//!             └──────────────────────────────────────────────┘
//! ```
//!
//! It knows bytes, frames and manners, and nothing of locks. Its life:
//!
//! ```text
//!   Handshake ──Hello──▶ Open ──Goodbye, from either side──▶ Closing ──flushed, peer done──▶ gone
//!       │                 │ └──peer shut its side──▶ HalfClosed ──▶ ▲
//!       └──anything else──┴──protocol error, idle───────────────────┘
//! ```
//!
//! *Half-closed on purpose.* A client that shuts its sending side gets the answers to all that it
//! sent, then the connection is closed. It does not get later decisions: it cannot renew a lease,
//! so there is nothing later to wait for. To the engine it is the end of a connection without
//! Goodbye, and proves nothing (rule S4).
//!
//! *Closing lingers.* A socket that is closed with unread bytes in it is reset, and the reset
//! overtakes the Goodbye. So the sending side is shut first, and what still comes is read and dropped
//! until the peer is done or [`CLOSE_TIMEOUT`] is over.
//!
//! *A crowd.* When all places are taken, it begins at the door, and its Hello decides whether it comes in
//! (`door.rs`).
//!
//! *Bounds* (backpressure). No more than [`SUBMITS_MAX`] reads are on their way to the Coordinator.
//! Then no more is read, and the peer's TCP window fills. A read that brings a Hello is the only
//! one on its way. If more than [`OUTBOX_BYTES_MAX`] cannot be written when there is more to say,
//! the peer does not read, and is closed. One batch may be longer than that, which is not its
//! reader's fault. Its length is bounded where it is made. If its address sends more messages than
//! it may, nothing is read until it has caught up ([`Pace`]). All outboxes together are bounded by
//! the [`Ledger`](crate::server::ledger).

mod door;
mod ear;
mod io;
mod onlooker;
mod outlet;
pub(in crate::server) mod refusal;
mod shared;
#[cfg(test)]
mod tests;

use std::cell::{RefCell, RefMut};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Context as Task;
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, SpawnHandle};
use log::{debug, error, warn};
use tokio::time::Instant;

use self::io::{Ear, Exchange, Heard, Reading, Transport};
use self::onlooker::Onlooker;
pub(in crate::server) use self::shared::Shared;
use super::pace::Pace;
use super::place::Place;
use super::socket::Socket;
use crate::server::chatter::Topic;
use crate::server::desk::render;
use crate::server::desk::turn::{Deliver, Handled, Window};
use crate::server::gate::{Link, Outlet};
use crate::server::inbox::Arrival;
use crate::server::messages::{Connect, Disconnect, Prove};
use crate::server::secure::{Certified, is_refusal};
use crate::types::{ConnectionId, GoodbyeCode, Origin, ShownCredential};
use crate::wire::{self, Attach, ClientMessage, CodecError, PROTOCOL, ServerMessage, encode_frame};

/// Most bytes that wait for a peer that does not read.
pub(in crate::server) const OUTBOX_BYTES_MAX: usize = 1024 * 1024;
/// Most reads that are submitted and not yet handled.
const SUBMITS_MAX: usize = 4;
/// How long closing may take.
pub(in crate::server) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// One connection.
pub(in crate::server) struct Session<S> {
    /// The bytes, both ways. The Coordinator writes here, too, if it is on this thread.
    transport: Rc<RefCell<Transport<S>>>,
    /// Its number.
    connection: ConnectionId,
    /// Where it comes from, for people.
    peer: Option<SocketAddr>,
    /// Parts in common with the other sessions.
    shared: Arc<Shared>,
    /// Where in its life it is.
    state: State,
    /// When an observer last said something, so it has no ear but this. None for a session: its silence ends
    /// its lease.
    heard: Option<Instant>,
    /// State for the case that the peer looks on.
    onlooker: Onlooker,
    /// The one timer: of the handshake, of idleness, of not reading, or of closing.
    timer: Option<SpawnHandle>,
    /// Whether the Coordinator has heard that the connection is over.
    disconnected: bool,
    /// What it has shown before its Hello, besides its certificate.
    shown: Option<ShownCredential>,
    /// The names in its certificate, once there is one.
    certified: Certified,
    /// Given back when the actor is dropped.
    place: Place,
    /// While it is at the door: waits for others to need the room.
    ring: Option<SpawnHandle>,
    /// How fast its address may send, if that is limited.
    pace: Option<Arc<Pace>>,
    /// Until when nothing is read, for its address has sent more than that.
    pace_until: Option<Instant>,
}

/// Where in its life a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No Hello yet.
    Handshake,
    /// The Hello is submitted.
    Open,
    /// The peer sends no more; answers to what it sent are still to come.
    HalfClosed,
    /// Nothing more is accepted or put into the outbox.
    Closing,
}

impl<S: Socket> Session<S> {
    /// A session of `stream`, which is from `peer`.
    pub(in crate::server) fn new(
        stream: S,
        connection: ConnectionId,
        peer: Option<SocketAddr>,
        certified: Certified,
        place: Place,
        shared: Arc<Shared>,
    ) -> Self {
        let account = shared.counters.ledger.open();
        let held_to = shared.paces.of(peer.map(|peer| Origin::of(peer.ip())));
        let mut transport = Transport::new(stream, account);
        if held_to.is_none() {
            transport.ear = Some(Ear { connection, shared: Arc::clone(&shared) });
        }
        Self {
            transport: Rc::new(RefCell::new(transport)),
            connection,
            peer,
            shared,
            state: State::Handshake,
            heard: None,
            onlooker: Onlooker::default(),
            timer: None,
            disconnected: false,
            shown: None,
            certified,
            place,
            ring: None,
            pace: held_to,
            pace_until: None,
        }
    }

    /// Where what the Coordinator says can be written at once, if that is on this thread.
    pub(in crate::server) fn outlet(&self) -> Weak<dyn Outlet> {
        Rc::downgrade(&(Rc::clone(&self.transport) as Rc<dyn Outlet>))
    }

    /// The bytes. Nothing that is called while this is kept may ask for it again.
    fn transport(&self) -> RefMut<'_, Transport<S>> {
        self.transport.borrow_mut()
    }

    /// It is at another point in its life.
    fn enter(&mut self, state: State) {
        self.state = state;
        self.transport().is_open &= state == State::Open;
    }

    /// A read brought this, or failed.
    fn hear(&mut self, read: Heard, ctx: &mut Context<Self>) {
        match (self.state, read) {
            (State::Handshake, Ok(messages)) => self.greet(messages, ctx),
            (State::Open, Ok(messages)) => {
                if messages.iter().any(is_introduction) {
                    return self.protocol_error("a second Hello, or Authenticate behind it", ctx);
                }
                if let Some(heard) = &mut self.heard {
                    *heard = Instant::now();
                }
                self.notice_onlooker(&messages, ctx);
                self.submit(messages, Window::Open);
            }
            (_, Err(CodecError::Io(why))) => self.broken(&why, ctx),
            (State::Handshake, Err(why @ CodecError::FrameTooLong { claimed, .. })) => {
                let scheme = self.transport().stream.scheme();
                match refusal::of(claimed, scheme, self.shared.address) {
                    Some(refusal) => self.refuse_foreign(&refusal, ctx),
                    None => self.protocol_error(&why.to_string(), ctx),
                }
            }
            (State::Handshake, Err(CodecError::UnsupportedVersion { protocol })) => {
                self.refuse_version(protocol, ctx);
            }
            (State::Handshake | State::Open, Err(why)) => {
                self.protocol_error(&why.to_string(), ctx);
            }
            (State::HalfClosed | State::Closing, _) => {}
        }
    }

    /// The peer shut its side.
    fn hear_end(&mut self, ctx: &mut Context<Self>) {
        match self.state {
            // It said nothing, so there is nothing to answer.
            State::Handshake => ctx.stop(),
            State::Open => {
                self.enter(State::HalfClosed);
                self.tell_end();
                self.set_timer(CLOSE_TIMEOUT, ctx, |_, ctx| ctx.stop());
            }
            State::HalfClosed | State::Closing => {}
        }
    }

    /// The first batch: it has to begin with a Hello that we understand.
    fn greet(&mut self, mut messages: Vec<ClientMessage>, ctx: &mut Context<Self>) {
        if let Some(ClientMessage::Authenticate { .. }) = messages.first() {
            if self.shown.is_some() {
                return self.protocol_error("a second Authenticate", ctx);
            }
            if let ClientMessage::Authenticate { credential } = messages.remove(0) {
                self.shown = Some(credential);
            }
            if messages.is_empty() {
                // Its Hello is on its way.
                return;
            }
        }
        let Some(ClientMessage::Hello(wire::Hello { protocol, attach, .. })) = messages.first()
        else {
            return self.protocol_error("the first message must be Hello, or Authenticate", ctx);
        };
        if *protocol != PROTOCOL {
            return self.refuse_version(*protocol, ctx);
        }
        if messages.iter().skip(1).any(is_introduction) {
            return self.protocol_error("a second Hello, or Authenticate behind it", ctx);
        }
        if let Some(crowd) = self.no_place_for(attach) {
            return self.turn_away(crowd, ctx);
        }
        self.enter(State::Open);
        match attach {
            Attach::Observer => {
                self.heard = Some(Instant::now());
                self.transport().ear = None;
                self.await_next_word(self.shared.idle_timeout, ctx);
            }
            Attach::New | Attach::Resume { .. } => self.cancel_timer(ctx),
        }
        self.notice_onlooker(&messages, ctx);
        self.prove();
        // Nothing more is read until the Hello is accepted, for until then less is allowed.
        self.submit(messages, Window::Shut);
    }

    /// Brings what was shown to the Coordinator, which knows whom it proves.
    fn prove(&mut self) {
        let proof = self.shared.proof(self.shown.take(), &self.certified);
        if let Some(proof) = proof {
            let connection = self.connection;
            self.shared.inbox.put(Arrival::Prove(Prove { connection, proof: Box::new(proof) }));
        }
    }

    fn submit(&mut self, messages: Vec<ClientMessage>, mut window: Window) {
        if self.is_too_fast(messages.len()) {
            window = Window::Shut;
        }
        let mut transport = self.transport();
        let (shared, account) = (&self.shared, &transport.account);
        window = ear::submit(shared, self.connection, account, messages, window);
        if window == Window::Shut {
            transport.reading = Reading::Paused;
        }
    }

    /// Counts what came against what its address may send. Says whether it has to wait.
    fn is_too_fast(&mut self, messages: usize) -> bool {
        let Some(pause) = self.pace.as_ref().and_then(|pace| pace.heard(messages)) else {
            return false;
        };
        self.pace_until = Some(Instant::now() + pause);
        if self.shared.counters.chatter.admits(Topic::TooFast, self.peer) {
            let pause_ms = render::millis(pause);
            warn!(
                connection:% = self.connection, peer:% = self.peer_text(), pause_ms;
                "message rate exceeded, reading paused"
            );
        }
        true
    }

    /// Reads on; once its address may send again, if that is not yet so.
    fn read_on(&mut self, ctx: &mut Context<Self>) {
        let pause = self.pace_until.take().map(|until| until - Instant::now());
        match pause.filter(|pause| !pause.is_zero()) {
            None => self.transport().reading = Reading::Messages,
            Some(pause) => {
                ctx.run_later(pause, |this, _| {
                    let is_paused = this.transport().reading == Reading::Paused;
                    if is_paused {
                        this.transport().reading = Reading::Messages;
                        this.wake();
                    }
                });
            }
        }
    }

    /// Has the socket looked at again: it may have been in this turn, before there was a reason to.
    fn wake(&self) {
        if let Some(waker) = &self.transport().waker {
            waker.wake_by_ref();
        }
    }

    /// Closes an observer's connection once nothing was heard of it for long enough.
    fn await_next_word(&mut self, pause: Duration, ctx: &mut Context<Self>) {
        self.set_timer(pause, ctx, |this, ctx| {
            let idle = this.shared.idle_timeout;
            let silent = this.heard.map_or(idle, |heard| heard.elapsed());
            match idle.checked_sub(silent) {
                Some(left) if !left.is_zero() => this.await_next_word(left, ctx),
                _ => this.close(GoodbyeCode::IdleTimeout, "no request for too long", ctx),
            }
        });
    }

    fn protocol_error(&mut self, why: &str, ctx: &mut Context<Self>) {
        self.shared.counters.protocol_errors.add_one();
        if self.shared.counters.chatter.admits(Topic::ProtocolError, self.peer) {
            let (connection, peer) = (self.connection, self.peer_text());
            warn!(connection:%, peer:%, why; "protocol error");
        }
        self.close(GoodbyeCode::ProtocolError, why, ctx);
    }

    /// Turns away a client of another version: the one thing that every version can read.
    fn refuse_version(&mut self, protocol: u32, ctx: &mut Context<Self>) {
        self.shared.counters.protocol_errors.add_one();
        let why = format!("protocol {protocol} is not supported here, only {PROTOCOL}");
        self.close(GoodbyeCode::UnsupportedVersion, &why, ctx);
    }

    /// Answers someone who took this port for another's, in words that it understands.
    fn refuse_foreign(&mut self, refusal: &[u8], ctx: &mut Context<Self>) {
        self.shared.counters.protocol_errors.add_one();
        self.shared.counters.closed(GoodbyeCode::ProtocolError);
        if self.shared.counters.chatter.admits(Topic::ProtocolError, self.peer) {
            let (connection, peer) = (self.connection, self.peer_text());
            let why = "another protocol on the lock port";
            warn!(connection:%, peer:%, why; "protocol error");
        }
        self.transport().outbox.extend_from_slice(refusal);
        self.finish(ctx);
    }

    /// Says Goodbye, and closes.
    fn close(&mut self, code: GoodbyeCode, why: &str, ctx: &mut Context<Self>) {
        debug!(connection:% = self.connection, code:%, why; "closing");
        self.shared.counters.closed(code);
        self.encode(&render::goodbye(code, why));
        self.finish(ctx);
    }

    /// Closes, once what is in the outbox is written.
    fn finish(&mut self, ctx: &mut Context<Self>) {
        self.tell_end();
        self.enter(State::Closing);
        self.transport().end();
        self.set_timer(CLOSE_TIMEOUT, ctx, |_, ctx| ctx.stop());
        self.wake();
    }

    /// Tells the Coordinator, once, that nothing more comes.
    fn tell_end(&mut self) {
        if !self.disconnected {
            self.disconnected = true;
            let ended = Disconnect { connection: self.connection };
            self.shared.inbox.put(Arrival::Disconnect(ended));
        }
    }

    fn encode(&mut self, message: &ServerMessage) {
        if let Err(unwritable) = encode_frame(message, &mut self.transport().outbox) {
            error!(connection:% = self.connection; "an answer was left out: {unwritable}");
        }
    }

    /// The connection is broken.
    fn broken(&mut self, why: &std::io::Error, ctx: &mut Context<Self>) {
        if is_refusal(why) {
            self.shared.counters.protocol_errors.add_one();
            if self.shared.counters.chatter.admits(Topic::ProtocolError, self.peer) {
                let (connection, peer) = (self.connection, self.peer_text());
                warn!(connection:%, peer:%, why = why.to_string().as_str(); "TLS failed");
            }
        }
        debug!(connection:% = self.connection; "connection broken: {why}");
        self.shared.counters.broken.add_one();
        self.tell_end();
        self.enter(State::Closing);
        ctx.stop();
    }

    /// Whether more than may be is unwritten, although the peer was offered it just now.
    fn is_overfull(&mut self) -> bool {
        let is_long = |this: &Self| this.transport().outbox.len() > OUTBOX_BYTES_MAX;
        let waker = self.transport().waker.clone();
        if is_long(self)
            && let Some(waker) = waker
        {
            // Several batches can come before this actor writes. What fails here fails there, too.
            let _ = self.poll_write(&mut Task::from_waker(&waker));
        }
        is_long(self)
    }

    /// Closes the connection of a peer that does not read. A Goodbye would only stand behind what is
    /// not read either.
    fn give_up(&mut self, ctx: &mut Context<Self>) {
        self.shared.counters.slow_readers.add_one();
        if self.shared.counters.chatter.admits(Topic::SlowReader, self.peer) {
            warn!(connection:% = self.connection, peer:% = self.peer_text(); "slow reader");
        }
        self.tell_end();
        self.enter(State::Closing);
        ctx.stop();
    }

    fn set_timer(
        &mut self,
        pause: Duration,
        ctx: &mut Context<Self>,
        then: impl FnOnce(&mut Self, &mut Context<Self>) + 'static,
    ) {
        self.cancel_timer(ctx);
        self.timer = Some(ctx.run_later(pause, |this, ctx| {
            this.timer = None;
            then(this, ctx);
        }));
    }

    fn cancel_timer(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
    }

    fn peer_text(&self) -> String {
        self.peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string())
    }
}

fn is_introduction(message: &ClientMessage) -> bool {
    matches!(message, ClientMessage::Hello(_) | ClientMessage::Authenticate { .. })
}

impl<S: Socket> Actor for Session<S> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let (connection, peer) = (self.connection, self.peer);
        let link =
            Link { session: ctx.address().recipient(), share: self.transport().account.share() };
        self.shared.inbox.put(Arrival::Connect(Connect { connection, peer, link }));

        if self.is_too_fast(1) {
            // A connection counts as a message: neither are handshakes a way round the limit.
            self.transport().reading = Reading::Paused;
            self.read_on(ctx);
        }
        ctx.spawn(Exchange);
        self.listen_at_door(ctx);
        self.set_timer(self.shared.handshake_timeout, ctx, |this, ctx| {
            this.shared.counters.handshake_timeouts.add_one();
            this.close(GoodbyeCode::HandshakeTimeout, "no Hello arrived in time", ctx);
        });
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.tell_end();
    }
}

impl<S: Socket> Handler<Deliver> for Session<S> {
    type Result = ();

    fn handle(&mut self, deliver: Deliver, ctx: &mut Context<Self>) {
        let Deliver { frames, welcomes, is_last, shown, events, missed, bytes, handled, .. } =
            deliver;
        let is_closed = {
            let mut transport = self.transport();
            transport.mailed = transport.mailed.saturating_sub(1);
            transport.account.delivered(bytes);
            transport.account.is_closed()
        };
        if self.state == State::Closing {
            return;
        }
        if self.ring.is_some()
            && welcomes
            && let Err(crowd) = self.come_in(ctx)
        {
            return self.turn_away(crowd, ctx);
        }
        let has_more = !(is_last || frames.is_empty() && shown.is_empty());
        if is_closed || has_more && self.is_overfull() {
            return self.give_up(ctx);
        }
        let mut transport = self.transport();
        transport.outbox.extend_from_slice(&frames);
        if welcomes {
            transport.accept_hello();
            transport.is_open = self.state == State::Open;
        }
        drop(transport);
        if is_last {
            // The Coordinator has forgotten the connection already.
            self.disconnected = true;
            return self.finish(ctx);
        }
        for (query_id, lock) in &shown {
            lock.append(*query_id, &mut self.transport().outbox);
        }
        for frame in &events {
            self.put_event(frame);
        }
        self.onlooker.missed += missed;
        if handled == Handled::All {
            match self.state {
                State::HalfClosed => self.finish(ctx),
                State::Handshake | State::Open | State::Closing => self.read_on(ctx),
            }
        }
    }
}
