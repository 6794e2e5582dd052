//! A client's manners: what it says, in the order in which it says it, and what that is to be done about.
//!
//! Nothing is decided about locks here. What is said about the connection is answered at once; all of it in
//! its turn, so that answers come in the order of questions.

mod about;

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::command::{ByWhat, Meaning, Own, command_unknown, meaning, script_call};
use super::deed::{Deed, ScriptCall};
use super::reply::{Protocol, Reply};
use super::request::Words;
use super::script::{Scripts, known, sha1, to_hex};
use crate::types::ShownCredential;

/// Most commands between `MULTI` and `EXEC`.
pub const QUEUED_MAX: usize = 128;
/// Most bytes that they have.
pub const QUEUED_BYTES_MAX: usize = 64 * 1024;
/// So much of an unknown script is told to the log.
const SHOWN_BYTES_MAX: usize = 80;
/// Longest name that a connection gives itself.
pub const NAME_LEN_MAX: usize = 64;

/// What is to be done about something that was said.
#[derive(Debug)]
pub enum Step {
    /// It is answered.
    Say(Reply),
    /// Something is done to locks, and that is answered.
    Do(Deed),
    /// All of this is done at once (`EXEC`), unless something has changed that was watched.
    Together(Vec<Step>),
    /// What was watched is not any more, and it is answered.
    Forget(Reply),
    /// It is seen who that is. If it is somebody, this is answered.
    Enter {
        /// As whom it comes, if it says so.
        user: Option<String>,
        /// What proves it.
        credential: Option<ShownCredential>,
        /// The answer.
        then: Reply,
    },
    /// It is answered, and the connection is closed.
    Leave(Reply),
}

/// Something to do, and how its answer is written.
#[derive(Debug)]
pub struct Said {
    /// What is to be done.
    pub step: Step,
    /// The version in which it is answered.
    pub protocol: Protocol,
}

/// Something that means nothing here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// A command with this name, in capitals.
    Command(String),
    /// A script.
    Script {
        /// The hash of its text.
        hash: String,
        /// How that begins.
        start: String,
    },
}

/// What a port tells all who ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushing {
    /// `FLUSHDB` frees all that clients of this dialect hold.
    Allowed,
    /// It is refused.
    Refused,
}

/// What all connections of a port have in common.
#[derive(Debug)]
pub struct Common {
    /// Scripts that were said, on whatever connection.
    pub scripts: Arc<Scripts>,
    /// Whether `FLUSHDB` frees what is held.
    pub flushing: Flushing,
}

/// What commands are queued.
#[derive(Debug, Default)]
struct Queue {
    steps: Vec<Step>,
    bytes: usize,
    /// Whether something was no command: then nothing of it is done.
    is_spoilt: bool,
}

/// One connection's talk.
#[derive(Debug)]
pub struct Talk {
    /// The number of the connection, for whoever asks.
    id: u64,
    /// Scripts that were said, on whatever connection.
    scripts: Arc<Scripts>,
    /// What `FLUSHDB` does.
    flushing: Flushing,
    /// Whether it is known who speaks. Until then nothing is done of what is said but to say who.
    is_trusted: bool,
    /// How answers are written.
    protocol: Protocol,
    /// Its name, as it says.
    name: Vec<u8>,
    /// Whether it has another name than was told last.
    is_renamed: bool,
    /// The last that was said and means nothing here, if that was not said before.
    unknown: Option<Unknown>,
    /// What is queued since `MULTI`, if it has said that.
    queue: Option<Queue>,
}

impl Talk {
    /// That of a connection that begins: it is yet to be seen who speaks.
    pub fn unproven(id: u64, scripts: Arc<Scripts>, flushing: Flushing) -> Self {
        Self {
            id,
            scripts,
            flushing,
            is_trusted: false,
            protocol: Protocol::default(),
            name: Vec::new(),
            is_renamed: false,
            unknown: None,
            queue: None,
        }
    }

    /// It is known who speaks, or nobody asks.
    pub fn trust(&mut self) {
        self.is_trusted = true;
    }

    /// The name that the connection has given itself, if it is one that can be shown.
    pub fn name(&self) -> &str {
        std::str::from_utf8(&self.name).unwrap_or_default()
    }

    /// Its name, if that is another than was told last.
    pub fn take_new_name(&mut self) -> Option<String> {
        mem::take(&mut self.is_renamed).then(|| self.name().to_owned())
    }

    /// What was said that means nothing here, for the log: on whatever connection, of each the first.
    pub fn take_unknown(&mut self) -> Option<Unknown> {
        self.unknown.take()
    }

    /// So many bytes are kept of a transaction.
    pub fn kept(&self) -> usize {
        let of_step = size_of::<Step>();
        self.queue.as_ref().map_or(0, |queue| queue.bytes + queue.steps.len() * of_step)
    }

    /// Takes one request, at a moment of the wall clock: so long after the beginning of 1970.
    pub fn hear(&mut self, words: &Words, wall: Duration) -> Said {
        let step = if self.is_trusted { self.step(words, wall) } else { self.introduction(words) };
        Said { step, protocol: self.protocol }
    }

    /// Takes one request of somebody who has not said who it is.
    fn introduction(&mut self, words: &Words) -> Step {
        match meaning(words) {
            Ok(Meaning::Own(own @ (Own::Hello | Own::Auth | Own::Quit))) => {
                self.own(own, words, Duration::ZERO)
            }
            Ok(Meaning::Own(Own::Reset)) => self.reset(),
            Ok(_) | Err(_) => Step::Say(Reply::error("NOAUTH Authentication required.")),
        }
    }

    fn step(&mut self, words: &Words, wall: Duration) -> Step {
        let step = match meaning(words) {
            Ok(Meaning::Own(Own::Exec)) => return self.exec(),
            Ok(Meaning::Own(Own::Discard)) => return self.discard(),
            Ok(Meaning::Own(Own::Reset)) => return self.reset(),
            Ok(Meaning::Own(Own::Multi)) => return self.multi(),
            Ok(Meaning::Own(Own::Auth | Own::Hello)) if self.queue.is_some() => {
                // Who speaks, and how it is answered, is not changed in the middle of what is done at once.
                self.spoil();
                return Step::Say(Reply::error("ERR AUTH and HELLO are not allowed within MULTI"));
            }
            Ok(Meaning::Own(own)) => self.own(own, words, wall),
            Ok(Meaning::Deed(Deed::Watch(_))) if self.queue.is_some() => {
                return Step::Say(Reply::error("ERR WATCH inside MULTI is not allowed"));
            }
            Ok(Meaning::Deed(deed)) => Step::Do(deed),
            Ok(Meaning::Eval(by_what)) => self.eval(by_what, words),
            Err(no) => {
                self.note_unknown_command(words);
                self.spoil();
                return Step::Say(no);
            }
        };
        self.queued(step, words.bytes())
    }

    /// Nothing of a transaction is done any more.
    fn spoil(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.is_spoilt = true;
        }
    }

    /// Has it done now, or puts it into the queue.
    fn queued(&mut self, step: Step, bytes: usize) -> Step {
        let Some(queue) = &mut self.queue else { return step };
        if matches!(step, Step::Leave(_)) {
            return step;
        }
        queue.bytes += bytes;
        if queue.steps.len() >= QUEUED_MAX || queue.bytes > QUEUED_BYTES_MAX {
            queue.is_spoilt = true;
            return Step::Say(Reply::error(format!(
                "ERR a transaction has at most {QUEUED_MAX} commands and {QUEUED_BYTES_MAX} bytes"
            )));
        }
        queue.steps.push(step);
        Step::Say(Reply::Simple("QUEUED"))
    }

    fn multi(&mut self) -> Step {
        if self.queue.is_some() {
            return Step::Say(Reply::error("ERR MULTI calls can not be nested"));
        }
        self.queue = Some(Queue::default());
        Step::Say(Reply::OK)
    }

    fn exec(&mut self) -> Step {
        match self.queue.take() {
            None => Step::Say(Reply::error("ERR EXEC without MULTI")),
            Some(queue) if queue.is_spoilt => {
                let why = "EXECABORT Transaction discarded because of previous errors.";
                Step::Forget(Reply::error(why))
            }
            Some(queue) => Step::Together(queue.steps),
        }
    }

    fn discard(&mut self) -> Step {
        match self.queue.take() {
            None => Step::Say(Reply::error("ERR DISCARD without MULTI")),
            Some(_) => Step::Forget(Reply::OK),
        }
    }

    fn reset(&mut self) -> Step {
        (self.protocol, self.queue, self.is_renamed) = (Protocol::default(), None, true);
        self.name.clear();
        Step::Forget(Reply::Simple("RESET"))
    }

    fn eval(&mut self, by_what: ByWhat, words: &Words) -> Step {
        let Some(named) = words.get(1) else {
            return Step::Say(Reply::error("ERR wrong number of arguments for 'eval' command"));
        };
        let (hash, script) = match by_what {
            ByWhat::Text => {
                let (hash, script) = self.scripts.load(named);
                (to_hex(&hash), script)
            }
            ByWhat::Hash => {
                let Some(script) = self.scripts.find(named) else {
                    let no = "NOSCRIPT No matching script. Please use EVAL.";
                    return Step::Say(Reply::error(no));
                };
                (String::new(), Some(script))
            }
        };
        let Some(script) = script else { return Step::Say(self.refuse_script(named, &hash)) };
        match script_call(words) {
            Ok((keys, arguments)) => {
                Step::Do(Deed::Script(Box::new(ScriptCall { script, keys, arguments })))
            }
            Err(no) => Step::Say(no),
        }
    }

    /// `SCRIPT LOAD text`, `SCRIPT EXISTS hash…`, `SCRIPT FLUSH`.
    fn script(&mut self, words: &Words) -> Reply {
        let what = words.get(1).unwrap_or_default().to_ascii_uppercase();
        match (&*what, words.get(2)) {
            (b"LOAD", Some(text)) if words.len() == 3 => match known(text) {
                Some(_) => Reply::text(to_hex(&self.scripts.load(text).0)),
                None => self.refuse_script(text, &to_hex(&sha1(text))),
            },
            (b"EXISTS", Some(_)) => {
                let exists = |hash| Reply::Integer(self.scripts.find(hash).is_some().into());
                Reply::Array(words.from(2).map(exists).collect())
            }
            (b"FLUSH", _) => {
                self.scripts.flush();
                Reply::OK
            }
            _ => Reply::error("ERR SCRIPT has LOAD, EXISTS and FLUSH here"),
        }
    }

    /// That nothing here runs Lua.
    fn refuse_script(&mut self, text: &[u8], hash: &str) -> Reply {
        if self.scripts.is_new_script(&sha1(text)) {
            let start = text.get(..SHOWN_BYTES_MAX).unwrap_or(text).escape_ascii().to_string();
            self.unknown = Some(Unknown::Script { hash: hash.to_owned(), start });
        }
        Reply::error(format!(
            "ERR a lock service knows the scripts of lock libraries only, not {hash}; see docs/redis.md"
        ))
    }

    fn note_unknown_command(&mut self, words: &Words) {
        let Some(command) = command_unknown(words) else { return };
        if self.scripts.is_new_command(&command) {
            self.unknown = Some(Unknown::Command(command));
        }
    }
}
