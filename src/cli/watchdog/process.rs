//! The watchdog in its own process: `coordinator __watch`.
//!
//! It reads orders from standard input until their deadline passes or they end, and then kills. If
//! they end, it then releases the lock that the dead held.
//! There is nobody to tell errors to; one that cannot see does nothing.

use std::env;
use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::stdio::stdin;

use super::release::release;
use super::{ORDER_LEN, Order, SERVER, shared_now};
use crate::cli::process::group::{is_dead, is_gone};
use crate::cli::process::inherited::close_inherited;
use crate::cli::settings::tls::servers_of_variables;

/// The word that makes a `coordinator` a watchdog. It is in no help and no completion: it is said
/// only by ourselves.
pub(crate) const WORD: &str = "__watch";

/// What killall(1) and pkill(1) know it by; at most 15 bytes.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NAME: &std::ffi::CStr = c"lock-watchdog";

/// How often to look whether a group that was asked to end has ended.
const GROUP_POLL: Duration = Duration::from_millis(20);
/// How many such looks there are between two close ones at what is still there. A close look is
/// dear where there are many processes.
const LOOKS_PER_CLOSE_ONE: u32 = 10;
/// Orders read at once.
const ORDERS_MAX: usize = 64;

/// Watches until there is nothing left to watch. `arguments` is the time from SIGTERM to SIGKILL in
/// milliseconds.
pub(crate) fn run(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let kill_after = arguments.next().and_then(|word| word.to_str()?.parse().ok());
    let Some(kill_after) = kill_after.map(Duration::from_millis) else {
        return ExitCode::from(crate::cli::text::errors::exit::USAGE);
    };
    close_inherited();
    hide();
    let _blind = watch(kill_after);
    ExitCode::SUCCESS
}

/// Gets out of the way of whatever is meant for the supervisor or the command.
fn hide() {
    // This is the only thread, so blocked here is blocked for the process.
    let _cannot_fail = SigSet::all().thread_block();
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _cosmetic = rustix::thread::set_name(NAME);
}

fn watch(kill_after: Duration) -> io::Result<()> {
    let alarm = Alarm::new()?;
    let mut order: Option<Order> = None;
    loop {
        if !alarm.wait_for_input(order.map(|order| order.dead_by))? {
            if let Some(order) = order
                && order.dead_by <= shared_now()
            {
                signal(order.group, Signal::KILL);
                return Ok(());
            }
            continue;
        }
        let mut bytes = [0; ORDER_LEN * ORDERS_MAX];
        let len = match rustix::io::read(stdin(), &mut bytes) {
            Ok(len) => len,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if len == 0 {
            break;
        }
        // The last one holds. Orders are written whole, and room for many is read at once.
        let (orders, _none) = bytes[..len].as_chunks();
        order = orders.last().and_then(Order::decode).or(order);
    }
    if let Some(order) = order
        && see_off(order, kill_after) == Group::Dead
        && let Some(server) = env::var(SERVER).ok()
    {
        release(order.key, &servers_of_variables(&server), order.dead_by);
    }
    Ok(())
}

/// What has become of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    /// Nothing of it does any more work.
    Dead,
    /// Something of it may.
    Living,
}

/// The supervisor is dead: asks the group to end, and tells it to when its time is up. Returns when it
/// is dead, or when the lease has ended.
fn see_off(order: Order, kill_after: Duration) -> Group {
    let mut kill_at = Some(order.dead_by.min(shared_now().saturating_add(kill_after)));
    signal(order.group, Signal::TERM);
    // A stopped command cannot act on SIGTERM; it has its time to do so.
    signal(order.group, Signal::CONT);
    for look in 0_u32.. {
        let is_close = look % LOOKS_PER_CLOSE_ONE == LOOKS_PER_CLOSE_ONE - 1;
        if is_gone(order.group) || (is_close && is_dead(order.group)) {
            return Group::Dead;
        }
        let now = shared_now();
        if kill_at.is_some_and(|at| at <= now) {
            signal(order.group, Signal::KILL);
            kill_at = None;
        } else if order.dead_by <= now {
            break;
        }
        let next = kill_at.map_or(GROUP_POLL, |at| at.saturating_sub(now).min(GROUP_POLL));
        thread::sleep(next);
    }
    Group::Living
}

/// One that has gone needs no signal.
fn signal(group: Pid, signal: Signal) {
    let _gone = kill_process_group(group, signal);
}

/// Waits for input or for a moment of the shared clock.
#[cfg(any(target_os = "linux", target_os = "android"))]
struct Alarm {
    /// Rings at the moment itself; the time-out of poll(2) would not count suspended time.
    timer: std::os::fd::OwnedFd,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Alarm {
    fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

        Ok(Self { timer: timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC)? })
    }

    /// Returns whether there is input, or its end; if not, it may be time.
    fn wait_for_input(&self, until: Option<Duration>) -> io::Result<bool> {
        use std::os::fd::AsFd;

        use rustix::time::{Itimerspec, TimerfdTimerFlags, timerfd_settime};

        if let Some(until) = until {
            let it_value = timespec(until.max(Duration::from_nanos(1)));
            let once = Itimerspec { it_interval: timespec(Duration::ZERO), it_value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        }
        let stdin = stdin();
        let timer = self.timer.as_fd();
        wait(&mut [&stdin, &timer].map(|fd| PollFd::new(fd, PollFlags::IN)), None)
    }
}

/// Waits for input or for a moment of the shared clock.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
struct Alarm;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Alarm {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// Returns whether there is input, or its end; if not, it may be time.
    fn wait_for_input(&self, until: Option<Duration>) -> io::Result<bool> {
        /// Time spent in suspend may not count here, so look again now and then.
        const LOOK: Duration = Duration::from_secs(1);

        let left = until.map(|until| timespec(until.saturating_sub(shared_now()).min(LOOK)));
        wait(&mut [PollFd::new(&stdin(), PollFlags::IN)], left.as_ref())
    }
}

/// Whether the first of `sources` has something, once any has or the time is up.
fn wait(sources: &mut [PollFd<'_>], longest: Option<&Timespec>) -> io::Result<bool> {
    match poll(sources, longest) {
        Ok(_) => Ok(sources.first().is_some_and(|input| !input.revents().is_empty())),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn timespec(length: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: length.subsec_nanos().into(),
    }
}
