//! The way to the coordinator that leads, where several are a cluster.
//!
//! A member that does not lead says Goodbye, and who does (a hint). The client goes there at once:
//! nothing has failed, and belief in the lease runs on. A hint is only a hint. It may be late, false,
//! or one of two that name each other. So few are followed in a row, then there is a pause as after any
//! failure. A hint counts for the next attempt alone, beside the servers that the application
//! named.
//!
//! A leader that was deposed may not know it yet, and welcome us. Its epoch gives it away: it is smaller
//! than one that we have heard of. It is not believed, whatever it says.

use crate::types::{Epoch, ServerAddress, Timestamp};

use super::connection::{Phase, Second};
use super::{Core, End, Reconnect};

/// So many hints are followed in a row, without a pause. The first leads from a standby to the leader.
/// Another change of leader meanwhile needs one more, and one is to spare.
pub(super) const HINTS_AT_ONCE_MAX: u32 = 3;

/// What is known of who leads.
#[derive(Debug)]
pub(super) struct Leader {
    /// Where the next attempt goes first.
    next: Option<ServerAddress>,
    /// Where the latest attempt that had a hint went first, by its number.
    latest: Option<(u64, ServerAddress)>,
    /// Hints that were followed since the last attempt without one.
    followed: u32,
    /// Whether there are several servers, of which one leads at a time.
    is_one_of_several: bool,
    /// So many in a row were no coordinators of our version.
    pub(super) strangers: usize,
}

impl Leader {
    pub(super) fn new(reconnect: Option<&Reconnect>) -> Self {
        let is_one_of_several = reconnect.is_some_and(|reconnect| reconnect.servers > 1);
        Self { next: None, latest: None, followed: 0, is_one_of_several, strangers: 0 }
    }

    /// Whether another server may lead.
    pub(super) fn is_one_of_several(&self) -> bool {
        self.is_one_of_several
    }

    /// An attempt of this `number` begins.
    pub(super) fn attempt(&mut self, number: u64) {
        if let Some(hint) = self.next.take() {
            self.latest = Some((number, hint));
        }
    }

    /// The next attempt is made after the pause that is due.
    pub(super) fn pauses(&mut self) {
        self.followed = 0;
    }

    /// A connection is welcome: what was said of others before is out of date.
    pub(super) fn found(&mut self) {
        self.next = None;
    }

    /// A server names this one as the leader. Whether to go there at once.
    fn hear(&mut self, text: &str) -> bool {
        self.is_one_of_several = true;
        self.next = ServerAddress::new(text).ok();
        let at_once = self.next.is_some() && self.followed < HINTS_AT_ONCE_MAX;
        self.followed += u32::from(at_once);
        at_once
    }
}

impl Core {
    /// Where the connection of this number is to be tried first: somebody says that the leader is there.
    pub(crate) fn hint(&self, connection: Option<u64>) -> Option<&ServerAddress> {
        let (number, hint) = self.leader.latest.as_ref()?;
        (Some(*number) == connection).then_some(hint)
    }

    /// The server does not lead, and `hint` is what it says of who does.
    pub(super) fn not_the_leader(&mut self, end: End, hint: &str, now: Timestamp) {
        let at_once = self.leader.hear(hint);
        // One over which Hello was said may be the session's by now.
        let has_greeted = self.second().is_some_and(Second::has_greeted);
        if !at_once || has_greeted {
            return self.go_away(end, now);
        }
        self.take_second();
        self.leave(end, now);
        self.dial(now);
    }

    /// The same, of the second connection.
    pub(super) fn second_not_the_leader(&mut self, hint: &str, now: Timestamp) {
        let at_once = self.leader.hear(hint);
        self.take_second();
        if !self.is_overdue(now) {
            self.leader.next = None;
        } else if at_once {
            self.dial_second(now);
        } else {
            self.try_second(now);
        }
    }

    /// Whether a server of this `epoch` has been deposed by one that we have heard of.
    pub(super) fn is_deposed(&self, epoch: Epoch) -> bool {
        self.leader.is_one_of_several && epoch < self.epoch_seen && self.can_reconnect()
    }

    /// What a deposed leader says means nothing.
    pub(super) fn disbelieve(&mut self, epoch: Epoch, now: Timestamp) {
        debug_assert!(matches!(self.phase, Phase::Greeting(_)), "it is welcome already");
        self.go_away(End::Deposed { epoch }, now);
    }
}
