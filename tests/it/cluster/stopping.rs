//! A leader that is asked to stop while etcd is away: what is left, and what is said of it.

use coordinator::wire::{ServerMessage, Standing};
use rustix::process::Signal;

use super::etcd::Etcd;
use super::following::pair_with;
use super::serving::{Holder, as_strs, flags, leads};
use super::undisturbed;
use crate::support::{Home, Server};

/// Nobody waits long for an etcd that is away.
const BRIEF: [&str; 2] = ["--drain-timeout", "300ms"];

fn resumes(server: &Server, holder: &mut Holder) {
    let welcome = holder.come_back(server);
    let resumed = matches!(welcome, ServerMessage::Welcome { standing: Standing::Resumed, .. });
    assert!(resumed, "{welcome:?}");
    let lock = server.lock("printer").unwrap();
    assert_eq!(lock["holders"][0]["token"].as_u64(), Some(holder.token.number()));
}

#[test]
fn a_leader_in_sync_that_stops_while_etcd_is_away_says_that_its_standby_has_everything() {
    undisturbed(tell_of_a_leader_in_sync_that_stops);
}

fn tell_of_a_leader_in_sync_that_stops() {
    let mut etcd = Etcd::start();
    let [leader, next] = pair_with(&etcd, &BRIEF);
    let mut holder = Holder::of(&leader, "printer", 60_000);
    etcd.kill();
    leader.process.signal(Signal::TERM);
    let ended = leader.process.end();
    assert_eq!(ended.code(), Some(0), "{}", ended.err);
    assert!(ended.err.contains("nothing is lost"), "{}", ended.err);
    assert!(ended.err.contains("in sync has all 1 sessions and 1 requests"), "{}", ended.err);
    etcd.revive();
    leads(&next);
    resumes(&next, &mut holder);
}

#[test]
fn a_leader_alone_that_stops_while_etcd_is_away_says_that_its_directory_has_everything() {
    let mut etcd = Etcd::start();
    let flags = flags(&[&etcd], "30s");
    let flags = [&as_strs(&flags)[..], &BRIEF, &["--member-name", "a"]].concat();
    let leader = Server::start_with(Home::new(), &flags);
    leads(&leader);
    let mut holder = Holder::of(&leader, "printer", 60_000);
    etcd.kill();
    leader.process.signal(Signal::TERM);
    let Server { home, process, .. } = leader;
    let ended = process.end();
    assert_eq!(ended.code(), Some(70), "{}", ended.err);
    assert!(ended.err.contains("its directory has them"), "{}", ended.err);
    etcd.revive();
    let again = Server::start_with(home, &flags);
    leads(&again);
    resumes(&again, &mut holder);
}
