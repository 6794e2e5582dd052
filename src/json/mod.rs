//! What programs are told: JSON of `status --json`, of `events --json`, and of the HTTP port.
//!
//! `docs/status-json.md` describes it. The names are promises, so they are spelled out here and do not
//! follow the wire's. One rendering, so that whoever has learned one of them knows the others.

use serde_json::{Value, json};

use crate::types::{Claim, Identity, RequestId, SessionId};
use crate::wire::{
    After, ClusterStatus, Happening, Holder, JournalDistance, JournalStart, JournalStatus,
    LockStatus, Mode, Outlook, Pause, ServerStatus, SessionStatus, Waiter,
};

/// The coordinator as a whole.
pub fn server(status: &ServerStatus) -> Value {
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

/// The journal, and how this run began.
pub fn journal(status: &JournalStatus) -> Value {
    let distance = match status.distance {
        JournalDistance::Off => "off",
        JournalDistance::Process => "process",
        JournalDistance::Machine => "machine",
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
    };
    json!({
        "distance": distance,
        "bytes": status.bytes,
        "off_ms": status.off_ms,
        "start": start,
    })
}

/// The cluster that the coordinator leads.
pub fn cluster(status: &ClusterStatus) -> Value {
    json!({
        "name": status.cluster,
        "leader": status.leader,
        "term": status.term,
        "led_ms": status.led_ms,
        "in_sync": status.behind.is_some(),
        "standby": Some(&status.standby).filter(|name| !name.is_empty()),
        "behind": status.behind,
    })
}

/// A lock with what is known of when it is to be had.
pub fn lock_with_outlook(status: &LockStatus, outlook: Option<&Outlook>) -> Value {
    let mut json = lock(status);
    json["free_ms"] = json!(outlook.and_then(|outlook| outlook.free_ms));
    let pauses = outlook.map_or(&[][..], |outlook| &outlook.pauses);
    json["pauses"] = pauses.iter().map(pause).collect();
    json
}

fn pause(pause: &Pause) -> Value {
    let after = match pause.after {
        After::Loss => "loss",
        After::Grant => "grant",
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
pub fn lock(lock: &LockStatus) -> Value {
    json!({
        "name": lock.name,
        "holders": lock.holders.iter().map(holder).collect::<Vec<_>>(),
        "holder_count": lock.holder_count,
        "waiters": lock.waiters.iter().map(waiter).collect::<Vec<_>>(),
        "waiter_count": lock.waiter_count,
    })
}

/// A holder of a lock.
pub fn holder(holder: &Holder) -> Value {
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

/// A session.
pub fn session(session: &SessionStatus) -> Value {
    json!({
        "session": session.session.to_string(),
        "identity": session.identity,
        "peer": session.peer,
        "connected": session.connected,
        "age_ms": session.age_ms,
        "ttl_ms": session.ttl_ms,
        "lease_left_ms": (session.lease_left_ms < u64::MAX).then_some(session.lease_left_ms),
        "held": session.held,
        "waiting": session.waiting,
    })
}

/// How a lock is wanted or held.
pub fn mode(mode: Mode) -> Value {
    match mode {
        Mode::Exclusive => json!({"kind": "exclusive"}),
        Mode::Shared => json!({"kind": "shared"}),
        Mode::Permits { take, of } => json!({"kind": "permits", "take": take, "of": of}),
    }
}

/// An event of a request: when, of which session, that is who, which request for what, and what happened.
pub fn event(
    at_ms: u64,
    (session, identity): (SessionId, &Identity),
    (request, claims): (RequestId, &[Claim]),
    what: &Happening,
) -> Value {
    let claim = |claim: &Claim| json!({"name": claim.name, "mode": mode(claim.mode)});
    let mut json = json!({
        "at_ms": at_ms,
        "what": happening(what),
        "session": session.to_string(),
        "identity": identity,
        "request": request.number(),
        "claims": claims.iter().map(claim).collect::<Vec<_>>(),
    });
    match what {
        Happening::Queued { position } => json["position"] = json!(position),
        Happening::Granted { token } | Happening::Released { token } => {
            json["token"] = json!(token);
        }
        Happening::Lost { token, reason } => {
            json["token"] = json!(token);
            json["reason"] = json!(reason.name());
        }
        Happening::Rejected { code, message } => {
            json["code"] = json!(code.name());
            json["message"] = json!(message);
        }
        Happening::Requested | Happening::Cancelled => {}
    }
    json
}

/// Some events are left out here.
pub fn missed(count: u64) -> Value {
    json!({"what": "missed", "count": count})
}

/// What happened, in a word.
pub fn happening(what: &Happening) -> &'static str {
    match what {
        Happening::Requested => "requested",
        Happening::Queued { .. } => "queued",
        Happening::Granted { .. } => "granted",
        Happening::Released { .. } => "released",
        Happening::Cancelled => "cancelled",
        Happening::Lost { .. } => "lost",
        Happening::Rejected { .. } => "rejected",
    }
}
