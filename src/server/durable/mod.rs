//! The durable parts: the store and its two files, the task that commits to it, and the start of
//! the next run.
//!
//! Never here: a decision about locks, or a wait on the thread that decides.

pub(super) mod chronicle;
mod directory;
mod everything;
mod key;
mod local;
mod look;
pub(super) mod persist;
mod records;
pub(super) mod replay;
mod snapshot;
pub(super) mod start;
pub(super) mod store;
#[cfg(test)]
mod tests;

pub(crate) use directory::Patience;
pub(crate) use everything::Everything;
pub(crate) use key::StateKey;
pub(crate) use local::DirectoryStore;
pub use look::check_data;
pub(crate) use persist::Committed;
pub(super) use persist::Order;
#[cfg(feature = "cluster")]
pub(crate) use snapshot::SNAPSHOT_FORMAT;
pub use store::StoreError;
pub(crate) use store::{Change, MemoryStore, StateStore};
