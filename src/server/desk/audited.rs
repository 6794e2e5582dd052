//! What the desk tells the audit log. An entry that follows from a decision waits with the lines of the log until
//! that is certain.

use super::Desk;
use super::connections::Role;
use crate::access::{Badge, Denied, Unproven};
use crate::engine::{EndReason, Rejection};
use crate::server::audit::Entry;
use crate::server::chatter::Topic;
use crate::types::{ConnectionId, FencingToken, Identity, LockName, SessionId, Standing};

impl Desk {
    /// An entry about a connection, with all that is known of that.
    fn entry(&self, connection: ConnectionId, event: &'static str) -> Entry {
        let guest = self.connections.guest(connection);
        let (session, identity) = match self.connections.role(connection) {
            Some(Role::Session { id, identity }) => (Some(*id), Some(identity)),
            Some(Role::Unknown | Role::Observer | Role::Gone) | None => {
                (None, self.connections.observer_identity(connection))
            }
        };
        Entry {
            at: Some((self.wall)()),
            event,
            principal: guest.map(|guest| guest.principal().name.to_string()),
            method: guest.map(|guest| guest.badge.method().as_str()),
            identity: identity.map(ToString::to_string),
            peer: self.connections.peer(connection).map(|peer| peer.to_string()),
            connection: Some(connection.number()),
            session: session.map(|session| session.to_string()),
            ..Entry::default()
        }
    }

    /// An entry about a session, with all that is known of its connection, if it has one.
    fn entry_of(
        &self,
        connection: Option<ConnectionId>,
        session: Option<SessionId>,
        event: &'static str,
    ) -> Entry {
        match (connection, session) {
            (Some(connection), _) => self.entry(connection, event),
            (None, session) => {
                let owner = session.and_then(|session| self.rights.owner(session));
                Entry {
                    at: Some((self.wall)()),
                    event,
                    principal: owner.map(ToString::to_string),
                    session: session.map(|session| session.to_string()),
                    ..Entry::default()
                }
            }
        }
    }

    /// A connection was refused: nothing proves who it is.
    pub(super) fn audit_unproven(&self, connection: ConnectionId, unproven: Unproven) {
        if self.audits(Topic::AuditedRefusal, Some(connection)) {
            let (result, reason) = (Some("refused"), Some(unproven.to_string()));
            let entry = self.entry(connection, "sign_in");
            self.audit.tell_of_strangers(Entry { result, reason, ..entry });
        }
    }

    /// A connection was refused: its principal has as much as it may.
    pub(super) fn audit_full(&self, connection: ConnectionId, badge: &Badge, why: &str) {
        if self.audits(Topic::AuditedRefusal, Some(connection)) {
            self.audit.tell_of_strangers(Entry {
                result: Some("refused"),
                principal: Some(badge.principal().name.to_string()),
                method: Some(badge.method().as_str()),
                reason: Some(why.to_owned()),
                ..self.entry(connection, "sign_in")
            });
        }
    }

    /// Whether an entry is written that strangers can cause as often as they like. The rest is counted.
    fn audits(&self, topic: Topic, connection: Option<ConnectionId>) -> bool {
        let peer = connection.and_then(|connection| self.connections.peer(connection));
        self.audit.admits(topic, peer)
    }

    /// Somebody was told that it may not.
    pub(super) fn audit_denial(
        &self,
        connection: Option<ConnectionId>,
        session: Option<SessionId>,
        denied: &Denied,
    ) {
        if self.audits(Topic::AuditedDenial, connection) {
            let entry = self.entry_of(connection, session, "request");
            self.audit.tell_of_strangers(Entry {
                result: Some("denied"),
                principal: Some(denied.principal.to_string()),
                verb: Some(denied.verb.as_str()),
                lock: denied.lock.as_ref().map(ToString::to_string),
                ..entry
            });
        }
    }

    /// A connection has its session.
    pub(super) fn audit_welcome(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        standing: Standing,
    ) {
        if self.audit.is_on() {
            let result = Some(match standing {
                Standing::Opened => "opened",
                Standing::Resumed => "resumed",
                Standing::Reopened { .. } => "reopened",
            });
            let session = Some(session.to_string());
            let entry = Entry { result, session, ..self.entry(connection, "session") };
            self.turn.lines.audit(&self.audit, entry);
        }
    }

    /// A connection of another dialect, which has no session, is let in.
    #[cfg(feature = "redis-api")]
    pub(super) fn audit_entry(&mut self, connection: ConnectionId) {
        if self.audit.is_on() {
            let said = self.said_identity(connection);
            self.connections.name_observer(connection, said);
            let entry = Entry { result: Some("opened"), ..self.entry(connection, "session") };
            self.turn.lines.audit(&self.audit, entry);
        }
    }

    /// If it was let in: it is over, or somebody else's from now on. That is told once.
    #[cfg(feature = "redis-api")]
    pub(super) fn audit_parting(&mut self, connection: ConnectionId, why: &str) {
        let is_in = self.connections.observer_identity(connection).is_some();
        if self.audit.is_on() && is_in && self.connections.is_other(connection) {
            let (result, reason) = (Some("ended"), Some(why.to_owned()));
            let entry = Entry { result, reason, ..self.entry(connection, "session") };
            self.turn.lines.audit(&self.audit, entry);
            self.connections.unname_observer(connection);
        }
    }

    /// A session is over.
    pub(super) fn audit_end(
        &mut self,
        connection: Option<ConnectionId>,
        session: SessionId,
        reason: EndReason,
    ) {
        if self.audit.is_on() {
            let entry = self.entry_of(connection, Some(session), "session");
            let result = Some("ended");
            let reason = Some(
                match reason {
                    EndReason::Goodbye => "goodbye",
                    EndReason::Expired => "expired",
                    EndReason::Disconnected => "disconnected",
                    EndReason::Displaced => "displaced",
                }
                .to_owned(),
            );
            let session = Some(session.to_string());
            let entry = Entry { result, session, reason, ..entry };
            self.turn.lines.audit(&self.audit, entry);
        }
    }

    /// A lock was taken away.
    pub(super) fn audit_revoked(
        &mut self,
        connection: ConnectionId,
        (lock, others): (&LockName, &[LockName]),
        token: FencingToken,
        victim: (SessionId, &Identity),
        reason: Option<String>,
    ) {
        if self.audit.is_on() {
            let entry = Entry {
                result: Some("ok"),
                lock: Some(lock.to_string()),
                others: others.iter().map(ToString::to_string).collect(),
                token: Some(token.number()),
                victim: Some(victim.1.to_string()),
                victim_session: Some(victim.0.to_string()),
                reason,
                ..self.entry(connection, "revoke")
            };
            self.turn.lines.audit(&self.audit, entry);
        }
    }

    /// One was not.
    pub(super) fn audit_not_revoked(
        &mut self,
        connection: ConnectionId,
        rejection: &Rejection,
        reason: Option<String>,
    ) {
        if self.audit.is_on() {
            let (lock, token) = match rejection {
                Rejection::NoSuchGrant { lock, token } => {
                    (Some(lock.to_string()), Some(token.number()))
                }
                _ => (None, None),
            };
            let result = Some(rejection.code().name());
            let entry = Entry { result, lock, token, reason, ..self.entry(connection, "revoke") };
            self.turn.lines.audit(&self.audit, entry);
        }
    }
}
