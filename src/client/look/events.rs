//! The stream of events: everything that happens to requests, as it happens.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::oneshot;

use crate::types::{Claim, Identity, RequestId, SessionId};
use crate::wire::{Happening, ServerMessage};

use super::observe::{Observations, Source};
use crate::client::error::Error;
use crate::client::process::Own;
use crate::client::shared::{Interest, NewLook, News, Shared};
use crate::client::within::within;

/// One item of a listener.
#[derive(Clone, Debug)]
pub enum Event {
    /// Something happened to a request.
    Happened(Happened),
    /// Some of what happened is left out here, because it was not read fast enough.
    Missed {
        /// How much.
        count: u64,
    },
    /// The connection was lost. Until there is another, after which there are events again, nobody counts
    /// what happens.
    Gap {
        /// Why.
        cause: Error,
    },
}

/// One event of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// When, by the coordinator's wall clock, in milliseconds since 1970-01-01 UTC. For people.
    pub at_ms: u64,
    /// The session that made the request.
    pub session: SessionId,
    /// Who that is.
    pub identity: Identity,
    /// The request.
    pub request: RequestId,
    /// The locks it claims.
    pub claims: Vec<Claim>,
    /// The kind of event.
    pub what: Happening,
}

/// Everything that happens to requests, made by [`Observer::events`](crate::Observer::events).
///
/// Nothing is told twice, and what is not told is counted. A reader that is too slow hears of
/// [`Event::Missed`]: 1,024 events are kept for it, and of more the oldest are left out. The
/// coordinator does not wait for anybody.
///
/// If the connection is lost, another is made, after pauses that grow to a few seconds, for as long as it
/// takes. What happens meanwhile is not told: [`Event::Gap`] is.
///
/// A stream of events. An error is the last item, and `None` comes only after it.
#[derive(Debug)]
pub struct Events {
    /// Events that are heard.
    heard: Observations<Event>,
}

impl Events {
    /// Listens over the connection of `shared`, to what concerns the lock `name`, or to everything.
    pub(in crate::client) async fn subscribe(
        shared: &Arc<Shared>,
        name: Option<String>,
    ) -> Result<Self, Error> {
        let (reply, begun) = oneshot::channel();
        let begun = shared.begin_look(NewLook::Listen { name, heard: reply }, begun);
        let (look, heard) = begun.await?;
        let interest = Interest { look, shared: Arc::clone(shared) };
        let mut listener = Listener { heard: Own::new(heard), interest };
        within(shared.answer_max, &shared.server, listener.wait_for_subscription()).await?;
        Ok(Self { heard: Observations::of(listener) })
    }

    /// Waits for the next event, however long that takes.
    ///
    /// `None` only after an error, which is the last item.
    ///
    /// # Cancel safety
    ///
    /// An event that did not come yet when this is dropped is not missed.
    pub async fn next(&mut self) -> Option<Result<Event, Error>> {
        self.heard.next().await
    }
}

impl Stream for Events {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.heard.poll_next_unpin(context)
    }
}

/// What is heard, and through what.
#[derive(Debug)]
struct Listener {
    /// Events that are heard.
    heard: Own<broadcast::Receiver<News>>,
    /// Has it told. Dropped after that by which it is heard.
    interest: Interest,
}

impl Listener {
    /// The next news, or that some were left out.
    async fn next_news(&mut self) -> Result<Result<News, u64>, Error> {
        match self.heard.recv().await {
            Ok(News::Over(error)) => Err(error),
            Ok(news) => Ok(Ok(news)),
            Err(RecvError::Lagged(count)) => Ok(Err(count)),
            Err(RecvError::Closed) => Err(self.interest.shared.end()),
        }
    }

    /// Waits until the server listens.
    async fn wait_for_subscription(&mut self) -> Result<(), Error> {
        match self.next_news().await? {
            Ok(News::Seen(message)) => match *message {
                ServerMessage::Subscribed { .. } => Ok(()),
                other => Err(self.interest.shared.out_of_place(&other)),
            },
            Ok(News::Interrupted(error) | News::Over(error)) => Err(error),
            // The subscription itself among them.
            Err(_missed) => Ok(()),
        }
    }
}

impl Source for Listener {
    type Seen = Event;

    async fn look(&mut self) -> Result<Event, Error> {
        loop {
            let message = match self.next_news().await? {
                Ok(News::Seen(message)) => *message,
                Ok(News::Interrupted(cause)) => return Ok(Event::Gap { cause }),
                Ok(News::Over(error)) => return Err(error),
                Err(count) => return Ok(Event::Missed { count }),
            };
            match message {
                ServerMessage::Event { at_ms, session, identity, request, claims, what } => {
                    let (session, request) = (session, request);
                    let happened = Happened { at_ms, session, identity, request, claims, what };
                    return Ok(Event::Happened(happened));
                }
                ServerMessage::Missed { count } => return Ok(Event::Missed { count }),
                // Over another connection: that there was a gap was told as it began.
                ServerMessage::Subscribed { .. } => {}
                other => return Err(self.interest.shared.out_of_place(&other)),
            }
        }
    }
}
