//! `POST /api/v1/locks/{name}/revoke`: takes a lock away from whoever holds it with a token.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use super::Api;
use super::errand;
use super::ours;
use super::shown;
use super::visitor::Visitor;
use crate::access::Verb;
use crate::http::problem::Problem;
use crate::json;
use crate::server::Who;
use crate::types::{FencingToken, Note};
use crate::wire::{ClientMessage, ServerMessage};

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
