//! A look at a data directory that changes nothing: whether a start could use it.
//!
//! A coordinator may be running in it, so its lock is left alone, and nothing is made or opened. What a start
//! finds out by reading the state, this does not.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, access};

use super::directory::{EVERYBODY_WRITES, OTHERS};
use super::local::STATE_NAME;
use crate::server::error::ServerError;

/// Looks whether a start could use this data directory, or make it.
///
/// # Errors
///
/// What a start would say of it: [`ServerError::DataUnusable`] or [`ServerError::DataExposed`].
pub fn check_data(directory: &Path) -> Result<(), ServerError> {
    let unusable = |source| ServerError::DataUnusable { directory: directory.to_owned(), source };
    match fs::metadata(directory) {
        Ok(found) => check_one(directory, &found, unusable),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            could_be_made(directory).map_err(unusable)
        }
        Err(error) => Err(unusable(error)),
    }
}

/// One that is there.
fn check_one(
    directory: &Path,
    found: &Metadata,
    unusable: impl Fn(io::Error) -> ServerError,
) -> Result<(), ServerError> {
    if !found.is_dir() {
        return Err(unusable(io::ErrorKind::AlreadyExists.into()));
    }
    let exposed = |path: &Path, found: &Metadata, chmod| ServerError::DataExposed {
        path: path.to_owned(),
        mode: found.mode() & 0o7777,
        chmod,
    };
    if found.mode() & EVERYBODY_WRITES != 0 {
        return Err(exposed(directory, found, "o-w"));
    }
    writable(directory).map_err(&unusable)?;
    let state = directory.join(STATE_NAME);
    match fs::symlink_metadata(&state) {
        Ok(found) if found.mode() & OTHERS != 0 && found.is_file() => {
            Err(exposed(&state, &found, "600"))
        }
        Ok(found) if !found.is_file() => {
            Err(unusable(io::Error::other(format!("its file {STATE_NAME} is not a regular file"))))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unusable(error)),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// One that is missing is made in the first directory above that is there.
fn could_be_made(directory: &Path) -> io::Result<()> {
    for above in directory.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match fs::metadata(above) {
            Ok(_) => return writable(above),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether files can be made there.
fn writable(directory: &Path) -> io::Result<()> {
    Ok(access(directory, Access::WRITE_OK | Access::EXEC_OK)?)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_look_says_what_a_start_would_and_makes_nothing() {
        let place = tempfile::tempdir().unwrap();
        let (data, file) = (place.path().join("a/b/data"), place.path().join("file"));
        check_data(&data).unwrap();
        assert!(!place.path().join("a").exists());
        fs::write(&file, "").unwrap();
        let told = |path: &Path| check_data(path).unwrap_err();
        assert!(matches!(told(&file), ServerError::DataUnusable { .. }));
        assert!(matches!(told(&file.join("below")), ServerError::DataUnusable { .. }));

        fs::create_dir_all(&data).unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
        let state = data.join(STATE_NAME);
        fs::write(&state, "").unwrap();
        for (of, bits, is_right) in [
            (&data, 0o777, false),
            (&data, 0o750, true),
            (&state, 0o640, false),
            (&state, 0o600, true),
        ] {
            mode(&state, 0o600).unwrap();
            mode(of, bits).unwrap();
            assert_eq!(check_data(&data).is_ok(), is_right, "{bits:o} of {}", of.display());
        }
        fs::remove_file(&state).unwrap();
        std::os::unix::fs::symlink(&file, &state).unwrap();
        assert!(
            matches!(told(&data), ServerError::DataUnusable { .. }),
            "it would not be followed"
        );
    }
}
