//! A client that has seen a later leader than this one: then etcd is asked again (rule H6).

use std::future::pending;

use log::error;
use tokio::sync::watch;

use crate::election::{Election, Standing};
use crate::server::desk::turn::Later;
use crate::server::error::ServerError;
use crate::types::Epoch;

/// Waits until a client proves that another has led later than the leader of `term`, and etcd still names that one. If
/// another leads by now, this one hears of it by the same answer.
pub(super) async fn contradicted(
    election: &Election,
    (term, ours): (u64, Epoch),
    mut told: watch::Receiver<Option<Later>>,
) -> ServerError {
    let mut is_told = false;
    loop {
        if told.changed().await.is_err() {
            return pending().await;
        }
        let Some(Later { epoch, is_proven }) = *told.borrow_and_update() else { continue };
        election.inquirer().look().await;
        let (ours, later) = (ours.number(), epoch.number());
        match *election.standing().borrow() {
            Standing::Leads { term: of, .. } if of == term => {}
            Standing::Leads { .. } | Standing::StandsBy { .. } => continue,
        }
        if is_proven {
            let error = ServerError::SetBack { term, ours, later };
            error!("cluster: {error}");
            return error;
        }
        if !is_told {
            is_told = true;
            error!(
                term, ours, later;
                "cluster: a client says that it has seen a later leader than this one, and etcd does not know of any: it \
                 was a client of another cluster, or lies, or etcd was restored from a backup; it is not served"
            );
        }
    }
}
