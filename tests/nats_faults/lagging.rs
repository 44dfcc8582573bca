//! The past, while a replica of it lags.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::sleep};

use crate::{
    inside, is_long, nodes,
    reading::Over,
    scene::{self, CHAT, SHORT, Scene, fill},
    schedule::{Fault, Random, strike},
    viewers, within,
};

/// One node stands still most of the time, so that its copies of the streams are behind; consumers on it say that
/// nothing is pending.
#[test]
#[ignore = "needs nats-server and namespaces: `tests/run python faults`"]
fn a_replica_that_lags_loses_nothing_untold() {
    inside::run("lagging::a_replica_that_lags_loses_nothing_untold", replica_lags);
}

async fn replica_lags(dir: PathBuf) {
    let mut random = Random::given();
    let mut scene = Scene::start(&dir, "256M", 2500).await;
    let (watch, full) = (scene.watch.clone(), Arc::<AtomicBool>::default());
    let (mut filling, mut tasks) = (JoinSet::new(), JoinSet::new());
    for (number, truth) in scene.truths().into_iter().enumerate() {
        let (readers, lines) = if truth.is_sparse() { (4, 60) } else { (6, 200) };
        let (truth, full) = (truth.clone(), full.clone());
        let viewing = viewers::view(scene.addresses.clone(), number, Over::Http3, truth.clone(), None, watch.clone());
        tasks.spawn(async move { drop(viewing.await) });
        for _ in 0..readers {
            tasks.spawn(viewers::read_past(scene.addresses.clone(), random.fork(), truth.clone(), watch.clone()));
        }
        filling.spawn(async move {
            let context = nodes::jetstream().await;
            while !full.load(Ordering::Relaxed) {
                fill(&context, &truth, lines, 100).await;
                sleep(Duration::from_millis(100)).await;
            }
        });
    }
    let reads = if is_long() { 4000 } else { 300 };
    while watch.past() < reads {
        let context = nodes::jetstream().await;
        let leaders = [nodes::leader(&context, CHAT).await, nodes::leader(&context, SHORT).await];
        let lagging = scene.nodes.all.iter().position(|node| !leaders.contains(&Some(node.name.clone()))).unwrap();
        for fault in [Fault::Lags(lagging), Fault::Narrow(lagging), Fault::Still(lagging), Fault::Killed(lagging)] {
            strike(&mut scene, fault, Duration::from_secs(3)).await;
        }
        scene.healthy().await;
    }
    full.store(true, Ordering::Relaxed);
    watch.enough.store(true, Ordering::Relaxed);
    within("no more is published", filling.join_all()).await;
    scene.end().await;
    within("all have read", tasks.join_all()).await;
    let context = nodes::jetstream().await;
    eprintln!("{} past reads, {} gaps told", watch.past(), scene.short.gaps());
    for truth in scene.truths() {
        truth.compare(&scene::kept(&context, truth).await);
    }
}
