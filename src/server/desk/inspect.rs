//! Looks at the table, a page at a time (rule R10).
//!
//! A page is filled until a budget of bytes is used up, well below the size of a frame. The budget
//! is one connection's for one turn. A client that asks a hundred questions in one write gets a
//! hundred answers, but not a hundred full pages at once. A page also looks at a bounded number of
//! vacant places. Past it, the page is short or empty, and says where the next begins (pagination).

use std::net::SocketAddr;
use std::time::Duration;

use super::marked::proven_identity;
use super::render;
use crate::access::Sight;
use crate::engine::{
    CYCLE_TOLD_MAX, HolderView, LockTable, LockView, PLACES_LOOKED_AT_MAX, Pause, Rejection,
    SessionView, WaiterView,
};
use crate::journal::Distance;
use crate::server::counters::Counters;
use crate::server::keeping::{Beginning, Keeping};
use crate::server::role::Role;
use crate::types::{Cycle, CycleLink, RequestId, Timestamp};
use crate::wire::{
    self, After, FRAME_LEN_MAX, Holder, JournalDistance, JournalStart, JournalStatus, LockStatus,
    Outlook, ServerMessage, ServerStatus, SessionStatus, WaitedStatus, Waiter,
};

/// What one turn may put into pages.
pub(in crate::server) const PAGE_BYTES_MAX: usize = FRAME_LEN_MAX / 4 * 3;
/// Bytes of a holder, waiter, lock or session besides the texts that clients choose: an upper bound.
const FIXED_BYTES: usize = 160;

/// Most bytes of a cycle that are told: with ordinary names, those of as many links as are ever told.
pub(in crate::server) const CYCLE_BYTES_MAX: usize = 8192;
/// Bytes of a link of a cycle besides its texts, as they are on the wire.
const LINK_FIXED_BYTES: usize = 64;
/// What is said of a deadlock where there is no room to say who waits for whom.
const CYCLE_LEFT_OUT: &str =
    "waiting would never end; too many inquiries at once to list the cycle";

/// How many holders and waiters of a lock are named.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct Named {
    /// So many holders in any case.
    holders_min: usize,
    /// So many holders, as far as the budget goes.
    holders_max: usize,
    /// So many waiters, as far as the budget goes.
    waiters_max: usize,
}

impl Named {
    /// In a page of many locks, or in a rejection.
    pub(in crate::server) const FEW: Self = Self { holders_min: 0, holders_max: 4, waiters_max: 4 };
    /// For who asks for one lock.
    const ALL: Self = Self { holders_min: 0, holders_max: usize::MAX, waiters_max: usize::MAX };
    /// For who watches a lock: that is for the sake of its holders. However many locks have changed
    /// in a turn, the one who alone holds each is told.
    pub(in crate::server) const WATCHED: Self =
        Self { holders_min: 1, holders_max: usize::MAX, waiters_max: 4 };
    /// For who watches a lock and has no room left for more.
    pub(in crate::server) const ONE: Self = Self { holders_min: 1, holders_max: 1, waiters_max: 0 };
}

/// Bytes that one connection may still have in this turn.
#[derive(Debug)]
pub(in crate::server) struct Budget(usize);

impl Budget {
    /// What a turn begins with.
    pub(in crate::server) fn of_a_turn() -> Self {
        Self(PAGE_BYTES_MAX)
    }

    /// Uses up `bytes`; says whether they were there.
    pub(in crate::server) fn take(&mut self, bytes: usize) -> bool {
        let enough = bytes <= self.0;
        self.0 = self.0.saturating_sub(bytes);
        enough
    }

    /// Half of what is left, so that holders leave room for waiters.
    fn half(&self) -> Self {
        Self(self.0 / 2)
    }
}

/// The coordinator as a whole.
pub(in crate::server) fn server(
    table: &LockTable,
    query_id: u64,
    uptime: Duration,
    counters: &Counters,
) -> ServerMessage {
    let status = Box::new(status(table, uptime, counters));
    ServerMessage::ServerStatus { query_id, status }
}

/// The same for the log: no work that grows with what there is.
pub(in crate::server) fn status(
    table: &LockTable,
    uptime: Duration,
    counters: &Counters,
) -> ServerStatus {
    let counts = table.counts();
    ServerStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch: table.epoch(),
        uptime_ms: render::millis(uptime),
        draining: counts.draining,
        connections: render::count(counters.connections()),
        sessions: render::count(counts.sessions),
        locks: render::count(counts.locks),
        held: render::count(counts.held),
        waiting: render::count(counts.waiting),
        grants: counts.grants,
        expired: counts.expired,
        protocol_errors: counters.protocol_errors.total(),
        slow_readers: counters.slow_readers.total(),
        handshake_timeouts: counters.handshake_timeouts.total(),
        connections_refused: counters.connections_refused.total(),
        last_token: counts.last_token,
        grace_ms: table.grace_left().map_or(0, render::millis),
        unsaved_ms: counters.unsaved().map_or(0, render::millis),
    }
}

/// The journal, and how this run began.
pub(in crate::server) fn journal(query_id: u64, keeping: &Keeping) -> ServerMessage {
    let start = match keeping.beginning() {
        Beginning::New => JournalStart::New,
        Beginning::Saved => JournalStart::Saved,
        Beginning::Replayed { events, took } => {
            JournalStart::Replayed { events, took_us: render::micros(took) }
        }
        Beginning::Lost { why, grace } => {
            JournalStart::Lost { why, grace_ms: render::millis(grace) }
        }
    };
    let distance = match keeping.distance() {
        None => JournalDistance::Off,
        Some(Distance::Process) => JournalDistance::Process,
        Some(Distance::Machine) => JournalDistance::Machine,
    };
    // At least something: zero says that all is well.
    let off_ms = keeping.off().map_or(0, |off| render::millis(off).max(1));
    let status = Box::new(JournalStatus { distance, bytes: keeping.bytes(), off_ms, start });
    ServerMessage::JournalStatus { query_id, status }
}

/// The cluster that it leads, if it is one of several.
pub(in crate::server) fn cluster(query_id: u64, role: Option<Role>) -> ServerMessage {
    ServerMessage::ClusterStatus { query_id, status: role.map(|role| Box::new(role.status())) }
}

/// For how long grants were waited for in this run.
pub(in crate::server) fn waited(table: &LockTable, query_id: u64) -> ServerMessage {
    let (bounds, counts): (Vec<_>, Vec<_>) = table.tally().waits.buckets().unzip();
    let bounds_us = bounds.into_iter().flatten().map(render::micros).collect();
    let status = Box::new(WaitedStatus { epoch: table.epoch(), bounds_us, counts });
    ServerMessage::WaitedStatus { query_id, status }
}

/// A look at everything, by somebody who may see some of it.
pub(in crate::server) struct Look<'a> {
    /// What is looked at.
    pub(in crate::server) table: &'a LockTable,
    /// What is answered.
    pub(in crate::server) query_id: u64,
    /// When.
    pub(in crate::server) now: Timestamp,
    /// What is seen of it: the rest is as if it were not there.
    pub(in crate::server) sight: &'a Sight,
}

impl Look<'_> {
    /// A page of all locks, from `cursor` on.
    pub(in crate::server) fn locks(&self, cursor: u64, budget: &mut Budget) -> ServerMessage {
        let from = usize::try_from(cursor).unwrap_or(usize::MAX);
        self.page_of_locks(self.table.lock_places(from), from, budget)
    }

    /// A page of the locks that somebody waits for, from `cursor` on.
    pub(in crate::server) fn contended(&self, cursor: u64, budget: &mut Budget) -> ServerMessage {
        let from = usize::try_from(cursor).unwrap_or(usize::MAX);
        self.page_of_locks(self.table.contended_places(from), from, budget)
    }

    /// The locks at places from `from` on, as far as one page goes.
    fn page_of_locks<'v>(
        &self,
        places: impl Iterator<Item = (usize, Option<LockView<'v>>)>,
        from: usize,
        budget: &mut Budget,
    ) -> ServerMessage {
        let seen = |view: &LockView<'_>| self.sight.sees(view.name());
        let places = places.map(|(place, view)| (place, view.filter(seen)));
        let bytes = |view: &LockView<'_>| FIXED_BYTES + view.name().len();
        let shown =
            |view: LockView<'_>, budget: &mut Budget| lock(&view, Named::FEW, self.now, budget);
        let (locks, next) = page(places, from, budget, bytes, shown);
        ServerMessage::LockStatus { query_id: self.query_id, locks, next }
    }

    /// A page of the outlooks of all locks, from `cursor` on.
    pub(in crate::server) fn outlooks(&self, cursor: u64, budget: &mut Budget) -> ServerMessage {
        let from = usize::try_from(cursor).unwrap_or(usize::MAX);
        let foreseen = |view: LockView<'_>| {
            let view = Some(view).filter(|view| self.sight.sees(view.name()));
            view.and_then(|view| foreseen(&view, self.now))
        };
        let places = self.table.lock_places(from);
        let places = places.map(|(place, view)| (place, view.and_then(foreseen)));
        let (locks, next) = page(places, from, budget, outlook_bytes, |outlook, _| outlook);
        ServerMessage::Outlook { query_id: self.query_id, locks, next }
    }

    /// A page of all sessions, from `cursor` on.
    pub(in crate::server) fn sessions(&self, cursor: u64, budget: &mut Budget) -> ServerMessage {
        let from = usize::try_from(cursor).unwrap_or(usize::MAX);
        let seen = |view: &SessionView<'_>| self.sight.sees_session(proven_identity(view));
        let places = self.table.session_places(from);
        let places = places.map(|(place, view)| (place, view.filter(seen)));
        let bytes = |view: &SessionView<'_>| FIXED_BYTES + view.identity.len();
        let shown = |view: SessionView<'_>, _: &mut Budget| session(&view, self.now);
        let (sessions, next) = page(places, from, budget, bytes, shown);
        ServerMessage::SessionStatus { query_id: self.query_id, sessions, next }
    }
}

/// What there is at places from `from` on, as far as one page goes, and where the next one begins.
fn page<V, T>(
    places: impl Iterator<Item = (usize, Option<V>)>,
    from: usize,
    budget: &mut Budget,
    bytes: impl Fn(&V) -> usize,
    shown: impl Fn(V, &mut Budget) -> T,
) -> (Vec<T>, Option<u64>) {
    let mut page = Vec::new();
    for (place, view) in places {
        let next = Some(render::count(place));
        if place - from >= PLACES_LOOKED_AT_MAX {
            return (page, next);
        }
        let Some(view) = view else { continue };
        // The first fits always, so that every page gets on.
        if !budget.take(bytes(&view)) && !page.is_empty() {
            return (page, next);
        }
        page.push(shown(view, budget));
    }
    (page, None)
}

/// Until when one lock is not to be had; nothing if nothing is known of that.
pub(in crate::server) fn outlook(
    table: &LockTable,
    query_id: u64,
    name: &str,
    now: Timestamp,
    budget: &mut Budget,
) -> ServerMessage {
    let outlook = table.lock(name).and_then(|view| foreseen(&view, now));
    let locks = outlook.into_iter().filter(|it| budget.take(outlook_bytes(it))).collect();
    ServerMessage::Outlook { query_id, locks, next: None }
}

/// What is known of when a lock is to be had, if anything is.
fn foreseen(view: &LockView<'_>, now: Timestamp) -> Option<Outlook> {
    let outlook = view.outlook();
    let render = |after, pause: &Pause| wire::Pause {
        after,
        session: pause.session,
        identity: pause.identity.clone(),
        token: pause.token,
        granted_ms: render::millis(now.since(pause.since)),
        length_ms: render::millis(pause.length),
        left_ms: render::millis(pause.until.since(now)),
    };
    let lost = outlook.lost.map(|pause| render(After::Loss, pause));
    let kept = outlook.kept.map(|pause| render(After::Grant, pause));
    let pauses: Vec<_> = lost.into_iter().chain(kept).collect();
    let free_ms = outlook.free_by.map(|at| render::millis(at.since(now)));
    let name = view.name().clone();
    (free_ms.is_some() || !pauses.is_empty()).then_some(Outlook { name, free_ms, pauses })
}

fn outlook_bytes(outlook: &Outlook) -> usize {
    let of_pause = |pause: &wire::Pause| FIXED_BYTES + pause.identity.len();
    FIXED_BYTES + outlook.name.len() + outlook.pauses.iter().map(of_pause).sum::<usize>()
}

/// One lock, with as many of its holders and waiters as there is room for; nothing if it is free.
pub(in crate::server) fn one_lock(
    table: &LockTable,
    query_id: u64,
    name: &str,
    now: Timestamp,
    budget: &mut Budget,
) -> ServerMessage {
    look_at(table, query_id, name, Named::ALL, now, budget)
}

/// One lock, with as many of its holders as there is room for, for who watches it.
pub(in crate::server) fn watched(
    table: &LockTable,
    query_id: u64,
    name: &str,
    now: Timestamp,
    budget: &mut Budget,
) -> ServerMessage {
    look_at(table, query_id, name, Named::WATCHED, now, budget)
}

fn look_at(
    table: &LockTable,
    query_id: u64,
    name: &str,
    named: Named,
    now: Timestamp,
    budget: &mut Budget,
) -> ServerMessage {
    let locks = shown(table, name, named, now, budget);
    ServerMessage::LockStatus { query_id, locks, next: None }
}

/// One lock, if it is in use.
pub(in crate::server) fn shown(
    table: &LockTable,
    name: &str,
    named: Named,
    now: Timestamp,
    budget: &mut Budget,
) -> Vec<LockStatus> {
    table.lock(name).map(|view| lock(&view, named, now, budget)).into_iter().collect()
}

/// No, for a deadlock: with as much of the cycle as there is room for.
pub(in crate::server) fn deadlock(
    request: RequestId,
    rejection: &Rejection,
    links: &[CycleLink],
    budget: &mut Budget,
) -> ServerMessage {
    let text = rejection.to_string();
    let message = if budget.take(text.len()) { text } else { CYCLE_LEFT_OUT.to_owned() };
    let mut room = CYCLE_BYTES_MAX;
    let mut told = 0;
    for link in links {
        let bytes = LINK_FIXED_BYTES + link.identity.len() + link.lock.len();
        if bytes > room || !budget.take(bytes) {
            break;
        }
        room -= bytes;
        told += 1;
    }
    // Of one that is as long as is ever told, nobody knows how long it is.
    let is_cut = told < links.len() || links.len() == CYCLE_TOLD_MAX;
    let cycle = Cycle { links: links[..told].to_vec(), is_cut };
    let code = rejection.code();
    ServerMessage::Rejected { request, code, message, lock: None, cycle }
}

/// A lock, with the first of its holders and waiters.
pub(in crate::server) fn lock(
    view: &LockView<'_>,
    named: Named,
    now: Timestamp,
    budget: &mut Budget,
) -> LockStatus {
    let mut holders = Vec::new();
    let mut for_holders = budget.half();
    for holder in view.holders().take(named.holders_max) {
        let bytes = FIXED_BYTES + holder.identity.len() + holder.note.map_or(0, |note| note.len());
        if !for_holders.take(bytes) && holders.len() >= named.holders_min {
            break;
        }
        budget.take(bytes);
        holders.push(render_holder(&holder, now));
    }
    let mut waiters = Vec::new();
    for waiter in view.waiters().take(named.waiters_max) {
        let bytes = FIXED_BYTES + waiter.identity.len() + waiter.note.map_or(0, |note| note.len());
        if !budget.take(bytes) {
            break;
        }
        waiters.push(render_waiter(&waiter, now));
    }
    LockStatus {
        name: view.name().clone(),
        holders,
        holder_count: render::count(view.holder_count()),
        waiters,
        waiter_count: render::count(view.waiter_count()),
    }
}

fn render_holder(view: &HolderView<'_>, now: Timestamp) -> Holder {
    Holder {
        session: view.session,
        identity: view.identity.clone(),
        peer: address(view.peer),
        owner: view.owner,
        request: view.request,
        mode: view.mode,
        token: view.token,
        held_ms: render::millis(now.since(view.since)),
        note: view.note.cloned().unwrap_or_default(),
        connected: view.connected,
    }
}

fn render_waiter(view: &WaiterView<'_>, now: Timestamp) -> Waiter {
    Waiter {
        session: view.session,
        identity: view.identity.clone(),
        peer: address(view.peer),
        owner: view.owner,
        request: view.request,
        mode: view.mode,
        waiting_ms: render::millis(now.since(view.since)),
        note: view.note.cloned().unwrap_or_default(),
    }
}

fn session(view: &SessionView<'_>, now: Timestamp) -> SessionStatus {
    SessionStatus {
        session: view.session,
        identity: view.identity.clone(),
        peer: address(view.peer),
        connected: view.connected,
        age_ms: render::millis(now.since(view.since)),
        ttl_ms: if view.is_attended { view.ttl.as_millis() } else { 0 },
        lease_left_ms: view.lease_ends.map_or(u64::MAX, |ends| render::millis(ends.since(now))),
        held: render::count(view.held),
        waiting: render::count(view.waiting),
    }
}

fn address(peer: Option<SocketAddr>) -> String {
    peer.map(|peer| peer.to_string()).unwrap_or_default()
}
