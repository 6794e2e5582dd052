//! What a run finds of the one before: its table, its journal, its clock.

use std::mem;
use std::time::{Duration, SystemTime};

use foldhash::fast::SeedableRandomState;
use log::{error, info};

use crate::clock::Clock;
use crate::engine::{LockTable, Seed, Start};
use crate::journal::Distance;
use crate::server::config::{Config, Data};
use crate::server::desk::Before;
use crate::server::durable::StateKey;
#[cfg(feature = "cluster")]
use crate::server::durable::chronicle::Flushed;
use crate::server::durable::chronicle::{Chronicle, Ground};
use crate::server::durable::persist::Disk;
use crate::server::durable::start;
use crate::server::error::ServerError;
use crate::server::keeping::Beginning;
use crate::types::{Epoch, Limits, Timestamp};

/// The beginning of a run.
pub(in crate::server) struct Begun {
    /// How the engine begins.
    pub(in crate::server) start: Start,
    /// The key of the state.
    pub(in crate::server) key: StateKey,
    /// Where it is written down what happens.
    pub(in crate::server) chronicle: Option<Chronicle>,
    /// The table of the run before, if it was found.
    pub(in crate::server) before: Before,
}

/// What a run may go on with.
pub(in crate::server) enum Inherits {
    /// The journal that it finds, if that is whole; or what an orderly stop has left.
    Journal,
    /// What an orderly stop has left. A journal that is there is of another's making.
    #[cfg(feature = "cluster")]
    State,
    /// A copy of the table of who led before, and its journal.
    #[cfg(feature = "cluster")]
    Copy(Box<LockTable>, Box<Chronicle>),
}

impl Begun {
    /// That of a run with the state that `disk` has. What it commits is to be confirmed.
    pub(in crate::server) fn of<D: Disk>(
        config: &Config,
        disk: &D,
        wall: SystemTime,
        clock: &dyn Clock,
    ) -> Result<Self, ServerError> {
        Self::after(config, disk, wall, clock, Inherits::Journal)
    }

    /// The same, of one that may not go on with every journal that it finds.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(
            clippy::needless_pass_by_value,
            reason = "a copy is consumed where there may be one"
        )
    )]
    pub(in crate::server) fn after<D: Disk>(
        config: &Config,
        disk: &D,
        wall: SystemTime,
        clock: &dyn Clock,
        inherits: Inherits,
    ) -> Result<Self, ServerError> {
        let (mut chronicle, mut before) = (None, Before::Nothing);
        let look = |last: Option<Epoch>, key: StateKey, start: &mut Start| {
            #[cfg(feature = "cluster")]
            if let Inherits::Copy(table, mut its) = inherits {
                its.epoch(Some(start.durable.epoch), None);
                (chronicle, before) = (Some(*its), Before::Crashed(table));
                return;
            }
            chronicle = chronicle_of(config, disk, (last, start.durable.epoch), key);
            if let (Some(chronicle), Some(_)) = (&mut chronicle, last)
                && (matches!(inherits, Inherits::Journal) || start.past.snapshot.is_some())
            {
                before = table_before(chronicle, start, config.limits, clock.now());
            }
        };
        let (start, key) = start::begin_after(disk.store(), config.stale_state, wall, look)?;
        Ok(Self { start, key, chronicle, before })
    }

    /// The journal has the epoch that it is to have, before the state does.
    #[cfg(feature = "cluster")]
    pub(in crate::server) fn write_down(&mut self) {
        // One that is begun with the table of this run has that epoch from its beginning.
        let Some(chronicle) = self.chronicle.as_mut() else { return };
        if !chronicle.is_begun() {
            return;
        }
        if let Flushed::Writing(job) = chronicle.flush() {
            // If it cannot be written, the next flush says so.
            let _ = chronicle.written(Some(job.run()));
        }
    }

    /// All of it is durable.
    pub(in crate::server) fn confirm(&mut self) {
        if let Some(chronicle) = &mut self.chronicle {
            chronicle.epoch(None, Some(self.start.durable.epoch));
        }
    }
}

/// The journal of a data directory, if one is to be written.
fn chronicle_of<D: Disk>(
    config: &Config,
    disk: &D,
    (last, next): (Option<Epoch>, Epoch),
    key: StateKey,
) -> Option<Chronicle> {
    let (Data::Directory(directory), Some(distance)) = (&config.data, config.journal) else {
        return None;
    };
    match disk.ground(directory) {
        Ok(ground) => {
            let ground = Ground { state: key.fingerprint(), ..ground };
            Some(Chronicle::on(ground, distance, last.unwrap_or_default(), next))
        }
        Err(why) => {
            error!(
                "no journal can be written, so a crash would be followed by a grace period: {why}"
            );
            None
        }
    }
}

/// The table that the run before has left. What an orderly stop has left is all that there is. It
/// is written into the journal before the state forgets it, so a crash at any step finds one of the
/// two.
pub(crate) fn table_before(
    chronicle: &mut Chronicle,
    start: &mut Start,
    limits: Limits,
    now: Timestamp,
) -> Before {
    if start.past.snapshot.is_none() {
        return chronicle.find().map_or(Before::Nothing, Before::Crashed);
    }
    let past = mem::take(&mut start.past);
    let saved = Start { past, ..*start };
    let table =
        Box::new(LockTable::new(limits, saved, Seed::from(SeedableRandomState::random()), now));
    // If it cannot be written, the run begins without a journal, and says so.
    chronicle.begin(&table);
    Before::Saved(table)
}

/// How a run begins, unless that is known to the journal.
pub(super) fn beginning(
    start: &Start,
    before: &Before,
    chronicle: Option<&Chronicle>,
) -> Option<Beginning> {
    match before {
        Before::Crashed(_) => return None,
        Before::Saved(_) => return Some(Beginning::Saved),
        Before::Nothing if start.past.snapshot.is_some() => return Some(Beginning::Saved),
        Before::Nothing => {}
    }
    if start.durable.ttl_max.is_none() {
        return Some(Beginning::New);
    }
    let why = match chronicle {
        None => "no journal is kept",
        Some(chronicle) => chronicle.why_void().unwrap_or("there is no journal of the run before"),
    };
    Some(Beginning::Lost { why: why.to_owned(), grace: Duration::ZERO })
}

/// Tells the log what a crash will cost.
pub(super) fn tell_distance(config: &Config, is_kept: bool) {
    if matches!(config.data, Data::Ephemeral) {
        return;
    }
    match config.journal.filter(|_| is_kept) {
        None => info!("journal: none; a crash is followed by a grace period"),
        Some(Distance::Process) => {
            info!("journal: written before any answer; a crash of the process loses nothing");
        }
        Some(Distance::Machine) => {
            info!("journal: synced before any answer; a power cut loses nothing");
        }
    }
}

/// A clock that goes on from a moment, if that is later. After a new start of the machine, time is
/// counted from there (rule J4).
pub(super) fn clock_after(moment: Timestamp, clock: Box<dyn Clock>) -> Box<dyn Clock> {
    let ahead = moment.since(clock.now());
    if ahead.is_zero() { clock } else { Box::new(Ahead { clock, by: ahead }) }
}

/// A clock that is ahead of another.
struct Ahead {
    /// The other.
    clock: Box<dyn Clock>,
    /// By so much.
    by: Duration,
}

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        self.clock.now().after(self.by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Past, Snapshot};
    use crate::server::durable::chronicle::Ground;

    #[test]
    fn j4_what_an_orderly_stop_has_left_is_in_the_journal_before_the_state_forgets_it() {
        let data = tempfile::tempdir().unwrap();
        let run = |last, next| {
            let (last, next) = (Epoch::new(last), Epoch::new(next));
            Chronicle::on(Ground::of(data.path()).unwrap(), Distance::Process, last, next)
        };
        let past = Past { snapshot: Some(Snapshot::default()), ..Past::default() };
        let mut start = Start { past, ..Start::default() };
        let (limits, now) = (Limits::default(), Timestamp::default());
        let before = table_before(&mut run(6, 7), &mut start, limits, now);
        assert!(matches!(before, Before::Saved(_)));
        // A crash, when the state has the new epoch, and nothing was decided yet.
        assert!(run(7, 8).find().is_some());
    }

    /// A clock that shows the time since its machine was started.
    struct Shows(u64);

    impl Clock for Shows {
        fn now(&self) -> Timestamp {
            Timestamp::from_micros(self.0)
        }
    }

    #[test]
    fn j4_time_goes_on_from_the_last_moment_that_was_written_down_however_the_clock_stands() {
        let hour = Timestamp::from_micros(3_600_000_000);
        // The machine was started anew, or has been running for longer than the run knew.
        for (shown, expected) in
            [(5, hour), (hour.as_micros() + 5, hour.after(Duration::from_micros(5)))]
        {
            assert_eq!(clock_after(hour, Box::new(Shows(shown))).now(), expected);
        }
    }
}
