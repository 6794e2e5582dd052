//! Those who look on: they watch locks, and subscribe to what happens to requests.

#[cfg(test)]
mod tests;

use std::mem;
use std::time::SystemTime;

use bytes::BytesMut;
use log::error;

use super::super::connections::Role;
use super::super::inspect;
use super::super::journal::{self, Who};
use super::super::parse;
use super::super::render;
use super::super::subscribers::TooMany;
use super::Coordinator;
use crate::engine::Happening;
use crate::types::{Claim, ConnectionId, Identity, LockName, RequestId, SessionId, Timestamp};
use crate::wire::{ServerMessage, encode_frame};

impl Coordinator {
    /// A client wants to see a lock, now and whenever it has other holders.
    pub(super) fn watch(
        &mut self,
        connection: ConnectionId,
        query_id: u64,
        name: &str,
        now: Timestamp,
    ) {
        if self.is_deaf(connection) {
            return;
        }
        let watched = parse::lock_name(name).and_then(|lock| {
            self.watches.watch(connection, lock.clone(), query_id)?;
            Ok(lock)
        });
        match watched {
            Ok(lock) => {
                self.show(connection, query_id, &lock, now);
                self.table.watch(lock);
            }
            Err(rejection) => {
                self.connections.tell(connection, render::rejected(query_id, &rejection, None));
            }
        }
    }

    /// A client wants to hear of what happens to requests.
    pub(super) fn subscribe(
        &mut self,
        connection: ConnectionId,
        query_id: u64,
        name: Option<&str>,
    ) {
        if self.is_deaf(connection) {
            return;
        }
        let answer = match name.map(parse::lock_name).transpose() {
            Ok(lock) => match self.subscribers.subscribe(connection, lock) {
                Ok(()) => ServerMessage::Subscribed { query_id },
                Err(TooMany) => render::too_many_subscribers(query_id),
            },
            Err(rejection) => render::rejected(query_id, &rejection, None),
        };
        self.connections.tell(connection, answer);
    }

    /// Whether nothing is to be said to a connection (yet, or any more).
    fn is_deaf(&self, connection: ConnectionId) -> bool {
        match self.connections.role(connection) {
            Some(Role::Observer | Role::Session { .. }) => false,
            Some(Role::Unknown | Role::Gone) | None => true,
        }
    }

    /// Whether what happens to requests is to be told to somebody.
    pub(super) fn is_listened_to(&self) -> bool {
        journal::is_told() || !self.subscribers.is_empty()
    }

    /// Shows a lock to one who watches it.
    fn show(&mut self, connection: ConnectionId, query_id: u64, lock: &LockName, now: Timestamp) {
        if let Some(budget) = self.connections.budget(connection) {
            let seen = inspect::watched(&self.table, query_id, lock.as_str(), now, budget);
            self.connections.tell(connection, seen);
        }
    }

    /// Shows the locks that have other holders since the turn began to those who watch them.
    pub(super) fn show_changed(&mut self, now: Timestamp) {
        let mut changed = mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        for lock in changed.drain(..) {
            let watchers: Vec<(ConnectionId, u64)> = self.watches.of(&lock).collect();
            for (connection, query_id) in watchers {
                self.show(connection, query_id, &lock, now);
            }
        }
        self.changed = changed;
    }

    /// Tells what happened to a request, to the log and to those who have subscribed.
    pub(super) fn happened(
        &mut self,
        session: SessionId,
        identity: &Identity,
        request: RequestId,
        claims: &[Claim],
        what: &Happening,
    ) {
        let who = Who { session, identity: Some(identity), peer: None };
        journal::happened(who, request, claims, what);
        let mut hearers = self.subscribers.of(claims).peekable();
        if hearers.peek().is_none() {
            return;
        }
        let event = render::event(SystemTime::now(), session, identity, request, claims, what);
        let mut frame = BytesMut::new();
        if let Err(unwritable) = encode_frame(&event, &mut frame) {
            return error!("an event was left out session={session}: {unwritable}");
        }
        let frame = frame.freeze();
        for connection in hearers {
            self.connections.tell_event(connection, frame.clone());
        }
    }

    /// Says the last word to a connection, which neither sees nor hears anything any more.
    pub(super) fn dismiss(&mut self, connection: ConnectionId, goodbye: ServerMessage) {
        self.connections.dismiss(connection, goodbye);
        self.forget_interests(connection);
    }

    /// A connection wants to see and hear nothing any more.
    pub(super) fn forget_interests(&mut self, connection: ConnectionId) {
        for lock in self.watches.end(connection) {
            self.table.unwatch(&lock);
        }
        self.subscribers.end(connection);
    }
}
