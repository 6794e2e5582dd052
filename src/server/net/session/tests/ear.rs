//! What is heard without the actor, and what is left to it.

use std::task::{Poll, Waker};

use super::super::ear::Attention;
use super::*;
use crate::types::FencingToken;

/// The transport of an open session, and the peer's end of it.
fn open(bench: &mut Bench) -> (Transport<DuplexStream>, Peer) {
    let (ours, theirs) = duplex(SOCKET_BYTES);
    let mut transport = Transport::new(theirs, bench.counters.ledger.open());
    let connection = bench.next_connection();
    transport.ear = Some(Ear { connection, shared: bench.shared() });
    transport.is_open = true;
    (transport, Peer(ours))
}

fn listen(transport: &mut Transport<DuplexStream>) -> Attention {
    transport.listen(&mut Task::from_waker(Waker::noop()))
}

fn release() -> ClientMessage {
    ClientMessage::Release { request: RequestId(1), token: FencingToken(1) }
}

#[tokio::test(start_paused = true)]
async fn what_is_only_brought_to_the_coordinator_needs_no_actor() {
    local(async {
        let mut bench = Bench::new();
        let (mut transport, mut peer) = open(&mut bench);
        assert_eq!(listen(&mut transport), Attention::Spared, "nothing is there");
        peer.send(&[request(1, "printer"), release()]).await;
        assert_eq!(listen(&mut transport), Attention::Spared);
        assert_eq!(transport.account.unheard_reads(), 1);
        for _ in 1..SUBMITS_MAX {
            peer.send(&[release()]).await;
            assert_eq!(listen(&mut transport), Attention::Spared);
        }
        assert_eq!(transport.reading, Reading::Paused, "enough is on the way");
        assert_eq!(listen(&mut transport), Attention::Needed);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_for_the_ear_is_the_actors_to_hear() {
    local(async {
        let mut bench = Bench::new();
        let watch = ClientMessage::Watch { query_id: 1, name: "printer".into() };
        for said in [hello(Attach::New), watch] {
            let (mut transport, mut peer) = open(&mut bench);
            peer.send(&[release(), said.clone()]).await;
            assert_eq!(listen(&mut transport), Attention::Needed);
            assert_eq!(transport.account.unheard_reads(), 0);
            let Poll::Ready(Some(Ok(heard))) = transport.heard else { panic!("nothing was kept") };
            assert_eq!(heard, [release(), said]);
        }
        let (mut transport, peer) = open(&mut bench);
        drop(peer);
        assert_eq!(listen(&mut transport), Attention::Needed);
        assert!(matches!(transport.heard, Poll::Ready(None)), "the end");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_beside_the_actor_while_it_has_something_to_see_to() {
    local(async {
        let mut bench = Bench::new();
        let not_open = |transport: &mut Transport<_>| transport.is_open = false;
        let observer = |transport: &mut Transport<_>| transport.ear = None;
        let unwritten = |transport: &mut Transport<_>| transport.outbox.extend_from_slice(b"x");
        for reason in [not_open as fn(&mut Transport<DuplexStream>), observer, unwritten] {
            let (mut transport, mut peer) = open(&mut bench);
            peer.send(&[release()]).await;
            reason(&mut transport);
            assert_eq!(listen(&mut transport), Attention::Needed);
            assert!(transport.heard.is_pending());
            assert_eq!(transport.account.unheard_reads(), 0);
        }
    })
    .await;
}
