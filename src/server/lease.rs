//! The right to decide, of one of several coordinators: until when it has it, and what waits for that.

use tokio::sync::watch;

use super::desk::Desk;
use super::desk::turn::Later;
use crate::clock::Until;
use crate::types::Timestamp;

/// Something that the desk is to do, once it may.
pub(super) type Act = Box<dyn FnOnce(&mut Desk, Timestamp)>;

/// The right to decide, of one of several coordinators.
pub(super) struct Lease {
    /// Until when it may.
    pub(super) until: Until,
    /// Whether it may not: it waits until it may again.
    pub(super) is_over: bool,
    /// Whether it never will again.
    pub(super) is_lost: bool,
    /// Whether all that come are sent away, though it may decide something again.
    pub(super) is_parting: bool,
    /// What is put off until then, but for what sessions say. As many as there are askers: each waits for
    /// its answer.
    pub(super) put_off: Vec<Act>,
    /// Told of later leaders.
    pub(super) later: watch::Sender<Later>,
}

impl From<Until> for Lease {
    fn from(until: Until) -> Self {
        let later = watch::Sender::new(Later::default());
        let put_off = Vec::new();
        Self { until, is_over: false, is_lost: false, is_parting: false, put_off, later }
    }
}

impl Lease {
    /// Tells of later leaders.
    #[cfg(feature = "cluster")]
    pub(super) fn later(&self) -> watch::Receiver<Later> {
        self.later.subscribe()
    }
}
