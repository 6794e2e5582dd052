//! Waits of the dialect: a connection that waits in line is told when it is granted, and says nothing
//! before. What it has said behind that is heard then.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use super::super::rights::no_permission;
use super::holds::{DeskHolds, unwritten};
use super::{Batch, Desk};
use crate::access::Denied;
use crate::engine::{Event, Prolong, Rejection, RequestEvent};
use crate::redis::{Holds, Protocol, Reply, Said, Wait as Asked};
use crate::server::ledger::Unheard;
use crate::types::{ConnectionId, FencingToken, SessionId, Timestamp, Wait};

/// Most keys that one connection watches.
pub(super) const WATCHED_MAX: usize = 256;

/// A connection that waits.
pub(super) struct Blocked {
    /// For what this session waits for.
    pub(super) session: SessionId,
    /// For how long that holds, from its grant on.
    pub(super) term: Option<Duration>,
    /// How it is answered.
    pub(super) protocol: Protocol,
    /// What it has said behind that.
    pub(super) rest: VecDeque<Said>,
    /// Counts that.
    pub(super) unheard: Unheard,
}

/// What one who waits is told.
pub(super) enum News {
    /// It holds.
    Granted(FencingToken),
    /// It waits no longer, and why.
    No(Reply),
    /// Nobody said why: it is over.
    Left,
}

impl Desk {
    /// Asks for a lock and waits in line. Says for which session, or that it is granted already.
    pub(super) fn wait_for(
        &mut self,
        connection: ConnectionId,
        wait: &Asked,
        now: Timestamp,
    ) -> Result<Option<SessionId>, Reply> {
        let mut holds = DeskHolds { desk: self, connection, now };
        // Whoever may not look is told so.
        holds.look(&wait.key)?;
        let how_long = wait.timeout.map_or(Wait::Forever, Wait::AtMost);
        let (session, told) = holds.ask(&wait.key, &wait.mark, wait.term, how_long)?;
        match told {
            Some(RequestEvent::Granted { .. }) => Ok(None),
            Some(RequestEvent::Rejected(rejection)) => Err(refused(&rejection)),
            _ => Ok(Some(session)),
        }
    }

    /// A session without a connection was told something.
    #[cold]
    pub(in crate::server::desk) fn tell_unattended(
        &mut self,
        session: SessionId,
        event: &RequestEvent,
    ) {
        if let Some((asked, told)) = &mut self.dialect.asking
            && *asked == session
        {
            *told = Some(event.clone());
            return;
        }
        if !self.dialect.waiters.contains_key(&session) {
            return;
        }
        match event {
            RequestEvent::Granted { token } => {
                self.dialect.news.push((session, News::Granted(*token)));
            }
            RequestEvent::Rejected(rejection) => {
                self.dialect.news.push((session, News::No(refused(rejection))));
            }
            _ => {}
        }
    }

    /// What a session without a connection waits for, is not allowed any more.
    pub(in crate::server::desk) fn deny_unattended(&mut self, session: SessionId, denied: &Denied) {
        if self.dialect.waiters.contains_key(&session) {
            self.dialect.news.push((session, News::No(no_permission(denied))));
        }
    }

    /// A session that nobody attended is over.
    pub(in crate::server::desk) fn left_unattended(&mut self, session: SessionId) {
        self.rights.session_ended(session);
        if self.dialect.waiters.contains_key(&session) {
            self.dialect.news.push((session, News::Left));
        }
    }

    /// Tells those who wait what has come of it, and has the rest of what they said heard.
    pub(in crate::server::desk) fn tell_waiters(&mut self, now: Timestamp) {
        for connection in mem::take(&mut self.dialect.dismissed) {
            self.forget_talker(connection, now);
        }
        // Whoever is told *no* may make room for the next in line.
        while !self.dialect.news.is_empty() {
            self.tell_some_waiters(now);
        }
    }

    fn tell_some_waiters(&mut self, now: Timestamp) {
        for (session, news) in mem::take(&mut self.dialect.news) {
            // Of several news the first counts.
            let Some(connection) = self.dialect.waiters.remove(&session) else { continue };
            let talker = self.dialect.talkers.get_mut(&connection);
            let Some(blocked) = talker.and_then(|talker| talker.blocked.take()) else { continue };
            let Blocked { term, protocol, rest, unheard, .. } = blocked;
            let reply = match news {
                News::Granted(_) if self.is_unwritten() => {
                    self.step(&Event::Drop { session }, now);
                    Reply::from(unwritten())
                }
                // Another may have freed it in the same turn.
                News::Granted(_) if !self.table.is_alive(session) => Reply::error(
                    "COORDINATOR the lock was granted, and freed by another before this was told",
                ),
                News::Granted(token) => {
                    if let Some(term) = term {
                        // Its time begins with this turn, to the microsecond.
                        let (term, mark) = (Some(Some(term)), None);
                        let prolong = Prolong { session, term, mark };
                        self.step(&Event::Prolong(Box::new(prolong)), now);
                    }
                    Reply::Integer(i64::try_from(token.number()).unwrap_or(i64::MAX))
                }
                News::No(reply) => reply,
                News::Left => Reply::error("COORDINATOR the wait was ended"),
            };
            self.redis_say(connection, &reply, protocol);
            self.put_off_redis(Batch { connection, rest, unheard });
        }
    }

    /// A connection was said goodbye to: it is over at the end of this turn.
    pub(in crate::server::desk) fn dismiss_talker(&mut self, connection: ConnectionId) {
        self.audit_parting(connection, "dismissed");
        if self.dialect.talkers.contains_key(&connection) {
            self.dialect.dismissed.push(connection);
        }
    }

    /// A connection is over: what it waits for, it does not any more. What it holds stays held.
    pub(in crate::server::desk) fn forget_talker(
        &mut self,
        connection: ConnectionId,
        now: Timestamp,
    ) {
        let Some(talker) = self.dialect.talkers.remove(&connection) else { return };
        if let Some(Blocked { session, .. }) = talker.blocked {
            self.dialect.waiters.remove(&session);
            self.step(&Event::Drop { session }, now);
        }
    }
}

/// What is answered to one who waited and was refused: nothing, if the lock was not to be had in time.
fn refused(rejection: &Rejection) -> Reply {
    match rejection {
        Rejection::Busy { .. }
        | Rejection::HeldOtherwise { .. }
        | Rejection::TimedOut { .. }
        | Rejection::Grace { .. } => Reply::Nil,
        other => Reply::error(format!("COORDINATOR {other}")),
    }
}
