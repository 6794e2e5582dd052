//! The table of commands: what each of them means, in words of locks.
//!
//! A command about locks becomes a [`Deed`], one about the connection an [`Own`]. All others are answered
//! *no*, and told that this is a lock service.

mod arguments;
mod set;

pub(crate) use self::arguments::bounded;
use self::arguments::{Arguments, No, not_a_number, shown, syntax};
use super::deed::{Counted, Deed, Only, Term, Wait};
use super::reply::Reply;
use super::request::Words;
use super::unit::Unit;
use crate::types::Mark;

/// What a command is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Locks.
    Deed(Deed),
    /// A script, by its text or by its hash.
    Eval(ByWhat),
    /// The connection.
    Own(Own),
}

/// How a script is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByWhat {
    /// `EVAL`.
    Text,
    /// `EVALSHA`.
    Hash,
}

/// What a connection is told without a look at locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// `PING`.
    Ping,
    /// `ECHO`.
    Echo,
    /// `HELLO`.
    Hello,
    /// `AUTH`.
    Auth,
    /// `CLIENT`.
    Client,
    /// `SELECT`.
    Select,
    /// `INFO`.
    Info,
    /// `COMMAND`.
    Command,
    /// `CONFIG`.
    Config,
    /// `ROLE`.
    Role,
    /// `TIME`.
    Time,
    /// `WAIT`: for replicas, of which there are none.
    Replicas,
    /// `SCRIPT`.
    Script,
    /// `FLUSHDB`, `FLUSHALL`.
    Flush,
    /// `MULTI`.
    Multi,
    /// `EXEC`.
    Exec,
    /// `DISCARD`.
    Discard,
    /// `RESET`.
    Reset,
    /// `QUIT`.
    Quit,
}

/// Longest name of a command.
const NAME_LEN_MAX: usize = 24;

/// What a request means.
///
/// # Errors
///
/// What it is answered, if it means nothing.
pub(super) fn meaning(words: &Words) -> Result<Meaning, Reply> {
    let word = words.get(0).unwrap_or_default();
    let mut name = [0; NAME_LEN_MAX];
    let Some(name) = name.get_mut(..word.len()) else { return Err(unknown(word)) };
    name.copy_from_slice(word);
    name.make_ascii_uppercase();
    let mut rest = Arguments::behind(words, 1);
    // What is said most, first.
    match &*name {
        b"SET" => return Ok(Meaning::Deed(set::set(&mut rest)?)),
        b"EVALSHA" => return Ok(Meaning::Eval(ByWhat::Hash)),
        _ => {}
    }
    if let Some(own) = own(name) {
        return Ok(Meaning::Own(own));
    }
    Ok(Meaning::Deed(match &*name {
        b"SETNX" => set::setnx(&mut rest)?,
        b"SETEX" => set::setex(&mut rest, Unit::Seconds)?,
        b"PSETEX" => set::setex(&mut rest, Unit::Millis)?,
        b"MSETNX" => set::msetnx(&mut rest)?,
        b"GETEX" => set::getex(&mut rest)?,
        b"GET" => Deed::Get(only(&mut rest, Arguments::key)?),
        b"GETDEL" => Deed::GetDel(only(&mut rest, Arguments::key)?),
        b"STRLEN" => Deed::Length(only(&mut rest, Arguments::key)?),
        b"TYPE" => Deed::Type(only(&mut rest, Arguments::key)?),
        b"PERSIST" => Deed::Persist(only(&mut rest, Arguments::key)?),
        b"EXISTS" | b"TOUCH" => Deed::Exists(rest.all_keys()?),
        b"DEL" | b"UNLINK" => Deed::Del(rest.all_keys()?),
        b"WATCH" => Deed::Watch(rest.all_keys()?),
        b"UNWATCH" => only(&mut rest, |_| Ok(Deed::Unwatch))?,
        b"DBSIZE" => only(&mut rest, |_| Ok(Deed::Size))?,
        b"TTL" => left(&mut rest, Unit::Seconds, Counted::FromNow)?,
        b"PTTL" => left(&mut rest, Unit::Millis, Counted::FromNow)?,
        b"EXPIRETIME" => left(&mut rest, Unit::Seconds, Counted::From1970)?,
        b"PEXPIRETIME" => left(&mut rest, Unit::Millis, Counted::From1970)?,
        b"EXPIRE" => expire(&mut rest, Unit::Seconds, Counted::FromNow)?,
        b"PEXPIRE" => expire(&mut rest, Unit::Millis, Counted::FromNow)?,
        b"EXPIREAT" => expire(&mut rest, Unit::Seconds, Counted::From1970)?,
        b"PEXPIREAT" => expire(&mut rest, Unit::Millis, Counted::From1970)?,
        b"EVAL" | b"EVAL_RO" => return Ok(Meaning::Eval(ByWhat::Text)),
        b"EVALSHA_RO" => return Ok(Meaning::Eval(ByWhat::Hash)),
        b"COORDINATOR.TOKEN" => Deed::Token(only(&mut rest, Arguments::key)?),
        b"COORDINATOR.WAIT" => wait(&mut rest)?,
        _ => return Err(unknown(word)),
    }))
}

/// The name of a command that means nothing here, in capitals, if it can be one.
pub(super) fn command_unknown(words: &Words) -> Option<String> {
    let name = std::str::from_utf8(words.get(0)?).ok()?.to_ascii_uppercase();
    let is_name = name.len() <= NAME_LEN_MAX && name.bytes().all(|byte| byte.is_ascii_graphic());
    let is_unknown = is_name && matches!(meaning(words), Err(no) if no == unknown(words.get(0)?));
    is_unknown.then_some(name)
}

fn own(name: &[u8]) -> Option<Own> {
    Some(match name {
        b"PING" => Own::Ping,
        b"ECHO" => Own::Echo,
        b"HELLO" => Own::Hello,
        b"AUTH" => Own::Auth,
        b"CLIENT" => Own::Client,
        b"SELECT" => Own::Select,
        b"INFO" => Own::Info,
        b"COMMAND" => Own::Command,
        b"CONFIG" => Own::Config,
        b"ROLE" => Own::Role,
        b"TIME" => Own::Time,
        b"WAIT" => Own::Replicas,
        b"SCRIPT" => Own::Script,
        b"FLUSHDB" | b"FLUSHALL" => Own::Flush,
        b"MULTI" => Own::Multi,
        b"EXEC" => Own::Exec,
        b"DISCARD" => Own::Discard,
        b"RESET" => Own::Reset,
        b"QUIT" => Own::Quit,
        _ => return None,
    })
}

/// That this is a lock service.
fn unknown(word: &[u8]) -> No {
    let name = shown(word);
    Reply::error(format!(
        "ERR unknown command '{name}': this is a lock service, it has the commands of locks and holds no \
         data; see docs/redis.md"
    ))
}

/// What is taken, and that nothing is left.
fn only<'a, T>(
    rest: &mut Arguments<'a>,
    take: impl FnOnce(&mut Arguments<'a>) -> Result<T, No>,
) -> Result<T, No> {
    let taken = take(rest)?;
    rest.end()?;
    Ok(taken)
}

fn left(rest: &mut Arguments<'_>, unit: Unit, counted: Counted) -> Result<Deed, No> {
    Ok(Deed::Left(only(rest, Arguments::key)?, unit, counted))
}

fn expire(rest: &mut Arguments<'_>, unit: Unit, counted: Counted) -> Result<Deed, No> {
    let key = rest.key()?;
    let count = rest.number()?;
    // What has passed ends at once, as in Redis.
    let length = bounded(unit, u64::try_from(count).unwrap_or(0));
    let length = length.ok_or_else(|| rest.invalid_expire())?;
    let only = match rest.option().as_deref() {
        None => Only::Always,
        Some("NX") => Only::Endless,
        Some("XX") => Only::Ending,
        Some("GT") => Only::Later,
        Some("LT") => Only::Earlier,
        Some(_) => return Err(syntax()),
    };
    rest.end()?;
    let term = match counted {
        Counted::FromNow => Term::For(length),
        Counted::From1970 => Term::Until(length),
    };
    Ok(Deed::Expire(key, term, only))
}

/// `COORDINATOR.WAIT key value [PX ms | EX s] [TIMEOUT ms]`.
fn wait(rest: &mut Arguments<'_>) -> Result<Deed, No> {
    let (key, mark) = (rest.key()?, rest.mark()?);
    let (mut term, mut timeout) = (None, None);
    while let Some(option) = rest.option() {
        match option.as_str() {
            "PX" if term.is_none() => term = Some(rest.length(Unit::Millis)?),
            "EX" if term.is_none() => term = Some(rest.length(Unit::Seconds)?),
            "TIMEOUT" if timeout.is_none() => {
                let count = u64::try_from(rest.number()?).map_err(|_| not_a_number())?;
                timeout = Some(bounded(Unit::Millis, count).ok_or_else(not_a_number)?);
            }
            _ => return Err(syntax()),
        }
    }
    Ok(Deed::Wait(Box::new(Wait { key, mark, term, timeout })))
}

/// The keys of a script, of which it is said how many there are, and its arguments.
///
/// # Errors
///
/// What it is answered, if that does not fit together.
pub(crate) fn script_call(words: &Words) -> Result<(super::deed::Keys, Vec<Vec<u8>>), Reply> {
    let mut rest = Arguments::behind(words, 2);
    let count = usize::try_from(rest.number()?)
        .map_err(|_| Reply::error("ERR Number of keys can't be negative"))?;
    if count > rest.left() {
        return Err(Reply::error("ERR Number of keys can't be greater than number of args"));
    }
    let keys = rest.keys(count)?;
    let arguments = words.from(3 + count).map(<[u8]>::to_vec).collect();
    Ok((keys, arguments))
}

/// A value that a script has.
pub(crate) fn script_mark(argument: &[u8]) -> Result<Mark, Reply> {
    Mark::new(argument).ok_or_else(|| Reply::error("ERR the value is too long"))
}
