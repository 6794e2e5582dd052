//! The size of messages in memory: themselves, and the memory that they own.
//!
//! It is never less than their size on the wire, so this count covers that one.

use crate::types::Claim;
use crate::wire::{
    Account, ClientMessage, CycleLink, Happening, Held, Holder, JournalStart, JournalStatus,
    LockStatus, Outlook, Pause, Query, RawClaim, Reclaim, Request, ServerMessage, ServerStatus,
    SessionStatus, Waiter,
};

/// What an answer takes besides itself.
pub(in crate::server) fn beside(answer: &ServerMessage) -> usize {
    match answer {
        ServerMessage::Grant { .. }
        | ServerMessage::Queued { .. }
        | ServerMessage::Released { .. }
        | ServerMessage::Cancelled { .. }
        | ServerMessage::Lost { .. }
        | ServerMessage::KeptAlive { .. }
        | ServerMessage::Revoked { .. }
        | ServerMessage::Subscribed { .. }
        | ServerMessage::Missed { .. } => 0,
        ServerMessage::Welcome { server, .. } => server.len(),
        ServerMessage::Goodbye { message, .. } => message.len(),
        ServerMessage::ServerStatus { status, .. } => {
            size_of::<ServerStatus>() + status.version.len()
        }
        ServerMessage::Rejected { message, lock, cycle, .. } => {
            let lock = lock.as_ref().map_or(0, |lock| size_of::<LockStatus>() + of_lock(lock));
            message.len() + lock + cycle.links.iter().map(of_link).sum::<usize>()
        }
        ServerMessage::LockStatus { locks, .. } => {
            locks.iter().map(|lock| size_of::<LockStatus>() + of_lock(lock)).sum()
        }
        ServerMessage::Outlook { locks, .. } => locks.iter().map(of_outlook).sum(),
        ServerMessage::JournalStatus { status, .. } => {
            let why = match &status.start {
                JournalStart::Lost { why, .. } => why.len(),
                _ => 0,
            };
            size_of::<JournalStatus>() + why
        }
        ServerMessage::SessionStatus { sessions, .. } => {
            let of_session = |session: &SessionStatus| {
                size_of::<SessionStatus>() + session.identity.len() + session.peer.len()
            };
            sessions.iter().map(of_session).sum()
        }
        ServerMessage::Event { identity, claims, what, .. } => {
            let message = match what {
                Happening::Rejected { message, .. } => message.len(),
                _ => 0,
            };
            identity.len() + of_typed(claims) + message
        }
    }
}

fn of_outlook(outlook: &Outlook) -> usize {
    let of_pause = |pause: &Pause| size_of::<Pause>() + pause.identity.len();
    let pauses = outlook.pauses.iter().map(of_pause).sum::<usize>();
    size_of::<Outlook>() + outlook.name.len() + pauses
}

/// What one read of a connection has brought.
pub(in crate::server) fn of_read(messages: &[ClientMessage]) -> usize {
    size_of_val(messages) + messages.iter().map(beside_asked).sum::<usize>()
}

/// What a client's message takes besides itself.
fn beside_asked(asked: &ClientMessage) -> usize {
    match asked {
        ClientMessage::KeepAlive { .. }
        | ClientMessage::Release { .. }
        | ClientMessage::Cancel { .. }
        | ClientMessage::Goodbye
        | ClientMessage::Subscribe { name: None, .. }
        | ClientMessage::Inspect {
            query:
                Query::Server
                | Query::Locks { .. }
                | Query::Sessions { .. }
                | Query::Outlooks { .. }
                | Query::Journal
                | Query::Contended { .. },
            ..
        } => 0,
        ClientMessage::Request(Request { note, claims, .. })
        | ClientMessage::Reclaim(Reclaim { note, claims, .. }) => note.len() + of_claims(claims),
        ClientMessage::RequestWith { request, extras } => {
            let Request { note, claims, .. } = &**request;
            size_of::<Request>() + note.len() + of_claims(claims) + size_of_val(&extras[..])
        }
        ClientMessage::ReclaimWith { reclaim, extras } => {
            let Reclaim { note, claims, .. } = &**reclaim;
            size_of::<Reclaim>() + note.len() + of_claims(claims) + size_of_val(&extras[..])
        }
        ClientMessage::Hello(hello) => hello.identity.len(),
        ClientMessage::Authenticate { credential } => credential.reveal().len(),
        ClientMessage::Account(Account { held, waiting, .. }) => {
            held.len() * size_of::<Held>() + waiting.len() * size_of::<u64>()
        }
        ClientMessage::RevokeFor { name, reason, .. } => name.len() + reason.len(),
        ClientMessage::Revoke { name, .. }
        | ClientMessage::Watch { name, .. }
        | ClientMessage::Unwatch { name }
        | ClientMessage::Subscribe { name: Some(name), .. }
        | ClientMessage::Inspect {
            query: Query::Lock { name } | Query::Outlook { name }, ..
        } => name.len(),
    }
}

fn of_claims(claims: &[RawClaim]) -> usize {
    claims.iter().map(|claim| size_of::<RawClaim>() + claim.name.len()).sum()
}

fn of_typed(claims: &[Claim]) -> usize {
    claims.iter().map(|claim| size_of::<Claim>() + claim.name.as_str().len()).sum()
}

fn of_lock(lock: &LockStatus) -> usize {
    let of_holder = |holder: &Holder| {
        size_of::<Holder>() + holder.identity.len() + holder.peer.len() + holder.note.len()
    };
    let of_waiter = |waiter: &Waiter| {
        size_of::<Waiter>() + waiter.identity.len() + waiter.peer.len() + waiter.note.len()
    };
    lock.name.len()
        + lock.holders.iter().map(of_holder).sum::<usize>()
        + lock.waiters.iter().map(of_waiter).sum::<usize>()
}

fn of_link(link: &CycleLink) -> usize {
    size_of::<CycleLink>() + link.identity.as_str().len() + link.lock.as_str().len()
}
