//! A lock as it is now, and whenever it changes.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use tokio::time::{self, Instant};

use crate::types::Ttl;
use crate::wire::{ClientMessage, Holder, LockStatus, Mode, ServerMessage};

use super::core::Backoff;
use super::error::Error;
use super::line::Line;
use super::servers::Servers;

/// Watches one lock, over a connection of its own; made by [`Client::watch`](super::Client::watch) or
/// [`Observer::watch`](super::Observer::watch).
///
/// The first [`next`](Self::next) gives the lock as it is, every further one as it is after its
/// holders have changed: one came or went, or holds it otherwise. Who waits is told as well, but is
/// no news by itself. Changes that come faster than they are looked at are told as one; the latest
/// always comes.
///
/// If the connection is lost, it is made again, after pauses that grow to a few seconds, for as long as
/// it takes. Meanwhile nothing is told, and what was told last may have ceased to be so. Nobody learns
/// from a watch that *it* holds a lock: only a guard tells that.
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: coordinator::Client) -> Result<(), coordinator::Error> {
/// let mut printer = client.watch("printer").await?;
/// loop {
///     match printer.next().await?.and_then(|lock| lock.holders.into_iter().next()) {
///         Some(holder) => println!("{} prints {}", holder.identity, holder.note),
///         None => println!("the printer is free"),
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Watch {
    /// The connection; none while there is none.
    line: Option<Line>,
    /// The lock.
    name: String,
    /// What is to be told next, if it was heard already.
    untold: Option<News>,
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

impl Watch {
    /// Watches the lock `name` over `line`.
    pub(super) async fn begin(line: Line, name: String) -> Result<Self, Error> {
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

    /// The lock as it is now, then as it is whenever its holders have changed; `None` if nobody holds
    /// it or waits for it. Nothing is missed if this is dropped before it is done.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] and [`Error::Protocol`] if the coordinator cannot do this (any more). That
    /// it cannot be reached is none: then this waits.
    pub async fn next(&mut self) -> Result<Option<LockStatus>, Error> {
        loop {
            if let Some(News { lock }) = self.untold.take() {
                self.told = Some(Holders::of(lock.as_ref()));
                return Ok(lock);
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
        let holders = Holders::of(news.lock.as_ref());
        let is_told = self.told.as_ref().is_some_and(|told| told.are_certainly(&holders));
        self.untold = (!is_told).then_some(news);
        (self.line, self.connected) = (Some(line), Instant::now());
        Ok(())
    }
}

/// A lock as it is.
#[derive(Debug)]
struct News {
    /// None: nobody holds it or waits for it.
    lock: Option<LockStatus>,
}

/// What `message` says about the lock.
fn news(line: &Line, message: ServerMessage) -> Result<News, Error> {
    match message {
        ServerMessage::LockStatus { mut locks, .. } => Ok(News { lock: locks.pop() }),
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
    fn of(lock: Option<&LockStatus>) -> Self {
        let key = |holder: &Holder| (holder.session, holder.request, holder.token, holder.mode);
        Self {
            listed: lock.map_or_else(Vec::new, |lock| lock.holders.iter().map(key).collect()),
            count: lock.map_or(0, |lock| lock.holder_count),
        }
    }

    /// Whether these are the others, and hold the lock as they did. Of those who are not listed that
    /// is not known.
    fn are_certainly(&self, others: &Self) -> bool {
        self.count == self.listed.len() as u64 && self == others
    }
}
