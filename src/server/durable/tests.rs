//! Committed changes are there, together, and after a failure too.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use super::local::{STATE_NAME, STATE_OF_OLD};
use super::records::PAGE_BYTES;
use super::snapshot::SNAPSHOT_NAME;
use super::store::Stored;
use super::*;
use crate::engine::{Durable, Forfeit, Snapshot};
use crate::server::durable::StateKey;
use crate::server::{LostState, ServerError};
use crate::types::{Epoch, FencingToken, SessionId, Ttl};

fn open(directory: &Path) -> Result<DirectoryStore, ServerError> {
    DirectoryStore::open(directory, LostState::Refuse, Patience::None)
}

fn accept(directory: &Path) -> DirectoryStore {
    DirectoryStore::open(directory, LostState::Accept, Patience::None).unwrap()
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn is_damage(refused: &Result<DirectoryStore, ServerError>) -> bool {
    let Err(ServerError::Store { source, .. }) = refused else { return false };
    matches!(source, StoreError::Damaged { .. } | StoreError::Format { .. })
}

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

/// What every store keeps, whatever it is; `reopened` is the same one as another process finds it.
fn keeps_what_it_is_told<S: StateStore>(store: S, reopened: impl Fn(S) -> S) {
    assert_eq!(store.load().unwrap(), Stored::default());
    let key = StateKey::new(1 << 127);
    store.commit(&[Change::Durable(durable(1, 10)), Change::Key(key)]).unwrap();
    store.commit(&record(0..5)).unwrap();
    let forget = Change::ForgetForfeits { below: 3 };
    let save = Change::SaveSnapshot(Snapshot::default().into());
    store.commit(&[forget, Change::Durable(durable(2, 20)), save]).unwrap();
    let mut expected = Stored {
        durable: Some(durable(2, 20)),
        key: Some(key),
        forfeits: forfeits(3..5),
        snapshot: Some(Snapshot::default()),
        is_lost: false,
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
    keeps_what_it_is_told(open(directory.path()).unwrap(), |store| {
        drop(store);
        open(directory.path()).unwrap()
    });
}

#[test]
fn memory_keeps_the_same() {
    keeps_what_it_is_told(MemoryStore::default(), |store| store);
}

#[test]
fn a_store_that_failed_works_again_when_its_disk_does() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    store.commit(&[Change::Durable(durable(1, 10))]).unwrap();
    let away = directory.path().with_extension("away");
    fs::rename(directory.path(), &away).unwrap();
    assert!(store.commit(&[Change::Durable(durable(2, 20))]).is_err());
    fs::rename(&away, directory.path()).unwrap();
    assert!(matches!(open(directory.path()), Err(ServerError::DataInUse { .. })));
    store.commit(&record(0..3)).unwrap();
    drop(store);
    assert_eq!(open(directory.path()).unwrap().load().unwrap().forfeits, forfeits(0..3));
}

#[test]
fn a_commit_that_failed_in_the_middle_is_made_up_for_by_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    store.commit(&[Change::Durable(durable(1, 10))]).unwrap();
    // What cannot be removed is in the way of the snapshot.
    let in_the_way = directory.path().join("snapshot.new");
    fs::create_dir(&in_the_way).unwrap();
    let save = Change::SaveSnapshot(Snapshot::default().into());
    let failed = store.commit(&[Change::Durable(durable(2, 20)), save]);
    assert!(matches!(failed, Err(StoreError::File { .. })), "{failed:?}");
    store.check().unwrap();
    store.commit(&record(0..2)).unwrap();
    let expected = store.load().unwrap();
    drop(store);
    assert_eq!(expected.durable, Some(durable(2, 20)));
    assert_eq!(open(directory.path()).unwrap().load().unwrap(), expected);
}

#[test]
fn a_start_waits_for_the_end_of_a_run_that_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path()).unwrap();
    let path = directory.path().to_path_buf();
    let next =
        std::thread::spawn(move || DirectoryStore::open(&path, LostState::Refuse, Patience::Some));
    drop(first);
    next.join().unwrap().unwrap();
}

#[test]
fn a_directory_in_use_is_refused_by_name_and_free_again_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path()).unwrap();
    let refused = open(directory.path()).unwrap_err();
    assert!(
        matches!(&refused, ServerError::DataInUse { directory: named } if named == directory.path()),
        "{refused:?}"
    );
    drop(first);
    open(directory.path()).unwrap();
}

#[test]
fn a_directory_that_is_made_is_for_its_owner_only() {
    let outer = tempfile::tempdir().unwrap();
    let directory = outer.path().join("a/b");
    open(&directory).unwrap();
    let mode = fs::metadata(&directory).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_directory_that_cannot_be_made_is_refused_by_name() {
    let outer = tempfile::tempdir().unwrap();
    let file = outer.path().join("file");
    fs::write(&file, b"not a directory").unwrap();
    let refused = open(&file.join("data")).unwrap_err();
    assert!(matches!(refused, ServerError::DataUnusable { .. }), "{refused:?}");
    assert!(refused.to_string().contains("file/data"), "{refused}");
}

/// A directory with everything in it that there can be, as `kill -9` leaves it or an orderly stop.
fn used(directory: &Path, how: impl FnOnce(&DirectoryStore)) {
    let store = open(directory).unwrap();
    store.commit(&[Change::Key(StateKey::new(9)), Change::Durable(durable(1, 10))]).unwrap();
    store.commit(&record(0..3)).unwrap();
    store.commit(&[Change::Durable(durable(1, 20))]).unwrap();
    how(&store);
}

fn crashed(_: &DirectoryStore) {}

fn stopped(store: &DirectoryStore) {
    store.commit(&[Change::SaveSnapshot(Snapshot::default().into())]).unwrap();
}

/// Many ways to spoil a file in one place: a bit, a few bytes or a page that is zero.
fn spoiled(bytes: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    let near_the_start = |at: &usize| at % PAGE_BYTES < 256;
    let flipped = (0..bytes.len()).filter(near_the_start).map(|at| {
        let mut spoiled = bytes.to_vec();
        spoiled[at] ^= 1 << (at % 8);
        (format!("bit in {at}"), spoiled)
    });
    let few = (0..bytes.len()).filter(near_the_start).step_by(16).map(|at| (at, 16));
    let pages = (0..bytes.len()).step_by(PAGE_BYTES).map(|at| (at, PAGE_BYTES));
    let zeroed = few.chain(pages).map(|(at, length)| {
        let mut spoiled = bytes.to_vec();
        let end = bytes.len().min(at + length);
        spoiled[at..end].fill(0);
        (format!("zeros at {at}"), spoiled)
    });
    flipped.chain(zeroed).filter(move |(_, spoiled)| spoiled != bytes)
}

#[test]
fn a_state_that_is_not_what_an_orderly_stop_has_written_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    used(directory.path(), stopped);
    let file = directory.path().join(STATE_NAME);
    let bytes = fs::read(&file).unwrap();
    let lengths = (0..bytes.len()).step_by(37).chain([bytes.len() - 1]);
    let cut = lengths.map(|length| (format!("cut to {length}"), bytes[..length].to_vec()));
    let longer = [(String::from("longer"), [&bytes[..], &[0]].concat())];
    for (how, spoiled) in spoiled(&bytes).chain(cut).chain(longer) {
        fs::write(&file, spoiled).unwrap();
        assert!(is_damage(&open(directory.path())), "{how}");
    }
    fs::write(&file, bytes).unwrap();
    assert!(open(directory.path()).unwrap().load().unwrap().snapshot.is_some());
}

#[test]
fn a_snapshot_that_is_not_what_was_written_is_refused_or_accepted_as_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    used(directory.path(), stopped);
    let file = directory.path().join(SNAPSHOT_NAME);
    let bytes = fs::read(&file).unwrap();
    let cut = (0..bytes.len()).map(|length| (format!("cut to {length}"), bytes[..length].to_vec()));
    for (how, spoiled) in spoiled(&bytes).chain(cut) {
        fs::write(&file, spoiled).unwrap();
        let loaded = open(directory.path()).unwrap().load();
        assert!(matches!(loaded, Err(StoreError::Damaged { .. })), "{how}");
    }
    fs::remove_file(&file).unwrap();
    assert!(open(directory.path()).unwrap().load().is_err(), "missing");

    fs::write(&file, b"something else").unwrap();
    let stored = accept(directory.path()).load().unwrap();
    assert_eq!((stored.snapshot, stored.durable), (None, Some(durable(1, 20))));
    assert!(!stored.is_lost, "all but the snapshot is there");
    let aside = fs::read(directory.path().join("snapshot.damaged-1")).unwrap();
    assert_eq!(aside, b"something else");
}

#[test]
fn a_fault_in_one_place_after_a_crash_is_mended_or_refused_and_never_changes_what_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    used(directory.path(), crashed);
    let expected = open(directory.path()).unwrap().load().unwrap();
    let file = directory.path().join(STATE_NAME);
    let bytes = fs::read(&file).unwrap();
    let mut mended = 0;
    for (how, spoiled) in spoiled(&bytes) {
        fs::write(&file, spoiled).unwrap();
        match open(directory.path()) {
            Ok(store) => assert_eq!(store.load().unwrap(), expected, "{how}"),
            refused => {
                assert!(is_damage(&refused), "{how}");
                continue;
            }
        }
        mended += 1;
    }
    assert!(mended > 4 * 256, "changes stand there twice");
}

#[test]
fn a_change_that_a_crash_cut_short_is_there_or_not_and_nothing_before_it_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    store.commit(&[Change::Durable(durable(1, 10))]).unwrap();
    let file = directory.path().join(STATE_NAME);
    let before = fs::metadata(&file).unwrap().len();
    store.commit(&[Change::Durable(durable(2, 20))]).unwrap();
    drop(store);
    let bytes = fs::read(&file).unwrap();
    let copy_ends = usize::try_from(u64::midpoint(before, bytes.len() as u64)).unwrap();
    let lengths = (usize::try_from(before).unwrap()..=bytes.len()).step_by(41);
    for length in lengths.chain([copy_ends - 1, copy_ends, bytes.len()]) {
        fs::write(&file, &bytes[..length]).unwrap();
        let found = open(directory.path()).unwrap().load().unwrap().durable.unwrap();
        let expected = if length < copy_ends { durable(1, 10) } else { durable(2, 20) };
        assert_eq!(found, expected, "{length} bytes");
    }
}

#[test]
fn a_lost_change_before_others_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    used(directory.path(), crashed);
    let file = directory.path().join(STATE_NAME);
    let bytes = fs::read(&file).unwrap();
    assert_eq!(bytes.len(), 5 * PAGE_BYTES, "the base, and two changes twice");
    let mut spoiled = bytes.clone();
    spoiled[PAGE_BYTES..3 * PAGE_BYTES].fill(0);
    fs::write(&file, spoiled).unwrap();
    assert!(is_damage(&open(directory.path())));
}

#[test]
fn a_damaged_state_is_set_aside_when_that_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    for times in 1..=2 {
        used(directory.path(), stopped);
        let file = directory.path().join(STATE_NAME);
        fs::write(&file, b"").unwrap();
        set_mode(&file, 0o600);
        assert!(is_damage(&open(directory.path())), "not silently a new one");
        let store = accept(directory.path());
        assert_eq!(store.load().unwrap(), Stored { is_lost: true, ..Stored::default() });
        drop(store);
        for name in ["state", "snapshot"] {
            assert!(directory.path().join(format!("{name}.damaged-{times}")).exists(), "{name}");
        }
    }
}

#[test]
fn a_state_of_a_later_version_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    used(directory.path(), crashed);
    let file = directory.path().join(STATE_NAME);
    let mut bytes = fs::read(&file).unwrap();
    bytes[8] += 1;
    fs::write(&file, &bytes).unwrap();
    let refused = open(directory.path()).unwrap_err();
    let ServerError::Store { source: StoreError::Format { found: 2, .. }, .. } = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(fs::read(&file).unwrap(), bytes);
}

#[test]
fn a_state_of_the_first_versions_is_refused_and_not_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(STATE_OF_OLD), b"redb").unwrap();
    assert!(is_damage(&open(directory.path())));
}

#[test]
fn a_snapshot_without_its_state_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    used(directory.path(), stopped);
    fs::remove_file(directory.path().join(STATE_NAME)).unwrap();
    assert!(is_damage(&open(directory.path())));
}

#[test]
fn a_lock_file_without_a_state_is_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).unwrap());
    assert_eq!(open(directory.path()).unwrap().load().unwrap(), Stored::default());
}

#[test]
fn all_files_are_for_their_owner_only_in_a_directory_that_was_there() {
    let directory = tempfile::tempdir().unwrap();
    set_mode(directory.path(), 0o755);
    used(directory.path(), stopped);
    for name in ["lock", "state", "snapshot"] {
        assert_eq!(mode_of(&directory.path().join(name)), 0o600, "{name}");
    }
}

#[test]
fn a_state_that_others_can_read_is_refused_with_what_to_type() {
    let directory = tempfile::tempdir().unwrap();
    used(directory.path(), crashed);
    let file = directory.path().join(STATE_NAME);
    for mode in [0o640, 0o604, 0o620, 0o601] {
        set_mode(&file, mode);
        let refused = open(directory.path()).unwrap_err();
        let ServerError::DataExposed { path, mode: found, chmod: "600" } = &refused else {
            panic!("{refused:?}")
        };
        assert_eq!((path, *found), (&file, mode));
    }
    set_mode(&file, 0o600);
    open(directory.path()).unwrap();
}

#[test]
fn a_directory_that_everybody_can_write_is_refused_with_what_to_type() {
    let directory = tempfile::tempdir().unwrap();
    set_mode(directory.path(), 0o1777);
    let refused = open(directory.path()).unwrap_err();
    assert!(matches!(refused, ServerError::DataExposed { chmod: "o-w", .. }), "{refused:?}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing was touched");
}

#[test]
fn a_lock_file_that_others_can_read_is_for_its_owner_only_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let lock = directory.path().join("lock");
    fs::write(&lock, b"not ours to cut").unwrap();
    set_mode(&lock, 0o644);
    drop(open(directory.path()).unwrap());
    assert_eq!(mode_of(&lock), 0o600);
    assert_eq!(fs::read(&lock).unwrap(), b"not ours to cut");
}

#[test]
fn a_symlink_in_place_of_a_file_is_refused_and_what_it_leads_to_is_left_alone() {
    for name in ["lock", "state"] {
        let directory = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let (victim, nothing) = (elsewhere.path().join("victim"), elsewhere.path().join("nothing"));
        fs::write(&victim, b"precious").unwrap();
        for target in [&victim, &nothing] {
            let link = directory.path().join(name);
            symlink(target, &link).unwrap();
            let refused = open(directory.path()).unwrap_err();
            assert!(refused.to_string().contains(name), "{refused}");
            assert!(refused.to_string().contains("symbolic link"), "{refused}");
            fs::remove_file(link).unwrap();
        }
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert!(!nothing.exists());
    }
}

#[test]
fn a_symlink_where_a_new_file_will_be_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let victim = elsewhere.path().join("victim");
    fs::write(&victim, b"precious").unwrap();
    for name in ["state.new", "snapshot.new", "snapshot"] {
        symlink(&victim, directory.path().join(name)).unwrap();
    }
    fs::remove_file(directory.path().join("snapshot")).unwrap();
    used(directory.path(), stopped);
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
}

#[test]
fn a_directory_or_file_that_was_deleted_or_replaced_is_noticed_at_each_save_and_look() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 5] = [
        ("deleted", |at| fs::remove_dir_all(at).unwrap()),
        ("renamed", |at| fs::rename(at, at.with_extension("bak")).unwrap()),
        ("replaced", |at| {
            fs::rename(at, at.with_extension("bak")).unwrap();
            used(at, crashed);
        }),
        ("state deleted", |at| fs::remove_file(at.join("state")).unwrap()),
        ("lock deleted", |at| fs::remove_file(at.join("lock")).unwrap()),
    ];
    for (how, harm) in harms {
        let outer = tempfile::tempdir().unwrap();
        let directory = outer.path().join("data");
        let store = open(&directory).unwrap();
        store.commit(&[Change::Durable(durable(7, 70))]).unwrap();
        store.check().unwrap();
        harm(&directory);
        assert!(matches!(store.check(), Err(StoreError::Gone { .. })), "{how}");
        let saved = store.commit(&[Change::SaveSnapshot(Snapshot::default().into())]);
        assert!(matches!(saved, Err(StoreError::Gone { .. })), "{how}: {saved:?}");
        drop(store);
        if how == "replaced" {
            let other = open(&directory).unwrap().load().unwrap();
            assert_eq!(other.durable, Some(durable(1, 20)), "left alone");
        }
    }
}

#[test]
fn the_file_does_not_grow_with_the_number_of_commits() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    for round in 0..60 {
        let numbers = round * 1000..(round + 1) * 1000;
        let forget = Change::ForgetForfeits { below: numbers.start };
        store.commit(&[record(numbers), vec![forget]].concat()).unwrap();
        let bytes = fs::metadata(directory.path().join(STATE_NAME)).unwrap().len();
        assert!(bytes < 1_300_000, "{bytes} bytes after {round} rounds");
    }
    drop(store);
    let store = open(directory.path()).unwrap();
    assert_eq!(store.load().unwrap().forfeits, forfeits(59_000..60_000));
    store.commit(&[Change::ForgetForfeits { below: 60_000 }]).unwrap();
    let bytes = fs::metadata(directory.path().join(STATE_NAME)).unwrap().len();
    assert_eq!(bytes, 4096, "a start writes it anew");
}
