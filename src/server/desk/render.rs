//! From the engine's types to the wire's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::subscribers::SUBSCRIBERS_MAX;
use crate::access::Denied;
use crate::engine::{EndReason, Rejection, RequestEvent};
use crate::types::{
    Claim, Cycle, Epoch, FencingToken, Generation, GoodbyeCode, Identity, RejectionCode, RequestId,
    Seal, SealedTicket, Secret, SessionId, Standing, Ticket, Ttl,
};
use crate::wire::{self, LockStatus, PROTOCOL, ServerMessage};

/// Name and version, for people, in every Welcome.
const SERVER: &str = concat!("coordinator ", env!("CARGO_PKG_VERSION"));

/// The first message, to a session or to an observer, who has no lease.
pub(in crate::server) fn welcome(
    epoch: Epoch,
    session: SessionId,
    secret: Secret,
    generation: Generation,
    ttl: Option<Ttl>,
    standing: Standing,
) -> ServerMessage {
    ServerMessage::Welcome {
        protocol: PROTOCOL,
        server: SERVER.to_owned(),
        epoch,
        session,
        secret,
        generation,
        ttl_ms: ttl.map_or(0, Ttl::as_millis),
        standing,
    }
}

/// What a client is told of an event of its request; nothing of one that it knows. `seal` seals a
/// grant, `ticket` a place.
pub(in crate::server) fn told(
    request: RequestId,
    event: &RequestEvent,
    seal: impl FnOnce(FencingToken) -> Seal,
    ticket: impl FnOnce(Ticket) -> SealedTicket,
) -> Option<ServerMessage> {
    Some(match event {
        RequestEvent::Requested => return None,
        RequestEvent::Granted { token } => {
            let seal = seal(*token);
            ServerMessage::Grant { request, token: *token, seal }
        }
        RequestEvent::Queued { position, ticket: place } => {
            let (position, ticket) = (u64::from(*position), ticket(*place));
            ServerMessage::Queued { request, position, ticket }
        }
        RequestEvent::Released { .. } => ServerMessage::Released { request },
        RequestEvent::Cancelled => ServerMessage::Cancelled { request },
        RequestEvent::Lost { token, reason } => {
            ServerMessage::Lost { request, token: *token, reason: *reason }
        }
        RequestEvent::Rejected(rejection) => rejected(request, rejection, None),
    })
}

/// No, to a query.
pub(in crate::server) fn refused_query(query_id: u64, rejection: &Rejection) -> ServerMessage {
    rejected(RequestId::new(query_id), rejection, None)
}

/// No, to whoever may not.
pub(in crate::server) fn denied(request: RequestId, denied: &Denied) -> ServerMessage {
    ServerMessage::Rejected {
        request,
        code: RejectionCode::Forbidden,
        message: denied.to_string(),
        lock: None,
        cycle: Cycle::default(),
    }
}

/// No, to a request.
pub(in crate::server) fn rejected(
    request: RequestId,
    rejection: &Rejection,
    lock: Option<Box<LockStatus>>,
) -> ServerMessage {
    let code = rejection.code();
    ServerMessage::Rejected {
        request,
        code,
        message: rejection.to_string(),
        lock,
        // Only where there is room for it.
        cycle: Cycle::default(),
    }
}

/// The last message, to a subscriber that leaves its place to another.
pub(in crate::server) fn left_to_another() -> ServerMessage {
    let why = format!(
        "more than {SUBSCRIBERS_MAX} connections subscribe to events, and this one was silent the \
        longest"
    );
    goodbye(GoodbyeCode::TooManyConnections, why)
}

/// Something that happened to a request, for those who have subscribed.
pub(in crate::server) fn event(
    at: SystemTime,
    session: SessionId,
    identity: &Identity,
    request: RequestId,
    claims: &[Claim],
    what: &RequestEvent,
) -> ServerMessage {
    ServerMessage::Event {
        at_ms: at.duration_since(UNIX_EPOCH).map_or(0, millis),
        session,
        identity: identity.clone(),
        request,
        claims: claims.to_vec(),
        what: happening(what),
    }
}

fn happening(what: &RequestEvent) -> wire::Happening {
    match what {
        RequestEvent::Requested => wire::Happening::Requested,
        RequestEvent::Queued { position, .. } => {
            wire::Happening::Queued { position: u64::from(*position) }
        }
        RequestEvent::Granted { token } => wire::Happening::Granted { token: *token },
        RequestEvent::Released { token } => wire::Happening::Released { token: *token },
        RequestEvent::Cancelled => wire::Happening::Cancelled,
        RequestEvent::Lost { token, reason } => {
            wire::Happening::Lost { token: *token, reason: *reason }
        }
        RequestEvent::Rejected(rejection) => {
            wire::Happening::Rejected { code: rejection.code(), message: rejection.to_string() }
        }
    }
}

/// The last message.
pub(in crate::server) fn goodbye(code: GoodbyeCode, message: impl Into<String>) -> ServerMessage {
    ServerMessage::Goodbye { code, rejection: RejectionCode::NONE, message: message.into() }
}

/// The last message, to a Hello that is refused.
pub(in crate::server) fn refused(code: RejectionCode, message: impl Into<String>) -> ServerMessage {
    ServerMessage::Goodbye { code: GoodbyeCode::Refused, rejection: code, message: message.into() }
}

/// The last message, to a connection whose session is over.
pub(in crate::server) fn ended(reason: EndReason) -> ServerMessage {
    match reason {
        EndReason::Goodbye => goodbye(GoodbyeCode::Done, "the session is over, as requested"),
        EndReason::Expired | EndReason::Disconnected => goodbye(
            GoodbyeCode::SessionExpired,
            "no message for longer than the lease; open a new session",
        ),
        EndReason::Displaced => ServerMessage::Goodbye {
            code: GoodbyeCode::SessionExpired,
            rejection: RejectionCode::TooManySessions,
            message:
                "there is no room for new sessions beside those from before the restart; open \
                a new session later"
                    .into(),
        },
    }
}

/// A length of time, as the wire has it.
pub(in crate::server) fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// A short length of time, as the wire has it.
pub(in crate::server) fn micros(length: Duration) -> u64 {
    u64::try_from(length.as_micros()).unwrap_or(u64::MAX)
}

/// A count, as the wire has it.
pub(in crate::server) fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_made_room_hears_that_its_session_is_over_and_why() {
        match ended(EndReason::Displaced) {
            ServerMessage::Goodbye { code, rejection, message } => {
                assert_eq!(code, GoodbyeCode::SessionExpired);
                assert_eq!(rejection, RejectionCode::TooManySessions);
                assert!(message.contains("no room") && !message.contains("  "), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
}
