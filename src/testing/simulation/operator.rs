//! Somebody at the coordinator's machine, over a connection that never fails: takes locks away, watches
//! all of them, and hears of all that happens to requests.
//!
//! Three things are judged. Whenever a turn is over and nothing is left to do, the last view of
//! each lock shows its holders. The events of a request are a story in order. No grant is left out
//! of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::engine::LockView;
use crate::server::{Desk, Granted, Way, Witness};
use crate::types::{ConnectionId, RejectionCode};
use crate::wire::{self, Attach, ClientMessage, Happening, LockStatus, ServerMessage};

/// The operator's connection. All others have greater numbers.
pub(super) const CONNECTION: ConnectionId = ConnectionId::new(0);
/// The way to it. To all others it is the number of the wire.
pub(super) const WAY: Way = Way(usize::MAX);
/// The query of the subscription; those of the watches come after it.
const EVENTS: u64 = 1 << 60;

/// What an operator knows in a run of the coordinator.
#[derive(Debug)]
pub(super) struct Operator {
    /// The locks that it watches, each with the tokens that it was shown last; none before the first.
    shown: Vec<(Arc<str>, Option<BTreeSet<u64>>)>,
    /// How far the story of each request has come, by session, of those that it heard of.
    stories: BTreeMap<(u128, u64), Chapter>,
    /// Answers to revocations, by query; *no* has a reason.
    pub(super) revoked: Vec<(u64, Option<RejectionCode>)>,
}

/// How far the story of a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chapter {
    /// It waits, or is about to.
    Asked,
    /// It holds.
    Held,
    /// It does neither any more.
    Over,
}

impl Operator {
    /// One who is to watch these locks.
    pub(super) fn new(locks: impl Iterator<Item = Arc<str>>) -> Self {
        let shown = locks.map(|name| (name, None)).collect();
        Self { shown, stories: BTreeMap::new(), revoked: Vec::new() }
    }

    /// What it says first.
    pub(super) fn first_words(&self) -> Vec<ClientMessage> {
        let hello = wire::Hello::new(Attach::Observer, "operator");
        let mut words = vec![ClientMessage::Hello(hello)];
        words.push(ClientMessage::Subscribe { query_id: EVENTS, name: None });
        let watch = |(query_id, (name, _)): (u64, &(Arc<str>, _))| ClientMessage::Watch {
            query_id,
            name: name.to_string(),
        };
        words.extend((EVENTS + 1..).zip(&self.shown).map(watch));
        words
    }

    /// It is told something. Says how many locks it was shown.
    pub(super) fn hear(&mut self, messages: Vec<ServerMessage>) -> u64 {
        let mut looks = 0;
        for message in messages {
            match message {
                ServerMessage::Revoked { query_id } => self.revoked.push((query_id, None)),
                ServerMessage::Rejected { request, code, .. } => {
                    self.revoked.push((request.number(), Some(code)));
                }
                ServerMessage::LockStatus { query_id, locks, next: None } => {
                    looks += 1;
                    self.see(query_id, &locks);
                }
                ServerMessage::Event { session, request, what, .. } => {
                    self.hear_of((session.number(), request.number()), &what);
                }
                ServerMessage::Welcome { .. }
                | ServerMessage::Subscribed { query_id: EVENTS }
                | ServerMessage::Goodbye { .. } => {}
                other => panic!("the operator did not ask for {other:?}"),
            }
        }
        looks
    }

    fn see(&mut self, query_id: u64, locks: &[LockStatus]) {
        let nth = usize::try_from(query_id - EVENTS - 1).unwrap();
        let holders = locks.iter().flat_map(|lock| &lock.holders);
        self.shown[nth].1 = Some(holders.map(|holder| holder.token.number()).collect());
    }

    fn hear_of(&mut self, request: (u128, u64), what: &Happening) {
        // Of what the run before has left, only the end is told; of what is reclaimed, not the beginning.
        let before = self.stories.get(&request).copied();
        let (may_be, after) = match what {
            Happening::Requested => (before.is_none(), Chapter::Asked),
            Happening::Queued { .. } => (before == Some(Chapter::Asked), Chapter::Asked),
            Happening::Granted { .. } => {
                (matches!(before, None | Some(Chapter::Asked)), Chapter::Held)
            }
            Happening::Released { .. } | Happening::Lost { .. } => {
                (matches!(before, None | Some(Chapter::Held)), Chapter::Over)
            }
            Happening::Cancelled => (before != Some(Chapter::Over), Chapter::Over),
            Happening::Rejected { .. } => {
                (matches!(before, None | Some(Chapter::Asked)), Chapter::Over)
            }
        };
        assert!(may_be, "{what:?} is told of {request:?}, which was {before:?}");
        self.stories.insert(request, after);
    }

    /// It was told all that a turn had for it: nothing was left out.
    pub(super) fn check_told(&self, seen: &Witness) {
        for Granted { session, request, .. } in &seen.granted {
            let story = self.stories.get(&(session.number(), request.number()));
            assert_ne!(story, Some(&Chapter::Asked), "nobody told of a grant of {request}");
        }
    }

    /// All turns are over, and told: what was shown last is what is.
    pub(super) fn check_shown(&self, desk: &Desk) {
        if desk.is_behind() || desk.is_over() {
            return;
        }
        for (name, shown) in &self.shown {
            let Some(shown) = shown else { continue };
            let lock = desk.lock(name);
            let holders = lock.iter().flat_map(LockView::holders);
            let holders: BTreeSet<u64> = holders.map(|it| it.token.number()).collect();
            assert_eq!(*shown, holders, "what was shown last of {name:?} is not what is");
        }
    }
}
