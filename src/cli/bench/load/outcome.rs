//! The outcome of a measurement, and its form for programs.

use std::time::Duration;

use coordinator::types::Mode;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::plan::{Connections, Locks, Plan, Rhythm};
use super::run::Run;
use super::tally::Tally;

/// How a measurement went, apart from what the connections saw.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Course {
    /// How long it took.
    pub(crate) elapsed: Duration,
    /// How long the server was on a CPU, if that was asked for.
    pub(crate) server_cpu: Option<Duration>,
    /// How long the load generator was.
    pub(crate) own_cpu: Option<Duration>,
    /// Whether it went to its end.
    pub(crate) is_complete: bool,
}

/// What came out of a measurement.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// What was asked for.
    pub(crate) plan: Plan,
    /// How it went.
    pub(crate) course: Course,
    /// Requests that were granted and released.
    pub(crate) pairs: u64,
    /// From asking to the grant.
    pub(crate) acquire: Latency,
    /// From releasing to the answer.
    pub(crate) release: Latency,
    /// From one connection's release to another's grant, if all wanted one lock.
    pub(crate) hand_over: Option<Latency>,
    /// How many grants were checked, warm-up included.
    pub(crate) grants_checked: u64,
}

/// What a histogram says, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Latency {
    /// How many there were.
    pub(crate) count: u64,
    /// Their mean.
    pub(crate) mean: f64,
    /// Half of them were no longer than this.
    pub(crate) p50: u64,
    /// 90 of 100 were.
    pub(crate) p90: u64,
    /// 99 of 100 were.
    pub(crate) p99: u64,
    /// 999 of 1000 were.
    pub(crate) p999: u64,
    /// None was longer.
    pub(crate) max: u64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            mean: histogram.mean(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }

    fn to_json(self) -> Value {
        let Self { count, mean, p50, p90, p99, p999, max } = self;
        json!({
            "count": count, "mean": mean.round(), "p50": p50, "p90": p90, "p99": p99, "p999": p999,
            "max": max,
        })
    }
}

impl Outcome {
    /// What `tally` and `course` say about `run`.
    pub(crate) fn new(run: &Run, tally: &Tally, course: Course) -> Self {
        Self {
            plan: run.plan.clone(),
            course,
            pairs: tally.pairs,
            acquire: Latency::of(&tally.acquire),
            release: Latency::of(&tally.release),
            hand_over: run.crowd.as_ref().map(|_| Latency::of(&tally.hand_over)),
            grants_checked: run.checks.grants(),
        }
    }

    /// Pairs in a second.
    pub(crate) fn pairs_per_second(&self) -> f64 {
        let seconds = self.course.elapsed.as_secs_f64();
        if seconds > 0.0 { as_f64(self.pairs) / seconds } else { 0.0 }
    }

    /// How long the server was on a CPU for each pair, in nanoseconds.
    pub(crate) fn server_cpu_per_pair(&self) -> Option<f64> {
        self.per_pair(self.course.server_cpu)
    }

    /// How long the load generator was.
    pub(crate) fn own_cpu_per_pair(&self) -> Option<f64> {
        self.per_pair(self.course.own_cpu)
    }

    fn per_pair(&self, used: Option<Duration>) -> Option<f64> {
        let used = used.filter(|_| self.pairs > 0)?;
        Some(used.as_secs_f64() * 1e9 / as_f64(self.pairs))
    }

    /// The form for programs, which docs/performance.md describes.
    pub(crate) fn to_json(&self) -> Value {
        let nanos = |length: Duration| u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        json!({
            "workload": workload(&self.plan),
            "complete": self.course.is_complete,
            "elapsed_ns": nanos(self.course.elapsed),
            "pairs": self.pairs,
            "pairs_per_second": self.pairs_per_second(),
            "acquire_ns": self.acquire.to_json(),
            "release_ns": self.release.to_json(),
            "hand_over_ns": self.hand_over.map(Latency::to_json),
            "server_cpu_ns": self.course.server_cpu.map(nanos),
            "server_cpu_ns_per_pair": self.server_cpu_per_pair(),
            "own_cpu_ns_per_pair": self.own_cpu_per_pair(),
            "grants_checked": self.grants_checked,
        })
    }
}

fn workload(plan: &Plan) -> Value {
    let (rhythm, depth, rate) = match plan.rhythm {
        Rhythm::Steps => ("steps", None, None),
        Rhythm::Batches(depth) => ("batches", Some(depth.get()), None),
        Rhythm::Rate(rate) => ("rate", None, Some(rate)),
    };
    let mode = match plan.mode {
        Mode::Exclusive => json!({"kind": "exclusive"}),
        Mode::Shared => json!({"kind": "shared"}),
        Mode::Permits { take, of } => json!({"kind": "permits", "take": take, "of": of}),
    };
    json!({
        "connections": plan.connections,
        "threads": plan.threads,
        "locks": match plan.locks { Locks::Own => "own", Locks::Same => "same" },
        "mode": mode,
        "rhythm": rhythm,
        "depth": depth,
        "rate": rate,
        "connection_per_iteration": plan.keep == Connections::PerIteration,
    })
}

#[allow(clippy::cast_precision_loss, reason = "2^53 pairs take longer than anybody waits")]
fn as_f64(number: u64) -> f64 {
    number as f64
}
