//! Completions, in the shells themselves: what a press of the Tab key makes of a line.

use std::path::Path;

use crate::support::{Home, Server, eventually, run, start};
use crate::terminal::Screen;

const TAB: &str = "\t";
/// Bound to a function that shows the line between `<` and `>`, and empties it.
const SHOW: &str = "\x18";

/// How often names of locks are asked for: each time the coordinator has less than half a second to tell them.
const PRESSES_MAX: usize = 10;

/// Lines as they are typed, and what one press of Tab makes of them, in any shell.
const COMPLETED: [(&str, &str); 7] = [
    ("coordinator pin", "coordinator ping "),
    ("coordinator lock --reen", "coordinator lock --reentrant "),
    ("coordinator lock dep", "coordinator lock deploy "),
    ("coordinator lock --on-lost wa", "coordinator lock --on-lost warn "),
    ("coordinator serve --log de", "coordinator serve --log debug "),
    ("coordinator lock deploy -- xtra", "coordinator lock deploy -- xtraordinary "),
    ("coordinator lock -w 5 deploy xtra", "coordinator lock -w 5 deploy xtraordinary "),
];

/// A server that holds `deploy`, and a file that tells a shell of completions, of our program and of
/// another that can be run under a lock.
fn prepared(shell: &str) -> (Server, String) {
    let server = Server::start();
    let home = &server.home;
    let script = run(home.coordinator(&["completions", shell])).out;
    let script = home.script(&format!("completions.{shell}"), &script);
    home.script("xtraordinary", "");
    let ours = Path::new(env!("CARGO_BIN_EXE_coordinator")).parent().unwrap().display();
    let own = home.path("").display().to_string();
    let begin = match shell {
        "fish" => format!("set -gx PATH {ours} {own} $PATH; source {script}\n"),
        "zsh" => format!(
            "PATH={ours}:{own}:$PATH; PS1='$ '; autoload -Uz compinit; compinit -u -D; source {script}\n\
             show() {{ zle -I; print -r -- \"<$BUFFER>\"; BUFFER=''; }}; zle -N show; bindkey '^X' show\n"
        ),
        _ => format!(
            "PATH={ours}:{own}:$PATH; source {script}\n\
             show() {{ printf '<%s>\\n' \"$READLINE_LINE\"; READLINE_LINE=; }}; bind -x '\"\\C-x\": show'\n"
        ),
    };
    let begin = home.script(&format!("begin.{shell}"), &begin);
    (server, begin)
}

/// Types lines into a shell on a terminal, and looks at what becomes of them.
fn complete_on_a_terminal(server: &Server, words: &[&str], begin: &str) {
    let _holder = start(server.client(&["lock", "deploy", "--", "sleep", "60"]));
    server.held("deploy");
    let mut screen = Screen::open(server, words);
    screen.type_in(&format!("source {begin}; echo rea\\dy\n"));
    screen.expect("ready");
    for (typed, completed) in COMPLETED {
        completes(&mut screen, typed, completed);
    }
}

/// A press of Tab makes this of what is typed; another one, as a user would, if nothing came of the first.
fn completes(screen: &mut Screen, typed: &str, completed: &str) {
    let mut shown = Vec::new();
    while shown.last().is_none_or(|it| it != completed) {
        assert!(shown.len() < PRESSES_MAX, "{typed:?} becomes {shown:?}");
        screen.type_in(&format!("{typed}{TAB}{SHOW}"));
        screen.expect("<");
        shown.push(screen.expect(">"));
    }
}

#[test]
fn bash_completes_commands_flags_values_names_of_locks_and_the_command_under_them() {
    let (server, begin) = prepared("bash");
    complete_on_a_terminal(&server, &["bash", "--norc", "-i"], &begin);
}

#[test]
fn bash_completes_the_same_with_the_usual_functions_for_completion() {
    let (server, begin) = prepared("bash");
    // Where they are not installed, this is the test before once more.
    let usual = "/usr/share/bash-completion/bash_completion";
    let both = format!("test ! -e {usual} || source {usual}; source {begin}\n");
    let begin = server.home.script("both.bash", &both);
    complete_on_a_terminal(&server, &["bash", "--norc", "-i"], &begin);
}

#[test]
fn zsh_completes_commands_flags_values_names_of_locks_and_the_command_under_them() {
    let (server, begin) = prepared("zsh");
    complete_on_a_terminal(&server, &["zsh", "-f", "-i"], &begin);
}

#[test]
fn fish_completes_commands_flags_values_names_of_locks_and_the_command_under_them() {
    let (server, begin) = prepared("fish");
    let _holder = start(server.client(&["lock", "deploy", "--", "sleep", "60"]));
    server.held("deploy");
    for (typed, completed) in COMPLETED {
        let fish = || {
            let mut fish = server.home.command("fish");
            fish.args(["--no-config", "-c", &format!("source {begin}; complete -C '{typed}'")]);
            fish.env("COORDINATOR_SERVER", &server.address);
            fish
        };
        eventually(typed, || {
            let done = run(fish());
            let first = done.out.lines().next().unwrap_or_default();
            let word = first.split('\t').next().unwrap_or_default();
            (Some(word) == completed.trim_end().rsplit(' ').next()).then_some(())
        });
    }
}

#[test]
fn without_a_coordinator_nothing_is_said_and_nothing_is_waited_for() {
    let home = Home::new();
    // Nobody listens there.
    let mut asked = home.coordinator(&["__complete", "lock", "--server", "127.0.0.1:1", "dep"]);
    asked.env("COORDINATOR_NONSENSE_SERVER", "x");
    let done = run(asked);
    assert_eq!((done.out.as_str(), done.err.as_str()), (":none\n", ""));
    assert_eq!(done.code(), Some(0));
}

#[test]
fn names_with_blanks_and_colons_are_completed_as_one_word() {
    let (server, begin) = prepared("bash");
    let _holder = start(server.client(&["lock", "site: main", "--", "sleep", "60"]));
    server.held("site: main");
    let mut screen = Screen::open(&server, &["bash", "--norc", "-i"]);
    screen.type_in(&format!("source {begin}; echo rea\\dy\n"));
    screen.expect("ready");
    completes(&mut screen, "coordinator status si", "coordinator status site:\\ main ");
}
