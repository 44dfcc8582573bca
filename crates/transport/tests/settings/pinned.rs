//! What a connection pins whose client asks for much and reads nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use h3cast_transport::{Limits, admission::Refusal, webtransport::SessionRequest};
use http_body_util::BodyExt;

use crate::{
    h2::{DATA, H2, HEADERS, SETTINGS, WINDOW_UPDATE, frame, get as fields, narrow},
    kit::{Serving, soon},
    stalled::ask_quic,
};

const MIB: usize = 1 << 20;
const PIECE: usize = 16 << 10;
const TIMEOUT: Duration = Duration::from_millis(600);

/// `/fast` never ends, and counts what it has given; `/page` is a small file, and `/large` one of 1 MiB.
async fn serving(limits: Limits) -> (Serving, Arc<AtomicUsize>) {
    let given = Arc::new(AtomicUsize::new(0));
    let count = given.clone();
    let fast = async move || {
        let piece = Bytes::from(vec![b'x'; PIECE]);
        Body::from_stream(futures_util::stream::repeat_with(move || {
            count.fetch_add(PIECE, Ordering::Relaxed);
            Ok::<_, std::io::Error>(piece.clone())
        }))
    };
    let counted = given.clone();
    let session = move |request: SessionRequest| {
        let counted = counted.clone();
        async move {
            let session = request.accept().await.unwrap();
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..40 {
                let (mut stream, counted) = (session.open_uni().await.unwrap(), counted.clone());
                tasks.spawn(async move {
                    let piece = Bytes::from(vec![b'x'; PIECE]);
                    while stream.write_bytes(piece.clone()).await.is_ok() {
                        counted.fetch_add(PIECE, Ordering::Relaxed);
                    }
                });
            }
            session.closed().await;
        }
    };
    let router = Router::new().route("/fast", get(fast)).route("/page", get(async || "a page")).route(
        "/large",
        get(async || {
            Body::from_stream(futures_util::stream::iter((0..64).map(|_| Ok::<_, std::io::Error>(vec![b'y'; PIECE]))))
        }),
    );
    let serving = Serving::start(|builder| builder.limits(limits).http_service(router).webtransport("/wt", session));
    (serving.await, given)
}

/// Waits until no more is given.
async fn settled(given: &AtomicUsize) -> usize {
    let (mut before, mut since) = (0, Instant::now());
    soon("an end of what is given", async {
        while since.elapsed() < Duration::from_millis(500) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let now = given.load(Ordering::Relaxed);
            if now != before || now == 0 {
                (before, since) = (now, Instant::now());
            }
        }
    })
    .await;
    before
}

/// Credit for everything there may be.
async fn greedy(mut h2: H2) -> H2 {
    h2.write(&frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0])).await.unwrap();
    h2.write(&frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff])).await.unwrap();
    h2
}

#[tokio::test]
async fn a_connection_of_http2_that_reads_nothing_pins_little() {
    let (serving, given) = serving(Limits::default()).await;
    let mut h2 = greedy(H2::on(narrow(serving.plain()).await).await).await;
    for turn in 0..100 {
        h2.write(&frame(HEADERS, 5, 2 * turn + 1, &fields("/fast"))).await.unwrap();
    }
    let pinned = settled(&given).await;
    println!("{} KiB pinned by 100 streams of HTTP/2", pinned >> 10);
    assert!(pinned <= 5 * MIB, "{} KiB", pinned >> 10);
    // All of them still run.
    let mut seen = std::collections::HashSet::new();
    while seen.len() < 100 {
        let next = h2.until(DATA).await.expect("more");
        seen.insert(next.stream);
    }
}

/// The send window of QUIC is one for all streams.
#[tokio::test]
async fn a_connection_of_http3_that_reads_nothing_pins_little() {
    let (serving, given) = serving(Limits::default()).await;
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(1024_u32.into());
    let quic = serving.trust().quic_with(serving.udp(), transport).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(soon("a stream", ask_quic(&quic, "/fast")).await);
    }
    // What the client holds is 1 KiB of each. Each handler has a piece in its hand that waits.
    let pinned = settled(&given).await - 100 * 1024;
    println!("{} KiB pinned by 100 streams of HTTP/3", pinned >> 10);
    assert!(pinned <= MIB + 101 * PIECE, "{} KiB", pinned >> 10);
}

#[tokio::test]
async fn a_session_that_reads_nothing_pins_little() {
    let (serving, given) = serving(Limits::default()).await;
    let uri = format!("https://{}/wt", serving.addresses.tls[0]).parse().unwrap();
    let trust = h3cast_transport::client::Trust::Files(vec![serving.certificate()]);
    let connection = soon("a connection", h3cast_transport::client::Connection::open(&uri, &trust)).await.unwrap();
    let _session = soon("a session", connection.webtransport(&uri, http::HeaderMap::new(), &[])).await.unwrap();
    let pinned = settled(&given).await;
    // The client takes 2 MiB before it is read.
    println!("{} KiB written by 40 streams of a session", pinned >> 10);
    assert!(pinned <= 3 * MIB + 41 * PIECE, "{} KiB", pinned >> 10);
}

/// However it keeps its connection busy meanwhile.
#[tokio::test]
async fn complete_responses_without_credit_end_their_connection() {
    let (serving, _) = serving(Limits::default().send_timeout(TIMEOUT)).await;
    let mut h2 = H2::open(serving.plain()).await;
    // SETTINGS_INITIAL_WINDOW_SIZE of 1: it takes the first byte of each.
    h2.write(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1])).await.unwrap();
    h2.write(&frame(HEADERS, 5, 1, &fields("/page"))).await.unwrap();
    let asking = async {
        for turn in 1.. {
            // Answered whole: credit for one stream, before it is asked for.
            let stream = 2 * turn + 1;
            if h2.write(&frame(HEADERS, 5, stream, &fields("/page"))).await.is_err()
                || h2.write(&frame(WINDOW_UPDATE, 0, stream, &[0, 0, 1, 0])).await.is_err()
            {
                break;
            }
            loop {
                match h2.next().await {
                    Some(next) if next.ty == DATA && next.stream == stream => break,
                    Some(_) => {}
                    None => return,
                }
            }
            tokio::time::sleep(TIMEOUT / 6).await;
        }
    };
    soon("the end of the connection", asking).await;
    assert_eq!(serving.refused(Refusal::SendTimeout), 1);
}

#[tokio::test]
async fn many_large_responses_at_once_arrive_whole() {
    let (serving, _) = serving(Limits::default()).await;
    let stream = hyper_util::rt::TokioIo::new(tokio::net::TcpStream::connect(serving.plain()).await.unwrap());
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut requests, connection) = hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
    tokio::spawn(connection);
    let all = (0..40).map(|_| {
        let request = http::Request::get("http://localhost/large").body(http_body_util::Empty::<Bytes>::new()).unwrap();
        let answer = requests.send_request(request);
        async move { answer.await.unwrap().into_body().collect().await.unwrap().to_bytes().len() }
    });
    let sizes = soon("the responses", futures_util::future::join_all(all)).await;
    assert!(sizes.iter().all(|size| *size == MIB), "{sizes:?}");
}
