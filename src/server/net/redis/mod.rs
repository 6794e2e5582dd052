//! A connection of the Redis dialect: the actor of one TCP connection.
//!
//! ```text
//!   socket ──▶ requests ─▶ talk ─▶ steps ──Redis──▶ Coordinator
//!   socket ◀── outbox ◀──────────────────Deliver─── Coordinator
//! ```
//!
//! It knows bytes and manners, and nothing of locks. The end of a connection frees nothing that it holds,
//! and gives up what it waits for.
//!
//! *Bounds* (backpressure). One read is on its way to the Coordinator at a time, of so many requests, and
//! none while more than [`OUTBOX_BYTES_MAX`](super::session::OUTBOX_BYTES_MAX) of answers are unread. So a
//! pipeline of any length is served at the pace of its reader. One that reads nothing for [`STALL_MAX`] is
//! closed. What lies here is counted in the [`Ledger`](crate::server::ledger) with all other connections'.
//!
//! *Until it is proven who speaks*, a request is short, and nothing of it is done: neither here nor by the
//! Coordinator, which decides about that.

#[cfg(test)]
mod tests;
mod transport;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, ActorState, AsyncContext, Context, Handler, SpawnHandle};
use log::{debug, warn};

use self::transport::{BEHIND_WAIT_BYTES_MAX, Transport};
use super::pace::Pace;
use super::place::Place;
use super::session::{CLOSE_TIMEOUT, OUTBOX_BYTES_MAX, Shared};
use super::socket::Socket;
use crate::redis::{
    Deed, Flushing, Malformed, Protocol, Reply, Requests, Said, Step, Talk, Unknown,
};
use crate::server::chatter::Topic;
use crate::server::desk::dialect::SubmitRedis;
use crate::server::desk::turn::{Deliver, Promise};
use crate::server::gate::{Link, Outlet};
use crate::server::inbox::Arrival;
use crate::server::messages::{Connect, Disconnect, Prove};
use crate::server::places::Comer;
use crate::server::secure::{Certified, is_refusal};
use crate::types::{ConnectionId, Origin, ShownCredential};

/// Most requests of one read.
const REQUESTS_MAX: usize = 256;
/// What is said in the place of answers that were to be written down, and could not be.
const UNWRITTEN: &[u8] =
    b"-COORDINATOR the journal could not be written; look whether this was done, and try again\r\n";
/// How long a peer may take no byte of what keeps it from being heard.
const STALL_MAX: Duration = Duration::from_secs(60);

/// One connection.
pub(in crate::server) struct RedisSession<S> {
    transport: Rc<RefCell<Transport<S>>>,
    /// Its number.
    connection: ConnectionId,
    /// Where it comes from, for people.
    peer: Option<SocketAddr>,
    /// Parts in common with the other connections.
    shared: Arc<Shared>,
    /// Cuts what is read into requests.
    requests: Requests,
    /// Its manners.
    talk: Talk,
    /// The names in its certificate, once there is one.
    certified: Certified,
    /// Whether it has said anything.
    has_spoken: bool,
    /// Whether the Coordinator has heard that the connection is over.
    disconnected: bool,
    /// Closes it, if it does not say who it is, or does not take its last word.
    timer: Option<SpawnHandle>,
    /// Sees whether it reads, while it has much to read.
    stall: Option<SpawnHandle>,
    /// How fast its address may send, if that is limited.
    pace: Option<Arc<Pace>>,
    /// Given back when the actor is dropped.
    place: Place,
}

impl<S: Socket> RedisSession<S> {
    /// A session of `stream`, which is from `peer`.
    pub(in crate::server) fn new(
        stream: S,
        connection: ConnectionId,
        peer: Option<SocketAddr>,
        certified: Certified,
        place: Place,
        shared: Arc<Shared>,
    ) -> Self {
        let transport = Transport::new(stream, shared.counters.ledger.open());
        let (scripts, flushing) = match &shared.redis {
            Some(common) => (Arc::clone(&common.scripts), common.flushing),
            None => (Arc::default(), Flushing::Refused),
        };
        let mut session = Self {
            transport: Rc::new(RefCell::new(transport)),
            connection,
            peer,
            requests: Requests::unproven(),
            talk: Talk::unproven(connection.number(), scripts, flushing),
            certified,
            has_spoken: false,
            disconnected: false,
            timer: None,
            stall: None,
            pace: shared.paces.of(peer.map(|peer| Origin::of(peer.ip()))),
            place,
            shared,
        };
        if !session.shared.asks_who {
            session.trust();
        }
        session
    }

    /// It is known who speaks, or nobody asks.
    fn trust(&mut self) {
        self.requests.trust();
        self.talk.trust();
    }

    /// Where what the Coordinator says can be written at once, if that is on this thread.
    pub(in crate::server) fn outlet(&self) -> Weak<dyn Outlet> {
        Rc::downgrade(&(Rc::clone(&self.transport) as Rc<dyn Outlet>))
    }

    /// Understands what was read, and brings it to the Coordinator. Says whether there was anything.
    fn submit(&mut self, ctx: &mut Context<Self>) -> bool {
        if !self.transport.borrow().may_hear() {
            self.watch_reader(ctx);
            return false;
        }
        if self.shared.asks_who && !self.has_spoken && !self.transport.borrow().unread.is_empty() {
            // Who it is by its certificate, or by nothing, has to be known before anything is understood.
            self.prove(None);
            self.bring(Vec::new(), 0);
            return true;
        }
        let (said, bytes) = self.understand();
        if said.is_empty() {
            return false;
        }
        self.tell_unknown();
        self.keep_pace(said.len(), ctx);
        self.bring(said, bytes);
        true
    }

    /// The requests of one read, and how many bytes they are.
    fn understand(&mut self) -> (Vec<Said>, usize) {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut transport = self.transport.borrow_mut();
        let (mut said, mut bytes) = (Vec::new(), 0);
        while said.len() < REQUESTS_MAX {
            match self.requests.next(&mut transport.unread) {
                Ok(Some(words)) => {
                    bytes += words.bytes() + size_of::<Said>();
                    let mut one = self.talk.hear(&words, wall);
                    transport.may_wait |= matches!(one.step, Step::Do(Deed::Wait(_)));
                    let shown = match &mut one.step {
                        Step::Enter { credential, .. } => credential.take(),
                        _ => None,
                    };
                    // Who it is has to be known before more is understood.
                    let is_last = matches!(one.step, Step::Enter { .. } | Step::Leave(_));
                    said.push(one);
                    self.requests.reuse(words);
                    if shown.is_some() {
                        self.prove(shown);
                    }
                    if is_last {
                        break;
                    }
                }
                Ok(None) => break,
                Err(why) => {
                    said.push(self.malformed(&why));
                    break;
                }
            }
        }
        transport.kept_apart = self.requests.kept() + self.talk.kept();
        (said, bytes)
    }

    /// Brings what was understood to the Coordinator.
    fn bring(&mut self, said: Vec<Said>, bytes: usize) {
        let mut transport = self.transport.borrow_mut();
        transport.is_busy = true;
        let unheard = transport.account.submit(bytes);
        drop(transport);
        self.has_spoken = true;
        let (connection, name) = (self.connection, self.talk.take_new_name());
        let submit = SubmitRedis { connection, said, name, unheard };
        self.shared.inbox.put(Arrival::Redis(Box::new(submit)));
    }

    /// Tells the log of a script or a command that nobody knows here, the first time.
    fn tell_unknown(&mut self) {
        let (connection, peer) = (self.connection, self.peer);
        let peer = || peer_text(peer);
        match self.talk.take_unknown() {
            None => {}
            Some(Unknown::Command(command)) => {
                warn!(
                    connection:%, peer = peer().as_str(), command = command.as_str();
                    "unknown command of the Redis dialect; others like it are not logged"
                );
            }
            Some(Unknown::Script { hash, start }) => {
                warn!(
                    connection:%, peer = peer().as_str(), hash = hash.as_str(), start = start.as_str();
                    "unknown script of the Redis dialect; the same one is not logged again"
                );
            }
        }
    }

    /// What is said to one whose words cannot be understood.
    fn malformed(&self, why: &Malformed) -> Said {
        self.shared.counters.protocol_errors.add_one();
        if self.shared.counters.chatter.admits(Topic::ProtocolError, self.peer) {
            let (connection, peer) = (self.connection, peer_text(self.peer));
            warn!(connection:%, peer:%, why:%; "protocol error of the Redis dialect");
        }
        let step = Step::Leave(Reply::error(format!("ERR Protocol error: {why}")));
        Said { step, protocol: Protocol::Resp2 }
    }

    /// Brings what was shown to the Coordinator, which knows whom it proves: a credential, or no more than a
    /// certificate.
    fn prove(&self, credential: Option<ShownCredential>) {
        if let Some(proof) = self.shared.proof(credential, &self.certified) {
            let connection = self.connection;
            self.shared.inbox.put(Arrival::Prove(Prove { connection, proof: Box::new(proof) }));
        }
    }

    /// Counts what came against what its address may send, and waits if that is too much.
    fn keep_pace(&self, requests: usize, ctx: &mut Context<Self>) {
        let pause = self.pace.as_ref().and_then(|pace| pace.heard(requests));
        if let Some(pause) = pause {
            self.transport.borrow_mut().is_paced = true;
            ctx.run_later(pause, |this, _| {
                this.transport.borrow_mut().is_paced = false;
                this.wake();
            });
        }
    }

    /// Sees that a peer which is not heard because it does not read is closed some time.
    fn watch_reader(&mut self, ctx: &mut Context<Self>) {
        let transport = self.transport.borrow();
        if self.stall.is_some() || !transport.is_full() {
            return;
        }
        let written = transport.outbox.written();
        self.stall = Some(ctx.run_later(STALL_MAX, move |this, ctx| {
            this.stall = None;
            let (is_full, now) = {
                let transport = this.transport.borrow();
                (transport.is_full(), transport.outbox.written())
            };
            if is_full && now == written {
                this.give_up(ctx);
            } else {
                this.watch_reader(ctx);
            }
        }));
    }

    /// Closes the connection of a peer that says much behind what it waits for: it could not be seen to go.
    fn stop_chatter(&mut self, ctx: &mut Context<Self>) {
        let why = format!(
            "-ERR Protocol error: at most {BEHIND_WAIT_BYTES_MAX} bytes may be said behind \
             COORDINATOR.WAIT before it is answered\r\n"
        );
        self.shared.counters.protocol_errors.add_one();
        self.transport.borrow_mut().outbox.extend_from_slice(why.as_bytes());
        self.finish(ctx);
    }

    fn wake(&self) {
        if let Some(waker) = &self.transport.borrow().waker {
            waker.wake_by_ref();
        }
    }

    /// Tells the Coordinator, once, that nothing more comes.
    fn tell_end(&mut self) {
        if !std::mem::replace(&mut self.disconnected, true) {
            let ended = Disconnect { connection: self.connection };
            self.shared.inbox.put(Arrival::Disconnect(ended));
        }
    }

    /// Closes, once what is in the outbox is written.
    fn finish(&mut self, ctx: &mut Context<Self>) {
        self.tell_end();
        self.transport.borrow_mut().is_closing = true;
        self.set_timer(CLOSE_TIMEOUT, ctx);
        self.wake();
    }

    fn set_timer(&mut self, pause: Duration, ctx: &mut Context<Self>) {
        self.cancel_timer(ctx);
        self.timer = Some(ctx.run_later(pause, |_, ctx| ctx.stop()));
    }

    fn cancel_timer(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
    }

    /// The connection is broken.
    fn broken(&mut self, why: &io::Error, ctx: &mut Context<Self>) {
        if is_refusal(why) {
            self.shared.counters.protocol_errors.add_one();
            if self.shared.counters.chatter.admits(Topic::ProtocolError, self.peer) {
                let (connection, peer) = (self.connection, peer_text(self.peer));
                warn!(connection:%, peer:%, why = why.to_string().as_str(); "TLS failed");
            }
        }
        debug!(connection:% = self.connection; "connection broken: {why}");
        self.shared.counters.broken.add_one();
        self.tell_end();
        ctx.stop();
    }

    /// Sees whether the peer has gone, or says what it may not.
    fn see_end(&mut self, ctx: &mut Context<Self>) {
        let transport = self.transport.borrow();
        if transport.is_closing {
            return;
        }
        let is_too_much = transport.has_said_too_much();
        let Transport { is_over, is_busy, waits, .. } = *transport;
        let (may_hear, is_all_said) = (transport.may_hear(), transport.unread.is_empty());
        drop(transport);
        if is_too_much {
            return self.stop_chatter(ctx);
        }
        if !is_over {
            return;
        }
        if may_hear {
            // What is left of what it said is no request.
            self.finish(ctx);
        } else if is_busy && (waits || is_all_said) {
            // What it waits for is given up; what it has said before is answered.
            self.tell_end();
        }
    }

    /// Closes the connection of a peer that does not read.
    fn give_up(&mut self, ctx: &mut Context<Self>) {
        self.shared.counters.slow_readers.add_one();
        if self.shared.counters.chatter.admits(Topic::SlowReader, self.peer) {
            warn!(connection:% = self.connection, peer:% = peer_text(self.peer); "slow reader");
        }
        self.tell_end();
        ctx.stop();
    }
}

fn peer_text(peer: Option<SocketAddr>) -> String {
    peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string())
}

impl<S: Socket> Actor for RedisSession<S> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let (connection, peer) = (self.connection, self.peer);
        let share = self.transport.borrow().account.share();
        let link = Link { session: ctx.address().recipient(), share };
        self.shared.inbox.put(Arrival::ConnectRedis(Connect { connection, peer, link }));
        self.keep_pace(1, ctx);
        if self.shared.asks_who {
            self.set_timer(self.shared.handshake_timeout, ctx);
        }
        if let Err(crowd) = self.place.enter(Comer::Anyone) {
            self.shared.counters.connections_refused.add_one();
            if self.shared.counters.chatter.admits(Topic::Refusal, self.peer) {
                let peer = peer_text(self.peer);
                warn!(connection:%, peer:%, why:% = crowd; "turned away");
            }
            let no = format!("-ERR max number of clients reached: {crowd}\r\n");
            self.transport.borrow_mut().outbox.extend_from_slice(no.as_bytes());
            self.finish(ctx);
        }
        ctx.spawn(Exchange);
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.tell_end();
    }
}

impl<S: Socket> Handler<Deliver> for RedisSession<S> {
    type Result = ();

    fn handle(&mut self, deliver: Deliver, ctx: &mut Context<Self>) {
        let (is_closing, is_closed) = {
            let mut transport = self.transport.borrow_mut();
            transport.mailed = transport.mailed.saturating_sub(1);
            transport.account.delivered(deliver.bytes);
            if !transport.is_closing && deliver.promise != Promise::Void {
                transport.take(&deliver);
            }
            let is_full = transport.outbox.len() > 2 * OUTBOX_BYTES_MAX;
            (transport.is_closing, transport.account.is_closed() || is_full)
        };
        if is_closed {
            return self.give_up(ctx);
        }
        if deliver.promise == Promise::Void && !is_closing {
            self.transport.borrow_mut().outbox.extend_from_slice(UNWRITTEN);
            return self.finish(ctx);
        }
        if deliver.welcomes {
            self.trust();
            self.cancel_timer(ctx);
        }
        if deliver.is_last && !is_closing {
            // The Coordinator has forgotten the connection already.
            self.disconnected = true;
            self.finish(ctx);
        }
    }
}

/// What is polled: reads and writes, as long as the connection lives.
struct Exchange;

impl<S: Socket> ActorFuture<RedisSession<S>> for Exchange {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        session: &mut RedisSession<S>,
        ctx: &mut Context<RedisSession<S>>,
        task: &mut Task<'_>,
    ) -> Poll<()> {
        let transport = Rc::clone(&session.transport);
        transport.borrow_mut().wakes(task);
        // First, so that a peer which reads is heard further.
        let written = transport.borrow_mut().poll_write(task);
        loop {
            let read = transport.borrow_mut().poll_read(task);
            let came = match read {
                Poll::Ready(Ok(came)) => came,
                Poll::Ready(Err(why)) => {
                    session.broken(&why, ctx);
                    return Poll::Pending;
                }
                Poll::Pending => false,
            };
            let submitted = session.submit(ctx);
            if !came && !submitted {
                break;
            }
        }
        if ctx.state() != ActorState::Running {
            return Poll::Pending;
        }
        transport.borrow_mut().settle();
        if transport.borrow().account.is_closed() {
            session.give_up(ctx);
            return Poll::Pending;
        }
        session.see_end(ctx);
        match ready!(written) {
            Err(why) => session.broken(&why, ctx),
            Ok(()) if transport.borrow().is_shut_next() => {
                let shut = Pin::new(&mut transport.borrow_mut().stream).poll_shutdown(task);
                // An error here means that the peer is gone, which is as good as shut.
                let _ = ready!(shut);
                if transport.borrow().is_over {
                    ctx.stop();
                }
            }
            Ok(()) => {}
        }
        Poll::Pending
    }
}
