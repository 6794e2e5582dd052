//! What `status` prints for programs, from what it has seen.

#[cfg(test)]
pub(crate) use coordinator::json::mode;
use coordinator::json::{cluster, journal, lock_with_outlook, server, session};
use serde_json::{Value, json};

use super::seen::Seen;

/// What `status` has seen.
pub(crate) fn seen(seen: &Seen) -> Value {
    let locks = seen.locks.iter().map(|lock| {
        let outlook = seen.outlooks.iter().find(|outlook| lock.name == outlook.name);
        lock_with_outlook(lock, outlook)
    });
    let mut json = json!({
        "server": server(&seen.server),
        "locks": locks.collect::<Vec<_>>(),
    });
    json["journal"] = seen.journal.as_ref().map_or(Value::Null, journal);
    json["cluster"] = seen.cluster.as_ref().map_or(Value::Null, cluster);
    if let Some(sessions) = &seen.sessions {
        json["sessions"] = sessions.iter().map(session).collect();
    }
    json
}
