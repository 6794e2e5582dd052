//! Where a keeper's record is, and who may read and write it.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf, absolute};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::OFlags;
use rustix::process::geteuid;
use serde::Serialize;

use super::record::{RECORD_LEN_MAX, Written, can_be_listed, line, parse};
use crate::cli::text::errors::{Failure, exit, reason};
use crate::cli::text::visible::quoted;

/// Bits of a mode that let others write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A record's file, open.
#[derive(Debug)]
pub(crate) struct KeptFile {
    /// The file.
    file: File,
    /// Its name.
    path: PathBuf,
}

impl KeptFile {
    /// Opens what a keeper wrote.
    ///
    /// # Errors
    ///
    /// Of the kind `NotFound` if it is not there; others if it cannot be read, or others could have
    /// written it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = options().read(true).open(path)?;
        check(&file)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Makes the file, or takes one over that is empty, or of a keeper that has ended. It is locked
    /// for as long as this lives.
    pub(crate) fn claim(path: &Path) -> Result<Self, Failure> {
        let cannot = |error: &io::Error| {
            let path = quoted(&path.to_string_lossy());
            Failure::new(exit::NOT_WRITTEN, format!("cannot write {path} ({})", reason(error)))
        };
        let mut options = options();
        options.read(true).write(true).mode(0o600);
        let is_new = options.clone().create_new(true).open(path);
        let file = match is_new {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path),
            opened => opened,
        };
        let file = file.and_then(|file| check(&file).map(|()| file)).map_err(|e| cannot(&e))?;
        let mut kept = Self { file, path: path.to_owned() };
        match kept.file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(kept.is_in_use()),
            Err(TryLockError::Error(error)) => return Err(cannot(&error)),
        }
        if kept.len().map_err(|error| cannot(&error))? > 0 && !matches!(kept.read(), Ok(Some(_))) {
            let path = quoted(&path.to_string_lossy());
            return Err(Failure::usage(format!(
                "{path} is not a keeper file, and was left unchanged"
            ))
            .hint("name a file that does not exist yet"));
        }
        let emptied = kept.file.set_permissions(Permissions::from_mode(0o600));
        emptied.and_then(|()| kept.file.set_len(0)).map_err(|error| cannot(&error))?;
        kept.file.rewind().map_err(|error| cannot(&error))?;
        Ok(kept)
    }

    fn is_in_use(&mut self) -> Failure {
        let path = quoted(&self.path.to_string_lossy());
        let locks = match self.read() {
            Ok(Some(written)) => written.record.names(),
            _ => "a lock".to_owned(),
        };
        Failure::usage(format!("{path} is in use: a keeper holds {locks}"))
            .hint("release it first with `coordinator release --keeper FILE`, or name another file")
    }

    /// Writes the next line.
    pub(crate) fn write(&mut self, thing: &impl Serialize) -> io::Result<()> {
        self.file.write_all(line(thing).as_bytes())
    }

    /// What is written; none if it is not that of a keeper, or nothing is written yet.
    pub(crate) fn read(&mut self) -> io::Result<Option<Written>> {
        let mut text = String::new();
        self.file.rewind()?;
        (&self.file).take(RECORD_LEN_MAX).read_to_string(&mut text)?;
        Ok(parse(&text))
    }

    /// Whether its keeper lives.
    pub(crate) fn is_kept(&self) -> io::Result<bool> {
        match self.file.try_lock_shared() {
            Ok(()) => self.file.unlock().map(|()| false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Removes it, unless its name is another file's by now.
    pub(crate) fn remove(&self) {
        let same = |one: fs::Metadata, other: fs::Metadata| {
            (one.dev(), one.ino()) == (other.dev(), other.ino())
        };
        if let (Ok(ours), Ok(there)) = (self.file.metadata(), fs::symlink_metadata(&self.path))
            && same(ours, there)
        {
            let _stays = fs::remove_file(&self.path);
        }
    }

    /// Its name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

/// Links are not followed, and nothing that is no file (a FIFO) is waited for.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
    options
}

/// Nobody else can have written it.
fn check(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if metadata.uid() != geteuid().as_raw() {
        return Err(io::Error::other("it belongs to another user"));
    }
    if metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(io::Error::other("others can write to it"));
    }
    Ok(())
}

/// The file that a user named, whatever the directory is that somebody asks from.
pub(crate) fn place_of(named: &Path) -> Result<PathBuf, Failure> {
    let path = absolute(named).map_err(|error| {
        Failure::usage(format!("--keeper does not name a file ({})", reason(&error)))
    })?;
    if can_be_listed(path.as_os_str()) {
        return Ok(path);
    }
    Err(Failure::usage(format!("--keeper cannot be {}", quoted(&path.to_string_lossy())))
        .hint("its path must not contain colons or unprintable characters"))
}

/// A file that was never there, in a directory for us only.
pub(crate) fn new_place() -> Result<PathBuf, Failure> {
    let directory = directory().map_err(|(path, error)| {
        let path = quoted(&path.to_string_lossy());
        Failure::new(exit::NOT_WRITTEN, format!("cannot use {path} ({})", reason(&error)))
            .hint("name a file with --keeper")
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    place_of(&directory.join(format!("keeper-{}-{:x}", std::process::id(), now.as_nanos())))
}

/// `$XDG_RUNTIME_DIR/coordinator`, which ends with the user's last session; else one of ours among what
/// is temporary.
fn directory() -> Result<PathBuf, (PathBuf, io::Error)> {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let path = match runtime.filter(|it| it.is_absolute() && it.is_dir()) {
        Some(runtime) => runtime.join("coordinator"),
        None => env::temp_dir().join(format!("coordinator-{}", geteuid().as_raw())),
    };
    match private(&path) {
        Ok(()) => Ok(path),
        Err(error) => Err((path, error)),
    }
}

/// Makes the directory for us only, or checks that it is.
fn private(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made,
    }
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return Err(io::Error::other("it is not a directory"));
    }
    if metadata.uid() != geteuid().as_raw() || metadata.mode() & 0o077 != 0 {
        return Err(io::Error::other("users other than its owner can access it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::record::Ending;
    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keeper");
        (directory, path)
    }

    #[test]
    fn a_keeper_shows_that_it_lives() {
        let (_directory, path) = place();
        let keeper = KeptFile::claim(&path).unwrap();
        let other = KeptFile::open(&path).unwrap();
        assert!(other.is_kept().unwrap());
        assert!(KeptFile::claim(&path).unwrap_err().plain().contains("is in use"));
        drop(keeper);
        assert!(!other.is_kept().unwrap());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        // Empty, as mktemp(1) makes it: it is taken over.
        KeptFile::claim(&path).unwrap();
    }

    #[test]
    fn what_is_no_record_is_left_alone() {
        let (_directory, path) = place();
        fs::write(&path, "precious\n").unwrap();
        assert!(KeptFile::claim(&path).unwrap_err().plain().contains("left unchanged"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious\n");
    }

    #[test]
    fn a_link_in_place_of_a_record_is_not_followed_and_what_others_can_write_not_believed() {
        let (directory, path) = place();
        let target = directory.path().join("target");
        fs::write(&target, "").unwrap();
        symlink(&target, &path).unwrap();
        assert!(KeptFile::open(&path).is_err());
        assert!(KeptFile::claim(&path).is_err());
        fs::set_permissions(&target, Permissions::from_mode(0o622)).unwrap();
        assert!(KeptFile::open(&target).is_err());
        assert!(KeptFile::claim(&target).is_err());
    }

    #[test]
    fn a_name_that_is_another_files_by_now_is_not_removed() {
        let (_directory, path) = place();
        let mut before = KeptFile::claim(&path).unwrap();
        before.write(&Ending::Released).unwrap();
        fs::remove_file(&path).unwrap();
        let _after = KeptFile::claim(&path).unwrap();
        before.remove();
        assert!(path.exists());
    }

    #[test]
    fn a_directory_that_others_can_enter_is_refused() {
        let (directory, path) = place();
        private(&path).unwrap();
        private(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o710)).unwrap();
        assert!(private(&path).is_err());
        let link = directory.path().join("link");
        symlink(directory.path(), &link).unwrap();
        assert!(private(&link).is_err());
    }
}
