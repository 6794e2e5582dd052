//! Unattended holds: a session that no connection keeps, with one request and an end of its own (rule
//! S11).
//!
//! Nobody renews its lease by being there. It holds until a moment that was said, which may be put off, or
//! until it is given back. Whoever shows its *mark* is its holder. While it waits it has no end: whoever
//! asked sees to it that it leaves. It is over with its request.
//!
//! *Its end and the grant.* The grant of a request that waits begins the time for which it holds, and does
//! not touch the lease. The lease has an end that is never later than the real one: the moment at which it
//! was asked for, and that time. When that comes up, the end is counted from the grant, if there was one. So
//! one that is shorter than a [`HEARTBEAT`] may end late by that, unless it is prolonged at its grant, which
//! the desk sees to.
//!
//! *A restart.* It is a part of the table as all sessions are, and so of a replay, a checkpoint and a
//! snapshot. No client shows anything after a crash, so no forfeit is recorded, and without a journal it is
//! gone.

use std::time::Duration;

use super::arena::{RequestKey, SessionKey};
use super::delay::Parting;
use super::event::{Hold, Prolong};
use super::session::{Opening, Outcome, Session, Unattended};
use super::table::HEARTBEAT;
use super::{Effect, LockTable, Rejection, RequestEvent};
use crate::types::{Generation, LostReason, Mark, Origin, SessionId, Timestamp, Ttl};

/// An unattended hold, for those who look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnattendedView<'a> {
    /// Whoever shows this is its holder.
    pub mark: &'a Mark,
    /// When it ends; none: when it is given back.
    pub ends: Option<Timestamp>,
    /// Whether it holds. Else it waits.
    pub is_held: bool,
}

/// When something ends that does not.
const NEVER: Duration = Duration::MAX;

impl LockTable {
    /// Somebody asks for a lock, and keeps no connection.
    pub(super) fn hold_unattended(&mut self, hold: &Hold) {
        let Hold { session, peer, ref identity, ref mark, term, ref request } = *hold;
        if let Err(rejection) = self.room_for_unattended(hold) {
            let (connection, request, event) =
                (None, request.id, RequestEvent::Rejected(rejection));
            self.effects.push(Effect::Tell { connection, session, request, event });
            return;
        }
        let (generation, connection, linger) = (Generation::new(1), None, None);
        let (id, identity, ttl) = (session, identity.clone(), Ttl::default());
        let opening = Opening { id, generation, connection, peer, identity, ttl, linger };
        let mut opened = Session::open(opening, self.now);
        let unattended = Unattended { mark: mark.clone(), term, is_from_grant: true };
        opened.attend_not(unattended, self.now.after(term.unwrap_or(NEVER)));
        let key = self.enroll(opened);
        if self.grace.is_on() {
            self.note_newcomer(key);
        }
        self.request(key, request);
        self.leave_if_idle(key);
    }

    /// Whether there may be another session.
    fn room_for_unattended(&self, hold: &Hold) -> Result<(), Rejection> {
        let max = self.limits.sessions_max;
        if self.draining {
            return Err(Rejection::Draining);
        }
        if self.sessions.len() >= max {
            return Err(Rejection::TooManySessions { max });
        }
        if let Some(origin) = hold.peer.map(|peer| Origin::of(peer.ip())) {
            let max = self.limits.sessions_per_address_max.unwrap_or(max - max / 4);
            if self.sessions.from(origin) >= max {
                return Err(Rejection::TooManySessionsThere { origin, max });
            }
        }
        assert!(self.sessions.find(hold.session).is_none(), "the shell gave a session id twice");
        Ok(())
    }

    /// An unattended hold is to end at another moment, or to be known by another mark.
    pub(super) fn prolong(&mut self, prolong: &Prolong) {
        let Some(key) = self.sessions.find(prolong.session) else { return };
        let now = self.now;
        let session = &mut self.sessions[key];
        let is_held = session.held > 0;
        let Some(unattended) = session.unattended.as_deref_mut().filter(|_| is_held) else {
            return;
        };
        if let Some(mark) = &prolong.mark {
            unattended.mark = mark.clone();
        }
        let Some(term) = prolong.term else { return };
        (unattended.term, unattended.is_from_grant) = (term, false);
        session.ends = now.after(term.unwrap_or(NEVER));
        let (ends, wakes) = (session.ends, session.wakes);
        if ends < wakes {
            self.reschedule(key, ends);
        }
    }

    /// An unattended hold is given back, or its wait is given up.
    pub(super) fn drop_unattended(&mut self, session: SessionId) {
        let Some(key) = self.sessions.find(session) else { return };
        if self.sessions[key].unattended.is_none() {
            return;
        }
        while let Some(request) = self.sessions[key].requests.head() {
            self.keep_locks(request);
            self.drop_silently(request);
        }
        self.leave_if_idle(key);
        self.settle();
    }

    /// When an entry of an unattended session comes up: when it really ends.
    pub(super) fn end_unattended_or_later(&mut self, key: SessionKey) -> Timestamp {
        let ends = self.unattended_end(key).unwrap_or_else(|| self.now.after(NEVER));
        self.sessions[key].ends = ends;
        ends
    }

    /// When an unattended session ends; none: never.
    fn unattended_end(&self, key: SessionKey) -> Option<Timestamp> {
        let session = &self.sessions[key];
        let unattended = session.unattended.as_deref()?;
        let term = unattended.term?;
        if !unattended.is_from_grant {
            return Some(session.ends);
        }
        let request = session.requests.head().map(|request| &self.requests[request]);
        match request.filter(|live| live.is_held()) {
            Some(held) => Some(held.since.after(term)),
            // If it were granted now. It is not looked at more often than everything is.
            None => Some(self.now.after(term.max(HEARTBEAT))),
        }
    }

    /// The time of an unattended hold is over: its lock becomes free at once, for no client shows anything
    /// of it after a crash.
    pub(super) fn expire_unattended(&mut self, key: SessionKey) {
        self.expired += 1;
        while let Some(request) = self.sessions[key].requests.head() {
            if let Some(token) = self.requests[request].token() {
                let reason = LostReason::Expired;
                self.happened(request, || RequestEvent::Lost { token, reason });
                self.delay_locks(request, Parting::Lost);
            }
            self.take_out(request);
        }
        self.leave_if_idle(key);
    }

    /// An unattended session that has no request any more is over.
    pub(super) fn leave_if_idle(&mut self, key: SessionKey) {
        let session = &self.sessions[key];
        if session.unattended.is_none() || session.is_over || !session.requests.is_empty() {
            return;
        }
        let Session { id, wakes, newcomer, untold, .. } = *session;
        self.audience.untold_of_ended += untold.unwrap_or_default();
        self.deadlines.remove_lease(wakes, key);
        if let Some(newcomer) = newcomer {
            self.this_run.remove_newcomer(newcomer, key);
        }
        self.sessions.end(key);
        self.sessions.forget(key);
        self.effects.push(Effect::Left { session: id });
    }

    /// The same of the session of a request that was just ended by somebody else.
    pub(super) fn finish_and_leave(
        &mut self,
        request: RequestKey,
        outcome: Outcome,
        event: RequestEvent,
    ) {
        let session = self.requests[request].session;
        self.finish(request, outcome, event);
        self.leave_if_idle(session);
    }

    /// A run goes on without the process that waited for it: an unattended request that waits is given up.
    /// What is held stays, and ends when it was to.
    pub(super) fn lose_waiter(&mut self, key: SessionKey) {
        if self.sessions[key].held > 0 {
            return;
        }
        while let Some(request) = self.sessions[key].requests.head() {
            self.drop_silently(request);
        }
        self.leave_if_idle(key);
    }

    /// A session that nobody attends; none: there is none of this name, or somebody does.
    pub fn unattended(&self, session: SessionId) -> Option<UnattendedView<'_>> {
        let key = self.sessions.find(session)?;
        let session = &self.sessions[key];
        let Unattended { mark, term, .. } = session.unattended.as_deref()?;
        let ends = self.unattended_end(key).filter(|_| term.is_some());
        Some(UnattendedView { mark, ends, is_held: session.held > 0 })
    }
}

#[cfg(test)]
mod tests;
