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

/// Whether a disk has kept all answers back for too long, looked at again and again.
#[derive(Default)]
struct Halt {
    /// Whether it had at the last look.
    was_too_long: bool,
}

impl Halt {
    /// Looks: it has kept them back for `halted`, and `most` is not too long. It counts twice in a row: behind a pause
    /// of this process, the disk's word waits to be heard, too.
    fn look(&mut self, halted: Duration, most: Duration) -> bool {
        let is_too_long = halted >= most;
        mem::replace(&mut self.was_too_long, is_too_long) && is_too_long
    }
}

impl Candidate {
    /// Waits until the disk of this leader has kept all answers back for too long; for how long. Another one has a
    /// disk of its own (rule P8).
    pub(super) async fn halts(&self, election: &Election) -> Duration {
        let lease = self.options.timing.lease;
        let mut halt = Halt::default();
        loop {
            sleep(lease / BEAT_PARTS).await;
            let Some(coordinator) = self.incumbent.coordinator() else { continue };
            let Ok(halted) = coordinator.send(Pulse).await else { continue };
            let most = match election.pledge().behind() {
                Some(_) => lease,
                None => lease * HALTED_LEASES_ALONE,
            };
            if halt.look(halted, most) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p8_a_disk_is_given_up_when_it_takes_nothing_at_two_looks_one_after_the_other() {
        let (lease, mut halt) = (Duration::from_secs(2), Halt::default());
        let mut look = |halted| halt.look(Duration::from_secs(halted), lease);
        assert!(!look(60), "this process stood still, and has yet to hear the disk");
        assert!(!look(0));
        assert!(!look(1) && !look(2));
        assert!(look(3));
    }
}
