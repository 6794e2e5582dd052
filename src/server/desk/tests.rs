//! The desk, with connections that keep what they are given.

use std::time::Duration;

use super::testing::{Bench, Client};
use super::turn::Handled;
use super::*;
use crate::server::durable::persist::summary;
use crate::server::net::session::OUTBOX_BYTES_MAX;
use crate::server::testing::{
    account_of_nothing, hello, release, request, try_request, waiting_request,
};
use crate::types::{
    FencingToken, Generation, LostReason, RejectionCode, RequestId, Secret, SessionId,
};
use crate::wire::{
    self, Attach, ClientMessage, Mode, Query, RawClaim, ServerMessage, Wait, encode_frame,
};

fn code_of(message: &ServerMessage) -> RejectionCode {
    match message {
        ServerMessage::Rejected { code, .. } => *code,
        other => panic!("not a rejection: {other:?}"),
    }
}

fn goodbye_of(message: &ServerMessage) -> (GoodbyeCode, RejectionCode) {
    match message {
        ServerMessage::Goodbye { code, rejection, .. } => (*code, *rejection),
        other => panic!("not a goodbye: {other:?}"),
    }
}

#[test]
fn locks_are_granted_in_the_order_of_requests_with_rising_tokens() {
    let bench = Bench::new();
    let sessions = [bench.open(), bench.open(), bench.open()];
    for session in &sessions {
        session.submit(vec![request(1, "printer")]);
    }
    bench.settle();
    for (i, session) in sessions.iter().enumerate().skip(1) {
        assert_eq!(session.take_queued(1).0, i as u64);
    }
    let mut last = 0;
    for (i, session) in sessions.iter().enumerate() {
        let token = session.take_grant(1);
        assert!(token > last);
        last = token;
        for behind in &sessions[i + 1..] {
            assert_eq!(behind.take(), vec![]);
        }
        session.submit(vec![release(1, token)]);
        bench.settle();
        assert_eq!(session.take(), vec![ServerMessage::Released { request: RequestId(1) }]);
    }
}

#[test]
fn one_submit_is_answered_by_one_batch_for_each_connection() {
    let bench = Bench::new();
    let other = bench.open();
    other.submit(vec![request(1, "a"), request(2, "b")]);
    bench.settle();
    let batches = other.take_batches();
    assert_eq!(batches.len(), 1, "{batches:?}");
    let waiting = bench.connect();
    let early = vec![hello(Attach::New), request(1, "a"), request(2, "b"), request(3, "c")];
    waiting.submit(early);
    bench.settle();
    let batches = waiting.take_batches();
    assert!(
        matches!(
            &batches[..],
            [(messages, _)] if matches!(
                messages[..],
                [
                    ServerMessage::Welcome { .. },
                    ServerMessage::Queued { request: RequestId(1), .. },
                    ServerMessage::Queued { request: RequestId(2), .. },
                    ServerMessage::Grant { request: RequestId(3), .. },
                ]
            )
        ),
        "{batches:?}"
    );
    other.submit(vec![release(1, 1), release(2, 2)]);
    bench.settle();
    assert_eq!(other.take_batches().len(), 1);
    let batches = waiting.take_batches();
    assert!(matches!(&batches[..], [(grants, _)] if grants.len() == 2), "{batches:?}");
}

#[test]
fn keep_alives_are_answered_before_the_requests_of_their_batch() {
    let bench = Bench::new();
    let session = bench.open();
    let keep_alive = ClientMessage::KeepAlive { sequence: 9 };
    session.submit(vec![request(1, "a"), keep_alive.clone(), request(2, "b")]);
    session.submit(vec![keep_alive]);
    bench.settle();
    let answers = session.take();
    assert!(
        matches!(
            answers[..],
            [
                ServerMessage::KeptAlive { sequence: 9 },
                ServerMessage::Grant { request: RequestId(1), .. },
                ServerMessage::Grant { request: RequestId(2), .. },
                ServerMessage::KeptAlive { sequence: 9 },
            ]
        ),
        "{answers:?}"
    );
}

#[test]
fn a_disconnected_session_lingers_for_its_lease_then_its_lock_passes_on() {
    let bench = Bench::new();
    let (holder, waiter, token) = bench.open_two_for("printer");
    holder.disconnect();
    for _ in 0..4 {
        bench.pass(Duration::from_millis(2450));
        waiter.submit(vec![ClientMessage::KeepAlive { sequence: 0 }]);
        bench.settle();
        assert_eq!(waiter.take(), vec![ServerMessage::KeptAlive { sequence: 0 }]);
    }
    bench.pass(Duration::from_millis(250));
    assert!(waiter.take_grant(1) > token);
}

#[test]
fn a_silent_session_expires_and_is_told_so() {
    let bench = Bench::new();
    let session = bench.open();
    session.submit(vec![request(1, "printer")]);
    bench.settle();
    let token = session.take_grant(1);
    bench.pass(Duration::from_secs(11));
    let messages = session.take();
    let reason = LostReason::Expired;
    assert_eq!(
        messages[0],
        ServerMessage::Lost { request: RequestId(1), token: FencingToken::new(token), reason }
    );
    assert_eq!(goodbye_of(&messages[1]).0, GoodbyeCode::SessionExpired);
    session.submit(vec![request(2, "printer")]);
    bench.settle();
    assert_eq!(session.take(), vec![], "nothing follows a Goodbye");
}

#[test]
fn j3_who_spoke_in_time_and_was_put_off_still_holds_after_a_replay() {
    let bench = Bench::new();
    bench.begin_journal();
    let holder = bench.open();
    holder.submit(vec![request(1, "printer")]);
    bench.settle();
    let token = holder.take_grant(1);
    bench.pass(Duration::from_millis(9_900));
    bench.turn(|desk, _| {
        // As if others had brought all that a turn does.
        desk.steps_until_look = 0;
        &mut desk.turn
    });
    holder.submit(vec![ClientMessage::KeepAlive { sequence: 1 }]);
    assert_eq!(holder.take(), [], "it was not put off");
    // Its lease would be over if it had not spoken. That is due before anybody comes to what it said.
    bench.stall(Duration::from_millis(200));
    bench.turn(|desk, now| desk.tick(now, now));
    assert_eq!(holder.take(), [], "it was heard already, or has expired");
    let [lived, replayed] = bench.lived_and_replayed();
    assert_eq!(lived, replayed, "another table");
    bench.settle();
    assert_eq!(holder.take(), [ServerMessage::KeptAlive { sequence: 1 }]);
    holder.submit(vec![release(1, token)]);
    bench.settle();
    assert!(matches!(holder.take()[..], [ServerMessage::Released { .. }]));
    let [lived, replayed] = bench.lived_and_replayed();
    assert_eq!(lived, replayed, "another table");
}

#[test]
fn j3_who_was_told_that_the_service_ends_waits_no_more_after_a_replay() {
    let bench = Bench::new();
    bench.begin_journal();
    let (_holder, waiter, _) = bench.open_two_for("printer");
    bench.turn(Desk::drain);
    assert_eq!(code_of(&waiter.take()[0]), RejectionCode::Draining);
    let [lived, replayed] = bench.lived_and_replayed();
    assert_eq!(lived, replayed, "another table");
}

#[test]
fn goodbye_frees_everything_at_once() {
    let bench = Bench::new();
    let (holder, waiter, _) = bench.open_two_for("printer");
    holder.submit(vec![ClientMessage::Goodbye, request(2, "printer")]);
    bench.settle();
    waiter.take_grant(1);
    let last = holder.take();
    assert_eq!(goodbye_of(last.last().unwrap()).0, GoodbyeCode::Done);
}

#[test]
fn who_is_turned_away_hears_who_holds_the_lock_and_who_waits() {
    let bench = Bench::new();
    let (holder, waiter, late) = (bench.open(), bench.open(), bench.open());
    holder.submit(vec![request(1, "printer")]);
    waiter.submit(vec![waiting_request(1, "printer", Wait::millis(3000))]);
    bench.pass(Duration::from_secs(2));
    let token = holder.take_grant(1);
    waiter.take_queued(1);
    late.submit(vec![try_request(1, "printer")]);
    bench.settle();
    match &late.take()[..] {
        [ServerMessage::Rejected { request: RequestId(1), lock: Some(lock), code, .. }] => {
            assert_eq!(*code, RejectionCode::Busy);
            assert_eq!((lock.holder_count, lock.waiter_count), (1, 1));
            let holder = &lock.holders[0];
            assert_eq!(
                (holder.token.number(), holder.identity.as_str()),
                (token, "ann@build7:8123")
            );
            assert_eq!(holder.note, "deploy v2.3");
            assert!((2000..2010).contains(&holder.held_ms), "{holder:?}");
        }
        other => panic!("{other:?}"),
    }
    bench.pass(Duration::from_secs(1));
    let rejected = waiter.take();
    assert_eq!(code_of(&rejected[0]), RejectionCode::TimedOut);
    assert!(matches!(&rejected[0], ServerMessage::Rejected { lock: Some(lock), .. }
        if lock.waiter_count == 0));
}

#[test]
fn a_shut_window_is_opened_though_there_is_nothing_to_say() {
    let bench = Bench::new();
    let (holder, waiter) = (bench.open(), bench.open());
    holder.submit(vec![request(1, "printer")]);
    bench.settle();
    waiter.submit_with(vec![account_of_nothing()], Window::Shut);
    bench.settle();
    assert_eq!(waiter.take_batches(), vec![(vec![], Handled::All)]);
    holder.take_grant(1);
    holder.disconnect();
    bench.settle();
    assert_eq!(holder.take_batches(), vec![(vec![], Handled::All)]);
}

#[test]
fn a_refused_hello_is_answered_and_the_rest_of_its_batch_is_not() {
    let bench = Bench::new();
    let session = bench.connect();
    let mut short = hello(Attach::New);
    if let ClientMessage::Hello(wire::Hello { ttl_ms, .. }) = &mut short {
        *ttl_ms = 1;
    }
    session.submit(vec![short, request(1, "printer")]);
    let unknown = bench.connect();
    let secret = Secret::new(2);
    unknown.submit(vec![hello(Attach::Resume {
        session: SessionId(1),
        secret,
        generation: Generation(2),
    })]);
    bench.settle();
    let refused = session.take();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(goodbye_of(&refused[0]), (GoodbyeCode::Refused, RejectionCode::InvalidTtl));
    let refused = unknown.take();
    assert_eq!(goodbye_of(&refused[0]), (GoodbyeCode::Refused, RejectionCode::UnknownSession));
}

#[test]
fn a_session_that_is_resumed_keeps_its_locks_and_its_old_connection_is_told() {
    let bench = Bench::new();
    let old = bench.connect();
    old.submit(vec![hello(Attach::New), request(1, "printer")]);
    bench.settle();
    let (session, secret, token) = match old.take()[..] {
        [
            ServerMessage::Welcome { session, secret, generation: Generation(1), .. },
            ServerMessage::Grant { request: RequestId(1), token, .. },
        ] => (session, secret, token),
        ref other => panic!("{other:?}"),
    };
    let new = bench.connect();
    let attach = Attach::Resume { session, secret, generation: Generation(2) };
    new.submit(vec![hello(attach), request(1, "printer")]);
    bench.settle();
    assert_eq!(goodbye_of(&old.take()[0]).0, GoodbyeCode::Superseded);
    old.submit(vec![release(1, token.number())]);
    old.disconnect();
    bench.settle();
    assert_eq!(old.take(), vec![]);
    match new.take()[..] {
        [
            ServerMessage::Welcome { generation: Generation(2), .. },
            ServerMessage::Grant { token: again, .. },
        ] => {
            assert_eq!(again, token);
        }
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn an_observer_looks_and_revokes_and_does_nothing_else() {
    let bench = Bench::new();
    let holder = bench.open();
    holder.submit(vec![request(1, "printer")]);
    bench.settle();
    let token = holder.take_grant(1);
    let observer = bench.connect();
    let revoke =
        |query_id, token| ClientMessage::Revoke { query_id, name: "printer".into(), token };
    observer.submit(vec![
        hello(Attach::Observer),
        request(1, "printer"),
        ClientMessage::Inspect { query_id: 2, query: Query::Lock { name: "printer".into() } },
        ClientMessage::Inspect { query_id: 3, query: Query::Server },
        revoke(4, FencingToken::new(token + 1)),
        revoke(5, FencingToken::new(token)),
        ClientMessage::KeepAlive { sequence: 6 },
        ClientMessage::Inspect { query_id: 7, query: Query::Lock { name: String::new() } },
    ]);
    bench.settle();
    observer.submit(vec![ClientMessage::Goodbye]);
    bench.settle();
    let answers = observer.take();
    assert!(matches!(answers[0], ServerMessage::Welcome { session: SessionId(0), secret, .. }
        if secret == Secret::new(0)));
    assert!(matches!(answers[1], ServerMessage::KeptAlive { sequence: 6 }));
    assert_eq!(code_of(&answers[2]), RejectionCode::SessionNeeded);
    assert!(matches!(&answers[3], ServerMessage::LockStatus { query_id: 2, locks, next: None }
        if locks[0].holders[0].token == FencingToken::new(token)));
    assert!(matches!(&answers[4], ServerMessage::ServerStatus { query_id: 3, status }
        if (status.locks, status.held, status.grants, status.last_token) == (1, 1, 1, FencingToken::new(token))));
    assert_eq!(code_of(&answers[5]), RejectionCode::NoSuchGrant);
    assert_eq!(code_of(&answers[6]), RejectionCode::InvalidLockName);
    // Answered when it is on record.
    assert_eq!(answers[7], ServerMessage::Revoked { query_id: 5 });
    assert_eq!(goodbye_of(&answers[8]).0, GoodbyeCode::Done);
    let reason = LostReason::Revoked.number();
    assert_eq!(
        holder.take(),
        vec![ServerMessage::Lost {
            request: RequestId(1),
            token: FencingToken::new(token),
            reason: LostReason::from_number(reason)
        }]
    );
}

#[test]
fn an_observer_is_told_for_how_long_grants_were_waited_for() {
    let bench = Bench::new();
    let (holder, waiter) = (bench.open(), bench.open());
    holder.submit(vec![request(1, "printer")]);
    bench.settle();
    waiter.submit(vec![request(1, "printer")]);
    bench.pass(Duration::from_secs(2));
    holder.submit(vec![release(1, holder.take_grant(1))]);
    bench.settle();
    let observer = bench.connect();
    let question = ClientMessage::Inspect { query_id: 3, query: Query::Waited };
    observer.submit(vec![hello(Attach::Observer), question]);
    let told = observer.take().pop();
    let Some(ServerMessage::WaitedStatus { query_id: 3, status }) = told else {
        panic!("{told:?}");
    };
    let counted = status.counts.iter().zip(&status.bounds_us);
    let counted: Vec<_> = counted.filter(|(count, _)| **count > 0).collect();
    assert_eq!(counted, [(&1, &50), (&1, &2_500_000)], "one at once, one after two seconds");
    assert_eq!(status.counts.len(), status.bounds_us.len() + 1);
}

/// Locks with names as long as they may be.
fn crowded() -> (Bench, Client, usize) {
    let bench = Bench::new();
    let session = bench.open();
    let names: Vec<String> = (0..600).map(|i| format!("{i:0>255}")).collect();
    for (i, name) in names.iter().enumerate() {
        session.submit(vec![request(i as u64 + 1, name)]);
    }
    bench.settle();
    assert_eq!(session.take().len(), names.len());
    (bench, session, names.len())
}

#[test]
fn pages_fit_into_frames_and_show_every_lock_once() {
    let (bench, session, count) = crowded();
    let mut seen = Vec::new();
    let mut cursor = 0;
    let mut pages = 0;
    loop {
        session
            .submit(vec![ClientMessage::Inspect { query_id: 1, query: Query::Locks { cursor } }]);
        bench.settle();
        let page = session.take().pop().unwrap();
        assert!(encode_frame(&page, &mut bytes::BytesMut::new()).is_ok());
        let ServerMessage::LockStatus { locks, next, .. } = page else { panic!("{page:?}") };
        seen.extend(locks.into_iter().map(|lock| lock.name));
        pages += 1;
        match next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count);
    assert!(pages < 20, "{pages}");
}

#[test]
fn a_page_looks_at_1024_places_and_the_next_goes_on_from_there() {
    /// Of 64 locks each.
    const MANY: u64 = 40;
    let bench = Bench::new();
    let session = bench.open();
    session.submit(vec![request(1, "first")]);
    for id in 2..2 + MANY {
        let ClientMessage::Request(mut several) = request(id, "several") else { panic!() };
        let claim = |nth| RawClaim { name: format!("{id}.{nth}").into(), mode: Mode::Exclusive };
        several.claims = (0..64).map(claim).collect();
        session.submit(vec![ClientMessage::Request(several)]);
    }
    session.submit(vec![request(2 + MANY, "last")]);
    // What was between the first and the last is vacant.
    let given_up =
        (2..2 + MANY).map(|request| ClientMessage::Cancel { request: RequestId::new(request) });
    session.submit(given_up.collect());
    bench.settle();
    session.take();
    let (mut cursor, mut pages) = (Some(0), Vec::new());
    while let Some(from) = cursor {
        let query = Query::Locks { cursor: from };
        session.submit(vec![ClientMessage::Inspect { query_id: 1, query }]);
        bench.settle();
        let page = session.take().pop().unwrap();
        let ServerMessage::LockStatus { locks, next, .. } = page else { panic!("{page:?}") };
        pages.push((locks.into_iter().map(|lock| lock.name).collect::<Vec<_>>(), next));
        cursor = next;
    }
    assert_eq!(pages[0], (vec!["first".parse().unwrap()], Some(1024)));
    assert_eq!(pages[1], (vec![], Some(2048)));
    assert_eq!(pages[2].0, ["last"]);
    assert!(pages.len() <= 4 && pages[3..].iter().all(|page| page.0.is_empty()), "{pages:?}");
}

#[test]
fn many_questions_at_once_do_not_overfill_an_outbox() {
    let (bench, session, _) = crowded();
    let question = ClientMessage::Inspect { query_id: 1, query: Query::Locks { cursor: 0 } };
    session.submit(vec![question; 600]);
    bench.settle();
    let mut outbox = bytes::BytesMut::new();
    let answers = session.take();
    assert_eq!(answers.len(), 600);
    for answer in &answers {
        encode_frame(answer, &mut outbox).unwrap();
    }
    assert!(outbox.len() < OUTBOX_BYTES_MAX / 2, "{}", outbox.len());
}

#[test]
fn draining_answers_waiters_refuses_newcomers_and_ends_when_holders_have_finished() {
    let bench = Bench::new();
    let (holder, waiter, token) = bench.open_two_for("printer");
    bench.turn(Desk::drain);
    bench.settle();
    assert_eq!(code_of(&waiter.take()[0]), RejectionCode::Draining);
    assert!(!bench.is_drained());
    let late = bench.connect();
    late.submit(vec![hello(Attach::New)]);
    bench.settle();
    assert_eq!(goodbye_of(&late.take()[0]), (GoodbyeCode::Refused, RejectionCode::Draining));
    holder.submit(vec![release(1, token)]);
    bench.settle();
    assert_eq!(holder.take(), vec![ServerMessage::Released { request: RequestId(1) }]);
    assert!(bench.is_drained());
    bench.turn(|desk, now| desk.close_all(GoodbyeCode::Draining, STOPS, now));
    let latest = bench.connect();
    bench.settle();
    for session in [&holder, &waiter, &latest] {
        assert_eq!(goodbye_of(&session.take()[0]).0, GoodbyeCode::Draining);
    }
}

#[test]
fn nothing_is_granted_beyond_what_is_durable() {
    let bench = Bench::by_hand(4);
    let session = bench.open();
    let ask = |id: u64| try_request(id, &format!("lock {id}"));
    session.submit((1..=5).map(ask).collect());
    bench.settle();
    let answers = session.take();
    let granted = |answer: &&ServerMessage| matches!(answer, ServerMessage::Grant { .. });
    assert_eq!(answers.iter().filter(granted).count(), 4);
    assert_eq!(code_of(&answers[4]), RejectionCode::Unavailable);
    let orders = bench.take_orders();
    assert!(matches!(orders[..], [Change::Durable(_)]), "the next tokens are on order: {orders:?}");
    bench.turn(|desk, now| desk.committed(&summary(&orders), now));
    session.submit(vec![ask(6)]);
    bench.settle();
    session.take_grant(6);
}

#[test]
fn a_request_that_is_not_well_formed_is_answered_in_its_turn() {
    let bench = Bench::new();
    let session = bench.open();
    let twice = vec![RawClaim { name: "a".into(), mode: Mode::Shared }; 2];
    let mut wrong = request(2, "a");
    if let ClientMessage::Request(wire::Request { claims, .. }) = &mut wrong {
        *claims = twice.into();
    }
    session.submit(vec![request(1, "a"), wrong, request(3, "c")]);
    bench.settle();
    let answers = session.take();
    assert!(matches!(answers[0], ServerMessage::Grant { request: RequestId(1), .. }));
    assert_eq!(code_of(&answers[1]), RejectionCode::InvalidClaims);
    assert!(matches!(answers[2], ServerMessage::Grant { request: RequestId(3), .. }));
}

#[test]
fn an_unknown_connection_is_ignored() {
    let bench = Bench::new();
    let known = bench.open();
    known.disconnect();
    known.disconnect();
    known.submit(vec![request(1, "printer")]);
    bench.settle();
    assert_eq!(known.take_batches(), vec![(vec![], Handled::All)]);
}
