//! Streams over connections in memory, with paused time.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use axum::routing::get;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Semaphore;
use tokio::time::{Instant, interval, timeout};

use super::is_text;
use super::stream::{self, READ_TIMEOUT, STREAMS_MAX, Sink, Streams};
use crate::access::{Principal, PrincipalName, Quotas, Rules};
use crate::http::accept::{self, LIFE_MAX};
use crate::http::caller::Caller;
use crate::server::Who;

/// A connection to a stream that says something each second, and what becomes of the connection.
fn streaming(places: &Arc<Semaphore>) -> (DuplexStream, tokio::task::JoinHandle<()>) {
    let places = Arc::clone(places);
    let stream = async move |Extension(caller): Extension<Caller>| {
        let place = places.try_acquire_owned().unwrap();
        stream::answer(&caller.life, place, async |sink: Sink| {
            // Time is paused: it goes on where everybody waits for it, this one, too.
            let mut seconds = interval(Duration::from_secs(1));
            while sink.data(&json!("x".repeat(1000))).await.is_ok() {
                seconds.tick().await;
            }
        })
    };
    let router = Router::new().route("/", get(stream));
    let (ours, theirs) = duplex(4096);
    let serving = tokio::spawn(async move {
        let _ = accept::serve_one(theirs, Caller::default(), router).await;
    });
    (ours, serving)
}

const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_read_outlives_any_other_answer() {
    let places = Arc::new(Semaphore::new(STREAMS_MAX));
    let (mut peer, serving) = streaming(&places);
    peer.write_all(ASK).await.unwrap();
    let began = Instant::now();
    let mut heard = vec![0; 4096];
    while began.elapsed() < LIFE_MAX * 3 {
        assert_ne!(peer.read(&mut heard).await.unwrap(), 0, "closed after {:?}", began.elapsed());
    }
    assert_eq!(places.available_permits(), STREAMS_MAX - 1);
    drop(peer);
    serving.await.unwrap();
    assert_eq!(places.available_permits(), STREAMS_MAX, "its place comes back");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_reads_is_closed_in_time_and_its_place_comes_back() {
    let places = Arc::new(Semaphore::new(STREAMS_MAX));
    let (mut peer, serving) = streaming(&places);
    peer.write_all(ASK).await.unwrap();
    let began = Instant::now();
    let ended = timeout(LIFE_MAX * 2, serving).await;
    ended.expect("it is kept for ever").unwrap();
    let took = began.elapsed();
    assert!(took >= READ_TIMEOUT && took < LIFE_MAX, "{took:?}");
    assert_eq!(places.available_permits(), STREAMS_MAX);
}

/// Rule B2.
#[test]
fn nobody_has_all_streams_neither_an_address_nor_a_principal_from_many() {
    let named = |name| {
        let (rules, quotas) = (Rules::default(), Quotas::default());
        let name = PrincipalName::new(name).unwrap();
        Who::Principal(Arc::new(Principal { name, rules, quotas }))
    };
    // As many as there are for this one, if each of these hosts asks for all.
    let take = |streams: &Streams, who: &Who, hosts: &[u8]| -> Vec<stream::Place> {
        let asked = hosts.iter().flat_map(|host| std::iter::repeat_n(*host, STREAMS_MAX));
        asked.filter_map(|host| streams.take(who, Some([10, 0, 0, host].into()))).collect()
    };
    let open = Streams::new();
    let first = take(&open, &Who::Anybody, &[1]);
    let second = take(&open, &Who::Anybody, &[2]);
    assert_eq!((first.len(), second.len()), (48, 16), "an address has three quarters");
    drop(first);
    assert_eq!(take(&open, &Who::Anybody, &[3]).len(), 48, "they came back");

    let guarded = Streams::new();
    let first = take(&guarded, &named("anyone"), &[1]);
    let others = take(&guarded, &named("anyone"), &[2, 3, 4]);
    assert_eq!((first.len(), others.len()), (36, 12), "a principal has three quarters");
    assert_eq!(take(&guarded, &named("oncall"), &[1]).len(), 16, "also from the same address");
}

#[test]
fn what_a_query_escapes_is_text_or_is_refused() {
    for text in
        ["", "prefix=a&limit=2", "prefix=%C3%A4", "prefix=100%", "prefix=%zz", "lock=%e2%82%ac"]
    {
        assert!(is_text(text), "{text}");
    }
    for bytes in ["prefix=%ff", "prefix=%C3", "prefix=%C3a", "lock=%80&limit=1", "%fe=1"] {
        assert!(!is_text(bytes), "{bytes}");
    }
}
