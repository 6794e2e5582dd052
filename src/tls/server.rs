//! What a server shows and asks for, on both of its ports.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ServerConfig, crypto::ring};

use super::ALPN_LOCKS;
use super::files::{Identity, TlsError, all_in, authorities, provider};

/// What the HTTP port speaks (ALPN).
#[cfg(feature = "http")]
const ALPN_HTTP: &[u8] = b"http/1.1";

/// The files of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// Its certificate, and those that it builds on, in PEM.
    pub cert: PathBuf,
    /// The key of that, in PEM.
    pub key: PathBuf,
    /// The authorities whose certificates prove clients (mutual TLS); none: clients show none.
    pub client_ca: Option<PathBuf>,
    /// Whether a client has to show one, if there are authorities.
    pub client_auth: ClientAuth,
    /// Certificates of clients that were revoked. If given, one of whose status nothing is said is refused.
    pub crl: Option<PathBuf>,
}

/// Whether a client has to show a certificate on the lock port. On the HTTP port it never has: probes,
/// Prometheus and most browsers have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// It has to.
    #[default]
    Required,
    /// It may.
    Optional,
}

/// What a server shows and asks for. Clones share it: what one reads again, all have.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// Where it is read from.
    files: Arc<ServerFiles>,
    /// As it was read last, without a mistake.
    latest: Arc<RwLock<Configs>>,
}

/// One reading of the files, for both ports.
#[derive(Clone, Debug)]
struct Configs {
    /// For the lock port.
    locks: Arc<ServerConfig>,
    /// For the HTTP port.
    #[cfg(feature = "http")]
    http: Arc<ServerConfig>,
}

/// A port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Locks,
    #[cfg(feature = "http")]
    Http,
}

impl Port {
    /// What is spoken there (ALPN).
    fn speaks(self) -> &'static [u8] {
        match self {
            Self::Locks => ALPN_LOCKS,
            #[cfg(feature = "http")]
            Self::Http => ALPN_HTTP,
        }
    }
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// If one of them cannot be used, or the key is not the certificate's.
    pub fn read(files: ServerFiles) -> Result<Self, TlsError> {
        let latest = Arc::new(RwLock::new(Configs::read(&files)?));
        Ok(Self { files: Arc::new(files), latest })
    }

    /// Reads the files again, for the connections that come from now on, on both ports. Those that are
    /// open go on.
    ///
    /// # Errors
    ///
    /// As [`ServerTls::read`]; then nothing has changed.
    pub fn read_again(&self) -> Result<(), TlsError> {
        let configs = Configs::read(&self.files)?;
        *self.latest.write().unwrap_or_else(PoisonError::into_inner) = configs;
        Ok(())
    }

    /// For the next connection on the lock port.
    pub(crate) fn for_locks(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.latest.read().unwrap_or_else(PoisonError::into_inner).locks)
    }

    /// For the next connection on the HTTP port.
    #[cfg(feature = "http")]
    pub(crate) fn for_http(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.latest.read().unwrap_or_else(PoisonError::into_inner).http)
    }
}

impl Configs {
    fn read(files: &ServerFiles) -> Result<Self, TlsError> {
        Ok(Self {
            locks: Arc::new(config(files, Port::Locks)?),
            #[cfg(feature = "http")]
            http: Arc::new(config(files, Port::Http)?),
        })
    }
}

fn config(files: &ServerFiles, port: Port) -> Result<ServerConfig, TlsError> {
    let Identity { chain, key } = Identity::read(&files.cert, &files.key)?;
    let unusable = |file: &Path| {
        let file = file.to_owned();
        move |source| TlsError::Unusable { file, source }
    };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable(&files.cert))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let roots = authorities(ca)?;
            let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            if let Some(crl) = &files.crl {
                verifier = verifier.with_crls(all_in(crl, "list of revoked certificates")?);
            }
            if port != Port::Locks || files.client_auth == ClientAuth::Optional {
                verifier = verifier.allow_unauthenticated();
            }
            let verifier = verifier.build().map_err(|why| TlsError::Unusable {
                file: files.crl.clone().unwrap_or_else(|| ca.clone()),
                source: rustls::Error::General(why.to_string()),
            })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|source| match source {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Mismatch { cert: files.cert.clone(), key: files.key.clone() }
        }
        source => TlsError::Unusable { file: files.key.clone(), source },
    })?;
    config.alpn_protocols = vec![port.speaks().to_vec()];
    if files.client_ca.is_some() {
        // Each connection proves anew who it is: what was revoked meanwhile is refused.
        config.send_tls13_tickets = 0;
    } else {
        // Nothing is kept here of sessions that may be resumed, however many they are.
        config.ticketer = ring::Ticketer::new().map_err(unusable(&files.key))?;
    }
    Ok(config)
}
