//! The disk as the journal needs it: one directory, and files in it that grow at their end
//! (append-only).
//!
//! The trait is small, so tests have a disk of their own, with separate page cache and platter.
//! Changes whose call has returned survive the end of the process. Synced ones survive a power cut.

use std::{fmt, io};

/// A directory for the journal alone. A copy of it is the same directory.
pub trait Disk: Clone + fmt::Debug + Send {
    /// A file of it.
    type File: DiskFile;

    /// The names in it, no more than `max` names, in no order.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or if there are more.
    fn names(&self, max: usize) -> io::Result<Vec<String>>;

    /// A new file for its owner only, to be read and written.
    ///
    /// # Errors
    ///
    /// If there is one of this name, or it cannot be made.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// A file that is there, to be read and written.
    ///
    /// # Errors
    ///
    /// If there is none ([`io::ErrorKind::NotFound`]), or it is not a plain file.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name in one step. A file that had this name before is gone.
    ///
    /// # Errors
    ///
    /// If it could not be done.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Takes a name away. That it was not there is no error.
    ///
    /// # Errors
    ///
    /// If it is still there.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Has all names survive a power cut.
    ///
    /// # Errors
    ///
    /// If that is not certain.
    fn sync(&self) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: fmt::Debug + Send {
    /// Reads from `offset` on, some bytes at least, or none at the end.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at `offset`, perhaps not all. Says how much.
    ///
    /// # Errors
    ///
    /// If nothing was written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Cuts it off at `length`.
    ///
    /// # Errors
    ///
    /// If it could not be done.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Has all that was written survive a power cut.
    ///
    /// # Errors
    ///
    /// If that is not certain.
    fn sync(&self) -> io::Result<()>;

    /// Facts that can be had without reading it.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    fn facts(&self) -> io::Result<Facts>;
}

/// The file system's facts about a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// How long it is.
    pub bytes: u64,
    /// How many names it has. None is left of one that was removed.
    pub links: u64,
    /// Its number in the file system.
    pub inode: u64,
    /// When it was made, in nanoseconds since 1970: no copy has that of another file. None where
    /// the file system does not keep it.
    pub born: Option<u64>,
    /// Whether others than its owner can write it.
    pub is_exposed: bool,
}

impl Facts {
    /// Whether these can be of the same file. The birth tells, where it is known. Numbers of
    /// removed files are used again, and some file systems give new ones when they are mounted.
    pub(super) fn is_same(self, inode: u64, born: Option<u64>) -> bool {
        match (self.born, born) {
            (Some(mine), Some(other)) => mine == other,
            _ => self.inode == inode,
        }
    }
}

/// Writes all of `bytes`.
pub(super) fn write_all(file: &impl DiskFile, bytes: &[u8], mut offset: u64) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match file.write_at(rest, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                rest = rest.get(written..).unwrap_or_default();
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
