//! Packets are lost in the moment in which a feed fails: a stream is reset only when the client has
//! acknowledged everything that was written before.

use std::time::{Duration, Instant};

use h3cast::{
    App,
    feed::{End, Feed, FeedError, Lag, Publisher},
};

use crate::{
    common::{
        TestServer,
        relay::{Queue, Relay},
        soon,
    },
    viewers::{Host, Link, Over, Viewing},
};

/// Longer than a client gets to read what it has.
const OUTAGE: Duration = Duration::from_millis(1500);

struct Scene {
    server: TestServer,
    publisher: Publisher,
    relay: Relay,
    _link: Link,
    viewing: Viewing,
}

/// A viewer behind a network of its own, that has got the first chunk.
async fn scene(over: Over, grace: Duration) -> Scene {
    let (feed, publisher) = Feed::live("default", 1 << 20, Lag::Skip);
    let server = TestServer::start(|builder, identity| App::new([feed], identity).install(builder).grace(grace)).await;
    let relay = Relay::start(server.port()).await;
    let host = Host { port: relay.port, ..Host::from(&server) };
    let mut link = Link::open(&host, over).await;
    let mut viewing = link.view(&host, "/stream").await;
    publisher.publish("first\n".into()).await.unwrap();
    assert_eq!(viewing.next().await.unwrap().unwrap(), "first\n");
    Scene { server, publisher, relay, _link: link, viewing }
}

async fn failure_while_packets_are_lost(over: Over) {
    let scene = scene(over, Duration::from_secs(3)).await;
    scene.relay.lose(true);
    let lines: Vec<_> = (0..200).map(|number| format!("line {number}\n")).collect();
    for line in &lines {
        scene.publisher.publish(line.clone().into()).await.unwrap();
    }
    scene.publisher.end(End::Failed(FeedError("by hand".into())));
    tokio::time::sleep(OUTAGE).await;
    scene.relay.lose(false);
    let got = scene.viewing.rest().await;
    assert_eq!(String::from_utf8(got.bytes).unwrap(), lines.concat(), "{over:?}");
    assert!(got.cut.is_some(), "{over:?}: it looks whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_on_the_way_comes_before_the_reset() {
    tokio::join!(failure_while_packets_are_lost(Over::Http3), failure_while_packets_are_lost(Over::Session));
}

/// What is on its way takes longer than a client that receives nothing is waited for.
async fn failure_over_a_slow_link(over: Over) {
    let scene = scene(over, Duration::from_secs(60)).await;
    scene.relay.pace(Duration::from_millis(12));
    let lines: Vec<_> = (0..80).map(|number| format!("{number:>9999}\n")).collect();
    for line in &lines {
        scene.publisher.publish(line.clone().into()).await.unwrap();
    }
    scene.publisher.end(End::Failed(FeedError("by hand".into())));
    let got = scene.viewing.rest().await;
    assert!(got.bytes == lines.concat().as_bytes(), "{over:?}: {} bytes", got.bytes.len());
    assert!(got.cut.is_some(), "{over:?}: it looks whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_link_that_keeps_receiving_gets_all_of_it() {
    tokio::join!(failure_over_a_slow_link(Over::Http3), failure_over_a_slow_link(Over::Session));
}

/// Everything is on its way at once, and takes longer than a client that receives nothing is waited for: only
/// acknowledgements come meanwhile. Of the last packets one is lost.
async fn failure_over_a_long_queue(over: Over) {
    let mut scene = scene(over, Duration::from_secs(60)).await;
    // What the server may have on its way grows with what arrives.
    let block = "x".repeat(9_999) + "\n";
    for _ in 0..40 {
        scene.publisher.publish(block.clone().into()).await.unwrap();
    }
    let mut got = 0;
    while got < 40 * block.len() {
        got += scene.viewing.next().await.unwrap().expect("it is not over").len();
    }
    scene.relay.queue(Queue { pace: Duration::from_millis(90), lose_before_last: 8 });
    let lines: Vec<_> = (0..17).map(|number| format!("{number:>9999}\n")).collect();
    for line in &lines {
        scene.publisher.publish(line.clone().into()).await.unwrap();
    }
    scene.publisher.end(End::Failed(FeedError("by hand".into())));
    let began = Instant::now();
    let got = scene.viewing.rest().await;
    let passed = scene.relay.passed();
    assert!(got.bytes == lines.concat().as_bytes(), "{over:?}: {} bytes, {passed:?}", got.bytes.len());
    assert!(got.cut.is_some(), "{over:?}: it looks whole");
    assert!(passed.lost == 1 && began.elapsed() > Duration::from_secs(7), "{over:?}: {passed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_queue_that_loses_a_packet_gets_all_of_it() {
    tokio::join!(failure_over_a_long_queue(Over::Http3), failure_over_a_long_queue(Over::Session));
}

async fn a_client_that_is_gone(over: Over) {
    let scene = scene(over, Duration::from_secs(60)).await;
    scene.relay.lose(true);
    scene.publisher.publish("last\n".into()).await.unwrap();
    scene.publisher.end(End::Failed(FeedError("by hand".into())));
    let began = Instant::now();
    scene.server.stop.cancel();
    soon("the server stops", scene.server.running).await.unwrap();
    // Five for the client, and a few more for the session, the connection, and a busy machine. Only the time tells that
    // from the grace time of 60 s, or from the 30 s after which the connection is given up.
    assert!(began.elapsed() < Duration::from_secs(15), "{over:?}: {:?}", began.elapsed());
}

/// Long before its grace time is over, or the connection is given up.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_acknowledge_is_waited_for_for_five_seconds() {
    tokio::join!(a_client_that_is_gone(Over::Http3), a_client_that_is_gone(Over::Session));
}

/// A client that does not acknowledge any more is waited for, but not for longer than the server has.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_waits_no_longer_than_its_grace() {
    for over in [Over::Http3, Over::Session] {
        let scene = scene(over, Duration::from_millis(500)).await;
        scene.relay.lose(true);
        scene.publisher.publish("last\n".into()).await.unwrap();
        let began = Instant::now();
        scene.publisher.end(End::Stopped);
        scene.server.stop.cancel();
        soon("the server stops", scene.server.running).await.unwrap();
        // Its last packets have a second to leave, of the five that it would wait for its client without a grace time.
        assert!(began.elapsed() < Duration::from_secs(4), "{over:?}: {:?}", began.elapsed());
    }
}
