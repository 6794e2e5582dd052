//! What whoever runs a server tells it of its upkeep, for metrics: reloads, and when certificates expire.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// How it is with reloads and certificates.
#[derive(Debug)]
pub(super) struct Upkeep(Mutex<Kept>);

/// The same, at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// When the configuration was read last without a mistake: at the start, or at a reload.
    pub reloaded_at: SystemTime,
    /// Whether the last reload was without a mistake.
    pub is_reloaded: bool,
    /// Reloads that changed nothing, because of a mistake.
    pub reload_failures: u64,
    /// When certificates expire.
    pub expires: Expires,
}

/// When certificates expire; none: there is none, or it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expires {
    /// Those that clients are shown.
    pub server: Option<SystemTime>,
    /// Those that clients are proven by.
    pub client_ca: Option<SystemTime>,
    /// The lists of those that were revoked.
    pub crl: Option<SystemTime>,
}

impl Upkeep {
    /// A server that has just read its configuration.
    pub(super) fn new(now: SystemTime) -> Self {
        let expires = Expires::default();
        let kept = Kept { reloaded_at: now, is_reloaded: true, reload_failures: 0, expires };
        Self(Mutex::new(kept))
    }

    /// Its certificates expire then.
    pub(super) fn expires(&self, expires: Expires) {
        self.locked().expires = expires;
    }

    /// Its configuration was read again, without a mistake or with one.
    pub(super) fn reloaded(&self, is_whole: bool, now: SystemTime) {
        let mut kept = self.locked();
        kept.is_reloaded = is_whole;
        if is_whole {
            kept.reloaded_at = now;
        } else {
            kept.reload_failures += 1;
        }
    }

    /// How it is.
    pub(super) fn kept(&self) -> Kept {
        *self.locked()
    }

    fn locked(&self) -> MutexGuard<'_, Kept> {
        // Nobody panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Upkeep {
    fn default() -> Self {
        Self::new(SystemTime::now())
    }
}
