//! The end of a client's belief in its session (rule T2).
//!
//! The server ends a session one ttl after it *received* a message. The client counts one ttl from
//! when it *sent* the last answered one. It takes off the possible difference of two clocks and a
//! margin. The client stops first, whatever the network did in between.
//!
//! # When an answer is overdue
//!
//! A connection can die without a word: a router forgets it, or a machine changes its network. The
//! server may be reachable all the same. So the client tries a *second* connection beside the
//! first. It does so early enough that one attempt may hang and another is still welcomed before
//! anybody has to act. The first to act is `coordinator lock`, which sends SIGTERM up to a third of
//! the ttl before belief ends.
//!
//! The arithmetic, with the moments of all of it, is in [`crate::types::lease`].
//!
//! An answer is overdue after 1/16 ttl, or after twice the time that answers took lately
//! ([`Patience`]), so a slow server is not asked twice as much. The moments there are for a server
//! whose answers take no longer than 1/32 ttl.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::types::{Timestamp, Ttl, lease};

/// How long an answer is waited for before something is done about it. It is the least that the
/// arithmetic of leases can spare, and longer for a server or a network that has been slow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    /// How long the slowest of the answers took lately. Each answer makes earlier ones count less, so
    /// that one stall is forgotten.
    slowest: Duration,
}

impl Patience {
    /// An answer came after this.
    pub(super) fn answered(&mut self, took: Duration) {
        self.slowest = took.max(self.slowest * 3 / 4);
    }

    /// How long the next answer may take.
    pub(super) fn answer_max(self, ttl: Duration) -> Duration {
        lease::answer_max(ttl).max(self.slowest * 2).min(ttl)
    }
}

/// A lease as its client sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    /// When the last message was sent that the server is known to have received. Only grows.
    confirmed: Timestamp,
    /// How long the server keeps the session after having received something.
    ttl: Ttl,
    /// When it ends although the ttl has not passed, if it does.
    cut: Option<Timestamp>,
}

impl Lease {
    /// A lease that the server gave in answer to what was sent at `sent`.
    pub(super) const fn new(sent: Timestamp, ttl: Ttl) -> Self {
        Self { confirmed: sent, ttl, cut: None }
    }

    /// Takes note that the server answered what was sent at `sent`.
    pub(super) fn confirm(&mut self, sent: Timestamp) {
        self.confirmed = self.confirmed.max(sent);
    }

    /// Takes over what the server, in the same run and for the same session, is known to have received
    /// before.
    pub(super) fn continue_from(&mut self, before: &Self) {
        self.confirm(before.confirmed);
    }

    /// The connection is lost, and the server keeps the session only for `linger` more (rule S4).
    pub(super) fn cut_short(&mut self, now: Timestamp, linger: Duration) {
        let until = now.after(lease::belief(linger));
        self.cut = Some(self.cut.map_or(until, |cut| cut.min(until)));
    }

    /// The length of the lease.
    pub(super) const fn ttl(&self) -> Ttl {
        self.ttl
    }

    /// From when on the client should worry: two thirds of the ttl without an answer, or as long
    /// before the end if that is cut short.
    pub(super) fn doubtful_from(&self) -> Timestamp {
        let ttl = self.ttl.length();
        let silent = self.confirmed.after(lease::doubt(ttl));
        self.cut.map_or(silent, |cut| cut.before(lease::jeopardy(ttl)).min(silent))
    }

    /// The moment from which on nothing is believed any more.
    pub(super) fn believed_until(&self) -> Timestamp {
        let end = self.confirmed.after(lease::belief(self.ttl.length()));
        self.cut.map_or(end, |cut| cut.min(end))
    }
}

/// How sure a client is of its lease at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Belief {
    /// Answers come.
    Sure,
    /// No answer for two thirds of the ttl; the server still keeps the session, though.
    Doubtful,
    /// The server may have given up the session by now.
    Lapsed,
}

/// The lease where guards can see it from any thread, without asking the driver.
///
/// The driver alone writes. A later end of the lease is shown only after every hold that it does
/// not prolong was told so. One that is read too early errs on the safe side.
#[derive(Debug, Default)]
pub(super) struct LeaseCell {
    /// [`Lease::doubtful_from`], in microseconds.
    doubtful_from: AtomicU64,
    /// [`Lease::believed_until`], in microseconds.
    believed_until: AtomicU64,
    /// [`lease::jeopardy`], in microseconds: for a hold that is believed in for a shorter time.
    jeopardy: AtomicU64,
}

impl LeaseCell {
    /// Shows `lease` to the guards.
    pub(super) fn publish(&self, lease: &Lease) {
        let jeopardy = lease::jeopardy(lease.ttl().length()).as_micros();
        self.jeopardy.store(u64::try_from(jeopardy).unwrap_or(u64::MAX), Ordering::Release);
        self.doubtful_from.store(lease.doubtful_from().as_micros(), Ordering::Release);
        self.believed_until.store(lease.believed_until().as_micros(), Ordering::Release);
    }

    /// The moment from which on nothing is believed any more.
    pub(super) fn believed_until(&self) -> Timestamp {
        Timestamp::from_micros(self.believed_until.load(Ordering::Acquire))
    }

    /// How sure the client may be at `now`.
    pub(super) fn standing(&self, now: Timestamp) -> Belief {
        if now >= self.believed_until() {
            Belief::Lapsed
        } else if now.as_micros() >= self.doubtful_from.load(Ordering::Acquire) {
            Belief::Doubtful
        } else {
            Belief::Sure
        }
    }

    /// How sure the client may be at `now` of what it believes in until then at the latest, whatever
    /// becomes of the lease.
    pub(super) fn standing_until(&self, until: Timestamp, now: Timestamp) -> Belief {
        let jeopardy = Duration::from_micros(self.jeopardy.load(Ordering::Acquire));
        if now >= until {
            Belief::Lapsed
        } else if now >= until.before(jeopardy) {
            Belief::Doubtful
        } else {
            Belief::Sure
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(millis * 1_000)
    }

    #[test]
    fn belief_ends_two_percent_and_50_ms_before_the_ttl_counted_from_sending() {
        let lease = Lease::new(at(1_000), Ttl::default());
        assert_eq!(lease.believed_until(), at(1_000 + 9_800 - 50));
        let shortest = Lease::new(at(0), Ttl::new(crate::types::TTL_MIN).unwrap());
        assert_eq!(shortest.believed_until(), at(1_910));
    }

    #[test]
    fn a_late_answer_to_an_early_message_does_not_shorten_a_lease() {
        let mut lease = Lease::new(at(5_000), Ttl::default());
        lease.confirm(at(2_500));
        assert_eq!(lease.believed_until(), at(5_000 + 9_750));
    }

    #[test]
    fn a_lease_goes_from_sure_to_doubtful_to_lapsed() {
        let cell = LeaseCell::default();
        assert_eq!(cell.standing(at(0)), Belief::Lapsed);
        cell.publish(&Lease::new(at(0), Ttl::default()));
        assert_eq!(cell.standing(at(6_666)), Belief::Sure);
        assert_eq!(cell.standing(at(6_667)), Belief::Doubtful);
        assert_eq!(cell.standing(at(9_749)), Belief::Doubtful);
        assert_eq!(cell.standing(at(9_750)), Belief::Lapsed);
    }

    #[test]
    fn what_is_believed_in_for_a_shorter_time_is_doubtful_for_as_long_before_its_end() {
        let cell = LeaseCell::default();
        cell.publish(&Lease::new(at(5_000), Ttl::default()));
        let until = at(9_750);
        assert_eq!(cell.standing_until(until, at(6_666)), Belief::Sure);
        assert_eq!(cell.standing_until(until, at(6_667)), Belief::Doubtful);
        assert_eq!(cell.standing_until(until, at(9_750)), Belief::Lapsed);
    }

    #[test]
    fn a_lease_that_is_cut_short_is_doubtful_for_as_long_before_its_end() {
        let mut lease = Lease::new(at(0), Ttl::default());
        assert_eq!(lease.doubtful_from(), Timestamp::from_micros(6_666_666));
        lease.cut_short(at(1_000), Duration::from_secs(6));
        let until = at(1_000 + 5_880 - 50);
        assert_eq!(lease.believed_until(), until);
        assert_eq!(lease.doubtful_from(), until.before(lease::jeopardy(Duration::from_secs(10))));
        lease.cut_short(at(1_000), Duration::ZERO);
        assert!(lease.doubtful_from() <= at(1_000));
    }

    #[test]
    fn a_short_linger_ends_belief_before_the_lease() {
        let mut lease = Lease::new(at(0), Ttl::default());
        lease.cut_short(at(1_000), Duration::from_secs(2));
        assert_eq!(lease.believed_until(), at(1_000 + 1_960 - 50));
        lease.cut_short(at(1_500), Duration::from_secs(20));
        assert_eq!(lease.believed_until(), at(1_000 + 1_960 - 50));
        lease.cut_short(at(1_500), Duration::ZERO);
        assert_eq!(lease.believed_until(), at(1_500));
    }
}
