//! Runs of those who are away, whoever comes, goes, enters and leaves in whatever order.

use proptest::prelude::*;

use super::super::arena::Arena;
use super::super::queue::{ServiceQueue, WaiterFlags};
use super::super::request::{Live, State};
use super::*;
use crate::engine::Progress;
use crate::engine::seed::Seed;
use crate::engine::session::Presence;
use crate::types::{Mode, RequestId, Ticket, Timestamp};

const PLACES: u64 = 24;

proptest! {
    #[test]
    fn the_next_in_line_is_the_first_who_is_there(
        steps in prop::collection::vec((0..PLACES, 0..4u8), 1..200),
    ) {
        let seed = Seed::default();
        let (mut claims, mut requests) = (ClaimArena::new(), Requests::new(seed));
        let (lock, session) = (Arena::new().insert(()), Arena::new().insert(()));
        let mut queue = ServiceQueue::EMPTY;
        let flags = WaiterFlags {
            told: false, entangled: false, converts: false, is_pair: false, supersedes: false,
        };
        let keys: Vec<ClaimKey> = (0..PLACES).map(|arrival| {
            let id = RequestId::new(arrival);
            let mut live = Live::new(session, id, Progress::Untold, Timestamp::default());
            let ticket = Ticket { epoch: 1, arrival };
            live.state = State::Waiting {
                deadline: None, ticket, progress: Progress::Untold, told: 0,
            };
            let request = requests.insert(live);
            claims.insert(ClaimNode::new(lock, request, Mode::Exclusive))
        }).collect();
        // Of each: not in the queue, there, or away.
        let mut known = vec![None; keys.len()];
        for (place, what) in steps {
            let place = usize::try_from(place).unwrap();
            let claim = keys[place];
            match (known[place], what) {
                (None, _) => {
                    queue.enter(&mut claims, &requests, claim, flags);
                    known[place] = Some(Presence::Present);
                }
                (Some(_), 0) => {
                    queue.leave(&mut claims, &requests, claim, flags);
                    known[place] = None;
                }
                (Some(_), _) => {
                    let presence = if what == 1 { Presence::Present } else { Presence::Away };
                    let before = queue.first_present(&claims, &requests);
                    let is_another = queue.mark(&claims, &requests, claim, presence);
                    let after = queue.first_present(&claims, &requests);
                    prop_assert_eq!(is_another, before != after);
                    known[place] = Some(presence);
                }
            }
            let of = |presence| {
                let is_meant = move |(_, is): &(&ClaimKey, &Option<Presence>)| **is == Some(presence);
                keys.iter().zip(&known).filter(is_meant).map(|(key, _)| *key).collect::<Vec<_>>()
            };
            prop_assert_eq!(queue.away(&claims, &requests), of(Presence::Away));
            let first = of(Presence::Present).first().copied();
            prop_assert_eq!(queue.first_present(&claims, &requests), first);
            prop_assert_eq!(queue.has_away(), !of(Presence::Away).is_empty());
        }
    }
}
