//! The driver: the task that owns the connection, and makes the next (an event loop).
//!
//! It waits for the first of several events: bytes from the server, a command, the core's next
//! deadline, room to write, or a connection. The latter may be a second one while the first does
//! not answer. Then it gives everything that is ready to the core, tells the core's effects, and
//! writes all messages of the core in one write. It decides nothing.
//!
//! Reading never waits for writing: a server that does not read cannot keep us from hearing that a
//! lock is lost.

mod connector;
mod farewell;
mod link;
mod looks;
mod race;
mod report;

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{self, Sleep};

use crate::clock::Clock;
use crate::types::{LostReason, RequestId, Timestamp};
use crate::wire::CodecError;

use super::core::{Core, Effect, Refusal, Welcome};
use super::error::{Error, closed_by};
use super::lease::LeaseCell;
use super::process::{Own, Process};
use super::session_event::SessionEvent;
use super::shared::{Command, Ending, Failure, Hold, NewRequest, Shared};
use link::{Connection, Link, LinkEvent};
use looks::Onlookers;
use report::Reporter;

#[cfg(all(test, feature = "server"))]
pub(crate) use connector::Connecting;
pub(crate) use connector::{Connector, Whither};
pub(super) use connector::{CredentialInClear, Dial, Once};

/// Commands and endings taken before the connection is looked at again.
const COMMANDS_AT_ONCE_MAX: usize = 1_024;

/// The ways into and out of a driver.
pub(super) struct Ways {
    /// From its handles.
    pub(super) commands: mpsc::Receiver<Command>,
    /// From their destructors.
    pub(super) endings: mpsc::UnboundedReceiver<Ending>,
    /// To who waits for the first session to open.
    pub(super) ready: oneshot::Sender<Welcome>,
    /// To who wants to know which session it is now.
    pub(super) welcome: watch::Sender<Option<Welcome>>,
    /// To who wants to know what becomes of the session.
    pub(super) events: broadcast::Sender<SessionEvent>,
}

/// Who is to be told about a request.
struct Entry {
    /// The hold, as its holder sees it.
    hold: Arc<Hold>,
    /// The caller that waits for the grant.
    answer: Option<oneshot::Sender<Result<(), Failure>>>,
    /// The caller that wants to know its place in line.
    positions: Option<watch::Sender<u64>>,
    /// The caller that waits for the release.
    released: Option<oneshot::Sender<Result<(), Failure>>>,
    /// Why it was lost while the release was on its way from the handle to here, if it was.
    lost: Option<LostReason>,
}

/// What a turn of the driver began with.
enum Event<Io> {
    Link(LinkEvent<Io>),
    Second(LinkEvent<Io>),
    Ending(Ending),
    Command(Option<Command>),
    Deadline,
}

/// The task.
pub(super) struct Driver<C: Connector> {
    /// Decides.
    core: Core,
    /// Tells the core the time.
    clock: Arc<dyn Clock>,
    /// Makes connections.
    connector: C,
    /// The connection there is, or is being made.
    link: Link<C::Io>,
    /// Its number, among those that the core wanted.
    link_number: Option<u64>,
    /// The second connection, if the core wants one; over it goes a Hello and nothing else.
    second: Link<C::Io>,
    /// Its number, among those that the core wanted.
    second_number: Option<u64>,
    /// Why there is no connection, for people.
    cause: Option<Arc<io::Error>>,
    /// The server that was reached last, if there are several: so errors say which one said what.
    peer: Option<String>,
    /// From the handles.
    commands: mpsc::Receiver<Command>,
    /// From their destructors.
    endings: mpsc::UnboundedReceiver<Ending>,
    /// Callers to be told, by request.
    entries: HashMap<RequestId, Entry>,
    /// Callers to be told what is seen.
    onlookers: Onlookers,
    /// Tells what becomes of the session.
    reporter: Reporter,
    /// The caller that waits for the first session to open.
    ready: Option<oneshot::Sender<Welcome>>,
    /// Where the handles see which session it is.
    welcome: watch::Sender<Option<Welcome>>,
    /// The caller that waits for the session to be closed.
    closing: Option<oneshot::Sender<Result<(), Error>>>,
    /// The one timer.
    timer: Pin<Box<Sleep>>,
    /// The moment that the timer is set to, if it is.
    timer_set_to: Option<Timestamp>,
    /// Where the guards see the lease.
    lease: Arc<LeaseCell>,
    /// Where the handles see why it is over.
    end: Arc<OnceLock<Error>>,
    /// Name of the server, for errors.
    server: Arc<str>,
    /// The process that made it.
    process: Process,
}

impl<C: Connector> Driver<C> {
    /// A driver for `core` over `io` and then over what `connector` makes, behind `shared`, which it
    /// does not keep alive.
    pub(super) fn new(io: C::Io, connector: C, core: Core, shared: &Shared, ways: Ways) -> Self {
        let mut driver = Self {
            link_number: core.connection(),
            core,
            clock: Arc::clone(&shared.clock),
            link: Link::Up(Connection::begin(io, connector.credential())),
            peer: connector.peer(),
            connector,
            second: Link::Down,
            second_number: None,
            cause: None,
            commands: ways.commands,
            endings: ways.endings,
            entries: HashMap::new(),
            onlookers: Onlookers::default(),
            reporter: Reporter::new(ways.events),
            ready: Some(ways.ready),
            welcome: ways.welcome,
            closing: None,
            timer: Box::pin(time::sleep(Duration::ZERO)),
            timer_set_to: None,
            lease: Arc::clone(&shared.lease),
            end: Arc::clone(&shared.end),
            server: Arc::clone(&shared.server),
            process: shared.process,
        };
        driver.settle();
        driver
    }

    /// Runs until the client is at its end.
    pub(super) async fn run(self) {
        unless_forked(self.process, self.drive()).await;
    }

    async fn drive(mut self) {
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

    async fn next_event(&mut self) -> Event<C::Io> {
        self.set_timer();
        let may_take = self.link.has_room();
        tokio::select! {
            biased;
            event = self.link.next() => Event::Link(event),
            event = self.second.next() => Event::Second(event),
            Some(ending) = self.endings.recv() => Event::Ending(ending),
            command = self.commands.recv(), if may_take => Event::Command(command),
            () = &mut self.timer, if self.timer_set_to.is_some() => Event::Deadline,
        }
    }

    /// Sets the timer to the core's next deadline, or to when there is something to tell, if that is another than before.
    fn set_timer(&mut self) {
        let deadlines = [self.core.next_deadline(), self.report_due()];
        let deadline = deadlines.into_iter().flatten().min();
        if deadline == self.timer_set_to {
            return;
        }
        self.timer_set_to = deadline;
        if let Some(deadline) = deadline {
            let left = deadline.since(self.clock.now());
            self.timer.as_mut().reset(time::Instant::now() + left);
        }
    }

    fn handle(&mut self, event: Event<C::Io>) {
        match event {
            Event::Link(event) => self.handle_link(event),
            Event::Second(event) => self.handle_second(event),
            Event::Ending(ending) => self.handle_ending(ending),
            Event::Command(command) => self.handle_command(command),
            // Set anew even if it rang early by the core's clock.
            Event::Deadline => self.timer_set_to = None,
        }
    }

    fn handle_link(&mut self, event: LinkEvent<C::Io>) {
        // The time is taken after the read, never before (rule T1).
        let now = self.clock.now();
        match event {
            LinkEvent::Read(Some(Ok(batch))) => {
                for message in batch {
                    self.core.receive(message, now);
                }
            }
            LinkEvent::Read(Some(Err(error))) => match error {
                CodecError::Io(error) => self.connection_lost(error, now),
                // Cut in the middle of a word: that breaks no rule.
                cut @ CodecError::Truncated => {
                    self.connection_lost(io::Error::new(io::ErrorKind::UnexpectedEof, cut), now);
                }
                broken => self.core.protocol_broken(broken.to_string(), now),
            },
            LinkEvent::Read(None) => {
                self.connection_lost(closed_by(self.peer.as_deref()), now);
            }
            LinkEvent::Written => {}
            LinkEvent::Dialed(Ok(io)) => {
                self.link = Link::Up(Connection::begin(io, self.connector.credential()));
                self.peer = self.connector.peer();
                self.core.connected(now);
            }
            LinkEvent::Dialed(Err(error)) => self.connection_lost(error, now),
        }
    }

    fn handle_second(&mut self, event: LinkEvent<C::Io>) {
        let now = self.clock.now();
        match event {
            LinkEvent::Read(Some(Ok(batch))) => {
                let number = self.second_number;
                for message in batch {
                    // Once it is welcome, it is the connection.
                    if self.core.connection() == number {
                        self.core.receive(message, now);
                    } else {
                        self.core.receive_second(message, now);
                    }
                }
            }
            LinkEvent::Dialed(Ok(io)) => {
                self.second = Link::Up(Connection::begin(io, self.connector.credential()));
                if let Some(hello) = self.core.second_connected(now)
                    && let Err(error) = self.second.put(&hello)
                {
                    self.core.protocol_broken(error.to_string(), self.clock.now());
                }
            }
            LinkEvent::Written => {}
            LinkEvent::Read(Some(Err(_)) | None) | LinkEvent::Dialed(Err(_)) => {
                self.core.second_lost(now);
            }
        }
    }

    /// Takes what else the handles want already, so that it goes out in the same write.
    fn take_what_is_ready(&mut self) {
        for _ in 0..COMMANDS_AT_ONCE_MAX {
            if let Ok(ending) = self.endings.try_recv() {
                self.handle_ending(ending);
            } else if self.link.has_room()
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
            Some(Command::Look(new)) => self.look(*new),
            Some(Command::Close(done)) => {
                self.core.goodbye();
                self.closing = Some(done);
            }
            // All handles are gone.
            None => self.core.goodbye(),
        }
    }

    fn request(&mut self, new: NewRequest) {
        let NewRequest { ask, asked, hold, answer, positions } = new;
        if asked.is_abandoned() {
            return;
        }
        let request = self.core.request(ask, self.clock.now());
        let given_up = !asked.begin(request);
        let entry = Entry { hold, answer: Some(answer), positions, released: None, lost: None };
        self.entries.insert(request, entry);
        if given_up {
            self.cancel(request);
        }
    }

    fn handle_ending(&mut self, ending: Ending) {
        match ending {
            Ending::Cancel(request) => self.cancel(request),
            Ending::LookAway(look) => self.look_away(look),
            Ending::Release { request, answer } => {
                match self.entries.get_mut(&request) {
                    Some(&mut Entry { lost: Some(reason), .. }) => {
                        self.entries.remove(&request);
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
        self.entries.remove(&request);
        self.core.cancel(request);
    }

    fn connection_lost(&mut self, cause: io::Error, now: Timestamp) {
        // What a write failed with came first, and says more.
        let cause = self.link.take_failure().unwrap_or(cause);
        self.cause = Some(Arc::new(cause));
        self.core.connection_lost(now);
    }

    /// Does what the core wants done: gives up or makes the connection, tells who waits, shows the
    /// lease, fills the outbox.
    fn settle(&mut self) {
        self.follow_connection();
        self.encode();
        if let Some(end) = self.core.end() {
            let cause = self.link.take_failure().map(Arc::new).or(self.cause.take());
            let peer = self.peer.as_deref();
            self.end.get_or_init(|| Error::ended(&self.server, end, cause, peer));
        }
        self.report_connection();
        let effects = self.core.take_effects();
        // First what ends or limits belief, then what prolongs it.
        for effect in &effects {
            self.limit(effect);
        }
        if let Some(lease) = self.core.lease() {
            self.lease.publish(lease);
        }
        for effect in effects {
            self.tell(effect);
        }
        self.report_standing();
        self.tell_watchers();
    }

    /// Gives up the connections that are not wanted any more, begins to make those that are.
    fn follow_connection(&mut self) {
        if self.core.end().is_some() {
            return;
        }
        let wanted = self.core.connection();
        if wanted != self.link_number {
            self.link_number = wanted;
            self.link = match wanted {
                Some(_) if wanted == self.second_number => {
                    self.second_number = None;
                    mem::replace(&mut self.second, Link::Down)
                }
                Some(_) => self.dial(wanted, Whither::Back),
                None => Link::Down,
            };
        }
        let wanted = self.core.second_connection();
        if wanted != self.second_number {
            self.second_number = wanted;
            self.second = match wanted {
                Some(_) => self.dial(wanted, Whither::Elsewhere),
                None => Link::Down,
            };
        }
    }

    /// Begins to make a connection: where the leader is said to be, or else as `usual`.
    fn dial(&mut self, number: Option<u64>, usual: Whither<'_>) -> Link<C::Io> {
        let whither = self.core.hint(number).map_or(usual, Whither::To);
        Link::Dialing(Own::new(self.connector.connect(whither)))
    }

    fn encode(&mut self) {
        let mut unwritable = None;
        for message in self.core.drain_messages() {
            if let Err(error) = self.link.put(&message) {
                unwritable = Some(error);
            }
        }
        // Cannot be: what goes into messages was measured before. But a message that is not sent
        // must not be waited for.
        if let Some(error) = unwritable {
            self.core.protocol_broken(error.to_string(), self.clock.now());
        }
    }

    /// Tells a hold that it is lost, or how long it is believed in, before the lease is seen to be
    /// longer.
    fn limit(&self, effect: &Effect) {
        let (request, until, reason) = match effect {
            Effect::Lost { request, reason } => (request, None, Some(*reason)),
            Effect::Doubted { request, until } => (request, Some(*until), None),
            Effect::Welcomed(_)
            | Effect::Granted { .. }
            | Effect::Replaced { .. }
            | Effect::Queued { .. }
            | Effect::Refused { .. }
            | Effect::Released { .. }
            | Effect::Confirmed { .. }
            | Effect::Seen { .. }
            | Effect::Interrupted { .. }
            | Effect::Unseen { .. } => return,
        };
        let Some(entry) = self.entries.get(request) else { return };
        if let Some(until) = until {
            entry.hold.doubt(until);
        }
        if let Some(reason) = reason {
            entry.hold.lose(reason);
        }
    }

    fn tell(&mut self, effect: Effect) {
        match effect {
            Effect::Welcomed(welcome) => {
                self.connector.welcomed();
                self.welcome.send_replace(Some(welcome));
                self.reporter.welcomed(&welcome);
                if let Some(ready) = self.ready.take() {
                    let _ = ready.send(welcome);
                }
            }
            Effect::Granted { request, token } => {
                if let Some(entry) = self.entries.get_mut(&request) {
                    entry.positions = None;
                    entry.hold.granted(token);
                    if let Some(answer) = entry.answer.take() {
                        // Whoever gave up meanwhile cancels it.
                        let _ = answer.send(Ok(()));
                    }
                }
            }
            // What is held is held on, by the request that is granted next.
            Effect::Replaced { request } => {
                self.entries.remove(&request);
            }
            Effect::Queued { request, position } => {
                let entry = self.entries.get(&request);
                if let Some(positions) = entry.and_then(|entry| entry.positions.as_ref()) {
                    let _ = positions.send(position);
                }
            }
            Effect::Refused { request, refusal } => {
                let answer = self.entries.remove(&request).and_then(|e| e.answer);
                if let Some(answer) = answer {
                    let _ = answer.send(Err(self.failure(refusal)));
                }
            }
            Effect::Released { request, outcome } => {
                let released = self.entries.remove(&request).and_then(|e| e.released);
                if let Some(released) = released {
                    let _ = released.send(outcome.map_err(|refusal| self.failure(refusal)));
                }
            }
            // Told already.
            Effect::Doubted { .. } => {}
            Effect::Confirmed { request } => {
                if let Some(entry) = self.entries.get(&request) {
                    entry.hold.confirm();
                }
            }
            Effect::Lost { request, reason } => {
                let Some(entry) = self.entries.get_mut(&request) else { return };
                if entry.hold.is_given_back() {
                    // The release is on its way to us, and wants to hear of it.
                    entry.lost = Some(reason);
                } else {
                    self.reporter.lost(entry.hold.token(), reason);
                    self.entries.remove(&request);
                }
            }
            Effect::Seen { look, answer } => self.show(look, answer),
            Effect::Interrupted { look } => self.interrupt(look),
            Effect::Unseen { look, refusal } => self.end_look(look, refusal),
        }
    }

    /// Why there is no connection.
    fn away(&self) -> Error {
        let (trouble, cause) = (self.core.trouble(), self.cause.clone());
        Error::away(&self.server, trouble, cause, self.peer.as_deref())
    }

    fn failure(&self, refusal: Refusal) -> Failure {
        match refusal {
            Refusal::Rejected(rejection) => Failure::Rejected(rejection),
            Refusal::Lost(reason) => Failure::Lost(reason),
            Refusal::Ended => Failure::Ended(self.end.get().cloned().unwrap_or(Error::Closed)),
            Refusal::Away => Failure::Ended(self.away()),
            Refusal::Forgotten => Failure::Ended(Error::forgotten(&self.server)),
        }
    }
}

/// Does `work`, but not in a process that has forked from this one and runs its runtime on: there it never
/// goes on. Asked once for each time that it is woken: to ask is a call of the system.
async fn unless_forked<T>(process: Process, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(
        |context| {
            if process.is_another() { Poll::Pending } else { work.as_mut().poll(context) }
        },
    )
    .await
}

#[cfg(test)]
mod convert_tests;
#[cfg(test)]
mod fake_server;
#[cfg(test)]
mod forked_tests;
#[cfg(test)]
mod leader_tests;
#[cfg(test)]
mod look_tests;
#[cfg(test)]
mod reconnect_tests;
#[cfg(test)]
mod report_tests;
#[cfg(test)]
mod several_tests;
#[cfg(test)]
mod tests;
