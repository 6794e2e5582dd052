//! Admission control: a place for a connection, inside, or at the door when there are few.
//!
//! Every newcomer gets a place *inside*, until all are taken, or all of one address. A later one
//! waits *at the door* until it has said its purpose:
//!
//! - a client that returns to a living session gets one of the reserved places, because a holder
//!   with a broken connection must not lose its locks to quicker newcomers;
//! - an operator on this machine is served at the door, to look or to revoke above all when there
//!   is a crowd;
//! - everybody else is told that there are too many, and turned away.
//!
//! At the door nobody stays for long. There is room for [`DOOR_MAX`]. When all of it is taken, a
//! newcomer replaces the oldest. So silent connections, and refused ones that are not closed, keep
//! nobody out.
//!
//! No address can take all places, so an attacker needs several.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use crate::server::counters::Counters;
use crate::server::places::{Comer, Crowd, DOOR_MAX, Places};
use crate::types::Origin;

/// One connection's place: inside, or at the door. Given back when dropped.
#[derive(Debug)]
pub(in crate::server) struct Place {
    /// Where connections are counted.
    counters: Arc<Counters>,
    /// Where it comes from, if that is known.
    origin: Option<Origin>,
    /// How many places there are.
    places: Places,
    /// Whether it is inside.
    is_inside: bool,
    /// At the door: rings when another needs the room. Taken by who listens.
    ring: Option<oneshot::Receiver<()>>,
}

impl Place {
    /// Takes a place inside; at the door, if there is none.
    pub(in crate::server) fn take(
        counters: &Arc<Counters>,
        origin: Option<Origin>,
        places: Places,
        door: &mut Door,
    ) -> Self {
        let is_inside = counters.inside().enter(origin, places, Comer::Anyone).is_ok();
        let ring = (!is_inside).then(|| door.stand());
        counters.connections.fetch_add(1, Ordering::AcqRel);
        Self { counters: Arc::clone(counters), origin, places, is_inside, ring }
    }

    /// One inside, of a great many.
    #[cfg(test)]
    pub(in crate::server) fn of_many(counters: &Arc<Counters>) -> Self {
        Self::take(counters, None, Places::new(10_000, None), &mut Door::default())
    }

    /// Whether it is at the door.
    pub(in crate::server) fn is_at_door(&self) -> bool {
        !self.is_inside
    }

    /// Whether it comes from this machine.
    pub(in crate::server) fn is_local(&self) -> bool {
        self.origin == Some(Origin::Loopback)
    }

    /// What rings when it has to leave the door for another; none if it is not there.
    pub(in crate::server) fn ring(&mut self) -> Option<oneshot::Receiver<()>> {
        self.ring.take()
    }

    /// Comes in, if it is not in, and if there is a place for `comer`.
    pub(in crate::server) fn enter(&mut self, comer: Comer) -> Result<(), Crowd> {
        if !self.is_inside {
            self.counters.inside().enter(self.origin, self.places, comer)?;
            self.is_inside = true;
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_inside {
            self.counters.inside().leave(self.origin);
        }
        let were = self.counters.connections.fetch_sub(1, Ordering::AcqRel);
        if were == 1 {
            self.counters.none_left.notify_one();
        }
    }
}

/// Those at the door, the one who has been there for the longest first. One that came in or left may
/// still be among them.
#[derive(Debug, Default)]
pub(in crate::server) struct Door(VecDeque<oneshot::Sender<()>>);

impl Door {
    /// Takes a place at the door, if need be that of who has been there for the longest.
    fn stand(&mut self) -> oneshot::Receiver<()> {
        self.0.retain(|there| !there.is_closed());
        while self.0.len() >= DOOR_MAX {
            // Whoever left meanwhile has made room as well.
            let _ = self.0.pop_front().map(|longest| longest.send(()));
        }
        let (ring, rings) = oneshot::channel();
        self.0.push_back(ring);
        rings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody who comes from 10.0.0.`host`.
    fn come(counters: &Arc<Counters>, door: &mut Door, host: u8, places: Places) -> Place {
        let origin = Origin::Address([10, 0, 0, host].into());
        Place::take(counters, Some(origin), places, door)
    }

    #[test]
    fn there_are_as_many_places_as_allowed_and_not_one_more() {
        let (counters, mut door) = (Arc::new(Counters::default()), Door::default());
        let places = Places::new(2, None);
        let first = come(&counters, &mut door, 1, places);
        let second = come(&counters, &mut door, 2, places);
        let mut third = come(&counters, &mut door, 3, places);
        assert!(!first.is_at_door() && !second.is_at_door() && third.is_at_door());
        assert_eq!(third.enter(Comer::Anyone), Err(Crowd::All { max: 2 }));
        assert_eq!(counters.connections(), 3);
        drop(first);
        assert_eq!(third.enter(Comer::Anyone), Ok(()));
        assert_eq!(counters.connections(), 2);
    }

    #[test]
    fn one_address_takes_three_quarters_of_the_places_and_leaves_the_rest() {
        let (counters, mut door) = (Arc::new(Counters::default()), Door::default());
        let places = Places::new(8, None);
        let greedy: Vec<Place> = (0..9).map(|_| come(&counters, &mut door, 1, places)).collect();
        assert_eq!(greedy.iter().filter(|place| !place.is_at_door()).count(), 6);
        assert!(!come(&counters, &mut door, 2, places).is_at_door());
        drop(greedy);
        assert!(counters.inside().is_forgetful(), "nobody is remembered who left");
    }

    #[test]
    fn an_operator_may_leave_all_places_to_one_address() {
        let (counters, mut door) = (Arc::new(Counters::default()), Door::default());
        let places = Places::new(8, Some(8));
        let all: Vec<Place> = (0..8).map(|_| come(&counters, &mut door, 1, places)).collect();
        assert!(all.iter().all(|place| !place.is_at_door()));
    }

    #[test]
    fn an_eighth_is_kept_for_who_comes_back_whoever_it_was_that_filled_the_others() {
        let (counters, mut door) = (Arc::new(Counters::default()), Door::default());
        let places = Places::new(16, None);
        let mut comers = |host, count| -> Vec<Place> {
            (0..count).map(|_| come(&counters, &mut door, host, places)).collect()
        };
        let (_greedy, _others) = (comers(1, 12), comers(2, 4));
        let mut back = comers(1, 3);
        let may_enter = |place: &mut Place| place.enter(Comer::Returning).is_ok();
        assert_eq!(back.iter_mut().filter_map(|it| may_enter(it).then_some(())).count(), 2);
        // As many as kept from one address, too: the others' are not its own.
        assert_eq!(back[2].enter(Comer::Returning), Err(Crowd::All { max: 16 }));
    }

    #[test]
    fn at_the_door_the_latest_takes_the_place_of_the_earliest() {
        let (counters, mut door) = (Arc::new(Counters::default()), Door::default());
        let places = Places::new(1, None);
        let _inside = come(&counters, &mut door, 1, places);
        let mut there: Vec<_> =
            (0..DOOR_MAX).map(|_| come(&counters, &mut door, 1, places).ring().unwrap()).collect();
        assert!(there[0].try_recv().is_err(), "there is room");
        // One that left makes room, and nobody else has to.
        drop(there.remove(5));
        let _one_more = come(&counters, &mut door, 1, places).ring().unwrap();
        assert!(there.iter_mut().all(|it| it.try_recv().is_err()));
        let _another = come(&counters, &mut door, 1, places).ring().unwrap();
        let asked: Vec<_> = there.iter_mut().map(|it| it.try_recv().is_ok()).collect();
        assert!(asked[0] && !asked[1..].contains(&true));
    }
}
