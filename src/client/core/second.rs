//! A second connection beside one that does not answer (hedging).
//!
//! An overdue answer says little. The server may stand still, the network may be slow, or a router
//! may have forgotten this one connection. So the first is kept, and heard, while a second is made.
//! The one that is answered first counts. Once the second is welcome, the server has done with the
//! first (rule S2). Then it is as after any lost connection: unanswered messages are repeated.
//!
//! A Hello cannot be taken back. From then on the server may hear nothing more over the first
//! connection, so messages there are sent in hope only. If the second is given up after it, the
//! first may hear that it is superseded, by nobody else than us.
//!
//! There is one of these at a time. A server that stands still gets one before the first connection is
//! given up, however often that is looked at.

use std::time::Duration;

use crate::types::{GoodbyeCode, RejectionCode, Timestamp, lease};
use crate::wire::{ClientMessage, ServerMessage};

use super::connection::{Away, Greeting, Open, Phase, Second};
use super::{Core, End};

/// A Welcome is waited for as long as this many overdue answers: until the first connection is given up too.
const WELCOME_ANSWERS: u32 = 6;
/// The same if there are several servers: each is tried before that.
const WELCOME_ANSWERS_OF_SEVERAL: u32 = 2;

impl Core {
    /// The number of the second connection that is wanted, or made, or there.
    pub(crate) fn second_connection(&self) -> Option<u64> {
        match self.second()? {
            Second::Pausing(_) => None,
            Second::Dialing { number, .. } | Second::Greeting { number, .. } => Some(number),
        }
    }

    pub(super) fn second(&self) -> Option<Second> {
        match &self.phase {
            Phase::Open(open) => open.second,
            Phase::Greeting(_) | Phase::Away(_) | Phase::Ended(_) => None,
        }
    }

    fn set_second(&mut self, second: Option<Second>) {
        if let Phase::Open(open) = &mut self.phase {
            open.second = second;
        }
    }

    /// There is none any more.
    pub(super) fn take_second(&mut self) -> Option<Second> {
        let second = self.second();
        self.set_second(None);
        second
    }

    /// When there is something to do on a connection.
    pub(super) fn open_deadline(&self, open: &Open) -> Timestamp {
        let second = match open.second {
            Some(second) => second.deadline(),
            None => self.overdue_at(open),
        };
        [second, open.given_up_at()].into_iter().flatten().fold(open.keep_alive_due, Timestamp::min)
    }

    /// When an answer is overdue, if there can be another connection.
    fn overdue_at(&self, open: &Open) -> Option<Timestamp> {
        open.overdue_at(self.patience, self.ttl()).filter(|_| self.can_reconnect())
    }

    pub(super) fn is_overdue(&self, now: Timestamp) -> bool {
        match &self.phase {
            Phase::Open(open) => self.overdue_at(open).is_some_and(|at| at <= now),
            Phase::Greeting(_) | Phase::Away(_) | Phase::Ended(_) => false,
        }
    }

    /// Tries a second connection if the first does not answer, and again if that fails.
    pub(super) fn try_second_if_due(&mut self, now: Timestamp) {
        match self.second() {
            None if self.is_overdue(now) => {
                // That an answer is overdue is pause enough, whatever was tried before.
                self.backoff.reward();
                self.try_second(now);
            }
            Some(Second::Pausing(until)) if now >= until => self.dial_second(now),
            Some(Second::Dialing { until, .. } | Second::Greeting { until: Some(until), .. })
                if now >= until =>
            {
                self.give_second_up(now);
            }
            None | Some(_) => {}
        }
    }

    /// Begins one, after the pause that is due.
    pub(super) fn try_second(&mut self, now: Timestamp) {
        let pause = self.pause(now);
        if pause.is_zero() {
            self.dial_second(now);
        } else {
            self.set_second(Some(Second::Pausing(now.after(pause))));
        }
    }

    pub(super) fn dial_second(&mut self, now: Timestamp) {
        self.connections += 1;
        self.leader.attempt(self.connections);
        let (number, until) = (self.connections, now.after(self.attempt_max()));
        self.set_second(Some(Second::Dialing { number, until }));
    }

    /// The second connection is made: gives what is to be said over it, and nothing else before it is
    /// welcome.
    pub(crate) fn second_connected(&mut self, now: Timestamp) -> Option<ClientMessage> {
        #[cfg(test)]
        self.note(format_args!("second {}", now.as_micros()));
        let Some(Second::Dialing { number, .. }) = self.second() else { return None };
        let is_expendable = self.introduction.linger_ms.is_none();
        let answers = if self.leader.is_one_of_several() {
            WELCOME_ANSWERS_OF_SEVERAL
        } else {
            WELCOME_ANSWERS
        };
        let patience = lease::answer_max(self.ttl()) * answers;
        let until = is_expendable.then(|| now.after(patience));
        self.set_second(Some(Second::Greeting { number, hello_sent: now, until }));
        let hello = self.hello();
        #[cfg(test)]
        self.note_said(&hello);
        Some(hello)
    }

    /// The second connection ended, or could not be made.
    pub(crate) fn second_lost(&mut self, now: Timestamp) {
        #[cfg(test)]
        self.note(format_args!("second_lost {}", now.as_micros()));
        self.give_second_up(now);
    }

    /// The second connection ended, or takes too long.
    fn give_second_up(&mut self, now: Timestamp) {
        if self.take_second().is_some_and(Second::has_greeted) {
            // It may have been the session's.
            self.linger_from(now);
            self.lapse_if_due(now);
        }
        if self.is_overdue(now) {
            self.try_second(now);
        }
    }

    /// Handles what was heard over the second connection. If it is welcome, it is the one and only from
    /// here on.
    pub(crate) fn receive_second(&mut self, message: ServerMessage, now: Timestamp) {
        #[cfg(test)]
        self.note_message(format_args!("second_receive {}", now.as_micros()), &message);
        let Some(second @ Second::Greeting { .. }) = self.second() else { return };
        self.lapse_if_due(now);
        match message {
            ServerMessage::Welcome { epoch, .. } if self.is_deposed(epoch) => {
                self.give_second_up(now);
            }
            ServerMessage::Welcome { .. } => self.replace_by(second, message, now),
            ServerMessage::Goodbye { code: GoodbyeCode::NotLeader, message: ref hint, .. } => {
                self.second_not_the_leader(hint, now);
            }
            ServerMessage::Goodbye { code, rejection, .. } => {
                match (code, rejection) {
                    // The first connection is one of a session that is no more.
                    (GoodbyeCode::Refused, RejectionCode::UnknownSession) => {
                        self.replace_by(second, message, now);
                    }
                    (GoodbyeCode::Refused, RejectionCode::StaleGeneration) => {
                        self.leap_generation();
                        self.second_refused(now);
                    }
                    // No reason to let go of the first, which may only be slow.
                    _ => self.second_refused(now),
                }
            }
            // Whoever that is: if the first connection is at its end, the next will tell.
            _ => self.give_second_up(now),
        }
    }

    /// The server did not take the second connection for the session's.
    fn second_refused(&mut self, now: Timestamp) {
        self.take_second();
        if self.is_overdue(now) {
            self.try_second(now);
        }
    }

    /// The second connection takes the place of the first, and hears `message`.
    fn replace_by(&mut self, second: Second, message: ServerMessage, now: Timestamp) {
        self.trouble = End::Silent(self.silence(now));
        self.messages.clear();
        self.forget_what_the_account_covers();
        self.interrupt_looks();
        if self.go_on_with(second, now) {
            self.greet(message, now);
        }
    }

    /// How long nothing was heard.
    fn silence(&self, now: Timestamp) -> Duration {
        match &self.phase {
            Phase::Open(open) => now.since(open.heard),
            Phase::Greeting(_) | Phase::Away(_) | Phase::Ended(_) => Duration::ZERO,
        }
    }

    /// The first connection is superseded by one of our own.
    pub(super) fn superseded(&mut self, end: End, now: Timestamp) {
        match self.take_second() {
            // By this one: it is the session's, whose end nobody has seen.
            Some(second) if second.has_greeted() => {
                self.trouble = end;
                self.messages.clear();
                self.forget_what_the_account_covers();
                self.interrupt_looks();
                self.go_on_with(second, now);
            }
            // By one that was given up.
            Some(_) | None => self.go_away(end, now),
        }
    }

    /// The second connection is the only one, if there is one.
    pub(super) fn go_on_with(&mut self, second: Second, now: Timestamp) -> bool {
        let (number, phase) = match second {
            Second::Pausing(_) => return false,
            Second::Dialing { number, until } => (number, Phase::Away(Away::Dialing(until))),
            Second::Greeting { number, hello_sent, until } => {
                let give_up_at = Some(until.unwrap_or_else(|| now.after(self.attempt_max())));
                (number, Phase::Greeting(Greeting { hello_sent, give_up_at }))
            }
        };
        (self.current, self.phase) = (number, phase);
        true
    }
}
