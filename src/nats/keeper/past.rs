//! Reads what is older than the ring.

use async_nats::jetstream::consumer::PullConsumer;
use futures_util::StreamExt;

use super::{JetStream, chunk, epoch, seq};
use crate::{
    chunk::Epoch,
    feed::{Keeper, Past},
    nats::error::KeepError,
};

/// How many chunks, and how many bytes, are read of the past at once; one chunk may be larger. A viewer
/// holds them until it has written them.
const READ_CHUNKS: usize = 256;
const READ_BYTES: usize = 64 << 10;

impl JetStream {
    /// Reads what the consumer brings next, at most so many chunks. Whether that was all.
    async fn read_some(&self, consumer: &PullConsumer, chunks: usize, past: &mut Past) -> Result<bool, KeepError> {
        let fetch = consumer.fetch().max_messages(chunks);
        // The server refuses a message that is larger than what is asked for.
        let fetch = if chunks == 1 { fetch } else { fetch.max_bytes(READ_BYTES) };
        let mut messages = fetch.messages().await.map_err(KeepError::nats)?;
        let mut all = false;
        while let Some(message) = messages.next().await {
            let Ok(message) = message else { break };
            let about = message.info().map_err(KeepError::nats)?;
            let chunk = chunk(&message).map_err(KeepError::nats)?;
            let apart = past.chunks.last().is_some_and(|last| chunk.seq != last.seq + 1);
            // Lost on the way, or dropped while it was looked for: the next reading tells.
            if about.consumer_sequence != past.chunks.len() as u64 + 1 || (apart && !self.is_sparse()) {
                return Ok(false);
            }
            all = about.pending == 0;
            past.chunks.push(chunk);
        }
        Ok(all)
    }

    pub(super) async fn read_past(&self, wanted: Epoch, next: u64) -> Result<Past, KeepError> {
        let info = self.info().await?;
        if epoch(&info) != wanted {
            return Err(KeepError::Recreated);
        }
        let first = seq(info.state.first_sequence);
        let end = info.state.last_sequence;
        let mut past = Past { first, chunks: Vec::new(), next: next.max(first) };
        if past.next >= end {
            return Ok(Past { next: past.next.max(end), ..past });
        }
        let consumer = self.consumer(past.next).await?;
        let left = consumer.cached_info().num_pending;
        let mut all = left == 0;
        if !all {
            all = self.read_some(&consumer, READ_CHUNKS, &mut past).await?;
            if past.chunks.is_empty() {
                // The next one alone is larger than that.
                all = self.read_some(&consumer, 1, &mut past).await?;
            }
        }
        let name = consumer.cached_info().name.clone();
        // It would go by itself, after a while.
        let _ = self.handle().await?.delete_consumer(&name).await;
        if let Some(found) = past.chunks.first()
            && !self.is_sparse()
        {
            // What is between was dropped while it was looked for.
            past.first = past.first.max(if found.seq > next { found.seq } else { 0 });
        }
        match (past.chunks.last(), all) {
            (Some(last), _) => past.next = last.seq + 1,
            (None, true) => past.next = past.next.max(end),
            (None, false) => return Err(KeepError::Nothing),
        }
        Ok(past)
    }
}
