//! Publications whose chunks are stored together, in batches.

use std::time::Duration;

use async_nats::jetstream::{self, consumer::pull, stream::Config};
use futures_util::StreamExt;
use h3cast::client::{Connection, RequestBody};
use http::Request;
use tokio::time::sleep;

use crate::{
    causes::metric,
    cluster::{Cluster, Way, healthy},
    common::soon,
    serving::Serving,
    within,
};

const STREAM: &str = "h3cast_log";

fn start(addresses: &str, more: &[&str]) -> Serving {
    let engine = format!("--engine=nats://{addresses}");
    let args = [&["log=publish", &engine, "--log=h3cast=debug"], more].concat();
    tokio::task::block_in_place(|| Serving::start(|_| args))
}

/// How often a batch was not taken.
fn refused(serving: &Serving) -> usize {
    let log = std::fs::read_to_string(serving.dir().join("stderr")).unwrap();
    log.matches("a batch was not taken").count()
}

fn lines(from: usize, to: usize) -> Vec<u8> {
    (from..to).flat_map(|number| format!("line {number} {}\n", "x".repeat(number % 100)).into_bytes()).collect()
}

fn cut(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

/// What a stream keeps in its order, and how many of its messages came in batches.
async fn kept(context: &jetstream::Context) -> (Vec<Vec<u8>>, usize) {
    let stream = context.get_stream(STREAM).await.unwrap();
    let count = stream.cached_info().state.messages as usize;
    let messages = stream.create_consumer(pull::OrderedConfig::default()).await.unwrap().messages().await.unwrap();
    let read = messages.take(count).fold((Vec::new(), 0), async |(mut chunks, batched), message| {
        let message = message.unwrap();
        let is_batched = message.headers.as_ref().is_some_and(|headers| headers.get("Nats-Batch-Id").is_some());
        chunks.push(message.payload.to_vec());
        (chunks, batched + usize::from(is_batched))
    });
    within("all that is kept", read).await
}

async fn stored(context: &jetstream::Context, at_least: u64) {
    within("it is stored", async {
        let mut stream = context.get_stream(STREAM).await.unwrap();
        while stream.info().await.map_or(0, |info| info.state.messages) < at_least {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// A publication that is running.
struct Publishing {
    _connection: Connection,
    body: RequestBody,
    answer: tokio::task::JoinHandle<(u16, String)>,
}

impl Publishing {
    async fn begin(serving: &Serving, key: Option<&str>, chunk: &str) -> Self {
        let connection = serving.connect().await;
        let request = Request::post(serving.uri(&format!("/stream/log?chunk={chunk}")));
        let request = key.into_iter().fold(request, |request, key| request.header("idempotency-key", key));
        let (body, answer) = soon("a request", connection.send_request(request.body(()).unwrap())).await.unwrap();
        let answer = tokio::spawn(async move {
            let mut answer = answer.await.unwrap();
            let mut text = Vec::new();
            while let Some(bytes) = answer.body.next().await.unwrap() {
                text.extend_from_slice(&bytes);
            }
            (answer.status.as_u16(), String::from_utf8(text).unwrap())
        });
        Self { _connection: connection, body, answer }
    }

    async fn send(&mut self, bytes: Vec<u8>) {
        within("it is sent", self.body.send(bytes.into())).await.unwrap();
    }

    /// Ends it, and gives what the server has answered.
    async fn end(self) -> serde_json::Value {
        self.body.finish().await.unwrap();
        let (status, text) = within("an answer", self.answer).await.unwrap();
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }
}

async fn publish(serving: &Serving, key: Option<&str>, chunk: &str, body: Vec<u8>) -> serde_json::Value {
    let mut publishing = Publishing::begin(serving, key, chunk).await;
    publishing.send(body).await;
    publishing.end().await
}

/// Also lines that are too many or too long for one batch; and the same body again, cut otherwise, at another edge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn what_comes_together_is_stored_together() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let [one, other] = [(); 2].map(|()| start(&cluster.addresses(), &["--ensure-stream"]));
    let long = [vec![b'x'; 65_000], b"\n".to_vec()].concat().repeat(20);
    let body = [lines(0, 2000), long, lines(2000, 2100)].concat();
    let written = publish(&one, Some("key"), "lines", body.clone()).await;
    let (chunks, batched) = kept(&context).await;
    assert!(chunks == cut(&body));
    assert!(batched > chunks.len() * 9 / 10, "{batched} of {}", chunks.len());
    assert_eq!((written["bytes"].as_u64(), written["chunks"].as_u64()), (Some(body.len() as u64), Some(2120)));
    assert_eq!(refused(&one), 0);
    // Each batch took its time once.
    let timed = metric(&one, "h3cast_nats_publish_seconds_count").await;
    let alone = (chunks.len() - batched) as f64;
    assert!(timed > alone && timed < chunks.len() as f64, "{timed} of {}, {alone} of them alone", chunks.len());
    // What is alone goes alone.
    publish(&one, None, "lines", b"alone\n".to_vec()).await;
    assert_eq!(kept(&context).await.1, batched);
    // The first half is there already, and the second one is new: in batches again.
    let more = [body.clone(), lines(2100, 6000)].concat();
    let written = publish(&other, Some("key"), "bytes", more.clone()).await;
    assert_eq!(written["bytes"].as_u64(), Some(more.len() as u64));
    let mut chunks = kept(&context).await.0;
    chunks.retain(|chunk| chunk != b"alone\n");
    assert!(chunks.concat() == more);
    assert!(refused(&other) > 0);
}

/// On a stream that takes no batches, or of which one that is too much might be stored in part.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn without_batches_chunks_are_stored_one_by_one() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let plain = Config { name: STREAM.into(), subjects: vec!["h3cast.log".into()], ..Config::default() };
    let body = lines(0, 500);
    for (config, takes, is_kept) in [
        (plain.clone(), false, 500),
        (Config { allow_atomic_publish: true, ..plain.clone() }, true, 500),
        (Config { allow_atomic_publish: true, max_messages_per_subject: 100, ..plain.clone() }, true, 100),
        (
            Config {
                allow_atomic_publish: true,
                discard: jetstream::stream::DiscardPolicy::New,
                max_messages: 1000,
                ..plain.clone()
            },
            false,
            500,
        ),
    ] {
        context.create_stream(config.clone()).await.unwrap();
        let serving = start(&cluster.addresses(), &[]);
        publish(&serving, None, "lines", body.clone()).await;
        let (chunks, batched) = kept(&context).await;
        let all = cut(&body);
        assert!(chunks == all[500 - is_kept..], "{config:?}");
        assert_eq!(batched > 0, takes, "{batched} {config:?}");
        assert_eq!(refused(&serving), 0);
        drop(serving);
        context.delete_stream(STREAM).await.unwrap();
    }
}

/// Other servers have as many batches on their way as a stream takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn batches_beyond_those_that_a_stream_takes_are_stored_one_by_one() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let serving = start(&cluster.addresses(), &["--ensure-stream"]);
    let client = context.client();
    for batch in 0..50 {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Batch-Id", format!("another-{batch}"));
        headers.insert("Nats-Batch-Sequence", "1");
        let begun = client.request_with_headers("h3cast.log", headers, "never stored".into());
        let begun = soon("it begins", begun).await.unwrap();
        assert!(begun.payload.is_empty(), "{begun:?}");
    }
    publish(&serving, None, "lines", lines(0, 500)).await;
    let (chunks, batched) = kept(&context).await;
    assert!(chunks == cut(&lines(0, 500)));
    assert!(refused(&serving) > 0 && batched < 500, "{batched}");
}

/// It is found out, and the stream changes while the edge runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_server_that_takes_less_than_others_is_given_less() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("limits.conf");
    std::fs::write(&config, "jetstream { limits { batch { max_msgs: 50 } } }").unwrap();
    let cluster = Cluster::start_with(1, &["-c".into(), config.display().to_string()]);
    let context = cluster.jetstream().await;
    let serving = start(&cluster.addresses(), &["--ensure-stream"]);
    publish(&serving, None, "lines", lines(0, 3000)).await;
    let (chunks, batched) = kept(&context).await;
    assert!(chunks == cut(&lines(0, 3000)));
    assert!(batched > 2500, "{batched}");
    assert!((1..=6).contains(&refused(&serving)));
    let stream = context.get_stream(STREAM).await.unwrap();
    let config = Config { allow_atomic_publish: false, ..stream.cached_info().config.clone() };
    context.update_stream(config).await.unwrap();
    let before = refused(&serving);
    publish(&serving, None, "lines", lines(3000, 4000)).await;
    let (chunks, still) = kept(&context).await;
    assert!(chunks == cut(&lines(0, 4000)));
    assert_eq!((still, refused(&serving)), (batched, before + 1));
}

/// It is stored, and the connection is cut before the edge hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_batch_whose_answer_is_lost_is_stored_once() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let mut way = Way::to(cluster.nodes[0].port).await;
    let serving = start(&format!("127.0.0.1:{}", way.port), &["--ensure-stream"]);
    let mut all = Vec::new();
    for key in [None, Some("key")] {
        // What is answered: the edge knows what the stream takes.
        publish(&serving, None, "lines", lines(0, 50)).await;
        all.extend(lines(0, 50));
        let before = cut(&all).len() as u64;
        let mut publishing = Publishing::begin(&serving, key, "lines").await;
        way.hold(true);
        publishing.send(lines(50, 400)).await;
        all.extend(lines(50, 400));
        // More than one chunk, without an answer: they are a batch.
        stored(&context, before + 2).await;
        way.cut().await;
        way.hold(false);
        way.mend().await;
        publishing.send(lines(400, 1000)).await;
        all.extend(lines(400, 1000));
        assert_eq!(publishing.end().await["chunks"], 950);
        let (chunks, batched) = kept(&context).await;
        assert!(chunks == cut(&all));
        assert!(batched > 400, "{batched}");
    }
    assert!(refused(&serving) >= 2);
}

/// One publication without a key, which runs all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn batches_survive_the_death_of_their_leader() {
    let mut cluster = Cluster::start_whole().await;
    let context = cluster.jetstream().await;
    let serving = start(&cluster.addresses(), &["--ensure-stream=replicas=3"]);
    let mut publishing = Publishing::begin(&serving, None, "lines").await;
    let mut sent = 0;
    for _ in 0..2 {
        let leader = healthy(&context, STREAM).await;
        let until = sent + 20_000;
        let mut dead = None;
        while sent < until {
            publishing.send(lines(sent, sent + 500)).await;
            sent += 500;
            if dead.is_none() && sent >= until - 15_000 {
                let at = cluster.nodes.iter().position(|node| node.name == leader).unwrap();
                cluster.nodes[at].kill();
                dead = Some(at);
            }
        }
        // Those that are held where nobody leads are less than what has been sent.
        stored(&context, sent as u64 - 4000).await;
        cluster.nodes[dead.unwrap()].start();
    }
    assert_eq!(publishing.end().await["chunks"], sent);
    let context = cluster.jetstream().await;
    let (chunks, batched) = kept(&context).await;
    assert!(chunks == cut(&lines(0, sent)));
    assert!(batched > sent / 2, "{batched}");
    assert!(refused(&serving) > 0, "no batch was on its way");
}
