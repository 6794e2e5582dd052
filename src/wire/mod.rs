//! The wire: two enums of messages, and their encoding.
//!
//! A frame is a little-endian `u32` length, then that many bytes of bincode (fixed-width integers,
//! little-endian). Imperatives come from the client, facts from the server. Numbers and codes have
//! their types of [`crate::types`], which any bytes make. Names, notes, identities and modes are
//! checked in what the server says, as it is read. What a client says of them is raw: the server
//! parses it at once, and answers what is wrong.
//!
//! Never here: a socket, an actor, the engine. Without the feature `codec` not even tokio.
//!
//! Enums are append-only; no message holds a `usize`, a map, a float, or a list of elements without
//! size. `docs/protocol.md` describes all of it for other languages.

#[cfg(feature = "codec")]
mod codec;
mod format;
mod message;
#[cfg(feature = "server")]
mod shown;
#[cfg(feature = "codec")]
mod usual;

#[cfg(feature = "codec")]
pub use codec::{ClientCodec, CodecError, ServerCodec};
pub use format::{FRAME_LEN_MAX, FormatError, HELLO_LEN_MAX, decode, encode_frame};
#[cfg(feature = "server")]
pub(crate) use format::{decode_state, encode_state, read_state, write_state};
pub use message::{
    Account, After, Attach, CLAIMS_KEPT_MAX, ClientMessage, ClusterStatus, Cycle, CycleLink,
    EXTRAS_KEPT_MAX, Extra, Happening, Held, Hello, Holder, JournalDistance, JournalStart,
    JournalStatus, LockStatus, Mode, Outlook, PROTOCOL, Pause, Query, RawClaim, Reclaim, Request,
    SealedTicket, ServerMessage, ServerStatus, SessionStatus, Standing, Wait, WaitedStatus, Waiter,
};
#[cfg(feature = "server")]
pub(crate) use shown::ShownLock;

#[cfg(test)]
mod tests;
