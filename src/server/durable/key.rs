//! The key behind all proofs that outlive a run. `desk::seal` makes and checks those.

use std::fmt;
use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher24};
use subtle::ConstantTimeEq;

/// The key behind all secrets and seals: 128 random bits, kept in the state. Never shown.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(from = "[u8; 16]", into = "[u8; 16]")]
pub struct StateKey(u128);

impl StateKey {
    /// A new one.
    ///
    /// # Errors
    ///
    /// If the operating system gives no random numbers.
    pub fn draw() -> Result<Self, getrandom::Error> {
        let mut number = [0; 16];
        getrandom::fill(&mut number)?;
        Ok(Self(u128::from_le_bytes(number)))
    }

    /// Takes the number as it is.
    pub const fn new(number: u128) -> Self {
        Self(number)
    }

    /// The key of the proofs of one cluster, made of this one (rule H7). Nobody else's has the same, though a copy of
    /// this one may be kept under another name.
    #[cfg(feature = "cluster")]
    pub(crate) fn of_cluster(self, name: &str) -> Self {
        let mut hasher = SipHasher24::new_with_key(&self.0.to_le_bytes());
        hasher.write(b"cluster");
        hasher.write(name.as_bytes());
        Self(hasher.finish128().as_u128())
    }

    /// The key of what members say to each other, made of the one of proofs. Both ask the same arbiter.
    #[cfg(feature = "cluster")]
    pub(crate) fn of_members(self, arbiter: u64) -> Self {
        let mut hasher = SipHasher24::new_with_key(&self.0.to_le_bytes());
        hasher.write(b"members");
        hasher.write(&arbiter.to_le_bytes());
        Self(hasher.finish128().as_u128())
    }

    /// Tells this key from any other, and nothing about it: a MAC under it of a word that no proof
    /// begins with.
    pub(crate) fn fingerprint(self) -> [u8; 16] {
        let mut hasher = SipHasher24::new_with_key(&self.0.to_le_bytes());
        hasher.write(b"journal");
        hasher.finish128().as_bytes()
    }

    /// The number itself, for the store and for nothing else.
    pub const fn reveal(self) -> u128 {
        self.0
    }
}

impl PartialEq for StateKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for StateKey {}

impl From<[u8; 16]> for StateKey {
    fn from(bytes: [u8; 16]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }
}

impl From<StateKey> for [u8; 16] {
    fn from(key: StateKey) -> Self {
        key.0.to_le_bytes()
    }
}

impl fmt::Debug for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateKey(…)")
    }
}
