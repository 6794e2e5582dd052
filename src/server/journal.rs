//! The story of the locks, in log lines: a line says what happened, then who and what.
//!
//! Debug tells every request's way: received, queued, grant sent, release received. Info tells of
//! sessions. Nothing is formatted that is not printed, but a request costs one look at whether it
//! is to be.

use std::fmt;
use std::time::Duration;

use log::{debug, info, log_enabled};

use crate::engine::{Account, Command, Counts, EndReason, News, Snapshot, Standing};
use crate::types::{
    Claim, FencingToken, Generation, Identity, LockName, RequestId, SessionId, Ttl,
};

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
struct Names<I>(I);

impl<'a, I: Iterator<Item = &'a LockName> + Clone> fmt::Display for Names<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.clone().enumerate() {
            write!(f, "{}{name:?}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// A session's client said `command`; `locks` are those of the request that it is about.
pub(super) fn received<'a>(
    who: Who<'_>,
    command: &Command,
    locks: impl Iterator<Item = &'a LockName> + Clone,
) {
    match command {
        Command::Request(request) => {
            let claims = request.claims.as_slice();
            let names = Names(claims.iter().map(|Claim { name, .. }| name));
            debug!("request received {who} request={} lock={names}", request.id);
        }
        Command::Release { request, token } => {
            let names = Names(locks);
            debug!("release received {who} request={request} lock={names} token={token}");
        }
        Command::Cancel { request } => {
            debug!("cancel received {who} request={request} lock={}", Names(locks));
        }
        Command::Reclaim(reclaim) => {
            let claims = reclaim.claims.as_slice();
            let names = Names(claims.iter().map(|Claim { name, .. }| name));
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
        Command::KeepAlive { .. } | Command::Goodbye => {}
    }
}

/// A request's client is told `news`.
pub(super) fn told<'a>(
    who: Who<'_>,
    request: RequestId,
    news: &News,
    locks: impl Iterator<Item = &'a LockName> + Clone,
) {
    match news {
        News::Granted { token } => {
            debug!("grant sent {who} request={request} lock={} token={token}", Names(locks));
        }
        News::Queued { position, ticket: _ } => {
            let names = Names(locks);
            debug!("request queued {who} request={request} lock={names} position={position}");
        }
        News::Released => debug!("released {who} request={request}"),
        News::Cancelled => debug!("cancelled {who} request={request}"),
        News::Lost { token, reason } => lost(who, request, *token, reason),
        News::Rejected(rejection) => {
            debug!("rejected {who} request={request} code={}: {rejection}", rejection.code());
        }
    }
}

fn lost(who: Who<'_>, request: RequestId, token: FencingToken, reason: &dyn fmt::Display) {
    debug!("lost {who} request={request} token={token} reason={reason}");
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
    };
    match lock {
        Some(lock) => info!("{what} {who} held={held} waiting={waiting} lock={lock:?}"),
        None => info!("{what} {who} held={held} waiting={waiting}"),
    }
}
