//! The viewer of the client library: its transports, and what it tries again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, extract::RawQuery, response::IntoResponse, routing::get};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use h3cast::{
    chunk::Chunk,
    client::{
        Trust, Viewer,
        viewer::{Event, Transport, ViewError},
    },
    feed::{End, Gap},
    format::frames,
    webtransport::SessionRequest,
};
use http::{StatusCode, header};
use tokio::sync::Notify;

use crate::{
    common::TestServer,
    program::{soon, text},
};

/// As the first servers wrote it, without the number of the next chunk: each case begins where it wants.
fn begin() -> Bytes {
    Bytes::from_static(&[3, 1, 7])
}

fn chunk(seq: u64) -> Bytes {
    frames::chunk(&Chunk::new(seq, format!("{seq}\n").into()))
}

/// A response of these frames, which breaks off when the test asks for it: a reset overtakes what was sent
/// before it.
fn broken(frames: Vec<Bytes>, cut: Arc<Notify>) -> Body {
    let broken = stream::once(async move {
        cut.notified().await;
        Err(std::io::ErrorKind::Other.into())
    });
    Body::from_stream(stream::iter(frames).map(Ok::<_, std::io::Error>).chain(broken))
}

/// The next event in short. Asking is given up and repeated every millisecond, which must lose nothing.
async fn next(viewer: &mut Viewer) -> String {
    let event = async {
        loop {
            if let Ok(event) = tokio::time::timeout(Duration::from_millis(1), viewer.next()).await {
                return event;
            }
        }
    };
    match soon("an event", event).await {
        Ok(Some(Event::Opened { transport, behind })) => {
            format!("{transport} behind {}", behind.map_or("-".into(), |cursor| cursor.to_string()))
        }
        Ok(Some(Event::Chunk { cursor, bytes, .. })) => format!("{cursor} {}", text(&bytes).trim()),
        Ok(Some(Event::Gap(Gap { from, missing, .. }))) => format!("gap {from}+{missing}"),
        Ok(Some(Event::Lost { transport, .. })) => format!("lost, then {transport}"),
        Ok(Some(Event::End(end))) => format!("{end:?}"),
        Ok(event) => format!("{event:?}"),
        Err(error) => format!("error: {error}"),
    }
}

/// The transports take turns, each resumes where the other one stopped, and the last chunk is the last one
/// even if the end frame is lost.
#[tokio::test(flavor = "multi_thread")]
async fn transports_take_turns() {
    let cut = Arc::new(Notify::new());
    let breaks = cut.clone();
    let server = TestServer::start(|builder, _| {
        let get = get(async move |RawQuery(query): RawQuery| match query.unwrap().as_str() {
            "format=frames&limit=6" => broken(vec![begin(), chunk(0), chunk(1)], breaks),
            // Chunk 3 was seen, 4 never comes, 5 does.
            "format=frames&from=7-3&limit=2" => broken(vec![begin(), chunk(3), chunk(5), chunk(6)], breaks),
            query => panic!("{query}"),
        });
        let session = async |request: SessionRequest| {
            assert_eq!(request.uri().query(), Some("format=frames&from=7-1&limit=4"));
            let session = request.accept().await.unwrap();
            let mut stream = session.open_uni().await.unwrap();
            stream.write_bytes([begin(), chunk(2), chunk(3)].concat().into()).await.unwrap();
            // Without a word of the end.
            stream.finish().unwrap();
            session.closed().await;
        };
        builder.http_service(Router::new().route("/stream", get)).webtransport("/stream", session)
    })
    .await;
    let trust = Trust::Files(vec![server.certificate()]);
    let mut viewer = Viewer::new(&server.uri("/stream?limit=6"), trust).unwrap();
    for expected in [
        "GET behind -",
        "7-0 0",
        "7-1 1",
        "lost, then WebTransport",
        "WebTransport behind 7-1",
        "7-2 2",
        "7-3 3",
        "lost, then GET",
        "GET behind 7-3",
        "gap 4+1",
        "7-5 5",
        "7-6 6",
        "Clean",
        "None",
        "None",
    ] {
        assert_eq!(next(&mut viewer).await, expected);
        if ["7-1 1", "7-6 6"].contains(&expected) {
            cut.notify_one();
        }
    }
    assert_eq!((viewer.missing(), viewer.restarts(), viewer.cursor().unwrap().seq), (1, 0, 6));
    viewer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_tried_again_and_what_is_not() {
    let asked = Arc::new(AtomicUsize::new(0));
    let cut = Arc::new(Notify::new());
    let breaks = cut.clone();
    let server = TestServer::start(|builder, _| {
        let busy = {
            let asked = asked.clone();
            get(move || {
                let first = asked.fetch_add(1, Ordering::SeqCst) == 0;
                async move {
                    match first {
                        true => (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")]).into_response(),
                        false => [begin(), chunk(0), frames::end(&End::Clean)].concat().into_response(),
                    }
                }
            })
        };
        let once = get(async move |RawQuery(query): RawQuery| match query.unwrap().contains("from=") {
            false => broken(vec![begin(), chunk(0)], breaks).into_response(),
            true => StatusCode::GONE.into_response(),
        });
        let router = Router::new()
            .route("/busy", busy)
            .route("/once", once)
            .route("/plain", get(async || "data chunk #0\n"))
            .route("/garbage", get(async || [&begin()[..], b"\x01\x00"].concat()));
        builder.http_service(router)
    })
    .await;
    let trust = Trust::Files(vec![server.certificate()]);
    let open = |path: &str| Viewer::new(&server.uri(path), trust.clone()).unwrap();
    // There are no sessions here, so that GET is asked again after the other transport was tried.
    let mut busy = open("/busy");
    let Ok(Some(Event::Lost { error: ViewError::Answered { status, .. }, pause, .. })) = busy.next().await else {
        panic!()
    };
    assert_eq!((status, pause), (StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(1)));
    for expected in ["lost, then GET", "GET behind -", "7-0 0", "Clean"] {
        assert_eq!(next(&mut busy).await, expected);
    }
    // Unless it is the one that was asked for.
    let mut session = open("/busy").transport(Transport::WebTransport);
    assert_eq!(next(&mut session).await, "error: the server answered 404 Not Found");
    // A transport that the server refuses is left, when the other one has brought something.
    let mut once = open("/once");
    for expected in ["GET behind -", "7-0 0", "lost, then WebTransport", "lost, then GET"] {
        assert_eq!(next(&mut once).await, expected);
        if expected == "7-0 0" {
            cut.notify_one();
        }
    }
    assert_eq!(next(&mut once).await, "error: the server answered 410 Gone");
    assert_eq!(next(&mut once).await, "None");
    let mut plain = open("/plain");
    assert_eq!(next(&mut plain).await, "GET behind -");
    assert_eq!(next(&mut plain).await, "error: there is no feed at this URL");
    let mut garbage = open("/garbage");
    assert_eq!(next(&mut garbage).await, "GET behind -");
    assert!(next(&mut garbage).await.starts_with("error: the server's response is not a feed"));
    let mut untrusted = Viewer::new(&server.uri("/busy"), Trust::Hashes(vec![])).unwrap();
    assert!(next(&mut untrusted).await.contains("not trusted"));
    let mut limited = open("/once").transport(Transport::Get).retry_for(Some(Duration::ZERO));
    for expected in ["GET behind -", "7-0 0"] {
        assert_eq!(next(&mut limited).await, expected);
    }
    cut.notify_one();
    assert!(next(&mut limited).await.starts_with("error: gave up after 0 s: the server broke the stream off"));
}

/// Heartbeats are missed, though QUIC itself is alive.
pub(crate) async fn a_server_that_says_nothing_any_more() {
    let stalled = async || broken(vec![begin(), chunk(0)], Arc::default());
    let router = Router::new().route("/stream", get(stalled));
    let server = TestServer::start(|builder, _| builder.http_service(router)).await;
    let trust = Trust::Files(vec![server.certificate()]);
    let mut viewer = Viewer::new(&server.uri("/stream"), trust).unwrap().retry_for(Some(Duration::ZERO));
    for expected in ["GET behind -", "7-0 0", "error: gave up after 0 s: nothing arrived for 40 s", "None"] {
        assert_eq!(next(&mut viewer).await, expected);
    }
}
