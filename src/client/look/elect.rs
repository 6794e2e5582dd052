//! Leader election: the holder of a lock leads, and everybody can see who that is.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};

use crate::types::{FencingToken, Identity, SessionId};

use super::watch::{LockState, Watch};
use crate::client::error::Error;

/// The leader.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leader {
    /// The value with which it stood for election.
    pub value: String,
    /// The token of its term, greater than that of every term before. A resource can refuse orders
    /// of deposed leaders (fencing): see [`FenceGuard`](crate::FenceGuard).
    pub token: FencingToken,
    /// The identity of its session.
    pub identity: Identity,
    /// Its session.
    pub session: SessionId,
    /// Since when, as far as the clocks and the way here let it be known.
    pub since: Instant,
}

/// How an election was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// Nobody leads.
    Vacant,
    /// Somebody leads.
    LedBy(Leader),
}

impl Leadership {
    /// The leader; `None` if nobody leads.
    pub fn leader(self) -> Option<Leader> {
        match self {
            Self::Vacant => None,
            Self::LedBy(leader) => Some(leader),
        }
    }

    fn of(state: LockState) -> Self {
        let holder = state.in_use().and_then(|lock| lock.holders.into_iter().next());
        let Some(holder) = holder else { return Self::Vacant };
        let now = Instant::now();
        Self::LedBy(Leader {
            value: holder.note.into(),
            token: holder.token,
            identity: holder.identity,
            session: holder.session,
            since: now.checked_sub(Duration::from_millis(holder.held_ms)).unwrap_or(now),
        })
    }

    const fn term(&self) -> Term {
        match self {
            Self::Vacant => Term::Vacant,
            Self::LedBy(leader) => Term::Led(leader.token),
        }
    }
}

/// Tells two observations of an election apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Term {
    /// Nobody leads.
    Vacant,
    /// Somebody does, with this token.
    Led(FencingToken),
}

/// The leaders of one election as they come and go, made by
/// [`Client::observe`](crate::Client::observe).
///
/// A stream of observations: who leads now, then whenever somebody else does, or the same anew, or
/// nobody. Terms that are over before anybody looks are left out. An error is the last item, and
/// `None` comes only after it.
///
/// Each observation was true at the coordinator a moment ago. A leader that lost the lead, or is
/// cut off, may not know it yet. Without a connection nothing is told at all. So work that must not
/// be done by two leaders needs the token of the term, whoever looks on.
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: coordinator::Client) -> Result<(), coordinator::Error> {
/// use coordinator::Leadership;
///
/// let mut leaders = client.observe("scheduler").await?;
/// while let Some(leadership) = leaders.next().await {
///     match leadership? {
///         Leadership::LedBy(leader) => println!("{} leads, term {}", leader.value, leader.token),
///         Leadership::Vacant => println!("nobody leads"),
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Leaders {
    /// The lock they hold.
    watch: Watch,
    /// The term that was told last; none: nothing yet.
    told: Option<Term>,
}

impl Leaders {
    pub(in crate::client) fn new(watch: Watch) -> Self {
        Self { watch, told: None }
    }

    /// The present leader, then every change; a vacancy is [`Leadership::Vacant`].
    ///
    /// `None` only after an error, which is the last item; the errors are those of [`Watch::next`].
    ///
    /// # Cancel safety
    ///
    /// Nothing is missed if this is dropped before it is done.
    pub async fn next(&mut self) -> Option<Result<Leadership, Error>> {
        StreamExt::next(self).await
    }
}

impl Stream for Leaders {
    type Item = Result<Leadership, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let leadership = match ready!(self.watch.poll_next_unpin(context)) {
                Some(Ok(state)) => Leadership::of(state),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            let term = Some(leadership.term());
            if term != self.told {
                self.told = term;
                return Poll::Ready(Some(Ok(leadership)));
            }
        }
    }
}
