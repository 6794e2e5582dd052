//! Rights of connections of another dialect: they prove who they are by a command, and are answered *no* in
//! words of theirs.

use super::super::usage::Seat;
use super::{Denied, Desk, Full, Guest};
use crate::access::{Badge, Unproven};
use crate::redis::{Deed, Refusal, Reply};
use crate::types::{Claim, ConnectionId, LockName, Mode, RejectionCode, Timestamp};

impl Desk {
    /// Whether a connection has proven who it is, or nobody is asked.
    pub(in crate::server::desk) fn is_somebody(&self, connection: ConnectionId) -> bool {
        self.rights.access.is_open() || self.connections.guest(connection).is_some()
    }

    /// A connection begins, and has shown a certificate or nothing. If that proves somebody, it is known.
    /// Nothing is told: it may yet show something else.
    ///
    /// # Errors
    ///
    /// What it is answered for as long as it shows nothing else: its principal has as many connections as it may.
    pub(in crate::server::desk) fn introduce(
        &mut self,
        connection: ConnectionId,
    ) -> Result<(), Reply> {
        if self.is_somebody(connection) {
            return Ok(());
        }
        let proof = self.connections.take_proof(connection).map(|proof| *proof);
        let badge = Badge::of(&self.rights.access, proof.unwrap_or_default());
        let Some(badge) = badge.ok().filter(|badge| badge.principal().may_look().is_ok()) else {
            return Ok(());
        };
        let seat = self.rights.usages.sit(badge.principal());
        let seat = seat.map_err(|full| self.keep_out(connection, &badge, full))?;
        self.take_seat(connection, badge, seat);
        Ok(())
    }

    /// What is answered to one connection too many of a principal. The audit log has it.
    fn keep_out(&self, connection: ConnectionId, badge: &Badge, Full { max }: Full) -> Reply {
        let why = format!("{} has {max} connections, its limit", badge.principal().name);
        self.audit_full(connection, badge, &why);
        Reply::error(format!("ERR max number of clients reached: {why}"))
    }

    /// A connection has shown what is to prove who it is.
    ///
    /// # Errors
    ///
    /// What it is answered as the last if it may not come in. None if that proves nothing: then it was told
    /// so, or will be, for whoever tries again and again hears later.
    pub(in crate::server::desk) fn enter_redis(
        &mut self,
        connection: ConnectionId,
        user: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Option<Reply>> {
        if self.rights.access.is_open() {
            return Ok(());
        }
        let proof = self.connections.take_proof(connection).map(|proof| *proof);
        let badge = match Badge::of(&self.rights.access, proof.unwrap_or_default()) {
            Ok(badge) => badge,
            Err(unproven) => {
                self.refuse_sign_in(connection, unproven, now);
                return Err(None);
            }
        };
        if user.is_some_and(|user| user != badge.principal().name.as_str()) {
            self.refuse_sign_in(connection, Unproven::Nobody, now);
            return Err(None);
        }
        self.seat(connection, badge).map_err(Some)
    }

    /// Gives somebody who is proven a place among the connections of its principal, if that may do anything.
    fn seat(&mut self, connection: ConnectionId, badge: Badge) -> Result<(), Reply> {
        if let Err(denied) = badge.principal().may_look() {
            self.told.reject(RejectionCode::Forbidden);
            self.note_denial(Some(connection), None, &denied);
            return Err(no_permission(&denied));
        }
        let before = self.connections.guest(connection);
        let seat = if before.is_some_and(|guest| guest.principal().name == badge.principal().name) {
            // It has one already, which is given back.
            Ok(self.rights.usages.stand(badge.principal()))
        } else {
            self.rights.usages.sit(badge.principal())
        };
        let seat = seat.map_err(|full| self.keep_out(connection, &badge, full))?;
        self.take_seat(connection, badge, seat);
        Ok(())
    }

    fn take_seat(&mut self, connection: ConnectionId, badge: Badge, seat: Seat) {
        self.told.authenticate(badge.method());
        self.audit_parting(connection, "signed in anew");
        self.connections.receive_guest(connection, Box::new(Guest { badge, seat }));
        self.connections.welcome_other(connection);
        self.audit_entry(connection);
    }

    /// Whether a connection may ask for what counts as a request.
    ///
    /// # Errors
    ///
    /// What it is answered if it asks too often.
    pub(in crate::server::desk) fn may_ask(
        &mut self,
        connection: ConnectionId,
        deed: &Deed,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if self.rights.access.is_open() || !deed.is_request() {
            return Ok(());
        }
        let guest = self.connections.guest(connection);
        if guest.is_none_or(|guest| guest.seat.may_request(guest.principal(), now)) {
            return Ok(());
        }
        self.told.reject(RejectionCode::SlowDown);
        self.told.slowed_down += 1;
        Err(Refusal("COORDINATOR too many requests a second, retry later".into()))
    }

    /// Whether a connection may take a lock.
    ///
    /// # Errors
    ///
    /// What it is answered if it may not.
    pub(in crate::server::desk) fn may_take(
        &mut self,
        connection: ConnectionId,
        claim: &Claim,
    ) -> Result<(), Refusal> {
        if self.rights.access.is_open() {
            return Ok(());
        }
        let nobody = || Refusal("NOAUTH Authentication required.".into());
        let guest = self.connections.guest_mut(connection).ok_or_else(nobody)?;
        if let Err(denied) = guest.badge.may_lock(std::slice::from_ref(claim)) {
            self.told.reject(RejectionCode::Forbidden);
            self.note_denial(Some(connection), None, &denied);
            return Err(refused(&denied));
        }
        let guest = self.connections.guest(connection).ok_or_else(nobody)?;
        if let Err(Full { max }) = self.rights.usages.may_open(guest.badge.principal()) {
            self.told.reject(RejectionCode::TooManySessions);
            let name = &guest.badge.principal().name;
            let why = format!("COORDINATOR {max} sessions of {name} are alive, its limit");
            return Err(Refusal(why.into()));
        }
        Ok(())
    }

    /// Whether a connection may look at a lock: it may, if it may lock or see it. Says whether it may see who
    /// holds it.
    ///
    /// # Errors
    ///
    /// What it is answered if it may not.
    pub(in crate::server::desk) fn may_look_at(
        &mut self,
        connection: ConnectionId,
        key: &LockName,
    ) -> Result<bool, Refusal> {
        if self.rights.access.is_open() {
            return Ok(true);
        }
        let Some(guest) = self.connections.guest(connection) else {
            return Err(Refusal("NOAUTH Authentication required.".into()));
        };
        match guest.principal().may_see(key) {
            Ok(_) => Ok(true),
            Err(_) if guest.principal().denies(key, Mode::Exclusive).is_none() => Ok(false),
            Err(denied) => {
                self.told.reject(RejectionCode::Forbidden);
                self.note_denial(Some(connection), None, &denied);
                Err(refused(&denied))
            }
        }
    }

    /// Whether a connection may change or end what is held; `is_own`: by itself. What is another's takes the
    /// right to take locks away.
    ///
    /// # Errors
    ///
    /// What it is answered if it may not.
    pub(in crate::server::desk) fn may_change(
        &mut self,
        connection: ConnectionId,
        key: &LockName,
        is_own: bool,
    ) -> Result<(), Refusal> {
        if self.rights.access.is_open() || is_own {
            return Ok(());
        }
        let Some(guest) = self.connections.guest(connection) else {
            return Err(Refusal("NOAUTH Authentication required.".into()));
        };
        match guest.principal().may_break(key) {
            Ok(_) => Ok(()),
            Err(denied) => {
                self.told.reject(RejectionCode::Forbidden);
                self.note_denial(Some(connection), None, &denied);
                Err(refused(&denied))
            }
        }
    }
}

/// What is answered to who may not.
pub(in crate::server::desk) fn no_permission(denied: &Denied) -> Reply {
    Reply::error(format!("NOPERM {denied}"))
}

fn refused(denied: &Denied) -> Refusal {
    Refusal(format!("NOPERM {denied}").into())
}
