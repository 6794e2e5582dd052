//! The same on the disk of this machine.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;

fn open(data: &Path) -> Directory {
    Directory::open(&File::open(data).unwrap()).unwrap()
}

fn here() -> Expected {
    Expected { place: Place::here(), ..expected() }
}

/// A journal of a million small steps, or of some.
fn written(data: &Path, distance: Distance, records: u64) -> Journal<Directory> {
    let run = Run { place: Place::here(), ..run(1, distance) };
    let mut journal = Journal::new(open(data), run, BOUNDS);
    journal.begin(None).unwrap();
    for number in 1..=records {
        journal.append(&record(number));
        journal.flush().unwrap();
        if let Some(task) = journal.writer().due() {
            let made = compact(&open(data), &task, Story::restore).unwrap();
            journal.writer().checkpointed(&made);
        }
    }
    journal
}

fn there(data: &Path) -> Result<u64, Void> {
    match recover(&open(data), &here()) {
        Recovered::Whole(whole) => {
            assert_eq!(whole.replay(&open(data), Story::restore)?, Story::of(whole.next() - 1));
            Ok(whole.next() - 1)
        }
        Recovered::Void(void) => Err(void),
        Recovered::Fresh => Ok(0),
    }
}

fn segments(data: &Path) -> Vec<String> {
    let entries = fs::read_dir(data.join(JOURNAL_NAME)).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_journal_on_a_real_disk_is_recovered_and_goes_on() {
    for distance in DISTANCES {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        assert_eq!(there(data), Ok(0));
        let mut first = written(data, distance, 100);
        first.writer().check().unwrap();
        drop(first);
        assert_eq!(there(data), Ok(100));
        let Recovered::Whole(whole) = recover(&open(data), &here()) else { panic!("it is whole") };
        let run = Run { place: Place::here(), ..run(2, distance) };
        let mut journal = Journal::new(open(data), run, BOUNDS);
        journal.go_on(&whole).unwrap();
        journal.append(&record(101));
        journal.flush().unwrap();
        assert_eq!(there(data), Ok(101));
    }
}

#[test]
fn j7_what_is_written_is_for_its_owner_only() {
    let data = tempfile::tempdir().unwrap();
    drop(written(data.path(), Distance::Process, 60));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let journal = data.path().join(JOURNAL_NAME);
    assert_eq!(mode(&journal), 0o700);
    for name in segments(data.path()) {
        assert_eq!(mode(&journal.join(&name)), 0o600, "{name}");
    }
    fs::set_permissions(&journal, fs::Permissions::from_mode(0o770)).unwrap();
    assert!(Directory::open(&File::open(data.path()).unwrap()).is_err());
}

#[test]
fn j7_links_are_not_followed() {
    let (data, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    symlink(elsewhere.path(), data.path().join(JOURNAL_NAME)).unwrap();
    assert!(Directory::open(&File::open(data.path()).unwrap()).is_err());
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);

    let data = tempfile::tempdir().unwrap();
    open(data.path());
    let victim = elsewhere.path().join("victim");
    fs::write(&victim, b"precious").unwrap();
    for name in ["00000001.log", "00000002.log.new", "00000002.checkpoint"] {
        symlink(&victim, data.path().join(JOURNAL_NAME).join(name)).unwrap();
    }
    let void = there(data.path()).unwrap_err();
    assert!(void.to_string().contains("symbolic link"), "{void}");
    drop(written(data.path(), Distance::Process, 60));
    assert_eq!(there(data.path()), Ok(60));
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
}

#[test]
fn j9_a_copied_directory_is_void() {
    let (data, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(written(data.path(), Distance::Machine, 5));
    open(copy.path());
    for name in segments(data.path()) {
        let from = data.path().join(JOURNAL_NAME).join(&name);
        fs::copy(from, copy.path().join(JOURNAL_NAME).join(&name)).unwrap();
    }
    assert!(matches!(there(copy.path()), Err(Void::Copied { .. })));
    assert_eq!(there(data.path()), Ok(5));
}

#[test]
fn j9_a_hard_link_makes_it_void() {
    let data = tempfile::tempdir().unwrap();
    drop(written(data.path(), Distance::Process, 3));
    let journal = data.path().join(JOURNAL_NAME);
    fs::hard_link(journal.join("00000001.log"), data.path().join("kept")).unwrap();
    assert_eq!(there(data.path()), Err(Void::Linked { segment: 1, links: 2 }));
}

#[test]
fn j5_a_directory_that_was_deleted_is_noticed() {
    let data = tempfile::tempdir().unwrap();
    let mut journal = written(data.path(), Distance::Process, 3);
    fs::remove_dir_all(data.path().join(JOURNAL_NAME)).unwrap();
    journal.append(&record(4));
    journal.flush().unwrap();
    assert!(matches!(journal.writer().check(), Err(Broken::Void(Failure::Gone { .. }))));
}
