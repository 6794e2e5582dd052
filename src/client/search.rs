//! The search for the server that welcomes a new client.
//!
//! Each server is tried, in their order. One that does not lead names the one that does, and that is tried
//! at once. When all have failed, that is the answer. But if one of them is a member of a cluster, a
//! leader may come: then they are tried again, after a pause, as long as there is time.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::time::Duration;

use crate::types::lease::PAUSE_MIN;
use crate::types::{GoodbyeCode, ServerAddress};

use super::driver::{Connector, Dial, Whither};
use super::error::{EachFailed, Error, cause};
use super::no_leader::NoLeader;
use super::servers::{SERVERS_MAX, Servers};

/// So many hints are followed in a row, without a pause: two members may name each other.
const HINTS_AT_ONCE_MAX: u32 = 3;
/// The longest pause between two rounds: a leader is there within a few seconds.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// What to do after an attempt that failed.
pub(super) enum Next {
    /// Another attempt.
    Try,
    /// Another one, so much later.
    TryAfter(Duration),
    /// Nothing: this is why.
    GiveUp(Error),
}

/// The search.
pub(super) struct Search {
    /// Makes the connections, and goes on doing so once one is welcome.
    pub(super) dial: Dial,
    /// The servers that were named.
    servers: Servers,
    /// How long it may take.
    timeout: Duration,
    /// Attempts of this round that are left, this one included.
    left: usize,
    /// Where the leader is said to be; for the next attempt.
    hint: Option<ServerAddress>,
    /// Hints that were followed since the last pause.
    followed: u32,
    /// Rounds that have failed.
    rounds: u32,
    /// Whether the latest attempt reached a server.
    is_connected: bool,
    /// Whether that is over, with what was heard of it.
    has_spoken: bool,
    /// Whether one of them does not lead, so that another may.
    is_cluster: bool,
    /// What was heard of each last, while somebody answers.
    said: Vec<(String, String)>,
    /// Why nobody answered, if nobody did.
    nobody: Option<Error>,
}

impl Search {
    pub(super) fn new(servers: &Servers, timeout: Duration) -> Self {
        Self {
            dial: Dial::new(servers.clone()),
            servers: servers.clone(),
            timeout,
            left: servers.len(),
            hint: None,
            followed: 0,
            rounds: 0,
            is_connected: false,
            has_spoken: false,
            is_cluster: false,
            said: Vec::new(),
            nobody: None,
        }
    }

    /// Whether it goes on when an attempt has failed so. Of several servers, one that does not follow the protocol
    /// keeps nobody from the others.
    pub(super) fn goes_on_after(&self, error: &Error) -> bool {
        let is_one_of_several = self.servers.len() > 1 || self.is_cluster;
        error.is_retryable() || (is_one_of_several && matches!(error, Error::Protocol { .. }))
    }

    /// How long the next attempt may take. The last one of all has all the time that is left.
    pub(super) fn share(&self) -> Duration {
        if self.left <= 1 && !self.is_cluster {
            return self.timeout;
        }
        self.timeout / u32::try_from(self.servers.len()).unwrap_or(u32::MAX).max(1)
    }

    /// Connects to the first that answers.
    pub(super) async fn connect(&mut self) -> io::Result<<Dial as Connector>::Io> {
        (self.is_connected, self.has_spoken) = (false, false);
        let hint = self.hint.take();
        let whither = hint.as_ref().map_or(Whither::Back, Whither::To);
        let stream = self.dial.connect(whither).await?;
        self.is_connected = true;
        Ok(stream)
    }

    /// An attempt has failed, and another may succeed.
    pub(super) fn after(&mut self, error: Error) -> Next {
        self.has_spoken = true;
        match &error {
            Error::Dismissed { code: GoodbyeCode::NotLeader, message, .. } => {
                self.is_cluster = true;
                self.hint = ServerAddress::new(message).ok();
                self.note(&NoLeader::here(None, message).to_string());
                if self.hint.is_some() && self.followed < HINTS_AT_ONCE_MAX {
                    self.followed += 1;
                    return Next::Try;
                }
            }
            error if self.is_connected && error.is_timeout() => self.note_silence(),
            Error::Unavailable { source, .. } if self.is_connected => self.note(&cause(source)),
            Error::Protocol { message, .. } if self.is_connected => {
                self.note(&format!("does not follow the protocol: {message}"));
            }
            error if self.is_connected => self.note(&error.to_string()),
            error => {
                self.said.clear();
                self.nobody = Some(error.clone());
            }
        }
        self.left = self.left.saturating_sub(1);
        if self.left > 0 {
            return Next::Try;
        }
        if !self.is_cluster {
            return Next::GiveUp(error);
        }
        self.left = self.servers.len();
        self.followed = 0;
        let pause = PAUSE_MIN.saturating_mul(1 << self.rounds.min(16)).min(PAUSE_MAX);
        self.rounds += 1;
        // Not all clients come at once.
        let part = u32::try_from(another_seed() % 1_000).unwrap_or(0);
        Next::TryAfter(pause / 2 + pause / 2 * part / 1_000)
    }

    /// The server that was reached said this; others may not have answered.
    fn note(&mut self, what: &str) {
        let peer = self.dial.peer().unwrap_or_else(|| self.servers.name().to_string());
        let failed = self.dial.failed();
        for (server, what) in failed.into_iter().chain([(peer, what.to_owned())]) {
            self.said.retain(|(known, _)| *known != server);
            self.said.push((server, what));
        }
        let too_many = self.said.len().saturating_sub(SERVERS_MAX);
        self.said.drain(..too_many);
    }

    /// The server that was reached said nothing. What it has said a moment ago tells more than that.
    fn note_silence(&mut self) {
        let peer = self.dial.peer();
        if !self.said.iter().any(|(known, _)| Some(known) == peer.as_ref()) {
            self.note("connected, but not welcomed");
        }
    }

    /// The time is over: what was wrong.
    pub(super) fn timed_out(mut self, error: Error) -> Error {
        let is_one_of_several = self.servers.len() > 1;
        if self.is_connected && is_one_of_several && !self.has_spoken {
            self.note_silence();
        }
        let server = self.servers.name();
        let said = self.said.iter().map(|(server, what)| format!("{server}: {what}"));
        let said: Vec<String> = said.collect();
        let timed_out = io::ErrorKind::TimedOut;
        if self.is_cluster && !said.is_empty() {
            return Error::unavailable(server, io::Error::new(timed_out, NoLeader::of(&said)));
        }
        if is_one_of_several && !said.is_empty() {
            return Error::unavailable(server, io::Error::new(timed_out, EachFailed::of(&said)));
        }
        if self.is_connected {
            let why = Unwelcomed { timeout: self.timeout };
            return Error::unavailable(server, io::Error::new(timed_out, why));
        }
        self.nobody.filter(|_| self.is_cluster).unwrap_or(error)
    }
}

/// A number that the operating system chose, once per thread, and another each time.
pub(super) fn another_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A server accepted the connection, and did not welcome the client in time. It cannot save its
/// state, is overloaded or stopped, or is no coordinator.
///
/// This is what the source of [`Error::Unavailable`] holds then:
///
/// ```
/// # fn is_there(source: &std::io::Error) -> bool {
/// source.get_ref().is_some_and(|why| why.is::<coordinator::Unwelcomed>())
/// # }
/// ```
#[derive(Debug)]
pub struct Unwelcomed {
    /// How long the client waited.
    timeout: Duration,
}

impl fmt::Display for Unwelcomed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connected, but not welcomed within {:?}", self.timeout)
    }
}

impl std::error::Error for Unwelcomed {}
