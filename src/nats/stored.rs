//! Stored messages, one at a time, in a form that can be read whatever their headers are.
//!
//! A program may store headers that NATS' client cannot parse: bytes that are no UTF-8, a line without a colon. The
//! server takes them. The client parses headers as a message arrives, and drops the connection where it cannot, with all
//! that uses it. `STREAM.MSG.GET` answers in JSON, where the headers are one more text that nothing has to look into.

use std::{
    collections::BTreeMap,
    str::FromStr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::SystemTime,
};

use async_nats::{
    HeaderName,
    jetstream::{self, ErrorCode, response::Response, stream::RawMessage},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use tracing::warn;

use super::error::KeepError;

/// How many messages with malformed headers are known of a stream: the newest.
const SPOILED: usize = 4096;
/// How often they may cost the connection when the past of a stream is read.
const COSTS: u32 = 4;

/// A message as its stream's leader has it.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) subject: String,
    pub(super) sequence: u64,
    pub(super) time: SystemTime,
    pub(super) payload: Bytes,
    /// The client cannot read it as it is: with its headers the connection would be lost.
    pub(super) is_spoiled: bool,
}

#[derive(Deserialize)]
struct Answer {
    message: RawMessage,
}

/// The message that is asked for (`seq`, `next_by_subj` or `last_by_subj`), if the stream's leader has it.
pub(super) async fn stored(
    jetstream: &jetstream::Context,
    stream: &str,
    asked: Value,
) -> Result<Option<Stored>, KeepError> {
    let answer = jetstream.request(format!("STREAM.MSG.GET.{stream}"), &asked).await.map_err(KeepError::nats)?;
    let message = match answer {
        Response::Ok(Answer { message }) => message,
        Response::Err { error } if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => return Ok(None),
        Response::Err { error } => return Err(KeepError::of_stream(stream, error)),
    };
    let decoded = |text: String| STANDARD.decode(text).map_err(KeepError::nats);
    let headers = message.headers.map(decoded).transpose()?;
    Ok(Some(Stored {
        subject: message.subject,
        sequence: message.sequence,
        time: message.time.into(),
        payload: decoded(message.payload)?.into(),
        is_spoiled: headers.is_some_and(|headers| !is_readable(&headers)),
    }))
}

/// Whether the client reads a message with these headers as one of a stream.
fn is_readable(headers: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(headers) else { return false };
    let mut lines = text.lines();
    // With a status it would pass for an answer of the server's.
    let version = lines.next().and_then(|line| line.strip_prefix("NATS/1.0"));
    version.is_some_and(|status| status.trim().is_empty())
        && lines.all(|line| {
            let is_more = line.is_empty() || line.starts_with(char::is_whitespace);
            let is_named = || line.split_once(':').is_some_and(|(name, _)| HeaderName::from_str(name).is_ok());
            !line.contains('\r') && (is_more || is_named())
        })
}

/// Warns of those among some messages that the client cannot read, if there are any.
pub(super) fn tell(stream: &str, messages: &[Stored]) {
    let mut spoiled = messages.iter().filter(|message| message.is_spoiled);
    if let Some(Stored { sequence, subject, .. }) = spoiled.next() {
        let count = 1 + spoiled.count();
        warn!(stream, sequence, subject, count, "stored messages have malformed headers: they are read without them");
    }
}

/// Where a stream has messages that the client cannot read, by sequence, as far as is known.
#[derive(Debug, Default)]
pub(super) struct Spoiled {
    known: Mutex<BTreeMap<u64, Known>>,
    /// How often the connection was lost for them, of those that were suspected.
    costs: AtomicU32,
}

#[derive(Debug)]
struct Known {
    subject: String,
    /// The connection was lost when it was due, for whatever reason.
    is_suspect: bool,
}

impl Spoiled {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(known: &mut BTreeMap<u64, Known>, sequence: u64, subject: &str, is_suspect: bool) {
        known.insert(sequence, Known { subject: subject.to_owned(), is_suspect });
        if known.len() > SPOILED {
            known.pop_first();
        }
    }

    /// Notes those among messages of a subject, which are all from that sequence on. Returns whether there are some that
    /// were not known.
    pub(super) fn note(&self, subject: &str, from: u64, messages: &[Stored]) -> bool {
        let mut known = self.lock();
        if let Some(last) = messages.last() {
            let before = known.len();
            known.retain(|at, of| !(of.is_suspect && of.subject == subject && (from..=last.sequence).contains(at)));
            if known.len() < before && messages.iter().any(|message| message.is_spoiled) {
                self.costs.fetch_add(1, Ordering::Relaxed);
            }
        }
        let mut is_news = false;
        for message in messages.iter().filter(|message| message.is_spoiled) {
            is_news |= known.get(&message.sequence).is_none_or(|known| known.is_suspect);
            Self::add(&mut known, message.sequence, &message.subject, false);
        }
        is_news
    }

    /// Notes that the connection was lost when the next message of a subject was due, from that sequence on.
    pub(super) fn suspect(&self, subject: &str, sequence: u64) {
        let mut known = self.lock();
        if !known.contains_key(&sequence) {
            Self::add(&mut known, sequence, subject, true);
        }
    }

    /// The first one of a subject from that sequence on, which may be a suspect.
    pub(super) fn next(&self, subject: &str, sequence: u64) -> Option<u64> {
        let known = self.lock();
        known.range(sequence..).find(|(_, of)| of.subject == subject).map(|(sequence, _)| *sequence)
    }

    /// Whether they have cost the connection so often that the past of the stream is not read otherwise any more.
    pub(super) fn are_many(&self) -> bool {
        self.costs.load(Ordering::Relaxed) >= COSTS
    }

    /// The stream is another one.
    pub(super) fn clear(&self) {
        self.costs.store(0, Ordering::Relaxed);
        self.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_the_client_reads() {
        let of = |lines: &[u8]| is_readable(&[b"NATS/1.0\r\n".as_slice(), lines, b"\r\n"].concat());
        assert!(of(b"") && of(b"a: b\r\n") && of("file: Müller.txt\r\n".as_bytes()) && of(b"a: b\r\n more\r\n"));
        for lines in
            [b"file: M\xfcller.txt\r\n".as_slice(), b"nothing\r\n", b"n\x01: x\r\n", b"a b: x\r\n", b"a: b\rc\r\n"]
        {
            assert!(!of(lines), "{lines:?}");
        }
        assert!(is_readable(b"NATS/1.0\r\n\r\n"));
        for line in ["NATS/2.0\r\n\r\n", "NATS/1.0 409 Consumer Deleted\r\n\r\n", "", "\r\n"] {
            assert!(!is_readable(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn those_of_a_subject_are_found() {
        let spoiled = Spoiled::default();
        let of = |sequence: u64, subject: &str, is_spoiled| {
            let (subject, time, payload) = (subject.to_owned(), SystemTime::UNIX_EPOCH, Bytes::new());
            Stored { subject, sequence, time, payload, is_spoiled }
        };
        assert!(spoiled.note("*", 1, &[of(3, "a", true), of(5, "b", true), of(6, "b", false)]));
        assert!(!spoiled.note("a", 1, &[of(3, "a", true)]), "it is known");
        assert_eq!((spoiled.next("a", 3), spoiled.next("a", 4)), (Some(3), None));
        assert_eq!((spoiled.next("b", 1), spoiled.next("b", 6)), (Some(5), None));
        // Not one after all.
        spoiled.suspect("b", 8);
        assert_eq!(spoiled.next("b", 6), Some(8));
        assert!(!spoiled.note("b", 6, &[of(6, "b", false), of(9, "b", false)]));
        assert_eq!((spoiled.next("b", 6), spoiled.next("b", 5)), (None, Some(5)));
        for cost in 0..COSTS {
            assert!(!spoiled.are_many(), "{cost}");
            spoiled.suspect("a", 3 + 20 * u64::from(cost + 1));
            spoiled.note("a", 4 + 20 * u64::from(cost), &[of(3 + 20 * u64::from(cost + 1), "a", true)]);
        }
        assert!(spoiled.are_many());
        for sequence in 10..10 + 2 * SPOILED as u64 {
            spoiled.note("c", sequence, &[of(sequence, "c", true)]);
        }
        assert_eq!((spoiled.next("b", 0), spoiled.next("c", 0)), (None, Some(10 + SPOILED as u64)));
    }
}
