//! Rights: who a connection has proven to be, what it may do, and what it is shown.
//!
//! `access` decides; here it is asked, for each message. Whatever does something for a client takes an
//! [`Allowed`], which only `access` makes. Without an access file everybody may do everything, and a
//! request pays for one look at whether that is so.

mod changed;
mod errands;
#[cfg(feature = "redis-api")]
mod foreign;
#[cfg(all(test, feature = "access"))]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;

pub(in crate::server) use self::errands::entitled;
pub use self::errands::{Errand, Unentitled};
#[cfg(feature = "redis-api")]
pub(super) use self::foreign::no_permission;
use super::Desk;
use super::connections::Role;
use super::guest::Guest;
use super::marked::proven_identity;
use super::parse;
use super::refusals::Refusals;
use super::render;
use super::usage::{Full, Usages};
use crate::access::{
    Access, Allowed, Badge, Denied, Principal, PrincipalName, Proof, Sight, Unproven, Verb, to,
};
use crate::engine::{Command, LockTable, Rejection};
use crate::server::chatter::Topic;
use crate::server::log_lines;
use crate::types::{
    ConnectionId, FencingToken, GoodbyeCode, LockName, Origin, RejectionCode, RequestId, SessionId,
    Timestamp,
};
use crate::wire::{self, Attach, ServerMessage};

/// What the desk knows of who may do what.
#[derive(Debug)]
pub(super) struct Rights {
    /// The rules in force.
    access: Arc<Access>,
    /// How much each principal has.
    usages: Usages,
    /// Connections whose watches are yet to be looked through, for the rules have changed.
    changed: VecDeque<ConnectionId>,
    /// Who proved nobody, and is yet to hear so.
    pub(super) refusals: Refusals,
    /// While what waits is looked through, for the rules have changed: by what.
    looking: Option<Looking>,
    /// While a request is taken out of its queue because it is not allowed any more: why.
    withdrawing: Option<Denied>,
}

/// Who somebody is.
#[derive(Clone, Debug)]
pub enum Who {
    /// There is no access file, and nobody has to prove anything.
    Anybody,
    /// This one.
    Principal(Arc<Principal>),
}

impl Who {
    /// Who shows this, by these rules.
    pub(in crate::server) fn by(access: &Access, proof: Proof) -> Result<Self, Unproven> {
        if access.is_open() {
            return Ok(Self::Anybody);
        }
        Badge::of(access, proof).map(|badge| Self::Principal(badge.principal_kept()))
    }
}

/// How far the sessions are looked through, and by which rules.
#[derive(Debug)]
struct Looking {
    /// The place of the next session.
    next: usize,
    /// Principals by name, as they are in the access file now.
    principals: HashMap<PrincipalName, Arc<Principal>, RandomState>,
}

/// What a Hello may have.
pub(super) enum Entry {
    /// A session of its own.
    Session(Allowed<to::Open>),
    /// That which it proves to be its own.
    Return(Allowed<to::KeepOnesOwn>),
    /// None: it looks.
    Observer(Allowed<to::Look>),
}

impl Rights {
    /// By these rules. The table has sessions of a run before.
    pub(super) fn new(access: Arc<Access>, table: &LockTable) -> Self {
        let mut usages = Usages::default();
        if !access.is_open() {
            for (_, session) in table.sessions(0) {
                // Of a run without an access file it is nobody's, whatever it is called.
                if let Some(identity) = proven_identity(&session) {
                    usages.opened(session.session, &PrincipalName::shown_by(identity));
                }
            }
        }
        Self {
            access,
            usages,
            refusals: Refusals::default(),
            changed: VecDeque::new(),
            looking: None,
            withdrawing: None,
        }
    }

    /// Whether there is work left of a change of the rules.
    pub(super) fn is_changing(&self) -> bool {
        self.looking.is_some() || !self.changed.is_empty()
    }

    /// Whose a session is, if that is known.
    pub(super) fn owner(&self, session: SessionId) -> Option<&PrincipalName> {
        self.usages.owner(session)
    }

    /// A session is over.
    pub(super) fn session_ended(&mut self, session: SessionId) {
        self.usages.ended(session);
    }
}

impl Desk {
    /// A connection has shown something that may prove who it is. It comes before its Hello.
    pub(in crate::server) fn hear_proof(&mut self, connection: ConnectionId, proof: Box<Proof>) {
        if !self.rights.access.is_open() {
            self.connections.prove(connection, proof);
        }
    }

    /// Who it is that shows this.
    pub(in crate::server) fn identify(&self, proof: Proof) -> Result<Who, Unproven> {
        Who::by(&self.rights.access, proof)
    }

    /// That anything is allowed, if it is.
    #[inline]
    pub(super) fn anything<To>(&self) -> Option<Allowed<To>> {
        self.rights.access.anything()
    }

    /// Whether a Hello may have what it asks for, and as whom; if not, it was told so.
    pub(super) fn admit(
        &mut self,
        connection: ConnectionId,
        attach: &Attach,
        now: Timestamp,
    ) -> Option<(Entry, Option<PrincipalName>)> {
        if self.rights.access.is_open() {
            return Some((self.open_entry(attach)?, None));
        }
        let proof = self.connections.take_proof(connection).map(|proof| *proof);
        let badge = match Badge::of(&self.rights.access, proof.unwrap_or_default()) {
            Ok(badge) => badge,
            Err(unproven) => {
                self.refuse_sign_in(connection, unproven, now);
                return None;
            }
        };
        let name = badge.principal().name.clone();
        let entry = match attach {
            Attach::New => badge.principal().may_open().map(Entry::Session),
            Attach::Resume { .. } => Ok(Entry::Return(Allowed::always())),
            Attach::Observer => badge.principal().may_look().map(Entry::Observer),
        };
        let entry = match entry {
            Ok(entry) => entry,
            Err(denied) => {
                self.told.reject(RejectionCode::Forbidden);
                self.note_denial(Some(connection), None, &denied);
                let refused = render::refused(RejectionCode::Forbidden, denied.to_string());
                self.dismiss(connection, &refused);
                return None;
            }
        };
        let seat = match entry {
            // The connection before it goes, or this one does: nobody is kept out of what is their own.
            Entry::Return(_) => Ok(self.rights.usages.stand(badge.principal())),
            Entry::Session(_) | Entry::Observer(_) => self.rights.usages.sit(badge.principal()),
        };
        let seat = match seat {
            Ok(seat) => seat,
            Err(Full { max }) => {
                let why = format!("{name} has {max} connections, its limit");
                self.audit_full(connection, &badge, &why);
                let goodbye = render::goodbye(GoodbyeCode::TooManyConnections, why);
                self.dismiss(connection, &goodbye);
                return None;
            }
        };
        if let (Entry::Session(_), Err(Full { max })) =
            (&entry, self.rights.usages.may_open(badge.principal()))
        {
            let why = format!("{max} sessions of {name} are alive, its limit");
            self.told.reject(RejectionCode::TooManySessions);
            self.audit_full(connection, &badge, &why);
            self.dismiss(connection, &render::refused(RejectionCode::TooManySessions, why));
            return None;
        }
        self.told.authenticate(badge.method());
        self.connections.receive_guest(connection, Box::new(Guest { badge, seat }));
        Some((entry, Some(name)))
    }

    fn open_entry(&self, attach: &Attach) -> Option<Entry> {
        Some(match attach {
            Attach::New => Entry::Session(self.anything()?),
            Attach::Resume { .. } => Entry::Return(Allowed::always()),
            Attach::Observer => Entry::Observer(self.anything()?),
        })
    }

    /// Says that nobody is proven: later, if its address hears that again and again.
    fn refuse_sign_in(&mut self, connection: ConnectionId, unproven: Unproven, now: Timestamp) {
        self.note_unproven(connection, unproven);
        let origin = self.connections.peer(connection).map(|peer| Origin::of(peer.ip()));
        if self.rights.refusals.is_prompt(connection, origin, unproven, now) {
            self.dismiss_unproven(connection, unproven);
        }
    }

    /// Tells those who have waited to hear that they are refused.
    pub(super) fn tell_refused(&mut self, now: Timestamp) {
        while let Some((connection, unproven)) = self.rights.refusals.next_due(now) {
            // It may have gone, or have been said Goodbye to for something else.
            if let Some(Role::Unknown) = self.connections.role(connection) {
                self.dismiss_unproven(connection, unproven);
            }
        }
    }

    /// Counts that nobody is proven, and tells the logs.
    fn note_unproven(&mut self, connection: ConnectionId, unproven: Unproven) {
        self.told.reject(RejectionCode::Unauthenticated);
        self.counters.unproven.add_one();
        let peer = self.connections.peer(connection);
        if self.counters.chatter.admits(Topic::Refusal, peer) {
            log_lines::unproven(Some(connection), peer, unproven);
        }
        self.audit_unproven(connection, unproven);
    }

    fn dismiss_unproven(&mut self, connection: ConnectionId, unproven: Unproven) {
        let code = RejectionCode::Unauthenticated;
        self.dismiss(connection, &render::refused(code, unproven.to_string()));
    }

    /// As whom a session's secret is made; none: as nobody, for there is no access file.
    pub(super) fn bound_to(&self, connection: ConnectionId) -> Option<&PrincipalName> {
        self.connections.guest(connection).map(|guest| &guest.principal().name)
    }

    /// A session is there, and counts.
    pub(super) fn session_begins(&mut self, connection: ConnectionId, session: SessionId) {
        if let Some(guest) = self.connections.guest(connection) {
            self.rights.usages.opened(session, &guest.principal().name);
        }
    }

    /// What a connection may see.
    pub(super) fn sight(&self, connection: ConnectionId) -> Sight {
        if self.rights.access.is_open() {
            return Sight::Everything;
        }
        match self.connections.guest(connection) {
            Some(guest) => guest.badge.sight(),
            None => Sight::Nothing,
        }
    }

    /// Whether somebody sees less than everything.
    pub(super) fn is_filtered(&self) -> bool {
        !self.rights.access.is_open()
    }

    /// Whether a session may ask for a lock by the rule by which it was allowed the last. None: that is to be
    /// asked of all rules, as if nothing had been asked yet.
    #[inline]
    pub(super) fn may_lock_by_the_same(
        &self,
        connection: ConnectionId,
        asked: &wire::Request,
        now: Timestamp,
    ) -> Option<Allowed<to::Lock>> {
        let [claim] = asked.claims.as_slice() else { return None };
        let guest = self.connections.guest(connection)?;
        let allowed = guest.badge.may_lock_by_the_same(claim)?;
        guest.seat.may_request(guest.badge.principal(), now).then_some(allowed)
    }

    /// Whether a session may ask for what it asks for; if not, it was told so.
    pub(super) fn may_lock(
        &mut self,
        connection: ConnectionId,
        command: &Command,
        now: Timestamp,
    ) -> Option<Allowed<to::Lock>> {
        if let Some(allowed) = self.anything() {
            return Some(allowed);
        }
        let Command::Request(request) = command else {
            // It is answered that it is none.
            return self.connections.guest(connection).map(|guest| guest.badge.may_repeat());
        };
        let session = self.session_of(connection);
        let guest = self.connections.guest_mut(connection)?;
        let denied = match guest.badge.may_lock(request.claims.as_slice()) {
            // Who has no session is told just that.
            Ok(allowed) if session.is_none() => return Some(allowed),
            Ok(allowed) if guest.seat.may_request(guest.badge.principal(), now) => {
                return Some(allowed);
            }
            Ok(allowed) => {
                if self.is_alive(session, request.id) {
                    return Some(allowed);
                }
                self.slow_down(connection, request.id);
                return None;
            }
            Err(denied) => denied,
        };
        if self.is_alive(session, request.id) {
            // It was asked for before, when it was allowed, and is repeated over another connection. What is held
            // stays held; what waits is withdrawn when it is looked through, and granted nothing before.
            let guest = self.connections.guest(connection)?;
            return Some(guest.badge.may_repeat());
        }
        self.deny_asked(connection, request.id, &denied, now);
        None
    }

    /// Tells a client that it asks too often.
    fn slow_down(&mut self, connection: ConnectionId, request: RequestId) {
        self.told.slowed_down += 1;
        self.refuse_asked(connection, request, &Rejection::SlowDown);
    }

    /// Tells a client that it may not have what it asks for. That counts as a request, or denials would be as
    /// many as one likes, and the logs full of them.
    fn deny_asked(
        &mut self,
        connection: ConnectionId,
        request: RequestId,
        denied: &Denied,
        now: Timestamp,
    ) {
        let Some(guest) = self.connections.guest(connection) else { return };
        if guest.seat.may_request(guest.principal(), now) {
            self.deny(connection, request, denied);
        } else {
            self.slow_down(connection, request);
        }
    }

    fn is_alive(&self, session: Option<SessionId>, request: RequestId) -> bool {
        session.is_some_and(|session| self.table.claims(session, request).next().is_some())
    }

    /// Whether a connection may do something with a lock that it names; if not, it was told so. Nothing is
    /// said to one that has not said Hello.
    pub(super) fn may_with<To>(
        &mut self,
        connection: ConnectionId,
        (query_id, name): (u64, &str),
        may: impl Fn(&Principal, &LockName) -> Result<Allowed<To>, Denied>,
        now: Timestamp,
    ) -> Option<(LockName, Allowed<To>)> {
        if self.is_deaf(connection) {
            return None;
        }
        let name = match parse::lock_name(name) {
            Ok(name) => name,
            Err(rejection) => {
                self.refuse_asked(connection, RequestId::new(query_id), &rejection);
                return None;
            }
        };
        if let Some(allowed) = self.anything() {
            return Some((name, allowed));
        }
        match may(self.connections.guest(connection)?.principal(), &name) {
            Ok(allowed) => Some((name, allowed)),
            Err(denied) => {
                self.deny_asked(connection, RequestId::new(query_id), &denied, now);
                None
            }
        }
    }

    /// Whether a connection may take a lock away, and with it all that was granted together; if not, it was
    /// told so, and not of which other lock.
    pub(super) fn may_break(
        &mut self,
        connection: ConnectionId,
        query_id: u64,
        (name, token): (&str, FencingToken),
        now: Timestamp,
    ) -> Option<(LockName, Allowed<to::Break>)> {
        let asked = (query_id, name);
        let (name, allowed) = self.may_with(connection, asked, Principal::may_break, now)?;
        if self.rights.access.is_open() {
            return Some((name, allowed));
        }
        let principal = self.connections.guest(connection)?.principal();
        let mut others = self.table.granted_together(&name, token);
        let denied = others.find_map(|other| principal.may_break(other).err());
        drop(others);
        match denied {
            None => Some((name, allowed)),
            Some(denied) => {
                let denied = Denied { lock: Some(name), ..denied };
                self.deny_asked(connection, RequestId::new(query_id), &denied, now);
                None
            }
        }
    }

    /// Whether a connection may look at all; if not, it was told so.
    pub(super) fn may_look(
        &mut self,
        connection: ConnectionId,
        query_id: u64,
        now: Timestamp,
    ) -> Option<Allowed<to::Look>> {
        if self.is_deaf(connection) {
            return None;
        }
        if let Some(allowed) = self.anything() {
            return Some(allowed);
        }
        match self.connections.guest(connection)?.principal().may_look() {
            Ok(allowed) => Some(allowed),
            Err(denied) => {
                self.deny_asked(connection, RequestId::new(query_id), &denied, now);
                None
            }
        }
    }

    /// Tells whoever asks what they may do with a lock. Nobody is denied anything by that, so no log has it.
    pub(super) fn tell_rights(&mut self, connection: ConnectionId, query_id: u64, name: &str) {
        if self.is_deaf(connection) {
            return;
        }
        let name = match parse::lock_name(name) {
            Ok(name) => name,
            Err(rejection) => {
                return self.refuse_asked(connection, RequestId::new(query_id), &rejection);
            }
        };
        let is_open = self.rights.access.is_open();
        let rules = self.connections.guest(connection).map(|guest| &guest.principal().rules);
        let may = |verb: &Verb| is_open || rules.is_some_and(|it| it.may(*verb, &name).is_some());
        let verbs = [Verb::Lock, Verb::Share, Verb::See, Verb::Break].into_iter().filter(may);
        let verbs = verbs.map(|verb| verb.as_str().to_owned()).collect();
        self.connections.tell(connection, &ServerMessage::Rights { query_id, verbs });
    }

    /// Tells a client that it may not.
    fn deny(&mut self, connection: ConnectionId, request: RequestId, denied: &Denied) {
        self.told.reject(RejectionCode::Forbidden);
        self.note_denial(Some(connection), None, denied);
        self.connections.tell(connection, &render::denied(request, denied));
    }

    /// Counts that somebody may not, and tells the logs: the session matters where there is no connection.
    fn note_denial(
        &mut self,
        connection: Option<ConnectionId>,
        session: Option<SessionId>,
        denied: &Denied,
    ) {
        self.counters.denied(denied.verb);
        self.audit_denial(connection, session, denied);
        let peer = connection.and_then(|connection| self.connections.peer(connection));
        if self.counters.chatter.admits(Topic::Denial, peer) {
            log_lines::denied(connection, peer, denied);
        }
    }
}
