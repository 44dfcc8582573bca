//! Everything at once, and whatever can fail fails.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::try_join_all;
use tokio::{task::JoinSet, time::timeout};

use crate::{
    inside, is_long, nodes,
    publishers::{self, Published},
    reading::ALL,
    scene::{self, Scene, fill},
    schedule::{self, Random},
    viewers, within,
};

const VIEWERS: usize = 30;

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
    for _ in 0..10 {
        for truth in [&scene.solo, &scene.room] {
            fill(&context, truth, size.filled / 20, 100).await;
        }
    }
    drop(context);

    let watch = scene.watch.clone();
    let mut viewing = JoinSet::new();
    for number in 0..VIEWERS {
        let truth = [&scene.chat, &scene.chat, &scene.solo, &scene.short, &scene.room][number % 5];
        let pause = (number % 8 >= 6).then_some(Duration::from_millis(40));
        let over = ALL[number % 3];
        viewing.spawn(viewers::view(scene.addresses.clone(), number, over, truth.clone(), pause, watch.clone()));
    }
    let mut reading = JoinSet::new();
    for number in 0..size.readers {
        let truth = [&scene.chat, &scene.solo, &scene.chat, &scene.short, &scene.room][number % 5];
        reading.spawn(viewers::read_past(scene.addresses.clone(), random.fork(), truth.clone(), watch.clone()));
    }
    let enough = Arc::<std::sync::atomic::AtomicBool>::default();
    let mut publishing = JoinSet::new();
    for number in 0..3 {
        let (edges, truth) = (scene.addresses.clone(), scene.chat.clone());
        let pause = Duration::from_millis(100);
        publishing.spawn(publishers::with_keys(edges, number, random.fork(), truth, pause, enough.clone()));
    }
    let others = [(&scene.short, 40), (&scene.solo, 100), (&scene.room, 100)].map(|(truth, pause)| {
        let (edges, pause) = (scene.addresses.clone(), Duration::from_millis(pause));
        tokio::spawn(publishers::with_keys(edges, 0, random.fork(), truth.clone(), pause, enough.clone()))
    });
    let (edges, truth) = (scene.addresses.clone(), scene.chat.clone());
    publishing.spawn(publishers::without_keys(edges, 1, truth, Duration::from_millis(200), enough.clone()));

    schedule::run(&mut scene, &mut random, size.longest, |time| time >= size.faults && watch.past() >= size.past).await;

    watch.enough.store(true, Ordering::Relaxed);
    enough.store(true, Ordering::Relaxed);
    within("readers end", reading.join_all()).await;
    let published = within("publishers end", publishing.join_all()).await;
    let others = within("the last publishers end", try_join_all(others)).await.unwrap();
    watch.hurry.store(true, Ordering::Relaxed);
    scene.end().await;
    let mut ledgers = Vec::new();
    while !viewing.is_empty() {
        // As long as they get on.
        let before = watch.behind();
        match timeout(Duration::from_secs(60), viewing.join_next()).await {
            Ok(ledger) => ledgers.extend(ledger.map(Result::unwrap)),
            Err(_) => assert_ne!(
                before,
                watch.behind(),
                "viewers don't get on; of {:?}",
                scene.truths().map(|truth| truth.end())
            ),
        }
    }
    scene.healthy().await;
    let context = nodes::jetstream().await;
    let mut wrong = Vec::new();
    for (number, truth) in scene.truths().into_iter().enumerate() {
        let kept = scene::kept(&context, truth).await;
        let (end, dropped) = (kept.last().unwrap().0 + 1, truth.max_messages.is_some());
        let of: Vec<&Published> = if number > 0 { vec![&others[number - 1]] } else { published.iter().collect() };
        wrong.extend(of.iter().flat_map(|published| published.wrong(&kept, dropped)));
        let apart = kept.windows(2).filter(|two| two[1].0 != two[0].0 + 1).map(|two| format!("{}", two[0].0));
        match truth.is_sparse() {
            false => wrong.extend(apart),
            true => assert!(apart.count() > 10, "{} has others between", truth.feed),
        }
        eprintln!(
            "{}: {} chunks up to {end}, {} acknowledged, {} gaps told",
            truth.feed,
            kept.len(),
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
    assert_eq!(ledgers.len(), VIEWERS);
    assert!(watch.past() >= size.past);
    // Faults have struck.
    assert!(watch.lost.load(Ordering::Relaxed) > 0);
}
