//! Server-sent events, as browsers' `EventSource` reads them.
//!
//! A chunk is one event without a type: its cursor as `id`, its text as `data`. One newline at its
//! end is not part of the text, since a line is what a chunk usually is; inside, `\r` and `\r\n`
//! come out as `\n`, as the format has no other. What is not UTF-8 is replaced.

use bytes::Bytes;
use serde_json::json;

use crate::{Chunk, Cursor, End, EndCursor, Epoch, Gap};

/// Tells the browser to wait a second before it reconnects. A line of the first event, whatever that
/// is: there are clients that take a block of its own for an event.
pub const BEGIN: Bytes = Bytes::from_static(b"retry: 1000\n");
/// A comment, as a line of the event that comes next.
pub const HEARTBEAT: Bytes = Bytes::from_static(b":\n");

/// A chunk.
#[must_use]
pub fn chunk(chunk: &Chunk, epoch: Epoch) -> Bytes {
    let text = String::from_utf8_lossy(&chunk.bytes);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    let mut out = format!("id: {}\n", Cursor { epoch, seq: chunk.seq });
    for line in text.replace("\r\n", "\n").split(['\n', '\r']) {
        out += "data: ";
        out += line;
        out += "\n";
    }
    out += "\n";
    out.into()
}

/// A gap: an event of the type `gap`.
#[must_use]
pub fn gap(gap: &Gap) -> Bytes {
    event("gap", &json!({ "from": gap.from, "missing": gap.missing, "restarted": gap.restarted }))
}

/// Nothing can come now from where the feed is kept, or it can again: an event of the type `stalled`.
#[must_use]
pub fn stalled(stalled: bool) -> Bytes {
    event("stalled", &json!({ "stalled": stalled }))
}

/// The end: an event of the type `end`. Its `id`, which a client gives back when it reconnects, says that
/// the client has had it; a view that ended before its feed did has none.
#[must_use]
pub fn end(end: &End, id: Option<EndCursor>) -> Bytes {
    let data = match end {
        End::Clean => json!({}),
        End::Stopped => return Bytes::new(),
        End::Failed(error) => json!({ "error": error.0 }),
    };
    match id {
        Some(id) => [format!("id: {id}\n").as_bytes(), &event("end", &data)].concat().into(),
        None => event("end", &data),
    }
}

fn event(name: &str, data: &serde_json::Value) -> Bytes {
    // JSON has no raw line breaks.
    format!("event: {name}\ndata: {data}\n\n").into()
}
