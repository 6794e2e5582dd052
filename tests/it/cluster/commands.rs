//! What users run, over a change of leader among real coordinators.

use std::process::Command;
use std::time::Duration;

use coordinator::{Client, Leadership, LockState, Observer, SessionEvent};
use rustix::process::Signal;

use super::etcd::Etcd;
use super::live;
use super::serving::{leads, member, settled};
use crate::looking::Listener;
use crate::support::{Home, Running, Server, eventually, run, start};

/// A cluster of two, and who uses it: the arbiter, the users, the leader, and the next one.
fn cluster() -> (Etcd, Users, Server, Server) {
    let etcd = Etcd::start();
    let pair = settled([member(&[&etcd]), member(&[&etcd])]);
    let servers = format!("{},{}", pair[0].address, pair[1].address);
    let users = Users { home: Home::new(), servers };
    let [leader, next] = pair;
    (etcd, users, leader, next)
}

/// Who uses a cluster.
struct Users {
    home: Home,
    servers: String,
}

impl Users {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.home.coordinator(words);
        command.env("COORDINATOR_SERVER", &self.servers);
        command
    }

    /// Somebody who holds `printer` until it may end, and somebody who wants it next.
    fn holder_and_waiter(&self, leader: &Server) -> [Running; 2] {
        let script = "until [ -e done ]; do sleep 0.02; done; echo held";
        let mut holder = self.command(&["lock", "printer", "--", "sh", "-c", script]);
        holder.current_dir(self.home.path(""));
        let holder = start(holder);
        leader.held("printer");
        let waiter = start(self.command(&["lock", "printer", "--", "echo", "next"]));
        leader.waited_for_by("printer", 1);
        [holder, waiter]
    }

    /// The holder may end. Both have done what they were to do, and neither noticed anything.
    fn ends(&self, both: [Running; 2]) {
        std::fs::write(self.home.path("done"), "").unwrap();
        for (one, says) in both.into_iter().zip(["held\n", "next\n"]) {
            let done = one.end();
            assert_eq!((done.code(), &*done.out), (Some(0), says), "{}", done.err);
            assert!(done.err.is_empty() || done.err.starts_with("waiting for "), "{}", done.err);
        }
    }

    /// One who listens to everything, and does so already.
    fn events(&self) -> Listener {
        let events = Listener::start(self.command(&["events"]));
        self.are_told_by(&events);
        events
    }

    /// The listener listens, to whoever leads now. A lock that is not given in a grace period is
    /// an event as well.
    fn are_told_by(&self, events: &Listener) {
        eventually("it listens", || {
            run(self.command(&["try", "rooster", "--", "true"]));
            events.try_next().filter(|line| line.contains("\"rooster\""))
        });
    }

    /// As [`Self::are_told_by`], after the leader of before has gone.
    fn are_told_again_by(&self, events: &Listener) {
        eventually("a gap is told", || events.try_next().filter(|line| line.contains("… gap: ")));
        self.are_told_by(events);
    }
}

#[test]
fn commands_those_next_in_line_and_events_go_on_when_the_leader_is_killed() {
    let (_etcd, users, leader, next) = cluster();
    let both = users.holder_and_waiter(&leader);
    let events = users.events();
    drop(leader.end_by(Signal::KILL));
    leads(&next);
    next.held("printer");
    next.waited_for_by("printer", 1);
    users.are_told_again_by(&events);
    users.ends(both);
    let granted = |line: &String| line.contains("granted") && line.contains("\"printer\"");
    eventually("the next one is granted", || events.try_next().filter(granted));
}

#[test]
fn nobody_waits_or_notices_when_the_leader_is_asked_to_stop() {
    let (_etcd, users, leader, next) = cluster();
    let both = users.holder_and_waiter(&leader);
    let events = users.events();
    drop(leader.end_by(Signal::TERM));
    leads(&next);
    // There is no grace period.
    let done = run(users.command(&["lock", "-w", "8s", "scanner", "--", "true"]));
    assert_eq!(done.code(), Some(0), "{}", done.err);
    users.are_told_again_by(&events);
    users.ends(both);
    eventually("events go on", || events.try_next().filter(|line| line.contains("\"printer\"")));
}

#[test]
fn a_leader_that_stands_still_is_left_for_the_next_one() {
    let (_etcd, users, leader, next) = cluster();
    let both = users.holder_and_waiter(&leader);
    leader.process.signal(Signal::STOP);
    leads(&next);
    // What was held is held there, by whoever noticed that nobody answers.
    next.held("printer");
    next.waited_for_by("printer", 1);
    users.ends(both);
    leader.process.signal(Signal::CONT);
}

#[test]
fn a_library_client_keeps_its_lock_its_watches_and_its_leaders() {
    let (_etcd, Users { home: _home, servers }, leader, next) = cluster();
    live(async {
        let client = Client::connect(&*servers).await.unwrap();
        let mut told = client.events();
        let crown = client.elect("crown", "ann").await.unwrap();
        let observer = Observer::connect(&*servers).await.unwrap();
        let mut watch = observer.watch("printer").await.unwrap();
        assert!(matches!(watch.next().await, Some(Ok(LockState::Free))));
        let mut leaders = client.observe("crown").await.unwrap();
        let led = leaders.next().await.unwrap().unwrap();
        assert!(matches!(led, Leadership::LedBy(it) if it.value == "ann"));
        let epoch = client.epoch();
        drop(leader.end_by(Signal::KILL));
        // Asked for while nobody leads, and granted after the grace period.
        let printer = client.lock("printer").await.unwrap();
        let seen = loop {
            let state = watch.next().await.unwrap().unwrap();
            if let Some(lock) = state.in_use() {
                break lock;
            }
        };
        assert_eq!(seen.holders[0].token, printer.token());
        assert!(crown.is_held() && printer.token() > crown.token() && client.epoch() > epoch);
        assert!(matches!(told.next().await, Some(SessionEvent::Disconnected { .. })));
        crown.release().await.unwrap();
        loop {
            if matches!(leaders.next().await.unwrap().unwrap(), Leadership::Vacant) {
                break;
            }
        }
    });
    drop(next);
}

#[test]
fn when_nobody_can_lead_commands_say_so_and_end_in_time() {
    let (mut etcd, users, leader, _standby) = cluster();
    etcd.kill();
    drop(leader.end_by(Signal::KILL));
    let began = std::time::Instant::now();
    let mut asked = users.command(&["status"]);
    asked.env("COORDINATOR_CONNECT_TIMEOUT", "4s");
    let done = run(asked);
    assert_eq!(done.code(), Some(69), "{}", done.err);
    assert!(done.err.starts_with("error: no coordinator "), "{}", done.err);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn strangers_and_python_go_on_at_the_next_leader() {
    let (_etcd, users, leader, next) = cluster();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stranger/client.py");
    let mut stranger = users.home.command("python3");
    stranger.args([script, &users.servers, "stranger", "60"]);
    let stranger = start(stranger);
    let client = "import os, sys, time\n\
        from coordinator_client import Client\n\
        client = Client(os.environ['COORDINATOR_SERVER'])\n\
        with client.lock('python') as hold:\n    \
            open('held', 'w').close()\n    \
            while not os.path.exists('done'):\n        \
                time.sleep(0.02)\n    \
            assert hold.acquired\n    \
            with client.lock('another'):\n        \
                print('both')\n";
    let mut python = users.home.command("python3");
    python.args(["-c", client]).current_dir(users.home.path(""));
    python.env("COORDINATOR_SERVER", &users.servers);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/python/src");
    let python = start({
        python.env("PYTHONPATH", path);
        python
    });
    eventually("python holds", || users.home.path("held").exists().then_some(()));
    leader.held("python");
    drop(leader.end_by(Signal::KILL));
    leads(&next);
    next.held("python");
    std::fs::write(users.home.path("done"), "").unwrap();
    let done = python.end();
    assert_eq!((done.code(), &*done.out), (Some(0), "both\n"), "{}", done.err);
    let done = stranger.end();
    assert_eq!(done.code(), Some(0), "{}", done.err);
    let tokens: Vec<u64> = done.out.lines().filter_map(|line| line.parse().ok()).collect();
    // The one that was granted when the leader died may be told twice.
    assert!([60, 61].contains(&tokens.len()) && tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
}
