//! Peers that look on: they speak now and then, and events are left out for those who read slowly.

use tokio::time::timeout;

use super::*;
use crate::server::testing::try_request;
use crate::types::RequestId;

/// How long a connection may go without saying or reading anything, on the bench.
const IDLE: Duration = Duration::from_secs(60);

fn watch(name: &str) -> ClientMessage {
    ClientMessage::Watch { query_id: 1, name: name.into() }
}

/// A connection without a session that has subscribed to everything.
async fn subscriber(bench: &mut Bench) -> Peer {
    let mut peer = Peer::connect(bench);
    let subscribe = ClientMessage::Subscribe { query_id: 1, name: None };
    peer.send(&[hello(Attach::Observer), subscribe]).await;
    peer.next().await;
    assert_eq!(peer.next().await, ServerMessage::Subscribed { query_id: 1 });
    peer
}

/// Has `rounds` × 100 events happen to a client that asks in vain.
async fn make_events(busy: &mut Peer, rounds: u64) {
    for round in 0..rounds {
        let ids = 10 + round * 50..60 + round * 50;
        busy.send(&ids.map(|id| try_request(id, "taken")).collect::<Vec<_>>()).await;
        for _ in 0..50 {
            assert!(matches!(busy.next().await, ServerMessage::Rejected { .. }));
        }
    }
}

/// A client that holds the lock for which it will ask in vain.
async fn busy(bench: &mut Bench) -> Peer {
    let mut busy = Peer::open(bench).await;
    busy.send(&[request(1, "taken")]).await;
    grant_of(&busy.next().await, 1);
    busy
}

/// Says something from time to time, for as long as that.
async fn stay_awake(peers: &mut [&mut Peer], length: Duration) {
    let began = Instant::now();
    for sequence in 0.. {
        if began.elapsed() >= length {
            break;
        }
        for peer in &mut *peers {
            peer.send(&[ClientMessage::KeepAlive { sequence }]).await;
            assert_eq!(peer.next().await, ServerMessage::KeptAlive { sequence });
        }
        sleep(IDLE / 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_watches_or_subscribes_is_told_for_as_long_as_it_speaks_now_and_then() {
    local(async {
        let mut bench = Bench::new();
        let mut listener = subscriber(&mut bench).await;
        let mut watcher = Peer::connect(&mut bench);
        watcher.send(&[hello(Attach::Observer), watch("leader")]).await;
        watcher.next().await;
        assert!(matches!(watcher.next().await, ServerMessage::LockStatus { query_id: 1, .. }));
        stay_awake(&mut [&mut listener, &mut watcher], IDLE * 60).await;

        let mut leader = Peer::open(&mut bench).await;
        leader.send(&[request(1, "leader")]).await;
        grant_of(&leader.next().await, 1);
        match watcher.next().await {
            ServerMessage::LockStatus { locks, .. } => assert_eq!(locks[0].holder_count, 1),
            other => panic!("{other:?}"),
        }
        let what = listener.next().await;
        assert!(matches!(what, ServerMessage::Event { request: RequestId(1), .. }), "{what:?}");
        assert_eq!(bench.counters.slow_readers.total(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_watches_or_subscribes_and_never_speaks_is_closed_as_idle() {
    local(async {
        let mut bench = Bench::new();
        let listener = subscriber(&mut bench).await;
        let mut watcher = Peer::connect(&mut bench);
        // Whether the first word or a later one.
        watcher.send(&[hello(Attach::Observer)]).await;
        watcher.next().await;
        sleep(IDLE / 2).await;
        let began = Instant::now();
        watcher.send(&[watch("leader")]).await;
        assert!(matches!(watcher.next().await, ServerMessage::LockStatus { query_id: 1, .. }));
        let goodbye = |peer: Peer| timeout(IDLE * 2, peer.goodbye());
        assert_eq!(goodbye(listener).await, Ok(GoodbyeCode::IdleTimeout));
        assert!(began.elapsed() <= IDLE / 2 + Duration::from_secs(2), "{:?}", began.elapsed());
        assert_eq!(goodbye(watcher).await, Ok(GoodbyeCode::IdleTimeout));
        assert!(began.elapsed() >= IDLE, "{:?}", began.elapsed());
        assert!(began.elapsed() <= IDLE + Duration::from_secs(2), "{:?}", began.elapsed());
        settle().await;
        assert_eq!(bench.counters.connections(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn events_are_left_out_and_counted_for_who_reads_slowly() {
    local(async {
        let mut bench = Bench::new();
        let mut slow = subscriber(&mut bench).await;
        let mut busy = busy(&mut bench).await;
        // Far more than an outbox may hold of other things.
        let rounds = 200;
        make_events(&mut busy, rounds).await;
        assert_eq!(bench.counters.slow_readers.total(), 0);

        let (mut heard, mut missed, mut gaps) = (0, 0, 0);
        let expected = 2 + rounds * 100;
        while heard + missed < expected {
            match slow.next().await {
                ServerMessage::Event { .. } => heard += 1,
                ServerMessage::Missed { count } => {
                    missed += count;
                    gaps += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((heard + missed, gaps), (expected, 1));
        assert!(heard > 1_000 && missed > 1_000, "{heard} heard, {missed} missed");
        // From here on it misses nothing.
        busy.send(&[ClientMessage::Cancel { request: RequestId(1) }]).await;
        let what = slow.next().await;
        assert!(matches!(what, ServerMessage::Event { request: RequestId(1), .. }), "{what:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_reads_nothing_of_what_there_is_for_long_is_closed_and_counted() {
    local(async {
        let mut bench = Bench::new();
        let mut deaf = subscriber(&mut bench).await;
        let mut busy = busy(&mut bench).await;
        make_events(&mut busy, 10).await;
        let began = Instant::now();
        let closed = async {
            while bench.counters.slow_readers.total() == 0 {
                // Both stay alive meanwhile.
                deaf.send(&[ClientMessage::KeepAlive { sequence: 1 }]).await;
                busy.send(&[ClientMessage::KeepAlive { sequence: 1 }]).await;
                busy.next().await;
                sleep(Duration::from_secs(1)).await;
            }
        };
        closed.await;
        let lasted = began.elapsed();
        let a_moment = Duration::from_secs(2);
        assert!(lasted + a_moment > IDLE, "{lasted:?}");
        assert!(lasted < IDLE * 2 + a_moment, "{lasted:?}");
        settle().await;
        assert_eq!(bench.counters.connections(), 1);
        assert!(
            matches!(deaf.next().await, ServerMessage::Event { .. }),
            "what was written before"
        );
    })
    .await;
}
