//! The bytes of every message, as they were when protocol 1 was fixed, are in `golden.txt`. A test
//! that fails here has found a change that no client in the field would understand.
//!
//! A new message is added to `messages.rs`, then `UPDATE_GOLDENFILES=1 cargo test golden` appends
//! its bytes. The difference to the committed file must consist of added lines only.

use std::collections::BTreeSet;
use std::fmt::{Debug, Write as _};
use std::{env, fs};

use bytes::BytesMut;
use serde::de::DeserializeOwned;

use super::super::{
    Attach, ClientMessage, Extra, Happening, Hello, Mode, Query, Request, ServerMessage, Standing,
    Wait, decode, encode_frame,
};
use super::messages;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/wire/tests/golden.txt");

/// A message's name, what it says, and its bytes after the length field, 16 in a line.
fn entry<M: serde::Serialize + Debug>(name: &str, message: &M) -> String {
    let mut frame = BytesMut::new();
    encode_frame(message, &mut frame).unwrap();
    let mut text = format!("{name}\n  {}\n", messages::said(message));
    for line in frame[4..].chunks(16) {
        text.push_str("   ");
        for byte in line {
            write!(text, " {byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}

fn rendered() -> String {
    let client = messages::client();
    let server = messages::server();
    let client = client.iter().map(|(name, m)| entry(&format!("client: {name}"), m));
    let server = server.iter().map(|(name, m)| entry(&format!("server: {name}"), m));
    client.chain(server).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_message_has_the_bytes_it_always_had() {
    let now = rendered();
    if env::var_os("UPDATE_GOLDENFILES").is_some() {
        fs::write(GOLDEN, &now).unwrap();
    }
    let always = fs::read_to_string(GOLDEN).unwrap();
    let (mut now, mut always) = (now.split("\n\n"), always.split("\n\n"));
    loop {
        match (now.next(), always.next()) {
            (None, None) => break,
            (now, always) => assert!(
                now.map(str::trim_end) == always.map(str::trim_end),
                "the layout of a message changed\n\nit was\n{}\n\nand is\n{}\n",
                always.unwrap_or("(not there)"),
                now.unwrap_or("(gone)"),
            ),
        }
    }
}

#[test]
fn every_golden_entry_decodes_to_its_message() {
    fn check<M: serde::Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, message: &M) {
        let mut frame = BytesMut::new();
        encode_frame(message, &mut frame).unwrap();
        assert_eq!(decode::<M>(&frame[4..]).unwrap(), *message, "{name}");
    }
    for (name, message) in messages::client() {
        check(name, &message);
    }
    for (name, message) in messages::server() {
        check(name, &message);
    }
}

/// The number of a variant, as the first four bytes of its encoding say it.
fn index<M: serde::Serialize>(message: &M) -> u32 {
    let mut frame = BytesMut::new();
    encode_frame(message, &mut frame).unwrap();
    u32::from_le_bytes(*frame[4..].first_chunk().unwrap())
}

/// That `seen` are all variants of `M`: counted from 0, and the next is not known.
fn all_of<M: DeserializeOwned + Debug>(seen: &BTreeSet<u32>) {
    let count = u32::try_from(seen.len()).unwrap();
    assert!(seen.iter().copied().eq(0..count), "{} has gaps: {seen:?}", type_name::<M>());
    let error = decode::<M>(&count.to_le_bytes()).unwrap_err().to_string();
    assert!(
        error.contains(&format!("expected variant index 0 <= i < {count}")),
        "a variant of {} is not in the golden file: {error}",
        type_name::<M>()
    );
}

fn type_name<M>() -> &'static str {
    std::any::type_name::<M>()
}

#[test]
fn every_variant_of_every_enum_is_in_the_golden_file() {
    let client = messages::client();
    let server = messages::server();
    all_of::<ClientMessage>(&client.iter().map(|(_, message)| index(message)).collect());
    all_of::<ServerMessage>(&server.iter().map(|(_, message)| index(message)).collect());

    let [mut attaches, mut waits, mut modes, mut queries, mut all_extras] =
        [const { BTreeSet::new() }; 5];
    for (_, message) in &client {
        match message {
            ClientMessage::Hello(Hello { attach, .. }) => {
                attaches.insert(index(attach));
            }
            ClientMessage::Request(Request { wait, claims, .. }) => {
                waits.insert(index(wait));
                modes.extend(claims.iter().map(|claim| index(&claim.mode)));
            }
            ClientMessage::RequestWith { extras, .. }
            | ClientMessage::ReclaimWith { extras, .. } => {
                all_extras.extend(extras.iter().map(index));
            }
            ClientMessage::Inspect { query, .. } => {
                queries.insert(index(query));
            }
            // All others have no enum within.
            _ => {}
        }
    }
    let standings = server.iter().filter_map(|(_, message)| match message {
        ServerMessage::Welcome { standing, .. } => Some(index(standing)),
        _ => None,
    });
    let happenings = server.iter().filter_map(|(_, message)| match message {
        ServerMessage::Event { what, .. } => Some(index(what)),
        _ => None,
    });
    all_of::<Standing>(&standings.collect());
    all_of::<Happening>(&happenings.collect());
    all_of::<Attach>(&attaches);
    all_of::<Wait>(&waits);
    all_of::<Mode>(&modes);
    all_of::<Query>(&queries);
    all_of::<Extra>(&all_extras);
}
