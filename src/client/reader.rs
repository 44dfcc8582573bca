//! The frames of one stream as events. No I/O.

use std::collections::VecDeque;

use http::Uri;

use super::{
    resume::{FeedUri, Place},
    viewer::{Event, LONGEST_FRAME, ViewError},
};
use crate::format::frames::FrameDecoder;

/// Reads what a feed's URI was answered with.
#[derive(Debug)]
pub(crate) struct Reader {
    decoder: FrameDecoder,
    place: Place,
    events: VecDeque<Event>,
}

impl Reader {
    /// A reader of the feed at `uri`.
    pub(crate) fn new(uri: &Uri) -> Self {
        // What cannot be read there the server refuses.
        let place = FeedUri::parse(uri).map_or_else(|_| Place::default(), |(_, place)| place);
        Self { decoder: FrameDecoder::new(LONGEST_FRAME), place, events: VecDeque::new() }
    }

    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    ///
    /// When they are no frames. What came before them is there to be popped.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), ViewError> {
        self.decoder.push(bytes);
        while let Some(frame) = self.decoder.pop()? {
            self.place.take(frame, &mut self.events)?;
        }
        Ok(())
    }

    /// The next event.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.place.gives(&event);
        Some(event)
    }

    /// Why the feed has stalled, if it has and the server says that: as of the last event.
    pub(crate) fn stalled_by(&self) -> Option<&str> {
        self.place.stalled_by()
    }

    /// Whether everything has come that the URI asks for, whatever the stream says.
    pub(crate) fn is_complete(&self) -> bool {
        self.place.is_complete()
    }

    /// How many chunks are known to be missing so far.
    pub(crate) fn missing(&self) -> u64 {
        self.place.missing()
    }

    /// How often the feed was restarted.
    pub(crate) fn restarts(&self) -> u64 {
        self.place.restarts()
    }
}
