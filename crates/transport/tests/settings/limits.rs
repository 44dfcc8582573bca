use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use h3cast_transport::{
    Limits,
    client::{ClientError, Connection, Trust},
    connection::{Admit, Incoming},
    server::StartError,
    webtransport::SessionRequest,
};
use http::HeaderMap;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use crate::heads::statuses;
use crate::idle::IDLE;
use crate::kit::{Serving, ask, ask_h3, builder, loopback, soon, status};

const SHORT: Duration = Duration::from_millis(300);

/// Waits until the server closes it.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // An error is an end as well.
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
}

async fn limited(limits: Limits) -> Serving {
    Serving::start(|builder| builder.limits(limits)).await
}

#[tokio::test]
async fn limits_that_let_nobody_in_are_refused() {
    for (limits, expected) in [
        (Limits::default().head_size(10), "Limits::head_size cannot be 10: choose from 1 KiB to 512 KiB"),
        (Limits::default().head_size(1 << 20), "Limits::head_size"),
        (Limits::default().streams(0), "Limits::streams cannot be 0"),
        (Limits::default().connections(0), "Limits::connections cannot be 0"),
        (Limits::default().tcp_connections(0), "Limits::tcp_connections cannot be 0"),
        (Limits::default().head_timeout(Duration::ZERO), "Limits::head_timeout cannot be zero"),
        (Limits::default().idle_timeout(Duration::ZERO), "Limits::idle_timeout cannot be zero"),
        (Limits::default().handshake_timeout(Duration::ZERO), "Limits::handshake_timeout cannot be zero"),
    ] {
        let (builder, _certs) = builder();
        let error = builder.listen(loopback()).limits(limits).build().await.unwrap_err();
        assert!(matches!(error, StartError::Limits(_)), "{error:?}");
        assert!(error.to_string().starts_with(expected), "{error}");
    }
    // No limit at all.
    let long = Duration::MAX;
    let limits = Limits::default().head_timeout(long).keep_alive(long).idle_timeout(long).handshake_timeout(long);
    let serving = limited(limits.connections(usize::MAX).tcp_connections(usize::MAX).streams(70_000)).await;
    let mut h1 = TcpStream::connect(serving.plain()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(status(&soon("an answer", ask(&mut h1, "")).await.unwrap()), 200);
    }
    assert_eq!(statuses(&serving, 100).await, [200; 3]);
    // From the fourth request on, a connection is allowed all the streams that it may have.
    let uri = format!("https://{}/", serving.addresses.tls[0]).parse().unwrap();
    let trust = Trust::Files(vec![serving.certificate()]);
    let connection = soon("a connection", Connection::open(&uri, &trust)).await.unwrap();
    for _ in 0..6 {
        assert_eq!(soon("an answer", connection.get(&uri)).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn keep_alive_ends_idle_connections_and_not_slow_heads() {
    let serving = limited(Limits::default().keep_alive(SHORT)).await;
    let mut idle = TcpStream::connect(serving.plain()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(status(&soon("an answer", ask(&mut idle, "")).await.unwrap()), 200);
    }
    let answered = Instant::now();
    soon("the end of an idle connection", closed(&mut idle)).await;
    assert!(answered.elapsed() >= SHORT / 2, "{:?}", answered.elapsed());

    // A head that has begun has its own time.
    let mut slow = TcpStream::connect(serving.plain()).await.unwrap();
    assert_eq!(status(&soon("an answer", ask(&mut slow, "")).await.unwrap()), 200);
    slow.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    tokio::time::sleep(3 * SHORT).await;
    slow.write_all(b"host: localhost\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    soon("an answer", slow.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[tokio::test]
async fn without_keep_alive_each_connection_has_one_request() {
    let serving = limited(Limits::default().keep_alive(Duration::ZERO)).await;
    let mut once = TcpStream::connect(serving.plain()).await.unwrap();
    let answer = soon("an answer", ask(&mut once, "")).await.unwrap();
    assert!(answer.contains("connection: close"), "{answer}");
    soon("the end", closed(&mut once)).await;
}

#[tokio::test]
async fn a_head_has_to_be_complete_in_time() {
    let serving = limited(Limits::default().head_timeout(SHORT)).await;
    for requests in [0, 1] {
        let mut stream = TcpStream::connect(serving.plain()).await.unwrap();
        for _ in 0..requests {
            assert_eq!(status(&soon("an answer", ask(&mut stream, "")).await.unwrap()), 200);
        }
        stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        soon("the end of a slow head", closed(&mut stream)).await;
    }
    let quic = serving.quic().await.unwrap();
    let (mut send, mut recv) = quic.open_bi().await.unwrap();
    send.write_all(&[1]).await.unwrap();
    let reset = soon("the end of a slow head", recv.read_to_end(100)).await.unwrap_err();
    assert!(reset.to_string().contains("reset"), "{reset}");
}

#[tokio::test]
async fn handshakes_have_to_be_complete_in_time() {
    // Nothing else ends them: a connection that is idle has longer than the test waits.
    let idle = Duration::from_secs(300);
    let serving = limited(Limits::default().handshake_timeout(SHORT).idle_timeout(idle).connections(1)).await;
    let mut silent = TcpStream::connect(serving.tcp()).await.unwrap();
    soon("the end of a silent connection", closed(&mut silent)).await;

    // A client of QUIC that says its first word and no other.
    let relay = Relay::start(serving.udp()).await;
    relay.allow(1);
    let trust = serving.trust();
    let at = relay.address;
    let stuck = tokio::spawn(async move { trust.quic(at, "localhost").await.map(drop) });
    soon("its first word", relay.passed(1)).await;
    let place = async {
        // Refused until then.
        while serving.quic().await.is_err() {
            tokio::time::sleep(SHORT / 10).await;
        }
    };
    soon("a place", place).await;
    stuck.abort();
}

#[tokio::test]
async fn a_client_that_is_gone_is_noticed_in_time() {
    let serving = limited(Limits::default().idle_timeout(IDLE)).await;
    let relay = Relay::start(serving.udp()).await;
    let quic = soon("a connection", serving.trust().quic(relay.address, "localhost")).await.unwrap();
    soon("an answer", ask_h3(&quic, HeaderMap::new())).await.unwrap();
    relay.allow(0);
    // Both sides have the time-out of the one that is shorter (RFC 9000 §10.1).
    let lost = soon("the end", quic.closed()).await;
    assert!(matches!(lost, quinn::ConnectionError::TimedOut), "{lost}");
}

#[tokio::test]
async fn connections_are_counted_over_quic_and_tcp_together() {
    let serving = limited(Limits::default().connections(1)).await;
    let first = serving.quic().await.unwrap();
    soon("an answer", ask_h3(&first, HeaderMap::new())).await.unwrap();
    let refused = serving.quic().await.unwrap_err();
    assert!(refused.to_string().contains("refused"), "{refused}");

    // Over TCP one waits for its turn.
    let closed = Arc::new(AtomicBool::new(false));
    let (seen, plain) = (closed.clone(), serving.plain());
    let waiting = tokio::spawn(async move {
        let mut waiting = TcpStream::connect(plain).await.unwrap();
        let answer = ask(&mut waiting, "").await.unwrap();
        assert!(seen.load(Ordering::SeqCst));
        (status(&answer), waiting)
    });
    // More than once refused: its place is not given to others meanwhile.
    assert!(serving.quic().await.is_err());
    closed.store(true, Ordering::SeqCst);
    first.close(0u32.into(), b"");
    let (status, second) = soon("its turn", waiting).await.unwrap();
    assert_eq!(status, 200);
    assert!(serving.quic().await.is_err());
    drop(second);
    soon("a place", async { while serving.quic().await.is_err() {} }).await;
}

#[tokio::test]
async fn tcp_connections_wait_for_their_turn() {
    let serving = limited(Limits::default().tcp_connections(1)).await;
    let mut first = TcpStream::connect(serving.plain()).await.unwrap();
    assert_eq!(status(&soon("an answer", ask(&mut first, "")).await.unwrap()), 200);
    let mut second = TcpStream::connect(serving.plain()).await.unwrap();
    let mut waiting = std::pin::pin!(ask(&mut second, ""));
    assert!(waiting.as_mut().now_or_never().is_none());
    // Other listeners have places of their own.
    assert_eq!(status(&soon("an answer", ask(&mut serving.h1().await, "")).await.unwrap()), 200);
    drop(first);
    assert_eq!(status(&soon("its turn", waiting).await.unwrap()), 200);
}

#[tokio::test]
async fn the_last_places_are_for_clients_whose_address_is_their_own() {
    let (tx, seen) = std::sync::mpsc::channel();
    let look = move |incoming: &Incoming| {
        tx.send(incoming.validated).unwrap();
        Admit::Accept
    };
    let limits = Limits::default().connections(4).connections_per_address(0);
    let serving = Serving::start(|builder| builder.limits(limits).on_accept(look)).await;
    let mut connections = Vec::new();
    for validated in [false, false, false, true] {
        connections.push(serving.quic().await.unwrap());
        assert_eq!(seen.try_recv(), Ok(validated));
    }
}

/// As WebSocket connections are.
#[tokio::test]
async fn an_upgraded_connection_keeps_its_place() {
    let upgrade = async |request: axum::extract::Request| {
        tokio::spawn(async {
            let mut stream = hyper_util::rt::TokioIo::new(hyper::upgrade::on(request).await.unwrap());
            // Until the client leaves.
            let _ = stream.read(&mut [0]).await;
        });
        http::Response::builder().status(101).header("upgrade", "x").body(axum::body::Body::empty()).unwrap()
    };
    let router = crate::kit::router().route("/up", axum::routing::get(upgrade));
    let limits = Limits::default().tcp_connections(1);
    let serving = Serving::start(|builder| builder.limits(limits).http_service(router)).await;
    let mut first = TcpStream::connect(serving.plain()).await.unwrap();
    first.write_all(b"GET /up HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    soon("the upgrade", first.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    let mut second = TcpStream::connect(serving.plain()).await.unwrap();
    let mut waiting = std::pin::pin!(ask(&mut second, ""));
    let early = tokio::time::timeout(SHORT, waiting.as_mut()).await;
    assert!(early.is_err(), "it was answered while the first one had its place");
    drop(first);
    assert_eq!(status(&soon("its turn", waiting).await.unwrap()), 200);
}

#[tokio::test]
async fn streams_of_a_connection() {
    let serving = limited(Limits::default().streams(2)).await;
    let quic = serving.quic().await.unwrap();
    let open = [quic.open_bi().await.unwrap(), quic.open_bi().await.unwrap()];
    assert!(quic.open_bi().now_or_never().is_none());
    drop(open);

    // SETTINGS of HTTP/2 (RFC 9113 §6.5).
    let mut h2 = soon("TLS", serving.trust().tcp(serving.tcp(), "localhost", b"h2")).await.unwrap();
    h2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut head = [0; 9];
    soon("SETTINGS", h2.read_exact(&mut head)).await.unwrap();
    let mut settings = vec![0; usize::from(head[2])];
    h2.read_exact(&mut settings).await.unwrap();
    assert!(settings.chunks(6).any(|setting| setting == [0, 3, 0, 0, 0, 2]), "{settings:?}");
}

#[tokio::test]
async fn sessions_of_a_connection() {
    let hold = async |request: SessionRequest| {
        let session = request.accept().await.unwrap();
        session.closed().await;
    };
    let limits = Limits::default().sessions(1);
    let serving = Serving::start(|builder| builder.limits(limits).webtransport("/hold", hold)).await;
    let uri = format!("https://{}/hold", serving.addresses.tls[0]).parse().unwrap();
    let trust = Trust::Files(vec![serving.certificate()]);
    let connection = soon("a connection", Connection::open(&uri, &trust)).await.unwrap();
    let first = soon("a session", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap();
    let second = soon("an answer", connection.webtransport(&uri, HeaderMap::new(), &[])).await;
    assert!(matches!(second, Err(ClientError::Refused { status, .. }) if status == 429), "{second:?}");
    drop(first);
}

#[tokio::test]
async fn settings_of_quic() {
    let without_datagrams = |quic: &mut h3cast_transport::quic::TransportConfig| {
        quic.datagram_receive_buffer_size(None);
    };
    let serving = Serving::start(|builder| builder.quic(without_datagrams)).await;
    assert_eq!(serving.quic().await.unwrap().max_datagram_size(), None);
    let usual = Serving::start(|builder| builder).await;
    assert!(usual.quic().await.unwrap().max_datagram_size().is_some());
}

/// Passes datagrams both ways; from the client, only as many as are allowed.
struct Relay {
    address: SocketAddr,
    allowed: Arc<AtomicUsize>,
    passed: Arc<tokio::sync::watch::Sender<usize>>,
    relaying: tokio::task::JoinHandle<()>,
}

impl Relay {
    async fn start(server: SocketAddr) -> Self {
        let inside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let outside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = inside.local_addr().unwrap();
        let allowed = Arc::new(AtomicUsize::new(usize::MAX));
        let passed = Arc::new(tokio::sync::watch::Sender::new(0));
        let (left, count) = (allowed.clone(), passed.clone());
        let relaying = tokio::spawn(async move {
            let (mut there, mut back) = ([0; 2048], [0; 2048]);
            let mut client = None;
            loop {
                tokio::select! {
                    got = inside.recv_from(&mut there) => {
                        let (size, from) = got.unwrap();
                        client = Some(from);
                        let take = |left: usize| left.checked_sub(1);
                        if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
                            outside.send_to(&there[..size], server).await.unwrap();
                            count.send_modify(|count| *count += 1);
                        }
                    }
                    got = outside.recv_from(&mut back) => {
                        let (size, _) = got.unwrap();
                        if let Some(client) = client {
                            let _ = inside.send_to(&back[..size], client).await;
                        }
                    }
                }
            }
        });
        Self { address, allowed, passed, relaying }
    }

    fn allow(&self, datagrams: usize) {
        self.allowed.store(datagrams, Ordering::SeqCst);
    }

    async fn passed(&self, datagrams: usize) {
        self.passed.subscribe().wait_for(|passed| *passed >= datagrams).await.unwrap();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.relaying.abort();
    }
}
