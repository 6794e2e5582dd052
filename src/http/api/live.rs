//! `/api/v1/live` and `/api/v1/events`: what goes on as it happens.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::select;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::line::Line;
use super::lookout::{Lookout, Scene};
use super::shown::{self, Figured, Seen};
use super::stream::{HEARTBEAT, Over, Sink};
use crate::http::problem::Problem;
use crate::json;
use crate::wire::{
    ClientMessage, Holder, LockStatus, Outlook, Pause, Query, ServerMessage, Waiter,
};

/// How often a lock that is named is looked at.
const LOCK_PAUSE: Duration = Duration::from_secs(1);
/// What has not changed is told again after this: ages that others count on go wrong by themselves.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How often a line says that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Tells of the coordinator, of waits, and of the lock that is named: at once, then what changes.
pub(super) async fn live(
    sink: Sink,
    lookout: Arc<Lookout>,
    figured: Figured,
    mut lock: Option<(Line, String)>,
) {
    let problem = loop_live(&sink, &lookout, &figured, &mut lock).await;
    if let Some(problem) = problem {
        sink.end(&problem).await;
    }
}

/// Until nobody reads any more, or there is nothing to tell any more, and why.
async fn loop_live(
    sink: &Sink,
    lookout: &Lookout,
    figured: &Figured,
    lock: &mut Option<(Line, String)>,
) -> Option<Problem> {
    let (mut scenes, mut statuses) = (lookout.scenes(), lookout.statuses());
    let (mut of_waits, mut of_lock) = (Told::default(), Told::default());
    let mut pause = interval(LOCK_PAUSE);
    pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
    statuses.mark_changed();
    scenes.mark_changed();
    loop {
        lookout.want();
        let said = select! {
            changed = statuses.changed() => {
                if changed.is_err() {
                    return Some(lookout.why_ended());
                }
                let status = Arc::clone(&statuses.borrow_and_update());
                sink.event("server", &figured.server(&status.1).await).await
            }
            changed = scenes.changed() => {
                if changed.is_err() {
                    return Some(lookout.why_ended());
                }
                let scene = scenes.borrow_and_update().clone();
                match scene {
                    Some(scene) => tell_waits(sink, &scene, &mut of_waits).await,
                    None => Ok(()),
                }
            }
            _ = pause.tick(), if lock.is_some() => {
                let Some((line, name)) = lock else { continue };
                match shown::one(line, name).await {
                    Ok(seen) => tell_lock(sink, &seen, &mut of_lock).await,
                    Err(problem) => return Some(problem),
                }
            }
        };
        if said.is_err() {
            return None;
        }
    }
}

/// What was told last.
#[derive(Debug, Default)]
struct Told {
    /// The digest of all of it but its ages; and when.
    last: Option<(u64, Instant)>,
}

impl Told {
    /// Whether it is to be told: it is another, or was told long ago.
    fn is_news(&mut self, digest: u64) -> bool {
        let is_old = |(last, at): (u64, Instant)| last != digest || at.elapsed() > AGAIN_AFTER;
        let is_news = self.last.is_none_or(is_old);
        if is_news {
            self.last = Some((digest, Instant::now()));
        }
        is_news
    }
}

async fn tell_waits(sink: &Sink, scene: &Scene, told: &mut Told) -> Result<(), Over> {
    let mut hasher = DefaultHasher::new();
    (scene.contended, scene.waiting).hash(&mut hasher);
    for lock in &scene.locks {
        hash(lock, &mut hasher);
    }
    for outlook in &scene.outlooks {
        hash_outlook(outlook, &mut hasher);
    }
    if told.is_news(hasher.finish()) {
        sink.event("waits", &shown::waits(scene, usize::MAX)).await
    } else {
        let age = json!({"age_ms": shown::millis(scene.at.elapsed())});
        sink.event("same", &age).await
    }
}

async fn tell_lock(sink: &Sink, seen: &Seen, told: &mut Told) -> Result<(), Over> {
    let mut hasher = DefaultHasher::new();
    if let Some(lock) = &seen.lock {
        hash(lock, &mut hasher);
    }
    if let Some(outlook) = &seen.outlook {
        hash_outlook(outlook, &mut hasher);
    }
    if told.is_news(hasher.finish()) { sink.event("lock", &seen.shown).await } else { Ok(()) }
}

/// All of a lock but its ages. Whatever is told of it is named here, so that nothing new is forgotten.
fn hash(lock: &LockStatus, hasher: &mut DefaultHasher) {
    let LockStatus { name, holders, holder_count, waiters, waiter_count } = lock;
    (name.as_str(), holder_count, holders.len(), waiter_count, waiters.len()).hash(hasher);
    for holder in holders {
        let Holder {
            session,
            identity,
            peer,
            owner,
            request,
            mode,
            token,
            held_ms: _,
            note,
            connected,
        } = holder;
        (session.number(), identity.as_str(), peer, owner.number(), request.number()).hash(hasher);
        (mode, token.number(), note.as_str(), connected).hash(hasher);
    }
    for waiter in waiters {
        let Waiter { session, identity, peer, owner, request, mode, waiting_ms: _, note } = waiter;
        (session.number(), identity.as_str(), peer, owner.number(), request.number()).hash(hasher);
        (mode, note.as_str()).hash(hasher);
    }
}

/// All of an outlook but its ages.
fn hash_outlook(outlook: &Outlook, hasher: &mut DefaultHasher) {
    let Outlook { name, free_ms, pauses } = outlook;
    (name.as_str(), free_ms.is_some(), pauses.len()).hash(hasher);
    for pause in pauses {
        let Pause { after, session, identity, token, granted_ms: _, length_ms, left_ms: _ } = pause;
        std::mem::discriminant(after).hash(hasher);
        (session.number(), identity.as_str(), token.number(), length_ms).hash(hasher);
    }
}

/// Tells what happens to requests, each a line of JSON.
pub(super) async fn events(sink: Sink, mut line: Line) {
    let (mut heartbeat, mut keep_alive) = (interval(HEARTBEAT), interval(KEEP_ALIVE));
    let mut sequence = 0;
    loop {
        let said = select! {
            message = line.next() => match message {
                Ok(message) => tell_event(&sink, message).await,
                Err(problem) => return sink.end(&problem).await,
            },
            _ = heartbeat.tick() => sink.heartbeat().await,
            _ = keep_alive.tick() => {
                sequence += 1;
                if let Err(problem) = line.say(ClientMessage::KeepAlive { sequence }).await {
                    return sink.end(&problem).await;
                }
                Ok(())
            }
        };
        if said.is_err() {
            return;
        }
    }
}

async fn tell_event(sink: &Sink, message: ServerMessage) -> Result<(), Over> {
    match message {
        ServerMessage::Event { at_ms, session, identity, request, claims, what } => {
            let event = json::event(at_ms, (session, &identity), (request, &claims), &what);
            sink.data(&event).await
        }
        ServerMessage::Missed { count } => sink.event("missed", &json::missed(count)).await,
        _ => Ok(()),
    }
}

/// Has a line hear of events from now on.
pub(super) async fn subscribe(line: &mut Line, lock: Option<String>) -> Result<(), Problem> {
    let subscribed = line.ask(|query_id| ClientMessage::Subscribe { query_id, name: lock }).await?;
    match subscribed {
        ServerMessage::Subscribed { .. } => Ok(()),
        _ => Err(Problem::unavailable()),
    }
}

/// Has a line ask for a lock, to find out whether it may be seen.
pub(super) async fn may_see(line: &mut Line, name: &str) -> Result<(), Problem> {
    line.look(Query::Lock { name: name.to_owned() }).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{FencingToken, Mode, OwnerId, RequestId, SessionId};
    use crate::wire::After;

    fn lock() -> LockStatus {
        let holder = Holder {
            session: SessionId(1),
            identity: "ann".parse().unwrap(),
            peer: "10.0.0.7:41000".to_owned(),
            owner: OwnerId(0),
            request: RequestId(1),
            mode: Mode::Exclusive,
            token: FencingToken::new(7),
            held_ms: 1,
            note: "".parse().unwrap(),
            connected: true,
        };
        let waiter = Waiter {
            session: SessionId(2),
            identity: "bob".parse().unwrap(),
            peer: "10.0.0.8:41000".to_owned(),
            owner: OwnerId(0),
            request: RequestId(1),
            mode: Mode::Exclusive,
            waiting_ms: 1,
            note: "".parse().unwrap(),
        };
        let (holders, waiters) = (vec![holder], vec![waiter]);
        let name = "x".parse().unwrap();
        LockStatus { name, holders, holder_count: 1, waiters, waiter_count: 1 }
    }

    fn digest(change: impl FnOnce(&mut LockStatus)) -> u64 {
        let (mut lock, mut hasher) = (lock(), DefaultHasher::new());
        change(&mut lock);
        hash(&lock, &mut hasher);
        hasher.finish()
    }

    #[test]
    fn whatever_changes_of_a_lock_is_news_and_its_ages_are_not() {
        let before = digest(|_| ());
        assert_eq!(digest(|lock| lock.holders[0].held_ms = 9), before);
        assert_eq!(digest(|lock| lock.waiters[0].waiting_ms = 9), before);
        let changes: [fn(&mut LockStatus); 8] = [
            |lock| lock.holders[0].mode = Mode::Shared,
            |lock| lock.holders[0].note = "v2".parse().unwrap(),
            |lock| lock.holders[0].peer = "10.0.0.9:1".to_owned(),
            |lock| lock.holders[0].connected = false,
            |lock| lock.waiters[0].mode = Mode::Shared,
            |lock| lock.waiters[0].note = "v2".parse().unwrap(),
            |lock| lock.waiters[0].peer = "10.0.0.9:1".to_owned(),
            |lock| lock.waiter_count = 2,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert_ne!(digest(change), before, "change {number}");
        }
    }

    #[test]
    fn a_pause_that_begins_is_news_and_what_is_left_of_it_is_not() {
        let digest = |left_ms, after: Option<After>| {
            let pause = |after| Pause {
                after,
                session: SessionId(1),
                identity: "ann".parse().unwrap(),
                token: FencingToken::new(7),
                granted_ms: 10_000 - left_ms,
                length_ms: 9,
                left_ms,
            };
            let pauses = after.map(pause).into_iter().collect();
            let name = "x".parse().unwrap();
            let mut hasher = DefaultHasher::new();
            hash_outlook(&Outlook { name, free_ms: Some(left_ms), pauses }, &mut hasher);
            hasher.finish()
        };
        let before = digest(9, Some(After::Loss));
        assert_eq!(digest(3, Some(After::Loss)), before);
        assert_ne!(digest(9, None), before);
    }
}
