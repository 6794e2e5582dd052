//! A second table that hears only what is written down, and has to be the same as the first.

use crate::engine::seed::Seed;
use crate::engine::{Effect, Event, LockTable, Run, Start};
use crate::types::{Limits, Timestamp};

/// After so many events the second table is written down and read again.
const EVENTS_PER_IMAGE: usize = 5;

/// Replays, event by event, what another table is told.
pub(in crate::engine) struct Twin {
    /// What it makes of it.
    table: LockTable,
    /// How many events it has heard.
    events: usize,
}

impl Twin {
    /// One that begins with the image of `table`.
    pub(in crate::engine) fn of(table: &LockTable) -> Self {
        Self { table: read(&image(table)), events: 0 }
    }

    /// Hears an event as it was written down, and has to be the same table as `table`, which was told
    /// it and has said `effects`.
    pub(in crate::engine) fn follow(
        &mut self,
        event: &Event,
        now: Timestamp,
        table: &LockTable,
        effects: &[Effect],
    ) {
        let written = bincode::serialize(event).unwrap();
        let event: Event = bincode::deserialize(&written).unwrap();
        let mut said = Vec::new();
        self.table.step(&event, now, &mut said);
        // Whom shells want to hear from is not written down.
        let is_for_all =
            |it: &&Effect| !matches!(it, Effect::HoldersChanged { .. } | Effect::Happened(_));
        let (expected, said) = (effects.iter().filter(is_for_all), said.iter().filter(is_for_all));
        assert!(expected.eq(said), "a replay says something else to {event:?}");
        self.events += 1;
        let image = image(&self.table);
        assert!(image == self::image(table), "a replay leads to another table after {event:?}");
        if self.events.is_multiple_of(EVENTS_PER_IMAGE) {
            self.table = read(&image);
        }
    }

    /// The table as it would be after a crash.
    pub(in crate::engine) fn table(&self) -> LockTable {
        read(&image(&self.table))
    }
}

/// A table, written down.
pub(in crate::engine) fn image(table: &LockTable) -> Vec<u8> {
    bincode::serialize(&table.image()).unwrap()
}

/// The table that was written down.
pub(in crate::engine) fn read(image: &[u8]) -> LockTable {
    let table = LockTable::from_image(bincode::deserialize(image).unwrap(), Seed::default());
    table.assert_invariants();
    table
}

#[test]
fn j4_limits_that_were_changed_over_a_restart_hold_from_the_first_event_of_the_run_on() {
    let sessions = |sessions_max| Limits { sessions_max, ..Limits::default() };
    let (seed, now) = (Seed::default(), Timestamp::default());
    let crashed = LockTable::new(sessions(3), Start::default(), seed, now);
    let mut table: LockTable = read(&image(&crashed));
    assert_eq!(table.limits.sessions_max, 3);
    let Start { durable, first_token, plausible, .. } = Start::default();
    let run = Run { durable, first_token, plausible, limits: sessions(5) };
    table.step(&Event::Began(run), now, &mut Vec::new());
    assert_eq!(table.limits.sessions_max, 5);
    // What was written down of it says the same to whoever replays it.
    let next: LockTable = read(&image(&table));
    assert_eq!(next.limits.sessions_max, 5);
}
