//! Against a vector that keeps everything, and against a ring: whatever the order of events, each reader gets every chunk
//! in its order, or is told exactly how many it does not get.

mod common;
/// That of a feed in memory.
#[path = "../../feed/tests/model/mod.rs"]
mod of_memory;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use common::{feed, open};
use futures_util::StreamExt;
use h3cast_feed::{Cursor, Event, Feed, Keeper, Lag, NewChunk, Publisher, Start};
use h3cast_store::{Fsync, Note, Retain, Store, StoredFeed};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Publish(Vec<usize>),
    /// With ids, some of which were used before.
    Identified(Vec<u8>),
    Note(u8, Option<u8>),
    View(u64),
    Retain(u64),
    /// Ends the process in an orderly way, or not.
    Reopen(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(0..3000_usize, 1..20).prop_map(Step::Publish),
        3 => prop::collection::vec(any::<u8>(), 1..5).prop_map(Step::Identified),
        2 => (0..5_u8, any::<Option<u8>>()).prop_map(|(key, value)| Step::Note(key, value)),
        3 => any::<u64>().prop_map(Step::View),
        1 => (40_000..400_000_u64).prop_map(Step::Retain),
        1 => any::<bool>().prop_map(Step::Reopen),
    ]
}

/// A feed on disk, and what is in it.
struct Model {
    folder: tempfile::TempDir,
    fsync: Fsync,
    history: usize,
    open: Option<(Store, StoredFeed, Feed, Publisher)>,
    memory: (Feed, Publisher),
    all: Vec<Bytes>,
    ids: HashMap<String, u64>,
    notes: BTreeMap<u8, u8>,
    /// So many bytes, besides what may be in one file.
    retain: Option<(u64, u64)>,
}

impl Model {
    fn new(fsync: Fsync, history: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let memory = Feed::live("memory", 1 << 30, Lag::Skip);
        let (ids, notes, all) = Default::default();
        let mut model = Self { folder, fsync, history, open: None, memory, all, ids, notes, retain: None };
        model.reopen();
        model
    }

    fn stored(&self) -> u64 {
        self.open.as_ref().unwrap().1.stored().unwrap().bytes
    }

    fn reopen(&mut self) {
        let store = open(self.folder.path(), self.fsync);
        let (stored, feed, publisher) = feed(&store, "a", self.history);
        self.open = Some((store, stored, feed, publisher));
    }

    async fn publish(&mut self, chunks: Vec<NewChunk>) {
        let (_, stored, _, publisher) = self.open.as_ref().unwrap();
        let published = publisher.publish_all(chunks.clone()).await;
        assert_eq!((published.receipts.len(), &published.error), (chunks.len(), &None));
        for (chunk, receipt) in chunks.into_iter().zip(published.receipts) {
            let known = chunk.id.as_ref().and_then(|id| self.ids.get(id).copied());
            let expected = known.unwrap_or(self.all.len() as u64);
            assert_eq!(receipt.cursor, Cursor { epoch: stored.epoch(), seq: expected });
            if known.is_none() {
                self.ids.extend(chunk.id.map(|id| (id, expected)));
                // As the ring numbers it.
                assert_eq!(self.memory.1.publish(chunk.bytes.clone()).await.unwrap().seq, expected);
                self.all.push(chunk.bytes);
            }
        }
    }

    async fn run(&mut self, step: Step) {
        match step {
            Step::Publish(sizes) => {
                let first = self.all.len();
                let chunks = sizes.iter().enumerate().map(|(at, size)| common::new(vec![(first + at) as u8; *size]));
                self.publish(chunks.collect()).await;
            }
            Step::Identified(ids) => {
                // What is known by an id is always the same.
                let chunks = ids.iter().map(|id| NewChunk { bytes: vec![*id; 7].into(), id: Some(id.to_string()) });
                self.publish(chunks.collect()).await;
            }
            Step::Note(key, value) => {
                let (_, stored, ..) = self.open.as_ref().unwrap();
                let note = Note { key: vec![key].into(), value: value.map(|value| vec![value].into()), expires: None };
                assert_eq!(stored.publish_noted(Vec::new(), |_| vec![note]).await.error, None);
                match value {
                    Some(value) => self.notes.insert(key, value),
                    None => self.notes.remove(&key),
                };
            }
            Step::Retain(bytes) => {
                self.open.as_ref().unwrap().1.set_retain(Retain { bytes: Some(bytes), age: None });
                self.retain = Some((bytes, self.stored()));
            }
            Step::View(from) => self.view(from).await,
            Step::Reopen(orderly) => {
                let (store, stored, feed, publisher) = self.open.take().unwrap();
                feed.stop();
                match orderly {
                    true => store.close().unwrap(),
                    // What was written is given to the system: a copy is what a crash leaves.
                    false => {
                        let copy = tempfile::tempdir().unwrap();
                        common::copy(self.folder.path(), copy.path());
                        self.folder = copy;
                    }
                }
                drop((store, stored, feed, publisher));
                self.reopen();
                let (_, stored, ..) = self.open.as_ref().unwrap();
                if let Some((bytes, _)) = self.retain {
                    stored.set_retain(Retain { bytes: Some(bytes), age: None });
                }
            }
        }
        let (_, stored, ..) = self.open.as_ref().unwrap();
        assert_eq!(stored.next(), self.all.len() as u64);
        assert_eq!(stored.total_bytes(), self.all.iter().map(|chunk| chunk.len() as u64).sum::<u64>());
        let notes = stored.notes(b"").into_iter().map(|note| (note.key[0], note.value.unwrap()[0]));
        assert_eq!(notes.collect::<BTreeMap<_, _>>(), self.notes);
        if let Some((bytes, before)) = self.retain {
            // A record may be beyond it until the next file begins.
            assert!(self.stored() <= bytes + before + bytes / 16 + (64 << 10), "{} of {bytes}", self.stored());
        }
    }

    /// Two viewers from the same number on: one of the feed, one of the ring.
    async fn view(&self, from: u64) {
        let end = self.all.len() as u64;
        if end == 0 {
            return;
        }
        let (_, stored, feed, _) = self.open.as_ref().unwrap();
        let from = from % end;
        let start = |feed: &Feed| match from {
            0 => Start::Start,
            _ => Start::After(Cursor { epoch: feed.view(Start::Now, None).epoch(), seq: from - 1 }),
        };
        let (mut viewer, mut of_memory) =
            (feed.view(start(feed), None), self.memory.0.view(start(&self.memory.0), None));
        // Of what is on the disk or in memory: the ring may have some that are not on the disk any more.
        let first = match feed.view(Start::Start, None).next().await {
            Some(Event::Chunk(chunk)) => chunk.seq,
            other => panic!("{other:?}"),
        };
        assert!(first <= stored.first(), "{first}, and {} on the disk", stored.first());
        let mut next = from.max(if from == 0 { first } else { 0 });
        while next < end {
            match viewer.next().await.expect("it goes on") {
                Event::Chunk(chunk) => {
                    assert_eq!((chunk.seq, &chunk.bytes), (next, &self.all[next as usize]));
                    let other = loop {
                        match of_memory.next().await.expect("it goes on") {
                            Event::Chunk(other) if other.seq < next => {}
                            Event::Chunk(other) => break other,
                            other => panic!("{other:?}"),
                        }
                    };
                    assert_eq!((other.seq, &other.bytes), (chunk.seq, &chunk.bytes));
                    next += 1;
                }
                Event::Gap(gap) => {
                    assert_eq!((gap.from, gap.from + gap.missing, gap.restarted), (next, first, false));
                    next += gap.missing;
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

fn run(steps: Vec<Step>, fsync: Fsync, history: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut model = Model::new(fsync, history);
        for step in steps {
            model.run(step).await;
        }
        model.view(0).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_chunk_is_lost_or_doubled_without_being_told(
        steps in prop::collection::vec(step(), 1..60),
        always in any::<bool>(),
        history in 0..100_000_usize,
    ) {
        run(steps, if always { Fsync::Always } else { Fsync::default() }, history);
    }
}

/// The model test of a feed in memory, with a folder behind a ring that has room for a few chunks.
fn run_of_memory(steps: Vec<of_memory::Step>, fsync: Fsync, history: usize) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path(), fsync);
        let (_stored, feed, publisher) = feed(&store, "a", history);
        of_memory::Model::new(&feed, &publisher, history, of_memory::Past::Stored).run(steps).await
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn viewers_see_what_those_of_memory_see_and_miss_nothing(
        steps in prop::collection::vec(of_memory::step(), 1..200),
        never in any::<bool>(),
        history in 0..4000_usize,
    ) {
        run_of_memory(steps, if never { Fsync::Never } else { Fsync::default() }, history)?;
    }
}

#[test]
fn late_viewers_read_from_the_disk() {
    for fsync in [Fsync::Always, Fsync::default()] {
        run_of_memory(of_memory::late_viewers(), fsync, 1000).unwrap();
    }
}
