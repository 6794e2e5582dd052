//! The disk under the coordinator: it takes time, fails for a while, and is cut short by crashes.
//!
//! A committed change is there. A change that was under way at a failure, or at a crash of the
//! coordinator, may be there or not, all of it or nothing. The disk never lies.

use std::mem;

use crate::server::{Change, MemoryStore, StateKey, StateStore};
use crate::testing::fuzz::Random;

/// A disk and the queue before it.
pub(super) struct Disk {
    /// What is there.
    pub(super) kept: MemoryStore,
    /// Ordered, and in no commit yet.
    waiting: Vec<Change>,
    /// In the commit that is under way, if there are any.
    under_way: Vec<Change>,
    /// Until when no commit succeeds.
    pub(super) fails_until: u64,
    /// Until when commits take long.
    pub(super) slow_until: u64,
}

/// How a commit ended.
pub(super) enum Ended {
    /// This is on disk.
    Well(Vec<Change>),
    /// It is to be tried again then.
    Badly { again: u64 },
}

impl Disk {
    /// An empty one, but for a key, which is a function of the dice.
    pub(super) fn new(dice: &mut Random) -> Self {
        let kept = MemoryStore::default();
        let key = StateKey::new(u128::from(dice.next()));
        kept.commit(&[Change::Key(key)]).unwrap();
        let (waiting, under_way) = (Vec::new(), Vec::new());
        Self { kept, waiting, under_way, fails_until: 0, slow_until: 0 }
    }

    /// Something is to be made durable after all that was ordered before.
    pub(super) fn order(&mut self, changes: Vec<Change>) {
        self.waiting.extend(changes);
    }

    /// Begins the next commit, if none is under way and there is something to commit: says when it
    /// will end.
    pub(super) fn begin(&mut self, now: u64, dice: &mut Random) -> Option<u64> {
        if !self.under_way.is_empty() || self.waiting.is_empty() {
            return None;
        }
        self.under_way = mem::take(&mut self.waiting);
        Some(self.end_of_one(now, dice))
    }

    fn end_of_one(&self, now: u64, dice: &mut Random) -> u64 {
        let longest = if now < self.slow_until { 1_500_000 } else { 20_000 };
        now + 100 + dice.next() % longest
    }

    /// The commit that is under way ends.
    pub(super) fn end(&mut self, now: u64, dice: &mut Random) -> Ended {
        if now < self.fails_until {
            // What could not be synced may have been written all the same.
            if dice.once_in(2) {
                self.kept.commit(&self.under_way).unwrap();
            }
            let again = self.end_of_one(now + dice.next() % 400_000, dice);
            return Ended::Badly { again };
        }
        self.kept.commit(&self.under_way).unwrap();
        Ended::Well(mem::take(&mut self.under_way))
    }

    /// The coordinator is gone, and with it what it had ordered.
    pub(super) fn crash(&mut self, dice: &mut Random) {
        self.waiting.clear();
        let under_way = mem::take(&mut self.under_way);
        if dice.once_in(2) {
            self.kept.commit(&under_way).unwrap();
        }
    }
}
