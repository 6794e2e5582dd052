//! Watches and subscriptions, with connections that keep what they are given.

use std::time::Duration;

use crate::server::desk::EVENTS_BYTES_MAX;
use crate::server::desk::inspect::{CYCLE_BYTES_MAX, PAGE_BYTES_MAX};
use crate::server::desk::subscribers::SUBSCRIBERS_MAX;
use crate::server::desk::testing::{Bench, Client};
use crate::server::desk::turn::Deliver;
use crate::server::desk::watches::WATCHES_PER_CONNECTION_MAX;
use crate::server::testing::{hello, release, request, try_request};
use crate::types::{
    FencingToken, Generation, GoodbyeCode, LostReason, OwnerId, RejectionCode, RequestId, SessionId,
};
use crate::wire::{
    self, Attach, ClientMessage, CycleLink, Happening, Holder, LockStatus, Mode, RawClaim,
    ServerMessage, encode_frame,
};
use bytes::BytesMut;

fn watch(query_id: u64, name: &str) -> ClientMessage {
    ClientMessage::Watch { query_id, name: name.into() }
}

fn subscribe(query_id: u64, name: Option<&str>) -> ClientMessage {
    ClientMessage::Subscribe { query_id, name: name.map(str::to_owned) }
}

/// A request with this mode and owner, that may convert another.
fn asking(id: u64, name: &str, mode: Mode, owner: u64, converts: Option<u64>) -> ClientMessage {
    let mut message = request(id, name);
    if let ClientMessage::Request(wire::Request { claims, owner: asks, converts: takes, .. }) =
        &mut message
    {
        claims[0].mode = mode;
        (*asks, *takes) = (OwnerId(owner), converts.map(RequestId));
    }
    message
}

/// A connection that looks on, and has heard its Welcome.
fn observer(bench: &Bench) -> Client {
    let observer = bench.connect();
    observer.submit(vec![hello(Attach::Observer)]);
    bench.settle();
    observer.take();
    observer
}

/// What a message shows of a watched lock, if that is in use; and to which query.
fn shown(message: &ServerMessage) -> (u64, Option<&LockStatus>) {
    match message {
        ServerMessage::LockStatus { query_id, locks, next: None } => {
            assert!(locks.len() <= 1, "{locks:?}");
            (*query_id, locks.first())
        }
        other => panic!("nothing is shown: {other:?}"),
    }
}

/// The tokens with which the watched lock is held, from the only message that has come.
fn take_tokens(watcher: &Client, query_id: u64) -> Vec<u64> {
    let messages = watcher.take();
    assert_eq!(messages.len(), 1, "{messages:?}");
    let (answered, lock) = shown(&messages[0]);
    assert_eq!(answered, query_id);
    let holders = lock.map_or(&[][..], |lock| &lock.holders);
    holders.iter().map(|holder| holder.token.number()).collect()
}

fn code_of(message: &ServerMessage) -> (u64, RejectionCode) {
    match message {
        ServerMessage::Rejected { request, code, .. } => (request.number(), *code),
        other => panic!("not a rejection: {other:?}"),
    }
}

/// Of all events that have come: which request, and what happened to it.
fn take_events(subscriber: &Client) -> Vec<(u64, Happening)> {
    let event = |message| match message {
        ServerMessage::Event { request, what, .. } => (request.number(), what),
        other => panic!("no event: {other:?}"),
    };
    subscriber.take().into_iter().map(event).collect()
}

#[test]
fn a_watcher_sees_the_lock_at_once_and_whenever_others_hold_it() {
    let bench = Bench::new();
    let watcher = observer(&bench);
    watcher.submit(vec![watch(7, "leader")]);
    bench.settle();
    assert!(take_tokens(&watcher, 7).is_empty());

    let (first, second, token) = bench.open_two_for("leader");
    let seen = watcher.take();
    assert_eq!(seen.len(), 1, "the queue alone is no news: {seen:?}");
    match shown(&seen[0]) {
        (7, Some(LockStatus { holders, holder_count: 1, .. })) => {
            assert_eq!((holders[0].token.number(), &holders[0].note[..]), (token, "deploy v2.3"));
        }
        other => panic!("{other:?}"),
    }
    first.submit(vec![release(1, token)]);
    bench.settle();
    let next = second.take_grant(1);
    assert_eq!(take_tokens(&watcher, 7), [next]);

    // A lease that ends is a change as any other.
    second.disconnect();
    bench.pass(Duration::from_secs(11));
    assert!(take_tokens(&watcher, 7).is_empty());
    bench.open().submit(vec![request(1, "another")]);
    bench.settle();
    assert_eq!(watcher.take(), vec![]);
}

#[test]
fn what_changes_in_one_turn_is_shown_once_and_as_it_is_in_the_end() {
    let bench = Bench::new();
    let (watcher, session) = (observer(&bench), bench.open());
    watcher.submit(vec![watch(1, "leader")]);
    bench.settle();
    watcher.take();
    let cancel = |request| ClientMessage::Cancel { request };
    let leader = |id| request(id, "leader");
    let [first, second] = [1, 2].map(|id| cancel(RequestId(id)));
    session.submit(vec![leader(1), first, leader(2), second, leader(3)]);
    bench.settle();
    assert_eq!(take_tokens(&watcher, 1), [3]);
    assert_eq!(session.take().len(), 5);
}

#[test]
fn a_conversion_is_a_change_of_holders() {
    let bench = Bench::new();
    let (watcher, session) = (observer(&bench), bench.open());
    session.submit(vec![request(1, "doc")]);
    watcher.submit(vec![watch(1, "doc")]);
    bench.settle();
    assert_eq!(take_tokens(&watcher, 1), [1]);
    session.submit(vec![asking(2, "doc", Mode::Shared, 0, Some(1))]);
    bench.settle();
    let seen = watcher.take();
    let holders = shown(&seen[0]).1.map(|lock| &lock.holders[..]);
    assert!(
        matches!(
            holders,
            Some([Holder {
                token: FencingToken(1),
                request: RequestId(2),
                mode: Mode::Shared,
                ..
            }])
        ),
        "{seen:?}"
    );
}

#[test]
fn a_second_watch_of_a_lock_takes_the_place_of_the_first() {
    let bench = Bench::new();
    let session = bench.open();
    session.submit(vec![watch(1, "leader"), watch(2, "leader")]);
    bench.settle();
    assert_eq!(session.take().iter().map(|m| shown(m).0).collect::<Vec<_>>(), [1, 2]);
    // A session sees its own grants, too, and after them.
    session.submit(vec![request(3, "leader")]);
    bench.settle();
    let messages = session.take();
    assert!(
        matches!(messages[0], ServerMessage::Grant { request: RequestId(3), .. }),
        "{messages:?}"
    );
    assert_eq!(messages.len(), 2);
    assert_eq!(shown(&messages[1]).0, 2);
}

#[test]
fn a_watch_that_is_given_up_shows_nothing_more_and_others_go_on() {
    let bench = Bench::new();
    let watchers = [observer(&bench), observer(&bench)];
    for watcher in &watchers {
        watcher.submit(vec![watch(1, "leader"), watch(2, "printer")]);
    }
    watchers[0].submit(vec![
        ClientMessage::Unwatch { name: "leader".into() },
        ClientMessage::Unwatch { name: "never watched".into() },
        ClientMessage::Unwatch { name: String::new() },
    ]);
    bench.settle();
    assert_eq!(watchers.each_ref().map(|watcher| watcher.take().len()), [2, 2]);
    let session = bench.open();
    session.submit(vec![request(1, "leader")]);
    bench.settle();
    assert_eq!(watchers[0].take(), []);
    assert_eq!(take_tokens(&watchers[1], 1).len(), 1);
    // It can be taken up again, and the other lock was watched all the time.
    watchers[0].submit(vec![watch(3, "leader")]);
    bench.settle();
    assert_eq!(take_tokens(&watchers[0], 3).len(), 1);
    session.submit(vec![request(2, "printer")]);
    bench.settle();
    assert_eq!(take_tokens(&watchers[0], 2).len(), 1);
}

#[test]
fn a_watch_that_cannot_be_is_rejected_and_the_others_go_on() {
    let bench = Bench::new();
    let watcher = observer(&bench);
    let many = WATCHES_PER_CONNECTION_MAX as u64;
    watcher.submit((1..=many + 1).map(|id| watch(id, &format!("lock {id}"))).collect());
    bench.settle();
    let answers = watcher.take();
    assert!(answers[..answers.len() - 1].iter().all(|answer| shown(answer).1.is_none()));
    assert_eq!(code_of(&answers[answers.len() - 1]), (many + 1, RejectionCode::TooManyWatches));
    watcher.submit(vec![watch(1, ""), subscribe(2, Some(""))]);
    bench.settle();
    let codes: Vec<_> = watcher.take().iter().map(code_of).collect();
    let invalid = RejectionCode::InvalidLockName;
    assert_eq!(codes, [(1, invalid), (2, invalid)]);
    let session = bench.open();
    session.submit(vec![request(1, &format!("lock {many}"))]);
    bench.settle();
    assert_eq!(take_tokens(&watcher, many), [1]);
}

#[test]
fn however_many_locks_change_at_once_each_holder_is_named() {
    let bench = Bench::new();
    let (watcher, session) = (observer(&bench), bench.open());
    let names: Vec<String> = (0..1000).map(|i| format!("{i:0>255}")).collect();
    watcher.submit(names.iter().zip(1..).map(|(name, id)| watch(id, name)).collect());
    bench.settle();
    watcher.take();
    session.submit(names.iter().zip(1..).map(|(name, id)| request(id, name)).collect());
    bench.settle();
    let seen = watcher.take();
    assert_eq!(seen.len(), names.len());
    for message in &seen {
        assert!(shown(message).1.is_some_and(|lock| lock.holders.len() == 1), "{message:?}");
    }
}

#[test]
fn a_lock_with_a_crowd_of_holders_is_shown_in_a_frame() {
    let bench = Bench::new();
    let (watcher, session) = (observer(&bench), bench.open());
    let shared = |id| asking(id, "members", Mode::Shared, 0, None);
    session.submit((1..=2000).map(shared).collect());
    watcher.submit(vec![watch(1, "members")]);
    bench.settle();
    let seen = watcher.take();
    let lock = shown(&seen[0]).1.unwrap();
    assert_eq!(lock.holder_count, 2000);
    assert!(lock.holders.len() > 100, "{}", lock.holders.len());
    encode_frame(&seen[0], &mut BytesMut::new()).unwrap();
}

#[test]
fn subscribers_hear_the_whole_story_in_order() {
    let bench = Bench::new();
    let subscriber = observer(&bench);
    subscriber.submit(vec![subscribe(5, None)]);
    bench.settle();
    assert_eq!(subscriber.take(), vec![ServerMessage::Subscribed { query_id: 5 }]);
    let (holder, waiter, token) = bench.open_two_for("printer");
    holder.submit(vec![try_request(2, "printer"), release(1, token)]);
    bench.settle();
    let busy = RejectionCode::Busy;
    let message = "\"printer\" is busy".to_owned();
    assert_eq!(
        take_events(&subscriber),
        [
            (1, Happening::Requested),
            (1, Happening::Granted { token: FencingToken::new(token) }),
            (1, Happening::Requested),
            (1, Happening::Queued { position: 1 }),
            (2, Happening::Requested),
            (2, Happening::Rejected { code: busy, message }),
            (1, Happening::Released { token: FencingToken::new(token) }),
            (1, Happening::Granted { token: FencingToken::new(token + 1) }),
        ]
    );
    waiter.disconnect();
    bench.pass(Duration::from_secs(11));
    match &subscriber.take()[..] {
        [ServerMessage::Event { at_ms, session, identity, request, claims, what }] => {
            assert!(*session > SessionId(0) && *request == RequestId(1));
            assert!(*at_ms > 1_700_000_000_000, "{at_ms}");
            assert_eq!(identity, "ann@build7:8123");
            let printer = RawClaim { name: "printer".into(), mode: Mode::Exclusive };
            assert_eq!(claims[..], [printer.checked().unwrap()]);
            let reason = LostReason::Expired;
            assert_eq!(*what, Happening::Lost { token: FencingToken::new(token + 1), reason });
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_asks_for_one_lock_hears_of_no_other() {
    let bench = Bench::new();
    let (subscriber, session) = (observer(&bench), bench.open());
    subscriber.submit(vec![subscribe(1, None), subscribe(2, Some("b"))]);
    bench.settle();
    assert_eq!(subscriber.take().len(), 2);
    session.submit(vec![request(1, "a"), request(2, "b")]);
    bench.settle();
    let granted = Happening::Granted { token: FencingToken(2) };
    assert_eq!(take_events(&subscriber), [(2, Happening::Requested), (2, granted)]);
}

#[test]
fn the_one_subscriber_too_many_is_heard_and_who_was_silent_longest_makes_room() {
    let bench = Bench::new();
    let mut subscribers = Vec::new();
    for _ in 0..SUBSCRIBERS_MAX {
        let subscriber = observer(&bench);
        subscriber.submit(vec![subscribe(1, None)]);
        subscribers.push(subscriber);
    }
    bench.settle();
    bench.pass(Duration::from_secs(1));
    let silent = subscribers.remove(20);
    for subscriber in &subscribers {
        subscriber.submit(vec![ClientMessage::KeepAlive { sequence: 1 }]);
    }
    bench.settle();
    let late = observer(&bench);
    late.submit(vec![subscribe(2, None)]);
    bench.settle();
    assert_eq!(late.take(), vec![ServerMessage::Subscribed { query_id: 2 }]);
    match &silent.take()[..] {
        [ServerMessage::Subscribed { .. }, ServerMessage::Goodbye { code, message, .. }] => {
            assert_eq!(*code, GoodbyeCode::TooManyConnections);
            let why = "more than 64 connections subscribe to events, and this one was silent the \
                longest";
            assert_eq!(message, why);
        }
        other => panic!("{other:?}"),
    }
    // A place that somebody leaves is free, and nobody has to go.
    subscribers[0].disconnect();
    subscribers[1].submit(vec![ClientMessage::Goodbye]);
    for _ in 0..2 {
        let latest = observer(&bench);
        latest.submit(vec![subscribe(1, None)]);
        bench.settle();
        assert_eq!(latest.take(), vec![ServerMessage::Subscribed { query_id: 1 }]);
        subscribers.push(latest);
    }
    let said_goodbye = |it: &Client| {
        it.take().iter().any(|message| matches!(message, ServerMessage::Goodbye { .. }))
    };
    assert_eq!(subscribers.iter().filter(|it| said_goodbye(it)).count(), 1, "as it asked");
}

#[test]
fn a_session_that_comes_back_watches_anew() {
    let bench = Bench::new();
    let old = bench.connect();
    old.submit(vec![hello(Attach::New), watch(1, "leader"), request(2, "leader")]);
    bench.settle();
    let welcome = &old.take()[0];
    let ServerMessage::Welcome { session, secret, .. } = *welcome else { panic!("{welcome:?}") };
    let new = bench.connect();
    let resume = Attach::Resume { session, secret, generation: Generation(2) };
    new.submit(vec![hello(resume), ClientMessage::Cancel { request: RequestId(2) }]);
    bench.settle();
    assert_eq!(old.take().len(), 1, "a goodbye, and nothing after it");
    assert!(!new.take().iter().any(|m| matches!(m, ServerMessage::LockStatus { .. })));
}

#[test]
fn who_is_refused_for_a_deadlock_hears_who_waits_for_whom() {
    let bench = Bench::new();
    let (ann, bob) = (bench.open(), bench.open());
    let ask = |id, name| asking(id, name, Mode::Exclusive, 9, None);
    ann.submit(vec![ask(1, "a")]);
    bob.submit(vec![ask(1, "b")]);
    ann.submit(vec![ask(2, "b"), ask(3, "a")]);
    bob.submit(vec![ask(2, "a")]);
    bench.settle();
    let answers = ann.take();
    assert_eq!(code_of(&answers[2]), (3, RejectionCode::AlreadyHeld));
    match &bob.take()[1] {
        ServerMessage::Rejected { request: RequestId(2), code, message, lock: None, cycle } => {
            assert_eq!(*code, RejectionCode::Deadlock);
            assert!(message.starts_with("waiting would never end: "), "{message}");
            let told = |link: &CycleLink| {
                assert_eq!((link.owner, link.identity.as_str()), (OwnerId(9), "ann@build7:8123"));
                (link.request, link.lock.to_string(), link.held_with)
            };
            let told: Vec<_> = cycle.links.iter().map(told).collect();
            let held = |lock: &str, n| (RequestId(2), lock.to_owned(), Some(FencingToken(n)));
            assert_eq!(told, [held("a", 1), held("b", 2)]);
            assert!(!cycle.is_cut);
            assert_ne!(cycle.links[0].session, cycle.links[1].session);
        }
        other => panic!("{other:?}"),
    }
}

/// A lock that a crowd holds, each with a note, and who can add one more.
fn crowded(bench: &Bench, name: &str) -> Client {
    let session = bench.open();
    session.submit((1..=500).map(|id| asking(id, name, Mode::Shared, 0, None)).collect());
    bench.settle();
    assert_eq!(session.take().len(), 500);
    session
}

#[test]
fn a_change_is_rendered_once_for_all_who_are_shown_it_in_a_turn() {
    let bench = Bench::new();
    let session = crowded(&bench, "members");
    let mut watchers = Vec::new();
    for id in 1..=20 {
        let watcher = observer(&bench);
        watcher.submit(vec![watch(id, "members")]);
        watchers.push(watcher);
    }
    bench.settle();
    let mut whole = BytesMut::new();
    encode_frame(&watchers[0].take()[0], &mut whole).unwrap();
    assert!(whole.len() > 10_000, "{}", whole.len());
    let before = bench.bytes();
    session.submit(vec![asking(1000, "members", Mode::Shared, 0, None)]);
    bench.settle();
    let taken = bench.bytes() - before;
    assert!(taken < whole.len() + 20 * 200, "{taken} bytes for {}", whole.len());
    let last = |watcher: &Client| watcher.take_deliveries().pop().unwrap().shown;
    let first = last(&watchers[0]);
    for (watcher, id) in watchers.iter().zip(1..).skip(1) {
        let seen = last(watcher);
        assert_eq!((seen.len(), seen[0].0), (1, id));
        assert!(seen[0].1.is_shared_with(&first[0].1));
    }
}

#[test]
fn who_has_no_room_for_another_crowd_is_shown_one_holder() {
    let bench = Bench::new();
    let names: Vec<String> = (0..10).map(|i| format!("members {i}")).collect();
    let session = bench.open();
    let all = |first: u64| {
        let join = |(name, id): (&String, u64)| asking(id, name, Mode::Shared, 0, None);
        names.iter().zip(first..).map(join).collect::<Vec<_>>()
    };
    (0..60).for_each(|i| session.submit(all(1 + 10 * i)));
    let (all_of_them, one) = (observer(&bench), observer(&bench));
    all_of_them.submit(names.iter().zip(1..).map(|(name, id)| watch(id, name)).collect());
    one.submit(vec![watch(1, &names[9])]);
    bench.settle();
    all_of_them.take();
    one.take();
    session.submit(all(1000));
    bench.settle();
    let seen = all_of_them.take();
    let told: Vec<_> = seen.iter().map(|m| shown(m).1.unwrap().holders.len()).collect();
    assert!(told[0] > 50 && told[9] == 1, "{told:?}");
    assert!(seen.iter().all(|m| shown(m).1.unwrap().holder_count == 61));
    let bytes = encoded(&seen);
    assert!(bytes < PAGE_BYTES_MAX + 10 * 1000, "{bytes}");
    // Who watches but the last of them has room for it.
    assert!(shown(&one.take()[0]).1.unwrap().holders.len() > 50);
}

fn encoded(messages: &[ServerMessage]) -> usize {
    let mut bytes = BytesMut::new();
    for message in messages {
        encode_frame(message, &mut bytes).unwrap();
    }
    bytes.len()
}

#[test]
fn events_of_a_turn_that_no_outbox_has_room_for_are_counted_and_not_kept() {
    let bench = Bench::new();
    let subscriber = observer(&bench);
    subscriber.submit(vec![subscribe(1, None)]);
    let session = bench.open();
    subscriber.take();
    let claims: Vec<RawClaim> = (0..64)
        .map(|i| RawClaim { name: format!("{i:0>255}").into(), mode: Mode::Exclusive })
        .collect();
    let round = |id| {
        let mut asked = request(id, "");
        if let ClientMessage::Request(wire::Request { claims: all, .. }) = &mut asked {
            *all = claims.iter().cloned().collect();
        }
        [asked, ClientMessage::Cancel { request: RequestId::new(id) }]
    };
    session.submit((1..=100).flat_map(round).collect());
    bench.settle();
    let batches = subscriber.take_deliveries();
    let kept = |it: &Deliver| it.events.iter().map(bytes::Bytes::len).sum::<usize>();
    assert!(batches.iter().all(|it| kept(it) <= EVENTS_BYTES_MAX));
    let heard: usize = batches.iter().map(|it| it.events.len()).sum();
    let missed: u64 = batches.iter().map(|it| it.missed).sum();
    assert!(heard > 10 && missed > 100, "{heard} heard, {missed} missed");
    assert_eq!(heard as u64 + missed, 300);
}

/// Two sessions with long names, in whose locks a circle of `links` owners is one request from being
/// closed; that request, under this id.
fn circle(bench: &Bench, links: u64) -> (Client, impl Fn(u64) -> ClientMessage + use<>) {
    let session = bench.open();
    let name = move |i: u64| format!("{:x<250}", i % links);
    let ask = move |id, lock, owner| asking(id, &name(lock), Mode::Exclusive, owner + 1, None);
    session.submit((0..links).map(|i| ask(i + 1, i, i)).collect());
    session.submit((0..links - 1).map(|i| ask(links + i + 1, i + 1, i)).collect());
    bench.settle();
    session.take();
    (session, move |id| ask(id, links, links - 1))
}

#[test]
fn a_long_cycle_is_told_as_far_as_there_is_room_and_says_that_there_is_more() {
    let bench = Bench::new();
    for (links, is_whole) in [(16, true), (40, false)] {
        let (session, closing) = circle(&bench, links);
        session.submit(vec![closing(1000)]);
        bench.settle();
        let answers = session.take();
        let ServerMessage::Rejected { cycle, message, .. } = &answers[0] else {
            panic!("{answers:?}")
        };
        assert_eq!(cycle.is_cut, !is_whole);
        let (told, first) = (cycle.links.len(), &cycle.links[0]);
        assert!(is_whole == (told as u64 == links) && told >= 15);
        let is_asked = first.request == RequestId(1000);
        assert!(first.lock.as_str().starts_with('0') && is_asked, "{first:?}");
        assert!(message.ends_with(&format!("and so on over {} more", links - 4)), "{message}");
        let bytes = encoded(&answers) - message.len();
        assert!(bytes < CYCLE_BYTES_MAX + 200, "{bytes}");
    }
}

#[test]
fn many_deadlocks_at_once_are_all_answered_and_do_not_overfill_an_outbox() {
    let bench = Bench::new();
    let (session, closing) = circle(&bench, 8);
    session.submit((1000..1512).map(&closing).collect());
    bench.settle();
    let answers = session.take();
    assert_eq!(answers.len(), 512);
    let deadlock = RejectionCode::Deadlock;
    assert!(answers.iter().zip(1000..).all(|(it, id)| code_of(it) == (id, deadlock)));
    let bytes = encoded(&answers);
    assert!(bytes < PAGE_BYTES_MAX + 512 * 250, "{bytes}");
    match answers.last() {
        Some(ServerMessage::Rejected { cycle, .. }) => {
            assert!(cycle.is_cut && cycle.links.is_empty());
        }
        other => panic!("{other:?}"),
    }
    // In the next turn there is room again.
    session.submit(vec![closing(2000)]);
    bench.settle();
    match &session.take()[0] {
        ServerMessage::Rejected { cycle, .. } => assert!(cycle.links.len() == 8 && !cycle.is_cut),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_watches_in_great_numbers_keeps_nobody_waiting_and_sees_the_last_state() {
    let bench = Bench::new();
    let session = crowded(&bench, "members");
    let mut watchers = Vec::new();
    for id in 1..=600 {
        let watcher = observer(&bench);
        watcher.submit(vec![watch(id, "members")]);
        watchers.push(watcher);
    }
    let bystander = bench.open();
    bench.settle();
    for watcher in &watchers {
        watcher.take();
    }
    session.submit(vec![asking(1000, "members", Mode::Shared, 0, None)]);
    bystander.submit(vec![ClientMessage::KeepAlive { sequence: 7 }]);
    let mut kept = Vec::new();
    while kept.is_empty() {
        bench.look();
        kept = bystander.take();
    }
    let shown_before = watchers.iter().filter(|watcher| !watcher.take().is_empty()).count();
    assert!(shown_before < 400, "{shown_before} of 600 were shown the change before");
    session.submit(vec![asking(1001, "members", Mode::Shared, 0, None)]);
    bench.settle();
    for watcher in &watchers {
        assert_eq!(shown(watcher.take().last().unwrap()).1.unwrap().holder_count, 502);
    }
}
