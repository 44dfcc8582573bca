//! Feeds on a real NATS cluster: several servers of the same feeds, and what becomes of viewers and
//! publishers when parts of it fail. `tests/run nats` installs nats-server and runs it.
#![cfg(feature = "nats")]

mod common;
#[path = "common/nats.rs"]
mod nats;
#[path = "common/program.rs"]
mod program;
#[path = "common/serving.rs"]
mod serving;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_nats::jetstream::{self, consumer::pull};
use common::soon;
use futures_util::StreamExt;
use h3cast::client::{
    Connection, Trust, Viewer,
    viewer::{Event, Transport},
};
use http::{Request, Uri};
use nats::{Cluster, Way};
use serving::Serving;
use sha2::{Digest, Sha256};
use tokio::{sync::Notify, task::JoinSet, time::sleep};

/// How long what takes several elections may take.
const LONG: Duration = Duration::from_secs(120);

async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LONG, event).await {
        Ok(value) => value,
        Err(_) => panic!("did not happen within {LONG:?}: {what}"),
    }
}

/// Where a server of ours can be reached.
#[derive(Clone)]
struct Edge {
    base: String,
    trust: Trust,
}

impl Edge {
    fn of(serving: &Serving) -> Self {
        Self { base: format!("https://localhost:{}", serving.port), trust: Trust::Files(vec![serving.certificate()]) }
    }

    fn uri(&self, path: &str) -> Uri {
        format!("{}{path}", self.base).parse().unwrap()
    }
}

/// Publishes a line at one of the edges, at the next one when that fails, until it is acknowledged.
async fn publish(edges: &[Edge], at: &mut usize, connection: &mut Option<Connection>, key: &str, line: &str) {
    loop {
        let edge = &edges[*at % edges.len()];
        let answered = tokio::time::timeout(Duration::from_secs(8), async {
            if connection.is_none() {
                *connection = Connection::open(&edge.uri("/"), &edge.trust).await.ok();
            }
            let request = Request::post(edge.uri("/stream/chat?chunk=lines")).header("idempotency-key", key);
            let (mut body, answer) = connection.as_ref()?.send_request(request.body(()).unwrap()).await.ok()?;
            body.send(line.to_owned().into()).await.ok()?;
            body.finish().await.ok()?;
            let answer = answer.await.ok()?;
            if answer.status == 503 {
                assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
            }
            Some(answer.status)
        })
        .await;
        match answered {
            Ok(Some(status)) if status == 200 => return,
            Ok(Some(status)) => assert_eq!(status, 503),
            Ok(None) | Err(_) => *connection = None,
        }
        *at += 1;
        sleep(Duration::from_millis(50)).await;
    }
}

/// What somebody has of a feed, in short.
#[derive(Debug, Clone, Default)]
struct Seen {
    chunks: u64,
    last: Option<u64>,
    hash: Sha256,
}

impl Seen {
    fn add(&mut self, seq: u64, bytes: &[u8]) {
        assert!(self.last.is_none_or(|last| seq > last), "{seq} behind {:?}", self.last);
        self.last = Some(seq);
        self.chunks += 1;
        self.hash.update(seq.to_be_bytes());
        self.hash.update(bytes);
    }

    fn digest(&self) -> (u64, Vec<u8>) {
        (self.chunks, self.hash.clone().finalize().to_vec())
    }
}

/// What all viewers share.
#[derive(Default)]
struct Watch {
    /// Slow ones are slow until then.
    hurry: AtomicBool,
    stalled: AtomicUsize,
    back: AtomicUsize,
    moved: AtomicUsize,
}

const LAST: &[u8] = b"the last\n";

/// Views the feed to its last line: at the next edge when one is lost.
async fn view(edges: Arc<Vec<Edge>>, mut at: usize, transport: Transport, slow: bool, watch: Arc<Watch>) -> Seen {
    let mut seen = Seen::default();
    let mut cursor = None;
    loop {
        let edge = &edges[at % edges.len()];
        let from = cursor.map_or_else(|| "start".to_owned(), |cursor: h3cast::chunk::Cursor| cursor.to_string());
        let uri = edge.uri(&format!("/stream/chat?from={from}"));
        let mut viewer = Viewer::new(&uri, edge.trust.clone()).unwrap().transport(transport);
        loop {
            match viewer.next().await.unwrap().expect("the feed does not end") {
                Event::Chunk { cursor: of, bytes, .. } => {
                    seen.add(of.seq, &bytes);
                    cursor = Some(of);
                    if bytes.as_ref() == LAST {
                        return seen;
                    }
                    if slow && !watch.hurry.load(Ordering::Relaxed) {
                        sleep(Duration::from_millis(200)).await;
                    }
                }
                Event::Stalled(true) => drop(watch.stalled.fetch_add(1, Ordering::Relaxed)),
                Event::Stalled(false) => drop(watch.back.fetch_add(1, Ordering::Relaxed)),
                Event::Lost { .. } => {
                    watch.moved.fetch_add(1, Ordering::Relaxed);
                    at += 1;
                    break;
                }
                Event::Opened { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// All that is in a stream, as its servers have it.
async fn kept(context: &jetstream::Context, stream: &str) -> Vec<(u64, Vec<u8>)> {
    let stream = context.get_stream(stream).await.unwrap();
    let count = stream.cached_info().state.messages as usize;
    let config = pull::OrderedConfig::default();
    let messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
    let read = messages.take(count).map(|message| {
        let message = message.unwrap();
        (message.info().unwrap().stream_sequence - 1, message.payload.to_vec())
    });
    within("all that is kept", read.collect()).await
}

/// Waits until the stream has a leader and every copy of it is up to date; gives the leader.
async fn healthy(context: &jetstream::Context, stream: &str) -> String {
    within("the stream is healthy", async {
        loop {
            if let Ok(stream) = context.get_stream(stream).await
                && let Some(cluster) = &stream.cached_info().cluster
                && let Some(leader) = &cluster.leader
                && cluster.replicas.len() == 2
                && cluster.replicas.iter().all(|replica| replica.current && !replica.offline)
            {
                return leader.clone();
            }
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await
}

const PUBLISHERS: usize = 3;
const LINES: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn nothing_is_lost_or_doubled_whatever_fails() {
    let mut cluster = Cluster::start(3);
    let context = cluster.jetstream().await;
    let (mut servings, mut ways) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let mut own = Vec::new();
        for node in &cluster.nodes {
            own.push(Way::to(node.port).await);
        }
        let servers: Vec<_> = own.iter().map(|way| format!("127.0.0.1:{}", way.port)).collect();
        let engine = format!("--engine=nats://{}", servers.join(","));
        let args = ["chat=publish", engine.as_str(), "--ensure-stream=replicas=3", "--history", "128K"];
        // Blocks until it is ready.
        let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
        servings.push(Some(serving));
        ways.push(own);
    }
    let edges: Arc<Vec<_>> = Arc::new(servings.iter().map(|serving| Edge::of(serving.as_ref().unwrap())).collect());
    let watch = Arc::new(Watch::default());
    let mut viewers = JoinSet::new();
    let ways_of = [Transport::Get, Transport::WebTransport];
    for number in 0..200 {
        viewers.spawn(view(edges.clone(), number, ways_of[number % 2], number % 40 == 0, watch.clone()));
    }

    let acknowledged = Arc::new(AtomicU64::new(0));
    let told = Arc::new(Notify::new());
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let (edges, acknowledged, told) = (edges.clone(), acknowledged.clone(), told.clone());
        publishers.spawn(async move {
            let (mut at, mut connection) = (publisher, None);
            for number in 0..LINES {
                let line = format!("{publisher} {number} {}\n", "x".repeat(1000));
                publish(&edges, &mut at, &mut connection, &format!("{publisher}-{number}"), &line).await;
                acknowledged.fetch_add(1, Ordering::Relaxed);
                told.notify_one();
                sleep(Duration::from_millis(20)).await;
            }
        });
    }
    let so_many = |wanted: u64| {
        let (acknowledged, told) = (acknowledged.clone(), told.clone());
        async move {
            within("lines are published", async {
                while acknowledged.load(Ordering::Relaxed) < wanted {
                    told.notified().await;
                }
            })
            .await;
        }
    };

    so_many(60).await;
    // An edge, without a word.
    servings[0] = None;
    so_many(160).await;
    // A node that does not lead the stream, then the one that does.
    let leader = healthy(&context, "h3cast_chat").await;
    let other = cluster.nodes.iter_mut().find(|node| node.name != leader).unwrap();
    other.kill();
    so_many(260).await;
    other.start();
    let leader = healthy(&context, "h3cast_chat").await;
    let leading = cluster.nodes.iter_mut().find(|node| node.name == leader).unwrap();
    leading.kill();
    so_many(360).await;
    leading.start();
    healthy(&context, "h3cast_chat").await;
    // An edge that does not reach NATS any more: its viewers are told, and stay.
    for way in &mut ways[2] {
        way.cut().await;
    }
    soon("its viewers are told", async {
        while watch.stalled.load(Ordering::Relaxed) < 60 {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    so_many(acknowledged.load(Ordering::Relaxed) + 60).await;
    for way in &mut ways[2] {
        way.mend().await;
    }
    // All nodes, one after another.
    for node in 0..3 {
        cluster.nodes[node].kill();
        sleep(Duration::from_secs(1)).await;
        cluster.nodes[node].start();
        healthy(&context, "h3cast_chat").await;
    }
    within("all is published", async {
        while let Some(published) = publishers.join_next().await {
            published.unwrap();
        }
    })
    .await;
    watch.hurry.store(true, Ordering::Relaxed);
    // Who comes late gets all of it too: what is older than the ring from JetStream.
    for number in 0..6 {
        viewers.spawn(view(edges.clone(), 1 + number % 2, ways_of[number % 2], false, watch.clone()));
    }
    publish(&edges, &mut 1, &mut None, "last", std::str::from_utf8(LAST).unwrap()).await;

    // One for each edge, however many viewers: those that read what is old have gone again.
    within("there are few consumers", async {
        while context.get_stream("h3cast_chat").await.unwrap().cached_info().state.consumer_count > 3 {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    let kept = kept(&context, "h3cast_chat").await;
    let mut reference = Seen::default();
    let mut of: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (seq, bytes) in &kept {
        reference.add(*seq, bytes);
        let text = String::from_utf8(bytes.clone()).unwrap();
        let mut words = text.split(' ');
        if let (Some(publisher), Some(Ok(number))) = (words.next(), words.next().map(str::parse)) {
            of.entry(publisher.to_owned()).or_default().push(number);
        }
    }
    // Each line once, and those of one publisher in their order.
    assert_eq!(of.len(), PUBLISHERS);
    for (publisher, numbers) in of {
        assert!(numbers.iter().copied().eq(0..LINES), "{publisher}: {numbers:?}");
    }
    assert_eq!(reference.chunks as usize, PUBLISHERS * LINES + 1);
    let mut count = 0;
    within("all viewers have all", async {
        while let Some(seen) = viewers.join_next().await {
            assert_eq!(seen.unwrap().digest(), reference.digest());
            count += 1;
        }
    })
    .await;
    assert_eq!(count, 206);
    assert!(watch.moved.load(Ordering::Relaxed) >= 60, "who lost an edge goes on at another");
    assert!(watch.back.load(Ordering::Relaxed) >= 60);
}

fn chunk_texts(events: &[Event]) -> Vec<String> {
    let text = |event: &Event| match event {
        Event::Chunk { bytes, .. } => Some(String::from_utf8(bytes.to_vec()).unwrap()),
        _ => None,
    };
    events.iter().filter_map(text).collect()
}

/// Reads until there are so many chunks.
async fn read(edge: &Edge, path: &str, chunks: usize) -> Vec<Event> {
    let mut viewer = Viewer::new(&edge.uri(path), edge.trust.clone()).unwrap();
    let mut events = Vec::new();
    while chunk_texts(&events).len() < chunks {
        events.push(soon("an event", viewer.next()).await.unwrap().unwrap());
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn patterns_make_feeds_and_plain_subjects_are_live() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let config =
        jetstream::stream::Config { name: "LOGS".into(), subjects: vec!["logs.>".into()], ..Default::default() };
    context.create_stream(config).await.unwrap();
    for (subject, text) in [("logs.web", "a"), ("logs.db", "b"), ("logs.web", "c"), ("logs.web", "d")] {
        context.publish(subject, text.into()).await.unwrap().await.unwrap();
    }
    let address = cluster.addresses();
    let (logs, live) = (format!("logs=nats://{address}/logs.*"), format!("live=nats://{address}/plain?live"));
    let serving = tokio::task::block_in_place(|| Serving::start(|_| vec![logs, live]));
    let edge = Edge::of(&serving);
    let events = read(&edge, "/stream/logs.web?from=start", 3).await;
    assert_eq!(chunk_texts(&events), ["a", "c", "d"]);
    // The numbers of others are left out, and that is no loss.
    assert!(!events.iter().any(|event| matches!(event, Event::Gap(_))), "{events:?}");
    assert_eq!(chunk_texts(&read(&edge, "/stream/logs.db?from=start", 1).await), ["b"]);
    let connection = serving.connect().await;
    let missing = connection.get(&edge.uri("/stream/logs.a.b")).await.unwrap();
    assert_eq!(missing.status, 404);

    let mut viewer = Viewer::new(&edge.uri("/stream/live"), edge.trust.clone()).unwrap();
    assert!(matches!(soon("it opens", viewer.next()).await.unwrap(), Some(Event::Opened { .. })));
    let client = context.client();
    let heard = async {
        loop {
            if let Some(Event::Chunk { bytes, .. }) = viewer.next().await.unwrap() {
                return bytes;
            }
        }
    };
    let told = async {
        loop {
            client.publish("plain", "now".into()).await.unwrap();
            client.flush().await.unwrap();
            // The server's subscription may come later than it says that it is ready.
            sleep(Duration::from_millis(50)).await;
        }
    };
    let heard = soon("a live message", async {
        tokio::select! { bytes = heard => bytes, () = told => unreachable!() }
    });
    assert_eq!(heard.await.as_ref(), b"now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_server_without_nats_says_so() {
    let mut cluster = Cluster::start(1);
    cluster.jetstream().await;
    let engine = format!("--engine=nats://{}", cluster.addresses());
    let serving =
        tokio::task::block_in_place(|| Serving::start(|_| vec!["chat=publish", engine.as_str(), "--ensure-stream"]));
    let edge = Edge::of(&serving);
    let connection = serving.connect().await;
    let ready = async |status: u16| {
        soon("readiness", async {
            while connection.get(&edge.uri("/readyz")).await.unwrap().status != status {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    };
    ready(200).await;
    let mut viewer = Viewer::new(&edge.uri("/stream/chat"), edge.trust.clone()).unwrap();
    assert!(matches!(soon("it opens", viewer.next()).await.unwrap(), Some(Event::Opened { .. })));
    cluster.nodes[0].kill();
    assert!(matches!(soon("it is told", viewer.next()).await.unwrap(), Some(Event::Stalled(true))));
    ready(503).await;
    let request = Request::post(edge.uri("/stream/chat")).body(()).unwrap();
    let (mut body, answer) = connection.send_request(request).await.unwrap();
    body.send("lost".into()).await.unwrap();
    body.finish().await.unwrap();
    let answer = soon("an answer", answer).await.unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.headers.contains_key("retry-after"));
    cluster.nodes[0].start();
    assert!(matches!(within("it goes on", viewer.next()).await.unwrap(), Some(Event::Stalled(false))));
    ready(200).await;
    let mut at = 0;
    publish(std::slice::from_ref(&edge), &mut at, &mut None, "key", "back\n").await;
    assert!(matches!(soon("a chunk", viewer.next()).await.unwrap(), Some(Event::Chunk { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn what_is_wrong_is_said() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let config = jetstream::stream::Config { name: "S".into(), subjects: vec!["there".into()], ..Default::default() };
    context.create_stream(config).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let address = cluster.addresses();
    let refused = async |args: &[&str], words: &str| {
        let all = [&["serve", "--listen", "localhost:0", "--http", "off"], args].concat();
        let output = program::output(dir.path(), &all).await;
        let told = program::text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(words), "{told}");
    };
    refused(&[&format!("nats://{address}/gone")], "no JetStream stream keeps the subject `gone`").await;
    refused(&[&format!("nats://{address}/there"), "--ensure-stream=max-age=1h"], "max-age is 0 s, not 3600 s").await;
    refused(&["nats://127.0.0.1:1/x"], "cannot connect to NATS at 127.0.0.1:1").await;
    refused(&["nats://127.0.0.1:1"], "has no subject").await;
    refused(&[&format!("nats://{address}/there"), "--nats-creds", "none"], "cannot read the credentials").await;
    // It was not changed.
    assert_eq!(context.get_stream("S").await.unwrap().cached_info().config.max_age, Duration::ZERO);
}

/// nginx, with the configuration of the documentation.
struct Nginx(std::process::Child);

impl Nginx {
    fn start(dir: &std::path::Path, port: u16, edges: [u16; 2]) -> Self {
        let documented = include_str!("../docs/load-balancing/nginx.conf");
        let [one, other] = edges;
        let config = documented
            .replace("10.0.0.11:4433", &format!("127.0.0.1:{one}"))
            .replace("10.0.0.12:4433", &format!("127.0.0.1:{other}"))
            .replace("listen 4433", &format!("listen 127.0.0.1:{port}"))
            .replace("events {", &format!("pid {}/pid;\ndaemon off;\nerror_log stderr;\nevents {{", dir.display()));
        assert_eq!(config.matches("127.0.0.1").count(), 4);
        let file = dir.join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let nginx = ["/usr/sbin/nginx", "nginx"].into_iter().find_map(|program| {
            std::process::Command::new(program).arg("-p").arg(dir).arg("-c").arg(&file).spawn().ok()
        });
        Self(nginx.expect("nginx is installed by `tests/run debian`"))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it only when it is asked.
        let _ = std::process::Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server and nginx: `tests/run debian python nats`"]
async fn behind_a_load_balancer_viewers_go_on_at_another_edge() {
    const LINES: usize = 40;
    let cluster = Cluster::start(1);
    cluster.jetstream().await;
    let engine = format!("--engine=nats://{}", cluster.addresses());
    let dir = tempfile::tempdir().unwrap();
    // One certificate for both, as they have one name.
    let certs = dir.path().join("certs").display().to_string();
    let args = ["chat=publish", &engine, "--ensure-stream", "--certs", &certs];
    let start = || tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let mut servings = [Some(start()), Some(start())];
    let ports = [servings[0].as_ref().unwrap().port, servings[1].as_ref().unwrap().port];
    let [port] = nats::free_ports();
    let _nginx = Nginx::start(dir.path(), port, ports);
    let trust = Trust::Files(vec![dir.path().join("certs/cert.pem")]);
    let balanced = Edge { base: format!("https://127.0.0.1:{port}"), trust: trust.clone() };
    let direct = Edge { base: format!("https://127.0.0.1:{}", ports[1]), trust };

    let (mut viewers, opened) = (JoinSet::new(), Arc::new((AtomicUsize::new(0), Notify::new())));
    let mut at_edges = [0, 0];
    // Which edge one comes to is nginx's hash of a port: until there are some at each.
    for number in 1.. {
        assert!(number < 40, "all viewers come to one edge: {at_edges:?}");
        if number > 4 && at_edges.iter().all(|viewers| *viewers > 0) {
            break;
        }
        let (balanced, told) = (balanced.clone(), opened.clone());
        viewers.spawn(async move {
            let opened = told;
            let transport = [Transport::Get, Transport::WebTransport][number % 2];
            let viewer = Viewer::new(&balanced.uri("/stream/chat?from=start"), balanced.trust.clone()).unwrap();
            let (mut viewer, mut lines, mut lost) = (viewer.transport(transport), Vec::new(), 0);
            while lines.len() < LINES {
                match viewer.next().await.unwrap().unwrap() {
                    Event::Chunk { bytes, .. } => lines.push(String::from_utf8(bytes.to_vec()).unwrap()),
                    Event::Opened { .. } => {
                        opened.0.fetch_add(1, Ordering::Relaxed);
                        opened.1.notify_one();
                    }
                    Event::Lost { .. } => lost += 1,
                    other => panic!("{other:?}"),
                }
            }
            (lines, lost)
        });
        within("it views", async {
            while opened.0.load(Ordering::Relaxed) < number {
                opened.1.notified().await;
            }
        })
        .await;
        for (serving, viewers) in servings.iter().flatten().zip(&mut at_edges) {
            *viewers = serving.feeds(&serving.connect_with(&certs).await).await[0]["viewers"].as_u64().unwrap();
        }
    }
    let (mut at, mut connection) = (0, None);
    for number in 0..LINES {
        if number == LINES / 2 {
            servings[0] = None;
        }
        let edge = std::slice::from_ref(&direct);
        publish(edge, &mut at, &mut connection, &number.to_string(), &format!("{number}\n")).await;
    }
    let expected: Vec<_> = (0..LINES).map(|number| format!("{number}\n")).collect();
    let mut moved = 0;
    within("all have all", async {
        while let Some(viewed) = viewers.join_next().await {
            let (lines, lost) = viewed.unwrap();
            assert_eq!(lines, expected);
            moved += u64::from(lost > 0);
        }
    })
    .await;
    assert_eq!(moved, at_edges[0], "those of the other edge lose nothing");
}

/// A JWT as NATS has them: signed by an nkey.
fn jwt(issuer: &nkeys::KeyPair, subject: &str, nats: &serde_json::Value) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
    let header = serde_json::json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let claims = serde_json::json!({
        "jti": subject, "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject, "name": "test", "nats": nats,
    });
    let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64.encode(signature))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn with_tls_and_credentials() {
    use serde_json::json;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    h3cast::Identity::self_signed(dir.path(), &[], Default::default()).unwrap();

    // An operator, its system's account, an account with JetStream, and a user of that.
    let [operator, system, account, user] = [
        nkeys::KeyPair::new_operator(),
        nkeys::KeyPair::new_account(),
        nkeys::KeyPair::new_account(),
        nkeys::KeyPair::new_user(),
    ];
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let plain_limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
    });
    let account_of = |key: &nkeys::KeyPair, limits| {
        jwt(&operator, &key.public_key(), &json!({ "type": "account", "version": 2, "limits": limits }))
    };
    let config = format!(
        "operator: {}\nsystem_account: {sys}\nresolver: MEMORY\nresolver_preload: {{ {sys}: {}, {}: {} }}\n",
        jwt(&operator, &operator.public_key(), &json!({ "type": "operator", "version": 2 })),
        account_of(&system, plain_limits),
        account.public_key(),
        account_of(&account, limits),
        sys = system.public_key(),
    );
    std::fs::write(path("nats.conf"), config).unwrap();
    let user_jwt = jwt(
        &account,
        &user.public_key(),
        &json!({ "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 }),
    );
    let credentials = format!(
        "-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().unwrap()
    );
    std::fs::write(path("user.creds"), credentials).unwrap();

    let tls = ["-c", "nats.conf", "--tls", "--tlscert", "cert.pem", "--tlskey", "key.pem"];
    let tls: Vec<_> = tls.iter().map(|arg| if arg.contains('.') { path(arg) } else { (*arg).to_owned() }).collect();
    let cluster = Cluster::start_with(1, &tls);
    let engine = format!("--engine=tls://localhost:{}", cluster.nodes[0].port);
    let (ca, creds) = (format!("--nats-ca={}", path("cert.pem")), format!("--nats-creds={}", path("user.creds")));
    let args = ["chat=publish", engine.as_str(), "--ensure-stream", &ca, &creds];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let edge = Edge::of(&serving);
    publish(std::slice::from_ref(&edge), &mut 0, &mut None, "key", "safe\n").await;
    assert_eq!(chunk_texts(&read(&edge, "/stream/chat?from=start", 1).await), ["safe\n"]);

    for (left_out, words) in [(&creds, "authorization"), (&ca, "certificate")] {
        let args: Vec<_> = args.iter().copied().filter(|arg| arg != left_out).collect();
        let all = [&["serve", "--listen", "localhost:0", "--http", "off"], args.as_slice()].concat();
        let output = program::output(dir.path(), &all).await;
        let told = program::text(&output.stderr).to_lowercase();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("cannot connect to nats") && told.contains(words), "{told}");
    }
}
