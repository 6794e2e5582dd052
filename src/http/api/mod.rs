//! The API: what the page shows and does, for programs.
//!
//! ```text
//!   GET  /api/v1/server                 the coordinator as a whole; who one is, and what one may
//!   GET  /api/v1/waits                  locks that somebody waits for, the longest wait first
//!   GET  /api/v1/locks                  all locks, a page at a time
//!   GET  /api/v1/locks/{name}           one lock
//!   GET  /api/v1/sessions               sessions, a page at a time
//!   GET  /api/v1/live, /api/v1/events   the same as it changes, and what happens (server-sent events)
//!   POST /api/v1/locks/{name}/revoke    takes a lock away
//!   POST /api/v1/reload                 has the configuration read again
//! ```
//!
//! The one idea: *each question is an observer's*. It goes over a connection of its own to the
//! coordinator, within the process, with what its asker shows. So rights, quotas, pace and audit are
//! those of the lock port, and none of that is written here. `docs/api.md` and `docs/openapi.json`
//! describe it.

mod errand;
mod kept;
mod line;
mod live;
mod lookout;
mod looks;
mod ours;
mod pace;
mod pages;
mod reload;
mod revoke;
mod shown;
mod stream;
#[cfg(test)]
mod tests;
mod visitor;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query as Parameters, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(super) use self::errand::{is_nobody, may_scrape};
use self::line::{AllLooks, Line};
use self::lookout::Lookouts;
use self::pages::{LIMIT_MAX, List};
use self::shown::Figured;
use self::stream::Streams;
pub(super) use self::visitor::Visitor;
use super::glance::Glance;
use super::problem::{JSON, Problem};
use super::reload::Reloads;
use crate::json;
use crate::server::{Looker, Who};
use crate::types::LOCK_NAME_LEN_MAX;
use crate::wire::{Query, ServerMessage};

/// The paths of all of it.
pub(super) const PATHS: [&str; 9] = [
    "/api/v1/server",
    "/api/v1/waits",
    "/api/v1/locks",
    "/api/v1/locks/{name}",
    "/api/v1/locks/{name}/revoke",
    "/api/v1/sessions",
    "/api/v1/events",
    "/api/v1/live",
    "/api/v1/reload",
];

/// What all answers have in common.
struct Api {
    /// The way to the coordinator.
    looker: Looker,
    /// Figures that no client can choose.
    figured: Figured,
    /// All who look.
    looks: Arc<AllLooks>,
    /// Walks over the locks that somebody waits for.
    lookouts: Lookouts,
    /// Places for streams.
    streams: Streams,
    /// Has the configuration read again.
    reloads: Option<Reloads>,
}

/// Answers with what `looker` tells.
pub(super) fn router(looker: Looker, glance: Arc<Glance>, reloads: Option<Reloads>) -> Router {
    let everyone = Arc::new(AllLooks::new());
    let api = Arc::new(Api {
        lookouts: Lookouts::new(looker.clone(), Arc::clone(&everyone)),
        looks: everyone,
        looker,
        figured: Figured(glance),
        streams: Streams::new(),
        reloads,
    });
    let [server, waits, locks, lock, revoke, sessions, events, live, reload] = PATHS;
    Router::new()
        .route(server, get(of_server))
        .route(waits, get(of_waits))
        .route(locks, get(of_locks))
        .route(lock, get(of_lock))
        .route(revoke, post(of_revoke))
        .route(sessions, get(of_sessions))
        .route(events, get(of_events))
        .route(live, get(of_live))
        .route(reload, post(of_reload))
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .with_state(api)
}

/// An answer, or why there is none.
type Answer = Result<Response, Problem>;

fn told(json: &Value) -> Response {
    ([(CONTENT_TYPE, JSON)], format!("{json}\n")).into_response()
}

/// Parameters that are none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// How much of a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    /// So many at most.
    limit: Option<usize>,
    /// From where on.
    cursor: Option<String>,
}

/// The same of a list with names.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartOfNames {
    /// What the names begin with.
    prefix: Option<String>,
    /// So many at most.
    limit: Option<usize>,
    /// From where on.
    cursor: Option<String>,
}

/// How many.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    /// So many at most.
    limit: Option<usize>,
}

/// Of which lock.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Of {
    /// Its name; none: all.
    lock: Option<String>,
}

/// Parameters, once they are read.
struct Read<T>(Result<T, Problem>);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Read<T> {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // Else it would be read as the sign for what cannot be read, and found in no name.
        if !is_text(parts.uri.query().unwrap_or_default()) {
            return Ok(Self(Err(Problem::bad_request("a parameter is no UTF-8"))));
        }
        let read = Parameters::try_from_uri(&parts.uri);
        let told = |why: QueryRejection| Problem::bad_request(why.body_text());
        Ok(Self(read.map(|Parameters(parameters)| parameters).map_err(told)))
    }
}

/// Whether what a query escapes is text.
fn is_text(query: &str) -> bool {
    let (mut bytes, mut rest) = (Vec::with_capacity(query.len()), query.as_bytes());
    while let [first, behind @ ..] = rest {
        let escaped = behind.first_chunk::<2>().filter(|_| *first == b'%');
        let byte = escaped.and_then(|digits| {
            let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
            u8::try_from(high? * 16 + low?).ok()
        });
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &behind[2..] } else { behind };
    }
    std::str::from_utf8(&bytes).is_ok()
}

fn parameters<T>(Read(read): Read<T>) -> Result<T, Problem> {
    read
}

fn limited(limit: Option<usize>) -> Result<usize, Problem> {
    match limit {
        None => Ok(LIMIT_MAX),
        Some(limit @ 1..=LIMIT_MAX) => Ok(limit),
        Some(_) => Err(Problem::bad_request(format!("limit is a number from 1 to {LIMIT_MAX}"))),
    }
}

fn named(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    path.map(|Path(name)| name).map_err(|why| Problem::bad_request(why.body_text()))
}

async fn of_server(State(api): State<Arc<Api>>, visitor: Visitor, read: Read<Nothing>) -> Answer {
    parameters(read)?;
    let mut line = api.line(&visitor).await?;
    let status = lookout::status(&mut line).await?;
    let Some(Ok(who)) = api.looker.who(visitor.proof()).await else {
        // Not any more, since just now.
        return Err(Problem::unavailable());
    };
    let mut shown = api.figured.server(&status).await;
    let limits = api.looker.limits();
    let (principal, may) = shown::who(&who);
    shown["limits"] = json!({"connections": limits.connections, "sessions": limits.sessions});
    shown["open"] = json!(matches!(who, Who::Anybody));
    shown["principal"] = principal;
    shown["may"] = may;
    Ok(told(&shown))
}

async fn of_waits(State(api): State<Arc<Api>>, visitor: Visitor, read: Read<First>) -> Answer {
    let limit = limited(parameters(read)?.limit)?;
    let scene = api.lookouts.of(&visitor).await?.scene().await?;
    Ok(told(&shown::waits(&scene, limit)))
}

async fn of_locks(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    read: Read<PartOfNames>,
) -> Answer {
    let PartOfNames { prefix, limit, cursor } = parameters(read)?;
    let (limit, prefix) = (limited(limit)?, prefix.unwrap_or_default());
    if prefix.len() > LOCK_NAME_LEN_MAX {
        return Err(Problem::bad_request("no name is as long as that prefix"));
    }
    let list = List {
        ask: |cursor| Query::Locks { cursor },
        open: |answer| match answer {
            ServerMessage::LockStatus { locks, next, .. } => Some((locks, next)),
            _ => None,
        },
        key: |lock| lock.name.to_string(),
    };
    let mut line = api.line(&visitor).await?;
    let wanted = |lock: &crate::wire::LockStatus| lock.name.as_str().starts_with(&prefix);
    let (locks, next) = list.page(&mut line, cursor.as_deref(), limit, wanted).await?;
    let outlooks = kept::why_held_by_nobody(&mut line, &locks).await;
    let locks: Vec<Value> = locks.iter().map(|lock| shown::lock(lock, &outlooks)).collect();
    Ok(told(&json!({"locks": locks, "next": next})))
}

async fn of_lock(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    path: Result<Path<String>, PathRejection>,
    read: Read<Nothing>,
) -> Answer {
    let name = named(path)?;
    parameters(read)?;
    let mut line = api.line(&visitor).await?;
    let seen = shown::one(&mut line, &name).await?;
    if seen.lock.is_none() {
        return Err(Problem::not_in_use(&name));
    }
    Ok(told(&seen.shown))
}

async fn of_revoke(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    path: Result<Path<String>, PathRejection>,
    read: Read<Nothing>,
    request: Request<Body>,
) -> Answer {
    let name = named(path)?;
    parameters(read)?;
    revoke::revoke(&api, &visitor, &name, request).await.map(|shown| told(&shown))
}

async fn of_reload(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    read: Read<Nothing>,
    request: Request<Body>,
) -> Answer {
    parameters(read)?;
    reload::reload(&api, &visitor, request).await
}

async fn of_sessions(State(api): State<Arc<Api>>, visitor: Visitor, read: Read<Part>) -> Answer {
    let Part { limit, cursor } = parameters(read)?;
    let limit = limited(limit)?;
    let list = List {
        ask: |cursor| Query::Sessions { cursor },
        open: |answer| match answer {
            ServerMessage::SessionStatus { sessions, next, .. } => Some((sessions, next)),
            _ => None,
        },
        key: |session| session.session.to_string(),
    };
    let mut line = api.line(&visitor).await?;
    let (sessions, next) = list.page(&mut line, cursor.as_deref(), limit, |_| true).await?;
    let sessions: Vec<Value> = sessions.iter().map(json::session).collect();
    Ok(told(&json!({"sessions": sessions, "next": next})))
}

impl Api {
    /// A line for a visitor, who is welcome.
    async fn line(&self, visitor: &Visitor) -> Result<Line, Problem> {
        Line::open(&self.looker, visitor, &self.looks).await
    }

    /// A place for a stream, if there is one left for this one.
    async fn place(&self, visitor: &Visitor) -> Result<stream::Place, Problem> {
        let who = errand::known(&self.looker, visitor).await?;
        self.streams.take(&who, visitor.address()).ok_or_else(Problem::busy)
    }
}

async fn of_events(State(api): State<Arc<Api>>, visitor: Visitor, read: Read<Of>) -> Answer {
    let lock = parameters(read)?.lock;
    let place = api.place(&visitor).await?;
    let mut line = api.line(&visitor).await?;
    live::subscribe(&mut line, lock).await?;
    Ok(stream::answer(&visitor.caller.life, place, |sink| live::events(sink, line)))
}

async fn of_live(State(api): State<Arc<Api>>, visitor: Visitor, read: Read<Of>) -> Answer {
    let lock = parameters(read)?.lock;
    let place = api.place(&visitor).await?;
    let lookout = api.lookouts.of(&visitor).await?;
    let lock = match lock {
        None => None,
        Some(name) => {
            let mut line = api.line(&visitor).await?;
            live::may_see(&mut line, &name).await?;
            Some((line, name))
        }
    };
    let figured = api.figured.clone();
    let life = &visitor.caller.life;
    Ok(stream::answer(life, place, |sink| live::live(sink, lookout, figured, lock)))
}
