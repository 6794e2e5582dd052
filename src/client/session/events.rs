//! What becomes of a session and of what it holds, told as it happens.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use futures_util::{Stream, StreamExt};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::client::error::Error;
use crate::client::look::observe::{Observations, Source};
use crate::client::process::Own;
use crate::client::session_event::SessionEvent;
use crate::client::shared::Shared;

/// What becomes of a session, made by [`Client::events`](crate::Client::events).
///
/// A stream of events, to which `None` is the end. It does not keep the session. The client waits for
/// nobody who reads: 256 events are kept, of more the oldest are left out, and
/// [`SessionEvent::Missed`] says how many.
#[derive(Debug)]
pub struct SessionEvents {
    /// Events to be told.
    told: Observations<SessionEvent>,
    /// Whether the end was told.
    has_ended: bool,
}

impl SessionEvents {
    /// What is told through `shared` from now on.
    pub(in crate::client) fn of(shared: &Shared) -> Self {
        let events = match shared.session_events.upgrade() {
            Some(events) => events.subscribe(),
            // Nothing comes any more but the end.
            None => broadcast::channel(1).1,
        };
        let told = Told { events: Own::new(events), end: Arc::clone(&shared.end) };
        Self { told: Observations::of(told), has_ended: false }
    }

    /// Waits for the next event; `None` after the last.
    ///
    /// # Cancel safety
    ///
    /// Nothing is missed if this is dropped before it is done.
    pub async fn next(&mut self) -> Option<SessionEvent> {
        StreamExt::next(self).await
    }
}

impl Stream for SessionEvents {
    type Item = SessionEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let event = match ready!(self.told.poll_next_unpin(context)) {
            Some(Ok(event)) => Some(event),
            Some(Err(_)) if self.has_ended => None,
            Some(Err(cause)) => Some(SessionEvent::Closed { cause }),
            None => None,
        };
        self.has_ended |= matches!(event, Some(SessionEvent::Closed { .. }));
        Poll::Ready(event)
    }
}

/// Where it is told.
#[derive(Debug)]
struct Told {
    /// Events to be told.
    events: Own<broadcast::Receiver<SessionEvent>>,
    /// Why the client is at its end.
    end: Arc<OnceLock<Error>>,
}

impl Source for Told {
    type Seen = SessionEvent;

    async fn look(&mut self) -> Result<SessionEvent, Error> {
        match self.events.recv().await {
            Ok(event) => Ok(event),
            Err(RecvError::Lagged(count)) => Ok(SessionEvent::Missed { count }),
            Err(RecvError::Closed) => Err(self.end.get().cloned().unwrap_or(Error::Closed)),
        }
    }
}
