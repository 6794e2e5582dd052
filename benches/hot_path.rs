//! The way of a pair through the pure rooms, for counting instructions: `scripts/bench-check`.
//!
//! ```text
//! hot_path engine N    events ─▶ LockTable ─▶ effects
//! hot_path wire N      bytes ─▶ ServerCodec ─▶ events ─▶ LockTable ─▶ effects ─▶ bytes
//! ```
//!
//! Everything is made beforehand; only what happens in [`measured_engine`] and [`measured_wire`]
//! counts, which callgrind switches itself on and off by their names. Time is not measured here.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout, reason = "a bench is no library")]

mod common;

use std::process::ExitCode;
use std::time::Duration;

use bytes::BytesMut;
use common::{CHUNK, World};
use coordinator::engine::{Command, Effect, Event, Request, RequestEvent};
use coordinator::types::{self, Claims, FencingToken, LockName, Note, OwnerId, RequestId, Seal};
use coordinator::wire::{
    self, ClientMessage, Mode, RawClaim, ServerCodec, ServerMessage, encode_frame,
};
use tokio_util::codec::Decoder;

/// Pairs that are not measured, so that all memory that is taken once is taken.
const WARM_UP: u64 = 1_000;

/// Has the table handle all events.
#[inline(never)]
fn measured_engine(world: &mut World, events: Vec<Event>) {
    for event in events {
        world.handle(&event);
    }
}

/// Has the table handle all messages of a buffer, and puts the answers into another.
#[inline(never)]
fn measured_wire(
    world: &mut World,
    codec: &mut ServerCodec,
    read: &mut BytesMut,
    out: &mut BytesMut,
) {
    while let Some(messages) = codec.decode(read).expect("frames") {
        for message in messages {
            let connection = common::connection(0);
            let event = Event::Command { connection, command: command(message) };
            world.handle_and(&event, |effect| answer(effect, out));
        }
    }
}

/// What the server's parser does.
fn command(message: ClientMessage) -> Command {
    match message {
        ClientMessage::Request(wire::Request {
            request,
            owner,
            lock_delay_ms,
            note,
            claims,
            ..
        }) => {
            let claims = claims.into_iter().map(|claim| types::Claim {
                name: LockName::new(claim.name).expect("a name"),
                mode: Mode::Exclusive,
            });
            Command::Request(Request {
                owner: OwnerId::new(owner.number()),
                lock_delay: Duration::from_millis(lock_delay_ms.into()),
                note: Note::new(note).expect("a note"),
                ..Request::new(
                    RequestId::new(request.number()),
                    Claims::new(claims).expect("a claim"),
                )
            })
        }
        ClientMessage::Release { request, token } => Command::Release {
            request: RequestId::new(request.number()),
            token: FencingToken::new(token.number()),
        },
        other => unreachable!("{other:?} is not among what is measured"),
    }
}

/// What the server's renderer does, but for the seal.
fn answer(effect: &Effect, out: &mut BytesMut) {
    let Effect::Tell { request, event, .. } = effect else { return };
    let request = *request;
    let message = match event {
        RequestEvent::Granted { token } => {
            ServerMessage::Grant { request, token: *token, seal: Seal::new(0) }
        }
        RequestEvent::Released { .. } => ServerMessage::Released { request },
        other => unreachable!("{other:?} is not among what is measured"),
    };
    encode_frame(&message, out).expect("a frame");
}

fn engine(pairs: u64) {
    let mut world = World::new(1);
    for event in world.pairs(WARM_UP) {
        world.handle(&event);
    }
    for _ in 0..pairs / CHUNK {
        let events = world.pairs(CHUNK);
        measured_engine(&mut world, events);
    }
    world.check();
}

fn wire(pairs: u64) {
    let mut world = World::new(1);
    let mut codec = ServerCodec::before_hello();
    codec.hello_accepted();
    let (mut read, mut out) = (BytesMut::new(), BytesMut::new());
    for event in world.pairs(WARM_UP) {
        world.handle(&event);
    }
    for _ in 0..pairs / CHUNK {
        for pair in 0..CHUNK {
            let (request, token) = world.foresee_pair();
            put_pair(pair, request, token, &mut read);
        }
        measured_wire(&mut world, &mut codec, &mut read, &mut out);
        out.clear();
    }
    world.check();
}

fn put_pair(pair: u64, request: u64, token: u64, buffer: &mut BytesMut) {
    let asks = ClientMessage::Request(wire::Request::new(
        RequestId::new(request),
        [RawClaim { name: format!("bench-{pair:013}").into(), mode: Mode::Exclusive }],
    ));
    encode_frame(&asks, buffer).expect("a frame");
    encode_frame(
        &ClientMessage::Release {
            request: RequestId::new(request),
            token: FencingToken::new(token),
        },
        buffer,
    )
    .expect("a frame");
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (what, pairs) = match words[..] {
        [what, pairs] => (what, pairs.parse().unwrap_or(0)),
        _ => ("", 0),
    };
    match what {
        "engine" if pairs > 0 => engine(pairs),
        "wire" if pairs > 0 => wire(pairs),
        _ => {
            println!("usage: hot_path engine|wire PAIRS; scripts/bench-check counts instructions");
            // As a bench among others there is nothing to do.
            return if words.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) };
        }
    }
    ExitCode::SUCCESS
}
