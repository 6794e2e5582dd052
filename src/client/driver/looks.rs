//! Who is told what is seen: who asked once, who watches a lock, who listens.
//!
//! Nobody who is slow holds up the driver. Of a lock the latest state replaces the one before; of events
//! the oldest leave when there are too many, and are counted.

use std::collections::HashMap;

use tokio::sync::{broadcast, oneshot, watch};

use crate::client::core::{Look, Refusal};
use crate::client::error::Error;
use crate::client::shared::{NEWS_MAX, NewLook, News};
use crate::wire::ServerMessage;

use super::{Connector, Driver};

/// With fewer of them than this, nobody looks for those who have gone without saying so.
const ONLOOKERS_UNCHECKED_MAX: usize = 64;

/// Who is to be told.
pub(super) enum Onlooker {
    /// Who asked once.
    Once(oneshot::Sender<Result<ServerMessage, Error>>),
    /// All who watch a lock.
    Watchers {
        /// The lock.
        name: String,
        /// Where they see it.
        seen: watch::Sender<Option<News>>,
    },
    /// Who listens.
    Listener(broadcast::Sender<News>),
}

impl Onlooker {
    /// Whether there is nobody any more.
    fn is_gone(&self) -> bool {
        match self {
            Self::Once(answer) => answer.is_closed(),
            Self::Watchers { seen, .. } => seen.receiver_count() == 0,
            Self::Listener(heard) => heard.receiver_count() == 0,
        }
    }
}

/// All who look.
#[derive(Default)]
pub(super) struct Onlookers {
    /// By their looks.
    by_look: HashMap<u64, Onlooker>,
    /// The looks of the locks that are watched: the server shows each once.
    watched: HashMap<String, u64>,
    /// Of which watched locks something new is seen, and not yet told.
    changed: Vec<u64>,
    /// With so many, those are looked for who are gone.
    checked_at: usize,
}

impl<C: Connector> Driver<C> {
    /// Somebody wants to see something.
    pub(super) fn look(&mut self, new: NewLook) {
        self.forget_who_is_gone();
        match new {
            NewLook::Once { look, answer } => {
                self.begin_look(look, Onlooker::Once(answer));
            }
            NewLook::Watch { name, seen } => self.watch_lock(name, seen),
            NewLook::Listen { name, heard } => {
                let (sender, receiver) = broadcast::channel(NEWS_MAX);
                let look = self.begin_look(Look::Listen { name }, Onlooker::Listener(sender));
                if heard.send((look, receiver)).is_err() {
                    self.look_away(look);
                }
            }
        }
    }

    fn begin_look(&mut self, look: Look, onlooker: Onlooker) -> u64 {
        let look = self.core.look(look);
        self.onlookers.by_look.insert(look, onlooker);
        look
    }

    fn watch_lock(
        &mut self,
        name: String,
        reply: oneshot::Sender<(u64, watch::Receiver<Option<News>>)>,
    ) {
        let known = self.onlookers.watched.get(&name).copied();
        let watchers = known.and_then(|look| Some((look, self.onlookers.by_look.get(&look)?)));
        let (look, receiver) = match watchers {
            Some((look, Onlooker::Watchers { seen, .. })) => {
                // Which has seen what was shown before: also who comes later waits for what is so now.
                let receiver = seen.subscribe();
                self.core.look_again(look);
                (look, receiver)
            }
            Some((_, Onlooker::Once(_) | Onlooker::Listener(_))) | None => {
                let (seen, receiver) = watch::channel(None);
                let watchers = Onlooker::Watchers { name: name.clone(), seen };
                let look = self.begin_look(Look::Watch { name: name.clone() }, watchers);
                self.onlookers.watched.insert(name, look);
                (look, receiver)
            }
        };
        if reply.send((look, receiver)).is_err() {
            self.look_away(look);
        }
    }

    /// One of those who look has gone; if it was the last, nobody looks.
    pub(super) fn look_away(&mut self, look: u64) {
        if self.onlookers.by_look.get(&look).is_some_and(Onlooker::is_gone) {
            self.forget_onlooker(look);
            self.core.look_away(look);
        }
    }

    fn forget_onlooker(&mut self, look: u64) -> Option<Onlooker> {
        let onlooker = self.onlookers.by_look.remove(&look)?;
        if let Onlooker::Watchers { name, .. } = &onlooker {
            self.onlookers.watched.remove(name);
        }
        Some(onlooker)
    }

    /// Calls that were dropped say nothing; so now and then they are looked for, which costs each look
    /// a few steps.
    fn forget_who_is_gone(&mut self) {
        if self.onlookers.by_look.len() < self.onlookers.checked_at.max(ONLOOKERS_UNCHECKED_MAX) {
            return;
        }
        let looks: Vec<u64> = self.onlookers.by_look.keys().copied().collect();
        for look in looks {
            self.look_away(look);
        }
        self.onlookers.checked_at = self.onlookers.by_look.len() * 2;
    }

    /// Shows what is seen.
    pub(super) fn show(&mut self, look: u64, answer: Box<ServerMessage>) {
        match self.onlookers.by_look.get(&look) {
            Some(Onlooker::Once(_)) => {
                if let Some(Onlooker::Once(asked)) = self.forget_onlooker(look) {
                    let _ = asked.send(Ok(*answer));
                }
            }
            Some(Onlooker::Watchers { seen, .. }) => {
                // What came together is told as one.
                seen.send_if_modified(|news| {
                    *news = Some(News::Seen(answer));
                    false
                });
                if self.onlookers.changed.last() != Some(&look) {
                    self.onlookers.changed.push(look);
                }
            }
            Some(Onlooker::Listener(heard)) => {
                let _ = heard.send(News::Seen(answer));
            }
            None => {}
        }
    }

    /// Tells who watches what was shown, all of it.
    pub(super) fn tell_watchers(&mut self) {
        for look in self.onlookers.changed.drain(..) {
            if let Some(Onlooker::Watchers { seen, .. }) = self.onlookers.by_look.get(&look) {
                seen.send_modify(|_| {});
            }
        }
    }

    /// Tells who listens that there is nothing to hear for a while.
    pub(super) fn interrupt(&mut self, look: u64) {
        if let Some(Onlooker::Listener(heard)) = self.onlookers.by_look.get(&look) {
            let _ = heard.send(News::Interrupted(self.away()));
        }
    }

    /// Tells who looks that there is nothing more to see.
    pub(super) fn end_look(&mut self, look: u64, refusal: Refusal) {
        let Some(onlooker) = self.forget_onlooker(look) else { return };
        let error = self.failure(refusal).without_lock();
        match onlooker {
            Onlooker::Once(asked) => drop(asked.send(Err(error))),
            Onlooker::Watchers { seen, .. } => drop(seen.send_replace(Some(News::Over(error)))),
            Onlooker::Listener(heard) => drop(heard.send(News::Over(error))),
        }
    }
}
