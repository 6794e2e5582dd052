//! The last words of a session: what is said, and waited for, when it is over.

use futures_util::future::join;

use super::link::Link;
use super::{Connector, Driver};
use crate::client::error::Error;
use crate::wire::ClientMessage;

impl<C: Connector> Driver<C> {
    /// Brings the last words out, and waits a moment for the server to have heard them.
    pub(super) async fn say_goodbye(&mut self) {
        let closing = self.closing.take();
        self.commands.close();
        self.say_goodbye_twice();
        // Of two connections, one is the session's, and only the server knows which.
        let (one, other) = join(self.link.farewell(), self.second.farewell()).await;
        let outcome = other.or(one);
        if let Some(closing) = closing {
            let _ = closing.send(outcome.map_err(|error| Error::unavailable(&self.server, error)));
        }
    }

    /// Over a second connection too, whose Hello the server may have heard.
    fn say_goodbye_twice(&mut self) {
        // It is as short as a message can be.
        let _fits = self.second.put(&ClientMessage::Goodbye);
    }
}

/// A driver that is dropped before its session is over is one whose runtime ends, as it does at the
/// end of most programs. There is nobody left to wait, but what fits into the socket still goes out
/// and spares the others the wait for our lease.
impl<C: Connector> Drop for Driver<C> {
    fn drop(&mut self) {
        if self.process.is_another() {
            return;
        }
        self.core.goodbye();
        self.settle();
        self.say_goodbye_twice();
        for link in [&mut self.link, &mut self.second] {
            if let Link::Up(connection) = link {
                connection.write_what_fits();
            }
        }
    }
}
