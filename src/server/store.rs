//! What outlives the process, behind a trait of two coarse calls, so that a cluster's store can take
//! the place of the local one.
//!
//! The store knows nothing of what its numbers mean. It is asked rarely: once at the start, and once
//! per million grants or so; it may be slow, and it may fail, but what it has called committed must
//! be there after a power cut.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::path::Path;
use std::sync::Mutex;

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, StorageError, TableDefinition, TableError,
};

use super::error::ServerError;
use crate::engine::Durable;
use crate::types::{Epoch, FencingToken};

/// The one file in the data directory.
const FILE_NAME: &str = "state.redb";
/// Numbers under names; there are few.
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");
const EPOCH: &str = "epoch";
const TOKENS_BELOW: &str = "tokens_below";
/// Says what the names mean, so that a later version can tell.
const FORMAT: &str = "format";
const FORMAT_NOW: u64 = 1;
/// A cache for a few numbers; redb's default is made for databases.
const CACHE_BYTES: usize = 256 * 1024;

/// Why a store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database underneath failed.
    #[error(transparent)]
    Database(#[from] Box<redb::Error>),
    /// A later version wrote this state.
    #[error("the state has format {found}, this version knows {FORMAT_NOW}")]
    Format {
        /// What is there.
        found: u64,
    },
    /// The store failed for a reason of its own.
    #[error("{0}")]
    Other(String),
}

impl StoreError {
    fn database(error: impl Into<redb::Error>) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

/// Keeps what must be durable. Calls may block; they are made on a thread that may.
pub trait StateStore: Send + Sync {
    /// What was committed last; none if nothing ever was.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    fn load(&self) -> Result<Option<Durable>, StoreError>;

    /// Makes `durable` survive whatever comes.
    ///
    /// # Errors
    ///
    /// If that is not certain.
    fn commit(&self, durable: &Durable) -> Result<(), StoreError>;
}

/// Keeps it in a file that no other process can open meanwhile.
#[derive(Debug)]
pub struct RedbStore {
    /// Locked for as long as it is open; its default is to sync on every commit.
    database: Database,
}

impl RedbStore {
    /// Opens the store in `directory`, and makes both if they are missing.
    ///
    /// # Errors
    ///
    /// [`ServerError::DataInUse`] if another process has it, [`ServerError::DataUnusable`] if the
    /// directory cannot be made or written, [`ServerError::Store`] if what is there is no store.
    pub fn open(directory: &Path) -> Result<Self, ServerError> {
        let unusable =
            |source| ServerError::DataUnusable { directory: directory.to_path_buf(), source };
        make_private(directory).map_err(unusable)?;
        let opened = Builder::new().set_cache_size(CACHE_BYTES).create(directory.join(FILE_NAME));
        let database = opened.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => {
                ServerError::DataInUse { directory: directory.to_path_buf() }
            }
            DatabaseError::Storage(StorageError::Io(source)) => unusable(source),
            other => ServerError::Store { doing: "loaded", source: StoreError::database(other) },
        })?;
        // A file that was just made is lost with its name if the directory is not synced as well.
        sync_directory(directory).map_err(unusable)?;
        Ok(Self { database })
    }
}

impl StateStore for RedbStore {
    fn load(&self) -> Result<Option<Durable>, StoreError> {
        let reading = self.database.begin_read().map_err(StoreError::database)?;
        let numbers = match reading.open_table(NUMBERS) {
            Ok(numbers) => numbers,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(StoreError::database(error)),
        };
        let number = |name| -> Result<u64, StoreError> {
            let found = numbers.get(name).map_err(StoreError::database)?;
            Ok(found.map_or(0, |number| number.value()))
        };
        match number(FORMAT)? {
            FORMAT_NOW => {}
            found => return Err(StoreError::Format { found }),
        }
        Ok(Some(Durable {
            epoch: Epoch::new(number(EPOCH)?),
            tokens_below: FencingToken::new(number(TOKENS_BELOW)?),
        }))
    }

    fn commit(&self, durable: &Durable) -> Result<(), StoreError> {
        let writing = self.database.begin_write().map_err(StoreError::database)?;
        {
            let mut numbers = writing.open_table(NUMBERS).map_err(StoreError::database)?;
            for (name, number) in [
                (FORMAT, FORMAT_NOW),
                (EPOCH, durable.epoch.number()),
                (TOKENS_BELOW, durable.tokens_below.number()),
            ] {
                numbers.insert(name, number).map_err(StoreError::database)?;
            }
        }
        writing.commit().map_err(StoreError::database)
    }
}

/// Makes `directory` and what leads there, readable for its owner only. One that is there already
/// is left as it is.
fn make_private(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)?;
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_directory(parent.unwrap_or(Path::new(".")))
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

/// Keeps it in memory: for tests, and for coordinators that are told to keep nothing.
#[derive(Debug, Default)]
pub struct MemoryStore {
    /// What was committed last.
    committed: Mutex<Option<Durable>>,
}

impl StateStore for MemoryStore {
    fn load(&self) -> Result<Option<Durable>, StoreError> {
        let committed = self.committed.lock();
        committed.map(|durable| *durable).map_err(|error| StoreError::Other(error.to_string()))
    }

    fn commit(&self, durable: &Durable) -> Result<(), StoreError> {
        let committed = self.committed.lock();
        let mut committed = committed.map_err(|error| StoreError::Other(error.to_string()))?;
        *committed = Some(*durable);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn durable(epoch: u64, tokens_below: u64) -> Durable {
        Durable { epoch: Epoch::new(epoch), tokens_below: FencingToken::new(tokens_below) }
    }

    #[test]
    fn what_was_committed_is_there_when_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = RedbStore::open(directory.path()).unwrap();
        assert_eq!(store.load().unwrap(), None);
        store.commit(&durable(1, 10)).unwrap();
        store.commit(&durable(2, 20)).unwrap();
        assert_eq!(store.load().unwrap(), Some(durable(2, 20)));
        drop(store);
        let store = RedbStore::open(directory.path()).unwrap();
        assert_eq!(store.load().unwrap(), Some(durable(2, 20)));
    }

    #[test]
    fn a_directory_in_use_is_refused_by_name_and_free_again_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let first = RedbStore::open(directory.path()).unwrap();
        let refused = RedbStore::open(directory.path()).unwrap_err();
        assert!(
            matches!(&refused, ServerError::DataInUse { directory: named } if named == directory.path()),
            "{refused:?}"
        );
        drop(first);
        RedbStore::open(directory.path()).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_directory_that_is_made_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;

        let outer = tempfile::tempdir().unwrap();
        let directory = outer.path().join("a/b");
        RedbStore::open(&directory).unwrap();
        let mode = fs::metadata(&directory).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_refused_by_name() {
        let outer = tempfile::tempdir().unwrap();
        let file = outer.path().join("file");
        fs::write(&file, b"not a directory").unwrap();
        let refused = RedbStore::open(&file.join("data")).unwrap_err();
        assert!(matches!(refused, ServerError::DataUnusable { .. }), "{refused:?}");
        assert!(refused.to_string().contains("file/data"), "{refused}");
    }

    #[test]
    fn a_file_that_is_no_store_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE_NAME), b"something else").unwrap();
        assert!(RedbStore::open(directory.path()).is_err());
    }

    #[test]
    fn a_state_of_a_later_version_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let store = RedbStore::open(directory.path()).unwrap();
        let writing = store.database.begin_write().unwrap();
        writing.open_table(NUMBERS).unwrap().insert(FORMAT, FORMAT_NOW + 1).unwrap();
        writing.commit().unwrap();
        assert!(matches!(store.load(), Err(StoreError::Format { found: 2 })));
    }
}
