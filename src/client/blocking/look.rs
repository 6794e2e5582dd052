//! Observers, watches and events, for blocking code.

use std::iter::FusedIterator;
use std::sync::Arc;
use std::time::Duration;

use crate::types::FencingToken;
use crate::wire::{LockStatus, Outlook, ServerStatus, SessionStatus};

use super::super::connect::CONNECT_TIMEOUT_DEFAULT;
use super::{Background, Error};
use crate::client;
use client::{Event, Leadership, LockState, Servers};

/// A connection that only looks, or takes a lock away; see [`crate::Observer`].
#[derive(Debug)]
pub struct Observer {
    /// The observer proper. Dropped before its thread.
    inner: client::Observer,
    /// Its thread.
    background: Arc<Background>,
}

impl Observer {
    /// Connects to the coordinator at `servers`. This and every answer may take 5 s.
    ///
    /// # Errors
    ///
    /// As [`crate::Observer::connect`].
    pub fn connect(servers: impl Into<Servers>) -> Result<Self, Error> {
        Self::connect_timeout(servers, CONNECT_TIMEOUT_DEFAULT)
    }

    /// Connects to the coordinator at `servers`. This and every answer may take as long as
    /// `timeout`.
    ///
    /// # Errors
    ///
    /// As [`crate::Observer::connect`].
    pub fn connect_timeout(servers: impl Into<Servers>, timeout: Duration) -> Result<Self, Error> {
        let background = Background::start()?;
        let inner = background.wait(client::Observer::connect_timeout(servers, timeout))?;
        Ok(Self { inner, background })
    }

    /// The coordinator as a whole.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub fn server_status(&self) -> Result<ServerStatus, Error> {
        self.background.wait(self.inner.server_status())
    }

    /// All locks in use, in no particular order.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub fn locks(&self) -> Result<Vec<LockStatus>, Error> {
        self.background.wait(self.inner.locks())
    }

    /// The locks that somebody waits for, in no particular order.
    ///
    /// # Errors
    ///
    /// As [`crate::Observer::contended`].
    pub fn contended(&self) -> Result<Vec<LockStatus>, Error> {
        self.background.wait(self.inner.contended())
    }

    /// The lock `name`; `None` if nobody holds it or waits for it.
    ///
    /// # Errors
    ///
    /// As [`crate::Observer::lock`].
    pub fn lock(&self, name: impl AsRef<str>) -> Result<Option<LockStatus>, Error> {
        self.background.wait(self.inner.lock(name))
    }

    /// Until when the lock `name` is not to be had, as far as that is known.
    ///
    /// # Errors
    ///
    /// As [`crate::Observer::outlook`].
    pub fn outlook(&self, name: impl AsRef<str>) -> Result<Option<Outlook>, Error> {
        self.background.wait(self.inner.outlook(name))
    }

    /// Until when locks are not to be had, of all of which something is known.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub fn outlooks(&self) -> Result<Vec<Outlook>, Error> {
        self.background.wait(self.inner.outlooks())
    }

    /// All sessions, in no particular order.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub fn sessions(&self) -> Result<Vec<SessionStatus>, Error> {
        self.background.wait(self.inner.sessions())
    }

    /// Takes the lock `name` away from whoever holds it with `token`.
    ///
    /// # Errors
    ///
    /// As [`crate::Observer::revoke`].
    pub fn revoke(&self, name: impl AsRef<str>, token: FencingToken) -> Result<(), Error> {
        self.background.wait(self.inner.revoke(name, token))
    }

    /// The same, and says why.
    ///
    /// # Errors
    ///
    /// As [`crate::Observer::revoke_for`].
    pub fn revoke_for(
        &self,
        name: impl AsRef<str>,
        token: FencingToken,
        reason: impl AsRef<str>,
    ) -> Result<(), Error> {
        self.background.wait(self.inner.revoke_for(name, token, reason))
    }

    /// How long the coordinator takes to answer.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub fn ping(&self) -> Result<Duration, Error> {
        self.background.wait(self.inner.ping())
    }

    /// Watches the lock `name` from now on.
    ///
    /// # Errors
    ///
    /// As [`crate::Observer::watch`].
    pub fn watch(&self, name: impl AsRef<str>) -> Result<Watch, Error> {
        Ok(Watch::new(self.background.wait(self.inner.watch(name))?, &self.background))
    }

    /// The leaders of the election `name`, from now on.
    ///
    /// # Errors
    ///
    /// As [`crate::Observer::observe`].
    pub fn observe(&self, name: impl AsRef<str>) -> Result<Leaders, Error> {
        Ok(Leaders::new(self.background.wait(self.inner.observe(name))?, &self.background))
    }

    /// Listens to everything that happens to requests from now on: those that claim the lock `name`,
    /// or all of them.
    ///
    /// # Errors
    ///
    /// As [`crate::Observer::events`].
    pub fn events(self, name: Option<&str>) -> Result<Events, Error> {
        Ok(Events::new(self.background.wait(self.inner.events(name))?, &self.background))
    }
}

/// What is told as it comes. An error is the last item, as it is of the stream.
macro_rules! stream {
    ($(#[$doc:meta])* $stream:ident, $news:ty) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $stream {
            /// What is waited for. Dropped before its thread.
            inner: client::$stream,
            /// Its thread.
            background: Arc<Background>,
            /// Whether an error was told, after which there is nothing.
            has_ended: bool,
        }

        impl $stream {
            pub(super) fn new(inner: client::$stream, background: &Arc<Background>) -> Self {
                Self { inner, background: Arc::clone(background), has_ended: false }
            }
        }

        impl Iterator for $stream {
            type Item = Result<$news, Error>;

            fn next(&mut self) -> Option<Self::Item> {
                if self.has_ended {
                    return None;
                }
                let next = async { Ok(self.inner.next().await) };
                let next = self.background.wait(next).unwrap_or_else(|error| Some(Err(error)));
                self.has_ended = !matches!(next, Some(Ok(_)));
                next
            }
        }

        impl FusedIterator for $stream {}
    };
}

stream! {
    /// A lock as it is now, and whenever its holders have changed; see [`crate::Watch`]. As an
    /// iterator it waits for each change; an error is the last item.
    Watch, LockState
}

stream! {
    /// The leaders, as they come and go; see [`crate::Leaders`]. As an iterator it waits for each
    /// change, the change to nobody among them; an error is the last item.
    Leaders, Leadership
}

stream! {
    /// Everything that happens; see [`crate::Events`]. As an iterator it waits for each event; an
    /// error is the last item.
    Events, Event
}
