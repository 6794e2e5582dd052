//! Bugs that other lock services had, where no other test looks for them with the real program:
//! docs/testing.md has the list.

use std::fs;
use std::path::Path;
use std::time::Duration;

use coordinator::types::LostReason;
use coordinator::{Client, HoldState, LockGuard};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::proxy::{Proxy, Way};
use crate::support::{DEADLINE, Server};

/// The shortest lease: what has to wait for one need not wait for long.
const TTL: Duration = Duration::from_secs(2);

async fn connect(address: &str) -> Client {
    Client::builder().ttl(TTL).connect(address).await.unwrap()
}

/// With a lease that no test waits for.
async fn connect_for_long(address: &str) -> Client {
    Client::connect(address).await.unwrap()
}

/// Asks for "printer", tells `who` it is for when it is granted, and returns when it is in line.
async fn queue_up(
    client: &Client,
    who: &'static str,
    granted: &mpsc::UnboundedSender<(&'static str, LockGuard)>,
) -> JoinHandle<()> {
    let (queued, is_queued) = oneshot::channel();
    let mut queued = Some(queued);
    let asked = client.lock("printer").on_queued(move |_| {
        if let Some(queued) = queued.take() {
            queued.send(()).unwrap();
        }
    });
    let granted = granted.clone();
    let task = tokio::spawn(async move {
        granted.send((who, asked.await.unwrap())).unwrap();
    });
    is_queued.await.unwrap();
    task
}

/// In etcd, two requests of one session were the same place in the queue: if one was cancelled, the other
/// lost it, too, and was told that it holds.
#[test]
fn of_two_requests_of_one_client_the_one_that_is_given_up_leaves_and_the_other_stays() {
    let server = Server::start();
    Runtime::new().unwrap().block_on(async {
        let (holder, two, rival) = (
            connect_for_long(&server.address).await,
            connect_for_long(&server.address).await,
            connect_for_long(&server.address).await,
        );
        let guard = holder.lock("printer").await.unwrap();
        let (tell, mut granted) = mpsc::unbounded_channel();
        let given_up = queue_up(&two, "given up", &tell).await;
        queue_up(&two, "stays", &tell).await;
        queue_up(&rival, "rival", &tell).await;
        given_up.abort();
        assert!(given_up.await.unwrap_err().is_cancelled());
        server.waited_for_by("printer", 2);
        assert!(granted.try_recv().is_err(), "somebody was granted what another holds");
        let mut token = guard.token();
        guard.release().await.unwrap();
        for expected in ["stays", "rival"] {
            let (who, guard) = granted.recv().await.unwrap();
            assert_eq!(who, expected);
            assert!(guard.token() > token);
            assert!(granted.try_recv().is_err(), "two were granted at a time");
            token = guard.token();
            guard.release().await.unwrap();
        }
    });
    assert!(server.lock("printer").is_none());
}

/// The second edge condition of `NFSv4`: a client is cut off over a crash, its lock is had by another
/// meanwhile, and after one more crash it is back in time to reclaim.
#[test]
fn whoever_missed_a_run_of_the_coordinator_reclaims_nothing_in_the_next() {
    let mut server = Server::start_durable();
    let proxy = Proxy::to(&server.address);
    let runtime = Runtime::new().unwrap();
    let (cut_off, guard) = runtime.block_on(async {
        let client = connect(&proxy.address).await;
        let guard = client.lock("store").await.unwrap();
        (client, guard)
    });
    proxy.turn(Way::Dark);
    server = server.crash_and_restart();
    let (rival, next) = runtime.block_on(async {
        let rival = connect(&server.address).await;
        let next = rival.lock("store").timeout(DEADLINE).await.unwrap();
        let token = next.token();
        next.release().await.unwrap();
        (rival, token)
    });
    assert_eq!(guard.state(), HoldState::Lost(LostReason::Expired));
    server = server.crash_and_restart();
    proxy.turn(Way::Open);
    proxy.cut();
    runtime.block_on(async {
        // It is back, within the grace period or after it: nothing is granted before that is over.
        let back = cut_off.lock("something else").timeout(DEADLINE).await.unwrap();
        assert!(back.token() > next);
        assert!(server.lock("store").is_none(), "it holds again what another had");
        assert_eq!(guard.state(), HoldState::Lost(LostReason::Expired));
        let after = rival.lock("store").timeout(DEADLINE).await.unwrap();
        assert!(after.token() > next);
    });
}

/// All that is written in the Rust files below.
fn sources(directory: &Path, all: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_bug_in_the_document_has_tests_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = String::new();
    for room in ["src", "tests"] {
        sources(&root.join(room), &mut all);
    }
    let document = fs::read_to_string(root.join("docs/testing.md")).unwrap();
    let (_, chapter) = document.split_once("\n## Bugs of others\n").unwrap();
    let (chapter, _) = chapter.split_once("\n## ").unwrap();
    let rows: Vec<&str> = chapter.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert_eq!(rows.len(), 22);
    for row in rows {
        let names: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "{row}");
        for name in names {
            let is_story = root.join("src/engine/stories").join(name).is_file();
            assert!(is_story || all.contains(&format!("fn {name}(")), "there is no {name}");
        }
    }
}
