//! The demo: `data chunk #0`, `data chunk #1` …, each a line, at a steady pace.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::time::Instant;

use crate::feed::{Feed, FeedError};

/// A demo feed: `count` chunks (0: without end), one each `interval`, the first at once.
#[must_use]
pub fn feed(name: &str, count: u64, interval: Duration) -> Feed {
    Feed::replayable(name, move |first| chunks(first, count, interval))
}

fn chunks(first: u64, count: u64, interval: Duration) -> impl Stream<Item = Result<Bytes, FeedError>> + Send {
    let start = Instant::now();
    stream::unfold(first, move |number| async move {
        if count > 0 && number >= count {
            return None;
        }
        // Counted from the start, so that delays do not add up; a late chunk comes at once.
        let due = u32::try_from(number - first).ok().and_then(|number| interval.checked_mul(number));
        match due.and_then(|due| start.checked_add(due)) {
            Some(due) => tokio::time::sleep_until(due).await,
            None => tokio::time::sleep(interval).await,
        }
        Some((Ok(Bytes::from(format!("data chunk #{number}\n"))), number + 1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    #[tokio::test(start_paused = true)]
    async fn ten_chunks_at_a_steady_pace() {
        let start = Instant::now();
        let chunks: Vec<_> = chunks(0, 10, Duration::from_millis(100))
            .map(|chunk| (start.elapsed().as_millis(), chunk.unwrap()))
            .collect()
            .await;
        for (number, (at, bytes)) in chunks.iter().enumerate() {
            assert_eq!(bytes, format!("data chunk #{number}\n").as_bytes());
            assert_eq!(*at / 10, number as u128 * 10);
        }
        assert_eq!(chunks.len(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn count_zero_does_not_end() {
        assert_eq!(chunks(7, 0, Duration::from_secs(1)).take(10_000).count().await, 10_000);
    }
}
