//! Principals, and who is which.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use foldhash::fast::RandomState;
use smol_str::SmolStr;

use crate::types::{IDENTITY_LEN_MAX, Identity};

use super::{CertificateName, Digest, Proof, Rules};

/// Longest name of a principal, in bytes.
pub const PRINCIPAL_NAME_LEN_MAX: usize = 32;
/// What those are called who show nothing.
const ANYONE: &str = "anyone";

/// The name of a principal: 1 to [`PRINCIPAL_NAME_LEN_MAX`] of `a-z`, `0-9`, `.`, `_` and `-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrincipalName(SmolStr);

/// Why a text is no name of a principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a principal has a name of 1 to {PRINCIPAL_NAME_LEN_MAX} of a-z, 0-9, '.', '_' and '-'")]
pub struct PrincipalNameError;

impl PrincipalName {
    /// Takes `text` as a name.
    ///
    /// # Errors
    ///
    /// If it is empty, too long, or has other characters.
    pub fn new(text: &str) -> Result<Self, PrincipalNameError> {
        let is_plain = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > PRINCIPAL_NAME_LEN_MAX || !text.bytes().all(is_plain) {
            return Err(PrincipalNameError);
        }
        Ok(Self(text.into()))
    }

    /// The name of those who show nothing.
    pub fn anyone() -> Self {
        Self(SmolStr::new_static(ANYONE))
    }

    /// Whether it is that of those who show nothing.
    pub fn is_anyone(&self) -> bool {
        self.as_str() == ANYONE
    }

    /// Whose an identity says that it is: [`PrincipalName::shown_before`]. That of anyone, if nobody's.
    pub fn shown_by(identity: &str) -> Self {
        let first = identity.split(' ').next().unwrap_or_default();
        Self::new(first).unwrap_or_else(|_| Self::anyone())
    }

    /// Whether an identity says that it is this one's: [`PrincipalName::shown_before`].
    pub fn is_shown_by(&self, identity: &str) -> bool {
        identity
            .strip_prefix(self.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    }

    /// What others see of a session: who has proven to be there, and behind it, what its client calls itself,
    /// as far as there is room for that.
    pub fn shown_before(&self, identity: &Identity) -> Identity {
        let mut shown = format!("{self} {identity}");
        let mut len = shown.len().min(IDENTITY_LEN_MAX);
        while !shown.is_char_boundary(len) {
            len -= 1;
        }
        shown.truncate(len);
        // A name is plain, and the rest was an identity.
        Identity::new(shown.trim_end()).unwrap_or_else(|_| identity.clone())
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PrincipalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PrincipalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Somebody with a proof, and what they may do.
#[derive(Clone, Debug)]
pub struct Principal {
    /// Who.
    pub name: PrincipalName,
    /// What they may do.
    pub rules: Rules,
    /// How much of it.
    pub quotas: Quotas,
}

/// The most that a principal may have, over all its connections; none: as much as the server has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Sessions at a time.
    pub sessions_max: Option<u32>,
    /// Connections at a time.
    pub connections_max: Option<u32>,
    /// Requests for locks in a second.
    pub requests_per_second: Option<u32>,
}

/// All principals, found by their proofs.
///
/// It never changes: rules that are read again are another one, which takes the place of the last.
#[derive(Clone, Debug)]
pub struct Access {
    /// Whether there is no access file.
    is_open: bool,
    /// Those who show nothing; none if they are refused.
    anyone: Option<Arc<Principal>>,
    /// By the digest of a credential.
    by_credential: HashMap<Digest, Arc<Principal>, RandomState>,
    /// By a name in a certificate.
    by_certificate: HashMap<CertificateName, Arc<Principal>, RandomState>,
    /// All but anyone, in the order of the file.
    principals: Vec<Arc<Principal>>,
}

impl Access {
    /// That of a server without an access file: whoever reaches it may do everything.
    pub fn open() -> Self {
        let name = PrincipalName::anyone();
        let anyone = Principal { name, rules: Rules::open(), quotas: Quotas::default() };
        Self { is_open: true, anyone: Some(Arc::new(anyone)), ..Self::closed() }
    }

    /// One that refuses everybody, to begin with.
    pub fn closed() -> Self {
        Self {
            is_open: false,
            anyone: None,
            by_credential: HashMap::default(),
            by_certificate: HashMap::default(),
            principals: Vec::new(),
        }
    }

    /// Whether there is no access file: whoever reaches the server may do everything.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether a credential proves anybody.
    pub fn knows_credentials(&self) -> bool {
        !self.by_credential.is_empty()
    }

    /// Whether a certificate proves anybody.
    pub fn knows_certificates(&self) -> bool {
        !self.by_certificate.is_empty()
    }

    /// Says what those may do who show nothing.
    pub fn set_anyone(&mut self, rules: Rules) {
        let name = PrincipalName::anyone();
        self.anyone = Some(Arc::new(Principal { name, rules, quotas: Quotas::default() }));
    }

    /// Adds a principal with its proofs. Of a proof that another has already, that one keeps it.
    pub fn add(
        &mut self,
        principal: Principal,
        credentials: impl IntoIterator<Item = Digest>,
        certificates: impl IntoIterator<Item = CertificateName>,
    ) {
        let principal = Arc::new(principal);
        for digest in credentials {
            self.by_credential.entry(digest).or_insert_with(|| Arc::clone(&principal));
        }
        for name in certificates {
            self.by_certificate.entry(name).or_insert_with(|| Arc::clone(&principal));
        }
        self.principals.push(principal);
    }

    /// Whom a proof proves; none if nobody has it, or if it proves two at once.
    ///
    /// Of a certificate with several names, all that are known have to name the same principal, and so
    /// has a credential shown beside it. Whoever shows a certificate that names nobody is anyone.
    pub fn principal(&self, proof: &Proof) -> Option<&Arc<Principal>> {
        let certified = proof.certified.iter().filter_map(|name| self.by_certificate.get(name));
        let mut shown = certified.map(Some).collect::<Vec<_>>();
        shown.extend(proof.credential.as_ref().map(|digest| self.by_credential.get(digest)));
        match shown.split_first() {
            None => self.anyone.as_ref(),
            Some((first, others)) => {
                let first = (*first)?;
                let is_same = |other: Option<&Arc<Principal>>| {
                    other.is_some_and(|other| Arc::ptr_eq(first, other))
                };
                others.iter().copied().all(is_same).then_some(first)
            }
        }
    }

    /// The principal of a name; none if there is none.
    pub fn named(&self, name: &str) -> Option<&Arc<Principal>> {
        let all = self.anyone.iter().chain(&self.principals);
        all.into_iter().find(|principal| principal.name.as_str() == name)
    }

    /// Whether there is neither a principal nor anyone: then nobody may do anything.
    pub fn names_nobody(&self) -> bool {
        self.anyone.is_none() && self.principals.is_empty()
    }

    /// All principals, anyone included, each by its name.
    pub fn all_by_name(&self) -> HashMap<PrincipalName, Arc<Principal>, RandomState> {
        let all = self.anyone.iter().chain(&self.principals);
        all.map(|principal| (principal.name.clone(), Arc::clone(principal))).collect()
    }

    /// All principals but anyone, in the order of the file.
    pub fn principals(&self) -> &[Arc<Principal>] {
        &self.principals
    }
}
