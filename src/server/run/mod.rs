//! A server's life: bound, serving, stopping, gone.
//!
//! The kind of stop depends on what follows it. With a data directory everything goes on after the
//! next start, so it *saves*. Every client hears Goodbye, the snapshot is written, and the process
//! is gone at once. An ephemeral one has no next start, so it *drains*: waiters are answered, and
//! holders may finish.
//!
//! A stop at once does neither, and leaves the same as a crash.

pub(in crate::server) mod before;
pub(in crate::server) mod end;
mod handle;
#[cfg(feature = "redis-api")]
mod redis;
mod spawned;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use actix::Actor;
use log::{error, info, warn};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, unbounded_channel};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};
use tokio::time::timeout;

use self::before::{Begun, beginning, clock_after, tell_distance};
use self::end::{drain, reached, save};
pub use self::handle::ServerHandle;
pub use self::spawned::{Spawned, spawn};
use crate::clock::{BootClock, Clock};
use crate::server::audit::Audit;
use crate::server::config::{Config, Data};
use crate::server::coordinator::Coordinator;
use crate::server::counters::{Counters, Whereabouts};
use crate::server::desk::seal::Sealer;
use crate::server::desk::{Before, STOPS, Setting, hello};
use crate::server::durable::chronicle::Chronicle;
use crate::server::durable::persist::{self, Disk};
use crate::server::durable::start;
use crate::server::durable::{DirectoryStore, MemoryStore, Patience, StateStore};
use crate::server::error::ServerError;
use crate::server::gate::{Gate, Outlets};
use crate::server::inbox::{Arrivals, Inbox};
use crate::server::incumbent::Incumbent;
#[cfg(all(test, feature = "client"))]
use crate::server::keeping::Beginning;
use crate::server::lease::Lease;
use crate::server::looker::{Looker, LooksLimits};
use crate::server::messages::{CloseAll, End};
use crate::server::net::hosts::{Here, Host, IoThreads, Tcp};
use crate::server::net::listener::{self, Listener, accept_all};
use crate::server::net::pace::Paces;
use crate::server::net::session::{CLOSE_TIMEOUT, Shared};
use crate::server::net::visits::{self, Visit};
use crate::server::phase::Phase;
use crate::server::places::Places;
use crate::server::secure::Secure;
use crate::server::threshold::Threshold;
use crate::types::{Epoch, GoodbyeCode};

/// How long a server that is stopped at once still tries to say goodbye.
const STOP_TIMEOUT: Duration = Duration::from_millis(250);
/// How often the data directory is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A coordinator that listens. Clients can connect from now on; they are served while
/// [`Server::run`] runs.
#[derive(Debug)]
pub struct Server(Bound<TcpListener>);

/// A server on whatever connections come from.
pub(crate) struct Bound<L: Listener> {
    /// The source of connections.
    listener: L,
    /// That of connections of the Redis dialect, and what their sessions share.
    #[cfg(feature = "redis-api")]
    redis: Option<(L, Arc<Shared>)>,
    /// Where their sessions live.
    host: Rc<dyn Host<L::Stream>>,
    /// Where those come out who look from within this process.
    visits: Receiver<Visit>,
    /// Where their sessions live: beside the Coordinator.
    visited: Here,
    /// Parts that its sessions share; holds the Coordinator.
    shared: Arc<Shared>,
    /// This run.
    epoch: Epoch,
    /// How many connections there may be.
    places: Places,
    /// The successor, if there is to be one.
    afterwards: Afterwards,
    /// How long an orderly stop may take.
    drain_timeout: Duration,
    /// The audit log, for whoever looks how much it loses.
    audit: Audit,
    /// How much of everything there may be, for whoever looks.
    looks_limits: LooksLimits,
    /// What is asked of it; the sender is here so that it can be cloned into handles.
    phase: watch::Sender<Phase>,
    /// The way to its Coordinator, for others.
    incumbent: Incumbent,
    /// The task that makes things durable.
    committing: JoinHandle<()>,
}

/// What is there before a server is, and stays when it has ended: of one that leads now and then.
pub(crate) struct Frame {
    /// Counters of the shell.
    pub(in crate::server) counters: Arc<Counters>,
    /// What is asked of it.
    pub(in crate::server) phase: watch::Sender<Phase>,
    /// The way to the Coordinator of now.
    pub(in crate::server) incumbent: Incumbent,
    /// Within what it decides; none: it is the only one.
    pub(in crate::server) lease: Option<Lease>,
    /// The successor, if there is to be one; and where what is to be said waits, of one of several.
    pub(in crate::server) afterwards: Afterwards,
    pub(in crate::server) threshold: Threshold,
}

impl Frame {
    /// That of one that is alone, for its whole life.
    fn alone(config: &Config, begun: &Begun) -> Self {
        let keeping = begun.chronicle.as_ref().map(Chronicle::keeping).unwrap_or_default();
        Self {
            counters: Arc::new(Counters::new(config.unread_bytes_max).keeping(keeping)),
            phase: watch::Sender::new(Phase::Serving),
            incumbent: Incumbent::default(),
            lease: None,
            threshold: Threshold::default(),
            afterwards: match &config.data {
                Data::Ephemeral => Afterwards::Nothing,
                Data::Directory(_) => Afterwards::Everything,
            },
        }
    }
}

/// What comes after a server that stops in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Afterwards {
    /// A start on the same state, where everything goes on.
    Everything,
    /// Nothing: its state is gone with it.
    Nothing,
}

impl<L: Listener> fmt::Debug for Bound<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").field("address", &self.shared.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Makes a server ready: opens its state, reserves epoch and fencing tokens durably, then opens
    /// the port. Blocks for as long as the disk takes. [`spawn`] does the same on a thread that has all
    /// that is needed.
    ///
    /// # Errors
    ///
    /// If its state or its port cannot be used, or if there is no tokio runtime; see [`ServerError`].
    ///
    /// # Panics
    ///
    /// Where tasks of one thread cannot be spawned: it is to be called within an actix `System` or a
    /// tokio `LocalSet`.
    pub fn bind(config: &Config) -> Result<Self, ServerError> {
        if Handle::try_current().is_err() {
            return Err(ServerError::NoRuntime);
        }
        let mut watched = None;
        let store: Arc<dyn StateStore> = match &config.data {
            Data::Ephemeral => Arc::new(MemoryStore::default()),
            Data::Directory(directory) => {
                let store =
                    Arc::new(DirectoryStore::open(directory, config.lost_state, Patience::Some)?);
                watched = Some(Arc::downgrade(&store));
                store
            }
        };
        let failed = |source| ServerError::Listen { listen: config.listen, source };
        // Taken before the state is touched: a port that somebody else has must not cost a snapshot.
        let socket = listener::bind(config.listen).map_err(failed)?;
        #[cfg(feature = "redis-api")]
        let redis = redis::bind(config)?;
        let open = || {
            let listener = listener::listen(socket).map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            Ok((listener, address))
        };
        let outlets = Outlets::default();
        let host = host(config, &outlets)?;
        let bound = Bound::assemble_on((host, outlets), config, store, Box::new(BootClock), open)?;
        #[cfg(feature = "redis-api")]
        let bound = bound.with_redis(config, redis)?;
        if let Some(store) = watched {
            spawn_local(watch_directory(store, Arc::clone(&bound.shared.counters)));
        }
        Ok(Self(bound))
    }

    /// Where it listens, with the port that it got.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.shared.address
    }

    /// Where it listens for clients of the Redis dialect, with the port that it got; none: nowhere.
    #[cfg(feature = "redis-api")]
    pub fn redis_addr(&self) -> Option<SocketAddr> {
        self.0.redis.as_ref().map(|(_, shared)| shared.address)
    }

    /// This run.
    pub fn epoch(&self) -> Epoch {
        self.0.epoch()
    }

    /// Something to stop it with, from anywhere.
    pub fn handle(&self) -> ServerHandle {
        self.0.handle()
    }

    /// Something to ask it with how things are, from anywhere.
    pub fn looker(&self) -> Looker {
        self.0.looker()
    }

    /// Serves until a handle says otherwise. Then no more connections are accepted, every client is
    /// told, and it returns. With a data directory, that is as soon as everything is saved for the
    /// next start. Without one, it is when holders have finished or the drain timeout is over.
    ///
    /// # Errors
    ///
    /// [`ServerError::NotSaved`] if it was to save everything and could not.
    pub async fn run(self) -> Result<(), ServerError> {
        let ended = self.0.run().await;
        info!("stopped");
        ended
    }
}

impl<L: Listener> Bound<L> {
    /// [`Bound::assemble_on`] this thread.
    #[cfg(test)]
    pub(crate) fn assemble<D: Disk>(
        config: &Config,
        disk: D,
        clock: Box<dyn Clock>,
        open: impl FnOnce() -> Result<(L, SocketAddr), ServerError>,
    ) -> Result<Self, ServerError> {
        let outlets = Outlets::default();
        let host = Rc::new(Here::beside_coordinator(outlets.clone()));
        Self::assemble_on((host, outlets), config, disk, clock, open)
    }

    /// Puts a server together whose sessions live with `host`; `open` opens its port, after the state
    /// is durable.
    fn assemble_on<D: Disk>(
        (host, outlets): (Rc<dyn Host<L::Stream>>, Outlets),
        config: &Config,
        disk: D,
        clock: Box<dyn Clock>,
        open: impl FnOnce() -> Result<(L, SocketAddr), ServerError>,
    ) -> Result<Self, ServerError> {
        let wall = SystemTime::now();
        let mut begun = Begun::of(config, &disk, wall, &*clock)?;
        begun.confirm();
        start::await_next_tick(wall, SystemTime::now, start::pause_for_tick);
        let (listener, address) = open()?;
        tell_distance(config, begun.chronicle.is_some());
        let frame = Frame::alone(config, &begun);
        Ok(Self::assemble_begun(
            (host, outlets),
            config,
            disk,
            clock,
            begun,
            frame,
            (listener, address),
        ))
    }

    /// The same, of a run that has begun.
    pub(in crate::server) fn assemble_begun<D: Disk>(
        (host, outlets): (Rc<dyn Host<L::Stream>>, Outlets),
        config: &Config,
        disk: D,
        clock: Box<dyn Clock>,
        Begun { start, key, mut chronicle, before }: Begun,
        frame: Frame,
        (listener, address): (L, SocketAddr),
    ) -> Self {
        let Frame { counters, phase, incumbent, lease, afterwards, threshold } = frame;
        if let Some(chronicle) = &mut chronicle {
            chronicle.tell(&counters.keeping);
        }
        if let Some(beginning) = beginning(&start, &before, chronicle.as_ref()) {
            counters.keeping.began(beginning);
        }
        let epoch = start.durable.epoch;
        let clock = match &before {
            Before::Crashed(table) => clock_after(table.now(), clock),
            Before::Saved(_) | Before::Nothing => clock,
        };
        let (orders, ordered) = unbounded_channel();
        let setting = Setting {
            limits: config.limits,
            start,
            before,
            sealer: Sealer::new(key),
            draw: hello::drawing(),
            wall: SystemTime::now,
            looks_per_second: config.looks_per_second,
            access: Arc::clone(&config.access),
            audit: config.audit.clone(),
            counters: Arc::clone(&counters),
        };
        let visited = Here::beside_coordinator(outlets.clone());
        let mut gate = Gate::behind(chronicle, orders).with_outlets(outlets);
        gate.threshold = threshold;
        let arrivals = Arrivals::default();
        let coordinator = Coordinator::new(setting, arrivals.clone(), clock, gate, host.barrier());
        let coordinator = coordinator.within(lease).start();
        let committing = spawn_local(persist::commit_all(
            disk,
            ordered,
            coordinator.downgrade().recipient(),
            Arc::clone(&counters),
        ));
        let (entrance, visits) = visits::entrance();
        incumbent.seat(coordinator.downgrade(), entrance);
        let shared = Arc::new(Shared {
            inbox: Inbox::new(arrivals, coordinator.clone().recipient()),
            coordinator,
            counters,
            address,
            handshake_timeout: config.handshake_timeout,
            idle_timeout: config.idle_timeout,
            paces: Paces::new(config.messages_per_second_max),
            asks_who: !config.access.is_open(),
            latest: Arc::default(),
            #[cfg(feature = "redis-api")]
            redis: None,
        });
        Self {
            listener,
            #[cfg(feature = "redis-api")]
            redis: None,
            host,
            visits,
            visited,
            shared,
            epoch,
            places: config.places(),
            afterwards,
            drain_timeout: config.drain_timeout,
            audit: config.audit.clone(),
            looks_limits: LooksLimits {
                connections: config.connections_max,
                sessions: config.limits.sessions_max,
            },
            phase,
            incumbent,
            committing,
        }
    }

    /// This run.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How it began.
    #[cfg(all(test, feature = "client"))]
    pub(crate) fn beginning(&self) -> Beginning {
        self.shared.counters.keeping.beginning()
    }

    /// Something to stop it with, from anywhere.
    pub(crate) fn handle(&self) -> ServerHandle {
        ServerHandle::new(&self.phase, &self.incumbent, &self.shared.counters)
    }

    /// Something to ask it with how things are, from anywhere.
    fn looker(&self) -> Looker {
        Looker::new(
            self.incumbent.clone(),
            (Arc::clone(&self.shared.counters), self.audit.clone()),
            self.phase.subscribe(),
            self.looks_limits,
        )
    }

    /// As [`Server::run`].
    pub(crate) async fn run(self) -> Result<(), ServerError> {
        self.run_until(pending(), async || None).await
    }

    /// The same, or until `over`, which gives the address of another that leads from now on: then nothing is
    /// saved. `stopped` is done as soon as nothing more is decided here in an orderly stop; the address of who
    /// goes on, if that is known.
    pub(in crate::server) async fn run_until(
        self,
        over: impl Future<Output = String>,
        stopped: impl AsyncFnOnce() -> Option<String>,
    ) -> Result<(), ServerError> {
        #[cfg(feature = "redis-api")]
        let redis = self.redis.map(|(listener, shared)| {
            spawn_local(accept_all(listener, self.places, shared, Rc::clone(&self.host)))
        });
        let Self { listener, host, shared, places, afterwards, drain_timeout, phase, .. } = self;
        let committing = self.committing;
        let visiting = {
            let shared = Arc::clone(&shared);
            spawn_local(visits::receive(self.visits, places, shared, self.visited))
        };
        let accepting = {
            let (shared, host) = (Arc::clone(&shared), Rc::clone(&host));
            spawn_local(accept_all(listener, places, shared, host))
        };
        let mut phase = phase.subscribe();
        let leader = tokio::select! {
            biased;
            () = reached(&mut phase, Phase::Draining) => None,
            leader = over => Some(leader),
        };
        accepting.abort();
        visiting.abort();
        // Aborting is not immediate; the port is closed when the task is gone.
        let _ = accepting.await;
        let _ = visiting.await;
        #[cfg(feature = "redis-api")]
        if let Some(accepting) = redis {
            accepting.abort();
            let _ = accepting.await;
        }

        let at_once = *phase.borrow() >= Phase::Stopping;
        let ended = match (afterwards, at_once) {
            _ if leader.is_some() => {
                // What it has yet to save is refused for ever.
                committing.abort();
                Ok(())
            }
            (Afterwards::Everything, true) => {
                warn!("stopping without saving: the next start recovers as after a crash");
                Ok(())
            }
            (Afterwards::Nothing, true) => Ok(()),
            (Afterwards::Everything, false) => save(&shared, drain_timeout, &mut phase).await,
            (Afterwards::Nothing, false) => {
                drain(&shared.coordinator, drain_timeout, &mut phase).await;
                Ok(())
            }
        };
        let goodbye = |successor: Option<String>| match successor {
            Some(why) => CloseAll { code: GoodbyeCode::NotLeader, why },
            None => CloseAll { code: GoodbyeCode::Draining, why: STOPS.to_owned() },
        };
        if leader.is_some() {
            shared.coordinator.do_send(goodbye(leader));
        } else if at_once {
            // It decides nothing more before another may lead.
            let _ = shared.coordinator.send(goodbye(None)).await;
            let _ = stopped().await;
        } else {
            let successor = stopped().await;
            shared.coordinator.do_send(goodbye(successor));
        }
        // Sessions give up on a peer that does not take its Goodbye after CLOSE_TIMEOUT.
        let goodbyes = timeout(CLOSE_TIMEOUT * 2, shared.counters.none_left());
        tokio::select! {
            biased;
            _ = goodbyes => {}
            () = async {
                reached(&mut phase, Phase::Stopping).await;
                tokio::time::sleep(STOP_TIMEOUT).await;
            } => {}
        }
        // I/O threads end here, with those who do not take their Goodbye.
        drop(host);
        shared.coordinator.do_send(End);
        shared.counters.chatter.tell_rest();
        ended
    }
}

/// Where the sessions of TCP connections live.
pub(in crate::server) fn host(
    config: &Config,
    outlets: &Outlets,
) -> Result<Rc<dyn Host<TcpStream>>, ServerError> {
    let secure = secure(config);
    Ok(match config.io_threads {
        0 => Rc::new(Tcp { here: Here::beside_coordinator(outlets.clone()), secure }),
        count => Rc::new(IoThreads::start(count, &secure).map_err(ServerError::Thread)?),
    })
}

/// What connections are encrypted with.
#[cfg_attr(
    not(feature = "tls"),
    expect(unused_variables, reason = "there is a choice where TLS is")
)]
pub(in crate::server) fn secure(config: &Config) -> Secure {
    Secure {
        #[cfg(feature = "tls")]
        tls: config.tls.clone(),
    }
}

/// Looks now and then whether the data directory is still there. Nothing may have to be saved for
/// hours, and meanwhile another coordinator could begin in its place.
async fn watch_directory(store: Weak<DirectoryStore>, counters: Arc<Counters>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(store) = store.upgrade() else { return };
        // The disk may take its time.
        let Ok(found) = spawn_blocking(move || store.check()).await else { return };
        let whereabouts = if found.is_ok() { Whereabouts::Here } else { Whereabouts::Gone };
        if counters.directory_is(whereabouts) {
            match found {
                Ok(()) => info!("the data directory is back"),
                Err(gone) => error!(
                    "{gone}: state is no longer saved; restore the directory, or stop this \
                    coordinator when its holders have finished"
                ),
            }
        }
    }
}
