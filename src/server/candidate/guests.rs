//! Who is connected to the port for standbys: those who have proved that they are members, and those who have yet
//! to (rule B2).
//!
//! Whoever has proved nothing has a place of its own kind, for a bounded time, and makes room for others: of the
//! address that has most of them, the oldest goes. So strangers of one address keep no standby of another away.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use tokio::task::JoinHandle;

/// Standbys that may follow at a time.
pub(super) const STANDBYS_MAX: usize = 8;
/// Connections that may have proved nothing yet.
const UNPROVED_MAX: usize = 16;

/// All that are connected; a copy of it is the same.
#[derive(Clone, Default)]
pub(super) struct Guests(Rc<RefCell<Vec<Guest>>>);

/// A connection.
struct Guest {
    /// Where it comes from.
    address: IpAddr,
    /// Whether it has proved that it is a member's.
    is_proved: Rc<Cell<bool>>,
    /// Who serves it.
    task: JoinHandle<()>,
}

/// The place of a connection, for who serves it.
pub(super) struct Place(Rc<Cell<bool>>);

impl Place {
    /// It has proved that it is a member's.
    pub(super) fn proved(&self) {
        self.0.set(true);
    }
}

impl Guests {
    /// Gives a connection a place, if there is one.
    pub(super) fn receive(
        &self,
        address: IpAddr,
        serve: impl FnOnce(Place) -> JoinHandle<()>,
    ) -> Option<()> {
        let guests = &mut *self.0.borrow_mut();
        guests.retain(|guest| !guest.task.is_finished());
        let proved = guests.iter().filter(|guest| guest.is_proved.get()).count();
        if proved >= STANDBYS_MAX {
            return None;
        }
        if guests.len() - proved >= UNPROVED_MAX {
            let mut crowds: HashMap<IpAddr, usize> = HashMap::new();
            let unproved = || guests.iter().filter(|guest| !guest.is_proved.get());
            unproved().for_each(|guest| *crowds.entry(guest.address).or_default() += 1);
            let most = crowds.values().copied().max();
            let goes = |it: &Guest| !it.is_proved.get() && crowds.get(&it.address).copied() == most;
            // They are in the order in which they came.
            if let Some(at) = guests.iter().position(goes) {
                guests.remove(at).task.abort();
            }
        }
        let is_proved = Rc::new(Cell::new(false));
        let task = serve(Place(Rc::clone(&is_proved)));
        guests.push(Guest { address, is_proved, task });
        Some(())
    }

    /// Sends all away.
    pub(super) fn end(&self) {
        for guest in self.0.borrow().iter() {
            guest.task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::net::Ipv4Addr;

    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;

    /// Whether each of those who came is still there.
    async fn are_there(guests: &Guests) -> Vec<IpAddr> {
        yield_now().await;
        let guests = guests.0.borrow();
        guests.iter().filter(|it| !it.task.is_finished()).map(|it| it.address).collect()
    }

    #[tokio::test]
    async fn b2_strangers_at_the_port_for_standbys_make_room_for_others_and_who_has_proved_itself_stays()
     {
        LocalSet::new()
            .run_until(async {
                let guests = Guests::default();
                let address = |last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
                let come = |from, is_member: bool| {
                    guests.receive(from, |place| {
                        if is_member {
                            place.proved();
                        }
                        spawn_local(pending())
                    })
                };
                come(address(1), true).unwrap();
                come(address(2), false).unwrap();
                for _ in 0..100 {
                    come(address(9), false).unwrap();
                }
                let there = are_there(&guests).await;
                assert_eq!(there.len(), 1 + UNPROVED_MAX);
                assert_eq!(
                    there[..2],
                    [address(1), address(2)],
                    "the crowd makes room, and nobody else"
                );
                for _ in 1..STANDBYS_MAX {
                    come(address(3), true).unwrap();
                }
                assert!(come(address(3), true).is_none(), "that many follow already");
            })
            .await;
    }
}
