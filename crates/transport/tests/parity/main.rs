//! The same requests to the same axum router under `axum::serve` and under our server get the same answers,
//! over every version of HTTP; what differs is listed with its reason.

mod cases;
mod interim;
mod layers;
mod peers;
mod raw;
mod router;
mod tunnel;

use std::net::SocketAddr;

use axum::{Router, extract::ConnectInfo, routing::get};
use cases::{Case, cases};
use futures_util::{StreamExt, stream};
use peers::{
    Answer, Axum, Ours,
    Version::{self, H1, H2, H3},
};

/// Where ours differs on purpose: which case, over which version, and why.
const EXCEPTIONS: &[(&str, &[Version], &str)] = &[
    ("a streamed body longer than its length", &[H1], "breaks off; hyper leaves out what is too much"),
    ("no body with a length", &[H1], SHORT),
    ("205 with a length", &[H1], SHORT),
    ("299 with a length", &[H1], SHORT),
    ("418 with a length", &[H1], SHORT),
    ("503 with a length", &[H1], SHORT),
    ("599 with a length", &[H1], SHORT),
    ("the same length twice", MULTIPLEXED, TWICE),
    ("the head of the same length twice", &[H1, H2, H3], TWICE),
    ("two different lengths", &[H1, H2, H3], LENGTHS),
    ("the head of two different lengths", &[H1, H2, H3], LENGTHS),
    ("a length that is none", &[H1, H2, H3], LENGTHS),
    ("the head of a length that is none", &[H1, H2, H3], LENGTHS),
    ("204 with a body", &[H1, H2, H3], NO_CONTENT),
    ("the head of 204 with a body", &[H1, H2, H3], NO_CONTENT),
    ("204 with a streamed body", MULTIPLEXED, NO_CONTENT),
    ("204 with a length", MULTIPLEXED, NO_CONTENT),
    ("204 with nothing", MULTIPLEXED, NO_CONTENT),
    ("304 with a body", MULTIPLEXED, NO_CONTENT),
    ("304 with a streamed body", MULTIPLEXED, NO_CONTENT),
    ("304 with nothing", MULTIPLEXED, NO_CONTENT),
    ("100 from a handler", MULTIPLEXED, INTERIM),
    ("101 from a handler", MULTIPLEXED, "500: only HTTP/1.1 can switch protocols; hyper resets the stream over HTTP/2"),
    ("102 from a handler", MULTIPLEXED, INTERIM),
    ("103 from a handler", MULTIPLEXED, INTERIM),
    ("connection in trailers", MULTIPLEXED, TRAILERS),
    ("keep-alive in trailers", MULTIPLEXED, TRAILERS),
    ("proxy-connection in trailers", MULTIPLEXED, TRAILERS),
    ("transfer-encoding in trailers", MULTIPLEXED, TRAILERS),
    ("te in trailers", MULTIPLEXED, TRAILERS),
    ("upgrade in trailers", MULTIPLEXED, TRAILERS),
    ("named in trailers", MULTIPLEXED, TRAILERS),
    ("a path that is longer than a head may be", &[H1], HEAD),
    ("the longest path", &[H1], HEAD),
    ("the longest path", &[H3], "431: over HTTP/2, h2 closes the connection"),
    ("GET *", &[H3], "malformed (RFC 9114 §4.3.1): `*` is for OPTIONS"),
    ("a host and no authority", &[H3], "h3 puts it into the URI as well, where hyper has a path alone"),
    ("a length of 0 of a sized body", &[H1], "nothing of it is sent: a debug build of hyper panics"),
];

const MULTIPLEXED: &[Version] = &[H2, H3];
/// RFC 9110 §8.6, §15.3.5, §15.4.5.
const NO_CONTENT: &str =
    "no content, nor its length: hyper sends both over HTTP/2, and the length with 204 over HTTP/1.1";
const HEAD: &str = "431, as over HTTP/2: `Limits` has one size of heads for all; hyper takes 400 KB over HTTP/1.1";
const TWICE: &str = "said once: hyper sends both over HTTP/2, and breaks off the head over HTTP/1.1";
const LENGTHS: &str = "left out: hyper breaks off, or sends what clients refuse";
const SHORT: &str = "breaks off, as over HTTP/2: hyper corrects the length of an empty body";
const INTERIM: &str = "500, as over HTTP/1.1: hyper sends these as final responses over HTTP/2";
const TRAILERS: &str = "left out: over HTTP/2, h2 resets the stream, or sends `te`";

/// What axum answers over the version that is nearest to ours.
fn model(version: Version) -> Version {
    match version {
        H1 => H1,
        H2 | H3 => H2,
    }
}

// On one thread, nothing leaves between a head and the end that belongs to it.
#[tokio::test]
async fn every_version_answers_as_axum_does() {
    let (axum, ours) = (Axum::start(router::router()).await, Ours::start(router::router()).await);
    let cases = cases();
    assert!(cases.len() >= 60, "{}", cases.len());
    let all = cases.iter().flat_map(|case| [H1, H2, H3].map(|version| (case, version)));
    let (axum, ours) = (&axum, &ours);
    let wrong = stream::iter(all.map(|(case, version)| async move {
        let (expected, answer) = tokio::join!(axum.ask(model(version), case), ours.ask(version, case));
        match (expected.agrees(&answer), exception(case, version)) {
            (false, None) => Some(format!("{} over {version:?}:\n  axum {expected:?}\n  ours {answer:?}", case.name)),
            (true, Some(reason)) => Some(format!("{} over {version:?} is no exception: {reason}", case.name)),
            _ => None,
        }
    }));
    // What is cut waits until it has arrived.
    let wrong: Vec<_> = wrong.buffer_unordered(64).filter_map(std::future::ready).collect().await;
    assert!(wrong.is_empty(), "{}\n{} of {}", wrong.join("\n"), wrong.len(), 3 * cases.len());
    for (name, ..) in EXCEPTIONS {
        assert!(cases.iter().any(|case| case.name == *name), "no case `{name}`");
    }
}

fn exception(case: &Case, version: Version) -> Option<&'static str> {
    let found = EXCEPTIONS.iter().find(|(name, versions, _)| *name == case.name && versions.contains(&version));
    found.map(|(.., reason)| *reason)
}

/// What is wrong with one response is no matter of the others.
#[tokio::test]
async fn the_connection_survives_every_answer() {
    let ours = Ours::start(router::router()).await;
    let connection = ours.h3().await;
    let (connection, cases) = (&connection, cases());
    let text = &cases[0];
    // Some take a while to break off.
    let asked = stream::iter(&cases).for_each_concurrent(16, async |case| {
        connection.ask(case).await;
        let after: Answer = connection.ask(text).await;
        assert_eq!((after.status, after.cut), (200, false), "after {}: {after:?}", case.name);
    });
    asked.await;
}

#[tokio::test]
async fn the_address_follows_a_migrated_connection() {
    let peer = async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.port().to_string();
    let ours = Ours::start(Router::new().route("/", get(peer))).await;
    let connection = ours.h3().await;
    let text = cases().into_iter().next().unwrap();
    connection.ask(&text).await;
    let port = connection.migrate();
    assert_eq!(connection.ask(&text).await.body, port.to_string().into_bytes());
}
