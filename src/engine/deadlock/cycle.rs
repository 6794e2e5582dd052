//! The wait-for cycle of a left-over owner, over others back to itself.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use super::super::CYCLE_TOLD_MAX;
use super::super::arena::{LockKey, RequestKey};
use super::super::request::State;
use super::inquiry::{Inquiry, Who};
use crate::engine::seed::Seed;
use crate::types::CycleLink;

/// Why one owner waits for another.
#[derive(Clone, Copy, Debug)]
struct Edge {
    /// The owner that waits.
    from: Who,
    /// The request by which it waits.
    request: RequestKey,
    /// Where.
    lock: LockKey,
    /// Because of which request of the other.
    behind: RequestKey,
}

impl Inquiry<'_> {
    /// The shortest way from a left-over owner over others back to itself. It begins with
    /// `suspect`, or, if that could be granted, with another request of its owner that could not
    /// be. None if there is no way back: others wait for each other, and it only waits for them.
    /// None also if no steps are left to find it.
    pub(super) fn cycle(&mut self, owner: Who, suspect: RequestKey) -> Option<Vec<CycleLink>> {
        let others = self.requests_of(owner).into_iter().filter(|request| *request != suspect);
        let first = [suspect].into_iter().chain(others).find(|request| !self.is_granted(*request));
        let mut came_by: HashMap<Who, Edge, Seed> = HashMap::with_hasher(self.table.locks.seed());
        let mut to_visit = VecDeque::from([(owner, Vec::from_iter(first))]);
        while let Some((who, waiting)) = to_visit.pop_front() {
            let mut edges = Vec::new();
            for request in waiting {
                self.add_edges(who, request, &mut edges);
            }
            for edge in edges {
                let other = self.who(edge.behind);
                if other == owner {
                    return Some(self.way(edge, owner, &came_by));
                }
                if let Entry::Vacant(entry) = came_by.entry(other) {
                    entry.insert(edge);
                    let mut waiting = self.requests_of(other);
                    waiting.retain(|request| !self.is_granted(*request));
                    to_visit.push_back((other, waiting));
                }
            }
        }
        None
    }

    /// Whether a request is held, or was granted in thought.
    fn is_granted(&self, request: RequestKey) -> bool {
        self.table.requests[request].is_held()
            || self.thoughts.get(&request).is_some_and(|thought| thought.granted)
    }

    /// For whom a left-over request waits: whoever is next in line before it, else those who have
    /// what it wants. Some of these may have given it back, but then they wait for nobody, and no way
    /// leads over them. Those who have a lock are looked at once, for the first who waits for them.
    fn add_edges(&mut self, from: Who, request: RequestKey, edges: &mut Vec<Edge>) {
        let converted = self.table.requests[request].partner();
        for claim in self.table.claims_of(request) {
            let lock = self.table.claims[claim].lock;
            if !self.step() {
                return;
            }
            let Some(known) = self.locks.get_mut(&lock) else { continue };
            let next = known.next.map(|next| self.table.claims[next].request);
            let is_before = |next: &RequestKey| *next != request && self.table.is_entangled(*next);
            if let Some(behind) = next.filter(is_before) {
                edges.push(Edge { from, request, lock, behind });
            } else if !known.is_told {
                // Of a conversion its own owner is left out, for whom others may wait.
                known.is_told = converted.is_none();
                let have_it = known.by.iter().filter(|by| Some(**by) != converted);
                edges.extend(have_it.map(|&behind| Edge { from, request, lock, behind }));
                let looked_at = known.by.len();
                self.take_steps(looked_at);
            }
        }
    }

    /// The links from the owner to the one that the last edge closes the circle from.
    fn way(&self, last: Edge, owner: Who, came_by: &HashMap<Who, Edge, Seed>) -> Vec<CycleLink> {
        let mut edges = vec![last];
        let mut at = last.from;
        while at != owner
            && let Some(&edge) = came_by.get(&at)
        {
            edges.push(edge);
            at = edge.from;
        }
        edges.into_iter().rev().take(CYCLE_TOLD_MAX).map(|edge| self.link(edge)).collect()
    }

    fn link(&self, edge: Edge) -> CycleLink {
        let table = self.table;
        let live = &table.requests[edge.request];
        let session = &table.sessions[live.session];
        // Of one that waits to convert what it holds, that it holds it is what matters.
        let behind = &table.requests[edge.behind];
        let holds = if behind.is_held() { Some(edge.behind) } else { behind.partner() };
        let held_with = match holds.map(|held| table.requests[held].state) {
            Some(State::Held { token }) => Some(token),
            Some(State::Waiting { .. }) | None => None,
        };
        CycleLink {
            session: session.id,
            identity: session.identity.clone(),
            owner: table.owner_of(edge.request),
            request: live.id,
            lock: table.locks[edge.lock].name.clone(),
            held_with,
        }
    }
}
