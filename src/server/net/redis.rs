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
//! *Bounds* (backpressure). One read is on its way to the Coordinator at a time, of so many requests.
//! Until it is handled, no more is understood, and no more is read than [`READ_AHEAD_BYTES_MAX`]: enough to
//! see that a peer has gone. What a peer does not read is bounded as on the lock port.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context as Task, Poll, Waker, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, ActorState, AsyncContext, Context, Handler, SpawnHandle};
use bytes::{Buf, BytesMut};
use log::{debug, warn};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::pace::Pace;
use super::place::Place;
use super::session::{CLOSE_TIMEOUT, OUTBOX_BYTES_MAX, Shared};
use crate::redis::{Flushing, Malformed, Protocol, Reply, Requests, Said, Step, Talk};
use crate::server::chatter::Topic;
use crate::server::desk::dialect::SubmitRedis;
use crate::server::desk::turn::{Deliver, Handled};
use crate::server::gate::{Link, Outlet, Said as Written};
use crate::server::inbox::Arrival;
use crate::server::ledger::Account;
use crate::server::messages::{Connect, Disconnect, Prove};
use crate::server::places::Comer;
use crate::server::secure::{Certified, is_refusal};
use crate::types::{ConnectionId, Origin, ShownCredential};

/// Most requests of one read.
const REQUESTS_MAX: usize = 256;
/// Most bytes that are read while an earlier read is not handled.
const READ_AHEAD_BYTES_MAX: usize = 16 * 1024;
/// An empty buffer larger than this gives its memory back.
const BYTES_KEPT: usize = 16 * 1024;

/// A stream, and what lies here for its peer.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is about something of its own")]
struct Transport<S> {
    stream: S,
    /// Bytes that are read and not yet understood.
    unread: BytesMut,
    /// Written by us, and not by the socket yet.
    outbox: BytesMut,
    /// Whether something was written that is yet to be flushed.
    unflushed: bool,
    /// Whether a read is on its way to the Coordinator.
    is_busy: bool,
    /// Whether there is no more to read.
    is_over: bool,
    /// Whether nothing more is said.
    is_closing: bool,
    /// Deliveries on their way to the mailbox.
    mailed: usize,
    /// Wakes the actor.
    waker: Option<Waker>,
    /// Account of the bytes that lie here for the peer.
    account: Account,
}

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
    /// How fast its address may send, if that is limited.
    pace: Option<Arc<Pace>>,
    /// Whether nothing is understood for a while, for its address has sent too much.
    is_paced: bool,
    /// Given back when the actor is dropped.
    place: Place,
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> RedisSession<S> {
    /// A session of `stream`, which is from `peer`.
    pub(in crate::server) fn new(
        stream: S,
        connection: ConnectionId,
        peer: Option<SocketAddr>,
        certified: Certified,
        place: Place,
        shared: Arc<Shared>,
    ) -> Self {
        let transport = Transport {
            stream,
            unread: BytesMut::new(),
            outbox: BytesMut::new(),
            unflushed: false,
            is_busy: false,
            is_over: false,
            is_closing: false,
            mailed: 0,
            waker: None,
            account: shared.counters.ledger.open(),
        };
        let mut requests = Requests::unproven();
        if !shared.asks_who {
            requests.trust();
        }
        let (scripts, flushing) = match &shared.redis {
            Some(common) => (Arc::clone(&common.scripts), common.flushing),
            None => (Arc::default(), Flushing::Refused),
        };
        Self {
            transport: Rc::new(RefCell::new(transport)),
            connection,
            peer,
            requests,
            talk: Talk::new(connection.number(), scripts, flushing),
            certified,
            has_spoken: false,
            disconnected: false,
            timer: None,
            pace: shared.paces.of(peer.map(|peer| Origin::of(peer.ip()))),
            is_paced: false,
            place,
            shared,
        }
    }

    /// Where what the Coordinator says can be written at once, if that is on this thread.
    pub(in crate::server) fn outlet(&self) -> Weak<dyn Outlet> {
        Rc::downgrade(&(Rc::clone(&self.transport) as Rc<dyn Outlet>))
    }

    /// Understands what was read, and brings it to the Coordinator. Says whether there was anything.
    fn submit(&mut self, ctx: &mut Context<Self>) -> bool {
        let mut transport = self.transport.borrow_mut();
        if transport.is_busy || transport.is_closing || self.is_paced {
            return false;
        }
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (mut said, mut bytes) = (Vec::new(), 0);
        let (mut is_shown, mut shown, mut malformed) = (false, None, None);
        while said.len() < REQUESTS_MAX {
            match self.requests.next(&mut transport.unread) {
                Ok(Some(words)) => {
                    bytes += words.bytes() + size_of::<Said>();
                    let mut one = self.talk.hear(&words, wall);
                    if let Step::Enter { credential, .. } = &mut one.step {
                        (is_shown, shown) = (true, credential.take());
                    }
                    let is_last = matches!(one.step, Step::Leave(_));
                    said.push(one);
                    // Who it is has to be known before more is understood.
                    if is_shown || is_last {
                        break;
                    }
                }
                Ok(None) => break,
                Err(why) => {
                    malformed = Some(why);
                    break;
                }
            }
        }
        if let Some(why) = malformed {
            said.push(self.malformed(&why));
        }
        if said.is_empty() {
            return false;
        }
        transport.is_busy = true;
        let unheard = transport.account.submit(bytes);
        drop(transport);
        self.prove(is_shown, shown);
        self.keep_pace(said.len(), ctx);
        let (connection, name) = (self.connection, self.talk.name().to_owned());
        let submit = SubmitRedis { connection, said, name, unheard };
        self.shared.inbox.put(Arrival::Redis(Box::new(submit)));
        true
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

    /// Brings what was shown to the Coordinator, which knows whom it proves: a credential, or at first only
    /// a certificate.
    fn prove(&mut self, is_shown: bool, credential: Option<ShownCredential>) {
        let is_first = !std::mem::replace(&mut self.has_spoken, true);
        let has_certificate = is_first && !self.certified.names().is_empty();
        if !is_shown && !has_certificate {
            return;
        }
        if let Some(proof) = self.shared.proof(credential, &self.certified) {
            let connection = self.connection;
            self.shared.inbox.put(Arrival::Prove(Prove { connection, proof: Box::new(proof) }));
        }
    }

    /// Counts what came against what its address may send, and waits if that is too much.
    fn keep_pace(&mut self, requests: usize, ctx: &mut Context<Self>) {
        let pause = self.pace.as_ref().and_then(|pace| pace.heard(requests));
        if let Some(pause) = pause {
            self.is_paced = true;
            ctx.run_later(pause, |this, _| {
                this.is_paced = false;
                this.wake();
            });
        }
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

impl<S: AsyncRead + AsyncWrite + Unpin> Transport<S> {
    /// Reads what there is, as far as it may. Says whether anything came.
    fn poll_read(&mut self, task: &mut Task<'_>) -> Poll<io::Result<bool>> {
        if self.is_over || self.is_busy && self.unread.len() >= READ_AHEAD_BYTES_MAX {
            return Poll::Ready(Ok(false));
        }
        self.unread.reserve(READ_AHEAD_BYTES_MAX);
        let read = ready!(pin!(self.stream.read_buf(&mut self.unread)).poll(task))?;
        self.is_over = read == 0;
        if self.is_closing {
            // A socket that is closed with unread bytes in it is reset.
            self.unread.clear();
        }
        Poll::Ready(Ok(true))
    }

    /// Writes the outbox.
    fn poll_write(&mut self, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        let mut stream = Pin::new(&mut self.stream);
        while !self.outbox.is_empty() {
            let written = ready!(stream.as_mut().poll_write(task, &self.outbox))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.outbox.advance(written);
        }
        if self.unflushed {
            ready!(stream.poll_flush(task))?;
            self.unflushed = false;
        }
        if self.outbox.capacity() > BYTES_KEPT {
            self.outbox = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Counts what lies here.
    fn settle(&mut self) {
        let memory = |buffer: &BytesMut, kept| match buffer.len() {
            len if len > kept => buffer.capacity(),
            _ => 0,
        };
        let kept = memory(&self.outbox, 0) + memory(&self.unread, READ_AHEAD_BYTES_MAX);
        self.account.settle(kept);
    }

    /// Has the peer hear what is delivered.
    fn take(&mut self, deliver: &Deliver) {
        self.outbox.extend_from_slice(&deliver.frames);
        if deliver.handled == Handled::All {
            self.is_busy = false;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Outlet for RefCell<Transport<S>> {
    fn say(&self, deliver: &Deliver) -> Written {
        let mut transport = self.borrow_mut();
        let is_next =
            !transport.is_closing && transport.mailed == 0 && !deliver.is_last && !deliver.welcomes;
        let Some(waker) = transport.waker.clone().filter(|_| is_next) else {
            transport.mailed += 1;
            return Written::NotYet;
        };
        if transport.outbox.len() > OUTBOX_BYTES_MAX {
            transport.mailed += 1;
            return Written::NotYet;
        }
        transport.take(deliver);
        // What fails here, the actor meets again, and is to end of it.
        let written = transport.poll_write(&mut Task::from_waker(&waker));
        let has_more = !transport.unread.is_empty() || transport.is_over;
        if !matches!(written, Poll::Ready(Ok(()))) || has_more {
            transport.settle();
            waker.wake_by_ref();
        }
        Written::AtOnce
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Actor for RedisSession<S> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let (connection, peer) = (self.connection, self.peer);
        let share = self.transport.borrow().account.share();
        let link = Link { session: ctx.address().recipient(), share };
        self.shared.inbox.put(Arrival::Connect(Connect { connection, peer, link }));
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

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Handler<Deliver> for RedisSession<S> {
    type Result = ();

    fn handle(&mut self, deliver: Deliver, ctx: &mut Context<Self>) {
        let (is_closing, is_closed) = {
            let mut transport = self.transport.borrow_mut();
            transport.mailed = transport.mailed.saturating_sub(1);
            transport.account.delivered(deliver.bytes);
            if !transport.is_closing {
                transport.take(&deliver);
            }
            let is_full = transport.outbox.len() > 2 * OUTBOX_BYTES_MAX;
            (transport.is_closing, transport.account.is_closed() || is_full)
        };
        if is_closed {
            return self.give_up(ctx);
        }
        if deliver.welcomes {
            self.requests.trust();
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

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> ActorFuture<RedisSession<S>> for Exchange {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        session: &mut RedisSession<S>,
        ctx: &mut Context<RedisSession<S>>,
        task: &mut Task<'_>,
    ) -> Poll<()> {
        let transport = Rc::clone(&session.transport);
        {
            let mut transport = transport.borrow_mut();
            transport.waker = Some(task.waker().clone());
            transport.account.wakes(task.waker());
        }
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
        let written = transport.borrow_mut().poll_write(task);
        let (is_closing, is_over, is_busy, is_closed) = {
            let mut transport = transport.borrow_mut();
            transport.settle();
            let is_closed = transport.account.is_closed();
            (transport.is_closing, transport.is_over, transport.is_busy, is_closed)
        };
        if is_closed {
            session.give_up(ctx);
            return Poll::Pending;
        }
        if is_over && !is_closing && (!is_busy || transport.borrow().unread.is_empty()) {
            // What it waits for is given up; what it has said before is answered.
            session.tell_end();
            if !is_busy {
                session.finish(ctx);
            }
        }
        match ready!(written) {
            Err(why) => session.broken(&why, ctx),
            Ok(()) if transport.borrow().is_closing => {
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
