//! Rule J6: segments that follow each other, checkpoints made meanwhile, and a crash at any step.

use super::simulated::Faults;
use super::*;
use crate::testing::fuzz::Random;

/// Writes until a checkpoint is due.
fn until_due(journal: &mut SimulatedJournal) -> (Task, u64) {
    loop {
        let last = append(journal, 1);
        journal.flush().unwrap();
        if let Some(task) = journal.writer().due() {
            return (task, last);
        }
    }
}

/// Most that the files take beside each other, with checkpoints of up to so many bytes: two of
/// them, and records until the journal is given up.
fn bytes_max(checkpoint: u64) -> u64 {
    2 * checkpoint + OVERDUE_TIMES * BOUNDS.due_bytes(checkpoint) + 1_000
}

#[test]
fn j6_a_long_journal_is_made_short_by_checkpoints_and_nothing_is_lost() {
    for distance in DISTANCES {
        let disk = SimulatedDisk::default();
        let mut journal = begun(&disk, 1, distance);
        for round in 1..=30 {
            write_and_compact(&mut journal, &disk, 20);
            assert_eq!(count(&disk), round * 20);
            let mut checkpoint = Vec::new();
            Story::of(round * 20).checkpoint(&mut checkpoint).unwrap();
            assert!(disk.bytes() < bytes_max(checkpoint.len() as u64));
            assert!(disk.names(9).unwrap().len() <= 4, "{:?}", disk.names(9));
        }
        let whole = recovered(&disk).unwrap();
        assert!(whole.records() < 600, "most of it is in the checkpoint");
        assert!(!whole.is_long(BOUNDS));
    }
}

#[test]
fn j6_all_before_a_record_is_read_beside_the_writer_or_it_is_said_that_parts_are_gone() {
    for distance in DISTANCES {
        let disk = SimulatedDisk::default();
        let mut journal = begun(&disk, 1, distance);
        write(&mut journal, 5);
        let stretch = journal.writer().stretch().unwrap();
        assert_eq!(stretch.next(), 6);
        // A write goes on beside it, and more segments are begun.
        let (task, last) = until_due(&mut journal);
        for until in 1..=6 {
            assert_eq!(stretch.replay(&disk, until, Story::restore), Ok(Story::of(until - 1)));
        }
        let all = journal.writer().stretch().unwrap();
        assert_eq!(all.replay(&disk, last, Story::restore), Ok(Story::of(last - 1)));
        let made = compact(&disk, &task, Story::restore).unwrap();
        journal.writer().checkpointed(&made);
        assert!(stretch.replay(&disk, 6, Story::restore).is_err());
        let all = journal.writer().stretch().unwrap();
        assert!(all.replay(&disk, 6, Story::restore).is_err(), "its checkpoint has more");
        assert_eq!(all.replay(&disk, all.next(), Story::restore), Ok(Story::of(last)));
    }
}

#[test]
fn j6_what_is_appended_while_a_checkpoint_is_made_is_not_lost() {
    for distance in DISTANCES {
        let disk = SimulatedDisk::default();
        let mut journal = begun(&disk, 1, distance);
        for _ in 0..5 {
            let (task, due) = until_due(&mut journal);
            write(&mut journal, 5);
            assert_eq!(count(&disk), due + 5);
            let made = compact(&disk, &task, Story::restore).unwrap();
            assert_eq!(count(&disk), due + 5);
            write(&mut journal, 5);
            assert_eq!(count(&disk), due + 10);
            journal.writer().checkpointed(&made);
            write(&mut journal, 1);
            assert_eq!(count(&disk), due + 11);
        }
    }
}

#[test]
fn j6_a_journal_of_which_no_checkpoint_is_made_is_given_up_at_its_bound() {
    for distance in DISTANCES {
        let disk = SimulatedDisk::default();
        let mut journal = begun(&disk, 1, distance);
        let broken = loop {
            append(&mut journal, 1);
            assert!(disk.bytes() <= bytes_max(0), "{}", disk.bytes());
            match journal.flush() {
                Ok(_) => {}
                Err(broken) => break broken,
            }
        };
        assert!(matches!(broken, Broken::Void(Failure::TooLong { .. })), "{broken}");
        assert!(matches!(recover(&disk, &expected()), Recovered::Fresh));
    }
}

#[test]
fn j6_a_checkpoint_that_cannot_be_written_is_asked_for_again() {
    let disk = SimulatedDisk::default();
    let mut journal = begun(&disk, 1, Distance::Process);
    let (task, due) = until_due(&mut journal);
    disk.set_faults(Faults { room: Some(30), ..Faults::default() });
    let not_made = compact(&disk, &task, Story::restore).unwrap_err();
    assert!(matches!(not_made, NotMade::Unwritten(_)), "{not_made}");
    disk.set_faults(Faults::default());
    assert_eq!(count(&disk), due);
    journal.writer().not_checkpointed();
    let (task, due) = until_due(&mut journal);
    let made = compact(&disk, &task, Story::restore).unwrap();
    journal.writer().checkpointed(&made);
    write(&mut journal, 1);
    assert_eq!(count(&disk), due + 1);
}

#[test]
fn j6_damage_that_a_follower_finds_is_said_and_removes_nothing() {
    let disk = SimulatedDisk::default();
    let mut journal = begun(&disk, 1, Distance::Process);
    let (task, _) = until_due(&mut journal);
    let bytes = disk.read("00000001.log");
    for at in (0..bytes.len()).step_by(11) {
        disk.damage("00000001.log", &flipped(&bytes, at));
        let not_made = compact(&disk, &task, Story::restore).unwrap_err();
        assert!(matches!(not_made, NotMade::Unread(_)), "{at}: {not_made}");
        assert_eq!(disk.names(9).unwrap().len(), 2);
    }
}

#[test]
fn j2_a_checkpoint_that_does_not_verify_is_made_up_for_by_what_was_before_it_or_void() {
    let disk = SimulatedDisk::default();
    let mut journal = begun(&disk, 1, Distance::Process);
    let (task, due) = until_due(&mut journal);
    let before = disk.twin();
    compact(&disk, &task, Story::restore).unwrap();
    let name = "00000002.checkpoint";
    let bytes = disk.read(name);
    for at in 0..bytes.len() {
        disk.damage(name, &flipped(&bytes, at));
        let void = void(&disk);
        let is_said = matches!(void, Void::CheckpointDamaged { .. } | Void::Format { .. });
        assert!(is_said, "{at}: {void:?}");
        disk.damage(name, &bytes[..at]);
        assert_eq!(super::void(&disk), Void::CheckpointDamaged { segment: 2 }, "{at}");
    }
    disk.remove(name).unwrap();
    assert_eq!(void(&disk), Void::SegmentMissing { segment: 1 });
    // Complete, and damaged before the segment that it makes up for was removed.
    before.create(name).unwrap();
    before.damage(name, &flipped(&bytes, 40));
    let whole = recovered(&before).unwrap();
    assert_eq!(replayed(&before, &whole), due);
    assert_eq!(whole.notes, [Note::CheckpointUnused { segment: 2 }]);
}

#[test]
fn j2_a_journal_that_began_with_a_checkpoint_is_void_without_it() {
    let disk = SimulatedDisk::default();
    let mut journal = begun(&disk, 1, Distance::Process);
    write(&mut journal, 3);
    journal.begin(Some(&mut checkpoint_of(3))).unwrap();
    write(&mut journal, 1);
    assert_eq!(count(&disk), 4);
    disk.remove("00000002.checkpoint").unwrap();
    assert_eq!(void(&disk), Void::CheckpointMissing { segment: 2 });
}

/// What is told, at any moment of a run.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// What follows from these records was said.
    through: u64,
    /// So many there are.
    appended: u64,
}

/// Runs `story` for each number of steps after which it stops, and sees what is recovered.
fn stopped_at_every_step(
    distance: Distance,
    prepared: &SimulatedDisk,
    story: impl Fn(&SimulatedDisk, &mut Told) -> Option<()>,
) {
    let mut steps = 0;
    loop {
        let disk = prepared.twin();
        let stops_after = Some(disk.changes() + steps);
        disk.set_faults(Faults { stops_after, ..Faults::default() });
        let mut told = Told::default();
        let is_over = story(&disk, &mut told).is_some();
        let crashes: u64 = if distance == Distance::Machine { 4 } else { 1 };
        for seed in 0..crashes {
            let disk = disk.twin();
            let mut expected = expected();
            if distance == Distance::Machine {
                disk.cut_power(&mut Random::new(seed));
                expected.place.boot = Some(4);
            }
            let at = format!("{distance:?}, {steps} steps, seed {seed}, {told:?}");
            match recover(&disk, &expected) {
                Recovered::Whole(whole) => {
                    let there = replayed(&disk, &whole);
                    assert!(there >= told.through, "{at}: {there} are there");
                    assert!(there <= told.appended, "{at}: {there} are there");
                    let run = Run { place: expected.place, ..run(9, distance) };
                    let mut journal = Journal::new(disk.clone(), run, BOUNDS);
                    journal.go_on(&whole).unwrap();
                    write(&mut journal, 3);
                    let Recovered::Whole(whole) = recover(&disk, &expected) else {
                        panic!("{at}: what went on is not there")
                    };
                    assert_eq!(replayed(&disk, &whole), there + 3, "{at}");
                }
                Recovered::Fresh => assert_eq!(told.through, 0, "{at}"),
                Recovered::Void(void) => panic!("{at}: {void}"),
            }
        }
        if is_over {
            return;
        }
        steps += 1;
        assert!(steps < 2_000, "it has no end");
    }
}

#[test]
fn j6_a_crash_at_any_step_of_a_rotation_loses_nothing_that_was_said() {
    for distance in DISTANCES {
        stopped_at_every_step(distance, &SimulatedDisk::default(), |disk, told| {
            let mut journal = Journal::new(disk.clone(), run(1, distance), BOUNDS);
            journal.begin(None).ok()?;
            for number in 1..=40 {
                told.appended = append(&mut journal, 1);
                told.through = journal.flush().ok()?;
                // Some of what is written is written meanwhile.
                if number % 4 == 0
                    && let Some(task) = journal.writer().due()
                {
                    let made = compact(disk, &task, Story::restore).ok()?;
                    journal.writer().checkpointed(&made);
                }
            }
            Some(())
        });
    }
}

#[test]
fn j5_a_crash_at_any_step_of_beginning_anew_loses_nothing_that_was_said() {
    for distance in DISTANCES {
        let prepared = SimulatedDisk::default();
        write(&mut begun(&prepared, 1, distance), 8);
        let whole = recovered(&prepared).unwrap();
        let mut journal = Journal::new(prepared.clone(), run(2, distance), BOUNDS);
        journal.go_on(&whole).unwrap();
        write(&mut journal, 2);
        stopped_at_every_step(distance, &prepared, |disk, told| {
            (told.through, told.appended) = (10, 10);
            let mut writer = Writer::new(disk.clone(), run(3, distance), BOUNDS);
            writer.begin(11, Some(&mut checkpoint_of(10))).ok()
        });
    }
}

#[test]
fn j6_a_crash_at_any_step_of_beginning_anew_while_it_goes_on_loses_nothing_that_was_said() {
    for distance in DISTANCES {
        let prepared = SimulatedDisk::default();
        write(&mut begun(&prepared, 1, distance), 8);
        let whole = recovered(&prepared).unwrap();
        stopped_at_every_step(distance, &prepared, |disk, told| {
            (told.through, told.appended) = (8, 8);
            let mut journal = Journal::new(disk.clone(), run(2, distance), BOUNDS);
            journal.go_on(&whole).ok()?;
            append(&mut journal, 2);
            told.appended = 10;
            journal.flush().ok()?;
            told.through = 10;
            journal.writer().begin(11, Some(&mut checkpoint_of(10))).ok()
        });
    }
}

#[test]
fn j6_a_journal_that_is_behind_says_so_in_time_and_goes_on_with_a_checkpoint_of_now() {
    for distance in DISTANCES {
        let disk = SimulatedDisk::default();
        let mut journal = begun(&disk, 1, distance);
        let mut written = 0;
        for _ in 0..3 {
            while !journal.writer().is_behind() {
                // Nobody makes the checkpoint that is due.
                write(&mut journal, 1);
                written += 1;
            }
            let next = written + 1;
            journal.writer().begin(next, Some(&mut checkpoint_of(written))).unwrap();
            assert!(!journal.writer().is_behind());
            assert_eq!(count(&disk), written);
        }
    }
}

#[test]
fn j2_a_crash_at_any_step_of_a_start_loses_nothing_that_was_said() {
    for distance in DISTANCES {
        let prepared = SimulatedDisk::default();
        write(&mut begun(&prepared, 1, distance), 8);
        stopped_at_every_step(distance, &prepared, |disk, told| {
            (told.through, told.appended) = (8, 8);
            let whole = recovered(disk).unwrap();
            let mut journal = Journal::new(disk.clone(), run(2, distance), BOUNDS);
            journal.go_on(&whole).ok()
        });
    }
}

#[test]
fn j6_many_starts_in_a_row_have_a_checkpoint_made() {
    for distance in DISTANCES {
        let disk = SimulatedDisk::default();
        let bounds = Bounds::default();
        let mut journal = Journal::new(disk.clone(), run(1, distance), bounds);
        journal.begin(None).unwrap();
        let mut compacted = 0;
        for id in 2..80 {
            compacted += write_and_compact(&mut journal, &disk, 1);
            let whole = recovered(&disk).unwrap();
            assert_eq!(replayed(&disk, &whole), u64::try_from(id).unwrap() - 1);
            assert!(!whole.is_long(bounds));
            journal = Journal::new(disk.clone(), run(id, distance), bounds);
            journal.go_on(&whole).unwrap();
        }
        assert!(compacted > 3);
    }
}

#[test]
fn a_checkpoint_for_a_journal_that_was_given_up_harms_no_other() {
    let disk = SimulatedDisk::default();
    let mut journal = begun(&disk, 1, Distance::Process);
    let (task, due) = until_due(&mut journal);
    let made = compact(&disk.twin(), &task, Story::restore).unwrap();
    disk.set_faults(Faults { writes_fail: true, ..Faults::default() });
    append(&mut journal, 1);
    journal.flush().unwrap_err();
    disk.set_faults(Faults::default());
    journal.begin(Some(&mut checkpoint_of(due + 1))).unwrap();
    write(&mut journal, 1);
    assert!(compact(&disk, &task, Story::restore).is_err());
    journal.writer().checkpointed(&made);
    write(&mut journal, 1);
    assert_eq!(count(&disk), due + 3);
}
