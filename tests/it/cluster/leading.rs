//! Who leads, with a real etcd.

use std::time::Duration;

use coordinator::cluster::{Table, Timing};
use coordinator::election::{
    Author, CLUSTER_NAME_LEN_MAX, ClusterName, Election, ElectionOptions, Leader, Standing,
};
use coordinator::etcd::{Etcd as Client, EtcdOptions, Swap};

use super::etcd::Etcd;
use super::{live, options};

/// Takes part, in a leadership that lasts for so long without a word.
fn candidate(etcd: &Etcd, name: &str, lease: Duration) -> Election {
    candidate_of(&[&etcd.url()], name, lease)
}

/// The same, with several endpoints.
fn candidate_of(endpoints: &[&str], name: &str, lease: Duration) -> Election {
    let author =
        Author { name: name.to_owned(), address: format!("{name}:5625"), peer: String::new() };
    Election::begin(ElectionOptions {
        cluster: ClusterName::new("test").unwrap(),
        author,
        etcd: EtcdOptions { patience: lease / 4, ..options(endpoints) },
        timing: Timing { lease, ..Timing::default() },
        kept: None,
        peers: None,
    })
    .unwrap()
}

/// Waits until it leads; the term and the table.
async fn leads(election: &Election) -> (u64, Table) {
    let mut standing = election.standing();
    let leads = |it: &Standing| matches!(it, Standing::Leads { .. });
    match *standing.wait_for(leads).await.unwrap() {
        Standing::Leads { term, table } => (term, table),
        Standing::StandsBy { .. } => unreachable!(),
    }
}

/// Waits until it knows who leads.
async fn knows(election: &Election) -> Leader {
    let mut standing = election.standing();
    let knows = |it: &Standing| matches!(it, Standing::StandsBy { leader: Some(_) });
    match &*standing.wait_for(knows).await.unwrap() {
        Standing::StandsBy { leader: Some(leader) } => leader.clone(),
        other => panic!("{other:?}"),
    }
}

/// A lease that is waited for: longer than a busy machine stands still.
const SHORT: Duration = Duration::from_secs(2);
/// A lease that nobody waits for in a test.
const LONG: Duration = Duration::from_secs(3_600);

#[test]
fn one_leads_and_the_others_know_who_and_where() {
    let etcd = Etcd::start();
    live(async {
        let first = candidate(&etcd, "a", LONG);
        assert_eq!(leads(&first).await, (1, Table::New));
        assert!(first.may_decide());
        for name in ["b", "c"] {
            let other = candidate(&etcd, name, LONG);
            let leader = Leader {
                term: 1,
                name: "a".to_owned(),
                address: "a:5625".to_owned(),
                peer: String::new(),
            };
            assert_eq!(knows(&other).await, leader);
            assert!(!other.may_decide());
        }
    });
}

#[test]
fn h2_the_next_one_leads_when_the_leader_has_been_silent_for_a_lease() {
    let etcd = Etcd::start();
    live(async {
        let (first, second) = (candidate(&etcd, "a", SHORT), candidate(&etcd, "b", SHORT));
        let both = tokio::select! {
            _ = leads(&first) => (first, second),
            _ = leads(&second) => (second, first),
        };
        let (leader, standby) = both;
        let term = knows(&standby).await.term;
        // As if it were killed.
        drop(leader);
        let (next, table) = leads(&standby).await;
        assert!(next > term);
        assert_eq!(table, Table::Empty);
    });
}

#[test]
fn who_resigns_is_followed_at_once() {
    let etcd = Etcd::start();
    live(async {
        let first = candidate(&etcd, "a", LONG);
        leads(&first).await;
        let second = candidate(&etcd, "b", SHORT);
        knows(&second).await;
        first.resign().await;
        assert_eq!(leads(&second).await, (2, Table::Empty));
    });
}

#[test]
fn a_leader_decides_nothing_when_etcd_is_away_for_a_lease_and_goes_on_when_it_is_back() {
    let mut etcd = Etcd::start();
    live(async {
        let leader = candidate(&etcd, "a", SHORT);
        assert_eq!(leads(&leader).await.0, 1);
        etcd.kill();
        while leader.may_decide() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        etcd.revive();
        while !leader.may_decide() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(leads(&leader).await.0, 1, "in the same term");
    });
}

#[test]
fn the_death_of_each_etcd_in_turn_changes_no_leader() {
    let mut etcds = Etcd::start_three();
    let urls: Vec<String> = etcds.iter().map(Etcd::url).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    live(async {
        // Longer than three of them need to agree on a leader of their own, on a busy machine.
        let lease = Duration::from_secs(8);
        let leader = candidate_of(&urls, "a", lease);
        let (term, _) = leads(&leader).await;
        let watcher = Client::new(options(&urls)).unwrap();
        let seen = async || loop {
            // One that was killed a moment ago may have been asked.
            if let Ok(reading) = watcher.read("/coordinator/test/seat").await {
                break reading.found.unwrap().revision;
            }
        };
        for etcd in &mut etcds {
            etcd.kill();
            let before = seen().await;
            // It renews its lease, whoever is left.
            while seen().await == before {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(leader.may_decide());
            etcd.revive();
        }
        assert_eq!(leads(&leader).await.0, term);
    });
}

#[test]
fn what_no_coordinator_wrote_makes_nobody_a_leader() {
    let etcd = Etcd::start();
    live(async {
        let client = Client::new(options(&[&etcd.url()])).unwrap();
        client.put("/coordinator/test/seat", b"mine".to_vec()).await.unwrap();
        let election = candidate(&etcd, "a", SHORT);
        let seat = r#"{"format":1,"term":7,"name":"z","address":"z:1","leader":"f-0","resigned":false,
            "standby":null,"lease_ms":3600000,"mark":"f-1"}"#;
        let mine = client.read("/coordinator/test/seat").await.unwrap().found.unwrap();
        assert_eq!(mine.value, b"mine");
        let put = client.swap("/coordinator/test/seat", mine.revision, seat.into()).await.unwrap();
        assert!(matches!(put, Swap::Done { .. }), "nobody else has put anything");
        let leader = Leader {
            term: 7,
            name: "z".to_owned(),
            address: "z:1".to_owned(),
            peer: String::new(),
        };
        assert_eq!(knows(&election).await, leader);
    });
}

#[test]
fn h2_the_lease_of_a_leader_that_decides_nothing_any_more_is_not_renewed() {
    let etcd = Etcd::start();
    live(async {
        let stuck = candidate(&etcd, "a", SHORT);
        leads(&stuck).await;
        stuck.turned(Duration::ZERO);
        let other = candidate(&etcd, "b", SHORT);
        assert_eq!(leads(&other).await, (2, Table::Empty));
    });
}

#[test]
fn the_name_of_a_cluster_is_a_part_of_a_key_and_nothing_else() {
    let longest = "a".repeat(CLUSTER_NAME_LEN_MAX);
    for name in ["a", "prod-1", &longest] {
        assert_eq!(ClusterName::new(name).unwrap().to_string(), name);
    }
    for name in ["", "A", "a/b", "a b", "\u{e4}", &format!("{longest}a")] {
        let error = ClusterName::new(name).unwrap_err().to_string();
        assert!(error.contains(&format!("{name:?} is not the name of a cluster")), "{error}");
    }
}
