//! The arithmetic of leases: the end of belief, the first moment of the next grant, and the actions
//! in between (rules T1, T2, G2).
//!
//! Client, coordinator, command line and the tests of the rules take every number from here. All
//! moments are counted from when a client *sent* the last answered keep-alive, by any clock. Each
//! clock's rate is wrong by [`CLOCK_RATE_ERROR_PERCENT`] at most (drift).
//!
//! ```text
//! last answered  the next,    a second     it hangs:            SIGTERM    belief    the lease   grace
//! keep-alive     unanswered   connection   another              at the     ends      ends        ends
//! sent                │           │        one                  earliest     │         │           │
//!      ├──────────────┼───────────┼─────────┼─────────────────────┼──────────┼─────────┼───────────┤
//!      0           1/4 ttl    5/16 ttl  23/48 ttl + 50 ms   31/48 ttl − 50 ms                 1.02 ttl + 50 ms
//!                   2.5 s      3.13 s     4.84 s               6.42 s      9.75 s   10 s       10.25 s
//! ```
//!
//! The last line is for a ttl of 10 s. A second connection is tried beside the first, because one
//! can die without a word. It is early enough that one attempt may hang, and another is still
//! welcomed before anybody has to act.

use std::time::Duration;

/// ρ: how much faster or slower than true time a clock may run, in percent (rule T1).
pub const CLOCK_RATE_ERROR_PERCENT: u32 = 1;
/// Kept free for what is not the rate of clocks: what happens between looking and acting (rule T2).
pub const MARGIN: Duration = Duration::from_millis(50);
/// Keep-alives that are sent in one ttl (rule S5).
const KEEP_ALIVES_PER_TTL: u32 = 4;
/// No answer is overdue before a ttl divided by this has passed.
const ANSWERS_PER_TTL: u32 = 16;
/// The shortest pause between two attempts to connect, but for the first.
pub const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The first attempt to connect, and any pause before another, takes a ttl divided by this at most.
const ATTEMPTS_PER_TTL: u32 = 6;
/// While a client is not in jeopardy, no pause between two attempts is longer than a ttl divided by
/// this: so an absence of a third of the ttl ends in time.
const PAUSES_PER_TTL: u32 = 16;
/// A command is asked to end a ttl divided by this before belief ends, or later.
const FAREWELLS_PER_TTL: u32 = 3;

/// The time for which a client believes in a lease of this length, or in a linger. It is the part
/// that is left by any two clocks.
pub fn belief(length: Duration) -> Duration {
    (length * (100 - 2 * CLOCK_RATE_ERROR_PERCENT) / 100).saturating_sub(MARGIN)
}

/// The length of the grace period after a crash (rule G2). It is the time for which any client may
/// believe in a lease of at most this length, by a clock that began later.
pub fn grace(ttl: Duration) -> Duration {
    ttl + ttl * 2 * CLOCK_RATE_ERROR_PERCENT / 100 + MARGIN
}

/// From one keep-alive to the next.
pub fn keep_alive_every(ttl: Duration) -> Duration {
    ttl / KEEP_ALIVES_PER_TTL
}

/// How long an answer may take before something is done about it, of a server that has been quick. Half
/// of it is still quick.
pub fn answer_max(ttl: Duration) -> Duration {
    ttl / ANSWERS_PER_TTL
}

/// How long the first attempts to connect may take, and a pause between two at most once the client
/// is in jeopardy.
pub fn attempt_max(ttl: Duration) -> Duration {
    ttl / ATTEMPTS_PER_TTL
}

/// The longest pause between two attempts to connect before that. A coordinator that is away for a
/// third of the ttl is found before anybody is in jeopardy.
pub fn pause_max(ttl: Duration) -> Duration {
    ttl / PAUSES_PER_TTL
}

/// From when on without an answer a client is in jeopardy: two thirds of the ttl.
pub fn doubt(ttl: Duration) -> Duration {
    ttl * 2 / 3
}

/// For how long before the end of its belief a client is in jeopardy, whatever ends it.
pub fn jeopardy(ttl: Duration) -> Duration {
    belief(ttl).saturating_sub(doubt(ttl))
}

/// The longest time before the end of belief at which a command is asked to end (SIGTERM), so that
/// it is dead by then. Its setting may be longer. A keep-alive goes out every quarter of the ttl,
/// and stopping work because of a slow one would be worse than a short farewell.
pub fn farewell_max(ttl: Duration) -> Duration {
    ttl / FAREWELLS_PER_TTL
}

#[cfg(test)]
mod tests {
    use super::super::{TTL_DEFAULT, TTL_MAX, TTL_MIN};
    use super::*;

    /// Every length of a lease, in steps of a thousandth.
    fn ttls() -> impl Iterator<Item = Duration> {
        let range = TTL_MAX.saturating_sub(TTL_MIN);
        (0..=1_000).map(move |step| TTL_MIN + range * step / 1_000).chain([TTL_DEFAULT])
    }

    /// The longest that `length` can be in true time, on the slowest clock.
    fn at_most(length: Duration) -> Duration {
        length * 100 / (100 - CLOCK_RATE_ERROR_PERCENT)
    }

    /// The shortest, on the fastest clock.
    fn at_least(length: Duration) -> Duration {
        length * 100 / (100 + CLOCK_RATE_ERROR_PERCENT)
    }

    #[test]
    fn belief_ends_before_the_lease_and_before_the_grace_period_however_wrong_the_clocks_are() {
        for ttl in ttls() {
            let believed = at_most(belief(ttl));
            assert!(believed + MARGIN / 2 < at_least(ttl), "{ttl:?}: {believed:?}");
            assert!(believed + MARGIN / 2 < at_least(grace(ttl)), "{ttl:?}: {believed:?}");
            assert!(belief(ttl) < ttl && ttl < grace(ttl));
            // A coordinator that takes longer than the lease to come back still waits for who believes.
            assert!(at_least(grace(ttl)) > ttl, "{ttl:?}");
        }
    }

    #[test]
    fn a_command_is_asked_to_end_within_belief_and_only_after_two_more_tries() {
        for ttl in ttls() {
            let asked = belief(ttl).checked_sub(farewell_max(ttl)).unwrap();
            assert!(asked > Duration::ZERO && asked < belief(ttl));
            // Of one machine, and so of one clock. The keep-alive goes out, its answer is overdue,
            // an attempt hangs, and another one begins and has time to be answered.
            let second = keep_alive_every(ttl) + answer_max(ttl);
            let another = second + attempt_max(ttl) + PAUSE_MIN;
            assert!(another + ttl / 9 <= asked, "{ttl:?}: {another:?}, {asked:?}");
            // By true time it is dead before the lease can end, by whatever clock that is counted.
            assert!(at_most(asked + farewell_max(ttl)) < at_least(ttl), "{ttl:?}");
            // And nobody is in doubt before the next keep-alive may have been answered.
            assert!(second < doubt(ttl) && doubt(ttl) < belief(ttl));
        }
    }

    #[test]
    fn a_fail_over_of_a_quarter_of_the_ttl_ends_no_command() {
        for ttl in ttls().filter(|ttl| *ttl >= Duration::from_secs(3)) {
            let asked = belief(ttl).saturating_sub(farewell_max(ttl));
            // It began just after a keep-alive was answered, and the first that is asked then is silent, too.
            let answered = keep_alive_every(ttl) + ttl / 4 + 2 * answer_max(ttl);
            assert!(answered <= asked, "{ttl:?}: {answered:?}, {asked:?}");
        }
    }

    #[test]
    fn an_absence_of_a_third_of_the_ttl_is_over_before_anybody_is_in_jeopardy() {
        for ttl in ttls() {
            // It began just before a keep-alive was due, and ended just after an attempt to connect.
            let found = keep_alive_every(ttl) + ttl / 3 + pause_max(ttl);
            assert!(found + ttl / 50 <= doubt(ttl), "{ttl:?}: {found:?}");
            assert_eq!(doubt(ttl) + jeopardy(ttl), belief(ttl));
        }
    }

    #[test]
    fn the_figures_of_the_default_are_those_of_the_document() {
        let millis = |length: Duration| length.as_millis();
        let ttl = TTL_DEFAULT;
        assert_eq!(millis(keep_alive_every(ttl)), 2_500);
        assert_eq!(millis(keep_alive_every(ttl) + answer_max(ttl)), 3_125);
        assert_eq!(
            millis(keep_alive_every(ttl) + answer_max(ttl) + attempt_max(ttl) + PAUSE_MIN),
            4_841
        );
        assert_eq!(millis(belief(ttl).saturating_sub(farewell_max(ttl))), 6_416);
        assert_eq!((millis(belief(ttl)), millis(grace(ttl))), (9_750, 10_250));
        assert_eq!(belief(MARGIN), Duration::ZERO);
        assert_eq!(grace(Duration::ZERO), MARGIN);
    }
}
