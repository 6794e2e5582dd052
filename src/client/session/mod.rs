//! What a session is for: locks, asked for and held, and how it begins and ends.
//!
//! Nothing here decides: what is asked goes to the driver, and what is held is looked at through what the
//! driver shows. Nothing here reads a socket, or waits for one.

mod builder;
pub(in crate::client) mod convert;
mod events;
mod guard;
mod handle;
mod key;
mod owner;
mod request;
mod semaphore;
pub(in crate::client) mod terms;

pub use builder::ClientBuilder;
pub use convert::{ConvertError, Upgrade};
pub use events::SessionEvents;
pub use guard::{HoldState, LockGuard};
pub use handle::Client;
pub use key::SessionKey;
pub use owner::Owner;
pub use request::{LockAllRequest, LockRequest};
pub use semaphore::Semaphore;
