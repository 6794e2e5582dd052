//! The terms of a request before it is made, and the making of it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::types::{
    AT_LEAST_MAX, CLAIMS_MAX, Claim, Claims, LOCK_DELAY_MAX, LockName, Mode, Note, OwnerId,
    PermitsError, RejectionCode, RequestId, Wait,
};

use crate::wire::LockStatus;

use super::guard::{LockGuard, lost_error};
use crate::client::core::{Ask, Rejection};
use crate::client::error::{Error, shown};
use crate::client::shared::{Asked, Command, Ending, Failure, Hold, NewRequest, Shared};

/// What is told the request's place in line.
pub(in crate::client) type OnQueued = Box<dyn FnMut(u64) + Send + 'static>;

/// What was said about a request, whatever it is for.
pub(in crate::client) struct Terms {
    /// Whom to ask.
    shared: Arc<Shared>,
    /// Owner of the request, within the session; 0: nobody but this request.
    owner: OwnerId,
    /// Its claims; what was no claim is not among them.
    claims: Vec<Claim>,
    /// How long to wait.
    wait: Wait,
    /// Its purpose, in words.
    note: Note,
    /// Pause after an involuntary loss.
    lock_delay: Duration,
    /// For how long nobody else is to get it from the grant on.
    at_least: Duration,
    /// Whether it ends older ones that wait, and newer ones end it.
    supersedes: bool,
    /// Whom to tell the place in line.
    on_queued: Option<Mutex<OnQueued>>,
    /// The first thing that was said wrongly. Told when the request is made, so that saying is one
    /// chain.
    invalid: Option<Error>,
}

impl Terms {
    pub(in crate::client) fn new(shared: Arc<Shared>, owner: OwnerId) -> Self {
        Self {
            shared,
            owner,
            claims: Vec::new(),
            wait: Wait::Forever,
            note: Note::default(),
            lock_delay: Duration::ZERO,
            at_least: Duration::ZERO,
            supersedes: false,
            on_queued: None,
            invalid: None,
        }
    }

    /// Wants the lock `name` as well.
    pub(in crate::client) fn claim(&mut self, name: &str, mode: Mode) {
        match LockName::new(name) {
            Ok(name) => self.claims.push(Claim { name, mode }),
            Err(error) => self.invalid(Error::invalid_lock_name(name, error)),
        }
    }

    /// Wants the last lock that was named in this mode.
    pub(in crate::client) fn mode(&mut self, mode: Mode) {
        if let Some(claim) = self.claims.last_mut() {
            claim.mode = mode;
        }
    }

    /// The mode of so many permits of the lock `name`, if that is possible.
    pub(in crate::client) fn permits(&mut self, name: &str, take: u32, of: u32) -> Option<Mode> {
        let invalid = |error: PermitsError| {
            self.invalid(Error::invalid(&format!("invalid permits of {}", shown(name)), error));
        };
        Mode::permits(take, of).map_err(invalid).ok()
    }

    /// The name of the last lock that was named.
    pub(in crate::client) fn last_name(&self) -> String {
        self.claims.last().map_or_else(String::new, |claim| claim.name.as_str().to_owned())
    }

    pub(in crate::client) fn wait(&mut self, wait: Wait) {
        self.wait = wait;
    }

    /// Has `note` shown, which was said to be `what`.
    pub(in crate::client) fn note(&mut self, note: String, what: &str) {
        match Note::new(note) {
            Ok(note) => self.note = note,
            Err(error) => self.invalid(Error::invalid(&format!("invalid {what}"), error)),
        }
    }

    pub(in crate::client) fn lock_delay(&mut self, delay: Duration) {
        if delay > LOCK_DELAY_MAX {
            let why = format!("{delay:?} is more than the limit of {LOCK_DELAY_MAX:?}");
            return self.invalid(Error::invalid("invalid lock delay", why));
        }
        self.lock_delay = delay;
    }

    pub(in crate::client) fn at_least(&mut self, length: Duration) {
        if length > AT_LEAST_MAX {
            let why = format!("{length:?} is more than the limit of {AT_LEAST_MAX:?} (7 days)");
            return self.invalid(Error::invalid("invalid minimum hold time", why));
        }
        self.at_least = length;
    }

    pub(in crate::client) fn supersede(&mut self) {
        self.supersedes = true;
    }

    pub(in crate::client) fn on_queued(&mut self, on_queued: OnQueued) {
        self.on_queued = Some(Mutex::new(on_queued));
    }

    fn invalid(&mut self, error: Error) {
        self.invalid.get_or_insert(error);
    }

    /// Asks, and waits for the answer.
    pub(in crate::client) async fn acquire(self) -> Result<LockGuard, Error> {
        if let Some(invalid) = self.invalid {
            return Err(invalid);
        }
        let claims = claims(self.claims)?;
        let names: Box<[LockName]> =
            claims.as_slice().iter().map(|claim| claim.name.clone()).collect();
        let ask = Arc::new(Ask {
            owner: self.owner,
            converts: None,
            wait: self.wait,
            progress: self.on_queued.is_some(),
            lock_delay_ms: millis_up(self.lock_delay).try_into().unwrap_or(u32::MAX),
            at_least_ms: millis_up(self.at_least),
            supersedes: self.supersedes,
            note: self.note.as_str().to_owned(),
            claims: claims.as_slice().iter().map(Claim::raw).collect(),
        });
        let hold = Arc::new(Hold::new(self.shared.process));
        let on_queued = self.on_queued.map(Mutex::into_inner);
        let on_queued = on_queued.map(|it| it.unwrap_or_else(PoisonError::into_inner));
        match ask_for(&self.shared, &ask, &hold, on_queued).await {
            Ok(request) => LockGuard::begin(hold, self.shared, request, ask, names),
            Err(refused) => Err(refused.error(&hold, &names, self.wait)),
        }
    }

    /// Asks, runs `work` while the locks are held, then releases them.
    pub(in crate::client) async fn run<Work, Done>(self, work: Work) -> Result<Done::Output, Error>
    where
        Work: FnOnce(LockGuard) -> Done,
        Done: Future,
    {
        let shared = Arc::clone(&self.shared);
        let mut guard = self.acquire().await?;
        let (freed, is_freed) = oneshot::channel();
        guard.tell_when_freed(freed);
        let (hold, names) = (guard.hold(), guard.names().to_vec());
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
            Some(_) | None => Err(lost_error(&hold, &names)),
        }
    }
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms")
            .field("owner", &self.owner)
            .field("claims", &self.claims)
            .field("wait", &self.wait)
            .field("note", &self.note)
            .field("lock_delay", &self.lock_delay)
            .field("at_least", &self.at_least)
            .field("supersedes", &self.supersedes)
            .field("invalid", &self.invalid)
            .finish_non_exhaustive()
    }
}

/// What a request asks for, if that can be asked for together.
fn claims(claims: Vec<Claim>) -> Result<Claims, Error> {
    let too_many = claims.get(CLAIMS_MAX).map(|claim| claim.name.clone());
    Claims::new(claims).map_err(|why| match too_many {
        Some(name) => {
            let why = format!("{why}, and {} is one too many", shown(name.as_str()));
            Error::invalid("invalid request", why)
        }
        None => Error::invalid("invalid request", why),
    })
}

/// Why there was no grant.
#[derive(Debug)]
pub(in crate::client) struct Refused {
    /// The failure.
    failure: Failure,
    /// The last place in line that was heard of.
    position: Option<u64>,
}

impl Refused {
    /// The error for a request that asked for `names` and would wait for so long; `hold` is what it
    /// would have had.
    pub(in crate::client) fn error(self, hold: &Hold, names: &[LockName], wait: Wait) -> Error {
        let position = self.position;
        match self.failure {
            Failure::Rejected(rejection) => {
                let Rejection { code, lock, .. } = &rejection;
                let unknown = || names.first().map(|name| LockStatus::unknown(name.clone()).into());
                match (code, wait, lock.clone().or_else(unknown)) {
                    (RejectionCode::Busy, _, Some(lock)) => Error::Busy { lock },
                    (RejectionCode::TimedOut, Wait::AtMost(timeout), Some(lock)) => {
                        Error::TimedOut { lock, timeout, position }
                    }
                    _ => Error::rejected(rejection),
                }
            }
            Failure::Lost(reason) => {
                hold.lose(reason);
                lost_error(hold, names)
            }
            Failure::Ended(error) => error,
        }
    }
}

/// Asks, and waits for the grant; gives the request. Dropped before, it takes the request back,
/// granted or not.
pub(in crate::client) async fn ask_for(
    shared: &Arc<Shared>,
    ask: &Arc<Ask>,
    hold: &Arc<Hold>,
    on_queued: Option<OnQueued>,
) -> Result<RequestId, Refused> {
    if let Err(error) = shared.check_process() {
        return Err(Refused { failure: Failure::Ended(error), position: None });
    }
    let (positions, places) = match on_queued {
        Some(on_queued) => {
            let (sender, receiver) = watch::channel(0);
            (Some(sender), Some((receiver, on_queued)))
        }
        None => (None, None),
    };
    let (answer, answered) = oneshot::channel();
    let pending = Pending { asked: Arc::default(), shared: Arc::clone(shared) };
    let (ask, hold, asked) = (Arc::clone(ask), Arc::clone(hold), Arc::clone(&pending.asked));
    let command = Command::Request(Box::new(NewRequest { ask, asked, hold, answer, positions }));
    let mut position = None;
    let ended = |position| Refused { failure: Failure::Ended(shared.end()), position };
    if shared.commands.send(command).await.is_err() {
        return Err(ended(position));
    }
    let answer = match places {
        Some((places, on_queued)) => {
            answer_and_places(answered, places, on_queued, &mut position).await
        }
        None => answered.await,
    };
    match answer {
        Ok(Ok(())) => Ok(pending.granted()),
        Ok(Err(failure)) => Err(Refused { failure, position }),
        Err(_) => Err(ended(position)),
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

/// A request that somebody waits for. Dropping it takes the request back, granted or not.
struct Pending {
    /// Its id.
    asked: Arc<Asked>,
    /// The connection.
    shared: Arc<Shared>,
}

impl Pending {
    /// Somebody else answers for the request from here on.
    fn granted(mut self) -> RequestId {
        std::mem::take(&mut self.asked).id()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(request) = self.asked.abandon() {
            self.shared.end_request(Ending::Cancel(request));
        }
    }
}

/// `length` in milliseconds, rounded up so that a little is never nothing.
pub(in crate::client) fn millis_up(length: Duration) -> u64 {
    u64::try_from(length.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
}
