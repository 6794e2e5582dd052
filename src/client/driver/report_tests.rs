//! What becomes of a session, as it is told to who wants to know.

use futures_util::{FutureExt, StreamExt};

use super::fake_server::{FakeServer, Harbour, goodbye, welcome_as};
use super::*;
use crate::client::shared::SESSION_EVENTS_MAX;
use crate::client::{SessionEvent, SessionEvents};
use crate::types::{
    FencingToken, GoodbyeCode, LostReason, RejectionCode, RequestId, Secret, SessionId,
};
use crate::wire::{self, Attach, ClientMessage, ServerMessage, Standing};

/// The next event, in a word and what matters of it.
async fn next(events: &mut SessionEvents) -> String {
    match events.next().await {
        None => "the end".to_owned(),
        Some(SessionEvent::Connected { session, .. }) => format!("connected {}", session.number()),
        Some(SessionEvent::Resumed { epoch, .. }) => format!("resumed in {epoch}"),
        Some(SessionEvent::Disconnected { cause: Error::Unavailable { .. } }) => {
            "disconnected".to_owned()
        }
        Some(SessionEvent::Jeopardy) => "jeopardy".to_owned(),
        Some(SessionEvent::Recovered) => "recovered".to_owned(),
        Some(SessionEvent::Lost { token, reason }) => format!("lost {token} {reason:?}"),
        Some(SessionEvent::Missed { count }) => format!("{count} missed"),
        Some(SessionEvent::Closed { cause: Error::Closed }) => "closed".to_owned(),
        Some(other) => panic!("{other:?}"),
    }
}

async fn all<const N: usize>(events: &mut SessionEvents) -> [String; N] {
    let mut all = [const { String::new() }; N];
    for event in &mut all {
        *event = next(events).await;
    }
    all
}

#[tokio::test(start_paused = true)]
async fn an_absence_is_jeopardy_from_two_thirds_of_the_ttl_until_the_session_is_resumed() {
    let (mut harbour, server, client, guard) = Harbour::with_guard().await;
    let mut events = client.events();
    assert!(events.next().now_or_never().is_none(), "what was before is not told");
    // The driver has seen that somebody wants to know.
    tokio::time::sleep(Duration::from_secs(3)).await;
    harbour.close(true);
    drop(server);
    assert_eq!(next(&mut events).await, "disconnected");
    let begun = tokio::time::Instant::now();
    assert_eq!(next(&mut events).await, "jeopardy");
    let waited = begun.elapsed();
    assert!(waited > Duration::from_millis(3_600) && waited < Duration::from_millis(3_700));
    harbour.close(false);
    let _server = harbour.resumed(2, Standing::Resumed).await;
    assert_eq!(all(&mut events).await, ["resumed in 3", "recovered"]);
    assert!(guard.is_held());
}

#[tokio::test(start_paused = true)]
async fn silence_is_jeopardy_and_then_every_grant_is_lost() {
    let (mut server, client, first) = FakeServer::with_guard().await;
    let second = server.grant_next(&client, 8).await;
    let third = server.grant_next(&client, 9).await;
    let mut events = client.events();
    let released = tokio::spawn(third.release());
    assert!(matches!(server.hear().await, ClientMessage::Release { request: RequestId(3), .. }));
    assert_eq!(next(&mut events).await, "jeopardy");
    assert!(first.is_held() && second.is_held());
    assert_eq!(all(&mut events).await, ["lost 7 Expired", "lost 8 Expired"]);
    assert!(released.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_taken_away_is_told_with_its_token() {
    let (mut server, client, _guard) = FakeServer::with_guard().await;
    let mut events = client.events();
    let reason = LostReason::Revoked.number();
    server
        .say(&[ServerMessage::Lost {
            request: RequestId::new(1),
            token: FencingToken::new(7),
            reason: LostReason::from_number(reason),
        }])
        .await;
    let lost = events.next().await;
    assert!(
        matches!(lost, Some(SessionEvent::Lost { token, reason: LostReason::Revoked }) if token == FencingToken::new(7)),
        "{lost:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_over_is_another_connected() {
    let (mut harbour, server, client, _guard) = Harbour::with_guard().await;
    let mut events = client.events();
    drop(server);
    assert_eq!(next(&mut events).await, "disconnected");
    let mut server = harbour.arrival().await;
    server.hear().await;
    server.say(&[goodbye(GoodbyeCode::Refused, RejectionCode::UnknownSession.number())]).await;
    let mut server = harbour.arrival().await;
    let ClientMessage::Hello(wire::Hello { attach, .. }) = server.hear().await else { panic!() };
    assert_eq!(attach, Attach::New);
    let mut welcome = welcome_as(3, 1, Standing::Opened);
    if let ServerMessage::Welcome { session, secret, .. } = &mut welcome {
        (*session, *secret) = (SessionId(99), Secret::new(1));
    }
    server.say(&[welcome]).await;
    assert_eq!(all(&mut events).await, ["lost 7 Expired", "connected 99"]);
}

#[tokio::test(start_paused = true)]
async fn the_end_is_the_last_event_and_told_to_who_asks_later_too() {
    let (mut server, client) = FakeServer::with_client().await;
    let mut events = client.events();
    let later = client.clone();
    let closing = tokio::spawn(client.close());
    assert_eq!(server.hear().await, ClientMessage::Goodbye);
    drop(server);
    closing.await.unwrap().unwrap();
    assert_eq!(all(&mut events).await, ["closed", "the end", "the end"]);
    assert_eq!(all(&mut later.events()).await, ["closed", "the end"]);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_holds_nobody_up_and_is_told_how_much_it_missed() {
    let (mut server, client) = FakeServer::with_client().await;
    let mut events = client.events();
    let more = 3;
    for token in 1..=(SESSION_EVENTS_MAX as u64 + more) {
        let _guard = server.grant_next(&client, token).await;
        let (request, reason) = (token, LostReason::Revoked.number());
        server
            .say(&[ServerMessage::Lost {
                request: RequestId::new(request),
                token: FencingToken::new(token),
                reason: LostReason::from_number(reason),
            }])
            .await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        // A keep-alive now and then, and the release of what is lost already.
        while let Some(Some(Ok(messages))) = server.reader.next().now_or_never() {
            for message in messages {
                if let ClientMessage::KeepAlive { sequence } = message {
                    server.say(&[ServerMessage::KeptAlive { sequence }]).await;
                }
            }
        }
    }
    assert_eq!(all(&mut events).await, ["3 missed", "lost 4 Revoked", "lost 5 Revoked"]);
}
