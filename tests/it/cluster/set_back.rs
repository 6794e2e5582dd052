//! An etcd that was restored from a backup: what it says of the past is not believed for long (rule H6).

use std::path::Path;
use std::time::Instant;

use coordinator::etcd::Etcd as Client;
use coordinator::types::{Epoch, GoodbyeCode, RejectionCode, RequestId};
use coordinator::wire::{Attach, ClientMessage, Hello, ServerMessage, Standing};
use rustix::process::Signal;

use super::etcd::Etcd;
use super::following::{members, pair};
use super::serving::{
    Holder, LEASE, LEASE_OVER, as_strs, flags, greeted, leads, member, sent_to, settled,
};
use super::{live, options, undisturbed};
use crate::raw::{hello, request};
use crate::support::{Home, Server, eventually, run};

/// The keys of a cluster.
const PREFIX: &str = "/coordinator/test/";

fn is_sent_nowhere(answer: &ServerMessage) -> bool {
    let code = GoodbyeCode::NotLeader;
    matches!(answer, ServerMessage::Goodbye { code: it, message, .. } if *it == code && message.is_empty())
}

#[test]
fn h6_nobody_leads_with_a_restored_etcd_once_a_client_proves_that_a_later_one_has_led_until_an_operator_says_so()
 {
    let etcd = Etcd::start();
    let kill = |server: Server| drop(server.end_by(Signal::KILL));
    let first = member(&[&etcd]);
    leads(&first);
    let url = etcd.url();
    let backup = live(async {
        let client = Client::new(options(&[&url])).unwrap();
        client.list(PREFIX).await.unwrap()
    });
    kill(first);
    let second = member(&[&etcd]);
    leads(&second);
    kill(second);
    let third = member(&[&etcd]);
    leads(&third);
    let mut holder = Holder::of(&third, "printer", 60_000);
    kill(third);
    live(async {
        let client = Client::new(options(&[&url])).unwrap();
        for (key, found) in backup {
            client.put(&key, found.value).await.unwrap();
        }
    });

    let restored = member(&[&etcd]);
    leads(&restored);
    // Whoever says so may lie, or mean another cluster.
    let epoch_seen = Epoch::new(u64::MAX);
    let said = ClientMessage::Hello(Hello { epoch_seen, ..Hello::new(Attach::New, "liar") });
    let (_liar, answer) = greeted(&restored, said);
    assert!(is_sent_nowhere(&answer), "{answer:?}");
    leads(&restored);
    let answer = holder.come_back(&restored);
    assert!(is_sent_nowhere(&answer), "{answer:?}");
    eventually("it leads no more", || sent_to(&restored).filter(String::is_empty));
    let command = |words: &[&str]| {
        let etcd = ["--cluster", "test", "--etcd", &url];
        run(restored.home.coordinator(&[words, &etcd[..]].concat()))
    };
    let told = command(&["members"]);
    assert!(told.out.contains("etcd was set back"), "{}", told.out);
    let term = told.out.lines().next().and_then(|line| line.rsplit(' ').next()).unwrap();
    let term: u64 = term.parse().unwrap();

    // Neither who is started anew nor another takes the lead, though the lease is over.
    let flags = flags(&[&etcd], LEASE);
    let ended = restored.end_by(Signal::KILL);
    let restored = ended.restart_with(&as_strs(&flags));
    let other = member(&[&etcd]);
    nobody_leads(&[&restored, &other]);
    let words = ["takeover", "--after-loss", "--term", &term.to_string()];
    let told =
        run(other.home.coordinator(&[&words[..], &["--cluster", "test", "--etcd", &url]].concat()));
    assert_eq!(told.code(), Some(0), "{}", told.err);
    let leader = eventually("one of them leads", || {
        [&restored, &other].into_iter().find(|member| sent_to(member).is_none())
    });
    let answer = holder.come_back(leader);
    let reopened =
        matches!(answer, ServerMessage::Welcome { standing: Standing::Reopened { .. }, .. });
    assert!(reopened, "its epoch is a later one than that of before: {answer:?}");
    restored.process.says("Nobody takes the lead");
}

#[test]
fn h4_running_members_do_not_believe_a_restored_etcd_until_an_operator_says_so() {
    let (mut etcd, files) = (Etcd::start(), Home::new());
    let pair = settled([member(&[&etcd]), member(&[&etcd])]);
    let backup = files.path("backup");
    etcd.save(&backup);
    let url = etcd.url();
    let revision = || version(&etcd);
    let mut holder = Holder::of(&pair[0], "printer", 60_000);
    // Both have seen more than the backup has, for each looks as often as the lease is renewed.
    for _ in 0..10 {
        let then = revision();
        eventually("the lease is renewed", || (revision() > then).then_some(()));
    }
    etcd.kill();
    etcd.restore(&backup);
    for member in &pair {
        eventually("nobody leads", || sent_to(member).filter(String::is_empty));
    }
    nobody_leads(&pair.each_ref());
    let command = |words: &[&str]| {
        let etcd = ["--cluster", "test", "--etcd", &url];
        run(files.coordinator(&[words, &etcd[..]].concat()))
    };
    let told = eventually("members say that they know more", || {
        let told = members(&etcd, &files);
        let first_knows = told["members"][0]["knows_more"] == true;
        (told["set_back"] == true && first_knows).then_some(told)
    });
    assert!(told["leader"].is_null(), "{told}");
    let term = told["term"].to_string();
    let told = command(&["members"]);
    assert_eq!(told.code(), Some(1), "who led when it was saved leads no more");
    let first = told.out.lines().next().unwrap();
    assert!(first.contains("etcd was set back") && first.ends_with(&term), "{}", told.out);
    assert!(told.out.contains("  knows more  "), "{}", told.out);
    let told = command(&["takeover", "--after-loss", "--term", &term]);
    assert_eq!(told.code(), Some(0), "{}", told.err);
    let leader =
        eventually("one of them leads", || pair.iter().find(|member| sent_to(member).is_none()));
    let answer = holder.come_back(leader);
    let reopened =
        matches!(answer, ServerMessage::Welcome { standing: Standing::Reopened { .. }, .. });
    assert!(reopened, "{answer:?}");
    // A backup knows nothing of the leases since, so whoever comes new waits.
    let (mut rival, _) = greeted(leader, hello());
    rival.say(&[request(1, "scanner")]);
    assert!(matches!(rival.hear(), ServerMessage::Queued { .. }));
    let words = ["lock", "-w", "1s", "plotter", "--server", &leader.address, "--", "true"];
    let told = run(files.coordinator(&words)).err;
    assert!(told.contains("held by  nobody, but a grace period has "), "{told}");
}

/// The version of the seat.
fn version(etcd: &Etcd) -> u64 {
    live(async {
        let client = Client::new(options(&[&etcd.url()])).unwrap();
        client.read(&format!("{PREFIX}seat")).await.unwrap().found.unwrap().revision
    })
}

/// What a member has kept of the version of the seat.
fn kept(server: &Server) -> u64 {
    let members = server.home.path(".local/state/coordinator/cluster/test");
    let member = std::fs::read_dir(members).unwrap().next().unwrap().unwrap().path().join("member");
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(member).unwrap()).unwrap();
    kept["version"].as_u64().unwrap()
}

/// Nobody leads with this etcd meanwhile.
fn nobody_leads(members: &[&Server]) {
    let began = Instant::now();
    while began.elapsed() < LEASE_OVER {
        for member in members {
            assert_eq!(sent_to(member).as_deref(), Some(""));
        }
    }
}

/// An operator says that what etcd does not know is lost.
fn take_over(etcd: &Etcd, files: &Home) {
    let term = eventually("the seat has a term", || {
        let told = members(etcd, files);
        told["term"].as_u64().or(told["leader"]["term"].as_u64())
    });
    let (term, url) = (term.to_string(), etcd.url());
    let words = ["takeover", "--after-loss", "--term", &term, "--cluster", "test", "--etcd", &url];
    let told = run(files.coordinator(&words));
    assert_eq!(told.code(), Some(0), "{}", told.err);
}

#[test]
fn h4_a_member_that_was_started_anew_does_not_believe_a_restored_etcd_that_knows_less_than_it_saw()
{
    let (mut etcd, files) = (Etcd::start(), Home::new());
    let [leader, other] = settled([member(&[&etcd]), member(&[&etcd])]);
    let backup = files.path("backup");
    etcd.save(&backup);
    let saved = version(&etcd);
    eventually("it keeps what it has seen since", || (kept(&other) > saved).then_some(()));
    drop(leader.end_by(Signal::KILL));
    let other = other.end_by(Signal::KILL);
    etcd.kill();
    etcd.restore(&backup);
    let flags = flags(&[&etcd], LEASE);
    nobody_leads(&[&other.restart_with(&as_strs(&flags))]);
}

#[test]
fn h4_an_etcd_that_was_restored_as_another_is_known_for_that_by_all_until_an_operator_says_so() {
    let (mut etcd, files) = (Etcd::start(), Home::new());
    let [leader, other] = settled([member(&[&etcd]), member(&[&etcd])]);
    let backup = files.path("backup");
    let mut holder = Holder::of(&leader, "printer", 60_000);
    etcd.save(&backup);
    etcd.kill();
    etcd.restore_as_another(&backup);
    // One goes on, and another is started anew at once: it may have seen nothing that is not in the backup.
    let flags = flags(&[&etcd], LEASE);
    let other = other.end_by(Signal::KILL).restart_with(&as_strs(&flags));
    eventually("nobody leads", || sent_to(&other).filter(String::is_empty));
    nobody_leads(&[&other]);
    take_over(&etcd, &files);
    let all = [&leader, &other];
    let next = eventually("one of them leads, and the other knows it", || {
        let told = all.map(sent_to);
        match told {
            [None, Some(it)] if it == leader.address => Some(&leader),
            [Some(it), None] if it == other.address => Some(&other),
            _ => None,
        }
    });
    let answer = holder.come_back(next);
    let reopened =
        matches!(answer, ServerMessage::Welcome { standing: Standing::Reopened { .. }, .. });
    assert!(reopened, "{answer:?}");
    let (mut rival, _) = greeted(next, hello());
    rival.say(&[request(1, "scanner")]);
    assert!(matches!(rival.hear(), ServerMessage::Queued { .. }));
    leader.process.says("another etcd answers than before");
}

#[test]
fn h8_nobody_leads_whose_endpoints_are_of_several_etcds() {
    let (one, other) = (Etcd::start(), Etcd::start());
    let members = [member(&[&one, &other]), member(&[&other, &one])];
    let began = Instant::now();
    while began.elapsed() < LEASE_OVER {
        for etcd in [&one, &other] {
            let there = live(async {
                Client::new(options(&[&etcd.url()])).unwrap().list(PREFIX).await.unwrap()
            });
            assert_eq!(there, [], "somebody leads by what one of two says");
        }
    }
    for member in members {
        member.process.says("the endpoints are of several etcds");
    }
}

#[test]
fn p6_a_pair_in_sync_that_serves_over_a_restored_etcd_is_not_declared_lost() {
    undisturbed(|| is_not_declared_lost(Etcd::restore));
}

#[test]
fn p6_a_pair_in_sync_that_serves_beside_another_etcd_is_not_declared_lost() {
    undisturbed(|| is_not_declared_lost(Etcd::restore_as_another));
}

fn is_not_declared_lost(restore: fn(&mut Etcd, &Path)) {
    let (mut etcd, files) = (Etcd::start(), Home::new());
    let [leader, next] = pair(&etcd);
    let backup = files.path("backup");
    // The first session of all is one for which etcd is needed.
    let mut holder = Holder::of(&leader, "printer", 60_000);
    etcd.save(&backup);
    etcd.kill();
    restore(&mut etcd, &backup);
    // It needs no swap, so nothing in that etcd says that the pair lives, but what both write of themselves.
    let term = eventually("etcd answers again", || {
        members(&etcd, &files)["leader"]["term"].as_u64().map(|term| term.to_string())
    });
    let url = etcd.url();
    let words = ["takeover", "--after-loss", "--term", &term, "--cluster", "test", "--etcd", &url];
    let told = run(files.coordinator(&words));
    assert_eq!(told.code(), Some(1), "{}", told.out);
    let names = format!("(at {}) leads, in term {term}: nothing is lost", leader.address);
    assert!(told.err.contains(&names), "{}", told.err);
    assert_eq!((sent_to(&leader), sent_to(&next)), (None, Some(leader.address.clone())));
    let token = holder.token;
    holder.raw.say(&[ClientMessage::Release { request: RequestId::new(1), token }]);
    assert!(matches!(holder.raw.hear(), ServerMessage::Released { .. }));
}

#[test]
fn h7_a_client_of_a_copy_under_another_name_is_unknown_to_the_cluster_and_stops_nobody() {
    let etcd = Etcd::start();
    let leader = member(&[&etcd]);
    leads(&leader);
    let url = etcd.url();
    live(async {
        let client = Client::new(options(&[&url])).unwrap();
        for (key, found) in client.list(PREFIX).await.unwrap() {
            let copy = key.replace(PREFIX, "/coordinator/copy/");
            client.put(&copy, found.value).await.unwrap();
        }
    });
    let flags = flags(&[&etcd], LEASE).into_iter();
    let flags: Vec<_> = flags.map(|it| if it == "test" { "copy".to_owned() } else { it }).collect();
    let copy = Server::start_with(Home::new(), &as_strs(&flags));
    leads(&copy);
    let mut holder = Holder::of(&copy, "printer", 60_000);
    // It was welcomed in a later epoch than that of the leader, and has a proof of that: but of another cluster.
    let answer = holder.come_back(&leader);
    let code = RejectionCode::UnknownSession;
    assert!(
        matches!(answer, ServerMessage::Goodbye { rejection: it, .. } if it == code),
        "{answer:?}"
    );
    assert_eq!(sent_to(&leader), None);
}
