//! What answers carry along, as far as whoever hears it may see it.
//!
//! A *no* says who is in the way, and an event says why. Both name locks and sessions that nobody has asked
//! about. What may not be seen is hidden, and its place stays: how long a cycle is, is no secret.

use crate::access::Sight;
use crate::engine::{Rejection, RequestEvent};
use crate::types::{CycleLink, Identity, LockName, OwnerId, RequestId, SessionId};
use crate::wire::{Happening, ServerMessage};

/// What stands where something may not be seen.
const HIDDEN: &str = "(hidden)";
/// What others hear of a cycle: the locks in it are not only those of the event.
const CYCLE_HIDDEN: &str = "waiting would never end";

/// What of a rejection its client may see. Of its own session it sees everything.
pub(super) fn seen_by(sight: &Sight, session: SessionId, rejection: &Rejection) -> Rejection {
    match rejection {
        Rejection::Deadlock { cycle } => {
            let seen = |link: &CycleLink| {
                match (sight.sees(&link.lock), link.session == session) {
                    (true, _) => link.clone(),
                    // It knows what it asked for itself, and not who has it.
                    (false, true) => CycleLink { held_with: None, ..link.clone() },
                    (false, false) => hidden(link),
                }
            };
            Rejection::Deadlock { cycle: cycle.iter().map(seen).collect() }
        }
        Rejection::HeldOtherwise { lock, .. } if !sight.sees(lock) => {
            Rejection::Busy { lock: lock.clone() }
        }
        Rejection::Superseded { lock, session: newer, .. }
            if *newer != session && !sight.sees(lock) =>
        {
            let (lock, session) = (lock.clone(), SessionId(0));
            Rejection::Superseded { lock, session, identity: hidden_identity() }
        }
        other => other.clone(),
    }
}

fn hidden(link: &CycleLink) -> CycleLink {
    CycleLink {
        session: SessionId(0),
        identity: hidden_identity(),
        owner: OwnerId::NONE,
        request: RequestId::default(),
        lock: LockName::new(HIDDEN).unwrap_or_else(|_| link.lock.clone()),
        held_with: None,
    }
}

fn hidden_identity() -> Identity {
    Identity::new(HIDDEN).unwrap_or_default()
}

/// Hides of an event what is about other locks than its own.
pub(super) fn hide_others(event: &mut ServerMessage, what: &RequestEvent) {
    if let ServerMessage::Event { what: Happening::Rejected { message, .. }, .. } = event
        && let RequestEvent::Rejected(Rejection::Deadlock { .. }) = what
    {
        CYCLE_HIDDEN.clone_into(message);
    }
}
