//! One connection's part in a measurement.

use std::future::{Future, pending};
use std::sync::{Arc, Mutex, PoisonError};

use coordinator::types::Mode;
use tokio::task::yield_now;

use super::checks::Violation;
use super::pace::wait_until;
use super::plan::{Connections, Locks, Rhythm};
use super::run::{Phase, Run};
use super::tally::Tally;
use super::{Answer, Ask, Error, Link, Peer};

/// Asks and releases for as long as the measurement goes on.
#[derive(Debug)]
pub(crate) struct Player<P> {
    /// What it shares with the others.
    run: Arc<Run>,
    /// What it and the others of its thread have measured.
    tally: Arc<Mutex<Tally>>,
    /// Where it connects to, if it does so for each pair.
    peer: P,
    /// Which connection it is.
    number: usize,
    /// The latest token it was granted.
    last_token: u64,
}

/// What a turn belongs to.
#[derive(Clone, Copy, Debug)]
struct Start {
    /// The phase in which what it asks for was begun.
    phase: Phase,
    /// The phase in which what it releases was begun.
    released: Phase,
    /// From when its latency counts; none: from when it is written.
    from: Option<u64>,
}

impl Start {
    /// That of a pair which is one by itself.
    fn of(phase: Phase, from: Option<u64>) -> Self {
        Self { phase, released: phase, from }
    }
}

impl<P: Peer> Player<P> {
    /// A player for connection `number`.
    pub(crate) fn new(run: Arc<Run>, tally: Arc<Mutex<Tally>>, peer: P, number: usize) -> Self {
        Self { run, tally, peer, number, last_token: 0 }
    }

    /// Plays to the end; on `link`, or on a connection for each pair if there is none.
    pub(crate) async fn play(mut self, link: Option<P::Link>) -> Result<(), Error> {
        match (link, self.run.plan.keep, self.run.plan.rhythm) {
            (Some(mut link), Connections::Kept, Rhythm::Batches(_)) => {
                self.batches(&mut link).await?;
                link.leave().await?;
            }
            (Some(mut link), Connections::Kept, Rhythm::Steps | Rhythm::Rate(_)) => {
                self.steps(&mut link).await?;
                link.leave().await?;
            }
            (_, Connections::PerIteration, _) | (None, Connections::Kept, _) => {
                self.iterations().await?;
            }
        }
        Ok(())
    }

    /// One pair after the other on one connection.
    async fn steps(&mut self, link: &mut P::Link) -> Result<(), Error> {
        while let Some(start) = self.next(link.keep_alive()).await? {
            self.turn(link, Ask::Acquire, start).await?;
            self.hold(link).await?;
            self.turn(link, Ask::Release, start).await?;
        }
        self.stop();
        Ok(())
    }

    /// Many pairs per write.
    async fn batches(&mut self, link: &mut P::Link) -> Result<(), Error> {
        let mut held = None;
        while let Some(phase) = self.run.begin() {
            let ask = if held.is_none() { Ask::Acquire } else { Ask::Exchange };
            let released = held.replace(phase).unwrap_or(phase);
            self.turn(link, ask, Start { phase, released, from: None }).await?;
        }
        if let Some(phase) = held {
            self.turn(link, Ask::Release, Start::of(phase, None)).await?;
        }
        Ok(())
    }

    /// A connection for each pair.
    async fn iterations(&mut self) -> Result<(), Error> {
        while let Some(start) = self.next(pending()).await? {
            let start = Start { from: start.from.or_else(|| Some(self.run.now())), ..start };
            let mut link = self.peer.connect(self.number).await?;
            self.turn(&mut link, Ask::Acquire, start).await?;
            self.hold(&mut link).await?;
            self.turn(&mut link, Ask::ReleaseAndLeave, start).await?;
        }
        self.stop();
        Ok(())
    }

    /// When the next pair begins; none when all is over. `alive` is awaited meanwhile.
    async fn next(
        &self,
        alive: impl Future<Output = Result<(), Error>>,
    ) -> Result<Option<Start>, Error> {
        let Some(pace) = self.run.pace else {
            return Ok(self.run.begin().map(|phase| Start::of(phase, None)));
        };
        let moment = self.run.next_moment(pace);
        tokio::select! {
            biased;
            () = wait_until(moment) => {}
            () = self.run.ended() => return Ok(None),
            failed = alive => failed?,
        }
        let from = Some(self.run.nanos_of(moment));
        Ok(self.run.begin().map(|phase| Start::of(phase, from)))
    }

    /// Holds a lock that others want for a turn of the loop at least: two who hold it at once would
    /// meet. Where it is handed over, holds it until there is somebody to hand it over to.
    async fn hold(&self, link: &mut P::Link) -> Result<(), Error> {
        if self.run.plan.locks == Locks::Same {
            yield_now().await;
        }
        match (&self.run.crowd, self.run.pace) {
            (Some(crowd), None) if !crowd.is_asked_for() => tokio::select! {
                biased;
                () = crowd.somebody_asks() => Ok(()),
                failed = link.keep_alive() => failed,
            },
            (Some(_) | None, _) => Ok(()),
        }
    }

    /// This one will not ask any more.
    fn stop(&self) {
        if let Some(crowd) = &self.run.crowd {
            crowd.leaves();
        }
    }

    /// One turn, with all that is measured and checked about it.
    async fn turn(&mut self, link: &mut P::Link, ask: Ask, start: Start) -> Result<(), Error> {
        let Self { run, tally, number, last_token, .. } = self;
        let plan = &run.plan;
        let sent_at = run.now();
        if ask != Ask::Acquire {
            for slot in 0..plan.slots() {
                run.checks.leave(plan.lock(*number, slot));
            }
        }
        if let Some(crowd) = &run.crowd {
            match ask {
                Ask::Acquire => crowd.asks(),
                Ask::Release | Ask::ReleaseAndLeave => crowd.releases(sent_at),
                // Many locks at a time are never one that is handed over.
                Ask::Exchange => {}
            }
        }
        let mut hear = |answer| -> Result<(), Error> {
            let now = run.now();
            match answer {
                Answer::Granted { slot, token } => {
                    let lock = plan.lock(*number, slot);
                    run.checks.enter(lock, token, || plan.lock_name(lock))?;
                    check_own_tokens(plan.mode, token, last_token, || plan.lock_name(lock))?;
                    let hand_over = run.crowd.as_ref().and_then(|all| all.granted(sent_at, now));
                    if run.counts(start.phase) {
                        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                        let from = start.from.unwrap_or(sent_at);
                        tally.acquire.saturating_record(now.saturating_sub(from));
                        if let Some(hand_over) = hand_over {
                            tally.hand_over.saturating_record(hand_over);
                        }
                    }
                }
                Answer::Released => {
                    if run.counts(start.released) {
                        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                        tally.release.saturating_record(now.saturating_sub(sent_at));
                        tally.pairs += 1;
                        run.pair_done();
                    }
                }
            }
            Ok(())
        };
        link.turn(ask, &mut hear).await
    }
}

/// Tokens of grants that several hold at once are compared within each connection, where they come
/// in order.
fn check_own_tokens(
    mode: Mode,
    token: Option<u64>,
    last: &mut u64,
    name: impl Fn() -> String,
) -> Result<(), Violation> {
    let (Some(token), Mode::Shared | Mode::Permits { .. }) = (token, mode) else { return Ok(()) };
    let before = std::mem::replace(last, token);
    if token <= before {
        return Err(Violation::TokenNotRising { lock: name(), token, before });
    }
    Ok(())
}
