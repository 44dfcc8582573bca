//! What is published.

use bytes::Bytes;
use futures_util::FutureExt;
use h3cast_feed::Publisher;

/// A line, so that it is as likely a chunk in every format.
pub(crate) const LINE: &[u8] = b"fifteen letters\n";
/// What is kept where nothing is to be lost, in bytes.
pub(crate) const ROOMY: usize = 64 << 20;
/// A chunk as a file or a fast program makes it, in bytes.
pub(crate) const LARGE: usize = 64 << 10;

/// So many bytes of lines of 64.
pub(crate) fn text(len: usize) -> Bytes {
    (0..len).map(|at| if at % 64 == 63 { b'\n' } else { b'a' + (at % 26) as u8 }).collect()
}

pub(crate) fn publish_one(publisher: &Publisher, bytes: Bytes) {
    publisher.publish(bytes).now_or_never().expect("nobody holds it up").expect("it has not ended");
}

pub(crate) fn publish_lines(publisher: &Publisher, lines: usize) {
    for _ in 0..lines {
        publish_one(publisher, Bytes::from_static(LINE));
    }
}
