//! Connections by TLS: what it costs is told beside the same echo server with the same TLS.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coordinator::tls::{Dialed, TlsOptions};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::Failure;
use crate::certificates::Authority;

/// Where all services are, as their certificates name it.
pub(crate) const HOST: &str = "127.0.0.1";
/// What the coordinator speaks, and so the echo server (ALPN).
const ALPN: &[u8] = b"coordinator";

/// How a service's connections are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    /// The bytes as they are.
    Plain,
    /// By TLS: the server proves who it is.
    Tls,
    /// By TLS: both do.
    Mutual,
}

impl Security {
    /// What a server is started with, of the files in a directory.
    pub(crate) fn flags(self, directory: &Path) -> Vec<OsString> {
        let mut files = Vec::new();
        if self != Self::Plain {
            files.extend([("--tls-cert", "server.pem"), ("--tls-key", "server.key")]);
        }
        if self == Self::Mutual {
            files.push(("--tls-client-ca", "ca.pem"));
        }
        files
            .into_iter()
            .flat_map(|(flag, file)| [flag.into(), directory.join(file).into()])
            .collect()
    }

    /// How a client of such a server speaks TLS, if it does.
    pub(crate) fn options(self, directory: &Path) -> Option<TlsOptions> {
        let options = TlsOptions::new().server_ca(directory.join("ca.pem"));
        match self {
            Self::Plain => None,
            Self::Tls => Some(options),
            Self::Mutual => {
                let (cert, key) = (directory.join("client.pem"), directory.join("client.key"));
                Some(options.client_cert(cert, key))
            }
        }
    }
}

/// Puts an authority, and certificates of a server and of a client, into a directory.
pub(crate) fn issue(directory: &Path) {
    let file = |name| directory.join(name);
    let authority = Authority::new(&file("ca.pem"));
    authority.issue(&[HOST], &file("server.pem"), &file("server.key"));
    authority.issue(&["client"], &file("client.pem"), &file("client.key"));
}

/// Files that the echo server speaks TLS with.
#[derive(clap::Args)]
pub(crate) struct Files {
    /// Speak TLS, and show this certificate.
    #[arg(long = "tls-cert", requires = "key")]
    cert: Option<PathBuf>,
    /// The certificate's key.
    #[arg(long = "tls-key", requires = "cert")]
    key: Option<PathBuf>,
    /// Require certificates of clients by this authority.
    #[arg(long = "tls-client-ca", requires = "cert")]
    client_ca: Option<PathBuf>,
}

impl Files {
    /// What makes TLS of connections that were accepted: as the coordinator does it, with TLS 1.3 and
    /// ring. None if they are to be plain.
    pub(crate) fn acceptor(&self) -> Result<Option<TlsAcceptor>, Failure> {
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else { return Ok(None) };
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?;
        let config = match &self.client_ca {
            None => config.with_no_client_auth(),
            Some(file) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_file(file)?)?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()?;
                config.with_client_cert_verifier(verifier)
            }
        };
        let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<Vec<_>, _>>()?;
        let mut config = config.with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
        config.alpn_protocols = vec![ALPN.to_owned()];
        // As there, and nobody would use them.
        config.send_tls13_tickets = 0;
        Ok(Some(TlsAcceptor::from(Arc::new(config))))
    }
}

/// A connection to a service, secured or not.
pub(crate) async fn connect(
    address: &str,
    tls: Option<&TlsOptions>,
) -> io::Result<Dialed<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    match tls {
        None => Ok(Dialed::Plain(stream)),
        Some(tls) => tls.secure(stream, HOST).await,
    }
}
