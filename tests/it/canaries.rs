//! Whatever a principal may not see has a word of its own: in the name of the lock, in who holds it, in who
//! waits, in what for. All bytes that ever reach a connection are searched for these words. So leaks are found
//! that nobody has thought of.

use coordinator::types::{FencingToken, OwnerId, RequestId};
use coordinator::wire::{self, Attach, ClientMessage, Mode, Query, RawClaim, ServerMessage, Wait};
use tokio::runtime::Runtime;

use crate::matrix::{Link, Site, http};
use crate::support::eventually;

/// Prefixes of locks, each with those who see what is below it.
const PLACES: [(&str, &[&str]); 4] = [
    ("p", &["seer", "mixed", "able", "all"]),
    ("public", &["all", "anyone"]),
    ("secret", &["all"]),
    ("a", &["all"]),
];
/// Those who look, or try to.
const READERS: [&str; 7] = ["locker", "sharer", "seer", "breaker", "mixed", "able", "all"];

/// A lock in a deadlock.
const CYCLIC: &str = "secret/cycliczqkx";

/// What there is of one lock, in words that come nowhere else.
struct Canary {
    place: &'static str,
    seen_by: &'static [&'static str],
    name: String,
    words: Vec<String>,
}

fn words() -> Vec<Canary> {
    let mut all = Vec::new();
    for (number, (place, seen_by)) in PLACES.into_iter().enumerate() {
        for second in 0..3 {
            let word = |what: &str| format!("{what}zq{number}{second}kx");
            let words = ["name", "holder", "note", "waiter", "wish"].map(word).to_vec();
            all.push(Canary { place, seen_by, name: format!("{place}/{}", words[0]), words });
        }
    }
    let (place, seen_by) = PLACES[2];
    all.push(Canary { place, seen_by, name: CYCLIC.to_owned(), words: vec![CYCLIC.to_owned()] });
    all
}

fn request(id: u64, names: &[&str], mode: Mode, note: &str, wait: Wait) -> ClientMessage {
    let claims = names.iter().map(|name| RawClaim { name: (*name).into(), mode });
    let (request, owner) = (wire::Request::new(RequestId(id), claims), OwnerId(1));
    ClientMessage::Request(wire::Request { note: note.into(), wait, owner, ..request })
}

/// A session of somebody who may do everything, under a name of its own.
async fn session(site: &Site, identity: &str) -> Link {
    site.welcomed_as("all", Attach::New, identity).await
}

/// Asks for everything there is, in every way there is.
async fn pry(link: &mut Link, words: &[Canary], is_session: bool) {
    let names = words.iter().map(|words| match words.place {
        // Names that a reader would have to know are not told to it by being echoed.
        "p" | "a" => words.name.clone(),
        place => format!("{place}/guess"),
    });
    let names: Vec<String> = names.collect();
    let mut id = 0;
    let mut next = || {
        id += 1;
        id
    };
    for query in [
        Query::Server,
        Query::Journal,
        Query::Locks { cursor: 0 },
        Query::Contended { cursor: 0 },
        Query::Outlooks { cursor: 0 },
        Query::Sessions { cursor: 0 },
    ] {
        link.ask(ClientMessage::Inspect { query_id: next(), query }).await;
    }
    link.ask(ClientMessage::Subscribe { query_id: next(), name: None }).await;
    for name in &names {
        let text = || name.clone();
        for message in [
            ClientMessage::Inspect { query_id: next(), query: Query::Lock { name: text() } },
            ClientMessage::Inspect { query_id: next(), query: Query::Outlook { name: text() } },
            ClientMessage::Watch { query_id: next(), name: text() },
            ClientMessage::Revoke { query_id: next(), name: text(), token: FencingToken(1) },
        ] {
            link.ask(message).await;
        }
        if is_session {
            for mode in [Mode::Exclusive, Mode::Shared, Mode::Permits { take: 1, of: 9 }] {
                let asked = request(next(), &[name], mode, "", Wait::Never);
                link.ask(asked).await;
            }
        }
    }
}

#[test]
fn nothing_that_may_not_be_seen_reaches_anybody() {
    let site = Site::start(false);
    let words = words();
    Runtime::new().unwrap().block_on(async {
        let mut readers = Vec::new();
        for name in READERS {
            let observer = site.welcomed_as(name, Attach::Observer, name).await;
            readers.push((name, observer, false));
            if ["locker", "sharer", "mixed", "able"].contains(&name) {
                let session = site.welcomed_as(name, Attach::New, name).await;
                readers.push((name, session, true));
            }
        }
        for (_, link, _) in &mut readers {
            let all = ClientMessage::Subscribe { query_id: 1_000, name: None };
            link.ask(all).await;
        }
        // Everything is held, and waited for, by somebody with a name of its own.
        let mut others = Vec::new();
        for Canary { name, words, .. } in words.iter().filter(|it| it.words.len() > 1) {
            let mut holder = session(&site, &words[1]).await;
            let held = request(1, &[name], Mode::Exclusive, &words[2], Wait::Forever);
            assert!(matches!(holder.ask(held).await, ServerMessage::Grant { .. }));
            let mut waiter = session(&site, &words[3]).await;
            let waits = request(1, &[name], Mode::Exclusive, &words[4], Wait::Forever);
            assert!(matches!(waiter.ask(waits).await, ServerMessage::Queued { .. }));
            others.push((holder, waiter));
        }
        for (_, link, is_session) in &mut readers {
            pry(link, &words, *is_session).await;
        }
        // A deadlock: its event is about a lock that some may see, and says why with one that they may not.
        let (mut one, mut two) = (session(&site, "one").await, session(&site, "two").await);
        let ask = |id, name: &str| request(id, &[name], Mode::Exclusive, "", Wait::Forever);
        assert!(matches!(one.ask(ask(1, CYCLIC)).await, ServerMessage::Grant { .. }));
        assert!(matches!(two.ask(ask(1, "p/cyclic")).await, ServerMessage::Grant { .. }));
        assert!(matches!(two.ask(ask(2, CYCLIC)).await, ServerMessage::Queued { .. }));
        assert!(matches!(one.ask(ask(2, "p/cyclic")).await, ServerMessage::Rejected { .. }));
        // What is said last is heard behind all that happened before.
        for (name, link, _) in &mut readers {
            link.say(&[ClientMessage::KeepAlive { sequence: 77 }]).await;
            while !matches!(link.hear().await, ServerMessage::KeptAlive { sequence: 77 }) {}
            check(name, &link.heard, &words);
        }
    });
    for path in ["/metrics", "/livez", "/readyz?verbose", "/", "/assets/app.js"] {
        let heard = eventually("HTTP answers", || http(&site, "GET", path, None));
        check("http", &heard, &words);
    }
    for reader in READERS.into_iter().chain(["anyone"]) {
        let shown = READERS.contains(&reader).then_some(reader);
        let mut heard = Vec::new();
        for path in ["server", "waits", "locks", "locks?prefix=secret", "sessions"] {
            let path = format!("/api/v1/{path}");
            heard.extend(eventually("HTTP answers", || http(&site, "GET", &path, shown)));
        }
        check(reader, &heard, &words);
        // Figures, and what is said of a reload, name nobody, whoever hears them.
        let mut heard = eventually("HTTP answers", || http(&site, "GET", "/metrics", shown));
        let reload = || http(&site, "POST", "/api/v1/reload", shown);
        heard.extend(eventually("HTTP answers", reload));
        check("http", &heard, &words);
    }
}

/// Searches what somebody has heard.
fn check(reader: &str, heard: &[u8], all: &[Canary]) {
    let heard = String::from_utf8_lossy(heard);
    for Canary { seen_by, name, words, place } in all {
        let may_see = seen_by.contains(&reader);
        for (number, word) in words.iter().enumerate() {
            let is_told = heard.contains(word.as_str());
            // Who asks for a name hears it in the answer.
            let is_echo = number == 0 && ["p", "a"].contains(place);
            if may_see {
                assert!(is_told, "{reader} sees nothing of {name}: {word}");
            } else {
                assert!(!is_told || is_echo, "{reader} hears {word}, which is of {name}");
            }
        }
    }
}
