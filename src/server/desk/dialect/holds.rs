//! The table's locks, as commands of the dialect ask for them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::marked;
use super::Desk;
use crate::engine::{
    Event, Hold, PLACES_LOOKED_AT_MAX, Prolong, Rejection, Request, RequestEvent, SessionView,
};
use crate::redis::{Change, Holds, Look, Ours, Refusal};
use crate::server::log_lines;
use crate::types::{
    Claim, ConnectionId, Identity, LockName, Mark, Mode, RequestId, SessionId, Timestamp, Wait,
};

/// The locks, for one connection, at one moment.
pub(super) struct DeskHolds<'a> {
    pub(super) desk: &'a mut Desk,
    pub(super) connection: ConnectionId,
    pub(super) now: Timestamp,
}

impl DeskHolds<'_> {
    /// Opens a session for a lock; says which, and what it was told.
    pub(super) fn ask(
        &mut self,
        key: &LockName,
        mark: &Mark,
        term: Option<Duration>,
        wait: Wait,
    ) -> Result<(SessionId, Option<RequestEvent>), Refusal> {
        let Self { connection, now, .. } = *self;
        let claim = Claim { name: key.clone(), mode: Mode::Exclusive };
        self.desk.may_take(connection, &claim)?;
        if self.desk.is_unwritten() {
            return Err(unwritten());
        }
        let drawn = (self.desk.draw)().map_err(|(_, why)| refusal(&why))?;
        let session = marked::named(drawn, self.desk.bound_to(connection));
        let request = Request { wait, ..Request::new(RequestId::new(1), claim) };
        let (peer, identity) = (self.desk.connections.peer(connection), self.identity());
        let hold = Hold { session, peer, identity, mark: mark.clone(), term, request };
        self.desk.session_begins(connection, session);
        self.desk.dialect.asking = Some((session, None));
        self.desk.step(&Event::Hold(Box::new(hold)), now);
        let told = self.desk.dialect.asking.take().and_then(|(_, told)| told);
        if !self.desk.table.is_alive(session) {
            self.desk.rights.session_ended(session);
        }
        Ok((session, told))
    }

    /// Who asks, for people: the principal, if it is known, and who that says to be.
    fn identity(&mut self) -> Identity {
        let talker = self.desk.dialect.talkers.get(&self.connection);
        if let Some(known) = talker.and_then(|talker| talker.identity.clone()) {
            return known;
        }
        let said = self.desk.said_identity(self.connection);
        let identity = match self.desk.bound_to(self.connection) {
            Some(principal) => principal.shown_before(&said),
            None => said,
        };
        if let Some(talker) = self.desk.dialect.talkers.get_mut(&self.connection) {
            talker.identity = Some(identity.clone());
        }
        identity
    }

    /// Tells the logs that somebody has changed or freed what another holds, which takes the right to take
    /// locks away.
    fn note_broken(&mut self, key: &LockName, how: &str) {
        let lock = self.desk.table.lock(key.as_str());
        let holder = lock.and_then(|lock| {
            lock.holders().next().map(|it| (it.session, it.token, it.identity.clone()))
        });
        let Some((session, token, identity)) = holder else { return };
        let (connection, said) = (self.connection, self.desk.said_identity(self.connection));
        self.desk.connections.name_observer(connection, said);
        let operator = self.desk.operator(connection);
        let line = log_lines::revoked(operator, key, token, session, &identity);
        self.desk.turn.lines.push(line);
        let victim = (session, &identity);
        self.desk.audit_revoked(connection, (key, &[]), token, victim, Some(how.to_owned()));
    }

    /// The session that holds a lock unattended, and whether it is of whom this connection is.
    fn session_of(&self, key: &LockName) -> Option<(SessionId, bool)> {
        let holder = self.desk.table.lock(key.as_str())?.holders().next()?;
        self.desk.table.unattended(holder.session)?;
        let is_own =
            match (self.desk.bound_to(self.connection), self.desk.rights.owner(holder.session)) {
                (Some(own), Some(owner)) => own == owner,
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
        Some((holder.session, is_own))
    }
}

/// That nothing can be promised.
pub(super) fn unwritten() -> Refusal {
    Refusal(
        "COORDINATOR the journal cannot be written, so a hold would not survive a crash; nothing is granted \
         to this dialect, and nothing prolonged, until it can"
            .into(),
    )
}

fn refusal(why: &str) -> Refusal {
    Refusal(format!("COORDINATOR {why}").into())
}

impl Desk {
    /// The dialect, the name that a connection of it gives itself, and where that comes from.
    pub(in crate::server::desk) fn said_identity(&self, connection: ConnectionId) -> Identity {
        let name = self.dialect.talkers.get(&connection).map(|talker| &*talker.name);
        let peer = self.connections.peer(connection);
        let peer = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
        let said = match name {
            None | Some("") => format!("redis {peer}"),
            Some(name) => format!("redis {name}@{peer}"),
        };
        // Both are short, and of signs that can be shown.
        Identity::new(said).unwrap_or_default()
    }

    /// Frees some of all that clients of this dialect hold, as far as they are of whom this connection is: of
    /// so many places for sessions, from where it was left. Who waits, waits on. Says whether that were the last.
    pub(super) fn free_some(&mut self, connection: ConnectionId, now: Timestamp) -> bool {
        let Some(talker) = self.dialect.talkers.get(&connection) else { return true };
        let (from, own) = (talker.flushed, self.bound_to(connection));
        let (mut looked, mut unattended) = (0, Vec::new());
        for (_, session) in self.table.session_places(from).take(PLACES_LOOKED_AT_MAX) {
            looked += 1;
            if let Some(SessionView { session, is_attended: false, held: 1.., .. }) = session
                && self.rights.owner(session) == own
            {
                unattended.push(session);
            }
        }
        self.looked += looked as u64;
        for session in unattended {
            self.step(&Event::Drop { session }, now);
        }
        let is_all = looked < PLACES_LOOKED_AT_MAX;
        if let Some(talker) = self.dialect.talkers.get_mut(&connection) {
            talker.flushed = if is_all { 0 } else { from + looked };
        }
        is_all
    }
}

impl Holds for DeskHolds<'_> {
    fn look(&mut self, key: &LockName) -> Result<Look, Refusal> {
        let shows_who = self.desk.may_look_at(self.connection, key)?;
        let Some(lock) = self.desk.table.lock(key.as_str()) else { return Ok(Look::Free) };
        let Some(holder) = lock.holders().next() else { return Ok(Look::Free) };
        let left = |ends: Timestamp| ends.since(self.now);
        Ok(match self.desk.table.unattended(holder.session) {
            Some(unattended) => Look::Ours(Ours {
                mark: unattended.mark.clone(),
                left: unattended.ends.map(left),
                token: holder.token,
            }),
            None => Look::Theirs {
                identity: if shows_who { holder.identity.to_string() } else { String::new() },
                left: lock.outlook().free_by.map(left),
                token: holder.token,
            },
        })
    }

    fn take(
        &mut self,
        key: &LockName,
        mark: &Mark,
        term: Option<Duration>,
    ) -> Result<bool, Refusal> {
        match self.ask(key, mark, term, Wait::Never)?.1 {
            Some(RequestEvent::Granted { .. }) => Ok(true),
            Some(RequestEvent::Rejected(
                Rejection::Busy { .. } | Rejection::HeldOtherwise { .. } | Rejection::Grace { .. },
            )) => Ok(false),
            Some(RequestEvent::Rejected(rejection)) => Err(refusal(&rejection.to_string())),
            Some(_) | None => Err(refusal("the request was not answered")),
        }
    }

    fn change(&mut self, key: &LockName, change: Change<'_>) -> Result<(), Refusal> {
        let Some((session, is_own)) = self.session_of(key) else { return Ok(()) };
        self.desk.may_change(self.connection, key, is_own)?;
        if self.desk.is_unwritten() {
            return Err(unwritten());
        }
        if !is_own && self.desk.is_filtered() {
            self.note_broken(key, "changed by a client of the Redis dialect");
        }
        let prolong = Prolong { session, term: change.term, mark: change.mark.cloned() };
        self.desk.step(&Event::Prolong(Box::new(prolong)), self.now);
        Ok(())
    }

    fn free(&mut self, key: &LockName) -> Result<(), Refusal> {
        let Some((session, is_own)) = self.session_of(key) else { return Ok(()) };
        // Whoever shows the value may have read it: that does not make it its own.
        self.desk.may_change(self.connection, key, is_own)?;
        if !is_own && self.desk.is_filtered() {
            self.note_broken(key, "freed by a client of the Redis dialect");
        }
        self.desk.step(&Event::Drop { session }, self.now);
        Ok(())
    }

    fn may_free(&mut self, key: &LockName) -> Result<(), Refusal> {
        match self.session_of(key) {
            Some((_, is_own)) => self.desk.may_change(self.connection, key, is_own),
            None => Ok(()),
        }
    }

    fn wall(&self) -> Duration {
        let wall: SystemTime = (self.desk.wall)();
        wall.duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn size(&self) -> usize {
        self.desk.table.counts().locks
    }
}
