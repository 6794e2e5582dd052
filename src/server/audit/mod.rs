//! The audit log: who was let in or refused, who was denied what, who took which lock away from whom.
//!
//! The one idea: *it never blocks what is decided* (rule B3). An entry goes into a bounded queue, and a thread
//! of its own writes it. What does not fit is counted, and the log says how much that was, in its place. A lock
//! service that stood still for a full disk would be the worse failure.
//!
//! Never here: a credential, not even a wrong one.

#[cfg(feature = "access")]
mod writer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::SystemTime;

use serde::Serialize;

use super::chatter::{Chatter, Topic};

#[cfg(feature = "access")]
pub use writer::{AuditPlace, AuditWriter};

/// Entries that wait for the disk.
const ENTRIES_MAX: usize = 8_192;

/// Where entries go; by default nowhere. Clones are the same log.
#[derive(Clone, Debug, Default)]
pub struct Audit(Option<Arc<Shared>>);

/// What those who tell and the thread that writes share.
#[derive(Debug)]
struct Shared {
    /// To the thread.
    entries: SyncSender<Entry>,
    /// How many wait for the thread.
    waiting: AtomicUsize,
    /// How many did not fit, since the log last said so.
    lost: AtomicU64,
    /// How many in all.
    lost_total: AtomicU64,
    /// Whether the file is to be opened anew before the next entry.
    reopens: AtomicBool,
    /// How many entries each address has caused.
    caused: Chatter,
}

/// Something that happened. What is not there is left out.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Entry {
    /// When; written by the writer, as people read it.
    #[serde(skip)]
    pub(super) at: Option<SystemTime>,
    /// What.
    pub(super) event: &'static str,
    /// Whether it was done: `ok`, `refused`, `denied`, or the code of a rejection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) result: Option<&'static str>,
    /// Who did it or wanted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) principal: Option<String>,
    /// How that was proven.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) method: Option<&'static str>,
    /// What they call themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) identity: Option<String>,
    /// From where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peer: Option<String>,
    /// Over which connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connection: Option<u64>,
    /// In which session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<String>,
    /// What a rule would have had to allow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) verb: Option<&'static str>,
    /// The lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lock: Option<String>,
    /// The other locks of the same grant, which ends as a whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) others: Vec<String>,
    /// The token of the grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<u64>,
    /// Whose grant it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) victim: Option<String>,
    /// That one's session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) victim_session: Option<String>,
    /// Why, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

impl Audit {
    /// Whether anything is written: else nothing need be put together.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Has an entry written, if there is room for it.
    pub(super) fn tell(&self, entry: Entry) {
        let Some(shared) = &self.0 else { return };
        let entry = Entry { at: entry.at.or_else(|| Some(SystemTime::now())), ..entry };
        shared.waiting.fetch_add(1, Ordering::Relaxed);
        if shared.entries.try_send(entry).is_err() {
            shared.waiting.fetch_sub(1, Ordering::Relaxed);
            self.lose();
        }
    }

    /// Has an entry written that strangers can cause as often as they like: only while there is room enough
    /// for what matters more.
    pub(super) fn tell_of_strangers(&self, entry: Entry) {
        let Some(shared) = &self.0 else { return };
        if shared.waiting.load(Ordering::Relaxed) < ENTRIES_MAX / 2 {
            self.tell(entry);
        } else {
            self.lose();
        }
    }

    /// Whether an entry is written that a peer can cause as often as it likes. The rest is counted, and the log
    /// says how much it leaves out.
    pub(super) fn admits(&self, topic: Topic, peer: Option<SocketAddr>) -> bool {
        self.tell_left_out();
        self.0.as_ref().is_some_and(|shared| shared.caused.counts(topic, peer))
    }

    /// Has the log say how much it leaves out, once an interval is over.
    pub(super) fn tell_left_out(&self) {
        let Some(shared) = &self.0 else { return };
        for reason in shared.caused.take_left_out() {
            self.note("left_out", "counted", reason);
        }
    }

    /// An entry had no room where it waited.
    pub(super) fn lose(&self) {
        if let Some(shared) = &self.0 {
            shared.lost.fetch_add(1, Ordering::Relaxed);
            shared.lost_total.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Something that happened to the server itself, such as a start: with more about it in words.
    pub fn note(&self, event: &'static str, result: &'static str, reason: impl Into<String>) {
        if self.is_on() {
            let (result, reason) = (Some(result), Some(reason.into()));
            self.tell(Entry { event, result, reason, ..Entry::default() });
        }
    }

    /// The same of something that a principal has had done.
    pub fn note_of(
        &self,
        (principal, peer): (&str, Option<SocketAddr>),
        event: &'static str,
        result: &'static str,
        reason: impl Into<String>,
    ) {
        if self.is_on() {
            self.tell(Entry {
                event,
                result: Some(result),
                principal: Some(principal.to_owned()),
                peer: peer.map(|peer| peer.to_string()),
                reason: Some(reason.into()),
                ..Entry::default()
            });
        }
    }

    /// Has the file opened anew: it was moved away.
    pub fn reopen(&self) {
        if let Some(shared) = &self.0 {
            shared.reopens.store(true, Ordering::Relaxed);
            // It looks when something comes.
            self.note("reopened", "ok", "asked for");
        }
    }

    /// How many entries were lost since the start.
    pub fn lost(&self) -> u64 {
        self.0.as_ref().map_or(0, |shared| shared.lost_total.load(Ordering::Relaxed))
    }
}
