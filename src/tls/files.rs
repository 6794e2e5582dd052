//! Files in PEM: certificates, private keys, lists of revoked certificates.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
#[cfg(feature = "server")]
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::{CryptoProvider, ring};
#[cfg(feature = "server")]
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CipherSuite, RootCertStore, SupportedCipherSuite};
use webpki::EndEntityCert;
#[cfg(feature = "server")]
use webpki::KeyUsage;

/// More than this is no certificate, no key, and no list of them.
const LEN_MAX: u64 = 64 * 1024 * 1024;

/// Why TLS cannot be spoken with these files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is no PEM.
    #[error("{} is damaged: {why}", file.display())]
    Damaged {
        /// Which.
        file: PathBuf,
        /// Why. Never what stands there: it may be a key.
        why: &'static str,
    },
    /// There is nothing of the kind in a file.
    #[error("{} has no {what} in PEM", file.display())]
    Missing {
        /// Which file.
        file: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// What is in a file cannot be used.
    #[error("{} cannot be used: {source}", file.display())]
    Unusable {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A list of revoked certificates cannot be used.
    #[error("{} is no list of revoked certificates that can be used: {why}", file.display())]
    List {
        /// Which file.
        file: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// A key needs a passphrase, and there is nobody to be asked for it.
    #[error("the key in {} is encrypted: store it without a passphrase, readable for its owner only", file.display())]
    Encrypted {
        /// Which file.
        file: PathBuf,
    },
    /// The key is none of the certificate's.
    #[error("the key in {} is not that of the certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// Handshakes have no thread.
    #[error("the thread that makes handshakes cannot be started: {source}")]
    Thread {
        /// Why.
        source: io::Error,
    },
    /// No bundle of trusted authorities is where systems have one.
    #[error("this system has no bundle of trusted authorities; name the file of yours")]
    NoSystemBundle,
    /// The name to verify is none.
    #[error("{name:?} is no name of a server that a certificate can have")]
    ServerName {
        /// The name.
        name: String,
    },
}

/// What a key in PEM has that is encrypted: as PKCS#8 has it, and as files of before.
const ENCRYPTED: [&[u8]; 2] = [b"-----BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED"];

/// A certificate with those that it builds on, and its key.
pub(super) struct Identity {
    /// The certificate itself first.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub(super) key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads both.
    pub(super) fn read(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = all_in(cert, "certificate")?;
        if !chain.iter().all(is_certificate) {
            let why = "a certificate in it is cut off, or none";
            return Err(TlsError::Damaged { file: cert.to_owned(), why });
        }
        let bytes = read(key)?;
        if ENCRYPTED.iter().any(|mark| bytes.windows(mark.len()).any(|it| it == *mark)) {
            return Err(TlsError::Encrypted { file: key.to_owned() });
        }
        let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|why| match why {
            pem::Error::NoItemsFound => missing(key, "private key"),
            why => damaged(key, &why),
        })?;
        Ok(Self { chain, key })
    }
}

/// The authorities of the system, as many as can be used: a bundle of hundreds may have an odd one.
#[cfg(feature = "client")]
pub(super) fn authorities_of_the_system(file: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    let (added, _odd) = roots.add_parsable_certificates(all_in(file, "certificate")?);
    if added == 0 {
        Err(missing(file, "certificate that can be used"))
    } else {
        Ok(Arc::new(roots))
    }
}

/// The authorities in a file.
pub(super) fn authorities(file: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in all_in(file, "certificate")? {
        let added = roots.add(certificate);
        added.map_err(|source| TlsError::Unusable { file: file.to_owned(), source })?;
    }
    Ok(Arc::new(roots))
}

/// All of a kind that a file has, at least one.
pub(super) fn all_in<T: PemObject>(file: &Path, what: &'static str) -> Result<Vec<T>, TlsError> {
    let bytes = read(file)?;
    let all: Result<Vec<T>, pem::Error> = T::pem_slice_iter(&bytes).collect();
    let all = all.map_err(|why| damaged(file, &why))?;
    if all.is_empty() { Err(missing(file, what)) } else { Ok(all) }
}

/// When a certificate is valid.
#[cfg(feature = "server")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Validity {
    /// Its end is before its beginning.
    Never,
    /// From the first moment to the last.
    Between(SystemTime, SystemTime),
}

/// When a certificate is valid; none if it is not of the usual form.
///
/// What verifies certificates says so when it is asked whether one is valid at the beginning and at the end of
/// all time.
#[cfg(feature = "server")]
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Option<Validity> {
    use webpki::Error::{CertExpired, CertNotValidYet, InvalidCertValidity};
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let refusal = |secs| {
        let (at, usage) =
            (UnixTime::since_unix_epoch(Duration::from_secs(secs)), KeyUsage::server_auth());
        certificate.verify_for_usage(&[], &[], &[], at, usage, None, None).err()
    };
    let moment = |at: UnixTime| UNIX_EPOCH + Duration::from_secs(at.as_secs());
    match (refusal(0)?, refusal(u64::MAX)?) {
        (InvalidCertValidity, _) => Some(Validity::Never),
        (CertNotValidYet { not_before, .. }, CertExpired { not_after, .. }) => {
            Some(Validity::Between(moment(not_before), moment(not_after)))
        }
        // One that is valid since before 1970.
        (_, CertExpired { not_after, .. }) => {
            Some(Validity::Between(UNIX_EPOCH, moment(not_after)))
        }
        _ => None,
    }
}

/// Whether it is one at all. What is only unusual may do as an authority that nobody looks at.
fn is_certificate(certificate: &CertificateDer<'_>) -> bool {
    use webpki::Error::{BadDer, BadDerTime, TrailingData};
    !matches!(EndEntityCert::try_from(certificate), Err(BadDer | BadDerTime | TrailingData(_)))
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    bytes_of(file).map_err(|source| TlsError::Read { file: file.to_owned(), source })
}

/// What is in a file. A pipe or a device may have no end, or never begin.
fn bytes_of(file: &Path) -> io::Result<Vec<u8>> {
    let found = fs::metadata(file)?;
    if !found.is_file() {
        let what = if found.is_dir() { "it is a directory" } else { "it is no regular file" };
        return Err(io::Error::other(what));
    }
    let mut bytes = Vec::new();
    File::open(file)?.take(LEN_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LEN_MAX {
        return Err(io::Error::other("it is longer than 64 MiB"));
    }
    Ok(bytes)
}

fn damaged(file: &Path, why: &pem::Error) -> TlsError {
    let why = match why {
        pem::Error::MissingSectionEnd { .. } => "a section has no end",
        pem::Error::IllegalSectionStart { .. } => "a section begins with what is no line of PEM",
        pem::Error::Base64Decode(_) => "a section is no base64",
        _ => "it is no PEM",
    };
    TlsError::Damaged { file: file.to_owned(), why }
}

fn missing(file: &Path, what: &'static str) -> TlsError {
    TlsError::Missing { file: file.to_owned(), what }
}

/// The cryptography of all connections.
///
/// First is AES-128, which is as strong as certificates of P-256. Its hash has instructions of the processor, and that of
/// AES-256 has none, which a handshake feels.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    let is_first = |it: &SupportedCipherSuite| it.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider.cipher_suites.sort_by_key(|it| !is_first(it));
    Arc::new(provider)
}
