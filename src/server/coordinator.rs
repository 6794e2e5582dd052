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

mod perform;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use actix::{Actor, AsyncContext, Context, Handler, SpawnHandle};
use foldhash::fast::RandomState;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::connections::{Connections, Role};
use super::counters::Counters;
use super::hello::Hello;
use super::inspect;
use super::journal::{self, Who};
use super::messages::{CloseAll, Connect, Disconnect, Drain, Persisted, Submit, Window};
use super::{parse, render};
use crate::clock::Clock;
use crate::engine::{Command, Durable, Effect, Event, LockTable, Rejection, Start};
use crate::types::{
    ConnectionId, Epoch, FencingToken, Generation, GoodbyeCode, Limits, RequestId, Secret,
    SessionId, Timestamp,
};
use crate::wire::{ClientMessage, Query, ServerMessage};

/// The singleton that decides.
pub(super) struct Coordinator {
    /// Every rule is in here, and nothing else touches it.
    table: LockTable<RandomState>,
    /// Where time comes from; tests bring their own.
    clock: Box<dyn Clock>,
    /// Where answers go.
    connections: Connections,
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
            connections: Connections::default(),
            effects: Vec::new(),
            timer: None,
            orders,
            counters,
            since,
            drained: None,
        }
    }

    /// Takes what one read of a connection brought: keep-alives first (rule S5), then the rest in
    /// order.
    fn submit(&mut self, connection: ConnectionId, messages: Vec<ClientMessage>, now: Timestamp) {
        let mut rest = messages.into_iter();
        if let [ClientMessage::Hello { .. }, ..] = rest.as_slice()
            && let Some(hello) = rest.next()
        {
            self.message(connection, hello, now);
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
                self.message(connection, message, now);
            }
        }
    }

    /// Has one message done.
    fn message(&mut self, connection: ConnectionId, message: ClientMessage, now: Timestamp) {
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
                self.inspect(connection, query_id, query, now);
            }
            ClientMessage::Revoke { query_id, name, token } => {
                self.revoke(connection, query_id, name, FencingToken::new(token), now);
            }
        }
    }

    /// Says what the connection is for; the session has seen that it says so once, and first.
    fn hello(&mut self, connection: ConnectionId, hello: Hello, now: Timestamp) {
        let (epoch_seen, token_seen) = (hello.epoch_seen, hello.token_seen);
        let (role, attach) = match hello.parse() {
            Ok(parsed) => parsed,
            Err((code, reason)) => {
                return self.connections.dismiss(connection, render::refused(code, reason));
            }
        };
        let Some(known) = self.connections.assume(connection, role) else { return };
        let peer = known.peer;
        if let Some(attach) = attach {
            self.step(Event::Attach { connection, peer, attach, epoch_seen, token_seen }, now);
        } else {
            let (session, secret) = (SessionId::new(0), Secret::new(0));
            let (epoch, generation) = (self.table.epoch(), Generation::default());
            let welcome = render::welcome(epoch, session, secret, generation, None);
            self.connections.tell(connection, welcome);
        }
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
        match self.connections.role(connection) {
            Some(Role::Session { id, identity, .. }) => {
                if journal::is_told() {
                    let who = Who { session: *id, identity: Some(identity) };
                    let locks = self.locks_of(*id, RequestId::new(request));
                    journal::received(who, &command, locks.iter());
                    let asks = matches!(command, Command::Request(_));
                    let watched = asks.then_some((*id, RequestId::new(request)));
                    let event = Event::Command { connection, command };
                    self.table.handle(event, now, &mut self.effects);
                    self.note_queued(watched, connection);
                    self.perform_all(now);
                } else {
                    self.step(Event::Command { connection, command }, now);
                }
            }
            Some(Role::Observer) => {
                let message = render::rejected(request, &Rejection::SessionNeeded, None);
                self.connections.tell(connection, message);
            }
            Some(Role::Unknown | Role::Gone) | None => {}
        }
    }

    fn keep_alive(&mut self, connection: ConnectionId, sequence: u64, now: Timestamp) {
        match self.connections.role(connection) {
            Some(Role::Session { .. }) => {
                let command = Command::KeepAlive { sequence };
                self.step(Event::Command { connection, command }, now);
            }
            // There is no lease to renew, but there is someone who wants to know we are here.
            Some(Role::Observer) => {
                self.connections.tell(connection, ServerMessage::KeptAlive { sequence });
            }
            Some(Role::Unknown | Role::Gone) | None => {}
        }
    }

    fn goodbye(&mut self, connection: ConnectionId, now: Timestamp) {
        match self.connections.role(connection) {
            Some(Role::Session { .. }) => {
                self.step(Event::Command { connection, command: Command::Goodbye }, now);
            }
            Some(Role::Observer) => {
                let goodbye = render::goodbye(GoodbyeCode::Done, "as you say");
                self.connections.dismiss(connection, goodbye);
            }
            Some(Role::Unknown | Role::Gone) | None => {}
        }
    }

    fn inspect(&mut self, connection: ConnectionId, query_id: u64, query: Query, now: Timestamp) {
        let table = &self.table;
        let Some(budget) = self.connections.budget(connection) else { return };
        let answer = match query {
            Query::Server => {
                inspect::server(table, query_id, now.since(self.since), &self.counters)
            }
            Query::Locks { cursor } => inspect::locks(table, query_id, cursor, now, budget),
            Query::Sessions { cursor } => inspect::sessions(table, query_id, cursor, now, budget),
            Query::Lock { name } => match parse::lock_name(name) {
                Ok(name) => inspect::one_lock(table, query_id, name.as_str(), now, budget),
                Err(rejection) => render::rejected(query_id, &rejection, None),
            },
        };
        self.connections.tell(connection, answer);
    }

    fn revoke(
        &mut self,
        connection: ConnectionId,
        query_id: u64,
        name: String,
        token: FencingToken,
        now: Timestamp,
    ) {
        if let Some(Role::Unknown | Role::Gone) | None = self.connections.role(connection) {
            return;
        }
        match parse::lock_name(name) {
            Ok(name) => {
                log::info!("revoke received lock={name:?} token={token}");
                self.step(Event::Revoke { connection, query_id, name, token }, now);
            }
            Err(rejection) => {
                self.connections.tell(connection, render::rejected(query_id, &rejection, None));
            }
        }
    }

    /// One event in, all its effects out.
    fn step(&mut self, event: Event, now: Timestamp) {
        self.table.handle(event, now, &mut self.effects);
        self.perform_all(now);
    }

    /// Ends a turn: delivers what has come together, and sees that the next deadline is met.
    fn finish_turn(&mut self, now: Timestamp, ctx: &mut Context<Self>) {
        self.connections.deliver();
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

impl Actor for Coordinator {
    type Context = Context<Self>;
}

impl Handler<Connect> for Coordinator {
    type Result = ();

    fn handle(&mut self, connect: Connect, _: &mut Context<Self>) {
        self.connections.insert(connect);
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
            self.connections.acknowledge(connection);
        }
        self.submit(connection, messages, now);
        self.finish_turn(now, ctx);
    }
}

impl Handler<Disconnect> for Coordinator {
    type Result = ();

    fn handle(&mut self, Disconnect { connection }: Disconnect, ctx: &mut Context<Self>) {
        let Some(role) = self.connections.remove(connection) else { return };
        let now = self.clock.now();
        if matches!(role, Role::Session { .. }) {
            self.step(Event::Disconnect { connection }, now);
        }
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
        self.connections.close_all(code);
    }
}
