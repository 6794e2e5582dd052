//! The rate at which one address may send messages: a limit by backpressure.
//!
//! The algorithm is the generic cell rate algorithm (GCRA), a token bucket that needs one number.
//! That is the moment at which everything heard so far would be due if messages came evenly. An
//! address may be [`BURST`] ahead of it; then its connections are not read until it has caught up.
//! Nothing is refused and nothing is lost: TCP makes the sender wait.
//!
//! All connections of an address share one [`Pace`], and a connection itself counts as a message. So
//! neither many connections nor many short ones are a way round the limit.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::time::Instant;

use crate::types::Origin;

/// How far ahead of an even flow an address may be.
const BURST: Duration = Duration::from_secs(1);
/// Addresses remembered before those at rest are forgotten for the first time.
const PACES_SWEPT_MIN: usize = 64;

/// The paces of all addresses, if there is a limit.
#[derive(Clone, Debug)]
pub(in crate::server) struct Paces(Option<Arc<Limited>>);

/// A limit, and who is held to it.
#[derive(Debug)]
struct Limited {
    /// The time that one message takes at the limit, in nanoseconds.
    interval: u64,
    /// When this began: moments are counted from here.
    began: Instant,
    /// One for each address that is connected, or is ahead of an even flow.
    known: Mutex<Known>,
}

/// The addresses that are remembered.
#[derive(Debug, Default)]
struct Known {
    /// The pace of each.
    by_origin: HashMap<Origin, Arc<Pace>, RandomState>,
    /// From this many on, those at rest are forgotten.
    swept_at: usize,
}

impl Paces {
    /// Paces with a limit in messages a second; none: nobody is held to anything.
    pub(in crate::server) fn new(limit: Option<NonZeroU32>) -> Self {
        Self(limit.map(|limit| {
            Arc::new(Limited {
                interval: 1_000_000_000 / u64::from(limit.get()),
                began: Instant::now(),
                known: Mutex::default(),
            })
        }))
    }

    /// The pace that a connection from `origin` is held to, if it is held to any.
    pub(in crate::server) fn of(&self, origin: Option<Origin>) -> Option<Arc<Pace>> {
        let (limited, origin) = (self.0.as_ref()?, origin?);
        let mut known = limited.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pace) = known.by_origin.get(&origin) {
            return Some(Arc::clone(pace));
        }
        if known.by_origin.len() >= known.swept_at.max(PACES_SWEPT_MIN) {
            // Nobody else has it, and it says no more than a new one would.
            known.by_origin.retain(|_, it| Arc::strong_count(it) > 1 || !it.is_at_rest());
            known.swept_at = 2 * known.by_origin.len();
        }
        let Limited { interval, began, .. } = **limited;
        let pace = Arc::new(Pace { interval, began, due: AtomicU64::new(0) });
        known.by_origin.insert(origin, Arc::clone(&pace));
        Some(pace)
    }
}

/// How far ahead of an even flow of messages an address is.
#[derive(Debug)]
pub(in crate::server) struct Pace {
    /// The time that one message takes at the limit, in nanoseconds.
    interval: u64,
    /// When moments begin.
    began: Instant,
    /// When everything heard so far would be due, in nanoseconds.
    due: AtomicU64,
}

impl Pace {
    /// Counts messages that were heard just now. Says how long to pause before more are read.
    pub(in crate::server) fn heard(&self, messages: usize) -> Option<Duration> {
        let now = self.now();
        let takes = self.interval.saturating_mul(messages as u64);
        let later = |due: u64| due.max(now).saturating_add(takes);
        let before =
            self.due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |due| Some(later(due)));
        let (Ok(before) | Err(before)) = before;
        let ahead = Duration::from_nanos(later(before) - now);
        ahead.checked_sub(BURST).filter(|pause| !pause.is_zero())
    }

    /// Whether an even flow has caught up with all that was heard.
    fn is_at_rest(&self) -> bool {
        self.due.load(Ordering::Relaxed) <= self.now()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn paces(limit: u32) -> Paces {
        Paces::new(NonZeroU32::new(limit))
    }

    fn address(host: u8) -> Origin {
        Origin::Address([10, 0, 0, host].into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_of_messages_may_come_at_once_and_one_more_has_to_wait_for_its_turn() {
        let pace = paces(1_000).of(Some(address(1))).unwrap();
        assert_eq!(pace.heard(1_000), None);
        assert_eq!(pace.heard(1), Some(Duration::from_millis(1)));
        assert_eq!(pace.heard(499), Some(Duration::from_millis(500)));
        advance(Duration::from_millis(1_500)).await;
        assert!(pace.is_at_rest());
        assert_eq!(pace.heard(1_000), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_even_flow_at_the_limit_never_waits() {
        let pace = paces(1_000).of(Some(address(1))).unwrap();
        for _ in 0..10_000 {
            assert_eq!(pace.heard(10), None);
            advance(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_one_pace_for_all_its_connections_and_others_have_theirs() {
        let paces = paces(1_000);
        let (first, second) =
            (paces.of(Some(address(1))).unwrap(), paces.of(Some(address(1))).unwrap());
        assert_eq!(first.heard(1_000), None);
        assert!(second.heard(500).is_some());
        assert_eq!(paces.of(Some(address(2))).unwrap().heard(500), None);
    }

    #[tokio::test(start_paused = true)]
    async fn coming_back_is_no_way_round_the_limit() {
        let paces = paces(1_000);
        assert_eq!(paces.of(Some(address(1))).unwrap().heard(1_000), None);
        // A crowd of others makes those at rest be forgotten.
        for host in 2..=250 {
            let _ = paces.of(Some(address(host))).unwrap();
        }
        assert_eq!(paces.of(Some(address(1))).unwrap().heard(1), Some(Duration::from_millis(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn of_those_who_have_left_no_more_are_remembered_than_of_those_who_are_there() {
        let paces = paces(1_000);
        for network in 0..100_000 {
            assert_eq!(paces.of(Some(Origin::Network(network))).unwrap().heard(1), None);
            advance(Duration::from_millis(1)).await;
        }
        let known = &paces.0.as_ref().unwrap().known;
        assert!(known.lock().unwrap().by_origin.len() <= PACES_SWEPT_MIN);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_has_a_pace() {
        assert!(Paces::new(None).of(Some(address(1))).is_none());
    }
}
