//! Where the counters begin (rule F3): a pure function of what was stored and of the wall clock.
//!
//! The state directory may be lost, or be an old copy. So the counter of fencing tokens goes on from
//! the larger of what is stored and *seconds since 2026 × 2²⁰*, and the epoch from the larger of what
//! is stored and *minutes since 2026*. As long as the wall clock is sane at starts, both grow even if
//! nothing was kept: a coordinator would have to give a million tokens a second to outrun it.

use std::time::{Duration, SystemTime};

use super::config::StaleState;
use super::error::ServerError;
use crate::engine::{Durable, Start};
use crate::types::{Epoch, FENCING_TOKEN_MAX, FencingToken};

/// 2026-01-01 00:00 UTC, in seconds since 1970: where the counting by the wall clock begins.
const ORIGIN_SECS: u64 = 1_767_225_600;
/// Tokens that belong to each second since the origin.
const TOKENS_PER_SEC: u64 = 1 << 20;
/// How many tokens are reserved before the port opens.
const FIRST_RESERVATION: u64 = 1 << 20;
/// A year, in seconds: the most by which clock and state may differ before somebody must look.
const YEAR_SECS: u64 = 31_557_600;
const SECS_PER_DAY: u64 = 86_400;
const SECS_PER_MIN: u64 = 60;

/// Seconds from the origin to `wall`; 0 for a clock that is before it.
pub(super) fn secs_since_origin(wall: SystemTime) -> u64 {
    let origin = SystemTime::UNIX_EPOCH + Duration::from_secs(ORIGIN_SECS);
    wall.duration_since(origin).map_or(0, |since| since.as_secs())
}

/// How the engine begins, given what was `stored` (nothing, if nothing ever was) and the wall
/// clock's seconds since the origin. The answer's `durable` has yet to be made so.
pub(super) fn start_from(
    stored: Option<Durable>,
    secs: u64,
    stale: StaleState,
) -> Result<Start, ServerError> {
    let floor_token = secs.saturating_mul(TOKENS_PER_SEC);
    let floor_epoch = secs / SECS_PER_MIN;
    if let (Some(stored), StaleState::Refuse) = (stored, stale) {
        // The reservation is ahead of the tokens given, so it errs on the side of starting.
        let behind = secs.saturating_sub(stored.tokens_below.number() / TOKENS_PER_SEC);
        if behind > YEAR_SECS {
            return Err(ServerError::StaleState { days: behind / SECS_PER_DAY });
        }
    }

    let stored = stored.unwrap_or_default();
    // Zero is no token: clients say it when they have seen none.
    let first_token = stored.tokens_below.number().max(floor_token).max(1);
    let epoch = (stored.epoch.number().saturating_add(1)).max(floor_epoch);
    let tokens_below = first_token.saturating_add(FIRST_RESERVATION);
    if tokens_below > FENCING_TOKEN_MAX {
        return Err(ServerError::ClockUnusable);
    }
    let plausible = Durable {
        epoch: Epoch::new(epoch.saturating_add(YEAR_SECS / SECS_PER_MIN)),
        tokens_below: FencingToken::new(
            tokens_below.saturating_add(YEAR_SECS * TOKENS_PER_SEC).min(FENCING_TOKEN_MAX),
        ),
    };
    Ok(Start {
        durable: Durable {
            epoch: Epoch::new(epoch),
            tokens_below: FencingToken::new(tokens_below),
        },
        first_token: FencingToken::new(first_token),
        plausible,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    fn durable(epoch: u64, tokens_below: u64) -> Durable {
        Durable { epoch: Epoch::new(epoch), tokens_below: FencingToken::new(tokens_below) }
    }

    #[test]
    fn the_first_start_goes_by_the_wall_clock() {
        let start = start_from(None, HOUR, StaleState::Refuse).unwrap();
        assert_eq!(start.first_token.number(), HOUR << 20);
        assert_eq!(start.durable, durable(60, (HOUR << 20) + FIRST_RESERVATION));
    }

    #[test]
    fn a_later_start_goes_on_above_what_was_reserved_though_the_clock_went_back() {
        let stored = durable(70, (2 * HOUR) << 20);
        let start = start_from(Some(stored), HOUR, StaleState::Refuse).unwrap();
        assert_eq!(start.first_token, stored.tokens_below);
        assert_eq!(start.durable, durable(71, stored.tokens_below.number() + FIRST_RESERVATION));
        assert!(start.plausible.epoch > start.durable.epoch);
        assert!(start.plausible.tokens_below > start.durable.tokens_below);
    }

    #[test]
    fn a_lost_state_does_not_make_tokens_fall() {
        let first = start_from(None, HOUR, StaleState::Refuse).unwrap();
        let second = start_from(None, HOUR + 60, StaleState::Refuse).unwrap();
        assert!(second.first_token >= first.durable.tokens_below);
        assert!(second.durable.epoch > first.durable.epoch);
    }

    #[test]
    fn a_state_more_than_a_year_behind_needs_a_word() {
        let stored = durable(60, HOUR << 20);
        let at_the_limit = HOUR + YEAR_SECS;
        assert!(start_from(Some(stored), at_the_limit, StaleState::Refuse).is_ok());
        let beyond = at_the_limit + 1;
        let refused = start_from(Some(stored), beyond, StaleState::Refuse);
        assert!(matches!(refused, Err(ServerError::StaleState { days: 365 })), "{refused:?}");
        let accepted = start_from(Some(stored), beyond, StaleState::Accept).unwrap();
        assert_eq!(accepted.first_token.number(), beyond << 20);
    }

    #[test]
    fn a_clock_before_the_origin_starts_at_one() {
        assert_eq!(secs_since_origin(SystemTime::UNIX_EPOCH), 0);
        let start = start_from(None, 0, StaleState::Refuse).unwrap();
        assert_eq!(start.first_token.number(), 1);
        assert_eq!(start.durable.epoch.number(), 1);
    }

    #[test]
    fn a_clock_centuries_ahead_is_refused() {
        let refused = start_from(None, u64::MAX, StaleState::Accept);
        assert!(matches!(refused, Err(ServerError::ClockUnusable)));
    }
}
