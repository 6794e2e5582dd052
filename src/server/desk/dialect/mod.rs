//! The Redis dialect at the desk: commands in, answers out, in the order in which they were said.
//!
//! A connection of this dialect has no session. What it takes is held unattended, each lock by a session of
//! its own (rule S11), and is found by the lock's name: nothing about holds is kept here. What is kept is of
//! connections: what they watch, and for what they wait.
//!
//! One read of a connection is heard at a time. Its answers leave with the turn, behind the journal's record,
//! as all answers do. So an `OK` is said when it is written down.
//!
//! Never here: a rule about locks, a socket.

mod holds;
#[cfg(test)]
mod tests;
mod wait;

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use foldhash::fast::RandomState;

use self::holds::DeskHolds;
use self::wait::{Blocked, News};
use super::Desk;
use super::backlog::QUANTUM_STEPS;
use super::turn::{Promise, Turn, Way};
use crate::engine::RequestEvent;
use crate::redis::{Deed, Holds, Look, Protocol, Reply, Said, Step, perform};
use crate::server::ledger::Unheard;
use crate::types::{ConnectionId, FencingToken, Identity, LockName, Mark, SessionId, Timestamp};

/// One read of a connection of this dialect.
#[derive(Debug)]
pub(in crate::server) struct SubmitRedis {
    /// The connection.
    pub(in crate::server) connection: ConnectionId,
    /// What its client said, in order.
    pub(in crate::server) said: Vec<Said>,
    /// The name that it gives itself, if that is another now; empty: none.
    pub(in crate::server) name: Option<String>,
    /// Counts it until it is handled.
    pub(in crate::server) unheard: Unheard,
}

/// What the desk knows of connections of this dialect.
#[derive(Default)]
pub(super) struct Dialect {
    /// Each of them that has said something.
    talkers: HashMap<ConnectionId, Talker, RandomState>,
    /// Reads that wait for a turn.
    queue: VecDeque<Batch>,
    /// The session that is asked for just now, and what it was told of that.
    asking: Option<(SessionId, Option<RequestEvent>)>,
    /// For which connection each unattended session waits.
    waiters: HashMap<SessionId, ConnectionId, RandomState>,
    /// What those were told in this turn.
    news: Vec<(SessionId, News)>,
    /// Whether a hold has to be written down to be granted.
    pub(super) needs_journal: bool,
    /// Connections that were said goodbye to, and may wait for something.
    dismissed: Vec<ConnectionId>,
    /// Whether reads of this dialect come before those of native clients, when both wait for a turn.
    is_first: bool,
    /// Memory of answers.
    scratch: BytesMut,
}

/// One connection.
#[derive(Default)]
struct Talker {
    /// The name that it gives itself.
    name: String,
    /// Who it is, for people, once that was asked.
    identity: Option<Identity>,
    /// What it watches, as it was then.
    watched: Vec<(LockName, Seen)>,
    /// What it waits for, with all that it has said behind that.
    blocked: Option<Blocked>,
    /// How far its `FLUSHDB` has come over the places for sessions.
    flushed: usize,
    /// What it is answered while it is nobody, if it could be somebody but for a limit.
    kept_out: Option<Reply>,
    /// Whether a read of it waits for a turn.
    is_queued: bool,
    /// Whether it has ended meanwhile.
    has_ended: bool,
}

/// A read that is being heard.
struct Batch {
    connection: ConnectionId,
    rest: VecDeque<Said>,
    /// Counts it until it is handled.
    unheard: Unheard,
}

/// How a key was when somebody began to watch it: by the token of whoever has it, what that says, and when it ends.
type Seen = Option<(FencingToken, Option<(Mark, Option<Timestamp>)>)>;

/// Whether to go on with what a connection has said.
enum Then {
    /// With what comes next.
    GoOn,
    /// Not before it is granted something.
    Wait(SessionId, Option<Duration>, Protocol),
    /// With the same in another turn.
    Again(Said),
    /// It has said its last.
    Stop,
}

impl Desk {
    /// From now on, locks are for clients of this dialect, too. A hold has to be written down, or need not.
    pub(crate) fn speak_redis(&mut self, needs_journal: bool) {
        self.dialect.needs_journal = needs_journal;
    }

    /// A connection of this dialect is there, and says nothing yet. What it is told goes this way.
    #[must_use]
    pub(in crate::server) fn connect_redis(
        &mut self,
        connection: ConnectionId,
        way: Way,
        peer: Option<SocketAddr>,
    ) -> &mut Turn {
        self.connections.insert(connection, (way, true), peer, &mut self.turn.deliveries);
        &mut self.turn
    }

    /// What one read of a connection has brought, as a part of a turn.
    pub(in crate::server) fn hear_redis(&mut self, submit: SubmitRedis, now: Timestamp) {
        let SubmitRedis { connection, said, name, unheard } = submit;
        if self.connections.role(connection).is_none() {
            return;
        }
        let introduced = if said.is_empty() { self.introduce(connection) } else { Ok(()) };
        let is_new = !self.dialect.talkers.contains_key(&connection);
        let talker = self.dialect.talkers.entry(connection).or_default();
        if let Err(no) = introduced {
            talker.kept_out = Some(no);
        }
        if let Some(name) = name {
            (talker.name, talker.identity) = (name, None);
        }
        if is_new && !self.is_filtered() {
            self.audit_entry(connection);
        }
        let batch = Batch { connection, rest: said.into(), unheard };
        if self.is_spent() || !self.dialect.queue.is_empty() {
            return self.put_off_redis(batch);
        }
        self.serve_batch(batch, now);
    }

    fn put_off_redis(&mut self, batch: Batch) {
        if let Some(talker) = self.dialect.talkers.get_mut(&batch.connection) {
            talker.is_queued = true;
            self.dialect.queue.push_back(batch);
            self.go_on_later();
        }
    }

    /// Whether a read waits for a turn.
    pub(super) fn has_redis_waiting(&self) -> bool {
        !self.dialect.queue.is_empty()
    }

    /// Whether reads of this dialect are served before what native clients have waiting: in every other turn,
    /// so that neither keeps the other waiting for ever.
    pub(super) fn is_redis_first(&mut self) -> bool {
        self.dialect.is_first = !self.dialect.is_first;
        self.dialect.is_first
    }

    /// Serves reads that wait, until this turn has done enough.
    pub(super) fn serve_redis(&mut self, now: Timestamp) {
        while !self.is_spent()
            && let Some(batch) = self.dialect.queue.pop_front()
        {
            if let Some(talker) = self.dialect.talkers.get_mut(&batch.connection) {
                talker.is_queued = false;
                self.serve_batch(batch, now);
            }
        }
    }

    /// Goes on with a read until it is handled, its connection waits, or it is another's turn.
    fn serve_batch(&mut self, mut batch: Batch, now: Timestamp) {
        let connection = batch.connection;
        self.connections.speaks(connection);
        let before = self.steps();
        while let Some(said) = batch.rest.pop_front() {
            self.looked += 1;
            match self.redis_step(connection, said, now) {
                Then::GoOn => {}
                Then::Wait(session, term, protocol) => {
                    self.dialect.waiters.insert(session, connection);
                    if let Some(talker) = self.dialect.talkers.get_mut(&connection) {
                        let Batch { rest, unheard, .. } = batch;
                        talker.blocked = Some(Blocked { session, term, protocol, rest, unheard });
                    }
                    return;
                }
                Then::Again(said) => {
                    batch.rest.push_front(said);
                    return self.put_off_redis(batch);
                }
                Then::Stop => return,
            }
            let is_enough = self.steps() - before >= QUANTUM_STEPS || self.is_spent();
            if is_enough && !batch.rest.is_empty() {
                return self.put_off_redis(batch);
            }
        }
        self.connections.acknowledge(connection);
        if self.dialect.talkers.get(&connection).is_some_and(|talker| talker.has_ended) {
            self.end_connection(connection, now);
        }
    }

    /// Does one thing that was said.
    fn redis_step(&mut self, connection: ConnectionId, said: Said, now: Timestamp) -> Then {
        let Said { step, protocol } = said;
        let reply = match step {
            Step::Enter { user, then, .. } => {
                if let Some(talker) = self.dialect.talkers.get_mut(&connection) {
                    talker.identity = None;
                }
                match self.enter_redis(connection, user.as_deref(), now) {
                    Ok(()) => then,
                    Err(no) => {
                        if let Some(no) = no {
                            self.redis_say(connection, &no, protocol);
                            self.connections.part_from_other(connection);
                        }
                        return self.leave(connection, "dismissed");
                    }
                }
            }
            Step::Leave(reply) => {
                self.redis_say(connection, &reply, protocol);
                self.connections.part_from_other(connection);
                return self.leave(connection, "goodbye");
            }
            _ if !self.is_somebody(connection) => self.not_before_auth(connection),
            Step::Say(reply) => reply,
            Step::Forget(reply) => {
                self.unwatch_keys(connection);
                reply
            }
            Step::Do(deed) => match self.redis_alone(connection, deed, protocol, now) {
                Ok(reply) => reply,
                Err(then) => return then,
            },
            Step::Together(steps) => self.together(connection, steps, now),
        };
        self.redis_say(connection, &reply, protocol);
        Then::GoOn
    }

    /// Does what is no part of a transaction; an error is what comes before its answer.
    fn redis_alone(
        &mut self,
        connection: ConnectionId,
        deed: Deed,
        protocol: Protocol,
        now: Timestamp,
    ) -> Result<Reply, Then> {
        if let Err(no) = self.may_ask(connection, &deed, now) {
            return Ok(no.into());
        }
        match deed {
            Deed::Wait(wait) => match self.wait_for(connection, &wait, now) {
                Ok(Some(session)) => {
                    self.connections.wait(connection);
                    Err(Then::Wait(session, wait.term, protocol))
                }
                Ok(None) => Ok(self.perform_redis(connection, &Deed::Token(wait.key), now)),
                Err(reply) => Ok(reply),
            },
            Deed::Flush if !self.free_some(connection, now) => {
                Err(Then::Again(Said { step: Step::Do(Deed::Flush), protocol }))
            }
            deed => Ok(self.redis_deed(connection, &deed, now)),
        }
    }

    fn redis_deed(&mut self, connection: ConnectionId, deed: &Deed, now: Timestamp) -> Reply {
        match deed {
            Deed::Watch(keys) => {
                for key in keys {
                    match self.seen(connection, key, now) {
                        Ok(seen) => {
                            if let Some(talker) = self.dialect.talkers.get_mut(&connection) {
                                talker.watched.push((key.clone(), seen));
                            }
                        }
                        Err(no) => return no,
                    }
                }
                let is_much = self.dialect.talkers.get(&connection);
                if is_much.is_some_and(|talker| talker.watched.len() > wait::WATCHED_MAX) {
                    self.unwatch_keys(connection);
                    return Reply::error(format!(
                        "ERR at most {} keys can be watched; none is now",
                        wait::WATCHED_MAX
                    ));
                }
                Reply::OK
            }
            Deed::Unwatch => {
                self.unwatch_keys(connection);
                Reply::OK
            }
            deed => self.perform_redis(connection, deed, now),
        }
    }

    fn perform_redis(&mut self, connection: ConnectionId, deed: &Deed, now: Timestamp) -> Reply {
        perform(deed, &mut DeskHolds { desk: self, connection, now })
    }

    /// Does all of it in one turn, unless something that was watched is not as it was.
    fn together(&mut self, connection: ConnectionId, steps: Vec<Step>, now: Timestamp) -> Reply {
        let talker = self.dialect.talkers.get_mut(&connection);
        let watched = talker.map(|talker| mem::take(&mut talker.watched)).unwrap_or_default();
        for (key, seen) in watched {
            if self.seen(connection, &key, now) != Ok(seen) {
                return Reply::NilArray;
            }
        }
        let reply = |step| match step {
            Step::Say(reply) | Step::Forget(reply) | Step::Leave(reply) => reply,
            Step::Do(deed) => match self.may_ask(connection, &deed, now) {
                Ok(()) => self.redis_deed(connection, &deed, now),
                Err(no) => no.into(),
            },
            Step::Together(_) | Step::Enter { .. } => Reply::error("ERR not in a transaction"),
        };
        Reply::Array(steps.into_iter().map(reply).collect())
    }

    /// How a key is, for somebody who watches it.
    fn seen(
        &mut self,
        connection: ConnectionId,
        key: &LockName,
        now: Timestamp,
    ) -> Result<Seen, Reply> {
        Ok(match (DeskHolds { desk: self, connection, now }).look(key)? {
            Look::Free => None,
            Look::Ours(ours) => {
                let ends = ours.left.map(|left| now.after(left));
                Some((ours.token, Some((ours.mark, ends))))
            }
            Look::Theirs { token, .. } => Some((token, None)),
        })
    }

    fn unwatch_keys(&mut self, connection: ConnectionId) {
        if let Some(talker) = self.dialect.talkers.get_mut(&connection) {
            talker.watched.clear();
        }
    }

    /// Whether a session is one that is just asked for.
    pub(super) fn is_asking(&self, session: SessionId) -> bool {
        self.dialect.asking.as_ref().is_some_and(|(asking, _)| *asking == session)
    }

    /// Whether nothing can be promised, for what is promised is to be written down, and cannot be.
    fn is_unwritten(&self) -> bool {
        self.dialect.needs_journal && !self.is_recorded
    }

    /// Puts an answer into the connection's batch.
    fn redis_say(&mut self, connection: ConnectionId, reply: &Reply, protocol: Protocol) {
        let mut scratch = mem::take(&mut self.dialect.scratch);
        scratch.clear();
        reply.print(protocol, &mut scratch);
        let promise = if self.dialect.needs_journal { Promise::Recorded } else { Promise::None };
        self.connections.tell_other(connection, &scratch, promise);
        self.dialect.scratch = scratch;
    }

    /// What is answered to who has proven nothing.
    fn not_before_auth(&self, connection: ConnectionId) -> Reply {
        let kept_out = self.dialect.talkers.get(&connection).and_then(|it| it.kept_out.clone());
        kept_out.unwrap_or_else(|| Reply::error("NOAUTH Authentication required."))
    }

    /// Nothing more of what it says is heard.
    fn leave(&mut self, connection: ConnectionId, why: &str) -> Then {
        self.audit_parting(connection, why);
        self.dialect.talkers.remove(&connection);
        Then::Stop
    }

    /// Whether the end of a connection has to wait until all that it said is done.
    pub(super) fn ends_later(&mut self, connection: ConnectionId) -> bool {
        match self.dialect.talkers.get_mut(&connection) {
            Some(talker) if talker.is_queued => {
                talker.has_ended = true;
                true
            }
            Some(_) | None => false,
        }
    }
}
