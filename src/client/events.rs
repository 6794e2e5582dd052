//! The stream of events: everything that happens to requests, as it happens.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt};

use crate::types::{RequestId, SessionId};
use crate::wire::{Claim, ClientMessage, Happening, ServerMessage};

use super::error::Error;
use super::line::Line;
use super::observe::{Observations, Source};

/// One item of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something happened to a request.
    Happened(Happened),
    /// Some of what happened is left out here, because it was not read fast enough.
    Missed {
        /// How much.
        count: u64,
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
    pub identity: String,
    /// The request.
    pub request: RequestId,
    /// The locks it claims.
    pub claims: Vec<Claim>,
    /// The kind of event.
    pub what: Happening,
}

/// A connection that listens, made by [`Observer::events`](super::Observer::events).
///
/// Read it all the time. The coordinator closes a connection that is silent for a minute, and only
/// [`Events::next`] sends its keep-alives.
///
/// Nothing is told twice, and what is not told is counted: who reads too slowly hears of
/// [`Event::Missed`]. The coordinator does not wait for anybody.
///
/// A stream of events. An error, the end of the connection among them, is the last item, and `None`
/// comes only after it. Later events are lost too: listen anew.
#[derive(Debug)]
pub struct Events {
    /// What is heard.
    heard: Observations<Event>,
}

impl Events {
    /// Listens over `line`, to what concerns the lock `name`, or to everything.
    pub(super) async fn subscribe(mut line: Line, name: Option<String>) -> Result<Self, Error> {
        match line.ask(|query_id| ClientMessage::Subscribe { query_id, name }).await? {
            ServerMessage::Subscribed { .. } => Ok(Self { heard: Observations::of(line) }),
            other => Err(line.out_of_place(&other)),
        }
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

impl Source for Line {
    type Seen = Event;

    async fn look(&mut self) -> Result<Event, Error> {
        match self.listen().await? {
            ServerMessage::Event { at_ms, session, identity, request, claims, what } => {
                let (session, request) = (SessionId::new(session), RequestId::new(request));
                Ok(Event::Happened(Happened { at_ms, session, identity, request, claims, what }))
            }
            ServerMessage::Missed { count } => Ok(Event::Missed { count }),
            other => Err(self.out_of_place(&other)),
        }
    }
}
