//! Frames that cost the server and bring it nothing.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use h3cast_transport::{Limits, admission::Refusal};
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::{
    h2::{CONTINUATION, DATA, GOAWAY, H2, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, get},
    kit::{Serving, soon},
};

const ENHANCE_YOUR_CALM: u8 = 0xb;

/// Floods the server with what `next` gives, after `first`, and expects to be asked for calm.
async fn is_calmed(what: &str, serving: &Serving, first: Vec<u8>, mut next: impl FnMut(u32) -> Vec<u8>) {
    let mut h2 = H2::open(serving.plain()).await;
    h2.write(&first).await.unwrap();
    let flood: Vec<u8> = (0..3000).flat_map(&mut next).collect();
    // It may be closed before everything is written.
    let _ = soon(what, h2.write(&flood)).await;
    let goodbye = h2.until(GOAWAY).await.unwrap_or_else(|| panic!("closed without GOAWAY: {what}"));
    assert_eq!(goodbye.payload[4..8], [0, 0, 0, ENHANCE_YOUR_CALM], "{what}");
    assert!(h2.next().await.is_none(), "the connection stays: {what}");
}

#[tokio::test]
async fn floods_of_frames_over_http2_are_answered_with_a_request_for_calm() {
    let serving = Serving::start(|builder| builder).await;
    assert_eq!(serving.refused(Refusal::ControlFrames), 0);
    let post = frame(HEADERS, 4, 1, &[&[0x83, 0x86, 0x84][..], b"\x01\x09localhost"].concat());
    is_calmed("SETTINGS", &serving, vec![], |_| frame(SETTINGS, 0, 0, &[])).await;
    is_calmed("SETTINGS acknowledged", &serving, vec![], |_| frame(PING, 1, 0, &[0; 8])).await;
    is_calmed("PING", &serving, vec![], |_| frame(PING, 0, 0, &[0; 8])).await;
    is_calmed("PRIORITY", &serving, vec![], |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 7])).await;
    is_calmed("WINDOW_UPDATE", &serving, vec![], |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])).await;
    is_calmed("unknown frames", &serving, vec![], |_| frame(0xbf, 0, 0, b"?")).await;
    is_calmed("empty DATA", &serving, post.clone(), |_| frame(DATA, 0, 1, &[])).await;
    is_calmed("padding alone", &serving, post, |_| frame(DATA, 8, 1, &[1, 0])).await;
    is_calmed("empty CONTINUATION", &serving, frame(HEADERS, 1, 1, &get("/")), |_| frame(CONTINUATION, 0, 1, &[]))
        .await;
    // CVE-2023-44487.
    let reset =
        |turn: u32| [frame(HEADERS, 5, 2 * turn + 1, &get("/")), frame(RST_STREAM, 0, 2 * turn + 1, &[0, 0, 0, 8])];
    is_calmed("requests that are reset", &serving, vec![], |turn| reset(turn).concat()).await;
    assert_eq!(serving.refused(Refusal::ControlFrames), 10);
}

/// Over HTTP/2, a client that reads what it asks for.
async fn client(serving: &Serving) -> hyper::client::conn::http2::SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(serving.plain()).await.unwrap();
    // Credit leaves at once.
    stream.set_nodelay(true).unwrap();
    let stream = TokioIo::new(stream);
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    // With small windows, so that it often gives credit, and as many PINGs as hyper likes.
    builder.initial_stream_window_size(16 * 1024).initial_connection_window_size(1024 * 1024);
    builder.adaptive_window(false).timer(hyper_util::rt::TokioTimer::new());
    builder.keep_alive_interval(Duration::from_millis(5)).keep_alive_while_idle(true);
    let (requests, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    requests
}

#[tokio::test]
async fn ordinary_clients_of_http2_do_not_notice() {
    let large = async || Body::from(vec![b'x'; 8 << 20]);
    let tiny = async || {
        let piece = Bytes::from_static(b"a line of a feed");
        Body::from_stream(futures_util::stream::iter((0..500).map(move |_| Ok::<_, std::io::Error>(piece.clone()))))
    };
    let router =
        crate::kit::router().route("/large", axum::routing::get(large)).route("/tiny", axum::routing::get(tiny));
    let limits = Limits::default().control_frames(20);
    let serving = Serving::start(|builder| builder.limits(limits).http_service(router)).await;
    let mut requests = client(&serving).await;
    for path in ["/large", "/tiny"] {
        let answer = requests.send_request(get_request(path)).await.unwrap();
        let body = soon(path, answer.into_body().collect()).await.unwrap().to_bytes();
        assert_eq!(body.len(), if path == "/large" { 8 << 20 } else { 500 * 16 });
    }
    for _ in 0..40 {
        let all = (0..50).map(|_| requests.send_request(get_request("/")));
        for answer in futures_util::future::join_all(all).await {
            let body = answer.unwrap().into_body().collect().await.unwrap();
            assert_eq!(body.to_bytes(), "hello");
        }
    }
    // A page that gives requests up now and then: they have been answered.
    for _ in 0..500 {
        drop(requests.send_request(get_request("/large")).await.unwrap());
    }
    assert_eq!(requests.send_request(get_request("/")).await.unwrap().status(), 200);
}

fn get_request(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://localhost{path}")).body(Empty::new()).unwrap()
}

/// Does it until the server closes the connection; gives the code.
async fn flooded(serving: &Serving, mut turn: impl AsyncFnMut(&quinn::Connection, &mut quinn::SendStream)) -> u64 {
    let quic = serving.quic().await.unwrap();
    let mut control = quic.open_uni().await.unwrap();
    control.write_all(&[0, 4, 0]).await.unwrap();
    soon("the end of the connection", async {
        tokio::select! {
            closed = quic.closed() => match closed {
                quinn::ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
                other => panic!("{other}"),
            },
            () = async {
                while quic.close_reason().is_none() {
                    turn(&quic, &mut control).await;
                    tokio::task::yield_now().await;
                }
                std::future::pending().await
            } => unreachable!(),
        }
    })
    .await
}

#[tokio::test]
async fn floods_over_http3_end_the_connection() {
    let serving = Serving::start(|builder| builder.limits(Limits::default().control_frames(20))).await;
    let load = h3cast_transport::http3::code::H3_EXCESSIVE_LOAD;
    // Of unknown types on the control stream; one of them is PRIORITY_UPDATE (RFC 9218).
    for frame in [&b"\x21\0"[..], b"\x80\x0f\x07\0\x02\0\0"] {
        let code = flooded(&serving, async |_, control| drop(control.write_all(&frame.repeat(10)).await)).await;
        assert_eq!(code, load);
    }
    // MAX_PUSH_ID, which may only rise.
    let mut id = 0_u16;
    let code = flooded(&serving, async |_, control| {
        id += 1;
        let _ = control.write_all(&[0xd, 4, 0x80, 0, (id >> 8) as u8, id as u8]).await;
    });
    assert_eq!(code.await, load);
    // Streams of unknown types.
    let code = flooded(&serving, async |quic, _| match quic.open_uni().await {
        Ok(mut stream) => drop(stream.write_all(b"\x21").await),
        Err(_) => std::future::pending().await,
    });
    assert_eq!(code.await, load);
    // Requests that are given up before they are complete.
    let code = flooded(&serving, async |quic, _| match quic.open_bi().await {
        Ok((mut send, mut recv)) => {
            let _ = send.write_all(&[1, 9, 0]).await;
            let _ = send.reset(0x10c_u32.into());
            let _ = recv.stop(0x10c_u32.into());
            drop((send, recv));
        }
        Err(_) => std::future::pending().await,
    });
    assert_eq!(code.await, load);
    // Complete requests whose answer, which is there at once, nobody wants (CVE-2023-44487): a GET, and the CONNECT of
    // a session. Their fields are from QPACK's static table, but for the authority and `:protocol`.
    let get = [&[0, 0, 0xd1, 0xd7, 0xc1, 0x50, 9][..], b"localhost"].concat();
    let connect = [&[0, 0, 0xcf, 0xd7, 0xc1, 0x50, 9][..], b"localhost\x27\x02:protocol\x0cwebtransport"].concat();
    for fields in [get, connect] {
        let head = [&[1, fields.len() as u8][..], &fields].concat();
        let code = flooded(&serving, async |quic, _| match quic.open_bi().await {
            Ok((mut send, mut recv)) => {
                // All in one packet.
                let _ = send.write_all(&head).await;
                let _ = send.finish();
                let _ = recv.stop(0x10c_u32.into());
            }
            Err(_) => std::future::pending().await,
        });
        assert_eq!(code.await, load);
    }
    soon("the counts", async {
        while serving.refused(Refusal::ControlFrames) < 7 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// The code with which the server ends a connection.
async fn ended(quic: &quinn::Connection) -> u64 {
    match soon("the end of the connection", quic.closed()).await {
        quinn::ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("{other}"),
    }
}

/// Those that HTTP/3 does not see.
#[tokio::test]
async fn floods_of_quic_itself_end_the_connection() {
    let load = h3cast_transport::http3::code::H3_EXCESSIVE_LOAD;
    // Few: a busy machine sends far less than one frame in a millisecond.
    let serving = Serving::start(|builder| builder.limits(Limits::default().control_frames(10))).await;
    let with = async |set: fn(&mut quinn::TransportConfig)| {
        let mut transport = quinn::TransportConfig::default();
        set(&mut transport);
        serving.trust().quic_with(serving.udp(), transport).await.unwrap()
    };
    // PING.
    let pings = with(|transport| {
        transport.keep_alive_interval(Some(Duration::from_millis(1)));
    })
    .await;
    // MAX_DATA, without anything that needed it.
    let credit = with(|_| {}).await;
    let raising = async {
        for window in 10_000_000_u32.. {
            credit.set_receive_window(window.into());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let (pinged, credited) = tokio::select! {
        both = futures_util::future::join(ended(&pings), ended(&credit)) => both,
        () = raising => unreachable!(),
    };
    assert_eq!((pinged, credited), (load, load));
    assert_eq!(serving.refused(Refusal::ControlFrames), 2);
}

/// As much credit and as many acknowledgements as a client can give for what it takes, and nothing to spare.
#[tokio::test]
async fn credit_for_what_is_received_is_no_flood() {
    let feed = async || {
        Body::from_stream(futures_util::stream::repeat_with(|| {
            Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 16 << 10]))
        }))
    };
    let router = crate::kit::router().route("/feed", axum::routing::get(feed));
    let limits = Limits::default().control_frames(1);
    let serving = Serving::start(|builder| builder.limits(limits).http_service(router)).await;
    let mut transport = quinn::TransportConfig::default();
    // A frame for each eighth of it.
    transport.stream_receive_window((8_u32 << 10).into()).receive_window((16_u32 << 10).into());
    let quic = serving.trust().quic_with(serving.udp(), transport).await.unwrap();
    let (mut send, mut recv) = quic.open_bi().await.unwrap();
    let fields = [&[0, 0, 0xd1, 0xd7][..], b"\x51\x05/feed\x50\x09localhost"].concat();
    send.write_all(&[&[1, fields.len() as u8], &fields[..]].concat()).await.unwrap();
    send.finish().unwrap();
    let (begun, mut taken) = (std::time::Instant::now(), 0);
    // Two looks and more.
    while begun.elapsed() < Duration::from_secs(7) {
        taken += soon("more", recv.read_chunk(1000, true)).await.unwrap().expect("more").bytes.len();
    }
    let sent = quic.stats().frame_tx;
    assert!(sent.max_stream_data > 100, "{sent:?} for {taken} bytes");
    assert!(quic.close_reason().is_none());
}

#[tokio::test]
async fn ordinary_clients_of_http3_do_not_notice() {
    let serving = Serving::start(|builder| builder.limits(Limits::default().control_frames(20))).await;
    let quic = serving.quic().await.unwrap();
    let connection = h3_quinn::Connection::new(quic.clone());
    let (mut driver, mut requests) = soon("HTTP/3", h3::client::new(connection)).await.unwrap();
    let driving = tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
    for turn in 0..1000 {
        let request = Request::get("https://localhost/").body(()).unwrap();
        let mut stream = soon("a request", requests.send_request(request)).await.unwrap();
        stream.finish().await.unwrap();
        assert_eq!(soon("an answer", stream.recv_response()).await.unwrap().status(), 200, "request {turn}");
        // As a page that has seen enough.
        stream.stop_sending(h3::error::Code::H3_REQUEST_CANCELLED);
    }
    drop(driving);
}

#[tokio::test]
async fn without_a_rate_there_is_no_flood() {
    let serving = Serving::start(|builder| builder.limits(Limits::default().control_frames(0))).await;
    let mut h2 = H2::open(serving.plain()).await;
    let pings: Vec<u8> = (0..3000).flat_map(|_| frame(PING, 1, 0, &[0; 8])).collect();
    soon("PINGs", h2.write(&pings)).await.unwrap();
    h2.write(&frame(PING, 0, 0, b"the last")).await.unwrap();
    assert_eq!(h2.until(PING).await.expect("its answer").payload, b"the last");
}
