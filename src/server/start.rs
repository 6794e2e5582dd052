//! Where a run begins: with what is stored, and where that may be lost or old, with the wall clock.
//!
//! *After an orderly stop* a snapshot is stored, and everything goes on. It is true only until then, so
//! it is taken away in the same commit that makes the new epoch durable: a crash later finds none.
//! *After a crash* there is a grace period (rule G2), if ever a session was welcomed.
//!
//! *The counters* (rule F3) are a pure function of what was stored and of the wall clock.
//! The state directory may be lost, or be an old copy. So the counter of fencing tokens goes on from
//! the larger of what is stored and *seconds since 2026 × 2²⁰*, and the epoch from the larger of what
//! is stored and *minutes since 2026*. As long as the wall clock is sane at starts, both grow even if
//! nothing was kept: a coordinator would have to give a million tokens a second to outrun it.

use std::time::{Duration, SystemTime};

use super::config::StaleState;
use super::error::ServerError;
use super::seal::{Sealer, StateKey};
use super::store::{Change, StateStore, Stored};
use crate::engine::{Durable, Past, Start};
use crate::types::{Epoch, FENCING_TOKEN_MAX, FencingToken, TTL_MAX, Ttl};

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
fn secs_since_origin(wall: SystemTime) -> u64 {
    let origin = SystemTime::UNIX_EPOCH + Duration::from_secs(ORIGIN_SECS);
    wall.duration_since(origin).map_or(0, |since| since.as_secs())
}

/// Begins a run: loads what is stored, and has the new epoch and the first tokens durable. `wall` is
/// what the wall clock shows.
pub(super) fn begin<S: StateStore + ?Sized>(
    store: &S,
    stale: StaleState,
    wall: SystemTime,
) -> Result<(Start, Sealer), ServerError> {
    let failed = |doing| move |source| ServerError::Store { doing, source };
    let stored = store.load().map_err(failed("loaded"))?;
    let mut changes = Vec::new();
    let key = if let Some(key) = stored.key {
        key
    } else {
        let key = StateKey::draw().map_err(ServerError::Randomness)?;
        changes.push(Change::Key(key));
        key
    };
    let start = start_from(stored, secs_since_origin(wall), stale)?;
    changes.extend([Change::Durable(start.durable), Change::DropSnapshot]);
    store.commit(&changes).map_err(failed("saved"))?;
    Ok((start, Sealer::new(key)))
}

/// How the engine begins, given what is `stored` and the wall clock's seconds since the origin. The
/// answer's `durable` has yet to be made so.
fn start_from(stored: Stored, secs: u64, stale: StaleState) -> Result<Start, ServerError> {
    let Stored { durable: stored, key: _, forfeits, snapshot, is_lost } = stored;
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
        ttl_max: None,
        settled: Epoch::default(),
    };
    // Where nobody was ever welcomed, nobody has a proof.
    let settled = if stored.ttl_max.is_none() { Epoch::new(epoch) } else { stored.settled };
    Ok(Start {
        durable: Durable {
            epoch: Epoch::new(epoch),
            tokens_below: FencingToken::new(tokens_below),
            // Of what is lost, nobody knows any more how long the longest lease was.
            ttl_max: if is_lost { Ttl::new(TTL_MAX).ok() } else { stored.ttl_max },
            settled,
        },
        first_token: FencingToken::new(first_token),
        plausible,
        past: Past {
            snapshot,
            next_record: forfeits.last_key_value().map_or(0, |(last, _)| last + 1),
            forfeits: forfeits.into_values().collect(),
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::store::MemoryStore;
    use super::*;
    use crate::engine::{Forfeit, Snapshot};

    const HOUR: u64 = 3600;

    fn durable(epoch: u64, tokens_below: u64) -> Durable {
        let (epoch, tokens_below) = (Epoch::new(epoch), FencingToken::new(tokens_below));
        // Nobody was welcomed, so each run is the first whose proofs count.
        Durable { epoch, tokens_below, ttl_max: None, settled: epoch }
    }

    fn stored(durable: Durable) -> Stored {
        Stored { durable: Some(durable), ..Stored::default() }
    }

    fn first_start(secs: u64) -> Start {
        start_from(Stored::default(), secs, StaleState::Refuse).unwrap()
    }

    #[test]
    fn the_first_start_goes_by_the_wall_clock() {
        let start = first_start(HOUR);
        assert_eq!(start.first_token.number(), HOUR << 20);
        assert_eq!(start.durable, durable(60, (HOUR << 20) + FIRST_RESERVATION));
    }

    #[test]
    fn a_later_start_goes_on_above_what_was_reserved_though_the_clock_went_back() {
        let before = durable(70, (2 * HOUR) << 20);
        let start = start_from(stored(before), HOUR, StaleState::Refuse).unwrap();
        assert_eq!(start.first_token, before.tokens_below);
        assert_eq!(start.durable, durable(71, before.tokens_below.number() + FIRST_RESERVATION));
        assert!(start.plausible.epoch > start.durable.epoch);
        assert!(start.plausible.tokens_below > start.durable.tokens_below);
    }

    #[test]
    fn a_lost_state_does_not_make_tokens_fall() {
        let (first, second) = (first_start(HOUR), first_start(HOUR + 60));
        assert!(second.first_token >= first.durable.tokens_below);
        assert!(second.durable.epoch > first.durable.epoch);
    }

    #[test]
    fn a_state_more_than_a_year_behind_needs_a_word() {
        let old = || stored(durable(60, HOUR << 20));
        let at_the_limit = HOUR + YEAR_SECS;
        assert!(start_from(old(), at_the_limit, StaleState::Refuse).is_ok());
        let beyond = at_the_limit + 1;
        let refused = start_from(old(), beyond, StaleState::Refuse);
        assert!(matches!(refused, Err(ServerError::StaleState { days: 365 })), "{refused:?}");
        let accepted = start_from(old(), beyond, StaleState::Accept).unwrap();
        assert_eq!(accepted.first_token.number(), beyond << 20);
    }

    #[test]
    fn a_clock_before_the_origin_starts_at_one() {
        assert_eq!(secs_since_origin(SystemTime::UNIX_EPOCH), 0);
        let start = first_start(0);
        assert_eq!(start.first_token.number(), 1);
        assert_eq!(start.durable.epoch.number(), 1);
    }

    #[test]
    fn a_clock_centuries_ahead_is_refused() {
        let refused = start_from(Stored::default(), u64::MAX, StaleState::Accept);
        assert!(matches!(refused, Err(ServerError::ClockUnusable)));
    }

    #[test]
    fn a_lost_state_has_the_longest_grace_period_that_there_can_be() {
        let lost = Stored { is_lost: true, ..Stored::default() };
        let start = start_from(lost, HOUR, StaleState::Refuse).unwrap();
        assert_eq!(start.durable.ttl_max, Ttl::new(TTL_MAX).ok());
        assert_eq!(first_start(HOUR).durable.ttl_max, None, "nobody was there before");
    }

    #[test]
    fn forfeits_go_on_being_counted_where_they_were() {
        let forfeit = Forfeit::Grant(FencingToken::new(5));
        let forfeits = BTreeMap::from([(3, forfeit), (7, forfeit)]);
        let start = start_from(Stored { forfeits, ..Stored::default() }, HOUR, StaleState::Refuse);
        let past = start.unwrap().past;
        assert_eq!((past.next_record, past.forfeits), (8, vec![forfeit; 2]));
    }

    #[test]
    fn a_snapshot_is_gone_from_the_store_once_a_run_goes_on_from_it() {
        let store = MemoryStore::default();
        let (first, _) = begin(&store, StaleState::Refuse, SystemTime::now()).unwrap();
        let ttl_max = Some(Ttl::default());
        let welcomed = Durable { ttl_max, ..first.durable };
        let save = Change::SaveSnapshot(Snapshot::default().into());
        store.commit(&[Change::Durable(welcomed), save]).unwrap();
        let (second, _) = begin(&store, StaleState::Refuse, SystemTime::now()).unwrap();
        assert!(second.past.snapshot.is_some());
        assert!(second.durable.epoch > first.durable.epoch);
        assert_eq!(second.durable.ttl_max, ttl_max);
        assert_eq!(
            second.durable.settled, first.durable.epoch,
            "what was proved then still counts"
        );
        let (third, _) = begin(&store, StaleState::Refuse, SystemTime::now()).unwrap();
        assert!(third.past.snapshot.is_none());
    }

    #[test]
    fn the_key_is_drawn_once_and_another_for_another_state() {
        let (store, other) = (MemoryStore::default(), MemoryStore::default());
        let secret_of = |store| {
            let (_, sealer) = begin(store, StaleState::Refuse, SystemTime::now()).unwrap();
            sealer.secret(crate::types::SessionId::new(7), Epoch::new(1)).reveal()
        };
        assert_eq!(secret_of(&store), secret_of(&store));
        assert_ne!(secret_of(&store), secret_of(&other));
    }
}
