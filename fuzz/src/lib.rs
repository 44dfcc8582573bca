//! What the fuzz targets run: all parsing of remote bytes.

use std::collections::VecDeque;

use bytes::Bytes;
use http::HeaderValue;

use h3cast_proto::{
    Role,
    capsule::CapsuleDecoder,
    datagram,
    feed::{
        Cursor, EndCursor,
        frames::{Frame, FrameDecoder},
    },
    filter::FrameFilter,
    forwarded,
    message::{Head, check_head, check_trailers},
    proxy::{MAX_V2, ProxyHeader, ProxyRead},
    qpack::{self, DecoderStream, check_encoder_stream},
    stream_code, structured, varint,
};

/// Cuts `data` into pieces whose sizes its own first bytes give.
fn pieces(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (sizes, mut rest) = data.split_at(data.len().min(8));
    let mut sizes = sizes.iter().cycle();
    std::iter::from_fn(move || {
        let size = usize::from(*sizes.next()?).max(1).min(rest.len());
        let (piece, left) = rest.split_at(size);
        rest = left;
        (!piece.is_empty()).then_some(piece)
    })
}

/// The frame filter of each kind of stream, cut anywhere.
pub fn frames(data: &[u8]) {
    let filters = [
        FrameFilter::new(64),
        FrameFilter::request(64, Head::Request),
        FrameFilter::request(64, Head::Connect),
        FrameFilter::control(Role::Server),
        FrameFilter::control(Role::Client),
    ];
    for mut filter in filters {
        let mut passed = VecDeque::new();
        let whole = pieces(data).all(|piece| filter.push(Bytes::copy_from_slice(piece), &mut passed).is_ok());
        let out: usize = passed.iter().map(Bytes::len).sum();
        assert!(!whole || out <= data.len());
    }
}

/// Field sections, and what makes a message of them.
pub fn fields(data: &[u8]) {
    if let Ok(fields) = qpack::decode(data, 4096) {
        assert!(fields.iter().map(|field| field.name.len() + field.value.len() + 32).sum::<usize>() <= 4096);
        let _ = check_head(&fields);
        let _ = check_trailers(&fields);
    }
}

/// The capsules of a CONNECT stream, cut anywhere.
pub fn capsules(data: &[u8]) {
    let mut decoder = CapsuleDecoder::default();
    for piece in pieces(data) {
        decoder.push(piece);
        loop {
            match decoder.pop() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    let _ = decoder.finish();
}

/// Datagrams.
pub fn datagrams(data: &[u8]) {
    if let Ok((stream, payload)) = datagram::parse(data) {
        assert_eq!(stream % 4, 0);
        assert!(payload.len() < data.len());
    }
}

/// The frames of a feed, cut anywhere, and the cursors that clients hand back.
pub fn feeds(data: &[u8]) {
    let mut decoder = FrameDecoder::new(100);
    'stream: for piece in pieces(data) {
        decoder.push(piece);
        loop {
            match decoder.pop() {
                Ok(Some(Frame::Chunk { bytes, .. })) => assert!(bytes.len() <= 100),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => break 'stream,
            }
        }
    }
    let text = String::from_utf8_lossy(data);
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        assert!(text.parse::<EndCursor>().is_err());
    }
    if let Ok(cursor) = text.parse::<EndCursor>() {
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }
}

/// The header of a connection that a proxy forwards, read as a server reads it, and the fields of its requests.
pub fn proxies(data: &[u8]) {
    let mut read = 0;
    while let Ok(ProxyRead::More(more)) = ProxyHeader::read(&data[..read]) {
        assert!(more > 0 && read + more <= MAX_V2);
        read += more;
        if read > data.len() {
            break;
        }
    }
    let text = String::from_utf8_lossy(data);
    let _ = forwarded::parse(&text);
    let _ = forwarded::bare_node(&text);
}

/// Error codes, integers, QPACK's instruction streams, and structured fields.
pub fn values(data: &[u8]) {
    if let Some((value, size)) = varint::decode(data) {
        let mut out = Vec::new();
        varint::encode(value, &mut out);
        assert_eq!(varint::decode(&out), Some((value, out.len())));
        assert!(out.len() <= size);
        if let Some(code) = stream_code::from_http3(value) {
            assert_eq!(stream_code::to_http3(code), value);
        }
        // Few values are in the range, so it is entered from the other side too.
        assert_eq!(stream_code::from_http3(stream_code::to_http3(value as u32)), Some(value as u32));
    }
    let _ = check_encoder_stream(data);
    let mut decoder = DecoderStream::default();
    for piece in pieces(data) {
        if decoder.check(piece).is_err() {
            break;
        }
    }
    if let Ok(value) = HeaderValue::from_bytes(data) {
        let _ = structured::unquote(&value);
    }
}
