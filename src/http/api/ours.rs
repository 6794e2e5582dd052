//! Questions that change something: from programs, and from our own page, and from no other.
//!
//! A page of somebody else cannot ask for it: nothing is proven by cookies, a header of ours has to be
//! there, which only our own page and programs send, and where the browser says from which page the
//! question comes, that has to be ours.

use axum::body::{Body, Bytes, to_bytes};
use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, Request};
use tokio::time::timeout;

use crate::http::accept::HEADERS_TIMEOUT;
use crate::http::guard::BODY_BYTES_MAX;
use crate::http::problem::Problem;

/// What has to be sent, and with which value, so that no form and no foreign script can.
const OURS: (&str, &str) = ("x-coordinator", "1");

/// What comes behind the headers of a question that is ours, and of somebody known.
pub(super) async fn body(request: Request<Body>) -> Result<Bytes, Problem> {
    let body = to_bytes(request.into_body(), usize::try_from(BODY_BYTES_MAX).unwrap_or(usize::MAX));
    let body = timeout(HEADERS_TIMEOUT, body).await.map_err(|_| Problem::slow_body())?;
    body.map_err(|_| Problem::too_large())
}

/// Refuses what a page of somebody else could send.
pub(super) fn is_ours(headers: &HeaderMap) -> Result<(), Problem> {
    for once in [OURS.0, CONTENT_TYPE.as_str(), ORIGIN.as_str(), "sec-fetch-site"] {
        if headers.get_all(once).iter().count() > 1 {
            return Err(Problem::foreign(
                "a header is there twice that says where this comes from",
            ));
        }
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if text(OURS.0) != Some(OURS.1) {
        return Err(Problem::foreign("the header X-Coordinator is missing"));
    }
    let kind = text(CONTENT_TYPE.as_str()).and_then(|kind| kind.split(';').next());
    if !kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Err(Problem::foreign("the Content-Type is not application/json"));
    }
    if let Some(origin) = headers.get(ORIGIN) {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        if origin.map(|(_, host)| host) != text(HOST.as_str()) {
            return Err(Problem::foreign("the question comes from a page of another origin"));
        }
    }
    match text("sec-fetch-site") {
        None | Some("same-origin" | "none") => Ok(()),
        Some(_) => Err(Problem::foreign("the question comes from a page of another origin")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::header::HeaderName;

    fn admits(headers: &[(&'static str, &str)]) -> bool {
        let ours = [("x-coordinator", "1"), ("content-type", "application/json; charset=utf-8")];
        let mut map = HeaderMap::new();
        for (name, value) in ours.iter().chain(headers) {
            map.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        is_ours(&map).is_ok() && is_refused_twice(&map)
    }

    /// Whether each of them is refused with another beside it, whatever that says.
    fn is_refused_twice(map: &HeaderMap) -> bool {
        map.iter().filter(|(name, _)| *name != HOST).all(|(name, value)| {
            let mut twice = map.clone();
            twice.append(name.clone(), value.clone());
            is_ours(&twice).is_err()
        })
    }

    /// Rule A2.
    #[test]
    fn what_a_page_of_somebody_else_could_send_is_refused() {
        assert!(admits(&[]), "a program has no origin");
        let host = ("host", "127.0.0.1:5626");
        assert!(admits(&[host, ("origin", "http://127.0.0.1:5626"), ("sec-fetch-site", "none")]));
        for foreign in [
            [("x-coordinator", "0"), host],
            [("content-type", "text/plain"), host],
            [("content-type", "application/x-www-form-urlencoded"), host],
            [("origin", "http://evil.example"), host],
            [("origin", "http://127.0.0.1:8080"), host],
            [("origin", "null"), host],
            [("sec-fetch-site", "cross-site"), host],
            [("sec-fetch-site", "same-site"), host],
        ] {
            assert!(!admits(&foreign), "{foreign:?}");
        }
    }
}
