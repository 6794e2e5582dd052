//! What went wrong, for whoever asked: a status, a code that programs know, a sentence, and what to do.

use axum::http::StatusCode;
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::server::Role;
use crate::types::{GoodbyeCode, RejectionCode};

/// The type of all that is JSON.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A *no*, or a failure.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    /// What HTTP calls it.
    status: StatusCode,
    /// What programs know it by: the name of a rejection code, or one of a few more.
    code: &'static str,
    /// What happened.
    message: String,
    /// What to do.
    hint: Option<&'static str>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), hint: None }
    }

    fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    /// What was asked is not understood.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
            .hint("docs/api.md has the parameters of every path")
    }

    /// There is no such path.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "there is nothing at this path")
            .hint("docs/api.md has all paths")
    }

    /// That path does not take this method.
    pub(super) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "BadRequest",
            "this path does not take that method",
        )
        .hint("docs/api.md has all paths, and the method of each")
    }

    /// Nobody holds the lock, and nobody waits for it.
    pub(super) fn not_in_use(name: &str) -> Self {
        let message = format!("nobody holds {name:?} or waits for it");
        Self::new(StatusCode::NOT_FOUND, "NotInUse", message)
    }

    /// A list that was begun in another run cannot be gone on with.
    pub(super) fn gone() -> Self {
        let message = "the list was begun in an earlier run of the coordinator";
        Self::new(StatusCode::GONE, "Gone", message).hint("begin it anew, without a cursor")
    }

    /// Too many ask at the same time.
    pub(super) fn busy() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Busy", "too many ask at the same time")
            .hint("try again in a second")
    }

    /// What is to be read did not come.
    pub(super) fn slow_body() -> Self {
        let message = "what comes behind the headers did not arrive within 5 s";
        Self::new(StatusCode::REQUEST_TIMEOUT, "BadRequest", message)
            .hint("send as many bytes as Content-Length says")
    }

    /// No answer came in time.
    pub(super) fn late() -> Self {
        let message = "the coordinator did not come to it in time: too many look";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Busy", message).hint("try again in a second")
    }

    /// Something was to be changed, and no answer came.
    pub(super) fn not_known() -> Self {
        let message = "not known whether it was taken away: no answer came, and what was asked for may be done \
                       already, or once the coordinator can save its state, or its cluster answers";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "NotKnown", message)
            .hint("look at who holds the lock, and with which token, before you ask again")
    }

    /// There is nobody to ask.
    pub(super) fn unavailable() -> Self {
        let message = "the coordinator stops, or does not answer";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", message)
    }

    /// Another of its cluster has to be asked.
    pub(super) fn stands_by(role: &Role) -> Self {
        let message = format!("{} {role}", role.name);
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "StandsBy", message)
            .hint("ask the one that leads")
    }

    /// The guard does not let it in.
    pub(super) fn refused(status: StatusCode, words: &str) -> Self {
        let code = match status {
            StatusCode::PAYLOAD_TOO_LARGE => "TooLarge",
            _ => "BadRequest",
        };
        Self::new(status, code, words.trim_end())
    }

    /// More was sent than is read.
    pub(super) fn too_large() -> Self {
        let message = "what comes behind the headers is too long, or of unknown length";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "TooLarge", message)
    }

    /// It comes from a page of somebody else, or might.
    pub(super) fn foreign(message: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
            .hint("send X-Coordinator: 1, and Content-Type: application/json")
    }

    /// Nobody here has read a configuration.
    pub(super) fn nothing_to_reload() -> Self {
        let message = "this coordinator has no configuration that can be read again";
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    /// The configuration has mistakes.
    pub(super) fn mistaken() -> Self {
        let message = "nothing has changed: there is a mistake in what was read";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "BadConfiguration", message)
            .hint("coordinator config check tells the same on the machine itself")
    }

    /// The configuration is still being read.
    pub(super) fn still_reading() -> Self {
        let message =
            "the configuration is still being read; what becomes of it is told by the log";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Busy", message)
            .hint("look at where its files are: reading them takes long")
    }

    /// Without rules, nothing is changed over HTTP.
    pub(super) fn nobody_may() -> Self {
        let message = "nothing can be changed over HTTP while the coordinator has no access file";
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).hint(
            "an access file says who may break locks (docs/operations.md); on the machine itself \
             there is coordinator release NAME --force --token T",
        )
    }

    /// What shows who it is cannot be read.
    pub(super) fn unreadable_credential() -> Self {
        let message = "Authorization is not read: write Bearer, a space, and a credential";
        Self::new(StatusCode::UNAUTHORIZED, "Unauthenticated", message)
    }

    /// The coordinator said *no* to a question.
    pub(super) fn rejected(code: RejectionCode, message: String) -> Self {
        let status = match code {
            RejectionCode::Forbidden => StatusCode::FORBIDDEN,
            RejectionCode::NoSuchGrant => StatusCode::CONFLICT,
            RejectionCode::SlowDown | RejectionCode::Unavailable | RejectionCode::Draining => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, code.name(), message)
    }

    /// The coordinator said Goodbye.
    pub(super) fn dismissed(code: GoodbyeCode, rejection: RejectionCode, message: String) -> Self {
        match (rejection, code) {
            (RejectionCode::Unauthenticated, _) => {
                Self::new(StatusCode::UNAUTHORIZED, rejection.name(), message)
                    .hint("send Authorization: Bearer, and your credential")
            }
            (RejectionCode::Forbidden, _) => {
                Self::new(StatusCode::FORBIDDEN, rejection.name(), message)
            }
            (_, GoodbyeCode::TooManyConnections) => Self { message, ..Self::busy() },
            _ => Self { message, ..Self::unavailable() },
        }
    }

    /// Whether it is that the coordinator said this *no*.
    pub(super) fn is(&self, code: RejectionCode) -> bool {
        self.code == code.name()
    }

    /// As programs are told.
    pub(super) fn json(&self) -> Value {
        let Self { status: _, code, message, hint } = self;
        json!({"error": {"code": code, "message": message, "hint": hint}})
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut answer = (self.status, format!("{}\n", self.json())).into_response();
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, JSON);
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.code == "Busy" || self.code == "SlowDown" {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            // Its place is for another.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_pass_by_itself_is_no_mistake_of_who_asks() {
        for (code, status) in [
            (RejectionCode::Unavailable, 503),
            (RejectionCode::Draining, 503),
            (RejectionCode::SlowDown, 503),
            (RejectionCode::NoSuchGrant, 409),
            (RejectionCode::Forbidden, 403),
            (RejectionCode::InvalidLockName, 400),
        ] {
            let answer = Problem::rejected(code, String::new()).into_response();
            assert_eq!(answer.status().as_u16(), status, "{code}");
        }
    }
}
