//! Who may do what, at the desk: each connection is somebody's (rule A3), each handler asks, and each answer
//! is filtered (rule A4).

mod errands;
mod quotas;
mod withdrawn;

use std::fmt::Write as _;
use std::time::Duration;

use crate::access::{Access, Digest, Proof, parse};
use crate::server::desk::testing::{Bench, Client};
use crate::server::desk::{Errand, Unentitled};
use crate::server::testing::{hello, release, request, try_request};
use crate::types::{
    Credential, FencingToken, Generation, GoodbyeCode, OwnerId, RejectionCode, RequestId, Secret,
    SessionId,
};
use crate::wire::{
    self, Attach, ClientMessage, Happening, LockStatus, Mode, Query, RawClaim, ServerMessage,
};

/// The credential of somebody: their name, over and over.
fn credential(name: &str) -> Credential {
    let mut bits = [0; 32];
    bits.iter_mut().zip(name.bytes().cycle()).for_each(|(bit, byte)| *bit = byte);
    Credential::from_random(bits)
}

/// An access file with these principals, each with its rules and whatever else it has.
fn access(principals: &[(&str, &str)]) -> Access {
    let mut text = String::new();
    for (name, rest) in principals {
        if *name == "anyone" {
            writeln!(text, "[anyone]\n{rest}").unwrap();
            continue;
        }
        let digest = Digest::of(credential(name).reveal());
        writeln!(text, "[[principal]]\nname = {name:?}\ncredentials = [\"{digest}\"]\n{rest}")
            .unwrap();
    }
    parse(&text).map_err(|all| all[0].to_string()).unwrap().access
}

const ANN: (&str, &str) = ("ann", "may = [ { do = [\"lock\"], names = [\"a\", \"a/*\"] } ]");
const BOB: (&str, &str) =
    ("bob", "may = [ { do = [\"lock\", \"see\", \"break\"], names = [\"*\"] } ]");
const EVE: (&str, &str) = ("eve", "may = [ { do = [\"share\", \"see\"], names = [\"e\"] } ]");
const OPS: (&str, &str) = ("ops", "may = [ { do = [\"admin\"] } ]");

fn bench() -> Bench {
    Bench::ruled(access(&[ANN, BOB, EVE, OPS]))
}

impl Bench {
    /// A connection of somebody that has not said Hello.
    fn come(&self, name: &str) -> Client {
        let client = self.connect();
        let credential = Some(Digest::of(credential(name).reveal()));
        client.prove(Proof { credential, ..Proof::default() });
        client
    }

    /// A session of somebody, with its Welcome.
    fn session_of(&self, name: &str) -> (Client, SessionId, Secret) {
        let client = self.come(name);
        client.submit(vec![hello(Attach::New)]);
        self.settle();
        match client.take().pop() {
            Some(ServerMessage::Welcome { session, secret, .. }) => (client, session, secret),
            other => panic!("{name} is not welcome: {other:?}"),
        }
    }

    fn session(&self, name: &str) -> Client {
        self.session_of(name).0
    }

    fn observer(&self, name: &str) -> Client {
        let client = self.come(name);
        client.submit(vec![hello(Attach::Observer)]);
        assert!(matches!(client.take()[..], [ServerMessage::Welcome { .. }]), "{name}");
        client
    }

    fn change(&self, access: Access) {
        self.turn(|desk, now| desk.change_rules(access.into(), now));
        self.settle();
    }
}

/// What a client hears when it says this.
fn answers(bench: &Bench, client: &Client, message: ClientMessage) -> Vec<ServerMessage> {
    client.submit(vec![message]);
    bench.settle();
    client.take()
}

/// The code of the only answer to this; none if that is no rejection.
fn code(bench: &Bench, client: &Client, message: ClientMessage) -> Option<RejectionCode> {
    code_of(&answers(bench, client, message))
}

fn code_of(answers: &[ServerMessage]) -> Option<RejectionCode> {
    match answers {
        [ServerMessage::Rejected { code, .. }] => Some(*code),
        _ => None,
    }
}

fn refusal(client: &Client) -> (GoodbyeCode, RejectionCode, String) {
    match client.take().pop() {
        Some(ServerMessage::Goodbye { code, rejection, message }) => (code, rejection, message),
        other => panic!("no Goodbye: {other:?}"),
    }
}

fn claims(id: u64, all: &[(&str, Mode)]) -> ClientMessage {
    let all = all.iter().map(|(name, mode)| RawClaim { name: (*name).into(), mode: *mode });
    ClientMessage::Request(wire::Request::new(RequestId(id), all))
}

fn inspect(query: Query) -> ClientMessage {
    ClientMessage::Inspect { query_id: 9, query }
}

fn look_at(name: &str) -> ClientMessage {
    inspect(Query::Lock { name: name.into() })
}

fn locks(answers: &[ServerMessage]) -> Vec<&LockStatus> {
    match answers {
        [ServerMessage::LockStatus { locks, .. }] => locks.iter().collect(),
        other => panic!("no locks: {other:?}"),
    }
}

#[test]
fn who_proves_nobody_is_refused_and_told_so() {
    let bench = bench();
    for client in [bench.connect(), bench.come("mallory")] {
        client.submit(vec![hello(Attach::New), request(1, "a")]);
        bench.settle();
        let (code, rejection, _) = refusal(&client);
        assert_eq!(code, GoodbyeCode::Refused);
        assert_eq!(rejection, RejectionCode::Unauthenticated);
    }
    assert_eq!(bench.unproven(), 2);
    assert_eq!(bench.figures().counts.sessions, 0);
    let open = Bench::new();
    // Where nobody is asked, whatever is shown is as good as nothing.
    assert!(matches!(open.come("mallory"), client if {
        client.submit(vec![hello(Attach::New)]);
        open.settle();
        matches!(client.take()[..], [ServerMessage::Welcome { .. }])
    }));
}

#[test]
fn a_principal_may_open_only_what_it_has_a_rule_for() {
    let bench = Bench::ruled(access(&[ANN, OPS, ("idle", "")]));
    for (name, attach, may) in [
        ("ann", Attach::New, true),
        ("ann", Attach::Observer, true),
        ("ops", Attach::New, false),
        ("ops", Attach::Observer, true),
        ("idle", Attach::New, false),
        ("idle", Attach::Observer, false),
    ] {
        let client = bench.come(name);
        client.submit(vec![hello(attach.clone())]);
        bench.settle();
        if may {
            assert!(matches!(client.take()[..], [ServerMessage::Welcome { .. }]), "{name}");
        } else {
            let (_, rejection, message) = refusal(&client);
            assert_eq!(rejection, RejectionCode::Forbidden, "{name} {attach:?}: {message}");
        }
    }
}

#[test]
fn a_request_is_denied_if_one_of_its_claims_is_and_leaves_no_trace() {
    let bench = bench();
    let (ann, eve) = (bench.session("ann"), bench.session("eve"));
    let forbidden = Some(RejectionCode::Forbidden);
    let of = |take, of| Mode::Permits { take, of };
    let (alone, shared) = (Mode::Exclusive, Mode::Shared);
    assert_eq!(code(&bench, &ann, claims(1, &[("b", alone)])), forbidden);
    assert_eq!(code(&bench, &ann, claims(1, &[("a", alone), ("b", shared)])), forbidden);
    assert_eq!(code(&bench, &ann, claims(1, &[("a/b", shared), ("aa", of(1, 2))])), forbidden);
    assert_eq!(code(&bench, &eve, claims(1, &[("e", alone)])), forbidden);
    assert_eq!(code(&bench, &eve, claims(1, &[("e", of(1, 1))])), forbidden);
    assert_eq!(bench.figures().counts.locks, 0);
    // The same id may be asked again.
    let granted = answers(&bench, &ann, claims(1, &[("a", alone), ("a/b", of(1, 2))]));
    assert!(matches!(granted[..], [ServerMessage::Grant { .. }]), "{granted:?}");
    let granted = answers(&bench, &eve, claims(1, &[("e", shared)]));
    assert!(matches!(granted[..], [ServerMessage::Grant { .. }]), "{granted:?}");
    // What is asked for once more, and what is next.
    assert_eq!(code(&bench, &ann, claims(2, &[("a/c", alone)])), None);
    assert_eq!(code(&bench, &ann, claims(3, &[("a/c", alone), ("c", alone)])), forbidden);
    let denials = bench.denials();
    assert_eq!(denials[0], ("lock", 5), "{denials:?}");
}

#[test]
fn a_mistake_is_told_as_one_where_there_are_rules_too() {
    let bench = bench();
    let ann = bench.session("ann");
    let none = claims(1, &[("", Mode::Exclusive)]);
    assert_eq!(code(&bench, &ann, none), Some(RejectionCode::InvalidLockName));
    assert_eq!(code(&bench, &ann, look_at("")), Some(RejectionCode::InvalidLockName));
}

#[test]
fn to_see_and_to_break_takes_a_rule_for_each() {
    let sam = ("sam", "may = [ { do = [\"see\"], names = [\"a\"] } ]");
    let max = ("max", "may = [ { do = [\"break\"], names = [\"a\"] } ]");
    let bench = Bench::ruled(access(&[ANN, BOB, EVE, OPS, sam, max]));
    let (ann, bob) = (bench.session("ann"), bench.session("bob"));
    let token = match &answers(&bench, &ann, request(1, "a"))[..] {
        [ServerMessage::Grant { token, .. }] => *token,
        other => panic!("{other:?}"),
    };
    let revoke = |token| ClientMessage::Revoke { query_id: 9, name: "a".into(), token };
    let forbidden = Some(RejectionCode::Forbidden);
    let (sam, max) = (bench.observer("sam"), bench.observer("max"));
    assert_eq!(code(&bench, &sam, revoke(FencingToken(99))), forbidden);
    assert_eq!(code(&bench, &max, look_at("a")), forbidden);
    let none = code(&bench, &max, revoke(FencingToken(99)));
    assert_eq!(none, Some(RejectionCode::NoSuchGrant));
    for message in [
        look_at("a"),
        inspect(Query::Outlook { name: "a".into() }),
        ClientMessage::Watch { query_id: 9, name: "a".into() },
        ClientMessage::Subscribe { query_id: 9, name: Some("a".into()) },
        revoke(FencingToken(99)),
        revoke(token),
    ] {
        for client in [&ann, &bench.observer("ann"), &bench.observer("eve"), &bench.observer("ops")]
        {
            let answers = answers(&bench, client, message.clone());
            assert_eq!(code_of(&answers), forbidden, "{message:?}: {answers:?}");
        }
        let answer = code(&bench, &bob, message.clone());
        assert_ne!(answer, forbidden, "{message:?}");
    }
    assert_eq!(bench.figures().told.revocations, 1);
}

#[test]
fn whoever_asks_is_told_what_they_may_do_with_a_lock_and_denied_nothing() {
    let bench = bench();
    let rights = |name: &str, lock: &str| {
        let query = Query::Rights { name: lock.into() };
        match &answers(&bench, &bench.observer(name), inspect(query))[..] {
            [ServerMessage::Rights { query_id: 9, verbs }] => verbs.join(" "),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(rights("ann", "a/b"), "lock share");
    assert_eq!(rights("ann", "b"), "");
    assert_eq!(rights("bob", "b"), "lock share see break");
    assert_eq!(rights("eve", "e"), "share see");
    assert_eq!(rights("ops", "e"), "", "to administer is about no lock");
    assert!(bench.denials().iter().all(|(_, count)| *count == 0));
    let bench = Bench::new();
    let query = Query::Rights { name: "a".into() };
    let observer = bench.connect();
    observer.submit(vec![hello(Attach::Observer), inspect(query)]);
    let verbs = ["lock", "share", "see", "break"].map(str::to_owned).to_vec();
    assert_eq!(observer.take()[1], ServerMessage::Rights { query_id: 9, verbs });
}

#[test]
fn pages_have_what_may_be_seen_and_nothing_else() {
    let bench = bench();
    let (ann, bob, eve) = (bench.session("ann"), bench.session("bob"), bench.session("eve"));
    answers(&bench, &ann, request(1, "a"));
    answers(&bench, &bob, request(1, "b"));
    answers(&bench, &bob, claims(2, &[("e", Mode::Shared)]));
    answers(&bench, &bob, request(3, "a"));
    let names = |client: &Client, query: Query| {
        let answers = answers(&bench, client, inspect(query));
        let mut names: Vec<String> =
            locks(&answers).iter().map(|lock| lock.name.to_string()).collect();
        names.sort();
        names
    };
    let all = || Query::Locks { cursor: 0 };
    assert_eq!(names(&bob, all()), ["a", "b", "e"]);
    assert_eq!(names(&eve, all()), ["e"]);
    assert_eq!(names(&ann, all()), [""; 0]);
    assert_eq!(names(&bob, Query::Contended { cursor: 0 }), ["a"]);
    assert_eq!(names(&eve, Query::Contended { cursor: 0 }), [""; 0]);
    let sessions = |client: &Client| match &answers(
        &bench,
        client,
        inspect(Query::Sessions { cursor: 0 }),
    )[..]
    {
        [ServerMessage::SessionStatus { sessions, .. }] => {
            let who = |text: &str| text.split(' ').next().unwrap().to_owned();
            sessions.iter().map(|it| who(it.identity.as_str())).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(sessions(&ann), ["ann"]);
    assert_eq!(sessions(&bench.observer("ops")), ["ann", "bob", "eve"]);
}

#[test]
fn who_is_in_the_way_is_told_to_those_who_may_see_it() {
    let bench = bench();
    let (ann, bob) = (bench.session("ann"), bench.session("bob"));
    answers(&bench, &bob, request(1, "a"));
    match &answers(&bench, &ann, try_request(1, "a"))[..] {
        [ServerMessage::Rejected { code: RejectionCode::Busy, message, lock: None, .. }] => {
            assert!(!message.contains("bob"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    let other_bob = bench.session("bob");
    match &answers(&bench, &other_bob, try_request(1, "a"))[..] {
        [ServerMessage::Rejected { lock: Some(lock), .. }] => {
            assert!(lock.holders[0].identity.as_str().starts_with("bob "));
        }
        other => panic!("{other:?}"),
    }
    // How it is used is not told either.
    let permits = claims(2, &[("a/p", Mode::Permits { take: 1, of: 7 })]);
    answers(&bench, &bob, permits);
    let other = claims(2, &[("a/p", Mode::Permits { take: 1, of: 3 })]);
    let ClientMessage::Request(mut other) = other else { panic!("no request") };
    other.wait = wire::Wait::Never;
    match &answers(&bench, &ann, ClientMessage::Request(other))[..] {
        [ServerMessage::Rejected { message, .. }] => assert!(!message.contains('7'), "{message}"),
        other => panic!("{other:?}"),
    }
}

fn owned(id: u64, name: &str, owner: u64) -> ClientMessage {
    let ClientMessage::Request(asked) = request(id, name) else { panic!("no request") };
    ClientMessage::Request(wire::Request { owner: OwnerId(owner), ..asked })
}

#[test]
fn of_a_deadlock_everybody_hears_what_it_may_see_and_how_long_it_is() {
    let bench = Bench::ruled(access(&[
        ("ann", "may = [ { do = [\"lock\"], names = [\"a\", \"b\"] } ]"),
        ("bob", "may = [ { do = [\"lock\", \"see\"], names = [\"*\"] } ]"),
    ]));
    let (ann, bob) = (bench.session("ann"), bench.session("bob"));
    answers(&bench, &ann, owned(1, "a", 1));
    answers(&bench, &bob, owned(1, "secret", 1));
    answers(&bench, &bob, owned(2, "b", 1));
    answers(&bench, &bob, owned(3, "a", 1));
    match &answers(&bench, &ann, owned(2, "b", 1))[..] {
        [ServerMessage::Rejected { code: RejectionCode::Deadlock, message, cycle, .. }] => {
            let told = format!("{message} {cycle:?}");
            assert_eq!(cycle.links.len(), 2);
            assert!(!told.contains("bob") && !told.contains("secret"), "{told}");
            assert_eq!(cycle.links[1].session, SessionId(0));
            assert_eq!(cycle.links[0].held_with, None);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn events_are_told_to_those_who_may_see_all_that_they_are_about() {
    let bench = bench();
    let (ann, bob) = (bench.session("ann"), bench.session("bob"));
    let (eve, all) = (bench.observer("eve"), bench.observer("bob"));
    for client in [&eve, &all, &ann] {
        let answer = answers(&bench, client, ClientMessage::Subscribe { query_id: 9, name: None });
        assert!(matches!(answer[..], [ServerMessage::Subscribed { .. }]), "{answer:?}");
    }
    let named = bench.observer("eve");
    answers(&bench, &named, ClientMessage::Subscribe { query_id: 9, name: Some("e".into()) });
    let shared = |name| (name, Mode::Shared);
    answers(&bench, &bob, claims(1, &[shared("b")]));
    answers(&bench, &bob, claims(2, &[shared("e"), shared("b")]));
    answers(&bench, &bob, claims(3, &[shared("e")]));
    let heard = |client: &Client| {
        let deliveries = client.take_deliveries();
        let messages = deliveries.into_iter().flat_map(crate::server::desk::turn::Deliver::whole);
        let about = messages.filter_map(|message| match message {
            ServerMessage::Event { request, .. } => Some(request.number()),
            _ => None,
        });
        let mut about: Vec<u64> = about.collect();
        about.dedup();
        about
    };
    assert_eq!(heard(&all), [1, 2, 3]);
    assert_eq!(heard(&eve), [3]);
    assert_eq!(heard(&named), [3]);
    assert_eq!(heard(&ann), [0; 0]);
}

#[test]
fn an_event_does_not_tell_of_the_others_in_a_deadlock() {
    let bench = Bench::ruled(access(&[
        ("bob", "may = [ { do = [\"lock\"], names = [\"*\"] } ]"),
        ("eve", "may = [ { do = [\"see\"], names = [\"b\"] } ]"),
    ]));
    let (one, two) = (bench.session("bob"), bench.session("bob"));
    let eve = bench.observer("eve");
    answers(&bench, &eve, ClientMessage::Subscribe { query_id: 9, name: None });
    answers(&bench, &one, owned(1, "secret", 1));
    answers(&bench, &two, owned(1, "b", 1));
    answers(&bench, &two, owned(2, "secret", 1));
    answers(&bench, &one, owned(2, "b", 1));
    let deliveries = eve.take_deliveries();
    let messages = deliveries.into_iter().flat_map(crate::server::desk::turn::Deliver::whole);
    let told: Vec<ServerMessage> = messages.collect();
    let is_deadlock = |message: &&ServerMessage| {
        matches!(message, ServerMessage::Event { what: Happening::Rejected { .. }, .. })
    };
    assert!(told.iter().any(|message| is_deadlock(&message)), "{told:?}");
    assert!(!format!("{told:?}").contains("secret"), "{told:?}");
}

#[test]
fn a_session_is_its_principals_and_for_others_it_does_not_exist() {
    let bench = bench();
    let (ann, session, secret) = bench.session_of("ann");
    ann.disconnect();
    let resume = |secret, generation| {
        let generation = Generation(generation);
        hello(Attach::Resume { session, secret, generation })
    };
    let unknown = |name: &str, hello| {
        let client = bench.come(name);
        client.submit(vec![hello]);
        bench.settle();
        refusal(&client)
    };
    let with_a_wrong_secret = unknown("ann", resume(Secret::new(1), 2));
    assert_eq!(with_a_wrong_secret.1, RejectionCode::UnknownSession);
    for name in ["bob", "ops"] {
        assert_eq!(unknown(name, resume(secret, 2)), with_a_wrong_secret, "{name}");
    }
    let back = bench.come("ann");
    back.submit(vec![resume(secret, 2)]);
    bench.settle();
    assert!(matches!(back.take()[..], [ServerMessage::Welcome { .. }]));
}

#[test]
fn other_rules_hold_at_once_and_take_nothing_away_that_is_held() {
    let bench = bench();
    let (ann, bob) = (bench.session("ann"), bench.session("bob"));
    answers(&bench, &bob, request(1, "a"));
    answers(&bench, &ann, request(1, "a/held"));
    answers(&bench, &ann, request(2, "a"));
    answers(&bench, &bob, ClientMessage::Watch { query_id: 9, name: "b".into() });
    let changed = [
        ("ann", "may = [ { do = [\"lock\"], names = [\"other\"] } ]"),
        ("bob", "may = [ { do = [\"lock\"], names = [\"*\"] } ]"),
    ];
    bench.change(access(&changed));
    match &ann.take()[..] {
        [
            ServerMessage::Rejected {
                request: RequestId(2), code: RejectionCode::Forbidden, ..
            },
        ] => {}
        other => panic!("what waits is not withdrawn: {other:?}"),
    }
    match &bob.take()[..] {
        [
            ServerMessage::Rejected {
                request: RequestId(9), code: RejectionCode::Forbidden, ..
            },
        ] => {}
        other => panic!("what is watched is not ended: {other:?}"),
    }
    let forbidden = Some(RejectionCode::Forbidden);
    assert_eq!(code(&bench, &ann, request(3, "a/held")), forbidden);
    assert_eq!(code(&bench, &ann, request(4, "other")), None);
    // Who asks again for what it holds, over another connection, is told that it does.
    let again = answers(&bench, &ann, request(1, "a/held"));
    let [ServerMessage::Grant { token, .. }] = again[..] else { panic!("{again:?}") };
    let released = answers(&bench, &ann, release(1, token.number()));
    assert!(matches!(released[..], [ServerMessage::Released { .. }]), "{released:?}");
}

#[test]
fn who_is_nobody_by_other_rules_is_told_goodbye_and_its_locks_last_as_long_as_its_lease() {
    let bench = bench();
    let (ann, bob) = (bench.session("ann"), bench.session("bob"));
    let eve = bench.observer("eve");
    answers(&bench, &ann, request(1, "a"));
    bench.change(access(&[BOB]));
    for client in [&ann, &eve] {
        assert_eq!(refusal(client).1, RejectionCode::Unauthenticated);
    }
    assert!(bob.take().is_empty(), "who is still there is not touched");
    assert_eq!(locks(&answers(&bench, &bob, look_at("a"))).len(), 1);
    bench.pass(Duration::from_secs(11));
    answers(&bench, &bob, ClientMessage::KeepAlive { sequence: 1 });
    let (bob, ..) = bench.session_of("bob");
    assert_eq!(locks(&answers(&bench, &bob, look_at("a"))).len(), 0);
}

#[test]
fn rules_are_neither_introduced_nor_dropped_while_it_runs() {
    let open = Bench::new();
    let client = open.open();
    open.change(access(&[ANN]));
    assert_eq!(code(&open, &client, request(1, "x")), None);
    let ruled = bench();
    ruled.change(Access::open());
    let client = ruled.connect();
    client.submit(vec![hello(Attach::New)]);
    ruled.settle();
    assert_eq!(refusal(&client).1, RejectionCode::Unauthenticated);
}

#[test]
fn a_grant_of_several_locks_is_broken_by_who_may_break_all_of_them() {
    let bench = Bench::ruled(access(&[
        ("bob", "may = [ { do = [\"lock\", \"see\"], names = [\"*\"] } ]"),
        ("one", "may = [ { do = [\"break\"], names = [\"a/*\"] } ]"),
        ("all", "may = [ { do = [\"break\"], names = [\"a/*\", \"b/*\"] } ]"),
    ]));
    let bob = bench.session("bob");
    let both = claims(1, &[("a/x", Mode::Exclusive), ("b/y", Mode::Exclusive)]);
    let [ServerMessage::Grant { token, .. }] = answers(&bench, &bob, both)[..] else {
        panic!("no grant")
    };
    let name = "a/x".to_owned();
    let revoke = ClientMessage::Revoke { query_id: 9, name: name.clone(), token };
    let reason = "stuck".to_owned();
    let revoke_for = ClientMessage::RevokeFor { query_id: 9, name, token, reason };
    let (one, all) = (bench.observer("one"), bench.observer("all"));
    for message in [&revoke, &revoke_for] {
        match &answers(&bench, &one, message.clone())[..] {
            [ServerMessage::Rejected { code: RejectionCode::Forbidden, message, .. }] => {
                assert!(message.contains("a/x") && !message.contains("b/y"), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bench.figures().counts.held, 1);
    let done = answers(&bench, &all, revoke);
    assert!(matches!(done[..], [ServerMessage::Revoked { .. }]), "{done:?}");
}

#[test]
fn a_principal_stands_before_what_a_client_calls_itself() {
    let bench = bench();
    let ann = bench.come("ann");
    let identity = format!("ops {}", "i".repeat(124));
    let hello = wire::Hello { identity, ..wire::Hello::new(Attach::New, "") };
    ann.submit(vec![ClientMessage::Hello(hello)]);
    bench.settle();
    ann.take();
    answers(&bench, &ann, request(1, "a"));
    let bob = bench.session("bob");
    let seen = answers(&bench, &bob, look_at("a"));
    let identity = locks(&seen)[0].holders[0].identity.as_str();
    assert_eq!((identity.len(), &identity[..8]), (128, "ann ops "));
}
