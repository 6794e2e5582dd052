//! `POST /api/v1/locks/{name}/revoke`: takes a lock away from whoever holds it with a token.
//!
//! A page of somebody else cannot ask for it: nothing is proven by cookies, a header of ours has to be
//! there, which only our own page and programs send, and where the browser says from which page the
//! question comes, that has to be ours.

use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, Request};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::line::Line;
use super::shown;
use super::visitor::Visitor;
use crate::http::accept::HEADERS_TIMEOUT;
use crate::http::guard::BODY_BYTES_MAX;
use crate::http::problem::Problem;
use crate::json;
use crate::server::{Looker, Who};
use crate::types::{FencingToken, Note};
use crate::wire::{ClientMessage, ServerMessage};

/// What has to be sent, and with which value, so that no form and no foreign script can.
const OURS: (&str, &str) = ("x-coordinator", "1");

/// What is asked for.
struct Asked {
    /// The token of the grant, so that nobody newer is hit.
    token: FencingToken,
    /// Why, for the audit log.
    reason: Note,
}

/// Takes it away, if that is allowed.
pub(super) async fn revoke(
    looker: &Looker,
    visitor: &Visitor,
    name: &str,
    request: Request<Body>,
) -> Result<Value, Problem> {
    is_ours(request.headers())?;
    let body = to_bytes(request.into_body(), usize::try_from(BODY_BYTES_MAX).unwrap_or(usize::MAX));
    let body = timeout(HEADERS_TIMEOUT, body).await.map_err(|_| Problem::late())?;
    let body = body.map_err(|_| Problem::too_large())?;
    let Asked { token, reason } = read(&body)?;
    if let Some(Ok(Who::Anybody)) = looker.who(visitor.proof()).await {
        return Err(Problem::nobody_may());
    }
    let mut line = Line::open(looker, visitor).await?;
    // Who may break it need not see it.
    let seen = shown::one(&mut line, name).await.ok().map(|(lock, _)| lock);
    if let Some(None) = seen {
        return Err(Problem::not_in_use(name));
    }
    let answer = line
        .ask(|query_id| ClientMessage::RevokeFor {
            query_id,
            name: name.to_owned(),
            token,
            reason: reason.to_string(),
        })
        .await?;
    match answer {
        ServerMessage::Revoked { .. } => {
            let holders = seen.flatten().map(|lock| lock.holders).unwrap_or_default();
            let holder = holders.iter().find(|holder| holder.token == token);
            let holder = holder.map_or_else(|| json!({"token": token}), json::holder);
            Ok(json!({"revoked": holder}))
        }
        _ => Err(Problem::unavailable()),
    }
}

/// Refuses what a page of somebody else could send.
fn is_ours(headers: &HeaderMap) -> Result<(), Problem> {
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

fn read(body: &[u8]) -> Result<Asked, Problem> {
    let wrong = |what: &str| Problem::bad_request(format!("the body is not read: {what}"));
    let form = || wrong("write {\"token\": 1881, \"reason\": \"…\"}, and nothing else");
    let body: Value = serde_json::from_slice(body).map_err(|_| form())?;
    let fields = body.as_object().filter(|fields| fields.len() == 2).ok_or_else(form)?;
    let token = fields.get("token").and_then(Value::as_u64).ok_or_else(form)?;
    let reason = fields.get("reason").and_then(Value::as_str).ok_or_else(form)?;
    if reason.is_empty() {
        return Err(wrong("a reason is needed, for the audit log"));
    }
    let reason = Note::new(reason).map_err(|why| wrong(&format!("the reason: {why}")))?;
    Ok(Asked { token: FencingToken::new(token), reason })
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
        is_ours(&map).is_ok()
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

    #[test]
    fn a_body_has_a_token_and_a_reason_and_nothing_else() {
        let reason = |len: usize| format!("{{\"token\":1,\"reason\":\"{}\"}}", "x".repeat(len));
        for (body, is_read) in [
            (reason(1), true),
            (reason(255), true),
            (reason(256), false),
            (reason(0), false),
            ("{\"token\":1}".to_owned(), false),
            ("{\"token\":-1,\"reason\":\"x\"}".to_owned(), false),
            ("{\"token\":\"1\",\"reason\":\"x\"}".to_owned(), false),
            ("{\"token\":1,\"reason\":\"x\",\"force\":true}".to_owned(), false),
            ("[".to_owned(), false),
        ] {
            assert_eq!(read(body.as_bytes()).is_ok(), is_read, "{body}");
        }
    }
}
