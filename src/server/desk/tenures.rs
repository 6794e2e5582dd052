//! Rate limiting of the log for sessions that are granted again and again.
//!
//! The log must tell who had a lock at three in the morning. So each grant is a line in it, and so
//! is its end. But a worker may be granted a lock a hundred thousand times in a second. So some
//! grants of each session in an interval are told, and then it is *hushed*. The engine counts its
//! further grants, which costs an addition. The sum is told when the interval is over: `granted
//! 3201 more times in the last 10 s lock="queue-7" …`. The end of a long hold is told in any case.
//!
//! All sessions of an address together are bounded, too, by [`Chatter`](crate::server::chatter::Chatter).
//!
//! At debug nothing is left out.

use std::collections::HashMap;
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::engine::{Happened, LockTable, RequestEvent};
use crate::server::chatter::{Chatter, Topic};
use crate::server::fields::Lines;
use crate::server::log_lines::{self, Hushed, Telling};
use crate::types::{SessionId, Timestamp};

/// How long grants are told or counted before the sums are told.
const INTERVAL: Duration = Duration::from_secs(10);
/// Grants of one session that are told in an interval.
const GRANTS_PER_SESSION_MAX: u32 = 10;
/// Sessions that are told apart in an interval; it ends when one more comes.
const SESSIONS_MAX: usize = 16 * 1024;
/// Sessions whose sums are told apart when an interval is over, those that were granted most; the rest
/// is one.
const NAMED_MAX: usize = 8;

/// Which grants are told, and which are counted.
#[derive(Debug, Default)]
pub(super) struct Tenures {
    /// The interval that goes on; none while nothing was granted.
    present: Option<Interval>,
}

/// What was granted in an interval.
#[derive(Debug)]
struct Interval {
    /// When it began.
    began: Timestamp,
    /// How many grants of each session were told.
    told: HashMap<SessionId, u32, RandomState>,
    /// The sessions that are hushed.
    hushed: Vec<(SessionId, Hushed)>,
}

impl Tenures {
    /// How something that the engine has noted is told. If that was enough of its session, the
    /// engine is told to count instead.
    pub(super) fn admit(
        &mut self,
        happened: &Happened,
        table: &mut LockTable,
        chatter: &Chatter,
        lines: &mut Lines,
        now: Timestamp,
    ) -> Telling {
        let Happened { session, ref identity, peer, ref claims, ref what, .. } = *happened;
        let may_be_told = chatter.admits(Topic::Grant, peer);
        let telling = if may_be_told { Telling::Lines } else { Telling::Sums };
        if !matches!(what, RequestEvent::Granted { .. }) {
            return telling;
        }
        if self.present.as_ref().is_some_and(|it| it.told.len() >= SESSIONS_MAX) {
            self.tell_rest(table, lines, now);
        }
        let interval = self.present.get_or_insert_with(|| Interval {
            began: now,
            told: HashMap::default(),
            hushed: Vec::new(),
        });
        let told = interval.told.entry(session).or_default();
        *told += 1;
        if (*told >= GRANTS_PER_SESSION_MAX || !may_be_told)
            && let Some(claim) = claims.first()
        {
            table.hush(session);
            let hushed = Hushed { identity: identity.clone(), peer, lock: claim.name.clone() };
            interval.hushed.push((session, hushed));
        }
        telling
    }

    /// Tells the sums, if the interval is over.
    pub(super) fn look(&mut self, table: &mut LockTable, lines: &mut Lines, now: Timestamp) {
        if self.present.as_ref().is_some_and(|interval| now.since(interval.began) >= INTERVAL) {
            self.tell_rest(table, lines, now);
        }
    }

    /// Tells the sums so far, and begins anew.
    pub(super) fn tell_rest(&mut self, table: &mut LockTable, lines: &mut Lines, now: Timestamp) {
        let Some(Interval { began, hushed, .. }) = self.present.take() else { return };
        let within = now.since(began);
        let count = |(session, hushed)| (table.unhush(session), session, hushed);
        let mut counted: Vec<(u64, SessionId, Hushed)> = hushed.into_iter().map(count).collect();
        counted.sort_unstable_by_key(|(count, session, _)| (u64::MAX - *count, *session));
        for (count, session, hushed) in counted.iter().take(NAMED_MAX).filter(|it| it.0 > 0) {
            lines.push(log_lines::granted_more(*session, hushed, *count, within));
        }
        let rest: u64 = counted.iter().skip(NAMED_MAX).map(|(count, ..)| count).sum();
        match rest + table.take_untold_of_ended() {
            0 => {}
            rest => lines.push(log_lines::granted_more_to_others(rest, within)),
        }
    }
}
