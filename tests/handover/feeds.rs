//! Which feeds a new server continues, and what it knows of them.

use h3cast::chunk::Cursor;
use http::StatusCode;

use crate::process::{Process, get, publish, publish_to};

#[tokio::test]
async fn a_new_server_without_a_feed_of_the_old_one_fails() {
    let sources = ["publish", "news=publish", "log=publish", "chat.*=publish", "silent=publish"];
    let (place, mut first) = Process::first(&sources).await;
    let cursor = publish(&place, "a").await;
    for path in ["/stream/news", "/stream/log", "/stream/chat.rust"] {
        publish_to(&place, path, "a").await.unwrap();
    }
    let settings = ["publish", "log=demo"];
    let mut second = place.next(&settings);
    second.ended(2).await;
    second.says("`log` (it has another source here), `news` (no such feed here), `chat.rust` (no such feed here).");
    second.says("--take-over-drop log,news,chat.rust");
    // One without chunks is no reason.
    assert!(!second.said().contains("silent"), "{}", second.said());
    first.says("this one keeps serving: the new server would not have these feeds of the old one: `log`");
    let mut second = place.next(&[&settings[..], &["--take-over-drop=news,log"]].concat());
    second.ended(2).await;
    second.says("of the old one: `chat.rust` (no such feed here).");
    // Nothing was lost, and nothing holds publishers up.
    assert!(first.is_running());
    assert_eq!(publish(&place, "b").await, Cursor { seq: 1, ..cursor });
    let news = publish_to(&place, "/stream/news", "b").await.unwrap();
    assert_eq!(news.seq, 1);

    let mut second = place.next(&[&settings[..], &["--take-over-drop=chat.*,news", "--take-over-drop=log"]].concat());
    second.ready().await;
    first.ended(0).await;
    second.says("dropped with its history");
    assert_eq!(publish(&place, "c").await, Cursor { seq: 2, ..cursor });
    assert_eq!(publish_to(&place, "/stream/news", "c").await, Err(StatusCode::NOT_FOUND));
    second.stop().await;
}

/// Otherwise each client could create as many again with each hand-over, and what is counted would fall.
#[tokio::test]
async fn what_is_known_of_a_feed_stays_known() {
    let args = ["chat.*=publish", "--feeds-per-client=2", "--history=600B"];
    let (place, mut first) = Process::first(&args).await;
    for number in 0..10 {
        publish_to(&place, "/stream/chat.a", &format!("{number}")).await.unwrap();
    }
    publish_to(&place, "/stream/chat.b", "x").await.unwrap();
    assert_eq!(publish_to(&place, "/stream/chat.c", "x").await, Err(StatusCode::TOO_MANY_REQUESTS));
    let counted = |metrics: &str| {
        let of_feeds = metrics.lines().filter(|line| {
            ["h3cast_feed_bytes_total{", "h3cast_feed_chunks_total{"].iter().any(|name| line.starts_with(name))
        });
        of_feeds.map(String::from).collect::<Vec<_>>()
    };
    let before = counted(&get(&place, "/metrics").await);
    assert!(before.iter().any(|line| line.ends_with(" 20")), "{before:?}");
    let mut second = place.next(&args);
    second.ready().await;
    first.ended(0).await;
    assert_eq!(counted(&get(&place, "/metrics").await), before);
    assert_eq!(publish_to(&place, "/stream/chat.c", "x").await, Err(StatusCode::TOO_MANY_REQUESTS));
    second.stop().await;
}
