//! Whole servers: on sockets of the loopback, and on streams in memory with paused time.

use std::future::pending;
use std::net::{Ipv4Addr, TcpStream};

use std::io::{self, Read, Write};
use std::thread;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

use super::*;
use crate::journal::Distance;
use crate::server::testing::{
    FlakyStore, TokioClock, hello, local, release, request, settle, try_request,
};
use crate::types::{FencingToken, Generation, RejectionCode, RequestId};
use crate::wire::{
    self, Attach, ClientMessage, Mode, RawClaim, ServerMessage, Standing, decode, encode_frame,
};

fn on_any_port(data: Data) -> Config {
    Config { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), data, ..Config::default() }
}

fn bytes_of(messages: &[ClientMessage]) -> BytesMut {
    let mut bytes = BytesMut::new();
    for message in messages {
        encode_frame(message, &mut bytes).unwrap();
    }
    bytes
}

fn next(stream: &mut TcpStream) -> ServerMessage {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut frame = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut frame).unwrap();
    decode(&frame).unwrap()
}

/// Connects, asks for a lock and returns its token and the stream.
fn take_lock(address: SocketAddr) -> (u64, TcpStream) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&bytes_of(&[hello(Attach::New), request(1, "printer")])).unwrap();
    assert!(matches!(next(&mut stream), ServerMessage::Welcome { .. }));
    match next(&mut stream) {
        ServerMessage::Grant { request: RequestId(1), token, .. } => (token.number(), stream),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_without_a_runtime_is_refused_with_a_way_out() {
    let error = Server::bind(&Config::default()).unwrap_err();
    assert!(matches!(error, ServerError::NoRuntime), "{error}");
    assert!(error.to_string().contains("server::spawn"), "{error}");
}

#[test]
fn a_spawned_server_serves_until_it_is_dropped() {
    let server = spawn(on_any_port(Data::Ephemeral)).unwrap();
    let address = server.local_addr();
    let (token, mut stream) = take_lock(address);
    assert!(token > 0);
    drop(server);
    assert!(matches!(next(&mut stream), ServerMessage::Goodbye { .. }));
    assert!(TcpStream::connect(address).is_err(), "the port is closed");
}

#[test]
fn sessions_on_threads_of_their_own_hand_a_lock_on_and_hear_goodbye() {
    let config = Config { io_threads: 2, ..on_any_port(Data::Ephemeral) };
    let server = spawn(config).unwrap();
    let (mut last, mut holder) = take_lock(server.local_addr());
    let mut others: Vec<TcpStream> = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(server.local_addr()).unwrap();
        stream.write_all(&bytes_of(&[hello(Attach::New), request(1, "printer")])).unwrap();
        assert!(matches!(next(&mut stream), ServerMessage::Welcome { .. }));
        assert!(matches!(next(&mut stream), ServerMessage::Queued { request: RequestId(1), .. }));
        others.push(stream);
    }
    for mut stream in others {
        holder.write_all(&bytes_of(&[release(1, last)])).unwrap();
        assert!(matches!(next(&mut holder), ServerMessage::Released { request: RequestId(1) }));
        match next(&mut stream) {
            ServerMessage::Grant { token, .. } => assert!(token > FencingToken::new(last)),
            other => panic!("{other:?}"),
        }
        last += 1;
        holder = stream;
    }
    drop(server);
    assert!(matches!(next(&mut holder), ServerMessage::Goodbye { .. }));
}

#[test]
fn epoch_and_tokens_rise_from_run_to_run() {
    let directory = tempfile::tempdir().unwrap();
    let config = on_any_port(Data::Directory(directory.path().join("data")));
    let first = spawn(config.clone()).unwrap();
    let (token, mut stream) = take_lock(first.local_addr());
    let epoch = first.epoch();
    stream.write_all(&bytes_of(&[ClientMessage::Goodbye])).unwrap();
    assert!(matches!(next(&mut stream), ServerMessage::Goodbye { .. }));
    first.drain();
    let second = spawn(config).unwrap();
    assert!(second.epoch() > epoch);
    let (later, _stream) = take_lock(second.local_addr());
    assert!(later > token);
}

#[tokio::test]
async fn a_crash_after_the_state_has_forgotten_the_snapshot_and_before_anything_was_done_loses_nothing()
 {
    let directory = tempfile::tempdir().unwrap();
    let data = Data::Directory(directory.path().to_path_buf());
    let config = Config { journal: Some(Distance::Process), ..on_any_port(data) };
    let first = spawn(config.clone()).unwrap();
    let _stream = take_lock(first.local_addr());
    first.drain();
    for beginning in ["Saved", "Replayed", "Replayed"] {
        // Nothing of it ever runs but what makes it ready.
        let ready = async { Server::bind(&config).unwrap().0.shared.counters.keeping.beginning() };
        let began = local(ready).await;
        assert!(format!("{began:?}").starts_with(beginning), "{began:?}");
    }
}

#[test]
fn a_data_directory_serves_one_server_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let config = on_any_port(Data::Directory(directory.path().to_path_buf()));
    let first = spawn(config.clone()).unwrap();
    let refused = spawn(config.clone()).unwrap_err();
    assert!(matches!(&refused, ServerError::DataInUse { .. }), "{refused:?}");
    assert!(refused.to_string().contains(&directory.path().display().to_string()));
    drop(first);
    spawn(config).unwrap();
}

#[test]
fn a_port_in_use_is_refused_by_name() {
    let first = spawn(on_any_port(Data::Ephemeral)).unwrap();
    let mut config = on_any_port(Data::Ephemeral);
    config.listen = first.local_addr();
    let refused = spawn(config).unwrap_err();
    assert!(matches!(refused, ServerError::Listen { .. }), "{refused:?}");
    assert!(refused.to_string().contains(&first.local_addr().to_string()));
}

/// Connects again to the session of `attach`, and says how it stands with it.
fn come_back(
    address: SocketAddr,
    attach: Attach,
    messages: &[ClientMessage],
) -> (Standing, TcpStream) {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut all = vec![hello(attach)];
    all.extend_from_slice(messages);
    stream.write_all(&bytes_of(&all)).unwrap();
    match next(&mut stream) {
        ServerMessage::Welcome { standing, .. } => (standing, stream),
        other => panic!("{other:?}"),
    }
}

/// Opens a session that holds a lock; gives what it takes to come back, and the grant.
fn hold(address: SocketAddr) -> (Attach, ServerMessage, TcpStream) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&bytes_of(&[hello(Attach::New), request(1, "printer")])).unwrap();
    let ServerMessage::Welcome { session, secret, .. } = next(&mut stream) else {
        panic!("not welcome")
    };
    let grant = next(&mut stream);
    assert!(matches!(grant, ServerMessage::Grant { .. }), "{grant:?}");
    (Attach::Resume { session, secret, generation: Generation(2) }, grant, stream)
}

fn token_of(grant: &ServerMessage) -> (u64, u64) {
    match *grant {
        // The seal is of the run.
        ServerMessage::Grant { request, token, seal: _ } => (request.number(), token.number()),
        ref other => panic!("not a grant: {other:?}"),
    }
}

#[test]
fn a_server_that_stops_in_order_waits_for_nobody_and_goes_on_at_its_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let config = on_any_port(Data::Directory(directory.path().to_path_buf()));
    let first = spawn(config.clone()).unwrap();
    let (attach, grant, mut stream) = hold(first.local_addr());
    let began = std::time::Instant::now();
    let stopping = thread::spawn(move || first.drain());
    assert!(matches!(next(&mut stream), ServerMessage::Goodbye { code, .. }
        if code == GoodbyeCode::Draining));
    drop(stream);
    stopping.join().unwrap();
    assert!(began.elapsed() < config.drain_timeout / 2, "{:?}", began.elapsed());

    // A start that fails in between does no harm.
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let listen = taken.local_addr().unwrap();
    assert!(matches!(spawn(Config { listen, ..config.clone() }), Err(ServerError::Listen { .. })));

    let second = spawn(config).unwrap();
    let (standing, mut stream) =
        come_back(second.local_addr(), attach, &[request(1, "printer"), try_request(2, "free")]);
    assert_eq!(standing, Standing::Resumed);
    assert_eq!(token_of(&next(&mut stream)), token_of(&grant));
    assert!(matches!(next(&mut stream), ServerMessage::Grant { request: RequestId(2), .. }));
}

#[test]
fn a_server_that_crashed_lets_its_holders_reclaim() {
    let directory = tempfile::tempdir().unwrap();
    let config = on_any_port(Data::Directory(directory.path().to_path_buf()));
    let first = spawn(config.clone()).unwrap();
    let (attach, grant, _stream) = hold(first.local_addr());
    let ServerMessage::Grant { request, token, seal } = grant else { panic!("{grant:?}") };
    drop(first);
    let second = spawn(config).unwrap();
    let reclaim = ClientMessage::Reclaim(wire::Reclaim::new(
        request,
        token,
        seal,
        [RawClaim { name: "printer".into(), mode: Mode::Exclusive }],
    ));
    let (standing, mut stream) =
        come_back(second.local_addr(), attach, &[reclaim, try_request(2, "free")]);
    assert!(matches!(standing, Standing::Reopened { .. }), "{standing:?}");
    assert_eq!(token_of(&next(&mut stream)), token_of(&grant));
    match next(&mut stream) {
        ServerMessage::Rejected { request: RequestId(2), code, .. } => {
            assert_eq!(code, RejectionCode::Grace);
        }
        other => panic!("{other:?}"),
    }
}

/// One connection, and then none.
struct Once(Option<DuplexStream>);

impl Listener for Once {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, Option<SocketAddr>)> {
        match self.0.take() {
            Some(stream) => Ok((stream, None)),
            None => pending().await,
        }
    }
}

/// A server that runs with one connection, which holds a lock, and waits for the same one again.
async fn with_a_holder()
-> (tokio::task::JoinHandle<Result<(), ServerError>>, ServerHandle, DuplexStream, u64) {
    with_a_holder_on(Data::Ephemeral, Arc::new(MemoryStore::default())).await
}

/// The same, on a store, which is taken for what `data` says.
async fn with_a_holder_on(
    data: Data,
    store: Arc<dyn StateStore>,
) -> (tokio::task::JoinHandle<Result<(), ServerError>>, ServerHandle, DuplexStream, u64) {
    let (mut ours, theirs) = duplex(4096);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let bound = Bound::assemble(&on_any_port(data), store, Box::new(TokioClock::new()), || {
        Ok((Once(Some(theirs)), address))
    })
    .unwrap();
    let handle = bound.handle();
    let running = spawn_local(bound.run());
    let messages = [hello(Attach::New), request(1, "printer"), request(2, "printer")];
    ours.write_all(&bytes_of(&messages)).await.unwrap();
    assert!(matches!(read(&mut ours).await, ServerMessage::Welcome { .. }));
    let ServerMessage::Grant { request: RequestId(1), token, .. } = read(&mut ours).await else {
        panic!("not granted")
    };
    assert!(matches!(read(&mut ours).await, ServerMessage::Queued { request: RequestId(2), .. }));
    (running, handle, ours, token.number())
}

async fn read(stream: &mut DuplexStream) -> ServerMessage {
    let length = stream.read_u32_le().await.unwrap();
    let mut frame = vec![0; length as usize];
    stream.read_exact(&mut frame).await.unwrap();
    decode(&frame).unwrap()
}

fn is_draining(message: &ServerMessage) -> bool {
    match message {
        ServerMessage::Rejected { request: RequestId(2), code, .. } => {
            *code == RejectionCode::Draining
        }
        ServerMessage::Goodbye { code, .. } => *code == GoodbyeCode::Draining,
        _ => false,
    }
}

#[tokio::test(start_paused = true)]
async fn a_draining_server_waits_for_holders_and_no_longer() {
    local(async {
        let (running, handle, mut stream, token) = with_a_holder().await;
        let began = Instant::now();
        handle.drain();
        assert!(is_draining(&read(&mut stream).await));
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(!running.is_finished());
        stream.write_all(&bytes_of(&[release(1, token)])).await.unwrap();
        assert_eq!(read(&mut stream).await, ServerMessage::Released { request: RequestId(1) });
        assert!(is_draining(&read(&mut stream).await));
        drop(stream);
        running.await.unwrap().unwrap();
        assert!(began.elapsed() < Duration::from_millis(3_100));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_draining_server_gives_holders_the_drain_timeout_and_stops() {
    local(async {
        let (running, handle, stream, _) = with_a_holder().await;
        let began = Instant::now();
        handle.drain();
        running.await.unwrap().unwrap();
        let drain_timeout = Config::default().drain_timeout;
        assert!(began.elapsed() >= drain_timeout);
        assert!(began.elapsed() <= drain_timeout + CLOSE_TIMEOUT * 2);
        drop(stream);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_told_to_stop_while_draining_stops_at_once() {
    local(async {
        let (running, handle, stream, _) = with_a_holder().await;
        handle.drain();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let told = Instant::now();
        handle.stop();
        running.await.unwrap().unwrap();
        assert!(told.elapsed() <= STOP_TIMEOUT + Duration::from_millis(10));
        drop(stream);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_keeps_everything_says_goodbye_saves_and_is_gone() {
    local(async {
        let store = Arc::new(FlakyStore::default());
        let data = Data::Directory("unused".into());
        let (running, handle, mut stream, _) = with_a_holder_on(data, store.clone()).await;
        let began = Instant::now();
        handle.drain();
        assert!(is_draining(&read(&mut stream).await));
        drop(stream);
        running.await.unwrap().unwrap();
        assert!(began.elapsed() < Duration::from_millis(100));
        let snapshot = store.load().unwrap().snapshot.unwrap();
        assert_eq!((snapshot.session_count(), snapshot.request_count()), (1, 2));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_save_gives_up_after_the_drain_timeout_or_when_told() {
    for at_once in [false, true] {
        local(async {
            let store = Arc::new(FlakyStore::default());
            let data = Data::Directory("unused".into());
            let (running, handle, mut stream, _) = with_a_holder_on(data, store.clone()).await;
            store.fail(true);
            let began = Instant::now();
            handle.drain();
            assert!(is_draining(&read(&mut stream).await), "told all the same");
            drop(stream);
            if at_once {
                tokio::time::sleep(Duration::from_secs(1)).await;
                handle.stop();
            }
            let failure = running.await.unwrap().unwrap_err().to_string();
            assert!(failure.contains("1 sessions with 2 requests"), "{failure}");
            assert!(failure.ends_with("(no space left)"), "{failure}");
            let expected =
                if at_once { Duration::from_secs(1) } else { Config::default().drain_timeout };
            let took = began.elapsed();
            assert!(took >= expected && took < expected + Duration::from_millis(500), "{took:?}");
            assert_eq!(store.load().unwrap().snapshot, None);
        })
        .await;
    }
}

#[tokio::test]
async fn a_server_that_has_ended_leaves_no_table_in_memory() {
    local(async {
        let directory = tempfile::tempdir().unwrap();
        let data = Data::Directory(directory.path().join("data"));
        // Who has a journal looks after it, though nobody is there.
        let config = Config { journal: Some(Distance::Process), ..on_any_port(data) };
        let server = Server::bind(&config).unwrap();
        let (coordinator, handle) = (server.0.shared.coordinator.clone(), server.handle());
        let running = spawn_local(server.run());
        settle().await;
        assert!(coordinator.connected());
        handle.stop();
        running.await.unwrap().unwrap();
        settle().await;
        assert!(!coordinator.connected(), "its actor is still there");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_told_to_stop_at_once_saves_nothing() {
    local(async {
        let store = Arc::new(MemoryStore::default());
        let data = Data::Directory("unused".into());
        let (running, handle, mut stream, _) = with_a_holder_on(data, store.clone()).await;
        handle.stop();
        assert!(is_draining(&read(&mut stream).await));
        drop(stream);
        running.await.unwrap().unwrap();
        assert_eq!(store.load().unwrap().snapshot, None);
    })
    .await;
}
