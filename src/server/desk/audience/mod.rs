//! Those who look on: they watch locks, and subscribe to what happens to requests.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::mem;

use bytes::BytesMut;
use log::{error, info};

use super::Desk;
use super::backlog::{QUANTUM_STEPS, TURN_STEPS_MAX};
use super::connections::Role;
use super::inspect::{self, Budget, Named};
use super::parse;
use super::render;
use super::sight::hide_others;
use crate::access::{Allowed, to};
use crate::engine::{Event, Happened, Listening, LockTable};
use crate::server::log_lines::{self, Telling};
use crate::types::{ConnectionId, LockName, Origin, RequestId, Timestamp};
use crate::wire::{ServerMessage, ShownLock, encode_frame};

/// What it counts for, in steps, to show a lock to one more: a copy of what is rendered, and a delivery.
const SHOW_STEPS: u64 = 8;
/// What is copied and written counts for as much as a step.
const BYTES_PER_STEP: u64 = 128;
/// For so many changed locks memory is kept from turn to turn.
const CHANGED_KEPT: usize = 1024;

impl Desk {
    /// A client wants to see a lock, now and whenever it has other holders.
    pub(super) fn watch(
        &mut self,
        connection: ConnectionId,
        query_id: u64,
        lock: LockName,
        now: Timestamp,
        _: Allowed<to::See>,
    ) {
        match self.watches.watch(connection, lock.clone(), query_id) {
            Ok(()) => {
                self.show(connection, query_id, &lock, now);
                self.table.watch(lock);
            }
            Err(rejection) => {
                self.refuse_asked(connection, RequestId::new(query_id), &rejection);
            }
        }
    }

    /// A client wants to see a lock no more.
    pub(super) fn unwatch(
        &mut self,
        connection: ConnectionId,
        name: &str,
        _: Allowed<to::KeepOnesOwn>,
    ) {
        // What is no name is not watched either.
        if let Ok(lock) = parse::lock_name(name)
            && self.watches.unwatch(connection, &lock)
        {
            self.table.unwatch(&lock);
        }
    }

    /// A client wants to hear of what happens to requests.
    pub(super) fn subscribe(
        &mut self,
        connection: ConnectionId,
        query_id: u64,
        lock: Option<LockName>,
        now: Timestamp,
        _: Allowed<to::Look>,
    ) {
        let peer = self.connections.peer(connection);
        let origin = peer.map(|peer| Origin::of(peer.ip()));
        let leaves = self.subscribers.subscribe(connection, origin, lock, now);
        self.connections.tell(connection, &ServerMessage::Subscribed { query_id });
        // What stands behind this in the same read is heard of, too.
        self.listen_anew();
        if let Some(leaves) = leaves {
            info!(connection:% = leaves; "subscriber left its place to another");
            if let Some(Role::Session { .. }) = self.connections.role(leaves) {
                // Its session stays; the client comes back to it.
                self.step(&Event::Disconnect { connection: leaves }, now);
            }
            self.dismiss(leaves, &render::left_to_another());
        }
    }

    /// Whether nothing is to be said to a connection (yet, or any more).
    pub(super) fn is_deaf(&self, connection: ConnectionId) -> bool {
        match self.connections.role(connection) {
            Some(Role::Observer | Role::Session { .. }) => false,
            Some(Role::Unknown | Role::Gone) | None => true,
        }
    }

    /// What of all that happens to requests is to be told to somebody.
    pub(super) fn listening(&self) -> Listening {
        if self.subscribers.is_empty() { log_lines::listening() } else { Listening::Everything }
    }

    /// Shows a lock to one who watches it.
    fn show(&mut self, connection: ConnectionId, query_id: u64, lock: &LockName, now: Timestamp) {
        if let Some(budget) = self.connections.budget(connection) {
            let seen = inspect::watched(&self.table, query_id, lock.as_str(), now, budget);
            self.connections.tell(connection, &seen);
        }
    }

    /// Shows the locks that have other holders since the turn began to those who watch them. This
    /// turn shows as many as it may, and the next ones the rest. Who is shown a lock later sees it
    /// as it is then.
    pub(super) fn show_changed(&mut self, now: Timestamp) {
        if self.changed.is_empty() && self.showing.is_empty() {
            return;
        }
        let mut changed = mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        for lock in changed.drain(..) {
            let watchers: VecDeque<_> = self.watches.of(&lock).collect();
            // Whoever was to see what it was before sees what it is now.
            self.showing.retain(|(before, _)| *before != lock);
            self.showing.push_back((lock, watchers));
        }
        changed.shrink_to(CHANGED_KEPT);
        self.changed = changed;
        // However much clients say, those who look on are shown something in every turn.
        let until = self.steps_until_look.max(self.steps() + QUANTUM_STEPS);
        while self.steps() < until
            && let Some((lock, mut watchers)) = self.showing.pop_front()
        {
            self.show_some(&lock, &mut watchers, until, now);
            if !watchers.is_empty() {
                self.showing.push_front((lock, watchers));
            }
        }
    }

    /// Shows a lock to those who watch it, and takes them out, until this many steps are taken. It
    /// is rendered once for those who have room for the whole in this turn. The others hear of one
    /// holder, which is rendered once, too.
    fn show_some(
        &mut self,
        lock: &LockName,
        watchers: &mut VecDeque<(ConnectionId, u64)>,
        until: u64,
        now: Timestamp,
    ) {
        self.looked += SHOW_STEPS;
        let all = watchers.len();
        let (mut whole, mut brief) = (None, None);
        while let Some((connection, query_id)) = watchers.pop_front() {
            if self.is_filtered() && !self.sight(connection).sees(lock) {
                continue;
            }
            let Some(budget) = self.connections.budget(connection) else { continue };
            let render = |named| shown(&self.table, lock, named, now);
            let whole = whole.get_or_insert_with(|| render(Named::WATCHED));
            let fits = whole.as_ref().is_some_and(|whole| budget.take(whole.len()));
            let seen = if fits { whole } else { brief.get_or_insert_with(|| render(Named::ONE)) };
            if let Some(seen) = seen {
                let steps = SHOW_STEPS + render::count(seen.len()) / BYTES_PER_STEP;
                self.looked += steps;
                // Of what those who are shown the same share, each has its part.
                let sharers = usize::try_from(TURN_STEPS_MAX / steps).unwrap_or(all);
                let part = seen.len() / sharers.clamp(1, all);
                self.connections.show(connection, query_id, seen.clone(), part);
            }
            if self.steps() >= until {
                return;
            }
        }
    }

    /// Tells what happened to a request, to the log and to those who have subscribed.
    pub(super) fn happened(&mut self, happened: &Happened, now: Timestamp) {
        let telling = match happened.tenure {
            _ if log_lines::is_told() => Telling::Lines,
            // Each has a session of its own, so there are no sums to tell.
            #[cfg(feature = "redis-api")]
            Some(tenure) if tenure.is_noted && self.is_asking(happened.session) => {
                let is_told = self
                    .counters
                    .chatter
                    .admits(crate::server::chatter::Topic::Grant, happened.peer);
                if is_told { Telling::Lines } else { Telling::Sums }
            }
            Some(tenure) if tenure.is_noted => {
                let chatter = &self.counters.chatter;
                let (table, lines) = (&mut self.table, &mut self.turn.lines);
                self.tenures.admit(happened, table, chatter, lines, now)
            }
            Some(_) | None => Telling::Sums,
        };
        if let Some(line) = log_lines::happened(happened, telling) {
            self.turn.lines.push(line);
        }
        let Happened { session, ref identity, request, ref claims, ref what, .. } = *happened;
        let mut hearers: Vec<ConnectionId> = self.subscribers.of(claims).collect();
        if self.is_filtered() {
            hearers.retain(|hearer| self.sight(*hearer).sees_all(claims));
        }
        if hearers.is_empty() {
            return;
        }
        let mut event = render::event((self.wall)(), session, identity, request, claims, what);
        if self.is_filtered() {
            hide_others(&mut event, what);
        }
        let mut frame = BytesMut::new();
        if let Err(unwritable) = encode_frame(&event, &mut frame) {
            return error!(session:%; "an event was left out: {unwritable}");
        }
        let frame = frame.freeze();
        let part = frame.len() / hearers.len();
        for connection in hearers {
            self.connections.tell_event(connection, &frame, part);
        }
    }

    /// Says the last word to a connection, which neither sees nor hears anything any more.
    pub(super) fn dismiss(&mut self, connection: ConnectionId, goodbye: &ServerMessage) {
        if let ServerMessage::Goodbye { code, .. } = *goodbye {
            self.counters.closed(code);
        }
        self.connections.dismiss(connection, goodbye);
        self.forget_interests(connection);
        #[cfg(feature = "redis-api")]
        self.dismiss_talker(connection);
    }

    /// A connection wants to see and hear nothing any more.
    pub(super) fn forget_interests(&mut self, connection: ConnectionId) {
        for lock in self.watches.end(connection) {
            self.table.unwatch(&lock);
        }
        self.subscribers.end(connection);
    }
}

/// A lock as all who watch it see it.
fn shown(table: &LockTable, lock: &LockName, named: Named, now: Timestamp) -> Option<ShownLock> {
    let seen = inspect::shown(table, lock.as_str(), named, now, &mut Budget::of_a_turn());
    ShownLock::new(seen)
        .inspect_err(|unwritable| error!("a watched lock was left out: {unwritable}"))
        .ok()
}
