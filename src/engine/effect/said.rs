//! The sentences of those rejections that take more than a line of code.

use std::fmt;
use std::time::Duration;

use super::CycleLink;
use crate::types::{AT_LEAST_MAX, Identity, LockName, Origin, SessionId};

/// So many links of a cycle are in its sentence. A program finds all of them beside it.
const CYCLE_LINKS_SAID_MAX: usize = 4;

/// `deadlock: ann waits for "b", held by bob (token 2), who waits for "a", held by ann (token 1)`.
pub(super) fn cycle(cycle: &[CycleLink], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let name = |link: &CycleLink| name(link.session, &link.identity);
    f.write_str("this would wait for ever: ")?;
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
    write!(f, "locks cannot be kept for {asked:?}, at most {AT_LEAST_MAX:?} (7 days) is allowed")
}

/// That so many locks are kept, in all or for clients from one address, and what to do.
pub(super) fn kept(max: usize, origin: Option<Origin>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match origin {
        None => write!(f, "{max} locks are kept for as long as was asked for, the limit; ")?,
        Some(origin) => write!(
            f,
            "{max} locks are kept for clients from {origin}, the limit for one address; "
        )?,
    }
    f.write_str("ask again when some are free, end one with its token, or ask without a least time")
}
