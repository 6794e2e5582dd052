//! How many records there are, and what becomes of those that are too many.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::engine::seed::Seed;
use crate::engine::{Durable, Event, Past, RECORDS_MAX, Start};
use crate::types::{Epoch, Limits, SessionId, Ttl};

type Table = LockTable;

/// A run that begins after a crash, with these on record.
fn run(disk: &BTreeMap<u64, Forfeit>, first_token: u64) -> Table {
    let next_record = disk.last_key_value().map_or(0, |(last, _)| last + 1);
    let forfeits = disk.values().copied().collect();
    let durable = Durable {
        epoch: Epoch::new(2),
        tokens_below: FencingToken::new(1 << 40),
        ttl_max: Some(Ttl::default()),
        settled: Epoch::new(2),
    };
    let start = Start {
        durable,
        first_token: FencingToken::new(first_token),
        plausible: durable,
        past: Past { snapshot: None, forfeits, next_record },
    };
    Table::new(Limits::default(), start, Seed::default(), Timestamp::default())
}

fn grant(token: u64) -> Forfeit {
    Forfeit::Grant(FencingToken::new(token))
}

/// Has grants recorded, and does what is ordered to the records that are on disk.
fn record(table: &mut Table, tokens: impl Iterator<Item = u64>, disk: &mut BTreeMap<u64, Forfeit>) {
    for token in tokens {
        table.record(grant(token), AfterRecord::Nothing);
        for effect in table.effects.drain(..) {
            match effect {
                Effect::Record { number, forfeit } => {
                    assert_eq!(disk.insert(number, forfeit), None);
                }
                Effect::ForgetRecords { below } => *disk = disk.split_off(&below),
                other => panic!("{other:?}"),
            }
        }
    }
}

fn forfeited_on(disk: &BTreeMap<u64, Forfeit>, token: u64) -> bool {
    run(disk, 1 << 30).grace.is_forfeited(FencingToken::new(token))
}

#[test]
fn there_are_as_many_records_as_may_be_and_one_more_folds_the_older_half() {
    let (mut table, mut disk) = (run(&BTreeMap::new(), 1), BTreeMap::new());
    let max = RECORDS_MAX as u64;
    record(&mut table, 1..=max, &mut disk);
    assert_eq!(disk.len(), RECORDS_MAX);
    assert!(disk.values().all(|forfeit| matches!(forfeit, Forfeit::Grant(_))));

    record(&mut table, max + 10..=max + 10, &mut disk);
    assert_eq!(disk.len(), RECORDS_MAX / 2 + 2, "the younger half, the older one, and the latest");
    assert!(disk.values().any(|forfeit| *forfeit == Forfeit::UpTo(FencingToken::new(max / 2))));
    for token in [1, max / 2, max, max + 10] {
        assert!(forfeited_on(&disk, token), "{token}");
    }
    assert!(!forfeited_on(&disk, max + 9), "what was not lost may be reclaimed");
}

#[test]
fn records_stay_bounded_over_a_flood_and_over_crashes() {
    let mut disk = BTreeMap::new();
    let mut token = 0;
    for _ in 0..4 {
        let mut table = run(&disk, token + 1);
        for _ in 0..3 {
            record(&mut table, token + 1..token + 50_000, &mut disk);
            token += 50_000;
            assert!(disk.len() <= RECORDS_MAX, "{} on disk", disk.len());
        }
        assert!(forfeited_on(&disk, 1) && forfeited_on(&disk, token - 1));
    }
}

#[test]
fn what_is_folded_is_of_use_for_as_long_as_the_longest_of_it() {
    let (mut table, mut disk) = (run(&BTreeMap::new(), 1), BTreeMap::new());
    let max = RECORDS_MAX as u64;
    record(&mut table, 1..=max + 1, &mut disk);
    let useful = table.longest_belief();
    table.now = table.now.after(useful);
    record(&mut table, max + 2..=max + 2, &mut disk);
    assert!(disk.values().any(|forfeit| matches!(forfeit, Forfeit::UpTo(_))));
    table.now = table.now.after(Duration::from_micros(1));
    record(&mut table, max + 3..=max + 3, &mut disk);
    assert_eq!(disk.len(), 2, "nobody believes in any of the others: {disk:?}");
}

#[test]
fn no_revocation_is_added_to_too_many_that_wait_for_the_disk() {
    let mut table = run(&BTreeMap::new(), 1);
    table.record(Forfeit::Session(SessionId::new(7)), AfterRecord::Nothing);
    for token in 1..REVOCATIONS_WAITING_MAX as u64 {
        assert!(!table.is_disk_behind());
        table.record(grant(token), AfterRecord::Nothing);
    }
    assert!(table.is_disk_behind());
    table.effects.clear();
    let mut effects = Vec::new();
    table.handle(&Event::Recorded { count: 1 }, Timestamp::default(), &mut effects);
    assert!(!table.is_disk_behind());
}
