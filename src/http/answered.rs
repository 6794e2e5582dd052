//! How often what was answered with what. What is not one of the routes is counted as one.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::StatusCode;

/// The routes, in the order of the counts.
const ROUTES: [&str; 5] = ["/livez", "/readyz", "/metrics", "/", "other"];
/// What they can be answered with, in the order of the counts.
const STATUSES: [(u16, &str); 7] = [
    (200, "200"),
    (400, "400"),
    (404, "404"),
    (405, "405"),
    (413, "413"),
    (421, "421"),
    (503, "503"),
];

/// How often each route was answered with what.
#[derive(Debug, Default)]
pub(super) struct Answered([[AtomicU64; STATUSES.len()]; ROUTES.len()]);

impl Answered {
    /// Counts an answer.
    pub(super) fn count(&self, path: &str, status: StatusCode) {
        let path = if path == "/healthz" { "/livez" } else { path };
        let route = ROUTES.iter().position(|route| *route == path).unwrap_or(ROUTES.len() - 1);
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
