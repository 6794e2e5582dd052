//! That every rule which is cited is written down, and that every rule which is written down is proved.
//!
//! `docs/rules.md` states a rule in a chapter of its own, with the tests that prove it and the
//! modules in which it is enforced. Whoever moves or renames one of them hears of it here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Where rules are cited.
const CITING: [&str; 8] =
    ["src", "tests", "docs", "benches", "examples", "scripts", "README.md", "CONTRIBUTING.md"];

/// A rule as docs/rules.md states it.
struct Stated {
    /// The names on its line *where*: modules, as `room::file`.
    modules: Vec<String>,
    /// The names on its line *proof*: tests, stories and planted bugs.
    proofs: Vec<String>,
    /// Which of the five lines it has.
    lines: BTreeSet<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files in or below `path`, whatever they are, with what is in them if it is text.
fn files(path: &Path, found: &mut Vec<(PathBuf, String)>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            files(&entry.unwrap().path(), found);
        }
    } else if let Ok(text) = fs::read_to_string(path) {
        found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
    }
}

fn all_files(of: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for part in of {
        files(&root().join(part), &mut found);
    }
    found.sort();
    found
}

/// Whether `word` names a rule: a letter and a number.
fn is_rule(word: &str) -> bool {
    let mut letters = word.chars();
    letters.next().is_some_and(|first| first.is_ascii_uppercase())
        && (2..=3).contains(&word.len())
        && letters.all(|digit| digit.is_ascii_digit())
}

/// The rules that a text cites: those behind the word *rule* or *rules*, and those that stand in
/// brackets alone. A comment may break its line between the two.
fn cited(text: &str) -> BTreeSet<String> {
    let (mut found, mut listing) = (BTreeSet::new(), false);
    for word in text.split_whitespace() {
        let bare = word.trim_matches(|letter: char| !letter.is_ascii_alphanumeric());
        let in_brackets =
            word.starts_with('(') && word.trim_end_matches(['.', ',', ';']).ends_with(')');
        if is_rule(bare) && (listing || in_brackets) {
            found.insert(bare.to_owned());
            listing = listing && !word.ends_with([')', '.']);
        } else if matches!(bare, "rule" | "rules" | "Rule" | "Rules") {
            listing = true;
        } else {
            // What a comment begins its lines with, and what a list has between its names.
            listing = listing && matches!(word, "//" | "///" | "//!" | "#" | "*" | "and" | "to");
        }
    }
    found
}

/// The names in backticks in a line.
fn in_backticks(line: &str) -> Vec<String> {
    line.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn stated() -> BTreeMap<String, Stated> {
    let document = fs::read_to_string(root().join("docs/rules.md")).unwrap();
    let mut rules = BTreeMap::new();
    for chapter in document.split("\n### ").skip(1) {
        let (name, rest) =
            chapter.split_once(": ").expect("a rule's heading is `### X1: what holds`");
        assert!(is_rule(name), "docs/rules.md: {name} is not the name of a rule");
        let (text, _) = rest.split_once("\n## ").unwrap_or((rest, ""));
        let lines: BTreeMap<_, _> =
            text.lines().filter_map(|line| line.strip_prefix("- ")?.split_once(": ")).collect();
        let names = |of| lines.get(of).map(|line| in_backticks(line)).unwrap_or_default();
        let rule = Stated {
            modules: names("where"),
            proofs: names("proof"),
            lines: lines.keys().map(|line| (*line).to_owned()).collect(),
        };
        assert!(rules.insert(name.to_owned(), rule).is_none(), "docs/rules.md states {name} twice");
    }
    rules
}

/// Whether a file is there to test something.
fn is_test(path: &Path) -> bool {
    let path = path.to_string_lossy();
    let rooms = ["tests/", "src/testing/", "src/engine/stories/"];
    rooms.iter().any(|room| path.starts_with(room))
        || ["/tests/", "tests.rs", "/exhaustive", "/fuzz"].iter().any(|part| path.contains(part))
}

/// Whether `name` is a module of these files: `server::places` is a file or folder of that name
/// somewhere in the room.
fn is_module(files: &[(PathBuf, String)], name: &str) -> bool {
    let (room, module) = name.rsplit_once("::").unwrap_or(("", name));
    let room = Path::new("src").join(room.replace("::", "/"));
    files.iter().any(|(path, _)| {
        path.starts_with(&room)
            && (path.file_stem().is_some_and(|stem| stem == module)
                || path.parent().is_some_and(|folder| folder.ends_with(module)))
    })
}

#[test]
fn a_citation_is_found_wherever_a_sentence_has_it() {
    let cites = |text| cited(text).into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(cites("is ended (rule T4)."), "T4");
    assert_eq!(cites("first (rules\n    /// S1, S2 and G10). P9 is none"), "G10 S1 S2");
    assert_eq!(cites("Rule: B1\nBug: no R1"), "B1");
    assert_eq!(cites("was *sent* (T2); S3 of them"), "T2");
    assert_eq!(cites("a rule about R2D2, and rules"), "");
}

#[test]
fn every_rule_that_is_cited_is_stated() {
    let rules = stated();
    for (path, text) in all_files(&CITING) {
        for rule in cited(&text) {
            assert!(
                rules.contains_key(&rule) || path.ends_with("it/rules.rs"),
                "rule {rule} is cited in {} and not stated in docs/rules.md",
                path.display()
            );
        }
    }
}

#[test]
fn every_rule_that_is_stated_is_cited_by_a_test() {
    let tests = all_files(&["src", "tests"]);
    let cited: BTreeSet<String> = tests
        .iter()
        .filter(|(path, _)| is_test(path) && !path.ends_with("it/rules.rs"))
        .flat_map(|(_, text)| cited(text))
        .collect();
    for rule in stated().keys() {
        assert!(
            cited.contains(rule),
            "rule {rule} is stated in docs/rules.md, and no test or planted bug cites it"
        );
    }
}

#[test]
fn every_planted_bug_breaks_a_rule_that_is_stated() {
    let rules = stated();
    for (path, text) in all_files(&["tests/planted"]) {
        let rule = text.lines().find_map(|line| line.strip_prefix("Rule: ")).unwrap_or_default();
        assert!(
            rules.contains_key(rule),
            "{} breaks rule {rule:?}, which is not stated in docs/rules.md",
            path.display()
        );
    }
}

#[test]
fn what_a_rule_names_is_there() {
    let files = all_files(&["src", "tests"]);
    let source: String = files
        .iter()
        .filter(|(path, _)| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|(_, text)| text.as_str())
        .collect();
    let is_proof = |name: &str| {
        root().join("src/engine/stories").join(name).is_file()
            || root().join("tests/planted").join(format!("{name}.patch")).is_file()
            || source.contains(&format!("fn {name}("))
    };
    for (rule, stated) in stated() {
        for line in ["why", "answers", "where", "proof", "source"] {
            assert!(
                stated.lines.contains(line),
                "rule {rule} in docs/rules.md does not say {line}"
            );
        }
        for module in &stated.modules {
            assert!(
                is_module(&files, module),
                "rule {rule} in docs/rules.md: there is no module {module}"
            );
        }
        for proof in &stated.proofs {
            assert!(
                is_proof(proof),
                "rule {rule} in docs/rules.md: there is no test, story or planted bug {proof}"
            );
        }
        assert!(!stated.modules.is_empty(), "rule {rule} in docs/rules.md is enforced nowhere");
        assert!(!stated.proofs.is_empty(), "rule {rule} in docs/rules.md has no proof");
    }
}

#[test]
fn every_word_of_the_glossary_lives_where_it_says_and_stands_in_order() {
    let files = all_files(&["src"]);
    let document = fs::read_to_string(root().join("docs/glossary.md")).unwrap();
    let rows: Vec<Vec<&str>> = document
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(!rows.is_empty());
    for row in &rows {
        let [word, meaning, term, lives] = row[..] else { panic!("{row:?}") };
        assert!(![word, meaning, term, lives].contains(&""), "{row:?}");
        for place in in_backticks(lives) {
            let is_there = if place.contains('/') {
                root().join(&place).exists()
            } else {
                is_module(&files, &place)
            };
            assert!(is_there, "docs/glossary.md: {word} does not live in {place}");
        }
    }
    let words: Vec<String> = rows.iter().map(|row| row[0].to_lowercase()).collect();
    assert!(words.is_sorted(), "docs/glossary.md: its words do not stand in order");
}
