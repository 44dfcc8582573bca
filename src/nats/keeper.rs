//! A feed that is one subject of a JetStream stream.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_nats::jetstream::{
    self, ErrorCode,
    consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
    context::PublishErrorKind,
    message::PublishMessage,
    stream::{Info, RawMessageErrorKind, Stream},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::{StreamExt, future::BoxFuture};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use super::{
    connection::Link,
    ensure::StreamInfo,
    error::{KeepError, NatsError},
};
use crate::{
    chunk::{Chunk, Cursor, Epoch},
    feed::{Feed, FeedError, Filler, Keeper, KeeperError, Past, PublishError, Receipt},
    panics,
    source::Feeding,
};

/// For how long publishing is tried: a cluster that chooses a new leader takes less.
const PUBLISH: Duration = Duration::from_secs(6);
/// The time between two tries.
pub(super) const AGAIN: Duration = Duration::from_millis(250);
/// How often a consumer with nothing to bring says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long the server keeps a consumer that nobody asks.
const INACTIVE: Duration = Duration::from_secs(30);
/// The longest time between two attempts to fill a feed.
const LONGEST_AGAIN: Duration = Duration::from_secs(2);
/// How many chunks, and how many bytes, are read of the past at once; one chunk may be larger. A viewer
/// holds them until it has written them.
const READ_CHUNKS: usize = 256;
const READ_BYTES: usize = 64 << 10;
/// How many chunks before the newest the ring has when the server starts: those who come again then are
/// a few chunks behind.
const BEFORE: u64 = 1000;
/// How long one such reading may take.
const READ: Duration = Duration::from_secs(10);

/// See the module's text.
pub(super) struct JetStream {
    connection: Link,
    stream: StreamInfo,
    subject: String,
    writable: bool,
    /// The run of numbers that chunks are published to.
    epoch: AtomicU64,
    /// The stream is the one that the ring is of, as was seen since the connection was lost last.
    checked: AtomicBool,
    /// Tells this server's chunks from those of others.
    origin: String,
    published: AtomicU64,
}

/// The feed's number of what has that number in its stream.
fn seq(sequence: u64) -> u64 {
    sequence.saturating_sub(1)
}

/// The epoch of a stream: when it was made, in milliseconds.
fn epoch(info: &Info) -> Epoch {
    Epoch(u64::try_from(info.created.unix_timestamp_nanos() / 1_000_000).unwrap_or_default())
}

/// What fills a feed. Dropped before it has begun, as when the server does not start, or another viewer was
/// faster to ask for the same feed, it is not a feed that failed.
struct Unfilled {
    /// Until it begins.
    feed: Option<Feed>,
    filler: Filler,
}

impl Drop for Unfilled {
    fn drop(&mut self) {
        if let Some(feed) = &self.feed {
            feed.stop();
        }
    }
}

impl JetStream {
    pub(super) fn new(connection: Link, stream: StreamInfo, subject: String, writable: bool) -> Arc<Self> {
        let mut origin = [0; 9];
        let _ = crate::identity::provider().secure_random.fill(&mut origin);
        Arc::new(Self {
            connection,
            stream,
            subject,
            writable,
            epoch: AtomicU64::default(),
            checked: AtomicBool::default(),
            origin: URL_SAFE_NO_PAD.encode(origin),
            published: AtomicU64::default(),
        })
    }

    /// The feed, which begins at what is published next, and what fills it.
    pub(super) async fn feed(self: &Arc<Self>, name: &str, history: usize) -> Result<(Feed, Feeding), NatsError> {
        let failed = |error| NatsError::Stream { stream: self.stream.name.clone(), source: Box::new(error) };
        let info = self.info().await.map_err(failed)?;
        let epoch = epoch(&info);
        self.epoch.store(epoch.0, Ordering::Relaxed);
        let (next, now) = self.begins(&info);
        let (feed, filler) = Feed::kept(name, self.clone(), history, epoch, next, now);
        let (keeper, mut unfilled) = (self.clone(), Unfilled { feed: Some(feed.clone()), filler });
        let filling = async move {
            unfilled.feed = None;
            keeper.fill(&unfilled.filler).await;
        };
        Ok((feed, Box::pin(filling)))
    }

    /// The number with which the ring begins, and the one of what is published next.
    fn begins(&self, info: &Info) -> (u64, u64) {
        let now = info.state.last_sequence;
        // In a stream of many subjects that many numbers are another feed's.
        let before = if self.is_sparse() { 0 } else { BEFORE };
        (now.saturating_sub(before).max(seq(info.state.first_sequence)).min(now), now)
    }

    async fn handle(&self) -> Result<Stream<()>, KeepError> {
        self.connection.jetstream.get_stream_no_info(&self.stream.name).await.map_err(KeepError::nats)
    }

    async fn info(&self) -> Result<Info, KeepError> {
        self.handle().await?.get_info().await.map_err(KeepError::nats)
    }

    /// A consumer of its own, from the feed's number `next` on.
    async fn consumer(&self, next: u64) -> Result<PullConsumer, KeepError> {
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: next + 1 },
            filter_subject: self.subject.clone(),
            // What is lost on the way is noticed by its number, and asked for again.
            ack_policy: AckPolicy::None,
            max_deliver: 1,
            inactive_threshold: INACTIVE,
            memory_storage: true,
            num_replicas: 1,
            ..Default::default()
        };
        self.handle().await?.create_consumer(config).await.map_err(KeepError::nats)
    }

    /// Fills the feed's ring, as long as it is polled.
    async fn fill(&self, filler: &Filler) {
        let (mut told, mut pause) = (false, AGAIN);
        loop {
            let since = Instant::now();
            let Err(ended) = tokio::select! {
                biased;
                () = self.connection.lost() => Err(KeepError::Disconnected),
                // A panic stalls the feed as whatever else goes wrong does, until it is filled again.
                filled = panics::caught_async(self.fill_once(filler, &mut told)) => {
                    filled.unwrap_or_else(|panic| Err(KeepError::Panicked(panic)))
                }
            };
            self.checked.store(false, Ordering::Relaxed);
            filler.stall(true);
            match std::mem::replace(&mut told, true) {
                false => warn!(stream = self.stream.name, subject = self.subject, "a feed has stalled: {ended}"),
                true => debug!(stream = self.stream.name, subject = self.subject, "a feed has stalled: {ended}"),
            }
            self.connection.connected().await;
            pause = if since.elapsed() > LONGEST_AGAIN { AGAIN } else { (pause * 2).min(LONGEST_AGAIN) };
            sleep(pause).await;
        }
    }

    /// Fills it until something is wrong.
    async fn fill_once(&self, filler: &Filler, told: &mut bool) -> Result<Infallible, KeepError> {
        let info = self.info().await?;
        let epoch = epoch(&info);
        if epoch != filler.epoch() {
            warn!(stream = self.stream.name, "the stream was recreated: its feed starts over");
            self.epoch.store(epoch.0, Ordering::Relaxed);
            let (next, now) = self.begins(&info);
            filler.renew(epoch, next, now);
        }
        // Its servers have lost their memory, or their disks: the same numbers would be given twice, and
        // nobody could tell. An epoch that every server of the feed agrees on is only had with a new stream.
        if info.state.last_sequence < filler.next() {
            return Err(KeepError::Forgotten {
                stream: self.stream.name.clone(),
                last: info.state.last_sequence,
                had: filler.next(),
            });
        }
        self.checked.store(true, Ordering::Relaxed);
        // What is gone there does not come; its viewers are told when they ask for it.
        filler.skip_to(seq(info.state.first_sequence));
        let consumer = self.consumer(filler.next()).await?;
        // When it is made anew after this, its consumers go with it.
        if self::epoch(&self.info().await?) != epoch {
            return Err(KeepError::Recreated);
        }
        let mut messages = consumer
            .stream()
            .max_messages_per_batch(1000)
            .heartbeat(HEARTBEAT)
            .expires(Duration::from_secs(30))
            .messages()
            .await
            .map_err(KeepError::nats)?;
        filler.stall(false);
        if std::mem::take(told) {
            info!(stream = self.stream.name, subject = self.subject, "a feed has resumed");
        }
        let (mut before, mut pending) = (0, self.connection.counts.pending());
        while let Some(message) = messages.next().await {
            let message = message.map_err(KeepError::nats)?;
            let about = message.info().map_err(KeepError::nats)?;
            if about.consumer_sequence != before + 1 {
                return Err(KeepError::Lost);
            }
            before = about.consumer_sequence;
            pending.set(about.pending);
            let chunk = chunk(&message).map_err(KeepError::nats)?;
            if !self.is_sparse() {
                // What is between was dropped before it came here: viewers are told.
                filler.skip_to(chunk.seq);
            }
            filler.add(chunk);
        }
        Err(KeepError::ConsumerGone)
    }

    async fn try_publish(&self, bytes: &Bytes, id: &str) -> Result<Receipt, Refused> {
        if !self.checked.load(Ordering::Relaxed) {
            return Err(Refused::Now(KeepError::Unchecked));
        }
        let _publishing = self.connection.counts.publishing();
        let message = PublishMessage::build().payload(bytes.clone()).message_id(id).expected_stream(&self.stream.name);
        let sent = self.connection.jetstream.send_publish(self.subject.clone(), message).await?;
        let kept = sent.await?;
        let size = match kept.duplicate {
            false => bytes.len(),
            true => self.size_of(kept.sequence).await?.unwrap_or(bytes.len()),
        };
        let cursor = Cursor { epoch: Epoch(self.epoch.load(Ordering::Relaxed)), seq: seq(kept.sequence) };
        Ok(Receipt { cursor, size })
    }

    /// How large the message of that number is; `None` when it is there no more.
    async fn size_of(&self, sequence: u64) -> Result<Option<usize>, Refused> {
        if sequence == 0 {
            return Err(Refused::Now(KeepError::Busy));
        }
        let stream = self.handle().await.map_err(Refused::Now)?;
        match stream.get_raw_message(sequence).await {
            // Ours are never empty.
            Ok(message) => Ok(Some(message.payload.len()).filter(|size| *size > 0)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(Refused::Now(KeepError::nats(error))),
        }
    }

    async fn publish_soon(&self, bytes: Bytes, id: &str) -> Result<Receipt, PublishError> {
        let until = Instant::now() + PUBLISH;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let tried = async {
                self.connection.connected().await;
                self.try_publish(&bytes, id).await
            };
            let why = match timeout(left, tried).await {
                Ok(Ok(receipt)) => return Ok(receipt),
                Ok(Err(Refused::TooLarge)) => {
                    let longest = match self.info().await {
                        Ok(info) => usize::try_from(info.config.max_message_size).ok(),
                        Err(_) => None,
                    };
                    let max = longest.unwrap_or(usize::MAX).min(self.connection.client.server_info().max_payload);
                    return Err(PublishError::TooLarge { size: bytes.len(), max });
                }
                Ok(Err(Refused::Now(why))) => why,
                Err(_) => KeepError::Silent,
            };
            // By its id it is kept once, however often it is sent.
            if until <= Instant::now() + AGAIN {
                return Err(PublishError::Keeper(KeeperError::new(why)));
            }
            sleep(AGAIN).await;
        }
    }

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

    async fn read_past(&self, wanted: Epoch, next: u64) -> Result<Past, KeepError> {
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

/// Why a chunk was not taken.
enum Refused {
    /// It never will be.
    TooLarge,
    /// It may be accepted when it is tried again.
    Now(KeepError),
}

impl From<jetstream::context::PublishError> for Refused {
    fn from(error: jetstream::context::PublishError) -> Self {
        let told = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<jetstream::Error>());
        let too_large = told.is_some_and(|error| error.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM);
        match error.kind() == PublishErrorKind::MaxPayloadExceeded || too_large {
            true => Self::TooLarge,
            false => Self::Now(KeepError::nats(error)),
        }
    }
}

impl Keeper for JetStream {
    fn is_writable(&self) -> bool {
        self.writable
    }

    fn is_sparse(&self) -> bool {
        self.stream.only.as_deref() != Some(&self.subject)
    }

    fn publish(&self, bytes: Bytes, id: Option<String>) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        let id = id.unwrap_or_else(|| format!("{}-{}", self.origin, self.published.fetch_add(1, Ordering::Relaxed)));
        Box::pin(async move { self.publish_soon(bytes, &id).await })
    }

    fn read(self: Arc<Self>, epoch: Epoch, next: u64) -> BoxFuture<'static, Result<Past, FeedError>> {
        let reading = async move {
            // The server does not close it, and neither do we.
            let _place = self.connection.reads.acquire().await.map_err(KeepError::nats)?;
            timeout(READ, self.read_past(epoch, next)).await.map_err(|_| KeepError::Silent)?
        };
        // A viewer whose client does not read does not poll it, and must not occupy a place meanwhile.
        Box::pin(async move {
            let read = AbortOnDropHandle::new(tokio::spawn(reading)).await.map_err(KeepError::from)?;
            Ok(read?)
        })
    }
}

/// A message as a chunk of its feed.
fn chunk(message: &jetstream::Message) -> Result<Chunk, async_nats::Error> {
    let info = message.info()?;
    let time = SystemTime::from(info.published);
    Ok(Chunk::published_at(seq(info.stream_sequence), time, super::alone(&message.payload)))
}
