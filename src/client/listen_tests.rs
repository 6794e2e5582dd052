//! Those who watch and listen, before a server that says what the test says.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::future::poll_immediate;

use super::tests::{answers, read_message};
use super::{Client, Error, Event, Leadership, LockState, Observer, blocking};
use crate::types::{FencingToken, OwnerId, RejectionCode, RequestId, SessionId};
use crate::wire::{self, ClientMessage, Happening, Holder, LockStatus, Mode, ServerMessage};

/// The server's end of one connection.
struct Peer {
    /// Where to talk.
    stream: TcpStream,
    /// The latest look that it was asked for: what it says is an answer to that.
    look: u64,
}

impl Peer {
    /// The next connection, welcomed.
    fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut peer = Self { stream, look: 0 };
        let hello = peer.hear();
        assert!(matches!(hello, ClientMessage::Hello(_)));
        peer.say(&answers(&hello));
        peer
    }

    fn hear(&mut self) -> ClientMessage {
        let message = read_message(&mut self.stream).expect("the client hung up");
        if let ClientMessage::Watch { query_id, .. } | ClientMessage::Subscribe { query_id, .. } =
            &message
        {
            self.look = *query_id;
        }
        message
    }

    /// In one write.
    fn say(&mut self, messages: &[ServerMessage]) {
        let mut bytes = BytesMut::new();
        for message in messages {
            let mut message = message.clone();
            match &mut message {
                ServerMessage::LockStatus { query_id: look @ 1, .. }
                | ServerMessage::Rejected { request: RequestId(look @ 1), .. } => *look = self.look,
                _ => {}
            }
            wire::encode_frame(&message, &mut bytes).unwrap();
        }
        self.stream.write_all(&bytes).unwrap();
    }

    /// Hears that the lock is to be watched, and says how it is.
    fn watched(&mut self, token: u64) {
        assert!(matches!(self.hear(), ClientMessage::Watch { name, .. } if name == "printer"));
        self.say(&[held(token)]);
    }

    fn until_it_hangs_up(&mut self) {
        while let Some(message) = read_message(&mut self.stream) {
            assert!(
                matches!(message, ClientMessage::Unwatch { .. } | ClientMessage::Goodbye),
                "{message:?}"
            );
        }
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
        session: SessionId(42),
        identity: "ann@a:1".parse().unwrap(),
        peer: String::new(),
        owner: OwnerId(0),
        request: RequestId::new(token),
        mode: Mode::Exclusive,
        token: FencingToken::new(token),
        held_ms: 1_500,
        note: format!("term {token}").parse().unwrap(),
        connected: true,
    };
    let lock = LockStatus {
        name: "printer".parse().unwrap(),
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
    ServerMessage::Rejected {
        request: RequestId(1),
        code: RejectionCode::from_number(code),
        message,
        lock: None,
        cycle: crate::types::Cycle::default(),
    }
}

/// The token with which a watched lock is held.
fn token(observed: Option<Result<LockState, Error>>) -> u64 {
    observed.unwrap().unwrap().in_use().map_or(0, |lock| lock.holders[0].token.number())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
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
    drop((watch, observer));
    server.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
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
    drop((watch, observer));
    server.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_watch_comes_back_and_tells_only_what_is_new() {
    let (told, tell) = std::sync::mpsc::channel();
    let (address, server) = server(move |listener| {
        let mut peer = Peer::accept(listener);
        peer.watched(7);
        tell.recv().unwrap();
        drop(peer);
        // As it was, but for those who wait.
        let mut peer = Peer::accept(listener);
        peer.hear();
        peer.say(&[waited_for(held(7))]);
        peer.say(&[held(9)]);
        tell.recv().unwrap();
        drop(peer);
        // Another while nobody looked.
        let mut peer = Peer::accept(listener);
        peer.watched(11);
        tell.recv().unwrap();
        drop(peer);
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
        let _done = told.send(());
    }
    drop((watch, observer));
    server.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_watch_that_is_refused_says_so_at_once_and_later() {
    let (told, tell) = std::sync::mpsc::channel();
    let (address, server) = server(move |listener| {
        let mut peer = Peer::accept(listener);
        peer.hear();
        peer.say(&[rejected()]);
        let mut peer = Peer::accept(listener);
        peer.watched(7);
        tell.recv().unwrap();
        drop(peer);
        let mut peer = Peer::accept(listener);
        peer.hear();
        peer.say(&[rejected()]);
        peer.until_it_hangs_up();
    });
    let unsupported =
        |error: &Error| matches!(error, Error::Rejected { code: RejectionCode::Unsupported, .. });
    let observer = Observer::connect(address.to_string()).await.unwrap();
    assert!(unsupported(&observer.watch("printer").await.unwrap_err()));
    drop(observer);
    let observer = Observer::connect(address.to_string()).await.unwrap();
    let mut watch = observer.watch("printer").await.unwrap();
    assert_eq!(token(watch.next().await), 7);
    told.send(()).unwrap();
    assert!(unsupported(&watch.next().await.unwrap().unwrap_err()));
    for _ in 0..2 {
        assert!(watch.next().await.is_none(), "an error is the last item");
    }
    drop((watch, observer));
    server.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn leaders_are_told_once_a_term() {
    let (told, tell) = std::sync::mpsc::channel();
    let (address, server) = server(move |listener| {
        let mut peer = Peer::accept(listener);
        peer.watched(0);
        tell.recv().unwrap();
        peer.say(&[held(7)]);
        // Another candidate is no other leader.
        peer.say(&[waited_for(held(7))]);
        tell.recv().unwrap();
        drop(peer);
        let mut peer = Peer::accept(listener);
        peer.watched(9);
        tell.recv().unwrap();
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
        told.send(()).unwrap();
    }
    assert_eq!(terms, [0, 7, 9, 0]);
    drop((leaders, observer));
    server.join().unwrap();
}

#[test]
fn whatever_is_public_can_go_to_other_threads_and_be_used_by_several() {
    fn is_shared<T: Send + Sync + 'static>() {}
    is_shared::<(Client, super::ClientBuilder, super::LockGuard, super::Owner, super::Semaphore)>();
    is_shared::<(super::LockRequest, super::LockAllRequest, super::Upgrade, super::ConvertError)>();
    is_shared::<(Observer, super::Watch, super::Leaders, super::Events, super::SessionEvents)>();
    is_shared::<(LockState, super::Leader, Leadership, Event, super::Happened)>();
    is_shared::<(super::SessionEvent, super::SessionKey, super::Servers, super::HoldState, Error)>(
    );
    is_shared::<(blocking::Client, blocking::ClientBuilder, blocking::LockGuard, blocking::Owner)>(
    );
    is_shared::<(blocking::Semaphore, blocking::LockRequest, blocking::LockAllRequest)>();
    is_shared::<(blocking::Upgrade, blocking::ConvertError, blocking::Observer, blocking::Watch)>();
    is_shared::<(blocking::Leaders, blocking::Events)>();
}

#[test]
fn what_is_waited_for_can_go_to_other_threads() {
    fn goes<T: Send>(_: fn(Client) -> T) {}
    goes(|client| client.lock("printer").into_future());
    goes(|client| client.lock_all(["a", "b"]).into_future());
    goes(|client| client.lock("printer").run(|_| async {}));
    goes(Client::close);
    goes(|client| async move { client.watch("printer").await.map(|_| ()) });
    goes(|client| async move { client.status("printer").await.map(|_| ()) });
    goes(|client| async move { client.lock("printer").await?.release().await });
    goes(|client| async move { client.events().next().await.map(|_| ()) });
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

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
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
    drop((watch, observer));
    server.join().unwrap();
}

/// Both say the same by the same call: nobody leads is something that is told, and only an error ends.
#[test]
fn nobody_leads_is_told_and_only_an_error_is_the_end_for_those_who_wait_too() {
    let serve = |tell: std::sync::mpsc::Receiver<()>| {
        move |listener: &TcpListener| {
            let mut peer = Peer::accept(listener);
            peer.watched(0);
            tell.recv().unwrap();
            peer.say(&[held(7)]);
            tell.recv().unwrap();
            drop(peer);
            let mut peer = Peer::accept(listener);
            peer.watched(0);
            tell.recv().unwrap();
            drop(peer);
            let mut peer = Peer::accept(listener);
            peer.hear();
            peer.say(&[rejected()]);
            peer.until_it_hangs_up();
        }
    };
    let term = |leadership: Leadership| leadership.leader().map_or(0, |it| it.token.number());
    let seen_by = |observed: Vec<Result<Leadership, Error>>| {
        let (last, terms) = observed.split_last().unwrap();
        assert!(matches!(last, Err(Error::Rejected { .. })));
        terms.iter().map(|it| term(it.as_ref().unwrap().clone())).collect::<Vec<u64>>()
    };
    let (told, tell) = std::sync::mpsc::channel();
    let (address, done) = server(serve(tell));
    let observer = blocking::Observer::connect(address.to_string()).unwrap();
    let mut leaders = observer.observe("printer").unwrap();
    let go_on = |_: &Result<Leadership, Error>| {
        let _done = told.send(());
    };
    assert_eq!(seen_by(leaders.by_ref().inspect(go_on).collect()), [0, 7, 0]);
    assert!(leaders.next().is_none());
    drop((leaders, observer));
    done.join().unwrap();

    let (told, tell) = std::sync::mpsc::channel();
    let (address, done) = server(serve(tell));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let observer = Observer::connect(address.to_string()).await.unwrap();
        let mut leaders = observer.observe("printer").await.unwrap();
        let go_on = |_: &Result<Leadership, Error>| {
            let _done = told.send(());
        };
        assert_eq!(seen_by(leaders.by_ref().inspect(go_on).collect().await), [0, 7, 0]);
        assert!(leaders.next().await.is_none());
    });
    done.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn events_are_told_in_order_and_again_after_a_gap() {
    let event = |token| ServerMessage::Event {
        at_ms: 1,
        session: SessionId(42),
        identity: "ann@a:1".parse().unwrap(),
        request: RequestId(3),
        claims: Vec::new(),
        what: Happening::Granted { token },
    };
    let (address, server) = server(move |listener| {
        let mut peer = Peer::accept(listener);
        let ClientMessage::Subscribe { query_id, name: Some(name) } = peer.hear() else { panic!() };
        assert_eq!(name, "printer");
        peer.say(&[ServerMessage::Subscribed { query_id }, event(FencingToken(7))]);
        peer.say(&[ServerMessage::Missed { count: 5 }, event(FencingToken(9))]);
        drop(peer);
        let mut peer = Peer::accept(listener);
        let ClientMessage::Subscribe { query_id, name: Some(name) } = peer.hear() else { panic!() };
        assert_eq!(name, "printer");
        peer.say(&[ServerMessage::Subscribed { query_id }, event(FencingToken(11))]);
        peer.until_it_hangs_up();
    });
    let observer = Observer::connect(address.to_string()).await.unwrap();
    let mut events = observer.events(Some("printer")).await.unwrap();
    let mut heard = Vec::new();
    for _ in 0..5 {
        heard.push(match events.next().await.unwrap().unwrap() {
            Event::Happened(happened) => match happened.what {
                Happening::Granted { token } => token.to_string(),
                other => panic!("{other:?}"),
            },
            Event::Missed { count } => format!("{count} missed"),
            Event::Gap { cause } => {
                assert!(matches!(cause, Error::Unavailable { .. }), "{cause}");
                "a gap".to_owned()
            }
        });
    }
    assert_eq!(heard, ["7", "5 missed", "9", "a gap", "11"]);
    drop(events);
    server.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
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
async fn a_client_looks_and_watches_over_its_one_connection() {
    let (address, server) = server(|listener| {
        let mut session = Peer::accept(listener);
        let inspect = session.hear();
        session.say(&answers(&inspect));
        session.watched(7);
        // Another who watches the same is shown it too, and so the first may be once more.
        session.watched(7);
        session.say(&[held(9)]);
        assert_eq!(session.hear(), ClientMessage::Unwatch { name: "printer".to_owned() });
        assert_eq!(session.hear(), ClientMessage::Goodbye);
    });
    let client = Client::connect(address.to_string()).await.unwrap();
    assert_eq!(client.status("a").await.unwrap().unwrap().name, "a");
    let mut first = client.watch("printer").await.unwrap();
    assert_eq!(token(first.next().await), 7);
    let mut second = client.watch("printer").await.unwrap();
    while token(second.next().await) != 9 {}
    assert_eq!(token(first.next().await), 9, "what it was told is not told again");
    // One is enough to keep the watch, and a watch is enough to keep the connection.
    drop(client);
    drop(second);
    drop(first);
    server.join().unwrap();
}

#[test]
fn those_who_wait_watch_as_an_iterator() {
    let (address, server) = server(|listener| {
        let mut session = Peer::accept(listener);
        session.watched(7);
        session.say(&[held(9)]);
        assert_eq!(session.hear(), ClientMessage::Unwatch { name: "printer".to_owned() });
        session.watched(7);
        session.until_it_hangs_up();
    });
    let client = blocking::Client::connect(address.to_string()).unwrap();
    let watch = client.watch("printer").unwrap();
    let last = watch.map(Some).map(token).find(|token| *token == 9);
    assert_eq!(last, Some(9));
    let mut leaders = client.observe("printer").unwrap();
    assert_eq!(leaders.next().unwrap().unwrap().leader().unwrap().value, "term 7");
    drop((leaders, client));
    server.join().unwrap();
}
