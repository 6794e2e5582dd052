//! A client that has seen a later leader than this one: then etcd is asked again (rule H6).

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use log::error;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::cluster::Event;
use crate::election::{Election, Standing};
use crate::server::desk::turn::Later;
use crate::types::Epoch;

/// Etcd is asked so often at most because of those who prove nothing. A leader asks it more often by itself.
const UNPROVEN_EVERY: Duration = Duration::from_secs(1);

/// Gives the seat up, if a client proves that another has led later than the leader of `term`, and etcd still names that
/// one. Then nobody leads until an operator decides.
pub(super) async fn gives_way(
    election: &Election,
    (term, ours): (u64, Epoch),
    told: watch::Receiver<Later>,
) -> Infallible {
    let leads_still = async || {
        election.inquirer().look().await;
        matches!(*election.standing().borrow(), Standing::Leads { term: of, .. } if of == term)
    };
    let epoch = contradicted(told, ours, leads_still).await;
    let (ours, later) = (ours.number(), epoch.number());
    error!(
        term, ours, later;
        "cluster: etcd says that this coordinator leads, and a client proves that a later one has: etcd was restored from a \
         backup, or lost what it had. This coordinator leads no more"
    );
    election.pledge().tenure(term).hear(&Event::Contradicted { epoch });
    pending().await
}

/// Waits until a client proves a later epoch than ours, and etcd has been asked since: if another leads by now, this one
/// hears of it by the same answer, and nothing is wrong.
async fn contradicted(
    mut told: watch::Receiver<Later>,
    ours: Epoch,
    leads_still: impl AsyncFn() -> bool,
) -> Epoch {
    let mut is_told = false;
    while told.changed().await.is_ok() {
        let mut later = *told.borrow_and_update();
        if later.proven <= ours {
            if leads_still().await && !is_told {
                is_told = true;
                let (ours, later) = (ours.number(), later.said.number());
                error!(
                    ours, later;
                    "cluster: a client says that it has seen a later leader than this one, and etcd does not know of any: it \
                     was a client of another cluster, or lies, or etcd was restored from a backup; it is not served"
                );
            }
            let proven = timeout(UNPROVEN_EVERY, told.wait_for(|later| later.proven > ours)).await;
            let Ok(Ok(proven)) = proven else { continue };
            later = *proven;
        }
        if leads_still().await {
            return later.proven;
        }
    }
    pending().await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn h6_who_says_so_has_etcd_asked_once_a_second_and_who_proves_it_is_heard_at_once() {
        let (tell, told) = watch::channel(Later::default());
        let asked = Cell::new(0);
        let says = async {
            for epoch in 0..2_000 {
                let said = Epoch::new(u64::MAX - epoch);
                tell.send_modify(|later| later.note(Later { said, ..Later::default() }));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!((2..=3).contains(&asked.get()), "{}", asked.get());
            let proven = Epoch::new(8);
            tell.send_modify(|later| later.note(Later { proven, said: proven }));
            // Whoever speaks next hides nothing.
            tell.send_modify(|later| later.note(Later { said: Epoch::new(9), ..Later::default() }));
            pending::<()>().await;
        };
        let leads_still = async || {
            asked.set(asked.get() + 1);
            true
        };
        let epoch = tokio::select! {
            () = says => unreachable!("it goes on"),
            () = tokio::time::sleep(Duration::from_secs(60)) => panic!("the proof is hidden"),
            epoch = contradicted(told, Epoch::new(7), leads_still) => epoch,
        };
        assert_eq!(epoch, Epoch::new(8));
    }

    #[tokio::test(start_paused = true)]
    async fn h6_a_leader_that_was_followed_meanwhile_is_not_contradicted() {
        let (tell, told) = watch::channel(Later::default());
        let proven = Epoch::new(8);
        tell.send_modify(|later| later.note(Later { proven, said: proven }));
        let contradicted = contradicted(told, Epoch::new(7), async || false);
        assert!(timeout(Duration::from_secs(60), contradicted).await.is_err());
    }
}
