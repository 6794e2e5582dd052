//! A coordinator of one lock, as simple as the rules allow, for simulations: sessions with leases, a
//! queue with tickets, exclusive and shared holders who become each other, crashes with a grace
//! period, orderly restarts.

use std::collections::BTreeMap;
use std::time::Duration;

use super::simulation::SkewedClock;
use crate::types::{GoodbyeCode, LostReason, RejectionCode, TTL_MIN};
use crate::wire::{
    Attach, Claim, ClientMessage, Held, Mode, PROTOCOL, ServerMessage, Standing, Ticket, Wait,
};

/// What goes to which connection; no message: its end.
pub(super) type Outgoing = Vec<(usize, Option<ServerMessage>)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting { ticket: Ticket, mode: Mode, converts: Option<u64>, until: Option<u64> },
    Held { token: u64, mode: Mode },
}

impl State {
    fn is_held_with(&self, with: u64) -> bool {
        matches!(self, Self::Held { token, .. } if *token == with)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Released(u64),
    Cancelled,
    Rejected(RejectionCode),
    Lost(u64, LostReason),
}

#[derive(Debug)]
struct Session {
    generation: u64,
    connection: Option<usize>,
    /// True moment of the last receipt.
    renewed: u64,
    live: BTreeMap<u64, State>,
    over: BTreeMap<u64, Outcome>,
    latest: u64,
}

/// The server.
pub(super) struct ModelServer {
    clock: SkewedClock,
    epoch: u64,
    token: u64,
    /// The first token of this run.
    first_token: u64,
    arrivals: u64,
    sessions_ever: u128,
    sessions: BTreeMap<u128, Session>,
    by_connection: BTreeMap<usize, u128>,
    /// True moment at which the grace period ends.
    grace_until: u64,
    pub(super) outgoing: Outgoing,
    /// How often what was reclaimed could not have been held together.
    pub(super) conflicts: usize,
}

impl ModelServer {
    pub(super) fn new(clock: SkewedClock) -> Self {
        Self {
            clock,
            epoch: 1,
            token: 0,
            first_token: 1,
            arrivals: 0,
            sessions_ever: 0,
            sessions: BTreeMap::new(),
            by_connection: BTreeMap::new(),
            grace_until: 0,
            outgoing: Vec::new(),
            conflicts: 0,
        }
    }

    /// Forgets everything but what is durable.
    pub(super) fn crash(&mut self, true_now: u64) {
        self.sessions.clear();
        let grace = TTL_MIN * 102 / 100 + Duration::from_millis(50);
        self.grace_until = self.clock.true_moment_after(true_now, grace);
        self.begin();
    }

    /// Stops in good order, and starts with all it had.
    pub(super) fn restart(&mut self, true_now: u64) {
        for session in self.sessions.values_mut() {
            session.connection = None;
            session.renewed = true_now;
        }
        self.begin();
    }

    fn begin(&mut self) {
        self.epoch += 1;
        self.arrivals = 0;
        // What was reserved is not given again.
        self.token += 1_000;
        self.first_token = self.token + 1;
        self.by_connection.clear();
        self.outgoing.clear();
    }

    pub(super) fn is_in_grace(&self, true_now: u64) -> bool {
        true_now < self.grace_until
    }

    /// Lets happen what is due.
    pub(super) fn tick(&mut self, true_now: u64) {
        let clock = self.clock;
        let is_over = |s: &Session| clock.true_moment_after(s.renewed, TTL_MIN) <= true_now;
        let over: Vec<u128> =
            self.sessions.iter().filter(|(_, s)| is_over(s)).map(|(id, _)| *id).collect();
        for session in over {
            let connection = self.sessions.remove(&session).and_then(|s| s.connection);
            if let Some(connection) = connection {
                self.dismiss(connection, GoodbyeCode::SessionExpired, 0);
            }
        }
        self.grant_next(true_now);
        self.time_out(true_now);
        // Who gave up may have been in the way.
        self.grant_next(true_now);
    }

    fn dismiss(&mut self, connection: usize, code: GoodbyeCode, rejection: u16) {
        let (code, message) = (code.number(), String::new());
        self.outgoing.push((connection, Some(ServerMessage::Goodbye { code, rejection, message })));
        self.disconnect(connection);
        self.outgoing.push((connection, None));
    }

    /// The connection ended.
    pub(super) fn disconnect(&mut self, connection: usize) {
        if let Some(session) = self.by_connection.remove(&connection)
            && let Some(session) = self.sessions.get_mut(&session)
        {
            session.connection = None;
        }
    }

    /// Who holds the lock: session, request, token, mode.
    fn holders(&self) -> impl Iterator<Item = (u128, u64, u64, Mode)> {
        self.sessions.iter().flat_map(|(id, session)| {
            session.live.iter().filter_map(|(request, state)| match *state {
                State::Held { token, mode } => Some((*id, *request, token, mode)),
                State::Waiting { .. } => None,
            })
        })
    }

    /// Who waits for it, the first in line first; before them, who converts what it holds.
    fn first_in_line(&self) -> Option<(u128, u64, Mode, Option<u64>)> {
        let waiting = self.sessions.iter().flat_map(|(id, session)| {
            session.live.iter().filter_map(|(request, state)| match *state {
                State::Waiting { ticket, mode, converts, .. } => {
                    let place = (converts.is_none(), ticket.epoch, ticket.arrival);
                    Some((place, (*id, *request, mode, converts)))
                }
                State::Held { .. } => None,
            })
        });
        waiting.min_by_key(|(place, _)| *place).map(|(_, waiter)| waiter)
    }

    fn grant_next(&mut self, true_now: u64) {
        while !self.is_in_grace(true_now)
            && let Some((session, request, mode, converts)) = self.first_in_line()
        {
            let is_in_the_way = |(holder, held, _, held_in): (u128, u64, u64, Mode)| {
                let is_converted = holder == session && Some(held) == converts;
                !is_converted && (mode, held_in) != (Mode::Shared, Mode::Shared)
            };
            if self.holders().any(is_in_the_way) {
                return;
            }
            self.token += 1;
            self.hold(session, request, self.token, mode, converts);
        }
    }

    /// The request holds the lock, and what it converts is over without a word.
    fn hold(&mut self, id: u128, request: u64, token: u64, mode: Mode, converts: Option<u64>) {
        let session = self.sessions.get_mut(&id).unwrap();
        if let Some(converted) = converts
            && let Some(State::Held { token, .. }) = session.live.remove(&converted)
        {
            session.over.insert(converted, Outcome::Released(token));
        }
        session.live.insert(request, State::Held { token, mode });
        self.tell(id, ServerMessage::Grant { request, token, seal: token.into() });
    }

    /// The request is over; and what was to convert it has nothing to convert.
    fn end(&mut self, id: u128, request: u64, outcome: Outcome) {
        let session = self.sessions.get_mut(&id).unwrap();
        session.live.remove(&request);
        session.over.insert(request, outcome);
        let converts_it = |state: &State| matches!(state, State::Waiting { converts, .. } if *converts == Some(request));
        let conversion = session.live.iter().find(|(_, s)| converts_it(s)).map(|(c, _)| *c);
        if let Some(conversion) = conversion {
            self.refuse(id, conversion, RejectionCode::NotHolder);
        }
    }

    fn tell(&mut self, session: u128, message: ServerMessage) {
        if let Some(connection) = self.sessions.get(&session).and_then(|s| s.connection) {
            self.outgoing.push((connection, Some(message)));
        }
    }

    fn reject(&mut self, session: u128, request: u64, code: RejectionCode) {
        let (code, message) = (code.number(), String::new());
        self.tell(
            session,
            ServerMessage::Rejected { cycle: vec![], request, code, message, lock: None },
        );
    }

    /// A message arrives.
    pub(super) fn hear(&mut self, connection: usize, message: ClientMessage, true_now: u64) {
        if let ClientMessage::Hello { attach, .. } = message {
            return self.attach(connection, &attach, true_now);
        }
        let Some(&id) = self.by_connection.get(&connection) else { return };
        let session = self.sessions.get_mut(&id).unwrap();
        session.renewed = true_now;
        match message {
            ClientMessage::KeepAlive { sequence } => {
                self.tell(id, ServerMessage::KeptAlive { sequence });
            }
            ClientMessage::Request { request, ticket, converts, wait, claims, .. } => {
                let until = match wait {
                    Wait::Forever => None,
                    Wait::Timeout { ms } => Some(true_now + ms * 1_000),
                    Wait::Never => Some(true_now),
                };
                let mode = claims[0].mode;
                let waiting =
                    State::Waiting { ticket: self.ticket(ticket, true_now), mode, converts, until };
                self.request(id, request, waiting);
            }
            ClientMessage::Release { request, token } => match session.live.get(&request) {
                Some(state) if state.is_held_with(token) => {
                    self.end(id, request, Outcome::Released(token));
                    self.tell(id, ServerMessage::Released { request });
                }
                None if session.over.get(&request) == Some(&Outcome::Released(token)) => {
                    self.tell(id, ServerMessage::Released { request });
                }
                _ => self.reject(id, request, RejectionCode::NotHolder),
            },
            ClientMessage::Cancel { request } => {
                if session.live.contains_key(&request) {
                    self.end(id, request, Outcome::Cancelled);
                }
                self.tell(id, ServerMessage::Cancelled { request });
            }
            ClientMessage::Reclaim { request, token, seal, claims, .. } => {
                assert_eq!(seal, u128::from(token));
                self.reclaim(id, request, token, &claims, true_now);
            }
            ClientMessage::Account { from, to, held, waiting } => {
                let is_listed = |request: u64, state: &State| {
                    let is_held =
                        held.iter().any(|h| h.request == request && state.is_held_with(h.token));
                    is_held || waiting.contains(&request) || !(from..=to).contains(&request)
                };
                let live: Vec<(u64, State)> = session.live.iter().map(|(r, s)| (*r, *s)).collect();
                for (request, _) in live.into_iter().filter(|(r, s)| !is_listed(*r, s)) {
                    self.end(id, request, Outcome::Cancelled);
                }
                let reason = LostReason::NotReclaimed.number();
                for Held { request, token } in held {
                    let live = self.sessions[&id].live.get(&request);
                    if !live.is_some_and(|state| state.is_held_with(token)) {
                        self.tell(id, ServerMessage::Lost { request, token, reason });
                    }
                }
            }
            other => panic!("{other:?}"),
        }
        self.tick(true_now);
    }

    fn attach(&mut self, connection: usize, attach: &Attach, true_now: u64) {
        let (id, generation, standing) = match *attach {
            Attach::New => {
                self.sessions_ever += 1;
                (self.sessions_ever, 1, Standing::Opened)
            }
            Attach::Resume { session, generation, secret } => {
                assert_eq!(secret, session << 64);
                match self.sessions.get(&session) {
                    Some(known) if generation <= known.generation => {
                        let code = RejectionCode::StaleGeneration.number();
                        return self.dismiss(connection, GoodbyeCode::Refused, code);
                    }
                    Some(_) => (session, generation, Standing::Resumed),
                    None if self.is_in_grace(true_now) => {
                        (session, generation, Standing::Reopened { grace_ms: 0 })
                    }
                    None => {
                        let code = RejectionCode::UnknownSession.number();
                        return self.dismiss(connection, GoodbyeCode::Refused, code);
                    }
                }
            }
            Attach::Observer => panic!("a client is no observer"),
        };
        let session = self.sessions.entry(id).or_insert_with(|| Session {
            generation,
            connection: None,
            renewed: true_now,
            live: BTreeMap::new(),
            over: BTreeMap::new(),
            latest: 0,
        });
        (session.generation, session.renewed) = (generation, true_now);
        if let Some(before) = session.connection.replace(connection) {
            self.by_connection.remove(&before);
            let (code, rejection, message) = (GoodbyeCode::Superseded.number(), 0, String::new());
            let goodbye = ServerMessage::Goodbye { code, rejection, message };
            self.outgoing.push((before, Some(goodbye)));
            self.outgoing.push((before, None));
        }
        self.by_connection.insert(connection, id);
        let welcome = ServerMessage::Welcome {
            protocol: PROTOCOL,
            server: String::new(),
            epoch: self.epoch,
            session: id,
            secret: id << 64,
            generation,
            ttl_ms: 2_000,
            standing,
        };
        self.tell(id, welcome);
    }

    /// The place of a request that begins to wait now.
    fn ticket(&mut self, shown: Option<Ticket>, true_now: u64) -> Ticket {
        match shown {
            Some(ticket) if self.is_in_grace(true_now) && ticket.epoch < self.epoch => ticket,
            Some(_) | None => {
                self.arrivals += 1;
                Ticket { epoch: self.epoch, arrival: self.arrivals }
            }
        }
    }

    fn request(&mut self, id: u128, request: u64, waiting: State) {
        if request <= self.sessions[&id].latest {
            return self.request_again(id, request);
        }
        let State::Waiting { ticket, mode, converts, .. } = waiting else { panic!() };
        let session = self.sessions.get_mut(&id).unwrap();
        session.latest = request;
        if let Some(converted) = converts {
            let refusal = match session.live.get(&converted) {
                Some(&State::Held { token, mode: held }) => {
                    if mode == held || mode == Mode::Shared {
                        return self.hold(id, request, token, mode, converts);
                    }
                    let is_second = matches!(self.first_in_line(), Some((_, _, _, Some(_))));
                    is_second.then_some(RejectionCode::Deadlock)
                }
                Some(State::Waiting { .. }) | None => Some(RejectionCode::NotHolder),
            };
            if let Some(code) = refusal {
                return self.refuse(id, request, code);
            }
        }
        self.sessions.get_mut(&id).unwrap().live.insert(request, waiting);
        self.tell(id, ServerMessage::Queued { request, position: 1, ticket });
    }

    /// The request is over without a grant.
    fn refuse(&mut self, id: u128, request: u64, code: RejectionCode) {
        self.end(id, request, Outcome::Rejected(code));
        self.reject(id, request, code);
    }

    /// Whoever has waited long enough is told so.
    fn time_out(&mut self, true_now: u64) {
        let is_over = |state: &State| matches!(state, State::Waiting { until: Some(until), .. } if *until <= true_now);
        let late: Vec<(u128, u64)> = self
            .sessions
            .iter()
            .flat_map(|(id, session)| session.live.iter().map(|(r, s)| (*id, *r, s)))
            .filter(|(.., state)| is_over(state))
            .map(|(id, request, _)| (id, request))
            .collect();
        for (id, request) in late {
            self.refuse(id, request, RejectionCode::TimedOut);
        }
    }

    fn request_again(&mut self, id: u128, request: u64) {
        let session = &self.sessions[&id];
        let answer = match (session.live.get(&request), session.over.get(&request)) {
            (Some(&State::Waiting { ticket, .. }), _) => {
                ServerMessage::Queued { request, position: 1, ticket }
            }
            (Some(&State::Held { token, .. }), _) => {
                ServerMessage::Grant { request, token, seal: token.into() }
            }
            (None, Some(outcome)) => return self.tell_outcome(id, request, *outcome),
            (None, None) => return self.reject(id, request, RejectionCode::RequestForgotten),
        };
        self.tell(id, answer);
    }

    fn tell_outcome(&mut self, id: u128, request: u64, outcome: Outcome) {
        let answer = match outcome {
            Outcome::Released(_) => ServerMessage::Released { request },
            Outcome::Cancelled => ServerMessage::Cancelled { request },
            Outcome::Rejected(code) => return self.reject(id, request, code),
            Outcome::Lost(token, reason) => {
                ServerMessage::Lost { request, token, reason: reason.number() }
            }
        };
        self.tell(id, answer);
    }

    fn reclaim(&mut self, id: u128, request: u64, token: u64, claims: &[Claim], true_now: u64) {
        let (in_grace, mode) = (self.is_in_grace(true_now), claims[0].mode);
        let session = self.sessions.get_mut(&id).unwrap();
        match (session.live.get(&request), session.over.get(&request)) {
            (Some(state), _) if state.is_held_with(token) => {
                self.tell(id, ServerMessage::Grant { request, token, seal: token.into() });
            }
            (None, Some(outcome)) => {
                let outcome = *outcome;
                self.tell_outcome(id, request, outcome);
            }
            (None, None) if in_grace && token < self.first_token => {
                session.latest = session.latest.max(request);
                self.make_room(id, request, token, mode);
            }
            _ => self.reject(id, request, RejectionCode::NoGrace),
        }
    }

    /// Of those who reclaim what they cannot have held together, the later grant is true.
    fn make_room(&mut self, id: u128, request: u64, token: u64, mode: Mode) {
        let in_the_way: Vec<_> = self
            .holders()
            .filter(|(.., held_in)| (mode, *held_in) != (Mode::Shared, Mode::Shared))
            .map(|(session, held, token, _)| (token, session, held))
            .collect();
        let losers = match in_the_way.iter().max() {
            Some((greatest, ..)) if *greatest > token => vec![(token, id, request)],
            Some(_) | None => in_the_way,
        };
        self.conflicts += losers.len();
        let is_loser = losers.contains(&(token, id, request));
        let reason = LostReason::Conflict;
        for (token, session, request) in losers {
            self.end(session, request, Outcome::Lost(token, reason));
            self.tell_outcome(session, request, Outcome::Lost(token, reason));
        }
        if !is_loser {
            self.hold(id, request, token, mode, None);
        }
    }
}
