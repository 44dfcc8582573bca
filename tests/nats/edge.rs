//! Our servers, as their clients meet them.

use std::time::Duration;

use h3cast::client::{Connection, Trust, Viewer, viewer::Event};
use http::{Request, Uri};
use tokio::time::sleep;

use crate::{common::soon, serving::Serving};

/// Where a server of ours can be reached.
#[derive(Clone)]
pub(crate) struct Edge {
    pub(crate) base: String,
    pub(crate) trust: Trust,
}

impl Edge {
    pub(crate) fn of(serving: &Serving) -> Self {
        Self { base: format!("https://localhost:{}", serving.port), trust: Trust::Files(vec![serving.certificate()]) }
    }

    pub(crate) fn uri(&self, path: &str) -> Uri {
        format!("{}{path}", self.base).parse().unwrap()
    }

    /// How many view its first feed.
    pub(crate) async fn viewers(&self) -> u64 {
        let connection = soon("a connection", Connection::open(&self.uri("/"), &self.trust)).await.unwrap();
        let mut answer = soon("/feeds", connection.get(&self.uri("/feeds"))).await.unwrap();
        let mut body = Vec::new();
        while let Some(bytes) = soon("the feeds", answer.body.next()).await.unwrap() {
            body.extend_from_slice(&bytes);
        }
        let feeds: serde_json::Value = serde_json::from_slice(&body).unwrap();
        feeds["feeds"][0]["viewers"].as_u64().unwrap()
    }
}

/// Publishes a line at one of the edges, at the next one when that fails, until it is acknowledged.
pub(crate) async fn publish(
    edges: &[Edge],
    at: &mut usize,
    connection: &mut Option<Connection>,
    key: &str,
    line: &str,
) {
    loop {
        let edge = &edges[*at % edges.len()];
        let answered = tokio::time::timeout(Duration::from_secs(8), async {
            if connection.is_none() {
                *connection = Connection::open(&edge.uri("/"), &edge.trust).await.ok();
            }
            let request = Request::post(edge.uri("/stream/chat?chunk=lines")).header("idempotency-key", key);
            let (mut body, answer) = connection.as_ref()?.send_request(request.body(()).unwrap()).await.ok()?;
            body.send(line.to_owned().into()).await.ok()?;
            body.finish().await.ok()?;
            let answer = answer.await.ok()?;
            if answer.status == 503 {
                assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
            }
            Some(answer.status)
        })
        .await;
        match answered {
            Ok(Some(status)) if status == 200 => return,
            Ok(Some(status)) => assert_eq!(status, 503),
            Ok(None) | Err(_) => *connection = None,
        }
        *at += 1;
        sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn chunk_texts(events: &[Event]) -> Vec<String> {
    let text = |event: &Event| match event {
        Event::Chunk { bytes, .. } => Some(String::from_utf8(bytes.to_vec()).unwrap()),
        _ => None,
    };
    events.iter().filter_map(text).collect()
}

/// Reads until there are so many chunks.
pub(crate) async fn read(edge: &Edge, path: &str, chunks: usize) -> Vec<Event> {
    let mut viewer = Viewer::new(&edge.uri(path), edge.trust.clone()).unwrap();
    let mut events = Vec::new();
    while chunk_texts(&events).len() < chunks {
        events.push(soon("an event", viewer.next()).await.unwrap().unwrap());
    }
    events
}
