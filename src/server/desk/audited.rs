//! What the desk tells the audit log. An entry that follows from a decision waits with the lines of the log until
//! that is certain.

use super::Desk;
use super::connections::Role;
use crate::access::{Denied, Unproven};
use crate::engine::{EndReason, Rejection};
use crate::server::audit::Entry;
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

    /// A connection was refused: nothing proves who it is.
    pub(super) fn audit_unproven(&self, connection: ConnectionId, unproven: Unproven) {
        if self.audit.is_on() {
            let (result, reason) = (Some("refused"), Some(unproven.to_string()));
            let entry = self.entry(connection, "sign_in");
            self.audit.tell(Entry { result, reason, ..entry });
        }
    }

    /// Somebody was told that it may not.
    pub(super) fn audit_denial(&self, connection: ConnectionId, denied: &Denied) {
        if self.audit.is_on() {
            let entry = self.entry(connection, "request");
            self.audit.tell(Entry {
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

    /// A session is over.
    pub(super) fn audit_end(
        &mut self,
        connection: Option<ConnectionId>,
        session: SessionId,
        reason: EndReason,
    ) {
        if self.audit.is_on() {
            let about = |connection| self.entry(connection, "session");
            let event = "session";
            let entry = connection.map_or(Entry { event, ..Entry::default() }, about);
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
            let at = Some((self.wall)());
            let entry = Entry { at, result, session, reason, ..entry };
            self.turn.lines.audit(&self.audit, entry);
        }
    }

    /// A lock was taken away.
    pub(super) fn audit_revoked(
        &mut self,
        connection: ConnectionId,
        lock: &LockName,
        token: FencingToken,
        victim: (SessionId, &Identity),
        reason: Option<String>,
    ) {
        if self.audit.is_on() {
            let entry = Entry {
                result: Some("ok"),
                lock: Some(lock.to_string()),
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
