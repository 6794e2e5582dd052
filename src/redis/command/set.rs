//! `SET` and its kin.

use super::super::deed::{Deed, KEYS_MAX, Set, SetAnswer, Term, When};
use super::arguments::{Arguments, No, syntax};
use crate::redis::reply::Reply;
use crate::redis::unit::Unit;

/// `SET key value [NX | XX] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]`, in any order.
pub(super) fn set(rest: &mut Arguments<'_>) -> Result<Deed, No> {
    let (key, mark) = (rest.key()?, rest.mark()?);
    let (mut when, mut answer, mut term) = (None, SetAnswer::Ok, None);
    while let Some(option) = rest.option() {
        match option.as_str() {
            "NX" if when.is_none() => when = Some(When::Free),
            "XX" if when.is_none() => when = Some(When::Set),
            "GET" => answer = SetAnswer::Before,
            "KEEPTTL" if term.is_none() => term = Some(None),
            _ if term.is_none() => term = Some(Some(ending(&option, rest)?)),
            _ => return Err(syntax()),
        }
    }
    let term = term.unwrap_or(Some(Term::Never));
    let when = when.unwrap_or(When::Always);
    Ok(Deed::Set(Set { key, mark, when, term, answer }))
}

/// Until when, as these options say it.
fn ending(option: &str, rest: &mut Arguments<'_>) -> Result<Term, No> {
    Ok(match option {
        "EX" => Term::For(rest.length(Unit::Seconds)?),
        "PX" => Term::For(rest.length(Unit::Millis)?),
        "EXAT" => Term::Until(rest.length(Unit::Seconds)?),
        "PXAT" => Term::Until(rest.length(Unit::Millis)?),
        _ => return Err(syntax()),
    })
}

/// `SETNX key value`.
pub(super) fn setnx(rest: &mut Arguments<'_>) -> Result<Deed, No> {
    let (key, mark) = (rest.key()?, rest.mark()?);
    rest.end()?;
    let (when, answer, term) = (When::Free, SetAnswer::Number, Some(Term::Never));
    Ok(Deed::Set(Set { key, mark, when, term, answer }))
}

/// `SETEX key seconds value`, `PSETEX key milliseconds value`.
pub(super) fn setex(rest: &mut Arguments<'_>, unit: Unit) -> Result<Deed, No> {
    let key = rest.key()?;
    let term = Some(Term::For(rest.length(unit)?));
    let mark = rest.mark()?;
    rest.end()?;
    let (when, answer) = (When::Always, SetAnswer::Ok);
    Ok(Deed::Set(Set { key, mark, when, term, answer }))
}

/// `MSETNX key value [key value ...]`.
pub(super) fn msetnx(rest: &mut Arguments<'_>) -> Result<Deed, No> {
    let count = rest.left() / 2;
    if count == 0 || !rest.left().is_multiple_of(2) {
        return Err(rest.miscounted());
    }
    if count > KEYS_MAX {
        return Err(Reply::error(format!("ERR at most {KEYS_MAX} keys in one command")));
    }
    let pairs = (0..count).map(|_| Ok((rest.key()?, rest.mark()?)));
    Ok(Deed::SetAll(pairs.collect::<Result<_, No>>()?))
}

/// `GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]`.
pub(super) fn getex(rest: &mut Arguments<'_>) -> Result<Deed, No> {
    let key = rest.key()?;
    let term = match rest.option() {
        None => None,
        Some(option) if option == "PERSIST" => Some(Term::Never),
        Some(option) => Some(ending(&option, rest)?),
    };
    rest.end()?;
    Ok(Deed::GetEx(key, term))
}
