//! Attaching a connection to a session: a new one, a living one (session resumption), or one from
//! before a crash (rules S1, S2, S5, G1, G2).

use std::mem;
use std::net::SocketAddr;

use super::arena::SessionKey;
use super::event::{Attach, Command};
use super::session::{Opening, Session};
use super::{Effect, EndReason, Forfeit, LockTable, Rejection, RequestEvent};
use crate::types::{ConnectionId, Generation, Origin, Standing, Ttl};

/// So much may a client say before it is welcome; one that says more is sent away.
const UNHEARD_MAX: usize = 256;

impl LockTable {
    /// A connection said Hello.
    pub(super) fn attach(
        &mut self,
        connection: ConnectionId,
        peer: Option<SocketAddr>,
        attach: &Attach,
    ) {
        let opening = match *attach {
            Attach::Open { session, ttl, linger, ref identity } => {
                let (generation, connection) = (Generation::new(1), Some(connection));
                let (id, identity) = (session, identity.clone());
                Opening { id, generation, connection, peer, identity, ttl, linger }
            }
            Attach::Resume { session, proved_in, generation, ttl, linger, ref identity } => {
                if let Some(key) = self.sessions.find(session) {
                    return self.resume(key, connection, peer, generation);
                }
                self.heed_unknown_run(proved_in);
                let is_over = self.grace.has_forfeited(Forfeit::Session(session));
                if !self.grace.is_on() || is_over || !self.this_run.still_counts(proved_in) {
                    return self.refuse(connection, Rejection::UnknownSession);
                }
                let (id, connection) = (session, Some(connection));
                let identity = identity.clone();
                Opening { id, generation, connection, peer, identity, ttl, linger }
            }
        };
        if let Err(rejection) = self.open(opening) {
            self.refuse(connection, rejection);
        }
    }

    fn open(&mut self, opening: Opening) -> Result<(), Rejection> {
        let max = self.limits.sessions_max;
        if self.draining {
            return Err(Rejection::Draining);
        }
        // The first connection of a session is of generation 1; this is a later one of an earlier run.
        let is_reopened = opening.generation > Generation::new(1);
        self.check_ttl(opening.ttl, is_reopened)?;
        // Who was let in before the crash is not kept out by those who were quicker after it.
        if self.sessions.len() >= max && !(is_reopened && self.displace_newcomer()) {
            return Err(Rejection::TooManySessions { max });
        }
        if let Some(origin) = opening.peer.map(|peer| Origin::of(peer.ip())) {
            // Many honest clients may come from one address, but it is not to take all.
            let max = self.limits.sessions_per_address_max.unwrap_or(max - max / 4);
            if self.sessions.from(origin) >= max && !is_reopened {
                return Err(Rejection::TooManySessionsThere { origin, max });
            }
        }
        assert!(self.sessions.find(opening.id).is_none(), "the shell gave a session id twice");
        let (id, ttl) = (opening.id, opening.ttl);
        let session = self.enroll(Session::open(opening, self.now));
        self.sessions[session].is_reopened = is_reopened;
        if self.grace.is_on() && !is_reopened {
            self.note_newcomer(session);
        }
        if self.tokens.covers(ttl) {
            self.welcome(session, Standing::Opened);
        } else {
            self.sessions[session].unheard = Some(Vec::new());
            self.unwelcomed.push(id);
        }
        Ok(())
    }

    pub(super) fn note_newcomer(&mut self, session: SessionKey) {
        let number = self.this_run.add_newcomer(session);
        self.sessions[session].newcomer = Some(number);
    }

    /// The latest of those who opened a session in this grace period makes room for one who was there
    /// before. Says whether there was any.
    fn displace_newcomer(&mut self) -> bool {
        let Some(newcomer) = self.this_run.latest_newcomer() else { return false };
        self.end_session(newcomer, EndReason::Displaced);
        self.settle();
        true
    }

    /// Whether a lease is short enough. One from before a crash may be as long as the longest that
    /// the grace period is for, whatever is allowed now. It makes nobody wait any longer.
    fn check_ttl(&self, asked: Ttl, is_reopened: bool) -> Result<(), Rejection> {
        let max = self.limits.ttl_max.max(Ttl::default());
        let is_honoured = is_reopened && self.tokens.ttl_max() >= Some(asked);
        if asked <= max || is_honoured {
            Ok(())
        } else {
            Err(Rejection::TtlNotAllowed { asked, max })
        }
    }

    /// Takes a session in, and sees to it that its end is noticed.
    pub(super) fn enroll(&mut self, session: Session) -> SessionKey {
        let wakes = session.wakes;
        let key = self.sessions.insert(session);
        self.deadlines.add_lease(wakes, key);
        key
    }

    /// The disk covers longer leases now: who waited for that is welcome, and is heard.
    pub(super) fn welcome_the_covered(&mut self) {
        if self.deferred.withholds() {
            // What they have asked for may not be allowed any more.
            return;
        }
        for id in mem::take(&mut self.unwelcomed) {
            let Some(session) = self.sessions.find(id) else { continue };
            if !self.tokens.covers(self.sessions[session].ttl) {
                self.unwelcomed.push(id);
                continue;
            }
            let unheard = self.sessions[session].unheard.take().unwrap_or_default();
            self.sessions[session].renew(self.now);
            self.welcome(session, Standing::Opened);
            for command in unheard {
                // A goodbye among them ends the session.
                let Some(session) = self.sessions.find(id) else { break };
                let Some(connection) = self.sessions[session].connection else { break };
                self.command(session, connection, &command);
            }
        }
    }

    /// Gives a living session a new connection; the one it had is told and closed (rules S1, S2).
    fn resume(
        &mut self,
        key: SessionKey,
        connection: ConnectionId,
        peer: Option<SocketAddr>,
        generation: Generation,
    ) {
        let latest = self.sessions[key].generation;
        if generation <= latest {
            return self.refuse(connection, Rejection::StaleGeneration { latest });
        }
        self.sessions[key].generation = generation;
        self.sessions.moved(key, peer);
        self.sessions[key].renew(self.now);
        let before = self.sessions.attach(key, connection);
        if let Some(connection) = before {
            self.effects.push(Effect::Superseded { connection });
        }
        match &mut self.sessions[key].unheard {
            // What the connection before said is not for this one (rule S2).
            Some(unheard) => unheard.clear(),
            None => self.welcome(key, Standing::Resumed),
        }
        if before.is_none() {
            self.went_or_came(key);
            self.settle();
        }
    }

    /// Tells a session's client that it is welcome, and as what: new, or resumed. If it was opened
    /// anew after a crash, it is told so until something is heard from it.
    fn welcome(&mut self, session: SessionKey, standing: Standing) {
        let Session { id, generation, ttl, connection, is_reopened, .. } = self.sessions[session];
        let standing = match self.grace.left(self.now) {
            Some(grace) if is_reopened => Standing::Reopened { grace },
            Some(_) | None => standing,
        };
        if let Some(connection) = connection {
            let session = id;
            self.effects.push(Effect::Welcome { connection, session, generation, ttl, standing });
        }
    }

    pub(super) fn refuse(&mut self, connection: ConnectionId, rejection: Rejection) {
        self.effects.push(Effect::Refused { connection, rejection });
    }

    /// Does what a client says, or keeps it until the session is welcome.
    pub(super) fn hear(
        &mut self,
        session: SessionKey,
        connection: ConnectionId,
        command: &Command,
    ) {
        match &mut self.sessions[session].unheard {
            Some(unheard) if unheard.len() < UNHEARD_MAX => unheard.push(command.clone()),
            Some(_) => self.end_session(session, EndReason::Disconnected),
            None => self.command(session, connection, command),
        }
    }

    fn command(&mut self, session: SessionKey, connection: ConnectionId, command: &Command) {
        match *command {
            Command::Request(ref request) => self.request(session, request),
            Command::Release { request, token } => self.release(session, request, token),
            Command::Cancel { request } => self.cancel(session, request),
            Command::Reclaim(ref reclaim) => self.reclaim(session, reclaim),
            Command::Account(ref account) => self.account(session, account),
            Command::KeepAlive { sequence } => {
                self.effects.push(Effect::KeptAlive { connection, sequence });
            }
            Command::Goodbye => {
                self.end_session(session, EndReason::Goodbye);
                self.settle();
            }
            Command::Unparsed { request, ref rejection } => {
                self.tell(session, request, RequestEvent::Rejected(rejection.clone()));
            }
        }
    }
}
