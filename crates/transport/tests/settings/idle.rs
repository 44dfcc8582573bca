//! Connections that carry nothing: who keeps them, and for how long.

use std::time::{Duration, Instant};

use h3cast_transport::{
    Limits,
    client::{Client, Trust},
};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Empty};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower::ServiceExt;

use crate::{
    addresses::holding,
    kit::{Serving, ask_h3, soon},
};

/// Long enough that a busy machine answers within half of it.
pub(crate) const IDLE: Duration = Duration::from_millis(1500);
const KEEP_ALIVE: Duration = Duration::from_millis(400);

/// H3_NO_ERROR.
const NO_ERROR: quinn::VarInt = quinn::VarInt::from_u32(0x100);

#[tokio::test]
async fn an_idle_connection_over_http_3_is_not_kept_alive() {
    let (serving, _) = holding(Limits::default().idle_timeout(IDLE)).await;
    let quic = serving.quic().await.unwrap();
    soon("an answer", ask_h3(&quic, HeaderMap::new())).await.unwrap();
    // Nothing comes from the server that would keep it alive here either.
    let lost = soon("the end", quic.closed()).await;
    assert!(matches!(lost, quinn::ConnectionError::TimedOut), "{lost}");
}

#[tokio::test]
async fn an_open_response_keeps_its_connection_over_http_3() {
    let (serving, counters) = holding(Limits::default().idle_timeout(IDLE).keep_alive(KEEP_ALIVE)).await;
    let quic = serving.quic().await.unwrap();
    let (mut driver, mut requests) = h3::client::new(h3_quinn::Connection::new(quic.clone())).await.unwrap();
    let driving = tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
    let mut stream = requests.send_request(Request::get("https://localhost/hold").body(()).unwrap()).await.unwrap();
    stream.finish().await.unwrap();
    assert_eq!(soon("a head", stream.recv_response()).await.unwrap().status(), 200);
    tokio::time::sleep(2 * IDLE).await;
    assert!(quic.close_reason().is_none() && counters.snapshot().requests == 1, "{:?}", quic.close_reason());
    // Without it, the connection ends.
    drop(stream);
    let lost = soon("the end", quic.closed()).await;
    assert!(matches!(lost, quinn::ConnectionError::ApplicationClosed(close) if close.error_code == NO_ERROR));
    driving.abort();
}

#[tokio::test]
async fn a_client_keeps_no_connection_without_requests_over_http_3() {
    let (serving, _) = holding(Limits::default().keep_alive(KEEP_ALIVE)).await;
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(KEEP_ALIVE / 8));
    let quic = soon("a connection", serving.trust().quic_with(serving.udp(), transport)).await.unwrap();
    soon("an answer", ask_h3(&quic, HeaderMap::new())).await.unwrap();
    let began = Instant::now();
    let lost = soon("the end", quic.closed()).await;
    assert!(matches!(lost, quinn::ConnectionError::ApplicationClosed(close) if close.error_code == NO_ERROR));
    assert!(began.elapsed() >= KEEP_ALIVE / 2, "{:?}", began.elapsed());
}

#[tokio::test]
async fn clients_take_another_connection_after_a_pause() {
    let (serving, counters) = holding(Limits::default().keep_alive(KEEP_ALIVE)).await;
    let client = Client::new(&Trust::Files(vec![serving.certificate()])).unwrap();
    let uri: http::Uri = format!("https://{}/", serving.addresses.tls[0]).parse().unwrap();
    for initials in 1..=2 {
        let request = Request::get(&uri).body(Empty::<bytes::Bytes>::new()).unwrap();
        let response = soon("an answer", client.clone().oneshot(request)).await.unwrap();
        let connection = response.extensions().get::<h3cast_transport::ConnectionHandle>().unwrap().clone();
        soon("the body", response.into_body().collect()).await.unwrap();
        assert_eq!(counters.snapshot().initials, initials);
        soon("the end of the connection", connection.closed()).await;
    }
}

/// A client of HTTP/2 that sees each frame.
struct Http2(TcpStream);

const DATA: u8 = 0;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

impl Http2 {
    async fn open(serving: &Serving) -> Self {
        let mut stream = TcpStream::connect(serving.plain()).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        Self(stream)
    }

    /// Asks on stream 1: GET, http, that path, localhost (RFC 7541 §6).
    async fn get(&mut self, path: &str) {
        let mut block = vec![0x82, 0x86, 0x44, path.len() as u8];
        block.extend(path.as_bytes());
        block.extend(b"\x41\x09localhost");
        let mut frame = vec![0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1];
        frame.extend(block);
        self.0.write_all(&frame).await.unwrap();
    }

    /// The type of the next frame, its flags and its payload; `None` at the end.
    async fn next(&mut self) -> Option<(u8, u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((head[3], head[4], payload))
    }

    async fn ping(&mut self, flags: u8, payload: &[u8]) {
        let mut frame = vec![0, 0, 8, PING, flags, 0, 0, 0, 0];
        frame.extend(payload);
        // It may have ended.
        let _ = self.0.write_all(&frame).await;
    }
}

#[tokio::test]
async fn an_idle_connection_over_http_2_is_not_kept_alive() {
    let (serving, _) = holding(Limits::default().idle_timeout(IDLE)).await;
    let mut client = Http2::open(&serving).await;
    client.get("/").await;
    let began = Instant::now();
    let mut types = Vec::new();
    while let Some((ty, ..)) = soon("a frame, or the end", client.next()).await {
        types.push(ty);
    }
    assert!(began.elapsed() >= IDLE, "{:?}", began.elapsed());
    let goaway = types.iter().position(|ty| *ty == GOAWAY).expect("GOAWAY");
    assert!(types[..goaway].contains(&DATA) && !types[..goaway].contains(&PING), "{types:?}");
}

#[tokio::test]
async fn an_open_response_keeps_its_connection_over_http_2() {
    let (serving, _) = holding(Limits::default().idle_timeout(IDLE).keep_alive(KEEP_ALIVE)).await;
    let mut client = Http2::open(&serving).await;
    client.get("/hold").await;
    let began = Instant::now();
    let mut pings = 0;
    while began.elapsed() < 2 * IDLE {
        let (ty, _, payload) = soon("a frame", client.next()).await.expect("the connection stays");
        assert_ne!(ty, GOAWAY);
        if ty == PING {
            pings += 1;
            client.ping(1, &payload).await;
        }
    }
    assert!(pings >= 2, "{pings}");
}

#[tokio::test]
async fn a_client_keeps_no_connection_without_requests_over_http_2() {
    let (serving, _) = holding(Limits::default().keep_alive(KEEP_ALIVE)).await;
    let mut client = Http2::open(&serving).await;
    client.get("/").await;
    let began = Instant::now();
    let goaway = async {
        loop {
            tokio::select! {
                frame = client.next() => if frame.expect("GOAWAY before the end").0 == GOAWAY { break },
                // Frames arrive whole here, so that nothing of one is lost.
                () = tokio::time::sleep(KEEP_ALIVE / 8) => client.ping(0, &[1; 8]).await,
            }
        }
    };
    soon("GOAWAY", goaway).await;
    assert!(began.elapsed() >= KEEP_ALIVE / 2, "{:?}", began.elapsed());
}
