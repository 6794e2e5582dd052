//! Model checking: every history of a small world. It has the production table, two or three honest
//! clients, a disk, connections that break and delay, and all orders of all possible steps.
//!
//! States are visited breadth first, so that the first history that goes wrong is a shortest one. A
//! state that was seen before, but for what does not matter ([`canon`]), is not visited again. In
//! each new state the invariants of the table hold, no two clients believe in conflicting holds,
//! and tokens grow. When nothing is on its way, a client and the table see the same.
//!
//! The states to visit are not kept, only the move that led to each, and from where: a million of them
//! cost some megabytes. States of one parent stand side by side, so the way to each is mostly there.
//!
//! `EXHAUSTIVE_STATES=3000000` visits that many states of each scenario, or all if there are fewer.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "figures, and what went wrong")]

mod canon;
mod client;
mod moves;
mod scenario;
mod world;

use std::collections::HashSet;
use std::env;
use std::thread;

use moves::Move;
use scenario::{SCENARIOS, Scenario};
use world::World;

/// So many states of each scenario are visited if the environment does not say another number.
const STATES: usize = 25_000;

/// A state, by what led to it.
#[derive(Clone, Copy)]
struct Node {
    /// From where.
    parent: u32,
    /// By which move.
    by: Move,
}

/// What a walk came to.
#[derive(Debug)]
struct Seen {
    /// Different states.
    states: usize,
    /// Moves made.
    moves: usize,
    /// All states up to so many moves were seen.
    depth: usize,
    /// Whether there is no other state.
    is_all: bool,
}

/// A walk through the states of a scenario.
struct Walk {
    /// All states seen, but the first.
    nodes: Vec<Node>,
    /// Their digests.
    seen: HashSet<u64>,
    /// The way to the state that was visited last: each state on it, and by its number.
    way: Vec<(u32, World)>,
}

/// The number of the first state.
const FIRST: u32 = 0;

impl Walk {
    fn of(scenario: &'static Scenario, states_max: usize) -> Seen {
        let first = World::new(scenario);
        let seen = HashSet::from([canon::digest(&first)]);
        let mut walk = Self { nodes: Vec::new(), seen, way: vec![(FIRST, first)] };
        let (mut moves, mut depth, mut next) = (0, 0, FIRST);
        while walk.seen.len() < states_max {
            if next as usize > walk.nodes.len() {
                return Seen { states: walk.seen.len(), moves, depth, is_all: true };
            }
            walk.go_to(next);
            depth = walk.way.len() - 1;
            moves += walk.visit(next);
            next += 1;
        }
        Seen { states: walk.seen.len(), moves, depth, is_all: false }
    }

    /// Makes every move from the state that the way leads to.
    fn visit(&mut self, from: u32) -> usize {
        let Some((_, world)) = self.way.last() else { return 0 };
        let moves = world.moves();
        for &by in &moves {
            let trail = Trail { walk: self, by };
            let mut world = world.clone();
            world.make(by);
            let digest = canon::digest(&world);
            if !self.seen.contains(&digest) {
                world.table.assert_invariants();
            }
            drop(trail);
            if self.seen.insert(digest) {
                self.nodes.push(Node { parent: from, by });
            }
        }
        moves.len()
    }

    /// Makes the way lead to a state.
    fn go_to(&mut self, to: u32) {
        let mut missing = Vec::new();
        let mut at = to;
        while at != FIRST && self.way.iter().all(|(on_way, _)| *on_way != at) {
            let Node { parent, by } = self.nodes[at as usize - 1];
            missing.push((at, by));
            at = parent;
        }
        while self.way.last().is_some_and(|(last, _)| *last != at) {
            self.way.pop();
        }
        for (number, by) in missing.into_iter().rev() {
            let Some((_, world)) = self.way.last() else { return };
            let mut world = world.clone();
            world.make(by);
            self.way.push((number, world));
        }
    }
}

/// Tells how it came to what could not be.
struct Trail<'a> {
    walk: &'a Walk,
    /// The last move.
    by: Move,
}

impl Drop for Trail<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let by = |(number, _): &(u32, World)| {
                let before = (*number as usize).checked_sub(1)?;
                Some(self.walk.nodes[before].by)
            };
            let moves: Vec<Move> = self.walk.way.iter().filter_map(by).chain([self.by]).collect();
            eprintln!("the moves that led there: {moves:?}");
        }
    }
}

fn walk(scenario: &'static Scenario) {
    let states_max = env::var("EXHAUSTIVE_STATES").ok().and_then(|number| number.parse().ok());
    let Seen { states, moves, depth, is_all } = Walk::of(scenario, states_max.unwrap_or(STATES));
    let extent = if is_all { "all there are" } else { "at least" };
    println!(
        "{}: {states} states, {moves} moves, all to a depth of {depth} ({extent})",
        scenario.name
    );
}

/// Makes each scenario a test of its own.
macro_rules! scenarios {
    ($($name:ident $number:literal)+) => {
        $(#[test]
        fn $name() {
            walk(&SCENARIOS[$number]);
        })+

        #[test]
        fn every_scenario_is_walked() {
            assert_eq!(SCENARIOS.len(), [$($number),+].len());
        }
    };
}

scenarios! {
    queues_of_three_clients 0
    owners_and_conversions 1
    leases_over_broken_connections 2
    crashes_and_reclaims 3
    orderly_restarts 4
    newest_first_one_pending 5
    replays_and_crashes 6
}
