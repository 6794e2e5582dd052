//! The store of one machine: two files in a directory.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use log::{error, warn};
use rustix::io::Errno;

use super::directory::{Directory, Patience};
use super::records::{self, FORMAT, Fault, Kept, Record};
use super::snapshot::{self, SNAPSHOT_NAME};
use super::store::{Change, StateStore, StoreError, Stored};
use crate::server::config::LostState;
use crate::server::error::ServerError;

/// What is always kept, in the data directory.
pub(super) const STATE_NAME: &str = "state";
/// What the first versions kept instead, which nobody reads any more.
pub(super) const STATE_OF_OLD: &str = "state.redb";
/// The file is written anew when what is behind its base is longer than this, and than the base.
const APPENDED_BYTES_MAX: usize = 1024 * 1024;

/// Keeps it in a directory that no other process can use meanwhile.
#[derive(Debug)]
pub(crate) struct DirectoryStore {
    /// Where the files are.
    directory: Directory,
    /// Treatment of damage.
    lost_state: LostState,
    /// The state as it is in the file.
    state: Mutex<State>,
}

/// The file of what is always kept, and its content.
#[derive(Debug)]
struct State {
    /// The state once every order is on disk.
    kept: Kept,
    /// None before the first commit, and after a failure, when nobody knows what is in the file: then
    /// the next commit writes it anew.
    file: Option<Written>,
    /// The file as it was last written, to see whether it is still there; none as above.
    seen: Option<File>,
}

/// The file, with nothing in it that was not committed.
#[derive(Debug)]
struct Written {
    /// At its end.
    file: File,
    /// The number of the next change.
    next: u64,
    /// How long the base is.
    base_bytes: usize,
    /// How much is behind it.
    appended_bytes: usize,
}

impl DirectoryStore {
    /// Opens the store in `directory`, and makes both if they are missing. With
    /// [`LostState::Accept`], what is damaged is set aside.
    ///
    /// # Errors
    ///
    /// [`ServerError::DataInUse`] if another process has it; [`ServerError::DataUnusable`] if the
    /// directory cannot be made or written. [`ServerError::DataExposed`] if others can read or
    /// write it; [`ServerError::Store`] if what is there is damaged.
    pub(crate) fn open(
        directory: &Path,
        lost_state: LostState,
        patience: Patience,
    ) -> Result<Self, ServerError> {
        let directory = Directory::open(directory, patience)?;
        let kept = match Self::read(&directory) {
            Err(ServerError::Store { source, .. })
                if lost_state == LostState::Accept && source.is_damage() =>
            {
                error!("{source}: accepted; everything in it is lost");
                set_all_aside(&directory).map_err(loading)?;
                Kept { stored: Stored { is_lost: true, ..Stored::default() }, snapshot: None }
            }
            read => read?,
        };
        let state = Mutex::new(State { kept, file: None, seen: None });
        Ok(Self { directory, lost_state, state })
    }

    /// The same for a member of a cluster, whose state is elsewhere: only the directory, and files that others keep here.
    ///
    /// # Errors
    ///
    /// As of [`open`](Self::open), but for damage.
    #[cfg(feature = "cluster")]
    pub(crate) fn open_beside(directory: &Path, patience: Patience) -> Result<Self, ServerError> {
        let directory = Directory::open(directory, patience)?;
        let state = Mutex::new(State { kept: Kept::default(), file: None, seen: None });
        Ok(Self { directory, lost_state: LostState::Refuse, state })
    }

    /// A file that others keep here, if it is there.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    #[cfg(feature = "cluster")]
    pub(crate) fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let failed = |source| self.directory.failed(name, source);
        let Some(mut file) = self.directory.open_file(name).map_err(failed)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        Ok(Some(bytes))
    }

    /// Writes such a file anew, synced.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    #[cfg(feature = "cluster")]
    pub(crate) fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let failed = |source| self.directory.failed(name, source);
        self.directory.replace(name, |mut file| file.write_all(bytes).map_err(failed)).map(drop)
    }

    fn read(directory: &Directory) -> Result<Kept, ServerError> {
        let failed = |source| loading(directory.failed(STATE_NAME, source));
        let damaged = |name, why: &str| loading(directory.damaged(name, why));
        let Some(mut file) = directory.open_file(STATE_NAME).map_err(failed)? else {
            if directory.has(STATE_OF_OLD).map_err(failed)? {
                return Err(damaged(
                    STATE_OF_OLD,
                    "it was written by an earlier version, and only that can read it",
                ));
            }
            if directory.has(SNAPSHOT_NAME).map_err(failed)? {
                return Err(damaged(
                    STATE_NAME,
                    "it is missing, though files that belong to it are there",
                ));
            }
            if directory.is_used {
                warn!(
                    "the data directory was used before, but holds no state: if the state was \
                    lost, previous holders may believe that they hold their locks until their \
                    leases end"
                );
            }
            return Ok(Kept::default());
        };
        directory.check_private(STATE_NAME, &file)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        match records::read(&bytes) {
            Ok(records::Read { kept, broken_pages }) => {
                if broken_pages > 0 {
                    warn!(
                        "{broken_pages} broken pages of the state were skipped: each has a copy \
                        elsewhere, or is a torn write of a crash"
                    );
                }
                Ok(kept)
            }
            Err(Fault::Damage(why)) => Err(damaged(STATE_NAME, &why)),
            Err(Fault::Format(found)) => {
                Err(loading(StoreError::Format { found: found.into(), known: FORMAT.into() }))
            }
        }
    }

    /// That the directory and what is in it are still where they were opened.
    pub(in super::super) fn check(&self) -> Result<(), StoreError> {
        self.check_in_place(&self.state())
    }

    fn check_in_place(&self, state: &State) -> Result<(), StoreError> {
        self.directory.check(state.seen.as_ref().map(|file| (STATE_NAME, file)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, state: &mut State, changes: &[Change]) -> Result<(), StoreError> {
        // Whatever fails from here on, the next commit writes everything anew.
        let (written, seen) = (state.file.take(), state.seen.take());
        let was_stopped = state.kept.snapshot.is_some();
        let mut records = Vec::with_capacity(changes.len());
        for change in changes {
            let record = match change {
                Change::SaveSnapshot(everything) => {
                    Record::Snapshot(Some(snapshot::write(&self.directory, everything)?))
                }
                other => Record::of(other),
            };
            state.kept.apply(&record).map_err(StoreError::Other)?;
            records.push(record);
        }
        let is_stopped = state.kept.snapshot.is_some();
        // After an orderly stop the base stands alone.
        let written = written.filter(|file| file.has_room() && !was_stopped && !is_stopped);
        let failed = |source| self.directory.failed(STATE_NAME, source);
        if let Some(written) = written {
            let bytes = records::change(written.next, &records)?;
            state.file = Some(written.append(&bytes).map_err(failed)?);
            state.seen = seen;
        } else {
            let written = self.rewrite(&state.kept)?;
            state.seen = Some(written.file.try_clone().map_err(failed)?);
            state.file = Some(written);
        }
        if was_stopped && !is_stopped {
            // It is none any more, whether it can be removed or not.
            let _ = self.directory.remove(SNAPSHOT_NAME);
        }
        Ok(())
    }

    fn rewrite(&self, kept: &Kept) -> Result<Written, StoreError> {
        let bytes = kept.to_bytes()?;
        let failed = |source| self.directory.failed(STATE_NAME, source);
        let ((), file) = self
            .directory
            .replace(STATE_NAME, |mut file| file.write_all(&bytes).map_err(failed))?;
        Ok(Written { file, next: 1, base_bytes: bytes.len(), appended_bytes: 0 })
    }
}

impl Written {
    /// Whether another change is to be put behind the others.
    fn has_room(&self) -> bool {
        self.appended_bytes <= self.base_bytes.max(APPENDED_BYTES_MAX)
    }

    /// Puts a change behind the others.
    fn append(mut self, bytes: &[u8]) -> io::Result<Self> {
        self.file.write_all(bytes)?;
        self.file.sync_data()?;
        self.appended_bytes += bytes.len();
        self.next += 1;
        Ok(self)
    }
}

impl StateStore for DirectoryStore {
    fn load(&self) -> Result<Stored, StoreError> {
        let state = self.state();
        let mut stored = state.kept.stored.clone();
        let Some(mark) = state.kept.snapshot else { return Ok(stored) };
        stored.snapshot = match snapshot::read(&self.directory, mark) {
            Err(damage) if self.lost_state == LostState::Accept && damage.is_damage() => {
                error!("{damage}: accepted, continuing as after a crash");
                let aside = self.directory.set_aside(SNAPSHOT_NAME);
                aside.map_err(|source| self.directory.failed(SNAPSHOT_NAME, source))?;
                None
            }
            read => read?,
        };
        Ok(stored)
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut state = self.state();
        self.check_in_place(&state)?;
        self.write(&mut state, changes)?;
        // What was written into a directory that nobody will find again is not kept.
        self.check_in_place(&state)
    }
}

impl StoreError {
    /// Whether what is kept cannot be had from the files, however often one tries.
    fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Format { .. } => true,
            Self::File { source, .. } => source.raw_os_error() == Some(Errno::IO.raw_os_error()),
            Self::Gone { .. } | Self::Other(_) => false,
        }
    }
}

fn loading(source: StoreError) -> ServerError {
    ServerError::Store { doing: "loaded", source }
}

fn set_all_aside(directory: &Directory) -> Result<(), StoreError> {
    for name in [STATE_NAME, SNAPSHOT_NAME, STATE_OF_OLD] {
        directory.set_aside(name).map_err(|source| directory.failed(name, source))?;
    }
    Ok(())
}
