//! A client as small as can be that keeps the rules: what it asked for, what it believes, what it
//! says over the next connection. The client library's own core is simulated elsewhere; this one has
//! no more states than the rules need.

use std::collections::{BTreeSet, VecDeque};

use super::scenario::{Shape, TTL, claims};
use crate::engine::{Command, Extras, Place, Progress, Reclaim, Rejection, Request, RequestEvent};
use crate::types::{
    Account, ConnectionId, Epoch, FencingToken, Generation, LostReason, Mode, Note, OwnerId,
    RequestId, SessionId, Standing, Timestamp, Wait, lease,
};

/// What a client asks for, and where that stands.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// Its id.
    pub(super) id: RequestId,
    /// What is asked for: one of the scenario's.
    pub(super) shape: &'static Shape,
    /// What it converts.
    pub(super) converts: Option<RequestId>,
    /// Its place in line, as far as is known.
    pub(super) place: Option<Place>,
    /// Where it stands.
    pub(super) stand: Stand,
}

/// Where something that was asked for stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stand {
    /// Nothing is known.
    Waiting,
    /// Granted when the lease was not believed in, and sealed by that run.
    Unconfirmed(FencingToken, Epoch),
    /// Held.
    Held {
        /// By this token.
        token: FencingToken,
        /// The run that sealed it.
        sealed_in: Epoch,
        /// After a restart: believed in until then and no longer, before it is confirmed.
        doubted: Option<Timestamp>,
    },
    /// Given back; not believed in any more.
    Releasing {
        /// The token.
        token: FencingToken,
        /// Whether it is to be said again over the next connection.
        asked: bool,
    },
    /// Given up.
    Cancelling,
}

/// What is on its way to a client.
#[derive(Clone, Debug)]
pub(super) enum Word {
    /// The session is there.
    Welcome {
        /// When the Hello was said.
        said: Timestamp,
        /// The run.
        epoch: Epoch,
        /// What is known of it.
        standing: Standing,
    },
    /// The Hello was refused.
    Refused(Rejection),
    /// The keep-alive of that moment has come.
    KeptAlive(Timestamp),
    /// Of a request, from that run.
    News(RequestId, RequestEvent, Epoch),
    /// The session is over.
    Ended,
}

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Line {
    /// Everything.
    Good,
    /// What the client says comes late.
    Slow,
    /// Nothing.
    Dead,
}

/// A client.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// Its session and the generation of its latest connection.
    pub(super) session: Option<(SessionId, Generation)>,
    /// Its latest connection.
    pub(super) connection: Option<ConnectionId>,
    /// What that carries.
    pub(super) line: Line,
    /// When Hello was said over it.
    pub(super) hello: Timestamp,
    /// Whether it was welcomed.
    pub(super) is_welcome: bool,
    /// The run that last welcomed the session.
    pub(super) epoch: Epoch,
    /// When the last thing was said that is known to have come.
    pub(super) confirmed: Timestamp,
    /// What it asks for, oldest first.
    pub(super) asks: Vec<Ask>,
    /// Ids below this are used.
    pub(super) next: u64,
    /// What is on its way to it, over the latest connection.
    pub(super) down: VecDeque<Word>,
}

impl Client {
    pub(super) fn new() -> Self {
        Self {
            session: None,
            connection: None,
            line: Line::Dead,
            hello: Timestamp::default(),
            is_welcome: false,
            epoch: Epoch::default(),
            confirmed: Timestamp::default(),
            asks: Vec::new(),
            next: 1,
            down: VecDeque::new(),
        }
    }

    /// Until when the lease is believed in (rule T2).
    pub(super) fn believed_until(&self) -> Timestamp {
        self.confirmed.after(lease::belief(TTL))
    }

    /// Whether a hold is believed in.
    pub(super) fn believes(&self, ask: &Ask, now: Timestamp) -> bool {
        let Stand::Held { doubted, .. } = ask.stand else { return false };
        now < self.believed_until() && doubted.is_none_or(|until| now < until)
    }

    /// How it may use a lock now, by each of its holds: as far as the server cannot have given part
    /// of it away, since that was asked for.
    pub(super) fn beliefs(
        &self,
        revoked: &BTreeSet<FencingToken>,
        now: Timestamp,
    ) -> impl Iterator<Item = (usize, Mode)> {
        let is_revoked = move |ask: &Ask| match ask.stand {
            Stand::Held { token, .. } => revoked.contains(&token),
            _ => false,
        };
        let believed = move |ask: &&Ask| self.believes(ask, now) && !is_revoked(ask);
        let held = self.asks.iter().filter(believed);
        held.flat_map(move |ask| {
            let conversion = self.asks.iter().find(|other| other.converts == Some(ask.id));
            ask.shape.claims.iter().map(move |(lock, mode)| {
                let wanted = conversion.and_then(|other| other.shape.mode(*lock));
                (*lock, wanted.map_or(*mode, |wanted| weaker(*mode, wanted)))
            })
        })
    }

    pub(super) fn find(&self, id: RequestId) -> Option<usize> {
        self.asks.iter().position(|ask| ask.id == id)
    }

    /// Asks for something.
    pub(super) fn ask(&mut self, shape: &'static Shape) -> Option<Command> {
        let converts = match shape.converts {
            Some(other) => Some(self.convertible(other)?),
            None => None,
        };
        let (id, place, stand) = (RequestId::new(self.next), None, Stand::Waiting);
        self.next += 1;
        let ask = Ask { id, shape, converts, place, stand };
        let command = self.is_welcome.then(|| Command::Request(request(&ask)));
        self.asks.push(ask);
        command
    }

    /// A hold of this name that is not being converted.
    pub(super) fn convertible(&self, name: &str) -> Option<RequestId> {
        let of_name = self.asks.iter().filter(|ask| ask.shape.name == name);
        let held = of_name.filter(|ask| matches!(ask.stand, Stand::Held { .. })).map(|ask| ask.id);
        held.into_iter().find(|id| self.asks.iter().all(|other| other.converts != Some(*id)))
    }

    /// Gives a hold back: stops believing, then says so.
    pub(super) fn release(&mut self, which: usize, asked: bool) -> Option<Command> {
        let ask = &mut self.asks[which];
        let (Stand::Held { token, .. } | Stand::Unconfirmed(token, _)) = ask.stand else {
            return None;
        };
        ask.stand = Stand::Releasing { token, asked };
        let request = ask.id;
        if !self.is_welcome && !asked {
            self.asks.remove(which);
        }
        self.is_welcome.then_some(Command::Release { request, token })
    }

    /// Gives a request up. With a conversion goes what it converts: it may have been granted
    /// meanwhile, and then that is not held any more.
    pub(super) fn cancel(&mut self, which: usize) -> Vec<Command> {
        let Ask { id: request, converts, .. } = self.asks[which];
        let mut said = Vec::new();
        if self.is_welcome {
            self.asks[which].stand = Stand::Cancelling;
            said.push(Command::Cancel { request });
        } else {
            self.asks.remove(which);
        }
        let converted = converts.and_then(|converts| self.find(converts));
        said.extend(converted.and_then(|converted| self.release(converted, true)));
        said
    }

    /// The lease, or the doubt about it, has run out: what was held is given back.
    pub(super) fn lapse(&mut self, now: Timestamp) -> Vec<Command> {
        let is_held = |ask: &Ask| matches!(ask.stand, Stand::Held { .. });
        let lapsed = |client: &Self| {
            client.asks.iter().position(|ask| is_held(ask) && !client.believes(ask, now))
        };
        let mut said = Vec::new();
        while let Some(which) = lapsed(self) {
            said.extend(self.release(which, false));
        }
        said
    }

    /// The connection is given up. What was given up over it is over: the next account does not list
    /// it.
    pub(super) fn leave(&mut self, now: Timestamp) {
        self.is_welcome = false;
        self.down.clear();
        self.asks.retain_mut(|ask| {
            if let Stand::Unconfirmed(..) = ask.stand {
                ask.stand = Stand::Waiting;
            }
            !matches!(ask.stand, Stand::Cancelling | Stand::Releasing { asked: false, .. })
        });
        self.lapse(now);
    }

    /// The session is over: what it held is lost, what it waits for goes on in the next one.
    pub(super) fn session_over(&mut self, now: Timestamp) {
        self.leave(now);
        self.session = None;
        self.connection = None;
        self.line = Line::Dead;
        self.asks.retain_mut(|ask| {
            ask.place = None;
            ask.converts.is_none() && ask.stand == Stand::Waiting
        });
    }

    /// Takes a word in, and says what there is to say to it.
    pub(super) fn hear(&mut self, word: Word, now: Timestamp) -> Vec<Command> {
        match word {
            Word::Welcome { said, epoch, standing } => {
                return self.welcomed(said, epoch, standing, now);
            }
            Word::Refused(Rejection::UnknownSession) | Word::Ended => self.session_over(now),
            Word::Refused(Rejection::StaleGeneration { latest }) => {
                self.leave(now);
                self.line = Line::Dead;
                if let Some((_, generation)) = &mut self.session {
                    *generation = latest.max(*generation);
                }
            }
            Word::Refused(other) => panic!("a Hello is refused: {other}"),
            Word::KeptAlive(said) => {
                self.confirmed = self.confirmed.max(said);
                let sure = now < self.believed_until();
                for ask in self.asks.iter_mut().filter(|_| sure) {
                    if let Stand::Unconfirmed(token, sealed_in) = ask.stand {
                        ask.stand = Stand::Held { token, sealed_in, doubted: None };
                    }
                }
            }
            Word::News(request, news, run) => self.news(request, news, run, now),
        }
        Vec::new()
    }

    fn news(&mut self, request: RequestId, news: RequestEvent, run: Epoch, now: Timestamp) {
        let sure = now < self.believed_until();
        let Some(which) = self.find(request) else { return };
        let ask = &mut self.asks[which];
        match (news, ask.stand) {
            (RequestEvent::Requested, _) => panic!("told that it came"),
            (RequestEvent::Queued { ticket, .. }, _) => {
                ask.place = Some(Place { ticket, told_in: run });
            }
            (RequestEvent::Granted { token }, Stand::Waiting) => {
                ask.stand = Stand::Unconfirmed(token, run);
                if sure {
                    ask.stand = Stand::Held { token, sealed_in: run, doubted: None };
                }
                let converts = ask.converts.take();
                self.asks.retain(|ask| Some(ask.id) != converts);
            }
            (RequestEvent::Granted { token }, Stand::Held { token: held, .. }) => {
                assert_eq!(token, held, "granted twice");
                ask.stand = Stand::Held { token, sealed_in: run, doubted: None };
            }
            (RequestEvent::Cancelled, Stand::Cancelling)
            | (RequestEvent::Released { .. }, Stand::Releasing { .. })
            | (RequestEvent::Rejected(_), Stand::Releasing { .. } | Stand::Waiting) => {
                self.asks.remove(which);
            }
            // Whatever crossed what was said means nothing, nor does what is of an earlier connection.
            (RequestEvent::Granted { .. } | RequestEvent::Lost { .. }, Stand::Releasing { .. })
            | (RequestEvent::Granted { .. }, Stand::Unconfirmed(..))
            | (RequestEvent::Released { .. } | RequestEvent::Cancelled, _)
            | (_, Stand::Cancelling) => {}
            (RequestEvent::Lost { reason, .. }, _) => {
                assert_ne!(reason, LostReason::Conflict, "somebody else held it");
                self.asks.remove(which);
            }
            (RequestEvent::Rejected(rejection), stand) => {
                // Only what was reclaimed can be refused.
                let doubted = matches!(stand, Stand::Held { doubted: Some(_), .. });
                assert!(doubted, "{rejection} of {stand:?}");
                self.asks.remove(which);
            }
        }
    }

    /// The session is there: says again what is not answered, and what is held.
    fn welcomed(
        &mut self,
        said: Timestamp,
        epoch: Epoch,
        standing: Standing,
        now: Timestamp,
    ) -> Vec<Command> {
        self.is_welcome = true;
        let is_gone = !matches!(standing, Standing::Resumed);
        let is_other_run = epoch != self.epoch || matches!(standing, Standing::Reopened { .. });
        let until = self.believed_until();
        let mut commands = Vec::new();
        for ask in &mut self.asks {
            if let Stand::Held { doubted: doubted @ None, .. } = &mut ask.stand
                && is_other_run
            {
                *doubted = Some(until);
            }
        }
        (self.epoch, self.confirmed) = (epoch, said);
        commands.extend(self.lapse(now));
        self.asks.retain(|ask| !(is_gone && matches!(ask.stand, Stand::Releasing { .. })));
        for ask in &self.asks {
            match ask.stand {
                Stand::Waiting => commands.push(Command::Request(request(ask))),
                Stand::Held { token, sealed_in, doubted: Some(_) } => {
                    commands.push(Command::Reclaim(reclaim(ask, token, sealed_in)));
                }
                Stand::Releasing { token, .. } => {
                    commands.push(Command::Release { request: ask.id, token });
                }
                Stand::Held { doubted: None, .. } | Stand::Unconfirmed(..) | Stand::Cancelling => {}
            }
        }
        if !is_gone {
            commands.push(Command::Account(self.account()));
        }
        commands
    }

    fn account(&self) -> Account {
        let mut account = Account {
            from: RequestId::new(1),
            to: RequestId::new(self.next),
            held: Vec::new(),
            waiting: Vec::new(),
        };
        for ask in &self.asks {
            match ask.stand {
                Stand::Waiting | Stand::Unconfirmed(..) => account.waiting.push(ask.id),
                Stand::Held { token, .. } => {
                    account.held.push(crate::types::Held { request: ask.id, token });
                }
                Stand::Releasing { .. } | Stand::Cancelling => {}
            }
        }
        account
    }
}

fn request(ask: &Ask) -> Request {
    Request {
        id: ask.id,
        owner: OwnerId::new(ask.shape.owner),
        converts: ask.converts,
        wait: Wait::Forever,
        progress: Progress::Untold,
        place: ask.place,
        lock_delay: ask.shape.delay,
        extras: Extras { at_least: ask.shape.at_least, supersede: ask.shape.supersede }.of_few(),
        note: Note::default(),
        claims: claims(ask.shape),
    }
}

fn reclaim(ask: &Ask, token: FencingToken, sealed_in: Epoch) -> Reclaim {
    Reclaim {
        id: ask.id,
        token,
        sealed_in,
        owner: OwnerId::new(ask.shape.owner),
        lock_delay: ask.shape.delay,
        at_least: ask.shape.at_least,
        note: Note::default(),
        claims: claims(ask.shape),
    }
}

/// The one of two modes that takes less.
fn weaker(one: Mode, other: Mode) -> Mode {
    match (one, other) {
        (Mode::Permits { take, of }, Mode::Permits { take: other, .. }) => {
            Mode::Permits { take: take.min(other), of }
        }
        (Mode::Exclusive, _) => other,
        (Mode::Shared | Mode::Permits { .. }, _) => one,
    }
}
