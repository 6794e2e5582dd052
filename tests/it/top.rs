//! `coordinator top` in a real terminal (tmux): what an operator sees and does there.

use std::process::Command;

use rustix::process::Signal;

use crate::support::{Home, Server, eventually, run, start};

/// A terminal of its own, with a shell in it.
struct Terminal {
    home: Home,
    socket: String,
}

impl Terminal {
    /// One of 100 columns and 24 lines.
    fn open() -> Self {
        let home = Home::new();
        let socket = home.path("tmux").display().to_string();
        let terminal = Self { home, socket };
        let tmux = ["new-session", "-d", "-x", "100", "-y", "24"];
        assert_eq!(run(terminal.tmux(&[&tmux[..], &["env PS1='$ ' sh"]].concat())).code(), Some(0));
        terminal.until("$");
        terminal
    }

    fn tmux(&self, words: &[&str]) -> Command {
        let mut tmux = self.home.command("tmux");
        // No settings of this machine, a server of its own, and letters beyond ASCII.
        tmux.args(["-f", "/dev/null", "-u", "-S", &self.socket]).args(words);
        tmux.env("LC_ALL", "C.UTF-8").env("TERM", "xterm").env_remove("TMUX");
        tmux
    }

    fn type_in(&self, text: &str) {
        assert_eq!(run(self.tmux(&["send-keys", "-l", text])).code(), Some(0));
    }

    /// A key by its name.
    fn press(&self, key: &str) {
        assert_eq!(run(self.tmux(&["send-keys", key])).code(), Some(0));
    }

    fn screen(&self) -> String {
        run(self.tmux(&["capture-pane", "-p"])).out
    }

    /// Waits until this stands somewhere; the screen.
    fn until(&self, words: &str) -> String {
        eventually(words, || Some(self.screen()).filter(|screen| screen.contains(words)))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _gone = run(self.tmux(&["kill-server"]));
    }
}

/// Starts `coordinator top` for this server in the terminal.
fn top(terminal: &Terminal, server: &Server) {
    let program = env!("CARGO_BIN_EXE_coordinator");
    let line = format!("{program} top --server {} --interval 250ms", server.address);
    terminal.type_in(&line);
    terminal.press("Enter");
    terminal.until("[1 waits]");
}

#[test]
fn an_operator_finds_who_blocks_others_and_ends_it() {
    let server = Server::start();
    let holder = start(server.client(&["hold", "deploy", "--as", "ci-7", "--note", "v2.3"]));
    server.held("deploy");
    let _waiter = start(server.client(&["hold", "deploy", "--as", "bob"]));
    server.waited_for_by("deploy", 1);
    let token = server.held("deploy");
    let terminal = Terminal::open();
    top(&terminal, &server);
    let screen = terminal.until("deploy");
    assert!(screen.contains("ci-7") && screen.contains("v2.3"), "{screen}");
    terminal.until("live");

    // A filter that nothing contains, and none.
    terminal.type_in("/nothing");
    terminal.until("no row contains the filter");
    terminal.press("Escape");
    terminal.until("[1 waits]");

    // Into the lock, and the grant of its holder is broken there.
    terminal.press("Enter");
    terminal.until("1st");
    terminal.type_in("b");
    terminal.until(&format!("Break \"deploy\", token {token}"));
    terminal.type_in("deploy");
    terminal.press("Tab");
    terminal.type_in("it hangs");
    terminal.until("Enter breaks it");
    terminal.press("Enter");
    terminal.until(&format!("revoked \"deploy\" from the holder with token {token}"));
    assert_eq!(holder.end().code(), Some(70));
    eventually("the next in line is the only one left", || {
        let screen = terminal.screen();
        (screen.contains("bob") && !screen.contains("ci-7")).then_some(())
    });
}

#[test]
fn a_coordinator_that_goes_makes_the_screen_stale_and_its_return_is_seen() {
    let server = Server::start_durable();
    let terminal = Terminal::open();
    top(&terminal, &server);
    terminal.until("live");
    let stopped = server.end_by(Signal::KILL);
    let screen = terminal.until("STALE for");
    assert!(screen.contains("no coordinator answers at"), "{screen}");
    let _server = stopped.restart();
    terminal.until("live");
}

#[test]
fn events_are_heard_again_from_a_coordinator_that_was_away() {
    let server = Server::start_durable();
    let terminal = Terminal::open();
    top(&terminal, &server);
    terminal.until("live");
    let stopped = server.end_by(Signal::KILL);
    terminal.type_in("4");
    terminal.until("what happens is not heard: no coordinator answers");
    let server = stopped.restart();
    terminal.until("nothing has happened since");
    let _holder = start(server.client(&["hold", "deploy", "--as", "ci-7"]));
    terminal.until("granted");
}

#[test]
fn the_terminal_comes_back_as_it_was() {
    let server = Server::start();
    let terminal = Terminal::open();
    terminal.type_in("echo before");
    terminal.press("Enter");
    top(&terminal, &server);
    assert!(!terminal.screen().contains("echo before"));
    // Stopped, continued, of another size, and ended.
    terminal.press("C-z");
    assert!(terminal.until("Stopped").contains("echo before"));
    terminal.type_in("fg");
    terminal.press("Enter");
    let screen = terminal.until("[1 waits]");
    assert!(screen.starts_with("coordinator "), "all of it is drawn anew: {screen}");
    assert_eq!(run(terminal.tmux(&["resize-window", "-x", "40", "-y", "10"])).code(), Some(0));
    eventually("it is narrow", || {
        let screen = terminal.screen();
        screen
            .lines()
            .all(|line| line.chars().count() <= 40)
            .then_some(())
            .filter(|()| screen.contains("[1 waits]"))
    });
    terminal.type_in("q");
    let screen = terminal.until("$ fg");
    assert!(!screen.contains("waits]"), "{screen}");
    // What is typed is seen, and lines are lines.
    terminal.type_in("echo d''one");
    terminal.press("Enter");
    terminal.until("done");
}

#[test]
fn a_signal_ends_it_and_gives_the_terminal_back() {
    let server = Server::start();
    let terminal = Terminal::open();
    terminal.type_in("echo before");
    terminal.press("Enter");
    top(&terminal, &server);
    let program = env!("CARGO_BIN_EXE_coordinator");
    let mut kill = terminal.home.command("pkill");
    kill.args(["-TERM", "-f", &format!("^{program} top --server {}", server.address)]);
    assert_eq!(run(kill).code(), Some(0));
    terminal.until("before");
    terminal.type_in("echo $?");
    terminal.press("Enter");
    terminal.until("143");
}

#[test]
fn without_a_terminal_one_screen_is_printed() {
    let server = Server::start();
    let _holder = start(server.client(&["hold", "deploy"]));
    server.held("deploy");
    for words in [&["top"][..], &["top", "--once"]] {
        let done = run(server.client(words));
        assert_eq!(done.code(), Some(0), "{done:?}");
        assert!(done.out.starts_with("coordinator 0.1.0  127.0.0.1:"), "{done:?}");
        assert!(done.out.contains("nobody waits") && done.out.is_ascii(), "{done:?}");
    }
}

#[test]
fn without_a_coordinator_it_ends_with_69_and_a_haste_that_helps_nobody_with_2() {
    let home = Home::new();
    let done = run(home.coordinator(&["top", "--server", "127.0.0.1:1"]));
    assert_eq!(done.code(), Some(69), "{done:?}");
    let server = Server::start();
    let done = run(server.client(&["top", "--interval", "249ms"]));
    assert_eq!(done.code(), Some(2), "{done:?}");
    assert!(done.err.contains("250 ms"), "{done:?}");
}
