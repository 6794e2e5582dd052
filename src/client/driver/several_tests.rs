//! Requests for several locks, owners and semaphores: what is said, and what callers hear.

use smallvec::{SmallVec, smallvec};

use super::fake_server::{FakeServer, grant, rejected};
use super::*;
use crate::types::{
    Cycle, FencingToken, Identity, LockName, OwnerId, RejectionCode, RequestId, SessionId,
};
use crate::wire::{self, ClientMessage, CycleLink, Mode, RawClaim, ServerMessage, Wait};

fn claim(name: &str, mode: Mode) -> RawClaim {
    RawClaim { name: name.into(), mode }
}

/// The owner and the claims of what the client asks for next.
async fn asked(server: &mut FakeServer) -> (u64, SmallVec<[RawClaim; 1]>) {
    match server.hear().await {
        ClientMessage::Request(wire::Request { owner, claims, .. }) => (owner.number(), claims),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn several_locks_are_one_request_with_one_guard_and_one_token() {
    let (mut server, client) = FakeServer::with_client().await;
    let request = client.lock_all(["b", "a"]).shared("c").permits("d", 2, 3).exclusive("e");
    let request = tokio::spawn(request.timeout(Duration::from_secs(1)).note("all").into_future());
    let ClientMessage::Request(wire::Request { claims, wait, note, .. }) = server.hear().await
    else {
        panic!()
    };
    assert_eq!((wait, &note[..]), (Wait::millis(1_000), "all"));
    let expected = [
        claim("b", Mode::Exclusive),
        claim("a", Mode::Exclusive),
        claim("c", Mode::Shared),
        claim("d", Mode::Permits { take: 2, of: 3 }),
        claim("e", Mode::Exclusive),
    ];
    assert_eq!(claims[..], expected);
    server.say(&[grant(1, 7)]).await;
    let guard = request.await.unwrap().unwrap();
    let names: Vec<_> = guard.names().iter().map(crate::types::LockName::as_str).collect();
    assert_eq!((names, guard.token().number()), (vec!["b", "a", "c", "d", "e"], 7));
    drop(guard);
    assert_eq!(
        server.hear().await,
        ClientMessage::Release { request: RequestId(1), token: FencingToken(7) }
    );
}

#[tokio::test(start_paused = true)]
async fn several_locks_may_be_held_for_as_long_as_work_runs() {
    let (mut server, client) = FakeServer::with_client().await;
    let run = client.lock_all(["a", "b"]).run(|guard| async move { guard.names().len() });
    let run = tokio::spawn(run);
    server.hear().await;
    server.say(&[grant(1, 7)]).await;
    assert_eq!(
        server.hear().await,
        ClientMessage::Release { request: RequestId(1), token: FencingToken(7) }
    );
    server.say(&[ServerMessage::Released { request: RequestId(1) }]).await;
    assert_eq!(run.await.unwrap().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_asked_for_together_is_refused_by_name_before_anything_is_sent() {
    let (mut server, client) = FakeServer::with_client().await;
    let names = |count: usize| (0..count).map(|number| format!("lock {number}"));
    let impossible = [
        (client.lock_all(names(65)), "\"lock 64\""),
        (client.lock_all(names(64)).shared("more"), "\"more\""),
        (client.lock_all(["a", "b", "a"]), "\"a\""),
        (client.lock_all(["a"]).shared("a"), "\"a\""),
        (client.lock_all([] as [&str; 0]), "at least one"),
        (client.lock_all(["a", ""]), "\"\""),
        (client.lock_all(["a", "b\n"]), "\"b\\n\""),
        (client.lock_all(["a"]).permits("gpu", 3, 2), "\"gpu\""),
        (client.lock_all(["x".repeat(300)]), "xxx\"…"),
    ];
    for (request, named) in impossible {
        let error = request.await.unwrap_err();
        assert!(matches!(&error, Error::InvalidRequest { .. }), "{error:?}");
        assert!(error.to_string().contains(named), "{error}");
    }
    let most = tokio::spawn(client.lock_all(names(64)).into_future());
    assert_eq!(asked(&mut server).await.1.len(), 64);
    most.abort();
}

#[tokio::test(start_paused = true)]
async fn owners_are_numbered_from_1_and_whoever_is_none_is_0() {
    let (mut server, client) = FakeServer::with_client().await;
    let (first, second) = (client.owner(), client.clone().owner());
    assert_eq!((first.id(), second.id()), (OwnerId(1), OwnerId(2)));
    let requests = [
        first.lock("a"),
        second.lock("a"),
        first.clone().lock("a"),
        client.lock("a"),
        client.semaphore("a", 3).acquire(),
    ];
    for (request, owner) in requests.into_iter().zip([1, 2, 1, 0, 0]) {
        let request = tokio::spawn(request.into_future());
        assert_eq!(asked(&mut server).await.0, owner);
        request.abort();
        assert!(matches!(server.hear().await, ClientMessage::Cancel { .. }));
    }
    let all = tokio::spawn(second.lock_all(["a", "b"]).into_future());
    assert_eq!(asked(&mut server).await.0, 2);
    all.abort();
}

#[tokio::test(start_paused = true)]
async fn a_deadlock_is_told_as_a_circle_with_a_way_out() {
    let link = |identity: &str, owner, lock: &str, held_with| CycleLink {
        session: SessionId(42),
        identity: Identity::new(identity).unwrap(),
        owner,
        request: RequestId(9),
        lock: LockName::new(lock).unwrap(),
        held_with,
    };
    let (mut server, client) = FakeServer::with_client().await;
    let request = tokio::spawn(client.owner().lock("right").into_future());
    server.hear().await;
    let links = vec![
        link("ann@a:1", OwnerId(1), "right", Some(FencingToken(7))),
        link("ann@a:1", OwnerId(2), "up", None),
        link("bob@b:2", OwnerId(0), "left", Some(FencingToken(5))),
    ];
    let cycle = Cycle { links, is_cut: false };
    let (code, message) = (RejectionCode::Deadlock.number(), String::new());
    let deadlock = ServerMessage::Rejected {
        request: RequestId(1),
        code: RejectionCode::from_number(code),
        message,
        lock: None,
        cycle,
    };
    server.say(&[deadlock]).await;
    let error = request.await.unwrap().unwrap_err();
    assert!(matches!(&error, Error::Deadlock { cycle } if cycle.links.len() == 3), "{error:?}");
    assert!(error.is_retryable());
    assert_eq!(
        error.to_string(),
        "deadlock: ann@a:1 (owner 1) would wait for \"right\" of ann@a:1 (owner 2), token 7; \
         ann@a:1 (owner 2) waits for \"up\" in line behind bob@b:2 (request 9); \
         bob@b:2 (request 9) waits for \"left\" of ann@a:1 (owner 1), token 5; \
         release what you hold and retry, or request all locks at once"
    );
}

#[tokio::test(start_paused = true)]
async fn what_an_owner_holds_already_is_told_with_a_way_out() {
    let (mut server, client) = FakeServer::with_client().await;
    let owner = client.owner();
    let again = tokio::spawn(async move { owner.try_lock("printer").await });
    server.hear().await;
    server.say(&[rejected(1, RejectionCode::AlreadyHeld)]).await;
    let error = again.await.unwrap().unwrap_err();
    assert!(matches!(&error, Error::Rejected { code: RejectionCode::AlreadyHeld, .. }));
    assert!(error.to_string().ends_with("release that first"), "{error}");
    assert!(!error.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn a_semaphore_is_a_lock_of_so_many_permits() {
    let (mut server, client) = FakeServer::with_client().await;
    let semaphore = client.semaphore("gpu", 4);
    let many = tokio::spawn(semaphore.acquire_many(3).into_future());
    let permits = |take| smallvec![claim("gpu", Mode::Permits { take, of: 4 })];
    assert_eq!(asked(&mut server).await.1, permits(3));
    server.say(&[grant(1, 7)]).await;
    assert!(many.await.unwrap().unwrap().is_held());
    assert_eq!(
        server.hear().await,
        ClientMessage::Release { request: RequestId(1), token: FencingToken(7) }
    );
    for (answer, is_some) in [(rejected(2, RejectionCode::Busy), false), (grant(3, 8), true)] {
        let semaphore = semaphore.clone();
        let one = tokio::spawn(async move { semaphore.try_acquire().await });
        let ClientMessage::Request(wire::Request { claims, wait, .. }) = server.hear().await else {
            panic!()
        };
        assert_eq!((claims, wait), (permits(1), Wait::Never));
        server.say(&[answer]).await;
        assert_eq!(one.await.unwrap().unwrap().is_some(), is_some);
    }
    assert!(matches!(semaphore.acquire_many(5).await, Err(Error::InvalidRequest { .. })));
    assert!(matches!(
        client.semaphore("", 4).try_acquire().await,
        Err(Error::InvalidRequest { .. })
    ));
}
