//! What is measured side by side.

use std::num::NonZeroU32;
use std::time::Duration;

use coordinator::types::Mode;

use crate::load::{Connections, Extent, Locks, Plan, Priority, Rhythm};
use crate::service::Kind;

/// Connections whose pairs wait for each other's answers, in the closed loop.
pub(crate) const CLOSED: [usize; 5] = [1, 2, 8, 64, 512];
/// Clients among whom one lock goes from hand to hand.
pub(crate) const CROWDS: [usize; 2] = [2, 64];
/// Pairs in one write.
pub(crate) const DEPTH: NonZeroU32 = NonZeroU32::new(64).unwrap();
/// The name of the workload with many pairs in one write.
pub(crate) const BATCHES: &str = "batches-64";
/// The name of the workload with a connection for each pair.
pub(crate) const ITERATIONS: &str = "iterations";

/// Something to be measured.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    /// Its name in results.
    pub(crate) name: String,
    /// What is done.
    pub(crate) plan: Plan,
    /// What goes on beside it, and is not measured.
    pub(crate) beside: Option<Plan>,
}

/// The name of the closed loop with so many connections.
pub(crate) fn closed_name(connections: usize) -> String {
    format!("closed-{connections}")
}

/// The name of the hand-over among so many clients.
pub(crate) fn crowd_name(clients: usize) -> String {
    format!("hand-over-{clients}")
}

/// The name of the workload of one client beside many that connect, ask and leave.
pub(crate) const STORM: &str = "storm";
/// So many connect at a time in a storm, from this machine and as if from another: whoever answers, and the client
/// beside them, comes first to a processor. Else the client would wait for what a storm costs those who make it.
const STORM_CONNECTIONS: usize = 64;
/// Pairs in a second of the client beside them.
const STORM_RATE: f64 = 500.0;
/// So long a storm lasts at least: the slowest hundredth of the client's pairs are then fifteen.
const STORM_DURATION_MIN: Duration = Duration::from_secs(3);

/// The closed loop: so many connections, each with a lock of its own. Its locks are still to be named.
pub(crate) fn kept(connections: usize, duration: Duration, warmup: Duration) -> Plan {
    Plan {
        connections,
        threads: 1,
        locks: Locks::Own,
        mode: Mode::Exclusive,
        rhythm: Rhythm::Steps,
        keep: Connections::Kept,
        priority: Priority::Usual,
        warmup,
        extent: Extent::For(duration),
        prefix: String::new(),
    }
}

/// All workloads.
pub(crate) fn all(duration: Duration, warmup: Duration) -> Vec<Workload> {
    let plan = |connections| kept(connections, duration, warmup);
    let mut all = Vec::new();
    for connections in CLOSED {
        all.push(Workload {
            name: closed_name(connections),
            plan: plan(connections),
            beside: None,
        });
    }
    let batches = Plan { rhythm: Rhythm::Batches(DEPTH), ..plan(4) };
    all.push(Workload { name: BATCHES.to_owned(), plan: batches, beside: None });
    for clients in CROWDS {
        let plan = Plan { locks: Locks::Same, ..plan(clients) };
        all.push(Workload { name: crowd_name(clients), plan, beside: None });
    }
    let iterations = Plan { keep: Connections::PerIteration, ..plan(8) };
    all.push(Workload { name: ITERATIONS.to_owned(), plan: iterations, beside: None });
    let extent = Extent::For(duration.max(STORM_DURATION_MIN));
    let storm = Plan {
        keep: Connections::PerIteration,
        priority: Priority::Lowest,
        extent,
        ..plan(STORM_CONNECTIONS)
    };
    let calm = Plan { rhythm: Rhythm::Rate(STORM_RATE), extent, ..plan(1) };
    all.push(Workload { name: STORM.to_owned(), plan: calm, beside: Some(storm) });
    for workload in &mut all {
        // Of one length for all, so that names cost the same.
        workload.plan.prefix = format!("bench-{:_<13}", workload.name);
        if let Some(beside) = &mut workload.beside {
            beside.prefix = format!("bench-{:_<13}", "beside");
        }
    }
    all
}

impl Workload {
    /// Whether the service can do it at all.
    pub(crate) fn is_for(&self, kind: Kind) -> bool {
        match kind {
            // Its tasks take turns whatever they do, so nothing can be learned from it.
            Kind::Echo(_) if self.beside.is_some() => false,
            // They have no queue from which a lock could go from hand to hand: the one grants
            // nothing, the other to whoever happens to ask first.
            Kind::Echo(_) | Kind::Redis => self.plan.locks == Locks::Own,
            Kind::Coordinator(..) | Kind::Etcd | Kind::ZooKeeper | Kind::Postgres => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_locks_are_of_one_length() {
        let all = all(Duration::from_secs(1), Duration::ZERO);
        let lengths: Vec<usize> = all.iter().map(|it| it.plan.lock_name(0).len()).collect();
        assert!(lengths.iter().all(|len| *len == lengths[0]), "{lengths:?}");
    }
}
