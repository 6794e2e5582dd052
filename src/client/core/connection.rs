//! The state of the connection, and the moment of the next attempt (backoff with jitter).

use std::collections::VecDeque;
use std::time::Duration;

use crate::types::lease::{self, PAUSE_MIN};
use crate::types::{Generation, Timestamp};

use super::{End, Lease};
use crate::client::lease::Patience;

/// Keep-alives whose answers are waited for; of more, the oldest is forgotten.
pub(super) const KEEP_ALIVES_UNANSWERED_MAX: usize = 16;
/// After this many ttls without a word from the server, its connection is given up, if there cannot
/// be another that keeps the session. It is more than one, because the server may only have stalled
/// (rule T3).
const SILENCE_TTLS_MAX: u32 = 2;
/// No attempt takes longer than this many of the first ones, which leave time for another while the
/// lease lasts. Later ones take longer, for the network may be slow. The worst is one that hangs
/// and began just before the coordinator was back after a crash. That one, the pause after it and
/// another fit into a grace period, which is no shorter than a ttl.
const PARTS_PER_ATTEMPT_MAX: u32 = 4;

/// Where the connection stands.
#[derive(Debug)]
pub(super) enum Phase {
    /// Hello was sent, Welcome has not come.
    Greeting(Greeting),
    /// Welcome has come.
    Open(Open),
    /// There is no connection. Belief in the lease runs on, by our own clock.
    Away(Away),
    /// Nothing comes or goes any more.
    Ended(End),
}

/// A connection without its Welcome.
#[derive(Debug)]
pub(super) struct Greeting {
    /// When Hello was sent: the lease is counted from here.
    pub(super) hello_sent: Timestamp,
    /// When it has taken too long. None for the first connection: its maker waits as long as it
    /// likes.
    pub(super) give_up_at: Option<Timestamp>,
}

/// A connection that was welcomed.
#[derive(Debug)]
pub(super) struct Open {
    /// Its number among the session's connections (rule S2).
    pub(super) generation: Generation,
    /// When the next keep-alive is to be sent.
    pub(super) keep_alive_due: Timestamp,
    /// Keep-alives without an answer, and when each was sent; the oldest first.
    pub(super) unanswered: VecDeque<(u64, Timestamp)>,
    /// When the server was last heard.
    pub(super) heard: Timestamp,
    /// The silence that is put up with.
    pub(super) silence_max: Duration,
    /// How long after the oldest keep-alive without an answer the silence can be too long: as long as
    /// when all keep-alives were sent in time. Who stood still and asked nothing has heard nothing.
    silence_after_asking: Duration,
    /// The connection that is tried because this one does not answer.
    pub(super) second: Option<Second>,
}

/// The time between two connections.
#[derive(Debug)]
pub(super) enum Away {
    /// The next attempt is made then.
    Pausing(Timestamp),
    /// An attempt is being made, until then at the latest.
    Dialing(Timestamp),
}

/// A second connection, at whatever stage.
#[derive(Clone, Copy, Debug)]
pub(super) enum Second {
    /// The next attempt is made then.
    Pausing(Timestamp),
    /// It is being made.
    Dialing {
        /// Which connection it is.
        number: u64,
        /// When that has taken too long.
        until: Timestamp,
    },
    /// Hello was sent over it, Welcome has not come.
    Greeting {
        /// Which connection it is.
        number: u64,
        /// When Hello was sent.
        hello_sent: Timestamp,
        /// When that has taken too long. None: it is not given up before the first. The end of a
        /// connection that the server knows can be the end of the session.
        until: Option<Timestamp>,
    },
}

impl Second {
    /// Whether Hello was said.
    pub(super) fn has_greeted(self) -> bool {
        match self {
            Self::Greeting { .. } => true,
            Self::Pausing(_) | Self::Dialing { .. } => false,
        }
    }

    /// When there is something to do about it, if nothing happens before.
    pub(super) fn deadline(self) -> Option<Timestamp> {
        match self {
            Self::Pausing(until) | Self::Dialing { until, .. } => Some(until),
            Self::Greeting { until, .. } => until,
        }
    }
}

impl Open {
    /// A connection, of this `generation`, that was just welcomed to `lease`. If there `can_be_another`, this one is given
    /// up while there is still time for it.
    pub(super) fn new(
        lease: &Lease,
        generation: Generation,
        sent: Timestamp,
        now: Timestamp,
        can_be_another: bool,
    ) -> Self {
        let ttl = lease.ttl().length();
        let keep_alive_every = lease::keep_alive_every(ttl);
        let silence_max = if can_be_another { lease::doubt(ttl) } else { ttl * SILENCE_TTLS_MAX };
        Self {
            generation,
            keep_alive_due: sent.after(keep_alive_every),
            unanswered: VecDeque::new(),
            heard: now,
            silence_max,
            silence_after_asking: silence_max.saturating_sub(keep_alive_every),
            second: None,
        }
    }

    /// When the oldest keep-alive without an answer was sent.
    fn asked(&self) -> Option<Timestamp> {
        self.unanswered.front().map(|(_, sent)| *sent)
    }

    /// When the server has been silent for too long; none while nothing is unanswered.
    pub(super) fn given_up_at(&self) -> Option<Timestamp> {
        let asked = self.asked()?.after(self.silence_after_asking);
        Some(self.heard.after(self.silence_max).max(asked))
    }

    /// When an answer is overdue; none while nothing is unanswered.
    pub(super) fn overdue_at(&self, patience: Patience, ttl: Duration) -> Option<Timestamp> {
        Some(self.asked()?.after(patience.answer_max(ttl)))
    }
}

/// How long to wait between attempts: at first not at all, then longer each time, never twice the
/// same, up to what the caller allows.
#[derive(Debug)]
pub(super) struct Backoff {
    /// Attempts since the server last answered a keep-alive. A connection that is welcomed and
    /// ends at once counts too, or we would come back without end and without a pause.
    attempts: u32,
    /// Where the next number that looks random comes from.
    seed: u64,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        Self { attempts: 0, seed: seed | 1 }
    }

    /// The connection proved itself.
    pub(super) fn reward(&mut self) {
        self.attempts = 0;
    }

    /// The pause before the next attempt, no longer than `longest`.
    pub(super) fn pause(&mut self, longest: Duration) -> Duration {
        let attempts = self.attempts;
        self.attempts = attempts.saturating_add(1);
        let Some(doublings) = attempts.checked_sub(1) else { return Duration::ZERO };
        let pause = PAUSE_MIN.saturating_mul(1 << doublings.min(16)).min(longest);
        // In whole numbers, so that it is the same in every language.
        let half = pause / 2;
        half + half * self.number() / u32::MAX
    }

    /// How long the attempt after the latest pause may take. Of several `servers`, each is tried before
    /// it is more.
    pub(super) fn attempt_max(&self, ttl: Duration, at_most: Duration, servers: usize) -> Duration {
        let others = u32::try_from(servers.max(1)).unwrap_or(u32::MAX);
        let doublings = (self.attempts.saturating_sub(1) / others).min(16);
        let first = lease::attempt_max(ttl);
        at_most.min(first.saturating_mul((1 << doublings).min(PARTS_PER_ATTEMPT_MAX)))
    }

    /// A number that looks random.
    fn number(&mut self) -> u32 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        u32::try_from(self.seed >> 32).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_attempt_is_made_at_once_and_pauses_grow_to_the_longest_that_is_allowed() {
        let allowed = lease::attempt_max(Duration::from_secs(10));
        let mut backoff = Backoff::new(7);
        assert_eq!(backoff.pause(allowed), Duration::ZERO);
        let mut longest = PAUSE_MIN;
        for _ in 0..40 {
            let pause = backoff.pause(allowed);
            assert!(pause >= longest / 2 && pause <= longest, "{pause:?} of {longest:?}");
            longest = (longest * 2).min(allowed);
        }
        assert!(backoff.pause(PAUSE_MIN) <= PAUSE_MIN);
        backoff.reward();
        assert_eq!(backoff.pause(allowed), Duration::ZERO);
    }

    #[test]
    fn clients_with_different_seeds_do_not_come_back_all_at_once() {
        let longest = lease::attempt_max(Duration::from_secs(10));
        let pauses = |seed| {
            let mut backoff = Backoff::new(seed);
            std::array::from_fn::<_, 10, _>(|_| backoff.pause(longest))
        };
        assert_ne!(pauses(2), pauses(4));
    }

    #[test]
    fn attempts_leave_time_for_others_at_first_and_for_a_slow_network_later() {
        let (ttl, at_most) = (Duration::from_secs(6), Duration::from_millis(3_500));
        let mut backoff = Backoff::new(1);
        let attempts = [1_000, 2_000, 3_500, 3_500].map(|expected| {
            backoff.pause(lease::attempt_max(ttl));
            (backoff.attempt_max(ttl, at_most, 1), Duration::from_millis(expected))
        });
        assert!(attempts.iter().all(|(attempt, expected)| attempt == expected), "{attempts:?}");
        assert_eq!(backoff.attempt_max(Duration::from_secs(3_600), at_most, 1), at_most);
        // Of two servers, each is given as long.
        let mut backoff = Backoff::new(1);
        for expected in [1_000, 1_000, 2_000, 2_000, 3_500] {
            backoff.pause(lease::attempt_max(ttl));
            let expected = Duration::from_millis(expected);
            assert_eq!(backoff.attempt_max(ttl, at_most, 2), expected);
        }
    }

    #[test]
    fn one_that_hangs_its_pause_and_another_fit_into_a_grace_period() {
        let ttl = Duration::from_secs(2);
        let mut backoff = Backoff::new(1);
        for _ in 0..40 {
            let pause = backoff.pause(lease::attempt_max(ttl));
            let hangs = backoff.attempt_max(ttl, Duration::from_secs(5), 1);
            assert!(hangs + pause + lease::attempt_max(ttl) <= ttl, "{hangs:?} after {pause:?}");
        }
    }
}
