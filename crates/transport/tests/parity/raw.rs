//! Bytes that no client library sends.

use std::net::SocketAddr;

use bytes::{BufMut, BytesMut};
use futures_util::{StreamExt, stream};
use h3cast_proto::{code, frame, qpack};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    cases::cases,
    peers::{Axum, Ours, in_time},
    router,
};

/// Requests over HTTP/1.1 and 1.0, after which the server closes the connection.
fn requests() -> Vec<(&'static str, String)> {
    let lines = |name, line: &str, rest: &str| (name, format!("{line}\r\nconnection: close\r\n{rest}"));
    let get = |name, target: &str| lines(name, &format!("GET {target} HTTP/1.1\r\nhost: parity.test"), "\r\n");
    let post = |name, rest: &str| lines(name, "POST /seen HTTP/1.1\r\nhost: parity.test", rest);
    let first = |name, line: &str| lines(name, line, "\r\n");
    vec![
        get("an absolute target", "http://other.test:8080/seen?a=b"),
        get("an absolute target of https", "https://other.test/seen"),
        get("an absolute target without a path", "http://other.test"),
        get("an absolute target of another scheme", "ftp://other.test/seen"),
        get("an authority as a target", "other.test:80"),
        get("a target without a slash", "seen"),
        get("a fragment", "/seen#there"),
        get("a space in a target", "/se en"),
        get("bytes in a target", "/path/\u{e9}"),
        get("a control character in a target", "/path/\u{1}"),
        get("a target that is too long", &format!("/{}", "a".repeat(66_000))),
        first("a head that is too large", &format!("GET /seen HTTP/1.1\r\nhost: a\r\nx: {}", "x".repeat(1_500_000))),
        first("too many fields", &format!("GET /seen HTTP/1.1\r\nhost: a\r\n{}", "x: y\r\n".repeat(101))),
        first("OPTIONS *", "OPTIONS * HTTP/1.1\r\nhost: parity.test"),
        first("CONNECT", "CONNECT other.test:443 HTTP/1.1\r\nhost: other.test:443"),
        first("no host", "GET /seen HTTP/1.1"),
        first("an empty host", "GET /seen HTTP/1.1\r\nhost:"),
        first("two hosts", "GET /seen HTTP/1.1\r\nhost: a\r\nhost: b"),
        first("HEAD with a length of 0", "HEAD /seen HTTP/1.1\r\nhost: a\r\ncontent-length: 0"),
        first("a cookie in two fields", "GET /seen HTTP/1.1\r\nhost: a\r\ncookie: a=1\r\ncookie: b=2"),
        first("a field without a colon", "GET /seen HTTP/1.1\r\nhost: a\r\nnothing"),
        first("a space before a colon", "GET /seen HTTP/1.1\r\nhost: a\r\nx : y"),
        first("a folded field", "GET /seen HTTP/1.1\r\nhost: a\r\nx: y\r\n z"),
        first("lines without CR", "GET /seen HTTP/1.1\nhost: a\nx: y"),
        first("empty lines first", "\r\n\r\nGET /seen HTTP/1.1\r\nhost: a"),
        first("a version that is none", "GET /seen HTTP/1.2\r\nhost: a"),
        first("a method that is none", "GE(T /seen HTTP/1.1\r\nhost: a"),
        first("no HTTP", "hello"),
        post("the same length twice", "content-length: 4\r\ncontent-length: 4\r\n\r\nfour"),
        post("two lengths", "content-length: 4\r\ncontent-length: 5\r\n\r\nfour"),
        post("a list of lengths", "content-length: 4, 4\r\n\r\nfour"),
        post("a length that is none", "content-length: +4\r\n\r\nfour"),
        post("a length and chunks", "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n"),
        post("trailers", "transfer-encoding: chunked\r\n\r\n4;ext=1\r\nfour\r\n0\r\nx-sum: 1\r\n\r\n"),
        post("no chunk but the last", "transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        post("a chunk's size that is none", "transfer-encoding: chunked\r\n\r\nfour\r\n0\r\n\r\n"),
        ("HTTP/1.0", "GET /seen HTTP/1.0\r\n\r\n".to_owned()),
        ("HTTP/1.0 with a body", "POST /seen HTTP/1.0\r\ncontent-length: 4\r\n\r\nfour".to_owned()),
        ("a streamed body over HTTP/1.0", "GET /stream HTTP/1.0\r\n\r\n".to_owned()),
        ("trailers over HTTP/1.0", "GET /trailers/none HTTP/1.0\r\n\r\n".to_owned()),
        ("HTTP/1.0 with chunks", "POST /seen HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned()),
        (
            "HTTP/1.0 that is kept alive",
            "GET /seen HTTP/1.0\r\nconnection: keep-alive\r\n\r\nGET /empty HTTP/1.0\r\n\r\n".to_owned(),
        ),
        (
            "a streamed body over HTTP/1.0 that is kept alive",
            "GET /stream HTTP/1.0\r\nconnection: keep-alive\r\n\r\n".to_owned(),
        ),
        ("HTTP/0.9", "GET /seen\r\n\r\n".to_owned()),
    ]
}

/// Where ours differs on purpose.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("a target that is too long", "431: `Limits` has a size of heads, which comes before hyper's of targets"),
    (
        "a streamed body over HTTP/1.0 that is kept alive",
        "no `connection: keep-alive`: the end of the connection is the end of the body, as hyper leaves it",
    ),
];

/// Everything that a server answers, without the time.
async fn answer(address: SocketAddr, name: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = stream.split();
    let mut answer = Vec::new();
    // A server that has seen enough closes with a reset, after which neither goes on.
    let both = async { tokio::join!(write.write_all(request.as_bytes()), read.read_to_end(&mut answer)) };
    let _ = in_time(name, both).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect()
}

#[tokio::test]
async fn http1_is_answered_as_axum_does() {
    let (axum, ours) = (Axum::start(router::router()).await, Ours::start(router::router()).await);
    let (axum, ours) = (axum.address, ours.http);
    let wrong = stream::iter(requests()).map(|(name, request)| async move {
        let (expected, got) = tokio::join!(answer(axum, name, &request), answer(ours, name, &request));
        let differs = EXCEPTIONS.iter().any(|(exception, _)| *exception == name);
        ((expected != got) != differs).then(|| format!("{name}:\n axum {expected:?}\n ours {got:?}"))
    });
    let wrong: Vec<_> = wrong.buffer_unordered(16).filter_map(std::future::ready).collect().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A HEADERS frame of fields without compression (RFC 9204 §4.5.6).
fn headers(fields: &[(&str, &[u8])]) -> BytesMut {
    let mut section = BytesMut::from(&[0, 0][..]);
    let mut text = |first: u8, bits: u32, text: &[u8]| {
        let most = (1 << bits) - 1;
        if text.len() < most {
            section.put_u8(first | text.len() as u8);
        } else {
            section.put_u8(first | most as u8);
            let mut left = text.len() - most;
            while left >= 128 {
                section.put_u8(left as u8 | 128);
                left >>= 7;
            }
            section.put_u8(left as u8);
        }
        section.extend_from_slice(text);
    };
    for (name, value) in fields {
        text(0x20, 3, name.as_bytes());
        text(0, 7, value);
    }
    let mut head = BytesMut::new();
    frame::put_header(frame::HEADERS, section.len(), &mut head);
    head.unsplit(section);
    head
}

/// The status of the answer to a request of these bytes, or the code of its reset.
async fn status(connection: &quinn::Connection, request: &[u8]) -> Result<String, u64> {
    let (mut send, mut recv) = in_time("a stream", connection.open_bi()).await.unwrap();
    // The server may have seen enough before it has all.
    let sending = async {
        let _ = send.write_all(request).await;
        let _ = send.finish();
    };
    let (answer, ()) = in_time("an answer", async { tokio::join!(recv.read_to_end(10_000), sending) }).await;
    match answer {
        Ok(answer) => {
            let (ty, len, size) = frame::parse_header(&answer).unwrap();
            assert_eq!(ty, frame::HEADERS);
            let fields = qpack::decode(&answer[size..size + len as usize], 10_000).unwrap();
            let status = fields.iter().find(|field| &field.name[..] == b":status").unwrap();
            Ok(String::from_utf8(status.value.to_vec()).unwrap())
        }
        Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => Err(code.into_inner()),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn http3_answers_or_resets_one_stream() {
    let ours = Ours::start(router::router()).await;
    let requests = ours.h3().await;
    let text = cases().into_iter().next().unwrap();
    // Its answer shows that SETTINGS have passed.
    assert_eq!(requests.ask(&text).await.status, 200);
    let ask = async |path: &[u8], more: &[(&str, &[u8])]| {
        let named: [(&str, &[u8]); 4] =
            [(":method", b"GET"), (":scheme", b"https"), (":authority", b"parity.test"), (":path", path)];
        status(&requests.connection, &headers(&[&named[..], more].concat())).await
    };
    assert_eq!(ask(b"/", &[]).await.as_deref(), Ok("200"));
    // Of a head, and of a path, that are too large the client is to know what was wrong.
    for len in [17_000, 66_000, 1_000_000] {
        let path = [b"/", &b"a".repeat(len)[..]].concat();
        assert_eq!(ask(&path, &[]).await.as_deref(), Ok("431"), "{len}");
        assert_eq!(ask(b"/", &[("x", &path)]).await.as_deref(), Ok("431"), "{len}");
    }
    for path in ["", "seen", "*", "/a b", "/\u{1}", "/\u{7f}"] {
        assert_eq!(ask(path.as_bytes(), &[]).await, Err(code::H3_MESSAGE_ERROR), "{path}");
    }
    assert_eq!(ask(b"/\xff", &[]).await, Err(code::H3_MESSAGE_ERROR));
    for (name, value) in [("host", "other.test"), ("content-length", "4, 4"), ("te", "gzip")] {
        assert_eq!(ask(b"/", &[(name, value.as_bytes())]).await, Err(code::H3_MESSAGE_ERROR), "{name}");
    }
    let twice = ("content-length", &b"0"[..]);
    assert_eq!(ask(b"/", &[twice, twice]).await.as_deref(), Ok("200"));
    assert_eq!(ask(b"/", &[twice, ("content-length", b"1")]).await, Err(code::H3_MESSAGE_ERROR));
    // All of that on one connection.
    assert_eq!(requests.ask(&text).await.status, 200);
}
