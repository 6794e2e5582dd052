//! The gate: the only way out of the Coordinator, in the order of its decisions.
//!
//! A turn is decided before anything of it is said. The gate stands between the two (output
//! commit). Orders to the store and deliveries to sessions go through one door, and so do answers
//! to questions, watched locks and events. Nobody sees a later decision before an earlier one. The
//! journal holds the door, if there is one. It opens when all events behind the waiting messages
//! are written (rule J1).
//!
//! Deliveries are counted here, for all connections together (`ledger`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::mem;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use actix::Recipient;
use bytes::BytesMut;
use foldhash::fast::RandomState;
use log::error;
use slab::Slab;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::desk::BATCH_BYTES_MAX;
use super::desk::turn::{Deliver, Delivery, More, Turn, Way};
use super::durable::chronicle::{Chronicle, Flushed};
use super::durable::{Change, Order};
use super::ledger::Share;
use crate::types::ConnectionId;

/// A buffer of frames that is larger than this gives its memory back.
const FRAMES_BYTES_KEPT: usize = 4 * 1024;

/// The way out for turns.
pub(super) struct Gate {
    /// Where each connection's deliveries go, for as long as there may be any.
    links: Slab<(Link, Option<Weak<dyn Outlet>>)>,
    /// Sessions of this thread, whose way is shorter.
    outlets: Outlets,
    /// Memory of frames that were said.
    spare: Vec<BytesMut>,
    /// To the task that makes things durable.
    orders: UnboundedSender<Order>,
    /// Told when everything is on disk, once that is on order.
    saved: Option<oneshot::Sender<()>>,
    /// Where what led to all that is written down first; none: nowhere.
    chronicle: Option<Chronicle>,
    /// Orders that wait for that.
    held_orders: Vec<Change>,
    /// Deliveries that wait for that.
    held: Vec<Delivery>,
}

/// What says at once what a session has to say, where the session is on the Coordinator's thread.
pub(super) trait Outlet {
    /// Says it, unless that is for the session to do. Then all that comes behind it is, too, until the
    /// session has it.
    fn say(&self, deliver: &Deliver) -> Said;
}

/// Whether something was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It was, or will be without anybody's doing.
    AtOnce,
    /// It is for the session to say.
    NotYet,
}

/// The outlets of sessions that have yet to be connected.
#[derive(Clone, Default)]
pub(super) struct Outlets(Rc<RefCell<ByConnection>>);

type ByConnection = HashMap<ConnectionId, Weak<dyn Outlet>, RandomState>;

impl Outlets {
    /// That of a session that begins.
    pub(super) fn put(&self, connection: ConnectionId, outlet: Weak<dyn Outlet>) {
        self.0.borrow_mut().insert(connection, outlet);
    }
}

/// The way to a session.
#[derive(Debug)]
pub(super) struct Link {
    /// Its mailbox.
    pub(super) session: Recipient<Deliver>,
    /// Where what it is given is counted.
    pub(super) share: Arc<Share>,
}

impl Gate {
    /// A gate to a commit task, and to nobody else so far.
    pub(super) fn new(orders: UnboundedSender<Order>) -> Self {
        Self {
            links: Slab::new(),
            outlets: Outlets::default(),
            spare: Vec::new(),
            orders,
            saved: None,
            chronicle: None,
            held_orders: Vec::new(),
            held: Vec::new(),
        }
    }

    /// The same, where these sessions are on this thread.
    pub(super) fn with_outlets(self, outlets: Outlets) -> Self {
        Self { outlets, ..self }
    }

    /// One that lets nothing out before it is written down.
    pub(super) fn behind(chronicle: Option<Chronicle>, orders: UnboundedSender<Order>) -> Self {
        Self { chronicle, ..Self::new(orders) }
    }

    /// What writes down, if anything is.
    pub(super) fn chronicle(&mut self) -> Option<&mut Chronicle> {
        self.chronicle.as_mut()
    }

    /// A way to another connection, until the last delivery to it has passed.
    pub(super) fn connect(&mut self, connection: ConnectionId, link: Link) -> Way {
        let outlet = self.outlets.0.borrow_mut().remove(&connection);
        Way(self.links.insert((link, outlet)))
    }

    /// Somebody is to be told when everything is on disk; it is yet to be put on order.
    pub(super) fn tell_saved(&mut self, saved: oneshot::Sender<()>) {
        self.saved = Some(saved);
    }

    /// Lets all out that a turn came to; or has it wait for [`Gate::flush`], if it is to be written down
    /// first, and all that comes behind it.
    pub(super) fn pass(&mut self, turn: &mut Turn) {
        turn.spare.append(&mut self.spare);
        let Some(chronicle) = self.chronicle.as_mut().filter(|it| it.holds_the_door()) else {
            turn.record.clear();
            // First what waited for a journal that is given up by now.
            self.release();
            return self.let_out(&mut turn.orders, &mut turn.deliveries);
        };
        for change in &turn.orders {
            if let Change::Durable(durable) = change {
                chronicle.epoch(Some(durable.epoch), None);
            }
        }
        for part in turn.record.parts() {
            chronicle.append(part);
        }
        turn.record.clear();
        self.held_orders.append(&mut turn.orders);
        self.held.append(&mut turn.deliveries);
    }

    /// Writes down what led to all that waits, and lets it out. None if nothing does.
    pub(super) fn flush(&mut self) -> Option<Flushed> {
        if self.held.is_empty() && self.held_orders.is_empty() {
            return None;
        }
        let flushed = self.chronicle.as_mut()?.flush();
        if !matches!(flushed, Flushed::Stuck) {
            self.release();
        }
        Some(flushed)
    }

    /// Lets all out that waits.
    fn release(&mut self) {
        let (mut orders, mut held) = (mem::take(&mut self.held_orders), mem::take(&mut self.held));
        self.let_out(&mut orders, &mut held);
        (self.held_orders, self.held) = (orders, held);
    }

    fn let_out(&mut self, orders: &mut Vec<Change>, deliveries: &mut Vec<Delivery>) {
        for change in orders.drain(..) {
            self.order(change);
        }
        for Delivery { way: Way(place), deliver, more } in deliveries.drain(..) {
            if let Some((link, outlet)) = self.links.get(place) {
                let outlet = outlet.as_ref().and_then(Weak::upgrade);
                let said = link.send(deliver, outlet.as_deref());
                if let Some(mut said) = said.filter(|said| said.capacity() <= FRAMES_BYTES_KEPT) {
                    said.clear();
                    self.spare.push(said);
                }
            }
            if more == More::Never {
                self.links.try_remove(place);
            }
        }
    }

    /// Has something made durable; the desk hears when it is.
    fn order(&mut self, change: Change) {
        let done = match change {
            Change::SaveSnapshot(_) => self.saved.take(),
            Change::Durable(_)
            | Change::Key(_)
            | Change::Forfeit { .. }
            | Change::ForgetForfeits { .. }
            | Change::DropSnapshot => None,
        };
        if self.orders.send(Order { change, done }).is_err() {
            error!("the task that saves state has ended; granting will stop");
        }
    }
}

impl Link {
    /// Sends what a turn has for it, counted, or has it closed if that is too much. Gives back the memory
    /// of what is said already.
    fn send(&self, deliver: Deliver, outlet: Option<&dyn Outlet>) -> Option<BytesMut> {
        if deliver.bytes > BATCH_BYTES_MAX {
            self.share.close();
        } else if !self.share.is_closed() {
            if outlet.is_some_and(|outlet| outlet.say(&deliver) == Said::AtOnce) {
                return Some(deliver.frames);
            }
            self.share.add(deliver.bytes);
            self.session.do_send(deliver);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::server::ledger::Ledger;
    use crate::server::testing::{collector, local, settle};

    fn delivery(bytes: usize, more: More) -> Turn {
        let deliver = Deliver { bytes, ..Deliver::default() };
        let deliveries = vec![Delivery { way: Way(0), deliver, more }];
        Turn { deliveries, ..Turn::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_delivery_is_counted_up_to_the_bound_and_one_byte_past_it_its_connection_is_closed() {
        local(async {
            let ledger = Arc::new(Ledger::default());
            let account = ledger.open();
            let (session, batches) = collector();
            let mut gate = Gate::new(unbounded_channel().0);
            let link = Link { session, share: account.share() };
            let way = gate.connect(ConnectionId::new(1), link);
            assert_eq!(way, Way(0));
            gate.pass(&mut delivery(BATCH_BYTES_MAX, More::Perhaps));
            settle().await;
            assert_eq!((ledger.total(), batches.take().len()), (BATCH_BYTES_MAX, 1));
            assert!(!account.is_closed());

            gate.pass(&mut delivery(BATCH_BYTES_MAX + 1, More::Perhaps));
            settle().await;
            assert!(batches.take().is_empty());
            assert!(account.is_closed());
            assert_eq!(ledger.total(), 0);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_follows_a_last_delivery_and_nothing_is_kept_of_its_connection() {
        local(async {
            let account = Arc::new(Ledger::default()).open();
            let (session, batches) = collector();
            let mut gate = Gate::new(unbounded_channel().0);
            let link = Link { session, share: account.share() };
            let way = gate.connect(ConnectionId::new(1), link);
            assert_eq!(way, Way(0));
            for _ in 0..2 {
                gate.pass(&mut delivery(1, More::Never));
            }
            settle().await;
            assert_eq!(batches.take().len(), 1);
            assert!(gate.links.is_empty());
        })
        .await;
    }
}
