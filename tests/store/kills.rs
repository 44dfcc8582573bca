//! Servers that are killed at random, under publishers and viewers: all have the same chunks.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, Hasher, RandomState},
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h3cast::{
    client::{
        Publication, PublishEvent, Viewer,
        viewer::{Event, Transport},
    },
    source::chunker::Chunking,
};
use tokio::{
    io::AsyncWriteExt,
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{
    Place, first, next, post,
    process::{self, soon},
};

/// Random numbers that can be had again.
pub(crate) struct Random(u64);

impl Random {
    /// With the seed of `H3CAST_SEED`, or a new one.
    pub(crate) fn new() -> Self {
        let given = std::env::var("H3CAST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        println!("H3CAST_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// What a publisher says of its lines.
#[derive(Default)]
struct Ledger {
    /// They were confirmed.
    confirmed: BTreeSet<String>,
    /// Nobody said whether they were published.
    in_doubt: BTreeSet<String>,
}

/// Set once something of a publisher is confirmed.
type Begun = watch::Sender<bool>;

/// Publishes lines over HTTP/1.1, each with a key, and again until it is confirmed.
fn over_http1(place: Arc<Place>, stop: watch::Receiver<bool>, begun: Begun) -> JoinHandle<Ledger> {
    tokio::spawn(async move {
        let mut ledger = Ledger::default();
        for number in 0.. {
            if *stop.borrow() {
                break;
            }
            let line = format!("http1 {number}\n");
            let key = format!("k{number}");
            while !matches!(post(&place, "/stream", Some(&key), &line).await, Some((200, _))) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            ledger.confirmed.insert(line);
            begun.send_replace(true);
        }
        ledger
    })
}

/// Publishes lines over HTTP/3 in one publication, which continues by its key.
fn over_http3(place: &Arc<Place>, mut stop: watch::Receiver<bool>, begun: Begun) -> JoinHandle<Ledger> {
    let (uri, trust) = (place.uri("/stream"), place.trust());
    tokio::spawn(async move {
        let given = Arc::new(Mutex::new(Ledger::default()));
        let (pieces_tx, pieces) = mpsc::channel(16);
        let to = given.clone();
        let giving = tokio::spawn(async move {
            for number in 0.. {
                let line = format!("http3 {number}\n");
                to.lock().unwrap().confirmed.insert(line.clone());
                tokio::select! {
                    sent = pieces_tx.send(Ok(Bytes::from(line))) => sent.expect("it is read"),
                    _ = stop.wait_for(|stop| *stop) => return number,
                }
                if number % 20 == 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            0
        });
        let mut publication = Publication::new(uri, trust).chunking(Chunking::Lines);
        let pieces = futures_util::stream::unfold(pieces, |mut pieces| async { Some((pieces.recv().await?, pieces)) });
        let tell = |event| {
            if matches!(event, PublishEvent::Acknowledged(1..)) {
                begun.send_replace(true);
            }
        };
        publication.run(pieces, tell).await.expect("it is published");
        // The last one was not taken.
        let last = giving.await.unwrap();
        let mut ledger = std::mem::take(&mut *given.lock().unwrap());
        ledger.confirmed.remove(&format!("http3 {last}\n"));
        ledger
    })
}

/// Publishes lines over WebTransport, which has no keys: each in a session of its own.
fn over_webtransport(place: Arc<Place>, stop: watch::Receiver<bool>, begun: Begun) -> JoinHandle<Ledger> {
    tokio::spawn(async move {
        let mut ledger = Ledger::default();
        for number in 0.. {
            if *stop.borrow() {
                break;
            }
            let line = format!("session {number}\n");
            let mut publish = tokio::process::Command::new(env!("CARGO_BIN_EXE_h3cast"))
                .args(["publish", "--webtransport", "--retry-for", "0s", "--cacert"])
                .arg(place.folder().join("certs/cert.pem"))
                .arg(place.uri("/stream").to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            let _ = publish.stdin.take().unwrap().write_all(line.as_bytes()).await;
            let ended = tokio::time::timeout(Duration::from_secs(5), publish.wait()).await;
            match ended.is_ok_and(|ended| ended.unwrap().success()) {
                true => {
                    ledger.confirmed.insert(line);
                    begun.send_replace(true);
                }
                false => _ = ledger.in_doubt.insert(line),
            }
        }
        ledger
    })
}

/// Follows the feed from its start. What it has is whole, in order, and without a gap.
fn view(place: &Arc<Place>, transport: Transport, seen: Arc<AtomicU64>) -> JoinHandle<Vec<Bytes>> {
    let mut viewer = Viewer::new(&place.uri("/stream?from=start"), place.trust()).unwrap().transport(transport);
    tokio::spawn(async move {
        let (mut all, mut epoch) = (Vec::<Bytes>::new(), None);
        loop {
            match viewer.next().await.unwrap() {
                Some(Event::Chunk { cursor, bytes, .. }) => {
                    assert_eq!(cursor.seq, all.len() as u64, "a chunk was lost, or came twice");
                    assert_eq!(*epoch.get_or_insert(cursor.epoch), cursor.epoch, "another run");
                    let is_end = bytes == "end\n";
                    all.push(bytes);
                    seen.store(all.len() as u64, Ordering::Relaxed);
                    if is_end {
                        return all;
                    }
                }
                Some(Event::Opened { .. } | Event::Lost { .. } | Event::Stalled { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    })
}

/// The same over HTTP/1.1, with what `/stream` answers.
fn view_over_http1(place: Arc<Place>) -> JoinHandle<Vec<Bytes>> {
    tokio::spawn(async move {
        let mut events = crate::viewer::Plain::new(place);
        let mut all = Vec::new();
        loop {
            let (seq, bytes) = events.next().await;
            assert_eq!(seq, all.len() as u64, "a chunk was lost, or came twice");
            let is_end = bytes == "end\n";
            all.push(bytes);
            if is_end {
                return all;
            }
        }
    })
}

/// Kills that many servers.
async fn kill(many: u64) {
    let mut random = Random::new();
    let args = ["publish", "--history", "64k"];
    let (place, mut server) = first(&args).await;
    let (stop_tx, stop) = watch::channel(false);
    let begun = [(); 3].map(|()| Begun::new(false));
    let publishers = [
        over_http1(place.clone(), stop.clone(), begun[0].clone()),
        over_http3(&place, stop.clone(), begun[1].clone()),
        over_webtransport(place.clone(), stop, begun[2].clone()),
    ];
    let seen = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    let viewers = [
        view(&place, Transport::Get, seen[0].clone()),
        view(&place, Transport::WebTransport, seen[1].clone()),
        view_over_http1(place.clone()),
    ];
    // On a busy machine, all servers may be killed before one of them has published anything.
    for (name, begun) in ["http1", "http3", "session"].into_iter().zip(&begun) {
        soon(name, begun.subscribe().wait_for(|begun| *begun)).await.unwrap();
    }
    for _ in 0..many {
        tokio::time::sleep(Duration::from_millis(20 + random.below(500))).await;
        server.kill();
        server = next(&place, &args).await;
    }
    stop_tx.send_replace(true);
    let mut ledgers = BTreeMap::new();
    for (name, publisher) in ["http1", "http3", "session"].into_iter().zip(publishers) {
        ledgers.insert(name, soon(name, publisher).await.unwrap());
    }
    soon("the end is published", async {
        while !matches!(post(&place, "/stream", Some("end"), "end\n").await, Some((200, _))) {}
    })
    .await;
    let mut have = Vec::new();
    for viewer in viewers {
        have.push(soon("a viewer comes to the end", viewer).await.unwrap());
    }
    assert!(have.iter().all(|all| *all == have[0]), "viewers have different chunks");
    let mut count = BTreeMap::<&[u8], usize>::new();
    have[0].iter().for_each(|chunk| *count.entry(chunk).or_default() += 1);
    for (name, Ledger { confirmed, in_doubt }) in &ledgers {
        println!("{name}: {} confirmed, {} in doubt", confirmed.len(), in_doubt.len());
        assert!(!confirmed.is_empty(), "{name} published nothing");
        let lost: Vec<_> = confirmed.iter().filter(|line| count.remove(line.as_bytes()) != Some(1)).collect();
        assert!(lost.is_empty(), "{name}: lost or doubled: {lost:?}");
        let doubled: Vec<_> =
            in_doubt.iter().filter(|line| count.remove(line.as_bytes()).is_some_and(|many| many > 1)).collect();
        assert!(doubled.is_empty(), "{name}: doubled: {doubled:?}");
    }
    count.remove(&b"end\n"[..]);
    assert!(count.is_empty(), "nobody has published {count:?}");
    assert!(process::get(&place, "/readyz").await.contains(" 200 "));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_times() {
    kill(10).await;
}

/// For tests/soak.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn a_hundred_times() {
    for _ in 0..4 {
        kill(25).await;
    }
}
