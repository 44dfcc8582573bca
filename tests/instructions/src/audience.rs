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
    Feed, Start,
    format::{self, Cut, Format},
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
        let viewer = || {
            let woken = Arc::new(Woken(AtomicBool::new(true)));
            let waker = woken.clone().into();
            // A response's body has it on the heap as well.
            Viewer { written: Box::pin(format::write(feed.view(from, None), format)), woken, waker }
        };
        Self((0..viewers).map(|_| viewer()).collect())
    }

    /// Polls those who were woken until they wait again; how many bytes they got.
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
