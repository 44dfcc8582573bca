//! What holds whatever fails, each by itself.

use std::{
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep, timeout},
};

use crate::{
    cluster,
    edges::{EDGES, Edge, TOKEN, is_ready},
    inside, is_long,
    nodes::{self, Nodes},
    scene::{CHAT, Scene},
    within,
};

/// The one who leads the stream dies under a publication without a key, and single ones under way elsewhere.
#[test]
#[ignore = "needs nats-server and namespaces: `tests/run python faults`"]
fn publications_outlast_elections() {
    inside::run("promises::publications_outlast_elections", elections);
}

async fn elections(dir: PathBuf) {
    let mut scene = Scene::start(&dir, "96M", 800).await;
    // It has no key, and is sent for as long as all goes well.
    let token = format!("Authorization: Bearer {TOKEN}");
    let args = ["-f", "--http2", "-H", &token, "-T", "-"];
    let mut curl = scene.addresses[0].curl(&args, &format!("/stream/{CHAT}?chunk=lines"));
    let mut curl = curl.stdin(Stdio::piped()).spawn().unwrap();
    let (mut body, done) = (curl.stdin.take().unwrap(), Arc::<AtomicBool>::default());
    let enough = done.clone();
    let sending = tokio::spawn(async move {
        let mut number = 0;
        while !enough.load(Ordering::Relaxed) && body.write_all(format!("plain {number}\n").as_bytes()).await.is_ok() {
            number += 1;
            sleep(Duration::from_millis(50)).await;
        }
        number
    });
    let context = nodes::jetstream().await;
    within("the first lines are kept", async {
        while context.get_stream(CHAT).await.is_ok_and(|stream| stream.cached_info().state.messages < 10) {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let mut took = Vec::new();
    for death in 0..if is_long() { 5 } else { 1 } {
        let leader = nodes::healthy(CHAT).await;
        scene.nodes.named(&leader).kill();
        let began = Instant::now();
        let post = ["-f", "-w", "%{http_code}", "-H", &token, "-d", "single"];
        let path = format!("/stream/{CHAT}");
        let posted = scene.addresses[1 + death % 2].curl(&post, &path).output().await.unwrap();
        took.push((began.elapsed(), String::from_utf8_lossy(&posted.stdout).into_owned()));
        scene.nodes.named(&leader).start();
    }
    eprintln!("{took:.1?}");
    nodes::healthy(CHAT).await;
    done.store(true, Ordering::Relaxed);
    let sent = sending.await.unwrap();
    let out = within("curl ends", curl.wait_with_output()).await.unwrap();
    let kept = cluster::kept(&nodes::jetstream().await, CHAT).await;
    let plain: Vec<String> = kept.iter().map(|(_, bytes)| String::from_utf8(bytes.clone()).unwrap()).collect();
    let plain: Vec<_> = plain.iter().filter_map(|line| line.strip_prefix("plain ")).collect();
    assert!(out.status.success(), "curl: {:?}, after {sent} lines, of which {} are kept", out.status, plain.len());
    assert!(plain.iter().map(|number| number.trim().parse::<usize>().unwrap()).eq(0..sent), "{sent}: {plain:?}");
    for (time, answer) in took {
        assert!(answer.ends_with("200") && time < Duration::from_secs(15), "{answer} after {time:?}");
    }
}

#[test]
#[ignore = "needs nats-server and namespaces: `tests/run python faults`"]
fn edges_wait_for_a_fresh_cluster() {
    inside::run("promises::edges_wait_for_a_fresh_cluster", fresh_cluster);
}

async fn fresh_cluster(dir: PathBuf) {
    let mut nodes = Nodes::new(&dir, "96M");
    let args = ["chat=publish", "--ensure-stream=replicas=3"];
    let mut edges: Vec<_> = (0..EDGES).map(|number| Edge::new(number, &dir, &args)).collect();
    // One before there is any node, the others when there is one, which cannot lead anything alone.
    let mut ready = vec![edges[0].begin()];
    nodes.all[0].start();
    ready.extend(edges[1..].iter_mut().map(Edge::begin));
    for edge in &edges {
        let connected = timeout(Duration::from_secs(15), async {
            while !nodes.all[0].has_client(&edge.nats_address).await {
                sleep(Duration::from_millis(50)).await;
            }
        });
        assert!(connected.await.is_ok(), "it waits: {}", edge.log());
    }
    // For longer than a single request to JetStream may take.
    sleep(Duration::from_secs(5)).await;
    nodes.all[1].start();
    nodes.all[2].start();
    for (edge, ready) in edges.iter().zip(ready) {
        assert!(is_ready(ready).await, "{}", edge.log());
        assert!(edge.log().contains("JetStream"), "it says what it waits for: {}", edge.log());
        assert!(edge.address.readyz().await.ends_with("200"));
    }
}
