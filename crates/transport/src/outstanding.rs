//! Knowing when a transport has let go of bytes that were written to it.
//!
//! To reset a stream drops what it still holds. quinn does not report when what was written is
//! acknowledged, short of the end of its stream, nor h2 when it has left. But both keep the `Bytes`
//! that they are given until then, so the drop of its owner tells.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use tokio::time::{Instant, timeout};

use crate::quic::Connection;

/// How long a stream that breaks off waits for a peer that receives nothing of what was written before. Less
/// than the time between two keep-alives, whose acknowledgements show nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How many round trips it waits at least: what is lost at the end of a long queue is sent again after two.
const ROUND_TRIPS: u32 = 3;

/// How long it waits for a peer that keeps receiving. Over QUIC at most a megabyte is on its way, so that a
/// link of 20 kB/s is fast enough.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);

/// How often it is looked whether a peer keeps receiving.
const LOOK: Duration = Duration::from_secs(1);

/// How long a peer that has everything gets to read it before the stream is reset: it may drop what its
/// application has not read by then (RFC 9000 §3.2). With both cores busy, a reset right after the
/// acknowledgement cost most viewers on quinn everything, and one in 50 sessions of Chromium; after
/// 100 ms it still cost some on quinn. curl and Chromium's fetch lost nothing either way.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// What was [held](Self::hold) and has not been let go yet. One task waits for that.
#[derive(Debug, Clone, Default)]
pub struct Outstanding(Arc<HeldCount>);

#[derive(Debug, Default)]
struct HeldCount {
    held: AtomicUsize,
    waiting: AtomicWaker,
}

struct Held {
    bytes: Bytes,
    shared: Arc<HeldCount>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.shared.held.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.waiting.wake();
        }
    }
}

impl Outstanding {
    /// The same bytes, to be written: they count until their last clone is dropped.
    pub fn hold(&self, bytes: Bytes) -> Bytes {
        self.0.held.fetch_add(1, Ordering::Relaxed);
        Bytes::from_owner(Held { bytes, shared: self.0.clone() })
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.waiting.register(cx.waker());
        match self.0.held.load(Ordering::Acquire) {
            0 => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    /// Whether nothing is held. Unlike a poll of [`none`](Self::none), it does not replace the task that waits.
    #[cfg(feature = "tcp")]
    pub(crate) fn is_none(&self) -> bool {
        self.0.held.load(Ordering::Acquire) == 0
    }

    /// Waits until nothing is held any more. Cancel-safe.
    pub async fn none(&self) {
        poll_fn(|cx| self.poll(cx)).await;
    }
}

/// Waits for something that needs the peer of a QUIC connection to receive and read what was written to it:
/// while it does, for at most a minute, and no longer than five seconds (or three round trips) when it does not.
/// `None` when that was not enough.
pub async fn while_receiving<T>(conn: &Connection, awaited: impl Future<Output = T>) -> Option<T> {
    // Each acknowledgement of something new changes the smoothed round-trip time, also when the last packets
    // have left and nothing else comes from a slow link. Their number would not do: a client that has lost its
    // way back repeats them. Credit: a peer that has everything may still be reading it.
    let progress = || {
        let traffic = conn.traffic();
        (traffic.rtt, traffic.credits)
    };
    while_progressing(progress, || PATIENCE.max(ROUND_TRIPS * conn.traffic().rtt), awaited).await
}

/// Waits for something while there is progress: what `progress` gives changes within `patience`, and for at
/// most a minute.
pub(crate) async fn while_progressing<P: PartialEq, T>(
    progress: impl Fn() -> P,
    patience: impl Fn() -> Duration,
    awaited: impl Future<Output = T>,
) -> Option<T> {
    let mut awaited = pin!(awaited);
    let begun = Instant::now();
    let (mut before, mut last) = (progress(), begun);
    loop {
        if let Ok(value) = timeout(LOOK, &mut awaited).await {
            return Some(value);
        }
        let now = progress();
        if now != before {
            (before, last) = (now, Instant::now());
        }
        if last.elapsed() >= patience() || begun.elapsed() >= LONGEST {
            return None;
        }
    }
}

/// Waits until the peer of a QUIC connection, which has everything, has had the time to read it: as long
/// as it gives more credit it is still reading.
pub async fn read(conn: &Connection) {
    while_reading(|| conn.traffic().credits).await;
}

async fn while_reading(credit: impl Fn() -> u64) {
    loop {
        let before = credit();
        tokio::time::sleep(LINGER).await;
        if credit() == before {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn ends_when_the_last_piece_is_dropped() {
        let outstanding = Outstanding::default();
        assert_eq!(outstanding.none().now_or_never(), Some(()));
        // An empty one too: it is enough to mark a place.
        let (mut text, empty) = (outstanding.hold("text".into()), outstanding.hold(Bytes::new()));
        assert_eq!((&text[..], &empty[..]), (&b"text"[..], &b""[..]));
        let front = text.split_to(2);
        drop((text, empty));
        assert_eq!(outstanding.none().now_or_never(), None);
        drop(front);
        assert_eq!(outstanding.none().now_or_never(), Some(()));
    }

    /// How long it waits for something that never comes.
    async fn waited(patience: Duration, progress: impl Fn(Duration) -> u64) -> Duration {
        let begun = Instant::now();
        let never = std::future::pending::<()>();
        assert_eq!(while_progressing(|| progress(begun.elapsed()), || patience, never).await, None);
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn waits_while_there_is_progress() {
        assert_eq!(waited(PATIENCE, |_| 0).await, PATIENCE);
        assert_eq!(waited(2 * PATIENCE, |_| 0).await, 2 * PATIENCE);
        // Until the ninth second, in steps of three.
        assert_eq!(waited(PATIENCE, |time| time.as_secs().min(9) / 3).await, Duration::from_secs(9) + PATIENCE);
        assert_eq!(waited(PATIENCE, |time| time.as_secs()).await, LONGEST);
        // As keep-alives come.
        assert_eq!(waited(PATIENCE, |time| time.as_secs() / 12).await, PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_slowly_gets_all() {
        let begun = Instant::now();
        let credit = || begun.elapsed().as_secs().min(20);
        assert_eq!(while_progressing(credit, || PATIENCE, while_reading(credit)).await, Some(()));
        assert_eq!(begun.elapsed(), Duration::from_secs(20) + LINGER);
    }

    #[tokio::test]
    async fn wakes_who_waits() {
        let outstanding = Outstanding::default();
        let held = outstanding.hold("text".into());
        let waiting = tokio::spawn({
            let outstanding = outstanding.clone();
            async move { outstanding.none().await }
        });
        tokio::task::yield_now().await;
        drop(held);
        waiting.await.unwrap();
    }
}
