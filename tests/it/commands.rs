//! What `lock`, `try`, `status` and the others print, and how they exit.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Done, Home, Server, run, run_with_input, start};

#[test]
fn the_command_runs_under_the_lock_and_its_exit_code_is_ours() {
    let server = Server::start();
    let code = |words: &[&str]| run(server.client(words)).code();
    assert_eq!(code(&["lock", "demo", "--", "true"]), Some(0));
    assert_eq!(code(&["lock", "demo", "sh", "-c", "exit 7"]), Some(7));
    assert_eq!(code(&["lock", "demo", "-c", "exit 8"]), Some(8));
    assert_eq!(code(&["try", "demo", "--", "sh", "-c", "exit 9"]), Some(9));
    assert_eq!(code(&["lock", "demo", "--", "sh", "-c", "kill -9 $$"]), Some(137));
    assert_eq!(code(&["lock", "demo", "--", "sh", "-c", "kill -TERM $$"]), Some(143));
    assert!(server.lock("demo").is_none(), "the lock is free again");
}

#[test]
fn a_command_that_cannot_run_is_126_and_one_that_is_not_there_127() {
    let server = Server::start();
    let missing = run(server.client(&["lock", "demo", "--", "no-such-command"]));
    assert_eq!(missing.code(), Some(127));
    assert!(missing.err.starts_with("error: command not found: \"no-such-command\"\n"));
    let file = server.home.path("plain");
    fs::write(&file, "not a program").unwrap();
    let plain = run(server.client(&["lock", "demo", "--", file.to_str().unwrap()]));
    assert_eq!(plain.code(), Some(126));
    assert!(plain.err.contains("(permission denied)"), "{}", plain.err);
    assert!(server.lock("demo").is_none());
}

#[test]
fn a_script_without_an_interpreter_is_run_by_the_shell() {
    let server = Server::start();
    let job = server.home.script("job", "echo it ran $1; exit 3\n");
    let done = run(server.client(&["lock", "demo", "--", &job, "well"]));
    assert_eq!((done.code(), done.out.as_str()), (Some(3), "it ran well\n"), "{}", done.err);
    // A program for another machine is not one.
    let other = server.home.script("other", "\x7fELF\0\0\0\0");
    let done = run(server.client(&["lock", "demo", "--", &other]));
    assert_eq!(done.code(), Some(126), "{}", done.err);
}

#[test]
fn the_command_is_told_about_its_lock() {
    let server = Server::start();
    let script = "echo $COORDINATOR_LOCK $COORDINATOR_SERVER; \
                  echo $COORDINATOR_FENCING_TOKEN; echo $COORDINATOR_SESSION";
    let done = run(server.client(&["lock", "orders/42", "-c", script]));
    let lines: Vec<&str> = done.out.lines().collect();
    assert_eq!(lines[0], format!("orders/42 {}", server.address));
    assert!(lines[1].parse::<u64>().unwrap() > 0);
    assert_eq!(lines[2].len(), 32);
    let script = "echo $COORDINATOR_LOCK; echo \"$COORDINATOR_LOCKS\"";
    let several = ["lock", "a, b", "--and", "c", "--", "sh", "-c", script];
    assert_eq!(run(server.client(&several)).out, "a, b\na, b\nc\n");
    // A coordinator run by the command accepts what it finds there.
    let nested = "\"$0\" lock inner -- true";
    let binary = env!("CARGO_BIN_EXE_coordinator");
    let done = run(server.client(&["lock", "outer", "--", "sh", "-c", nested, binary]));
    assert_eq!(done.code(), Some(0), "{}", done.err);
}

#[test]
fn the_command_inherits_standard_input() {
    let server = Server::start();
    let done = run_with_input(server.client(&["lock", "demo", "--", "cat"]), "hello\n");
    assert_eq!(done.out, "hello\n");
}

#[test]
fn a_busy_lock_is_75_and_names_its_holder() {
    let server = Server::start();
    let holder = ["lock", "--as", "ci-7", "--note", "deploy v2", "demo", "--", "sleep", "60"];
    let _holder = start(server.client(&holder));
    let token = server.held("demo");
    let busy = run(server.client(&["lock", "-n", "demo", "--", "true"]));
    assert_eq!(busy.code(), Some(75));
    assert!(busy.err.starts_with("error: \"demo\" is busy\n  held by  ci-7 ("), "{}", busy.err);
    assert!(busy.err.contains(&format!("  token {token}  note \"deploy v2\"\n")), "{}", busy.err);
    assert!(busy.err.ends_with("hint: wait for it with `coordinator lock -w 10m demo -- …`\n"));
    assert!(!busy.err.contains('\x1b'), "no colours where there is no terminal");

    let code = |words: &[&str]| run(server.client(words)).code();
    assert_eq!(code(&["try", "demo", "--", "true"]), Some(75));
    assert_eq!(code(&["lock", "-w", "0", "demo", "--", "true"]), Some(75));
    assert_eq!(code(&["lock", "-n", "-E", "9", "demo", "--", "true"]), Some(9));
    let late = run(server.client(&["lock", "-w", "50ms", "demo", "--", "true"]));
    assert_eq!(late.code(), Some(75));
    assert!(late.err.starts_with("error: \"demo\" did not become free within 50ms\n"));
}

#[test]
fn several_locks_are_had_together_or_not_at_all() {
    let server = Server::start();
    let hold = ["lock", "--as", "ci-7", "migrations", "--", "sleep", "60"];
    let _holder = start(server.client(&hold));
    server.held("migrations");
    let both = |flags: &[&str]| {
        let words = ["deploy", "--and", "migrations", "--", "true"];
        run(server.client(&[&["lock"], flags, &words].concat()))
    };
    let busy = both(&["-n"]);
    assert_eq!(busy.code(), Some(75));
    assert!(
        busy.err.starts_with("error: \"migrations\" is busy\n  held by  ci-7 ("),
        "{}",
        busy.err
    );
    let hint = "`coordinator lock -w 10m deploy --and migrations -- …`\n";
    assert!(busy.err.ends_with(hint), "{}", busy.err);
    assert!(server.lock("deploy").is_none());
    assert_eq!(both(&["-w", "50ms"]).code(), Some(75));
    let twice = ["lock", "deploy", "--and", "deploy", "--", "true"];
    assert_eq!(run(server.client(&twice)).code(), Some(2));
    let free = ["lock", "deploy", "--and", "build", "--", "true"];
    assert_eq!(run(server.client(&free)).code(), Some(0));
}

#[test]
fn a_waiter_gets_the_lock_when_the_holder_is_done() {
    let server = Server::start();
    let fifo = server.home.path("go-on");
    let wait = format!("while ! test -e {}; do sleep 0.01; done", fifo.display());
    let first = start(server.client(&["lock", "demo", "-c", &wait]));
    server.held("demo");
    let second = start(server.client(&["lock", "-q", "demo", "--", "echo", "mine"]));
    server.waited_for_by("demo", 1);
    fs::write(&fifo, "").unwrap();
    assert_eq!(first.end().code(), Some(0));
    let second = second.end();
    assert_eq!((second.code(), second.out.as_str()), (Some(0), "mine\n"));
    assert_eq!(second.err, "", "nothing is told to who does not want to know");
}

#[test]
fn shared_holders_and_permits_go_together() {
    let server = Server::start();
    let _first = start(server.client(&["lock", "-s", "read", "--", "sleep", "60"]));
    let two = ["lock", "--permits", "3", "--take", "2", "pool", "--", "sleep", "60"];
    let _second = start(server.client(&two));
    server.held("read");
    server.held("pool");
    let code = |words: &[&str]| run(server.client(words)).code();
    assert_eq!(code(&["try", "-s", "read", "--", "true"]), Some(0));
    assert_eq!(code(&["try", "-x", "read", "--", "true"]), Some(75));
    assert_eq!(code(&["try", "--permits", "3", "pool", "--", "true"]), Some(0));
    assert_eq!(code(&["try", "--permits", "3", "--take", "2", "pool", "--", "true"]), Some(75));
    assert_eq!(code(&["try", "--permits", "4", "pool", "--", "true"]), Some(75));
}

#[test]
fn without_a_command_the_lock_is_held_to_the_end_of_input() {
    let server = Server::start();
    let done = run_with_input(server.client(&["lock", "demo"]), "");
    assert_eq!(done.code(), Some(0));
    assert!(done.out.starts_with("holding \"demo\" token "), "{}", done.out);
    assert_eq!(done.out.lines().count(), 1);
    assert!(server.lock("demo").is_none());
}

#[test]
fn no_server_is_69_with_advice() {
    let home = Home::new();
    for command in ["ping", "status"] {
        let done = run(home.coordinator(&[command, "--server", "127.0.0.1:1"]));
        assert_eq!(done.code(), Some(69));
        assert_eq!(
            done.err,
            "error: no coordinator answers at 127.0.0.1:1 (connection refused)\n  \
             hint: start one with `coordinator serve`, or name another with --server or \
             COORDINATOR_SERVER\n"
        );
    }
    let done = run(home.coordinator(&["lock", "--server", "127.0.0.1:1", "demo", "--", "true"]));
    assert_eq!(done.code(), Some(69));
}

#[test]
fn wrong_usage_is_2() {
    let server = Server::start();
    for words in [
        &["lock"][..],
        &["lock", "--no-such-flag", "demo"],
        &["lock", "-w", "soon", "demo", "--", "true"],
        &["lock", "--ttl", "1ms", "demo", "--", "true"],
        &["lock", "", "--", "true"],
        &["lock", "--permits", "2", "--take", "3", "demo", "--", "true"],
        &["lock", "--note", "two\nlines", "demo", "--", "true"],
        &["release", "demo", "--token", "1"],
        &["no-such-command"],
    ] {
        let done = run(server.client(words));
        assert_eq!(done.code(), Some(2), "{words:?}: {}", done.err);
        assert!(done.err.starts_with("error: "), "{words:?}: {}", done.err);
    }
}

#[test]
fn status_shows_locks_to_people_and_programs() {
    let server = Server::start();
    let empty = run(server.client(&["status"]));
    assert!(empty.out.ends_with("\nnothing is locked\n"), "{}", empty.out);
    let free = run(server.client(&["ls", "demo"]));
    assert_eq!((free.code(), free.out.as_str()), (Some(1), "\"demo\" is free\n"));

    let _holder = start(server.client(&["lock", "--note", "n", "demo", "--", "sleep", "60"]));
    let token = server.held("demo");
    let _waiter = start(server.client(&["lock", "--as", "next", "demo", "--", "true"]));
    server.waited_for_by("demo", 1);
    let table = run(server.client(&["ls"]));
    assert!(table.out.contains(&token.to_string()), "{}", table.out);
    assert!(table.out.contains("1 waiting"), "{}", table.out);
    let one = run(server.client(&["status", "demo"]));
    assert!(one.out.contains("\n1      next ("), "{}", one.out);
    assert_eq!(one.code(), Some(0), "it is held");

    let json = run(server.client(&["status", "--json", "--sessions"]));
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["locks"][0]["name"], "demo");
    assert_eq!(json["locks"][0]["holders"][0]["token"], token);
    assert_eq!(json["locks"][0]["waiter_count"], 1);
    assert_eq!(json["sessions"].as_array().unwrap().len(), 2);
    assert_eq!(json["server"]["held"], 1);
}

#[test]
fn ping_asks_as_often_as_told() {
    let server = Server::start();
    let done = run(server.client(&["ping", "--count", "2"]));
    assert_eq!((done.code(), done.out.lines().count()), (Some(0), 2));
    assert!(done.out.starts_with(&server.address));
}

#[test]
fn config_says_where_each_setting_came_from() {
    let home = Home::new();
    let file = home.path("c.toml");
    fs::write(&file, "# ours\nttl = \"20s\"\n").unwrap();
    let mut command = home.coordinator(&["config", "--config", file.to_str().unwrap()]);
    command.args(["--kill-after", "1s"]).env("COORDINATOR_SERVER", "locks:1");
    let done = run(command);
    let line = |key: &str| {
        let is_of_it = |line: &&str| line.split_whitespace().next() == Some(key);
        let line = done.out.lines().find(is_of_it).unwrap();
        line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(line("ttl"), ["20s", &format!("{}:2", file.display()), "-"]);
    assert_eq!(line("kill-after"), ["1s", "flag", "-"]);
    assert_eq!(line("server"), ["locks:1", "COORDINATOR_SERVER", "-"]);
    assert_eq!(line("listen"), ["127.0.0.1:5625", "default", "restart"]);

    let json = run(home.coordinator(&["config", "--json"]));
    assert!(serde_json::from_str::<serde_json::Value>(&json.out).is_ok());
    fs::write(&file, "tll = \"20s\"\n").unwrap();
    let done = run(home.coordinator(&["config", "--config", file.to_str().unwrap()]));
    assert_eq!(done.code(), Some(2));
    assert!(done.err.ends_with("  hint: did you mean \"ttl\"?\n"), "{}", done.err);
}

#[test]
fn a_configuration_that_cannot_be_read_is_not_skipped() {
    let home = Home::new();
    // A directory can be read by nobody as a file, not even by root.
    fs::create_dir_all(home.path("xdg/coordinator/config.toml")).unwrap();
    let mut command = home.coordinator(&["config"]);
    let done = run_in(&mut command, &home.path("xdg"));
    assert_eq!(done.code(), Some(2), "{}", done.out);
    assert!(done.err.starts_with("error: cannot read the configuration /"), "{}", done.err);
    assert!(done.err.contains("--config /dev/null is no file"), "{}", done.err);
    // What is not there may be missing, also where its directory is something else.
    fs::write(home.path("file"), "").unwrap();
    for place in ["file", "nowhere"] {
        assert_eq!(run_in(&mut home.coordinator(&["config"]), &home.path(place)).code(), Some(0));
    }
    let mut other = home.coordinator(&["config", "--config", "/dev/null"]);
    assert_eq!(run_in(&mut other, &home.path("xdg")).code(), Some(0));
}

fn run_in(command: &mut Command, xdg: &Path) -> Done {
    command.env("XDG_CONFIG_HOME", xdg).output().unwrap().into()
}

#[test]
fn without_a_home_a_coordinator_asks_where_to_keep_its_state() {
    let home = Home::new();
    let mut command = home.coordinator(&["serve", "--listen", "127.0.0.1:0"]);
    command.env_remove("HOME").current_dir(home.path(""));
    let done = run(command);
    assert_eq!(done.code(), Some(2));
    assert!(done.err.starts_with("error: no directory to keep state in: HOME is not set\n"));
    assert!(done.err.contains("--data-dir"), "{}", done.err);
    assert_eq!(fs::read_dir(home.path("")).unwrap().count(), 0);
}

#[test]
fn a_log_filter_for_the_command_is_the_commands() {
    let server = Server::start();
    for filter in ["sqlx", "hyper,tower=debug", "no such level"] {
        let mut command = server.client(&["lock", "demo", "-c", "echo $RUST_LOG"]);
        command.env("RUST_LOG", filter);
        let done = run(command);
        assert_eq!((done.code(), done.err.as_str()), (Some(0), ""));
        assert_eq!(done.out, format!("{filter}\n"));
    }
}

#[test]
fn an_empty_variable_of_a_script_runs_nothing_and_holds_nothing() {
    let server = Server::start();
    for words in [&["lock", "--", "true"][..], &["try", "--", "true"], &["lock", "demo", "--"]] {
        let done = run(server.client(words));
        assert_eq!(done.code(), Some(2), "{words:?}");
        assert!(done.err.contains("before `--`") || done.err.contains("follows `--`"));
    }
}

#[test]
fn what_cannot_be_written_is_an_error_of_every_command() {
    let server = Server::start();
    let _holder = start(server.client(&["lock", "demo", "--", "sleep", "60"]));
    let token = server.held("demo").to_string();
    for words in [
        &["status"][..],
        &["status", "--json", "demo"],
        &["status", "--waits"],
        &["ping"],
        &["config"],
        &["config", "--json"],
        &["completions", "bash"],
        &["man"],
        &["man", "lock"],
        &["help"],
        &["lock", "--help"],
        &["--version"],
        &["hold", "-q", "--until-eof", "another"],
        &["bench", "--pairs", "1", "--quiet"],
        &["release", "demo", "--force", "--token", &token],
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = server.client(words);
        let done: Done = command.stdout(full).stderr(Stdio::piped()).output().unwrap().into();
        assert_eq!(done.code(), Some(74), "{words:?}: {}", done.err);
        assert_eq!(done.err, "error: cannot write the output (no space left on device)\n");
        // A reader who has seen enough is no error.
        let (gone, pipe) = std::io::pipe().unwrap();
        drop(gone);
        let mut command = server.client(words);
        let done: Done = command.stdout(pipe).stderr(Stdio::piped()).output().unwrap().into();
        let code = i32::from(words[0] == "release");
        assert_eq!(done.code(), Some(code), "{words:?}: {}", done.err);
        assert!(code == 1 || done.err.is_empty(), "{words:?}: {}", done.err);
    }
}

#[test]
fn papers_are_made_from_the_grammar() {
    let home = Home::new();
    for shell in ["elvish", "powershell"] {
        assert!(run(home.coordinator(&["completions", shell])).out.contains("drain-timeout"));
    }
    assert!(run(home.coordinator(&["man"])).out.contains(".SH SUBCOMMANDS"));
    assert!(run(home.coordinator(&["man", "lock"])).out.contains("conflict"));
    let commands = [
        "serve",
        "lock",
        "try",
        "hold",
        "acquire",
        "held",
        "status",
        "events",
        "ping",
        "release",
        "bench",
        "demo",
        "config",
        "completions",
        "man",
    ];
    for command in commands {
        let page = run(home.coordinator(&["man", command])).out;
        for section in ["ENVIRONMENT", "FILES", "EXIT STATUS", "EXAMPLES", "SEE ALSO"] {
            assert!(page.contains(&format!(".SH \"{section}\"\n")), "{command}: {section}");
        }
    }
    let page = run(home.coordinator(&["man", "lock"])).out;
    for said in
        ["COORDINATOR_FENCING_TOKEN", "COORDINATOR_ON_LOST", "config.toml", "\n.TP\n\\fB75\\fR\n"]
    {
        assert!(page.contains(said), "{said}: {page}");
    }
    for (command, said) in [
        ("hold", ["until the requested end", "\n.TP\n\\fB70\\fR\n", "the wait for the lock: 130"]),
        ("acquire", ["COORDINATOR_KEEPER", "XDG_RUNTIME_DIR", "COORDINATOR_FENCING_TOKEN"]),
        (
            "held",
            ["are still held, as the coordinator confirms", "nothing was acquired", "--keeper"],
        ),
        ("release", ["--force", "COORDINATOR_KEEPER", "coordinator release"]),
        ("lock", ["--once-per", "--supersede", "--at-least"]),
    ] {
        let page = run(home.coordinator(&["man", command])).out.replace("\\-", "-");
        for said in said {
            assert!(page.contains(said), "{command}: {said}: {page}");
        }
    }
    assert_eq!(run(home.coordinator(&["man", "lok"])).code(), Some(2));
    let version = run(home.coordinator(&["--version"]));
    assert_eq!(version.out, concat!("coordinator ", env!("CARGO_PKG_VERSION"), "\n"));
}
