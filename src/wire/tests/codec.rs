//! Messages in a stream: however it is cut, and wherever it breaks.

use std::mem;

use bytes::{BufMut, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio_util::codec::{Decoder, Encoder};

use super::super::codec::BATCH_LEN_MAX;
use super::super::{
    ClientCodec, ClientMessage, CodecError, FRAME_LEN_MAX, FormatError, HELLO_LEN_MAX, ServerCodec,
    ServerMessage, encode_frame,
};
use super::messages;
use super::round_trip::{client_message, server_message};
use crate::types::{FencingToken, RequestId};

const CANCEL: ClientMessage = ClientMessage::Cancel { request: RequestId(7) };

/// A server's codec that has seen a Hello.
fn after_hello() -> ServerCodec {
    let mut codec = ServerCodec::before_hello();
    codec.hello_accepted();
    codec
}

fn frames<M: serde::Serialize>(messages: &[M]) -> BytesMut {
    let mut buffer = BytesMut::new();
    for message in messages {
        encode_frame(message, &mut buffer).unwrap();
    }
    buffer
}

/// A frame of so many zero bytes.
fn zeros(len: usize) -> BytesMut {
    let mut buffer = BytesMut::new();
    buffer.put_u32_le(len.try_into().unwrap());
    buffer.put_bytes(0, len);
    buffer
}

/// A message whose frame has exactly so many bytes after the length field.
fn message_of(len: usize) -> ClientMessage {
    let message = |name| ClientMessage::Revoke { query_id: 1, name, token: FencingToken(1) };
    let rest = frames(&[message(String::new())]).len() - 4;
    message("x".repeat(len - rest))
}

/// What the codec says to a stream that arrives in these pieces and then ends.
fn read<C: Decoder<Item = Vec<M>, Error = CodecError>, M>(
    codec: &mut C,
    pieces: impl IntoIterator<Item = BytesMut>,
) -> (Vec<M>, Option<CodecError>) {
    let (mut buffer, mut messages) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(&piece);
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(batch)) => messages.extend(batch),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    loop {
        match codec.decode_eof(&mut buffer) {
            Ok(Some(batch)) => messages.extend(batch),
            Ok(None) => return (messages, None),
            Err(error) => return (messages, Some(error)),
        }
    }
}

/// `stream` in pieces of these lengths, over and over; of one byte if there are none.
fn cut(mut stream: BytesMut, lengths: &[usize]) -> Vec<BytesMut> {
    let mut lengths = lengths.iter().copied().chain([1]).cycle();
    let mut pieces = Vec::new();
    while !stream.is_empty() {
        let len = lengths.next().unwrap().min(stream.len());
        pieces.push(stream.split_to(len));
    }
    pieces
}

#[test]
fn a_stream_cut_in_two_anywhere_gives_the_same_messages() {
    let messages: Vec<_> = messages::client().into_iter().map(|(_, message)| message).collect();
    let stream = frames(&messages);
    for at in 0..=stream.len() {
        let mut head = stream.clone();
        let tail = head.split_off(at);
        let (read, error) = read(&mut after_hello(), [head, tail]);
        assert!(error.is_none(), "cut at {at}: {error:?}");
        assert_eq!(read, messages, "cut at {at}");
    }
}

#[test]
fn a_stream_that_ends_anywhere_gives_what_was_complete_and_says_whether_it_was_cut() {
    let messages: Vec<_> = messages::server().into_iter().map(|(_, message)| message).collect();
    let stream = frames(&messages);
    let ends: Vec<_> = (0..=messages.len()).map(|n| frames(&messages[..n]).len()).collect();
    for at in 0..=stream.len() {
        let (read, error) = read(&mut ClientCodec::new(), [stream[..at].into()]);
        let complete = ends.iter().rposition(|end| *end <= at).unwrap();
        assert_eq!(read, messages[..complete]);
        match error {
            None => assert!(ends.contains(&at), "the end at {at} was taken for orderly"),
            Some(CodecError::Truncated) => assert!(!ends.contains(&at), "nothing is cut at {at}"),
            Some(error) => panic!("at {at}: {error}"),
        }
    }
}

#[test]
fn a_server_reads_64_kib_and_not_a_byte_more() {
    let longest = message_of(FRAME_LEN_MAX);
    let (read_back, error) = read(&mut after_hello(), [frames(std::slice::from_ref(&longest))]);
    assert_eq!(read_back, [longest]);
    assert!(error.is_none());

    // The length field is enough to refuse: what it claims is not waited for.
    let (read_back, error) = read(&mut after_hello(), [zeros(FRAME_LEN_MAX + 1)[..4].into()]);
    assert!(read_back.is_empty());
    let claimed = u32::try_from(FRAME_LEN_MAX + 1).unwrap();
    assert!(
        matches!(error, Some(CodecError::FrameTooLong { claimed: c, .. }) if c == claimed),
        "{error:?}"
    );
}

#[test]
fn nothing_longer_than_a_frame_is_written_and_what_was_written_before_stays() {
    let mut buffer = frames(&[CANCEL]);
    let before = buffer.clone();
    let len = FRAME_LEN_MAX + 1;
    let error = ClientCodec::new().encode(message_of(len), &mut buffer).unwrap_err();
    assert!(matches!(error, CodecError::Format(FormatError::TooLong { len: l }) if l == len));
    assert_eq!(buffer, before);
    ClientCodec::new().encode(message_of(FRAME_LEN_MAX), &mut buffer).unwrap();
    assert_eq!(buffer.len(), before.len() + 4 + FRAME_LEN_MAX);
}

#[test]
fn what_has_no_form_in_bytes_leaves_what_was_written_before() {
    struct Formless;
    impl serde::Serialize for Formless {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_u64(7)?;
            Err(serde::ser::Error::custom("no form"))
        }
    }
    let mut buffer = frames(&[CANCEL]);
    let before = buffer.clone();
    let error = encode_frame(&Formless, &mut buffer).unwrap_err();
    assert_eq!(error.to_string(), "message cannot be written: no form");
    assert_eq!(buffer, before);
}

#[test]
fn before_hello_a_frame_has_1_kib_and_not_a_byte_more() {
    let stream = frames(&[message_of(HELLO_LEN_MAX)]);
    let (read_back, error) = read(&mut ServerCodec::before_hello(), [stream]);
    assert_eq!(read_back.len(), 1);
    assert!(error.is_none());

    let stream = frames(&[message_of(HELLO_LEN_MAX + 1)]);
    let (read_back, error) = read(&mut ServerCodec::before_hello(), [stream.clone()]);
    assert!(read_back.is_empty());
    assert!(matches!(error, Some(CodecError::FrameTooLong { max: HELLO_LEN_MAX, .. })));

    let (read_back, error) = read(&mut after_hello(), [stream]);
    assert_eq!(read_back.len(), 1);
    assert!(error.is_none());
}

#[test]
fn what_waits_behind_hello_is_read_with_the_new_limit() {
    let (_, hello) = messages::client().swap_remove(0);
    let long = message_of(HELLO_LEN_MAX + 1);
    let mut buffer = frames(&[hello.clone(), long.clone()]);
    let mut codec = ServerCodec::before_hello();
    assert_eq!(codec.decode(&mut buffer).unwrap(), Some(vec![hello]));
    codec.hello_accepted();
    assert_eq!(codec.decode(&mut buffer).unwrap(), Some(vec![long]));
}

#[test]
fn messages_before_a_bad_frame_are_handed_on_first() {
    let bad_frames = [
        ("of no known variant", frames(&[99u32])),
        ("with a byte too many", {
            let mut frame = frames(&[CANCEL]);
            frame[0] += 1;
            frame.put_u8(0);
            frame
        }),
        ("with a byte too few", {
            let mut frame = frames(&[CANCEL]);
            frame[0] -= 1;
            frame
        }),
        ("of no bytes", zeros(0)),
        ("too long", zeros(FRAME_LEN_MAX + 1)),
    ];
    for (what, bad) in bad_frames {
        let mut stream = frames(&[CANCEL, ClientMessage::KeepAlive { sequence: 1 }]);
        stream.extend_from_slice(&bad);
        let mut codec = after_hello();
        assert_eq!(codec.decode(&mut stream).unwrap().unwrap().len(), 2, "frame {what}");
        let first = codec.decode(&mut stream).unwrap_err();
        assert!(first.is_protocol_error(), "frame {what}");
        // Nothing after it is ever taken for a message.
        stream.extend_from_slice(&frames(&[CANCEL]));
        let again = codec.decode(&mut stream).unwrap_err();
        assert_eq!(first.to_string(), again.to_string(), "frame {what}");
    }
}

#[test]
fn what_speaks_another_protocol_is_told_so_from_its_first_four_bytes() {
    for (bytes, claimed) in [
        (&b"GET / HTTP/1.1\r\n"[..], *b"GET "),
        (b"POST /locks HTTP/1.1\r\n", *b"POST"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", *b"PRI "),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", *b"\x16\x03\x01\x02"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", *b"SSH-"),
    ] {
        let (read_back, error) = read(&mut ServerCodec::before_hello(), [bytes.into()]);
        assert!(read_back.is_empty());
        let expected = u32::from_le_bytes(claimed);
        assert!(
            matches!(error, Some(CodecError::FrameTooLong { claimed, .. }) if claimed == expected),
            "{error:?}"
        );
    }
}

#[test]
fn a_hello_of_another_version_is_recognised_though_the_rest_of_it_is_unknown() {
    let hello = |version: u32| {
        let mut stream = frames(&[(0u32, version, [0xaau8; 32])]);
        stream.extend_from_slice(&frames(&[CANCEL]));
        stream
    };
    let (read_back, error) = read(&mut ServerCodec::before_hello(), [hello(2)]);
    assert!(read_back.is_empty());
    assert!(matches!(error, Some(CodecError::UnsupportedVersion { protocol: 2 })), "{error:?}");
    // Ours is malformed, and so is one after Hello.
    let (_, error) = read(&mut ServerCodec::before_hello(), [hello(1)]);
    assert!(matches!(error, Some(CodecError::Format(_))), "{error:?}");
    let (_, error) = read(&mut after_hello(), [hello(2)]);
    assert!(matches!(error, Some(CodecError::Format(_))), "{error:?}");
}

#[test]
fn a_flood_of_small_messages_comes_in_batches_of_bounded_length() {
    let sent = 2 * BATCH_LEN_MAX + 1;
    let mut buffer = frames(&vec![ClientMessage::Goodbye; sent]);
    let mut codec = after_hello();
    let mut batches = Vec::new();
    while let Some(batch) = codec.decode(&mut buffer).unwrap() {
        batches.push(batch.len());
    }
    assert_eq!(batches, [BATCH_LEN_MAX, BATCH_LEN_MAX, 1]);
    // In memory such a batch stays comparable to a frame.
    assert!(BATCH_LEN_MAX * mem::size_of::<ClientMessage>() <= 2 * FRAME_LEN_MAX);
}

#[test]
fn a_claimed_frame_is_reserved_for_once_and_no_further() {
    let taken = allocation_counter::measure(|| {
        let mut buffer = BytesMut::from(&zeros(FRAME_LEN_MAX)[..5]);
        assert!(after_hello().decode(&mut buffer).unwrap().is_none());
    });
    // The five bytes were copied from a frame of that size.
    assert!(taken.bytes_max <= 3 * FRAME_LEN_MAX as u64, "{} bytes", taken.bytes_max);
}

proptest! {
    #[test]
    fn a_clients_stream_cut_at_random_gives_the_same_messages(
        messages in vec(client_message(), 0..8), lengths in vec(1..200usize, 0..20),
    ) {
        let (read, error) = read(&mut after_hello(), cut(frames(&messages), &lengths));
        prop_assert!(error.is_none(), "{:?}", error);
        prop_assert_eq!(read, messages);
    }

    #[test]
    fn a_servers_stream_cut_at_random_gives_the_same_messages(
        messages in vec(server_message(), 0..8), lengths in vec(1..200usize, 0..20),
    ) {
        let (read, error) = read(&mut ClientCodec::default(), cut(frames(&messages), &lengths));
        prop_assert!(error.is_none(), "{:?}", error);
        prop_assert_eq!(read, messages);
    }

    #[test]
    fn arbitrary_bytes_end_in_messages_or_an_error(
        bytes in vec(any::<u8>(), 0..2000), lengths in vec(1..200usize, 0..20),
    ) {
        let pieces = || cut(BytesMut::from(&bytes[..]), &lengths);
        let (_, error) = read::<_, ClientMessage>(&mut ServerCodec::before_hello(), pieces());
        prop_assert!(error.is_none_or(|error| error.is_protocol_error()));
        let (_, error) = read::<_, ServerMessage>(&mut ClientCodec::new(), pieces());
        prop_assert!(error.is_none_or(|error| error.is_protocol_error()));
    }

    /// The bad frame may sit anywhere, and the cut too: what came before it always comes out.
    #[test]
    fn a_bad_frame_ends_the_stream_where_it_stands(
        before in vec(client_message(), 0..5), after in vec(client_message(), 0..3),
        lengths in vec(1..200usize, 0..20),
    ) {
        let mut stream = frames(&before);
        stream.extend_from_slice(&frames(&[99u32]));
        stream.extend_from_slice(&frames(&after));
        let (read, error) = read(&mut after_hello(), cut(stream, &lengths));
        prop_assert!(matches!(error, Some(CodecError::Format(_))));
        prop_assert_eq!(read, before);
    }
}
