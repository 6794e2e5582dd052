//! Stories of runs that follow one another on the same state. A run ends where its block of tasks is
//! dropped: nobody is told and nothing is saved, as by `kill -9`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::server::durable::store::{MemoryStore, StateStore};
use crate::server::messages::Save;
use crate::server::testing::{
    Bench, FakeSession, FlakyStore, hello, local, release, request, settle, try_request,
};
use crate::types::{
    FencingToken, Generation, GoodbyeCode, LostReason, RejectionCode, RequestId, Seal, Secret,
    SessionId,
};
use crate::wire::{
    self, Attach, ClientMessage, Extra, Mode, RawClaim, SealedTicket, ServerMessage, Standing,
};

/// What a client remembers of its session.
#[derive(Clone, Copy)]
struct Known {
    session: u128,
    secret: Secret,
}

/// What a client remembers of a grant.
#[derive(Clone, Copy)]
struct Grant {
    token: u64,
    seal: Seal,
}

fn store() -> Arc<MemoryStore> {
    Arc::default()
}

/// Says Hello, and gives what the Welcome says.
async fn greet(bench: &mut Bench, attach: Attach) -> (FakeSession, Known, Standing) {
    let connection = bench.connect();
    connection.submit(vec![hello(attach)]);
    // The first session is welcomed when its ttl is on disk.
    settle().await;
    match connection.take()[..] {
        [ServerMessage::Welcome { session, secret, standing, .. }] => {
            (connection, Known { session: session.number(), secret }, standing)
        }
        ref other => panic!("not welcome: {other:?}"),
    }
}

async fn open(bench: &mut Bench) -> (FakeSession, Known) {
    let (connection, known, standing) = greet(bench, Attach::New).await;
    assert_eq!(standing, Standing::Opened);
    (connection, known)
}

fn resume(Known { session, secret }: Known, generation: u64) -> Attach {
    Attach::Resume {
        session: SessionId::new(session),
        secret,
        generation: Generation::new(generation),
    }
}

/// The second connection of a session, in a grace period.
async fn reopen(bench: &mut Bench, known: Known) -> FakeSession {
    let (connection, again, standing) = greet(bench, resume(known, 2)).await;
    assert_eq!(again.session, known.session);
    assert_ne!(again.secret, known.secret, "each run proves it anew");
    let Standing::Reopened { grace } = standing else { panic!("{standing:?}") };
    assert!(grace <= Duration::from_millis(10_250) && !grace.is_zero(), "{grace:?}");
    connection
}

/// Asks for a lock that is free.
async fn hold(connection: &FakeSession, id: u64, name: &str) -> Grant {
    connection.submit(vec![request(id, name)]);
    settle().await;
    grant_of(&connection.take())
}

fn grant_of(messages: &[ServerMessage]) -> Grant {
    match messages {
        [ServerMessage::Grant { token, seal, .. }] => Grant { token: token.number(), seal: *seal },
        other => panic!("not a grant: {other:?}"),
    }
}

fn reclaim(id: u64, name: &str, Grant { token, seal }: Grant) -> ClientMessage {
    ClientMessage::Reclaim(wire::Reclaim::new(
        RequestId::new(id),
        FencingToken::new(token),
        seal,
        [RawClaim { name: name.into(), mode: Mode::Exclusive }],
    ))
}

fn with_ticket(mut request: ClientMessage, shown: SealedTicket) -> ClientMessage {
    if let ClientMessage::Request(wire::Request { ticket, .. }) = &mut request {
        *ticket = Some(shown);
    }
    request
}

/// The code of the one rejection that has come.
fn rejected(connection: &FakeSession) -> RejectionCode {
    match connection.take()[..] {
        [ServerMessage::Rejected { code, .. }] => code,
        ref other => panic!("not a rejection: {other:?}"),
    }
}

async fn refused(bench: &mut Bench, attach: Attach) -> RejectionCode {
    let connection = bench.connect();
    connection.submit(vec![hello(attach)]);
    settle().await;
    match connection.take()[..] {
        [ServerMessage::Goodbye { code, rejection, .. }] => {
            assert_eq!(code, GoodbyeCode::Refused);
            rejection
        }
        ref other => panic!("not refused: {other:?}"),
    }
}

/// Says something often enough not to be forgotten, for so long.
async fn stay(connections: &[&FakeSession], length: Duration) {
    for _ in 0..length.as_secs() {
        for connection in connections {
            connection.submit(vec![ClientMessage::KeepAlive { sequence: 0 }]);
        }
        sleep(Duration::from_secs(1)).await;
    }
}

fn without_keep_alives(connection: &FakeSession) -> Vec<ServerMessage> {
    let mut messages = connection.take();
    messages.retain(|message| !matches!(message, ServerMessage::KeptAlive { .. }));
    messages
}

/// Stops in order; returns when everything is saved.
async fn save(bench: &Bench) {
    let (saved, done) = oneshot::channel();
    bench.coordinator.do_send(Save { saved });
    done.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_a_holder_keeps_its_lock_and_token_and_nobody_else_gets_it() {
    let store = store();
    let (known, held) = local(async {
        let mut bench = Bench::run(&store);
        let (holder, known) = open(&mut bench).await;
        (known, hold(&holder, 1, "printer").await)
    })
    .await;
    local(async {
        let mut bench = Bench::run(&store);
        let (newcomer, _) = open(&mut bench).await;
        newcomer.submit(vec![request(1, "printer"), try_request(2, "free")]);
        settle().await;
        match newcomer.take()[..] {
            [
                ServerMessage::Queued { request: RequestId(1), position: 1, .. },
                ServerMessage::Rejected { request: RequestId(2), code, .. },
            ] => assert_eq!(code, RejectionCode::Grace),
            ref other => panic!("{other:?}"),
        }
        let holder = reopen(&mut bench, known).await;
        holder.submit(vec![reclaim(1, "printer", held)]);
        settle().await;
        let again = grant_of(&holder.take());
        assert_eq!(again.token, held.token);
        assert_ne!(again.seal, held.seal, "each run seals it anew");

        stay(&[&holder, &newcomer], Duration::from_secs(12)).await;
        assert_eq!(without_keep_alives(&newcomer), vec![]);
        without_keep_alives(&holder);
        holder.submit(vec![release(1, held.token)]);
        settle().await;
        assert_eq!(holder.take(), vec![ServerMessage::Released { request: RequestId(1) }]);
        assert!(grant_of(&newcomer.take()).token > held.token);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_forged_is_refused() {
    let store = store();
    let (known, other, held) = local(async {
        let mut bench = Bench::run(&store);
        let (holder, known) = open(&mut bench).await;
        let (_, other) = open(&mut bench).await;
        (known, other, hold(&holder, 1, "printer").await)
    })
    .await;
    local(async {
        let mut bench = Bench::run(&store);
        let Known { session, secret } = known;
        let forged = Known { session, secret: Secret::new(secret.reveal() ^ 1) };
        assert_eq!(refused(&mut bench, resume(forged, 2)).await, RejectionCode::UnknownSession);
        let swapped = Known { session, secret: other.secret };
        assert_eq!(refused(&mut bench, resume(swapped, 2)).await, RejectionCode::UnknownSession);

        let holder = reopen(&mut bench, known).await;
        let thief = reopen(&mut bench, other).await;
        let wrong_seal = Grant { seal: Seal::new(held.seal.reveal() ^ (1 << 127)), ..held };
        let wrong_token = Grant { token: held.token + 1, ..held };
        for (who, forged) in [
            (&holder, reclaim(1, "printer", wrong_seal)),
            (&holder, reclaim(1, "printer", wrong_token)),
            (&holder, reclaim(1, "scanner", held)),
            (&holder, reclaim(2, "printer", held)),
            (&thief, reclaim(1, "printer", held)),
        ] {
            who.submit(vec![forged]);
            settle().await;
            assert_eq!(rejected(who), RejectionCode::SealMismatch);
        }
        holder.submit(vec![reclaim(1, "printer", held)]);
        settle().await;
        assert_eq!(grant_of(&holder.take()).token, held.token);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_waited_for_its_welcome_is_answered_after_it() {
    let store = store();
    local(async {
        let mut bench = Bench::run(&store);
        let early = bench.connect();
        // Not yet welcome, for its ttl is not on disk.
        let forged = Grant { token: 1, seal: Seal::new(1) };
        early.submit(vec![hello(Attach::New), reclaim(1, "printer", forged)]);
        settle().await;
        let messages = early.take();
        assert!(
            matches!(messages[..], [ServerMessage::Welcome { .. }, ServerMessage::Rejected { .. }]),
            "{messages:?}"
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_the_queue_is_in_its_old_order_whoever_comes_back_first() {
    let store = store();
    let (known, tickets) = local(async {
        let mut bench = Bench::run(&store);
        let (holder, _) = open(&mut bench).await;
        hold(&holder, 1, "printer").await;
        let (mut known, mut tickets) = (Vec::new(), Vec::new());
        for place in 1..=3 {
            let (waiter, session) = open(&mut bench).await;
            waiter.submit(vec![request(1, "printer")]);
            settle().await;
            let (position, ticket) = waiter.take_queued(1);
            assert_eq!(position, place);
            known.push(session);
            tickets.push(ticket);
        }
        (known, tickets)
    })
    .await;
    local(async {
        let mut bench = Bench::run(&store);
        let (newcomer, _) = open(&mut bench).await;
        newcomer.submit(vec![request(1, "printer")]);
        settle().await;
        newcomer.take_queued(1);
        let mut waiters = Vec::new();
        for i in [2, 0, 1] {
            let waiter = reopen(&mut bench, known[i]).await;
            waiter.submit(vec![with_ticket(request(1, "printer"), tickets[i])]);
            settle().await;
            assert_ne!(waiter.take_queued(1).1, tickets[i], "each run proves it anew");
            waiters.push((i, waiter));
        }
        waiters.sort_by_key(|(i, _)| *i);
        let mut line: Vec<&FakeSession> = waiters.iter().map(|(_, waiter)| waiter).collect();
        line.push(&newcomer);
        stay(&line, Duration::from_secs(11)).await;
        // The holder did not come back, and now they get it one after the other.
        let mut last = 0;
        for (i, next) in line.iter().enumerate() {
            let Grant { token, .. } = grant_of(&without_keep_alives(next));
            assert!(token > last);
            last = token;
            for behind in &line[i + 1..] {
                assert_eq!(without_keep_alives(behind), vec![]);
            }
            next.submit(vec![release(1, token)]);
            settle().await;
            next.take();
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_kept_no_longer_because_nobody_was_there_before_the_stop() {
    let store = store();
    local(async {
        let mut bench = Bench::run(&store);
        let (holder, _) = open(&mut bench).await;
        let ClientMessage::Request(asked) = request(1, "nightly") else { unreachable!() };
        let extras = vec![Extra::AtLeast { ms: 3_600_000 }];
        holder.submit(vec![ClientMessage::RequestWith { request: Box::new(asked), extras }]);
        settle().await;
        holder.take_grant(1);
        holder.submit(vec![ClientMessage::Goodbye]);
        sleep(Duration::from_secs(3_000)).await;
        save(&bench).await;
    })
    .await;
    local(async {
        let mut bench = Bench::run(&store);
        for (wait, is_free) in [(0, false), (595, false), (5, true)] {
            sleep(Duration::from_secs(wait)).await;
            let (other, _) = open(&mut bench).await;
            other.submit(vec![try_request(1, "nightly")]);
            settle().await;
            let granted = matches!(other.take()[..], [ServerMessage::Grant { .. }]);
            assert_eq!(granted, is_free, "{wait} s later");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn after_an_orderly_stop_everything_is_as_it_was_and_a_crash_later_is_a_crash() {
    let store = store();
    let (holder, held, waiter) = local(async {
        let mut bench = Bench::run(&store);
        let (holder, held_by) = open(&mut bench).await;
        let held = hold(&holder, 1, "printer").await;
        let (waiter, waits) = open(&mut bench).await;
        waiter.submit(vec![request(1, "printer")]);
        settle().await;
        waiter.take_queued(1);
        save(&bench).await;
        // Too late: nothing is done, and nothing is answered.
        holder.submit(vec![release(1, held.token)]);
        holder.disconnect();
        sleep(Duration::from_secs(60)).await;
        for connection in [&holder, &waiter] {
            let goodbye = GoodbyeCode::Draining;
            assert!(matches!(connection.take()[..],
                [ServerMessage::Goodbye { code, .. }] if code == goodbye));
        }
        (held_by, held, waits)
    })
    .await;
    local(async {
        let mut bench = Bench::run(&store);
        assert_eq!(store.load().unwrap().snapshot, None);
        let (first, _, standing) = greet(&mut bench, resume(holder, 2)).await;
        assert_eq!(standing, Standing::Resumed);
        let (second, _, standing) = greet(&mut bench, resume(waiter, 2)).await;
        assert_eq!(standing, Standing::Resumed);
        // No grace: what is free is granted. And what was asked again changes nothing.
        second.submit(vec![try_request(2, "free")]);
        first.submit(vec![request(1, "printer")]);
        settle().await;
        assert!(grant_of(&second.take()).token > held.token);
        let again = grant_of(&first.take());
        assert_eq!(again.token, held.token);
        assert_ne!(again.seal, held.seal, "each run seals it anew");
        first.submit(vec![release(1, held.token)]);
        settle().await;
        assert!(second.take_grant(1) > held.token);
    })
    .await;
    local(async {
        let mut bench = Bench::run(&store);
        let (_, _, standing) = greet(&mut bench, resume(waiter, 3)).await;
        assert!(matches!(standing, Standing::Reopened { .. }), "{standing:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_expired_holders_lock_passes_on_only_when_that_is_on_record() {
    let store = Arc::new(FlakyStore::default());
    let (known, held) = local(async {
        let mut bench = Bench::run(&store);
        let (holder, known) = open(&mut bench).await;
        let held = hold(&holder, 1, "printer").await;
        let (waiter, _) = open(&mut bench).await;
        waiter.submit(vec![request(1, "printer")]);
        settle().await;
        waiter.take_queued(1);
        store.fail(true);
        stay(&[&waiter], Duration::from_secs(30)).await;
        match &holder.take()[..] {
            [ServerMessage::Lost { reason, .. }, ServerMessage::Goodbye { .. }] => {
                assert_eq!(*reason, LostReason::Expired);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(without_keep_alives(&waiter), vec![], "in limbo while the disk is full");
        store.fail(false);
        stay(&[&waiter], Duration::from_secs(11)).await;
        assert!(grant_of(&without_keep_alives(&waiter)).token > held.token);
        (known, held)
    })
    .await;
    local(async {
        let mut bench = Bench::run(&store);
        // The one who lost it cannot come back for it.
        assert_eq!(refused(&mut bench, resume(known, 2)).await, RejectionCode::UnknownSession);
        let (other, _) = open(&mut bench).await;
        other.submit(vec![reclaim(1, "printer", held)]);
        settle().await;
        assert_eq!(rejected(&other), RejectionCode::SealMismatch);
        stay(&[&other], Duration::from_secs(11)).await;
        let kept = store.load().unwrap().forfeits.len();
        assert_eq!(kept, 1, "another lease may have been longer than this grace period");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_stood_still_blames_nobody() {
    local(async {
        let mut bench = Bench::run(&store());
        let (holder, _) = open(&mut bench).await;
        let held = hold(&holder, 1, "printer").await;
        let (waiter, _) = open(&mut bench).await;
        waiter.submit(vec![request(1, "printer")]);
        settle().await;
        waiter.take_queued(1);
        sleep(Duration::from_secs(3)).await;
        // Twice the ttl.
        bench.clock.stand_still(Duration::from_secs(20));
        sleep(Duration::from_secs(5)).await;
        assert_eq!((holder.take(), waiter.take()), (vec![], vec![]));
        holder.submit(vec![release(1, held.token)]);
        settle().await;
        assert_eq!(holder.take(), vec![ServerMessage::Released { request: RequestId(1) }]);
        waiter.take_grant(1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn where_nobody_was_welcomed_there_is_no_grace() {
    let store = store();
    local(async {
        let mut bench = Bench::run(&store);
        let observer = bench.connect();
        observer.submit(vec![hello(Attach::Observer)]);
        settle().await;
    })
    .await;
    local(async {
        let mut bench = Bench::run(&store);
        let (first, _) = open(&mut bench).await;
        hold(&first, 1, "printer").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn tokens_grow_over_ten_crashes_and_a_lost_state() {
    let mut last = 0;
    let mut store = store();
    for run in 0..10 {
        if run == 5 {
            store = Arc::default();
        }
        local(async {
            let mut bench = Bench::run(&store);
            let client = bench.connect();
            // Ten starts in no time are ahead of the wall clock, but clients have seen how far.
            let mut greeting = hello(Attach::New);
            if let ClientMessage::Hello(wire::Hello { token_seen, .. }) = &mut greeting {
                *token_seen = FencingToken::new(last);
            }
            client.submit(vec![greeting, request(1, "printer")]);
            stay(&[&client], Duration::from_secs(11)).await;
            let said = without_keep_alives(&client);
            let Grant { token, .. } = grant_of(&said[said.len() - 1..]);
            assert!(token > last, "{token} after {last}");
            last = token;
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_is_kept_by_its_own_ticket_only() {
    let store = store();
    let (known, tickets) = local(async {
        let mut bench = Bench::run(&store);
        let (holder, _) = open(&mut bench).await;
        hold(&holder, 1, "printer").await;
        hold(&holder, 2, "plotter").await;
        let (mut known, mut tickets) = (Vec::new(), Vec::new());
        for name in ["plotter", "printer", "printer"] {
            let (waiter, session) = open(&mut bench).await;
            waiter.submit(vec![request(1, name)]);
            settle().await;
            known.push(session);
            tickets.push(waiter.take_queued(1).1);
        }
        (known, tickets)
    })
    .await;
    local(async {
        let mut bench = Bench::run(&store);
        let plotter = reopen(&mut bench, known[0]).await;
        let first = reopen(&mut bench, known[1]).await;
        let second = reopen(&mut bench, known[2]).await;
        let in_line = async |waiter: &FakeSession, id, name, ticket| {
            waiter.submit(vec![with_ticket(request(id, name), ticket)]);
            settle().await;
            waiter.take_queued(id).0
        };
        let (newcomer, _) = open(&mut bench).await;
        newcomer.submit(vec![request(1, "printer")]);
        settle().await;
        assert_eq!(newcomer.take_queued(1).0, 1);
        // That of another queue, of another session, of another request, and one that is made up.
        assert_eq!(in_line(&plotter, 1, "printer", tickets[0]).await, 2);
        assert_eq!(in_line(&plotter, 2, "printer", tickets[1]).await, 3);
        assert_eq!(in_line(&second, 2, "printer", tickets[2]).await, 4);
        let made_up = SealedTicket::from_halves(1, 1);
        assert_eq!(in_line(&second, 3, "printer", made_up).await, 5);
        // Its own.
        assert_eq!(in_line(&first, 1, "printer", tickets[1]).await, 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_was_given_back_is_not_reclaimed_after_the_next_grace_period() {
    let store = store();
    let (released, held, grants) = local(async {
        let mut bench = Bench::run(&store);
        let (one, released) = open(&mut bench).await;
        let (other, held) = open(&mut bench).await;
        let grants = (hold(&one, 1, "desk").await, hold(&other, 1, "printer").await);
        one.submit(vec![release(1, grants.0.token), ClientMessage::Goodbye]);
        settle().await;
        (released, held, grants)
    })
    .await;
    let held = local(async {
        let mut bench = Bench::run(&store);
        let (holder, again, _) = greet(&mut bench, resume(held, 2)).await;
        holder.submit(vec![reclaim(1, "printer", grants.1)]);
        settle().await;
        let sealed_anew = grant_of(&holder.take());
        // No record says that the other one is over; it takes everything and gives it back.
        let back = reopen(&mut bench, released).await;
        back.submit(vec![reclaim(1, "desk", grants.0)]);
        settle().await;
        assert_eq!(grant_of(&back.take()).token, grants.0.token);
        back.submit(vec![release(1, grants.0.token), ClientMessage::Goodbye]);
        stay(&[&holder], Duration::from_secs(11)).await;
        (again, sealed_anew)
    })
    .await;
    local(async {
        let mut bench = Bench::run(&store);
        let over = refused(&mut bench, resume(released, 3)).await;
        assert_eq!(over, RejectionCode::UnknownSession);
        let (holder, _, _) = greet(&mut bench, resume(held.0, 3)).await;
        holder.submit(vec![reclaim(1, "printer", grants.1)]);
        settle().await;
        assert_eq!(rejected(&holder), RejectionCode::NoGrace, "its first seal");
        holder.submit(vec![reclaim(1, "printer", held.1)]);
        settle().await;
        assert_eq!(grant_of(&holder.take()).token, grants.1.token);
    })
    .await;
}
