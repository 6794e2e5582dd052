//! Output for programs. `docs/status-json.md` describes it. The names are promises, so they are
//! spelled out here and do not follow the wire's.

use coordinator::wire::{
    After, Holder, JournalDistance, JournalStart, JournalStatus, LockStatus, Mode, Pause,
    ServerStatus, SessionStatus, Waiter,
};
use serde_json::{Value, json};

use super::seen::Seen;

/// What `status` has seen.
pub(crate) fn seen(seen: &Seen) -> Value {
    let mut json = json!({
        "server": server(&seen.server),
        "locks": seen.locks.iter().map(|of| with_outlook(lock(of), seen)).collect::<Vec<_>>(),
    });
    json["journal"] = seen.journal.as_ref().map_or(Value::Null, journal);
    if let Some(sessions) = &seen.sessions {
        json["sessions"] = sessions.iter().map(session).collect();
    }
    json
}

fn server(status: &ServerStatus) -> Value {
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

fn journal(status: &JournalStatus) -> Value {
    let distance = match status.distance {
        JournalDistance::Off => "off",
        JournalDistance::Process => "process",
        JournalDistance::Machine => "machine",
        _ => "unknown",
    };
    let start = match &status.start {
        JournalStart::New => json!({"kind": "new"}),
        JournalStart::Saved => json!({"kind": "saved"}),
        JournalStart::Replayed { events, took_us } => {
            json!({"kind": "replayed", "events": events, "took_us": took_us})
        }
        JournalStart::Lost { why, grace_ms } => {
            json!({"kind": "lost", "why": why, "grace_ms": grace_ms})
        }
        _ => json!({"kind": "unknown"}),
    };
    json!({
        "distance": distance,
        "bytes": status.bytes,
        "off_ms": status.off_ms,
        "start": start,
    })
}

/// A lock with what is known of when it is to be had.
fn with_outlook(mut lock: Value, seen: &Seen) -> Value {
    let outlook = seen.outlooks.iter().find(|outlook| lock["name"] == outlook.name.as_str());
    lock["free_ms"] = json!(outlook.and_then(|outlook| outlook.free_ms));
    let pauses = outlook.map_or(&[][..], |outlook| &outlook.pauses);
    lock["pauses"] = pauses.iter().map(pause).collect();
    lock
}

fn pause(pause: &Pause) -> Value {
    let after = match pause.after {
        After::Loss => "loss",
        After::Grant => "grant",
        _ => "unknown",
    };
    json!({
        "after": after,
        "session": pause.session.to_string(),
        "identity": pause.identity,
        "token": pause.token,
        "granted_ms": pause.granted_ms,
        "length_ms": pause.length_ms,
        "left_ms": pause.left_ms,
    })
}

/// A lock.
pub(crate) fn lock(lock: &LockStatus) -> Value {
    json!({
        "name": lock.name,
        "holders": lock.holders.iter().map(holder).collect::<Vec<_>>(),
        "holder_count": lock.holder_count,
        "waiters": lock.waiters.iter().map(waiter).collect::<Vec<_>>(),
        "waiter_count": lock.waiter_count,
    })
}

fn holder(holder: &Holder) -> Value {
    json!({
        "session": holder.session.to_string(),
        "identity": holder.identity,
        "peer": holder.peer,
        "owner": holder.owner,
        "request": holder.request,
        "mode": mode(holder.mode),
        "token": holder.token,
        "held_ms": holder.held_ms,
        "note": holder.note,
        "connected": holder.connected,
    })
}

fn waiter(waiter: &Waiter) -> Value {
    json!({
        "session": waiter.session.to_string(),
        "identity": waiter.identity,
        "peer": waiter.peer,
        "owner": waiter.owner,
        "request": waiter.request,
        "mode": mode(waiter.mode),
        "waiting_ms": waiter.waiting_ms,
        "note": waiter.note,
    })
}

fn session(session: &SessionStatus) -> Value {
    json!({
        "session": session.session.to_string(),
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

/// How a lock is wanted or held.
pub(crate) fn mode(mode: Mode) -> Value {
    match mode {
        Mode::Exclusive => json!({"kind": "exclusive"}),
        Mode::Shared => json!({"kind": "shared"}),
        Mode::Permits { take, of } => json!({"kind": "permits", "take": take, "of": of}),
    }
}
