//! A disk that is full under nats-server.

use std::{fs, path::PathBuf, time::Duration};

use tokio::time::Instant;

use crate::{
    cluster::{self, Cluster},
    edges::Address,
    inside::{self, tool},
    ledger::{Ledger, Truth},
    reading::{Client, Over},
    serving::Serving,
    within,
};

/// As `mount` reads it.
const SMALL: &str = "size=16M";
const LARGE: &str = "size=64M";

#[test]
#[ignore = "needs nats-server and namespaces: `tests/run python faults`"]
fn viewers_outlast_a_full_disk() {
    inside::run("disk::viewers_outlast_a_full_disk", full_disk);
}

async fn full_disk(dir: PathBuf) {
    // Otherwise nats-server takes three quarters of the disk as its limit.
    let config = dir.join("nats.conf");
    fs::write(&config, "jetstream { max_file_store: 1G, max_memory_store: 64M }").unwrap();
    let mut cluster = Cluster::start_with(1, &["-c".into(), config.display().to_string()]);
    let disk = cluster.folder(0);
    cluster.nodes[0].kill();
    fs::create_dir_all(&disk).unwrap();
    let disk = disk.to_str().unwrap();
    tool("mount", &["-t", "tmpfs", "-o", SMALL, "tmpfs", disk]);
    cluster.nodes[0].start();
    drop(cluster.jetstream().await);
    let engine = format!("--engine=nats://{}", cluster.addresses());
    let args = ["chat=publish", &engine, "--ensure-stream"];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let base = format!("https://localhost:{}", serving.port);
    let edges = [Address { base, certificate: serving.certificate() }];
    let truth = Truth::of("chat", None);
    let mut reading = Client::default().open(&edges, 0, Over::Http3, "/stream/chat?from=start").await.unwrap();
    let mut ledger = Ledger::new(&truth, "the viewer".into(), Some(0));

    // Until it is full.
    let piece = dir.join("piece");
    fs::write(&piece, "x".repeat(100_000)).unwrap();
    let piece = format!("@{}", piece.display());
    let post = ["--data-binary", &piece, "-w", "%{http_code}"];
    let mut acknowledged = 0;
    let (refused, took) = loop {
        let began = Instant::now();
        let posted = edges[0].curl(&post, "/stream/chat").output().await.unwrap();
        let answer = String::from_utf8(posted.stdout).unwrap();
        match answer.strip_suffix("200") {
            Some(receipt) => acknowledged += chunks(receipt),
            None => break (answer, began.elapsed()),
        }
        // A viewer that takes nothing for long is cut.
        while ledger.chunks < acknowledged {
            ledger.take(within("it is acknowledged", reading.next()).await.unwrap().unwrap());
        }
    };
    eprintln!("{acknowledged} chunks are acknowledged; then, after {took:.1?}: {refused}");
    assert!(refused.ends_with("503") && refused.contains("NATS does not answer"), "{refused}");
    assert!(edges[0].readyz_of("chat").await.ends_with("200"), "it can be read");

    // Room alone does not help: nats-server has yet to be restarted. The viewer is there all the time.
    tool("mount", &["-o", &format!("remount,{LARGE}"), disk]);
    let mut context = cluster.jetstream().await;
    context.set_timeout(Duration::from_secs(2));
    let direct = context.publish("h3cast.chat", "there is room, is there?".into()).await.unwrap().await;
    assert!(direct.is_err(), "{direct:?}");
    drop(context);
    cluster.nodes[0].kill();
    cluster.nodes[0].start();
    let began = Instant::now();
    let post = ["-d", "there is room", "-w", "%{http_code}"];
    let posted = edges[0].curl(&post, "/stream/chat").output().await.unwrap();
    let answer = String::from_utf8(posted.stdout).unwrap();
    eprintln!("published {:.1?} after the restart: {answer}", began.elapsed());
    assert!(answer.ends_with("200"), "{answer}");
    let resumes = async {
        while ledger.take(reading.next().await.unwrap().unwrap()).is_none_or(|bytes| bytes != "there is room") {}
    };
    within("the viewer gets it", resumes).await;
    let kept = cluster::kept(&cluster.jetstream().await, "h3cast_chat").await;
    assert_eq!((ledger.missing, ledger.chunks), (0, kept.len() as u64));
    assert!(ledger.chunks > acknowledged);
    truth.compare(&kept);
}

/// How many chunks a publisher is told that there are.
fn chunks(receipt: &str) -> u64 {
    serde_json::from_str::<serde_json::Value>(receipt).unwrap()["chunks"].as_u64().unwrap()
}
