//! Watches: a lock as it is now, and after every change.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt};
use tokio::sync::{oneshot, watch};

use crate::wire::{Holder, LockStatus, Mode, ServerMessage};

use super::observe::{Observations, Source};
use crate::client::error::Error;
use crate::client::process::Own;
use crate::client::shared::{Interest, NewLook, News, Shared};
use crate::client::within::within;
use crate::types::{FencingToken, RequestId, SessionId};

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

/// Watches one lock; made by [`Client::watch`](crate::Client::watch) or
/// [`Observer::watch`](crate::Observer::watch).
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
    /// States of the lock, as seen.
    states: Observations<LockState>,
}

impl Watch {
    /// Watches the lock `name` over the connection of `shared`.
    pub(in crate::client) async fn begin(
        shared: &Arc<Shared>,
        name: String,
    ) -> Result<Self, Error> {
        let (reply, begun) = oneshot::channel();
        let begun = shared.begin_look(NewLook::Watch { name, seen: reply }, begun);
        let (look, seen) = begun.await?;
        let interest = Interest { look, shared: Arc::clone(shared) };
        let mut watcher = Watcher { seen: Own::new(seen), told: None, interest };
        // The first state is waited for, and left to be told.
        let first = async {
            watcher.seen.changed().await.map_err(|_| shared.end())?;
            watcher.seen.mark_changed();
            Ok(())
        };
        within(shared.answer_max, &shared.server, first).await?;
        let refused = match &*watcher.seen.borrow() {
            Some(News::Over(error)) => Some(error.clone()),
            Some(News::Seen(_) | News::Interrupted(_)) | None => None,
        };
        match refused {
            Some(error) => Err(error),
            None => Ok(Self { states: Observations::of(watcher) }),
        }
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
    /// How the lock is.
    seen: Own<watch::Receiver<Option<News>>>,
    /// Holders of the lock when it was told last, if it was.
    told: Option<Holders>,
    /// Has it shown. Dropped after that in which it is seen.
    interest: Interest,
}

impl Watcher {
    /// How the lock is, when it is another state than was seen last.
    async fn next_news(&mut self) -> Result<LockState, Error> {
        let shared = &self.interest.shared;
        self.seen.changed().await.map_err(|_| shared.end())?;
        let news = self.seen.borrow_and_update().clone();
        match news {
            Some(News::Seen(message)) => news_of(*message, shared),
            Some(News::Interrupted(error) | News::Over(error)) => Err(error),
            None => Err(shared.end()),
        }
    }
}

impl Source for Watcher {
    type Seen = LockState;

    async fn look(&mut self) -> Result<LockState, Error> {
        loop {
            let state = self.next_news().await?;
            let holders = Holders::of(&state);
            // It is shown again over each connection.
            if !self.told.as_ref().is_some_and(|told| told.are_certainly(&holders)) {
                self.told = Some(holders);
                return Ok(state);
            }
        }
    }
}

/// What `message` says about the lock.
fn news_of(message: ServerMessage, shared: &Shared) -> Result<LockState, Error> {
    match message {
        ServerMessage::LockStatus { mut locks, .. } => {
            Ok(locks.pop().map_or(LockState::Free, LockState::InUse))
        }
        other => Err(shared.out_of_place(&other)),
    }
}

/// Who held a lock.
#[derive(Debug, PartialEq, Eq)]
struct Holders {
    /// By session, request, token and mode, the first few.
    listed: Vec<(SessionId, RequestId, FencingToken, Mode)>,
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
