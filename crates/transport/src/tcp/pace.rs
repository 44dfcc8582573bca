//! What responses of an HTTP/2 connection have in h2, and streams whose client gives no more credit, though it takes the
//! others'.
//!
//! h2 waits for credit by itself and does not show that. But it consumes what a body gave as it writes it, and each
//! response is a task that it gives us to spawn (`Tasks`): one whose client takes nothing of it is dropped, and h2
//! resets its stream (CANCEL). The end of a response that is complete by then is h2's, and goes only with the connection.
//!
//! h2 keeps up to 256 KiB of each stream. A few responses of a connection may have that; the others wait with a new piece
//! until little of theirs is left ([`Room`]).

use std::{
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum_core::body::Body;
use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use http_body::{Frame, SizeHint};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep},
};
use tokio_util::sync::PollSemaphore;

use crate::{connection::Cut, exchange::Exchange};

/// How many responses of a connection may have as much in h2 as it takes of one: 1 MiB, with its 256 KiB for each.
const LARGE: usize = 4;
/// What every response may have there, in bytes, and a piece of its body beyond.
const LEAST: u64 = 16 << 10;

/// The room that the responses of a connection share. Clones are of the same connection.
#[derive(Debug, Clone)]
pub(super) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LARGE)))
    }
}

/// How much of a response was given to h2, and how much of that has left.
#[derive(Debug, Clone)]
pub(super) struct Pace(Arc<PaceCount>);

#[derive(Debug)]
struct PaceCount {
    given: AtomicU64,
    left: AtomicU64,
    /// The task of the response, when it waits until little is left.
    waiting: AtomicWaker,
    room: Room,
    /// What the application cuts it with, until `while_taken` has that.
    cut: Mutex<Option<Cut>>,
    /// Learns how the connection ends.
    exchange: Mutex<Exchange>,
}

tokio::task_local! {
    static RESPONSE: Pace;
}

impl Pace {
    /// Of a response that begins.
    pub(super) fn new(room: &Room) -> Self {
        let (given, left) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(PaceCount {
            given,
            left,
            waiting: AtomicWaker::new(),
            room: room.clone(),
            cut: Mutex::default(),
            exchange: Mutex::default(),
        }))
    }

    /// Runs the task of a response, whose body it counts.
    fn scope<T>(self, task: impl Future<Output = T>) -> impl Future<Output = T> {
        RESPONSE.scope(self, task)
    }

    fn cut(&self) -> MutexGuard<'_, Option<Cut>> {
        self.0.cut.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exchange(&self) -> Exchange {
        std::mem::take(&mut *self.0.exchange.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All of it has left.
    fn all<T>(&self, end: T) -> Taken<T> {
        self.exchange().left();
        Taken::All(end)
    }

    /// What h2 has of it, in bytes.
    fn kept(&self) -> u64 {
        // In this order: what leaves was given before.
        let left = self.0.left.load(Ordering::Acquire);
        self.0.given.load(Ordering::Relaxed).saturating_sub(left)
    }
}

/// What has become of a response.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken<T> {
    /// It is complete, and has left.
    All(T),
    /// Its client took nothing for too long, and its task has been dropped.
    Cut,
    /// The same, and it was complete: h2 has what is left of it.
    Stuck,
    /// The application cut it, and its task has been dropped; if it was complete, h2 has what is left of it, which
    /// another [`while_taken`] waits for.
    CutByApplication { complete: bool },
}

/// Runs the task of a response while its client takes something of it now and then: within each `timeout`, looked at
/// every `pause`, and until the application cuts it; and waits until h2 has nothing left of it. While the whole
/// connection is `blocked`, it is not about this response. Without `pauses` only the application gives it up.
pub(super) async fn while_taken<T>(
    pace: Pace,
    task: impl Future<Output = T>,
    pauses: Option<(Duration, Duration)>,
    blocked: impl Fn() -> bool,
) -> Taken<T> {
    let mut task = pin!(Some(pace.clone().scope(task)));
    let (mut done, mut cut) = (None, None);
    let mut timer = pin!(sleep(Duration::ZERO));
    // How much had left, and when that was seen first; `None` while everything has.
    let mut last: Option<(u64, Instant)> = None;
    std::future::poll_fn(|cx| {
        if let Some(running) = task.as_mut().as_pin_mut()
            && let Poll::Ready(end) = running.poll(cx)
        {
            done = Some(end);
            // With its body, and what that holds.
            task.set(None);
        }
        if cut.is_none() {
            cut = pace.cut().take().map(|cut| Box::pin(cut.is_cut()));
        }
        if cut.as_mut().is_some_and(|cut| cut.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Taken::CutByApplication { complete: done.is_some() });
        }
        let Some((timeout, pause)) = pauses else {
            return done.take().map_or(Poll::Pending, |end| Poll::Ready(pace.all(end)));
        };
        loop {
            if done.is_some() {
                pace.0.waiting.register(cx.waker());
            }
            let left = pace.0.left.load(Ordering::Acquire);
            if left == pace.0.given.load(Ordering::Relaxed) {
                last = None;
                return done.take().map_or(Poll::Pending, |end| Poll::Ready(pace.all(end)));
            }
            let Some((before, since)) = &mut last else {
                last = Some((left, Instant::now()));
                timer.as_mut().reset(Instant::now() + pause);
                continue;
            };
            ready!(timer.as_mut().poll(cx));
            if left != *before || blocked() {
                (*before, *since) = (left, Instant::now());
            } else if since.elapsed() >= timeout {
                // Before its body is dropped.
                pace.exchange().cut();
                return Poll::Ready(if done.is_some() { Taken::Stuck } else { Taken::Cut });
            }
            timer.as_mut().reset(Instant::now() + pause);
        }
    })
    .await
}

/// A body that counts, over HTTP/2, what it gives.
pub(super) struct Paced {
    body: Body,
    pace: Option<Pace>,
    /// Asks for room, when it has to.
    asking: Option<PollSemaphore>,
    room: Option<OwnedSemaphorePermit>,
}

impl Paced {
    /// Inside the task of its response.
    pub(super) fn new(body: Body) -> Self {
        Self { body, pace: RESPONSE.try_with(Pace::clone).ok(), asking: None, room: None }
    }

    /// The same of one that an application may cut, and whose end it may want to know.
    pub(super) fn cut_by(self, cut: Option<Cut>, exchange: &Exchange) -> Self {
        if let (Some(pace), Some(cut)) = (&self.pace, cut) {
            if exchange.is_watched() {
                exchange.cut_with(|| cut.token());
            }
            *pace.cut() = Some(cut);
        }
        if let Some(pace) = self.pace.as_ref().filter(|_| exchange.is_watched()) {
            *pace.0.exchange.lock().unwrap_or_else(PoisonError::into_inner) = exchange.clone();
        }
        self
    }

    /// Waits until it may give h2 another piece.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(pace) = &self.pace else { return Poll::Ready(()) };
        let mut is_little = pace.kept() < LEAST;
        if !is_little && self.room.is_none() {
            pace.0.waiting.register(cx.waker());
            is_little = pace.kept() < LEAST;
        }
        if is_little {
            // Both are for others.
            (self.asking, self.room) = (None, None);
        } else if self.room.is_none() {
            let asking = self.asking.get_or_insert_with(|| PollSemaphore::new(pace.0.room.0.clone()));
            self.room = ready!(asking.poll_acquire(cx));
            self.asking = None;
        }
        Poll::Ready(())
    }
}

impl http_body::Body for Paced {
    type Data = Piece;
    type Error = axum_core::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, Self::Error>>> {
        ready!(self.poll_room(cx));
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| Ok(frame?.map_data(|bytes| Piece::new(bytes, self.pace.clone())))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A piece of a body, until it has left.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    pace: Option<Pace>,
}

impl Piece {
    fn new(bytes: Bytes, pace: Option<Pace>) -> Self {
        if let Some(pace) = &pace {
            pace.0.given.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Self { bytes, pace }
    }

    fn left(&self, size: usize) {
        if let Some(pace) = &self.pace {
            pace.0.left.fetch_add(size as u64, Ordering::Release);
            if pace.kept() < LEAST {
                pace.0.waiting.wake();
            }
        }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.left(count);
    }
}

impl Drop for Piece {
    /// h2 drops what it does not send any more.
    fn drop(&mut self) {
        self.left(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    use super::*;

    const TIMES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(10));

    /// The time until a response of one piece is given up, whose client takes a byte `every` so often.
    async fn given_up(size: usize, every: Duration, blocked: bool) -> Option<Duration> {
        let begun = Instant::now();
        let task = async {
            let mut body = Paced::new(Body::from(vec![0; size]));
            let mut piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            // As h2 does: not in the task of the response.
            let taking = tokio::spawn(async move {
                while piece.has_remaining() {
                    sleep(every).await;
                    piece.advance(1);
                }
            });
            taking.await.unwrap();
        };
        let taken = while_taken(Pace::new(&Room::default()), task, Some(TIMES), || blocked).await;
        (taken == Taken::Cut).then(|| begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_of_which_nothing_is_taken_is_given_up() {
        let never = Duration::from_secs(100_000);
        assert_eq!(given_up(1, never, false).await, Some(TIMES.0));
        // A connection that takes nothing at all is handled by `stalled`.
        assert_eq!(given_up(1, never, true).await, None);
        assert_eq!(given_up(100, Duration::from_secs(50), false).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_waits_for_more_to_send_is_not() {
        let waiting = tokio::time::timeout(Duration::from_secs(100_000), async {
            while_taken(Pace::new(&Room::default()), std::future::pending::<()>(), Some(TIMES), || false).await
        });
        assert!(waiting.await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_complete_response_that_stays_is_stuck() {
        let (pace, begun) = (Pace::new(&Room::default()), Instant::now());
        let (given, kept) = tokio::sync::oneshot::channel();
        let task = async {
            let mut body = Paced::new(Body::from("all of it"));
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            drop(given.send(piece));
        };
        assert_eq!(while_taken(pace, task, Some(TIMES), || false).await, Taken::Stuck);
        assert_eq!(begun.elapsed(), TIMES.0);
        drop(kept);
        // One that leaves is none, however late.
        let pace = Pace::new(&Room::default());
        let task = async {
            let mut body = Paced::new(Body::from("all of it"));
            let piece = body.frame().await.unwrap();
            tokio::spawn(async move {
                sleep(TIMES.0 * 2 / 3).await;
                drop(piece);
            });
        };
        assert_eq!(while_taken(pace, task, Some(TIMES), || false).await, Taken::All(()));
    }

    #[tokio::test]
    async fn a_few_responses_have_more_than_the_least() {
        let room = Room::default();
        let endless =
            || Body::from_stream(futures_util::stream::repeat_with(|| Ok::<_, axum_core::Error>(vec![0; 10 << 10])));
        let body = || Pace::new(&room).scope(async { Paced::new(endless()) });
        let (mut bodies, mut kept) = (Vec::new(), Vec::new());
        for turn in 0..10 {
            let mut body = body().await;
            // 20 KiB.
            let mut pieces: Vec<_> = (0..2).map(|_| body.frame().now_or_never().unwrap()).collect();
            let more = body.frame().now_or_never();
            assert_eq!(more.is_some(), turn < LARGE, "response {turn}");
            pieces.extend(more);
            bodies.push(body);
            kept.push(pieces);
        }
        // One of them has left to the end: another may have more; and one of which enough has left goes on by itself.
        kept[0].clear();
        assert!(bodies[0].frame().now_or_never().is_some());
        let more = futures_util::future::poll_fn(|cx| Pin::new(&mut bodies[4].frame()).poll(cx)).await;
        drop(more);
        kept[9].pop();
        assert!(bodies[9].frame().now_or_never().is_some());
        assert!(bodies[7].frame().now_or_never().is_none());
    }
}
