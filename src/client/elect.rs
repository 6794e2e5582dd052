//! Leaders: who holds a lock leads, and everybody can know who that is.

use std::time::{Duration, Instant};

use crate::types::{FencingToken, SessionId};
use crate::wire::LockStatus;

use super::error::Error;
use super::watch::Watch;

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leader {
    /// What it stood for election with.
    pub value: String,
    /// The token of its term, greater than that of every term before. Whoever is told to do something
    /// by a leader can refuse those that are over: see [`FenceGuard`](crate::FenceGuard).
    pub token: FencingToken,
    /// Who it is: the identity of its session.
    pub identity: String,
    /// Its session.
    pub session: SessionId,
    /// Since when, as far as the clocks and the way here let it be known.
    pub since: Instant,
}

/// The leaders of one election as they come and go, made by
/// [`Client::observe`](super::Client::observe).
///
/// What it tells was so at the coordinator a moment ago. A leader that lost the lead, or is cut off,
/// may not know it yet; and while there is no connection nothing is told at all. So what must not be
/// done by two leaders needs the token of the term, whoever looks on.
#[derive(Debug)]
pub struct Leaders {
    /// The lock they hold.
    watch: Watch,
    /// The term that was told last; none: that nobody leads, or nothing yet.
    told: Option<FencingToken>,
    /// Whether anything was told.
    has_told: bool,
}

impl Leaders {
    pub(super) fn new(watch: Watch) -> Self {
        Self { watch, told: None, has_told: false }
    }

    /// Who leads now, then whenever somebody else does, or the same anew; `None` while nobody does.
    /// Terms that are over before anybody looks are left out. Nothing is missed if this is dropped
    /// before it is done.
    ///
    /// # Errors
    ///
    /// As for [`Watch::next`].
    pub async fn next(&mut self) -> Result<Option<Leader>, Error> {
        loop {
            let leader = self.watch.next().await?.and_then(leader);
            let term = leader.as_ref().map(|leader| leader.token);
            if !self.has_told || term != self.told {
                (self.has_told, self.told) = (true, term);
                return Ok(leader);
            }
        }
    }
}

/// Who leads, if `lock` is that of an election.
fn leader(lock: LockStatus) -> Option<Leader> {
    let holder = lock.holders.into_iter().next()?;
    let now = Instant::now();
    Some(Leader {
        value: holder.note,
        token: FencingToken::new(holder.token),
        identity: holder.identity,
        session: SessionId::new(holder.session),
        since: now.checked_sub(Duration::from_millis(holder.held_ms)).unwrap_or(now),
    })
}
