//! Lookouts: walks over the locks that somebody waits for, one for all who show the same.
//!
//! A lookout walks over a line of its own while somebody looks, a page of the coordinator at a time, at the pace of
//! all who look over HTTP. So what is told may be some seconds old when a
//! hundred thousand locks are waited for, and its age is told with it.

use std::sync::{Arc, Mutex as StdMutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::kept::why_held_by_nobody;
use super::line::{AllLooks, Line};
use super::visitor::Visitor;
use crate::access::Proof;
use crate::http::problem::Problem;
use crate::server::{Looker, Who};
use crate::wire::{LockStatus, Outlook, Query, ServerMessage, ServerStatus};

/// Locks that are told: those with the longest waits.
pub(super) const LOCKS_TOLD_MAX: usize = 200;
/// Waiters of a lock that are told.
pub(super) const WAITERS_TOLD_MAX: usize = 20;
/// Locks of a walk that are looked at one by one, for more of their waiters than a page shows.
const CLOSE_LOOKS_MAX: usize = 20;
/// Lookouts at a time: as many as there are who show something else.
const LOOKOUTS_MAX: usize = 64;
/// Pause between two walks.
pub(super) const WALK_PAUSE: Duration = Duration::from_millis(500);
/// How old the coordinator as a whole may be while a walk goes on.
const STATUS_PAUSE: Duration = Duration::from_secs(1);
/// So long after the last look there are walks.
const WANTED_FOR: Duration = Duration::from_secs(60);
/// So long who looks waits for a walk.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a walk has shown.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    /// When the walk began: nothing in it is older.
    pub(super) at: Instant,
    /// Locks that somebody waits for.
    pub(super) contended: usize,
    /// Requests that wait for one of them.
    pub(super) waiting: u64,
    /// Those whose first waiter waits longest, the longest first.
    pub(super) locks: Vec<LockStatus>,
    /// Why nobody has those of them that nobody holds.
    pub(super) outlooks: Vec<Outlook>,
}

/// All lookouts.
#[derive(Debug)]
pub(super) struct Lookouts {
    /// The way to the coordinator.
    looker: Looker,
    /// Those that walk, each with what was shown to it.
    all: Mutex<Vec<(Proof, Arc<Lookout>)>>,
    /// All who look.
    looks: Arc<AllLooks>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Lookout {
    /// The latest walk; none yet.
    scenes: watch::Receiver<Option<Arc<Scene>>>,
    /// The latest of the coordinator as a whole.
    statuses: watch::Receiver<Arc<(Instant, ServerStatus)>>,
    /// Until when walks are wanted.
    wanted_until: StdMutex<Instant>,
    /// Why there are no more walks, once there are none.
    ended: OnceLock<Problem>,
}

impl Lookouts {
    pub(super) fn new(looker: Looker, looks: Arc<AllLooks>) -> Self {
        Self { looker, all: Mutex::default(), looks }
    }

    /// The lookout of a visitor, who may look.
    pub(super) async fn of(&self, visitor: &Visitor) -> Result<Arc<Lookout>, Problem> {
        let proof = visitor.proof();
        let proof = match self.looker.who(proof.clone()).await {
            // What nobody asks for tells nobody apart.
            Some(Ok(Who::Anybody)) => Proof::default(),
            Some(Ok(Who::Principal(_)) | Err(_)) => proof,
            None => return Err(Problem::unavailable()),
        };
        if let Some(there) = find(&mut *self.all.lock().await, &proof) {
            return Ok(there);
        }
        // Whoever is nobody is told so here, and the audit log with them.
        let mut line = Line::open(&self.looker, visitor, &self.looks).await?;
        let status = status(&mut line).await?;
        let mut all = self.all.lock().await;
        if let Some(there) = find(&mut all, &proof) {
            return Ok(there);
        }
        if all.len() >= LOOKOUTS_MAX {
            return Err(Problem::busy());
        }
        let (scene, scenes) = watch::channel(None);
        let (told, statuses) = watch::channel(Arc::new((Instant::now(), status)));
        let wanted_until = StdMutex::new(Instant::now() + WANTED_FOR);
        let ended = OnceLock::new();
        let lookout = Arc::new(Lookout { scenes, statuses, wanted_until, ended });
        let walker = Walker { line, status_at: Instant::now(), told, scene };
        tokio::spawn(walker.walk(Arc::clone(&lookout)));
        all.push((proof, Arc::clone(&lookout)));
        Ok(lookout)
    }
}

/// The one that walks for this proof. Those that have ended are forgotten.
fn find(all: &mut Vec<(Proof, Arc<Lookout>)>, proof: &Proof) -> Option<Arc<Lookout>> {
    all.retain(|(_, lookout)| lookout.scenes.has_changed().is_ok());
    let there = all.iter().find(|(known, _)| known == proof);
    there.map(|(_, lookout)| {
        lookout.want();
        Arc::clone(lookout)
    })
}

impl Lookout {
    /// Walks are wanted for a while from now on.
    pub(super) fn want(&self) {
        *self.wanted() = Instant::now() + WANTED_FOR;
    }

    fn wanted(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.wanted_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes of walks from now on.
    pub(super) fn scenes(&self) -> watch::Receiver<Option<Arc<Scene>>> {
        self.scenes.clone()
    }

    /// The coordinator as a whole, again and again.
    pub(super) fn statuses(&self) -> watch::Receiver<Arc<(Instant, ServerStatus)>> {
        self.statuses.clone()
    }

    /// Why there are no more walks.
    pub(super) fn why_ended(&self) -> Problem {
        self.ended.get().cloned().unwrap_or_else(Problem::unavailable)
    }

    /// The latest walk; one that is under way is waited for, for a while.
    pub(super) async fn scene(&self) -> Result<Arc<Scene>, Problem> {
        self.want();
        let mut scenes = self.scenes();
        let is_fresh = |scene: &Option<Arc<Scene>>| {
            scene.as_ref().is_some_and(|scene| scene.at.elapsed() < WALK_PAUSE * 2)
        };
        let fresh = timeout(PATIENCE, scenes.wait_for(is_fresh)).await;
        if let Ok(Err(_)) = fresh {
            return Err(self.why_ended());
        }
        drop(fresh);
        let latest = scenes.borrow().clone();
        latest.ok_or_else(Problem::late)
    }
}

/// Who walks.
struct Walker {
    /// The line that is asked over.
    line: Line,
    /// When the coordinator as a whole was last looked at.
    status_at: Instant,
    /// Where that is told.
    told: watch::Sender<Arc<(Instant, ServerStatus)>>,
    /// Where walks are told.
    scene: watch::Sender<Option<Arc<Scene>>>,
}

impl Walker {
    /// Walks while somebody looks and may look.
    async fn walk(mut self, lookout: Arc<Lookout>) {
        if let Err(why) = self.walk_on(&lookout).await {
            // Before those who look are told that it is over, which is when this is dropped.
            let _ = lookout.ended.set(why);
        }
    }

    async fn walk_on(&mut self, lookout: &Lookout) -> Result<(), Problem> {
        loop {
            let began = Instant::now();
            if *lookout.wanted() < began {
                return Ok(());
            }
            self.walk_once(began).await?;
            sleep_until(began + WALK_PAUSE).await;
            self.look_at_all().await?;
        }
    }

    /// All pages of one walk, and a closer look at the locks with the longest waits.
    async fn walk_once(&mut self, at: Instant) -> Result<(), Problem> {
        let (locks, outlooks) = (Vec::new(), Vec::new());
        let mut scene = Scene { at, contended: 0, waiting: 0, locks, outlooks };
        let mut cursor = 0;
        loop {
            let answer = self.line.look(Query::Contended { cursor }).await?;
            let ServerMessage::LockStatus { locks, next, .. } = answer else {
                return Err(Problem::unavailable());
            };
            scene.contended += locks.len();
            scene.waiting += locks.iter().map(|lock| lock.waiter_count).sum::<u64>();
            scene.locks.extend(locks);
            scene.locks.sort_by_key(|lock| std::cmp::Reverse(longest(lock)));
            scene.locks.truncate(LOCKS_TOLD_MAX);
            if self.status_at.elapsed() >= STATUS_PAUSE {
                self.look_at_all().await?;
            }
            match next {
                Some(next) => cursor = next,
                None => break,
            }
        }
        self.look_closer(&mut scene).await?;
        scene.outlooks = why_held_by_nobody(&mut self.line, &scene.locks).await;
        self.scene.send_replace(Some(Arc::new(scene)));
        Ok(())
    }

    async fn look_closer(&mut self, scene: &mut Scene) -> Result<(), Problem> {
        let has_more = |lock: &&mut LockStatus| lock.waiter_count > lock.waiters.len() as u64;
        for lock in scene.locks.iter_mut().filter(has_more).take(CLOSE_LOOKS_MAX) {
            let name = lock.name.to_string();
            let answer = match self.line.look(Query::Lock { name }).await {
                Ok(answer) => answer,
                // It may be seen no more. What was seen of it a moment ago is told.
                Err(_) if self.look_at_all().await.is_ok() => continue,
                Err(problem) => return Err(problem),
            };
            if let ServerMessage::LockStatus { mut locks, .. } = answer
                && let Some(mut seen) = locks.pop()
                && seen.waiter_count > 0
            {
                seen.waiters.truncate(WAITERS_TOLD_MAX);
                *lock = seen;
            }
        }
        Ok(())
    }

    /// Looks at the coordinator as a whole.
    async fn look_at_all(&mut self) -> Result<(), Problem> {
        let status = status(&mut self.line).await?;
        self.status_at = Instant::now();
        self.told.send_replace(Arc::new((self.status_at, status)));
        Ok(())
    }
}

/// For how long the first waiter of a lock has waited.
pub(super) fn longest(lock: &LockStatus) -> u64 {
    lock.waiters.iter().map(|waiter| waiter.waiting_ms).max().unwrap_or_default()
}

/// The coordinator as a whole.
pub(super) async fn status(line: &mut Line) -> Result<ServerStatus, Problem> {
    match line.look(Query::Server).await? {
        ServerMessage::ServerStatus { status, .. } => Ok(*status),
        _ => Err(Problem::unavailable()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::CertificateName;

    /// Rule A3.
    #[tokio::test(start_paused = true)]
    async fn whoever_shows_something_else_has_a_lookout_of_its_own() {
        let proof =
            |name| Proof { credential: None, certified: vec![CertificateName::new(name).unwrap()] };
        let (scene, scenes) = watch::channel(None);
        let (_told, statuses) = watch::channel(Arc::new((Instant::now(), ServerStatus::default())));
        let wanted_until = StdMutex::new(Instant::now());
        let ended = OnceLock::new();
        let lookout = Arc::new(Lookout { scenes, statuses, wanted_until, ended });
        let mut all = vec![(proof("dns:ann"), Arc::clone(&lookout))];
        assert!(find(&mut all, &proof("dns:ann")).is_some());
        assert!(*lookout.wanted() > Instant::now(), "walks are wanted again");
        assert!(find(&mut all, &proof("dns:bob")).is_none());
        assert!(find(&mut all, &Proof::default()).is_none());
        drop(scene);
        assert!(find(&mut all, &proof("dns:ann")).is_none(), "it walks no more");
        assert!(all.is_empty(), "and is forgotten");
    }
}
