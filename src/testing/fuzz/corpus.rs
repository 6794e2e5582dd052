//! The corpus: what mutation begins with, a file for each entry, under `tests/corpus`.
//!
//! Most entries are made of the messages of the golden file and of conversations written down in the
//! tests, and can be made anew with `UPDATE_GOLDENFILES=1`. Any other file there is used as well: an
//! input that once did harm is kept by putting it there.

use std::path::{Path, PathBuf};
use std::{env, fs};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");

/// Streams of bytes, each as one end of a connection might send it.
pub(crate) struct Corpus(Vec<Vec<u8>>);

impl Corpus {
    /// All files of these directories, in the order of their names.
    pub(crate) fn load(kinds: &[&str]) -> Self {
        let mut paths: Vec<PathBuf> = Vec::new();
        for kind in kinds {
            let entries = fs::read_dir(Path::new(DIRECTORY).join(kind)).unwrap();
            paths.extend(entries.map(|entry| entry.unwrap().path()));
        }
        paths.sort();
        assert!(!paths.is_empty(), "nothing is in {kinds:?} of {DIRECTORY}");
        Self(paths.iter().map(|path| fs::read(path).unwrap()).collect())
    }

    /// All entries.
    pub(crate) fn entries(&self) -> &[Vec<u8>] {
        &self.0
    }
}

/// That the corpus has this entry, with these bytes.
pub(crate) fn assert_in_corpus(kind: &str, name: &str, bytes: &[u8]) {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let file = words.collect::<Vec<_>>().join("-").to_lowercase();
    let path = Path::new(DIRECTORY).join(kind).join(file);
    if env::var_os("UPDATE_GOLDENFILES").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    let there = fs::read(&path).unwrap_or_default();
    assert!(
        there == bytes,
        "{} is not the bytes of {name:?}: run UPDATE_GOLDENFILES=1 cargo test corpus",
        path.display()
    );
}
