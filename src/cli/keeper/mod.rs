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
//! There must be no unknown keeper. Until `acquire` has printed everything, the keeper ends with
//! it, and gives its lock back. Later it ends with the process it was told of (`--while-pid`), or
//! after a day, unless told otherwise.
//!
//! | file | holds |
//! |---|---|
//! | `record` | what is written down, as text |
//! | `file` | where, and who may read and write it |
//! | `process` | the keeper itself |

pub(super) mod acquire;
mod file;
pub(super) mod held;
mod process;
mod record;
pub(super) mod release;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub(crate) use file::{KeptFile, place_of};
pub(crate) use process::{GO_ON, WORD, pid_namespace, run};
pub(crate) use record::{Ending, Record, Written, env_lines, exports};

use crate::cli::lock::nested::Held;
use coordinator::types::FencingToken;

/// The variable that names the records of what was acquired, the latest first, as `PATH` names
/// directories.
pub(crate) const VARIABLE: &str = "COORDINATOR_KEEPER";

/// The records that our environment names.
pub(crate) fn places() -> Vec<PathBuf> {
    let named = env::var_os(VARIABLE).unwrap_or_default();
    env::split_paths(&named).filter(|place| !place.as_os_str().is_empty()).collect()
}

/// The variable for one more record.
pub(crate) fn variable(place: &Path) -> OsString {
    let older = places().into_iter().filter(|it| it != place && it.exists());
    env::join_paths(std::iter::once(place.to_owned()).chain(older)).unwrap_or_else(|_| place.into())
}

/// What was acquired and not ended since, as the records say that our environment names.
pub(crate) fn held_here() -> Vec<Held> {
    let records =
        places().into_iter().filter_map(|place| KeptFile::open(&place).ok()?.read().ok()?);
    let alive = records.filter(|written| written.ending.is_none());
    let held = |Written { record, .. }: Written| {
        let Record { token, session, locks, .. } = record;
        locks.into_iter().map(move |name| Held {
            token: FencingToken::new(token),
            session: session.clone(),
            name,
        })
    };
    alive.flat_map(held).collect()
}
