//! What ends a server, and tells it things, from wherever that is decided.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use crate::access::Access;
use crate::server::counters::Counters;
use crate::server::incumbent::Incumbent;
use crate::server::messages::{ChangeRules, TellState};
use crate::server::phase::Phase;
use crate::server::upkeep::{Expires, Upkeep};

/// Stops a server, from any thread, a signal handler's task included.
#[derive(Clone, Debug)]
pub struct ServerHandle {
    /// What is asked of the server.
    phase: watch::Sender<Phase>,
    /// The way to the Coordinator of now, which knows how things are. A handle keeps nothing alive.
    incumbent: Incumbent,
    /// What is told of reloads and certificates.
    upkeep: Arc<Upkeep>,
}

impl ServerHandle {
    pub(in crate::server) fn new(
        phase: &watch::Sender<Phase>,
        incumbent: &Incumbent,
        counters: &Counters,
    ) -> Self {
        let upkeep = Arc::clone(&counters.upkeep);
        Self { phase: phase.clone(), incumbent: incumbent.clone(), upkeep }
    }

    /// Stop in order: see [`Server::run`](super::Server::run).
    pub fn drain(&self) {
        self.ask(Phase::Draining);
    }

    /// Stop at once. With a data directory that is a crash on purpose: nothing more is saved, and the
    /// next start has a grace period.
    pub fn stop(&self) {
        self.ask(Phase::Stopping);
    }

    /// Has the state told to the log, in a few lines with the target `coordinator::summary`. They
    /// are the sizes, the counters, and what is wrong. That takes no time that others would notice.
    pub fn tell_state(&self) {
        if let Some(coordinator) = self.incumbent.coordinator() {
            coordinator.do_send(TellState);
        }
    }

    /// Other rules hold from now on, for everybody at once. A connection whose proof names nobody by them, or
    /// another principal, is told Goodbye; what waits and is not allowed any more is rejected. What is held
    /// stays held.
    ///
    /// A server that began without rules, where everything is allowed, stays so, and one with rules keeps
    /// them: that changes by a restart.
    pub fn change_rules(&self, access: Arc<Access>) {
        self.incumbent.rule(Arc::clone(&access));
        if let Some(coordinator) = self.incumbent.coordinator() {
            coordinator.do_send(ChangeRules(access));
        }
    }

    /// The configuration was read again, and it all holds now, or nothing has changed: for metrics.
    pub fn reloaded(&self, is_whole: bool) {
        self.upkeep.reloaded(is_whole, SystemTime::now());
    }

    /// Certificates expire then: for metrics.
    pub fn certificates_expire(&self, expires: Expires) {
        self.upkeep.expires(expires);
    }

    fn ask(&self, phase: Phase) {
        self.phase.send_if_modified(|asked| {
            let higher = *asked < phase;
            *asked = phase.max(*asked);
            higher
        });
    }
}
