//! Feeds that are stored for this process, and that it continues later.

mod model;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use h3cast_feed::{
    Account, Budget, Chunk, Cursor, End, EndCursor, Epoch, Event, Exhausted, Family, Feed, FeedError, FeedStore, Feeds,
    Filler, Keeper, NewChunk, OpenError, Past, Provenance, PublishError, Publisher, Receipt, Start, Stored,
    TryPublishError, Viewer, WrittenFeeds, WrittenLimits,
};
use proptest::prelude::*;

const EPOCH: Epoch = Epoch(7);
/// Room for some four of the chunks.
const HISTORY: usize = 1000;

/// What is stored of one feed, whoever continues it.
#[derive(Default)]
struct Shelf {
    chunks: Mutex<BTreeMap<u64, Bytes>>,
    next: AtomicU64,
    is_full: AtomicBool,
}

/// Numbers and stores chunks, and fills the ring.
struct Desk {
    shelf: Arc<Shelf>,
    filler: OnceLock<Filler>,
    turn: Mutex<()>,
}

impl Keeper for Desk {
    fn is_writable(&self) -> bool {
        true
    }

    fn is_sparse(&self) -> bool {
        false
    }

    fn publish(&self, bytes: Bytes, _: Option<String>) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        Box::pin(async move {
            let _turn = self.turn.lock().unwrap();
            if self.shelf.is_full.load(Ordering::Relaxed) {
                return Err(PublishError::TooLarge { size: bytes.len(), max: 0 });
            }
            let seq = self.shelf.next.fetch_add(1, Ordering::Relaxed);
            self.shelf.chunks.lock().unwrap().insert(seq, bytes.clone());
            self.filler.get().unwrap().add(Chunk::new(seq, bytes.clone()));
            Ok(Receipt { cursor: Cursor { epoch: EPOCH, seq }, size: bytes.len() })
        })
    }

    fn read(self: Arc<Self>, _: Epoch, next: u64) -> BoxFuture<'static, Result<Past, FeedError>> {
        Box::pin(async move {
            let all = self.shelf.chunks.lock().unwrap();
            let first = self.first(&all);
            let some = all.range(next.max(first)..).take(3);
            let chunks: Vec<_> = some.map(|(seq, bytes)| Chunk::new(*seq, bytes.clone())).collect();
            let next = chunks.last().map_or(next.max(first), |last| last.seq + 1);
            Ok(Past { first, chunks, next })
        })
    }

    fn stored(&self) -> Option<Stored> {
        let all = self.shelf.chunks.lock().unwrap();
        Some(Stored { bytes: all.values().map(|bytes| bytes.len() as u64).sum(), first: self.first(&all) })
    }
}

impl Desk {
    fn first(&self, all: &BTreeMap<u64, Bytes>) -> u64 {
        all.first_key_value().map_or(self.shelf.next.load(Ordering::Relaxed), |(seq, _)| *seq)
    }

    fn on(shelf: &Arc<Shelf>) -> Arc<Self> {
        Arc::new(Self { shelf: shelf.clone(), filler: OnceLock::new(), turn: Mutex::default() })
    }
}

fn of_source(shelf: &Arc<Shelf>) -> (Feed, Publisher) {
    let desk = Desk::on(shelf);
    let next = shelf.next.load(Ordering::Relaxed);
    let (feed, filler, publisher) = Feed::stored("log", desk.clone(), HISTORY, EPOCH, next);
    desk.filler.set(filler).unwrap();
    (feed, publisher)
}

fn writable(name: &str, shelf: &Arc<Shelf>) -> Feed {
    let desk = Desk::on(shelf);
    let next = shelf.next.load(Ordering::Relaxed);
    let (feed, filler) = Feed::stored_writable(name, desk.clone(), HISTORY, EPOCH, next);
    desk.filler.set(filler).unwrap();
    feed
}

async fn publish(publisher: &Publisher, many: usize) {
    for _ in 0..many {
        publisher.publish(vec![b'x'; 100].into()).await.unwrap();
    }
}

fn events(viewer: &mut Viewer) -> Vec<Event> {
    std::iter::from_fn(|| viewer.next().now_or_never().flatten()).collect()
}

fn seqs(events: &[Event]) -> Vec<u64> {
    events.iter().filter_map(|event| if let Event::Chunk(chunk) = event { Some(chunk.seq) } else { None }).collect()
}

fn after(seq: u64) -> Start {
    Start::After(Cursor { epoch: EPOCH, seq })
}

#[tokio::test]
async fn a_feed_that_ended_with_its_source_continues_in_the_next_process() {
    let shelf = Arc::new(Shelf::default());
    let (feed, publisher) = of_source(&shelf);
    let mut viewer = feed.view(Start::Start, None);
    publish(&publisher, 20).await;
    assert!(!publisher.is_shared() && publisher.is_stored() && feed.publisher().is_none());
    assert_eq!(publisher.try_publish("x".into()), Err(TryPublishError::External));
    publisher.end(End::Clean);
    publisher.end(End::Stopped);
    let all = events(&mut viewer);
    assert_eq!(seqs(&all), (0..20).collect::<Vec<_>>());
    assert!(matches!(all.last(), Some(Event::End(End::Clean))), "{all:?}");
    assert_eq!(publisher.publish("late".into()).await, Err(PublishError::Ended));
    let chunk = NewChunk { bytes: "late".into(), id: None };
    assert_eq!(publisher.publish_all(vec![chunk]).await.error, Some(PublishError::Ended));
    let had = EndCursor { epoch: EPOCH, last: Some(19) };
    assert!(feed.is_over(had));
    drop((feed, publisher));

    let (feed, publisher) = of_source(&shelf);
    assert!(!feed.is_over(had));
    let status = feed.status();
    assert_eq!((status.chunks, status.stored, status.end), (20, Some(2000), None));
    assert_eq!(status.oldest, Some(Cursor { epoch: EPOCH, seq: 0 }));
    let (mut late, mut now, mut last) =
        (feed.view(after(4), None), feed.view(Start::Now, None), feed.view(Start::Last(3), None));
    publish(&publisher, 2).await;
    assert_eq!(seqs(&events(&mut late)), (5..22).collect::<Vec<_>>());
    assert_eq!(seqs(&events(&mut now)), [20, 21]);
    assert_eq!(seqs(&events(&mut last)), [17, 18, 19, 20, 21]);
    // Nobody publishes any more, and nobody said so.
    drop(publisher);
    assert!(matches!(events(&mut now)[..], [Event::End(End::Failed(_))]));
}

#[tokio::test]
async fn clients_write_until_the_server_stops() {
    let shelf = Arc::new(Shelf::default());
    let feed = writable("chat", &shelf);
    let publisher = feed.publisher().unwrap();
    publish(publisher, 1).await;
    // For another process, which takes over.
    let held = Feeds::from_iter([feed.clone()]).hold();
    let mut waits = Box::pin(publisher.publish("2".into()));
    assert!(waits.as_mut().now_or_never().is_none());
    assert!(held.histories().is_empty() && !feed.can_restore());
    drop(held);
    assert_eq!(waits.await.unwrap().seq, 1);
    let mut viewer = feed.view(Start::Now, None);
    Feeds::from_iter([feed.clone()]).hold().stop();
    assert!(matches!(events(&mut viewer)[..], [Event::End(End::Stopped)]));
    assert_eq!(publisher.publish("3".into()).await, Err(PublishError::Ended));
    assert_eq!(shelf.next.load(Ordering::Relaxed), 2);
}

/// Whoever takes over what is stored would write the same numbers.
#[tokio::test]
async fn a_source_waits_while_another_process_takes_over() {
    let shelf = Arc::new(Shelf::default());
    let (feed, publisher) = of_source(&shelf);
    publish(&publisher, 1).await;
    let held = Feeds::from_iter([feed.clone()]).hold();
    let mut waits = Box::pin(publisher.publish("2".into()));
    assert!(waits.as_mut().now_or_never().is_none());
    drop(held);
    assert_eq!(waits.await.unwrap().seq, 1);
    let mut viewer = feed.view(Start::Now, None);
    let held = Feeds::from_iter([feed.clone()]).hold();
    let mut waits = Box::pin(publisher.publish("3".into()));
    assert!(waits.as_mut().now_or_never().is_none());
    held.stop();
    assert_eq!(waits.await, Err(PublishError::Ended));
    // As its source does then.
    publisher.end(End::Clean);
    assert!(matches!(events(&mut viewer)[..], [Event::End(End::Stopped)]));
}

/// The keeper has what fills the ring, and the feed the keeper: nobody would drop them.
#[tokio::test]
async fn a_feed_that_is_gone_leaves_nothing_in_memory() {
    let (shelf, budget) = (Arc::new(Shelf::default()), Budget::new(1 << 30));
    let feed = writable("chat", &shelf).budget(&budget);
    publish(feed.publisher().unwrap(), 3).await;
    feed.stop();
    drop(feed);
    assert_eq!(Arc::strong_count(&shelf), 1, "its keeper is there");
}

/// The feeds of a server, wherever it was started.
#[derive(Default)]
struct Room(Mutex<BTreeMap<String, (Arc<Shelf>, Account)>>);

impl Room {
    fn family(self: &Arc<Self>, limits: WrittenLimits) -> (Arc<WrittenFeeds>, Feeds) {
        let stored: Vec<_> = self.0.lock().unwrap().iter().map(|(name, one)| (name.clone(), one.clone())).collect();
        let stored = stored.into_iter().filter(|(_, (shelf, _))| shelf.next.load(Ordering::Relaxed) > 0);
        let feeds =
            stored.map(|(name, (shelf, account))| (writable(&name, &shelf), Provenance::new(account, Duration::ZERO)));
        let family = WrittenFeeds::stored("chat.*", limits, self.clone(), feeds).unwrap();
        let mut all = Feeds::default();
        all.add_family(family.clone());
        (family, all)
    }

    fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }
}

impl FeedStore for Room {
    fn open<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Feed, FeedError>> {
        let mut all = self.0.lock().unwrap();
        let shelf = &all.entry(name.to_owned()).or_insert_with(|| (Arc::default(), Account::unknown())).0;
        Box::pin(std::future::ready(Ok(writable(name, shelf))))
    }

    fn created(&self, name: &str, account: &Account) {
        self.0.lock().unwrap().get_mut(name).unwrap().1 = account.clone();
    }

    fn remove(&self, name: &str) {
        self.0.lock().unwrap().remove(name);
    }
}

fn limits(all: usize, each: usize, idle: u64) -> WrittenLimits {
    let mut limits = WrittenLimits::default();
    (limits.all, limits.each, limits.idle) = (all, each, Duration::from_secs(idle));
    limits
}

fn listed(feeds: &Feeds) -> Vec<String> {
    feeds.all().iter().map(|feed| feed.name().to_owned()).collect()
}

#[tokio::test]
async fn feeds_that_clients_created_are_there_after_a_restart() {
    let (room, ann) = (Arc::new(Room::default()), Account::new("192.0.2.1"));
    let (family, feeds) = room.family(limits(10, 2, 100));
    // A viewer that comes first sees what is written, and creates nothing.
    let mut viewer = feeds.view("chat.a").await.unwrap().unwrap().view(Start::Now, None);
    assert!(listed(&feeds).is_empty());
    for name in ["chat.a", "chat.b"] {
        let feed = feeds.open(name, &ann).await.unwrap().unwrap();
        publish(feed.publisher().unwrap(), 8).await;
    }
    assert_eq!(seqs(&events(&mut viewer)), (0..8).collect::<Vec<_>>());
    let full = |error| assert_eq!(error, OpenError::Exhausted(Exhausted::Account(2)));
    full(feeds.open("chat.c", &ann).await.unwrap_err());
    drop((viewer, family.sweep(), family, feeds));

    let (_family, feeds) = room.family(limits(10, 2, 100));
    assert_eq!(listed(&feeds), ["chat.a", "chat.b"]);
    let read = |feed: &Feed| seqs(&events(&mut feed.view(Start::Start, None)));
    assert_eq!(read(&feeds.get("chat.a").await.unwrap().unwrap()), (0..8).collect::<Vec<_>>());
    full(feeds.open("chat.c", &ann).await.unwrap_err());
    let feed = feeds.open("chat.b", &ann).await.unwrap().unwrap();
    publish(feed.publisher().unwrap(), 1).await;
    assert_eq!(feed.status().chunks, 9);
}

#[tokio::test(start_paused = true)]
async fn an_idle_feed_leaves_memory_and_stays_stored_until_its_place_is_needed() {
    let (room, ann) = (Arc::new(Room::default()), Account::new("192.0.2.1"));
    let (family, feeds) = room.family(limits(2, 2, 100));
    let sweeping = tokio::spawn(family.sweep());
    for name in ["chat.a", "chat.b"] {
        let feed = feeds.open(name, &ann).await.unwrap().unwrap();
        publish(feed.publisher().unwrap(), 3).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let kept = |name: &'static str| {
        let feeds = &feeds;
        async move { feeds.get(name).await.unwrap().unwrap().status().kept_bytes }
    };
    assert!(kept("chat.a").await > 0);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!((kept("chat.a").await, kept("chat.b").await), (0, 0));
    assert_eq!(listed(&feeds), ["chat.a", "chat.b"]);
    let mut late = feeds.get("chat.a").await.unwrap().unwrap().view(after(0), None);
    assert_eq!(seqs(&events(&mut late)), [1, 2]);
    drop(late);
    // Nothing is left of it but its name.
    room.0.lock().unwrap()["chat.a"].0.chunks.lock().unwrap().clear();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!((listed(&feeds), room.names()), (vec!["chat.b".into()], vec!["chat.b".into()]));
    for name in ["chat.c", "chat.d"] {
        let feed = feeds.open(name, &Account::new("192.0.2.2")).await.unwrap().unwrap();
        publish(feed.publisher().unwrap(), 1).await;
    }
    assert_eq!(room.names(), ["chat.c", "chat.d"]);
    // It starts over.
    let again = feeds.open("chat.b", &Account::new("192.0.2.3")).await.unwrap().unwrap();
    assert_eq!((again.status().chunks, family.evicted()), (0, 2));
    sweeping.abort();
}

#[tokio::test(start_paused = true)]
async fn no_more_idle_feeds_give_way_than_is_needed() {
    let (room, ann, ben) = (Arc::new(Room::default()), Account::new("192.0.2.1"), Account::new("192.0.2.2"));
    let (family, feeds) = room.family(limits(6, 4, 100));
    let write = |name: &'static str, account: &Account| {
        let (feeds, account) = (&feeds, account.clone());
        async move {
            let feed = feeds.open(name, &account).await.unwrap().unwrap();
            publish(feed.publisher().unwrap(), 1).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    for name in ["chat.a", "chat.b", "chat.c", "chat.d"] {
        write(name, &ann).await;
    }
    for name in ["chat.e", "chat.f"] {
        write(name, &ben).await;
    }
    tokio::time::sleep(Duration::from_secs(1000)).await;
    // There are as many as may be of her, and of all.
    write("chat.g", &ann).await;
    assert_eq!(room.names(), ["chat.b", "chat.c", "chat.d", "chat.e", "chat.f", "chat.g"]);
    write("chat.h", &ben).await;
    assert_eq!(room.names(), ["chat.c", "chat.d", "chat.e", "chat.f", "chat.g", "chat.h"]);
    assert_eq!(family.evicted(), 2);
    // With smaller limits, a few give way to each that is created.
    family.set_limits(limits(3, 4, 100));
    write("chat.i", &ben).await;
    assert_eq!((room.names().len(), family.evicted()), (3, 6));
}

#[tokio::test]
async fn a_publisher_is_told_that_nothing_can_be_stored_and_viewers_stay() {
    let shelf = Arc::new(Shelf::default());
    let (feed, publisher) = of_source(&shelf);
    publish(&publisher, 1).await;
    let mut viewer = feed.view(Start::Start, None);
    shelf.is_full.store(true, Ordering::Relaxed);
    assert!(publisher.publish("x".into()).await.is_err());
    assert_eq!(seqs(&events(&mut viewer)), [0]);
    shelf.is_full.store(false, Ordering::Relaxed);
    publish(&publisher, 1).await;
    assert_eq!(seqs(&events(&mut viewer)), [1]);
}

fn run(steps: Vec<model::Step>, history: usize) -> Result<(), TestCaseError> {
    let desk = Desk::on(&Arc::default());
    let (feed, filler, publisher) = Feed::stored("log", desk.clone(), history, EPOCH, 0);
    desk.filler.set(filler).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(model::Model::new(&feed, &publisher, history, model::Past::Stored).run(steps))
}

proptest! {
    /// The model test of the ring, with what is stored behind the ring.
    #[test]
    fn no_chunk_is_lost_or_doubled(
        steps in prop::collection::vec(model::step(), 1..200),
        history in 0..4000_usize,
    ) {
        run(steps, history)?;
    }
}

#[test]
fn late_viewers_read_what_is_stored() {
    run(model::late_viewers(), HISTORY).unwrap();
}
