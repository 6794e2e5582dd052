//! The data directory: held open, locked, and for its owner only.
//!
//! A reader of its files can take over any session, and a writer can undo any lock. So files are
//! readable for their owner only, links are never followed, and files that others could read or
//! write are refused before use. Files are opened relative to the open directory, not by its name.
//! If another directory takes its place, that one is not touched.

use std::fs::{DirBuilder, File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use log::{info, warn};
use rustix::fs::{AtFlags, Mode, OFlags, fchmod, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use super::store::StoreError;
use crate::server::error::ServerError;

/// Locked by whoever uses the data directory; empty.
pub(super) const LOCK_NAME: &str = "lock";
/// Files of ours are for their owner only.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Whatever somebody put in the place of a file: a link is not followed, a pipe is not waited for.
const CAREFULLY: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
/// The bits of a mode that let others do something with a file.
pub(super) const OTHERS: u32 = 0o077;
/// The bit of a mode that lets everybody make and remove files in a directory.
pub(super) const EVERYBODY_WRITES: u32 = 0o002;
/// Most damaged files of one name that are kept.
const SET_ASIDE_MAX: u32 = 100;

/// Pause between two looks at a lock that another process has.
const LOOK_PAUSE: Duration = Duration::from_millis(5);
/// So many looks at it: 3 s, more than a process needs to be gone that was killed.
const LOOKS_MAX: u32 = 600;

/// Whether a start waits for the end of the run before. The system may still be busy with a killed
/// process when the next one is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It does, for as long as a killed process needs to be gone.
    Some,
    /// It does not.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests have nobody to wait for"))]
    None,
}

impl Patience {
    fn looks(self) -> u32 {
        match self {
            Self::Some => LOOKS_MAX,
            Self::None => 0,
        }
    }
}

/// A data directory that is ours for as long as this is there.
#[derive(Debug)]
pub(super) struct Directory {
    /// Its name, for messages, and to see whether it is still there.
    path: PathBuf,
    /// The directory itself.
    opened: File,
    /// Keeps other processes out for as long as it is open.
    lock: File,
    /// Whether somebody used it before.
    pub(super) is_used: bool,
}

impl Directory {
    /// Opens the directory, and makes it if it is missing.
    pub(super) fn open(path: &Path, patience: Patience) -> Result<Self, ServerError> {
        let unusable = |source| ServerError::DataUnusable { directory: path.to_owned(), source };
        make_private(path).map_err(unusable)?;
        let opened = File::open(path).map_err(unusable)?;
        let metadata = opened.metadata().map_err(unusable)?;
        if !metadata.is_dir() {
            return Err(unusable(io::ErrorKind::NotADirectory.into()));
        }
        if metadata.mode() & EVERYBODY_WRITES != 0 {
            return Err(ServerError::DataExposed {
                path: path.to_owned(),
                mode: metadata.mode() & 0o7777,
                chmod: "o-w",
            });
        }
        let (lock, is_used) = open_lock(&opened, path).map_err(unusable)?;
        let mut looks = 0;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if looks < patience.looks() => {
                    if looks == 0 {
                        info!("another coordinator uses {}, waiting for its end", path.display());
                    }
                    looks += 1;
                    thread::sleep(LOOK_PAUSE);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(ServerError::DataInUse { directory: path.to_owned() });
                }
                Err(TryLockError::Error(error)) => return Err(unusable(error)),
            }
        }
        Ok(Self { path: path.to_owned(), opened, lock, is_used })
    }

    /// A file of ours as one opens it, or none if it is missing.
    pub(super) fn open_file(&self, name: &str) -> io::Result<Option<File>> {
        match openat(&self.opened, name, OFlags::RDONLY | CAREFULLY, Mode::empty()) {
            Ok(file) => plain(File::from(file)).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(understood(error)),
        }
    }

    /// Refuses a file that others can read or write.
    pub(super) fn check_private(&self, name: &str, file: &File) -> Result<(), ServerError> {
        let path = self.path.join(name);
        let metadata = file.metadata();
        let metadata = metadata
            .map_err(|source| ServerError::DataUnusable { directory: path.clone(), source })?;
        let mode = metadata.mode() & 0o7777;
        if mode & OTHERS != 0 {
            return Err(ServerError::DataExposed { path, mode, chmod: "600" });
        }
        Ok(())
    }

    /// Has `write` fill a new file, and puts it in the place of `name` when it is on disk. What was
    /// there stays as it is until then, and if anything fails.
    pub(super) fn replace<T>(
        &self,
        name: &str,
        write: impl FnOnce(&File) -> Result<T, StoreError>,
    ) -> Result<(T, File), StoreError> {
        let new = format!("{name}.new");
        let failed = |source| self.failed(&new, source);
        self.remove(&new).map_err(failed)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | CAREFULLY;
        let file = openat(&self.opened, new.as_str(), flags, FILE_MODE);
        let file = file.map(File::from).map_err(|error| failed(error.into()))?;
        let written = write(&file).and_then(|done| {
            file.sync_all().map_err(failed)?;
            self.rename(&new, name).map_err(failed)?;
            Ok(done)
        });
        if written.is_err() {
            // A disk that is full needs the room; and it is the other failure that counts.
            let _ = self.remove(&new);
        }
        written.map(|done| (done, file))
    }

    /// Gives a file another name, for good.
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        renameat(&self.opened, from, &self.opened, to)?;
        // A new name is lost in a power cut if the directory is not synced as well.
        self.opened.sync_all()
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.opened, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether there is something of this name.
    pub(super) fn has(&self, name: &str) -> io::Result<bool> {
        match statat(&self.opened, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps a damaged file under another name, so that it can be looked at.
    pub(super) fn set_aside(&self, name: &str) -> io::Result<()> {
        if !self.has(name)? {
            return Ok(());
        }
        for number in 1..=SET_ASIDE_MAX {
            let aside = format!("{name}.damaged-{number}");
            if !self.has(&aside)? {
                warn!("{} is kept as {aside}", self.path.join(name).display());
                return self.rename(name, &aside);
            }
        }
        Err(io::Error::other(format!("there are {SET_ASIDE_MAX} damaged ones already")))
    }

    /// That the directory, its lock and this file are still where they were opened.
    pub(super) fn check(&self, named: Option<(&str, &File)>) -> Result<(), StoreError> {
        let gone = |what: &str| StoreError::Gone { path: self.path.clone(), what: what.into() };
        let opened = |file: &File| file.metadata().map_err(|source| self.failed("", source));
        // By its name: whether it leads here is what is to be known.
        let same = |path: &Path, there: &Metadata| {
            let found = std::fs::symlink_metadata(path);
            found.is_ok_and(|found| (found.dev(), found.ino()) == (there.dev(), there.ino()))
        };
        let there = opened(&self.opened)?;
        let found = std::fs::metadata(&self.path);
        if !found.is_ok_and(|found| (found.dev(), found.ino()) == (there.dev(), there.ino())) {
            return Err(gone("it"));
        }
        for (name, file) in [(LOCK_NAME, &self.lock)].into_iter().chain(named) {
            if !same(&self.path.join(name), &opened(file)?) {
                return Err(gone(&format!("its file {name}")));
            }
        }
        Ok(())
    }

    /// The failure of a file.
    pub(super) fn failed(&self, name: &str, source: io::Error) -> StoreError {
        StoreError::File { path: self.path.join(name), source }
    }

    /// The damage of a file.
    pub(super) fn damaged(&self, name: &str, why: impl Into<String>) -> StoreError {
        StoreError::Damaged { path: self.path.join(name), why: why.into() }
    }
}

/// The lock file, and whether it was there. Whoever can read it could lock it and keep us out for ever.
fn open_lock(directory: &File, path: &Path) -> io::Result<(File, bool)> {
    let flags = OFlags::RDWR | CAREFULLY;
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("{}: {error}", path.join(LOCK_NAME).display()))
    };
    let (file, is_used) = match openat(directory, LOCK_NAME, flags, Mode::empty()) {
        Ok(file) => (file, true),
        Err(Errno::NOENT) => {
            // Not exclusive: another coordinator may begin at the same time, and one of us gets it.
            let file = openat(directory, LOCK_NAME, flags | OFlags::CREATE, FILE_MODE);
            (file.map_err(|error| named(understood(error)))?, false)
        }
        Err(error) => return Err(named(understood(error))),
    };
    let file = plain(File::from(file)).map_err(named)?;
    if file.metadata()?.mode() & OTHERS != 0 {
        fchmod(&file, FILE_MODE).map_err(|error| named(error.into()))?;
        info!("{} is now accessible to its owner only", path.join(LOCK_NAME).display());
    }
    Ok((file, is_used))
}

/// Only a plain file is one of ours.
fn plain(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is not a regular file"))
    }
}

/// What the system means when it does not follow a link.
fn understood(error: Errno) -> io::Error {
    match error {
        Errno::LOOP => io::Error::other("it is a symbolic link, which is not followed here"),
        other => other.into(),
    }
}

/// Makes `directory` and what leads there, readable for its owner only. One that is there already
/// is left as it is.
fn make_private(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)?;
    }
    DirBuilder::new().mode(0o700).create(directory)?;
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
