//! Many feeds of one stream, and what clients ask for that is none.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use async_nats::jetstream;
use futures_util::{StreamExt, stream};
use h3cast::client::{Viewer, viewer::Event};

use crate::{
    cluster::Cluster,
    common::soon,
    edge::{Edge, chunk_texts, read},
    serving::Serving,
    within,
};

/// How many feeds of a pattern there are: more than a stream may have consumers, or as many as `tests/soak` says.
fn subjects() -> usize {
    std::env::var("H3CAST_NATS_SUBJECTS").map_or(1100, |number| number.parse().unwrap())
}

async fn stream(context: &jetstream::Context, subjects: &[&str]) {
    let subjects = subjects.iter().map(ToString::to_string).collect();
    let config = jetstream::stream::Config { name: "LOGS".into(), subjects, allow_direct: true, ..Default::default() };
    context.create_or_update_stream(config).await.unwrap();
}

async fn publish(context: &jetstream::Context, subject: &str, text: &str) {
    context.publish(subject.to_owned(), text.to_owned().into()).await.unwrap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_family_has_one_consumer_however_many_feeds_are_asked_for() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    stream(&context, &["logs.>"]).await;
    let subjects = subjects();
    let publish_all = async |text: &dyn Fn(usize) -> String| {
        let all = stream::iter((0..subjects).rev().map(|number| (format!("logs.n{number}"), text(number))));
        all.for_each_concurrent(50, async |(subject, text)| publish(&context, &subject, &text).await).await;
    };
    publish_all(&|_| "first".to_owned()).await;
    let logs = format!("logs=nats://{}/logs.*", cluster.addresses());
    let serving = tokio::task::block_in_place(|| Serving::start(|_| vec![logs]));
    let edge = Edge::of(&serving);
    let connection = serving.connect().await;
    let consumers = async || context.get_stream("LOGS").await.unwrap().cached_info().state.consumer_count;
    let ask = async |name: String| {
        let uri = edge.uri(&format!("/stream/logs.{name}?from=start&limit=1"));
        let mut answer = soon("an answer", connection.get(&uri)).await.unwrap();
        let body = soon("its body", answer.body.next()).await.unwrap().unwrap_or_default();
        (answer.status.as_u16(), body)
    };
    let made_up: Vec<_> = stream::iter(0..1000).map(|number| ask(format!("x{number}"))).buffered(50).collect().await;
    assert!(made_up.iter().all(|(status, _)| *status == 404), "{made_up:?}");
    assert_eq!(consumers().await, 0, "nothing is read for names that are none");
    let honest = stream::iter(0..subjects).map(async |number| (Instant::now(), ask(format!("n{number}")).await));
    let honest: Vec<_> = honest.buffered(50).collect().await;
    assert!(honest.iter().all(|(_, (status, body))| *status == 200 && body == "first"), "{honest:?}");
    let mut answer = soon("/feeds", connection.get(&edge.uri("/feeds"))).await.unwrap();
    let mut listed = Vec::new();
    while let Some(bytes) = soon("the feeds", answer.body.next()).await.unwrap() {
        listed.extend_from_slice(&bytes);
    }
    let listed: serde_json::Value = serde_json::from_slice(&listed).unwrap();
    let listed: HashSet<_> =
        listed["feeds"].as_array().unwrap().iter().map(|feed| feed["name"].as_str().unwrap()).collect();
    // One without viewers is kept for so long, which is enough for all of them unless the machine is very slow.
    let kept = honest.iter().enumerate().filter(|(_, (asked, _))| asked.elapsed() < Duration::from_secs(60));
    for (number, _) in kept {
        assert!(listed.contains(&*format!("logs.n{number}")), "all at once, and `logs.n{number}` is not among them");
    }
    // Each gets its own, and nothing else.
    let mut viewers = Vec::new();
    for number in [0, subjects - 1] {
        let uri = edge.uri(&format!("/stream/logs.n{number}"));
        let mut viewer = Viewer::new(&uri, edge.trust.clone()).unwrap();
        assert!(matches!(soon("it opens", viewer.next()).await.unwrap(), Some(Event::Opened { .. })));
        viewers.push((number, viewer));
    }
    publish_all(&|number| format!("second of {number}")).await;
    for (number, viewer) in &mut viewers {
        let event = soon("its chunk", viewer.next()).await.unwrap().unwrap();
        assert_eq!(chunk_texts(&[event]), [format!("second of {number}")]);
    }
    // Before 2.11 each reading of the past has one for a moment, too.
    within("one consumer is left", async {
        while consumers().await != 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// A stream that gets other subjects while a server has a feed of it: numbers that are left out from then on are not
/// lost.
async fn subjects_are_added(seen_by_another: bool) {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    stream(&context, &["logs.a"]).await;
    let logs = format!("logs=nats://{}/logs.a", cluster.addresses());
    let args = [logs.as_str(), "--history=1B"];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let edge = Edge::of(&serving);
    let mut viewer = Viewer::new(&edge.uri("/stream/logs"), edge.trust.clone()).unwrap();
    assert!(matches!(soon("it opens", viewer.next()).await.unwrap(), Some(Event::Opened { .. })));
    publish(&context, "logs.a", "-1").await;
    publish(&context, "logs.a", "0").await;
    stream(&context, &["logs.a", "logs.b"]).await;
    if seen_by_another {
        publish(&context, "logs.b", "other").await;
        // It reads what the server's ring does not have.
        assert_eq!(chunk_texts(&read(&edge, "/stream/logs?from=start", 2).await), ["-1", "0"]);
    }
    for number in 1..5 {
        publish(&context, "logs.b", "other").await;
        publish(&context, "logs.a", &number.to_string()).await;
    }
    let mut events = Vec::new();
    while chunk_texts(&events).len() < 6 {
        events.push(soon("an event", viewer.next()).await.unwrap().unwrap());
    }
    assert_eq!(chunk_texts(&events), ["-1", "0", "1", "2", "3", "4"]);
    assert!(!events.iter().any(|event| matches!(event, Event::Gap(_))), "{events:?}");
    let late = read(&edge, "/stream/logs?from=start", 6).await;
    assert!(!late.iter().any(|event| matches!(event, Event::Gap(_))), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn subjects_that_are_added_are_no_gap() {
    subjects_are_added(false).await;
}

/// Who reads what is old sees it before the next chunk arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn subjects_that_a_reader_sees_first_are_no_gap() {
    subjects_are_added(true).await;
}

/// A stream drops what its other subjects have, and then the consumer that fills a feed is gone: the feed has lost
/// nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn messages_of_others_that_are_dropped_are_no_gap() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let subjects = vec!["logs.>".into()];
    let config = jetstream::stream::Config { name: "LOGS".into(), subjects, max_messages: 100, ..Default::default() };
    context.create_stream(config).await.unwrap();
    let logs = format!("logs=nats://{}/logs.a", cluster.addresses());
    let serving = tokio::task::block_in_place(|| Serving::start(|_| vec![logs]));
    let edge = Edge::of(&serving);
    let mut viewer = Viewer::new(&edge.uri("/stream/logs"), edge.trust.clone()).unwrap();
    assert!(matches!(soon("it opens", viewer.next()).await.unwrap(), Some(Event::Opened { .. })));
    publish(&context, "logs.a", "first").await;
    let mut events = Vec::new();
    let mut looks = context.client().subscribe("$JS.API.STREAM.MSG.GET.LOGS").await.unwrap();
    // Now and then the edge looks whether there is something for it: well before the stream drops that.
    for (others, looks_then) in [(1, true), (80, true), (60, false)] {
        for _ in 0..others {
            publish(&context, "logs.b", "other").await;
        }
        if looks_then {
            soon("the edge looks", looks.next()).await.unwrap();
        }
    }
    let stream = context.get_stream("LOGS").await.unwrap();
    assert!(stream.cached_info().state.first_sequence > 2, "{:?}", stream.cached_info().state);
    let consumers: Vec<_> = stream.consumer_names().collect().await;
    for name in consumers {
        stream.delete_consumer(&name.unwrap()).await.unwrap();
    }
    publish(&context, "logs.a", "second").await;
    while chunk_texts(&events).len() < 2 {
        events.push(soon("an event", viewer.next()).await.unwrap().unwrap());
    }
    assert_eq!(chunk_texts(&events), ["first", "second"]);
    assert!(events.iter().any(|event| matches!(event, Event::Stalled(true))), "its consumer was gone: {events:?}");
    assert!(!events.iter().any(|event| matches!(event, Event::Gap(_))), "{events:?}");
}

/// Whatever a subject may have in it, its feed is found by the percent-encoded name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn names_are_percent_encoded() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    stream(&context, &["logs.>"]).await;
    let names = ["a@b", "a:b", "a+b=c", "$a%20", "~a", "a/b", "ä.日本", "a\"b\\", "a?b#c"];
    for name in names {
        publish(&context, &format!("logs.{name}"), name).await;
    }
    let logs = format!("logs=nats://{}/logs.>", cluster.addresses());
    let serving = tokio::task::block_in_place(|| Serving::start(|_| vec![logs]));
    let edge = Edge::of(&serving);
    let connection = serving.connect().await;
    for name in names {
        let encoded = name.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        let path = format!("/stream/logs.{encoded}?from=start&limit=1");
        let mut answer = soon("an answer", connection.get(&edge.uri(&path))).await.unwrap();
        assert_eq!(answer.status, 200, "{name}");
        assert_eq!(soon("its chunk", answer.body.next()).await.unwrap().unwrap(), name);
        // Over a session too.
        let session = connection.webtransport(&edge.uri(&path), http::HeaderMap::new(), &[]).await.unwrap();
        let mut stream = soon("a stream", session.accept_uni()).await.unwrap();
        assert_eq!(soon("its chunk", stream.read_bytes(usize::MAX)).await.unwrap().unwrap(), name);
    }
    // The links that are given lead there.
    let mut answer = soon("/info", connection.get(&edge.uri("/info"))).await.unwrap();
    let mut body = Vec::new();
    while let Some(bytes) = soon("the feeds", answer.body.next()).await.unwrap() {
        body.extend_from_slice(&bytes);
    }
    let info: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let urls: Vec<_> = info["feeds"].as_array().unwrap().iter().map(|feed| feed["url"].as_str().unwrap()).collect();
    assert_eq!(urls.len(), names.len(), "{urls:?}");
    for url in urls {
        let uri = format!("{url}?from=start&limit=1").parse().unwrap();
        assert_eq!(soon("an answer", connection.get(&uri)).await.unwrap().status, 200, "{url}");
    }
    let name = "logs. a";
    let uri = edge.uri(&format!("/stream/{}", name.replace(' ', "%20")));
    assert_eq!(soon("an answer", connection.get(&uri)).await.unwrap().status, 404);
}

/// Clients write only to names that every part of a system takes: an `Idempotency-Key` follows the name after a slash in
/// the ids of chunks, and names that look alike would be anyone's to make.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn names_that_clients_write_are_plain() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    let config =
        jetstream::stream::Config { name: "ALL".into(), subjects: vec!["h3cast.>".into()], ..Default::default() };
    let mut all = context.create_stream(config).await.unwrap();
    let engine = format!("--engine=nats://{}", cluster.addresses());
    let logs = format!("logs=nats://{}/h3cast.room.*", cluster.addresses());
    let args = ["room.*=publish", logs.as_str(), engine.as_str()];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let edge = Edge::of(&serving);
    let connection = serving.connect().await;
    let write = async |name: &str| {
        let encoded = name.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let request = http::Request::post(edge.uri(&format!("/stream/{encoded}"))).body(()).unwrap();
        let (mut body, answer) = connection.send_request(request).await.unwrap();
        let _ = body.send("text".into()).await;
        let _ = body.finish().await;
        soon("an answer", answer).await.unwrap().status.as_u16()
    };
    for name in
        ["a:b", "a@b", "a+b", "a=b", "$a", "a%b", "a/b", "~a", "\u{e4}", "\u{65e5}\u{672c}", "a b", "*", ">", "a\n"]
    {
        assert_eq!(write(&format!("room.{name}")).await, 404, "{name}");
    }
    assert_eq!(all.info().await.unwrap().state.messages, 0, "nothing was stored");
    // Encoded or not, the others are the same feed.
    assert_eq!((write("room.a-B_1").await, write("logs.a-B_1").await), (200, 403));
    assert_eq!(chunk_texts(&read(&edge, "/stream/room.a-B_1?from=start", 1).await), ["text"]);
    // What programs on NATS write to others can be read, and not written.
    publish(&context, "h3cast.room.a:b", "other").await;
    assert_eq!(chunk_texts(&read(&edge, "/stream/logs.a%3Ab?from=start", 1).await), ["other"]);
    assert_eq!(write("logs.a:b").await, 403);
}

/// Viewers may wait for what nobody has written yet, but made-up names take no place of what is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn so_many_names_are_awaited() {
    let cluster = Cluster::start(1);
    let engine = format!("--engine=nats://{}", cluster.addresses());
    let args = ["room.*=publish", engine.as_str(), "--ensure-stream", "--max-feeds=3"];
    let serving = tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()));
    let edge = Edge::of(&serving);
    let connection = serving.connect().await;
    let view = async |name: &str| {
        let uri = edge.uri(&format!("/stream/room.{name}?from=start&limit=1"));
        soon("an answer", connection.get(&uri)).await.unwrap()
    };
    let write = async |name: &str| {
        let request = http::Request::post(edge.uri(&format!("/stream/room.{name}"))).body(()).unwrap();
        let (mut body, answer) = connection.send_request(request).await.unwrap();
        body.send(name.to_owned().into()).await.unwrap();
        body.finish().await.unwrap();
        assert_eq!(soon("it is stored", answer).await.unwrap().status, 200);
    };
    let mut waiting = Vec::new();
    for name in ["x1", "x2", "x3"] {
        waiting.push(view(name).await);
    }
    assert!(waiting.iter().all(|answer| answer.status == 200));
    assert_eq!(view("x4").await.status, 503);
    write("stored").await;
    let mut stored = view("stored").await;
    assert_eq!(soon("its chunk", stored.body.next()).await.unwrap().unwrap(), "stored");
    // One that is written is awaited no longer.
    write("x2").await;
    assert_eq!(soon("its chunk", waiting[1].body.next()).await.unwrap().unwrap(), "x2");
    assert_eq!(view("x4").await.status, 200);
}

/// Where the stream's leader does not answer, each made-up name is refused at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn names_are_not_looked_for_without_a_leader() {
    let cluster = Cluster::start(1);
    let context = cluster.jetstream().await;
    stream(&context, &["logs.>"]).await;
    let logs = format!("logs=nats://{}/logs.*", cluster.addresses());
    let serving = tokio::task::block_in_place(|| Serving::start(|_| vec![logs]));
    let edge = Edge::of(&serving);
    let connection = serving.connect().await;
    let status = async |path: &str| soon("an answer", connection.get(&edge.uri(path))).await.unwrap().status;
    cluster.nodes[0].pause();
    crate::within("it is known that the leader is silent", async {
        while status("/readyz").await == 200 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let all = stream::iter(0..400).map(async |number| status(&format!("/stream/logs.x{number}")).await).buffered(50);
    // Each of those that were asked for would take 3 s, and few are at once.
    let all = tokio::time::timeout(std::time::Duration::from_secs(20), all.collect::<Vec<_>>()).await.unwrap();
    assert!(all.iter().all(|status| *status == 503), "{all:?}");
}
