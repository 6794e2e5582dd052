//! Changes of leader, as the commands and the clients of users go through them.

use std::process::Command;

use coordinator::{Client, Leadership, LockState, Observer};

use crate::looking::Listener;
use crate::members::{Member, Role, servers};
use crate::support::{DEADLINE, Home, Running, Server, eventually, run, start};

/// Two members before a coordinator, of which the first leads.
fn pair() -> (Server, [Member; 2]) {
    let server = Server::start();
    let members = Member::several();
    members[0].becomes(Role::Leads(server.address.clone()));
    members[1].becomes(Role::Names(members[0].address.clone()));
    (server, members)
}

/// The first is dead, and the second leads.
fn fail_over(server: &Server, [a, b]: &[Member; 2]) {
    a.becomes(Role::Dead);
    b.becomes(Role::Leads(server.address.clone()));
}

/// `coordinator` with these words, which knows all members.
fn command(server: &Server, members: &[Member], words: &[&str]) -> Command {
    let mut command = server.home.coordinator(words);
    command.env("COORDINATOR_SERVER", servers(members));
    command
}

/// Holds the lock until a file is there.
fn holds(server: &Server, members: &[Member], lock: &str) -> Running {
    let script = format!("until [ -e {lock}.done ]; do sleep 0.02; done");
    let mut command = command(server, members, &["lock", lock, "--", "sh", "-c", &script]);
    command.current_dir(server.home.path(""));
    start(command)
}

#[test]
fn every_command_finds_the_leader_by_whichever_member_it_asks() {
    let (server, members) = pair();
    // Only the one that does not lead.
    let standby = |words: &[&str]| {
        let mut command = server.home.coordinator(words);
        command.env("COORDINATOR_SERVER", &members[1].address);
        run(command)
    };
    let holder = holds(&server, &members[1..], "kept");
    let token = server.held("kept").to_string();
    for words in [
        &["ping"][..],
        &["status"],
        &["status", "kept"],
        &["status", "--waits"],
        &["status", "--json"],
        &["top", "--once"],
        &["lock", "free", "--", "true"],
        &["try", "free", "--", "true"],
        &["release", "kept", "--token", &token, "--force", "--reason", "test"],
    ] {
        let done = standby(words);
        assert_eq!(done.code(), Some(0), "{words:?}: {}", done.err);
    }
    assert_eq!(holder.end().code(), Some(70), "it was revoked");
}

#[test]
fn a_command_runs_on_and_the_next_in_line_is_next_when_the_leader_dies() {
    let (server, members) = pair();
    let holder = holds(&server, &members, "printer");
    server.held("printer");
    let first = start(command(&server, &members, &["lock", "printer", "--", "echo", "first"]));
    server.waited_for_by("printer", 1);
    let events = Listener::start(command(&server, &members, &["events", "printer"]));
    // Whoever asks and is refused is an event.
    let told = || {
        run(command(&server, &members, &["try", "printer", "--", "true"]));
        events.try_next()
    };
    eventually("it listens", told);
    fail_over(&server, &members);
    eventually("a gap is told", || events.try_next().filter(|line| line.contains("… gap: ")));
    let second = start(command(&server, &members, &["lock", "printer", "--", "echo", "second"]));
    server.waited_for_by("printer", 2);
    std::fs::write(server.home.path("printer.done"), "").unwrap();
    for (waiter, says) in [(first, "first\n"), (second, "second\n")] {
        let done = waiter.end();
        assert_eq!((done.code(), &*done.out), (Some(0), says), "{}", done.err);
    }
    let done = holder.end();
    assert_eq!((done.code(), &*done.err), (Some(0), ""), "nobody noticed");
    // What happened before it had found the next leader is not told.
    eventually("events are told again", || told().filter(|line| line.contains("released")));
    assert!(members[1].connections() >= 4);
}

#[test]
fn a_server_that_is_no_coordinator_keeps_nobody_from_the_leader() {
    let server = Server::start();
    let members = Member::several::<3>();
    let [leader, stranger, next] = &members;
    stranger.becomes(Role::SpeaksHttp);
    let none_leads = |words: &[&str]| {
        let done = run(command(&server, &members, words));
        assert_eq!(done.code(), Some(69), "{words:?}: {}", done.err);
        let told = format!("{}: does not follow the protocol: it speaks HTTP", stranger.address);
        assert!(done.err.contains(&told), "{words:?}: {}", done.err);
    };
    none_leads(&["ping"]);
    leader.becomes(Role::Leads(server.address.clone()));
    let holder = holds(&server, &members, "printer");
    server.held("printer");
    let before = stranger.connections();
    leader.becomes(Role::Dead);
    eventually("the holder asks it, too", || (stranger.connections() > before).then_some(()));
    next.becomes(Role::Leads(server.address.clone()));
    let done = run(command(&server, &members, &["lock", "other", "--", "true"]));
    assert_eq!(done.code(), Some(0), "{}", done.err);
    std::fs::write(server.home.path("printer.done"), "").unwrap();
    let done = holder.end();
    assert_eq!((done.code(), &*done.err), (Some(0), ""), "nobody noticed");
}

#[test]
fn a_hand_over_moves_everybody_to_the_next_leader_and_nobody_waits() {
    let (server, members) = pair();
    let holder = holds(&server, &members, "printer");
    server.held("printer");
    let before = members[1].connections();
    members[1].becomes(Role::Leads(server.address.clone()));
    members[0].hands_over_to(&members[1]);
    eventually("it came", || (members[1].connections() > before).then_some(()));
    std::fs::write(server.home.path("printer.done"), "").unwrap();
    let done = holder.end();
    assert_eq!((done.code(), &*done.err), (Some(0), ""));
}

#[test]
fn when_nobody_leads_each_command_says_what_each_server_said() {
    let (server, members) = pair();
    members[0].becomes(Role::Dead);
    members[1].becomes(Role::Names(String::new()));
    for words in [
        &["ping"][..],
        &["status"],
        &["top", "--once"],
        &["events"],
        &["lock", "printer", "--", "true"],
        &["try", "printer", "--", "true"],
        &["release", "printer", "--token", "1", "--force"],
    ] {
        let mut asked = command(&server, &members, words);
        asked.env("COORDINATOR_CONNECT_TIMEOUT", "300ms");
        let done = run(asked);
        assert_eq!(done.code(), Some(69), "{words:?}: {}", done.err);
        let knows = format!("{}: it does not lead and knows nobody who does", members[1].address);
        assert!(done.err.starts_with("error: no coordinator leads at "), "{words:?}: {}", done.err);
        assert!(done.err.contains(&knows), "{words:?}: {}", done.err);
        assert!(done.err.contains("hint: a change of leader takes seconds"), "{}", done.err);
    }
}

#[test]
fn a_leader_that_comes_in_time_is_waited_for() {
    let (server, members) = pair();
    members[0].becomes(Role::Dead);
    members[1].becomes(Role::Names(String::new()));
    let waits = start(command(&server, &members, &["lock", "printer", "--", "echo", "mine"]));
    eventually("it was turned away", || (members[1].connections() > 1).then_some(()));
    members[1].becomes(Role::Leads(server.address.clone()));
    let done = waits.end();
    assert_eq!((done.code(), &*done.out), (Some(0), "mine\n"), "{}", done.err);
}

#[test]
fn two_that_name_each_other_are_no_storm() {
    let (server, members) = pair();
    members[0].becomes(Role::Names(members[1].address.clone()));
    let mut asked = command(&server, &members, &["ping"]);
    asked.env("COORDINATOR_CONNECT_TIMEOUT", "1s");
    assert_eq!(run(asked).code(), Some(69));
    let made = members[0].connections() + members[1].connections();
    assert!(made < 50, "{made} connections in a second");
}

#[test]
fn a_library_client_keeps_locks_watches_and_leaders_over_a_change_of_leader() {
    let (server, members) = pair();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let all = async {
        let client = Client::connect(servers(&members)).await.unwrap();
        let guard = client.elect("crown", "ann").await.unwrap();
        let observer = Observer::connect(servers(&members)).await.unwrap();
        let mut watch = observer.watch("printer").await.unwrap();
        assert!(matches!(watch.next().await, Some(Ok(LockState::Free))));
        let mut leaders = client.observe("crown").await.unwrap();
        let led = leaders.next().await.unwrap().unwrap();
        assert!(matches!(led, Leadership::LedBy(leader) if leader.value == "ann"));
        fail_over(&server, &members);
        let printer = client.lock("printer").await.unwrap();
        let seen = watch.next().await.unwrap().unwrap().in_use().expect("it is in use");
        assert_eq!(seen.holders[0].token, printer.token());
        assert!(guard.is_held());
        drop(guard);
        let mut next = leaders.next().await.unwrap().unwrap();
        while matches!(next, Leadership::LedBy(_)) {
            next = leaders.next().await.unwrap().unwrap();
        }
    };
    runtime.block_on(async { tokio::time::timeout(DEADLINE, all).await }).expect("it hangs");
}

#[test]
fn a_stranger_in_python_finds_the_leader() {
    let (_server, members) = pair();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stranger/client.py");
    // The standby first.
    let list = format!("{},{}", members[1].address, members[0].address);
    let mut command = Home::new().command("python3");
    command.args([script, &list, "stranger", "3"]);
    let done = run(command);
    assert_eq!(done.code(), Some(0), "{}", done.err);
    assert_eq!(done.out.lines().count(), 5, "{}", done.out);
}
