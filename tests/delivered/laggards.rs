//! A viewer that is too slow and is disconnected gets what it was given before, to the last byte.

use std::time::Duration;

use futures_util::future::join_all;
use h3cast::feed::{Feed, Lag};

use crate::{
    common::TestServer,
    viewers::{ALL, Host, Link, Over},
};

/// More than any transport takes for a client that does not read.
const LINES: usize = 20_000;

fn line(number: usize) -> String {
    // No divisor of any buffer's size.
    format!("{number:>990}\n")
}

async fn laggard(over: Over) {
    let (feed, publisher) = Feed::live("default", 256 << 10, Lag::Disconnect);
    let server = TestServer::feed(feed.clone()).await;
    let host = Host::from(&server);
    let mut link = Link::open(&host, over).await;
    let viewing = link.view(&host, "/stream").await;
    for number in 0..LINES {
        publisher.publish(line(number).into()).await.unwrap();
        if number % 32 == 0 {
            // Slow enough for one that reads.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if feed.status().viewers == 0 {
            break;
        }
    }
    // Now it reads on: it has been cut off, or its transport has taken all that it takes.
    let got = viewing.rest().await;
    let text = String::from_utf8(got.bytes).unwrap();
    let lines = text.lines().count();
    assert!(got.cut.is_some(), "{over:?} looks whole");
    assert!((1..LINES).contains(&lines), "{over:?}: {lines} lines, {:?}", got.cut);
    let given: String = (0..lines).map(line).collect();
    assert!(text == given, "{over:?}: {lines} lines, {} bytes, {:?}", text.len(), got.cut);
    assert_eq!(feed.status().viewers, 0, "{over:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_gets_whole_chunks_until_it_is_cut_off() {
    join_all(ALL.map(laggard)).await;
}
