//! Frames and field sections that are made to cost memory, against a process that is
//! watched. Beside each attack a viewer must get every chunk, in time.

use h3cast_transport::http3::code::*;

use crate::{
    common::{
        TestServer,
        process::{Program, Viewer},
        raw::*,
        soon,
    },
    server,
};

/// How much is poured into each frame that says it is a gigabyte long. A server that keeps what
/// comes grows by as much.
const POURED: usize = 32 << 20;

/// The limit of a field section that `docs/protocol.md` states.
const MAX_FIELD_SECTION: usize = 16 * 1024;

/// Writes until all is written, or the server wants no more: whether it took all.
async fn pour(stream: &mut quinn::SendStream) -> bool {
    let piece = vec![0xaa; 64 * 1024];
    for _ in 0..POURED / piece.len() {
        if soon("a write, or an error", stream.write_all(&piece)).await.is_err() {
            return false;
        }
    }
    true
}

/// What was poured into, which ends when this is dropped.
struct Poured {
    took_all: bool,
    raw: Raw,
    _control: quinn::SendStream,
    request: Option<(quinn::SendStream, quinn::RecvStream)>,
}

/// Pours into a control stream that begins so, on a connection of its own.
async fn into_control(program: &Program, what: &str, frames: &[u8]) -> Poured {
    let raw = program.raw().await;
    let before = program.memory();
    let mut control = raw.uni(&[&varint(CONTROL), frames].concat()).await;
    let took_all = pour(&mut control).await;
    program.assert_budget(what, before);
    Poured { took_all, raw, _control: control, request: None }
}

/// The same with a request's stream.
async fn into_request(program: &Program, what: &str, bytes: &[u8]) -> Poured {
    let (raw, control) = program.greeted().await;
    let before = program.memory();
    let (mut send, recv) = raw.bi(bytes).await;
    let took_all = pour(&mut send).await;
    program.assert_budget(what, before);
    Poured { took_all, raw, _control: control, request: Some((send, recv)) }
}

#[tokio::test]
async fn frames_of_a_gigabyte() {
    let program = server::start();
    let viewer = Viewer::join(&program).await;

    // A head is refused by its length alone: 431, and the connection lives on.
    let (raw, _settings) = program.greeted().await;
    let (send, mut recv) = raw.bi(&gigabyte(HEADERS)).await;
    assert_eq!(status(&mut recv).await, 431);
    assert_eq!(stopped(&send).await, Some(H3_EXCESSIVE_LOAD));
    raw.assert_alive().await;

    // SETTINGS and other frames on the control stream end it.
    for bytes in [gigabyte(SETTINGS), [frame(SETTINGS, &[]), gigabyte(GOAWAY)].concat()] {
        let poured = into_control(&program, "a control frame", &bytes).await;
        assert!(!poured.took_all);
        assert_eq!(poured.raw.closed().await, H3_EXCESSIVE_LOAD);
    }

    // What is unknown is dropped as it comes.
    let control = [frame(SETTINGS, &[]), gigabyte(UNKNOWN)].concat();
    for poured in [
        into_control(&program, "an unknown frame on the control stream", &control).await,
        into_request(&program, "an unknown frame before a head", &gigabyte(UNKNOWN)).await,
    ] {
        assert!(poured.took_all);
        poured.raw.assert_alive().await;
    }

    // So are unknown capsules, in one frame or in many; known ones are refused by their length.
    for ty in [UNKNOWN, 0x1234_5678] {
        let session = [connect("/stream"), gigabyte(DATA), gigabyte(ty)].concat();
        let poured = into_request(&program, "an unknown capsule", &session).await;
        assert!(poured.took_all);
        poured.raw.assert_alive().await;
    }
    for ty in [0x2843, 0x78ae] {
        let session = [connect("/stream"), gigabyte(DATA), gigabyte(ty)].concat();
        let mut poured = into_request(&program, "a known capsule", &session).await;
        assert!(!poured.took_all);
        let (_, recv) = poured.request.as_mut().unwrap();
        assert_eq!(reset(recv).await, H3_MESSAGE_ERROR);
        poured.raw.assert_alive().await;
    }

    // A body that nobody reads is stopped.
    let body = [request("POST", "/healthz"), gigabyte(DATA)].concat();
    let poured = into_request(&program, "a body", &body).await;
    assert!(!poured.took_all);
    poured.raw.assert_alive().await;

    viewer.leave().await;
    program.end();
}

/// A field section of one byte a field: `:method GET` of the static table, and what else is asked.
fn indexed(count: usize) -> Vec<u8> {
    [vec![0, 0], vec![0xd1; count]].concat()
}

/// A request whose one field has a Huffman-coded value of `size` bytes that are 8/5 as many decoded.
fn huffman(size: usize) -> Vec<u8> {
    // Eight zeros are five bytes of zero bits.
    assert_eq!(size % 5, 0);
    let fields = section(&pseudo("GET", "/healthz"));
    [fields, b"\x21a".to_vec(), prefixed(0x80, 7, size), vec![0; size]].concat()
}

#[tokio::test]
async fn field_sections_over_the_limit() {
    let program = server::start();
    let viewer = Viewer::join(&program).await;
    let before = program.memory();
    let (raw, _settings) = program.greeted().await;

    // By its encoded length, by the number of fields, by what Huffman's code hides.
    for (what, fields) in [
        ("25,000 fields", indexed(25_000)),
        ("all that fits the length", indexed(MAX_FIELD_SECTION - 2)),
        ("a few more than fit", indexed(MAX_FIELD_SECTION / (7 + 3 + 32) + 1)),
        ("Huffman's code", huffman(MAX_FIELD_SECTION / 5 * 5 - 500)),
        ("a plain value", section(&[("a", &"a".repeat(MAX_FIELD_SECTION))])),
    ] {
        // Many times on one connection, since one alone would hardly show.
        for _ in 0..20 {
            let (send, mut recv) = raw.bi(&frame(HEADERS, &fields)).await;
            assert_eq!(status(&mut recv).await, 431, "{what}");
            assert_eq!(stopped(&send).await, Some(H3_EXCESSIVE_LOAD), "{what}");
        }
    }
    // What is just within it is answered.
    let mut within = huffman(5 * 1500);
    let (mut send, mut recv) = raw.bi(&frame(HEADERS, &within)).await;
    send.finish().unwrap();
    assert_eq!(status(&mut recv).await, 200);

    // Trailers. No route reads those: the server stops the request before them.
    within = request("POST", "/healthz");
    for trailers in [frame(HEADERS, &indexed(25_000)), frame(HEADERS, &indexed(MAX_FIELD_SECTION - 2))] {
        let (mut send, mut recv) = raw.bi(&within).await;
        assert_eq!(status(&mut recv).await, 405);
        let _ = send.write_all(&trailers).await;
        assert_eq!(stopped(&send).await, Some(H3_NO_ERROR));
    }
    raw.assert_alive().await;
    program.assert_budget("field sections", before);
    viewer.leave().await;
    program.end();
}

/// The trailers of a request whose handler reads them.
#[tokio::test]
async fn trailers_over_the_limit() {
    let router = axum::Router::new()
        .route("/", axum::routing::post(|_: axum::body::Bytes| async { "read" }))
        .route("/healthz", axum::routing::get(|| async { "ok" }));
    let server = TestServer::start(|builder, _| builder.http_service(router)).await;
    let trailers = |fields: &[u8]| [request("POST", "/"), frame(HEADERS, fields)].concat();

    // By what they are decoded, the request fails; by their length alone, the connection does,
    // since they cannot be skipped.
    let (raw, _settings) = Raw::greeted(&server).await;
    for fields in [indexed(MAX_FIELD_SECTION - 2), huffman(MAX_FIELD_SECTION / 5 * 5 - 500)] {
        let (send, mut recv) = raw.bi(&trailers(&fields)).await;
        assert_eq!(reset(&mut recv).await, H3_MESSAGE_ERROR);
        assert_eq!(stopped(&send).await, Some(H3_MESSAGE_ERROR));
    }
    raw.assert_alive().await;
    for bytes in [trailers(&indexed(25_000)), [request("POST", "/"), gigabyte(HEADERS)].concat()] {
        let (raw, _settings) = Raw::greeted(&server).await;
        let _stream = raw.bi(&bytes).await;
        assert_eq!(raw.closed().await, H3_EXCESSIVE_LOAD);
    }
}

/// A head that comes byte by byte is given up, and the others meanwhile are not kept waiting.
#[tokio::test]
async fn a_head_that_never_ends() {
    let program = server::start();
    let viewer = Viewer::join(&program).await;
    let (raw, _settings) = program.greeted().await;
    let (mut send, mut recv) = raw.bi(&[varint(HEADERS), varint(16_000)].concat()).await;
    let drip = async {
        let mut bytes = 0;
        while send.write_all(b"\xd1").await.is_ok() {
            bytes += 1;
            // The pace of the attack.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            assert_eq!(raw.get("/healthz").await, 200);
        }
        bytes
    };
    assert!(soon("the server gives it up", drip).await > 10);
    assert_eq!(reset(&mut recv).await, H3_REQUEST_CANCELLED);
    raw.assert_alive().await;
    viewer.leave().await;
    program.end();
}
