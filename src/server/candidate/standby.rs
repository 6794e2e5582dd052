//! Whoever does not lead sends clients to who does.
//!
//! A connection is read up to its Hello, and told who leads. While nobody is known to lead, it waits: first
//! without being accepted, where the system keeps a bounded number of them, then for a bounded time.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use log::debug;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::codec::Decoder;

use super::Candidate;
use crate::election::{Election, Inquirer, Leader, Standing};
use crate::server::desk::render;
use crate::server::net::listener::accept;
use crate::server::net::session::{CLOSE_TIMEOUT, refusal};
use crate::server::net::socket::Socket;
use crate::server::run::secure;
use crate::server::secure::{Certified, Secure, Stream};
use crate::types::GoodbyeCode;
use crate::wire::{ClientMessage, CodecError, PROTOCOL, ServerCodec, encode_frame};

/// Connections that are being sent away at a time. More wait to be accepted.
const SENT_AWAY_MAX: usize = 1_024;
/// How often it is looked at whether the leader is still there.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A leader in sync that is silent is followed by its standby within so long, or not soon.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(2);
/// How long an answer waits for etcd to say who leads now.
const LOOK_TIMEOUT: Duration = Duration::from_millis(150);
/// Messages of a client before its Hello, that included.
const GREETINGS_MAX: usize = 4;

/// A leader that lives renews its lease so often. One time may be of just before it died.
const BEATS_OF_THE_LIVING: u64 = 2;

/// A leader that is followed and not heard. If it goes on to renew its lease it lives, and only the link to it is
/// silent: clients may find it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspicion {
    /// Its term.
    term: u64,
    /// How often leaders were seen to have renewed their leases when this began.
    beats: u64,
}

impl Suspicion {
    /// The leader of a term is not heard, perhaps for the second time.
    pub(super) fn of(term: u64, before: Option<Self>, beats: &AtomicU64) -> Self {
        let same = before.filter(|it| it.term == term);
        same.unwrap_or_else(|| Self { term, beats: beats.load(Ordering::Relaxed) })
    }

    fn counts(self, beats: &AtomicU64) -> bool {
        beats.load(Ordering::Relaxed) < self.beats + BEATS_OF_THE_LIVING
    }
}

/// Receives those who came to the wrong one.
pub(super) struct Reception {
    /// What all answers have in common.
    front: Arc<Front>,
    /// Whether who leads is still there, as far as etcd says.
    is_leader_sure: Box<dyn Fn() -> bool>,
    /// The leader that this one follows and does not hear.
    suspected: Rc<Cell<Option<Suspicion>>>,
    /// How often a leader that is alone was seen to have renewed its lease.
    beats: Arc<AtomicU64>,
    /// How long connections wait to be accepted while nobody leads.
    patience: Duration,
}

/// What all answers have in common.
struct Front {
    /// What connections are encrypted with.
    secure: Secure,
    /// Who leads.
    standing: watch::Receiver<Standing>,
    /// Asks who leads now.
    inquirer: Inquirer,
    /// Where this one is, for clients.
    own: String,
    /// Where it listens, for those who meant another.
    address: SocketAddr,
    /// How long a client may take for its Hello.
    handshake_timeout: Duration,
    /// How long a client waits for a leader, once its Hello is read.
    patience: Duration,
    /// Room for connections.
    room: Arc<Semaphore>,
}

impl Reception {
    pub(super) fn of(candidate: &Candidate, election: &Election) -> Self {
        let Candidate { config, options, .. } = candidate;
        let (sure, beats) = (election.sure(), election.beats());
        let suspected = Rc::clone(&candidate.suspected);
        let patience = options.timing.lease * 2;
        let front = Front {
            secure: secure(config),
            standing: election.standing(),
            inquirer: election.inquirer(),
            own: options.author.address.clone(),
            address: config.listen,
            handshake_timeout: config.handshake_timeout,
            patience,
            room: Arc::new(Semaphore::new(SENT_AWAY_MAX)),
        };
        let is_leader_sure = Box::new(move || sure.is_ahead());
        Self { front: Arc::new(front), is_leader_sure, suspected, beats, patience }
    }

    /// Sends away whoever comes, until it is dropped.
    pub(super) async fn send_away(&self, listener: &TcpListener, now: &Standing) {
        // If it is this one that is named, an earlier process is meant.
        let leader = self.front.another(now).map(|leader| leader.term);
        let mut waits_since = Instant::now();
        loop {
            let suspicion = self.suspected.get().filter(|it| Some(it.term) == leader);
            let is_suspected = suspicion.is_some_and(|it| it.counts(&self.beats));
            let is_sure = leader.is_some() && !is_suspected && (self.is_leader_sure)();
            if is_sure {
                waits_since = Instant::now();
            }
            let most = if is_suspected { FOLLOWED_WITHIN } else { self.patience };
            if !is_sure && waits_since.elapsed() < most.min(self.patience) {
                // Those who wait are let in by another leader, as soon as that one is known here.
                let _ = timeout(LOOK_TIMEOUT, self.front.inquirer.look()).await;
                sleep(LOOK_EVERY).await;
                continue;
            }
            let Ok(place) = Arc::clone(&self.front.room).acquire_owned().await else { return };
            tokio::select! {
                accepted = accept(listener) => match accepted {
                    Ok((stream, peer)) => {
                        let front = Arc::clone(&self.front);
                        spawn_local(async move { front.receive(stream, peer, place).await });
                    }
                    Err(error) => {
                        debug!("a connection could not be accepted: {error}");
                        sleep(LOOK_EVERY).await;
                    }
                },
                // Who leads may have died meanwhile.
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }
}

/// What a client wants to be told.
enum Greeting {
    /// Who leads.
    Hello,
    /// That this is no place for it.
    Mistaken(Vec<u8>),
}

impl Front {
    /// Reads the Hello of a connection, tells it who leads, and closes it.
    async fn receive(&self, stream: TcpStream, peer: Option<SocketAddr>, _: OwnedSemaphorePermit) {
        let mut stream = self.secure.for_locks(stream, Certified::default(), || {});
        let Ok(Some(greeting)) = timeout(self.handshake_timeout, self.greeting(&mut stream)).await
        else {
            return debug!(peer:?; "a connection ended before its Hello");
        };
        let answer = match greeting {
            Greeting::Mistaken(answer) => answer,
            Greeting::Hello => {
                let leader = self.leader().await;
                debug!(peer:?, leader = leader.as_str(); "sent to the leader");
                goodbye(GoodbyeCode::NotLeader, &leader)
            }
        };
        // What still comes is read and dropped: a connection that is closed before is reset, and that would
        // overtake the answer.
        let close = async {
            stream.write_all(&answer).await?;
            stream.shutdown().await?;
            let mut scratch = [0; 4096];
            while stream.read(&mut scratch).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        // A peer that is gone, or does not end, needs nothing more.
        let _ = timeout(CLOSE_TIMEOUT, close).await;
    }

    /// What a connection says first; none: it ended.
    async fn greeting(&self, stream: &mut Stream) -> Option<Greeting> {
        let (mut codec, mut bytes) = (ServerCodec::before_hello(), BytesMut::new());
        let mut messages = 0;
        while messages < GREETINGS_MAX {
            match codec.decode(&mut bytes) {
                Ok(Some(batch)) => match batch.iter().find_map(protocol_of) {
                    Some(PROTOCOL) => return Some(Greeting::Hello),
                    Some(other) => return Some(Greeting::Mistaken(other_version(other))),
                    None => messages += batch.len(),
                },
                Ok(None) => {
                    if stream.read_buf(&mut bytes).await.ok()? == 0 {
                        return None;
                    }
                }
                Err(CodecError::FrameTooLong { claimed, .. }) => {
                    let answer = refusal::of(claimed, stream.scheme(), self.address);
                    return answer.map(Greeting::Mistaken);
                }
                Err(CodecError::UnsupportedVersion { protocol }) => {
                    return Some(Greeting::Mistaken(other_version(protocol)));
                }
                Err(error) => {
                    let why = error.to_string();
                    return Some(Greeting::Mistaken(goodbye(GoodbyeCode::ProtocolError, &why)));
                }
            }
        }
        let why = "the first message must be Hello, or Authenticate";
        Some(Greeting::Mistaken(goodbye(GoodbyeCode::ProtocolError, why)))
    }

    /// Who leads, if it is not this one.
    fn another<'a>(&self, now: &'a Standing) -> Option<&'a Leader> {
        match now {
            Standing::StandsBy { leader } => leader.as_ref().filter(|it| it.address != self.own),
            Standing::Leads { .. } => None,
        }
    }

    /// The address of who leads, empty if nobody is known to. Whoever was sent here by a leader that resigned
    /// comes before the next look at etcd.
    async fn leader(&self) -> String {
        // What was known before has to do, if etcd does not answer in time.
        let _ = timeout(LOOK_TIMEOUT, self.inquirer.look()).await;
        let mut standing = self.standing.clone();
        let is_led = |now: &Standing| !matches!(now, Standing::StandsBy { leader: None });
        match timeout(self.patience, standing.wait_for(is_led)).await {
            Ok(Ok(now)) => match &*now {
                Standing::Leads { .. } => self.own.clone(),
                Standing::StandsBy { .. } => {
                    self.another(&now).map(|leader| leader.address.clone()).unwrap_or_default()
                }
            },
            Ok(Err(_)) | Err(_) => String::new(),
        }
    }
}

/// The version of the protocol in a Hello; none for another message.
fn protocol_of(message: &ClientMessage) -> Option<u32> {
    match message {
        ClientMessage::Hello(hello) => Some(hello.protocol),
        _ => None,
    }
}

fn other_version(protocol: u32) -> Vec<u8> {
    let why = format!("protocol {protocol} is not supported here, only {PROTOCOL}");
    goodbye(GoodbyeCode::UnsupportedVersion, &why)
}

/// The bytes of a last message; none if it cannot be written, which no text here is too long for.
fn goodbye(code: GoodbyeCode, why: &str) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    let _ = encode_frame(&render::goodbye(code, why), &mut bytes);
    bytes.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p7_a_leader_that_goes_on_to_renew_its_lease_is_no_more_suspected_however_silent_its_link_is()
    {
        let beats = AtomicU64::new(5);
        let first = Suspicion::of(7, None, &beats);
        assert!(first.counts(&beats));
        beats.store(6, Ordering::Relaxed);
        assert!(first.counts(&beats), "that may be of before it died");
        let same = Suspicion::of(7, Some(first), &beats);
        beats.store(7, Ordering::Relaxed);
        assert!(!same.counts(&beats), "it was not heard again, and lives");
        assert!(Suspicion::of(8, Some(same), &beats).counts(&beats), "another leader");
    }
}
