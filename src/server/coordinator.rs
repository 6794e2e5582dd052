//! The Coordinator: the one actor that owns the table of locks.
//!
//! ```text
//!   Session ──Submit──▶ ┌─────────────────────────────────────────┐
//!   Session ──Submit──▶ │ Coordinator                             │ ──Deliver──▶ Session
//!   Session ──Submit──▶ │   events ─▶ LockTable ─▶ effects        │ ──Deliver──▶ Session
//!     timer ──────────▶ │                (one timer, re-armed)    │ ──orders───▶ commit task
//!                       └─────────────────────────────────────────┘
//! ```
//!
//! All sessions put what they read into this actor's mailbox, and the mailbox is what brings it in
//! order: nothing here is locked, because nothing happens at the same time.
//!
//! It is dull. A turn is: take the time, step the table through what the message holds, perform the
//! effects, deliver what has come together for each connection as one batch, re-arm the timer. If a
//! rule about locks can be found here, it is in the wrong file. What it adds to the engine is the
//! attributes of connections: where their answers go, and who they said they are.
//!
//! What is never here: a socket, a file, a wait.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::mem;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Recipient, SpawnHandle};
use foldhash::fast::RandomState;
use log::error;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::counters::Counters;
use super::inspect::{self, Budget, NAMED_FEW};
use super::journal::{self, Who};
use super::messages::{
    CloseAll, Connect, Deliver, Disconnect, Drain, Handled, Persisted, Submit, Window,
};
use super::{parse, render};
use crate::clock::Clock;
use crate::engine::{Attach, Command, Durable, Effect, Event, LockTable, News, Rejection, Start};
use crate::types::{
    ConnectionId, Epoch, FencingToken, Generation, GoodbyeCode, Identity, Limits, LockName,
    RejectionCode, RequestId, Secret, SessionId, Timestamp, Ttl,
};
use crate::wire::{self, ClientMessage, LockStatus, PROTOCOL, Query, ServerMessage, ServerStatus};

/// The singleton that decides.
pub(super) struct Coordinator {
    /// Every rule is in here, and nothing else touches it.
    table: LockTable<RandomState>,
    /// Where time comes from; tests bring their own.
    clock: Box<dyn Clock>,
    /// Where each connection's answers go. One that was said goodbye to is not here, which is how
    /// its late messages are ignored.
    connections: HashMap<ConnectionId, Connection, RandomState>,
    /// Connections with a batch in the making, each once, in the order of their first message.
    touched: Vec<ConnectionId>,
    /// What the table wants done; empty between turns, kept for its memory.
    effects: Vec<Effect>,
    /// The one timer, and when it goes off. It may go off too early, never too late.
    timer: Option<(Timestamp, SpawnHandle)>,
    /// To the task that makes things durable.
    orders: UnboundedSender<Durable>,
    /// What the listener and the sessions count.
    counters: Rc<Counters>,
    /// When it began, for the uptime.
    since: Timestamp,
    /// Who wants to know when nothing is held any more.
    drained: Option<oneshot::Sender<()>>,
    /// Set once every connection was said goodbye to: why, for those that come after all.
    closed: Option<GoodbyeCode>,
}

/// One connection, as far as the Coordinator cares.
struct Connection {
    /// Where its answers go.
    session: Recipient<Deliver>,
    /// Where it comes from, for people.
    peer: Option<SocketAddr>,
    /// What it is for.
    role: Role,
    /// What this turn has for it.
    batch: Vec<ServerMessage>,
    /// What the batch says besides.
    handled: Handled,
}

/// What a connection is for.
enum Role {
    /// It has not said.
    Unknown,
    /// To look, and to revoke.
    Observer,
    /// A session.
    Session {
        /// Which.
        id: SessionId,
        /// Goes into its Welcome, nowhere else.
        secret: Secret,
        /// Goes into the log.
        identity: Identity,
    },
    /// It is told Goodbye in this turn.
    Gone,
}

/// What a Hello holds besides the version, which the session has looked at.
struct Hello {
    attach: wire::Attach,
    ttl_ms: u32,
    linger_ms: Option<u32>,
    identity: String,
    epoch_seen: Epoch,
    token_seen: FencingToken,
}

impl Coordinator {
    /// A coordinator with an empty table.
    pub(super) fn new(
        limits: Limits,
        start: Start,
        clock: Box<dyn Clock>,
        orders: UnboundedSender<Durable>,
        counters: Rc<Counters>,
    ) -> Self {
        let since = clock.now();
        Self {
            table: LockTable::new(limits, start, RandomState::default()),
            clock,
            connections: HashMap::default(),
            touched: Vec::new(),
            effects: Vec::new(),
            timer: None,
            orders,
            counters,
            since,
            drained: None,
            closed: None,
        }
    }

    /// Takes what one read of a connection brought: keep-alives first (rule S5), then the rest in
    /// order.
    fn submit(&mut self, connection: ConnectionId, messages: Vec<ClientMessage>, now: Timestamp) {
        let mut budget = Budget::of_a_turn();
        let mut rest = messages.into_iter();
        if let [ClientMessage::Hello { .. }, ..] = rest.as_slice()
            && let Some(hello) = rest.next()
        {
            self.message(connection, hello, now, &mut budget);
        }
        let several = rest.len() > 1;
        if several {
            for message in rest.as_slice() {
                if let ClientMessage::KeepAlive { sequence } = *message {
                    self.keep_alive(connection, sequence, now);
                }
            }
        }
        for message in rest {
            if !(several && matches!(message, ClientMessage::KeepAlive { .. })) {
                self.message(connection, message, now, &mut budget);
            }
        }
    }

    fn message(
        &mut self,
        connection: ConnectionId,
        message: ClientMessage,
        now: Timestamp,
        budget: &mut Budget,
    ) {
        match message {
            ClientMessage::Hello {
                protocol: _,
                attach,
                ttl_ms,
                linger_ms,
                identity,
                epoch_seen,
                token_seen,
            } => {
                let epoch_seen = Epoch::new(epoch_seen);
                let token_seen = FencingToken::new(token_seen);
                let hello = Hello { attach, ttl_ms, linger_ms, identity, epoch_seen, token_seen };
                self.hello(connection, hello, now);
            }
            ClientMessage::Request {
                request,
                owner,
                wait,
                progress,
                lock_delay_ms,
                note,
                claims,
            } => {
                let raw = parse::RawRequest {
                    request,
                    owner,
                    wait,
                    progress,
                    lock_delay_ms,
                    note,
                    claims,
                };
                self.command(connection, request, parse::request(raw), now);
            }
            ClientMessage::Release { request, token } => {
                self.command(connection, request, parse::release(request, token), now);
            }
            ClientMessage::Cancel { request } => {
                let command = Command::Cancel { request: RequestId::new(request) };
                self.command(connection, request, command, now);
            }
            ClientMessage::KeepAlive { sequence } => self.keep_alive(connection, sequence, now),
            ClientMessage::Goodbye => self.goodbye(connection, now),
            ClientMessage::Inspect { query_id, query } => {
                self.inspect(connection, query_id, query, now, budget);
            }
            ClientMessage::Revoke { query_id, name, token } => {
                self.revoke(connection, query_id, name, FencingToken::new(token), now);
            }
        }
    }

    /// Says what the connection is for; the session has seen that it says so once, and first.
    fn hello(&mut self, connection: ConnectionId, hello: Hello, now: Timestamp) {
        let (attach, role) =
            match prepare(hello.attach, hello.ttl_ms, hello.linger_ms, hello.identity) {
                Ok(Some(attach)) => attach,
                Ok(None) => return self.observe(connection),
                Err((code, reason)) => {
                    return self.dismiss(connection, render::refused(code, reason));
                }
            };
        let Some(known) = self.connections.get_mut(&connection) else { return };
        known.role = role;
        let peer = known.peer;
        let (epoch_seen, token_seen) = (hello.epoch_seen, hello.token_seen);
        self.step(Event::Attach { connection, peer, attach, epoch_seen, token_seen }, now);
    }

    fn observe(&mut self, connection: ConnectionId) {
        let Some(known) = self.connections.get_mut(&connection) else { return };
        known.role = Role::Observer;
        let welcome = ServerMessage::Welcome {
            protocol: PROTOCOL,
            server: render::SERVER.to_owned(),
            epoch: self.table.epoch().number(),
            session: 0,
            secret: 0,
            generation: 0,
            ttl_ms: 0,
        };
        self.tell(connection, welcome);
    }

    /// Has the engine do what a session's client says. `request` is who is answered if there is no
    /// session.
    fn command(
        &mut self,
        connection: ConnectionId,
        request: u64,
        command: Command,
        now: Timestamp,
    ) {
        match self.connections.get(&connection).map(|known| &known.role) {
            Some(Role::Session { id, identity, .. }) => {
                if journal::is_told() {
                    let who = Who { session: *id, identity: Some(identity) };
                    let locks = self.locks_of(*id, RequestId::new(request));
                    journal::received(who, &command, locks.iter());
                    let asks = matches!(command, Command::Request(_));
                    let watched = asks.then_some((*id, RequestId::new(request)));
                    self.table.handle(
                        Event::Command { connection, command },
                        now,
                        &mut self.effects,
                    );
                    self.note_queued(watched, connection);
                    self.perform_all(now);
                } else {
                    self.step(Event::Command { connection, command }, now);
                }
            }
            Some(Role::Observer) => {
                let message = render::rejected(request, &Rejection::SessionNeeded, None);
                self.tell(connection, message);
            }
            Some(Role::Unknown | Role::Gone) | None => {}
        }
    }

    fn keep_alive(&mut self, connection: ConnectionId, sequence: u64, now: Timestamp) {
        match self.connections.get(&connection).map(|known| &known.role) {
            Some(Role::Session { .. }) => {
                let command = Command::KeepAlive { sequence };
                self.step(Event::Command { connection, command }, now);
            }
            // There is no lease to renew, but there is someone who wants to know we are here.
            Some(Role::Observer) => self.tell(connection, ServerMessage::KeptAlive { sequence }),
            Some(Role::Unknown | Role::Gone) | None => {}
        }
    }

    fn goodbye(&mut self, connection: ConnectionId, now: Timestamp) {
        match self.connections.get(&connection).map(|known| &known.role) {
            Some(Role::Session { .. }) => {
                self.step(Event::Command { connection, command: Command::Goodbye }, now);
            }
            Some(Role::Observer) => {
                self.dismiss(connection, render::goodbye(GoodbyeCode::Done, "as you say"));
            }
            Some(Role::Unknown | Role::Gone) | None => {}
        }
    }

    fn inspect(
        &mut self,
        connection: ConnectionId,
        query_id: u64,
        query: Query,
        now: Timestamp,
        budget: &mut Budget,
    ) {
        let table = &self.table;
        let answer = match query {
            Query::Server => {
                ServerMessage::ServerStatus { query_id, status: self.server_status(now) }
            }
            Query::Locks { cursor } => inspect::locks(table, query_id, cursor, now, budget),
            Query::Sessions { cursor } => inspect::sessions(table, query_id, cursor, now, budget),
            Query::Lock { name } => match parse::lock_name(name) {
                Ok(name) => inspect::one_lock(table, query_id, name.as_str(), now, budget),
                Err(rejection) => render::rejected(query_id, &rejection, None),
            },
        };
        self.tell(connection, answer);
    }

    fn revoke(
        &mut self,
        connection: ConnectionId,
        query_id: u64,
        name: String,
        token: FencingToken,
        now: Timestamp,
    ) {
        match parse::lock_name(name) {
            Ok(name) => {
                log::info!("revoke received lock={name:?} token={token}");
                self.step(Event::Revoke { connection, query_id, name, token }, now);
            }
            Err(rejection) => self.tell(connection, render::rejected(query_id, &rejection, None)),
        }
    }

    fn server_status(&self, now: Timestamp) -> ServerStatus {
        let counts = self.table.counts();
        let counters = &self.counters;
        ServerStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: self.table.epoch().number(),
            uptime_ms: render::millis(now.since(self.since)),
            draining: counts.draining,
            connections: render::count(counters.connections()),
            sessions: render::count(counts.sessions),
            locks: render::count(counts.locks),
            held: render::count(counts.held),
            waiting: render::count(counts.waiting),
            grants: counts.grants,
            expired: counts.expired,
            protocol_errors: counters.protocol_errors.total(),
            slow_readers: counters.slow_readers.total(),
            handshake_timeouts: counters.handshake_timeouts.total(),
            connections_refused: counters.connections_refused.total(),
            last_token: counts.last_token.number(),
        }
    }

    /// One event in, all its effects out.
    fn step(&mut self, event: Event, now: Timestamp) {
        self.table.handle(event, now, &mut self.effects);
        self.perform_all(now);
    }

    fn perform_all(&mut self, now: Timestamp) {
        let mut effects = mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            self.perform(effect, now);
        }
        self.effects = effects;
    }

    fn perform(&mut self, effect: Effect, now: Timestamp) {
        match effect {
            Effect::Welcome { connection, session, generation, ttl } => {
                self.welcome(connection, session, generation, ttl);
            }
            Effect::Refused { connection, rejection } => {
                let goodbye = render::refused(rejection.code(), rejection.to_string());
                self.dismiss(connection, goodbye);
            }
            Effect::Superseded { connection } => {
                let why = "the session has a newer connection";
                self.dismiss(connection, render::goodbye(GoodbyeCode::Superseded, why));
            }
            Effect::KeptAlive { connection, sequence } => {
                self.tell(connection, ServerMessage::KeptAlive { sequence });
            }
            Effect::Tell { connection, session, request, news } => {
                self.news(connection, session, request, &news, now);
            }
            Effect::Ended { session, connection, reason, held, waiting, lock } => {
                let who = self.who(session, connection);
                journal::ended(who, reason, held, waiting, lock.as_ref());
                if let Some(connection) = connection {
                    self.dismiss(connection, render::ended(reason));
                }
            }
            Effect::Revoked { connection, query_id } => {
                self.tell(connection, ServerMessage::Revoked { query_id });
            }
            Effect::NotRevoked { connection, query_id, rejection } => {
                self.tell(connection, render::rejected(query_id, &rejection, None));
            }
            Effect::Persist(durable) => {
                if self.orders.send(durable).is_err() {
                    error!("nobody makes the state durable any more; granting will stop");
                }
            }
        }
    }

    fn welcome(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        generation: Generation,
        ttl: Ttl,
    ) {
        let Some(Role::Session { secret, identity, .. }) =
            self.connections.get(&connection).map(|known| &known.role)
        else {
            return;
        };
        journal::attached(Who { session, identity: Some(identity) }, generation, ttl);
        let welcome = ServerMessage::Welcome {
            protocol: PROTOCOL,
            server: render::SERVER.to_owned(),
            epoch: self.table.epoch().number(),
            session: session.number(),
            secret: secret.reveal(),
            generation: generation.number(),
            ttl_ms: ttl.as_millis(),
        };
        self.tell(connection, welcome);
    }

    fn news(
        &mut self,
        connection: Option<ConnectionId>,
        session: SessionId,
        request: RequestId,
        news: &News,
        now: Timestamp,
    ) {
        if journal::is_told() {
            let locks = self.locks_of(session, request);
            journal::told(self.who(session, connection), request, news, locks.iter());
        }
        let Some(connection) = connection else { return };
        let blocking = match news {
            News::Rejected(rejection) => rejection.blocking_lock(),
            _ => None,
        };
        let blocking = blocking.and_then(|name| self.look_at(name, now));
        self.tell(connection, render::news(request, news, blocking));
    }

    /// The lock as it is now, for one whom it stood in the way of.
    fn look_at(&self, name: &LockName, now: Timestamp) -> Option<Box<LockStatus>> {
        let view = self.table.lock(name.as_str())?;
        Some(Box::new(inspect::lock(&view, NAMED_FEW, now, &mut Budget::of_a_turn())))
    }

    /// The locks of a live request, for the log.
    fn locks_of(&self, session: SessionId, request: RequestId) -> Vec<LockName> {
        self.table.claims(session, request).map(|(name, _)| name.clone()).collect()
    }

    fn who(&self, session: SessionId, connection: Option<ConnectionId>) -> Who<'_> {
        let known = connection.and_then(|connection| self.connections.get(&connection));
        let identity = match known.map(|known| &known.role) {
            Some(Role::Session { identity, .. }) => Some(identity),
            Some(Role::Unknown | Role::Observer | Role::Gone) | None => None,
        };
        Who { session, identity }
    }

    /// Logs that a request waits: the table says nothing about that unless its client asked.
    fn note_queued(&self, watched: Option<(SessionId, RequestId)>, connection: ConnectionId) {
        let Some((session, request)) = watched else { return };
        let told = |effect: &Effect| {
            matches!(effect, Effect::Tell { session: s, request: r, .. }
                if (*s, *r) == (session, request))
        };
        if !self.effects.iter().any(told) {
            let locks = self.locks_of(session, request);
            journal::queued(self.who(session, Some(connection)), request, locks.iter());
        }
    }

    /// Puts a message into the connection's batch of this turn.
    fn tell(&mut self, connection: ConnectionId, message: ServerMessage) {
        let Some(known) = self.connections.get_mut(&connection) else { return };
        if matches!(known.role, Role::Gone) {
            return;
        }
        if known.batch.is_empty() && known.handled == Handled::Unsaid {
            self.touched.push(connection);
        }
        known.batch.push(message);
    }

    /// Puts a Goodbye into the connection's batch, which makes it the last.
    fn dismiss(&mut self, connection: ConnectionId, goodbye: ServerMessage) {
        self.tell(connection, goodbye);
        if let Some(known) = self.connections.get_mut(&connection) {
            known.role = Role::Gone;
        }
    }

    /// Has this turn's batch for the connection, empty though it may be, say that all is handled.
    fn acknowledge(&mut self, connection: ConnectionId) {
        let Some(known) = self.connections.get_mut(&connection) else { return };
        if known.batch.is_empty() && known.handled == Handled::Unsaid {
            self.touched.push(connection);
        }
        known.handled = Handled::All;
    }

    /// Ends a turn: delivers what has come together, and sees that the next deadline is met.
    fn finish_turn(&mut self, now: Timestamp, ctx: &mut Context<Self>) {
        for connection in self.touched.drain(..) {
            let Some(known) = self.connections.get_mut(&connection) else { continue };
            let messages = mem::take(&mut known.batch);
            let handled = mem::replace(&mut known.handled, Handled::Unsaid);
            known.session.do_send(Deliver { messages, handled });
            if matches!(known.role, Role::Gone) {
                self.connections.remove(&connection);
            }
        }
        self.arm(now, ctx);
        if self.drained.is_some()
            && self.table.counts().held == 0
            && let Some(drained) = self.drained.take()
        {
            // Nobody listens if the server did not wait so long.
            let _ = drained.send(());
        }
    }

    /// Sees that the timer goes off at the next deadline or before. One that goes off before finds
    /// nothing to do and is armed anew, so that the renewal of a lease costs nothing here.
    fn arm(&mut self, now: Timestamp, ctx: &mut Context<Self>) {
        let Some(deadline) = self.table.next_deadline() else { return };
        if let Some((at, handle)) = self.timer {
            if at <= deadline {
                return;
            }
            ctx.cancel_future(handle);
        }
        let handle = ctx.run_later(deadline.since(now), |this, ctx| {
            this.timer = None;
            let now = this.clock.now();
            this.step(Event::Tick, now);
            this.finish_turn(now, ctx);
        });
        self.timer = Some((deadline, handle));
    }
}

/// A connection's purpose, from its Hello: none for an observer, or why it is refused.
fn prepare(
    attach: wire::Attach,
    ttl_ms: u32,
    linger_ms: Option<u32>,
    identity: String,
) -> Result<Option<(Attach, Role)>, (RejectionCode, String)> {
    let no = |rejection: Rejection| (rejection.code(), rejection.to_string());
    match attach {
        wire::Attach::Observer => Ok(None),
        wire::Attach::New => {
            let ttl = parse::ttl(ttl_ms).map_err(no)?;
            let identity = parse::identity(identity).map_err(no)?;
            let (id, secret) = draw().map_err(|error| {
                error!("the operating system gives no random numbers: {error}");
                (RejectionCode::Unavailable, "no random numbers for a session".to_owned())
            })?;
            let role = Role::Session { id, secret, identity: identity.clone() };
            let linger = linger_ms.map(|ms| Duration::from_millis(ms.into()));
            Ok(Some((Attach::Open { session: id, secret, ttl, linger, identity }, role)))
        }
        wire::Attach::Resume { session, secret, generation } => {
            let (session, secret) = (SessionId::new(session), Secret::new(secret));
            let identity = parse::identity(identity).map_err(no)?;
            let generation = Generation::new(generation);
            let role = Role::Session { id: session, secret, identity };
            Ok(Some((Attach::Resume { session, secret, generation }, role)))
        }
    }
}

/// A session's name and its secret: nobody can guess either, and no name comes twice.
fn draw() -> Result<(SessionId, Secret), getrandom::Error> {
    let mut numbers = [[0; 16]; 2];
    getrandom::fill(numbers.as_flattened_mut())?;
    let [id, secret] = numbers.map(u128::from_le_bytes);
    Ok((SessionId::new(id), Secret::new(secret)))
}

impl Actor for Coordinator {
    type Context = Context<Self>;
}

impl Handler<Connect> for Coordinator {
    type Result = ();

    fn handle(&mut self, connect: Connect, _: &mut Context<Self>) {
        let Connect { connection, peer, session } = connect;
        if let Some(code) = self.closed {
            let goodbye = render::goodbye(code, "the coordinator stops");
            return session.do_send(Deliver { messages: vec![goodbye], handled: Handled::Unsaid });
        }
        let (role, batch, handled) = (Role::Unknown, Vec::new(), Handled::Unsaid);
        self.connections.insert(connection, Connection { session, peer, role, batch, handled });
    }
}

impl Handler<Submit> for Coordinator {
    type Result = ();

    fn handle(&mut self, submit: Submit, ctx: &mut Context<Self>) {
        let Submit { connection, messages, window } = submit;
        // Taken here, after the message was read: what is decided is decided as of now (rule T1).
        let now = self.clock.now();
        if self.table.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.step(Event::Tick, now);
        }
        if window == Window::Shut {
            self.acknowledge(connection);
        }
        self.submit(connection, messages, now);
        self.finish_turn(now, ctx);
    }
}

impl Handler<Disconnect> for Coordinator {
    type Result = ();

    fn handle(&mut self, Disconnect { connection }: Disconnect, ctx: &mut Context<Self>) {
        let Some(known) = self.connections.remove(&connection) else { return };
        let now = self.clock.now();
        if matches!(known.role, Role::Session { .. }) {
            self.step(Event::Disconnect { connection }, now);
        }
        known.session.do_send(Deliver { messages: Vec::new(), handled: Handled::All });
        self.finish_turn(now, ctx);
    }
}

impl Handler<Persisted> for Coordinator {
    type Result = ();

    fn handle(&mut self, Persisted(durable): Persisted, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        self.step(Event::Persisted(durable), now);
        self.finish_turn(now, ctx);
    }
}

impl Handler<Drain> for Coordinator {
    type Result = ();

    fn handle(&mut self, Drain { finished }: Drain, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        self.step(Event::Drain, now);
        self.drained = Some(finished);
        self.finish_turn(now, ctx);
    }
}

impl Handler<CloseAll> for Coordinator {
    type Result = ();

    fn handle(&mut self, CloseAll { code }: CloseAll, _: &mut Context<Self>) {
        self.closed = Some(code);
        for (_, known) in self.connections.drain() {
            let goodbye = render::goodbye(code, "the coordinator stops");
            known.session.do_send(Deliver { messages: vec![goodbye], handled: Handled::Unsaid });
        }
    }
}
