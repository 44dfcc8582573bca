//! The byte layouts of `docs/protocol.md`, from vectors that the page's tests read as well.

use std::iter;

use bytes::Bytes;
use h3cast_proto::feed::{
    Cursor, End, Epoch, FeedError, Gap,
    frames::{self, Frame, FrameDecoder, FrameError},
};
use serde_json::Value;

const VECTORS: &str = include_str!("vectors/frames.json");

/// How a stream ends for its reader.
#[derive(Debug, PartialEq)]
enum Rest {
    Nothing,
    Short,
    Long,
    Cut,
}

fn vectors() -> Vec<Value> {
    let mut file: Value = serde_json::from_str(VECTORS).unwrap();
    let Value::Array(vectors) = file["vectors"].take() else { panic!("no vectors") };
    assert!(vectors.len() > 30);
    vectors
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_else(|| panic!("no {member} in {value}"))
}

/// A number, or a string of one that not every reader of JSON can hold.
fn number(value: &Value, member: &str) -> u64 {
    value[member].as_u64().unwrap_or_else(|| text(value, member).parse().unwrap())
}

fn unhex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').map(nibble).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn nibble(digit: u8) -> u8 {
    char::from(digit).to_digit(16).unwrap().try_into().unwrap()
}

fn expected_frame(frame: &Value) -> Frame {
    match text(frame, "type") {
        "chunk" => Frame::Chunk {
            seq: number(frame, "seq"),
            micros: number(frame, "micros"),
            bytes: unhex(text(frame, "bytes")),
        },
        "gap" => Frame::Gap(Gap {
            from: number(frame, "from"),
            missing: number(frame, "missing"),
            restarted: frame["restarted"].as_bool().unwrap(),
        }),
        "end" => Frame::End(match frame["failed"].as_bool().unwrap() {
            true => End::Failed(FeedError(text(frame, "reason").into())),
            false => End::Clean,
        }),
        "begin" => {
            Frame::Begin { epoch: epoch(text(frame, "epoch")), next: frame.get("next").map(|_| number(frame, "next")) }
        }
        "heartbeat" => Frame::Heartbeat,
        "sparse" => Frame::Sparse,
        "stalled" => Frame::Stalled {
            stalled: frame["stalled"].as_bool().unwrap(),
            cause: frame["cause"].as_str().map(String::from),
        },
        "expired" => Frame::Expired,
        other => panic!("no frame is called {other}"),
    }
}

/// An epoch read from a cursor's text, so that the page's cursors are the server's.
fn epoch(text: &str) -> Epoch {
    let cursor = format!("{text}-0");
    let parsed: Cursor = cursor.parse().unwrap();
    assert_eq!(parsed.to_string(), cursor);
    parsed.epoch
}

fn written(frame: &Frame) -> Bytes {
    match frame {
        Frame::Chunk { seq, micros, bytes } => frames::chunk(*seq, *micros, bytes),
        Frame::Gap(gap) => frames::gap(gap),
        Frame::End(end) => frames::end(end),
        Frame::Begin { epoch, next } => frames::begin(*epoch, *next),
        Frame::Heartbeat => frames::HEARTBEAT,
        Frame::Sparse => frames::SPARSE,
        Frame::Stalled { cause: Some(cause), .. } => frames::stalled_by(cause),
        Frame::Stalled { stalled, .. } => frames::stalled(*stalled),
        Frame::Expired => frames::EXPIRED,
        other => panic!("{other:?} is new here"),
    }
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>, limit: u64) -> (Vec<Frame>, Rest) {
    let mut decoder = FrameDecoder::new(limit);
    let mut read = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.pop() {
                Ok(Some(frame)) => read.push(frame),
                Ok(None) => break,
                Err(FrameError::Short) => return (read, Rest::Short),
                Err(FrameError::Long(_)) => return (read, Rest::Long),
            }
        }
    }
    (read, if decoder.at_boundary() { Rest::Nothing } else { Rest::Cut })
}

#[test]
fn frames_are_read_however_they_are_cut() {
    for vector in vectors() {
        let (name, bytes) = (text(&vector, "name"), unhex(text(&vector, "hex")));
        let limit = vector["limit"].as_u64().unwrap_or(1 << 20);
        let rest = match vector["error"].as_str() {
            None => Rest::Nothing,
            Some("short") => Rest::Short,
            Some("long") => Rest::Long,
            Some("cut") => Rest::Cut,
            Some(other) => panic!("no error is called {other}"),
        };
        let expected = (vector["frames"].as_array().unwrap().iter().map(expected_frame).collect(), rest);
        assert_eq!(read(iter::once(&bytes[..]), limit), expected, "{name}, whole");
        assert_eq!(read(bytes.chunks(1), limit), expected, "{name}, byte by byte");
        for cut in 1..bytes.len() {
            assert_eq!(read([&bytes[..cut], &bytes[cut..]].into_iter(), limit), expected, "{name}, cut at {cut}");
        }
    }
}

#[test]
fn frames_are_written_as_the_vectors_have_them() {
    let mut canonical = 0;
    for vector in vectors().iter().filter(|vector| vector["canonical"] == true) {
        let frames: Vec<_> = vector["frames"].as_array().unwrap().iter().map(expected_frame).collect();
        let bytes: Vec<_> = frames.iter().flat_map(written).collect();
        assert_eq!(Bytes::from(bytes), unhex(text(vector, "hex")), "{}", text(vector, "name"));
        canonical += 1;
    }
    assert!(canonical > 10);
}
