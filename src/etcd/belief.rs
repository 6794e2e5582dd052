//! Which etcd is believed: all endpoints are to be of one cluster of etcds, and that stays the same one (rule H8).
//!
//! Each answer has the id of its cluster. All members of an etcd say the same one, however many come and go. One
//! that was set up anew says another, and so does one that was restored from a backup, unless it was given all the
//! names of before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use tokio::time::timeout;
use tonic::Status;

use super::error::{Attempts, EtcdError, cause, is_final, refusal};
use super::messages::{RangeRequest, RangeResponse};
use super::{Etcd, RANGE, Waited};

/// The cluster of etcds that is believed. Whoever shares this believes the same one.
#[derive(Clone, Debug, Default)]
pub struct Believed(
    /// Its id; 0: none is yet.
    Arc<AtomicU64>,
);

impl Believed {
    /// Its id; none: the first that answers will be.
    pub fn cluster(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire)).filter(|it| *it != 0)
    }

    /// From now on this one is, and the one of before is not.
    pub fn move_to(&self, cluster: u64) {
        self.0.store(cluster, Ordering::Release);
    }

    /// Whether this one is believed. The first that is asked about is, if none was before.
    pub(super) fn admits(&self, cluster: u64) -> bool {
        let before = self.0.compare_exchange(0, cluster, Ordering::AcqRel, Ordering::Acquire);
        before.map_or_else(|known| known == cluster, |_| true)
    }
}

/// The id that more than half of `count` endpoints say. Two who ask the same endpoints never find two.
fn agreed(said: &[u64], count: usize) -> Option<u64> {
    let is_most = |id: &&u64| said.iter().filter(|it| it == id).count() > count / 2;
    said.iter().find(is_most).copied()
}

impl Etcd {
    /// Asks all endpoints whose they are. If no etcd is believed yet, the one is that more than half of them say: so two
    /// who ask the same endpoints believe the same one. Those that are of another.
    ///
    /// # Errors
    ///
    /// If none is believed after that, or only another one answers.
    pub async fn agree(&self) -> Result<Vec<(String, u64)>, EtcdError> {
        let (patience, count) = (self.patience(), self.members.len());
        let asked = (0..count).map(|endpoint| timeout(patience, self.id_of(endpoint)));
        let (mut said, mut attempts, mut refused) = (Vec::new(), Vec::new(), None);
        for (endpoint, answer) in join_all(asked).await.into_iter().enumerate() {
            let name = self.members[endpoint].name.clone();
            match answer {
                Ok(Ok(id)) => {
                    attempts.push((name.clone(), format!("its cluster id is {id:x}")));
                    said.push((name, id));
                }
                Ok(Err(status)) => {
                    attempts.push((name.clone(), cause(&status)));
                    refused = refused.or(is_final(&status).then(|| refusal(&name, &status)));
                }
                Err(_) => attempts.push((name, format!("no answer within {patience:?}"))),
            }
        }
        let ids: Vec<u64> = said.iter().map(|(_, id)| *id).collect();
        let attempts = Attempts(attempts);
        let Some(known) = self.believed.cluster().or_else(|| agreed(&ids, count)) else {
            self.waited(Waited::InVain);
            return Err(match refused {
                Some(refused) => refused,
                None if ids.windows(2).any(|two| two[0] != two[1]) => EtcdError::Several(attempts),
                None if ids.is_empty() => EtcdError::Unavailable(attempts),
                None => EtcdError::TooFew { answered: ids.len(), count, attempts },
            });
        };
        self.believed.admits(known);
        if ids.contains(&known) {
            said.retain(|(_, id)| *id != known);
            return Ok(said);
        }
        self.waited(Waited::InVain);
        Err(match (ids.first(), refused) {
            (Some(&other), _) => EtcdError::Other { known, other, attempts },
            (None, Some(refused)) => refused,
            (None, None) => EtcdError::Unavailable(attempts),
        })
    }

    /// Which cluster of etcds an endpoint is of.
    pub(super) async fn id_of(&self, endpoint: usize) -> Result<u64, Status> {
        let key = b"/coordinator/".to_vec();
        let request = RangeRequest { key, limit: 1, serializable: true, ..RangeRequest::default() };
        let answer: RangeResponse = self.ask(endpoint, RANGE, request).await?;
        answer.header.map(|it| it.cluster_id).ok_or_else(|| Status::internal("it has no header"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h8_an_etcd_is_believed_first_if_more_than_half_of_the_endpoints_are_of_it() {
        assert_eq!(agreed(&[7], 1), Some(7));
        for (said, count) in [(&[7][..], 2), (&[7, 8], 2), (&[7, 7], 4), (&[7, 8, 9], 3), (&[], 1)]
        {
            assert_eq!(agreed(said, count), None, "{said:?} of {count}");
        }
        assert_eq!(agreed(&[8, 7, 7], 3), Some(7));
        assert_eq!(agreed(&[7, 7], 3), Some(7));
    }

    #[test]
    fn h8_who_is_believed_first_stays_believed_by_all_who_share_it_until_it_is_moved() {
        let (one, other) = (Believed::default(), Believed::default());
        let shared = one.clone();
        assert!(one.admits(7) && shared.admits(7) && !shared.admits(8));
        assert_eq!((shared.cluster(), other.cluster()), (Some(7), None));
        shared.move_to(8);
        assert!(one.admits(8) && !one.admits(7));
    }
}
