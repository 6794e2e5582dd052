//! Those who watch and listen, before a server that says what the test says.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::future::poll_immediate;

use super::tests::{answers, read_message};
use super::{Client, Error, Event, Leadership, LockState, Observer, blocking};
use crate::types::RejectionCode;
use crate::wire::{self, ClientMessage, Happening, Holder, LockStatus, Mode, ServerMessage};

/// The server's end of one connection.
struct Peer(TcpStream);

impl Peer {
    /// The next connection, welcomed.
    fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut peer = Self(stream);
        let hello = peer.hear();
        assert!(matches!(hello, ClientMessage::Hello(_)));
        peer.say(&answers(&hello));
        peer
    }

    fn hear(&mut self) -> ClientMessage {
        read_message(&mut self.0).expect("the client hung up")
    }

    /// In one write.
    fn say(&mut self, messages: &[ServerMessage]) {
        let mut bytes = BytesMut::new();
        for message in messages {
            wire::encode_frame(message, &mut bytes).unwrap();
        }
        self.0.write_all(&bytes).unwrap();
    }

    /// Hears that the lock is to be watched, and says how it is.
    fn watched(&mut self, token: u64) {
        assert!(matches!(self.hear(), ClientMessage::Watch { name, .. } if name == "printer"));
        self.say(&[held(token)]);
    }

    fn until_it_hangs_up(&mut self) {
        assert!(read_message(&mut self.0).is_none());
    }
}

/// A server that does this with its connections.
fn server(serve: impl FnOnce(&TcpListener) + Send + 'static) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    (listener.local_addr().unwrap(), thread::spawn(move || serve(&listener)))
}

/// That the lock is held with this token; 0: that it is free.
fn held(token: u64) -> ServerMessage {
    let holder = Holder {
        session: 42,
        identity: "ann@a:1".to_owned(),
        peer: String::new(),
        owner: 0,
        request: token,
        mode: Mode::Exclusive,
        token,
        held_ms: 1_500,
        note: format!("term {token}"),
        connected: true,
    };
    let lock = LockStatus {
        name: "printer".to_owned(),
        holders: vec![holder],
        holder_count: 1,
        waiters: Vec::new(),
        waiter_count: 0,
    };
    let locks = if token == 0 { Vec::new() } else { vec![lock] };
    ServerMessage::LockStatus { query_id: 1, locks, next: None }
}

fn waited_for(mut held: ServerMessage) -> ServerMessage {
    if let ServerMessage::LockStatus { locks, .. } = &mut held {
        locks[0].waiter_count += 1;
    }
    held
}

fn rejected() -> ServerMessage {
    let (code, message) = (RejectionCode::Unsupported.number(), "no".to_owned());
    ServerMessage::Rejected { request: 1, code, message, lock: None, cycle: Vec::new() }
}

/// The token with which a watched lock is held.
fn token(observed: Option<Result<LockState, Error>>) -> u64 {
    observed.unwrap().unwrap().in_use().map_or(0, |lock| lock.holders[0].token)
}

#[tokio::test]
async fn a_watch_tells_the_lock_as_it_is_and_then_every_change() {
    let (told, tell) = std::sync::mpsc::channel();
    let (address, server) = server(move |listener| {
        let mut peer = Peer::accept(listener);
        peer.watched(7);
        for change in [0, 9] {
            tell.recv().unwrap();
            peer.say(&[held(change)]);
        }
        peer.until_it_hangs_up();
    });
    let observer = Observer::connect(address.to_string()).await.unwrap();
    let mut watch = observer.watch("printer").await.unwrap();
    for expected in [7, 0, 9] {
        assert_eq!(token(watch.next().await), expected);
        let _done = told.send(());
    }
    drop(watch);
    server.join().unwrap();
}

#[tokio::test]
async fn changes_that_come_together_are_told_as_one() {
    let (address, server) = server(|listener| {
        let mut peer = Peer::accept(listener);
        assert!(matches!(peer.hear(), ClientMessage::Watch { .. }));
        peer.say(&[held(7)]);
        // Nobody listens before the first is told.
        let changes: Vec<_> = (8..=20).map(held).collect();
        peer.say(&changes);
        peer.until_it_hangs_up();
    });
    let observer = Observer::connect(address.to_string()).await.unwrap();
    let mut watch = observer.watch("printer").await.unwrap();
    let mut tokens = vec![token(watch.next().await)];
    while tokens.last() != Some(&20) {
        tokens.push(token(watch.next().await));
    }
    assert!(tokens.is_sorted() && tokens.len() < 13, "{tokens:?}");
    drop(watch);
    server.join().unwrap();
}

#[tokio::test]
async fn a_watch_comes_back_and_tells_only_what_is_new() {
    let (address, server) = server(|listener| {
        Peer::accept(listener).watched(7);
        // As it was, but for those who wait.
        let mut peer = Peer::accept(listener);
        peer.hear();
        peer.say(&[waited_for(held(7))]);
        peer.say(&[held(9)]);
        drop(peer);
        // Another while nobody looked.
        Peer::accept(listener).watched(11);
        // Nothing is answered, and then it is.
        drop(listener.accept().unwrap());
        let mut peer = Peer::accept(listener);
        peer.watched(0);
        peer.until_it_hangs_up();
    });
    let observer = Observer::connect(address.to_string()).await.unwrap();
    let mut watch = observer.watch("printer").await.unwrap();
    for expected in [7, 9, 11, 0] {
        assert_eq!(token(watch.next().await), expected);
    }
    drop(watch);
    server.join().unwrap();
}

#[tokio::test]
async fn a_watch_that_is_refused_says_so_at_once_and_later() {
    let (address, server) = server(|listener| {
        let mut peer = Peer::accept(listener);
        peer.hear();
        peer.say(&[rejected()]);
        Peer::accept(listener).watched(7);
        let mut peer = Peer::accept(listener);
        peer.hear();
        peer.say(&[rejected()]);
        peer.until_it_hangs_up();
    });
    let unsupported =
        |error: &Error| matches!(error, Error::Rejected { code: RejectionCode::Unsupported, .. });
    let observer = Observer::connect(address.to_string()).await.unwrap();
    assert!(unsupported(&observer.watch("printer").await.unwrap_err()));
    let observer = Observer::connect(address.to_string()).await.unwrap();
    let mut watch = observer.watch("printer").await.unwrap();
    assert_eq!(token(watch.next().await), 7);
    assert!(unsupported(&watch.next().await.unwrap().unwrap_err()));
    for _ in 0..2 {
        assert!(watch.next().await.is_none(), "an error is the last item");
    }
    server.join().unwrap();
}

#[tokio::test]
async fn leaders_are_told_once_a_term() {
    let (address, server) = server(|listener| {
        let mut peer = Peer::accept(listener);
        peer.watched(0);
        peer.say(&[held(7)]);
        // Another candidate is no other leader.
        peer.say(&[waited_for(held(7))]);
        drop(peer);
        let mut peer = Peer::accept(listener);
        peer.watched(9);
        peer.say(&[held(0)]);
        peer.until_it_hangs_up();
    });
    let observer = Observer::connect(address.to_string()).await.unwrap();
    let mut leaders = observer.observe("printer").await.unwrap();
    let mut terms = Vec::new();
    loop {
        let leadership = leaders.next().await.unwrap().unwrap();
        if let Leadership::LedBy(leader) = &leadership {
            assert_eq!(leader.value, format!("term {}", leader.token));
            assert_eq!((&leader.identity[..], leader.session.number()), ("ann@a:1", 42));
            assert!(leader.since.elapsed().as_millis() >= 1_500);
        }
        let term = leadership.leader().map_or(0, |leader| leader.token.number());
        assert_ne!(terms.last(), Some(&term));
        terms.push(term);
        if terms.contains(&9) && term == 0 {
            break;
        }
    }
    // The first ones may have come together.
    assert!(terms.ends_with(&[9, 0]), "{terms:?}");
    drop(leaders);
    server.join().unwrap();
}

#[test]
fn all_that_is_observed_is_a_stream_and_can_go_to_other_threads() {
    fn is_stream<T>(_: fn() -> T) -> bool
    where
        T: futures_util::Stream + Send + Sync + Unpin,
    {
        true
    }
    fn is_iterator<T: Iterator + Send + Sync>(_: fn() -> T) -> bool {
        true
    }
    assert!(is_stream::<super::Watch>(|| unreachable!()));
    assert!(is_stream::<super::Leaders>(|| unreachable!()));
    assert!(is_stream::<super::Events>(|| unreachable!()));
    assert!(is_iterator::<blocking::Watch>(|| unreachable!()));
    assert!(is_iterator::<blocking::Leaders>(|| unreachable!()));
    assert!(is_iterator::<blocking::Events>(|| unreachable!()));
}

#[tokio::test]
async fn an_observation_that_is_given_up_half_way_is_not_missed() {
    let (address, server) = server(|listener| {
        let mut peer = Peer::accept(listener);
        peer.watched(7);
        peer.say(&[held(9)]);
        peer.until_it_hangs_up();
    });
    let observer = Observer::connect(address.to_string()).await.unwrap();
    let mut watch = observer.watch("printer").await.unwrap();
    let mut last = 0;
    while last != 9 {
        // Each call is given up at its first wait.
        match poll_immediate(watch.next()).await {
            Some(news) => last = token(news),
            None => tokio::task::yield_now().await,
        }
    }
    drop(watch);
    server.join().unwrap();
}

/// Both say the same by the same call: nobody leads is something that is told, and only an error ends.
#[test]
fn nobody_leads_is_told_and_only_an_error_is_the_end_for_those_who_wait_too() {
    let serve = |listener: &TcpListener| {
        let mut peer = Peer::accept(listener);
        peer.watched(0);
        peer.say(&[held(7)]);
        drop(peer);
        let mut peer = Peer::accept(listener);
        peer.watched(0);
        drop(peer);
        let mut peer = Peer::accept(listener);
        peer.hear();
        peer.say(&[rejected()]);
        peer.until_it_hangs_up();
    };
    let term = |leadership: Leadership| leadership.leader().map_or(0, |it| it.token.number());
    let seen_by = |observed: Vec<Result<Leadership, Error>>| {
        let (last, terms) = observed.split_last().unwrap();
        assert!(matches!(last, Err(Error::Rejected { .. })));
        let mut terms: Vec<u64> =
            terms.iter().map(|it| term(it.as_ref().unwrap().clone())).collect();
        // The first two may have come together.
        if terms.first() == Some(&7) {
            terms.insert(0, 0);
        }
        terms
    };
    let (address, done) = server(serve);
    let leaders = blocking::Observer::connect(address.to_string()).unwrap();
    let mut leaders = leaders.observe("printer").unwrap();
    assert_eq!(seen_by(leaders.by_ref().collect()), [0, 7, 0]);
    assert!(leaders.next().is_none());
    done.join().unwrap();

    let (address, done) = server(serve);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let leaders = Observer::connect(address.to_string()).await.unwrap();
        let mut leaders = leaders.observe("printer").await.unwrap();
        assert_eq!(seen_by(leaders.by_ref().collect().await), [0, 7, 0]);
        assert!(leaders.next().await.is_none());
    });
    done.join().unwrap();
}

#[tokio::test]
async fn events_are_told_in_order_until_the_connection_ends() {
    let event = |token| ServerMessage::Event {
        at_ms: 1,
        session: 42,
        identity: "ann@a:1".to_owned(),
        request: 3,
        claims: Vec::new(),
        what: Happening::Granted { token },
    };
    let (address, server) = server(move |listener| {
        let mut peer = Peer::accept(listener);
        let ClientMessage::Subscribe { query_id, name: Some(name) } = peer.hear() else { panic!() };
        assert_eq!(name, "printer");
        peer.say(&[ServerMessage::Subscribed { query_id }, event(7)]);
        peer.say(&[ServerMessage::Missed { count: 5 }, event(9)]);
    });
    let observer = Observer::connect(address.to_string()).await.unwrap();
    let mut events = observer.events(Some("printer")).await.unwrap();
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(match events.next().await.unwrap().unwrap() {
            Event::Happened(happened) => match happened.what {
                Happening::Granted { token } => token,
                other => panic!("{other:?}"),
            },
            Event::Missed { count } => count,
        });
    }
    assert_eq!(tokens, [7, 5, 9]);
    assert!(matches!(events.next().await, Some(Err(Error::Unavailable { .. }))));
    assert!(events.next().await.is_none(), "an error is the last item");
    server.join().unwrap();
    let nameless = Observer::connect(address.to_string()).await;
    assert!(nameless.is_err());
}

#[tokio::test]
async fn events_are_refused_by_a_server_that_does_not_tell_them() {
    let (address, server) = server(|listener| {
        let mut peer = Peer::accept(listener);
        assert!(matches!(peer.hear(), ClientMessage::Subscribe { name: None, .. }));
        peer.say(&[rejected()]);
        peer.until_it_hangs_up();
    });
    let observer = Observer::connect(address.to_string()).await.unwrap();
    let refused = observer.events(None).await.unwrap_err();
    assert!(matches!(refused, Error::Rejected { code: RejectionCode::Unsupported, .. }));
    server.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_looks_over_a_second_connection() {
    let (address, server) = server(|listener| {
        let mut session = Peer::accept(listener);
        let mut look = Peer::accept(listener);
        let inspect = look.hear();
        look.say(&answers(&inspect));
        look.until_it_hangs_up();
        Peer::accept(listener).watched(7);
        assert_eq!(session.hear(), ClientMessage::Goodbye);
    });
    let client = Client::connect(address.to_string()).await.unwrap();
    assert_eq!(client.status("a").await.unwrap().unwrap().name, "a");
    let mut watch = client.watch("printer").await.unwrap();
    assert_eq!(token(watch.next().await), 7);
    drop(client);
    server.join().unwrap();
}

#[test]
fn those_who_wait_watch_as_an_iterator() {
    let (address, server) = server(|listener| {
        let _session = Peer::accept(listener);
        let mut peer = Peer::accept(listener);
        peer.watched(7);
        peer.say(&[held(9)]);
        peer.until_it_hangs_up();
        let mut peer = Peer::accept(listener);
        peer.watched(7);
        peer.until_it_hangs_up();
    });
    let client = blocking::Client::connect(address.to_string()).unwrap();
    let watch = client.watch("printer").unwrap();
    let last = watch.map(Some).map(token).find(|token| *token == 9);
    assert_eq!(last, Some(9));
    let mut leaders = client.observe("printer").unwrap();
    assert_eq!(leaders.next().unwrap().unwrap().leader().unwrap().value, "term 7");
    drop(leaders);
    server.join().unwrap();
}
