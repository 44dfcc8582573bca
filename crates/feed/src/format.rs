//! A feed as a stream of bytes: the same for every transport.

mod beat;
mod joined;
mod piece;
pub mod sse;
mod writer;

use std::sync::Arc;

use bytes::Bytes;

use crate::{Chunk, End, EndCursor, Event, FeedError, Viewer};
pub use beat::HEARTBEAT;
pub(crate) use piece::Piece;
pub use piece::{Framing, PREFIX_TYPE};
pub use writer::{CUT, Writer, write};

/// A format of the stream. With the feature `serde` it is read and written as `raw`, `sse` or `frames`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum Format {
    /// The bytes of the chunks and nothing else. It cannot express a gap: the stream breaks off.
    #[default]
    Raw,
    /// Server-sent events (WHATWG HTML §9.2).
    Sse,
    /// Binary frames with times, cursors and gaps: see [`frames`].
    Frames,
}

/// The `frames` format: see [`h3cast_proto::feed::frames`].
pub mod frames {
    use bytes::Bytes;
    pub use h3cast_proto::feed::frames::{
        EXPIRED, Frame, FrameDecoder, FrameError, HEARTBEAT, MEDIA_TYPE, SPARSE, begin, end, gap, stalled, stalled_by,
    };

    use crate::Chunk;

    /// A chunk.
    #[must_use]
    pub fn chunk(chunk: &Chunk) -> Bytes {
        h3cast_proto::feed::frames::chunk(chunk.seq, chunk.micros(), &chunk.bytes)
    }

    /// A chunk's frame without the bytes of the chunk, which are to follow it.
    pub(super) fn chunk_header(chunk: &Chunk) -> Bytes {
        h3cast_proto::feed::frames::chunk_header(chunk.seq, chunk.micros(), chunk.bytes.len())
    }
}

/// Why a stream must break off: it must not look complete.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    /// Chunks are missing, which `raw` cannot express.
    #[error("the viewer was too slow: {0} chunks are missing")]
    Gap(u64),
    /// The feed was restarted, which `raw` cannot express.
    #[error("the feed was restarted")]
    Restarted,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopped,
    /// The feed failed.
    #[error(transparent)]
    Failed(#[from] FeedError),
}

impl Format {
    /// Its media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Raw => "text/plain; charset=utf-8",
            Self::Sse => "text/event-stream; charset=utf-8",
            Self::Frames => frames::MEDIA_TYPE,
        }
    }

    /// Adds what precedes the first event. Like the others, returns how many bytes it added.
    fn begin(self, viewer: &Viewer, framing: Framing, out: &mut Vec<Bytes>) -> usize {
        match self {
            Self::Raw => 0,
            Self::Sse => alone(&sse::BEGIN, framing, out),
            Self::Frames => {
                let begin = alone(&frames::begin(viewer.epoch(), viewer.next_seq()), framing, out);
                begin + if viewer.is_sparse() { alone(&frames::SPARSE, framing, out) } else { 0 }
            }
        }
    }

    /// Adds one event of `viewer`; nothing if it needs no bytes. `had` is what the viewer has received with it.
    ///
    /// # Errors
    ///
    /// If the stream must break off.
    #[inline(always)]
    fn put(
        self,
        event: &Event,
        had: EndCursor,
        viewer: &Viewer,
        framing: Framing,
        out: &mut Vec<Bytes>,
    ) -> Result<usize, Cut> {
        match event {
            Event::Chunk(chunk) => Ok(self.chunk(chunk, viewer, framing, out)),
            // An end has an id if the feed itself is over.
            event => Ok(alone(&self.other(event, viewer, viewer.has_settled().then_some(had))?, framing, out)),
        }
    }

    /// An event other than a chunk, in bytes.
    fn other(self, event: &Event, viewer: &Viewer, id: Option<EndCursor>) -> Result<Bytes, Cut> {
        let cause = || viewer.trouble().map(|trouble| trouble.to_string());
        Ok(match (self, event) {
            (_, Event::Chunk(_)) => Bytes::new(),
            (Self::Raw, Event::Gap(gap)) if gap.restarted => return Err(Cut::Restarted),
            (Self::Raw, Event::Gap(gap)) => return Err(Cut::Gap(gap.missing)),
            (Self::Raw, Event::Stalled(_)) => Bytes::new(),
            (Self::Sse, Event::Stalled(stalled)) => match cause().filter(|_| *stalled) {
                Some(cause) => sse::stalled_by(&cause),
                None => sse::stalled(*stalled),
            },
            (Self::Frames, Event::Stalled(stalled)) => match cause().filter(|_| *stalled) {
                Some(cause) => frames::stalled_by(&cause),
                None => frames::stalled(*stalled),
            },
            (Self::Raw, Event::End(End::Stopped)) => return Err(Cut::Stopped),
            // A stream without an end event means that there is more, and nothing that was sent is lost.
            (Self::Sse | Self::Frames, Event::End(End::Stopped)) => Bytes::new(),
            (Self::Raw, Event::End(End::Clean)) => Bytes::new(),
            (Self::Raw, Event::End(End::Failed(error))) => return Err(error.clone().into()),
            (Self::Sse, Event::Gap(gap)) => sse::gap(gap),
            (Self::Sse, Event::End(end)) => sse::end(end, id),
            (Self::Frames, Event::Gap(gap)) => frames::gap(gap),
            (Self::Frames, Event::End(end)) => frames::end(end),
        })
    }

    /// Adds a chunk. It is encoded once, and its bytes are shared by all viewers while the ring has room for them.
    fn chunk(self, chunk: &Arc<Chunk>, viewer: &Viewer, framing: Framing, out: &mut Vec<Bytes>) -> usize {
        if self == Self::Raw && chunk.bytes.is_empty() {
            return 0;
        }
        if let Some(piece) = chunk.written[self as usize].get() {
            return piece.put(framing, out);
        }
        self.first(chunk, viewer, framing, out)
    }

    /// The same for the first viewer that gets it.
    #[inline(never)]
    fn first(self, chunk: &Arc<Chunk>, viewer: &Viewer, framing: Framing, out: &mut Vec<Bytes>) -> usize {
        let mut cost = 0;
        let encode = || {
            let piece = match self {
                Self::Raw => Piece::new(&[], &chunk.bytes),
                Self::Sse => Piece::new(&[], &sse::chunk(chunk, viewer.epoch())),
                Self::Frames => Piece::new(&frames::chunk_header(chunk), &chunk.bytes),
            };
            cost = piece.cost(&chunk.bytes);
            Box::new(piece)
        };
        let len = chunk.written[self as usize].get_or_init(encode).put(framing, out);
        // Another viewer may have been faster.
        if cost > 0 {
            viewer.encoded(chunk, cost);
        }
        len
    }

    /// Adds the end of a stream whose viewer may no longer read the feed.
    ///
    /// # Errors
    ///
    /// If the stream must break off, because `raw` cannot express it.
    fn expired(self, framing: Framing, out: &mut Vec<Bytes>) -> Result<usize, Cut> {
        match self {
            Self::Raw => Err(Cut::Failed(FeedError("the token of this viewer has ended".into()))),
            Self::Sse => Ok(alone(&sse::EXPIRED, framing, out)),
            Self::Frames => Ok(alone(&frames::EXPIRED, framing, out)),
        }
    }

    /// Whether it has heartbeats. Bytes in `raw` would be taken for a chunk.
    fn has_heartbeat(self) -> bool {
        self != Self::Raw
    }

    /// Adds a heartbeat, which keeps a silent stream alive.
    fn heartbeat(self, framing: Framing, out: &mut Vec<Bytes>) {
        match self {
            Self::Raw => {}
            Self::Sse => drop(alone(&sse::HEARTBEAT, framing, out)),
            Self::Frames => drop(alone(&frames::HEARTBEAT, framing, out)),
        }
    }
}

/// Adds bytes for one viewer alone.
fn alone(bytes: &Bytes, framing: Framing, out: &mut Vec<Bytes>) -> usize {
    match bytes.is_empty() {
        true => 0,
        false => Piece::new(&[], bytes).put(framing, out),
    }
}

#[cfg(all(test, feature = "serde"))]
mod tests {
    use super::*;

    #[test]
    fn serde_names() {
        for (format, name) in [(Format::Raw, "raw"), (Format::Sse, "sse"), (Format::Frames, "frames")] {
            assert_eq!(serde_json::to_value(format).unwrap(), name);
            assert_eq!(serde_json::from_value::<Format>(name.into()).unwrap(), format);
        }
    }
}
