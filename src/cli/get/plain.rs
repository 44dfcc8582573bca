//! `h3cast get` as a plain reader: what comes, as it comes, to the end or the first failure. A feed
//! is read as frames, which bring every chunk and the reason of a failure; what another server sends
//! is written as it is.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};

use super::{
    Getting, Output, download,
    feed::{FeedOutput, Next},
    input,
};
use crate::{
    cli::{Failure, complain, remote},
    client::{Body, ClientError, Connection, answer, content_length, reader::Reader, viewer::ViewError},
    format,
    units::many,
    webtransport::{Closed, RecvStream, Session, StreamError},
};

/// Writes what the server sends to the output, to its end.
pub(super) async fn run(
    getting: &Getting,
    uri: &Uri,
    webtransport: bool,
    output: &mut Output,
    interrupted: impl Future<Output = Failure>,
) -> Result<(), Failure> {
    let mut interrupted = std::pin::pin!(interrupted);
    let connection = tokio::select! {
        opened = Connection::open(uri, &getting.trust) => opened.map_err(remote::failure)?,
        interrupted = &mut interrupted => return Err(interrupted),
    };
    getting.log.say(format_args!("* connected to {} over HTTP/3", connection.remote_address()));
    let got = tokio::select! {
        got = copy(getting, &connection, uri, webtransport, output) => got,
        interrupted = interrupted => Err(interrupted),
    };
    // So that the server need not wait for a sign of us; a few milliseconds as a rule.
    connection.close().await;
    got
}

async fn copy(
    getting: &Getting,
    connection: &Connection,
    uri: &Uri,
    webtransport: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let (source, frames) = match webtransport {
        true => session(connection, uri, getting).await?,
        false => response(connection, uri, getting, output).await?,
    };
    let typed = match getting.input {
        true => Some(source.input(uri, getting).await?),
        false => None,
    };
    tokio::select! {
        biased;
        got = read(getting, connection, uri, (source, frames), output) => got,
        refused = input::refused(connection, typed, &getting.log) => Err(refused),
    }
}

async fn read(
    getting: &Getting,
    connection: &Connection,
    uri: &Uri,
    (mut source, frames): (Transmission, bool),
    output: &mut Output,
) -> Result<(), Failure> {
    let Getting { log, progress, .. } = getting;
    if frames {
        let mut sink = FeedOutput::new(getting, output);
        let got = feed(&mut source, uri, &mut sink).await;
        sink.hint(Some(connection), uri).await;
        return got;
    }
    if let Transmission::Response { length, .. } = &source {
        progress.begin(0, *length);
    }
    let (mut chunks, mut bytes) = (0_u64, 0_u64);
    loop {
        match source.next().await {
            Ok(Some(chunk)) => {
                chunks += 1;
                bytes += chunk.len() as u64;
                log.say(format_args!("* {}", many(chunk.len() as u64, "byte")));
                if !output.write(&chunk)? {
                    return Ok(());
                }
                progress.advance(chunk.len());
            }
            Ok(None) => break,
            Err(error) => {
                return Err(Failure::running(error.context(format!("cut short after {}", many(bytes, "byte")))));
            }
        }
    }
    source.check(bytes).map_err(Failure::running)?;
    log.say(format_args!("* clean end after {} in {}", many(bytes, "byte"), many(chunks, "read")));
    Ok(())
}

/// Reads a feed from its frames.
async fn feed(source: &mut Transmission, uri: &Uri, sink: &mut FeedOutput<'_>) -> Result<(), Failure> {
    let mut reader = Reader::new(uri);
    loop {
        let cut = match source.next().await {
            Ok(Some(piece)) => reader.push(&piece).err().map(anyhow::Error::from),
            // Only the word that this was all may have been lost.
            Ok(None) | Err(_) if reader.is_complete() => break,
            Ok(None) => Some(anyhow::anyhow!("the stream ended before the feed did (--resume reconnects)")),
            Err(error) => Some(error),
        };
        while let Some(event) = reader.pop() {
            match sink.take(event, reader.stalled_by())? {
                Next::More => {}
                Next::Ended => return sink.finish(reader.missing(), reader.restarts()),
                Next::Unread => return Ok(()),
            }
        }
        if let Some(error) = cut {
            return Err(Failure::running(error.context(format!("cut short after {}", many(sink.bytes(), "byte")))));
        }
    }
    sink.finish(reader.missing(), reader.restarts())
}

/// Whether the URL says how the feed is to be written: then it comes so, and is written as it comes.
fn is_format_named(uri: &Uri) -> bool {
    pairs(uri).any(|pair| pair.starts_with("format="))
}

fn pairs(uri: &Uri) -> impl Iterator<Item = &str> {
    uri.query().unwrap_or_default().split('&')
}

/// How long a body is, if its head says so.
///
/// # Errors
///
/// When it is malformed (RFC 9114 §4.1.2): it is no number, or there are several.
pub(super) fn length(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    content_length(headers).map_err(Failure::running)
}

/// What is read, in either way.
enum Transmission {
    Response {
        body: Box<Body>,
        /// How long it is, if the server says so.
        length: Option<u64>,
        /// What it calls its session, if it takes input.
        id: Option<HeaderValue>,
    },
    Session {
        session: Session,
        stream: RecvStream,
    },
    /// The stream tells of what did not fit, and ends with the feed.
    Datagrams {
        session: Session,
        stream: RecvStream,
        told: Told,
    },
}

/// How long a datagram may still be on its way when the feed has ended.
const LATE_DATAGRAM: Duration = Duration::from_millis(500);

impl Transmission {
    /// Where what is typed goes.
    async fn input(&self, uri: &Uri, getting: &Getting) -> Result<input::To, Failure> {
        match self {
            Self::Session { session, .. } | Self::Datagrams { session, .. } => Ok(input::To::Session(session.clone())),
            Self::Response { id: Some(id), .. } => {
                let mut headers = remote::shown_token(getting.token.as_ref()).await?;
                headers.insert(remote::SESSION, id.clone());
                Ok(input::To::Response(input::uri(uri), headers))
            }
            Self::Response { id: None, .. } => Err(Failure::running(anyhow::anyhow!(
                "this feed takes no input: it must be served as exec:COMMAND with --per-viewer and --input"
            ))),
        }
    }

    async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        match self {
            Self::Response { body, .. } => Ok(body.next().await?),
            Self::Session { session, stream } => match stream.read_bytes(usize::MAX).await {
                Ok(bytes) => Ok(bytes),
                Err(error) => Err(reason(session, error).await),
            },
            Self::Datagrams { session, stream, told } => loop {
                tokio::select! {
                    biased;
                    datagram = session.recv_datagram() => {
                        told.received += 1;
                        return Ok(Some(datagram?));
                    }
                    piece = stream.read_bytes(usize::MAX) => match piece {
                        Ok(Some(piece)) => told.push(&piece),
                        Ok(None) => {
                            let late = tokio::time::timeout(LATE_DATAGRAM, session.recv_datagram()).await;
                            let late = late.ok().transpose()?;
                            told.received += u64::from(late.is_some());
                            return Ok(late);
                        }
                        Err(error) => return Err(reason(session, error).await),
                    },
                }
            },
        }
    }

    /// Whether everything came that the feed had.
    fn check(&self, bytes: u64) -> anyhow::Result<()> {
        match self {
            Self::Response { length: Some(length), .. } if *length != bytes => {
                anyhow::bail!("only {bytes} of {} arrived", many(*length, "byte"))
            }
            Self::Datagrams { told, .. } => match told.sent {
                _ if told.skipped > 0 => anyhow::bail!("{} did not fit into a datagram", many(told.skipped, "chunk")),
                Some(sent) if sent > told.received => {
                    let lost = sent - told.received;
                    anyhow::bail!(
                        "{} lost",
                        if lost == 1 { "1 datagram was".into() } else { format!("{lost} datagrams were") }
                    )
                }
                Some(_) => Ok(()),
                None => anyhow::bail!("the server did not report how much it sent"),
            },
            _ => Ok(()),
        }
    }
}

/// What the stream of a session with datagrams tells: a line of JSON for each chunk that did not
/// fit into one.
#[derive(Default)]
struct Told {
    line: Vec<u8>,
    skipped: u64,
    received: u64,
    /// How many datagrams the server has sent, once it says so.
    sent: Option<u64>,
}

/// The longest line that is looked at, in bytes.
const LONGEST_LINE: usize = 4096;

impl Told {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte != b'\n' {
                if self.line.len() < LONGEST_LINE {
                    self.line.push(*byte);
                }
                continue;
            }
            let line: serde_json::Value = serde_json::from_slice(&self.line).unwrap_or_default();
            self.sent = line["end"]["sent"].as_u64().or(self.sent);
            if line["skipped"].is_object() {
                self.skipped += 1;
                complain(&format!(
                    "chunk {} of {} bytes did not fit into a datagram",
                    line["skipped"]["seq"], line["skipped"]["bytes"]
                ));
            }
            self.line.clear();
        }
    }
}

/// Why a session's stream broke off. The session's own reason tells more, when there is one.
async fn reason(session: &Session, error: StreamError) -> anyhow::Error {
    const WAIT: Duration = Duration::from_secs(1);
    match tokio::time::timeout(WAIT, session.closed()).await {
        Ok(Closed::Clean { code, reason, .. }) if !reason.is_empty() => anyhow::anyhow!("{reason} (code {code})"),
        _ => error.into(),
    }
}

/// What a GET brings, and whether that is frames.
async fn response(
    connection: &Connection,
    uri: &Uri,
    getting: &Getting,
    output: &mut Output,
) -> Result<(Transmission, bool), Failure> {
    let log = &getting.log;
    log.say(format_args!("> GET {}", uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)));
    let mut request = Request::new(());
    *request.uri_mut() = uri.clone();
    request.headers_mut().extend(remote::shown_token(getting.token.as_ref()).await?);
    let as_named = is_format_named(uri);
    if !as_named {
        answer::prefer_frames(request.headers_mut());
    }
    let mut response = connection.request(request).await.map_err(Failure::running)?;
    log.say(format_args!("< HTTP/3 {}", response.status));
    log.headers(&response.headers);
    if !response.status.is_success() {
        let detail = response.problem().await;
        let answered = ViewError::answered(response.status, &response.headers, detail);
        return Err(Failure::running(answered));
    }
    if response.status == StatusCode::PARTIAL_CONTENT {
        let text = "the server sent a malformed response: 206 Partial Content, but no range was requested";
        return Err(Failure::running(anyhow::anyhow!(text)));
    }
    let length = length(&response.headers)?;
    if let Some(error) = answer::no_feed(connection, uri, &response.headers).await {
        return Err(Failure::running(error));
    }
    let frames = !as_named && answer::is_frames(&response.headers);
    if let (Output::Part(part), StatusCode::OK, false) = (output, response.status, frames) {
        download::record(part, uri, &response.headers)?;
    }
    let id = response.headers.get(remote::SESSION).cloned();
    Ok((Transmission::Response { body: Box::new(response.body), length, id }, frames))
}

/// What a session brings, and whether that is frames.
async fn session(connection: &Connection, uri: &Uri, getting: &Getting) -> Result<(Transmission, bool), Failure> {
    let log = &getting.log;
    log.say(format_args!(
        "> CONNECT (webtransport) {}",
        uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
    ));
    let datagrams = pairs(uri).any(|pair| pair == "delivery=datagrams");
    let offered: &[&str] = if datagrams || is_format_named(uri) { &[] } else { &[format::frames::MEDIA_TYPE] };
    let shown = remote::shown_token(getting.token.as_ref()).await?;
    // A feed that takes none would be published to.
    let asked = &if getting.input { input::for_session(uri) } else { uri.clone() };
    let session = match connection.webtransport(asked, shown.clone(), offered).await {
        Ok(session) => session,
        Err(ClientError::Refused { status, headers }) => {
            log.say(format_args!("< HTTP/3 {status}"));
            log.headers(&headers);
            return Err(Failure::running(
                answer::refused(connection, asked, shown.get(http::header::AUTHORIZATION), status, &headers).await,
            ));
        }
        Err(error) => return Err(Failure::running(error)),
    };
    log.say(format_args!("< session {} is open", session.id()));
    let stream = session.accept_uni().await.map_err(Failure::running)?;
    log.say(format_args!("< stream {}", stream.id()));
    if datagrams {
        return Ok((Transmission::Datagrams { session, stream, told: Told::default() }, false));
    }
    let frames = !offered.is_empty() && session.protocol() == Some(format::frames::MEDIA_TYPE);
    Ok((Transmission::Session { session, stream }, frames))
}
