//! Until when a lock is not to be had, in words.
//!
//! A lock that nobody holds may be kept free for a while. Of a holder without a connection, the end
//! of its lease is known.

use std::time::Duration;

use coordinator::wire::{After, Holder, LockStatus, Outlook, Pause};
use coordinator::{Error, Observer, Servers};
use tokio::time::timeout;

use super::words;

/// How long it may take to learn it, for who was told already that the lock is busy.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// Until when a lock is not to be had, as far as that is known.
#[derive(Debug, Default)]
pub(crate) struct Prospect {
    /// Of the lock itself.
    pub(crate) lock: Option<Outlook>,
    /// Milliseconds of a grace period that are left: nobody but former holders is granted anything.
    pub(crate) grace_ms: u64,
}

/// What is known of a lock that is busy, as far as it can be learned soon.
pub(crate) async fn of(servers: &Servers, lock: &LockStatus) -> Prospect {
    let asked = async {
        let observer = Observer::connect_timeout(servers, LOOK_MAX).await?;
        let outlook = observer.outlook(&lock.name).await?;
        // Somebody holds it, or it is kept: that is reason enough.
        let is_free = lock.holders.is_empty() && outlook.is_none();
        let grace_ms = if is_free { observer.server_status().await?.grace_ms } else { 0 };
        Ok::<_, Error>(Prospect { lock: outlook, grace_ms })
    };
    timeout(LOOK_MAX, asked).await.ok().and_then(Result::ok).unwrap_or_default()
}

/// Why nobody is granted a lock that nobody holds: `but kept for 4s more: …`.
pub(crate) fn why_withheld(prospect: &Prospect) -> String {
    if let Some(kept) = prospect.lock.as_ref().and_then(why_kept) {
        return format!("but {kept}");
    }
    if prospect.grace_ms > 0 {
        let left = up(prospect.grace_ms);
        return format!("but a grace period has {left} left: only former holders are granted");
    }
    "but others are ahead of you".to_owned()
}

/// `kept free for 4s more: its holder was lost`, if nobody may have the lock though nobody holds it.
pub(crate) fn why_kept(outlook: &Outlook) -> Option<String> {
    let last = outlook.pauses.iter().max_by_key(|pause| pause.left_ms)?;
    why(last)
}

/// The same of one pause.
pub(crate) fn why(pause: &Pause) -> Option<String> {
    let left = up(pause.left_ms);
    match pause.after {
        After::Loss => Some(format!("kept free for {left} more: its holder was lost")),
        After::Grant => {
            let (length, ago) = (words::millis(pause.length_ms), words::millis(pause.granted_ms));
            Some(format!("kept for {left} more: at least {length} from its grant {ago} ago"))
        }
        _ => None,
    }
}

/// Whose hold it is kept after: `ann@build7:8123`, the separator, `token 7`.
pub(crate) fn after_whom(outlook: &Outlook, separator: &str) -> Option<String> {
    let last = outlook.pauses.iter().max_by_key(|pause| pause.left_ms)?;
    Some(format!("{}{separator}token {}", words::who(&last.identity, ""), last.token))
}

/// A wait that is worth its while, as `-w` takes it: `10m`, or longer if nobody gets the lock before.
pub(crate) fn wait_worth(outlook: Option<&Outlook>) -> String {
    let left = outlook.and_then(|it| it.pauses.iter().map(|pause| pause.left_ms).max());
    match left.unwrap_or_default() / 60_000 + 1 {
        ..=10 => "10m".to_owned(),
        minutes @ ..=119 => format!("{minutes}m"),
        minutes => format!("{}h", minutes.div_ceil(60)),
    }
}

/// `in 7s at the latest, unless its holder comes back`, if a lock that is held will be free.
pub(crate) fn free_by(holders: &[Holder], outlook: &Outlook) -> Option<String> {
    let left = up(outlook.free_ms?);
    // Of one that is there, the end is known only if nothing that is heard keeps it.
    let is_there = holders.iter().all(|holder| holder.connected);
    let unless = if is_there { "it is prolonged" } else { "its holder comes back" };
    Some(format!("in {left} at the latest, unless {unless}"))
}

/// A little is never nothing.
fn up(ms: u64) -> String {
    words::millis(ms.div_ceil(1_000).max(1).saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use coordinator::types::{FencingToken, Note, OwnerId, RequestId, SessionId};
    use coordinator::wire::Mode;

    use super::*;

    fn pause(after: After, left_ms: u64) -> Pause {
        Pause {
            after,
            session: SessionId(1),
            identity: "ann@build7:8123".parse().unwrap(),
            token: FencingToken(7),
            granted_ms: 60_000,
            length_ms: 300_000,
            left_ms,
        }
    }

    fn holder(connected: bool) -> Holder {
        Holder {
            session: SessionId(1),
            identity: "ann@build7:8123".parse().unwrap(),
            peer: String::new(),
            owner: OwnerId::default(),
            request: RequestId(1),
            mode: Mode::Exclusive,
            token: FencingToken(7),
            held_ms: 1,
            note: Note::default(),
            connected,
        }
    }

    fn outlook(pauses: Vec<Pause>, free_ms: Option<u64>) -> Outlook {
        Outlook { name: "deploy".parse().unwrap(), free_ms, pauses }
    }

    #[test]
    fn of_two_reasons_the_one_is_told_that_ends_last() {
        let both = vec![pause(After::Loss, 3_001), pause(After::Grant, 240_000)];
        let told = why_kept(&outlook(both, None));
        assert_eq!(told.unwrap(), "kept for 4m more: at least 5m from its grant 1m ago");
        let lost = outlook(vec![pause(After::Loss, 3_001)], None);
        assert_eq!(why_kept(&lost).unwrap(), "kept free for 4s more: its holder was lost");
        assert_eq!(why_kept(&outlook(vec![], Some(1))), None);
    }

    #[test]
    fn what_nobody_holds_is_withheld_by_a_grace_period_or_by_those_ahead() {
        let lock = |pauses| Some(outlook(pauses, None));
        let told = |lock, grace_ms| why_withheld(&Prospect { lock, grace_ms });
        let grace = "but a grace period has 1h left: only former holders are granted";
        assert_eq!(told(None, 3_600_000), grace);
        assert_eq!(told(None, 0), "but others are ahead of you");
        let kept = "but kept free for 4s more: its holder was lost";
        assert_eq!(told(lock(vec![pause(After::Loss, 3_001)]), 3_600_000), kept);
    }

    #[test]
    fn nobody_is_told_to_wait_for_less_than_it_is_kept() {
        let wait = |left_ms| wait_worth(Some(&outlook(vec![pause(After::Grant, left_ms)], None)));
        assert_eq!(wait_worth(None), "10m");
        assert_eq!(
            (wait(1), wait(599_999), wait(600_000)),
            ("10m".into(), "10m".into(), "11m".into())
        );
        assert_eq!((wait(7_139_999), wait(7_140_000)), ("119m".into(), "2h".into()));
        assert_eq!(wait(604_800_000), "169h");
    }

    #[test]
    fn what_is_left_is_never_nothing() {
        let (soon, away) = (outlook(vec![], Some(0)), [holder(false)]);
        let told = free_by(&away, &soon).unwrap();
        assert_eq!(told, "in 1s at the latest, unless its holder comes back");
        assert_eq!(free_by(&away, &outlook(vec![], None)), None);
    }

    #[test]
    fn what_no_connection_keeps_does_not_come_back_but_may_be_prolonged() {
        let told = free_by(&[holder(true)], &outlook(vec![], Some(9_000))).unwrap();
        assert_eq!(told, "in 9s at the latest, unless it is prolonged");
    }
}
