//! The story of the locks, in log lines: a line says what happened, then who and what.
//!
//! Debug tells every request's way: received, queued, grant sent, release received. Info tells of
//! sessions, a warning of deadlocks. Nothing is formatted that is not printed, and the engine tells
//! what happens to requests only while somebody listens.

use std::fmt;
use std::time::Duration;

use log::{debug, info, log_enabled, warn};

use crate::engine::{
    Account, CYCLE_TOLD_MAX, Command, Counts, CycleLink, EndReason, Event, Happening, Snapshot,
    Standing,
};
use crate::types::{Claim, Generation, Identity, LockName, OwnerId, RequestId, SessionId, Ttl};

/// Whether the way of requests is told.
pub(super) fn is_told() -> bool {
    log_enabled!(log::Level::Debug)
}

/// Who said something, or is told.
#[derive(Clone, Copy)]
pub(super) struct Who<'a> {
    /// The session.
    pub(super) session: SessionId,
    /// Its identity; none if no connection of it is there.
    pub(super) identity: Option<&'a Identity>,
}

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session={}", self.session)?;
        match self.identity {
            Some(identity) => write!(f, " identity={identity:?}"),
            None => Ok(()),
        }
    }
}

/// Names of locks, one after the other.
struct Names<'a>(&'a [Claim]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Claim { name, .. }) in self.0.iter().enumerate() {
            write!(f, "{}{name:?}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// A session's client said something. What becomes of requests is told as it happens; this is about
/// the rest.
pub(super) fn received(who: Who<'_>, event: &Event) {
    let Event::Command { command, .. } = event else { return };
    match command {
        Command::Reclaim(reclaim) => {
            let names = Names(reclaim.claims.as_slice());
            let (request, token) = (reclaim.id, reclaim.token);
            debug!("reclaim received {who} request={request} lock={names} token={token}");
        }
        Command::Account(Account { from, to, held, waiting }) => {
            let (held, waiting) = (held.len(), waiting.len());
            debug!("account received {who} from={from} to={to} held={held} waiting={waiting}");
        }
        Command::Unparsed { request, rejection } => {
            debug!("request received {who} request={request} (not well formed: {rejection})");
        }
        Command::Request(_)
        | Command::Release { .. }
        | Command::Cancel { .. }
        | Command::KeepAlive { .. }
        | Command::Goodbye => {}
    }
}

/// Something happened to a request.
pub(super) fn happened(who: Who<'_>, request: RequestId, claims: &[Claim], what: &Happening) {
    let names = Names(claims);
    let about = format_args!("{who} request={request} lock={names}");
    match what {
        Happening::Requested => debug!("request received {about}"),
        Happening::Queued { position } => debug!("request queued {about} position={position}"),
        Happening::Granted { token } => debug!("grant sent {about} token={token}"),
        Happening::Released { token } => debug!("release received {about} token={token}"),
        Happening::Cancelled => debug!("cancelled {about}"),
        Happening::Lost { token, reason } => debug!("lost {about} token={token} reason={reason}"),
        Happening::Rejected(rejection) => {
            debug!("rejected {about} code={}: {rejection}", rejection.code());
        }
    }
}

/// A request is rejected because those of the cycle would wait for each other for ever.
pub(super) fn deadlock(who: Who<'_>, request: RequestId, cycle: &[CycleLink]) {
    warn!("deadlock refused {who} request={request}: {}", Cycle(cycle));
}

/// Who waits for whom, all round.
struct Cycle<'a>(&'a [CycleLink]);

impl fmt::Display for Cycle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(cycle) = self;
        for (i, link) in cycle.iter().enumerate() {
            let CycleLink { session, identity, owner, request, lock, held_with } = link;
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{}", Who { session: *session, identity: Some(identity) })?;
            if *owner != OwnerId::default() {
                write!(f, " owner={owner}")?;
            }
            write!(f, " request={request} waits for {lock:?}")?;
            match held_with {
                Some(token) => write!(f, ", held by the next with token={token}")?,
                None => f.write_str(", behind the next in line")?,
            }
        }
        if cycle.len() == CYCLE_TOLD_MAX { f.write_str("; perhaps more") } else { Ok(()) }
    }
}

/// A connection has its session.
pub(super) fn attached(who: Who<'_>, generation: Generation, ttl: Ttl, standing: Standing) {
    match standing {
        Standing::Opened => info!("session opened {who} ttl={ttl}"),
        Standing::Resumed => info!("session resumed {who} connection={generation}"),
        Standing::Reopened { .. } => {
            info!("session came back after a crash {who} connection={generation} ttl={ttl}");
        }
    }
}

/// A run begins, with what the one before left: `grace`, if that crashed.
pub(super) fn began(counts: &Counts, grace: Option<Duration>) {
    let Counts { sessions, held, waiting, .. } = counts;
    if *sessions > 0 {
        info!("going on after an orderly stop: sessions={sessions} held={held} waiting={waiting}");
    }
    if let Some(grace) = grace {
        info!("grace period of {grace:.1?}: holders may reclaim, nobody else is granted");
    }
}

/// The grace period is over.
pub(super) fn grace_ended(counts: &Counts) {
    let Counts { sessions, held, waiting, .. } = counts;
    info!("grace period over sessions={sessions} held={held} waiting={waiting}");
}

/// Everything is about to be saved, for the next run.
pub(super) fn saving(snapshot: &Snapshot) {
    let (sessions, requests) = (snapshot.session_count(), snapshot.request_count());
    info!("saving everything for the next start: sessions={sessions} requests={requests}");
}

/// A session is over.
pub(super) fn ended(
    who: Who<'_>,
    reason: EndReason,
    held: usize,
    waiting: usize,
    lock: Option<&LockName>,
) {
    let what = match reason {
        EndReason::Goodbye => "session ended",
        EndReason::Expired => "lease expired",
        EndReason::Disconnected => "session disconnected",
        EndReason::Displaced => "session made room for one from before the restart",
    };
    match lock {
        Some(lock) => info!("{what} {who} held={held} waiting={waiting} lock={lock:?}"),
        None => info!("{what} {who} held={held} waiting={waiting}"),
    }
}
