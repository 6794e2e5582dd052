//! The engine alone: what a pair and a hand-over cost, in an empty table and beside a million
//! others.
//!
//! `cargo bench --bench engine`. A pair is a request that is granted, and its release.
#![allow(missing_docs, clippy::expect_used, reason = "a bench is no library")]

mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use common::{CHUNK, World};
use coordinator::engine::Event;
use coordinator::types::Wait;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const MILLION: usize = 1_000_000;
/// As many sessions as a busy server has.
const SESSIONS: usize = 1_000;

/// A deadline that no bench comes to.
const DAY: Duration = Duration::from_secs(86_400);

/// How long the events that `make` makes for `wanted` pairs take: they are made a chunk at a time,
/// and only their handling is measured.
fn time(world: &mut World, wanted: u64, make: impl Fn(&mut World, u64) -> Vec<Event>) -> Duration {
    let mut taken = Duration::ZERO;
    let mut left = wanted;
    while left > 0 {
        let pairs = left.min(CHUNK);
        left -= pairs;
        let events = make(world, pairs);
        let began = Instant::now();
        for event in events {
            world.handle(black_box(&event));
        }
        taken += began.elapsed();
    }
    world.check();
    taken
}

fn pairs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pair");
    group.throughput(Throughput::Elements(1));
    let mut measure = |name, mut world: World| {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|pairs| time(&mut world, pairs, World::pairs));
        });
    };
    measure("alone", World::new(1));
    let mut holding = World::new(1);
    holding.hold(MILLION);
    measure("beside a million held locks", holding);
    let mut waiting = World::new(SESSIONS);
    waiting.queue_up(MILLION, Wait::Forever);
    measure("beside a million waiters", waiting);
    let mut waiting = World::new(SESSIONS);
    waiting.queue_up(MILLION, Wait::AtMost(DAY));
    measure("beside a million deadlines", waiting);
    measure("beside a million sessions", World::new(MILLION));
    group.finish();
}

fn hand_overs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hand-over");
    group.throughput(Throughput::Elements(1));
    for waiters in [1, 1_000, MILLION] {
        let mut world = World::new(SESSIONS.min(waiters + 1));
        world.queue_up(waiters, Wait::Forever);
        group.bench_function(BenchmarkId::new("waiters", waiters), |bencher| {
            bencher.iter_custom(|pairs| time(&mut world, pairs, World::hand_overs));
        });
    }
    group.finish();
}

criterion_group!(benches, pairs, hand_overs);
criterion_main!(benches);
