//! Credentials: secrets that prove who somebody is.
//!
//! A credential is 256 random bits. It cannot be guessed, however fast the guesses are, so that its
//! digest needs no slow hash: thousands of clients can reconnect at once.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a credential begins with, so that scanners for secrets know it.
const PREFIX: &str = "coord_";
/// Hexadecimal digits of the random bits.
const RANDOM_LEN: usize = 64;
/// Hexadecimal digits that tell a typing mistake from a wrong credential.
const CHECK_LEN: usize = 8;
/// How long a credential is, in bytes.
pub const CREDENTIAL_LEN: usize = PREFIX.len() + RANDOM_LEN + CHECK_LEN;
/// The polynomial of CRC-32, reflected.
const CRC_POLYNOMIAL: u32 = 0xedb8_8320;

/// A secret that proves who somebody is: `coord_`, 256 random bits and a checksum, in hexadecimal
/// digits. A double click selects all of it.
///
/// # Examples
///
/// ```
/// use coordinator::types::{Credential, CredentialError};
///
/// let credential = Credential::from_random([7; 32]);
/// assert_eq!(Credential::new(credential.reveal()), Ok(credential.clone()));
/// assert_eq!(format!("{credential:?}"), "Credential(…)");
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
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if digits.len() != RANDOM_LEN + CHECK_LEN || !digits.bytes().all(is_digit) {
            return Err(CredentialError::Form);
        }
        let all = Self::with_check(digits.get(..RANDOM_LEN).unwrap_or_default());
        if *all.0 == *text { Ok(all) } else { Err(CredentialError::Mistyped) }
    }

    /// That of these bits, which nobody else may know or guess.
    pub fn from_random(bits: [u8; 32]) -> Self {
        let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or('0');
        let random: String =
            bits.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect();
        Self::with_check(&random)
    }

    fn with_check(random: &str) -> Self {
        Self(format!("{PREFIX}{random}{:08x}", checksum(random.as_bytes())).into())
    }

    /// The secret itself: for its principal, and for the wire.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// CRC-32, as zip and PNG have it.
fn checksum(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ CRC_POLYNOMIAL };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
}

impl FromStr for Credential {
    type Err = CredentialError;

    fn from_str(text: &str) -> Result<Self, CredentialError> {
        Self::new(text)
    }
}

/// Hides the secret.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// What somebody shows as a credential, whatever that is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShownCredential(String);

impl ShownCredential {
    /// This text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: for who verifies it, and nowhere else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&Credential> for ShownCredential {
    fn from(credential: &Credential) -> Self {
        Self::new(credential.reveal())
    }
}

/// Hides the secret, which a wrong one may nearly be.
impl fmt::Debug for ShownCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShownCredential(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_that_was_mistyped_is_told_from_a_wrong_one() {
        let credential = Credential::from_random([0xa5; 32]);
        let text = credential.reveal().to_owned();
        assert_eq!(text.len(), CREDENTIAL_LEN);
        for at in PREFIX.len()..text.len() {
            let mut other = text.clone();
            let digit = if &text[at..=at] == "0" { "1" } else { "0" };
            other.replace_range(at..=at, digit);
            assert_eq!(Credential::new(&other), Err(CredentialError::Mistyped), "{at}");
        }
        let upper = text.to_uppercase().replace("COORD", "coord");
        for other in [&text[..text.len() - 1], "", "coord_", "hunter2", "ü", &upper] {
            assert_eq!(Credential::new(other), Err(CredentialError::Form), "{other}");
        }
        assert_eq!(text.parse(), Ok(credential));
    }

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn neither_a_credential_nor_what_is_shown_as_one_is_printed() {
        let credential = Credential::from_random([0xa5; 32]);
        let printed = format!("{credential:?} {:?}", ShownCredential::from(&credential));
        assert_eq!(printed, "Credential(…) ShownCredential(…)");
    }
}
