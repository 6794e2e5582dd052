//! What waits and is not allowed any more, for the rules have changed.

use super::*;
use crate::server::desk::Desk;
use crate::server::desk::backlog::TURN_STEPS_MAX;

/// A session comes back, and repeats its request for this lock. Says the code of the answer, and whether
/// anything was granted.
fn comes_back(
    bench: &Bench,
    (session, secret): (SessionId, Secret),
    lock: &str,
) -> Vec<ServerMessage> {
    let back = bench.come("ann");
    back.submit(vec![hello(Attach::Resume { session, secret, generation: Generation(2) })]);
    bench.settle();
    let mut told = back.take();
    assert!(matches!(told[..], [ServerMessage::Welcome { .. }, ..]), "{told:?}");
    back.submit(vec![request(1, lock)]);
    bench.settle();
    told.extend(back.take());
    told.split_off(1)
}

const ANN_MAY_DO_OTHER: (&str, &str) =
    ("ann", "may = [ { do = [\"lock\"], names = [\"other\"] } ]");

#[test]
fn what_waited_and_is_not_allowed_any_more_is_not_granted_to_who_comes_back() {
    for is_released in [false, true] {
        let bench = bench();
        let (ann, session, secret) = bench.session_of("ann");
        let bob = bench.session("bob");
        answers(&bench, &bob, request(1, "a"));
        let token = bob_holds(&bench, &bob);
        answers(&bench, &ann, request(1, "a"));
        ann.disconnect();
        if is_released {
            answers(&bench, &bob, release(1, token));
        }
        bench.change(access(&[ANN_MAY_DO_OTHER, BOB]));
        assert_eq!(bench.figures().counts.waiting, 0);
        let told = comes_back(&bench, (session, secret), "a");
        assert_eq!(code_of(&told), Some(RejectionCode::Forbidden), "{told:?}");
        assert_eq!(bench.figures().counts.held, usize::from(!is_released));
    }
}

fn bob_holds(bench: &Bench, bob: &Client) -> u64 {
    match answers(bench, bob, request(1, "a"))[..] {
        [ServerMessage::Grant { token, .. }] => token.number(),
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn what_waited_before_a_restart_and_is_not_allowed_any_more_is_not_granted() {
    for is_connected in [false, true] {
        let bench = bench();
        let (ann, session, secret) = bench.session_of("ann");
        let bob = bench.session("bob");
        let token = bob_holds(&bench, &bob);
        answers(&bench, &ann, request(1, "a"));
        if !is_connected {
            ann.disconnect();
            answers(&bench, &bob, release(1, token));
        }
        let bench = bench.restarted(access(&[ANN_MAY_DO_OTHER, BOB]));
        bench.settle();
        assert_eq!(bench.figures().counts.waiting, 0);
        let told = comes_back(&bench, (session, secret), "a");
        assert_eq!(code_of(&told), Some(RejectionCode::Forbidden), "{told:?}");
    }
}

/// A run without an access file believes what clients call themselves. Who called itself as a principal is
/// none, however many runs with one, and sessions of that principal, come after.
#[test]
fn a_session_of_a_run_without_rules_is_no_principals_whatever_it_is_called() {
    const ANN_MAY_LOOK: (&str, &str) =
        ("ann", "may = [ { do = [\"lock\", \"see\"], names = [\"*\"] } ]\nsessions-max = 1");
    let open = Bench::new();
    let called = |name: &str| {
        let client = open.connect();
        client.submit(vec![ClientMessage::Hello(wire::Hello::new(Attach::New, name))]);
        open.settle();
        client.take();
        client
    };
    let (holder, waiter) = (called("bob"), called("ann"));
    answers(&open, &holder, request(1, "a"));
    answers(&open, &waiter, request(1, "a"));
    assert_eq!(open.figures().counts.waiting, 1);

    let first = open.restarted(access(&[ANN_MAY_LOOK, OPS]));
    first.settle();
    let (_ann, session, _) = first.session_of("ann");
    for bench in [&first, &first.restarted(access(&[ANN_MAY_LOOK, OPS]))] {
        bench.settle();
        // It waits by no rule, is not shown as ann's, and takes nothing of what ann may have.
        assert_eq!(bench.figures().counts.waiting, 0);
        assert_eq!(shown_to(bench, "ann"), [session]);
        assert_eq!(shown_to(bench, "ops").len(), 3);
    }
}

/// The sessions that somebody sees.
fn shown_to(bench: &Bench, name: &str) -> Vec<SessionId> {
    match &answers(bench, &bench.observer(name), inspect(Query::Sessions { cursor: 0 }))[..] {
        [ServerMessage::SessionStatus { sessions, .. }] => {
            sessions.iter().map(|it| it.session).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn whose_session_ends_by_other_rules_leaves_nothing_to_who_may_not_have_it_any_more() {
    let bench = bench();
    let (ann, holder) = (bench.session("ann"), bench.session("ann"));
    let bob = bench.come("bob");
    let now_or_never = wire::Hello { linger_ms: Some(0), ..wire::Hello::new(Attach::New, "") };
    bob.submit(vec![ClientMessage::Hello(now_or_never)]);
    bench.settle();
    bob.take();
    // Only the one between the two keeps the second from sharing.
    answers(&bench, &holder, claims(1, &[("a", Mode::Shared)]));
    answers(&bench, &bob, claims(1, &[("a", Mode::Exclusive)]));
    answers(&bench, &ann, claims(1, &[("a", Mode::Shared)]));
    bench.change(access(&[ANN_MAY_DO_OTHER]));
    let told = ann.take();
    assert_eq!(code_of(&told), Some(RejectionCode::Forbidden), "{told:?}");
    assert_eq!(bench.figures().counts.held, 1);
}

#[test]
fn what_one_that_is_withdrawn_leaves_is_not_granted_to_another_that_is() {
    let bench = bench();
    let (ann, other) = (bench.session("ann"), bench.session("ann"));
    let bob = bench.session("bob");
    answers(&bench, &bob, claims(1, &[("a", Mode::Shared)]));
    answers(&bench, &ann, claims(1, &[("a", Mode::Exclusive)]));
    answers(&bench, &other, claims(1, &[("a", Mode::Shared)]));
    bench.change(access(&[ANN_MAY_DO_OTHER, BOB]));
    for client in [&ann, &other] {
        let told = client.take();
        assert_eq!(code_of(&told), Some(RejectionCode::Forbidden), "{told:?}");
    }
    assert_eq!(bench.figures().counts.held, 1);
}

#[test]
fn what_was_asked_before_a_welcome_is_asked_by_the_rules_that_hold_then() {
    let bench = bench();
    // So that a longer lease has to be on disk first.
    let _other = bench.session("bob");
    let ann = bench.come("ann");
    let long = wire::Hello { ttl_ms: 300_000, ..wire::Hello::new(Attach::New, "") };
    ann.submit(vec![ClientMessage::Hello(long), request(1, "a"), request(2, "a/x")]);
    bench.change(access(&[("ann", "may = [ { do = [\"lock\"], names = [\"a/x\"] } ]"), BOB]));
    let told = ann.take();
    let forbidden = |message: &&ServerMessage| {
        matches!(
            message,
            ServerMessage::Rejected { request: RequestId(1), code: RejectionCode::Forbidden, .. }
        )
    };
    assert_eq!(told.iter().filter(forbidden).count(), 1, "{told:?}");
    assert_eq!(bench.figures().counts.held, 1, "{told:?}");
}

#[test]
fn while_what_waits_is_looked_through_nobody_who_waits_is_granted_anything_and_others_are() {
    let bench = bench();
    let (bob, next) = (bench.session("bob"), bench.session("bob"));
    let token = bob_holds(&bench, &bob);
    let ann: Vec<Client> = (0..3).map(|_| bench.session("ann")).collect();
    for client in &ann {
        answers(&bench, client, request(1, "a"));
    }
    answers(&bench, &next, request(1, "a"));
    let rules = access(&[ANN_MAY_DO_OTHER, BOB]);
    // As if there were more than a turn may look at.
    bench.turn(|desk, now| desk.change_rules_slowly(rules, now));
    assert_eq!(bench.figures().counts.waiting, 4, "not all of it was looked at");
    bob.submit_alone(vec![release(1, token)]);
    next.submit_alone(vec![request(2, "free")]);
    let told = next.take();
    assert!(matches!(told[..], [ServerMessage::Grant { request: RequestId(2), .. }]), "{told:?}");
    let queued = ann.iter().flat_map(Client::take).collect::<Vec<_>>();
    assert!(!queued.iter().any(|it| matches!(it, ServerMessage::Grant { .. })), "{queued:?}");
    bench.settle();
    let told = next.take();
    assert!(matches!(told[..], [ServerMessage::Grant { request: RequestId(1), .. }]), "{told:?}");
    for client in &ann {
        let told = client.take();
        assert_eq!(code_of(&told), Some(RejectionCode::Forbidden), "{told:?}");
    }
}

#[test]
fn a_crash_or_a_stop_while_what_waits_is_looked_through_grants_nothing_that_is_not_allowed() {
    let bench = bench();
    let bob = bench.session("bob");
    let token = bob_holds(&bench, &bob);
    let (ann, session, secret) = bench.session_of("ann");
    answers(&bench, &ann, request(1, "a"));
    let rules = access(&[ANN_MAY_DO_OTHER, BOB]);
    bench.turn(|desk, now| desk.change_rules_slowly(rules, now));
    bob.submit_alone(vec![release(1, token)]);
    let next = bench.restarted(access(&[ANN_MAY_DO_OTHER, BOB]));
    next.settle();
    assert_eq!(next.figures().counts.held + next.figures().counts.waiting, 0);
    let told = comes_back(&next, (session, secret), "a");
    assert_eq!(code_of(&told), Some(RejectionCode::Forbidden), "{told:?}");
    // Whoever asks no rules goes on.
    let open = bench.restarted(Access::open());
    open.settle();
    assert_eq!(open.figures().counts.held, 1, "it is granted as always");
    bench.turn(Desk::save);
    let saved = bench.take_orders();
    assert!(!saved.is_empty());
}

/// Rule B1.
#[test]
fn a_turn_that_renews_many_badges_leaves_the_rest_to_later_ones() {
    let bench = bench();
    // Twice as many steps as a turn has, if what is renewed counts: renewed, and looked through.
    let many = TURN_STEPS_MAX / 2 + 100;
    let all: Vec<Client> = (0..many).map(|_| bench.observer("bob")).collect();
    bench.settle();
    // With all the steps that a turn has.
    bench.turn(Desk::go_on);
    bench.turn(|desk, now| desk.change_rules(access(&[ANN, BOB]).into(), now));
    assert!(bench.is_changing(), "all of it was done in one turn");
    bench.settle();
    assert!(!bench.is_changing());
    assert_eq!(code(&bench, &all[0], look_at("a")), None, "and they go on");
}

/// Rule B1.
#[test]
fn of_many_who_are_nobody_any_more_a_turn_sends_few_away_and_none_of_them_may_do_anything() {
    let bench = bench();
    let gone: Vec<Client> = (0..1_000).map(|_| bench.session("ann")).collect();
    let (first, last) = (&gone[0], &gone[999]);
    answers(&bench, first, request(1, "a"));
    answers(&bench, last, request(1, "a"));
    bench.turn(Desk::go_on);
    // There still is an ann, by another credential.
    let digest = Digest::of(credential("another").reveal());
    let (_, may) = ANN;
    let rules = format!("[[principal]]\nname = \"ann\"\ncredentials = [\"{digest}\"]\n{may}");
    let rules = parse(&rules).map_err(|all| all[0].to_string()).unwrap().access;
    bench.turn(|desk, now| desk.change_rules(rules.into(), now));
    let count_told = || gone.iter().filter(|client| !client.take().is_empty()).count();
    let told = count_told();
    assert!((1..300).contains(&told), "{told} in a turn");
    last.submit_alone(vec![request(2, "a/free")]);
    assert_eq!(code_of(&last.take()), Some(RejectionCode::Forbidden));
    bench.settle();
    assert_eq!(count_told(), 1_000 - told);
    let counts = bench.figures().counts;
    assert_eq!((counts.held, counts.waiting), (1, 1), "sessions end with their leases");
}
