//! Other rules, while connections are open and requests wait.
//!
//! They hold at once for whatever comes. What is there already is looked through by them: who proves nobody any more is
//! told so, what may not be seen is not watched any more, and what waits and is forbidden is taken out of its queue. That
//! is spread over as many turns as it takes, and nothing that waits is granted before it was looked at.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::super::Desk;
use super::super::connections::Role;
use super::super::render;
use super::super::turn::Turn;
use super::Looking;
use crate::access::{Access, Denied, Principal, PrincipalName, Unproven};
use crate::engine::{Event, Rejection};
use crate::types::{ConnectionId, LockName, Mode, RequestId, SessionId, Timestamp};

/// What it takes to send a connection away, besides what the table does: its words, its lines in the logs, and its
/// end, which is made by the same thread.
const SENDING_AWAY_STEPS: u64 = 64;

impl Desk {
    /// Other rules hold from now on, for everybody. Who is nobody by them, or another, is told Goodbye, and
    /// its session runs out with its lease. Nothing that is held is taken away.
    #[must_use]
    pub(crate) fn change_rules(&mut self, access: Arc<Access>, now: Timestamp) -> &mut Turn {
        // Whether there are any is settled at the start: secrets are bound by that.
        if access.is_open() == self.rights.access.is_open() && !access.is_open() {
            self.rights.access = access;
            // First, for those that leave free what others are granted.
            self.withhold(now);
            // They are all renewed in one turn, for no connection may act by what holds no more. There are as many
            // as connections, and each takes a look at a hash: nine thousand, 10 ms. What else is to be done is left
            // to later turns.
            self.rights.changed = self.connections.with_guests().into();
            for connection in &self.rights.changed {
                self.looked += 1;
                if let Some(guest) = self.connections.guest_mut(*connection) {
                    // Who is nobody may do nothing, and is told so in its turn.
                    let _ = guest.badge.renew(&self.rights.access);
                }
            }
        }
        self.finish_turn(now)
    }

    /// Looks through connections whose rules have changed, until this turn has done enough: who is nobody any
    /// more goes, and the others watch what they may see.
    pub(in crate::server::desk) fn look_through_changed(&mut self, now: Timestamp) {
        while !self.is_spent()
            && let Some(connection) = self.rights.changed.pop_front()
        {
            self.looked += 1;
            let Some(guest) = self.connections.guest_mut(connection) else { continue };
            match guest.badge.renew(&self.rights.access) {
                Ok(()) => self.look_through(connection),
                Err(unproven) => self.send_away(connection, unproven, now),
            }
        }
    }

    /// A connection is nobody's any more.
    fn send_away(&mut self, connection: ConnectionId, unproven: Unproven, now: Timestamp) {
        self.looked += SENDING_AWAY_STEPS;
        match self.connections.role(connection) {
            Some(Role::Gone) | None => return,
            Some(Role::Session { .. }) => self.step(&Event::Disconnect { connection }, now),
            Some(Role::Unknown | Role::Observer) => {}
        }
        self.note_unproven(connection, unproven);
        self.dismiss_unproven(connection, unproven);
    }

    fn look_through(&mut self, connection: ConnectionId) {
        let Some(guest) = self.connections.guest(connection) else { return };
        let sight = guest.badge.sight();
        for (lock, query_id) in self.watches.not_seen(connection, |lock| sight.sees(lock)) {
            if self.watches.unwatch(connection, &lock) {
                self.table.unwatch(&lock);
            }
            let Some(guest) = self.connections.guest(connection) else { return };
            if let Err(denied) = guest.principal().may_see(&lock) {
                self.deny(connection, RequestId::new(query_id), &denied);
            }
        }
        if let Some(lock) = self.subscribers.named_by(connection).cloned()
            && let Some(guest) = self.connections.guest(connection)
            && guest.principal().may_see(&lock).is_err()
        {
            self.subscribers.end(connection);
        }
    }

    /// Has nothing granted that waits, until all of it was looked through by the rules of now.
    pub(in crate::server::desk) fn withhold(&mut self, now: Timestamp) {
        if self.rights.access.is_open() {
            // A run before may have ended while it looked.
            if self.table.is_withholding() {
                self.step(&Event::Proceed, now);
            }
            return;
        }
        let principals = self.rights.access.all_by_name();
        self.rights.looking = Some(Looking { next: 0, principals });
        self.step(&Event::Withhold, now);
    }

    /// Takes what waits and is not allowed any more out of its queues, whether its session has a connection or
    /// not, until this turn has done enough. Once all of it was looked at, the rest is granted as always.
    ///
    /// Sessions that come meanwhile ask by the rules of now, so it does not matter whether they are met.
    pub(in crate::server::desk) fn withdraw_forbidden(&mut self, now: Timestamp) {
        while !self.is_spent()
            && let Some(mut looking) = self.rights.looking.take()
        {
            let Some((place, session)) = self.table.session_places(looking.next).next() else {
                if self.rights.changed.is_empty() {
                    self.step(&Event::Proceed, now);
                } else {
                    // Whoever is to go is granted nothing before.
                    self.rights.looking = Some(looking);
                }
                return;
            };
            self.looked += 1 + session.as_ref().map_or(0, |it| render::count(it.waiting));
            let forbidden =
                session.map(|session| self.forbidden_of(session.session, &looking.principals));
            looking.next = place + 1;
            self.rights.looking = Some(looking);
            for (session, request, denied) in forbidden.into_iter().flatten() {
                self.withdraw(session, request, denied, now);
            }
        }
    }

    /// What a session waits for and may not have.
    fn forbidden_of(
        &self,
        session: SessionId,
        principals: &HashMap<PrincipalName, Arc<Principal>, RandomState>,
    ) -> Vec<(SessionId, RequestId, Denied)> {
        // One of a run without an access file is nobody's, and nobody can come back to it.
        let owner = self.rights.usages.owner(session);
        let principal = owner.and_then(|owner| principals.get(owner));
        let why_not = |(name, mode): (&LockName, Mode)| {
            let nobody = || {
                let owner = owner.cloned().unwrap_or_else(PrincipalName::anyone);
                Denied::to_nobody(owner, name, mode)
            };
            principal.map_or_else(|| Some(nobody()), |it| it.denies(name, mode))
        };
        let waiting = self.table.waiting_of(session).filter_map(|request| {
            let denied = self.table.claims(session, request).find_map(why_not)?;
            Some((session, request, denied))
        });
        let unheard = self.table.unheard_of(session).filter_map(|asked| {
            let claims = asked.claims.as_slice().iter();
            let denied = claims.map(|claim| (&claim.name, claim.mode)).find_map(why_not)?;
            Some((session, asked.id, denied))
        });
        waiting.chain(unheard).collect()
    }

    fn withdraw(&mut self, session: SessionId, request: RequestId, denied: Denied, now: Timestamp) {
        self.rights.withdrawing = Some(denied);
        self.step(&Event::Withdraw { session, request }, now);
        // It is told when the session is welcome.
        if let Some(denied) = self.rights.withdrawing.take() {
            self.note_denial(None, Some(session), &denied);
        }
    }

    /// Looks through all that is left to be looked through: this run ends, and the next one grants what it finds.
    pub(in crate::server::desk) fn look_through_all(&mut self, now: Timestamp) {
        while self.rights.looking.is_some() {
            self.steps_until_look = u64::MAX;
            self.look_through_changed(now);
            self.withdraw_forbidden(now);
        }
    }

    /// Tells that a request was taken out of its queue because it is not allowed any more.
    pub(in crate::server::desk) fn tell_withdrawn(
        &mut self,
        connection: Option<ConnectionId>,
        session: SessionId,
        request: RequestId,
    ) {
        // At a start, that of a session is one of the run before.
        let connection = connection.filter(|it| self.connections.role(*it).is_some());
        let denied = self.rights.withdrawing.take();
        if let Some(denied) = &denied {
            self.note_denial(connection, Some(session), denied);
            #[cfg(feature = "redis-api")]
            self.deny_unattended(session, denied);
        }
        if let Some(connection) = connection {
            let told = match denied {
                Some(denied) => render::denied(request, &denied),
                None => render::rejected(request, &Rejection::Forbidden, None),
            };
            self.connections.tell(connection, &told);
        }
    }
}
