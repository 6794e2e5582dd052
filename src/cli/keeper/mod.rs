//! A lock that is held over several steps of a script or of a job: a process of its own keeps it.
//!
//! ```text
//! coordinator acquire ──starts──▶ keeper: connects, waits in line, is granted
//!        │ ◀───────"held"──────────┤ it writes its record
//!        ├────────"go on"─────────▶│ leaves all that was inherited
//!        ▼ prints variables        │ renews the lease
//!   … steps of the job …           │
//! coordinator release ──SIGTERM──▶ │ gives the lock back, writes how it ended
//! ```
//!
//! The *record* is a file for its owner only. It says what is held, and whose process the keeper
//! is; at last, how it ended. The keeper has the file locked (flock(2)) for as long as it lives. A
//! record without a last word and without a lock is that of a killed keeper. Its process id may be
//! another's by then, and is never used. A record that others could have written is not believed.
//! Nothing in it is secret, but who can write it could have us signal a process of ours.
//!
//! There must be no unknown keeper. Until `acquire` has printed everything to a reader, the keeper ends with
//! it, and gives its lock back. Later it ends with the process it was told of (`--while-pid`), or
//! after a day, unless told otherwise.
//!
//! | file | holds |
//! |---|---|
//! | `record` | what is written down, as text |
//! | `file` | where, and who may read and write it |
//! | `places` | the records that our environment names |
//! | `variables` | what later steps are told |
//! | `process` | the keeper itself |

pub(super) mod acquire;
mod file;
pub(super) mod held;
pub(super) mod places;
mod process;
mod record;
pub(super) mod release;
mod variables;

pub(super) use process::{WORD, run};
