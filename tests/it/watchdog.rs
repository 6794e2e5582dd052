//! What becomes of a command whose `coordinator lock` is killed, or stands still.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use coordinator::{Client, SessionKey};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    Running, Server, eventually, is_stopped, line_in, lives, run, start, started_by,
};

/// Long before any lease of these tests ends by itself.
const SOON: Duration = Duration::from_secs(20);

/// A command that ignores SIGTERM and writes down its id, and then a line for each step.
fn stubborn(pid: &Path, steps: &Path) -> String {
    format!(
        "trap '' TERM; echo $$ > {}; while :; do date +%s%N >> {}; done",
        pid.display(),
        steps.display()
    )
}

/// The watchdog of a `coordinator lock`, once it is ready.
fn watchdog_of(lock: &Running) -> String {
    eventually("a watchdog is there", || started_by(&lock.id(), "lock-watchdog").pop())
}

/// The watchdog of a `coordinator lock`, once it knows of the command: its timer is set then.
pub(crate) fn watchdog_on_duty(lock: &Running) -> String {
    let watchdog = watchdog_of(lock);
    eventually("the watchdog has a deadline", || {
        fs::read_dir(format!("/proc/{watchdog}/fdinfo")).ok()?.find_map(|file| {
            let facts = fs::read_to_string(file.ok()?.path()).ok()?;
            let left = facts.lines().find_map(|line| line.strip_prefix("it_value: "))?;
            (left != "(0, 0)").then_some(())
        })
    });
    watchdog
}

fn send(pid: &str, signal: Signal) {
    kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), signal).unwrap();
}

#[test]
fn a_command_and_its_children_die_with_a_killed_supervisor() {
    let server = Server::start();
    let [command, grandchild] = ["command", "grandchild"].map(|name| server.home.path(name));
    let script = format!(
        "sleep 60 & echo $! > {}; echo $$ > {}; wait",
        grandchild.display(),
        command.display()
    );
    let lock = start(server.client(&["lock", "--ttl", "1m", "demo", "-c", &script]));
    let (grandchild, command) = (line_in(&grandchild), line_in(&command));
    let watchdog = watchdog_on_duty(&lock);
    let killed = Instant::now();
    lock.signal(Signal::KILL);
    for pid in [command, grandchild, watchdog] {
        eventually("it has gone", || (!lives(&pid)).then_some(()));
    }
    assert!(killed.elapsed() < SOON, "it took {:?}", killed.elapsed());
}

#[test]
fn a_waiter_that_is_killed_makes_nobody_wait_for_its_lease() {
    let server = Server::start();
    let go = server.home.path("go");
    let script = format!("until [ -e {} ]; do :; done", go.display());
    let holder = start(server.client(&["lock", "demo", "-c", &script]));
    server.held("demo");
    let lock = |script: &str| start(server.client(&["lock", "--ttl", "1m", "demo", "-c", script]));
    let killed = lock("echo never");
    server.waited_for_by("demo", 1);
    let next = lock("echo at once");
    server.waited_for_by("demo", 2);
    killed.signal(Signal::KILL);
    killed.end();
    let began = Instant::now();
    fs::write(&go, "").unwrap();
    assert_eq!(next.end().out, "at once\n");
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    holder.end();
}

#[test]
fn a_command_that_ignores_sigterm_is_killed_after_its_supervisor() {
    let server = Server::start();
    let [pid, steps] = ["command", "steps"].map(|name| server.home.path(name));
    let script = stubborn(&pid, &steps);
    let words = ["lock", "--ttl", "1m", "--kill-after", "0.3", "demo", "-c", &script];
    let lock = start(server.client(&words));
    let pid = line_in(&pid);
    watchdog_on_duty(&lock);
    let killed = Instant::now();
    lock.signal(Signal::KILL);
    eventually("it has gone", || (!lives(&pid)).then_some(()));
    let lived = killed.elapsed();
    assert!(lived >= Duration::from_millis(300), "no farewell: {lived:?}");
    assert!(lived < SOON, "it lived for {lived:?}");
}

#[test]
fn a_command_that_was_stopped_dies_with_a_killed_supervisor() {
    let server = Server::start();
    let pid = server.home.path("command");
    let script = format!("echo $$ > {}; while :; do sleep 0.01; done", pid.display());
    let lock = start(server.client(&["lock", "--ttl", "1m", "demo", "-c", &script]));
    let pid = line_in(&pid);
    send(&pid, Signal::STOP);
    eventually("it has stopped", || is_stopped(&pid).then_some(()));
    watchdog_on_duty(&lock);
    lock.signal(Signal::KILL);
    eventually("it has gone", || (!lives(&pid)).then_some(()));
}

#[test]
fn a_command_is_dead_before_the_next_holder_of_a_supervisor_that_stands_still() {
    let server = Server::start();
    let [pid, steps, next] = ["command", "steps", "next"].map(|name| server.home.path(name));
    let script = stubborn(&pid, &steps);
    let lock = start(server.client(&["lock", "--ttl", "2s", "demo", "-c", &script]));
    let pid = line_in(&pid);
    let token = server.held("demo");
    let script = format!("date +%s%N > {}", next.display());
    let successor = start(server.client(&["lock", "demo", "-c", &script]));
    server.waited_for_by("demo", 1);

    lock.signal(Signal::STOP);
    assert_eq!(successor.end().code(), Some(0));
    assert!(!lives(&pid), "two hold the lock");
    let steps = fs::read_to_string(steps).unwrap();
    let last: u128 = steps.lines().next_back().unwrap().parse().unwrap();
    let next: u128 = line_in(&next).parse().unwrap();
    assert!(last < next, "its last step was {} ns after the next holder's first", last - next);

    lock.signal(Signal::CONT);
    let done = lock.end();
    assert_eq!(done.code(), Some(70), "{}", done.err);
    assert!(done.err.starts_with("error: lost \"demo\" after "), "{}", done.err);
    assert!(
        done.err.contains(": this process was stopped until its lease ended; "),
        "{}",
        done.err
    );
    assert!(done.err.contains(&format!("its token was {token}: ")), "{}", done.err);
}

#[test]
fn a_supervisor_that_stands_still_for_less_than_its_lease_keeps_everything() {
    let server = Server::start();
    let [ready, go_on] = ["ready", "go-on"].map(|name| server.home.path(name));
    let script = format!(
        "echo yes > {}; while ! test -e {}; do sleep 0.01; done",
        ready.display(),
        go_on.display()
    );
    let lock = start(server.client(&["lock", "--ttl", "1m", "demo", "-c", &script]));
    line_in(&ready);
    lock.signal(Signal::STOP);
    eventually("it has stopped", || is_stopped(&lock.id()).then_some(()));
    lock.signal(Signal::CONT);
    fs::write(&go_on, "").unwrap();
    assert_eq!(lock.end().code(), Some(0));
}

#[test]
fn a_lease_that_is_renewed_moves_the_deadline() {
    let server = Server::start();
    // Longer than a lease, which is longer than a busy machine stands still. Nothing to wait for but time itself.
    let done = run(server.client(&["lock", "--ttl", "5s", "demo", "--", "sleep", "6.5"]));
    assert_eq!(done.code(), Some(0), "{}", done.err);
}

#[test]
fn nothing_is_left_behind_by_an_orderly_end() {
    let server = Server::start();
    for (command, code) in [("read line", 1), ("read line; exit 7", 7)] {
        let (input, hold) = std::io::pipe().unwrap();
        let mut lock = server.client(&["lock", "demo", "-c", command]);
        lock.stdin(input);
        let lock = start(lock);
        let watchdog = watchdog_of(&lock);
        drop(hold);
        assert_eq!(lock.end().code(), Some(code));
        assert!(!Path::new(&format!("/proc/{watchdog}")).exists());
    }
    let holder = start(server.client(&["lock", "demo", "--", "sleep", "60"]));
    server.held("demo");
    let waiter = start(server.client(&["lock", "demo", "--", "true"]));
    let watchdog = watchdog_of(&waiter);
    waiter.signal(Signal::INT);
    assert_eq!(waiter.end().code_in_a_shell(), Some(130));
    assert!(!Path::new(&format!("/proc/{watchdog}")).exists());
    assert_eq!(run(server.client(&["try", "demo", "--", "true"])).code(), Some(75));
    drop(holder);
}

#[test]
fn a_watchdog_that_was_stopped_does_not_keep_its_supervisor() {
    let server = Server::start();
    let (input, hold) = std::io::pipe().unwrap();
    let mut lock = server.client(&["lock", "demo", "--", "cat"]);
    lock.stdin(input);
    let lock = start(lock);
    server.held("demo");
    let watchdog = watchdog_of(&lock);
    send(&watchdog, Signal::STOP);
    eventually("it has stopped", || is_stopped(&watchdog).then_some(()));
    drop(hold);
    assert_eq!(lock.end().code(), Some(0));
    assert!(!Path::new(&format!("/proc/{watchdog}")).exists());
}

#[test]
fn what_is_meant_for_the_supervisor_does_not_take_the_watchdog() {
    let server = Server::start();
    let pid = server.home.path("command");
    let script = format!("echo $$ > {}; while :; do sleep 0.01; done", pid.display());
    let lock = start(server.client(&["lock", "--ttl", "1m", "demo", "-c", &script]));
    let pid = line_in(&pid);
    let watchdog = watchdog_on_duty(&lock);
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::TSTP] {
        send(&watchdog, signal);
    }
    lock.signal(Signal::KILL);
    eventually("it has gone", || (!lives(&pid)).then_some(()));
}

#[test]
fn a_command_that_may_outlive_its_lock_is_not_watched() {
    let server = Server::start();
    let warn = start(server.client(&["lock", "--on-lost", "warn", "demo", "--", "sleep", "60"]));
    server.held("demo");
    eventually("the command runs", || started_by(&warn.id(), "sleep").pop());
    assert_eq!(started_by(&warn.id(), "lock-watchdog"), Vec::<String>::new());
}

#[test]
fn a_command_gets_no_file_but_its_own() {
    let server = Server::start();
    let script =
        "for n in 3 4 5 6 7 8 9 10 11 12; do test -e /proc/$$/fd/$n && echo $n; done; true";
    // What the tests were started with is in the hands of both.
    let mut plain = server.home.command("sh");
    plain.args(["-c", script]);
    let done = run(server.client(&["lock", "demo", "-c", script]));
    assert_eq!((done.code(), done.out), (Some(0), run(plain).out));
}

#[test]
fn a_lock_is_the_next_ones_as_soon_as_a_killed_supervisors_command_is_dead() {
    let server = Server::start();
    let lock = start(server.client(&["lock", "--ttl", "10m", "demo", "--", "sleep", "60"]));
    server.held("demo");
    let watchdog = watchdog_on_duty(&lock);
    let next = start(server.client(&["lock", "demo", "--", "echo", "mine"]));
    server.waited_for_by("demo", 1);
    lock.signal(Signal::KILL);
    let done = next.end();
    assert_eq!((done.code(), done.out.as_str()), (Some(0), "mine\n"), "{}", done.err);
    eventually("the watchdog has gone", || (!lives(&watchdog)).then_some(()));
}

#[test]
fn a_killed_supervisors_lock_is_not_released_while_its_command_lives() {
    let server = Server::start();
    let [pid, steps, next] = ["command", "steps", "next"].map(|name| server.home.path(name));
    let words = ["lock", "--ttl", "10m", "--kill-after", "0.5", "demo", "-c"];
    let mut lock = server.client(&words);
    // What is left of the group when its leader has ended counts as well.
    lock.arg(format!("({}) & echo $! > /dev/null; wait", stubborn(&pid, &steps)));
    let lock = start(lock);
    line_in(&pid);
    watchdog_on_duty(&lock);
    let script = format!("date +%s%N > {}", next.display());
    let successor = start(server.client(&["lock", "demo", "-c", &script]));
    server.waited_for_by("demo", 1);
    let killed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    lock.signal(Signal::KILL);
    assert_eq!(successor.end().code(), Some(0));
    let steps = fs::read_to_string(steps).unwrap();
    let last: u128 = steps.lines().next_back().unwrap().parse().unwrap();
    let next: u128 = line_in(&next).parse().unwrap();
    assert!(last < next, "its last step was {} ns after the next holder's first", last - next);
    assert!(next >= (killed + Duration::from_millis(500)).as_nanos(), "it had no farewell");
}

#[test]
fn a_killed_supervisors_lock_has_the_pause_that_was_asked_for() {
    let server = Server::start();
    let words = ["lock", "--ttl", "10m", "--lock-delay", "10s", "demo", "--", "sleep", "60"];
    let lock = start(server.client(&words));
    let token = server.held("demo");
    let watchdog = watchdog_on_duty(&lock);
    lock.signal(Signal::KILL);
    eventually("the watchdog has gone", || (!lives(&watchdog)).then_some(()));
    // Not given back: it is lost when its lease ends, and the pause begins.
    assert_eq!(server.held("demo"), token);
}

#[test]
fn a_watchdog_gives_up_a_coordinator_that_is_away() {
    let server = Server::start();
    let lock = start(server.client(&["lock", "--ttl", "3s", "demo", "--", "sleep", "60"]));
    server.held("demo");
    let watchdog = watchdog_on_duty(&lock);
    let _stopped = server.end_by(Signal::KILL);
    lock.signal(Signal::KILL);
    eventually("the watchdog has gone", || (!lives(&watchdog)).then_some(()));
}

#[test]
fn nobody_else_learns_from_a_watchdog_whose_session_it_is() {
    let server = Server::start();
    let lock = start(server.client(&["lock", "demo", "--", "sleep", "60"]));
    server.held("demo");
    let watchdog = watchdog_on_duty(&lock);
    let words = fs::read(format!("/proc/{watchdog}/cmdline")).unwrap();
    assert!(words.ends_with(b"\0__watch\x005000\0"), "{:?}", String::from_utf8_lossy(&words));
}

#[test]
fn whoever_has_the_key_of_a_session_can_end_it() {
    let server = Server::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::connect(server.address.as_str()).await.unwrap();
        let guard = client.lock("demo").await.unwrap();
        let bytes = client.session_key().to_bytes();
        for attempt in ["ends it", "finds it ended"] {
            let mut key = SessionKey::from_bytes(&bytes).unwrap();
            let closed = key.close(server.address.as_str(), SOON).await;
            assert!(closed.is_ok(), "{attempt}: {closed:?}");
        }
        guard.lost().await;
        assert!(client.status("demo").await.is_err(), "it is at its end");
        // Not with another secret.
        let client = Client::connect(server.address.as_str()).await.unwrap();
        assert!(client.status("demo").await.unwrap().is_none());
        let _guard = client.lock("demo").await.unwrap();
        let mut bytes = client.session_key().to_bytes();
        bytes[20] ^= 1;
        let mut key = SessionKey::from_bytes(&bytes).unwrap();
        let _refused = key.close(server.address.as_str(), SOON).await;
        assert!(client.status("demo").await.unwrap().is_some());
    });
}

#[test]
fn the_watchdog_is_in_no_help() {
    let server = Server::start();
    for words in [&["help"][..], &["completions", "bash"], &["man"]] {
        assert!(!run(server.client(words)).out.contains("__watch"));
    }
    assert_eq!(run(server.client(&["__watch"])).code(), Some(2), "without its argument");
    assert_eq!(run(server.client(&["__watch", "5"])).code(), Some(0), "with nothing to watch");
}

#[test]
fn a_watchdog_keeps_nothing_open_that_was_inherited() {
    let server = Server::start();
    let (input, _open) = std::io::pipe().unwrap();
    let mut lock = server.home.command("sh");
    let script = "exec 7</dev/zero; exec \"$0\" lock demo -- cat";
    lock.args(["-c", script, env!("CARGO_BIN_EXE_coordinator")]);
    lock.env("COORDINATOR_SERVER", &server.address).stdin(input);
    let lock = start(lock);
    server.held("demo");
    let fds = format!("/proc/{}/fd", watchdog_of(&lock));
    eventually("it is closed", || (!Path::new(&fds).join("7").exists()).then_some(()));
    assert!(Path::new(&fds).join("0").exists(), "its orders");
}
