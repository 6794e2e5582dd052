//! Clients whose connections are cut, in a time that flies: what their callers notice.

use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep, timeout};

use super::fake_server::{
    FakeServer, Harbour, builder, goodbye, grant, queued, rejected, welcome_as,
};
use super::*;
use crate::client::{HoldState, SessionEvent};
use crate::types::{FencingToken, GoodbyeCode, RejectionCode, RequestId, Seal, Secret, SessionId};
use crate::wire::{self, Attach, ClientMessage, Held, ServerMessage, Standing};

const GRACE: Standing = Standing::Reopened { grace: Duration::from_millis(10_250) };

fn account(to: u64, held: &[(u64, u64)], waiting: &[u64]) -> ClientMessage {
    let held = held
        .iter()
        .map(|&(request, token)| Held {
            request: RequestId::new(request),
            token: FencingToken::new(token),
        })
        .collect();
    ClientMessage::Account(wire::Account {
        from: RequestId(1),
        to: RequestId::new(to),
        held,
        waiting: waiting.iter().copied().map(RequestId).collect(),
    })
}

#[tokio::test(start_paused = true)]
async fn a_cut_connection_is_made_again_and_the_holder_notices_nothing() {
    let (mut harbour, server, client, guard) = Harbour::with_guard().await;
    drop(server);
    let mut server = harbour.resumed(2, Standing::Resumed).await;
    assert_eq!(server.hear().await, account(1, &[(1, 7)], &[]));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(guard.state(), HoldState::Held);
    let server = tokio::spawn(server.keep_alive());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(guard.state(), HoldState::Held);
    assert_eq!(client.session().number(), 42);
    drop((guard, client));
    assert!(server.await.unwrap() > 20);
}

#[tokio::test(start_paused = true)]
async fn a_holder_is_in_jeopardy_without_a_connection_and_held_again_with_the_next() {
    let (mut harbour, server, _client, guard) = Harbour::with_guard().await;
    harbour.close(true);
    drop(server);
    sleep(Duration::from_secs(7)).await;
    assert_eq!(guard.state(), HoldState::Jeopardy);
    assert!(guard.is_held());
    harbour.close(false);
    let mut server = harbour.arrival().await;
    // Not before it is welcome.
    sleep(Duration::from_millis(1)).await;
    assert_eq!(guard.state(), HoldState::Jeopardy);
    server.hear().await;
    server.say(&[welcome_as(3, 2, Standing::Resumed)]).await;
    sleep(Duration::from_millis(1)).await;
    assert_eq!(guard.state(), HoldState::Held);
}

#[tokio::test(start_paused = true)]
async fn a_crash_that_takes_less_than_a_third_of_the_ttl_is_noticed_by_nobody() {
    // A crash at whatever moment between two keep-alives, and a return at whatever moment after it.
    for (crash_ms, away_ms) in [(1, 1), (1_250, 3_333), (2_499, 3_333), (2_499, 2_000), (2_499, 60)]
    {
        let (mut harbour, server, client, guard) = Harbour::with_guard().await;
        let mut events = client.events();
        sleep(Duration::from_millis(crash_ms)).await;
        harbour.close(true);
        drop(server);
        for _ in 0..away_ms {
            sleep(Duration::from_millis(1)).await;
            assert_eq!(guard.state(), HoldState::Held);
        }
        harbour.close(false);
        let mut server = harbour.arrival().await;
        assert_eq!(guard.state(), HoldState::Held, "{crash_ms} {away_ms}");
        let ClientMessage::Hello(wire::Hello { attach: Attach::Resume { .. }, .. }) =
            server.hear().await
        else {
            panic!()
        };
        server.say(&[welcome_as(4, 2, Standing::Resumed)]).await;
        assert!(matches!(server.hear().await, ClientMessage::Reclaim(_)));
        assert_eq!(guard.state(), HoldState::Held);
        server.say(&[grant(1, 7)]).await;
        sleep(Duration::from_millis(1)).await;
        assert_eq!(guard.state(), HoldState::Held);
        let server = tokio::spawn(server.keep_alive());
        sleep(Duration::from_secs(20)).await;
        let mut told = Vec::new();
        while let Some(Some(event)) = events.next().now_or_never() {
            told.push(event);
        }
        assert!(
            matches!(told[..], [SessionEvent::Disconnected { .. }, SessionEvent::Resumed { .. }]),
            "{told:?}"
        );
        drop((guard, client));
        server.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stays_away_is_a_lost_lock_before_the_lease_can_end() {
    let (harbour, server, client, guard) = Harbour::with_guard().await;
    let begun = Instant::now();
    harbour.close(true);
    drop(server);
    assert_eq!(guard.lost().await, LostReason::Expired);
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_millis(9_700) && waited < Duration::from_millis(9_800));
    assert!(matches!(guard.release().await, Err(Error::Lost { .. })));
    // The client goes on trying for those who wait.
    assert!(timeout(Duration::from_secs(3_600), client.closed()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_through_cuts_and_crashes() {
    let (mut harbour, mut server, client) = Harbour::with_client().await;
    let request = tokio::spawn(client.lock("printer").into_future());
    assert!(matches!(
        server.hear().await,
        ClientMessage::Request(wire::Request { request: RequestId(1), .. })
    ));
    server.say(&[queued(1, 3)]).await;
    sleep(Duration::from_millis(1)).await;
    harbour.close(true);
    drop(server);
    sleep(Duration::from_secs(120)).await;
    harbour.close(false);
    // A coordinator that has crashed, and that remembers us: where did we stand?
    let mut server = harbour.arrival().await;
    assert!(matches!(
        server.hear().await,
        ClientMessage::Hello(wire::Hello { attach: Attach::Resume { .. }, .. })
    ));
    server.say(&[welcome_as(4, 2, GRACE)]).await;
    let ClientMessage::Request(wire::Request {
        request: RequestId(1), ticket: Some(ticket), ..
    }) = server.hear().await
    else {
        panic!()
    };
    assert_eq!(ticket.halves(), (3, 1));
    server.say(&[grant(1, 9)]).await;
    assert_eq!(request.await.unwrap().unwrap().token().number(), 9);
    assert_eq!(client.epoch().number(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_crashed_server_gives_back_what_is_reclaimed() {
    let (mut harbour, server, _client, guard) = Harbour::with_guard().await;
    drop(server);
    let mut server = harbour.resumed(2, GRACE).await;
    let reclaim = server.hear().await;
    assert!(
        matches!(reclaim, ClientMessage::Reclaim(wire::Reclaim { request: RequestId(1), token: FencingToken(7), seal, .. }) if seal == Seal::new(7 << 64))
    );
    sleep(Duration::from_millis(1)).await;
    assert_eq!(guard.state(), HoldState::Held);
    server.say(&[grant(1, 7)]).await;
    sleep(Duration::from_millis(1)).await;
    assert_eq!(guard.state(), HoldState::Held);
    assert!(guard.is_held());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_confirmed_after_a_crash_is_lost_though_the_server_answers() {
    let (mut harbour, server, _client, guard) = Harbour::with_guard().await;
    sleep(Duration::from_secs(2)).await;
    drop(server);
    let server = harbour.resumed(2, GRACE).await;
    let _server = tokio::spawn(server.keep_alive());
    let begun = Instant::now();
    assert!(guard.valid_until() <= std::time::Instant::now() + Duration::from_millis(7_750));
    assert_eq!(guard.lost().await, LostReason::Expired);
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_millis(7_700) && waited < Duration::from_millis(7_800));
}

#[tokio::test(start_paused = true)]
async fn a_refused_reclaim_tells_the_holder_why() {
    let (mut harbour, server, _client, guard) = Harbour::with_guard().await;
    drop(server);
    let mut server = harbour.resumed(2, GRACE).await;
    server.hear().await;
    server.say(&[rejected(1, RejectionCode::NoGrace)]).await;
    assert_eq!(guard.lost().await, LostReason::NotReclaimed);
}

#[tokio::test(start_paused = true)]
async fn a_release_is_answered_over_the_next_connection() {
    let (mut harbour, mut server, _client, guard) = Harbour::with_guard().await;
    let release = tokio::spawn(guard.release());
    let expected = ClientMessage::Release { request: RequestId(1), token: FencingToken(7) };
    assert_eq!(server.hear().await, expected);
    drop(server);
    let mut server = harbour.resumed(2, Standing::Resumed).await;
    assert_eq!(server.hear().await, expected);
    assert_eq!(server.hear().await, account(1, &[], &[]));
    server.say(&[ServerMessage::Released { request: RequestId(1) }]).await;
    release.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_release_without_a_server_ends_with_the_lease() {
    let (harbour, mut server, _client, guard) = Harbour::with_guard().await;
    let begun = Instant::now();
    let release = tokio::spawn(guard.release());
    server.hear().await;
    harbour.close(true);
    drop(server);
    assert!(matches!(release.await.unwrap(), Err(Error::Unavailable { .. })));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn tries_and_timeouts_do_not_outwait_a_server_that_is_away() {
    let (harbour, server, client) = Harbour::with_client().await;
    harbour.close(true);
    drop(server);
    sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    let error = client.try_lock("printer").await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable { .. }) && error.is_retryable());
    assert!(begun.elapsed() < Duration::from_millis(1));
    let error = client.lock("printer").timeout(Duration::from_secs(3)).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_secs(3) && waited < Duration::from_millis(3_010));
}

#[tokio::test(start_paused = true)]
async fn a_request_given_up_while_away_is_never_heard_of() {
    let (mut harbour, server, client) = Harbour::with_client().await;
    harbour.close(true);
    drop(server);
    let request = client.lock("printer").into_future();
    assert!(timeout(Duration::from_secs(1), request).await.is_err());
    harbour.close(false);
    let mut server = harbour.arrival().await;
    server.hear().await;
    server.say(&[welcome_as(3, 2, Standing::Resumed)]).await;
    assert_eq!(server.hear().await, account(1, &[], &[]));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_over_is_followed_by_another() {
    let (mut harbour, server, client, guard) = Harbour::with_guard().await;
    drop(server);
    let mut server = harbour.arrival().await;
    server.hear().await;
    let code = RejectionCode::UnknownSession.number();
    server.say(&[goodbye(GoodbyeCode::Refused, code)]).await;
    assert_eq!(guard.lost().await, LostReason::Expired);
    let mut server = harbour.arrival().await;
    assert!(matches!(
        server.hear().await,
        ClientMessage::Hello(wire::Hello { attach: Attach::New, .. })
    ));
    let ServerMessage::Welcome { protocol, server: name, epoch, ttl_ms, generation, .. } =
        welcome_as(3, 1, Standing::Opened)
    else {
        panic!()
    };
    let (session, secret, standing) = (77, Secret::new(78), Standing::Opened);
    let welcome = ServerMessage::Welcome {
        protocol,
        server: name,
        epoch,
        session: SessionId::new(session),
        secret,
        generation,
        ttl_ms,
        standing,
    };
    server.say(&[welcome]).await;
    let guard = server.grant_next(&client, 8).await;
    assert_eq!((guard.token().number(), client.session().number()), (8, 77));
    assert!(guard.is_held());
}

#[tokio::test(start_paused = true)]
async fn a_word_cut_in_the_middle_breaks_no_rule() {
    let (mut harbour, mut server, _client, guard) = Harbour::with_guard().await;
    server.writer.write_all(&[20, 0, 0, 0, 1]).await.unwrap();
    drop(server);
    let mut server = harbour.resumed(2, Standing::Resumed).await;
    server.hear().await;
    assert!(guard.is_held());
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_replaced_while_the_lock_is_held() {
    let (mut harbour, mut silent, _client, guard) = Harbour::with_guard().await;
    let begun = Instant::now();
    let mut server = harbour.resumed(2, Standing::Resumed).await;
    assert!(begun.elapsed() < Duration::from_millis(3_200));
    assert_eq!(guard.state(), HoldState::Held);
    assert_eq!(server.hear().await, account(1, &[(1, 7)], &[]));
    assert!(silent.sees_keep_alive_and_end().await);
    let _server = tokio::spawn(server.keep_alive());
    sleep(Duration::from_secs(30)).await;
    assert_eq!(guard.state(), HoldState::Held);
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_is_said_over_a_second_connection_too() {
    let (mut harbour, mut silent, client, guard) = Harbour::with_guard().await;
    let mut second = harbour.arrival().await;
    second.hear().await;
    let closed = tokio::spawn(client.close());
    for server in [&mut silent, &mut second] {
        while server.hear().await != ClientMessage::Goodbye {}
    }
    // The server has done what was said over the one, and never hears the other.
    drop(second);
    closed.await.unwrap().unwrap();
    assert!(!guard.is_held());
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_not_answered_is_followed_by_another() {
    let (mut harbour, server, _client, guard) = Harbour::with_guard().await;
    drop(server);
    let _mute = harbour.arrival().await;
    let begun = Instant::now();
    let mut server = harbour.resumed(3, Standing::Resumed).await;
    assert!(begun.elapsed() < Duration::from_secs(4));
    server.hear().await;
    assert!(guard.is_held());
}

#[tokio::test(start_paused = true)]
async fn a_draining_server_loses_nobody_who_comes_back() {
    let (mut harbour, mut server, client, guard) = Harbour::with_guard().await;
    let waiting = tokio::spawn(client.lock("other").into_future());
    server.hear().await;
    harbour.close(true);
    server.say(&[rejected(2, RejectionCode::Draining), goodbye(GoodbyeCode::Draining, 0)]).await;
    assert!(matches!(waiting.await.unwrap(), Err(Error::Draining { .. })));
    drop(server);
    sleep(Duration::from_secs(3)).await;
    harbour.close(false);
    let mut server = harbour.arrival().await;
    server.hear().await;
    // Its next run, which knows everything.
    server.say(&[welcome_as(4, 2, Standing::Resumed)]).await;
    assert!(matches!(
        server.hear().await,
        ClientMessage::Reclaim(wire::Reclaim { request: RequestId(1), .. })
    ));
    assert_eq!(server.hear().await, account(2, &[(1, 7)], &[]));
    server.say(&[grant(1, 7)]).await;
    sleep(Duration::from_millis(1)).await;
    assert_eq!(guard.state(), HoldState::Held);
}

#[tokio::test(start_paused = true)]
async fn a_try_in_the_grace_period_says_when_to_ask_again() {
    let (mut server, client) = FakeServer::with_client().await;
    let request = tokio::spawn(async move { client.try_lock("printer").await });
    server.hear().await;
    server.say(&[rejected(1, RejectionCode::Grace)]).await;
    let error = request.await.unwrap().unwrap_err();
    assert!(error.is_retryable());
    assert!(error.to_string().ends_with("; try again after that, or wait for the lock"));
}

#[tokio::test(start_paused = true)]
async fn closing_while_away_says_that_nobody_was_told() {
    let (harbour, server, client, guard) = Harbour::with_guard().await;
    harbour.close(true);
    drop(server);
    sleep(Duration::from_secs(1)).await;
    assert!(matches!(client.close().await, Err(Error::Unavailable { .. })));
    assert!(!guard.is_held());
}

#[tokio::test(start_paused = true)]
async fn the_first_connection_is_made_once() {
    let (harbour, route) = Harbour::new();
    harbour.close(true);
    assert!(matches!(builder().connect_by(route).await, Err(Error::Unavailable { .. })));
    let (mut harbour, route) = Harbour::new();
    let client = tokio::spawn(builder().connect_by(route));
    drop(harbour.arrival().await);
    assert!(matches!(client.await.unwrap(), Err(Error::Unavailable { .. })));
}
