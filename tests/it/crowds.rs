//! Many at once, over real sockets: order, memory, and those who mean harm.

use std::fs;
use std::io::Write;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use coordinator::wire::{ClientMessage, ServerMessage, encode_frame};
use coordinator::{Client, LockGuard};

use crate::raw::{Raw, hello, request};
use crate::support::{DEADLINE, Home, Server, eventually, run};

/// Resident memory of a process in bytes.
fn resident(pid: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn status(server: &Server) -> serde_json::Value {
    serde_json::from_str(&run(server.client(&["status", "--json"])).out).unwrap()
}

/// Asks for the lock, and returns when the server has put the request in its queue.
async fn queue_up(
    client: Client,
    granted: mpsc::Sender<(usize, LockGuard)>,
    number: usize,
) -> tokio::task::JoinHandle<()> {
    let (queued, is_queued) = tokio::sync::oneshot::channel();
    let mut queued = Some(queued);
    let task = tokio::spawn(async move {
        let request = client.lock("turn").on_queued(move |_| {
            if let Some(queued) = queued.take() {
                let _ = queued.send(());
            }
        });
        if let Ok(guard) = request.await {
            granted.send((number, guard)).unwrap();
        }
    });
    is_queued.await.unwrap();
    task
}

#[test]
fn a_hundred_clients_are_granted_in_the_order_in_which_they_came() {
    let server = Server::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (granted, grants) = mpsc::channel();
    let leaves = |number: usize| number % 3 == 2;
    let first = runtime.block_on(async {
        let client = Client::connect(&server.address).await.unwrap();
        let first = client.lock("turn").await.unwrap();
        let mut waiting = Vec::new();
        for number in 0..100 {
            let client = Client::connect(&server.address).await.unwrap();
            waiting.push((client.clone(), queue_up(client, granted.clone(), number).await));
        }
        // Every third leaves: by a cancel, by a goodbye.
        for (number, (client, task)) in waiting.into_iter().enumerate() {
            match (leaves(number), number % 2) {
                (true, 0) => task.abort(),
                (true, _) => client.close().await.unwrap(),
                (false, _) => {}
            }
        }
        first
    });
    let staying = (0..100).filter(|number| !leaves(*number)).count();
    server.waited_for_by("turn", staying as u64);
    let mut token = first.token();
    runtime.block_on(first.release()).unwrap();
    for number in (0..100).filter(|number| !leaves(*number)) {
        let (next, guard) = grants.recv_timeout(DEADLINE).unwrap();
        assert_eq!(next, number);
        assert!(guard.token() > token);
        token = guard.token();
        runtime.block_on(guard.release()).unwrap();
    }
    assert!(server.lock("turn").is_none());
}

#[test]
fn names_that_were_used_leave_nothing_behind() {
    const NAMES: u64 = 1_000_000;
    const AT_ONCE: u64 = 100;
    let server = Server::start();
    let mut client = Raw::connect(&server);
    client.say(&[hello()]);
    assert!(matches!(client.hear(), ServerMessage::Welcome { .. }));
    let mut use_names = |names: std::ops::Range<u64>| {
        for first in names.step_by(usize::try_from(AT_ONCE).unwrap()) {
            let batch = first + 1..=first + AT_ONCE;
            let ask = |id| request(id, &format!("a name like no other {id}"));
            client.say(&batch.clone().map(ask).collect::<Vec<_>>());
            let mut releases = Vec::new();
            for _ in batch.clone() {
                let ServerMessage::Grant { request, token, .. } = client.hear() else {
                    panic!("not granted")
                };
                releases.push(ClientMessage::Release { request, token });
            }
            client.say(&releases);
            for _ in batch {
                assert!(matches!(client.hear(), ServerMessage::Released { .. }));
            }
        }
    };
    use_names(0..NAMES / 10);
    let before = resident(&server.process.id());
    use_names(NAMES / 10..NAMES);
    let after = resident(&server.process.id());
    assert!(after < before + before / 10, "{before} bytes before, {after} after");
    let status = run(server.client(&["status"])).out;
    assert!(status.contains("nothing is locked"), "{status}");
    assert!(status.contains(&format!("{NAMES} grants")), "{status}");
}

#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
#[test]
fn a_crowd_that_has_left_leaves_no_memory_behind() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let crowd = limit.maximum.map_or(4_000, |files| files.saturating_sub(200).min(4_000));
    assert!(crowd > 1_000, "{crowd} connections are no crowd: raise the limit of open files");

    let server = Server::start();
    let meet = || {
        let mut client = Raw::connect(&server);
        client.say(&[hello()]);
        assert!(matches!(client.hear(), ServerMessage::Welcome { .. }));
        client
    };
    // Who stays came before, in the midst, and behind.
    let mut stays = vec![meet()];
    let before = resident(&server.process.id());
    let mut leaves = Vec::new();
    for number in 0..crowd {
        leaves.push(meet());
        if number % (crowd / 4) == 1 {
            stays.push(meet());
        }
    }
    let with_all = resident(&server.process.id());
    assert!(with_all > before + crowd * 2_000, "{before} bytes before, {with_all} with all");
    for mut client in leaves {
        client.say(&[ClientMessage::Goodbye]);
    }
    eventually("its memory is the system's again", || {
        (resident(&server.process.id()) < before + before / 5).then_some(())
    });
    for client in &mut stays {
        client.say(&[ClientMessage::KeepAlive { sequence: 7 }]);
        assert_eq!(client.hear(), ServerMessage::KeptAlive { sequence: 7 });
    }
}

#[test]
fn floods_of_nonsense_cost_others_nothing() {
    let server = Server::start();
    let mut bystander = Raw::connect(&server);
    bystander.say(&[hello()]);
    assert!(matches!(bystander.hear(), ServerMessage::Welcome { .. }));
    let mut waits = Vec::new();
    let mut never_closed = 0;
    for round in 0..300u64 {
        let mut bytes = vec![0u8; 2_000];
        for (index, byte) in bytes.iter_mut().enumerate() {
            let mixed = (round * 2_000 + index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            *byte = mixed.to_le_bytes()[7];
        }
        let mut flood = Raw::connect(&server);
        // Each tells another lie: lengths of all sizes, a truncated frame, HTTP, TLS, nonsense.
        match round % 5 {
            0 => bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes()),
            1 => bytes[..4].copy_from_slice(&1_000u32.to_le_bytes()),
            2 => bytes = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            3 => bytes[..5].copy_from_slice(&[0x16, 3, 1, 2, 0]),
            _ => {}
        }
        // The server may have closed before all of it was written.
        let _ = flood.socket.write_all(&bytes);
        let _ = flood.socket.shutdown(std::net::Shutdown::Write);
        never_closed += u64::from(!flood.is_closed());
        let began = Instant::now();
        bystander.say(&[ClientMessage::KeepAlive { sequence: round }]);
        assert_eq!(bystander.hear(), ServerMessage::KeptAlive { sequence: round });
        waits.push(began.elapsed());
    }
    assert_eq!(never_closed, 0);
    // All but a few: the machine may stand still, too.
    waits.sort_unstable();
    for (hundredth, most) in [(90, 1), (99, 5)] {
        let long = waits[waits.len() * hundredth / 100];
        assert!(long < Duration::from_secs(most), "percentile {hundredth}: {long:?}");
    }
    assert!(resident(&server.process.id()) < 256 << 20);
    eventually("all are counted", || {
        (status(&server)["server"]["protocol_errors"] == 300).then_some(())
    });
}

#[test]
fn a_client_that_never_reads_is_closed_and_costs_no_memory() {
    let server = Server::start();
    let mut deaf = Raw::connect(&server);
    deaf.say(&[hello()]);
    let mut holder = Raw::connect(&server);
    holder.say(&[hello(), request(1, "busy")]);
    assert!(matches!(holder.hear(), ServerMessage::Welcome { .. }));
    assert!(matches!(holder.hear(), ServerMessage::Grant { .. }));
    deaf.socket.set_write_timeout(Some(DEADLINE)).unwrap();
    // Questions that are short, with answers that are long.
    let question = ClientMessage::Inspect {
        query_id: 1,
        query: coordinator::wire::Query::Locks { cursor: 0 },
    };
    let mut frames = BytesMut::new();
    for _ in 0..1_000 {
        encode_frame(&question, &mut frames).unwrap();
    }
    let closed = (0..10_000).any(|_| deaf.socket.write_all(&frames).is_err());
    assert!(closed, "it could go on asking for ever");
    assert!(resident(&server.process.id()) < 256 << 20);
    eventually("it is counted", || (status(&server)["server"]["slow_readers"] == 1).then_some(()));
    assert_eq!(status(&server)["server"]["held"], 1, "the others go on");
}

#[test]
fn a_client_written_from_the_document_alone_works() {
    let server = Server::start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stranger/client.py");
    let mut command = Home::new().command("python3");
    command.args([script, &server.address, "stranger", "20"]);
    let done = run(command);
    assert_eq!(done.code(), Some(0), "{}", done.err);
    let lines: Vec<&str> = done.out.lines().collect();
    let (tokens, cycle) = lines.split_at(20);
    let tokens: Vec<u64> = tokens.iter().map(|token| token.parse().unwrap()).collect();
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
    let latest = tokens[19];
    let [first, second] = cycle else { panic!("{cycle:?}") };
    assert_eq!(*first, format!("owner 2 request 24 waits for stranger held with {}", latest + 1));
    assert_eq!(
        *second,
        format!("owner 1 request 23 waits for stranger/2 held with {}", latest + 2)
    );
    assert!(server.lock("stranger").is_none());
    assert!(server.lock("stranger/2").is_none());
}
