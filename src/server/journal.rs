//! The story of the locks, in log lines: a line says what happened, then who and what.
//!
//! Debug tells every request's way: received, queued, grant sent, release received. Info tells of
//! sessions, and of locks that are taken away; a warning of deadlocks. Nothing is formatted that is
//! not printed, and the engine tells what happens to requests only while somebody listens. Of what one
//! peer causes again and again, the first lines are written and the rest is counted: see `chatter`.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use log::{debug, info, log_enabled, warn};

use crate::engine::{
    Account, CYCLE_TOLD_MAX, Command, Counts, CycleLink, EndReason, Event, Happening, Rejection,
    Standing,
};
use crate::types::{
    Claim, ConnectionId, Epoch, FencingToken, Generation, Identity, LockName, OwnerId, RequestId,
    SessionId, Ttl,
};
use crate::wire::ServerStatus;

/// Most of those who would wait for each other that a line names.
const LINKS_NAMED_MAX: usize = 8;
/// Most locks that a line names.
const LOCKS_NAMED_MAX: usize = 8;
/// What is asked for goes under a name of its own, so that a filter can let it pass.
const SUMMARY: &str = "coordinator::summary";

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
    /// Where its connection comes from, where that is told.
    pub(super) peer: Option<SocketAddr>,
}

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session={}", self.session)?;
        if let Some(identity) = self.identity {
            write!(f, " identity={identity:?}")?;
        }
        match self.peer {
            Some(peer) => write!(f, " peer={peer}"),
            None => Ok(()),
        }
    }
}

/// Who takes a lock away: an observer, who has no session, or a session.
#[derive(Clone, Copy)]
pub(super) struct Operator<'a> {
    /// Whose connection; it may be gone when the answer comes.
    pub(super) connection: ConnectionId,
    /// Its session, if it has one.
    pub(super) session: Option<SessionId>,
    /// What it calls itself.
    pub(super) identity: Option<&'a Identity>,
    /// Where it comes from.
    pub(super) peer: Option<SocketAddr>,
}

impl fmt::Display for Operator<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connection, session, identity, peer } = *self;
        write!(f, "connection={connection}")?;
        if let Some(session) = session {
            return write!(f, " {}", Who { session, identity, peer });
        }
        f.write_str(" session=none")?;
        identity.map_or(Ok(()), |identity| write!(f, " identity={identity:?}"))?;
        peer.map_or(Ok(()), |peer| write!(f, " peer={peer}"))
    }
}

/// Names of locks, one after the other.
struct Names<'a>(&'a [Claim]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Claim { name, .. }) in self.0.iter().take(LOCKS_NAMED_MAX).enumerate() {
            write!(f, "{}{name:?}", if i == 0 { "" } else { "," })?;
        }
        match self.0.len().saturating_sub(LOCKS_NAMED_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
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

/// How far a client is ahead of us in what it has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ahead {
    /// By so many tokens.
    tokens: u64,
    /// By so many epochs.
    epochs: u64,
}

impl Ahead {
    /// How far what a client has `seen` is ahead of `ours`; none if it is not.
    pub(super) fn of(seen: (FencingToken, Epoch), ours: (FencingToken, Epoch)) -> Option<Self> {
        let tokens = seen.0.number().saturating_sub(ours.0.number());
        let epochs = seen.1.number().saturating_sub(ours.1.number());
        (tokens > 0 || epochs > 0).then_some(Self { tokens, epochs })
    }
}

impl fmt::Display for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tokens, epochs } = self;
        let hours = tokens / TOKENS_PER_HOUR;
        write!(f, "tokens_ahead={tokens} (of {hours} hours) epochs_ahead={epochs}")
    }
}

/// Tokens that belong to an hour of the wall clock.
const TOKENS_PER_HOUR: u64 = 3600 << 20;

/// The counters move past what a client has seen. That is as it should be after a loss of the state,
/// and otherwise a client that lies.
pub(super) fn moved_ahead(who: Who<'_>, ahead: Ahead) {
    warn!("counters moved past what a client has seen {who} {ahead}");
}

/// A client that was not let in has seen later counters than ours.
pub(super) fn not_moved_ahead(peer: Option<SocketAddr>, ahead: Ahead) {
    let peer = peer.map_or_else(String::new, |peer| format!(" peer={peer}"));
    warn!("client refused that has seen later counters than ours{peer} {ahead}");
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
        for (i, link) in cycle.iter().take(LINKS_NAMED_MAX).enumerate() {
            let CycleLink { session, identity, owner, request, lock, held_with } = link;
            let separator = if i == 0 { "" } else { "; " };
            let who = Who { session: *session, identity: Some(identity), peer: None };
            write!(f, "{separator}{who}")?;
            if *owner != OwnerId::default() {
                write!(f, " owner={owner}")?;
            }
            write!(f, " request={request} waits for {lock:?}")?;
            match held_with {
                Some(token) => write!(f, ", held by the next with token={token}")?,
                None => f.write_str(", behind the next in line")?,
            }
        }
        match cycle.len() {
            CYCLE_TOLD_MAX => f.write_str("; and more"),
            all if all > LINKS_NAMED_MAX => write!(f, "; and {} more", all - LINKS_NAMED_MAX),
            _ => Ok(()),
        }
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
pub(super) fn saving(counts: &Counts) {
    let (sessions, requests) = (counts.sessions, counts.held + counts.waiting);
    info!("saving everything for the next start: sessions={sessions} requests={requests}");
}

/// Somebody wants a lock taken away.
pub(super) fn revoke_received(operator: Operator<'_>, lock: &LockName, token: FencingToken) {
    info!("revoke received {operator} lock={lock:?} token={token}");
}

/// Nothing was taken away.
pub(super) fn revoke_refused(operator: Operator<'_>, rejection: &Rejection) {
    info!("revoke refused {operator} code={}: {rejection}", rejection.code());
}

/// A lock was taken away from `holder`.
pub(super) fn revoked(
    operator: Operator<'_>,
    lock: &LockName,
    token: FencingToken,
    holder: SessionId,
    holder_identity: &Identity,
) {
    info!(
        "revoked {operator} lock={lock:?} token={token} holder_session={holder} \
         holder_identity={holder_identity:?}"
    );
}

/// How things are, for whoever asked.
pub(super) fn state(status: &ServerStatus) {
    let ServerStatus { sessions, connections, locks, held, waiting, grants, expired, .. } = status;
    info!(
        target: SUMMARY,
        "state: sessions={sessions} connections={connections} locks={locks} held={held} \
         waiting={waiting} grants={grants} expired={expired}"
    );
    let ServerStatus { version, epoch, last_token, uptime_ms, .. } = status;
    let ServerStatus { draining, grace_ms, unsaved_ms, .. } = status;
    info!(
        target: SUMMARY,
        "state: version={version} epoch={epoch} last_token={last_token} uptime_ms={uptime_ms} \
         draining={draining} grace_ms={grace_ms} unsaved_ms={unsaved_ms}"
    );
    let ServerStatus { protocol_errors, slow_readers, .. } = status;
    let ServerStatus { handshake_timeouts, connections_refused, .. } = status;
    info!(
        target: SUMMARY,
        "counters: protocol_errors={protocol_errors} slow_readers={slow_readers} \
         handshake_timeouts={handshake_timeouts} connections_refused={connections_refused}"
    );
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
