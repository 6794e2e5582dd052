//! What is committed is there, together, and after a failure too.

use std::fs;
use std::path::Path;
use std::time::Duration;

use redb::Database;

use super::local::{
    BLOBS, FILE_NAME, FORFEITS, FORMAT, FORMAT_NOW, NUMBERS, SNAPSHOT, SNAPSHOT_FORMAT,
};
use super::*;
use crate::server::ServerError;
use crate::types::{Epoch, FencingToken, SessionId, Ttl};

fn durable(epoch: u64, tokens_below: u64) -> Durable {
    let ttl_max = Ttl::new(Duration::from_secs(epoch + 1)).ok();
    let (epoch, tokens_below) = (Epoch::new(epoch), FencingToken::new(tokens_below));
    Durable { epoch, tokens_below, ttl_max, settled: epoch }
}

fn forfeits(numbers: impl IntoIterator<Item = u64>) -> BTreeMap<u64, Forfeit> {
    let forfeit = |number: u64| match number % 2 {
        0 => Forfeit::Session(SessionId::new(u128::from(number) << 64)),
        _ => Forfeit::Grant(FencingToken::new(number)),
    };
    numbers.into_iter().map(|number| (number, forfeit(number))).collect()
}

fn record(numbers: impl IntoIterator<Item = u64>) -> Vec<Change> {
    let forfeits = forfeits(numbers).into_iter();
    forfeits.map(|(number, forfeit)| Change::Forfeit { number, forfeit }).collect()
}

/// Does something with the database behind the store's back.
fn meddle(directory: &Path, with: impl FnOnce(&redb::WriteTransaction)) {
    let database = Database::open(directory.join(FILE_NAME)).unwrap();
    let writing = database.begin_write().unwrap();
    with(&writing);
    writing.commit().unwrap();
}

/// What every store keeps, whatever it is; `reopened` is the same one as another process finds it.
fn keeps_what_it_is_told<S: StateStore>(store: S, reopened: impl Fn(S) -> S) {
    assert_eq!(store.load().unwrap(), Stored::default());
    let key = StateKey::new(1 << 127);
    store.commit(&[Change::Durable(durable(1, 10)), Change::Key(key)]).unwrap();
    store.commit(&record(0..5)).unwrap();
    let forget = Change::ForgetForfeits { below: 3 };
    let save = Change::SaveSnapshot(Snapshot::default());
    store.commit(&[forget, Change::Durable(durable(2, 20)), save]).unwrap();
    let mut expected = Stored {
        durable: Some(durable(2, 20)),
        key: Some(key),
        forfeits: forfeits(3..5),
        snapshot: Some(Snapshot::default()),
    };
    let store = reopened(store);
    assert_eq!(store.load().unwrap(), expected);

    store.commit(&[Change::Durable(durable(3, 30)), Change::DropSnapshot]).unwrap();
    expected.durable = Some(durable(3, 30));
    expected.snapshot = None;
    assert_eq!(reopened(store).load().unwrap(), expected);
}

#[test]
fn what_was_committed_is_there_when_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    keeps_what_it_is_told(RedbStore::open(directory.path()).unwrap(), |store| {
        drop(store);
        RedbStore::open(directory.path()).unwrap()
    });
}

#[test]
fn memory_keeps_the_same() {
    keeps_what_it_is_told(MemoryStore::default(), |store| store);
}

#[test]
fn a_store_that_failed_works_again_when_its_disk_does() {
    let directory = tempfile::tempdir().unwrap();
    let store = RedbStore::open(directory.path()).unwrap();
    store.commit(&[Change::Durable(durable(1, 10))]).unwrap();
    // A failure in the middle: nothing of it is there, and the database is opened anew.
    let failed = store.with_database(|database| {
        let writing = database.begin_write().unwrap();
        writing.open_table(NUMBERS).unwrap().insert(FORMAT, 99).unwrap();
        Err::<(), _>(StoreError::Other("no space left".into()))
    });
    assert!(failed.is_err());
    assert!(matches!(RedbStore::open(directory.path()), Err(ServerError::DataInUse { .. })));
    assert_eq!(store.load().unwrap().durable, Some(durable(1, 10)));
    store.commit(&[Change::Durable(durable(2, 20))]).unwrap();
    assert_eq!(store.load().unwrap().durable, Some(durable(2, 20)));
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
    drop(RedbStore::open(directory.path()).unwrap());
    meddle(directory.path(), |writing| {
        writing.open_table(NUMBERS).unwrap().insert(FORMAT, FORMAT_NOW + 1).unwrap();
    });
    let store = RedbStore::open(directory.path()).unwrap();
    assert!(matches!(store.load(), Err(StoreError::Format { found: 2, .. })));
}

#[test]
fn a_snapshot_that_cannot_be_read_counts_as_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let store = RedbStore::open(directory.path()).unwrap();
    store
        .commit(&[Change::Durable(durable(1, 10)), Change::SaveSnapshot(Snapshot::default())])
        .unwrap();
    drop(store);
    // Nothing, another format, too short, and a list longer than memory.
    let endless = [SNAPSHOT_FORMAT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    let unreadable = [&[][..], &[SNAPSHOT_FORMAT + 1, 0], &[SNAPSHOT_FORMAT, 0], &endless];
    for bytes in unreadable {
        meddle(directory.path(), |writing| {
            writing.open_table(BLOBS).unwrap().insert(SNAPSHOT, bytes).unwrap();
        });
        let stored = RedbStore::open(directory.path()).unwrap().load().unwrap();
        assert_eq!((stored.durable, stored.snapshot), (Some(durable(1, 10)), None), "{bytes:?}");
    }
}

#[test]
fn a_forfeit_that_cannot_be_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = RedbStore::open(directory.path()).unwrap();
    store.commit(&[Change::Durable(durable(1, 10))]).unwrap();
    drop(store);
    meddle(directory.path(), |writing| {
        writing.open_table(FORFEITS).unwrap().insert(1, &[9][..]).unwrap();
    });
    let loaded = RedbStore::open(directory.path()).unwrap().load();
    assert!(matches!(loaded, Err(StoreError::Malformed { what: "a forfeit", .. })), "{loaded:?}");
}
