//! A live feed's ring: publishing to viewers who wait, and reading it from behind.

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{
    FORMATS,
    audience::Audience,
    chunks::{LINE, publish_lines, publish_one},
    runtime,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use h3cast_feed::{Feed, Lag, Start, format::Format};

/// What the ring keeps, in bytes: some thousand lines.
const HISTORY: usize = 1 << 20;
/// More lines than that.
const FULL: usize = 20_000;

/// What a publisher waits for: the ring is full, and each viewer's waker is called. What the viewers
/// do then is not counted.
fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    group.throughput(Throughput::Elements(1));
    for viewers in [0, 1, 1000] {
        let (feed, publisher) = Feed::live("f", HISTORY, Lag::Skip);
        publish_lines(&publisher, FULL);
        let mut audience = Audience::new(&feed, Start::Now, Format::Raw, viewers);
        group.bench_function(BenchmarkId::new("waiting", viewers), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for _ in 0..iterations {
                    audience.deliver();
                    let began = Instant::now();
                    publish_one(&publisher, Bytes::from_static(LINE));
                    spent += began.elapsed();
                }
                spent
            });
        });
    }
}

/// A viewer who comes late reads all that is kept, for each chunk. Others had it before: it is
/// encoded already.
fn catch_up(criterion: &mut Criterion) {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (feed, publisher) = Feed::live("f", HISTORY, Lag::Skip);
    publish_lines(&publisher, FULL);
    let status = feed.status();
    let kept = status.chunks - status.oldest.expect("it is full").seq;
    let mut group = criterion.benchmark_group("catch-up");
    group.throughput(Throughput::Elements(kept));
    for (name, format) in FORMATS {
        group.bench_function(name, |bencher| {
            bencher.iter(|| Audience::new(&feed, Start::Start, format, 1).deliver());
        });
    }
}

criterion_group!(benches, publish, catch_up);
criterion_main!(benches);
