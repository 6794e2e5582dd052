//! Commits, away from the actors: the Coordinator says what is to be durable and goes on; this task
//! has it committed on a thread that may block, and says `Persisted` when it is.
//!
//! A commit that fails is tried again for as long as it takes, ever more slowly. Meanwhile the engine
//! grants from what is reserved, and when that is used up it says `Unavailable` (rule F2).

use std::sync::Arc;
use std::time::Duration;

use actix::WeakAddr;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::coordinator::Coordinator;
use super::messages::Persisted;
use super::store::StateStore;
use crate::engine::Durable;

/// How soon a failed commit is tried again, at first.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// How soon it is tried again in the end.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Commits what comes from `orders`, in that order, and tells the Coordinator. Ends when there is none
/// any more. The channel has no bound, for the engine orders anew only what is not yet on order.
pub(super) async fn commit_all(
    store: Arc<dyn StateStore>,
    mut orders: UnboundedReceiver<Durable>,
    coordinator: WeakAddr<Coordinator>,
) {
    while let Some(durable) = orders.recv().await {
        commit(&store, durable).await;
        log::debug!("state saved epoch={} tokens_below={}", durable.epoch, durable.tokens_below);
        let Some(coordinator) = coordinator.upgrade() else { return };
        coordinator.do_send(Persisted(durable));
    }
}

async fn commit(store: &Arc<dyn StateStore>, durable: Durable) {
    let mut pause = RETRY_MIN;
    loop {
        let store = Arc::clone(store);
        let failure = match spawn_blocking(move || store.commit(&durable)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        log::error!("state cannot be saved, trying again in {pause:?}: {failure}");
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::mpsc::unbounded_channel;
    use tokio::task::spawn_local;
    use tokio::time::Instant;

    use super::super::store::StoreError;
    use super::super::testing::{Bench, local, settle, try_request};
    use super::*;
    use crate::wire::ServerMessage;

    /// Fails so many times.
    struct FailingStore(AtomicU32);

    impl StateStore for FailingStore {
        fn load(&self) -> Result<Option<Durable>, StoreError> {
            Ok(None)
        }

        fn commit(&self, _: &Durable) -> Result<(), StoreError> {
            let left = self.0.load(Ordering::SeqCst);
            self.0.store(left.saturating_sub(1), Ordering::SeqCst);
            if left == 0 { Ok(()) } else { Err(StoreError::Other("no space left".into())) }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_fails_is_tried_again_until_granting_goes_on() {
        local(async {
            let mut bench = Bench::with_tokens(2);
            let session = bench.open().await;
            session.submit((1..=3).map(|id| try_request(id, &id.to_string())).collect());
            settle().await;
            assert!(matches!(session.take()[2], ServerMessage::Rejected { .. }));

            let (sender, orders) = unbounded_channel();
            let order = bench.orders.recv().await.unwrap();
            sender.send(order).unwrap();
            let began = Instant::now();
            let store = Arc::new(FailingStore(AtomicU32::new(3)));
            let coordinator = bench.coordinator.downgrade();
            let task = spawn_local(commit_all(store, orders, coordinator));
            drop(sender);
            task.await.unwrap();
            // 100, 200 and 400 ms, and what nobody waits for on the actors' thread.
            assert!(began.elapsed() >= Duration::from_millis(700));
            session.submit(vec![try_request(4, "4")]);
            settle().await;
            session.take_grant(4);
        })
        .await;
    }
}
