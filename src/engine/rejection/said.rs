//! The sentences of those rejections that take more than a line of code.

use std::fmt;
use std::time::Duration;

use crate::engine::TOKENS_AHEAD_DAYS_MAX;
use crate::types::{
    AT_LEAST_MAX, CycleLink, Generation, Identity, LOCK_DELAY_MAX, LockName, Origin, RequestId,
    SessionId,
};

pub(super) const ID_REUSED: &str =
    "the request id is in use for another request; ids must increase";
pub(super) const UNKNOWN_SESSION: &str = "unknown session, or wrong secret; open a new session";
pub(super) const NO_TOKEN: &str =
    "no durable fencing token is left; retry when the coordinator can write its disk again";
pub(super) const DISK_BEHIND: &str =
    "too many writes wait for the disk (backpressure); retry when it has caught up";
pub(super) const SESSION_NEEDED: &str =
    "this needs a session; an observer can only inspect and revoke";
pub(super) const NO_GRACE: &str = "nothing to reclaim: there is no grace period, or it is over";
pub(super) const FORBIDDEN: &str = "by the rules of now, you may not have what you asked for";

/// So many links of a cycle are in its sentence. A program finds all of them beside it.
const CYCLE_LINKS_SAID_MAX: usize = 4;

/// `deadlock: ann waits for "b", held by bob (token 2), who waits for "a", held by ann (token 1)`.
pub(super) fn cycle(cycle: &[CycleLink], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let name = |link: &CycleLink| name(link.session, &link.identity);
    f.write_str("waiting would never end: ")?;
    for (i, link) in cycle.iter().enumerate().take(CYCLE_LINKS_SAID_MAX) {
        let next = &cycle[(i + 1) % cycle.len()];
        match i {
            0 => write!(f, "{} waits", name(link))?,
            _ => f.write_str(", who waits")?,
        }
        write!(f, " for {:?}, ", link.lock)?;
        match link.held_with {
            Some(token) => write!(f, "held by {} (token {token})", name(next))?,
            None => write!(f, "behind {}", name(next))?,
        }
    }
    match cycle.len().saturating_sub(CYCLE_LINKS_SAID_MAX) {
        0 => Ok(()),
        more => write!(f, ", and so on over {more} more"),
    }
}

fn name(session: SessionId, identity: &Identity) -> String {
    match identity.as_str() {
        "" => session.to_string(),
        identity => identity.to_owned(),
    }
}

/// `superseded by a newer request of ann@build7:12 for "deploy"`.
pub(super) fn superseded(
    lock: &LockName,
    session: SessionId,
    identity: &Identity,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    write!(f, "superseded by a newer request of {} for {lock:?}", name(session, identity))
}

/// How long a lock cannot be kept.
pub(super) fn at_least(asked: Duration, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(
        f,
        "a minimum hold time of {asked:?} is too long; at most {AT_LEAST_MAX:?} (7 days) is \
        allowed"
    )
}

/// That so many locks are kept, in all or for clients from one address, and what to do.
pub(super) fn kept(max: usize, origin: Option<Origin>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match origin {
        None => write!(f, "{max} locks are kept for their minimum hold time, the limit; ")?,
        Some(origin) => write!(
            f,
            "{max} locks are kept for clients from {origin}, the limit for one address; "
        )?,
    }
    f.write_str(
        "retry when some are free, end one with its token, or request without a minimum \
        hold time",
    )
}

/// A lock delay beyond its limit.
pub(super) fn lock_delay(asked: Duration, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "a lock delay of {asked:?} is too long; at most {LOCK_DELAY_MAX:?} is allowed")
}

/// A request id that is below the latest one, and of which nothing is known.
pub(super) fn forgotten(latest: RequestId, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "the request id is not above {latest}, the latest, and its answer is no longer ")?;
    f.write_str("remembered; ids must increase")
}

/// A connection that a later one of its session has overtaken.
pub(super) fn stale(latest: Generation, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "this connection is stale: generation {latest} of its session has already connected")
}

/// A token or an epoch that cannot be true, and what to do about the clock or the client.
pub(super) fn implausible(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "the token or epoch presented is more than {TOKENS_AHEAD_DAYS_MAX} days ahead of ")?;
    f.write_str(
        "this coordinator's clock; if the clock is wrong, set it and restart the coordinator; if \
         not, restart the client, so that it presents no token",
    )
}
