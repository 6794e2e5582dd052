//! Invariants of the table, checked after every event in every test of the engine.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::LockTable;
use super::arena::{ClaimKey, LockKey, RequestKey};
use super::deadlines::Due;
use super::owner::REQUESTS_LOOKED_THROUGH_MAX;
use super::records::AfterRecord;
use super::request::State;
use super::session::{Moving, Presence};
use super::shape::{Shape, share};
use crate::types::{Mode, Origin, OwnerId};

impl LockTable {
    /// Panics if the table contradicts itself or a rule.
    pub(super) fn assert_invariants(&self) {
        self.assert_each_is_well();
        self.invariant_no_deadlock();
    }

    /// [`LockTable::assert_invariants`], without the question who waits for whom, which in a crowd is
    /// asked too often.
    pub(super) fn assert_each_is_well(&self) {
        let is_put_off = self.deferred.is_spent() || self.deferred.withholds();
        assert!(!self.deferred.has_unsettled() || is_put_off, "a lock was left unsettled");
        let claims_in_locks = self.invariant_locks();
        let (claims, held) = self.invariant_requests();
        assert_eq!(claims, claims_in_locks, "claims of requests, claims in locks");
        assert_eq!(claims, self.claims.len(), "claims of requests, claims that exist");
        assert_eq!(held, self.held, "requests that hold");
        self.invariant_deadlines();
        self.invariant_kept();
        self.invariant_owners();
    }

    /// How many places there are for things of each kind, in use or not.
    pub(super) fn places(&self) -> Vec<usize> {
        let sessions = self.sessions.places().into_iter().chain(self.owners.places());
        let requests = self.requests.places().into_iter().chain([self.claims.places()]);
        sessions.chain(requests).chain(self.locks.places()).collect()
    }

    /// Holders fit together, heads of queues have a reason to wait, idle locks are gone.
    fn invariant_locks(&self) -> usize {
        let mut claims = 0;
        for key in self.locks.keys() {
            let (lock, queue) = (&self.locks[key], self.locks.queue(key));
            assert!(
                !lock.is_idle() || lock.is_unsettled,
                "{} is idle, yet in the table",
                lock.name
            );
            let modes: Vec<Mode> =
                lock.holders.iter(&self.claims).map(|claim| self.claims[claim].mode).collect();
            let alone = modes.contains(&Mode::Exclusive);
            assert!(!alone || modes.len() == 1, "{}: {modes:?} hold it together", lock.name);
            let (taken, capacity) = lock.taken_and_capacity();
            assert!(taken <= capacity, "{}: {taken} of {capacity} are taken", lock.name);
            let is_same = |mode: &Mode| Shape::of(*mode) == lock.shape;
            assert!(modes.iter().all(is_same), "{}: {modes:?} differ", lock.name);
            assert_eq!(taken == 0, modes.is_empty(), "{}: taken by nobody", lock.name);
            let has_owner =
                |claim: &ClaimKey| self.requests[self.claims[*claim].request].owner().is_some();
            let owned = lock.holders.iter(&self.claims).filter(has_owner);
            let owned: u64 = owned.map(|claim| share(self.claims[claim].mode)).sum();
            assert_eq!(owned, lock.owned(), "{}: what owners have", lock.name);
            let is_pair = |claim: &ClaimKey| self.is_pair(self.claims[*claim].request);
            let pairs = queue.iter(&self.claims).filter(is_pair).count();
            assert_eq!(pairs, queue.pairs(), "{}: pairs in a queue", lock.name);
            for claim in lock.holders.iter(&self.claims) {
                let node = &self.claims[claim];
                assert!(node.lock == key && !node.is_queued());
                assert!(self.requests[node.request].is_held(), "a waiter among the holders");
            }
            let mut told = false;
            for (index, claim) in queue.iter(&self.claims).enumerate() {
                let node = &self.claims[claim];
                assert!(node.lock == key && node.is_queued());
                assert!(!self.requests[node.request].is_held(), "a holder in the queue");
                let is_told = self.requests[node.request].is_told();
                told |= is_told;
                let known = node.place as usize;
                let exact = is_told && index < super::PLACES_TOLD_MAX && !lock.is_unsettled;
                assert!(!exact || known == index + 1, "{}: {known} is not {index}", lock.name);
            }
            assert_eq!(told, queue.has_listeners());
            let in_queue = queue.iter(&self.claims);
            let entangled: Vec<_> =
                in_queue.filter(|c| self.is_entangled(self.claims[*c].request)).collect();
            let kept: Vec<_> = queue.entangled().iter(&self.claims).collect();
            assert_eq!(entangled, kept, "{}: the entangled in its queue", lock.name);
            queue.invariant(&self.claims, &self.requests);
            self.locks.invariant_holders(key, &self.claims, &self.requests);
            let wanted = queue.iter(&self.claims).map(|c| share(self.claims[c].mode)).max();
            assert!(wanted.unwrap_or(0) <= queue.share_max());
            self.invariant_presence(key);
            if let Some(next) = queue.first_present(&self.claims, &self.requests) {
                let session = self.requests[self.claims[next].request].session;
                let waits = self.obstacle(self.claims[next].request).is_some();
                let is_gone = self.sessions[session].moving != Moving::No || self.is_dead(session);
                // Another of its locks may be the one that is looked at.
                let mut locks = self.claims_of(self.claims[next].request);
                let is_unsettled = locks.any(|it| self.locks[self.claims[it].lock].is_unsettled);
                let comes =
                    self.deferred.is_starved() || is_unsettled || self.deferred.is_sweeping();
                assert!(waits || is_gone || comes, "{}: the next waits for nothing", lock.name);
            }
            claims += lock.holders.len() + queue.len();
        }
        let many = |key: &LockKey| self.locks.is_marked(*key);
        assert_eq!(self.locks.keys().filter(many).count(), self.locks.marked(), "marks of no lock");
        claims
    }

    /// Of each who waits it is noted whether it is away.
    fn invariant_presence(&self, key: LockKey) {
        let queue = self.locks.queue(key);
        let session = |claim: ClaimKey| {
            let session = self.requests[self.claims[claim].request].session;
            &self.sessions[session]
        };
        let away = queue.away(&self.claims, &self.requests);
        let is_away = |claim: &ClaimKey| match session(*claim).moving {
            Moving::No => session(*claim).presence() == Presence::Away,
            Moving::Once | Moving::Again => away.contains(claim),
        };
        let really: Vec<_> = queue.iter(&self.claims).filter(is_away).collect();
        assert_eq!(away, really, "{}: who is away", self.locks[key].name);
    }

    /// The sessions of each address are counted.
    fn invariant_origins(&self) {
        let mut counts = BTreeMap::<Origin, usize>::new();
        for (_, session) in self.sessions.iter_from(0) {
            if let Some(peer) = session.peer {
                *counts.entry(Origin::of(peer.ip())).or_default() += 1;
            }
        }
        for (origin, count) in counts {
            assert_eq!(count, self.sessions.from(origin), "sessions from {origin}");
        }
    }

    /// Requests are their session's, tokens are different, all claims of one are in one state.
    fn invariant_requests(&self) -> (usize, usize) {
        let is_put_off = self.deferred.is_spent();
        let (mut claims, mut held, mut requests) = (0, 0, 0);
        let mut tokens = HashSet::new();
        let mut of_sessions: HashSet<RequestKey> = HashSet::new();
        self.invariant_origins();
        for (_, session) in self.sessions.iter_from(0) {
            assert!(session.wakes <= session.ends, "it would wake after its end");
            let is_alive = session.ends > self.heard || session.is_kept_waiting();
            assert!(is_alive || is_put_off, "a dead session is in the table");
            if let Some(connection) = session.connection {
                let found = self.sessions.of_connection(connection);
                assert_eq!(found, self.sessions.find(session.id), "whose connection is it");
            }
            session.requests.invariant(&self.requests.arena, |live| live.id);
            let own: Vec<_> = session.requests.iter(&self.requests.arena).collect();
            let held = own.iter().filter(|request| self.requests[**request].is_held()).count();
            let claims: usize = own.iter().map(|request| self.claims_of(*request).count()).sum();
            assert_eq!((held, claims), (session.held, session.claims));
            of_sessions.extend(own);
        }
        let mut over = 0;
        for (_, session) in self.sessions.iter_all().filter(|(_, session)| session.is_over) {
            of_sessions.extend(session.requests.iter(&self.requests.arena));
            over += 1;
        }
        let of_sessions_over = |then: &&AfterRecord| matches!(then, AfterRecord::Session(_));
        let pending = self.records.to_happen().filter(of_sessions_over).count();
        assert_eq!(over, pending, "sessions that are over, and that have yet to be so");
        self.records.invariant();
        for key in self.requests.keys() {
            requests += 1;
            assert!(of_sessions.contains(&key), "a request of no session");
            assert_eq!(
                self.requests.find(self.requests[key].session, self.requests[key].id),
                Some(key)
            );
            claims += self.claims_of(key).count();
            match self.requests[key].state {
                State::Held { token } => {
                    held += 1;
                    assert!(tokens.insert(token), "{token} was granted twice");
                    assert!(token <= self.tokens.latest());
                }
                State::Waiting { .. } => {}
            }
        }
        assert_eq!(requests, of_sessions.len());
        (claims, held)
    }

    /// Owners have their requests and nobody else's, partners name each other.
    fn invariant_owners(&self) {
        let mut of_owners = 0;
        let mut named = 0;
        for key in self.owners.keys() {
            let owner = &self.owners[key];
            assert!(!owner.requests.is_empty(), "an owner of nothing");
            named += usize::from(owner.id != OwnerId::default());
            let many = owner.requests.len() > REQUESTS_LOOKED_THROUGH_MAX;
            assert!(
                owner.holdings.is_some() || !many,
                "an owner of many, whose holdings are not kept"
            );
            if let Some(holdings) = owner.holdings.as_deref() {
                assert_eq!(*holdings, self.holdings_of(key), "what an owner holds");
            }
            for request in owner.requests.iter(&self.requests.arena) {
                assert_eq!(self.requests[request].owner(), Some(key));
                of_owners += 1;
            }
            let all: Vec<_> = owner.requests.iter(&self.requests.arena).collect();
            let waits = |request: &&RequestKey| !self.requests[**request].is_held();
            assert_eq!(all.iter().filter(waits).count(), owner.waiting, "how many wait");
            assert!(all[..owner.waiting].iter().all(|it| waits(&it)), "those that wait are first");
        }
        assert_eq!(named, self.owners.named());
        let owned =
            self.requests.keys().filter(|key| self.requests[*key].owner().is_some()).count();
        assert_eq!(of_owners, owned, "requests of owners");
        for key in self.requests.keys() {
            let live = &self.requests[key];
            let Some(partner) = live.partner() else { continue };
            let other = &self.requests[partner];
            assert_eq!(other.partner(), Some(key), "partners name each other");
            assert!(live.is_held() != other.is_held(), "one of two partners waits");
            assert!(live.owner().is_some() && live.owner() == other.owner());
        }
    }

    /// Nobody waits for ever for those who wait for it.
    pub(super) fn invariant_no_deadlock(&self) {
        if self.deferred.has_suspects() {
            return;
        }
        for key in self.requests.keys().filter(|key| !self.requests[*key].is_held()) {
            assert!(!self.waits_for_ever(key), "a deadlock was missed: {:?}", self.requests[key]);
        }
    }

    /// What is kept, or will be, is counted.
    fn invariant_kept(&self) {
        let live = self.requests.keys().filter(|key| self.requests[*key].more().keep.is_some());
        let will_be: usize = live.map(|key| self.claims_of(key).count()).sum();
        let is_kept = |key: &LockKey| {
            self.locks[*key].delay.as_ref().is_some_and(|delay| delay.kept.is_some())
        };
        let kept = self.locks.keys().filter(is_kept).count();
        let (count, of_origins) = self.kept.counts();
        assert_eq!(count, kept + will_be);
        assert!(of_origins <= count);
    }

    /// Every deadline is there, and no other.
    fn invariant_deadlines(&self) {
        let mut expected = BTreeSet::new();
        for key in self.requests.keys() {
            if let State::Waiting { deadline: Some(at), .. } = self.requests[key].state {
                expected.insert((at, Due::Timeout(key)));
            }
        }
        for key in self.locks.keys() {
            let Some(delay) = &self.locks[key].delay else { continue };
            let until = delay.until().expect("a delay has a reason");
            expected.insert((until, Due::Delay(key)));
        }
        expected.extend(self.grace.until().map(|at| (at, Due::Grace)));
        assert_eq!(*self.deadlines.timeouts(), expected);
        assert_eq!(self.deadlines.leases().len(), self.sessions.len());
        for (at, session) in self.deadlines.leases() {
            assert_eq!(self.sessions[*session].wakes, *at);
        }
    }
}
