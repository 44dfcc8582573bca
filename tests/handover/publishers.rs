//! What publishers of the old server are told, and which of them continue.

use std::process::Stdio;

use h3cast::{
    chunk::Cursor,
    client::{
        Published, Viewer,
        viewer::{Event, Transport},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::process::{Place, Process, get, soon};

/// Reads a feed up to so many bytes.
async fn read(viewer: &mut Viewer, bytes: &mut Vec<u8>, length: usize) -> Cursor {
    soon(&format!("{length} bytes"), async {
        loop {
            match viewer.next().await.unwrap() {
                Some(Event::Chunk { bytes: more, cursor, .. }) => {
                    bytes.extend_from_slice(&more);
                    if bytes.len() >= length {
                        return cursor;
                    }
                }
                Some(Event::Opened { .. } | Event::Lost { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    })
    .await
}

fn viewer(place: &Place) -> Viewer {
    Viewer::new(&place.uri("/stream?from=start"), place.trust()).unwrap().transport(Transport::Get)
}

/// Publishes as `curl -T -` does, over HTTP/1.1 on plain TCP.
async fn upload(place: &Place, headers: &str, piece: &str) -> TcpStream {
    let connected = TcpStream::connect(("127.0.0.1", place.http_port));
    let mut stream = soon("a connection", connected).await.unwrap();
    let host = format!("localhost:{}", place.http_port);
    let head = format!("PUT /stream HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn one_that_does_not_come_back_is_told_how_much_was_taken() {
    let (place, mut first) = Process::first(&["publish"]).await;
    let (mut viewer, mut seen) = (viewer(&place), Vec::new());
    let plain = upload(&place, "", "plain").await;
    let of_plain = read(&mut viewer, &mut seen, 5).await;
    let keyed = upload(&place, "Idempotency-Key: k\r\n", "keyed").await;
    let of_keyed = read(&mut viewer, &mut seen, 10).await;
    let mut second = place.next(&["publish"]);
    second.ready().await;
    for (mut stream, last) in [(plain, of_plain), (keyed, of_keyed)] {
        let mut answer = String::new();
        // It keeps sending, as it does not know yet.
        let _ = stream.write_all(b"4\r\nmore\r\n").await;
        let _ = soon("the answer", stream.read_to_string(&mut answer)).await;
        let (head, problem) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert!(head.to_ascii_lowercase().contains("\r\nretry-after: 1"), "{head}");
        let problem: serde_json::Value = serde_json::from_str(problem).unwrap();
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("another server is taking over from this one"), "{detail}");
        assert!(detail.contains(&format!("5 bytes were published, the last of them as {last}")), "{detail}");
        let published: Published = serde_json::from_value(problem["published"].clone()).unwrap();
        assert_eq!((published.bytes, published.last), (5, Some(last.to_string())));
    }
    // What it was told is true: nothing more is there.
    crate::process::publish(&place, "end").await;
    read(&mut viewer, &mut seen, 14).await;
    assert_eq!(String::from_utf8(seen).unwrap(), "plainkeyedend\n");
    first.ended(0).await;
    drop(viewer);
    second.stop().await;
}

#[tokio::test]
async fn a_server_that_stops_says_so_to_publishers() {
    let (place, mut first) = Process::first(&["publish"]).await;
    let (mut viewer, mut seen) = (viewer(&place), Vec::new());
    let mut upload = upload(&place, "", "plain").await;
    read(&mut viewer, &mut seen, 5).await;
    first.terminate();
    let mut answer = String::new();
    let _ = soon("the answer", upload.read_to_string(&mut answer)).await;
    assert!(answer.contains("the server is stopping: 5 bytes were published"), "{answer}");
    drop((upload, viewer));
    first.ended(0).await;
}

/// `h3cast publish --webtransport`, and where it reads from.
fn over_webtransport(place: &Place) -> (tokio::process::Child, tokio::process::ChildStdin) {
    let mut publish = tokio::process::Command::new(env!("CARGO_BIN_EXE_h3cast"))
        .args(["publish", "--webtransport", "--json", "--cacert"])
        .arg(place.folder().join("certs/cert.pem"))
        .arg(place.uri("/stream").to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let stdin = publish.stdin.take().unwrap();
    (publish, stdin)
}

/// A client over WebTransport, which has no key: it continues by what it is told.
#[tokio::test]
async fn one_over_webtransport_comes_back_and_continues() {
    const PIECES: usize = 200;
    let piece = |number: usize| format!("{number} {}\n", "x".repeat(number * 37 % 500));
    let whole: String = (0..PIECES).map(piece).collect();
    let (place, mut first) = Process::first(&["publish"]).await;
    let (mut viewer, mut seen) = (viewer(&place), Vec::new());
    let (publish, mut stdin) = over_webtransport(&place);
    let mut length = 0;
    for number in 0..50 {
        let piece = piece(number);
        length += piece.len();
        soon("it is read", stdin.write_all(piece.as_bytes())).await.unwrap();
    }
    read(&mut viewer, &mut seen, length).await;
    // What is published while the new server has the feeds, and has not said so, has to wait.
    let mut second = place.stopped_at("take-over", &["publish"]).await;
    for number in 50..PIECES {
        soon("it is read", stdin.write_all(piece(number).as_bytes())).await.unwrap();
    }
    second.go_on();
    second.ready().await;
    drop(stdin);
    let ended = soon("it is published", publish.wait_with_output()).await.unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success(), "{told}");
    assert!(told.contains("another server is taking over"), "{told}");
    let published: Published = serde_json::from_slice(&ended.stdout).unwrap();
    let last = read(&mut viewer, &mut seen, whole.len()).await;
    assert_eq!(String::from_utf8(seen).unwrap(), whole);
    assert_eq!((published.bytes as usize, published.last), (whole.len(), Some(last.to_string())));
    assert_eq!(published.chunks, last.seq + 1);
    first.ended(0).await;
    drop(viewer);
    second.stop().await;
}

/// Its session ends while there is nothing to publish, so nothing is in doubt.
#[tokio::test]
async fn one_over_webtransport_waits_for_input_through_two_handovers() {
    let (place, mut first) = Process::first(&["publish"]).await;
    let (mut viewer, mut seen) = (viewer(&place), Vec::new());
    let (publish, mut stdin) = over_webtransport(&place);
    soon("it is read", stdin.write_all(b"one\n")).await.unwrap();
    read(&mut viewer, &mut seen, 4).await;
    let mut second = place.next(&["publish"]);
    second.ready().await;
    first.ended(0).await;
    // It has come back, and has opened no stream.
    let is_back = async { while !get(&place, "/metrics").await.contains("\nh3cast_sessions 1\n") {} };
    soon("its session", is_back).await;
    let mut third = place.next(&["publish"]);
    third.ready().await;
    second.ended(0).await;
    soon("it is read", stdin.write_all(b"two\n")).await.unwrap();
    drop(stdin);
    let ended = soon("it is published", publish.wait_with_output()).await.unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success(), "{told}");
    read(&mut viewer, &mut seen, 8).await;
    assert_eq!(String::from_utf8(seen).unwrap(), "one\ntwo\n");
    drop(viewer);
    third.stop().await;
}

/// Otherwise viewers of the old server would have chunks that the new one does not, or has with other bytes.
#[tokio::test]
async fn nothing_is_published_while_the_new_server_has_the_feeds() {
    let (place, first) = Process::first(&["publish"]).await;
    let (mut viewer, mut seen) = (viewer(&place), Vec::new());
    let mut upload = upload(&place, "", "plain").await;
    read(&mut viewer, &mut seen, 5).await;
    let second = place.stopped_at("take-over", &["publish"]).await;
    upload.write_all(b"4\r\nmore\r\n").await.unwrap();
    // So many requests later the old server would have published it. It does after 10 s without an answer.
    for _ in 0..10 {
        let metrics = get(&place, "/metrics").await;
        assert!(metrics.contains("h3cast_feed_chunks_total{feed=\"default\"} 1\n"), "{metrics}");
    }
    drop(second);
    // The new server has failed: it is published where it was sent.
    read(&mut viewer, &mut seen, 9).await;
    assert_eq!(String::from_utf8(seen).unwrap(), "plainmore");
    drop((viewer, upload));
    first.stop().await;
}
