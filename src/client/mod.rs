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
mod convert;
pub(crate) mod core;
mod driver;
mod elect;
mod error;
mod events;
mod guard;
mod handle;
mod key;
mod lease;
mod line;
mod observe;
mod observer;
mod owner;
mod process;
mod request;
mod semaphore;
mod servers;
mod shared;
mod terms;
mod watch;

pub use connect::{CONNECT_TIMEOUT_DEFAULT, ClientBuilder, PORT_DEFAULT};
pub use convert::{ConvertError, Upgrade};
pub use elect::{Leader, Leaders, Leadership};
pub use error::Error;
pub use events::{Event, Events, Happened};
pub use guard::{HoldState, LockGuard};
pub use handle::Client;
pub use key::SessionKey;
pub use observer::Observer;
pub use owner::Owner;
pub use request::{LockAllRequest, LockRequest};
pub use semaphore::Semaphore;
pub use servers::{SERVERS_MAX, Servers};
pub use watch::{LockState, Watch};

#[cfg(all(test, feature = "server"))]
pub(crate) use driver::{Connecting, Connector};

#[cfg(test)]
mod listen_tests;
#[cfg(test)]
mod tests;
