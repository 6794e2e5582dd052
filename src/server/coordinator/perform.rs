//! Effects: what the engine wants done, done.

use std::mem;

use log::error;

use super::super::connections::Role;
use super::super::inspect::{self, NAMED_FEW};
use super::super::journal::{self, Who};
use super::super::render;
use super::Coordinator;
use crate::engine::{Effect, News};
use crate::types::{
    ConnectionId, Generation, GoodbyeCode, LockName, RequestId, SessionId, Timestamp, Ttl,
};
use crate::wire::{LockStatus, ServerMessage};

impl Coordinator {
    /// Does all that the engine has said, in that order.
    pub(super) fn perform_all(&mut self, now: Timestamp) {
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
                self.connections.dismiss(connection, goodbye);
            }
            Effect::Superseded { connection } => {
                let why = "the session has a newer connection";
                self.connections.dismiss(connection, render::goodbye(GoodbyeCode::Superseded, why));
            }
            Effect::KeptAlive { connection, sequence } => {
                self.connections.tell(connection, ServerMessage::KeptAlive { sequence });
            }
            Effect::Tell { connection, session, request, news } => {
                self.news(connection, session, request, &news, now);
            }
            Effect::Ended { session, connection, reason, held, waiting, lock } => {
                let who = self.who(session, connection);
                journal::ended(who, reason, held, waiting, lock.as_ref());
                if let Some(connection) = connection {
                    self.connections.dismiss(connection, render::ended(reason));
                }
            }
            Effect::Revoked { connection, query_id } => {
                self.connections.tell(connection, ServerMessage::Revoked { query_id });
            }
            Effect::NotRevoked { connection, query_id, rejection } => {
                self.connections.tell(connection, render::rejected(query_id, &rejection, None));
            }
            Effect::Persist(durable) => {
                if self.orders.send(durable).is_err() {
                    error!("nobody makes the state durable any more; granting will stop");
                }
            }
        }
    }

    /// Tells a connection that it has its session.
    fn welcome(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        generation: Generation,
        ttl: Ttl,
    ) {
        let Some(Role::Session { secret, identity, .. }) = self.connections.role(connection) else {
            return;
        };
        journal::attached(Who { session, identity: Some(identity) }, generation, ttl);
        let welcome = render::welcome(self.table.epoch(), session, *secret, generation, Some(ttl));
        self.connections.tell(connection, welcome);
    }

    /// Tells the news of a request, to its client and to the log.
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
        let blocking = blocking.and_then(|name| self.look_at(name, connection, now));
        self.connections.tell(connection, render::news(request, news, blocking));
    }

    /// The lock as it is now, for one whom it stood in the way of.
    fn look_at(
        &mut self,
        name: &LockName,
        connection: ConnectionId,
        now: Timestamp,
    ) -> Option<Box<LockStatus>> {
        let view = self.table.lock(name.as_str())?;
        let budget = self.connections.budget(connection)?;
        Some(Box::new(inspect::lock(&view, NAMED_FEW, now, budget)))
    }

    /// The locks of a live request, for the log.
    pub(super) fn locks_of(&self, session: SessionId, request: RequestId) -> Vec<LockName> {
        self.table.claims(session, request).map(|(name, _)| name.clone()).collect()
    }

    /// For the log.
    fn who(&self, session: SessionId, connection: Option<ConnectionId>) -> Who<'_> {
        let known = connection.and_then(|connection| self.connections.role(connection));
        let identity = match known {
            Some(Role::Session { identity, .. }) => Some(identity),
            Some(Role::Unknown | Role::Observer | Role::Gone) | None => None,
        };
        Who { session, identity }
    }

    /// Logs that a request waits: the table says nothing about that unless its client asked.
    pub(super) fn note_queued(
        &self,
        watched: Option<(SessionId, RequestId)>,
        connection: ConnectionId,
    ) {
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
}
