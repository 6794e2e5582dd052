//! A coordinator of one exclusive lock, as simple as the rules allow, for simulations: sessions with
//! leases, a queue with tickets, crashes with a grace period, orderly restarts.

use std::collections::BTreeMap;
use std::time::Duration;

use super::simulation::SkewedClock;
use crate::types::{GoodbyeCode, LostReason, RejectionCode, TTL_MIN};
use crate::wire::{Attach, ClientMessage, PROTOCOL, ServerMessage, Standing, Ticket};

/// What goes to which connection; no message: its end.
pub(super) type Outgoing = Vec<(usize, Option<ServerMessage>)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting(Ticket),
    Held(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Released(u64),
    Cancelled,
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

    fn grant_next(&mut self, true_now: u64) {
        let is_held = |state: &State| matches!(state, State::Held(_));
        if self.is_in_grace(true_now)
            || self.sessions.values().any(|s| s.live.values().any(is_held))
        {
            return;
        }
        let waiting = self.sessions.iter().flat_map(|(id, session)| {
            session.live.iter().filter_map(|(request, state)| match state {
                State::Waiting(ticket) => Some((ticket.epoch, ticket.arrival, *id, *request)),
                State::Held(_) => None,
            })
        });
        if let Some((_, _, session, request)) = waiting.min() {
            self.token += 1;
            let token = self.token;
            let live = &mut self.sessions.get_mut(&session).unwrap().live;
            live.insert(request, State::Held(token));
            self.tell(session, ServerMessage::Grant { request, token, seal: token.into() });
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
            ClientMessage::Request { request, ticket, .. } => {
                self.request(id, request, ticket, true_now);
            }
            ClientMessage::Release { request, token } => match session.live.get(&request) {
                Some(State::Held(held)) if *held == token => {
                    session.live.remove(&request);
                    session.over.insert(request, Outcome::Released(token));
                    self.tell(id, ServerMessage::Released { request });
                }
                None if session.over.get(&request) == Some(&Outcome::Released(token)) => {
                    self.tell(id, ServerMessage::Released { request });
                }
                _ => self.reject(id, request, RejectionCode::NotHolder),
            },
            ClientMessage::Cancel { request } => {
                if session.live.remove(&request).is_some() {
                    session.over.insert(request, Outcome::Cancelled);
                }
                self.tell(id, ServerMessage::Cancelled { request });
            }
            ClientMessage::Reclaim { request, token, seal, .. } => {
                assert_eq!(seal, u128::from(token));
                self.reclaim(id, request, token, true_now);
            }
            ClientMessage::Account { from, to, held, waiting } => {
                let listed = |request: &u64, state: &State| {
                    let is_held = held
                        .iter()
                        .any(|h| h.request == *request && *state == State::Held(h.token));
                    is_held || waiting.contains(request) || !(from..=to).contains(request)
                };
                session.live.retain(|request, state| listed(request, state));
                let reason = LostReason::NotReclaimed.number();
                for held in held {
                    let token = held.token;
                    if self.sessions[&id].live.get(&held.request) != Some(&State::Held(token)) {
                        let request = held.request;
                        self.tell(id, ServerMessage::Lost { request, token, reason });
                    }
                }
            }
            other => panic!("{other:?}"),
        }
        self.grant_next(true_now);
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

    fn request(&mut self, id: u128, request: u64, shown: Option<Ticket>, true_now: u64) {
        let (epoch, in_grace) = (self.epoch, self.is_in_grace(true_now));
        let session = self.sessions.get_mut(&id).unwrap();
        if request > session.latest {
            session.latest = request;
            let ticket = match shown {
                Some(ticket) if in_grace && ticket.epoch < epoch => ticket,
                Some(_) | None => {
                    self.arrivals += 1;
                    Ticket { epoch, arrival: self.arrivals }
                }
            };
            session.live.insert(request, State::Waiting(ticket));
            self.tell(id, ServerMessage::Queued { request, position: 1, ticket });
            return;
        }
        let answer = match (session.live.get(&request), session.over.get(&request)) {
            (Some(State::Waiting(ticket)), _) => {
                ServerMessage::Queued { request, position: 1, ticket: *ticket }
            }
            (Some(&State::Held(token)), _) => {
                ServerMessage::Grant { request, token, seal: token.into() }
            }
            (None, Some(Outcome::Released(_))) => ServerMessage::Released { request },
            (None, Some(Outcome::Cancelled)) => ServerMessage::Cancelled { request },
            (None, None) => return self.reject(id, request, RejectionCode::RequestForgotten),
        };
        self.tell(id, answer);
    }

    fn reclaim(&mut self, id: u128, request: u64, token: u64, true_now: u64) {
        let in_grace = self.is_in_grace(true_now);
        let is_held = |state: &State| matches!(state, State::Held(_));
        let is_taken = self.sessions.values().any(|s| s.live.values().any(is_held));
        let session = self.sessions.get_mut(&id).unwrap();
        match session.live.get(&request) {
            Some(State::Held(held)) if *held == token => {}
            None if in_grace && token < self.first_token => {
                assert!(!is_taken, "two reclaim the same lock");
                session.latest = session.latest.max(request);
                session.live.insert(request, State::Held(token));
            }
            Some(_) | None => return self.reject(id, request, RejectionCode::NoGrace),
        }
        self.tell(id, ServerMessage::Grant { request, token, seal: token.into() });
    }
}
