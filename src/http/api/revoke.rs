//! `POST /api/v1/locks/{name}/revoke`: takes a lock away from whoever holds it with a token.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::Api;
use super::errand;
use super::line::Line;
use super::live;
use super::ours;
use super::visitor::Visitor;
use crate::access::Verb;
use crate::http::problem::Problem;
use crate::json;
use crate::server::Who;
use crate::types::{FencingToken, Note, RejectionCode};
use crate::wire::{ClientMessage, LockStatus, Query, ServerMessage};

/// How long what is taken away waits for a look at it: where many look, the answer has no more than the token.
const GLIMPSE_TIMEOUT: Duration = Duration::from_millis(250);

/// What is asked for.
#[derive(Default)]
struct Asked {
    /// The token of the grant, so that nobody newer is hit.
    token: FencingToken,
    /// Why, for the audit log.
    reason: Note,
}

/// Takes it away, if that is allowed.
pub(super) async fn revoke(
    api: &Api,
    visitor: &Visitor,
    name: &str,
    request: Request<Body>,
) -> Result<Value, Problem> {
    ours::is_ours(request.headers())?;
    let may_break = match errand::known(&api.looker, visitor).await? {
        Who::Anybody => return Err(Problem::nobody_may()),
        Who::Principal(principal) => principal.rules.may_somewhere(Verb::Break),
    };
    // Whoever may break nothing is denied whatever it sends, and takes no place for as long as that takes to come.
    let asked = if may_break { read(&ours::body(request).await?)? } else { Asked::default() };
    let Asked { token, reason } = asked;
    let mut line = api.line(visitor).await?;
    // Who may break it need not see it.
    let seen = timeout(GLIMPSE_TIMEOUT, glimpse(&mut line, name)).await.ok().flatten();
    // The event of it names all that end together. Who may see some of them only is not told.
    let is_held = seen.iter().flatten().flat_map(|lock| &lock.holders).any(|it| it.token == token);
    if is_held {
        let subscribing = live::subscribe(&mut line, Some(name.to_owned()));
        if timeout(GLIMPSE_TIMEOUT, subscribing).await.is_ok_and(|it| it.is_ok()) {
            line.watch(token);
        }
    }
    // A line is heard in turn, and what is to be done waits for no look; unless there can be no other line.
    if line.is_unanswered()
        && let Ok(another) = api.line(visitor).await
    {
        line = another;
    }
    let answer = line
        .order(|query_id| ClientMessage::RevokeFor {
            query_id,
            name: name.to_owned(),
            token,
            reason: reason.to_string(),
        })
        .await;
    match answer {
        Ok(ServerMessage::Revoked { .. }) => {
            let seen = seen.flatten();
            let holder = seen.iter().flat_map(|lock| &lock.holders).find(|it| it.token == token);
            let holder = holder.map_or_else(|| json!({"token": token}), json::holder);
            let lost = timeout(GLIMPSE_TIMEOUT, line.lost()).await.ok().flatten();
            let locks = lost.map(|all| all.into_iter().map(|of| of.name).collect::<Vec<_>>());
            Ok(json!({"revoked": holder, "locks": locks}))
        }
        Ok(_) => Err(Problem::not_known()),
        // A kept lock has no holder, and its token still ends the keeping.
        Err(problem) if problem.is(RejectionCode::NoSuchGrant) && matches!(seen, Some(None)) => {
            Err(Problem::not_in_use(name))
        }
        Err(problem) => Err(problem),
    }
}

/// The lock as it is before, for the answer's text; none: it is not in use.
async fn glimpse(line: &mut Line, name: &str) -> Option<Option<LockStatus>> {
    match line.look(Query::Lock { name: name.to_owned() }).await.ok()? {
        ServerMessage::LockStatus { mut locks, .. } => Some(locks.pop()),
        _ => None,
    }
}

/// The body as it comes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    /// A number.
    token: u64,
    /// A text that has to be one of a reason.
    reason: String,
}

fn read(body: &[u8]) -> Result<Asked, Problem> {
    let wrong = |what: &str| Problem::bad_request(format!("the body is not read: {what}"));
    // An array with the same values in it would be read, too.
    let is_object = body.trim_ascii_start().starts_with(b"{");
    // Of a field that is there twice, nobody knows which is meant.
    let form = serde_json::from_slice::<Form>(body).ok().filter(|_| is_object);
    let Form { token, reason } = form.ok_or_else(|| {
        wrong("write {\"token\": 1881, \"reason\": \"…\"}, each once, and nothing else")
    })?;
    if reason.is_empty() {
        return Err(wrong("a reason is needed, for the audit log"));
    }
    let reason = Note::new(reason).map_err(|why| wrong(&format!("the reason: {why}")))?;
    Ok(Asked { token: FencingToken::new(token), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("{\"token\":1,\"token\":2,\"reason\":\"x\"}".to_owned(), false),
            ("{\"token\":1,\"reason\":\"x\",\"reason\":\"y\"}".to_owned(), false),
            ("[1,\"x\"]".to_owned(), false),
            ("[".to_owned(), false),
        ] {
            assert_eq!(read(body.as_bytes()).is_ok(), is_read, "{body}");
        }
    }
}
