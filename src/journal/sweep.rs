//! Obsolete files: what a journal needs no more is removed.

use super::NAMES_MAX;
use super::disk::Disk;
use super::error::Failure;
use super::header::{Named, checkpoint_name, log_name};

/// Removes what is not of the segments from `first` to `last`, which count without it.
pub(super) fn sweep<D: Disk>(disk: &D, first: u64, last: u64) -> Result<(), Failure> {
    for named in names(disk)? {
        let segment = named.segment();
        let name = match named {
            Named::Log(_) => log_name(segment),
            Named::Checkpoint(_) => checkpoint_name(segment),
            Named::New(_) => continue,
        };
        if !(first..=last).contains(&segment) {
            disk.remove(&name).map_err(Failure::file("removed", &name))?;
        }
    }
    Ok(())
}

/// The files of a journal that are there.
pub(super) fn names<D: Disk>(disk: &D) -> Result<Vec<Named>, Failure> {
    let names = disk.names(NAMES_MAX).map_err(Failure::file("read", "the directory"))?;
    Ok(names.iter().filter_map(|name| Named::of(name)).collect())
}
