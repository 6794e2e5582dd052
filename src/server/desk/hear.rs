//! The messages of clients, brought to the engine. Each is parsed into its event, or answered here
//! if it only asks for a look.

use std::net::SocketAddr;

use log::warn;

use super::Desk;
use super::connections::Role;
use super::hello;
use super::inspect::{self, Look};
use super::parse;
use super::render;
use super::turn::Later;
use crate::access::{Allowed, Principal, to};
use crate::engine::{Attach, Command, Event, Place, Rejection};
use crate::server::chatter::Topic;
use crate::server::log_lines::{self, Ahead, Who};
use crate::types::{
    ConnectionId, Epoch, FencingToken, Generation, GoodbyeCode, LockName, Note, RequestId, Secret,
    SessionId, Standing, Timestamp,
};
use crate::wire::{self, ClientMessage, Extra, Query, ServerMessage};

/// What a look at the table counts for, in steps: a page of it takes about a tenth of a millisecond.
pub(super) const LOOK_STEPS: u64 = 1_024;

impl Desk {
    /// Takes what one read of a connection brought: keep-alives first (rule S5), then the rest in
    /// order; until this turn has done enough. Says how many it has taken.
    pub(super) fn hear(
        &mut self,
        connection: ConnectionId,
        messages: &[ClientMessage],
        now: Timestamp,
    ) -> usize {
        self.speaks(connection);
        if let [message] = messages {
            // As most reads.
            return usize::from(self.hear_one(connection, message, now));
        }
        let in_order = parse::in_order(messages);
        in_order.take_while(|message| self.hear_one(connection, message, now)).count()
    }

    /// Has a message done, and says that it was; unless this turn has done enough, or it rests.
    fn hear_one(
        &mut self,
        connection: ConnectionId,
        message: &ClientMessage,
        now: Timestamp,
    ) -> bool {
        if self.is_spent() || self.is_to_rest(connection, message, now) {
            return false;
        }
        self.message(connection, message, now);
        true
    }

    /// What comes from now on comes of what a connection says.
    pub(super) fn speaks(&mut self, connection: ConnectionId) {
        self.connections.speaks(connection);
        self.listen_anew();
    }

    /// Whether a message is a look of an observer for which it is not yet time: it rests, with all that
    /// it says behind that.
    pub(super) fn is_to_rest(
        &mut self,
        connection: ConnectionId,
        message: &ClientMessage,
        now: Timestamp,
    ) -> bool {
        let is_look = matches!(message, ClientMessage::Inspect { .. });
        if !is_look || !matches!(self.connections.role(connection), Some(Role::Observer)) {
            return false;
        }
        !self.looks.admits(now)
    }

    /// Has one message done.
    pub(super) fn message(
        &mut self,
        connection: ConnectionId,
        message: &ClientMessage,
        now: Timestamp,
    ) {
        self.looked += 1;
        match *message {
            ClientMessage::Hello(ref hello) => self.hello(connection, hello, now),
            ClientMessage::Request(ref asked) => self.request(connection, asked, &[], now),
            ClientMessage::RequestWith { ref request, ref extras } => {
                self.request(connection, request, extras, now);
            }
            ClientMessage::Release { request, token } => {
                self.command(connection, request, now, own(), || parse::release(request, token));
            }
            ClientMessage::Cancel { request } => {
                self.command(connection, request, now, own(), || parse::cancel(request));
            }
            ClientMessage::Account(ref known) => {
                let account = || Command::Account(known.clone());
                self.command(connection, known.from, now, own(), account);
            }
            ClientMessage::Reclaim(ref asked) => self.reclaim(connection, asked, &[], now, own()),
            ClientMessage::ReclaimWith { ref reclaim, ref extras } => {
                self.reclaim(connection, reclaim, extras, now, own());
            }
            ClientMessage::KeepAlive { sequence } => {
                self.keep_alive(connection, sequence, now, own());
            }
            ClientMessage::Goodbye => self.goodbye(connection, now, own()),
            ClientMessage::Inspect { query_id, ref query } => {
                self.look(connection, query_id, query, now);
            }
            ClientMessage::Revoke { query_id, ref name, token } => {
                let may = self.may_break(connection, query_id, (name, token), now);
                if let Some((name, allowed)) = may {
                    self.revoke(connection, query_id, name, token, now, allowed);
                }
            }
            ClientMessage::RevokeFor { query_id, ref name, token, ref reason } => {
                let may = self.may_break(connection, query_id, (name, token), now);
                if let Some((name, allowed)) = may {
                    self.revoke_for(connection, query_id, (name, token), reason, now, allowed);
                }
            }
            ClientMessage::Watch { query_id, ref name } => {
                let may = self.may_with(connection, (query_id, name), Principal::may_see, now);
                if let Some((lock, allowed)) = may {
                    self.watch(connection, query_id, lock, now, allowed);
                }
            }
            ClientMessage::Unwatch { ref name } => self.unwatch(connection, name, own()),
            ClientMessage::Subscribe { query_id, name: Some(ref name) } => {
                let may = self.may_with(connection, (query_id, name), Principal::may_see, now);
                if let Some((lock, allowed)) = may {
                    self.subscribe(connection, query_id, Some(lock), now, allowed.with_others());
                }
            }
            ClientMessage::Subscribe { query_id, name: None } => {
                if let Some(allowed) = self.may_look(connection, query_id, now) {
                    self.subscribe(connection, query_id, None, now, allowed);
                }
            }
            // Taken out by its session, which shows it before the Hello (`Desk::hear_proof`).
            ClientMessage::Authenticate { .. } => {}
        }
    }

    /// Says what the connection is for; the session has seen that it says so once, and first.
    fn hello(&mut self, connection: ConnectionId, hello: &wire::Hello, now: Timestamp) {
        let (epoch_seen, token_seen) = (hello.epoch_seen, hello.token_seen);
        let Some((_entry, as_whom)) = self.admit(connection, &hello.attach, now) else { return };
        let as_whom = as_whom.as_ref();
        let parsed = hello::parse(hello, &self.sealer, &mut self.draw, as_whom);
        let (role, attach) = match parsed {
            Ok(parsed) => parsed,
            Err((code, reason)) => {
                self.told.reject(code);
                return self.dismiss(connection, &render::refused(code, reason));
            }
        };
        if let Some(later) = self.later_leader(epoch_seen, attach.as_ref()) {
            self.turn.later.get_or_insert_default().note(later);
            let (code, nobody) = (GoodbyeCode::NotLeader, String::new());
            return self.dismiss(connection, &render::goodbye(code, nobody));
        }
        let Some(known) = self.connections.assume(connection, role) else { return };
        let peer = known.peer;
        if let Some(attach) = attach {
            let (token, epoch) = (self.table.counts().last_token, self.table.epoch());
            let opened = match attach {
                Attach::Open { session, .. } => Some(session),
                Attach::Resume { .. } => None,
            };
            // It counts before it is welcome, for which a longer lease has to be on disk.
            if let Some(session) = opened {
                self.session_begins(connection, session);
            }
            self.step(&Event::Attach { connection, peer, attach, epoch_seen, token_seen }, now);
            if let Some(session) = opened.filter(|session| !self.table.is_alive(*session)) {
                self.rights.session_ended(session);
            }
            if let Some(ahead) = Ahead::of((token_seen, epoch_seen), (token, epoch)) {
                self.tell_ahead(connection, peer, ahead);
            }
        } else {
            // An observer may say who it is, or not: it is for the log only.
            if let Ok(identity) = hello::identity(hello, as_whom) {
                self.connections.name_observer(connection, identity);
            }
            let (session, secret) = (SessionId(0), Secret::new(0));
            let (epoch, generation) = (self.table.epoch(), Generation::default());
            let welcome =
                render::welcome(epoch, session, secret, generation, None, Standing::Opened);
            self.connections.greet(connection, &welcome);
        }
    }

    /// A later leader of several that a client has seen, or has a proof of. It does not move our counters: they are
    /// those of the leaders before (rule H6).
    fn later_leader(&self, seen: Epoch, attach: Option<&Attach>) -> Option<Later> {
        let ours = self.table.epoch();
        let proven = match attach {
            Some(Attach::Resume { proved_in, .. }) => *proved_in,
            Some(Attach::Open { .. }) | None => Epoch::default(),
        };
        let epoch = seen.max(proven);
        // What is over has an empty table, whose epoch says nothing.
        let is_later = self.takes_turns && self.over.is_none() && epoch > ours;
        is_later.then_some(Later { said: epoch, proven })
    }

    /// Tells the log of a client that has seen later counters than ours, heeded or not.
    fn tell_ahead(&mut self, connection: ConnectionId, peer: Option<SocketAddr>, ahead: Ahead) {
        match self.connections.role(connection) {
            Some(Role::Session { id, identity }) => {
                let who = Who { session: *id, identity: Some(identity), peer };
                self.turn.lines.push(log_lines::moved_ahead(who, ahead));
            }
            Some(Role::Unknown | Role::Observer | Role::Gone) | None => {
                if self.counters.chatter.admits(Topic::Refusal, peer) {
                    log_lines::not_moved_ahead(peer, ahead);
                }
            }
        }
    }

    /// Has the engine do what a session's client says and what it may. `request` is who is answered if there is no
    /// session.
    fn command<To>(
        &mut self,
        connection: ConnectionId,
        request: RequestId,
        now: Timestamp,
        _: Allowed<To>,
        command: impl FnOnce() -> Command,
    ) {
        match self.connections.role(connection) {
            Some(Role::Session { id, identity, .. }) => {
                // Made where it stays, for it is large to move.
                let event = Event::Command { connection, command: command() };
                if log_lines::is_told()
                    && let Event::Command { command, .. } = &event
                {
                    let who = Who { session: *id, identity: Some(identity), peer: None };
                    log_lines::received(who, command);
                }
                self.take_step(&event, now);
                // Nothing else in an event is to be dropped.
                if let Event::Command { command, .. } = event {
                    drop(command);
                }
            }
            Some(Role::Observer) => {
                self.refuse_asked(connection, request, &Rejection::SessionNeeded);
            }
            Some(Role::Unknown | Role::Gone) | None => {}
        }
    }

    fn request(
        &mut self,
        connection: ConnectionId,
        asked: &wire::Request,
        extras: &[Extra],
        now: Timestamp,
    ) {
        let place = asked.ticket.and_then(|_| self.place(connection, asked));
        let (request, parsed) = (asked.request, || parse::request(asked, extras, place));
        let allowed = self
            .anything::<to::Lock>()
            .or_else(|| self.may_lock_by_the_same(connection, asked, now));
        match allowed {
            Some(allowed) => self.command(connection, request, now, allowed, parsed),
            None => self.request_by_rule(connection, request, parsed(), now),
        }
    }

    /// The same, where there are rules.
    #[inline(never)]
    fn request_by_rule(
        &mut self,
        connection: ConnectionId,
        request: RequestId,
        command: Command,
        now: Timestamp,
    ) {
        if let Some(allowed) = self.may_lock(connection, &command, now) {
            self.command(connection, request, now, allowed, || command);
        }
    }

    /// Where a request stood before a crash, if the ticket that it shows proves that it did.
    fn place(&self, connection: ConnectionId, asked: &wire::Request) -> Option<Place> {
        let session = self.session_of(connection)?;
        let place = parse::place(asked, session, &self.sealer);
        if place.is_none() {
            #[cfg(test)]
            assert!(self.witness.is_none(), "nobody makes tickets up in a simulation");
            let request = asked.request;
            warn!(session:%, request = request.number(); "a ticket that is not of such a request");
        }
        place
    }

    pub(super) fn session_of(&self, connection: ConnectionId) -> Option<SessionId> {
        match self.connections.role(connection) {
            Some(Role::Session { id, .. }) => Some(*id),
            Some(Role::Unknown | Role::Observer | Role::Gone) | None => None,
        }
    }

    /// Has the engine do what a client says that was granted something by an earlier run, if it can
    /// show the seal (rule G4).
    fn reclaim(
        &mut self,
        connection: ConnectionId,
        asked: &wire::Reclaim,
        extras: &[Extra],
        now: Timestamp,
        allowed: Allowed<to::KeepOnesOwn>,
    ) {
        let session = self.session_of(connection);
        let (request, token) = (asked.request, asked.token);
        let command = parse::reclaim(asked, extras, session, &self.sealer);
        if let (Some(session), Command::Unparsed { rejection: Rejection::SealMismatch, .. }) =
            (session, &command)
            && let peer = self.connections.peer(connection)
            && self.counters.chatter.admits(Topic::WrongSeal, peer)
        {
            let who = Who { session, identity: None, peer };
            log_lines::wrong_seal(who, request, token);
        }
        self.command(connection, request, now, allowed, || command);
    }

    fn keep_alive(
        &mut self,
        connection: ConnectionId,
        sequence: u64,
        now: Timestamp,
        _: Allowed<to::KeepOnesOwn>,
    ) {
        self.subscribers.heard(connection, now);
        match self.connections.role(connection) {
            Some(Role::Session { .. }) => {
                let command = Command::KeepAlive { sequence };
                self.step(&Event::Command { connection, command }, now);
            }
            // There is no lease to renew, but there is someone who wants to know we are here.
            Some(Role::Observer) => {
                self.connections.tell(connection, &ServerMessage::KeptAlive { sequence });
            }
            Some(Role::Unknown | Role::Gone) | None => {}
        }
    }

    fn goodbye(&mut self, connection: ConnectionId, now: Timestamp, _: Allowed<to::KeepOnesOwn>) {
        match self.connections.role(connection) {
            Some(Role::Session { .. }) => {
                self.step(&Event::Command { connection, command: Command::Goodbye }, now);
            }
            Some(Role::Observer) => {
                let goodbye = render::goodbye(GoodbyeCode::Done, "as you say");
                self.dismiss(connection, &goodbye);
            }
            Some(Role::Unknown | Role::Gone) | None => {}
        }
    }

    /// Answers a look: one of a session only if it is time for one, for keep-alives stand behind it.
    fn look(&mut self, connection: ConnectionId, query_id: u64, query: &Query, now: Timestamp) {
        if self.session_of(connection).is_some() && !self.looks.admits(now) {
            self.looks.delayed += 1;
            return self.refuse_asked(connection, RequestId(query_id), &Rejection::SlowDown);
        }
        self.inspect(connection, query_id, query, now);
    }

    fn inspect(&mut self, connection: ConnectionId, query_id: u64, query: &Query, now: Timestamp) {
        match *query {
            Query::Lock { ref name } | Query::Outlook { ref name } => {
                let may = self.may_with(connection, (query_id, name), Principal::may_see, now);
                if let Some((name, allowed)) = may {
                    self.inspect_lock(connection, query_id, query, &name, now, allowed);
                }
            }
            Query::Rights { ref name } => {
                self.looked += LOOK_STEPS;
                self.tell_rights(connection, query_id, name);
            }
            Query::Server
            | Query::Journal
            | Query::Cluster
            | Query::Waited
            | Query::Locks { .. }
            | Query::Sessions { .. }
            | Query::Outlooks { .. }
            | Query::Contended { .. } => {
                if let Some(allowed) = self.may_look(connection, query_id, now) {
                    self.inspect_all(connection, query_id, query, now, allowed);
                }
            }
        }
    }

    /// Answers a look at one lock.
    fn inspect_lock(
        &mut self,
        connection: ConnectionId,
        query_id: u64,
        query: &Query,
        name: &LockName,
        now: Timestamp,
        _: Allowed<to::See>,
    ) {
        let table = &self.table;
        let Some(budget) = self.connections.budget(connection) else { return };
        self.looked += LOOK_STEPS;
        let answer = match query {
            Query::Outlook { .. } => inspect::outlook(table, query_id, name.as_str(), now, budget),
            _ => inspect::one_lock(table, query_id, name.as_str(), now, budget),
        };
        self.connections.tell(connection, &answer);
    }

    /// Answers a look at everything, as far as whoever looks may see it.
    fn inspect_all(
        &mut self,
        connection: ConnectionId,
        query_id: u64,
        query: &Query,
        now: Timestamp,
        _: Allowed<to::Look>,
    ) {
        let sight = self.sight(connection);
        let table = &self.table;
        let Some(budget) = self.connections.budget(connection) else { return };
        self.looked += LOOK_STEPS;
        let look = Look { table, query_id, now, sight: &sight };
        let answer = match *query {
            Query::Server => {
                inspect::server(table, query_id, now.since(self.since), &self.counters)
            }
            Query::Journal => inspect::journal(query_id, &self.counters.keeping),
            Query::Cluster => inspect::cluster(query_id, self.counters.roles.role()),
            Query::Waited => inspect::waited(table, query_id),
            Query::Locks { cursor } => look.locks(cursor, budget),
            Query::Sessions { cursor } => look.sessions(cursor, budget),
            Query::Outlooks { cursor } => look.outlooks(cursor, budget),
            Query::Contended { cursor } => look.contended(cursor, budget),
            // About one lock, and answered by that.
            Query::Lock { .. } | Query::Outlook { .. } | Query::Rights { .. } => return,
        };
        self.connections.tell(connection, &answer);
    }

    /// The same with a reason, which is kept until it is done.
    fn revoke_for(
        &mut self,
        connection: ConnectionId,
        query_id: u64,
        (name, token): (LockName, FencingToken),
        reason: &str,
        now: Timestamp,
        allowed: Allowed<to::Break>,
    ) {
        match Note::new(reason) {
            Ok(reason) => {
                self.connections.keep_reason(connection, query_id, reason.to_string());
                self.revoke(connection, query_id, name, token, now, allowed);
            }
            Err(why) => {
                self.refuse_asked(connection, RequestId(query_id), &Rejection::Note(why));
            }
        }
    }

    /// Tells a client *no*, which did not come from the engine; and counts that.
    pub(super) fn refuse_asked(
        &mut self,
        connection: ConnectionId,
        asked: RequestId,
        rejection: &Rejection,
    ) {
        self.told.reject(rejection.code());
        self.connections.tell(connection, &render::rejected(asked, rejection, None));
    }

    fn revoke(
        &mut self,
        connection: ConnectionId,
        query_id: u64,
        name: LockName,
        token: FencingToken,
        now: Timestamp,
        _: Allowed<to::Break>,
    ) {
        let operator = self.operator(connection);
        if self.counters.chatter.admits(Topic::Revoke, operator.peer) {
            log_lines::revoke_received(operator, &name, token);
        }
        self.step(&Event::Revoke { connection, query_id, name, token }, now);
    }
}

/// What needs no rule.
fn own() -> Allowed<to::KeepOnesOwn> {
    Allowed::always()
}
