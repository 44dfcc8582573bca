//! A node that is cut off from the others, and goes on as if nothing had happened.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

use crate::{
    cluster, inside,
    ledger::Ledger,
    nodes, publishers,
    reading::{Client, Over},
    scene::{CHAT, Scene},
    within,
};

/// How long an edge may take to notice that its node is cut off: 3 s, and the time in which a busy machine notices
/// that they are over.
const NOTICED: Duration = Duration::from_secs(8);

#[test]
#[ignore = "needs nats-server and namespaces: `tests/run python faults`"]
fn an_edge_leaves_a_node_that_is_cut_off() {
    inside::run("cut_off::an_edge_leaves_a_node_that_is_cut_off", node_cut_off);
}

async fn node_cut_off(dir: PathBuf) {
    let scene = Scene::start(&dir, "96M", 800).await;
    let edge = &scene.edges[0];
    let mut node = None;
    for (number, one) in scene.nodes.all.iter().enumerate() {
        if one.has_client(&edge.nats_address).await {
            node = Some(number);
        }
    }
    let node = node.expect("it is connected to one of them");
    // Edges that are at other nodes, or will be.
    let others: Arc<Vec<_>> = Arc::new(scene.addresses[1..].to_vec());
    let (mut client, mut at) = (Client::default(), 0);
    let path = format!("/stream/{CHAT}?from=start");
    let mut reading = client.open(&scene.addresses, 0, Over::Http3, &path).await.unwrap();
    let mut ledger = Ledger::new(&scene.chat, "the viewer".into(), Some(0));
    scene.chat.begun.fetch_add(3, Ordering::Relaxed);
    publishers::publish(&mut Client::default(), &others, &mut at, CHAT, "first", "first\n").await;
    within("the first line", async {
        while ledger.chunks < 1 {
            ledger.take(reading.next().await.unwrap().unwrap());
        }
    })
    .await;
    assert!(edge.address.readyz_of(CHAT).await.ends_with("200"));

    scene.nodes.all[node].peers.cut();
    let cut = Instant::now();
    let stalls = async {
        while !ledger.stalled {
            ledger.take(reading.next().await.unwrap().unwrap());
        }
    };
    let told = timeout(Duration::from_secs(60), stalls).await;
    eprintln!("viewers are told after {:.1?}: {}", cut.elapsed(), told.is_ok());
    assert!(told.is_ok() && cut.elapsed() < NOTICED, "told: {told:?}, after {:?}", cut.elapsed());
    // The leaders of other streams may have been silent for less.
    let readyz = edge.address.readyz_of(CHAT).await;
    assert!(readyz.ends_with("503"), "{readyz}");

    // And all of it works again while the node is still cut off.
    publishers::publish(&mut Client::default(), &others, &mut at, CHAT, "second", "second\n").await;
    publishers::publish(&mut Client::default(), &scene.addresses[..1], &mut 0, CHAT, "third", "third\n").await;
    let resumes = async {
        while ledger.chunks < 3 || ledger.stalled {
            ledger.take(reading.next().await.unwrap().unwrap());
        }
    };
    let resumed = timeout(Duration::from_secs(30), resumes).await;
    eprintln!("viewers have all after {:.1?}", cut.elapsed());
    assert!(resumed.is_ok(), "{} chunks after {:?}, stalled: {}", ledger.chunks, cut.elapsed(), ledger.stalled);
    assert!(!scene.nodes.all[node].has_client(&edge.nats_address).await, "it has left the node");
    within("/readyz", async {
        while !edge.address.readyz_of(CHAT).await.ends_with("200") {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    scene.nodes.all[node].peers.mend();
    scene.healthy().await;
    scene.chat.compare(&cluster::kept(&nodes::jetstream().await, CHAT).await);
}
