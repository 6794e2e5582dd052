//! Streams of observations: the one meaning of `next` in [`Watch`](crate::Watch),
//! [`Leaders`](crate::Leaders) and [`Events`](crate::Events), and in their blocking twins.
//!
//! `Some(Ok(observation))` is news, also the news that a lock is free or that nobody leads.
//! `Some(Err(error))` is the last item. `None` is the end, and stays it.
//!
//! Work under way lives in the stream, not in the call that waits for it. So `next` is cancel safe:
//! a call can be dropped at any time, and nothing is missed.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use futures_util::stream::{self, Stream, StreamExt};

use crate::client::error::Error;
use crate::client::process::Process;

/// Where observations come from.
pub(in crate::client) trait Source: Send + 'static {
    /// What is observed.
    type Seen;

    /// Waits for the next observation.
    fn look(&mut self) -> impl Future<Output = Result<Self::Seen, Error>> + Send;
}

/// What is under way, and what comes after it.
type Underway<Seen> = Pin<Box<dyn Stream<Item = Result<Seen, Error>> + Send>>;

/// Observations until the first error.
pub(in crate::client) struct Observations<Seen> {
    /// Them; nothing once they have ended. The mutex is never locked: with it this can be shared
    /// between threads, which what waits within cannot.
    stream: Mutex<Option<Underway<Seen>>>,
    /// Their process: one that forked from it hears nothing.
    process: Process,
}

impl<Seen: Send + 'static> Observations<Seen> {
    /// Of what `source` sees.
    pub(in crate::client) fn of(source: impl Source<Seen = Seen>) -> Self {
        let stream = stream::unfold(source, async |mut source| {
            let seen = source.look().await;
            Some((seen, source))
        });
        Self { stream: Mutex::new(Some(Box::pin(stream))), process: Process::this() }
    }
}

impl<Seen> Stream for Observations<Seen> {
    type Item = Result<Seen, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let is_forked = self.process.is_another();
        let underway = self.stream.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(stream) = underway else { return Poll::Ready(None) };
        if is_forked {
            // Not even closed: the socket is shared with the process that connected.
            mem::forget(underway.take());
            return Poll::Ready(Some(Err(Error::Forked)));
        }
        let seen = ready!(stream.poll_next_unpin(context));
        if !matches!(seen, Some(Ok(_))) {
            *underway = None;
        }
        Poll::Ready(seen)
    }
}

impl<Seen> fmt::Debug for Observations<Seen> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observations").finish_non_exhaustive()
    }
}
