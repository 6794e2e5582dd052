//! The Redis dialect: for locks, not for data.
//!
//! The one idea: *a key is a lock of the same name, and its value is by what its holder is known*. So
//! whoever locks with `SET key value NX PX` and a script to free it has the same locks as native clients.
//!
//! ```text
//!   bytes ─▶ request ─▶ talk ─▶ steps ─▶ perform ─▶ replies ─▶ bytes
//!            (words)   (command, script)    │
//!                                         Holds: the few questions about locks that commands ask
//! ```
//!
//! | file | is about |
//! |---|---|
//! | `request` | cutting requests out of a stream, however it comes and whatever it claims |
//! | `command` | the table of commands |
//! | `script` | the scripts of lock libraries, known by their hashes |
//! | `talk` | the manners of a connection: versions, names, transactions |
//! | `deed`, `perform` | what is done to keys, and what is answered |
//! | `reply` | writing answers |
//!
//! Invariants, as absences:
//! - No rule about locks, no socket, no clock, no actor: `server` has these.
//! - No Lua is run.
//! - No data is kept: a key that nobody holds does not exist.
//! - No input takes more memory than a request may have.
//!
//! `docs/redis.md` says what clients can rely on.

mod command;
mod deed;
mod perform;
mod reply;
mod request;
mod script;
mod talk;
#[cfg(test)]
mod tests;
mod unit;

pub use deed::{
    Counted, Deed, KEYS_MAX, Keys, Only, ScriptCall, Set, SetAnswer, TERM_MS_MAX, Term, Wait, When,
};
pub use perform::{Change, Holds, Look, Ours, Refusal, perform};
pub use reply::{Protocol, Reply};
pub use request::{
    INLINE_BYTES_MAX, Malformed, REQUEST_BYTES_MAX, Requests, WORD_BYTES_MAX,
    WORD_UNPROVEN_BYTES_MAX, WORDS_MAX, WORDS_UNPROVEN_MAX, Words,
};
pub use script::{Answer, Rest, Script, Scripts};
pub use talk::{
    Common, Flushing, NAME_LEN_MAX, QUEUED_BYTES_MAX, QUEUED_MAX, Said, Step, Talk, Unknown,
};
pub use unit::Unit;
