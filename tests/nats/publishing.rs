//! Publications that break off, and go on at another edge or at the same one.

use std::{path::Path, process::Stdio, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use h3cast::client::{Connection, Publication, PublishEvent, Published, Trust};
use http::Request;
use tokio::{io::AsyncWriteExt, sync::mpsc, time::sleep};

use crate::{
    cluster::{self, Cluster, Way},
    common::{relay::Relay, soon},
    edge::Edge,
    serving::Serving,
    within,
};

/// Pieces of several sizes, none like another.
fn pieces(count: usize, size: usize) -> Vec<Bytes> {
    let piece = |number: usize| {
        let len = size / 2 + number * 7919 % size;
        (0..len).map(|at| (number * 31 + at * at / 7) as u8).collect()
    };
    (0..count).map(piece).collect()
}

/// The bytes of all that a stream keeps, and in how many chunks.
async fn kept(cluster: &Cluster) -> (Vec<u8>, usize) {
    let chunks = cluster::kept(&cluster.jetstream().await, "h3cast_log").await;
    (chunks.iter().flat_map(|(_, bytes)| bytes.clone()).collect(), chunks.len())
}

fn start(cluster: &Cluster, certs: &Path) -> Serving {
    let engine = format!("--engine=nats://{}", cluster.addresses());
    let certs = certs.display().to_string();
    let args = ["log=publish", &engine, "--ensure-stream", "--certs", &certs];
    tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()))
}

/// However the body is cut then: where the edges cut it is the network's affair.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_publication_goes_on_at_another_edge() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    let (one, other) = (start(&cluster, &certs), start(&cluster, &certs));
    let relay = Relay::start(one.port).await;
    let uri = format!("https://127.0.0.1:{}/stream/log", relay.port).parse().unwrap();
    let pieces = pieces(400, 20_000);
    let (sender, receiver) = mpsc::unbounded_channel::<Bytes>();
    let (told, mut events) = mpsc::unbounded_channel();
    let publishing = tokio::spawn(async move {
        let mut publication = Publication::new(uri, Trust::Files(vec![certs.join("cert.pem")]));
        let pieces = stream::unfold(receiver, |mut receiver: mpsc::UnboundedReceiver<_>| async {
            Some((Ok(receiver.recv().await?), receiver))
        });
        publication.run(pieces, |event| drop(told.send(event))).await
    });
    let so_many = async |count: u64| {
        let stream = context.get_stream("h3cast_log").await.unwrap();
        within("it is kept", async {
            while stream.get_info().await.unwrap().state.messages < count {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    };
    for piece in &pieces[..250] {
        sender.send(piece.clone()).unwrap();
    }
    // The first edge has said that it has the first 4 MiB.
    within("an acknowledgement", async {
        while !matches!(events.recv().await.unwrap(), PublishEvent::Acknowledged(_)) {}
    })
    .await;
    // And keeps more, of which it has not said so.
    let acknowledged = context.get_stream("h3cast_log").await.unwrap().cached_info().state.messages;
    for piece in &pieces[250..300] {
        sender.send(piece.clone()).unwrap();
    }
    so_many(acknowledged + 40).await;
    one.kill();
    relay.lead_to(other.port);
    for piece in &pieces[300..] {
        sender.send(piece.clone()).unwrap();
    }
    drop(sender);
    let published: Published = within("it is published", publishing).await.unwrap().unwrap();
    let all = pieces.concat();
    assert_eq!(published.bytes as usize, all.len());
    let (bytes, _) = kept(&cluster).await;
    assert_eq!(bytes.len(), all.len());
    assert!(bytes == all);
    let (mut lost, mut restarted) = (0, 0);
    while let Some(event) = events.recv().await {
        lost += usize::from(matches!(event, PublishEvent::Lost { .. }));
        restarted += usize::from(matches!(event, PublishEvent::Restarted { .. }));
    }
    assert!(lost > 0);
    assert_eq!(restarted, 0, "it is the same feed");
}

/// A request that is lost may have a chunk on its way to NATS; the next one with its key does not know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_request_that_is_lost_doubles_nothing() {
    let cluster = Cluster::start(1);
    cluster.jetstream().await;
    let dir = tempfile::tempdir().unwrap();
    let serving = start(&cluster, &dir.path().join("certs"));
    let trust = Trust::Files(vec![dir.path().join("certs/cert.pem")]);
    let edge = Edge { base: format!("https://localhost:{}", serving.port), trust };
    let all = pieces(1, 400_000).concat();
    let request = || Request::post(edge.uri("/stream/log")).header("idempotency-key", "key").body(()).unwrap();
    for round in 0..30_u64 {
        let connection = soon("a connection", Connection::open(&edge.uri("/"), &edge.trust)).await.unwrap();
        let (mut body, _answer) = connection.send_request(request()).await.unwrap();
        for piece in all[..all.len() / 2].chunks(1000 + round as usize * 97) {
            if body.send(Bytes::copy_from_slice(piece)).await.is_err() {
                break;
            }
        }
        // Gone in the middle of it, at another place each time.
        sleep(Duration::from_millis(round % 7)).await;
    }
    let connection = soon("a connection", Connection::open(&edge.uri("/"), &edge.trust)).await.unwrap();
    let (mut body, answer) = connection.send_request(request()).await.unwrap();
    body.send(all.clone().into()).await.unwrap();
    body.finish().await.unwrap();
    assert_eq!(soon("an answer", answer).await.unwrap().status, 200);
    let (bytes, chunks) = kept(&cluster).await;
    assert_eq!(bytes.len(), all.len());
    assert!(bytes == all);
    assert!(chunks > 1);
}

/// A server stops that has sent a chunk to NATS, which has stored it and not said so. A stream of a session has no key
/// that would tell a chunk that is sent again from a new one.
async fn stopped_with_a_chunk_on_its_way(is_answered: bool) -> (std::process::Output, Vec<Vec<u8>>) {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let way = Way::to(cluster.nodes[0].port).await;
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs").display().to_string();
    let serve = |listen: &str| {
        let engine = format!("--engine=nats://127.0.0.1:{}", way.port);
        let args = ["log=publish", &engine, "--ensure-stream", "--certs", &certs];
        tokio::task::block_in_place(|| Serving::start_at(listen, |_| args.to_vec()))
    };
    let first = serve("localhost:0");
    let port = first.port;
    let mut publish = tokio::process::Command::new(env!("CARGO_BIN_EXE_h3cast"))
        .args(["publish", "--webtransport", "--retry-for=20s", "--cacert"])
        .arg(dir.path().join("certs/cert.pem"))
        .arg(format!("https://localhost:{port}/stream/log"))
        .env("HOME", dir.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = publish.stdin.take().unwrap();
    let stored = async |count: usize| {
        soon("it is stored", async {
            while cluster::kept(&context, "h3cast_log").await.len() < count {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    };
    stdin.write_all(b"one\n").await.unwrap();
    stored(1).await;
    way.hold(true);
    stdin.write_all(b"two\n").await.unwrap();
    stored(2).await;
    first.terminate();
    let log = first.dir().join("stderr");
    soon("it stops", async {
        while !std::fs::read_to_string(&log).unwrap().contains("again to stop immediately") {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let last = if is_answered {
        way.hold(false);
        tokio::task::block_in_place(|| first.stopped());
        let second = serve(&format!("localhost:{port}"));
        stdin.write_all(b"three\n").await.unwrap();
        second
    } else {
        first
    };
    drop(stdin);
    let ended = soon("it ends", publish.wait_with_output()).await.unwrap();
    drop(last);
    (ended, cluster::kept(&context, "h3cast_log").await.into_iter().map(|(_, bytes)| bytes).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_chunk_that_may_be_stored_is_not_sent_again() {
    let (ended, kept) = stopped_with_a_chunk_on_its_way(false).await;
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(!ended.status.success() && told.contains("not known whether more was published"), "{told}");
    assert_eq!(kept, [b"one\n", b"two\n"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_chunk_on_its_way_is_waited_for_when_a_server_stops() {
    let (ended, kept) = stopped_with_a_chunk_on_its_way(true).await;
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success(), "{told}");
    assert_eq!(kept, [&b"one\n"[..], b"two\n", b"three\n"], "{told}");
}
