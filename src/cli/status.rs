//! `coordinator status`: who holds what, and who waits; for people, and for programs.
//!
//! `docs/status-json.md` describes the second form; what it says is a promise, so its names are
//! spelled out here and do not follow the wire's.

use std::process::ExitCode;

use coordinator::wire::{Holder, LockStatus, Mode, ServerStatus, SessionStatus, Waiter};
use serde_json::{Value, json};

use super::args::StatusArgs;
use super::errors::{Attempt, Failure, queue};
use super::output;
use super::ping::connect;
use super::settings::Settings;
use super::table::Table;
use super::words;

/// What was seen.
struct Seen {
    /// The coordinator as a whole.
    server: ServerStatus,
    /// The locks in use, or the one that was asked for if it is.
    locks: Vec<LockStatus>,
    /// The sessions, if they were asked for.
    sessions: Option<Vec<SessionStatus>>,
}

/// Looks, and prints what there is.
pub(crate) async fn run(args: StatusArgs, settings: &Settings) -> Result<ExitCode, Failure> {
    let server = settings.server.0.as_str();
    let seen = look(&args, settings).await?;
    if args.json {
        output::line(&format!("{:#}", as_json(&seen)));
        return Ok(ExitCode::SUCCESS);
    }
    let text = match &args.name {
        Some(name) => match seen.locks.first() {
            Some(lock) => one_lock(lock),
            None => format!("{name:?} is free\n"),
        },
        None => overview(server, &seen),
    };
    output::print(&text);
    Ok(ExitCode::SUCCESS)
}

async fn look(args: &StatusArgs, settings: &Settings) -> Result<Seen, Failure> {
    let lock = args.name.as_deref().unwrap_or_default();
    let attempt = Attempt { server: &settings.server.0, lock, ..Attempt::default() };
    let mut observer = connect(settings).await?;
    let seen = async {
        let server = observer.server_status().await?;
        let mut locks = match &args.name {
            Some(name) => observer.lock(name).await?.into_iter().collect(),
            None => observer.locks().await?,
        };
        locks.sort_by(|a, b| a.name.cmp(&b.name));
        let sessions = if args.sessions { Some(observer.sessions().await?) } else { None };
        Ok(Seen { server, locks, sessions })
    };
    seen.await.map_err(|error| attempt.failed(&error))
}

/// The whole: a line for the server, a table of locks, perhaps one of sessions.
fn overview(server: &str, seen: &Seen) -> String {
    let mut text = server_line(server, &seen.server);
    if seen.locks.is_empty() {
        text.push_str("nothing is locked\n");
    } else {
        text.push('\n');
        text.push_str(&locks_table(&seen.locks));
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
        status.version,
        status.epoch,
        words::millis(status.uptime_ms),
        if status.draining { ", about to stop" } else { "" },
        words::count(status.sessions, "session"),
        words::count(status.locks, "lock"),
        status.waiting,
        words::count(status.grants, "grant"),
    );
    let grace = (status.grace_ms > 0).then(|| {
        let left = words::millis(status.grace_ms);
        format!("it has crashed: for {left} more, only earlier holders get anything\n")
    });
    let unsaved = (status.unsaved_ms > 0).then(|| {
        let outage = words::millis(status.unsaved_ms);
        format!(
            "its state could not be saved for {outage}: granting stops when the reserved tokens are \
             used up\n"
        )
    });
    [Some(line), grace, unsaved].into_iter().flatten().collect()
}

fn locks_table(locks: &[LockStatus]) -> String {
    let mut table = Table::new(&["LOCK", "HOLDER", "FOR", "TOKEN", "MODE", "NOTE", "QUEUE"]);
    for lock in locks {
        let name = lock.name.clone();
        let queue = queue(lock).unwrap_or_default();
        let Some((first, others)) = lock.holders.split_first() else {
            let empty = String::new;
            table.row([name, "nobody".to_owned(), empty(), empty(), empty(), empty(), queue]);
            continue;
        };
        let [who, held, token, mode, note] = holder_cells(first);
        table.row([name, who, held, token, mode, note, queue]);
        for other in others {
            let [who, held, token, mode, note] = holder_cells(other);
            table.row([String::new(), who, held, token, mode, note, String::new()]);
        }
        let unnamed = lock.holder_count.saturating_sub(lock.holders.len() as u64);
        if unnamed > 0 {
            table.row([String::new(), format!("and {unnamed} more")]);
        }
    }
    table.render()
}

fn holder_cells(holder: &Holder) -> [String; 5] {
    let mut who = words::who(&holder.identity, &holder.peer);
    if !holder.connected {
        who.push_str(" [disconnected]");
    }
    [
        who,
        words::millis(holder.held_ms),
        holder.token.to_string(),
        words::mode(holder.mode).unwrap_or_default(),
        holder.note.clone(),
    ]
}

/// One lock with everybody in line, in order.
fn one_lock(lock: &LockStatus) -> String {
    let mut text = locks_table(std::slice::from_ref(lock));
    if lock.waiters.is_empty() {
        return text;
    }
    let mut table = Table::new(&["PLACE", "WAITER", "FOR", "MODE", "NOTE"]);
    for (waiter, place) in lock.waiters.iter().zip(1_u64..) {
        table.row([
            place.to_string(),
            words::who(&waiter.identity, &waiter.peer),
            words::millis(waiter.waiting_ms),
            words::mode(waiter.mode).unwrap_or_default(),
            waiter.note.clone(),
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
        return "nobody has a session\n".to_owned();
    }
    let mut table = Table::new(&["SESSION", "WHO", "AGE", "LEASE LEFT", "HOLDS", "WAITS FOR", ""]);
    for session in sessions {
        table.row([
            format!("{:032x}", session.session),
            words::who(&session.identity, &session.peer),
            words::millis(session.age_ms),
            words::millis(session.lease_left_ms),
            session.held.to_string(),
            session.waiting.to_string(),
            if session.connected { String::new() } else { "disconnected".to_owned() },
        ]);
    }
    table.render()
}

fn as_json(seen: &Seen) -> Value {
    let mut json = json!({
        "server": server_json(&seen.server),
        "locks": seen.locks.iter().map(lock_json).collect::<Vec<_>>(),
    });
    if let Some(sessions) = &seen.sessions {
        json["sessions"] = sessions.iter().map(session_json).collect();
    }
    json
}

fn server_json(status: &ServerStatus) -> Value {
    json!({
        "version": status.version,
        "epoch": status.epoch,
        "uptime_ms": status.uptime_ms,
        "draining": status.draining,
        "connections": status.connections,
        "sessions": status.sessions,
        "locks": status.locks,
        "held": status.held,
        "waiting": status.waiting,
        "grants": status.grants,
        "expired": status.expired,
        "protocol_errors": status.protocol_errors,
        "slow_readers": status.slow_readers,
        "handshake_timeouts": status.handshake_timeouts,
        "connections_refused": status.connections_refused,
        "last_token": status.last_token,
        "grace_ms": status.grace_ms,
        "unsaved_ms": status.unsaved_ms,
    })
}

fn lock_json(lock: &LockStatus) -> Value {
    json!({
        "name": lock.name,
        "holders": lock.holders.iter().map(holder_json).collect::<Vec<_>>(),
        "holder_count": lock.holder_count,
        "waiters": lock.waiters.iter().map(waiter_json).collect::<Vec<_>>(),
        "waiter_count": lock.waiter_count,
    })
}

fn holder_json(holder: &Holder) -> Value {
    json!({
        "session": format!("{:032x}", holder.session),
        "identity": holder.identity,
        "peer": holder.peer,
        "mode": mode_json(holder.mode),
        "token": holder.token,
        "held_ms": holder.held_ms,
        "note": holder.note,
        "connected": holder.connected,
    })
}

fn waiter_json(waiter: &Waiter) -> Value {
    json!({
        "session": format!("{:032x}", waiter.session),
        "identity": waiter.identity,
        "peer": waiter.peer,
        "mode": mode_json(waiter.mode),
        "waiting_ms": waiter.waiting_ms,
        "note": waiter.note,
    })
}

fn session_json(session: &SessionStatus) -> Value {
    json!({
        "session": format!("{:032x}", session.session),
        "identity": session.identity,
        "peer": session.peer,
        "connected": session.connected,
        "age_ms": session.age_ms,
        "ttl_ms": session.ttl_ms,
        "lease_left_ms": session.lease_left_ms,
        "held": session.held,
        "waiting": session.waiting,
    })
}

fn mode_json(mode: Mode) -> Value {
    match mode {
        Mode::Exclusive => json!({"kind": "exclusive"}),
        Mode::Shared => json!({"kind": "shared"}),
        Mode::Permits { take, of } => json!({"kind": "permits", "take": take, "of": of}),
        _ => json!({"kind": "unknown"}),
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
