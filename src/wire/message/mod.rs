//! The messages of protocol 1, in the order of their numbers on the wire. Those of the client are
//! in `client.rs`, those of the server in `server.rs`, and their status structures in `status.rs`.

mod client;
mod lists;
mod server;
mod status;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::client::{
    Account, Attach, ClientMessage, Extra, Held, Hello, Query, Reclaim, Request,
};
#[cfg(test)]
pub(super) use self::lists::Bounded;
pub use self::server::{CycleLink, Happening, ServerMessage};
pub use self::status::{
    After, Holder, JournalDistance, JournalStart, JournalStatus, LockStatus, Outlook, Pause,
    ServerStatus, SessionStatus, Waiter,
};
use crate::types::CLAIMS_MAX;
/// The words of the vocabulary that messages and all rooms share.
pub use crate::types::{Mode, RawClaim, Standing, Wait};

/// The version of the protocol that this crate speaks.
pub const PROTOCOL: u32 = 1;

/// Claims beyond this are read and dropped: enough are kept to see that there are too many.
pub const CLAIMS_KEPT_MAX: usize = CLAIMS_MAX + 1;

/// What is wanted besides and stands beyond this is read and dropped: there is less than that to want.
pub const EXTRAS_KEPT_MAX: usize = 64;

/// Elements for which memory is taken on the word of a list's length alone: enough for every
/// request that is allowed.
pub(super) const PREALLOCATED_MAX: usize = CLAIMS_KEPT_MAX;

/// Keeps a waiting request's place over a crash of the coordinator. Opaque to clients: only the
/// coordinator can make one, and for this request only. Not printed, for it is a proof.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The run of the coordinator in which the request began to wait, and a part of the proof.
    pub epoch: u64,
    /// Its number among those that began to wait in that run, and the rest of the proof.
    pub arrival: u64,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(…)")
    }
}
