//! Why a feed has stalled, as those are told who view it then.

use h3cast::client::{Viewer, viewer::Event};

use crate::{
    causes::published,
    cluster::Cluster,
    common::soon,
    presence::{text, view_of},
    readiness::becomes,
    serving::Serving,
    within,
};

/// Why it stalls next, as its viewer is told with that.
async fn cause(viewer: &mut Viewer) -> Option<String> {
    within("it stalls", async {
        while !matches!(viewer.next().await.unwrap(), Some(Event::Stalled(true))) {}
        viewer.stalled_by().map(str::to_owned)
    })
    .await
}

/// Waits until it does not stall any more.
async fn continues(viewer: &mut Viewer) {
    within("it continues", async { while !matches!(viewer.next().await.unwrap(), Some(Event::Stalled(false))) {} })
        .await;
}

/// Whoever views a feed when NATS stops is told that with the stall, as is who comes later.
async fn those_who_view_are_told(feed: &str) {
    let mut cluster = Cluster::start(1);
    cluster.jetstream().await;
    let at = cluster.addresses();
    let engine = format!("--engine=nats://{at}");
    let args = ["chat=publish", "room.*=publish", &engine, "--ensure-stream"];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    assert_eq!(published(&serving, feed).await.0, 200);
    let mut viewers = Vec::new();
    for _ in 0..8 {
        viewers.push(view_of(&serving, feed).await);
    }
    let due = format!("NATS at {at} cannot be reached");
    cluster.nodes[0].kill();
    for viewer in &mut viewers {
        assert_eq!(cause(viewer).await.as_ref(), Some(&due));
    }
    let mut later = view_of(&serving, feed).await;
    assert_eq!(cause(&mut later).await.as_ref(), Some(&due));
    viewers.push(later);
    cluster.nodes[0].start();
    for viewer in &mut viewers {
        continues(viewer).await;
    }
    becomes(&serving, &serving.connect().await, &format!("/readyz/{feed}"), 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn those_who_view_a_feed_are_told_why_it_stalls() {
    those_who_view_are_told("chat").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn those_who_view_a_feed_of_a_pattern_are_told_why_it_stalls() {
    those_who_view_are_told("room.one").await;
}

/// A feed that the server's user may not publish to is read all the same: that is not why it stalls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn what_is_denied_to_publishers_is_not_why_a_feed_stalls() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nats.conf");
    let config = "server_name: n0
        accounts: { APP: { jetstream: enabled, users: [
            { user: app, password: x, permissions: { publish: { deny: \"h3cast.chat\" } } }
        ] }, SYS: {} }
        system_account: SYS";
    std::fs::write(&path, config).unwrap();
    let mut cluster = Cluster::start_with(1, &["-c".into(), path.display().to_string()]);
    let at = cluster.addresses();
    let engine = format!("--engine=nats://app:x@{at}");
    let args = ["chat=publish", &engine, "--ensure-stream"];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let denied = "feed chat: permission denied: the NATS user may not publish to `h3cast.chat`\n";
    let says = async |due: &str| within(due, async { while text(&serving, "/readyz/chat").await != due {} }).await;
    says(denied).await;
    let mut viewer = soon("a viewer", view_of(&serving, "chat")).await;
    cluster.nodes[0].kill();
    let due = format!("NATS at {at} cannot be reached");
    assert_eq!(cause(&mut viewer).await.as_ref(), Some(&due));
    says(&format!("feed chat: {due}\n")).await;
    cluster.nodes[0].start();
    continues(&mut viewer).await;
    says(denied).await;
}
