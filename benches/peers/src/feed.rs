//! What every peer serves: one live feed for all viewers, or a file for each of them, as the
//! `frames` format of h3cast.
//!
//! The peers differ only in how they carry the frames. A viewer asks for the next frame when its
//! transport has taken the one before, so that backpressure is the transport's own.

use std::{
    io,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::{
    fs::File,
    io::AsyncReadExt,
    sync::broadcast::{self, error::RecvError},
};

mod kind {
    pub(super) const CHUNK: u64 = 0;
    pub(super) const GAP: u64 = 1;
    pub(super) const END: u64 = 2;
    pub(super) const BEGIN: u64 = 3;
}

/// How many frames a viewer may be behind before it loses the oldest.
const CAPACITY: usize = 1024;

/// How many bytes of a file go into one chunk.
const PIECE: usize = 64 << 10;

/// Room for the type, the length and the integers of any frame.
const HEADER: usize = 40;

/// A chunk's frame, encoded once for all viewers. The number is beside it for gaps.
type Numbered = (u64, Bytes);

#[derive(Clone)]
pub(crate) struct Feed {
    epoch: u64,
    source: Source,
}

#[derive(Clone)]
enum Source {
    Live(broadcast::Sender<Numbered>),
    File(PathBuf),
}

impl Feed {
    /// Begins to publish, in a task of its own.
    pub(crate) fn live(interval: Duration, size: usize) -> Self {
        let (tx, _) = broadcast::channel(CAPACITY);
        tokio::spawn(publish(tx.clone(), interval, size));
        Self { epoch: micros(), source: Source::Live(tx) }
    }

    pub(crate) fn file(path: PathBuf) -> Self {
        Self { epoch: micros(), source: Source::File(path) }
    }

    /// A live feed is viewed from now on, a file from its start.
    pub(crate) async fn view(&self) -> io::Result<Viewer> {
        let state = match &self.source {
            Source::Live(tx) => State::Live { rx: tx.subscribe(), missed: 0, held: None },
            Source::File(path) => State::File { file: File::open(path).await?, seq: 0 },
        };
        Ok(Viewer { begin: Some(frame(kind::BEGIN, &[self.epoch], &[])), state })
    }

    /// The same as a stream, for peers that take a body.
    #[cfg(any(feature = "http1", feature = "salvo"))]
    pub(crate) async fn stream(
        &self,
    ) -> io::Result<impl futures_util::Stream<Item = io::Result<Bytes>> + Send + use<>> {
        let viewer = self.view().await?;
        Ok(futures_util::stream::try_unfold(viewer, async |mut viewer| {
            Ok(viewer.next().await?.map(|frame| (frame, viewer)))
        }))
    }
}

/// Publishes for ever. The times are multiples of the interval from the start: a chunk that is
/// late does not delay those after it.
async fn publish(tx: broadcast::Sender<Numbered>, interval: Duration, size: usize) {
    let payload = vec![b'.'; size];
    let mut ticks = tokio::time::interval(interval);
    for seq in 0.. {
        ticks.tick().await;
        // Nobody may be there to take it.
        let _ = tx.send((seq, chunk(seq, &payload)));
    }
}

pub(crate) struct Viewer {
    begin: Option<Bytes>,
    state: State,
}

enum State {
    Live {
        rx: broadcast::Receiver<Numbered>,
        /// How many were lost just now.
        missed: u64,
        /// What comes after the gap.
        held: Option<Bytes>,
    },
    File {
        file: File,
        seq: u64,
    },
    Over,
}

impl Viewer {
    /// The next frame, or `None` after the last. Not cancellation safe.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(begin) = self.begin.take() {
            return Ok(Some(begin));
        }
        let frame = match &mut self.state {
            State::Live { held, .. } if held.is_some() => held.take(),
            State::Live { rx, missed, held } => loop {
                match rx.recv().await {
                    Ok((_, frame)) if *missed == 0 => break Some(frame),
                    Ok((seq, frame)) => {
                        *held = Some(frame);
                        let missing = std::mem::take(missed);
                        break Some(self::frame(kind::GAP, &[seq - missing, missing, 0], &[]));
                    }
                    Err(RecvError::Lagged(more)) => *missed += more,
                    Err(RecvError::Closed) => break None,
                }
            },
            State::File { file, seq } => {
                let frame = chunk_of(file, *seq).await?;
                *seq += 1;
                frame
            }
            State::Over => return Ok(None),
        };
        Ok(Some(frame.unwrap_or_else(|| {
            self.state = State::Over;
            self::frame(kind::END, &[0], &[])
        })))
    }
}

/// The next chunk of a file, if there is more. It is read behind the room for its header, so that
/// its bytes need not be moved.
async fn chunk_of(file: &mut File, seq: u64) -> io::Result<Option<Bytes>> {
    let mut out = BytesMut::zeroed(HEADER);
    out.reserve(PIECE);
    let mut piece = file.take(PIECE as u64);
    while out.len() < HEADER + PIECE && piece.read_buf(&mut out).await? > 0 {}
    if out.len() == HEADER {
        return Ok(None);
    }
    let header = header(kind::CHUNK, &[seq, micros()], out.len() - HEADER);
    let start = HEADER - header.len();
    out[start..HEADER].copy_from_slice(&header);
    Ok(Some(out.freeze().slice(start..)))
}

fn chunk(seq: u64, payload: &[u8]) -> Bytes {
    frame(kind::CHUNK, &[seq, micros()], payload)
}

fn frame(kind: u64, integers: &[u64], rest: &[u8]) -> Bytes {
    let mut out = header(kind, integers, rest.len());
    out.extend_from_slice(rest);
    out.freeze()
}

/// A frame without the `rest` bytes at its end.
fn header(kind: u64, integers: &[u64], rest: usize) -> BytesMut {
    let len = integers.iter().map(|integer| varint_len(*integer)).sum::<usize>() + rest;
    let mut out = BytesMut::with_capacity(HEADER);
    for integer in [kind, len as u64].iter().chain(integers) {
        match varint_len(*integer) {
            1 => out.put_u8(*integer as u8),
            2 => out.put_u16(0x4000 | *integer as u16),
            4 => out.put_u32(0x8000_0000 | *integer as u32),
            _ => out.put_u64(0xc000_0000_0000_0000 | *integer),
        }
    }
    out
}

/// QUIC's variable-length integers, RFC 9000 §16.
fn varint_len(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Now, in microseconds since 1970.
pub(crate) fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// What a client counts in a stream of frames.
#[derive(Debug, Default)]
pub(crate) struct Count {
    pub(crate) chunks: u64,
    pub(crate) bytes: u64,
    pub(crate) missing: u64,
    pub(crate) ended: bool,
    rest: BytesMut,
}

impl Count {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        while let Some((kind, payload)) = self.split() {
            let mut payload = &payload[..];
            match kind {
                kind::CHUNK => {
                    let (_seq, _micros) = (take(&mut payload), take(&mut payload));
                    self.chunks += 1;
                    self.bytes += payload.len() as u64;
                }
                kind::GAP => {
                    take(&mut payload);
                    self.missing += take(&mut payload).unwrap_or(0);
                }
                kind::END => self.ended = true,
                _ => {}
            }
        }
    }

    fn split(&mut self) -> Option<(u64, BytesMut)> {
        let mut head = &self.rest[..];
        let (kind, len) = (take(&mut head)?, take(&mut head)? as usize);
        let header = self.rest.len() - head.len();
        (head.len() >= len).then(|| {
            self.rest.advance(header);
            (kind, self.rest.split_to(len))
        })
    }
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let len = 1 << (bytes.first()? >> 6);
    let (integer, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(integer[1..].iter().fold(u64::from(integer[0] & 0x3f), |value, byte| (value << 8) | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of docs/protocol.md.
    #[test]
    fn the_documented_bytes() {
        let frames = [
            frame(kind::BEGIN, &[7, 0], &[]),
            frame(kind::CHUNK, &[0, 1000], b"hi"),
            frame(kind::GAP, &[1, 4, 0], &[]),
            frame(kind::END, &[1], b"oop"),
        ];
        let documented = [
            0x03, 0x02, 0x07, 0x00, 0x00, 0x05, 0x00, 0x43, 0xe8, 0x68, 0x69, 0x01, 0x03, 0x01, 0x04, 0x00, 0x02, 0x04,
            0x01, 0x6f, 0x6f, 0x70,
        ];
        assert_eq!(frames.concat(), documented);
    }

    #[tokio::test]
    async fn a_viewer_that_lags_is_told_what_it_missed() {
        let (tx, _) = broadcast::channel(CAPACITY);
        let feed = Feed { epoch: 7, source: Source::Live(tx.clone()) };
        let mut viewer = feed.view().await.unwrap();
        for seq in 5..5 + CAPACITY as u64 + 3 {
            tx.send((seq, frame(kind::CHUNK, &[seq, 0], &[]))).unwrap();
        }
        assert_eq!(viewer.next().await.unwrap().unwrap(), frame(kind::BEGIN, &[7], &[]));
        assert_eq!(viewer.next().await.unwrap().unwrap(), frame(kind::GAP, &[5, 3, 0], &[]));
        for seq in 8..8 + CAPACITY as u64 {
            assert_eq!(viewer.next().await.unwrap().unwrap(), frame(kind::CHUNK, &[seq, 0], &[]));
        }
        drop((feed, tx));
        assert_eq!(viewer.next().await.unwrap().unwrap(), frame(kind::END, &[0], &[]));
        assert_eq!(viewer.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_file_is_sent_whole() {
        let path = std::env::current_exe().unwrap();
        let mut viewer = Feed::file(path.clone()).view().await.unwrap();
        let mut count = Count::default();
        while let Some(frame) = viewer.next().await.unwrap() {
            // In two parts, as a transport may deliver it.
            let (first, second) = frame.split_at(frame.len() / 2);
            count.push(first);
            count.push(second);
        }
        assert!(count.ended);
        let len = std::fs::metadata(path).unwrap().len();
        assert_eq!((count.bytes, count.chunks), (len, len.div_ceil(PIECE as u64)));
    }
}
