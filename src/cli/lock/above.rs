//! Locks that a command runs under, as its environment says. `COORDINATOR_HELD` has a line for each
//! grant of each lock: the token, the session and the name.

use std::fmt::Write as _;

use coordinator::types::FencingToken;

/// The variable that says what a command runs under.
pub(crate) const VARIABLE: &str = "COORDINATOR_HELD";

/// A lock that a command runs under, as its environment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// The grant.
    pub(crate) token: FencingToken,
    /// Its session.
    pub(crate) session: String,
    /// The lock.
    pub(crate) name: String,
}

/// The locks that a text lists. Lines that nobody of ours wrote are left out.
pub(super) fn read(text: &str) -> Vec<Held> {
    let held = |line: &str| {
        let mut parts = line.splitn(3, ' ');
        let token = FencingToken::new(parts.next()?.parse().ok()?);
        Some(Held { token, session: parts.next()?.to_owned(), name: parts.next()?.to_owned() })
    };
    text.lines().filter_map(held).collect()
}

/// The lines of those `above`, and of `names` below them; each once, however often steps of a job ask.
pub(super) fn with(above: &[Held], token: FencingToken, session: &str, names: &[&str]) -> String {
    let above = above.iter().map(|it| (it.token, it.session.as_str(), it.name.as_str()));
    let own = names.iter().map(|name| (token, session, *name));
    let is_own =
        |it: &(FencingToken, &str, &str)| it.0 == token && it.1 == session && names.contains(&it.2);
    above.filter(|it| !is_own(it)).chain(own).fold(
        String::new(),
        |mut text, (token, session, name)| {
            let _infallible = writeln!(text, "{token} {session} {name}");
            text
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(token: u64, name: &str) -> Held {
        Held { token: FencingToken::new(token), session: "ab".to_owned(), name: name.to_owned() }
    }

    #[test]
    fn a_name_with_blanks_is_read_as_it_is_and_nonsense_is_nothing() {
        assert_eq!(read("7 ab a b c\n8 ab d\n"), [held(7, "a b c"), held(8, "d")]);
        assert_eq!(read("\nx ab d\n7\n7 ab\n"), []);
    }

    #[test]
    fn what_is_held_is_told_once_however_often_it_is_asked_for() {
        let above = [held(7, "a"), held(8, "b")];
        assert_eq!(with(&above, FencingToken(7), "ab", &["a"]), "8 ab b\n7 ab a\n");
        assert_eq!(with(&above, FencingToken(9), "ab", &["a"]), "7 ab a\n8 ab b\n9 ab a\n");
    }
}
