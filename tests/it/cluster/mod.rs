//! Several coordinators: etcd, which says who leads, and who leads.

mod client;
mod commands;
pub(crate) mod etcd;
mod following;
mod guarded;
mod leading;
mod seen;
pub(crate) mod serving;
mod set_back;

use std::future::Future;
use std::time::Duration;

use coordinator::etcd::EtcdOptions;

use crate::support::DEADLINE;

/// Runs `work` to its end.
fn live<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime
        .block_on(async { tokio::time::timeout(DEADLINE, work).await })
        .expect("it goes on and on")
}

/// Who asks these endpoints, with so much patience that a busy machine is no fault.
fn options(endpoints: &[&str]) -> EtcdOptions {
    EtcdOptions {
        endpoints: endpoints.iter().map(ToString::to_string).collect(),
        patience: Duration::from_secs(5),
        ..EtcdOptions::default()
    }
}
