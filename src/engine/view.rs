//! Read-only views of the table: holders, waiters and sessions (rule R10).

use std::net::SocketAddr;

use super::LockTable;
use super::arena::ClaimKey;
use super::claim::ClaimNode;
use super::event::{Command, Request};
use super::lock::Lock;
use super::pause::Pause;
use super::request::State;
use super::session::Session;
use crate::types::{
    FencingToken, Identity, LockName, Mode, Note, OwnerId, RequestId, SessionId, Timestamp, Ttl,
};

/// A page of a long list is of so many places at most: most of them may be vacant.
pub const PLACES_LOOKED_AT_MAX: usize = 1_024;

/// A lock in use.
#[derive(Debug)]
pub struct LockView<'a> {
    table: &'a LockTable,
    lock: &'a Lock,
}

/// Until when a lock is not to be had.
#[derive(Clone, Copy, Debug)]
pub struct Outlook<'a> {
    /// Why it is kept free, after its holder was lost.
    pub lost: Option<&'a Pause>,
    /// Why it is kept, after its holder has gone.
    pub kept: Option<&'a Pause>,
    /// When it has room at the latest, unless a holder comes back; none: nobody knows, or it has now.
    pub free_by: Option<Timestamp>,
}

/// Of a lock with more holders than this it is not looked for when the last of them leaves.
const HOLDERS_FORESEEN_MAX: usize = 64;

/// A request that holds a lock.
#[derive(Clone, Copy, Debug)]
pub struct HolderView<'a> {
    /// Whose it is.
    pub session: SessionId,
    /// Who that is.
    pub identity: &'a Identity,
    /// Where the session's latest connection comes from.
    pub peer: Option<SocketAddr>,
    /// Whether the session has a connection, or needs none.
    pub connected: bool,
    /// Who asked, within the session.
    pub owner: OwnerId,
    /// The request.
    pub request: RequestId,
    /// How it holds the lock.
    pub mode: Mode,
    /// The token of its grant.
    pub token: FencingToken,
    /// When it was granted.
    pub since: Timestamp,
    /// What it is for.
    pub note: Option<&'a Note>,
}

/// A request that waits for a lock.
#[derive(Clone, Copy, Debug)]
pub struct WaiterView<'a> {
    /// Whose it is.
    pub session: SessionId,
    /// Who that is.
    pub identity: &'a Identity,
    /// Where the session's latest connection comes from.
    pub peer: Option<SocketAddr>,
    /// Whether the session has a connection, or needs none.
    pub connected: bool,
    /// Who asked, within the session.
    pub owner: OwnerId,
    /// The request.
    pub request: RequestId,
    /// How it wants the lock.
    pub mode: Mode,
    /// When it came.
    pub since: Timestamp,
    /// What it is for.
    pub note: Option<&'a Note>,
}

/// A session.
#[derive(Clone, Copy, Debug)]
pub struct SessionView<'a> {
    /// Its id.
    pub session: SessionId,
    /// Who it is.
    pub identity: &'a Identity,
    /// Where its latest connection comes from.
    pub peer: Option<SocketAddr>,
    /// Whether it has a connection, or needs none.
    pub connected: bool,
    /// When it was opened.
    pub since: Timestamp,
    /// Length of its lease.
    pub ttl: Ttl,
    /// Whether its client keeps it by being heard. Else it has an end of its own (rule S11).
    pub is_attended: bool,
    /// When it ends if nothing is heard; none: it does not.
    pub lease_ends: Option<Timestamp>,
    /// How many of its requests hold.
    pub held: usize,
    /// How many of its requests wait.
    pub waiting: usize,
}

impl LockTable {
    /// The lock of this name, unless it is free.
    pub fn lock(&self, name: &str) -> Option<LockView<'_>> {
        let key = self.locks.find(name)?;
        Some(LockView { table: self, lock: &self.locks[key] })
    }

    /// The locks in use at and after a place, each with its place. A look that begins one further
    /// than another ended sees every lock that was in use all the while.
    pub fn locks(&self, from: usize) -> impl Iterator<Item = (usize, LockView<'_>)> {
        let view = |(place, lock)| (place, LockView { table: self, lock });
        self.locks.iter_from(from).map(view)
    }

    /// All places at and after one, and the locks there: none where it is vacant. For who may not walk
    /// over any number of vacant places.
    pub fn lock_places(&self, from: usize) -> impl Iterator<Item = (usize, Option<LockView<'_>>)> {
        let view = |lock| LockView { table: self, lock };
        self.locks.places_from(from).map(move |(place, lock)| (place, lock.map(view)))
    }

    /// The same of those that somebody waits for, by places of their own. A look at them costs more
    /// the more are waited for, and not the more are held.
    pub fn contended_places(
        &self,
        from: usize,
    ) -> impl Iterator<Item = (usize, Option<LockView<'_>>)> {
        let view = |claim: ClaimKey| {
            let lock = &self.locks[self.claims[claim].lock];
            LockView { table: self, lock }
        };
        self.locks.queue_heads_from(from).map(move |(place, head)| (place, head.map(view)))
    }

    /// The requests of a session that wait, in the order of their ids.
    pub fn waiting_of(&self, session: SessionId) -> impl Iterator<Item = RequestId> {
        let session = self.sessions.find(session);
        let requests = session
            .into_iter()
            .flat_map(|key| self.sessions[key].requests.iter(&self.requests.arena));
        let waiting = requests.map(|request| &self.requests[request]).filter(|it| !it.is_held());
        waiting.map(|live| live.id)
    }

    /// Whether a session goes on, welcome or not yet.
    pub fn is_alive(&self, session: SessionId) -> bool {
        self.sessions.find(session).is_some()
    }

    /// All locks that are held by the grant of one of them with this token. With it, all of them end.
    pub fn granted_together(
        &self,
        name: &LockName,
        token: FencingToken,
    ) -> impl Iterator<Item = &LockName> {
        let claims = self.holder_with(name, token).map(|request| self.claims_of(request));
        let names = claims.into_iter().flatten();
        names.map(|claim| &self.locks[self.claims[claim].lock].name)
    }

    /// The requests of a session that are yet to be heard, for it is not welcome yet (rule G1).
    pub fn unheard_of(&self, session: SessionId) -> impl Iterator<Item = &Request> {
        let session = self.sessions.find(session);
        let commands = session.into_iter().flat_map(|key| self.sessions[key].unheard.iter());
        commands.flatten().filter_map(|command| match command {
            Command::Request(request) => Some(request),
            _ => None,
        })
    }

    /// The sessions at and after a place, each with its place; as [`LockTable::locks`].
    pub fn sessions(&self, from: usize) -> impl Iterator<Item = (usize, SessionView<'_>)> {
        self.sessions.iter_from(from).map(|(place, session)| (place, session_view(session)))
    }

    /// All places at and after one, and the sessions there; as [`LockTable::lock_places`].
    pub fn session_places(
        &self,
        from: usize,
    ) -> impl Iterator<Item = (usize, Option<SessionView<'_>>)> {
        let places = self.sessions.places_from(from);
        places.map(|(place, session)| (place, session.map(session_view)))
    }
}

impl<'a> LockView<'a> {
    /// Its name.
    pub fn name(&self) -> &'a LockName {
        &self.lock.name
    }

    /// How many hold it.
    pub fn holder_count(&self) -> usize {
        self.lock.holders.len()
    }

    /// How many wait for it.
    pub fn waiter_count(&self) -> usize {
        self.table.locks.queue_of(self.lock).len()
    }

    /// When it may be granted again, if it may not now though it has room.
    pub(super) fn delayed_until(&self) -> Option<Timestamp> {
        self.lock.delay.as_ref().and_then(|delay| delay.until())
    }

    /// Until when it is not to be had, as far as that is known.
    pub fn outlook(&self) -> Outlook<'a> {
        let delay = self.lock.delay.as_deref();
        let lasts = |pause: &&Pause| pause.until > self.table.now;
        Outlook {
            lost: delay.and_then(|delay| delay.lost.as_ref()).filter(lasts),
            kept: delay.and_then(|delay| delay.kept.as_ref()).filter(lasts),
            free_by: self.free_by(),
        }
    }

    /// When it has room at the latest, unless a holder comes back or others wait. Holders that have
    /// a connection renew for ever, and of those that have none the lease ends.
    fn free_by(&self) -> Option<Timestamp> {
        if self.holder_count() > HOLDERS_FORESEEN_MAX {
            return None;
        }
        let mut free_by = self.delayed_until();
        for claim in self.lock.holders.iter(&self.table.claims) {
            let request = self.table.claims[claim].request;
            let live = &self.table.requests[request];
            let session = &self.table.sessions[live.session];
            if session.connection.is_some() {
                return None;
            }
            let more = live.more();
            let ends = match self.table.unattended(session.id) {
                Some(unattended) => unattended.ends?,
                None => session.ends,
            };
            let ends = ends.max(self.table.now).after(more.lock_delay);
            let kept = more.keep.as_ref().map(|keep| live.since.after(keep.at_least));
            free_by = free_by.max(Some(ends)).max(kept);
        }
        free_by
    }

    /// Who holds it, in the order of the grants.
    pub fn holders(&self) -> impl Iterator<Item = HolderView<'a>> {
        let table = self.table;
        self.lock.holders.iter(&table.claims).filter_map(move |claim| {
            let (state, view) = table.claim_view(claim);
            let State::Held { token } = state else { return None };
            let WaiterView {
                session,
                identity,
                peer,
                connected,
                owner,
                request,
                mode,
                since,
                note,
            } = view;
            Some(HolderView {
                session,
                identity,
                peer,
                connected,
                owner,
                request,
                mode,
                token,
                since,
                note,
            })
        })
    }

    /// Who waits for it, in the order of the queue.
    pub fn waiters(&self) -> impl Iterator<Item = WaiterView<'a>> {
        let table = self.table;
        let queue = table.locks.queue_of(self.lock);
        queue.iter(&table.claims).map(move |claim| table.claim_view(claim).1)
    }
}

impl LockTable {
    fn claim_view(&self, claim: ClaimKey) -> (State, WaiterView<'_>) {
        let ClaimNode { request, mode, .. } = self.claims[claim];
        let live = &self.requests[request];
        let session = &self.sessions[live.session];
        let view = WaiterView {
            session: session.id,
            identity: &session.identity,
            peer: session.peer,
            connected: session.is_there(),
            owner: self.owner_of(request),
            request: live.id,
            mode,
            since: live.since,
            note: live.more().note.as_ref(),
        };
        (live.state, view)
    }
}

fn session_view(session: &Session) -> SessionView<'_> {
    SessionView {
        session: session.id,
        identity: &session.identity,
        peer: session.peer,
        connected: session.is_there(),
        since: session.since,
        ttl: session.ttl,
        is_attended: session.unattended.is_none(),
        lease_ends: session.has_end().then_some(session.ends),
        held: session.held,
        waiting: session.requests.len() - session.held,
    }
}
