//! A feed that stalls, and what is printed of that.

use h3cast::feed::{End, Feed, Lag, Trouble};

use crate::{
    common::TestServer,
    program::{Program, text},
};

#[tokio::test(flavor = "multi_thread")]
async fn why_a_feed_stalls_is_printed() {
    let (feed, publisher) = Feed::live("default", 1 << 20, Lag::Skip);
    publisher.publish("x\n".into()).await.unwrap();
    let server = TestServer::feed(feed.clone()).await;
    let (dir, cert, url) =
        (tempfile::tempdir().unwrap(), server.certificate(), format!("{}/stream?from=start", server.base));
    let start = |more: &[&str]| {
        Program::start(dir.path(), &[&["get", "--cacert", cert.to_str().unwrap(), &url], more].concat())
    };
    publisher.stall(true);
    let mut unknown = start(&[]);
    unknown.told("the feed has stalled: the server cannot receive or store new chunks of it: waiting").await;
    // Whoever runs a server can put anything there.
    let trouble = "the disk that stores it is \u{1b}[31mfull";
    feed.set_trouble(Some(Trouble::Other(trouble.into())));
    let mut gets = [&[][..], &["--resume"], &["--webtransport"], &[&url]].map(start);
    for get in &mut gets {
        let told = get.told("the feed has stalled: the disk that stores it is ").await;
        assert!(told.contains("full: waiting") && !told.contains('\u{1b}'), "{told}");
    }
    feed.set_trouble(None);
    publisher.stall(false);
    for get in [&mut unknown].into_iter().chain(&mut gets[..3]) {
        get.told("the feed continues").await;
    }
    publisher.end(End::Clean);
    for get in gets.into_iter().chain([unknown]) {
        let (out, told, code) = get.end().await;
        assert!(text(&out).contains("x\n") && code == Some(0), "{told}");
    }
}

/// What is not read of it by others is read as `sse` by browsers.
#[tokio::test(flavor = "multi_thread")]
async fn why_a_feed_stalls_is_in_an_event() {
    let (feed, publisher) = Feed::live("default", 1 << 20, Lag::Skip);
    let server = TestServer::feed(feed.clone()).await;
    feed.set_trouble(Some(Trouble::Disk("the disk that stores it is full")));
    publisher.stall(true);
    let dir = tempfile::tempdir().unwrap();
    let (cert, url) = (server.certificate(), format!("{}/stream?format=sse", server.base));
    let mut get = Program::start(dir.path(), &["get", "--cacert", cert.to_str().unwrap(), &url]);
    let mut read = String::new();
    while !read.contains("data: {") {
        read += &get.line().await;
    }
    assert!(
        read.ends_with("event: stalled\ndata: {\"cause\":\"the disk that stores it is full\",\"stalled\":true}\n"),
        "{read}"
    );
    publisher.end(End::Clean);
    assert_eq!(get.end().await.2, Some(0));
}
