//! Streams of an HTTP/2 connection whose client gives no more credit, though it takes the others'.
//!
//! h2 waits for credit by itself and does not show that. But it consumes what a body gave as it writes it, and each
//! response is a task that it gives us to spawn (`Tasks`): one whose client takes nothing of it is dropped, and h2
//! resets its stream (CANCEL). A response that is complete by then, whose end h2 holds, has no task and is left; it
//! does not keep its connection once that carries nothing else ([`without_credit`]).

use std::{
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum_core::body::Body;
use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, sleep};

use super::flushed::Flushes;

/// How much of a response was given to h2, and how much of that has left.
#[derive(Debug, Clone, Default)]
struct Pace(Arc<PaceCount>);

#[derive(Debug, Default)]
struct PaceCount {
    given: AtomicU64,
    left: AtomicU64,
}

tokio::task_local! {
    static RESPONSE: Pace;
}

/// Runs the task of a response while its client takes something of it now and then: within each `timeout`, looked at
/// every `pause`. `None` when it did not; then `task` has been dropped. While the whole connection is `blocked`, it
/// is not about this response.
pub(super) async fn while_taken<T>(
    task: impl Future<Output = T>,
    (timeout, pause): (Duration, Duration),
    blocked: impl Fn() -> bool,
) -> Option<T> {
    let pace = Pace::default();
    let mut task = pin!(RESPONSE.scope(pace.clone(), task));
    let mut timer = pin!(sleep(Duration::ZERO));
    // How much had left, and when that was seen first; `None` while everything has.
    let mut last: Option<(u64, Instant)> = None;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(done) = task.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        loop {
            let left = pace.0.left.load(Ordering::Acquire);
            if left == pace.0.given.load(Ordering::Relaxed) {
                last = None;
                return Poll::Pending;
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
                return Poll::Ready(None);
            }
            timer.as_mut().reset(Instant::now() + pause);
        }
    })
    .await
}

/// Waits until `is_stuck` was seen for `timeout`, looked at every `pause`, and the connection wrote nothing meanwhile
/// though it could.
pub(super) async fn without_credit(
    (timeout, pause): (Duration, Duration),
    flushes: &Flushes,
    is_stuck: impl Fn() -> bool,
) {
    let (mut before, mut since) = (flushes.written(), Instant::now());
    loop {
        sleep(pause).await;
        let written = flushes.written();
        if written != before || flushes.is_blocked() || !is_stuck() {
            (before, since) = (written, Instant::now());
        } else if since.elapsed() >= timeout {
            return;
        }
    }
}

/// A body that counts, over HTTP/2, what it gives.
pub(super) struct Paced {
    body: Body,
    pace: Option<Pace>,
}

impl Paced {
    /// Inside the task of its response.
    pub(super) fn new(body: Body) -> Self {
        Self { body, pace: RESPONSE.try_with(Pace::clone).ok() }
    }
}

impl http_body::Body for Paced {
    type Data = Piece;
    type Error = axum_core::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, Self::Error>>> {
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
    use http_body_util::BodyExt;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::{
        limits::Limits,
        tcp::{ending::Ending, flushed::Flushed, opening::Openings, waiting::Waiting},
    };

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
        let taken = while_taken(task, TIMES, || blocked).await;
        taken.is_none().then(|| begun.elapsed())
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
            while_taken(std::future::pending::<()>(), TIMES, || false).await
        });
        assert!(waiting.await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_writes_has_credit() {
        let (flushes, begun) = (Flushes::default(), Instant::now());
        let ending = Ending::new(None, ([127, 0, 0, 1], 9).into());
        let waiting = Waiting::new(&Limits::default(), None);
        let mut connection = Flushed::new(tokio::io::sink(), flushes.clone(), Openings::default(), ending, waiting);
        let writing = async {
            for _ in 0..9 {
                sleep(Duration::from_secs(55)).await;
                connection.write_all(b"a").await.unwrap();
            }
        };
        tokio::join!(without_credit(TIMES, &flushes, || true), writing);
        assert_eq!(begun.elapsed(), Duration::from_secs(500) + TIMES.0);
        // Nor is one that carries something, here until the 700th second.
        without_credit(TIMES, &flushes, || begun.elapsed().as_secs() > 700).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(700) + TIMES.0);
    }
}
