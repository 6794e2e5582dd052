//! Measurements of a server that is told how to answer, rightly or wrongly.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::BytesMut;
use coordinator::types::{
    Epoch, FencingToken, Generation, GoodbyeCode, LostReason, Mode, RejectionCode, Seal, Secret,
    SessionId,
};
use coordinator::wire::{
    self, ClientMessage, PROTOCOL, ServerCodec, ServerMessage, Standing, encode_frame,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::Decoder;

use super::checks::Violation;
use super::*;

/// What a server says to a message; nothing: it closes the connection.
type Answers = dyn FnMut(&ClientMessage) -> Option<Vec<ServerMessage>> + Send;

/// A server that answers as it is told, until the test ends.
async fn server(
    answers: impl FnMut(&ClientMessage) -> Option<Vec<ServerMessage>> + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answers: Arc<Mutex<Box<Answers>>> = Arc::new(Mutex::new(Box::new(answers)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&answers)));
        }
    });
    address
}

async fn serve(mut stream: TcpStream, answers: Arc<Mutex<Box<Answers>>>) -> Option<()> {
    let (mut unread, mut unsent) = (BytesMut::new(), BytesMut::new());
    let mut codec = ServerCodec::before_hello();
    codec.hello_accepted();
    loop {
        for message in codec.decode(&mut unread).unwrap().unwrap_or_default() {
            let said = (answers.lock().unwrap())(&message)?;
            for answer in &said {
                encode_frame(answer, &mut unsent).unwrap();
            }
        }
        stream.write_all(&unsent).await.ok()?;
        unsent.clear();
        if stream.read_buf(&mut unread).await.ok()? == 0 {
            return None;
        }
    }
}

fn welcome() -> ServerMessage {
    ServerMessage::Welcome {
        protocol: PROTOCOL,
        server: "fake".to_owned(),
        epoch: Epoch(1),
        session: SessionId(1),
        secret: Secret::new(1),
        generation: Generation(1),
        ttl_ms: 10_000,
        standing: Standing::Opened,
    }
}

/// Answers as a server should whose locks are never contended.
fn rightly() -> impl FnMut(&ClientMessage) -> Option<Vec<ServerMessage>> {
    let mut token = 0;
    move |message| match *message {
        ClientMessage::Hello(_) => Some(vec![welcome()]),
        ClientMessage::Request(wire::Request { request, .. }) => {
            token += 1;
            Some(vec![ServerMessage::Grant {
                request,
                token: FencingToken::new(token),
                seal: Seal::new(0),
            }])
        }
        ClientMessage::Release { request, .. } => Some(vec![ServerMessage::Released { request }]),
        ClientMessage::Goodbye => {
            let message = String::new();
            Some(vec![ServerMessage::Goodbye {
                code: GoodbyeCode::from_number(1),
                rejection: RejectionCode::NONE,
                message,
            }])
        }
        _ => Some(Vec::new()),
    }
}

fn plan(connections: usize, extent: Extent) -> Plan {
    Plan {
        connections,
        threads: 1,
        locks: Locks::Own,
        mode: Mode::Exclusive,
        rhythm: Rhythm::Steps,
        keep: Connections::Kept,
        priority: Priority::Usual,
        warmup: Duration::ZERO,
        extent,
        prefix: "test".to_owned(),
    }
}

async fn measured(server: SocketAddr, plan: Plan) -> Result<Outcome, Error> {
    let server = server.to_string();
    let peer = Coordinator {
        server,
        tls: None,
        credential: None,
        connect_timeout: Duration::from_secs(30),
        plan: plan.clone(),
    };
    measure(peer, plan, None, pending(), |_| ()).await
}

async fn violation(plan: Plan, server: SocketAddr) -> Violation {
    match measured(server, plan).await {
        Err(Error::Violation(violation)) => violation,
        other => panic!("no violation: {other:?}"),
    }
}

#[tokio::test]
async fn as_many_pairs_are_measured_as_were_asked_for() {
    for (threads, rhythm, pairs) in [
        (1, Rhythm::Steps, 100),
        (2, Rhythm::Steps, 100),
        // Whole writes only.
        (2, Rhythm::Batches(8.try_into().unwrap()), 104),
        (1, Rhythm::Rate(1e5), 100),
    ] {
        let plan = Plan { threads, rhythm, ..plan(3, Extent::Pairs(100)) };
        let outcome = measured(server(rightly()).await, plan).await.unwrap();
        assert_eq!(outcome.pairs, pairs);
        assert_eq!((outcome.acquire.count, outcome.release.count), (pairs, pairs));
        assert!(outcome.course.is_complete);
    }
}

#[tokio::test]
async fn each_pair_can_have_its_connection() {
    let hellos = Arc::new(AtomicU64::new(0));
    let (counted, mut answers) = (Arc::clone(&hellos), rightly());
    let address = server(move |message| {
        let is_hello = matches!(message, ClientMessage::Hello(_));
        counted.fetch_add(u64::from(is_hello), Ordering::SeqCst);
        answers(message)
    });
    let plan = Plan { keep: Connections::PerIteration, ..plan(3, Extent::Pairs(50)) };
    let outcome = measured(address.await, plan).await.unwrap();
    assert_eq!((outcome.pairs, hellos.load(Ordering::SeqCst)), (50, 50));
}

#[tokio::test]
async fn a_warm_up_does_not_count() {
    let plan = Plan { warmup: Duration::from_millis(20), ..plan(1, Extent::Pairs(100)) };
    let outcome = measured(server(rightly()).await, plan).await.unwrap();
    assert_eq!((outcome.pairs, outcome.acquire.count), (100, 100));
    assert!(outcome.grants_checked > 100, "but it is checked");
}

#[tokio::test]
async fn a_token_that_comes_twice_ends_the_measurement() {
    let mut answers = rightly();
    let address = server(move |message| match *message {
        ClientMessage::Request(wire::Request { request, .. }) => {
            Some(vec![ServerMessage::Grant { request, token: FencingToken(7), seal: Seal::new(0) }])
        }
        _ => answers(message),
    });
    let violation = violation(plan(1, Extent::Pairs(100)), address.await).await;
    assert!(matches!(violation, Violation::TokenNotRising { token: 7, before: 7, .. }));
}

#[tokio::test]
async fn two_holders_at_a_time_end_the_measurement() {
    let plan = Plan { locks: Locks::Same, ..plan(3, Extent::For(Duration::from_secs(60))) };
    let violation = violation(plan, server(rightly()).await).await;
    assert!(
        matches!(violation, Violation::TooManyHolders { units: 2, capacity: 1, .. }),
        "{violation}"
    );
}

#[tokio::test]
async fn an_answer_to_no_question_ends_the_measurement() {
    let mut answers = rightly();
    let address = server(move |message| match *message {
        ClientMessage::Release { request, .. } => {
            Some(vec![ServerMessage::Released { request: request.next() }])
        }
        _ => answers(message),
    });
    let violation = violation(plan(1, Extent::Pairs(100)), address.await).await;
    assert!(matches!(violation, Violation::WrongAnswer { connection: 0, .. }));
}

#[tokio::test]
async fn a_loss_without_a_reason_ends_the_measurement() {
    let mut answers = rightly();
    let address = server(move |message| match *message {
        ClientMessage::Release { request, token } => {
            Some(vec![ServerMessage::Lost { request, token, reason: LostReason::from_number(1) }])
        }
        _ => answers(message),
    });
    let violation = violation(plan(1, Extent::Pairs(100)), address.await).await;
    assert_eq!(violation, Violation::Lost { connection: 0, token: 1 });
}

#[tokio::test]
async fn a_server_that_goes_away_ends_the_measurement() {
    let mut answers = rightly();
    let mut left = 10;
    let address = server(move |message| {
        left -= u32::from(left > 0);
        if left == 0 { None } else { answers(message) }
    });
    let result = measured(address.await, plan(1, Extent::For(Duration::from_secs(60)))).await;
    assert!(matches!(result, Err(Error::Connection(_))), "{result:?}");
}

#[tokio::test]
async fn whoever_interrupts_gets_what_was_measured() {
    let address = server(rightly()).await.to_string();
    let plan = plan(1, Extent::For(Duration::from_secs(3600)));
    let peer = Coordinator {
        server: address,
        tls: None,
        credential: None,
        connect_timeout: Duration::from_secs(30),
        plan: plan.clone(),
    };
    let (tell, told) = tokio::sync::oneshot::channel();
    let mut tell = Some(tell);
    let interrupted = async { told.await.unwrap() };
    let outcome = measure(peer, plan, None, interrupted, |progress| {
        if let Progress::Measured { pairs: 1.., .. } = progress
            && let Some(tell) = tell.take()
        {
            tell.send(()).unwrap();
        }
    });
    let outcome = outcome.await.unwrap();
    assert!(outcome.pairs > 0 && !outcome.course.is_complete);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stood_still_shows_in_all_that_should_have_begun_meanwhile() {
    const STOOD_STILL: Duration = Duration::from_millis(100);
    let mut answers = rightly();
    let mut is_first = true;
    let address = server(move |message| {
        if matches!(message, ClientMessage::Request(_)) && std::mem::take(&mut is_first) {
            thread::sleep(STOOD_STILL);
        }
        answers(message)
    });
    // They should begin within 20 ms, so none can be answered before 80 ms have passed.
    let plan = Plan { rhythm: Rhythm::Rate(1000.0), ..plan(1, Extent::Pairs(20)) };
    let outcome = measured(address.await, plan).await.unwrap();
    assert!(outcome.acquire.p50 >= 80_000_000, "{:?}", outcome.acquire);
}

#[tokio::test]
async fn a_session_that_asks_nothing_is_kept_alive() {
    let (heard, mut keep_alives) = tokio::sync::mpsc::unbounded_channel();
    let mut answers = rightly();
    let address = server(move |message| {
        if let ClientMessage::KeepAlive { sequence } = message {
            heard.send(*sequence).unwrap();
        }
        answers(message)
    });
    let plan = plan(1, Extent::Pairs(1));
    let server = address.await.to_string();
    let peer = Coordinator {
        server,
        tls: None,
        credential: None,
        connect_timeout: Duration::from_secs(30),
        plan,
    };
    let mut session = peer.connect(0).await.unwrap();
    session.greet().await.unwrap();
    // From here on, time passes as fast as nothing happens.
    tokio::time::pause();
    let idle = tokio::time::timeout(Duration::from_secs(35), session.keep_alive()).await;
    assert!(idle.is_err(), "{idle:?}");
    tokio::time::resume();
    for sequence in 1..=3 {
        assert_eq!(keep_alives.recv().await, Some(sequence));
    }
}
