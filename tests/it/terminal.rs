//! On a terminal: whose it is, what Ctrl-C and Ctrl-Z do, what a waiter is shown.
//!
//! `setsid --ctty` makes the far end of a pseudo-terminal the controlling terminal of a session of
//! its own, as a terminal window does.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::support::{Running, Server, eventually, line_in, run, start};

/// A terminal with a shell or a command on it.
pub(crate) struct Screen {
    /// Our end: what is written here is typed.
    keys: File,
    /// All that was shown so far.
    shown: Arc<Mutex<String>>,
    /// How much of it was looked at.
    seen: usize,
    /// What runs there, killed with the screen.
    _session: Running,
}

impl Screen {
    /// Runs `words` with `server`'s settings on a terminal of its own.
    pub(crate) fn open(server: &Server, words: &[&str]) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        let theirs = OpenOptions::new().read(true).write(true).open(name).unwrap();

        let mut command: Command = server.home.command("setsid");
        command.args(["--ctty", "--wait"]).args(words);
        command.env("COORDINATOR_SERVER", &server.address);
        command.env("COORDINATOR", env!("CARGO_BIN_EXE_coordinator")).env("PS1", "$ ");
        command.env("TERM", "xterm").env_remove("LESS");
        // What runs there writes to the terminal, though its parent would rather have pipes.
        let redirected = ["sh", "-c", "exec \"$@\" <&0 >&0 2>&0", "sh"];
        let mut whole = server.home.command(redirected[0]);
        whole.args(&redirected[1..]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                whole.env(name, value);
            }
        }
        whole.stdin(Stdio::from(theirs));
        let session = start(whole);

        let keys = File::from(ours);
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut screen, text) = (keys.try_clone().unwrap(), Arc::clone(&shown));
        thread::spawn(move || {
            let mut buffer = [0; 1024];
            // Reading fails when nobody has the far end any more.
            while let Ok(len @ 1..) = screen.read(&mut buffer) {
                text.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..len]));
            }
        });
        Self { keys, shown, seen: 0, _session: session }
    }

    /// A shell with job control, as people have it.
    fn shell(server: &Server) -> Self {
        Self::open(server, &["bash", "--norc", "--noediting", "-i"])
    }

    /// Waits until the shell reads what is typed.
    fn expect_the_shell(&mut self) {
        self.type_in("echo back $((40 + 2))\n");
        self.expect("back 42");
    }

    pub(crate) fn type_in(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `text` is shown after all that was waited for before; what stands between the two.
    pub(crate) fn expect(&mut self, text: &str) -> String {
        let what = format!("{text:?} is shown");
        let (shown, seen) = (&self.shown, self.seen);
        let found = || shown.lock().unwrap()[seen..].find(text);
        let give_up = std::panic::AssertUnwindSafe(|| eventually(&what, found));
        let at = std::panic::catch_unwind(give_up)
            .unwrap_or_else(|_| panic!("no {text:?} in {:?}", &shown.lock().unwrap()[seen..]));
        let between = shown.lock().unwrap()[seen..seen + at].to_owned();
        self.seen += at + text.len();
        between
    }
}

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_Q: &str = "\x11";
const CTRL_S: &str = "\x13";
const CTRL_Z: &str = "\x1a";

#[test]
fn ctrl_c_reaches_the_command_and_the_terminal_comes_back() {
    let server = Server::start();
    let command = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.01; done";
    let script = "\"$COORDINATOR\" lock demo -c \"$0\"; echo code $?; read line; echo got $line";
    let mut screen = Screen::open(&server, &["sh", "-c", script, command]);
    screen.expect("ready");
    screen.type_in(CTRL_C);
    screen.expect("caught");
    screen.expect("code 5");
    // A shell in the background could not read.
    screen.type_in("more\n");
    screen.expect("got more");
}

/// A script that locks, and goes on.
fn script_around(server: &Server, lock: &str) -> String {
    server.home.script("around", &format!("\"$COORDINATOR\" lock {lock}\necho went on $?\n"))
}

#[test]
fn ctrl_c_ends_the_script_around_a_command_too() {
    let server = Server::start();
    let script = script_around(&server, "demo -c 'echo ready; exec sleep 60'");
    for shell in ["bash", "dash"] {
        let mut screen = Screen::shell(&server);
        screen.type_in(&format!("{shell} {script}\n"));
        screen.expect("ready");
        screen.type_in(CTRL_C);
        screen.expect("$ ");
        screen.type_in("echo code $?\n");
        screen.expect("code 130");
        assert!(!screen.shown.lock().unwrap().contains("went on"), "{shell}");
        assert!(server.lock("demo").is_none(), "{shell}");
    }
}

#[test]
fn what_coordinator_alone_was_sent_and_passed_on_reaches_nobody_else_of_the_job() {
    let server = Server::start();
    let parent = server.home.path("parent");
    let command = format!("echo $PPID > {}; exec sleep 60", parent.display());
    let script =
        "trap 'echo the script, too' INT; \"$COORDINATOR\" lock demo -c \"$0\"; echo code $?";
    let mut screen = Screen::open(&server, &["sh", "-c", script, &command]);
    let coordinator = line_in(&parent).parse().ok().and_then(Pid::from_raw).unwrap();
    kill_process(coordinator, Signal::INT).unwrap();
    screen.expect("code 130");
    assert!(!screen.shown.lock().unwrap().contains("the script, too"));
}

#[test]
fn ctrl_c_while_waiting_ends_the_script_which_would_go_on_without_the_lock() {
    let server = Server::start();
    let _holder = start(server.client(&["lock", "demo", "--", "sleep", "60"]));
    server.held("demo");
    let script = script_around(&server, "demo -- true");
    for shell in ["bash", "dash"] {
        let mut screen = Screen::shell(&server);
        screen.type_in(&format!("{shell} {script}\n"));
        server.waited_for_by("demo", 1);
        screen.type_in(CTRL_C);
        screen.expect("$ ");
        screen.type_in("echo code $?\n");
        screen.expect("code 130");
        assert!(!screen.shown.lock().unwrap().contains("went on"), "{shell}");
        server.waited_for_by("demo", 0);
    }
}

#[test]
fn ctrl_c_ends_the_loop_around_a_command() {
    let server = Server::start();
    let mut screen = Screen::shell(&server);
    screen.type_in(
        "for i in 1 2; do \"$COORDINATOR\" lock demo -c 'echo rea''dy; exec sleep 60'; done\n",
    );
    screen.expect("ready");
    screen.type_in(CTRL_C);
    screen.expect("$ ");
    screen.expect_the_shell();
    assert_eq!(screen.shown.lock().unwrap().matches("ready").count(), 1);
}

#[test]
fn a_command_that_could_not_be_run_has_not_had_its_turn() {
    let server = Server::start();
    let script = "for it in no-such-command \"$0\"; do \
                  \"$COORDINATOR\" lock --at-least 1h demo -- $it; echo code $?; done";
    let mut screen = Screen::open(&server, &["sh", "-c", script, "/dev/null"]);
    screen.expect("command not found: \"no-such-command\"");
    screen.expect("code 127");
    screen.expect("cannot run \"/dev/null\"");
    screen.expect("code 126");
    assert!(server.lock("demo").is_none());
    // One that ran has, whatever its exit code.
    let script = "\"$COORDINATOR\" lock --at-least 1h demo -c 'exit 127'; echo code $?";
    let mut screen = Screen::open(&server, &["sh", "-c", script]);
    screen.expect("code 127");
    assert_eq!(run(server.client(&["try", "demo", "--", "true"])).code(), Some(75));
}

#[test]
fn the_command_reads_the_terminal() {
    let server = Server::start();
    let script = "\"$COORDINATOR\" lock demo -- cat; echo code $?";
    let mut screen = Screen::open(&server, &["sh", "-c", script]);
    server.held("demo");
    screen.type_in("hello\n");
    screen.expect("hello");
    screen.expect("hello");
    screen.type_in(CTRL_D);
    screen.expect("code 0");
}

#[test]
fn ctrl_z_gives_the_shell_its_terminal_and_fg_goes_on() {
    let server = Server::start();
    let mut screen = Screen::shell(&server);
    // A shell that is to be stopped while it starts something waits for that, and is not stopped.
    screen.type_in("\"$COORDINATOR\" lock demo -c 'echo rea''dy; exec cat'\n");
    screen.expect("ready");
    screen.type_in(CTRL_Z);
    screen.expect("Stopped");
    screen.expect_the_shell();
    screen.type_in("fg\n");
    screen.type_in("hello\n");
    screen.expect("hello");
    screen.expect("hello");
    screen.type_in(CTRL_D);
    screen.type_in("echo code $?\n");
    screen.expect("code 0");
}

#[test]
fn a_stopped_command_whose_lock_was_lost_is_killed_and_not_continued() {
    let server = Server::start();
    let mut screen = Screen::shell(&server);
    screen.type_in(
        "\"$COORDINATOR\" lock --ttl 2s demo -c 'echo rea''dy; read line; echo alive $((40 + 2))'\n",
    );
    screen.expect("ready");
    screen.type_in(CTRL_Z);
    screen.expect("Stopped");
    eventually("the lease has ended", || server.lock("demo").is_none().then_some(()));
    screen.type_in("fg\n");
    screen.expect("error:");
    screen.expect("lost \"demo\" after ");
    screen.type_in("echo code $?\n");
    screen.expect("code 70");
    assert!(!screen.shown.lock().unwrap().contains("alive 42"));
}

#[test]
fn a_waiter_is_shown_whom_it_waits_for() {
    let server = Server::start();
    let go_on = server.home.path("go-on");
    let wait = format!("while ! test -e {}; do sleep 0.01; done", go_on.display());
    let holder = start(server.client(&["lock", "--as", "ci-7", "demo", "-c", &wait]));
    server.held("demo");
    let script = "\"$COORDINATOR\" lock demo -- echo mine";
    let mut screen = Screen::open(&server, &["sh", "-c", script]);
    screen.expect("waiting for \"demo\": held by ci-7 for ");
    screen.expect("you are 1st in line");
    std::fs::write(&go_on, "").unwrap();
    assert_eq!(holder.end().code(), Some(0));
    screen.expect("\r\x1b[Kmine");
}

/// Asks on the terminal with the echo off, as those do who want a password, whatever the input is.
const ASK: &str = "stty -echo </dev/tty; echo as''king; read -r word </dev/tty; \
                   stty echo </dev/tty; echo got $word and $(cat)";

#[test]
fn a_command_whose_input_is_a_pipe_asks_on_the_terminal() {
    let server = Server::start();
    let mut screen = Screen::shell(&server);
    screen.type_in(&format!("echo data | \"$COORDINATOR\" lock demo -c '{ASK}'; echo code $?\n"));
    screen.expect("asking");
    screen.type_in("secret\n");
    screen.expect("got secret and data");
    screen.expect("code 0");
    screen.expect_the_shell();
}

#[test]
fn ctrl_c_ends_a_command_that_asks_on_the_terminal() {
    let server = Server::start();
    let mut screen = Screen::shell(&server);
    screen.type_in("echo data | \"$COORDINATOR\" lock demo -- cat /dev/tty\n");
    server.held("demo");
    // Once it has answered, it reads on.
    screen.type_in("hello\n");
    screen.expect("hello");
    screen.expect("hello");
    screen.type_in(CTRL_C);
    // What is typed before belongs to whoever has the terminal.
    screen.expect("$ ");
    screen.type_in("echo code $?\n");
    screen.expect("code 130");
    screen.expect_the_shell();
}

#[test]
fn ctrl_z_stops_a_command_that_asks_on_the_terminal_and_fg_goes_on() {
    let server = Server::start();
    let mut screen = Screen::shell(&server);
    screen.type_in(
        "echo data | \"$COORDINATOR\" lock demo -c 'exec </dev/tty; read -r a; echo a is $a; exec cat'\n",
    );
    screen.type_in("one\n");
    screen.expect("a is one");
    screen.type_in(CTRL_Z);
    screen.expect("Stopped");
    screen.expect_the_shell();
    screen.type_in("fg\n");
    screen.expect("lock demo");
    screen.type_in("two\n");
    screen.expect("two");
    screen.expect("two");
    screen.type_in(CTRL_D);
    screen.type_in("echo code $?\n");
    screen.expect("code 0");
}

#[test]
fn a_background_job_that_asks_for_the_terminal_stops_and_has_it_after_fg() {
    let server = Server::start();
    let mut screen = Screen::shell(&server);
    screen.type_in("\"$COORDINATOR\" lock demo -c 'read -r word </dev/tty; echo got $word' &\n");
    server.held("demo");
    screen.type_in("until jobs -s | grep .; do :; done\n");
    screen.expect("Stopped");
    screen.type_in("fg\n");
    screen.type_in("secret\n");
    screen.expect("got secret");
    screen.expect_the_shell();
}

#[test]
fn a_pager_behind_a_command_has_the_terminal() {
    let server = Server::start();
    let mut screen = Screen::shell(&server);
    screen.type_in(
        "\"$COORDINATOR\" lock demo -c 'seq 1 100000' | less; echo code ${PIPESTATUS[*]}\n",
    );
    screen.expect("1\r\n2\r\n");
    screen.type_in("q");
    screen.expect("code 141 0");
    screen.expect_the_shell();
    assert!(!screen.shown.lock().unwrap().contains("Stopped"));
}

#[test]
fn ctrl_z_stops_a_pipeline_and_fg_goes_on() {
    let server = Server::start();
    let mut screen = Screen::shell(&server);
    screen.type_in("\"$COORDINATOR\" lock demo -c 'echo rea''dy; exec sleep 60' | cat\n");
    screen.expect("ready");
    screen.type_in(CTRL_Z);
    screen.expect("Stopped");
    screen.expect_the_shell();
    screen.type_in("fg\n");
    screen.expect("| cat");
    screen.type_in(CTRL_C);
    // What is typed before belongs to whoever has the terminal.
    screen.expect("$ ");
    screen.type_in("echo code $?\n");
    screen.expect("code ");
    eventually("the command has gone", || server.lock("demo").is_none().then_some(()));
}

#[test]
fn ctrl_c_is_not_for_a_background_job_of_a_script() {
    let server = Server::start();
    let go_on = server.home.path("go-on");
    let job = format!(
        "echo rea''dy; while ! test -e {}; do sleep 0.01; done; echo fin''ished",
        go_on.display()
    );
    let script =
        "trap 'echo cau''ght' INT; \"$COORDINATOR\" lock demo -c \"$0\" & wait; wait; echo code $?";
    let mut screen = Screen::open(&server, &["bash", "-c", script, &job]);
    screen.expect("ready");
    screen.type_in(CTRL_C);
    screen.expect("caught");
    std::fs::write(&go_on, "").unwrap();
    screen.expect("finished");
    screen.expect("code 0");
}

#[test]
fn a_script_without_an_interpreter_runs_on_a_terminal() {
    let server = Server::start();
    let job = server.home.script("job", "echo it ran $1\n");
    let script = "\"$COORDINATOR\" lock demo -- \"$0\" well; echo code $?";
    let mut screen = Screen::open(&server, &["sh", "-c", script, &job]);
    screen.expect("it ran well");
    screen.expect("code 0");
}

#[test]
fn a_program_that_is_replaced_while_it_waits_runs_the_command() {
    let server = Server::start();
    let [installed, new] = ["coordinator", "new"].map(|name| server.home.path(name));
    for file in [&installed, &new] {
        std::fs::copy(env!("CARGO_BIN_EXE_coordinator"), file).unwrap();
    }
    let holder = start(server.client(&["lock", "demo", "--", "sleep", "60"]));
    server.held("demo");
    let script = "\"$0\" lock demo -- echo deployed; echo code $?";
    let mut screen = Screen::open(&server, &["sh", "-c", script, installed.to_str().unwrap()]);
    server.waited_for_by("demo", 1);
    // As installers do it.
    std::fs::rename(&new, &installed).unwrap();
    holder.signal(rustix::process::Signal::TERM);
    screen.expect("deployed");
    screen.expect("code 0");
}

#[test]
fn a_waiter_whose_terminal_stands_still_keeps_its_place() {
    let server = Server::start();
    let holder = start(server.client(&["lock", "--ttl", "1m", "demo", "--", "sleep", "60"]));
    server.held("demo");
    let script = "\"$COORDINATOR\" lock --ttl 2s demo -- echo mine; echo code $?";
    let mut screen = Screen::open(&server, &["sh", "-c", script]);
    screen.expect("you are 1st in line");
    screen.type_in(CTRL_S);
    // Two leases long, in which nothing can be written.
    let waited = || server.lock("demo").unwrap()["waiters"][0]["waiting_ms"].as_u64();
    let since = waited().expect("it waits");
    eventually("it has waited", || {
        (waited().expect("it waits still") > since + 4_000).then_some(())
    });
    holder.signal(rustix::process::Signal::TERM);
    screen.type_in(CTRL_Q);
    screen.expect("mine");
    screen.expect("code 0");
}
