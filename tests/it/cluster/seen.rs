//! Who leads, since when, and who is in sync, as it is told wherever somebody looks.

use serde_json::Value;

use super::etcd::Etcd;
use super::serving::{LEASE, as_strs, flags};
use crate::api::{document, is_described};
use crate::port::Port;
use crate::support::{Home, Server, eventually, run};

fn member(etcd: &Etcd, name: &str) -> Port {
    let flags = format!(
        "--cluster test --etcd {} --leader-lease 30s --peer-listen 127.0.0.1:0 --member-name {name}",
        etcd.url()
    );
    Port::start_with(Home::new(), &flags)
}

#[test]
fn a_leader_and_its_standby_tell_wherever_one_looks_who_leads_and_who_is_in_sync() {
    let etcd = Etcd::start();
    let leader = member(&etcd, "a");
    eventually("it leads", || (leader.get("/leaderz", None).status == 200).then_some(()));
    let body = leader.get("/leaderz", None).body;
    assert!(body.starts_with("leads test, term 1, for "), "{body}");
    assert!(body.ends_with(" s; no standby is in sync\n"), "{body}");
    assert_eq!(leader.get("/api/v1/server", None).json()["cluster"]["in_sync"], false);

    let standby = member(&etcd, "b");
    let document = document();
    let cluster = eventually("the standby in sync is known by its name", || {
        let answer = leader.get("/api/v1/server", None);
        is_described(&document, "get", "/api/v1/server", &answer);
        let cluster = answer.json()["cluster"].take();
        (cluster["standby"] == "b").then_some(cluster)
    });
    assert_eq!((&cluster["name"], &cluster["leader"]), (&"test".into(), &"a".into()));
    assert_eq!((&cluster["term"], &cluster["in_sync"]), (&1.into(), &true.into()));
    assert!(cluster["led_ms"].as_u64().unwrap() > 0 && cluster["behind"].is_u64(), "{cluster}");
    let body = leader.get("/leaderz", None).body;
    assert!(body.ends_with(" s; b is in sync\n"), "{body}");
    let verbose = leader.get("/readyz?verbose", None).body;
    assert!(verbose.contains("\ncluster: leads test, term 1, for "), "{verbose}");

    // Whichever member is asked, the leader answers.
    let asked = |words: &[&str]| run(standby.server.client(words)).out;
    let text = asked(&["status"]);
    assert!(text.contains("\ncluster test: a leads, term 1, for "), "{text}");
    assert!(text.contains("; b is in sync\n"), "{text}");
    let json: Value = serde_json::from_str(&asked(&["status", "--json"])).unwrap();
    assert_eq!(
        (&json["cluster"]["leader"], &json["cluster"]["standby"]),
        (&"a".into(), &"b".into())
    );

    // A standby says who leads, and where.
    let where_to = format!("; a leads test at {}, term 1, for ", leader.server.address);
    let body = standby.get("/leaderz", None).body;
    assert!(body.starts_with(&format!("stands by, in sync{where_to}")), "{body}");
    let verbose = standby.get("/readyz?verbose", None).body;
    assert!(verbose.starts_with("standing by\ncluster: stands by, in sync; a leads "), "{verbose}");
    for path in ["/api/v1/server", "/api/v1/waits", "/api/v1/live"] {
        let refused = standby.get(path, None);
        is_described(&document, "get", path, &refused);
        assert_eq!((refused.status, &*refused.code()), (503, "StandsBy"), "{path}");
        assert!(refused.body.contains(&where_to), "{refused:?}");
    }
}

const ADDRESSES: [&str; 2] = ["10.0.0.7:5625", "10.0.0.8:5625"];

/// Two members with these names at these addresses: `members` says `seen` of them, and one of them says `logged`.
fn two_are_told(both: [(&str, &str); 2], seen: &str, logged: &str) {
    let etcd = Etcd::start();
    let members = both.map(|(name, address)| {
        let more = ["--member-name", name, "--advertise", address].map(str::to_owned);
        Server::start_with(Home::new(), &as_strs(&[&flags(&[&etcd], LEASE)[..], &more].concat()))
    });
    let home = Home::new();
    let words = ["members", "--cluster", "test", "--etcd", &etcd.url()];
    eventually(seen, || run(home.coordinator(&words)).out.contains(seen).then_some(()));
    // Each looks at the list of members when its own turn comes.
    let is_logged = || members.iter().any(|it| it.process.err_so_far().contains(logged));
    eventually(logged, || is_logged().then_some(()));
}

#[test]
fn members_that_share_an_address_are_told_so_by_members_and_in_their_logs() {
    let [one, _] = ADDRESSES;
    let seen = format!("a and b are both at {one}, as they say");
    two_are_told([("a", one), ("b", one)], &seen, &format!("says that it is at {one}, too"));
}

#[test]
fn members_that_share_a_name_are_told_so_by_members_and_in_their_logs() {
    let [one, other] = ADDRESSES;
    // Only one of the two is shown, and says it of the other.
    let seen = format!("two members have the name a, one at {one} and one at {other}");
    let logged = "another process is a member of the name a, too, at 10.0.0.";
    two_are_told([("a", one), ("a", other)], &seen, logged);
}
