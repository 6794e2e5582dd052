//! Whom a client trusts, and what it shows.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::files::{Identity, TlsError, authorities, authorities_of_the_system, provider};
use super::kept::Kept;
use super::{ALPN_LOCKS, Dialed, words};

/// Where systems have their bundle of trusted authorities: Debian and Alpine, Red Hat, SUSE, BSD and macOS.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How a client speaks TLS with servers that are named `tls://HOST:PORT`.
///
/// All files are in PEM, looked at before each connection, and read again once they have changed. A certificate of
/// an hour's life can therefore be replaced under a client that runs for a month.
///
/// # Examples
///
/// ```no_run
/// use coordinator::{Client, Servers, TlsOptions};
///
/// # async fn example() -> Result<(), coordinator::Error> {
/// let tls = TlsOptions::new().server_ca("/etc/coordinator/ca.pem");
/// let servers = Servers::from("tls://locks.internal").tls(tls);
/// let client = Client::connect(servers).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// The authorities that prove servers; none: the system's.
    server_ca: Option<PathBuf>,
    /// The name that a server has to prove; none: the host it is reached by.
    server_name: Option<String>,
    /// Certificate and key to show; none: nothing.
    identity: Option<(PathBuf, PathBuf)>,
    /// What was made of the files for connections before, also of clones.
    kept: Kept<ClientConfig>,
}

impl TlsOptions {
    /// Trusts the system's authorities, and shows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the authorities in this file, and no others.
    #[must_use]
    pub fn server_ca(self, file: impl Into<PathBuf>) -> Self {
        Self { server_ca: Some(file.into()), kept: Kept::default(), ..self }
    }

    /// Servers have to prove this name instead of that of their host.
    #[must_use]
    pub fn server_name(self, name: impl Into<String>) -> Self {
        Self { server_name: Some(name.into()), ..self }
    }

    /// Shows this certificate (mutual TLS), with those that it builds on, and its key.
    #[must_use]
    pub fn client_cert(self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { identity: Some((cert.into(), key.into())), kept: Kept::default(), ..self }
    }

    /// Encrypts a connection that was made over `stream`, once the other side has proved that it is
    /// `host`: for [`ClientBuilder::connect_with`](crate::ClientBuilder::connect_with), and for tools.
    ///
    /// # Errors
    ///
    /// If a file cannot be used, or the other side does not prove it.
    pub async fn secure<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        host: &str,
    ) -> io::Result<Dialed<S>> {
        let (connector, name) = self.connector(host).map_err(io::Error::other)?;
        match connector.connect(name, stream).await {
            Ok(stream) => Ok(Dialed::Tls(Box::new(stream))),
            Err(error) => Err(words::of_server(error)),
        }
    }

    /// Reads the files, and connects to nobody.
    ///
    /// # Errors
    ///
    /// If one of them cannot be used.
    pub fn check(&self) -> Result<(), TlsError> {
        self.connector("localhost").map(drop)
    }

    /// What makes a connection to `host`, and the name to be proved there.
    fn connector(&self, host: &str) -> Result<(TlsConnector, ServerName<'static>), TlsError> {
        let name = self.server_name.as_deref().unwrap_or(host);
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|_| TlsError::ServerName { name: name.to_owned() })?;
        let ca = match &self.server_ca {
            Some(file) => file.as_path(),
            None => system_bundle().ok_or(TlsError::NoSystemBundle)?,
        };
        let shown = self.identity.iter().flat_map(|(cert, key)| [cert.as_path(), key.as_path()]);
        let files: Vec<&Path> = [ca].into_iter().chain(shown).collect();
        let config = self.kept.of(&files, SystemTime::now(), || self.config(ca))?;
        Ok((TlsConnector::from(config), server_name))
    }

    /// What the files say. The authorities are those in `ca`.
    fn config(&self, ca: &Path) -> Result<ClientConfig, TlsError> {
        let roots = match &self.server_ca {
            Some(file) => authorities(file)?,
            None => authorities_of_the_system(ca)?,
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|source| TlsError::Unusable { file: ca.to_owned(), source })?
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let Identity { chain, key: secret } = Identity::read(cert, key)?;
                builder.with_client_auth_cert(chain, secret).map_err(|source| match source {
                    rustls::Error::InconsistentKeys(_) => {
                        TlsError::Mismatch { cert: cert.clone(), key: key.clone() }
                    }
                    source @ rustls::Error::InvalidCertificate(_) => {
                        TlsError::Unusable { file: cert.clone(), source }
                    }
                    source => TlsError::Unusable { file: key.clone(), source },
                })?
            }
        };
        config.alpn_protocols = vec![ALPN_LOCKS.to_vec()];
        // Each connection proves anew who is there, whoever would give tickets.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

fn system_bundle() -> Option<&'static Path> {
    SYSTEM_BUNDLES.iter().map(Path::new).find(|file| file.exists())
}
