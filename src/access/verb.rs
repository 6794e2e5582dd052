//! Verbs: what a rule can allow.

use std::fmt;

/// What a rule can allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// To lock in every mode: exclusive, permits, shared; to wait, and to convert.
    Lock,
    /// To lock in shared mode only.
    Share,
    /// To see a lock: its status, its events, and being told who is in the way.
    See,
    /// To break a lock: to revoke a grant by its token.
    Break,
    /// To administer the coordinator: all sessions, and reloading. It is about no lock.
    Admin,
}

impl Verb {
    /// All verbs.
    pub const ALL: [Self; 5] = [Self::Lock, Self::Share, Self::See, Self::Break, Self::Admin];

    /// The verb as the access file has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Share => "share",
            Self::See => "see",
            Self::Break => "break",
            Self::Admin => "admin",
        }
    }

    /// The verb that the access file calls `text`; none if it has no such verb.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == text)
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of verbs.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Verbs(u8);

impl Verbs {
    /// All of them.
    pub const ALL: Self = Self((1 << Verb::ALL.len()) - 1);

    /// Adds one. Says whether it was new.
    pub fn insert(&mut self, verb: Verb) -> bool {
        let before = self.0;
        self.0 |= verb.bit();
        self.0 != before
    }

    /// Whether it has this one as written.
    pub fn contains(self, verb: Verb) -> bool {
        self.0 & verb.bit() != 0
    }

    /// Whether it allows this one: who may lock in every mode may lock in shared mode.
    pub fn allows(self, verb: Verb) -> bool {
        self.contains(verb) || verb == Verb::Share && self.contains(Verb::Lock)
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its verbs, in their order.
    pub fn iter(self) -> impl Iterator<Item = Verb> {
        Verb::ALL.into_iter().filter(move |verb| self.contains(*verb))
    }
}

impl FromIterator<Verb> for Verbs {
    fn from_iter<I: IntoIterator<Item = Verb>>(verbs: I) -> Self {
        let mut all = Self::default();
        for verb in verbs {
            all.insert(verb);
        }
        all
    }
}

/// As in `lock, see`.
impl fmt::Display for Verbs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.iter().map(Verb::as_str).collect();
        f.write_str(&words.join(", "))
    }
}

impl fmt::Debug for Verbs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
