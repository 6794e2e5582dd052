//! An etcd that was restored from a backup: what it says of the past is not believed for long (rule H6).

use coordinator::etcd::Etcd as Client;
use coordinator::types::{Epoch, GoodbyeCode};
use coordinator::wire::{Attach, ClientMessage, Hello, ServerMessage};
use rustix::process::Signal;

use super::etcd::Etcd;
use super::serving::{Holder, greeted, leads, member};
use super::{live, options};
use crate::support::Server;

/// The keys of a cluster.
const PREFIX: &str = "/coordinator/test/";

fn is_sent_nowhere(answer: &ServerMessage) -> bool {
    let code = GoodbyeCode::NotLeader;
    matches!(answer, ServerMessage::Goodbye { code: it, message, .. } if *it == code && message.is_empty())
}

#[test]
fn h6_a_leader_of_a_restored_etcd_ends_when_a_client_proves_that_a_later_one_has_led() {
    let etcd = Etcd::start();
    let kill = |server: Server| drop(server.end_by(Signal::KILL));
    let first = member(&[&etcd]);
    leads(&first);
    let url = etcd.url();
    let backup = live(async {
        let client = Client::new(options(&[&url])).unwrap();
        client.list(PREFIX).await.unwrap()
    });
    kill(first);
    let second = member(&[&etcd]);
    leads(&second);
    kill(second);
    let third = member(&[&etcd]);
    leads(&third);
    let mut holder = Holder::of(&third, "printer", 60_000);
    kill(third);
    live(async {
        let client = Client::new(options(&[&url])).unwrap();
        for (key, found) in backup {
            client.put(&key, found.value).await.unwrap();
        }
    });

    let restored = member(&[&etcd]);
    leads(&restored);
    // Whoever says so may lie, or mean another cluster.
    let epoch_seen = Epoch::new(u64::MAX);
    let said = ClientMessage::Hello(Hello { epoch_seen, ..Hello::new(Attach::New, "liar") });
    let (_liar, answer) = greeted(&restored, said);
    assert!(is_sent_nowhere(&answer), "{answer:?}");
    leads(&restored);
    let answer = holder.come_back(&restored);
    assert!(is_sent_nowhere(&answer), "{answer:?}");
    let ended = restored.process.end();
    assert_eq!(ended.code(), Some(70), "{}", ended.err);
    assert!(ended.err.contains("etcd was restored from a backup"), "{}", ended.err);
}
