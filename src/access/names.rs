//! The names that a rule is about.

use std::fmt;

use crate::types::{LockName, TextError};

/// The names of locks that a rule is about.
///
/// A pattern is exact, or ends with `/*`, or is `*`. Nothing else is one: wildcards elsewhere have led
/// users of other services to rules that allowed more, or less, than they read.
///
/// # Examples
///
/// ```
/// use coordinator::access::Names;
/// use coordinator::types::LockName;
///
/// let below = Names::new("billing/*").unwrap();
/// assert!(below.include(&LockName::new("billing/2026/may").unwrap()));
/// assert!(!below.include(&LockName::new("billing").unwrap()));
/// assert!(!below.include(&LockName::new("billing-old/2026").unwrap()));
/// assert!(Names::new("billing*").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// `*`: every name.
    All,
    /// `prefix/*`: every name that begins with `prefix/` and goes on.
    Below(LockName),
    /// This name.
    One(LockName),
}

/// Why a text is no pattern of names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NamesError {
    /// A star is somewhere else than alone or behind the last slash.
    #[error("a star may only stand alone or behind the last slash")]
    Star,
    /// There is nothing before the slash.
    #[error("there is nothing before the slash")]
    NoPrefix,
    /// No lock has such a name.
    #[error("no lock has such a name: {0}")]
    NoName(#[from] TextError),
}

impl Names {
    /// Takes `text` as a pattern.
    ///
    /// # Errors
    ///
    /// If it has a star elsewhere, nothing before `/*`, or no lock can have such a name.
    pub fn new(text: &str) -> Result<Self, NamesError> {
        if text == "*" {
            return Ok(Self::All);
        }
        let (name, prefix) = match text.strip_suffix("/*") {
            Some("") => return Err(NamesError::NoPrefix),
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        if name.contains('*') {
            return Err(NamesError::Star);
        }
        let name = LockName::new(name)?;
        Ok(if prefix { Self::Below(name) } else { Self::One(name) })
    }

    /// Whether it includes a name.
    pub fn include(&self, name: &LockName) -> bool {
        self.include_text(name.as_str())
    }

    /// The same of what is perhaps no name, and then of no interest.
    #[inline]
    pub fn include_text(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => one.as_str() == name,
            Self::Below(prefix) => {
                let (name, prefix) = (name.as_bytes(), prefix.as_str().as_bytes());
                name.len() > prefix.len() + 1
                    && name[prefix.len()] == b'/'
                    && name.starts_with(prefix)
            }
        }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Below(prefix) => write!(f, "{prefix}/*"),
            Self::One(name) => write!(f, "{name}"),
        }
    }
}
