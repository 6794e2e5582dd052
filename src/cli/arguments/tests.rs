//! Accepted and refused arguments.

use super::*;

fn read(line: &str) -> Result<Asked, clap::Error> {
    parse(line.split(' ').map(OsString::from))
}

fn lock(line: &str) -> LockArgs {
    match read(line).map(|asked| asked.command) {
        Ok(Command::Lock(args) | Command::Try(args)) => args,
        Ok(_) => panic!("another command"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_grammar_is_sound() {
    grammar().debug_assert();
}

#[test]
fn every_command_is_in_the_overview() {
    for command in grammar().get_subcommands() {
        assert!(COMMANDS.contains(&format!("\n  {}", command.get_name())), "{command}");
    }
}

#[test]
fn nothing_said_is_serve_and_its_flags_need_no_name() {
    assert!(matches!(read("coordinator").unwrap().command, Command::Serve));
    let asked = read("coordinator --ephemeral --listen 127.0.0.1:0").unwrap();
    assert!(matches!(asked.command, Command::Serve));
    assert_eq!(asked.flags["listen"], "127.0.0.1:0");
    assert_eq!(asked.flags["ephemeral"], "true");
    assert!(read("coordinator --ephemeral status").is_err());
}

#[test]
fn the_command_starts_at_the_first_word_after_the_name() {
    assert_eq!(lock("coordinator lock demo ls -l -n").command, ["ls", "-l", "-n"]);
    assert_eq!(lock("coordinator lock demo -- ls -l").command, ["ls", "-l"]);
    assert_eq!(lock("coordinator lock -n demo -- true").command, ["true"]);
    assert_eq!(lock("coordinator lock demo -n true -n").command, ["true", "-n"]);
    assert_eq!(lock("coordinator lock demo -c date").script.as_deref(), Some("date"));
    assert_eq!(lock("coordinator lock -c date demo").script.as_deref(), Some("date"));
    assert!(read("coordinator lock demo -c date -- ls").is_err());
}

#[test]
fn several_locks_are_named_before_the_command() {
    let args = lock("coordinator lock a --and b -s --and c ls --and d");
    assert_eq!(args.names(), ["a", "b", "c"]);
    assert_eq!(args.command, ["ls", "--and", "d"]);
    assert_eq!(lock("coordinator lock a -- ls").names(), ["a"]);
    assert!(read("coordinator lock a --and").is_err());
}

#[test]
fn settings_are_flags_of_their_commands_only() {
    assert_eq!(read("coordinator lock --ttl 20s demo").unwrap().flags["ttl"], "20s");
    assert_eq!(read("coordinator ls --server a:1").unwrap().flags["server"], "a:1");
    assert_eq!(read("coordinator events --server a:1 x").unwrap().flags["server"], "a:1");
    assert!(read("coordinator status --ttl 20s").is_err());
    assert!(read("coordinator config --ttl 20s --listen x").is_ok());
}

#[test]
fn modes_exclude_each_other_and_so_do_ways_to_wait() {
    assert!(read("coordinator lock -s --permits 2 demo").is_err());
    assert!(read("coordinator lock --take 2 demo").is_err());
    assert_eq!(lock("coordinator lock --permits 3 --take 2 demo").take, 2);
    assert!(read("coordinator lock -w soon demo").is_err());
    assert_eq!(lock("coordinator lock -w 0 demo").timeout, Some(Duration::ZERO));
    assert!(lock("coordinator try demo").without_waiting().unwrap().nonblock);
    assert!(lock("coordinator try -w 5 demo").without_waiting().is_err());
}

#[test]
fn what_runs_once_in_a_period_holds_its_lock_alone_and_does_not_wait() {
    let args = lock("coordinator lock --once-per 1h nightly -- ./job");
    assert_eq!(args.once_per, Some(Duration::from_secs(3_600)));
    for also in ["-w 5", "-s", "--permits 2", "--at-least 5m", "--reentrant"] {
        assert!(read(&format!("coordinator lock --once-per 1h {also} nightly -- ./job")).is_err());
    }
    assert!(read("coordinator lock --at-least 5m -s nightly -- ./job").is_err());
    assert!(read("coordinator lock --at-least 5m --permits 2 nightly -- ./job").is_err());
    assert_eq!(
        lock("coordinator lock --at-least 5m -w 5 n").at_least,
        Some(Duration::from_secs(300))
    );
}

#[test]
fn a_length_that_no_coordinator_grants_is_refused_with_the_longest() {
    for (flag, longest, longer, said) in [
        ("--at-least", "7d", "604801s", "7d at most"),
        ("--once-per", "7d18h40m", "672001s", "7d 18h 40m at most"),
        ("--lock-delay", "60s", "60001ms", "60s at most"),
    ] {
        assert!(read(&format!("coordinator lock {flag} {longest} demo -- true")).is_ok(), "{flag}");
        let told = read(&format!("coordinator lock {flag} {longer} demo -- true"));
        let told = told.err().unwrap().to_string();
        assert!(told.contains(said), "{told}");
    }
}

#[test]
fn what_is_said_last_is_meant() {
    let seconds = |line: &str| lock(line).timeout.map(|longest| longest.as_secs());
    assert_eq!(seconds("coordinator lock -w 5 -w 7 demo"), Some(7));
    assert_eq!(seconds("coordinator lock -n --nb -n demo"), None);
    let last = lock("coordinator lock -n -w 5 demo");
    assert_eq!((last.nonblock, last.timeout), (false, Some(Duration::from_secs(5))));
    let last = lock("coordinator lock --wait 5 -n demo");
    assert_eq!((last.nonblock, last.timeout), (true, None));
    assert!(lock("coordinator lock -x -s -s demo").shared);
    assert!(!lock("coordinator lock -s -e demo").shared);
    assert_eq!(lock("coordinator lock --and a --and b demo").names(), ["demo", "a", "b"]);
    let asked = read("coordinator lock --ttl 5s --ttl 7s demo").unwrap();
    assert_eq!(asked.flags["ttl"], "7s");
}

fn mistake(line: &str) -> Option<String> {
    let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
    empty_variable(&words).map(|failure| failure.plain())
}

#[test]
fn two_dashes_stand_between_a_name_and_a_command() {
    for line in ["lock -- ./job", "try -- ./job", "lock -w 5 -- ./job", "lock --ttl 5s -n -- a b"] {
        let told = mistake(&format!("coordinator {line}")).unwrap();
        assert!(told.starts_with("error: no lock is named before `--`\n"), "{line}: {told}");
    }
    for line in ["lock demo --", "try demo --", "lock -w 5 demo --and b --"] {
        let told = mistake(&format!("coordinator {line}")).unwrap();
        assert!(told.starts_with("error: no command follows `--`\n"), "{line}: {told}");
    }
    for line in [
        "lock demo",
        "lock demo --take 2 -- ls",
        "lock demo -- ls",
        "lock demo git log --",
        "lock demo -c date",
        "status --",
    ] {
        assert_eq!(mistake(&format!("coordinator {line}")), None, "{line}");
    }
}

#[test]
fn advice_is_no_worse_than_none() {
    let told = |line: &str| {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        advised(read(line).err().unwrap(), &words).to_string()
    };
    let typo = told("coordinator lock --timout 5 demo -- true");
    assert!(typo.contains("'--timeout'") && !typo.contains("as a value"), "{typo}");
    let unlock = told("coordinator unlock demo");
    assert!(unlock.contains("`release` ends") && !unlock.contains("'lock'"), "{unlock}");
    let negative = told("coordinator lock -w -1 demo -- true");
    assert!(negative.contains("'-1'") && negative.contains("expected 10s"), "{negative}");
    assert!(told("coordinator lock -w 5M demo").contains("for minutes write 5m"));
    for negative in [
        "lock demo --permits -1",
        "lock demo --at-least -1",
        "acquire demo --max -1",
        "acquire demo --while-pid -1",
        "release demo --force --token -1",
        "ping --count -1",
    ] {
        let negative = told(&format!("coordinator {negative}"));
        assert!(negative.contains("invalid value '-1'"), "{negative}");
    }
    for early in ["--server locks:1 status", "--server=locks:1 lock demo", "--config c lock demo"] {
        let early = told(&format!("coordinator {early}"));
        assert!(early.contains("comes after the command"), "{early}");
    }
    assert!(!told("coordinator --sever locks:1 status").contains("comes after"));
    assert!(!told("coordinator events --ttl 3s").contains("comes after"));
    for words in ["acquire demo make", "hold demo -- make"] {
        let command = told(&format!("coordinator {words}"));
        assert!(command.contains("`coordinator lock NAME -- COMMAND…` does"), "{command}");
    }
    assert!(told("coordinator version").contains("--version"));
}

#[test]
fn help_says_what_holds_if_nothing_is_said() {
    let mut whole = grammar();
    let help = whole.find_subcommand_mut("lock").unwrap().render_long_help().to_string();
    for default in
        ["[default: 10s]", "[default: 5s]", "[default: 127.0.0.1:5625]", "[default: kill]"]
    {
        assert!(help.contains(default), "{default}: {help}");
    }
}

#[test]
fn a_lock_is_taken_away_only_by_force_and_token() {
    assert!(read("coordinator release demo --token 7").is_err());
    assert!(read("coordinator release demo --force").is_err());
    assert!(read("coordinator release demo --force --token 7").is_ok());
}

#[test]
fn the_page_for_users_knows_the_flags_and_codes_that_there_are() {
    let page = include_str!("../../../docs/cli.md");
    let mut flags = vec!["and".to_owned(), "help".to_owned(), "config".to_owned()];
    for command in grammar().get_subcommands() {
        for arg in command.get_arguments() {
            flags.extend(
                arg.get_long_and_visible_aliases().into_iter().flatten().map(str::to_owned),
            );
        }
    }
    for (at, _) in page.match_indices("--") {
        let word = |c: &char| c.is_ascii_lowercase() || *c == '-';
        let flag: String = page[at + 2..].chars().take_while(word).collect();
        assert!(flag.is_empty() || flag.starts_with('-') || flags.contains(&flag), "--{flag}");
    }
    let table = page.lines().filter(|line| line.starts_with("| "));
    let told: Vec<&str> =
        table.flat_map(|line| line.split([' ', ',', ':'])).filter(|it| !it.is_empty()).collect();
    for code in EXIT_CODES.split_whitespace().filter(|it| it.parse::<u8>().is_ok()) {
        assert!(told.contains(&code), "{code} is not in the table");
    }
}
