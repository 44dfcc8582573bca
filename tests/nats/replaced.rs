//! Clients of NATS that die. The library's task panics where a stored message has a carriage return in the value of a
//! header, and is not to be saved; the edge goes on with another client.

use std::time::Duration;

use bytes::Bytes;
use h3cast::client::{Viewer, viewer::Event};
use http::Request;
use tokio::time::sleep;

use crate::{
    cluster::Cluster,
    common::soon,
    edge::Edge,
    malformed::{DEADLY, Other, deaths, log, streams, take, viewer},
    presence::text,
    serving::Serving,
};

const SOUND: &[u8] = b"NATS/1.0\r\n\r\n";
/// How many chunks each feed has between two deaths.
const CHUNKS: usize = 50;

async fn until(what: &str, is_so: impl Fn() -> bool) {
    soon(what, async {
        while !is_so() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

fn start(args: &[String]) -> Serving {
    tokio::task::block_in_place(|| Serving::start(|_| args.to_vec()))
}

/// The feeds of the system that have no such message, their viewers and a publication that is on its way lose nothing
/// and get nothing twice; nor do those who come meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn no_other_feed_loses_a_chunk() {
    let cluster = Cluster::start(1);
    let all = [("ONE", "one"), ("TWO", "two"), ("THREE", "three"), ("OTHER", "other"), ("LOGS", "logs.>")];
    streams(&cluster.jetstream().await, &all, true).await;
    let address = cluster.addresses();
    let mut args: Vec<_> =
        ["one", "two", "three", "other"].iter().map(|name| format!("{name}=nats://{address}/{name}")).collect();
    args.extend([format!("logs=nats://{address}/logs.*"), "q=publish".into()]);
    args.extend([format!("--engine=nats://{address}"), "--ensure-stream".into()]);
    let serving = start(&args);
    let (edge, mut program) = (Edge::of(&serving), Other::of(&cluster).await);
    program.publish("logs.a", SOUND, "0").await;
    program.flush().await;
    let mut viewers: Vec<(&str, Viewer)> = Vec::new();
    let connection = serving.connect().await;
    let request = Request::post(serving.uri("/stream/q?chunk=lines")).header("idempotency-key", "\"k\"");
    let (mut body, answer) = connection.send_request(request.body(()).unwrap()).await.unwrap();

    let (mut due, mut published) = (vec!["0".to_owned()], Vec::new());
    program.publish("other", SOUND, "0").await;
    for (died, name) in ["one", "two", "three"].into_iter().enumerate() {
        for feed in ["other", "logs.a", "q"] {
            viewers.push((feed, viewer(&edge, feed).await));
        }
        for number in 0..CHUNKS {
            let text = format!("{name} {number}");
            // In the middle, so that chunks of the others are on their way.
            if number == CHUNKS / 2 {
                program.publish(name, DEADLY[0], "deadly").await;
            }
            for feed in ["other", "logs.a"] {
                program.publish(feed, SOUND, &text).await;
            }
            body.send(Bytes::from(format!("{text}\n"))).await.unwrap();
            published.push(format!("{text}\n"));
            due.push(text);
        }
        program.flush().await;
        until("the client dies", || deaths(&serving) > died).await;
        assert_eq!(take(&mut viewer(&edge, name).await, 1).await, ["deadly"]);
    }
    body.finish().await.unwrap();
    assert_eq!(soon("an answer", answer).await.unwrap().status, 200);
    for (feed, viewer) in &mut viewers {
        let due = if *feed == "q" { &published } else { &due };
        assert_eq!(take(viewer, due.len()).await, *due, "{feed}");
    }
    // Nothing comes twice.
    program.publish("other", SOUND, "last").await;
    program.publish("logs.a", SOUND, "last").await;
    program.flush().await;
    for (_, viewer) in viewers.iter_mut().filter(|(feed, _)| *feed != "q") {
        assert_eq!(take(viewer, 1).await, ["last"]);
    }
    assert_eq!(deaths(&serving), 3, "{}", log(&serving));
    assert!(text(&serving, "/metrics").await.contains("h3cast_nats_reconnects_total 3\n"));
    assert!(log(&serving).contains("stored messages have malformed headers"));
}

/// One who sends such messages again and again does not have clients die again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn clients_do_not_die_all_the_time() {
    let cluster = Cluster::start(1);
    streams(&cluster.jetstream().await, &[("ONE", "one")], true).await;
    let serving = start(&[format!("one=nats://{}/one", cluster.addresses())]);
    let mut program = Other::of(&cluster).await;
    let mut viewer = viewer(&Edge::of(&serving), "one").await;
    // After the first one, some thousand messages end that it is read singly; not after the second.
    for (more, died, is_singly) in [(1100, 1, false), (1100, 2, true), (0, 2, true)] {
        program.publish("one", DEADLY[0], "deadly").await;
        let due: Vec<_> = (0..more).map(|number| format!("{number}")).collect();
        program.flush().await;
        assert_eq!(take(&mut viewer, 1).await, ["deadly"]);
        assert_eq!(deaths(&serving), died, "{}", log(&serving));
        for text in &due {
            program.publish("one", SOUND, text).await;
        }
        program.flush().await;
        assert_eq!(take(&mut viewer, due.len()).await, due);
        let consumers = if is_singly { "h3cast_nats_consumers 0\n" } else { "h3cast_nats_consumers 1\n" };
        soon("it is read so", async { while !text(&serving, "/metrics").await.contains(consumers) {} }).await;
    }
}

/// Nor do viewers who read the past.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn nor_for_those_who_read_the_past() {
    read_the_past("one", "one").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn nor_for_those_who_read_the_past_of_one_subject_of_many() {
    read_the_past("one.>", "one.a").await;
}

async fn read_the_past(subjects: &str, subject: &str) {
    let cluster = Cluster::start(1);
    streams(&cluster.jetstream().await, &[("ONE", subjects)], true).await;
    let mut program = Other::of(&cluster).await;
    let due: Vec<_> = (0..9000).map(|number| format!("{number}")).collect();
    for (number, text) in due.iter().enumerate() {
        program.publish(subject, if number % 700 == 30 { DEADLY[0] } else { SOUND }, text).await;
    }
    program.flush().await;
    let one = format!("one=nats://{}/{subject}", cluster.addresses());
    let serving = start(&[one, "--history=16k".into()]);
    assert_eq!(take(&mut viewer(&Edge::of(&serving), "one").await, due.len()).await, due);
    assert!((4..8).contains(&deaths(&serving)), "{}", log(&serving));
}

/// The message that its client dies of is lost, and what comes while there is no other one; viewers are told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn a_live_subject_goes_on_and_has_a_gap() {
    let cluster = Cluster::start(1);
    let serving = start(&[format!("ticks=nats://{}/ticks?live", cluster.addresses())]);
    let mut program = Other::of(&cluster).await;
    let mut viewer = viewer(&Edge::of(&serving), "ticks").await;
    for round in 0..3 {
        let body = format!("{round}");
        let mut gaps = 0;
        // Nobody tells when it is subscribed to.
        let repeat = async {
            loop {
                program.publish("ticks", SOUND, &body).await;
                program.flush().await;
                sleep(Duration::from_millis(100)).await;
            }
        };
        let chunk = async {
            loop {
                match soon("an event", viewer.next()).await.unwrap().unwrap() {
                    Event::Chunk { bytes, .. } if bytes == body => break,
                    Event::Gap(gap) => gaps += gap.missing,
                    _ => {}
                }
            }
        };
        tokio::select! {
            () = chunk => {}
            () = repeat => {}
        }
        assert_eq!(gaps, u64::from(round > 0), "{}", log(&serving));
        program.publish("ticks", DEADLY[0], "deadly").await;
        program.flush().await;
        until("the client dies", || deaths(&serving) > round).await;
    }
    assert!(log(&serving).contains("the message that the client panicked at is lost"));
}

/// A client that dies otherwise, where there is no server either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn one_that_dies_while_it_reconnects_is_replaced() {
    let mut cluster = Cluster::start(1);
    cluster.jetstream().await;
    let engine = format!("--engine=nats://{}", cluster.addresses());
    let serving = tokio::task::block_in_place(|| {
        // The first time is when it connects.
        let prefix = ["env", "H3CAST_FAULT=nats-client=panic@2"];
        Serving::start_by(&prefix, |_| vec!["q=publish", engine.as_str(), "--ensure-stream"])
    });
    let publish = async |body: &'static str| {
        let connection = serving.connect().await;
        let request = Request::post(serving.uri("/stream/q")).body(()).unwrap();
        let (mut publishing, answer) = connection.send_request(request).await.unwrap();
        publishing.send(body.into()).await.unwrap();
        publishing.finish().await.unwrap();
        soon("an answer", answer).await.unwrap().status
    };
    assert_eq!(publish("before").await, 200);
    let mut viewer = viewer(&Edge::of(&serving), "q").await;
    assert_eq!(take(&mut viewer, 1).await, ["before"]);
    cluster.nodes[0].kill();
    until("the client dies", || log(&serving).contains("while it was reconnecting; connecting with a new one")).await;
    assert!(log(&serving).contains("a test asks for a panic at `nats-client`"));
    until("it cannot connect", || log(&serving).contains("cannot connect to NATS at")).await;
    cluster.nodes[0].start();
    assert_eq!(publish("after").await, 200);
    assert_eq!(take(&mut viewer, 1).await, ["after"]);
    assert!(log(&serving).contains("connected to NATS again"));
}
