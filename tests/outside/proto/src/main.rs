//! `h3cast-proto` alone: a feed's frames written and read again, and a peer's mistake recognized.

use h3cast_proto::{
    code,
    feed::{
        Epoch,
        frames::{self, Frame, FrameDecoder},
    },
    qpack,
};

fn main() {
    let stream = [frames::begin(Epoch(7), Some(0)), frames::chunk(0, 1_000, b"hi")].concat();
    let mut decoder = FrameDecoder::new(1 << 20);
    decoder.push(&stream);
    assert_eq!(decoder.pop(), Ok(Some(Frame::Begin { epoch: Epoch(7), next: Some(0) })));
    assert!(matches!(decoder.pop(), Ok(Some(Frame::Chunk { seq: 0, .. }))));
    let violation = qpack::check_encoder_stream(&[0x80]).unwrap_err();
    assert_eq!(violation.code, code::QPACK_ENCODER_STREAM_ERROR);
    println!("proto: ok");
}
