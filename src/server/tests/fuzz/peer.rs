//! A peer of a fuzzed conversation: it sends bytes, and makes sense of what it hears.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::server::net::place::Place;
use crate::server::net::session::Session;
use crate::server::secure::Certified;
use crate::server::testing::Bench;
use crate::testing::fuzz::Random;
use crate::types::{FencingToken, Generation, RequestId, Seal, SealedTicket, Secret, SessionId};
use crate::wire::{self, Attach, ClientMessage, ServerMessage, decode, encode_frame};

/// What a stream keeps for a side that does not read.
const SOCKET_BYTES: usize = 16 * 1024;
/// After so long whoever does not read on is given up. Time is paused, so nobody waits.
const PATIENCE: Duration = Duration::from_secs(30);

/// What peers were told, and can say again.
#[derive(Default)]
pub(super) struct Known {
    /// The token and the seal of each granted request; peers choose the same ids, the latest counts.
    grants: BTreeMap<RequestId, (FencingToken, Seal)>,
    /// The latest ticket of each request that waits.
    tickets: BTreeMap<RequestId, SealedTicket>,
    /// The latest session, its secret, and the generation of its next connection.
    session: Option<(SessionId, Secret, Generation)>,
}

impl Known {
    fn learn(&mut self, message: &ServerMessage) {
        match message {
            ServerMessage::Grant { request, token, seal } => {
                self.grants.insert(*request, (*token, *seal));
            }
            ServerMessage::Queued { request, ticket, .. } => {
                self.tickets.insert(*request, *ticket);
            }
            ServerMessage::Welcome { session, secret, generation, .. }
                if *session != SessionId(0) =>
            {
                self.session = Some((*session, *secret, generation.next()));
            }
            _ => {}
        }
    }

    /// `bytes`, where what they say of grants and sessions is mostly true.
    pub(super) fn filled_in(&self, bytes: &[u8], random: &mut Random) -> BytesMut {
        let (mut rest, mut filled) = (bytes, BytesMut::new());
        while let Some(field) = rest.first_chunk::<4>() {
            let end = 4_usize.saturating_add(u32::from_le_bytes(*field) as usize);
            let Some(frame) = rest.get(..end) else { break };
            match decode::<ClientMessage>(&frame[4..]) {
                Ok(mut message) if !random.once_in(8) => {
                    self.correct(&mut message, random);
                    encode_frame(&message, &mut filled).unwrap();
                }
                _ => filled.extend_from_slice(frame),
            }
            rest = &rest[end..];
        }
        filled.extend_from_slice(rest);
        filled
    }

    fn correct(&self, message: &mut ClientMessage, random: &mut Random) {
        let grants: Vec<_> = self.grants.iter().collect();
        match message {
            ClientMessage::Release { request, token } => {
                if let Some((known, _)) = self.grants.get(request) {
                    *token = *known;
                }
            }
            ClientMessage::ReclaimWith { reclaim, .. } => {
                if let Some(known) = self.grants.get(&reclaim.request) {
                    (reclaim.token, reclaim.seal) = *known;
                }
            }
            ClientMessage::Reclaim(wire::Reclaim { request, token, seal, .. }) => {
                if let Some(known) = self.grants.get(request) {
                    (*token, *seal) = *known;
                }
            }
            ClientMessage::Request(wire::Request { request, ticket: Some(ticket), .. }) => {
                if let Some(known) = self.tickets.get(request) {
                    *ticket = *known;
                }
            }
            ClientMessage::Account(wire::Account { held, .. }) => {
                for held in held {
                    if let Some((known, _)) = self.grants.get(&held.request) {
                        held.token = *known;
                    }
                }
            }
            ClientMessage::Revoke { token, .. } if !grants.is_empty() => {
                *token = random.pick(&grants).1.0;
            }
            ClientMessage::Hello(wire::Hello {
                attach: Attach::Resume { session, secret, generation },
                ..
            }) => {
                if let Some(known) = self.session {
                    (*session, *secret, *generation) = known;
                }
            }
            _ => {}
        }
    }
}

/// How a conversation stands for who listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The other side has closed.
    Everything,
    /// It has not.
    StillOpen,
}

/// What the task that reads shares with its peer.
#[derive(Default)]
struct Ears {
    /// Whether nothing is read.
    shut: Cell<bool>,
    /// Whether the other side has closed.
    done: Cell<bool>,
    /// The greatest token of a grant.
    greatest: Cell<u64>,
    /// Rings when either of the first two changes.
    changed: Notify,
}

/// One connection, from outside.
pub(super) struct Peer {
    /// Where it speaks; none if nobody reads that.
    mouth: Option<WriteHalf<DuplexStream>>,
    /// Where it listens.
    ears: Rc<Ears>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Both halves have to go for the other side to see the end.
        self.ears.done.set(true);
        self.ears.changed.notify_waiters();
    }
}

impl Peer {
    pub(super) fn connect(bench: &mut Bench, known: &Rc<RefCell<Known>>) -> Self {
        let (ours, theirs) = duplex(SOCKET_BYTES);
        let place = Place::of_many(&bench.counters);
        let connection = bench.next_connection();
        Session::new(theirs, connection, None, Certified::default(), place, bench.shared()).begin();
        let (reading, mouth) = split(ours);
        let ears = Rc::<Ears>::default();
        spawn_local(listen(reading, Rc::clone(&ears), Rc::clone(known)));
        Self { mouth: Some(mouth), ears }
    }

    /// Says it, unless the other side has closed or does not read.
    pub(super) async fn say(&mut self, bytes: &[u8]) {
        let Some(mouth) = &mut self.mouth else { return };
        if !matches!(timeout(PATIENCE, mouth.write_all(bytes)).await, Ok(Ok(()))) {
            self.mouth = None;
        }
    }

    /// Reads no more, or again.
    pub(super) fn change_ears(&self) {
        self.ears.shut.set(!self.ears.shut.get());
        self.ears.changed.notify_waiters();
    }

    /// Says no more, and listens to the end.
    pub(super) async fn shut_and_hear(&mut self) -> Heard {
        self.ears.shut.set(false);
        self.ears.changed.notify_waiters();
        if let Some(mouth) = &mut self.mouth {
            let _closed_already = mouth.shutdown().await;
        }
        let ears = Rc::clone(&self.ears);
        let end = async {
            loop {
                let changed = ears.changed.notified();
                if ears.done.get() {
                    break;
                }
                changed.await;
            }
        };
        match timeout(PATIENCE, end).await {
            Ok(()) => Heard::Everything,
            Err(_) => Heard::StillOpen,
        }
    }

    /// The greatest token that it was told.
    pub(super) fn greatest_token(&self) -> u64 {
        self.ears.greatest.get()
    }
}

/// Hears messages until the other side closes, and says how they have to be.
async fn listen(mut reading: ReadHalf<DuplexStream>, ears: Rc<Ears>, known: Rc<RefCell<Known>>) {
    let (mut heard, mut is_first) = (BytesMut::new(), true);
    loop {
        let changed = ears.changed.notified();
        if ears.done.get() {
            return;
        }
        if ears.shut.get() {
            changed.await;
            continue;
        }
        let read = tokio::select! {
            read = reading.read_buf(&mut heard) => read.unwrap_or(0),
            () = changed => continue,
        };
        let in_our_words = is_first && (heard.starts_with(b"HTTP") || heard.starts_with(&[0x15]));
        if !in_our_words {
            make_sense(&mut heard, &mut is_first, &ears, &known);
        }
        if read == 0 {
            ears.done.set(true);
            ears.changed.notify_waiters();
            return;
        }
    }
}

fn make_sense(heard: &mut BytesMut, is_first: &mut bool, ears: &Ears, known: &RefCell<Known>) {
    while let Some(field) = heard.first_chunk::<4>() {
        let end = 4 + u32::from_le_bytes(*field) as usize;
        if heard.len() < end {
            return;
        }
        let frame = heard.split_to(end);
        let message: ServerMessage = decode(&frame[4..]).unwrap();
        if *is_first {
            let begins =
                matches!(message, ServerMessage::Welcome { .. } | ServerMessage::Goodbye { .. });
            assert!(begins, "the first message is {message:?}");
            *is_first = false;
        }
        if let ServerMessage::Grant { token, .. } = message {
            ears.greatest.set(ears.greatest.get().max(token.number()));
        }
        known.borrow_mut().learn(&message);
    }
}
