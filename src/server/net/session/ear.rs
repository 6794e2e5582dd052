//! The ear: what a client says, heard without its actor.
//!
//! ```text
//!            ┌ task ──────────────────────────────────┐
//!   socket ──│─▶ ear ──── what is only to be brought ─│─Submit─▶ Coordinator
//!            │    │                                   │
//!            │    └─ all else ─▶ actor ◀─── bell ─────│◀── mailbox, timers, room in the socket
//!            └────────────────────────────────────────┘
//! ```
//!
//! An actor that is polled looks into its mailbox twice, at what it has spawned, and at its own state. In the
//! closed loop that was as dear as all else a session does. Most of what a client says asks nothing of the
//! session but to be brought to the Coordinator. So the task of a session polls the actor only when there
//! is a reason to: the *bell* has rung, or something was heard that is not for the ear.
//!
//! The socket wakes the task when there is something to read, and everything else wakes it by the bell. What
//! the ear does not handle, the actor reads in the same poll, as if nobody had listened.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context as Task, Poll, Wake, Waker};

use actix::dev::ContextFut;
use actix::{Addr, Context};

use super::super::socket::Socket;
use super::io::{Ear, Heard, Reading, Transport};
use super::{SUBMITS_MAX, Session, Shared};
use crate::server::desk::turn::{Submit, Window};
use crate::server::inbox::Arrival;
use crate::server::ledger::Account;
use crate::types::ConnectionId;
use crate::wire::ClientMessage;

/// Whether the actor has to see to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attention {
    /// It need not: whatever could be read is on its way to the Coordinator.
    Spared,
    /// It has to.
    Needed,
}

/// A session's task: its actor, and what hears for it.
struct Attended<S: Socket> {
    /// The actor, with its mailbox.
    actor: ContextFut<Session<S>, Context<Session<S>>>,
    /// What it reads and writes.
    transport: Rc<RefCell<Transport<S>>>,
    /// Whether there is a reason to poll the actor.
    bell: Arc<Bell>,
    /// Rings it: what the actor is polled with.
    ringer: Waker,
}

/// Says that an actor has something to do, and wakes its task.
#[derive(Debug)]
struct Bell {
    /// Whether it has rung since the actor was polled.
    has_rung: AtomicBool,
    /// The task; set before anybody has the bell.
    task: OnceLock<Waker>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, Ordering::Release);
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }
}

impl<S: Socket> Session<S> {
    /// Starts it on this thread, in a task of its own.
    pub(in crate::server) fn begin(self) -> Addr<Self> {
        let transport = Rc::clone(&self.transport);
        let actor = Context::new().into_future(self);
        let address = actor.address();
        let bell = Arc::new(Bell { has_rung: AtomicBool::new(true), task: OnceLock::new() });
        let ringer = Waker::from(Arc::clone(&bell));
        actix::spawn(Attended { actor, transport, bell, ringer });
        address
    }
}

impl<S: Socket> Future for Attended<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.bell.task.get().is_none() {
            // A task is woken in the same way as long as it lives.
            let _ = this.bell.task.set(task.waker().clone());
            this.transport.borrow_mut().reader = Some(task.waker().clone());
        }
        let has_rung = this.bell.has_rung.load(Ordering::Relaxed)
            && this.bell.has_rung.swap(false, Ordering::Acquire);
        if !has_rung && this.transport.borrow_mut().listen(task) == Attention::Spared {
            return Poll::Pending;
        }
        Pin::new(&mut this.actor).poll(&mut Task::from_waker(&this.ringer))
    }
}

impl<S: Socket> Transport<S> {
    /// Reads, and brings to the Coordinator what asks nothing else of the session. What does is kept for the
    /// actor.
    pub(super) fn listen(&mut self, task: &mut Task<'_>) -> Attention {
        // With something to write it may have been woken for that.
        let is_at_rest = self.is_open && self.outbox.is_written();
        if !is_at_rest || self.reading != Reading::Messages || self.ear.is_none() {
            return Attention::Needed;
        }
        while let Poll::Ready(heard) = self.poll_read(task) {
            match (heard, &self.ear) {
                (Some(Ok(messages)), Some(ear)) if messages.iter().all(is_only_brought) => {
                    let Ear { connection, shared } = ear;
                    let window = submit(shared, *connection, &self.account, messages, Window::Open);
                    if window == Window::Shut {
                        self.reading = Reading::Paused;
                    }
                }
                (heard, _) => return self.leave_to_actor(heard),
            }
            if self.poll_more(task).is_pending() {
                break;
            }
        }
        self.settle();
        Attention::Spared
    }

    #[cold]
    fn leave_to_actor(&mut self, heard: Option<Heard>) -> Attention {
        self.heard = Poll::Ready(heard);
        Attention::Needed
    }
}

/// Whether a message of an open session asks nothing of that but to be brought to the Coordinator.
fn is_only_brought(message: &ClientMessage) -> bool {
    match message {
        ClientMessage::Request(_)
        | ClientMessage::RequestWith { .. }
        | ClientMessage::Release { .. }
        | ClientMessage::Cancel { .. }
        | ClientMessage::KeepAlive { .. }
        | ClientMessage::Goodbye
        | ClientMessage::Inspect { .. }
        | ClientMessage::Revoke { .. }
        | ClientMessage::RevokeFor { .. }
        | ClientMessage::Reclaim(_)
        | ClientMessage::ReclaimWith { .. }
        | ClientMessage::Account(_)
        | ClientMessage::Unwatch { .. } => true,
        // A mistake, or the beginning of looking on.
        ClientMessage::Hello(_)
        | ClientMessage::Authenticate { .. }
        | ClientMessage::Watch { .. }
        | ClientMessage::Subscribe { .. } => false,
    }
}

/// Brings what one read has brought to the Coordinator. Says whether to read on meanwhile: not with enough on
/// the way.
pub(super) fn submit(
    shared: &Shared,
    connection: ConnectionId,
    account: &Account,
    messages: Vec<ClientMessage>,
    mut window: Window,
) -> Window {
    let unheard = account.submit(ClientMessage::bytes_of(&messages));
    let is_much = account.unheard_reads() >= SUBMITS_MAX;
    if is_much || !shared.counters.ledger.may_read_on() {
        window = Window::Shut;
    }
    shared.inbox.put(Arrival::Submit(Submit { connection, messages, window, unheard }));
    window
}
