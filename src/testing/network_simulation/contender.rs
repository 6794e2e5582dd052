//! The tasks of a client: they ask, hold, write, convert, give back, and change their minds, by the
//! public interface and as its users would.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::diary::Diary;
use super::network::Network;
use super::places::{Grant, Heard};
use super::stream::millis;
use crate::client::{Client, ConvertError, Error, LockGuard};
use crate::testing::fuzz::Random;
use crate::testing::history::{How, RequestName, Wanted, What};
use crate::types::RejectionCode;

/// Locks that all contend for.
const LOCKS: usize = 4;
/// How many permits the semaphore has.
const PERMITS: u32 = 3;
/// Longest hold of most.
const HOLD_MS_MAX: u64 = 500;
/// Longest hold of the others: longer than most leases.
const LONG_HOLD_MS_MAX: u64 = 6_000;
/// Longest pause between two requests.
const PAUSE_MS_MAX: u64 = 800;
/// How long whoever gives up waits.
const PATIENCE_MS_MAX: u64 = 3_000;
/// In peace, everybody has everything within this.
const SERVED_WITHIN: Duration = Duration::from_secs(60);

type Answer = Result<LockGuard, Error>;

/// How long somebody is willing to wait.
#[derive(Clone, Copy, Debug)]
enum Patience {
    /// As long as it takes.
    Forever,
    /// So long.
    Timeout(Duration),
    /// Not at all.
    Try,
    /// The request is dropped after this.
    Dropped(Duration),
}

/// What somebody wants.
struct Wish {
    /// Which locks, and how.
    wanted: Vec<Wanted>,
    /// For how long it is worth waiting.
    patience: Patience,
    /// For how long they stay free if they are lost.
    lock_delay: Duration,
}

impl Wish {
    fn any(random: &mut Random) -> Self {
        let count = if random.once_in(6) { 2 + random.below(2) } else { 1 };
        let mut locks: Vec<usize> = (0..LOCKS).collect();
        let wanted = (0..count).map(|_| {
            let lock = locks.remove(random.below(locks.len()));
            let how = match (lock, random.below(3)) {
                (0, take) => How::Permits { take: 1 + u32::try_from(take).unwrap(), of: PERMITS },
                (_, 0) => How::Shared,
                _ => How::Exclusive,
            };
            Wanted { lock: lock_name(lock), how }
        });
        let wanted = wanted.collect();
        let patience = match random.below(10) {
            0..6 => Patience::Forever,
            6..8 => Patience::Timeout(millis(random, PATIENCE_MS_MAX)),
            8 => Patience::Try,
            _ => Patience::Dropped(millis(random, PATIENCE_MS_MAX)),
        };
        let lock_delay =
            if random.once_in(10) { Duration::from_millis(700) } else { Duration::ZERO };
        Self { wanted, patience, lock_delay }
    }

    /// Everything, alone, and as long as it takes.
    fn everything() -> Self {
        let alone = |lock| {
            let all = How::Permits { take: PERMITS, of: PERMITS };
            Wanted { lock: lock_name(lock), how: if lock == 0 { all } else { How::Exclusive } }
        };
        let (patience, lock_delay) = (Patience::Forever, Duration::ZERO);
        Self { wanted: (0..LOCKS).map(alone).collect(), patience, lock_delay }
    }

    /// Asks for it, in one of the ways there are.
    fn ask(&self, client: &Client, heard: &Heard) -> Asking {
        let Self { wanted, patience, lock_delay } = self;
        let (heard, asked) = (Arc::clone(heard), client.clone());
        macro_rules! on_these_terms {
            ($request:expr) => {{
                let request = $request.lock_delay(*lock_delay).note("simulated");
                let request = request.on_queued(move |_| {
                    let now = (asked.epoch(), asked.generation(), Instant::now());
                    heard.lock().unwrap().push(now);
                });
                match patience {
                    Patience::Forever | Patience::Dropped(_) => request.into_future(),
                    Patience::Timeout(length) => request.timeout(*length).into_future(),
                    Patience::Try => request.nonblocking().into_future(),
                }
            }};
        }
        match &wanted[..] {
            [Wanted { lock, how: How::Exclusive }] => on_these_terms!(client.lock(lock)),
            [Wanted { lock, how: How::Shared }] => on_these_terms!(client.lock(lock).shared()),
            [Wanted { lock, how: How::Permits { take, of } }] => {
                on_these_terms!(client.semaphore(lock, *of).acquire_many(*take))
            }
            several => {
                let mut all = client.lock_all::<[&str; 0]>([]);
                for Wanted { lock, how } in several {
                    all = match how {
                        How::Exclusive => all.exclusive(lock),
                        How::Shared => all.shared(lock),
                        How::Permits { take, of } => all.permits(lock, *take, *of),
                    };
                }
                on_these_terms!(all)
            }
        }
    }
}

type Asking = Pin<Box<dyn Future<Output = Answer> + Send>>;

fn lock_name(lock: usize) -> Arc<str> {
    format!("lock/{lock}").into()
}

/// Something that is held.
struct Held {
    /// By which request.
    request: RequestName,
    /// What that asked for.
    wanted: Vec<Wanted>,
    /// What holds it.
    guard: LockGuard,
}

/// One task of a client.
pub(super) struct Contender {
    /// Where it writes.
    pub(super) diary: Diary,
    /// What it uses, with others.
    pub(super) client: Client,
    /// Knows when its client was away.
    pub(super) network: Network,
    /// Decides what it does.
    pub(super) random: Random,
}

impl Contender {
    /// Asks for this and that until the run is over, and then once for everything.
    pub(super) async fn run(mut self) {
        while !self.diary.book().is_over() {
            let wish = Wish::any(&mut self.random);
            if let Some(held) = self.acquire(wish).await {
                self.use_it(held).await;
            }
            sleep(millis(&mut self.random, PAUSE_MS_MAX)).await;
        }
        let began = Instant::now();
        match self.acquire(Wish::everything()).await {
            Some(held) => self.give_back(held).await,
            None => {
                self.diary.complain("who wants everything in the end got nothing".to_owned());
            }
        }
        let took = began.elapsed();
        if took > SERVED_WITHIN {
            let client = self.diary.client;
            self.diary.complain(format!("client {client} was served after {took:?} of peace"));
        }
    }

    /// Asks, and writes down what came of it.
    async fn acquire(&mut self, wish: Wish) -> Option<Held> {
        let (session, heard) = (self.client.session(), Heard::default());
        let asking = wish.ask(&self.client, &heard);
        let Wish { wanted, patience, .. } = wish;
        let (came, request) = (Instant::now(), self.diary.asks(wanted.clone()));
        let answer = match patience {
            Patience::Dropped(after) => {
                let Ok(answer) = timeout(after, asking).await else {
                    self.diary.count("given up");
                    self.diary.ends(request, What::Abandoned);
                    return None;
                };
                answer
            }
            Patience::Forever | Patience::Timeout(_) | Patience::Try => asking.await,
        };
        match answer {
            Ok(guard) => {
                let mut heard = std::mem::take(&mut *heard.lock().unwrap());
                // A session that was replaced by another has lost its places.
                if self.client.session() != session {
                    heard.clear();
                }
                let (token, epoch) = (guard.token().number(), self.client.epoch());
                // Nor was it there all the time if it had another connection.
                let generation = self.client.generation();
                heard.retain(|(run, by, _)| *run != epoch || *by == generation);
                let (heard, absences) = (&heard[..], &self.network.absences(self.diary.client)[..]);
                let grant = Grant { wanted: &wanted, token, epoch, came, heard, absences };
                self.diary.waited(request, grant);
                self.diary.granted(request, &guard);
                Some(Held { request, wanted, guard })
            }
            Err(error) => {
                self.refused(request, &error, patience);
                None
            }
        }
    }

    fn refused(&self, request: RequestName, error: &Error, patience: Patience) {
        let (is_limited, is_try) = match patience {
            Patience::Forever | Patience::Dropped(_) => (false, false),
            Patience::Timeout(length) => (true, length.is_zero()),
            Patience::Try => (true, true),
        };
        let (what, is_legitimate) = match error {
            Error::Busy { .. } => ("refused: busy", is_try),
            Error::TimedOut { .. } => ("refused: timed out", is_limited),
            Error::Unavailable { .. } | Error::Draining { .. } => ("refused: away", is_limited),
            Error::Rejected { code: RejectionCode::Grace, .. } => ("refused: grace", is_try),
            Error::Lost { .. } => ("refused: lost before it was heard", true),
            _ => ("refused otherwise", false),
        };
        if !is_legitimate {
            self.diary.complain(format!("{request} ({patience:?}): {error:?}"));
        }
        self.diary.count(what);
        self.diary.ends(request, What::Refused);
    }

    /// Holds for a while, writes now and then, and gives back.
    async fn use_it(&mut self, mut held: Held) {
        let longest = if self.random.once_in(8) { LONG_HOLD_MS_MAX } else { HOLD_MS_MAX };
        let until = Instant::now() + millis(&mut self.random, longest);
        loop {
            let left = self.diary.believes(held.request, &held.guard);
            if left.is_zero() {
                return self.loses(held).await;
            }
            if self.random.once_in(3) {
                self.write(&held);
            }
            let now = Instant::now();
            if now >= until || self.diary.book().is_over() {
                break;
            }
            if self.diary.once_in(&mut self.random, 8) && is_plain(&held) {
                match self.convert(held).await {
                    Some(converted) => held = converted,
                    None => return,
                }
                continue;
            }
            let pause = (until - now).min(left).min(Duration::from_millis(250));
            let _woken_by_its_loss = timeout(pause, held.guard.lost()).await;
        }
        self.give_back(held).await;
    }

    async fn loses(&mut self, held: Held) {
        let reason = held.guard.lost().await;
        self.diary.lost(held.request, reason);
        // As somebody would who does not look: it will be too late, or just in time.
        if self.random.once_in(2) {
            sleep(millis(&mut self.random, 1_000)).await;
            self.write(&held);
        }
    }

    async fn give_back(&mut self, held: Held) {
        let Held { request, guard, .. } = held;
        self.diary.believes(request, &guard);
        self.diary.ends_belief(request);
        if self.diary.once_in(&mut self.random, 5) {
            self.diary.count("dropped");
            drop(guard);
            return self.diary.note(request, What::Abandoned);
        }
        self.diary.note(request, What::ReleaseInvoked);
        let lost = guard.is_held().then(|| guard.lost());
        let answer = guard.release().await;
        if let Some(lost) = lost
            && timeout(Duration::ZERO, lost).await.is_ok()
        {
            self.diary.complain(format!("{request} was given back, and lost after that"));
        }
        match answer {
            Ok(()) => self.diary.count("released"),
            Err(Error::Lost { .. }) => self.diary.count("lost while released"),
            Err(Error::Unavailable { .. } | Error::Draining { .. }) => {
                self.diary.count("release unanswered");
            }
            Err(other) => self.diary.complain(format!("release of {request}: {other:?}")),
        }
        self.diary.note(request, What::ReleaseAnswered);
    }

    /// Writes to what it holds alone.
    fn write(&self, held: &Held) {
        for Wanted { lock, how } in &held.wanted {
            if let How::Exclusive = how {
                self.diary.writes(held.request, lock, &held.guard);
            }
        }
    }

    /// Shared becomes exclusive, or the other way round.
    async fn convert(&mut self, held: Held) -> Option<Held> {
        let Held { request: before, wanted, guard } = held;
        let downgrades = matches!(wanted[..], [Wanted { how: How::Exclusive, .. }]);
        let how = if downgrades { How::Shared } else { How::Exclusive };
        let new = vec![Wanted { lock: Arc::clone(&wanted[0].lock), how }];
        let request = self.diary.converts(new.clone());
        let answer = if downgrades {
            // Others may be let in from now on.
            self.diary.ends_belief(before);
            guard.downgrade().await
        } else {
            let patience = millis(&mut self.random, PATIENCE_MS_MAX);
            guard.upgrade().timeout(patience).await
        };
        match answer {
            Ok(guard) => {
                self.diary.count(if downgrades { "downgraded" } else { "upgraded" });
                self.diary.ends(before, What::Abandoned);
                self.diary.granted(request, &guard);
                Some(Held { request, wanted: new, guard })
            }
            Err(ConvertError { guard, error }) => {
                let what = match error {
                    Error::Deadlock { .. }
                    | Error::Rejected { code: RejectionCode::Deadlock, .. }
                        if !downgrades =>
                    {
                        "upgrade refused: deadlock"
                    }
                    Error::TimedOut { .. } | Error::Busy { .. } if !downgrades => {
                        "upgrade refused: timed out"
                    }
                    Error::Lost { .. } => "conversion: lost meanwhile",
                    Error::Unavailable { .. } => "conversion: unavailable",
                    _ => {
                        self.diary.complain(format!("{request} converts: {error:?}"));
                        "conversion refused otherwise"
                    }
                };
                self.diary.count(what);
                self.diary.note(request, What::Refused);
                let held = Held { request: before, wanted, guard };
                if downgrades && held.guard.is_held() {
                    self.give_back(held).await;
                    return None;
                }
                Some(held)
            }
        }
    }
}

/// Whether it is one lock that can be converted.
fn is_plain(held: &Held) -> bool {
    matches!(held.wanted[..], [Wanted { how: How::Exclusive | How::Shared, .. }])
}
