//! What simulated clients of the Redis dialect say, and how long they believe in what they hold.

use std::time::Duration;

use super::fuzz::Random;

/// Shortest and longest time for which one takes a lock.
const TERM_MS_MIN: u64 = 300;
const TERM_MS_MAX: usize = 4_000;
/// Longest wait in line.
pub(crate) const WAIT_MS_MAX: u64 = 3_000;
/// What is believed of a term: two clocks differ by 2 percent at most (rule T1).
const BELIEVED_PERCENT: u32 = 97;
/// How every value begins, and none ends there.
pub(crate) const BEGINNING: &str = "s";
const FREE: &str =
    "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end";
const EXTEND: &str = "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('pexpire',KEYS[1],ARGV[2]) else return 0 end";

/// For how long a lock is taken, in milliseconds.
pub(crate) fn term_ms(dice: &mut Random) -> u64 {
    TERM_MS_MIN + dice.below(TERM_MS_MAX) as u64
}

/// For how much of a term one believes to hold.
pub(crate) fn believed(term: Duration) -> Duration {
    term * BELIEVED_PERCENT / 100
}

/// What a client writes into a lock, unlike all that anybody wrote before.
pub(crate) fn value(client: u64, number: u64) -> String {
    format!("{BEGINNING}{client}-{number}")
}

/// Frees what has this value.
pub(crate) fn free<'a>(key: &'a str, value: &'a str) -> [&'a str; 5] {
    ["EVAL", FREE, "1", key, value]
}

/// Has what has this value end in so many milliseconds.
pub(crate) fn extend<'a>(key: &'a str, value: &'a str, px: &'a str) -> [&'a str; 6] {
    ["EVAL", EXTEND, "1", key, value, px]
}

/// Whether a lock was not to be had. Each that waits is told why it does not any more.
pub(crate) fn is_no(answer: &str) -> bool {
    let is_told = answer.starts_with("-COORDINATOR") && !answer.contains("the wait was ended");
    answer == "$-1" || is_told
}
