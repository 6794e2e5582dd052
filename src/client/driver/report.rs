//! Tells who wants to know what becomes of the session.

use tokio::sync::broadcast;

use crate::client::core::Welcome;
use crate::client::lease::{Belief, Lease};
use crate::client::session_event::SessionEvent;
use crate::types::{FencingToken, LostReason, SessionId, Timestamp};

use super::{Connector, Driver};

/// What was told of the session last.
pub(super) struct Reporter {
    /// Where it is told. Nobody is waited for.
    events: broadcast::Sender<SessionEvent>,
    /// The session that was welcome last.
    session: Option<SessionId>,
    /// Whether there was a connection.
    is_open: bool,
    /// How sure the lease was; none while nobody wants to know.
    standing: Option<Belief>,
    /// Whether the end was told.
    has_ended: bool,
}

impl Reporter {
    pub(super) fn new(events: broadcast::Sender<SessionEvent>) -> Self {
        Self { events, session: None, is_open: false, standing: None, has_ended: false }
    }

    fn tell(&self, event: SessionEvent) {
        // If nobody wants to know, that is no error.
        let _ = self.events.send(event);
    }

    /// The session is welcome, over whichever connection.
    pub(super) fn welcomed(&mut self, welcome: &Welcome) {
        let Welcome { session, epoch, .. } = *welcome;
        let is_known = self.session.replace(session) == Some(session);
        self.is_open = true;
        self.tell(if is_known {
            SessionEvent::Resumed { session, epoch }
        } else {
            SessionEvent::Connected { session, epoch }
        });
    }

    /// What was granted with `token` is lost.
    pub(super) fn lost(&self, token: FencingToken, reason: LostReason) {
        self.tell(SessionEvent::Lost { token, reason });
    }

    /// The lease is as sure as that.
    fn stands(&mut self, standing: Belief) {
        match (self.standing.replace(standing), standing) {
            (Some(Belief::Sure), Belief::Doubtful | Belief::Lapsed) => {
                self.tell(SessionEvent::Jeopardy);
            }
            (Some(Belief::Doubtful | Belief::Lapsed), Belief::Sure) => {
                self.tell(SessionEvent::Recovered);
            }
            (None | Some(_), _) => {}
        }
    }
}

impl<C: Connector> Driver<C> {
    /// Tells of a connection that is lost, before what follows from it.
    pub(super) fn report_connection(&mut self) {
        let is_open = self.core.is_open();
        let was_open = std::mem::replace(&mut self.reporter.is_open, is_open);
        // Of a connection that is the last, the end is told.
        if was_open && !is_open && self.core.end().is_none() {
            self.reporter.tell(SessionEvent::Disconnected { cause: self.away() });
        }
    }

    /// Tells how sure the lease is, if that has changed, and of the end.
    pub(super) fn report_standing(&mut self) {
        if let Some(end) = self.end.get().filter(|_| !self.reporter.has_ended) {
            self.reporter.has_ended = true;
            return self.reporter.tell(SessionEvent::Closed { cause: end.clone() });
        }
        if self.reporter.events.receiver_count() == 0 {
            self.reporter.standing = None;
        } else if self.core.lease().is_some() {
            self.reporter.stands(self.lease.standing(self.clock.now()));
        }
    }

    /// When the lease will not be sure any more, if somebody wants to know.
    pub(super) fn report_due(&self) -> Option<Timestamp> {
        match self.reporter.standing? {
            Belief::Sure => self.core.lease().map(Lease::doubtful_from),
            Belief::Doubtful | Belief::Lapsed => None,
        }
    }
}
