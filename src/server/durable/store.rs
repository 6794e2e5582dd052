//! The store of the durable state: a trait of two coarse calls, so that a cluster's store can take
//! the place of the local one.
//!
//! | kept | written |
//! |---|---|
//! | epoch, token reservation, longest ttl, from which run on proofs count | at a start, at the end of a grace period, and about once per million grants |
//! | the key of secrets and seals | at the first start |
//! | forfeits: who must not reclaim after a crash | before the lock of such a one passes on |
//! | a snapshot of everything | by an orderly stop; taken away by the next start |
//!
//! The store decides nothing. It may be slow, and it may fail. But committed changes must be there
//! after a power cut, and changes that are committed together are there together (atomicity).
//! Altered content is never taken for the written one: that is [`StoreError::Damaged`].

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::everything::Everything;
use super::key::StateKey;
use crate::engine::{Durable, Forfeit, Snapshot};

/// Why a store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is there, but it is not what was written. It was left as it is.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// What was opened is not where it was any more: whatever is written is lost.
    #[error("the data directory {} was deleted or replaced: {what} is missing", path.display())]
    Gone {
        /// The directory.
        path: PathBuf,
        /// What of it.
        what: String,
    },
    /// A later version wrote this state.
    #[error("the state has format {found}; this version knows {known}")]
    Format {
        /// What is there.
        found: u64,
        /// What can be read.
        known: u64,
    },
    /// The store failed for a reason of its own.
    #[error("{0}")]
    Other(String),
}

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Stored {
    /// How far the counters may have gone; none if there never was a start.
    pub durable: Option<Durable>,
    /// The key of secrets and seals; none if there never was a start.
    pub key: Option<StateKey>,
    /// Forfeits by number: none of it may be reclaimed.
    pub forfeits: BTreeMap<u64, Forfeit>,
    /// Everything, if the last run stopped in order.
    pub snapshot: Option<Snapshot>,
    /// Whether there was more, which could not be read, and whoever starts this accepts that.
    pub is_lost: bool,
}

/// Something to be kept from now on, or no longer.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// These instead of the ones before.
    Durable(Durable),
    /// The key. Said once in a state's life.
    Key(StateKey),
    /// One more who must not reclaim.
    Forfeit {
        /// Its number.
        number: u64,
        /// Who.
        forfeit: Forfeit,
    },
    /// Forfeits with lower numbers are of no use.
    ForgetForfeits {
        /// The lowest that is.
        below: u64,
    },
    /// Everything: this run ends.
    SaveSnapshot(Everything),
    /// A new run goes on from the snapshot, which was true only until now.
    DropSnapshot,
}

/// Keeps what must be durable. Calls may block; they are made on a thread that may.
pub(crate) trait StateStore: Send + Sync {
    /// What is kept.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    fn load(&self) -> Result<Stored, StoreError>;

    /// Makes `changes`, in this order, and has their result survive whatever comes. It is all of
    /// them or, after a failure or a power cut, perhaps none.
    ///
    /// # Errors
    ///
    /// If that is not certain.
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError>;
}

/// Keeps it in memory: for tests, and for coordinators that are told to keep nothing.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    /// The state.
    kept: Mutex<Stored>,
}

impl StateStore for MemoryStore {
    fn load(&self) -> Result<Stored, StoreError> {
        Ok(self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            match change {
                Change::Durable(durable) => kept.durable = Some(*durable),
                Change::Key(key) => kept.key = Some(*key),
                Change::Forfeit { number, forfeit } => {
                    kept.forfeits.insert(*number, *forfeit);
                }
                Change::ForgetForfeits { below } => {
                    kept.forfeits = kept.forfeits.split_off(below);
                }
                Change::SaveSnapshot(snapshot) => kept.snapshot = Some(snapshot.snapshot()),
                Change::DropSnapshot => kept.snapshot = None,
            }
        }
        Ok(())
    }
}
