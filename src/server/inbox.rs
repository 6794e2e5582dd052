//! The inbox: what sessions say to the Coordinator, beside its mailbox.
//!
//! ```text
//!   Session ──┐
//!   Session ──┼─▶ waiting: Connect, Submit, Submit, Disconnect …  ◀── taken as one ── Coordinator
//!   Session ──┘      └─ the first ──Waiting──▶ mailbox ───────────────────────────────▶
//! ```
//!
//! An actor's mailbox takes an envelope, a node and a wake-up for every message. Here the first arrival
//! sends one message to the mailbox, and whatever comes until that is handled goes with it, from whatever
//! thread. So all that the sockets had at a moment is one turn of the Coordinator.
//!
//! The order is the mailbox's: the word for an arrival is sent while nobody else can add one. Whatever is
//! sent to the mailbox after an arrival is handled behind it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::Recipient;

#[cfg(feature = "redis-api")]
use super::desk::dialect::SubmitRedis;
use super::desk::turn::Submit;
use super::messages::{Connect, Disconnect, Prove, Waiting};

/// What a session says to the Coordinator.
#[derive(Debug)]
pub(super) enum Arrival {
    /// Here I am.
    Connect(Connect),
    /// This is what proves who I am; it comes before my Hello.
    Prove(Prove),
    /// This is what one read brought.
    Submit(Submit),
    /// The connection ended without a Goodbye.
    Disconnect(Disconnect),
    /// Here I am, and speak the Redis dialect.
    #[cfg(feature = "redis-api")]
    ConnectRedis(Connect),
    /// This is what one read of the Redis dialect brought.
    #[cfg(feature = "redis-api")]
    Redis(Box<SubmitRedis>),
}

/// What has arrived and was not taken yet, in the order in which it came.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrivals(Arc<Mutex<Vec<Arrival>>>);

/// The way to the Coordinator, for sessions.
#[derive(Clone)]
pub(super) struct Inbox {
    /// Where arrivals wait.
    arrivals: Arrivals,
    /// The Coordinator, which is told that there are any.
    coordinator: Recipient<Waiting>,
}

impl Arrivals {
    /// Takes all, and leaves the memory of `taken`, which is empty, for those that come.
    pub(super) fn take(&self, taken: &mut Vec<Arrival>) {
        debug_assert!(taken.is_empty(), "what was taken before is lost");
        std::mem::swap(&mut *self.lock(), taken);
    }

    /// Puts back what was taken, before all that has come since. Nobody is told of it.
    pub(super) fn put_back(&self, taken: &mut Vec<Arrival>) {
        let mut waiting = self.lock();
        taken.append(&mut waiting);
        std::mem::swap(&mut *waiting, taken);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arrival>> {
        // Nobody panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox {
    /// The way to the Coordinator, which takes from these arrivals.
    pub(super) fn new(arrivals: Arrivals, coordinator: Recipient<Waiting>) -> Self {
        Self { arrivals, coordinator }
    }

    /// Puts something in.
    pub(super) fn put(&self, arrival: Arrival) {
        let mut arrivals = self.arrivals.lock();
        let is_first = arrivals.is_empty();
        arrivals.push(arrival);
        if is_first {
            // Before another can add one: its sender may have something sent to the mailbox at once.
            self.coordinator.do_send(Waiting);
        }
    }
}
