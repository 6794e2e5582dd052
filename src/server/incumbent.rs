//! The Coordinator of now, for whoever is outside its thread.
//!
//! One that is alone has the same for its whole life. One of several has another for each term in which
//! it leads, and none while it stands by.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::{Addr, WeakAddr};

use super::coordinator::Coordinator;
use super::net::visits::Entrance;
use crate::access::Access;

/// The way to it. Keeps nothing alive.
#[derive(Clone, Debug, Default)]
pub(super) struct Incumbent(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// The Coordinator, and where those come in who look as observers do.
    seated: Option<(WeakAddr<Coordinator>, Entrance)>,
    /// The rules in force, where several take turns, or that came after the start: they are the next one's, too.
    rules: Option<Arc<Access>>,
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
    pub(super) fn rules(&self) -> Option<Arc<Access>> {
        self.lock().rules.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nobody panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
