//! What was made of files, for as long as they stay as they were.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// A file that has changed within this may change again without looking different: systems do not count their
/// times finer.
const CHANGES_APART: Duration = Duration::from_secs(2);

/// Something that is made of files. Clones have it in common.
///
/// Files that are replaced are read again. So are those that changed just now, until that can be told from their
/// next change.
pub(super) struct Kept<T>(Arc<Mutex<Option<Made<T>>>>);

/// What was made, and of what.
struct Made<T> {
    /// How the files looked before they were read.
    looks: Vec<Look>,
    /// What was made of them.
    made: Arc<T>,
}

/// How a file looks from outside.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    /// How long it is.
    len: u64,
    /// When its content changed.
    modified: SystemTime,
    /// Which file it is, and when anything of it changed: its device, its number, seconds and nanoseconds.
    #[cfg(unix)]
    inode: [i64; 4],
}

impl Look {
    /// How a file looks; none if it is not there, or has changed too recently.
    fn at(file: &Path, now: SystemTime) -> Option<Self> {
        let seen = fs::metadata(file).ok()?;
        let modified = seen.modified().ok()?;
        if now.duration_since(modified).ok()? < CHANGES_APART {
            return None;
        }
        #[cfg(unix)]
        let inode = {
            use std::os::unix::fs::MetadataExt;
            [seen.dev().cast_signed(), seen.ino().cast_signed(), seen.ctime(), seen.ctime_nsec()]
        };
        Some(Self {
            len: seen.len(),
            modified,
            #[cfg(unix)]
            inode,
        })
    }
}

impl<T> Kept<T> {
    /// What `make` makes of `files`; what it made before, if they still look as they did then.
    pub(super) fn of<E>(
        &self,
        files: &[&Path],
        now: SystemTime,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let looks: Option<Vec<Look>> = files.iter().map(|file| Look::at(file, now)).collect();
        // Nobody panics while it is locked. Two who come at once both make it, and neither waits.
        let locked = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = &*locked()
            && looks.as_ref() == Some(&kept.looks)
        {
            return Ok(Arc::clone(&kept.made));
        }
        let fresh = Arc::new(make()?);
        *locked() = looks.map(|looks| Made { looks, made: Arc::clone(&fresh) });
        Ok(fresh)
    }
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// It can be made again at any time, so whatever has it is the same as without.
impl<T> PartialEq for Kept<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Kept<T> {}

/// Keys may be among it.
impl<T> fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::fs::File;

    use super::*;

    /// What is made of a file: its text, and how often it was read.
    struct Reader {
        kept: Kept<String>,
        file: tempfile::NamedTempFile,
        reads: usize,
    }

    impl Reader {
        fn new(text: &str) -> Self {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(&file, text).unwrap();
            Self { kept: Kept::default(), file, reads: 0 }
        }

        /// The text, for one who comes so long from now.
        fn read_after(&mut self, later: Duration) -> String {
            let now = SystemTime::now() + later;
            let file = self.file.path();
            let read = || {
                self.reads += 1;
                Ok::<_, Infallible>(fs::read_to_string(file).unwrap())
            };
            self.kept.of(&[file], now, read).unwrap().to_string()
        }
    }

    const LATER: Duration = Duration::from_secs(10);

    #[test]
    fn a_file_that_stays_as_it_is_is_read_once() {
        let mut reader = Reader::new("first");
        for _ in 0..3 {
            assert_eq!(reader.read_after(LATER), "first");
        }
        assert_eq!(reader.reads, 1);
    }

    #[test]
    fn a_file_that_is_written_again_or_replaced_is_read_again_though_it_is_as_long() {
        let mut reader = Reader::new("first");
        assert_eq!(reader.read_after(LATER), "first");
        let before = fs::metadata(&reader.file).unwrap().modified().unwrap();
        let other = reader.file.path().with_extension("new");
        fs::write(&other, "other").unwrap();
        // As a tool does it that keeps the times of what it copies.
        File::options().write(true).open(&other).unwrap().set_modified(before).unwrap();
        fs::rename(&other, &reader.file).unwrap();
        assert_eq!(reader.read_after(LATER), "other");
        assert_eq!(reader.reads, 2);
    }

    #[test]
    fn a_file_that_changed_just_now_is_read_again_until_its_next_change_would_show() {
        let mut reader = Reader::new("first");
        assert_eq!(reader.read_after(Duration::ZERO), "first");
        fs::write(&reader.file, "other").unwrap();
        assert_eq!(reader.read_after(Duration::ZERO), "other");
        assert_eq!(reader.reads, 2);
        fs::remove_file(&reader.file).unwrap();
        let gone: Result<_, ()> =
            reader.kept.of(&[reader.file.path()], SystemTime::now(), || Err(()));
        assert!(gone.is_err());
    }
}
