//! The possible next steps of a world.

use super::client::{Client, Line, Stand};
use super::scenario::{Budget, name};
use super::world::World;
use crate::types::RequestId;

/// No more words than these are on their way to a client at a time, or from one that is slow.
const ON_THE_WAY_MAX: usize = 3;

/// Something that can happen next. Clients and requests are meant by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// A client opens a session.
    Open(u8),
    /// A client asks for one of the shapes.
    Ask(u8, u8),
    /// A client gives a hold back.
    Release(u8, u8),
    /// A client gives a request up.
    Cancel(u8, u8),
    /// A client says that it is there.
    KeepAlive(u8),
    /// A client is done.
    Goodbye(u8),
    /// The next word comes to a client.
    Deliver(u8),
    /// Nothing comes through any more, and nobody hears of that.
    Break(u8),
    /// From now on, what the client says comes late.
    Slow(u8),
    /// The server hears that the connection is broken.
    Disconnect(u8),
    /// The client makes another connection for its session.
    Resume(u8),
    /// The same, but its Hello comes late.
    ResumeSlow(u8),
    /// Something comes that was late.
    LateComes,
    /// Time passes.
    Tick,
    /// An operator takes a lock away.
    Revoke(u8),
    /// What a client waits for is not allowed any more.
    Withdraw(u8, u8),
    /// The oldest record is on disk.
    Recorded,
    /// The coordinator crashes, and begins anew.
    Crash,
    /// The coordinator crashes, and goes on with a replay of all that it was told.
    Replay,
    /// The coordinator stops in order, and begins anew.
    Stop,
}

impl World {
    /// All that can happen next.
    pub(super) fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        for (which, client) in self.clients.iter().enumerate() {
            self.moves_of(u8::try_from(which).unwrap(), client, &mut moves);
        }
        let Budget { ticks, crashes, replays, stops, revokes, .. } = self.left;
        if !self.late.is_empty() {
            moves.push(Move::LateComes);
        }
        moves.extend((ticks > 0).then_some(Move::Tick));
        moves.extend((!self.unrecorded.is_empty()).then_some(Move::Recorded));
        moves.extend((crashes > 0).then_some(Move::Crash));
        moves.extend((replays > 0).then_some(Move::Replay));
        moves.extend((stops > 0).then_some(Move::Stop));
        if revokes > 0 {
            let is_held = |lock: &u8| {
                self.table.lock(name((*lock).into()).as_str()).is_some_and(|l| l.holder_count() > 0)
            };
            moves.extend((0..2).filter(is_held).map(Move::Revoke));
        }
        moves
    }

    /// Whether a request of a client waits, as the table has it.
    fn waits(&self, client: &Client, request: RequestId) -> bool {
        let session = client.session.map(|(session, _)| session);
        session.is_some_and(|session| self.table.waiting_of(session).any(|id| id == request))
    }

    fn moves_of(&self, which: u8, client: &Client, moves: &mut Vec<Move>) {
        let Budget { keep_alives, breaks, slow, goodbyes, .. } = self.left;
        let quiet = client.down.len() < ON_THE_WAY_MAX && self.late.len() < ON_THE_WAY_MAX;
        if client.session.is_none() && client.connection.is_none() {
            moves.push(Move::Open(which));
        }
        let has_asked = client.next > self.scenario.asks;
        if client.session.is_some() && !has_asked && quiet {
            for (shape, wanted) in self.scenario.shapes.iter().enumerate() {
                let can = wanted.converts.is_none_or(|other| client.convertible(other).is_some());
                moves.extend(can.then_some(Move::Ask(which, u8::try_from(shape).unwrap())));
            }
        }
        for (place, ask) in client.asks.iter().enumerate().filter(|_| quiet) {
            let place = u8::try_from(place).unwrap();
            match ask.stand {
                Stand::Waiting | Stand::Unconfirmed(..) => {
                    moves.push(Move::Cancel(which, place));
                    if self.left.withdrawals > 0 && self.waits(client, ask.id) {
                        moves.push(Move::Withdraw(which, place));
                    }
                }
                Stand::Held { .. } => moves.push(Move::Release(which, place)),
                Stand::Releasing { .. } | Stand::Cancelling => {}
            }
        }
        let is_there = client.is_welcome && client.line != Line::Dead;
        if is_there && quiet {
            let is_useful = keep_alives > 0 && client.confirmed < self.now;
            moves.extend(is_useful.then_some(Move::KeepAlive(which)));
            moves.extend((goodbyes > 0).then_some(Move::Goodbye(which)));
        }
        if client.line != Line::Dead {
            moves.extend((!client.down.is_empty()).then_some(Move::Deliver(which)));
            moves.extend((breaks > 0).then_some(Move::Break(which)));
        }
        if client.line == Line::Good && slow > 0 && self.late.is_empty() {
            moves.push(Move::Slow(which));
        }
        if client.line == Line::Dead {
            if client.session.is_some() {
                moves.push(Move::Resume(which));
                moves.extend((slow > 0 && self.late.is_empty()).then_some(Move::ResumeSlow(which)));
            }
            let attached = |connection| self.table.sessions.of_connection(connection).is_some();
            let unheard = client.connection.is_some_and(attached);
            moves.extend(unheard.then_some(Move::Disconnect(which)));
        }
    }
}
