//! States that differ in nothing that matters are one. Some differences between states do not
//! matter: the time, the used numbers, the places of things in their arenas, and the history. Nor
//! does the end of requests that nobody asks about any more.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::client::{Client, Stand, Word};
use super::world::World;
use crate::engine::records::AfterRecord;
use crate::engine::request::State;
use crate::engine::session::{Outcome, Session};
use crate::engine::{Attach, Command, Event, Forfeit, Place, RequestEvent};
use crate::types::{ConnectionId, FencingToken, Held, RequestId, Ticket, Timestamp, Ttl};

/// What a state is, in 64 bits.
pub(super) fn digest(world: &World) -> u64 {
    let mut canon = Canon::new(world);
    canon.table();
    canon.disk();
    world.clients.iter().for_each(|client| canon.client(client));
    canon.late();
    world.left.hash(&mut canon.hasher);
    canon.hasher.finish()
}

/// How those requests of a session ended that somebody may still ask about.
fn finished(world: &World, session: &Session) -> impl Iterator<Item = (RequestId, Outcome)> {
    let is_of = |client: &&Client| client.session.is_some_and(|(id, _)| id == session.id);
    let client = world.clients.iter().find(is_of);
    let all = !world.late.is_empty();
    let is_asked =
        move |request| all || client.is_some_and(|client| client.find(request).is_some());
    session.finished().filter(move |(request, _)| is_asked(*request))
}

/// What stands for numbers of which only the order matters.
struct Canon<'a> {
    world: &'a World,
    hasher: DefaultHasher,
    /// All tokens that anybody knows, in order.
    tokens: Vec<FencingToken>,
    /// All tickets, in order.
    tickets: Vec<Ticket>,
    /// Connections in the order in which they turn up.
    connections: HashMap<ConnectionId, usize>,
}

impl<'a> Canon<'a> {
    fn new(world: &'a World) -> Self {
        let (mut tokens, mut tickets) = (BTreeSet::from([world.first_token]), BTreeSet::new());
        let table = &world.table;
        for key in table.requests.keys() {
            match table.requests[key].state {
                State::Held { token } => tokens.insert(token),
                State::Waiting { .. } => tickets.insert(table.requests[key].ticket()),
            };
        }
        for (_, session) in table.sessions.iter_all() {
            for (_, outcome) in finished(world, session) {
                match outcome {
                    Outcome::Released(token) | Outcome::Lost(token, _) => {
                        tokens.insert(token);
                    }
                    Outcome::Cancelled | Outcome::Rejected(_) => {}
                }
            }
        }
        for client in &world.clients {
            for ask in &client.asks {
                let place = ask.place.filter(|_| ask.stand == Stand::Waiting);
                tickets.extend(place.map(|place| place.ticket));
                match ask.stand {
                    Stand::Unconfirmed(token, _)
                    | Stand::Held { token, .. }
                    | Stand::Releasing { token, .. } => {
                        tokens.insert(token);
                    }
                    Stand::Waiting | Stand::Cancelling => {}
                }
            }
            for word in &client.down {
                match word {
                    Word::News(
                        _,
                        RequestEvent::Granted { token } | RequestEvent::Lost { token, .. },
                        _,
                    ) => {
                        tokens.insert(*token);
                    }
                    Word::News(_, RequestEvent::Queued { ticket, .. }, _) => {
                        tickets.insert(*ticket);
                    }
                    _ => {}
                }
            }
        }
        Self {
            world,
            hasher: DefaultHasher::new(),
            tokens: tokens.into_iter().collect(),
            tickets: tickets.into_iter().collect(),
            connections: HashMap::new(),
        }
    }

    fn put(&mut self, thing: impl Hash) {
        thing.hash(&mut self.hasher);
    }

    /// How far off a moment is; of long ago, only that it was.
    fn time(&mut self, at: Timestamp) {
        let now = self.world.now;
        let ago = now.since(at).as_micros().min(3_000_000);
        self.put((at.since(now).as_micros(), ago));
    }

    fn token(&mut self, token: FencingToken) {
        self.put(self.tokens.partition_point(|known| *known < token));
        self.put(self.tokens.contains(&token));
    }

    fn ticket(&mut self, ticket: Ticket) {
        self.put((ticket.epoch, self.tickets.partition_point(|known| *known < ticket)));
    }

    fn place(&mut self, place: Option<Place>) {
        match place {
            Some(Place { ticket, told_in }) => {
                self.put(told_in);
                self.ticket(ticket);
            }
            None => self.put("no ticket"),
        }
    }

    fn connection(&mut self, connection: Option<ConnectionId>) {
        let number = connection.map(|connection| {
            let next = self.connections.len();
            *self.connections.entry(connection).or_insert(next)
        });
        self.put(number);
    }

    fn forfeit(&mut self, forfeit: Forfeit) {
        match forfeit {
            Forfeit::Session(session) => self.put(session),
            Forfeit::Grant(token) | Forfeit::UpTo(token) => self.token(token),
        }
    }

    fn table(&mut self) {
        let table = &self.world.table;
        let mut sessions: Vec<_> = table.sessions.iter_all().map(|(_, session)| session).collect();
        sessions.sort_by_key(|session| session.id);
        for session in sessions {
            self.put((0, session.id, session.generation, session.latest_request));
            self.put((session.is_reopened, session.is_over, session.is_awaited));
            self.connection(session.connection);
            self.time(session.ends);
            for (request, outcome) in finished(self.world, session) {
                self.put((1, request));
                match outcome {
                    Outcome::Released(token) => self.token(token),
                    Outcome::Lost(token, reason) => {
                        self.put(reason.number());
                        self.token(token);
                    }
                    Outcome::Cancelled => self.put("cancelled"),
                    Outcome::Rejected(code) => self.put(code.number()),
                }
            }
            for key in session.requests.iter(&table.requests.arena) {
                let live = &table.requests[key];
                self.put((2, live.id, table.owner_of(key), live.more().lock_delay));
                self.put(live.supersedes() && !live.is_held());
                if let Some(keep) = live.more().keep.as_ref().filter(|_| live.is_held()) {
                    self.time(live.since.after(keep.at_least));
                }
                self.put(live.partner().map(|partner| table.requests[partner].id));
                if let Some(replaced) = live.more().replaced {
                    self.token(replaced);
                }
                match live.state {
                    State::Held { token } => self.token(token),
                    State::Waiting { .. } => self.ticket(live.ticket()),
                }
                for claim in table.claims_of(key) {
                    let node = &table.claims[claim];
                    self.put((table.locks[node.lock].name.as_str(), node.mode));
                }
            }
        }
        self.locks();
        self.put((table.epoch(), table.deferred.is_starved()));
        match table.grace.until() {
            Some(until) => self.time(until),
            None => self.put("no grace"),
        }
        self.put(table.grace.until().map(|_| table.this_run.proofs_from()));
        for forfeit in table.grace.forfeits() {
            self.forfeit(forfeit);
        }
        for then in table.records.to_happen() {
            match then {
                AfterRecord::Nothing => self.put("nothing"),
                AfterRecord::Session(key) => self.put(table.sessions[*key].id),
                AfterRecord::Revoke { name, token, .. } => {
                    self.put(name.as_str());
                    self.token(*token);
                }
            }
        }
        if !self.world.is_last_run() {
            table.records.useful_until().for_each(|until| self.time(until));
        }
    }

    fn locks(&mut self) {
        let table = &self.world.table;
        let mut locks: Vec<_> = table.locks.keys().collect();
        locks.sort_by_key(|key| table.locks[*key].name.as_str());
        for key in locks {
            let lock = &table.locks[key];
            self.put((3, lock.name.as_str()));
            if let Some(delay) = &lock.delay {
                for pause in [&delay.lost, &delay.kept] {
                    self.put(pause.is_some());
                    if let Some(pause) = pause {
                        self.time(pause.until);
                    }
                }
            }
            let holders = lock.holders.iter(&table.claims);
            for (place, claim) in holders
                .map(|c| (4, c))
                .chain(table.locks.queue_of(lock).iter(&table.claims).map(|c| (5, c)))
            {
                let request = &table.requests[table.claims[claim].request];
                self.put((place, table.sessions[request.session].id, request.id));
            }
        }
    }

    fn disk(&mut self) {
        let world = self.world;
        self.put(world.unrecorded.len());
        if world.is_last_run() {
            return;
        }
        self.put(world.recorded.len());
        for (_, forfeit) in world.recorded.iter().chain(&world.unrecorded) {
            self.forfeit(*forfeit);
        }
        self.put((world.durable.ttl_max.map(Ttl::length), world.durable.settled));
    }

    fn client(&mut self, client: &Client) {
        self.put((6, client.session, client.line, client.is_welcome, client.epoch, client.next));
        self.connection(client.connection);
        self.time(client.confirmed);
        if !client.is_welcome {
            self.time(client.hello);
        }
        for ask in &client.asks {
            self.put((7, ask.id, ask.shape.name, ask.converts));
            match ask.stand {
                Stand::Waiting => self.place(ask.place),
                Stand::Cancelling => self.put(1),
                Stand::Unconfirmed(token, sealed_in) => {
                    self.put((2, sealed_in));
                    self.token(token);
                }
                Stand::Held { token, sealed_in, doubted } => {
                    let is_revoked = self.world.revoked.contains(&token);
                    self.put((3, sealed_in, doubted.is_some(), is_revoked));
                    self.token(token);
                    if let Some(until) = doubted {
                        self.time(until);
                    }
                }
                Stand::Releasing { token, asked } => {
                    self.put((4, asked));
                    self.token(token);
                }
            }
        }
        for word in &client.down {
            self.word(word);
        }
    }

    fn word(&mut self, word: &Word) {
        match word {
            Word::Welcome { said, epoch, standing } => {
                // How long the grace period is does not matter to anybody.
                self.put((8, epoch, std::mem::discriminant(standing)));
                self.time(*said);
            }
            Word::Refused(rejection) => self.put((9, rejection.code().number())),
            Word::KeptAlive(said) => {
                self.put(10);
                self.time(*said);
            }
            Word::Ended => self.put(11),
            Word::News(request, news, run) => {
                self.put((12, request, std::mem::discriminant(news), run));
                match news {
                    RequestEvent::Granted { token } => self.token(*token),
                    RequestEvent::Lost { token, reason } => {
                        self.token(*token);
                        self.put(reason.number());
                    }
                    RequestEvent::Queued { ticket, .. } => self.ticket(*ticket),
                    RequestEvent::Rejected(rejection) => self.put(rejection.code().number()),
                    RequestEvent::Requested
                    | RequestEvent::Released { .. }
                    | RequestEvent::Cancelled => {}
                }
            }
        }
    }

    fn late(&mut self) {
        for (connection, event) in &self.world.late {
            self.connection(Some(*connection));
            match event {
                Event::Command { command, .. } => self.command(command),
                Event::Attach {
                    attach: Attach::Resume { session, generation, proved_in, .. },
                    ..
                } => {
                    self.put((session, generation, proved_in));
                }
                other => panic!("{other:?} does not come late"),
            }
        }
    }

    fn command(&mut self, command: &Command) {
        self.put(std::mem::discriminant(command));
        match command {
            Command::Request(request) => {
                self.put((request.id, request.converts));
                self.place(request.place);
                for claim in request.claims.as_slice() {
                    self.put((claim.name.as_str(), claim.mode));
                }
            }
            Command::Release { request, token } => {
                self.put(request);
                self.token(*token);
            }
            Command::Cancel { request } => self.put(request),
            Command::Reclaim(reclaim) => {
                self.put((reclaim.id, reclaim.sealed_in));
                self.token(reclaim.token);
            }
            Command::Account(account) => {
                self.put(&account.waiting);
                for Held { request, token } in &account.held {
                    self.put(request);
                    self.token(*token);
                }
            }
            Command::KeepAlive { sequence } => self.time(Timestamp::from_micros(*sequence)),
            Command::Goodbye => {}
            Command::Unparsed { .. } => panic!("everything is parsed"),
        }
    }
}
