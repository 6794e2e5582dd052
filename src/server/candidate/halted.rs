//! A leader whose disk takes nothing: it ends, so that another one leads (rule P8).

use std::mem;
use std::time::Duration;

use log::error;
use tokio::time::sleep;

use super::{BEAT_PARTS, Candidate, resign};
use crate::election::Election;
use crate::server::messages::{CloseAll, Pulse};
use crate::types::GoodbyeCode;

/// A leader whose disk takes nothing for a lease hands over to its standby. One that has none waits so many times as
/// long, for what comes after it is a grace period.
const HALTED_LEASES_ALONE: u32 = 5;

impl Candidate {
    /// Waits until the disk of this leader has kept all answers back for too long; for how long. Another one has a
    /// disk of its own (rule P8).
    pub(super) async fn halts(&self, election: &Election) -> Duration {
        let lease = self.options.timing.lease;
        let mut was_halted = false;
        loop {
            sleep(lease / BEAT_PARTS).await;
            let Some(coordinator) = self.incumbent.coordinator() else { continue };
            let Ok(halted) = coordinator.send(Pulse).await else { continue };
            let most = match election.pledge().behind() {
                Some(_) => lease,
                None => lease * HALTED_LEASES_ALONE,
            };
            // Twice in a row: behind a pause of this process, the disk's word waits to be heard, too.
            if mem::replace(&mut was_halted, halted >= most) && was_halted {
                error!(
                    "cluster: the disk has taken nothing for {halted:.1?}, and so nothing was answered; \
                     this coordinator ends, and another one leads"
                );
                return halted;
            }
        }
    }

    /// Nothing more is decided or appended, and then another one may lead.
    pub(super) async fn abdicate(&self, election: &Election) {
        if let Some(coordinator) = self.incumbent.coordinator() {
            let (code, why) = (GoodbyeCode::NotLeader, String::new());
            let _ = coordinator.send(CloseAll { code, why }).await;
        }
        resign(election).await;
    }
}
