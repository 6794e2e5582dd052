//! Whether a cycle that is reported as a deadlock is one, link by link.

use std::collections::HashSet;
use std::rc::Rc;

use super::{Live, Model, Name, same_owner};
use crate::engine::Request;
use crate::types::{CycleLink, LockName, SessionId};

impl Model {
    /// Checks the cycle with which a request was refused. It begins with that request; but for a
    /// conversion that would be granted, to leave others waiting for ever: then with another request
    /// of its owner, which waits.
    pub(super) fn check_cycle(
        &self,
        session: SessionId,
        asked: &Request,
        cycle: &[CycleLink],
    ) -> Result<(), String> {
        let mut model = self.clone();
        let older = self.superseded_by(asked);
        model.live.retain(|live| !older.iter().any(|(name, _)| *name == live.name()));
        model.live.push(Live {
            session,
            asked: Rc::new(asked.clone()),
            came: self.now,
            token: None,
        });
        let first = cycle.first().ok_or("the cycle is empty")?;
        let refused = (session, asked.id);
        let is_right = if model.left_over().contains(&refused) {
            (first.session, first.request) == refused
        } else {
            (first.session, first.owner) == (session, asked.owner)
        };
        if !is_right {
            return Err(format!("the first is {first:?}, not the request that is refused"));
        }
        let mut seen = HashSet::new();
        for (i, link) in cycle.iter().enumerate() {
            if !seen.insert((link.session, link.request)) {
                return Err(format!("{link:?} is in it twice"));
            }
            model.check_link(link, &cycle[(i + 1) % cycle.len()])?;
        }
        Ok(())
    }

    /// One really waits for that lock, and the next really keeps it from it.
    fn check_link(&self, link: &CycleLink, next: &CycleLink) -> Result<(), String> {
        let waits = self.waiting((link.session, link.request))?;
        if waits.asked.owner != link.owner {
            return Err(format!("{link:?} has the owner {}", waits.asked.owner));
        }
        if waits.mode(&link.lock).is_none() {
            return Err(format!("{link:?} does not wait for this lock"));
        }
        let next = self.waiting((next.session, next.request))?;
        let stands_in_the_way = match link.held_with {
            Some(token) => self.live.iter().any(|live| {
                let holds = live.token == Some(token) && live.mode(&link.lock).is_some();
                holds && same_owner(live, next)
            }),
            None => self.ahead(waits.name(), &link.lock).any(|live| same_owner(live, next)),
        };
        if stands_in_the_way {
            Ok(())
        } else {
            Err(format!("{link:?} does not wait for {:?}", next.name()))
        }
    }

    fn waiting(&self, name: Name) -> Result<&Live, String> {
        let live = self.find(name).map(|i| &self.live[i]).filter(|live| live.token.is_none());
        live.ok_or_else(|| format!("{name:?} does not wait"))
    }

    /// Those who are ahead of one in the queue of a lock.
    fn ahead(&self, name: Name, lock: &LockName) -> impl Iterator<Item = &Live> {
        let queue = self.queue(lock).into_iter().map(|i| &self.live[i]);
        queue.take_while(move |live| live.name() != name)
    }
}
