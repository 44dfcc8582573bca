//! Whatever the keeper does: each byte once, in its order.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    task::Poll,
};

use futures_util::{Stream, StreamExt, future::BoxFuture, stream};
use proptest::prelude::*;
use tokio::task::yield_now;

use super::*;
use crate::{
    app::{
        Problem,
        authorize::Decided,
        publish::{Publications, known::Said},
    },
    auth::Access,
    chunk::{Cursor, Epoch},
    feed::{Account, Feed, FeedError, Filler, Keeper, Past, Receipt},
    source::chunker::Chunking,
};

/// What a keeper does with chunks that it is given.
#[derive(Debug, Clone)]
struct Turn {
    /// How often it is asked before it answers.
    slow: usize,
    /// How many it stores.
    stores: usize,
    /// It says of so many of them that it has stored them, and that it failed then.
    fails: Option<usize>,
}

/// Stores chunks, and does as it is told; once it has been told no more, all that it is given.
#[derive(Default)]
struct Fickle {
    state: Mutex<State>,
    /// Answers nothing.
    hangs: bool,
}

#[derive(Default)]
struct State {
    turns: Vec<Turn>,
    stored: Vec<Bytes>,
    known: HashMap<String, usize>,
    /// The most that it was given at once, and how many in all.
    most: usize,
    given: usize,
}

impl Fickle {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn all(&self) -> Vec<u8> {
        self.state().stored.concat()
    }
}

impl State {
    fn store(&mut self, NewChunk { bytes, id }: NewChunk) -> Receipt {
        let next = self.stored.len();
        let at = id.map_or(next, |id| *self.known.entry(id).or_insert(next));
        if at == next {
            self.stored.push(bytes);
        }
        Receipt { cursor: Cursor { epoch: Epoch(1), seq: at as u64 }, size: self.stored[at].len() }
    }
}

impl Keeper for Fickle {
    fn is_writable(&self) -> bool {
        true
    }

    fn is_sparse(&self) -> bool {
        false
    }

    /// The rest of a publication that broke off.
    fn publish(&self, bytes: Bytes, id: Option<String>) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        Box::pin(async move { Ok(self.state().store(NewChunk { bytes, id })) })
    }

    fn publish_all(&self, chunks: Vec<NewChunk>) -> BoxFuture<'_, PublishedAll> {
        let mut state = self.state();
        state.most = state.most.max(chunks.len());
        state.given += chunks.len();
        let turn = state.turns.pop();
        Box::pin(async move {
            if self.hangs {
                std::future::pending::<()>().await;
            }
            let turn = turn.unwrap_or(Turn { slow: 1, stores: usize::MAX, fails: None });
            let mut published = PublishedAll::default();
            for chunk in chunks.into_iter().take(turn.stores) {
                let size = chunk.bytes.len();
                published.receipts.push(self.state().store(chunk));
                if published.receipts.last().is_some_and(|receipt| receipt.size != size) {
                    break;
                }
            }
            for _ in 0..turn.slow {
                yield_now().await;
            }
            if let Some(told) = turn.fails {
                published.receipts.truncate(told);
                published.error = Some(PublishError::Keeper(KeeperError::new("it failed")));
            }
            published
        })
    }

    fn read(self: Arc<Self>, _: Epoch, _: u64) -> BoxFuture<'static, Result<Past, FeedError>> {
        Box::pin(std::future::ready(Ok(Past::default())))
    }
}

fn kept(keeper: &Arc<Fickle>) -> (Feed, Filler) {
    Feed::kept("log", keeper.clone(), 1 << 20, Epoch(1), 0, 0)
}

/// A request that publishes.
#[derive(Debug, Clone)]
struct Request {
    /// How the body is cut; where it is empty, the next piece has to be waited for.
    sizes: Vec<usize>,
    chunking: Chunking,
    /// The connection is lost after so many pieces.
    breaks: Option<usize>,
    /// The task is dropped when it has been asked so often.
    dropped: Option<usize>,
}

impl Request {
    /// The whole body each time, as a client sends it that has not got an answer.
    fn pieces(&self, body: &[u8]) -> impl Stream<Item = io::Result<Bytes>> + use<> {
        let (mut rest, mut pieces) = (body, Vec::new());
        for size in self.sizes.iter().cycle().take(4 * body.len() + 4) {
            let (piece, left) = rest.split_at((*size).min(rest.len()));
            pieces.push(Ok(Bytes::copy_from_slice(piece)));
            rest = left;
            if rest.is_empty() {
                break;
            }
        }
        if !rest.is_empty() {
            pieces.push(Ok(Bytes::copy_from_slice(rest)));
        }
        if let Some(breaks) = self.breaks.filter(|breaks| *breaks < pieces.len()) {
            pieces.truncate(breaks);
            pieces.push(Err(io::ErrorKind::ConnectionReset.into()));
        }
        stream::iter(pieces).then(async |piece| {
            if piece.as_ref().is_ok_and(Bytes::is_empty) {
                yield_now().await;
            }
            piece
        })
    }
}

/// What is known of a request at its end: how it ended, how many bytes it has published and whether there may be more.
type Ended = (Option<Result<(), Problem>>, u64, bool);

async fn request(
    publications: &Publications,
    feed: &Feed,
    key: Option<&str>,
    pieces: impl Stream<Item = io::Result<Bytes>>,
    chunking: Chunking,
    dropped: Option<usize>,
) -> Ended {
    let (account, decided) = (Account::unknown(), Decided::test(Access::everything()));
    let key = key.map(String::from);
    let epoch = feed.status().epoch;
    let publisher = feed.publisher().unwrap();
    let said = Said { feed: "log", epoch, account: &account, owner: None, key, offset: None, publisher };
    let publication = publications.begin(said).await.unwrap();
    let ended = {
        let published =
            super::super::publish(publications, publisher, &account, &publication, pieces, chunking, &decided);
        let (mut published, mut asked) = (pin!(published), 0);
        std::future::poll_fn(|cx| {
            asked += 1;
            match dropped.is_some_and(|dropped| asked > dropped) {
                true => Poll::Ready(None),
                false => published.as_mut().poll(cx).map(Some),
            }
        })
        .await
    };
    (ended, publication.progress().bytes, publication.is_in_doubt())
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => any::<u8>(), 1 => Just(b'\n')];
    prop::collection::vec(byte, 0..120)
}

fn a_turn() -> impl Strategy<Value = Turn> {
    let fails = prop_oneof![3 => Just(None), 1 => (0..6_usize).prop_map(Some)];
    // One that says nothing of what it has stored has failed.
    (0..4_usize, 0..8_usize, fails).prop_map(|(slow, stores, fails)| Turn {
        slow,
        stores: if fails.is_none() { stores.max(1) } else { stores },
        fails,
    })
}

fn a_request() -> impl Strategy<Value = Request> {
    let chunking = prop_oneof![Just(Chunking::Lines), Just(Chunking::Bytes)];
    let seldom = |most: usize| prop_oneof![2 => Just(None), 1 => (0..most).prop_map(Some)];
    (prop::collection::vec(0..9_usize, 1..9), chunking, seldom(20), seldom(20))
        .prop_map(|(sizes, chunking, breaks, dropped)| Request { sizes, chunking, breaks, dropped })
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The same key at two servers by turns, each time cut otherwise, until the body has been taken.
    #[test]
    fn under_a_key_each_byte_is_stored_once(
        body in body(), turns in prop::collection::vec(a_turn(), 0..24), requests in prop::collection::vec(a_request(), 0..8)
    ) {
        let keeper = Arc::new(Fickle { state: Mutex::new(State { turns, ..State::default() }), hangs: false });
        let servers = [(); 2].map(|()| (Publications::default(), kept(&keeper)));
        run(async {
            for (number, sent) in requests.iter().enumerate() {
                let (publications, (feed, _)) = &servers[number % 2];
                let pieces = sent.pieces(&body);
                let (ended, bytes, in_doubt) =
                    request(publications, feed, Some("key"), pieces, sent.chunking, sent.dropped).await;
                let stored = keeper.all();
                prop_assert!(body.starts_with(&stored), "{stored:?}");
                prop_assert!(bytes as usize <= stored.len());
                if let Some(Ok(())) = ended {
                    prop_assert_eq!((&stored, bytes as usize, in_doubt), (&body, body.len(), false));
                }
            }
            keeper.state().turns.clear();
            let whole = stream::iter([Ok(Bytes::from(body.clone()))]);
            let (publications, (feed, _)) = &servers[0];
            let (ended, bytes, in_doubt) = request(publications, feed, Some("key"), whole, Chunking::Lines, None).await;
            prop_assert!(matches!(ended, Some(Ok(()))));
            prop_assert_eq!((keeper.all(), bytes as usize, in_doubt), (body.clone(), body.len(), false));
            Ok(())
        })?;
    }

    /// Without one, what is stored is the beginning of the body, and no more of it than the client is told may be.
    #[test]
    fn without_a_key_what_is_told_is_true(
        body in body(), turns in prop::collection::vec(a_turn(), 0..24), sent in a_request()
    ) {
        let keeper = Arc::new(Fickle { state: Mutex::new(State { turns, ..State::default() }), hangs: false });
        let (publications, (feed, _filler)) = (Publications::default(), kept(&keeper));
        run(async {
            let (ended, bytes, in_doubt) =
                request(&publications, &feed, None, sent.pieces(&body), sent.chunking, sent.dropped).await;
            let stored = keeper.all();
            prop_assert!(body.starts_with(&stored), "{stored:?}");
            prop_assert!(bytes as usize <= stored.len());
            prop_assert!(in_doubt || bytes as usize == stored.len());
            if let Some(Ok(())) = ended {
                prop_assert_eq!((&stored, in_doubt), (&body, false));
                if sent.chunking == Chunking::Lines {
                    let lines: Vec<_> = body.split_inclusive(|byte| *byte == b'\n').map(Bytes::copy_from_slice).collect();
                    prop_assert_eq!(&keeper.state().stored, &lines);
                }
            }
            Ok(())
        })?;
    }
}

/// Lines of ten bytes.
fn lines(count: usize) -> Vec<u8> {
    (0..count).flat_map(|number| format!("{number:09}\n").into_bytes()).collect()
}

#[tokio::test]
async fn what_is_there_goes_together() {
    let keeper = Arc::new(Fickle::default());
    let (publications, (feed, _filler)) = (Publications::default(), kept(&keeper));
    let body = lines(5000);
    let pieces = stream::iter([Ok(Bytes::from(body.clone()))]);
    let (ended, ..) = request(&publications, &feed, None, pieces, Chunking::Lines, None).await;
    assert!(matches!(ended, Some(Ok(()))));
    assert_eq!(keeper.all(), body);
    assert_eq!(keeper.state().stored.len(), 5000);
    assert!((100..=TOGETHER).contains(&keeper.state().most), "{}", keeper.state().most);
}

/// What is given again and again, and not taken, is not gathered.
#[tokio::test]
async fn a_keeper_of_single_chunks_is_given_few() {
    let turns = (0..5000).map(|_| Turn { slow: 0, stores: 1, fails: None }).collect();
    let keeper = Arc::new(Fickle { state: Mutex::new(State { turns, ..State::default() }), hangs: false });
    let (publications, (feed, _filler)) = (Publications::default(), kept(&keeper));
    let body = lines(2000);
    let pieces = stream::iter([Ok(Bytes::from(body.clone()))]);
    let (ended, ..) = request(&publications, &feed, None, pieces, Chunking::Lines, None).await;
    assert!(matches!(ended, Some(Ok(()))));
    assert_eq!(keeper.all(), body);
    let given = keeper.state().given;
    assert!(given < 5 * 2000, "{given}");
}

#[tokio::test(start_paused = true)]
async fn a_client_waits_when_enough_is_held() {
    let keeper = Arc::new(Fickle { hangs: true, ..Fickle::default() });
    let (publications, (feed, _filler)) = (Publications::default(), kept(&keeper));
    for (chunking, size) in [(Chunking::Bytes, 16 << 10), (Chunking::Lines, 100), (Chunking::Lines, 10_000)] {
        let mut taken = 0;
        let line = Bytes::from([vec![b'x'; size - 1], vec![b'\n']].concat());
        let pieces = stream::repeat(line).map(|line| {
            taken += line.len();
            Ok(line)
        });
        let endless = request(&publications, &feed, None, pieces, chunking, None);
        assert!(tokio::time::timeout(std::time::Duration::from_secs(5), endless).await.is_err());
        let most = (2 * TOGETHER * size).min(HELD);
        assert!((most..most + (256 << 10)).contains(&taken), "{taken} for {size}");
    }
}

/// The chunks on their way when the server stops are the last ones, and counted.
#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_at_the_end_is_counted() {
    let turns = vec![Turn { slow: 1000, stores: usize::MAX, fails: None }];
    let keeper = Arc::new(Fickle { state: Mutex::new(State { turns, ..State::default() }), hangs: false });
    let (publications, (feed, _filler)) = (Publications::default(), kept(&keeper));
    let first = stream::iter([Ok(Bytes::from(lines(3)))]);
    let second = stream::once(async {
        yield_now().await;
        feed.stop();
        Ok(Bytes::from(lines(5)))
    });
    let pieces = first.chain(second).chain(stream::pending());
    let (ended, bytes, in_doubt) = request(&publications, &feed, None, pieces, Chunking::Lines, None).await;
    let problem = ended.unwrap().unwrap_err();
    assert!(problem.text().contains("30 bytes were published"), "{}", problem.text());
    assert_eq!((keeper.all(), bytes, in_doubt), (lines(3), 30, false));
}
