//! When to stop a command, so that it is dead before its lock is another's.
//!
//! The client library believes in a lease until *send time of the last answered keep-alive* + ttl
//! (1 − 2 %) − 50 ms, which is `valid_until`. The server gives the lock away no earlier than the
//! *receipt* of that keep-alive + ttl (rule T2). So a process group that is dead at `valid_until`
//! was dead before anyone else was granted.
//!
//! To be dead by then it must be asked earlier: SIGTERM goes out a *gap* before `valid_until`,
//! SIGKILL at `valid_until` at the latest. The gap is `--kill-after`, but never more than a third
//! of the ttl. A keep-alive goes out every quarter of it, and stopping work because of a slow one
//! would be worse than a short farewell. With the default ttl of 10 s the gap is thus 3.3 s
//! although `--kill-after` says 5 s. All of the 5 s need `--ttl 15s` or more.
//!
//! ```text
//! last answered                         SIGTERM           SIGKILL    the server may
//! keep-alive sent                          │     gap         │       give the lock away
//!      ├───────────────────────────────────┼─────────────────┼───────────┤
//!      0                                 6.4 s             9.75 s      ≥ 10 s      (ttl 10 s)
//! ```
//!
//! Two cases are beyond this. A revoked lock is another's before anyone here can act, so then the
//! gap is `--kill-after` in full and the two overlap. If this whole machine stands still, the
//! command may do one more step after waking before it is killed. For both there are fencing
//! tokens.

use std::time::{Duration, Instant};

use coordinator::types::{LostReason, Ttl, lease};

use crate::cli::text::errors::LastAnswer;

/// Longer farewells are cut to this, so that they end within the clock's range.
pub(crate) const KILL_AFTER_MAX: Duration = Duration::from_secs(86_400);
/// A timer this much behind time means that this process, or its machine, stood still.
pub(crate) const STALL_MIN: Duration = Duration::from_millis(250);

/// How a lease and a farewell fit together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// The length of the lease.
    pub(crate) ttl: Ttl,
    /// From SIGTERM to SIGKILL, if there is time.
    pub(crate) kill_after: Duration,
}

impl Plan {
    /// From SIGTERM to `valid_until` when the server has fallen silent.
    fn gap(self) -> Duration {
        self.kill_after.min(lease::farewell_max(self.ttl.length()))
    }

    /// When to send SIGTERM if nothing more is heard from the server.
    pub(crate) fn stop_at(self, valid_until: Instant) -> Instant {
        valid_until.checked_sub(self.gap()).unwrap_or(valid_until)
    }

    /// When to look at the lease next, if there is nothing to do before. It is often enough for the
    /// watchdog to know of every renewal soon after it.
    pub(crate) fn look_at(self, now: Instant, valid_until: Instant) -> Instant {
        self.stop_at(valid_until).min(now + self.ttl.length() / 8)
    }

    /// Whether to wait a little longer although it is time. A watchdog that stood still looks only
    /// now at what was due at `look_at`, and has asked for nothing meanwhile. The keep-alive that
    /// would renew the lease goes out only now. If it is not answered, a second connection is
    /// tried. Half of what is left is risked for it.
    pub(crate) fn reprieve(
        look_at: Instant,
        now: Instant,
        valid_until: Instant,
    ) -> Option<Instant> {
        let late = now.saturating_duration_since(look_at);
        let left = valid_until.saturating_duration_since(now);
        (late >= STALL_MIN && !left.is_zero()).then(|| now + left / 2)
    }

    /// When to send SIGKILL after a SIGTERM at `now`, to a command whose lock is believed in until
    /// `valid_until`, or was until the loss.
    pub(crate) fn kill_at(self, lost: LostReason, now: Instant, valid_until: Instant) -> Instant {
        let farewell = now + self.kill_after.min(KILL_AFTER_MAX);
        match lost {
            // It is another's already; hurrying cannot undo that.
            LostReason::Revoked => farewell,
            _ => farewell.min(valid_until).max(now),
        }
    }

    /// The last answer to who holds no more, or does, given until when that was believed.
    pub(crate) fn last_answer(
        self,
        now: Instant,
        valid_until: Instant,
        is_held: bool,
    ) -> LastAnswer {
        if !is_held && now < valid_until {
            return LastAnswer::Valid;
        }
        LastAnswer::Ago(self.silence(now, valid_until))
    }

    /// How long the server has been silent, given until when it is believed.
    pub(crate) fn silence(self, now: Instant, valid_until: Instant) -> Duration {
        lease::belief(self.ttl.length()).saturating_sub(valid_until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn plan(ttl: u64, kill_after: u64) -> Plan {
        let ttl = Ttl::new(Duration::from_secs(ttl)).unwrap();
        Plan { ttl, kill_after: Duration::from_secs(kill_after) }
    }

    #[test]
    fn the_command_is_asked_early_enough_to_have_its_time_before_the_lease_ends() {
        let now = Instant::now();
        let end = now + 100 * SECOND;
        assert_eq!(plan(60, 5).stop_at(end), now + 95 * SECOND);
        assert_eq!(plan(15, 5).stop_at(end), now + 95 * SECOND);
        assert_eq!(plan(9, 5).stop_at(end), now + 97 * SECOND);
        assert_eq!(plan(10, 0).stop_at(end), end);
    }

    #[test]
    fn the_lease_is_looked_at_twice_for_each_renewal_and_when_it_is_time() {
        let now = Instant::now();
        assert_eq!(plan(16, 5).look_at(now, now + 15 * SECOND), now + 2 * SECOND);
        assert_eq!(plan(16, 5).look_at(now, now + 6 * SECOND), now + SECOND);
    }

    #[test]
    fn the_command_is_dead_when_the_lease_ends() {
        let now = Instant::now();
        let plan = plan(60, 5);
        for reason in [LostReason::Expired, LostReason::Disconnected, LostReason::Stopped] {
            assert_eq!(plan.kill_at(reason, now, now + 50 * SECOND), now + 5 * SECOND);
            assert_eq!(plan.kill_at(reason, now, now + 2 * SECOND), now + 2 * SECOND);
            assert_eq!(plan.kill_at(reason, now, now.checked_sub(SECOND).unwrap()), now);
        }
    }

    #[test]
    fn a_lock_taken_away_leaves_the_command_its_farewell() {
        let now = Instant::now();
        assert_eq!(plan(10, 5).kill_at(LostReason::Revoked, now, now), now + 5 * SECOND);
        let endless = plan(10, u64::MAX).kill_at(LostReason::Revoked, now, now);
        assert_eq!(endless, now + KILL_AFTER_MAX);
    }

    #[test]
    fn after_a_stall_a_keep_alive_is_tried_first_however_short_the_time_since_sigterm_was_due() {
        let (look_at, plan) = (Instant::now(), plan(10, 5));
        let end = look_at + 6 * SECOND;
        let stop_at = plan.stop_at(end);
        for now in [stop_at, stop_at + Duration::from_millis(1), stop_at + SECOND] {
            let half = now + (end - now) / 2;
            assert_eq!(Plan::reprieve(look_at, now, end), Some(half));
            assert_eq!(Plan::reprieve(half, half, end), None, "once for each stall");
        }
        assert_eq!(Plan::reprieve(stop_at, stop_at, end), None, "no stall");
        let almost = stop_at + Duration::from_millis(249);
        assert_eq!(Plan::reprieve(stop_at, almost, end), None, "as late as timers are");
        assert_eq!(Plan::reprieve(look_at, end, end), None, "too late");
    }

    #[test]
    fn silence_is_counted_from_the_last_answered_keep_alive() {
        let sent = Instant::now();
        let believed = Duration::from_millis(9_750);
        assert_eq!(plan(10, 5).silence(sent, sent + believed), Duration::ZERO);
        assert_eq!(plan(10, 5).silence(sent + 6 * SECOND, sent + believed), 6 * SECOND);
    }

    #[test]
    fn whoever_loses_what_an_answer_still_covers_did_not_lose_it_by_silence() {
        let (sent, plan) = (Instant::now(), plan(10, 5));
        let until = sent + 9 * SECOND;
        let at = |now, is_held| plan.last_answer(now, until, is_held);
        assert!(matches!(at(sent + SECOND, false), LastAnswer::Valid));
        assert!(matches!(at(until, false), LastAnswer::Ago(_)));
        // It is given up before its time, for want of an answer.
        assert!(matches!(at(sent + SECOND, true), LastAnswer::Ago(_)));
    }
}
