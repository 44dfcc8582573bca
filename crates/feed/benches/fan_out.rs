//! One chunk to many viewers: publishing it, and what each of them gets written, for each piece.

mod common;

use bytes::Bytes;
use common::{
    FORMATS,
    audience::Audience,
    chunks::{LINE, publish_one},
    runtime,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use h3cast_feed::{Feed, Lag, Start};

/// What the ring keeps, in bytes.
const HISTORY: usize = 1 << 20;

fn fan_out(criterion: &mut Criterion) {
    let runtime = runtime();
    let _entered = runtime.enter();
    let mut group = criterion.benchmark_group("fan-out");
    for viewers in [200, 5000] {
        group.throughput(Throughput::Elements(viewers as u64));
        for (name, format) in FORMATS {
            let (feed, publisher) = Feed::live("f", HISTORY, Lag::Skip);
            let mut audience = Audience::new(&feed, Start::Now, format, viewers);
            audience.deliver();
            group.bench_function(BenchmarkId::new(name, viewers), |bencher| {
                bencher.iter(|| {
                    publish_one(&publisher, Bytes::from_static(LINE));
                    audience.deliver()
                });
            });
        }
    }
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
