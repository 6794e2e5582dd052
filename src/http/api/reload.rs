//! `POST /api/v1/reload`: has the configuration read again, as SIGHUP does.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Api;
use super::errand::entitled;
use super::ours;
use super::told;
use super::visitor::Visitor;
use crate::http::problem::Problem;
use crate::http::reload::{ReloadMistake, ReloadRequest, Reloaded};
use crate::server::{Errand, Who};

/// How long it may take: its files may be where reading takes for ever.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Has it read again, if that is allowed.
pub(super) async fn reload(
    api: &Api,
    visitor: &Visitor,
    request: Request<Body>,
) -> Result<Response, Problem> {
    ours::is_ours(request.headers())?;
    let by = match entitled(&api.looker, visitor, Errand::Administer).await? {
        Who::Anybody => return Err(Problem::nobody_may()),
        Who::Principal(principal) => principal.name.to_string(),
    };
    if !is_empty(&ours::body(request).await?) {
        return Err(Problem::bad_request("the body is not read: write {}, or nothing"));
    }
    let reloads = api.reloads.as_ref().ok_or_else(Problem::nothing_to_reload)?;
    let (done, outcome) = oneshot::channel();
    if !reloads.begin(ReloadRequest { by, peer: visitor.caller.peer, done }) {
        return Err(Problem::busy());
    }
    let outcome = timeout(RELOAD_TIMEOUT, outcome).await.map_err(|_| Problem::still_reading())?;
    match outcome.map_err(|_| Problem::unavailable())? {
        Ok(Reloaded { taken_over, waiting, doubts }) => {
            Ok(told(&json!({"reloaded": taken_over, "needs_restart": waiting, "warnings": doubts})))
        }
        Err(mistakes) => Ok(refused(&mistakes)),
    }
}

/// Nothing, or an object without fields.
fn is_empty(body: &[u8]) -> bool {
    let fields = |body: Value| body.as_object().map(serde_json::Map::len);
    body.trim_ascii().is_empty() || serde_json::from_slice(body).ok().and_then(fields) == Some(0)
}

fn refused(mistakes: &[ReloadMistake]) -> Response {
    let problem = Problem::mistaken();
    let mut json = problem.json();
    let mistakes = mistakes.iter().map(|it| json!({"piece": it.piece, "what": it.what}));
    json["error"]["mistakes"] = mistakes.collect();
    (StatusCode::UNPROCESSABLE_ENTITY, told(&json)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_takes_no_parameters_in_its_body_either() {
        for (body, is_read) in [
            ("", true),
            ("\n", true),
            ("{}", true),
            (" { } ", true),
            ("{\"force\":true}", false),
            ("[]", false),
            ("{", false),
            ("null", false),
        ] {
            assert_eq!(is_empty(body.as_bytes()), is_read, "{body}");
        }
    }
}
