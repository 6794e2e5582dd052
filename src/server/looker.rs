//! Whoever looks from outside the mailbox: other threads ask the Coordinator for figures, one at a time.
//!
//! What it is asked for is a copy of some kilobytes, or a page of what a look shows all together. How
//! often that is, whoever asks has to see to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::sync::watch;

use super::audit::Audit;
#[cfg(feature = "http")]
use super::chatter::Topic;
use super::counters::Counters;
use super::desk::figures::{Contention, Figures};
use super::desk::{Errand, Unentitled, Who, entitled};
use super::incumbent::Incumbent;
#[cfg(feature = "http")]
use super::log_lines;
use super::messages::{Entitle, Gather, Identify, Pulse, Survey};
use super::phase::Phase;
use super::role::Role;
use super::secure::Certified;
use super::upkeep::Kept;
use crate::access::{Access, Proof, Unproven};
use crate::types::Histogram;

/// Asks a coordinator how things are, from any thread. Keeps nothing alive.
#[derive(Clone, Debug)]
pub struct Looker {
    /// The Coordinator of now, which knows.
    incumbent: Incumbent,
    /// Counters beside it.
    counters: Arc<Counters>,
    /// The audit log, which counts what it loses.
    audit: Audit,
    /// The phase that the server is asked for.
    phase: watch::Receiver<Phase>,
    /// How much of everything there may be.
    limits: LooksLimits,
}

/// How much of everything there may be, so that alerts can say how near that is.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LooksLimits {
    /// Connections at a time.
    pub connections: usize,
    /// Sessions at a time.
    pub sessions: usize,
}

/// What is counted outside the mailbox.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Counted {
    /// Entries of the audit log that were lost.
    pub audit_lost: u64,
    /// Connections open now.
    pub connections: usize,
    /// Connections that were said Goodbye to, for each reason, or that ended without.
    pub closed: Vec<(&'static str, u64)>,
    /// Connections turned away because there were too many.
    pub refused: u64,
    /// TLS handshakes that waited for others with their address.
    pub handshakes_delayed: u64,
    /// Events that those who listen were not told.
    pub events_missed: u64,
    /// How long commits of the state took.
    pub commits: Histogram,
    /// Commits that did not succeed.
    pub commit_failures: u64,
    /// For how long the state cannot be saved.
    pub unsaved: Duration,
    /// Reloads, and when certificates expire.
    pub upkeep: Kept,
    /// How much there may be.
    pub limits: LooksLimits,
    /// How often somebody proved nobody.
    pub unproven: u64,
    /// How often somebody was told that it may not, for each verb.
    pub denials: Vec<(&'static str, u64)>,
    /// How it stands in its cluster, if it is in one.
    pub role: Option<Role>,
}

/// Whether clients are better sent here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// They are. Also in a grace period, and while a disk fails: those who hold must reach us.
    Ready,
    /// It stops, or has stopped.
    Draining,
    /// Nothing can be granted before the disk works again.
    Exhausted,
    /// It leads, and may decide nothing before the arbiter of its cluster answers.
    Suspended,
}

impl Looker {
    pub(super) fn new(
        incumbent: Incumbent,
        (counters, audit): (Arc<Counters>, Audit),
        phase: watch::Receiver<Phase>,
        limits: LooksLimits,
    ) -> Self {
        Self { incumbent, counters, audit, phase, limits }
    }

    /// Waits until the Coordinator has answered. None: there is none any more. One that stands by is alive.
    pub async fn pulse(&self) -> Option<()> {
        if self.role().is_some_and(|role| !role.leads) {
            return (*self.phase.borrow() == Phase::Serving).then_some(());
        }
        self.incumbent.coordinator()?.send(Pulse).await.ok().map(drop)
    }

    /// How it stands among those of its cluster; none: it is in none.
    pub fn role(&self) -> Option<Role> {
        self.counters.roles.role()
    }

    /// The rules of one that stands by, and has no Coordinator that would know them.
    fn rules_of_standby(&self) -> Option<Arc<Access>> {
        self.role().filter(|role| !role.leads)?;
        self.incumbent.rules()
    }

    /// What is counted of this run. None: there is no coordinator, or it stands by.
    pub async fn figures(&self) -> Option<Box<Figures>> {
        self.incumbent.coordinator()?.send(Gather).await.ok()
    }

    /// A page of the locks that somebody waits for, from a place on, all together.
    pub async fn contention(&self, from: usize) -> Option<Contention> {
        self.incumbent.coordinator()?.send(Survey { from }).await.ok()
    }

    /// Who somebody is that shows this, and what it may do; an error if it is nobody. None: there is no
    /// coordinator any more.
    pub async fn who(&self, proof: Proof) -> Option<Result<Who, Unproven>> {
        if let Some(coordinator) = self.incumbent.coordinator() {
            return coordinator.send(Identify { proof }).await.ok();
        }
        let rules = self.rules_of_standby()?;
        Some(Who::by(&rules, proof))
    }

    /// Whether somebody from `peer` that shows this may have something done. Who may not is counted, and told to
    /// the logs. So is who is nobody, by one that stands by; by one that leads, where that is told. None: there is
    /// no coordinator any more.
    pub async fn entitle(
        &self,
        proof: Proof,
        peer: Option<SocketAddr>,
        errand: Errand,
    ) -> Option<Result<Who, Unentitled>> {
        if let Some(coordinator) = self.incumbent.coordinator() {
            return coordinator.send(Entitle { proof, peer, errand }).await.ok();
        }
        let rules = self.rules_of_standby()?;
        Some(entitled(&rules, (proof, peer), errand, (&self.counters, &self.audit)))
    }

    /// A handshake on another port than that of the locks waits for others with its address.
    #[cfg(feature = "http")]
    pub(crate) fn handshake_waits(&self, peer: SocketAddr) {
        self.counters.handshakes_delayed.add_one();
        if self.counters.chatter.admits(Topic::Crowd, Some(peer)) {
            log_lines::crowded(None, Some(peer));
        }
    }

    /// A connection to the coordinator for somebody from `peer`, as on the lock port, without a socket: what
    /// `Client::connect_with` takes. None: there are too many, or it stops.
    pub fn visit(&self, peer: Option<SocketAddr>) -> Option<DuplexStream> {
        self.incumbent.entrance()?.enter(peer, Certified::default())
    }

    /// The same for somebody who has shown a certificate.
    #[cfg(feature = "http")]
    pub(crate) fn visit_with(
        &self,
        peer: Option<SocketAddr>,
        certified: Certified,
    ) -> Option<DuplexStream> {
        self.incumbent.entrance()?.enter(peer, certified)
    }

    /// How much of everything there may be.
    pub fn limits(&self) -> LooksLimits {
        self.limits
    }

    /// Whether clients are better sent here, after what the figures say.
    pub fn readiness(&self, figures: &Figures) -> Readiness {
        if *self.phase.borrow() > Phase::Serving || figures.counts.draining {
            Readiness::Draining
        } else if self.role().is_some_and(|role| role.suspended) {
            Readiness::Suspended
        } else if figures.counts.tokens_left == 0 {
            Readiness::Exhausted
        } else {
            Readiness::Ready
        }
    }

    /// What is counted outside the mailbox.
    pub fn counted(&self) -> Counted {
        let counters = &self.counters;
        let mut closed: Vec<_> = counters.closed_by_reason().collect();
        // Who does not read is not said Goodbye to.
        closed.retain(|(reason, _)| *reason != "SlowReader");
        closed.push(("SlowReader", counters.slow_readers.total()));
        closed.push(("broken", counters.broken.total()));
        Counted {
            audit_lost: self.audit.lost(),
            connections: counters.connections(),
            closed,
            refused: counters.connections_refused.total(),
            handshakes_delayed: counters.handshakes_delayed.total(),
            events_missed: counters.events_missed.total(),
            commits: counters.commits(),
            commit_failures: counters.commit_failures.total(),
            unsaved: counters.unsaved().unwrap_or_default(),
            upkeep: counters.upkeep.kept(),
            limits: self.limits,
            unproven: counters.unproven.total(),
            denials: counters.denials().collect(),
            role: self.role(),
        }
    }
}
