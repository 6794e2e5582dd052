//! Credentials: secrets that prove a principal.
//!
//! A credential is 256 random bits. So its digest needs no slow hash: it cannot be guessed, however
//! fast the guesses are, and thousands of clients can reconnect at once. Credentials are found by their
//! digest, so comparing them takes no care about time.

use std::fmt;

use ring::digest::{SHA256, digest};

use super::Digest;
use super::proof::{Hex, bytes_of};

/// What a credential begins with, so that scanners for secrets know it.
const PREFIX: &str = "coord_";
/// Hexadecimal digits of the random bits.
const RANDOM_LEN: usize = 64;
/// Hexadecimal digits that tell a typing mistake from a wrong credential.
const CHECK_LEN: usize = 8;
/// How long a credential is, in bytes.
pub const CREDENTIAL_LEN: usize = PREFIX.len() + RANDOM_LEN + CHECK_LEN;

/// A secret that proves a principal: `coord_`, 256 random bits and a checksum, in hexadecimal
/// digits. A double click selects all of it.
///
/// # Examples
///
/// ```
/// use coordinator::access::{Credential, CredentialError};
///
/// let credential = Credential::from_random([7; 32]);
/// assert_eq!(Credential::new(credential.reveal()).unwrap(), credential);
/// assert_eq!(format!("{credential:?}"), "Credential(..)");
/// let mistyped = credential.reveal().replace("_07", "_08");
/// assert_eq!(Credential::new(&mistyped), Err(CredentialError::Mistyped));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Credential(Box<str>);

/// Why a text is no credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// It does not look like one.
    #[error("a credential is {PREFIX} and {} hexadecimal digits", RANDOM_LEN + CHECK_LEN)]
    Form,
    /// It looks like one, and its checksum is wrong.
    #[error("the credential was mistyped or cut off: its checksum is wrong")]
    Mistyped,
}

impl Credential {
    /// Takes `text` as a credential.
    ///
    /// # Errors
    ///
    /// If it does not look like one, or its checksum is wrong.
    pub fn new(text: &str) -> Result<Self, CredentialError> {
        let digits = text.strip_prefix(PREFIX).ok_or(CredentialError::Form)?;
        let (random, check) = digits.split_at_checked(RANDOM_LEN).ok_or(CredentialError::Form)?;
        bytes_of::<{ RANDOM_LEN / 2 }>(random).ok_or(CredentialError::Form)?;
        bytes_of::<{ CHECK_LEN / 2 }>(check).ok_or(CredentialError::Form)?;
        let all = Self::with_check(random);
        if *all.0 == *text { Ok(all) } else { Err(CredentialError::Mistyped) }
    }

    /// That of these bits, which nobody else may know or guess.
    pub fn from_random(bits: [u8; 32]) -> Self {
        Self::with_check(&Hex(&bits).to_string())
    }

    fn with_check(random: &str) -> Self {
        let sum = digest(&SHA256, random.as_bytes());
        Self(format!("{PREFIX}{random}{}", Hex(&sum.as_ref()[..CHECK_LEN / 2])).into())
    }

    /// What the access file has of it.
    pub fn digest(&self) -> Digest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, self.0.as_bytes()).as_ref());
        Digest::of(bytes)
    }

    /// The secret itself: for its principal, and for the wire.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// Hides the secret.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}
