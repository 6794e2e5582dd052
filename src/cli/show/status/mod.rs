//! `coordinator status`: who holds what, and who waits; for people, and for programs.

use std::fmt::Write as _;
use std::process::ExitCode;

use coordinator::wire::{ClusterStatus, Holder, LockStatus, Outlook, ServerStatus, SessionStatus};
use coordinator::{Error, Observer};

use super::journal;
use super::json;
use super::ping::connect;
use super::seen::Seen;
use super::waits;
use crate::cli::arguments::StatusArgs;
use crate::cli::settings::Settings;
use crate::cli::text::answer;
use crate::cli::text::errors::{Attempt, Failure, exit, queue};
use crate::cli::text::outlook;
use crate::cli::text::table::Table;
use crate::cli::text::twins;
use crate::cli::text::visible;
use crate::cli::text::words;

/// Of more locks than this, only the first few holders and waiters are looked at.
const LOCKS_ASKED_AGAIN_MAX: usize = 256;

/// Looks, and prints what there is.
pub(crate) async fn run(args: StatusArgs, settings: &Settings) -> Result<ExitCode, Failure> {
    let server = settings.server.0.as_str();
    let seen = look(&args, settings).await?;
    if args.json {
        let json = if args.waits { waits::as_json(&seen) } else { json::seen(&seen) };
        answer::line(&visible::json(&format!("{json:#}")))?;
        return Ok(code(&args, &seen));
    }
    let text = match &args.name {
        Some(name) => match seen.locks.first() {
            Some(lock) => one_lock(lock, &seen.outlooks),
            None => format!("{} is free\n", visible::quoted(name)),
        },
        None if args.waits => {
            let tree = waits::tree(&seen.locks, &seen.outlooks, waits::Lines::of_the_locale());
            format!("{}\n{tree}", server_line(server, &seen.server))
        }
        None => overview(server, &seen),
    };
    answer::print(&text)?;
    Ok(code(&args, &seen))
}

/// Whether the lock that was asked for is held, for scripts: as grep(1) says whether it found.
fn code(args: &StatusArgs, seen: &Seen) -> ExitCode {
    let is_held = seen.locks.iter().any(|lock| lock.holder_count > 0);
    if args.name.is_none() || is_held {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::NO_SUCH_THING)
    }
}

async fn look(args: &StatusArgs, settings: &Settings) -> Result<Seen, Failure> {
    let lock = args.name.as_deref().unwrap_or_default();
    let attempt = Attempt { server: &settings.server.0, lock, ..Attempt::default() };
    let observer = connect(settings).await?;
    let seen = async {
        let server = observer.server_status().await?;
        let mut locks = match &args.name {
            Some(name) => observer.lock(name).await?.into_iter().collect(),
            None if args.waits => observer.contended().await?,
            None => observer.locks().await?,
        };
        if args.waits {
            locks.retain(|lock| lock.waiter_count > 0);
            name_all(&observer, &mut locks).await?;
            locks.retain(|lock| lock.waiter_count > 0);
        }
        locks.sort_by(|a, b| a.name.cmp(&b.name));
        let outlooks = match &args.name {
            Some(name) => observer.outlook(name).await?.into_iter().collect(),
            // Who asks for the tree looks at no lock that is only held.
            None if args.waits => why_held_by_nobody(&observer, &locks).await?,
            None => observer.outlooks().await?,
        };
        let sessions = if args.sessions { Some(observer.sessions().await?) } else { None };
        // The last questions: who does not know one hangs up.
        let journal = observer.journal().await.ok();
        let cluster = match journal {
            Some(_) => observer.cluster().await.ok().flatten(),
            None => None,
        };
        Ok(Seen { server, journal, cluster, locks, outlooks, sessions })
    };
    seen.await.map_err(|error| attempt.failed(&error))
}

/// Asks again about locks of which only the first few holders and waiters were named.
async fn name_all(observer: &Observer, locks: &mut [LockStatus]) -> Result<(), Error> {
    let is_cut = |lock: &&mut LockStatus| {
        lock.holder_count > lock.holders.len() as u64
            || lock.waiter_count > lock.waiters.len() as u64
    };
    for lock in locks.iter_mut().filter(is_cut).take(LOCKS_ASKED_AGAIN_MAX) {
        match observer.lock(&lock.name).await? {
            Some(whole) => *lock = whole,
            None => lock.waiter_count = 0,
        }
    }
    Ok(())
}

/// Why nobody holds locks that are waited for.
async fn why_held_by_nobody(
    observer: &Observer,
    locks: &[LockStatus],
) -> Result<Vec<Outlook>, Error> {
    let mut outlooks = Vec::new();
    let is_kept = |lock: &&LockStatus| lock.holders.is_empty();
    for lock in locks.iter().filter(is_kept).take(LOCKS_ASKED_AGAIN_MAX) {
        outlooks.extend(observer.outlook(&lock.name).await?);
    }
    Ok(outlooks)
}

/// The whole: a line for the server, a table of locks, perhaps one of sessions.
fn overview(server: &str, seen: &Seen) -> String {
    let mut text = server_line(server, &seen.server);
    text.push_str(&seen.cluster.as_ref().map(cluster_line).unwrap_or_default());
    text.push_str(&seen.journal.as_ref().map(journal::line).unwrap_or_default());
    if seen.locks.is_empty() {
        text.push_str("nothing is locked\n");
    } else {
        text.push('\n');
        text.push_str(&locks_table(&seen.locks, &seen.outlooks));
    }
    if let Some(sessions) = &seen.sessions {
        text.push('\n');
        text.push_str(&sessions_table(sessions));
    }
    text
}

fn server_line(server: &str, status: &ServerStatus) -> String {
    let line = format!(
        "coordinator {} at {server}, epoch {}, up {}{}: {}, {}, {} waiting, {}\n",
        visible::escaped(&status.version),
        status.epoch,
        words::millis(status.uptime_ms),
        if status.draining { ", shutting down" } else { "" },
        words::count(status.sessions, "session"),
        words::count(status.locks, "lock"),
        status.waiting,
        words::count(status.grants, "grant"),
    );
    let grace = (status.grace_ms > 0).then(|| {
        let left = words::millis(status.grace_ms);
        format!("recovering: for {left} more, only previous holders can reclaim\n")
    });
    let unsaved = (status.unsaved_ms > 0).then(|| {
        let outage = words::millis(status.unsaved_ms);
        format!("state not saved for {outage}: granting stops when the reserved tokens run out\n")
    });
    [Some(line), grace, unsaved].into_iter().flatten().collect()
}

/// Who leads the cluster, since when, and who would take over with everything.
fn cluster_line(status: &ClusterStatus) -> String {
    let ClusterStatus { cluster, leader, term, led_ms, behind, standby } = status;
    let (leader, led) = (visible::escaped(leader), words::millis(*led_ms));
    let sync = match (behind, standby.as_str()) {
        (None, _) => "no standby is in sync".to_owned(),
        (Some(_), "") => "a standby is in sync".to_owned(),
        (Some(_), standby) => format!("{} is in sync", visible::escaped(standby)),
    };
    format!(
        "cluster {}: {leader} leads, term {term}, for {led}; {sync}\n",
        visible::escaped(cluster)
    )
}

fn locks_table(locks: &[LockStatus], outlooks: &[Outlook]) -> String {
    let heads = ["LOCK", "HOLDER", "OWNER", "FOR", "TOKEN", "MODE", "NOTE", "QUEUE"];
    let mut table = Table::new(&heads);
    let names: Vec<&str> = locks.iter().map(|lock| lock.name.as_str()).collect();
    for (lock, has_twin) in locks.iter().zip(twins::among(&names)) {
        let name = if has_twin {
            format!("{} (looks like another name)", visible::spelled(&lock.name))
        } else {
            visible::cell(&lock.name)
        };
        let queue = queue(lock).unwrap_or_default();
        let Some((first, others)) = lock.holders.split_first() else {
            let empty = String::new;
            let nobody = nobody(outlooks.iter().find(|outlook| outlook.name == lock.name));
            table.row([name, nobody, empty(), empty(), empty(), empty(), empty(), queue]);
            continue;
        };
        let [who, owner, held, token, mode, note] = holder_cells(first);
        table.row([name, who, owner, held, token, mode, note, queue]);
        for other in others {
            let [who, owner, held, token, mode, note] = holder_cells(other);
            table.row([String::new(), who, owner, held, token, mode, note]);
        }
        let unnamed = lock.holder_count.saturating_sub(lock.holders.len() as u64);
        if unnamed > 0 {
            table.row([String::new(), format!("and {unnamed} more")]);
        }
    }
    table.render()
}

/// `nobody`, and why nobody else gets the lock.
fn nobody(outlook: Option<&Outlook>) -> String {
    let kept = outlook.and_then(|outlook| {
        Some((outlook::why_kept(outlook)?, outlook::after_whom(outlook, ", ")?))
    });
    match kept {
        Some((why, whom)) => format!("nobody, {why} ({whom})"),
        None => "nobody".to_owned(),
    }
}

fn holder_cells(holder: &Holder) -> [String; 6] {
    let mut who = words::who(&holder.identity, &holder.peer);
    if !holder.connected {
        who.push_str(" [disconnected]");
    }
    [
        who,
        words::owner(holder.owner),
        words::millis(holder.held_ms),
        holder.token.to_string(),
        words::mode(holder.mode).unwrap_or_default(),
        visible::cell(&holder.note),
    ]
}

/// What a lock is in use as, and where in line that changes, if it does.
fn sizes(lock: &LockStatus) -> Option<String> {
    let now = words::used_as(lock.holders.first()?.mode);
    let mut in_line = lock.waiters.iter().map(|waiter| words::used_as(waiter.mode)).zip(1_u64..);
    let (next, place) = in_line.find(|(asked, _)| *asked != now)?;
    Some(format!(
        "in use as {now}; the waiter at place {place} asks for {next}, and waits until the lock is \
        free\n"
    ))
}

/// One lock with everybody in line, in order.
fn one_lock(lock: &LockStatus, outlooks: &[Outlook]) -> String {
    let mut text = locks_table(std::slice::from_ref(lock), outlooks);
    let is_held = lock.holder_count > 0;
    if let Some(when) =
        outlooks.first().filter(|_| is_held).and_then(|it| outlook::free_by(&lock.holders, it))
    {
        let _infallible = writeln!(text, "free {when}");
    }
    if lock.waiters.is_empty() {
        return text;
    }
    text.push_str(&sizes(lock).unwrap_or_default());
    let mut table = Table::new(&["PLACE", "WAITER", "OWNER", "FOR", "MODE", "NOTE"]);
    for (waiter, place) in lock.waiters.iter().zip(1_u64..) {
        table.row([
            place.to_string(),
            words::who(&waiter.identity, &waiter.peer),
            words::owner(waiter.owner),
            words::millis(waiter.waiting_ms),
            words::mode(waiter.mode).unwrap_or_default(),
            visible::cell(&waiter.note),
        ]);
    }
    let more = lock.waiter_count.saturating_sub(lock.waiters.len() as u64);
    if more > 0 {
        table.row([String::new(), format!("and {more} more")]);
    }
    text.push('\n');
    text.push_str(&table.render());
    text
}

fn sessions_table(sessions: &[SessionStatus]) -> String {
    if sessions.is_empty() {
        return "no sessions\n".to_owned();
    }
    let mut table = Table::new(&["SESSION", "WHO", "AGE", "LEASE LEFT", "HOLDS", "WAITS FOR", ""]);
    for session in sessions {
        table.row([
            session.session.to_string(),
            words::who(&session.identity, &session.peer),
            words::millis(session.age_ms),
            words::lease_left(session.lease_left_ms),
            session.held.to_string(),
            session.waiting.to_string(),
            if session.connected { String::new() } else { "disconnected".to_owned() },
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests;
