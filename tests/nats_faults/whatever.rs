//! Everything at once, and whatever can fail fails.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{task::JoinSet, time::timeout};

use crate::{
    cluster, inside, is_long, nodes,
    publishers::{self, Published},
    reading::{ALL, Client},
    scene::{Scene, fill},
    schedule::{self, Random},
    viewers::{self, LAST},
    within,
};

/// How much of it.
struct Size {
    /// How often the past is read at least.
    past: usize,
    readers: usize,
    /// For how long faults strike at least, and one of them at most.
    faults: Duration,
    longest: Duration,
    disk: &'static str,
    filled: u64,
}

const SHORT: Size = Size {
    past: 300,
    readers: 12,
    faults: Duration::from_secs(25),
    longest: Duration::from_secs(3),
    disk: "96M",
    filled: 2000,
};
const LONG: Size = Size {
    past: 10_000,
    readers: 24,
    faults: Duration::from_secs(420),
    longest: Duration::from_secs(10),
    disk: "256M",
    filled: 10_000,
};

/// `H3CAST_FAULTS=long` for the size of `tests/soak`; `H3CAST_FAULTS_SEED` for other faults, and another order.
#[test]
#[ignore = "needs nats-server and namespaces: `tests/run python faults`"]
fn every_ledger_is_exact_whatever_fails() {
    inside::run("whatever::every_ledger_is_exact_whatever_fails", whatever_fails);
}

async fn whatever_fails(dir: PathBuf) {
    let size = if is_long() { LONG } else { SHORT };
    let mut random = Random::given();
    let mut scene = Scene::start(&dir, size.disk, 800).await;
    let context = nodes::jetstream().await;
    for truth in [&scene.chat, &scene.short] {
        fill(&context, truth, size.filled, 400).await;
    }
    drop(context);

    let watch = scene.watch.clone();
    let mut viewing = JoinSet::new();
    for number in 0..24 {
        let truth = if number % 4 == 3 { &scene.short } else { &scene.chat };
        let pause = (number % 8 >= 6).then_some(Duration::from_millis(40));
        let over = ALL[number % 3];
        viewing.spawn(viewers::view(scene.addresses.clone(), number, over, truth.clone(), pause, watch.clone()));
    }
    let mut reading = JoinSet::new();
    for number in 0..size.readers {
        let truth = if number % 4 == 3 { &scene.short } else { &scene.chat };
        reading.spawn(viewers::read_past(scene.addresses.clone(), random.fork(), truth.clone(), watch.clone()));
    }
    let enough = Arc::<std::sync::atomic::AtomicBool>::default();
    let mut publishing = JoinSet::new();
    for number in 0..3 {
        let (edges, truth) = (scene.addresses.clone(), scene.chat.clone());
        let pause = Duration::from_millis(100);
        publishing.spawn(publishers::with_keys(edges, number, random.fork(), truth, pause, enough.clone()));
    }
    let pause = Duration::from_millis(40);
    let (edges, truth) = (scene.addresses.clone(), scene.short.clone());
    let of_short = tokio::spawn(publishers::with_keys(edges, 0, random.fork(), truth, pause, enough.clone()));
    let (edges, truth) = (scene.addresses.clone(), scene.chat.clone());
    publishing.spawn(publishers::without_keys(edges, 1, truth, pause * 5, enough.clone()));

    schedule::run(&mut scene, &mut random, size.longest, |time| time >= size.faults && watch.past() >= size.past).await;

    watch.enough.store(true, Ordering::Relaxed);
    enough.store(true, Ordering::Relaxed);
    within("readers end", reading.join_all()).await;
    let published = within("publishers end", publishing.join_all()).await;
    let of_short = within("the last publisher ends", of_short).await.unwrap();
    watch.hurry.store(true, Ordering::Relaxed);
    for truth in [&scene.chat, &scene.short] {
        truth.begun.fetch_add(1, Ordering::Relaxed);
        let (mut client, last) = (Client::default(), std::str::from_utf8(LAST).unwrap());
        within("the last line", publishers::publish(&mut client, &scene.addresses, &mut 0, truth.feed, "last", last))
            .await;
    }
    let mut ledgers = Vec::new();
    while !viewing.is_empty() {
        // As long as they get on.
        let before = watch.behind();
        match timeout(Duration::from_secs(60), viewing.join_next()).await {
            Ok(ledger) => ledgers.extend(ledger.map(Result::unwrap)),
            Err(_) => assert_ne!(
                before,
                watch.behind(),
                "viewers don't get on; of {}, {}",
                scene.chat.end(),
                scene.short.end()
            ),
        }
    }
    scene.healthy().await;
    let context = nodes::jetstream().await;
    let mut wrong = Vec::new();
    for truth in [&scene.chat, &scene.short] {
        let kept = cluster::kept(&context, truth.feed).await;
        let (end, dropped) = (kept.last().unwrap().0 + 1, truth.max_messages.is_some());
        let of: Vec<&Published> = if dropped { vec![&of_short] } else { published.iter().collect() };
        wrong.extend(of.iter().flat_map(|published| published.wrong(&kept, dropped)));
        wrong.extend(kept.windows(2).filter(|two| two[1].0 != two[0].0 + 1).map(|two| format!("{}", two[0].0)));
        eprintln!(
            "{}: {end} chunks, {} acknowledged, {} gaps told",
            truth.feed,
            of.iter().map(|of| of.acknowledged()).sum::<usize>(),
            truth.gaps()
        );
        assert_eq!(truth.end(), end, "somebody has seen the last one");
        truth.compare(&kept);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    eprintln!(
        "{} viewers, of which {} were told of gaps; {} past reads; {} times one was lost or refused",
        ledgers.len(),
        ledgers.iter().filter(|ledger| ledger.missing > 0).count(),
        watch.past(),
        watch.lost.load(Ordering::Relaxed)
    );
    assert_eq!(ledgers.len(), 24);
    assert!(watch.past() >= size.past);
    // Faults have struck.
    assert!(watch.lost.load(Ordering::Relaxed) > 0);
}
