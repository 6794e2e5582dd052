//! Conversations that are almost right, with Sessions and a Coordinator as they run in production;
//! the streams are in memory, and time is paused.
//!
//! In each execution some peers talk to one Coordinator at once, in pieces, with pauses, some
//! without reading. Where they mean a token, a seal or a session they say one that they were told,
//! so that they get behind the first check. These hold whatever the peers say:
//!
//! - nothing panics, the table's own checks after each event included;
//! - what a peer hears are whole messages, a Welcome or a Goodbye first, with rising tokens;
//! - who shuts its side is closed;
//! - a neighbour who behaves keeps its lock, and is granted others;
//! - when all are gone and their leases over, nothing is left.

mod conversations;
mod peer;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;
use tokio::time::sleep;

use self::peer::{Heard, Known, Peer};
use crate::server::testing::{Bench, hello, release, request, settle, try_request};
use crate::testing::fuzz::{Corpus, Random, fuzz, mutated};
use crate::types::{FencingToken, RequestId, TTL_MAX_DEFAULT};
use crate::wire::{self, Attach, ClientMessage, Query, ServerMessage};

/// Executions in the normal run.
const EXECUTIONS: u64 = 1_000;
/// What one execution may take: mostly outboxes, full of answers that nobody reads.
const BYTES_MAX: u64 = 8 << 20;
/// Most peers of one execution.
const PEERS_MAX: usize = 4;
/// The neighbour's lock. No peer knows it.
const NEIGHBOURS_LOCK: &str = "the neighbour's";

/// Time is paused, and stands for each execution where the one before has left it.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

#[test]
fn fuzzed_conversations_harm_nobody() {
    let corpus = Corpus::load(&["client", "conversations"]);
    let runtime = runtime();
    fuzz("fuzzed_conversations", EXECUTIONS, BYTES_MAX, |random| {
        let actors = LocalSet::new();
        runtime.block_on(actors.run_until(converse(&corpus, random)));
    });
}

/// One execution.
async fn converse(corpus: &Corpus, mut random: Random) {
    let mut bench = Bench::new();
    let known = Rc::new(RefCell::new(Known::default()));
    let mut neighbour = Neighbour::open(&mut bench).await;
    let mut peers = Vec::new();
    for _ in 0..=random.below(PEERS_MAX) {
        let input = known.borrow().filled_in(&mutated(corpus, &mut random), &mut random);
        peers.push((Peer::connect(&mut bench, &known), input));
    }
    while let Some(at) = peers.iter().position(|(_, input)| !input.is_empty()) {
        let at = if random.once_in(4) { at } else { random.below(peers.len()) };
        let (peer, input) = &mut peers[at];
        let piece_max = *random.pick(&[8, 256, 4_096, 1 << 16]);
        let piece = 1 + random.below(piece_max);
        let piece = input.split_to(piece.min(input.len()));
        peer.say(&piece).await;
        match random.below(16) {
            0..8 => settle().await,
            8 => sleep(Duration::from_millis(random.next() % 12_000)).await,
            9 => peer.change_ears(),
            10 => {
                // What was learnt meanwhile is said from here on.
                let rest = known.borrow().filled_in(input, &mut random);
                *input = rest;
            }
            _ => {}
        }
    }
    settle().await;
    let mut greatest = 0;
    for (peer, _) in peers {
        greatest = greatest.max(part_with(peer, &mut random).await);
    }
    neighbour.is_served(greatest).await;
    neighbour.leave().await;
    sleep(TTL_MAX_DEFAULT + TTL_MAX_DEFAULT).await;
    assert_eq!(bench.counters.connections(), 0, "connections are left over");
    assert_nothing_is_left(&mut bench).await;
}

/// The end of a conversation, one way or another; the greatest token that the peer was told.
async fn part_with(mut peer: Peer, random: &mut Random) -> u64 {
    if random.once_in(4) {
        drop(peer);
        return 0;
    }
    let heard = peer.shut_and_hear().await;
    assert_ne!(heard, Heard::StillOpen, "a peer shut its side, and was not closed");
    peer.greatest_token()
}

async fn assert_nothing_is_left(bench: &mut Bench) {
    let observer = bench.connect();
    let question = ClientMessage::Inspect { query_id: 1, query: Query::Server };
    observer.submit(vec![hello(Attach::Observer), question]);
    settle().await;
    let answers = observer.take();
    let Some(ServerMessage::ServerStatus { status, .. }) = answers.last() else {
        panic!("the Coordinator does not answer: {answers:?}");
    };
    let left = (status.sessions, status.locks, status.held, status.waiting);
    assert_eq!(left, (0, 0, 0, 0), "sessions, locks, held, waiting");
}

/// Somebody who behaves.
struct Neighbour {
    /// The way to the Coordinator.
    session: crate::server::testing::FakeSession,
    /// The token of its lock.
    token: u64,
}

impl Neighbour {
    async fn open(bench: &mut Bench) -> Self {
        let session = bench.connect();
        let mut patient = hello(Attach::New);
        if let ClientMessage::Hello(wire::Hello { ttl_ms, .. }) = &mut patient {
            *ttl_ms = u32::try_from(TTL_MAX_DEFAULT.as_millis()).unwrap();
        }
        session.submit(vec![patient]);
        settle().await;
        session.take();
        session.submit(vec![request(1, NEIGHBOURS_LOCK)]);
        settle().await;
        let token = session.take_grant(1);
        Self { session, token }
    }

    /// It holds what it held, and is granted more, with a token greater than `token`.
    async fn is_served(&mut self, token: u64) {
        self.session.submit(vec![
            ClientMessage::KeepAlive { sequence: 1 },
            try_request(2, "something else of the neighbour's"),
            release(1, self.token),
        ]);
        settle().await;
        let answers = self.session.take();
        match answers[..] {
            [
                ServerMessage::KeptAlive { sequence: 1 },
                ServerMessage::Grant { request: RequestId(2), token: next, .. },
                ServerMessage::Released { request: RequestId(1) },
            ] => assert!(next > FencingToken::new(token.max(self.token)), "{next} after {token}"),
            _ => panic!("the neighbour is not served: {answers:?}"),
        }
    }

    async fn leave(&mut self) {
        self.session.submit(vec![ClientMessage::Goodbye]);
        settle().await;
        let answers = self.session.take();
        assert!(matches!(answers[..], [ServerMessage::Goodbye { .. }]), "{answers:?}");
    }
}
