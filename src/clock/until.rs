//! A moment that is moved: until when something holds, as one thread says and others ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{BootClock, Clock};

/// A moment of the [`BootClock`] that one thread moves, and others compare with now. None waits for another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Until(
    /// In microseconds; 0: it is over.
    Arc<AtomicU64>,
);

impl Until {
    /// It is this moment from now on.
    #[cfg(any(test, feature = "cluster"))]
    pub(crate) fn move_to(&self, moment: crate::types::Timestamp) {
        self.0.store(moment.as_micros(), Ordering::Release);
    }

    /// Whether it is yet to come. To be asked each time, after what is decided on was read.
    pub(crate) fn is_ahead(&self) -> bool {
        BootClock.now().as_micros() < self.0.load(Ordering::Acquire)
    }
}
