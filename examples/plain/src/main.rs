//! h3cast in one file: ten chunks, 100 ms apart, for every viewer, as the body of an HTTP/3 response
//! and over a WebTransport session; and the page that shows them.
//!
//! ```sh
//! cargo run -p plain                # then paste the printed Chrome command into another terminal
//! cargo run -p plain 4433 0 20      # the port; how many chunks, 0 for no end; milliseconds between them
//! ```
//!
//! It speaks HTTP/3 and nothing else. HTTP/3 runs over UDP, and a browser that meets a server for the
//! first time tries TCP: the flags of the printed command make it use HTTP/3 at once, and trust the
//! certificate. docs/plain.md explains what is missing here, and why h3cast is longer.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use h3::{ext::Protocol, quic::BidiStream, server::RequestStream};
use h3_webtransport::server::{AcceptedBi, WebTransportSession};
use http::{Method, Request, Response, Uri};
use include_dir::{Dir, include_dir};
use quinn::{Endpoint, Incoming, crypto::rustls::QuicServerConfig};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls::{crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256, pki_types::PrivatePkcs8KeyDer};
use tokio::io::AsyncWriteExt;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;
type Stream = RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;
type Session = WebTransportSession<h3_quinn::Connection, Bytes>;

/// The files of the page, inside the program.
static PAGE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../static");

/// What all connections share: what `/info` answers, and the feed as each viewer begins it.
struct Server {
    info: String,
    feed: Feed,
}

#[tokio::main]
async fn main() -> Result<()> {
    // 1. A certificate. Browsers accept one by its hash only if it is ECDSA and valid for at most 14
    // days. It begins an hour ago, for browsers whose clock is slow.
    let key = KeyPair::generate()?; // ECDSA P-256
    let mut params = CertificateParams::new(["localhost", "127.0.0.1", "::1"].map(String::from))?;
    let hour = Duration::from_secs(60 * 60);
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + SystemTime::now().duration_since(UNIX_EPOCH)? - hour;
    params.not_after = params.not_before + 13 * 24 * hour;
    let certificate = params.self_signed(&key)?.der().clone();
    let certificate_hash = sha256(&certificate);
    let key_hash = base64(&sha256(&key.subject_public_key_info()));

    // 2. TLS, which has to offer "h3", and QUIC, which has TLS inside.
    let mut tls = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivatePkcs8KeyDer::from(key.serialize_der()).into())?;
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let quic = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));

    // 3. UDP sockets: `localhost` has two addresses, and Chromium tries only the first, that of IPv6.
    let mut port = u16::try_from(argument(1, 4433)?)?;
    let mut endpoints = Vec::new();
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let endpoint = Endpoint::server(quic.clone(), SocketAddr::new(ip, port))
            .map_err(|error| format!("cannot listen on {ip}, UDP port {port}: {error}"))?;
        port = endpoint.local_addr()?.port();
        endpoints.push(endpoint);
    }

    // 4. What the page asks for: where the chunks are, and by which hash to know the certificate.
    let url = format!("https://localhost:{port}");
    let info = format!(
        r#"{{ "version": "{version} (plain)",
  "feeds": [{{ "name": "default", "url": "{url}/stream", "kind": "on-demand" }}],
  "webtransport": {{ "url": "{url}/stream",
    "certificateHashes": [{{ "algorithm": "sha-256", "value": "{hash}" }}] }} }}"#,
        version = env!("CARGO_PKG_VERSION"),
        hash = base64(&certificate_hash),
    );
    let hex: String = certificate_hash.iter().map(|byte| format!("{byte:02x}")).collect();
    println!(
        "ready {url}/
  certificate    SHA-256 {hex} (DER)
  public key     SHA-256 {key_hash} (SPKI, base64)
  Chrome with the page over HTTP/3:
    google-chrome --user-data-dir=/tmp/plain-chrome --no-first-run --origin-to-force-quic-on=localhost:{port} \
     --ignore-certificate-errors-spki-list={key_hash} {url}/"
    );

    // 5. A task for every connection, until Ctrl-C. It takes a moment to tell the clients.
    let feed =
        Feed { number: 0, count: argument(2, 10)?, interval: Duration::from_millis(argument(3, 100)?), frames: false };
    let server = Arc::new(Server { info, feed });
    for endpoint in endpoints.clone() {
        let server = server.clone();
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                // An error means that the client has left, here and for its requests.
                tokio::spawn(connection(incoming, server.clone()));
            }
        });
    }
    tokio::signal::ctrl_c().await?;
    for endpoint in endpoints {
        endpoint.close(0x100_u32.into(), b"shutting down"); // H3_NO_ERROR
        endpoint.wait_idle().await;
    }
    Ok(())
}

/// A number from the command line.
fn argument(position: usize, default: u64) -> Result<u64> {
    let Some(text) = std::env::args().nth(position) else { return Ok(default) };
    Ok(text.parse().map_err(|_| format!("{text} is not a number. Usage: plain [PORT [CHUNKS [MILLISECONDS]]]"))?)
}

/// A connection: a task for every request, or one session.
async fn connection(incoming: Incoming, server: Arc<Server>) -> Result<()> {
    let mut connection = h3::server::builder()
        .enable_extended_connect(true)
        .enable_webtransport(true)
        .enable_datagram(true)
        .max_webtransport_sessions(1)
        .build::<_, Bytes>(h3_quinn::Connection::new(incoming.await?))
        .await?;
    while let Some(resolver) = connection.accept().await? {
        // A request may be reset before it is complete; the connection continues.
        let Ok((request, stream)) = resolver.resolve_request().await else { continue };
        if request.extensions().get() == Some(&Protocol::WEB_TRANSPORT) {
            let feed = server.feed.for_viewer(request.uri());
            // From here on the connection belongs to the session.
            return push(feed, WebTransportSession::accept(request, stream, connection).await?).await;
        }
        tokio::spawn(respond(request, stream, server.clone()));
    }
    Ok(())
}

/// Answers a request.
async fn respond(request: Request<()>, mut stream: Stream, server: Arc<Server>) -> Result<()> {
    match request.uri().path() {
        // There is nothing to publish to, nor any chat: the page asks with HEAD.
        _ if request.method() != Method::GET => stream.send_response(head(404, "text/plain")?).await?,
        "/stream" => {
            stream.send_response(head(200, "text/plain; charset=utf-8")?).await?;
            let mut feed = server.feed.for_viewer(request.uri());
            while let Some(chunk) = feed.next().await {
                // One DATA frame, sent at once. If the viewer is slow, this waits.
                stream.send_data(chunk).await?;
            }
        }
        // The start page asks for `/feeds` as well.
        "/info" | "/feeds" => {
            stream.send_response(head(200, "application/json")?).await?;
            stream.send_data(server.info.clone().into()).await?;
        }
        path => match PAGE.get_file(if path == "/" { "index.html" } else { path.trim_start_matches('/') }) {
            Some(file) => {
                stream.send_response(head(200, media_type(path))?).await?;
                stream.send_data(Bytes::from_static(file.contents())).await?;
            }
            None => stream.send_response(head(404, "text/plain")?).await?,
        },
    }
    Ok(stream.finish().await?)
}

/// The head of a response. Without `nosniff`, Chromium would wait for more text before it shows any.
fn head(status: u16, media_type: &str) -> Result<Response<()>> {
    let head = Response::builder().status(status).header("content-type", media_type);
    Ok(head.header("x-content-type-options", "nosniff").header("cache-control", "no-store").body(())?)
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit_once('.') {
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "mjs")) => "text/javascript; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "text/html; charset=utf-8",
    }
}

/// A session: the server opens a stream and writes the same chunks to it. Afterwards it returns what
/// the client sends on streams of its own, until the client leaves.
async fn push(mut feed: Feed, session: Session) -> Result<()> {
    let mut stream = session.open_uni(session.session_id()).await?;
    while let Some(chunk) = feed.next().await {
        stream.write_all(&chunk).await?;
    }
    stream.shutdown().await?;
    while let Some(AcceptedBi::BidiStream(_, stream)) = session.accept_bi().await? {
        let (mut send, mut recv) = BidiStream::<Bytes>::split(stream);
        tokio::io::copy(&mut recv, &mut send).await?;
        send.shutdown().await?;
    }
    Ok(())
}

/// The feed, as one viewer reads it.
#[derive(Clone)]
struct Feed {
    number: u64,
    count: u64,
    interval: Duration,
    frames: bool,
}

impl Feed {
    /// From the beginning. The start page asks for `?format=frames`: chunks with numbers and times.
    fn for_viewer(&self, uri: &Uri) -> Self {
        Self { frames: uri.query().is_some_and(|query| query.contains("format=frames")), ..self.clone() }
    }

    /// The next chunk, when it is time for it; `None` after the last.
    async fn next(&mut self) -> Option<Bytes> {
        let number = self.number;
        self.number += 1;
        if self.count > 0 && number >= self.count {
            return (self.frames && number == self.count).then(|| frame(2, &[0], "").into()); // "end"
        }
        if number > 0 {
            tokio::time::sleep(self.interval).await;
        }
        let text = format!("data chunk #{number}\n");
        if !self.frames {
            return Some(text.into());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        // "begin" names this run of the feed, so that no other is taken for its continuation.
        let begin = if number == 0 { frame(3, &[now, 0], "") } else { Vec::new() };
        Some([begin, frame(0, &[number, now], &text)].concat().into())
    }
}

/// A frame of docs/protocol.md: type, length, numbers, text. Numbers are those of QUIC (RFC 9000
/// §16): the first two bits are the size, 0 for one byte (below 64) and 3 for eight.
fn frame(ty: u8, numbers: &[u64], text: &str) -> Vec<u8> {
    let numbers: Vec<u8> = numbers.iter().flat_map(|number| (3 << 62 | number).to_be_bytes()).collect();
    [&[ty, (numbers.len() + text.len()) as u8], &numbers[..], text.as_bytes()].concat()
}

/// TLS needs SHA-256 too, so rustls has it.
fn sha256(bytes: &[u8]) -> Vec<u8> {
    TLS13_AES_128_GCM_SHA256.tls13().expect("it is of TLS 1.3").common.hash_provider.hash(bytes).as_ref().to_vec()
}

/// Three bytes become four digits of six bits each.
fn base64(bytes: &[u8]) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let four = |three: &[u8]| {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | usize::from(*three.get(at).unwrap_or(&0)));
        [18, 12, 6, 0].map(|shift| digits[bits >> shift & 63] as char).into_iter().take(three.len() + 1)
    };
    let mut text: String = bytes.chunks(3).flat_map(four).collect();
    text.extend(std::iter::repeat_n('=', (4 - text.len() % 4) % 4));
    text
}
