//! Proofs: what somebody shows to be a principal.

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "access")]
use ring::digest::{SHA256, digest};

/// What a connection has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// The digest of its credential.
    pub credential: Option<Digest>,
    /// The names in its certificate, which was verified.
    pub certified: Vec<CertificateName>,
}

/// The SHA-256 digest of a credential, written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

/// What a digest is written with.
const DIGEST_PREFIX: &str = "sha256:";

/// Why a text is no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest is {DIGEST_PREFIX} and 64 hexadecimal digits")]
pub struct DigestError;

impl Digest {
    /// That of what was shown as a credential. Digests are what is compared, so that comparing takes no care
    /// about time.
    #[cfg(feature = "access")]
    pub fn of(shown: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, shown.as_bytes()).as_ref());
        Self(bytes)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digits = text.strip_prefix(DIGEST_PREFIX).ok_or(DigestError)?;
        bytes_of(digits).map(Self).ok_or(DigestError)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{DIGEST_PREFIX}{}", Hex(&self.0))
    }
}

/// As it is written: who has a digest has no credential.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes, as lower-case hexadecimal digits.
pub(super) struct Hex<'a>(pub(super) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The bytes that are written as twice as many hexadecimal digits.
pub(super) fn bytes_of<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if digits.len() != 2 * N || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// A name that a certificate proves (subject alternative name): `uri:spiffe://prod/billing` or
/// `dns:billing.prod.internal`.
///
/// A common name proves nothing, as in browsers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateName(Box<str>);

/// Why a text is no name of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateNameError {
    /// It is of another kind.
    #[error("a certificate's name begins with uri: or dns:")]
    Kind,
    /// There is nothing behind the kind.
    #[error("there is nothing behind the colon")]
    Empty,
    /// A wildcard proves no single host.
    #[error("a name with a star is none of a client")]
    Star,
}

impl CertificateName {
    /// Takes `text` as a name, with its kind before it. Names of hosts are compared in lower case.
    ///
    /// # Errors
    ///
    /// If it is of another kind, empty, or has a wildcard.
    pub fn new(text: &str) -> Result<Self, CertificateNameError> {
        let Some((kind @ ("uri" | "dns"), name)) = text.split_once(':') else {
            return Err(CertificateNameError::Kind);
        };
        if name.is_empty() {
            return Err(CertificateNameError::Empty);
        }
        if name.contains('*') {
            return Err(CertificateNameError::Star);
        }
        Ok(Self(if kind == "dns" { text.to_ascii_lowercase() } else { text.to_owned() }.into()))
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
