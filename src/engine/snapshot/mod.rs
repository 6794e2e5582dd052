//! The snapshot: everything that goes on after an orderly stop, sessions, holds and queues (rule
//! G2).
//!
//! A snapshot holds no moments, for the next run has another clock: lengths of time that are left,
//! instead. Leases begin anew, in full, which errs on the safe side.

use std::time::Duration;

use serde::ser::{SerializeSeq, SerializeStruct};
use serde::{Deserialize, Serialize, Serializer};

use super::arena::RequestKey;
use super::claim::ClaimNode;
use super::delay::Parting;
use super::event::{Extras, Progress, Request, Supersede};
use super::pause::{Delay, Pause};
use super::records::AfterRecord;
use super::request::{More, State};
use super::session::{Opening, Outcome, Session, Unattended};
use super::{Forfeit, LockTable};
use crate::types::{
    Claim, Claims, FencingToken, Generation, Identity, LockName, Mark, Note, OwnerId, RequestId,
    SessionId, Ticket, Ttl, Wait,
};

/// What a coordinator leaves to the next run when it stops in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    sessions: Vec<SavedSession>,
    /// Of all sessions: those that hold in the order of their tokens, then those that wait in the
    /// order of their tickets. Taken in like that, they are as they were.
    requests: Vec<SavedRequest>,
    /// In a grace period: who and what may not reclaim.
    forfeited: Option<Vec<Forfeit>>,
    /// Locks that may not be granted yet, and for how long.
    delays: Vec<SavedDelay>,
}

/// A lock that may not be granted yet, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedDelay {
    lock: LockName,
    /// After the loss of a holder.
    lost: Option<SavedPause>,
    /// Until it was had for so long.
    kept: Option<SavedPause>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedPause {
    session: SessionId,
    identity: Identity,
    token: FencingToken,
    /// How long ago that was granted.
    age: Duration,
    /// Length that its holder asked for.
    length: Duration,
    /// The rest of it.
    left: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedSession {
    id: SessionId,
    generation: Generation,
    identity: Identity,
    ttl: Ttl,
    linger: Option<Duration>,
    /// How long ago it was opened, for people.
    age: Duration,
    /// Whether its client has yet to hear that it was opened anew after a crash.
    is_reopened: bool,
    latest_request: RequestId,
    finished: Vec<(RequestId, Outcome)>,
    /// What there is about it if nobody attends it.
    unattended: Option<SavedUnattended>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedUnattended {
    /// Whoever shows this is its holder.
    mark: Mark,
    /// The rest of the time for which it holds; none: until it is given back.
    left: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedRequest {
    session: SessionId,
    id: RequestId,
    owner: OwnerId,
    /// The request that it waits to convert.
    converts: Option<RequestId>,
    /// Its token if it holds.
    token: Option<FencingToken>,
    /// That of what it converted.
    replaced: Option<FencingToken>,
    /// For how long it goes on waiting, if it does not hold and not for ever.
    timeout_left: Option<Duration>,
    ticket: Ticket,
    /// Since how long it holds or waits.
    age: Duration,
    told: bool,
    lock_delay: Duration,
    at_least: Duration,
    /// Whether, while it waits, a newer one ends it.
    supersedes: bool,
    note: Note,
    claims: Vec<Claim>,
}

impl Snapshot {
    /// Whether earlier holders could still reclaim when it was taken.
    pub(super) fn in_grace(&self) -> bool {
        self.forfeited.is_some()
    }

    /// How many sessions it holds.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// How many requests it holds, those that hold and those that wait together.
    pub fn request_count(&self) -> usize {
        self.requests.len()
    }
}

impl LockTable {
    /// Everything that is to go on in the next run. After this the table must not be told of events
    /// any more: what they would change would be lost.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            sessions: self.saved_sessions().map(|session| self.save_session(session)).collect(),
            requests: self.saved_requests().into_iter().map(|key| self.save_request(key)).collect(),
            forfeited: self.saved_forfeits(),
            delays: self.saved_delays(),
        }
    }

    /// A value with the form of [`LockTable::snapshot`] when it is written down, without there ever
    /// being one. Each session and request is copied only while it is written.
    pub fn as_snapshot(&self) -> impl Serialize {
        InPieces(self)
    }

    fn saved_sessions(&self) -> impl Iterator<Item = &Session> {
        let sessions = self.sessions.iter_from(0).map(|(_, session)| session);
        sessions.filter(|session| is_saved(session))
    }

    fn saved_requests(&self) -> Vec<RequestKey> {
        let mut live: Vec<RequestKey> = self
            .requests
            .keys()
            .filter(|key| is_saved(&self.sessions[self.requests[*key].session]))
            .collect();
        live.sort_by_key(|key| {
            let live = &self.requests[*key];
            let token = live.token();
            (token.is_none(), token, live.ticket())
        });
        live
    }

    fn saved_forfeits(&self) -> Option<Vec<Forfeit>> {
        self.grace.is_on().then(|| self.grace.forfeits().collect())
    }

    fn saved_delays(&self) -> Vec<SavedDelay> {
        let delays = self.locks.keys().filter_map(|key| {
            let lock = &self.locks[key];
            Some(self.save_delay(&lock.name, lock.delay.as_deref()?))
        });
        let of_the_lost = self.records.to_happen().flat_map(|then| self.delays_of(then));
        delays.chain(of_the_lost).collect()
    }

    /// What is delayed when that is on record. Until then it is held by a session that is over.
    fn delays_of(&self, after: &AfterRecord) -> Vec<SavedDelay> {
        let AfterRecord::Session(session) = after else { return Vec::new() };
        let mut delays = Vec::new();
        for request in self.sessions[*session].requests.iter(&self.requests.arena) {
            let delay = self.delay_after(request, Parting::Lost);
            for claim in self.claims_of(request).filter(|_| !delay.is_none()) {
                let lock = &self.locks[self.claims[claim].lock].name;
                delays.push(self.save_delay(lock, &delay));
            }
        }
        delays
    }

    fn save_delay(&self, lock: &LockName, delay: &Delay) -> SavedDelay {
        let save = |pause: &Pause| SavedPause {
            session: pause.session,
            identity: pause.identity.clone(),
            token: pause.token,
            age: self.now.since(pause.since),
            length: pause.length,
            left: pause.until.since(self.now),
        };
        SavedDelay {
            lock: lock.clone(),
            lost: delay.lost.as_ref().map(save),
            kept: delay.kept.as_ref().map(save),
        }
    }

    fn save_session(&self, session: &Session) -> SavedSession {
        SavedSession {
            id: session.id,
            generation: session.generation,
            identity: session.identity.clone(),
            ttl: session.ttl,
            linger: session.linger,
            age: self.now.since(session.since),
            is_reopened: session.is_reopened,
            latest_request: session.latest_request,
            finished: session.finished().collect(),
            unattended: self.unattended(session.id).map(|unattended| SavedUnattended {
                mark: unattended.mark.clone(),
                left: unattended.ends.map(|ends| ends.since(self.now)),
            }),
        }
    }

    fn save_request(&self, key: RequestKey) -> SavedRequest {
        let live = &self.requests[key];
        let (token, timeout_left) = match live.state {
            State::Held { token } => (Some(token), None),
            State::Waiting { deadline, .. } => (None, deadline.map(|at| at.since(self.now))),
        };
        let More { partner, replaced, lock_delay, keep, note, .. } = live.more();
        let claims = self.claims_of(key).map(|claim| {
            let ClaimNode { lock, mode, .. } = self.claims[claim];
            Claim { name: self.locks[lock].name.clone(), mode }
        });
        SavedRequest {
            session: self.sessions[live.session].id,
            id: live.id,
            owner: self.owner_of(key),
            converts: partner.filter(|_| !live.is_held()).map(|held| self.requests[held].id),
            token,
            replaced: *replaced,
            timeout_left,
            ticket: live.ticket(),
            age: self.now.since(live.since),
            told: live.is_told(),
            lock_delay: *lock_delay,
            at_least: keep.as_ref().map_or(Duration::ZERO, |keep| keep.at_least),
            supersedes: live.supersedes(),
            note: note.clone().unwrap_or_default(),
            claims: claims.collect(),
        }
    }

    /// Everything is as it was when the snapshot was taken, but that no session has a connection.
    /// What does not fit together, as after a meddling with the file, is left out.
    pub(super) fn restore(&mut self, snapshot: Snapshot) {
        self.grace.forfeit_all(snapshot.forfeited.into_iter().flatten());
        for saved in snapshot.sessions {
            if self.sessions.find(saved.id).is_none() {
                self.restore_session(saved);
            }
        }
        for saved in snapshot.requests {
            self.restore_request(saved);
        }
        for saved in snapshot.delays {
            self.restore_delay(saved);
        }
        if !self.grace.is_on() {
            self.relax_longest_lease();
        }
        self.deferred.starve();
        if self.may_grant() {
            self.retry_starved();
        }
        // Nobody is there yet to be told; who comes back asks.
        self.effects.clear();
    }

    fn restore_delay(&mut self, saved: SavedDelay) {
        let restore = |pause: SavedPause| Pause {
            until: self.now.after(pause.left),
            session: pause.session,
            identity: pause.identity,
            origin: None,
            token: pause.token,
            since: self.now.before(pause.age),
            length: pause.length,
        };
        let delay = Delay { lost: saved.lost.map(restore), kept: saved.kept.map(restore) };
        if !delay.is_none() {
            let lock = self.locks.find_or_use(&saved.lock);
            self.delay_lock(lock, delay);
        }
    }

    fn restore_session(&mut self, saved: SavedSession) {
        let opening = Opening {
            id: saved.id,
            generation: saved.generation,
            connection: None,
            peer: None,
            identity: saved.identity,
            ttl: saved.ttl,
            linger: saved.linger,
        };
        let mut session = Session::open(opening, self.now);
        session.since = self.now.before(saved.age);
        session.is_reopened = saved.is_reopened;
        session.latest_request = saved.latest_request;
        for (request, outcome) in saved.finished {
            session.remember(request, outcome, self.limits.finished_remembered);
        }
        if let Some(SavedUnattended { mark, left }) = saved.unattended {
            // What was over is over with the next tick, as anything is that ends.
            let least = Duration::from_micros(1);
            let ends = self.now.after(left.unwrap_or(Duration::MAX).max(least));
            session.attend_not(Unattended { mark, term: left, is_from_grant: false }, ends);
        }
        self.enroll(session);
    }

    fn restore_request(&mut self, saved: SavedRequest) {
        let Some(session) = self.sessions.find(saved.session) else { return };
        let Ok(claims) = Claims::new(saved.claims) else { return };
        if self.requests.find(session, saved.id).is_some() {
            return;
        }
        let held = saved.converts.map(|converts| self.requests.find(session, converts));
        let since = self.now.before(saved.age);
        let unknown = saved.age.saturating_sub(self.now.since(since));
        let extras = Extras {
            // The clock may have begun after the grant: what it cannot say is not to be had twice.
            at_least: saved.at_least.saturating_sub(unknown),
            supersede: if saved.supersedes { Supersede::Older } else { Supersede::Nobody },
        };
        let request = Request {
            id: saved.id,
            owner: saved.owner,
            converts: saved.converts,
            wait: Wait::Never,
            progress: if saved.told { Progress::Told } else { Progress::Untold },
            place: None,
            lock_delay: saved.lock_delay,
            extras: extras.of_few(),
            note: saved.note,
            claims,
        };
        let key = self.put_in(session, &request);
        if saved.replaced.is_some() {
            self.requests[key].more_mut().replaced = saved.replaced;
        }
        if let Some(Some(held)) = held {
            self.pair(key, held);
        }
        let fits = held != Some(None);
        match saved.token {
            Some(token) if fits && self.has_room(key) => self.hold(key, token),
            None if fits => {
                let deadline = saved.timeout_left.map(|left| self.now.after(left));
                self.wait_in_queues(key, saved.ticket, deadline);
            }
            Some(_) | None => return self.take_out(key),
        }
        self.requests[key].since = since;
    }
}

/// A table, written down as a [`Snapshot`] is: the same fields in the same order.
struct InPieces<'a>(&'a LockTable);

impl Serialize for InPieces<'_> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let Self(table) = *self;
        let mut snapshot = serializer.serialize_struct("Snapshot", 4)?;
        let sessions = || table.saved_sessions().map(|session| table.save_session(session));
        let session_count = table.saved_sessions().count();
        snapshot.serialize_field("sessions", &Each { count: session_count, of: sessions })?;
        let keys = table.saved_requests();
        let (count, requests) = (keys.len(), || keys.iter().map(|key| table.save_request(*key)));
        snapshot.serialize_field("requests", &Each { count, of: requests })?;
        snapshot.serialize_field("forfeited", &table.saved_forfeits())?;
        snapshot.serialize_field("delays", &table.saved_delays())?;
        snapshot.end()
    }
}

/// A list that is made while it is written.
struct Each<F> {
    /// How long it is.
    count: usize,
    /// Makes it.
    of: F,
}

impl<T: Serialize, I: Iterator<Item = T>, F: Fn() -> I> Serialize for Each<F> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let mut list = serializer.serialize_seq(Some(self.count))?;
        (self.of)().try_for_each(|one| list.serialize_element(&one))?;
        list.end()
    }
}

/// Whether a session goes on in the next run: it is not over, it is welcome, and it does not wait for a lock
/// on behalf of a connection of this run.
fn is_saved(session: &Session) -> bool {
    let waits = session.unattended.is_some() && session.held == 0;
    !session.is_over && session.unheard.is_none() && !waits
}

#[cfg(test)]
mod tests;
