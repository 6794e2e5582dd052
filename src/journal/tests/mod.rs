//! Recovery returns the written records, or nothing. Tests are named after the rules of
//! docs/rules.md.

mod copies;
mod cut;
mod failing;
mod model;
mod real;
mod rotation;

use std::io::{self, Read, Write};

use super::simulated::SimulatedDisk;
use super::*;

/// What happened, all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Story(Vec<(u64, Vec<u8>)>);

impl Machine for Story {
    fn apply(&mut self, number: u64, record: &[u8]) -> Result<(), String> {
        self.0.push((number, record.to_vec()));
        Ok(())
    }

    fn checkpoint(&self, to: &mut dyn Write) -> io::Result<()> {
        for (number, record) in &self.0 {
            to.write_all(&number.to_le_bytes())?;
            to.write_all(&(record.len() as u64).to_le_bytes())?;
            to.write_all(record)?;
        }
        Ok(())
    }
}

impl Story {
    /// That of the first so many records.
    fn of(records: u64) -> Self {
        Self((1..=records).map(|number| (number, record(number))).collect())
    }

    fn restore(_: &Header, checkpoint: Option<&mut dyn Read>) -> Result<Self, String> {
        let mut bytes = Vec::new();
        if let Some(checkpoint) = checkpoint {
            checkpoint.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        }
        let (mut rest, mut story) = (bytes.as_slice(), Self::default());
        let number = |rest: &mut &[u8]| -> Option<u64> {
            let (number, behind) = rest.split_first_chunk()?;
            *rest = behind;
            Some(u64::from_le_bytes(*number))
        };
        while let Some(first) = number(&mut rest) {
            let length = number(&mut rest).and_then(|length| usize::try_from(length).ok());
            let (record, behind) =
                length.and_then(|length| rest.split_at_checked(length)).ok_or("cut")?;
            story.0.push((first, record.to_vec()));
            rest = behind;
        }
        Ok(story)
    }
}

/// The record of this number: it is a function of it.
fn record(number: u64) -> Vec<u8> {
    let length = usize::try_from(number * 7 % 40).unwrap();
    number.to_le_bytes().into_iter().cycle().take(length).collect()
}

const HERE: Place = Place { boot: Some(3), machine: Some(5) };
const RULES: u32 = 9;
const EPOCHS: Epochs = Epochs { ordered: 7, confirmed: 7 };
const DISTANCES: [Distance; 2] = [Distance::Process, Distance::Machine];
/// Small, so that little is long.
const BOUNDS: Bounds = Bounds { floor_bytes: 600, checkpoints: 2 };

fn run(id: u128, distance: Distance) -> Run {
    let settings = b"settings".to_vec();
    Run { id: id << 64 | id, place: HERE, rules: RULES, distance, epochs: EPOCHS, settings }
}

fn expected() -> Expected {
    Expected { place: HERE, rules: RULES, epoch: 7 }
}

/// A run, as tests see it.
type SimulatedJournal = Journal<SimulatedDisk>;

/// Begins one from nothing.
fn begun(disk: &SimulatedDisk, id: u128, distance: Distance) -> SimulatedJournal {
    let mut journal = Journal::new(disk.clone(), run(id, distance), BOUNDS);
    journal.begin(None).unwrap();
    journal
}

/// Appends the next records, so many, without writing them.
fn append(journal: &mut SimulatedJournal, records: u64) -> u64 {
    let mut last = 0;
    for _ in 0..records {
        last = journal.tail.next();
        assert_eq!(journal.append(&record(last)), last);
    }
    last
}

/// Appends and writes so many, each in a write of its own, and makes no checkpoint.
fn write(journal: &mut SimulatedJournal, records: u64) {
    for _ in 0..records {
        let last = append(journal, 1);
        assert_eq!(journal.flush().unwrap(), last);
    }
}

/// Writes so many, and makes all checkpoints that are due.
fn write_and_compact(journal: &mut SimulatedJournal, disk: &SimulatedDisk, records: u64) -> u64 {
    let mut compacted = 0;
    for _ in 0..records {
        append(journal, 1);
        journal.flush().unwrap();
        if let Some(task) = journal.writer().due() {
            let made = compact(disk, &task, Story::restore).unwrap();
            journal.writer().checkpointed(&made);
            compacted += 1;
        }
    }
    compacted
}

/// What is recovered, if anything is.
fn recovered(disk: &SimulatedDisk) -> Result<Box<Whole>, Void> {
    match recover(disk, &expected()) {
        Recovered::Whole(whole) => Ok(whole),
        Recovered::Void(void) => Err(void),
        Recovered::Fresh => panic!("nothing is there"),
    }
}

/// That the first records are there, and nothing else. Says how many.
fn replayed(disk: &SimulatedDisk, whole: &Whole) -> u64 {
    let story = whole.replay(disk, Story::restore).unwrap();
    let records = whole.next() - 1;
    assert_eq!(story, Story::of(records));
    records
}

/// How many records are recovered.
fn count(disk: &SimulatedDisk) -> u64 {
    replayed(disk, &recovered(disk).unwrap())
}

/// Why nothing is recovered.
fn void(disk: &SimulatedDisk) -> Void {
    recovered(disk).unwrap_err()
}

/// A checkpoint of the first so many records.
fn checkpoint_of(records: u64) -> impl FnMut(&mut dyn Write) -> io::Result<()> {
    move |to| Story::of(records).checkpoint(to)
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1 << (at % 8);
    bytes
}
