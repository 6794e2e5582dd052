//! The messages of protocol 1, in the order of their numbers on the wire. Those of the client are
//! in `client.rs`, those of the server in `server.rs`, and their status structures in `status.rs`.

mod client;
mod lists;
mod server;
mod status;

pub use self::client::{Attach, ClientMessage, Extra, Hello, Query, Reclaim, Request};
pub use self::server::{Happening, ServerMessage};
pub use self::status::{
    After, ClusterStatus, Holder, JournalDistance, JournalStart, JournalStatus, LockStatus,
    Outlook, Pause, ServerStatus, SessionStatus, WaitedStatus, Waiter,
};
use crate::types::CLAIMS_MAX;
/// The words of the vocabulary that messages and all rooms share.
pub use crate::types::{
    Account, Cycle, CycleLink, Held, Mode, RawClaim, SealedTicket, Standing, Wait,
};

/// The version of the protocol that this crate speaks.
pub const PROTOCOL: u32 = 1;

/// Claims beyond this are read and dropped: enough are kept to see that there are too many.
pub const CLAIMS_KEPT_MAX: usize = CLAIMS_MAX + 1;

/// What is wanted besides and stands beyond this is read and dropped: there is less than that to want.
pub const EXTRAS_KEPT_MAX: usize = 64;
