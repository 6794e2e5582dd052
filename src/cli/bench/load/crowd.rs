//! One lock that all connections want: how long it takes from hand to hand.
//!
//! A *hand-over* is the time from before a release is written until the next grant was read, by any
//! connection. All of them are in this process, so one clock tells both. A grant to somebody who
//! asked only after the release is none.
//!
//! In the closed loop a holder gives the lock back as soon as another has asked for it. So every
//! grant is a hand-over, also among two.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// No release waits for its grant. Moments count from 1.
const NO_MOMENT: u64 = 0;

/// All who want the lock.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    /// How many have asked and were not granted yet.
    asking: AtomicUsize,
    /// How many may still ask.
    present: AtomicUsize,
    /// When the latest release was written, if nobody was granted since: in nanoseconds.
    released_at: AtomicU64,
    /// Somebody asked, or nobody will any more.
    changed: Notify,
}

impl Crowd {
    /// So many connections.
    pub(crate) fn new(connections: usize) -> Self {
        Self { present: AtomicUsize::new(connections), ..Self::default() }
    }

    /// Somebody is about to ask.
    pub(crate) fn asks(&self) {
        self.asking.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_one();
    }

    /// Somebody who asked at `asked_at` was granted at `now`: how long the hand-over took, if it
    /// was one.
    pub(crate) fn granted(&self, asked_at: u64, now: u64) -> Option<u64> {
        self.asking.fetch_sub(1, Ordering::SeqCst);
        let released_at = self.released_at.swap(NO_MOMENT, Ordering::SeqCst);
        let is_handed_over = released_at != NO_MOMENT && asked_at < released_at;
        is_handed_over.then(|| now.saturating_sub(released_at))
    }

    /// Somebody is about to release.
    pub(crate) fn releases(&self, now: u64) {
        self.released_at.store(now.max(NO_MOMENT + 1), Ordering::SeqCst);
    }

    /// Somebody will not ask any more.
    pub(crate) fn leaves(&self) {
        // After the end there is nobody to be counted.
        let one_less = |present: usize| present.checked_sub(1);
        let _already = self.present.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
        self.changed.notify_one();
    }

    /// Nobody needs to wait any more.
    pub(crate) fn end(&self) {
        self.present.store(0, Ordering::SeqCst);
        self.changed.notify_one();
    }

    /// Waits until somebody has asked, or nobody else is left who could. Only the holder calls it,
    /// and there is one: so one permit of the notifier is enough.
    pub(crate) async fn somebody_asks(&self) {
        while !self.is_asked_for() {
            self.changed.notified().await;
        }
    }

    /// Whether somebody has asked, or nobody else is left who could.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.asking.load(Ordering::SeqCst) > 0 || self.present.load(Ordering::SeqCst) <= 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_over_is_from_the_release_to_the_grant_of_one_who_waited() {
        let crowd = Crowd::new(2);
        crowd.asks();
        assert_eq!(crowd.granted(5, 10), None, "nobody had it before");
        crowd.asks();
        crowd.releases(30);
        assert_eq!(crowd.granted(20, 37), Some(7));
    }

    #[test]
    fn a_grant_to_one_who_came_later_is_no_hand_over() {
        let crowd = Crowd::new(2);
        crowd.releases(30);
        crowd.asks();
        assert_eq!(crowd.granted(31, 37), None);
    }

    #[tokio::test]
    async fn a_holder_waits_for_another_and_not_for_nobody() {
        let crowd = Crowd::new(2);
        assert!(!crowd.is_asked_for());
        crowd.asks();
        crowd.somebody_asks().await;
        crowd.granted(1, 2);
        assert!(!crowd.is_asked_for());
        crowd.leaves();
        crowd.somebody_asks().await;
    }

    #[tokio::test]
    async fn at_the_end_nobody_waits() {
        let crowd = Crowd::new(64);
        crowd.end();
        crowd.somebody_asks().await;
        crowd.leaves();
        crowd.somebody_asks().await;
    }
}
