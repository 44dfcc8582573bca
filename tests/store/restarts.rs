//! A server that stops, or is killed, and the next one.

use crate::{about, first, lines, next, post, process};

#[tokio::test]
async fn cursors_keys_and_created_feeds_survive() {
    let args = ["publish", "chat.*=publish", "--feeds-per-client", "1"];
    let (place, mut server) = first(&args).await;
    let (status, answer) = post(&place, "/stream?chunk=lines", Some("k"), "one\ntwo\n").await.unwrap();
    assert_eq!((status, answer["chunks"].as_u64()), (200, Some(2)));
    assert_eq!(post(&place, "/stream/chat.a", None, "hello\n").await.unwrap().0, 200);
    server.kill();

    let server = next(&place, &args).await;
    // It is answered as if it came for the first time, and nothing is doubled.
    assert_eq!(post(&place, "/stream?chunk=lines", Some("k"), "one\ntwo\n").await.unwrap(), (200, answer.clone()));
    let (_, more) = post(&place, "/stream?chunk=lines", Some("k"), "one\ntwo\nthree\n").await.unwrap();
    assert_eq!((&more["first"], more["chunks"].as_u64()), (&answer["first"], Some(3)));
    assert_eq!(more["epoch"], answer["epoch"]);
    assert_eq!(lines(&place, "/stream?from=start", 3).await, ["one\n", "two\n", "three\n"]);
    let after = answer["first"].as_str().unwrap();
    assert_eq!(lines(&place, &format!("/stream?from={after}"), 2).await, ["two\n", "three\n"]);
    let listed = about(&place, "default").await;
    assert_eq!((&listed["oldest"], listed["chunks"].as_u64()), (&answer["first"], Some(3)));
    assert!(listed["stored_bytes"].as_u64().unwrap() > 14, "{listed}");
    // The client has created as many as it may.
    assert_eq!(lines(&place, "/stream/chat.a?from=start", 1).await, ["hello\n"]);
    assert_eq!(post(&place, "/stream/chat.b", None, "x").await.unwrap().0, 429);
    let metrics = process::get(&place, "/metrics").await;
    assert!(metrics.contains("\nh3cast_store_writable 1\n"), "{metrics}");
    server.stop().await;

    let server = next(&place, &args).await;
    assert_eq!(lines(&place, "/stream?from=-1", 1).await, ["three\n"]);
    server.stop().await;
}

/// The feed of a command that has ended goes on when the command runs again.
#[tokio::test]
async fn a_command_continues_its_feed() {
    let args = ["exec:echo again"];
    let (place, server) = first(&args).await;
    assert_eq!(lines(&place, "/stream?from=start", 1).await, ["again\n"]);
    let epoch = about(&place, "default").await["epoch"].clone();
    server.stop().await;
    let server = next(&place, &args).await;
    assert_eq!(lines(&place, "/stream?from=start", 2).await, ["again\n"; 2]);
    assert_eq!(about(&place, "default").await["epoch"], epoch);
    server.stop().await;
}

#[tokio::test]
async fn what_is_kept_is_bounded() {
    let args = ["publish", "--retain", "128k", "--fsync", "never", "--history", "64k"];
    let (place, server) = first(&args).await;
    let line = format!("{}\n", "x".repeat(999));
    for _ in 0..20 {
        assert_eq!(post(&place, "/stream?chunk=lines", None, &line.repeat(50)).await.unwrap().0, 200);
    }
    let size = || -> u64 {
        let feeds = std::fs::read_dir(place.folder().join("store/feeds")).unwrap();
        let files = feeds.flat_map(|feed| std::fs::read_dir(feed.unwrap().path()).unwrap());
        files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum()
    };
    process::soon("old files are removed", async {
        while size() > 192 << 10 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    let oldest = about(&place, "default").await["oldest"].as_str().unwrap().to_owned();
    let (_, seq) = oldest.rsplit_once('-').unwrap();
    assert!(seq.parse::<u64>().unwrap() > 800, "{oldest}");
    server.stop().await;
}
