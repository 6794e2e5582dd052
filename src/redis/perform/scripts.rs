//! What known scripts do to keys, and what is answered.

use std::time::Duration;

use super::{Answered, Change, Holds, Look, Ours, Refusal, take_all};
use crate::redis::command::{bounded, script_mark};
use crate::redis::deed::ScriptCall;
use crate::redis::reply::Reply;
use crate::redis::request::number;
use crate::redis::script::{Answer, Rest, Script};
use crate::redis::unit::Unit;
use crate::types::{LockName, Mark};

/// A script with what it is called with, against some locks.
struct Run<'a> {
    call: &'a ScriptCall,
    holds: &'a mut dyn Holds,
}

/// Runs a script.
pub(super) fn run(call: &ScriptCall, holds: &mut dyn Holds) -> Answered {
    let mut run = Run { call, holds };
    match call.script {
        Script::Free { value, answer } => run.free(value, answer),
        Script::FreeAll => run.free_all(),
        Script::FreeOrGone => run.free_one(-1, 0),
        Script::FreeUnlessGone => run.free_unless_gone(),
        Script::Extend { value, unit, answer } => run.extend(value, unit, answer),
        Script::ExtendBy => run.extend_by(),
        Script::ExtendInTime => run.extend_in_time(),
        Script::Take { value, unit, answer } => run.take(value, unit, answer),
        Script::TakeEach => run.take_each(),
        Script::TakeOrExtend { answer } => run.take_or_extend(answer, true),
        Script::TakeOrExtendIfAllowed => {
            let may_take = run.argument(2)? == b"yes";
            run.take_or_extend(Answer::Ok, may_take)
        }
        Script::Obtain => run.obtain(),
        Script::Rest(rest) => run.rest(rest),
        Script::Inspect => run.inspect(Reply::Nil),
        Script::Look => run.inspect(Reply::Array(vec![Reply::Nil, Reply::Integer(-2)])),
    }
}

impl<'a> Run<'a> {
    /// The first key.
    fn key(&self) -> Result<&LockName, Refusal> {
        self.call.keys.first().ok_or_else(missing)
    }

    /// The keys that a script with this answer is about: all, where it goes over them, else the first.
    fn keys(&self, answer: Answer) -> Result<&'a [LockName], Refusal> {
        let call: &'a ScriptCall = self.call;
        let count = match answer {
            Answer::Count | Answer::Ok => call.keys.len().max(1),
            Answer::Number | Answer::True | Answer::OkOrError | Answer::NumberOrMinusOne => 1,
        };
        call.keys.get(..count).ok_or_else(missing)
    }

    fn argument(&self, at: usize) -> Result<&[u8], Refusal> {
        self.call.arguments.get(at).map(Vec::as_slice).ok_or_else(missing)
    }

    fn mark(&self, at: usize) -> Result<Mark, Refusal> {
        script_mark(self.argument(at)?).map_err(|_| Refusal("ERR the value is too long".into()))
    }

    fn number(&self, at: usize) -> Result<i64, Refusal> {
        number(self.argument(at)?)
            .ok_or_else(|| Refusal("ERR value is not an integer or out of range".into()))
    }

    /// A length; none: for ever, which is said by -1 where seconds are counted. Nothing: it has passed.
    fn term(&self, at: usize, unit: Unit) -> Result<Option<Duration>, Refusal> {
        let count = self.number(at)?;
        if count == -1 && unit == Unit::Seconds {
            return Ok(None);
        }
        let length = bounded(unit, u64::try_from(count).unwrap_or(0));
        length.map(Some).ok_or_else(|| Refusal("ERR invalid expire time in script".into()))
    }

    /// A key, if its value is this.
    fn mine(&mut self, key: &LockName, value: usize) -> Result<Option<Ours>, Refusal> {
        let wanted = self.argument(value)?.to_vec();
        Ok(match self.holds.look(key)? {
            Look::Ours(ours) if ours.mark.as_bytes() == wanted => Some(ours),
            Look::Free | Look::Ours(_) | Look::Theirs { .. } => None,
        })
    }

    /// Whether all of these keys are mine.
    fn all_mine(&mut self, keys: &[LockName], value: usize) -> Result<bool, Refusal> {
        for key in keys {
            if self.mine(key, value)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Has a key of mine end so much later from now, or at once.
    fn end_after(&mut self, key: &LockName, term: Option<Duration>) -> Result<(), Refusal> {
        match term {
            Some(Duration::ZERO) => self.holds.free(key),
            term => self.holds.change(key, Change { term: Some(term), mark: None }),
        }
    }

    fn free(&mut self, value: usize, answer: Answer) -> Answered {
        let mut count = 0;
        for key in self.keys(answer)? {
            if self.mine(key, value)?.is_some() {
                self.holds.free(key)?;
                count += 1;
            }
        }
        Ok(reply(answer, count > 0, count))
    }

    fn free_all(&mut self) -> Answered {
        let keys = self.keys(Answer::Ok)?;
        let are_mine = self.all_mine(keys, 0)?;
        if are_mine {
            for key in keys {
                // One that is said twice is free already.
                if self.mine(key, 0)?.is_some() {
                    self.holds.free(key)?;
                }
            }
        }
        Ok(reply(Answer::Ok, are_mine, 0))
    }

    /// Frees a key of mine; says so by 1, else by the one if it is gone, by the other if it is another's.
    fn free_one(&mut self, gone: i64, another: i64) -> Answered {
        let key = self.key()?.clone();
        Ok(Reply::Integer(if self.mine(&key, 0)?.is_some() {
            self.holds.free(&key)?;
            1
        } else if self.holds.look(&key)? == Look::Free {
            gone
        } else {
            another
        }))
    }

    fn free_unless_gone(&mut self) -> Answered {
        Ok(match self.free_one(-1, 0)? {
            Reply::Integer(-1) => Reply::OK,
            Reply::Integer(0) => Reply::error("ERROR"),
            one => one,
        })
    }

    fn extend(&mut self, value: usize, unit: Unit, answer: Answer) -> Answered {
        let keys = self.keys(answer)?;
        let are_mine = self.all_mine(keys, value)?;
        if are_mine {
            let term = self.term(value + 1, unit)?;
            for key in keys {
                if self.mine(key, value)?.is_some() {
                    self.end_after(key, term)?;
                }
            }
        }
        Ok(if answer == Answer::Count { self.count(are_mine) } else { reply(answer, are_mine, 1) })
    }

    /// How many keys there are, or 0.
    fn count(&self, done: bool) -> Reply {
        let count = i64::try_from(self.call.keys.len()).unwrap_or(i64::MAX);
        Reply::Integer(if done { count } else { 0 })
    }

    fn extend_by(&mut self) -> Answered {
        let key = self.key()?.clone();
        let Some(Ours { left: Some(left), .. }) = self.mine(&key, 0)? else {
            return Ok(Reply::Integer(0));
        };
        let (more, is_added) = (self.number(1)?, self.argument(2)? == b"0");
        let before = if is_added { Unit::Millis.count(left) } else { 0 };
        let after = before.checked_add(more).and_then(|after| u64::try_from(after).ok());
        let after = bounded(Unit::Millis, after.unwrap_or(0));
        let after = after.ok_or_else(|| Refusal("ERR invalid expire time in script".into()))?;
        self.end_after(&key, Some(after))?;
        Ok(Reply::Integer(1))
    }

    fn extend_in_time(&mut self) -> Answered {
        let key = self.key()?.clone();
        let (least, term) = (self.number(1)?, self.term(2, Unit::Millis)?);
        let left = match self.holds.look(&key)? {
            Look::Free => return Ok(pair(Reply::Integer(-1), Reply::Integer(-2))),
            Look::Ours(Ours { left, .. }) | Look::Theirs { left, .. } => millis(left),
        };
        let said = if left < least {
            0
        } else if self.mine(&key, 0)?.is_some() {
            self.end_after(&key, term)?;
            1
        } else {
            -1
        };
        Ok(pair(Reply::Integer(said), Reply::Integer(left)))
    }

    fn take(&mut self, value: usize, unit: Unit, answer: Answer) -> Answered {
        let (mark, term) = (self.mark(value)?, self.term(value + 1, unit)?);
        check_ahead(term)?;
        let keys = self.keys(answer)?;
        let pairs: Vec<_> = keys.iter().map(|key| (key, &mark, term)).collect();
        let done = take_all(&pairs, self.holds)?;
        Ok(if answer == Answer::Count { self.count(done) } else { reply(answer, done, 1) })
    }

    fn take_each(&mut self) -> Answered {
        let call = self.call;
        let last = call.arguments.len().checked_sub(1).ok_or_else(missing)?;
        let term = self.term(last, Unit::Millis)?;
        check_ahead(term)?;
        let marks = (0..call.keys.len()).map(|at| self.mark(at));
        let marks = marks.collect::<Result<Vec<_>, _>>()?;
        let pairs: Vec<_> =
            call.keys.iter().zip(&marks).map(|(key, mark)| (key, mark, term)).collect();
        if take_all(&pairs, self.holds)? {
            return Ok(pair(Reply::Integer(1), self.count(true)));
        }
        for (key, place) in call.keys.iter().zip(1..) {
            if self.holds.look(key)? != Look::Free {
                let name = Reply::text(key.as_str());
                return Ok(vec![Reply::Integer(0), Reply::Integer(place), name].into());
            }
        }
        // Nobody holds them, and somebody is next in line.
        let first = Reply::text(self.key()?.as_str());
        Ok(vec![Reply::Integer(0), Reply::Integer(1), first].into())
    }

    fn take_or_extend(&mut self, answer: Answer, may_take: bool) -> Answered {
        let key = self.key()?.clone();
        let (mark, term) = (self.mark(0)?, self.term(1, Unit::Millis)?);
        check_ahead(term)?;
        let done = if self.mine(&key, 0)?.is_some() {
            self.end_after(&key, term)?;
            true
        } else {
            may_take
                && self.holds.look(&key)? == Look::Free
                && self.holds.take(&key, &mark, term)?
        };
        Ok(reply(answer, done, 1))
    }

    fn obtain(&mut self) -> Answered {
        let call = self.call;
        let (mark, term) = (self.mark(0)?, self.term(2, Unit::Millis)?);
        check_ahead(term)?;
        let same = usize::try_from(self.number(1)?).unwrap_or(0);
        let _ = self.key()?;
        let pairs: Vec<_> = call.keys.iter().map(|key| (key, &mark, term)).collect();
        if take_all(&pairs, self.holds)? {
            return Ok(Reply::OK);
        }
        let start = mark.as_bytes().get(..same).unwrap_or(mark.as_bytes());
        for key in &call.keys {
            match self.holds.look(key)? {
                Look::Ours(ours)
                    if !start.is_empty()
                        && ours.mark.as_bytes().get(..same).unwrap_or(ours.mark.as_bytes())
                            == start => {}
                Look::Free | Look::Ours(_) | Look::Theirs { .. } => return Ok(Reply::Nil),
            }
        }
        for key in &call.keys {
            self.holds.change(key, Change { term: Some(term), mark: Some(&mark) })?;
        }
        Ok(Reply::OK)
    }

    fn rest(&mut self, rest: Rest) -> Answered {
        let keys =
            self.keys(if rest == Rest::Shortest { Answer::Count } else { Answer::Number })?;
        let mut shortest: Option<Duration> = None;
        for key in keys {
            let Some(Ours { left, .. }) = self.mine(key, 0)? else {
                return Ok(match rest {
                    Rest::OrZero => Reply::Integer(0),
                    Rest::OrMinusThree => Reply::Integer(-3),
                    Rest::Shortest => Reply::Nil,
                    Rest::OrError => Reply::error("ERROR"),
                });
            };
            shortest = [shortest, left].into_iter().flatten().min();
        }
        Ok(Reply::Integer(match rest {
            Rest::OrZero | Rest::Shortest => shortest.map_or(0, |left| Unit::Millis.count(left)),
            Rest::OrMinusThree => millis(shortest),
            Rest::OrError => shortest.map_or(-1, |left| Unit::Seconds.count(left)),
        }))
    }

    fn inspect(&mut self, none: Reply) -> Answered {
        let key = self.key()?.clone();
        let look = self.holds.look(&key)?;
        let left = match &look {
            Look::Free => return Ok(none),
            Look::Ours(Ours { left, .. }) | Look::Theirs { left, .. } => millis(*left),
        };
        Ok(pair(super::value(&look), Reply::Integer(left)))
    }
}

/// That a key is not set for a time that has passed.
fn check_ahead(term: Option<Duration>) -> Result<(), Refusal> {
    if term == Some(Duration::ZERO) {
        return Err(Refusal("ERR invalid expire time in script".into()));
    }
    Ok(())
}

/// What `PTTL` says of a key that there is.
fn millis(left: Option<Duration>) -> i64 {
    left.map_or(-1, |left| Unit::Millis.count(left))
}

fn pair(first: Reply, second: Reply) -> Reply {
    vec![first, second].into()
}

/// What is answered to *yes*, of which there were so many, or to *no*.
fn reply(answer: Answer, done: bool, count: i64) -> Reply {
    match (answer, done) {
        (Answer::Number | Answer::Count, true) => Reply::Integer(count),
        (Answer::True | Answer::NumberOrMinusOne, true) => Reply::Integer(1),
        (Answer::Ok | Answer::OkOrError, true) => Reply::OK,
        (Answer::Number | Answer::Count, false) => Reply::Integer(0),
        (Answer::True | Answer::Ok, false) => Reply::Nil,
        (Answer::OkOrError, false) => Reply::error("ERROR"),
        (Answer::NumberOrMinusOne, false) => Reply::Integer(-1),
    }
}

fn missing() -> Refusal {
    Refusal("ERR the script is called with too few keys or arguments".into())
}
