//! Stores chunks together, as atomic batches of JetStream (ADR-50, nats-server 2.12 and newer): all of one are stored,
//! or none is.

use std::{
    ops::RangeInclusive,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{
    HeaderMap, Request, RequestErrorKind, header,
    jetstream::{self, ErrorCode, stream::DiscardPolicy},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::{
    JetStream,
    publish::{Stored, refuses},
    seq,
};
use crate::{
    chunk::Cursor,
    feed::{NewChunk, PublishedAll, Receipt},
    nats::{counts::Publishing, error::KeepError},
};

/// The most chunks in a batch, which is what nats-server takes if it is not told otherwise.
const CHUNKS: usize = 1000;
/// The most bytes of them: over a slow connection, too, a batch is not long on its way.
const BYTES: usize = 256 << 10;
/// How long a batch may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How often batches are tried for chunks of which one was refused. There are other reasons than that some are stored.
const TRIES: usize = 3;
/// When a stream that takes no batches is asked again whether it does.
const ASK: Duration = Duration::from_secs(60);
/// The stream takes no batches.
const DISABLED: ErrorCode = ErrorCode(10174);
/// What only batches are refused for: a known id is among them.
const BATCH: RangeInclusive<u64> = 10_174..=10_211;
/// A batch has more messages than the server lets one have.
const TOO_LARGE: ErrorCode = ErrorCode(10199);

/// What batches a stream takes, as was seen last.
#[derive(Debug, Default)]
pub(super) struct Batches(Mutex<Option<Seen>>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Of so many chunks; of one when it takes none.
    most: usize,
    at: Instant,
    /// How often the connection had been lost by then: the server may be another by now.
    losses: u64,
}

/// Why a batch was not taken. Its chunks may be stored all the same.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error(transparent)]
    Keep(#[from] KeepError),
    #[error("it was refused: {0}")]
    Refused(jetstream::Error),
    #[error("the answer is not that to a batch")]
    Unknown,
}

/// What a server answers to the last message of a batch.
#[derive(Debug, Deserialize)]
struct Answer {
    error: Option<jetstream::Error>,
    /// The number of the last message; those before it have the numbers before it.
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    batch: String,
    #[serde(default)]
    count: u64,
}

impl JetStream {
    /// See [`Keeper::publish_all`](crate::feed::Keeper::publish_all).
    pub(super) async fn publish_together(&self, chunks: Vec<NewChunk>) -> PublishedAll {
        let mut most = if chunks.len() > 1 { self.most_in_batch().await } else { 1 };
        let fitting = fitting(&chunks, most);
        let chunks: Vec<_> = chunks.into_iter().take(fitting).map(|new| (new.bytes, self.message_id(new.id))).collect();
        let (mut published, mut left) = (PublishedAll::default(), &chunks[..]);
        let (mut refused, mut known, mut in_doubt) = (0, false, false);
        while let [(bytes, id), rest @ ..] = left {
            let (together, after) = left.split_at(most.min(left.len()));
            // After a chunk that was stored before, the next one may be, too.
            if together.len() > 1 && !known && refused < TRIES {
                let (since, sent) = (Instant::now(), AtomicBool::default());
                match self.try_batch(together, &sent).await {
                    Ok(receipts) => {
                        published.receipts.extend(receipts);
                        left = after;
                        continue;
                    }
                    Err(error) => {
                        debug!(%error, stream = self.stream.name, "a batch was not taken");
                        if let Some(fewer) = error.fewer(together.len()) {
                            self.batches.set_most(fewer);
                            most = fewer;
                            continue;
                        }
                        refused += 1;
                        in_doubt |= sent.into_inner() && error.may_be_stored() && !self.was_denied(since);
                    }
                }
            }
            // By its id it is stored once, whatever has become of the batch: it is found to be stored, or it is stored
            // now, and a batch with it that arrives late is refused.
            match self.publish_soon(bytes.clone(), id, in_doubt).await {
                Ok(Stored { receipt, duplicate }) => {
                    known = duplicate;
                    // If a batch with it were stored, it would be known.
                    in_doubt &= duplicate;
                    published.receipts.push(receipt);
                    if receipt.size != bytes.len() {
                        break;
                    }
                }
                Err(error) => {
                    published.error = Some(error);
                    break;
                }
            }
            left = rest;
        }
        published
    }

    /// How many chunks the stream takes in a batch now.
    async fn most_in_batch(&self) -> usize {
        let losses = self.connection.state.borrow().losses;
        if let Some(seen) = self.batches.get()
            && seen.losses == losses
            && (seen.most > 1 || seen.at.elapsed() < ASK)
        {
            return seen.most;
        }
        let Ok(Ok(info)) = timeout(ANSWER, self.info()).await else { return 1 };
        let config = info.config;
        // One that refuses what is too much might take a chunk and not the one before it.
        let takes = config.allow_atomic_publish && !config.sealed && config.discard == DiscardPolicy::Old;
        let most = if takes { CHUNKS } else { 1 };
        self.batches.set(Seen { most, at: Instant::now(), losses });
        most
    }

    /// Stores chunks as one batch.
    async fn try_batch(
        &self,
        chunks: &[(Bytes, String)],
        sent: &AtomicBool,
    ) -> Result<impl Iterator<Item = Receipt> + use<>, NotTaken> {
        if !self.connection.is_connected() {
            return Err(KeepError::Disconnected.into());
        }
        // A stream takes so many at once, from all servers together.
        let _place = self.connection.batches.acquire().await.map_err(KeepError::nats)?;
        let epoch = self.checked_epoch()?;
        let publishing: Vec<_> = chunks.iter().map(|_| self.connection.counts.publishing()).collect();
        sent.store(true, Ordering::Relaxed);
        let first = match timeout(ANSWER, self.send_batch(chunks)).await {
            Ok(first) => first?,
            Err(_) => return Err(KeepError::Silent.into()),
        };
        // All of them took that time, once.
        publishing.iter().take(1).for_each(Publishing::acknowledged);
        self.leader.fullness.stored();
        if self.checked_epoch()? != epoch {
            return Err(KeepError::Recreated.into());
        }
        let sizes: Vec<_> = chunks.iter().map(|(bytes, _)| bytes.len()).collect();
        let receipt = move |(number, size)| Receipt { cursor: Cursor { epoch, seq: seq(number) }, size };
        Ok((first..).zip(sizes).map(receipt))
    }

    /// Sends a batch, and returns the number of its first message in the stream.
    async fn send_batch(&self, chunks: &[(Bytes, String)]) -> Result<u64, NotTaken> {
        let mut batch = [0; 6];
        crate::identity::provider().secure_random.fill(&mut batch).map_err(|_| NotTaken::Unknown)?;
        let batch = URL_SAFE_NO_PAD.encode(batch);
        let now = self.connection.now();
        let client = &now.client;
        let Some(((last, last_id), before)) = chunks.split_last() else { return Err(NotTaken::Unknown) };
        let headers = |number: usize, id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::NATS_BATCH_ID, batch.as_str());
            headers.insert(header::NATS_BATCH_SEQUENCE, number.to_string());
            headers.insert(header::NATS_MESSAGE_ID, id);
            headers
        };
        // Only the last one is answered.
        for (number, (bytes, id)) in (1..).zip(before) {
            let mut headers = headers(number, id);
            if number == 1 {
                headers.insert(header::NATS_EXPECTED_STREAM, self.stream.name.as_str());
            }
            let sent = client.publish_with_headers(self.subject.clone(), headers, bytes.clone());
            sent.await.map_err(KeepError::nats)?;
        }
        let mut headers = headers(chunks.len(), last_id);
        headers.insert(header::NATS_BATCH_COMMIT, header::NATS_BATCH_COMMIT_FINAL);
        let request = Request::new().headers(headers).payload(last.clone()).timeout(Some(ANSWER));
        let answered = client.send_request(self.subject.clone(), request).await;
        let answer = answered.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => KeepError::NoStream,
            _ => KeepError::nats(error),
        })?;
        let answer: Answer = serde_json::from_slice(&answer.payload).map_err(KeepError::nats)?;
        if let Some(error) = answer.error {
            return Err(NotTaken::Refused(error));
        }
        // A server that knows no batches would have stored its messages one by one.
        let count = chunks.len() as u64;
        match answer.batch == batch && answer.count == count && answer.seq >= count {
            true => Ok(answer.seq - count + 1),
            false => Err(NotTaken::Unknown),
        }
    }
}

impl Batches {
    fn get(&self) -> Option<Seen> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, seen: Seen) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
    }

    fn set_most(&self, most: usize) {
        if let Some(seen) = self.get() {
            self.set(Seen { most, at: Instant::now(), ..seen });
        }
    }
}

impl NotTaken {
    /// Whether its chunks may be stored all the same, once it was sent.
    fn may_be_stored(&self) -> bool {
        match self {
            // None of a batch is stored that is refused for what batches are.
            Self::Refused(error) => !refuses(error) && !BATCH.contains(&error.error_code().0),
            Self::Keep(KeepError::NoStream) => false,
            Self::Keep(_) | Self::Unknown => true,
        }
    }

    /// How many chunks to give to the stream from now on, if one of so many is too much for it.
    fn fewer(&self, chunks: usize) -> Option<usize> {
        let Self::Refused(error) = self else { return None };
        match error.error_code() {
            DISABLED => Some(1),
            TOO_LARGE => Some(chunks / 2),
            _ => None,
        }
    }
}

/// How many of the chunks go together: one at least.
fn fitting(chunks: &[NewChunk], most: usize) -> usize {
    let mut bytes = 0;
    let fit = chunks.iter().take(most).take_while(|chunk| {
        bytes += chunk.bytes.len();
        bytes <= BYTES
    });
    fit.count().max(1)
}
