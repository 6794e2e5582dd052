//! What is shown, as JSON.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::line::Line;
use super::lookout::{Scene, WAITERS_TOLD_MAX};
use crate::access::{Rule, Verb};
use crate::http::glance::Glance;
use crate::http::problem::Problem;
use crate::json;
use crate::server::Who;
use crate::types::{Histogram, RejectionCode};
use crate::wire::{LockStatus, Outlook, Query, ServerMessage, ServerStatus};

/// The coordinator as a whole, with figures that no client can choose.
#[derive(Clone, Debug)]
pub(super) struct Figured(pub(super) Arc<Glance>);

impl Figured {
    /// The status, the wall clock, and how long grants were waited for so far.
    pub(super) async fn server(&self, status: &ServerStatus) -> Value {
        let figures = self.0.figures().await;
        let waited = figures.as_ref().map(|figures| histogram(&figures.tally.waits));
        let deadlock = RejectionCode::Deadlock.name();
        let deadlocks = figures.and_then(|figures| {
            figures.told.rejections().find(|(code, _)| *code == deadlock).map(|(_, count)| count)
        });
        let cluster = self.0.looker.role().map(|role| json::cluster(&role.status()));
        json!({
            "cluster": cluster,
            "server": json::server(status),
            "as_of_ms": wall_ms(),
            "deadlocks": deadlocks,
            "waited": waited,
        })
    }
}

/// How often something took how long: bounds in milliseconds, and how many were within each and past the one
/// before. The last count has no bound.
fn histogram(of: &Histogram) -> Value {
    let buckets: Vec<_> = of.buckets().collect();
    let le: Vec<Value> =
        buckets.iter().filter_map(|(le, _)| le.map(|le| json!(le.as_secs_f64() * 1e3))).collect();
    let counts: Vec<u64> = buckets.iter().map(|(_, count)| *count).collect();
    json!({"le_ms": le, "counts": counts})
}

/// The wall clock, in milliseconds since 1970-01-01 UTC.
pub(super) fn wall_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Whole milliseconds.
pub(super) fn millis(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX)
}

/// Who it is, and what that may do.
pub(super) fn who(who: &Who) -> (Value, Value) {
    match who {
        // Whoever reaches the port may read; what changes something asks for a proof.
        Who::Anybody => (Value::Null, json!([{"do": ["see"], "names": "*"}])),
        Who::Principal(principal) => {
            let may: Vec<Value> = principal.rules.written().iter().map(rule).collect();
            (json!(principal.name.as_str()), json!(may))
        }
    }
}

fn rule(rule: &Rule) -> Value {
    let verbs: Vec<&str> = rule.verbs.iter().map(Verb::as_str).collect();
    json!({"do": verbs, "names": rule.names.to_string()})
}

/// A lock of a list, with its outlook if that is among these.
pub(super) fn lock(lock: &LockStatus, outlooks: &[Outlook]) -> Value {
    let outlook = outlooks.iter().find(|outlook| outlook.name == lock.name);
    json::lock_with_outlook(lock, outlook)
}

/// A walk over the locks that somebody waits for; so many of them at most.
pub(super) fn waits(scene: &Scene, limit: usize) -> Value {
    let shown = scene.locks.iter().take(limit).map(|seen| {
        let mut shown = lock(seen, &scene.outlooks);
        if let Some(waiters) = shown["waiters"].as_array_mut() {
            waiters.truncate(WAITERS_TOLD_MAX);
        }
        shown
    });
    let locks: Vec<Value> = shown.collect();
    json!({
        "age_ms": millis(scene.at.elapsed()),
        "complete": locks.len() == scene.contended,
        "contended": scene.contended,
        "waiting": scene.waiting,
        "locks": locks,
    })
}

/// A lock as it was seen.
pub(super) struct Seen {
    /// With all holders and waiters that there is room for; none: it is not in use.
    pub(super) lock: Option<LockStatus>,
    /// Until when it is not to be had, if anything is known of that.
    pub(super) outlook: Option<Outlook>,
    /// Both, as programs are told.
    pub(super) shown: Value,
}

/// One lock.
pub(super) async fn one(line: &mut Line, name: &str) -> Result<Seen, Problem> {
    let answer = line.look(Query::Lock { name: name.to_owned() }).await?;
    let ServerMessage::LockStatus { mut locks, .. } = answer else {
        return Err(Problem::unavailable());
    };
    let answer = line.look(Query::Outlook { name: name.to_owned() }).await?;
    let ServerMessage::Outlook { locks: mut outlooks, .. } = answer else {
        return Err(Problem::unavailable());
    };
    let (lock, outlook) = (locks.pop(), outlooks.pop());
    let shown = lock.as_ref().map(|lock| json::lock_with_outlook(lock, outlook.as_ref()));
    let shown = json!({"as_of_ms": wall_ms(), "name": name, "lock": shown});
    Ok(Seen { lock, outlook, shown })
}
