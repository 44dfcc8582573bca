//! Taking over the stream of a request.

use axum::{Router, routing::get};
use futures_util::FutureExt;
use h3cast_transport::{TakenStream, Takeover, client::ClientError};
use http::Response;
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, mpsc},
};

use crate::common::{TestServer, soon};

/// A server whose handler gives each taken stream to the test, and holds the request until told.
async fn server() -> (TestServer, mpsc::UnboundedReceiver<TakenStream>) {
    let (tx, rx) = mpsc::unbounded_channel();
    let handler = move |takeover: Takeover| {
        let tx = tx.clone();
        async move {
            let head = Response::builder().header("x-taken", "yes").body(()).unwrap();
            takeover.respond(head, move |stream| async move {
                tx.send(stream).unwrap();
                std::future::pending().await
            })
        }
    };
    let router = Router::new().route("/", get(handler));
    (TestServer::start(|builder, _| builder.http_service(router)).await, rx)
}

#[tokio::test]
async fn what_is_written_arrives_at_once_and_ends_with_finish() {
    let (server, mut taken) = server().await;
    let connection = server.connect().await;
    let mut response = soon("the head", connection.get(&server.uri("/"))).await.unwrap();
    assert_eq!(response.headers["x-taken"], "yes");
    assert!(!response.headers.contains_key("content-length"), "nobody knows how long it will be");
    let mut stream = soon("the stream", taken.recv()).await.unwrap();
    for text in ["one", "two", "three"] {
        stream.write_all(text.as_bytes()).await.unwrap();
        assert_eq!(soon("the chunk", response.body.next()).await.unwrap().unwrap(), text);
    }
    stream.write_bytes("four".into()).await.unwrap();
    assert_eq!(soon("the chunk", response.body.next()).await.unwrap().unwrap(), "four");
    let finish = tokio::spawn(stream.finish());
    assert_eq!(soon("the end", response.body.next()).await.unwrap(), None);
    soon("the acknowledgment", finish).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_large_write_is_whole() {
    let (server, mut taken) = server().await;
    let connection = server.connect().await;
    let mut response = soon("the head", connection.get(&server.uri("/"))).await.unwrap();
    let mut stream = soon("the stream", taken.recv()).await.unwrap();
    // More than the flow-control windows, so that writes are cut everywhere.
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|i| (i % 251) as u8).collect();
    let expected = bytes.clone();
    let write = tokio::spawn(async move {
        for piece in bytes.chunks(777_777) {
            stream.write_all(piece).await.unwrap();
        }
        stream.finish().await.unwrap();
    });
    let mut read = Vec::new();
    while let Some(bytes) = soon("more", response.body.next()).await.unwrap() {
        read.extend_from_slice(&bytes);
    }
    assert!(read == expected);
    soon("the end", write).await.unwrap();
}

/// As in a `select!` of a handler that has something else to do.
#[tokio::test]
async fn a_response_whose_write_was_given_up_never_looks_whole() {
    let (server, mut taken) = server().await;
    let connection = server.connect().await;
    for way in 0..4 {
        let mut response = soon("the head", connection.get(&server.uri("/"))).await.unwrap();
        let mut stream = soon("the stream", taken.recv()).await.unwrap();
        // More than a client gives credit for.
        let large = bytes::Bytes::from(vec![0; 8 << 20]);
        assert!(stream.write_bytes(large).now_or_never().is_none());
        match way {
            0 => drop(soon("the end", stream.finish()).await.unwrap_err()),
            1 => {
                soon("a write", stream.write_bytes("more".into())).await.unwrap_err();
                drop(stream);
            }
            2 => {
                soon("a write", stream.write_all(b"more")).await.unwrap_err();
                drop(stream);
            }
            _ => drop(stream.into_quic().unwrap_err()),
        }
        let rest = async {
            while response.body.next().await?.is_some() {}
            Ok::<_, ClientError>(())
        };
        assert!(matches!(soon("the reset", rest).await, Err(ClientError::Reset(_))), "{way}");
    }
}

/// A body that is read again fails again, and costs nothing else on the connection.
#[tokio::test]
async fn a_cut_response_stays_cut() {
    let (server, mut taken) = server().await;
    let connection = server.connect().await;
    let mut response = soon("the head", connection.get(&server.uri("/"))).await.unwrap();
    let mut stream = soon("the stream", taken.recv()).await.unwrap();
    stream.write_bytes("one".into()).await.unwrap();
    assert_eq!(soon("the chunk", response.body.next()).await.unwrap().unwrap(), "one");
    // It ends within the header of a frame.
    let abort = tokio::spawn(stream.abort());
    assert!(matches!(soon("the reset", response.body.next()).await, Err(ClientError::Reset(_))));
    for _ in 0..3 {
        soon("an error", response.body.next()).await.unwrap_err();
    }
    soon("the abort", abort).await.unwrap();
    soon("another head", connection.get(&server.uri("/"))).await.unwrap();
}

#[tokio::test]
async fn dropping_it_unfinished_shows_a_cut_response() {
    let (server, mut taken) = server().await;
    let connection = server.connect().await;
    let mut response = soon("the head", connection.get(&server.uri("/"))).await.unwrap();
    let mut stream = soon("the stream", taken.recv()).await.unwrap();
    stream.write_all(b"half").await.unwrap();
    assert_eq!(soon("the chunk", response.body.next()).await.unwrap().unwrap(), "half");
    drop(stream);
    let cut = soon("the cut", response.body.next()).await.unwrap_err();
    assert!(matches!(cut, ClientError::Reset(0x102)), "{cut}");
}

#[tokio::test]
async fn aborting_it_lets_everything_arrive_first() {
    let (server, mut taken) = server().await;
    let connection = server.connect().await;
    let mut response = soon("the head", connection.get(&server.uri("/"))).await.unwrap();
    let mut stream = soon("the stream", taken.recv()).await.unwrap();
    // More than the flow-control window, so that it is also waited for.
    let abort = tokio::spawn(async move {
        stream.write_bytes(vec![7; 3_000_000].into()).await.unwrap();
        stream.abort().await;
    });
    let mut read = 0;
    let cut = loop {
        match soon("more", response.body.next()).await {
            Ok(Some(bytes)) => read += bytes.len(),
            Ok(None) => panic!("it looks whole"),
            Err(cut) => break cut,
        }
    };
    assert!(matches!(cut, ClientError::Reset(0x102)), "{cut}");
    assert_eq!(read, 3_000_000);
    soon("the abort", abort).await.unwrap();
}

#[tokio::test]
async fn the_raw_stream_speaks_http3_frames() {
    let (server, mut taken) = server().await;
    let connection = server.connect().await;
    let mut response = soon("the head", connection.get(&server.uri("/"))).await.unwrap();
    let mut stream = soon("the stream", taken.recv()).await.unwrap().into_quic().unwrap();
    stream.write_all(b"\x00\x05hello").await.unwrap();
    assert_eq!(soon("the chunk", response.body.next()).await.unwrap().unwrap(), "hello");
    stream.finish().unwrap();
    assert_eq!(soon("the end", response.body.next()).await.unwrap(), None);
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_work() {
    let ended = Arc::new(Notify::new());
    struct Tell(Arc<Notify>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let tell = ended.clone();
    let handler = move |takeover: Takeover| {
        let tell = Tell(tell.clone());
        async move {
            takeover.respond(Response::new(()), move |stream| async move {
                let _held = (stream, tell);
                std::future::pending().await
            })
        }
    };
    let router = Router::new().route("/", get(handler));
    let server = TestServer::start(|builder, _| builder.http_service(router)).await;
    let connection = server.connect().await;
    let response = soon("the head", connection.get(&server.uri("/"))).await.unwrap();
    drop(response);
    soon("the work is dropped", ended.notified()).await;
}

#[tokio::test]
async fn a_head_request_has_no_body_to_write() {
    let (server, mut taken) = server().await;
    let connection = server.connect().await;
    let request = http::Request::head(server.uri("/")).body(()).unwrap();
    let mut response = soon("the head", connection.request(request)).await.unwrap();
    assert_eq!(response.headers["x-taken"], "yes");
    assert_eq!(soon("the end", response.body.next()).await.unwrap(), None);
    assert!(taken.try_recv().is_err());
}

#[tokio::test]
async fn over_tcp_there_is_none() {
    let (server, _taken) = server().await;
    let mut stream = TcpStream::connect(("127.0.0.1", server.http_port())).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 505 "), "{answer}");
    assert!(answer.contains("only an HTTP/3 request has a stream to take over"), "{answer}");
}

/// Work that panics breaks its own response off.
#[tokio::test]
async fn a_panic_ends_one_request_and_no_other() {
    let taken = |work: fn(TakenStream) -> futures_util::future::BoxFuture<'static, ()>| {
        get(async move |takeover: Takeover| takeover.respond(Response::new(()), work))
    };
    let router = Router::new().route("/panic", taken(|_stream| Box::pin(async { panic!("as it is meant to") }))).route(
        "/going",
        taken(|mut stream| {
            Box::pin(async move {
                while stream.write_bytes("more\n".into()).await.is_ok() {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            })
        }),
    );
    let server = TestServer::start(|builder, _| builder.http_service(router)).await;
    let connection = server.connect().await;
    let mut going = soon("the head", connection.get(&server.uri("/going"))).await.unwrap();
    for _ in 0..100 {
        // The reset may come before the head does.
        let broken = match soon("an answer", connection.get(&server.uri("/panic"))).await {
            Ok(mut response) => soon("its end", response.body.next()).await.map(drop),
            Err(error) => Err(error),
        };
        assert!(matches!(broken, Err(ClientError::Reset(_))), "{broken:?}");
        assert!(soon("more", going.body.next()).await.unwrap().is_some());
    }
}

/// A server whose handler gives each taken stream to the test, and says that it will be 6 bytes long.
async fn of_six_bytes() -> (TestServer, mpsc::UnboundedReceiver<TakenStream>) {
    let (tx, rx) = mpsc::unbounded_channel();
    let handler = move |takeover: Takeover| {
        let tx = tx.clone();
        async move {
            let head = Response::builder().header("content-length", "6").body(()).unwrap();
            takeover.respond(head, move |stream| async move {
                tx.send(stream).unwrap();
                std::future::pending().await
            })
        }
    };
    let router = Router::new().route("/", get(handler));
    (TestServer::start(|builder, _| builder.http_service(router)).await, rx)
}

#[tokio::test]
async fn no_more_and_no_less_is_written_than_the_head_says() {
    let (server, mut taken) = of_six_bytes().await;
    let connection = server.connect().await;
    for way in ["short", "write", "write_bytes", "write_frames", "raw", "whole"] {
        let mut response = soon("the head", connection.get(&server.uri("/"))).await.unwrap();
        let mut stream = soon("the stream", taken.recv()).await.unwrap();
        stream.write_frames(&mut ["\x00\x01a\x00\x02".into(), "bc".into()]).await.unwrap();
        let failed = match way {
            "short" => {
                let failed = stream.finish().await;
                check_cut(way, failed, response).await;
                continue;
            }
            "write" => stream.write_all(b"defg").await,
            "write_bytes" => stream.write_bytes("defg".into()).await,
            "write_frames" => stream.write_frames(&mut ["\x00\x01d\x00\x03".into(), "efg".into()]).await,
            "raw" => {
                drop(stream.into_quic().unwrap_err());
                continue;
            }
            _ => {
                stream.write_all(b"def").await.unwrap();
                let finish = tokio::spawn(stream.finish());
                let mut body = Vec::new();
                while let Some(bytes) = soon("more", response.body.next()).await.unwrap() {
                    body.extend_from_slice(&bytes);
                }
                assert_eq!(body, b"abcdef");
                soon("the end", finish).await.unwrap().unwrap();
                continue;
            }
        };
        drop(stream);
        check_cut(way, failed, response).await;
    }
}

/// What was written was refused, and the response shows that it was cut.
async fn check_cut(way: &str, failed: std::io::Result<()>, mut response: h3cast_transport::client::ClientResponse) {
    let failed = failed.unwrap_err();
    assert_eq!(failed.kind(), std::io::ErrorKind::InvalidInput, "{way}: {failed}");
    let mut received = 0;
    let cut = loop {
        match soon("the cut", response.body.next()).await {
            Ok(Some(bytes)) => received += bytes.len(),
            Ok(None) => panic!("{way}: it looks whole"),
            Err(error) => break error,
        }
        assert!(received <= 3, "{way}");
    };
    assert!(matches!(cut, ClientError::Reset(0x102)), "{way}: {cut}");
}
