//! Scenarios of a fixed amount of work, for `benches/instructions` to count the instructions of.
//!
//! One thread, no sockets, and no time that passes: futures are polled by hand, and the timers of
//! the runtime around them are set but never looked at; those of [`quic`] are in a runtime of their own.
//! Only what [`measured`] runs is counted, without what [`left_out`] runs in it; the rest prepares it.

mod audience;
mod chunks;
mod quic;
mod requests;

use std::{hint::black_box, process::ExitCode, time::Duration};

use bytes::Bytes;
use h3cast::{
    feed::{Deliveries, Feed, Lag, Publisher, Start},
    format::{
        Format,
        frames::{Frame, FrameDecoder},
    },
};

use audience::Audience;
use chunks::{LARGE, LINE, ROOMY, publish_lines, publish_one, text};
use quic::By;

/// Of large chunks: 4 MiB.
const LARGE_CHUNKS: usize = 64;
/// What QUIC brings at a time on many paths, in bytes.
const PACKET: usize = 1200;

type Scenario = fn();

const SCENARIOS: &[(&str, Scenario)] = &[
    ("publish", publish),
    ("fan-out-raw", || small(Format::Raw)),
    ("fan-out-sse", || small(Format::Sse)),
    ("fan-out-frames", || small(Format::Frames)),
    ("fan-out-counted", counted),
    ("large-raw", || large(Format::Raw)),
    ("large-sse", || large(Format::Sse)),
    ("large-frames", || large(Format::Frames)),
    ("catch-up-sse", || catch_up(Format::Sse)),
    ("catch-up-frames", || catch_up(Format::Frames)),
    ("decode", || decode(&LINE.into(), 20_000)),
    ("decode-large", || decode(&text(LARGE), LARGE_CHUNKS)),
    ("requests", requests::answer),
    ("many-feeds", requests::many_feeds),
];

/// Those of the whole server, each with what it does and how often.
const OVER_QUIC: &[(&str, Scenario, usize, &str)] = &[
    ("quic-handshake", quic::handshakes, quic::VIEWERS, "handshake"),
    ("quic-get", || quic::requests(By::Get), quic::VIEWERS, "request"),
    ("quic-session", || quic::requests(By::Session), quic::VIEWERS, "session"),
    ("quic-get-10ms", || quic::chunks(By::Get, OFTEN), quic::DELIVERED, "chunk"),
    ("quic-get-250ms", || quic::chunks(By::Get, SELDOM), quic::DELIVERED, "chunk"),
    ("quic-session-10ms", || quic::chunks(By::Session, OFTEN), quic::DELIVERED, "chunk"),
    ("quic-session-250ms", || quic::chunks(By::Session, SELDOM), quic::DELIVERED, "chunk"),
    ("quic-get-viewer", || quic::viewers(By::Get), quic::VIEWERS, "viewer"),
    ("quic-session-viewer", || quic::viewers(By::Session), quic::VIEWERS, "viewer"),
];

/// Between two chunks: so short that several are acknowledged at once, and so long that each is.
const OFTEN: Duration = Duration::from_millis(10);
const SELDOM: Duration = Duration::from_millis(250);

fn main() -> ExitCode {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    if let Some((_, scenario, ..)) = OVER_QUIC.iter().find(|(name, ..)| *name == wanted) {
        scenario();
    }
    let Some((_, scenario)) = SCENARIOS.iter().find(|(name, _)| *name == wanted) else {
        SCENARIOS.iter().for_each(|(name, _)| println!("{name}"));
        OVER_QUIC.iter().for_each(|(name, _, times, unit)| println!("{name} {times} {unit}"));
        return ExitCode::from(if wanted.is_empty() { 0 } else { 2 });
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _entered = runtime.enter();
    scenario();
    ExitCode::SUCCESS
}

/// Runs what is counted: `benches/instructions` knows this function by its name.
#[inline(never)]
fn measured<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

/// Runs what is not counted while [`measured`] runs: known by its name as well.
#[inline(never)]
fn left_out<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

/// There are no viewers, and the ring is full.
fn publish() {
    let (_feed, publisher) = Feed::live("f", 1 << 20, Lag::Skip);
    publish_lines(&publisher, 20_000);
    measured(|| publish_lines(&publisher, 20_000));
}

/// Viewers that wait get each chunk as it comes.
fn fan_out(format: Format, viewers: usize, chunk: &Bytes, chunks: usize) {
    let (feed, publisher) = Feed::live("f", ROOMY, Lag::Skip);
    deliver_each(&publisher, Audience::new(&feed, Start::Now, format, viewers), viewers, chunk, chunks);
}

fn deliver_each(publisher: &Publisher, mut audience: Audience, viewers: usize, chunk: &Bytes, chunks: usize) {
    audience.deliver();
    let bytes = measured(|| {
        let mut bytes = 0;
        for _ in 0..chunks {
            publish_one(publisher, chunk.clone());
            bytes += audience.deliver();
        }
        bytes
    });
    assert!(bytes >= viewers * chunks * chunk.len());
}

/// How many view the small chunks, and how many of those there are.
const SMALL: (usize, usize) = (50, 2000);

fn small(format: Format) {
    fan_out(format, SMALL.0, &Bytes::from_static(LINE), SMALL.1);
}

/// `fan-out-raw` as a server runs it, which counts for `/metrics` what its viewers are given.
fn counted() {
    let (feed, publisher) = Feed::live("f", ROOMY, Lag::Skip);
    let (deliveries, (viewers, chunks)) = (Deliveries::default(), SMALL);
    let audience = Audience::counted(&feed, Format::Raw, viewers, &deliveries);
    deliver_each(&publisher, audience, viewers, &Bytes::from_static(LINE), chunks);
    assert_eq!(deliveries.snapshot().chunks, (viewers * chunks) as u64);
}

fn large(format: Format) {
    fan_out(format, 10, &text(LARGE), LARGE_CHUNKS);
}

/// A late viewer reads the whole history, and is the first for which it is encoded.
fn catch_up(format: Format) {
    const CHUNKS: usize = 5000;
    let (feed, publisher) = Feed::live("f", ROOMY, Lag::Skip);
    publish_lines(&publisher, CHUNKS);
    let mut audience = Audience::new(&feed, Start::Start, format, 1);
    let bytes = measured(|| audience.deliver());
    assert!(bytes >= CHUNKS * LINE.len());
}

/// A client reads frames out of packets.
fn decode(chunk: &Bytes, chunks: usize) {
    let (feed, publisher) = Feed::live("f", ROOMY, Lag::Skip);
    let mut audience = Audience::new(&feed, Start::Now, Format::Frames, 1);
    for _ in 0..chunks {
        publish_one(&publisher, chunk.clone());
    }
    let stream = audience.written();
    let (mut read, mut bytes) = (0, 0);
    measured(|| {
        let mut decoder = FrameDecoder::new(1 << 20);
        for packet in stream.chunks(PACKET) {
            decoder.push(packet);
            while let Some(frame) = decoder.pop().expect("frames") {
                if let Frame::Chunk { bytes: carried, .. } = black_box(frame) {
                    read += 1;
                    bytes += carried.len();
                }
            }
        }
        assert!(decoder.at_boundary());
    });
    assert_eq!((read, bytes), (chunks, chunks * chunk.len()));
}
