//! Connections: each two ways, on which what is sent arrives in order, late, or not at all.

use super::Event;
use super::time::Heap;
use crate::testing::fuzz::Random;
use crate::types::ConnectionId;

/// One way of a connection.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// When what was sent last arrives: nothing that is sent later arrives before.
    last: u64,
    /// How often all that was under way was lost. What was sent before the latest time never arrives.
    pub(super) lost: u32,
    /// Nothing more is sent.
    is_shut: bool,
}

/// A connection. What is under way may arrive though one end is gone.
#[derive(Debug)]
pub(super) struct Wire {
    /// Whose machine's.
    pub(super) machine: usize,
    /// Which client's.
    pub(super) name: u64,
    /// Which run of the coordinator it leads to.
    pub(super) run: u64,
    /// From the client.
    pub(super) up: Way,
    /// To the client.
    pub(super) down: Way,
    /// The longest that something is on its way, at least.
    delay_max: u64,
    /// Whether its end was sent after all that was to be sent.
    pub(super) is_cut: bool,
    /// Whether the coordinator knows of it.
    pub(super) is_known: bool,
}

impl Wire {
    /// A connection that is made now. Most are fast; some are slow, and what is sent over them still
    /// arrives when the next is long there.
    pub(super) fn new(machine: usize, name: u64, run: u64, dice: &mut Random) -> Self {
        let delay_max = match dice.below(16) {
            0..11 => 1_000,
            11..14 => 200_000,
            _ => 1_500_000,
        };
        let (up, down) = (Way::default(), Way::default());
        Self { machine, name, run, up, down, delay_max, is_cut: false, is_known: false }
    }

    /// How long something takes while the network is as slow as this.
    pub(super) fn delay(&self, delay_max: u64, dice: &mut Random) -> u64 {
        1 + dice.next() % self.delay_max.max(delay_max)
    }
}

impl Way {
    /// Sends something that would take until `at`.
    pub(super) fn send(&mut self, heap: &mut Heap<Event>, at: u64, event: Event) {
        if !self.is_shut {
            self.last = self.last.max(at);
            heap.push(self.last, event);
        }
    }

    /// Loses all that is under way.
    pub(super) fn lose_all(&mut self) {
        self.lost += 1;
    }

    /// Nothing more is sent.
    pub(super) fn shut(&mut self) {
        self.is_shut = true;
    }
}

/// The number of the connection over a wire.
pub(super) fn connection(wire: usize) -> ConnectionId {
    ConnectionId::new(wire as u64 + 1)
}
