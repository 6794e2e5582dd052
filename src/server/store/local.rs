//! The store of one machine: a database in a directory.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use log::warn;
use redb::{
    Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable,
    StorageError, TableDefinition, TableError, WriteTransaction,
};
use serde::Serialize;

use super::super::error::ServerError;
use super::super::seal::StateKey;
use super::{Change, StateStore, StoreError, Stored};
use crate::engine::{Durable, Forfeit, Snapshot};
use crate::types::{Epoch, FencingToken, Ttl};
use crate::wire::{decode_state, encode_state};

/// The database, in the data directory.
pub(super) const FILE_NAME: &str = "state.redb";
/// Locked by whoever uses the data directory; empty.
const LOCK_NAME: &str = "lock";
/// Numbers under names; there are few.
pub(super) const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");
const EPOCH: &str = "epoch";
const TOKENS_BELOW: &str = "tokens_below";
/// 0, or not there: no session was ever welcomed.
const TTL_MAX_MS: &str = "ttl_max_ms";
/// Missing in a state of an older version: then all proofs count, until a grace period has ended.
const SETTLED: &str = "settled";
/// Says what the names mean, so that a later version can tell.
pub(super) const FORMAT: &str = "format";
pub(super) const FORMAT_NOW: u64 = 1;
/// Bytes under names.
pub(super) const BLOBS: TableDefinition<&str, &[u8]> = TableDefinition::new("blobs");
const KEY: &str = "key";
pub(super) const SNAPSHOT: &str = "snapshot";
/// The first byte of a snapshot: changes with what snapshots are made of.
pub(super) const SNAPSHOT_FORMAT: u8 = 3;
/// Who must not reclaim, by number.
pub(super) const FORFEITS: TableDefinition<u64, &[u8]> = TableDefinition::new("forfeits");
/// A cache for a few numbers; redb's default is made for databases.
const CACHE_BYTES: usize = 256 * 1024;

impl StoreError {
    fn database(error: impl Into<redb::Error>) -> Self {
        Self::Database(Box::new(error.into()))
    }

    fn malformed(what: &'static str, why: &dyn Display) -> Self {
        Self::Malformed { what, why: why.to_string() }
    }
}

/// Keeps it in a directory that no other process can use meanwhile.
///
/// After a failure (a full disk, say) the database refuses everything until it is opened anew. So one
/// that failed is dropped, and the next call opens it again; that is why the directory is locked by
/// a file of its own.
#[derive(Debug)]
pub struct RedbStore {
    /// Where the database is.
    file: PathBuf,
    /// None after a failure. Its default is to sync on every commit.
    database: Mutex<Option<Database>>,
    /// Keeps other processes out for as long as it is open.
    _lock: File,
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
        let in_use = || ServerError::DataInUse { directory: directory.to_path_buf() };
        make_private(directory).map_err(unusable)?;
        let lock = File::create(directory.join(LOCK_NAME)).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use()),
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        let file = directory.join(FILE_NAME);
        let database = open_database(&file).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => in_use(),
            DatabaseError::Storage(StorageError::Io(source)) => unusable(source),
            other => ServerError::Store { doing: "loaded", source: StoreError::database(other) },
        })?;
        // A file that was just made is lost with its name if the directory is not synced as well.
        sync_directory(directory).map_err(unusable)?;
        Ok(Self { file, database: Mutex::new(Some(database)), _lock: lock })
    }

    /// Uses the database, opened anew if it failed before.
    pub(super) fn with_database<T>(
        &self,
        use_it: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut place = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match place.take() {
            Some(database) => database,
            None => open_database(&self.file).map_err(StoreError::database)?,
        };
        let done = use_it(&database)?;
        *place = Some(database);
        Ok(done)
    }
}

fn open_database(file: &Path) -> Result<Database, DatabaseError> {
    Builder::new().set_cache_size(CACHE_BYTES).create(file)
}

impl StateStore for RedbStore {
    fn load(&self) -> Result<Stored, StoreError> {
        self.with_database(|database| {
            let reading = database.begin_read().map_err(StoreError::database)?;
            let Some(durable) = load_durable(&reading)? else { return Ok(Stored::default()) };
            let (key, snapshot) = load_blobs(&reading)?;
            let forfeits = load_forfeits(&reading)?;
            Ok(Stored { durable: Some(durable), key, forfeits, snapshot })
        })
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.with_database(|database| {
            let writing = database.begin_write().map_err(StoreError::database)?;
            for change in changes {
                make(&writing, change)?;
            }
            writing.commit().map_err(StoreError::database)
        })
    }
}

fn load_durable(reading: &ReadTransaction) -> Result<Option<Durable>, StoreError> {
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
        found => return Err(StoreError::Format { found, known: FORMAT_NOW }),
    }
    let ttl_max = match number(TTL_MAX_MS)? {
        0 => None,
        ms => {
            let ttl = Ttl::new(Duration::from_millis(ms));
            Some(ttl.map_err(|error| StoreError::malformed("the longest ttl", &error))?)
        }
    };
    let (epoch, settled) = (Epoch::new(number(EPOCH)?), Epoch::new(number(SETTLED)?));
    let tokens_below = FencingToken::new(number(TOKENS_BELOW)?);
    Ok(Some(Durable { epoch, tokens_below, ttl_max, settled }))
}

fn load_blobs(
    reading: &ReadTransaction,
) -> Result<(Option<StateKey>, Option<Snapshot>), StoreError> {
    let blobs = match reading.open_table(BLOBS) {
        Ok(blobs) => blobs,
        Err(TableError::TableDoesNotExist(_)) => return Ok((None, None)),
        Err(error) => return Err(StoreError::database(error)),
    };
    let key = match blobs.get(KEY).map_err(StoreError::database)? {
        Some(bytes) => {
            let bytes = bytes.value().try_into();
            let bytes = bytes.map_err(|error| StoreError::malformed("the key", &error))?;
            Some(StateKey::new(u128::from_le_bytes(bytes)))
        }
        None => None,
    };
    let snapshot = blobs.get(SNAPSHOT).map_err(StoreError::database)?;
    Ok((key, snapshot.and_then(|bytes| read_snapshot(bytes.value()))))
}

/// The snapshot, if this version can read it. If not, as after an upgrade that changed what it is
/// made of, the stop counts as a crash: that costs a grace period, and no lock.
fn read_snapshot(bytes: &[u8]) -> Option<Snapshot> {
    let why = match bytes.split_first() {
        Some((&SNAPSHOT_FORMAT, rest)) => match decode_state(rest) {
            Ok(snapshot) => return Some(snapshot),
            Err(error) => error.to_string(),
        },
        Some((other, _)) => format!("it has format {other}, this version knows {SNAPSHOT_FORMAT}"),
        None => "it is empty".to_owned(),
    };
    warn!("the snapshot of the last stop cannot be read, going on as after a crash: {why}");
    None
}

fn load_forfeits(reading: &ReadTransaction) -> Result<BTreeMap<u64, Forfeit>, StoreError> {
    let forfeits = match reading.open_table(FORFEITS) {
        Ok(forfeits) => forfeits,
        Err(TableError::TableDoesNotExist(_)) => return Ok(BTreeMap::new()),
        Err(error) => return Err(StoreError::database(error)),
    };
    let mut loaded = BTreeMap::new();
    for entry in forfeits.iter().map_err(StoreError::database)? {
        let (number, bytes) = entry.map_err(StoreError::database)?;
        // One that is left out could reclaim what is somebody else's: rather no start.
        let forfeit = decode_state(bytes.value());
        let forfeit = forfeit.map_err(|error| StoreError::malformed("a forfeit", &error))?;
        loaded.insert(number.value(), forfeit);
    }
    Ok(loaded)
}

fn make(writing: &WriteTransaction, change: &Change) -> Result<(), StoreError> {
    match change {
        Change::Durable(durable) => save_durable(writing, durable),
        Change::Key(key) => save_blob(writing, KEY, &key.reveal().to_le_bytes()),
        Change::Forfeit { number, forfeit } => {
            let bytes = encode("a forfeit", forfeit)?;
            let mut forfeits = writing.open_table(FORFEITS).map_err(StoreError::database)?;
            forfeits.insert(number, bytes.as_slice()).map_err(StoreError::database)?;
            Ok(())
        }
        Change::ForgetForfeits { below } => {
            let mut forfeits = writing.open_table(FORFEITS).map_err(StoreError::database)?;
            forfeits.retain_in::<u64, _>(..*below, |_, _| false).map_err(StoreError::database)
        }
        Change::SaveSnapshot(snapshot) => {
            let mut bytes = vec![SNAPSHOT_FORMAT];
            bytes.extend(encode("the snapshot", snapshot)?);
            save_blob(writing, SNAPSHOT, &bytes)
        }
        Change::DropSnapshot => {
            let mut blobs = writing.open_table(BLOBS).map_err(StoreError::database)?;
            blobs.remove(SNAPSHOT).map_err(StoreError::database)?;
            Ok(())
        }
    }
}

fn save_durable(writing: &WriteTransaction, durable: &Durable) -> Result<(), StoreError> {
    let mut numbers = writing.open_table(NUMBERS).map_err(StoreError::database)?;
    for (name, number) in [
        (FORMAT, FORMAT_NOW),
        (EPOCH, durable.epoch.number()),
        (TOKENS_BELOW, durable.tokens_below.number()),
        (SETTLED, durable.settled.number()),
        (TTL_MAX_MS, durable.ttl_max.map_or(0, |ttl| ttl.as_millis().into())),
    ] {
        numbers.insert(name, number).map_err(StoreError::database)?;
    }
    Ok(())
}

fn save_blob(writing: &WriteTransaction, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let mut blobs = writing.open_table(BLOBS).map_err(StoreError::database)?;
    blobs.insert(name, bytes).map_err(StoreError::database)?;
    Ok(())
}

fn encode<T: Serialize>(what: &'static str, state: &T) -> Result<Vec<u8>, StoreError> {
    encode_state(state).map_err(|error| StoreError::Other(format!("{what}: {error}")))
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
