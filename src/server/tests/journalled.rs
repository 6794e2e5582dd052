//! Stories of a Coordinator whose journal fails. Nothing is said that is not written down, and
//! nothing false is written down (rules J1, J5).

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::journal::{Bounds, Distance};
use crate::server::durable::chronicle::{Chronicle, Ground};
use crate::server::messages::Save;
use crate::server::testing::{Bench, FlakyStore, local, release, request, settle};
use crate::types::Epoch;
use crate::wire::ServerMessage;

/// The name of a segment that is behind all that there are.
const LATEST: &str = "journal/99999998.log";

/// The journal of a run of epoch 7, as [`Bench::behind`] has it.
fn chronicle(data: &Path) -> Chronicle {
    let (last, next) = (Epoch::new(6), Epoch::new(7));
    Chronicle::on(Ground::of(data).unwrap(), Distance::Process, last, next)
}

/// The same, with a checkpoint after so many bytes of records.
fn chronicle_of(data: &Path, floor_bytes: u64, distance: Distance) -> Chronicle {
    let (last, next) = (Epoch::new(6), Epoch::new(7));
    let bounds = Bounds { floor_bytes, checkpoints: 0 };
    Chronicle::on(Ground { bounds, ..Ground::of(data).unwrap() }, distance, last, next)
}

/// The files of the journal.
fn files(data: &Path) -> Vec<String> {
    let entries = fs::read_dir(data.join("journal")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn remove_segments(data: &Path) {
    for entry in fs::read_dir(data.join("journal")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_over_and_could_not_be_saved_leaves_no_journal_that_says_that_nothing_is_held() {
    local(async {
        let data = tempfile::tempdir().unwrap();
        let store = Arc::new(FlakyStore::default());
        let mut bench = Bench::behind(chronicle(data.path()), &store);
        let session = bench.open().await;
        session.submit(vec![request(1, "printer")]);
        settle().await;
        assert!(matches!(session.take()[..], [ServerMessage::Grant { .. }]));
        // The disk fails, for the journal and for the state.
        remove_segments(data.path());
        store.fail(true);
        sleep(Duration::from_secs(4)).await;
        let (saved, _done) = oneshot::channel();
        bench.coordinator.send(Save { saved }).await.unwrap();
        sleep(Duration::from_secs(60)).await;
        let (last, next) = (Epoch::new(7), Epoch::new(8));
        let mut next =
            Chronicle::on(Ground::of(data.path()).unwrap(), Distance::Process, last, next);
        assert!(next.find().is_none());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn while_a_journal_cannot_be_made_void_nothing_is_said_and_that_is_tried_once_a_second() {
    local(async {
        let data = tempfile::tempdir().unwrap();
        let store = Arc::new(FlakyStore::default());
        let mut bench = Bench::behind(chronicle(data.path()), &store);
        let session = bench.open().await;
        // Neither emptied nor removed can be what is no file.
        remove_segments(data.path());
        fs::create_dir(data.path().join(LATEST)).unwrap();
        sleep(Duration::from_secs(4)).await;
        session.submit(vec![request(1, "printer")]);
        // If each try led to two, there would be more than a million by now.
        sleep(Duration::from_secs(40)).await;
        assert!(session.take().is_empty());
        fs::remove_dir(data.path().join(LATEST)).unwrap();
        sleep(Duration::from_secs(2)).await;
        assert!(matches!(session.take()[..], [ServerMessage::Grant { .. }, ..]));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn j6_a_small_table_is_written_down_itself_and_no_record_is_replayed_for_its_checkpoint() {
    local(async {
        let data = tempfile::tempdir().unwrap();
        let store = Arc::new(FlakyStore::default());
        let chronicle = chronicle_of(data.path(), 1_000, Distance::Process);
        let keeping = chronicle.keeping();
        let mut bench = Bench::behind(chronicle, &store);
        let session = bench.open().await;
        for number in 1..=100 {
            session.submit(vec![request(number, "printer")]);
            settle().await;
            let [ServerMessage::Grant { token, .. }] = session.take()[..] else { panic!() };
            session.submit(vec![release(number, token.number())]);
            settle().await;
            session.take();
            // No thread has had the time to do anything.
            assert!(keeping.bytes() < 2_000, "{}", keeping.bytes());
            assert!(files(data.path()).len() <= 2, "{:?}", files(data.path()));
        }
        session.submit(vec![request(101, "plotter")]);
        settle().await;
        assert!(matches!(session.take()[..], [ServerMessage::Grant { .. }]));
        let (last, next) = (Epoch::new(7), Epoch::new(8));
        let mut next =
            Chronicle::on(Ground::of(data.path()).unwrap(), Distance::Process, last, next);
        assert_eq!(next.find().unwrap().counts().held, 1);
    })
    .await;
}
