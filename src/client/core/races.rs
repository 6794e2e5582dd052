//! Cancels and grants that cross on the wire, many times and in every order.

use std::collections::{BTreeSet, VecDeque};

use super::simulation::Dice;
use super::tests::{Story, ask, grant};
use super::*;
use crate::types::RequestId;
use crate::wire::{self, ServerMessage};

/// A server that grants whenever the dice say so, and the wire both ways.
#[derive(Default)]
struct FakeServer {
    inbox: VecDeque<ClientMessage>,
    waiting: Vec<RequestId>,
    held: BTreeSet<RequestId>,
    token: u64,
    outbox: VecDeque<ServerMessage>,
}

impl FakeServer {
    fn read_one(&mut self) {
        match self.inbox.pop_front() {
            Some(ClientMessage::Request(wire::Request { request, .. })) => {
                self.waiting.push(request);
            }
            Some(ClientMessage::Cancel { request }) => {
                self.waiting.retain(|waiting| *waiting != request);
                self.held.remove(&request);
                self.outbox.push_back(ServerMessage::Cancelled { request });
            }
            Some(ClientMessage::Release { request, .. }) => {
                assert!(self.held.remove(&request));
                self.outbox.push_back(ServerMessage::Released { request });
            }
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    }

    fn grant_one(&mut self, dice: &mut Dice) {
        if !self.waiting.is_empty() {
            let which = usize::try_from(dice.roll(self.waiting.len() as u64)).unwrap();
            let request = self.waiting.swap_remove(which);
            self.token += 1;
            self.held.insert(request);
            self.outbox.push_back(grant(request.number(), self.token));
        }
    }
}

#[test]
fn in_100_000_races_of_cancel_and_grant_nothing_is_held_after_its_cancel() {
    const RACES: u64 = 100_000;
    const AT_ONCE: usize = 6;
    let (mut story, mut server, mut dice) = (Story::open(), FakeServer::default(), Dice::of(1));
    let (mut cancelled, mut held) = (BTreeSet::new(), BTreeSet::new());
    let mut crossed = 0;
    while crossed < RACES || !story.core.requests.is_empty() {
        match dice.roll(10) {
            0 | 1 if crossed < RACES && story.core.requests.len() < AT_ONCE => {
                story.core.request(ask(), story.now);
            }
            2 => {
                // Any may be given up, whether its grant is on the way, or told, or neither.
                let any = usize::try_from(dice.roll(AT_ONCE as u64)).unwrap();
                let request = story.core.requests.keys().nth(any).copied();
                if let Some(request) = request.filter(|request| cancelled.insert(*request)) {
                    let on_the_way = server.held.contains(&request) && !held.remove(&request);
                    crossed += u64::from(on_the_way);
                    story.core.cancel(request);
                }
            }
            3..=5 => server.read_one(),
            6 => server.grant_one(&mut dice),
            7 | 8 => {
                if let Some(message) = server.outbox.pop_front() {
                    story.hear(message);
                }
            }
            _ => {
                if let Some(request) = held.pop_first() {
                    story.core.release(request, story.now);
                    cancelled.insert(request);
                }
            }
        }
        server.inbox.extend(story.core.drain_messages());
        for effect in story.core.take_effects() {
            match effect {
                Effect::Granted { request, .. } => {
                    assert!(!cancelled.contains(&request), "granted after its cancel");
                    held.insert(request);
                }
                Effect::Released { outcome, .. } => assert_eq!(outcome, Ok(())),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(story.core.end(), None);
    assert!(server.held.is_empty() && server.waiting.is_empty());
}
