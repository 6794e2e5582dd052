//! Nothing is lost: broken connections, killed and paused clients, killed, paused and restarted
//! coordinators. Real processes, real sockets, real signals.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coordinator::types::{
    FencingToken, Generation, GoodbyeCode, LostReason, RejectionCode, RequestId, Seal, Secret,
};
use coordinator::wire::{
    self, Attach, ClientMessage, Mode, RawClaim, ServerMessage, Standing, Wait,
};
use coordinator::{Client, Error, FenceGuard, HoldState, LockGuard, Servers};
use rustix::process::Signal;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::proxy::{Proxy, Way};
use crate::raw::{Raw, hello, hello_for, request};
use crate::support::{DEADLINE, Door, Home, Server, eventually, is_stopped, line_in, run, start};

/// The shortest lease: what has to wait for one need not wait for long.
const TTL: Duration = Duration::from_secs(2);
/// A lease that a busy machine does not stand still for.
const LONG_TTL: Duration = Duration::from_secs(6);

async fn connect(servers: impl Into<Servers>) -> Client {
    connect_for(TTL, servers).await
}

async fn connect_for(ttl: Duration, servers: impl Into<Servers>) -> Client {
    Client::builder().ttl(ttl).connect(servers).await.unwrap()
}

fn status(server: &Server) -> serde_json::Value {
    let status = run(server.client(&["status", "--json"]));
    serde_json::from_str::<serde_json::Value>(&status.out).unwrap()["server"].clone()
}

/// A session that says no more than it is told to, with the lock `name`; and the grant's token.
fn raw_holder(server: &Server, linger_ms: Option<u32>, name: &str) -> (Raw, u64) {
    raw_holder_for(TTL, server, linger_ms, name)
}

fn raw_holder_for(
    ttl: Duration,
    server: &Server,
    linger_ms: Option<u32>,
    name: &str,
) -> (Raw, u64) {
    let ttl_ms = u32::try_from(ttl.as_millis()).unwrap();
    let mut holder = Raw::connect(server);
    holder.say(&[hello_for(Attach::New, ttl_ms, linger_ms), request(1, name)]);
    assert!(matches!(holder.hear(), ServerMessage::Welcome { .. }));
    let ServerMessage::Grant { request: RequestId(1), token, .. } = holder.hear() else { panic!() };
    (holder, token.number())
}

#[test]
fn after_a_holders_death_the_next_waits_for_the_rest_of_its_lease_and_no_longer() {
    let server = Server::start_durable();
    let runtime = Runtime::new().unwrap();
    let began = Instant::now();
    let (holder, token) = raw_holder_for(LONG_TTL, &server, None, "printer");
    let heard = Instant::now();
    // As the kernel does for a process that is killed.
    drop(holder);
    runtime.block_on(async {
        let client = connect(&server.address).await;
        let guard = client.lock("printer").await.unwrap();
        assert!(guard.token() > FencingToken::new(token));
    });
    assert!(heard.elapsed() >= LONG_TTL.saturating_sub(heard - began), "{:?}", heard.elapsed());
    // Not for another lease.
    assert!(heard.elapsed() < LONG_TTL * 3 / 2, "{:?}", heard.elapsed());
}

#[test]
fn a_holder_that_lingers_for_nothing_frees_its_lock_with_its_connection() {
    let server = Server::start_durable();
    // Its lease would outlast the test.
    let (holder, _) = raw_holder_for(DEADLINE * 10, &server, Some(0), "printer");
    drop(holder);
    Runtime::new().unwrap().block_on(async {
        let client = connect(&server.address).await;
        client.lock("printer").timeout(DEADLINE).await.unwrap();
    });
}

/// Clients that hold, and clients that wait for what they hold in a known order.
struct Crowd {
    clients: Vec<Client>,
    guards: Vec<LockGuard>,
    /// Which waiter of which lock was granted, in the order of the grants.
    granted: mpsc::UnboundedReceiver<(usize, usize, LockGuard)>,
}

const HOLDERS: usize = 50;
const WAITERS_PER_LOCK: usize = 4;

impl Crowd {
    async fn gather(servers: &Servers) -> Self {
        let (tell, granted) = mpsc::unbounded_channel();
        let mut crowd = Self { clients: Vec::new(), guards: Vec::new(), granted };
        for lock in 0..HOLDERS {
            let client = Client::builder().connect(servers).await.unwrap();
            crowd.guards.push(client.lock(format!("lock {lock}")).await.unwrap());
            crowd.clients.push(client);
        }
        for waiter in 0..WAITERS_PER_LOCK {
            for lock in 0..HOLDERS {
                let client = Client::builder().connect(servers).await.unwrap();
                let (queued, mut is_queued) = mpsc::unbounded_channel();
                let request = client.lock(format!("lock {lock}")).on_queued(move |_| {
                    let _ = queued.send(());
                });
                let tell = tell.clone();
                tokio::spawn(async move {
                    let guard = request.await.expect("a waiter saw an error");
                    tell.send((lock, waiter, guard)).unwrap();
                });
                is_queued.recv().await.unwrap();
                crowd.clients.push(client);
            }
        }
        crowd
    }

    /// Every lock passes through all its waiters, in their order, with growing tokens.
    async fn pass_all_on(mut self) {
        let mut last: Vec<_> = self.guards.iter().map(LockGuard::token).collect();
        let mut next = vec![0; HOLDERS];
        for guard in self.guards.drain(..) {
            guard.release().await.unwrap();
        }
        for _ in 0..HOLDERS * WAITERS_PER_LOCK {
            let grant = tokio::time::timeout(DEADLINE, self.granted.recv());
            let (lock, waiter, guard) = grant.await.unwrap().unwrap();
            assert_eq!(waiter, next[lock], "lock {lock} was granted out of order");
            next[lock] += 1;
            assert!(guard.token() > last[lock]);
            last[lock] = guard.token();
            guard.release().await.unwrap();
        }
    }
}

/// Locks and releases over and over, so that there is something to break in the middle of.
fn load(runtime: &Runtime, servers: &Servers) -> Arc<AtomicU64> {
    let greatest = Arc::new(AtomicU64::new(0));
    for worker in 0..8 {
        let client = runtime.block_on(Client::connect(servers)).unwrap();
        let greatest = Arc::clone(&greatest);
        runtime.spawn(async move {
            loop {
                let guard = client.lock(format!("load {}", worker % 4)).await.unwrap();
                let token = guard.token().number();
                greatest.fetch_max(token, Ordering::SeqCst);
                // A lock that is released while the coordinator is away is released when it is back.
                let _ = guard.release().await;
            }
        });
    }
    greatest
}

fn crashes_under_load(door: Door) {
    let mut server = Server::start_behind(door, Home::new(), &[]);
    let runtime = Runtime::new().unwrap();
    let crowd = runtime.block_on(Crowd::gather(&server.servers()));
    let tokens: Vec<_> = crowd.guards.iter().map(LockGuard::token).collect();
    let greatest = load(&runtime, &server.servers());
    for crash in 0..10 {
        server = server.crash_and_restart();
        for (guard, token) in crowd.guards.iter().zip(&tokens) {
            // The load is among those who hold and wait, so each lock is looked at by itself.
            let all_are_back = || {
                let lock = server.lock(guard.name())?;
                // The table goes on with all of them; the next crash is for who has come back.
                let is_back = lock["holders"][0]["connected"] == true;
                let are_all = lock["holder_count"] == 1 && lock["waiter_count"] == WAITERS_PER_LOCK;
                (is_back && are_all).then_some(lock)
            };
            let lock = eventually(&format!("all are back after crash {crash}"), all_are_back);
            assert_eq!(lock["holders"][0]["token"], token.number());
            assert!(guard.is_held(), "{:?} after crash {crash}", guard.state());
        }
    }
    let before = greatest.load(Ordering::SeqCst);
    runtime.block_on(crowd.pass_all_on());
    eventually("the load goes on with greater tokens", || {
        (greatest.load(Ordering::SeqCst) > before).then_some(())
    });
}

#[test]
fn ten_crashes_under_load_cost_no_holder_its_lock_and_no_waiter_its_place() {
    crashes_under_load(Door::Open);
}

#[test]
fn ten_crashes_under_load_cost_no_holder_its_lock_and_no_waiter_its_place_by_mutual_tls_and_rules()
{
    crashes_under_load(Door::Guarded);
}

fn orderly_restarts(door: Door) {
    let mut server = Server::start_behind(door, Home::new(), &[]);
    let runtime = Runtime::new().unwrap();
    let crowd = runtime.block_on(Crowd::gather(&server.servers()));
    let tokens: Vec<_> = crowd.guards.iter().map(LockGuard::token).collect();
    for _ in 0..3 {
        server = server.stop_and_restart();
        // What is free is granted long before a grace period would be over.
        let other = run(server.client(&["lock", "-w", "8s", "other", "--", "true"]));
        assert_eq!(other.code(), Some(0), "{}", other.err);
        for (guard, token) in crowd.guards.iter().zip(&tokens) {
            assert_eq!((guard.token(), guard.is_held()), (*token, true));
            let lock = server.lock(guard.name()).unwrap();
            assert_eq!(lock["holders"][0]["token"], token.number());
        }
    }
    runtime.block_on(crowd.pass_all_on());
}

#[test]
fn an_orderly_restart_moves_nothing_and_needs_no_grace() {
    orderly_restarts(Door::Open);
}

#[test]
fn an_orderly_restart_moves_nothing_and_needs_no_grace_by_mutual_tls_and_rules() {
    orderly_restarts(Door::Guarded);
}

#[test]
fn after_a_crash_a_try_says_grace_and_new_requests_wait_for_the_earlier_holders() {
    let server = Server::start_durable_without_journal();
    let (holder, token) = raw_holder(&server, None, "printer");
    let server = server.crash_and_restart();
    let attempt = run(server.client(&["try", "scanner", "--", "true"]));
    assert_eq!(attempt.code(), Some(75), "{}", attempt.err);
    assert!(attempt.err.contains("the coordinator is recovering"), "{}", attempt.err);
    let mut late = Raw::connect(&server);
    let mut attempt = request(1, "printer");
    if let ClientMessage::Request(wire::Request { wait, .. }) = &mut attempt {
        *wait = Wait::Never;
    }
    late.say(&[hello(), attempt, request(2, "printer")]);
    assert!(matches!(late.hear(), ServerMessage::Welcome { standing: Standing::Opened, .. }));
    let ServerMessage::Rejected { request: RequestId(1), code, .. } = late.hear() else { panic!() };
    assert_eq!(RejectionCode::from_number(code.number()), RejectionCode::Grace);
    assert!(matches!(
        late.hear(),
        ServerMessage::Queued { request: RequestId(2), position: 1, .. }
    ));
    // Nobody comes for it: granted when the grace period ends, with a greater token.
    let ServerMessage::Grant { request: RequestId(2), token: next, .. } = late.hear() else {
        panic!()
    };
    assert!(next > FencingToken::new(token));
    drop(holder);
}

#[test]
fn a_forged_or_stale_reclaim_is_refused() {
    let server = Server::start_durable_without_journal();
    let mut holder = Raw::connect(&server);
    holder.say(&[hello(), request(1, "printer"), request(2, "scanner")]);
    let ServerMessage::Welcome { session, secret, .. } = holder.hear() else { panic!() };
    let ServerMessage::Grant { token, seal, .. } = holder.hear() else { panic!() };
    let ServerMessage::Grant { token: other_token, .. } = holder.hear() else { panic!() };
    let reclaim = |request, token, seal, name: &str| {
        ClientMessage::Reclaim(wire::Reclaim::new(
            request,
            token,
            seal,
            [RawClaim { name: name.into(), mode: Mode::Exclusive }],
        ))
    };
    // Nobody crashed: nothing to reclaim.
    holder.say(&[ClientMessage::Release { request: RequestId(1), token }]);
    assert!(matches!(holder.hear(), ServerMessage::Released { request: RequestId(1) }));
    holder.say(&[reclaim(RequestId(3), token, seal, "printer")]);
    let ServerMessage::Rejected { request: RequestId(3), .. } = holder.hear() else { panic!() };

    let server = server.crash_and_restart();
    let mut thief = Raw::connect(&server);
    let attach = Attach::Resume {
        session,
        secret: Secret::new(secret.reveal() ^ 1),
        generation: Generation(2),
    };
    thief.say(&[hello_for(attach, 60_000, None)]);
    let ServerMessage::Goodbye { code, rejection, .. } = thief.hear() else { panic!() };
    assert_eq!(GoodbyeCode::from_number(code.number()), GoodbyeCode::Refused);
    assert_eq!(RejectionCode::from_number(rejection.number()), RejectionCode::UnknownSession);

    let mut owner = Raw::connect(&server);
    let attach = Attach::Resume { session, secret, generation: Generation(2) };
    owner.say(&[
        hello_for(attach, 60_000, None),
        reclaim(RequestId(1), token, seal, "plotter"),
        reclaim(RequestId(2), other_token, seal, "scanner"),
        reclaim(RequestId(3), token.next(), seal, "printer"),
        reclaim(RequestId(4), token, Seal::new(seal.reveal() ^ 1), "printer"),
    ]);
    let ServerMessage::Welcome { standing, .. } = owner.hear() else { panic!() };
    assert!(matches!(standing, Standing::Reopened { .. }));
    for _ in 0..4 {
        let ServerMessage::Rejected { code, .. } = owner.hear() else { panic!() };
        assert_eq!(RejectionCode::from_number(code.number()), RejectionCode::SealMismatch);
    }
}

fn a_standstill(door: Door) {
    let server = Server::start_behind(door, Home::new(), &[]);
    let runtime = Runtime::new().unwrap();
    let (client, waiter) = runtime
        .block_on(async { (connect(server.servers()).await, connect(server.servers()).await) });
    let guard = runtime.block_on(async { client.lock("printer").await }).unwrap();
    let (tell, mut granted) = mpsc::unbounded_channel();
    runtime.spawn(async move { tell.send(waiter.lock("printer").await).unwrap() });
    server.waited_for_by("printer", 1);
    server.process.signal(Signal::STOP);
    // Nothing to wait for but the time itself: it is what the coordinator must not hold against them.
    std::thread::sleep(TTL * 2);
    server.process.signal(Signal::CONT);
    // The holder could not know, and stopped believing; its session lives, and so does the waiter's.
    let next = runtime.block_on(async { tokio::time::timeout(DEADLINE, granted.recv()).await });
    let next = next.unwrap().unwrap().unwrap();
    assert_eq!(guard.state(), HoldState::Lost(LostReason::Expired));
    assert!(next.is_held());
    let status = status(&server);
    assert_eq!((&status["expired"], &status["sessions"]), (&0.into(), &2.into()));
}

#[test]
fn a_coordinator_that_stood_still_blames_nobody() {
    a_standstill(Door::Open);
}

#[test]
fn a_coordinator_that_stood_still_blames_nobody_by_mutual_tls_and_rules() {
    a_standstill(Door::Guarded);
}

fn short_breaks(door: Door) {
    let server = Server::start_behind(door, Home::new(), &[]);
    let proxy = Proxy::to(&server.address);
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let client = connect_for(LONG_TTL, server.servers_at(&proxy.address)).await;
        let guard = client.lock("printer").await.unwrap();
        let rival = connect_for(LONG_TTL, server.servers()).await;
        let (tell, mut granted) = mpsc::unbounded_channel();
        tokio::spawn(async move { tell.send(rival.lock("printer").await).unwrap() });
        for way in [Way::Open, Way::Dark, Way::DarkToServer, Way::DarkToClient] {
            proxy.turn(way);
            if way != Way::Open {
                // The time itself again: how long nothing gets through.
                tokio::time::sleep(TTL / 4).await;
            }
            proxy.cut();
            proxy.turn(Way::Open);
            // The session is resumed, or this would be answered by nobody.
            client.lock(format!("{way:?}")).await.unwrap().release().await.unwrap();
            assert!(guard.is_held(), "{:?} after {way:?}", guard.state());
        }
        assert!(granted.try_recv().is_err(), "the rival was granted meanwhile");
        guard.release().await.unwrap();
        granted.recv().await.unwrap().unwrap();
    });
}

#[test]
fn a_connection_that_breaks_for_less_than_the_lease_goes_unnoticed() {
    short_breaks(Door::Open);
}

#[test]
fn a_connection_that_breaks_for_less_than_the_lease_goes_unnoticed_by_mutual_tls_and_rules() {
    short_breaks(Door::Guarded);
}

fn long_breaks(door: Door) {
    let server = Server::start_behind(door, Home::new(), &[]);
    let runtime = Runtime::new().unwrap();
    for way in [Way::Dark, Way::DarkToServer] {
        let proxy = Proxy::to(&server.address);
        runtime.block_on(async {
            let client = connect(server.servers_at(&proxy.address)).await;
            let name = format!("{way:?}");
            let guard = client.lock(&name).await.unwrap();
            let rival = connect(server.servers()).await;
            let lost = tokio::spawn(guard.lost());
            proxy.turn(way);
            let next = rival.lock(name).await.unwrap();
            // By its clock, whenever its task is run that tells the loss.
            assert!(!guard.is_held(), "two believe that they hold it, {way:?}");
            assert_eq!(lost.await.unwrap(), LostReason::Expired);
            assert!(next.token() > guard.token());
            assert!(matches!(guard.release().await, Err(Error::Lost { .. })));
            // The way is back: the client goes on, with a new session if need be.
            proxy.turn(Way::Open);
            proxy.cut();
            let again = client.lock("after").timeout(DEADLINE).await.unwrap();
            assert!(again.token() > next.token());
        });
    }
}

#[test]
fn whoever_is_cut_off_for_longer_knows_before_anyone_else_is_granted() {
    long_breaks(Door::Open);
}

#[test]
fn whoever_is_cut_off_for_longer_knows_before_anyone_else_is_granted_by_mutual_tls_and_rules() {
    long_breaks(Door::Guarded);
}

#[test]
fn a_late_release_is_answered_and_frees_nobody_elses_lock() {
    let server = Server::start_durable();
    let mut first = Raw::connect(&server);
    first.say(&[hello(), request(1, "printer")]);
    first.hear();
    let ServerMessage::Grant { token, .. } = first.hear() else { panic!() };
    let release = ClientMessage::Release { request: RequestId(1), token };
    first.say(std::slice::from_ref(&release));
    assert!(matches!(first.hear(), ServerMessage::Released { request: RequestId(1) }));
    let (_second, token) = raw_holder(&server, None, "printer");
    first.say(&[release]);
    assert!(matches!(first.hear(), ServerMessage::Released { request: RequestId(1) }));
    assert_eq!(server.lock("printer").unwrap()["holders"][0]["token"], token);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

#[test]
fn tokens_grow_though_the_state_is_lost_or_an_old_copy() {
    let server = Server::start_durable();
    let runtime = Runtime::new().unwrap();
    let client = runtime.block_on(connect(&server.address));
    let token = || {
        let guard = runtime.block_on(async { client.lock("printer").await }).unwrap();
        let token = guard.token();
        runtime.block_on(guard.release()).unwrap();
        token
    };
    let first = token();
    let state = server.home.path(".local/state/coordinator");
    let old = server.home.path("old copy");
    let stopped = server.end_by(Signal::TERM);
    copy(&state, &old);
    let server = stopped.restart();
    let second = token();
    assert!(second > first);
    // An old copy.
    let stopped = server.end_by(Signal::KILL);
    fs::remove_dir_all(&state).unwrap();
    copy(&old, &state);
    let server = stopped.restart();
    let third = token();
    assert!(third > second);
    // Nothing at all.
    let stopped = server.end_by(Signal::KILL);
    fs::remove_dir_all(&state).unwrap();
    let _server = stopped.restart();
    assert!(token() > third);
}

#[test]
fn a_holder_that_was_paused_hears_that_it_lost_and_its_late_write_is_refused() {
    let server = Server::start_durable();
    let (pid, late) = (server.home.path("pid"), server.home.path("late"));
    let script = format!(
        "echo $$ > {}; kill -STOP $$; echo $COORDINATOR_FENCING_TOKEN > {}",
        pid.display(),
        late.display()
    );
    // Allowed to go on although the lock is lost: only the token can stop what it writes then.
    let words = ["lock", "--ttl", "2s", "--on-lost", "warn", "store", "-c", &script];
    let holder = start(server.client(&words));
    let command = line_in(&pid);
    eventually("it pauses before it writes", || is_stopped(&command).then_some(()));
    holder.signal(Signal::STOP);
    let fence = FenceGuard::new();
    Runtime::new().unwrap().block_on(async {
        let next = connect(&server.address).await.lock("store").await.unwrap();
        fence.check(next.token()).unwrap();
    });
    // It continues its command, too.
    holder.signal(Signal::CONT);
    let late = FencingToken::new(line_in(&late).parse().unwrap());
    assert_eq!(fence.check(late).unwrap_err().token, late);
    let done = holder.end();
    assert!(done.err.contains("warning: lost \"store\""), "{}", done.err);
}

#[test]
fn a_cancel_that_meets_a_grant_has_one_answer_and_leaves_the_lock_with_somebody() {
    const RACES: u64 = 100_000;
    let server = Server::start();
    let (mut holder, mut rival) = (Raw::connect(&server), Raw::connect(&server));
    for client in [&mut holder, &mut rival] {
        client.say(&[hello()]);
        assert!(matches!(client.hear(), ServerMessage::Welcome { .. }));
    }
    let (mut granted, mut last_token) = (0, 0);
    for race in 1..=RACES {
        holder.say(&[request(race, "printer")]);
        // Nobody else has it: the holder must get it at once, or it belongs to nobody.
        let ServerMessage::Grant { token, .. } = holder.hear() else { panic!("race {race}") };
        assert!(token > FencingToken::new(last_token));
        last_token = token.number();
        rival.say(&[request(race, "printer")]);
        assert!(matches!(rival.hear(), ServerMessage::Queued { .. }));
        let release = ClientMessage::Release { request: RequestId::new(race), token };
        let cancel = ClientMessage::Cancel { request: RequestId::new(race) };
        if race % 2 == 0 {
            holder.say(&[release]);
            rival.say(&[cancel]);
        } else {
            rival.say(&[cancel]);
            holder.say(&[release]);
        }
        assert!(matches!(holder.hear(), ServerMessage::Released { .. }));
        let mut answer = rival.hear();
        if let ServerMessage::Grant { token, .. } = answer {
            granted += 1;
            assert!(token > FencingToken::new(last_token));
            last_token = token.number();
            answer = rival.hear();
        }
        assert_eq!(answer, ServerMessage::Cancelled { request: RequestId::new(race) });
    }
    assert!(granted > 0 && granted < RACES, "it was no race: {granted} of {RACES} were granted");
    assert!(server.lock("printer").is_none());
}
