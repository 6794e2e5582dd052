//! A look behind the desk, for the referee of a simulation: facts that no client is told.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::access::Access;
use crate::engine::{
    Command, Effect, EndReason, Event, LockView, RequestEvent, SessionView, Start,
};
use crate::types::{
    ConnectionId, Epoch, FencingToken, Limits, LockName, Mode, RequestId, SessionId, Timestamp,
};

#[cfg(feature = "redis-api")]
use super::dialect::SubmitRedis;
use super::seal::Sealer;
#[cfg(feature = "redis-api")]
use super::turn::Way;
use super::turn::{Submit, Turn, Window};
use super::{Before, Desk, Setting};
use crate::server::durable::StateKey;
use crate::wire::ClientMessage;

/// Every so many events, the table's invariants are looked at.
const EVENTS_PER_LOOK: u64 = 16;

/// What was seen since it was last asked.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    /// Sessions that are over, why, and in which epoch they ended.
    pub(crate) ended: Vec<(SessionId, EndReason, Epoch)>,
    /// Grants, whether they could be told to anybody or not.
    pub(crate) granted: Vec<Granted>,
    /// Requests that others are to convert.
    pub(crate) converted: Vec<(SessionId, RequestId)>,
    /// What was held when everything was put on order to be saved.
    left: BTreeSet<(SessionId, RequestId)>,
    /// Counts events, to look at invariants now and then.
    events: u64,
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

impl Desk {
    /// A desk with a witness, which begins with what is stored and what is left, and names sessions by
    /// numbers that follow one another.
    pub(crate) fn witnessed(
        (start, key): (Start, StateKey),
        before: Before,
        names: Rc<Cell<u128>>,
        access: Access,
        now: Timestamp,
    ) -> Self {
        let draw = move || {
            let name = names.get();
            names.set(name + 1);
            Ok(SessionId::new(name))
        };
        let setting = Setting {
            limits: Limits::default(),
            start,
            before,
            sealer: Sealer::new(key),
            draw: Box::new(draw),
            wall: || SystemTime::UNIX_EPOCH,
            looks_per_second: crate::server::config::LOOKS_PER_SECOND,
            access: Arc::new(access),
            audit: crate::server::audit::Audit::default(),
            counters: Arc::default(),
        };
        Self { witness: Some(Witness::default()), ..Self::new(setting, now) }
    }

    /// What one read of a connection has brought.
    pub(crate) fn read(&self, connection: ConnectionId, messages: Vec<ClientMessage>) -> Submit {
        let unheard = self.counters.ledger.open().submit(0);
        Submit { connection, messages, window: Window::Open, unheard }
    }

    /// A connection of the Redis dialect is there.
    #[cfg(feature = "redis-api")]
    pub(crate) fn greet_redis(&mut self, connection: ConnectionId, way: Way) -> &mut Turn {
        self.connect_redis(connection, way, None)
    }

    /// What one read of it has brought.
    #[cfg(feature = "redis-api")]
    pub(crate) fn read_redis(
        &mut self,
        connection: ConnectionId,
        said: Vec<crate::redis::Said>,
        now: Timestamp,
    ) -> &mut Turn {
        let unheard = self.counters.ledger.open().submit(0);
        self.hear_redis(SubmitRedis { connection, said, name: None, unheard }, now);
        self.finish_turn(now)
    }

    /// What was seen since this was last asked.
    pub(crate) fn take_seen(&mut self) -> Witness {
        let Some(witness) = &mut self.witness else { return Witness::default() };
        let (left, events) = (witness.left.clone(), witness.events);
        mem::replace(witness, Witness { left, events, ..Witness::default() })
    }

    /// Other rules hold, and this turn looks at few of those who wait.
    #[must_use]
    pub(crate) fn change_rules_slowly(&mut self, access: Access, now: Timestamp) -> &mut Turn {
        self.leave_one_step();
        self.change_rules(Arc::new(access), now)
    }

    /// As if the turn had done all that it may but one step.
    pub(crate) fn leave_one_step(&mut self) {
        self.steps_until_look = self.steps() + 1;
    }

    /// Whether what waits is being looked through.
    pub(crate) fn is_withholding(&self) -> bool {
        self.table.is_withholding()
    }

    /// All that waits: whose request, and each of its claims.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (SessionId, RequestId, &LockName, Mode)> {
        let sessions = self.table.sessions(0).map(|(_, session)| session.session);
        let waiting = sessions.flat_map(|session| {
            self.table.waiting_of(session).map(move |request| (session, request))
        });
        waiting.flat_map(|(session, request)| {
            let claims = self.table.claims(session, request);
            claims.map(move |(lock, mode)| (session, request, lock, mode))
        })
    }

    /// A lock in use.
    pub(crate) fn lock(&self, name: &str) -> Option<LockView<'_>> {
        self.table.lock(name)
    }

    /// Whether everything was put on order to be saved, and nothing is decided any more.
    pub(crate) fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// Whether something is left to do that was asked for, or is to be shown.
    pub(crate) fn is_behind(&self) -> bool {
        self.is_going_on
    }

    /// Whether those who were there before a crash may still come back.
    pub(crate) fn is_in_grace(&self) -> bool {
        self.in_grace
    }

    /// The sessions that have more than so much left of their leases.
    pub(crate) fn secure(&self, margin: Duration, now: Timestamp) -> Vec<SessionId> {
        let sessions = self.table.sessions(0).map(|(_, session)| session);
        let is_secure = |session: &SessionView<'_>| {
            session.lease_ends.is_none_or(|ends| ends > now.after(margin))
        };
        sessions.filter(is_secure).map(|session| session.session).collect()
    }

    /// Whether a session's request holds or waits.
    pub(crate) fn is_live(&self, session: SessionId, request: u64) -> bool {
        self.table.claims(session, RequestId::new(request)).next().is_some()
    }

    /// Whether a session's request holds a lock, or did in the end.
    pub(crate) fn holds(&self, name: &str, session: SessionId, request: u64) -> bool {
        let request = RequestId::new(request);
        let held = self.table.lock(name).is_some_and(|lock| {
            lock.holders().any(|it| it.session == session && it.request == request)
        });
        held || self.witness.as_ref().is_some_and(|it| it.left.contains(&(session, request)))
    }

    /// Whether a request that a client repeats keeps the place that its ticket names.
    pub(crate) fn keeps_place(&self, connection: ConnectionId, request: u64) -> bool {
        let session = self.session_of(connection);
        self.is_in_grace() || session.is_some_and(|session| self.is_live(session, request))
    }

    /// Everything is about to be put on order to be saved.
    pub(super) fn witness_leaving(&mut self) {
        let Some(witness) = &mut self.witness else { return };
        for (_, lock) in self.table.locks(0) {
            witness.left.extend(lock.holders().map(|holder| (holder.session, holder.request)));
        }
    }

    pub(super) fn decide(&mut self, event: &Event, now: Timestamp) {
        self.witness_event(event);
        let Some(witness) = &mut self.witness else {
            return self.table.handle(event, now, &mut self.effects);
        };
        witness.events += 1;
        if witness.events.is_multiple_of(EVENTS_PER_LOOK) {
            self.table.handle(event, now, &mut self.effects);
        } else {
            self.table.step(event, now, &mut self.effects);
        }
    }

    fn witness_event(&mut self, event: &Event) {
        if let Event::Command { connection, command: Command::Request(request) } = event
            && let Some(converted) = request.converts
            && let Some(session) = self.session_of(*connection)
            && let Some(witness) = &mut self.witness
        {
            witness.converted.push((session, converted));
        }
    }

    pub(super) fn witness(&mut self, effect: &Effect) {
        let Some(witness) = &mut self.witness else { return };
        match *effect {
            Effect::Tell { session, request, event: RequestEvent::Granted { token }, .. } => {
                let claims = self.table.claims(session, request);
                let claims = claims.map(|(name, mode)| (name.clone(), mode)).collect();
                witness.granted.push(Granted { session, request, token, claims });
            }
            Effect::Ended { session, reason, .. } => {
                witness.ended.push((session, reason, self.table.epoch()));
            }
            _ => {}
        }
    }
}
