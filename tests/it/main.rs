//! Tests with the real binary, in one test binary: a module per theme.
//!
//! Each test has its own coordinator on a port of its own and its own home directory, so all run at
//! once. Nothing sleeps for luck: what is waited for is looked at until it is so, or a deadline
//! that is far too long has passed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod access;
mod administering;
mod adversary;
mod api;
mod bench;
mod breaking;
mod canaries;
mod certificates;
mod checking;
#[cfg(feature = "cluster")]
mod cluster;
mod commands;
mod completions;
mod crowds;
mod demo;
mod examples;
mod files;
mod forked;
mod free_port;
mod graph;
#[path = "../../src/testing/history/mod.rs"]
mod history;
mod journal;
mod keeper;
mod kept;
mod kills;
mod leading;
mod looking;
mod loss;
mod matrix;
mod members;
mod nemesis;
mod nested;
mod newest;
mod observability;
mod operating;
mod others;
mod pauses;
mod port;
mod proxy;
#[expect(dead_code, reason = "the fuzzers use the rest")]
#[path = "../../src/testing/fuzz/random.rs"]
mod random;
mod raw;
mod recipes;
mod redis;
mod redis_tls;
mod reload;
mod restart;
mod rules;
mod serving;
mod several;
mod signals;
mod sizes;
mod structure;
mod supervised;
mod support;
mod terminal;
mod tls;
mod top;
mod waiting;
mod wall_clock;
mod watchdog;
