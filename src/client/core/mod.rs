//! The client's core: a sans-io state machine that decides what a client believes, and until when.
//! It has no clock, no socket and no runtime.
//!
//! Its inputs are commands of the application, messages of the server, connections made and lost,
//! and the passing of time. Its outputs are messages to send and [`Effect`]s. The driver carries
//! all of it and decides nothing. The end of a connection is one more input. The session goes on
//! without it, and over the next one both sides come to the same view again (`resume`).
//!
//! The rules it keeps:
//!
//! - a hold is believed in only while the lease is, counted from when the last answered keep-alive
//!   was *sent* (T2); a lost hold is never held again, whatever arrives later (C1);
//! - a server that has restarted prolongs no hold before it has confirmed it (G3);
//! - belief ends when a release, a cancel or a goodbye is sent, not when it is answered (R8);
//! - a grant that crosses a cancel is never shown to anybody (R2);
//! - a hold and its conversion are held one after the other: never both, never neither;
//! - a keep-alive without an answer is followed by the next, and a connection that ended by another:
//!   neither is a loss by itself (C3);
//! - a connection that does not answer is not given up for one that may not either: both are there
//!   until the second is welcome (`second`);
//! - a server that names another one as the leader is left for that one, a few times in a row, and a
//!   leader that was deposed is not believed (C5, `leader`);
//! - every answer belongs to a question; a server that breaks this is not believed.

mod connection;
mod convert;
mod effect;
mod lapse;
mod leader;
mod looks;
mod receive;
mod request;
mod resume;
mod second;
#[cfg(test)]
mod trace;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::types::{
    Epoch, FencingToken, GoodbyeCode, LostReason, RequestId, Timestamp, Ttl, lease,
};
use crate::wire::ClientMessage;

use super::lease::{Lease, Patience};
use connection::{Away, Backoff, Greeting, KEEP_ALIVES_UNANSWERED_MAX, Phase};
use leader::Leader;
use looks::Looks;
use request::{Grant, Request, State};
use resume::Session;

pub(crate) use effect::{Ask, Effect, End, Introduction, Reconnect, Refusal, Rejection, Welcome};
pub(crate) use looks::{Look, Purpose};

/// No more requests than this are kept for a server that cannot be reached: it would refuse them.
const REQUESTS_AWAY_MAX: usize = 65_536;

/// The state machine.
#[derive(Debug)]
pub(crate) struct Core {
    /// Where the connection stands.
    phase: Phase,
    /// Introduction of this client, for every Hello.
    introduction: Introduction,
    /// Purpose of the connections.
    purpose: Purpose,
    /// How to come back; none: the first connection is the only one.
    reconnect: Option<Reconnect>,
    /// When to come back.
    backoff: Backoff,
    /// Where the leader is said to be.
    leader: Leader,
    /// How long answers take.
    patience: Patience,
    /// Counts the connections that were wanted, so that each is told from the one before.
    connections: u64,
    /// Number of the one that is meant by the phase.
    current: u64,
    /// Why there is no connection, or was none the last time.
    trouble: End,
    /// Whether an attempt to connect has failed since there was a connection.
    unreachable: bool,
    /// Whether there ever was a Welcome.
    began: bool,
    /// The session, while there is one.
    session: Option<Session>,
    /// Until when it is believed in; between two sessions, that of the one before. None before the
    /// first.
    lease: Option<Lease>,
    /// Whether the end of the lease was told to all holders. Until the next answer there is
    /// nothing more to tell.
    lapsed: bool,
    /// The sequence of the latest keep-alive.
    sequence: u64,
    /// The latest epoch that was heard of (rule F3).
    epoch_seen: Epoch,
    /// The greatest token that was heard of (rule F3).
    token_seen: FencingToken,
    /// All requests that are not over. Ordered, so that what happens to all happens in order.
    requests: BTreeMap<RequestId, Request>,
    /// Those of them that would not wait for ever, by when they have waited enough.
    deadlines: BTreeSet<(Timestamp, RequestId)>,
    /// Those of them whose hold is doubted, by when that ends belief in it. Invariant: agrees with
    /// [`State::Held`].
    doubts: BTreeSet<(Timestamp, RequestId)>,
    /// Held requests that are to be converted, with the request that does it: an answer to the one
    /// can be news for the other.
    conversions: BTreeMap<RequestId, RequestId>,
    /// The id of the next request: each greater than all before (rule R1).
    request_next: RequestId,
    /// Requests below this may have been answered twice, over two connections: an answer to one that
    /// is over means nothing.
    request_repeated: RequestId,
    /// Questions besides locks.
    looks: Looks,
    /// Messages to be sent, in this order. Empty while there is no connection.
    messages: Vec<ClientMessage>,
    /// Effects to be told, in this order.
    effects: Vec<Effect>,
    /// The trace of what happened.
    #[cfg(test)]
    trace: trace::Trace,
}

impl Core {
    /// A client that says Hello at `now`, to lock.
    #[cfg(test)]
    pub(crate) fn new(
        introduction: Introduction,
        reconnect: Option<Reconnect>,
        now: Timestamp,
    ) -> Self {
        Self::begin(introduction, reconnect, Purpose::Session, now)
    }

    /// A client that says Hello at `now`, for whatever purpose.
    pub(crate) fn begin(
        introduction: Introduction,
        reconnect: Option<Reconnect>,
        purpose: Purpose,
        now: Timestamp,
    ) -> Self {
        let mut core = Self {
            phase: Phase::Greeting(Greeting { hello_sent: now, give_up_at: None }),
            introduction,
            purpose,
            reconnect,
            backoff: Backoff::new(reconnect.map_or(0, |reconnect| reconnect.seed)),
            leader: Leader::new(reconnect.as_ref()),
            patience: Patience::default(),
            connections: 0,
            current: 0,
            trouble: End::Disconnected,
            unreachable: false,
            began: false,
            session: Session::of(purpose),
            lease: None,
            lapsed: false,
            sequence: 0,
            epoch_seen: Epoch::default(),
            token_seen: FencingToken::default(),
            requests: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            doubts: BTreeSet::new(),
            conversions: BTreeMap::new(),
            request_next: RequestId(1),
            request_repeated: RequestId::default(),
            looks: Looks::default(),
            messages: Vec::new(),
            effects: Vec::new(),
            #[cfg(test)]
            trace: trace::Trace::default(),
        };
        #[cfg(test)]
        core.note_new(&core.introduction.clone(), reconnect.as_ref(), now);
        let hello = core.hello();
        core.messages.push(hello);
        core
    }

    /// Takes what is to be sent, oldest first.
    pub(crate) fn drain_messages(&mut self) -> std::vec::Drain<'_, ClientMessage> {
        #[cfg(test)]
        self.note_sent();
        self.messages.drain(..)
    }

    /// What is to be told, oldest first.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        #[cfg(test)]
        self.note_told();
        std::mem::take(&mut self.effects)
    }

    /// Why the client is at its end, if it is.
    pub(crate) fn end(&self) -> Option<&End> {
        match &self.phase {
            Phase::Ended(end) => Some(end),
            Phase::Greeting(_) | Phase::Open(_) | Phase::Away(_) => None,
        }
    }

    /// Why there is no connection.
    pub(super) fn trouble(&self) -> &End {
        self.end().unwrap_or(&self.trouble)
    }

    /// Which connection is wanted, or made, or there: another number is another connection. None: no
    /// connection is wanted now.
    pub(crate) fn connection(&self) -> Option<u64> {
        match self.phase {
            Phase::Greeting(_) | Phase::Open(_) | Phase::Away(Away::Dialing(_)) => {
                Some(self.current)
            }
            Phase::Away(Away::Pausing(_)) | Phase::Ended(_) => None,
        }
    }

    /// Whether the server can be heard.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// The lease, while there is one.
    pub(super) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Until when the lease is believed in, while there is one.
    #[cfg(all(test, feature = "server"))]
    pub(crate) fn believed_until(&self) -> Option<Timestamp> {
        self.lease.map(|lease| lease.believed_until())
    }

    /// When [`Core::tick`] has something to do, if nothing happens before.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        let connection = match &self.phase {
            Phase::Greeting(greeting) => greeting.give_up_at,
            Phase::Open(open) => Some(self.open_deadline(open)),
            Phase::Away(Away::Pausing(until) | Away::Dialing(until)) => Some(*until),
            Phase::Ended(_) => return None,
        };
        let lease = self.lease.filter(|_| !self.lapsed).map(|lease| lease.believed_until());
        let doubt = self.doubts.first().map(|(until, _)| *until);
        let is_open = self.is_open();
        let waited = self.deadlines.first().filter(|_| !is_open && self.began);
        [connection, lease, doubt, waited.map(|(at, _)| *at)].into_iter().flatten().min()
    }

    /// Lets time pass: ends belief that has run out, keeps the session alive, comes back.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        #[cfg(test)]
        self.note(format_args!("tick {}", now.as_micros()));
        self.lapse_if_due(now);
        match &mut self.phase {
            Phase::Open(_) => self.tick_open(now),
            Phase::Greeting(Greeting { give_up_at: Some(until), .. })
            | Phase::Away(Away::Dialing(until))
                if now >= *until =>
            {
                self.go_away(End::Silent(self.attempt_max()), now);
            }
            Phase::Away(Away::Pausing(until)) if now >= *until => self.dial(now),
            Phase::Greeting(_) | Phase::Away(_) | Phase::Ended(_) => {}
        }
        self.stop_waiting_if_due(now);
    }

    /// Lets time pass on a connection. It asks again for the lease, and for a second connection if
    /// that is not answered, and at last gives this one up.
    fn tick_open(&mut self, now: Timestamp) {
        self.keep_alive_if_due(now);
        self.try_second_if_due(now);
        let Phase::Open(open) = &self.phase else { return };
        if open.given_up_at().is_none_or(|at| now < at) {
            return;
        }
        let silence = open.silence_max;
        if self.can_reconnect() {
            self.go_away(End::Silent(silence), now);
        } else {
            self.messages.push(ClientMessage::Goodbye);
            self.finish(End::Silent(silence));
        }
    }

    fn keep_alive_if_due(&mut self, now: Timestamp) {
        let Phase::Open(open) = &mut self.phase else { return };
        if now < open.keep_alive_due {
            return;
        }
        let ttl = self.lease.map_or(Ttl::default(), |lease| lease.ttl()).length();
        self.sequence += 1;
        open.keep_alive_due = now.after(lease::keep_alive_every(ttl));
        if open.unanswered.len() == KEEP_ALIVES_UNANSWERED_MAX {
            open.unanswered.pop_front();
        }
        open.unanswered.push_back((self.sequence, now));
        self.messages.push(ClientMessage::KeepAlive { sequence: self.sequence });
    }

    /// The application asks for locks.
    pub(crate) fn request(&mut self, ask: impl Into<Arc<Ask>>, now: Timestamp) -> RequestId {
        let number = self.request_next;
        self.request_next = number.next();
        let request = Request::new(ask.into(), now);
        #[cfg(test)]
        self.note_message(
            format_args!("request {number} {}", now.as_micros()),
            // As it was asked for, not rounded to what is said.
            &Request { deadline: None, ..request.clone() }.message(number, now),
        );
        if let Some(refusal) = self.refuses(&request) {
            self.effects.push(Effect::Refused { request: number, refusal });
            return number;
        }
        if self.may_send() {
            self.messages.push(request.message(number, now));
        }
        match request.ask.converts {
            Some(converted) => {
                self.conversions.insert(converted, number);
            }
            None => self.deadlines.extend(request.deadline.map(|deadline| (deadline, number))),
        }
        self.requests.insert(number, request);
        number
    }

    /// Why a request is not even kept, if so.
    fn refuses(&self, request: &Request) -> Option<Refusal> {
        let full = self.requests.len() >= REQUESTS_AWAY_MAX;
        match &self.phase {
            Phase::Ended(_) => Some(Refusal::Ended),
            _ if !self.can_convert(request) => Some(Refusal::Lost(LostReason::Expired)),
            Phase::Open(_) => None,
            Phase::Greeting(_) | Phase::Away(_) => {
                (full || self.unreachable && request.is_try()).then_some(Refusal::Away)
            }
        }
    }

    /// The application gives back what a request holds. Always answered by [`Effect::Released`].
    pub(crate) fn release(&mut self, request: RequestId, now: Timestamp) {
        #[cfg(test)]
        self.note(format_args!("release {request} {}", now.as_micros()));
        self.lapse_if_due(now);
        let outcome = match self.requests.get(&request).map(|known| &known.state) {
            Some(&State::Held { grant, doubted }) => {
                return self.give_back(request, grant.token, doubted.is_some());
            }
            Some(&State::Unconfirmed(grant)) => return self.give_back(request, grant.token, false),
            Some(State::Releasing { asked: true, .. }) => return,
            Some(State::Releasing { lost, .. }) => match *lost {
                Some(reason) => Err(Refusal::Lost(reason)),
                None => Ok(()),
            },
            Some(State::Waiting | State::Cancelling) | None => Err(match self.end() {
                Some(_) => Refusal::Ended,
                None => Refusal::Lost(LostReason::Expired),
            }),
        };
        self.effects.push(Effect::Released { request, outcome });
    }

    /// Stops believing, then says so.
    fn give_back(&mut self, number: RequestId, token: FencingToken, reclaimed: bool) {
        let (asked, lost, repeated) = (true, None, false);
        self.set_state(number, State::Releasing { token, asked, lost, reclaimed, repeated });
        if self.may_send() {
            self.messages.push(ClientMessage::Release { request: number, token });
        } else if self.lapsed {
            self.refuse_releases();
        }
    }

    /// The application gives a request up, whether it waits or was granted meanwhile. There is
    /// nothing to tell afterwards.
    pub(crate) fn cancel(&mut self, request: RequestId) {
        #[cfg(test)]
        self.note(format_args!("cancel {request}"));
        self.give_up(request);
    }

    /// Gives a request up, whoever wants that.
    fn give_up(&mut self, request: RequestId) {
        let Some(known) = self.requests.get(&request) else { return };
        match known.state {
            State::Waiting | State::Unconfirmed(_) | State::Held { .. } => {}
            State::Releasing { .. } | State::Cancelling => return,
        }
        self.set_state(request, State::Cancelling);
        if self.may_send() {
            self.messages.push(ClientMessage::Cancel { request });
        } else {
            // The account that is given over the next connection does not list it.
            self.remove(request);
        }
    }

    /// The application is done: everything is freed at once, and nothing is believed any more.
    pub(crate) fn goodbye(&mut self) {
        #[cfg(test)]
        self.note(format_args!("goodbye"));
        if self.end().is_none() {
            if self.has_greeted() {
                self.messages.push(ClientMessage::Goodbye);
            }
            self.finish(End::Closed);
        }
    }

    /// What the server sent is not of this protocol.
    pub(super) fn protocol_broken(&mut self, how: impl Into<String>, now: Timestamp) {
        if self.may_go_elsewhere() {
            #[cfg(test)]
            self.note(format_args!("stranger {}", now.as_micros()));
            return self.pass_over(End::Broken(how.into()), now);
        }
        #[cfg(test)]
        self.note(format_args!("broken"));
        self.believe_no_more(how);
    }

    /// The server broke the protocol.
    fn believe_no_more(&mut self, how: impl Into<String>) {
        if self.end().is_none() {
            // The server may well understand us, and then the locks need not wait for the lease.
            self.messages.push(ClientMessage::Goodbye);
            self.finish(End::Broken(how.into()));
        }
    }

    /// Whether what is asked goes out now, and not with the repetition after the next Welcome. Only
    /// before the first Welcome of all is there nothing that must be repeated before.
    fn may_send(&self) -> bool {
        match self.phase {
            Phase::Greeting(_) => !self.began,
            Phase::Open(_) => true,
            Phase::Away(_) | Phase::Ended(_) => false,
        }
    }

    /// Whether there is a connection over which Hello was said.
    fn has_greeted(&self) -> bool {
        matches!(self.phase, Phase::Greeting(_) | Phase::Open(_))
    }

    /// A request stands elsewhere from now on.
    fn set_state(&mut self, number: RequestId, state: State) {
        let Some(request) = self.requests.get_mut(&number) else { return };
        let before = std::mem::replace(&mut request.state, state);
        if let State::Held { doubted: Some(until), .. } = before {
            self.doubts.remove(&(until, number));
        }
        if let State::Held { doubted: Some(until), .. } = request.state {
            self.doubts.insert((until, number));
        }
    }

    /// Forgets a request that is over.
    fn remove(&mut self, number: RequestId) -> Option<Request> {
        let request = self.requests.remove(&number)?;
        if let Some(deadline) = request.deadline {
            self.deadlines.remove(&(deadline, number));
        }
        if let State::Held { doubted: Some(until), .. } = request.state {
            self.doubts.remove(&(until, number));
        }
        self.forget_conversion(number, &request);
        Some(request)
    }

    /// A request is over without a grant.
    fn refuse(&mut self, number: RequestId, refusal: Refusal) {
        self.remove(number);
        self.effects.push(Effect::Refused { request: number, refusal });
    }

    /// The end: every hold is lost, whoever waits is told.
    fn finish(&mut self, end: End) {
        if self.end().is_some() {
            return;
        }
        let reason = lost_reason(&end);
        self.phase = Phase::Ended(end);
        self.lease = None;
        self.deadlines.clear();
        self.doubts.clear();
        self.conversions.clear();
        for (request, known) in std::mem::take(&mut self.requests) {
            match known.state {
                State::Waiting | State::Unconfirmed(_) => {
                    self.effects.push(Effect::Refused { request, refusal: Refusal::Ended });
                }
                State::Held { .. } => self.effects.push(Effect::Lost { request, reason }),
                State::Releasing { asked: true, lost, .. } => {
                    let refusal = lost.map_or(Refusal::Ended, Refusal::Lost);
                    self.effects.push(Effect::Released { request, outcome: Err(refusal) });
                }
                State::Releasing { asked: false, .. } | State::Cancelling => {}
            }
        }
        self.end_looks();
    }
}

/// Why holds are lost when the client ends like this.
fn lost_reason(end: &End) -> LostReason {
    match end {
        End::Dismissed { code: GoodbyeCode::SessionExpired, .. } | End::Silent(_) => {
            LostReason::Expired
        }
        End::Dismissed { code: GoodbyeCode::Draining, .. } => LostReason::Stopped,
        End::Dismissed { code: GoodbyeCode::Refused, .. } => LostReason::Refused,
        End::Dismissed { .. }
        | End::Closed
        | End::Disconnected
        | End::Deposed { .. }
        | End::Broken(_) => LostReason::Disconnected,
    }
}

#[cfg(test)]
mod convert_tests;
#[cfg(test)]
mod forgotten;
#[cfg(test)]
mod leader_tests;
#[cfg(test)]
mod races;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod restart_tests;
#[cfg(test)]
mod resume_tests;
#[cfg(test)]
mod second_tests;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
