//! Publishes to a feed that is stored: while chunks are on their way there, what arrives is gathered, and
//! goes together next.

use std::{
    collections::VecDeque,
    io,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use tokio::{
    io::AsyncRead,
    task::{coop::unconstrained, yield_now},
};

use super::{Broken, PublicationRequest, may_be_stored};
use crate::{
    feed::{KeeperError, NewChunk, PublishError, PublishedAll, Publisher, Receipt},
    source::chunker::{Chunker, MANY},
};

/// The most chunks that go together: as many as a batch of NATS takes.
const TOGETHER: usize = 1000;
/// How many bytes of the body are held, those on their way included, before the client has to wait. Half of that goes
/// together.
const HELD: usize = 1 << 20;

/// Publishes all chunks, in their order and each once.
pub(super) async fn publish(
    publisher: &Publisher,
    publication: &PublicationRequest,
    chunks: &mut Chunker<impl AsyncRead + Unpin>,
    is_over: &AtomicBool,
) -> Result<(), Broken> {
    let mut gathered = Gathered::default();
    let mut end = None;
    loop {
        // What is there goes together; nothing waits for more.
        while end.is_none()
            && gathered.has_room()
            // Otherwise what a task may do at once would end this after 128 chunks.
            && let Some(next) = unconstrained(chunks.next()).now_or_never()
        {
            end = gathered.add(next);
        }
        if gathered.chunks.is_empty() {
            match end {
                Some(end) => return end,
                None => end = gathered.add(chunks.next().await),
            }
            continue;
        }
        // What is stored elsewhere may be stored though nobody has said so.
        publication.set_in_doubt(true);
        let together = gathered.next(|ahead| publication.id(ahead));
        let given = together.len();
        let mut publishing = pin!(publisher.publish_all(together));
        let published = loop {
            tokio::select! {
                biased;
                published = &mut publishing => break published,
                next = chunks.next(), if end.is_none() && gathered.has_room() => end = gathered.add(next),
            }
        };
        let PublishedAll { receipts, mut error } = published;
        if receipts.is_empty() {
            error.get_or_insert_with(|| PublishError::Keeper(KeeperError::new("nothing was stored")));
        }
        gathered.were_taken(&receipts, given);
        for receipt in receipts {
            publication.add(receipt.cursor, receipt.size);
            gathered.is_stored(receipt.size);
        }
        publication.set_in_doubt(error.as_ref().is_some_and(may_be_stored));
        if let Some(error) = error {
            return Err(error.into());
        }
        if is_over.load(Ordering::Relaxed) {
            return Ok(());
        }
        if given > MANY {
            // The others have their turn.
            yield_now().await;
        }
    }
}

/// Chunks that are not known to be stored.
#[derive(Debug)]
struct Gathered {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    /// How many go together at most. Not many more than what stores the feed has taken: the rest would be given again.
    width: usize,
    /// So many bytes of what comes next are stored: they came before, and the body was cut otherwise.
    ahead: usize,
}

impl Default for Gathered {
    fn default() -> Self {
        Self { chunks: VecDeque::new(), bytes: 0, width: TOGETHER, ahead: 0 }
    }
}

impl Gathered {
    /// Whether to read on: for one batch while another is on its way.
    fn has_room(&self) -> bool {
        self.chunks.len() < 2 * TOGETHER && self.bytes < HELD
    }

    /// Takes what was read; returns how the body ended, when it has.
    fn add(&mut self, next: io::Result<Option<Bytes>>) -> Option<Result<(), Broken>> {
        match next {
            Ok(Some(chunk)) => {
                self.bytes += chunk.len();
                self.chunks.push_back(chunk);
                self.is_stored(0);
                None
            }
            Ok(None) => Some(Ok(())),
            Err(error) => Some(Err(error.into())),
        }
    }

    /// What goes together now. `id` is by what a chunk is known that begins so many bytes after the first.
    fn next(&self, id: impl Fn(usize) -> Option<String>) -> Vec<NewChunk> {
        let mut ahead = 0;
        let mut together = Vec::new();
        for chunk in self.chunks.iter().take(self.width) {
            together.push(NewChunk { bytes: chunk.clone(), id: id(ahead) });
            ahead += chunk.len();
            if ahead >= HELD / 2 {
                break;
            }
        }
        together
    }

    /// These of so many chunks were taken that were given together.
    fn were_taken(&mut self, taken: &[Receipt], given: usize) {
        let is_cut_otherwise = taken.iter().zip(&self.chunks).any(|(receipt, chunk)| receipt.size != chunk.len());
        self.width = match taken.len() {
            // What follows may be stored, too, and is not taken together then.
            _ if is_cut_otherwise => 1,
            taken if taken < given => (2 * taken).clamp(2, TOGETHER),
            _ => (2 * self.width).min(TOGETHER),
        };
    }

    /// So many bytes more are stored. That may be a part of a chunk, or more than there are yet.
    fn is_stored(&mut self, bytes: usize) {
        self.ahead += bytes;
        while self.ahead > 0
            && let Some(first) = self.chunks.front_mut()
        {
            let stored = self.ahead.min(first.len());
            first.advance(stored);
            self.ahead -= stored;
            self.bytes -= stored;
            if first.is_empty() {
                self.chunks.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests;
