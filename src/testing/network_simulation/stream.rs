//! A connection: two directions in which bytes are under way, and what the network does to them.
//!
//! As with TCP, bytes arrive in the order in which they were sent, or not at all, and in pieces
//! that have nothing to do with how they were written. Unlike with TCP, their fate is drawn from a
//! seed: when a piece arrives, and how much of it a read brings. So are the lost bytes when the
//! connection is cut, and the moment when either end hears of that, if ever.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::trace::Trace;
use crate::testing::fuzz::Random;

/// Bytes that may be under way or unread; whoever has more to say waits.
const WINDOW_BYTES: usize = 64 * 1024;
/// One piece in so many is late, and all that come after it.
const PIECES_PER_LATE_ONE: usize = 150;
/// By how much, at most.
const LATE_MS_MAX: u64 = 3_000;
/// The other end hears of an end within this, if it does.
const NEWS_MS_MAX: u64 = 4_000;

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Who connected.
    Client,
    /// Who accepted.
    Server,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// How a direction ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// In order, after all that was said.
    Shut,
    /// In the middle of it.
    Reset,
}

/// One direction.
struct Lane {
    /// What is under way, and when it arrives.
    pieces: VecDeque<(Instant, Bytes)>,
    /// How much that is.
    bytes: usize,
    /// Nothing that is sent later arrives before this.
    latest: Instant,
    /// How it ends and when that is heard, once that is so.
    end: Option<(Instant, End)>,
    /// Nothing arrives before this.
    dark_until: Instant,
    /// How long a piece takes at most.
    latency_max: Duration,
    /// What is written gets nowhere.
    is_void: bool,
    /// Some of it has arrived.
    has_arrived: bool,
    /// Who waits for something to arrive.
    reader: Option<Waker>,
    /// Who waits for room.
    writer: Option<Waker>,
}

impl Lane {
    fn new(latency_max: Duration) -> Self {
        let now = Instant::now();
        Self {
            pieces: VecDeque::new(),
            bytes: 0,
            latest: now,
            end: None,
            dark_until: now,
            latency_max,
            is_void: false,
            has_arrived: false,
            reader: None,
            writer: None,
        }
    }

    /// When the next thing arrives.
    fn next_at(&self) -> Option<Instant> {
        let piece = self.pieces.front().map(|(at, _)| *at);
        let at = piece.or(self.end.map(|(at, _)| at))?;
        Some(at.max(self.dark_until))
    }

    /// Whether the reader knows that the connection is broken.
    fn is_reset(&self) -> bool {
        matches!(self.end, Some((at, End::Reset)) if at.max(self.dark_until) <= Instant::now())
    }

    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    /// Nothing more gets in. What is under way still arrives, or part of it, or nothing; and that it is
    /// over is heard some time, or never.
    fn sever(&mut self, random: &mut Random) {
        if self.is_void {
            return;
        }
        self.is_void = true;
        if random.once_in(2) {
            self.pieces.truncate(random.below(self.pieces.len() + 1));
        }
        let heard = self.latest.max(Instant::now()) + millis(random, NEWS_MS_MAX);
        self.end = (!random.once_in(4)).then_some((heard, End::Reset));
        self.wake();
    }
}

/// Up to so many milliseconds, in microseconds.
pub(super) fn millis(random: &mut Random, max: u64) -> Duration {
    Duration::from_micros(random.next() % (max * 1_000 + 1))
}

/// What both ends of a connection share.
struct Shared {
    /// From the client to the server, and back.
    lanes: [Lane; 2],
    /// Decides about this connection and no other, so that whoever else is busy changes nothing.
    random: Random,
    /// Whether pieces can be late.
    weather: Weather,
}

/// Whether things go wrong by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    /// They do.
    Rough,
    /// They do not.
    Calm,
}

/// A connection, as the network sees it.
#[derive(Clone)]
pub(super) struct Wire {
    /// Its number, in the order in which they were made.
    pub(super) number: u64,
    /// Which client's.
    pub(super) client: u64,
    /// Also with both ends.
    shared: Arc<Mutex<Shared>>,
    /// Where it is written down what is said.
    trace: Trace,
}

impl Wire {
    /// A new one, and its two ends.
    pub(super) fn new(
        number: u64,
        client: u64,
        mut random: Random,
        latency_max: Duration,
        weather: Weather,
        trace: Trace,
    ) -> (Self, Stream, Stream) {
        let seed = random.next();
        let lanes = [Lane::new(latency_max), Lane::new(latency_max)];
        let shared = Arc::new(Mutex::new(Shared { lanes, random: Random::new(seed), weather }));
        let wire = Self { number, client, shared, trace };
        let end = |side| Stream { wire: wire.clone(), side, timer: None, is_shut: false };
        (wire.clone(), end(Side::Client), end(Side::Server))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    fn say(&self, side: Side, what: &str, len: usize) {
        self.trace.say(format_args!("connection {}: {side:?} {what} {len}", self.number));
    }

    /// Whether both ends are gone.
    pub(super) fn is_over(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
    }

    /// Whether the server has answered, and neither end has ended it: then its client is there, for the
    /// server as well.
    pub(super) fn is_whole(&self) -> bool {
        let lanes = &self.lock().lanes;
        let is_answered = lanes[Side::Server as usize].has_arrived;
        is_answered && lanes.iter().all(|lane| !lane.is_void && lane.end.is_none())
    }

    /// Cut: nothing more gets through.
    pub(super) fn cut(&self) {
        let Shared { lanes, random, .. } = &mut *self.lock();
        for lane in lanes {
            lane.sever(random);
        }
    }

    /// Forgotten on the way, one way or both: what is said gets nowhere, and neither end hears of it.
    pub(super) fn forget(&self) {
        let Shared { lanes, random, .. } = &mut *self.lock();
        let ways = random.below(3);
        for (number, lane) in lanes.iter_mut().enumerate() {
            if ways != number {
                lane.is_void = true;
                lane.pieces.clear();
                lane.wake();
            }
        }
    }

    /// One end dies without a word.
    pub(super) fn die(&self, side: Side) {
        let Shared { lanes, random, .. } = &mut *self.lock();
        lanes[side as usize].sever(random);
        lanes[side.other() as usize].is_void = true;
    }

    /// The server's system finds out that its client is not there (keepalive).
    pub(super) fn find_lost(&self) {
        let lane = &mut self.lock().lanes[Side::Client as usize];
        lane.is_void = true;
        lane.pieces.clear();
        lane.end = Some((Instant::now(), End::Reset));
        lane.wake();
    }

    /// Nothing that `from` said arrives before `until`.
    pub(super) fn darken(&self, from: Side, until: Instant) {
        let lane = &mut self.lock().lanes[from as usize];
        lane.dark_until = lane.dark_until.max(until);
    }

    /// How long pieces take from now on.
    pub(super) fn slow_down(&self, latency_max: Duration) {
        for lane in &mut self.lock().lanes {
            lane.latency_max = latency_max;
        }
    }

    /// What is dark is so no more, and nothing is late.
    pub(super) fn heal(&self) {
        let mut shared = self.lock();
        shared.weather = Weather::Calm;
        for lane in &mut shared.lanes {
            lane.dark_until = Instant::now();
            lane.wake();
        }
    }
}

/// One end of a connection.
pub(super) struct Stream {
    /// The connection.
    wire: Wire,
    /// Which end.
    side: Side,
    /// Rings when the next thing arrives.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether this end has said its last.
    is_shut: bool,
}

impl Stream {
    fn shut(&mut self, end: End) {
        if std::mem::replace(&mut self.is_shut, true) {
            return;
        }
        let Shared { lanes, random, .. } = &mut *self.wire.lock();
        let lane = &mut lanes[self.side as usize];
        if !lane.is_void {
            let latency = u64::try_from(lane.latency_max.as_millis()).unwrap();
            lane.latest = lane.latest.max(Instant::now() + millis(random, latency));
            lane.end = Some((lane.latest, end));
            lane.wake();
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let at = {
                let Shared { lanes, random, .. } = &mut *self.wire.lock();
                let lane = &mut lanes[self.side.other() as usize];
                lane.reader = Some(context.waker().clone());
                let Some(at) = lane.next_at() else { return Poll::Pending };
                if at <= Instant::now() {
                    let Some((_, piece)) = lane.pieces.front_mut() else {
                        return Poll::Ready(match lane.end {
                            Some((_, End::Reset)) => Err(io::ErrorKind::ConnectionReset.into()),
                            Some((_, End::Shut)) | None => Ok(()),
                        });
                    };
                    let all = piece.len().min(buffer.remaining());
                    let len = if random.once_in(4) { 1 + random.below(all) } else { all };
                    buffer.put_slice(&piece.split_to(len));
                    if piece.is_empty() {
                        lane.pieces.pop_front();
                    }
                    (lane.bytes, lane.has_arrived) = (lane.bytes - len, true);
                    if let Some(writer) = lane.writer.take() {
                        writer.wake();
                    }
                    self.wire.say(self.side, "reads", len);
                    return Poll::Ready(Ok(()));
                }
                at
            };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if timer.deadline() != at {
                timer.as_mut().reset(at);
            }
            ready!(timer.as_mut().poll(context));
            self.timer = None;
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Shared { lanes, random, weather } = &mut *self.wire.lock();
        if self.is_shut || lanes[self.side.other() as usize].is_reset() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let lane = &mut lanes[self.side as usize];
        let room = WINDOW_BYTES - lane.bytes;
        if room == 0 {
            lane.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let len = bytes.len().min(room);
        lane.bytes += len;
        if !lane.is_void {
            let latency = u64::try_from(lane.latency_max.as_millis()).unwrap();
            let mut takes = millis(random, latency);
            if *weather == Weather::Rough && random.once_in(PIECES_PER_LATE_ONE) {
                takes += millis(random, LATE_MS_MAX);
            }
            lane.latest = lane.latest.max(Instant::now() + takes);
            lane.pieces.push_back((lane.latest, Bytes::copy_from_slice(&bytes[..len])));
            if let Some(reader) = lane.reader.take() {
                reader.wake();
            }
        }
        self.wire.say(self.side, "writes", len);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut(End::Shut);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shut(End::Shut);
        let lanes = &mut self.wire.lock().lanes;
        lanes[self.side.other() as usize].is_void = true;
    }
}
