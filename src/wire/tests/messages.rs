//! One of everything: the messages of the golden file, a name for each.

use std::fmt::Debug;
use std::time::Duration;

use smallvec::smallvec;

use super::super::message::*;
use crate::types::{
    Claim, Epoch, FencingToken, Generation, GoodbyeCode, Identity, LockName, LostReason, OwnerId,
    RejectionCode, RequestId, Seal, Secret, SessionId, ShownCredential,
};

/// How many messages a client has.
pub(super) const CLIENT_MESSAGES: u32 = 17;
/// How many messages a server has.
pub(super) const SERVER_MESSAGES: u32 = 21;

/// A session's id: its bytes count up.
pub(super) const SESSION: SessionId = SessionId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);
/// A session's secret: its bytes go on counting.
pub(super) const SECRET: Secret = Secret::new(0x1f1e_1d1c_1b1a_1918_1716_1514_1312_1110);
/// The seal of a grant: so do these.
pub(super) const SEAL: Seal = Seal::new(0x2f2e_2d2c_2b2a_2928_2726_2524_2322_2120);

/// What proves who a client is.
const CREDENTIAL: &str = "coord_00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// The ticket that a request shows.
const TICKET_SHOWN: SealedTicket = SealedTicket::from_halves(0x4142_4344_4546_4748, 0x5152);
/// The ticket that a waiter is told.
const TICKET_TOLD: SealedTicket = SealedTicket::from_halves(18, 4);

/// What a message says, as a Rust value: without the name of the struct in a variant of the same
/// name, which is not on the wire. Types of numbers are left out, codes are their numbers, and lengths
/// are in milliseconds: so are their bytes. Proofs hide themselves; here, where each is known, they
/// are told.
pub(super) fn said(message: &impl Debug) -> String {
    let ticket = |ticket: SealedTicket| {
        let (epoch, arrival) = ticket.halves();
        format!("Ticket {{ epoch: {epoch}, arrival: {arrival} }}")
    };
    let text = bare_codes(bare_numbers(format!("{message:?}")))
        .replace("secret: Secret(…), generation: 2 }", "secret: …, generation: 2 }")
        .replace("AtMost(2387509390608836.392s)", "Timeout { ms: 2387509390608836392 }")
        .replace("AtMost(5s)", "Timeout { ms: 5000 }")
        .replace("grace: 9.25s", "grace_ms: 9250")
        .replace("held_with: Some(1881)", "held_with: 1881")
        .replace("held_with: None", "held_with: 0")
        .replace("Secret(…)", &SECRET.reveal().to_string())
        .replace("ShownCredential(…)", &format!("{CREDENTIAL:?}"))
        .replace("Seal(…)", &SEAL.reveal().to_string())
        .replace("Some(SealedTicket(…))", &format!("Some({})", ticket(TICKET_SHOWN)))
        .replace("SealedTicket(…)", &ticket(TICKET_TOLD));
    let inner = text.split_once('(').filter(|(variant, inner)| {
        inner.strip_prefix(*variant).is_some_and(|fields| fields.starts_with(" {"))
    });
    inner.and_then(|(_, inner)| inner.strip_suffix(')')).map_or(text.clone(), str::to_owned)
}

/// Numbers without the names of their types, and sessions as numbers; but in `Resume` as they are.
fn bare_numbers(mut text: String) -> String {
    for name in ["RequestId", "OwnerId", "FencingToken", "Epoch", "Generation"] {
        let opening = format!("{name}(");
        while let Some((before, rest)) = text.split_once(&opening) {
            let (number, after) = rest.split_once(')').unwrap();
            text = format!("{before}{number}{after}");
        }
    }
    for session in [SESSION, SessionId(0x2a), SessionId(0x2b)] {
        let (shown, number) = (format!("session: {session}"), format!("session: {}", session.0));
        let in_resume = format!("Resume {{ {shown}");
        text = text.replace(&in_resume, "(resumed)").replace(&shown, &number);
        text = text.replace("(resumed)", &in_resume);
    }
    text
}

/// Codes as their numbers.
fn bare_codes(text: String) -> String {
    let of = |field: &str, name: &str, number: u16| {
        [",", " }"].map(|end| (format!("{field}: {name}{end}"), format!("{field}: {number}{end}")))
    };
    let reasons = LostReason::ALL.iter().flat_map(|it| of("reason", it.name(), it.number()));
    let none = of("rejection", "Unknown(0)", 0).into_iter();
    let rejections = RejectionCode::ALL.iter();
    let rejections = rejections.flat_map(|it| of("rejection", it.name(), it.number()));
    let goodbyes = GoodbyeCode::ALL.iter().flat_map(|it| of("code", it.name(), it.number()));
    let codes = RejectionCode::ALL.iter().flat_map(|it| of("code", it.name(), it.number()));
    let own: Vec<_> =
        if text.starts_with("Goodbye") { goodbyes.collect() } else { codes.collect() };
    let all = reasons.chain(none).chain(rejections).chain(own);
    all.fold(text, |text, (name, number)| text.replace(&name, &number))
}

/// Every variant of [`ClientMessage`], and of the enums within.
pub(super) fn client() -> Vec<(&'static str, ClientMessage)> {
    vec![
        ("Hello, New, all defaults", hello(Attach::New, 0, None, "")),
        (
            "Hello, Resume",
            hello(
                Attach::Resume { session: SESSION, secret: SECRET, generation: Generation(2) },
                10_000,
                Some(5_000),
                "ann@build7:8123",
            ),
        ),
        ("Hello, Observer", hello(Attach::Observer, 0, Some(0), "ann@build7:8123")),
        ("Request, exclusive, for ever", request(Wait::Forever, vec![Mode::Exclusive])),
        (
            "Request, all modes, with a timeout",
            ClientMessage::Request(Request {
                request: RequestId(0x0102_0304_0506_0708),
                owner: OwnerId(0x1112_1314_1516_1718),
                converts: Some(RequestId(0x6162_6364_6566_6768)),
                wait: Wait::millis(0x2122_2324_2526_2728),
                progress: true,
                lock_delay_ms: 0x3132_3334,
                note: "grüße".into(),
                ticket: Some(TICKET_SHOWN),
                claims: smallvec![
                    claim("a", Mode::Exclusive),
                    claim("bc", Mode::Shared),
                    claim("def", Mode::Permits { take: 2, of: 5 }),
                ],
            }),
        ),
        ("Request, no claims, not waiting", request(Wait::Never, vec![])),
        ("Release", ClientMessage::Release { request: RequestId(1), token: FencingToken(1881) }),
        ("Cancel", ClientMessage::Cancel { request: RequestId(7) }),
        ("KeepAlive", ClientMessage::KeepAlive { sequence: 3 }),
        ("Goodbye", ClientMessage::Goodbye),
        ("Inspect, Server", inspect(Query::Server)),
        ("Inspect, Locks", inspect(Query::Locks { cursor: 0x0102_0304_0506_0708 })),
        ("Inspect, Lock", inspect(Query::Lock { name: "printer".into() })),
        ("Inspect, Sessions", inspect(Query::Sessions { cursor: 0 })),
        ("Inspect, Outlook", inspect(Query::Outlook { name: "printer".into() })),
        ("Inspect, Outlooks", inspect(Query::Outlooks { cursor: 7 })),
        ("Inspect, Journal", inspect(Query::Journal)),
        ("Inspect, Contended", inspect(Query::Contended { cursor: 7 })),
        (
            "Revoke",
            ClientMessage::Revoke {
                query_id: 9,
                name: "printer".into(),
                token: FencingToken(1881),
            },
        ),
        (
            "Reclaim",
            ClientMessage::Reclaim(Reclaim {
                owner: OwnerId(0x1112_1314_1516_1718),
                lock_delay_ms: 5_000,
                note: "deploy v2.3".into(),
                ..Reclaim::new(
                    RequestId(1),
                    FencingToken(1881),
                    SEAL,
                    [
                        claim("printer", Mode::Exclusive),
                        claim("gpu", Mode::Permits { take: 1, of: 4 }),
                    ],
                )
            }),
        ),
        (
            "Account",
            ClientMessage::Account(Account {
                from: RequestId(1),
                to: RequestId(0x0102_0304_0506_0708),
                held: vec![
                    Held { request: RequestId(1), token: FencingToken(1881) },
                    Held { request: RequestId(4), token: FencingToken(1883) },
                ],
                waiting: vec![RequestId(2), RequestId(3)],
            }),
        ),
        (
            "Account, of nothing",
            ClientMessage::Account(Account {
                from: RequestId(0),
                to: RequestId::new(u64::MAX),
                held: vec![],
                waiting: vec![],
            }),
        ),
        ("Watch", ClientMessage::Watch { query_id: 9, name: "printer".into() }),
        ("Subscribe, to everything", ClientMessage::Subscribe { query_id: 9, name: None }),
        (
            "Subscribe, to one lock",
            ClientMessage::Subscribe { query_id: 9, name: Some("printer".into()) },
        ),
    ]
    .into_iter()
    .chain(with_more())
    .collect()
}

/// Those with more to say.
fn with_more() -> Vec<(&'static str, ClientMessage)> {
    vec![
        ("Inspect, Cluster", inspect(Query::Cluster)),
        ("Inspect, Waited", inspect(Query::Waited)),
        ("Inspect, Rights", inspect(Query::Rights { name: "printer".into() })),
        ("RequestWith, to keep it", with_extras(request(Wait::Never, vec![Mode::Exclusive]))),
        ("RequestWith, newest first", superseding(request(Wait::Forever, vec![Mode::Exclusive]))),
        (
            "ReclaimWith, to keep it",
            with_extras(ClientMessage::Reclaim(Reclaim {
                note: "nightly".into(),
                ..Reclaim::new(
                    RequestId(1),
                    FencingToken(1881),
                    SEAL,
                    [claim("printer", Mode::Exclusive)],
                )
            })),
        ),
        ("Unwatch", ClientMessage::Unwatch { name: "printer".into() }),
        (
            "Authenticate",
            ClientMessage::Authenticate { credential: ShownCredential::new(CREDENTIAL) },
        ),
        (
            "RevokeFor",
            ClientMessage::RevokeFor {
                query_id: 9,
                name: "printer".into(),
                token: FencingToken(1881),
                reason: "its holder hangs".into(),
            },
        ),
    ]
}

/// Every variant of [`ServerMessage`], and of the enums within.
pub(super) fn server() -> Vec<(&'static str, ServerMessage)> {
    vec![
        ("Welcome, Opened", welcome(1, Standing::Opened)),
        ("Welcome, Resumed", welcome(2, Standing::Resumed)),
        (
            "Welcome, Reopened",
            welcome(3, Standing::Reopened { grace: Duration::from_millis(9_250) }),
        ),
        (
            "Grant",
            ServerMessage::Grant { request: RequestId(1), token: FencingToken(1881), seal: SEAL },
        ),
        (
            "Queued",
            ServerMessage::Queued { request: RequestId(2), position: 3, ticket: TICKET_TOLD },
        ),
        ("Released", ServerMessage::Released { request: RequestId(1) }),
        ("Cancelled", ServerMessage::Cancelled { request: RequestId(7) }),
        (
            "Lost",
            ServerMessage::Lost {
                request: RequestId(1),
                token: FencingToken(1881),
                reason: LostReason::Revoked,
            },
        ),
        (
            "Rejected, without a lock",
            ServerMessage::Rejected {
                request: RequestId(4),
                code: RejectionCode::NotHolder,
                message: "not the holder".into(),
                lock: None,
                cycle: Cycle::default(),
            },
        ),
        (
            "Rejected, with a lock",
            ServerMessage::Rejected {
                request: RequestId(4),
                code: RejectionCode::Busy,
                message: "busy".into(),
                lock: Some(Box::new(lock())),
                cycle: Cycle::default(),
            },
        ),
        (
            "Rejected, with a cycle",
            ServerMessage::Rejected {
                request: RequestId(4),
                code: RejectionCode::Deadlock,
                message: "this would wait for ever".into(),
                lock: None,
                cycle: cycle(),
            },
        ),
        ("KeptAlive", ServerMessage::KeptAlive { sequence: 3 }),
        (
            "Goodbye",
            ServerMessage::Goodbye {
                code: GoodbyeCode::Refused,
                rejection: RejectionCode::UnknownSession,
                message: "no such session".into(),
            },
        ),
        (
            "Goodbye, of one that does not lead",
            ServerMessage::Goodbye {
                code: GoodbyeCode::NotLeader,
                rejection: RejectionCode::NONE,
                message: "b.internal:5625".into(),
            },
        ),
    ]
    .into_iter()
    .chain(looks())
    .chain(later_looks())
    .collect()
}

/// What those hear who look on.
fn looks() -> Vec<(&'static str, ServerMessage)> {
    vec![
        (
            "ServerStatus",
            ServerMessage::ServerStatus {
                query_id: 9,
                status: Box::new(ServerStatus {
                    version: "0.1.0".into(),
                    epoch: Epoch(1),
                    uptime_ms: 2,
                    draining: true,
                    connections: 3,
                    sessions: 4,
                    locks: 5,
                    held: 6,
                    waiting: 7,
                    grants: 8,
                    expired: 9,
                    protocol_errors: 10,
                    slow_readers: 11,
                    handshake_timeouts: 12,
                    connections_refused: 13,
                    last_token: FencingToken(14),
                    grace_ms: 15,
                    unsaved_ms: 16,
                }),
            },
        ),
        (
            "LockStatus, with a next page",
            ServerMessage::LockStatus { query_id: 9, locks: vec![lock()], next: Some(1) },
        ),
        (
            "LockStatus, nothing",
            ServerMessage::LockStatus { query_id: 9, locks: vec![], next: None },
        ),
        (
            "SessionStatus",
            ServerMessage::SessionStatus {
                query_id: 9,
                sessions: vec![SessionStatus {
                    session: SessionId(0x2a),
                    identity: "ann@build7:8123".parse().unwrap(),
                    peer: "10.0.0.7:40000".into(),
                    connected: true,
                    age_ms: 1,
                    ttl_ms: 2,
                    lease_left_ms: 3,
                    held: 4,
                    waiting: 5,
                }],
                next: None,
            },
        ),
        ("Revoked", ServerMessage::Revoked { query_id: 9 }),
        ("Subscribed", ServerMessage::Subscribed { query_id: 9 }),
        ("Event, Requested", event(Happening::Requested)),
        ("Event, Queued", event(Happening::Queued { position: 3 })),
        ("Event, Granted", event(Happening::Granted { token: FencingToken(1881) })),
        ("Event, Released", event(Happening::Released { token: FencingToken(1881) })),
        ("Event, Cancelled", event(Happening::Cancelled)),
        (
            "Event, Lost",
            event(Happening::Lost { token: FencingToken(1881), reason: LostReason::Expired }),
        ),
        (
            "Event, Rejected",
            event(Happening::Rejected {
                code: RejectionCode::Busy,
                message: "\"printer\" is busy".into(),
            }),
        ),
        ("Missed", ServerMessage::Missed { count: 0x0102_0304_0506_0708 }),
        ("Outlook", ServerMessage::Outlook { query_id: 9, locks: vec![outlook()], next: Some(1) }),
        ("JournalStatus, New", journal(JournalDistance::Off, JournalStart::New)),
        ("JournalStatus, Saved", journal(JournalDistance::Machine, JournalStart::Saved)),
        (
            "JournalStatus, Replayed",
            journal(
                JournalDistance::Process,
                JournalStart::Replayed { events: 48_211, took_us: 9_000 },
            ),
        ),
        (
            "JournalStatus, Lost",
            journal(
                JournalDistance::Process,
                JournalStart::Lost { why: "the machine was restarted".into(), grace_ms: 10_250 },
            ),
        ),
        ("ClusterStatus, none", ServerMessage::ClusterStatus { query_id: 9, status: None }),
        (
            "ClusterStatus",
            ServerMessage::ClusterStatus { query_id: 9, status: Some(Box::new(cluster())) },
        ),
    ]
}

/// What is counted of waits, and what somebody may do.
fn later_looks() -> Vec<(&'static str, ServerMessage)> {
    vec![
        (
            "WaitedStatus",
            ServerMessage::WaitedStatus {
                query_id: 9,
                status: Box::new(WaitedStatus {
                    epoch: Epoch(18),
                    bounds_us: vec![50, 1_000_000],
                    counts: vec![0x0102_0304_0506, 7, 1],
                }),
            },
        ),
        ("Rights", ServerMessage::Rights { query_id: 9, verbs: vec!["lock".into(), "see".into()] }),
    ]
}

fn cluster() -> ClusterStatus {
    ClusterStatus {
        cluster: "prod".into(),
        leader: "a".into(),
        term: 7,
        led_ms: 0x0102_0304,
        behind: Some(3),
        standby: "b".into(),
    }
}

fn journal(distance: JournalDistance, start: JournalStart) -> ServerMessage {
    let status = JournalStatus { distance, bytes: 0x0102_0304_0506, off_ms: 7, start };
    ServerMessage::JournalStatus { query_id: 9, status: Box::new(status) }
}

/// The cycle of a deadlock: two who hold what the other wants.
fn cycle() -> Cycle {
    let links = vec![
        CycleLink {
            session: SessionId(0x2a),
            identity: Identity::new("ann@build7:8123").unwrap(),
            owner: OwnerId(5),
            request: RequestId(4),
            lock: LockName::new("printer").unwrap(),
            held_with: Some(FencingToken(1881)),
        },
        CycleLink {
            session: SessionId(0x2b),
            identity: Identity::new("bob@build8:99").unwrap(),
            owner: OwnerId(0),
            request: RequestId(2),
            lock: LockName::new("scanner").unwrap(),
            held_with: None,
        },
    ];
    Cycle { links, is_cut: false }
}

fn event(what: Happening) -> ServerMessage {
    ServerMessage::Event {
        at_ms: 0x0000_0199_1213_1415,
        session: SESSION,
        identity: "ann@build7:8123".parse().unwrap(),
        request: RequestId(4),
        claims: vec![known_claim("printer", Mode::Exclusive), known_claim("scanner", Mode::Shared)],
        what,
    }
}

fn hello(attach: Attach, ttl_ms: u32, linger_ms: Option<u32>, identity: &str) -> ClientMessage {
    ClientMessage::Hello(Hello {
        protocol: PROTOCOL,
        attach,
        ttl_ms,
        linger_ms,
        identity: identity.into(),
        epoch_seen: Epoch(18),
        token_seen: FencingToken(1881),
    })
}

fn welcome(generation: u64, standing: Standing) -> ServerMessage {
    ServerMessage::Welcome {
        protocol: PROTOCOL,
        server: "coordinator 0.1.0".into(),
        epoch: Epoch(18),
        session: SESSION,
        secret: SECRET,
        generation: Generation::new(generation),
        ttl_ms: 10_000,
        standing,
    }
}

fn request(wait: Wait, modes: Vec<Mode>) -> ClientMessage {
    ClientMessage::Request(Request {
        wait,
        ..Request::new(RequestId(1), modes.into_iter().map(|mode| claim("printer", mode)))
    })
}

/// A claim, as a client sends it.
pub(super) fn claim(name: &str, mode: Mode) -> RawClaim {
    RawClaim { name: name.into(), mode }
}

/// A claim, as a server tells of it.
pub(super) fn known_claim(name: &str, mode: Mode) -> Claim {
    claim(name, mode).checked().unwrap()
}

fn inspect(query: Query) -> ClientMessage {
    ClientMessage::Inspect { query_id: 9, query }
}

fn superseding(message: ClientMessage) -> ClientMessage {
    match with_extras(message) {
        ClientMessage::RequestWith { request, .. } => {
            ClientMessage::RequestWith { request, extras: vec![Extra::Supersede] }
        }
        other => panic!("{other:?} is no request"),
    }
}

fn with_extras(message: ClientMessage) -> ClientMessage {
    let extras = vec![Extra::AtLeast { ms: 0x0102_0304_0506_0708 }];
    match message {
        ClientMessage::Request(request) => {
            ClientMessage::RequestWith { request: Box::new(request), extras }
        }
        ClientMessage::Reclaim(reclaim) => {
            ClientMessage::ReclaimWith { reclaim: Box::new(reclaim), extras }
        }
        other => panic!("{other:?} has no extras"),
    }
}

fn outlook() -> Outlook {
    let pause = |after, left_ms| Pause {
        after,
        session: SessionId(0x2a),
        identity: "ann@build7:8123".parse().unwrap(),
        token: FencingToken(1881),
        granted_ms: 252_000,
        length_ms: 300_000,
        left_ms,
    };
    let pauses = vec![pause(After::Loss, 4_000), pause(After::Grant, 48_000)];
    Outlook { name: "printer".parse().unwrap(), free_ms: Some(48_000), pauses }
}

pub(in crate::wire) fn lock() -> LockStatus {
    LockStatus {
        name: "printer".parse().unwrap(),
        holders: vec![Holder {
            session: SessionId(0x2a),
            identity: "ann@build7:8123".parse().unwrap(),
            peer: "10.0.0.7:40000".into(),
            owner: OwnerId(5),
            request: RequestId(6),
            mode: Mode::Shared,
            token: FencingToken(1881),
            held_ms: 252_000,
            note: "deploy v2.3".parse().unwrap(),
            connected: true,
        }],
        holder_count: 1,
        waiters: vec![Waiter {
            session: SessionId(0x2b),
            identity: "bob@build8:99".parse().unwrap(),
            peer: "10.0.0.8:40001".into(),
            owner: OwnerId(7),
            request: RequestId(8),
            mode: Mode::Permits { take: 1, of: 3 },
            waiting_ms: 238_000,
            note: "deploy v2.4".parse().unwrap(),
        }],
        waiter_count: 2,
    }
}
