//! What is read at a glance is what bincode reads.

use bytes::BytesMut;
use proptest::prelude::*;

use super::super::usual::Incoming;
use super::super::{ClientMessage, Mode, RawClaim, Request, Wait, decode, encode_frame};
use super::round_trip::client_message;
use crate::types::{FencingToken, RequestId};

/// The bytes of `message` after its length field; none if it does not fit a frame.
fn payload(message: &ClientMessage) -> Option<BytesMut> {
    let mut frame = BytesMut::new();
    encode_frame(message, &mut frame).ok()?;
    Some(frame.split_off(4))
}

/// That a glance at `bytes` sees what bincode reads, or leaves it to that.
fn assert_agreed(bytes: &[u8]) {
    if let Some(seen) = ClientMessage::usual(bytes) {
        assert_eq!(decode::<ClientMessage>(bytes).unwrap(), seen);
    }
}

fn usual() -> Vec<ClientMessage> {
    let mut all =
        vec![ClientMessage::Release { request: RequestId(7), token: FencingToken(u64::MAX) }];
    for (wait, mode) in [
        (Wait::Forever, Mode::Exclusive),
        (Wait::millis(30_000), Mode::Shared),
        (Wait::Never, Mode::Exclusive),
    ] {
        let claim = RawClaim { name: "bench/0/17".into(), mode };
        let request = Request { wait, ..Request::new(RequestId(1 << 40), [claim]) };
        all.push(ClientMessage::Request(Request { progress: true, ..request.clone() }));
        all.push(ClientMessage::Request(request));
    }
    all
}

#[test]
fn a_request_for_one_lock_and_a_release_are_read_at_a_glance() {
    for message in usual() {
        assert_eq!(ClientMessage::usual(&payload(&message).unwrap()), Some(message));
    }
}

#[test]
fn a_glance_sees_what_bincode_reads_whatever_byte_is_another() {
    for message in usual() {
        let mut bytes = payload(&message).unwrap().to_vec();
        for at in 0..bytes.len() {
            assert_agreed(&bytes[..at]);
            let before = bytes[at];
            for other in 0..=u8::MAX {
                bytes[at] = other;
                assert_agreed(&bytes);
            }
            bytes[at] = before;
        }
        bytes.push(0);
        assert_agreed(&bytes);
    }
}

proptest! {
    #[test]
    fn a_glance_sees_what_bincode_reads(message in client_message(), at: usize, other: u8) {
        let Some(mut payload) = payload(&message) else { return Ok(()) };
        assert_agreed(&payload);
        let at = at % payload.len();
        payload[at] = other;
        assert_agreed(&payload);
    }
}
