//! Work that is left over: what connections have said that no turn has come to yet (fair queuing), and
//! looks that are due.

use super::Desk;
use super::backlog::{Item, QUANTUM_STEPS};
use super::turn::Window;
use crate::types::{ConnectionId, Timestamp};

impl Desk {
    /// Puts something of a connection behind all that is waiting.
    pub(super) fn put_off(&mut self, connection: ConnectionId, item: Item) {
        self.backlog.push(connection, item);
        self.go_on_later();
    }

    /// Serves those who wait until this turn has done enough.
    pub(super) fn serve(&mut self, now: Timestamp) {
        while !self.is_spent()
            && let Some((connection, mut items)) = self.backlog.next()
        {
            let before = self.steps();
            self.speaks(connection);
            while self.steps() - before < QUANTUM_STEPS
                && let Some(item) = items.front_mut()
            {
                if let Item::Messages { rest, .. } = item
                    && let Some(message) = rest.front()
                    && self.is_to_rest(connection, message, now)
                {
                    for item in items.drain(..) {
                        self.looks.rest(connection, item);
                    }
                    break;
                }
                if self.serve_one(connection, item, now) {
                    items.pop_front();
                }
            }
            self.backlog.served(connection, items, self.steps() - before);
        }
    }

    /// Has those look who rested until now, as many as may; what else they have said is work as any other.
    pub(super) fn serve_looks(&mut self, now: Timestamp) {
        while !self.is_spent()
            && let Some((connection, mut items)) = self.looks.next(now)
        {
            if let Some(item) = items.front_mut()
                && self.serve_one(connection, item, now)
            {
                items.pop_front();
            }
            for item in items {
                self.put_off(connection, item);
            }
        }
    }

    /// Does the next thing that an item holds; says whether it was the last.
    fn serve_one(&mut self, connection: ConnectionId, item: &mut Item, now: Timestamp) -> bool {
        match item {
            Item::Messages { rest, window, .. } => {
                if let Some(message) = rest.pop_front() {
                    self.message(connection, &message, now);
                }
                let is_last = rest.is_empty();
                if is_last && *window == Window::Shut {
                    self.connections.acknowledge(connection);
                }
                is_last
            }
            Item::End => {
                self.end_connection(connection, now);
                true
            }
        }
    }
}
