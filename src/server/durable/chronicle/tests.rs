//! A journal on a disk: given up, begun anew, and believed by the next run.

use std::fs;
use std::path::Path;

use super::*;
use crate::engine::{Event, Seed, Start};
use crate::journal::{Failure, RECORD_BYTES_MAX, Void};
use crate::server::durable::replay::Record;
use crate::types::{ConnectionId, Limits, Timestamp};

const FLOOR_BYTES: usize = 4 * 1024 * 1024;

fn table() -> LockTable {
    let now = Timestamp::default();
    LockTable::new(Limits::default(), Start::default(), Seed::default(), now)
}

/// A run of the epoch `next` on what one of the epoch `last` has left.
fn run(data: &Path, last: u64, next: u64) -> Chronicle {
    let (last, next) = (Epoch::new(last), Epoch::new(next));
    Chronicle::on(Ground::of(data).unwrap(), Distance::Process, last, next)
}

/// Events that say nothing, of about so many bytes.
fn events(bytes: usize) -> Record {
    let mut record = Record::default();
    let event = Event::Disconnect { connection: ConnectionId::new(u64::MAX) };
    while record.parts().map(<[u8]>::len).sum::<usize>() < bytes {
        for _ in 0..1000 {
            record.write(&event, Timestamp::default());
        }
    }
    record
}

fn write(chronicle: &mut Chronicle, record: &Record) -> Flushed {
    record.parts().for_each(|part| chronicle.append(part));
    chronicle.flush()
}

fn segments(data: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(data.join("journal")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|it| it == "log")).collect()
}

/// Takes the journal away, has that noticed, and lets so much time pass that it may be begun anew.
async fn lose(chronicle: &mut Chronicle, data: &Path) {
    for path in segments(data) {
        fs::remove_file(path).unwrap();
    }
    assert!(matches!(chronicle.check(), Some(Flushed::Off)));
    tokio::time::sleep(ANEW_AFTER).await;
    assert!(chronicle.may_begin_anew());
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_is_begun_anew_knows_the_epoch_that_was_ordered_meanwhile() {
    let data = tempfile::tempdir().unwrap();
    let mut chronicle = run(data.path(), 6, 7);
    assert!(chronicle.begin(&table()));
    lose(&mut chronicle, data.path()).await;
    chronicle.epoch(Some(Epoch::new(1440)), None);
    assert!(chronicle.begin(&table()));
    assert!(matches!(write(&mut chronicle, &events(1)), Flushed::Written(None)));
    assert!(run(data.path(), 1440, 1441).find().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_was_ordered_before_a_crash_and_is_ordered_again_is_known_to_the_journal() {
    let data = tempfile::tempdir().unwrap();
    let mut chronicle = run(data.path(), 6, 7);
    assert!(chronicle.begin(&table()));
    chronicle.epoch(Some(Epoch::new(1440)), None);
    assert!(matches!(write(&mut chronicle, &events(1)), Flushed::Written(None)));
    // A crash, before the state has it.
    let mut chronicle = run(data.path(), 7, 8);
    assert!(chronicle.find().is_some());
    chronicle.epoch(Some(Epoch::new(1440)), None);
    assert!(matches!(write(&mut chronicle, &events(1)), Flushed::Written(None)));
    assert!(run(data.path(), 1440, 1441).find().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_is_longer_than_a_record_may_be_is_written_down_all_the_same() {
    let data = tempfile::tempdir().unwrap();
    let mut chronicle = run(data.path(), 6, 7);
    assert!(chronicle.begin(&table()));
    let mut record = events(RECORD_BYTES_MAX + 1);
    assert!(record.parts().all(|part| part.len() <= RECORD_BYTES_MAX));
    let flushed = write(&mut chronicle, &record);
    assert!(matches!(flushed, Flushed::Written(None)), "{flushed:?}");
    assert!(run(data.path(), 7, 8).find().is_some());
    record.clear();
    assert_eq!(record.parts().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_cannot_be_written_is_tried_again_after_a_pause() {
    let data = tempfile::tempdir().unwrap();
    let mut chronicle = run(data.path(), 6, 7);
    assert!(chronicle.begin(&table()));
    write(&mut chronicle, &events(FLOOR_BYTES));
    let is_due = |chronicle: &mut Chronicle| {
        matches!(write(chronicle, &events(1)), Flushed::Written(Some(_)))
    };
    assert!(is_due(&mut chronicle));
    assert!(chronicle.checkpointed(Err(NotMade::Unwritten(Failure::NotBegun))).is_none());
    for _ in 0..100 {
        assert!(!is_due(&mut chronicle));
        assert!(chronicle.check().is_none());
    }
    tokio::time::sleep(CHECKPOINT_AFTER).await;
    assert!(chronicle.check().is_none());
    assert!(is_due(&mut chronicle));
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_cannot_be_read_again_is_given_up_and_one_that_went_before_is_not_held_against_it()
 {
    let unread = || Err(NotMade::Unread(Void::SegmentMissing { segment: 1 }));
    let data = tempfile::tempdir().unwrap();
    let mut chronicle = run(data.path(), 6, 7);
    assert!(chronicle.begin(&table()));
    write(&mut chronicle, &events(FLOOR_BYTES));
    assert!(matches!(write(&mut chronicle, &events(1)), Flushed::Written(Some(_))));
    // While the checkpoint is made.
    lose(&mut chronicle, data.path()).await;
    assert!(chronicle.begin(&table()));
    assert!(chronicle.checkpointed(unread()).is_none());
    write(&mut chronicle, &events(FLOOR_BYTES));
    assert!(matches!(write(&mut chronicle, &events(1)), Flushed::Written(Some(_))));
    assert!(matches!(chronicle.checkpointed(unread()), Some(Flushed::Off)));
    assert_eq!(segments(data.path()), Vec::<std::path::PathBuf>::new());
    assert!(run(data.path(), 7, 8).find().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_the_start_after_one_that_left_a_long_journal_loses_nothing() {
    let data = tempfile::tempdir().unwrap();
    let mut chronicle = run(data.path(), 6, 7);
    assert!(chronicle.begin(&table()));
    // No checkpoint comes of it.
    write(&mut chronicle, &events(2 * FLOOR_BYTES + FLOOR_BYTES / 8));
    assert!(run(data.path(), 7, 8).find().is_some());
    // The crash comes when the state has the new epoch, and nothing was decided yet.
    assert!(run(data.path(), 8, 9).find().is_some());
    // Or before it has.
    assert!(run(data.path(), 8, 10).find().is_some());
}

fn synced_run(data: &Path, last: u64, next: u64) -> Chronicle {
    let (last, next) = (Epoch::new(last), Epoch::new(next));
    Chronicle::on(Ground::of(data).unwrap(), Distance::Machine, last, next)
}

fn job(flushed: Flushed) -> Box<Job> {
    match flushed {
        Flushed::Writing(job) => job,
        other => panic!("nothing is to be synced: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_a_thread_syncs_is_synced_together_afterwards() {
    let data = tempfile::tempdir().unwrap();
    let mut chronicle = synced_run(data.path(), 6, 7);
    assert!(chronicle.begin(&table()));
    let first = job(write(&mut chronicle, &events(1)));
    for _ in 0..10 {
        assert!(matches!(write(&mut chronicle, &events(1)), Flushed::Later));
    }
    assert!(matches!(chronicle.written(Some(first.run())), Flushed::Written(None)));
    let rest = job(chronicle.flush());
    assert!(matches!(chronicle.written(Some(rest.run())), Flushed::Written(None)));
    // Nothing is left, and nobody waits for a disk that has nothing to do.
    assert!(matches!(chronicle.flush(), Flushed::Written(None)));
    drop(chronicle);
    let mut next = synced_run(data.path(), 7, 8);
    assert!(next.find().is_some());
    let Beginning::Replayed { events, .. } = next.keeping().beginning() else { panic!() };
    assert_eq!(events, 11 * 1000);
}

#[tokio::test(start_paused = true)]
async fn a_thread_that_ends_before_it_says_what_is_written_leaves_no_journal() {
    let data = tempfile::tempdir().unwrap();
    let mut chronicle = synced_run(data.path(), 6, 7);
    assert!(chronicle.begin(&table()));
    drop(job(write(&mut chronicle, &events(1))));
    assert!(matches!(chronicle.written(None), Flushed::Off));
    assert_eq!(segments(data.path()), Vec::<std::path::PathBuf>::new());
    assert!(chronicle.keeping().off().is_some());
    tokio::time::sleep(ANEW_AFTER).await;
    assert!(chronicle.may_begin_anew() && chronicle.begin(&table()));
    assert!(chronicle.keeping().off().is_none());
    drop(chronicle);
    assert!(synced_run(data.path(), 7, 8).find().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_is_made_while_a_thread_syncs_counts_when_it_has() {
    let data = tempfile::tempdir().unwrap();
    let mut chronicle = synced_run(data.path(), 6, 7);
    assert!(chronicle.begin(&table()));
    let long = job(write(&mut chronicle, &events(FLOOR_BYTES)));
    assert!(matches!(chronicle.written(Some(long.run())), Flushed::Written(None)));
    let last = job(write(&mut chronicle, &events(1)));
    let Flushed::Written(Some(task)) = chronicle.written(Some(last.run())) else { panic!() };
    let meanwhile = job(write(&mut chronicle, &events(1)));
    let made = chronicle.checkpoint_maker()(&task);
    assert!(made.is_ok());
    assert!(chronicle.checkpointed(made).is_none());
    assert!(matches!(chronicle.written(Some(meanwhile.run())), Flushed::Written(None)));
    assert!(chronicle.keeping().bytes() < FLOOR_BYTES as u64);
    drop(chronicle);
    assert!(synced_run(data.path(), 7, 8).find().is_some());
}

#[tokio::test(start_paused = true)]
async fn j9_a_journal_of_another_server_is_void_though_it_was_moved_here_and_has_the_same_epochs() {
    let on = |data: &Path, state| {
        let ground = Ground { state, ..Ground::of(data).unwrap() };
        Chronicle::on(ground, Distance::Process, Epoch::new(6), Epoch::new(7))
    };
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut chronicle = on(theirs.path(), [1; 16]);
    assert!(chronicle.begin(&table()));
    write(&mut chronicle, &events(1));
    // Not copied: they are the very files.
    std::fs::rename(theirs.path().join("journal"), ours.path().join("journal")).unwrap();
    let next = |state| {
        let ground = Ground { state, ..Ground::of(ours.path()).unwrap() };
        Chronicle::on(ground, Distance::Process, Epoch::new(7), Epoch::new(8))
    };
    let mut chronicle = next([2; 16]);
    assert!(chronicle.find().is_none());
    assert_eq!(chronicle.why_void(), Some("it belongs to the state of another data directory"));
    assert!(next([1; 16]).find().is_some());
}
