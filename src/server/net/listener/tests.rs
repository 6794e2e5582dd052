use std::net::Ipv4Addr;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::*;
use crate::server::net::hosts::Here;
use crate::server::places::DOOR_MAX;
use crate::server::testing::{Bench, hello, local, request, settle};
use crate::types::{Generation, GoodbyeCode, Secret};
use crate::wire::{Attach, ClientMessage, Query, ServerMessage, decode, encode_frame};

/// Out of file descriptors, on every system we know.
const EMFILE: i32 = 24;
/// This machine.
const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Two others.
const THERE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 8);

type Accepted = io::Result<(DuplexStream, Option<SocketAddr>)>;

/// Connections out of a channel, and failures.
struct Scripted(UnboundedReceiver<Accepted>);

impl Listener for Scripted {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> Accepted {
        match self.0.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }
}

/// Where clients of a coordinator on a bench connect to.
struct Port(UnboundedSender<Accepted>);

impl Port {
    fn open(bench: &Bench, max: usize) -> Self {
        let (sender, receiver) = unbounded_channel();
        let places = Places::new(max, None);
        spawn_local(accept_all(
            Scripted(receiver),
            places,
            bench.shared(),
            Rc::new(Here::default()),
        ));
        Self(sender)
    }

    /// A connection that says nothing yet.
    fn connect(&self, from: Ipv4Addr) -> DuplexStream {
        let (ours, theirs) = duplex(4096);
        self.0.send(Ok((theirs, Some((from, 5000).into())))).unwrap();
        ours
    }

    /// What a connection is answered that says this.
    async fn hello(&self, from: Ipv4Addr, attach: Attach) -> (DuplexStream, ServerMessage) {
        let mut peer = self.connect(from);
        let answer = say(&mut peer, &hello(attach)).await;
        (peer, answer)
    }

    /// A connection that is welcome.
    async fn enter(&self, from: Ipv4Addr, attach: Attach) -> DuplexStream {
        let (peer, answer) = self.hello(from, attach).await;
        assert!(matches!(answer, ServerMessage::Welcome { .. }), "{answer:?}");
        peer
    }

    /// So many sessions.
    async fn crowd(&self, from: Ipv4Addr, count: usize) -> Vec<DuplexStream> {
        let mut crowd = Vec::new();
        for _ in 0..count {
            crowd.push(self.enter(from, Attach::New).await);
        }
        crowd
    }
}

async fn say(peer: &mut DuplexStream, message: &ClientMessage) -> ServerMessage {
    let mut bytes = BytesMut::new();
    encode_frame(message, &mut bytes).unwrap();
    peer.write_all(&bytes).await.unwrap();
    hear(peer).await
}

async fn hear(peer: &mut DuplexStream) -> ServerMessage {
    let length = peer.read_u32_le().await.unwrap();
    let mut frame = vec![0; length as usize];
    peer.read_exact(&mut frame).await.unwrap();
    decode(&frame).unwrap()
}

/// Why there is no place, in words.
fn turned_away(answer: ServerMessage) -> String {
    match answer {
        ServerMessage::Goodbye { code, message, .. } => {
            assert_eq!(code, GoodbyeCode::TooManyConnections);
            message
        }
        other => panic!("not turned away: {other:?}"),
    }
}

#[tokio::test]
async fn what_is_accepted_sends_at_once_and_is_probed_while_it_is_silent() {
    let listener = listen(bind((HERE, 0).into()).unwrap()).unwrap();
    let _theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (ours, _) = accept(&listener).await.unwrap();
    assert!(ours.nodelay().unwrap());
    assert!(sockopt::socket_keepalive(&ours).unwrap());
    assert_eq!(sockopt::tcp_keepidle(&ours).unwrap(), PROBE_AFTER);
    assert_eq!(sockopt::tcp_keepintvl(&ours).unwrap(), PROBE_INTERVAL);
    assert_eq!(sockopt::tcp_keepcnt(&ours).unwrap(), PROBES);
}

#[tokio::test(start_paused = true)]
async fn one_connection_too_many_is_told_and_the_next_finds_room_again() {
    local(async {
        let bench = Bench::new();
        let port = Port::open(&bench, 2);
        let first = port.enter(THERE, Attach::New).await;
        let _second = port.enter(ELSEWHERE, Attach::New).await;
        let (_third, answer) = port.hello(ELSEWHERE, Attach::New).await;
        assert_eq!(turned_away(answer), "2 connections are open, the limit");
        assert_eq!(bench.counters.connections_refused.total(), 1);
        drop(first);
        settle().await;
        port.enter(THERE, Attach::New).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_address_does_not_take_all_places() {
    local(async {
        let bench = Bench::new();
        let port = Port::open(&bench, 8);
        let _greedy = port.crowd(THERE, 6).await;
        let (_one_more, answer) = port.hello(THERE, Attach::Observer).await;
        let why = "6 connections from 10.0.0.7 are open, the limit for one address";
        assert_eq!(turned_away(answer), why);
        port.enter(ELSEWHERE, Attach::New).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_holder_whose_connection_was_cut_comes_back_though_others_took_all_places() {
    local(async {
        let bench = Bench::new();
        let port = Port::open(&bench, 3);
        let (mut holder, welcome) = port.hello(THERE, Attach::New).await;
        let ServerMessage::Welcome { session, secret, .. } = welcome else { panic!() };
        assert!(matches!(say(&mut holder, &request(1, "job")).await, ServerMessage::Grant { .. }));
        drop(holder);
        settle().await;
        let _others = (port.crowd(THERE, 2).await, port.crowd(ELSEWHERE, 1).await);
        turned_away(port.hello(ELSEWHERE, Attach::New).await.1);

        // Whoever only claims to come back gets no place.
        let secret_of_nobody = Secret::new(secret.reveal() ^ 1);
        let mut liars = Vec::new();
        for _ in 0..3 {
            let attach =
                Attach::Resume { session, secret: secret_of_nobody, generation: Generation(2) };
            let (liar, answer) = port.hello(THERE, attach).await;
            liars.push(liar);
            let refused = GoodbyeCode::Refused;
            assert!(matches!(answer, ServerMessage::Goodbye { code, .. } if code == refused));
        }
        let attach = Attach::Resume { session, secret, generation: Generation(2) };
        let mut holder = port.enter(THERE, attach).await;
        // However many come to the door, it has its place.
        let _silent: Vec<_> = (0..=DOOR_MAX).map(|_| port.connect(ELSEWHERE)).collect();
        settle().await;
        let kept_alive = say(&mut holder, &ClientMessage::KeepAlive { sequence: 1 }).await;
        assert_eq!(kept_alive, ServerMessage::KeptAlive { sequence: 1 });
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_on_this_machine_is_served_though_all_places_are_taken() {
    local(async {
        let bench = Bench::new();
        let port = Port::open(&bench, 4);
        // On this machine, too.
        let _others = (port.crowd(HERE, 3).await, port.crowd(THERE, 1).await);
        let _silent: Vec<_> = (0..=DOOR_MAX).map(|_| port.connect(HERE)).collect();
        let mut operator = port.enter(HERE, Attach::Observer).await;
        let query = ClientMessage::Inspect { query_id: 1, query: Query::Server };
        match say(&mut operator, &query).await {
            ServerMessage::ServerStatus { status, .. } => assert_eq!(status.sessions, 4),
            other => panic!("{other:?}"),
        }
        for (from, attach) in [(THERE, Attach::Observer), (HERE, Attach::New)] {
            turned_away(port.hello(from, attach).await.1);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_stands_at_the_door_in_silence_is_sent_away_for_the_next() {
    local(async {
        let bench = Bench::new();
        let port = Port::open(&bench, 1);
        let _inside = port.enter(THERE, Attach::New).await;
        let mut silent: Vec<_> = (0..=DOOR_MAX).map(|_| port.connect(THERE)).collect();
        settle().await;
        assert_eq!(bench.counters.connections(), 1 + DOOR_MAX);
        let why = turned_away(hear(&mut silent[0]).await);
        assert_eq!(why, "all connection slots are taken, and other clients are waiting");
        assert_eq!(silent[0].read(&mut [0]).await.unwrap(), 0, "it is closed");
        turned_away(say(&mut silent[1], &hello(Attach::New)).await);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn out_of_descriptors_it_pauses_and_goes_on() {
    local(async {
        let bench = Bench::new();
        let port = Port::open(&bench, 2);
        for _ in 0..3 {
            port.0.send(Err(io::Error::from_raw_os_error(EMFILE))).unwrap();
        }
        port.0.send(Err(io::ErrorKind::ConnectionAborted.into())).unwrap();
        let began = Instant::now();
        port.enter(THERE, Attach::New).await;
        // 5, 10 and 20 ms; none for the one that was aborted.
        assert!(began.elapsed() >= PAUSE_MIN * 7);
        assert!(began.elapsed() < PAUSE_MIN * 15);
    })
    .await;
}
