//! The wire alone: bytes to messages and back, one by one and 64 in a buffer.
//!
//! `cargo bench --bench wire`. Decoding is that of the server's codec, which takes all complete
//! frames of a buffer as one batch.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench is no library")]

use std::hint::black_box;

use bytes::BytesMut;
use coordinator::types::{FencingToken, RequestId, Seal};
use coordinator::wire::{
    self, ClientCodec, ClientMessage, Mode, RawClaim, ServerCodec, ServerMessage, encode_frame,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde::Serialize;
use tokio_util::codec::Decoder;

/// How many frames a busy client puts into one write.
const MANY: usize = 64;

fn request() -> ClientMessage {
    ClientMessage::Request(wire::Request::new(
        RequestId(4711),
        [RawClaim { name: "bench-0000000000042".into(), mode: Mode::Exclusive }],
    ))
}

const RELEASE: ClientMessage =
    ClientMessage::Release { request: RequestId(4711), token: FencingToken::new(1 << 40) };
const GRANT: ServerMessage = ServerMessage::Grant {
    request: RequestId(4711),
    token: FencingToken::new(1 << 40),
    seal: Seal::new(0x1234_5678_9abc),
};
const RELEASED: ServerMessage = ServerMessage::Released { request: RequestId(4711) };

fn frames<M: Serialize>(message: &M, count: usize) -> BytesMut {
    let mut buffer = BytesMut::new();
    for _ in 0..count {
        encode_frame(message, &mut buffer).unwrap();
    }
    buffer
}

/// Measures `codec` with buffers of one frame and of many.
fn decoding<M: Serialize, C: Decoder>(
    criterion: &mut Criterion,
    name: &str,
    message: &M,
    codec: &mut C,
) where
    C::Error: std::fmt::Debug,
{
    let mut group = criterion.benchmark_group(format!("decode {name}"));
    for count in [1, MANY] {
        let frames = frames(message, count);
        let mut buffer = BytesMut::with_capacity(2 * frames.len());
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("frames", count), |bencher| {
            bencher.iter(|| {
                buffer.extend_from_slice(black_box(&frames));
                codec.decode(&mut buffer).unwrap().unwrap()
            });
        });
    }
    group.finish();
}

fn encoding<M: Serialize>(criterion: &mut Criterion, name: &str, message: &M) {
    let mut group = criterion.benchmark_group(format!("encode {name}"));
    for count in [1, MANY] {
        let mut buffer = BytesMut::with_capacity(64 * 1024);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("frames", count), |bencher| {
            bencher.iter(|| {
                buffer.clear();
                for _ in 0..count {
                    encode_frame(black_box(message), &mut buffer).unwrap();
                }
                buffer.len()
            });
        });
    }
    group.finish();
}

fn server(criterion: &mut Criterion) {
    let mut codec = ServerCodec::before_hello();
    codec.hello_accepted();
    decoding(criterion, "Request", &request(), &mut codec);
    decoding(criterion, "Release", &RELEASE, &mut codec);
    encoding(criterion, "Grant", &GRANT);
    encoding(criterion, "Released", &RELEASED);
}

fn client(criterion: &mut Criterion) {
    let mut codec = ClientCodec::new();
    encoding(criterion, "Request", &request());
    encoding(criterion, "Release", &RELEASE);
    decoding(criterion, "Grant", &GRANT, &mut codec);
    decoding(criterion, "Released", &RELEASED, &mut codec);
}

criterion_group!(benches, server, client);
criterion_main!(benches);
