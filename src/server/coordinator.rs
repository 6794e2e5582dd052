//! The Coordinator: the one actor that owns the table of locks.
//!
//! ```text
//!   Session ──Submit──▶ ┌──────────────────────────────────────────┐
//!   Session ──Submit──▶ │ inbox ┐  Coordinator                     │ ──Deliver──▶ Session
//!   Session ──Submit──▶ │   mailbox ─▶ Desk ─▶ turns ─▶ Gate       │ ──Deliver──▶ Session
//!     timer ──────────▶ │                (one timer, re-armed)     │ ──orders───▶ commit task
//!                       └──────────────────────────────────────────┘
//! ```
//!
//! All sessions put their messages into this actor's inbox. One word in its mailbox tells of all that wait
//! there, and so the mailbox brings them into order (a sequencer). Nothing is decided in parallel.
//!
//! The actor is a mailbox and a timer round the [`Desk`], which decides. Each message is a call of
//! the desk, with the time, and the actor carries out the resulting turn.
//!
//! *A lease* ends a leadership where there are several coordinators (rule H2). It is looked at where the
//! clock is read. When it has ended, nothing is decided, and all that comes is kept. When it is
//! renewed, everything goes on as after a stall (rule T3).
//!
//! Never here: a decision, a socket, a file, a wait.

use std::mem;

use std::pin::Pin;
use std::task::{Context as PollContext, Poll};
use std::time::Duration;

use actix::fut::{ActorFuture, ActorFutureExt, WrapFuture};
use actix::{Actor, AsyncContext, Context, Handler, MessageResult, SpawnHandle};
use log::{info, warn};
use tokio::sync::oneshot;
use tokio::task::{spawn_local, yield_now};

use super::barrier::Barrier;
use super::desk::turn::Turn;
use super::desk::{Desk, Setting};
use super::durable::Committed;
use super::durable::chronicle::Flushed;
use super::gate::Gate;
use super::inbox::{Arrival, Arrivals};
use super::lease::{Act, Lease};
#[cfg(feature = "redis-api")]
use super::messages::SpeakRedis;
use super::messages::{
    AllHeard, ChangeRules, Checkpointed, CloseAll, Connect, Disconnect, Drain, Entitle, Gather,
    GoOn, Identify, Prove, Pulse, Save, Survey, TellState, Waiting, Written,
};
use crate::clock::Clock;
use crate::journal::Task;
use crate::types::{GoodbyeCode, Timestamp};

/// How often a journal that could not even be made void is looked at.
const STUCK_PAUSE: Duration = Duration::from_secs(1);
/// Room for arrivals that is kept when there are none.
const ARRIVALS_KEPT: usize = 1024;
/// How often a journal is looked at.
const JOURNAL_LOOK_EVERY: Duration = Duration::from_secs(2);

/// The singleton that decides.
pub(super) struct Coordinator {
    /// Decides, told the time.
    desk: Desk,
    /// Messages of sessions.
    arrivals: Arrivals,
    /// Arrivals that were taken; empty between turns, kept for its memory.
    taken: Vec<Arrival>,
    /// Where time comes from; tests bring their own.
    clock: Box<dyn Clock>,
    /// The way out for turns.
    gate: Gate,
    /// Tells when everything is submitted that could be read at a moment.
    barrier: Barrier,
    /// The one timer, and when it goes off. It may go off too early, never too late.
    timer: Option<(Timestamp, SpawnHandle)>,
    /// The asker who wants to know when nothing is held any more.
    drained: Option<oneshot::Sender<()>>,
    /// Whether a journal that could not be made void is looked at soon, and not before.
    is_stuck: bool,
    /// The right to decide; none: nobody else could.
    lease: Option<Lease>,
}

impl Coordinator {
    /// A coordinator with this desk.
    pub(super) fn new(
        setting: Setting,
        arrivals: Arrivals,
        clock: Box<dyn Clock>,
        gate: Gate,
        barrier: Barrier,
    ) -> Self {
        let desk = Desk::new(setting, clock.now());
        Self {
            desk,
            arrivals,
            taken: Vec::new(),
            clock,
            gate,
            barrier,
            timer: None,
            drained: None,
            is_stuck: false,
            lease: None,
        }
    }

    /// The same, which decides only within a lease.
    pub(super) fn within(mut self, lease: Option<Lease>) -> Self {
        if lease.is_some() {
            self.desk.is_one_of_several();
        }
        Self { lease, ..self }
    }

    /// What decides, and the way out; for who follows.
    #[cfg(feature = "cluster")]
    pub(super) fn parts(&mut self) -> (&Desk, &mut Gate) {
        (&self.desk, &mut self.gate)
    }

    /// Whether it may decide nothing now. Then it looks again soon.
    fn is_suspended(&mut self, ctx: &mut Context<Self>) -> bool {
        let Some(lease) = &mut self.lease else { return false };
        if lease.until.is_ahead() && !lease.is_lost {
            return false;
        }
        if !lease.is_over && !lease.is_lost {
            lease.is_over = true;
            warn!(
                "cluster: the lease of this leader has ended; nothing is decided until it is renewed"
            );
            self.await_lease(ctx);
        }
        true
    }

    /// Looks at the lease when another thread has renewed it.
    fn await_lease(&self, ctx: &mut Context<Self>) {
        let Some(until) = self.lease.as_ref().map(|lease| lease.until.clone()) else { return };
        let renewed = async move { until.moves_ahead().await }.into_actor(self);
        ctx.spawn(renewed.map(|(), this, ctx| this.look_at_lease(ctx)));
    }

    /// Goes on, if it may again: first with what sessions have said, for their leases go by that.
    fn look_at_lease(&mut self, ctx: &mut Context<Self>) {
        let Some(lease) = self.lease.as_mut().filter(|lease| !lease.is_lost) else { return };
        if !lease.until.is_ahead() {
            return self.await_lease(ctx);
        }
        lease.is_over = false;
        let put_off = mem::take(&mut lease.put_off);
        info!("cluster: the lease is renewed; everything goes on");
        self.hear(ctx);
        for act in put_off {
            self.do_when_allowed(ctx, act);
        }
        self.flush(ctx);
    }

    /// Does it now, or when the lease is renewed.
    fn do_when_allowed(&mut self, ctx: &mut Context<Self>, act: Act) {
        let now = self.clock.now();
        if self.is_suspended(ctx)
            && let Some(lease) = &mut self.lease
        {
            lease.put_off.push(act);
            return;
        }
        act(&mut self.desk, now);
        self.carry_out(ctx, now);
    }

    /// Has the desk do something as of now, and carries out the turn. The clock is read here, after the
    /// message was: so every decision is one of now (rule T1).
    fn turn(
        &mut self,
        ctx: &mut Context<Self>,
        act: impl FnOnce(&mut Desk, Timestamp) -> &mut Turn + 'static,
    ) {
        if self.lease.is_some() {
            return self.do_when_allowed(
                ctx,
                Box::new(|desk, now| {
                    let _ = act(desk, now);
                }),
            );
        }
        let now = self.clock.now();
        let _ = act(&mut self.desk, now);
        self.carry_out(ctx, now);
    }

    /// Has the desk hear all that sessions have said, in one turn. It is read already, so the time
    /// of now is later than that of each.
    fn hear(&mut self, ctx: &mut Context<Self>) {
        let mut taken = mem::take(&mut self.taken);
        self.arrivals.take(&mut taken);
        let now = self.clock.now();
        // Looked at behind the clock: a lease that holds then, held at the moment that counts (rule H2).
        if self.is_suspended(ctx) {
            self.arrivals.put_back(&mut taken);
            self.taken = taken;
            if self.lease.as_ref().is_some_and(|lease| lease.is_parting) {
                self.hear_who_comes_too_late(ctx);
            }
            return;
        }
        for arrival in taken.drain(..) {
            match arrival {
                Arrival::Submit(submit) => self.desk.hear_submit(submit, now),
                Arrival::Connect(Connect { connection, peer, link }) => {
                    let way = self.gate.connect(connection, link);
                    let _ = self.desk.connect(connection, way, peer);
                }
                Arrival::Prove(Prove { connection, proof }) => {
                    self.desk.hear_proof(connection, proof);
                }
                Arrival::Disconnect(Disconnect { connection }) => {
                    self.desk.hear_end(connection, now);
                }
                #[cfg(feature = "redis-api")]
                Arrival::ConnectRedis(Connect { connection, peer, link }) => {
                    let way = self.gate.connect(connection, link);
                    let _ = self.desk.connect_redis(connection, way, peer);
                }
                #[cfg(feature = "redis-api")]
                Arrival::Redis(submit) => self.desk.hear_redis(*submit, now),
            }
        }
        // What a crowd has caused once is not kept for ever.
        taken.shrink_to(ARRIVALS_KEPT);
        self.taken = taken;
        let _ = self.desk.finish_turn(now);
        self.carry_out(ctx, now);
    }

    /// Has new connections told that it is over here. Whatever else was said is for the next leader to hear.
    fn hear_who_comes_too_late(&mut self, ctx: &mut Context<Self>) {
        let mut taken = mem::take(&mut self.taken);
        self.arrivals.take(&mut taken);
        for arrival in taken.drain(..) {
            if let Arrival::Connect(Connect { connection, peer, link }) = arrival {
                let way = self.gate.connect(connection, link);
                let _ = self.desk.connect(connection, way, peer);
            }
        }
        self.taken = taken;
        let now = self.clock.now();
        self.carry_out(ctx, now);
    }

    /// Says Goodbye to all, and to those that still come. No decision: also who may make none says it.
    pub(super) fn send_all_away(&mut self, ctx: &mut Context<Self>, code: GoodbyeCode, why: &str) {
        let now = self.clock.now();
        let _ = self.desk.close_all(code, why, now);
        self.carry_out(ctx, now);
        if let Some(lease) = &mut self.lease {
            lease.is_parting = true;
            self.hear_who_comes_too_late(ctx);
        }
    }

    /// Carries out what the turn of now has come to.
    fn carry_out(&mut self, ctx: &mut Context<Self>, now: Timestamp) {
        let turn = self.desk.turn();
        self.gate.pass(turn);
        if mem::take(&mut turn.goes_on) {
            let this = ctx.address();
            // A task of its own: an actor's future would be polled whenever mail comes, and not only then.
            spawn_local(async move {
                yield_now().await;
                this.do_send(GoOn);
            });
        }
        if let Some(at) = turn.listens.take() {
            let (barrier, this) = (self.barrier.clone(), ctx.address());
            spawn_local(async move {
                barrier.pass().await;
                this.do_send(AllHeard { at });
            });
        }
        if let (Some(later), Some(lease)) = (turn.later.take(), &self.lease) {
            lease.later.send_modify(|now| now.note(later));
        }
        if mem::take(&mut turn.is_drained)
            && let Some(drained) = self.drained.take()
        {
            // Nobody listens if the server did not wait so long.
            let _ = drained.send(());
        }
        if let Some(deadline) = turn.rings.take() {
            self.arm(deadline, now, ctx);
        }
    }

    /// Writes down what led to all that was decided, and lets that out.
    fn flush(&mut self, ctx: &mut Context<Self>) {
        // Tried once in a while, however often this is polled.
        if self.is_stuck {
            return;
        }
        if let Some(flushed) = self.gate.flush() {
            self.flushed(flushed, ctx);
        }
    }

    fn flushed(&mut self, flushed: Flushed, ctx: &mut Context<Self>) {
        match flushed {
            Flushed::Written(None) | Flushed::Later => {}
            Flushed::Written(Some(task)) => {
                let counts = self.desk.counts();
                let size = counts.sessions + counts.held + counts.waiting;
                let chronicle = self.gate.chronicle();
                if chronicle.is_some_and(|chronicle| chronicle.takes_over(size)) {
                    self.begin_journal_anew();
                } else {
                    self.make_checkpoint(task, ctx);
                }
            }
            Flushed::Behind => self.begin_journal_anew(),
            Flushed::Writing(job) => {
                let Some(chronicle) = self.gate.chronicle() else { return };
                let (medium, this) = (chronicle.medium(), ctx.address());
                spawn_local(async move {
                    let done = medium.apart(move || job.run()).await;
                    this.do_send(Written(done));
                });
            }
            Flushed::Off => self.unrecorded(),
            Flushed::Stuck => {
                self.is_stuck = true;
                ctx.run_later(STUCK_PAUSE, |this, ctx| {
                    this.is_stuck = false;
                    this.flush(ctx);
                });
            }
        }
    }

    /// Begins the journal anew, with the table of now in place of all records so far.
    fn begin_journal_anew(&mut self) {
        let Some(chronicle) = self.gate.chronicle() else { return };
        if let Some(table) = self.desk.table()
            && !chronicle.begin(table)
        {
            self.unrecorded();
        }
    }

    /// From now on nothing is written down: so nothing is a copy of it either.
    fn unrecorded(&mut self) {
        self.gate.threshold.give_up();
        self.desk.record(false);
    }

    /// Has a checkpoint of the journal made, on a thread that may block.
    fn make_checkpoint(&mut self, task: Box<Task>, ctx: &mut Context<Self>) {
        let Some(chronicle) = self.gate.chronicle() else { return };
        let (make, medium) = (chronicle.checkpoint_maker(), chronicle.medium());
        let this = ctx.address();
        spawn_local(async move {
            if let Some(made) = medium.apart(move || make(&task)).await {
                this.do_send(Checkpointed(made));
            }
        });
    }

    /// Looks after the journal: whether it is where it was, and whether it can be begun anew.
    fn look_after_journal(&mut self, ctx: &mut Context<Self>) {
        self.flush(ctx);
        // The place is another's by now: of the next leader, or of a copy in this process.
        if self.lease.as_ref().is_some_and(|lease| lease.is_lost) {
            return;
        }
        let Some(chronicle) = self.gate.chronicle() else { return };
        if let Some(Flushed::Off | Flushed::Stuck) = chronicle.check() {
            return self.unrecorded();
        }
        // What is over has no table any more; a journal of none would say that nothing is held.
        if let Some(table) = self.desk.table()
            && chronicle.may_begin_anew()
            && chronicle.begin(table)
        {
            info!("the journal can be written again");
            self.desk.record(true);
            self.gate.begun_anew();
        }
    }

    /// Sees that the timer goes off at a moment or before.
    fn arm(&mut self, deadline: Timestamp, now: Timestamp, ctx: &mut Context<Self>) {
        if let Some((at, handle)) = self.timer {
            if at <= deadline {
                return;
            }
            ctx.cancel_future(handle);
        }
        let handle = ctx.run_later(deadline.since(now), move |this, ctx| {
            this.timer = None;
            this.desk.note_lag(this.clock.now().since(deadline));
            this.turn(ctx, Desk::ring);
            this.flush(ctx);
        });
        self.timer = Some((deadline, handle));
    }
}

/// What is polled whenever the Coordinator was, after all that its mailbox held: so all turns of one poll
/// are one write.
struct Flush;

impl ActorFuture<Coordinator> for Flush {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        coordinator: &mut Coordinator,
        ctx: &mut Context<Coordinator>,
        _: &mut PollContext<'_>,
    ) -> Poll<()> {
        coordinator.flush(ctx);
        Poll::Pending
    }
}

impl Actor for Coordinator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        if let Some(chronicle) = self.gate.chronicle() {
            let is_recorded = chronicle.is_begun()
                || self.desk.table().is_some_and(|table| chronicle.begin(table));
            self.desk.record(is_recorded);
            ctx.spawn(Flush);
            ctx.run_interval(JOURNAL_LOOK_EVERY, Self::look_after_journal);
        }
        // The run before may have left leases, timeouts, or a grace period.
        self.turn(ctx, Desk::begin);
    }
}

impl Handler<Waiting> for Coordinator {
    type Result = ();

    fn handle(&mut self, Waiting: Waiting, ctx: &mut Context<Self>) {
        self.hear(ctx);
    }
}

impl Handler<GoOn> for Coordinator {
    type Result = ();

    fn handle(&mut self, GoOn: GoOn, ctx: &mut Context<Self>) {
        self.turn(ctx, Desk::go_on);
    }
}

impl Handler<AllHeard> for Coordinator {
    type Result = ();

    fn handle(&mut self, AllHeard { at }: AllHeard, ctx: &mut Context<Self>) {
        self.turn(ctx, move |desk, now| desk.tick(at, now));
    }
}

impl Handler<Committed> for Coordinator {
    type Result = ();

    fn handle(&mut self, committed: Committed, ctx: &mut Context<Self>) {
        if let (Some(chronicle), Some(durable)) = (self.gate.chronicle(), committed.durable) {
            chronicle.epoch(None, Some(durable.epoch));
        }
        self.turn(ctx, move |desk, now| desk.committed(&committed, now));
    }
}

impl Handler<Checkpointed> for Coordinator {
    type Result = ();

    fn handle(&mut self, Checkpointed(made): Checkpointed, _: &mut Context<Self>) {
        if let Some(chronicle) = self.gate.chronicle()
            && chronicle.checkpointed(made).is_some()
        {
            self.unrecorded();
        }
    }
}

impl Handler<Written> for Coordinator {
    type Result = ();

    fn handle(&mut self, Written(done): Written, ctx: &mut Context<Self>) {
        if let Some(flushed) = self.gate.written(done) {
            self.flushed(flushed, ctx);
        }
    }
}

impl Handler<Save> for Coordinator {
    type Result = MessageResult<Save>;

    fn handle(&mut self, Save { saved }: Save, ctx: &mut Context<Self>) -> Self::Result {
        self.gate.tell_saved(saved);
        // Those of one of several hear who follows it, once that is known.
        let save = if self.lease.is_some() { Desk::save_for_another } else { Desk::save };
        self.turn(ctx, save);
        MessageResult(self.desk.counts())
    }
}

impl Handler<Drain> for Coordinator {
    type Result = ();

    fn handle(&mut self, Drain { finished }: Drain, ctx: &mut Context<Self>) {
        self.drained = Some(finished);
        self.turn(ctx, Desk::drain);
    }
}

impl Handler<Gather> for Coordinator {
    type Result = MessageResult<Gather>;

    fn handle(&mut self, Gather: Gather, _: &mut Context<Self>) -> Self::Result {
        MessageResult(Box::new(self.desk.figures(self.clock.now())))
    }
}

impl Handler<Survey> for Coordinator {
    type Result = MessageResult<Survey>;

    fn handle(&mut self, Survey { from }: Survey, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.desk.contention(from, self.clock.now()))
    }
}

impl Handler<Pulse> for Coordinator {
    type Result = MessageResult<Pulse>;

    fn handle(&mut self, Pulse: Pulse, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.gate.halted_for())
    }
}

impl Handler<Identify> for Coordinator {
    type Result = MessageResult<Identify>;

    fn handle(&mut self, Identify { proof }: Identify, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.desk.identify(proof))
    }
}

impl Handler<Entitle> for Coordinator {
    type Result = MessageResult<Entitle>;

    fn handle(&mut self, asked: Entitle, _: &mut Context<Self>) -> Self::Result {
        let Entitle { proof, peer, errand } = asked;
        MessageResult(self.desk.entitle((proof, peer), errand, self.clock.now()))
    }
}

impl Handler<ChangeRules> for Coordinator {
    type Result = ();

    fn handle(&mut self, ChangeRules(access): ChangeRules, ctx: &mut Context<Self>) {
        self.turn(ctx, move |desk, now| desk.change_rules(access, now));
    }
}

#[cfg(feature = "redis-api")]
impl Handler<SpeakRedis> for Coordinator {
    type Result = ();

    fn handle(&mut self, SpeakRedis { needs_journal }: SpeakRedis, _: &mut Context<Self>) {
        self.desk.speak_redis(needs_journal);
    }
}

impl Handler<TellState> for Coordinator {
    type Result = ();

    fn handle(&mut self, TellState: TellState, ctx: &mut Context<Self>) {
        self.turn(ctx, Desk::tell_state);
    }
}

impl Handler<CloseAll> for Coordinator {
    type Result = ();

    fn handle(&mut self, CloseAll { code, why }: CloseAll, ctx: &mut Context<Self>) {
        #[cfg(feature = "cluster")]
        self.gate.forsake();
        if let Some(lease) = &mut self.lease {
            (lease.is_lost, lease.put_off) = (true, Vec::new());
        }
        self.send_all_away(ctx, code, &why);
    }
}
