//! Sessions of the Redis dialect, with streams in memory and a real Coordinator. Time is paused: it passes when
//! nothing else is left to do.

use std::num::NonZeroU32;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::sleep;

use super::transport::BEHIND_WAIT_BYTES_MAX;
use super::*;
use crate::server::net::pace::Paces;
use crate::server::testing::{Bench, local, settle};

/// What a duplex keeps for a peer that does not read.
const SOCKET_BYTES: usize = 64 * 1024;

/// Our end of a connection.
struct Peer(DuplexStream);

impl Peer {
    fn connect(bench: &mut Bench) -> Self {
        Self::at_pace(bench, Paces::new(None))
    }

    /// One from somewhere, which is held to this pace.
    fn at_pace(bench: &mut Bench, paces: Paces) -> Self {
        Self::over(bench, paces, SOCKET_BYTES)
    }

    /// One over a socket that keeps so much.
    fn over(bench: &mut Bench, paces: Paces, bytes: usize) -> Self {
        let (ours, theirs) = duplex(bytes);
        let place = Place::of_many(&bench.counters);
        let (connection, shared) = (bench.next_connection(), bench.shared_of_redis(paces));
        let peer = Some(SocketAddr::from(([10, 0, 0, 9], 1)));
        RedisSession::new(theirs, connection, peer, Certified::default(), place, shared).start();
        Self(ours)
    }

    async fn send(&mut self, line: &str) {
        self.0.write_all(line.as_bytes()).await.unwrap();
        self.0.write_all(b"\r\n").await.unwrap();
    }

    /// As many bytes as that, which are it.
    async fn hears(&mut self, answer: &str) {
        let mut heard = vec![0; answer.len()];
        self.0.read_exact(&mut heard).await.unwrap();
        assert_eq!(String::from_utf8(heard).unwrap(), answer);
    }

    /// All that still comes.
    async fn rest(mut self) -> String {
        let mut rest = String::new();
        self.0.read_to_string(&mut rest).await.unwrap();
        rest
    }

    /// Says this over and over, and reads nothing, until nothing of it is taken any more. Says how many bytes
    /// that were.
    async fn flood(&mut self, line: &str) -> usize {
        let lines = format!("{line}\r\n").repeat(1000).into_bytes();
        let mut written = 0;
        loop {
            tokio::select! {
                biased;
                now = self.0.write(&lines[written % lines.len()..]) => written += now.unwrap(),
                () = sleep(Duration::from_secs(1)) => return written,
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_of_any_length_is_answered_at_the_pace_of_its_reader() {
    local(async {
        let mut bench = Bench::new();
        let mut peer = Peer::connect(&mut bench);
        let said = peer.flood("PING").await;
        let unread = bench.counters.ledger.total();
        // Of a buffer that has grown, up to half is empty.
        assert!(unread <= 3 * OUTBOX_BYTES_MAX, "{unread} bytes lie here");
        assert!(unread > OUTBOX_BYTES_MAX / 2, "{unread} bytes lie here");
        for _ in 0..said / 6 {
            peer.hears("+PONG\r\n").await;
        }
        let rest = "PING\r\n"[said % 6..].to_owned();
        peer.0.write_all(rest.as_bytes()).await.unwrap();
        peer.hears("+PONG\r\n").await;
        assert_eq!(bench.counters.slow_readers.total(), 0);
        settle().await;
        assert_eq!(bench.counters.ledger.total(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn whoever_reads_nothing_for_long_enough_is_closed_and_nobody_who_reads_a_little() {
    local(async {
        let mut bench = Bench::new();
        let (mut deaf, mut slow) = (Peer::connect(&mut bench), Peer::connect(&mut bench));
        deaf.flood("PING").await;
        slow.flood("PING").await;
        for _ in 0..30 {
            sleep(STALL_MAX / 10).await;
            slow.hears("+PONG\r\n").await;
        }
        assert_eq!(bench.counters.slow_readers.total(), 1);
        assert_eq!(bench.counters.connections(), 1);
        slow.hears("+PONG\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_an_address_says_faster_than_it_may_stays_in_its_socket() {
    local(async {
        let mut bench = Bench::new();
        let mut peer = Peer::at_pace(&mut bench, Paces::new(NonZeroU32::new(1)));
        let said = peer.flood("PING").await;
        assert!(said < 3 * SOCKET_BYTES, "{said} bytes were taken");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn whoever_is_gone_waits_no_longer_whatever_it_has_said_behind_that() {
    local(async {
        let mut bench = Bench::new();
        let mut holder = Peer::connect(&mut bench);
        holder.send("SET order mine NX").await;
        holder.hears("+OK\r\n").await;
        let mut gone = Peer::connect(&mut bench);
        gone.send("COORDINATOR.WAIT order gone").await;
        settle().await;
        gone.send("PING").await;
        settle().await;
        drop(gone);
        settle().await;
        holder.send("DEL order\r\nSET order mine NX").await;
        holder.hears(":1\r\n+OK\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn behind_a_wait_as_much_is_said_as_may_be_and_with_one_byte_more_it_is_over() {
    local(async {
        let mut bench = Bench::new();
        let mut holder = Peer::connect(&mut bench);
        holder.send("SET order mine NX").await;
        holder.hears("+OK\r\n").await;
        let mut chatty = Peer::connect(&mut bench);
        chatty.send("COORDINATOR.WAIT order chatty TIMEOUT 1000000").await;
        settle().await;
        chatty.0.write_all(&b"\r\n".repeat(BEHIND_WAIT_BYTES_MAX / 2)).await.unwrap();
        settle().await;
        assert_eq!(bench.counters.protocol_errors.total(), 0);
        chatty.0.write_all(b"\r").await.unwrap();
        settle().await;
        assert_eq!(bench.counters.protocol_errors.total(), 1);
        holder.send("DEL order\r\nSET order mine NX").await;
        holder.hears(":1\r\n+OK\r\n").await;
        assert!(chatty.rest().await.starts_with("-ERR Protocol error: at most 65536 bytes"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn behind_a_wait_that_is_granted_at_once_a_pipeline_has_any_length() {
    const PINGS: usize = 4 * BEHIND_WAIT_BYTES_MAX / 6;
    local(async {
        let mut bench = Bench::new();
        let mut peer = Peer::over(&mut bench, Paces::new(None), 8 * BEHIND_WAIT_BYTES_MAX);
        let said = format!("COORDINATOR.WAIT order mine\r\n{}", "PING\r\n".repeat(PINGS));
        peer.0.write_all(said.as_bytes()).await.unwrap();
        peer.0.shutdown().await.unwrap();
        let heard = peer.rest().await;
        assert!(heard.starts_with(':'), "{}", &heard[..heard.len().min(200)]);
        assert_eq!(heard.matches("+PONG\r\n").count(), PINGS);
        assert_eq!(bench.counters.protocol_errors.total(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn whoever_says_too_much_behind_a_wait_hears_what_was_answered_before() {
    local(async {
        let mut bench = Bench::new();
        let mut holder = Peer::connect(&mut bench);
        holder.send("SET order mine NX").await;
        holder.hears("+OK\r\n").await;
        let mut chatty = Peer::over(&mut bench, Paces::new(None), 8 * BEHIND_WAIT_BYTES_MAX);
        let pings = "PING\r\n".repeat(BEHIND_WAIT_BYTES_MAX);
        let said = format!("SET other mine NX\r\nCOORDINATOR.WAIT order chatty\r\n{pings}");
        chatty.0.write_all(said.as_bytes()).await.unwrap();
        let heard = chatty.rest().await;
        assert!(heard.starts_with("+OK\r\n-ERR Protocol error: at most 65536 bytes"), "{heard}");
        holder.send("DEL order\r\nSET order mine NX").await;
        holder.hears(":1\r\n+OK\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_all_and_shuts_its_side_hears_all_answers_however_late_it_reads() {
    local(async {
        const COUNT: usize = 200_000;
        let mut bench = Bench::new();
        let peer = Peer::connect(&mut bench);
        let (mut reader, mut writer) = tokio::io::split(peer.0);
        let says = async {
            writer.write_all(&b"PING\r\n".repeat(COUNT)).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let hears = async {
            sleep(STALL_MAX / 2).await;
            let mut heard = Vec::new();
            reader.read_to_end(&mut heard).await.unwrap();
            heard.len()
        };
        let ((), bytes) = tokio::join!(says, hears);
        assert_eq!(bytes, COUNT * b"+PONG\r\n".len());
    })
    .await;
}
