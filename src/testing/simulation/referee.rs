//! The referee: the clients' observations, recorded with true time. It judges at once where it can,
//! and the history checker judges at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write};
use std::mem;
use std::sync::Arc;

use super::ruling::Ruling;
use super::tally::Tally;
use crate::engine::Forfeit;
use crate::server::{Change, Granted};
use crate::testing::fuzz::Random;
use crate::testing::history::{Entry, How, Log, RequestName, Wanted, What};
use crate::types::{Epoch, FencingToken, LockName, Mode, RequestId, SessionId, Timestamp};

/// A lock of this world, by its number.
pub(super) type Lock = usize;

/// How a lock is meant to be used; nobody is kept from using the last kind otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Alone or shared.
    Plain,
    /// With permits, of so many.
    Semaphore { of: u32 },
    /// Either.
    Mixed,
}

/// When something happened: by true time, and by the clock of whose machine it happened on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) at: u64,
    pub(super) local: Timestamp,
}

/// What becomes of all that happened.
#[derive(Debug)]
pub(super) enum Trace {
    /// Nobody wants to know.
    Off,
    /// It is kept, to be compared.
    Kept(String),
    /// It is printed as it happens, to be read.
    Printed,
}

/// In which lives of the coordinator a hold was known.
struct Known {
    /// The last.
    life: u64,
    /// Whether there was one in between of which it was not.
    has_missed: bool,
}

/// Sees everything.
pub(super) struct Referee {
    /// The locks that there are; behind them one for which only clients of the Redis dialect ask.
    locks: Vec<(Arc<str>, Kind)>,
    /// What clients saw.
    log: Log,
    /// Whose each session is, once its client has heard of it.
    pub(super) sessions: BTreeMap<SessionId, (usize, u64)>,
    /// In which epoch the coordinator ended a session, which its client may not have heard of, nor even
    /// of the session.
    pub(super) ended: BTreeMap<SessionId, Epoch>,
    /// The tokens that operators took away, or tried to.
    pub(super) revoked: BTreeSet<u64>,
    /// Requests, and clients, that the history has nothing more to say of.
    ignored: BTreeSet<RequestName>,
    ignored_clients: BTreeSet<u64>,
    /// Counts the starts of which the coordinator knew nobody but those who came back.
    life: u64,
    /// The greatest tokens with which each lock was granted to be held alone, and shared.
    latest: BTreeMap<LockName, (u64, u64)>,
    /// By the tokens of which the coordinator said that they hold: in which life it last did, and
    /// whether it was never asked in one before. A conversion that keeps the token is the same hold.
    known: BTreeMap<u64, Known>,
    /// Requests that others are, or were, to convert.
    converted: BTreeSet<(SessionId, RequestId)>,
    /// What the coordinator has put on record, by number, and what of that it keeps no longer.
    records: BTreeMap<u64, Forfeit>,
    outdated: BTreeSet<Forfeit>,
    /// What the access file forbids, and forbade.
    pub(super) ruling: Ruling,
    /// What it came to, in words and numbers.
    pub(super) tally: Tally,
    /// What becomes of all that happened.
    trace: Trace,
}

impl Referee {
    /// One for a world with two to four locks.
    pub(super) fn new(dice: &mut Random, trace: Trace) -> Self {
        let mut locks: Vec<(Arc<str>, Kind)> =
            vec![("a".into(), Kind::Plain), ("gpu".into(), Kind::Semaphore { of: 3 })];
        let more = [("b".into(), Kind::Plain), ("m".into(), Kind::Mixed)];
        locks.extend(more.into_iter().take(dice.below(3)));
        locks.push(("r".into(), Kind::Plain));
        Self {
            locks,
            log: Log::default(),
            sessions: BTreeMap::new(),
            ended: BTreeMap::new(),
            revoked: BTreeSet::new(),
            ignored: BTreeSet::new(),
            ignored_clients: BTreeSet::new(),
            life: 0,
            latest: BTreeMap::new(),
            known: BTreeMap::new(),
            converted: BTreeSet::new(),
            records: BTreeMap::new(),
            outdated: BTreeSet::new(),
            ruling: Ruling::default(),
            tally: Tally::default(),
            trace,
        }
    }

    /// How many locks there are for native clients.
    pub(super) fn lock_count(&self) -> usize {
        self.locks.len() - 1
    }

    pub(super) fn name(&self, lock: Lock) -> Arc<str> {
        Arc::clone(&self.locks[lock].0)
    }

    /// What all of them are called.
    pub(super) fn names(&self) -> impl Iterator<Item = Arc<str>> {
        self.locks.iter().map(|(name, _)| Arc::clone(name))
    }

    /// Those that are held alone or shared.
    pub(super) fn plain_locks(&self) -> Vec<Lock> {
        (0..self.locks.len()).filter(|lock| self.kind(*lock) == Kind::Plain).collect()
    }

    pub(super) fn kind(&self, lock: Lock) -> Kind {
        self.locks[lock].1
    }

    /// Something happens, for who reads on.
    pub(super) fn trace(&mut self, at: u64, what: impl Debug) {
        match &mut self.trace {
            Trace::Off => {}
            Trace::Kept(kept) => writeln!(kept, "{at} {what:?}").unwrap(),
            Trace::Printed => println!("{at} {what:?}"),
        }
    }

    /// A client does something, or is told something.
    pub(super) fn note(&mut self, moment: Moment, client: u64, number: u64, what: What) {
        let Moment { at, local } = moment;
        let request = RequestName { client, number };
        if self.ignored.contains(&request) || self.ignored_clients.contains(&client) {
            return;
        }
        let entry = Entry { at, local: local.as_micros(), request, what };
        self.trace(at, &entry);
        self.log.note(entry);
    }

    /// The history has nothing more to say of a request.
    pub(super) fn ignore(&mut self, client: u64, number: u64) {
        self.ignored.insert(RequestName { client, number });
    }

    /// The history has nothing more to say of a client.
    pub(super) fn ignore_client(&mut self, client: u64) {
        self.ignored_clients.insert(client);
    }

    /// These requests are to be converted.
    pub(super) fn convert(&mut self, converted: Vec<(SessionId, RequestId)>) {
        self.converted.extend(converted);
    }

    /// The coordinator has begun, and knows nobody but those who come back.
    pub(super) fn begin_life(&mut self) {
        self.life += 1;
    }

    /// The coordinator wants something written down, or forgotten.
    pub(super) fn order(&mut self, change: &Change) {
        match *change {
            Change::Forfeit { number, forfeit } => {
                self.outdated.remove(&forfeit);
                self.records.insert(number, forfeit);
            }
            Change::ForgetForfeits { below } => {
                let useful = self.records.split_off(&below);
                self.outdated.extend(mem::replace(&mut self.records, useful).into_values());
            }
            _ => {}
        }
    }

    /// Whether somebody comes for what was lost so long ago that the coordinator cannot know: no record
    /// is kept any more, or it was lost in a life that its client missed. That comes to the mind of
    /// nobody whose clock did not stand still.
    fn is_too_late(&self, session: SessionId, token: FencingToken) -> bool {
        let client = self.sessions.get(&session);
        let is_misled = client.is_some_and(|(_, name)| self.ignored_clients.contains(name));
        let is_outdated = |forfeit| self.outdated.contains(&forfeit);
        let has_missed = || self.known.get(&token.number()).is_some_and(|known| known.has_missed);
        is_misled
            && (is_outdated(Forfeit::Session(session))
                || is_outdated(Forfeit::Grant(token))
                || has_missed())
    }

    /// The coordinator says that something is held. Whatever it was that passed on is never given
    /// back to whom it was before: not by a grant, and not by a reclaim (rules G1, G3).
    pub(super) fn granted(&mut self, granted: Granted) {
        let Granted { session, request, token, claims } = granted;
        let life = self.life;
        let known = self.known.entry(token.number()).or_insert(Known { life, has_missed: false });
        known.has_missed |= known.life + 1 < life;
        known.life = life;
        // What it was converted to, unheard, may have let others in.
        let is_sure =
            !self.converted.contains(&(session, request)) && !self.is_too_late(session, token);
        let token = token.number();
        for (lock, mode) in claims {
            let (alone, shared) = self.latest.entry(lock).or_default();
            let passed_on_to = match mode {
                Mode::Exclusive => (*alone).max(*shared),
                Mode::Shared => *alone,
                Mode::Permits { .. } => 0,
            };
            assert!(
                token >= passed_on_to || !is_sure,
                "request {request} of session {session} holds with token {token} what had passed on \
                 with token {passed_on_to}"
            );
            match mode {
                Mode::Exclusive => *alone = (*alone).max(token),
                Mode::Shared => *shared = (*shared).max(token),
                Mode::Permits { .. } => {}
            }
        }
    }

    /// What is wanted, as the history has it.
    pub(super) fn wanted(&self, claims: &[(Lock, Mode)]) -> Vec<Wanted> {
        let how = |mode| match mode {
            Mode::Exclusive => How::Exclusive,
            Mode::Shared => How::Shared,
            Mode::Permits { take, of } => How::Permits { take, of },
        };
        let wanted =
            |&(lock, mode): &(Lock, Mode)| Wanted { lock: self.name(lock), how: how(mode) };
        claims.iter().map(wanted).collect()
    }

    /// Of a lock, all in whose hands it is at a moment: no two of them may exclude each other.
    pub(super) fn assert_compatible(&self, at: u64, lock: Lock, believers: &[Mode]) {
        let [first, rest @ ..] = believers else { return };
        let are = match *first {
            Mode::Exclusive => rest.is_empty(),
            Mode::Shared => rest.iter().all(|mode| *mode == Mode::Shared),
            Mode::Permits { of, .. } => {
                let take = |mode: &Mode| match *mode {
                    Mode::Permits { take, of: same } if same == of => u64::from(take),
                    Mode::Exclusive | Mode::Shared | Mode::Permits { .. } => u64::MAX / 64,
                };
                believers.iter().map(take).sum::<u64>() <= u64::from(of)
            }
        };
        assert!(are, "{:?} is in the hands of {believers:?} at {at}", self.name(lock));
    }

    /// The judgement on everything. Gives back all that happened, if it was kept.
    pub(super) fn judge(self) -> Option<String> {
        let trace = match self.trace {
            Trace::Kept(kept) => Some(kept),
            Trace::Off | Trace::Printed => None,
        };
        if let Err(violations) = self.log.check() {
            let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
            panic!("the history cannot be:\n{}", lines.join("\n"));
        }
        trace
    }
}
