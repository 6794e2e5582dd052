//! Locks that nobody holds, though somebody waits for them: why, and after whom.

use std::time::Duration;

use tokio::time::Instant;

use super::line::Line;
use crate::types::RejectionCode;
use crate::wire::{LockStatus, Outlook, Query, ServerMessage};

/// Locks of a list of which it is asked why nobody holds them.
const OUTLOOKS_MAX: usize = 20;
/// No more are asked about after so long: where many look, the list itself is worth more.
const OUTLOOKS_TIME: Duration = Duration::from_millis(250);

/// Why nobody has locks that nobody holds: the first few of a list. It is asked for each by itself, as far as there is
/// an answer, and time.
pub(super) async fn why_held_by_nobody(line: &mut Line, locks: &[LockStatus]) -> Vec<Outlook> {
    let (began, mut outlooks) = (Instant::now(), Vec::new());
    let is_free = |lock: &&LockStatus| lock.holders.is_empty();
    for lock in locks.iter().filter(is_free).take(OUTLOOKS_MAX) {
        match line.look(Query::Outlook { name: lock.name.to_string() }).await {
            Ok(ServerMessage::Outlook { locks, .. }) => outlooks.extend(locks),
            // It may be seen no more. What was seen of it a moment ago is told.
            Err(problem) if problem.is(RejectionCode::Forbidden) => {}
            Ok(_) | Err(_) => break,
        }
        if began.elapsed() >= OUTLOOKS_TIME {
            break;
        }
    }
    outlooks
}
