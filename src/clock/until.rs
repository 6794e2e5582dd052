//! A moment that is moved: until when something holds, as one thread says and others ask.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use super::{BootClock, Clock};

/// A moment of the [`BootClock`] that one thread moves, and others compare with now. None waits for another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Until {
    shared: Arc<Shared>,
    /// For whom alone it is asked, if it matters whose it is.
    holder: Option<u64>,
}

#[derive(Debug, Default)]
struct Shared {
    /// In microseconds; 0: it is over.
    moment: AtomicU64,
    /// Whose it is.
    holder: AtomicU64,
    /// Who waits until it is ahead, if anybody does.
    waits: Mutex<Option<Waker>>,
}

impl Shared {
    fn waits(&self) -> MutexGuard<'_, Option<Waker>> {
        // Nobody panics while it is locked.
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Until {
    /// It is this moment from now on.
    #[cfg(any(test, feature = "cluster"))]
    pub(crate) fn move_to(&self, moment: crate::types::Timestamp) {
        self.shared.moment.store(moment.as_micros(), Ordering::Release);
        let waits = self.shared.waits().take();
        if let Some(waits) = waits {
            waits.wake();
        }
    }

    /// It is this moment from now on, and this one's: for others it is over.
    #[cfg(feature = "cluster")]
    pub(crate) fn move_for(&self, holder: u64, moment: crate::types::Timestamp) {
        if self.shared.holder.load(Ordering::Relaxed) != holder {
            // Nobody sees the moment of one with the name of another.
            self.shared.moment.store(0, Ordering::Release);
            self.shared.holder.store(holder, Ordering::Release);
        }
        self.move_to(moment);
    }

    /// The same, asked for this holder: it is over when it is another's.
    #[cfg(feature = "cluster")]
    pub(crate) fn of(self, holder: u64) -> Self {
        Self { holder: Some(holder), ..self }
    }

    /// Waits until it is moved ahead. One at a time does.
    pub(crate) async fn moves_ahead(&self) {
        poll_fn(|cx| {
            // Before it is looked at: whoever moves it then knows of us.
            *self.shared.waits() = Some(cx.waker().clone());
            if self.is_ahead() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Whether it is yet to come. To be asked each time, after what is decided on was read.
    pub(crate) fn is_ahead(&self) -> bool {
        let is_ahead = BootClock.now().as_micros() < self.shared.moment.load(Ordering::Acquire);
        let is_his = |holder| self.shared.holder.load(Ordering::Acquire) == holder;
        is_ahead && self.holder.is_none_or(is_his)
    }
}

#[cfg(all(test, feature = "cluster"))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn h2_a_moment_of_another_term_is_over_for_the_one_before() {
        let until = Until::default();
        let soon = BootClock.now().after(Duration::from_secs(3_600));
        until.move_for(1, soon);
        let (first, second) = (until.clone().of(1), until.clone().of(2));
        assert!(until.is_ahead() && first.is_ahead() && !second.is_ahead());
        until.move_for(2, soon);
        assert!(until.is_ahead() && !first.is_ahead() && second.is_ahead());
    }

    #[tokio::test]
    async fn who_waits_for_a_moment_to_be_moved_ahead_is_woken_by_the_thread_that_moves_it() {
        let until = Until::default();
        let waits = tokio::spawn({
            let until = until.clone().of(2);
            async move { until.moves_ahead().await }
        });
        // It waits already when the moment is moved.
        tokio::task::yield_now().await;
        let soon = BootClock.now().after(Duration::from_secs(3_600));
        std::thread::spawn(move || {
            until.move_to(crate::types::Timestamp::default());
            until.move_for(1, soon);
            until.move_for(2, soon);
        });
        waits.await.unwrap();
    }
}
