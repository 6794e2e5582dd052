//! Encrypted connections, as the settings have them: of a server, and of those who connect to one.

use std::env;
use std::ffi::OsString;
use std::path::{PathBuf, absolute};
use std::process::Command;

use coordinator::Servers;
use coordinator::tls::{ServerFiles, TlsOptions};

use super::Settings;
use super::credential::shown_by_variables;

/// The variables that carry to children how a server is trusted.
const SERVER_CA: &str = "COORDINATOR_SERVER_CA";
const SERVER_NAME: &str = "COORDINATOR_SERVER_NAME";
const CLIENT_CERT: &str = "COORDINATOR_CLIENT_CERT";
const CLIENT_KEY: &str = "COORDINATOR_CLIENT_KEY";

impl Settings {
    /// Whom to trust, and what to show.
    pub(crate) fn tls_options(&self) -> TlsOptions {
        let name = self.server_name.as_ref().map(|name| name.0.clone());
        let [ca, cert, key] =
            [&self.server_ca, &self.client_cert, &self.client_key].map(Option::clone);
        options(ca, name, cert.zip(key))
    }

    /// The same for a child, as its variables: whatever directory it is in, and whatever is inherited.
    pub(crate) fn tell_tls(&self, child: &mut Command) {
        for (name, value) in self.trust() {
            match value {
                Some(value) => child.env(name, value),
                None => child.env_remove(name),
            };
        }
    }

    /// The variables that say it, each with its value if it has one.
    pub(crate) fn trust(&self) -> Vec<(&'static str, Option<OsString>)> {
        let path = |file: &Option<PathBuf>| {
            // One that cannot be made absolute has no current directory to be in.
            file.as_ref()
                .map(|file| absolute(file).unwrap_or_else(|_| file.clone()).into_os_string())
        };
        let mut variables = vec![
            (SERVER_CA, path(&self.server_ca)),
            (SERVER_NAME, self.server_name.as_ref().map(|name| name.0.clone().into())),
            (CLIENT_CERT, path(&self.client_cert)),
            (CLIENT_KEY, path(&self.client_key)),
        ];
        variables.extend(self.proof());
        variables
    }

    /// Whom a member trusts as its leader, and what it shows there; none if it does not speak TLS.
    pub(crate) fn peer_tls(&self) -> Option<TlsOptions> {
        let identity = self.tls_cert.clone().zip(self.tls_key.clone())?;
        let ca = self.peer_ca.as_ref().or(self.tls_client_ca.as_ref());
        Some(options(ca.cloned(), None, Some(identity)))
    }

    /// What a server shows and asks for; none if it does not speak TLS.
    pub(crate) fn tls_files(&self) -> Option<ServerFiles> {
        let (cert, key) = self.tls_cert.clone().zip(self.tls_key.clone())?;
        Some(ServerFiles {
            cert,
            key,
            client_ca: self.tls_client_ca.clone(),
            client_auth: self.tls_client_auth.0,
            crl: self.tls_crl.clone(),
        })
    }
}

/// Where a parent says that the coordinator is.
pub(crate) fn servers_of_variables(server: &str) -> Servers {
    let said = |name| env::var_os(name).filter(|value| !value.is_empty());
    let path = |name| said(name).map(PathBuf::from);
    let identity = path(CLIENT_CERT).zip(path(CLIENT_KEY));
    let name = said(SERVER_NAME).and_then(|name| name.into_string().ok());
    let servers = Servers::from(server).tls(options(path(SERVER_CA), name, identity));
    shown_by_variables(servers)
}

fn options(
    ca: Option<PathBuf>,
    name: Option<String>,
    identity: Option<(PathBuf, PathBuf)>,
) -> TlsOptions {
    let mut options = TlsOptions::new();
    if let Some(ca) = ca {
        options = options.server_ca(ca);
    }
    if let Some(name) = name {
        options = options.server_name(name);
    }
    if let Some((cert, key)) = identity {
        options = options.client_cert(cert, key);
    }
    options
}
