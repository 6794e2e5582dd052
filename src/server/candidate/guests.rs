//! Who is connected to the port for standbys: those who have proved that they are members, and those who have yet
//! to (rule B2).
//!
//! Whoever has proved nothing has a place of its own kind, for a bounded time, and makes room for others: of the
//! address that has most of them, the oldest goes. So strangers of one address keep no standby of another away. A member
//! that has proved itself and finds as many following as may is told so: closed without a word, it would take that for
//! the silence of a leader.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::{Rc, Weak};

use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Standbys that may follow at a time.
pub(super) const STANDBYS_MAX: usize = 8;
/// Connections that may have proved nothing yet; and as many that are being told that there is no room for them.
const UNPROVED_MAX: usize = 16;

/// All that are connected; a copy of it is the same.
#[derive(Clone, Default)]
pub(super) struct Guests(Rc<RefCell<Vec<Guest>>>);

/// The same, for those who are among them.
type Others = Weak<RefCell<Vec<Guest>>>;

/// A connection.
struct Guest {
    /// Where it comes from.
    address: IpAddr,
    /// What it has come to.
    place: Place,
    /// Who serves it.
    task: JoinHandle<()>,
}

/// The place of a connection, for who serves it; a copy of it is the same.
#[derive(Clone, Default)]
pub(super) struct Place(Rc<Inner>);

#[derive(Default)]
struct Inner {
    stage: Cell<Stage>,
    /// Wakes who serves it when it has to make room.
    moved: Notify,
    /// All that are connected.
    others: Others,
}

/// What a connection has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// It has proved nothing yet.
    #[default]
    Unproved,
    /// It has proved that it is a member's.
    Proved,
    /// It makes room for others.
    Leaving,
}

impl Place {
    /// It has proved that it is a member's. Whether it may follow: not so many others do.
    pub(super) fn proved(&self) -> bool {
        let others = self.0.others.upgrade();
        let is_proved =
            |it: &&Guest| it.place.0.stage.get() == Stage::Proved && !it.task.is_finished();
        let others = others.map_or(0, |others| others.borrow().iter().filter(is_proved).count());
        let is_room = others < STANDBYS_MAX;
        if is_room {
            self.0.stage.set(Stage::Proved);
        }
        is_room
    }

    /// Whether it makes room for others.
    pub(super) fn is_leaving(&self) -> bool {
        self.0.stage.get() == Stage::Leaving
    }

    /// Waits until it makes room for others.
    pub(super) async fn left(&self) {
        while !self.is_leaving() {
            self.0.moved.notified().await;
        }
    }

    pub(super) fn leave(&self) {
        self.0.stage.set(Stage::Leaving);
        self.0.moved.notify_one();
    }
}

impl Guests {
    /// Gives a connection a place. Who makes room for it is told so.
    pub(super) fn receive(&self, address: IpAddr, serve: impl FnOnce(Place) -> JoinHandle<()>) {
        self.make_room();
        let others = Rc::downgrade(&self.0);
        let place = Place(Rc::new(Inner { others, ..Inner::default() }));
        let task = serve(place.clone());
        self.0.borrow_mut().push(Guest { address, place, task });
    }

    fn make_room(&self) {
        let guests = &mut *self.0.borrow_mut();
        guests.retain(|guest| !guest.task.is_finished());
        let count = |stage| guests.iter().filter(|it| it.place.0.stage.get() == stage).count();
        if count(Stage::Unproved) >= UNPROVED_MAX {
            let is_unproved = |it: &Guest| it.place.0.stage.get() == Stage::Unproved;
            let mut crowds: HashMap<IpAddr, usize> = HashMap::new();
            let unproved = guests.iter().filter(|it| is_unproved(it));
            unproved.for_each(|guest| *crowds.entry(guest.address).or_default() += 1);
            let most = crowds.values().copied().max();
            let goes = |it: &&Guest| is_unproved(it) && crowds.get(&it.address).copied() == most;
            // They are in the order in which they came.
            if let Some(guest) = guests.iter().find(goes) {
                guest.place.leave();
            }
        }
        if count(Stage::Leaving) > UNPROVED_MAX
            && let Some(at) = guests.iter().position(|it| it.place.is_leaving())
        {
            guests.remove(at).task.abort();
        }
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
    use std::net::Ipv4Addr;

    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;

    /// Whether each of those who came is still there.
    async fn are_there(guests: &Guests) -> Vec<IpAddr> {
        for _ in 0..8 {
            yield_now().await;
        }
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
                    let is_in = Cell::new(false);
                    guests.receive(from, |place| {
                        is_in.set(is_member && place.proved());
                        let leaves = is_member && !is_in.get();
                        spawn_local(async move {
                            if !leaves {
                                place.left().await;
                            }
                        })
                    });
                    is_in.get()
                };
                assert!(come(address(1), true));
                come(address(2), false);
                for _ in 0..100 {
                    come(address(9), false);
                }
                let there = are_there(&guests).await;
                assert_eq!(there.len(), 1 + UNPROVED_MAX);
                assert_eq!(
                    there[..2],
                    [address(1), address(2)],
                    "the crowd makes room, and nobody else"
                );
                for _ in 1..STANDBYS_MAX {
                    assert!(come(address(3), true));
                }
                assert!(!come(address(3), true), "that many follow already");
            })
            .await;
    }
}
