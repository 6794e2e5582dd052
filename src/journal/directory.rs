//! The directory of the journal, within the data directory: held open, for its owner only.
//!
//! Files are opened relative to the directory that was opened, not by its name. Links are not
//! followed.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::disk::{Disk, DiskFile, Facts};

/// Its name in the data directory.
pub const JOURNAL_NAME: &str = "journal";
/// Files are for their owner only.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// For things that somebody put in the place of a file: a link is not followed, a pipe is not
/// waited for.
const CAREFULLY: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
/// The bits of a mode that let others write.
const OTHERS_WRITE: u32 = 0o022;

/// The directory of a journal. A copy of it is the same one.
#[derive(Clone, Debug)]
pub struct Directory(Arc<File>);

impl Directory {
    /// Opens it in the data directory, and makes it if it is missing. The caller holds the lock of
    /// the data directory: two writers would make each other's journal void.
    ///
    /// # Errors
    ///
    /// If it cannot be made, or something else has its name.
    pub fn open(data: &File) -> io::Result<Self> {
        match mkdirat(data, JOURNAL_NAME, FILE_MODE | Mode::XUSR) {
            // A new name is lost in a power cut if the directory is not synced as well.
            Ok(()) => data.sync_all()?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | CAREFULLY;
        let opened = openat(data, JOURNAL_NAME, flags, Mode::empty()).map_err(understood)?;
        let opened = File::from(opened);
        if opened.metadata()?.mode() & OTHERS_WRITE != 0 {
            return Err(io::Error::other("others can make and remove files in it: chmod go-w it"));
        }
        Ok(Self(Arc::new(opened)))
    }
}

impl Disk for Directory {
    type File = File;

    fn names(&self, max: usize) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&*self.0)? {
            let entry = entry?;
            // What is no text is none of ours.
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            if names.len() == max {
                return Err(io::Error::other(format!("there are more than {max} files in it")));
            }
            names.push(name.to_owned());
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | CAREFULLY;
        Ok(File::from(openat(&*self.0, name, flags, FILE_MODE).map_err(understood)?))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let file = openat(&*self.0, name, OFlags::RDWR | CAREFULLY, Mode::empty());
        let file = File::from(file.map_err(understood)?);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::other("it is not a regular file"))
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&*self.0, from, &*self.0, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&*self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        // With the length, which is all of the metadata that is needed.
        self.sync_data()
    }

    fn facts(&self) -> io::Result<Facts> {
        let metadata = self.metadata()?;
        let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        Ok(Facts {
            bytes: metadata.len(),
            links: metadata.nlink(),
            inode: metadata.ino(),
            born: born.and_then(|born| u64::try_from(born.as_nanos()).ok()),
            is_exposed: metadata.mode() & OTHERS_WRITE != 0,
        })
    }
}

/// The meaning of an error when it does not follow a link.
fn understood(error: Errno) -> io::Error {
    match error {
        Errno::LOOP => io::Error::other("it is a symbolic link, which is not followed here"),
        other => other.into(),
    }
}
