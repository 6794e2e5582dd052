//! A stand-in for the Coordinator actor, for simulations: the same words in, the same words out, and
//! nothing of actix between.
//!
//! All that decides is the production's: the table, what words mean, proofs, where a run begins. What
//! is left here is as dull as the actor, and stricter with the engine: it goes on bringing what
//! connections say that were told Goodbye, for it is the engine's promise to ignore them.

use std::collections::BTreeMap;
use std::mem;
use std::time::{Duration, SystemTime};

use foldhash::fast::FixedState;

use super::config::StaleState;
use super::connections::Role;
use super::hello;
use super::parse;
use super::persist;
use super::render;
use super::seal::{Sealed, Sealer};
use super::start;
use super::store::{Change, StateStore};
use crate::engine::{
    Command, Counts, Effect, EndReason, Event, LockTable, LockView, News, Place, SessionView,
};
use crate::types::{
    ConnectionId, Epoch, FencingToken, GoodbyeCode, Limits, LockName, Mode, RejectionCode,
    RequestId, SessionId, Timestamp,
};
use crate::wire::{self, ClientMessage, Extra, ServerMessage};

/// Every so many events, the table's invariants are looked at.
const EVENTS_PER_LOOK: u64 = 16;

/// What a turn of it had done, to be carried on by the caller.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// For clients, in the order in which it was said. A Goodbye is a connection's last.
    pub(crate) said: Vec<(ConnectionId, ServerMessage)>,
    /// To be made durable, in this order; [`Switchboard::committed`] wants to hear of it.
    pub(crate) orders: Vec<Change>,
    /// Answers to revocations, by query; *no* has a reason.
    pub(crate) revoked: Vec<(u64, Option<RejectionCode>)>,
    /// Sessions that are over, and why.
    pub(crate) ended: Vec<(SessionId, EndReason)>,
    /// Grants, whether they could be told to anybody or not.
    pub(crate) granted: Vec<Granted>,
    /// Requests that others are to convert.
    pub(crate) converted: Vec<(SessionId, RequestId)>,
}

/// A request was said to be granted, perhaps again.
#[derive(Debug)]
pub(crate) struct Granted {
    /// Whose request.
    pub(crate) session: SessionId,
    /// Which.
    pub(crate) request: RequestId,
    /// With which token.
    pub(crate) token: FencingToken,
    /// What it holds.
    pub(crate) claims: Vec<(LockName, Mode)>,
}

/// A coordinator without its shell.
pub(crate) struct Switchboard {
    /// Decides.
    table: LockTable<FixedState>,
    /// Proves what was said, to the runs to come.
    sealer: Sealer,
    /// Whose each connection is that said Hello. In order, so that a run is the same each time.
    sessions: BTreeMap<ConnectionId, SessionId>,
    /// The name of the next session; greater than those of all runs before.
    next_session: u128,
    /// Counts events, to look at invariants now and then.
    events: u64,
    /// Everything was put on order to be saved: nothing is decided any more.
    is_over: bool,
    /// What the table wants done; empty between turns, kept for its memory.
    effects: Vec<Effect>,
    /// What was done in this turn.
    turn: Turn,
}

impl Switchboard {
    /// A run that begins with what is stored. Of the tokens that are reserved it uses no more than
    /// `tokens`, as if it had given the others already.
    pub(crate) fn begin(
        store: &dyn StateStore,
        wall: SystemTime,
        next_session: u128,
        tokens: u64,
        now: Timestamp,
    ) -> Self {
        let (mut start, sealer) = start::begin(store, StaleState::Refuse, wall).unwrap();
        let below = FencingToken::new(start.first_token.number() + tokens);
        start.durable.tokens_below = start.durable.tokens_below.min(below);
        Self {
            table: LockTable::new(Limits::default(), start, FixedState::default(), now),
            sealer,
            sessions: BTreeMap::new(),
            next_session,
            events: 0,
            is_over: false,
            effects: Vec::new(),
            turn: Turn::default(),
        }
    }

    /// What was done since this was last asked.
    pub(crate) fn take_turn(&mut self) -> Turn {
        mem::take(&mut self.turn)
    }

    /// The name of the next session, for the next run.
    pub(crate) fn next_session(&self) -> u128 {
        self.next_session
    }

    /// What tells this run from all others.
    pub(crate) fn epoch(&self) -> Epoch {
        self.table.epoch()
    }

    /// When [`Switchboard::tick`] is due.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.table.next_deadline().filter(|_| !self.is_over)
    }

    /// How much of everything there is.
    pub(crate) fn counts(&self) -> Counts {
        self.table.counts()
    }

    /// A lock in use.
    pub(crate) fn lock(&self, name: &str) -> Option<LockView<'_, FixedState>> {
        self.table.lock(name)
    }

    /// Whether those who were there before a crash may still come back.
    pub(crate) fn is_in_grace(&self) -> bool {
        self.table.grace_left().is_some()
    }

    /// The sessions that have more than so much left of their leases.
    pub(crate) fn secure(&self, margin: Duration, now: Timestamp) -> Vec<SessionId> {
        let sessions = self.table.sessions(0).map(|(_, session)| session);
        let is_secure = |session: &SessionView<'_>| session.lease_ends > now.after(margin);
        sessions.filter(is_secure).map(|session| session.session).collect()
    }

    /// Whether a session's request holds or waits.
    pub(crate) fn is_live(&self, session: SessionId, request: u64) -> bool {
        self.table.claims(session, RequestId::new(request)).next().is_some()
    }

    /// Whether a request that a client repeats keeps the place that its ticket names.
    pub(crate) fn keeps_place(&self, connection: ConnectionId, request: u64) -> bool {
        let session = self.sessions.get(&connection);
        self.is_in_grace() || session.is_some_and(|session| self.is_live(*session, request))
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        self.step(&Event::Tick { heard: now }, now);
    }

    /// What one read of a connection brought.
    pub(crate) fn submit(
        &mut self,
        connection: ConnectionId,
        messages: &[ClientMessage],
        now: Timestamp,
    ) {
        for message in parse::in_order(messages) {
            self.message(connection, message, now);
        }
    }

    /// A connection ended without a Goodbye.
    pub(crate) fn disconnect(&mut self, connection: ConnectionId, now: Timestamp) {
        if self.sessions.remove(&connection).is_some() {
            self.step(&Event::Disconnect { connection }, now);
        }
    }

    /// So much more is on disk.
    pub(crate) fn committed(&mut self, changes: &[Change], now: Timestamp) {
        let committed = persist::summary(changes);
        if let Some(durable) = committed.durable {
            self.step(&Event::Persisted(durable), now);
        }
        if committed.recorded > 0 {
            self.step(&Event::Recorded { count: committed.recorded }, now);
        }
    }

    /// An operator takes a lock away.
    pub(crate) fn revoke(
        &mut self,
        query_id: u64,
        name: &LockName,
        token: FencingToken,
        now: Timestamp,
    ) {
        let (connection, name) = (ConnectionId::new(0), name.clone());
        self.step(&Event::Revoke { connection, query_id, name, token }, now);
    }

    /// This run is over, and the next is to go on from here.
    pub(crate) fn save(&mut self, now: Timestamp) {
        self.tick(now);
        self.is_over = true;
        self.turn.orders.push(Change::SaveSnapshot(self.table.snapshot().into()));
        for &connection in self.sessions.keys() {
            let goodbye = render::goodbye(GoodbyeCode::Draining, "the coordinator stops");
            self.turn.said.push((connection, goodbye));
        }
    }

    fn message(&mut self, connection: ConnectionId, message: &ClientMessage, now: Timestamp) {
        let command = match *message {
            ClientMessage::Hello(ref hello) => return self.hello(connection, hello, now),
            ClientMessage::KeepAlive { sequence } => Command::KeepAlive { sequence },
            ClientMessage::Goodbye => Command::Goodbye,
            ClientMessage::Reclaim(ref asked) => {
                let Some(&session) = self.sessions.get(&connection) else { return };
                parse::reclaim(asked, &[], Some(session), &self.sealer)
            }
            ClientMessage::Request(ref asked) => self.request(connection, asked, &[]),
            ClientMessage::RequestWith { request: ref asked, ref extras } => {
                self.request(connection, asked, extras)
            }
            ClientMessage::Release { request, token } => parse::release(request, token),
            ClientMessage::Cancel { request } => parse::cancel(request),
            ClientMessage::Account(ref known) => parse::account(known),
            ref other => panic!("nobody says this in a simulation: {other:?}"),
        };
        self.step(&Event::Command { connection, command }, now);
    }

    fn request(
        &mut self,
        connection: ConnectionId,
        asked: &wire::Request,
        extras: &[Extra],
    ) -> Command {
        if let (Some(converted), Some(&session)) = (asked.converts, self.sessions.get(&connection))
        {
            self.turn.converted.push((session, RequestId::new(converted)));
        }
        let session = self.sessions.get(&connection);
        let place = session.and_then(|id| parse::place(asked, *id, &self.sealer));
        assert!(place.is_some() || asked.ticket.is_none(), "nobody makes tickets up");
        parse::request(asked, extras, place)
    }

    fn hello(&mut self, connection: ConnectionId, hello: &wire::Hello, now: Timestamp) {
        let epoch_seen = Epoch::new(hello.epoch_seen);
        let token_seen = FencingToken::new(hello.token_seen);
        let session = SessionId::new(self.next_session);
        match hello::parse(hello, &self.sealer, || Ok(session)) {
            Ok((Role::Session { id, .. }, Some(attach))) => {
                self.next_session += u128::from(id == session);
                self.sessions.insert(connection, id);
                let peer = None;
                self.step(&Event::Attach { connection, peer, attach, epoch_seen, token_seen }, now);
            }
            Ok(_) => panic!("nobody looks on in a simulation"),
            Err((code, reason)) => self.turn.said.push((connection, render::refused(code, reason))),
        }
    }

    /// One event in, all its effects out.
    fn step(&mut self, event: &Event, now: Timestamp) {
        if self.is_over {
            return;
        }
        self.events += 1;
        let mut effects = mem::take(&mut self.effects);
        if self.events.is_multiple_of(EVENTS_PER_LOOK) {
            self.table.handle(event, now, &mut effects);
        } else {
            self.table.step(event, now, &mut effects);
        }
        for effect in effects.drain(..) {
            self.perform(effect);
        }
        self.effects = effects;
    }

    fn perform(&mut self, effect: Effect) {
        if let Effect::Tell { session, request, news: News::Granted { token }, .. } = effect {
            let claims = self.table.claims(session, request);
            let claims = claims.map(|(name, mode)| (name.clone(), mode)).collect();
            self.turn.granted.push(Granted { session, request, token, claims });
        }
        let (connection, message) = match effect {
            Effect::Welcome { connection, session, generation, ttl, standing } => {
                let (epoch, ttl) = (self.epoch(), Some(ttl));
                let secret = self.sealer.secret(session, epoch);
                (connection, render::welcome(epoch, session, secret, generation, ttl, standing))
            }
            Effect::Refused { connection, rejection } => {
                (connection, render::refused(rejection.code(), rejection.to_string()))
            }
            Effect::Superseded { connection } => {
                (connection, render::goodbye(GoodbyeCode::Superseded, "there is a newer one"))
            }
            Effect::KeptAlive { connection, sequence } => {
                (connection, ServerMessage::KeptAlive { sequence })
            }
            Effect::Tell { connection: Some(connection), session, request, news } => {
                (connection, self.news(session, request, &news))
            }
            Effect::Ended { session, connection, reason, .. } => {
                self.turn.ended.push((session, reason));
                let Some(connection) = connection else { return };
                (connection, render::ended(reason))
            }
            Effect::Revoked { query_id, .. } => return self.turn.revoked.push((query_id, None)),
            Effect::NotRevoked { query_id, rejection, .. } => {
                return self.turn.revoked.push((query_id, Some(rejection.code())));
            }
            Effect::Persist(durable) => return self.turn.orders.push(Change::Durable(durable)),
            Effect::Record { number, forfeit } => {
                return self.turn.orders.push(Change::Forfeit { number, forfeit });
            }
            Effect::ForgetRecords { below } => {
                return self.turn.orders.push(Change::ForgetForfeits { below });
            }
            Effect::Tell { connection: None, .. }
            | Effect::HoldersChanged { .. }
            | Effect::Happened { .. } => return,
        };
        self.turn.said.push((connection, message));
    }

    fn news(&self, session: SessionId, request: RequestId, news: &News) -> ServerMessage {
        let claims = || self.table.claims(session, request);
        let (sealer, run) = (&self.sealer, self.epoch());
        let seal = |token| sealer.seal(Sealed { session, token, request }, run, claims());
        let ticket =
            |ticket| sealer.ticket(session, request, Place { ticket, told_in: run }, claims());
        render::news(request, news, seal, ticket, None)
    }
}
