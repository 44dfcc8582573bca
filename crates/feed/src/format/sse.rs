//! Server-sent events, as browsers' `EventSource` reads them.
//!
//! A chunk is one event without a type: its cursor as `id`, its text as `data`. A newline at its end is not
//! part of the text, since a chunk is usually a line; other `\r` and `\r\n` become `\n`, the only line break
//! that the format has. Bytes that are not UTF-8 are replaced.

use std::{borrow::Cow, fmt::Write};

use bytes::Bytes;
use serde_json::json;

use crate::{Chunk, Cursor, End, EndCursor, Epoch, Gap};

/// Makes the browser wait a second before it reconnects. It is a line of the first event: some clients take
/// a separate block for an event.
pub const BEGIN: Bytes = Bytes::from_static(b"retry: 1000\n");
/// A comment, as a line of the next event.
pub const HEARTBEAT: Bytes = Bytes::from_static(b":\n");

const FIELD: &str = "data: ";
/// Room for the line of a cursor: two numbers of 64 bits, one of them in hexadecimal.
const ID: usize = "id: ".len() + 16 + 1 + 20 + 1;
/// The viewer may no longer read the feed, and resumes with a new token: an event of the type `expired`.
pub const EXPIRED: Bytes = Bytes::from_static(b"event: expired\ndata: {}\n\n");

/// A chunk.
#[must_use]
pub fn chunk(chunk: &Chunk, epoch: Epoch) -> Bytes {
    let text = String::from_utf8_lossy(&chunk.bytes);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    let text = match text.contains('\r') {
        true => Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n")),
        false => Cow::Borrowed(text),
    };
    let lines = 1 + text.bytes().filter(|byte| *byte == b'\n').count();
    // No more than it needs: it stays as long as its chunk may.
    let mut out = String::with_capacity(ID + text.len() + lines * FIELD.len() + 2);
    // Writing to a string cannot fail.
    let _ = writeln!(out, "id: {}", Cursor { epoch, seq: chunk.seq });
    for line in text.split('\n') {
        out += FIELD;
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

/// New chunks cannot be received or stored, or they can again: an event of the type `stalled`.
#[must_use]
pub fn stalled(stalled: bool) -> Bytes {
    event("stalled", &json!({ "stalled": stalled }))
}

/// New chunks cannot be received or stored, and why, in words.
#[must_use]
pub fn stalled_by(cause: &str) -> Bytes {
    event("stalled", &json!({ "stalled": true, "cause": cause }))
}

/// The end: an event of the type `end`. Its `id`, which a client sends when it reconnects, shows that the
/// client has received it; a view that ended before its feed has none.
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
