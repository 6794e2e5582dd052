//! A standby that follows a leader, so that it may take over with everything (rules P1 to P6).
//!
//! The stream is the journal: a checkpoint of the leader's table, and the records behind it. The standby writes
//! them into a journal of its own, hears them with a table of its own, and acknowledges. What a leader says
//! waits for that, where it waits for its journal anyway (rule J1).
//!
//! | file | is about |
//! |---|---|
//! | `frame` | what both say, and how that is proved |
//! | `feed` | the leader's end: positions, what is to be sent, what may be said |
//! | `copy` | the standby's end: its journal, and its table |
//!
//! Never here: a connection, an actor, a rule about who is in sync.

mod copy;
mod feed;
mod frame;

pub(super) use copy::{Copy, CopyError, Origin};
pub(super) use feed::{Feed, Following, Gone};
pub(super) use frame::{
    FORMAT, FULL, FrameError, GREETING_BYTES, LinkKey, MAGIC, NONCE_BYTES, Opening, PART_BYTES,
    Sealing, Side, ToLeader, ToStandby,
};
