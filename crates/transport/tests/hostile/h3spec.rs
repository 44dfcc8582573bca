//! The cases of h3spec (<https://github.com/kazu-yamamoto/h3spec>) for servers, and their
//! neighbours, each with the code that RFC 9114, RFC 9204 and RFC 9297 name.

use axum::{Router, body::Bytes, routing::post};
use h3cast_transport::http3::code::*;

use crate::common::{TestServer, raw::*, soon};

/// A server that reads the bodies of requests, and takes every session.
async fn server() -> TestServer {
    let router = Router::new()
        .route("/", post(|body: Bytes| async move { body.len().to_string() }).get(|| async { "hello" }))
        .route("/healthz", axum::routing::get(|| async { "ok" }));
    TestServer::start(|builder, _| {
        builder.http_service(router).webtransport_fallback(
            |request: h3cast_transport::webtransport::SessionRequest| async {
                if let Ok(session) = request.accept().await {
                    session.closed().await;
                }
            },
        )
    })
    .await
}

/// What the bytes of a control stream, behind its type, end the connection with.
async fn control(server: &TestServer, bytes: &[u8]) -> u64 {
    let raw = Raw::to(server).await;
    let _stream = raw.uni(&[varint(CONTROL), bytes.to_vec()].concat()).await;
    raw.closed().await
}

async fn after_settings(server: &TestServer, frames: &[(u64, &[u8])]) -> u64 {
    let frames: Vec<_> = frames.iter().map(|(ty, payload)| frame(*ty, payload)).collect();
    control(server, &[frame(SETTINGS, &[]), frames.concat()].concat()).await
}

#[tokio::test]
async fn the_control_stream() {
    let server = &server().await;
    // RFC 9114 §6.2.1: SETTINGS come first.
    for ty in [DATA, HEADERS, GOAWAY, MAX_PUSH_ID, UNKNOWN] {
        assert_eq!(control(server, &frame(ty, &[0])).await, H3_MISSING_SETTINGS, "{ty:#x}");
    }
    // §7.2: these never come there, nor SETTINGS a second time.
    for ty in [DATA, HEADERS, SETTINGS, PUSH_PROMISE, 0x2, 0x6, 0x8, 0x9] {
        for payload in [&[][..], &[0, 0]] {
            assert_eq!(after_settings(server, &[(ty, payload)]).await, H3_FRAME_UNEXPECTED, "{ty:#x}");
        }
    }
    // §7.2.4: settings of HTTP/2, twice the same, values that cannot be, and half of one.
    for id in [0x0, 0x2, 0x3, 0x4, 0x5] {
        assert_eq!(control(server, &frame(SETTINGS, &[id, 0])).await, H3_SETTINGS_ERROR, "{id:#x}");
    }
    assert_eq!(control(server, &frame(SETTINGS, &[0x6, 9, 0x6, 9])).await, H3_SETTINGS_ERROR);
    assert_eq!(control(server, &frame(SETTINGS, &[0x8, 2])).await, H3_SETTINGS_ERROR);
    assert_eq!(control(server, &frame(SETTINGS, &[0x33, 2])).await, H3_SETTINGS_ERROR);
    assert_eq!(control(server, &frame(SETTINGS, &[0x6])).await, H3_FRAME_ERROR);
    // §7.1: a payload is neither too short nor too long.
    for ty in [GOAWAY, MAX_PUSH_ID, CANCEL_PUSH] {
        assert_eq!(after_settings(server, &[(ty, &[])]).await, H3_FRAME_ERROR, "{ty:#x}");
        assert_eq!(after_settings(server, &[(ty, &[0x40])]).await, H3_FRAME_ERROR, "{ty:#x}");
        assert_eq!(after_settings(server, &[(ty, &[0, 0])]).await, H3_FRAME_ERROR, "{ty:#x}");
    }
    // §7.2.3, §7.2.7, §5.2.
    assert_eq!(after_settings(server, &[(CANCEL_PUSH, &[0])]).await, H3_ID_ERROR);
    assert_eq!(after_settings(server, &[(MAX_PUSH_ID, &[5]), (MAX_PUSH_ID, &[4])]).await, H3_ID_ERROR);
    assert_eq!(after_settings(server, &[(GOAWAY, &[1]), (GOAWAY, &[2])]).await, H3_ID_ERROR);
    // A client that means to leave, with nothing on its way, is let go.
    assert_eq!(after_settings(server, &[(GOAWAY, &[4]), (GOAWAY, &[0])]).await, H3_NO_ERROR);
    // What is allowed.
    let (raw, mut stream) = Raw::greeted(server).await;
    for (ty, payload) in [(UNKNOWN, &b"?"[..]), (MAX_PUSH_ID, &[4]), (MAX_PUSH_ID, &[4])] {
        stream.write_all(&frame(ty, payload)).await.unwrap();
    }
    raw.assert_alive().await;
}

#[tokio::test]
async fn critical_streams_stay_open() {
    let server = &server().await;
    for ty in [CONTROL, ENCODER, DECODER] {
        let bytes = if ty == CONTROL { [varint(ty), frame(SETTINGS, &[])].concat() } else { varint(ty) };
        let raw = Raw::to(server).await;
        raw.uni(&bytes).await.finish().unwrap();
        assert_eq!(raw.closed().await, H3_CLOSED_CRITICAL_STREAM, "{ty} finished");
        let raw = Raw::to(server).await;
        let mut stream = raw.uni(&bytes).await;
        // Answered only when the stream has been read: a reset alone could overtake its type.
        raw.assert_alive().await;
        stream.reset(0_u8.into()).unwrap();
        assert_eq!(raw.closed().await, H3_CLOSED_CRITICAL_STREAM, "{ty} reset");
        let raw = Raw::to(server).await;
        let _streams = (raw.uni(&bytes).await, raw.uni(&bytes).await);
        assert_eq!(raw.closed().await, H3_STREAM_CREATION_ERROR, "{ty} twice");
    }
}

#[tokio::test]
async fn frames_of_a_request() {
    let server = &server().await;
    let head = request("POST", "/");
    let trailers = frame(HEADERS, &section(&[("a", "b")]));
    let connection_ends = async |frames: &[&[u8]], code: u64| {
        let raw = Raw::to(server).await;
        let _settings = raw.settings().await;
        let (mut send, _recv) = raw.bi(&frames.concat()).await;
        let _ = send.finish();
        assert_eq!(raw.closed().await, code, "{frames:x?}");
    };
    // RFC 9114 §4.1: DATA before HEADERS, anything after trailers; §7.2: frames of other streams.
    connection_ends(&[&frame(DATA, b"a"), &head], H3_FRAME_UNEXPECTED).await;
    connection_ends(&[&frame(DATA, b""), &head], H3_FRAME_UNEXPECTED).await;
    connection_ends(&[&head, &trailers, &frame(DATA, b"a")], H3_FRAME_UNEXPECTED).await;
    connection_ends(&[&head, &trailers, &frame(DATA, b"")], H3_FRAME_UNEXPECTED).await;
    connection_ends(&[&head, &trailers, &trailers], H3_FRAME_UNEXPECTED).await;
    for ty in [CANCEL_PUSH, SETTINGS, PUSH_PROMISE, GOAWAY, MAX_PUSH_ID, 0x2, 0x6, 0x8, 0x9] {
        connection_ends(&[&frame(ty, &[0])], H3_FRAME_UNEXPECTED).await;
        connection_ends(&[&frame(ty, &[]), &head], H3_FRAME_UNEXPECTED).await;
        connection_ends(&[&head, &frame(ty, &[])], H3_FRAME_UNEXPECTED).await;
    }
    // §7.1: the end of the stream in the middle of a frame.
    connection_ends(&[&head[..head.len() - 1]], H3_FRAME_ERROR).await;
    connection_ends(&[&head[..1]], H3_FRAME_ERROR).await;
    connection_ends(&[&head, &frame(DATA, b"abc")[..4]], H3_FRAME_ERROR).await;
    connection_ends(&[&head, &frame(UNKNOWN, b"abc")[..4]], H3_FRAME_ERROR).await;
    connection_ends(&[&head, &varint(WT_BI), &[0]], H3_FRAME_ERROR).await;
    // §4.4: a CONNECT has DATA only.
    connection_ends(&[&connect("/"), &trailers], H3_FRAME_UNEXPECTED).await;
    // §4.1: not enough of a request is this request's failure only.
    let raw = Raw::to(server).await;
    let (mut send, mut recv) = raw.bi(&frame(UNKNOWN, b"")).await;
    send.finish().unwrap();
    assert_eq!(reset(&mut recv).await, H3_REQUEST_INCOMPLETE);
    // Unknown frames anywhere, empty DATA, and trailers are fine.
    let unknown = frame(UNKNOWN, b"?");
    let body = [&unknown, &head, &frame(DATA, b""), &frame(DATA, b"ab"), &unknown, &frame(DATA, b"")];
    let rest = [&frame(DATA, b"cd"), &trailers, &unknown];
    let bytes = body.into_iter().chain(rest).flatten().copied().collect::<Vec<_>>();
    let (mut send, mut recv) = raw.bi(&bytes).await;
    send.finish().unwrap();
    assert_eq!(status(&mut recv).await, 200);
    assert_eq!(soon("the body", recv.read_to_end(100)).await.unwrap(), frame(DATA, b"4"));
}

/// What a head is answered with: both halves of its stream, and nothing else, end with the code.
async fn malformed(raw: &Raw, fields: &[(&str, &str)]) {
    let (send, mut recv) = raw.bi(&frame(HEADERS, &section(fields))).await;
    assert_eq!(reset(&mut recv).await, H3_MESSAGE_ERROR, "{fields:?}");
    assert_eq!(stopped(&send).await, Some(H3_MESSAGE_ERROR), "{fields:?}");
}

#[tokio::test]
async fn malformed_heads() {
    let server = &server().await;
    let (raw, _control) = Raw::greeted(server).await;
    let get = pseudo("GET", "/");
    let with = |field| [&get[..], &[field]].concat();
    // RFC 9114 §4.3: a pseudo-header twice, missing, unknown, of responses, behind a field.
    for field in &get {
        malformed(&raw, &with(*field)).await;
        let missing: Vec<_> = get.iter().copied().filter(|other| other != field).collect();
        malformed(&raw, &missing).await;
        malformed(&raw, &[&[("a", "b")][..], &get].concat()).await;
    }
    for field in [(":status", "200"), (":other", "x"), (":", ""), (":protocol", "webtransport")] {
        malformed(&raw, &with(field)).await;
    }
    malformed(&raw, &[&get[1..], &[("a", "b"), get[0]]].concat()).await;
    // §4.2: names in lower case, nothing that speaks of the connection.
    for field in [
        ("Upper", "case"),
        ("", "nameless"),
        ("with space", "x"),
        ("a", "new\nline"),
        ("connection", "keep-alive"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("content-length", "many"),
    ] {
        malformed(&raw, &with(field)).await;
    }
    // §4.3.1: empty and wrong targets.
    for (place, value) in [(1, ""), (2, ""), (3, ""), (3, "no-slash"), (2, "user@localhost")] {
        let mut fields = get.clone();
        fields[place].1 = value;
        malformed(&raw, &fields).await;
    }
    malformed(&raw, &with(("host", "elsewhere"))).await;
    malformed(&raw, &[with(("content-length", "1")), vec![("content-length", "2")]].concat()).await;
    // §4.4 and RFC 9220 §3: CONNECT.
    malformed(&raw, &pseudo("CONNECT", "/")).await;
    malformed(&raw, &[(":method", "CONNECT")]).await;
    for place in 1..4 {
        let mut fields = [pseudo("CONNECT", "/"), vec![(":protocol", "webtransport")]].concat();
        fields.remove(place);
        malformed(&raw, &fields).await;
    }
    // All that on one connection, which still serves; and protocols that are not served are no error.
    let other = |protocol| [pseudo("CONNECT", "/"), vec![(":protocol", protocol)]].concat();
    let tunnel = vec![(":method", "CONNECT"), (":authority", "localhost:1")];
    for (fields, reason) in
        [(other("websocket"), "WebSocket"), (other("connect-udp"), ":protocol"), (tunnel, "CONNECT")]
    {
        let (_send, mut recv) = raw.bi(&frame(HEADERS, &section(&fields))).await;
        assert_eq!(status(&mut recv).await, 501);
        let data = soon("the reason", recv.read_to_end(1000)).await.unwrap();
        assert!(data.first() == Some(&0) && String::from_utf8_lossy(&data).contains(reason), "{data:?}");
    }
    raw.assert_alive().await;
}

#[tokio::test]
async fn malformed_bodies() {
    let server = &server().await;
    let (raw, _control) = Raw::greeted(server).await;
    let post = [&pseudo("POST", "/")[..], &[("content-length", "3")]].concat();
    let post = frame(HEADERS, &section(&post));
    // RFC 9114 §4.1.2: shorter and longer than it says.
    for data in [&b""[..], b"ab", b"abcd"] {
        let (mut send, mut recv) = raw.bi(&[post.clone(), frame(DATA, data)].concat()).await;
        let _ = send.finish();
        assert_eq!(reset(&mut recv).await, H3_MESSAGE_ERROR, "{data:?}");
    }
    let (mut send, mut recv) = raw.bi(&[post, frame(DATA, b"abc")].concat()).await;
    send.finish().unwrap();
    assert_eq!(status(&mut recv).await, 200);
    // §4.3: no pseudo-headers in trailers; §4.2 holds there too.
    for field in [(":path", "/"), (":status", "200"), ("Upper", "case"), ("connection", "close")] {
        let trailers = frame(HEADERS, &section(&[field]));
        let (send, mut recv) = raw.bi(&[request("POST", "/"), trailers].concat()).await;
        assert_eq!(reset(&mut recv).await, H3_MESSAGE_ERROR, "{field:?}");
        assert_eq!(stopped(&send).await, Some(H3_MESSAGE_ERROR), "{field:?}");
    }
    raw.assert_alive().await;
}

#[tokio::test]
async fn qpack() {
    let server = &server().await;
    let get = section(&pseudo("GET", "/"));
    // RFC 9204 §2.2, §3.1, §4.5: what a decoder without a dynamic table cannot decode.
    for wrong in [
        &b"\0\0\xff\x24"[..], // static index 99
        b"\0\0\x5f\x54\0",    // the same for a name
        b"\0\0\x80",          // dynamic, by each way of naming it
        b"\0\0\x10",
        b"\0\0\x40\0",
        b"\0\0\0\0",
        b"\x01\0\xd1",                 // Required Insert Count 0 is the only one
        b"\0\x80\xd1",                 // a negative Base
        b"\0\0\x29\xff\0",             // Huffman: padding of a whole byte
        b"\0\0\x2c\xff\xff\xff\xff\0", // Huffman: EOS
        b"\0\0\x27\xff",               // cut short
        b"",
    ] {
        let (raw, _control) = Raw::greeted(server).await;
        let _stream = raw.bi(&frame(HEADERS, wrong)).await;
        assert_eq!(raw.closed().await, QPACK_DECOMPRESSION_FAILED, "{wrong:x?}");
        let trailers = [request("POST", "/"), frame(HEADERS, wrong)].concat();
        let (raw, _control) = Raw::greeted(server).await;
        let _stream = raw.bi(&trailers).await;
        assert_eq!(raw.closed().await, QPACK_DECOMPRESSION_FAILED, "trailers {wrong:x?}");
    }
    let stream_ends = async |ty: u64, bytes: &[u8]| {
        let raw = Raw::to(server).await;
        let _stream = raw.uni(&[&varint(ty), bytes].concat()).await;
        raw.closed().await
    };
    // §4.3: a capacity above the limit of 0, and each way of inserting.
    for wrong in [&[0x21][..], &[0x3f, 0xe1, 0x1f], &[0xc0, 0], &[0x41, b'a', 0], &[0x00]] {
        assert_eq!(stream_ends(ENCODER, wrong).await, QPACK_ENCODER_STREAM_ERROR, "{wrong:x?}");
    }
    // §4.4: an increment of 0, one of what was never inserted, an acknowledgment of nothing.
    for wrong in [&[0x00][..], &[0x01], &[0x80], &[0x84]] {
        assert_eq!(stream_ends(DECODER, wrong).await, QPACK_DECODER_STREAM_ERROR, "{wrong:x?}");
    }
    // What is allowed: capacity 0, cancellations, every representation of a field.
    let (raw, _control) = Raw::greeted(server).await;
    let _streams = (raw.uni(&[ENCODER as u8, 0x20]).await, raw.uni(&[DECODER as u8, 0x44, 0x7f, 0x80, 0x01]).await);
    let indexed = b"\0\0\xd1\xd7\x50\x09localhost\xc1";
    let huffman = b"\x2e\xa8\xeb\x10\x64\x9c\xbf\x85\xae\xc3\x77\x1a\x4b";
    for fields in [get, indexed.to_vec(), [&indexed[..], huffman].concat()] {
        let (mut send, mut recv) = raw.bi(&frame(HEADERS, &fields)).await;
        send.finish().unwrap();
        assert_eq!(status(&mut recv).await, 200);
    }
}

#[tokio::test]
async fn streams_and_datagrams() {
    let server = &server().await;
    // RFC 9114 §6.2.2: only servers push. §6.2: other types are no error.
    let raw = Raw::to(server).await;
    let _push = raw.uni(&[PUSH as u8, 0]).await;
    assert_eq!(raw.closed().await, H3_STREAM_CREATION_ERROR);
    let (raw, _control) = Raw::greeted(server).await;
    let unknown = raw.uni(&[varint(UNKNOWN), b"?".to_vec()].concat()).await;
    assert_eq!(stopped(&unknown).await, Some(H3_STREAM_CREATION_ERROR));
    raw.uni(&[]).await.finish().unwrap();
    raw.assert_alive().await;
    // draft-ietf-webtrans-http3 §4: a session's id is that of a request.
    for id in 1..4 {
        let raw = Raw::to(server).await;
        let _stream = raw.bi(&[varint(WT_BI), vec![id]].concat()).await;
        assert_eq!(raw.closed().await, H3_ID_ERROR);
        let raw = Raw::to(server).await;
        let _stream = raw.uni(&[varint(WT_UNI), vec![id]].concat()).await;
        assert_eq!(raw.closed().await, H3_ID_ERROR);
    }
    // RFC 9297 §2.1: a datagram names a stream.
    for wrong in [&[][..], &[0x40], &[0xd0, 0, 0, 0, 0, 0, 0, 0]] {
        let raw = Raw::to(server).await;
        raw.conn.send_datagram(wrong.to_vec().into()).unwrap();
        assert_eq!(raw.closed().await, H3_DATAGRAM_ERROR, "{wrong:x?}");
    }
}
