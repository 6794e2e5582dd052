//! Names that look alike and are not the same: two locks where their users believe in one.
//!
//! Names are alike if they differ only in invisible characters, blanks, the encoding of accents, or
//! letters that Unicode calls confusable (UTS #39: Latin `a` and Cyrillic `а`). Names of plain
//! ASCII are alike only by their blanks, for `1` and `l` are told apart by everybody who names
//! locks with them.

use std::collections::HashMap;
use std::hash::Hash;

use unicode_security::skeleton;

use super::visible;

/// Which of `names` look like another of them, in their order.
pub(crate) fn among(names: &[&str]) -> Vec<bool> {
    let mut marked = vec![false; names.len()];
    let all = 0..names.len();
    if names.iter().all(|name| name.is_ascii()) {
        // Mostly nothing is odd about any of them.
        if names.iter().any(|name| without_odd_blanks(name) != *name) {
            mark_alike(all, |at| without_odd_blanks(names[at]), &mut marked);
        }
        return marked;
    }
    for group in groups(all, |at| looks(names[at])) {
        if group.iter().any(|at| !names[*at].is_ascii()) {
            mark(group, &mut marked);
        } else {
            mark_alike(group, |at| without_odd_blanks(names[at]), &mut marked);
        }
    }
    marked
}

fn mark_alike(
    places: impl IntoIterator<Item = usize>,
    key: impl Fn(usize) -> String,
    marked: &mut [bool],
) {
    mark(groups(places, key).into_iter().flatten(), marked);
}

fn mark(places: impl IntoIterator<Item = usize>, marked: &mut [bool]) {
    for at in places {
        marked[at] = true;
    }
}

/// The places whose keys are the same, those with several.
fn groups<K: Hash + Eq>(
    places: impl IntoIterator<Item = usize>,
    key: impl Fn(usize) -> K,
) -> Vec<Vec<usize>> {
    let mut by_key = HashMap::<K, Vec<usize>>::new();
    for at in places {
        by_key.entry(key(at)).or_default().push(at);
    }
    by_key.into_values().filter(|group| group.len() > 1).collect()
}

/// What a name looks like: the same for all that look alike.
fn looks(name: &str) -> String {
    let shown: String = name.chars().filter_map(visible::as_seen).collect();
    without_odd_blanks(&skeleton(&shown).collect::<String>())
}

/// Blanks at the ends show nothing, and several look like one.
fn without_odd_blanks(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_in_nothing_that_is_seen_are_twins() {
        for (a, b) in [
            ("deploy", "deploy "),
            ("a b", "a  b"),
            ("a b", "a\u{a0}b"),
            ("caf\u{e9}", "cafe\u{301}"),
            ("deploy", "dep\u{200b}loy"),
            ("deploy", "\u{feff}deploy"),
            ("deploy", "deploy\u{e0041}"),
            ("deploy", "dep\u{202e}loy"),
            ("paypal", "p\u{430}ypal"),
            ("K", "\u{212a}"),
        ] {
            assert_eq!(among(&[a, "other", b]), [true, false, true], "{a:?} {b:?}");
        }
    }

    #[test]
    fn names_that_differ_are_no_twins() {
        let names =
            ["job-1", "job-l", "modem", "modern", "Deploy", "deploy", "a b", "ab", "größer"];
        assert!(!among(&names).contains(&true));
        assert!(!among(&names[..8]).contains(&true), "nor without the one that is not ASCII");
    }
}
