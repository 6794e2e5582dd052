//! The size of a client's messages in memory: themselves, and the memory that they own.
//!
//! It is never less than their size on the wire, so this count covers that one.

use crate::wire::{Account, ClientMessage, Held, Query, RawClaim, Reclaim, Request};

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
