//! `h3cast get` as a plain reader: what comes, as it comes, to the end or the first failure.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Uri, header};

use super::{Getting, Output};
use crate::{
    cli::{Failure, complain, remote},
    client::{Body, ClientError, Connection, viewer::ViewError},
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
    let Getting { log, progress, .. } = getting;
    let mut source = match webtransport {
        true => session(connection, uri, log).await?,
        false => response(connection, uri, log).await?,
    };
    if let Source::Response { length, .. } = &source {
        progress.begin(0, *length);
    }
    let (mut chunks, mut bytes) = (0_u64, 0_u64);
    loop {
        match source.next().await {
            Ok(Some(chunk)) => {
                chunks += 1;
                bytes += chunk.len() as u64;
                log.say(format_args!("* {} bytes", chunk.len()));
                if !output.write(&chunk)? {
                    return Ok(());
                }
                progress.advance(chunk.len());
            }
            Ok(None) => break,
            Err(error) => return Err(Failure::running(error.context(format!("cut short after {bytes} bytes")))),
        }
    }
    source.check(bytes).map_err(Failure::running)?;
    log.say(format_args!("* clean end after {bytes} bytes in {chunks} reads"));
    Ok(())
}

/// How long a body is, if its head says so.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What is read, in either way.
enum Source {
    Response {
        body: Box<Body>,
        /// How long it is, if the server says so.
        length: Option<u64>,
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

impl Source {
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
                anyhow::bail!("{bytes} bytes came of {length}")
            }
            Self::Datagrams { told, .. } => match told.sent {
                _ if told.skipped > 0 => anyhow::bail!("{} chunks did not fit into a datagram", told.skipped),
                Some(sent) if sent > told.received => anyhow::bail!("{} datagrams were lost", sent - told.received),
                Some(_) => Ok(()),
                None => anyhow::bail!("the server did not say how much it sent"),
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

async fn response(connection: &Connection, uri: &Uri, log: &remote::Log) -> Result<Source, Failure> {
    log.say(format_args!("> GET {}", uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)));
    let mut response = connection.get(uri).await.map_err(Failure::running)?;
    log.say(format_args!("< HTTP/3 {}", response.status));
    log.headers(&response.headers);
    if !response.status.is_success() {
        let detail = response.problem().await;
        let answered = ViewError::answered(response.status, &response.headers, detail);
        return Err(Failure::running(answered));
    }
    let length = length(&response.headers);
    Ok(Source::Response { body: Box::new(response.body), length })
}

async fn session(connection: &Connection, uri: &Uri, log: &remote::Log) -> Result<Source, Failure> {
    log.say(format_args!(
        "> CONNECT (webtransport) {}",
        uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
    ));
    let session = connection.webtransport(uri, HeaderMap::new(), &[]).await.map_err(|error| {
        if let ClientError::Refused { status, headers } = &error {
            log.say(format_args!("< HTTP/3 {status}"));
            log.headers(headers);
        }
        Failure::running(error)
    })?;
    log.say(format_args!("< session {} is open", session.id()));
    let stream = session.accept_uni().await.map_err(Failure::running)?;
    log.say(format_args!("< stream {}", stream.id()));
    let datagrams = uri.query().unwrap_or_default().split('&').any(|pair| pair == "delivery=datagrams");
    Ok(match datagrams {
        true => Source::Datagrams { session, stream, told: Told::default() },
        false => Source::Session { session, stream },
    })
}
