//! The files of certificates and rules, looked at now and then: who renews them may have no way to send a signal.
//!
//! The one idea: *contents count, not times*. A volume of secrets is replaced as a whole by other links, and a copy may
//! bring an old time along. What has changed is taken over once two looks have found the same, or a certificate
//! would be read whose key is yet to be written.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::settings::{Settings, files};

/// Between two looks.
pub(super) const LOOKS_APART: Duration = Duration::from_secs(60);
/// Between two looks while something changes.
const SETTLING: Duration = Duration::from_secs(2);

/// What the files had in them.
#[derive(Debug)]
pub(super) struct Watched {
    /// When they were read last.
    read: Contents,
    /// When they were looked at last, if they had changed since.
    changing: Option<Contents>,
}

/// Digests of contents, in the order of the files; none of a file that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contents(Vec<(PathBuf, Option<u64>)>);

impl Contents {
    /// Those of now.
    pub(super) fn of(settings: &Settings) -> Self {
        let Settings { tls_cert, tls_key, tls_client_ca, tls_crl, access_file, .. } = settings;
        let files = [tls_cert, tls_key, tls_client_ca, tls_crl, access_file];
        Self::of_files(files.into_iter().flatten().cloned())
    }

    /// The same, or those of now, if it has other files since.
    pub(super) fn if_of(self, settings: &Settings) -> Self {
        let now = Self::of(settings);
        let names = |it: &Self| it.0.iter().map(|(file, _)| file.clone()).collect::<Vec<_>>();
        if names(&self) == names(&now) { self } else { now }
    }

    fn of_files(files: impl Iterator<Item = PathBuf>) -> Self {
        let digest = |file: &PathBuf| {
            let mut hasher = DefaultHasher::new();
            files::read(file).ok()?.hash(&mut hasher);
            Some(hasher.finish())
        };
        Self(files.map(|file| (file.clone(), digest(&file))).collect())
    }
}

impl Watched {
    /// They are read.
    pub(super) fn new(read: Contents) -> Self {
        Self { read, changing: None }
    }

    /// Until the next look.
    pub(super) fn pause(&self) -> Duration {
        if self.changing.is_some() { SETTLING } else { LOOKS_APART }
    }

    /// Whether they are to be read again, after a look that found this.
    pub(super) fn are_changed(&mut self, found: Contents) -> bool {
        if found == self.read {
            self.changing = None;
            return false;
        }
        let is_settled = self.changing.as_ref() == Some(&found);
        self.changing = Some(found);
        is_settled
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_are_read_again_once_two_looks_have_found_the_same_and_once_for_each_change() {
        let home = tempfile::tempdir().unwrap();
        let files = ["cert", "key"].map(|name| home.path().join(name));
        let look = || Contents::of_files(files.clone().into_iter());
        fs::write(&files[0], "one").unwrap();
        let mut watched = Watched::new(look());
        assert!(!watched.are_changed(look()));
        assert_eq!(watched.pause(), LOOKS_APART);
        fs::write(&files[0], "two").unwrap();
        assert!(!watched.are_changed(look()));
        assert_eq!(watched.pause(), SETTLING);
        fs::write(&files[1], "its key").unwrap();
        assert!(!watched.are_changed(look()), "it goes on");
        assert!(watched.are_changed(look()));
        // Whether they are any good or not, they were read.
        let mut watched = Watched::new(look());
        assert!(!watched.are_changed(look()));
        fs::remove_file(&files[1]).unwrap();
        assert!(!watched.are_changed(look()));
        fs::write(&files[1], "its key").unwrap();
        assert!(!watched.are_changed(look()), "as before");
        assert_eq!(watched.pause(), LOOKS_APART);
    }
}
