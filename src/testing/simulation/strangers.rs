//! The clients of the Redis dialect in the world: who of them is told what, when. They have dice of their own, so a
//! world without them is what it would be if there were none.

use std::sync::Arc;
use std::time::Duration;

use super::Event;
use super::referee::Referee;
use super::stranger::{Link, Stranger};
use super::time::Heap;
use super::world::World;
use crate::redis::{Flushing, Scripts, Talk, Words};
use crate::server::{Delivery, Desk, More, Promise, Way};
use crate::testing::fuzz::Random;
use crate::types::ConnectionId;

/// Connections of these clients, and the ways to them, have numbers from here on.
const FIRST: usize = 1 << 40;
/// What their wall clock shows, for nothing here is said by it.
const WALL: Duration = Duration::from_secs(1_800_000_000);
/// The longest from one turn of one of them to the next.
const TURN_MAX: u64 = 300_000;

/// All of them.
pub(super) struct Strangers {
    dice: Random,
    all: Vec<Stranger>,
    links: Vec<Link>,
    /// The scripts that they have said.
    scripts: Arc<Scripts>,
}

impl Strangers {
    /// Those of a world: in every third there are some.
    pub(super) fn of(seed: u64, heap: &mut Heap<Event>) -> Self {
        let mut dice = Random::new(seed ^ 0x7265_6469_735f_6c6b);
        let count = if seed.is_multiple_of(3) { 1 + dice.below(3) } else { 0 };
        let all: Vec<Stranger> = (0..count).map(|at| Stranger::new(at, &mut dice)).collect();
        for stranger in 0..count {
            heap.push(1_000_000 + dice.next() % TURN_MAX, Event::StrangerTurn { stranger });
        }
        Self { dice, all, links: Vec::new(), scripts: Arc::default() }
    }

    /// All that anybody of them believes of a lock.
    pub(super) fn believes(
        &self,
        at: u64,
        lock: usize,
    ) -> impl Iterator<Item = crate::types::Mode> {
        self.all.iter().filter_map(move |stranger| stranger.believes(at, lock))
    }

    /// What is held with this token was taken away; none: whatever is held, is forgotten.
    pub(super) fn lose(&mut self, at: u64, token: Option<u64>, referee: &mut Referee) {
        for stranger in &mut self.all {
            stranger.lose(at, token, referee);
        }
    }

    /// Their connections end with the run.
    pub(super) fn cut_all(&mut self, heap: &mut Heap<Event>) {
        for (number, link) in self.links.iter_mut().enumerate() {
            link.cut(number, heap, &mut self.dice);
        }
    }

    /// Nothing arrives any more of what the run before has said.
    pub(super) fn forget(&mut self) {
        for link in &mut self.links {
            link.down.lose_all();
        }
        let scripts = Arc::default();
        self.scripts = scripts;
    }

    /// Whether a way leads to one of them.
    pub(super) fn has(way: Way) -> bool {
        way.0 >= FIRST && way.0 != usize::MAX
    }
}

impl World {
    /// Something happens to one of them.
    pub(super) fn happen_to_stranger(&mut self, event: Event) {
        match event {
            Event::StrangerTurn { stranger } => self.take_strangers_turn(stranger),
            Event::StrangerDown { link, lost, bytes } => self.tell_stranger(link, lost, bytes),
            other => unreachable!("{other:?} is for somebody else"),
        }
    }

    fn take_strangers_turn(&mut self, number: usize) {
        let now = self.now();
        let next = now + 1 + self.strangers.dice.next() % TURN_MAX;
        let stranger = &mut self.strangers.all[number];
        stranger.wake(now, &mut self.referee);
        let (waits, is_too_long) = stranger.waits(now);
        if is_too_long || stranger.link.is_some() && self.strangers.dice.once_in(40) {
            self.cut_stranger(number);
        } else if !waits {
            self.have_stranger_act(number);
        }
        let stranger = &self.strangers.all[number];
        if !(self.is_peace && stranger.is_idle()) {
            self.heap.push(next, Event::StrangerTurn { stranger: number });
        } else if stranger.link.is_some() {
            self.cut_stranger(number);
        }
    }

    fn cut_stranger(&mut self, number: usize) {
        let now = self.now();
        let stranger = &mut self.strangers.all[number];
        if let Some(link) = stranger.link {
            self.strangers.links[link].cut(link, &mut self.heap, &mut self.strangers.dice);
        }
        self.strangers.all[number].hang_up(now, &mut self.referee);
    }

    fn have_stranger_act(&mut self, number: usize) {
        let (now, run) = (self.now(), self.site.run);
        let dice = &mut self.strangers.dice;
        let link = match self.strangers.all[number].link {
            Some(link) => link,
            None if self.site.is_up() => {
                self.strangers.links.push(Link::new(number, run, dice));
                self.strangers.links.len() - 1
            }
            None => return,
        };
        let stranger = &mut self.strangers.all[number];
        stranger.link = Some(link);
        let said = stranger.act(now, self.is_peace, dice, &mut self.referee);
        if let Some(words) = said {
            let link_of = &mut self.strangers.links[link];
            let (at, lost) = (now + link_of.delay(dice), link_of.up.lost);
            let event = Event::StrangerUp { link, lost, words: Some(words) };
            link_of.up.send(&mut self.heap, at, event);
        }
    }

    /// What one of them has said comes to the coordinator; none: that it has gone.
    pub(super) fn hear_stranger(&mut self, number: usize, lost: u32, words: Option<Vec<Words>>) {
        let link = &mut self.strangers.links[number];
        if link.run != self.site.run || lost != link.up.lost {
            return;
        }
        let connection = ConnectionId::new((FIRST + number) as u64);
        let is_ruled = self.site.is_ruled;
        let is_new = link.talk.is_none();
        let scripts = Arc::clone(&self.strangers.scripts);
        let talk = link.talk.get_or_insert_with(|| {
            let mut talk = Talk::unproven(connection.number(), scripts, Flushing::Refused);
            talk.trust();
            talk
        });
        let said: Option<Vec<_>> =
            words.map(|words| words.iter().map(|words| talk.hear(words, WALL)).collect());
        if is_new {
            self.with_desk(|desk, _| desk.greet_redis(connection, Way(FIRST + number)));
            if is_ruled {
                // Who it is has to be known before anything is understood.
                self.with_desk(|desk, local| desk.read_redis(connection, Vec::new(), local));
            }
        }
        match said {
            Some(said) => self.with_desk(|desk, local| desk.read_redis(connection, said, local)),
            None => self.with_desk(|desk, local| Desk::disconnect(desk, connection, local)),
        }
    }

    /// The coordinator has something for one of them.
    pub(super) fn answer_stranger(&mut self, delivery: Delivery) {
        let Delivery { way: Way(way), deliver, more } = delivery;
        let number = way - FIRST;
        let (link, dice) = (&mut self.strangers.links[number], &mut self.strangers.dice);
        let is_void = deliver.promise == Promise::Void;
        if !is_void && !deliver.frames.is_empty() {
            let (at, lost) = (self.heap.now() + link.delay(dice), link.down.lost);
            let bytes = Some(deliver.frames.to_vec());
            let event = Event::StrangerDown { link: number, lost, bytes };
            link.down.send(&mut self.heap, at, event);
        }
        if is_void || deliver.is_last || more == More::Never {
            link.cut(number, &mut self.heap, dice);
        }
    }

    fn tell_stranger(&mut self, link: usize, lost: u32, bytes: Option<Vec<u8>>) {
        let now = self.now();
        let Link { stranger, ref down, .. } = self.strangers.links[link];
        if lost != down.lost || self.strangers.all[stranger].link != Some(link) {
            return;
        }
        let Some(bytes) = bytes else {
            return self.strangers.all[stranger].hang_up(now, &mut self.referee);
        };
        let granted = self.strangers.all[stranger].hear(now, &bytes, &mut self.referee);
        if let Some(lock) = granted {
            self.assert_compatible(lock);
        }
    }
}
