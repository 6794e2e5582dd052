//! What can be seen: locks, once or always, leaders, events; with a session or without one.
//!
//! The one idea: *who looks is never waited for, and never holds anything*. Looks go over the connection
//! that there is, and what lasts goes on over the next. Nobody learns here that it holds a lock.

mod elect;
mod events;
pub(in crate::client) mod observe;
mod observer;
mod watch;

pub use elect::{Leader, Leaders, Leadership};
pub use events::{Event, Events, Happened};
pub use observer::Observer;
pub use watch::{LockState, Watch};
