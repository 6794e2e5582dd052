//! The rate alone, and the desk that keeps it.

use super::super::Contention;
use super::super::testing::Bench;
use super::*;
use crate::server::testing::request;
use crate::types::RejectionCode;
use crate::wire::{ClientMessage, Query, ServerMessage};

fn look(query_id: u64) -> ClientMessage {
    ClientMessage::Inspect { query_id, query: Query::Server }
}

fn at(millis: u64) -> Timestamp {
    // Far enough from the origin that the burst lies behind.
    Timestamp::from_micros(10_000_000 + millis * 1_000)
}

#[test]
fn after_a_pause_a_burst_may_look_and_not_one_more_until_the_next_is_due() {
    let mut looks = Looks::new(200);
    for _ in 0..LOOKS_BURST {
        assert!(looks.admits(at(0)));
    }
    assert!(!looks.admits(at(0)));
    assert!(!looks.admits(at(4)));
    assert!(looks.admits(at(5)) && !looks.admits(at(5)));
    assert!(looks.admits(at(10)));
}

#[test]
fn over_any_time_there_are_no_more_looks_than_the_rate_and_a_burst() {
    let mut looks = Looks::new(200);
    let admitted = (0..2_000).filter(|millis| looks.admits(at(*millis))).count();
    assert!((400..=400 + LOOKS_BURST as usize).contains(&admitted), "{admitted}");
}

#[test]
fn those_who_rest_look_in_the_order_in_which_they_came_and_before_all_others() {
    let mut looks = Looks::new(1);
    while looks.admits(at(0)) {}
    for number in [3, 1, 2, 3] {
        looks.rest(ConnectionId::new(number), Item::End);
    }
    assert_eq!(looks.delayed, 3);
    assert!(looks.holds(ConnectionId::new(1)) && !looks.holds(ConnectionId::new(4)));
    let deadline = looks.next_deadline().unwrap();
    assert!(looks.next(at(0)).is_none(), "nobody before it is due");
    assert_eq!(deadline, at(1_000));
    assert!(!looks.admits(deadline), "others rest already");
    let (first, said) = looks.next(deadline).unwrap();
    assert_eq!((first.number(), said.len()), (3, 2));
    assert!(looks.next(deadline).is_none());
    for (number, millis) in [(1, 2_000), (2, 3_000)] {
        assert_eq!(looks.next(at(millis)).unwrap().0.number(), number);
    }
    assert_eq!(looks.next_deadline(), None);
}

#[test]
fn an_observer_that_looks_without_pause_is_answered_at_the_rate_and_in_order() {
    let bench = Bench::new();
    let observer = bench.observe();
    let burst = u64::from(LOOKS_BURST);
    observer.submit((1..=burst + 2).map(look).collect());
    // Also what it says behind that has to wait.
    observer.submit(vec![ClientMessage::KeepAlive { sequence: 9 }]);
    bench.settle();
    assert_eq!(observer.take().len() as u64, burst);
    bench.pass(Duration::from_millis(4));
    assert_eq!(observer.take(), vec![], "none is due");
    bench.pass(Duration::from_millis(1));
    let answers = observer.take();
    assert!(
        matches!(answers[..], [ServerMessage::ServerStatus { query_id, .. }] if query_id == burst + 1),
        "{answers:?}"
    );
    bench.pass(Duration::from_millis(5));
    let answers = observer.take();
    assert!(
        matches!(answers[..], [
            ServerMessage::ServerStatus { query_id, .. },
            ServerMessage::KeptAlive { sequence: 9 },
        ] if query_id == burst + 2),
        "{answers:?}"
    );
    let figures = bench.figures();
    assert_eq!((figures.looks, figures.looks_delayed), (burst + 2, 2));
}

#[test]
fn a_session_that_looks_more_often_than_it_may_hears_so_and_its_keep_alives_pass() {
    let bench = Bench::new();
    let session = bench.open();
    session.submit((1..=u64::from(LOOKS_BURST) + 1).map(look).collect());
    session.submit(vec![ClientMessage::KeepAlive { sequence: 9 }]);
    bench.settle();
    let answers = session.take();
    let [.., rejected, ServerMessage::KeptAlive { sequence: 9 }] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert!(matches!(rejected, ServerMessage::Rejected { code, .. }
        if *code == RejectionCode::SlowDown));
    let told = bench.figures().told;
    assert!(told.rejections().any(|it| it == ("SlowDown", 1)));
}

#[test]
fn an_observer_that_leaves_while_it_rests_is_forgotten() {
    let bench = Bench::new();
    let observer = bench.observe();
    observer.submit((1..=u64::from(LOOKS_BURST) + 5).map(look).collect());
    bench.settle();
    observer.disconnect();
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.figures().looks, u64::from(LOOKS_BURST) + 5);
    let other = bench.observe();
    other.submit(vec![look(1)]);
    bench.settle();
    assert_eq!(other.take().len(), 1);
}

#[test]
fn contended_locks_are_found_without_a_look_at_those_that_are_only_held() {
    let bench = Bench::new();
    let (holder, waiter) = (bench.open(), bench.open());
    holder.submit((1..=150).map(|id| request(id, &format!("held-{id}"))).collect());
    waiter.submit(vec![request(1, "held-149"), request(2, "held-7"), request(3, "held-7")]);
    bench.settle();
    let observer = bench.observe();
    let query = Query::Contended { cursor: 0 };
    observer.submit(vec![ClientMessage::Inspect { query_id: 1, query }]);
    bench.settle();
    let answers = observer.take();
    let [ServerMessage::LockStatus { locks, next: None, .. }] = &answers[..] else {
        panic!("{answers:?}")
    };
    let seen: Vec<_> = locks.iter().map(|it| (it.name.as_str(), it.waiter_count)).collect();
    assert_eq!(seen, [("held-149", 1), ("held-7", 2)]);
    bench.pass(Duration::from_secs(3));
    let contention = bench.contention();
    let expected = Contention { locks: 2, longest_queue: 2, ..contention };
    assert_eq!((contention, contention.next), (expected, None));
    assert_eq!(contention.oldest_wait, Duration::from_secs(3));
}

#[test]
fn who_rests_is_served_however_late_the_timer_and_whatever_brings_a_turn() {
    let bench = Bench::new();
    let observers: Vec<_> = (0..8).map(|_| bench.observe()).collect();
    let session = bench.open();
    for observer in &observers {
        observer.submit((1..=15).map(look).collect());
    }
    bench.settle();
    let answered = |observers: &[super::super::testing::Client]| -> usize {
        observers.iter().map(|observer| observer.take().len()).sum()
    };
    assert_eq!(answered(&observers), LOOKS_BURST as usize);
    // More of them are due by then than a turn serves, and the table is due as well.
    bench.stall(Duration::from_secs(1));
    session.submit(vec![ClientMessage::KeepAlive { sequence: 1 }]);
    bench.settle();
    assert_eq!(session.take(), vec![ServerMessage::KeptAlive { sequence: 1 }]);
    assert_eq!(answered(&observers), 8 * 15 - LOOKS_BURST as usize);
}
