//! Clients over a pipe, before a server that says what the test says, in a time that flies.

use std::sync::Mutex;

use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep, timeout};

use super::fake_server::{FakeServer, builder, goodbye, grant, queued, rejected};
use super::*;
use crate::client::HoldState;
use crate::types::{FencingToken, GoodbyeCode, LostReason, RejectionCode, RequestId};
use crate::wire::{self, ClientMessage, LockStatus, ServerMessage, Wait};

#[tokio::test(start_paused = true)]
async fn a_lock_is_kept_for_an_hour_by_its_keep_alives() {
    let (server, client, guard) = FakeServer::with_guard().await;
    let server = tokio::spawn(server.keep_alive());
    for _ in 0..3_600 {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(guard.state(), HoldState::Held);
    }
    drop((client, guard));
    let count = server.await.unwrap();
    assert!((1_439..=1_440).contains(&count), "{count} keep-alives");
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_a_lost_lock_before_the_lease_can_end() {
    let (_server, _client, guard) = FakeServer::with_guard().await;
    let begun = Instant::now();
    sleep(Duration::from_secs(6)).await;
    assert_eq!(guard.state(), HoldState::Held);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(guard.state(), HoldState::Jeopardy);
    assert!(guard.is_held());
    assert_eq!(guard.lost().await, LostReason::Expired);
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_millis(9_740) && waited < Duration::from_millis(9_800));
    assert!(!guard.is_held());
    assert_eq!(guard.state(), HoldState::Lost(LostReason::Expired));
    assert!(matches!(guard.release().await, Err(Error::Lost { .. })));
}

/// Lets time go on for this task alone, as if the driver stood still.
async fn time_passes_unnoticed(length: Duration) {
    // The first poll moves the clock, and yields before any other task is polled.
    let advance = Box::pin(tokio::time::advance(length));
    assert!(futures_util::future::poll_immediate(advance).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_guard_knows_by_itself_while_the_driver_stands_still() {
    let (_server, _client, guard) = FakeServer::with_guard().await;
    time_passes_unnoticed(Duration::from_millis(9_700)).await;
    assert!(guard.is_held());
    time_passes_unnoticed(Duration::from_millis(100)).await;
    assert!(!guard.is_held());
    assert!(guard.valid_until() <= std::time::Instant::now());
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_is_looked_at_too_late_is_a_loss() {
    let (mut server, client) = FakeServer::with_client().await;
    let mut request = client.lock("printer").into_future();
    assert!(futures_util::future::poll_immediate(&mut request).await.is_none());
    server.hear().await;
    server.say(&[grant(1, 7)]).await;
    sleep(Duration::from_millis(1)).await;
    time_passes_unnoticed(Duration::from_secs(10)).await;
    assert!(matches!(request.await, Err(Error::Lost { reason: LostReason::Expired, .. })));
    assert_eq!(
        server.hear().await,
        ClientMessage::Release { request: RequestId(1), token: FencingToken(7) }
    );
}

#[tokio::test(start_paused = true)]
async fn run_does_not_call_done_what_ended_after_the_lease() {
    let (mut server, client) = FakeServer::with_client().await;
    let run = client.lock("printer").run(|guard| async move {
        time_passes_unnoticed(Duration::from_secs(10)).await;
        drop(guard);
    });
    let run = tokio::spawn(run);
    server.hear().await;
    server.say(&[grant(1, 7)]).await;
    assert!(matches!(run.await.unwrap(), Err(Error::Lost { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_release_on_its_way_to_the_driver_hears_of_the_loss_that_came_before() {
    let (mut server, _client, guard) = FakeServer::with_guard().await;
    let reason = LostReason::Revoked;
    server
        .say(&[ServerMessage::Lost { request: RequestId(1), token: FencingToken(7), reason }])
        .await;
    let outcome = guard.release().await;
    assert!(matches!(outcome, Err(Error::Lost { reason: LostReason::Revoked, .. })), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_is_cancelled() {
    let (mut server, client) = FakeServer::with_client().await;
    let request = client.lock("printer").into_future();
    assert!(timeout(Duration::from_millis(1), request).await.is_err());
    assert!(matches!(
        server.hear().await,
        ClientMessage::Request(wire::Request { request: RequestId(1), .. })
    ));
    assert_eq!(server.hear().await, ClientMessage::Cancel { request: RequestId(1) });
    // The grant that crosses it is nobody's, and harms nobody.
    let grant = grant(1, 7);
    server.say(&[grant, ServerMessage::Cancelled { request: RequestId(1) }]).await;
    let guard = server.grant_next(&client, 8).await;
    assert_eq!(guard.token().number(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_was_delivered_to_nobody_is_cancelled() {
    let (mut server, client) = FakeServer::with_client().await;
    let mut request = client.lock("printer").into_future();
    assert!(futures_util::future::poll_immediate(&mut request).await.is_none());
    assert!(matches!(
        server.hear().await,
        ClientMessage::Request(wire::Request { request: RequestId(1), .. })
    ));
    server.say(&[grant(1, 7)]).await;
    sleep(Duration::from_millis(1)).await;
    drop(request);
    assert_eq!(server.hear().await, ClientMessage::Cancel { request: RequestId(1) });
}

#[tokio::test(start_paused = true)]
async fn a_request_given_up_before_the_driver_saw_it_is_never_sent() {
    let (mut server, client) = FakeServer::with_client().await;
    let mut request = client.lock("printer").into_future();
    assert!(futures_util::future::poll_immediate(&mut request).await.is_none());
    drop(request);
    assert!(matches!(server.hear().await, ClientMessage::KeepAlive { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_guard_is_released_before_anything_asked_later() {
    let (mut server, client, guard) = FakeServer::with_guard().await;
    drop(guard);
    let again = tokio::spawn(async move { client.try_lock("printer").await });
    assert_eq!(
        server.hear().await,
        ClientMessage::Release { request: RequestId(1), token: FencingToken(7) }
    );
    assert!(matches!(
        server.hear().await,
        ClientMessage::Request(wire::Request { request: RequestId(2), wait: Wait::Never, .. })
    ));
    server.say(&[ServerMessage::Released { request: RequestId(1) }]).await;
    server.say(&[grant(2, 8)]).await;
    assert!(again.await.unwrap().unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_release_that_is_given_up_half_way_gives_the_lock_back_all_the_same() {
    for polls in [0, 1] {
        let (mut server, client, guard) = FakeServer::with_guard().await;
        let mut release = Box::pin(guard.release());
        for _ in 0..polls {
            assert!(futures_util::future::poll_immediate(&mut release).await.is_none());
        }
        drop(release);
        assert_eq!(
            server.hear().await,
            ClientMessage::Release { request: RequestId::new(1), token: FencingToken::new(7) }
        );
        drop(client);
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_given_up_half_way_ends_the_session_all_the_same() {
    let (mut server, client, guard) = FakeServer::with_guard().await;
    let mut close = Box::pin(client.close());
    assert!(futures_util::future::poll_immediate(&mut close).await.is_none());
    drop(close);
    assert_eq!(server.hear().await, ClientMessage::Goodbye);
    assert!(!guard.is_held());
}

#[tokio::test(start_paused = true)]
async fn release_reports_what_the_server_says() {
    let (mut server, client, guard) = FakeServer::with_guard().await;
    let release = tokio::spawn(guard.release());
    assert_eq!(
        server.hear().await,
        ClientMessage::Release { request: RequestId(1), token: FencingToken(7) }
    );
    server.say(&[ServerMessage::Released { request: RequestId(1) }]).await;
    release.await.unwrap().unwrap();

    let guard = server.grant_next(&client, 8).await;
    let release = tokio::spawn(guard.release());
    server.hear().await;
    server.say(&[rejected(2, RejectionCode::NotHolder)]).await;
    assert!(matches!(
        release.await.unwrap(),
        Err(Error::Rejected { code: RejectionCode::NotHolder, .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_release_without_an_answer_says_so_when_the_connection_ends() {
    let (mut server, client, guard) = FakeServer::with_guard().await;
    let release = tokio::spawn(guard.release());
    server.hear().await;
    drop(server);
    assert!(matches!(release.await.unwrap(), Err(Error::Unavailable { .. })));
    client.closed().await;
    assert!(matches!(client.lock("printer").await, Err(Error::Unavailable { .. })));
}

#[tokio::test(start_paused = true)]
async fn try_is_none_if_busy() {
    let (mut server, client) = FakeServer::with_client().await;
    let guard = tokio::spawn(async move { client.try_lock("printer").await });
    server.hear().await;
    server.say(&[rejected(1, RejectionCode::Busy)]).await;
    assert!(guard.await.unwrap().unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_timeout_tells_how_long_and_the_last_place_in_line() {
    let (mut server, client) = FakeServer::with_client().await;
    let places = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&places);
    let request = client
        .lock("printer")
        .timeout(Duration::from_micros(1_500))
        .on_queued(move |place| seen.lock().unwrap().push(place));
    let request = tokio::spawn(request.into_future());
    let ClientMessage::Request(wire::Request { wait, progress, .. }) = server.hear().await else {
        panic!()
    };
    assert_eq!((wait, progress), (Wait::millis(2), true));
    for position in [3, 2] {
        server.say(&[queued(1, position)]).await;
        sleep(Duration::from_millis(1)).await;
    }
    server.say(&[rejected(1, RejectionCode::TimedOut)]).await;
    let error = request.await.unwrap().unwrap_err();
    assert!(matches!(&error, Error::TimedOut { position: Some(2), lock, .. }
        if lock.name == "printer"));
    assert_eq!(*places.lock().unwrap(), [3, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_is_refused_before_anything_is_sent() {
    let (mut server, client) = FakeServer::with_client().await;
    let impossible = [
        client.lock(""),
        client.lock("a\nb"),
        client.lock("a").permits(3, 2),
        client.lock("a").note("n".repeat(256)),
        client.lock("a").lock_delay(Duration::from_secs(61)),
    ];
    for request in impossible {
        assert!(matches!(request.await, Err(Error::InvalidRequest { .. })));
    }
    drop(client);
    assert_eq!(server.hear().await, ClientMessage::Goodbye);
}

#[tokio::test(start_paused = true)]
async fn a_candidate_shows_its_value_as_a_note() {
    let (mut server, client) = FakeServer::with_client().await;
    let election = tokio::spawn(client.elect("leader", "10.0.0.7:80").into_future());
    let ClientMessage::Request(wire::Request { note, claims, .. }) = server.hear().await else {
        panic!()
    };
    assert_eq!((&note[..], &claims[0].name[..]), ("10.0.0.7:80", "leader"));
    election.abort();
    let error = client.elect("leader", "v".repeat(256)).await.unwrap_err();
    assert!(error.to_string().starts_with("invalid value: "), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_hundred_requests_travel_together() {
    let (mut server, client) = FakeServer::with_client().await;
    let requests: Vec<_> = (0..100)
        .map(|number| tokio::spawn(client.lock(format!("lock {number}")).into_future()))
        .collect();
    // Not before all have spoken.
    sleep(Duration::from_millis(1)).await;
    let first = server.reader.next().await.unwrap().unwrap();
    assert_eq!(first.len(), 100);
    let grants: Vec<_> = (1..=100).map(|request| grant(request, request)).collect();
    server.say(&grants).await;
    for request in requests {
        request.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_is_a_protocol_error_and_a_clean_loss() {
    let (mut server, client, guard) = FakeServer::with_guard().await;
    let waiting = tokio::spawn(client.lock("other").into_future());
    server.hear().await;
    server.writer.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    assert_eq!(guard.lost().await, LostReason::Disconnected);
    assert!(matches!(waiting.await.unwrap(), Err(Error::Protocol { .. })));
    client.closed().await;
    assert!(matches!(client.try_lock("other").await, Err(Error::Protocol { .. })));
    assert_eq!(server.hear().await, ClientMessage::Goodbye);
}

#[tokio::test(start_paused = true)]
async fn each_goodbye_of_the_server_is_told_as_what_it_means() {
    type Check = fn(&Error) -> bool;
    let cases: [(_, _, Check); 5] = [
        (GoodbyeCode::Draining, LostReason::Stopped, |e| matches!(e, Error::Draining { .. })),
        (GoodbyeCode::SessionExpired, LostReason::Expired, |e| {
            matches!(e, Error::Dismissed { code: GoodbyeCode::SessionExpired, .. })
        }),
        (GoodbyeCode::Superseded, LostReason::Disconnected, |e| {
            matches!(e, Error::Dismissed { code: GoodbyeCode::Superseded, .. })
        }),
        (GoodbyeCode::SlowReader, LostReason::Disconnected, Error::is_retryable),
        (GoodbyeCode::ProtocolError, LostReason::Disconnected, |e| {
            matches!(e, Error::Protocol { .. })
        }),
    ];
    for (code, reason, expected) in cases {
        let (mut server, client, guard) = FakeServer::with_guard().await;
        let waiting = tokio::spawn(client.lock("other").into_future());
        server.hear().await;
        server.say(&[goodbye(code, 0)]).await;
        assert_eq!(guard.lost().await, reason);
        let error = waiting.await.unwrap().unwrap_err();
        assert!(expected(&error), "{code}: {error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_hello_says_why() {
    let (mut server, near) = FakeServer::new();
    let client = tokio::spawn(builder().connect_with(near));
    server.hear().await;
    server.say(&[goodbye(GoodbyeCode::Refused, RejectionCode::TooManySessions.number())]).await;
    let error = client.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Rejected { code: RejectionCode::TooManySessions, .. }));
    assert!(error.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn connecting_to_a_mute_server_ends_in_time() {
    let (mut server, near) = FakeServer::new();
    let client = builder().connect_timeout(Duration::from_secs(3)).connect_with(near).await;
    assert!(matches!(client, Err(Error::Unavailable { .. })));
    assert!(matches!(server.hear().await, ClientMessage::Hello(_)));
    assert_eq!(server.hear().await, ClientMessage::Goodbye);
    assert!(server.sees_end().await);
}

#[tokio::test(start_paused = true)]
async fn a_guard_outlives_its_client_and_the_last_handle_says_goodbye() {
    let (mut server, client, guard) = FakeServer::with_guard().await;
    drop(client);
    let ClientMessage::KeepAlive { sequence } = server.hear().await else { panic!() };
    server.say(&[ServerMessage::KeptAlive { sequence }]).await;
    assert!(guard.is_held());
    drop(guard);
    assert_eq!(
        server.hear().await,
        ClientMessage::Release { request: RequestId(1), token: FencingToken(7) }
    );
    assert_eq!(server.hear().await, ClientMessage::Goodbye);
    assert!(server.sees_end().await);
}

#[tokio::test(start_paused = true)]
async fn close_frees_everything_and_waits_for_the_server() {
    let (mut server, client, guard) = FakeServer::with_guard().await;
    let other = client.clone();
    let close = tokio::spawn(client.close());
    assert_eq!(server.hear().await, ClientMessage::Goodbye);
    assert_eq!(guard.lost().await, LostReason::Disconnected);
    assert!(!guard.is_held());
    assert!(!close.is_finished());
    server.say(&[goodbye(GoodbyeCode::Done, 0)]).await;
    drop(server);
    close.await.unwrap().unwrap();
    assert!(matches!(other.lock("printer").await, Err(Error::Closed)));
    other.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn close_tells_if_the_server_did_not_hear_it() {
    let (_server, client) = FakeServer::with_client().await;
    assert!(matches!(client.close().await, Err(Error::Unavailable { .. })));
}

#[tokio::test(start_paused = true)]
async fn run_releases_when_the_work_is_done() {
    let (mut server, client) = FakeServer::with_client().await;
    let run = client.lock("printer").run(|guard| async move {
        assert!(guard.is_held());
        guard.token().number()
    });
    let run = tokio::spawn(run);
    server.hear().await;
    server.say(&[grant(1, 7)]).await;
    assert_eq!(
        server.hear().await,
        ClientMessage::Release { request: RequestId(1), token: FencingToken(7) }
    );
    sleep(Duration::from_millis(1)).await;
    assert!(!run.is_finished(), "the lock is not free yet");
    server.say(&[ServerMessage::Released { request: RequestId(1) }]).await;
    assert_eq!(run.await.unwrap().unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn run_stops_the_work_when_the_lock_is_lost() {
    let (mut server, client) = FakeServer::with_client().await;
    let dropped = Arc::new(());
    let witness = Arc::clone(&dropped);
    let run = client.lock("printer").run(|_guard| async move {
        std::future::pending::<()>().await;
        drop(witness);
    });
    let run = tokio::spawn(run);
    server.hear().await;
    server.say(&[grant(1, 7)]).await;
    let reason = LostReason::Revoked;
    server
        .say(&[ServerMessage::Lost { request: RequestId(1), token: FencingToken(7), reason }])
        .await;
    let error = run.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Lost { reason: LostReason::Revoked, .. }));
    assert_eq!(Arc::strong_count(&dropped), 1);
}

#[tokio::test(start_paused = true)]
async fn a_loss_wakes_all_who_wait_for_it_and_a_release_wakes_nobody() {
    let (mut server, client, guard) = FakeServer::with_guard().await;
    let losses = [tokio::spawn(guard.lost()), tokio::spawn(guard.lost())];
    let reason = LostReason::Revoked;
    server
        .say(&[ServerMessage::Lost { request: RequestId(1), token: FencingToken(7), reason }])
        .await;
    for loss in losses {
        assert_eq!(loss.await.unwrap(), LostReason::Revoked);
    }
    assert_eq!(guard.lost().await, LostReason::Revoked);

    let guard = server.grant_next(&client, 8).await;
    let loss = guard.lost();
    drop(guard);
    drop(server);
    client.closed().await;
    assert!(timeout(Duration::from_secs(1), loss).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_read_cannot_keep_a_loss_from_us() {
    let (mut server, client, guard) = FakeServer::with_guard().await;
    // More than the pipe holds, and nobody takes it out.
    let requests: Vec<_> =
        (0..2_000).map(|_| tokio::spawn(client.lock("x".repeat(200)).into_future())).collect();
    sleep(Duration::from_millis(1)).await;
    let reason = LostReason::Revoked;
    server
        .say(&[ServerMessage::Lost { request: RequestId(1), token: FencingToken(7), reason }])
        .await;
    assert_eq!(guard.lost().await, LostReason::Revoked);
    drop(requests);
}

#[tokio::test(start_paused = true)]
async fn a_busy_lock_is_told_with_what_the_server_knows() {
    let (mut server, client) = FakeServer::with_client().await;
    let request = tokio::spawn(client.lock("printer").nonblocking().into_future());
    server.hear().await;
    let lock = LockStatus {
        name: "printer".parse().unwrap(),
        holders: Vec::new(),
        holder_count: 1,
        waiters: Vec::new(),
        waiter_count: 4,
    };
    let code = RejectionCode::Busy;
    let message = String::new();
    let lock = Some(Box::new(lock));
    server
        .say(&[ServerMessage::Rejected {
            cycle: crate::types::Cycle::default(),
            request: RequestId(1),
            code,
            message,
            lock,
        }])
        .await;
    let error = request.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Busy { lock } if lock.waiter_count == 4));
}
