//! A moment that is moved: until when something holds, as one thread says and others ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
}

impl Until {
    /// It is this moment from now on.
    #[cfg(any(test, feature = "cluster"))]
    pub(crate) fn move_to(&self, moment: crate::types::Timestamp) {
        self.shared.moment.store(moment.as_micros(), Ordering::Release);
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
}
