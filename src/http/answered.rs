//! How often what was answered with what. What is not one of the routes is counted as one.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::StatusCode;

use super::api::PATHS;

/// The routes besides those of the API; the last is what is none.
const OWN: [&str; 7] =
    ["/livez", "/readyz", "/leaderz", "/metrics", "/", "/assets/{name}", "other"];
/// The routes, in the order of the counts.
const ROUTES: [&str; PATHS.len() + OWN.len()] = {
    let mut all = ["other"; PATHS.len() + OWN.len()];
    let (api, own) = all.split_at_mut(PATHS.len());
    api.copy_from_slice(&PATHS);
    own.copy_from_slice(&OWN);
    all
};
/// What they can be answered with, in the order of the counts.
const STATUSES: [(u16, &str); 15] = [
    (200, "200"),
    (304, "304"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (409, "409"),
    (410, "410"),
    (413, "413"),
    (421, "421"),
    (422, "422"),
    (503, "503"),
    (504, "504"),
];

/// How often each route was answered with what.
#[derive(Debug, Default)]
pub(super) struct Answered([[AtomicU64; STATUSES.len()]; ROUTES.len()]);

impl Answered {
    /// Counts an answer.
    pub(super) fn count(&self, route: &str, status: StatusCode) {
        let route = if route == "/healthz" { "/livez" } else { route };
        let route = ROUTES.iter().position(|known| *known == route).unwrap_or(ROUTES.len() - 1);
        let status = STATUSES.iter().position(|(known, _)| *known == status.as_u16());
        let count = status.and_then(|status| self.0.get(route)?.get(status));
        if let Some(count) = count {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Each route, each status, how often.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        ROUTES.iter().zip(&self.0).flat_map(|(route, counts)| {
            let counts = STATUSES.iter().zip(counts);
            counts.map(|((_, status), count)| (*route, *status, count.load(Ordering::Relaxed)))
        })
    }
}
