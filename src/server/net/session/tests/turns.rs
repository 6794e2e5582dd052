//! A client with many or expensive messages takes nobody's turn.

use tokio::task::yield_now;

use super::*;

const TTL_MS: u32 = 2_000;

/// A Hello for a session with a short lease.
fn short_lived() -> ClientMessage {
    let mut hello = hello(Attach::New);
    if let ClientMessage::Hello(wire::Hello { ttl_ms, .. }) = &mut hello {
        *ttl_ms = TTL_MS;
    }
    hello
}

#[tokio::test(start_paused = true)]
async fn who_asks_a_thousand_dear_questions_keeps_nobody_waiting() {
    local(async {
        let mut bench = Bench::new();
        let (hog, bystander) = (bench.open().await, bench.open().await);
        let question = ClientMessage::Inspect { query_id: 1, query: Query::Locks { cursor: 0 } };
        for _ in 0..4 {
            hog.submit(vec![question.clone(); 400]);
        }
        bystander.submit(vec![ClientMessage::KeepAlive { sequence: 7 }]);
        let (mut answered, mut kept) = (0, Vec::new());
        while kept.is_empty() {
            yield_now().await;
            answered += hog.take().len();
            kept = bystander.take();
        }
        assert_eq!(kept, [ServerMessage::KeptAlive { sequence: 7 }]);
        assert!((1..50).contains(&answered), "{answered} of the others were answered before");
        settle().await;
        assert_eq!(answered + hog.take().len(), 1_600, "and all of them in the end");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_behind_much_that_it_said_ends_when_that_is_done() {
    local(async {
        let mut bench = Bench::new();
        let (hog, heir) = (bench.open().await, bench.open().await);
        let question = ClientMessage::Inspect { query_id: 1, query: Query::Locks { cursor: 0 } };
        hog.submit(vec![question; 100]);
        hog.submit(vec![request(1, "printer"), ClientMessage::Goodbye]);
        hog.disconnect();
        heir.submit(vec![request(1, "printer")]);
        settle().await;
        assert_eq!(hog.take().len(), 100 + 2);
        heir.take_grant(1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_does_not_end_while_what_would_have_renewed_it_lies_unread() {
    local(async {
        let mut bench = Bench::new();
        let mut holder = Peer::connect(&mut bench);
        holder.send(&[short_lived(), request(1, "printer")]).await;
        assert!(matches!(holder.next().await, ServerMessage::Welcome { .. }));
        let token = grant_of(&holder.next().await, 1);
        let other = bench.open().await;
        sleep(Duration::from_millis(1_900)).await;
        // In time, but for the next 300 ms the coordinator is busy with something else.
        holder.send(&[ClientMessage::KeepAlive { sequence: 5 }]).await;
        bench.clock.stand_still(Duration::from_millis(300));
        other.submit(vec![request(1, "printer")]);
        settle().await;
        assert_eq!(holder.next().await, ServerMessage::KeptAlive { sequence: 5 });
        other.take_queued(1);
        // And with nothing unread, it ends when it is due.
        sleep(Duration::from_millis(1_950)).await;
        assert_eq!(other.take(), []);
        sleep(Duration::from_millis(100)).await;
        assert!(other.take_grant(1) > token);
    })
    .await;
}
