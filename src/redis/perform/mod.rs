//! What a deed does to keys, and what is answered: the commands of Redis in words of holds.
//!
//! The one idea: *a key is a lock, and its value is by what its holder is known*. All that is asked of the
//! locks are the few questions of [`Holds`], so the meaning of commands is tested without a lock service.

mod scripts;

use std::borrow::Cow;
use std::time::Duration;

use super::deed::{Counted, Deed, Keys, Only, Set, SetAnswer, Term, When};
use super::reply::Reply;
use super::unit::Unit;
use crate::types::{FencingToken, LockName, Mark};

/// Somebody's locks, as far as commands ask for them.
pub trait Holds {
    /// How a key is.
    ///
    /// # Errors
    ///
    /// What is answered if it may not be looked at.
    fn look(&mut self, key: &LockName) -> Result<Look, Refusal>;

    /// Sets a key that nobody has. Says whether it could: somebody may be next in line.
    ///
    /// # Errors
    ///
    /// What is answered if that may not be.
    fn take(
        &mut self,
        key: &LockName,
        mark: &Mark,
        term: Option<Duration>,
    ) -> Result<bool, Refusal>;

    /// Changes a key that a client of this dialect has set.
    ///
    /// # Errors
    ///
    /// What is answered if that may not be.
    fn change(&mut self, key: &LockName, change: Change<'_>) -> Result<(), Refusal>;

    /// Frees a key that a client of this dialect has set.
    ///
    /// # Errors
    ///
    /// What is answered if that may not be.
    fn free(&mut self, key: &LockName) -> Result<(), Refusal>;

    /// Whether a key that a client of this dialect has set may be freed.
    ///
    /// # Errors
    ///
    /// What is answered if it may not.
    fn may_free(&mut self, key: &LockName) -> Result<(), Refusal>;

    /// How long ago 1970 began, by the wall clock.
    fn wall(&self) -> Duration;

    /// How many locks are in use.
    fn size(&self) -> usize;
}

/// A *no*, to be answered as an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub Cow<'static, str>);

/// How a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nobody holds it.
    Free,
    /// A client of this dialect has set it.
    Ours(Ours),
    /// A native client holds it.
    Theirs {
        /// Who says to be what.
        identity: String,
        /// How long its lease lasts if it is not renewed.
        left: Option<Duration>,
        /// The token of its grant.
        token: FencingToken,
    },
}

/// A key that a client of this dialect has set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ours {
    /// Its value.
    pub mark: Mark,
    /// How long it lasts; none: until it is deleted.
    pub left: Option<Duration>,
    /// The token of its grant.
    pub token: FencingToken,
}

/// What changes about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// Until when it is set, from now on; none: as it is. In it, none: until it is deleted.
    pub term: Option<Option<Duration>>,
    /// Its value; none: as it is.
    pub mark: Option<&'a Mark>,
}

impl From<Refusal> for Reply {
    fn from(Refusal(sentence): Refusal) -> Self {
        Self::Error(sentence)
    }
}

type Answered = Result<Reply, Refusal>;

/// Does what a command is to do to keys, and says what is answered. What concerns the connection that
/// asked (`WATCH`, a wait), or takes long (`FLUSHDB`), is not done here; a wait is a try.
pub fn perform(deed: &Deed, holds: &mut dyn Holds) -> Reply {
    answered(deed, holds).unwrap_or_else(Reply::from)
}

fn answered(deed: &Deed, holds: &mut dyn Holds) -> Answered {
    Ok(match deed {
        Deed::Set(asked) => return set(asked, holds),
        Deed::SetAll(pairs) => {
            let pairs: Vec<_> = pairs.iter().map(|(key, mark)| (key, mark, None)).collect();
            Reply::Integer(take_all(&pairs, holds)?.into())
        }
        Deed::Get(key) => value(&holds.look(key)?),
        Deed::GetDel(key) => {
            let before = value(&holds.look(key)?);
            delete(key, holds)?;
            before
        }
        Deed::GetEx(key, term) => {
            let look = holds.look(key)?;
            if let (Look::Ours(_), Some(term)) = (&look, term) {
                expire(key, *term, holds)?;
            }
            value(&look)
        }
        Deed::Exists(keys) => count(keys, holds, |key, holds| Ok(holds.look(key)? != Look::Free))?,
        Deed::Length(key) => match value(&holds.look(key)?) {
            Reply::Bulk(value) => Reply::Integer(i64::try_from(value.len()).unwrap_or(i64::MAX)),
            _ => Reply::Integer(0),
        },
        Deed::Type(key) => match holds.look(key)? {
            Look::Free => Reply::Simple("none"),
            Look::Ours(_) | Look::Theirs { .. } => Reply::Simple("string"),
        },
        Deed::Left(key, unit, counted) => Reply::Integer(left(key, *unit, *counted, holds)?),
        Deed::Del(keys) => {
            // All or none: after an error nobody knows what is left.
            for key in keys {
                match holds.look(key)? {
                    Look::Free => {}
                    Look::Ours(_) => holds.may_free(key)?,
                    Look::Theirs { identity, token, .. } => {
                        return Err(native(key, &identity, token));
                    }
                }
            }
            count(keys, holds, delete)?
        }
        Deed::Expire(key, term, only) => {
            let done = expire_if(key, *term, *only, holds)?;
            Reply::Integer(done.into())
        }
        Deed::Persist(key) => {
            let done = expire_if(key, Term::Never, Only::Ending, holds)?;
            Reply::Integer(done.into())
        }
        Deed::Script(call) => return scripts::run(call, holds),
        Deed::Token(key) => match holds.look(key)? {
            Look::Free => Reply::Nil,
            Look::Ours(Ours { token, .. }) | Look::Theirs { token, .. } => {
                Reply::Integer(i64::try_from(token.number()).unwrap_or(i64::MAX))
            }
        },
        Deed::Wait(wait) => match holds.look(&wait.key)? {
            Look::Free if holds.take(&wait.key, &wait.mark, wait.term)? => {
                return answered(&Deed::Token(wait.key.clone()), holds);
            }
            Look::Free | Look::Ours(_) | Look::Theirs { .. } => Reply::Nil,
        },
        Deed::Watch(_) | Deed::Unwatch | Deed::Flush => Reply::OK,
        Deed::Size => Reply::Integer(i64::try_from(holds.size()).unwrap_or(i64::MAX)),
    })
}

/// How many of the keys something is so of.
fn count(
    keys: &Keys,
    holds: &mut dyn Holds,
    mut is_so: impl FnMut(&LockName, &mut dyn Holds) -> Result<bool, Refusal>,
) -> Answered {
    let mut count = 0;
    for key in keys {
        count += i64::from(is_so(key, holds)?);
    }
    Ok(Reply::Integer(count))
}

/// What `GET` answers. Nobody's value is that of a native client's lock.
fn value(look: &Look) -> Reply {
    match look {
        Look::Free => Reply::Nil,
        Look::Ours(Ours { mark, .. }) => Reply::Bulk(mark.as_bytes().to_vec()),
        Look::Theirs { identity, .. } => Reply::text(format!("coordinator:{identity}")),
    }
}

fn set(asked: &Set, holds: &mut dyn Holds) -> Answered {
    let Set { key, mark, when, term, answer } = asked;
    let look = holds.look(key)?;
    let done = match (&look, when) {
        (Look::Free, When::Set) | (Look::Ours(_) | Look::Theirs { .. }, When::Free) => false,
        (Look::Free, When::Free | When::Always) => {
            let term = term.and_then(|term| from_now(term, holds));
            let has_passed = term == Some(Duration::ZERO);
            let is_taken = holds.take(key, mark, term.filter(|_| !has_passed))?;
            // Where there is nobody's value to tell, *nothing* would mean that it was set.
            if !is_taken && (*when == When::Always || *answer == SetAnswer::Before) {
                return Err(not_ours(key, "is kept for others, who come first"));
            }
            if is_taken && has_passed {
                // Set for a time that has passed: it was set, and is gone.
                holds.free(key)?;
            }
            is_taken
        }
        (Look::Ours(_), When::Set | When::Always) => {
            let term = term.map(|term| from_now(term, holds));
            if term == Some(Some(Duration::ZERO)) {
                holds.free(key)?;
            } else {
                holds.change(key, Change { term, mark: Some(mark) })?;
            }
            true
        }
        (Look::Theirs { identity, token, .. }, When::Set | When::Always) => {
            return Err(native(key, identity, *token));
        }
    };
    Ok(match (answer, done) {
        (SetAnswer::Ok, true) => Reply::OK,
        (SetAnswer::Ok, false) => Reply::Nil,
        (SetAnswer::Number, done) => Reply::Integer(done.into()),
        (SetAnswer::Before, _) => value(&look),
    })
}

/// Takes all keys, or none.
fn take_all(
    pairs: &[(&LockName, &Mark, Option<Duration>)],
    holds: &mut dyn Holds,
) -> Result<bool, Refusal> {
    for (key, ..) in pairs {
        if holds.look(key)? != Look::Free {
            return Ok(false);
        }
    }
    for (at, (key, mark, term)) in pairs.iter().enumerate() {
        if pairs[..at].iter().any(|(before, ..)| before == key) {
            // What is said of a key last counts, as in Redis.
            holds.change(key, Change { term: Some(*term), mark: Some(mark) })?;
            continue;
        }
        let taken = holds.take(key, mark, *term);
        if !matches!(taken, Ok(true)) {
            // Whoever would have waited for these was in line before: then they had not been taken.
            for (key, ..) in &pairs[..at] {
                if holds.look(key)? != Look::Free {
                    holds.free(key)?;
                }
            }
            return taken;
        }
    }
    Ok(true)
}

/// Frees a key whoever has set it. Says whether there was one.
fn delete(key: &LockName, holds: &mut dyn Holds) -> Result<bool, Refusal> {
    match holds.look(key)? {
        Look::Free => Ok(false),
        Look::Ours(_) => holds.free(key).map(|()| true),
        Look::Theirs { identity, token, .. } => Err(native(key, &identity, token)),
    }
}

fn left(
    key: &LockName,
    unit: Unit,
    counted: Counted,
    holds: &mut dyn Holds,
) -> Result<i64, Refusal> {
    let left = match holds.look(key)? {
        Look::Free => return Ok(-2),
        Look::Ours(Ours { left, .. }) | Look::Theirs { left, .. } => left,
    };
    Ok(match (left, counted) {
        (None, _) => -1,
        (Some(left), Counted::FromNow) => unit.count(left),
        (Some(left), Counted::From1970) => unit.count(holds.wall() + left),
    })
}

/// A key is to end then, if it is one that does as this asks.
fn expire_if(
    key: &LockName,
    term: Term,
    only: Only,
    holds: &mut dyn Holds,
) -> Result<bool, Refusal> {
    let before = match holds.look(key)? {
        Look::Free => return Ok(false),
        Look::Ours(Ours { left, .. }) => left,
        Look::Theirs { identity, token, .. } => return Err(native(key, &identity, token)),
    };
    let after = from_now(term, holds);
    let is_so = match only {
        Only::Always => true,
        Only::Endless => before.is_none(),
        Only::Ending => before.is_some(),
        // What does not end, ends last.
        Only::Later => before.is_some_and(|before| after.is_none_or(|after| after > before)),
        Only::Earlier => after.is_some_and(|after| before.is_none_or(|before| after < before)),
    };
    if is_so {
        expire(key, term, holds)?;
    }
    Ok(is_so)
}

/// A key that is ours is to end then.
fn expire(key: &LockName, term: Term, holds: &mut dyn Holds) -> Result<(), Refusal> {
    match from_now(term, holds) {
        Some(Duration::ZERO) => holds.free(key),
        term => holds.change(key, Change { term: Some(term), mark: None }),
    }
}

/// For how long that is from now on; nothing is left of what has passed.
fn from_now(term: Term, holds: &dyn Holds) -> Option<Duration> {
    match term {
        Term::Never => None,
        Term::For(length) => Some(length),
        Term::Until(moment) => Some(moment.saturating_sub(holds.wall())),
    }
}

fn not_ours(key: &LockName, why: &str) -> Refusal {
    Refusal(format!("COORDINATOR '{key}' {why}").into())
}

/// That a lock is not of this dialect.
fn native(key: &LockName, identity: &str, token: FencingToken) -> Refusal {
    Refusal(
        format!(
            "COORDINATOR '{key}' is held by a native client, {identity}; an operator can take it away: \
             coordinator release --force --token {token} '{key}'"
        )
        .into(),
    )
}
