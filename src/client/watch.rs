//! Watches: a lock as it is now, and after every change.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::time::{self, Instant};

use crate::types::Ttl;
use crate::wire::{ClientMessage, Holder, LockStatus, Mode, ServerMessage};

use super::core::Backoff;
use super::error::Error;
use super::line::Line;
use super::observe::{Observations, Source};
use super::servers::Servers;

/// How a watched lock was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockState {
    /// Nobody holds it or waits for it.
    Free,
    /// Somebody holds it or waits for it.
    InUse(LockStatus),
}

impl LockState {
    /// The holders and waiters of the lock; `None` if there are none.
    pub fn in_use(self) -> Option<LockStatus> {
        match self {
            Self::Free => None,
            Self::InUse(lock) => Some(lock),
        }
    }
}

/// Watches one lock, over a connection of its own; made by [`Client::watch`](super::Client::watch) or
/// [`Observer::watch`](super::Observer::watch).
///
/// A stream of observations. The first is the lock as it is. Every further one follows a change of
/// its holders: one came or went, or changed its mode. Waiters are told as well, but are no news by
/// themselves. Changes that come faster than they are looked at are told as one; the latest always
/// comes. An error is the last item, and `None` comes only after it.
///
/// If the connection is lost, it is made again, after pauses that grow to a few seconds, for as long as
/// it takes. Meanwhile nothing is told, and what was told last may have ceased to be so. Nobody learns
/// from a watch that *it* holds a lock: only a guard tells that.
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: coordinator::Client) -> Result<(), coordinator::Error> {
/// use coordinator::LockState;
///
/// let mut printer = client.watch("printer").await?;
/// while let Some(state) = printer.next().await {
///     match state? {
///         LockState::InUse(lock) => println!("{} hold it", lock.holder_count),
///         LockState::Free => println!("the printer is free"),
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Watch {
    /// What is seen of the lock.
    states: Observations<LockState>,
}

impl Watch {
    /// Watches the lock `name` over `line`.
    pub(super) async fn begin(line: Line, name: String) -> Result<Self, Error> {
        Ok(Self { states: Observations::of(Watcher::begin(line, name).await?) })
    }

    /// The lock as it is now, then as it is whenever its holders have changed.
    ///
    /// `None` only after an error, which is the last item. It is [`Error::Rejected`] or
    /// [`Error::Protocol`] if the coordinator cannot do this (any more), and [`Error::Forked`] in a
    /// forked process. A coordinator that cannot be reached is no error: then this waits.
    ///
    /// # Cancel safety
    ///
    /// Nothing is missed if this is dropped before it is done.
    pub async fn next(&mut self) -> Option<Result<LockState, Error>> {
        self.states.next().await
    }
}

impl Stream for Watch {
    type Item = Result<LockState, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.states.poll_next_unpin(context)
    }
}

/// What a watch does between two observations.
#[derive(Debug)]
struct Watcher {
    /// The connection; none while there is none.
    line: Option<Line>,
    /// The lock.
    name: String,
    /// What is to be told next, if it was heard already.
    untold: Option<LockState>,
    /// Who held the lock when it was told last, if it was.
    told: Option<Holders>,
    /// How long to wait before the next attempt to connect.
    backoff: Backoff,
    /// When that is made, while there is no connection.
    retry_at: Instant,
    /// Since when there is the connection, while there is one.
    connected: Instant,
    /// Which servers.
    servers: Servers,
    /// How long connecting may take, and the first answer.
    timeout: Duration,
}

impl Watcher {
    async fn begin(line: Line, name: String) -> Result<Self, Error> {
        let (servers, timeout) = (line.servers().clone(), line.timeout());
        let mut watch = Self {
            line: None,
            name,
            untold: None,
            told: None,
            // Seeded by the operating system, once per thread, and another each time.
            backoff: Backoff::new(RandomState::new().build_hasher().finish()),
            retry_at: Instant::now(),
            connected: Instant::now(),
            servers,
            timeout,
        };
        watch.begin_over(line).await?;
        Ok(watch)
    }

    /// Waits until there is something to tell, or there is no connection.
    async fn wait_for_news(&mut self) -> Result<(), Error> {
        let Some(line) = &mut self.line else {
            time::sleep_until(self.retry_at).await;
            let line = Line::connect(&self.servers, self.timeout).await?;
            return self.begin_over(line).await;
        };
        let mut heard = line.listen().await?;
        // Of what came together, the last is how it is.
        while let Some(later) = line.next_if(|m| matches!(m, ServerMessage::LockStatus { .. })) {
            heard = later;
        }
        self.untold = Some(news(line, heard)?);
        Ok(())
    }

    /// Watches over another connection. What was told already is not told again.
    async fn begin_over(&mut self, mut line: Line) -> Result<(), Error> {
        let name = self.name.clone();
        let first = line.ask(|query_id| ClientMessage::Watch { query_id, name }).await?;
        let news = news(&line, first)?;
        let holders = Holders::of(&news);
        let is_told = self.told.as_ref().is_some_and(|told| told.are_certainly(&holders));
        self.untold = (!is_told).then_some(news);
        (self.line, self.connected) = (Some(line), Instant::now());
        Ok(())
    }
}

impl Source for Watcher {
    type Seen = LockState;

    async fn look(&mut self) -> Result<LockState, Error> {
        loop {
            if let Some(state) = self.untold.take() {
                self.told = Some(Holders::of(&state));
                return Ok(state);
            }
            if let Err(error) = self.wait_for_news().await {
                if !error.is_retryable() {
                    return Err(error);
                }
                // One that begins and is cut at once does not begin again at once.
                if self.line.take().is_some() && self.connected.elapsed() > self.timeout {
                    self.backoff.reward();
                }
                self.retry_at = Instant::now() + self.backoff.pause(Ttl::default().length());
            }
        }
    }
}

/// What `message` says about the lock.
fn news(line: &Line, message: ServerMessage) -> Result<LockState, Error> {
    match message {
        ServerMessage::LockStatus { mut locks, .. } => {
            Ok(locks.pop().map_or(LockState::Free, LockState::InUse))
        }
        other => Err(line.out_of_place(&other)),
    }
}

/// Who held a lock.
#[derive(Debug, PartialEq, Eq)]
struct Holders {
    /// By session, request, token and mode, the first few.
    listed: Vec<(u128, u64, u64, Mode)>,
    /// How many there were.
    count: u64,
}

impl Holders {
    fn of(state: &LockState) -> Self {
        let LockState::InUse(lock) = state else { return Self { listed: Vec::new(), count: 0 } };
        let key = |holder: &Holder| (holder.session, holder.request, holder.token, holder.mode);
        Self { listed: lock.holders.iter().map(key).collect(), count: lock.holder_count }
    }

    /// Whether these are the others, and hold the lock as they did. Of those who are not listed that
    /// is not known.
    fn are_certainly(&self, others: &Self) -> bool {
        self.count == self.listed.len() as u64 && self == others
    }
}
