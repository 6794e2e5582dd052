//! The desk: the Coordinator's decisions as a plain struct (functional core, imperative shell).
//!
//! ```text
//!   submit, disconnect, ──▶ ┌──────────────────────────────┐ ──▶ Turn: deliveries, by connection
//!   committed, tick, …      │ Desk                         │           orders, for the store
//!     (and the time)        │   events ─▶ step ─▶ effects  │           goes_on, listens
//!                           └──────────────────────────────┘
//! ```
//!
//! The one idea: *a turn is data*. The desk brings each message to the table, event by event, and
//! collects the outcome for each connection. Its caller carries that out: the Coordinator's mailbox
//! in production, a heap of events in a simulation. Both run exactly the same code.
//!
//! It is dull. A turn steps the table, performs the effects, and lists the messages to send. A rule
//! about locks in here is in the wrong file. A turn ends after a bounded number of steps. The rest
//! of the messages waits in the `backlog`, while the sockets are polled. Deadlines are met behind a
//! *barrier*: once everything is heard that could be read by then. The desk adds two things to the
//! engine. The first is the attributes of connections: purpose, identity, watches. The second is
//! the proofs (MACs) that outlive a run, which the engine takes on trust.
//!
//! *One place each* is the hook of the write-ahead log, between decision and answer. Every event
//! goes through [`Desk::take_step`], with its moment. Its consequences leave in a [`Turn`] and by no
//! other way.
//!
//! | file | is about |
//! |---|---|
//! | `turn` | input and output |
//! | `hear`, `hello`, `parse` | messages of clients, brought to the engine |
//! | `perform`, `render`, `inspect` | effects and views of the engine, brought to the wire |
//! | `audience`, `watches`, `subscribers` | those who watch locks, and hear of the requests of others |
//! | `connections`, `weight` | connections, their batches in the making, the memory of messages |
//! | `backlog`, `serve` | work that a turn has left to do, and fair queuing of it |
//! | `finish` | the end of a turn, and when the next one is due |
//! | `looks` | the rate of looks, and who rests until it is time for another |
//! | `rights`, `guest`, `usage`, `sight` | who a connection has proven to be, what it may do, what it is shown |
//! | `marked` | whether a session is a principal's, by its id |
//! | `refusals` | who proves nobody again and again, and hears so later |
//! | `audited` | what the audit log is told |
//! | `figures` | what is counted, for whoever draws curves of it |
//! | `seal` | proofs that outlive a run: secrets of sessions, seals of grants, tickets of places |
//! | `tenures` | which grants the log tells of, and which it counts |
//!
//! Never here: an actor, a socket, a file, a clock, a wait. The log is told, but decides nothing.

mod audience;
mod audited;
mod backlog;
mod connections;
#[cfg(feature = "redis-api")]
pub(super) mod dialect;
pub(super) mod figures;
mod finish;
mod guest;
mod hear;
pub(super) mod hello;
mod inspect;
pub(super) mod looks;
mod marked;
mod parse;
mod perform;
mod refusals;
pub(super) mod render;
mod rights;
pub(super) mod seal;
mod serve;
mod sight;
mod subscribers;
mod tenures;
#[cfg(test)]
#[cfg_attr(not(feature = "access"), allow(dead_code, reason = "tests of rights need them"))]
mod testing;
#[cfg(test)]
mod tests;
pub(super) mod turn;
mod usage;
mod watches;
#[cfg(test)]
#[cfg_attr(
    not(all(feature = "client", feature = "redis-api")),
    allow(dead_code, reason = "simulations have both sides")
)]
pub(super) mod witness;

use std::collections::VecDeque;
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use self::backlog::{Backlog, Item, TURN_STEPS_MAX};
pub(super) use self::connections::{BATCH_BYTES_MAX, EVENTS_BYTES_MAX};
use self::connections::{Connections, Role};
use self::figures::{Contention, Figures, Told};
use self::hello::Draw;
use self::looks::Looks;
use self::rights::Rights;
pub(in crate::server) use self::rights::entitled;
pub use self::rights::{Errand, Unentitled, Who};
use self::seal::Sealer;
use self::subscribers::Subscribers;
use self::tenures::Tenures;
use self::turn::{Submit, Turn, Way, Window};
use self::watches::Watches;
use crate::access::Access;
use crate::engine::{Counts, Effect, Event, LockTable, Run, Seed, Start};
use crate::server::audit::Audit;
use crate::server::counters::Counters;
use crate::server::durable::{Change, Committed, Everything};
use crate::server::log_lines;
use crate::types::{ConnectionId, GoodbyeCode, Histogram, Limits, LockName, Timestamp};
use foldhash::fast::SeedableRandomState;

/// What a connection is told when the coordinator stops.
pub(in crate::server) const STOPS: &str = "the coordinator stops";

/// Decides, and knows all that takes.
#[expect(clippy::struct_excessive_bools, reason = "each is about something of its own")]
pub(crate) struct Desk {
    /// Every rule is in here, and nothing else touches it.
    table: LockTable,
    /// Each connection's purpose, and its batch in this turn.
    connections: Connections,
    /// Who may do what.
    rights: Rights,
    /// Where it is written down who did what.
    audit: Audit,
    /// Watchers of locks that are held by others.
    watches: Watches,
    /// Subscribers to events of requests that are made by others.
    subscribers: Subscribers,
    /// The watched locks that have other holders since the turn began, as often as they changed.
    changed: Vec<LockName>,
    /// Locks that changed, with those who watch them and are yet to be shown it.
    showing: VecDeque<(LockName, VecDeque<(ConnectionId, u64)>)>,
    /// Whether the next turn is to come once the sockets were looked at.
    is_going_on: bool,
    /// Messages of connections that no turn has come to yet.
    backlog: Backlog,
    /// When observers may look, and those for whom it is not yet time.
    looks: Looks,
    /// Counts of what was told.
    told: Told,
    /// How late the timer came.
    lag: Histogram,
    /// Steps that were taken outside the table, for looks at it.
    looked: u64,
    /// How many steps may have been taken before the sockets are looked at again.
    steps_until_look: u64,
    /// Whether it was asked to be told when everything is heard, and was not told yet.
    is_listening: bool,
    /// The table's effects; empty between turns, kept for its memory.
    effects: Vec<Effect>,
    /// The outcome of this turn so far.
    turn: Turn,
    /// Proves to a later run what this one says, and to this one what an earlier run has said.
    sealer: Sealer,
    /// Names new sessions.
    draw: Draw,
    /// The wall clock, for those who hear of events.
    wall: fn() -> SystemTime,
    /// Grants that the log tells of, and those that it counts.
    tenures: Tenures,
    /// Counters of the listener and the sessions.
    counters: Arc<Counters>,
    /// When it began, for the uptime.
    since: Timestamp,
    /// Somebody wants to know when nothing is held any more.
    is_draining: bool,
    /// Whether other coordinators lead before and after this one.
    takes_turns: bool,
    /// Whether the log was told of a grace period, and not yet of its end.
    in_grace: bool,
    /// Counts at the moment when everything was put on order to be saved, if it was. Nothing is
    /// decided any more, because it would be lost.
    over: Option<Counts>,
    /// Whether what the engine is told is to be written down.
    is_recorded: bool,
    /// With what this run goes on with the table of the one before, until it has begun.
    run: Option<Run>,
    /// Connections of the Redis dialect.
    #[cfg(feature = "redis-api")]
    dialect: dialect::Dialect,
    /// Sees what no client is told, for a simulation.
    #[cfg(test)]
    witness: Option<witness::Witness>,
}

/// The beginnings of a desk.
pub(in crate::server) struct Setting {
    /// The limits: bounds on everything that clients can cause.
    pub(in crate::server) limits: Limits,
    /// All that the run before has left.
    pub(in crate::server) start: Start,
    /// The table of the run before, if that was made already.
    pub(in crate::server) before: Before,
    /// Has the key of that state.
    pub(in crate::server) sealer: Sealer,
    /// Names new sessions: so that nobody can guess them, and none comes twice.
    pub(in crate::server) draw: Draw,
    /// The wall clock, for those who hear of events.
    pub(in crate::server) wall: fn() -> SystemTime,
    /// How many looks there may be in a second.
    pub(in crate::server) looks_per_second: u32,
    /// Who may do what.
    pub(in crate::server) access: Arc<Access>,
    /// Where it is written down who did what.
    pub(in crate::server) audit: Audit,
    /// Counters of the listener and the sessions.
    pub(in crate::server) counters: Arc<Counters>,
}

/// A table that a run goes on with.
pub(crate) enum Before {
    /// It is yet to be made, of all that the run before has left.
    Nothing,
    /// That is made of what an orderly stop has left.
    Saved(Box<LockTable>),
    /// That of a run that has crashed: then that goes on (rule J4).
    Crashed(Box<LockTable>),
}

impl Desk {
    /// A desk that goes on from where the run before has ended.
    pub(in crate::server) fn new(setting: Setting, now: Timestamp) -> Self {
        let Setting { limits, start, before, sealer, draw, wall, looks_per_second, .. } = setting;
        let Setting { access, audit, counters, .. } = setting;
        let Start { durable, first_token, plausible, .. } = start;
        let (table, run) = match before {
            Before::Crashed(table) => {
                (*table, Some(Run { durable, first_token, plausible, limits }))
            }
            Before::Saved(table) => (*table, None),
            Before::Nothing => (
                LockTable::new(limits, start, Seed::from(SeedableRandomState::random()), now),
                None,
            ),
        };
        let grace = table.grace_left();
        if let Some(grace) = grace {
            counters.keeping.has_grace(grace);
        }
        let rights = Rights::new(access, &table);
        log_lines::began(&table.counts(), grace, run.is_some());
        Self {
            table,
            connections: Connections::default(),
            rights,
            audit,
            watches: Watches::default(),
            subscribers: Subscribers::default(),
            changed: Vec::new(),
            showing: VecDeque::new(),
            is_going_on: false,
            backlog: Backlog::default(),
            looks: Looks::new(looks_per_second),
            told: Told::default(),
            lag: Histogram::default(),
            looked: 0,
            steps_until_look: TURN_STEPS_MAX,
            is_listening: false,
            effects: Vec::new(),
            turn: Turn::default(),
            sealer,
            draw,
            wall,
            tenures: Tenures::default(),
            counters,
            since: now,
            is_draining: false,
            takes_turns: false,
            in_grace: grace.is_some(),
            over: None,
            is_recorded: false,
            run,
            #[cfg(feature = "redis-api")]
            dialect: dialect::Dialect::default(),
            #[cfg(test)]
            witness: None,
        }
    }

    /// From now on, what the engine is told is written down, or not.
    pub(crate) fn record(&mut self, is_recorded: bool) {
        self.is_recorded = is_recorded;
    }

    /// All that is decided, for a journal that begins here. None once it was put on order to be saved:
    /// it is not here any more.
    pub(crate) fn table(&self) -> Option<&LockTable> {
        self.over.is_none().then_some(&self.table)
    }

    /// Begins: goes on with what the run before has left, if that is known.
    #[must_use]
    pub(crate) fn begin(&mut self, now: Timestamp) -> &mut Turn {
        // Before anybody is granted anything: these may be other rules than those of the run before.
        self.withhold(now);
        if let Some(run) = self.run.take() {
            self.step(&Event::Began(run), now);
        }
        self.finish_turn(now)
    }

    /// A connection is there, and says nothing yet. What it is told goes this way.
    #[must_use]
    pub(crate) fn connect(
        &mut self,
        connection: ConnectionId,
        way: Way,
        peer: Option<SocketAddr>,
    ) -> &mut Turn {
        self.connections.insert(connection, (way, false), peer, &mut self.turn.deliveries);
        &mut self.turn
    }

    /// What one read of a connection has brought, as a turn of its own.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn submit(&mut self, submit: Submit, now: Timestamp) -> &mut Turn {
        self.hear_submit(submit, now);
        self.finish_turn(now)
    }

    /// What one read of a connection has brought, as a part of a turn.
    pub(in crate::server) fn hear_submit(&mut self, submit: Submit, now: Timestamp) {
        let Submit { connection, messages, window, unheard } = submit;
        if self.looks.holds(connection) {
            return self.looks.rest(connection, Item::rest(messages, 0, window, unheard));
        }
        if self.is_spent() || self.backlog.holds(connection) {
            return self.put_off(connection, Item::rest(messages, 0, window, unheard));
        }
        let handled = self.hear(connection, &messages, now);
        if handled < messages.len() {
            let rest = Item::rest(messages, handled, window, unheard);
            if self.is_spent() {
                self.put_off(connection, rest);
            } else {
                // It stopped before a look.
                self.looks.rest(connection, rest);
            }
        } else if window == Window::Shut {
            self.connections.acknowledge(connection);
        }
    }

    /// Every socket was looked at since a turn had done enough.
    #[must_use]
    pub(crate) fn go_on(&mut self, now: Timestamp) -> &mut Turn {
        self.is_going_on = false;
        self.steps_until_look = self.steps() + TURN_STEPS_MAX;
        #[cfg(feature = "redis-api")]
        if self.is_redis_first() {
            self.serve_redis(now);
        }
        self.serve(now);
        #[cfg(feature = "redis-api")]
        self.serve_redis(now);
        self.finish_turn(now)
    }

    /// A connection ended without a Goodbye, as a turn of its own.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn disconnect(&mut self, connection: ConnectionId, now: Timestamp) -> &mut Turn {
        self.hear_end(connection, now);
        self.finish_turn(now)
    }

    /// A connection ended without a Goodbye, as a part of a turn. Answered by an empty batch that says
    /// that all it submitted is handled.
    pub(in crate::server) fn hear_end(&mut self, connection: ConnectionId, now: Timestamp) {
        if self.looks.holds(connection) {
            return self.looks.rest(connection, Item::End);
        }
        #[cfg(feature = "redis-api")]
        if self.ends_later(connection) {
            return;
        }
        if self.backlog.holds(connection) {
            self.backlog.push(connection, Item::End);
        } else {
            self.end_connection(connection, now);
        }
    }

    /// What the turn has come to.
    pub(in crate::server) fn turn(&mut self) -> &mut Turn {
        &mut self.turn
    }

    /// The moment of [`Desk::next_deadline`] has come, or an earlier one that was it before.
    #[must_use]
    pub(crate) fn ring(&mut self, now: Timestamp) -> &mut Turn {
        // Here time passes, also for those of whom nothing more is heard.
        self.counters.chatter.look();
        self.audit.tell_left_out();
        self.tenures.look(&mut self.table, &mut self.turn.lines, now);
        if self.next_of_desk().is_some_and(|at| at <= now) {
            // They look there, or hear, and what else is due is asked for.
            return self.finish_turn(now);
        }
        self.listen(now);
        &mut self.turn
    }

    /// The timer came, so late.
    pub(crate) fn note_lag(&mut self, late: Duration) {
        self.lag.note_length(late);
    }

    /// Whatever could be read at the moment `heard` was submitted.
    #[must_use]
    pub(crate) fn tick(&mut self, heard: Timestamp, now: Timestamp) -> &mut Turn {
        self.is_listening = false;
        for connection in self.backlog.connections().collect::<Vec<_>>() {
            self.step(&Event::Heard { connection }, now);
        }
        self.step(&Event::Tick { heard }, now);
        self.finish_turn(now)
    }

    /// So much more is on disk.
    #[must_use]
    pub(crate) fn committed(&mut self, committed: &Committed, now: Timestamp) -> &mut Turn {
        if let Some(durable) = committed.durable {
            self.step(&Event::Persisted(durable), now);
        }
        if committed.recorded > 0 {
            self.step(&Event::Recorded { count: committed.recorded }, now);
        }
        self.finish_turn(now)
    }

    /// This run is over, and the next is to go on from here. Every connection is said Goodbye to,
    /// and everything is put on order to be saved. Nothing is decided any more.
    #[must_use]
    pub(crate) fn save(&mut self, now: Timestamp) -> &mut Turn {
        if self.over.is_some() {
            return &mut self.turn;
        }
        self.order_everything(now);
        self.close_all(GoodbyeCode::Draining, STOPS, now)
    }

    /// The same of one of several, with Goodbyes to follow by [`Desk::close_all`]: until then nobody knows where
    /// connections are to go.
    #[must_use]
    pub(crate) fn save_for_another(&mut self, now: Timestamp) -> &mut Turn {
        if self.over.is_none() {
            self.order_everything(now);
            self.connections.depart();
        }
        &mut self.turn
    }

    fn order_everything(&mut self, now: Timestamp) {
        // The next run takes everything up that can be granted, before it looks at rules.
        self.look_through_all(now);
        // With nobody there, nothing may have happened for long: what is left is counted from now.
        self.step(&Event::Tick { heard: Timestamp::default() }, now);
        // Whatever was said is in the snapshot, and whatever is in the snapshot was said.
        let _ = self.finish_turn(now);
        self.tenures.tell_rest(&mut self.table, &mut self.turn.lines, now);
        let counts = self.table.counts();
        log_lines::saving(&counts);
        self.over = Some(counts);
        #[cfg(test)]
        self.witness_leaving();
        // The table itself goes, as it is: a copy would take its memory twice.
        let nothing = LockTable::new(
            Limits::default(),
            Start::default(),
            Seed::from(SeedableRandomState::random()),
            now,
        );
        let everything = Everything::left_by(mem::replace(&mut self.table, nothing));
        self.turn.orders.push(Change::SaveSnapshot(everything));
    }

    /// Other coordinators lead before and after this one.
    pub(crate) fn is_one_of_several(&mut self) {
        self.takes_turns = true;
    }

    /// Stop soon, and nothing will go on: waiters are answered, nothing new is accepted, holders may
    /// finish.
    #[must_use]
    pub(crate) fn drain(&mut self, now: Timestamp) -> &mut Turn {
        self.step(&Event::Drain, now);
        self.is_draining = true;
        self.tenures.tell_rest(&mut self.table, &mut self.turn.lines, now);
        self.finish_turn(now)
    }

    /// Says Goodbye to every connection, and to those that still come.
    #[must_use]
    pub(crate) fn close_all(&mut self, code: GoodbyeCode, why: &str, now: Timestamp) -> &mut Turn {
        self.tenures.tell_rest(&mut self.table, &mut self.turn.lines, now);
        let before = self.turn.deliveries.len();
        self.connections.close_all(code, why, &mut self.turn.deliveries);
        for _ in before..self.turn.deliveries.len() {
            self.counters.closed(code);
        }
        &mut self.turn
    }

    /// Tells the log how things are.
    #[must_use]
    pub(crate) fn tell_state(&mut self, now: Timestamp) -> &mut Turn {
        let uptime = now.since(self.since);
        log_lines::state(&inspect::status(&self.table, uptime, &self.counters));
        self.counters.chatter.tell_rest();
        self.tenures.tell_rest(&mut self.table, &mut self.turn.lines, now);
        &mut self.turn
    }

    /// How much of everything there is, or was when it was put on order to be saved.
    pub(crate) fn counts(&self) -> Counts {
        self.over.unwrap_or_else(|| self.table.counts())
    }

    /// What is counted of this run.
    pub(crate) fn figures(&self, now: Timestamp) -> Figures {
        Figures {
            counts: self.counts(),
            tally: self.table.tally().clone(),
            told: self.told.clone(),
            lag: self.lag.clone(),
            epoch: self.table.epoch().number(),
            uptime: now.since(self.since),
            grace: self.table.grace_left().unwrap_or_default(),
            watches: self.watches.len(),
            subscribers: self.subscribers.len(),
            looks: self.looks.count,
            looks_delayed: self.looks.delayed,
        }
    }

    /// A page of the locks that somebody waits for, from a place on, all together.
    pub(crate) fn contention(&self, from: usize, now: Timestamp) -> Contention {
        Contention::of(&self.table, from, now)
    }

    /// One event in, all its effects out: the one place where anything is decided.
    fn step(&mut self, event: &Event, now: Timestamp) {
        self.listen_anew();
        self.take_step(event, now);
    }

    /// Has the table tell what somebody wants to hear of. Asked again and again, for what the log tells
    /// may change at any time.
    pub(super) fn listen_anew(&mut self) {
        self.table.listen(self.listening());
    }

    /// [`Desk::step`] of one whom the table listens for already.
    fn take_step(&mut self, event: &Event, now: Timestamp) {
        if self.over.is_none() {
            if self.is_recorded {
                self.turn.record.write(event, now);
            }
            self.decide(event, now);
            self.perform_all(now);
        }
    }

    #[cfg(not(test))]
    fn decide(&mut self, event: &Event, now: Timestamp) {
        self.table.handle(event, now, &mut self.effects);
    }

    /// A connection is over, and all that it said is done.
    fn end_connection(&mut self, connection: ConnectionId, now: Timestamp) {
        #[cfg(feature = "redis-api")]
        self.audit_parting(connection, "disconnected");
        let Some(role) = self.connections.remove(connection, &mut self.turn.deliveries) else {
            return;
        };
        self.forget_interests(connection);
        #[cfg(feature = "redis-api")]
        self.forget_talker(connection, now);
        if matches!(role, Role::Session { .. }) {
            self.step(&Event::Disconnect { connection }, now);
        }
    }
}
