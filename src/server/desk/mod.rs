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
//! rule about locks can be found here, it is in the wrong file. A turn ends after so many steps; what is
//! left of what clients said waits in the `backlog`, while the sockets are looked at. What is due happens
//! behind a *barrier*: once everything is heard that could be read by then. What the actor adds to the engine is the
//! attributes of connections: where their answers go, and who they said they are; and the proofs that
//! outlive a run, which the engine takes on trust.
//!
//! What is never here: a socket, a file, a wait.

mod audience;
mod backlog;
pub(super) mod connections;
mod hear;
pub(super) mod hello;
pub(super) mod inspect;
pub(super) mod parse;
mod perform;
pub(super) mod render;
pub(super) mod seal;
pub(super) mod subscribers;
pub(super) mod tenures;
#[cfg(test)]
mod tests;
pub(super) mod watches;
pub(super) mod weight;

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use actix::{Actor, AsyncContext, Context, Handler, MessageResult, SpawnHandle};
use foldhash::fast::RandomState;
use log::error;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::task::{spawn_local, yield_now};

use self::backlog::{Backlog, Item, QUANTUM_STEPS, TURN_STEPS_MAX};
use self::connections::{Connections, Role};
use self::seal::Sealer;
use self::subscribers::Subscribers;
use self::tenures::Tenures;
use self::watches::Watches;
use crate::clock::Clock;
use crate::engine::{Effect, Event, LockTable, Start};
use crate::server::counters::Counters;
use crate::server::durable::persist::Order;
use crate::server::durable::{Change, Everything};
use crate::server::log_lines;
use crate::server::messages::{
    AllHeard, CloseAll, Committed, Connect, Disconnect, Drain, GoOn, Save, Submit, TellState,
    Window,
};
use crate::server::net::hosts::Barrier;
use crate::types::{ConnectionId, GoodbyeCode, Limits, LockName, Timestamp};

/// The singleton that decides.
#[expect(clippy::struct_excessive_bools, reason = "each is about something of its own")]
pub(in crate::server) struct Coordinator {
    /// Every rule is in here, and nothing else touches it.
    table: LockTable<RandomState>,
    /// Where time comes from; tests bring their own.
    clock: Box<dyn Clock>,
    /// Where answers go.
    connections: Connections,
    /// Who wants to see locks that are held by others.
    watches: Watches,
    /// Who wants to hear of requests that are made by others.
    subscribers: Subscribers,
    /// The watched locks that have other holders since the turn began, as often as they changed.
    changed: Vec<LockName>,
    /// Locks that changed, with those who watch them and are yet to be shown it.
    showing: VecDeque<(LockName, VecDeque<(ConnectionId, u64)>)>,
    /// Whether the next turn is to come once the sockets were looked at.
    is_going_on: bool,
    /// What connections said, and no turn has come to yet.
    backlog: Backlog,
    /// Steps that were taken outside the table, for looks at it.
    looked: u64,
    /// How many steps may have been taken before the sockets are looked at again.
    steps_until_look: u64,
    /// Tells when everything is submitted that could be read at a moment.
    barrier: Barrier,
    /// Whether it was asked, and has not told yet.
    is_listening: bool,
    /// What the table wants done; empty between turns, kept for its memory.
    effects: Vec<Effect>,
    /// The one timer, and when it goes off. It may go off too early, never too late.
    timer: Option<(Timestamp, SpawnHandle)>,
    /// To the task that makes things durable.
    orders: UnboundedSender<Order>,
    /// Proves to a later run what this one says, and to this one what an earlier run has said.
    sealer: Sealer,
    /// Which grants the log tells of, and which it counts.
    tenures: Tenures,
    /// What the listener and the sessions count.
    counters: Arc<Counters>,
    /// When it began, for the uptime.
    since: Timestamp,
    /// Who wants to know when nothing is held any more.
    drained: Option<oneshot::Sender<()>>,
    /// Whether the log was told of a grace period, and not yet of its end.
    in_grace: bool,
    /// Everything was put on order to be saved: nothing is decided any more, for it would be lost.
    is_over: bool,
}

impl Coordinator {
    /// A coordinator that goes on from `start`.
    pub(in crate::server) fn new(
        limits: Limits,
        start: Start,
        clock: Box<dyn Clock>,
        orders: UnboundedSender<Order>,
        barrier: Barrier,
        sealer: Sealer,
        counters: Arc<Counters>,
    ) -> Self {
        let since = clock.now();
        let table = LockTable::new(limits, start, RandomState::default(), since);
        let grace = table.grace_left();
        log_lines::began(&table.counts(), grace);
        Self {
            table,
            clock,
            connections: Connections::default(),
            watches: Watches::default(),
            subscribers: Subscribers::default(),
            changed: Vec::new(),
            showing: VecDeque::new(),
            is_going_on: false,
            backlog: Backlog::default(),
            looked: 0,
            steps_until_look: TURN_STEPS_MAX,
            barrier,
            is_listening: false,
            effects: Vec::new(),
            timer: None,
            orders,
            sealer,
            tenures: Tenures::default(),
            counters,
            since,
            drained: None,
            in_grace: grace.is_some(),
            is_over: false,
        }
    }

    /// One event in, all its effects out: the one place where anything is decided.
    fn step(&mut self, event: &Event, now: Timestamp) {
        if !self.is_over {
            // Asked each time, for what the log tells may change at any time.
            self.table.listen(self.listening());
            self.table.handle(event, now, &mut self.effects);
            self.perform_all(now);
        }
    }

    /// Has something made durable; the table goes on, and hears when it is.
    fn order(&mut self, change: Change, done: Option<oneshot::Sender<()>>) {
        if self.orders.send(Order { change, done }).is_err() {
            error!("nobody makes the state durable any more; granting will stop");
        }
    }

    /// Ends a turn: delivers what has come together, and sees that the next deadline is met.
    fn finish_turn(&mut self, now: Timestamp, ctx: &mut Context<Self>) {
        self.show_changed(now);
        // Half a turn before it has to: so nobody is put off who says no more than the others.
        if !self.backlog.is_empty() || !self.showing.is_empty() || self.is_half_spent() {
            self.go_on_later(ctx);
        }
        self.connections.deliver(|connection| self.backlog.holds(connection));
        self.arm(now, ctx);
        if self.in_grace && self.table.grace_left().is_none() {
            self.in_grace = false;
            log_lines::grace_ended(&self.table.counts());
        }
        if self.drained.is_some()
            && self.table.counts().held == 0
            && let Some(drained) = self.drained.take()
        {
            // Nobody listens if the server did not wait so long.
            let _ = drained.send(());
        }
    }

    /// Steps taken since the start.
    fn steps(&self) -> u64 {
        self.table.steps() + self.looked
    }

    /// Whether this turn has done enough, and the sockets are to be looked at.
    fn is_spent(&self) -> bool {
        self.steps() >= self.steps_until_look
    }

    /// Whether the sockets are better looked at before it has.
    fn is_half_spent(&self) -> bool {
        self.steps() + TURN_STEPS_MAX / 2 >= self.steps_until_look
    }

    /// Puts something of a connection behind all that is waiting.
    fn put_off(&mut self, connection: ConnectionId, item: Item, ctx: &mut Context<Self>) {
        self.backlog.push(connection, item);
        self.go_on_later(ctx);
    }

    /// Has the next turn come once every socket was looked at.
    fn go_on_later(&mut self, ctx: &mut Context<Self>) {
        if !mem::replace(&mut self.is_going_on, true) {
            let this = ctx.address();
            // A task of its own: an actor's future would be polled whenever mail comes, and not only then.
            spawn_local(async move {
                yield_now().await;
                this.do_send(GoOn);
            });
        }
    }

    /// Serves those who wait until this turn has done enough.
    fn serve(&mut self, now: Timestamp) {
        while !self.is_spent()
            && let Some((connection, mut items)) = self.backlog.next()
        {
            let before = self.steps();
            while self.steps() - before < QUANTUM_STEPS
                && let Some(item) = items.front_mut()
            {
                if self.serve_one(connection, item, now) {
                    items.pop_front();
                }
            }
            self.backlog.served(connection, items, self.steps() - before);
        }
    }

    /// Does the next thing that an item holds; says whether it was the last.
    fn serve_one(&mut self, connection: ConnectionId, item: &mut Item, now: Timestamp) -> bool {
        match item {
            Item::Messages { rest, window, .. } => {
                if let Some(message) = rest.pop_front() {
                    self.message(connection, &message, now);
                }
                let is_last = rest.is_empty();
                if is_last && *window == Window::Shut {
                    self.connections.acknowledge(connection);
                }
                is_last
            }
            Item::End => {
                self.end_connection(connection, now);
                true
            }
        }
    }

    /// A connection is over, and all that it said is done.
    fn end_connection(&mut self, connection: ConnectionId, now: Timestamp) {
        let Some(role) = self.connections.remove(connection) else { return };
        self.forget_interests(connection);
        if matches!(role, Role::Session { .. }) {
            self.step(&Event::Disconnect { connection }, now);
        }
    }

    /// Lets what is due by `now` happen as soon as everything is heard that could be read by then: a
    /// lease never ends while the message that would have renewed it lies unread (rule T4).
    fn listen(&mut self, now: Timestamp, ctx: &mut Context<Self>) {
        if !self.is_listening {
            self.is_listening = true;
            let (barrier, this) = (self.barrier.clone(), ctx.address());
            spawn_local(async move {
                barrier.pass().await;
                this.do_send(AllHeard { at: now });
            });
        }
    }

    /// Sees that the timer goes off at the next deadline or before. One that goes off before finds
    /// nothing to do and is armed anew, so that the renewal of a lease costs nothing here. While there
    /// are sessions, the next deadline is never far: the table wants to hear that time passes, so that
    /// it notices when it did not (rule T3).
    fn arm(&mut self, now: Timestamp, ctx: &mut Context<Self>) {
        if self.is_over || self.is_listening {
            return;
        }
        let Some(deadline) = self.table.next_deadline() else { return };
        if deadline <= now {
            return self.listen(now, ctx);
        }
        if let Some((at, handle)) = self.timer {
            if at <= deadline {
                return;
            }
            ctx.cancel_future(handle);
        }
        let handle = ctx.run_later(deadline.since(now), |this, ctx| {
            this.timer = None;
            // Here time passes, also for those of whom nothing more is heard.
            this.counters.chatter.look();
            let now = this.clock.now();
            this.tenures.look(&mut this.table, now);
            this.listen(now, ctx);
        });
        self.timer = Some((deadline, handle));
    }
}

impl Actor for Coordinator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        // The run before may have left leases, timeouts, or a grace period.
        self.arm(self.clock.now(), ctx);
    }
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
        let Submit { connection, messages, window, unheard } = submit;
        if self.is_spent() || self.backlog.holds(connection) {
            return self.put_off(connection, Item::rest(messages, 0, window, unheard), ctx);
        }
        // Taken here, after the message was read: what is decided is decided as of now (rule T1).
        let now = self.clock.now();
        let handled = self.submit(connection, &messages, now);
        if handled < messages.len() {
            self.put_off(connection, Item::rest(messages, handled, window, unheard), ctx);
        } else if window == Window::Shut {
            self.connections.acknowledge(connection);
        }
        self.finish_turn(now, ctx);
    }
}

impl Handler<GoOn> for Coordinator {
    type Result = ();

    fn handle(&mut self, GoOn: GoOn, ctx: &mut Context<Self>) {
        self.is_going_on = false;
        self.steps_until_look = self.steps() + TURN_STEPS_MAX;
        let now = self.clock.now();
        self.serve(now);
        self.finish_turn(now, ctx);
    }
}

impl Handler<AllHeard> for Coordinator {
    type Result = ();

    fn handle(&mut self, AllHeard { at }: AllHeard, ctx: &mut Context<Self>) {
        self.is_listening = false;
        let now = self.clock.now();
        for connection in self.backlog.connections().collect::<Vec<_>>() {
            self.step(&Event::Heard { connection }, now);
        }
        self.step(&Event::Tick { heard: at }, now);
        self.finish_turn(now, ctx);
    }
}

impl Handler<Disconnect> for Coordinator {
    type Result = ();

    fn handle(&mut self, Disconnect { connection }: Disconnect, ctx: &mut Context<Self>) {
        if self.backlog.holds(connection) {
            return self.backlog.push(connection, Item::End);
        }
        let now = self.clock.now();
        self.end_connection(connection, now);
        self.finish_turn(now, ctx);
    }
}

impl Handler<Committed> for Coordinator {
    type Result = ();

    fn handle(&mut self, Committed { durable, recorded }: Committed, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        if let Some(durable) = durable {
            self.step(&Event::Persisted(durable), now);
        }
        if recorded > 0 {
            self.step(&Event::Recorded { count: recorded }, now);
        }
        self.finish_turn(now, ctx);
    }
}

impl Handler<Save> for Coordinator {
    type Result = MessageResult<Save>;

    fn handle(&mut self, Save { saved }: Save, ctx: &mut Context<Self>) -> Self::Result {
        if self.is_over {
            return MessageResult(self.table.counts());
        }
        let now = self.clock.now();
        // With nobody there, nothing may have happened for long: what is left is counted from now.
        self.step(&Event::Tick { heard: Timestamp::default() }, now);
        // Whatever was said is in the snapshot, and whatever is in the snapshot was said.
        self.finish_turn(now, ctx);
        self.is_over = true;
        self.tenures.tell_rest(&mut self.table, now);
        let counts = self.table.counts();
        log_lines::saving(&counts);
        // The table itself goes, as it is: a copy would take its memory twice.
        let nothing =
            LockTable::new(Limits::default(), Start::default(), RandomState::default(), now);
        let everything = Everything::left_by(mem::replace(&mut self.table, nothing));
        self.order(Change::SaveSnapshot(everything), Some(saved));
        self.connections.close_all(GoodbyeCode::Draining);
        MessageResult(counts)
    }
}

impl Handler<Drain> for Coordinator {
    type Result = ();

    fn handle(&mut self, Drain { finished }: Drain, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        self.step(&Event::Drain, now);
        self.drained = Some(finished);
        self.tenures.tell_rest(&mut self.table, now);
        self.finish_turn(now, ctx);
    }
}

impl Handler<TellState> for Coordinator {
    type Result = ();

    fn handle(&mut self, TellState: TellState, _: &mut Context<Self>) {
        let uptime = self.clock.now().since(self.since);
        log_lines::state(&inspect::status(&self.table, uptime, &self.counters));
        self.counters.chatter.tell_rest();
        self.tenures.tell_rest(&mut self.table, self.clock.now());
    }
}

impl Handler<CloseAll> for Coordinator {
    type Result = ();

    fn handle(&mut self, CloseAll { code }: CloseAll, _: &mut Context<Self>) {
        self.tenures.tell_rest(&mut self.table, self.clock.now());
        self.connections.close_all(code);
    }
}
