//! What a command does to locks: parsed once, at the edge.

use std::time::Duration;

use smallvec::SmallVec;

use super::script::Script;
use super::unit::Unit;
use crate::types::{LockName, Mark};

/// Longest time for which a key is set, in milliseconds: as many as fit a number of JSON.
pub const TERM_MS_MAX: u64 = (1 << 53) - 1;
/// Most keys of one command.
pub const KEYS_MAX: usize = 64;

/// Keys of a command.
pub type Keys = SmallVec<[LockName; 1]>;

/// Something that a command does to locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// `SET` and its kin.
    Set(Set),
    /// `MSETNX`: all or none.
    SetAll(Vec<(LockName, Mark)>),
    /// `GET`.
    Get(LockName),
    /// `GETDEL`.
    GetDel(LockName),
    /// `GETEX`.
    GetEx(LockName, Option<Term>),
    /// `EXISTS`, `TOUCH`.
    Exists(Keys),
    /// `STRLEN`.
    Length(LockName),
    /// `TYPE`.
    Type(LockName),
    /// `TTL`, `PTTL`, `EXPIRETIME`, `PEXPIRETIME`.
    Left(LockName, Unit, Counted),
    /// `DEL`, `UNLINK`.
    Del(Keys),
    /// `EXPIRE`, `PEXPIRE`, `EXPIREAT`, `PEXPIREAT`.
    Expire(LockName, Term, Only),
    /// `PERSIST`.
    Persist(LockName),
    /// `EVAL`, `EVALSHA`.
    Script(Box<ScriptCall>),
    /// `COORDINATOR.TOKEN`.
    Token(LockName),
    /// `COORDINATOR.WAIT`.
    Wait(Box<Wait>),
    /// `WATCH`.
    Watch(Keys),
    /// `UNWATCH`.
    Unwatch,
    /// `DBSIZE`.
    Size,
    /// `FLUSHDB`, where it is allowed.
    Flush,
}

impl Deed {
    /// Whether it counts as a request of its principal. What prolongs or gives back what somebody has does not: who
    /// asks too often loses nothing by that.
    pub fn is_request(&self) -> bool {
        match self {
            Self::Set(_)
            | Self::SetAll(_)
            | Self::Get(_)
            | Self::GetEx(..)
            | Self::Exists(_)
            | Self::Length(_)
            | Self::Type(_)
            | Self::Left(..)
            | Self::Token(_)
            | Self::Wait(_)
            | Self::Watch(_)
            | Self::Size => true,
            Self::Script(call) => call.script.is_request(),
            Self::GetDel(_)
            | Self::Del(_)
            | Self::Expire(..)
            | Self::Persist(_)
            | Self::Unwatch
            | Self::Flush => false,
        }
    }
}

/// What `SET` is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The lock.
    pub key: LockName,
    /// By what its holder is known.
    pub mark: Mark,
    /// Whether it is to be free.
    pub when: When,
    /// Until when; none: as long as it is now.
    pub term: Option<Term>,
    /// What is answered.
    pub answer: SetAnswer,
}

/// When `SET` sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// If the key is free (`NX`).
    Free,
    /// If it is set (`XX`).
    Set,
    /// In any case. What is set passes to whoever has the new value, as in Redis.
    Always,
}

/// What a command that sets a key answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetAnswer {
    /// `OK`, or nothing.
    Ok,
    /// 1 or 0 (`SETNX`).
    Number,
    /// The value before (`GET`).
    Before,
}

/// Until when a key is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// Until it is deleted.
    Never,
    /// For so long.
    For(Duration),
    /// Until so long after the beginning of 1970, by the wall clock.
    Until(Duration),
}

/// From when on a time is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// From now on.
    FromNow,
    /// From the beginning of 1970.
    From1970,
}

/// When `EXPIRE` does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    /// If there is a key.
    Always,
    /// If it has no end (`NX`).
    Endless,
    /// If it has an end (`XX`).
    Ending,
    /// If it ends later by that (`GT`).
    Later,
    /// If it ends earlier by that (`LT`).
    Earlier,
}

/// A script that is known, and what it is called with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptCall {
    /// Which.
    pub script: Script,
    /// Its keys.
    pub keys: Keys,
    /// Its arguments.
    pub arguments: Vec<Vec<u8>>,
}

/// A `SET NX` that waits in line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The lock.
    pub key: LockName,
    /// By what its holder is known.
    pub mark: Mark,
    /// For how long from its grant on; none: until it is deleted.
    pub term: Option<Duration>,
    /// How long to wait; none: for ever.
    pub timeout: Option<Duration>,
}
