//! What a client believes, and until when: a state machine without a clock, a socket or a runtime.
//!
//! Commands of the application, messages of the server and the passing of time go in; messages to
//! send and [`Effect`]s come out. The driver carries both and decides nothing. The core outlives
//! the connection it speaks over: a connection that ended is only one more input, so that a later
//! version can go on with the same requests over a new one.
//!
//! The rules it keeps:
//!
//! - a hold is believed in only while the lease is, counted from when the last answered keep-alive
//!   was *sent* (T2); what was lost once is never held again, whatever arrives later (C1);
//! - belief ends when a release, a cancel or a goodbye is sent, not when it is answered (R8);
//! - a grant that crosses a cancel is never shown to anybody (R2);
//! - a keep-alive without an answer is followed by the next, and is no loss by itself (C3);
//! - every answer belongs to something that was asked; a server that breaks this is not believed.

mod effect;
mod receive;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::types::{FencingToken, GoodbyeCode, LostReason, RequestId, Timestamp, Ttl};
use crate::wire::{Attach, ClientMessage, PROTOCOL};

use super::lease::Lease;

pub(super) use effect::{Ask, Effect, End, Introduction, Refusal, Rejection, Welcome};
pub(super) use receive::message_name;

/// So many keep-alives are sent in one ttl (rule S5).
const KEEP_ALIVES_PER_TTL: u32 = 4;
/// Keep-alives whose answers are waited for; of more, the oldest is forgotten.
const KEEP_ALIVES_UNANSWERED_MAX: usize = 16;
/// After so many ttls without a word from the server the connection is given up. More than one, so
/// that a server which only stalled finds its waiters in their places (rule T3).
const SILENCE_TTLS_MAX: u32 = 2;

/// Where the connection stands.
#[derive(Debug)]
enum Phase {
    /// Hello was sent, Welcome has not come. Requests may be sent already.
    Greeting {
        /// When Hello was sent: the lease is counted from here.
        hello_sent: Timestamp,
    },
    /// Welcome has come.
    Open(Session),
    /// Nothing comes or goes any more.
    Ended(End),
}

/// An open session.
#[derive(Debug)]
struct Session {
    /// Until when it is believed in.
    lease: Lease,
    /// When the next keep-alive is to be sent.
    keep_alive_due: Timestamp,
    /// The sequence of the latest keep-alive.
    sequence: u64,
    /// Keep-alives without an answer, and when each was sent; the oldest first.
    unanswered: VecDeque<(u64, Timestamp)>,
    /// When the server was last heard.
    heard: Timestamp,
    /// Whether the end of the lease was told to all holders. Until the next answer there is
    /// nothing more to tell.
    lapsed: bool,
}

impl Session {
    /// When the server has been silent for too long.
    fn given_up_at(&self) -> Timestamp {
        self.heard.after(self.silence_max())
    }

    /// The silence that is put up with.
    fn silence_max(&self) -> Duration {
        self.lease.ttl().length() * SILENCE_TTLS_MAX
    }
}

/// Where a request stands. One that is over is not kept.
#[derive(Clone, Debug)]
enum Request {
    /// Sent, and neither granted nor refused.
    Waiting,
    /// Granted while the lease was not believed in: held only once the server confirms the lease.
    Unconfirmed(FencingToken),
    /// Granted, told to its owner and, while the lease is believed in, held.
    Held(FencingToken),
    /// Release was sent. Not held any more.
    Releasing {
        /// The token that was released.
        token: FencingToken,
        /// Whether the application asked, and so waits for the answer.
        asked: bool,
        /// Why it was lost before the release got there, if it was.
        lost: Option<LostReason>,
    },
    /// Cancel was sent. Whatever comes but `Cancelled` has crossed it and means nothing.
    Cancelling,
}

/// The state machine.
#[derive(Debug)]
pub(super) struct Core {
    /// Where the connection stands.
    phase: Phase,
    /// All requests that are not over. Ordered, so that what happens to all happens in order.
    requests: BTreeMap<u64, Request>,
    /// The id of the next request: each greater than all before (rule R1).
    request_next: u64,
    /// What is to be sent, in this order.
    messages: Vec<ClientMessage>,
    /// What is to be told, in this order.
    effects: Vec<Effect>,
}

impl Core {
    /// A client that says Hello at `now`.
    pub(super) fn new(introduction: Introduction, now: Timestamp) -> Self {
        let hello = ClientMessage::Hello {
            protocol: PROTOCOL,
            attach: Attach::New,
            ttl_ms: introduction.ttl.map_or(0, Ttl::as_millis),
            linger_ms: introduction.linger_ms,
            identity: introduction.identity,
            epoch_seen: 0,
            token_seen: 0,
        };
        Self {
            phase: Phase::Greeting { hello_sent: now },
            requests: BTreeMap::new(),
            request_next: 1,
            messages: vec![hello],
            effects: Vec::new(),
        }
    }

    /// Takes what is to be sent, oldest first.
    pub(super) fn drain_messages(&mut self) -> std::vec::Drain<'_, ClientMessage> {
        self.messages.drain(..)
    }

    /// The next thing to be told, oldest first.
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Why the session is over, if it is.
    pub(super) fn end(&self) -> Option<&End> {
        match &self.phase {
            Phase::Ended(end) => Some(end),
            Phase::Greeting { .. } | Phase::Open(_) => None,
        }
    }

    /// The lease, while there is one.
    pub(super) fn lease(&self) -> Option<&Lease> {
        match &self.phase {
            Phase::Open(session) => Some(&session.lease),
            Phase::Greeting { .. } | Phase::Ended(_) => None,
        }
    }

    /// When [`Core::tick`] has something to do, if nothing happens before.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let Phase::Open(session) = &self.phase else { return None };
        let mut next = session.keep_alive_due.min(session.given_up_at());
        if !session.lapsed {
            next = next.min(session.lease.believed_until());
        }
        Some(next)
    }

    /// Lets time pass: ends belief that has run out, keeps the session alive.
    pub(super) fn tick(&mut self, now: Timestamp) {
        self.lapse_if_due(now);
        let Phase::Open(session) = &mut self.phase else { return };
        if now >= session.given_up_at() {
            let silence = session.silence_max();
            self.messages.push(ClientMessage::Goodbye);
            return self.finish(End::Silent(silence));
        }
        if now >= session.keep_alive_due {
            session.sequence += 1;
            session.keep_alive_due = now.after(session.lease.ttl().length() / KEEP_ALIVES_PER_TTL);
            if session.unanswered.len() == KEEP_ALIVES_UNANSWERED_MAX {
                session.unanswered.pop_front();
            }
            session.unanswered.push_back((session.sequence, now));
            self.messages.push(ClientMessage::KeepAlive { sequence: session.sequence });
        }
    }

    /// The application asks for locks.
    pub(super) fn request(&mut self, ask: Ask) -> RequestId {
        let request = self.request_next;
        self.request_next += 1;
        let id = RequestId::new(request);
        if self.end().is_some() {
            self.effects.push(Effect::Refused { request: id, refusal: Refusal::Ended });
            return id;
        }
        self.requests.insert(request, Request::Waiting);
        let Ask { wait, progress, lock_delay_ms, note, claims } = ask;
        self.messages.push(ClientMessage::Request {
            request,
            owner: 0,
            wait,
            progress,
            lock_delay_ms,
            note,
            claims,
        });
        id
    }

    /// The application gives back what a request holds. Always answered by [`Effect::Released`].
    pub(super) fn release(&mut self, request: RequestId, now: Timestamp) {
        self.lapse_if_due(now);
        let outcome = match self.requests.get_mut(&request.number()) {
            Some(state @ &mut (Request::Held(token) | Request::Unconfirmed(token))) => {
                *state = Request::Releasing { token, asked: true, lost: None };
                let (request, token) = (request.number(), token.number());
                self.messages.push(ClientMessage::Release { request, token });
                return;
            }
            Some(Request::Releasing { asked: true, .. }) => return,
            Some(Request::Releasing { lost, .. }) => match *lost {
                Some(reason) => Err(Refusal::Lost(reason)),
                None => Ok(()),
            },
            Some(Request::Waiting | Request::Cancelling) | None => Err(match self.end() {
                Some(_) => Refusal::Ended,
                None => Refusal::Lost(LostReason::Expired),
            }),
        };
        self.effects.push(Effect::Released { request, outcome });
    }

    /// The application gives a request up, whether it waits or was granted meanwhile. There is
    /// nothing to tell afterwards.
    pub(super) fn cancel(&mut self, request: RequestId) {
        match self.requests.get_mut(&request.number()) {
            Some(state @ (Request::Waiting | Request::Unconfirmed(_) | Request::Held(_))) => {
                *state = Request::Cancelling;
                self.messages.push(ClientMessage::Cancel { request: request.number() });
            }
            Some(Request::Releasing { .. } | Request::Cancelling) | None => {}
        }
    }

    /// The application is done: everything is freed at once, and nothing is believed any more.
    pub(super) fn goodbye(&mut self) {
        if self.end().is_none() {
            self.messages.push(ClientMessage::Goodbye);
            self.finish(End::Closed);
        }
    }

    /// The connection ended without a goodbye.
    pub(super) fn connection_lost(&mut self) {
        self.finish(End::Disconnected);
    }

    /// What the server sent is not of this protocol.
    pub(super) fn protocol_broken(&mut self, how: impl Into<String>) {
        if self.end().is_none() {
            // The server may well understand us, and then the locks need not wait for the lease.
            self.messages.push(ClientMessage::Goodbye);
            self.finish(End::Broken(how.into()));
        }
    }

    /// Ends every hold if the lease is not believed in any more. First thing wherever time is told:
    /// a message that comes too late must not find anything to prolong.
    fn lapse_if_due(&mut self, now: Timestamp) {
        let Phase::Open(session) = &mut self.phase else { return };
        if session.lapsed || now < session.lease.believed_until() {
            return;
        }
        session.lapsed = true;
        let reason = LostReason::Expired;
        for (&request, state) in &mut self.requests {
            if let Request::Held(token) = *state {
                *state = Request::Releasing { token, asked: false, lost: Some(reason) };
                self.effects.push(Effect::Lost { request: RequestId::new(request), reason });
                // If the server still keeps the session, the lock must not stay with nobody.
                self.messages.push(ClientMessage::Release { request, token: token.number() });
            }
        }
    }

    /// Ends the session: every hold is lost, whoever waits is told.
    fn finish(&mut self, end: End) {
        if self.end().is_some() {
            return;
        }
        let reason = lost_reason(&end);
        self.phase = Phase::Ended(end);
        for (request, state) in std::mem::take(&mut self.requests) {
            let request = RequestId::new(request);
            match state {
                Request::Waiting | Request::Unconfirmed(_) => {
                    self.effects.push(Effect::Refused { request, refusal: Refusal::Ended });
                }
                Request::Held(_) => self.effects.push(Effect::Lost { request, reason }),
                Request::Releasing { asked: true, lost, .. } => {
                    let refusal = lost.map_or(Refusal::Ended, Refusal::Lost);
                    self.effects.push(Effect::Released { request, outcome: Err(refusal) });
                }
                Request::Releasing { asked: false, .. } | Request::Cancelling => {}
            }
        }
    }
}

/// Why holds are lost when the session ends like this.
fn lost_reason(end: &End) -> LostReason {
    match end {
        End::Dismissed { code: GoodbyeCode::SessionExpired, .. } | End::Silent(_) => {
            LostReason::Expired
        }
        End::Dismissed { code: GoodbyeCode::Draining, .. } => LostReason::Stopped,
        End::Dismissed { .. } | End::Closed | End::Disconnected | End::Broken(_) => {
            LostReason::Disconnected
        }
    }
}

#[cfg(test)]
mod races;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
