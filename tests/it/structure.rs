//! The structure of the tree: which file imports which, and that documents name files that are there.
//!
//! No two files import each other, over however many others: what stands in a circle can only be read,
//! tested and moved together. A folder's `mod.rs` and what is below it count as one thing in that direction:
//! a child may name what its own parent defines.
//!
//! The parser reads `use` lines, and paths in the code that say where they begin (*qualified* paths).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

type Module = Vec<String>;

/// What is known of one file.
struct Source {
    /// Where it is, below `src`.
    path: String,
    /// What it takes from others, as absolute names.
    uses: Vec<Module>,
    /// What it gives out under its own name, and where that is from.
    gives_out: BTreeMap<String, Module>,
}

fn files_below(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else {
            let below = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
            found.push(below.to_str().unwrap().to_owned());
        }
    }
}

/// All files of the repository that documents name, as paths from its root.
fn files(folders: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for folder in folders {
        files_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
    }
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "rs")
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/")
        || path.ends_with("tests.rs")
        || path.contains("/testing")
        || path.ends_with("/invariants.rs")
}

fn module_of(path: &str) -> Module {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

/// Without comments, and without the tests at its end.
fn code_of(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let text = lines.collect::<Vec<_>>().join("\n");
    match text.find("#[cfg(test)]\nmod tests {") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// The names that a `use` lists: `a::{b, c::d}` lists `a::b` and `a::c::d`.
fn names_in(tree: &str) -> Vec<String> {
    let Some((head, rest)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap_or_default().trim();
        return vec![name.trim_end_matches("::self").to_owned()];
    };
    let rest = rest.rsplit_once('}').map_or(rest, |(list, _)| list);
    let (mut names, mut depth, mut part) = (Vec::new(), 0, String::new());
    for letter in rest.chars().chain([',']) {
        match letter {
            ',' if depth == 0 => {
                let part = std::mem::take(&mut part);
                if part.trim() == "self" {
                    names.push(head.trim().trim_end_matches("::").to_owned());
                } else if !part.trim().is_empty() {
                    names.extend(names_in(&format!("{}{}", head.trim(), part.trim())));
                }
                continue;
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        part.push(letter);
    }
    names
}

/// The paths that stand in code, other than in a `use`.
fn paths_in(code: &str) -> impl Iterator<Item = &str> {
    let words = code.split(|letter: char| !(letter.is_alphanumeric() || "_:".contains(letter)));
    words.map(|word| word.trim_end_matches(':')).filter(|word| word.contains("::"))
}

/// The name from the root on; none if it is of another crate.
fn absolute(base: &Module, name: &str, modules: &BTreeMap<Module, String>) -> Option<Module> {
    let words: Vec<String> = name.split("::").map(|word| word.trim().to_owned()).collect();
    let ups = words.iter().take_while(|word| *word == "super").count();
    match words[0].as_str() {
        "crate" => Some(words[1..].to_vec()),
        "self" => Some([base, &words[1..]].concat()),
        "super" => Some([&base[..base.len().checked_sub(ups)?], &words[ups..]].concat()),
        first => {
            let child = [base.as_slice(), &[first.to_owned()]].concat();
            modules.contains_key(&child).then(|| [base.as_slice(), &words].concat())
        }
    }
}

fn source(path: &str, modules: &BTreeMap<Module, String>) -> Source {
    let (base, code) = (module_of(path), code_of(&read(path)));
    let mut source = Source { path: path.to_owned(), uses: Vec::new(), gives_out: BTreeMap::new() };
    for statement in code.split(';') {
        // Behind what else stands between two semicolons: attributes, modules, the end of a function.
        let statement = statement.split_whitespace().collect::<Vec<_>>().join(" ");
        let at = statement.rfind("use ").filter(|&at| {
            let before = &statement[..at];
            before.is_empty() || before.ends_with([' ', '}', ']'])
        });
        let before = &statement[..at.unwrap_or(statement.len())];
        let qualified = paths_in(before).filter_map(|name| absolute(&base, name, modules));
        source.uses.extend(qualified);
        let Some(at) = at else { continue };
        let is_public = before.trim_end().ends_with(')') || before.trim_end().ends_with("pub");
        for name in names_in(&statement[at + 4..]) {
            let Some(from) = absolute(&base, &name, modules) else { continue };
            if is_public && let Some(last) = from.last() {
                source.gives_out.insert(last.clone(), from.clone());
            }
            source.uses.push(from);
        }
    }
    source
}

/// The file that defines what is named, through all who only give it out.
fn defined_in<'a>(
    name: &[String],
    modules: &'a BTreeMap<Module, String>,
    sources: &BTreeMap<String, Source>,
    steps: usize,
) -> Option<&'a String> {
    let known = (0..=name.len()).rev().find(|len| modules.contains_key(&name[..*len]))?;
    let file = &modules[&name[..known]];
    let from = name.get(known).and_then(|word| sources.get(file)?.gives_out.get(word));
    match from {
        Some(from) if steps > 0 && from[..] != name[..=known] => {
            let name = [from.as_slice(), &name[known + 1..]].concat();
            defined_in(&name, modules, sources, steps - 1)
        }
        _ => Some(file),
    }
}

/// Who imports whom.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let files = files(&["src"]);
    let files = files.iter().filter(|path| is_rust(path) && *path != "src/main.rs");
    let modules: BTreeMap<_, _> = files.map(|path| (module_of(path), path.clone())).collect();
    let sources: BTreeMap<_, _> =
        modules.values().map(|path| (path.clone(), source(path, &modules))).collect();
    let mut imports = BTreeMap::new();
    for source in sources.values().filter(|source| !is_test(&source.path)) {
        let to = source.uses.iter().filter_map(|name| defined_in(name, &modules, &sources, 8));
        let to = to.filter(|to| {
            let is_parent =
                to.strip_suffix("mod.rs").is_some_and(|room| source.path.starts_with(room));
            **to != source.path && !is_parent && !is_test(to) && *to != "src/lib.rs"
        });
        imports.insert(source.path.clone(), to.cloned().collect::<BTreeSet<_>>());
    }
    imports
}

#[test]
fn no_two_files_import_each_other_over_however_many_others() {
    let imports = imports();
    let reaches_itself = |file: &&String| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![*file]);
        while let Some(here) = next.pop() {
            for to in imports.get(here).into_iter().flatten() {
                if to == *file {
                    return true;
                }
                if seen.insert(to) {
                    next.push(to);
                }
            }
        }
        false
    };
    let in_circles: Vec<_> = imports.keys().filter(reaches_itself).collect();
    assert!(in_circles.is_empty(), "files that import each other in circles: {in_circles:#?}");
}

#[test]
fn a_list_of_names_is_read_as_the_compiler_reads_it() {
    assert_eq!(names_in("a::{self, b as c, d::{e, f}}"), ["a", "a::b", "a::d::e", "a::d::f"]);
    assert_eq!(names_in("super::x::Y"), ["super::x::Y"]);
}

#[test]
fn a_path_in_the_code_is_an_import_like_any_other() {
    let code = "let x: Vec<super::a::B> = crate::c::d(Self::e, y.f::<u8>(), g::h::I { j: k })";
    let found: Vec<_> = paths_in(code).collect();
    assert_eq!(found, ["super::a::B", "crate::c::d", "Self::e", "g::h::I"]);
}

#[test]
fn every_file_that_a_document_names_is_there() {
    let all = files(&["src", "tests", "docs", "scripts", "benches", "examples", "clients"]);
    let exists = |name: &str| {
        let folder = name.trim_end_matches('/');
        all.iter().any(|file| {
            file == name
                || file.ends_with(&format!("/{name}"))
                || file.starts_with(&format!("{folder}/"))
                || file.contains(&format!("/{folder}/"))
        })
    };
    for document in
        ["docs/architecture.md", "docs/testing.md", "docs/journal.md", "CONTRIBUTING.md"]
    {
        for name in read(document).split('`').skip(1).step_by(2) {
            let is_path = !name.contains([' ', '*', '\n', '<', '{', '$', '~', '='])
                && (is_rust(name)
                    || ["src/", "tests/", "docs/", "scripts/"]
                        .iter()
                        .any(|at| name.starts_with(at)));
            assert!(!is_path || exists(name), "{document} names {name}, which is not there");
        }
    }
}
