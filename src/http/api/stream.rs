//! Streams: server-sent events, for as long as their peer reads.
//!
//! One is written by a task of its own, a frame at a time: the next is made when the one before has gone
//! into the socket. So nothing piles up here, and who reads slowly gets the newest state and not all
//! of those in between.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use crate::http::caller::{Life, Streaming};
use crate::http::problem::Problem;

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

/// An answer that goes on, as long as `write` writes.
pub(super) fn answer<F, W>(life: &Arc<Life>, place: OwnedSemaphorePermit, write: F) -> Response
where
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
struct Frames {
    /// From the task that writes.
    taken: mpsc::Receiver<Bytes>,
    /// One of the places for streams.
    _place: OwnedSemaphorePermit,
    /// Keeps the connection.
    _streaming: Arc<Streaming>,
}

impl Stream for Frames {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.taken.poll_recv(task).map(|frame| frame.map(Ok))
    }
}
