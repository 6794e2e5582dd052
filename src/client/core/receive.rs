//! What each message of the server means to the core.
//!
//! Every answer is matched with what was asked. A message that fits nothing is an error of the
//! server's, and after one of those nothing it says is believed.

use std::collections::VecDeque;
use std::time::Duration;

use crate::types::{Epoch, FencingToken, GoodbyeCode, LostReason, RejectionCode};
use crate::types::{RequestId, SessionId, Timestamp, Ttl};
use crate::wire::{PROTOCOL, ServerMessage};

use super::{Core, Effect, End, KEEP_ALIVES_PER_TTL, Lease, Phase};
use super::{Refusal, Rejection, Request, Session, Welcome};

impl Core {
    /// Handles a message that was read before `now` was.
    pub(in crate::client) fn receive(&mut self, message: ServerMessage, now: Timestamp) {
        self.lapse_if_due(now);
        match &mut self.phase {
            Phase::Open(session) => session.heard = now,
            Phase::Greeting { .. } => return self.greet(message, now),
            Phase::Ended(_) => return,
        }
        let handled = match message {
            ServerMessage::KeptAlive { sequence } => self.kept_alive(sequence, now),
            ServerMessage::Grant { request, token } => self.granted(request, token, now),
            ServerMessage::Queued { request, position } => {
                if let Some(Request::Waiting) = self.requests.get(&request) {
                    let request = RequestId::new(request);
                    self.effects.push(Effect::Queued { request, position });
                }
                Ok(())
            }
            ServerMessage::Released { request } => self.released(request),
            ServerMessage::Cancelled { request } => self.cancelled(request),
            ServerMessage::Lost { request, token, reason } => {
                self.lost(request, FencingToken::new(token), LostReason::from_number(reason))
            }
            ServerMessage::Rejected { request, code, message, lock } => {
                let code = RejectionCode::from_number(code);
                self.rejected(request, Rejection { code, message, lock })
            }
            ServerMessage::Goodbye { code, rejection, message } => {
                self.dismissed(code, rejection, message);
                Ok(())
            }
            ServerMessage::Welcome { .. } => Err("a second Welcome".to_owned()),
            ServerMessage::ServerStatus { query_id, .. }
            | ServerMessage::LockStatus { query_id, .. }
            | ServerMessage::SessionStatus { query_id, .. }
            | ServerMessage::Revoked { query_id } => {
                Err(format!("an answer to query {query_id}, which was never asked"))
            }
        };
        if let Err(how) = handled {
            self.protocol_broken(how);
        }
    }

    /// The first message of a connection.
    fn greet(&mut self, message: ServerMessage, now: Timestamp) {
        let Phase::Greeting { hello_sent } = self.phase else { return };
        match message {
            ServerMessage::Welcome { protocol, epoch, session, ttl_ms, .. } => {
                if protocol != PROTOCOL {
                    return self.protocol_broken(format!("it speaks version {protocol}"));
                }
                let ttl = match Ttl::new(Duration::from_millis(ttl_ms.into())) {
                    Ok(ttl) => ttl,
                    Err(error) => return self.protocol_broken(error.to_string()),
                };
                self.phase = Phase::Open(Session {
                    lease: Lease::new(hello_sent, ttl),
                    keep_alive_due: hello_sent.after(ttl.length() / KEEP_ALIVES_PER_TTL),
                    sequence: 0,
                    unanswered: VecDeque::new(),
                    heard: now,
                    lapsed: false,
                });
                let (session, epoch) = (SessionId::new(session), Epoch::new(epoch));
                self.effects.push(Effect::Welcomed(Welcome { session, epoch, ttl }));
            }
            ServerMessage::Goodbye { code, rejection, message } => {
                self.dismissed(code, rejection, message);
            }
            other => self.protocol_broken(format!("{} before Welcome", message_name(&other))),
        }
    }

    fn kept_alive(&mut self, sequence: u64, now: Timestamp) -> Result<(), String> {
        let Phase::Open(session) = &mut self.phase else { return Ok(()) };
        if sequence > session.sequence {
            return Err(format!("an answer to keep-alive {sequence}, which was never sent"));
        }
        while let Some(&(sent_sequence, sent)) = session.unanswered.front() {
            if sent_sequence > sequence {
                break;
            }
            session.unanswered.pop_front();
            if sent_sequence == sequence {
                session.lease.confirm(sent);
            }
        }
        if now >= session.lease.believed_until() {
            return Ok(());
        }
        if session.lapsed {
            session.lapsed = false;
            self.confirm_grants();
        }
        Ok(())
    }

    /// The lease is good again: what was granted meanwhile is held from now on.
    fn confirm_grants(&mut self) {
        for (request, state) in &mut self.requests {
            if let Request::Unconfirmed(token) = *state {
                *state = Request::Held(token);
                let request = RequestId::new(*request);
                self.effects.push(Effect::Granted { request, token });
            }
        }
    }

    fn granted(&mut self, request: u64, token: u64, now: Timestamp) -> Result<(), String> {
        let sure = self.lease().is_some_and(|lease| now < lease.believed_until());
        let token = FencingToken::new(token);
        match self.requests.get_mut(&request) {
            Some(state @ Request::Waiting) => {
                if sure {
                    *state = Request::Held(token);
                    let request = RequestId::new(request);
                    self.effects.push(Effect::Granted { request, token });
                } else {
                    *state = Request::Unconfirmed(token);
                }
                Ok(())
            }
            Some(Request::Cancelling) => Ok(()),
            Some(
                Request::Held(known)
                | Request::Unconfirmed(known)
                | Request::Releasing { token: known, .. },
            ) if *known == token => Ok(()),
            Some(_) => Err(format!("request {request} granted twice, again with token {token}")),
            None => Err(format!("a grant to request {request}, which does not exist")),
        }
    }

    fn released(&mut self, request: u64) -> Result<(), String> {
        match self.requests.get(&request) {
            Some(&Request::Releasing { asked, lost, .. }) => {
                self.requests.remove(&request);
                if asked {
                    let outcome = lost.map_or(Ok(()), |reason| Err(Refusal::Lost(reason)));
                    let request = RequestId::new(request);
                    self.effects.push(Effect::Released { request, outcome });
                }
                Ok(())
            }
            Some(_) | None => Err(format!("request {request} released, which was not asked")),
        }
    }

    fn cancelled(&mut self, request: u64) -> Result<(), String> {
        match self.requests.get(&request) {
            Some(Request::Cancelling) => {
                self.requests.remove(&request);
                Ok(())
            }
            Some(_) | None => Err(format!("request {request} cancelled, which was not asked")),
        }
    }

    fn lost(&mut self, request: u64, lost: FencingToken, reason: LostReason) -> Result<(), String> {
        match self.requests.get_mut(&request) {
            Some(Request::Cancelling) => Ok(()),
            Some(Request::Held(token)) if *token == lost => {
                self.requests.remove(&request);
                self.effects.push(Effect::Lost { request: RequestId::new(request), reason });
                Ok(())
            }
            Some(Request::Unconfirmed(token)) if *token == lost => {
                self.requests.remove(&request);
                let (request, refusal) = (RequestId::new(request), Refusal::Lost(reason));
                self.effects.push(Effect::Refused { request, refusal });
                Ok(())
            }
            Some(Request::Releasing { token, lost: known, .. }) if *token == lost => {
                known.get_or_insert(reason);
                Ok(())
            }
            Some(_) | None => Err(format!("request {request} lost, which did not hold {lost}")),
        }
    }

    fn rejected(&mut self, request: u64, rejection: Rejection) -> Result<(), String> {
        let id = RequestId::new(request);
        match self.requests.get(&request) {
            Some(Request::Cancelling) => Ok(()),
            Some(Request::Waiting) => {
                self.requests.remove(&request);
                let refusal = Refusal::Rejected(rejection);
                self.effects.push(Effect::Refused { request: id, refusal });
                Ok(())
            }
            Some(&Request::Releasing { asked, lost, .. }) => {
                self.requests.remove(&request);
                if asked {
                    let refusal = lost.map_or(Refusal::Rejected(rejection), Refusal::Lost);
                    self.effects.push(Effect::Released { request: id, outcome: Err(refusal) });
                }
                Ok(())
            }
            Some(Request::Held(_) | Request::Unconfirmed(_)) | None => {
                Err(format!("request {request} rejected, which asked for nothing"))
            }
        }
    }

    fn dismissed(&mut self, code: u16, rejection: u16, message: String) {
        let code = GoodbyeCode::from_number(code);
        let rejection = RejectionCode::from_number(rejection);
        self.finish(End::Dismissed { code, rejection, message });
    }
}

/// A message's name, for errors.
pub(in crate::client) fn message_name(message: &ServerMessage) -> &'static str {
    match message {
        ServerMessage::Welcome { .. } => "Welcome",
        ServerMessage::Grant { .. } => "Grant",
        ServerMessage::Queued { .. } => "Queued",
        ServerMessage::Released { .. } => "Released",
        ServerMessage::Cancelled { .. } => "Cancelled",
        ServerMessage::Lost { .. } => "Lost",
        ServerMessage::Rejected { .. } => "Rejected",
        ServerMessage::KeptAlive { .. } => "KeptAlive",
        ServerMessage::Goodbye { .. } => "Goodbye",
        ServerMessage::ServerStatus { .. } => "ServerStatus",
        ServerMessage::LockStatus { .. } => "LockStatus",
        ServerMessage::SessionStatus { .. } => "SessionStatus",
        ServerMessage::Revoked { .. } => "Revoked",
    }
}
