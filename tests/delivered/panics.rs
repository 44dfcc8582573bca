//! No task dies unnoticed.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use h3cast::{
    feed::{End, Feed, FeedError, Lag},
    format::frames::{Frame, FrameDecoder},
};
use http::HeaderMap;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::{
    common::{TestServer, soon},
    program::{Program, Serving, command, text},
};

/// What a viewer over either transport gets as frames: the chunks, and the end.
async fn frames(server: &TestServer, webtransport: bool) -> (Vec<Bytes>, Option<End>) {
    let connection = server.connect().await;
    let uri = server.uri("/stream?format=frames&from=start");
    let mut decoder = FrameDecoder::new(1 << 20);
    if webtransport {
        let session = soon("the session", connection.webtransport(&uri, HeaderMap::new(), &[])).await.unwrap();
        let mut stream = soon("the stream", session.accept_uni()).await.unwrap();
        while let Ok(Some(bytes)) = soon("more", stream.read_bytes(usize::MAX)).await {
            decoder.push(&bytes);
        }
    } else {
        let mut body = soon("the head", connection.get(&uri)).await.unwrap().body;
        while let Ok(Some(bytes)) = soon("more", body.next()).await {
            decoder.push(&bytes);
        }
    }
    let (mut chunks, mut end) = (Vec::new(), None);
    while let Some(frame) = decoder.pop().unwrap() {
        match frame {
            Frame::Chunk { bytes, .. } => chunks.push(bytes),
            Frame::End(how) => end = Some(how),
            _ => {}
        }
    }
    (chunks, end)
}

/// A raw answer over HTTP/1.1, to the end of its connection.
async fn plain(server: &TestServer) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", server.http_port())).await.unwrap();
    stream.write_all(b"GET /stream?from=start HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let _ = soon("the end", stream.read_to_string(&mut answer)).await;
    answer
}

fn failed(reason: &str) -> Option<End> {
    Some(End::Failed(FeedError(reason.into())))
}

#[tokio::test]
async fn a_panic_of_a_viewers_own_source_is_a_failure_on_every_transport() {
    let feed = Feed::on_demand("default", || {
        stream::iter(0..).map(|number| match number {
            0..2 => Ok(Bytes::from(format!("line {number}\n"))),
            _ => panic!("a test's source panics"),
        })
    });
    let server = TestServer::feed(feed).await;
    for webtransport in [false, true] {
        let (chunks, end) = frames(&server, webtransport).await;
        assert_eq!(chunks, ["line 0\n", "line 1\n"]);
        assert_eq!(end, failed("the feed's source panicked"));
    }
    // The last chunk of HTTP/1.1 is missing.
    let answer = plain(&server).await;
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");

    let feed = Feed::on_demand("default", || -> stream::Empty<Result<Bytes, FeedError>> { panic!("not opened") });
    let server = TestServer::feed(feed).await;
    assert_eq!(frames(&server, false).await, (vec![], failed("the feed's source panicked")));
}

#[tokio::test]
async fn a_source_of_a_live_feed_that_panics_or_vanishes_is_a_failure() {
    for vanishes in [false, true] {
        let (feed, publisher) = Feed::live("default", 1 << 20, Lag::Skip);
        let server = TestServer::feed(feed.clone()).await;
        let source = tokio::spawn(async move {
            publisher.publish("line 0\n".into()).await.unwrap();
            publisher.publish("line 1\n".into()).await.unwrap();
            if vanishes {
                std::future::pending::<()>().await;
            }
            panic!("a test's source panics");
        });
        if vanishes {
            // It has published by then: it does not wait for anything before.
            tokio::task::yield_now().await;
            source.abort();
        }
        assert!(source.await.is_err());
        let reason = match vanishes {
            false => "the feed's source panicked",
            true => "the feed's source went away without ending the feed",
        };
        for webtransport in [false, true] {
            let (chunks, end) = frames(&server, webtransport).await;
            assert_eq!(chunks, ["line 0\n", "line 1\n"]);
            assert_eq!(end, failed(reason));
        }
        let answer = plain(&server).await;
        assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
        assert_eq!(feed.status().end, failed(reason));
    }
}

#[tokio::test]
async fn an_end_that_was_given_before_stays() {
    let (feed, publisher) = Feed::live("default", 1 << 20, Lag::Skip);
    let source = tokio::spawn(async move {
        publisher.end(End::Clean);
        panic!("a test's source panics after its end");
    });
    assert!(source.await.is_err());
    assert_eq!(feed.status().end, Some(End::Clean));
}

/// A server in which something goes wrong once, at that place.
async fn faulty(dir: &Path, fault: &str, http: &str, args: &[&str]) -> Serving {
    let args = [&["serve", "--listen", "127.0.0.1:0", "--http", http], args].concat();
    let mut serving = command(dir, &args);
    serving.env("H3CAST_FAULT", fault);
    Serving::of(Program::of(serving)).await
}

/// Runs `h3cast get`: its output and its exit code.
async fn get(dir: &Path, serving: &Serving, path: &str, args: &[&str]) -> (String, String, Option<i32>) {
    let url = format!("https://127.0.0.1:{}{path}", serving.port);
    let args = [&["get", &url, "--cacert", "certs/cert.pem"], args].concat();
    let output = soon("get ends", command(dir, &args).output()).await.unwrap();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

#[tokio::test]
#[cfg(debug_assertions)]
async fn a_feed_of_the_program_whose_source_panics_has_failed() {
    let dir = tempfile::tempdir().unwrap();
    let mut serving =
        faulty(dir.path(), "source=panic", "off", &["exec:echo one; echo two; sleep 60", "other=demo"]).await;
    serving.program.told("the source of the feed `default` panicked").await;
    for args in [&[][..], &["--webtransport"]] {
        let (_, err, code) = get(dir.path(), &serving, "/stream?from=start", args).await;
        assert_eq!(code, Some(1), "{err}");
    }
    // Others are not concerned.
    let (out, err, code) = get(dir.path(), &serving, "/stream/other", &[]).await;
    assert_eq!((out.lines().count(), code), (10, Some(0)), "{err}");
    serving.program.signal("TERM");
    assert_eq!(serving.program.end().await.2, Some(0));
}

#[tokio::test]
#[cfg(debug_assertions)]
async fn a_listener_that_panics_is_restarted_and_its_connections_stay() {
    for (fault, listener, http) in [
        ("quic-accept=panic@2", "the QUIC listener at", "off"),
        ("http-accept=panic@2", "the plain HTTP listener at", "127.0.0.1:0"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut serving = faulty(dir.path(), fault, http, &["-"]).await;
        let mut source = serving.program.stdin.take().unwrap();
        let mut first = Lines::view(dir.path(), serving.port, http).await;
        first.until(&mut source, "one\n").await;
        // The second connection is lost with the panic, the third is served.
        let second = Lines::view(dir.path(), serving.port, http).await;
        serving.program.told(listener).await;
        drop(second);
        let mut third = Lines::view(dir.path(), serving.port, http).await;
        third.until(&mut source, "two\n").await;
        first.until(&mut source, "two\n").await;
        serving.program.signal("TERM");
        assert_eq!(serving.program.end().await.2, Some(0));
    }
}

/// What a viewer gets, over QUIC or plain HTTP.
enum Lines {
    Get(Box<Program>),
    Http(BufReader<TcpStream>),
}

impl Lines {
    async fn view(dir: &Path, port: u16, http: &str) -> Self {
        if http == "off" {
            let url = format!("https://127.0.0.1:{port}/stream");
            return Self::Get(Box::new(Program::start(dir, &["get", &url, "--cacert", "certs/cert.pem"])));
        }
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(b"GET /stream HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        Self::Http(BufReader::new(stream))
    }

    /// Writes the line to the source until it is here: who views a pipe begins with what comes next.
    async fn until(&mut self, source: &mut (impl AsyncWriteExt + Unpin), line: &str) {
        let mut got = String::new();
        while got != line {
            got.clear();
            let read = async {
                match self {
                    Self::Get(program) => program.stdout.read_line(&mut got).await.unwrap(),
                    Self::Http(stream) => stream.read_line(&mut got).await.unwrap(),
                }
            };
            let written = async {
                loop {
                    source.write_all(line.as_bytes()).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            let read = soon("a line", async {
                tokio::select! {
                    read = read => read,
                    () = written => unreachable!(),
                }
            });
            assert!(read.await > 0, "the end, and not {line}");
        }
    }
}

#[tokio::test]
#[cfg(debug_assertions)]
async fn what_renews_the_certificate_is_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let mut serving = faulty(dir.path(), "certificate=panic", "off", &["demo"]).await;
    serving.program.told("the task that renews the certificate panicked and is restarted").await;
    serving.program.signal("TERM");
    assert_eq!(serving.program.end().await.2, Some(0));
}

#[tokio::test]
#[cfg(debug_assertions)]
async fn a_part_that_cannot_be_restarted_ends_the_process_with_1() {
    // The task in quinn that reads the socket ends with an error, or panics under a lock that others need.
    for (fault, reason) in [("udp=error", "the QUIC listener at"), ("udp=panic", "panicked")] {
        let dir = tempfile::tempdir().unwrap();
        let args = ["serve", "--listen", "localhost:0", "--http", "off", "exec:exec sleep 60"];
        let mut serving = command(dir.path(), &args);
        serving.env("H3CAST_FAULT", fault);
        let (_, err, code) = Program::of(serving).end().await;
        assert_eq!(code, Some(1), "{fault}: {err}");
        assert!(err.contains(reason), "{fault}: {err}");
    }
}
