//! The formats of a line. Whatever a client sends, a line stays one line, and its fields stay where they are.

use std::{
    borrow::Cow,
    fmt::{self, Display, Write},
    time::{Duration, SystemTime},
};

use http::Version;
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};

use crate::{app::Entry, shown};

/// The most bytes of a text. What is cut ends with `...`.
const LONGEST: usize = Entry::LONGEST;

/// nginx's and Apache's `combined`, and after it: seconds, how it ended, the feed, and the request's id.
pub(super) fn combined(entry: &Entry) -> String {
    let format = format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000");
    let time = OffsetDateTime::from(entry.ended).format(&format).unwrap_or_default();
    let mut line = String::with_capacity(256);
    let client = Or(entry.client.map(|client| client.ip()));
    let status = Or(entry.status.map(|status| status.as_u16()));
    // A string takes all.
    let _ = write!(
        line,
        "{client} - {} [{time}] \"{} {} {}\" {status} {} \"{}\" \"{}\" {} {} \"{}\" {}",
        // Without a quote around it, a name must not have spaces.
        Unquoted(entry.user.as_deref()),
        Quoted(Some(entry.method.as_str())),
        Quoted(Some(&entry.target)),
        protocol(entry.version),
        entry.sent,
        Quoted(entry.referrer.as_deref()),
        Quoted(entry.user_agent.as_deref()),
        Seconds(entry.duration),
        entry.end.as_str(),
        Quoted(entry.feed.as_deref()),
        Or(entry.request.as_ref()),
    );
    line
}

/// One object of JSON.
pub(super) fn json(entry: &Entry) -> String {
    let time = OffsetDateTime::from(rounded(entry.ended)).format(&Rfc3339).unwrap_or_default();
    let line = JsonLine {
        time,
        kind: entry.kind.as_str(),
        client: entry.client.map(|client| client.ip().to_string()),
        client_port: entry.client.map(|client| client.port()).filter(|port| *port > 0),
        user: entry.user.as_deref(),
        connection: entry.connection,
        request: entry.request.as_ref().map(ToString::to_string),
        trace: entry.trace.map(|trace| trace.to_string()),
        protocol: protocol(entry.version),
        method: cut(entry.method.as_str()),
        host: entry.host.as_deref().map(cut),
        target: cut(&entry.target),
        status: entry.status.map(|status| status.as_u16()),
        sent: entry.sent,
        received: entry.received,
        duration: entry.duration.as_micros() as f64 / 1e6,
        end: entry.end.as_str(),
        feed: entry.feed.as_deref(),
        user_agent: entry.user_agent.as_deref().map(cut),
        referrer: entry.referrer.as_deref().map(cut),
    };
    // Nothing in it cannot be written.
    shown::json(&serde_json::to_string(&line).unwrap_or_default())
}

#[derive(Serialize)]
struct JsonLine<'a> {
    time: String,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
    protocol: &'a str,
    method: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<Cow<'a, str>>,
    target: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    sent: u64,
    received: u64,
    duration: f64,
    end: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    feed: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    referrer: Option<Cow<'a, str>>,
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/3.0",
    }
}

/// To the microsecond.
fn rounded(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_micros(since.as_micros() as u64)
}

fn cut(text: &str) -> Cow<'_, str> {
    match text.len() > LONGEST {
        true => format!("{}...", &text[..text.floor_char_boundary(LONGEST)]).into(),
        false => text.into(),
    }
}

/// What is not there is `-`.
struct Or<T>(Option<T>);

impl<T: Display> Display for Or<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// What stands between quotes, escaped as nginx does it: `"`, `\` and all but visible ASCII as `\xXX`.
struct Quoted<'a>(Option<&'a str>);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.0, |byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'), f)
    }
}

/// The same without quotes around it.
struct Unquoted<'a>(Option<&'a str>);

impl Display for Unquoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.0, |byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'[' | b']'), f)
    }
}

fn escape(text: Option<&str>, is_plain: impl Fn(u8) -> bool, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let text = cut(text.filter(|text| !text.is_empty()).unwrap_or("-"));
    for byte in text.bytes() {
        match is_plain(byte) {
            true => f.write_char(byte.into())?,
            false => write!(f, "\\x{byte:02X}")?,
        }
    }
    Ok(())
}

/// With milliseconds.
struct Seconds(Duration);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0.as_secs(), self.0.subsec_millis())
    }
}
