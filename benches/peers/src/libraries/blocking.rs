//! Calls that block their thread: one thread that locks and releases in turn, with what it used meanwhile.

use std::thread;
use std::time::Instant;

use coordinator::blocking::Client;
use redis::Script;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::redis_rs::{Values, failed, wrong};
use crate::Failure;
use crate::load::usage::Usage;
use crate::load::{Extent, Plan};
use crate::redis::RELEASE;

/// Measures our blocking client.
pub(super) async fn ours(address: String, plan: Plan) -> Result<Value, Failure> {
    off_the_runtime(move || {
        let client = Client::connect(address.as_str())?;
        let name = plan.lock_name(0);
        let measured = repeat(&plan, || {
            client.lock(&name).acquire()?.release()?;
            Ok(())
        })?;
        client.close()?;
        Ok(measured)
    })
    .await
}

/// Measures the blocking calls of `redis`.
pub(super) async fn redis(address: String, plan: Plan) -> Result<Value, Failure> {
    off_the_runtime(move || {
        let mut connection = redis::Client::open(format!("redis://{address}"))?.get_connection()?;
        let (script, mut lock) = (Script::new(RELEASE), Values::new(&plan, 0));
        repeat(&plan, || {
            lock.next();
            let set: Option<String> =
                lock.take().query(&mut connection).map_err(|error| failed(&error))?;
            if set.is_none() {
                return Err(wrong("a lock of our own is not free").into());
            }
            let mut release = script.key(&lock.name);
            let deleted: i64 =
                release.arg(&lock.value).invoke(&mut connection).map_err(|error| failed(&error))?;
            if deleted != 1 {
                return Err(wrong("the release").into());
            }
            Ok(())
        })
    })
    .await
}

/// Does what blocks on a thread of its own, which no runtime calls its own.
async fn off_the_runtime(
    work: impl FnOnce() -> Result<Value, Failure> + Send + 'static,
) -> Result<Value, Failure> {
    let (tell, told) = oneshot::channel();
    // Nobody listens any more if the run was interrupted.
    thread::spawn(move || drop(tell.send(work().map_err(|why| why.to_string()))));
    Ok(told.await??)
}

/// Does pairs for as long as the plan says; gives them and their cost in the form of an outcome.
fn repeat(plan: &Plan, mut pair: impl FnMut() -> Result<(), Failure>) -> Result<Value, Failure> {
    let Extent::For(duration) = plan.extent else { return Err("a time is to be said".into()) };
    let warm = Instant::now() + plan.warmup;
    while Instant::now() < warm {
        pair()?;
    }
    let own = || Usage::of(std::process::id());
    let (before, began) = (own()?, Instant::now());
    let mut pairs = 0_u32;
    while began.elapsed() < duration {
        pair()?;
        pairs += 1;
    }
    let (elapsed, used) = (began.elapsed(), own()?.since(&before));
    let pairs = f64::from(pairs.max(1));
    Ok(json!({
        "pairs": pairs,
        "pairs_per_second": pairs / elapsed.as_secs_f64(),
        "own_cpu_ns_per_pair": used.as_secs_f64() * 1e9 / pairs,
    }))
}
