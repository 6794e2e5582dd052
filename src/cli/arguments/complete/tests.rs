use super::*;

/// The candidates after `line`, whose last word is at the cursor, and what the shell is to add.
fn after(line: &str) -> (Vec<String>, Then) {
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let names = |at: &Cursor| {
        let server = at.settings.get("server").cloned().unwrap_or_default();
        vec!["demo".to_owned(), "deploy".to_owned(), format!("of-{server}")]
    };
    let Answer { candidates, then } = answer(&words, &names);
    (candidates.into_iter().map(|candidate| candidate.value).collect(), then)
}

fn words(line: &str) -> Vec<String> {
    let (words, then) = after(line);
    assert_eq!(then, Then::Nothing, "{line}");
    words
}

#[test]
fn commands_and_flags_are_those_of_the_grammar() {
    assert!(words("").contains(&"lock".to_owned()));
    assert_eq!(words("lo"), ["lock"]);
    assert_eq!(words("help st"), ["status"]);
    assert_eq!(words("man st"), ["status"]);
    assert!(words("lock --").contains(&"--on-lost".to_owned()));
    assert_eq!(words("lock --reen"), ["--reentrant"]);
    assert_eq!(words("ls --js"), ["--json"]);
    assert_eq!(words("completions fi"), ["fish"]);
    assert_eq!(words("nonsense "), after("").0);
}

#[test]
fn values_are_those_that_are_understood() {
    assert_eq!(words("lock --on-lost "), ["kill", "warn"]);
    assert_eq!(words("lock --on-lost = w"), ["warn"]);
    assert_eq!(words("lock --on-lost=w"), ["--on-lost=warn"]);
    assert_eq!(words("serve --log d"), ["debug"]);
    assert_eq!(words("serve --log-format "), ["text", "json"]);
    assert_eq!(words("bench --mode s"), ["shared"]);
    assert_eq!(after("serve --data-dir ").1, Then::Directories);
    assert_eq!(after("lock --config ").1, Then::Files);
    assert_eq!(after("serve --config=").1, Then::Files);
}

#[test]
fn names_of_locks_are_those_in_use_where_the_line_says() {
    assert_eq!(words("lock dep"), ["deploy"]);
    assert_eq!(words("try -n de"), ["demo", "deploy"]);
    assert_eq!(words("lock -w 5 de"), ["demo", "deploy"]);
    assert_eq!(words("lock -nw 5 de"), ["demo", "deploy"]);
    assert_eq!(words("lock -w5 de"), ["demo", "deploy"]);
    assert_eq!(words("lock deploy --and d"), ["demo", "deploy"]);
    for command in ["status", "events", "release"] {
        assert_eq!(words(&format!("{command} --server h:1 of")), ["of-h:1"]);
    }
    assert_eq!(words("status deploy "), [""; 0]);
}

#[test]
fn the_command_under_the_lock_is_left_to_the_shell() {
    for (line, from) in [
        ("lock deploy ", 2),
        ("lock deploy ma", 2),
        ("lock deploy -- ma", 3),
        ("lock deploy -- make ", 3),
        ("lock -n deploy make --on-lost ", 3),
        ("lock --on-lost kill deploy make -", 4),
        ("try deploy -w 5 -- lock --", 5),
    ] {
        assert_eq!(after(line), (vec![], Then::Command(from)), "{line}");
    }
}
