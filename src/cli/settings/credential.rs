//! The credential, as the settings have it: in a file or in a variable, and never a flag, which everybody on
//! the machine could read.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, absolute};

use coordinator::{Credential, Servers};

use super::{Origin, Settings};
use crate::cli::text::errors::{Failure, reason, shell_word};

/// The variable that is the credential.
pub(crate) const CREDENTIAL: &str = "COORDINATOR_CREDENTIAL";
/// The variable that names its file.
const CREDENTIAL_FILE: &str = "COORDINATOR_CREDENTIAL_FILE";
/// The variable by which it may be sent without TLS.
const IN_CLEAR: &str = "COORDINATOR_CREDENTIAL_IN_CLEAR";
/// A file with more in it than this has more than a credential.
const FILE_LEN_MAX: u64 = 4_096;
/// Rights of others than owner and group.
const OTHERS: u32 = 0o007;

impl Settings {
    /// Where to connect to, whom to trust there, and what to show there.
    pub(crate) fn servers(&self) -> Result<Servers, Failure> {
        let mut servers = Servers::from(&self.server.0).tls(self.tls_options());
        if let Some(credential) = self.credential()? {
            servers = servers.credential(credential);
        }
        Ok(if self.credential_in_clear { servers.credential_in_clear() } else { servers })
    }

    /// What proves who we are, if there is anything.
    pub(crate) fn credential(&self) -> Result<Option<Credential>, Failure> {
        let file = &self.credential_file;
        let origin = self.in_force.iter().find(|it| it.key == "credential-file");
        let origin = origin.map(|it| &it.origin);
        if let Some(text) = variable()
            && origin != Some(&Origin::Flag)
        {
            let credential = Credential::new(text.trim()).map_err(|why| {
                Failure::usage(format!("{CREDENTIAL} is no credential: {why}"))
                    .hint("it is what `coordinator access new-credential` prints")
            });
            return credential.map(Some);
        }
        if file.as_os_str().is_empty() {
            return Ok(None);
        }
        match read(file) {
            Ok(credential) => Ok(Some(credential)),
            Err(NotRead::Io(error))
                if origin == Some(&Origin::Default) && error.kind() == io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            Err(why) => Err(why.about(file)),
        }
    }

    /// The same for a child of ours, as its variables, as far as they are not inherited. A command of the
    /// user's is told the file, if there is one, and not the secret itself.
    pub(super) fn proof(&self) -> Vec<(&'static str, Option<OsString>)> {
        let mut variables = Vec::new();
        let file = &self.credential_file;
        // Also the usual one: a child has its variables, and none of our settings.
        let is_there = self.is_said("credential-file") || file.exists();
        if is_there && !file.as_os_str().is_empty() {
            let file = absolute(file).unwrap_or_else(|_| file.clone());
            variables.push((CREDENTIAL_FILE, Some(file.into_os_string())));
        }
        if self.is_flag("credential-file") {
            variables.push((CREDENTIAL, None));
        }
        if self.credential_in_clear {
            variables.push((IN_CLEAR, Some("true".into())));
        }
        variables
    }

    /// Whether this command line says it.
    pub(crate) fn is_flag(&self, key: &str) -> bool {
        self.in_force.iter().any(|it| it.key == key && it.origin == Origin::Flag)
    }
}

/// The same, with what a parent has said to show.
pub(super) fn shown_by_variables(servers: Servers) -> Servers {
    let from_file = || {
        let file = env::var_os(CREDENTIAL_FILE).filter(|value| !value.is_empty())?;
        read(Path::new(&file)).ok()
    };
    let credential = variable().and_then(|text| Credential::new(text.trim()).ok());
    let servers = match credential.or_else(from_file) {
        Some(credential) => servers.credential(credential),
        None => servers,
    };
    let is_in_clear = env::var(IN_CLEAR).is_ok_and(|value| value == "true");
    if is_in_clear { servers.credential_in_clear() } else { servers }
}

fn variable() -> Option<String> {
    env::var(CREDENTIAL).ok().filter(|text| !text.is_empty())
}

/// Why there is no credential in a file.
enum NotRead {
    Io(io::Error),
    Exposed(u32),
    NoCredential(String),
}

fn read(file: &Path) -> Result<Credential, NotRead> {
    let mut opened = File::open(file).map_err(NotRead::Io)?;
    let metadata = opened.metadata().map_err(NotRead::Io)?;
    if metadata.mode() & OTHERS != 0 {
        return Err(NotRead::Exposed(metadata.mode() & 0o7777));
    }
    let mut text = String::new();
    opened.by_ref().take(FILE_LEN_MAX).read_to_string(&mut text).map_err(NotRead::Io)?;
    Credential::new(text.trim()).map_err(|why| NotRead::NoCredential(why.to_string()))
}

impl NotRead {
    fn about(self, file: &Path) -> Failure {
        let shown = file.display();
        match self {
            Self::Io(error) => {
                Failure::usage(format!("cannot read the credential {shown} ({})", reason(&error)))
                    .hint("--credential-file names the file, COORDINATOR_CREDENTIAL is one itself")
            }
            Self::Exposed(mode) => Failure::usage(format!(
                "the credential {shown} can be read by others (mode {mode:o})"
            ))
            .hint(format!("chmod 600 {}", shell_word(&file.to_string_lossy()))),
            Self::NoCredential(why) => {
                Failure::usage(format!("in {shown} is no credential: {why}"))
                    .hint("it is what `coordinator access new-credential` prints, and nothing else")
            }
        }
    }
}
