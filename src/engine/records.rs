//! Records of forfeits: those that are on disk, and those on their way there.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::arena::SessionKey;
use super::effect::Forfeit;
use crate::types::{ConnectionId, FencingToken, LockName, Timestamp};

/// Most records at a time: more than there can be sessions by default, so that all may end at once.
pub const RECORDS_MAX: usize = 1 << 17;

/// The records there are.
#[derive(Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Records {
    /// Consequences of the records that are on their way, in their order.
    pending: VecDeque<PendingForfeit>,
    /// Records on disk, or on their way there. Those of earlier runs are one.
    kept: VecDeque<Record>,
    /// How many they are. Invariant: the sum of their counts, and no more than [`RECORDS_MAX`].
    count: usize,
    /// The number of the next record.
    next: u64,
}

/// Of a record, or of those that earlier runs left: what is to be known once it is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Until when it may be of use.
    useful_until: Timestamp,
    /// Its number, or the last of theirs.
    number: u64,
    /// No grant that it is about has a greater token.
    up_to: FencingToken,
    /// How many they are.
    count: usize,
}

/// A forfeit on its way to the disk.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
struct PendingForfeit {
    /// The forfeit that is written down.
    forfeit: Forfeit,
    /// The consequence, once it is on record.
    then: AfterRecord,
}

/// What is to happen when it is on record.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) enum AfterRecord {
    /// Nothing yet: another record of the same end follows.
    Nothing,
    /// What the session held passes on.
    Session(SessionKey),
    /// A grant is revoked.
    Revoke {
        /// Who is to be answered.
        connection: ConnectionId,
        /// Comes back in the answer.
        query_id: u64,
        /// The lock.
        name: LockName,
        /// The token of the grant.
        token: FencingToken,
    },
}

/// What the older half of the records did, which one record is to say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Folded {
    /// Until when it may be of use.
    pub(super) useful_until: Timestamp,
    /// No grant that it is about has a greater token.
    pub(super) up_to: FencingToken,
    /// The records with lower numbers are of no use once it is on record.
    pub(super) below: u64,
}

impl Records {
    /// The next record has this number.
    pub(super) fn go_on_from(&mut self, next: u64) {
        self.next = next;
    }

    /// Whether there are as many as there may be.
    pub(super) fn is_full(&self) -> bool {
        self.count >= RECORDS_MAX
    }

    /// How many are on their way to the disk.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// A forfeit is to be written down, and something to happen then. Says its number.
    pub(super) fn add(
        &mut self,
        forfeit: Forfeit,
        up_to: FencingToken,
        useful_until: Timestamp,
        then: AfterRecord,
    ) -> u64 {
        let number = self.next;
        self.next += 1;
        self.keep(Record { useful_until, number, up_to, count: 1 });
        self.pending.push_back(PendingForfeit { forfeit, then });
        number
    }

    /// Earlier runs have left so many records; the number of the last is `last`.
    pub(super) fn add_earlier(
        &mut self,
        count: usize,
        last: u64,
        up_to: FencingToken,
        useful_until: Timestamp,
    ) {
        self.keep(Record { useful_until, number: last, up_to, count });
    }

    fn keep(&mut self, record: Record) {
        self.count += record.count;
        self.kept.push_back(record);
    }

    /// Takes the older half of them out, for one that says the same; none if there are none.
    pub(super) fn fold(&mut self) -> Option<Folded> {
        let Record { mut useful_until, number: mut last, mut up_to, .. } = *self.kept.front()?;
        while self.count > RECORDS_MAX / 2
            && let Some(record) = self.kept.pop_front()
        {
            self.count -= record.count;
            useful_until = useful_until.max(record.useful_until);
            up_to = up_to.max(record.up_to);
            last = record.number;
        }
        Some(Folded { useful_until, up_to, below: last + 1 })
    }

    /// Takes those out that are of no use at `now`. Says below which number nothing is any more.
    pub(super) fn forget_old(&mut self, now: Timestamp) -> Option<u64> {
        let mut below = None;
        while let Some(&Record { useful_until, number, count, .. }) = self.kept.front() {
            if now <= useful_until {
                break;
            }
            self.kept.pop_front();
            self.count -= count;
            below = Some(number + 1);
        }
        below
    }

    /// The oldest of those on their way is on record. Says what is to happen now.
    pub(super) fn recorded(&mut self) -> Option<AfterRecord> {
        self.pending.pop_front().map(|pending| pending.then)
    }

    /// What is to happen when they are on record, in their order.
    pub(super) fn to_happen(&self) -> impl Iterator<Item = &AfterRecord> {
        self.pending.iter().map(|pending| &pending.then)
    }

    /// The same, to be changed.
    pub(super) fn to_happen_mut(&mut self) -> impl Iterator<Item = &mut AfterRecord> {
        self.pending.iter_mut().map(|pending| &mut pending.then)
    }

    /// What is on its way to the disk, by its number.
    pub(super) fn on_their_way(&self) -> impl Iterator<Item = (u64, Forfeit)> {
        let pending = u64::try_from(self.pending.len()).unwrap_or(u64::MAX);
        let numbers = self.next.saturating_sub(pending)..;
        numbers.zip(self.pending.iter().map(|pending| pending.forfeit))
    }

    /// Until when each is of use.
    #[cfg(test)]
    pub(super) fn useful_until(&self) -> impl Iterator<Item = Timestamp> {
        self.kept.iter().map(|record| record.useful_until)
    }

    #[cfg(test)]
    pub(super) fn invariant(&self) {
        let on_record: usize = self.kept.iter().map(|record| record.count).sum();
        assert_eq!(on_record, self.count);
        assert!(on_record <= RECORDS_MAX, "{on_record} records");
    }
}
