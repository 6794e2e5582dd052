//! The client library: a session with a coordinator, and its locks.
//!
//! The one idea: *belief is decided by a pure core* (sans-io). `core` is a state machine. It is
//! told the events with their moments, and says what to send and whom to tell. `driver` is the task
//! that owns the socket, makes the next one when it is lost, and carries both ways. A guard looks
//! at the lease through its own clock. It therefore knows that its lock is lost even while no
//! message, and no timer, can tell it.
//!
//! Never here: a decision about who gets a lock; a wall clock; a mutex; belief in a lock past the
//! server's lease. This room knows neither the engine nor the server.
//!
//! `docs/protocol.md` describes the wire.

pub mod blocking;
mod connect;
pub(crate) mod core;
mod driver;
mod error;
mod lease;
mod look;
mod no_leader;
mod process;
mod search;
mod servers;
mod session;
mod session_event;
mod shared;
mod within;

pub use connect::CONNECT_TIMEOUT_DEFAULT;
pub use error::{EachFailed, Error};
pub use look::{Event, Events, Happened, Leader, Leaders, Leadership, LockState, Observer, Watch};
pub use no_leader::NoLeader;
pub use search::Unwelcomed;
pub use servers::{PORT_DEFAULT, SERVERS_MAX, Servers};
pub use session::{
    Client, ClientBuilder, ConvertError, HoldState, LockAllRequest, LockGuard, LockRequest, Owner,
    Semaphore, SessionEvents, SessionKey, Upgrade,
};
pub use session_event::SessionEvent;

#[cfg(all(test, feature = "server"))]
pub(crate) use driver::{Connecting, Connector, Whither};

#[cfg(test)]
mod leader_tests;
#[cfg(test)]
mod listen_tests;
#[cfg(test)]
mod tests;
