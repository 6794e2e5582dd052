//! Locks held over several steps: `acquire`, `held`, `release`; and `hold`.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Done, Running, Server, eventually, is_stopped, lives, run, start};

const BINARY: &str = env!("CARGO_BIN_EXE_coordinator");

/// A step of a job: a script that finds the program as `$0`. Whatever it acquires ends with the test.
fn step(server: &Server, script: &str) -> Command {
    let mut command = server.home.command("sh");
    let script = format!("acquire() {{ \"$0\" acquire \"$@\" --while-pid $TEST; }}; {script}");
    command.args(["-c", &script, BINARY]).env("COORDINATOR_SERVER", &server.address);
    command.env("TEST", std::process::id().to_string());
    command.env("XDG_RUNTIME_DIR", server.home.path(""));
    command
}

fn file(server: &Server) -> (PathBuf, String) {
    let path = server.home.path("kept");
    let shown = path.display().to_string();
    (path, shown)
}

/// Acquires `demo` with a file; the keeper's process.
fn acquired(server: &Server, words: &str) -> String {
    let (path, shown) = file(server);
    let done = run(step(server, &format!("acquire demo --keeper {shown} {words}")));
    assert_eq!(done.code(), Some(0), "{}", done.err);
    keeper_in(&fs::read_to_string(path).unwrap())
}

fn keeper_in(record: &str) -> String {
    let record: serde_json::Value = serde_json::from_str(record).unwrap();
    record["pid"].as_u64().unwrap().to_string()
}

fn with_file(server: &Server, words: &[&str]) -> Done {
    let (_, shown) = file(server);
    run(server.client(&[words, &["--keeper", &shown]].concat()))
}

fn send(pid: &str, signal: Signal) {
    kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), signal).unwrap();
}

#[test]
fn what_one_step_acquires_another_gives_back() {
    let server = Server::start();
    let pid = acquired(&server, "");
    let token = server.held("demo");
    assert!(lives(&pid));
    let held = with_file(&server, &["held"]);
    assert_eq!((held.code(), held.out), (Some(0), format!("\"demo\" held, token {token}\n")));
    assert_eq!(run(server.client(&["try", "demo", "--", "true"])).code(), Some(75));
    let released = with_file(&server, &["release"]);
    assert_eq!(
        (released.code(), released.out),
        (Some(0), format!("released \"demo\" token {token}\n"))
    );
    assert!(server.lock("demo").is_none());
    assert!(!lives(&pid) && !file(&server).0.exists());
    for words in ["held", "release"] {
        let done = with_file(&server, &[words]);
        assert_eq!((done.code(), done.err.as_str()), (Some(1), "error: nothing is held here\n"));
    }
}

#[test]
fn a_script_holds_what_it_acquires_until_it_releases() {
    let server = Server::start();
    let script = "eval \"$(acquire demo --and \"it's\" --export)\"; \"$0\" held; \
                  echo $COORDINATOR_LOCK $COORDINATOR_FENCING_TOKEN; \
                  \"$0\" release; \"$0\" try demo -- echo free";
    let done = run(step(&server, script));
    assert_eq!(done.code(), Some(0), "{}", done.err);
    let lines: Vec<&str> = done.out.lines().collect();
    let token = lines[1].strip_prefix("demo ").unwrap();
    assert_eq!(
        [lines[0], lines[2], lines[3]],
        [
            &format!("\"demo\", \"it's\" held, token {token}"),
            &format!("released \"demo\", \"it's\" token {token}"),
            "free"
        ]
    );
}

#[test]
fn several_are_given_back_by_name_or_all_at_once() {
    let server = Server::start();
    let script = "for lock in a b c; do eval \"$(acquire $lock --export)\"; done; \
                  \"$0\" release b >/dev/null; \"$0\" release b; echo $?; \"$0\" held a; \"$0\" release";
    let done = run(step(&server, script));
    let word = |line: &str| line.split(" token").next().unwrap().to_owned();
    let lines: Vec<String> = done.out.lines().map(word).collect();
    assert_eq!(lines, ["1", "\"a\" held,", "released \"c\"", "released \"a\""], "{}", done.err);
    assert!(done.err.contains("\"b\" is not held here, only \"c\", \"a\""), "{}", done.err);
}

#[test]
fn nobody_waits_for_the_end_of_a_keeper() {
    let server = Server::start();
    // All of it is read to its end: standard output, error, and a copy of them that was inherited.
    let done = run(step(&server, "exec 3>&1 4>&2; acquire demo"));
    assert_eq!(done.code(), Some(0), "{}", done.err);
    assert!(done.out.starts_with("holding \"demo\" token "), "{}", done.out);
    server.held("demo");
}

#[test]
fn variables_are_printed_as_lines_for_a_file() {
    let server = Server::start();
    let done = run(step(&server, "acquire demo --and more --env"));
    let token = server.held("demo");
    let place = fs::read_dir(server.home.path("coordinator")).unwrap().next().unwrap().unwrap();
    let keeper = format!("COORDINATOR_KEEPER={}\n", place.path().display());
    assert!(done.out.starts_with(&keeper), "{}", done.out);
    assert!(done.out.contains(&format!("\nCOORDINATOR_FENCING_TOKEN={token}\n")), "{}", done.out);
    assert!(done.out.lines().all(|line| line.starts_with("COORDINATOR_")), "{}", done.out);
    // The next step has them.
    let mut release = server.client(&["release"]);
    release.env("COORDINATOR_KEEPER", place.path());
    assert_eq!(run(release).code(), Some(0));
    assert!(server.lock("more").is_none());
}

#[test]
fn a_busy_lock_is_told_as_by_lock_and_nothing_is_left_behind() {
    let server = Server::start();
    let _holder = start(server.client(&["lock", "demo", "--", "sleep", "60"]));
    server.held("demo");
    for (words, code) in [("-n", 75), ("-w 0.1 -E 9", 9), ("-n --server 127.0.0.1:1", 69)] {
        let done = run(step(&server, &format!("acquire demo {words}")));
        assert_eq!((done.code(), done.out.as_str()), (Some(code), ""), "{words}: {}", done.err);
    }
    let done = run(step(&server, "acquire demo -n"));
    assert!(done.err.contains("`coordinator acquire -w 10m demo`"), "{}", done.err);
    assert_eq!(fs::read_dir(server.home.path("coordinator")).unwrap().count(), 0);
}

#[test]
fn a_script_that_evaluates_what_failed_fails() {
    let server = Server::start();
    let _holder = start(server.client(&["lock", "demo", "--", "sleep", "60"]));
    server.held("demo");
    let config = server.home.path("config");
    fs::write(&config, "nonsense = 1\n").unwrap();
    let config = format!("demo --config {}", config.display());
    for (words, code) in [("demo -n", 75), ("$EMPTY", 2), ("demo --expotr", 2), (&config, 2)] {
        let script = format!("set -e; eval \"$(acquire {words} --export)\"; echo goes on");
        let done = run(step(&server, &script));
        assert_eq!((done.code(), done.out.as_str()), (Some(code), ""), "{words}: {}", done.err);
    }
}

/// Somebody who waits for `demo`, in a process of its own and nothing else.
fn waiting(server: &Server) -> Running {
    let pid = std::process::id().to_string();
    let mut command = server.client(&["acquire", "demo", "--while-pid", &pid]);
    command.env("XDG_RUNTIME_DIR", server.home.path(""));
    let waiting = start(command);
    server.waited_for_by("demo", 1);
    waiting
}

#[test]
fn who_gives_up_waiting_leaves_no_keeper_in_line() {
    let server = Server::start();
    let _holder = start(server.client(&["lock", "demo", "--", "sleep", "60"]));
    server.held("demo");
    for (signal, code) in
        [(Signal::INT, Some(130)), (Signal::TERM, Some(143)), (Signal::KILL, Some(137))]
    {
        let waiting = waiting(&server);
        waiting.signal(signal);
        assert_eq!(waiting.end().code_in_a_shell(), code);
        server.waited_for_by("demo", 0);
    }
}

#[test]
fn what_cannot_be_told_is_given_back() {
    let server = Server::start();
    let done = run(step(&server, "acquire demo --export >/dev/full"));
    assert_eq!(done.code(), Some(74), "{}", done.err);
    eventually("it is free", || server.lock("demo").is_none().then_some(()));
}

#[test]
fn what_nobody_reads_is_given_back_and_not_waited_for() {
    let server = Server::start();
    let acquire = |output: OwnedFd| {
        let mut command = server.client(&["acquire", "demo", "--export"]);
        command.env("XDG_RUNTIME_DIR", server.home.path(""));
        command.stdout(output).stderr(Stdio::piped()).spawn().unwrap()
    };
    // A shell that is gone before it gets the lock, and those that go while it waits.
    let (reader, output) = std::io::pipe().unwrap();
    let gone_before = acquire(output.into());
    drop(reader);
    let done = gone_before.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(74), "{done:?}");
    eventually("it is free", || server.lock("demo").is_none().then_some(()));

    let _holder = start(server.client(&["lock", "demo", "--", "sleep", "60"]));
    server.held("demo");
    let (reader, output) = std::io::pipe().unwrap();
    let (peer, socket) = UnixStream::pair().unwrap();
    let readers: [(OwnedFd, OwnedFd); 2] =
        [(reader.into(), output.into()), (peer.into(), socket.into())];
    for (reader, output) in readers {
        let waiter = acquire(output);
        server.waited_for_by("demo", 1);
        drop(reader);
        let done = waiter.wait_with_output().unwrap();
        assert_eq!(done.status.code(), Some(74), "{done:?}");
        server.waited_for_by("demo", 0);
    }
}

#[test]
fn a_busy_lock_is_not_to_be_told_as_held() {
    let server = Server::start();
    for verb in ["acquire", "hold"] {
        let done = run(server.client(&[verb, "demo", "-n", "-E", "0"]));
        assert_eq!((done.code(), done.out.as_str()), (Some(2), ""), "{verb}: {}", done.err);
        assert!(done.err.contains("-E 0 would report a busy lock as held"), "{}", done.err);
    }
}

#[test]
fn a_parent_that_ignores_the_ends_of_children_is_told_the_same() {
    let server = Server::start();
    let _holder = start(server.client(&["lock", "demo", "--", "sleep", "60"]));
    server.held("demo");
    let done = run(step(&server, "exec env --ignore-signal=CHLD \"$0\" acquire demo -n"));
    assert_eq!(done.code(), Some(75), "{}", done.err);
}

#[test]
fn the_keepers_coordinator_is_asked_whichever_this_step_names() {
    let server = Server::start();
    acquired(&server, "");
    let other = Server::start();
    let (_, shown) = file(&server);
    let words = ["held", "--keeper", &shown];
    let done = run(other.client(&words));
    assert_eq!(done.code(), Some(0), "{}", done.err);
    // Unless it is said here.
    let words = ["held", "--keeper", &shown, "--server", "127.0.0.1:1"];
    assert_eq!(run(server.client(&words)).code(), Some(69));
}

#[test]
fn a_loss_is_told_to_the_steps_that_follow() {
    let server = Server::start();
    let pid = acquired(&server, "");
    let token = server.held("demo").to_string();
    let words = ["release", "demo", "--force", "--token", &token];
    assert_eq!(run(server.client(&words)).code(), Some(0));
    eventually("the keeper has gone", || (!lives(&pid)).then_some(()));
    for words in ["held", "release"] {
        let done = with_file(&server, &[words]);
        assert_eq!(done.code(), Some(70), "{words}: {}", done.err);
        let told = "error: lost \"demo\": an operator revoked it\n";
        assert!(done.err.starts_with(told), "{}", done.err);
        assert!(done.err.contains(&format!("its token was {token}: ")), "{}", done.err);
    }
    assert_eq!(with_file(&server, &["release"]).code(), Some(1), "told once");
}

#[test]
fn the_number_of_a_killed_keeper_is_not_signalled() {
    let server = Server::start();
    let pid = acquired(&server, "");
    send(&pid, Signal::KILL);
    eventually("it has gone", || (!lives(&pid)).then_some(()));
    // The number is another's by now.
    let other = Command::new("sleep").arg("60").spawn().unwrap();
    let (path, _) = file(&server);
    let record = fs::read_to_string(&path).unwrap();
    fs::write(&path, record.replace(&format!("\"pid\":{pid}"), &format!("\"pid\":{}", other.id())))
        .unwrap();
    for words in ["held", "release"] {
        let done = with_file(&server, &[words]);
        assert_eq!(done.code(), Some(70), "{}", done.err);
        assert!(done.err.contains("its keeper process died"), "{}", done.err);
    }
    assert!(lives(&other.id().to_string()));
    let (mut other, _) = (other, server);
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_keeper_that_was_stopped_is_released_all_the_same() {
    let server = Server::start();
    let pid = acquired(&server, "--ttl 1m");
    send(&pid, Signal::STOP);
    eventually("it has stopped", || is_stopped(&pid).then_some(()));
    assert_eq!(with_file(&server, &["release"]).code(), Some(0));
    assert!(server.lock("demo").is_none());
}

#[test]
fn a_record_that_others_can_write_is_not_believed() {
    let server = Server::start();
    let pid = acquired(&server, "");
    let (path, _) = file(&server);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    for words in ["held", "release"] {
        let done = with_file(&server, &[words]);
        assert_eq!(done.code(), Some(2), "{}", done.err);
        assert!(done.err.contains("others can write to it"), "{}", done.err);
    }
    assert!(lives(&pid));
}

#[test]
fn a_keeper_ends_with_the_process_it_holds_for() {
    let server = Server::start();
    let mut job = Command::new("sleep").arg("60").spawn().unwrap();
    let words = ["acquire", "demo", "--while-pid", &job.id().to_string()];
    let mut command = server.client(&words);
    command.env("XDG_RUNTIME_DIR", server.home.path(""));
    assert_eq!(run(command).code(), Some(0));
    server.held("demo");
    // As a zombie it does nothing any more.
    job.kill().unwrap();
    eventually("it is free", || server.lock("demo").is_none().then_some(()));
    eventually("nothing is left behind", || {
        let left = fs::read_dir(server.home.path("coordinator")).unwrap().count();
        (left == 0).then_some(())
    });
    let gone = job.id().to_string();
    job.wait().unwrap();
    let done = run(server.client(&["acquire", "demo", "--while-pid", &gone]));
    assert_eq!(done.code(), Some(2), "{}", done.err);
}

#[test]
fn nothing_is_held_for_longer_than_was_said() {
    let server = Server::start();
    acquired(&server, "--max 0.1");
    eventually("it is free", || server.lock("demo").is_none().then_some(()));
    let done = eventually("it has ended", || {
        let done = with_file(&server, &["held"]);
        (done.code() != Some(0)).then_some(done)
    });
    assert_eq!(done.code(), Some(70), "{}", done.err);
    assert!(done.err.contains("the limit set by --max"), "{}", done.err);
}

#[test]
fn what_was_acquired_is_not_waited_for_by_the_same_job() {
    let server = Server::start();
    let script = "eval \"$(acquire demo --export)\"; ask() { \"$0\" \"$@\" -- echo inner; echo $?; }; \
                  ask lock demo 2>/dev/null; unset COORDINATOR_HELD; ask lock demo 2>/dev/null; \
                  ask lock --reentrant demo; acquire demo; echo $?; \"$0\" hold demo; echo $?";
    let done = run(step(&server, script));
    assert_eq!(
        done.out.lines().collect::<Vec<_>>(),
        ["2", "2", "inner", "0", "2", "2"],
        "{}",
        done.err
    );
}

#[test]
fn a_file_in_use_is_not_taken_over_and_one_of_an_ended_keeper_is() {
    let server = Server::start();
    let pid = acquired(&server, "");
    let (_, shown) = file(&server);
    let second = run(step(&server, &format!("acquire other --keeper {shown}")));
    assert_eq!(second.code(), Some(2), "{}", second.err);
    assert!(second.err.contains("is in use: a keeper holds \"demo\""), "{}", second.err);
    send(&pid, Signal::TERM);
    eventually("it has gone", || (!lives(&pid)).then_some(()));
    assert!(server.lock("demo").is_none(), "in good order");
    acquired(&server, "");
}

#[test]
fn a_keeper_survives_a_restart_of_the_coordinator() {
    let server = Server::start_durable();
    acquired(&server, "");
    let token = server.held("demo");
    let server = server.stop_and_restart();
    let held = with_file(&server, &["held"]);
    assert_eq!(
        (held.code(), held.out),
        (Some(0), format!("\"demo\" held, token {token}\n")),
        "{}",
        held.err
    );
    assert_eq!(with_file(&server, &["release"]).code(), Some(0));
}

#[test]
fn hold_ends_when_it_is_told_to_and_not_with_its_input() {
    let server = Server::start();
    let holder = start(server.client(&["hold", "demo"]));
    let token = server.held("demo");
    assert!(lives(&holder.id()));
    holder.signal(Signal::TERM);
    let done = holder.end();
    assert_eq!((done.code(), done.out), (Some(0), format!("holding \"demo\" token {token}\n")));
    assert!(server.lock("demo").is_none());
    let (input, open) = std::io::pipe().unwrap();
    let mut until_eof = server.client(&["hold", "demo", "--until-eof"]);
    until_eof.stdin(input);
    let holder = start(until_eof);
    server.held("demo");
    drop(open);
    assert_eq!(holder.end().code(), Some(0));
}

#[test]
fn a_lock_that_would_be_held_for_nothing_is_not_taken() {
    let server = Server::start();
    let mut command = server.client(&["lock", "demo"]);
    command.stdin(Stdio::null());
    let done = run(command);
    assert_eq!((done.code(), done.out.as_str()), (Some(2), ""), "{}", done.err);
    assert!(done.err.contains("`coordinator acquire demo`"), "{}", done.err);
    assert!(server.lock("demo").is_none());
}

#[test]
fn who_acquires_twice_is_told_of_the_first_and_steps_that_ask_again_have_no_more_to_carry() {
    let server = Server::start();
    let script = r#"
        eval "$(acquire demo --export)" || exit
        once=$COORDINATOR_HELD
        eval "$("$0" held --export)" && eval "$("$0" held --export)"
        [ "$once" = "$COORDINATOR_HELD" ] || echo "$COORDINATOR_HELD"
        acquire demo || echo "code $?"
        "$0" release
        "$0" held
    "#;
    let done = run(step(&server, script));
    let said: Vec<&str> = done.out.lines().collect();
    assert!(
        matches!(said[..], ["code 2", released] if released.starts_with("released")),
        "{said:?}"
    );
    assert!(
        done.err.starts_with("error: \"demo\" is already acquired here (token "),
        "{}",
        done.err
    );
    assert!(done.err.contains("coordinator lock --reentrant demo -- "), "{}", done.err);
    // Who only asks is not told how to take a lock from others.
    assert!(!done.err.contains("--force"), "{}", done.err);
}
