//! The Coordinator of now, for whoever is outside its thread.
//!
//! One that is alone has the same for its whole life. One of several has another for each term in which
//! it leads, and none while it stands by.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::{Addr, WeakAddr};

use super::coordinator::Coordinator;
use super::net::visits::Entrance;
use crate::access::Access;
use crate::clock::Until;

/// The way to it. Keeps nothing alive.
#[derive(Clone, Debug, Default)]
pub(super) struct Incumbent(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// The Coordinator, and where those come in who look as observers do.
    seated: Option<(WeakAddr<Coordinator>, Entrance)>,
    /// The rules in force, where several take turns, or that came after the start: they are the next one's, too.
    rules: Option<Arc<Access>>,
    /// How it stands among several; none: there are no others.
    role: Option<Stand>,
}

/// How it stands, as others move it.
#[derive(Debug)]
struct Stand {
    /// What was told.
    role: Role,
    /// Until when it may decide.
    until: Until,
    /// Until when the arbiter is not doubted.
    heard: Until,
    /// Whether a pair is in sync.
    synced: Synced,
}

/// How far behind the standby of a pair in sync is, as one thread says and others ask.
#[derive(Clone, Debug)]
pub(super) struct Synced(Arc<AtomicU64>);

/// It is in no such pair.
const NOT_SYNCED: u64 = u64::MAX;

impl Default for Synced {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(NOT_SYNCED)))
    }
}

impl Synced {
    /// The standby has so many positions yet to acknowledge; none: none is in sync.
    #[cfg(feature = "cluster")]
    pub(super) fn is(&self, behind: Option<u64>) {
        self.0.store(behind.unwrap_or(NOT_SYNCED), Ordering::Relaxed);
    }

    fn behind(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|behind| *behind != NOT_SYNCED)
    }
}

/// How a coordinator stands among those of its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Role {
    /// The name of the cluster.
    pub cluster: String,
    /// The name of this coordinator in it.
    pub name: String,
    /// Whether it leads.
    pub leads: bool,
    /// Whether it leads, and may decide nothing before the arbiter answers.
    pub suspended: bool,
    /// Whether the arbiter has answered not long ago.
    pub reached: bool,
    /// How many positions the standby of the pair in sync, of which it is one, has yet to acknowledge; none: it
    /// is not in sync.
    pub behind: Option<u64>,
    /// The term of the leader; 0: nobody is known to lead.
    pub term: u64,
    /// The leader's name; empty: nobody is known to lead.
    pub leader: String,
    /// Where clients reach the leader.
    pub address: String,
}

impl Incumbent {
    /// This one decides from now on.
    pub(super) fn seat(&self, coordinator: WeakAddr<Coordinator>, entrance: Entrance) {
        self.lock().seated = Some((coordinator, entrance));
    }

    /// Nobody here decides any more.
    #[cfg(feature = "cluster")]
    pub(super) fn unseat(&self) {
        self.lock().seated = None;
    }

    /// The Coordinator, if there is one.
    pub(super) fn coordinator(&self) -> Option<Addr<Coordinator>> {
        self.lock().seated.as_ref().and_then(|(coordinator, _)| coordinator.upgrade())
    }

    /// Where those come in who look as observers do.
    pub(super) fn entrance(&self) -> Option<Entrance> {
        self.lock().seated.as_ref().map(|(_, entrance)| entrance.clone())
    }

    /// These rules hold from now on, whoever decides.
    pub(super) fn rule(&self, rules: Arc<Access>) {
        self.lock().rules = Some(rules);
    }

    /// The rules that hold, whoever decides.
    #[cfg(feature = "cluster")]
    pub(super) fn rules(&self) -> Option<Arc<Access>> {
        self.lock().rules.clone()
    }

    /// It stands like this from now on.
    #[cfg(feature = "cluster")]
    pub(super) fn stand(&self, role: Role, (until, heard): (Until, Until), synced: &Synced) {
        let synced = synced.clone();
        self.lock().role = Some(Stand { role, until, heard, synced });
    }

    /// The rules of one that stands by, and has no Coordinator that would know them.
    pub(super) fn rules_of_standby(&self) -> Option<Arc<Access>> {
        let inner = self.lock();
        inner.role.as_ref().filter(|stand| !stand.role.leads)?;
        inner.rules.clone()
    }

    /// How it stands among several.
    pub(super) fn role(&self) -> Option<Role> {
        let inner = self.lock();
        let Stand { role, until, heard, synced } = inner.role.as_ref()?;
        let suspended = role.leads && !until.is_ahead();
        let (reached, behind) = (heard.is_ahead(), synced.behind());
        Some(Role { suspended, reached, behind, ..role.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nobody panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
