//! The table of a run that is over, on its way to the disk. It is written as it is: a copy would
//! take its memory twice, at the worst moment.

use std::fmt;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::{LockTable, Snapshot};
use crate::wire::{FormatError, write_state};

/// What a run leaves to the next. Cheap to copy: there is only one.
#[derive(Clone)]
pub(crate) struct Everything(Arc<dyn Whole>);

/// What has the form of a snapshot, whatever it is.
trait Whole: Send + Sync {
    fn snapshot(&self) -> Snapshot;
    fn write(&self, to: &mut dyn Write) -> Result<(), FormatError>;
}

impl Everything {
    /// A run ends with this table.
    pub(crate) fn left_by(table: LockTable) -> Self {
        Self(Arc::new(Mutex::new(table)))
    }

    /// All of it in memory.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.0.snapshot()
    }

    /// Writes it down, piece by piece.
    ///
    /// # Errors
    ///
    /// If `to` does not take it.
    pub(in crate::server) fn write(&self, to: &mut dyn Write) -> Result<(), FormatError> {
        self.0.write(to)
    }
}

/// Looked at by one thread at a time: a table remembers whom it found last.
impl Whole for Mutex<LockTable> {
    fn snapshot(&self) -> Snapshot {
        locked(self).snapshot()
    }

    fn write(&self, to: &mut dyn Write) -> Result<(), FormatError> {
        write_state(&locked(self).as_snapshot(), to)
    }
}

fn locked<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Whole for Snapshot {
    fn snapshot(&self) -> Snapshot {
        self.clone()
    }

    fn write(&self, to: &mut dyn Write) -> Result<(), FormatError> {
        write_state(self, to)
    }
}

impl From<Snapshot> for Everything {
    fn from(snapshot: Snapshot) -> Self {
        Self(Arc::new(snapshot))
    }
}

impl fmt::Debug for Everything {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Everything(…)")
    }
}
