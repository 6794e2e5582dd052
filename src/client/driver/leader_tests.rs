//! A change of leader, as those notice it who hold, wait, watch and listen (rule C5).

use super::fake_server::{FakeServer, Harbour, grant, queued, welcome_as};
use super::look_tests::{listened, listener};
use crate::client::{Client, Event, LockState, SessionEvent};
use crate::types::{FencingToken, GoodbyeCode, RejectionCode, RequestId, ServerAddress};
use crate::wire::{self, ClientMessage, LockStatus, ServerMessage, Standing};

fn not_leader(hint: &str) -> ServerMessage {
    let (code, rejection) = (GoodbyeCode::NotLeader, RejectionCode::NONE);
    ServerMessage::Goodbye { code, rejection, message: hint.to_owned() }
}

fn held_by(query_id: u64, holder_count: u64) -> ServerMessage {
    let (name, holders, waiters) = ("printer".parse().unwrap(), Vec::new(), Vec::new());
    let lock = LockStatus { name, holders, holder_count, waiters, waiter_count: 0 };
    ServerMessage::LockStatus { query_id, locks: vec![lock], next: None }
}

/// What the client says next, but for keep-alives.
async fn heard(server: &mut FakeServer) -> ClientMessage {
    loop {
        match server.hear().await {
            ClientMessage::KeepAlive { sequence } => {
                server.say(&[ServerMessage::KeptAlive { sequence }]).await;
            }
            other => return other,
        }
    }
}

async fn watched(server: &mut FakeServer) -> u64 {
    match heard(server).await {
        ClientMessage::Watch { query_id, name } if name == "printer" => query_id,
        other => panic!("{other:?}"),
    }
}

/// Where the attempts went since the last time, first: as usual, or where the leader was said to be.
fn went(harbour: &mut Harbour) -> Vec<Option<String>> {
    let mut went = Vec::new();
    while let Ok(hint) = harbour.hints.try_recv() {
        went.push(hint.as_ref().map(ServerAddress::to_string));
    }
    went
}

#[tokio::test(start_paused = true)]
async fn holders_waiters_watches_and_events_go_on_at_the_next_leader() {
    let (mut harbour, mut server, client, guard) = Harbour::with_guard().await;
    let mut events = client.events();
    let waits = tokio::spawn(client.lock("scanner").into_future());
    assert!(matches!(server.hear().await, ClientMessage::Request(_)));
    server.say(&[queued(2, 1)]).await;
    let watch = tokio::spawn({
        let client = client.clone();
        async move { client.watch("printer").await }
    });
    let look = watched(&mut server).await;
    server.say(&[held_by(look, 1)]).await;
    let mut watch = watch.await.unwrap().unwrap();
    assert!(matches!(watch.next().await, Some(Ok(LockState::InUse(_)))));
    went(&mut harbour);

    server.say(&[not_leader("b.internal:5625")]).await;
    let mut server = harbour.arrival().await;
    assert_eq!(went(&mut harbour), [Some("b.internal:5625".to_owned())]);
    let told = events.next().await;
    let Some(SessionEvent::Disconnected { cause }) = told else { panic!("{told:?}") };
    assert!(cause.to_string().contains("does not lead and names b.internal:5625"), "{cause}");
    assert!(matches!(server.hear().await, ClientMessage::Hello(_)));
    server.say(&[welcome_as(4, 2, Standing::Resumed)]).await;
    let told = events.next().await;
    assert!(matches!(told, Some(SessionEvent::Resumed { .. })), "{told:?}");
    assert!(matches!(server.hear().await, ClientMessage::Reclaim(_)));
    let ClientMessage::Request(wire::Request { ticket, .. }) = server.hear().await else {
        panic!()
    };
    assert!(ticket.is_some(), "it keeps its place");
    assert!(matches!(server.hear().await, ClientMessage::Account(_)));
    let look = watched(&mut server).await;
    server.say(&[grant(1, 7), grant(2, 8), held_by(look, 2)]).await;
    assert_eq!(waits.await.unwrap().unwrap().token(), FencingToken(8));
    let Some(Ok(LockState::InUse(seen))) = watch.next().await else { panic!() };
    assert_eq!(seen.holder_count, 2);
    assert!(guard.is_held());
}

#[tokio::test(start_paused = true)]
async fn who_listens_hears_of_the_gap_and_then_of_what_happens_at_the_next_leader() {
    let (mut harbour, mut server, mut events) = listener().await;
    server.say(&[not_leader("")]).await;
    let mut server = harbour.arrival().await;
    server.hear().await;
    server.say(&[welcome_as(4, 1, Standing::Opened)]).await;
    let query_id = listened(&mut server).await;
    let missed = ServerMessage::Missed { count: 3 };
    server.say(&[ServerMessage::Subscribed { query_id }, missed]).await;
    let Some(Ok(Event::Gap { cause })) = events.next().await else { panic!() };
    assert!(cause.to_string().contains("knows nobody who does"), "{cause}");
    assert!(matches!(events.next().await, Some(Ok(Event::Missed { count: 3 }))));
}

#[tokio::test(start_paused = true)]
async fn a_release_that_crosses_the_change_of_leader_is_answered_by_the_next_one() {
    let (mut harbour, mut server, _client, guard) = Harbour::with_guard().await;
    server.say(&[not_leader("b:1")]).await;
    let released = tokio::spawn(guard.release());
    let mut server = harbour.arrival().await;
    server.hear().await;
    server.say(&[welcome_as(4, 2, Standing::Resumed)]).await;
    let request = RequestId(1);
    loop {
        match heard(&mut server).await {
            ClientMessage::Release { .. } => break,
            ClientMessage::Reclaim(_) => server.say(&[grant(1, 7)]).await,
            ClientMessage::Account(_) => {}
            other => panic!("{other:?}"),
        }
    }
    server.say(&[ServerMessage::Released { request }]).await;
    released.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_word_from_a_leader_loses_by_its_own_clock_and_says_why() {
    let (mut harbour, mut server, client, guard) = Harbour::with_guard().await;
    server.say(&[not_leader("")]).await;
    let turned_away = tokio::spawn(async move {
        loop {
            let mut server = harbour.arrival().await;
            server.hear().await;
            server.say(&[not_leader("")]).await;
        }
    });
    guard.lost().await;
    assert!(!guard.is_held());
    let error = Client::try_lock(&client, "printer").await.unwrap_err();
    assert!(error.to_string().starts_with("no coordinator leads at"), "{error}");
    turned_away.abort();
}
