//! The output for people and for programs.

use coordinator::wire::{JournalDistance, JournalStart, JournalStatus, Mode, Waiter};

use super::*;
use coordinator::types::{Epoch, FencingToken, OwnerId, RequestId, SessionId};

fn server() -> ServerStatus {
    ServerStatus {
        version: "0.1.0".to_owned(),
        epoch: Epoch(18),
        uptime_ms: 11_520_000,
        draining: false,
        connections: 4,
        sessions: 3,
        locks: 2,
        held: 3,
        waiting: 2,
        grants: 1203,
        expired: 1,
        protocol_errors: 0,
        slow_readers: 0,
        handshake_timeouts: 0,
        connections_refused: 0,
        last_token: FencingToken(1884),
        grace_ms: 0,
        unsaved_ms: 0,
    }
}

fn holder(identity: &str, mode: Mode, token: u64, note: &str) -> Holder {
    Holder {
        owner: OwnerId(0),
        request: RequestId(1),
        session: SessionId(0x2a),
        identity: identity.parse().unwrap(),
        peer: "10.0.0.7:41000".to_owned(),
        mode,
        token: FencingToken::new(token),
        held_ms: 252_000,
        note: note.parse().unwrap(),
        connected: true,
    }
}

fn waiter(identity: &str, waiting_ms: u64) -> Waiter {
    Waiter {
        owner: OwnerId(0),
        request: RequestId(1),
        session: SessionId(0x2b),
        identity: identity.parse().unwrap(),
        peer: "127.0.0.1:41000".to_owned(),
        mode: Mode::Exclusive,
        waiting_ms,
        note: "".parse().unwrap(),
    }
}

fn deploy() -> LockStatus {
    LockStatus {
        name: "deploy".parse().unwrap(),
        holders: vec![holder("ci-7 (ann@build7, pid 8123)", Mode::Exclusive, 1881, "deploy v2.3")],
        holder_count: 1,
        waiters: vec![waiter("bob@build8:12", 238_000), waiter("eve@build9:7", 3_000)],
        waiter_count: 2,
    }
}

fn readers() -> LockStatus {
    let first = holder("ann@build7:1", Mode::Shared, 1882, "");
    let second = Holder { connected: false, ..holder("bob@build8:2", Mode::Shared, 1884, "") };
    LockStatus {
        name: "readers".parse().unwrap(),
        holders: vec![first, second],
        holder_count: 5,
        waiters: vec![],
        waiter_count: 0,
    }
}

#[test]
fn the_overview_shows_locks_with_holders_and_queues() {
    let seen = Seen {
        server: server(),
        journal: None,
        cluster: None,
        locks: vec![deploy(), readers()],
        outlooks: vec![],
        sessions: None,
    };
    let lines = [
        "coordinator 0.1.0 at here:1, epoch 18, up 3h12m: 3 sessions, 2 locks, 2 waiting, 1203 grants",
        "",
        "LOCK     HOLDER                                 FOR    TOKEN  MODE    NOTE         QUEUE",
        "deploy   ci-7 (ann@build7, pid 8123, 10.0.0.7)  4m12s  1881           deploy v2.3  2 waiting, longest 3m58s",
        "readers  ann@build7:1 (10.0.0.7)                4m12s  1882   shared",
        "         bob@build8:2 (10.0.0.7) [disconnected] 4m12s  1884   shared",
        "         and 3 more",
    ];
    let text = overview("here:1", &seen);
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for (line, expected) in text.lines().zip(lines) {
        assert_eq!(squeezed(line), squeezed(expected));
    }
    assert_eq!(text.lines().count(), lines.len(), "{text}");
}

#[test]
fn an_empty_table_says_so_in_words() {
    let server = ServerStatus { locks: 1, sessions: 1, grants: 1, ..server() };
    let seen = Seen {
        journal: None,
        cluster: None,
        server,
        locks: vec![],
        outlooks: vec![],
        sessions: None,
    };
    assert_eq!(
        overview("here:1", &seen),
        "coordinator 0.1.0 at here:1, epoch 18, up 3h12m: 1 session, 1 lock, 2 waiting, 1 grant\n\
         nothing is locked\n"
    );
}

fn cluster(behind: Option<u64>, standby: &str) -> ClusterStatus {
    let (cluster, leader) = ("prod".to_owned(), "a.internal:5625".to_owned());
    let standby = standby.to_owned();
    ClusterStatus { cluster, leader, term: 7, led_ms: 11_520_000, behind, standby }
}

#[test]
fn the_leader_of_a_cluster_says_so_and_who_would_take_over_with_everything() {
    let told = |behind, standby| cluster_line(&cluster(behind, standby));
    let head = "cluster prod: a.internal:5625 leads, term 7, for 3h12m; ";
    assert_eq!(told(None, ""), format!("{head}no standby is in sync\n"));
    assert_eq!(told(Some(5), ""), format!("{head}a standby is in sync\n"));
    assert_eq!(told(Some(0), "b.internal:5625"), format!("{head}b.internal:5625 is in sync\n"));
}

#[test]
fn one_lock_lists_everybody_in_line() {
    let text = one_lock(&deploy(), &[]);
    let expected = "
PLACE  WAITER         FOR
1      bob@build8:12  3m58s
2      eve@build9:7   3s
";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn programs_get_numbers_and_stable_names() {
    let session = SessionStatus {
        session: SessionId(0x2a),
        identity: "ann@build7:1".parse().unwrap(),
        peer: "10.0.0.7:41000".to_owned(),
        connected: true,
        age_ms: 5,
        ttl_ms: 10_000,
        lease_left_ms: 9_995,
        held: 1,
        waiting: 0,
    };
    let seen = Seen {
        server: server(),
        journal: None,
        cluster: None,
        locks: vec![deploy()],
        outlooks: vec![],
        sessions: Some(vec![session]),
    };
    let json = json::seen(&seen);
    assert_eq!(json["server"]["epoch"], 18);
    assert_eq!(json["locks"][0]["holders"][0]["token"], 1881);
    assert_eq!(json["locks"][0]["holders"][0]["session"], "0000000000000000000000000000002a");
    assert_eq!(json["locks"][0]["holders"][0]["mode"]["kind"], "exclusive");
    assert_eq!(json["locks"][0]["waiters"][1]["waiting_ms"], 3_000);
    assert_eq!(json["sessions"][0]["lease_left_ms"], 9_995);
    assert_eq!(json::mode(Mode::Permits { take: 2, of: 3 })["of"], 3);
}

#[test]
fn every_name_is_in_the_description() {
    let described = include_str!("../../../../docs/status-json.md");
    let start = JournalStart::Lost { why: String::new(), grace_ms: 10_250 };
    let distance = JournalDistance::Process;
    let seen = Seen {
        cluster: Some(cluster(Some(0), "b.internal:5625")),
        journal: Some(JournalStatus { distance, bytes: 5, off_ms: 0, start }),
        server: server(),
        locks: vec![deploy()],
        outlooks: vec![],
        sessions: Some(vec![]),
    };
    let json = json::seen(&seen);
    let (lock, journal) = (&json["locks"][0], &json["journal"]);
    let of_lock = [lock, &lock["holders"][0], &lock["waiters"][0]];
    let of_server = [&json["server"], &json["cluster"], journal, &journal["start"]];
    for object in [&json].into_iter().chain(of_server).chain(of_lock) {
        for name in object.as_object().unwrap().keys() {
            assert!(described.contains(&format!("`{name}`")), "{name} is not described");
        }
    }
}

#[test]
fn who_looks_sees_why_everybody_waits() {
    let server = ServerStatus { grace_ms: 8_200, unsaved_ms: 61_000, ..server() };
    let seen = Seen {
        journal: None,
        cluster: None,
        server,
        locks: vec![],
        outlooks: vec![],
        sessions: None,
    };
    let text = overview("here:1", &seen);
    assert!(text.contains("recovering: for 8s more, only previous holders"), "{text}");
    assert!(text.contains("state not saved for 1m1s: granting stops"), "{text}");
}

#[test]
fn names_that_look_alike_are_spelled_and_marked() {
    let named = |name: &str| LockStatus { name: name.parse().unwrap(), ..deploy() };
    let locks = ["cafe\u{301}", "caf\u{e9}", "deploy", "deploy ", "gr\u{f6}\u{df}er"].map(named);
    let text = locks_table(&locks, &[]);
    let mark = "(looks like another name)";
    for twin in ["\"cafe\\u{301}\"", "\"caf\\u{e9}\"", "\"deploy\"", "\"deploy \""] {
        assert!(text.contains(&format!("\n{twin} {mark}  ")), "{twin} in {text}");
    }
    assert!(text.contains("\ngrößer  "), "{text}");
}

#[test]
fn no_text_of_a_client_forges_a_table() {
    let forged = "no note      root@prod:1  4d  29893123375341";
    let identity = "ann@build7:8123 (10.0.0.9)";
    let lock = LockStatus {
        name: "dep\u{202e}gnissap".parse().unwrap(),
        holders: vec![holder(identity, Mode::Exclusive, 7, forged)],
        holder_count: 1,
        waiters: vec![Waiter { note: forged.parse().unwrap(), ..waiter("x\u{200b}y", 1) }],
        waiter_count: 1,
    };
    let text = one_lock(&lock, &[]);
    for shown in ["\"dep\\u{202e}gnissap\"", "\"x\\u{200b}y\""] {
        assert!(text.contains(shown), "{shown} in {text}");
    }
    assert_eq!(text.matches(&format!("\"{forged}\"")).count(), 2, "{text}");
    assert!(text.contains(&format!("\"{identity}\" (10.0.0.7)")), "{text}");
}

#[test]
fn a_lock_that_is_asked_for_with_another_size_says_from_which_place_on() {
    let permits = |of| Mode::Permits { take: 1, of };
    let same = Waiter { mode: permits(3), ..waiter("bob@build8:12", 3_000) };
    let other = Waiter { mode: permits(5), ..waiter("eve@build9:7", 3_000) };
    let held = vec![holder("ann@build7:1", permits(3), 1881, "")];
    let lock = LockStatus { holders: held, waiters: vec![same, other], ..deploy() };
    let line = "in use as a semaphore of 3; the waiter at place 2 asks for a semaphore of 5, and waits \
                until the lock is free\n";
    assert!(one_lock(&lock, &[]).contains(line), "{}", one_lock(&lock, &[]));
    let lock = LockStatus { waiters: lock.waiters[..1].to_vec(), ..lock };
    assert!(!one_lock(&lock, &[]).contains("in use as"));
}
