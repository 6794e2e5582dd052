//! Locks that nobody holds, though somebody waits for them: why, and after whom.

use super::line::Line;
use crate::http::problem::Problem;
use crate::types::RejectionCode;
use crate::wire::{LockStatus, Outlook, Query, ServerMessage};

/// Locks of a list of which it is asked why nobody holds them.
const OUTLOOKS_MAX: usize = 20;

/// Why nobody has locks that nobody holds: the first few of a list. It is asked for each by itself.
pub(super) async fn why_held_by_nobody(
    line: &mut Line,
    locks: &[LockStatus],
) -> Result<Vec<Outlook>, Problem> {
    let mut outlooks = Vec::new();
    let is_free = |lock: &&LockStatus| lock.holders.is_empty();
    for lock in locks.iter().filter(is_free).take(OUTLOOKS_MAX) {
        match line.look(Query::Outlook { name: lock.name.to_string() }).await {
            Ok(ServerMessage::Outlook { locks, .. }) => outlooks.extend(locks),
            Ok(_) => return Err(Problem::unavailable()),
            // It may be seen no more. What was seen of it a moment ago is told.
            Err(problem) if problem.is(RejectionCode::Forbidden) => {}
            Err(problem) => return Err(problem),
        }
    }
    Ok(outlooks)
}
