//! Live requests: those that wait and those that hold. A finished one lives on only as an
//! [`Outcome`](super::session::Outcome) in its session, which makes repeating it idempotent.

use std::hash::BuildHasher;
use std::mem;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use hashbrown::HashTable;

use super::arena::{
    Arena, ClaimKey, Linked, Links, OwnerKey, RequestKey, SessionKey, is_mostly_empty,
};
use super::event::{Progress, Supersede};
use super::owner::ByOwner;
use super::pause::Keep;
use crate::engine::seed::Seed;
use crate::types::{FencingToken, Note, RequestId, Ticket, Timestamp};

/// A request that waits or holds.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Live {
    /// Its session.
    pub(super) session: SessionKey,
    /// Its name within the session.
    pub(super) id: RequestId,
    /// Whether it waits or holds. All its claims do the same (rule R5).
    pub(super) state: State,
    /// Since when it waits or holds.
    pub(super) since: Timestamp,
    /// The first of its claims; the others follow by `ClaimNode::sibling`.
    pub(super) first: Option<ClaimKey>,
    /// Whether those who listen to tenures have heard of its grant: then they hear of its end.
    #[serde(skip)]
    pub(super) is_noted: bool,
    /// Its neighbours among its session's requests.
    session_links: Links<RequestKey>,
    /// Rare attributes; none: it has none. There may be millions of requests.
    more: Option<Box<More>>,
}

/// What there is about few requests only.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct More {
    /// Its owner; none: the request is an owner of its own (rule R7).
    pub(super) owner: Option<OwnerKey>,
    /// Its neighbours among its owner's requests.
    owner_links: Links<RequestKey>,
    /// While it waits: the request that it converts, whose place it is to take. While it holds: the
    /// request that waits to convert it. Invariant: those two name each other.
    pub(super) partner: Option<RequestKey>,
    /// While it holds: the token of what it converted. Its client believes in that until it hears of
    /// the grant, and would reclaim it (rule G3).
    pub(super) replaced: Option<FencingToken>,
    /// Pause before its locks are granted anew if it is lost (rule S7).
    pub(super) lock_delay: Duration,
    /// Whether and for how long its locks are kept from its grant on (rule S9).
    pub(super) keep: Option<Box<Keep>>,
    /// Whether it ends older ones, and while it waits is ended by newer ones (rule S10).
    pub(super) supersede: Supersede,
    /// Its purpose, for people.
    pub(super) note: Option<Note>,
}

impl More {
    const NOTHING: Self = Self {
        owner: None,
        owner_links: Links::NONE,
        partner: None,
        replaced: None,
        lock_delay: Duration::ZERO,
        keep: None,
        supersede: Supersede::Nobody,
        note: None,
    };
}

/// What there is about most.
static NOTHING: More = More::NOTHING;

/// What queues are ordered by: conversions first, then by ticket. Tickets are what clients show of
/// them, so two may show the same. Yet of two claims in a queue, one must be the first for
/// everybody. The same as long as a request waits.
pub(super) type Rank = (bool, Ticket, RequestKey);

/// Whether a request waits or holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    /// In the queues of all its locks.
    Waiting {
        /// When it stops waiting.
        deadline: Option<Timestamp>,
        /// Its place among all that ever waited.
        ticket: Ticket,
        /// Whether its place is told.
        progress: Progress,
        /// The place it was last told; 0: none.
        told: u32,
    },
    /// Among the holders of all its locks.
    Held {
        /// The token of its grant.
        token: FencingToken,
    },
}

impl Live {
    /// One that waits for nothing yet.
    pub(super) fn new(
        session: SessionKey,
        id: RequestId,
        progress: Progress,
        since: Timestamp,
    ) -> Self {
        let (deadline, ticket, told) = (None, Ticket::default(), 0);
        let state = State::Waiting { deadline, ticket, progress, told };
        let (first, session_links, more) = (None, Links::NONE, None);
        Self { session, id, state, since, first, is_noted: false, session_links, more }
    }

    /// What there is about few requests.
    pub(super) fn more(&self) -> &More {
        self.more.as_deref().unwrap_or(&NOTHING)
    }

    /// Whether it is one of those few.
    pub(super) fn has_more(&self) -> bool {
        self.more.is_some()
    }

    /// Who asked; none: it is an owner of its own.
    pub(super) fn owner(&self) -> Option<OwnerKey> {
        self.more().owner
    }

    /// What it converts, or what is to convert it.
    pub(super) fn partner(&self) -> Option<RequestKey> {
        self.more().partner
    }

    /// What there is about few requests, to be changed: this request becomes one of the few.
    pub(super) fn more_mut(&mut self) -> &mut More {
        self.more.get_or_insert_with(|| Box::new(More::NOTHING))
    }

    pub(super) fn is_held(&self) -> bool {
        matches!(self.state, State::Held { .. })
    }

    /// The next of its session's requests.
    pub(super) fn next_of_session(&self) -> Option<RequestKey> {
        self.session_links.next()
    }

    /// Its token, if it holds.
    pub(super) fn token(&self) -> Option<FencingToken> {
        match self.state {
            State::Held { token } => Some(token),
            State::Waiting { .. } => None,
        }
    }

    /// Its place among all that ever waited, while it waits.
    pub(super) fn ticket(&self) -> Ticket {
        match self.state {
            State::Waiting { ticket, .. } => ticket,
            State::Held { .. } => Ticket::default(),
        }
    }

    /// Its place is told again, whatever it was told.
    pub(super) fn forget_told(&mut self) {
        if let State::Waiting { told, .. } = &mut self.state {
            *told = 0;
        }
    }

    /// Whether it waits and is told its place.
    pub(super) fn is_told(&self) -> bool {
        matches!(self.state, State::Waiting { progress: Progress::Told, .. })
    }

    /// Whether it ends older ones, and newer ones end it.
    pub(super) fn supersedes(&self) -> bool {
        self.more().supersede == Supersede::Older
    }

    /// Whether it waits to take the place of a request that is held.
    pub(super) fn is_conversion(&self) -> bool {
        !self.is_held() && self.partner().is_some()
    }
}

impl Linked<RequestKey, ByOwner> for Live {
    fn links(&self) -> &Links<RequestKey> {
        &self.more().owner_links
    }

    fn links_mut(&mut self) -> &mut Links<RequestKey> {
        &mut self.more_mut().owner_links
    }
}

impl Linked<RequestKey> for Live {
    fn links(&self) -> &Links<RequestKey> {
        &self.session_links
    }

    fn links_mut(&mut self) -> &mut Links<RequestKey> {
        &mut self.session_links
    }
}

/// So many requests of a session in a row are neighbours in the table.
const ROW: u64 = 8;
/// From one neighbour to the next: one place further, and another tag, of which a hash table keeps the
/// upper bits.
const NEIGHBOUR: u64 = (1 << 57) + 1;

/// Where to look for a request. Ids come one after the other: with a million others in the table, each
/// would be at a place that no cache knows. So only the rows are scattered, by the seed's seed, and
/// no choice of ids brings more than a row together.
fn hash_of(seed: &impl BuildHasher, session: SessionKey, id: RequestId) -> u64 {
    let (row, place) = (id.number() / ROW, id.number() % ROW);
    seed.hash_one((session, row)).wrapping_add(place * NEIGHBOUR)
}

/// All live requests, found by session and id.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Requests {
    pub(super) arena: Arena<RequestKey, Live>,
    #[serde(skip)]
    by_id: HashTable<RequestKey>,
    /// The one that came last: it is asked for next. Only where to look first, it may be any or none.
    #[serde(skip)]
    latest: Option<RequestKey>,
    #[serde(skip)]
    seed: Seed,
}

impl Requests {
    pub(super) fn new(seed: Seed) -> Self {
        Self { arena: Arena::new(), by_id: HashTable::new(), latest: None, seed }
    }

    /// Finds all of them anew, by `seed`.
    pub(super) fn index(&mut self, seed: Seed) {
        let arena = mem::replace(&mut self.arena, Arena::new());
        *self = Self { arena, ..Self::new(seed) };
        let Self { arena, by_id, seed, .. } = self;
        let hash = |key: &RequestKey| hash_of(seed, arena[*key].session, arena[*key].id);
        by_id.reserve(arena.len(), hash);
        for key in arena.keys() {
            by_id.insert_unique(hash(&key), key, hash);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.arena.len()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = RequestKey> {
        self.arena.keys()
    }

    pub(super) fn find(&self, session: SessionKey, id: RequestId) -> Option<RequestKey> {
        let is_meant = |live: &Live| live.session == session && live.id == id;
        if let Some(key) = self.latest
            && self.arena.get(key).is_some_and(is_meant)
        {
            return Some(key);
        }
        let hash = hash_of(&self.seed, session, id);
        self.by_id.find(hash, |key| is_meant(&self.arena[*key])).copied()
    }

    pub(super) fn insert(&mut self, live: Live) -> RequestKey {
        let hash = hash_of(&self.seed, live.session, live.id);
        let key = self.arena.insert(live);
        self.latest = Some(key);
        let Self { arena, by_id, seed, .. } = self;
        let rehash = |key: &RequestKey| hash_of(seed, arena[*key].session, arena[*key].id);
        by_id.insert_unique(hash, key, rehash);
        key
    }

    pub(super) fn remove(&mut self, key: RequestKey) -> Live {
        let live = self.arena.remove(key);
        let hash = hash_of(&self.seed, live.session, live.id);
        if let Ok(entry) = self.by_id.find_entry(hash, |other| *other == key) {
            entry.remove();
        }
        if is_mostly_empty(self.by_id.len(), self.by_id.capacity()) {
            let Self { arena, by_id, seed, .. } = self;
            let rehash = |key: &RequestKey| hash_of(seed, arena[*key].session, arena[*key].id);
            by_id.shrink_to(by_id.len() * 2, rehash);
        }
        live
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> [usize; 2] {
        [self.arena.places(), self.by_id.capacity()]
    }
}

impl Requests {
    /// Where a request stands in queues.
    pub(super) fn rank(&self, request: RequestKey) -> Rank {
        let live = &self.arena[request];
        (!live.is_conversion(), live.ticket(), request)
    }
}

impl std::ops::Index<RequestKey> for Requests {
    type Output = Live;
    fn index(&self, key: RequestKey) -> &Live {
        &self.arena[key]
    }
}

impl std::ops::IndexMut<RequestKey> for Requests {
    fn index_mut(&mut self, key: RequestKey) -> &mut Live {
        &mut self.arena[key]
    }
}
