//! Files that a server reads again while it runs: only such as have an end.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// More than this is no certificate, no password and no list of rules.
const LEN_MAX: u64 = 64 * 1024 * 1024;

/// Opens what is a regular file. A pipe may have nobody who writes, and a device may have no end.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let found = fs::metadata(path)?;
    if found.is_dir() {
        return Err(io::Error::other("it is a directory"));
    }
    if !found.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    File::open(path)
}

/// What is in such a file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(LEN_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LEN_MAX {
        return Err(io::Error::other("it is longer than 64 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_or_is_no_file_is_not_read() {
        let told = |path: &Path| read(path).unwrap_err().to_string();
        assert_eq!(told(Path::new("/dev/zero")), "it is no regular file");
        let home = tempfile::tempdir().unwrap();
        assert_eq!(told(home.path()), "it is a directory");
        let file = home.path().join("f");
        fs::write(&file, "text").unwrap();
        assert_eq!(read(&file).unwrap(), b"text");
        let link = home.path().join("l");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read(&link).unwrap(), b"text", "as in a volume of secrets");
    }
}
