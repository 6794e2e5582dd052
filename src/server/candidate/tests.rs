//! A leader and those who want to follow it, over streams in memory with paused time.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_local, yield_now};

use super::Candidate;
use super::feeding::{Ended, Term, serve};
use super::guests::Place;
use crate::cluster::{Gap, Mark, RunId, Table, Timing};
use crate::election::{Author, ClusterName, ElectionOptions, Pledge};
use crate::etcd::EtcdOptions;
use crate::server::config::Config;
use crate::server::durable::StateKey;
use crate::server::durable::replay::RULES;
use crate::server::replica::{
    FULL, GREETING_BYTES, LinkKey, MAGIC, NONCE_BYTES, Opening, Sealing, Side, ToLeader, ToStandby,
};
use crate::server::testing::{Bench, local};

/// A leader whose turn to give a checkpoint is free or not, and the line to it.
fn leader(place: Place, turns: &Arc<Semaphore>) -> (DuplexStream, JoinHandle<Result<(), Ended>>) {
    let (ours, theirs) = duplex(4096);
    let (key, coordinator) = (StateKey::new(5), Bench::new().coordinator);
    let of = Term { number: 1, key, coordinator, turns: Arc::clone(turns) };
    let serving = async move { serve(theirs, of, &Pledge::of_leader(), &place).await };
    (ours, spawn_local(serving))
}

#[tokio::test(start_paused = true)]
async fn p7_who_waits_for_its_turn_stays_on_the_line_and_hears_that_somebody_leads() {
    local(async {
        let turns = Arc::new(Semaphore::new(1));
        let other = turns.try_acquire().unwrap();
        let (mut line, _serving) = leader(Place::default(), &turns);
        let (mut theirs, ours) = ([0; GREETING_BYTES], [7; NONCE_BYTES]);
        line.read_exact(&mut theirs).await.unwrap();
        let nonce = theirs[GREETING_BYTES - NONCE_BYTES..].try_into().unwrap();
        let key = LinkKey::of(StateKey::new(5), nonce, ours);
        let (mut sealing, mut said) =
            (Sealing::new(key.clone(), Side::Standby), BytesMut::from(&ours[..]));
        let run = RunId(Mark { process: 9, attempt: 0 });
        let (kind, content) = ToLeader::Follow { term: 1, run, rules: RULES }.encode();
        sealing.put((kind, &content), &mut said);
        line.write_all(&said).await.unwrap();
        let (mut opening, mut come) = (Opening::new(key, Side::Leader), BytesMut::new());
        let mut hear = async || loop {
            if let Some(frame) = opening.take(&mut come)? {
                return Ok::<_, Box<dyn std::error::Error>>(ToStandby::decode(frame)?);
            }
            if line.read_buf(&mut come).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        };
        for _ in 0..20 {
            assert_eq!(hear().await.unwrap(), ToStandby::Making);
        }
        drop(other);
        loop {
            match hear().await.unwrap() {
                ToStandby::Making => {}
                // This leader has no journal, so nobody follows it.
                ToStandby::Wait => return,
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn p7_who_makes_room_for_others_is_told_that_somebody_leads() {
    local(async {
        let place = Place::default();
        let (mut line, serving) = leader(place.clone(), &Arc::new(Semaphore::new(1)));
        place.leave();
        let mut told = Vec::new();
        line.read_to_end(&mut told).await.unwrap();
        assert_eq!(told[..12], [&MAGIC[..], &FULL.to_le_bytes()].concat());
        assert!(matches!(serving.await.unwrap(), Err(Ended::NoRoom)));

        let place = Place::default();
        let (mut line, serving) = leader(place.clone(), &Arc::new(Semaphore::new(1)));
        let mut greeting = [0; GREETING_BYTES];
        line.read_exact(&mut greeting).await.unwrap();
        place.leave();
        assert!(matches!(serving.await.unwrap(), Err(Ended::NoRoom)), "it has been greeted");
    })
    .await;
}

#[tokio::test]
async fn p5_a_term_begins_once_no_copy_is_at_the_journal_any_more() {
    local(Box::pin(async {
        let etcd = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoints = vec![format!("http://{}", etcd.local_addr().unwrap())];
        let author =
            Author { name: "a".to_owned(), address: "a:1".to_owned(), peer: String::new() };
        let options = ElectionOptions {
            cluster: ClusterName::new("test").unwrap(),
            author,
            etcd: EtcdOptions { endpoints, ..EtcdOptions::default() },
            timing: Timing::default(),
            kept: None,
            peers: None,
        };
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let config = Config { listen, ..Config::default() };
        let candidate = Candidate::bind(&config, options).unwrap();
        let copy = candidate.copying.lock().await;
        let mut begins = pin!(candidate.begin((1, Table::Empty), Gap::default()));
        for _ in 0..1_000 {
            tokio::select! {
                biased;
                _ = &mut begins => panic!("it needs etcd"),
                _ = etcd.accept() => panic!("it begins beside a copy"),
                () = yield_now() => {}
            }
        }
        drop(copy);
        tokio::select! {
            _ = &mut begins => panic!("it needs etcd"),
            asked = etcd.accept() => drop(asked.unwrap()),
        }
    }))
    .await;
}
