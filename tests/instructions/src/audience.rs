//! Viewers that are polled by hand, each with its own waker as a task has.

use std::{
    hint::black_box,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use h3cast_feed::{
    Deliveries, Feed, Start,
    format::{Cut, Format, Framing, Writer},
};

type Written = Pin<Box<dyn Stream<Item = Result<Bytes, Cut>> + Send>>;

struct Viewer {
    written: Written,
    woken: Arc<Woken>,
    waker: Waker,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Viewers of one feed.
pub(crate) struct Audience(Vec<Viewer>);

impl Audience {
    pub(crate) fn new(feed: &Feed, from: Start, format: Format, viewers: usize) -> Self {
        Self::of(viewers, || Writer::new(feed.view(from, None), format, Framing::Plain))
    }

    /// The same, counted as a server counts its viewers.
    pub(crate) fn counted(feed: &Feed, format: Format, viewers: usize, deliveries: &Deliveries) -> Self {
        Self::of(viewers, || Writer::new(feed.view(Start::Now, None), format, Framing::Plain).count_in(deliveries))
    }

    fn of(viewers: usize, writer: impl Fn() -> Writer) -> Self {
        let viewer = || {
            let woken = Arc::new(Woken(AtomicBool::new(true)));
            let waker = woken.clone().into();
            // A response's body has it on the heap as well.
            Viewer { written: Box::pin(writer().into_stream()), woken, waker }
        };
        Self((0..viewers).map(|_| viewer()).collect())
    }

    /// Polls those that were woken until they wait again; returns how many bytes they got.
    pub(crate) fn deliver(&mut self) -> usize {
        let mut bytes = 0;
        for viewer in &mut self.0 {
            if viewer.woken.0.swap(false, Ordering::Relaxed) {
                viewer.poll(|piece| bytes += piece.len());
            }
        }
        bytes
    }

    /// All that the first one gets.
    pub(crate) fn written(&mut self) -> Vec<u8> {
        let mut stream = Vec::new();
        self.0[0].poll(|piece| stream.extend_from_slice(&piece));
        stream
    }
}

impl Viewer {
    fn poll(&mut self, mut got: impl FnMut(Bytes)) {
        let mut context = Context::from_waker(&self.waker);
        while let Poll::Ready(piece) = self.written.poll_next_unpin(&mut context) {
            got(black_box(piece.expect("it goes on").expect("nothing is missing")));
        }
    }
}
