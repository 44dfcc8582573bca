//! How a feed's events are written: the same on a response and on a WebTransport stream.

pub mod frames;
pub mod sse;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};

use crate::{
    chunk::{Chunk, Epoch},
    feed::{End, Event, FeedError, Viewer},
};

/// A way of writing a feed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The bytes and nothing else. There is no way to tell of a gap: the stream breaks off.
    #[default]
    Raw,
    /// Server-sent events (WHATWG HTML §9.2).
    Sse,
    /// Binary frames with times, cursors and gaps: see [`frames`].
    Frames,
}

/// The stream must break off here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    /// Chunks are missing, and `raw` has no way to say so.
    #[error("the viewer was too slow: {0} chunks are missing")]
    Gap(u64),
    /// The feed was started again, and `raw` has no way to say so.
    #[error("the feed was started again")]
    Restarted,
    /// The server stops.
    #[error("the server stops")]
    Stopped,
    /// The feed broke off.
    #[error(transparent)]
    Failed(#[from] FeedError),
}

impl Format {
    /// The media type of a response.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Raw => "text/plain; charset=utf-8",
            Self::Sse => "text/event-stream; charset=utf-8",
            Self::Frames => "application/octet-stream",
        }
    }

    /// What comes before the first event. `next` is the number of the chunk that comes next, unless
    /// some are missing.
    #[must_use]
    pub fn begin(self, epoch: Epoch, next: Option<u64>) -> Bytes {
        match self {
            Self::Raw => Bytes::new(),
            Self::Sse => sse::BEGIN,
            Self::Frames => frames::begin(epoch, next),
        }
    }

    /// One event; empty when it needs no bytes.
    ///
    /// A chunk is encoded once, whoever asks, and its bytes are shared.
    ///
    /// # Errors
    ///
    /// When the stream must break off, so that it does not look whole.
    pub fn encode(self, event: &Event, epoch: Epoch) -> Result<Bytes, Cut> {
        Ok(match (self, event) {
            (Self::Raw, Event::Chunk(chunk)) => chunk.bytes.clone(),
            (Self::Raw, Event::Gap(gap)) if gap.restarted => return Err(Cut::Restarted),
            (Self::Raw, Event::Gap(gap)) => return Err(Cut::Gap(gap.missing)),
            (Self::Raw, Event::End(End::Stopped)) => return Err(Cut::Stopped),
            // Without its own end the stream says that there is more, and nothing that was sent is lost.
            (Self::Sse | Self::Frames, Event::End(End::Stopped)) => Bytes::new(),
            (Self::Raw, Event::End(End::Clean)) => Bytes::new(),
            (Self::Raw, Event::End(End::Failed(error))) => return Err(error.clone().into()),
            (Self::Sse, Event::Chunk(chunk)) => once(chunk, 0, || sse::chunk(chunk, epoch)),
            (Self::Sse, Event::Gap(gap)) => sse::gap(gap),
            (Self::Sse, Event::End(end)) => sse::end(end),
            (Self::Frames, Event::Chunk(chunk)) => once(chunk, 1, || frames::chunk(chunk)),
            (Self::Frames, Event::Gap(gap)) => frames::gap(gap),
            (Self::Frames, Event::End(end)) => frames::end(end),
        })
    }

    /// What keeps a silent stream alive; `raw` has nothing that would not be taken for a chunk.
    #[must_use]
    pub fn heartbeat(self) -> Option<Bytes> {
        match self {
            Self::Raw => None,
            Self::Sse => Some(sse::HEARTBEAT),
            Self::Frames => Some(frames::HEARTBEAT),
        }
    }
}

/// How long a stream may be silent before it is kept alive: less than the minute after which many
/// proxies give up.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// A feed as the bytes of a stream, each event as it comes. After an error nothing follows.
pub fn write(viewer: Viewer, format: Format) -> impl Stream<Item = Result<Bytes, Cut>> + Send {
    let epoch = viewer.epoch();
    let begin = stream::iter([Ok(format.begin(epoch, viewer.next_seq()))]);
    let events = stream::unfold(Some(viewer), move |viewer| async move {
        let mut viewer = viewer?;
        let event = match format.heartbeat() {
            None => viewer.next().await,
            Some(beat) => match tokio::time::timeout(HEARTBEAT, viewer.next()).await {
                Ok(event) => event,
                Err(_) => return Some((Ok(beat), Some(viewer))),
            },
        };
        let written = format.encode(&event?, epoch);
        // Dropped before an error is told, so that the producer does not outlive its viewer.
        let viewer = written.is_ok().then_some(viewer);
        Some((written, viewer))
    });
    begin.chain(events).filter(|piece| std::future::ready(!piece.as_ref().is_ok_and(Bytes::is_empty)))
}

fn once(chunk: &Arc<Chunk>, slot: usize, encode: impl FnOnce() -> Bytes) -> Bytes {
    chunk.encoded[slot].get_or_init(encode).clone()
}
