//! The task that owns the connection.
//!
//! It waits for whatever comes first: bytes from the server, a command, the core's next deadline,
//! room to write. Then it takes everything that is ready, gives it to the core, tells what the core
//! has to tell, and writes all that the core has to say in one write. It decides nothing.
//!
//! Reading never waits for writing: a server that does not read cannot keep us from hearing that a
//! lock is lost.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{self, Sleep};
use tokio_util::codec::FramedRead;

use crate::clock::Clock;
use crate::types::{FencingToken, LostReason, RequestId, Timestamp};
use crate::wire::{self, ClientCodec, CodecError, ServerMessage};

use super::core::{Core, Effect, Refusal, Welcome};
use super::error::Error;
use super::lease::LeaseCell;
use super::shared::{Command, Ending, Failure, Hold, NewRequest, Shared};

/// No new commands are taken while more than this waits to be written.
const OUTBOX_BYTES_MAX: usize = 256 * 1024;
/// Commands and endings taken before the connection is looked at again.
const COMMANDS_AT_ONCE_MAX: usize = 1_024;
/// How long the driver stays to see its goodbye arrive.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// The ways into and out of a driver.
pub(super) struct Ways {
    /// From its handles.
    pub(super) commands: mpsc::Receiver<Command>,
    /// From their destructors.
    pub(super) endings: mpsc::UnboundedReceiver<Ending>,
    /// To who waits for the session to open.
    pub(super) ready: oneshot::Sender<Welcome>,
}

/// Who is to be told about a request.
struct Entry {
    /// What its owner sees of it.
    hold: Arc<Hold>,
    /// Who waits for the grant.
    answer: Option<oneshot::Sender<Result<FencingToken, Failure>>>,
    /// Who wants to know its place in line.
    positions: Option<watch::Sender<u64>>,
    /// Who waits for the release.
    released: Option<oneshot::Sender<Result<(), Failure>>>,
    /// Why it was lost while the release was on its way from the handle to here, if it was.
    lost: Option<LostReason>,
}

/// What a turn of the driver began with.
enum Event {
    Read(Option<Result<Vec<ServerMessage>, CodecError>>),
    Written(io::Result<usize>),
    Ending(Ending),
    Command(Option<Command>),
    Deadline,
}

/// The task.
pub(super) struct Driver<Io: AsyncRead + AsyncWrite> {
    /// Decides.
    core: Core,
    /// Tells the core the time.
    clock: Arc<dyn Clock>,
    /// What the server says.
    reader: FramedRead<ReadHalf<Io>, ClientCodec>,
    /// Where we talk.
    writer: WriteHalf<Io>,
    /// What is to be written.
    outbox: BytesMut,
    /// Why the connection ended. After a failed write nothing more is written, but what the server
    /// said before is still read: it may say why.
    failed: Option<io::Error>,
    /// From the handles.
    commands: mpsc::Receiver<Command>,
    /// From their destructors.
    endings: mpsc::UnboundedReceiver<Ending>,
    /// Who is to be told about which request.
    entries: HashMap<u64, Entry>,
    /// Who waits for the session to open.
    ready: Option<oneshot::Sender<Welcome>>,
    /// Who waits for the session to be closed.
    closing: Option<oneshot::Sender<Result<(), Error>>>,
    /// The one timer.
    timer: Pin<Box<Sleep>>,
    /// What the timer is set to, if it is.
    timer_set_to: Option<Timestamp>,
    /// Where the guards see the lease.
    lease: Arc<LeaseCell>,
    /// Where the handles see why it is over.
    end: Arc<OnceLock<Error>>,
    /// Which server, for errors.
    server: Arc<str>,
}

impl<Io: AsyncRead + AsyncWrite> Driver<Io> {
    /// A driver for `core` over `io`, behind `shared`, which it does not keep alive.
    pub(super) fn new(io: Io, core: Core, shared: &Shared, ways: Ways) -> Self {
        let (reader, writer) = tokio::io::split(io);
        let mut driver = Self {
            core,
            clock: Arc::clone(&shared.clock),
            reader: FramedRead::new(reader, ClientCodec::new()),
            writer,
            outbox: BytesMut::new(),
            failed: None,
            commands: ways.commands,
            endings: ways.endings,
            entries: HashMap::new(),
            ready: Some(ways.ready),
            closing: None,
            timer: Box::pin(time::sleep(Duration::ZERO)),
            timer_set_to: None,
            lease: Arc::clone(&shared.lease),
            end: Arc::clone(&shared.end),
            server: Arc::clone(&shared.server),
        };
        driver.settle();
        driver
    }

    /// Runs until the session is over.
    pub(super) async fn run(mut self) {
        while self.core.end().is_none() {
            let event = self.next_event().await;
            self.handle(event);
            // Losses are told before more is taken: a release among it wants to know the reason.
            self.settle();
            self.take_what_is_ready();
            self.core.tick(self.clock.now());
            self.settle();
        }
        self.say_goodbye().await;
    }

    async fn next_event(&mut self) -> Event {
        self.set_timer();
        let may_write = !self.outbox.is_empty();
        let may_take = self.outbox.len() < OUTBOX_BYTES_MAX;
        tokio::select! {
            biased;
            written = self.writer.write_buf(&mut self.outbox), if may_write => {
                Event::Written(written)
            }
            read = self.reader.next() => Event::Read(read),
            Some(ending) = self.endings.recv() => Event::Ending(ending),
            command = self.commands.recv(), if may_take => Event::Command(command),
            () = &mut self.timer, if self.timer_set_to.is_some() => Event::Deadline,
        }
    }

    /// Sets the timer to the core's next deadline, if that is another than before.
    fn set_timer(&mut self) {
        let deadline = self.core.next_deadline();
        if deadline == self.timer_set_to {
            return;
        }
        self.timer_set_to = deadline;
        if let Some(deadline) = deadline {
            let left = deadline.since(self.clock.now());
            self.timer.as_mut().reset(time::Instant::now() + left);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Read(Some(Ok(batch))) => {
                // The time is taken after the read, never before (rule T1).
                let now = self.clock.now();
                for message in batch {
                    self.core.receive(message, now);
                }
            }
            Event::Read(Some(Err(error))) => match error {
                CodecError::Io(error) => self.connection_lost(Some(error)),
                broken => self.core.protocol_broken(broken.to_string()),
            },
            Event::Read(None) => self.connection_lost(None),
            Event::Written(Ok(0)) => self.write_failed(io::ErrorKind::WriteZero.into()),
            Event::Written(Ok(_)) => {}
            Event::Written(Err(error)) => self.write_failed(error),
            Event::Ending(ending) => self.handle_ending(ending),
            Event::Command(command) => self.handle_command(command),
            // Set anew even if it rang early by the core's clock.
            Event::Deadline => self.timer_set_to = None,
        }
    }

    /// Takes what else the handles want already, so that it goes out in the same write.
    fn take_what_is_ready(&mut self) {
        for _ in 0..COMMANDS_AT_ONCE_MAX {
            if let Ok(ending) = self.endings.try_recv() {
                self.handle_ending(ending);
            } else if self.outbox.len() < OUTBOX_BYTES_MAX
                && let Ok(command) = self.commands.try_recv()
            {
                self.handle_command(Some(command));
            } else {
                break;
            }
        }
    }

    fn handle_command(&mut self, command: Option<Command>) {
        // Who drops a guard and then asks for its lock must not find itself in the way. What was
        // dropped before the command was sent may have come after our last look.
        while let Ok(ending) = self.endings.try_recv() {
            self.handle_ending(ending);
        }
        match command {
            Some(Command::Request(new)) => self.request(*new),
            Some(Command::Close(done)) => {
                self.core.goodbye();
                self.closing = Some(done);
            }
            // All handles are gone.
            None => self.core.goodbye(),
        }
    }

    fn request(&mut self, new: NewRequest) {
        let NewRequest { ask, hold, answer, positions } = new;
        if hold.is_abandoned() {
            return;
        }
        let request = self.core.request(ask);
        let given_up = !hold.begin(request);
        let entry = Entry { hold, answer: Some(answer), positions, released: None, lost: None };
        self.entries.insert(request.number(), entry);
        if given_up {
            self.cancel(request);
        }
    }

    fn handle_ending(&mut self, ending: Ending) {
        match ending {
            Ending::Cancel(request) => self.cancel(request),
            Ending::Release { request, answer } => {
                match self.entries.get_mut(&request.number()) {
                    Some(&mut Entry { lost: Some(reason), .. }) => {
                        self.entries.remove(&request.number());
                        if let Some(answer) = answer {
                            let _ = answer.send(Err(Failure::Lost(reason)));
                        }
                    }
                    Some(entry) => entry.released = answer,
                    None => {}
                }
                self.core.release(request, self.clock.now());
            }
        }
    }

    fn cancel(&mut self, request: RequestId) {
        self.entries.remove(&request.number());
        self.core.cancel(request);
    }

    fn connection_lost(&mut self, cause: Option<io::Error>) {
        if self.failed.is_none() {
            self.failed = cause;
        }
        self.core.connection_lost();
    }

    fn write_failed(&mut self, error: io::Error) {
        self.outbox.clear();
        self.failed = Some(error);
    }

    /// Does what the core wants done: shows the lease, tells who waits, fills the outbox.
    fn settle(&mut self) {
        if let Some(lease) = self.core.lease() {
            self.lease.publish(lease);
        }
        self.encode();
        if let Some(end) = self.core.end() {
            let cause = self.failed.take();
            self.end.get_or_init(|| Error::ended(&self.server, end, cause));
        }
        for effect in self.core.take_effects() {
            self.tell(effect);
        }
    }

    fn encode(&mut self) {
        let mut unwritable = None;
        for message in self.core.drain_messages() {
            if self.failed.is_none()
                && let Err(error) = wire::encode_frame(&message, &mut self.outbox)
            {
                unwritable = Some(error);
            }
        }
        // Cannot be: what goes into messages was measured before. But a message that is not sent
        // must not be waited for.
        if let Some(error) = unwritable {
            self.core.protocol_broken(error.to_string());
        }
    }

    fn tell(&mut self, effect: Effect) {
        match effect {
            Effect::Welcomed(welcome) => {
                if let Some(ready) = self.ready.take() {
                    let _ = ready.send(welcome);
                }
            }
            Effect::Granted { request, token } => {
                if let Some(entry) = self.entries.get_mut(&request.number()) {
                    entry.positions = None;
                    if let Some(answer) = entry.answer.take() {
                        // Whoever gave up meanwhile cancels it.
                        let _ = answer.send(Ok(token));
                    }
                }
            }
            Effect::Queued { request, position } => {
                let entry = self.entries.get(&request.number());
                if let Some(positions) = entry.and_then(|entry| entry.positions.as_ref()) {
                    let _ = positions.send(position);
                }
            }
            Effect::Refused { request, refusal } => {
                let answer = self.entries.remove(&request.number()).and_then(|e| e.answer);
                if let Some(answer) = answer {
                    let _ = answer.send(Err(self.failure(refusal)));
                }
            }
            Effect::Released { request, outcome } => {
                let released = self.entries.remove(&request.number()).and_then(|e| e.released);
                if let Some(released) = released {
                    let _ = released.send(outcome.map_err(|refusal| self.failure(refusal)));
                }
            }
            Effect::Lost { request, reason } => {
                let Some(entry) = self.entries.get_mut(&request.number()) else { return };
                entry.hold.lose(reason);
                if entry.hold.is_given_back() {
                    // The release is on its way to us, and wants to hear of it.
                    entry.lost = Some(reason);
                } else {
                    self.entries.remove(&request.number());
                }
            }
        }
    }

    fn failure(&self, refusal: Refusal) -> Failure {
        match refusal {
            Refusal::Rejected(rejection) => Failure::Rejected(rejection),
            Refusal::Lost(reason) => Failure::Lost(reason),
            Refusal::Ended => Failure::Ended(self.end.get().cloned().unwrap_or(Error::Closed)),
        }
    }

    /// Brings the last words out, and waits a moment for the server to have heard them.
    async fn say_goodbye(&mut self) {
        let closing = self.closing.take();
        self.commands.close();
        let farewell = async {
            self.writer.write_all_buf(&mut self.outbox).await?;
            self.writer.shutdown().await?;
            // The server closes when it has freed everything. Whatever it says before is too late.
            let mut ignored = [0; 1_024];
            while self.reader.get_mut().read(&mut ignored).await? > 0 {}
            Ok(())
        };
        let outcome = time::timeout(FAREWELL_TIMEOUT, farewell).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, "no answer to goodbye"))
        });
        if let Some(closing) = closing {
            let _ = closing.send(outcome.map_err(|error| Error::unavailable(&self.server, error)));
        }
    }
}

/// A driver that is dropped before its session is over is one whose runtime ends, as it does at the
/// end of most programs. There is nobody left to wait, but what fits into the socket still goes out
/// and spares the others the wait for our lease.
impl<Io: AsyncRead + AsyncWrite> Drop for Driver<Io> {
    fn drop(&mut self) {
        self.core.goodbye();
        self.settle();
        let mut context = Context::from_waker(Waker::noop());
        while !self.outbox.is_empty() {
            match Pin::new(&mut self.writer).poll_write(&mut context, &self.outbox) {
                Poll::Ready(Ok(written)) if written > 0 => self.outbox.advance(written),
                Poll::Ready(_) | Poll::Pending => break,
            }
        }
    }
}

#[cfg(test)]
mod fake_server;
#[cfg(test)]
mod tests;
