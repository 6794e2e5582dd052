//! Error messages: what happened, who, what next; and the exit codes.
//!
//! The codes are those of `sysexits.h` where it has one, and those of the shell for the end of a
//! command. None is from flock(1): its 1 cannot be told from the command's own.

use std::fmt::Display;
use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use coordinator::tls::TlsError;
use coordinator::types::{GoodbyeCode, LostReason, RejectionCode};
use coordinator::wire::{Cycle, CycleLink, Holder, LockStatus, Mode};
use coordinator::{EachFailed, Error, LockGuard, NoLeader, Unwelcomed};

use super::outlook::{self, Prospect};
use super::output;
use super::visible::{Escaper, escaped, quoted};
use super::words;

/// Exit codes.
pub(crate) mod exit {
    /// There was nothing to do it to.
    pub(crate) const NO_SUCH_THING: u8 = 1;
    /// The user's mistake.
    pub(crate) const USAGE: u8 = 2;
    /// No coordinator answers: `EX_UNAVAILABLE`.
    pub(crate) const NO_SERVER: u8 = 69;
    /// The lock was lost and the command stopped, or this program is at fault: `EX_SOFTWARE`.
    pub(crate) const LOST: u8 = 70;
    /// What was asked for could not be written down: `EX_IOERR`.
    pub(crate) const NOT_WRITTEN: u8 = 74;
    /// The lock is busy, or did not come in time; `serve`: what is in the way of the start may pass: `EX_TEMPFAIL`.
    pub(crate) const BUSY: u8 = 75;
    /// The other side speaks something else: `EX_PROTOCOL`.
    pub(crate) const PROTOCOL: u8 = 76;
    /// Whoever asks has not proven who it is, or may not do what it asks: `EX_NOPERM`.
    pub(crate) const DENIED: u8 = 77;
    /// The command is there but cannot be run, as in a shell.
    pub(crate) const CANNOT_RUN: u8 = 126;
    /// There is no such command, as in a shell.
    pub(crate) const NO_SUCH_COMMAND: u8 = 127;
    /// Added to the number of the signal that ended the command, as in a shell.
    pub(crate) const SIGNAL_BASE: u8 = 128;
}

/// Most holders that an error names.
const HOLDERS_NAMED_MAX: usize = 3;
/// Most of those who would wait for each other that an error names.
const LINKS_NAMED_MAX: usize = 8;

/// Why a command ends otherwise than it was meant to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: u8,
    /// What happened: lower case, no full stop, naming the thing.
    what: String,
    /// Who and how long, a line each.
    facts: Vec<String>,
    /// What to do next.
    hint: Option<String>,
}

impl Failure {
    /// A failure of which nothing more is known.
    pub(crate) fn new(exit: u8, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), facts: Vec::new(), hint: None }
    }

    /// The user's mistake.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(exit::USAGE, what)
    }

    /// The operating system would not do what this program needs.
    pub(crate) fn ours(what: &str, error: &io::Error) -> Self {
        Self::new(exit::LOST, format!("{what} ({})", reason(error)))
    }

    /// The same with advice.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same with what is known about it, a line each.
    pub(crate) fn with_facts(self, facts: Vec<String>) -> Self {
        Self { facts, ..self }
    }

    /// The same with the lock's holders and queue.
    fn facts_of(self, lock: &LockStatus, prospect: &Prospect) -> Self {
        Self { facts: facts(lock, prospect), ..self }
    }

    /// Whether it is that a command could not be started.
    pub(crate) fn is_of_the_start(&self) -> bool {
        [exit::CANNOT_RUN, exit::NO_SUCH_COMMAND].contains(&self.exit)
    }

    /// Tells the user, and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        self.report_by(|text| output::tell(text.trim_end()))
    }

    /// The same by `tell`, which gets coloured lines, each with its end.
    pub(crate) fn report_by(&self, tell: impl FnOnce(&str)) -> ExitCode {
        let error = AnsiColor::Red.on_default().bold();
        let hint = AnsiColor::Cyan.on_default().bold();
        tell(&self.text(error, hint));
        ExitCode::from(self.exit)
    }

    /// What happened, what is known about it, and what to do.
    pub(crate) fn parts(&self) -> (&str, &[String], Option<&str>) {
        (&self.what, &self.facts, self.hint.as_deref())
    }

    /// What happened and what to do, in one line.
    pub(crate) fn in_one_line(&self) -> String {
        let facts = self.facts.iter().map(String::as_str);
        let all: Vec<&str> = std::iter::once(self.what.as_str()).chain(facts).collect();
        match &self.hint {
            Some(hint) => format!("{} ({hint})", all.join(": ")),
            None => all.join(": "),
        }
    }

    /// The text without colours.
    #[cfg(test)]
    pub(crate) fn plain(&self) -> String {
        self.text(Style::new(), Style::new())
    }

    fn text(&self, error: Style, hint: Style) -> String {
        // Much of it was said by others: by the coordinator, by whoever answers in its place.
        let mut text = format!("{error}error:{error:#} {}\n", escaped(&self.what));
        for fact in &self.facts {
            let _infallible = writeln!(text, "  {}", escaped(fact));
        }
        if let Some(advice) = &self.hint {
            let _infallible = writeln!(text, "  {hint}hint:{hint:#} {}", escaped(advice));
        }
        text
    }
}

/// What was being done when the client library said no.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attempt<'a> {
    /// Where the coordinator should be.
    pub(crate) server: &'a str,
    /// The lock that was wanted, if one was.
    pub(crate) lock: &'a str,
    /// The command that asks, if it is not `lock`.
    pub(crate) verb: Option<&'a str>,
    /// What follows the lock's name in the advice to wait.
    pub(crate) command: &'a str,
    /// The exit code for a busy lock.
    pub(crate) busy: u8,
    /// How long the whole was to take at most, if that was said.
    pub(crate) within: Option<Duration>,
    /// How the lock was wanted, if one was.
    pub(crate) mode: Option<Mode>,
}

impl Attempt<'_> {
    /// The failure that `error` is.
    pub(crate) fn failed(&self, error: &Error) -> Failure {
        self.failed_until(error, &Prospect::default())
    }

    /// The same; of a lock that is busy it may be known until when.
    pub(crate) fn failed_until(&self, error: &Error, prospect: &Prospect) -> Failure {
        let lock = self.lock;
        match error {
            Error::Busy { lock: status } => {
                let what = format!("{} is busy{}", quoted(&status.name), self.other_size(status));
                Failure::new(self.busy, what).facts_of(status, prospect).hint(format!(
                    "wait for it with `coordinator {} -w {} {}{}`",
                    self.verb.unwrap_or("lock"),
                    outlook::wait_worth(prospect.lock.as_ref()),
                    shell_word(lock),
                    self.command
                ))
            }
            Error::TimedOut { lock: status, timeout, .. } => {
                let within = words::length(self.within.unwrap_or(*timeout));
                let name = &status.name;
                let (shown, why) = (quoted(name), self.other_size(status));
                Failure::new(self.busy, format!("{shown} did not become free within {within}{why}"))
                    .facts_of(status, prospect)
                    .hint(format!(
                        "see who is in line with `coordinator status {}`",
                        shell_word(name)
                    ))
            }
            Error::Lost { reason, .. } => {
                let why = lost(*reason, LastAnswer::Unknown);
                Failure::new(exit::LOST, format!("lost {}: {why}", quoted(lock)))
            }
            Error::Deadlock { cycle } => {
                let lock = quoted(lock);
                let what = format!("waiting for {lock} would deadlock: each waits for the next");
                let facts = circle(cycle);
                Failure { facts, ..Failure::new(self.busy, what) }
                    .hint("one of them has to release what it holds; then retry")
            }
            Error::Rejected { code, message } => self.rejected(*code, message),
            Error::Draining { .. } => Failure::new(
                exit::NO_SERVER,
                format!("the coordinator at {} is shutting down", self.server),
            )
            .hint("retry when it is back"),
            Error::Unavailable { server, source } => no_server(server, source),
            Error::InvalidRequest { message } => Failure::usage(message.as_str()),
            Error::Dismissed { server, message, code: GoodbyeCode::TooManyConnections } => {
                let what =
                    format!("the coordinator at {server} has too many connections: {message}");
                Failure::new(exit::NO_SERVER, what).hint(
                    "retry later; its operator can raise --connections-max or \
                    --connections-per-address-max",
                )
            }
            Error::Dismissed { server, message, .. } => Failure::new(
                exit::NO_SERVER,
                format!("the coordinator at {server} ended the session: {message}"),
            ),
            Error::Protocol { server, message } => Failure::new(
                exit::PROTOCOL,
                format!("{server} does not follow the protocol of a coordinator: {message}"),
            )
            .hint("check that the address is a coordinator's, and of a compatible version"),
            other => Failure::new(exit::PROTOCOL, other.to_string()),
        }
    }

    /// The failure that `error` is for whoever would have had the lock taken away. Where no answer came, that may be
    /// done all the same, and later than now.
    pub(crate) fn not_revoked(&self, error: &Error) -> Failure {
        let failure = self.failed(error);
        match error {
            Error::Rejected { .. } | Error::InvalidRequest { .. } | Error::Forked => {
                Failure { what: format!("not revoked: {}", failure.what), ..failure }
            }
            _ => {
                let (lock, why) = (quoted(self.lock), failure.what);
                let what = format!("not known whether {lock} was revoked: {why}");
                Failure::new(failure.exit, what).hint(format!(
                    "it may be done all the same, once the coordinator can save its state; `coordinator status {}` shows who holds it",
                    shell_word(self.lock)
                ))
            }
        }
    }

    /// `: in use as a semaphore of 3, and you asked for a semaphore of 5`, if that is so.
    fn other_size(&self, lock: &LockStatus) -> String {
        let (Some(held), Some(asked)) = (lock.holders.first(), self.mode) else {
            return String::new();
        };
        let (now, asked) = (words::used_as(held.mode), words::used_as(asked));
        if now == asked {
            return String::new();
        }
        format!(": in use as {now}, and you asked for {asked}")
    }

    /// The failure that it is not to be answered for so long.
    pub(crate) fn silent(&self, silence: Duration) -> Failure {
        let silence = words::length(silence);
        let what = format!("no answer from the coordinator at {} within {silence}", self.server);
        Failure::new(exit::NO_SERVER, what).hint(
            "the coordinator, or the network to it, is \
            stalled; `coordinator ping` checks both",
        )
    }

    /// The failure that a rejection without a lock's status is.
    fn rejected(&self, code: RejectionCode, message: &str) -> Failure {
        use RejectionCode as Code;
        let lock = self.lock;
        match code {
            Code::NoSuchGrant => Failure::new(exit::NO_SUCH_THING, message)
                .hint(format!("`coordinator status {}` shows who holds it", shell_word(lock))),
            Code::Busy | Code::TimedOut => {
                Failure::new(self.busy, format!("{} is busy", quoted(lock)))
            }
            Code::InvalidLockName
            | Code::InvalidNote
            | Code::InvalidIdentity
            | Code::InvalidTtl
            | Code::InvalidPermits
            | Code::InvalidClaims
            | Code::InvalidLockDelay
            | Code::InvalidAtLeast => Failure::usage(message),
            // Earlier versions say so of what would pass.
            Code::PermitsDiffer => Failure::new(self.busy, message)
                .hint(format!("`coordinator status {}` shows how it is used", shell_word(lock))),
            Code::TooManySessions | Code::TooManyClaims | Code::TooManyWaiters => {
                Failure::new(exit::BUSY, message).hint("retry later")
            }
            Code::TooManyWatches | Code::SlowDown => Failure::new(exit::BUSY, message).hint("retry later"),
            Code::AlreadyHeld | Code::Deadlock => {
                Failure::new(self.busy, message).hint("release what is held, then retry")
            }
            Code::Superseded if self.verb.is_none() => {
                Failure::new(self.busy, format!("{message}; nothing was run"))
            }
            Code::Superseded => Failure::new(self.busy, message),
            // The message says what to do.
            Code::TooManyKept | Code::Grace => Failure::new(exit::BUSY, message),
            Code::Unauthenticated => Failure::new(exit::DENIED, message).hint(
                "show a credential with --credential-file or COORDINATOR_CREDENTIAL, or a certificate with \
                --client-cert; the coordinator's log says more",
            ),
            Code::Forbidden => Failure::new(exit::DENIED, message)
                .hint("the access file says who may do what: `coordinator access may` asks it"),
            Code::Draining | Code::Unavailable => {
                Failure::new(exit::NO_SERVER, message).hint("retry soon")
            }
            _ => {
                Failure::new(exit::PROTOCOL, format!("the coordinator refused: {message} ({code})"))
            }
        }
    }
}

/// Nobody is there, or nobody who answers.
fn no_server(server: &str, source: &io::Error) -> Failure {
    let failed = |what: &str, why: &str, what_next: &str| {
        Failure::new(exit::NO_SERVER, format!("{what} {server} ({why})")).hint(what_next)
    };
    let words = source.get_ref();
    if let Some(unwelcomed) = words.filter(|why| why.is::<Unwelcomed>()) {
        let what_next = "read its log: it may be unable to save its state, or stopped; or another program listens there";
        return failed("no coordinator answers at", &unwelcomed.to_string(), what_next);
    }
    if let Some(nobody) = words.filter(|why| why.is::<NoLeader>()) {
        let what_next = "a change of leader takes seconds: retry; if it lasts, their logs say what they wait for";
        return failed("no coordinator leads at", &nobody.to_string(), what_next);
    }
    // Nobody was asked: a file of ours cannot be used.
    if let Some(ours) = words.filter(|why| why.is::<TlsError>()) {
        let files = "--server-ca, --client-cert and --client-key name files, which are read for each connection";
        return Failure::usage(format!("no connection to {server} was made: {ours}")).hint(files);
    }
    let start =
        "start one with `coordinator serve`, or name another with --server or COORDINATOR_SERVER";
    if let Some(each) = words.filter(|why| why.is::<EachFailed>()) {
        let what_next = if source.kind() == io::ErrorKind::TimedOut {
            "read their logs: members of a cluster may wait for etcd, others may be stopped, or unable to save"
        } else {
            start
        };
        return failed("no coordinator answers at", &each.to_string(), what_next);
    }
    // Whoever speaks TLS does answer.
    if source.kind() == io::ErrorKind::InvalidData {
        let what_next = "--server-ca says whom to trust, --server-name whom to expect, --client-cert and \
            --client-key what to show; the coordinator's log may say more";
        return failed("no secure connection to", &reason(source), what_next);
    }
    failed("no coordinator answers at", &reason(source), start)
}

/// Why the operating system said no, in a few words.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::AddrInUse => "the address is in use".to_owned(),
        // Somebody's words, not the operating system's.
        _ if error.get_ref().is_some() => error.to_string(),
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or(&text).to_lowercase()
        }
    }
}

/// The last answer of the coordinator when a lock was lost.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LastAnswer {
    /// Nobody knows when it came.
    Unknown,
    /// So long ago.
    Ago(Duration),
    /// So lately that the lock would still be held by it: the coordinator itself ended the session.
    Valid,
}

/// Why a lock was lost.
pub(crate) fn lost(reason: LostReason, last: LastAnswer) -> String {
    match (reason, last) {
        (LostReason::Expired, LastAnswer::Ago(silence)) => {
            format!("no answer from the coordinator for {}", words::length(silence))
        }
        (LostReason::Expired, LastAnswer::Valid) => {
            "the coordinator does not know its session any more: was its state lost?".to_owned()
        }
        (LostReason::Expired, LastAnswer::Unknown) => {
            "no answer from the coordinator in time".to_owned()
        }
        (LostReason::Revoked, _) => "an operator revoked it".to_owned(),
        (LostReason::Disconnected, _) => "the connection to the coordinator broke".to_owned(),
        (LostReason::Stopped, _) => "the coordinator stopped".to_owned(),
        (LostReason::Refused, _) => {
            "the coordinator refuses this client now (is what it shows still in the access file?)"
                .to_owned()
        }
        (LostReason::NotReclaimed, _) => {
            "the coordinator crashed, and this client came too late to reclaim it".to_owned()
        }
        (LostReason::Conflict, _) => {
            "the coordinator crashed, and a later holder reclaimed it".to_owned()
        }
        (other, _) => format!("for a reason unknown to this version ({})", display(other)),
    }
}

/// The lock could not be kept; `stopped` says what was done about it.
pub(crate) fn lost_lock(guard: &LockGuard, after: Duration, why: &str, stopped: &str) -> Failure {
    let (names, after) = (words::locks_of(guard), words::length(after));
    let what = format!("lost {names} after {after}: {why}{stopped}");
    let token = guard.token();
    Failure::new(exit::LOST, what).hint(format!(
        "its token was {token}: a resource that compares tokens can refuse its late writes"
    ))
}

fn display(reason: impl Display) -> String {
    reason.to_string()
}

/// Who holds a lock and who waits, a line each.
fn facts(lock: &LockStatus, prospect: &Prospect) -> Vec<String> {
    let outlook = prospect.lock.as_ref();
    let mut facts: Vec<String> = lock.holders.iter().take(HOLDERS_NAMED_MAX).map(held_by).collect();
    let more = lock.holder_count.saturating_sub(facts.len() as u64);
    if more > 0 {
        facts.push(format!("and      {more} more"));
    }
    if facts.is_empty() {
        facts.push(format!("held by  nobody, {}", outlook::why_withheld(prospect)));
        facts.extend(
            outlook
                .and_then(|it| outlook::after_whom(it, "  "))
                .map(|who| format!("before   {who}")),
        );
    } else {
        facts.extend(
            outlook
                .and_then(|it| outlook::free_by(&lock.holders, it))
                .map(|when| format!("free     {when}")),
        );
    }
    if let Some(queue) = queue(lock) {
        facts.push(format!("queue    {queue}"));
    }
    facts
}

/// Who waits for whom, a line each.
fn circle(cycle: &Cycle) -> Vec<String> {
    let line = |link: &CycleLink| {
        let who = words::who(link.identity.as_str(), "");
        let lock = quoted(link.lock.as_str());
        match link.held_with {
            None => format!("{who} waits for {lock}, behind the next in line"),
            Some(token) => format!("{who} waits for {lock}, held by the next with token {token}"),
        }
    };
    let mut lines: Vec<String> = cycle.links.iter().take(LINKS_NAMED_MAX).map(line).collect();
    match cycle.links.len() - lines.len() {
        _ if cycle.is_cut => lines.push("and so on: the cycle is too long to list".to_owned()),
        0 => {}
        more => lines.push(format!("and {more} more")),
    }
    lines
}

fn held_by(holder: &Holder) -> String {
    let mut text = format!(
        "held by  {}  for {}  token {}",
        words::who(&holder.identity, &holder.peer),
        words::millis(holder.held_ms),
        holder.token
    );
    if let Some(mode) = words::mode(holder.mode) {
        let _infallible = write!(text, "  {mode}");
    }
    if !holder.note.is_empty() {
        let _infallible = write!(text, "  note {}", quoted(&holder.note));
    }
    if !holder.connected {
        text.push_str("  [disconnected]");
    }
    text
}

/// How many wait, and how long the first of them has: `2 waiting, longest 3m58s`.
pub(crate) fn queue(lock: &LockStatus) -> Option<String> {
    let longest = lock.waiters.iter().map(|waiter| waiter.waiting_ms).max()?;
    Some(format!("{} waiting, longest {}", lock.waiter_count, words::millis(longest)))
}

/// A word as it can be pasted into a shell.
pub(crate) fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,+@%=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    if escaped(word) == word {
        return format!("'{}'", word.replace('\'', r"'\''"));
    }
    // Pasted as it is seen, and read as it was written: bash, zsh, ksh and others know this form.
    let (mut pasted, mut escaper, mut unused) =
        (String::from("$'"), Escaper::default(), String::new());
    for c in word.chars() {
        let _infallible = match c {
            '\'' | '\\' => write!(pasted, "\\{c}"),
            c if escaper.push(c, &mut unused) => write!(pasted, "{c}"),
            c if c.is_ascii() => write!(pasted, "\\x{:02x}", u32::from(c)),
            c => write!(pasted, "\\U{:08x}", u32::from(c)),
        };
    }
    pasted + "'"
}

#[cfg(test)]
mod tests;
