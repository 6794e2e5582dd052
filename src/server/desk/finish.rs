//! The end of a turn: what it has come to, how much it may still do, and when the next one is due.

use std::mem;

use super::Desk;
use super::backlog::TURN_STEPS_MAX;
use super::turn::Turn;
use crate::server::log_lines;
use crate::types::Timestamp;

impl Desk {
    /// Ends a turn: puts together what has come of it, and sees that what is due is asked for.
    pub(in crate::server) fn finish_turn(&mut self, now: Timestamp) -> &mut Turn {
        if self.rights.is_changing() {
            self.look_through_changed(now);
            self.withdraw_forbidden(now);
        }
        #[cfg(feature = "redis-api")]
        self.tell_waiters(now);
        self.show_changed(now);
        // Whatever brought this turn: the timer may be late, or set to something else.
        self.serve_looks(now);
        self.tell_refused(now);
        // Half a turn before it has to: so nobody is put off who says no more than the others.
        let has_more =
            !self.backlog.is_empty() || !self.showing.is_empty() || self.rights.is_changing();
        #[cfg(feature = "redis-api")]
        let has_more = has_more || self.has_redis_waiting();
        if has_more || self.is_half_spent() {
            self.go_on_later();
        }
        self.connections.reuse(&mut self.turn.spare);
        let has_more_to_do = |connection| self.backlog.holds(connection);
        self.connections.deliver(has_more_to_do, &mut self.turn.deliveries);
        let looks = [self.next_look(now), self.rights.refusals.next_deadline()];
        let looks = looks.into_iter().flatten().min();
        match self.next_tick() {
            Some(deadline) if deadline <= now => {
                self.listen(now);
                self.turn.rings = looks;
            }
            deadline => self.turn.rings = [deadline, looks].into_iter().flatten().min(),
        }
        if self.in_grace && self.table.grace_left().is_none() {
            self.in_grace = false;
            self.turn.lines.push(log_lines::grace_ended(&self.table.counts()));
        }
        if self.is_draining && self.table.counts().held == 0 {
            self.is_draining = false;
            self.turn.is_drained = true;
        }
        &mut self.turn
    }

    /// When [`Desk::ring`] is due, or before: one that comes before finds nothing to do, so that
    /// the renewal of a lease costs nothing here. While there are sessions, that is never far. The
    /// table wants to hear that time passes, so that it notices when it did not (rule T3). None
    /// while nothing is due, or [`Desk::tick`] is to come anyway; and nobody rests who would look.
    #[cfg(test)]
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        let looks = self.next_of_desk().filter(|_| self.over.is_none());
        [self.next_tick(), looks].into_iter().flatten().min()
    }

    /// When somebody may look who rests, or hears that it is refused.
    pub(super) fn next_of_desk(&self) -> Option<Timestamp> {
        let refused = self.rights.refusals.next_deadline();
        [self.looks.next_deadline(), refused].into_iter().flatten().min()
    }

    /// When the table is to be told that time has passed; none if that is to come anyway.
    fn next_tick(&self) -> Option<Timestamp> {
        if self.over.is_some() || self.is_listening { None } else { self.table.next_deadline() }
    }

    /// When the next may look who rests. None if it may by now: then this turn has done enough, and
    /// another is to come.
    fn next_look(&self, now: Timestamp) -> Option<Timestamp> {
        self.looks.next_deadline().filter(|at| *at > now && self.over.is_none())
    }

    /// Has the next turn come once every socket was looked at.
    pub(super) fn go_on_later(&mut self) {
        if !mem::replace(&mut self.is_going_on, true) {
            self.turn.goes_on = true;
        }
    }

    /// Lets what is due by `now` happen as soon as everything is heard that could be read by then.
    /// A lease never ends while the message that would have renewed it lies unread (rule T4).
    pub(super) fn listen(&mut self, now: Timestamp) {
        if !mem::replace(&mut self.is_listening, true) {
            self.turn.listens = Some(now);
        }
    }

    /// Steps taken since the start.
    pub(super) fn steps(&self) -> u64 {
        self.table.steps() + self.looked
    }

    /// Whether this turn has done enough, and the sockets are to be looked at.
    pub(super) fn is_spent(&self) -> bool {
        self.steps() >= self.steps_until_look
    }

    /// Whether the sockets are better looked at before it has.
    fn is_half_spent(&self) -> bool {
        self.steps() + TURN_STEPS_MAX / 2 >= self.steps_until_look
    }
}
