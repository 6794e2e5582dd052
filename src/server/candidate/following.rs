//! The standby's end of the stream: it follows whoever leads, as long as that one speaks.
//!
//! A connection that breaks proves nothing, so it is made anew at once. A leader that refuses it, or is silent for
//! half a second, is suspected, and the member hears of that. Whether this one may take over is the member's
//! matter.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{Cursor, Read};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use std::{fmt, io, mem};

use bytes::BytesMut;
use log::{debug, error, info, warn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedMutexGuard;
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::{sleep, timeout};

use super::Candidate;
use super::standby::Suspicion;
use crate::cluster::Event;
use crate::election::{Election, Leader, Pledge};
use crate::journal::Distance;
use crate::server::config::{Config, Data};
use crate::server::durable::StateKey;
use crate::server::durable::replay::RULES;
use crate::server::replica::{
    Copy, CopyError, FORMAT, FULL, FrameError, GREETING_BYTES, LinkKey, MAGIC, NONCE_BYTES,
    Opening, Origin, Sealing, Side, ToLeader, ToStandby,
};
use crate::server::secure::is_refusal;
#[cfg(feature = "tls")]
use crate::tls::Dialed;

/// A leader that says nothing for so long is suspected. It takes its standby out before that, if it lives.
const SILENCE: Duration = Duration::from_millis(500);
/// A pause before the next connection, at first.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// In the end, while a leader has something else to do first.
const PAUSE_WAIT_MAX: Duration = Duration::from_millis(250);
/// In the end, while nobody is there.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// In the end, for a standby that does not keep up, or is not taken.
const PAUSE_UNFIT_MAX: Duration = Duration::from_secs(30);
/// A standby that has followed for so long keeps up.
const KEEPS_UP: Duration = Duration::from_secs(10);
/// A checkpoint that is longer is not taken.
const CHECKPOINT_BYTES_MAX: u64 = 1 << 30;
/// What comes while a copy is being made is kept up to here, and then waits at the leader.
const BACKLOG_BYTES_MAX: usize = 64 << 20;
/// So much of that is written down at once.
const BATCH_MAX: usize = 256;
/// Room for what is read at once.
const READ_BYTES: usize = 64 * 1024;

/// What this standby has of the leader's table.
#[derive(Default)]
pub(super) enum Slot {
    /// Nothing. What is in the journal is its own.
    #[default]
    Empty,
    /// All that it has acknowledged.
    Copy(Box<Copy>),
    /// What is not the leader's table, neither here nor in the journal.
    Unfit,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Copy(_) => "Copy",
            Self::Unfit => "Unfit",
        })
    }
}

/// Why it follows no more.
enum End {
    /// Nobody leads there, or nothing is heard.
    Silent,
    /// The connection is broken.
    Broken(io::Error),
    /// It is to come again soon.
    Wait,
    /// It is not taken, or cannot follow.
    Unfit(String),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        Self::Unfit(error.to_string())
    }
}

/// A checkpoint that is read only as long as somebody waits for its copy.
struct Wanted {
    bytes: Cursor<Vec<u8>>,
    by: Weak<()>,
    /// Ends when the copy is begun, though nobody may wait for that any more.
    _turn: OwnedMutexGuard<()>,
}

impl Wanted {
    /// With what says, as long as it is kept, that somebody waits.
    fn new(bytes: Vec<u8>, turn: OwnedMutexGuard<()>) -> (Self, Arc<()>) {
        let wanted = Arc::new(());
        (Self { bytes: Cursor::new(bytes), by: Arc::downgrade(&wanted), _turn: turn }, wanted)
    }
}

impl Read for Wanted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.by.strong_count() == 0 {
            return Err(io::Error::other("nobody waits for the copy any more"));
        }
        Read::read(&mut self.bytes, into)
    }
}

/// Where it follows, and how.
struct Follows {
    pledge: Pledge,
    /// As etcd has it.
    key: StateKey,
    /// That of what members say to each other.
    members: StateKey,
    directory: PathBuf,
    distance: Distance,
    /// When somebody was last heard there who proved that it knows the key.
    proved: Cell<Instant>,
}

impl Follows {
    /// Whoever answers at a leader's address may be anybody. What proves nothing for a lease is as good as silence:
    /// else it would keep a standby in sync waiting for a leader that is dead.
    fn doubt(&self, lease: Duration) {
        if self.proved.get().elapsed() >= lease {
            self.pledge.hear(&Event::LeaderSilent);
        }
    }
}

impl Candidate {
    /// Follows a leader, until this is dropped.
    pub(super) async fn follow(&self, leader: Option<&Leader>, election: &Election) {
        let (Data::Directory(directory), Some(distance)) = (&self.config.data, self.config.journal)
        else {
            return std::future::pending().await;
        };
        let is_other = |it: &&Leader| !it.peer.is_empty() && it.peer != self.options.author.peer;
        let Some(leader) = leader.filter(is_other) else { return std::future::pending().await };
        let (key, arbiter) = loop {
            match self.chain().load_key().await {
                Ok(Some(found)) => break found,
                Ok(None) | Err(_) => sleep(PAUSE_MAX).await,
            }
        };
        let (pledge, directory) = (election.pledge(), directory.clone());
        let proved = Cell::new(Instant::now());
        let members = self.key_of_proofs(key).of_members(arbiter);
        let follows = Follows { pledge, key, members, directory, distance, proved };
        let (mut pause, mut wait, mut told) = (PAUSE_MIN, PAUSE_MIN, String::new());
        loop {
            let began = Instant::now();
            let end = self.follow_once(leader, &follows).await;
            self.synced.is(None);
            follows.doubt(self.options.timing.lease);
            if began.elapsed() >= KEEPS_UP {
                pause = PAUSE_MIN;
            }
            if !matches!(end, Err(End::Wait)) {
                wait = PAUSE_MIN;
            }
            let most = match end {
                Ok(never) => match never {},
                Err(End::Silent) => {
                    let before = self.suspected.get();
                    let suspicion = Suspicion::of(leader.term, before, &election.beats());
                    self.suspected.set(Some(suspicion));
                    follows.pledge.hear(&Event::LeaderSilent);
                    PAUSE_MAX
                }
                Err(End::Wait) => {
                    sleep(wait).await;
                    wait = (wait * 2).min(PAUSE_WAIT_MAX);
                    continue;
                }
                Err(End::Broken(why)) if pause == PAUSE_MIN => {
                    // Whether somebody is there is known at once.
                    debug!("cluster: the leader is not followed: {why}");
                    pause *= 2;
                    continue;
                }
                Err(End::Broken(_)) => PAUSE_UNFIT_MAX,
                Err(End::Unfit(why)) => {
                    if told != why {
                        warn!(
                            "cluster: {} cannot be followed, so this one cannot take over with its table: {why}",
                            leader.name
                        );
                        told = why;
                    }
                    PAUSE_UNFIT_MAX
                }
            };
            sleep(pause).await;
            pause = (pause * 2).min(most);
        }
    }

    /// Follows over one connection.
    async fn follow_once(
        &self,
        leader: &Leader,
        follows: &Follows,
    ) -> Result<std::convert::Infallible, End> {
        let Follows { pledge, key, members, directory, distance, proved } = follows;
        let mut link = Link::to(leader, (*members, proved), &self.config).await?;
        let run = pledge.run();
        link.say(&ToLeader::Follow { term: leader.term, run, rules: RULES }).await?;
        let (term, position, bytes, epochs) = loop {
            match link.hear().await? {
                ToStandby::Accepted { term, position, bytes, epochs } => {
                    break (term, position, bytes, epochs);
                }
                ToStandby::Making => {}
                ToStandby::Wait => return Err(End::Wait),
                ToStandby::Refused { why } => return Err(End::Unfit(why)),
                _ => return Err(FrameError::Unreadable.into()),
            }
        };
        if bytes > CHECKPOINT_BYTES_MAX {
            return Err(End::Unfit(format!("its checkpoint has {bytes} bytes")));
        }
        self.suspected.set(None);
        pledge.hear(&Event::LeaderSpeaks { term });
        let mut checkpoint = Vec::new();
        while (checkpoint.len() as u64) < bytes {
            match link.hear().await? {
                ToStandby::Part(part) => checkpoint.extend_from_slice(&part),
                _ => return Err(FrameError::Unreadable.into()),
            }
        }
        if !pledge.may_acknowledge(term) {
            return Err(End::Wait);
        }
        // Before anything is acknowledged (rule P4).
        let Some(kept) = pledge.keeps_beside() else { return Err(End::Wait) };
        if !self.keep(&kept) {
            return Err(End::Unfit("its term cannot be kept".to_owned()));
        }
        let (directory, distance, key) = (directory.clone(), *distance, *key);
        self.slot.take();
        let turn = Arc::clone(&self.copying).lock_owned().await;
        let (mut checkpoint, _wanted) = Wanted::new(checkpoint, turn);
        // Nobody waits for that, and there is a leader to listen to, and clients to be sent there.
        let mut making = spawn_blocking(move || {
            let origin = Origin { directory: &directory, distance, key, epochs, position };
            Copy::begin(&origin, &mut checkpoint)
        });
        let mut behind = VecDeque::new();
        let mut unread = BACKLOG_BYTES_MAX;
        let copy = loop {
            tokio::select! {
                made = &mut making => break made.map_err(io::Error::other)?,
                message = link.hear(), if unread > 0 => {
                    let message = message?;
                    unread = unread.saturating_sub(message.bytes());
                    behind.push_back(message);
                }
            }
        };
        let copy = copy.map_err(|why| End::Unfit(why.to_string()))?;
        self.slot.replace(Slot::Copy(Box::new(copy)));
        info!(term, bytes; "cluster: following {}", leader.name);
        if pledge.may_acknowledge(term) {
            link.say(&ToLeader::Acknowledged { position }).await?;
        }
        loop {
            let (mut kept, mut done, mut taken) = (None, None, 0);
            let mut next = match behind.pop_front() {
                Some(message) => {
                    yield_now().await;
                    Some(message)
                }
                None => Some(link.hear().await?),
            };
            while let Some(message) = next {
                if let Some(answer) = self.take_in(message, &mut kept)? {
                    done = self.flush(kept.take())?.or(done);
                    link.put(&answer);
                }
                if matches!(&*self.slot.borrow(), Slot::Unfit) {
                    link.leave().await?;
                    let why = "its table differs from that of the leader; please report it";
                    return Err(End::Unfit(why.to_owned()));
                }
                taken += 1;
                next = match behind.pop_front() {
                    None => link.heard()?,
                    // What was kept is written down in batches, too.
                    Some(message) if taken < BATCH_MAX => Some(message),
                    Some(message) => {
                        behind.push_front(message);
                        None
                    }
                };
            }
            if let Some(position) = self.flush(kept)?.or(done)
                && pledge.may_acknowledge(term)
            {
                link.put(&ToLeader::Acknowledged { position });
            }
            link.leave().await?;
            pledge.hear(&Event::LeaderSpeaks { term });
            self.synced.is(pledge.is_in_sync().then_some(0));
        }
    }

    /// Takes in what a leader says; an answer, if that wants one.
    fn take_in(&self, message: ToStandby, kept: &mut Option<u64>) -> Result<Option<ToLeader>, End> {
        let mut slot = self.slot.borrow_mut();
        let Slot::Copy(copy) = &mut *slot else { return Err(End::Wait) };
        let appended = match message {
            ToStandby::More(records) => copy.append(&records),
            ToStandby::Records { position, records } => {
                *kept = Some(position);
                copy.append(&records)
            }
            ToStandby::Check { position, digest } => {
                let ours = copy.digest();
                if ours != digest {
                    discard(&mut slot);
                    error!(position; "cluster: the table of this standby is not that of the leader; please report it");
                }
                return Ok(Some(ToLeader::Checked { position, digest: ours }));
            }
            _ => return Err(FrameError::Unreadable.into()),
        };
        appended.map(|()| None).map_err(|why| {
            discard(&mut slot);
            End::Unfit(why.to_string())
        })
    }

    /// Has what was taken in written down, up to a position.
    fn flush(&self, kept: Option<u64>) -> Result<Option<u64>, End> {
        if let (Some(position), Slot::Copy(copy)) = (kept, &mut *self.slot.borrow_mut()) {
            copy.flush(position).map_err(|why: CopyError| End::Unfit(why.to_string()))?;
            return Ok(kept);
        }
        Ok(None)
    }
}

/// What is there is not the leader's table, and its journal not that of one.
fn discard(slot: &mut Slot) {
    if let Slot::Copy(copy) = mem::replace(slot, Slot::Unfit) {
        copy.discard();
    }
}

/// How a leader is reached.
#[cfg(feature = "tls")]
type Stream = Dialed<TcpStream>;
/// How a leader is reached.
#[cfg(not(feature = "tls"))]
type Stream = TcpStream;

/// Has a leader prove that it is the host of its address, if that is asked for.
#[cfg(feature = "tls")]
async fn secured(stream: TcpStream, leader: &Leader, config: &Config) -> Result<Stream, End> {
    let Some(tls) = &config.peer_tls else { return Ok(Dialed::Plain(stream)) };
    let host = leader.peer.rsplit_once(':').map_or(&*leader.peer, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    tls.secure(stream, host).await.map_err(|why| match why.kind() {
        // Closed at once: somebody is there who does not lead.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => End::Silent,
        _ => End::Unfit(why.to_string()),
    })
}

/// There is nothing to be proved.
#[cfg(not(feature = "tls"))]
#[expect(clippy::unused_async, reason = "there is something to wait for where TLS is")]
async fn secured(stream: TcpStream, _: &Leader, _: &Config) -> Result<Stream, End> {
    Ok(stream)
}

/// A connection to a leader.
struct Link<'a> {
    /// When it said something last.
    proved: &'a Cell<Instant>,
    stream: Stream,
    sealing: Sealing,
    opening: Opening,
    come: BytesMut,
    leave: BytesMut,
}

impl<'a> Link<'a> {
    async fn to(
        leader: &Leader,
        (key, proved): (StateKey, &'a Cell<Instant>),
        config: &Config,
    ) -> Result<Self, End> {
        let mut ours = [0; NONCE_BYTES];
        getrandom::fill(&mut ours).map_err(io::Error::other)?;
        let connecting = timeout(SILENCE, TcpStream::connect(&leader.peer)).await;
        let Ok(Ok(stream)) = connecting else { return Err(End::Silent) };
        stream.set_nodelay(true)?;
        let Ok(secured) = timeout(SILENCE, secured(stream, leader, config)).await else {
            return Err(End::Silent);
        };
        let mut stream = secured?;
        let mut greeting = [0; GREETING_BYTES];
        // Closed at once: somebody is there who does not lead.
        let greeted = timeout(SILENCE, stream.read_exact(&mut greeting)).await;
        match greeted {
            Ok(Ok(_)) => {}
            Ok(Err(why)) if is_refusal(&why) => return Err(End::Unfit(why.to_string())),
            Ok(Err(_)) | Err(_) => return Err(End::Silent),
        }
        let (magic, rest) = greeting.split_at(MAGIC.len());
        let (format, nonce) = rest.split_at(FORMAT.to_le_bytes().len());
        if magic == MAGIC && format == FULL.to_le_bytes() {
            return Err(End::Wait);
        }
        if magic != MAGIC || format != FORMAT.to_le_bytes() {
            return Err(End::Unfit("it speaks otherwise than this version does".to_owned()));
        }
        let mut theirs = [0; NONCE_BYTES];
        theirs.copy_from_slice(nonce);
        let key = LinkKey::of(key, theirs, ours);
        stream.write_all(&ours).await?;
        stream.flush().await?;
        let (sealing, opening) =
            (Sealing::new(key.clone(), Side::Standby), Opening::new(key, Side::Leader));
        Ok(Self { proved, stream, sealing, opening, come: BytesMut::new(), leave: BytesMut::new() })
    }

    fn put(&mut self, message: &ToLeader) {
        let (kind, content) = message.encode();
        self.sealing.put((kind, &content), &mut self.leave);
    }

    async fn leave(&mut self) -> Result<(), End> {
        if !self.leave.is_empty() {
            let writing = async {
                self.stream.write_all(&self.leave).await?;
                self.stream.flush().await
            };
            let written = timeout(SILENCE, writing).await;
            written.map_err(|_| End::Silent)??;
            self.leave.clear();
        }
        Ok(())
    }

    async fn say(&mut self, message: &ToLeader) -> Result<(), End> {
        self.put(message);
        self.leave().await
    }

    /// What is there already, if anything is.
    fn heard(&mut self) -> Result<Option<ToStandby>, End> {
        let Some(frame) = self.opening.take(&mut self.come)? else { return Ok(None) };
        self.proved.set(Instant::now());
        Ok(Some(ToStandby::decode(frame)?))
    }

    /// The next thing that it says.
    async fn hear(&mut self) -> Result<ToStandby, End> {
        loop {
            if let Some(message) = self.heard()? {
                return Ok(message);
            }
            self.come.reserve(READ_BYTES);
            let read = timeout(SILENCE, self.stream.read_buf(&mut self.come)).await;
            if read.map_err(|_| End::Silent)?? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn p7_a_leader_that_has_no_room_is_there_and_one_that_closes_without_a_word_does_not_lead()
     {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = listener.local_addr().unwrap().to_string();
        let leader = Leader { term: 1, name: String::new(), address: String::new(), peer };
        let (config, key) = (Config::default(), StateKey::new(5));
        let proved = Cell::new(Instant::now());
        let greeting = [&MAGIC[..], &FULL.to_le_bytes(), &[0; NONCE_BYTES]].concat();
        for says in [greeting, Vec::new()] {
            let answering = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(&says).await.unwrap();
            };
            let (link, ()) = tokio::join!(Link::to(&leader, (key, &proved), &config), answering);
            match link.map(drop) {
                Err(End::Wait) => assert!(!says.is_empty()),
                Err(End::Silent) => assert!(says.is_empty()),
                Ok(()) | Err(End::Broken(_) | End::Unfit(_)) => panic!("it follows, or never will"),
            }
        }
    }

    #[tokio::test]
    async fn p7_whoever_answers_for_a_leader_and_proves_nothing_for_a_lease_is_taken_for_silence() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = listener.local_addr().unwrap().to_string();
        let leader = Leader { term: 7, name: String::new(), address: String::new(), peer };
        let (lease, key, proved) =
            (Duration::from_millis(300), StateKey::new(5), Cell::new(Instant::now()));
        let (config, pledge) = (Config::default(), Pledge::of_standby_in_sync(7));
        let (directory, distance) = (PathBuf::new(), Distance::Process);
        let follows = Follows { pledge, key, members: key, directory, distance, proved };
        let greeting = [&MAGIC[..], &FULL.to_le_bytes(), &[0; NONCE_BYTES]].concat();
        let began = follows.proved.get();
        loop {
            let answering = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(&greeting).await.unwrap();
            };
            let link = Link::to(&leader, (key, &follows.proved), &config);
            let (link, ()) = tokio::join!(link, answering);
            assert!(matches!(link, Err(End::Wait)), "it says that somebody is there");
            let is_over = began.elapsed() >= lease;
            follows.doubt(lease);
            if follows.pledge.proposes() {
                break assert!(began.elapsed() >= lease, "it may have no room");
            }
            assert!(!is_over, "it keeps a standby in sync waiting for ever");
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn p5_a_copy_that_nobody_waits_for_ends_and_keeps_its_turn_until_then() {
        let turns = Arc::new(Mutex::new(()));
        let turn = Arc::clone(&turns).lock_owned().await;
        let (mut checkpoint, wanted) = Wanted::new(vec![7; 9], turn);
        let mut into = [0; 4];
        assert_eq!(checkpoint.read(&mut into).unwrap(), 4);
        drop(wanted);
        assert!(checkpoint.read(&mut into).is_err());
        assert!(turns.try_lock().is_err(), "its thread may still be at the journal");
        drop(checkpoint);
        assert!(turns.try_lock().is_ok());
    }
}
