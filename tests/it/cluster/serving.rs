//! Coordinators of a cluster, as processes, with a real etcd.

use std::io::ErrorKind;
use std::time::Duration;

use coordinator::types::{
    FencingToken, Generation, GoodbyeCode, RejectionCode, RequestId, Seal, Secret, SessionId,
};
use coordinator::wire::{self, Attach, ClientMessage, Mode, RawClaim, ServerMessage, Standing};
use rustix::process::Signal;

use super::etcd::Etcd;
use super::{live, options};
use crate::free_port::free_port;
use crate::raw::{Raw, hello, hello_for, request};
use crate::support::{Home, Server, eventually, run, start};
use coordinator::etcd::Etcd as Client;

/// The lease of leaders: short, for each death of one takes as long; longer than a busy machine stands still.
pub(super) const LEASE: &str = "2s";
/// One that is never waited for, where nobody dies.
pub(super) const LONG: &str = "30s";
/// How long it is looked at that nobody leads, or that nothing is decided: longer than a lease.
pub(super) const LEASE_OVER: Duration = Duration::from_millis(3_500);

/// Another coordinator of the cluster `test`.
pub(super) fn member(etcds: &[&Etcd]) -> Server {
    member_for(etcds, LEASE)
}

/// The same, with such a lease.
fn member_for(etcds: &[&Etcd], lease: &str) -> Server {
    Server::start_with(Home::new(), &as_strs(&flags(etcds, lease)))
}

pub(crate) fn as_strs(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

/// What one is started with that has such a lease when it leads.
pub(super) fn flags(etcds: &[&Etcd], lease: &str) -> Vec<String> {
    let urls: Vec<String> = etcds.iter().map(|etcd| etcd.url()).collect();
    let urls = urls.join(",");
    ["--cluster", "test", "--etcd", &urls, "--leader-lease", lease, "--http-listen", ""]
        .map(str::to_owned)
        .to_vec()
}

/// What a server says to a Hello.
pub(super) fn greeted(server: &Server, hello: ClientMessage) -> (Raw, ServerMessage) {
    let mut raw = Raw::connect(server);
    raw.say(&[hello]);
    let answer = raw.hear();
    (raw, answer)
}

/// Where a server sends its clients; none: it leads.
pub(super) fn sent_to(server: &Server) -> Option<String> {
    match greeted(server, hello_for(Attach::Observer, 0, None)).1 {
        ServerMessage::Welcome { .. } => None,
        ServerMessage::Goodbye { code: GoodbyeCode::NotLeader, message, .. } => Some(message),
        other => panic!("{other:?}"),
    }
}

/// Waits until one of them leads, and the other knows it: the leader, then the other.
pub(super) fn settled(pair: [Server; 2]) -> [Server; 2] {
    let [one, other] = pair;
    let is_first = eventually("one of them leads", || match (sent_to(&one), sent_to(&other)) {
        (None, Some(leader)) if leader == one.address => Some(true),
        (Some(leader), None) if leader == other.address => Some(false),
        _ => None,
    });
    if is_first { [one, other] } else { [other, one] }
}

/// Waits until it leads.
pub(super) fn leads(server: &Server) {
    eventually("it leads", || sent_to(server).is_none().then_some(()));
}

/// A holder of a lock.
pub(super) struct Holder {
    pub(super) raw: Raw,
    session: SessionId,
    secret: Secret,
    pub(super) token: FencingToken,
    seal: Seal,
}

impl Holder {
    pub(super) fn of(server: &Server, name: &str, ttl_ms: u32) -> Self {
        let (mut raw, answer) = greeted(server, hello_for(Attach::New, ttl_ms, None));
        let ServerMessage::Welcome { session, secret, .. } = answer else { panic!("{answer:?}") };
        raw.say(&[request(1, name)]);
        let ServerMessage::Grant { token, seal, .. } = raw.hear() else { panic!() };
        Self { raw, session, secret, token, seal }
    }

    /// Comes back to another server; how it is welcomed there.
    pub(super) fn come_back(&mut self, server: &Server) -> ServerMessage {
        let (session, secret) = (self.session, self.secret);
        let attach = Attach::Resume { session, secret, generation: Generation(2) };
        let (raw, answer) = greeted(server, hello_for(attach, 60_000, None));
        self.raw = raw;
        answer
    }

    /// Shows what it was granted, and wants it back; the answer.
    fn reclaim(&mut self, name: &str) -> ServerMessage {
        let claim = RawClaim { name: name.into(), mode: Mode::Exclusive };
        let reclaim = wire::Reclaim::new(RequestId::new(1), self.token, self.seal, [claim]);
        self.raw.say(&[ClientMessage::Reclaim(reclaim)]);
        self.raw.hear()
    }
}

#[test]
fn a_leader_that_was_killed_and_is_back_within_its_lease_goes_on_with_everything() {
    let etcd = Etcd::start();
    let flags = flags(&[&etcd], LONG);
    let start = || Server::start_with(Home::new(), &as_strs(&flags));
    let [leader, other] = settled([start(), start()]);
    let mut holder = Holder::of(&leader, "printer", 60_000);
    let (mut waiter, _) = greeted(&leader, hello());
    waiter.say(&[request(1, "printer")]);
    assert!(matches!(waiter.hear(), ServerMessage::Queued { position: 1, .. }));
    let leader = leader.end_by(Signal::KILL).restart_with(&as_strs(&flags));
    leads(&leader);
    let welcome = holder.come_back(&leader);
    assert!(
        matches!(welcome, ServerMessage::Welcome { standing: Standing::Resumed, .. }),
        "{welcome:?}"
    );
    assert_eq!(leader.lock("printer").unwrap()["waiter_count"], 1, "its place is kept");
    // Nobody who comes new has to wait for a grace period.
    assert!(Holder::of(&leader, "scanner", 60_000).token > holder.token);
    assert_eq!(sent_to(&other), Some(leader.address.clone()));
    leader.process.signal(Signal::TERM);
    let said = leader.process.end().err;
    assert!(!said.contains("holds no state"), "its state is not there, but in etcd: {said}");
}

#[test]
fn h5_a_journal_from_before_another_led_is_not_gone_on_with() {
    let etcd = Etcd::start();
    let [first, second] = settled([member(&[&etcd]), member(&[&etcd])]);
    let mut holder = Holder::of(&first, "printer", 60_000);
    let flags = flags(&[&etcd], LEASE);
    let first = first.end_by(Signal::KILL);
    leads(&second);
    let first = first.restart_with(&as_strs(&flags));
    drop(second.end_by(Signal::KILL));
    leads(&first);
    assert!(first.lock("printer").is_none(), "another may have released it meanwhile");
    let welcome = holder.come_back(&first);
    assert!(
        matches!(welcome, ServerMessage::Welcome { standing: Standing::Reopened { .. }, .. }),
        "{welcome:?}"
    );
}

#[test]
fn a_command_goes_on_under_its_lock_when_the_leader_is_killed_and_others_are_granted_theirs() {
    let etcd = Etcd::start();
    let [leader, next] = settled([member(&[&etcd]), member(&[&etcd])]);
    let servers = format!("{},{}", leader.address, next.address);
    let lock = |name: &str, command: &[&str]| {
        let words =
            ["lock", name, "--ttl", "10s", "--kill-after", "1s", "--server", &servers, "--"];
        next.home.coordinator(&[&words[..], command].concat())
    };
    let holder = start(lock("printer", &["sleep", "60"]));
    let token = leader.held("printer");
    drop(leader.end_by(Signal::KILL));
    let other = run(lock("scanner", &["true"]));
    assert_eq!(other.code(), Some(0), "{}", other.err);
    assert_eq!(next.held("printer"), token, "it never lost it");
    holder.signal(Signal::TERM);
    assert_eq!(holder.end().code(), Some(143), "by our signal, and not by a loss");
}

#[test]
fn one_leads_and_the_others_send_clients_there() {
    let etcd = Etcd::start();
    let member = || member_for(&[&etcd], LONG);
    let [leader, other] = settled([member(), member()]);
    let third = member();
    for standby in [&other, &third] {
        let told =
            eventually("it knows who leads", || sent_to(standby).filter(|it| !it.is_empty()));
        assert_eq!(told, leader.address);
    }
    let holder = Holder::of(&leader, "printer", 60_000);
    assert!(holder.token > FencingToken::new(0));
}

#[test]
fn a_holder_reclaims_at_the_next_leader_when_one_was_killed_and_others_wait_for_it() {
    let etcd = Etcd::start();
    let [leader, next] = settled([member(&[&etcd]), member(&[&etcd])]);
    let mut holder = Holder::of(&leader, "printer", 60_000);
    drop(leader.end_by(Signal::KILL));
    leads(&next);
    let welcome = holder.come_back(&next);
    assert!(
        matches!(welcome, ServerMessage::Welcome { standing: Standing::Reopened { .. }, .. }),
        "{welcome:?}"
    );
    let (mut rival, _) = greeted(&next, hello());
    rival.say(&[request(1, "printer")]);
    assert!(matches!(rival.hear(), ServerMessage::Queued { position: 1, .. }));
    let answer = holder.reclaim("printer");
    let ServerMessage::Grant { token, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(token, holder.token, "it never lost it");
    holder.raw.say(&[ClientMessage::Release { request: RequestId::new(1), token }]);
    assert!(matches!(holder.raw.hear(), ServerMessage::Released { .. }));
}

#[test]
fn h5_who_lost_its_session_at_one_leader_reclaims_nothing_at_the_next() {
    let etcd = Etcd::start();
    let [leader, next] = settled([member(&[&etcd]), member(&[&etcd])]);
    let mut silent = Holder::of(&leader, "printer", 2_000);
    let (mut heir, _) = greeted(&leader, hello());
    heir.say(&[request(1, "printer")]);
    assert!(matches!(heir.hear(), ServerMessage::Queued { .. }));
    let ServerMessage::Grant { token, .. } = heir.hear() else { panic!() };
    assert!(token > silent.token);
    drop(leader.end_by(Signal::KILL));
    leads(&next);
    match silent.come_back(&next) {
        ServerMessage::Goodbye { rejection: RejectionCode::UnknownSession, .. } => {}
        ServerMessage::Welcome { .. } => {
            let answer = silent.reclaim("printer");
            assert!(matches!(answer, ServerMessage::Rejected { .. }), "{answer:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_next_leader_goes_on_with_everything_when_one_was_asked_to_stop() {
    let etcd = Etcd::start();
    let [leader, next] = settled([member(&[&etcd]), member(&[&etcd])]);
    let mut holder = Holder::of(&leader, "printer", 60_000);
    let (mut waiter, _) = greeted(&leader, hello());
    waiter.say(&[request(1, "printer")]);
    assert!(matches!(waiter.hear(), ServerMessage::Queued { position: 1, .. }));
    leader.process.signal(Signal::TERM);
    let code = |raw: &mut Raw| match raw.hear() {
        ServerMessage::Goodbye { code, .. } => code,
        other => panic!("{other:?}"),
    };
    // It knows where clients are to go if the other one is as quick.
    let goodbye = code(&mut holder.raw);
    assert!(matches!(goodbye, GoodbyeCode::Draining | GoodbyeCode::NotLeader), "{goodbye:?}");
    let ended = leader.process.end();
    assert_eq!(ended.code(), Some(0), "{}", ended.err);
    leads(&next);
    let welcome = holder.come_back(&next);
    assert!(
        matches!(welcome, ServerMessage::Welcome { standing: Standing::Resumed, .. }),
        "{welcome:?}"
    );
    let lock = next.lock("printer").unwrap();
    assert_eq!(lock["holders"][0]["token"].as_u64(), Some(holder.token.number()));
    assert_eq!(lock["waiter_count"], 1, "its place is kept");
    // Nobody who comes new has to wait for a grace period.
    assert!(Holder::of(&next, "scanner", 60_000).token > holder.token);
}

/// Whether something comes within a moment.
pub(super) fn is_answered(raw: &Raw) -> bool {
    is_answered_within(raw, Duration::from_millis(300))
}

fn is_answered_within(raw: &Raw, length: Duration) -> bool {
    raw.socket.set_read_timeout(Some(length)).unwrap();
    let peeked = loop {
        match raw.socket.peek(&mut [0]) {
            // This process was stopped while it waited.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            peeked => break peeked,
        }
    };
    raw.socket.set_read_timeout(Some(crate::support::DEADLINE)).unwrap();
    match peeked {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    }
}

#[test]
fn h2_a_leader_whose_lease_has_ended_decides_nothing_and_goes_on_with_all_when_it_is_renewed() {
    let mut etcd = Etcd::start();
    let leader = member(&[&etcd]);
    leads(&leader);
    let mut holder = Holder::of(&leader, "printer", 60_000);
    let (mut asking, _) = greeted(&leader, hello());
    etcd.kill();
    let mut number = 0;
    eventually("nothing is decided", || {
        number += 1;
        asking.say(&[request(number, &format!("lock {number}"))]);
        // Within a moment, one that decides may stand still.
        if is_answered_within(&asking, LEASE_OVER) {
            let _ = asking.hear();
            return None;
        }
        Some(())
    });
    holder.raw.say(&[ClientMessage::Release { request: RequestId::new(1), token: holder.token }]);
    assert!(!is_answered(&holder.raw));
    etcd.revive();
    let ServerMessage::Grant { request: granted, .. } = asking.hear() else { panic!() };
    assert_eq!(granted, RequestId::new(number));
    assert!(matches!(holder.raw.hear(), ServerMessage::Released { .. }));
    assert_eq!(sent_to(&leader), None);
}

#[test]
fn h2_a_leader_that_was_stopped_for_longer_than_its_lease_sends_clients_to_the_next() {
    let etcd = Etcd::start();
    let [leader, next] = settled([member(&[&etcd]), member(&[&etcd])]);
    let mut holder = Holder::of(&leader, "printer", 60_000);
    leader.process.signal(Signal::STOP);
    // It reads this when it wakes.
    holder.raw.say(&[ClientMessage::Release { request: RequestId::new(1), token: holder.token }]);
    leads(&next);
    leader.process.signal(Signal::CONT);
    match holder.raw.hear() {
        ServerMessage::Goodbye { code: GoodbyeCode::NotLeader, message, .. } => {
            assert_eq!(message, next.address);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(sent_to(&leader), Some(next.address.clone()));
    // And back again.
    drop(next.end_by(Signal::KILL));
    leads(&leader);
}

#[test]
fn whoever_comes_before_etcd_does_is_served_when_it_is_there() {
    let mut etcd = Etcd::start();
    // One that is killed before it has agreed with itself never will again.
    live(async {
        let client = Client::new(options(&[&etcd.url()])).unwrap();
        while client.put("/coordinator/other/key", b"value".to_vec()).await.is_err() {}
    });
    etcd.kill();
    let server = member(&[&etcd]);
    let mut early = Raw::connect(&server);
    early.say(&[hello(), request(1, "printer")]);
    etcd.revive();
    // It was kept waiting, or sent to whoever leads by now, which is the same one.
    let answer = early.hear();
    match answer {
        ServerMessage::Welcome { .. } => {
            assert!(matches!(early.hear(), ServerMessage::Grant { .. }));
        }
        ServerMessage::Goodbye { code: GoodbyeCode::NotLeader, .. } => leads(&server),
        other => panic!("{other:?}"),
    }
}

#[test]
fn h4_whoever_has_heard_more_than_etcd_does_not_lead_and_says_what_to_do() {
    let etcd = Etcd::start();
    let member = ["--member-name".to_owned(), "a".to_owned()];
    let server =
        Server::start_with(Home::new(), &as_strs(&[&flags(&[&etcd], LEASE)[..], &member].concat()));
    leads(&server);
    let stopped = server.end_by(Signal::KILL);
    // As after its data was deleted.
    let other = Etcd::start();
    let server = stopped.restart_with(&as_strs(&[&flags(&[&other], LEASE)[..], &member].concat()));
    assert_eq!(sent_to(&server).as_deref(), Some(""), "nobody leads");
    server.process.says("another etcd answers than before");
}

#[test]
fn members_says_who_takes_part_and_who_leads_also_when_none_of_them_answers() {
    let etcd = Etcd::start();
    let [leader, other] = settled([member_for(&[&etcd], LONG), member_for(&[&etcd], LONG)]);
    let members = |flags: &[&str]| {
        let url = etcd.url();
        let words = [&["members", "--cluster", "test", "--etcd", &url], flags].concat();
        run(leader.home.coordinator(&words))
    };
    let json = || -> serde_json::Value { serde_json::from_str(&members(&["--json"]).out).unwrap() };
    eventually("both have said that they are there", || {
        let members = json()["members"].as_array().unwrap().clone();
        let leads = |it: &serde_json::Value| (it["name"].clone(), it["leads"].clone());
        let mut found: Vec<_> = members.iter().map(leads).collect();
        found.sort_by_key(|(name, _)| name.to_string());
        let mut expected = [(leader.address.as_str(), true), (other.address.as_str(), false)];
        expected.sort_unstable();
        let expected = expected.map(|(name, leads)| (name.into(), leads.into()));
        (found == expected).then_some(())
    });
    assert_eq!(json()["leader"]["address"], leader.address.as_str());
    let text = members(&[]);
    assert_eq!(text.code(), Some(0), "{}", text.err);
    let first = format!("test: {} leads, term 1, no standby is in sync", leader.address);
    assert_eq!(text.out.lines().next(), Some(first.as_str()), "{}", text.out);
    for server in [other, leader] {
        let home = server.end_by(Signal::TERM).home;
        drop(home);
    }
    let home = Home::new();
    let words = ["members", "--cluster", "test", "--etcd", &etcd.url()];
    let done = run(home.coordinator(&words));
    assert_eq!((done.code(), done.out.as_str()), (Some(1), "test: nobody leads\n"));
}

#[test]
fn members_without_an_etcd_says_what_was_tried() {
    let home = Home::new();
    let url = format!("http://127.0.0.1:{}", free_port());
    let done = run(home.coordinator(&["members", "--cluster", "test", "--etcd", &url]));
    assert_eq!(done.code(), Some(69));
    assert!(done.err.contains(&format!("no etcd has answered: {url}")), "{}", done.err);
    let done = run(home.coordinator(&["members"]));
    assert_eq!(done.code(), Some(2));
    assert!(done.err.contains("no cluster is named"), "{}", done.err);
}

#[test]
fn what_cannot_be_asked_of_etcd_is_told_before_anything_is_opened() {
    let home = Home::new();
    for (flags, why) in [
        (vec!["--cluster", "a"], "cluster says nothing without etcd"),
        (vec!["--etcd", "http://localhost:1"], "etcd says nothing without cluster"),
        (vec!["--cluster", "A b", "--etcd", "http://localhost:1"], "not the name of a cluster"),
        (vec!["--cluster", "a", "--etcd", "localhost:1"], "is no URL"),
        (vec!["--cluster", "a", "--etcd", "http://localhost"], "it has no port"),
        (
            vec!["--cluster", "a", "--etcd", "http://localhost:1", "--accept-lost-state"],
            "--cluster keeps its state in etcd",
        ),
        (
            vec![
                "--cluster",
                "a",
                "--etcd",
                "http://localhost:1",
                "--listen",
                "0.0.0.0:0",
                "--allow-anyone",
            ],
            "clients cannot connect to 0.0.0.0",
        ),
    ] {
        let done = run(home.coordinator(&[&["serve"], &flags[..]].concat()));
        assert_eq!(done.code(), Some(2), "{}", done.err);
        assert!(done.err.contains(why), "{}", done.err);
    }
}
