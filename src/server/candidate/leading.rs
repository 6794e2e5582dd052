//! The leader's end of the stream: standbys connect here, are given a checkpoint, and then what comes behind it.
//!
//! All of it is on the Coordinator's thread. So a leader that decides nothing sends nothing, and its standby
//! notices.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use std::{io, mem};

use actix::{Addr, Handler, Message};
use log::{debug, warn};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_local, yield_now};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::feeding::{BEAT, Ended, GREETING_TIMEOUT, Term, serve};
use super::guests::{Guests, Place, STANDBYS_MAX};
use crate::clock::{BootClock, Clock};
use crate::election::Pledge;
use crate::server::chatter::Topic;
use crate::server::coordinator::Coordinator;
use crate::server::counters::Counters;
use crate::server::durable::StateKey;
use crate::server::durable::replay::digest;
use crate::server::role::Synced;
use crate::server::secure::{Certified, Secure, is_refusal, shaken};

/// The tables are compared at every so many-th.
const BEATS_PER_CHECK: u32 = 10;
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
        (secure, counters): (Secure, &Arc<Counters>),
    ) -> Self {
        let (term, guests) = (Rc::default(), Guests::default());
        let accepting = listener.map(|listener| {
            let (term, guests, counters) = (Rc::clone(&term), guests.clone(), Arc::clone(counters));
            spawn_local(accept_all(listener, pledge.clone(), term, guests, (secure, counters)))
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
        *self.term.borrow_mut() =
            Some(Term { number: term, key, coordinator, turns: Arc::new(Semaphore::new(1)) });
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
                shown.is_called(watched.standby());
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
    (secure, counters): (Secure, Arc<Counters>),
) {
    // Whether the log was told of one that came in vain.
    let turned_away: Rc<Cell<bool>> = Rc::default();
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
        let (secure, turned_away) = (secure.clone(), Rc::clone(&turned_away));
        let _ = stream.set_nodelay(true);
        let serving = |place: Place| {
            spawn_local(async move {
                let mut stream = secure.for_locks(stream, Certified::default(), || {});
                let served = async {
                    let shaken = timeout(GREETING_TIMEOUT, shaken(&mut stream)).await;
                    shaken.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                    serve(stream, of, &pledge, &place).await
                };
                match served.await {
                    Ok(()) => debug!(peer:?; "a standby follows no more"),
                    Err(Ended::NoRoom) => {
                        debug!(peer:?; "cluster: others are at the port for standbys");
                    }
                    // It comes again and again.
                    Err(Ended::TooMany) if !turned_away.replace(true) => {
                        warn!(peer:?; "cluster: {STANDBYS_MAX} standbys follow, and no more can: one more is refused, and told so");
                    }
                    Err(Ended::TooMany) => debug!(peer:?; "too many standbys"),
                    Err(Ended::Gone(why)) => {
                        warn!(peer:?; "cluster: a standby is sent away: {why}");
                    }
                    // Anybody who reaches the port can cause this.
                    Err(Ended::Frame(why)) => {
                        if counters.chatter.admits(Topic::ProtocolError, Some(peer)) {
                            warn!(peer:?; "cluster: somebody who is no standby of this cluster is sent away: {why}");
                        }
                    }
                    Err(Ended::Io(why)) if is_refusal(&why) => {
                        if counters.chatter.admits(Topic::ProtocolError, Some(peer)) {
                            warn!(peer:?; "cluster: somebody is sent away from the port for standbys: {why}");
                        }
                    }
                    Err(Ended::Io(why)) => debug!(peer:?; "cluster: a standby is gone: {why}"),
                }
            })
        };
        guests.receive(peer.ip(), serving);
        // Each says something before another takes its place.
        yield_now().await;
    }
}
