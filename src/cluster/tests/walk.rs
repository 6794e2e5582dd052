//! Every schedule of two members up to a length, from three beginnings. Places that were reached before are
//! not gone on from again.

#![allow(clippy::print_stdout)] // figures of long runs

use std::collections::HashSet;
use std::env;
use std::time::Duration;

use super::model::{Cluster, Journal, Move, Notice, TIMING};
use super::stories::{alone, in_sync};

/// Places from each beginning each time; `EXHAUSTIVE_STATES` has more.
const PLACES: usize = 6_000;

/// What may still happen. Without bounds a walk would never come to anything rare.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Budget {
    /// Requests of clients.
    requests: u32,
    /// Lengths of time.
    passes: u32,
    /// Crashes, stops, links that break, leaders that are not heard.
    troubles: u32,
}

const BUDGET: Budget = Budget { requests: 1, passes: 2, troubles: 2 };

/// Where a walk is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    /// The cluster.
    cluster: Cluster,
    /// What may still happen to it.
    budget: Budget,
}

/// Longer than a standby may be silent, than a beat and than a lease.
fn passes() -> [Duration; 2] {
    [TIMING.beat() + Duration::from_millis(1), TIMING.lease + Duration::from_millis(100)]
}

impl Place {
    /// All that can happen next.
    fn moves(&self) -> Vec<Move> {
        let cluster = &self.cluster;
        let mut moves = Vec::new();
        for (node, it) in cluster.nodes.iter().enumerate() {
            moves.extend([Move::Tick(node), Move::Say(node), Move::EndGrace(node)]);
            if it.member.leads().is_some() {
                moves.push(Move::Append(node));
                let others = (0..cluster.nodes.len()).filter(|other| *other != node);
                moves.extend(others.map(|other| Move::Follow(node, other)));
            } else {
                moves.push(Move::Silence(node));
            }
            if cluster.asks(node) {
                moves.push(Move::Read(node));
            }
            moves.extend([Move::Crash(node, Journal::Whole), Move::Crash(node, Journal::Void)]);
            moves.push(Move::Stop(node));
            moves.extend(cluster.ended.iter().map(|&run| Move::Ended(node, run)));
            if cluster.is_lost() {
                moves.push(Move::Lost(node));
            }
        }
        for link in 0..cluster.links.len() {
            moves.extend([Move::Stream(link), Move::Acknowledge(link)]);
            moves.extend([Move::Cut(link, Notice::Now), Move::Cut(link, Notice::Later)]);
        }
        moves.extend((0..cluster.proposals.len()).map(Move::Arrive));
        moves.extend((0..cluster.answers.len()).map(Move::Answer));
        moves.extend(passes().map(Move::Pass));
        moves
    }

    /// What is left to spend after a move; none: it may not happen any more.
    fn spent(&self, it: &Move) -> Option<Budget> {
        let mut budget = self.budget.clone();
        let purse = match it {
            Move::Append(_) => &mut budget.requests,
            Move::Pass(_) => &mut budget.passes,
            Move::Crash(..) | Move::Stop(_) | Move::Cut(..) | Move::Silence(_) => {
                &mut budget.troubles
            }
            _ => return Some(budget),
        };
        *purse = purse.checked_sub(1)?;
        Some(budget)
    }

    /// After a move, without what makes no difference any more.
    fn after(&self, it: &Move) -> Option<Result<Self, String>> {
        let budget = self.spent(it)?;
        let mut cluster = self.cluster.clone();
        if let Err(fault) = cluster.happen(it) {
            return Some(Err(fault));
        }
        cluster.tidy();
        Some(Ok(Self { cluster, budget }))
    }
}

/// Goes everywhere from `beginning`, as far as `places` allow. What it came to: places, and moves to the
/// furthest.
fn walk(beginning: Cluster, places: usize) -> (usize, usize) {
    let first = Place { cluster: beginning, budget: BUDGET };
    let mut seen = HashSet::from([first.clone()]);
    // Each with the moves that lead there, for whoever has to understand a fault.
    let mut frontier: Vec<(Place, Vec<Move>)> = vec![(first, Vec::new())];
    let mut depth = 0;
    while !frontier.is_empty() && seen.len() < places {
        let mut next = Vec::new();
        for (place, way) in &frontier {
            for it in place.moves() {
                let Some(after) = place.after(&it) else { continue };
                let way = || [way.as_slice(), std::slice::from_ref(&it)].concat();
                match after {
                    Err(fault) => panic!("{fault}\n{:#?}", way()),
                    Ok(after) if seen.insert(after.clone()) => next.push((after, way())),
                    Ok(_) => {}
                }
            }
            if seen.len() >= places {
                break;
            }
        }
        frontier = next;
        depth += 1;
    }
    (seen.len(), depth)
}

#[test]
fn every_short_schedule_of_two_members_keeps_the_rules() {
    let places = env::var("EXHAUSTIVE_STATES").map_or(PLACES, |text| text.parse().unwrap());
    let beginnings =
        [("nobody leads", Cluster::new(&[0, 0])), ("one alone", alone(2)), ("in sync", in_sync(2))];
    for (name, beginning) in beginnings {
        let (count, depth) = walk(beginning, places);
        println!("{name}: {count} places, {depth} moves deep");
        assert!(count >= PLACES.min(places) && depth >= 4);
    }
}
