//! Clients over real sockets, with real threads and runtimes, before a server that grants whatever
//! it is asked for.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::TcpSocket;

use super::{Client, Error, HoldState, Observer, blocking};
use crate::types::{
    Epoch, FencingToken, Generation, GoodbyeCode, OwnerId, RejectionCode, RequestId, Seal, Secret,
    SessionId,
};
use crate::wire::{
    self, Attach, ClientMessage, JournalDistance, JournalStart, JournalStatus, LockStatus,
    PROTOCOL, Query, ServerMessage, ServerStatus, Standing, WaitedStatus,
};

/// A server for one connection; gives all that it heard when the client is gone.
fn generous_server() -> (SocketAddr, JoinHandle<Vec<ClientMessage>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut heard = Vec::new();
        while let Some(message) = read_message(&mut stream) {
            let answers = answers(&message);
            let done = message == ClientMessage::Goodbye;
            heard.push(message);
            let mut bytes = BytesMut::new();
            for answer in answers {
                wire::encode_frame(&answer, &mut bytes).unwrap();
            }
            // A client that has ended does not hear this, and need not.
            let _ = stream.write_all(&bytes);
            if done {
                break;
            }
        }
        heard
    });
    (address, server)
}

pub(super) fn read_message(stream: &mut TcpStream) -> Option<ClientMessage> {
    let mut len = [0; 4];
    match stream.read_exact(&mut len) {
        Ok(()) => {}
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset));
            return None;
        }
    }
    let mut payload = vec![0; u32::from_le_bytes(len).try_into().unwrap()];
    stream.read_exact(&mut payload).unwrap();
    Some(wire::decode(&payload).unwrap())
}

pub(super) fn answers(message: &ClientMessage) -> Vec<ServerMessage> {
    let answer = match message {
        ClientMessage::Hello(wire::Hello { attach, .. }) => ServerMessage::Welcome {
            protocol: PROTOCOL,
            server: "test".to_owned(),
            epoch: Epoch(3),
            session: if *attach == Attach::Observer { SessionId(0) } else { SessionId(42) },
            secret: Secret::new(43),
            generation: Generation(1),
            ttl_ms: 10_000,
            standing: Standing::Opened,
        },
        ClientMessage::Request(wire::Request { request, .. }) => ServerMessage::Grant {
            request: *request,
            token: FencingToken(100 + request.number()),
            seal: Seal::new(0),
        },
        ClientMessage::Release { request, .. } => ServerMessage::Released { request: *request },
        ClientMessage::Cancel { request } => ServerMessage::Cancelled { request: *request },
        ClientMessage::KeepAlive { sequence } => ServerMessage::KeptAlive { sequence: *sequence },
        ClientMessage::Goodbye => ServerMessage::Goodbye {
            code: GoodbyeCode::Done,
            rejection: RejectionCode::NONE,
            message: String::new(),
        },
        ClientMessage::RequestWith { request, .. } => {
            let (request, seal) = (request.request, Seal::new(0));
            ServerMessage::Grant { request, token: FencingToken(100 + request.number()), seal }
        }
        ClientMessage::Inspect { query_id, query } => inspect(*query_id, query),
        ClientMessage::Revoke { query_id, token: FencingToken(7), .. } => {
            ServerMessage::Revoked { query_id: *query_id }
        }
        ClientMessage::Revoke { query_id, .. } => ServerMessage::Rejected {
            cycle: crate::types::Cycle::default(),
            request: RequestId::new(*query_id),
            code: RejectionCode::NoSuchGrant,
            message: "nobody holds it".to_owned(),
            lock: None,
        },
        // A client of one connection has nothing to say about an earlier one.
        other => panic!("{other:?}"),
    };
    vec![answer]
}

fn inspect(query_id: u64, query: &Query) -> ServerMessage {
    let page = |names: &[&str], next| ServerMessage::LockStatus {
        query_id,
        locks: names.iter().map(|name| lock_status(name)).collect(),
        next,
    };
    match query {
        Query::Server => {
            ServerMessage::ServerStatus { query_id, status: Box::new(server_status()) }
        }
        Query::Locks { cursor: 0 } => page(&["a", "b"], Some(9)),
        Query::Locks { cursor: 9 } => page(&["c"], None),
        Query::Lock { name } if name == "a" => page(&["a"], None),
        Query::Contended { cursor: 0 } => page(&["b"], None),
        Query::Locks { .. } | Query::Lock { .. } | Query::Contended { .. } => page(&[], None),
        Query::Outlook { .. } | Query::Outlooks { .. } => {
            ServerMessage::Outlook { query_id, locks: Vec::new(), next: None }
        }
        Query::Waited => {
            let (bounds_us, counts) = (vec![50, 3_600_000_000], vec![7, 2, 1]);
            let status = WaitedStatus { epoch: Epoch::new(1), bounds_us, counts };
            ServerMessage::WaitedStatus { query_id, status: Box::new(status) }
        }
        Query::Rights { .. } => ServerMessage::Rights { query_id, verbs: vec!["see".to_owned()] },
        Query::Cluster => ServerMessage::ClusterStatus { query_id, status: None },
        Query::Journal => {
            let (distance, start) = (JournalDistance::Process, JournalStart::New);
            let status = JournalStatus { distance, bytes: 5, off_ms: 0, start };
            ServerMessage::JournalStatus { query_id, status: Box::new(status) }
        }
        Query::Sessions { .. } => {
            ServerMessage::SessionStatus { query_id, sessions: Vec::new(), next: None }
        }
    }
}

fn lock_status(name: &str) -> LockStatus {
    LockStatus {
        name: name.parse().unwrap(),
        holders: Vec::new(),
        holder_count: 1,
        waiters: Vec::new(),
        waiter_count: 0,
    }
}

fn server_status() -> ServerStatus {
    ServerStatus {
        version: "0.0.0".to_owned(),
        epoch: Epoch(3),
        uptime_ms: 1,
        draining: false,
        connections: 1,
        sessions: 0,
        locks: 3,
        held: 3,
        waiting: 0,
        grants: 4,
        expired: 0,
        protocol_errors: 0,
        slow_readers: 0,
        handshake_timeouts: 0,
        connections_refused: 0,
        last_token: FencingToken(7),
        grace_ms: 0,
        unsaved_ms: 0,
    }
}

#[tokio::test]
async fn a_lock_is_taken_and_released_over_a_socket() {
    let (address, server) = generous_server();
    let client = Client::connect(address.to_string()).await.unwrap();
    assert_eq!((client.session().number(), client.epoch().number()), (42, 3));
    assert_eq!(client.ttl().length(), Duration::from_secs(10));
    let guard = client.lock("printer").await.unwrap();
    assert_eq!((guard.name(), guard.token().number()), ("printer", 101));
    assert_eq!(guard.state(), HoldState::Held);
    assert!(guard.valid_until() > std::time::Instant::now() + Duration::from_secs(5));
    guard.release().await.unwrap();
    client.close().await.unwrap();
    assert_eq!(server.join().unwrap().last(), Some(&ClientMessage::Goodbye));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_many_tasks_ask_and_give_up_at_once_nothing_stays_held() {
    const TASKS: u64 = 16;
    const REQUESTS: u64 = 250;
    let (address, server) = generous_server();
    let client = Client::connect(address.to_string()).await.unwrap();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| tokio::spawn(ask_and_give_up(client.clone(), task, REQUESTS)))
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    // The answer comes after those to all that was dropped before.
    client.lock("last").await.unwrap().release().await.unwrap();
    client.close().await.unwrap();
    let (mut asked, mut ended) = (BTreeSet::new(), BTreeSet::new());
    for message in server.join().unwrap() {
        match message {
            ClientMessage::Request(wire::Request { request, .. }) => {
                assert!(asked.last().is_none_or(|last| request > *last), "ids only rise");
                asked.insert(request);
            }
            ClientMessage::Release { request, .. } | ClientMessage::Cancel { request } => {
                assert!(ended.insert(request), "request {request} ended twice");
            }
            _ => {}
        }
    }
    assert_eq!(asked, ended);
    assert!(asked.len() > 1);
}

/// Takes locks and gives them back, or up, in each of the ways there are.
async fn ask_and_give_up(client: Client, task: u64, requests: u64) {
    for number in 0..requests {
        let mut request = client.lock("printer").into_future();
        match (task + number) % 4 {
            0 => request.await.unwrap().release().await.unwrap(),
            1 => drop(request.await.unwrap()),
            // Given up as soon as asked, and a moment later.
            2 => drop(futures_util::future::poll_immediate(&mut request).await),
            _ => {
                for _ in 0..number % 8 {
                    if futures_util::future::poll_immediate(&mut request).await.is_some() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

#[test]
fn a_runtime_that_ends_with_a_lock_held_says_goodbye_for_it() {
    for workers in [0, 1] {
        let (address, server) = generous_server();
        let runtime = match workers {
            0 => tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            _ => tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap(),
        };
        let guard = runtime.block_on(async {
            let client = Client::connect(address.to_string()).await.unwrap();
            client.lock("printer").await.unwrap()
        });
        drop(runtime);
        assert!(!guard.is_held(), "nobody keeps it alive any more");
        drop(guard);
        assert_eq!(server.join().unwrap().last(), Some(&ClientMessage::Goodbye));
    }
}

#[test]
fn a_blocking_client_frees_its_locks_when_its_last_handle_goes() {
    let (address, server) = generous_server();
    let client = blocking::Client::connect(address.to_string()).unwrap();
    let guard = client.lock("printer").shared().note("a test").acquire().unwrap();
    assert!(guard.is_held());
    assert_eq!(guard.wait_lost(Duration::from_millis(1)).unwrap(), None);
    guard.release().unwrap();
    let guard = client.try_lock("printer").unwrap().unwrap();
    drop(client);
    assert!(guard.is_held());
    drop(guard);
    assert_eq!(server.join().unwrap().last(), Some(&ClientMessage::Goodbye));
}

#[test]
fn a_blocking_client_has_all_that_the_other_has() {
    let (address, server) = generous_server();
    let client = blocking::Client::connect(address.to_string()).unwrap();
    let owner = client.owner();
    let both = owner.lock_all(["a"]).shared("b").timeout(Duration::from_secs(1)).acquire().unwrap();
    assert_eq!((both.names().len(), both.token().number(), owner.id()), (2, 101, OwnerId(1)));
    let both = both.upgrade().nonblocking().acquire().unwrap();
    let both = both.downgrade().unwrap();
    assert_eq!(both.token().number(), 103);
    both.release().unwrap();
    let semaphore = client.semaphore("gpu", 3);
    let permit = semaphore.try_acquire().unwrap().unwrap();
    let same = semaphore.acquire().unwrap().upgrade().acquire().unwrap_err();
    assert!(same.guard.is_held() && matches!(same.error, Error::InvalidRequest { .. }));
    let term = client.elect("leader", "me").acquire().unwrap();
    assert!(term.is_held());
    // Where it must not wait, a guard is not lost by that.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let failed = runtime.block_on(async { term.downgrade().unwrap_err() });
    assert!(failed.guard.is_held() && matches!(failed.error, Error::InvalidRequest { .. }));
    drop((same, failed, permit, semaphore, owner, client));
    let heard = server.join().unwrap();
    let conversions = heard.iter().filter_map(|message| match message {
        ClientMessage::Request(wire::Request { owner, converts: Some(converts), .. }) => {
            Some((*owner, *converts))
        }
        _ => None,
    });
    assert_eq!(
        conversions.collect::<Vec<_>>(),
        [1, 2].map(|converted| (OwnerId(1), RequestId(converted)))
    );
}

#[test]
fn a_blocking_client_does_not_block_async_code() {
    let (address, _server) = generous_server();
    let client = blocking::Client::connect(address.to_string()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let guard = client.lock("printer").acquire();
        assert!(matches!(guard, Err(Error::InvalidRequest { .. })));
        // The last handle may go anywhere.
        drop(client);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_observer_looks_at_everything() {
    let (address, server) = generous_server();
    let observer = Observer::connect(address.to_string()).await.unwrap();
    assert_eq!(observer.server_status().await.unwrap().last_token, FencingToken(7));
    let locks = observer.locks().await.unwrap();
    assert_eq!(locks.iter().map(|lock| &lock.name[..]).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(observer.lock("a").await.unwrap().unwrap().name, "a");
    assert!(observer.lock("free").await.unwrap().is_none());
    assert!(observer.sessions().await.unwrap().is_empty());
    observer.ping().await.unwrap();
    observer.revoke("a", FencingToken(7)).await.unwrap();
    let missed = observer.revoke("a", FencingToken(6)).await;
    assert!(matches!(missed, Err(Error::Rejected { code: RejectionCode::NoSuchGrant, .. })));
    assert!(matches!(observer.lock("").await, Err(Error::InvalidRequest { .. })));
    drop(observer);
    let heard = server.join().unwrap();
    assert!(matches!(heard[0], ClientMessage::Hello(wire::Hello { attach: Attach::Observer, .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answer_to_a_call_that_was_dropped_is_not_taken_for_the_next() {
    let (address, server) = generous_server();
    let observer = Observer::connect(address.to_string()).await.unwrap();
    // Polled once: asked, and dropped if the answer is not there already.
    drop(futures_util::future::poll_immediate(Box::pin(observer.locks())).await);
    assert_eq!(observer.lock("a").await.unwrap().unwrap().name, "a");
    drop(observer);
    let asked = server.join().unwrap();
    assert!(matches!(asked[1], ClientMessage::Inspect { query: Query::Locks { .. }, .. }));
}

#[test]
fn a_blocking_observer_looks_too() {
    let (address, server) = generous_server();
    let observer = blocking::Observer::connect(address.to_string()).unwrap();
    assert_eq!(observer.locks().unwrap().len(), 3);
    drop(observer);
    server.join().unwrap();
}

#[tokio::test]
async fn nobody_at_the_address_is_unavailable() {
    let address = nobody();
    let client = Client::connect(&address).await;
    assert!(matches!(client, Err(Error::Unavailable { server, .. }) if *server == *address));
    assert!(matches!(Observer::connect(&address).await, Err(Error::Unavailable { .. })));
}

/// A port where nobody listens, and nobody will: whoever asks for any port is given another.
pub(super) fn nobody() -> String {
    let taken = TcpSocket::new_v4().unwrap();
    taken.bind(([127, 0, 0, 1], 0).into()).unwrap();
    Box::leak(Box::new(taken)).local_addr().unwrap().to_string()
}

/// Such a port, and one where connections are made and nobody says a word.
fn wrong_places() -> (String, TcpListener) {
    (nobody(), TcpListener::bind("127.0.0.1:0").unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn of_several_servers_the_first_that_welcomes_us_is_taken() {
    let (nobody, mute) = wrong_places();
    let (address, server) = generous_server();
    let servers = [nobody, mute.local_addr().unwrap().to_string(), address.to_string()];
    let builder = Client::builder().connect_timeout(Duration::from_secs(3));
    let client = builder.connect(&servers[..]).await.unwrap();
    client.lock("printer").await.unwrap().release().await.unwrap();
    client.close().await.unwrap();
    assert_eq!(server.join().unwrap().last(), Some(&ClientMessage::Goodbye));
    let (address, server) = generous_server();
    let servers = format!("{},{address}", servers[..2].join(","));
    let timeout = Duration::from_secs(3);
    let observer = Observer::connect_timeout(&servers, timeout).await.unwrap();
    assert_eq!(observer.locks().await.unwrap().len(), 3);
    drop(observer);
    server.join().unwrap();
}

#[tokio::test]
async fn an_error_about_several_servers_names_them_all() {
    let (nobody, _) = wrong_places();
    let error = Client::connect([&nobody, &nobody]).await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable { .. }) && error.is_retryable());
    assert!(error.to_string().contains(&format!("{nobody},{nobody}")), "{error}");
    let none: [&str; 0] = [];
    assert!(matches!(Client::connect(none).await, Err(Error::InvalidRequest { .. })));
}

#[tokio::test]
async fn a_client_comes_back_over_a_new_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let say = |stream: &mut TcpStream, messages: Vec<ServerMessage>| {
        let mut bytes = BytesMut::new();
        for message in messages {
            wire::encode_frame(&message, &mut bytes).unwrap();
        }
        stream.write_all(&bytes).unwrap();
    };
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for _ in ["Hello", "Request"] {
            let message = read_message(&mut stream).unwrap();
            say(&mut stream, answers(&message));
        }
        drop(stream);
        let (mut stream, _) = listener.accept().unwrap();
        let hello = read_message(&mut stream).unwrap();
        let mut welcome = answers(&hello);
        if let [ServerMessage::Welcome { standing, .. }] = &mut welcome[..] {
            *standing = Standing::Resumed;
        }
        say(&mut stream, welcome);
        // In this order or the other: the cut may be seen before the release or after it.
        let said = [(); 2].map(|()| read_message(&mut stream).unwrap());
        let release = said.iter().find(|m| matches!(m, ClientMessage::Release { .. })).unwrap();
        say(&mut stream, answers(release));
        (hello, said)
    });
    let client = Client::connect(&address).await.unwrap();
    let guard = client.lock("printer").await.unwrap();
    guard.release().await.unwrap();
    let (hello, said) = server.join().unwrap();
    let resume = Attach::Resume {
        session: SessionId(42),
        secret: Secret::new(43),
        generation: Generation(2),
    };
    assert!(matches!(hello, ClientMessage::Hello(wire::Hello { attach, .. }) if attach == resume));
    assert!(
        said.contains(&ClientMessage::Release { request: RequestId(1), token: FencingToken(101) })
    );
    assert!(said.iter().any(|m| matches!(
        m,
        ClientMessage::Account(wire::Account { from: RequestId(1), to: RequestId(1), .. })
    )));
}
