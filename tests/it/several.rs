//! Several locks at once, owners, conversions, watches and leaders: real clients, real sockets.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coordinator::types::{FencingToken, OwnerId, RejectionCode};
use coordinator::wire::{Happening, LockStatus};
use coordinator::{
    Client, Error, Event, FenceGuard, Leadership, LockAllRequest, LockGuard, LockState, Observer,
    Owner, blocking,
};
use tokio::sync::Barrier;

use crate::support::{DEADLINE, Home, Server};

/// Runs `work` to its end, on threads of its own.
fn live<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime
        .block_on(async { tokio::time::timeout(DEADLINE, work).await })
        .expect("it goes on and on")
}

/// What a watch saw of a lock that somebody uses.
fn in_use(observed: Option<Result<LockState, Error>>) -> Option<LockStatus> {
    observed.expect("a watch ended").unwrap().in_use()
}

/// The token with which a lock is held; 0: by nobody.
fn holder(lock: Option<LockStatus>) -> u64 {
    lock.and_then(|lock| lock.holders.first().map(|holder| holder.token))
        .unwrap_or(FencingToken(0))
        .number()
}

/// How many wait for the lock.
async fn waiters(client: &Client, name: &str) -> u64 {
    client.status(name).await.unwrap().map_or(0, |lock| lock.waiter_count)
}

/// Waits until so many wait for the lock.
async fn waited_for_by(client: &Client, name: &str, count: u64) {
    while waiters(client, name).await != count {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// How often each philosopher eats.
const MEALS: u64 = 4;

/// One fork after the other; how often that was a deadlock.
async fn dine_one_by_one(owner: Owner, forks: [String; 2], all_have_one: Arc<Barrier>) -> u64 {
    let (mut meals, mut deadlocks) = (0, 0);
    while meals < MEALS {
        let left = owner.lock(&forks[0]).await.unwrap();
        if meals == 0 && deadlocks == 0 {
            all_have_one.wait().await;
        }
        match owner.lock(&forks[1]).await {
            Ok(_right) => meals += 1,
            Err(error @ Error::Deadlock { .. }) => {
                assert!(error.is_retryable());
                let Error::Deadlock { cycle } = error else { unreachable!() };
                assert_eq!(
                    (cycle.links[0].owner, cycle.links[0].lock.as_str()),
                    (owner.id(), &forks[1][..])
                );
                let last = cycle.links.last().unwrap();
                assert!(
                    cycle.is_cut
                        || (last.lock.as_str(), last.held_with)
                            == (&forks[0][..], Some(left.token()))
                );
                deadlocks += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    deadlocks
}

/// Both forks at once; a deadlock would be an error.
async fn dine_at_once(owner: Owner, forks: [String; 2]) -> u64 {
    for _ in 0..MEALS {
        owner.lock_all(&forks).await.unwrap();
    }
    0
}

/// Lets so many philosophers eat, each with a session of its own; how many deadlocks there were.
fn dinner(philosophers: u64, one_by_one: bool) -> u64 {
    let server = Server::start();
    live(async {
        let all_have_one = Arc::new(Barrier::new(usize::try_from(philosophers).unwrap()));
        let mut dinners = Vec::new();
        for number in 0..philosophers {
            let client = Client::connect(&server.address).await.unwrap();
            let forks = [number, (number + 1) % philosophers].map(|fork| format!("fork {fork}"));
            let (owner, all_have_one) = (client.owner(), Arc::clone(&all_have_one));
            dinners.push(tokio::spawn(async move {
                if one_by_one {
                    dine_one_by_one(owner, forks, all_have_one).await
                } else {
                    dine_at_once(owner, forks).await
                }
            }));
        }
        let mut deadlocks = 0;
        for dinner in dinners {
            deadlocks += dinner.await.unwrap();
        }
        deadlocks
    })
}

#[test]
fn five_philosophers_who_take_fork_after_fork_are_told_of_deadlocks_and_eat() {
    assert!(dinner(5, true) > 0);
}

#[test]
fn fifty_philosophers_who_take_fork_after_fork_are_told_of_deadlocks_and_eat() {
    assert!(dinner(50, true) > 0);
}

#[test]
fn philosophers_who_take_both_forks_at_once_are_never_in_a_deadlock() {
    assert_eq!(dinner(5, false), 0);
    assert_eq!(dinner(50, false), 0);
}

#[test]
fn owners_of_one_client_can_be_in_a_deadlock_and_one_owner_with_itself() {
    let server = Server::start();
    live(async {
        let client = Client::connect(&server.address).await.unwrap();
        let (ann, bob) = (client.owner(), client.owner());
        let (a, b) = (ann.lock("a").await.unwrap(), bob.lock("b").await.unwrap());
        let waiting = tokio::spawn(ann.lock("b").into_future());
        waited_for_by(&client, "b", 1).await;
        let error = bob.lock("a").await.unwrap_err();
        let Error::Deadlock { cycle } = &error else { panic!("{error}") };
        let owners: Vec<OwnerId> = cycle.links.iter().map(|link| link.owner).collect();
        assert_eq!(owners, [bob.id(), ann.id()]);
        let again = ann.clone().try_lock("a").await;
        let Err(Error::Rejected { code: RejectionCode::AlreadyHeld, message }) = again else {
            panic!("{again:?}")
        };
        assert!(message.contains("\"a\""), "{message}");
        // Whoever is none waits, as with a mutex.
        assert!(client.try_lock("a").await.unwrap().is_none());
        b.release().await.unwrap();
        waiting.await.unwrap().unwrap().release().await.unwrap();
        a.release().await.unwrap();
    });
}

/// What is in every account at first.
const OPENING: u64 = 1_000;

/// An account that checks tokens, and is written without any other care.
#[derive(Default)]
struct Account(AtomicU64, FenceGuard);

impl Account {
    fn add(&self, amount: i64, guard: &LockGuard) -> u64 {
        self.1.check(guard.token()).unwrap();
        let balance = self.0.load(Ordering::Relaxed).checked_add_signed(amount).unwrap();
        std::thread::yield_now();
        self.0.store(balance, Ordering::Relaxed);
        balance
    }
}

#[test]
fn transfers_under_the_locks_of_both_accounts_lose_nothing() {
    const ACCOUNTS: usize = 7;
    const CLERKS: usize = 8;
    let server = Server::start();
    let bank: Arc<[Account; ACCOUNTS]> = Arc::default();
    bank.iter().for_each(|account| account.0.store(OPENING, Ordering::Relaxed));
    let name = |account: usize| format!("account {account}");
    live(async {
        let mut clerks = Vec::new();
        for clerk in 0..CLERKS {
            let (bank, client) =
                (Arc::clone(&bank), Client::connect(&server.address).await.unwrap());
            clerks.push(tokio::spawn(async move {
                for turn in 0..40 {
                    let from = (clerk * 3 + turn) % ACCOUNTS;
                    let to = (from + 1 + (clerk + turn * turn) % (ACCOUNTS - 1)) % ACCOUNTS;
                    let guard = client.lock_all([name(from), name(to)]).await.unwrap();
                    let balance = bank[from].0.load(Ordering::Relaxed);
                    let amount = i64::try_from(balance / 10).unwrap();
                    bank[from].add(-amount, &guard);
                    bank[to].add(amount, &guard);
                    guard.release().await.unwrap();
                }
            }));
        }
        // Meanwhile the sum is always the same to one who holds all of them, together with others.
        let client = Client::connect(&server.address).await.unwrap();
        let sum = || bank.iter().map(|account| account.0.load(Ordering::Relaxed)).sum::<u64>();
        for clerk in clerks {
            let none = client.lock_all([] as [&str; 0]);
            let all = (1..ACCOUNTS).map(name).fold(none, LockAllRequest::shared);
            let guard = all.shared(name(0)).await.unwrap();
            assert_eq!(sum(), OPENING * ACCOUNTS as u64);
            drop(guard);
            clerk.await.unwrap();
        }
        assert_eq!(sum(), OPENING * ACCOUNTS as u64);
    });
}

#[test]
fn an_upgrade_waits_for_the_other_readers_ahead_of_all_who_wait() {
    let server = Server::start();
    live(async {
        let client = Client::connect(&server.address).await.unwrap();
        let other = Client::connect(&server.address).await.unwrap();
        let reader = client.lock("doc").shared().await.unwrap();
        let other_reader = other.lock("doc").shared().await.unwrap();
        let writer = tokio::spawn(other.lock("doc").into_future());
        waited_for_by(&client, "doc", 1).await;
        let early = reader.upgrade().nonblocking().await.unwrap_err();
        assert!(matches!(early.error, Error::Busy { .. }), "{}", early.error);
        let late = early.guard.upgrade().timeout(Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(late.error, Error::TimedOut { .. }), "{}", late.error);
        assert!(late.guard.is_held());
        let read_with = late.guard.token();
        let upgrade = tokio::spawn(late.guard.upgrade().into_future());
        waited_for_by(&client, "doc", 2).await;
        other_reader.release().await.unwrap();
        let alone = upgrade.await.unwrap().unwrap();
        assert!(alone.token() > read_with);
        assert_eq!(holder(client.status("doc").await.unwrap()), alone.token().number());
        // Now others may read again, but for the one before them who wants to write.
        let wrote_with = alone.token();
        let shared = alone.downgrade().await.unwrap();
        assert_eq!(shared.token(), wrote_with);
        let reading = other.lock("doc").shared().nonblocking().await;
        assert!(matches!(reading, Err(Error::Busy { .. })));
        shared.release().await.unwrap();
        let written = writer.await.unwrap().unwrap();
        assert!(written.token() > wrote_with);
        written.downgrade().await.unwrap();
    });
    assert!(server.lock("doc").is_none());
}

#[test]
fn the_second_of_two_who_would_be_alone_is_told_so_and_keeps_what_it_has() {
    let server = Server::start();
    live(async {
        let (ann, bob) = (
            Client::connect(&server.address).await.unwrap(),
            Client::connect(&server.address).await.unwrap(),
        );
        let first = ann.lock("doc").shared().await.unwrap();
        let second = bob.lock("doc").shared().await.unwrap();
        let upgrade = tokio::spawn(first.upgrade().into_future());
        waited_for_by(&ann, "doc", 1).await;
        let told = second.upgrade().await.unwrap_err();
        assert!(
            matches!(&told.error, Error::Deadlock { cycle } if cycle.links.len() == 2),
            "{told}"
        );
        assert!(told.guard.is_held() && !upgrade.is_finished());
        told.guard.release().await.unwrap();
        assert!(upgrade.await.unwrap().unwrap().is_held());
        // One that is dropped while it waits leaves nothing behind.
        let readers =
            [ann.lock("page").shared().await.unwrap(), bob.lock("page").shared().await.unwrap()];
        let [reader, other] = readers;
        let upgrade = tokio::spawn(reader.upgrade().into_future());
        waited_for_by(&ann, "page", 1).await;
        upgrade.abort();
        waited_for_by(&ann, "page", 0).await;
        assert_eq!(ann.status("page").await.unwrap().unwrap().holder_count, 1);
        drop(other);
    });
}

#[test]
fn several_locks_are_converted_together() {
    let server = Server::start();
    live(async {
        let client = Client::connect(&server.address).await.unwrap();
        let owner = client.owner();
        let guard = owner.lock_all(["a"]).shared("b").permits("c", 1, 2).await.unwrap();
        let guard = guard.downgrade().await.unwrap();
        let others = client.lock_all([] as [&str; 0]).shared("a").shared("b").permits("c", 1, 2);
        let others = others.nonblocking().await.unwrap();
        let upgrade = tokio::spawn(guard.upgrade().into_future());
        waited_for_by(&client, "b", 1).await;
        drop(others);
        let guard = upgrade.await.unwrap().unwrap();
        assert!(client.try_lock("a").await.unwrap().is_none());
        assert!(client.semaphore("c", 2).try_acquire().await.unwrap().is_some());
        drop(guard);
    });
}

#[test]
fn a_semaphore_lets_in_as_many_as_it_has_permits() {
    let server = Server::start();
    live(async {
        let client = Client::connect(&server.address).await.unwrap();
        let semaphore = client.semaphore("gpu", 3);
        let two = semaphore.acquire_many(2).await.unwrap();
        let one = semaphore.acquire().await.unwrap();
        assert!(semaphore.try_acquire().await.unwrap().is_none());
        drop(two);
        assert!(semaphore.try_acquire().await.unwrap().is_some());
        let differs = client.semaphore("gpu", 4).try_acquire().await;
        assert!(differs.unwrap().is_none());
        let larger = tokio::spawn(client.semaphore("gpu", 4).acquire_many(4).into_future());
        waited_for_by(&client, "gpu", 1).await;
        drop(one);
        assert!(larger.await.unwrap().is_ok());
    });
}

#[test]
fn a_watch_sees_every_change_of_holder() {
    let server = Server::start();
    live(async {
        let client = Client::connect(&server.address).await.unwrap();
        let mut watch = client.watch("printer").await.unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap(), LockState::Free);
        let mut tokens = Vec::new();
        for turn in 0..20 {
            let guard = client.lock("printer").note(format!("page {turn}")).await.unwrap();
            let lock = in_use(watch.next().await).unwrap();
            let holder = &lock.holders[0];
            assert_eq!(
                (holder.token, &holder.note[..]),
                (guard.token(), &format!("page {turn}")[..])
            );
            tokens.push(holder.token);
            guard.release().await.unwrap();
            assert_eq!(in_use(watch.next().await).map_or(0, |lock| lock.holder_count), 0);
        }
        assert!(tokens.is_sorted());
        // The next in line, without anybody between.
        let first = client.lock("printer").await.unwrap();
        assert_eq!(holder(in_use(watch.next().await)), first.token().number());
        let second = tokio::spawn(client.lock("printer").into_future());
        waited_for_by(&client, "printer", 1).await;
        drop(first);
        let second = second.await.unwrap().unwrap();
        assert_eq!(holder(in_use(watch.next().await)), second.token().number());
        // And how it is held.
        let second = second.downgrade().await.unwrap();
        let lock = in_use(watch.next().await).unwrap();
        assert_eq!(lock.holders[0].mode, coordinator::wire::Mode::Shared);
        drop(second);
    });
}

#[test]
fn a_watch_and_an_upgrade_outlive_the_crash_of_the_coordinator() {
    let server = Server::start_with(Home::new(), &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut watch, client, reader, upgrade) = runtime.block_on(async {
        let client = Client::connect(&server.address).await.unwrap();
        let mut watch = client.watch("doc").await.unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap(), LockState::Free);
        let reader = client.lock("doc").shared().await.unwrap();
        let other = client.lock("doc").shared().await.unwrap();
        while in_use(watch.next().await).is_none_or(|lock| lock.holder_count < 2) {}
        let upgrade = tokio::spawn(other.upgrade().into_future());
        waited_for_by(&client, "doc", 1).await;
        (watch, client, reader, upgrade)
    });
    let _server = server.crash_and_restart();
    runtime.block_on(async {
        let work = async {
            // Both are reclaimed, and then one leaves.
            while client.status("doc").await.ok().flatten().is_none_or(|lock| lock.holder_count < 2)
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(reader.is_held() && !upgrade.is_finished());
            reader.release().await.unwrap();
            let alone = upgrade.await.unwrap().unwrap();
            loop {
                let lock = in_use(watch.next().await);
                if holder(lock.clone()) == alone.token().number() {
                    assert_eq!(lock.unwrap().holder_count, 1);
                    break;
                }
            }
        };
        tokio::time::timeout(DEADLINE, work).await.expect("it goes on and on");
    });
}

#[test]
fn leaders_hand_over_and_everybody_sees_it() {
    let server = Server::start();
    live(async {
        let (ann, bob) = (
            Client::connect(&server.address).await.unwrap(),
            Client::connect(&server.address).await.unwrap(),
        );
        let mut from_outside =
            Observer::connect(&server.address).await.unwrap().observe("leader").await.unwrap();
        assert_eq!(from_outside.next().await.unwrap().unwrap(), Leadership::Vacant);
        let ann_leads = ann.elect("leader", "http://ann").await.unwrap();
        let mut leaders = bob.observe("leader").await.unwrap();
        for leaders in [&mut leaders, &mut from_outside] {
            let leader = leaders.next().await.unwrap().unwrap().leader().unwrap();
            assert_eq!((&leader.value[..], leader.token), ("http://ann", ann_leads.token()));
            assert_eq!(leader.session, ann.session());
        }
        let bob_stands = tokio::spawn(bob.elect("leader", "http://bob").into_future());
        waited_for_by(&bob, "leader", 1).await;
        ann.close().await.unwrap();
        assert!(!ann_leads.is_held());
        let bob_leads = bob_stands.await.unwrap().unwrap();
        for leaders in [&mut leaders, &mut from_outside] {
            let leader = leaders.next().await.unwrap().unwrap().leader().unwrap();
            assert_eq!((&leader.value[..], leader.token), ("http://bob", bob_leads.token()));
        }
        drop(bob_leads);
        assert_eq!(leaders.next().await.unwrap().unwrap(), Leadership::Vacant);
    });
}

#[test]
fn a_listener_hears_what_happens_to_a_lock_and_nothing_else() {
    let server = Server::start();
    live(async {
        let client = Client::connect(&server.address).await.unwrap();
        let observer = Observer::connect(&server.address).await.unwrap();
        let mut events = observer.events(Some("door")).await.unwrap();
        client.lock("window").await.unwrap().release().await.unwrap();
        let guard = client.lock_all(["door", "window"]).await.unwrap();
        let token = guard.token().number();
        guard.release().await.unwrap();
        let expected = [
            Happening::Requested,
            Happening::Granted { token: FencingToken::new(token) },
            Happening::Released { token: FencingToken::new(token) },
        ];
        for what in expected {
            let event = events.next().await.unwrap().unwrap();
            let Event::Happened(happened) = event else { panic!("missed") };
            assert_eq!((happened.what, happened.session), (what, client.session()));
            assert_eq!(happened.claims.len(), 2);
        }
    });
}

#[test]
fn those_who_wait_have_all_of_it_too() {
    let server = Server::start();
    let client = blocking::Client::connect(&server.address).unwrap();
    let mut leaders = client.observe("leader").unwrap();
    assert_eq!(leaders.next().unwrap().unwrap(), Leadership::Vacant);
    let term = client.elect("leader", "me").acquire().unwrap();
    assert_eq!(leaders.next().unwrap().unwrap().leader().unwrap().token, term.token());
    let owner = client.owner();
    let both = owner.lock_all(["a", "b"]).acquire().unwrap();
    assert!(matches!(
        owner.try_lock("a"),
        Err(Error::Rejected { code: RejectionCode::AlreadyHeld, .. })
    ));
    let both = both.downgrade().unwrap().upgrade().nonblocking().acquire().unwrap();
    assert_eq!(holder(client.status("b").unwrap()), both.token().number());
    let permit = client.semaphore("gpu", 1).acquire().unwrap();
    assert!(client.semaphore("gpu", 1).try_acquire().unwrap().is_none());
    let mut watch = client.watch("gpu").unwrap();
    assert_eq!(holder(in_use(watch.next())), permit.token().number());
}
