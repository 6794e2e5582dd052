//! The network between clients and the coordinator: who gets through to whom, and how fast.
//!
//! Faults strike the *way* of a client, which all its connections share, or one connection. It is
//! set from outside, by `faults`; here is what comes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep, sleep_until};

use super::members::{Members, Says, Visit, member_at};
use super::stream::{Side, Stream, Weather, Wire, millis};
use super::trace::Trace;
use crate::client::{Connecting, Connector, Whither};
use crate::server::{Listener, Socket};
use crate::testing::fuzz::Random;
use crate::types::Epoch;

/// How long a piece takes where nothing is wrong.
const LATENCY: Duration = Duration::from_millis(4);
/// When whoever connects says so again, if nobody answers.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// So often is a connection that is made a slow one.
const CONNECTIONS_PER_SLOW_ONE: usize = 12;
/// How long pieces take there, at most.
const SLOW: Duration = Duration::from_millis(1_200);

/// The first client of another dialect. There are fewer than a thousand of either.
pub(super) const STRANGERS: u64 = 1_000;

/// Whether a client speaks another dialect, and comes to another port.
pub(super) fn is_stranger(client: u64) -> bool {
    (STRANGERS..2 * STRANGERS).contains(&client)
}

/// What is wrong on the way of a client.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// Nothing arrives before this, from the client and from the server.
    dark_until: [Instant; 2],
    /// Connections are refused before this.
    refused_until: Instant,
    /// How long a piece takes at most, until when.
    slow: (Duration, Instant),
}

/// What the network knows.
struct Inner {
    /// Decides about whatever is not of one connection.
    random: Random,
    /// How many connections there were.
    made: u64,
    /// Clients that were there when the coordinator crashed.
    were_there: BTreeSet<u64>,
    /// The same, by when a coordinator accepted connections after that.
    runs: Vec<(Instant, BTreeSet<u64>)>,
    /// Clients that have connected to the coordinator that runs.
    came: BTreeSet<u64>,
    /// When they did so once more.
    came_again: BTreeMap<u64, Vec<Instant>>,
    /// Those that may still be there.
    wires: Vec<Wire>,
    /// By client.
    ways: BTreeMap<u64, Way>,
    /// Where the coordinator accepts; none while it does not.
    port: Option<UnboundedSender<Stream>>,
    /// Who leads.
    members: Members,
    /// The same for clients of another dialect.
    strangers_port: Option<UnboundedSender<Stream>>,
    /// Whether connections can be slow by themselves.
    weather: Weather,
    /// The one to whom nothing happens, if there is one.
    sheltered: Option<u64>,
    /// Whether a machine is there that refuses connections when no coordinator accepts them.
    answers: Answers,
}

/// Whether somebody answers who connects where nobody accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answers {
    /// The machine refuses.
    Yes,
    /// There is no machine.
    No,
}

/// The network.
#[derive(Clone)]
pub(super) struct Network {
    /// Shared with all who connect, which can be on other threads as far as the types know.
    inner: Arc<Mutex<Inner>>,
    /// Where it is written down who connects.
    trace: Trace,
}

impl Network {
    /// One with so many members of a cluster, and who visits those that do not lead.
    pub(super) fn new(
        random: Random,
        trace: Trace,
        members: usize,
    ) -> (Self, UnboundedReceiver<Visit>) {
        let (made, wires, ways) = (0, Vec::new(), BTreeMap::new());
        let (members, visitors) = Members::new(members);
        let inner = Inner {
            random,
            made,
            were_there: BTreeSet::new(),
            runs: Vec::new(),
            came: BTreeSet::new(),
            came_again: BTreeMap::new(),
            wires,
            ways,
            port: None,
            members,
            strangers_port: None,
            weather: Weather::Rough,
            sheltered: None,
            answers: Answers::Yes,
        };
        (Self { inner: Arc::new(Mutex::new(inner)), trace }, visitors)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// How many connections there were.
    pub(super) fn connections(&self) -> u64 {
        self.lock().made
    }

    /// When `client` may have been away, as far as a coordinator knew that goes on after a crash as if
    /// nothing had been: at its start, and before another connection.
    pub(super) fn absences(&self, client: u64) -> Vec<Instant> {
        let inner = self.lock();
        let again = inner.came_again.get(&client).into_iter().flatten().copied();
        let away = inner.runs.iter().filter(|(_, were_there)| !were_there.contains(&client));
        away.map(|(at, _)| *at).chain(again).collect()
    }

    /// The way of a client's connections.
    pub(super) fn route(&self, client: u64) -> Route {
        let at = self.lock().members.home();
        Route { network: self.clone(), client, at, latest: at }
    }

    /// How many members there are.
    pub(super) fn members(&self) -> usize {
        self.lock().members.count()
    }

    /// Hints of members, and welcomes of some that were deposed.
    pub(super) fn said(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.members.hints, inner.members.false_welcomes.load(Ordering::Relaxed))
    }

    /// The coordinator runs in this epoch.
    pub(super) fn runs(&self, epoch: Epoch) {
        self.lock().members.runs(epoch);
    }

    /// Another member leads next. Where the coordinator was, nobody may know it for so long.
    pub(super) fn change_leader(&self, random: &mut Random, unaware: Option<Duration>) {
        let until = unaware.map(|length| Instant::now() + length);
        self.lock().members.moves(random, until);
    }

    /// Where a coordinator accepts from now on.
    pub(super) fn open_port(&self) -> Port {
        let (sender, accepted) = unbounded_channel();
        let mut inner = self.lock();
        inner.port = Some(sender);
        inner.members.leads();
        inner.came.clear();
        let were_there = std::mem::take(&mut inner.were_there);
        inner.runs.push((Instant::now(), were_there));
        Port(accepted)
    }

    /// Where it accepts clients of another dialect.
    pub(super) fn open_strangers_port(&self) -> Port {
        let (sender, accepted) = unbounded_channel();
        self.lock().strangers_port = Some(sender);
        Port(accepted)
    }

    /// Nobody accepts any more.
    pub(super) fn close_port(&self, answers: Answers) {
        let mut inner = self.lock();
        inner.answers = answers;
        (inner.port, inner.strangers_port) = (None, None);
        inner.members.leads_no_more();
    }

    /// Nothing happens to `client` by itself.
    pub(super) fn shelter(&self, client: u64) {
        self.lock().sheltered = Some(client);
    }

    /// Does something to each connection of `client`, or of all.
    fn each(&self, client: Option<u64>, mut does: impl FnMut(&Wire)) {
        let mut inner = self.lock();
        inner.wires.retain(|wire| !wire.is_over());
        let all = inner.wires.iter();
        all.filter(|wire| client.is_none_or(|client| wire.client == client)).for_each(&mut does);
    }

    /// `client` is about to die, and says nothing any more.
    pub(super) fn silence(&self, client: u64) {
        self.each(Some(client), |wire| wire.die(Side::Client));
    }

    /// The coordinator is.
    pub(super) fn silence_coordinator(&self) {
        let mut latest = BTreeMap::new();
        self.each(None, |wire| {
            latest.insert(wire.client, wire.is_whole());
        });
        self.lock()
            .were_there
            .extend(latest.into_iter().filter(|(_, is_whole)| *is_whole).map(|(client, _)| client));
        self.each(None, |wire| wire.die(Side::Server));
    }

    /// Its connections break.
    pub(super) fn cut(&self, client: u64) {
        self.each(Some(client), Wire::cut);
    }

    /// Nothing that `from` said arrives for so long.
    pub(super) fn darken(&self, client: u64, from: Side, length: Duration) {
        let until = Instant::now() + length;
        self.lock().way(client).dark_until[from as usize] = until;
        self.each(Some(client), |wire| wire.darken(from, until));
    }

    /// The same, of the connections there are: the next ones overtake what is said on them.
    pub(super) fn hold_up(&self, client: u64, from: Side, length: Duration) {
        let until = Instant::now() + length;
        self.each(Some(client), |wire| wire.darken(from, until));
    }

    /// The connections there are lead nowhere any more, one way or both, and nobody is told.
    pub(super) fn forget(&self, client: u64) {
        self.each(Some(client), Wire::forget);
    }

    /// What is left of connections of clients that have ended is found lost: those of the dialect have no lease
    /// that would tell.
    pub(super) fn find_lost_strangers(&self) {
        self.each(None, |wire| {
            if is_stranger(wire.client) {
                wire.find_lost();
            }
        });
    }

    /// No connection is accepted for so long.
    pub(super) fn refuse(&self, client: u64, length: Duration) {
        self.lock().way(client).refused_until = Instant::now() + length;
    }

    /// All takes longer for so long.
    pub(super) fn slow_down(&self, client: u64, latency_max: Duration, length: Duration) {
        self.lock().way(client).slow = (latency_max, Instant::now() + length);
        self.each(Some(client), |wire| wire.slow_down(latency_max));
    }

    /// What is slow is fast again.
    pub(super) fn speed_up(&self, client: u64) {
        self.each(Some(client), |wire| wire.slow_down(LATENCY));
    }

    /// Nothing is wrong any more.
    pub(super) fn heal(&self) {
        let mut inner = self.lock();
        inner.ways.clear();
        inner.members.heal();
        inner.weather = Weather::Calm;
        drop(inner);
        self.each(None, |wire| {
            wire.slow_down(LATENCY);
            wire.heal();
        });
    }

    /// Connects to a member, if and when the way is free.
    async fn dial(&self, client: u64, member: usize) -> io::Result<Stream> {
        loop {
            let pause = millis(&mut self.lock().random, 4);
            sleep(pause).await;
            let Way { dark_until, refused_until, slow } = *self.lock().way(client);
            let now = Instant::now();
            if refused_until > now {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let dark_until = dark_until[0].max(dark_until[1]);
            if dark_until > now {
                sleep_until(dark_until).await;
                continue;
            }
            if slow.1 > now {
                let pause = millis(&mut self.lock().random, 1_000);
                sleep(pause).await;
            }
            // Where others lead, that dialect is not spoken.
            let says = if is_stranger(client) { None } else { self.lock().says(member) };
            if let Some(says) = says {
                return Ok(self.lock().visit(client, says, &self.trace));
            }
            if self.lock().answers == Answers::No {
                // As TCP does, for as long as whoever tries likes to wait.
                sleep(TRY_AGAIN).await;
                continue;
            }
            return self.lock().connect(client, &self.trace);
        }
    }
}

impl Inner {
    fn says(&mut self, member: usize) -> Option<Says> {
        let Self { members, random, .. } = self;
        members.says(member, random)
    }

    /// A connection to a member that does not lead. Nothing happens to it.
    fn visit(&mut self, client: u64, says: Says, trace: &Trace) -> Stream {
        let random = Random::new(self.random.next());
        let (_, near, far) = Wire::new(0, client, random, LATENCY, Weather::Calm, trace.clone());
        trace.say(format_args!("client {client} comes to one that does not lead: {says:?}"));
        self.members.visit(far, says);
        near
    }

    fn way(&mut self, client: u64) -> &mut Way {
        let now = Instant::now();
        let free = Way { dark_until: [now; 2], refused_until: now, slow: (LATENCY, now) };
        self.ways.entry(client).or_insert(free)
    }

    fn connect(&mut self, client: u64, trace: &Trace) -> io::Result<Stream> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let port = if is_stranger(client) { &self.strangers_port } else { &self.port };
        let port = port.clone().ok_or_else(refused)?;
        self.made += 1;
        if !self.came.insert(client) {
            self.came_again.entry(client).or_default().push(Instant::now());
        }
        let is_sheltered = self.sheltered == Some(client);
        let weather = if is_sheltered { Weather::Calm } else { self.weather };
        let (latency_max, until) = self.way(client).slow;
        let latency_max = if until > Instant::now() {
            latency_max
        } else if weather == Weather::Rough && self.random.once_in(CONNECTIONS_PER_SLOW_ONE) {
            SLOW
        } else {
            LATENCY
        };
        let random = Random::new(self.random.next());
        let (wire, near, far) =
            Wire::new(self.made, client, random, latency_max, weather, trace.clone());
        port.send(far).map_err(|_| refused())?;
        trace.say(format_args!("connection {} of client {client}", self.made));
        self.wires.push(wire);
        Ok(near)
    }
}

/// How a client's connections are made.
pub(super) struct Route {
    /// Over which network.
    network: Network,
    /// Which client's.
    client: u64,
    /// The member that is tried first.
    at: usize,
    /// The one that the latest connection goes to.
    latest: usize,
}

impl Connector for Route {
    type Io = Stream;

    fn servers(&self) -> usize {
        self.network.lock().members.count()
    }

    fn connect(&mut self, whither: Whither<'_>) -> Connecting<Stream> {
        let count = self.servers();
        self.latest = match whither {
            Whither::Back => self.at,
            Whither::To(leader) => {
                member_at(leader).filter(|member| *member < count).unwrap_or(self.at)
            }
            Whither::Elsewhere => (self.latest + 1) % count,
        };
        // If it does not welcome us, another is the next.
        self.at = (self.latest + 1) % count;
        let (network, client, member) = (self.network.clone(), self.client, self.latest);
        Box::pin(async move { network.dial(client, member).await })
    }

    fn welcomed(&mut self) {
        self.at = self.latest;
    }
}

/// Where a coordinator's connections come from.
pub(super) struct Port(UnboundedReceiver<Stream>);

impl Socket for Stream {}

impl Listener for Port {
    type Stream = Stream;

    async fn accept(&mut self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self.0.recv().await {
            Some(stream) => Ok((stream, None)),
            None => std::future::pending().await,
        }
    }
}
