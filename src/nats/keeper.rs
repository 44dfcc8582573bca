//! A feed that is one subject of a JetStream stream.

mod batch;
mod fill;
mod many;
mod past;
mod publish;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
    stream::{Info, Stream},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::{sync::watch, time::timeout};
use tokio_util::task::AbortOnDropHandle;

pub(super) use many::{Filled, Many};

use super::{
    address::PREFIX,
    connection::Link,
    ensure::StreamInfo,
    error::{KeepError, NatsError},
    leader::Leader,
};
use crate::{
    chunk::{Chunk, Epoch},
    feed::{Elsewhere, Feed, FeedError, Filler, Keeper, NewChunk, Past, PublishError, PublishedAll, Receipt},
    source::Feeding,
};

/// The time between two tries.
pub(super) const AGAIN: Duration = Duration::from_millis(250);
/// How long the server keeps a consumer that nobody asks.
const INACTIVE: Duration = Duration::from_secs(30);
/// How many chunks before the newest the ring has when the server starts: those who come again then are
/// a few chunks behind.
const BEFORE: u64 = 1000;
/// How long one such reading may take.
const READ: Duration = Duration::from_secs(10);

/// See the module's text.
pub(super) struct JetStream {
    connection: Link,
    stream: StreamInfo,
    leader: Arc<Leader>,
    subject: String,
    writable: bool,
    /// The run of numbers that chunks are published to. This and the next ones are shared by the feeds of a family.
    epoch: Arc<AtomicU64>,
    /// The stream is the one that the ring is of, as was seen since the connection was lost last.
    checked: Arc<AtomicBool>,
    /// The stream answers requests for many messages at once, as was seen last.
    direct: Arc<AtomicBool>,
    /// The stream has other subjects, as was seen by now.
    shared: watch::Sender<bool>,
    /// Viewers are told that numbers are left out. It changes only with the ring, which ends for those who were not.
    sparse: AtomicBool,
    /// Tells this server's chunks from those of others.
    origin: String,
    published: AtomicU64,
    batches: batch::Batches,
    /// The subject is what every program has made of the feed's name, ever since there are ids.
    is_default: AtomicBool,
}

/// The feed's number of what has that number in its stream.
fn seq(sequence: u64) -> u64 {
    sequence.saturating_sub(1)
}

/// The epoch of a stream: when it was made, in milliseconds.
pub(super) fn epoch(info: &Info) -> Epoch {
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
        Arc::new(Self::of(connection, stream, subject, writable))
    }

    /// What stores the feed of one subject of those that this one stands for, which fills it too.
    pub(super) fn member(&self, name: &str, subject: String) -> Arc<Self> {
        let is_default = subject == format!("{PREFIX}.{name}");
        let own = Self::of(self.connection.clone(), self.stream.clone(), subject, self.writable);
        let (epoch, checked, direct) = (self.epoch.clone(), self.checked.clone(), self.direct.clone());
        Arc::new(Self { epoch, checked, direct, is_default: is_default.into(), ..own })
    }

    fn of(connection: Link, stream: StreamInfo, subject: String, writable: bool) -> Self {
        let mut origin = [0; 9];
        let _ = crate::identity::provider().secure_random.fill(&mut origin);
        let leader = connection.leaders.of(&connection, &stream.name);
        let shared = stream.only.as_deref() != Some(&subject);
        Self {
            connection,
            stream,
            leader,
            subject,
            writable,
            epoch: Arc::default(),
            checked: Arc::default(),
            direct: Arc::default(),
            shared: watch::Sender::new(shared),
            sparse: AtomicBool::new(shared),
            origin: URL_SAFE_NO_PAD.encode(origin),
            published: AtomicU64::default(),
            batches: batch::Batches::default(),
            is_default: AtomicBool::default(),
        }
    }

    /// By what a stream knows a chunk: `id`, which names the feed, or a new one. Where several subjects are kept in
    /// one stream, their feeds may have the same name. Ids of the default prefix stay as they always were: while
    /// edges are replaced one after another, the old and the new ones must agree.
    fn message_id(&self, id: Option<String>) -> String {
        let id = id.unwrap_or_else(|| format!("{}-{}", self.origin, self.published.fetch_add(1, Ordering::Relaxed)));
        match self.is_default.load(Ordering::Relaxed) {
            true => id,
            // No id begins like this without it, and no subject has a space in it.
            false => format!("//{} {id}", self.subject),
        }
    }

    /// The feed, which begins at what is published next, and what fills it.
    pub(super) async fn feed(self: &Arc<Self>, name: &str, history: usize) -> Result<(Feed, Feeding), NatsError> {
        let failed = |error| NatsError::Stream { stream: self.stream.name.clone(), source: Box::new(error) };
        let info = self.info().await.map_err(failed)?;
        self.sparse.store(self.is_shared(), Ordering::Relaxed);
        let epoch = epoch(&info);
        self.epoch.store(epoch.0, Ordering::Relaxed);
        self.is_default.store(self.subject == format!("{PREFIX}.{name}"), Ordering::Relaxed);
        let (next, now) = self.begins(&info);
        let (feed, filler) = Feed::kept(name, self.clone(), history, epoch, next, now);
        self.connection.presence.add(&self.connection.jetstream, &self.subject, feed.attendance());
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

    pub(super) async fn info(&self) -> Result<Info, KeepError> {
        let info = self.handle().await?.get_info().await.map_err(KeepError::nats)?;
        let direct = info.config.allow_direct && self.connection.client.is_server_compatible(2, 11, 0);
        self.direct.store(direct, Ordering::Relaxed);
        if info.state.subjects_count > 1 || StreamInfo::of(&info.config).only.as_deref() != Some(&self.subject) {
            self.shared.send_if_modified(|shared| !std::mem::replace(shared, true));
        }
        Ok(info)
    }

    fn is_shared(&self) -> bool {
        *self.shared.borrow()
    }

    fn is_direct(&self) -> bool {
        self.direct.load(Ordering::Relaxed)
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
}

impl Keeper for JetStream {
    fn is_writable(&self) -> bool {
        self.writable
    }

    fn elsewhere(&self) -> Option<Elsewhere> {
        self.connection.presence.elsewhere(&self.subject)
    }

    fn is_sparse(&self) -> bool {
        self.sparse.load(Ordering::Relaxed)
    }

    fn publish(&self, bytes: Bytes, id: Option<String>) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        let id = self.message_id(id);
        Box::pin(async move { Ok(self.publish_soon(bytes, &id).await?.receipt) })
    }

    fn publish_all(&self, chunks: Vec<NewChunk>) -> BoxFuture<'_, PublishedAll> {
        Box::pin(self.publish_together(chunks))
    }

    fn read(self: Arc<Self>, epoch: Epoch, next: u64) -> BoxFuture<'static, Result<Past, FeedError>> {
        let reading = async move {
            // The server does not close it, and neither do we.
            let waiting = self.connection.counts.read_waiting();
            let place = self.connection.reads.clone().acquire_owned().await.map_err(KeepError::nats)?;
            drop(waiting);
            let is_direct = self.is_direct();
            let read = async move {
                let _place = place;
                timeout(READ, self.read_past(epoch, next)).await.map_err(|_| KeepError::Silent)?
            };
            // A consumer is deleted also if its viewer has left: it would stay for a while, and a stream takes only so
            // many.
            if is_direct { read.await } else { tokio::spawn(read).await? }
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
