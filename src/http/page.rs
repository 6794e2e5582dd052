//! The page: a few files, as they are in the repository. Nothing builds them.
//!
//! They are told again only when they have changed (`ETag`). What they show they ask the API for.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::Router;
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// A file of the page.
struct File {
    /// What it is called.
    name: &'static str,
    /// What it is.
    kind: &'static str,
    /// What is in it.
    text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// What a browser asks for first.
const INDEX: File = File { name: "", kind: HTML, text: include_str!("page/index.html") };
/// What it asks for then.
const ASSETS: [File; 7] = [
    File { name: "style.css", kind: CSS, text: include_str!("page/style.css") },
    File { name: "api.js", kind: SCRIPT, text: include_str!("page/api.js") },
    File { name: "app.js", kind: SCRIPT, text: include_str!("page/app.js") },
    File { name: "dom.js", kind: SCRIPT, text: include_str!("page/dom.js") },
    File { name: "lists.js", kind: SCRIPT, text: include_str!("page/lists.js") },
    File { name: "panel.js", kind: SCRIPT, text: include_str!("page/panel.js") },
    File { name: "waits.js", kind: SCRIPT, text: include_str!("page/waits.js") },
];

/// Answers with the files.
pub(super) fn router() -> Router {
    Router::new()
        .route("/", get(async |headers: HeaderMap| answer(&INDEX, &headers)))
        .route("/assets/{name}", get(asset))
}

async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match ASSETS.iter().find(|file| file.name == name) {
        Some(file) => answer(file, &headers),
        None => (StatusCode::NOT_FOUND, "there is no such file\n").into_response(),
    }
}

fn answer(file: &File, headers: &HeaderMap) -> Response {
    let mut hasher = DefaultHasher::new();
    file.text.hash(&mut hasher);
    let tag = format!("\"{:016x}\"", hasher.finish());
    let is_known =
        headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut answer = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, HeaderValue::from_static(file.kind))], file.text).into_response()
    };
    let headers = answer.headers_mut();
    // Kept, and asked for again each time: a page of another version would not know our API.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Most bytes of all files together.
    const BYTES_MAX: usize = 60 * 1024;

    #[test]
    fn the_page_is_small_and_takes_nothing_from_elsewhere() {
        let all: Vec<&File> = ASSETS.iter().chain([&INDEX]).collect();
        let bytes: usize = all.iter().map(|file| file.text.len()).sum();
        assert!(bytes <= BYTES_MAX, "{bytes} bytes, of {BYTES_MAX}");
        for File { name, text, .. } in all {
            for (_, rest) in text.match_indices("://").map(|(at, _)| text.split_at(at)) {
                assert!(rest.starts_with("://www.w3.org/2000/svg"), "{name}: {rest:.40}");
            }
            for word in ["innerHTML", "eval(", "document.write", " style=", "insertAdjacentHTML"] {
                assert!(!text.contains(word), "{name} has {word}");
            }
        }
    }

    #[test]
    fn every_file_that_the_page_names_is_there_and_no_other() {
        let all: String = ASSETS.iter().chain([&INDEX]).map(|file| file.text).collect();
        for File { name, .. } in &ASSETS {
            let named = [format!("/assets/{name}\""), format!("\"./{name}\"")];
            assert!(named.iter().any(|named| all.contains(named)), "nobody asks for {name}");
        }
        for (at, start) in all.match_indices("from \"./") {
            let name = all[at + start.len()..].split('"').next().unwrap();
            assert!(ASSETS.iter().any(|file| file.name == name), "{name} is missing");
        }
    }

    #[test]
    fn what_a_browser_has_already_is_not_told_again() {
        let first = answer(&INDEX, &HeaderMap::new());
        let tag = first.headers()[ETAG].clone();
        assert_eq!(first.status(), StatusCode::OK);
        let again: HeaderMap = [(IF_NONE_MATCH, tag)].into_iter().collect();
        assert_eq!(answer(&INDEX, &again).status(), StatusCode::NOT_MODIFIED);
        let other: HeaderMap =
            [(IF_NONE_MATCH, HeaderValue::from_static("\"x\""))].into_iter().collect();
        assert_eq!(answer(&INDEX, &other).status(), StatusCode::OK);
    }
}
