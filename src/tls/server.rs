//! What a server shows and asks for, on both of its ports.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::SystemTime;

use rustls::ServerConfig;
#[cfg(feature = "http")]
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
#[cfg(feature = "http")]
use rustls::server::ProducesTickets;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::version::TLS13;
use tokio::net::TcpStream;

use super::crl;
use super::files::{Identity, TlsError, Validity, all_in, authorities, provider, validity};
use super::handshakes::Handshakes;
use super::{ALPN_LOCKS, Accepted, words};

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
    /// Lists of revoked certificates of clients (CRL), one of each authority in their chains. If given, a
    /// client is refused of whose status no list says anything, or only one that has expired.
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

/// What a server shows and asks for. Clones share it: what one takes over, all have.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// As it was taken over last.
    latest: Arc<RwLock<Configs>>,
    /// Where handshakes are made.
    handshakes: Handshakes,
}

/// The files of a server, read without a mistake. Nothing has changed by that yet.
#[derive(Clone, Debug)]
pub struct ReadTls {
    /// What they have, for both ports.
    configs: Configs,
    /// When the certificates in them expire.
    expiries: Vec<Expiry>,
    /// Those that are never valid.
    never_valid: Vec<(CertificateUse, PathBuf)>,
}

/// When a certificate of a server expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// What it is for.
    pub of: CertificateUse,
    /// The file that it is in.
    pub file: PathBuf,
    /// The first moment at which it is valid, and all others in the file are.
    pub from: SystemTime,
    /// The last moment at which it is valid.
    pub at: SystemTime,
}

/// What a server has a certificate for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertificateUse {
    /// To show it to clients, and those that it builds on.
    Server,
    /// To verify those of clients by it.
    ClientCa,
    /// To know which of those were revoked: no certificate, but a list of them.
    Crl,
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

impl ReadTls {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// If one of them cannot be used, or the key is not the certificate's. That a certificate has expired is
    /// none: see [`ReadTls::expiries`].
    pub fn read(files: &ServerFiles) -> Result<Self, TlsError> {
        let material = Material::read(files)?;
        let configs = Configs {
            locks: Arc::new(material.for_locks()?),
            #[cfg(feature = "http")]
            http: Arc::new(material.for_http()?),
        };
        let (mut expiries, mut never_valid) = (Vec::new(), Vec::new());
        for (of, file, certificates) in material.certificates()? {
            let all: Vec<Validity> = certificates.iter().filter_map(validity).collect();
            if all.contains(&Validity::Never) {
                never_valid.push((of, file.clone()));
            }
            let between = |it: &Validity| match *it {
                Validity::Between(from, at) => Some((from, at)),
                Validity::Never => None,
            };
            let from = all.iter().filter_map(between).map(|(from, _)| from).max();
            let at = all.iter().filter_map(between).map(|(_, at)| at).min();
            expiries.extend(from.zip(at).map(|(from, at)| Expiry { of, file, from, at }));
        }
        if let Some(file) = &files.crl {
            let lists = all_in::<CertificateRevocationListDer<'_>>(file, LIST)?;
            let at = lists.iter().filter_map(|list| crl::next_update(list)).min();
            let (of, from) = (CertificateUse::Crl, SystemTime::UNIX_EPOCH);
            expiries.extend(at.map(|at| Expiry { of, file: file.clone(), from, at }));
        }
        Ok(Self { configs, expiries, never_valid })
    }

    /// When the certificates expire: the first of those shown, the first of those that prove clients, and the first
    /// list of those that were revoked. Of one whose form is unusual that is not known.
    pub fn expiries(&self) -> &[Expiry] {
        &self.expiries
    }

    /// The files with a certificate whose end is before its beginning.
    pub fn never_valid(&self) -> &[(CertificateUse, PathBuf)] {
        &self.never_valid
    }
}

impl ServerTls {
    /// Reads the files, and starts the thread that makes handshakes.
    ///
    /// # Errors
    ///
    /// As [`ReadTls::read`], or if there can be no thread.
    pub fn read(files: &ServerFiles) -> Result<Self, TlsError> {
        Self::start(ReadTls::read(files)?)
    }

    /// Starts the thread that makes handshakes.
    ///
    /// # Errors
    ///
    /// If there can be none.
    pub fn start(read: ReadTls) -> Result<Self, TlsError> {
        let latest = Arc::new(RwLock::new(read.configs));
        let handshakes = Handshakes::start().map_err(|source| TlsError::Thread { source })?;
        Ok(Self { latest, handshakes })
    }

    /// Shows and asks for what was read, to the connections that come from now on, on both ports. Those that
    /// are open go on.
    pub fn take_over(&self, read: ReadTls) {
        *self.latest.write().unwrap_or_else(PoisonError::into_inner) = read.configs;
    }

    /// The next connection on the lock port. Its certificate's names go to `certified`. If too many handshakes are
    /// under way with its address, it waits, and `crowded` is called.
    pub(crate) fn accept_for_locks(
        &self,
        stream: TcpStream,
        certified: Arc<OnceLock<Vec<String>>>,
        crowded: impl FnOnce() + Send + 'static,
    ) -> Accepted<TcpStream> {
        Accepted::shaking(self.handshakes.make(stream, self.for_locks(), crowded), certified)
    }

    /// The next connection on the HTTP port, likewise.
    #[cfg(feature = "http")]
    pub(crate) fn accept_for_http(
        &self,
        stream: TcpStream,
        certified: Arc<OnceLock<Vec<String>>>,
        crowded: impl FnOnce() + Send + 'static,
    ) -> Accepted<TcpStream> {
        let config = Arc::clone(&self.latest().http);
        Accepted::shaking(self.handshakes.make(stream, config, crowded), certified)
    }

    /// What holds for the next connection on the lock port.
    pub(super) fn for_locks(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.latest().locks)
    }

    fn latest(&self) -> RwLockReadGuard<'_, Configs> {
        self.latest.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a file of them is looked through for.
const LIST: &str = "list of revoked certificates";

/// What verifies the certificates of clients; none: there are no authorities that prove any.
fn verifier(
    files: &ServerFiles,
    demand: ClientAuth,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let Some(ca) = &files.client_ca else { return Ok(None) };
    let mut verifier = WebPkiClientVerifier::builder_with_provider(authorities(ca)?, provider());
    if let Some(crl) = &files.crl {
        let lists = all_in(crl, LIST)?;
        verifier = verifier.with_crls(lists).enforce_revocation_expiration();
    }
    if demand == ClientAuth::Optional {
        verifier = verifier.allow_unauthenticated();
    }
    let verifier = verifier.build().map_err(|why| match (&files.crl, why) {
        (Some(file), VerifierBuilderError::InvalidCrl(why)) => {
            TlsError::List { file: file.clone(), why: words::of_list(&why) }
        }
        (_, why) => {
            TlsError::Unusable { file: ca.clone(), source: rustls::Error::General(why.to_string()) }
        }
    })?;
    Ok(Some(verifier))
}

/// What the files have, read once for both ports.
struct Material<'a> {
    /// The files.
    files: &'a ServerFiles,
    /// What the server shows.
    identity: Identity,
    /// Verifies clients of the lock port; none: they show nothing.
    for_locks: Option<Arc<dyn ClientCertVerifier>>,
    /// The same for the HTTP port, where nobody has to show anything.
    #[cfg(feature = "http")]
    for_http: Option<Arc<dyn ClientCertVerifier>>,
}

impl<'a> Material<'a> {
    fn read(files: &'a ServerFiles) -> Result<Self, TlsError> {
        let identity = Identity::read(&files.cert, &files.key)?;
        Ok(Self {
            files,
            identity,
            for_locks: verifier(files, files.client_auth)?,
            #[cfg(feature = "http")]
            for_http: verifier(files, ClientAuth::Optional)?,
        })
    }

    /// Those of each use, with their file.
    fn certificates(
        &self,
    ) -> Result<Vec<(CertificateUse, PathBuf, Vec<CertificateDer<'static>>)>, TlsError> {
        let shown = (CertificateUse::Server, self.files.cert.clone(), self.identity.chain.clone());
        let mut all = vec![shown];
        if let Some(ca) = &self.files.client_ca {
            all.push((CertificateUse::ClientCa, ca.clone(), all_in(ca, "certificate")?));
        }
        Ok(all)
    }

    /// No connection resumes another: clients of ours keep no tickets, which would cost each handshake their making,
    /// and who they are is proven for each.
    fn for_locks(&self) -> Result<ServerConfig, TlsError> {
        self.speaking(ALPN_LOCKS, self.for_locks.clone())
    }

    /// Who has a certificate may show it there. Nobody has to: probes, Prometheus and most browsers have none.
    #[cfg(feature = "http")]
    fn for_http(&self) -> Result<ServerConfig, TlsError> {
        let mut config = self.speaking(ALPN_HTTP, self.for_http.clone())?;
        // Where clients prove who they are, each connection does anew: what was revoked meanwhile is refused.
        if self.for_http.is_none() {
            config.ticketer = self.ticketer()?;
            // Whoever comes back over one connection has another ticket by then.
            config.send_tls13_tickets = 1;
        }
        Ok(config)
    }

    fn speaking(
        &self,
        protocol: &[u8],
        verifier: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Result<ServerConfig, TlsError> {
        let mut config = self.config(verifier)?;
        config.alpn_protocols = vec![protocol.to_vec()];
        config.send_tls13_tickets = 0;
        // Clients put first what is strongest on paper.
        config.ignore_client_order = true;
        Ok(config)
    }

    /// Nothing is kept here of sessions that may be resumed, however many they are.
    #[cfg(feature = "http")]
    fn ticketer(&self) -> Result<Arc<dyn ProducesTickets>, TlsError> {
        ring::Ticketer::new().map_err(|source| self.unusable(source))
    }

    fn config(
        &self,
        verifier: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Result<ServerConfig, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|source| self.unusable(source))?;
        let builder = match verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier),
        };
        let Identity { chain, key } = &self.identity;
        builder.with_single_cert(chain.clone(), key.clone_key()).map_err(|why| match why {
            rustls::Error::InconsistentKeys(_) => {
                let (cert, key) = (self.files.cert.clone(), self.files.key.clone());
                TlsError::Mismatch { cert, key }
            }
            source @ rustls::Error::InvalidCertificate(_) => {
                TlsError::Unusable { file: self.files.cert.clone(), source }
            }
            source => self.unusable(source),
        })
    }

    fn unusable(&self, source: rustls::Error) -> TlsError {
        TlsError::Unusable { file: self.files.key.clone(), source }
    }
}
