//! An address that sends more than it may waits, and nobody else does.

use std::num::NonZeroU32;

use super::*;
use crate::server::net::pace::Paces;

/// Sessions of a server that reads a thousand messages a second from each address.
struct Limited {
    /// What sessions have in common.
    shared: Arc<Shared>,
    /// Who decides.
    bench: Bench,
}

impl Limited {
    fn new() -> Self {
        let bench = Bench::new();
        let mut shared = bench.shared();
        let paces = Paces::new(NonZeroU32::new(1_000));
        Arc::get_mut(&mut shared).unwrap().paces = paces;
        Self { shared, bench }
    }

    async fn open(&mut self, address: &str) -> Peer {
        let (ours, theirs) = duplex(SOCKET_BYTES);
        let place = Place::of_many(&self.bench.counters);
        let connection = self.bench.next_connection();
        let peer = Some(address.parse().unwrap());
        let (certified, shared) = (Certified::default(), Arc::clone(&self.shared));
        Session::new(theirs, connection, peer, certified, place, shared).begin();
        let mut peer = Peer(ours);
        peer.send(&[hello(Attach::New)]).await;
        assert!(matches!(peer.next().await, ServerMessage::Welcome { .. }));
        peer
    }
}

fn keep_alives(count: u64) -> Vec<ClientMessage> {
    (1..=count).map(|sequence| ClientMessage::KeepAlive { sequence }).collect()
}

impl Peer {
    /// How long the answers to so many keep-alives take to come.
    async fn answered_after(&mut self, count: u64) -> Duration {
        let began = Instant::now();
        for _ in 0..count {
            assert!(matches!(self.next().await, ServerMessage::KeptAlive { .. }));
        }
        began.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_that_sends_too_much_is_read_later_and_loses_nothing() {
    local(async {
        let mut limited = Limited::new();
        let mut fast = limited.open("10.0.0.1:1000").await;
        // Ahead of an even flow by its second, and by as much again.
        for _ in 0..4 {
            fast.send(&keep_alives(500)).await;
            settle().await;
        }
        let mut honest = limited.open("10.0.0.2:1000").await;
        honest.send(&keep_alives(1)).await;
        assert!(honest.answered_after(1).await <= Duration::from_millis(1));

        assert!(fast.answered_after(1_000).await <= Duration::from_millis(10));
        let late = fast.answered_after(1_000).await;
        assert!((400..=1_010).contains(&late.as_millis()), "{late:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn another_connection_is_no_way_round_the_limit_of_an_address() {
    local(async {
        let mut limited = Limited::new();
        let mut fast = limited.open("10.0.0.1:1000").await;
        fast.send(&keep_alives(1_500)).await;
        settle().await;
        let began = Instant::now();
        let mut second = limited.open("10.0.0.1:2000").await;
        let late = began.elapsed();
        assert!((10..=1_010).contains(&late.as_millis()), "{late:?}");
        second.send(&keep_alives(10)).await;
        assert!(second.answered_after(10).await <= Duration::from_secs(1));
        let _ = fast.answered_after(1_500).await;
    })
    .await;
}
