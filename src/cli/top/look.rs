//! A look at the coordinator: what the screen that is shown needs, and no more.

use coordinator::wire::{LockStatus, Outlook, ServerStatus, SessionStatus, WaitedStatus};
use coordinator::{Error, Observer};

/// Lists longer than this are not fetched: nobody reads them, and each look would take seconds.
pub(super) const LIST_LEN_MAX: usize = 10_000;
/// Locks that nobody holds, of which it is asked why: others are seen when they are looked into.
const OUTLOOKS_MAX: usize = 10;

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The locks that somebody waits for.
    Waits,
    /// All locks.
    Locks,
    /// The sessions.
    Sessions,
    /// What happens: it is heard of, not looked at.
    Events,
    /// One lock, with all of its waiters that an answer has room for.
    Lock(String),
}

/// What was seen.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    /// The coordinator as a whole.
    pub(super) server: ServerStatus,
    /// The rest.
    pub(super) list: List,
    /// For how long grants were waited for so far; none if the coordinator does not know the question.
    pub(super) waited: Option<WaitedStatus>,
    /// The lock that was selected, and whether it may be broken; none if that is not known.
    pub(super) breakable: Option<(String, bool)>,
    /// Why locks that are waited for are held by nobody.
    pub(super) outlooks: Vec<Outlook>,
}

/// What is in a screen's table.
#[derive(Clone, Debug)]
pub(super) enum List {
    /// Locks that somebody waits for.
    Waits(Vec<LockStatus>),
    /// Locks in use.
    Locks(Vec<LockStatus>),
    /// Sessions.
    Sessions(Vec<SessionStatus>),
    /// What has been heard of is shown.
    Events,
    /// One lock; none if it is free.
    Lock(String, Option<LockStatus>),
    /// There are more than are listed.
    TooMany(Wanted),
}

impl List {
    /// What it is an answer to.
    pub(super) fn answers(&self) -> Wanted {
        match self {
            Self::Waits(_) => Wanted::Waits,
            Self::Locks(_) => Wanted::Locks,
            Self::Sessions(_) => Wanted::Sessions,
            Self::Events => Wanted::Events,
            Self::Lock(name, _) => Wanted::Lock(name.clone()),
            Self::TooMany(wanted) => wanted.clone(),
        }
    }

    /// The locks in it.
    pub(super) fn locks(&self) -> &[LockStatus] {
        match self {
            Self::Waits(locks) | Self::Locks(locks) => locks,
            Self::Lock(_, lock) => lock.as_slice(),
            Self::Sessions(_) | Self::Events | Self::TooMany(_) => &[],
        }
    }
}

/// Who looks.
#[derive(Debug)]
pub(super) struct Eyes {
    /// For what every coordinator tells.
    pub(super) main: Observer,
    /// For what one of an earlier version does not know: that ends its connection, and no other.
    pub(super) beside: Option<Observer>,
}

impl Eyes {
    /// For how long grants were waited for, and whether a lock may be broken; as far as that is told.
    async fn look_beside(
        &self,
        selected: Option<String>,
    ) -> (Option<WaitedStatus>, Option<(String, bool)>) {
        let Some(beside) = &self.beside else { return (None, None) };
        let waited = beside.waited().await.ok();
        let Some(name) = selected else { return (waited, None) };
        let verbs = beside.rights(&name).await.ok();
        let may = verbs.map(|verbs| verbs.iter().any(|verb| verb == "break"));
        (waited, may.map(|may| (name, may)))
    }
}

/// Looks. The coordinator as a whole comes first: how long the lists are is known by it.
pub(super) async fn look(
    eyes: &Eyes,
    wanted: &Wanted,
    selected: Option<String>,
) -> Result<Sight, Error> {
    let observer = &eyes.main;
    let server = observer.server_status().await?;
    let is_short = |length: u64| length <= LIST_LEN_MAX as u64;
    let list = match wanted {
        // How many of the locks are waited for is not known beforehand.
        Wanted::Waits => observer.contended_at_most(LIST_LEN_MAX).await?.map(List::Waits),
        Wanted::Locks if is_short(server.locks) => Some(List::Locks(observer.locks().await?)),
        Wanted::Sessions if is_short(server.sessions) => {
            Some(List::Sessions(observer.sessions().await?))
        }
        Wanted::Locks | Wanted::Sessions => None,
        Wanted::Events => Some(List::Events),
        Wanted::Lock(name) => Some(List::Lock(name.clone(), observer.lock(name).await?)),
    };
    let list = list.unwrap_or_else(|| List::TooMany(wanted.clone()));
    let mut outlooks = Vec::new();
    let is_kept = |lock: &&LockStatus| lock.holders.is_empty();
    for lock in list.locks().iter().filter(is_kept).take(OUTLOOKS_MAX) {
        outlooks.extend(observer.outlook(&lock.name).await?);
    }
    let (counted, breakable) = eyes.look_beside(selected).await;
    Ok(Sight { server, list, waited: counted, breakable, outlooks })
}
