//! The answers.
//!
//! ```text
//!   GET /livez /healthz    200 if the Coordinator answers within a second, else 503
//!   GET /readyz            200, or 503 and one word that says why clients are better sent elsewhere
//!   GET /leaderz           200 if it leads its cluster, or is in none; else 503, and who leads
//!   GET /metrics           figures, as text for Prometheus, for who sees all or for everybody
//!   GET / /assets/…        the page
//!   /api/v1/…              what it asks for (`api`)
//! ```
//!
//! A grace period is ready, and so is a disk that fails while tokens are left. An orchestrator
//! would otherwise cut off just those who have to come back.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, MatchedPath, RawQuery, Request, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use log::error;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};

use super::answered::Answered;
use super::api;
use super::glance::Glance;
use super::guard::{self, Guard};
use super::metrics::{self, Scrape};
use super::options::MetricsFor;
use super::page;
use super::places::Places;
use super::problem::Problem;
use super::process::Process;
use super::reload::Reloads;
use super::survey::Survey;
use crate::server::{Looker, Readiness, Role};

/// What is asked by whoever starts, stops and finds the coordinator. Each is answered within a second, and each
/// connection has one at a time.
const PROBES: [&str; 4] = ["/livez", "/healthz", "/readyz", "/leaderz"];
/// Other requests that are answered at the same time. One more is told to come again.
pub(super) const REQUESTS_MAX: usize = 32;
/// Of so many it is asked at the same time who they are: that is all that they put in front of the Coordinator.
const ASKED_OF_MAX: usize = 8;
/// So long it is asked, with the wait for those before.
const ASKED_WITHIN: Duration = Duration::from_secs(1);
/// Whoever scrapes within so long of another gets the same bytes.
pub(super) const SCRAPE_FRESH: Duration = Duration::from_millis(500);

/// What all answers have in common.
struct Port {
    /// Decides what is answered.
    guard: Arc<Guard>,
    /// The latest figures of the Coordinator.
    glance: Arc<Glance>,
    /// Walks over the locks that somebody waits for.
    survey: Arc<Survey>,
    /// The latest scrape.
    scrape: Mutex<Option<(Instant, Bytes)>>,
    /// Answers given.
    answered: Arc<Answered>,
    /// Who is told metrics.
    metrics: MetricsFor,
    /// Turns to have it asked who somebody is.
    asked_of: Semaphore,
    /// Room for requests.
    room: Semaphore,
    /// Room for those who prove nobody. They are told so late, and meanwhile keep nobody out who is somebody.
    strangers: Places,
}

/// Answers with what `looker` tells; to be called where tasks can be spawned.
pub(super) fn router(
    looker: Looker,
    guard: Arc<Guard>,
    metrics: MetricsFor,
    reloads: Option<Reloads>,
) -> Router {
    let survey = Arc::new(Survey::default());
    tokio::spawn(Arc::clone(&survey).walk(looker.clone()));
    let glance = Arc::new(Glance::new(looker.clone()));
    let api = api::router(looker, Arc::clone(&glance), reloads);
    let port = Arc::new(Port {
        guard,
        glance: Arc::clone(&glance),
        survey,
        scrape: Mutex::new(None),
        answered: Arc::default(),
        metrics,
        asked_of: Semaphore::new(ASKED_OF_MAX),
        room: Semaphore::new(REQUESTS_MAX),
        strangers: Places::new(REQUESTS_MAX),
    });
    Router::new()
        .route("/livez", get(livez))
        .route("/healthz", get(livez))
        .route("/readyz", get(readyz))
        .route("/leaderz", get(leaderz))
        .route("/metrics", get(scraped))
        .with_state(Arc::clone(&port))
        .merge(api)
        .merge(page::router())
        .fallback(nothing)
        .layer(middleware::from_fn_with_state(port, guarded))
}

/// There is nothing.
async fn nothing(uri: Uri) -> Response {
    if uri.path().starts_with("/api/") {
        return Problem::not_found().into_response();
    }
    (StatusCode::NOT_FOUND, "there is nothing at this path\n").into_response()
}

/// Asks the guard first, counts, and says to browsers what every answer says to them.
async fn guarded(State(port): State<Arc<Port>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let is_api = request.uri().path().starts_with("/api/");
    let takes_all = is_api && request.method() == Method::POST;
    let is_read = request.method() == Method::GET || request.method() == Method::HEAD;
    let mut answer = if !is_read && !takes_all {
        if is_api {
            Problem::method_not_allowed().into_response()
        } else {
            (StatusCode::METHOD_NOT_ALLOWED, "nothing can be changed here\n").into_response()
        }
    } else if let Err(refusal) = port.guard.admit(request.uri(), request.headers()) {
        if is_api {
            Problem::refused(refusal.status(), refusal.words()).into_response()
        } else {
            (refusal.status(), refusal.words()).into_response()
        }
    } else if PROBES.contains(&request.uri().path()) {
        // They take no room, or whoever fills it would have the coordinator pass for dead.
        next.run(request).await
    } else {
        admitted(&port, request, next).await
    };
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    port.answered.count(route, answer.status());
    for (name, value) in guard::headers() {
        answer.headers_mut().entry(name).or_insert(value);
    }
    answer
}

/// Finds room for a request, and answers it.
async fn admitted(port: &Port, request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let is_told = port.metrics == MetricsFor::WhoSeesAll && request.uri().path() == "/metrics";
    let is_known_path = request.extensions().get::<MatchedPath>().is_some();
    let (mut parts, body) = request.into_parts();
    if (is_api || is_told)
        && is_known_path
        && let Ok(visitor) = api::Visitor::from_request_parts(&mut parts, &()).await
    {
        let address = visitor.address().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        // Whoever it is, there is no room: that costs the Coordinator nothing.
        if port.room.available_permits() == 0 && port.strangers.take(address).is_none() {
            return busy(is_api);
        }
        match timeout(ASKED_WITHIN, is_nobody(port, &visitor)).await {
            Ok(true) => {
                let Some(_room) = port.strangers.take(address) else { return busy(is_api) };
                return next.run(Request::from_parts(parts, body)).await;
            }
            Ok(false) => {}
            Err(_) if is_api => return Problem::unavailable().into_response(),
            Err(_) => return silent(),
        }
    }
    match port.room.try_acquire() {
        Ok(_room) => next.run(Request::from_parts(parts, body)).await,
        Err(_) => busy(is_api),
    }
}

/// Whether somebody proves nobody, asked in turn.
async fn is_nobody(port: &Port, visitor: &api::Visitor) -> bool {
    let _turn = port.asked_of.acquire().await;
    api::is_nobody(&port.glance.looker, visitor).await
}

/// The Coordinator does not answer.
fn silent() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "no answer\n").into_response()
}

fn busy(is_api: bool) -> Response {
    if is_api {
        return Problem::busy().into_response();
    }
    let again = [
        (RETRY_AFTER, HeaderValue::from_static("1")),
        (CONNECTION, HeaderValue::from_static("close")),
    ];
    (StatusCode::SERVICE_UNAVAILABLE, again, "busy\n").into_response()
}

async fn livez(State(port): State<Arc<Port>>) -> Response {
    if port.glance.is_alive().await { "ok\n".into_response() } else { silent() }
}

async fn readyz(State(port): State<Arc<Port>>, RawQuery(query): RawQuery) -> Response {
    let figures = port.glance.figures().await;
    let (status, word) = match figures.as_ref().map(|it| port.glance.looker.readiness(it)) {
        Some(Readiness::Ready) => (StatusCode::OK, "ready"),
        Some(Readiness::Draining) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        Some(Readiness::Exhausted) => (StatusCode::SERVICE_UNAVAILABLE, "exhausted"),
        Some(Readiness::Suspended) => (StatusCode::SERVICE_UNAVAILABLE, "suspended"),
        None => match stands_by(&port) {
            Some(role) if role.reached => (StatusCode::OK, "standing by"),
            Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "no arbiter"),
            None => (StatusCode::SERVICE_UNAVAILABLE, "silent"),
        },
    };
    if query.as_deref() != Some("verbose") {
        return (status, format!("{word}\n")).into_response();
    }
    let counted = port.glance.looker.counted();
    let figures = figures.map(|it| {
        let counts = &it.counts;
        format!(
            "draining: {}\ntokens left: {}\ngrace: {:.1?} left\nunsaved: for {:.1?}\n",
            counts.draining, counts.tokens_left, it.grace, counted.unsaved,
        )
    });
    let cluster = counted.role.map(|role| format!("cluster: {role}\n"));
    let text = [Some(format!("{word}\n")), figures, cluster].into_iter().flatten();
    (status, text.collect::<String>()).into_response()
}

/// Its role, if that is to stand by.
fn stands_by(port: &Port) -> Option<Role> {
    port.glance.looker.role().filter(|role| !role.leads)
}

async fn leaderz(State(port): State<Arc<Port>>) -> Response {
    let Some(role) = port.glance.looker.role() else { return "leads\n".into_response() };
    let leads = role.leads && !role.suspended;
    let status = if leads { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("{role}\n")).into_response()
}

async fn scraped(
    State(port): State<Arc<Port>>,
    visitor: Result<api::Visitor, Problem>,
) -> Response {
    if port.metrics == MetricsFor::WhoSeesAll
        && let Err(problem) = api::may_scrape(&port.glance.looker, visitor).await
    {
        return problem.into_response();
    }
    let mut latest = port.scrape.lock().await;
    let text = match &*latest {
        Some((at, text)) if at.elapsed() < SCRAPE_FRESH => text.clone(),
        _ => {
            let figures = match port.glance.figures().await {
                None if stands_by(&port).is_none() => return silent(),
                figures => figures,
            };
            let scrape = Scrape {
                figures,
                counted: port.glance.looker.counted(),
                survey: port.survey.look().await,
                answered: Arc::clone(&port.answered),
                process: Process::look(),
                wall: SystemTime::now(),
            };
            let text = match metrics::render(scrape) {
                Ok(text) => Bytes::from(text),
                Err(why) => {
                    error!("metrics cannot be written: {why}");
                    return silent();
                }
            };
            *latest = Some((Instant::now(), text.clone()));
            text
        }
    };
    drop(latest);
    ([(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE))], text).into_response()
}
