//! Commits, away from the actors. The Coordinator orders a change and goes on. This task has it
//! committed on a thread that may block, and then says `Committed`.
//!
//! While one commit is on its way, orders collect, and the next commit takes all of them (group
//! commit). However many sessions end at once, the disk is synced once or twice.
//!
//! A commit that fails is tried again for as long as it takes, ever more slowly (backoff).
//! Meanwhile the engine grants from the reserved tokens, and says `Unavailable` when they are used
//! up (rule F2). Locks that wait for a record stay where they are (rule G1).

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix::WeakRecipient;
use log::{debug, error, info};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::chronicle::Ground;
use super::store::{Change, StateStore};
use crate::engine::Durable;
use crate::server::counters::Counters;

/// How soon a failed commit is tried again, at first.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// How soon it is tried again in the end.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Most orders in one commit.
const BATCH_LEN_MAX: usize = 4096;

/// Something to be made durable.
#[derive(Debug)]
pub(in crate::server) struct Order {
    /// The change.
    pub(in crate::server) change: Change,
    /// Told when it is, besides the Coordinator.
    pub(in crate::server) done: Option<oneshot::Sender<()>>,
}

/// So much more is on disk.
#[derive(Debug)]
pub(crate) struct Committed {
    /// The counters, if they were among it.
    pub(crate) durable: Option<Durable>,
    /// How many forfeits were among it: the oldest that were not yet.
    pub(crate) recorded: usize,
}

/// Keeps the state, without having anybody wait on this thread.
pub(crate) trait Disk: 'static {
    /// What is behind it.
    type Store: StateStore + ?Sized;

    /// What is behind it, for a start, when nobody is there to wait.
    fn store(&self) -> &Self::Store;

    /// Has the store commit `changes`, or says why it did not.
    async fn commit(&self, changes: &Arc<[Change]>) -> Result<(), String>;

    /// How soon a commit that failed is tried again in the end.
    fn retry_max(&self) -> Duration {
        RETRY_MAX
    }

    /// Where the journal of a data directory is.
    fn ground(&self, data: &Path) -> io::Result<Ground> {
        Ground::of(data)
    }
}

/// A store that may block its caller is called on a thread of its own.
impl<S: StateStore + ?Sized + 'static> Disk for Arc<S> {
    type Store = S;

    fn store(&self) -> &S {
        self
    }

    async fn commit(&self, changes: &Arc<[Change]>) -> Result<(), String> {
        let (store, changes) = (Arc::clone(self), Arc::clone(changes));
        match spawn_blocking(move || StateStore::commit(&*store, &changes)).await {
            Ok(committed) => committed.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Commits what comes from `orders`, in that order, and tells the Coordinator. Ends when there is
/// none any more. The channel has no bound. Numbers are ordered anew only when the last order is on
/// disk, and forfeits are as many as there are sessions and revocations.
pub(in crate::server) async fn commit_all<D: Disk>(
    disk: D,
    mut orders: UnboundedReceiver<Order>,
    coordinator: WeakRecipient<Committed>,
    counters: Arc<Counters>,
) {
    let mut batch = Vec::new();
    while orders.recv_many(&mut batch, BATCH_LEN_MAX).await > 0 {
        let (changes, done): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|Order { change, done }| (change, done)).unzip();
        let committed = summary(&changes);
        debug!(changes = changes.len(); "saving");
        commit(&disk, &changes.into(), &counters).await;
        for done in done.into_iter().flatten() {
            // Whoever asked may have given up.
            let _ = done.send(());
        }
        let Some(coordinator) = coordinator.upgrade() else { return };
        coordinator.do_send(committed);
    }
}

/// What the Coordinator will be told of a batch.
pub(crate) fn summary(changes: &[Change]) -> Committed {
    let mut committed = Committed { durable: None, recorded: 0 };
    for change in changes {
        match change {
            // A later one holds what an earlier one did.
            Change::Durable(durable) => committed.durable = Some(*durable),
            Change::Forfeit { .. } => committed.recorded += 1,
            Change::Key(_)
            | Change::ForgetForfeits { .. }
            | Change::SaveSnapshot(_)
            | Change::DropSnapshot => {}
        }
    }
    committed
}

async fn commit<D: Disk>(disk: &D, changes: &Arc<[Change]>, counters: &Counters) {
    let mut pause = RETRY_MIN;
    let mut began = Instant::now();
    while let Err(failure) = disk.commit(changes).await {
        counters.commit_failures.add_one();
        if counters.saving_failed(&failure) {
            error!("state cannot be saved, trying again until it can: {failure}");
        } else {
            debug!("state still cannot be saved, trying again in {pause:?}: {failure}");
        }
        sleep(pause).await;
        pause = (pause * 2).min(disk.retry_max());
        began = Instant::now();
    }
    counters.committed(began.elapsed());
    if let Some(outage) = counters.saved() {
        info!("state can be saved again after {outage:.1?}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::mpsc::unbounded_channel;
    use tokio::task::spawn_local;

    use super::super::store::{StoreError, Stored};
    use super::*;
    use crate::engine::Forfeit;
    use crate::server::testing::{Bench, FlakyStore, local, settle, try_request};
    use crate::types::FencingToken;
    use crate::wire::ServerMessage;

    /// Keeps how long its commits are.
    #[derive(Default)]
    struct CountingStore(Mutex<Vec<usize>>);

    impl StateStore for CountingStore {
        fn load(&self) -> Result<Stored, StoreError> {
            Ok(Stored::default())
        }

        fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
            self.0.lock().unwrap().push(changes.len());
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_fails_is_tried_again_until_granting_goes_on() {
        local(async {
            let (mut bench, orders) = Bench::by_hand(2);
            let session = bench.open().await;
            session.submit((1..=3).map(|id| try_request(id, &id.to_string())).collect());
            settle().await;
            assert!(matches!(session.take()[2], ServerMessage::Rejected { .. }));

            let store = Arc::new(FlakyStore::default());
            store.fail(true);
            spawn_local(commit_all(
                store.clone(),
                orders,
                bench.coordinator.downgrade().recipient(),
                Arc::clone(&bench.counters),
            ));
            for _ in 0..10 {
                // Stays alive.
                session.submit(vec![try_request(4, "4")]);
                sleep(Duration::from_secs(5)).await;
                let answers = session.take();
                assert!(matches!(answers[..], [ServerMessage::Rejected { .. }]), "{answers:?}");
            }
            let unsaved = bench.counters.unsaved().unwrap();
            assert!(unsaved > Duration::from_secs(45), "whoever looks is told: {unsaved:?}");
            store.fail(false);
            session.submit(vec![try_request(4, "4")]);
            sleep(RETRY_MAX / 2).await;
            session.submit(vec![try_request(4, "4")]);
            sleep(RETRY_MAX / 2).await;
            assert_eq!(bench.counters.unsaved(), None);
            session.take();
            session.submit(vec![try_request(5, "5")]);
            settle().await;
            session.take_grant(5);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_together_is_committed_together_and_in_order() {
        local(async {
            let bench = Bench::new();
            let (sender, orders) = unbounded_channel();
            let store = Arc::new(CountingStore::default());
            for number in 0..10 {
                let forfeit = Forfeit::Grant(FencingToken::new(number));
                let change = Change::Forfeit { number, forfeit };
                sender.send(Order { change, done: None }).unwrap();
            }
            let (done, told) = oneshot::channel();
            let change = Change::ForgetForfeits { below: 5 };
            sender.send(Order { change, done: Some(done) }).unwrap();
            spawn_local(commit_all(
                store.clone(),
                orders,
                bench.coordinator.downgrade().recipient(),
                Arc::default(),
            ));
            told.await.unwrap();
            assert_eq!(*store.0.lock().unwrap(), [11]);
        })
        .await;
    }

    #[test]
    fn the_coordinator_hears_of_the_latest_counters_and_of_every_forfeit() {
        let durable =
            |below| Durable { tokens_below: FencingToken::new(below), ..Durable::default() };
        let forfeit = Forfeit::Grant(FencingToken::new(1));
        let committed = summary(&[
            Change::Durable(durable(10)),
            Change::Forfeit { number: 0, forfeit },
            Change::Durable(durable(20)),
            Change::ForgetForfeits { below: 0 },
            Change::Forfeit { number: 1, forfeit },
        ]);
        assert_eq!((committed.durable, committed.recorded), (Some(durable(20)), 2));
    }
}
