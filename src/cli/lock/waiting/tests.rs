//! The messages to a waiting user, and their moments.

use coordinator::Servers;
use coordinator::types::{FencingToken, OwnerId, RequestId, SessionId, Ttl};
use coordinator::wire::Holder;

use super::*;

#[test]
fn the_line_names_the_holder_and_the_place() {
    let mut lock = lock_held_with(7);
    lock.holders[0].identity = "ci-7 (ann@build7, pid 8123)".parse().unwrap();
    lock.holders[0].held_ms = 250_000;
    assert_eq!(
        text(&["deploy"], Mode::Exclusive, Some(&lock), None, 3, Duration::from_secs(2)),
        "waiting for \"deploy\": held by ci-7 for 4m12s, you are 3rd in line"
    );
    assert_eq!(
        text(&["build", "deploy"], Mode::Exclusive, Some(&lock), None, 1, Duration::from_secs(2)),
        "waiting for \"build\", \"deploy\": \"deploy\" held by ci-7 for 4m12s, you are 1st in line"
    );
}

#[test]
fn the_line_says_that_the_lock_is_in_use_with_another_size() {
    let mut lock = lock_held_with(7);
    let of = |of| Mode::Permits { take: 1, of };
    lock.holders[0].mode = of(3);
    assert_eq!(
        text(&["deploy"], of(5), Some(&lock), None, 1, SECOND),
        "waiting for \"deploy\": held as a semaphore of 3, not a semaphore of 5, by ci-7 for 1s, \
         you are 1st in line"
    );
    assert!(!text(&["deploy"], of(3), Some(&lock), None, 1, SECOND).contains("semaphore"));
}

const SECOND: Duration = Duration::from_secs(1);

fn lock_held_with(token: u64) -> LockStatus {
    let holder = Holder {
        owner: OwnerId(0),
        request: RequestId(1),
        session: SessionId(1),
        identity: format!("ci-{token}").parse().unwrap(),
        peer: String::new(),
        mode: Mode::Exclusive,
        token: FencingToken::new(token),
        held_ms: 0,
        note: "".parse().unwrap(),
        connected: true,
    };
    LockStatus {
        name: "deploy".parse().unwrap(),
        holders: vec![holder],
        holder_count: 1,
        waiters: vec![],
        waiter_count: 1,
    }
}

/// A log of `seconds`, in which the place is `place` at each of them and the holder's token is the
/// place: what is told, and when.
fn log(seconds: u64, place: impl Fn(u64) -> u64) -> Vec<(u64, String)> {
    let (place_now, client) = (Place::default(), OnceCell::new());
    let plan = Plan { ttl: Ttl::default(), kill_after: SECOND };
    let waiter = Waiter {
        servers: &Servers::from("locks:1"),
        locks: &["deploy"],
        mode: Mode::Exclusive,
        place: &place_now,
        client: &client,
        plan,
    };
    let mut telling = Telling { is_watched: false, ..Telling::new(&waiter) };
    let (start, mut all, mut looks) = (Instant::now(), Vec::new(), 0);
    for second in 1..=seconds {
        let now = start + SECOND * u32::try_from(second).unwrap();
        place_now.set(place(second));
        if telling.wants_to_look(now) {
            looks += 1;
            telling.asked_at = Some(now);
            telling.seen =
                Some(Seen { lock: Some(lock_held_with(place(second))), kept: None, at: now });
        }
        all.extend(telling.due(now).into_iter().map(|line| (second, line)));
    }
    assert_eq!(looks, all.len(), "asked for nothing");
    all
}

#[test]
fn lines_that_stay_come_when_something_has_changed_and_now_and_then() {
    let at = |seconds, place: fn(u64) -> u64| -> Vec<u64> {
        log(seconds, place).into_iter().map(|(second, _)| second).collect()
    };
    assert_eq!(at(700, |_| 3), [1, 301, 601]);
    assert_eq!(at(100, |second| if second < 50 { 3 } else { 2 }), [1, 50]);
    assert_eq!(at(35, |second| 100 - second), [1, 11, 21, 31], "not a line a second");
    let lines = log(20, |second| if second < 15 { 2 } else { 1 });
    assert_eq!(
        lines.last().unwrap(),
        &(15, "waiting for \"deploy\": held by ci-1 for <1ms, you are 1st in line".to_owned())
    );
}

#[test]
fn silence_is_told_once_and_so_is_its_end() {
    let (place, client) = (Place::default(), OnceCell::new());
    let plan = Plan { ttl: Ttl::default(), kill_after: SECOND };
    let waiter = Waiter {
        servers: &Servers::from("locks:1"),
        locks: &["deploy"],
        mode: Mode::Exclusive,
        place: &place,
        client: &client,
        plan,
    };
    let mut telling = Telling { is_watched: false, ..Telling::new(&waiter) };
    let now = Instant::now();
    place.set(1);
    telling.silent_since = Some(now);
    assert_eq!(telling.due(now + SECOND).len(), 1);
    assert_eq!(telling.due(now + 2 * SECOND), [""; 0]);
    telling.silent_since = None;
    assert_eq!(telling.due(now + 3 * SECOND), ["locks:1 answers again"]);
    assert!(telling.wants_to_look(now + 3 * SECOND), "the holder may be another");
}

#[test]
fn a_silent_coordinator_is_named_and_how_long_the_place_is_kept() {
    let seconds = Duration::from_secs;
    assert_eq!(
        silence_text(&["deploy"], "locks:1", seconds(6), seconds(4)),
        "waiting for \"deploy\": no answer from locks:1 for 6s, trying again; place kept for 4s more"
    );
    assert_eq!(
        silence_text(&["deploy"], "locks:1", seconds(75), Duration::ZERO),
        "waiting for \"deploy\": no answer from locks:1 for 1m15s, trying again; the place in line may be lost"
    );
}

#[test]
fn what_is_not_known_is_left_out() {
    let now = Duration::ZERO;
    assert_eq!(text(&["a"], Mode::Exclusive, None, None, 0, now), "waiting for \"a\"");
    assert_eq!(
        text(&["a"], Mode::Exclusive, None, None, 1, now),
        "waiting for \"a\": you are 1st in line"
    );
    let kept = Some("kept free for 4s more: its holder was lost");
    assert_eq!(
        text(&["a"], Mode::Exclusive, None, kept, 1, now),
        "waiting for \"a\": kept free for 4s more: its holder was lost, you are 1st in line"
    );
}
