//! One standby that follows, over its connection: it proves itself, is given a checkpoint, and then what comes behind
//! it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use bytes::{Bytes, BytesMut};
use log::{info, warn};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{interval, timeout};

use super::checkpoints::{Beginning, First, Follow, made_of_journal};
use super::guests::{Place, STANDBYS_MAX};
use crate::cluster::Event;
use crate::election::Pledge;
use crate::server::coordinator::Coordinator;
use crate::server::durable::StateKey;
use crate::server::durable::replay::RULES;
use crate::server::replica::{
    FORMAT, FULL, Following, FrameError, Gone, LinkKey, MAGIC, NONCE_BYTES, Opening, PART_BYTES,
    Sealing, Side, ToLeader, ToStandby,
};

/// A leader says something so often, though nothing happens.
pub(super) const BEAT: Duration = Duration::from_millis(100);
/// How long one may take to say who it is.
pub(super) const GREETING_TIMEOUT: Duration = Duration::from_secs(2);
/// A standby that takes nothing for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Room for what is read at once.
const READ_BYTES: usize = 4 * 1024;

/// What standbys need of a leadership.
#[derive(Clone)]
pub(super) struct Term {
    pub(super) number: u64,
    /// That of what members say to each other.
    pub(super) key: StateKey,
    pub(super) coordinator: Addr<Coordinator>,
    /// One at a time is given a checkpoint: it may be long. Who makes it has the turn, too.
    pub(super) turns: Arc<Semaphore>,
}

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum Ended {
    /// Others came.
    NoRoom,
    /// As many follow as may.
    TooMany,
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

/// A connection to a standby.
struct Line<S> {
    stream: S,
    sealing: Sealing,
    opening: Opening,
    /// What came, and is not understood yet.
    come: BytesMut,
    /// What is to be written.
    leave: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    /// Has it prove itself; and what it says first. Who has to make room before hears that, and nothing else.
    async fn greet(mut stream: S, of: &Term, place: &Place) -> Result<(Self, ToLeader), Ended> {
        let format = if place.is_leaving() { FULL } else { FORMAT };
        let mut ours = [0; NONCE_BYTES];
        getrandom::fill(&mut ours).map_err(io::Error::other)?;
        stream.write_all(&[&MAGIC[..], &format.to_le_bytes(), &ours].concat()).await?;
        stream.flush().await?;
        if format == FULL {
            stream.shutdown().await?;
            return Err(Ended::NoRoom);
        }
        let mut theirs = [0; NONCE_BYTES];
        tokio::select! {
            read = stream.read_exact(&mut theirs) => read?,
            () = place.left() => return Err(Ended::NoRoom),
        };
        let key = LinkKey::of(of.key, ours, theirs);
        let mut opening = Opening::new(key.clone(), Side::Standby);
        let (mut come, leave) = (BytesMut::new(), BytesMut::new());
        let said = tokio::select! {
            said = next(&mut stream, &mut opening, &mut come) => said?,
            // It knows that somebody leads here.
            () = place.left() => return Err(Ended::NoRoom),
        };
        let sealing = Sealing::new(key, Side::Leader);
        Ok((Self { stream, sealing, opening, come, leave }, said))
    }

    async fn say(&mut self, message: &ToStandby) -> Result<(), Ended> {
        put(&mut self.sealing, message, &mut self.leave);
        write(&mut self.stream, &mut self.leave).await
    }

    /// Says a last thing.
    async fn end(&mut self, message: &ToStandby) -> Result<(), Ended> {
        self.say(message).await?;
        Ok(self.stream.shutdown().await?)
    }

    /// Its turn to be given a checkpoint; it hears meanwhile that somebody is there.
    async fn turn(&mut self, turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Ended> {
        let turn = Arc::clone(turns).acquire_owned();
        tokio::pin!(turn);
        let mut signs = interval(BEAT);
        loop {
            tokio::select! {
                biased;
                turn = &mut turn => return turn.map_err(|why| io::Error::other(why).into()),
                _ = signs.tick() => self.say(&ToStandby::Making).await?,
            }
        }
    }

    /// The checkpoint that it begins with, and its turn; it hears meanwhile that somebody is there.
    async fn checkpoint(
        &mut self,
        (first, turn): (First, OwnedSemaphorePermit),
        following: &Following,
        of: &Term,
    ) -> Result<Result<(Bytes, OwnedSemaphorePermit), String>, Ended> {
        let until = match first {
            First::Checkpoint(bytes) => return Ok(Ok((bytes, turn))),
            First::Journal { until } => until,
        };
        let making = made_of_journal(&of.coordinator, until, turn);
        tokio::pin!(making);
        let mut signs = interval(BEAT);
        loop {
            tokio::select! {
                made = &mut making => return Ok(made),
                _ = signs.tick() => {
                    following.look()?;
                    self.say(&ToStandby::Making).await?;
                }
            }
        }
    }
}

/// Lets one standby follow.
pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    of: Term,
    pledge: &Pledge,
    place: &Place,
) -> Result<(), Ended> {
    let greeted = timeout(GREETING_TIMEOUT, Line::greet(stream, &of, place)).await;
    let (mut line, said) = greeted.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let ToLeader::Follow { term, run, rules } = said else {
        return Err(FrameError::Unreadable.into());
    };
    let is_room = place.proved();
    let beginning = match () {
        () if rules != RULES => {
            let why =
                format!("it has rules {rules}, and the leader {RULES}: upgrade by an orderly stop");
            Err(ToStandby::Refused { why })
        }
        () if term > of.number => Err(ToStandby::Wait),
        () if !is_room => {
            let why =
                format!("{STANDBYS_MAX} follow it already, and no more can; stop one of those");
            let end = line.end(&ToStandby::Refused { why }).await;
            return end.and(Err(Ended::TooMany));
        }
        () if pledge.counts_on(run) => {
            // Its connection of before is gone. It is taken out of the seat before it is given another table.
            pledge.tenure(of.number).hear(&Event::Unfollowed { run });
            Err(ToStandby::Wait)
        }
        () => Ok(()),
    };
    if let Err(answer) = beginning {
        return line.end(&answer).await;
    }
    let turn = line.turn(&of.turns).await?;
    let beginning = of.coordinator.send(Follow { run }).await.ok().flatten().ok_or(ToStandby::Wait);
    let Beginning { following, first, epochs } = match beginning {
        Ok(beginning) => beginning,
        Err(answer) => return line.end(&answer).await,
    };
    let (checkpoint, turn) = match line.checkpoint((first, turn), &following, &of).await? {
        Ok(made) => made,
        Err(why) => {
            warn!("cluster: no checkpoint could be made for a standby: {why}");
            return line.end(&ToStandby::Refused { why }).await;
        }
    };
    let bytes = checkpoint.len() as u64;
    info!(bytes, term = of.number; "cluster: a standby follows");
    let accepted =
        ToStandby::Accepted { term: of.number, position: following.position, bytes, epochs };
    line.say(&accepted).await?;
    let Line { stream, mut sealing, mut opening, mut come, mut leave } = line;
    let (mut from, mut to) = split(stream);
    let writing = async {
        let mut rest = checkpoint;
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(PART_BYTES));
            put(&mut sealing, &ToStandby::Part(part), &mut leave);
            write(&mut to, &mut leave).await?;
        }
        drop((rest, turn));
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

async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &mut BytesMut) -> Result<(), Ended> {
    let writing = async {
        to.write_all(bytes).await?;
        to.flush().await
    };
    let written = timeout(WRITE_TIMEOUT, writing).await;
    written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    bytes.clear();
    Ok(())
}

/// The next thing that a standby says.
async fn next(
    from: &mut (impl AsyncRead + Unpin),
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
