//! A lock that is asked for.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::types::{
    Claim, Claims, FencingToken, LOCK_DELAY_MAX, LockName, Mode, Note, RejectionCode,
};
use crate::wire;

use super::core::{Ask, Rejection};
use super::error::{Error, unknown_lock};
use super::guard::{LockGuard, lost_error};
use super::shared::{Command, Ending, Failure, Hold, NewRequest, Shared};

/// What is told the request's place in line.
type OnQueued = Box<dyn FnMut(u64) + Send + 'static>;

/// How long a request waits.
#[derive(Clone, Copy, Debug)]
enum Patience {
    /// Until it is granted.
    Forever,
    /// So long.
    AtMost(Duration),
    /// Not at all.
    None,
}

/// A request for a lock, made by [`Client::lock`](super::Client::lock). Nothing is sent before it
/// is awaited; dropping the future takes the request back.
///
/// It waits for ever unless told otherwise, also through lost connections and restarts of the
/// coordinator, and asks for the lock alone.
///
/// # Errors
///
/// Awaiting it gives [`Error::Busy`] if it would not wait, [`Error::TimedOut`] if it waited long
/// enough, [`Error::InvalidRequest`] if what was said about it is not possible, and others if there
/// is trouble with the coordinator.
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: coordinator::Client) -> Result<(), coordinator::Error> {
/// use std::time::Duration;
///
/// let guard = client
///     .lock("orders/42")
///     .timeout(Duration::from_secs(5))
///     .note("nightly export")
///     .on_queued(|position| println!("{position} in line"))
///     .await?;
/// # Ok(()) }
/// ```
#[must_use = "a request does nothing unless awaited"]
pub struct LockRequest {
    /// Whom to ask.
    shared: Arc<Shared>,
    /// What for; empty if the name was no name.
    claims: Vec<Claim>,
    /// How long to wait.
    patience: Patience,
    /// What for, in words.
    note: Note,
    /// Pause after an involuntary loss.
    lock_delay: Duration,
    /// Whom to tell the place in line.
    on_queued: Option<OnQueued>,
    /// The first thing that was said wrongly. Told when awaited, so that saying is one chain.
    invalid: Option<Error>,
}

impl LockRequest {
    pub(super) fn new(shared: Arc<Shared>, name: &str) -> Self {
        let (claims, invalid) = match LockName::new(name) {
            Ok(name) => (vec![Claim { name, mode: Mode::Exclusive }], None),
            Err(error) => (Vec::new(), Some(Error::invalid("invalid lock name", error))),
        };
        Self {
            shared,
            claims,
            patience: Patience::Forever,
            note: Note::default(),
            lock_delay: Duration::ZERO,
            on_queued: None,
            invalid,
        }
    }

    /// Wants to hold the lock together with other shared holders.
    pub fn shared(self) -> Self {
        self.mode(Mode::Shared)
    }

    /// Wants to hold the lock alone, as without this.
    pub fn exclusive(self) -> Self {
        self.mode(Mode::Exclusive)
    }

    /// Wants `take` of `of` permits of a semaphore. All who use the lock at a time must agree on
    /// `of`.
    pub fn permits(self, take: u32, of: u32) -> Self {
        match Mode::permits(take, of) {
            Ok(mode) => self.mode(mode),
            Err(error) => self.invalid("invalid permits", error),
        }
    }

    /// Waits this long at most, rounded up to a millisecond; then [`Error::TimedOut`]. Zero is not
    /// to wait.
    ///
    /// The time is measured by the coordinator, so the answer is definite: after it the request is
    /// not in line any more. While there is no connection it is measured here, and ends in
    /// [`Error::Unavailable`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        let none = timeout.is_zero();
        self.patience = if none { Patience::None } else { Patience::AtMost(timeout) };
        self
    }

    /// Does not wait; if the lock cannot be had at once, [`Error::Busy`]. After a crash of the
    /// coordinator it cannot be known for a while; then [`Error::Rejected`] with
    /// [`RejectionCode::Grace`], and if it cannot be reached [`Error::Unavailable`].
    pub fn nonblocking(mut self) -> Self {
        self.patience = Patience::None;
        self
    }

    /// Says what the lock is wanted for, to whoever waits or looks: up to 255 bytes without control
    /// characters.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        match Note::new(note.into()) {
            Ok(note) => {
                self.note = note;
                self
            }
            Err(error) => self.invalid("invalid note", error),
        }
    }

    /// If the lock is lost, leaves it free for so long before the next gets it, 60 s at most. For
    /// resources that cannot check tokens.
    pub fn lock_delay(mut self, delay: Duration) -> Self {
        if delay > LOCK_DELAY_MAX {
            let why = format!("{delay:?} is more than {LOCK_DELAY_MAX:?}");
            return self.invalid("invalid lock delay", why);
        }
        self.lock_delay = delay;
        self
    }

    /// Calls `on_queued` with the request's place in line, 1 for the next, whenever it is another.
    /// Places that came while nobody polled are left out.
    pub fn on_queued(mut self, on_queued: impl FnMut(u64) + Send + 'static) -> Self {
        self.on_queued = Some(Box::new(on_queued));
        self
    }

    /// Runs `work` while the lock is held, then releases it. If the lock is lost, the future that
    /// `work` gave is dropped where it stands.
    ///
    /// `work` gets the guard itself, and may release it early. If it gives the guard away, this
    /// waits until it is released there.
    ///
    /// # Errors
    ///
    /// As awaiting the request, and [`Error::Lost`] if the lock was lost before `work` was done.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn write_report(token: coordinator::types::FencingToken) {}
    /// # async fn example(client: coordinator::Client) -> Result<(), coordinator::Error> {
    /// client.lock("report").run(|guard| async move { write_report(guard.token()).await }).await?;
    /// # Ok(()) }
    /// ```
    pub async fn run<Work, Done>(self, work: Work) -> Result<Done::Output, Error>
    where
        Work: FnOnce(LockGuard) -> Done,
        Done: Future,
    {
        let shared = Arc::clone(&self.shared);
        let mut guard = self.await?;
        let (freed, is_freed) = oneshot::channel();
        guard.tell_when_freed(freed);
        let (hold, token, names) = (guard.hold(), guard.token(), guard.names().to_vec());
        let output = tokio::select! {
            biased;
            _ = hold.until_lost() => None,
            output = work(guard) => Some(output),
        };
        // Believed in until the end: then nobody else can have had the lock before it.
        match output {
            Some(output) if hold.is_given_back() || hold.is_alive(&shared) => {
                // How the release went is no news for work that is done; that it went, is.
                let _ = is_freed.await;
                Ok(output)
            }
            Some(_) | None => Err(lost_error(&hold, &names, token)),
        }
    }

    fn mode(mut self, mode: Mode) -> Self {
        if let Some(claim) = self.claims.last_mut() {
            claim.mode = mode;
        }
        self
    }

    fn invalid(mut self, what: &str, why: impl fmt::Display) -> Self {
        self.invalid.get_or_insert_with(|| Error::invalid(what, why));
        self
    }

    /// Asks, and waits for the answer.
    async fn acquire(mut self) -> Result<LockGuard, Error> {
        if let Some(invalid) = self.invalid {
            return Err(invalid);
        }
        let on_queued = self.on_queued.take();
        let (positions, places) = match on_queued {
            Some(_) => {
                let (sender, receiver) = watch::channel(0);
                (Some(sender), Some(receiver))
            }
            None => (None, None),
        };
        let claims =
            Claims::new(self.claims).map_err(|why| Error::invalid("invalid request", why))?;
        let names = claims.as_slice().iter().map(|claim| claim.name.clone()).collect();
        let ask = Ask {
            owner: 0,
            converts: None,
            wait: wire_wait(self.patience),
            progress: positions.is_some(),
            lock_delay_ms: millis_up(self.lock_delay).try_into().unwrap_or(u32::MAX),
            note: self.note.as_str().to_owned(),
            claims: claims.as_slice().iter().map(wire_claim).collect(),
        };
        let (answer, answered) = oneshot::channel();
        let hold = Arc::new(Hold::default());
        let pending = Pending { hold: Arc::clone(&hold), shared: self.shared, names };
        let command = Command::Request(Box::new(NewRequest { ask, hold, answer, positions }));
        if pending.shared.commands.send(command).await.is_err() {
            return Err(pending.shared.end());
        }
        let mut position = None;
        let answer = match (places, on_queued) {
            (Some(places), Some(on_queued)) => {
                answer_and_places(answered, places, on_queued, &mut position).await
            }
            _ => answered.await,
        };
        match answer {
            Ok(Ok(token)) => pending.granted(token),
            Ok(Err(failure)) => Err(pending.failed(failure, self.patience, position)),
            Err(_) => Err(pending.shared.end()),
        }
    }
}

/// Waits for the answer, and tells the places in line meanwhile.
async fn answer_and_places<T>(
    mut answered: oneshot::Receiver<T>,
    mut places: watch::Receiver<u64>,
    mut on_queued: OnQueued,
    position: &mut Option<u64>,
) -> Result<T, oneshot::error::RecvError> {
    loop {
        tokio::select! {
            biased;
            answer = &mut answered => return answer,
            changed = places.changed() => {
                if changed.is_err() {
                    return answered.await;
                }
                let place = *places.borrow_and_update();
                *position = Some(place);
                on_queued(place);
            }
        }
    }
}

impl IntoFuture for LockRequest {
    type Output = Result<LockGuard, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.acquire())
    }
}

impl fmt::Debug for LockRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockRequest")
            .field("claims", &self.claims)
            .field("patience", &self.patience)
            .field("note", &self.note)
            .field("lock_delay", &self.lock_delay)
            .field("invalid", &self.invalid)
            .finish_non_exhaustive()
    }
}

/// A request that somebody waits for. Dropping it takes the request back, granted or not.
struct Pending {
    /// What the driver says about it.
    hold: Arc<Hold>,
    /// The connection.
    shared: Arc<Shared>,
    /// The locks.
    names: Box<[LockName]>,
}

impl Pending {
    /// The grant came: whoever waited holds the lock, if it is not over already.
    fn granted(mut self, token: FencingToken) -> Result<LockGuard, Error> {
        let (hold, shared) = (Arc::clone(&self.hold), Arc::clone(&self.shared));
        let guard = LockGuard::new(hold, shared, token, std::mem::take(&mut self.names));
        // The guard answers for the request from here on.
        self.hold = Arc::default();
        if guard.is_held() { Ok(guard) } else { Err(guard.lost_error()) }
    }

    /// The request is over without a grant.
    fn failed(&self, failure: Failure, patience: Patience, position: Option<u64>) -> Error {
        match failure {
            Failure::Rejected(rejection) => self.rejected(rejection, patience, position),
            Failure::Lost(reason) => {
                self.hold.lose(reason);
                lost_error(&self.hold, &self.names, FencingToken::default())
            }
            Failure::Ended(error) => error,
        }
    }

    fn rejected(&self, rejection: Rejection, patience: Patience, position: Option<u64>) -> Error {
        let name = self.names.first().map_or("", LockName::as_str);
        let lock = |lock: Option<_>| lock.unwrap_or_else(|| Box::new(unknown_lock(name)));
        match (rejection.code, patience) {
            (RejectionCode::Busy, _) => Error::Busy { lock: lock(rejection.lock) },
            (RejectionCode::TimedOut, Patience::AtMost(timeout)) => {
                Error::TimedOut { lock: lock(rejection.lock), timeout, position }
            }
            _ => Error::rejected(rejection),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(request) = self.hold.abandon() {
            // Without a driver there is nothing to cancel.
            let _ = self.shared.endings.send(Ending::Cancel(request));
        }
    }
}

fn wire_claim(claim: &Claim) -> wire::Claim {
    let mode = match claim.mode {
        Mode::Exclusive => wire::Mode::Exclusive,
        Mode::Shared => wire::Mode::Shared,
        Mode::Permits { take, of } => wire::Mode::Permits { take, of },
    };
    wire::Claim { name: claim.name.as_str().to_owned(), mode }
}

fn wire_wait(patience: Patience) -> wire::Wait {
    match patience {
        Patience::Forever => wire::Wait::Forever,
        Patience::AtMost(timeout) => wire::Wait::Timeout { ms: millis_up(timeout) },
        Patience::None => wire::Wait::Never,
    }
}

/// `length` in milliseconds, rounded up so that a little is never nothing.
pub(super) fn millis_up(length: Duration) -> u64 {
    u64::try_from(length.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
}
