//! Session resumption: from one connection to the next.
//!
//! When a connection ends, nothing is decided: belief in the lease runs on, and new requests are
//! kept. Over the next connection, the session repeats its unanswered messages, in the old order
//! and under the old ids. They are idempotent, so nothing is done twice (rule R1). The rest depends
//! on the server's fate:
//!
//! - *it is the same run* (`Resumed`): it knows everything. An account lists what we hold and await
//!   (reconciliation). The server frees everything else of ours, which we gave up meanwhile (rule
//!   S3).
//! - *it has crashed* (`Reopened`): it knows nothing. We reclaim the holds that we still believe
//!   in. Until one is confirmed, no answer of the new run prolongs it (rule G3).
//! - *it resumed us in another run*: it stopped in order, or replayed its journal, or it crashed
//!   and an answer that said so was lost. We cannot know which. Reclaiming is right in all.
//! - *we were away too long* (`UnknownSession`): our holds are lost. We repeat the waiting requests
//!   in another session.

use std::time::Duration;

use crate::types::{
    Cycle, Epoch, Generation, GoodbyeCode, LostReason, RejectionCode, RequestId, Secret, SessionId,
    Timestamp, Ttl, lease,
};
use crate::wire::{self, Attach, ClientMessage, Held, PROTOCOL, Standing};

use super::connection::{Away, Greeting, Open, Phase};
use super::{Core, Effect, End, Lease, Purpose, Refusal, Rejection, Request, State, Welcome};

/// Ids listed in one part of an account: half of what a frame has room for.
const ACCOUNT_IDS_MAX: usize = 2_000;
/// Without a session there is no lease. The connection is looked after as if there were one of this
/// length, so a keep-alive goes out every 10 s.
const LOOK_TTL: Duration = Duration::from_secs(40);
/// So much higher is the generation after one that was called stale. That it was cannot be, but if
/// it is, a few attempts end it.
const GENERATION_LEAP: u64 = 16;

/// A session as its client knows it.
#[derive(Debug)]
pub(super) struct Session {
    /// Its id.
    id: SessionId,
    /// Secret that proves that it is ours.
    secret: Secret,
    /// The greatest number that any of its connections had. Each Hello that may have reached the
    /// server has another. So one which was delayed on the way is known by its number (rule S2).
    generation: Generation,
    /// The run of the coordinator that last welcomed it.
    epoch: Epoch,
}

impl Session {
    /// The session that there is before the first connection.
    pub(super) fn of(purpose: Purpose) -> Option<Self> {
        match purpose {
            Purpose::Session | Purpose::Look => None,
            Purpose::End { session: id, secret, generation } => {
                Some(Self { id, secret, generation, epoch: Epoch::default() })
            }
        }
    }
}

/// What a Welcome says.
pub(super) struct Welcomed {
    pub(super) protocol: u32,
    pub(super) epoch: Epoch,
    pub(super) session: SessionId,
    pub(super) secret: Secret,
    pub(super) generation: Generation,
    pub(super) ttl_ms: u32,
    pub(super) standing: Standing,
}

/// What the server knows of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Nothing: the session is new.
    Nothing,
    /// Everything.
    Everything,
    /// Everything or nothing.
    EverythingOrNothing,
    /// Nothing any more.
    NothingAnyMore,
}

impl Core {
    /// Whether a connection that ends is followed by another.
    pub(super) fn can_reconnect(&self) -> bool {
        self.reconnect.is_some() && self.began
    }

    /// The connection ended without a goodbye, or could not be made.
    pub(crate) fn connection_lost(&mut self, now: Timestamp) {
        #[cfg(test)]
        self.note(format_args!("lost {}", now.as_micros()));
        if self.end().is_some() {
            return;
        }
        if self.can_reconnect() {
            self.lapse_if_due(now);
            self.go_away(End::Disconnected, now);
        } else {
            self.finish(End::Disconnected);
        }
    }

    /// The connection that was wanted is made: says Hello.
    pub(crate) fn connected(&mut self, now: Timestamp) {
        #[cfg(test)]
        self.note(format_args!("connected {}", now.as_micros()));
        let Phase::Away(Away::Dialing(until)) = self.phase else { return };
        let hello = self.hello();
        self.messages.push(hello);
        self.phase = Phase::Greeting(Greeting { hello_sent: now, give_up_at: Some(until) });
    }

    /// The Hello of the next connection.
    pub(super) fn hello(&mut self) -> ClientMessage {
        let attach = match &mut self.session {
            None if self.purpose == Purpose::Look => Attach::Observer,
            None => Attach::New,
            Some(session) => {
                session.generation = session.generation.next();
                let Session { id, secret, generation, .. } = *session;
                Attach::Resume { session: id, secret, generation }
            }
        };
        // What the server gave is what to ask for again: its default may be another by now.
        let given = self.lease.filter(|_| self.purpose != Purpose::Look).map(|lease| lease.ttl());
        let ttl = self.introduction.ttl.or(given);
        ClientMessage::Hello(wire::Hello {
            protocol: PROTOCOL,
            attach,
            ttl_ms: ttl.map_or(0, Ttl::as_millis),
            linger_ms: self.introduction.linger_ms,
            identity: self.introduction.identity.clone(),
            epoch_seen: self.epoch_seen,
            token_seen: self.token_seen,
        })
    }

    /// There is no connection, because of `trouble`. A second one that is being made already is
    /// waited for. Otherwise the next attempt is made after a pause.
    pub(super) fn go_away(&mut self, trouble: End, now: Timestamp) {
        let has_failed = !self.is_open();
        let second = self.take_second();
        self.leave(trouble, now);
        if has_failed {
            self.unreachable = true;
            self.refuse_tries();
            self.refuse_looks();
        }
        if second.is_some_and(|second| self.go_on_with(second, now)) {
            return;
        }
        let pause = self.pause(now);
        if pause.is_zero() {
            self.dial(now);
        } else {
            self.phase = Phase::Away(Away::Pausing(now.after(pause)));
        }
    }

    /// The pause before the next attempt.
    pub(super) fn pause(&mut self, now: Timestamp) -> Duration {
        self.leader.pauses();
        self.backoff.pause(self.pause_max(now))
    }

    /// Gives up the connection, or the attempt to make one.
    pub(super) fn leave(&mut self, trouble: End, now: Timestamp) {
        let was_open = self.is_open();
        self.trouble = trouble;
        self.leader.strangers = 0;
        self.messages.clear();
        self.phase = Phase::Away(Away::Pausing(now));
        if was_open {
            self.forget_what_the_account_covers();
            self.interrupt_looks();
            self.linger_from(now);
            self.lapse_if_due(now);
        }
    }

    /// The server may have seen the end of what it takes for the session's connection.
    pub(super) fn linger_from(&mut self, now: Timestamp) {
        if let (Some(lease), Some(linger)) = (&mut self.lease, self.introduction.linger_ms) {
            lease.cut_short(now, Duration::from_millis(linger.into()));
        }
    }

    /// Wants a connection.
    pub(super) fn dial(&mut self, now: Timestamp) {
        self.connections += 1;
        self.current = self.connections;
        self.leader.attempt(self.current);
        self.phase = Phase::Away(Away::Dialing(now.after(self.attempt_max())));
    }

    /// How long an attempt may take.
    pub(super) fn attempt_max(&self) -> Duration {
        let at_most = self.reconnect.map_or(Duration::MAX, |reconnect| reconnect.attempt_max);
        let servers = self.reconnect.map_or(1, |reconnect| reconnect.servers);
        self.backoff.attempt_max(self.ttl(), at_most, servers)
    }

    /// How long a pause between two attempts may be: short, as long as nobody needs to notice that
    /// there is no connection.
    pub(super) fn pause_max(&self, now: Timestamp) -> Duration {
        let is_sure = self.lease.is_some_and(|lease| now < lease.doubtful_from());
        if is_sure { lease::pause_max(self.ttl()) } else { lease::attempt_max(self.ttl()) }
    }

    pub(super) fn ttl(&self) -> Duration {
        let ttl = self.lease.map(|lease| lease.ttl()).or(self.introduction.ttl);
        ttl.unwrap_or_default().length()
    }

    /// What was given up is over: the next account will not list it. A grant in doubt will be told
    /// again if it still is one.
    pub(super) fn forget_what_the_account_covers(&mut self) {
        let numbers: Vec<RequestId> = self.requests.keys().copied().collect();
        for number in numbers {
            let Some(request) = self.requests.get_mut(&number) else { continue };
            match request.state {
                State::Unconfirmed(_) => request.state = State::Waiting,
                State::Cancelling | State::Releasing { asked: false, .. } => {
                    self.remove(number);
                }
                State::Waiting | State::Held { .. } | State::Releasing { .. } => {}
            }
        }
    }

    /// Who would not wait for a lock does not wait for a server that cannot be reached.
    fn refuse_tries(&mut self) {
        // A conversion waits for its answer (`convert`).
        let is_try = |r: &Request| r.is_try() && r.ask.converts.is_none();
        let waits = |r: &Request| matches!(r.state, State::Waiting) && is_try(r);
        let tries: Vec<RequestId> =
            self.requests.iter().filter(|(_, r)| waits(r)).map(|(number, _)| *number).collect();
        for number in tries {
            self.refuse(number, Refusal::Away);
        }
    }

    /// The server said goodbye, or refused our Hello.
    pub(super) fn dismissed(
        &mut self,
        code: GoodbyeCode,
        rejection: RejectionCode,
        message: String,
        now: Timestamp,
    ) {
        let greets = !self.is_open();
        let hint = (code == GoodbyeCode::NotLeader).then(|| message.clone());
        let end = End::Dismissed { code, rejection, message };
        if !self.can_reconnect() {
            return self.finish(end);
        }
        match code {
            GoodbyeCode::NotLeader => self.not_the_leader(end, &hint.unwrap_or_default(), now),
            GoodbyeCode::Draining
            | GoodbyeCode::HandshakeTimeout
            | GoodbyeCode::IdleTimeout
            | GoodbyeCode::TooManyConnections
            | GoodbyeCode::SlowReader
            | GoodbyeCode::Unknown(_) => self.go_away(end, now),
            GoodbyeCode::SessionExpired => self.session_over(end, now),
            GoodbyeCode::Refused if greets => match rejection {
                RejectionCode::UnknownSession => self.session_over(end, now),
                RejectionCode::StaleGeneration => {
                    self.leap_generation();
                    self.go_away(end, now);
                }
                RejectionCode::Draining
                | RejectionCode::TooManySessions
                | RejectionCode::Unavailable
                | RejectionCode::Grace => self.go_away(end, now),
                // What we say about ourselves is wrong, and will be the next time.
                _ => self.finish(end),
            },
            GoodbyeCode::Superseded if self.superseded_itself() => self.superseded(end, now),
            GoodbyeCode::ProtocolError | GoodbyeCode::UnsupportedVersion
                if self.may_go_elsewhere() =>
            {
                self.pass_over(end, now);
            }
            GoodbyeCode::Done
            | GoodbyeCode::ProtocolError
            | GoodbyeCode::UnsupportedVersion
            | GoodbyeCode::Refused
            | GoodbyeCode::Superseded => self.finish(end),
        }
    }

    /// Whether one that does not greet us as a coordinator of our version does may be passed over: there are several
    /// servers, and the one that we come from is another.
    pub(super) fn may_go_elsewhere(&self) -> bool {
        self.began && !self.is_open() && self.end().is_none() && self.leader.is_one_of_several()
    }

    /// Passes over what does not greet us so. Whoever leads is another, unless as many in a row do not as there are
    /// servers.
    pub(super) fn pass_over(&mut self, end: End, now: Timestamp) {
        let strangers = self.leader.strangers + 1;
        if strangers >= self.reconnect.as_ref().map_or(0, |it| it.servers) {
            return self.finish(end);
        }
        self.go_away(end, now);
        self.leader.strangers = strangers;
    }

    /// The server knows a later connection of the session than we do.
    pub(super) fn leap_generation(&mut self) {
        if let Some(session) = &mut self.session {
            session.generation = session.generation.leap(GENERATION_LEAP);
        }
    }

    /// Whether a later Hello was said than that of this connection.
    fn superseded_itself(&self) -> bool {
        let latest =
            self.session.as_ref().map_or(Generation::default(), |session| session.generation);
        matches!(&self.phase, Phase::Open(open) if open.generation < latest)
    }

    /// The session is over: what it held is lost, what it awaits goes on in another.
    fn session_over(&mut self, end: End, now: Timestamp) {
        let numbers: Vec<RequestId> = self.requests.keys().copied().collect();
        for number in numbers {
            let Some(request) = self.requests.get_mut(&number) else { continue };
            match request.state {
                State::Waiting | State::Unconfirmed(_) => {
                    request.state = State::Waiting;
                    request.ticket = None;
                }
                State::Held { .. } => self.lose(number, LostReason::Expired),
                State::Releasing { .. } => self.released_by_itself(number),
                State::Cancelling => {
                    self.remove(number);
                }
            }
        }
        self.session = None;
        // It resumes what is no more.
        self.take_second();
        if self.is_open() {
            self.go_away(end, now);
        } else {
            // The server is there, it only does not know us.
            self.leave(end, now);
            self.dial(now);
        }
    }

    /// A hold is lost for good.
    pub(super) fn lose(&mut self, number: RequestId, reason: LostReason) {
        self.remove(number);
        self.effects.push(Effect::Lost { request: number, reason });
        self.give_up_conversion(number, reason);
    }

    /// Nobody holds any more what was to be released.
    fn released_by_itself(&mut self, number: RequestId) {
        if let Some(Request { state: State::Releasing { asked: true, lost, .. }, .. }) =
            self.remove(number)
        {
            let outcome = lost.map_or(Ok(()), |reason| Err(Refusal::Lost(reason)));
            self.effects.push(Effect::Released { request: number, outcome });
        }
    }

    /// The connection is welcome.
    pub(super) fn welcomed(
        &mut self,
        hello_sent: Timestamp,
        welcome: &Welcomed,
        now: Timestamp,
    ) -> Result<(), String> {
        let Welcomed { protocol, epoch, session, secret, generation, ttl_ms, .. } = *welcome;
        if protocol != PROTOCOL {
            return Err(format!("it speaks protocol {protocol}"));
        }
        if self.is_deposed(epoch) {
            self.disbelieve(epoch, now);
            return Ok(());
        }
        let length = match self.purpose {
            Purpose::Session | Purpose::End { .. } => Duration::from_millis(ttl_ms.into()),
            Purpose::Look => LOOK_TTL,
        };
        let ttl = Ttl::new(length).map_err(|error| error.to_string())?;
        let known = self.known(welcome)?;
        if known != Known::Nothing && known != Known::Everything {
            self.doubt_holds();
        }
        let before = self.session.as_ref().map_or(Generation::default(), |s| s.generation);
        let latest = before.max(generation);
        self.session = match self.purpose {
            Purpose::Session | Purpose::End { .. } => {
                Some(Session { id: session, secret, generation: latest, epoch })
            }
            Purpose::Look => None,
        };
        let mut lease = Lease::new(hello_sent, ttl);
        if known == Known::Everything
            && let Some(before) = &self.lease
        {
            lease.continue_from(before);
        }
        self.leader.found();
        self.patience.answered(now.since(hello_sent));
        let can_be_another = self.reconnect.is_some() && self.introduction.linger_ms.is_none();
        self.phase = Phase::Open(Open::new(&lease, generation, hello_sent, now, can_be_another));
        self.lease = Some(lease);
        self.lapsed = now >= lease.believed_until();
        self.unreachable = false;
        self.epoch_seen = self.epoch_seen.max(epoch);
        let welcome = Welcome { session, epoch, ttl, secret, generation: latest };
        self.effects.push(Effect::Welcomed(welcome));
        if self.began {
            self.repeat(known, now);
        }
        self.began = true;
        self.look_anew();
        Ok(())
    }

    /// What the server knows of the session that we asked for.
    fn known(&self, welcome: &Welcomed) -> Result<Known, String> {
        match (&self.session, welcome.standing) {
            (None, Standing::Opened) => Ok(Known::Nothing),
            (None, Standing::Resumed | Standing::Reopened { .. }) => {
                Err("a Welcome that resumes a session, where a new one was requested".to_owned())
            }
            (Some(session), _) if session.id != welcome.session => {
                Err("a Welcome of another session than the requested one".to_owned())
            }
            (Some(_), Standing::Opened | Standing::Reopened { .. }) => Ok(Known::NothingAnyMore),
            (Some(session), Standing::Resumed) if session.epoch == welcome.epoch => {
                Ok(Known::Everything)
            }
            (Some(_), Standing::Resumed) => Ok(Known::EverythingOrNothing),
        }
    }

    /// What is held is believed in as long as the lease was until now, and no longer unless the
    /// server confirms it.
    fn doubt_holds(&mut self) {
        let Some(until) = self.lease.map(|lease| lease.believed_until()) else { return };
        for (&number, request) in &mut self.requests {
            if let State::Held { doubted: doubted @ None, .. } = &mut request.state {
                *doubted = Some(until);
                self.doubts.insert((until, number));
                self.effects.push(Effect::Doubted { request: number, until });
            }
        }
    }

    /// Says again what is not answered, and what is held.
    fn repeat(&mut self, known: Known, now: Timestamp) {
        self.request_repeated = self.request_next;
        let is_gone = matches!(known, Known::Nothing | Known::NothingAnyMore);
        let numbers: Vec<RequestId> = self.requests.keys().copied().collect();
        for number in numbers {
            let Some(request) = self.requests.get(&number) else { continue };
            match request.state {
                // Not what was to convert: whether it was, and whom that let in, is not known here.
                State::Waiting
                    if is_gone && request.ask.converts.is_none() && request.is_timed_out(now) =>
                {
                    let code = RejectionCode::TimedOut;
                    let (message, lock, cycle) = (String::new(), None, Cycle::default());
                    let rejection = Rejection { code, message, lock, cycle };
                    self.refuse(number, Refusal::Rejected(rejection));
                }
                State::Waiting => self.messages.push(request.message(number, now)),
                State::Held { grant, doubted: Some(_) } => {
                    self.messages.push(request.reclaim(number, grant, now));
                }
                State::Releasing { .. } if is_gone => self.released_by_itself(number),
                State::Releasing { token, asked, lost, reclaimed, .. } => {
                    let release = ClientMessage::Release { request: number, token };
                    self.messages.push(release);
                    let repeated = true;
                    let state = State::Releasing { token, asked, lost, reclaimed, repeated };
                    self.set_state(number, state);
                }
                // What is cancelled does not outlive its connection; what is in doubt neither.
                State::Held { doubted: None, .. } | State::Unconfirmed(_) | State::Cancelling => {}
            }
        }
        if !is_gone {
            self.give_account();
        }
    }

    /// Lists what is held and awaited, over all ids that were ever used.
    fn give_account(&mut self) {
        let live: Vec<(RequestId, Option<Held>)> = self
            .requests
            .iter()
            .filter_map(|(&request, known)| match known.state {
                State::Waiting | State::Unconfirmed(_) => Some((request, None)),
                State::Held { grant, .. } => {
                    Some((request, Some(Held { request, token: grant.token })))
                }
                State::Releasing { .. } | State::Cancelling => None,
            })
            .collect();
        let next = self.request_next;
        let mut from = RequestId(1);
        let mut rest = &live[..];
        while from < next {
            let (part, after) = rest.split_at(rest.len().min(ACCOUNT_IDS_MAX));
            rest = after;
            let to = match part.last() {
                Some((to, _)) if !rest.is_empty() => *to,
                Some(_) | None => RequestId::new(next.number() - 1),
            };
            let held = part.iter().filter_map(|(_, held)| *held).collect();
            let waiting = part.iter().filter(|(_, held)| held.is_none()).map(|(id, _)| *id);
            let waiting = waiting.collect();
            self.messages.push(ClientMessage::Account(wire::Account { from, to, held, waiting }));
            from = to.next();
        }
    }
}
