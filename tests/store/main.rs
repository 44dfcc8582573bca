//! `h3cast serve --store`: feeds survive their server.
#![cfg(all(feature = "cli", feature = "store", unix))]

mod backups;
mod kills;
#[path = "../handover/overdue.rs"]
mod overdue;
mod places;
#[path = "../handover/process.rs"]
#[allow(dead_code, reason = "it is for servers that take over, too")]
mod process;
mod refusals;
mod restarts;
mod retention;
#[cfg(target_os = "linux")]
mod room;
mod tails;
mod viewer;

use http::Uri;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use process::{Place, Process};
use tokio::net::TcpStream;

/// A folder of its own at the place of the servers.
const STORE: [&str; 2] = ["--store", "store"];

/// Starts a server with a store, at a place of its own.
async fn first(args: &[&str]) -> (std::sync::Arc<Place>, Process) {
    Process::first_at(None, "", &[&STORE, args].concat()).await
}

/// The next one at that place.
async fn next(place: &Place, args: &[&str]) -> Process {
    let mut process = place.rival(&[&STORE, args].concat());
    process.ready().await;
    process
}

/// Publishes over HTTP/1.1: the status, and what was answered. `None` if there was no answer.
async fn post(place: &Place, path: &str, key: Option<&str>, body: &str) -> Option<(u16, serde_json::Value)> {
    let stream = TcpStream::connect(("127.0.0.1", place.http_port)).await.ok()?;
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let mut request = http::Request::post(path.parse::<Uri>().unwrap()).header("host", "localhost");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let request = request.body(Full::new(bytes::Bytes::copy_from_slice(body.as_bytes()))).unwrap();
    let response = send.send_request(request).await.ok()?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some((status, serde_json::from_slice(&body).unwrap_or_default()))
}

/// The first `many` chunks of a feed, as lines.
async fn lines(place: &Place, path: &str, many: usize) -> Vec<String> {
    let join = if path.contains('?') { '&' } else { '?' };
    let answer = process::get(place, &format!("{path}{join}limit={many}")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{head}");
    body.split_inclusive('\n').map(String::from).collect()
}

/// What `/feeds` has of a feed.
async fn about(place: &Place, feed: &str) -> serde_json::Value {
    let answer = process::get(place, "/feeds").await;
    let all: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    all["feeds"].as_array().unwrap().iter().find(|about| about["name"] == feed).cloned().unwrap_or_default()
}
