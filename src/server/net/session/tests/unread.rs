//! Unread bytes: bounded over all connections together, and given back when they are gone.

use super::*;

/// Room for what all connections together have not read, on a small bench.
const UNREAD_BYTES: usize = 1024 * 1024;

/// Has so many bytes be answered to a peer that does not read, beyond what its socket keeps.
async fn leave_unread(peer: &mut Peer, bytes: usize) {
    let question = ClientMessage::KeepAlive { sequence: 1 };
    // An answer is as long as a question: 16 bytes.
    for _ in 0..(bytes + SOCKET_BYTES) / 16 / 500 {
        peer.send(&vec![question.clone(); 500]).await;
        settle().await;
    }
}

async fn is_answered(peer: &mut Peer) -> bool {
    peer.send(&[ClientMessage::KeepAlive { sequence: 7 }]).await;
    peer.next().await == ServerMessage::KeptAlive { sequence: 7 }
}

#[tokio::test(start_paused = true)]
async fn when_all_together_leave_too_much_unread_who_left_most_is_closed_and_nobody_else() {
    local(async {
        let mut bench = Bench::with_unread_max(UNREAD_BYTES);
        let mut innocent = Peer::open(&mut bench).await;
        let mut slow = Peer::open(&mut bench).await;
        leave_unread(&mut slow, 100_000).await;
        let mut deaf = Vec::new();
        // Each of them alone is far from the bound of an outbox.
        for bytes in [200_000, 400_000, 450_000] {
            let mut peer = Peer::open(&mut bench).await;
            leave_unread(&mut peer, bytes).await;
            deaf.push(peer);
            assert!(bench.counters.ledger.total() <= UNREAD_BYTES);
        }
        settle().await;
        assert_eq!(bench.counters.slow_readers.total(), 1);
        assert_eq!(bench.counters.connections(), 4);
        assert!(is_answered(&mut innocent).await);
        // What it left unread is still there for it.
        let (mut unread, slow_bytes) = (0, 100_000 / 16);
        while unread < slow_bytes / 2 {
            assert_eq!(slow.next().await, ServerMessage::KeptAlive { sequence: 1 });
            unread += 1;
        }
        drop((slow, deaf));
        sleep(CLOSE_TIMEOUT * 2).await;
        assert_eq!(bench.counters.connections(), 1);
        assert_eq!(bench.counters.ledger.total(), 0);
        assert!(is_answered(&mut innocent).await);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_reads_what_there_is_owes_nothing() {
    local(async {
        let mut bench = Bench::with_unread_max(UNREAD_BYTES);
        let mut peer = Peer::open(&mut bench).await;
        for _ in 0..1000 {
            peer.send(&vec![ClientMessage::KeepAlive { sequence: 1 }; 500]).await;
            for _ in 0..500 {
                peer.next().await;
            }
        }
        settle().await;
        assert_eq!(bench.counters.ledger.total(), 0);
        assert_eq!(bench.counters.ledger.unheard(), 0);
        assert_eq!(bench.counters.slow_readers.total(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn watchers_that_do_not_read_go_before_those_who_do() {
    local(async {
        let mut bench = Bench::with_unread_max(UNREAD_BYTES);
        let mut holder = Peer::open(&mut bench).await;
        let mut reader = Peer::connect(&mut bench);
        let look = ClientMessage::Watch { query_id: 1, name: "members".into() };
        let mut deaf = Vec::new();
        for _ in 0..20 {
            let mut peer = Peer::connect(&mut bench);
            peer.send(&[hello(Attach::Observer), look.clone()]).await;
            deaf.push(peer);
        }
        reader.send(&[hello(Attach::Observer), look]).await;
        reader.next().await;
        reader.next().await;
        let shared = |id: u64| {
            let mut asked = request(id, "members");
            if let ClientMessage::Request(wire::Request { claims, .. }) = &mut asked {
                claims[0].mode = wire::Mode::Shared;
            }
            asked
        };
        for id in 1..=300 {
            holder.send(&[shared(id)]).await;
            grant_of(&holder.next().await, id);
            assert!(matches!(reader.next().await, ServerMessage::LockStatus { .. }));
            assert!(bench.counters.ledger.total() <= UNREAD_BYTES);
        }
        settle().await;
        assert_eq!(bench.counters.slow_readers.total(), 20);
        assert_eq!(bench.counters.connections(), 2);
        assert_eq!(bench.counters.ledger.total(), 0);
    })
    .await;
}

/// A page of the locks, of which there are many.
fn look(query_id: u64) -> ClientMessage {
    ClientMessage::Inspect { query_id, query: Query::Locks { cursor: 0 } }
}

#[tokio::test(start_paused = true)]
async fn a_reader_is_offered_what_there_is_before_it_is_judged() {
    local(async {
        let mut bench = Bench::new();
        let (ours, theirs) = duplex(64 * OUTBOX_BYTES_MAX);
        let place = Place::of_many(&bench.counters);
        let connection = bench.next_connection();
        let session =
            Session::new(theirs, connection, None, Certified::default(), place, bench.shared())
                .begin();
        let mut peer = Peer(ours);
        peer.send(&[hello(Attach::Observer), look(1)]).await;
        peer.next().await;
        peer.next().await;
        // As if many turns had passed before it could write.
        let long = || {
            let goodbye = render::goodbye(GoodbyeCode::Done, "x".repeat(60_000));
            let messages = vec![goodbye; 10].into_iter();
            let messages = messages.chain([ServerMessage::KeptAlive { sequence: 1 }]);
            Deliver::of(&messages.collect::<Vec<_>>())
        };
        for _ in 0..10 {
            session.do_send(long());
        }
        settle().await;
        assert_eq!(bench.counters.slow_readers.total(), 0);
        assert_eq!(bench.counters.connections(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn half_a_long_frame_counts_and_a_whole_one_leaves_no_memory_behind() {
    local(async {
        let mut bench = Bench::new();
        let mut peer = Peer::open(&mut bench).await;
        let mut long = request(1, "x");
        if let ClientMessage::Request(wire::Request { note, .. }) = &mut long {
            *note = "x".repeat(50_000);
        }
        let mut bytes = BytesMut::new();
        encode_frame(&long, &mut bytes).unwrap();
        peer.0.write_all(&bytes[..40_000]).await.unwrap();
        settle().await;
        assert!(bench.counters.ledger.total() > 50_000);
        peer.0.write_all(&bytes[40_000..]).await.unwrap();
        assert!(matches!(peer.next().await, ServerMessage::Rejected { .. }));
        settle().await;
        assert_eq!(bench.counters.ledger.total(), 0);
    })
    .await;
}
