//! Streams: server-sent events, for as long as their peer reads.
//!
//! One is written by a task of its own, a frame at a time: the next is made when the one before has gone
//! into the socket. So nothing piles up here, and who reads slowly gets the newest state and not all
//! of those in between.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::access::PrincipalName;
use crate::http::caller::{Life, Streaming};
use crate::http::places::{Shares, Taken, most_of};
use crate::http::problem::Problem;
use crate::server::Who;
use crate::types::Origin;

/// Streams at a time.
pub(super) const STREAMS_MAX: usize = 64;
/// How long a peer may take nothing.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How often something is said, if there is nothing to say.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);

/// Where frames go.
pub(super) struct Sink {
    /// To the connection: one frame, besides those in its own buffers.
    frames: mpsc::Sender<Bytes>,
    /// Keeps the connection, and can close it.
    streaming: Arc<Streaming>,
}

/// Nobody reads any more.
#[derive(Debug)]
pub(super) struct Over;

impl Sink {
    /// Says something under a name.
    pub(super) async fn event(&self, name: &str, data: &Value) -> Result<(), Over> {
        // No line of JSON has an end of line in it.
        self.frame(format!("event: {name}\ndata: {data}\n\n")).await
    }

    /// Says something without a name.
    pub(super) async fn data(&self, data: &Value) -> Result<(), Over> {
        self.frame(format!("data: {data}\n\n")).await
    }

    /// Says that the stream is there.
    pub(super) async fn heartbeat(&self) -> Result<(), Over> {
        self.frame(":\n\n".to_owned()).await
    }

    /// Says why the stream ends.
    pub(super) async fn end(&self, problem: &Problem) {
        let _gone = self.event("end", &problem.json()).await;
    }

    async fn frame(&self, frame: String) -> Result<(), Over> {
        match timeout(READ_TIMEOUT, self.frames.send(frame.into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Over),
            Err(_) => {
                self.streaming.cut();
                Err(Over)
            }
        }
    }
}

/// Places for streams. No address has all of them, and no principal has: whoever shows nothing, from however many
/// addresses, keeps nobody out who is somebody.
#[derive(Debug)]
pub(super) struct Streams {
    /// All of them, by principal; none: there are no rules, and all are alike.
    principals: Shares<Option<PrincipalName>>,
    /// The same ones, by address. They are counted above.
    addresses: Shares<(Option<PrincipalName>, Option<Origin>)>,
}

/// A place for a stream, until it is dropped.
pub(super) type Place =
    (Taken<Option<PrincipalName>>, Taken<(Option<PrincipalName>, Option<Origin>)>);

impl Streams {
    pub(super) fn new() -> Self {
        Self { principals: Shares::new(STREAMS_MAX), addresses: Shares::new(STREAMS_MAX) }
    }

    /// A place for somebody from there; none if there is none, or if it has as many as it may.
    pub(super) fn take(&self, who: &Who, from: Option<IpAddr>) -> Option<Place> {
        let (name, its_max) = match who {
            Who::Anybody => (None, STREAMS_MAX),
            Who::Principal(principal) => (Some(principal.name.clone()), most_of(STREAMS_MAX)),
        };
        let origin = from.map(Origin::of);
        let by_address = self.addresses.take((name.clone(), origin), most_of(its_max))?;
        Some((self.principals.take(name, its_max)?, by_address))
    }
}

/// An answer that goes on, as long as `write` writes, and has its place so long.
pub(super) fn answer<P, F, W>(life: &Arc<Life>, place: P, write: F) -> Response
where
    P: Send + Unpin + 'static,
    F: FnOnce(Sink) -> W,
    W: Future<Output = ()> + Send + 'static,
{
    let (frames, taken) = mpsc::channel(1);
    let streaming = Arc::new(life.begin());
    let writing = write(Sink { frames, streaming: Arc::clone(&streaming) });
    tokio::spawn(writing);
    let body = Body::from_stream(Frames { taken, _place: place, _streaming: streaming });
    let kind = HeaderValue::from_static("text/event-stream");
    ([(CONTENT_TYPE, kind)], body).into_response()
}

/// Frames, as the body of an answer.
struct Frames<P> {
    /// From the task that writes.
    taken: mpsc::Receiver<Bytes>,
    /// One of the places for streams.
    _place: P,
    /// Keeps the connection.
    _streaming: Arc<Streaming>,
}

impl<P: Unpin> Stream for Frames<P> {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.taken.poll_recv(task).map(|frame| frame.map(Ok))
    }
}
