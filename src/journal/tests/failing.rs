//! Rule J5: a journal that cannot be written is made void, and no error is forgotten.

use super::simulated::Faults;
use super::*;
use crate::testing::fuzz::Random;

fn is_fresh(disk: &SimulatedDisk) -> bool {
    matches!(recover(disk, &expected()), Recovered::Fresh)
}

/// One whose writes fail from here on.
fn failing(distance: Distance, faults: Faults) -> (SimulatedDisk, SimulatedJournal, Broken) {
    let disk = SimulatedDisk::default();
    let mut journal = begun(&disk, 1, distance);
    write(&mut journal, 4);
    disk.set_faults(Faults { writes_fail: true, ..faults });
    append(&mut journal, 1);
    let broken = journal.flush().unwrap_err();
    (disk, journal, broken)
}

#[test]
fn j5_a_journal_that_cannot_be_written_is_made_void() {
    for distance in DISTANCES {
        let (disk, _, broken) = failing(distance, Faults::default());
        let says = "journal abandoned: 00000001.log cannot be written: the disk fails";
        assert_eq!(broken.to_string(), says);
        assert!(is_fresh(&disk));
        assert!(disk.names(9).unwrap().is_empty());
    }
}

#[test]
fn j5_a_write_error_is_not_forgotten_when_the_disk_is_well_again() {
    for distance in DISTANCES {
        let (disk, mut journal, broken) = failing(distance, Faults::default());
        disk.set_faults(Faults::default());
        for _ in 0..3 {
            append(&mut journal, 1);
            assert_eq!(journal.flush(), Err(broken.clone()));
            assert_eq!(journal.writer().check(), Err(broken.clone()));
            assert!(is_fresh(&disk));
        }
        // All that happened meanwhile is in the checkpoint.
        journal.begin(Some(&mut checkpoint_of(8))).unwrap();
        write(&mut journal, 2);
        assert_eq!(count(&disk), 10);
    }
}

#[test]
fn j5_what_can_be_emptied_or_removed_is_void_and_what_cannot_stops_everything() {
    let (truncates_fail, removes_fail) = (true, true);
    for distance in DISTANCES {
        let (disk, _, broken) = failing(distance, Faults { truncates_fail, ..Faults::default() });
        assert!(matches!(broken, Broken::Void(_)), "{broken}");
        assert!(is_fresh(&disk));
        let (disk, _, broken) = failing(distance, Faults { removes_fail, ..Faults::default() });
        assert!(matches!(broken, Broken::Void(_)), "{broken}");
        assert_eq!(void(&disk), Void::Header { segment: 1 });

        let faults = Faults { truncates_fail, removes_fail, ..Faults::default() };
        let (disk, mut journal, broken) = failing(distance, faults);
        assert!(matches!(broken, Broken::Stuck { .. }), "{broken}");
        assert_eq!(count(&disk), 4, "it would be believed");
        assert_eq!(journal.make_void(), Err(broken.clone()));
        append(&mut journal, 1);
        assert_eq!(journal.flush(), Err(broken));
        disk.set_faults(Faults::default());
        journal.make_void().unwrap();
        assert!(is_fresh(&disk));
        assert!(matches!(journal.flush(), Err(Broken::Void(_))));
    }
}

#[test]
fn j5_a_hard_link_that_somebody_kept_is_emptied_too() {
    let disk = SimulatedDisk::default();
    let mut journal = begun(&disk, 1, Distance::Process);
    write(&mut journal, 4);
    let kept = disk.open("00000001.log").unwrap();
    disk.set_faults(Faults { writes_fail: true, ..Faults::default() });
    append(&mut journal, 1);
    journal.flush().unwrap_err();
    assert_eq!(kept.facts().unwrap().bytes, 0);
}

#[test]
fn j5_a_sync_that_fails_is_never_tried_again() {
    let disk = SimulatedDisk::default();
    let mut journal = begun(&disk, 1, Distance::Machine);
    write(&mut journal, 4);
    disk.set_faults(Faults { syncs_fail: true, ..Faults::default() });
    append(&mut journal, 1);
    // It cannot be removed for certain either.
    assert!(matches!(journal.flush(), Err(Broken::Stuck { .. })));
    disk.set_faults(Faults::default());
    assert!(matches!(journal.flush(), Err(Broken::Stuck { .. })));
    journal.make_void().unwrap();
    for seed in 0..50 {
        let disk = disk.twin();
        disk.cut_power(&mut Random::new(seed));
        assert!(is_fresh(&disk));
    }
}

#[test]
fn nothing_is_synced_for_crashes_of_the_process() {
    let disk = SimulatedDisk::default();
    write_and_compact(&mut begun(&disk, 1, Distance::Process), &disk, 100);
    assert_eq!(disk.syncs(), 0);
    let disk = SimulatedDisk::default();
    let mut journal = Journal::new(disk.clone(), run(1, Distance::Machine), Bounds::default());
    journal.begin(None).unwrap();
    let before = disk.syncs();
    append(&mut journal, 50);
    assert_eq!(journal.flush().unwrap(), 50);
    assert_eq!(disk.syncs(), before + 1, "one for all that came together");
    assert_eq!(journal.flush().unwrap(), 50);
    assert_eq!(disk.syncs(), before + 1, "none for nothing");
}

#[test]
fn j5_giving_up_that_stops_at_any_step_leaves_no_more_than_was_said() {
    for distance in DISTANCES {
        for steps in 0..20 {
            for seed in 0..10 {
                let disk = SimulatedDisk::default();
                let mut journal = begun(&disk, 1, distance);
                write(&mut journal, 10);
                let whole = recovered(&disk).unwrap();
                journal = Journal::new(disk.clone(), run(2, distance), BOUNDS);
                journal.go_on(&whole).unwrap();
                write(&mut journal, 5);
                let stops_after = Some(disk.changes() + steps);
                let writes_fail = steps > 0;
                disk.set_faults(Faults { stops_after, writes_fail, ..Faults::default() });
                append(&mut journal, 1);
                journal.flush().unwrap_err();
                let mut expected = expected();
                let disk = disk.twin();
                if distance == Distance::Machine {
                    disk.cut_power(&mut Random::new(seed));
                    expected.place.boot = Some(4);
                }
                if let Recovered::Whole(whole) = recover(&disk, &expected) {
                    // Before anything went on without it.
                    assert_eq!(replayed(&disk, &whole), 15, "{distance:?} {steps} {seed}");
                }
            }
        }
    }
}

#[test]
fn j5_a_full_disk_at_any_byte_makes_it_void_and_it_begins_anew_when_there_is_room() {
    for distance in DISTANCES {
        let mut was_begun = false;
        for room in (0..1_500).step_by(7) {
            let disk = SimulatedDisk::default();
            disk.set_faults(Faults { room: Some(room), ..Faults::default() });
            let mut journal = Journal::new(disk.clone(), run(1, distance), BOUNDS);
            let mut result = journal.begin(None);
            was_begun |= result.is_ok();
            let mut last = 0;
            while result.is_ok() {
                last = append(&mut journal, 1);
                result = journal.flush().map(|_| ());
            }
            assert!(matches!(result, Err(Broken::Void(_))), "{room}: {result:?}");
            assert!(is_fresh(&disk), "{room}");
            disk.set_faults(Faults::default());
            journal.begin(Some(&mut checkpoint_of(last))).unwrap();
            write(&mut journal, 1);
            assert_eq!(count(&disk), last + 1, "{room}");
        }
        assert!(was_begun);
    }
}

#[test]
fn short_and_interrupted_writes_are_made_up_for() {
    for distance in DISTANCES {
        let disk = SimulatedDisk::default();
        let short_writes = Some(Random::new(5));
        disk.set_faults(Faults { short_writes, ..Faults::default() });
        let mut journal = begun(&disk, 1, distance);
        assert!(write_and_compact(&mut journal, &disk, 100) > 0);
        assert_eq!(count(&disk), 100);
    }
}

#[test]
fn a_record_at_the_limit_is_written_and_one_past_it_gives_the_journal_up() {
    let disk = SimulatedDisk::default();
    let mut journal = Journal::new(disk.clone(), run(1, Distance::Process), Bounds::default());
    journal.begin(None).unwrap();
    journal.append(&vec![1; RECORD_BYTES_MAX]);
    assert_eq!(journal.flush().unwrap(), 1);
    assert_eq!(recovered(&disk).unwrap().records(), 1);
    let bytes = RECORD_BYTES_MAX + 1;
    assert_eq!(journal.append(&vec![1; bytes]), 2);
    journal.append(b"and one that is all right");
    let broken = journal.flush().unwrap_err();
    assert_eq!(broken, Broken::Void(Failure::RecordTooLong { bytes }));
    assert!(is_fresh(&disk));
}

#[test]
fn what_waits_to_be_written_is_bounded() {
    let mut tail = Tail::new(&run(1, Distance::Process), 1);
    let record = vec![1; RECORD_BYTES_MAX];
    for _ in 0..100 {
        tail.append(&record);
        assert!(tail.bytes() <= BATCH_BYTES_MAX);
    }
    assert_eq!(tail.next(), 101);
    let mut writer = Writer::new(SimulatedDisk::default(), run(1, Distance::Process), BOUNDS);
    writer.begin(1, None).unwrap();
    assert_eq!(writer.write(&mut tail.take()), Err(Broken::Void(Failure::Behind)));
}

#[test]
fn a_batch_that_is_missing_or_comes_twice_gives_the_journal_up() {
    for is_missing in [true, false] {
        let disk = SimulatedDisk::default();
        let (mut tail, mut writer) = begun(&disk, 1, Distance::Machine).into_parts();
        tail.append(b"one");
        let mut first = tail.take();
        tail.append(b"two");
        let mut second = tail.take();
        let written = if is_missing {
            writer.write(&mut second)
        } else {
            writer.write(&mut first).unwrap();
            writer.write(&mut first)
        };
        assert!(matches!(written, Err(Broken::Void(Failure::Gap { .. }))), "{written:?}");
        assert!(is_fresh(&disk));
    }
}

#[test]
fn a_file_that_was_removed_replaced_or_linked_is_noticed() {
    type Harm = fn(&SimulatedDisk);
    let harms: [Harm; 3] = [
        |disk| disk.remove("00000001.log").unwrap(),
        |disk| {
            disk.remove("00000001.log").unwrap();
            disk.create("00000001.log").unwrap();
        },
        |disk| disk.link_elsewhere("00000001.log"),
    ];
    for harm in harms {
        let disk = SimulatedDisk::default();
        let mut journal = begun(&disk, 1, Distance::Process);
        write(&mut journal, 2);
        journal.writer().check().unwrap();
        harm(&disk);
        append(&mut journal, 1);
        journal.flush().unwrap();
        let file = "00000001.log".into();
        assert_eq!(journal.writer().check(), Err(Broken::Void(Failure::Gone { file })));
        assert!(journal.flush().is_err());
    }
}

#[test]
fn settings_at_the_limit_are_kept_and_one_past_it_gives_the_journal_up() {
    let begun = |bytes| {
        let disk = SimulatedDisk::default();
        let settings = vec![1; bytes];
        let run = Run { settings, ..run(1, Distance::Process) };
        (disk.clone(), Journal::new(disk, run, BOUNDS).begin(None))
    };
    let (disk, result) = begun(SETTINGS_BYTES_MAX);
    assert_eq!(result, Ok(()));
    assert_eq!(recovered(&disk).unwrap().last.settings.len(), SETTINGS_BYTES_MAX);
    let bytes = SETTINGS_BYTES_MAX + 1;
    let (disk, result) = begun(bytes);
    assert_eq!(result, Err(Broken::Void(Failure::SettingsTooLong { bytes })));
    assert!(is_fresh(&disk));
}
