//! Rule J2: ends that are cut short, and bits that flipped.

use super::*;
use crate::testing::fuzz::Random;

/// A journal of one segment with so many records, each in a write of its own.
fn small(distance: Distance, records: u64) -> SimulatedDisk {
    let disk = SimulatedDisk::default();
    let mut journal = Journal::new(disk.clone(), run(1, distance), Bounds::default());
    journal.begin(None).unwrap();
    write(&mut journal, records);
    disk
}

const FIRST: &str = "00000001.log";

/// After a power cut: what was not synced may be gone.
fn after_a_power_cut() -> Expected {
    Expected { place: Place { boot: Some(4), ..HERE }, ..expected() }
}

#[test]
fn what_was_written_is_recovered_with_all_that_belongs_to_it() {
    for distance in DISTANCES {
        let disk = small(distance, 12);
        let whole = recovered(&disk).unwrap();
        assert_eq!(replayed(&disk, &whole), 12);
        assert_eq!((whole.next(), whole.records(), whole.notes.len()), (13, 12, 0));
        let Header { rules, place, run: id, settings, first, .. } = whole.first().clone();
        assert_eq!((rules, place, id, first), (RULES, HERE, run(1, distance).id, 1));
        assert_eq!((settings.as_slice(), whole.epochs), (b"settings".as_slice(), EPOCHS));
        assert_eq!(whole.last, *whole.first());
    }
}

#[test]
fn nothing_is_fresh() {
    let recovered = recover(&SimulatedDisk::default(), &expected());
    assert!(matches!(recovered, Recovered::Fresh));
}

#[test]
fn j2_a_journal_cut_at_any_byte_is_whole_up_to_there_or_void() {
    for distance in DISTANCES {
        let disk = small(distance, 6);
        let bytes = disk.read(FIRST);
        // Where records end, by what is recovered of files that end there.
        let mut counts = Vec::new();
        for length in 0..=bytes.len() {
            disk.damage(FIRST, &bytes[..length]);
            match recovered(&disk) {
                Ok(whole) => {
                    let records = replayed(&disk, &whole);
                    assert!(whole.chain.last().end <= length as u64);
                    let dropped = whole.chain.last().end < length as u64;
                    assert_eq!(whole.notes.len(), usize::from(dropped), "{length}");
                    counts.push(records);
                }
                Err(void) => assert_eq!(void, Void::Header { segment: 1 }, "{length}"),
            }
        }
        assert!(counts.is_sorted());
        counts.dedup();
        assert_eq!(counts, (0..=6).collect::<Vec<_>>());
    }
}

#[test]
fn j2_a_journal_with_a_flipped_bit_anywhere_is_void() {
    for distance in DISTANCES {
        let disk = small(distance, 6);
        let bytes = disk.read(FIRST);
        for at in 0..bytes.len() {
            disk.damage(FIRST, &flipped(&bytes, at));
            let void = void(&disk);
            match at {
                8..12 => assert!(matches!(void, Void::Format { .. }), "{at}: {void:?}"),
                _ => assert!(
                    matches!(void, Void::Header { .. } | Void::Record { .. }),
                    "{at}: {void:?}"
                ),
            }
        }
    }
}

#[test]
fn j2_a_flipped_bit_in_a_length_does_not_pass_for_a_short_end() {
    let disk = small(Distance::Process, 6);
    let bytes = disk.read(FIRST);
    let end = recovered(&disk).unwrap().chain.header.to_bytes().len();
    // The length of the first record, in its third byte: as if it went past the end.
    let mut longer = bytes.clone();
    longer[end + 2] ^= 1;
    disk.damage(FIRST, &longer);
    assert_eq!(void(&disk), Void::Record { segment: 1, number: 1 });
}

#[test]
fn j2_a_record_that_stands_twice_or_in_another_place_is_not_believed() {
    let disk = small(Distance::Process, 0);
    let begin = disk.read(FIRST);
    let mut tail = Tail::new(&run(1, Distance::Process), 1);
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for number in 1..=3 {
        tail.append(&record(number));
        frames.push(tail.take().bytes);
    }
    let put = |order: &[usize]| {
        let frames: Vec<u8> = order.iter().flat_map(|&at| frames[at].clone()).collect();
        disk.damage(FIRST, &[begin.clone(), frames].concat());
        recovered(&disk).map(|whole| replayed(&disk, &whole))
    };
    assert_eq!(put(&[0, 1, 2]), Ok(3));
    assert_eq!(put(&[0, 0, 1]), Err(Void::Record { segment: 1, number: 2 }));
    assert_eq!(put(&[0, 2, 1]), Err(Void::Record { segment: 1, number: 2 }));
    assert_eq!(put(&[1]), Err(Void::Record { segment: 1, number: 1 }));
}

#[test]
fn j2_a_record_of_another_run_does_not_verify() {
    let disk = small(Distance::Process, 2);
    let mut bytes = disk.read(FIRST);
    let mut tail = Tail::new(&run(2, Distance::Process), 3);
    tail.append(b"of a file that had this place before");
    bytes.extend(tail.take().bytes);
    disk.damage(FIRST, &bytes);
    assert_eq!(void(&disk), Void::Record { segment: 1, number: 3 });
}

#[test]
fn j2_after_a_power_cut_damage_before_a_mark_is_seen_and_behind_the_last_mark_dropped() {
    let disk = small(Distance::Machine, 6);
    let bytes = disk.read(FIRST);
    let header = recovered(&disk).unwrap().chain.header.to_bytes().len();
    // The last batch begins with a mark that all before it is synced.
    let last = bytes.len() - record(6).len() - frame::HEAD_BYTES - tail::MARK_BYTES;
    for at in header..bytes.len() {
        let disk = disk.twin();
        disk.damage(FIRST, &flipped(&bytes, at));
        match recover(&disk, &after_a_power_cut()) {
            Recovered::Void(Void::Synced { segment: 1, number }) => {
                assert!(at < last, "{at}: record {number} was not called synced");
            }
            Recovered::Whole(whole) => {
                assert!(at >= last, "{at}: a synced record is missing");
                assert_eq!(replayed(&disk, &whole), 5, "{at}");
                assert!(matches!(whole.notes[..], [Note::Dropped { number: 6, .. }]), "{at}");
            }
            other => panic!("{at}: {other:?}"),
        }
    }
}

#[test]
fn j2_a_mark_in_a_record_is_none() {
    let disk = small(Distance::Machine, 2);
    let bytes = disk.read(FIRST);
    let mark = bytes[bytes.len() - record(2).len() - frame::HEAD_BYTES - tail::MARK_BYTES..]
        [..tail::MARK_BYTES]
        .to_vec();
    // A client that knew a mark, and chose a name that looks like it.
    let mut tail = Tail::new(&run(1, Distance::Machine), 3);
    tail.append(b"cut short");
    tail.append(&mark);
    let behind = tail.take().bytes.split_off(tail::MARK_BYTES);
    let damaged = [bytes, flipped(&behind, 30)].concat();
    disk.damage(FIRST, &damaged);
    let Recovered::Whole(whole) = recover(&disk, &after_a_power_cut()) else {
        panic!("what stands in a record says nothing about the disk")
    };
    assert_eq!(replayed(&disk, &whole), 2);
}

#[test]
fn j2_what_was_dropped_is_gone_for_good_when_the_next_run_goes_on() {
    for distance in DISTANCES {
        let disk = small(distance, 4);
        let bytes = disk.read(FIRST);
        disk.damage(FIRST, &bytes[..bytes.len() - 1]);
        let whole = recovered(&disk).unwrap();
        assert_eq!(replayed(&disk, &whole), 3);
        let mut journal = Journal::new(disk.clone(), run(2, distance), BOUNDS);
        journal.go_on(&whole).unwrap();
        write(&mut journal, 2);
        let whole = recovered(&disk).unwrap();
        assert_eq!((replayed(&disk, &whole), whole.notes.len()), (5, 0));
        assert_eq!(whole.last.run, run(2, distance).id);
    }
}

#[test]
fn j2_what_was_replayed_survives_a_power_cut_before_the_next_run_says_anything() {
    for seed in 0..200 {
        let disk = small(Distance::Process, 9);
        let whole = recovered(&disk).unwrap();
        let mut journal = Journal::new(disk.clone(), run(2, Distance::Machine), BOUNDS);
        journal.go_on(&whole).unwrap();
        disk.cut_power(&mut Random::new(seed));
        let Recovered::Whole(whole) = recover(&disk, &after_a_power_cut()) else {
            panic!("seed {seed}: what was replayed was not made durable")
        };
        assert_eq!(replayed(&disk, &whole), 9, "seed {seed}");
    }
}

#[test]
fn no_bytes_make_a_recovery_panic_or_take_memory_for_what_is_not_there() {
    let disk = small(Distance::Machine, 6);
    let bytes = disk.read(FIRST);
    for seed in 0..2_000 {
        let mut dice = Random::new(seed);
        let mut damaged = bytes.clone();
        for _ in 0..=dice.below(4) {
            let (from, to) = (dice.below(damaged.len()), dice.below(damaged.len()));
            let piece = dice.piece(&bytes, 200).to_vec();
            damaged.splice(from.min(to)..from.max(to), piece);
            damaged.push(0);
        }
        disk.damage(FIRST, &damaged);
        let taken = allocation_counter::measure(|| {
            for expected in [expected(), after_a_power_cut()] {
                if let Recovered::Whole(whole) = recover(&disk, &expected) {
                    replayed(&disk, &whole);
                }
            }
        });
        assert!(taken.bytes_max < 256 * 1024, "seed {seed}: {} bytes", taken.bytes_max);
    }
}

/// The bytes of a segment and of a checkpoint, as hexadecimal digits.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/journal/tests/format_1.hex");

#[test]
fn the_bytes_of_a_format_stay_what_they_are() {
    let disk = SimulatedDisk::default();
    let mut journal = begun(&disk, 1, Distance::Machine);
    write(&mut journal, 2);
    journal.begin(Some(&mut checkpoint_of(2))).unwrap();
    append(&mut journal, 1);
    journal.epochs(Epochs { ordered: 8, confirmed: 7 });
    journal.flush().unwrap();
    let mut golden = String::new();
    for name in ["00000002.log", "00000002.checkpoint"] {
        golden.extend([name, "\n"]);
        for line in disk.read(name).chunks(32) {
            let digits: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            golden.extend([digits.concat().as_str(), "\n"]);
        }
    }
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        std::fs::write(GOLDEN, &golden).unwrap();
    }
    let there = std::fs::read_to_string(GOLDEN).unwrap_or_default();
    assert_eq!(there, golden, "another format has another number");
}
