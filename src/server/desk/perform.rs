//! Effects: the outputs of the engine, carried out.

use std::mem;

use super::Desk;
use super::connections::Role;
use super::inspect::{self, Named};
use super::render;
use super::seal::Sealed;
use super::sight::seen_by;
use crate::engine::{Effect, Place, Rejection, RequestEvent};
use crate::server::chatter::Topic;
use crate::server::durable::store::Change;
use crate::server::fields;
use crate::server::log_lines::{self, Operator, Who};
use crate::types::{
    ConnectionId, Generation, GoodbyeCode, LockName, RequestId, SessionId, Standing, Timestamp, Ttl,
};
use crate::wire::{LockStatus, ServerMessage};

/// Whether this is news of a grant or a release, as nearly all effects are.
#[inline]
fn is_usual(effect: &Effect) -> bool {
    use RequestEvent::{Granted, Released};
    matches!(effect, Effect::Tell { event: Granted { .. } | Released { .. }, .. })
}

/// For so many effects memory is kept from turn to turn.
const EFFECTS_KEPT: usize = 1024;

impl Desk {
    /// Does all that the engine has said, in that order.
    pub(super) fn perform_all(&mut self, now: Timestamp) {
        let mut effects = mem::take(&mut self.effects);
        for effect in &effects {
            #[cfg(test)]
            self.witness(effect);
            self.perform(effect, now);
        }
        effects.clear();
        // What a crowd has caused once is not kept for ever.
        effects.shrink_to(EFFECTS_KEPT);
        self.effects = effects;
    }

    fn perform(&mut self, effect: &Effect, now: Timestamp) {
        if !is_usual(effect) {
            self.told.count(effect);
        }
        match *effect {
            Effect::Welcome { connection, session, generation, ttl, standing } => {
                self.welcome(connection, session, generation, ttl, standing);
            }
            Effect::Refused { connection, ref rejection } => {
                let goodbye = render::refused(rejection.code(), rejection.to_string());
                self.dismiss(connection, &goodbye);
            }
            Effect::Superseded { connection } => {
                let why = "the session has a newer connection";
                self.dismiss(connection, &render::goodbye(GoodbyeCode::Superseded, why));
            }
            Effect::KeptAlive { connection, sequence } => {
                self.connections.tell(connection, &ServerMessage::KeptAlive { sequence });
            }
            Effect::Tell { connection, session, request, ref event } => {
                self.tell(connection, session, request, event, now);
            }
            Effect::Ended { session, connection, reason, held, waiting, ref lock } => {
                self.audit_end(connection, session, reason);
                self.rights.session_ended(session);
                let who = self.who(session, connection);
                let level = log_lines::ended_level(reason, held);
                if fields::is_logged(level)
                    && self.counters.chatter.admits(Topic::Session, who.peer)
                {
                    let line = log_lines::ended(who, reason, held, waiting, lock.as_ref());
                    self.turn.lines.push(line);
                }
                if let Some(connection) = connection {
                    self.dismiss(connection, &render::ended(reason));
                }
            }
            Effect::Revoked {
                connection,
                query_id,
                ref lock,
                ref others,
                token,
                holder,
                ref identity,
            } => {
                let operator = self.operator(connection);
                let line = log_lines::revoked(operator, lock, token, holder, identity);
                self.turn.lines.push(line);
                let why = self.connections.take_reason(connection, query_id);
                self.audit_revoked(connection, (lock, others), token, (holder, identity), why);
                self.connections.tell(connection, &ServerMessage::Revoked { query_id });
            }
            Effect::NotRevoked { connection, query_id, ref rejection } => {
                let operator = self.operator(connection);
                if self.counters.chatter.admits(Topic::Revoke, operator.peer) {
                    let line = log_lines::revoke_refused(operator, rejection);
                    self.turn.lines.push(line);
                }
                let why = self.connections.take_reason(connection, query_id);
                self.audit_not_revoked(connection, rejection, why);
                self.connections.tell(connection, &render::refused_query(query_id, rejection));
            }
            Effect::Left { session } => {
                #[cfg(feature = "redis-api")]
                self.left_unattended(session);
                #[cfg(not(feature = "redis-api"))]
                self.rights.session_ended(session);
            }
            Effect::Persist(durable) => self.turn.orders.push(Change::Durable(durable)),
            Effect::Record { number, forfeit } => {
                self.turn.orders.push(Change::Forfeit { number, forfeit });
            }
            Effect::ForgetRecords { below } => {
                self.turn.orders.push(Change::ForgetForfeits { below });
            }
            Effect::HoldersChanged { ref lock } => self.changed.push(lock.clone()),
            Effect::Happened(ref happened) => self.happened(happened, now),
        }
    }

    /// Tells a connection that it has its session.
    fn welcome(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        generation: Generation,
        ttl: Ttl,
        standing: Standing,
    ) {
        let who = self.who(session, Some(connection));
        let level = log_lines::attached_level(standing);
        if fields::is_logged(level) && self.counters.chatter.admits(Topic::Session, who.peer) {
            let line = log_lines::attached(who, generation, ttl, standing);
            self.turn.lines.push(line);
        }
        let epoch = self.table.epoch();
        let secret = self.sealer.secret(session, epoch, self.bound_to(connection));
        let welcome = render::welcome(epoch, session, secret, generation, Some(ttl), standing);
        self.connections.greet(connection, &welcome);
        self.session_begins(connection, session);
        self.audit_welcome(connection, session, standing);
    }

    /// Tells the client of a request what happened to it.
    fn tell(
        &mut self,
        connection: Option<ConnectionId>,
        session: SessionId,
        request: RequestId,
        event: &RequestEvent,
        now: Timestamp,
    ) {
        if let RequestEvent::Rejected(Rejection::Deadlock { cycle }) = event {
            let who = self.who(session, connection);
            if self.counters.chatter.admits(Topic::Deadlock, who.peer) {
                let line = log_lines::deadlock(who, request, cycle);
                self.turn.lines.push(line);
            }
        }
        if let RequestEvent::Rejected(Rejection::Forbidden) = event {
            return self.tell_withdrawn(connection, session, request);
        }
        let Some(connection) = connection else {
            #[cfg(feature = "redis-api")]
            self.tell_unattended(session, event);
            return;
        };
        if let RequestEvent::Rejected(rejection) = event {
            return self.tell_rejected(connection, session, request, rejection, now);
        }
        // One that is over already, in the same turn, has no claims, and needs no proof any more.
        let (table, sealer, run) = (&self.table, &self.sealer, self.table.epoch());
        let claims = || table.claims(session, request);
        let seal = |token| sealer.seal(Sealed { session, token, request }, run, claims());
        let ticket =
            |ticket| sealer.ticket(session, request, Place { ticket, told_in: run }, claims());
        // By reference, for a message is large to move.
        if let Some(message) = &render::told(request, event, seal, ticket) {
            self.connections.tell(connection, message);
        }
    }

    /// Tells the client of a request that it is rejected, and as much of why as it may see.
    fn tell_rejected(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        request: RequestId,
        rejection: &Rejection,
        now: Timestamp,
    ) {
        let hidden;
        let rejection = if self.is_filtered() {
            hidden = seen_by(&self.sight(connection), session, rejection);
            &hidden
        } else {
            rejection
        };
        if let Rejection::Deadlock { cycle } = rejection {
            if let Some(budget) = self.connections.budget(connection) {
                let message = inspect::deadlock(request, rejection, cycle, budget);
                self.connections.tell(connection, &message);
            }
            return;
        }
        let blocking = rejection.blocking_lock();
        let blocking = blocking.and_then(|name| self.look_at(name, connection, now));
        self.connections.tell(connection, &render::rejected(request, rejection, blocking));
    }

    /// The lock as it is now, for one whom it stood in the way of and who may see it.
    fn look_at(
        &mut self,
        name: &LockName,
        connection: ConnectionId,
        now: Timestamp,
    ) -> Option<Box<LockStatus>> {
        if self.is_filtered() && !self.sight(connection).sees(name) {
            return None;
        }
        let view = self.table.lock(name.as_str())?;
        let budget = self.connections.budget(connection)?;
        Some(Box::new(inspect::lock(&view, Named::FEW, now, budget)))
    }

    /// For the log.
    fn who(&self, session: SessionId, connection: Option<ConnectionId>) -> Who<'_> {
        let known = connection.and_then(|connection| self.connections.role(connection));
        let identity = match known {
            Some(Role::Session { identity, .. }) => Some(identity),
            Some(Role::Unknown | Role::Observer | Role::Gone) | None => None,
        };
        let peer = connection.and_then(|connection| self.connections.peer(connection));
        Who { session, identity, peer }
    }

    /// For the log: who has a lock taken away.
    pub(super) fn operator(&self, connection: ConnectionId) -> Operator<'_> {
        let peer = self.connections.peer(connection);
        let (session, identity) = match self.connections.role(connection) {
            Some(Role::Session { id, identity, .. }) => (Some(*id), Some(identity)),
            Some(Role::Unknown | Role::Observer | Role::Gone) | None => {
                (None, self.connections.observer_identity(connection))
            }
        };
        Operator { connection, session, identity, peer }
    }
}
