//! Nothing that one client does hurts another: honest clients beside one who means harm, on the real
//! program.
//!
//! The adversary does at the same time what each of its threads can do best: it asks questions among
//! thousands of entangled waiters, accounts for nothing in sessions full of requests, revokes what
//! nobody holds, watches and does not read, and fills connections with silence. Meanwhile honest
//! clients lock and release under the shortest lease there is, and one of them measures how long its
//! keep-alives take.
//!
//! `scripts/nemesis` makes a long run of it and holds the keep-alives to [`KEEP_ALIVE_P99_MAX`], which
//! says something only about a program that was built with optimisation.

#![allow(clippy::print_stdout, reason = "a long run ends in figures")]

use std::env;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use coordinator::blocking::Client;
use coordinator::wire::{
    self, Attach, ClientMessage, Mode, Query, RawClaim, ServerMessage, encode_frame,
};

use crate::raw::{Raw, hello_for};
use crate::support::Server;
use coordinator::types::{FencingToken, OwnerId, RequestId};

/// For how long, and among how many, in the normal run.
const SECONDS: u64 = 6;
const CROWD: u64 = 500;
/// Honest clients, and the locks that they contend for.
const HONEST: u64 = 6;
const LOCKS: u64 = 3;
/// The shortest lease there is.
const TTL: Duration = Duration::from_secs(2);
/// What 99 of 100 keep-alives of a bystander take at most.
const KEEP_ALIVE_P99_MAX: Duration = Duration::from_millis(20);
/// Between two keep-alives of the bystander.
const KEEP_ALIVE_PAUSE: Duration = Duration::from_millis(5);
/// What the adversary writes at a time.
const BATCH: usize = 200;

fn number(name: &str, usual: u64) -> u64 {
    env::var(name).map_or(usual, |text| text.parse().unwrap())
}

/// A request of an owner, which waits for ever.
fn ask(request: u64, owner: u64, name: &str, mode: Mode) -> ClientMessage {
    ClientMessage::Request(wire::Request {
        owner: OwnerId::new(owner),
        ..wire::Request::new(RequestId::new(request), [RawClaim { name: name.into(), mode }])
    })
}

/// A session of the adversary, which says much at a time and does not wait for answers.
struct Evil {
    raw: Raw,
    latest: u64,
}

impl Evil {
    fn session(address: &str) -> Self {
        let mut raw = Raw::connect_to(address);
        raw.say(&[hello_for(Attach::New, 60_000, Some(0))]);
        assert!(matches!(raw.hear(), ServerMessage::Welcome { .. }));
        Self { raw, latest: 0 }
    }

    fn observer(address: &str) -> Self {
        let mut raw = Raw::connect_to(address);
        raw.say(&[hello_for(Attach::Observer, 0, None)]);
        assert!(matches!(raw.hear(), ServerMessage::Welcome { .. }));
        Self { raw, latest: 0 }
    }

    /// The next request.
    fn next(&mut self, owner: u64, name: &str, mode: Mode) -> ClientMessage {
        self.latest += 1;
        ask(self.latest, owner, name, mode)
    }

    /// Says it, and reads until all before it is answered.
    fn say_all(&mut self, messages: &[ClientMessage]) {
        for some in messages.chunks(BATCH) {
            self.raw.say(some);
            self.raw.say(&[ClientMessage::KeepAlive { sequence: 77 }]);
            // Whatever it is told for it is of no interest here.
            while self.raw.hear() != (ServerMessage::KeptAlive { sequence: 77 }) {}
        }
    }

    /// Says it over and over until `over`, as fast as it is taken, and throws away what it hears.
    fn hammer(mut self, over: &AtomicBool, mut say: impl FnMut(&mut Self) -> Vec<ClientMessage>) {
        self.raw.socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        self.raw.socket.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut heard = vec![0; 64 * 1024];
        while !over.load(Ordering::SeqCst) {
            let mut frames = BytesMut::new();
            for message in say(&mut self) {
                encode_frame(&message, &mut frames).unwrap();
            }
            // It may be thrown out, and what is cut short is nonsense: then it has had its turn.
            if self.raw.socket.write_all(&frames).is_err() {
                return;
            }
            while matches!(self.raw.socket.read(&mut heard), Ok(read) if read == heard.len()) {}
        }
    }
}

/// Questions of an owner among entangled waiters: who waits for whom.
fn asks_who_waits_for_whom(address: &str, crowd: u64, over: &AtomicBool) {
    let pool = Mode::Permits { take: 1, of: 2 };
    let mut holder = Evil::session(address);
    let holds = [holder.next(0, "evil-q", Mode::Exclusive), holder.next(0, "evil-z", pool)];
    holder.say_all(&holds);
    let mut fill = Evil::session(address);
    let row: Vec<_> =
        (1..=crowd).map(|owner| fill.next(owner, "evil-q", Mode::Exclusive)).collect();
    fill.say_all(&row);
    let mut asker = Evil::session(address);
    let holds = [asker.next(1, "evil-z", pool)];
    asker.say_all(&holds);
    let mut pairs = Evil::session(address);
    for owner in 1..=crowd / 10 {
        let three = [
            pairs.next(owner, "evil-q", Mode::Exclusive),
            pairs.next(owner, "evil-z", pool),
            pairs.next(0, "evil-q", Mode::Exclusive),
        ];
        pairs.say_all(&three);
    }
    asker.hammer(over, |asker| {
        let question = asker.next(1, "evil-q", Mode::Exclusive);
        vec![question, ClientMessage::Cancel { request: RequestId::new(asker.latest) }]
    });
}

/// Accounts that list nothing, in a session of many requests.
fn accounts_for_nothing(address: &str, crowd: u64, over: &AtomicBool) {
    let mut full = Evil::session(address);
    let held: Vec<_> =
        (0..crowd).map(|lock| full.next(0, &format!("evil-{lock}"), Mode::Exclusive)).collect();
    full.say_all(&held);
    let nothing = wire::Account {
        from: RequestId::new(u64::MAX),
        to: RequestId::new(u64::MAX),
        held: vec![],
        waiting: vec![],
    };
    full.hammer(over, |_| vec![ClientMessage::Account(nothing.clone()); BATCH]);
}

/// Revocations of what nobody holds, of a lock that many share.
fn revokes_what_nobody_holds(address: &str, crowd: u64, over: &AtomicBool) {
    let mut sharers = Evil::session(address);
    let held: Vec<_> = (0..crowd).map(|_| sharers.next(0, "evil-s", Mode::Shared)).collect();
    sharers.say_all(&held);
    let (query_id, name) = (1, "evil-s".to_owned());
    let revoke = ClientMessage::Revoke { query_id, name, token: FencingToken(1) };
    Evil::observer(address).hammer(over, |_| vec![revoke.clone(); BATCH]);
}

/// Watchers who do not read, of a lock that changes all the time.
fn watches_and_does_not_read(address: &str, crowd: u64, over: &AtomicBool) {
    let watch = ClientMessage::Watch { query_id: 1, name: "evil-w".into() };
    let mut watchers = Vec::new();
    for _ in 0..crowd / 20 {
        let mut watcher = Evil::observer(address);
        watcher.raw.say(std::slice::from_ref(&watch));
        watchers.push(watcher);
    }
    Evil::session(address).hammer(over, |toggler| {
        let request = toggler.next(0, "evil-w", Mode::Exclusive);
        vec![request, ClientMessage::Cancel { request: RequestId::new(toggler.latest) }]
    });
}

/// Questions whose answers are long, and are not read.
fn asks_and_does_not_read(address: &str, over: &AtomicBool) {
    while !over.load(Ordering::SeqCst) {
        let mut observer = Evil::observer(address);
        observer.raw.socket.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut frames = BytesMut::new();
        for query_id in 0..BATCH as u64 {
            let query = Query::Locks { cursor: 0 };
            encode_frame(&ClientMessage::Inspect { query_id, query }, &mut frames).unwrap();
        }
        while !over.load(Ordering::SeqCst) && observer.raw.socket.write_all(&frames).is_ok() {}
    }
}

/// Connections that say nothing.
fn fills_connections_with_silence(address: &str, crowd: u64, over: &AtomicBool) {
    let mut silent = Vec::new();
    while !over.load(Ordering::SeqCst) {
        if silent.len() < usize::try_from(crowd / 4).unwrap() {
            silent.extend(std::net::TcpStream::connect(address));
        } else {
            thread::sleep(KEEP_ALIVE_PAUSE);
        }
    }
}

/// An honest client: locks, looks whether it is alone, and gives back, as often as it can.
fn works(address: &str, inside: &[AtomicU64], number: u64, over: &AtomicBool) -> u64 {
    let client = Client::builder().ttl(TTL).connect(address).unwrap();
    let session = client.session();
    let (mut rounds, mut last) = (0, 0);
    while !over.load(Ordering::SeqCst) {
        let lock = (number + rounds) % LOCKS;
        let guard = client.lock(format!("honest-{lock}")).acquire().unwrap();
        let place = &inside[usize::try_from(lock).unwrap()];
        assert_eq!(place.fetch_add(1, Ordering::SeqCst), 0, "two in honest-{lock}");
        assert!(guard.token().number() > last);
        last = guard.token().number();
        assert!(guard.is_held(), "an honest client has lost its lock");
        place.fetch_sub(1, Ordering::SeqCst);
        guard.release().expect("an honest client has lost its lock");
        rounds += 1;
    }
    assert_eq!(client.session(), session, "an honest client has lost its session");
    rounds
}

/// How long keep-alives take, one after the other.
fn keeps_alive(address: &str, over: &AtomicBool) -> Vec<Duration> {
    let mut bystander = Raw::connect_to(address);
    bystander.say(&[hello_for(Attach::New, 2_000, None)]);
    assert!(matches!(bystander.hear(), ServerMessage::Welcome { .. }));
    let mut took = Vec::new();
    while !over.load(Ordering::SeqCst) {
        let began = Instant::now();
        let sequence = took.len() as u64;
        bystander.say(&[ClientMessage::KeepAlive { sequence }]);
        assert_eq!(bystander.hear(), ServerMessage::KeptAlive { sequence });
        took.push(began.elapsed());
        thread::sleep(KEEP_ALIVE_PAUSE);
    }
    took.sort_unstable();
    took
}

#[test]
fn an_adversary_hurts_nobody_else() {
    let length = Duration::from_secs(number("ADVERSARY_SECONDS", SECONDS));
    let crowd = number("ADVERSARY_CROWD", CROWD);
    let server = Server::start_durable();
    let over = AtomicBool::new(false);
    let inside: Vec<AtomicU64> = (0..LOCKS).map(|_| AtomicU64::new(0)).collect();
    let (rounds, took) = thread::scope(|scope| {
        let (address, over, inside) = (&server.address[..], &over, &inside[..]);
        let honest: Vec<_> =
            (0..HONEST).map(|n| scope.spawn(move || works(address, inside, n, over))).collect();
        let bystander = scope.spawn(|| keeps_alive(address, over));
        scope.spawn(|| asks_who_waits_for_whom(address, crowd, over));
        scope.spawn(|| accounts_for_nothing(address, crowd, over));
        scope.spawn(|| revokes_what_nobody_holds(address, crowd, over));
        scope.spawn(|| watches_and_does_not_read(address, crowd, over));
        scope.spawn(|| asks_and_does_not_read(address, over));
        scope.spawn(|| fills_connections_with_silence(address, crowd, over));
        thread::sleep(length);
        over.store(true, Ordering::SeqCst);
        let rounds: u64 = honest.into_iter().map(|honest| honest.join().unwrap()).sum();
        (rounds, bystander.join().unwrap())
    });
    assert!(rounds > HONEST && took.len() > 10, "{rounds} rounds, {} keep-alives", took.len());
    let of_100 = |part: usize| took[(took.len() - 1) * part / 100];
    let (p50, p99, max) = (of_100(50), of_100(99), of_100(100));
    println!(
        "adversary: {rounds} honest rounds; keep-alives p50 {p50:?}, p99 {p99:?}, max {max:?}"
    );
    if env::var_os("ADVERSARY_SECONDS").is_some() {
        assert!(p99 <= KEEP_ALIVE_P99_MAX, "99 of 100 keep-alives took up to {p99:?}");
    }
}
