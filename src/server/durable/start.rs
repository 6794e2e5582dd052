//! The start of a run: from the stored state, and from the wall clock, because that state may be
//! lost or old.
//!
//! *After an orderly stop* a snapshot is stored, and everything goes on. The snapshot is true only
//! until then. The commit that makes the new epoch durable also removes it, so a later crash finds
//! none. *After a crash* there is a grace period (rule G2), if ever a session was welcomed.
//!
//! *The counters* (rule F3) are a pure function of what was stored and of the wall clock. The state
//! directory may be lost, or be an old copy. Each counter goes on from the stored value or from the
//! clock, whichever is larger. For fencing tokens the clock's value is *seconds since 2026 × 2²⁰*,
//! in its full resolution. For the epoch it is *minutes since 2026*. As long as the wall clock is
//! sane at starts, both grow even if nothing was kept. A coordinator would have to give a million
//! tokens a second to outrun it.
//!
//! *However coarse the clock and however quick the starts*, no token comes twice by that. A run
//! that read `a` opens its port only when the clock shows more than `a` ([`await_next_tick`]). It
//! gives its tokens from `a × 2²⁰` on. Let the clock show the true time rounded down to ticks of
//! `r`. The port opens at `t`, when the clock has just shown a later tick than `a`, so `a ≤ t − r`.
//! A run that begins when this one has ended, at `u`, reads `b > u − r`. So `b − a > u − t`: there
//! are more than 2²⁰ numbers between the two for each second in which this one gave some. And `b >
//! a`, for the clock has moved on before the port was open.

use std::thread;
use std::time::{Duration, SystemTime};

use log::warn;

use super::key::StateKey;
use super::store::{Change, StateStore, Stored};
use crate::engine::{Durable, Past, Start, TOKENS_AHEAD_DAYS_MAX};
use crate::server::config::StaleState;
use crate::server::error::ServerError;
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

/// How far a client may move the counters ahead of the wall clock, in seconds.
const AHEAD_SECS_MAX: u64 = TOKENS_AHEAD_DAYS_MAX * SECS_PER_DAY;
/// What is stored may be ahead of the wall clock by as many seconds without a word.
const AHEAD_SECS_UNTOLD: u64 = SECS_PER_DAY;
/// How long to wait between two looks at a clock that has not moved on.
const TICK_PAUSE: Duration = Duration::from_millis(1);
/// So many looks at it: more than a clock needs that shows whole seconds.
const TICK_LOOKS_MAX: usize = 2_000;

/// The time from the origin to `wall`; none for a clock that is before it.
fn since_origin(wall: SystemTime) -> Option<Duration> {
    let origin = SystemTime::UNIX_EPOCH + Duration::from_secs(ORIGIN_SECS);
    wall.duration_since(origin).ok()
}

/// Where the tokens of a run begin that begins so long after the origin, if nothing is stored.
fn floor_token(since: Duration) -> u64 {
    // Less than a second's worth: a billion times a million fits.
    let of_this_second = u64::from(since.subsec_nanos()) * TOKENS_PER_SEC / 1_000_000_000;
    since.as_secs().saturating_mul(TOKENS_PER_SEC).saturating_add(of_this_second)
}

/// Lets the wall clock move on from its value at the reservation of this run's tokens, by one token
/// at least. The next start then reads more, and begins after all that this run gives. `pause` is
/// done between two looks at the clock.
pub(in crate::server) fn await_next_tick(
    shown: SystemTime,
    mut now: impl FnMut() -> SystemTime,
    mut pause: impl FnMut(),
) {
    let Some(floor) = since_origin(shown).map(floor_token) else { return };
    for _ in 0..TICK_LOOKS_MAX {
        if since_origin(now()).map(floor_token) > Some(floor) {
            return;
        }
        pause();
    }
    warn!(
        "the wall clock is stopped, or was set back: if the state is lost, fencing tokens may be \
        issued twice"
    );
}

/// Waits a moment, on a thread that has nothing else to do yet.
pub(in crate::server) fn pause_for_tick() {
    thread::sleep(TICK_PAUSE);
}

/// What a wall clock endangers that is not where it should be; none if all is well.
fn danger(since: Option<Duration>, stored: Option<Durable>) -> Option<String> {
    let then = "if the state is lost, tokens are issued twice, and resources that check them \
        mistake old writers for new ones; set the clock and restart";
    let Some(since) = since else {
        return Some(format!(
            "the wall clock shows a time before 2026-01-01, from which fencing tokens are counted: {then}"
        ));
    };
    let reserved = stored.map_or(0, |stored| stored.tokens_below.number()) / TOKENS_PER_SEC;
    let ahead = reserved.saturating_sub(since.as_secs());
    (ahead > AHEAD_SECS_UNTOLD).then(|| {
        let days = ahead / SECS_PER_DAY;
        format!("the wall clock is {days} days behind the fencing tokens already issued: {then}")
    })
}

/// Begins a run: loads what is stored, and has the new epoch and the first tokens durable. `wall` is
/// what the wall clock shows.
#[cfg(test)]
pub(in crate::server) fn begin<S: StateStore + ?Sized>(
    store: &S,
    stale: StaleState,
    wall: SystemTime,
) -> Result<(Start, StateKey), ServerError> {
    begin_after(store, stale, wall, |_, _, _| {})
}

/// The same; `before` is done with the last epoch that is stored, if one is, and the key, before another
/// epoch is.
pub(crate) fn begin_after<S: StateStore + ?Sized>(
    store: &S,
    stale: StaleState,
    wall: SystemTime,
    before: impl FnOnce(Option<Epoch>, StateKey, &mut Start),
) -> Result<(Start, StateKey), ServerError> {
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
    let since = since_origin(wall);
    if let Some(danger) = danger(since, stored.durable) {
        warn!("{danger}");
    }
    let last = stored.durable.map(|durable| durable.epoch);
    let mut start = start_from(stored, since.unwrap_or_default(), stale)?;
    before(last, key, &mut start);
    changes.extend([Change::Durable(start.durable), Change::DropSnapshot]);
    store.commit(&changes).map_err(failed("saved"))?;
    Ok((start, key))
}

/// How the engine begins, given what is `stored` and the wall clock's time since the origin. The
/// answer's `durable` has yet to be made so.
fn start_from(stored: Stored, since: Duration, stale: StaleState) -> Result<Start, ServerError> {
    let Stored { durable: stored, key: _, forfeits, snapshot, is_lost } = stored;
    let secs = since.as_secs();
    let floor_token = floor_token(since);
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
    // It is ahead of the clock, and not of what is stored. Clients may have moved the counters in
    // one run, and the next must not start from that.
    let ahead_tokens = AHEAD_SECS_MAX * TOKENS_PER_SEC;
    let plausible = Durable {
        epoch: Epoch::new(floor_epoch.saturating_add(AHEAD_SECS_MAX / SECS_PER_MIN)),
        tokens_below: FencingToken::new(
            floor_token.saturating_add(ahead_tokens).min(FENCING_TOKEN_MAX),
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
    const SECS_PER_WEEK: u64 = 7 * SECS_PER_DAY;

    fn durable(epoch: u64, tokens_below: u64) -> Durable {
        let (epoch, tokens_below) = (Epoch::new(epoch), FencingToken::new(tokens_below));
        // Nobody was welcomed, so each run is the first whose proofs count.
        Durable { epoch, tokens_below, ttl_max: None, settled: epoch }
    }

    fn stored(durable: Durable) -> Stored {
        Stored { durable: Some(durable), ..Stored::default() }
    }

    fn first_start(secs: u64) -> Start {
        start_from(Stored::default(), Duration::from_secs(secs), StaleState::Refuse).unwrap()
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
        let start =
            start_from(stored(before), Duration::from_secs(HOUR), StaleState::Refuse).unwrap();
        assert_eq!(start.first_token, before.tokens_below);
        assert_eq!(start.durable, durable(71, before.tokens_below.number() + FIRST_RESERVATION));
    }

    #[test]
    fn a_lost_state_does_not_make_tokens_fall() {
        let (first, second) = (first_start(HOUR), first_start(HOUR + 60));
        assert!(second.first_token >= first.durable.tokens_below);
        assert!(second.durable.epoch > first.durable.epoch);
    }

    fn wall(since: Duration) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(ORIGIN_SECS) + since
    }

    #[test]
    fn every_microsecond_has_a_token_of_its_own() {
        let start = |micros| {
            let since = Duration::from_secs(HOUR) + Duration::from_micros(micros);
            start_from(Stored::default(), since, StaleState::Refuse).unwrap().first_token
        };
        for micros in [0, 1, 499_999, 999_998, 999_999] {
            assert!(start(micros) < start(micros + 1), "after {micros}");
        }
        assert_eq!(start(1_000_000).number(), (HOUR + 1) << 20);
        assert_eq!(start(500_000).number(), (HOUR << 20) + (1 << 19));
    }

    /// One run after the other, all with nothing stored, each giving as many tokens as it may, on a
    /// clock that shows whole ticks.
    #[test]
    fn however_coarse_the_clock_no_run_gives_what_an_earlier_one_gave() {
        use std::cell::Cell;

        for (tick_ns, life_ns) in [
            (1, 1_000),
            (1_000, 1_500),
            (4_000_000, 10_000),
            (10_000_000, 25_000_000),
            (1_000_000_000, 3_000_000),
        ] {
            let true_ns = Cell::new(HOUR * 1_000_000_000 + 123_456_789);
            let shown = || wall(Duration::from_nanos(true_ns.get() / tick_ns * tick_ns));
            let mut given_below = 0;
            for _ in 0..20 {
                let read = shown();
                let since = since_origin(read).unwrap();
                let start = start_from(Stored::default(), since, StaleState::Refuse).unwrap();
                let first = start.first_token.number();
                assert!(first >= given_below, "a tick of {tick_ns} ns, a life of {life_ns} ns");
                let opened = |step| true_ns.set(true_ns.get() + step);
                await_next_tick(read, shown, || opened(1_000_000));
                // At least one, so that two starts of one reading would be noticed.
                given_below =
                    first + 1 + (life_ns * TOKENS_PER_SEC / 1_000_000_000).saturating_sub(1);
                opened(life_ns);
            }
        }
    }

    #[test]
    fn a_clock_that_stands_still_is_not_waited_for_for_ever() {
        let mut looks = 0;
        let stands = wall(Duration::from_secs(HOUR));
        await_next_tick(stands, || stands, || looks += 1);
        assert_eq!(looks, TICK_LOOKS_MAX);
        // One that is before all tokens says nothing by moving.
        await_next_tick(SystemTime::UNIX_EPOCH, || unreachable!(), || unreachable!());
    }

    #[test]
    fn a_client_moves_the_counters_no_more_than_a_week_ahead_of_the_clock_in_whatever_run() {
        let at = Duration::from_secs(HOUR);
        let first = start_from(Stored::default(), at, StaleState::Refuse).unwrap();
        let week = FencingToken::new((HOUR + SECS_PER_WEEK) << 20);
        assert_eq!(first.plausible.tokens_below, week);
        assert_eq!(first.plausible.epoch.number(), (HOUR + SECS_PER_WEEK) / SECS_PER_MIN);
        // A client has used that up; the next run, an hour later, does not begin another week there.
        let epoch = first.plausible.epoch;
        let used = Durable { tokens_below: week, epoch, ..first.durable };
        let later = Duration::from_secs(2 * HOUR);
        let second = start_from(stored(used), later, StaleState::Refuse).unwrap();
        assert_eq!(second.first_token, week);
        assert_eq!(second.plausible.tokens_below.number(), (2 * HOUR + SECS_PER_WEEK) << 20);
    }

    #[test]
    fn a_clock_that_endangers_tokens_is_told_of() {
        let since = Some(Duration::from_secs(HOUR));
        let reserved = |secs: u64| Some(durable(1, secs << 20));
        assert_eq!(danger(since, None), None);
        assert_eq!(danger(since, reserved(HOUR + SECS_PER_DAY)), None);
        let behind = danger(since, reserved(HOUR + SECS_PER_DAY + 1)).unwrap();
        assert!(behind.contains("1 days behind the fencing tokens"), "{behind}");
        for stored in [None, reserved(HOUR)] {
            let before = danger(since_origin(SystemTime::UNIX_EPOCH), stored).unwrap();
            assert!(
                before.starts_with("the wall clock shows a time before 2026-01-01"),
                "{before}"
            );
        }
    }

    #[test]
    fn a_state_more_than_a_year_behind_needs_a_word() {
        let old = || stored(durable(60, HOUR << 20));
        let at_the_limit = HOUR + YEAR_SECS;
        assert!(start_from(old(), Duration::from_secs(at_the_limit), StaleState::Refuse).is_ok());
        let beyond = at_the_limit + 1;
        let refused = start_from(old(), Duration::from_secs(beyond), StaleState::Refuse);
        assert!(matches!(refused, Err(ServerError::StaleState { days: 365 })), "{refused:?}");
        let accepted = start_from(old(), Duration::from_secs(beyond), StaleState::Accept).unwrap();
        assert_eq!(accepted.first_token.number(), beyond << 20);
    }

    #[test]
    fn a_clock_before_the_origin_starts_at_one() {
        assert_eq!(since_origin(SystemTime::UNIX_EPOCH), None);
        let start = first_start(0);
        assert_eq!(start.first_token.number(), 1);
        assert_eq!(start.durable.epoch.number(), 1);
    }

    #[test]
    fn a_clock_centuries_ahead_is_refused() {
        let refused = start_from(Stored::default(), Duration::MAX, StaleState::Accept);
        assert!(matches!(refused, Err(ServerError::ClockUnusable)));
    }

    #[test]
    fn a_lost_state_has_the_longest_grace_period_that_there_can_be() {
        let lost = Stored { is_lost: true, ..Stored::default() };
        let start = start_from(lost, Duration::from_secs(HOUR), StaleState::Refuse).unwrap();
        assert_eq!(start.durable.ttl_max, Ttl::new(TTL_MAX).ok());
        assert_eq!(first_start(HOUR).durable.ttl_max, None, "nobody was there before");
    }

    #[test]
    fn forfeits_go_on_being_counted_where_they_were() {
        let forfeit = Forfeit::Grant(FencingToken::new(5));
        let forfeits = BTreeMap::from([(3, forfeit), (7, forfeit)]);
        let start = start_from(
            Stored { forfeits, ..Stored::default() },
            Duration::from_secs(HOUR),
            StaleState::Refuse,
        );
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
        let key_of = |store| {
            let (_, key) = begin(store, StaleState::Refuse, SystemTime::now()).unwrap();
            key.reveal()
        };
        assert_eq!(key_of(&store), key_of(&store));
        assert_ne!(key_of(&store), key_of(&other));
    }
}
