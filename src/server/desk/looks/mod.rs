//! Looks, paced: whoever looks slows nobody who locks.
//!
//! A page of a look takes the Coordinator some fifty microseconds, as much as a few pairs. An
//! observer that looks without pause asks for the next at once. So all looks together have a rate.
//! It is kept by a *generic cell rate algorithm* (ITU-T I.371). A moment moves on by one interval
//! with each look, and may be ahead of the clock by [`LOOKS_BURST`] of them.
//!
//! An observer beyond it *rests*. Its messages wait here, in the order in which connections came,
//! until the next look is due. Its session has them on the way, so it is not read on meanwhile. A
//! session is answered with a rejection instead, for its keep-alives must not stand behind a look.
//!
//! What is never here: a clock.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use foldhash::fast::RandomState;

use super::backlog::Item;
use crate::types::{ConnectionId, Timestamp};

/// So many looks may come at once after a pause: all pages of what `status` shows of a small service.
pub(in crate::server) const LOOKS_BURST: u32 = 64;

/// The rate of looks, and who rests.
pub(super) struct Looks {
    /// How far apart looks are in the long run.
    interval: Duration,
    /// When the next one would be due without a burst.
    due: Timestamp,
    /// Messages of those who rest. Each begins with a look. Invariant: those in `order`.
    resting: HashMap<ConnectionId, VecDeque<Item>, RandomState>,
    /// Those who rest, in the order in which they came.
    order: VecDeque<ConnectionId>,
    /// How many looks there were, and how many of them had to rest.
    pub(super) count: u64,
    /// How many of them were put off, or rejected.
    pub(super) delayed: u64,
}

impl Looks {
    /// So many a second.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / per_second.max(1),
            due: Timestamp::default(),
            resting: HashMap::default(),
            order: VecDeque::new(),
            count: 0,
            delayed: 0,
        }
    }

    /// When there may be another look.
    fn opens(&self) -> Timestamp {
        self.due.before(self.interval * (LOOKS_BURST - 1))
    }

    /// Whether somebody may look now: then it counts. Those who rest come first.
    pub(super) fn admits(&mut self, now: Timestamp) -> bool {
        self.order.is_empty() && self.takes(now)
    }

    fn takes(&mut self, now: Timestamp) -> bool {
        let is_open = self.opens() <= now;
        if is_open {
            self.count += 1;
            self.due = self.due.max(now).after(self.interval);
        }
        is_open
    }

    /// Whether a connection rests: what it says then waits behind what it has said.
    pub(super) fn holds(&self, connection: ConnectionId) -> bool {
        !self.resting.is_empty() && self.resting.contains_key(&connection)
    }

    /// Something of a connection that rests from now on, or does already.
    pub(super) fn rest(&mut self, connection: ConnectionId, item: Item) {
        let items = self.resting.entry(connection).or_default();
        if items.is_empty() {
            self.order.push_back(connection);
            self.delayed += 1;
        }
        items.push_back(item);
    }

    /// When the next of those who rest may look; none: nobody rests.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        (!self.order.is_empty()).then(|| self.opens())
    }

    /// The next of them, if it may look now, which counts; with all that it has said.
    pub(super) fn next(&mut self, now: Timestamp) -> Option<(ConnectionId, VecDeque<Item>)> {
        if self.order.is_empty() || !self.takes(now) {
            return None;
        }
        let connection = self.order.pop_front()?;
        Some((connection, self.resting.remove(&connection)?))
    }
}

#[cfg(test)]
mod tests;
