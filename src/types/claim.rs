//! Claims: the locks of a request, each in a mode.

use std::fmt;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use smol_str::SmolStr;

use super::{LockName, TextError};

/// Most locks that one request may claim.
pub const CLAIMS_MAX: usize = 64;

/// How a lock is wanted or held (rule R4).
///
/// Permits that a client sends can be any numbers. [`RawClaim::checked`] is where they are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// Alone.
    Exclusive,
    /// Together with other shared holders.
    Shared,
    /// `take` of the `of` permits of a semaphore. Made by [`Mode::permits`], which keeps
    /// 1 ≤ `take` ≤ `of`.
    Permits {
        /// How many this claim takes.
        take: u32,
        /// How many there are; all who use the lock at a time must agree.
        of: u32,
    },
}

/// Why a number of permits was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot take {take} of {of} permits, only 1 to all of them")]
pub struct PermitsError {
    /// How many were to be taken.
    pub take: u32,
    /// How many there were said to be.
    pub of: u32,
}

impl Mode {
    /// `take` of `of` permits.
    ///
    /// # Errors
    ///
    /// If `take` is 0 or more than `of`.
    pub fn permits(take: u32, of: u32) -> Result<Self, PermitsError> {
        Self::Permits { take, of }.checked()
    }

    /// The same, if its permits are some of those that there are.
    ///
    /// # Errors
    ///
    /// If they are none, or more.
    pub fn checked(self) -> Result<Self, PermitsError> {
        match self {
            Self::Permits { take, of } if !(1..=of).contains(&take) => {
                Err(PermitsError { take, of })
            }
            Self::Exclusive | Self::Shared | Self::Permits { .. } => Ok(self),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exclusive => f.write_str("exclusive"),
            Self::Shared => f.write_str("shared"),
            Self::Permits { take, of } => write!(f, "{take} of {of} permits"),
        }
    }
}

/// A lock and the mode in which it is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claim<N = LockName> {
    /// Which lock.
    pub name: N,
    /// How it is to be held.
    pub mode: Mode,
}

/// A claim as a client sends it: anything can stand in it, and what is wrong is answered.
pub type RawClaim = Claim<SmolStr>;

impl Claim {
    /// The claim, to be sent.
    pub fn raw(&self) -> RawClaim {
        RawClaim { name: self.name.clone().into(), mode: self.mode }
    }
}

impl RawClaim {
    /// The claim, if a lock can be wanted in this way.
    ///
    /// # Errors
    ///
    /// If the name is none, or its permits are.
    pub fn checked(&self) -> Result<Claim, ClaimError> {
        Ok(Claim { name: LockName::new(self.name.clone())?, mode: self.mode.checked()? })
    }
}

/// Why a claim was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Its name is not one of a lock.
    #[error("invalid lock name: {0}")]
    Name(#[from] TextError),
    /// Its permits are none.
    #[error(transparent)]
    Permits(#[from] PermitsError),
}

/// Why a list of claims was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimsError {
    /// A request must ask for something.
    #[error("a request needs at least one claim")]
    Empty,
    /// More than [`CLAIMS_MAX`].
    #[error("{count} claims in one request; at most {CLAIMS_MAX} are allowed")]
    TooMany {
        /// How many there were.
        count: usize,
    },
    /// A lock can be claimed once in a request.
    #[error("lock {name:?} is claimed twice in one request")]
    Duplicate {
        /// The lock.
        name: LockName,
    },
}

/// The claims of one request: 1 to [`CLAIMS_MAX`], each of another lock (rule R5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims(SmallVec<[Claim; 1]>);

impl Claims {
    /// Takes `claims` as those of one request.
    ///
    /// # Errors
    ///
    /// If there are none, more than [`CLAIMS_MAX`], or two of the same lock.
    pub fn new(claims: impl IntoIterator<Item = Claim>) -> Result<Self, ClaimsError> {
        let claims: SmallVec<[Claim; 1]> = claims.into_iter().collect();
        match claims.len() {
            0 => return Err(ClaimsError::Empty),
            1 => return Ok(Self(claims)),
            2..=CLAIMS_MAX => {}
            count => return Err(ClaimsError::TooMany { count }),
        }
        let mut names: Vec<&LockName> = claims.iter().map(|claim| &claim.name).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(ClaimsError::Duplicate { name: pair[0].clone() }),
            None => Ok(Self(claims)),
        }
    }

    /// The claims, in the order in which they were made.
    pub fn as_slice(&self) -> &[Claim] {
        &self.0
    }
}

impl From<Claim> for Claims {
    fn from(claim: Claim) -> Self {
        Self([claim].into())
    }
}

impl IntoIterator for Claims {
    type Item = Claim;
    type IntoIter = smallvec::IntoIter<[Claim; 1]>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(name: &str) -> Claim {
        Claim { name: LockName::new(name).unwrap(), mode: Mode::Exclusive }
    }

    #[test]
    fn permits_are_taken_from_one_to_all() {
        assert!(Mode::permits(1, 1).is_ok());
        assert!(Mode::permits(3, 3).is_ok());
        assert_eq!(Mode::permits(0, 3), Err(PermitsError { take: 0, of: 3 }));
        assert_eq!(Mode::permits(4, 3), Err(PermitsError { take: 4, of: 3 }));
        assert_eq!(Mode::permits(0, 0), Err(PermitsError { take: 0, of: 0 }));
    }

    #[test]
    fn a_claim_of_a_clients_is_one_if_its_name_and_its_permits_are() {
        let raw = |name: &str, mode| RawClaim { name: name.into(), mode };
        let known = raw("a", Mode::Permits { take: 2, of: 2 }).checked().unwrap();
        assert_eq!(known.raw(), raw("a", Mode::Permits { take: 2, of: 2 }));
        let no_name = raw("", Mode::Exclusive).checked();
        assert_eq!(no_name, Err(ClaimError::Name(TextError::Empty)));
        let no_permits = raw("a", Mode::Permits { take: 3, of: 2 }).checked();
        assert_eq!(no_permits, Err(ClaimError::Permits(PermitsError { take: 3, of: 2 })));
    }

    #[test]
    fn a_request_claims_1_to_64_different_locks() {
        let claims = |n: usize| (0..n).map(|i| claim(&i.to_string())).collect::<Vec<_>>();
        assert_eq!(Claims::new(claims(0)), Err(ClaimsError::Empty));
        assert_eq!(Claims::new(claims(1)).unwrap().as_slice().len(), 1);
        assert_eq!(Claims::new(claims(CLAIMS_MAX)).unwrap().as_slice().len(), CLAIMS_MAX);
        let count = CLAIMS_MAX + 1;
        assert_eq!(Claims::new(claims(count)), Err(ClaimsError::TooMany { count }));
        assert_eq!(
            Claims::new(vec![claim("b"), claim("a"), claim("b")]),
            Err(ClaimsError::Duplicate { name: LockName::new("b").unwrap() })
        );
    }
}
