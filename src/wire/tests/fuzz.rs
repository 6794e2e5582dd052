//! Fuzzing of frames: streams that are almost right, in pieces of any size. The result does not
//! depend on the pieces, comes back from its own bytes as it was, and costs bounded memory.

use std::fmt::Debug;

use bytes::BytesMut;
use serde::Serialize;
use tokio_util::codec::Decoder;

use super::super::codec::{BATCH_LEN_MAX, ClientCodec, Codec, ServerCodec};
use super::super::usual::Incoming;
use super::super::{decode, encode_frame};
use super::messages;
use crate::testing::fuzz::{Corpus, Random, assert_in_corpus, fuzz, mutated};

/// Executions in the normal run.
const EXECUTIONS: u64 = 10_000;
/// What one execution may take: its input, twice, both as text for comparison, and every message.
const BYTES_MAX: u64 = 16 << 20;

fn frame<M: Serialize>(message: &M) -> BytesMut {
    let mut frame = BytesMut::new();
    encode_frame(message, &mut frame).unwrap();
    frame
}

#[test]
fn the_corpus_has_every_message() {
    for (name, message) in messages::client() {
        assert_in_corpus("client", name, &frame(&message));
    }
    for (name, message) in messages::server() {
        assert_in_corpus("server", name, &frame(&message));
    }
}

/// Decodes all of `bytes`, which come in such pieces; the messages, and how it ended.
fn decoded<In, Out>(
    mut codec: Codec<In, Out>,
    bytes: &[u8],
    mut piece: impl FnMut() -> usize,
) -> (Vec<In>, Option<String>)
where
    In: Incoming,
{
    let (mut buffer, mut messages, mut rest) = (BytesMut::new(), Vec::new(), bytes);
    let error = 'stream: loop {
        let (now, later) = rest.split_at(piece().clamp(1, rest.len().max(1)).min(rest.len()));
        buffer.extend_from_slice(now);
        rest = later;
        loop {
            let batch = if rest.is_empty() {
                codec.decode_eof(&mut buffer)
            } else {
                codec.decode(&mut buffer)
            };
            match batch {
                Ok(Some(batch)) => {
                    assert!((1..=BATCH_LEN_MAX).contains(&batch.len()));
                    messages.extend(batch);
                }
                Ok(None) if rest.is_empty() => break 'stream None,
                Ok(None) => break,
                Err(error) => {
                    // It says the same as often as it is asked.
                    let again = codec.decode_eof(&mut buffer).err();
                    assert_eq!(again.map(|e| e.to_string()), Some(error.to_string()));
                    break 'stream Some(error.to_string());
                }
            }
        }
    };
    assert!(messages.len() * size_of::<u32>() * 2 <= bytes.len(), "messages out of nothing");
    (messages, error)
}

/// That `bytes` are understood in the same way however they come, and what is understood can be said.
fn explore<In, Out>(codec: impl Fn() -> Codec<In, Out>, bytes: &[u8], random: &mut Random)
where
    In: Incoming + Serialize + PartialEq + Debug,
{
    let whole = decoded(codec(), bytes, || usize::MAX);
    let piece_max = *random.pick(&[1, 3, 16, 1_024, 16_384]);
    let in_pieces = decoded(codec(), bytes, || 1 + random.below(piece_max));
    assert_eq!(whole, in_pieces);
    for message in whole.0 {
        let bytes = frame(&message);
        assert_eq!(decode::<In>(&bytes[size_of::<u32>()..]).unwrap(), message);
    }
}

fn accepted() -> ServerCodec {
    let mut codec = ServerCodec::before_hello();
    codec.hello_accepted();
    codec
}

#[test]
fn fuzzed_frames_are_understood_in_one_way_or_refused() {
    let to_server = Corpus::load(&["client", "conversations"]);
    let to_client = Corpus::load(&["server"]);
    fuzz("fuzzed_frames", EXECUTIONS, BYTES_MAX, |mut random| {
        let (said, answered) = (mutated(&to_server, &mut random), mutated(&to_client, &mut random));
        explore(accepted, &said, &mut random);
        explore(ServerCodec::before_hello, &said, &mut random);
        explore(ClientCodec::new, &answered, &mut random);
    });
}
