//! The leader's end of the stream: standbys connect here, are given a checkpoint, and then what comes behind it.
//!
//! All of it is on the Coordinator's thread. So a leader that decides nothing sends nothing, and its standby
//! notices.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use std::{io, mem};

use actix::{Addr, Handler, Message, MessageResult};
use bytes::{Bytes, BytesMut};
use log::{debug, info, warn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::guests::{Guests, Place};
use crate::clock::{BootClock, Clock};
use crate::cluster::{Event, RunId};
use crate::election::Pledge;
use crate::journal::Epochs;
use crate::server::chatter::Topic;
use crate::server::coordinator::Coordinator;
use crate::server::counters::Counters;
use crate::server::durable::StateKey;
use crate::server::durable::replay::{RULES, checkpoint, digest};
use crate::server::incumbent::Synced;
use crate::server::replica::{
    FORMAT, Following, FrameError, Gone, LinkKey, MAGIC, NONCE_BYTES, Opening, PART_BYTES, Sealing,
    Side, ToLeader, ToStandby,
};

/// How long one may take to say who it is.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);
/// A leader says something so often, though nothing happens.
const BEAT: Duration = Duration::from_millis(100);
/// The tables are compared at every so many-th.
const BEATS_PER_CHECK: u32 = 10;
/// A standby that takes nothing for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// A checkpoint that is longer is not sent.
const CHECKPOINT_BYTES_MAX: usize = 1 << 30;
/// Room for what is read at once.
const READ_BYTES: usize = 4 * 1024;
/// A pause after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks whether what waits may be said by now.
#[derive(Debug)]
struct Said;

impl Message for Said {
    type Result = ();
}

impl Handler<Said> for Coordinator {
    type Result = ();

    fn handle(&mut self, Said: Said, _: &mut Self::Context) {
        self.parts().1.try_threshold();
    }
}

/// Time has passed, and standbys are to hear that somebody leads.
#[derive(Debug)]
struct Beat {
    /// Whether tables are to be compared.
    checks: bool,
    /// How long ago the last one was heard.
    pause: Duration,
}

impl Message for Beat {
    type Result = ();
}

impl Handler<Beat> for Coordinator {
    type Result = ();

    fn handle(&mut self, Beat { checks, pause }: Beat, _: &mut Self::Context) {
        let (desk, gate) = self.parts();
        let Some(feed) = gate.threshold.feed() else { return };
        feed.look(pause);
        feed.report();
        if !feed.is_followed() {
            return;
        }
        feed.seal();
        if let Some(table) = desk.table().filter(|_| checks) {
            feed.check(digest(table));
        }
    }
}

/// A standby wants to follow from now on.
struct Follow {
    run: RunId,
}

/// What it is given first.
struct Beginning {
    following: Following,
    checkpoint: Bytes,
    epochs: Epochs,
}

impl Message for Follow {
    type Result = Option<Beginning>;
}

impl Handler<Follow> for Coordinator {
    type Result = MessageResult<Follow>;

    fn handle(&mut self, Follow { run }: Follow, _: &mut Self::Context) -> Self::Result {
        let (desk, gate) = self.parts();
        let epochs = gate.chronicle().filter(|it| it.holds_the_door()).map(|it| it.epochs());
        let begin = || {
            let (epochs, table, feed) = (epochs?, desk.table()?, gate.threshold.feed()?);
            // It may have caught up over its connection of before, and has to keep what it has then.
            if feed.counts_on(run) {
                return None;
            }
            // What was appended is in the table already.
            feed.seal();
            let mut bytes = Vec::new();
            checkpoint(table, &mut bytes).ok()?;
            let checkpoint =
                Some(Bytes::from(bytes)).filter(|it| it.len() <= CHECKPOINT_BYTES_MAX)?;
            Some(Beginning { following: feed.begin(run), checkpoint, epochs })
        };
        MessageResult(begin())
    }
}

/// What standbys need of a leadership.
#[derive(Clone)]
struct Term {
    number: u64,
    key: StateKey,
    coordinator: Addr<Coordinator>,
}

/// Where standbys come to, whether this one leads or not.
pub(super) struct Peers {
    /// Who says what may be said.
    pledge: Pledge,
    /// The leadership of now.
    term: Rc<RefCell<Option<Term>>>,
    /// Those who are connected.
    guests: Guests,
    /// Who accepts them.
    accepting: Option<JoinHandle<()>>,
}

impl Drop for Peers {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

impl Peers {
    /// Accepts standbys from now on, if there is a port for them.
    pub(super) fn at(
        listener: Option<TcpListener>,
        pledge: Pledge,
        counters: &Arc<Counters>,
    ) -> Self {
        let (term, guests) = (Rc::default(), Guests::default());
        let accepting = listener.map(|listener| {
            let (term, guests, counters) = (Rc::clone(&term), guests.clone(), Arc::clone(counters));
            spawn_local(accept_all(listener, pledge.clone(), term, guests, counters))
        });
        Self { pledge, term, guests, accepting }
    }

    /// This one leads, and says only what it may, until what is returned is dropped.
    pub(super) fn lead(
        &self,
        term: u64,
        key: StateKey,
        (coordinator, synced): (Addr<Coordinator>, Synced),
    ) -> Leads {
        let (pledge, watched) = (self.pledge.clone(), self.pledge.clone());
        let shown = synced.clone();
        let (said, beaten) = (coordinator.clone(), coordinator.clone());
        *self.term.borrow_mut() = Some(Term { number: term, key, coordinator });
        let saying = spawn_local(async move {
            loop {
                pledge.changed().await;
                said.do_send(Said);
            }
        });
        let beating = spawn_local(async move {
            let mut beats = interval(BEAT);
            beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let (mut number, mut last): (u32, _) = (0, BootClock.now());
            loop {
                beats.tick().await;
                number = number.wrapping_add(1);
                let (checks, now) = (number.is_multiple_of(BEATS_PER_CHECK), BootClock.now());
                let pause = now.since(mem::replace(&mut last, now));
                // As slowly as it turns.
                let _ = beaten.send(Beat { checks, pause }).await;
                shown.is(watched.behind());
            }
        });
        let (term, guests) = (Rc::clone(&self.term), self.guests.clone());
        Leads { term, guests, synced, pledge: self.pledge.clone(), tasks: [saying, beating] }
    }
}

/// A leadership, for as long as this is there.
pub(super) struct Leads {
    term: Rc<RefCell<Option<Term>>>,
    guests: Guests,
    synced: Synced,
    pledge: Pledge,
    tasks: [JoinHandle<()>; 2],
}

impl Leads {
    /// It leads no more: standbys hear of it at once.
    pub(super) fn end(&self) {
        self.term.borrow_mut().take();
        self.tasks.iter().for_each(JoinHandle::abort);
        self.guests.end();
        self.pledge.report_none();
        self.synced.is(None);
    }
}

impl Drop for Leads {
    fn drop(&mut self) {
        self.end();
    }
}

/// Accepts standbys, a bounded number at a time. Those of a leadership end with it.
async fn accept_all(
    listener: TcpListener,
    pledge: Pledge,
    term: Rc<RefCell<Option<Term>>>,
    guests: Guests,
    counters: Arc<Counters>,
) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(why) => {
                debug!("a standby could not be accepted: {why}");
                sleep(PAUSE).await;
                continue;
            }
        };
        // Closed at once, a connection says that nobody leads here.
        let of = term.borrow().clone().filter(|of| pledge.leads() == Some(of.number));
        let Some(of) = of else { continue };
        let (pledge, counters) = (pledge.clone(), Arc::clone(&counters));
        let serving = |place| {
            spawn_local(async move {
                match serve(stream, of, &pledge, &place).await {
                    Ok(()) => debug!(peer:?; "a standby follows no more"),
                    Err(Ended::Gone(why)) => {
                        warn!(peer:?; "cluster: a standby is sent away: {why}");
                    }
                    // Anybody who reaches the port can cause this.
                    Err(Ended::Frame(why)) => {
                        if counters.chatter.admits(Topic::ProtocolError, Some(peer)) {
                            warn!(peer:?; "cluster: somebody who is no standby of this cluster is sent away: {why}");
                        }
                    }
                    Err(Ended::Io(why)) => debug!(peer:?; "cluster: a standby is gone: {why}"),
                }
            })
        };
        if guests.receive(peer.ip(), serving).is_none() {
            debug!(peer:?; "too many standbys");
        }
    }
}

/// Why a connection ends.
#[derive(Debug)]
enum Ended {
    Gone(Gone),
    Frame(FrameError),
    Io(io::Error),
}

impl From<Gone> for Ended {
    fn from(why: Gone) -> Self {
        Self::Gone(why)
    }
}

impl From<FrameError> for Ended {
    fn from(why: FrameError) -> Self {
        Self::Frame(why)
    }
}

impl From<io::Error> for Ended {
    fn from(why: io::Error) -> Self {
        Self::Io(why)
    }
}

/// Lets one standby follow.
async fn serve(
    mut stream: TcpStream,
    of: Term,
    pledge: &Pledge,
    place: &Place,
) -> Result<(), Ended> {
    stream.set_nodelay(true)?;
    let mut ours = [0; NONCE_BYTES];
    getrandom::fill(&mut ours).map_err(io::Error::other)?;
    let (mut come, mut leave) = (BytesMut::new(), BytesMut::new());
    let greeting = async {
        stream.write_all(&[&MAGIC[..], &FORMAT.to_le_bytes(), &ours].concat()).await?;
        let mut theirs = [0; NONCE_BYTES];
        stream.read_exact(&mut theirs).await?;
        let key = LinkKey::of(of.key, ours, theirs);
        let mut opening = Opening::new(key.clone(), Side::Standby);
        let said = next(&mut stream, &mut opening, &mut come).await?;
        Ok::<_, Ended>((Sealing::new(key, Side::Leader), opening, said))
    };
    let greeted = timeout(GREETING_TIMEOUT, greeting).await;
    let (mut sealing, mut opening, said) =
        greeted.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let ToLeader::Follow { term, run, rules } = said else {
        return Err(FrameError::Unreadable.into());
    };
    place.proved();
    let beginning = match () {
        () if rules != RULES => {
            let why =
                format!("it has rules {rules}, and the leader {RULES}: upgrade by an orderly stop");
            Err(ToStandby::Refused { why })
        }
        () if term > of.number => Err(ToStandby::Wait),
        () if pledge.counts_on(run) => {
            // Its connection of before is gone. It is taken out of the seat before it is given another table.
            pledge.tenure(of.number).hear(&Event::Unfollowed { run });
            Err(ToStandby::Wait)
        }
        () => of.coordinator.send(Follow { run }).await.ok().flatten().ok_or(ToStandby::Wait),
    };
    let Beginning { following, checkpoint, epochs } = match beginning {
        Ok(beginning) => beginning,
        Err(answer) => {
            put(&mut sealing, &answer, &mut leave);
            stream.write_all(&leave).await?;
            return Ok(stream.shutdown().await?);
        }
    };
    let bytes = checkpoint.len() as u64;
    info!(bytes, term = of.number; "cluster: a standby follows");
    let position = following.position;
    let (mut from, mut to) = stream.split();
    let writing = async {
        let accepted = ToStandby::Accepted { term: of.number, position, bytes, epochs };
        put(&mut sealing, &accepted, &mut leave);
        let mut rest = checkpoint;
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(PART_BYTES));
            put(&mut sealing, &ToStandby::Part(part), &mut leave);
            write(&mut to, &mut leave).await?;
        }
        write(&mut to, &mut leave).await?;
        loop {
            following.woken().await;
            following.look()?;
            for message in following.take()? {
                put(&mut sealing, &message, &mut leave);
                if leave.len() >= PART_BYTES {
                    write(&mut to, &mut leave).await?;
                }
            }
            write(&mut to, &mut leave).await?;
            following.sent();
        }
    };
    let reading = async {
        loop {
            match next(&mut from, &mut opening, &mut come).await? {
                ToLeader::Acknowledged { position } => following.acknowledged(position)?,
                ToLeader::Checked { position, digest } => following.checked(position, digest)?,
                ToLeader::Follow { .. } => return Err(FrameError::Unreadable.into()),
            }
        }
    };
    tokio::select! {
        ended = writing => ended,
        ended = reading => ended,
    }
}

fn put(sealing: &mut Sealing, message: &ToStandby, to: &mut BytesMut) {
    let (kind, content) = message.encode();
    sealing.put((kind, &content), to);
}

async fn write(to: &mut (impl AsyncWriteExt + Unpin), bytes: &mut BytesMut) -> Result<(), Ended> {
    let written = timeout(WRITE_TIMEOUT, to.write_all(bytes)).await;
    written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    bytes.clear();
    Ok(())
}

/// The next thing that a standby says.
async fn next(
    from: &mut (impl AsyncReadExt + Unpin),
    opening: &mut Opening,
    come: &mut BytesMut,
) -> Result<ToLeader, Ended> {
    loop {
        if let Some(frame) = opening.take(come)? {
            return Ok(ToLeader::decode(frame)?);
        }
        come.reserve(READ_BYTES);
        if from.read_buf(come).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}
