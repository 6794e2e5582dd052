//! The state that handles and driver share, and the channels between them.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::types::{FencingToken, LostReason, OwnerId, RequestId, Timestamp};
use crate::wire::ServerMessage;

use super::core::{Ask, Look, Rejection, Welcome};
use super::error::{Error, closed_by};
use super::lease::{Belief, LeaseCell};
use super::process::{Own, Process};
use super::session_event::SessionEvent;
use super::within::within;

/// Commands that may wait for the driver; who has one more waits.
pub(super) const COMMANDS_MAX: usize = 256;

/// The driver, as its handles see it. It says goodbye when the last of them is gone.
pub(super) struct Shared {
    /// Commands that may wait for the driver to have time.
    pub(super) commands: Own<mpsc::Sender<Command>>,
    /// What may not wait, for it comes from destructors. Each request sends two at most, each look that
    /// lasts one, so there are never more in it than twice those alive.
    pub(super) endings: Own<mpsc::UnboundedSender<Ending>>,
    /// Until when the session is believed in.
    pub(super) lease: Arc<LeaseCell>,
    /// The clock by which.
    pub(super) clock: Arc<dyn Clock>,
    /// Name of the server.
    pub(super) server: Arc<str>,
    /// Welcome of the latest session, once there is one.
    pub(super) welcome: Own<watch::Receiver<Option<Welcome>>>,
    /// Why the client is at its end. Set before the driver ends.
    pub(super) end: Arc<OnceLock<Error>>,
    /// Where it is told what becomes of the session, while there is a driver.
    pub(super) session_events: broadcast::WeakSender<SessionEvent>,
    /// How long the answer to a look may take.
    pub(super) answer_max: Duration,
    /// How many owners there were. Their numbers begin with 1.
    pub(super) owners: AtomicU64,
    /// The process that made it.
    pub(super) process: Process,
}

impl Shared {
    /// Why the driver is gone.
    pub(super) fn end(&self) -> Error {
        if self.process.is_another() {
            return Error::Forked;
        }
        let unknown = || Error::unavailable(&self.server, closed_by(None));
        self.end.get().cloned().unwrap_or_else(unknown)
    }

    /// Nothing is asked by another process than the one that connected.
    pub(super) fn check_process(&self) -> Result<(), Error> {
        if self.process.is_another() { Err(Error::Forked) } else { Ok(()) }
    }

    /// Tells the driver, which is in the process that connected, of an end. If there is no driver any
    /// more, there is nothing to end.
    pub(super) fn end_request(&self, ending: Ending) {
        if !self.process.is_another() {
            let _ = self.endings.send(ending);
        }
    }

    /// A new owner, used by nobody else in this client.
    pub(super) fn next_owner(&self) -> OwnerId {
        OwnerId::new(self.owners.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Looks once.
    pub(super) async fn look(&self, look: Look) -> Result<ServerMessage, Error> {
        let (answer, answered) = oneshot::channel();
        self.begin_look(NewLook::Once { look, answer }, answered).await?
    }

    /// Has the driver begin a look; gives what it answers with.
    pub(super) async fn begin_look<T>(
        &self,
        new: NewLook,
        begun: oneshot::Receiver<T>,
    ) -> Result<T, Error> {
        self.check_process()?;
        within(self.answer_max, &self.server, async {
            let sent = self.commands.send(Command::Look(Box::new(new))).await;
            sent.map_err(|_| self.end())?;
            begun.await.map_err(|_| self.end())
        })
        .await
    }

    /// The server does not follow the protocol.
    pub(super) fn broken(&self, how: impl Into<String>) -> Error {
        Error::Protocol { server: Arc::clone(&self.server), message: how.into() }
    }

    /// The server answers with `message`, which is no answer to what was asked.
    pub(super) fn out_of_place(&self, message: &ServerMessage) -> Error {
        self.broken(format!("an unexpected {}", message.name()))
    }

    /// The moment that it is now.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("server", &self.server)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// What a handle asks of the driver.
#[derive(Debug)]
pub(super) enum Command {
    /// Ask for locks.
    Request(Box<NewRequest>),
    /// See something.
    Look(Box<NewLook>),
    /// Say goodbye; answered when the server has heard it.
    Close(oneshot::Sender<Result<(), Error>>),
}

/// A request on its way to the driver.
#[derive(Debug)]
pub(super) struct NewRequest {
    /// The request.
    pub(super) ask: Arc<Ask>,
    /// Where its id goes.
    pub(super) asked: Arc<Asked>,
    /// The hold that its holder will see, or sees already, if it converts what is held.
    pub(super) hold: Arc<Hold>,
    /// Where the answer goes.
    pub(super) answer: oneshot::Sender<Result<(), Failure>>,
    /// Where its place in line goes, if anybody wants to know; 0 is none yet.
    pub(super) positions: Option<watch::Sender<u64>>,
}

/// News that wait for one who listens; of more, the oldest leave.
pub(super) const NEWS_MAX: usize = 1_024;

/// What became of a session waits for one who wants to know; of more events, the oldest leave.
pub(super) const SESSION_EVENTS_MAX: usize = 256;

/// What a handle wants to see.
#[derive(Debug)]
pub(super) enum NewLook {
    /// Something, once.
    Once {
        /// What.
        look: Look,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<ServerMessage, Error>>,
    },
    /// A lock, now and whenever its holders change.
    Watch {
        /// The lock.
        name: String,
        /// Where the number of the look goes, and where to see it; nothing before the first answer.
        seen: oneshot::Sender<(u64, watch::Receiver<Option<News>>)>,
    },
    /// What happens to requests.
    Listen {
        /// Only to those that claim this lock; none: to all.
        name: Option<String>,
        /// Where the number of the look goes, and where to hear it.
        heard: oneshot::Sender<(u64, broadcast::Receiver<News>)>,
    },
}

/// What is told to one who watches or listens.
#[derive(Clone, Debug)]
pub(super) enum News {
    /// What the server says.
    Seen(Box<ServerMessage>),
    /// For want of a connection, what happens is missed until there is one.
    Interrupted(Error),
    /// There is nothing more, and why.
    Over(Error),
}

/// The interest in what a look lasts to show; it ends when this is dropped, after that by which it is
/// seen.
#[derive(Debug)]
pub(super) struct Interest {
    /// The look.
    pub(super) look: u64,
    /// The connection. Who looks keeps it open, whatever becomes of the client.
    pub(super) shared: Arc<Shared>,
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.shared.end_request(Ending::LookAway(self.look));
    }
}

/// The end of a request by its owner's will.
#[derive(Debug)]
pub(super) enum Ending {
    /// One of those who looked does so no more.
    LookAway(u64),
    /// Nobody waits for the request any more.
    Cancel(RequestId),
    /// What the request holds is given back.
    Release {
        /// The request.
        request: RequestId,
        /// Where the answer goes, if anybody waits for it.
        answer: Option<oneshot::Sender<Result<(), Failure>>>,
    },
}

/// Why a request or a release failed, before the names of the locks are added.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server said no.
    Rejected(Rejection),
    /// The lock was lost.
    Lost(LostReason),
    /// The session is over.
    Ended(Error),
}

impl Failure {
    /// The error, if it is not about a lock that was held.
    pub(super) fn without_lock(self) -> Error {
        match self {
            Self::Rejected(rejection) => Error::rejected(rejection),
            Self::Lost(_) => Error::Closed,
            Self::Ended(error) => error,
        }
    }
}

/// [`Asked::request`] of a request that the driver has not seen yet.
const REQUEST_UNSEEN: u64 = 0;
/// [`Asked::request`] of a request that was given up before the driver saw it.
const REQUEST_ABANDONED: u64 = u64::MAX;

/// [`Hold::doubted_until`] while nothing but the lease limits belief.
const UNDOUBTED: u64 = 0;

/// [`Hold::outcome`] while there is none.
const OUTCOME_NONE: u32 = 0;
/// [`Hold::outcome`] of what was given back.
const OUTCOME_RELEASED: u32 = 1;
/// [`Hold::outcome`] of what was lost is this much more than the reason's number.
const OUTCOME_LOST: u32 = 2;

/// The id of a request that is made. The first to come, the driver with the id or the owner giving
/// up, decides whether anything is sent at all.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The id, or [`REQUEST_UNSEEN`], or [`REQUEST_ABANDONED`].
    request: AtomicU64,
}

impl Asked {
    /// Gives the request its id, unless its owner has given it up: then false.
    pub(super) fn begin(&self, request: RequestId) -> bool {
        let (acquire, release) = (Ordering::Acquire, Ordering::AcqRel);
        let number = request.number();
        self.request.compare_exchange(REQUEST_UNSEEN, number, release, acquire).is_ok()
    }

    /// Whether its owner has given it up before it got an id.
    pub(super) fn is_abandoned(&self) -> bool {
        self.request.load(Ordering::Acquire) == REQUEST_ABANDONED
    }

    /// Gives the request up. If it has got its id already, that must be cancelled.
    pub(super) fn abandon(&self) -> Option<RequestId> {
        match self.request.swap(REQUEST_ABANDONED, Ordering::AcqRel) {
            REQUEST_UNSEEN | REQUEST_ABANDONED => None,
            number => Some(RequestId::new(number)),
        }
    }

    /// The id; 0 if there is none yet.
    pub(super) fn id(&self) -> RequestId {
        RequestId::new(self.request.load(Ordering::Acquire))
    }
}

/// A hold, as its holder and the driver both see it, without asking each other. It lasts from the
/// grant to the release, whatever it is converted to.
#[derive(Debug)]
pub(super) struct Hold {
    /// The token of its latest grant; 0 before the first.
    token: AtomicU64,
    /// How it ended. Written once.
    outcome: AtomicU32,
    /// Until when it is believed in at the latest, in microseconds: the server has restarted and has
    /// not confirmed it yet. [`UNDOUBTED`] otherwise.
    doubted_until: AtomicU64,
    /// Wakes who waits for the loss.
    lost: Notify,
    /// The process that made it.
    process: Process,
}

impl Hold {
    /// What a request of this process is to hold.
    pub(super) fn new(process: Process) -> Self {
        Self {
            token: AtomicU64::default(),
            outcome: AtomicU32::new(OUTCOME_NONE),
            doubted_until: AtomicU64::new(UNDOUBTED),
            lost: Notify::new(),
            process,
        }
    }

    /// It is held by this grant now.
    pub(super) fn granted(&self, token: FencingToken) {
        self.token.store(token.number(), Ordering::Release);
    }

    /// The token of the grant by which it is held.
    pub(super) fn token(&self) -> FencingToken {
        FencingToken::new(self.token.load(Ordering::Acquire))
    }

    /// Takes note of the loss, unless it ended before.
    pub(super) fn lose(&self, reason: LostReason) {
        if self.settle(OUTCOME_LOST + u32::from(reason.number())) {
            self.lost.notify_waiters();
        }
    }

    /// Takes note that it is given back, unless it ended before: says whether it is.
    pub(super) fn give_back(&self) -> bool {
        self.settle(OUTCOME_RELEASED)
    }

    /// It is believed in until then at the latest.
    pub(super) fn doubt(&self, until: Timestamp) {
        self.doubted_until.store(until.as_micros().max(UNDOUBTED + 1), Ordering::Release);
    }

    /// It is believed in as long as the lease is.
    pub(super) fn confirm(&self) {
        self.doubted_until.store(UNDOUBTED, Ordering::Release);
    }

    /// Until when it is believed in, should the lease be longer.
    pub(super) fn doubted_until(&self) -> Option<Timestamp> {
        match self.doubted_until.load(Ordering::Acquire) {
            UNDOUBTED => None,
            until => Some(Timestamp::from_micros(until)),
        }
    }

    /// How sure its owner may be, now, if it has not ended.
    pub(super) fn standing(&self, shared: &Shared) -> Belief {
        let now = shared.now();
        // The lease first: who sees it longer sees what was said about this before that.
        let lease = shared.lease.standing(now);
        match self.doubted_until() {
            Some(until) => lease.max(shared.lease.standing_until(until, now)),
            None => lease,
        }
    }

    fn settle(&self, outcome: u32) -> bool {
        let (acquire, release) = (Ordering::Acquire, Ordering::AcqRel);
        self.outcome.compare_exchange(OUTCOME_NONE, outcome, release, acquire).is_ok()
    }

    /// Why it was lost, if it was.
    pub(super) fn lost_reason(&self) -> Option<LostReason> {
        if self.process.is_another() {
            // In this copy only, and nobody is woken: whoever waited does so in the other process.
            self.settle(OUTCOME_LOST + u32::from(LostReason::Forked.number()));
        }
        let number = self.outcome.load(Ordering::Acquire).checked_sub(OUTCOME_LOST)?;
        Some(LostReason::from_number(u16::try_from(number).unwrap_or(u16::MAX)))
    }

    /// Whether it neither ended nor is past the lease. What is past the lease ends here, so that
    /// nobody who asks later hears otherwise.
    pub(super) fn is_alive(&self, shared: &Shared) -> bool {
        if self.process.is_another() {
            return false;
        }
        // Before the outcome: who sees a longer lease sees what was lost before that.
        let standing = self.standing(shared);
        match self.outcome.load(Ordering::Acquire) {
            OUTCOME_NONE if standing == Belief::Lapsed => {
                self.lose(LostReason::Expired);
                false
            }
            OUTCOME_NONE => true,
            _ => false,
        }
    }

    /// Whether it was given back.
    pub(super) fn is_given_back(&self) -> bool {
        self.outcome.load(Ordering::Acquire) == OUTCOME_RELEASED
    }

    /// Waits for the loss; for ever if there is none.
    pub(super) async fn until_lost(&self) -> LostReason {
        loop {
            let notified = self.lost.notified();
            tokio::pin!(notified);
            // From here on no loss is missed, so the look comes after.
            notified.as_mut().enable();
            if let Some(reason) = self.lost_reason() {
                return reason;
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_driver_and_owner_the_first_decides() {
        let asked = Asked::default();
        assert_eq!(asked.abandon(), None);
        assert!(!asked.begin(RequestId(1)));
        let asked = Asked::default();
        assert!(asked.begin(RequestId(1)));
        assert_eq!(asked.abandon(), Some(RequestId(1)));
        assert_eq!(asked.abandon(), None);
    }

    #[test]
    fn a_hold_ends_once() {
        let hold = Hold::new(Process::this());
        hold.lose(LostReason::Revoked);
        hold.lose(LostReason::Expired);
        assert!(!hold.give_back());
        assert_eq!(hold.lost_reason(), Some(LostReason::Revoked));
        let hold = Hold::new(Process::this());
        assert!(hold.give_back());
        hold.lose(LostReason::Expired);
        assert_eq!(hold.lost_reason(), None);
    }

    #[test]
    fn a_doubt_lasts_until_it_is_confirmed() {
        let hold = Hold::new(Process::this());
        assert_eq!(hold.doubted_until(), None);
        hold.doubt(Timestamp::from_micros(0));
        assert!(hold.doubted_until().is_some());
        hold.confirm();
        assert_eq!(hold.doubted_until(), None);
    }
}
