//! Badges: who a connection has proven to be, and what that allows it.
//!
//! The one idea: *what is not asked for does not compile*. Whoever does something for a client takes an
//! [`Allowed`], which is evidence and nothing else (a capability of no size). Only this room makes one.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::{Access, Names, Principal, PrincipalName, Proof, Rule, Rules, Verb, Verbs};
use crate::types::{Claim, LockName, Mode, RawClaim};

/// That something is allowed: made by the rules that allow it, and by nobody else.
#[derive(Debug)]
pub struct Allowed<To>(PhantomData<fn() -> To>);

/// What can be allowed.
pub mod to {
    /// To open a session.
    #[derive(Debug)]
    pub enum Open {}
    /// To do what concerns nobody but the session or the connection itself: to give back, to give up, to
    /// show a proof, to say that one is there.
    #[derive(Debug)]
    pub enum KeepOnesOwn {}
    /// To ask for locks.
    #[derive(Debug)]
    pub enum Lock {}
    /// To look at the coordinator, and at as much else as a filter lets pass.
    #[derive(Debug)]
    pub enum Look {}
    /// To see a lock.
    #[derive(Debug)]
    pub enum See {}
    /// To revoke a grant of a lock.
    #[derive(Debug)]
    pub enum Break {}
    /// To administer the coordinator.
    #[derive(Debug)]
    pub enum Administer {}
    /// To see every lock.
    #[derive(Debug)]
    pub enum SeeAll {}
}

impl<To> Allowed<To> {
    fn made() -> Self {
        Self(PhantomData)
    }
}

impl Allowed<to::KeepOnesOwn> {
    /// Needs no rule: what began stays one's own.
    pub fn always() -> Self {
        Self::made()
    }
}

impl Allowed<to::See> {
    /// To look, too, which whoever sees a lock may.
    pub fn with_others(self) -> Allowed<to::Look> {
        Allowed::made()
    }
}

impl Access {
    /// That anything is allowed, if there is no access file.
    #[inline]
    pub fn anything<To>(&self) -> Option<Allowed<To>> {
        self.is_open().then(Allowed::made)
    }
}

/// No: no rule allows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Who asked.
    pub principal: PrincipalName,
    /// For what.
    pub verb: Verb,
    /// For which lock; none: for any.
    pub lock: Option<LockName>,
}

impl Denied {
    /// That of whoever has no rules, for it is no principal any more.
    pub fn to_nobody(principal: PrincipalName, name: &LockName, mode: Mode) -> Self {
        Self { principal, verb: verb_for(mode), lock: Some(name.clone()) }
    }
}

/// As in `billing may not lock "deploy"`.
impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { principal, verb, lock } = self;
        match (lock, verb) {
            (Some(lock), _) => write!(f, "{principal} may not {verb} {lock:?}"),
            (None, Verb::Admin) => write!(f, "{principal} may not administer the coordinator"),
            (None, _) => write!(f, "{principal} may not {verb} anything"),
        }
    }
}

/// Nobody is proven by what was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// Nothing was shown, and those who show nothing are refused.
    #[error(
        "this coordinator wants to know who you are: show a credential, or a certificate that it knows"
    )]
    Nothing,
    /// What was shown is nobody's, or two's. Which of both, whoever shows it is not told.
    #[error(
        "what was shown proves nobody here: the credential or the certificate is not known, or not any more, or they name two"
    )]
    Nobody,
}

/// How somebody has proven who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By nothing.
    None,
    /// By a credential.
    Credential,
    /// By a certificate.
    Certificate,
}

impl Method {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Credential => "credential",
            Self::Certificate => "certificate",
        }
    }
}

/// Who a connection has proven to be.
#[derive(Debug)]
pub struct Badge {
    /// What it has shown: rules that are read again are asked with it.
    proof: Proof,
    /// Who that is.
    principal: Arc<Principal>,
    /// By which rule something was allowed last: it mostly allows what is asked for next, too.
    lately: Option<(Verbs, Names)>,
}

impl Badge {
    /// That of whoever shows this.
    ///
    /// # Errors
    ///
    /// If it proves nobody.
    pub fn of(access: &Access, proof: Proof) -> Result<Self, Unproven> {
        let principal = access.principal(&proof).cloned().ok_or(proof.unproven())?;
        Ok(Self { proof, principal, lately: None })
    }

    /// Follows other rules from now on.
    ///
    /// # Errors
    ///
    /// If by those it is nobody any more, or another. Then nothing is allowed to it any more.
    pub fn renew(&mut self, access: &Access) -> Result<(), Unproven> {
        self.lately = None;
        let unproven = match access.principal(&self.proof) {
            Some(principal) if principal.name == self.principal.name => {
                self.principal = Arc::clone(principal);
                return Ok(());
            }
            Some(_) => Unproven::Nobody,
            None => self.proof.unproven(),
        };
        let (name, quotas) = (self.principal.name.clone(), self.principal.quotas);
        self.principal = Arc::new(Principal { name, rules: Rules::default(), quotas });
        Err(unproven)
    }

    /// Who it is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Who it is, for longer than this is there.
    pub fn principal_kept(&self) -> Arc<Principal> {
        Arc::clone(&self.principal)
    }

    /// How that was proven.
    pub fn method(&self) -> Method {
        self.proof.method(&self.principal.name)
    }

    /// To ask for locks, each in the mode of its claim.
    ///
    /// # Errors
    ///
    /// If one of them is not allowed.
    pub fn may_lock(&mut self, claims: &[Claim]) -> Result<Allowed<to::Lock>, Denied> {
        for Claim { name, mode } in claims {
            let verb = verb_for(*mode);
            if !self.is_allowed_lately(verb, name.as_str()) {
                let rule = self.principal.check(verb, name)?;
                self.lately = Some((rule.verbs, rule.names.clone()));
            }
        }
        Ok(Allowed::made())
    }

    /// To ask for a lock as said, if the rule allows it that allowed the last. None: all rules are to be asked.
    #[inline]
    pub fn may_lock_by_the_same(&self, said: &RawClaim) -> Option<Allowed<to::Lock>> {
        self.is_allowed_lately(verb_for(said.mode), &said.name).then(Allowed::made)
    }

    #[inline]
    fn is_allowed_lately(&self, verb: Verb, name: &str) -> bool {
        matches!(&self.lately, Some((verbs, names)) if verbs.allows(verb) && names.include_text(name))
    }

    /// To say again what was said before, or what is no request at all: neither has anything that is not had
    /// already.
    pub fn may_repeat(&self) -> Allowed<to::Lock> {
        Allowed::made()
    }

    /// What it may see.
    pub fn sight(&self) -> Sight {
        Sight::Of(Arc::clone(&self.principal))
    }
}

fn verb_for(mode: Mode) -> Verb {
    match mode {
        Mode::Shared => Verb::Share,
        Mode::Exclusive | Mode::Permits { .. } => Verb::Lock,
    }
}

impl Proof {
    fn unproven(&self) -> Unproven {
        if *self == Self::default() { Unproven::Nothing } else { Unproven::Nobody }
    }

    fn method(&self, name: &PrincipalName) -> Method {
        match (self.credential, name.is_anyone()) {
            (_, true) => Method::None,
            (Some(_), false) => Method::Credential,
            (None, false) => Method::Certificate,
        }
    }
}

impl Principal {
    fn check(&self, verb: Verb, name: &LockName) -> Result<&Rule, Denied> {
        self.rules.may(verb, name).ok_or_else(|| self.denied(verb, Some(name)))
    }

    fn denied(&self, verb: Verb, lock: Option<&LockName>) -> Denied {
        Denied { principal: self.name.clone(), verb, lock: lock.cloned() }
    }

    /// Why a lock may not be had in this mode; none if it may.
    pub fn denies(&self, name: &LockName, mode: Mode) -> Option<Denied> {
        self.check(verb_for(mode), name).err()
    }

    /// To open a session: for whoever may lock something.
    ///
    /// # Errors
    ///
    /// If it may lock nothing.
    pub fn may_open(&self) -> Result<Allowed<to::Open>, Denied> {
        let may = self.rules.may_somewhere(Verb::Share);
        if may { Ok(Allowed::made()) } else { Err(self.denied(Verb::Lock, None)) }
    }

    /// To look, which whoever may do anything may.
    ///
    /// # Errors
    ///
    /// If it may do nothing.
    pub fn may_look(&self) -> Result<Allowed<to::Look>, Denied> {
        let may = !self.rules.written().is_empty();
        if may { Ok(Allowed::made()) } else { Err(self.denied(Verb::See, None)) }
    }

    /// To administer the coordinator.
    ///
    /// # Errors
    ///
    /// If it may not.
    pub fn may_administer(&self) -> Result<Allowed<to::Administer>, Denied> {
        let may = self.rules.may_administer().is_some();
        if may { Ok(Allowed::made()) } else { Err(self.denied(Verb::Admin, None)) }
    }

    /// To see every lock there is and will be, and so what is counted of all of them.
    ///
    /// # Errors
    ///
    /// If there may be one that it may not see.
    pub fn may_see_all(&self) -> Result<Allowed<to::SeeAll>, Denied> {
        let may = self.rules.may_with_all(Verb::See).is_some();
        if may { Ok(Allowed::made()) } else { Err(self.denied(Verb::See, None)) }
    }

    /// To see a lock.
    ///
    /// # Errors
    ///
    /// If it may not.
    pub fn may_see(&self, name: &LockName) -> Result<Allowed<to::See>, Denied> {
        self.check(Verb::See, name).map(|_| Allowed::made())
    }

    /// To revoke a grant of a lock.
    ///
    /// # Errors
    ///
    /// If it may not.
    pub fn may_break(&self, name: &LockName) -> Result<Allowed<to::Break>, Denied> {
        self.check(Verb::Break, name).map(|_| Allowed::made())
    }
}

/// What somebody may see of all that there is.
#[derive(Clone, Debug)]
pub enum Sight {
    /// All of it: there is no access file.
    Everything,
    /// What the rules of this one allow.
    Of(Arc<Principal>),
    /// Nothing.
    Nothing,
}

impl Sight {
    /// Whether it sees everything, so that nothing has to be looked through.
    pub fn is_everything(&self) -> bool {
        matches!(&self, Self::Everything)
    }

    /// Whether it sees a lock.
    pub fn sees(&self, name: &LockName) -> bool {
        match self {
            Self::Everything => true,
            Self::Of(principal) => principal.rules.may(Verb::See, name).is_some(),
            Self::Nothing => false,
        }
    }

    /// Whether it sees all of them.
    pub fn sees_all(&self, claims: &[Claim]) -> bool {
        self.is_everything() || claims.iter().all(|claim| self.sees(&claim.name))
    }

    /// Whether it sees a session, by the identity that is proven of that: those of others, and of nobody, only
    /// who administers.
    pub fn sees_session(&self, identity: Option<&str>) -> bool {
        match self {
            Self::Everything => true,
            Self::Of(principal) => {
                let is_own = |identity| principal.name.is_shown_by(identity);
                principal.rules.may_administer().is_some() || identity.is_some_and(is_own)
            }
            Self::Nothing => false,
        }
    }
}
