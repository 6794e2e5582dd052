//! Signals, process groups, and the ends of waits.

use std::net::TcpListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Server, eventually, is_stopped, line_in, lives, run, start};

#[test]
fn a_signal_reaches_the_whole_group() {
    let server = Server::start();
    let pid = server.home.path("grandchild");
    let script = format!("sleep 60 & echo $! > {}; wait", pid.display());
    let command = start(server.client(&["lock", "demo", "-c", &script]));
    let grandchild = line_in(&pid);
    assert!(lives(&grandchild));
    command.signal(Signal::TERM);
    assert_eq!(command.end().code(), Some(143));
    eventually("the grandchild has gone too", || (!lives(&grandchild)).then_some(()));
    assert!(server.lock("demo").is_none());
}

#[test]
fn the_command_may_answer_a_signal_in_its_own_way() {
    let server = Server::start();
    let ready = server.home.path("ready");
    let script =
        format!("trap 'exit 4' USR1; echo yes > {}; while :; do sleep 0.01; done", ready.display());
    let command = start(server.client(&["lock", "demo", "-c", &script]));
    line_in(&ready);
    command.signal(Signal::USR1);
    assert_eq!(command.end().code(), Some(4));
}

#[test]
fn a_command_stops_and_goes_on_with_us() {
    let server = Server::start();
    let pid = server.home.path("command");
    // No loop: a shell that is stopped while it starts something waits for that, and is not stopped.
    let script = format!("echo $$ > {}; exec sleep 60", pid.display());
    let mut command = server.client(&["lock", "demo", "-c", &script]);
    // A job of its own, as a shell would make it.
    command.process_group(0);
    let command = start(command);
    let child = line_in(&pid);
    let ours = command.id();
    command.signal(Signal::TSTP);
    eventually("both have stopped", || (is_stopped(&child) && is_stopped(&ours)).then_some(()));
    command.signal(Signal::CONT);
    eventually("both go on", || (!is_stopped(&child) && !is_stopped(&ours)).then_some(()));
    command.signal(Signal::TERM);
    assert_eq!(command.end().code(), Some(143));
}

#[test]
fn who_stops_waiting_leaves_the_queue() {
    let server = Server::start();
    let _holder = start(server.client(&["lock", "demo", "--", "sleep", "60"]));
    server.held("demo");
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let waiter = start(server.client(&["lock", "demo", "--", "true"]));
        server.waited_for_by("demo", 1);
        waiter.signal(signal);
        assert_eq!(waiter.end().code_in_a_shell(), Some(code));
        server.waited_for_by("demo", 0);
    }
}

#[test]
fn holding_without_a_command_ends_in_order_on_a_signal() {
    let server = Server::start();
    let mut command = server.client(&["lock", "demo"]);
    // An input that does not end before the test does.
    let (input, _kept_open) = std::io::pipe().unwrap();
    command.stdin(input);
    let holder = start(command);
    server.held("demo");
    holder.signal(Signal::TERM);
    assert_eq!(holder.end().code(), Some(0));
    assert!(server.lock("demo").is_none());
}

#[test]
fn what_was_ignored_stays_ignored_for_us_and_the_command() {
    let server = Server::start();
    let ready = server.home.path("ready");
    // nohup(1), and what a script starts in its background.
    let script = "trap '' HUP INT QUIT; exec \"$0\" \"$@\"";
    let job = format!(
        "trap 'exit 4' USR1; grep SigIgn /proc/$$/status > {}; while :; do sleep 0.01; done",
        ready.display()
    );
    let mut command = server.home.command("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_coordinator"), "lock", "demo", "-c", &job]);
    command.env("COORDINATOR_SERVER", &server.address);
    let command = start(command);
    assert!(line_in(&ready).ends_with('7'), "the command does not ignore them");
    for signal in [Signal::HUP, Signal::INT, Signal::QUIT] {
        command.signal(signal);
    }
    // Were they passed on, the command would be dead before this reaches it.
    command.signal(Signal::USR1);
    assert_eq!(command.end().code(), Some(4));
}

#[test]
fn who_ignores_ctrl_c_waits_on() {
    let server = Server::start();
    let holder = start(server.client(&["lock", "demo", "--", "sleep", "60"]));
    server.held("demo");
    let mut command = server.home.command("sh");
    let script = "trap '' INT; exec \"$0\" lock demo -- echo mine";
    command.args(["-c", script, env!("CARGO_BIN_EXE_coordinator")]);
    command.env("COORDINATOR_SERVER", &server.address);
    let waiter = start(command);
    server.waited_for_by("demo", 1);
    waiter.signal(Signal::INT);
    holder.signal(Signal::TERM);
    let done = waiter.end();
    assert_eq!((done.code(), done.out.as_str()), (Some(0), "mine\n"));
}

#[test]
fn a_stopped_command_ends_by_what_ends_us() {
    let server = Server::start();
    let pid = server.home.path("command");
    let script = format!("echo $$ > {}; exec sleep 60", pid.display());
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let command = start(server.client(&["lock", "demo", "-c", &script]));
        let child = line_in(&pid);
        kill_process(Pid::from_raw(child.parse().unwrap()).unwrap(), Signal::STOP).unwrap();
        eventually("it has stopped", || is_stopped(&child).then_some(()));
        command.signal(signal);
        assert_eq!(command.end().code_in_a_shell(), Some(code));
        std::fs::remove_file(&pid).unwrap();
    }
}

#[test]
fn children_that_were_not_ours_leave_no_zombies() {
    let server = Server::start();
    // A shell that becomes us leaves us its children, as everybody does to the first of a container.
    let script = "sleep 0.1 & true & orphans=\"$! $(jobs -p)\"; \
                  exec \"$0\" lock demo -c 'for orphan in $1; do \
                  while test -e /proc/$orphan; do sleep 0.01; done; done; exit 3'";
    let script = script.replace("exec", "export orphans; exec").replace("$1", "$orphans");
    let mut command = server.home.command("bash");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_coordinator")]);
    command.env("COORDINATOR_SERVER", &server.address);
    let done = start(command).end();
    assert_eq!(done.code(), Some(3), "{}", done.err);
}

#[test]
fn who_is_killed_by_a_key_dies_of_it_so_that_a_shell_knows() {
    let server = Server::start();
    let done = run(server.client(&["lock", "demo", "-c", "kill -INT $$"]));
    assert_eq!(done.status.signal(), Some(2), "{}", done.err);
    assert!(server.lock("demo").is_none(), "released first");
    // Nothing else is a key, and what answers a key in its own way has ended by itself.
    for (script, code) in [("kill -TERM $$", 143), ("trap 'exit 130' INT; kill -INT $$", 130)] {
        let done = run(server.client(&["lock", "demo", "-c", script]));
        assert_eq!(done.code(), Some(code), "{script}: {}", done.err);
    }
}

#[test]
fn orphans_that_a_real_time_signal_killed_are_reaped_as_well() {
    let server = Server::start();
    let script = "sleep 60 & first=$!; sleep 60 & export orphans=\"$first $!\"; \
                  exec \"$0\" lock demo -c 'kill -34 ${orphans% *}; kill ${orphans#* }; \
                  for orphan in $orphans; do while test -e /proc/$orphan; do sleep 0.01; done; done'";
    let mut command = server.home.command("bash");
    command.args(["-c", script, env!("CARGO_BIN_EXE_coordinator")]);
    command.env("COORDINATOR_SERVER", &server.address);
    let done = run(command);
    assert_eq!(done.code(), Some(0), "{}", done.err);
}

#[test]
fn the_end_of_a_command_is_seen_at_once_where_its_signal_was_blocked() {
    let server = Server::start();
    let mut command = server.home.command("env");
    command.args(["--block-signal=CHLD", env!("CARGO_BIN_EXE_coordinator")]);
    // The next look at the lease would be long after this test.
    command.args(["lock", "--ttl", "10m", "demo", "--", "true"]);
    command.env("COORDINATOR_SERVER", &server.address);
    assert_eq!(run(command).code(), Some(0));
}

#[test]
fn a_signal_ends_whoever_asks_about_the_lock_that_it_runs_under() {
    let server = Server::start();
    // A coordinator that takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    for verb in ["lock", "hold", "acquire"] {
        let mut command =
            server.client(&[verb, "demo", "--server", &address, "--connect-timeout", "5m"]);
        command.env("COORDINATOR_HELD", "7 ab demo");
        command.env("XDG_RUNTIME_DIR", server.home.path(""));
        // An input that does not end.
        let (input, _open) = std::io::pipe().unwrap();
        command.stdin(input);
        let command = start(command);
        let _connected = silent.accept().unwrap();
        command.signal(Signal::TERM);
        assert_eq!(command.end().code(), Some(143), "{verb}");
    }
}

#[test]
fn a_release_that_nobody_answers_does_not_keep_who_is_told_to_end() {
    let server = Server::start();
    let pid = server.home.path("command");
    let script = format!("echo $$ > {}; read line", pid.display());
    let (input, open) = std::io::pipe().unwrap();
    let mut command = server.client(&["lock", "demo", "-c", &script]);
    command.stdin(input);
    let command = start(command);
    let child = line_in(&pid);
    server.process.signal(Signal::STOP);
    drop(open);
    let is_buried = || (!Path::new("/proc").join(&child).exists()).then_some(());
    eventually("the command has ended, and is buried", is_buried);
    let told_at = Instant::now();
    command.signal(Signal::TERM);
    assert_eq!(command.end().code(), Some(1));
    // Without the signal, two answers would be waited for, for two seconds each.
    assert!(told_at.elapsed() < Duration::from_millis(2_200), "{:?}", told_at.elapsed());
}
