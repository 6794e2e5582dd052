//! The reference model: the rules once more, as plainly as they can be written (model-based
//! testing).
//!
//! One vector of requests, in the order in which they came; everything else is looked up by going
//! through all of it. There are no queues: the queue of a lock *is* those requests that claim it and
//! are not granted. There are no modes as numbers, no chains, no keys, and nothing is kept that could
//! be found out. So what is here can be checked by reading, and the engine by comparing.
//!
//! A deadlock is found by its definition. Everybody whose requests are all granted gives everything
//! back, and everything possible is granted, again and again. The remaining owners wait for ever
//! (R. C. Holt, 1972). A request that leads there, where nobody was before, is refused.
//!
//! A disconnected waiter is passed over, unless the next one's owner waits for something else as
//! well. Otherwise two could wait for each other when it is back.
//!
//! The model does not order the grants of requests that share no lock, as no rule does.
//! [`Model::granted`] tells it the order, and it says whether that could be.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use crate::engine::{Rejection, Request, RequestEvent, Supersede};
use crate::types::{
    Claim, FencingToken, Identity, LockName, LostReason, Mode, OwnerId, RequestId, SessionId,
    Ticket, Timestamp, Wait,
};

mod cycle;
mod steps;
mod tests;

/// A request by the session and its name there.
pub(super) type Name = (SessionId, RequestId);

/// A request that waits or holds.
#[derive(Clone, Debug)]
struct Live {
    /// Whose it is.
    session: SessionId,
    /// What was asked for. Shared, as the question who waits for ever is tried out on copies.
    asked: Rc<Request>,
    /// When that was.
    came: Timestamp,
    /// The token, if it holds.
    token: Option<FencingToken>,
}

impl Live {
    fn name(&self) -> Name {
        (self.session, self.asked.id)
    }

    fn claims(&self) -> &[Claim] {
        self.asked.claims.as_slice()
    }

    /// How it claims a lock, if it does.
    fn mode(&self, lock: &LockName) -> Option<Mode> {
        self.claims().iter().find(|claim| claim.name == *lock).map(|claim| claim.mode)
    }

    /// The request that it waits to convert.
    fn converts(&self) -> Option<Name> {
        let converts = self.asked.converts.filter(|_| self.token.is_none());
        converts.map(|converts| (self.session, converts))
    }

    fn deadline(&self) -> Option<Timestamp> {
        match self.asked.wait {
            Wait::AtMost(timeout) if self.token.is_none() => Some(self.came.after(timeout)),
            Wait::AtMost(_) | Wait::Forever | Wait::Never => None,
        }
    }
}

/// A request that is over.
#[derive(Clone, Debug)]
struct Over {
    /// Which one.
    name: Name,
    /// How it is answered when it comes again.
    answer: RequestEvent,
    /// The token with which it was released, if it was: to release it again is as good as done.
    released: Option<FencingToken>,
}

/// Who has what and who wants what.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// The latest moment.
    now: Timestamp,
    /// The token of the next grant.
    next_token: FencingToken,
    /// What waits and what holds, in the order in which it came.
    live: Vec<Live>,
    /// What is over, in the order in which it ended.
    over: Vec<Over>,
    /// Sessions without a connection.
    away: BTreeSet<SessionId>,
}

/// A holder of a lock: who, how, with which token.
pub(super) type Holder = (Name, Mode, FencingToken);

/// One who waits for a lock: who, for which owner, how.
pub(super) type Waiter = (Name, OwnerId, Mode);

impl Model {
    pub(super) fn new(next_token: FencingToken, now: Timestamp) -> Self {
        let (live, over, away) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self { now, next_token, live, over, away }
    }

    /// A request comes. Says how it is answered, if not by a grant.
    pub(super) fn request(
        &mut self,
        session: SessionId,
        asked: Request,
    ) -> Vec<(Name, RequestEvent)> {
        let name = (session, asked.id);
        if asked.id <= self.latest(session) {
            return vec![(name, self.request_again(name, &asked))];
        }
        let before = self.live.clone();
        let older = self.superseded_by(&asked);
        self.live.retain(|live| !older.iter().any(|(name, _)| *name == live.name()));
        match self.enter(session, asked) {
            Ok(()) => {
                let new = self.live.len() - 1;
                let mut told = Vec::new();
                if !self.is_grantable(new) {
                    told.push((name, self.queued(new)));
                }
                for (waiter, lock) in older {
                    let identity = Identity::default();
                    let rejection = Rejection::Superseded { lock, session, identity };
                    let answer = RequestEvent::Rejected(Rejection::AsBefore(rejection.code()));
                    self.over.push(Over { name: waiter, answer, released: None });
                    told.push((waiter, RequestEvent::Rejected(rejection)));
                }
                told
            }
            Err(rejection) => {
                self.live = before;
                let answer = RequestEvent::Rejected(Rejection::AsBefore(rejection.code()));
                self.over.push(Over { name, answer, released: None });
                vec![(name, RequestEvent::Rejected(rejection))]
            }
        }
    }

    /// Who waits and is over if this is not refused, with the first lock that both want.
    fn superseded_by(&self, asked: &Request) -> Vec<(Name, LockName)> {
        let supersedes = |of: &Request| of.wants().supersede == Supersede::Older;
        let mut older: Vec<(Name, LockName)> = Vec::new();
        for claim in asked.claims.as_slice().iter().filter(|_| supersedes(asked)) {
            for live in &self.live {
                let waits = live.token.is_none() && live.mode(&claim.name).is_some();
                let is_told = older.iter().any(|(name, _)| *name == live.name());
                if waits && supersedes(&live.asked) && !is_told {
                    older.push((live.name(), claim.name.clone()));
                }
            }
        }
        older
    }

    /// The greatest id that a session has used.
    pub(super) fn latest(&self, session: SessionId) -> RequestId {
        let known = self.live.iter().map(Live::name).chain(self.over.iter().map(|over| over.name));
        let of_session = known.filter(|name| name.0 == session).map(|name| name.1);
        of_session.max().unwrap_or_default()
    }

    /// The same request once more is answered the same.
    fn request_again(&self, name: Name, asked: &Request) -> RequestEvent {
        let Some(known) = self.find(name) else {
            let latest = self.latest(name.0);
            let forgotten = RequestEvent::Rejected(Rejection::RequestForgotten { latest });
            return self.find_over(name).map_or(forgotten, |over| over.answer.clone());
        };
        match self.live[known].token {
            _ if self.live[known].asked.claims != asked.claims => {
                RequestEvent::Rejected(Rejection::RequestIdReused)
            }
            Some(token) => RequestEvent::Granted { token },
            None => self.queued(known),
        }
    }

    /// What one who waits is told.
    fn queued(&self, waiting: usize) -> RequestEvent {
        let position = self.place(self.live[waiting].name()).unwrap_or(0);
        RequestEvent::Queued { position, ticket: Ticket::default() }
    }

    /// A new request is one of the last of those that wait, unless it is refused.
    fn enter(&mut self, session: SessionId, asked: Request) -> Result<(), Rejection> {
        let wait = asked.wait;
        let live = Live { session, asked: Rc::new(asked), came: self.now, token: None };
        self.check_conversion(&live)?;
        self.check_own_holds(&live)?;
        self.live.push(live);
        let new = self.live.len() - 1;
        let obstacle = self.obstacle(new).filter(|_| !self.is_downgrade(new)).cloned();
        let mut after = self.clone();
        if obstacle.is_none() {
            after.grant(new);
        }
        let refusal = match (obstacle, wait) {
            (Some(lock), Wait::Never) => Some(self.busy(new, lock)),
            _ if !after.left_over().is_empty() => Some(Rejection::Deadlock { cycle: Vec::new() }),
            _ => None,
        };
        match refusal {
            Some(refusal) => {
                self.live.pop();
                Err(refusal)
            }
            None => Ok(()),
        }
    }

    /// That a request would not wait for this lock; and if that is so, that others hold it as something
    /// else.
    fn busy(&self, asking: usize, lock: LockName) -> Rejection {
        let asking = &self.live[asking];
        let others = |live: &&Live| live.token.is_some() && asking.converts() != Some(live.name());
        let held = self.live.iter().filter(others).find_map(|live| live.mode(&lock)).map(permits);
        match (held, asking.mode(&lock)) {
            (Some(of), Some(asked)) if of != permits(asked) => {
                Rejection::HeldOtherwise { lock, of, asked }
            }
            (Some(_) | None, _) => Rejection::Busy { lock },
        }
    }

    /// A conversion is of a request that holds the same locks for the same owner.
    fn check_conversion(&self, asking: &Live) -> Result<(), Rejection> {
        let Some(name) = asking.converts() else { return Ok(()) };
        let converts = name.1;
        let held = self.live.iter().find(|live| live.name() == name && live.token.is_some());
        let held = held.ok_or(Rejection::NothingToConvert { converts })?;
        let locks = |of: &Live| -> BTreeSet<LockName> {
            of.claims().iter().map(|claim| claim.name.clone()).collect()
        };
        let is_converted = self.live.iter().any(|live| live.converts() == Some(name));
        if is_converted || locks(held) != locks(asking) || held.asked.owner != asking.asked.owner {
            return Err(Rejection::NotConvertible { converts });
        }
        Ok(())
    }

    /// Nobody asks for what it leaves itself no room for.
    fn check_own_holds(&self, asking: &Live) -> Result<(), Rejection> {
        for Claim { name: lock, mode } in asking.claims().iter().cloned() {
            let is_own =
                |live: &&Live| same_owner(live, asking) && asking.converts() != Some(live.name());
            let own = self.live.iter().filter(is_own);
            let held = own.filter_map(|live| Some((live.token?, live.mode(&lock)?)));
            let held: Vec<(FencingToken, Mode)> = held.collect();
            let modes = held.iter().map(|(_, mode)| *mode).chain([mode]);
            let latest = held.iter().map(|(token, _)| *token).max();
            if let Some(token) = latest.filter(|_| !fit(&modes.collect::<Vec<_>>())) {
                return Err(Rejection::AlreadyHeld { lock, token });
            }
        }
        Ok(())
    }

    /// A request's locks are given back.
    pub(super) fn release(&mut self, name: Name, token: FencingToken) -> Vec<(Name, RequestEvent)> {
        match self.find(name) {
            Some(held) if self.live[held].token == Some(token) => {
                self.end(name, RequestEvent::Released { token }, Some(token))
            }
            None if self.find_over(name).is_some_and(|over| over.released == Some(token)) => {
                vec![(name, RequestEvent::Released { token })]
            }
            Some(_) | None => vec![(name, RequestEvent::Rejected(Rejection::NotHolder { token }))],
        }
    }

    /// A request is given up.
    pub(super) fn cancel(&mut self, name: Name) -> Vec<(Name, RequestEvent)> {
        if self.find(name).is_none() && name.1 <= self.latest(name.0) {
            return vec![(name, RequestEvent::Cancelled)];
        }
        // Given up before it came, it is over before it comes.
        self.end(name, RequestEvent::Cancelled, None)
    }

    /// A request is not allowed any more: it leaves its queues, if it waits.
    pub(super) fn withdraw(&mut self, name: Name) -> Vec<(Name, RequestEvent)> {
        match self.find(name) {
            Some(live) if self.live[live].token.is_none() => {
                let rejection = Rejection::Forbidden;
                let answer = RequestEvent::Rejected(Rejection::AsBefore(rejection.code()));
                let mut told = self.end(name, answer, None);
                told[0].1 = RequestEvent::Rejected(rejection);
                told
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// An operator takes a lock away from the holder with this token. None: there is no such holder.
    pub(super) fn revoke(
        &mut self,
        lock: &LockName,
        token: FencingToken,
    ) -> Option<Vec<(Name, RequestEvent)>> {
        let is_meant = |live: &&Live| live.token == Some(token) && live.mode(lock).is_some();
        let name = self.live.iter().find(is_meant)?.name();
        Some(self.end(name, RequestEvent::Lost { token, reason: LostReason::Revoked }, None))
    }

    /// A session is over, with all that it has.
    pub(super) fn goodbye(&mut self, session: SessionId) {
        self.live.retain(|live| live.session != session);
    }

    /// The connection of a session breaks.
    pub(super) fn cut(&mut self, session: SessionId) {
        self.away.insert(session);
    }

    /// A session has a connection again.
    pub(super) fn resume(&mut self, session: SessionId) {
        self.away.remove(&session);
    }

    pub(super) fn is_away(&self, session: SessionId) -> bool {
        self.away.contains(&session)
    }

    /// Time has passed.
    pub(super) fn pass(&mut self, length: Duration) {
        self.now = self.now.after(length);
    }

    /// A request is over, and with it the one that waits to convert it.
    fn end(
        &mut self,
        name: Name,
        answer: RequestEvent,
        released: Option<FencingToken>,
    ) -> Vec<(Name, RequestEvent)> {
        let conversion = self.live.iter().find(|live| live.converts() == Some(name));
        let conversion = conversion.map(Live::name);
        self.live.retain(|live| live.name() != name);
        self.over.push(Over { name, answer: answer.clone(), released });
        let mut told = vec![(name, answer)];
        if let Some(conversion) = conversion {
            let rejection = Rejection::NothingToConvert { converts: name.1 };
            let answer = RequestEvent::Rejected(Rejection::AsBefore(rejection.code()));
            self.live.retain(|live| live.name() != conversion);
            self.over.push(Over { name: conversion, answer, released: None });
            told.push((conversion, RequestEvent::Rejected(rejection)));
        }
        told
    }

    /// Somebody says that this request was granted now. Panics if that could not be.
    pub(super) fn granted(&mut self, name: Name, token: FencingToken) {
        let request = self.find(name).unwrap_or_else(|| panic!("{name:?} is granted, and is over"));
        let why = self.obstacle(request);
        assert!(self.is_grantable(request), "{name:?} is granted, but has to wait for {why:?}");
        self.grant(request);
        // What it converted is gone, so it has moved.
        let known = self.find(name).and_then(|request| self.live[request].token);
        assert_eq!(Some(token), known, "the token of {name:?}");
    }

    /// Somebody says that this request has waited as long as it would. Says how it is answered.
    pub(super) fn timed_out(&mut self, name: Name) -> RequestEvent {
        let ungranted = self.live.iter().enumerate().find(|(i, _)| self.is_grantable(*i));
        assert!(ungranted.is_none(), "{name:?} times out before {ungranted:?} is granted");
        let waiting =
            self.find(name).unwrap_or_else(|| panic!("{name:?} times out when it is over"));
        let deadline = self.live[waiting].deadline();
        let earliest = self.live.iter().filter_map(Live::deadline).min();
        assert!(deadline.is_some_and(|at| at <= self.now), "{name:?} times out before its time");
        assert_eq!(deadline, earliest, "{name:?} times out before others");
        let first = self.live[waiting].claims().first().map(|claim| &claim.name);
        let is_away = self.away.contains(&name.0);
        let lock = self.obstacle(waiting).or(first.filter(|_| is_away));
        let lock = lock.unwrap_or_else(|| panic!("{name:?} waits for nothing"));
        let waited = self.now.since(self.live[waiting].came);
        let rejection = Rejection::TimedOut { lock: lock.clone(), waited };
        let answer = RequestEvent::Rejected(Rejection::AsBefore(rejection.code()));
        self.end(name, answer, None);
        RequestEvent::Rejected(rejection)
    }

    /// Panics if something should have happened by now.
    pub(super) fn settled(&self) {
        for (i, live) in self.live.iter().enumerate() {
            assert!(!self.is_grantable(i), "{:?} could be granted, and is not", live.name());
            assert!(live.deadline().is_none_or(|at| at > self.now), "{:?} is due", live.name());
        }
        assert_eq!(self.left_over(), [], "they wait for ever");
    }

    /// Who holds a lock, by token.
    pub(super) fn holders(&self, lock: &LockName) -> Vec<Holder> {
        let holder = |live: &Live| Some((live.name(), live.mode(lock)?, live.token?));
        let mut holders: Vec<Holder> = self.live.iter().filter_map(holder).collect();
        holders.sort_by_key(|(_, _, token)| *token);
        holders
    }

    /// Who waits for a lock, the next in line first.
    pub(super) fn waiters(&self, lock: &LockName) -> Vec<Waiter> {
        let waiter = |i: usize| {
            let live = &self.live[i];
            Some((live.name(), live.asked.owner, live.mode(lock)?))
        };
        self.queue(lock).into_iter().filter_map(waiter).collect()
    }

    /// The worst of a waiting request's places in the queues of its locks.
    pub(super) fn place(&self, name: Name) -> Option<u32> {
        let waiting = self.find(name).filter(|i| self.live[*i].token.is_none())?;
        let place = |claim: &Claim| self.queue(&claim.name).iter().position(|i| *i == waiting);
        let worst = self.live[waiting].claims().iter().filter_map(place).max()?;
        u32::try_from(worst + 1).ok()
    }

    /// The token of a request that holds.
    pub(super) fn token(&self, name: Name) -> Option<FencingToken> {
        self.find(name).and_then(|held| self.live[held].token)
    }

    fn find(&self, name: Name) -> Option<usize> {
        self.live.iter().position(|live| live.name() == name)
    }

    fn find_over(&self, name: Name) -> Option<&Over> {
        self.over.iter().rev().find(|over| over.name == name)
    }

    /// The service queue of a lock: those who wait for it, conversions first, in the order in which
    /// they came.
    fn queue(&self, lock: &LockName) -> Vec<usize> {
        let waits = |of: &Live| of.token.is_none() && of.mode(lock).is_some();
        let waiting = (0..self.live.len()).filter(|i| waits(&self.live[*i]));
        let mut queue: Vec<usize> = waiting.collect();
        queue.sort_by_key(|waiting| self.rank(*waiting));
        queue
    }

    /// Queues are in this order.
    fn rank(&self, waiting: usize) -> (bool, usize) {
        (self.live[waiting].converts().is_none(), waiting)
    }

    /// The first lock that keeps a waiting request from being granted: others are first, or hold it.
    fn obstacle(&self, waiting: usize) -> Option<&LockName> {
        let asking = &self.live[waiting];
        let converts = asking.converts();
        let is_obstacle = |claim: &&Claim| {
            let mut modes = vec![claim.mode];
            for (i, live) in self.live.iter().enumerate() {
                match live.mode(&claim.name) {
                    Some(mode) if live.token.is_some() => {
                        modes.extend(Some(mode).filter(|_| converts != Some(live.name())));
                    }
                    Some(_) if self.rank(i) < self.rank(waiting) && !self.passes(waiting, i) => {
                        return true;
                    }
                    Some(_) | None => {}
                }
            }
            !fit(&modes)
        };
        asking.claims().iter().find(is_obstacle).map(|claim| &claim.name)
    }

    /// Whether one who waits goes before another who is away: its owner waits for nothing else.
    fn passes(&self, waiting: usize, other: usize) -> bool {
        let asking = &self.live[waiting];
        let waits = |live: &&Live| live.token.is_none() && same_owner(live, asking);
        self.away.contains(&self.live[other].session) && self.live.iter().filter(waits).count() == 1
    }

    /// Whether a request only gives back a part of what it converts.
    fn is_downgrade(&self, waiting: usize) -> bool {
        let asking = &self.live[waiting];
        let Some(converted) = asking.converts().and_then(|name| self.find(name)) else {
            return false;
        };
        asking.claims().iter().all(|claim| {
            let held = self.live[converted].mode(&claim.name);
            held.is_some_and(|held| is_no_stronger(claim.mode, held))
        })
    }

    fn is_grantable(&self, request: usize) -> bool {
        let waits = self.live[request].token.is_none();
        let is_there = !self.away.contains(&self.live[request].session);
        waits && is_there && (self.is_downgrade(request) || self.obstacle(request).is_none())
    }

    /// Makes a request the holder of what it claims; what it converts is over.
    fn grant(&mut self, request: usize) {
        let converted = self.live[request].converts();
        let kept = self.is_downgrade(request);
        let before = converted.and_then(|name| self.live[self.find(name)?].token);
        self.live[request].token = match before {
            Some(token) if kept => Some(token),
            Some(_) | None => {
                let token = self.next_token;
                self.next_token = token.next();
                Some(token)
            }
        };
        if let (Some(name), Some(token)) = (converted, before) {
            self.live.retain(|live| live.name() != name);
            self.over.push(Over {
                name,
                answer: RequestEvent::Released { token },
                released: Some(token),
            });
        }
    }

    /// The requests that would wait for ever.
    fn left_over(&self) -> Vec<Name> {
        if self.live.iter().all(|live| live.token.is_some()) {
            return Vec::new();
        }
        // Whoever is away may come back, to its place.
        let (live, over, away) = (self.live.clone(), Vec::new(), BTreeSet::new());
        let mut rest = Self { live, over, away, ..*self };
        loop {
            if let Some(next) = (0..rest.live.len()).find(|i| rest.is_grantable(*i)) {
                rest.grant(next);
                continue;
            }
            let waits = |of: &Live| {
                rest.live.iter().any(|live| live.token.is_none() && same_owner(live, of))
            };
            let Some(free) = rest.live.iter().find(|live| !waits(live)).map(Live::name) else {
                let waiting = rest.live.iter().filter(|live| live.token.is_none());
                return waiting.map(Live::name).collect();
            };
            rest.live.retain(|live| live.name() != free);
        }
    }
}

/// Whether two requests are of one owner: of the same one by name, or one and the same, or one
/// waits to convert the other.
fn same_owner(a: &Live, b: &Live) -> bool {
    let named = a.asked.owner != OwnerId::default();
    (named && (a.session, a.asked.owner) == (b.session, b.asked.owner))
        || a.name() == b.name()
        || a.converts() == Some(b.name())
        || b.converts() == Some(a.name())
}

/// Whether these may hold one lock together.
pub(super) fn fit(modes: &[Mode]) -> bool {
    let all_shared = modes.iter().all(|mode| *mode == Mode::Shared);
    let taken = |mode: &Mode| match mode {
        Mode::Permits { take, of } => Some((*take, *of)),
        Mode::Exclusive | Mode::Shared => None,
    };
    let permits: Option<Vec<(u32, u32)>> = modes.iter().map(taken).collect();
    let all_permits = permits.is_some_and(|permits| {
        let sum: u32 = permits.iter().map(|(take, _)| take).sum();
        permits.iter().all(|(_, of)| sum <= *of && *of == permits[0].1)
    });
    modes.len() <= 1 || all_shared || all_permits
}

/// How many permits a lock has that is claimed like this, if it is a semaphore.
fn permits(mode: Mode) -> Option<u32> {
    match mode {
        Mode::Exclusive | Mode::Shared => None,
        Mode::Permits { of, .. } => Some(of),
    }
}

/// Whether one mode takes no more of a lock than another.
fn is_no_stronger(mode: Mode, than: Mode) -> bool {
    match (mode, than) {
        (Mode::Shared, Mode::Shared) | (_, Mode::Exclusive) => true,
        (Mode::Permits { take, of }, Mode::Permits { take: than, of: before }) => {
            take <= than && of == before
        }
        (Mode::Exclusive | Mode::Shared | Mode::Permits { .. }, _) => false,
    }
}
