//! Writing chunks in each format, and reading frames.

mod common;

use std::hint::black_box;

use bytes::Bytes;
use common::{
    FORMATS,
    audience::Audience,
    chunks::{LARGE, LINE, ROOMY, publish_one, text},
    runtime,
};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use h3cast_feed::{
    Feed, Lag, Publisher, Start,
    format::{Format, frames::FrameDecoder},
};

/// Chunks per iteration.
const CHUNKS: usize = 100;
/// What QUIC brings at a time on many paths, in bytes.
const PACKET: usize = 1200;

fn sizes() -> [Bytes; 2] {
    [LINE.into(), text(LARGE)]
}

/// A viewer who is the first to read them, so that each chunk is encoded for it; `raw` is what that
/// costs without any encoding.
///
/// With its publisher, since the feed ends with that.
fn unread(chunk: &Bytes, format: Format) -> (Audience, Publisher) {
    let (feed, publisher) = Feed::live("f", ROOMY, Lag::Skip);
    for _ in 0..CHUNKS {
        publish_one(&publisher, chunk.clone());
    }
    (Audience::new(&feed, Start::Start, format, 1), publisher)
}

fn encode(criterion: &mut Criterion) {
    let runtime = runtime();
    let _entered = runtime.enter();
    let mut group = criterion.benchmark_group("encode");
    for chunk in sizes() {
        group.throughput(Throughput::Bytes((CHUNKS * chunk.len()) as u64));
        for (name, format) in FORMATS {
            group.bench_with_input(BenchmarkId::new(name, chunk.len()), &chunk, |bencher, chunk| {
                bencher.iter_batched_ref(
                    || unread(chunk, format),
                    |(audience, _)| audience.deliver(),
                    BatchSize::SmallInput,
                );
            });
        }
    }
}

fn decode(criterion: &mut Criterion) {
    let runtime = runtime();
    let _entered = runtime.enter();
    let mut group = criterion.benchmark_group("decode");
    for chunk in sizes() {
        let (mut audience, _publisher) = unread(&chunk, Format::Frames);
        let stream = audience.written();
        group.throughput(Throughput::Bytes(stream.len() as u64));
        group.bench_with_input(BenchmarkId::new("frames", chunk.len()), &stream, |bencher, stream| {
            bencher.iter(|| {
                let mut decoder = FrameDecoder::new(1 << 20);
                for packet in stream.chunks(PACKET) {
                    decoder.push(packet);
                    while let Some(frame) = decoder.pop().expect("frames") {
                        black_box(frame);
                    }
                }
            });
        });
    }
}

criterion_group!(benches, encode, decode);
criterion_main!(benches);
