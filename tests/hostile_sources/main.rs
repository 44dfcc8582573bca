//! Sources that send bytes that are not text, too much, or nothing, or that do not end.
//!
//! Some tests look at the memory of a process, so those of this binary run one after the other.
#![cfg(all(feature = "cli", target_os = "linux"))]

mod bytes;
#[path = "../common/mod.rs"]
mod common;
mod ends;
mod files;
mod floods;
#[path = "../common/serving.rs"]
mod serving;

use ::bytes::Bytes;
use h3cast::{
    feed::End,
    format::frames::{Frame, FrameDecoder},
};
use http::Uri;
use serving::Reading;
use tokio::sync::Mutex;

/// Held by the test that runs.
static ALONE: Mutex<()> = Mutex::const_new(());

const MIB: u64 = 1 << 20;

/// Bytes that a seed reproduces: the high byte of a linear congruential generator (Knuth's MMIX).
fn random(seed: u64) -> impl Iterator<Item = u8> {
    std::iter::successors(Some(seed), |state| {
        Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    })
    .map(|state| (state >> 56) as u8)
}

/// The frames of a feed, over either transport.
struct Frames {
    reading: Reading,
    decoder: FrameDecoder,
}

impl Frames {
    async fn open(connection: &h3cast::client::Connection, uri: &Uri, webtransport: bool) -> Self {
        Self { reading: Reading::open(connection, uri, webtransport).await, decoder: FrameDecoder::new(MIB) }
    }

    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.pop().unwrap() {
                return Some(frame);
            }
            match self.reading.next().await.unwrap() {
                Some(bytes) => self.decoder.push(&bytes),
                None => {
                    assert!(self.decoder.at_boundary());
                    return None;
                }
            }
        }
    }

    /// The chunks up to the clean end, numbered without a gap from 0.
    async fn chunks(&mut self) -> Vec<Bytes> {
        assert!(matches!(self.next().await, Some(Frame::Begin { .. })));
        let mut chunks = Vec::new();
        loop {
            match self.next().await {
                Some(Frame::Chunk { seq, bytes, .. }) => {
                    assert_eq!(seq, chunks.len() as u64);
                    chunks.push(bytes);
                }
                Some(Frame::Heartbeat) => {}
                Some(Frame::End(End::Clean)) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(self.next().await, None);
        chunks
    }
}
