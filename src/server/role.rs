//! How this coordinator stands among those of its cluster: for whoever asks, who is told without a look at the
//! arbiter. For people: nothing is decided by it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{BootClock, Clock, Until};
use crate::types::Timestamp;
use crate::wire::ClusterStatus;

/// How a coordinator stands among those of its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Role {
    /// The name of the cluster.
    pub cluster: String,
    /// The name of this coordinator in it.
    pub name: String,
    /// Whether it leads.
    pub leads: bool,
    /// Whether it leads, and may decide nothing before the arbiter answers.
    pub suspended: bool,
    /// Whether the arbiter has answered not long ago.
    pub reached: bool,
    /// How many positions the standby of the pair in sync, of which it is one, has yet to acknowledge; none: it
    /// is not in sync.
    pub behind: Option<u64>,
    /// The name of that standby; empty: it is not in sync, or the name is not known yet.
    pub standby: String,
    /// The term of the leader; 0: nobody is known to lead.
    pub term: u64,
    /// The leader's name; empty: nobody is known to lead.
    pub leader: String,
    /// Where clients reach the leader.
    pub address: String,
    /// For how long that leader has led, as far as this one knows.
    pub led: Duration,
}

impl Role {
    /// What a leader tells of it.
    pub(crate) fn status(self) -> ClusterStatus {
        ClusterStatus {
            cluster: self.cluster,
            leader: self.leader,
            term: self.term,
            led_ms: self.led.as_millis().try_into().unwrap_or(u64::MAX),
            behind: self.behind,
            standby: self.standby,
        }
    }
}

/// In words for people, as probes and errors have it.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, term, leader, address, .. } = self;
        let led = self.led.as_secs();
        match (self.leads, leader.as_str()) {
            (true, _) if self.suspended => {
                write!(f, "leads {cluster}, term {term}, for {led} s, and waits for etcd")
            }
            (true, _) => {
                write!(f, "leads {cluster}, term {term}, for {led} s; ")?;
                match (self.behind, self.standby.as_str()) {
                    (None, _) => f.write_str("no standby is in sync"),
                    (Some(_), "") => f.write_str("a standby is in sync"),
                    (Some(_), standby) => write!(f, "{standby} is in sync"),
                }
            }
            (false, "") => write!(f, "stands by; nobody leads {cluster}"),
            (false, leader) => {
                let sync = if self.behind.is_some() { ", in sync" } else { "" };
                write!(f, "stands by{sync}; {leader} leads {cluster} at {address}, ")?;
                write!(f, "term {term}, for {led} s")
            }
        }
    }
}

/// The role of now; none: there are no others.
#[derive(Debug, Default)]
pub(super) struct Roles(Mutex<Option<Stand>>);

/// How it stands, as others move it.
#[derive(Debug)]
struct Stand {
    /// What was told.
    role: Role,
    /// When this leadership was first told.
    since: Timestamp,
    /// Until when it may decide.
    until: Until,
    /// Until when the arbiter is not doubted.
    heard: Until,
    /// Whether a pair is in sync.
    synced: Synced,
}

impl Roles {
    /// It stands like this from now on.
    #[cfg(feature = "cluster")]
    pub(super) fn stand(&self, role: Role, (until, heard): (Until, Until), synced: &Synced) {
        let (mut stand, synced) = (locked(&self.0), synced.clone());
        let led = |role: &Role| (role.leads, role.term, role.leader.clone());
        let same = stand.as_ref().filter(|before| led(&before.role) == led(&role));
        let since = same.map_or_else(|| BootClock.now(), |before| before.since);
        *stand = Some(Stand { role, since, until, heard, synced });
    }

    /// How it stands now.
    pub(super) fn role(&self) -> Option<Role> {
        let stand = locked(&self.0);
        let Stand { role, since, until, heard, synced } = stand.as_ref()?;
        let suspended = role.leads && !until.is_ahead();
        let (reached, behind) = (heard.is_ahead(), synced.behind());
        let standby = match behind {
            None => String::new(),
            Some(_) if role.leads => locked(&synced.0.name).clone(),
            Some(_) => role.name.clone(),
        };
        let led = BootClock.now().since(*since);
        Some(Role { suspended, reached, behind, standby, led, ..role.clone() })
    }
}

/// How far behind the standby of a pair in sync is, as one thread says and others ask.
#[derive(Clone, Debug, Default)]
pub(super) struct Synced(Arc<Standby>);

#[derive(Debug)]
struct Standby {
    /// How many positions it has yet to acknowledge.
    behind: AtomicU64,
    /// Its name, as far as a leader knows.
    name: Mutex<String>,
}

/// It is in no such pair.
const NOT_SYNCED: u64 = u64::MAX;

impl Default for Standby {
    fn default() -> Self {
        Self { behind: AtomicU64::new(NOT_SYNCED), name: Mutex::default() }
    }
}

impl Synced {
    /// The standby has so many positions yet to acknowledge; none: none is in sync.
    #[cfg(feature = "cluster")]
    pub(super) fn is(&self, behind: Option<u64>) {
        self.0.behind.store(behind.unwrap_or(NOT_SYNCED), Ordering::Relaxed);
    }

    /// The standby in sync is called this.
    #[cfg(feature = "cluster")]
    pub(super) fn is_called(&self, name: String) {
        *locked(&self.0.name) = name;
    }

    fn behind(&self) -> Option<u64> {
        Some(self.0.behind.load(Ordering::Relaxed)).filter(|behind| *behind != NOT_SYNCED)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nobody panics while it is locked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, feature = "cluster"))]
mod tests {
    use super::*;

    /// Without how long it has been so: that is as long as the test stood still.
    fn told(roles: &Roles) -> String {
        let told = roles.role().unwrap().to_string();
        let Some((before, after)) = told.split_once(", for ") else { return told };
        let rest = after.find([',', ';']).map_or("", |at| &after[at..]);
        format!("{before}{rest}")
    }

    #[test]
    fn a_role_says_who_leads_and_who_is_in_sync() {
        let (roles, synced, ahead) = (Roles::default(), Synced::default(), Until::default());
        assert_eq!(roles.role(), None, "there are no others");
        ahead.move_to(BootClock.now().after(Duration::from_secs(3_600)));
        let own = Role { cluster: "prod".into(), name: "a".into(), ..Role::default() };
        let moments = || (ahead.clone(), ahead.clone());
        roles.stand(own.clone(), moments(), &synced);
        assert_eq!(told(&roles), "stands by; nobody leads prod");

        let b = Role { term: 7, leader: "b".into(), address: "b:5625".into(), ..own.clone() };
        roles.stand(b, moments(), &synced);
        assert_eq!(told(&roles), "stands by; b leads prod at b:5625, term 7");
        synced.is(Some(0));
        assert_eq!(told(&roles), "stands by, in sync; b leads prod at b:5625, term 7");
        assert_eq!(roles.role().unwrap().standby, "a");

        synced.is(None);
        let leads = Role { leads: true, term: 8, leader: "a".into(), ..own };
        roles.stand(leads.clone(), moments(), &synced);
        assert_eq!(told(&roles), "leads prod, term 8; no standby is in sync");
        synced.is(Some(3));
        assert_eq!(told(&roles), "leads prod, term 8; a standby is in sync");
        synced.is_called("c".into());
        assert_eq!(told(&roles), "leads prod, term 8; c is in sync");
        let suspended = (Until::default(), ahead.clone());
        roles.stand(leads, suspended, &synced);
        assert_eq!(told(&roles), "leads prod, term 8, and waits for etcd");
    }

    #[test]
    fn a_leadership_that_is_told_again_goes_on_since_it_began() {
        let (roles, synced) = (Roles::default(), Synced::default());
        let since = || locked(&roles.0).as_ref().unwrap().since;
        let leads = |term| Role { leads: true, term, ..Role::default() };
        let moments = || (Until::default(), Until::default());
        roles.stand(leads(1), moments(), &synced);
        let began = since();
        while BootClock.now() == began {}
        roles.stand(leads(1), moments(), &synced);
        assert_eq!(since(), began);
        roles.stand(leads(2), moments(), &synced);
        assert!(since() > began, "another term is another leadership");
    }
}
