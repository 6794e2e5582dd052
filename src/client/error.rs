//! Errors for users of the client, and their remedies.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::wire::{Cycle, CycleLink, LockStatus};

use super::core::{End, Rejection};
use super::no_leader::NoLeader;
use crate::types::{
    FencingToken, GoodbyeCode, LockName, LostReason, OwnerId, RejectionCode, ServerAddress,
    TextError,
};

/// Of a circle of more than these, not all are told in words.
const LINKS_SHOWN_MAX: usize = 8;
/// How long to leave a coordinator alone that is about to stop. It does not say itself.
pub(super) const DRAINING_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why something that was asked of a coordinator did not happen.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The lock is held, or others wait for it, and the request would not wait.
    #[error("{}; wait for it, or try again later", busy(.lock))]
    Busy {
        /// The lock: who holds it, and who waits.
        lock: Box<LockStatus>,
    },
    /// The request waited as long as it was willing to.
    #[error("gave up after {timeout:?}: {}; wait longer, or try again later", busy(.lock))]
    TimedOut {
        /// The lock: who holds it, and who waits.
        lock: Box<LockStatus>,
        /// How long the request was willing to wait.
        timeout: Duration,
        /// The last place in line that was heard of, 1 for the next; only if the request asked for
        /// its progress.
        position: Option<u64>,
    },
    /// The lock was held and is not any more, without having been released.
    #[error(
        "lost {:?} ({}); its token was {token}: a resource that compares tokens can refuse late \
        writes", name.as_str(),
        lost(*.reason)
    )]
    Lost {
        /// The lock; the first one of a request for several.
        name: LockName,
        /// The token of the grant that is over.
        token: FencingToken,
        /// Why.
        reason: LostReason,
    },
    /// The wait would have lasted for ever: in a cycle of owners, each would have waited for a lock
    /// of the next one. Nobody else in it is told. Release your locks, so that they can go on,
    /// and begin anew. A request for all locks together, with `lock_all`, cannot deadlock.
    #[error("{}; release what you hold and retry, or request all locks at once", deadlock(.cycle))]
    Deadlock {
        /// The wait-for cycle: each link's waiter, and the token of the next one. The first is the
        /// request that was not granted; the last waits for the first. Of a long cycle, the
        /// beginning.
        cycle: Cycle,
    },
    /// The coordinator answered *no*.
    #[error("rejected ({code}): {message}")]
    Rejected {
        /// Why, for programs.
        code: RejectionCode,
        /// Why, for people.
        message: String,
    },
    /// The coordinator is about to stop.
    #[error("the coordinator is shutting down; try again after {retry_after:?}")]
    Draining {
        /// When to try again.
        retry_after: Duration,
    },
    /// There is no connection: the first could not be made, or the last is lost and no other was made
    /// in time.
    #[error("{}", unavailable(.server, .source))]
    Unavailable {
        /// Which server.
        server: Arc<str>,
        /// The code with which the connection ended.
        source: Arc<io::Error>,
    },
    /// The coordinator closed the connection, and the session is over.
    #[error("the coordinator at {server} ended the session ({code}): {message}; connect again")]
    Dismissed {
        /// Which server.
        server: Arc<str>,
        /// Why, for programs.
        code: GoodbyeCode,
        /// Why, for people.
        message: String,
    },
    /// The other side does not speak the protocol, or broke it.
    #[error("{server} does not follow the protocol: {message}; check the address and the versions")]
    Protocol {
        /// Which server.
        server: Arc<str>,
        /// How.
        message: String,
    },
    /// The request cannot be made like this; nothing was sent.
    #[error("{message}")]
    InvalidRequest {
        /// What is wrong with it.
        message: String,
    },
    /// This process has forked from the one that connected. The session is that one's: here nothing can be
    /// asked, and what that one holds is not held here.
    #[error("this process is a fork of the one that connected; connect a new client in it")]
    Forked,
    /// The client was closed with [`Client::close`](super::Client::close).
    #[error("the client was closed; connect a new one")]
    Closed,
}

impl Error {
    /// Whether asking the same again, perhaps later and over a new connection, may succeed.
    ///
    /// A lost lock is not: what was done while it was held has to be looked at first. A deadlock is,
    /// once that is given back for which others wait.
    ///
    /// # Examples
    ///
    /// ```
    /// use coordinator::Error;
    ///
    /// let error = Error::InvalidRequest { message: "lock name: it is empty".to_owned() };
    /// assert!(!error.is_retryable());
    /// ```
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Busy { .. }
            | Self::TimedOut { .. }
            | Self::Deadlock { .. }
            | Self::Draining { .. }
            | Self::Unavailable { .. } => true,
            Self::Rejected { code, .. } => matches!(
                code,
                RejectionCode::TooManySessions
                    | RejectionCode::TooManyClaims
                    | RejectionCode::TooManyWaiters
                    | RejectionCode::PermitsDiffer
                    | RejectionCode::Draining
                    | RejectionCode::Unavailable
                    | RejectionCode::Grace
                    | RejectionCode::SlowDown
                    | RejectionCode::Deadlock
            ),
            Self::Dismissed { code, .. } => !matches!(code, GoodbyeCode::Superseded),
            Self::Lost { .. }
            | Self::Protocol { .. }
            | Self::InvalidRequest { .. }
            | Self::Forked
            | Self::Closed => false,
        }
    }

    /// A request that is wrong by itself: `what` is, because of `why`.
    pub(super) fn invalid(what: &str, why: impl std::fmt::Display) -> Self {
        Self::InvalidRequest { message: format!("{what}: {why}") }
    }

    /// `name` is none, because of `why`.
    pub(super) fn invalid_lock_name(name: &str, why: TextError) -> Self {
        Self::invalid(&format!("invalid lock name {}", shown(name)), why)
    }

    /// Whether it only says that nothing came in time.
    pub(super) fn is_timeout(&self) -> bool {
        matches!(self, Self::Unavailable { source, .. } if source.kind() == io::ErrorKind::TimedOut)
    }

    /// `server` cannot be spoken to, because of `source`.
    pub(super) fn unavailable(server: &Arc<str>, source: io::Error) -> Self {
        Self::Unavailable { server: Arc::clone(server), source: Arc::new(source) }
    }

    /// A *no* that has no meaning of its own here.
    pub(super) fn rejected(rejection: Rejection) -> Self {
        let Rejection { code, message, cycle, .. } = rejection;
        match code {
            RejectionCode::Draining => Self::Draining { retry_after: DRAINING_RETRY_AFTER },
            RejectionCode::Grace => {
                let message = format!("{message}; try again after that, or wait for the lock");
                Self::Rejected { code, message }
            }
            RejectionCode::AlreadyHeld => {
                let message = format!("{message}; use what holds it, or release that first");
                Self::Rejected { code, message }
            }
            RejectionCode::Deadlock if !cycle.links.is_empty() || cycle.is_cut => {
                Self::Deadlock { cycle }
            }
            code => Self::Rejected { code, message },
        }
    }

    /// The end of a session with `server`; `cause` is what its connection ended with. Of several servers,
    /// `peer` is the one that it was with.
    pub(super) fn ended(
        server: &Arc<str>,
        end: &End,
        cause: Option<Arc<io::Error>>,
        peer: Option<&str>,
    ) -> Self {
        match end {
            End::Closed => Self::Closed,
            End::Disconnected => {
                let source = cause.unwrap_or_else(|| Arc::new(closed_by(peer)));
                Self::Unavailable { server: Arc::clone(server), source }
            }
            End::Silent(silence) => {
                let why = format!("no message from {} for {silence:?}", it(peer));
                Self::unavailable(server, io::Error::new(io::ErrorKind::TimedOut, why))
            }
            End::Deposed { epoch } => {
                let why = NoLeader::deposed(peer, *epoch);
                Self::unavailable(server, io::Error::new(io::ErrorKind::ConnectionAborted, why))
            }
            End::Broken(how) => {
                let server = peer.map_or_else(|| Arc::clone(server), Arc::from);
                Self::Protocol { server, message: how.clone() }
            }
            End::Dismissed { code, rejection, message } => {
                Self::dismissed(server, *code, *rejection, message.clone())
            }
        }
    }

    /// There is no connection to `server` because of `trouble`; `cause` is what the last one, or the
    /// attempt to make one, ended with.
    pub(super) fn away(
        server: &Arc<str>,
        trouble: &End,
        cause: Option<Arc<io::Error>>,
        peer: Option<&str>,
    ) -> Self {
        match trouble {
            End::Dismissed { code: GoodbyeCode::NotLeader, message, .. } => {
                let why = NoLeader::here(peer, message);
                Self::unavailable(server, io::Error::new(io::ErrorKind::ConnectionAborted, why))
            }
            End::Dismissed { code: GoodbyeCode::Draining, .. }
            | End::Dismissed { rejection: RejectionCode::Draining, .. } => {
                Self::Draining { retry_after: DRAINING_RETRY_AFTER }
            }
            End::Dismissed { code: code @ GoodbyeCode::TooManyConnections, message, .. } => {
                Self::Dismissed {
                    server: Arc::clone(server),
                    code: *code,
                    message: message.clone(),
                }
            }
            // Of several servers it was one, and another may lead.
            End::Broken(how) => {
                let why = format!("{} does not follow the protocol: {how}", it(peer));
                Self::unavailable(server, io::Error::new(io::ErrorKind::ConnectionAborted, why))
            }
            End::Dismissed { code, message, .. } => {
                let why = format!("{} closed the connection ({code}): {message}", it(peer));
                Self::unavailable(server, io::Error::new(io::ErrorKind::ConnectionAborted, why))
            }
            end => Self::ended(server, end, cause, peer),
        }
    }

    /// The answer of `server` was lost with a connection.
    pub(super) fn forgotten(server: &Arc<str>) -> Self {
        let why = "the connection broke before the answer arrived, and the coordinator no longer \
            remembers the outcome";
        Self::unavailable(server, io::Error::new(io::ErrorKind::ConnectionAborted, why))
    }

    /// The server's goodbye.
    pub(super) fn dismissed(
        server: &Arc<str>,
        code: GoodbyeCode,
        rejection: RejectionCode,
        message: String,
    ) -> Self {
        match code {
            GoodbyeCode::Draining => Self::Draining { retry_after: DRAINING_RETRY_AFTER },
            GoodbyeCode::Refused => Self::rejected(Rejection {
                code: rejection,
                message,
                lock: None,
                cycle: Cycle::default(),
            }),
            GoodbyeCode::ProtocolError | GoodbyeCode::UnsupportedVersion => Self::Protocol {
                server: Arc::clone(server),
                message: format!("it refused the connection ({code}): {message}"),
            },
            // Of anything else than an address nothing is worth telling.
            GoodbyeCode::NotLeader
                if !message.is_empty() && ServerAddress::new(&message).is_err() =>
            {
                let message = "what is no address".to_owned();
                Self::Dismissed { server: Arc::clone(server), code, message }
            }
            code => Self::Dismissed { server: Arc::clone(server), code, message },
        }
    }
}

/// None of several servers can be reached, each for a reason of its own.
///
/// This is what the source of [`Error::Unavailable`] holds then.
#[derive(Debug)]
pub struct EachFailed(String);

impl EachFailed {
    /// What went wrong, by server.
    pub(super) fn of(told: &[String]) -> Self {
        Self(told.join("; "))
    }
}

impl std::fmt::Display for EachFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EachFailed {}

/// How a connection ends when the other side closes it and says nothing.
pub(super) fn closed_by(peer: Option<&str>) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} closed the connection", it(peer)))
}

/// How a server is called behind the name of all of them.
fn it(peer: Option<&str>) -> &str {
    peer.unwrap_or("it")
}

/// Why nothing can be asked of these servers, and what to do.
fn unavailable(server: &str, source: &io::Error) -> String {
    let why = cause(source);
    if source.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<NoLeader>) {
        return format!("no coordinator leads at {server} ({why}); try again in a moment");
    }
    // Whoever speaks TLS does answer.
    if source.kind() == io::ErrorKind::InvalidData {
        return format!("no secure connection to {server} ({why})");
    }
    format!(
        "no coordinator answers at {server} ({why}); start one with `coordinator serve`, or name another"
    )
}

/// Who stands in the way, in a line.
fn busy(lock: &LockStatus) -> String {
    let mut text = format!("{:?} is busy", lock.name);
    let Some(holder) = lock.holders.first() else { return text };
    let held = Duration::from_secs(holder.held_ms / 1_000);
    // Writing to a string cannot fail.
    let _ = write!(text, ", held by {} for {held:?} (token {})", holder.identity, holder.token);
    if !holder.note.is_empty() {
        let _ = write!(text, " {:?}", holder.note);
    }
    match lock.holder_count.saturating_sub(1) {
        0 => {}
        more => {
            let _ = write!(text, " and {more} more");
        }
    }
    if lock.waiter_count > 0 {
        let _ = write!(text, ", {} waiting", lock.waiter_count);
    }
    text
}

/// Who waits for whom, in a line; of many, the first few and the last.
fn deadlock(cycle: &Cycle) -> String {
    let links = &cycle.links;
    let all = links.len() + usize::from(cycle.is_cut);
    let left_out = all.saturating_sub(LINKS_SHOWN_MAX);
    let last = all.saturating_sub(1);
    let mut words = Vec::new();
    for (place, link) in links.iter().enumerate() {
        if (last - left_out..last).contains(&place) {
            continue;
        }
        if place == last && left_out > 0 {
            words.push(format!("{left_out} more wait for the next"));
        }
        let first = links.first().filter(|_| !cycle.is_cut);
        let next = links.get(place + 1).or(first);
        let (who, lock) = (waiter(link), &link.lock);
        let whom = next.map_or_else(|| "another".to_owned(), waiter);
        let waits = if place == 0 { "would wait" } else { "waits" };
        words.push(match link.held_with {
            None => format!("{who} {waits} for {lock:?} in line behind {whom}"),
            Some(token) => format!("{who} {waits} for {lock:?} of {whom}, token {token}"),
        });
    }
    if cycle.is_cut {
        words.push("and so on".to_owned());
    }
    format!("deadlock: {}", words.join("; "))
}

/// One of those who wait for each other: an owner, or a request which is one of its own.
fn waiter(link: &CycleLink) -> String {
    match link.owner {
        OwnerId::NONE => format!("{} (request {})", link.identity, link.request),
        owner => format!("{} (owner {owner})", link.identity),
    }
}

/// A text that may be no name for anything, as it can be printed.
pub(super) fn shown(name: &str) -> String {
    const CHARS_MAX: usize = 40;
    match name.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{:?}…", &name[..end]),
        None => format!("{name:?}"),
    }
}

/// Why a lock was lost, in words.
fn lost(reason: LostReason) -> String {
    match reason {
        LostReason::Expired => {
            "no answer from the coordinator for the length of the lease, or it does not know the session"
                .to_owned()
        }
        LostReason::Revoked => "an operator revoked it".to_owned(),
        LostReason::Disconnected => "the connection ended".to_owned(),
        LostReason::Stopped => "the coordinator stopped".to_owned(),
        LostReason::Forked => "this process is a fork of the one that holds it".to_owned(),
        LostReason::Refused => {
            "the coordinator refuses this client now; the end of the session says why".to_owned()
        }
        other => other.to_string(),
    }
}

/// Why a connection failed, without the number that systems add.
pub(super) fn cause(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(_) if error.kind().to_string() != "uncategorized error" => error.kind().to_string(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Identity, RequestId, SessionId};
    use crate::wire::{Holder, Mode};

    #[test]
    fn busy_names_the_holder_its_note_and_how_many_wait() {
        let holder = Holder {
            owner: OwnerId(0),
            request: RequestId(1),
            session: SessionId(1),
            identity: "ann@build7:8123".parse().unwrap(),
            peer: "10.0.0.7:4".to_owned(),
            mode: Mode::Exclusive,
            token: FencingToken(1881),
            held_ms: 252_900,
            note: "deploy v2.3".parse().unwrap(),
            connected: true,
        };
        let mut lock = LockStatus::unknown("deploy".parse().unwrap());
        lock.holders.push(holder);
        lock.holder_count = 1;
        lock.waiter_count = 2;
        assert_eq!(
            Error::Busy { lock: Box::new(lock) }.to_string(),
            "\"deploy\" is busy, held by ann@build7:8123 for 252s (token 1881) \"deploy v2.3\", \
             2 waiting; wait for it, or try again later"
        );
    }

    #[test]
    fn of_a_long_circle_the_words_tell_the_first_few_and_the_last() {
        let link = |owner| CycleLink {
            session: SessionId(1),
            identity: Identity::new("ann@a:1").unwrap(),
            owner: OwnerId(owner),
            request: RequestId(owner),
            lock: LockName::new(format!("fork/{owner}")).unwrap(),
            held_with: None,
        };
        let told = |count, is_cut| {
            let links = (1..=count).map(link).collect();
            Error::Deadlock { cycle: Cycle { links, is_cut } }.to_string()
        };
        let (whole, cut) = (|count| told(count, false), |count| told(count, true));
        let (eight, fifty, many, few, none) = (whole(8), whole(50), cut(40), cut(2), cut(0));
        assert_eq!(eight.matches(" in line behind ").count(), 8);
        assert_eq!(fifty.matches(" in line behind ").count(), 8);
        for words in [
            "\"fork/7\" in line behind ann@a:1 (owner 8); 42 more wait for the next; ",
            "\"fork/50\" in line behind ann@a:1 (owner 1); release",
        ] {
            assert!(fifty.contains(words), "{fifty}");
        }
        assert!(many.contains(" behind ann@a:1 (owner 8); and so on; release"), "{many}");
        assert!(few.contains("\"fork/2\" in line behind another; and so on; release"), "{few}");
        assert!(none.starts_with("deadlock: and so on; release"), "{none}");
    }

    #[test]
    fn an_unreachable_server_is_named_with_the_cause() {
        let refused = io::Error::from_raw_os_error(111);
        let error = Error::unavailable(&"127.0.0.1:5625".into(), refused);
        assert!(error.is_retryable());
        if cfg!(target_os = "linux") {
            assert!(
                error
                    .to_string()
                    .starts_with("no coordinator answers at 127.0.0.1:5625 (connection refused)")
            );
        }
    }

    #[test]
    fn each_goodbye_has_its_error() {
        let server: Arc<str> = "there".into();
        let error = |code, rejection| Error::dismissed(&server, code, rejection, String::new());
        let none = RejectionCode::NONE;
        assert!(matches!(error(GoodbyeCode::Draining, none), Error::Draining { .. }));
        assert!(matches!(error(GoodbyeCode::ProtocolError, none), Error::Protocol { .. }));
        assert!(matches!(
            error(GoodbyeCode::Refused, RejectionCode::InvalidTtl),
            Error::Rejected { code: RejectionCode::InvalidTtl, .. }
        ));
        assert!(matches!(
            error(GoodbyeCode::Refused, RejectionCode::Draining),
            Error::Draining { .. }
        ));
        assert!(error(GoodbyeCode::SessionExpired, none).is_retryable());
        assert!(!error(GoodbyeCode::Superseded, none).is_retryable());
    }
}
