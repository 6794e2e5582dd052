//! The grace period, and who and what may not reclaim in it (rules G2, G3).

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::effect::Forfeit;
use crate::types::{FencingToken, Timestamp};

/// The grace period, if there is one.
#[derive(Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct GracePeriod {
    /// Until when earlier holders may reclaim and nobody else is granted (rule G2).
    until: Option<Timestamp>,
    /// Sessions and grants that may not be reclaimed. Empty outside the grace period.
    forfeited: BTreeSet<Forfeit>,
}

impl GracePeriod {
    /// Whether it goes on.
    pub(super) fn is_on(&self) -> bool {
        self.until.is_some()
    }

    /// When it ends; none if there is none.
    pub(super) fn until(&self) -> Option<Timestamp> {
        self.until
    }

    /// How long it still lasts; none if there is none.
    pub(super) fn left(&self, now: Timestamp) -> Option<Duration> {
        self.until.map(|until| until.since(now))
    }

    /// It lasts until then. Says when it was to end before.
    pub(super) fn last_until(&mut self, until: Timestamp) -> Option<Timestamp> {
        self.until.replace(until)
    }

    /// It is over. Says when it was to end.
    pub(super) fn end(&mut self) -> Option<Timestamp> {
        self.forfeited.clear();
        self.until.take()
    }

    /// None of these may be reclaimed by.
    pub(super) fn forfeit_all(&mut self, forfeits: impl IntoIterator<Item = Forfeit>) {
        self.forfeited.extend(forfeits);
    }

    /// Nothing may be reclaimed by this, as long as anything may.
    pub(super) fn forfeit(&mut self, forfeit: Forfeit) {
        if self.is_on() {
            self.forfeited.insert(forfeit);
        }
    }

    /// All by which nothing may be reclaimed.
    pub(super) fn forfeits(&self) -> impl Iterator<Item = Forfeit> {
        self.forfeited.iter().copied()
    }

    /// Whether nothing may be reclaimed by this.
    pub(super) fn has_forfeited(&self, forfeit: Forfeit) -> bool {
        self.forfeited.contains(&forfeit)
    }

    /// Whether a grant of an earlier run may not be reclaimed.
    pub(super) fn is_forfeited(&self, token: FencingToken) -> bool {
        let least = Forfeit::UpTo(FencingToken::default());
        let up_to = self.forfeited.range(least..).next_back();
        self.forfeited.contains(&Forfeit::Grant(token))
            || matches!(up_to, Some(Forfeit::UpTo(up_to)) if token <= *up_to)
    }
}
