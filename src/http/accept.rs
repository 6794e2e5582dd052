//! Connections: how many, for how long, how much they may say.
//!
//! The loop is our own, because hyper closes a silent peer and axum's server does not. Without a
//! timer of its connection, the time for its headers has no bound.

use std::net::TcpListener as StdListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use log::{debug, warn};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use super::caller::Caller;
use super::places::Places;
use crate::server::{Certified, Looker, Secure};

/// Connections at a time. One more is closed at once.
pub(super) const CONNECTIONS_MAX: usize = 256;
/// How long a request line with its headers may take, also the next one's of a connection.
pub(super) const HEADERS_TIMEOUT: Duration = Duration::from_secs(5);
/// How many headers a request may have.
pub(super) const HEADERS_MAX: usize = 64;
/// How long the line and all headers may be together.
pub(super) const HEADERS_BYTES_MAX: usize = 16 * 1024;
/// After so long a connection is closed behind the answer at hand.
pub(super) const LIFE_MAX: Duration = Duration::from_secs(60);
/// So long that answer may still take its reader.
pub(super) const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after accepting failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers whoever connects, so many at a time, until it is dropped.
pub(super) async fn serve(
    listener: StdListener,
    looker: Looker,
    router: Router,
    secure: Secure,
    connections_max: usize,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!("the HTTP port cannot be used: {error}"),
    };
    let places = Places::new(connections_max);
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!("HTTP connections cannot be accepted, trying again in {PAUSE:?}: {error}");
                sleep(PAUSE).await;
                continue;
            }
        };
        // Who finds no place is not waited for, and costs nothing.
        let Some(place) = places.take(peer.ip()) else { continue };
        let certified = Certified::default();
        let looker = looker.clone();
        let crowded = move || looker.handshake_waits(peer);
        let (router, stream) =
            (router.clone(), secure.for_http(stream, certified.clone(), crowded));
        let caller = Caller { peer: Some(peer), certified, ..Caller::default() };
        tokio::spawn(async move {
            if let Err(why) = serve_one(stream, caller, router).await {
                debug!("an HTTP connection ended: {why}");
            }
            drop(place);
        });
    }
}

/// Answers what comes on one connection, which is kept while a stream goes over it that is read.
pub(super) async fn serve_one<S>(
    stream: S,
    caller: Caller,
    router: Router,
) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let life = Arc::clone(&caller.life);
    let service = TowerToHyperService::new(router.layer(Extension(caller)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADERS_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    loop {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = life.is_cut() => return Ok(()),
            () = sleep(LIFE_MAX) => {}
        }
        if !life.is_streaming() {
            break;
        }
    }
    connection.as_mut().graceful_shutdown();
    // Whoever does not read that either is left.
    timeout(LAST_ANSWER_TIMEOUT, connection).await.unwrap_or(Ok(()))
}
