//! The barrier: it tells when everything has been submitted that could be read at a moment.
//!
//! A task that yields is woken once the I/O driver was polled, behind all the tasks that it woke.
//! It is therefore behind the sessions that had something to read. Their messages stand in the
//! Coordinator's mailbox before any later one.

use std::rc::Rc;

use tokio::sync::oneshot;
use tokio::task::yield_now;

/// How often the sockets are looked at before all is said to be heard: a connection is accepted, then
/// watched, then read.
const LOOKS: usize = 3;

/// Asks a thread to say when it has [looked](look) at all of its sockets.
pub(super) type Ask = Rc<dyn Fn(oneshot::Sender<()>)>;

/// Of all the threads that have sessions.
#[derive(Clone, Default)]
pub(super) struct Barrier {
    /// Those besides this one.
    threads: Vec<Ask>,
}

impl Barrier {
    /// One with these threads besides the one on which it is passed.
    pub(super) fn of(threads: Vec<Ask>) -> Self {
        Self { threads }
    }

    /// Returns once all that could be read when it was called is submitted.
    pub(super) async fn pass(&self) {
        let ask = |thread: &Ask| {
            let (passed, has_passed) = oneshot::channel();
            thread(passed);
            has_passed
        };
        let others: Vec<_> = self.threads.iter().map(ask).collect();
        look().await;
        for other in others {
            // One that has ended has nothing to say.
            let _ = other.await;
        }
    }
}

/// Has the sockets of this thread looked at.
pub(super) async fn look() {
    for _ in 0..LOOKS {
        yield_now().await;
    }
}
