//! What a supervisor is told that started us as a service of `Type=notify`: ready, how things are,
//! alive, reading settings again, stopping. See `sd_notify(3)`: datagrams to the socket that
//! `NOTIFY_SOCKET` names.
//!
//! The one idea: *a sign of life is the Coordinator's own*. A beat asks the Coordinator how things are,
//! behind everything else in its mailbox, and only its answer is told (`WATCHDOG=1`). A process that
//! runs but decides nothing gives no sign, and is started anew.
//!
//! Nothing here waits for the supervisor, and nobody waits for what is here.

use std::env;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use coordinator::server::{Figures, Looker};
use rustix::time::{ClockId, clock_gettime};

const SOCKET: &str = "NOTIFY_SOCKET";
/// How long systemd waits for a sign of life, in microseconds, and from which process.
const WATCHDOG: [&str; 2] = ["WATCHDOG_USEC", "WATCHDOG_PID"];
/// Between two beats, where nobody wants signs of life more often.
const BEAT: Duration = Duration::from_secs(10);
/// Beats within the time that a supervisor waits for a sign: one may be late.
const BEATS_PER_WATCHDOG: u32 = 3;
/// As often as this at most, whatever the supervisor wants.
const BEAT_MIN: Duration = Duration::from_millis(10);

/// Tells it, if somebody wants to know. Whoever does not listen is told to the log, and no more: that
/// is no reason not to serve.
pub(crate) fn tell(state: &str) {
    let Some(name) = env::var_os(SOCKET).filter(|name| !name.is_empty()) else { return };
    if let Err(error) = send(name.as_bytes(), state) {
        log::warn!("cannot notify {} ({SOCKET}) of {state:?}: {error}", name.display());
    }
}

/// That settings are read again, from this moment on. What began before it is not meant.
pub(crate) fn reloading() {
    let now = clock_gettime(ClockId::Monotonic);
    let us = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={us}\nSTATUS=reading the settings again"));
}

/// That it is ready, or ready again.
pub(crate) fn ready() {
    tell("READY=1\nSTATUS=ready");
}

/// That it stops, and how.
pub(crate) fn stopping(how: &str) {
    tell(&format!("STOPPING=1\nSTATUS={how}"));
}

/// Tells how things are again and again, until there is no Coordinator any more.
pub(crate) async fn beat(looker: Looker) {
    if env::var_os(SOCKET).is_none_or(|name| name.is_empty()) {
        return;
    }
    let [wanted, pid] = WATCHDOG.map(|name| env::var(name).ok());
    let watchdog = watchdog(wanted.as_deref(), pid.as_deref(), std::process::id());
    let ask = async || {
        if let Some(role) = looker.role().filter(|role| !role.leads) {
            looker.pulse().await?;
            return Some(match role.leader.as_str() {
                "" => format!("standing by; nobody leads {}", role.cluster),
                leader => format!("standing by; {leader} leads {}", role.cluster),
            });
        }
        let figures = looker.figures().await?;
        Some(status(&figures, looker.counted().unsaved))
    };
    heart(watchdog, ask, |state| tell(&state)).await;
}

/// How long the supervisor waits for a sign of life of this process; none: it does not.
fn watchdog(wanted: Option<&str>, pid: Option<&str>, ours: u32) -> Option<Duration> {
    // Another's, whose child we are.
    if pid.is_some_and(|pid| pid.trim().parse() != Ok(ours)) {
        return None;
    }
    let us: u64 = wanted?.trim().parse().ok()?;
    (us > 0).then(|| Duration::from_micros(us))
}

/// Beats: `ask` gives a line once the Coordinator has answered, and none when there is none any more.
async fn heart(
    watchdog: Option<Duration>,
    mut ask: impl AsyncFnMut() -> Option<String>,
    mut tell: impl FnMut(String),
) {
    let often = watchdog.map_or(BEAT, |within| (within / BEATS_PER_WATCHDOG).min(BEAT));
    let sign = if watchdog.is_some() { "WATCHDOG=1\n" } else { "" };
    while let Some(status) = ask().await {
        tell(format!("{sign}STATUS={status}"));
        tokio::time::sleep(often.max(BEAT_MIN)).await;
    }
}

/// How things are, in one line: what an operator has to know first comes first.
fn status(figures: &Figures, unsaved: Duration) -> String {
    let counts = &figures.counts;
    let alarm = if counts.draining {
        "stopping; ".to_owned()
    } else if !unsaved.is_zero() {
        format!("the state cannot be saved for {} s; ", unsaved.as_secs())
    } else if !figures.grace.is_zero() {
        let left = figures.grace.as_secs_f64();
        format!("grace period, {left:.0} s left: only former holders are granted; ")
    } else {
        String::new()
    };
    let (sessions, held, waiting) = (counts.sessions, counts.held, counts.waiting);
    format!("{alarm}sessions {sessions}, requests holding {held}, waiting {waiting}")
}

fn send(name: &[u8], state: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    // Its buffer may be full, and nobody waits for it here.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address(name)?).map(drop)
}

/// A path, or a name of Linux's that begins with `@` and is in no directory.
fn address(name: &[u8]) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = name.strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::time::{Instant, timeout};

    use super::*;

    const WITHIN: Duration = Duration::from_secs(9);

    #[test]
    fn a_watchdog_of_another_process_or_of_none_is_not_ours() {
        assert_eq!(watchdog(Some("9000000"), Some("7"), 7), Some(WITHIN));
        assert_eq!(watchdog(Some("9000000"), None, 7), Some(WITHIN));
        assert_eq!(watchdog(Some("9000000"), Some("8"), 7), None);
        assert_eq!(watchdog(Some("0"), Some("7"), 7), None);
        assert_eq!(watchdog(Some("soon"), Some("7"), 7), None);
        assert_eq!(watchdog(None, Some("7"), 7), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_of_life_is_given_three_times_as_often_as_it_is_waited_for() {
        let (began, told) = (Instant::now(), RefCell::new(Vec::new()));
        let tell = |state| told.borrow_mut().push((began.elapsed().as_secs(), state));
        let heart = heart(Some(WITHIN), async || Some("well".to_owned()), tell);
        let _still_beating = timeout(Duration::from_secs(7), heart).await.unwrap_err();
        let beat = |second| (second, "WATCHDOG=1\nSTATUS=well".to_owned());
        assert_eq!(*told.borrow(), [beat(0), beat(3), beat(6)]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_sign_of_life_is_given_while_the_coordinator_does_not_answer() {
        let (beats, told) = (Cell::new(0), Cell::new(0));
        let ask = async || {
            beats.set(beats.get() + 1);
            // It decides nothing any more, and others on this thread go on.
            if beats.get() > 2 {
                std::future::pending::<()>().await;
            }
            Some("well".to_owned())
        };
        let heart = heart(Some(WITHIN), ask, |_| told.set(told.get() + 1));
        let _still_asking = timeout(WITHIN * 100, heart).await.unwrap_err();
        assert_eq!((beats.get(), told.get()), (3, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_watchdog_the_status_is_told_and_it_ends_with_the_coordinator() {
        let (mut told, mut left) = (Vec::new(), 2);
        let ask = async || {
            left -= 1;
            (left > 0).then(|| "well".to_owned())
        };
        heart(None, ask, |state| told.push(state)).await;
        assert_eq!(told, ["STATUS=well"]);
    }
}
