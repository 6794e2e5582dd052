//! Sessions, with streams in memory and a real Coordinator. Time is paused: it passes when nothing
//! else is left to do.

mod ear;
mod onlooker;
mod pace;
mod turns;
mod unread;

use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, sleep};
use tokio_util::codec::FramedRead;

use super::*;
use crate::server::testing::{Bench, account_of_nothing, hello, local, request, settle};
use crate::types::RequestId;
use crate::wire::{self, ClientCodec, FRAME_LEN_MAX, Query};

/// What a duplex keeps for a peer that does not read.
const SOCKET_BYTES: usize = 64 * 1024;

/// Our end of a connection.
struct Peer(DuplexStream);

impl Peer {
    /// A connection on the bench.
    fn connect(bench: &mut Bench) -> Self {
        let (ours, theirs) = duplex(SOCKET_BYTES);
        let place = Place::of_many(&bench.counters);
        let connection = bench.next_connection();
        Session::new(theirs, connection, None, Certified::default(), place, bench.shared()).begin();
        Self(ours)
    }

    /// A connection with a session.
    async fn open(bench: &mut Bench) -> Self {
        let mut peer = Self::connect(bench);
        peer.send(&[hello(Attach::New)]).await;
        assert!(matches!(peer.next().await, ServerMessage::Welcome { .. }));
        peer
    }

    async fn send(&mut self, messages: &[ClientMessage]) {
        let mut bytes = BytesMut::new();
        for message in messages {
            encode_frame(message, &mut bytes).unwrap();
        }
        self.0.write_all(&bytes).await.unwrap();
    }

    /// The next message; waits for it as long as it takes.
    async fn next(&mut self) -> ServerMessage {
        let length = self.0.read_u32_le().await.unwrap();
        let mut frame = vec![0; length as usize];
        self.0.read_exact(&mut frame).await.unwrap();
        crate::wire::decode(&frame).unwrap()
    }

    /// Everything up to the end of the connection.
    async fn rest(self) -> Vec<ServerMessage> {
        let frames = FramedRead::new(self.0, ClientCodec::new());
        let batches: Vec<_> = frames.map(Result::unwrap).collect().await;
        batches.concat()
    }

    /// The code of the Goodbye that is the only thing still to come.
    async fn goodbye(self) -> GoodbyeCode {
        match &self.rest().await[..] {
            [ServerMessage::Goodbye { code, .. }] => *code,
            other => panic!("{other:?}"),
        }
    }
}

fn grant_of(message: &ServerMessage, request: u64) -> u64 {
    match message {
        ServerMessage::Grant { request: granted, token, .. }
            if *granted == RequestId::new(request) =>
        {
            token.number()
        }
        other => panic!("not a grant of {request}: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn hello_and_request_in_one_write_are_answered_in_one() {
    local(async {
        let mut bench = Bench::new();
        let mut peer = Peer::connect(&mut bench);
        peer.send(&[hello(Attach::New), request(1, "printer")]).await;
        settle().await;
        let mut answer = vec![0; 4096];
        let len = peer.0.read(&mut answer).await.unwrap();
        let mut codec = ClientCodec::new();
        let mut bytes = BytesMut::from(&answer[..len]);
        let batch = tokio_util::codec::Decoder::decode(&mut codec, &mut bytes).unwrap().unwrap();
        assert!(matches!(batch[0], ServerMessage::Welcome { .. }), "{batch:?}");
        grant_of(&batch[1], 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn requests_that_come_a_byte_at_a_time_are_understood() {
    local(async {
        let mut bench = Bench::new();
        let mut peer = Peer::connect(&mut bench);
        let mut bytes = BytesMut::new();
        for message in [hello(Attach::New), request(1, "printer")] {
            encode_frame(&message, &mut bytes).unwrap();
        }
        for byte in bytes {
            peer.0.write_u8(byte).await.unwrap();
            settle().await;
        }
        assert!(matches!(peer.next().await, ServerMessage::Welcome { .. }));
        grant_of(&peer.next().await, 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn long_frames_are_read_once_hello_is_accepted() {
    local(async {
        let mut bench = Bench::new();
        let mut peer = Peer::open(&mut bench).await;
        let mut long = request(1, "x");
        if let ClientMessage::Request(wire::Request { claims, .. }) = &mut long {
            let claim = claims[0].clone();
            *claims = (0..64)
                .map(|i| crate::wire::RawClaim { name: format!("{i:0>255}").into(), ..claim })
                .collect();
        }
        peer.send(&[long]).await;
        grant_of(&peer.next().await, 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_window_opens_again_however_often_it_was_shut() {
    local(async {
        let mut bench = Bench::new();
        let mut peer = Peer::open(&mut bench).await;
        for _ in 1..=50 {
            // Nothing is answered, and each is a read of its own.
            peer.send(&[account_of_nothing()]).await;
            settle().await;
        }
        peer.send(&[ClientMessage::KeepAlive { sequence: 1 }]).await;
        assert_eq!(peer.next().await, ServerMessage::KeptAlive { sequence: 1 });
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_messages_in_one_write_are_all_answered() {
    local(async {
        let mut bench = Bench::new();
        let peer = Peer::open(&mut bench).await;
        let (reading, mut writing) = tokio::io::split(peer.0);
        let mut bytes = BytesMut::new();
        for sequence in 0..10_000 {
            encode_frame(&ClientMessage::KeepAlive { sequence }, &mut bytes).unwrap();
        }
        let write = async { writing.write_all(&bytes).await.unwrap() };
        let read = async {
            let mut frames = FramedRead::new(reading, ClientCodec::new());
            let mut expected = 0;
            while expected < 10_000 {
                for message in frames.next().await.unwrap().unwrap() {
                    assert_eq!(message, ServerMessage::KeptAlive { sequence: expected });
                    expected += 1;
                }
            }
        };
        tokio::join!(write, read);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_says_no_hello_in_time_is_told_and_closed() {
    local(async {
        let mut bench = Bench::new();
        let began = Instant::now();
        let silent = Peer::connect(&mut bench);
        let mut halting = Peer::connect(&mut bench);
        halting.0.write_all(&[9, 0]).await.unwrap();
        assert_eq!(silent.goodbye().await, GoodbyeCode::HandshakeTimeout);
        assert!(began.elapsed() >= Duration::from_secs(5));
        assert!(began.elapsed() < Duration::from_secs(7));
        assert_eq!(halting.goodbye().await, GoodbyeCode::HandshakeTimeout);
        assert_eq!(bench.counters.handshake_timeouts.total(), 2);
        settle().await;
        assert_eq!(bench.counters.connections(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_breaks_the_protocol_is_told_counted_and_closed_and_disturbs_nobody() {
    local(async {
        let mut bench = Bench::new();
        let mut neighbour = Peer::open(&mut bench).await;
        let framed = |payload: &[u8]| {
            let length = u32::try_from(payload.len()).unwrap();
            [&length.to_le_bytes()[..], payload].concat()
        };
        let mut greeting = BytesMut::new();
        encode_frame(&hello(Attach::New), &mut greeting).unwrap();
        let trailing = framed(&[&greeting[4..], &[0][..]].concat());
        let mut early = BytesMut::new();
        encode_frame(&request(1, "printer"), &mut early).unwrap();
        let cases: [(&str, Vec<u8>); 6] = [
            ("noise", vec![0xff; 100]),
            ("a frame too long for a Hello", 1025_u32.to_le_bytes().to_vec()),
            ("an unknown message", framed(&[99, 0, 0, 0])),
            ("an empty frame", framed(&[])),
            ("bytes left over", trailing),
            ("a request before Hello", early.to_vec()),
        ];
        let count = cases.len();
        for (what, bytes) in cases {
            let mut peer = Peer::connect(&mut bench);
            peer.0.write_all(&bytes).await.unwrap();
            assert_eq!(peer.goodbye().await, GoodbyeCode::ProtocolError, "{what}");
        }
        assert_eq!(bench.counters.protocol_errors.total(), count as u64);
        neighbour.send(&[ClientMessage::KeepAlive { sequence: 1 }]).await;
        assert_eq!(neighbour.next().await, ServerMessage::KeptAlive { sequence: 1 });
        assert_eq!(bench.counters.connections(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_breaks_the_protocol_later_is_treated_as_a_connection_that_ended() {
    local(async {
        let mut bench = Bench::new();
        let too_long = u32::try_from(FRAME_LEN_MAX + 1).unwrap().to_le_bytes();
        let mut greeting = BytesMut::new();
        encode_frame(&hello(Attach::New), &mut greeting).unwrap();
        for bytes in [&too_long[..], &greeting] {
            let mut peer = Peer::open(&mut bench).await;
            peer.0.write_all(bytes).await.unwrap();
            assert_eq!(peer.goodbye().await, GoodbyeCode::ProtocolError);
        }
        let mut peer = Peer::open(&mut bench).await;
        peer.0.write_all(&[200, 0, 0, 0, 1]).await.unwrap();
        peer.0.shutdown().await.unwrap();
        assert_eq!(peer.goodbye().await, GoodbyeCode::ProtocolError, "the stream ends in a frame");
        let mut twice = Peer::connect(&mut bench);
        twice.send(&[hello(Attach::New), hello(Attach::New)]).await;
        assert_eq!(twice.goodbye().await, GoodbyeCode::ProtocolError);
        assert_eq!(bench.counters.protocol_errors.total(), 4);

        let mut observer = Peer::connect(&mut bench);
        let query = Query::Sessions { cursor: 0 };
        observer
            .send(&[hello(Attach::Observer), ClientMessage::Inspect { query_id: 1, query }])
            .await;
        observer.next().await;
        match observer.next().await {
            ServerMessage::SessionStatus { sessions, .. } => {
                assert_eq!(sessions.len(), 3, "sessions outlive their connections");
                assert!(sessions.iter().all(|session| !session.connected));
            }
            other => panic!("{other:?}"),
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn another_version_of_the_protocol_is_refused() {
    local(async {
        let mut bench = Bench::new();
        let mut peer = Peer::connect(&mut bench);
        let mut newer = hello(Attach::New);
        if let ClientMessage::Hello(wire::Hello { protocol, .. }) = &mut newer {
            *protocol = 2;
        }
        peer.send(&[newer]).await;
        assert_eq!(peer.goodbye().await, GoodbyeCode::UnsupportedVersion);

        // Of its Hello nothing can be read but that, and the version.
        let mut stranger = Peer::connect(&mut bench);
        let frame = [12, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
        stranger.0.write_all(&frame).await.unwrap();
        assert_eq!(stranger.goodbye().await, GoodbyeCode::UnsupportedVersion);
        assert_eq!(bench.counters.protocol_errors.total(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn http_and_tls_are_refused_in_their_own_words() {
    local(async {
        let mut bench = Bench::new();
        let mut browser = Peer::connect(&mut bench);
        let asked =
            format!("GET / HTTP/1.1\r\nHost: locks\r\nCookie: {}\r\n\r\n", "x".repeat(9000));
        browser.0.write_all(asked.as_bytes()).await.unwrap();
        let mut answer = String::new();
        browser.0.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(answer.contains("127.0.0.1:5625 is the lock port"), "{answer}");

        let mut secure = Peer::connect(&mut bench);
        secure.0.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00]).await.unwrap();
        let mut alert = Vec::new();
        secure.0.read_to_end(&mut alert).await.unwrap();
        assert_eq!(alert[0], 0x15, "{alert:?}");
        assert_eq!(bench.counters.protocol_errors.total(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_shuts_its_side_gets_the_answers_to_all_it_sent() {
    local(async {
        let mut bench = Bench::new();
        let mut holder = Peer::open(&mut bench).await;
        holder.send(&[request(1, "taken")]).await;
        grant_of(&holder.next().await, 1);
        let mut peer = Peer::connect(&mut bench);
        peer.send(&[hello(Attach::New), request(1, "free"), request(2, "taken")]).await;
        peer.0.shutdown().await.unwrap();
        let answers = peer.rest().await;
        assert!(matches!(answers[0], ServerMessage::Welcome { .. }), "{answers:?}");
        grant_of(&answers[1], 1);
        assert!(
            matches!(answers[2..], [ServerMessage::Queued { request: RequestId(2), .. }]),
            "{answers:?}"
        );
        settle().await;
        assert_eq!(bench.counters.connections(), 1);
        assert_eq!(bench.counters.protocol_errors.total(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn goodbye_is_answered_and_the_connection_closed() {
    local(async {
        let mut bench = Bench::new();
        let mut peer = Peer::open(&mut bench).await;
        peer.send(&[ClientMessage::Goodbye]).await;
        assert_eq!(peer.goodbye().await, GoodbyeCode::Done);
        let mut hasty = Peer::open(&mut bench).await;
        hasty.send(&[ClientMessage::Goodbye]).await;
        drop(hasty);
        sleep(CLOSE_TIMEOUT).await;
        assert_eq!(bench.counters.connections(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanishes_keeps_its_lock_until_its_lease_ends() {
    local(async {
        let mut bench = Bench::new();
        let mut holder = Peer::open(&mut bench).await;
        holder.send(&[request(1, "printer")]).await;
        let token = grant_of(&holder.next().await, 1);
        let vanished = Instant::now();
        drop(holder);
        let mut waiter = Peer::connect(&mut bench);
        let mut patient = hello(Attach::New);
        if let ClientMessage::Hello(wire::Hello { ttl_ms, .. }) = &mut patient {
            *ttl_ms = 60_000;
        }
        waiter.send(&[patient, request(1, "printer")]).await;
        waiter.next().await;
        assert!(matches!(waiter.next().await, ServerMessage::Queued { .. }));
        assert!(grant_of(&waiter.next().await, 1) > token);
        let elapsed = vanished.elapsed();
        assert!(elapsed >= Duration::from_millis(9_990), "{elapsed:?}");
        assert!(elapsed < Duration::from_millis(10_100), "{elapsed:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_closed_and_counted() {
    local(async {
        let mut bench = Bench::new();
        let mut deaf = Peer::open(&mut bench).await;
        let mut bytes = BytesMut::new();
        for sequence in 0..1_000 {
            encode_frame(&ClientMessage::KeepAlive { sequence }, &mut bytes).unwrap();
        }
        // An answer is as long as a question: 16 bytes.
        let enough = (OUTBOX_BYTES_MAX + 2 * SOCKET_BYTES) / 16_000 + 2;
        for _ in 0..enough {
            if deaf.0.write_all(&bytes).await.is_err() {
                break;
            }
            settle().await;
        }
        assert_eq!(bench.counters.slow_readers.total(), 1);
        assert_eq!(bench.counters.connections(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_asks_nothing_is_closed_and_one_that_does_is_not() {
    local(async {
        let mut bench = Bench::new();
        let mut idle = Peer::connect(&mut bench);
        let mut busy = Peer::connect(&mut bench);
        for peer in [&mut idle, &mut busy] {
            peer.send(&[hello(Attach::Observer)]).await;
            assert!(matches!(peer.next().await, ServerMessage::Welcome { .. }));
        }
        let began = Instant::now();
        for sequence in 0..4 {
            sleep(Duration::from_secs(20)).await;
            busy.send(&[ClientMessage::KeepAlive { sequence }]).await;
            assert_eq!(busy.next().await, ServerMessage::KeptAlive { sequence });
        }
        assert_eq!(idle.goodbye().await, GoodbyeCode::IdleTimeout);
        assert_eq!(busy.goodbye().await, GoodbyeCode::IdleTimeout);
        let lasted = began.elapsed();
        assert!(lasted >= Duration::from_secs(140), "{lasted:?}");
        assert!(lasted < Duration::from_secs(143), "{lasted:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_nothing_and_ends_leaves_nothing() {
    local(async {
        let mut bench = Bench::new();
        let probe = Peer::connect(&mut bench);
        settle().await;
        drop(probe);
        settle().await;
        assert_eq!(bench.counters.connections(), 0);
        assert_eq!(bench.counters.protocol_errors.total(), 0);
    })
    .await;
}
