//! Questions, watches and subscriptions over connections that come and go, in a time that flies.

use bytes::BytesMut;
use futures_util::future::{join_all, poll_immediate};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::fake_server::{FakeServer, Harbour, Route, clock, goodbye, rejected, welcome_as};
use super::*;
use crate::client::connect::{Opening, on_runtime};
use crate::client::core::{Introduction, Purpose};
use crate::client::shared::NEWS_MAX;
use crate::client::{Client, Event, Events, LockState, Observer, Watch};
use crate::types::{FencingToken, GoodbyeCode, RejectionCode};
use crate::wire::{self, Attach, ClientMessage, LockStatus, Query, ServerMessage, Standing};

/// One who only looks and comes back, and the server of its first connection.
async fn observer() -> (Harbour, FakeServer, Observer) {
    let (mut harbour, route) = Harbour::new();
    let observer = tokio::spawn(observe_by(route));
    let server = welcomed(&mut harbour).await;
    (harbour, server, observer.await.unwrap())
}

async fn observe_by(route: Route) -> Observer {
    let opening = Opening { timeout: Duration::from_secs(5), clock: clock(), seed: Some(1) };
    let start = (Introduction::default(), Purpose::Look);
    let (shared, _) = opening.open_over(start, route, &"test".into(), on_runtime).await.unwrap();
    Observer::over(&shared)
}

/// The server of the next connection of one who only looks.
async fn welcomed(harbour: &mut Harbour) -> FakeServer {
    let mut server = harbour.arrival().await;
    let ClientMessage::Hello(wire::Hello { attach, ttl_ms, .. }) = server.hear().await else {
        panic!("no Hello")
    };
    assert_eq!((attach, ttl_ms), (Attach::Observer, 0));
    server.say(&[welcome_as(3, 1, Standing::Opened)]).await;
    server
}

/// That there are so many waiters at a lock.
fn lock(query_id: u64, holder_count: u64) -> ServerMessage {
    let (name, holders, waiters) = ("printer".parse().unwrap(), Vec::new(), Vec::new());
    let lock = LockStatus { name, holders, holder_count, waiters, waiter_count: 0 };
    ServerMessage::LockStatus { query_id, locks: vec![lock], next: None }
}

/// Hears a question about a lock; gives its id.
async fn asked(server: &mut FakeServer) -> u64 {
    match server.hear().await {
        ClientMessage::Inspect { query_id, query: Query::Lock { .. } } => query_id,
        other => panic!("{other:?}"),
    }
}

async fn watched(server: &mut FakeServer) -> u64 {
    match server.hear().await {
        ClientMessage::Watch { query_id, name } if name == "printer" => query_id,
        other => panic!("{other:?}"),
    }
}

pub(super) async fn listened(server: &mut FakeServer) -> u64 {
    match server.hear().await {
        ClientMessage::Subscribe { query_id, name: None } => query_id,
        other => panic!("{other:?}"),
    }
}

fn status(client: &Client) -> JoinHandle<Result<Option<LockStatus>, Error>> {
    let client = client.clone();
    tokio::spawn(async move { client.status("printer").await })
}

async fn holders(watch: &mut Watch) -> u64 {
    match watch.next().await.unwrap().unwrap() {
        LockState::InUse(lock) => lock.holder_count,
        LockState::Free => 0,
    }
}

/// One who listens, and the server that it listens to.
pub(super) async fn listener() -> (Harbour, FakeServer, Events) {
    let (harbour, mut server, observer) = observer().await;
    let events = tokio::spawn(observer.events(None));
    let query_id = listened(&mut server).await;
    server.say(&[ServerMessage::Subscribed { query_id }]).await;
    (harbour, server, events.await.unwrap().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_client_over_one_stream_looks_beside_its_locks() {
    let (mut server, client, guard) = FakeServer::with_guard().await;
    let look = status(&client);
    let query_id = asked(&mut server).await;
    server.say(&[lock(query_id, 1)]).await;
    assert_eq!(look.await.unwrap().unwrap().unwrap().holder_count, 1);
    let look = status(&client);
    let query_id = asked(&mut server).await;
    server.say(&[rejected(query_id, RejectionCode::Unsupported)]).await;
    assert!(matches!(look.await.unwrap(), Err(Error::Rejected { .. })));
    assert!(guard.is_held());
}

#[tokio::test(start_paused = true)]
async fn a_question_whose_answer_was_lost_is_asked_again() {
    let (mut harbour, mut server, client) = Harbour::with_client().await;
    let look = status(&client);
    let query_id = asked(&mut server).await;
    drop(server);
    let mut server = harbour.resumed(2, Standing::Resumed).await;
    loop {
        match server.hear().await {
            ClientMessage::Inspect { query_id: again, .. } => break assert_eq!(again, query_id),
            ClientMessage::Account(_) => {}
            other => panic!("{other:?}"),
        }
    }
    server.say(&[lock(query_id, 4)]).await;
    assert_eq!(look.await.unwrap().unwrap().unwrap().holder_count, 4);
}

#[tokio::test(start_paused = true)]
async fn a_question_waits_for_no_server_that_cannot_be_reached() {
    let (harbour, mut server, client) = Harbour::with_client().await;
    let look = status(&client);
    asked(&mut server).await;
    harbour.close(true);
    let began = Instant::now();
    drop(server);
    assert!(matches!(look.await.unwrap(), Err(Error::Unavailable { .. })));
    assert!(matches!(client.status("printer").await, Err(Error::Unavailable { .. })));
    assert!(matches!(client.watch("printer").await, Err(Error::Unavailable { .. })));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_question_without_an_answer_ends_in_time() {
    let (_harbour, mut server, observer) = observer().await;
    let began = Instant::now();
    let error = observer.lock("printer").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    // Its late answer is none to the next.
    let late = asked(&mut server).await;
    let look = tokio::spawn(async move { observer.lock("printer").await });
    let query_id = asked(&mut server).await;
    server.say(&[lock(late, 1), lock(query_id, 2)]).await;
    assert_eq!(look.await.unwrap().unwrap().unwrap().holder_count, 2);
}

#[tokio::test(start_paused = true)]
async fn whether_a_grant_was_taken_away_is_not_asked_twice() {
    let (mut harbour, mut server, observer) = observer().await;
    let revoke = async move { observer.revoke("printer", FencingToken::new(7)).await };
    let revoke = tokio::spawn(revoke);
    assert!(matches!(server.hear().await, ClientMessage::Revoke { .. }));
    drop(server);
    let server = welcomed(&mut harbour).await;
    let error = revoke.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("remember"), "{error}");
    drop(server);
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_over_the_next_connection_and_tells_what_is_new() {
    let (mut harbour, mut server, client, _guard) = Harbour::with_guard().await;
    let watcher = client.clone();
    let watch = tokio::spawn(async move { watcher.watch("printer").await });
    let query_id = watched(&mut server).await;
    server.say(&[lock(query_id, 1)]).await;
    let mut watch = watch.await.unwrap().unwrap();
    assert_eq!(holders(&mut watch).await, 1);
    harbour.close(true);
    drop(server);
    assert!(timeout(Duration::from_secs(2), watch.next()).await.is_err(), "no error, no news");
    harbour.close(false);
    let mut server = harbour.resumed(2, Standing::Resumed).await;
    assert!(matches!(server.hear().await, ClientMessage::Account(_)), "locks come first");
    assert_eq!(watched(&mut server).await, query_id);
    server.say(&[lock(query_id, 2)]).await;
    assert_eq!(holders(&mut watch).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_with_its_client_and_says_so() {
    let (_harbour, mut server, client) = Harbour::with_client().await;
    let watcher = client.clone();
    let watch = tokio::spawn(async move { watcher.watch("printer").await });
    let query_id = watched(&mut server).await;
    server.say(&[lock(query_id, 0)]).await;
    let mut watch = watch.await.unwrap().unwrap();
    assert_eq!(holders(&mut watch).await, 0);
    let closed = tokio::spawn(client.close());
    assert!(matches!(watch.next().await, Some(Err(Error::Closed))));
    assert!(watch.next().await.is_none());
    drop(server);
    closed.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_given_up_before_it_began_is_watched_no_more() {
    let (_harbour, mut server, client) = Harbour::with_client().await;
    {
        let mut watch = Box::pin(client.watch("printer"));
        assert!(poll_immediate(&mut watch).await.is_none());
        watched(&mut server).await;
        assert!(poll_immediate(&mut watch).await.is_none());
    }
    assert_eq!(server.hear().await, ClientMessage::Unwatch { name: "printer".to_owned() });
}

#[tokio::test(start_paused = true)]
async fn who_listens_hears_of_a_gap_and_then_goes_on() {
    let (mut harbour, server, mut events) = listener().await;
    drop(server);
    let Event::Gap { cause } = events.next().await.unwrap().unwrap() else { panic!("no gap") };
    assert!(matches!(cause, Error::Unavailable { .. }), "{cause}");
    let mut server = welcomed(&mut harbour).await;
    let query_id = listened(&mut server).await;
    server.say(&[ServerMessage::Subscribed { query_id }, ServerMessage::Missed { count: 3 }]).await;
    let event = events.next().await.unwrap().unwrap();
    assert!(matches!(event, Event::Missed { count: 3 }), "{event:?}");
    // A place that was left to another is taken again, but not at once.
    server.say(&[goodbye(GoodbyeCode::TooManyConnections, 0)]).await;
    let Event::Gap { cause } = events.next().await.unwrap().unwrap() else { panic!("no gap") };
    assert!(matches!(cause, Error::Dismissed { .. }), "{cause}");
}

#[tokio::test(start_paused = true)]
async fn of_events_that_are_not_read_the_oldest_are_left_out_and_counted() {
    let (_harbour, mut server, mut events) = listener().await;
    // Each is told by its number.
    let more = 5;
    let news: Vec<_> =
        (1..=NEWS_MAX as u64 + more).map(|count| ServerMessage::Missed { count }).collect();
    server.say(&news).await;
    sleep(Duration::from_millis(1)).await;
    let mut heard = Vec::new();
    for _ in 0..=NEWS_MAX {
        match events.next().await.unwrap().unwrap() {
            Event::Missed { count } => heard.push(count),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(heard[..3], [more, more + 1, more + 2], "so many, then those after them");
    assert_eq!(heard.last(), Some(&(NEWS_MAX as u64 + more)));
}

#[tokio::test(start_paused = true)]
async fn who_looks_on_asks_every_ten_seconds_whether_the_server_is_there() {
    let (_harbour, server, events) = listener().await;
    let server = tokio::spawn(server.keep_alive());
    sleep(Duration::from_secs(601)).await;
    drop(events);
    assert_eq!(server.await.unwrap(), 60);
}

#[tokio::test(start_paused = true)]
async fn who_looks_on_notices_that_nobody_is_there_any_more() {
    let (mut harbour, _silent, mut events) = listener().await;
    let began = Instant::now();
    // Another connection is tried while this one is doubted, and then takes its place.
    let mut server = welcomed(&mut harbour).await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let query_id = listened(&mut server).await;
    assert!(matches!(events.next().await, Some(Ok(Event::Gap { .. }))));
    server.say(&[ServerMessage::Subscribed { query_id }, ServerMessage::Missed { count: 1 }]).await;
    assert!(matches!(events.next().await, Some(Ok(Event::Missed { count: 1 }))));
}

#[tokio::test(start_paused = true)]
async fn what_was_never_asked_for_is_believed_by_nobody() {
    let answers: [fn(u64) -> ServerMessage; 4] = [
        |unasked| lock(unasked, 1),
        |unasked| rejected(unasked, RejectionCode::Unsupported),
        |_| lock(1, 1),
        |_| ServerMessage::Missed { count: 1 },
    ];
    for answer in answers {
        let (mut server, client, guard) = FakeServer::with_guard().await;
        let look = status(&client);
        let query_id = asked(&mut server).await;
        server.say(&[answer(query_id + 1)]).await;
        assert!(matches!(look.await.unwrap(), Err(Error::Protocol { .. })));
        assert!(!guard.is_held());
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_no_lock_can_have_is_a_protocol_error_and_a_clean_loss() {
    let (mut server, client, guard) = FakeServer::with_guard().await;
    let look = status(&client);
    let query_id = asked(&mut server).await;
    let mut frame = BytesMut::new();
    wire::encode_frame(&lock(query_id, 1), &mut frame).unwrap();
    let name = frame.windows(7).position(|bytes| bytes == b"printer").unwrap();
    frame[name] = 0x1b;
    server.writer.write_all(&frame).await.unwrap();
    let error = look.await.unwrap().unwrap_err();
    let why = "malformed message: invalid lock name: it contains a control character at byte 0";
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
    assert!(error.to_string().contains(why), "{error}");
    assert!(!guard.is_held());
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_another_kind_is_none() {
    let (_harbour, mut server, observer) = observer().await;
    let look = tokio::spawn(async move { observer.lock("printer").await });
    let query_id = asked(&mut server).await;
    server.say(&[ServerMessage::Revoked { query_id }]).await;
    let error = look.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn so_many_looks_wait_for_answers_and_not_one_more() {
    const MAX: usize = 4_096;
    let (mut server, client) = FakeServer::with_client().await;
    let looks: Vec<_> = (0..MAX).map(|_| status(&client)).collect();
    let mut ids = Vec::new();
    while ids.len() < MAX {
        ids.push(asked(&mut server).await);
    }
    let more = client.status("printer").await;
    assert!(matches!(more, Err(Error::Unavailable { .. })), "{more:?}");
    for id in ids {
        server.say(&[lock(id, 1)]).await;
    }
    assert!(join_all(looks).await.into_iter().all(|look| look.unwrap().is_ok()));
}
