//! The story of the locks, in log lines: a line has a sentence, then the fields.
//!
//! Info tells of grants and their ends, of leases that ended early, and of revocations. Debug tells
//! of sessions, and the rest of every request's way. A warning tells of deadlocks. Nothing is
//! formatted that is not printed, and the engine tells the events of requests only while somebody
//! listens. What the engine has decided is told as a [`Line`]: it is logged when it is written down,
//! so that no crash can undo it (rule J1). Lines that one peer causes again and again are written at first and then counted: see
//! `chatter` and `tenures`.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use log::{Level, info, log_enabled};

use crate::access::{Denied, Unproven};
use crate::engine::{
    CYCLE_TOLD_MAX, Command, Counts, EndReason, Happened, Listening, Rejection, RequestEvent,
    Tenure,
};
use crate::server::desk::render;
use crate::server::fields::{self, Fields, Line};
use crate::types::{
    Account, Claim, ConnectionId, CycleLink, Epoch, FencingToken, Generation, Identity, LockName,
    OwnerId, RequestId, SessionId, Standing, Ttl,
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
    log_enabled!(Level::Debug)
}

/// What the log wants to hear of requests. Asked for every event: what the filter says in detail is
/// looked at when there is something to tell.
pub(super) fn listening() -> Listening {
    if is_told() {
        Listening::Everything
    } else if log::max_level() >= Level::Info {
        Listening::Tenures
    } else {
        Listening::Nothing
    }
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

impl<'a> Who<'a> {
    /// The same as fields.
    fn add_to(&'a self, fields: &mut Fields<'a>) {
        fields.add_shown("session", &self.session);
        if let Some(identity) = self.identity {
            fields.add("identity", identity.as_str());
        }
        if let Some(peer) = &self.peer {
            fields.add_shown("peer", peer);
        }
    }
}

/// Who takes a lock away: an observer, who has no session, or a session.
#[derive(Clone, Copy)]
pub(super) struct Operator<'a> {
    /// Its connection; it may be gone when the answer comes.
    pub(super) connection: ConnectionId,
    /// Its session, if it has one.
    pub(super) session: Option<SessionId>,
    /// What it calls itself.
    pub(super) identity: Option<&'a Identity>,
    /// Where it comes from.
    pub(super) peer: Option<SocketAddr>,
}

impl<'a> Operator<'a> {
    fn add_to(&'a self, fields: &mut Fields<'a>) {
        fields.add_shown("connection", &self.connection);
        match &self.session {
            Some(session) => fields.add_shown("session", session),
            None => fields.add_shown("session", &"none"),
        }
        if let Some(identity) = self.identity {
            fields.add("identity", identity.as_str());
        }
        if let Some(peer) = &self.peer {
            fields.add_shown("peer", peer);
        }
    }
}

/// Names of locks, as a list.
fn add_locks<'a>(claims: &'a [Claim], fields: &mut Fields<'a>) {
    for Claim { name, .. } in claims.iter().take(LOCKS_NAMED_MAX) {
        fields.add("lock", name.as_str());
    }
    if claims.len() > LOCKS_NAMED_MAX {
        fields.add("more_locks", claims.len() - LOCKS_NAMED_MAX);
    }
}

/// A session's client said something. What becomes of requests is told as it happens; this is about
/// the rest.
pub(super) fn received(who: Who<'_>, command: &Command) {
    let mut fields = Fields::default();
    who.add_to(&mut fields);
    let why;
    let sentence = match command {
        Command::Reclaim(reclaim) => {
            fields.add("request", reclaim.id.number());
            add_locks(reclaim.claims.as_slice(), &mut fields);
            fields.add("token", reclaim.token.number());
            "reclaim received"
        }
        Command::Account(Account { from, to, held, waiting }) => {
            fields.add("from", from.number());
            fields.add("to", to.number());
            fields.add("held", held.len());
            fields.add("waiting", waiting.len());
            "account received"
        }
        Command::Unparsed { request, rejection } => {
            why = rejection.to_string();
            fields.add("request", request.number());
            fields.add("why", why.as_str());
            "request received that is not well formed"
        }
        Command::Request(_)
        | Command::Release { .. }
        | Command::Cancel { .. }
        | Command::KeepAlive { .. }
        | Command::Goodbye => return,
    };
    fields.log(Level::Debug, format_args!("{sentence}"));
}

/// Something happened to a request.
pub(super) fn happened(happened: &Happened, telling: Telling) -> Option<Line> {
    let Happened { session, ref identity, peer, request, ref claims, ref what, tenure } = *happened;
    let who = Who { session, identity: Some(identity), peer };
    let told = match telling {
        Telling::Lines => Level::Info,
        Telling::Sums => Level::Debug,
    };
    let (level, text) = match what {
        RequestEvent::Requested => (Level::Debug, "request received"),
        RequestEvent::Queued { .. } => (Level::Debug, "request queued"),
        RequestEvent::Granted { .. } => (told, "granted"),
        RequestEvent::Released { .. } => (told, "released"),
        RequestEvent::Cancelled if tenure.is_some() => (told, "given up when it was granted"),
        RequestEvent::Cancelled => (Level::Debug, "cancelled"),
        RequestEvent::Lost { .. } => (told, "lost"),
        RequestEvent::Rejected(_) => (Level::Debug, "rejected"),
    };
    if !fields::is_logged(level) {
        return None;
    }
    let (code, why);
    let mut fields = Fields::default();
    add_locks(claims, &mut fields);
    if let Some(Tenure { token, lasted, .. }) = tenure {
        fields.add("token", token.number());
        if !matches!(what, RequestEvent::Granted { .. }) {
            fields.add("held_ms", render::millis(lasted));
        }
    }
    who.add_to(&mut fields);
    fields.add("request", request.number());
    match what {
        RequestEvent::Queued { position, .. } => fields.add("position", *position),
        RequestEvent::Lost { reason, .. } => fields.add_shown("reason", reason),
        RequestEvent::Rejected(rejection) => {
            (code, why) = (rejection.code(), rejection.to_string());
            fields.add_shown("code", &code);
            fields.add("why", why.as_str());
        }
        RequestEvent::Requested
        | RequestEvent::Granted { .. }
        | RequestEvent::Released { .. }
        | RequestEvent::Cancelled => {}
    }
    Some(fields.line(level, format_args!("{text}")))
}

/// How the log tells of what was granted, and of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Telling {
    /// Line by line.
    Lines,
    /// Not at all, or in a sum.
    Sums,
}

/// A session whose grants are counted.
#[derive(Debug)]
pub(super) struct Hushed {
    /// Who that is.
    pub(super) identity: Identity,
    /// Where it comes from.
    pub(super) peer: Option<SocketAddr>,
    /// The lock that it was granted last when it was still told, the first of several.
    pub(super) lock: LockName,
}

/// Grants of a session that were counted instead of told.
pub(super) fn granted_more(
    session: SessionId,
    hushed: &Hushed,
    count: u64,
    within: Duration,
) -> Line {
    let mut fields = Fields::default();
    fields.add("lock", hushed.lock.as_str());
    let who = Who { session, identity: Some(&hushed.identity), peer: hushed.peer };
    who.add_to(&mut fields);
    let within = within.as_secs().max(1);
    fields.line(Level::Info, format_args!("granted {count} more times in the last {within} s"))
}

/// The same of all others together.
pub(super) fn granted_more_to_others(count: u64, within: Duration) -> Line {
    let (within, whom) = (within.as_secs().max(1), "to other sessions, or to some that ended");
    let sentence = format_args!("granted {count} more times {whom}, in the last {within} s");
    Fields::default().line(Level::Info, sentence)
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

impl Ahead {
    fn add_to(self, fields: &mut Fields<'_>) {
        let Self { tokens, epochs } = self;
        fields.add("tokens_ahead", tokens);
        fields.add("hours_ahead", tokens / TOKENS_PER_HOUR);
        fields.add("epochs_ahead", epochs);
    }
}

/// Tokens that belong to an hour of the wall clock.
const TOKENS_PER_HOUR: u64 = 3600 << 20;

/// The counters move past what a client has seen. That is as it should be after a loss of the state,
/// and otherwise a client that lies.
pub(super) fn moved_ahead(who: Who<'_>, ahead: Ahead) -> Line {
    let mut fields = Fields::default();
    who.add_to(&mut fields);
    ahead.add_to(&mut fields);
    fields.line(Level::Warn, format_args!("counters advanced past what a client has seen"))
}

/// A client that was not let in has seen later counters than ours.
pub(super) fn not_moved_ahead(peer: Option<SocketAddr>, ahead: Ahead) {
    let mut fields = Fields::default();
    if let Some(peer) = &peer {
        fields.add_shown("peer", peer);
    }
    ahead.add_to(&mut fields);
    let sentence = "client refused: it has seen later counters than this coordinator";
    fields.log(Level::Warn, format_args!("{sentence}"));
}

/// A client shows a seal that this coordinator has not made.
pub(super) fn wrong_seal(who: Who<'_>, request: RequestId, token: FencingToken) {
    let mut fields = Fields::default();
    who.add_to(&mut fields);
    fields.add("request", request.number());
    fields.add("token", token.number());
    fields.log(Level::Warn, format_args!("reclaim with a wrong seal"));
}

/// A handshake waits for others.
pub(super) fn crowded(connection: Option<ConnectionId>, peer: Option<SocketAddr>) {
    let mut fields = Fields::default();
    if let Some(connection) = &connection {
        fields.add_shown("connection", connection);
    }
    if let Some(peer) = &peer {
        fields.add_shown("peer", peer);
    }
    fields.log(Level::Warn, format_args!("handshake waits: 64 with its address are under way"));
}

/// A connection shows nothing that proves who it is.
pub(super) fn unproven(connection: Option<ConnectionId>, peer: Option<SocketAddr>, why: Unproven) {
    let mut fields = Fields::default();
    if let Some(connection) = &connection {
        fields.add_shown("connection", connection);
    }
    if let Some(peer) = &peer {
        fields.add_shown("peer", peer);
    }
    let sentence = match why {
        Unproven::Nothing => {
            "connection refused: nothing was shown, and the access file has no [anyone]"
        }
        Unproven::Nobody => {
            "connection refused: what was shown is in no line of the access file, or in two's"
        }
    };
    fields.log(Level::Warn, format_args!("{sentence}"));
}

/// A principal was told that it may not.
pub(super) fn denied(connection: Option<ConnectionId>, peer: Option<SocketAddr>, denied: &Denied) {
    let Denied { principal, verb, lock } = denied;
    let mut fields = Fields::default();
    if let Some(connection) = &connection {
        fields.add_shown("connection", connection);
    }
    if let Some(peer) = &peer {
        fields.add_shown("peer", peer);
    }
    fields.add("principal", principal.as_str());
    fields.add("verb", verb.as_str());
    if let Some(lock) = lock {
        fields.add("lock", lock.as_str());
    }
    fields.log(Level::Warn, format_args!("denied"));
}

/// A request is rejected because those of the cycle would wait for each other for ever.
pub(super) fn deadlock(who: Who<'_>, request: RequestId, cycle: &[CycleLink]) -> Line {
    let cycle = AllRound(cycle).to_string();
    let mut fields = Fields::default();
    who.add_to(&mut fields);
    fields.add("request", request.number());
    fields.add("cycle", cycle.as_str());
    fields.line(Level::Warn, format_args!("deadlock refused"))
}

/// Who waits for whom, all round.
struct AllRound<'a>(&'a [CycleLink]);

impl fmt::Display for AllRound<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(cycle) = self;
        for (i, link) in cycle.iter().take(LINKS_NAMED_MAX).enumerate() {
            let CycleLink { session, identity, owner, request, lock, held_with } = link;
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}session {session} of {identity:?}")?;
            if *owner != OwnerId::default() {
                write!(f, ", owner {owner}")?;
            }
            write!(f, ", request {request} waits for {lock:?}")?;
            match held_with {
                Some(token) => write!(f, ", held by the next with token {token}")?,
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
pub(super) fn attached(who: Who<'_>, generation: Generation, ttl: Ttl, standing: Standing) -> Line {
    let mut fields = Fields::default();
    who.add_to(&mut fields);
    let level = attached_level(standing);
    match standing {
        Standing::Opened => {
            fields.add_shown("ttl", &ttl);
            fields.line(level, format_args!("session opened"))
        }
        Standing::Resumed => {
            fields.add_shown("connection", &generation);
            fields.line(level, format_args!("session resumed"))
        }
        Standing::Reopened { .. } => {
            fields.add_shown("connection", &generation);
            fields.add_shown("ttl", &ttl);
            fields.line(level, format_args!("session came back after a crash"))
        }
    }
}

/// How much it matters that a connection has its session: what it is granted is told anyway.
pub(super) fn attached_level(standing: Standing) -> Level {
    match standing {
        Standing::Opened | Standing::Resumed => Level::Debug,
        Standing::Reopened { .. } => Level::Info,
    }
}

/// How much it matters that a session is over that held so much.
pub(super) fn ended_level(reason: EndReason, held: usize) -> Level {
    match reason {
        EndReason::Goodbye => Level::Debug,
        EndReason::Expired | EndReason::Disconnected if held == 0 => Level::Debug,
        EndReason::Expired | EndReason::Disconnected | EndReason::Displaced => Level::Info,
    }
}

/// A run begins, with what the one before left: `grace`, if that crashed.
pub(super) fn began(counts: &Counts, grace: Option<Duration>, is_replayed: bool) {
    let Counts { sessions, held, waiting, .. } = counts;
    let after = if is_replayed { "a crash" } else { "an orderly stop" };
    if *sessions > 0 {
        info!(sessions, held, waiting; "resuming after {after}");
    }
    if let Some(grace) = grace {
        info!("grace period of {grace:.1?}: previous holders may reclaim, nothing else is granted");
    }
}

/// The grace period is over.
pub(super) fn grace_ended(counts: &Counts) -> Line {
    let Counts { sessions, held, waiting, .. } = *counts;
    let mut fields = Fields::default();
    fields.add("sessions", sessions);
    fields.add("held", held);
    fields.add("waiting", waiting);
    fields.line(Level::Info, format_args!("grace period over"))
}

/// Everything is about to be saved, for the next run.
pub(super) fn saving(counts: &Counts) {
    let (sessions, requests) = (counts.sessions, counts.held + counts.waiting);
    info!(sessions, requests; "saving all state for the next start");
}

/// Somebody wants a lock taken away.
pub(super) fn revoke_received(operator: Operator<'_>, lock: &LockName, token: FencingToken) {
    let mut fields = Fields::default();
    operator.add_to(&mut fields);
    fields.add("lock", lock.as_str());
    fields.add("token", token.number());
    fields.log(Level::Info, format_args!("revoke received"));
}

/// Nothing was taken away.
pub(super) fn revoke_refused(operator: Operator<'_>, rejection: &Rejection) -> Line {
    let (code, why) = (rejection.code(), rejection.to_string());
    let mut fields = Fields::default();
    operator.add_to(&mut fields);
    fields.add_shown("code", &code);
    fields.add("why", why.as_str());
    fields.line(Level::Info, format_args!("revoke refused"))
}

/// A lock was taken away from `holder`.
pub(super) fn revoked(
    operator: Operator<'_>,
    lock: &LockName,
    token: FencingToken,
    holder: SessionId,
    holder_identity: &Identity,
) -> Line {
    let mut fields = Fields::default();
    operator.add_to(&mut fields);
    fields.add("lock", lock.as_str());
    fields.add("token", token.number());
    fields.add_shown("holder_session", &holder);
    fields.add("holder_identity", holder_identity.as_str());
    fields.line(Level::Info, format_args!("revoked"))
}

/// How things are, for whoever asked.
pub(super) fn state(status: &ServerStatus) {
    let ServerStatus { sessions, connections, locks, held, waiting, grants, expired, .. } = status;
    info!(
        target: SUMMARY, sessions, connections, locks, held, waiting, grants, expired; "state"
    );
    let ServerStatus { version, epoch, last_token, uptime_ms, .. } = status;
    let ServerStatus { draining, grace_ms, unsaved_ms, .. } = status;
    info!(
        target: SUMMARY, version:%, epoch:%, last_token:%, uptime_ms, draining, grace_ms, unsaved_ms;
        "state"
    );
    let ServerStatus { protocol_errors, slow_readers, .. } = status;
    let ServerStatus { handshake_timeouts, connections_refused, .. } = status;
    info!(
        target: SUMMARY, protocol_errors, slow_readers, handshake_timeouts, connections_refused;
        "counters"
    );
}

/// A session is over.
pub(super) fn ended(
    who: Who<'_>,
    reason: EndReason,
    held: usize,
    waiting: usize,
    lock: Option<&LockName>,
) -> Line {
    let what = match reason {
        EndReason::Goodbye => "session ended",
        EndReason::Expired => "lease expired",
        EndReason::Disconnected => "session disconnected",
        EndReason::Displaced => "session made room for one from before the restart",
    };
    let mut fields = Fields::default();
    who.add_to(&mut fields);
    fields.add("held", held);
    fields.add("waiting", waiting);
    if let Some(lock) = lock {
        fields.add("lock", lock.as_str());
    }
    fields.line(ended_level(reason, held), format_args!("{what}"))
}
