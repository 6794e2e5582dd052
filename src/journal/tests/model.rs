//! Rules J1 and J2, by the thousand: what was said is always recovered, and what is recovered
//! always is the beginning of what happened.

use super::simulated::Faults;
use super::*;
use crate::testing::fuzz::{Campaign, Random};

/// Runs after each other on one disk, and what a perfect memory knows of them.
struct Model {
    disk: SimulatedDisk,
    dice: Random,
    distance: Distance,
    journal: SimulatedJournal,
    /// The last record from which anything was said.
    said: u64,
    /// The last record.
    appended: u64,
    /// Of the run that is under way.
    id: u128,
    /// The start of the machine.
    boot: u128,
}

impl Model {
    fn new(seed: u64, distance: Distance) -> Self {
        let disk = SimulatedDisk::default();
        let dice = Random::new(seed);
        let journal = begun(&disk, 1, distance);
        Self { disk, dice, distance, journal, said: 0, appended: 0, id: 1, boot: 3 }
    }

    fn expected(&self) -> Expected {
        Expected { place: Place { boot: Some(self.boot), ..HERE }, ..expected() }
    }

    fn flush(&mut self) -> Option<()> {
        if self.journal.writer().bytes() > BOUNDS.floor_bytes * 2 {
            // Whoever never does gives the journal up.
            self.compact()?;
        }
        self.said = self.journal.flush().ok()?;
        assert_eq!(self.said, self.appended);
        Some(())
    }

    fn compact(&mut self) -> Option<()> {
        let Some(task) = self.journal.writer().due() else { return Some(()) };
        let made = compact(&self.disk, &task, Story::restore).ok()?;
        self.journal.writer().checkpointed(&made);
        Some(())
    }

    fn begin_anew(&mut self) -> Option<()> {
        self.journal.begin(Some(&mut checkpoint_of(self.appended))).ok()?;
        self.said = self.appended;
        Some(())
    }

    fn step(&mut self) {
        match self.dice.below(14) {
            0..=4 => {
                let records = 1 + self.dice.next() % 4;
                self.appended = append(&mut self.journal, records);
            }
            5..=8 => self.flush().unwrap(),
            9 | 10 => self.compact().unwrap(),
            11 if self.dice.once_in(4) => self.begin_anew().unwrap(),
            11 => self.journal.epochs(EPOCHS),
            _ => self.crash(),
        }
    }

    fn crash(&mut self) {
        // In the middle of something, or not.
        let stops_after = Some(self.disk.changes() + self.dice.next() % 8);
        self.disk.set_faults(Faults { stops_after, ..Faults::default() });
        let _ = match self.dice.below(4) {
            0 => self.flush(),
            1 => self.flush().and_then(|()| self.compact()),
            2 => self.begin_anew(),
            _ => None,
        };
        self.disk.set_faults(Faults::default());
        if self.distance == Distance::Machine && self.dice.once_in(2) {
            self.disk.cut_power(&mut self.dice);
            self.boot += 1;
        }
        let whole = match recover(&self.disk, &self.expected()) {
            Recovered::Whole(whole) => whole,
            other => panic!("said {}, appended {}: {other:?}", self.said, self.appended),
        };
        let there = replayed(&self.disk, &whole);
        assert!(there >= self.said, "{there} are there, {} were said", self.said);
        assert!(there <= self.appended, "{there} are there, {} happened", self.appended);
        self.id += 1;
        let place = self.expected().place;
        let run = Run { place, ..run(self.id, self.distance) };
        self.journal = Journal::new(self.disk.clone(), run, BOUNDS);
        (self.said, self.appended) = (there, there);
        if whole.is_long(BOUNDS) {
            self.journal.tail = Tail::new(&self.journal.run, there + 1);
            self.begin_anew().unwrap();
        } else {
            self.journal.go_on(&whole).unwrap();
        }
    }
}

#[test]
fn j1_what_was_said_is_recovered_and_what_is_recovered_is_the_beginning_of_what_happened() {
    // More of them: JOURNAL_RUNS or JOURNAL_MINUTES; the one that failed: JOURNAL_SEED.
    let name = "j1_what_was_said_is_recovered";
    let campaign = Campaign { name, prefix: "JOURNAL", runs: "RUNS" };
    campaign.run(60, |seed| {
        for distance in DISTANCES {
            let mut model = Model::new(seed, distance);
            for _ in 0..80 {
                model.step();
            }
        }
    });
}
