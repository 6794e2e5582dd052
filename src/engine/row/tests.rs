//! A row against a map, and what it costs.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::arena::{ClaimKey, Links, looks};
use super::*;

/// More than a walk between two marks ever looks at: each thing on it, and its links.
const FEW: u64 = 3 * STRETCH_LEN_MAX as u64;

struct Bead(u64, Links<ClaimKey>);

impl Linked<ClaimKey> for Bead {
    fn links(&self) -> &Links<ClaimKey> {
        &self.1
    }
    fn links_mut(&mut self) -> &mut Links<ClaimKey> {
        &mut self.1
    }
}

/// A row of numbers, and the map that it should be.
struct Beads {
    arena: Arena<ClaimKey, Bead>,
    row: Row<u64, ClaimKey>,
    model: BTreeMap<u64, ClaimKey>,
}

impl Beads {
    fn new() -> Self {
        Self { arena: Arena::new(), row: Row::EMPTY, model: BTreeMap::new() }
    }

    fn of(numbers: impl IntoIterator<Item = u64>) -> Self {
        let mut beads = Self::new();
        beads.add_all(numbers);
        beads
    }

    fn add_all(&mut self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.add(number);
        }
    }

    fn remove_all(&mut self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.remove(number);
        }
    }

    fn add(&mut self, number: u64) {
        if !self.model.contains_key(&number) {
            let key = self.arena.insert(Bead(number, Links::NONE));
            let (behind, looks) = looks::of(|| self.row.add(&mut self.arena, key, |bead| bead.0));
            assert!(looks < 2 * FEW, "{looks} looks to add one");
            assert_eq!(behind, self.model.range(number..).next().map(|(_, key)| *key));
            self.model.insert(number, key);
        }
    }

    fn remove(&mut self, number: u64) {
        if let Some(key) = self.model.remove(&number) {
            let ((), looks) = looks::of(|| self.row.remove(&mut self.arena, key, |bead| bead.0));
            assert!(looks < 20, "{looks} looks to remove one");
            self.arena.remove(key);
        }
    }

    fn check_seek(&self, number: u64) {
        let (found, looks) = looks::of(|| self.row.seek(&self.arena, number, |bead| bead.0));
        assert_eq!(found, self.model.range(number..).next().map(|(_, key)| *key));
        assert!(looks < FEW, "{looks} looks to find one");
    }

    fn check(&self) {
        let row: Vec<ClaimKey> = self.row.iter(&self.arena).collect();
        assert_eq!(row, self.model.values().copied().collect::<Vec<_>>());
        assert_eq!(row.len(), self.row.len());
        self.row.invariant(&self.arena, |bead| bead.0);
    }
}

/// Numbers that come one after the other, or fall, or gather somewhere, or come from anywhere; and such
/// that leave from the front, the end or anywhere.
#[derive(Clone, Debug)]
enum Step {
    Rise(u64),
    Fall(u64),
    Gather(u64, u64),
    Scatter(Vec<u64>),
    LeaveFirst(usize),
    LeaveLast(usize),
    Leave(Vec<prop::sample::Index>),
    LeaveMarked,
    Seek(Vec<u64>),
}

const NUMBERS: u64 = 1 << 20;

fn step() -> impl Strategy<Value = Step> {
    let number = 0..NUMBERS;
    let numbers = prop::collection::vec(number.clone(), 1..100);
    let indices = prop::collection::vec(any::<prop::sample::Index>(), 1..100);
    prop_oneof![
        3 => (1..400u64).prop_map(Step::Rise),
        1 => (1..400u64).prop_map(Step::Fall),
        2 => (number, 1..400u64).prop_map(|(at, count)| Step::Gather(at, count)),
        2 => numbers.clone().prop_map(Step::Scatter),
        2 => (1..400usize).prop_map(Step::LeaveFirst),
        1 => (1..400usize).prop_map(Step::LeaveLast),
        2 => indices.prop_map(Step::Leave),
        2 => Just(Step::LeaveMarked),
        3 => numbers.prop_map(Step::Seek),
    ]
}

impl Beads {
    fn step(&mut self, step: &Step) {
        let first = self.model.keys().next().copied().unwrap_or(NUMBERS);
        let last = self.model.keys().next_back().copied().unwrap_or(NUMBERS);
        match *step {
            Step::Rise(count) => self.add_all(last..last + count),
            Step::Fall(count) => self.add_all((first.saturating_sub(count)..first).rev()),
            Step::Gather(at, count) => {
                // Each right behind the first of them.
                self.add(at);
                self.add_all((at..at + count).rev());
            }
            Step::Scatter(ref numbers) => self.add_all(numbers.iter().copied()),
            Step::LeaveFirst(count) => {
                let numbers: Vec<u64> = self.model.keys().take(count).copied().collect();
                self.remove_all(numbers);
            }
            Step::LeaveLast(count) => {
                let numbers: Vec<u64> = self.model.keys().rev().take(count).copied().collect();
                self.remove_all(numbers);
            }
            Step::Leave(ref indices) => {
                for index in indices {
                    let Some(nth) = index.index(self.model.len() + 1).checked_sub(1) else {
                        continue;
                    };
                    let number = self.model.keys().nth(nth).copied();
                    self.remove_all(number);
                }
            }
            Step::LeaveMarked => {
                let marks = self.row.marks.as_ref();
                let numbers: Vec<u64> =
                    marks.into_iter().flat_map(|marks| marks.marks.keys()).copied().collect();
                self.remove_all(numbers);
            }
            Step::Seek(ref numbers) => {
                for number in numbers {
                    self.check_seek(*number);
                }
            }
        }
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_row_is_in_order_and_found_in_whoever_comes_and_leaves(
        steps in prop::collection::vec(step(), 1..40)
    ) {
        let mut beads = Beads::new();
        for step in &steps {
            beads.step(step);
        }
        beads.step(&Step::LeaveFirst(usize::MAX));
        prop_assert!(beads.row.is_empty() && beads.row.marks.is_none());
    }
}

#[test]
fn whatever_is_sought_in_65_000_things_few_are_walked_past() {
    let beads = Beads::of((0..65_000).map(|n| 2 * n));
    beads.check();
    for number in 0..130_002 {
        beads.check_seek(number);
    }
}

#[test]
fn things_that_come_in_falling_order_are_walked_past_by_few() {
    let beads = Beads::of((0..65_000).rev());
    beads.check();
    // Or all behind the first.
    let beads = Beads::of([0].into_iter().chain((1..65_000).rev()));
    beads.check();
}

#[test]
fn a_row_of_128_has_no_marks_and_one_of_129_has_one() {
    let mut beads = Beads::of(0..u64::from(STRETCH_LEN_MAX));
    assert!(beads.row.marks.is_none());
    beads.add(STRETCH_LEN_MAX.into());
    assert_eq!(beads.row.marks.as_ref().map(|marks| marks.marks.len()), Some(1));
}

#[test]
fn a_row_through_which_many_pass_has_no_more_marks_than_it_needs() {
    let mut beads = Beads::of(0..1_000);
    for number in 1_000..20_000 {
        beads.add(number);
        beads.remove(number - 1_000);
    }
    beads.check();
    let marks = beads.row.marks.as_ref().map_or(0, |marks| marks.marks.len());
    assert!((1_000 / STRETCH_LEN_MAX as usize..=2 * 1_000 / MARK_EVERY as usize).contains(&marks));
}
