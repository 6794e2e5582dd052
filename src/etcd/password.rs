//! The password of a user of etcd, in a file: it is read each time that it is shown. So one that was changed counts from
//! the next token on, and nothing has to be started anew.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::spawn_blocking;

/// No password is longer.
const PASSWORD_BYTES_MAX: u64 = 64 * 1024;

/// A password, and the file that has it.
#[derive(Clone)]
pub struct Password {
    /// Where it is.
    file: PathBuf,
    /// What was read last: what counts while the file cannot be read.
    last: Arc<Mutex<String>>,
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Password").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Password {
    /// The one in a file that was just read.
    pub fn new(file: PathBuf, content: &[u8]) -> Self {
        Self { file, last: Arc::new(Mutex::new(text(content))) }
    }

    /// What it is now.
    pub(super) async fn now(&self) -> String {
        let password = self.clone();
        // A disk that is slow keeps no other call waiting.
        let read = spawn_blocking(move || password.read_again()).await;
        read.unwrap_or_else(|_| self.last())
    }

    fn read_again(&self) -> String {
        let mut content = Vec::new();
        // A pipe may have nobody who writes, and whoever waits for it could not be stopped.
        let found = fs::metadata(&self.file).and_then(|found| {
            if found.is_file() {
                File::open(&self.file)
            } else {
                Err(io::Error::other("it is no regular file"))
            }
        });
        let read = found.and_then(|file| file.take(PASSWORD_BYTES_MAX).read_to_end(&mut content));
        if let Err(error) = &read {
            let file = self.file.display();
            log::warn!(
                "cluster: etcd's password in {file} cannot be read, that of before counts: {error}"
            );
        }
        // One that is being written may be empty.
        if read.is_ok() && !text(&content).is_empty() {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = text(&content);
        }
        self.last()
    }

    fn last(&self) -> String {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Editors end what they write with a line end.
fn text(content: &[u8]) -> String {
    String::from_utf8_lossy(content).trim_end_matches(['\r', '\n']).to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_password_is_the_one_that_the_file_has_now_or_had_last() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        let password = Password::new(file.clone(), b"first\r\n");
        assert_eq!(password.now().await, "first", "there is no file any more");
        fs::write(&file, "second\n").unwrap();
        assert_eq!(password.now().await, "second");
        fs::write(&file, "\n").unwrap();
        assert_eq!(password.now().await, "second", "it is being written");
        fs::remove_file(&file).unwrap();
        assert_eq!(password.now().await, "second");
        rustix::fs::mkfifoat(rustix::fs::CWD, &file, 0o600.into()).unwrap();
        assert_eq!(password.now().await, "second", "nobody writes into a pipe");
        assert!(!format!("{password:?}").contains("second"));
    }
}
