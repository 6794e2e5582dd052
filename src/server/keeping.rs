//! How it is with the journal, and how this run began: for whoever asks, who is told without a look at
//! the disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::journal::Distance;

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// How far records are before anything is said; none: nothing is written down.
    distance: Option<Distance>,
    /// How long it is without its checkpoint.
    bytes: AtomicU64,
    /// Since when it cannot be written, if it cannot.
    off_since: Mutex<Option<Instant>>,
    /// How this run began.
    beginning: Mutex<Beginning>,
}

/// How a run began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// Nobody was ever here before.
    #[default]
    New,
    /// From what an orderly stop has saved.
    Saved,
    /// From the journal of a run that crashed.
    Replayed {
        /// How many events it had.
        events: u64,
        /// How long that took.
        took: Duration,
    },
    /// After a crash, without a journal that is certainly complete.
    Lost {
        /// Why there was none.
        why: String,
        /// How long nobody but earlier holders is granted anything.
        grace: Duration,
    },
}

impl Keeping {
    /// That of a journal.
    pub(super) fn of(distance: Distance) -> Self {
        Self { distance: Some(distance), ..Self::default() }
    }

    /// How far records are before anything is said; none: nothing is written down.
    pub(super) fn distance(&self) -> Option<Distance> {
        self.distance
    }

    /// Whether all that is said is written down before.
    pub(super) fn is_on(&self) -> bool {
        self.distance.is_some() && self.off().is_none()
    }

    /// How long it is without its checkpoint, in bytes; nothing while it cannot be written.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// It is so long now.
    pub(super) fn is_long(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// For how long it could not be written by now, if it cannot.
    pub(super) fn off(&self) -> Option<Duration> {
        locked(&self.off_since).map(|since| since.elapsed())
    }

    /// Since when it cannot be written, if it cannot.
    pub(super) fn is_off(&self, since: Option<Instant>) {
        let mut off_since = locked(&self.off_since);
        // Tried again in vain, it is off since it was first.
        *off_since = since.map(|since| off_since.unwrap_or(since));
        if since.is_some() {
            self.is_long(0);
        }
    }

    /// How this run began.
    pub(super) fn beginning(&self) -> Beginning {
        locked(&self.beginning).clone()
    }

    /// This run began so.
    pub(super) fn began(&self, so: Beginning) {
        *locked(&self.beginning) = so;
    }

    /// So long is the grace period that it began with, if it did.
    pub(super) fn has_grace(&self, length: Duration) {
        if let Beginning::Lost { grace, .. } = &mut *locked(&self.beginning) {
            *grace = length;
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nobody panics while it is locked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
