//! The server's messages, and their meaning for the core.
//!
//! Every answer is matched with what was asked. A message that fits nothing is an error of the
//! server's, and after one of those nothing it says is believed.

use crate::types::{Cycle, FencingToken, LostReason, RejectionCode, RequestId, Timestamp};
use crate::wire::ServerMessage;

use super::connection::Phase;
use super::resume::Welcomed;
use super::{Core, Effect, End, Grant, Refusal, Rejection, State};

impl Core {
    /// Handles a message that was read before `now` was.
    pub(crate) fn receive(&mut self, message: ServerMessage, now: Timestamp) {
        #[cfg(test)]
        self.note_message(format_args!("receive {}", now.as_micros()), &message);
        self.lapse_if_due(now);
        match &mut self.phase {
            Phase::Open(open) => open.heard = now,
            Phase::Greeting(_) => return self.greet(message, now),
            // What comes over a connection that was given up.
            Phase::Away(_) | Phase::Ended(_) => return,
        }
        let handled = match message {
            ServerMessage::KeptAlive { sequence } => self.kept_alive(sequence, now),
            ServerMessage::Grant { request, token, seal } => {
                self.granted(request, Grant { token, seal, since: now }, now)
            }
            ServerMessage::Queued { request, position, ticket } => {
                if let Some(known) = self.requests.get_mut(&request)
                    && matches!(known.state, State::Waiting)
                {
                    known.ticket = Some(ticket);
                    self.effects.push(Effect::Queued { request, position });
                }
                Ok(())
            }
            ServerMessage::Released { request } => self.released(request),
            ServerMessage::Cancelled { request } => self.cancelled(request),
            ServerMessage::Lost { request, token, reason } => self.lost(request, token, reason),
            ServerMessage::Rejected { request, code, message, lock, cycle } => {
                let rejection = Rejection { code, message, lock, cycle };
                if Self::is_look(request.number()) {
                    self.look_rejected(request.number(), rejection)
                } else {
                    self.rejected(request, rejection, now)
                }
            }
            ServerMessage::Goodbye { code, rejection, message } => {
                self.dismissed(code, rejection, message, now);
                Ok(())
            }
            ServerMessage::Welcome { .. } => Err("a second Welcome".to_owned()),
            ServerMessage::Event { .. } | ServerMessage::Missed { .. } => self.overheard(&message),
            answer => match answer.query_id() {
                Some(query_id) => self.seen(query_id, answer),
                None => Err(format!("{} out of place", answer.name())),
            },
        };
        if let Err(how) = handled {
            self.believe_no_more(how);
        }
    }

    /// The first message of a connection.
    pub(super) fn greet(&mut self, message: ServerMessage, now: Timestamp) {
        let Phase::Greeting(greeting) = &self.phase else { return };
        let hello_sent = greeting.hello_sent;
        let handled = match message {
            ServerMessage::Welcome {
                protocol,
                epoch,
                session,
                secret,
                generation,
                ttl_ms,
                standing,
                ..
            } => {
                let welcome =
                    Welcomed { protocol, epoch, session, secret, generation, ttl_ms, standing };
                self.welcomed(hello_sent, &welcome, now)
            }
            ServerMessage::Goodbye { code, rejection, message } => {
                self.dismissed(code, rejection, message, now);
                Ok(())
            }
            other => Err(format!("{} before Welcome", other.name())),
        };
        match handled {
            Ok(()) => {}
            Err(how) if self.may_go_elsewhere() => self.pass_over(End::Broken(how), now),
            Err(how) => self.believe_no_more(how),
        }
    }

    fn kept_alive(&mut self, sequence: u64, now: Timestamp) -> Result<(), String> {
        let (Phase::Open(open), Some(lease)) = (&mut self.phase, &mut self.lease) else {
            return Ok(());
        };
        if sequence > self.sequence {
            return Err(format!("an answer to keep-alive {sequence}, which was never sent"));
        }
        while let Some(&(sent_sequence, sent)) = open.unanswered.front() {
            if sent_sequence > sequence {
                break;
            }
            open.unanswered.pop_front();
            if sent_sequence == sequence {
                lease.confirm(sent);
                self.patience.answered(now.since(sent));
            }
        }
        self.backoff.reward();
        open.second.take_if(|second| !second.has_greeted());
        if now >= lease.believed_until() {
            return Ok(());
        }
        if self.lapsed {
            self.lapsed = false;
            self.confirm_grants();
        }
        Ok(())
    }

    /// The lease is good again: what was granted meanwhile is held from now on.
    fn confirm_grants(&mut self) {
        for (&request, known) in &mut self.requests {
            if let State::Unconfirmed(grant) = known.state {
                known.state = State::Held { grant, doubted: None };
                let (request, token) = (request, grant.token);
                self.effects.push(Effect::Granted { request, token });
            }
        }
    }

    fn granted(&mut self, number: RequestId, grant: Grant, now: Timestamp) -> Result<(), String> {
        let sure = self.lease().is_some_and(|lease| now < lease.believed_until());
        let (request, token) = (number, grant.token);
        self.token_seen = self.token_seen.max(token);
        let Some(known) = self.requests.get(&number) else {
            return self
                .stray(number, || format!("a grant to request {number}, which does not exist"));
        };
        match known.state {
            State::Waiting if sure => {
                self.replace_converted(number);
                self.set_state(number, State::Held { grant, doubted: None });
                self.effects.push(Effect::Granted { request, token });
            }
            State::Waiting => self.set_state(number, State::Unconfirmed(grant)),
            State::Held { grant: known, doubted } if known.token == token => {
                let grant = Grant { since: known.since, ..grant };
                self.set_state(number, State::Held { grant, doubted: None });
                if doubted.is_some() {
                    self.effects.push(Effect::Confirmed { request });
                }
            }
            State::Unconfirmed(known) if known.token == token => {}
            State::Releasing { token: known, .. } if known == token => {}
            State::Cancelling => {}
            State::Held { .. } | State::Unconfirmed(_) | State::Releasing { .. } => {
                return Err(format!("request {number} granted twice, again with token {token}"));
            }
        }
        Ok(())
    }

    fn released(&mut self, number: RequestId) -> Result<(), String> {
        match self.requests.get(&number).map(|known| &known.state) {
            Some(&State::Releasing { asked, lost, .. }) => {
                self.remove(number);
                if asked {
                    let outcome = lost.map_or(Ok(()), |reason| Err(Refusal::Lost(reason)));
                    self.effects.push(Effect::Released { request: number, outcome });
                }
                Ok(())
            }
            // It is converted, and what converted it is answered next.
            Some(State::Held { doubted: Some(_), .. }) if self.is_being_converted(number) => Ok(()),
            // So it was, and both are given up.
            Some(State::Cancelling) => Ok(()),
            Some(_) | None => {
                self.stray(number, || format!("request {number} released without a release"))
            }
        }
    }

    fn cancelled(&mut self, number: RequestId) -> Result<(), String> {
        match self.requests.get(&number).map(|known| &known.state) {
            Some(State::Cancelling) => {
                self.remove(number);
                Ok(())
            }
            Some(_) | None => {
                self.stray(number, || format!("request {number} cancelled without a cancel"))
            }
        }
    }

    fn lost(
        &mut self,
        number: RequestId,
        token: FencingToken,
        reason: LostReason,
    ) -> Result<(), String> {
        let not_held = || format!("a loss of token {token}, which request {number} did not hold");
        let is_repeated = number < self.request_repeated;
        let Some(known) = self.requests.get_mut(&number) else {
            return self.stray(number, not_held);
        };
        match &mut known.state {
            State::Cancelling => {}
            State::Held { grant, .. } if grant.token == token => self.lose(number, reason),
            State::Unconfirmed(grant) if grant.token == token => {
                self.refuse(number, Refusal::Lost(reason));
            }
            // Its grant was lost with a connection, and then it was too.
            State::Waiting if is_repeated => {
                let converted = known.ask.converts;
                self.refuse(number, Refusal::Lost(reason));
                if let Some(converted) = converted {
                    self.lose_converted(converted, reason);
                }
            }
            State::Releasing { token: released, lost, .. } if *released == token => {
                lost.get_or_insert(reason);
            }
            State::Waiting
            | State::Held { .. }
            | State::Unconfirmed(_)
            | State::Releasing { .. } => return Err(not_held()),
        }
        Ok(())
    }

    fn rejected(
        &mut self,
        number: RequestId,
        rejection: Rejection,
        now: Timestamp,
    ) -> Result<(), String> {
        let unasked = || format!("a rejection of request {number}, which awaited no answer");
        let is_repeated = number < self.request_repeated;
        let Some(known) = self.requests.get_mut(&number) else {
            return self.stray(number, unasked);
        };
        let is_late = known.is_timed_out(now);
        match &mut known.state {
            State::Cancelling => {}
            State::Waiting if is_repeated && rejection.code == RejectionCode::RequestForgotten => {
                let timed_out = Rejection {
                    code: RejectionCode::TimedOut,
                    message: String::new(),
                    lock: None,
                    cycle: Cycle::default(),
                };
                let refusal =
                    if is_late { Refusal::Rejected(timed_out) } else { Refusal::Forgotten };
                self.refuse(number, refusal);
            }
            State::Waiting => self.refuse(number, Refusal::Rejected(rejection)),
            State::Held { doubted: Some(_), .. } => self.lose(number, LostReason::NotReclaimed),
            // What was to be released could not be reclaimed; the release is answered next.
            State::Releasing { reclaimed: true, lost, .. }
                if rejection.code != RejectionCode::NotHolder =>
            {
                lost.get_or_insert(LostReason::NotReclaimed);
            }
            &mut State::Releasing { asked, lost, repeated, .. } => {
                self.remove(number);
                if asked {
                    let outcome = match lost {
                        Some(reason) => Err(Refusal::Lost(reason)),
                        // The first was done, and is forgotten.
                        None if repeated => Ok(()),
                        None => Err(Refusal::Rejected(rejection)),
                    };
                    self.effects.push(Effect::Released { request: number, outcome });
                }
            }
            State::Held { doubted: None, .. } | State::Unconfirmed(_) => return Err(unasked()),
        }
        Ok(())
    }

    /// An answer to what does not wait for one: a leftover of an earlier connection, or `how` the
    /// server breaks the protocol.
    fn stray(&self, number: RequestId, how: impl FnOnce() -> String) -> Result<(), String> {
        if number < self.request_repeated && !self.requests.contains_key(&number) {
            return Ok(());
        }
        Err(how())
    }
}
