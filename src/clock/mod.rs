//! The only source of time.
//!
//! Leases are decided with a clock that never jumps and goes on while the machine sleeps (rule T1).
//! Every decision gets a [`Timestamp`] from its shell, and the shell gets it from a [`Clock`].
//! Tests and simulations put another one in its place.

#[cfg(feature = "server")]
mod until;

use crate::types::Timestamp;

#[cfg(feature = "server")]
pub(crate) use self::until::Until;

/// Tells the time. Must never go backwards.
pub(crate) trait Clock: Send + Sync + 'static {
    /// The moment that it is now, counted from an origin of the clock's own.
    fn now(&self) -> Timestamp;
}

/// Time since the machine started, time spent in suspend included where the system can tell.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BootClock;

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Clock for BootClock {
    fn now(&self) -> Timestamp {
        from_timespec(rustix::time::clock_gettime(rustix::time::ClockId::Boottime))
    }
}

/// On Apple's systems it is this clock that goes on in suspend; that of the standard library does not.
#[cfg(target_vendor = "apple")]
impl Clock for BootClock {
    fn now(&self) -> Timestamp {
        from_timespec(rustix::time::clock_gettime(rustix::time::ClockId::Monotonic))
    }
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn from_timespec(time: rustix::time::Timespec) -> Timestamp {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Timestamp::from_micros(seconds.saturating_mul(1_000_000).saturating_add(nanos / 1_000))
}

/// Elsewhere the standard library's clock has to do; on most systems it stands still in suspend.
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
impl Clock for BootClock {
    fn now(&self) -> Timestamp {
        use std::sync::LazyLock;
        use std::time::Instant;

        static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
        Timestamp::default().after(ORIGIN.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_does_not_go_backwards() {
        let mut last = BootClock.now();
        for _ in 0..1_000 {
            let now = BootClock.now();
            assert!(now >= last);
            last = now;
        }
    }
    /// The wall clock is decades ahead of it, and jumps.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_clock_tells_the_time_since_the_machine_started_and_not_the_time_of_day() {
        let uptime = || {
            let text = std::fs::read_to_string("/proc/uptime").unwrap();
            let seconds: f64 = text.split(' ').next().unwrap().parse().unwrap();
            std::time::Duration::from_secs_f64(seconds)
        };
        // It is written down in hundredths.
        let hundredth = std::time::Duration::from_millis(10);
        let (before, now, after) = (uptime(), BootClock.now(), uptime());
        assert!(now >= Timestamp::default().after(before), "{now:?}, {before:?}");
        assert!(now <= Timestamp::default().after(after + hundredth), "{now:?}, {after:?}");
    }
}
