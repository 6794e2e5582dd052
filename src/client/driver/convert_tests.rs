//! Upgrades and downgrades: what is said, what comes back, and what is dropped half-way.

use tokio::time::{sleep, timeout};

use super::fake_server::{FakeServer, Harbour, grant, rejected};
use super::*;
use crate::client::{Client, ConvertError, HoldState, LockGuard};
use crate::types::{FencingToken, OwnerId, RejectionCode, RequestId};
use crate::wire::{self, ClientMessage, Mode, RawClaim, ServerMessage, Standing, Wait};

/// A client that holds `printer` shared, by request 1 with token 7.
async fn reader() -> (FakeServer, Client, LockGuard) {
    let (mut server, client) = FakeServer::with_client().await;
    let guard = tokio::spawn(client.lock("printer").shared().note("why").into_future());
    server.hear().await;
    server.say(&[grant(1, 7)]).await;
    (server, client, guard.await.unwrap().unwrap())
}

/// What is asked for next: what it converts, in which modes, and how long it waits.
async fn conversion(server: &mut FakeServer) -> (Option<RequestId>, Vec<Mode>, Wait) {
    match server.hear().await {
        ClientMessage::Request(wire::Request { converts, claims, wait, .. }) => {
            (converts, claims.iter().map(|claim| claim.mode).collect(), wait)
        }
        other => panic!("{other:?}"),
    }
}

fn lost(request: u64, token: u64) -> ServerMessage {
    ServerMessage::Lost {
        request: RequestId::new(request),
        token: FencingToken::new(token),
        reason: LostReason::Revoked,
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_has_a_token_of_its_own_and_is_released_by_it() {
    let (mut server, _client, guard) = reader().await;
    let upgrade = tokio::spawn(guard.upgrade().into_future());
    let ClientMessage::Request(wire::Request {
        request: RequestId(2),
        converts: Some(RequestId(1)),
        claims,
        note,
        wait,
        ..
    }) = server.hear().await
    else {
        panic!()
    };
    let claim = RawClaim { name: "printer".into(), mode: Mode::Exclusive };
    assert_eq!((&claims[..], &note[..], wait), (&[claim][..], "why", Wait::Forever));
    server.say(&[grant(2, 9)]).await;
    let guard = upgrade.await.unwrap().unwrap();
    assert_eq!((guard.token().number(), guard.name()), (9, "printer"));
    assert_eq!(guard.state(), HoldState::Held);
    let release = tokio::spawn(guard.release());
    assert_eq!(
        server.hear().await,
        ClientMessage::Release { request: RequestId(2), token: FencingToken(9) }
    );
    server.say(&[ServerMessage::Released { request: RequestId(2) }]).await;
    release.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_downgrade_keeps_the_token_and_can_be_upgraded_again() {
    let (mut server, _client, guard) = FakeServer::with_guard().await;
    let downgrade = tokio::spawn(guard.downgrade());
    let asked = conversion(&mut server).await;
    assert_eq!(asked, (Some(RequestId(1)), vec![Mode::Shared], Wait::Forever));
    server.say(&[grant(2, 7)]).await;
    let guard = downgrade.await.unwrap().unwrap();
    assert_eq!(guard.token().number(), 7);
    let upgrade = tokio::spawn(guard.upgrade().timeout(Duration::from_secs(1)).into_future());
    let asked = conversion(&mut server).await;
    assert_eq!(asked, (Some(RequestId(2)), vec![Mode::Exclusive], Wait::millis(1_000)));
    server.say(&[grant(3, 8)]).await;
    assert_eq!(upgrade.await.unwrap().unwrap().token().number(), 8);
    assert_eq!(
        server.hear().await,
        ClientMessage::Release { request: RequestId(3), token: FencingToken(8) }
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_upgrade_gives_the_guard_back_as_it_was() {
    let (mut server, _client, mut guard) = reader().await;
    for (request, code) in [(2, RejectionCode::Busy), (3, RejectionCode::Deadlock)] {
        let upgrade = tokio::spawn(guard.upgrade().nonblocking().into_future());
        assert_eq!(conversion(&mut server).await.2, Wait::Never);
        server.say(&[rejected(request, code)]).await;
        let failed = upgrade.await.unwrap().unwrap_err();
        match code {
            RejectionCode::Busy => assert!(matches!(failed.error, Error::Busy { .. })),
            _ => assert_eq!(failed.to_string(), "rejected (Deadlock): for a test"),
        }
        guard = failed.guard;
        assert!(guard.is_held());
        assert_eq!(guard.token().number(), 7);
    }
    drop(guard);
    assert_eq!(
        server.hear().await,
        ClientMessage::Release { request: RequestId(1), token: FencingToken(7) }
    );
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_is_dropped_gives_up_everything() {
    let (mut server, client, guard) = reader().await;
    let upgrade = guard.upgrade().into_future();
    assert!(timeout(Duration::from_millis(1), upgrade).await.is_err());
    assert_eq!(conversion(&mut server).await.0, Some(RequestId(1)));
    assert_eq!(server.hear().await, ClientMessage::Cancel { request: RequestId(2) });
    assert_eq!(
        server.hear().await,
        ClientMessage::Release { request: RequestId(1), token: FencingToken(7) }
    );
    let answers = [
        // It crosses the cancel.
        grant(2, 9),
        ServerMessage::Cancelled { request: RequestId(2) },
        ServerMessage::Released { request: RequestId(1) },
    ];
    server.say(&answers).await;
    assert!(server.grant_next(&client, 10).await.is_held());
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_is_dropped_before_it_was_sent_releases() {
    let (mut server, _client, guard) = reader().await;
    let mut upgrade = guard.upgrade().into_future();
    assert!(futures_util::future::poll_immediate(&mut upgrade).await.is_none());
    drop(upgrade);
    assert_eq!(
        server.hear().await,
        ClientMessage::Release { request: RequestId(1), token: FencingToken(7) }
    );
    server.say(&[ServerMessage::Released { request: RequestId(1) }]).await;
    let (mut server, _client, guard) = reader().await;
    drop(guard.upgrade());
    assert_eq!(
        server.hear().await,
        ClientMessage::Release { request: RequestId(1), token: FencingToken(7) }
    );
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_was_granted_to_nobody_is_cancelled() {
    let (mut server, client, guard) = reader().await;
    let mut upgrade = guard.upgrade().into_future();
    assert!(futures_util::future::poll_immediate(&mut upgrade).await.is_none());
    server.hear().await;
    server.say(&[grant(2, 9)]).await;
    sleep(Duration::from_millis(1)).await;
    drop(upgrade);
    assert_eq!(server.hear().await, ClientMessage::Cancel { request: RequestId(2) });
    server.say(&[ServerMessage::Cancelled { request: RequestId(2) }]).await;
    assert!(server.grant_next(&client, 10).await.is_held());
}

#[tokio::test(start_paused = true)]
async fn a_loss_is_told_whatever_the_guard_has_become() {
    // Of what an upgrade has become, to who asked before.
    let (mut server, _client, guard) = reader().await;
    let is_lost = guard.lost();
    let upgrade = tokio::spawn(guard.upgrade().into_future());
    server.hear().await;
    server.say(&[grant(2, 9)]).await;
    let guard = upgrade.await.unwrap().unwrap();
    server.say(&[lost(2, 9)]).await;
    assert_eq!(is_lost.await, LostReason::Revoked);
    assert!(matches!(guard.release().await, Err(Error::Lost { token, .. }) if token.number() == 9));
    // While the upgrade waits.
    let (mut server, _client, guard) = reader().await;
    let upgrade = tokio::spawn(guard.upgrade().into_future());
    server.hear().await;
    server.say(&[lost(1, 7)]).await;
    let ConvertError { guard, error } = upgrade.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Lost { reason: LostReason::Revoked, .. }), "{error:?}");
    assert!(!guard.is_held());
    assert_eq!(server.hear().await, ClientMessage::Cancel { request: RequestId(2) });
    // Before it was asked for.
    let failed = guard.upgrade().await.unwrap_err();
    assert!(matches!(failed.error, Error::Lost { reason: LostReason::Revoked, .. }));
}

#[tokio::test(start_paused = true)]
async fn run_goes_on_over_a_conversion_and_ends_with_its_release() {
    let (mut server, client) = FakeServer::with_client().await;
    let run = client.lock("printer").shared().run(|guard| async move {
        let _writer = guard.upgrade().await.unwrap();
    });
    let run = tokio::spawn(run);
    for (request, token) in [(1, 7), (2, 9)] {
        server.hear().await;
        server.say(&[grant(request, token)]).await;
    }
    assert_eq!(
        server.hear().await,
        ClientMessage::Release { request: RequestId(2), token: FencingToken(9) }
    );
    sleep(Duration::from_millis(1)).await;
    assert!(!run.is_finished());
    server.say(&[ServerMessage::Released { request: RequestId(2) }]).await;
    run.await.unwrap().unwrap();
    // And it stops the work if what the lock has become is lost.
    let run = client.lock("printer").shared().run(|guard| async move {
        let _writer = guard.upgrade().await.unwrap();
        std::future::pending::<()>().await;
    });
    let run = tokio::spawn(run);
    for (request, token) in [(3, 10), (4, 11)] {
        server.hear().await;
        server.say(&[grant(request, token)]).await;
    }
    server.say(&[lost(4, 11)]).await;
    let outcome = run.await.unwrap();
    assert!(matches!(outcome, Err(Error::Lost { token, .. }) if token.number() == 11));
}

#[tokio::test(start_paused = true)]
async fn there_is_nothing_to_ask_if_nothing_would_change() {
    let (mut server, client, guard) = FakeServer::with_guard().await;
    let guard = guard.upgrade().await.unwrap();
    assert!(guard.is_held());
    let permit = tokio::spawn(client.semaphore("gpu", 2).acquire().into_future());
    server.hear().await;
    server.say(&[grant(2, 8)]).await;
    let permit = permit.await.unwrap().unwrap();
    let ConvertError { guard: permit, error } = permit.upgrade().await.unwrap_err();
    assert!(matches!(error, Error::InvalidRequest { .. }));
    assert!(permit.is_held());
    drop(guard);
    assert_eq!(
        server.hear().await,
        ClientMessage::Release { request: RequestId(1), token: FencingToken(7) }
    );
}

#[tokio::test(start_paused = true)]
async fn of_several_locks_the_plain_ones_are_converted_by_the_same_owner() {
    let (mut server, client) = FakeServer::with_client().await;
    let owner = client.owner();
    let request = owner.lock_all(["a"]).shared("b").permits("c", 1, 2);
    let guard = tokio::spawn(request.into_future());
    server.hear().await;
    server.say(&[grant(1, 7)]).await;
    let guard = guard.await.unwrap().unwrap();
    let _downgrade = tokio::spawn(guard.downgrade());
    let ClientMessage::Request(wire::Request { owner, converts, claims, .. }) = server.hear().await
    else {
        panic!()
    };
    assert_eq!((owner, converts), (OwnerId(1), Some(RequestId(1))));
    let modes: Vec<Mode> = claims.iter().map(|claim| claim.mode).collect();
    assert_eq!(modes, [Mode::Shared, Mode::Shared, Mode::Permits { take: 1, of: 2 }]);
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_outlives_its_connection_and_the_crash_of_its_server() {
    let (mut harbour, mut server, client) = Harbour::with_client().await;
    let reader = tokio::spawn(client.lock("printer").shared().into_future());
    server.hear().await;
    server.say(&[grant(1, 7)]).await;
    let upgrade = tokio::spawn(reader.await.unwrap().unwrap().upgrade().into_future());
    server.hear().await;
    drop(server);
    let mut server =
        harbour.resumed(2, Standing::Reopened { grace: Duration::from_millis(10_250) }).await;
    assert!(matches!(
        server.hear().await,
        ClientMessage::Reclaim(wire::Reclaim { request: RequestId(1), token: FencingToken(7), .. })
    ));
    assert_eq!(conversion(&mut server).await.0, Some(RequestId(1)));
    server.say(&[grant(1, 7)]).await;
    sleep(Duration::from_secs(1)).await;
    server.say(&[grant(2, 9)]).await;
    let guard = upgrade.await.unwrap().unwrap();
    assert_eq!((guard.token().number(), guard.state()), (9, HoldState::Held));
}
