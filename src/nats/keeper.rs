//! A feed that is one subject of a JetStream stream.

mod batch;
mod consumer;
mod fill;
mod many;
mod one;
mod past;
mod publish;
mod pulled;
mod reader;
mod singly;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_nats::jetstream::{
    self,
    message::Info as About,
    stream::{Info, Stream},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

pub(super) use many::{Filled, Many};

use super::{
    address::PREFIX,
    allowed,
    connection::Link,
    ensure::StreamInfo,
    error::{BoxError, KeepError, NatsError},
    leader::{First, Leader},
    stored::Spoiled,
};
use crate::{
    chunk::{Chunk, Epoch},
    feed::{Budget, Elsewhere, Feed, FeedError, Filler, Keeper, NewChunk, Past, PublishError, PublishedAll, Receipt},
    source::Feeding,
};

/// The time between two tries.
pub(super) const AGAIN: Duration = Duration::from_millis(250);
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
    /// The size up to which the stream takes messages, in bytes, as was seen last; 0 if it has no limit of its own.
    most: Arc<AtomicU64>,
    /// What the client cannot read of the stream.
    spoiled: Arc<Spoiled>,
    /// The stream has other subjects, as was seen by now.
    shared: watch::Sender<bool>,
    /// Viewers are told that numbers are left out. It changes only with the ring, which ends for those who were not.
    sparse: AtomicBool,
    /// The epoch of the stream that has messages older than itself, as its leader has confirmed last.
    has_older: AtomicU64,
    /// Tells this server's chunks from those of others.
    origin: String,
    published: AtomicU64,
    batches: batch::Batches,
    runs: reader::Runs,
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

/// Whether a chunk was published before its stream was created.
fn is_older(chunk: &Chunk, epoch: Epoch) -> bool {
    chunk.time.duration_since(UNIX_EPOCH).is_ok_and(|time| time < Duration::from_millis(epoch.0))
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
        let (most, spoiled) = (self.most.clone(), self.spoiled.clone());
        Arc::new(Self { epoch, checked, direct, most, spoiled, is_default: is_default.into(), ..own })
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
            most: Arc::default(),
            spoiled: Arc::default(),
            shared: watch::Sender::new(shared),
            sparse: AtomicBool::new(shared),
            has_older: AtomicU64::default(),
            origin: URL_SAFE_NO_PAD.encode(origin),
            published: AtomicU64::default(),
            batches: batch::Batches::default(),
            runs: reader::Runs::default(),
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
        self.connection.presence.add(&self.connection, &self.subject, feed.attendance());
        let (keeper, mut unfilled) = (self.clone(), Unfilled { feed: Some(feed.clone()), filler });
        let filling = async move {
            unfilled.feed = None;
            let filler = &unfilled.filler;
            let one = one::One::of(filler);
            let watch = async {
                if !keeper.writable {
                    std::future::pending().await
                }
                let note = |why: Option<&KeepError>| one.deny(why.map(ToString::to_string));
                allowed::watch(&keeper.connection, &keeper.subject, note).await;
            };
            // None of them ends by itself.
            tokio::select! {
                () = keeper.fill(&one) => {}
                () = watch => {}
                () = keeper.forget(|epoch, first| filler.forget_before(epoch, first)) => {}
            }
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

    /// Has rings forget what the stream does not have any more since it was deleted or is too old, for as long as it is
    /// polled. `forget` tells whether they have come that far.
    async fn forget(&self, forget: impl Fn(Epoch, u64) -> bool) {
        let mut first = self.leader.first();
        let mut is_done = true;
        loop {
            tokio::select! {
                // An error would mean that its leader is gone, which `self` holds.
                _ = first.changed() => {}
                () = sleep(AGAIN), if !is_done => {}
            }
            let First { epoch, number } = *first.borrow_and_update();
            is_done = forget(Epoch(epoch), seq(number));
        }
    }

    /// That chunks are of the stream of that epoch. A node that has yet to hear that a stream was deleted reads from
    /// the old one of its name, where all is older than the new stream. So it may be where a stream was restored or
    /// mirrors another: then its leader has the same, which is asked once for each epoch.
    async fn confirm(&self, epoch: Epoch, past: &Past) -> Result<(), KeepError> {
        let Some(oldest) = past.chunks.first().filter(|chunk| is_older(chunk, epoch)) else { return Ok(()) };
        if self.has_older.load(Ordering::Relaxed) == epoch.0 {
            return Ok(());
        }
        let message = self.leaders_own(oldest.seq + 1).await?;
        if message.is_none_or(|message| message.time != oldest.time) {
            return Err(KeepError::Recreated);
        }
        self.has_older.store(epoch.0, Ordering::Relaxed);
        Ok(())
    }

    async fn handle(&self) -> Result<Stream<()>, KeepError> {
        self.connection.now().jetstream.get_stream_no_info(&self.stream.name).await.map_err(|error| self.failed(error))
    }

    pub(super) async fn info(&self) -> Result<Info, KeepError> {
        let info = self.handle().await?.get_info().await.map_err(|error| self.failed(error))?;
        let direct = info.config.allow_direct && self.connection.now().client.is_server_compatible(2, 11, 0);
        self.direct.store(direct, Ordering::Relaxed);
        self.most.store(u64::try_from(info.config.max_message_size).unwrap_or(0), Ordering::Relaxed);
        if info.state.subjects_count > 1 || StreamInfo::of(&info.config).only.as_deref() != Some(&self.subject) {
            self.shared.send_if_modified(|shared| !std::mem::replace(shared, true));
        }
        Ok(info)
    }

    fn is_shared(&self) -> bool {
        *self.shared.borrow()
    }

    /// The size of the largest message that is stored of the feed, in bytes, as far as that is known without reading it.
    fn most(&self) -> u64 {
        let taken = self.connection.now().client.server_info().max_payload as u64;
        match self.most.load(Ordering::Relaxed) {
            0 => taken,
            most => most.min(taken),
        }
    }

    fn is_direct(&self) -> bool {
        self.direct.load(Ordering::Relaxed)
    }

    /// An error of NATS' client about its stream.
    fn failed(&self, error: impl Into<BoxError>) -> KeepError {
        KeepError::of_stream(&self.stream.name, error)
    }
}

impl Keeper for JetStream {
    fn is_writable(&self) -> bool {
        self.writable
    }

    fn charge_to(&self, budget: &Budget) {
        self.connection.room.charge_to(budget);
    }

    fn elsewhere(&self) -> Option<Elsewhere> {
        self.connection.presence.elsewhere(&self.subject)
    }

    fn is_sparse(&self) -> bool {
        self.sparse.load(Ordering::Relaxed)
    }

    fn publish(&self, bytes: Bytes, id: Option<String>) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        let id = self.message_id(id);
        Box::pin(async move { Ok(self.publish_soon(bytes, &id, false).await?.receipt) })
    }

    fn publish_all(&self, chunks: Vec<NewChunk>) -> BoxFuture<'_, PublishedAll> {
        Box::pin(self.publish_together(chunks))
    }

    fn read(self: Arc<Self>, epoch: Epoch, next: u64) -> BoxFuture<'static, Result<Past, FeedError>> {
        let reading = async move {
            // The server does not close it, and neither do we.
            let waiting = self.connection.counts.read_waiting();
            // Before a place: those who wait for memory hold up no one who needs little.
            let turn = self.connection.room.turn(self.most()).await;
            let place = self.connection.reads.clone().acquire_owned().await.map_err(KeepError::nats)?;
            drop(waiting);
            let (is_direct, room) = (self.is_direct(), self.connection.room.clone());
            let read = async move {
                let _place = place;
                let read = async {
                    let past = self.read_past(epoch, next).await?;
                    self.confirm(epoch, &past).await?;
                    Ok::<_, KeepError>(past)
                };
                let mut past = timeout(READ, read).await.map_err(|_| KeepError::Silent)??;
                room.keep(&mut past, turn);
                Ok::<_, KeepError>(past)
            };
            // A reading by a consumer runs to its end even if its viewer has left: so those who come and go have no more
            // consumers made and deleted at once than there are places.
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
fn chunk(message: &jetstream::Message, about: &About<'_>) -> Chunk {
    let time = SystemTime::from(about.published);
    Chunk::published_at(seq(about.stream_sequence), time, super::alone(&message.payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_its_stream() {
        let at = |time| Chunk::published_at(0, UNIX_EPOCH + Duration::from_micros(time), Bytes::new());
        assert!(is_older(&at(6999), Epoch(7)));
        // The epoch is in whole milliseconds.
        assert!(!is_older(&at(7000), Epoch(7)) && !is_older(&at(7001), Epoch(7)));
    }
}
