//! A feed as the buffers of one viewer's stream.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, Sleep, sleep};

use super::{Cut, Format, beat::Beat, joined::Joined, piece::Framing};
use crate::{Deliveries, Delivery, EndCursor, Event, FeedError, Viewer, budget::Gathered, budget::Seat};

/// What a viewer learns that its budget has cut.
pub const CUT: &str = "the server is short of memory, and this viewer was too slow: resume after its last chunk";

/// At most this many buffers are returned at once, to a viewer that is behind.
const BUFFERS: usize = 32;
/// After this many bytes no more are added.
const BYTES: usize = 64 << 10;

/// Encodes what one viewer gets, several chunks at once if it is behind.
pub struct Writer {
    /// `None` at the end.
    viewer: Option<Viewer>,
    /// Its viewer's, also when that has ended: what it is given at the end is charged as well.
    seat: Option<Arc<Seat>>,
    format: Format,
    framing: Framing,
    /// What the viewer has received.
    had: EndCursor,
    begun: bool,
    /// Why the stream must break off after what has been returned.
    cut: Option<Cut>,
    /// When it was written to last.
    written: Instant,
    beat: Option<Beat>,
    /// How long a chunk may wait for others, and the timer for that.
    coalesce: Duration,
    gathering: Option<Pin<Box<Sleep>>>,
    /// How many bytes wait in `out` and in `joined`.
    gathered: usize,
    /// What follows `out`, of chunks that are for its viewer alone.
    joined: Joined,
    /// There are some of those in what waits.
    own: bool,
    /// Charges what waits, if there are.
    waiting: Option<Gathered>,
    /// What is counted of it, if anything is.
    counted: Option<Counted>,
    /// Completes when the viewer may no longer read the feed.
    until: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Writer {
    /// Encodes what that viewer gets.
    #[must_use]
    pub fn new(viewer: Viewer, format: Format, framing: Framing) -> Self {
        Self {
            had: EndCursor { epoch: viewer.epoch(), last: viewer.next_seq().and_then(|next| next.checked_sub(1)) },
            seat: viewer.seat.clone(),
            viewer: Some(viewer),
            format,
            framing,
            begun: false,
            cut: None,
            written: Instant::now(),
            beat: None,
            coalesce: Duration::ZERO,
            gathering: None,
            gathered: 0,
            joined: Joined::default(),
            own: false,
            waiting: None,
            counted: None,
            until: None,
        }
    }

    /// Counts the viewer, and what it is given, until this is dropped.
    #[must_use]
    pub fn count_in(mut self, deliveries: &Deliveries) -> Self {
        let is_live = self.viewer.as_ref().is_some_and(Viewer::is_live);
        self.counted =
            Some(Counted { delivery: deliveries.viewer(), is_live, chunks: 0, oldest: SystemTime::UNIX_EPOCH });
        self
    }

    /// Ends the stream when `over` completes, since its viewer may then no longer read the feed: `sse` and
    /// `frames` report that, and `raw` breaks off.
    ///
    /// `over` is polled whenever there may be something to write, so polling it must be cheap.
    #[must_use]
    pub fn until(mut self, over: impl Future<Output = ()> + Send + 'static) -> Self {
        self.until = Some(Box::pin(over));
        self
    }

    /// Lets chunks wait that long for others, to be returned together. The default is not at all.
    #[must_use]
    pub fn coalesce(mut self, time: Duration) -> Self {
        self.coalesce = time;
        self
    }

    /// Waits for what comes next, and adds it to `out` with what else is there by then. `false` at the end of
    /// the stream, when nothing is added.
    ///
    /// # Errors
    ///
    /// If the stream must break off.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: what it has added by then stays in `out` for the next call.
    pub async fn next(&mut self, out: &mut Vec<Bytes>) -> Result<bool, Cut> {
        poll_fn(|cx| self.poll_next(cx, out)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, out: &mut Vec<Bytes>) -> Poll<Result<bool, Cut>> {
        if let Some(cut) = self.cut.take() {
            return Poll::Ready(Err(cut));
        }
        if self.viewer.is_some() && self.seat.as_ref().is_some_and(|seat| seat.is_cut()) {
            self.viewer = None;
            return Poll::Ready(Err(Cut::Failed(FeedError(CUT.into()))));
        }
        let mut bytes = std::mem::take(&mut self.gathered);
        let first = !self.begun;
        if let Some(over) = &mut self.until
            && over.as_mut().poll(cx).is_ready()
        {
            self.until = None;
            bytes += self.expire(out);
        }
        while let Some(viewer) = &mut self.viewer {
            if !std::mem::replace(&mut self.begun, true) {
                bytes += self.format.begin(viewer, self.framing, out);
            }
            if bytes >= BYTES || out.len() >= BUFFERS {
                break;
            }
            // It has what it was given, so that it needs no sign of life either.
            if self.seat.as_ref().is_some_and(|seat| seat.poll_room(cx).is_pending()) {
                if bytes > 0 {
                    break;
                }
                return Poll::Pending;
            }
            match viewer.poll_next_unpin(cx) {
                Poll::Ready(Some(event)) => {
                    if let Event::Chunk(chunk) = &event {
                        self.had.last = Some(chunk.seq);
                        if let Some(counted) = &mut self.counted {
                            if counted.chunks == 0 {
                                counted.oldest = chunk.time;
                            }
                            counted.chunks += 1;
                        }
                    }
                    let put = match viewer.is_of_ring() {
                        true => self.format.put(&event, self.had, viewer, self.framing, out),
                        false => {
                            self.own |= viewer.has_own();
                            own(&event, self.had, viewer, (self.format, self.framing), &mut self.joined, out)
                        }
                    };
                    match put {
                        Ok(put) => {
                            bytes += put;
                            // Polling for what is not there yet would be repeated after this has been
                            // written.
                            if bytes > 0 && self.coalesce.is_zero() && !viewer.is_behind() {
                                break;
                            }
                        }
                        Err(cut) => {
                            // Dropped before that is returned, so that the source does not outlive its viewer.
                            self.viewer = None;
                            self.cut = Some(cut);
                        }
                    }
                }
                Poll::Ready(None) => self.viewer = None,
                Poll::Pending if bytes > 0 => break,
                Poll::Pending => return self.poll_beat(cx, out),
            }
        }
        if bytes > 0 {
            let more = self.viewer.is_some() && bytes < BYTES && out.len() < BUFFERS;
            // The beginning does not wait: it shows that the stream has begun.
            if more && !first && !self.coalesce.is_zero() {
                let gathering = self.gathering.get_or_insert_with(|| Box::pin(sleep(self.coalesce)));
                if gathering.as_mut().poll(cx).is_pending() {
                    self.gathered = bytes;
                    self.waiting = None;
                    if self.own
                        && let Some(seat) = &self.seat
                    {
                        self.waiting = seat.gather(out, self.joined.capacity());
                    }
                    return Poll::Pending;
                }
            }
            self.gathering = None;
            self.joined.flush(out);
            self.written = Instant::now();
            if let Some(counted) = &mut self.counted {
                counted.given(bytes, self.written);
            }
            self.give(out);
            return Poll::Ready(Ok(true));
        }
        Poll::Ready(self.cut.take().map_or(Ok(false), Err))
    }

    /// Ends the stream. What has been gathered is still sent, and nothing that the feed has besides.
    fn expire(&mut self, out: &mut Vec<Bytes>) -> usize {
        self.joined.flush(out);
        // A stream that is over already has no more to say.
        let Some(viewer) = self.viewer.take() else { return 0 };
        let begun = match std::mem::replace(&mut self.begun, true) {
            true => 0,
            false => self.format.begin(&viewer, self.framing, out),
        };
        match self.format.expired(self.framing, out) {
            Ok(put) => begun + put,
            Err(cut) => {
                self.cut = Some(cut);
                begun
            }
        }
    }

    /// Notes for the feed's budget that its viewer has been given something, charges what no other viewer gets, and
    /// marks it now and then, to see when it has been taken.
    #[inline]
    fn give(&mut self, out: &mut [Bytes]) {
        if let Some(seat) = &self.seat {
            let own = self.viewer.as_ref().is_none_or(Viewer::has_own);
            seat.give(out, own || self.own);
        }
        self.own = false;
        self.waiting = None;
    }

    /// While nothing comes: a heartbeat, when it is time.
    fn poll_beat(&mut self, cx: &mut Context<'_>, out: &mut Vec<Bytes>) -> Poll<Result<bool, Cut>> {
        if !self.format.has_heartbeat() {
            return Poll::Pending;
        }
        ready!(self.beat.get_or_insert_with(|| Beat::new(self.written)).poll(cx, self.written));
        self.written = Instant::now();
        self.format.heartbeat(self.framing, out);
        Poll::Ready(Ok(true))
    }
}

/// Adds an event of a viewer whose chunks are not, or not yet, those that all viewers get.
#[inline(never)]
fn own(
    event: &Event,
    had: EndCursor,
    viewer: &Viewer,
    (format, framing): (Format, Framing),
    joined: &mut Joined,
    out: &mut Vec<Bytes>,
) -> Result<usize, Cut> {
    match event {
        // What it was read into is not to wait with it.
        Event::Chunk(chunk) if viewer.has_own() && viewer.is_live() && Joined::takes(chunk) => {
            Ok(joined.chunk(chunk, viewer.epoch(), (format, framing), viewer.is_behind(), out))
        }
        event => {
            joined.flush(out);
            format.put(event, had, viewer, framing, out)
        }
    }
}

/// What is counted of a viewer.
struct Counted {
    delivery: Delivery,
    /// Its chunks are published for all: those of a source of its own are as old as the viewer has it.
    is_live: bool,
    /// What is about to be given.
    chunks: u64,
    /// When the first of these was published, if there is one.
    oldest: SystemTime,
}

impl Counted {
    fn given(&mut self, bytes: usize, now: Instant) {
        let chunks = std::mem::take(&mut self.chunks);
        self.delivery.count(chunks, bytes as u64);
        if chunks > 0 && self.is_live {
            self.delivery.look(self.oldest, now);
        }
    }
}

/// A feed as a stream of bytes, each event as it happens. Nothing follows an error.
pub fn write(viewer: Viewer, format: Format) -> impl Stream<Item = Result<Bytes, Cut>> + Send {
    Writer::new(viewer, format, Framing::Plain).into_stream()
}

impl Writer {
    /// The buffers as a stream. Nothing follows an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, Cut>> + Send {
        Buffers { writer: Some(self), buffers: Vec::new(), returned: 0, gathering: Vec::new() }
    }
}

struct Buffers {
    /// `None` at the end.
    writer: Option<Writer>,
    buffers: Vec<Bytes>,
    /// How many of them have been returned.
    returned: usize,
    /// Buffers that wait for more.
    gathering: Vec<Bytes>,
}

impl Stream for Buffers {
    type Item = Result<Bytes, Cut>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(buffer) = this.buffers.get_mut(this.returned) {
                this.returned += 1;
                return Poll::Ready(Some(Ok(std::mem::take(buffer))));
            }
            this.buffers.clear();
            this.returned = 0;
            let Some(writer) = &mut this.writer else { return Poll::Ready(None) };
            match writer.poll_next(cx, &mut this.gathering) {
                Poll::Ready(Ok(true)) => std::mem::swap(&mut this.buffers, &mut this.gathering),
                Poll::Ready(Ok(false)) => this.writer = None,
                Poll::Ready(Err(cut)) => {
                    this.writer = None;
                    return Poll::Ready(Some(Err(cut)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{End, Feed, Lag, Start, format::HEARTBEAT};
    use futures_util::FutureExt;
    use tokio::time::timeout;

    #[tokio::test(start_paused = true)]
    async fn chunks_wait_for_others_for_a_while() {
        let (feed, publisher) = Feed::live("default", 1 << 20, Lag::Skip);
        let wait = Duration::from_millis(20);
        let mut writer = Writer::new(feed.view(Start::Now, None), Format::Frames, Framing::Prefixed).coalesce(wait);
        let mut out = Vec::new();
        // What begins the stream does not wait.
        assert_eq!(writer.next(&mut out).now_or_never(), Some(Ok(true)));
        out.clear();
        let start = Instant::now();
        for number in 0..3 {
            publisher.publish(number.to_string().into()).await.unwrap();
            // Dropped and called again, as in a `select!`.
            assert_eq!(writer.next(&mut out).now_or_never(), None);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(writer.next(&mut out).await, Ok(true));
        assert_eq!((out.len(), start.elapsed()), (3, wait));
        out.clear();
        // The end does not let what came before wait.
        publisher.publish("last".into()).await.unwrap();
        publisher.end(End::Clean);
        assert_eq!(writer.next(&mut out).now_or_never(), Some(Ok(true)));
        assert_eq!(out.len(), 2);
        out.clear();
        assert_eq!(writer.next(&mut out).await, Ok(false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_viewer_whose_time_is_over_is_told_so() {
        for (format, last) in [
            (Format::Frames, Some(&b"\x07\x00"[..])),
            (Format::Sse, Some(b"event: expired\ndata: {}\n\n")),
            (Format::Raw, None),
        ] {
            let (feed, publisher) = Feed::live("default", 1 << 20, Lag::Skip);
            publisher.publish("before".into()).await.unwrap();
            let over = tokio::time::sleep(Duration::from_secs(20));
            let mut writer = Writer::new(feed.view(Start::Start, None), format, Framing::Plain).until(over);
            let mut out = Vec::new();
            let cut = loop {
                match writer.next(&mut out).await {
                    Ok(true) => {}
                    Ok(false) => break None,
                    Err(cut) => break Some(cut),
                }
            };
            let out = out.concat();
            assert!(String::from_utf8_lossy(&out).contains("before"), "{format:?}");
            assert_eq!(feed.status().viewers, 0, "its place in the feed is free at once");
            match last {
                Some(last) => assert!(out.ends_with(last) && cut.is_none(), "{format:?}: {out:?}"),
                None => assert!(matches!(cut, Some(Cut::Failed(_))), "{cut:?}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_is_kept_alive_every_15_seconds() {
        let (feed, publisher) = Feed::live("default", 1 << 20, Lag::Skip);
        let mut writer = Writer::new(feed.view(Start::Now, None), Format::Sse, Framing::Plain);
        let mut out = Vec::new();
        writer.next(&mut out).await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        publisher.publish("late".into()).await.unwrap();
        writer.next(&mut out).await.unwrap();
        let since = Instant::now();
        for beats in 1..4 {
            out.clear();
            // A beat that wakes nobody fails, and does not hang.
            timeout(2 * HEARTBEAT, writer.next(&mut out)).await.unwrap().unwrap();
            assert_eq!((out.concat().as_slice(), since.elapsed()), (&b":\n"[..], HEARTBEAT * beats));
        }
    }
}
