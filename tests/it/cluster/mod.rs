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
mod stopping;

use std::future::Future;
use std::panic::{RefUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use coordinator::etcd::EtcdOptions;

use crate::support::DEADLINE;

/// Runs `work` to its end.
fn live<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime
        .block_on(async { tokio::time::timeout(DEADLINE, work).await })
        .expect("it goes on and on")
}

/// How often a story is told at most.
const ATTEMPTS_MAX: u32 = 3;
/// Between two looks at whether the machine stands still.
const HEARTBEAT: Duration = Duration::from_millis(20);
/// A standby that says nothing for so long is taken out; after twice as long, a leader is suspected.
const SILENCE: Duration = Duration::from_millis(250);

/// Runs a story in which a pair has to stay in sync all along. If it fails while this machine stood still for so long
/// that the pair could not, it is told again.
fn undisturbed(story: impl Fn() + RefUnwindSafe) {
    for attempt in 1..=ATTEMPTS_MAX {
        let over = AtomicBool::new(false);
        let (outcome, longest) = thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let (mut longest, mut last) = (Duration::ZERO, Instant::now());
                while !over.load(Ordering::SeqCst) {
                    thread::sleep(HEARTBEAT);
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                }
                longest
            });
            let outcome = catch_unwind(&story);
            over.store(true, Ordering::SeqCst);
            (outcome, watch.join().unwrap())
        });
        match outcome {
            Ok(()) => return,
            Err(_) if longest >= SILENCE && attempt < ATTEMPTS_MAX => {}
            Err(why) => resume_unwind(why),
        }
    }
}

/// Who asks these endpoints, with so much patience that a busy machine is no fault.
fn options(endpoints: &[&str]) -> EtcdOptions {
    EtcdOptions {
        endpoints: endpoints.iter().map(ToString::to_string).collect(),
        patience: Duration::from_secs(5),
        ..EtcdOptions::default()
    }
}
