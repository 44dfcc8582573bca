//! `h3cast get`.

use std::{
    io::{ErrorKind, Write},
    path::PathBuf,
    pin::pin,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, Uri, header};

use super::{Failure, complain};
use crate::{
    client::{Body, ClientError, Connection, Trust},
    identity::Fingerprint,
    server::DEFAULT_PORT,
    webtransport::{Closed, RecvStream, Session, StreamError},
};

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// The feed to read.
    #[arg(default_value_t = format!("https://localhost:{DEFAULT_PORT}/stream"))]
    url: String,
    /// Read it over a WebTransport session instead of a GET response.
    #[arg(long)]
    webtransport: bool,
    /// Folder whose cert.pem is trusted, if it is there.
    #[arg(long, env = "H3CAST_CERTS", value_name = "DIR", default_value = "certs")]
    certs: PathBuf,
    /// Trust the certificates in this file, and those that they vouch for.
    #[arg(long, value_name = "PEM", conflicts_with_all = ["cert_hash", "insecure"])]
    cacert: Option<PathBuf>,
    /// Trust the server whose certificate (DER) has this SHA-256, and no other.
    #[arg(long, value_name = "HEX", value_parser = fingerprint, conflicts_with = "insecure")]
    cert_hash: Option<Fingerprint>,
    /// Trust any server. Whoever is on the way can read and change everything.
    #[arg(long)]
    insecure: bool,
    /// Show protocol, status, headers and times on stderr.
    #[arg(short, long)]
    verbose: bool,
}

fn fingerprint(text: &str) -> Result<Fingerprint, String> {
    Fingerprint::from_hex(text).ok_or_else(|| "a SHA-256 hash has 64 hexadecimal digits".into())
}

impl GetArgs {
    fn trust(&self) -> Trust {
        if self.insecure {
            complain("--insecure: the server is not checked, anyone could be answering");
            return Trust::Anyone;
        }
        if let Some(hash) = self.cert_hash {
            return Trust::Hashes(vec![hash]);
        }
        let own = self.certs.join("cert.pem");
        match &self.cacert {
            Some(file) => Trust::Files(vec![file.clone()]),
            None if own.is_file() => Trust::Files(vec![own]),
            None => Trust::System,
        }
    }
}

/// What is told on stderr with `-v`.
struct Log {
    verbose: bool,
    start: Instant,
}

impl Log {
    fn say(&self, text: std::fmt::Arguments<'_>) {
        if self.verbose {
            // Nobody has to listen.
            let _ = writeln!(std::io::stderr(), "{:8.1} ms  {text}", self.start.elapsed().as_secs_f64() * 1000.0);
        }
    }

    fn headers(&self, headers: &HeaderMap) {
        for (name, value) in headers {
            self.say(format_args!("< {name}: {}", String::from_utf8_lossy(value.as_bytes())));
        }
    }
}

/// How long Ctrl-C waits for an orderly end.
const STOP_WAIT: Duration = Duration::from_secs(1);

pub(super) async fn run(args: GetArgs) -> Result<(), Failure> {
    let uri: Uri = args.url.parse().map_err(|_| Failure::usage(ClientError::Uri(args.url.clone())))?;
    let uri = with_path(uri)?;
    let log = Log { verbose: args.verbose, start: Instant::now() };
    let trust = args.trust();
    let (interrupt, interrupted) = tokio::sync::oneshot::channel();
    // A task of its own: while a reader of ours stalls, this one is stuck in writing to it.
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_err() {
            // There are no signals to wait for.
            return;
        }
        let _ = interrupt.send(());
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            () = tokio::time::sleep(STOP_WAIT) => {}
        }
        complain("interrupted");
        std::process::exit(130);
    });
    let interrupted = async {
        if interrupted.await.is_err() {
            std::future::pending::<()>().await;
        }
        Failure { code: 130, error: anyhow::anyhow!("interrupted") }
    };
    let mut interrupted = pin!(interrupted);
    let connection = tokio::select! {
        opened = Connection::open(&uri, &trust) => opened.map_err(|error| match error {
            ClientError::Uri(_) | ClientError::Certificate { .. } => Failure::usage(error),
            error => Failure::running(with_hint(error)),
        })?,
        interrupted = &mut interrupted => return Err(interrupted),
    };
    log.say(format_args!("* connected to {} over HTTP/3", connection.remote_address()));
    let got = tokio::select! {
        got = copy(&args, &connection, &uri, &log) => got,
        interrupted = interrupted => Err(interrupted),
    };
    // So that the server need not wait for a sign of us; a few milliseconds as a rule.
    connection.close().await;
    got
}

/// `https://host` means its root.
fn with_path(uri: Uri) -> Result<Uri, Failure> {
    let wrong = || Failure::usage(ClientError::Uri(uri.to_string()));
    let mut parts = uri.clone().into_parts();
    if parts.scheme.is_none() || parts.authority.is_none() {
        return Err(wrong());
    }
    if parts.path_and_query.is_none() {
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    }
    Uri::from_parts(parts).map_err(|_| wrong())
}

/// Writes what the server sends to standard output, to its end.
async fn copy(args: &GetArgs, connection: &Connection, uri: &Uri, log: &Log) -> Result<(), Failure> {
    let mut source = match args.webtransport {
        true => session(connection, uri, log).await?,
        false => response(connection, uri, log).await?,
    };
    let (mut chunks, mut bytes) = (0_u64, 0_u64);
    loop {
        match source.next().await {
            Ok(Some(chunk)) => {
                chunks += 1;
                bytes += chunk.len() as u64;
                log.say(format_args!("* {} bytes", chunk.len()));
                if !write(&chunk)? {
                    return Ok(());
                }
            }
            Ok(None) => break,
            Err(error) => return Err(Failure::running(error.context(format!("cut short after {bytes} bytes")))),
        }
    }
    source.check().map_err(Failure::running)?;
    log.say(format_args!("* clean end after {bytes} bytes in {chunks} reads"));
    Ok(())
}

fn with_hint(error: ClientError) -> anyhow::Error {
    let text = error.to_string();
    let hint = match text.contains("not trusted") {
        true => ": give --cacert PEM or --cert-hash HEX (`h3cast cert` shows both)",
        false => "",
    };
    anyhow::anyhow!("{text}{hint}")
}

/// What is read, in either way.
enum Source {
    Response(Box<Body>),
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
            Self::Response(body) => Ok(body.next().await?),
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
    fn check(&self) -> anyhow::Result<()> {
        match self {
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

async fn response(connection: &Connection, uri: &Uri, log: &Log) -> Result<Source, Failure> {
    log.say(format_args!("> GET {}", uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)));
    let mut response = connection.get(uri).await.map_err(Failure::running)?;
    log.say(format_args!("< HTTP/3 {}", response.status));
    log.headers(&response.headers);
    if !response.status.is_success() {
        let detail = problem(&response.headers, &mut response.body).await;
        return Err(Failure::running(anyhow::anyhow!("the server answered {}{detail}", response.status)));
    }
    Ok(Source::Response(Box::new(response.body)))
}

/// What the server says of an error, if it says it as RFC 9457 does.
async fn problem(headers: &HeaderMap, body: &mut Body) -> String {
    const LONGEST: usize = 16 * 1024;
    if headers.get(header::CONTENT_TYPE).is_none_or(|value| value != "application/problem+json") {
        return String::new();
    }
    let mut text = Vec::new();
    while let Ok(Some(bytes)) = body.next().await {
        text.extend_from_slice(&bytes);
        if text.len() > LONGEST {
            break;
        }
    }
    let problem: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    problem["detail"].as_str().map(|detail| format!(": {detail}")).unwrap_or_default()
}

async fn session(connection: &Connection, uri: &Uri, log: &Log) -> Result<Source, Failure> {
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

/// Writes a chunk to standard output at once; `false` when nobody reads any more.
fn write(chunk: &[u8]) -> Result<bool, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(chunk).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::running(anyhow::Error::new(error).context("cannot write to standard output"))),
    }
}
