//! The records that our environment names, and what is held by them.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use coordinator::types::FencingToken;

use super::file::KeptFile;
use super::record::{Record, Written};
use crate::cli::lock::above::Held;

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
