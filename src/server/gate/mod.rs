//! The gate: the only way out of the Coordinator, in the order of its decisions.
//!
//! A turn is decided before anything of it is said. The gate stands between the two (output
//! commit). Orders to the store and deliveries to sessions go through one door, and so do answers
//! to questions, watched locks and events, and the lines of the log that tell of them. Nobody sees a later decision before an earlier one. The
//! journal holds the door, if there is one. It opens when all events behind the waiting messages
//! are written (rule J1).
//!
//! Deliveries are counted here, for all connections together (`ledger`).

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::mem;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use bytes::BytesMut;
use foldhash::fast::RandomState;
use log::error;
use slab::Slab;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::desk::BATCH_BYTES_MAX;
use super::desk::turn::{Deliver, Delivery, More, Promise, Turn, Way};
use super::durable::chronicle::{Chronicle, Done, Flushed};
use super::durable::{Change, Order};
use super::fields::Lines;
use super::ledger::Share;
use super::slots;
use super::threshold::Threshold;
use crate::types::ConnectionId;

/// A buffer of frames that is larger than this gives its memory back.
const FRAMES_BYTES_KEPT: usize = 4 * 1024;
/// The memory of so many parts is kept: more do not wait at a time, be it for a disk or at the threshold.
const PARTS_KEPT: usize = 2;

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
    /// Lines of the log that do: what they tell is to be true after a crash, too.
    held_lines: Lines,
    /// What waits for what a thread is writing down, or to be said: in its order, in parts of which each waits for itself.
    written: VecDeque<Written>,
    /// Memory of such parts.
    idle: Vec<Written>,
    /// So many of the deliveries that wait for the next flush are counted: the first.
    counted: usize,
    /// What is to be said waits here after it is written, of one of several.
    pub(super) threshold: Threshold,
    /// Whether what is appended is to be written, though nobody waits for that.
    writes_soon: bool,
    /// Since when the journal of this machine keeps all back, if it does.
    halted_since: Option<Instant>,
}

/// What waits together.
#[derive(Default)]
struct Written {
    orders: Vec<Change>,
    /// All of them are counted.
    deliveries: Vec<Delivery>,
    lines: Lines,
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
            held_lines: Lines::default(),
            written: VecDeque::new(),
            idle: Vec::new(),
            counted: 0,
            threshold: Threshold::default(),
            writes_soon: false,
            halted_since: None,
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

    /// Lets all out that a turn came to. If it is to be written down first, it waits for
    /// [`Gate::flush`], with all that comes behind it.
    pub(super) fn pass(&mut self, turn: &mut Turn) {
        turn.spare.append(&mut self.spare);
        let waits = self.threshold.is_there();
        let chronicle = self.chronicle.as_mut().filter(|it| it.holds_the_door() || waits);
        let Some(chronicle) = chronicle else {
            turn.record.clear();
            // First what waited for a journal that is given up by now.
            self.release_unwritten();
            turn.lines.log();
            return self.let_out(&mut turn.orders, &mut turn.deliveries, 0);
        };
        for change in &turn.orders {
            if let Change::Durable(durable) = change {
                chronicle.epoch(Some(durable.epoch), None);
            }
        }
        for part in turn.record.parts() {
            chronicle.append(part);
            self.threshold.append(part);
        }
        turn.record.clear();
        self.held_orders.append(&mut turn.orders);
        self.held.append(&mut turn.deliveries);
        self.held_lines.append(&mut turn.lines);
    }

    /// Writes down what led to all that waits, and lets it out. None if nothing does.
    pub(super) fn flush(&mut self) -> Option<Flushed> {
        let is_held = self.is_held();
        // What a thread could not write waits for a journal that is void.
        if !is_held && self.written.is_empty() && !self.writes_soon {
            return None;
        }
        let chronicle = self.chronicle.as_mut()?;
        // Behind what is waited for, only what is to be said as well goes, and nothing behind a journal that is given up.
        let goes_behind = is_held && chronicle.holds_the_door();
        let waits = self.threshold.is_full() || self.threshold.is_closed() && !goes_behind;
        // What a disk refuses is tried again, or it would be waited for even when the disk is well.
        if waits && !chronicle.is_stuck() {
            self.count_held();
            return Some(Flushed::Later);
        }
        let flushed = chronicle.flush();
        self.writes_soon = false;
        self.note_halt(&flushed);
        match flushed {
            Flushed::Written(_) | Flushed::Behind if self.threshold.is_there() => self.wait(true),
            Flushed::Written(_) | Flushed::Behind => self.release(),
            Flushed::Off if self.threshold.is_there() => {
                self.void_promises();
                self.threshold.give_up();
                if self.threshold.is_closed() {
                    self.threshold.written();
                    self.try_threshold();
                }
                if self.threshold.is_closed() {
                    self.count_held();
                } else {
                    self.wait(true);
                }
            }
            Flushed::Off => self.release_unwritten(),
            Flushed::Writing(_) => self.wait(false),
            Flushed::Later | Flushed::Stuck => self.count_held(),
        }
        Some(flushed)
    }

    /// Takes note of whether the journal of this machine keeps all back.
    fn note_halt(&mut self, flushed: &Flushed) {
        match flushed {
            Flushed::Writing(_) | Flushed::Stuck => {
                self.halted_since.get_or_insert_with(Instant::now);
            }
            Flushed::Later => {}
            Flushed::Written(_) | Flushed::Behind | Flushed::Off => self.halted_since = None,
        }
    }

    /// The journal was begun with the table of now, which has all that waits.
    pub(super) fn begun_anew(&mut self) {
        self.halted_since = None;
        self.threshold.written();
        self.try_threshold();
    }

    /// For how long the journal of this machine has kept all back.
    pub(super) fn halted_for(&self) -> Duration {
        self.halted_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// What is appended is written with the next flush, though nobody waits for that.
    #[cfg(feature = "cluster")]
    pub(super) fn write_soon(&mut self) {
        self.writes_soon = true;
    }

    /// All that is held waits from now on for what is in front of it: to be written down, or to be said.
    fn wait(&mut self, is_written: bool) {
        self.count_held();
        self.counted = 0;
        let mut part = self.idle.pop().unwrap_or_default();
        mem::swap(&mut part.orders, &mut self.held_orders);
        mem::swap(&mut part.deliveries, &mut self.held);
        mem::swap(&mut part.lines, &mut self.held_lines);
        self.written.push_back(part);
        self.threshold.close(is_written);
        self.try_threshold();
    }

    /// Lets out what is written down, if it may be said.
    pub(super) fn try_threshold(&mut self) {
        let parts = self.threshold.opens();
        self.release_written(parts);
    }

    /// Nothing that waits may be said any more.
    #[cfg(feature = "cluster")]
    pub(super) fn forsake(&mut self) {
        if !self.threshold.is_there() {
            return;
        }
        (self.threshold, self.counted) = (Threshold::default(), 0);
        (self.held_orders, self.held_lines) = Default::default();
        let written = mem::take(&mut self.written).into_iter().flat_map(|part| part.deliveries);
        for Delivery { way: Way(place), more, .. } in written.chain(self.held.drain(..)) {
            if more == More::Never {
                self.links.try_remove(place);
                slots::give_back(&mut self.links);
            }
        }
    }

    /// Whether something waits to be written down.
    fn is_held(&self) -> bool {
        !(self.held.is_empty() && self.held_orders.is_empty() && self.held_lines.is_empty())
    }

    /// What has to wait for a disk is counted as unread, so that it is bounded.
    fn count_held(&mut self) {
        for Delivery { way: Way(place), deliver, .. } in self.held.iter().skip(self.counted) {
            if let Some((link, _)) = self.links.get(*place) {
                link.count(deliver);
            }
        }
        self.counted = self.held.len();
    }

    /// A thread has written down what led to a part of what waits, which is let out; or could not.
    pub(super) fn written(&mut self, done: Option<Done>) -> Option<Flushed> {
        let flushed = self.chronicle.as_mut()?.written(done);
        self.note_halt(&flushed);
        match flushed {
            Flushed::Stuck => {}
            _ if self.threshold.is_there() => {
                if matches!(flushed, Flushed::Off) {
                    self.void_promises();
                    self.threshold.give_up();
                }
                self.threshold.written();
                self.try_threshold();
            }
            Flushed::Written(_) | Flushed::Behind | Flushed::Writing(_) | Flushed::Later => {
                self.release_written(usize::MAX);
            }
            Flushed::Off => self.release_unwritten(),
        }
        Some(flushed)
    }

    /// Lets so many parts out of what is written down.
    fn release_written(&mut self, parts: usize) {
        for _ in 0..parts.min(self.written.len()) {
            let Some(mut part) = self.written.pop_front() else { return };
            part.lines.log();
            let counted = part.deliveries.len();
            self.let_out(&mut part.orders, &mut part.deliveries, counted);
            if self.idle.len() < PARTS_KEPT {
                self.idle.push(part);
            }
        }
    }

    /// Lets all out that waits.
    fn release(&mut self) {
        self.release_written(usize::MAX);
        self.held_lines.log();
        let (mut orders, mut held) = (mem::take(&mut self.held_orders), mem::take(&mut self.held));
        let counted = mem::take(&mut self.counted);
        self.let_out(&mut orders, &mut held, counted);
        (self.held_orders, self.held) = (orders, held);
    }

    /// Lets all out that waited for what is not written down. In the place of what promises that it is, it is
    /// said that it is not.
    fn release_unwritten(&mut self) {
        self.void_promises();
        self.release();
    }

    fn void_promises(&mut self) {
        let written = self.written.iter_mut().flat_map(|part| &mut part.deliveries);
        for Delivery { deliver, .. } in written.chain(&mut self.held) {
            if deliver.promise == Promise::Recorded {
                deliver.promise = Promise::Void;
            }
        }
    }

    /// Lets these out; of the deliveries, the first so many are counted.
    fn let_out(
        &mut self,
        orders: &mut Vec<Change>,
        deliveries: &mut Vec<Delivery>,
        counted: usize,
    ) {
        for change in orders.drain(..) {
            self.order(change);
        }
        // Where they stand, for they are large to move.
        for (at, Delivery { way: Way(place), deliver, more }) in deliveries.iter_mut().enumerate() {
            if let Some((link, outlet)) = self.links.get(*place) {
                let outlet = outlet.as_ref().and_then(Weak::upgrade);
                let said = if at < counted {
                    link.send_counted(deliver, outlet.as_deref())
                } else {
                    link.send(deliver, outlet.as_deref())
                };
                if said == Said::AtOnce && deliver.frames.capacity() <= FRAMES_BYTES_KEPT {
                    let mut said = mem::take(&mut deliver.frames);
                    said.clear();
                    self.spare.push(said);
                }
            }
            if *more == More::Never {
                self.links.try_remove(*place);
                slots::give_back(&mut self.links);
            }
        }
        deliveries.clear();
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
    /// Sends what a turn has for it, counted, or has it closed if that is too much.
    fn send(&self, deliver: &mut Deliver, outlet: Option<&dyn Outlet>) -> Said {
        if deliver.bytes > BATCH_BYTES_MAX {
            self.share.close();
        } else if !self.share.is_closed() {
            if outlet.is_some_and(|outlet| outlet.say(deliver) == Said::AtOnce) {
                return Said::AtOnce;
            }
            self.share.add(deliver.bytes);
            self.session.do_send(mem::take(deliver));
        }
        Said::NotYet
    }

    /// Counts what waits here for it, or has it closed if that is too much.
    fn count(&self, deliver: &Deliver) {
        if deliver.bytes > BATCH_BYTES_MAX {
            self.share.close();
        } else {
            self.share.add(deliver.bytes);
        }
    }

    /// Sends what was counted when it had to wait.
    fn send_counted(&self, deliver: &mut Deliver, outlet: Option<&dyn Outlet>) -> Said {
        if self.share.is_closed() {
            return Said::NotYet;
        }
        if outlet.is_some_and(|outlet| outlet.say(deliver) == Said::AtOnce) {
            self.share.subtract(deliver.bytes);
            return Said::AtOnce;
        }
        self.session.do_send(mem::take(deliver));
        Said::NotYet
    }
}

#[cfg(test)]
mod tests;
