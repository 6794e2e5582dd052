//! Coordinators of a cluster with an access file, and an etcd that wants certificates, or a password.

use std::fs;
use std::time::{Duration, Instant};

use coordinator::types::FencingToken;

use rustix::process::Signal;

use super::client::{with_user, with_user_for};
use super::etcd::Etcd;
use super::serving::{Holder, as_strs, flags, leads};
use crate::access::principal;
use crate::certificates::Authority;
use crate::port::{ANN, OURS, Port, private};
use crate::support::{Home, Server, eventually};

const OPS: &str = "may = [ { do = [\"see\"], names = [\"*\"] }, { do = [\"admin\"] } ]";

#[test]
fn a_standby_answers_by_the_rules_who_is_told_metrics_and_a_reload_changes_them() {
    let files = Home::new();
    let path = |name: &str| files.path(name);
    let authority = Authority::new(&path("ca.pem"));
    authority.issue(&["127.0.0.1", "localhost"], &path("etcd.pem"), &path("etcd.key"));
    authority.issue(&["coordinator"], &path("ours.pem"), &path("ours.key"));
    let etcd = Etcd::start_with_tls(&path("ca.pem"), &path("etcd.pem"), &path("etcd.key"));
    let member = || {
        let home = Home::new();
        private(&home.path("access.toml"), &(principal("ann", ANN) + &principal("ops", OPS)));
        for name in ["ca.pem", "ours.pem", "ours.key"] {
            fs::copy(path(name), home.path(name)).unwrap();
        }
        let flags = format!(
            "--access-file access.toml --cluster test --etcd {} --etcd-ca ca.pem --etcd-cert ours.pem \
             --etcd-key ours.key --leader-lease 30s --audit-log audit",
            etcd.url()
        );
        Port::start(home, &flags)
    };
    let leads = |port: &Port| port.get("/leaderz", None).status == 200;
    let [one, other] = [member(), member()];
    let standby = eventually("one leads, and the other knows it", || {
        let standby = match (leads(&one), leads(&other)) {
            (true, false) => &other,
            (false, true) => &one,
            _ => return None,
        };
        standby.get("/leaderz", None).body.contains(" leads ").then_some(standby)
    });
    let told = || {
        [None, Some("mallory"), Some("ann"), Some("ops")]
            .map(|who| standby.get("/metrics", who).status)
    };
    assert_eq!(told(), [401, 401, 403, 200]);
    assert_eq!(standby.get("/livez", None).status, 200);
    // It has no locks, and no 0 that an alert would take for one that was counted.
    let figures = standby.get("/metrics", Some("ops")).body;
    assert!(figures.contains("\ncoordinator_leader 0"), "{figures}");
    assert!(figures.contains("\ncoordinator_authentications_refused_total 2\n"), "{figures}");
    assert!(figures.contains("\ncoordinator_denials_total{verb=\"see\"} 1\n"), "{figures}");
    for of_locks in ["tokens_left", "epoch", "start_time_seconds", "sessions"] {
        assert!(!figures.contains(&format!("\ncoordinator_{of_locks}")), "{of_locks}: {figures}");
    }

    let audited = |words: &[&str]| {
        let log = fs::read_to_string(standby.server.home.path("audit")).unwrap();
        log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    };
    let refused = ["\"sign_in\"", "\"refused\"", "\"peer\":\"127.0.0.1:"];
    let denied = ["\"denied\"", "\"principal\":\"ann\"", "\"credential\"", "\"see\""];
    eventually("the audit log has them", || {
        ((audited(&refused), audited(&denied)) == (2, 1)).then_some(())
    });

    let text = principal("ann", OPS) + &principal("ops", ANN);
    private(&standby.server.home.path("access.toml"), &text);
    assert_eq!(standby.post("/api/v1/reload", Some("ann"), OURS, "{}").status, 403);
    assert_eq!(standby.post("/api/v1/reload", Some("ops"), OURS, "{}").status, 200);
    eventually("others are told", || (told() == [401, 401, 200, 403]).then_some(()));
}

#[test]
fn a_leader_whose_token_has_expired_saves_everything_by_another() {
    let etcd = with_user_for(Duration::from_secs(1));
    let home = Home::new();
    let file = home.path("password");
    private(&file, "secret\n");
    let user = ["--etcd-user", "root", "--etcd-password-file", file.to_str().unwrap()];
    let flags = [&flags(&[&etcd], "1s")[..], &user.map(str::to_owned)].concat();
    let member = Server::start_with(home, &as_strs(&flags));
    leads(&member);
    // What it keeps in etcd is asked for by another token than its lease, and seldom.
    let holder = Holder::of(&member, "printer", 60_000);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        leads(&member);
    }
    member.process.signal(Signal::TERM);
    drop(holder);
    let ended = member.process.end();
    assert_eq!(ended.code(), Some(0), "{}", ended.err);
    assert!(ended.err.contains("all state is saved"), "{}", ended.err);
}

#[test]
fn a_member_proves_itself_by_its_password_and_again_when_etcd_has_forgotten_that() {
    let mut etcd = with_user();
    let home = Home::new();
    let file = home.path("password");
    private(&file, "secret\n");
    let user = ["--etcd-user", "root", "--etcd-password-file", file.to_str().unwrap()];
    let flags = [&flags(&[&etcd], "1s")[..], &user.map(str::to_owned)].concat();
    let member = Server::start_with(home, &as_strs(&flags));
    leads(&member);
    // Its tokens are in memory. The lease has to be renewed by another one.
    etcd.kill();
    etcd.revive();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        leads(&member);
    }
    assert!(Holder::of(&member, "printer", 60_000).token > FencingToken::default());
}

#[test]
fn a_password_that_is_put_right_counts_without_a_start() {
    let etcd = with_user();
    let home = Home::new();
    let file = home.path("password");
    private(&file, "of last year\n");
    let user = ["--etcd-user", "root", "--etcd-password-file", file.to_str().unwrap()];
    let flags = [&flags(&[&etcd], "1s")[..], &user.map(str::to_owned)].concat();
    let member = Server::start_with(home, &as_strs(&flags));
    private(&file, "secret\n");
    leads(&member);
}
