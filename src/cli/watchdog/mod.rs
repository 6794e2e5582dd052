//! The watchdog: a second process that stops the command when this one cannot.
//!
//! `supervise` stops a command in time as long as it runs. It does not run while it is stopped
//! (SIGSTOP, a debugger, Ctrl-Z), and after `kill -9` never again. The lease ends all the same, and
//! the command would work on under another's lock. So the *deadline* of the command lies with a
//! process of its own, and the supervisor only moves it:
//!
//! ```text
//! coordinator lock ──pipe──▶ watchdog         the supervisor says, again and again:
//!        │                      │             "this group, dead by then"
//!        └──▶ command's group ◀─┘
//!
//! then is there, no news        SIGKILL       the supervisor stands still
//! the pipe ends                 SIGTERM,      the supervisor is dead; SIGKILL after --kill-after,
//!                               SIGCONT       and never later than the deadline
//! the group is dead after that  Goodbye       others need not wait for the lease to end
//! killed by the supervisor      nothing       the command has ended
//! ```
//!
//! An order repeats everything and replaces the one before (idempotent). None can be missed or half
//! read: its few bytes go into the pipe as a whole or not at all. The deadline is a moment of a
//! clock that both processes share and that counts suspended time. It is the `valid_until` of
//! `plan`, before which nobody else is granted the lock. Orders come eight times per ttl, so that a
//! supervisor that stands still for a while loses its command no earlier than its lock.
//!
//! It survives the usual ends of the supervisor:
//!
//! - It has a group of its own, to which neither the terminal nor a shell sends signals.
//! - It blocks every signal that can be blocked, so a service manager that ends everybody does not
//!   end it before the command.
//! - It has another name in the process table, so `killall -9 coordinator` leaves it to do its
//!   work.
//! - It uses no output, so nobody waits for it to close one.
//!
//! **Whom it kills.** The id of a group cannot be given to others while the group has a member. The
//! leader is one until somebody reaps it. While the supervisor lives only it can reap, and it ends
//! the watchdog before it does: `Watchdog::dismiss` returns when the process has gone. That is why
//! it is killed rather than asked: SIGKILL needs no cooperation, also of one that was stopped. When
//! the supervisor is dead, the watchdog acts at once. It looks every few milliseconds whether the
//! group has a member left, and never acts again once it had none. Ids are given out in turn, so
//! for an error all of them would have to be used up between two looks.
//!
//! **Whom it speaks for.** An order also has the key to the supervisor's session. With that a dead
//! supervisor's session is ended, which releases its lock, but never before all of the group is dead
//! (`group`). If the coordinator cannot be told, the lease ends by itself, as it always did (`release`).
//! A supervisor that stands still is not spoken for: it lives. The key goes through the pipe, since
//! arguments are for everybody to see.
//!
//! **Why not `PR_SET_PDEATHSIG`.** It reaches only the direct child, and is lost when that runs a
//! setuid program. It knows no second signal and no stopped parent, and is Linux's alone. Without
//! unsafe code it needs one more program start between us and the command, on the way of every
//! lock. It would close one gap: the supervisor can be killed in the fraction of a millisecond
//! between the command's start and the first order. Then the command goes on. So it does if the
//! watchdog is killed as well.
//!
//! With `--on-lost warn` the command may outlive its lock, so there is no watchdog.

mod process;
mod release;

use std::io::{self, PipeWriter, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use coordinator::SessionKey;
use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};

use crate::cli::process::again::our_program;
use crate::cli::settings::Settings;
pub(crate) use process::{WORD, run};

/// A clock that is the same in all processes, goes on in suspend, and is not set.
#[cfg(any(target_os = "linux", target_os = "android"))]
const SHARED_CLOCK: ClockId = ClockId::Boottime;
/// Elsewhere the nearest thing to it, which may stand still in suspend.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SHARED_CLOCK: ClockId = ClockId::Monotonic;

/// What the shared clock shows.
fn shared_now() -> Duration {
    let time = clock_gettime(SHARED_CLOCK);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Bytes of an order in the pipe: the group, the deadline in microseconds, the key. As few as a pipe
/// takes whole.
const ORDER_LEN: usize = 16 + SessionKey::LEN;

/// The variable that tells the watchdog where the coordinator is. Only our own user can see it.
const SERVER: &str = "COORDINATOR_SERVER";

/// Whom to kill, and when; and what to release afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Order {
    /// The command's process group.
    group: Pid,
    /// When it must be dead, by the shared clock.
    dead_by: Duration,
    /// The session that holds the lock.
    key: SessionKey,
}

impl Order {
    fn encode(self) -> [u8; ORDER_LEN] {
        let group = i64::from(self.group.as_raw_nonzero().get());
        let dead_by = u64::try_from(self.dead_by.as_micros()).unwrap_or(u64::MAX);
        let mut bytes = [0; ORDER_LEN];
        let (first, key) = bytes.split_at_mut(16);
        let (first, second) = first.split_at_mut(8);
        first.copy_from_slice(&group.to_le_bytes());
        second.copy_from_slice(&dead_by.to_le_bytes());
        key.copy_from_slice(&self.key.to_bytes());
        bytes
    }

    /// None if nobody sane wrote this: a group has an id above 1, which is that of all processes.
    fn decode(bytes: &[u8; ORDER_LEN]) -> Option<Self> {
        let (group, rest) = bytes.split_first_chunk()?;
        let (dead_by, key) = rest.split_first_chunk()?;
        let group = i32::try_from(i64::from_le_bytes(*group)).ok().filter(|id| *id > 1)?;
        let dead_by = Duration::from_micros(u64::from_le_bytes(*dead_by));
        let key = SessionKey::from_bytes(key.try_into().ok()?)?;
        Some(Self { group: Pid::from_raw(group)?, dead_by, key })
    }
}

/// The watchdog as its supervisor sees it.
///
/// Dropped before it was given a command, it goes. Dropped later, it finds the pipe at its end and
/// stops the command: whoever gives up supervising does not leave a command behind.
pub(crate) struct Watchdog {
    /// Its process, ours to reap.
    process: Child,
    /// Where it gets its orders. Never blocks: one that was stopped must not stop us.
    orders: PipeWriter,
    /// Whom it watches, once there is a command.
    group: Option<Pid>,
    /// The deadline it knows of, by the shared clock.
    dead_by: Duration,
}

impl Watchdog {
    /// Starts one that has nothing to watch yet. `kill_after` is the time from SIGTERM to SIGKILL,
    /// `settings` say where the coordinator is, and how to trust it; none: the session of the dead is left
    /// to its lease.
    pub(crate) fn start(kill_after: Duration, settings: Option<&Settings>) -> io::Result<Self> {
        let (theirs, orders) = io::pipe()?;
        rustix::io::ioctl_fionbio(&orders, true)?;
        let mut command = our_program()?;
        command.arg(WORD).arg(kill_after.as_millis().to_string());
        match settings {
            Some(settings) => {
                command.env(SERVER, &settings.server.0);
                settings.tell_tls(&mut command);
            }
            None => {
                command.env_remove(SERVER);
            }
        }
        // It must keep no file system busy, no output open, and be out of reach from the first.
        command.current_dir("/").stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.process_group(0).spawn()?;
        Ok(Self { process, orders, group: None, dead_by: Duration::MAX })
    }

    /// Gives it a command that is to be dead at `dead_by`, and the session that holds its lock.
    pub(crate) fn watch(&mut self, group: Pid, dead_by: Instant, key: SessionKey) {
        self.group = Some(group);
        self.move_deadline(dead_by, key);
    }

    /// Moves the deadline of the command it has; the session may have another key by now.
    pub(crate) fn move_deadline(&mut self, dead_by: Instant, key: SessionKey) {
        let Some(group) = self.group else { return };
        // The shared clock is read first: a pause between the two makes the deadline early, not late.
        let now = shared_now();
        let dead_by = now + dead_by.saturating_duration_since(Instant::now());
        // If the pipe is full, or nobody reads any more, the earlier deadline stays the one it has.
        if self.orders.write_all(&Order { group, dead_by, key }.encode()).is_ok() {
            self.dead_by = dead_by;
        }
    }

    /// Reaps it if it is `child`, which has ended. It is never signalled again then.
    pub(crate) fn reap(&mut self, child: Pid) -> bool {
        Pid::from_child(&self.process) == child && self.process.try_wait().is_ok()
    }

    /// Whether its deadline has passed, at which it kills.
    pub(crate) fn is_due(&self) -> bool {
        shared_now() >= self.dead_by
    }

    /// Ends it. When this returns it has gone, and the command may be reaped.
    pub(crate) fn dismiss(mut self) {
        self.group = None;
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if self.group.is_none() {
            // It may have gone before; nothing else can fail with a child of ours.
            let _gone = self.process.kill().and_then(|()| self.process.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_arrives_as_it_was_given() {
        let mut key = [0; SessionKey::LEN];
        key[SessionKey::LEN - 3] = 0x27;
        let order = Order {
            group: Pid::from_raw(4_194_303).unwrap(),
            dead_by: Duration::from_micros(987_654_321_012),
            key: SessionKey::from_bytes(&key).unwrap(),
        };
        assert_eq!(Order::decode(&order.encode()), Some(order));
    }

    #[test]
    fn nonsense_is_nobodys_death() {
        for group in [0_i64, 1, -1, -4711, i64::from(i32::MAX) + 1, i64::MIN] {
            let mut bytes = [0xff; ORDER_LEN];
            bytes[..8].copy_from_slice(&group.to_le_bytes());
            assert_eq!(Order::decode(&bytes), None, "{group}");
        }
    }

    #[test]
    fn the_shared_clock_runs_forward() {
        let before = shared_now();
        assert!(shared_now() >= before);
        assert!(before > Duration::ZERO);
    }
}
