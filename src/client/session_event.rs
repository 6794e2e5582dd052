//! What happens to a session.

use crate::types::{Epoch, FencingToken, LostReason, SessionId};

use super::error::Error;

/// What happens to a session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SessionEvent {
    /// There is a connection, and it is that of a new session: the one before was away too long. What
    /// waited goes on waiting, with a new place in line.
    Connected {
        /// The session.
        session: SessionId,
        /// The run of the coordinator.
        epoch: Epoch,
    },
    /// There is another connection, and the session goes on over it with what it holds.
    Resumed {
        /// The session.
        session: SessionId,
        /// The run of the coordinator: another one, if it was restarted.
        epoch: Epoch,
    },
    /// There is no connection any more. The client makes another; what is held stays held meanwhile, as
    /// long as the lease does, and is not in doubt if there is another soon.
    Disconnected {
        /// Why.
        cause: Error,
    },
    /// The lease is not sure any more: there was no answer for two thirds of the ttl. A coordinator that
    /// is away for less than a third of it, as for a restart, causes no jeopardy. All guards are in [jeopardy](super::HoldState::Jeopardy), from now until `Recovered` or `Lost`.
    Jeopardy,
    /// The coordinator answers again, and the lease is sure.
    Recovered,
    /// A lock is lost: each grant is told of that was not given back before.
    Lost {
        /// The token of the grant that is over; [`LockGuard::token`](super::LockGuard::token) has it.
        token: FencingToken,
        /// Why.
        reason: LostReason,
    },
    /// So many events are left out here, because they were not read fast enough.
    Missed {
        /// How many.
        count: u64,
    },
    /// The client is at its end. It is the last event.
    Closed {
        /// Why: [`Error::Closed`] if that was asked for.
        cause: Error,
    },
}
