//! Guards and clients in a process that was forked from the one that made them. The processes are
//! simulated. `tests/it/forked.rs` has real ones.

use std::task::{Context, Waker};

use tokio::time::sleep;

use super::fake_server::Harbour;
use super::*;
use crate::client::process::tests::forked;
use crate::client::{Client, HoldState};
use crate::wire::ClientMessage;

/// What `work` comes to without waiting.
fn at_once<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("it waits"),
    }
}

fn is_forked<T>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Forked | Error::Lost { reason: LostReason::Forked, .. }))
}

#[tokio::test(start_paused = true)]
async fn in_a_forked_process_guards_are_lost_at_once_and_nothing_can_be_asked() {
    let (_harbour, _server, client, guard) = Harbour::with_guard().await;
    let own_guard = guard.hold();
    forked(|| {
        let copy = Client::clone(&client);
        assert!(is_forked(&at_once(copy.lock("printer").into_future())));
        assert!(is_forked(&at_once(copy.lock_all(["a", "b"]).into_future())));
        assert!(is_forked(&at_once(copy.try_lock("printer"))));
        assert!(is_forked(&at_once(copy.status("printer"))));
        assert!(is_forked(&at_once(copy.watch("printer"))));
        at_once(copy.closed());
        assert!(is_forked(&at_once(copy.close())));
        assert!(!guard.is_held());
        assert!(guard.left().is_zero());
        assert_eq!(guard.state(), HoldState::Lost(LostReason::Forked));
        assert_eq!(at_once(guard.lost()), LostReason::Forked);
        assert!(is_forked(&at_once(guard.release())));
    });
    assert_eq!(own_guard.lost_reason(), Some(LostReason::Forked));
}

#[tokio::test(start_paused = true)]
async fn nothing_done_in_a_forked_process_reaches_the_server() {
    let (_harbour, mut server, client, guard) = Harbour::with_guard().await;
    let mut waits = client.lock("other").into_future();
    assert!(time::timeout(Duration::from_millis(1), &mut waits).await.is_err());
    assert!(matches!(server.hear().await, ClientMessage::Request(_)));
    forked(|| {
        drop(waits);
        drop(guard);
        drop(client);
    });
    // The driver goes on, as it does in the other process.
    assert!(matches!(server.hear().await, ClientMessage::KeepAlive { .. }));
}

#[test]
fn a_driver_that_finds_itself_in_a_forked_process_says_and_closes_nothing() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.unwrap();
    let (harbour, mut server, client, guard) = runtime.block_on(Harbour::with_guard());
    forked(|| {
        // Keep-alives would be due.
        runtime.block_on(async { sleep(Duration::from_secs(60)).await });
        drop((client, guard));
        drop(runtime);
    });
    let mut context = Context::from_waker(Waker::noop());
    assert!(pin!(server.hear()).poll(&mut context).is_pending());
    drop(harbour);
}
