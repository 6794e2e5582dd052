//! Rules J2, J3, J4, J7, J8 and J9: what is whole and yet not ours, or not all.

use super::*;

/// A journal of three segments: 1, and 2, which names 3, the last.
fn three(distance: Distance) -> SimulatedDisk {
    let disk = SimulatedDisk::default();
    let mut journal = Journal::new(disk.clone(), run(1, distance), Bounds::default());
    journal.begin(None).unwrap();
    write(&mut journal, 3);
    for id in 2..=3 {
        let whole = recovered(&disk).unwrap();
        let mut journal = Journal::new(disk.clone(), run(id, distance), Bounds::default());
        journal.go_on(&whole).unwrap();
        write(&mut journal, 3);
    }
    assert_eq!(count(&disk), 9);
    disk
}

fn name(segment: u64) -> String {
    header::log_name(segment)
}

fn recovered_by(disk: &SimulatedDisk, expected: Expected) -> Void {
    match recover(disk, &expected) {
        Recovered::Void(void) => void,
        other => panic!("{other:?}"),
    }
}

#[test]
fn j2_a_missing_segment_makes_it_void() {
    for distance in DISTANCES {
        for segment in 1..=3 {
            let disk = three(distance);
            disk.remove(&name(segment)).unwrap();
            assert_eq!(void(&disk), Void::SegmentMissing { segment });
        }
        let disk = three(distance);
        disk.remove(&name(2)).unwrap();
        disk.remove(&name(3)).unwrap();
        assert_eq!(void(&disk), Void::SegmentMissing { segment: 2 });
    }
}

#[test]
fn j2_swapped_segments_are_void() {
    let disk = three(Distance::Process);
    disk.rename(&name(2), "aside").unwrap();
    disk.rename(&name(3), &name(2)).unwrap();
    disk.rename("aside", &name(3)).unwrap();
    assert_eq!(void(&disk), Void::Misnamed { segment: 3, found: 2 });
    // The content alone, in the files of the other.
    let disk = three(Distance::Process);
    let (second, third) = (disk.read(&name(2)), disk.read(&name(3)));
    disk.damage(&name(2), &third);
    disk.damage(&name(3), &second);
    assert_eq!(void(&disk), Void::Misnamed { segment: 3, found: 2 });
}

#[test]
fn j2_a_closed_segment_is_whole_to_its_last_byte() {
    let disk = three(Distance::Process);
    for segment in 1..=2 {
        let bytes = disk.read(&name(segment));
        for length in 0..bytes.len() {
            disk.damage(&name(segment), &bytes[..length]);
            assert!(recovered(&disk).is_err(), "segment {segment} cut at {length}");
        }
        disk.damage(&name(segment), &[bytes.clone(), vec![0]].concat());
        assert!(recovered(&disk).is_err(), "segment {segment} with another byte");
        for at in 0..bytes.len() {
            disk.damage(&name(segment), &flipped(&bytes, at));
            assert!(recovered(&disk).is_err(), "segment {segment} flipped at {at}");
            let elsewhen = Place { boot: Some(4), ..HERE };
            let expected = Expected { place: elsewhen, ..expected() };
            assert!(matches!(recover(&disk, &expected), Recovered::Void(_)), "{at}");
        }
        disk.damage(&name(segment), &bytes);
    }
    assert_eq!(count(&disk), 9);
}

#[test]
fn j2_a_journal_of_the_process_is_void_after_a_restart_of_the_machine() {
    let (process, machine) = (three(Distance::Process), three(Distance::Machine));
    let restarted = Expected { place: Place { boot: Some(4), ..HERE }, ..expected() };
    assert_eq!(recovered_by(&process, restarted), Void::Restarted);
    assert!(matches!(recover(&machine, &restarted), Recovered::Whole(_)));
    let unknown = Expected { place: Place { boot: None, ..HERE }, ..expected() };
    assert_eq!(recovered_by(&process, unknown), Void::BootUnknown);
    assert!(matches!(recover(&machine, &unknown), Recovered::Whole(_)));
}

#[test]
fn j2_a_journal_whose_end_was_kept_for_the_process_is_void_after_a_restart() {
    let disk = three(Distance::Machine);
    let whole = recovered(&disk).unwrap();
    let mut journal = Journal::new(disk.clone(), run(4, Distance::Process), BOUNDS);
    journal.go_on(&whole).unwrap();
    write(&mut journal, 1);
    let restarted = Expected { place: Place { boot: Some(4), ..HERE }, ..expected() };
    assert_eq!(recovered_by(&disk, restarted), Void::Restarted);
    assert_eq!(count(&disk), 10);
}

#[test]
fn j4_each_run_writes_a_segment_of_its_own_and_says_where() {
    let disk = three(Distance::Machine);
    let elsewhen = Place { boot: Some(4), ..HERE };
    let Recovered::Whole(whole) = recover(&disk, &Expected { place: elsewhen, ..expected() })
    else {
        panic!("all of it was synced")
    };
    assert_eq!((whole.last.place, whole.last.run), (HERE, run(3, Distance::Machine).id));
    let run = Run { place: elsewhen, ..run(4, Distance::Machine) };
    let mut journal = Journal::new(disk.clone(), run.clone(), Bounds::default());
    journal.go_on(&whole).unwrap();
    let Recovered::Whole(whole) = recover(&disk, &Expected { place: elsewhen, ..expected() })
    else {
        panic!("nothing happened")
    };
    assert_eq!((whole.last.place, whole.last.run, whole.last.first), (elsewhen, run.id, 10));
}

#[test]
fn j9_a_journal_of_another_machine_is_void() {
    for distance in DISTANCES {
        for machine in [Some(6), None] {
            let place = Place { machine, ..HERE };
            let expected = Expected { place, ..expected() };
            assert_eq!(recovered_by(&three(distance), expected), Void::OtherMachine);
        }
    }
}

#[test]
fn j9_a_container_goes_on_on_its_host_and_not_on_another() {
    // Its boot id is the host's, and it has no machine id.
    let inside = Place { machine: None, ..HERE };
    let write_in = |distance| {
        let disk = SimulatedDisk::default();
        let run = Run { place: inside, ..run(1, distance) };
        let mut journal = Journal::new(disk.clone(), run, BOUNDS);
        journal.begin(None).unwrap();
        write(&mut journal, 3);
        disk
    };
    for distance in DISTANCES {
        let disk = write_in(distance);
        let again = Expected { place: inside, ..expected() };
        let Recovered::Whole(whole) = recover(&disk, &again) else { panic!("{distance:?}") };
        assert_eq!(replayed(&disk, &whole), 3);
        // Another that was given a machine id since.
        assert_eq!(recovered_by(&disk, expected()), Void::OtherMachine);
        // On another host only a copy can be, unless the disk itself was moved.
        let elsewhere = Expected { place: Place { boot: Some(4), ..inside }, ..expected() };
        let found = recovered_by(&disk.copied(), elsewhere);
        assert!(matches!(found, Void::Copied { .. } | Void::Restarted), "{found:?}");
    }
    let elsewhere = Expected { place: Place { boot: Some(4), ..inside }, ..expected() };
    assert_eq!(recovered_by(&write_in(Distance::Process), elsewhere), Void::Restarted);
    // With its disk, all that was synced is there.
    assert!(matches!(recover(&write_in(Distance::Machine), &elsewhere), Recovered::Whole(_)));
}

#[test]
fn j9_a_block_snapshot_is_told_by_the_epoch_if_the_state_is_newer() {
    for distance in DISTANCES {
        let disk = three(distance);
        // A snapshot of all blocks has the same files, born at the same time.
        let snapshot = disk.twin();
        assert_eq!(count(&snapshot), 9);
        let later = Expected { epoch: 8, ..expected() };
        assert_eq!(recovered_by(&snapshot, later), Void::OldJournal { found: 7, expected: 8 });
    }
}

#[test]
fn j3_a_journal_of_other_rules_is_void() {
    let known = RULES + 1;
    let void = recovered_by(&three(Distance::Process), Expected { rules: known, ..expected() });
    assert_eq!(void, Void::Rules { segment: 3, found: RULES, known });
}

#[test]
fn j2_a_journal_of_a_later_version_is_void_and_said_to_be() {
    let disk = three(Distance::Process);
    let mut bytes = disk.read(&name(3));
    bytes[8..12].copy_from_slice(&(FORMAT + 1).to_le_bytes());
    disk.damage(&name(3), &bytes);
    let says = void(&disk).to_string();
    assert_eq!(
        says,
        "00000003.log was written by a later version: it has format 2, this version knows 1"
    );
}

#[test]
fn j2_an_old_copy_is_told_by_the_epoch_that_the_state_has() {
    for distance in DISTANCES {
        let disk = SimulatedDisk::default();
        let bounds = Bounds { floor_bytes: 1_000, ..BOUNDS };
        let mut journal = Journal::new(disk.clone(), run(1, distance), bounds);
        journal.begin(None).unwrap();
        write_and_compact(&mut journal, &disk, 3);
        let old = disk.twin();
        journal.epochs(Epochs { ordered: 8, confirmed: 7 });
        write_and_compact(&mut journal, &disk, 2);
        let at = |epoch| Expected { epoch, ..expected() };
        // The order is on its way: either is right.
        for epoch in [7, 8] {
            assert!(matches!(recover(&disk, &at(epoch)), Recovered::Whole(_)), "{epoch}");
        }
        assert_eq!(recovered_by(&disk, at(9)), Void::OldJournal { found: 8, expected: 9 });
        assert_eq!(recovered_by(&disk, at(6)), Void::OldState { found: 7, expected: 6 });
        assert_eq!(recovered_by(&old, at(8)), Void::OldJournal { found: 7, expected: 8 });
        journal.epochs(Epochs { ordered: 8, confirmed: 8 });
        journal.flush().unwrap();
        assert_eq!(recovered_by(&disk, at(7)), Void::OldState { found: 8, expected: 7 });
        // Later segments know it as well.
        write_and_compact(&mut journal, &disk, 60);
        let Recovered::Whole(whole) = recover(&disk, &at(8)) else { panic!("it is whole") };
        assert_eq!(whole.epochs, Epochs { ordered: 8, confirmed: 8 });
    }
}

#[test]
fn j9_a_copy_of_the_directory_is_void() {
    let disk = three(Distance::Machine);
    assert_eq!(void(&disk.copied()), Void::Copied { segment: 3 });
}

#[test]
fn j9_a_journal_with_a_hard_link_is_void() {
    for segment in 1..=3 {
        let disk = three(Distance::Process);
        disk.link_elsewhere(&name(segment));
        assert_eq!(void(&disk), Void::Linked { segment, links: 2 });
    }
}

#[test]
fn j7_a_journal_that_others_can_write_is_void() {
    for segment in 1..=3 {
        let disk = three(Distance::Process);
        disk.expose(&name(segment));
        assert_eq!(void(&disk), Void::Exposed { file: name(segment) });
    }
}

#[test]
fn a_file_that_is_none_of_ours_is_in_nobodys_way() {
    let disk = three(Distance::Process);
    for other in ["readme", "1.log", "00000004.logs", "99999999999999999999.log", "lost+found"] {
        disk.create(other).unwrap();
    }
    assert_eq!(count(&disk), 9);
}

#[test]
fn reasons_are_sentences() {
    let void = Void::Record { segment: 3, number: 48_211 };
    assert_eq!(void.to_string(), "record 48,211 does not verify (segment 3)");
    assert_eq!(Void::SegmentMissing { segment: 3 }.to_string(), "segment 3 is missing");
    let void = Void::OldJournal { found: 7, expected: 9 };
    assert_eq!(
        void.to_string(),
        "the journal ends with epoch 7, the state with 9: it is an old copy"
    );
    assert_eq!(error::grouped(1_000_000), "1,000,000");
    assert_eq!(error::grouped(999), "999");
}
